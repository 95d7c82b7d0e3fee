//! `lakebed recover --force`: what is left of a cluster goes on from one node.
//!
//! Exit codes: 0 when the node is the only voter, 1 when it does not become it in each of its
//! groups, 2 when the command line cannot be meant.

use crate::{
    args::{Recover, refuse},
    explain as told_as_error,
    groups_file::GroupsFile,
    log::note,
    look::name_one,
    progress::bytes_bar,
    say,
};
use anyhow::{Result, anyhow, bail};
use indicatif::ProgressBar;
use lakebed::{Forced, Halt};
use lakebed_runtime::{DirError, Force, ForceError, RECORD, force};
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    io::{self, BufRead, IsTerminal, Write},
    net::{TcpStream, ToSocketAddrs},
    path::Path,
    process::ExitCode,
    time::Duration,
};

/// How long another member has to take a connection.
const KNOCK: Duration = Duration::from_millis(500);

/// What was done.
#[derive(Serialize, Debug)]
struct Told {
    dir: String,
    /// Whether an earlier try had done it: then no more is known than where it is on record.
    was_done: bool,
    cluster: String,
    group: u64,
    node: u64,
    /// The cluster epoch before, and after.
    epoch_before: u64,
    epoch: u64,
    term: u64,
    /// Those who are out.
    members_lost: Vec<u64>,
    last_index: u64,
    last_term: u64,
    committed: u64,
    /// Entries that are known to have been there, and are not here.
    known_loss: Option<(u64, u64)>,
    cut_from: Option<u64>,
    /// Those of the others where somebody takes a connection.
    others_answer: Vec<u64>,
    /// Those of the others whose address is not found from here.
    others_not_found: Vec<u64>,
    record: String,
}

/// What was found of the other members.
#[derive(Default)]
struct Others {
    answer: Vec<u64>,
    not_found: Vec<u64>,
}

pub(crate) fn run(args: &Recover) -> Result<ExitCode> {
    let dir = &args.dir;
    if !args.force {
        refuse(
            "what `recover` does is by force: acknowledged writes may be lost, and every other \
             member is out for good; see docs/lost-quorum.md, then add --force",
        );
    }
    let Some(groups) = GroupsFile::read(dir)? else {
        let told = recover(dir, args).map_err(|error| explain(error, dir))?;
        told.iter().for_each(say);
        return Ok(ExitCode::SUCCESS);
    };
    let (mut all, mut code) = (Vec::new(), ExitCode::SUCCESS);
    let mut folders = groups.folders(dir);
    while let Some((group, folder)) = folders.next() {
        let failure = match recover(&folder, args) {
            Ok(told) => {
                all.extend(told);
                continue;
            }
            // A command that stopped half way is given again as it was.
            Err(Failure::Force(ForceError::Halted(halt))) if is_alone(&halt) => {
                note(format_args!("group {group}: this node is its only voter already"));
                let (dir, record) = (folder.display().to_string(), record(&folder));
                let was_done = folder.join(RECORD).exists();
                all.push(
                    json!({ "dir": dir, "group": group, "was_done": was_done, "record": record }),
                );
                continue;
            }
            Err(failure) => failure,
        };
        // Whether this is the right survivor is in doubt then, and with it the other groups.
        let is_in_doubt = matches!(failure, Failure::Asked(_));
        let error = told_as_error(&explain(failure, &folder));
        note(format_args!("error: group {group}: {error}"));
        all.push(json!({ "dir": folder.display().to_string(), "group": group, "error": error }));
        code = ExitCode::FAILURE;
        if is_in_doubt {
            if let Some((next, _)) = folders.next() {
                note(format_args!("nothing was tried of the groups from group {next} on"));
            }
            break;
        }
    }
    if args.json {
        say(json!({ "groups": all }));
    }
    Ok(code)
}

/// Why it was not done.
enum Failure {
    Force(ForceError),
    /// What whoever was asked is to hear.
    Asked(anyhow::Error),
}

fn is_alone(halt: &Halt) -> bool {
    matches!(halt, Halt::Refused { row: "already-alone", .. })
}

/// One group's directory. What was done is said in lines, or comes back to be said as JSON.
fn recover(dir: &Path, args: &Recover) -> Result<Option<Value>, Failure> {
    let (mut why_not, mut others) = (None, Others::default());
    let (reads, writes) = (bytes_bar("read the log"), bytes_bar("write it again"));
    let accept = |plan: &Forced| {
        // What is asked must not be drawn over.
        reads.finish_and_clear();
        ask(plan, dir, args, &mut others).unwrap_or_else(|error| {
            why_not = Some(error);
            false
        })
    };
    let done = force(dir, accept, |effort| {
        let bar = if effort.is_accepted { &writes } else { &reads };
        bar.set_length(effort.bytes_total);
        bar.set_position(effort.bytes_done);
    });
    [reads, writes].iter().for_each(ProgressBar::finish_and_clear);
    let asked = |error| Err(Failure::Asked(error));
    match (done.map_err(Failure::Force)?, why_not) {
        (_, Some(error)) => asked(error),
        (Force::Declined(_), None) => asked(anyhow!("nothing was changed in {}", dir.display())),
        (Force::WasDone, None) => {
            let (dir, record) = (dir.display().to_string(), record(dir));
            if args.json {
                return Ok(Some(json!({ "dir": dir, "was_done": true, "record": record })));
            }
            say(format_args!(
                "{dir}: an earlier `recover --force` did it and was cut short; nothing is left to \
                 do: start this node"
            ));
            Ok(None)
        }
        (Force::Done(forced), None) => {
            if args.json {
                return Ok(Some(json!(told(&forced, dir, others))));
            }
            tell(&forced, dir);
            Ok(None)
        }
        (other, None) => {
            asked(anyhow!("it ended in a way that this program does not know: {other:?}"))
        }
    }
}

/// Says what would be done and who of the others answers, and whether it is wanted.
fn ask(plan: &Forced, dir: &Path, args: &Recover, found: &mut Others) -> Result<bool> {
    let dir = dir.display();
    note(plan);
    let others = plan.members.members().filter(|member| member.id != plan.node);
    for (node, address) in others.map(|member| (member.id, name(&member.address))) {
        match knock(&address) {
            Knock::Answered => {
                found.answer.push(node.0);
                note(format_args!(
                    "ATTENTION    something answers at {address}, where node {node} was: if it lives, \
                     the quorum may not be lost; it will end as soon as it hears of this node"
                ));
            }
            Knock::NotFound(error) => {
                found.not_found.push(node.0);
                note(format_args!(
                    "ATTENTION    node {node} could not be asked whether it lives: {address:?} is not \
                     found ({error}); look yourself, if it lives the quorum may not be lost"
                ));
            }
            Knock::Silent => {}
        }
    }
    if let (Some(who), true, false) = (listed(&found.answer), args.yes, args.though_others_answer) {
        bail!(
            "{who} answered just now, where the members are that would be left behind: look there with `lakebed status` first, for \
             a majority that lives needs no recovery, and loses by this one what it has written since; \
             if it is something else that answers, or is to be left behind, add \
             --though-others-answer. Nothing was changed in {dir}"
        );
    }
    if let (Some((from, to)), true, false) = (plan.known_loss(), args.yes, args.accept_known_loss) {
        bail!(
            "node {} is known to lack entries {from} to {to} that were there: compare the other \
             survivors with `lakebed inspect` and recover the one that has them; if there is none, \
             add --accept-known-loss. Nothing was changed in {dir}",
            plan.node
        );
    }
    if args.yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        bail!(
            "nobody is there to be asked: add --yes, if what is written above is understood. \
             Nothing was changed in {dir}"
        );
    }
    let though = listed(&found.answer).map(|who| format!(", THOUGH {who} ANSWERED"));
    let though = though.unwrap_or_default();
    write!(io::stderr(), "go on from node {} alone{though}? [y/N] ", plan.node)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// "node 2", or "nodes 2 and 3"; nothing of none.
fn listed(nodes: &[u64]) -> Option<String> {
    let (last, before) = nodes.split_last()?;
    let before: Vec<_> = before.iter().map(u64::to_string).collect();
    Some(match &before[..] {
        [] => format!("node {last}"),
        before => format!("nodes {} and {last}", before.join(", ")),
    })
}

fn name(address: &[u8]) -> String {
    String::from_utf8_lossy(address).into_owned()
}

/// What becomes of a connection to where a member was.
enum Knock {
    /// Somebody takes it.
    Answered,
    Silent,
    /// The name leads nowhere from here: that says nothing of the member.
    NotFound(io::Error),
}

fn knock(address: &str) -> Knock {
    let mut found = match address.to_socket_addrs() {
        Ok(found) => found,
        Err(error) => return Knock::NotFound(error),
    };
    let answers = found.any(|at| TcpStream::connect_timeout(&at, KNOCK).is_ok());
    if answers { Knock::Answered } else { Knock::Silent }
}

fn record(dir: &Path) -> String {
    dir.join(RECORD).display().to_string()
}

fn told(forced: &Forced, dir: &Path, found: Others) -> Told {
    let others = forced.members.members().map(|member| member.id);
    Told {
        dir: dir.display().to_string(),
        was_done: false,
        cluster: forced.cluster.to_string(),
        group: forced.group.0,
        node: forced.node.0,
        epoch_before: forced.epoch.0,
        epoch: forced.epoch.1,
        term: forced.term.1.0,
        members_lost: others.filter(|id| *id != forced.node).map(|id| id.0).collect(),
        last_index: forced.last.index.0,
        last_term: forced.last.term.0,
        committed: forced.committed.0,
        known_loss: forced.known_loss().map(|(from, to)| (from.0, to.0)),
        cut_from: forced.cut.map(|from| from.0),
        others_answer: found.answer,
        others_not_found: found.not_found,
        record: record(dir),
    }
}

fn tell(forced: &Forced, dir: &Path) {
    // Those of other groups on the same nodes are as good as ever.
    let is_groups = dir.parent().is_some_and(GroupsFile::is_in);
    say(format_args!(
        "{}: node {} is the only voter, in cluster epoch {}; on record in {}\n\
         start it as before, remove {} of all other members, and grow again by nodes \
         with new ids (`lakebed serve --join`, `lakebed member add`, `promote`)",
        dir.display(),
        forced.node,
        forced.epoch.1,
        record(dir),
        if is_groups { "this group's folder" } else { "the directories" }
    ));
}

/// With what to do instead.
fn explain(failure: Failure, dir: &Path) -> anyhow::Error {
    let dir = dir.display();
    let error = match failure {
        Failure::Force(error) => error,
        Failure::Asked(error) => return error,
    };
    match &error {
        ForceError::Directory(DirError::InUse { .. }) => anyhow!(
            "{error}; a quorum is recovered on a node that does not run: stop it first, or see with \
             `lakebed status` whether it has one after all"
        ),
        ForceError::Directory(DirError::NotANode { path, .. }) => {
            name_one(path, "recover --force").unwrap_or_else(|| error.into())
        }
        ForceError::Halted(halt) if **halt == Halt::NotFormatted => anyhow!(
            "{dir} bears a node's name and has no node in it: it never was formatted, or was \
             wiped; recover another survivor, or restore a backup"
        ),
        ForceError::Halted(halt) => match &**halt {
            Halt::Refused { row: "already-alone", found, .. } => {
                anyhow!(
                    "{dir}: already-alone: it has {found}, nobody's vote is missing; start this node"
                )
            }
            Halt::Refused { expected, found, row, .. } => {
                anyhow!("{dir}: not recovered by force ({row}): expected {expected}; found {found}")
            }
            halt => anyhow!("{dir}: {halt}"),
        },
        ForceError::Record { .. } => anyhow!("{error}; try again"),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    use std::net::{SocketAddr, TcpListener};

    /// Only numbers were knocked at, and of names nothing was said.
    #[test]
    fn a_member_is_knocked_at_by_name_as_well() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(matches!(knock(&format!("127.0.0.1:{port}")), Knock::Answered));
        assert!(matches!(knock(&format!("localhost:{port}")), Knock::Answered));
        // It listens to nobody, and nobody else is given its port meanwhile.
        let held = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&held, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let port = SocketAddr::try_from(getsockname(&held).unwrap()).unwrap().port();
        assert!(matches!(knock(&format!("localhost:{port}")), Knock::Silent));
        for nowhere in ["nowhere.invalid:1", "no address", ""] {
            assert!(matches!(knock(nowhere), Knock::NotFound(_)), "{nowhere}");
        }
    }
}

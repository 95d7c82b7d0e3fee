//! `lakebed recover --force` as its user meets it: two of three are lost for ever, the third goes
//! on alone, grows again, and those of before stay out; and everything that can be wrong.

use crate::{
    cluster::Cluster,
    common::{
        Patient, Process, Scratch, eventually, fails, json, lakebed, local, output,
        output_at_a_terminal, output_of, text,
    },
    lone::Lone,
    ports::ports,
};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    fs,
    io::{Seek, Write},
    path::{Path, PathBuf},
    process::Output,
};

const RECORD: &str = "recovered-by-force";

#[track_caller]
fn told(args: &[&str]) -> String {
    let output = output(args);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap() + &complaint
}

/// Every file and what is in it.
fn contents(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = files.map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    all.sort();
    all
}

/// Until the node has done it: it may just have started.
#[track_caller]
fn done_in_time(args: &[&str]) {
    eventually("the node does it", || output(args).status.success());
}

#[test]
fn a_survivor_goes_on_alone_and_grows_and_the_others_stay_out() {
    let mut cluster = Cluster::start(Scratch::new(), &[], |command| command);
    for n in 0..100_u64 {
        cluster.node(n).ask::<String>(&["SET", &format!("key-{n}"), &format!("value-{n}")]);
    }
    cluster.check_digests();
    cluster.kill(1..3);
    let attic = Scratch::new();
    let kept = attic.path().join("node-2");
    fs::rename(cluster.node_dir(1), &kept).unwrap();
    fs::remove_dir_all(cluster.node_dir(2)).unwrap();
    let dir = cluster.node_dir(0);
    let recover = ["recover", text(&dir), "--force", "--yes"];
    fails(&recover, 1, &["is locked by process", "on a node that does not run"]);
    cluster.nodes[0].signal(Signal::TERM);
    cluster.nodes[0].ended();

    let before = contents(&dir);
    fails(&recover[..3], 1, &["nobody is there to be asked", "may be lost", "voters 1,2,3"]);
    assert!(before == contents(&dir), "nothing is changed before it is wanted");
    let made = json(&recover);
    assert_eq!((&made["epoch_before"], &made["epoch"]), (&0.into(), &1.into()), "{made}");
    assert_eq!(made["members_lost"], serde_json::json!([2, 3]), "{made}");
    assert_eq!(made["known_loss"], Value::Null, "{made}");
    assert_eq!(made["others_answer"], serde_json::json!([]), "{made}");
    let record = fs::read_to_string(dir.join(RECORD)).unwrap();
    assert!(record.starts_with("begun    20") && record.contains("\nfinished 20"), "{record}");
    for expected in ["member       3 at 127.0.0.1:", "may be lost", "epoch is 0, becomes 1"] {
        assert!(record.contains(expected), "{expected}: {record}");
    }
    let inspected = json(&["inspect", text(&dir)]);
    assert_eq!(inspected["hard_state"]["cluster_epoch"], 1, "{inspected}");
    assert!(told(&["inspect", text(&dir)]).contains("cluster epoch 1: recovered by force"));
    assert!(output(&["verify", text(&dir)]).status.success(), "files of both epochs are well");
    fails(&recover, 1, &["already-alone", "start this node", "in cluster epoch 1"]);

    cluster.restart(0);
    cluster.nodes[0].says("ready");
    let mut alone = cluster.node(0);
    for n in 0..100_u64 {
        assert_eq!(alone.ask::<String>(&["GET", &format!("key-{n}")]), format!("value-{n}"));
    }
    alone.ask::<String>(&["SET", "alone", "yes"]);

    let address = local(cluster.clients);
    let (peers, clients) = (ports(1), ports(1));
    let new = local(peers);
    let fourth = cluster.join(3, peers, clients);
    fails(&["member", "add", &address, "2", &new], 1, &["used before", "free one is 4"]);
    done_in_time(&["member", "add", &address, "4", &new]);
    done_in_time(&["member", "promote", &address, "4"]);
    assert_eq!(Patient::new(clients).ask::<String>(&["GET", "alone"]), "yes");
    assert_eq!(Patient::new(clients).ask::<String>(&["GET", "key-7"]), "value-7");

    // What was thought to be lost comes back as it was.
    fs::rename(&kept, cluster.node_dir(1)).unwrap();
    cluster.restart(1);
    let old = &mut cluster.nodes[1];
    assert_eq!(old.ended().code(), Some(1));
    let why = old.errors();
    for expected in ["cluster epoch 0, and node 1 of 1", "recovered by force", "under a new id"] {
        assert!(why.contains(expected), "{expected}: {why}");
    }
    alone.ask::<String>(&["SET", "still", "well"]);
    assert_eq!(Patient::new(clients).ask::<String>(&["GET", "still"]), "well");
    // The node that joined is of the new epoch after a restart as well.
    drop(fourth);
    let again = cluster.join(3, peers, clients);
    again.says("ready");
    assert_eq!(Patient::new(clients).ask::<String>(&["GET", "still"]), "well");
}

/// Without `--yes` it asks, and only whoever says so at a terminal is taken for willing: not one who
/// presses a key, goes away, or is a pipe.
#[test]
fn only_a_yes_at_a_terminal_is_a_yes() {
    let mut cluster = Cluster::start(Scratch::new(), &[], |command| command);
    cluster.node(0).ask::<String>(&["SET", "key", "value"]);
    cluster.check_digests();
    cluster.kill(0..3);
    let dir = cluster.node_dir(2);
    let recover = ["recover", text(&dir), "--force"];
    let before = contents(&dir);
    let told = |output: &Output| {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.contains("may be lost") && stderr.contains("voters 1,2,3"), "{stderr}");
        (output.status.code(), stderr)
    };
    // The last one is the end of what is typed: Ctrl-D.
    for typed in ["n\n", "\n", "N\n", "no\n", "yesterday\n", "\u{4}"] {
        let (code, stderr) = told(&output_at_a_terminal(&recover, typed));
        assert_eq!(code, Some(1), "{typed:?}: {stderr}");
        for expected in ["go on from node 3 alone? [y/N]", "nothing was changed in"] {
            assert!(stderr.contains(expected), "{typed:?}, {expected}: {stderr}");
        }
        assert!(before == contents(&dir), "after {typed:?} nothing is changed");
    }
    let said = file_of("y\n");
    let (code, stderr) = told(&output_of(lakebed(&recover).stdin(said)));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("nobody is there to be asked: add --yes"), "{stderr}");
    assert!(!stderr.contains("[y/N]"), "{stderr}");
    assert!(before == contents(&dir), "a file is nobody");

    let (code, stderr) = told(&output_at_a_terminal(&recover, "y\n"));
    assert_eq!(code, Some(0), "{stderr}");
    let record = fs::read_to_string(dir.join(RECORD)).unwrap();
    assert!(record.contains("\nfinished 20"), "{record}");
    cluster.restart(2);
    cluster.nodes[2].says("ready");
    assert_eq!(cluster.node(2).ask::<String>(&["GET", "key"]), "value");
}

/// With `--yes` it went on from a node that had been stopped a while, beside a majority that served: what
/// had been written since was lost, and nothing but a line on the way told that they answered.
#[test]
fn a_majority_that_lives_is_not_left_behind_by_a_mere_yes() {
    let mut cluster = Cluster::start(Scratch::new(), &[], |command| command);
    cluster.node(1).ask::<String>(&["SET", "key", "old"]);
    cluster.check_digests();
    cluster.nodes[0].signal(Signal::TERM);
    cluster.nodes[0].ended();
    cluster.node(1).ask::<String>(&["SET", "key", "new"]);
    let dir = cluster.node_dir(0);
    let recover = ["recover", text(&dir), "--force"];
    let yes = [&recover[..], &["--yes"]].concat();
    let before = contents(&dir);
    let refused = ["nodes 2 and 3 answered", "--though-others-answer", "Nothing was changed in"];
    fails(&yes, 1, &refused);
    fails(&[&yes[..], &["--accept-known-loss", "--json"]].concat(), 1, &refused);
    fails(&[&recover[..], &["--though-others-answer"]].concat(), 2, &["--yes"]);
    let asked = output_at_a_terminal(&recover, "n\n");
    let stderr = String::from_utf8_lossy(&asked.stderr);
    assert_eq!(asked.status.code(), Some(1), "{stderr}");
    let question = "go on from node 1 alone, THOUGH nodes 2 and 3 ANSWERED? [y/N]";
    assert!(stderr.contains(question), "{stderr}");
    assert!(before == contents(&dir), "nothing is changed");

    // One of them may be somebody else at its old address: then there is a way.
    cluster.kill(2..3);
    fails(&yes, 1, &["node 2 answered", "--though-others-answer"]);
    assert!(before == contents(&dir), "nothing is changed");
    let made = json(&[&yes[..], &["--though-others-answer"]].concat());
    assert_eq!(made["others_answer"], serde_json::json!([2]), "{made}");
    assert_eq!(made["others_not_found"], serde_json::json!([]), "{made}");
    assert_eq!(made["epoch"], 1, "{made}");
}

/// What is said by no person: a file of it.
fn file_of(said: &str) -> fs::File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(said.as_bytes()).unwrap();
    file.rewind().unwrap();
    file
}

/// A try that was cut short when all was written but its end.
#[test]
fn a_recovery_that_was_cut_short_is_put_on_record_by_the_next_one() {
    let mut cluster = Cluster::start(Scratch::new(), &[], |command| command);
    cluster.node(0).ask::<String>(&["SET", "key", "value"]);
    cluster.check_digests();
    cluster.kill(0..3);
    let dir = cluster.node_dir(2);
    told(&["recover", text(&dir), "--force", "--yes"]);
    let record = fs::read_to_string(dir.join(RECORD)).unwrap();
    let (begun, _) = record.split_once("finished").unwrap();
    fs::write(dir.join(RECORD), begun).unwrap();
    let again = told(&["recover", text(&dir), "--force", "--yes"]);
    assert!(again.contains("nothing is left to do: start this node"), "{again}");
    let record = fs::read_to_string(dir.join(RECORD)).unwrap();
    assert!(
        record.contains("finished 20") && record.ends_with("(it was done before)\n"),
        "{record}"
    );
    fs::write(dir.join(RECORD), begun).unwrap();
    // A program that gave the order again reads one object, as it would have the first time.
    let again = json(&["recover", text(&dir), "--force", "--yes"]);
    assert_eq!((&again["was_done"], &again["dir"]), (&true.into(), &text(&dir).into()), "{again}");
    fails(&["recover", text(&dir), "--force", "--yes"], 1, &["already-alone"]);
}

/// The node itself knows of entries that were there and are bad here now.
#[test]
fn what_is_known_to_be_lost_is_asked_for_by_name() {
    let mut cluster = Cluster::start(Scratch::new(), &[], |command| command);
    for n in 0..50_u64 {
        cluster.node(n).ask::<String>(&["SET", &format!("key-{n}"), &"x".repeat(3000)]);
    }
    cluster.check_digests();
    cluster.kill(1..3);
    cluster.nodes[0].signal(Signal::TERM);
    cluster.nodes[0].ended();
    let dir = cluster.node_dir(0);
    let found = json(&["inspect", text(&dir)]);
    let last = found["log"]["last"]["index"].as_u64().unwrap();
    // A byte of the last entries: what a stop said is durable lies behind it.
    let log = dir.join("log-1");
    let mut bytes = fs::read(&log).unwrap();
    let used = found["segments"][0]["data_bytes"].as_u64().unwrap() as usize;
    bytes[used - 9_000] ^= 0x20;
    fs::write(&log, bytes).unwrap();
    let recover = ["recover", text(&dir), "--force", "--yes"];
    let expected = format!("to {last} that were there");
    fails(&recover, 1, &["IS LOST", "is known to lack entries", &expected, "--accept-known-loss"]);
    assert!(!dir.join(RECORD).exists(), "nothing was begun");
    let made = json(&[&recover[..], &["--accept-known-loss"]].concat());
    let cut = made["cut_from"].as_u64().unwrap();
    assert_eq!(made["known_loss"], serde_json::json!([cut, last]), "{made}");
    assert!(output(&["verify", text(&dir)]).status.success());
    cluster.restart(0);
    cluster.nodes[0].says("ready");
    let mut alone = cluster.node(0);
    assert_eq!(alone.ask::<u64>(&["EXISTS", "key-0"]), 1);
    alone.ask::<String>(&["SET", "alone", "yes"]);
    assert_eq!(alone.ask::<String>(&["GET", "alone"]), "yes");
}

#[test]
fn what_is_no_survivor_is_refused_with_the_reason() {
    let scratch = Scratch::new();
    let dir = text(scratch.path());
    fails(&["recover", dir], 2, &["acknowledged writes may be lost", "--force"]);
    fails(&["recover", dir, "--force", "--accept-known-loss"], 2, &["--yes"]);
    let recover = ["recover", dir, "--force", "--yes"];
    fails(&recover, 1, &["is empty: no node has lived there"]);
    fails(&["recover", "/nonexistent", "--force", "--yes"], 1, &["/nonexistent"]);
    fs::write(scratch.path().join("thesis.tex"), "years of work").unwrap();
    fails(&recover, 1, &["is no node's directory"]);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1, "nothing was made there");
    let node = scratch.path().join("node-1");
    fs::create_dir(&node).unwrap();
    fs::write(node.join("node"), "lakebed-node 1\ncluster 1\ngroup 1\nnode 1\n").unwrap();
    let one = format!("lakebed recover --force {}", node.display());
    fails(&recover, 1, &["holds 1 node; name one", &one]);

    let lone = Lone::new();
    let at = lone.path();
    fails(&["recover", text(at), "--force", "--yes"], 1, &["already-alone", "start this node"]);
    assert!(!at.join(RECORD).exists());

    let (new, port) = (Scratch::new(), ports(2));
    let (listen, resp) = (local(port), local(port + 1));
    let at = new.path().join("joins");
    let serve = ["serve", "--id", "4", "--join", "--dir", text(&at), "--peers", "1=127.0.0.1:9"];
    let more = ["--listen", &listen, "--resp", &resp];
    let mut joins = Process::start(&mut lakebed(&[&serve[..], &more].concat()));
    eventually("it has a hard state", || at.join("hard-state").exists());
    joins.kill();
    joins.ended();
    let recover = ["recover", text(&at), "--force", "--yes"];
    fails(&recover, 1, &["never-member", "holds nothing of it"]);
    fs::remove_file(at.join("hard-state")).unwrap();
    for entry in fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
        if name.starts_with("log-") || name.starts_with("spare-") {
            fs::remove_file(entry).unwrap();
        }
    }
    fails(&recover, 1, &["has no node in it", "restore a backup"]);
}

//! `lakebed sim` as its user meets it.

use crate::common::{Process, fails, lakebed, output, output_of};
use rustix::process::Signal;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

const SIX_SEEDS: [&str; 5] = ["sim", "run", "storm_of_three", "--seeds", "0..6"];

fn succeeds(args: &[&str]) -> String {
    let output = output(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The last line of a sweep, without how long it took.
fn summary(args: &[&str]) -> Value {
    let text = succeeds(&[args, &["--json"]].concat());
    let mut json: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    json.as_object_mut().unwrap().remove("wall_seconds").unwrap();
    json
}

#[test]
fn scenarios_are_listed_and_run_as_they_are_listed() {
    let list = succeeds(&["sim", "list"]);
    let (storms, stories) = list.split_once("\n\n").expect("storms, and then stories");
    assert!(stories.contains("\nthree_in_turn ") && stories.contains("\nevery_structure "));
    let names: Vec<_> =
        storms.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(names.contains(&"storm_of_three"));
    let all = summary(&["sim", "run", "--seeds", "0..2"]);
    assert_eq!((&all["scenario"], &all["seeds"]), (&"all".into(), &(2 * names.len()).into()));
}

#[test]
fn a_sweep_ends_with_one_object() {
    let json = summary(&SIX_SEEDS);
    let keys: BTreeSet<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "scenario",
        "seeds",
        "failures",
        "events",
        "crashes",
        "crashes_with_writes_pending",
        "seeds_crashed_with_writes_pending",
        "client_operations",
        "refusals",
        "amnesias",
        "failed",
        "faults",
        "sim_seconds",
        "digest",
        "marks",
    ];
    assert_eq!(keys, expected.into());
    assert_eq!((&json["seeds"], &json["failures"]), (&6.into(), &0.into()));
    assert!(json["crashes_with_writes_pending"].as_u64() >= Some(12), "{json}");
    assert_eq!(json["seeds_crashed_with_writes_pending"], 6);
    assert_eq!(json["marks"]["MachineFedFromDisk"], 6);
    let text = succeeds(&SIX_SEEDS);
    assert!(text.starts_with("storm_of_three: 6 seeds, 0 failures\n"), "{text}");
    assert!(text.contains(" with writes pending, in 6 seeds), "), "{text}");
    assert!(text.trim_end().ends_with(&format!("digest: {}", json["digest"])), "{text}");
}

#[test]
fn a_sweep_comes_to_the_same_by_however_many_threads_and_machines() {
    let whole = summary(&SIX_SEEDS);
    for jobs in ["1", "3"] {
        assert_eq!(summary(&[&SIX_SEEDS[..], &["--jobs", jobs]].concat()), whole);
    }
    let shard = |shard: &str| summary(&[&SIX_SEEDS[..], &["--shard", shard]].concat());
    let (mut sum, mut marks, mut digest) = (0, 0, 0);
    for part in ["1/4", "2/4", "3/4", "4/4"].map(shard) {
        sum += part["events"].as_u64().unwrap();
        marks += part["marks"]["PeerPaused"].as_u64().unwrap();
        digest = (digest + part["digest"].as_u64().unwrap()) % (1 << 40);
    }
    assert_eq!(
        (sum, digest),
        (whole["events"].as_u64().unwrap(), whole["digest"].as_u64().unwrap())
    );
    assert_eq!(marks, whole["marks"]["PeerPaused"].as_u64().unwrap());
}

#[test]
fn a_batch_job_runs_its_own_part() {
    let part = |variables: &[(&str, &str)], flags: &[&str]| {
        let mut command = lakebed(&[&SIX_SEEDS[..], flags, &["--json"]].concat());
        let mut process = Process::start(command.envs(variables.iter().copied()));
        assert!(process.ended().success());
        let json: Value = serde_json::from_str(&process.stdout.iter().last().unwrap()).unwrap();
        json["digest"].clone()
    };
    let expected = summary(&[&SIX_SEEDS[..], &["--shard", "2/3"]].concat())["digest"].clone();
    assert_eq!(part(&[("JOB_COMPLETION_INDEX", "1")], &["--shard", "/3"]), expected);
    let slurm = [
        ("SLURM_ARRAY_TASK_ID", "8"),
        ("SLURM_ARRAY_TASK_MIN", "7"),
        ("SLURM_ARRAY_TASK_COUNT", "3"),
    ];
    assert_eq!(part(&slurm, &[]), expected);
}

#[test]
fn ctrl_c_ends_a_sweep_with_what_it_came_to() {
    let many = ["sim", "run", "storm_of_one", "--seeds", "0..100000000", "--jobs", "1", "--json"];
    let mut process = Process::start(&mut lakebed(&many));
    // A signal that comes before it is listened for ends the process as any other.
    crate::common::eventually("it listens", || caught_signals(&process) & (1 << 1) != 0);
    process.signal(Signal::INT);
    assert_eq!(process.ended().code(), Some(130));
    let json: Value = serde_json::from_str(&process.stdout.iter().last().unwrap()).unwrap();
    assert!(json["seeds"].as_u64().unwrap() < 100_000_000, "{json}");
    assert_eq!(json["failures"], 0);
}

/// Which signals a process handles, a bit each, from the first on.
fn caught_signals(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id().as_raw_nonzero()))
        .unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
}

#[test]
fn a_seed_and_its_plan_are_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kept.plan");
    let path = file.to_str().unwrap();
    let seed = succeeds(&["sim", "replay", "storm_of_one", "7"]);
    let digest = seed.trim_end().rsplit_once(' ').unwrap().1;
    succeeds(&["sim", "plan", "storm_of_one", "7", "--out", path]);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("lakebed plan 1\nscenario storm_of_one\nseed 7\n"), "{text}");
    assert_eq!(succeeds(&["sim", "plan", "storm_of_one", path]), text);
    let planned = succeeds(&["sim", "replay", "storm_of_one", path]);
    assert!(planned.trim_end().ends_with(digest), "{planned}{seed}");
    let shrunk = succeeds(&["sim", "shrink", "storm_of_one", path]);
    assert!(shrunk.contains("passes: there is nothing to shrink"), "{shrunk}");
}

/// It was emptied before it was found out that nothing can be written, and nobody was told where.
#[test]
fn a_plan_that_cannot_be_written_leaves_the_one_that_was_there() {
    let dir = tempfile::tempdir().unwrap();
    let kept = plan(dir.path(), "kept.plan", "of before");
    let command = r#"trap '' XFSZ; ulimit -f 0; exec "$0" sim plan storm_of_one 7 --out "$1""#;
    let mut shell = Command::new("sh");
    let failed = output_of(shell.args(["-c", command, env!("CARGO_BIN_EXE_lakebed"), &kept]));
    let told = String::from_utf8_lossy(&failed.stderr);
    let expected = format!("cannot write the plan to {kept}: ");
    assert!(failed.status.code() == Some(1) && told.contains(&expected), "{told}");
    assert_eq!(fs::read_to_string(&kept).unwrap(), "of before");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let device = ["sim", "plan", "storm_of_one", "7", "--out", "/dev/full"];
    fails(&device, 1, &["cannot write the plan to /dev/full: No space left on device"]);
}

/// The link was removed with what was made behind it to see whether that can be, and a file took its place.
#[test]
fn a_plan_is_written_behind_a_link_to_what_is_not_there_yet() {
    let dir = tempfile::tempdir().unwrap();
    let (link, behind) = (dir.path().join("link.plan"), dir.path().join("behind.plan"));
    std::os::unix::fs::symlink(&behind, &link).unwrap();
    let out = link.display().to_string();
    succeeds(&["sim", "plan", "storm_of_one", "7", "--out", &out]);
    assert!(link.is_symlink());
    assert!(fs::read_to_string(&behind).unwrap().starts_with("lakebed plan 1\n"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn a_trace_has_a_line_per_event_in_fixed_columns() {
    let trace = succeeds(&["sim", "trace", "storm_of_one", "11"]);
    assert!(trace.lines().count() > 5000);
    for line in trace.lines() {
        let (who, what) = columns(line);
        assert!(["1", "-"].contains(&who), "{line}");
        assert!(who == "-" || tells(what), "{line}");
    }
}

/// Where there are many, the group stands behind the node: it was a part of the text, and of what a node
/// received nothing told whose it was.
#[test]
fn a_trace_of_many_groups_has_a_column_for_them() {
    let trace = succeeds(&["sim", "trace", "groups", "1"]);
    let mut received = BTreeSet::new();
    for line in trace.lines() {
        let (who, rest) = columns(line);
        let (group, what) = (rest[..3].trim_start(), &rest[4..]);
        assert!(who == "-" || (1..=9).contains(&who.parse().unwrap()), "{line}");
        assert!(group == "-" || group.parse::<u64>().is_ok(), "{line}");
        assert!(who == "-" || tells(what), "{line}");
        let message = what.strip_prefix("> from ").filter(|from| !from.ends_with(" beat"));
        let is_of_group = what.starts_with("< ") && !what.starts_with("< connect ");
        assert!(group != "-" || (message.is_none() && !is_of_group), "{line}");
        received.extend(message.map(|_| group));
    }
    assert!(received.len() >= 8, "{received:?}");
}

/// Of a line of a trace, who it is about, and what it says.
fn columns(line: &str) -> (&str, &str) {
    let (time, rest) = line.split_at(14);
    assert!(time.trim_start().ends_with("ms"), "{line}");
    (rest.get(1..3).unwrap().trim_start(), &rest[4..])
}

fn tells(what: &str) -> bool {
    let words = ["killed", "power", "falls", "halted", "is", "copy", "damaged", ">", "<"];
    words.contains(&what.split([' ', ':', ',']).next().unwrap())
}

fn plan(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().into()
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let malformed = plan(dir.path(), "bad.plan", "lakebed plan 1\nseed 1\nnodes 1\nlinks loss a\n");
    let older = plan(dir.path(), "old.plan", "lakebed plan 0\n");
    let other = plan(dir.path(), "other.plan", "lakebed plan 1\nscenario x\nseed 1\nnodes 1\n");
    let none = dir.path().join("none.plan").to_str().unwrap().to_owned();
    let nowhere = dir.path().join("no/where.plan").to_str().unwrap().to_owned();
    let run = ["sim", "run", "storm_of_one"];
    let cases: [(&[&str], &[&str]); 18] = [
        (
            &["sim", "run", "storm_of_thre"],
            &["similar value exists: 'storm_of_three'", "storm_of_one"],
        ),
        (&["sim", "exhaust", "three_in_turns"], &["similar value exists: 'three_in_turn'"]),
        (&["sim", "exhaust", "one_alone", "--node", "2"], &["one_alone has no node 2"]),
        (&["sim", "flips", "--every", "0"], &["--every"]),
        (
            &["sim", "exhaust", "one_alone", "--every", "999999"],
            &["one_alone node 1: ", "nothing was tried: no disk took 999999 steps"],
        ),
        (&[&run[..], &["--seeds", "9..3"]].concat(), &["3..9 is meant?"]),
        (&[&run[..], &["--seeds", "3..3"]].concat(), &["no seed is in it"]),
        (&[&run[..], &["--shard", "3/2"]].concat(), &["the last one is 2/2"]),
        (&[&run[..], &["--shard", "/2"]].concat(), &["--shard 1/2"]),
        (&[&run[..], &["--jobs", "0"]].concat(), &["--jobs"]),
        (&["sim", "replay", "storm_of_one", &malformed], &["bad.plan: line 4: found \"loss a\""]),
        (&["sim", "replay", "storm_of_one", &older], &["an older lakebed", "lakebed sim plan"]),
        (&["sim", "trace", "storm_of_one", &other], &["is a plan of x, not of storm_of_one"]),
        (&["sim", "replay", "storm_of_one", &none], &["cannot read the plan", "none.plan"]),
        (
            &["sim", "shrink", "storm_of_one", "1", "--out", &nowhere],
            &["cannot write", "where.plan"],
        ),
        (&["sim", "plan", "storm_of_one", "1", "--out", &nowhere], &["cannot write", "where.plan"]),
        (&["sim", "exhaust", "one_alone", "--out", &nowhere], &["cannot write", "where.plan"]),
        (&["sim", "flips", "--out", &nowhere], &["cannot write", "where-every_structure-node-1"]),
    ];
    for (args, expected) in cases {
        fails(args, 2, expected);
    }
}

/// One node's part of what they try, whoever does how much of it.
#[test]
fn crashes_and_flips_end_with_one_list_and_come_to_the_same_by_however_many_threads() {
    let of = |jobs: &str, args: &[&str]| -> Value {
        let text = succeeds(&[args, &["--node", "1", "--json", "--jobs", jobs]].concat());
        let mut json: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        json[0].as_object_mut().unwrap().remove("wall_seconds").unwrap();
        json
    };
    let exhaust = ["sim", "exhaust", "failed_syncs", "--every", "16", "--tears"];
    let tried = of("1", &exhaust);
    assert_eq!((&tried[0]["node"], &tried[0]["failures"]), (&1.into(), &0.into()));
    assert!(tried[0]["crashes"].as_u64() > Some(40), "{tried}");
    assert_eq!(of("3", &exhaust), tried);
    let flips = ["sim", "flips", "--every", "1999"];
    let flipped = of("1", &flips);
    assert!(flipped[0]["bits"].as_u64() > Some(20), "{flipped}");
    assert!(flipped[0]["endings"]["Entries"]["FromPeers"].as_u64() > Some(0), "{flipped}");
    assert_eq!(of("2", &flips), flipped);
    let text = succeeds(&["sim", "flips", "--every", "19991", "--node", "2"]);
    assert!(
        text.starts_with("every_structure node 2: ") && text.contains(" 0 failures; "),
        "{text}"
    );
}

/// Links so slow that nobody is ever elected, and two faults that have nothing to do with it.
const NEVER_A_LEADER: &str = "lakebed plan 1
scenario storm_of_three
bug nobody is elected
fix quicker links
seed 5
nodes 3
links least 9000.000ms tail 0.000ms
at 10.000ms kill node 2 down 5.000ms
at 30.000ms slow-disk node 1 factor 9 lasts 20.000ms
";

#[test]
fn what_fails_is_told_on_one_screen_and_made_small() {
    let dir = tempfile::tempdir().unwrap();
    let (file, small) = (plan(dir.path(), "slow.plan", NEVER_A_LEADER), dir.path().join("s.plan"));
    let replay = format!("  replay: lakebed sim replay storm_of_three {file}\n");
    fails(&["sim", "replay", "storm_of_three", &file], 1, &["  broken: liveness: ", &replay]);

    // What is printed is to be typed.
    let spaced = plan(dir.path(), "it's slow.plan", NEVER_A_LEADER);
    let typed = format!("replay storm_of_three '{}'\n", spaced.replace('\'', r"'\''"));
    fails(&["sim", "replay", "storm_of_three", &spaced], 1, &[&typed]);

    let small = small.to_str().unwrap();
    let output = output(&["sim", "shrink", "storm_of_three", &file, "--out", small]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.starts_with("shrunk from 2 faults, "), "{told}");
    assert!(told.contains(" to 0 faults, 0 operations, ") && told.contains(small), "{told}");
    let text = fs::read_to_string(small).unwrap();
    assert!(
        text.contains("bug nobody is elected\nfix quicker links\ninvariant liveness\n"),
        "{text}"
    );
    fails(&["sim", "replay", "storm_of_three", small], 1, &["  broken: liveness: "]);

    // What had been found was gone with its place, and so was the screen.
    let full = ["sim", "shrink", "storm_of_three", &file, "--out", "/dev/full"];
    let unkept = format!(
        "cannot write the plan to /dev/full: No space left on device (os error 28); it is, to be \
         kept by hand:\n{text}"
    );
    fails(&full, 1, &["  broken: liveness: ", &replay, &unkept]);

    // What can be read once was gone when all was done, and the result with it.
    let piped = dir.path().join("piped.plan");
    let mut shrink = lakebed(&["sim", "shrink", "storm_of_three", "/dev/stdin", "--out"]);
    shrink.arg(&piped).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = shrink.spawn().unwrap();
    child.stdin.take().unwrap().write_all(NEVER_A_LEADER.as_bytes()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert_eq!(fs::read_to_string(piped).unwrap(), text);
}

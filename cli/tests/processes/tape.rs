//! `lakebed serve --tape` and `lakebed tape` as their user meets them.

use crate::{
    common::{Patient, Process, Scratch, fails, lakebed, output},
    ports::ports,
};
use lakebed::{
    Event,
    tape::{Recorder, Tape},
};
use rustix::process::Signal;
use std::{
    fs,
    path::{Path, PathBuf},
};

const VALUE: &[u8] = b"a value that is nowhere else";

/// One node that records, twice.
fn recorded(dir: &Path) -> (PathBuf, PathBuf) {
    let (clients, peers) = (ports(1), ports(1));
    let tape = dir.join("tape");
    let line = format!(
        "serve --id 1 --dir {} --listen 127.0.0.1:{peers} --peers 1=127.0.0.1:{peers} --resp \
         127.0.0.1:{clients} --heartbeat-ms 50 --election-ms 200 --tape {}",
        dir.join("node").display(),
        tape.display()
    );
    for _ in 0..2 {
        let mut node = Process::start(&mut lakebed(&line.split(' ').collect::<Vec<_>>()));
        let value = std::str::from_utf8(VALUE).unwrap();
        let mut client = Patient::new(clients);
        // What is refused leaves nothing but its event: the value comes when there is a leader.
        for value in ["warm", value] {
            let _: String = client.ask(&["SET", "key", value]);
        }
        node.signal(Signal::TERM);
        assert!(node.ended().success(), "{}", node.errors());
    }
    (tape, dir.join("tape.2"))
}

/// Runs `lakebed tape` to this exit code, with this on standard output.
#[track_caller]
fn tells(files: &[&Path], code: i32, expected: &[&str]) {
    let files = files.iter().map(|file| file.to_str().unwrap());
    let output = output(&std::iter::once("tape").chain(files).collect::<Vec<_>>());
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(code), "{told}");
    for expected in expected {
        assert!(told.contains(expected), "{expected} is not in:\n{told}");
    }
}

#[test]
fn a_tape_is_replayed_and_its_first_difference_named() {
    let dir = Scratch::new();
    let (first, second) = recorded(dir.path());
    tells(&[&first], 0, &["node 1", "this build does the same"]);
    tells(&[&second], 0, &["this build does the same"]);
    tells(&[&first, &first], 0, &["are alike for"]);
    tells(&[&first, &second], 1, &["two lives of node 1", "seeds"]);

    // The last time that it stands there it is in an action; the first time in an event.
    let bytes = fs::read(&first).unwrap();
    let mut places = bytes.windows(VALUE.len()).enumerate();
    let (event, _) = places.find(|(_, window)| *window == VALUE).unwrap();
    let (action, _) = places.rfind(|(_, window)| *window == VALUE).unwrap();
    let changed = dir.path().join("changed");
    let change = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        fs::write(&changed, bytes).unwrap();
    };
    change(event);
    let place = ["node 1, step", "the first difference", "in this step:", "> propose"];
    tells(&[&changed], 1, &[&place[..], &["action", "changed:", "this build:"]].concat());
    tells(&[&first, &changed], 1, &[&place[..], &["event 0:", "tape:", "changed:"]].concat());
    change(action);
    tells(
        &[&changed],
        1,
        &["the first difference", "action", "< machine,", "< apply", "as bytes:"],
    );
    tells(&[&first, &changed], 1, &["tape:", "< apply", "< machine,", "as bytes:"]);
}

#[test]
fn what_is_no_whole_tape_is_told_with_what_to_do() {
    let dir = Scratch::new();
    let (tape, _) = recorded(dir.path());
    let bytes = fs::read(&tape).unwrap();
    let file = dir.path().join("file");
    let cases: [(Vec<u8>, &[&str]); 5] = [
        (b"log".to_vec(), &["is no tape", "serve --tape"]),
        (bytes[..20].to_vec(), &["beginning is cut off"]),
        (bytes[..bytes.len() - 1].to_vec(), &["is cut off, as when", "before it are alike"]),
        ([&bytes[..8], &[9], &bytes[9..]].concat(), &["version 9", "the release that wrote it"]),
        (bytes[..12].iter().copied().chain([0; 400]).collect(), &["no engine is configured so"]),
    ];
    for (bytes, expected) in cases {
        fs::write(&file, bytes).unwrap();
        fails(&["tape", file.to_str().unwrap()], 2, expected);
    }
    fails(&["tape", "nowhere"], 2, &["cannot read the tape nowhere"]);
    fails(&["tape"], 2, &["<FILE>"]);
}

/// A tape that can be read to its end and tells what no driver does: in its last step the machine
/// has applied what it was never given. How many steps it has.
fn overtaken(tape: &Path) -> (Vec<u8>, usize) {
    let mut tape = Tape::open(fs::read(tape).unwrap().into()).unwrap();
    let mut recorder = Recorder::new(&tape.config, tape.seed);
    let (mut bytes, mut steps) = (recorder.bytes().to_vec(), 0);
    recorder.clear();
    for mut step in tape.by_ref().map(Result::unwrap) {
        let applied = step.events.iter_mut().find_map(|event| match event {
            Event::Applied { through } => Some(through),
            _ => None,
        });
        let is_last = applied.map(|through| through.0 = u64::MAX).is_some();
        recorder.handed(step.now, &step.events);
        bytes.extend_from_slice(recorder.bytes());
        recorder.clear();
        bytes.extend((step.actions.len() as u32).to_le_bytes());
        for action in &step.actions {
            bytes.extend((action.len() as u32).to_le_bytes());
            bytes.extend(&action[..]);
        }
        steps += 1;
        if is_last {
            return (bytes, steps);
        }
    }
    panic!("nothing was applied in {steps} steps");
}

/// The engine's assertion ended the command, with its own exit code and message.
#[test]
fn what_the_engine_cannot_follow_is_told_with_the_step() {
    let dir = Scratch::new();
    let (tape, _) = recorded(dir.path());
    let damaged = dir.path().join("damaged");
    let (bytes, steps) = overtaken(&tape);
    fs::write(&damaged, bytes).unwrap();
    let output = output(&["tape", damaged.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    let expected = format!("damaged: step {steps} cannot be followed, this build panics at it (");
    assert!(told.starts_with("error: ") && told.contains(&expected), "{told}");
    assert!(told.contains("the machine applied") && told.contains("find another copy"), "{told}");
    assert!(told.ends_with(&format!("the {} before it are alike\n", steps - 1)), "{told}");
    assert_eq!(told.lines().count(), 1, "the panic itself is not printed: {told}");
    // Two tapes are compared by what is in them.
    tells(&[&damaged, &damaged], 0, &[&format!("are alike for {steps} steps")]);
    tells(&[&damaged, &tape], 1, &[&format!("step {steps},"), "the first difference", "\nevent "]);
}

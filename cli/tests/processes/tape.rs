//! `lakebed serve --tape` and `lakebed tape` as their user meets them.

use crate::{
    common::{Patient, Process, Scratch, fails, lakebed, output},
    ports::ports,
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

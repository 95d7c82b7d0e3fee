//! Directories that are not what a node left there: each is refused by name, with what was found
//! and what to do, or repaired, and that is said. Nothing in them is changed.

use crate::{
    cluster::Cluster,
    common::{Process, Scratch, connect, eventually, fails, lakebed, text},
    lone::Lone,
    ports::ports,
};
use rustix::process::{Signal, getuid};
use std::{
    fs::{self, File, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// Where the four blocks of a hard state begin (docs/disk-format.md).
const BLOCKS: [u64; 4] = [0, 64 << 10, 1 << 20, (1 << 20) + (64 << 10)];

#[test]
fn a_hard_state_damaged_in_one_copy_is_repaired_and_said() {
    for copy in BLOCKS.chunks(2) {
        let lone = Lone::new();
        lone.flip(copy);
        let mut node = lone.start();
        let found = node.says("node 1 found: ");
        assert!(found.contains("one copy of the hard state is bad"), "{found}");
        let mut connection = connect(lone.clients).unwrap();
        let value: String = redis::cmd("GET").arg("key").query(&mut connection).unwrap();
        assert_eq!(value, "value");
        node.signal(Signal::INT);
        assert!(node.ended().success(), "{}", node.errors());

        let node = lone.start();
        let found = node.says("node 1 found: ");
        assert!(!found.contains("is bad"), "{found}");
    }
}

#[test]
fn a_hard_state_damaged_in_all_copies_is_refused_with_the_way_out() {
    let lone = Lone::new();
    lone.flip(&BLOCKS);
    let before = fs::read(lone.path().join("hard-state")).unwrap();
    lone.is_refused(&["hard-state", "checksum", "come back under a new node id"]);
    assert_eq!(fs::read(lone.path().join("hard-state")).unwrap(), before);
    fs::remove_file(lone.path().join("hard-state")).unwrap();
    lone.is_refused(&["hard-state", "come back under a new node id"]);
}

/// That it waits for a leader alone says nothing of why none comes.
#[test]
fn a_node_that_lost_its_log_says_so_while_it_waits() {
    let mut cluster = Cluster::start(Scratch::new(), &[], |command| command);
    let _: String = cluster.node(1).ask(&["SET", "key", "value"]);
    cluster.kill(0..3);
    for n in 0..3 {
        let log = cluster.node_dir(n).join("log-1");
        let mut log = File::options().append(true).open(log).unwrap();
        log.write_all(&[0; 4096]).unwrap();
    }
    cluster.restart(0);
    let is_told = |line: String| {
        line.contains("node 1: has lost a part of its log") && line.contains("tail-unknown")
    };
    eventually("why it waits is told", || cluster.nodes[0].stderr.try_iter().any(is_told));
}

#[test]
fn a_directory_of_another_node_or_version_is_refused() {
    let lone = Lone::new();
    let (mark, log) = (lone.path().join("node"), lone.path().join("log-1"));
    let (text, entries) = (fs::read_to_string(&mark).unwrap(), fs::read(&log).unwrap());
    let dir = lone.path().display().to_string();
    let cases = [
        (text.replace("\nnode 1\n", "\nnode 5\n"), "belongs to node 5, not to node 1"),
        (text.replace("lakebed-node 1", "lakebed-node 2"), "has layout 2"),
        ("lakebed-node one\n".into(), "does not say whose directory this is"),
    ];
    for (other, expected) in cases {
        assert_ne!(other, text);
        fs::write(&mark, other).unwrap();
        lone.is_refused(&[&dir, expected]);
    }
    fs::write(&mark, text).unwrap();
    assert_eq!(fs::read(&log).unwrap(), entries);
    lone.start().says("ready");
}

#[test]
fn a_log_that_is_gone_is_missed() {
    let lone = Lone::new();
    fs::remove_file(lone.path().join("log-1")).unwrap();
    lone.is_refused(&["log-1", "the segment that the hard state names", "found nothing"]);
}

/// Nor is anything made there: a lock stayed behind, and several groups were put beside what was there.
#[test]
fn somebody_elses_directory_is_not_taken() {
    let lone = Lone::unborn();
    fs::write(lone.path().join("thesis.tex"), "years of work").unwrap();
    let flags = lone.flags();
    for groups in ["1", "2"] {
        let flags = flags.iter().map(String::as_str).chain(["--groups", groups]);
        fails(&flags.collect::<Vec<_>>(), 1, &["thesis.tex is no file of a node", "empty"]);
        assert_eq!(fs::read_dir(lone.path()).unwrap().count(), 1, "nothing was made there");
    }
}

/// Root may write everywhere but where nobody can.
#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let lone = Lone::unborn();
    let dir = if getuid().is_root() { Path::new("/proc/none") } else { lone.path() };
    if dir == lone.path() {
        fs::set_permissions(dir, Permissions::from_mode(0o555)).unwrap();
    }
    let mut flags = lone.flags();
    let at = flags.iter().position(|flag| flag == "--dir").unwrap() + 1;
    flags[at] = dir.display().to_string();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    fails(&flags, 1, &[&format!("cannot use {}", dir.display())]);
}

/// A new cluster was drawn in its place, and the nodes were said to belong to another one than that.
#[test]
fn nodes_without_the_file_of_their_cluster_are_not_made_another_one() {
    let scratch = Scratch::new();
    let (node, file) = (scratch.path().join("node-2"), scratch.path().join("cluster.json"));
    fs::create_dir(&node).unwrap();
    let (port, peers) = (ports(3).to_string(), ports(3).to_string());
    let up = ["up", "--dir", text(scratch.path()), "--port", &port, "--peer-port", &peers];
    for mark in ["node", "groups.json"] {
        fs::write(node.join(mark), "").unwrap();
        fails(&up, 1, &["node-2 is a node's folder", "no cluster.json", "put it back"]);
        assert!(!file.exists(), "none is made");
        fs::remove_file(node.join(mark)).unwrap();
    }
    // A folder that somebody has made for it, or a disk.
    fs::create_dir(node.join("lost+found")).unwrap();
    let process = Process::start(&mut lakebed(&up));
    process.says("ready");
    assert!(file.exists());
}

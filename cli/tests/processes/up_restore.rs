//! `lakebed up --restore`: from a backup to a cluster that serves, with one command.

use crate::{
    common::{Patient, Process, Scratch, eventually, fails, json, lakebed, local, text},
    ports::ports,
    room::finds_no_room,
};
use rustix::process::Signal;
use std::{fs, path::PathBuf};

/// Clusters in folders of one directory, on ports of their own.
struct Clusters(Scratch);

/// Where one is, and the ports of its nodes.
struct Cluster {
    dir: PathBuf,
    clients: u16,
    peers: u16,
}

impl Clusters {
    fn new() -> Self {
        Self(Scratch::new())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn cluster(&self, name: &str) -> Cluster {
        Cluster { dir: self.at(name), clients: ports(3), peers: ports(3) }
    }

    /// A backup of a cluster that holds these keys.
    fn backed_up(&self, name: &str, flags: &[&str], keys: u64, value: &str) -> PathBuf {
        let (cluster, file) = (self.cluster(&format!("{name}-cluster")), self.at(name));
        let process = cluster.up(flags);
        process.says("ready");
        let mut node = cluster.node(0);
        (0..keys).for_each(|n| node.ask(&["SET", &format!("key-{n}"), value]));
        json(&["backup", &local(cluster.clients), text(&file)]);
        cluster.stop(process);
        file
    }
}

impl Cluster {
    fn flags(&self, more: &[&str]) -> Vec<String> {
        let (port, peers) = (self.clients.to_string(), self.peers.to_string());
        let flags = ["up", "--dir", text(&self.dir), "--port", &port, "--peer-port", &peers];
        let quick = ["--heartbeat-ms", "50", "--election-ms", "200"];
        [&flags[..], &quick, more].concat().into_iter().map(String::from).collect()
    }

    fn up(&self, more: &[&str]) -> Process {
        Process::start(&mut lakebed(&strs(&self.flags(more))))
    }

    fn stop(&self, mut process: Process) {
        process.signal(Signal::INT);
        assert!(process.ended().success(), "{}: {}", self.dir.display(), process.errors());
    }

    fn node(&self, n: u16) -> Patient {
        Patient::new(self.clients + n)
    }

    #[track_caller]
    fn refuses(&self, more: &[&str], expected: &[&str]) {
        fails(&strs(&self.flags(more)), 1, expected);
    }
}

fn strs(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

/// Every node of the restored cluster has what the old one had, and it goes on; so after a restart.
fn becomes_a_cluster(groups: &[&str], says: &str) {
    let clusters = Clusters::new();
    let file = clusters.backed_up("backup", groups, 60, "value");
    let new = clusters.cluster("new");
    let process = new.up(&["--restore", text(&file)]);
    process.says(says);
    process.says("ready");
    for n in 0..3 {
        assert_eq!(new.node(n).ask::<u64>(&["DBSIZE"]), 60, "node {n}");
        assert_eq!(new.node(n).ask::<String>(&["GET", "key-59"]), "value", "node {n}");
    }
    new.node(1).ask::<String>(&["SET", "key-60", "new"]);
    new.stop(process);
    new.refuses(&["--restore", text(&file)], &["holds a cluster already", "leave --restore out"]);
    let process = new.up(&[]);
    process.says("ready");
    assert_eq!(new.node(2).ask::<u64>(&["DBSIZE"]), 61);
}

#[test]
fn a_backup_becomes_a_cluster_that_serves() {
    becomes_a_cluster(&[], "  made of ");
}

#[test]
fn a_backup_of_groups_becomes_a_cluster_of_as_many() {
    becomes_a_cluster(&["--groups", "4"], "  group 4 of 4: made of ");
}

#[test]
fn a_cluster_of_another_size_is_made_of_the_same_backup() {
    let clusters = Clusters::new();
    let file = clusters.backed_up("backup", &["--groups", "2"], 20, "value");
    let new = clusters.cluster("new");
    new.refuses(&["--groups", "3", "--restore", text(&file)], &["--groups 3, but", "1 of 2"]);
    assert!(!new.dir.exists(), "nothing was made");
    let process = new.up(&["--nodes", "1", "--restore", text(&file)]);
    process.says("ready");
    assert_eq!(new.node(0).ask::<u64>(&["DBSIZE"]), 20);
}

/// No room for the state at first, then something in the way of the second node: no node starts
/// before all are there, and none of another backup is let in among them.
#[test]
fn what_was_cut_short_is_refused_and_gone_on_with() {
    let clusters = Clusters::new();
    let file = clusters.backed_up("backup", &["--nodes", "1"], 100, &"x".repeat(20_000));
    let other = clusters.backed_up("other", &["--nodes", "1"], 1, "other");
    let new = clusters.cluster("new");
    let restore = ["--restore", text(&file)];
    finds_no_room(&strs(&new.flags(&restore)), 3000, &["node-1", "no room left"]);
    new.refuses(&[], &["was not restored to the end", "give --restore again"]);
    let node = |n| new.dir.join(format!("node-{n}"));
    fs::create_dir(node(2)).unwrap();
    fs::write(node(2).join("thesis.tex"), "years of work").unwrap();
    new.refuses(&restore, &["node-2/thesis.tex is in the way"]);
    let made = |n| node(n).join("hard-state").exists();
    assert_eq!([1, 2, 3].map(made), [true, false, false]);
    new.refuses(&[], &["was not restored to the end"]);
    new.refuses(&["--restore", text(&other)], &["made of another backup", "give that one"]);
    fs::remove_dir_all(node(2)).unwrap();
    let process = new.up(&restore);
    process.says("ready");
    assert_eq!(new.node(2).ask::<u64>(&["DBSIZE"]), 100);
    new.stop(process);

    // Not where a node is, of whatever cluster.
    let taken = clusters.cluster("taken");
    fs::create_dir_all(taken.dir.join("node-3")).unwrap();
    taken.refuses(&restore, &["node-3 is there already", "another --dir"]);
    assert!(!taken.dir.join("cluster.json").exists());
}

/// It dies while nodes are made, at whatever instant that is.
#[test]
fn a_killed_restore_is_gone_on_with() {
    let clusters = Clusters::new();
    let file = clusters.backed_up("backup", &["--nodes", "1"], 400, &"x".repeat(50_000));
    let new = clusters.cluster("new");
    let mut process = new.up(&["--restore", text(&file)]);
    let first = new.dir.join("node-1/hard-state");
    eventually("a node was made", || first.exists());
    process.kill();
    process.ended();
    let cluster = fs::read_to_string(new.dir.join("cluster.json")).unwrap();
    let process = if cluster.contains("restoring") {
        new.up(&["--restore", text(&file)])
    } else {
        new.up(&[])
    };
    process.says("ready");
    (0..3).for_each(|n| assert_eq!(new.node(n).ask::<u64>(&["DBSIZE"]), 400));
}

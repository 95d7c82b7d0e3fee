//! The command as its user meets it: wrong flags, ports in use, folders that cannot be.

use crate::{
    common::{
        Patient, Process, Scratch, connect, eventually, fails, lakebed, local, loopback, output,
    },
    ports::ports,
};
use rustix::process::Signal;
use std::{
    fs::{self, File},
    io::pipe,
    net::TcpListener,
    path::Path,
    process::Stdio,
};

/// The flags of one node of a cluster whose peers listen on ports from `peers` on.
fn serve_flags(id: u16, nodes: u16, peers: u16, clients: u16, dir: &Path) -> Vec<String> {
    let all: Vec<_> = (1..=nodes).map(|n| format!("{n}=127.0.0.1:{}", peers + n - 1)).collect();
    let flags = [
        ("--id", id.to_string()),
        ("--dir", dir.display().to_string()),
        ("--listen", local(peers + id - 1)),
        ("--peers", all.join(",")),
        ("--resp", local(clients + id - 1)),
        ("--heartbeat-ms", "50".into()),
        ("--election-ms", "200".into()),
    ];
    let flags = flags.into_iter().flat_map(|(flag, value)| [flag.into(), value]);
    std::iter::once("serve".into()).chain(flags).collect()
}

fn strs(flags: &[String]) -> Vec<&str> {
    flags.iter().map(String::as_str).collect()
}

fn start(flags: &[String]) -> Process {
    Process::start(&mut lakebed(&strs(flags)))
}

fn up_flags(dir: &Path, port: u16, peer_port: u16) -> Vec<String> {
    let (dir, port) = (dir.display().to_string(), port.to_string());
    let flags = ["up", "--dir", &dir, "--port", &port, "--peer-port", &peer_port.to_string()];
    let quick = ["--heartbeat-ms", "50", "--election-ms", "200"];
    flags.into_iter().chain(quick).map(String::from).collect()
}

#[test]
fn wrong_flags_are_refused() {
    let serve = "serve --dir d --listen 127.0.0.1:1 --resp 127.0.0.1:2";
    let cases = [
        ("", "Usage"),
        ("fly", "unrecognized subcommand 'fly'"),
        ("up --nodes 0", "--nodes"),
        ("up --nodes 33", "--nodes"),
        ("up --port 70000", "--port"),
        ("up --port 65534 --dir none", "--port 65534 leaves no ports for 3 nodes"),
        ("up --port 65000 --dir none", "give --peer-port"),
        ("up --port 9000 --peer-port 9002 --dir none", "port 9002 would be for clients and for"),
        ("up --lease-drift-ppm 0 --dir none", "0 is not in 1..1000000"),
        ("up --disk tape", "it is auto, files or uring"),
        ("up --election-ms 100 --dir none", "at least two heartbeats"),
        ("status", "RESP-ADDR"),
        ("status nowhere", "nowhere"),
        ("status 7401", "HOST:PORT, such as"),
        ("status 127.0.0.1:7401 --jsn", "--json"),
        (&format!("{serve} --id 0 --peers 1=127.0.0.1:1"), "--id"),
        (&format!("{serve} --id 1"), "--peers"),
        (&format!("{serve} --id 4 --peers 1=127.0.0.1:1"), "does not name node 4 itself"),
        (&format!("{serve} --id 1 --peers 1=127.0.0.1:1,1=127.0.0.1:5"), "given twice"),
        (&format!("{serve} --id 1 --peers 1=127.0.0.1"), "ID=HOST:PORT"),
        (&format!("{serve} --id 1 --peers 1=h:1 --listen 0.0.0.0:1"), "cannot be used multiple"),
        ("serve --id 1 --dir d --listen here --peers 1=h:1 --resp 127.0.0.1:2", "here"),
        ("serve --id 1 --dir d --listen 0.0.0.0:1 --peers 1=h:1 --resp 127.0.0.1:2", "--insecure"),
        ("serve --id 1 --dir d --listen 127.0.0.1:1 --peers 1=h:1 --resp 10.0.0.1:2", "--resp 10"),
        ("serve --id 1 --dir d --listen 127.0.0.1:2 --peers 1=h:1 --resp 127.0.0.1:2", "are both"),
    ];
    for (line, expected) in cases {
        fails(&line.split_whitespace().collect::<Vec<_>>(), 2, &[expected]);
    }
}

/// What is found wrong behind clap is told like what clap finds.
#[test]
fn the_usage_of_the_subcommand_is_shown() {
    let serve = "serve --dir d --listen 127.0.0.1:1 --resp 127.0.0.1:2 --id 4 --peers 1=h:1";
    for (line, usage) in [
        (serve, "Usage: lakebed serve "),
        ("recover d", "Usage: lakebed recover "),
        ("sim replay storm_of_three /none", "Usage: lakebed sim replay "),
    ] {
        fails(&line.split(' ').collect::<Vec<_>>(), 2, &[usage]);
    }
}

/// It prints.
#[test]
fn a_plan_that_goes_nowhere_is_not_promised_a_file() {
    let help = output(&["sim", "plan", "--help"]).stdout;
    let help = String::from_utf8(help).unwrap();
    assert!(help.contains("[default: it is printed]"), "{help}");
}

#[test]
fn help_and_version_are_no_mistakes() {
    for (flag, expected) in [("--help", "Usage"), ("--version", "lakebed")] {
        let output = output(&[flag]);
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains(expected));
    }
}

#[test]
fn a_port_in_use_is_named_with_the_flag_to_change() {
    let dir = Scratch::new();
    let (clients, peers) = (ports(3), ports(3));
    for (port, flag) in [(clients + 1, "--port"), (peers + 2, "--peer-port")] {
        let taken = TcpListener::bind(loopback(port)).unwrap();
        let named = format!("port {port} is in use");
        fails(&strs(&up_flags(dir.path(), clients, peers)), 1, &[&named, flag]);
        drop(taken);
    }
    let flags = serve_flags(1, 1, peers, clients, dir.path());
    for (port, flag) in [(clients, "--resp"), (peers, "--listen")] {
        let taken = TcpListener::bind(loopback(port)).unwrap();
        fails(&strs(&flags), 1, &[&format!("port {port} is in use"), flag]);
        drop(taken);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was written");
}

#[test]
fn a_cluster_is_found_again() {
    let dir = Scratch::new();
    let (clients, peers) = (ports(3), ports(3));
    let mut up = start(&up_flags(dir.path(), clients, peers));
    up.says("ready");
    for n in 0..3 {
        let key = format!("key-{n}");
        let _: String = Patient::new(clients + n).ask(&["SET", &key, &n.to_string()]);
    }
    up.signal(Signal::INT);
    assert!(up.ended().success(), "{}", up.errors());

    // Other ports for clients, the number of nodes left out: both are no part of the data.
    let clients = ports(3);
    let mut flags = up_flags(dir.path(), clients, peers);
    let mut up = start(&flags);
    up.says("ready");
    for n in 0..3 {
        let value: u16 = Patient::new(clients + 2 - n).ask(&["GET", &format!("key-{n}")]);
        assert_eq!(value, n);
    }
    up.signal(Signal::TERM);
    assert!(up.ended().success(), "{}", up.errors());

    // Whoever gave another port for peers was not heard.
    let elsewhere = up_flags(dir.path(), clients, peers + 1);
    let told = [format!("--peer-port {}", peers + 1), format!("meet at {peers} to {}", peers + 2)];
    fails(&strs(&elsewhere), 2, &told.each_ref().map(String::as_str));

    flags.extend(["--nodes".into(), "5".into()]);
    fails(&strs(&flags), 2, &["--nodes 5", "holds a cluster of 3"]);
    assert!((1..=3).all(|n| dir.path().join(format!("node-{n}/hard-state")).exists()));
}

/// Each `up` ended with an error, and so did each later one.
#[test]
fn a_cluster_goes_on_without_whom_it_removed() {
    let dir = Scratch::new();
    let (clients, peers) = (ports(3), ports(3));
    let flags = up_flags(dir.path(), clients, peers);
    let mut up = start(&flags);
    up.says("ready");
    let all = (clients..clients + 3).map(local).collect::<Vec<_>>().join(",");
    eventually("node 3 is removed", || output(&["member", "remove", &all, "3"]).status.success());
    let _: String = Patient::new(clients).ask(&["SET", "key", "value"]);
    for _ in 0..2 {
        up.signal(Signal::INT);
        assert!(up.ended().success(), "{}", up.errors());
        up = start(&flags);
        up.says("ready");
        let value: String = Patient::new(clients).ask(&["GET", "key"]);
        assert_eq!(value, "value");
        let node = dir.path().join("node-3");
        eventually("node 3 has ended", || {
            let look = output(&["inspect", &node.display().to_string()]);
            look.status.success()
        });
    }
    up.signal(Signal::INT);
    assert!(up.ended().success(), "{}", up.errors());
    assert!(up.errors().contains("node 3 was removed from the cluster"), "{}", up.errors());
}

#[test]
fn ctrl_c_is_obeyed_in_every_stage() {
    let dir = Scratch::new();
    let (clients, peers) = (ports(3), ports(3));
    // Alone of three, it waits for the others: it has formed no cluster and serves nobody.
    let flags = serve_flags(1, 3, peers, clients, dir.path());
    for signal in [Signal::INT, Signal::TERM] {
        let mut node = start(&flags);
        node.says("lakebed: node 1");
        eventually("it answers", || connect(clients).is_ok());
        let mut connection = connect(clients).unwrap();
        let refused = redis::cmd("SET").arg("a").arg(1).exec(&mut connection).unwrap_err();
        assert_eq!(refused.code(), Some("TRYAGAIN"), "{refused}");
        node.signal(signal);
        assert!(node.ended().success(), "{}", node.errors());
    }
}

#[test]
fn ctrl_c_right_after_the_start_is_obeyed() {
    let dir = Scratch::new();
    let flags = up_flags(dir.path(), ports(3), ports(3));
    for _ in 0..5 {
        let mut up = start(&flags);
        up.says("lakebed: 3 nodes");
        up.signal(Signal::INT);
        assert!(up.ended().success(), "{}", up.errors());
    }
    let up = start(&flags);
    up.says("ready");
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let dir = Scratch::new();
    let (clients, peers) = (ports(3), ports(3));
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let below = file.join("node");
    let named = below.display().to_string();
    fails(&strs(&serve_flags(1, 1, peers, clients, &below)), 1, &[&named, "cannot"]);
    fails(&strs(&up_flags(&below, clients, peers)), 1, &[&named, "cannot"]);
    fails(&strs(&serve_flags(1, 1, peers, clients, dir.path())), 1, &["file is no file of a node"]);
}

#[test]
fn a_directory_of_another_is_refused() {
    let dir = Scratch::new();
    let (clients, peers) = (ports(3), ports(3));
    let flags = serve_flags(1, 1, peers, clients, dir.path());
    let mut node = start(&flags);
    node.says("ready");
    let other_ports = serve_flags(1, 1, peers + 1, clients + 1, dir.path());
    fails(&strs(&other_ports), 1, &["locked", &dir.path().display().to_string()]);
    node.signal(Signal::INT);
    assert!(node.ended().success());

    fails(&strs(&other_ports), 1, &["belongs to cluster"]);
    let mut named = flags.clone();
    named.extend(["--cluster".into(), "another".into()]);
    fails(&strs(&named), 1, &["belongs to cluster"]);
    let node = start(&flags);
    node.says("ready");
}

#[test]
fn a_wiped_member_is_refused_and_told_the_way_back() {
    let dir = Scratch::new();
    let (clients, peers) = (ports(3), ports(3));
    let flags: Vec<_> = (1..=3)
        .map(|id| serve_flags(id, 3, peers, clients, &dir.path().join(id.to_string())))
        .collect();
    let mut nodes: Vec<_> = flags.iter().map(|flags| start(flags)).collect();
    nodes.iter().for_each(|node| drop(node.says("ready")));
    let _: String = Patient::new(clients).ask(&["SET", "a", "1"]);
    nodes[2].signal(Signal::INT);
    assert!(nodes[2].ended().success());
    fs::remove_dir_all(dir.path().join("3")).unwrap();
    fails(&strs(&flags[2]), 1, &["node 3 ended", "earlier life", "under a new one"]);
    let _: String = Patient::new(clients).ask(&["SET", "a", "2"]);
}

#[test]
fn status_is_one_object() {
    let dir = Scratch::new();
    let (clients, peers) = (ports(1), ports(1));
    let address = local(clients);
    fails(&["status", &address], 1, &["cannot ask", &address]);
    let node = start(&serve_flags(1, 1, peers, clients, dir.path()));
    node.says("ready");
    let json = output(&["status", &address, "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = [
        "node",
        "role",
        "term",
        "leader",
        "first",
        "snapshot",
        "committed",
        "applied",
        "last",
        "durable",
        "ready",
        "gated",
        "disk_full",
        "snapshots_damaged",
        "peers",
        "health",
        "recovery",
    ];
    expected.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!((&json["node"], &json["role"]), (&1.into(), &"leader".into()));
    assert_eq!(json["recovery"]["phase"], "ready");
    let refused = output(&["status", &address, "--group", "9"]);
    let refused = String::from_utf8(refused.stderr).unwrap();
    let expected = format!("error: {address}: the groups are numbered 1 to 1\n");
    assert_eq!(refused, expected, "a node does serve there");
    let text = String::from_utf8(output(&["status", &address]).stdout).unwrap();
    assert!(text.starts_with("node       1, leader\n"), "{text}");
}

/// `cargo run` builds what is the workspace's own choice, and asks back if there is more than one. In
/// a member's folder the choice is that member.
#[test]
fn cargo_run_has_one_program_to_run() {
    let metadata = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let chosen = metadata["workspace_default_members"].as_array().unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let targets = packages.iter().filter(|package| chosen.contains(&package["id"]));
    let targets = targets.flat_map(|package| package["targets"].as_array().unwrap());
    let is_program = |target: &&serde_json::Value| target["kind"][0] == "bin";
    let programs: Vec<_> = targets.filter(is_program).map(|target| &target["name"]).collect();
    assert_eq!(programs, ["lakebed"]);
}

/// On a full disk there was nothing in the file, and the command had succeeded.
#[test]
fn what_cannot_be_said_is_a_failure_unless_nobody_listens() {
    for args in [&["sim", "list"][..], &["sim", "trace", "storm_of_one", "7"]] {
        let say_to = |stdout: Stdio| {
            let output = lakebed(args).stdout(stdout).output().unwrap();
            (output.status.code(), String::from_utf8(output.stderr).unwrap())
        };
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (code, told) = say_to(full.into());
        assert_eq!(code, Some(1), "{told}");
        assert!(
            told.starts_with("error: cannot write to standard output: No space left"),
            "{told}"
        );
        assert_eq!(told.lines().count(), 1, "said once: {told}");
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        assert_eq!(say_to(writer.into()), (Some(0), String::new()));
    }
}

#[test]
fn a_level_that_is_none_is_told_and_the_usual_one_is_taken() {
    for (level, said) in [("loud", "LAKEBED_LOG=loud is no level (off, error, warn"), ("", "")] {
        let output = lakebed(&["sim", "list"]).env("LAKEBED_LOG", level).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && told.starts_with(said), "{told}");
        assert_eq!(told.is_empty(), said.is_empty(), "{told}");
    }
}

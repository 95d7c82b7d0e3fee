//! What `lakebed up` says once it is up, and where it keeps what it was not told where to keep.

use crate::{
    common::{Patient, Process, Scratch, lakebed, text},
    ports::ports,
};
use rustix::process::Signal;
use std::fs;

fn stop(mut up: Process) {
    up.signal(Signal::INT);
    assert!(up.ended().success(), "{}", up.errors());
}

/// Node 1 had ended, and was the one to be talked to.
#[test]
fn what_to_do_is_said_of_the_nodes_that_live() {
    let scratch = Scratch::new();
    let clients = ports(3);
    let (port, peers) = (clients.to_string(), ports(3).to_string());
    let up = ["up", "--dir", text(scratch.path()), "--port", &port, "--peer-port", &peers];
    let said = |up: &Process| {
        let set = up.says("  redis-cli -p ");
        [
            set,
            up.says("  redis-cli -p "),
            up.says("  redis-benchmark -p "),
            up.says("  lakebed status "),
        ]
    };
    let expected = |first: u16, last: u16| {
        [
            format!("  redis-cli -p {first} set hello world\n"),
            format!("  redis-cli -p {last} get hello\n"),
            format!("  redis-benchmark -p {first} -t set,get,incr -P 16 -c 50 -d 256 -n 200000\n"),
            format!("  lakebed status 127.0.0.1:{first}\n"),
        ]
    };
    let process = Process::start(&mut lakebed(&up));
    assert_eq!(said(&process), expected(clients, clients + 2));
    stop(process);

    // The others know its former life.
    fs::remove_dir_all(scratch.path().join("node-1")).unwrap();
    let mut process = Process::start(&mut lakebed(&up));
    assert_eq!(said(&process), expected(clients + 1, clients + 2));
    Patient::new(clients + 1).ask::<String>(&["SET", "hello", "world"]);
    assert_eq!(Patient::new(clients + 2).ask::<String>(&["GET", "hello"]), "world");
    process.signal(Signal::INT);
    assert_eq!(process.ended().code(), Some(1));
    assert!(process.errors().contains("error: node 1 ended"), "or this test shows nothing");
}

/// `$XDG_DATA_HOME` if it is a whole path, else what it is by default; the same wherever one stands.
#[test]
fn data_is_found_again_though_nobody_said_where_it_is() {
    for xdg in [Some("xdg"), None] {
        let scratch = Scratch::new();
        let (port, peers) = (ports(1), ports(1).to_string());
        let home = scratch.path().join("home");
        let expected = match xdg {
            Some(xdg) => scratch.path().join(xdg).join("lakebed"),
            None => home.join(".local/share/lakebed"),
        };
        let start = |place: &str| {
            let place = scratch.path().join(place);
            fs::create_dir(&place).unwrap();
            let ports = ["--port", &port.to_string(), "--peer-port", &peers];
            let mut up = lakebed(&["up", "--nodes", "1"]);
            up.args(ports).current_dir(place).env("HOME", &home);
            match xdg {
                Some(xdg) => up.env("XDG_DATA_HOME", scratch.path().join(xdg)),
                // What leads somewhere else from each place is no place to keep anything.
                None => up.env("XDG_DATA_HOME", "data"),
            };
            let process = Process::start(&mut up);
            let introduced = process.says("lakebed: 1 node, data in ");
            assert_eq!(
                introduced.trim_end(),
                format!("lakebed: 1 node, data in {}", expected.display())
            );
            process.says("ready");
            process
        };
        let process = start("here");
        Patient::new(port).ask::<String>(&["SET", "key", "value"]);
        stop(process);
        assert!(expected.join("cluster.json").is_file());

        let process = start("there");
        assert_eq!(Patient::new(port).ask::<String>(&["GET", "key"]), "value");
        stop(process);
        let left = |place: &str| fs::read_dir(scratch.path().join(place)).unwrap().count();
        assert_eq!((left("here"), left("there")), (0, 0));
        assert_eq!(home.exists(), xdg.is_none());
    }
}

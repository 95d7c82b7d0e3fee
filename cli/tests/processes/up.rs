//! What `lakebed up` says once it is up.

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

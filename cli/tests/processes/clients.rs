//! More clients than there are files that the process may open: the system's limits, not acted ones.

use crate::{
    common::{ANSWER_MAX, Process, Scratch, lakebed, loopback, output_of, text},
    lone::Lone,
    ports::ports,
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::Command,
};

/// What a process of these limits leaves for clients: 64 and 192 are the command's own.
const FILES: usize = 320;
const CLIENTS: usize = FILES - 64 - 192;

/// A command under a limit, as the shell's `ulimit` takes it.
fn under(limit: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit {limit}; exec \"$0\" \"$@\"")]);
    shell.arg(command.get_program()).args(command.get_args());
    shell
}

/// A node under a limit.
fn limited(lone: &Lone, limit: &str) -> Process {
    let flags = lone.flags();
    let command = lakebed(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let node = Process::start(&mut under(limit, &command));
    node.says("ready");
    node
}

fn client(lone: &Lone) -> TcpStream {
    let stream = TcpStream::connect(loopback(lone.clients)).unwrap();
    stream.set_read_timeout(Some(ANSWER_MAX)).unwrap();
    stream
}

/// The first line of what it answers.
#[track_caller]
fn asked(stream: &mut TcpStream, line: &str) -> String {
    let mut words = format!("*{}\r\n", line.split(' ').count());
    line.split(' ').for_each(|word| words += &format!("${}\r\n{word}\r\n", word.len()));
    stream.write_all(words.as_bytes()).unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    answer
}

/// They took the descriptor that the next file of the node's own needs, and it halted.
#[test]
fn clients_leave_a_node_the_files_that_it_needs() {
    let lone = Lone::unborn();
    let node = limited(&lone, &format!("-n {FILES}"));
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| client(&lone)).collect();
    clients.iter_mut().for_each(|client| assert_eq!(asked(client, "PING"), "+PONG\r\n"));
    let mut told = String::new();
    client(&lone).read_to_string(&mut told).unwrap();
    assert_eq!(told, "-ERR max number of clients reached\r\n");
    // With all of them there it writes, and opens files.
    assert_eq!(asked(&mut clients[0], "SET key value"), "+OK\r\n");
    let taken = asked(&mut clients[1], "LAKEBED SNAPSHOT");
    assert!(taken.starts_with('+'), "{taken}");
    drop(node);
}

#[test]
fn the_soft_limit_of_files_is_raised() {
    let lone = Lone::unborn();
    let _node = limited(&lone, "-Sn 100");
    let mut clients: Vec<_> = (0..150).map(|_| client(&lone)).collect();
    clients.iter_mut().for_each(|client| assert_eq!(asked(client, "PING"), "+PONG\r\n"));
}

/// Sixty-four groups were served, and refused writes under load as if their disk were full.
#[test]
fn too_few_files_for_what_is_asked_are_told_at_once() {
    let dir = Scratch::new();
    let dir = dir.path().join("new");
    let (clients, peers) = (ports(3).to_string(), ports(3).to_string());
    let up = ["up", "--dir", text(&dir), "--port", &clients, "--peer-port", &peers];
    let up = lakebed(&[&up[..], &["--groups", "64"]].concat());
    let told = output_of(&mut under("-n 1024", &up));
    assert_eq!(told.status.code(), Some(1));
    let told = String::from_utf8(told.stderr).unwrap();
    for expected in ["takes 3145 open files", "may have 1024", "ulimit -Hn 3145"] {
        assert!(told.contains(expected), "{told}");
    }
    assert!(!dir.exists(), "nothing was made");
}

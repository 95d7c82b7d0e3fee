//! Nodes whose standard error nobody reads, or nothing can be written to: they serve all the same,
//! and end well.

use crate::{cluster::Cluster, common::Scratch};
use rustix::{fs::OFlags, process::Signal};
use std::{
    fs::File,
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// A pipe with a name, open at the end where it is read.
struct Pipe(File);

impl Pipe {
    fn new(path: &Path) -> Self {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        Self(File::options().read(true).write(true).custom_flags(flags).open(path).unwrap())
    }

    /// Nothing more goes into it.
    fn fill(&mut self) {
        for piece in [&[b'\n'; 4096][..], b"\n"] {
            let error = loop {
                if let Err(error) = self.0.write_all(piece) {
                    break error;
                }
            };
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
        }
    }
}

/// Where the nodes of a cluster in this directory find their pipe.
fn pipe_in(dir: &Path) -> PathBuf {
    dir.join("pipe")
}

/// A command whose standard error is this file.
fn complains_to(command: &Command, file: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "file=$1; shift; exec \"$@\" 2>\"$file\"", "sh"]);
    shell.arg(file).arg(command.get_program()).args(command.get_args());
    shell
}

fn to_pipe(command: Command) -> Command {
    let is_pipe = |dir: &&Path| pipe_in(dir).exists();
    let dirs = command.get_args().map(Path::new).flat_map(Path::ancestors);
    let pipe = pipe_in(dirs.filter(|dir| dir.is_absolute()).find(is_pipe).unwrap());
    complains_to(&command, &pipe)
}

/// One is stopped, of which the others have much to say; they serve on, until they are stopped.
fn goes_on(mut cluster: Cluster) {
    let stop = |cluster: &mut Cluster, n: usize| {
        cluster.nodes[n].signal(Signal::TERM);
        let status = cluster.nodes[n].ended();
        assert!(status.success(), "node {}: {status}", n + 1);
    };
    stop(&mut cluster, 2);
    for key in ["one", "two", "three"] {
        cluster.node(0).ask::<String>(&["SET", key, "value"]);
        assert_eq!(cluster.node(1).ask::<String>(&["GET", key]), "value");
    }
    stop(&mut cluster, 1);
    stop(&mut cluster, 0);
}

/// The first line ended the node.
#[test]
fn nodes_serve_though_no_room_is_left_for_what_they_say() {
    let to_full = |command: Command| complains_to(&command, Path::new("/dev/full"));
    goes_on(Cluster::start(Scratch::new(), &[], to_full));
}

/// The first line after that ended the node: when it lost another one, and was needed.
#[test]
fn nodes_serve_though_who_read_what_they_say_has_gone() {
    let dir = Scratch::new();
    let pipe = Pipe::new(&pipe_in(dir.path()));
    let cluster = Cluster::start(dir, &[], to_pipe);
    drop(pipe);
    goes_on(cluster);
}

/// A node that had something to say stood still.
#[test]
fn nodes_serve_though_nobody_reads_what_they_say() {
    let dir = Scratch::new();
    let mut pipe = Pipe::new(&pipe_in(dir.path()));
    pipe.fill();
    let cluster = Cluster::start(dir, &[], to_pipe);
    goes_on(cluster);
    drop(pipe);
}

//! A node alone, whose directory is looked at and ruined.

use crate::{
    common::{Process, Scratch, connect, fails, lakebed},
    ports::ports,
};
use rustix::process::Signal;
use std::{fs::File, os::unix::fs::FileExt, path::Path};

/// A node alone, which has lived in a directory.
pub(crate) struct Lone {
    dir: Scratch,
    pub(crate) clients: u16,
    peers: u16,
}

impl Lone {
    /// One that was never started.
    pub(crate) fn unborn() -> Self {
        Self { dir: Scratch::new(), clients: ports(1), peers: ports(1) }
    }

    /// One that has kept a value and stopped.
    pub(crate) fn new() -> Self {
        Self::that(&[], |connection| {
            redis::cmd("SET").arg("key").arg("value").exec(connection).unwrap();
        })
    }

    /// One that was asked for this, with more flags, and stopped.
    pub(crate) fn that(flags: &[&str], ask: impl FnOnce(&mut redis::Connection)) -> Self {
        let lone = Self::unborn();
        let all = lone.flags();
        let all: Vec<_> = all.iter().map(String::as_str).chain(flags.iter().copied()).collect();
        let mut node = Process::start(&mut lakebed(&all));
        node.says("ready");
        ask(&mut connect(lone.clients).unwrap());
        node.signal(Signal::INT);
        assert!(node.ended().success(), "{}", node.errors());
        lone
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn flags(&self) -> Vec<String> {
        let Self { dir, clients, peers } = self;
        let dir = dir.path().display();
        let flags = format!(
            "serve --id 1 --cluster here --dir {dir} --listen 127.0.0.1:{peers} \
             --peers 1=127.0.0.1:{peers} --resp 127.0.0.1:{clients}"
        );
        flags.split_whitespace().map(String::from).collect()
    }

    pub(crate) fn start(&self) -> Process {
        let flags = self.flags();
        Process::start(&mut lakebed(&flags.iter().map(String::as_str).collect::<Vec<_>>()))
    }

    #[track_caller]
    pub(crate) fn is_refused(&self, expected: &[&str]) {
        let flags = self.flags();
        fails(&flags.iter().map(String::as_str).collect::<Vec<_>>(), 1, expected);
    }

    /// Flips a bit in these blocks of its hard state.
    pub(crate) fn flip(&self, blocks: &[u64]) {
        let file = File::options().read(true).write(true).open(self.path().join("hard-state"));
        let (file, mut byte) = (file.unwrap(), [0]);
        for block in blocks {
            file.read_exact_at(&mut byte, block + 100).unwrap();
            file.write_all_at(&[byte[0] ^ 4], block + 100).unwrap();
        }
    }
}

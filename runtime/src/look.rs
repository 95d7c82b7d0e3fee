//! Looking at a node's directory without changing a byte of it.
//!
//! The engine itself looks ([`Start::Inspect`], [`Start::Verify`]), so what is told is what a
//! restart would do; here its reads are performed. Knows no byte of the files.

use crate::dir::{self, DirError};
use lakebed::{
    Action, Completion, Config, DiskError, DiskRequest, Engine, Event, GroupId, Halt, Inspection,
    Instant, NodeId, OpId, Recovery, Start, files::Directory,
};
use std::{
    fmt,
    path::Path,
    sync::{
        Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

/// How many reads are under way at one time.
const READERS: usize = 4;

/// How closely to look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// As a restart does before its verdict.
    Verdict,
    /// Every used byte.
    Bytes,
}

/// Why a directory could not be looked at.
#[derive(Debug)]
#[non_exhaustive]
pub enum LookError {
    /// It is no node's, or cannot be opened, or a node runs in it.
    Directory(DirError),
    /// The look ended before it came to a verdict.
    Halted(Box<Halt>),
}

impl fmt::Display for LookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(error) => error.fmt(f),
            Self::Halted(halt) => halt.fmt(f),
        }
    }
}

impl std::error::Error for LookError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Directory(error) => Some(error),
            Self::Halted(_) => None,
        }
    }
}

/// Looks at the directory of a node that does not run. `progress` is told how far it is, often.
///
/// It need not know what the node was configured for: the hard state says in which units it writes.
pub fn look(
    path: &Path,
    depth: Depth,
    progress: impl FnMut(&Recovery),
) -> Result<Box<Inspection>, LookError> {
    let (directory, owner) = dir::open_to_read(path).map_err(LookError::Directory)?;
    let config = Config::new(GroupId(owner.group), NodeId(owner.node));
    let engine = Engine::new(config, 0).expect("the default configuration is valid");
    let start = match depth {
        Depth::Verdict => Start::Inspect,
        Depth::Bytes => Start::Verify,
    };
    match drive(engine, start, &directory, progress) {
        Halt::Inspected(mut found) => {
            for (file, error) in directory.closed() {
                found.cannot_read(*file, error.to_string(), format!("cannot open {file}: {error}"));
            }
            Ok(found)
        }
        halt => Err(LookError::Halted(Box::new(halt))),
    }
}

type Ask = (OpId, DiskRequest);
type Told = (OpId, Result<Completion, DiskError>);

fn drive(
    mut engine: Engine,
    start: Start,
    directory: &Directory,
    mut progress: impl FnMut(&Recovery),
) -> Halt {
    let (ask, asked) = channel::<Ask>();
    let (tell, told) = channel();
    let asked = Mutex::new(asked);
    thread::scope(|scope| {
        for _ in 0..READERS {
            let (asked, tell) = (&asked, tell.clone());
            scope.spawn(move || read(directory, asked, &tell));
        }
        // When it returns, nothing is asked any more and the readers end.
        let ask = ask;
        let mut events = vec![Event::Start(start)];
        let mut actions = Vec::new();
        loop {
            // A look is bounded by its reads, not by time: the engine needs no clock for it.
            engine.handle(Instant(1), events.drain(..), &mut actions);
            progress(&engine.status().recovery);
            for action in actions.drain(..) {
                match action {
                    Action::Halt(halt) => return *halt,
                    Action::Disk { op, request, .. } => {
                        ask.send((op, request)).expect("readers end after this");
                    }
                    _ => {}
                }
            }
            let (op, result) = told.recv().expect("readers end after this");
            events.push(Event::Completed { op, result });
        }
    })
}

/// Performs one request after the other until there are no more.
fn read(directory: &Directory, asked: &Mutex<Receiver<Ask>>, tell: &Sender<Told>) {
    loop {
        let next = asked.lock().expect("no reader panics while it waits").recv();
        let Ok((op, request)) = next else { return };
        // Whoever asked has come to an end, perhaps: then nobody wants to know.
        if tell.send((op, directory.perform(&request))).is_err() {
            return;
        }
    }
}

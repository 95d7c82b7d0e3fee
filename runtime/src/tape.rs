//! Records what the engine is told and what it answers, onto a file or elsewhere, while it works.
//!
//! Knows no event and no action; the format is `lakebed::tape`'s. Invariant: what is in the file
//! ends behind a whole step, unless the engine panicked, the process was killed or the disk filled
//! up in the middle of one; and the node never waits for it before its own end.

use crate::node::StartError;
use lakebed::{Action, Config, Core, Engine, Event, Instant, Status, tape::Recorder};
use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};
use tracing::warn;

/// Steps are gathered until they are this many bytes, or that old: to wake the writer costs more
/// than to encode a step.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNK_AGE_MAX: Duration = Duration::from_secs(1);
/// The most bytes that wait for the writer; a tape that needs more ends.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// Where the bytes of a tape go.
pub trait Reel {
    /// Takes the next bytes; false when the tape must end before them.
    fn take(&mut self, bytes: Vec<u8>) -> bool;
}

/// An engine, and its tape if it has one: a [`Core`] that [`lakebed::tape`] reads back.
pub struct Recorded<R: Reel> {
    engine: Engine,
    tape: Option<Tape<R>>,
}

impl<R: Reel> Recorded<R> {
    /// An engine that is not recorded.
    #[must_use]
    pub const fn without(engine: Engine) -> Self {
        Self { engine, tape: None }
    }

    /// An engine that was made from this configuration and seed and has seen no event.
    #[must_use]
    pub fn onto(reel: R, engine: Engine, config: &Config, seed: u64) -> Self {
        let recorder = Recorder::new(config, seed);
        Self { engine, tape: Some(Tape { recorder, last: Instant::default(), reel }) }
    }
}

impl<R: Reel> Core for Recorded<R> {
    fn handle(
        &mut self,
        now: Instant,
        events: impl IntoIterator<Item = Event>,
        actions: &mut Vec<Action>,
    ) {
        let Some(tape) = &mut self.tape else { return self.engine.handle(now, events, actions) };
        let events: Vec<Event> = events.into_iter().collect();
        let before = actions.len();
        tape.recorder.handed(now, &events);
        self.engine.handle(now, events, actions);
        tape.recorder.emitted(&actions[before..]);
        if !tape.keep_up(now) {
            self.tape = None;
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.engine.deadline()
    }

    fn status(&self) -> Status {
        self.engine.status()
    }
}

/// Steps on their way to a reel.
struct Tape<R: Reel> {
    recorder: Recorder,
    /// When the last chunk went.
    last: Instant,
    reel: R,
}

impl<R: Reel> Tape<R> {
    /// False when the tape must end.
    fn keep_up(&mut self, now: Instant) -> bool {
        let is_old = self.last.after(CHUNK_AGE_MAX) <= now;
        if !is_old && self.recorder.bytes().len() < CHUNK_BYTES {
            return true;
        }
        self.last = now;
        self.reel.take(self.recorder.take())
    }
}

/// Whoever learns that the node has ended finds the whole tape. Of a panic's step it holds the
/// events, the likely cause.
impl<R: Reel> Drop for Tape<R> {
    fn drop(&mut self) {
        // Of a tape that had to end nothing is left to be taken.
        let rest = self.recorder.take();
        if !rest.is_empty() {
            self.reel.take(rest);
        }
    }
}

/// A file, written by a thread of its own.
pub(crate) struct FileReel {
    /// `None` once the tape has ended.
    chunks: Option<Sender<Vec<u8>>>,
    /// Bytes that were sent and are not written.
    waiting: Arc<AtomicUsize>,
    writer: Option<JoinHandle<()>>,
}

impl FileReel {
    pub(crate) fn create(path: PathBuf) -> Result<Self, StartError> {
        Self::begin(&path).map_err(|error| StartError::Tape { path, error })
    }

    fn begin(path: &Path) -> io::Result<Self> {
        let (file, path) = create_new(path)?;
        let (chunks, sent) = channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&waiting);
        let work = move || {
            if let Err(error) = write_all(file, &sent, &left) {
                warn!(path = %path.display(), %error, "the tape ends here: it cannot be written");
            }
        };
        let writer = thread::Builder::new().name("lakebed-tape".into()).spawn(work)?;
        Ok(Self { chunks: Some(chunks), waiting, writer: Some(writer) })
    }
}

impl Reel for FileReel {
    fn take(&mut self, bytes: Vec<u8>) -> bool {
        let len = bytes.len();
        let fits = self.waiting.fetch_add(len, Relaxed) + len <= WAITING_BYTES_MAX;
        if !fits {
            warn!("the tape ends here: it cannot be written as fast as the node works");
        }
        // A writer that is gone has said why.
        let sent = fits && self.chunks.as_ref().is_some_and(|chunks| chunks.send(bytes).is_ok());
        if !sent {
            (self.chunks, self.writer) = (None, None);
        }
        sent
    }
}

/// Waits until all of it is in the file.
impl Drop for FileReel {
    fn drop(&mut self) {
        self.chunks = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// A tape that is there may be the one that tells of a bug: the next free name is taken.
fn create_new(path: &Path) -> io::Result<(File, PathBuf)> {
    let mut name = path.to_owned();
    for n in 2_u64.. {
        match OpenOptions::new().write(true).create_new(true).open(&name) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            opened => return opened.map(|file| (file, name)),
        }
        let mut next: OsString = path.into();
        next.push(format!(".{n}"));
        name = next.into();
    }
    unreachable!("there are more numbers than files")
}

fn write_all(mut file: File, chunks: &Receiver<Vec<u8>>, waiting: &AtomicUsize) -> io::Result<()> {
    for chunk in chunks {
        file.write_all(&chunk)?;
        waiting.fetch_sub(chunk.len(), Relaxed);
    }
    Ok(())
}

//! Records what the engine is told and what it answers, onto a file, while it works.
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

/// An engine, and its tape if it has one.
pub(crate) struct Recorded {
    engine: Engine,
    tape: Option<Tape>,
}

impl Recorded {
    pub(crate) const fn without(engine: Engine) -> Self {
        Self { engine, tape: None }
    }

    /// An engine that was made from this configuration and seed and has seen no event.
    pub(crate) fn onto(
        path: PathBuf,
        engine: Engine,
        config: &Config,
        seed: u64,
    ) -> Result<Self, StartError> {
        let begin = || Tape::begin(&path, Recorder::new(config, seed));
        let tape = begin().map_err(|error| StartError::Tape { path: path.clone(), error })?;
        Ok(Self { engine, tape: Some(tape) })
    }
}

impl Core for Recorded {
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

/// Steps on their way to a file.
struct Tape {
    recorder: Recorder,
    /// When the last chunk went.
    last: Instant,
    /// `None` once the tape has ended.
    chunks: Option<Sender<Vec<u8>>>,
    /// Bytes that were sent and are not written.
    waiting: Arc<AtomicUsize>,
    writer: Option<JoinHandle<()>>,
}

impl Tape {
    fn begin(path: &Path, recorder: Recorder) -> io::Result<Self> {
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
        let last = Instant::default();
        Ok(Self { recorder, last, chunks: Some(chunks), waiting, writer: Some(writer) })
    }

    /// False when the tape must end.
    fn keep_up(&mut self, now: Instant) -> bool {
        let is_old = self.last.after(CHUNK_AGE_MAX) <= now;
        if !is_old && self.recorder.bytes().len() < CHUNK_BYTES {
            return true;
        }
        self.last = now;
        self.send()
    }

    fn send(&mut self) -> bool {
        let chunk = self.recorder.take();
        let len = chunk.len();
        let fits = self.waiting.fetch_add(len, Relaxed) + len <= WAITING_BYTES_MAX;
        if !fits {
            warn!("the tape ends here: it cannot be written as fast as the node works");
        }
        // A writer that is gone has said why.
        let sent = fits && self.chunks.as_ref().is_some_and(|chunks| chunks.send(chunk).is_ok());
        if !sent {
            (self.chunks, self.writer) = (None, None);
        }
        sent
    }
}

/// Whoever learns that the node has ended finds the whole tape. Of a panic's step it holds the
/// events, the likely cause.
impl Drop for Tape {
    fn drop(&mut self) {
        if self.chunks.is_some() {
            self.send();
        }
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

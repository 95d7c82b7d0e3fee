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
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};
use tracing::warn;

/// The writer gathers steps until they are this many bytes, or that old: to write each costs more than to
/// encode it.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNK_AGE_MAX: Duration = Duration::from_secs(1);
/// The most bytes that wait for the writer; a tape that needs more ends.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// Where the bytes of a tape go.
pub trait Reel {
    /// Takes the next bytes; false when the tape must end before them.
    fn take(&mut self, bytes: &[u8]) -> bool;
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
        Self { engine, tape: Some(Tape { recorder, reel }) }
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
        if !tape.pass_on() {
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
    reel: R,
}

impl<R: Reel> Tape<R> {
    /// What the engine has been handed and has emitted is on its way before any of it is carried out: the
    /// machine may never return. False when the tape must end.
    fn pass_on(&mut self) -> bool {
        let is_taken = self.reel.take(self.recorder.bytes());
        self.recorder.clear();
        is_taken
    }
}

/// Whoever learns that the node has ended finds the whole tape. Of a panic's step it holds the
/// events, the likely cause.
impl<R: Reel> Drop for Tape<R> {
    fn drop(&mut self) {
        // Of a tape that had to end nothing is left to be taken.
        if !self.recorder.bytes().is_empty() {
            self.pass_on();
        }
    }
}

/// A file, written by a thread of its own.
pub(crate) struct FileReel {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

/// What is not written yet.
#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Nothing follows.
    is_over: bool,
    /// It cannot be written.
    has_failed: bool,
}

impl FileReel {
    pub(crate) fn create(path: PathBuf) -> Result<Self, StartError> {
        Self::begin(&path).map_err(|error| StartError::Tape { path, error })
    }

    fn begin(path: &Path) -> io::Result<Self> {
        let (file, path) = create_new(path)?;
        Self::over(file, path)
    }

    fn over(file: File, path: PathBuf) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let sent = Arc::clone(&shared);
        let work = move || {
            if let Err(error) = sent.write_all(file) {
                warn!(path = %path.display(), %error, "the tape ends here: it cannot be written");
                *sent.waiting() = Waiting { has_failed: true, ..Waiting::default() };
            }
        };
        let writer = thread::Builder::new().name("lakebed-tape".into()).spawn(work)?;
        Ok(Self { shared, writer: Some(writer) })
    }
}

impl Reel for FileReel {
    /// Wakes the writer where it has nothing yet, and where it has a chunk: more often would cost a system
    /// call for each step.
    fn take(&mut self, bytes: &[u8]) -> bool {
        let mut waiting = self.shared.waiting();
        let before = waiting.bytes.len();
        let after = before + bytes.len();
        if waiting.has_failed || after > WAITING_BYTES_MAX {
            // A writer that has failed has said why.
            if !waiting.has_failed {
                warn!("the tape ends here: it cannot be written as fast as the node works");
            }
            drop(waiting);
            // It writes what it has, and the node goes on: a disk that is slow may as well hang.
            self.writer = None;
            return false;
        }
        waiting.bytes.extend_from_slice(bytes);
        drop(waiting);
        if before == 0 || before < CHUNK_BYTES && after >= CHUNK_BYTES {
            self.shared.arrived.notify_one();
        }
        true
    }
}

/// Waits until all of it is in the file, unless the tape had to end before its node.
impl Drop for FileReel {
    fn drop(&mut self) {
        self.shared.waiting().is_over = true;
        self.shared.arrived.notify_one();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Shared {
    /// Whoever panicked, what is guarded here is whole.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what is taken, until nothing follows.
    fn write_all(&self, mut file: File) -> io::Result<()> {
        let mut chunk = Vec::new();
        while self.next(&mut chunk) {
            file.write_all(&chunk)?;
        }
        Ok(())
    }

    /// The next chunk, as large or as old as it may become; false if there is none any more.
    fn next(&self, chunk: &mut Vec<u8>) -> bool {
        chunk.clear();
        // What a burst has taken is given back.
        chunk.shrink_to(2 * CHUNK_BYTES);
        let is_idle = |waiting: &mut Waiting| waiting.bytes.is_empty() && !waiting.is_over;
        let waiting = self.arrived.wait_while(self.waiting(), is_idle);
        let waiting = waiting.unwrap_or_else(PoisonError::into_inner);
        let is_small =
            |waiting: &mut Waiting| waiting.bytes.len() < CHUNK_BYTES && !waiting.is_over;
        let waited = self.arrived.wait_timeout_while(waiting, CHUNK_AGE_MAX, is_small);
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut waiting.bytes, chunk);
        !chunk.is_empty()
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

#[cfg(test)]
mod tests {
    use super::*;
    use lakebed::{GroupId, NodeId};
    use std::{os::fd::OwnedFd, sync::mpsc::channel};

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Reel for Kept {
        fn take(&mut self, bytes: &[u8]) -> bool {
            self.0.lock().expect("nobody panics").push(bytes.to_vec());
            true
        }
    }

    /// It was with the next one, a second later: a machine that never returned from what it was given took
    /// with it what that was.
    #[test]
    fn a_step_is_on_its_way_before_it_is_carried_out() {
        let config = Config::new(GroupId(1), NodeId(1));
        let engine = || Engine::new(config.clone(), 7).expect("the default configuration is valid");
        let kept = Kept::default();
        let mut recorded = Recorded::onto(kept.clone(), engine(), &config, 7);
        let mut expected = Recorder::new(&config, 7);
        let mut bare = engine();
        for now in [1, 2].map(Instant) {
            let (mut actions, mut again) = (Vec::new(), Vec::new());
            recorded.handle(now, [Event::Start(lakebed::Start::Inspect)], &mut actions);
            bare.handle(now, [Event::Start(lakebed::Start::Inspect)], &mut again);
            expected.step(now, &[Event::Start(lakebed::Start::Inspect)], &again);
            assert_eq!(kept.0.lock().expect("nobody panics").concat(), expected.bytes());
        }
    }

    struct Ending(Arc<Mutex<usize>>);

    impl Reel for Ending {
        fn take(&mut self, _: &[u8]) -> bool {
            *self.0.lock().expect("nobody panics") += 1;
            false
        }
    }

    /// What came behind a gap would be read as what came before it.
    #[test]
    fn nothing_is_recorded_behind_what_was_not() {
        let config = Config::new(GroupId(1), NodeId(1));
        let engine = Engine::new(config.clone(), 7).expect("the default configuration is valid");
        let taken = Arc::new(Mutex::new(0));
        let mut recorded = Recorded::onto(Ending(Arc::clone(&taken)), engine, &config, 7);
        for now in [1, 2].map(Instant) {
            recorded.handle(now, [Event::Start(lakebed::Start::Inspect)], &mut Vec::new());
        }
        drop(recorded);
        assert_eq!(*taken.lock().expect("nobody panics"), 1);
    }

    /// Of a panic's step there are the events, the likely cause.
    #[test]
    fn what_an_engine_was_handed_when_it_panicked_is_recorded() {
        let config = Config::new(GroupId(1), NodeId(1));
        let (kept, mut recorder) = (Kept::default(), Recorder::new(&config, 7));
        recorder.handed(Instant(1), &[Event::Start(lakebed::Start::Inspect)]);
        let expected = recorder.bytes().to_vec();
        drop(Tape { recorder, reel: kept.clone() });
        assert_eq!(kept.0.lock().expect("nobody panics").concat(), expected);
    }

    #[test]
    fn whoever_lets_a_tape_go_finds_all_of_it() {
        let file = tempfile::tempfile().unwrap();
        let written = file.try_clone().unwrap();
        let mut reel = FileReel::over(file, PathBuf::from("a file")).unwrap();
        let shared = Arc::clone(&reel.shared);
        assert!((0..8).all(|_| reel.take(&[7; CHUNK_BYTES])));
        drop(reel);
        assert_eq!(written.metadata().unwrap().len(), 8 * CHUNK_BYTES as u64);
        assert_eq!(Arc::strong_count(&shared), 1, "its writer has ended");
    }

    /// It waited for the next step, and a node that stood still was killed without its last ones.
    #[test]
    fn what_is_recorded_is_written_though_nothing_follows() {
        let shared = Arc::new(Shared::default());
        let mut reel = FileReel { shared: Arc::clone(&shared), writer: None };
        assert!(reel.take(b"the last ") && reel.take(b"step"));
        let mut chunk = Vec::new();
        assert!(shared.next(&mut chunk));
        assert_eq!(chunk, b"the last step");
        // A whole chunk does not wait, nor does what is there at the end.
        assert!(reel.take(&[7; CHUNK_BYTES]) && shared.next(&mut chunk));
        assert_eq!(chunk.len(), CHUNK_BYTES);
        assert!(reel.take(b"end"));
        drop(reel);
        assert!(shared.next(&mut chunk) && !shared.next(&mut Vec::new()));
        assert_eq!(chunk, b"end");
    }

    #[test]
    fn a_tape_ends_where_it_cannot_be_written_fast_enough_or_at_all() {
        let shared = Arc::new(Shared::default());
        let mut reel = FileReel { shared: Arc::clone(&shared), writer: None };
        let most = vec![7; WAITING_BYTES_MAX];
        assert!(reel.take(&most) && !reel.take(b"more"));
        assert!(shared.next(&mut Vec::new()) && reel.take(b"more"));
        shared.waiting().has_failed = true;
        assert!(!reel.take(b"more"));
    }

    /// The writer was waited for there as at the node's own end: behind a disk that hung it stood still for ever.
    #[test]
    fn a_node_does_not_wait_for_a_tape_that_had_to_end() {
        let (unread, full) = io::pipe().unwrap();
        let file = File::from(OwnedFd::from(full));
        let mut reel = FileReel::over(file, PathBuf::from("a pipe")).unwrap();
        let (gone, goes) = channel();
        let node = thread::spawn(move || {
            while reel.take(&[7; CHUNK_BYTES]) {}
            drop(reel);
            gone.send(())
        });
        let went = goes.recv_timeout(Duration::from_secs(10));
        // Whoever waits for the writer goes on by this.
        drop(unread);
        node.join().unwrap().unwrap();
        assert_eq!(went, Ok(()));
    }
}

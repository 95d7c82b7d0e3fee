//! What went into an engine and what came out, as stable bytes: for bug reports from production,
//! for the proof that a driver and a simulator run the same engine, and for digests.
//!
//! ```text
//! "LAKETAPE"  u32 version  config  u64 seed  step ...
//! step:   u64 now   u32 events   event ...   u32 actions   (u32 length, action) ...
//! ```
//!
//! All little-endian; a length or a count precedes whatever varies. Events are read back and given
//! to a fresh engine; actions are only ever compared, as bytes. A tape may end after any step. It
//! knows nothing of disks or roles, and trusts no length before it has compared it.

mod digest;
mod read;
mod write;

pub use digest::Digest;

use crate::{Action, Config, Engine, Event, Instant};
use bytes::Bytes;
use read::{Read, Source};
use std::fmt;
use write::Write;

/// The version this build writes, and the only one it reads.
pub const VERSION: u32 = 8;
const MAGIC: &[u8; 8] = b"LAKETAPE";

/// Writes a tape.
#[derive(Clone, Debug)]
pub struct Recorder {
    bytes: Vec<u8>,
}

impl Recorder {
    /// A tape of the engine that is made from this configuration and seed.
    #[must_use]
    pub fn new(config: &Config, seed: u64) -> Self {
        let mut bytes = MAGIC.to_vec();
        VERSION.write(&mut bytes);
        config.write(&mut bytes);
        seed.write(&mut bytes);
        Self { bytes }
    }

    /// Adds one call of [`Engine::handle`] and what it appended to its list.
    pub fn step(&mut self, now: Instant, events: &[Event], actions: &[Action]) {
        self.handed(now, events);
        self.emitted(actions);
    }

    /// Adds the first half of a step: what [`Engine::handle`] is about to consume.
    pub fn handed(&mut self, now: Instant, events: &[Event]) {
        now.write(&mut self.bytes);
        events.write(&mut self.bytes);
    }

    /// Adds the second half: what it appended to its list.
    pub fn emitted(&mut self, actions: &[Action]) {
        (actions.len() as u32).write(&mut self.bytes);
        for action in actions {
            let at = self.bytes.len();
            0_u32.write(&mut self.bytes);
            action.write(&mut self.bytes);
            let len = (self.bytes.len() - at - 4) as u32;
            self.bytes[at..at + 4].copy_from_slice(&len.to_le_bytes());
        }
    }

    /// The tape so far, from its beginning or the last [`clear`](Self::clear) on.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes so far are kept elsewhere: what is added from now on goes behind them.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }
}

/// One call of [`Engine::handle`], read back.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    /// The time it was called with.
    pub now: Instant,
    /// The events it was given.
    pub events: Vec<Event>,
    /// The actions it emitted, each as bytes.
    pub actions: Vec<Bytes>,
}

/// Reads a tape, step by step.
#[derive(Clone, Debug)]
pub struct Tape {
    /// The configuration of the engine.
    pub config: Config,
    /// The seed of the engine.
    pub seed: u64,
    source: Source,
    steps: u64,
}

impl Tape {
    /// Reads a tape's beginning.
    pub fn open(bytes: Bytes) -> Result<Self, TapeError> {
        let mut source = Source::new(bytes);
        if source.take(MAGIC.len()).as_deref() != Some(MAGIC) {
            return Err(TapeError::NotATape);
        }
        let version = u32::read(&mut source).ok_or(TapeError::NotATape)?;
        if version != VERSION {
            return Err(TapeError::Version { found: version });
        }
        let config = Config::read(&mut source).ok_or(TapeError::Malformed { step: 0 })?;
        let seed = u64::read(&mut source).ok_or(TapeError::Malformed { step: 0 })?;
        Ok(Self { config, seed, source, steps: 0 })
    }

    /// Gives every event to a fresh engine and compares every action; the number of steps.
    pub fn replay(self) -> Result<u64, TapeError> {
        let mut engine = Engine::new(self.config.clone(), self.seed)
            .map_err(|_| TapeError::Malformed { step: 0 })?;
        let (mut steps, mut actions) = (0, Vec::new());
        for step in self {
            let step = step?;
            steps += 1;
            actions.clear();
            engine.handle(step.now, step.events, &mut actions);
            compare(steps, &step.actions, &actions)?;
        }
        Ok(steps)
    }
}

impl Iterator for Tape {
    type Item = Result<Step, TapeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.source.is_empty() {
            return None;
        }
        self.steps += 1;
        let step = Step::read(&mut self.source);
        if step.is_none() {
            self.source = Source::new(Bytes::new());
        }
        Some(step.ok_or(TapeError::Malformed { step: self.steps }))
    }
}

/// An action as a tape has it.
#[must_use]
pub fn encode(action: &Action) -> Vec<u8> {
    let mut bytes = Vec::new();
    action.write(&mut bytes);
    bytes
}

/// What kind of action these bytes of a tape are.
#[must_use]
pub fn kind(action: &[u8]) -> &'static str {
    match action.first() {
        Some(1) => "disk",
        Some(2) => "send",
        Some(3) => "machine",
        Some(4) => "respond",
        Some(5) => "members",
        Some(6) => "note",
        Some(7) => "halt",
        _ => "none that this build knows",
    }
}

fn compare(step: u64, expected: &[Bytes], found: &[Action]) -> Result<(), TapeError> {
    let mut bytes = Vec::new();
    for (at, action) in found.iter().enumerate() {
        bytes.clear();
        action.write(&mut bytes);
        if expected.get(at).is_none_or(|expected| *expected != bytes) {
            let found = Some(Box::new(action.clone()));
            return Err(TapeError::Diverged { step, action: at, found });
        }
    }
    if expected.len() > found.len() {
        return Err(TapeError::Diverged { step, action: found.len(), found: None });
    }
    Ok(())
}

/// What is wrong with a tape, or with the engine it was played to. Steps count from one.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum TapeError {
    /// These bytes never were one.
    NotATape,
    /// Written by another version.
    Version {
        /// Which.
        found: u32,
    },
    /// Cut off within this step, or no event at all; step zero is the beginning.
    Malformed {
        /// Which step.
        step: u64,
    },
    /// The engine did something else.
    Diverged {
        /// In which step.
        step: u64,
        /// At which of its actions, from zero.
        action: usize,
        /// What it did there; `None`: nothing more.
        found: Option<Box<Action>>,
    },
}

impl fmt::Display for TapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotATape => f.write_str("this is no tape"),
            Self::Version { found } => {
                write!(f, "the tape is of version {found}, this build reads {VERSION}")
            }
            Self::Malformed { step } => write!(f, "the tape is malformed in step {step}"),
            Self::Diverged { step, action, found: Some(found) } => {
                write!(f, "step {step}, action {action}: the engine now does {found:?}")
            }
            Self::Diverged { step, action, found: None } => {
                write!(f, "step {step}: the engine now ends after {action} actions")
            }
        }
    }
}

impl std::error::Error for TapeError {}

#[cfg(test)]
pub(crate) mod tests;

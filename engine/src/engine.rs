//! The facade: the one place that sees consensus and storage both.

use crate::{
    action::Action,
    config::{Config, ConfigError},
    event::Event,
    status::Status,
    storage::Storage,
    types::Instant,
};

/// One node of one group, as a value: `(state, now, events) -> (state, actions)`.
#[derive(Clone, Debug)]
pub struct Engine {
    storage: Storage,
}

impl Engine {
    /// A node that has not started: the first event must be [`Event::Start`].
    ///
    /// `seed` is all the entropy it ever uses (election timeouts, incarnation): a driver draws it
    /// anew for each engine, a simulator from its stream.
    pub fn new(config: Config, seed: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self { storage: Storage::new(&config, seed) })
    }

    /// Records all events, settles once, and appends what is to be done to `actions`. No events:
    /// the [`deadline`](Self::deadline) has passed. A `now` that goes back is no time passed.
    pub fn handle(
        &mut self,
        _now: Instant,
        _events: impl IntoIterator<Item = Event>,
        _actions: &mut Vec<Action>,
    ) {
    }

    /// When `handle` must be called if nothing happens before; `None`: never.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// A look at the node.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::default()
    }
}

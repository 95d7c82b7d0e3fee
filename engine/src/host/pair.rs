//! What a host knows of another node: whether they are connected, and whether it lives.
//!
//! Knows no groups. Invariant: it is up only while the connection stands, something was heard of it
//! within the longest silence, and it says that it hears this node.

use super::beat::Beat;
use crate::types::Instant;
use bytes::Bytes;
use std::time::Duration;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Pair {
    /// Where it is reached; empty: nobody said.
    pub(super) address: Bytes,
    /// Some group has it as a member.
    pub(super) is_member: bool,
    /// What the driver said last; `None`: nothing yet.
    connected: Option<bool>,
    /// When it was heard of last, or the connection began.
    heard: Instant,
    is_silent: bool,
    /// It says that it does not hear this node.
    is_deaf: bool,
    /// As the beats of this connection say.
    life: Option<u64>,
    departures: u64,
}

/// What a beat told that was not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct News {
    /// The process on the other end is another one than before.
    pub(super) is_other_life: bool,
    /// Groups have ended there.
    pub(super) has_departures: bool,
}

impl Pair {
    pub(super) fn is_connected(&self) -> bool {
        self.connected == Some(true)
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_connected() && !self.is_silent && !self.is_deaf
    }

    /// Whether it is heard.
    pub(super) const fn hears(&self) -> bool {
        !self.is_silent
    }

    /// What groups are told of it that have it as a member from now on.
    pub(super) fn told(&self) -> Option<bool> {
        self.connected.map(|_| self.is_up())
    }

    /// Whoever is at the other end of the next connection, groups hear of a link anyway: its life is news
    /// to nobody.
    pub(super) const fn on_link(&mut self, up: bool, now: Instant) {
        self.connected = Some(up);
        self.life = None;
        self.heard = now;
        self.is_silent = false;
        self.is_deaf = false;
    }

    pub(super) const fn on_heard(&mut self, now: Instant) {
        self.heard = now;
        self.is_silent = false;
    }

    /// True when it has just been silent for too long.
    pub(super) fn falls_silent(&mut self, now: Instant, max: Duration) -> bool {
        let was_up = self.is_up();
        self.is_silent |= self.is_connected() && now.since(self.heard) > max;
        was_up && self.is_silent
    }

    pub(super) fn on_beat(&mut self, beat: &Beat) -> News {
        let before = self.life.replace(beat.life);
        let is_other_life = before.is_some_and(|life| life != beat.life);
        // Of the first beat nobody knows which of its departures came before a link told groups to ask.
        let known = before.map_or(0, |_| self.departures);
        let has_departures = !is_other_life && beat.departures > known;
        self.departures = beat.departures;
        self.is_deaf = !beat.hears;
        News { is_other_life, has_departures }
    }
}

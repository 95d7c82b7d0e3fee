//! A core that watches whoever drives it.

use super::{cluster::Client, ledger::Ledger, script::Script, talk::Talk};
use crate::{Action, Core, Engine, Event, Halt, Instant, Status};
use std::sync::{Arc, Mutex, MutexGuard};

/// A core within a core: hands everything on, and keeps account of what the driver owes.
///
/// [`check`](super::check) makes them. One may be put around any [`Engine`] too, in a test of the
/// driver's own or in production: [`Probe::around`] and [`Probe::broken`].
#[derive(Debug)]
pub struct Probe {
    inner: Inner,
    ledger: Arc<Mutex<Ledger>>,
}

#[derive(Debug)]
pub(super) enum Inner {
    Engine(Engine),
    Client(Client),
    Script(Script),
    Talk(Talk),
}

impl Probe {
    /// Watches the driver of this engine.
    #[must_use]
    pub fn around(engine: Engine) -> Self {
        Self::new(Inner::Engine(engine), Arc::default())
    }

    pub(super) const fn new(inner: Inner, ledger: Arc<Mutex<Ledger>>) -> Self {
        Self { inner, ledger }
    }

    /// The first clause that was broken so far, and what was seen.
    #[must_use]
    pub fn broken(&self) -> Option<super::Breach> {
        self.ledger().broken().cloned()
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }
}

/// A driver's panic must not hide what was found before it.
pub(super) fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Core for Probe {
    fn handle(
        &mut self,
        now: Instant,
        events: impl IntoIterator<Item = Event>,
        actions: &mut Vec<Action>,
    ) {
        let events: Vec<Event> = events.into_iter().collect();
        let already = actions.len();
        let ledger = &mut *lock(&self.ledger);
        ledger.on_call(now, &events);
        match &mut self.inner {
            // In production a breach is counted, and the node goes on.
            Inner::Engine(engine) => engine.handle(now, events, actions),
            // In a check there is no use in going on.
            _ if ledger.broken().is_some() => actions.push(Action::Halt(Box::new(Halt::Stopped))),
            Inner::Client(client) => client.handle(now, events, actions),
            Inner::Script(script) => script.handle(now, events, actions, ledger),
            Inner::Talk(talk) => talk.handle(now, events, actions, ledger),
        }
        let deadline = self.inner.deadline();
        ledger.on_actions(&actions[already..], deadline);
    }

    fn deadline(&self) -> Option<Instant> {
        self.inner.deadline()
    }

    fn status(&self) -> Status {
        match &self.inner {
            Inner::Engine(engine) => engine.status(),
            Inner::Client(client) => client.engine.status(),
            // Of a script there is nothing to say.
            Inner::Script(_) | Inner::Talk(_) => Status::default(),
        }
    }
}

impl Inner {
    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Engine(engine) => engine.deadline(),
            Self::Client(client) => client.deadline(),
            Self::Script(script) => script.deadline(),
            Self::Talk(talk) => talk.deadline(),
        }
    }
}

//! A machine that harms nobody as it goes: it may panic then too, as by a mutex that its own panic has
//! poisoned.
//!
//! Knows no driver. Invariant: no panic leaves the drop of a machine.

use lakebed::{Clients, Event, Machine, Runner, StateMachine};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// See the module.
pub(crate) struct Guarded<M>(Option<Runner<M>>);

impl<M: StateMachine> Guarded<M> {
    pub(crate) const fn new(machine: M) -> Self {
        Self(Some(Runner::new(machine)))
    }

    pub(crate) fn perform(&mut self, step: Machine, clients: &mut impl Clients) -> Option<Event> {
        self.0.as_mut().expect("it goes with this").perform(step, clients)
    }
}

impl<M> Drop for Guarded<M> {
    fn drop(&mut self) {
        let runner = self.0.take();
        // Whoever is told of panics was told of this one.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(runner)));
    }
}

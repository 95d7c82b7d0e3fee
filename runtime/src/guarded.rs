//! A machine that harms nobody as it goes: it may panic then too, as by a mutex that its own panic has
//! poisoned. And what a panic says.
//!
//! Knows no driver. Invariant: no panic leaves the drop of a machine.

use lakebed::{Clients, Event, Machine, Runner, StateMachine};
use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// See the module.
pub(crate) struct Guarded<M>(Option<Runner<M>>);

/// What was said with a panic that was caught.
pub(crate) fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref().map(String::as_str)).unwrap_or("it said nothing")
}

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

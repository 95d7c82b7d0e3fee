//! What a driver drives, and what it owes in return.
//!
//! A driver is a loop around a [`Core`]: it hands over what happened, performs what is asked, and
//! waits for the next event or the deadline. This is the whole contract:
//!
//! 1. **Order.** `Machine` actions are performed in order. Sends to one peer leave in order; one
//!    may be lost, but only whole, and then [`Event::Link`] says so, after it: down, and up again as
//!    soon as sends can be expected to arrive, be it at once. Each received message lies in a buffer
//!    of its own, which no other message shares: the core keeps slices of it.
//! 2. **Disk.** Operations may be performed in any order and at the same time. A `Sync` covers the
//!    writes to its file that ended before it was submitted; a durable `Write` covers itself, and the
//!    zeros that an [`Extent`](crate::Extent) asks for behind its bytes are part of it. An
//!    operation ends once, by [`Event::Completed`], and its buffers live until then; a failure is
//!    told as it is and never tried again. What ends after its core is gone is told to nobody, and
//!    a new core starts only when every operation of the former one has ended.
//! 3. **Time.** [`Core::handle`] is called at the [`Core::deadline`], if there is one, also with
//!    no events. The [`Instant`] it is given counts suspended time. The wall clock is told with the
//!    start and, as long as anything happens, about once a second ([`Event::time`]).
//! 4. **Beginning and end.** The first event is [`Event::Start`], once. After
//!    [`Action::Halt`], which is always the last action, the core is dropped.
//!
//! `lakebed::conformance` (a feature) checks what can be seen from a core's place, and says what
//! cannot: what reaches a device, what clients are told.

use crate::{Action, Engine, Event, Instant, Status};

/// What a driver drives: an [`Engine`], or something of its shape that watches the driver.
pub trait Core {
    /// Records all events, settles once, and appends what is to be done to `actions`. See
    /// [`Engine::handle`].
    fn handle(
        &mut self,
        now: Instant,
        events: impl IntoIterator<Item = Event>,
        actions: &mut Vec<Action>,
    );

    /// When `handle` must be called if nothing happens before; `None`: never.
    fn deadline(&self) -> Option<Instant>;

    /// A look at it, for those who ask the driver.
    fn status(&self) -> Status {
        Status::default()
    }
}

impl Core for Engine {
    fn handle(
        &mut self,
        now: Instant,
        events: impl IntoIterator<Item = Event>,
        actions: &mut Vec<Action>,
    ) {
        Self::handle(self, now, events, actions);
    }

    fn deadline(&self) -> Option<Instant> {
        Self::deadline(self)
    }

    fn status(&self) -> Status {
        Self::status(self)
    }
}

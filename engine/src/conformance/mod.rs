//! The driver-conformance kit: does a driver keep the [contract](crate::contract)?
//!
//! [`check`] hands a driver cores that watch it: scripted ones, which ask for what an engine
//! seldom asks for, and real engines with a [`Probe`] around them. It reports each clause that was
//! broken, by name, with what was seen. The driver must be generic over [`Core`](crate::Core), and
//! it must run until the halt when it is called; one that is async is wrapped in a `block_on`.
//!
//! ```no_run
//! # use lakebed::conformance::{Seat, check};
//! # fn drive(_seat: Seat) {}
//! # let scratch = std::path::Path::new("/tmp/conformance");
//! let report = check(scratch, |seat: Seat| {
//!     // seat.dir, seat.listener, seat.start, seat.core, seat.machine: yours to drive.
//!     drive(seat);
//! });
//! report.assert();
//! ```
//!
//! Where a driver has seams of its own, [`FaultyDisk`] and [`LossyLink`] go under it: they delay
//! and reorder completions and fail operations, and lose sends, in legal ways, and the probe knows
//! of each fault and demands that the driver tells of it as it is. Two cases are about nothing else.
//! Of a driver that does not use what they need, for every operation and send, they are
//! [not checked](Unchecked), and [`Report::assert`] refuses that as it does a failure, unless the test
//! [accepts](Report::accept_unchecked) it by name.
//!
//! # What the kit cannot see
//!
//! - That a sync came behind what it is to make durable, and that a `SyncDirectory` was any: only a power
//!   cut shows it. (A `Sync` or a durable `Write` without a sync is seen on Linux.) That a sync that failed is not tried again: without a [`FaultyDisk`], and with one
//!   below it, in a disk of the driver's own.
//! - That the buffers of an operation live until it ends.
//! - `Respond`, `Members`, `Note` and `Machine::Query`: whose clients a driver has is its own affair,
//!   and the cores here have none. So nobody sees an answer that came too early, twice or never.
//! - A `CaptureStop` that is passed over: it costs the memory of a view, no more.
//! - A queue that is longer than what the cases send (16 messages in a turn), and what becomes of an
//!   acknowledgment that was lost.
//! - Messages that share one buffer with more than the length of a frame between them, or of which each
//!   ends where an allocator's next piece could begin.
//! - Events of a former life other than its disk operations: what was received for it, say.
//! - A link that is left down, around an engine: messages may come from where none can be sent to.
//! - What a clock counts while the machine sleeps, and whether the wall clock that is told is right.

mod cases;
mod cluster;
mod faults;
mod ledger;
mod probe;
mod run;
mod script;
mod talk;
mod witness;

pub use cases::CASES;
pub use faults::{FaultyDisk, LossyLink};
pub use ledger::LATENESS_MAX;
pub use probe::Probe;
pub use run::{Failure, Report, Seat, Unchecked, Verdict, check, check_case};
pub use witness::Witness;

use std::fmt;

/// A clause of the contract.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Clause {
    /// The first event is `Start`, and there is one.
    StartFirst,
    /// `handle` is called at the deadline.
    Deadline,
    /// The wall clock is told with the start and once a second as long as anything happens.
    TimeTold,
    /// Each disk operation ends once.
    OpEnds,
    /// What a disk operation did is what was asked, and reads find what was written.
    DiskContent,
    /// A failed operation is told as failed, with its error, and not tried again.
    FailureTold,
    /// No completion of a former core reaches a new one, and no operation outlives its core.
    FormerLife,
    /// Machine steps are performed in order, each answered, and no more is claimed than was done.
    MachineInOrder,
    /// Sends to one peer arrive in order, unchanged and from whom they come.
    SendsInOrder,
    /// A lost send is followed by `Link { up: false }`.
    LossTold,
    /// A link that was down is said to be up when sends can be expected to arrive again.
    LinkUp,
    /// Each received message lies in a buffer of its own.
    OwnBuffer,
    /// The core is driven until it halts.
    UntilHalt,
    /// After the halt the core is dropped.
    DroppedAfterHalt,
    /// Nothing that happens makes a driver panic.
    Panicked,
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StartFirst => "the first event is Start, once",
            Self::Deadline => "handle is called at the deadline",
            Self::TimeTold => "the wall clock is told once a second",
            Self::OpEnds => "each disk operation ends once",
            Self::DiskContent => "disk operations do what was asked",
            Self::FailureTold => "a failed operation is told as it failed",
            Self::FormerLife => "a former core's operations end with it",
            Self::MachineInOrder => "machine steps are performed in order",
            Self::SendsInOrder => "sends arrive in order and unchanged",
            Self::LossTold => "a lost send is followed by Link down",
            Self::LinkUp => "a link is up again once sends arrive",
            Self::OwnBuffer => "a received message has its own buffer",
            Self::UntilHalt => "a core is driven until it halts",
            Self::DroppedAfterHalt => "after the halt the core is dropped",
            Self::Panicked => "a driver does not panic",
        })
    }
}

/// A clause that was broken, and what was seen.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Breach {
    /// Which.
    pub clause: Clause,
    /// What was seen.
    pub detail: String,
}

impl std::error::Error for Breach {}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "broken: {} ({})", self.clause, self.detail)
    }
}

//! What a run will be: expanded from a seed, and a plain value from then on.
//!
//! A plan knows no world. It is what is printed, saved, shrunk and reviewed: its text says all of
//! it (`text`), one line per group of settings, client and fault.

mod asks;
mod beyond;
mod check;
mod churn;
mod draw;
mod fields;
mod file;
mod kind;
mod manner;
mod minority;
mod retuning;
mod sessions;
mod site;
mod steps;
mod swarm;
#[cfg(test)]
mod tests;
mod text;

pub use asks::Asks;
pub use fields::{KINDS_COUNT, kind_names};
pub use file::{PlanFile, VERSION};
pub use manner::Manner;
pub use minority::{Minority, Trouble};
pub use retuning::{Retuning, Times};
pub use sessions::Sessions;
pub use steps::{Step, Steps};
pub use text::{PlanError, Time};

use crate::disk::{Failure, Geometry, Mishap, Outcome, Survivors, Victim};
use lakebed::{DiskError, File, Tuning};

/// A microsecond of simulated time, in nanoseconds.
pub const US: u64 = 1_000;
/// A millisecond of simulated time, in nanoseconds.
pub const MS: u64 = 1_000_000;

/// The least time something takes, and the tail on top; nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Latency {
    /// Never less than this.
    pub least: u64,
    /// Half of the time within this much more, rarely several times it.
    pub tail: u64,
}

/// How messages travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Links {
    /// How long a message takes.
    pub latency: Latency,
    /// Messages lost in 65,536; each breaks its connection, as a stream would.
    pub loss: u64,
    /// Messages in 65,536 that arrive twice, the second time late, perhaps in another life.
    pub duplicate: u64,
    /// Whether messages overtake each other.
    pub reorder: bool,
    /// Whether a loss goes unnoticed: no connection breaks, nobody is told.
    pub silent: bool,
}

/// How long disks take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskTimes {
    /// Reads, and changes of names.
    pub read: Latency,
    /// Writes that are not durable.
    pub write: Latency,
    /// Syncs and durable writes.
    pub sync: Latency,
}

/// A fault and when it strikes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Simulated nanoseconds from the start of the run.
    pub at: u64,
    /// What happens.
    pub kind: FaultKind,
}

/// What can happen to a cluster. Nodes count from zero.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum FaultKind {
    /// These machines lose power, as soon as one of them is at the moment, and come back.
    PowerCut {
        /// Which.
        nodes: Vec<usize>,
        /// When exactly.
        moment: Moment,
        /// What of their caches survives.
        survivors: Survivors,
        /// Which copy of their hard states rots while they are down, if any: zero or one.
        rot: Option<u8>,
        /// How long they are down.
        down: u64,
    },
    /// A machine loses power right after a step of its disk, and comes back.
    PowerCutAt {
        /// Which.
        node: usize,
        /// After how many steps: events at which an operation of its disk began or ended, over all
        /// its lives ([`World::disk_steps`](crate::World::disk_steps)).
        step: u64,
        /// What survives.
        outcome: Outcome,
        /// Which copy of its hard state rots while it is down, if any: zero or one.
        rot: Option<u8>,
        /// How long it is down.
        down: u64,
    },
    /// A process dies when it is at the moment, and its kernel lives; it comes back, and as soon as it has
    /// written anything its machine loses power, and comes back. What it found may have been in the
    /// cache alone.
    KillAndCut {
        /// Which.
        node: usize,
        /// When exactly.
        moment: Moment,
        /// What survives the power cut.
        survivors: Survivors,
        /// How long it is down, each time.
        down: u64,
    },
    /// A process dies right after a step of its disk and its kernel lives; it comes back.
    KillAt {
        /// Which.
        node: usize,
        /// After how many steps, as above.
        step: u64,
        /// How long it is down.
        down: u64,
    },
    /// An operation of a node's disk ends badly.
    FailAt {
        /// Whose.
        node: usize,
        /// Which, counting from one over all its lives
        /// ([`World::disk_operations`](crate::World::disk_operations)).
        operation: u64,
        /// How. An operation that cannot end so ends well.
        mishap: Mishap,
    },
    /// A machine loses power, if it has any, and a bit of its disk is another one when it comes
    /// back. It may refuse to start then; the others must serve.
    Flip {
        /// Which.
        node: usize,
        /// In which file.
        file: File,
        /// Which bit, counting from the lowest of the first byte.
        bit: u64,
        /// How long it is down, if it was up.
        down: u64,
    },
    /// A process dies and its kernel lives; it comes back.
    Kill {
        /// Which.
        node: usize,
        /// How long it is down.
        down: u64,
    },
    /// These nodes do not hear those; with `both_ways` those do not hear these either.
    Partition {
        /// For each node, whether it is on the first side.
        side: Vec<bool>,
        /// Whether neither side hears the other, or only the second not the first.
        both_ways: bool,
        /// Whether connections break at once; else everybody believes them whole until the end.
        noticed: bool,
        /// For how long.
        lasts: u64,
    },
    /// The next sync or durable write of a node fails.
    SyncFailure {
        /// Which node's.
        node: usize,
        /// How.
        failure: Failure,
    },
    /// The next sync or durable write of what others gave a node fails while its process dies: nobody is
    /// told, the cache shows what the disk has not, and calls it clean. The process comes back. No storm
    /// draws it; whoever wants it in one adds it.
    UnheardFailure {
        /// Which node's.
        node: usize,
        /// Of what.
        given: Given,
        /// How long it is down.
        down: u64,
    },
    /// A disk has no more room.
    DiskFull {
        /// Whose.
        node: usize,
        /// For how long.
        lasts: u64,
    },
    /// A disk takes many times as long.
    SlowDisk {
        /// Whose.
        node: usize,
        /// How many times.
        factor: u64,
        /// For how long.
        lasts: u64,
    },
    /// A node is asked to stop, and started again.
    Stop {
        /// Which.
        node: usize,
        /// Whether it first hands its role over.
        hand_over: bool,
    },
    /// A disk takes everything and ends nothing.
    HungDisk {
        /// Whose.
        node: usize,
        /// For how long.
        lasts: u64,
    },
    /// The next operation of a kind fails, with a part of its effect.
    FailedOperation {
        /// Which node's.
        node: usize,
        /// Which kind.
        victim: Victim,
        /// What the system says.
        error: DiskError,
    },
    /// A process stands still, and its clock goes on.
    Pause {
        /// Which.
        node: usize,
        /// For how long.
        lasts: u64,
    },
    /// A wall clock is set; the clock that timers go by is not.
    SetClock {
        /// Whose.
        node: usize,
        /// Forward or back, by so many milliseconds.
        by_ms: i64,
    },
    /// The clock that timers go by stands still, then goes on from there.
    StalledClock {
        /// Whose.
        node: usize,
        /// For how long.
        lasts: u64,
    },
    /// A node hears nobody and nobody hears it, whatever partitions there are beside that.
    Isolated {
        /// Which.
        node: usize,
        /// Whether its connections break at once; else all believe them whole until the end.
        noticed: bool,
        /// For how long.
        lasts: u64,
    },
    /// Messages queue up on their way from one node to another, and come late and in order.
    SlowLink {
        /// From here.
        from: usize,
        /// To there.
        to: usize,
        /// How much gets through; nothing at all if zero, and then everything at the end.
        bytes_per_ms: u64,
        /// For how long.
        lasts: u64,
    },
    /// A machine loses power, and something on its disk is damaged that its node has twice.
    Damage {
        /// Which.
        node: usize,
        /// What.
        part: Part,
        /// How.
        harm: Harm,
        /// Which of all such places.
        pick: u64,
        /// What of its cache survives.
        survivors: Survivors,
        /// How long it is down.
        down: u64,
    },
    /// A machine loses power, and anything on its disk is damaged. Beyond the budget.
    Ruin {
        /// Which.
        node: usize,
        /// How.
        harm: Harm,
        /// Which of all files and places.
        pick: u64,
        /// How long it is down.
        down: u64,
    },
    /// A bit of an entry, of an entry and its slot, or of a snapshot, is another one, and its node runs on.
    /// Beyond the budget.
    Rot {
        /// On whose disk.
        node: usize,
        /// Of which: [`Part::Entries`], [`Part::Slots`] or [`Part::Snapshot`].
        part: Part,
        /// Which of all such places.
        pick: u64,
    },
    /// The next sync or durable write of a node, of anything but its hard state, says that it is
    /// done and is not. Beyond the budget.
    LostWrite {
        /// Which node's.
        node: usize,
    },
    /// The next write of a node lands elsewhere in its file. Beyond the budget.
    MisdirectedWrite {
        /// Which node's.
        node: usize,
        /// Where.
        pick: u64,
    },
    /// The next write of a node lands in another of its files. Beyond the budget.
    MisfiledWrite {
        /// Which node's.
        node: usize,
        /// In which, and where.
        pick: u64,
    },
    /// The next sync of a node's directory says that it is done and is not; the one behind it makes durable what it did
    /// not. Beyond the budget.
    LostNames {
        /// Which node's.
        node: usize,
    },
    /// The next sync or durable write of a node, of anything but its hard state, says that it is done and is not,
    /// and the next one of the same file fails for it, if there is one before the power fails. Beyond the budget.
    LateReport {
        /// Which node's.
        node: usize,
        /// How that next one fails.
        failure: Failure,
    },
    /// A read of a node ends with what lies elsewhere, in its file or in another one. Beyond the budget.
    MisdirectedRead {
        /// Which node's.
        node: usize,
        /// After so many reads that are answered well.
        after: u64,
        /// Where.
        pick: u64,
    },
    /// A machine loses power, and its disk is what it was so long ago. Beyond the budget.
    OldImage {
        /// Which.
        node: usize,
        /// How long ago.
        lasts: u64,
        /// How long it is down.
        down: u64,
    },
    /// Whoever leads is asked to hand over.
    Transfer {
        /// To whom.
        node: usize,
    },
    /// Whoever takes backups begins with a node's newest snapshot: pins it, reads it, gives it back.
    BackUp {
        /// Whose.
        node: usize,
        /// Before each look whether there is an answer.
        pause: u64,
    },
    /// The members are to be others: asked of whoever leads until it is taken, for a while.
    Change {
        /// What becomes of whom.
        steps: Steps,
    },
    /// A node's timing and limits become others while it runs; a restart forgets them.
    Tune {
        /// Whose.
        node: usize,
        /// What they become.
        to: Retuning,
    },
    /// All nodes' times become others at one moment, of those that are down when they start.
    Times {
        /// What they become.
        to: Times,
    },
    /// A machine gets an empty disk. Beyond the budget.
    DiskGone {
        /// Which.
        node: usize,
        /// Whether its node is formatted again, or started as if nothing had happened.
        formatted: bool,
        /// How long it is down.
        down: u64,
    },
}

/// What a node has twice, so that it can do without one; or what every node has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Slots; the entries are there.
    Slots,
    /// One of the two headers of a segment.
    Header,
    /// The end record of a full segment; all its entries are there.
    EndRecord,
    /// Anything in the newest of two snapshots.
    Snapshot,
    /// Entries under good slots, of which every quorum has others that are whole.
    Entries,
}

/// What others give a node, because it lacks it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Given {
    /// A snapshot, received whole.
    Snapshot,
    /// An entry that was damaged.
    Entry,
}

/// What becomes of a sector, or of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Harm {
    /// A bit of a sector rots.
    Rot,
    /// A sector is zeros.
    Zero,
    /// Each sector of the file rots.
    RotAll,
    /// The file is gone.
    Gone,
}

/// What a power cut waits for, for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// Any sector is written and not durable.
    Pending,
    /// A sector of the hard state is.
    PendingHardState,
    /// A file was given its name, or lost it, and that is not durable.
    PendingName,
}

/// What makes a run worth its while: it goes on until this much has happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Targets {
    /// Calls of `handle` with a message, a completion or a request.
    pub events: u64,
    /// Requests that were answered.
    pub answers: u64,
    /// Power cuts of a node with sectors pending; what faults leave wanting is made up for.
    pub crashes: u64,
}

/// All that a run does not draw as it goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Where every draw of the run comes from.
    pub seed: u64,
    /// How many nodes: voters, but for those that wait to join.
    pub nodes: usize,
    /// How many of them, the last ones, wait to join.
    pub joining: usize,
    /// What must happen before the run may end.
    pub targets: Targets,
    /// The clients, each with one request at a time, and which of their operations they make.
    pub clients: Vec<Asks>,
    /// The disks.
    pub geometry: Geometry,
    /// The largest log segment, in bytes.
    pub segment_bytes: u64,
    /// The first log segment, in bytes; each next one is twice as long, up to the largest.
    pub first_segment_bytes: u64,
    /// Timing and limits of the engines.
    pub tuning: Tuning,
    /// The network.
    pub links: Links,
    /// The speed of the disks.
    pub disk: DiskTimes,
    /// How fast each node's clock runs, in parts per million more or less.
    pub drift_ppm: Vec<i64>,
    /// How long a client waits between two requests.
    pub think: Latency,
    /// How clients ask.
    pub manner: Manner,
    /// After how many entries machines write their own state durably; 0: they have none, and begin
    /// anew with each start.
    pub keeps: u64,
    /// The sessions that clients have, if they have any.
    pub sessions: Option<Sessions>,
    /// What stays broken for a while once all else is healed, if anything does.
    pub minority: Option<Minority>,
    /// What happens, in order of time.
    pub faults: Vec<Fault>,
}

impl Plan {
    /// Whether it goes beyond the budget of damage within which a cluster must serve again.
    #[must_use]
    pub fn is_beyond(&self) -> bool {
        self.faults.iter().any(|fault| fault.kind.is_beyond())
    }

    /// How many backups are taken of this node.
    pub(crate) fn backups_of(&self, node: usize) -> usize {
        let is_it =
            |fault: &&Fault| matches!(fault.kind, FaultKind::BackUp { node: of, .. } if of == node);
        self.faults.iter().filter(is_it).count()
    }

    /// Whether backups are taken of any.
    pub(crate) fn takes_backups(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault.kind, FaultKind::BackUp { .. }))
    }

    /// A cluster without any fault, with quick disks and links: for directed stories.
    #[must_use]
    pub fn calm(seed: u64, nodes: usize) -> Self {
        let quick = Latency { least: 100 * US, tail: 50 * US };
        Self {
            seed,
            nodes,
            joining: 0,
            targets: Targets::default(),
            clients: vec![Asks::all(); 4],
            geometry: Geometry { sector: 512, align: 512, tears: false, sync_names: false },
            segment_bytes: 64 << 10,
            first_segment_bytes: 256 << 10,
            tuning: draw::tuning(16 << 10, 32 << 10, 64 << 10),
            links: Links { latency: quick, loss: 0, duplicate: 0, reorder: false, silent: false },
            disk: DiskTimes { read: quick, write: quick, sync: quick },
            drift_ppm: vec![0; nodes],
            think: Latency { least: MS, tail: MS },
            manner: Manner::default(),
            keeps: 0,
            sessions: None,
            minority: None,
            faults: Vec::new(),
        }
    }
}

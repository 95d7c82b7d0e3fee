//! What each line of a plan says: the names, in order, and where their values are kept.

use super::{
    Fault, FaultKind, Given, Harm, Latency, Moment, Part, Plan, Steps, Times, retuning,
    text::{Field, Word, choice, duration, node, nodes, numbers, optional, plain, sides, time},
};
use crate::disk::{EIO, Failure, Mishap, Outcome, Survivors, Victim};
use lakebed::{DiskError, File};
use std::fmt;

/// A group of settings: its keyword, and its values in a plan.
pub(super) type Group = (&'static str, fn(&mut Plan) -> Vec<Field<'_>>);

/// Every group, in the order of print.
pub(super) const GROUPS: [Group; 11] = [
    ("targets", targets),
    ("disk", disk),
    ("log", log),
    ("tuning", tuning),
    ("links", links),
    ("read", |plan| latency(&mut plan.disk.read)),
    ("write", |plan| latency(&mut plan.disk.write)),
    ("sync", |plan| latency(&mut plan.disk.sync)),
    ("think", |plan| latency(&mut plan.think)),
    ("asking", |plan| plan.manner.fields()),
    ("clocks", |plan| vec![numbers("drift-ppm", &mut plan.drift_ppm)]),
];

fn targets(plan: &mut Plan) -> Vec<Field<'_>> {
    let targets = &mut plan.targets;
    vec![
        plain("events", &mut targets.events),
        plain("answers", &mut targets.answers),
        plain("crashes", &mut targets.crashes),
    ]
}

fn log(plan: &mut Plan) -> Vec<Field<'_>> {
    vec![
        plain("segment-bytes", &mut plan.segment_bytes),
        plain("first-segment-bytes", &mut plan.first_segment_bytes),
    ]
}

fn disk(plan: &mut Plan) -> Vec<Field<'_>> {
    let geometry = &mut plan.geometry;
    vec![
        plain("sector", &mut geometry.sector),
        plain("align", &mut geometry.align),
        plain("tears", &mut geometry.tears),
        plain("sync-names", &mut geometry.sync_names),
    ]
}

fn tuning(plan: &mut Plan) -> Vec<Field<'_>> {
    let tuning = &mut plan.tuning;
    vec![
        duration("heartbeat", &mut tuning.heartbeat),
        duration("election-least", &mut tuning.election.0),
        duration("election-most", &mut tuning.election.1),
        duration("commit-notice", &mut tuning.commit_notice),
        plain("forward", &mut tuning.forward),
        optional("lease-drift-ppm", &mut tuning.lease_drift_ppm),
        plain("entry-commands", &mut tuning.entry_commands_max),
        plain("append-bytes", &mut tuning.append_bytes_max),
        plain("inflight-bytes", &mut tuning.inflight_bytes_max),
        plain("writes-inflight", &mut tuning.writes_inflight_max),
        plain("propose-bytes", &mut tuning.propose_bytes_max),
        plain("apply-bytes", &mut tuning.apply_bytes_max),
        plain("cache-bytes", &mut tuning.cache_bytes_max),
        plain("catch-up-bytes", &mut tuning.catch_up_bytes_max),
        plain("restore-bytes", &mut tuning.restore_bytes_max),
        plain("snapshot-log-bytes", &mut tuning.snapshot_log_bytes),
        plain("retain-log-bytes", &mut tuning.retain_log_bytes),
        plain("transfer-log-bytes", &mut tuning.transfer_log_bytes_max),
        plain("transfers", &mut tuning.transfers_max),
        plain("transfer-bytes-per-second", &mut tuning.transfer_bytes_per_second),
        duration("snapshot-age", &mut tuning.snapshot_age),
        duration("scrub-interval", &mut tuning.scrub_interval),
        duration("election-delay", &mut tuning.election_delay),
    ]
}

fn links(plan: &mut Plan) -> Vec<Field<'_>> {
    let links = &mut plan.links;
    vec![
        time("least", &mut links.latency.least),
        time("tail", &mut links.latency.tail),
        plain("loss", &mut links.loss),
        plain("duplicate", &mut links.duplicate),
        plain("reorder", &mut links.reorder),
        plain("silent", &mut links.silent),
    ]
}

fn latency(latency: &mut Latency) -> Vec<Field<'_>> {
    vec![time("least", &mut latency.least), time("tail", &mut latency.tail)]
}

const MOMENTS: [(&str, Moment); 3] = [
    ("pending", Moment::Pending),
    ("pending-hard-state", Moment::PendingHardState),
    ("pending-name", Moment::PendingName),
];

const SURVIVORS: [(&str, Survivors); 7] = [
    ("none", Survivors::None),
    ("all", Survivors::All),
    ("prefix", Survivors::Prefix),
    ("suffix", Survivors::Suffix),
    ("random", Survivors::Random),
    ("only-last", Survivors::OnlyLast),
    ("all-but-first", Survivors::AllButFirst),
];

const FAILURES: [(&str, Failure); 4] = [
    ("clean-keep", Failure::CleanKeep),
    ("clean-revert", Failure::CleanRevert),
    ("error", Failure::Nothing(DiskError::Io { errno: EIO })),
    ("full", Failure::Nothing(DiskError::Full)),
];

const MISHAPS: [(&str, Mishap); 6] = [
    ("clean-keep", Mishap::Whole(Failure::CleanKeep)),
    ("clean-revert", Mishap::Whole(Failure::CleanRevert)),
    ("error", Mishap::Whole(Failure::Nothing(DiskError::Io { errno: EIO }))),
    ("full", Mishap::Whole(Failure::Nothing(DiskError::Full))),
    ("partly-error", Mishap::Partly(DiskError::Io { errno: EIO })),
    ("partly-full", Mishap::Partly(DiskError::Full)),
];

const VICTIMS: [(&str, Victim); 6] = [
    ("write", Victim::Write),
    ("create", Victim::Create),
    ("read", Victim::Read),
    ("rename", Victim::Rename),
    ("remove", Victim::Remove),
    ("sync-directory", Victim::SyncDirectory),
];

const ERRORS: [(&str, DiskError); 2] =
    [("error", DiskError::Io { errno: EIO }), ("full", DiskError::Full)];

const PARTS: [(&str, Part); 5] = [
    ("slots", Part::Slots),
    ("header", Part::Header),
    ("end-record", Part::EndRecord),
    ("snapshot", Part::Snapshot),
    ("entries", Part::Entries),
];

const ROTS: [(&str, Part); 3] =
    [("snapshot", Part::Snapshot), ("entries", Part::Entries), ("slots", Part::Slots)];

const HARMS: [(&str, Harm); 4] =
    [("rot", Harm::Rot), ("zero", Harm::Zero), ("rot-all", Harm::RotAll), ("gone", Harm::Gone)];

const GIVEN: [(&str, Given); 2] = [("snapshot", Given::Snapshot), ("entry", Given::Entry)];

/// A kind of fault: its name, and one with values that a line replaces.
type Kind = (&'static str, fn() -> FaultKind);

/// Every kind of fault.
pub(super) const KINDS: [Kind; KINDS_COUNT] = [
    ("power-cut", || FaultKind::PowerCut {
        nodes: Vec::new(),
        moment: Moment::Pending,
        survivors: Survivors::None,
        rot: None,
        down: 0,
    }),
    ("kill", || FaultKind::Kill { node: 0, down: 0 }),
    ("partition", || FaultKind::Partition {
        side: Vec::new(),
        both_ways: true,
        noticed: true,
        lasts: 0,
    }),
    ("sync-failure", || FaultKind::SyncFailure { node: 0, failure: Failure::CleanKeep }),
    ("disk-full", || FaultKind::DiskFull { node: 0, lasts: 0 }),
    ("slow-disk", || FaultKind::SlowDisk { node: 0, factor: 1, lasts: 0 }),
    ("stop", || FaultKind::Stop { node: 0, hand_over: false }),
    ("hung-disk", || FaultKind::HungDisk { node: 0, lasts: 0 }),
    ("failed-operation", || FaultKind::FailedOperation {
        node: 0,
        victim: Victim::Write,
        error: DiskError::Full,
    }),
    ("pause", || FaultKind::Pause { node: 0, lasts: 0 }),
    ("set-clock", || FaultKind::SetClock { node: 0, by_ms: 0 }),
    ("stalled-clock", || FaultKind::StalledClock { node: 0, lasts: 0 }),
    ("isolated", || FaultKind::Isolated { node: 0, noticed: true, lasts: 0 }),
    ("slow-link", || FaultKind::SlowLink { from: 0, to: 1, bytes_per_ms: 0, lasts: 0 }),
    ("damage", || FaultKind::Damage {
        node: 0,
        part: Part::Slots,
        harm: Harm::Rot,
        pick: 0,
        survivors: Survivors::None,
        down: 0,
    }),
    ("ruin", || FaultKind::Ruin { node: 0, harm: Harm::Rot, pick: 0, down: 0 }),
    ("rot", || FaultKind::Rot { node: 0, part: Part::Entries, pick: 0 }),
    ("lost-write", || FaultKind::LostWrite { node: 0 }),
    ("misdirected-write", || FaultKind::MisdirectedWrite { node: 0, pick: 0 }),
    ("late-report", || FaultKind::LateReport { node: 0, failure: Failure::CleanKeep }),
    ("misdirected-read", || FaultKind::MisdirectedRead { node: 0, after: 0, pick: 0 }),
    ("old-image", || FaultKind::OldImage { node: 0, lasts: 0, down: 0 }),
    ("disk-gone", || FaultKind::DiskGone { node: 0, formatted: false, down: 0 }),
    ("power-cut-at", || FaultKind::PowerCutAt {
        node: 0,
        step: 0,
        outcome: Outcome::Exactly(0),
        rot: None,
        down: 0,
    }),
    ("kill-and-cut", || FaultKind::KillAndCut {
        node: 0,
        moment: Moment::Pending,
        survivors: Survivors::None,
        down: 0,
    }),
    ("fail-at", || FaultKind::FailAt { node: 0, operation: 0, mishap: MISHAPS[0].1 }),
    ("kill-at", || FaultKind::KillAt { node: 0, step: 0, down: 0 }),
    ("flip", || FaultKind::Flip { node: 0, file: File::HardState, bit: 0, down: 0 }),
    ("transfer", || FaultKind::Transfer { node: 0 }),
    ("change", || FaultKind::Change { steps: Steps(Vec::new()) }),
    ("tune", || FaultKind::Tune { node: 0, to: retuning::BLANK }),
    ("times", || FaultKind::Times { to: Times::PLANNED }),
    ("unheard-failure", || FaultKind::UnheardFailure { node: 0, given: Given::Snapshot, down: 0 }),
    ("back-up", || FaultKind::BackUp { node: 0, pause: 0 }),
    ("misfiled-write", || FaultKind::MisfiledWrite { node: 0, pick: 0 }),
    ("lost-names", || FaultKind::LostNames { node: 0 }),
];

/// How many kinds of fault there are.
pub const KINDS_COUNT: usize = 36;

/// What each kind of fault is called, in the order in which [`Stats`](crate::Stats) counts them.
pub fn kind_names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(name, _)| *name)
}

impl FaultKind {
    /// What it is called in a plan.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::PowerCut { .. } => "power-cut",
            Self::Kill { .. } => "kill",
            Self::Partition { .. } => "partition",
            Self::SyncFailure { .. } => "sync-failure",
            Self::UnheardFailure { .. } => "unheard-failure",
            Self::DiskFull { .. } => "disk-full",
            Self::SlowDisk { .. } => "slow-disk",
            Self::Stop { .. } => "stop",
            Self::HungDisk { .. } => "hung-disk",
            Self::FailedOperation { .. } => "failed-operation",
            Self::Pause { .. } => "pause",
            Self::SetClock { .. } => "set-clock",
            Self::StalledClock { .. } => "stalled-clock",
            Self::Isolated { .. } => "isolated",
            Self::SlowLink { .. } => "slow-link",
            Self::Damage { .. } => "damage",
            Self::Ruin { .. } => "ruin",
            Self::Rot { .. } => "rot",
            Self::LostWrite { .. } => "lost-write",
            Self::MisdirectedWrite { .. } => "misdirected-write",
            Self::MisfiledWrite { .. } => "misfiled-write",
            Self::LostNames { .. } => "lost-names",
            Self::LateReport { .. } => "late-report",
            Self::MisdirectedRead { .. } => "misdirected-read",
            Self::OldImage { .. } => "old-image",
            Self::DiskGone { .. } => "disk-gone",
            Self::PowerCutAt { .. } => "power-cut-at",
            Self::KillAndCut { .. } => "kill-and-cut",
            Self::KillAt { .. } => "kill-at",
            Self::FailAt { .. } => "fail-at",
            Self::Flip { .. } => "flip",
            Self::Transfer { .. } => "transfer",
            Self::BackUp { .. } => "back-up",
            Self::Change { .. } => "change",
            Self::Tune { .. } => "tune",
            Self::Times { .. } => "times",
        }
    }

    pub(super) fn fields(&mut self) -> Vec<Field<'_>> {
        match self {
            Self::PowerCut { nodes: which, moment, survivors, rot, down } => vec![
                nodes("nodes", which),
                choice("moment", moment, &MOMENTS),
                choice("survivors", survivors, &SURVIVORS),
                optional("rot", rot),
                time("down", down),
            ],
            Self::PowerCutAt { node: which, step, outcome, rot, down } => vec![
                node("node", which),
                plain("step", step),
                ("survivors", Box::new(Exact(outcome))),
                optional("rot", rot),
                time("down", down),
            ],
            Self::FailAt { node: which, operation, mishap } => vec![
                node("node", which),
                plain("operation", operation),
                choice("how", mishap, &MISHAPS),
            ],
            Self::KillAndCut { node: which, moment, survivors, down } => vec![
                node("node", which),
                choice("moment", moment, &MOMENTS),
                choice("survivors", survivors, &SURVIVORS),
                time("down", down),
            ],
            Self::KillAt { node: which, step, down } => {
                vec![node("node", which), plain("step", step), time("down", down)]
            }
            Self::Flip { node: which, file, bit, down } => vec![
                node("node", which),
                ("file", Box::new(Name(file))),
                plain("bit", bit),
                time("down", down),
            ],
            Self::Transfer { node: which } => vec![node("to", which)],
            Self::BackUp { node: which, pause } => vec![node("node", which), time("pause", pause)],
            Self::Change { steps } => vec![plain("steps", steps)],
            Self::Tune { node: which, to } => {
                let mut fields = vec![node("node", which)];
                fields.extend(to.fields());
                fields
            }
            Self::Times { to } => to.fields(),
            Self::Kill { node: which, down } => vec![node("node", which), time("down", down)],
            Self::Partition { side, both_ways, noticed, lasts } => vec![
                sides("side", side),
                plain("both-ways", both_ways),
                plain("noticed", noticed),
                time("lasts", lasts),
            ],
            Self::SyncFailure { node: which, failure }
            | Self::LateReport { node: which, failure } => {
                vec![node("node", which), choice("how", failure, &FAILURES)]
            }
            Self::UnheardFailure { node: which, given, down } => {
                vec![node("node", which), choice("of", given, &GIVEN), time("down", down)]
            }
            Self::DiskFull { node: which, lasts }
            | Self::HungDisk { node: which, lasts }
            | Self::Pause { node: which, lasts }
            | Self::StalledClock { node: which, lasts } => {
                vec![node("node", which), time("lasts", lasts)]
            }
            Self::FailedOperation { node: which, victim, error } => vec![
                node("node", which),
                choice("what", victim, &VICTIMS),
                choice("how", error, &ERRORS),
            ],
            Self::SetClock { node: which, by_ms } => {
                vec![node("node", which), plain("by-ms", by_ms)]
            }
            Self::Isolated { node: which, noticed, lasts } => {
                vec![node("node", which), plain("noticed", noticed), time("lasts", lasts)]
            }
            Self::Damage { node: which, part, harm, pick, survivors, down } => vec![
                node("node", which),
                choice("part", part, &PARTS),
                choice("harm", harm, &HARMS),
                plain("pick", pick),
                choice("survivors", survivors, &SURVIVORS),
                time("down", down),
            ],
            Self::Ruin { node: which, harm, pick, down } => vec![
                node("node", which),
                choice("harm", harm, &HARMS),
                plain("pick", pick),
                time("down", down),
            ],
            Self::Rot { node: which, part, pick } => {
                vec![node("node", which), choice("part", part, &ROTS), plain("pick", pick)]
            }
            Self::LostWrite { node: which } | Self::LostNames { node: which } => {
                vec![node("node", which)]
            }
            Self::MisdirectedWrite { node: which, pick }
            | Self::MisfiledWrite { node: which, pick } => {
                vec![node("node", which), plain("pick", pick)]
            }
            Self::MisdirectedRead { node: which, after, pick } => {
                vec![node("node", which), plain("after", after), plain("pick", pick)]
            }
            Self::OldImage { node: which, lasts, down } => {
                vec![node("node", which), time("lasts", lasts), time("down", down)]
            }
            Self::DiskGone { node: which, formatted, down } => {
                vec![node("node", which), plain("formatted", formatted), time("down", down)]
            }
            Self::SlowLink { from, to, bytes_per_ms, lasts } => vec![
                node("from", from),
                node("to", to),
                plain("bytes-per-ms", bytes_per_ms),
                time("lasts", lasts),
            ],
            Self::SlowDisk { node: which, factor, lasts } => {
                vec![node("node", which), plain("factor", factor), time("lasts", lasts)]
            }
            Self::Stop { node: which, hand_over } => {
                vec![node("node", which), plain("hand-over", hand_over)]
            }
        }
    }
}

/// What survives one power cut: a preset and the number of its draws, or bits.
struct Exact<'a>(&'a mut Outcome);

impl Word for Exact<'_> {
    fn print(&self) -> String {
        match *self.0 {
            Outcome::Exactly(kept) => format!("exactly-{kept}"),
            Outcome::Drawn(survivors, number) => {
                let preset = SURVIVORS.iter().find(|(_, of)| *of == survivors);
                format!("{}-{number}", preset.map_or("", |(name, _)| name))
            }
        }
    }

    fn read(&mut self, text: &str) -> Option<()> {
        let (name, number) = text.rsplit_once('-')?;
        *self.0 = if name == "exactly" {
            Outcome::Exactly(number.parse().ok()?)
        } else {
            let (_, survivors) = SURVIVORS.iter().find(|(preset, _)| *preset == name)?;
            Outcome::Drawn(*survivors, number.parse().ok()?)
        };
        Some(())
    }

    fn expected(&self) -> String {
        let names: Vec<&str> = SURVIVORS.iter().map(|(name, _)| *name).collect();
        format!("exactly or one of {}, and a number, such as random-3", names.join(", "))
    }
}

struct Name<'a>(&'a mut File);

impl Word for Name<'_> {
    fn print(&self) -> String {
        self.0.to_string()
    }

    fn read(&mut self, text: &str) -> Option<()> {
        *self.0 = File::parse(text)?;
        Some(())
    }

    fn expected(&self) -> String {
        "the name of a file, such as hard-state".into()
    }
}

/// Prints a keyword and its fields.
pub(super) fn print(f: &mut fmt::Formatter<'_>, word: &str, fields: &[Field<'_>]) -> fmt::Result {
    f.write_str(word)?;
    fields.iter().try_for_each(|(name, value)| write!(f, " {name} {}", value.print()))
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        print(f, self.name(), &self.clone().fields())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} {}", super::Time(self.at), self.kind)
    }
}

//! The decision of a restart: a table, first match wins. Pure and total.
//!
//! The look at the disk (`recovery.rs`) fills a [`Found`]; what is done about it is done elsewhere.
//! Each row stands in docs/recovery.md with the crash or the fault that needs it.

/// What the look found, as far as the decision depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    pub(crate) mode: Mode,
    /// Whether there is anything but spares.
    pub(crate) is_empty: bool,
    pub(crate) hard: Hard,
    /// A cut was marked and not unmarked.
    pub(crate) is_cutting: bool,
    pub(crate) install: Install,
    /// A snapshot or an entry is of a later term than the hard state, or of a later cluster epoch.
    pub(crate) is_term_ahead: bool,
    pub(crate) machine: Machine,
    pub(crate) base: Base,
    /// Segments below the newest snapshot are lost, and the log begins behind them.
    pub(crate) begins_later: bool,
    pub(crate) tail: Tail,
    /// Whether this node alone is every quorum.
    pub(crate) is_alone: bool,
}

impl Found {
    /// What is known before the log was looked at: nothing that would speak against it.
    pub(crate) const fn early(mode: Mode, is_empty: bool, hard: Hard) -> Self {
        Self {
            mode,
            is_empty,
            hard,
            is_cutting: false,
            install: Install::None,
            is_term_ahead: false,
            machine: Machine::Restored,
            base: Base::LogOnly,
            begins_later: false,
            tail: Tail::Whole,
            is_alone: false,
        }
    }
}

/// How the node was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Run,
    Format,
    Join,
}

/// The hard state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hard {
    /// No file, and no log either: only snapshots.
    Unfinished,
    /// No file, or no good block in it.
    Lost,
    /// Good, of another cluster, group or node.
    Foreign,
    /// This node's, written in other units than it is configured for.
    OtherAlign,
    /// Of a newer version.
    Newer,
    Good,
}

/// The install of a snapshot from a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Install {
    None,
    /// Marked, and the staged snapshot is whole.
    Staged,
    /// Marked, and it is not.
    Partial,
    /// A whole installed snapshot that no mark or record knows.
    Unmarked,
}

/// A state machine that keeps its own state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Machine {
    /// It does not.
    Restored,
    /// It holds more than the log.
    Ahead,
    /// The log goes on from what it holds.
    Resumed,
    /// The log begins later than that: the snapshot must bring it there.
    Behind,
}

/// Snapshot and the beginning of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Base {
    /// No snapshot, and the log begins with entry 1.
    LogOnly,
    /// No snapshot, and the log begins later.
    Missing,
    /// The log begins behind the entry after the snapshot.
    Gap,
    /// The log ends at or below the snapshot.
    Covered,
    /// The log goes on from the snapshot.
    Joined,
}

/// The end of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tail {
    Whole,
    /// What follows the last entry was never proven durable.
    Torn,
    /// Entries that are known by their slots are bad, and the newest snapshot holds what all of them
    /// did.
    Covered,
    /// An entry that is known by its slot is bad.
    Damaged,
    /// It is not known what there was.
    Unknown,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Nothing was there: build a node.
    Fresh,
    /// Clear again what was marked, then judge again.
    RepeatCut,
    /// Finish the install from the staged snapshot.
    FinishInstall,
    /// The state must come from a peer.
    Install,
    /// Restore the snapshot, if any, and apply the log behind it; first cut what is torn.
    Replay { cut: bool, restore: bool, log_is_covered: bool },
    /// Entries must come from a peer, their identities are known; `owed`: nothing behind them is
    /// acknowledged before.
    Refill { owed: bool },
    /// Entries must come from a peer, and until then this node does not vote.
    Gate,
    /// This node must not start.
    Refuse,
}

impl Verdict {
    /// Whether a node starts upon it.
    pub(crate) const fn starts(self) -> bool {
        match self {
            Self::Replay { log_is_covered, .. } => !log_is_covered,
            Self::Refuse => false,
            _ => true,
        }
    }
}

/// A row of the table.
pub(crate) struct Row {
    /// Its name in reports, docs and tests.
    pub(crate) name: &'static str,
    matches: fn(&Found) -> bool,
    decide: fn(&Found) -> Verdict,
    /// What a person is told.
    pub(crate) says: &'static str,
}

const fn row(
    name: &'static str,
    matches: fn(&Found) -> bool,
    decide: fn(&Found) -> Verdict,
    says: &'static str,
) -> Row {
    Row { name, matches, decide, says }
}

const fn replay(found: &Found) -> Verdict {
    Verdict::Replay {
        cut: matches!(found.tail, Tail::Torn),
        restore: matches!(found.machine, Machine::Restored | Machine::Behind)
            && !matches!(found.base, Base::LogOnly),
        log_is_covered: matches!(found.base, Base::Covered),
    }
}

const fn or_refuse_alone(found: &Found, verdict: Verdict) -> Verdict {
    if found.is_alone { Verdict::Refuse } else { verdict }
}

/// The table: the first row that matches decides.
pub(crate) const TABLE: &[Row] = &[
    row(
        "not-formatted",
        |f| f.is_empty && matches!(f.mode, Mode::Run),
        |_| Verdict::Refuse,
        "nothing is there: a wiped disk never votes as its old self",
    ),
    row("fresh", |f| f.is_empty, |_| Verdict::Fresh, "nothing is there: a new node"),
    row(
        "already-formatted",
        |f| !matches!(f.mode, Mode::Run),
        |_| Verdict::Refuse,
        "a node is there already",
    ),
    row(
        "restore-unfinished",
        |f| matches!(f.hard, Hard::Unfinished),
        |_| Verdict::Refuse,
        "a crash inside a restore: restore again",
    ),
    row(
        "hard-state-lost",
        |f| matches!(f.hard, Hard::Lost),
        |_| Verdict::Refuse,
        "no good hard state: the node may have voted, a new node id is the way back",
    ),
    row("newer", |f| matches!(f.hard, Hard::Newer), |_| Verdict::Refuse, "a newer format version"),
    row(
        "foreign",
        |f| matches!(f.hard, Hard::Foreign),
        |_| Verdict::Refuse,
        "another cluster's, group's or node's",
    ),
    row(
        "other-align",
        |f| matches!(f.hard, Hard::OtherAlign),
        |_| Verdict::Refuse,
        "written in other units than configured: nothing would be where it is looked for",
    ),
    row(
        "cutting",
        |f| f.is_cutting,
        |_| Verdict::RepeatCut,
        "a crash inside a cut: clear again, then judge",
    ),
    row(
        "install-staged",
        |f| matches!(f.install, Install::Staged),
        |_| Verdict::FinishInstall,
        "a crash inside an install, the snapshot is whole: finish it here",
    ),
    row(
        "install-interrupted",
        |f| matches!(f.install, Install::Partial),
        |f| or_refuse_alone(f, Verdict::Install),
        "a crash inside an install: resume it",
    ),
    row(
        "install-unmarked",
        |f| matches!(f.install, Install::Unmarked),
        |_| Verdict::FinishInstall,
        "a crash before the install was marked: mark and finish it",
    ),
    row(
        "term-regressed",
        |f| f.is_term_ahead,
        |_| Verdict::Refuse,
        "log or snapshot of a later term or cluster epoch than the hard state: no crash makes that",
    ),
    row(
        "machine-ahead",
        |f| matches!(f.machine, Machine::Ahead),
        |_| Verdict::Refuse,
        "the state machine holds more than the log",
    ),
    row(
        "snapshot-missing",
        |f| matches!(f.base, Base::Missing) && f.machine != Machine::Resumed,
        |f| or_refuse_alone(f, Verdict::Install),
        "the log begins later than entry 1 and no snapshot is whole",
    ),
    row(
        "gap",
        |f| matches!(f.base, Base::Gap) && f.machine != Machine::Resumed,
        |f| or_refuse_alone(f, Verdict::Install),
        "the log begins later than the entry after the snapshot",
    ),
    row(
        "tail-unknown",
        |f| matches!(f.tail, Tail::Unknown),
        |f| or_refuse_alone(f, Verdict::Gate),
        "entries that were durable are gone, and which is not known",
    ),
    row(
        "damaged",
        |f| matches!(f.tail, Tail::Damaged),
        |f| or_refuse_alone(f, Verdict::Refill { owed: true }),
        "entries that were durable are bad, their identities are known",
    ),
    row(
        "damaged-below",
        |f| matches!(f.tail, Tail::Covered),
        |_| Verdict::Refill { owed: false },
        "entries below the newest snapshot are bad: the state is whole without them",
    ),
    row(
        "covered",
        |f| matches!(f.base, Base::Covered),
        replay,
        "the snapshot holds all of the log: the log begins anew behind it",
    ),
    row(
        "begins-later",
        |f| f.begins_later,
        replay,
        "segments below the newest snapshot are lost: the log begins behind them",
    ),
    row(
        "torn",
        |f| matches!(f.tail, Tail::Torn),
        replay,
        "a crash tore what was never proven durable: cut it",
    ),
    row(
        "machine-goes-on",
        |f| matches!(f.base, Base::Missing | Base::Gap),
        replay,
        "no snapshot leads to the log, and the state machine holds what lies before it",
    ),
    row("log-only", |f| matches!(f.base, Base::LogOnly), replay, "no snapshot yet: replay the log"),
    row("ordinary", |_| true, replay, "snapshot and log are whole"),
];

/// The row that decides, and what it decides.
pub(crate) fn verdict(found: &Found) -> (&'static Row, Verdict) {
    let row = TABLE.iter().find(|row| (row.matches)(found)).expect("the last row always matches");
    (row, (row.decide)(found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeMap, fmt::Write as _};

    const HARD_STATES: [Hard; 6] =
        [Hard::Unfinished, Hard::Lost, Hard::Foreign, Hard::OtherAlign, Hard::Newer, Hard::Good];
    const TAILS: [Tail; 5] = [Tail::Whole, Tail::Torn, Tail::Covered, Tail::Damaged, Tail::Unknown];

    fn all() -> Vec<Found> {
        let mut all = Vec::new();
        for mode in [Mode::Run, Mode::Format, Mode::Join] {
            for is_empty in [false, true] {
                for hard in HARD_STATES {
                    for is_cutting in [false, true] {
                        disk(&mut all, mode, is_empty, hard, is_cutting);
                    }
                }
            }
        }
        all
    }

    fn disk(all: &mut Vec<Found>, mode: Mode, is_empty: bool, hard: Hard, is_cutting: bool) {
        use Install as I;
        for install in [I::None, I::Staged, I::Partial, I::Unmarked] {
            for is_term_ahead in [false, true] {
                for machine in
                    [Machine::Restored, Machine::Ahead, Machine::Resumed, Machine::Behind]
                {
                    for base in
                        [Base::LogOnly, Base::Missing, Base::Gap, Base::Covered, Base::Joined]
                    {
                        for tail in TAILS {
                            for begins_later in [false, true] {
                                all.extend([false, true].map(|is_alone| Found {
                                    mode,
                                    is_empty,
                                    hard,
                                    is_cutting,
                                    install,
                                    is_term_ahead,
                                    machine,
                                    base,
                                    begins_later,
                                    tail,
                                    is_alone,
                                }));
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_row_decides_something_and_the_table_is_as_reviewed() {
        let mut rows: BTreeMap<usize, BTreeMap<String, usize>> = BTreeMap::new();
        for found in all() {
            let (row, verdict) = verdict(&found);
            let place = TABLE.iter().position(|r| r.name == row.name).expect("it is in the table");
            *rows.entry(place).or_default().entry(format!("{verdict:?}")).or_default() += 1;
        }
        assert_eq!(rows.len(), TABLE.len(), "a row that never decides is dead");
        let mut text = String::new();
        for (place, verdicts) in rows {
            let row = &TABLE[place];
            writeln!(text, "{:<20} {}", row.name, row.says).expect("strings take everything");
            for (verdict, cases) in verdicts {
                writeln!(text, "    {cases:>6} x {verdict}").expect("strings take everything");
            }
        }
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("../../../fixtures/snapshots");
        settings.set_prepend_module_to_snapshot(false);
        settings.bind(|| insta::assert_snapshot!("verdict_table", text));
    }

    #[test]
    fn safety_holds_for_every_combination() {
        for found in all() {
            let (row, verdict) = verdict(&found);
            let starts = verdict != Verdict::Refuse;
            if found.is_empty && found.mode == Mode::Run {
                assert!(!starts, "a wiped disk must not vote: {found:?}");
            }
            if !found.is_empty && (found.hard != Hard::Good || found.mode != Mode::Run) {
                assert!(!starts, "only its own good hard state starts a node: {found:?}");
            }
            if found.is_empty || !starts || found.is_cutting || found.install != Install::None {
                continue;
            }
            assert!(!found.is_term_ahead, "{}: {found:?}", row.name);
            let serves = matches!(verdict, Verdict::Replay { .. });
            let is_whole = matches!(found.tail, Tail::Whole | Tail::Torn)
                && (!matches!(found.base, Base::Missing | Base::Gap)
                    || found.machine == Machine::Resumed);
            assert_eq!(serves, is_whole, "{}: {found:?}", row.name);
            if found.is_alone {
                let is_covered = verdict == Verdict::Refill { owed: false };
                assert!(serves || is_covered, "nobody else has the bytes: {found:?}");
            }
        }
    }

    /// What a log that ends below its snapshot lacks is missed before: it is no log to go on from.
    #[test]
    fn no_log_that_its_snapshot_covers_starts_a_node_by_itself() {
        for found in all() {
            let (_, verdict) = verdict(&found);
            if let Verdict::Replay { .. } = verdict {
                assert_eq!(verdict.starts(), found.base != Base::Covered, "{found:?}");
            }
        }
    }
}

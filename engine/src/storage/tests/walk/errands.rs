//! Starts that a node is given once, or by mistake: out of a backup, by force, and as what it is not. Each ends
//! in a halt or a crash, and what it did is judged there and by the next start.

use super::{known::changed, *};
use crate::{backup::Backup, membership::Member, report::Forced, types::GroupId};

/// What a start is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Errand {
    /// The node is to live.
    Live,
    /// Out of the backup of this entry; `is_other`: the machine holds something else.
    Restore { at: LogId, is_other: bool },
    /// As the only voter.
    Force { is_acknowledged: bool },
    /// A node is made where one is, or started where none is.
    Mistake { is_there: bool },
}

/// Whoever is a member after a recovery by force.
pub(super) fn alone(at: LogId) -> Membership {
    let member = Member { id: NodeId(1), incarnation: 0, address: Bytes::new() };
    Membership { at, ..Membership::of([member]).with_used(NodeId(3)) }
}

impl Walk {
    /// What the next start is to be. Where a node was, one is.
    pub(super) fn next_start(&mut self) -> Start {
        let is_there = self.device.len(File::HardState).is_some();
        assert!(is_there || !self.known.is_made, "there is no node any more");
        self.errand = self.next_errand(is_there);
        self.untouched = match self.errand {
            Errand::Force { .. } | Errand::Mistake { .. } => self.device.contents(),
            Errand::Live | Errand::Restore { .. } => Vec::new(),
        };
        let cluster = ClusterId(5);
        match self.errand {
            Errand::Restore { at, .. } => self.restore(at),
            Errand::Force { is_acknowledged: acknowledged_loss } => {
                self.known.forcings += u32::from(acknowledged_loss);
                Start::ForceSoleVoter { acknowledged_loss }
            }
            Errand::Mistake { is_there: false } => Start::Run,
            Errand::Mistake { is_there: true } => match self.draw.below(3) {
                0 => format(),
                1 => Start::Join { cluster },
                _ => self.restore(LogId::new(Term(1), LogIndex(9))),
            },
            Errand::Live if is_there && self.swarm.keeps => Start::Resume { machine: self.held },
            Errand::Live if is_there => Start::Run,
            Errand::Live if self.swarm.joins => Start::Join { cluster },
            Errand::Live => format(),
        }
    }

    fn next_errand(&mut self, is_there: bool) -> Errand {
        let Swarm { restores, forces, joins, .. } = self.swarm;
        if !is_there && restores && !joins {
            return match self.draw.below(8) {
                0 => Errand::Mistake { is_there },
                other => Errand::Restore { at: self.back_up(), is_other: other == 1 },
            };
        }
        if !is_there || self.is_calm {
            return Errand::Live;
        }
        if forces && self.draw.ratio(1, 4) {
            return Errand::Force { is_acknowledged: self.draw.ratio(3, 4) };
        }
        if self.draw.ratio(1, 60) { Errand::Mistake { is_there } } else { Errand::Live }
    }

    /// Another cluster was backed up behind some entry; what this node was to be before is nothing.
    fn back_up(&mut self) -> LogId {
        let (len, term) = (self.draw.between(1, 60) as usize, Term(self.draw.between(1, 4)));
        let mut log = vec![Term(1); self.draw.below(len as u64) as usize];
        log.resize(len, term);
        let at = at(&log, len as u64);
        self.known = Known::made_from(log, Origin { at, id: SnapshotId(at.index.0) });
        let room = self.swarm.is_small && self.draw.ratio(1, 4);
        let room = room.then(|| self.draw.below(300_000));
        self.device.limit(room);
        at
    }

    fn restore(&self, at: LogId) -> Start {
        let (state, id) = (state(at), SnapshotId(at.index.0));
        let backup = Backup {
            cluster: ClusterId(4),
            group: GroupId(1),
            groups: 0,
            node: NodeId(9),
            at,
            id,
            bytes: state.len() as u64,
            digest: crc32c::crc32c(&state),
            time: Timestamp(at.index.0),
            members: Arc::default(),
        };
        let members = self.members(LogId::ZERO);
        Start::Restore { cluster: ClusterId(5), members, backup: Box::new(backup) }
    }

    /// One who was made from a backup meets the others.
    pub(super) fn form(&mut self) {
        self.known.may_have_formed = true;
        self.storage.set_formed();
    }

    /// It belongs to a cluster: before that no peer sends it anything.
    pub(super) fn has_formed(&self) -> bool {
        self.known.origin.is_nothing()
    }

    /// Nobody else has anything of it.
    pub(super) fn is_alone(&self) -> bool {
        self.known.is_alone()
    }

    /// How an errand ends.
    pub(super) fn end_errand(&mut self, halt: &Halt) {
        let is_unchanged = match (self.errand, halt) {
            (Errand::Restore { .. }, Halt::DiskFailed { error: DiskError::Full, .. })
                if self.swarm.is_small =>
            {
                false
            }
            (_, Halt::DiskFailed { .. }) if self.has_failed => false,
            (Errand::Restore { at, is_other: false }, Halt::Built(made)) => {
                assert_eq!(at, *made);
                self.known.is_made = true;
                false
            }
            (
                Errand::Restore { at, is_other: true },
                Halt::Refused { row: "backup-differs", .. },
            ) => {
                let none = [File::HardState, File::Snapshot(at)];
                assert!(none.map(|file| self.device.len(file)) == [None; 2], "it has a name");
                false
            }
            (Errand::Mistake { is_there: true }, Halt::AlreadyFormatted) => true,
            (Errand::Mistake { is_there: false }, halt) => {
                let is_spare = |file: &(File, u64)| matches!(file.0, File::Spare(_));
                let is_empty = self.device.files().iter().all(is_spare);
                let is_begun = matches!(halt, Halt::Refused { row: "restore-unfinished", .. });
                assert!(if is_empty { *halt == Halt::NotFormatted } else { is_begun }, "{halt:?}");
                true
            }
            (Errand::Force { is_acknowledged }, Halt::Forced(forced)) => {
                assert_eq!(forced.is_done, is_acknowledged);
                self.judge_forced(forced);
                !is_acknowledged
            }
            (Errand::Force { .. }, Halt::Refused { row, .. }) => {
                self.judge_refusal(row);
                true
            }
            (errand, halt) => panic!("{errand:?} ends: {halt:?}"),
        };
        // What an earlier life had not made durable is so by now, or is not: what is read is the same.
        assert!(!is_unchanged || self.device.contents() == self.untouched, "{halt:?}");
    }

    /// Why a node must not become the only voter.
    fn judge_refusal(&self, row: &str) {
        let Known { is_struck, is_blind, forcings, promised, .. } = &self.known;
        let earlier = forcings - u32::from(self.errand == Errand::Force { is_acknowledged: true });
        let is_due = match row {
            "already-alone" => self.is_alone() || earlier > 0,
            "never-member" => self.swarm.joins,
            "not-formed" => promised.0 == Term(0) || !self.has_formed(),
            _ => *is_struck || *is_blind,
        };
        assert!(is_due, "not the only voter: {row}");
    }

    /// What is said of a recovery by force: that nothing is lost but by damage, and all of that.
    fn judge_forced(&mut self, forced: &Forced) {
        let Known { is_struck, is_blind, promised, epochs, durable, hint, .. } = &self.known;
        let (epoch, term) = (forced.epoch, forced.term);
        let most = epochs.1 + u64::from(self.known.forcings);
        assert!((epochs.0..=most).contains(&epoch.0) && epoch.1 == epoch.0 + 1, "{epoch:?}");
        assert!(term.0 >= promised.0 && term.1 == term.0.next(), "{term:?} after {promised:?}");
        assert!(self.has_formed() || self.known.may_have_formed, "it never met the others");
        if !is_struck && !is_blind {
            assert_eq!((forced.cut, forced.known_loss()), (None, None), "nothing was damaged");
            assert!(forced.last.index.0 >= *durable, "{} of {durable}", forced.last);
        }
        assert!(forced.known.0 >= *hint.min(durable), "{} was called durable", hint);
        self.known.is_struck_since &= !forced.is_done;
        self.known.forced = Some(forced.clone()).filter(|forced| forced.is_done);
    }
}

impl Known {
    /// A node that begins behind a backup.
    fn made_from(log: Vec<Term>, origin: Origin) -> Self {
        let mut known = Self::default();
        (known.snapshot, known.origin) = (origin.at, origin);
        (known.durable, known.founded) = (origin.at.index.0, origin.at.index.0);
        (known.committed, known.log) = (log.clone(), log);
        known
    }

    /// The entry that brought the members in force behind this one, as far as a log goes. What was made
    /// from a backup has the members that it was given, and one that is alone by force those without an
    /// entry, before the first leader has written it.
    pub(super) fn changed(&self, log: &[Term], through: u64) -> LogId {
        if self.sole.index.0 > through {
            return self.sole;
        }
        let at = changed(log, through);
        if at.index.0 > self.founded { at } else { LogId::ZERO }
    }

    /// Whose node it is, and what it was made from, if nobody made another one of it.
    pub(super) fn judge_identity(&mut self, found: &Recovered) {
        let (epoch, made) = (found.identity.cluster_epoch, found.origin);
        // Who is damaged may be forced again, though it is alone already.
        let most = self.epochs.1 + u64::from(self.forcings);
        let is_forced = self.epochs.1 < epoch && epoch <= most;
        let told = self.forced.take();
        assert!(is_forced || told.is_none(), "epoch {epoch} after {told:?}");
        let is_known = (self.epochs.0..=self.epochs.1).contains(&epoch);
        assert!(is_forced || is_known, "epoch {epoch} after {:?}", self.epochs);
        let has_formed = made.is_nothing() && self.may_have_formed;
        assert!(made == self.origin || has_formed, "made {made}, and was {}", self.origin);
        self.origin = made;
        if is_forced {
            let told = told.filter(|told| told.epoch.1 == epoch);
            self.become_alone(found, told.as_ref());
        }
        (self.epochs, self.forcings, self.is_made) = ((epoch, epoch), 0, true);
        let is_sole = |members: &Membership| members.is_sole_voter(NodeId(1));
        let has_peers = !is_sole(&found.membership) || !is_sole(&found.previous);
        assert!(has_peers || found.gate.is_none(), "a gate that nobody can open");
    }

    /// It was made the only voter: that is all of the old node that is another's now.
    fn become_alone(&mut self, found: &Recovered, told: Option<&Forced>) {
        let Recovered { term, vote, last, membership, previous, .. } = found;
        assert_eq!((*vote, found.gate), (Some(NodeId(1)), None));
        assert!(*term > self.promised.0, "{term} after {:?}", self.promised);
        assert_eq!((membership, membership.members().count()), (previous, 1));
        assert!(membership.is_sole_voter(NodeId(1)), "{membership}");
        let is_used = [NodeId(2), NodeId(3)].map(|id| membership.is_former(id));
        assert!(is_used[0] && is_used[1], "ids are used once");
        let at = membership.at;
        assert!(at.term == *term && at.index > last.index, "{at} behind {last}");
        if let Some(told) = told {
            assert_eq!((told.epoch.1, told.term.1), (found.identity.cluster_epoch, *term));
            assert_eq!(at.index, told.last.index.next(), "where its members are to be written");
            // Though nothing of it may have been durable before.
            let is_there = *last == told.last || self.is_struck_since && *last < told.last;
            assert!(is_there, "{last}, and {} was told", told.last);
            let kept = self.durable.min(told.last.index.0);
            assert!(last.index.0 >= kept, "{last}, {kept} was to be kept");
        }
        (self.sole, self.is_shut, self.settled) = (at, false, LogId::ZERO);
        if self.is_struck {
            // The rest is told, and lost.
            self.ghosts.push(self.committed.clone());
            self.durable = self.durable.min(last.index.0);
        }
    }

    /// The only voter, or one that has others beside it as long as they have not committed that.
    fn is_alone(&self) -> bool {
        let Self { sole, newest, previous, committed, .. } = self;
        let is_new = (committed.len() as u64) < newest.index.0;
        let is_after = newest.index == sole.index || is_new && previous.index == sole.index;
        *sole != LogId::ZERO && is_after
    }

    /// Whether it may take itself for alone: it was made so, or its disk is behind, in what it calls committed or
    /// in the members that it names.
    pub(super) fn may_be_alone(&self) -> bool {
        let is_behind = |(newest, previous): (LogId, LogId)| {
            (self.is_sole(newest) || self.is_sole(previous)) && self.settled.index < newest.index
        };
        let is_behind = is_behind((self.newest, self.previous)) || is_behind(self.named);
        self.is_alone() || self.forcings > 0 || is_behind
    }

    /// Whether nothing was committed without it: of two voters each has all of it.
    pub(super) fn is_needed(&self) -> bool {
        self.is_sole(self.newest) || self.is_sole(self.previous)
    }

    fn is_sole(&self, at: LogId) -> bool {
        self.sole != LogId::ZERO && at.index == self.sole.index
    }

    /// Nobody has more than it.
    pub(super) fn stand_alone(&mut self) {
        if self.is_alone() {
            let agreed = self.agreed() as usize;
            self.committed.truncate(agreed);
        }
    }
}

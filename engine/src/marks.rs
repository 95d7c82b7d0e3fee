//! Coverage marks: a bit for each rare situation a node has met.
//!
//! A test that means to provoke something asks for its mark, so that a story which no longer
//! reaches its point fails instead of passing for the wrong reason.

macro_rules! marks {
    ($($(#[$meta:meta])* $name:ident,)*) => {
        /// A situation worth knowing that it was met; [`Status::marks`](crate::Status) holds them, but
        /// those of sessions, of which the engine does not know: those [`Sessions`](crate::Sessions) tells.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum Mark {
            $($(#[$meta])* $name,)*
        }

        impl Mark {
            /// Every mark there is.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

marks! {
    /// An append repeated entries that were there already; they were kept (lessons.md 12).
    DuplicateAppendKept,
    /// Entries of a former leader were cut because the present one has others.
    ConflictTruncated,
    /// An append began behind the end of the log, or where the logs differ.
    AppendRefused,
    /// A peer's log was searched by bisection: its newest runs had nothing in common with ours.
    DivergenceBisected,
    /// An answer to another life, term or probe was dropped.
    StaleAnswerDropped,
    /// A message of an older term was answered with the newer one.
    StaleTermAnswered,
    /// A message of another incarnation, of sender or receiver, was dropped.
    OtherIncarnationDropped,
    /// A message of another cluster epoch was dropped.
    OtherEpochDropped,
    /// A ballot was refused because a leader was heard from a moment ago.
    BallotRefusedSticky,
    /// A ballot was refused because this node has just started.
    BallotRefusedJustStarted,
    /// A ballot was refused because the candidate's log is older.
    BallotRefusedLog,
    /// A pre-vote round was lost or ran out of time, and another one began.
    CanvassRepeated,
    /// A late verdict of an earlier round was not counted.
    LateVerdictDropped,
    /// A leader stepped down: it did not hear from a quorum.
    SteppedDownNoQuorum,
    /// A leader stepped down: its own disk had stopped.
    SteppedDownDiskStuck,
    /// A leader stepped down for a greater term.
    SteppedDownTerm,
    /// A quorum held an entry of an older term, and it was not committed by counting (figure 8).
    OlderTermNotCounted,
    /// A leader stepped down: it was no voter any more, and all of them knew.
    SteppedDownNoVoter,
    /// A membership in which two majorities must agree was brought into force.
    JointInForce,
    /// A joint membership was committed, and the leader went on to the new one.
    JointLeft,
    /// A membership was cut from the log, and the one before was in force again.
    MembershipRolledBack,
    /// A second membership was not taken before the disk held the first.
    MembershipHeldBack,
    /// A membership change was refused.
    ChangeRefused,
    /// A node that was removed was told so.
    FormerMemberTold,
    /// A node spoke that is no member here: this one lags, or joins.
    StrangerHeard,
    /// A peer was paused because its link went down.
    PeerPaused,
    /// A peer fell silent with appends in flight and is being probed.
    PeerSilent,
    /// A peer had lost what it acknowledged, and did not know: its disk was one of before.
    PeerSetBack,
    /// A peer's window was full.
    WindowFull,
    /// A peer was fed from disk.
    PeerFedFromDisk,
    /// The machine was fed from disk.
    MachineFedFromDisk,
    /// A peer needs entries that no longer exist.
    PeerNeedsSnapshot,
    /// A piece of a snapshot came that was not the next one, and was not taken.
    InstallPieceRefused,
    /// Pieces of a snapshot that were lost on the way were sent again.
    InstallRepeated,
    /// A snapshot went on where it had stopped: its receiver had kept what it had.
    InstallResumed,
    /// A leader handed its role over to whom it meant to.
    HandedOver,
    /// A leader could not hand its role over in time, and served on.
    HandoverGivenUp,
    /// A leader whose disk had no room began to hand its role over to one whose disk had some.
    GaveWayForRoom,
    /// A node stood for election because its leader asked it to.
    StoodAtLeadersWish,
    /// A read was answered under the leader's lease.
    LeaseRead,
    /// A read that could have been had no lease to be answered under, and took a round.
    LeaseMissed,
    /// A running node came upon an entry that has neither witness, and gave its log up.
    LogGivenUp,
    /// Segments below the newest snapshot were lost, and the log begins behind them.
    LogBegunLater,
    /// More was written while a snapshot was on its way than is kept behind it: it was given up for a newer one.
    InstallOutrun,
    /// A learner that was being sent a snapshot waited until a voter had been sent one.
    InstallGaveWay,
    /// A peer waited until others had been sent their snapshots.
    InstallWaited,
    /// An install went on with what it had written before a crash.
    InstallGoneOnWith,
    /// A snapshot from another leader, or a newer one, took the place of one half received.
    InstallReplaced,
    /// A snapshot was received whole, and the log had come as far by then.
    InstallNotNeeded,
    /// A snapshot was installed.
    Installed,
    /// An install took away entries that differed from what others had committed.
    InstallTookEntries,
    /// Entries that came while a snapshot did waited for it, and followed it at once.
    AppendWaited,
    /// A restart finished an install that a crash had cut short.
    InstallFinished,
    /// No snapshot was left, and a peer had to send one.
    SnapshotLost,
    /// Entries that were durable are bad or gone: the node does not vote until it has them again.
    GateSet,
    /// It has.
    GateCleared,
    /// A ballot was refused because this node may have forgotten what it acknowledged.
    BallotRefusedGated,
    /// A snapshot from a peer took the place of one that was lost, before a log that was kept.
    InstallJoined,
    /// A restart found a snapshot that is not whole, or that the log has left behind.
    UselessSnapshotRemoved,
    /// Proposals of several clients shared an entry.
    ProposalsGathered,
    /// A batch was cut into several entries.
    BatchSplit,
    /// A proposal was refused because too much was in flight.
    ProposalBusy,
    /// Proposals in flight ended as unknown: the leadership was lost.
    ProposalUnknown,
    /// A forwarded batch found its place in the leader's log.
    ForwardPlaced,
    /// A forwarded batch was refused by the leader.
    ForwardRefused,
    /// A forwarded batch ended as unknown.
    ForwardUnknown,
    /// A forwarded batch arrived twice, or after a later one, and was dropped.
    ForwardRepeated,
    /// A forwarded batch that never arrived was refused because a later one did.
    ForwardSkipped,
    /// Several reads shared a round.
    ReadsShared,
    /// Reads waited because the leader had not committed an entry of its own term.
    ReadHeldForFirstCommit,
    /// A read round was asked for again.
    ReadRoundRepeated,
    /// Reads were refused because their leader was lost.
    ReadRefused,
    /// A newcomer that claimed a known id was told that the cluster formed without it.
    NewcomerTurnedAway,
    /// What a crash left of a node half built was built anew.
    FormatRepeated,
    /// A restart found a copy of the hard state without a good block.
    HardStateCopyLost,
    /// A restart found copies of the hard state that differ: a crash between them.
    HardStateCopiesDiffer,
    /// Changes of the hard state gathered while an update of it was on its way.
    HardStateChangesGathered,
    /// A restart found room for a segment to come, and kept it.
    SpareKept,
    /// A restart removed a segment that had its name and was never announced.
    UnannouncedSegmentRemoved,
    /// A restart removed a part of a snapshot.
    PartialSnapshotRemoved,
    /// A restart found a torn tail and cut it.
    TornTailCut,
    /// A restart found a cut that was not finished, and repeated it.
    CutRepeated,
    /// A restart found an entry without its slot: slot and entry go out side by side.
    SlotRebuilt,
    /// A restart wrote entries again that were not proven durable.
    TailRewritten,
    /// A restart wrote the end record of the last segment again.
    EndRecordRewritten,
    /// A cut waited for writes in flight.
    CutWaitedForWrites,
    /// A cut went through a full segment, which became the active one again.
    CutReopenedSegment,
    /// A cut took whole segments away.
    CutTookSegments,
    /// A deeper cut came while one was under way.
    CutDeepened,
    /// The last entry that a cut kept ends within a block.
    CutInsideBlock,
    /// A write ended before one that was submitted earlier.
    WriteOvertaken,
    /// Slots went out alone: the lane was busy when their entries did.
    SlotsWrittenAlone,
    /// Entries waited for their term to be promised.
    WriteWaitedForTerm,
    /// A membership entry waited for the hard state to name it.
    WriteWaitedForMembership,
    /// The log waited for a spare to become its next segment.
    RollWaitedForSpare,
    /// A dead segment became a spare.
    SegmentRecycled,
    /// There was no room for a spare.
    SpareHadNoRoom,
    /// There was room again.
    RoomCameBack,
    /// Writes paused, and what was durable was said in the hard state.
    DurableHintWritten,
    /// A read ended that nobody waits for any more: the log was cut, or the wish was another one.
    StaleReadIgnored,
    /// A save was given up: its disk failed.
    SnapshotGivenUp,
    /// A snapshot was whole before the log was durable up to it.
    SnapshotWaitedForLog,
    /// A machine was restored from a snapshot.
    SnapshotRestored,
    /// A block of the newest snapshot was bad, and the older one was used.
    OlderSnapshotUsed,
    /// The newest snapshot turned out bad, and another one was to be taken: in a running node, or by a restart that
    /// needed none.
    SnapshotFoundBad,
    /// Log below both snapshots was kept: a member needs it.
    LogKeptForMember,
    /// Log that was kept for members was let go: the disk had no room for more.
    LogLetGoForRoom,
    /// A dead segment was kept: it is being read.
    LogKeptForReader,
    /// A restart found entries that are bad and known by their slots: a peer is asked for them.
    HolesFound,
    /// An entry was read back bad in a running node.
    HoleFoundLate,
    /// An entry that was lost is there again.
    HoleFilled,
    /// A peer was given entries that its disk has lost.
    RefillGiven,
    /// What was lost is not in the leader's log any more: a snapshot must take its place.
    RefillInVain,
    /// Slots of a full segment were bad, and were made anew from their entries.
    SlotsMadeAnew,
    /// A restore that a crash had cut short began anew.
    RestoreRepeated,
    /// A node that was made from a backup has met all others, who were made from the same.
    FormedFromBackup,
    /// A member that was made from something else was met, and the cluster did not form.
    OtherOriginMet,
    /// A snapshot was pinned that compaction had to leave.
    SnapshotKeptForPin,
    /// A pinned snapshot was not read for so long that it was given back.
    PinExpired,
    /// A snapshot was taken because the one before it was old.
    SnapshotForAge,
    /// Entries were read again while nobody wanted them.
    LogScrubbed,
    /// One of them was bad.
    ScrubFoundBadEntry,
    /// A session's command came again, and was answered as it was the first time.
    SessionRetryAnswered,
    /// It came again when its answer was not kept any more.
    SessionAnswerForgotten,
    /// A session's command came before those that it follows, and was not applied.
    SessionOutOfOrder,
    /// A session ended because it was not used for too long.
    SessionExpired,
    /// A session ended because there were too many.
    SessionEvicted,
    /// A node went to rest: its group had nothing to say.
    Hibernated,
    /// A rest ended by a request or a message.
    HibernationEnded,
    /// A rest ended because the leader's node was lost or came back.
    HibernationEndedByLink,
    /// A restart took entries from their slots, and read them when it was over.
    SlotsBelieved,
    /// A node became the only voter of a new cluster epoch: its quorum was lost.
    QuorumForced,
    /// A member of before a recovery by force was told that it is none any more.
    OldEpochRefused,
}

const WORDS: usize = Mark::ALL.len().div_ceil(64);

/// The marks that were met.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks([u64; WORDS]);

impl Marks {
    /// None.
    pub const NONE: Self = Self([0; WORDS]);

    /// These.
    #[must_use]
    pub const fn of(met: &[Mark]) -> Self {
        let (mut marks, mut at) = (Self::NONE, 0);
        while at < met.len() {
            marks.set(met[at]);
            at += 1;
        }
        marks
    }

    /// Notes that `mark` was met.
    pub const fn set(&mut self, mark: Mark) {
        self.0[mark as usize / 64] |= 1 << (mark as usize % 64);
    }

    /// Whether `mark` was met.
    #[must_use]
    pub const fn has(self, mark: Mark) -> bool {
        self.0[mark as usize / 64] & (1 << (mark as usize % 64)) != 0
    }

    /// Notes those that others met.
    pub const fn add(&mut self, other: Self) {
        let mut at = 0;
        while at < WORDS {
            self.0[at] |= other.0[at];
            at += 1;
        }
    }

    /// These and those.
    #[must_use]
    pub const fn and(mut self, other: Self) -> Self {
        self.add(other);
        self
    }

    /// All that were met, in the order of [`Mark::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Mark> {
        Mark::ALL.iter().copied().filter(move |mark| self.has(*mark))
    }
}

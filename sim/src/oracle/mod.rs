//! What must never happen, one file per invariant.
//!
//! The oracle sees what a node shows (its watermarks and its log's terms), what leaves it, what
//! reaches its disk and its machine; never its insides. It looks at the node that was touched and
//! at the range that changed.

mod acknowledged_survives;
mod commit_rule;
mod committed_stays;
mod disk_bounded;
mod election_safety;
mod gate_opens;
mod history;
mod known;
mod leader_completeness;
mod leaders_clock;
mod leaders_spared;
mod log_matching;
mod members_in_force;
mod memory_bounded;
mod proof_follows;
mod reads_lead_on;
mod recovery_bounded;
mod refills_durable;
mod sessions_end;
mod sessions_once;
mod silence;
mod snapshots_durable;
mod state_machine_safety;
mod status_tells;
mod struck_is_known;
mod there_twice;
mod times_go_on;
mod transfer_rate;
mod transfers_at_once;
mod votes_once;
mod watermarks_ordered;
mod who_stands;

use crate::client::{Fate, Request};
use crate::disk::SimDisk;
use crate::plan::Plan;
use crate::seat::Seat;
use crate::trial::Left;
use crate::witness::Applied;
use bytes::Bytes;
use lakebed::{
    Action, Change, DiskRequest, Engine, Entries, File, Forced, Halt, Instant, LogId, LogIndex,
    Machine, Membership, NodeId, RequestId, Role, StateMachine, Status, Term, Timestamp,
    entry::Seed,
    inspect::{Probe, Said, SentPiece, said, sent_piece},
    report::LogFound,
    session::Limits,
};
use std::{fmt, sync::Arc, time::Duration};

/// A broken invariant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which one.
    pub invariant: &'static str,
    /// The node that shows it, counting from zero.
    pub node: Option<usize>,
    /// What happened, with the numbers.
    pub what: String,
}

impl Violation {
    pub(crate) const fn new(invariant: &'static str, node: usize, what: String) -> Self {
        Self { invariant, node: Some(node), what }
    }

    pub(crate) const fn of_cluster(invariant: &'static str, what: String) -> Self {
        Self { invariant, node: None, what }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// What a check says.
pub(crate) type Checked = Result<(), Violation>;

/// A node after an event.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) node: usize,
    pub(crate) probe: Probe,
    pub(crate) engine: &'a Engine,
    /// The node's clock, and its wall clock as it was told and has gone on since; `None` where nobody
    /// follows that.
    pub(crate) clocks: Option<(Instant, Timestamp)>,
}

impl Seen<'_> {
    /// The entry at this index of the node's log; `None` where the log does not reach.
    fn id_at(&self, index: LogIndex) -> Option<LogId> {
        self.engine.term_at(index).map(|term| LogId::new(term, index))
    }
}

/// Everything that was ever promised, kept outside the nodes.
#[derive(Clone, Debug)]
pub(crate) struct Oracle<M> {
    /// What each node showed last in its present life.
    shown: Vec<Option<Probe>>,
    elections: election_safety::Elections,
    gates: gate_opens::Gates,
    logs: log_matching::Logs,
    commits: commit_rule::Commits,
    committed: committed_stays::Committed,
    leaders: leader_completeness::Leaders,
    machines: state_machine_safety::Machines<M>,
    promises: acknowledged_survives::Promises,
    proofs: proof_follows::Proofs,
    votes: votes_once::Votes,
    snapshots: snapshots_durable::Snapshots,
    refills: refills_durable::Refills,
    restarts: recovery_bounded::Restarts,
    places: reads_lead_on::Places,
    transfers: transfers_at_once::Transfers,
    rates: transfer_rate::Rates,
    members: members_in_force::Members,
    history: history::History,
    clocks: leaders_clock::Clocks,
    stands: who_stands::Stands,
    spared: leaders_spared::Spared,
    once: sessions_once::Once,
    /// Whether a recovery by force went on without each node.
    left_behind: Vec<bool>,
    /// Whether so many of them are back that they have a quorum of their own.
    are_many_back: bool,
    /// How often a status could have been looked at.
    steps: u64,
}

/// What a node says of itself is looked at after so many steps.
const STATUS_EVERY: u64 = 61;

impl<M: StateMachine> Oracle<M> {
    /// Knows of nothing yet; `machine` becomes the reference that all answers are compared with.
    pub(crate) fn new(
        nodes: usize,
        seed: Seed,
        members: Arc<Membership>,
        machine: Seat<M>,
    ) -> Self {
        Self {
            shown: vec![None; nodes],
            elections: election_safety::Elections::default(),
            gates: gate_opens::Gates::new(nodes),
            logs: log_matching::Logs::new(seed),
            commits: commit_rule::Commits::new(nodes),
            committed: committed_stays::Committed::new(nodes),
            leaders: leader_completeness::Leaders::new(nodes),
            machines: state_machine_safety::Machines::new(nodes, machine),
            promises: acknowledged_survives::Promises::new(nodes),
            proofs: proof_follows::Proofs::new(nodes),
            votes: votes_once::Votes::new(nodes),
            snapshots: snapshots_durable::Snapshots::new(nodes),
            refills: refills_durable::Refills::new(nodes),
            restarts: recovery_bounded::Restarts::new(nodes),
            places: reads_lead_on::Places::new(nodes),
            transfers: transfers_at_once::Transfers::new(nodes),
            rates: transfer_rate::Rates::new(nodes),
            members: members_in_force::Members::new(nodes, members),
            history: history::History::default(),
            clocks: leaders_clock::Clocks::new(nodes),
            stands: who_stands::Stands::new(nodes),
            spared: leaders_spared::Spared::new(nodes),
            once: sessions_once::Once::default(),
            left_behind: vec![false; nodes],
            are_many_back: false,
            steps: 0,
        }
    }

    /// The same, in a cluster that begins behind this entry: `machine` is what that made of one.
    pub(crate) fn behind(
        at: LogId,
        nodes: usize,
        seed: Seed,
        members: Arc<Membership>,
        machine: Seat<M>,
    ) -> Self {
        let mut oracle = Self::new(nodes, seed, members, machine);
        oracle.logs.begin_behind(at);
        oracle.committed.begin_behind(at);
        oracle.machines.begin_behind(at);
        oracle.history.begin_behind(at);
        oracle
    }

    /// A node handled an event and wants these actions done.
    #[inline(never)]
    pub(crate) fn on_step<'a>(
        &mut self,
        seen: &Seen<'_>,
        mut actions: impl DoubleEndedIterator<Item = &'a Action> + Clone,
    ) -> Checked {
        if self.left_behind[seen.node] {
            return if self.are_many_back { Ok(()) } else { left_behind(seen) };
        }
        self.spared.on_step(seen);
        self.on_view(seen)?;
        silence::check(seen, actions.clone())?;
        if seen.probe.judged {
            actions.try_for_each(|action| self.on_action(seen, action))?;
        }
        Ok(())
    }

    /// A look at what a node holds in memory, and at what it says of itself: now and then, as the engine
    /// has to count for it.
    pub(crate) fn on_memory(&mut self, seen: &Seen<'_>, plan: &Plan) -> Checked {
        self.steps += 1;
        if !self.steps.is_multiple_of(STATUS_EVERY) {
            return Ok(());
        }
        let status = seen.engine.status();
        memory_bounded::check(seen, &status, plan)?;
        if self.left_behind[seen.node] {
            return Ok(());
        }
        status_tells::check(seen, &status, &self.promises)
    }

    /// A node handled an event: what it goes by is on its disk, if that does what it says.
    /// `would_stay`: whether a power cut would leave an entry bad.
    pub(crate) fn on_disk_below(
        &mut self,
        seen: &Seen<'_>,
        disk: &SimDisk,
        would_stay: impl FnOnce(LogIndex) -> bool,
    ) -> Checked {
        self.on_snapshots_below(seen, disk)?;
        if seen.probe.judged { self.refills.on_view(seen, would_stay) } else { Ok(()) }
    }

    /// The same of the snapshots that it goes by.
    pub(crate) fn on_snapshots_below(&mut self, seen: &Seen<'_>, disk: &SimDisk) -> Checked {
        if seen.probe.judged { self.snapshots.on_view(seen, disk) } else { Ok(()) }
    }

    /// A node wrote an entry again that its disk had lost, and its process died as that failed.
    pub(crate) fn on_refill_failed(&mut self, node: usize, entry: LogIndex) {
        let owed = self.shown[node].and_then(|probe| probe.owed);
        self.refills.on_failed(node, entry, owed);
    }

    /// A leader sends a piece of a snapshot to another node.
    fn on_piece(&mut self, seen: &Seen<'_>, to: NodeId, piece: SentPiece) -> Checked {
        self.transfers.on_piece(seen.node, to, &piece)?;
        match seen.clocks {
            Some((now, _)) => self.rates.on_piece(seen.node, now, to, &piece),
            None => Ok(()),
        }
    }

    /// How many transfers at once, and how fast, and how long who leads is kept to, is what a plan says.
    pub(crate) fn hold_to(&mut self, plan: &Plan) {
        self.transfers.hold_to(plan);
        self.rates.hold_to(plan);
        self.spared.hold_to(plan);
    }

    /// A node that shows what it showed before has the same log: by its last entry, whatever may
    /// have been cut and written again in between (log matching).
    fn on_view(&mut self, seen: &Seen<'_>) -> Checked {
        let shown = &mut self.shown[seen.node];
        if shown.as_ref() == Some(&seen.probe) {
            return Ok(());
        }
        let before = shown.replace(seen.probe);
        watermarks_ordered::check(seen)?;
        self.votes.on_view(seen)?;
        let promised = self.promises.of_disk(seen.node);
        self.promises.on_view(seen)?;
        if seen.probe.judged {
            self.elections.on_view(seen)?;
            let known = self.committed.last();
            self.committed.on_view(seen)?;
            self.gates.on_view(seen, before.as_ref(), promised, &self.committed)?;
            let members = self.members.in_log(seen, &self.committed);
            self.commits.on_view(seen, known, &self.promises, members)?;
            self.members.on_view(seen, &self.committed, &self.votes)?;
            self.leaders.on_view(seen, &self.committed)?;
            self.proofs.on_view(seen);
            self.clocks.on_view(seen)?;
            self.stands.on_view(seen, before.as_ref())?;
            self.spared.on_view(seen, before.as_ref())?;
        }
        Ok(())
    }

    fn on_action(&mut self, seen: &Seen<'_>, action: &Action) -> Checked {
        match action {
            Action::Disk { request: DiskRequest::Write { file, at, and, .. }, .. } => {
                let members = &mut self.members;
                let known = |written| members.on_written(written);
                self.logs.on_write(seen.node, *file, [Some(at), and.as_ref()], known)
            }
            Action::Send { to, head, body } => match said(head) {
                Some(Said::Acknowledged { through, .. }) => self.promises.on_sent(seen, through),
                Some(Said::AsksOfGate { nonce }) => self.gates.on_asked(seen.node, nonce),
                Some(Said::TellsGate { nonce, last, term }) => {
                    let last = seen.id_at(last).unwrap_or_else(|| LogId::new(Term(0), last));
                    self.gates.on_told(to.0 as usize - 1, nonce, term, last);
                    Ok(())
                }
                Some(said) => {
                    who_stands::on_sent(seen, said)?;
                    self.spared.on_sent(seen.node, said);
                    self.votes.on_sent(seen.node, *to, said)
                }
                None => match sent_piece(head, body) {
                    Some(piece) => self.on_piece(seen, *to, piece),
                    None => Ok(()),
                },
            },
            Action::Note(note) => status_tells::on_note(seen, note),
            Action::Machine(Machine::Query { requests, .. }) => {
                self.spared.on_query(seen, requests)
            }
            Action::Halt(halt) if matches!(**halt, Halt::LogLost { .. }) => {
                self.gates.on_lost(seen.node);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// What a node is about to handle is a read under its lease, or nothing of the kind; `now`: the clock of
    /// each node that is up, and the least that it waits.
    pub(crate) fn on_leased(
        &mut self,
        request: Option<RequestId>,
        now: impl Iterator<Item = Option<(Instant, Duration)>>,
    ) {
        self.spared.on_leased(request, now);
    }

    /// A message reaches a node, and nothing else is handled with it.
    pub(crate) fn on_received(&mut self, node: usize, from: NodeId, bytes: &Bytes) {
        self.spared.on_received(node, from, bytes);
        self.on_received_among_others(node, from, bytes);
    }

    /// A message reaches a node: what whoever leads hears of what others have lost.
    pub(crate) fn on_received_among_others(&mut self, node: usize, from: NodeId, bytes: &Bytes) {
        let from = from.0 as usize - 1;
        if !self.promises.has_lost(from) {
            return;
        }
        let Some(Said::Acknowledged { through, term, lacks }) = said(bytes) else { return };
        let leads = |probe: &Probe| probe.role == Role::Leader && probe.term == term;
        if self.shown[node].as_ref().is_some_and(leads) {
            self.promises.on_heard((node, term), from, through, lacks);
        }
    }

    /// What machines keep of sessions, if they have any.
    pub(crate) fn hold_sessions_to(&mut self, limits: Option<Limits>) {
        self.machines.hold_sessions_to(limits);
    }

    /// Keeps what machines are given, for whoever wants to see what one makes of it.
    pub(crate) fn keep_inputs(&mut self) {
        self.machines.keep_inputs();
    }

    /// A node was started from what a power cut would leave of its disk: whatever it was certain to hold
    /// it holds.
    pub(crate) fn on_trial(&self, seen: &Seen<'_>) -> Checked {
        if self.promises.is_kept(seen) && self.votes.are_known(seen) {
            return Ok(());
        }
        let (durable, (term, vote)) = (self.promises.of(seen.node), self.votes.of(seen.node));
        let Probe { last, term: left, vote: left_vote, .. } = seen.probe;
        let what = format!(
            "{durable} is durable, term {term} promised and the vote {vote:?}, and after a power cut its \
             log would end at {last} in term {left} with the vote {left_vote:?}"
        );
        Err(Violation::new("a power cut would leave what was promised", seen.node, what))
    }

    /// And what it would find there of its log.
    pub(crate) fn on_left(&self, node: usize, log: Option<LogFound>) -> Checked {
        self.proofs.check(node, log)
    }

    /// A node's disk is a new one.
    pub(crate) fn on_wiped(&mut self, node: usize) {
        self.gates.forget_of(node);
        self.promises.on_wiped(node);
        self.votes.on_wiped(node);
    }

    /// A node's disk, or its hard state, may be what it was before.
    pub(crate) fn on_set_back(&mut self, node: usize) {
        self.gates.forget_of(node);
    }

    /// A node becomes the only voter of a new cluster epoch. What it lacks is lost, and said to be:
    /// nobody is held to it. The other founders are not of this cluster any more. `spared`: what damage
    /// cannot have taken from the node.
    pub(crate) fn on_forced(
        &mut self,
        (node, founders): (usize, usize),
        forced: &Forced,
        spared: LogIndex,
        machine: Seat<M>,
    ) -> Checked {
        let last = forced.last.index;
        self.promises.on_forced(node, forced, spared)?;
        self.gates.forget();
        self.committed.forget_behind(last);
        self.machines.forget_behind(last, machine);
        self.history.forget_behind(last);
        self.members.on_forced(node, forced);
        for other in (0..founders).filter(|other| *other != node) {
            self.left_behind[other] = true;
        }
        Ok(())
    }

    /// Those who were left behind are a quorum of what they were: they are a cluster of their own
    /// until one of the other is heard.
    pub(crate) const fn on_many_back(&mut self) {
        self.are_many_back = true;
    }

    /// A node's process or machine is gone.
    pub(crate) fn on_death(&mut self, node: usize) {
        self.shown[node] = None;
        self.spared.on_death(node);
        self.commits.on_death(node);
        self.committed.on_death(node);
        self.leaders.on_death(node);
        self.machines.on_death(node);
        self.promises.on_death(node);
        self.proofs.on_death(node);
        self.votes.on_death(node);
        self.snapshots.on_death(node);
        self.transfers.on_death(node);
        self.rates.on_death(node);
    }

    /// A node's machine applied these entries.
    pub(crate) fn on_apply(
        &mut self,
        node: usize,
        entries: &Entries,
        applied: &[Applied],
    ) -> Checked {
        if self.left_behind[node] {
            return Ok(());
        }
        self.once.on_apply(node, applied)?;
        self.machines.on_apply(node, entries, applied, &mut self.history)
    }

    /// A request of a session was answered by its machine.
    pub(crate) fn on_reply(
        &self,
        id: RequestId,
        request: &Request,
        at: LogIndex,
        answer: &[u8],
    ) -> Checked {
        self.once.on_reply(id, request, at, answer)
    }

    /// A node begins a life on a disk with so many bytes.
    pub(crate) fn on_start(&mut self, node: usize, there: u64) {
        self.restarts.on_start(node, there);
    }

    /// A node reads so much of a file from there on.
    pub(crate) fn on_read(
        &mut self,
        node: usize,
        (file, offset, bytes): (File, u64, u64),
        now: u64,
    ) -> Checked {
        self.places.on_read(node, file, offset, now)?;
        if self.was_judged(node) { Ok(()) } else { self.restarts.on_read(node, bytes) }
    }

    /// A node writes to a file.
    pub(crate) fn on_write(&mut self, node: usize, file: File) {
        self.places.on_write(node, file);
    }

    /// A node's machine begins with a state of its own.
    pub(crate) fn on_resume(&mut self, node: usize, at: LogId) {
        self.machines.on_restore(node, at, true);
    }

    /// A node's machine takes in a snapshot.
    pub(crate) fn on_restore(&mut self, node: usize, at: LogId, whole: bool) {
        self.machines.on_restore(node, at, whole);
    }

    /// Where a write that a node answers was applied in this step, in which its machine applied this;
    /// `None`: the cluster went on without the node, and whatever it says is nobody's.
    pub(crate) fn answered_at(
        &self,
        node: usize,
        of: (RequestId, &Request),
        applied: &[Applied],
        answer: &[u8],
    ) -> Result<Option<LogIndex>, Violation> {
        if self.left_behind[node] {
            return Ok(None);
        }
        history::History::answered_at(node, of, applied, answer).map(Some)
    }

    /// A node says that these changes were made, by the entry at `at`.
    pub(crate) fn on_changed(&self, node: usize, at: LogId, changes: &[Change]) -> Checked {
        if self.left_behind[node] {
            return Ok(());
        }
        self.members.on_changed(node, at, changes, &self.committed)
    }

    /// A node says that it makes none of these changes, and nobody else was asked to change the same members.
    pub(crate) fn on_change_refused(&self, node: usize, changes: &[Change]) -> Checked {
        self.members.on_refused(node, changes)
    }

    /// A request ended.
    pub(crate) fn on_end(&mut self, id: RequestId, request: &Request, fate: Fate) -> Checked {
        self.history.on_end(id, request, fate)
    }

    /// A node's machine is asked this next.
    pub(crate) fn on_ask(&mut self, node: usize, query: &Bytes) {
        self.machines.on_ask(node, query);
    }

    /// A query was answered by a node whose machine stood where the reference stands, or not.
    pub(crate) fn on_query(&self, node: usize, query: &[u8], answer: &[u8]) -> Checked {
        self.machines.on_query(node, query, answer)
    }

    /// Once nothing happens any more: what lies on a node's disk.
    pub(crate) fn on_disk(
        node: usize,
        disk: &SimDisk,
        status: &Status,
        met: (&Plan, bool),
    ) -> Checked {
        let files: Vec<_> = disk.list().collect();
        disk_bounded::check(node, &files, status, met)
    }

    /// And what of it a power cut would leave; `is_struck`: some of it was damaged, or failed.
    pub(crate) fn on_rest(node: usize, durable: LogIndex, left: &Left, is_struck: bool) -> Checked {
        there_twice::check(node, durable, left, is_struck)
    }

    /// And whether a node knows of an entry in its log that was damaged and is bad.
    pub(crate) fn on_struck(node: usize, probe: &Probe, bad: Option<u32>) -> Checked {
        struck_is_known::check(node, probe, bad)
    }

    /// At the end every machine that stands where the reference stands is what the reference is.
    pub(crate) fn on_state(&self, node: usize, machine: &Seat<M>) -> Checked {
        self.machines.on_state(node, machine)
    }
}

/// Who was left behind may be what it was, and decides nothing: others of its kind are lost.
fn left_behind(seen: &Seen<'_>) -> Checked {
    if seen.probe.role == Role::Leader {
        let what = format!("leads term {}, and its cluster went on without it", seen.probe.term);
        return Err(Violation::new("left behind", seen.node, what));
    }
    Ok(())
}

//! Damage beyond the budget: anything on a disk rots, writes are lost or land elsewhere, a disk is
//! set back or gone.
//!
//! A node may then refuse, and must not be wrong. What it cannot know is not asked of it: a disk
//! that has forgotten what was promised so that nobody can tell (damage among entries that nothing
//! proves durable; a lost write; an old image) does not start its node again here. Whether it has
//! forgotten is tried on a copy, against the oracle's ledger.

use super::World;
use crate::{
    client::Workload,
    disk::{SimDisk, Survivors, Victim},
    harm::{entry_sectors, harm_sector, witnesses},
    node::{Kept, Lie, Node},
    oracle::{Checked, Seen, Violation},
    plan::{Harm, Part},
    trial::{Trial, after_power_cut, log, proven, refuses, trial},
};
use lakebed::{
    Completion, DiskError, File, Halt, LogId, LogIndex, OpId, Start, StateMachine, Term,
};

impl<M: StateMachine, W: Workload> World<M, W> {
    /// Damages anything on the disk of a node that is down, unless nobody could tell.
    pub(super) fn ruin(&mut self, node: usize, harm: Harm, pick: u64) {
        let disk = &self.nodes[node].disk;
        let files: Vec<File> = disk.list().map(|(file, _)| file).collect();
        if files.is_empty() || !self.nodes[node].is_formatted() {
            return;
        }
        let file = files[(pick % files.len() as u64) as usize];
        let sectors = disk.used_sectors(file);
        let at = sectors.get((pick >> 32) as usize % sectors.len().max(1)).copied().unwrap_or(0);
        let mut ruined = disk.clone();
        harm_sector(&mut ruined, file, at, harm);
        // Its other copy may have rotted before: then the newest vote or term is gone with it.
        let vote = file == File::HardState;
        self.ruin_into(node, file, ruined, vote, "ruin", || {
            format!("{file} at byte {at}, {harm:?}")
        });
    }

    /// A bit of a file of a node that is down is another one, if the file has it, unless nobody could tell.
    pub(super) fn flip(&mut self, node: usize, file: File, bit: u64) {
        let mut ruined = self.nodes[node].disk.clone();
        if !ruined.flip(file, bit) {
            return;
        }
        self.ruin_into(node, file, ruined, false, "flip", || format!("{file} at bit {bit}"));
    }

    /// The same, whether or not anybody could tell: for whoever asks that only if something breaks.
    pub(crate) fn flip_at_all_costs(&mut self, node: usize, file: File, bit: u64) {
        self.fell(node, Survivors::None, 0);
        self.nodes[node].disk.flip(file, bit);
        self.nodes[node].scars.is_ruined = true;
    }

    /// A bit of an entry or of a snapshot goes bad while the node runs, if it does and has any.
    pub(super) fn rot(&mut self, node: usize, part: Part, pick: u64) {
        if !self.nodes[node].is_up() {
            return;
        }
        let snapshots = self.nodes[node].disk.list().filter_map(|(file, _)| match file {
            File::Snapshot(at) => Some(at),
            _ => None,
        });
        let snapshots: Vec<LogId> = snapshots.collect();
        let (which, pick) = (pick as u32 as usize, pick >> 32);
        match part {
            Part::Snapshot if snapshots.is_empty() => false,
            Part::Snapshot => self.rot_snapshot(node, snapshots[which % snapshots.len()], pick),
            Part::Slots => self.rot_witnesses(node, pick),
            _ => self.rot_running(node, pick),
        };
    }

    /// An entry of the oldest segment goes bad while the node runs: one bit. False if the log lies in one
    /// segment still.
    pub fn rot_running(&mut self, node: usize, pick: u64) -> bool {
        let disk = &self.nodes[node].disk;
        let Some(oldest) = oldest_full_segment(disk) else { return false };
        let entries = entry_sectors(disk, oldest, self.plan.geometry);
        if entries.is_empty() {
            return false;
        }
        let at = entries[(pick % entries.len() as u64) as usize];
        self.rot_from(node, oldest, at, pick)
    }

    /// An entry of the oldest segment goes bad while the node runs, and its slot with it: nobody can tell what
    /// there was. False if the log lies in one segment still.
    pub fn rot_witnesses(&mut self, node: usize, pick: u64) -> bool {
        let disk = &mut self.nodes[node].disk;
        let Some(oldest) = oldest_full_segment(disk) else { return false };
        let Some(both) = witnesses(disk, oldest, self.plan.geometry, pick) else { return false };
        for at in both {
            disk.flip(oldest, at * 8 + 3);
        }
        self.nodes[node].scars.is_ruined = true;
        self.struck("rot");
        self.note(Some(node), || format!("ruined while it runs: {oldest} at bytes {both:?}"));
        true
    }

    /// A bit of a snapshot goes bad while the node runs: in its header, its blocks or its footer. False
    /// if there is no such snapshot.
    pub fn rot_snapshot(&mut self, node: usize, at: LogId, pick: u64) -> bool {
        let file = File::Snapshot(at);
        let sectors = self.nodes[node].disk.used_sectors(file);
        let Some(count) = (sectors.len() as u64).checked_sub(1) else { return false };
        self.rot_from(node, file, sectors[(pick % (count + 1)) as usize], pick)
    }

    /// A bit of the first byte from there on that is used, while the node runs: what fills a block up
    /// is zeros, and nobody's.
    fn rot_from(&mut self, node: usize, file: File, from: u64, pick: u64) -> bool {
        let disk = &mut self.nodes[node].disk;
        let content = disk.content(file).unwrap_or_default();
        let is_used = |byte: &u64| content[*byte as usize] != 0;
        let Some(byte) = (from..content.len() as u64).find(is_used) else { return false };
        if !disk.flip(file, byte * 8 + pick % 8) {
            return false;
        }
        self.nodes[node].scars.is_ruined = true;
        self.struck("rot");
        self.note(Some(node), || format!("ruined while it runs: {file} at byte {byte}"));
        true
    }

    /// The disk of a node that is down becomes this one, which differs in one file; `vote`: and may
    /// have lost a vote by that.
    fn ruin_into(
        &mut self,
        node: usize,
        file: File,
        ruined: SimDisk,
        vote: bool,
        kind: &str,
        what: impl Fn() -> String,
    ) {
        if self.goes_unnoticed(node, file, &ruined, vote) {
            self.stats.untold += 1;
            return;
        }
        self.nodes[node].disk = ruined;
        let scars = &mut self.nodes[node].scars;
        scars.is_ruined = true;
        scars.is_vote_ruined |= file == File::HardState;
        if file == File::HardState {
            self.oracle.on_set_back(node);
        }
        self.struck(kind);
        self.note(Some(node), || format!("ruined: {}", what()));
    }

    /// Whether a node would start from its ruined disk without what it promised, and nobody could
    /// tell; `vote`: a vote may be among that.
    pub(super) fn goes_unnoticed(
        &self,
        node: usize,
        file: File,
        ruined: &SimDisk,
        vote: bool,
    ) -> bool {
        // A file that was struck before may have lost the one witness, and now the other.
        let scars = &self.nodes[node].scars;
        let is_struck = scars.files.contains(&file);
        // An older hard state may be what is left, and the log the one thing that told.
        let is_vote_ruined = scars.is_vote_ruined;
        self.forgets(node, ruined, vote || is_vote_ruined)
            && (is_struck || is_vote_ruined || self.is_beyond_telling(node, file, ruined))
    }

    /// Whether all that the ruined disk has forgotten is what the whole one does not prove either:
    /// the newest entries, or a hard state whose other copy was damaged before.
    fn is_beyond_telling(&self, node: usize, file: File, ruined: &SimDisk) -> bool {
        let proven = self.proven(node);
        match self.trial(node, ruined.clone(), Start::Run) {
            Trial::Starts(engine) => file == File::HardState || engine.probe().last.index >= proven,
            Trial::Halts(_) => false,
        }
    }

    /// What the records on a disk prove durable, as its engine says.
    pub(super) fn proven(&self, node: usize) -> LogIndex {
        proven(self.engine(node, 1), &self.nodes[node].disk)
    }

    /// Whether a node would start from this disk without what it promised; `vote`: perhaps without
    /// a vote, or in a term that it left.
    fn forgets(&self, node: usize, disk: &SimDisk, vote: bool) -> bool {
        match self.trial(node, disk.clone(), Start::Run) {
            Trial::Starts(engine) => {
                let probe = engine.probe();
                // Who is alone stands for election, in the next term, before it is seen.
                let term = Term(probe.term.0 - u64::from(self.nodes.len() == 1));
                let is_older = term < self.nodes[node].scars.term;
                vote && is_older
                    || self
                        .oracle
                        .would_miss(&Seen { node, probe, engine: &engine, clocks: None }, vote)
            }
            Trial::Halts(_) => false,
        }
    }

    /// What a node has said is true of its disk, and not of its memory alone: of all that is not durable
    /// a power cut takes everything.
    pub(super) fn try_power_cut(&self, node: usize) -> Checked {
        if self.nodes[node].scars.is_ruined {
            return Ok(());
        }
        let disk = after_power_cut(&self.nodes[node].disk, self.plan.seed);
        self.oracle.on_left(node, log(self.engine(node, 1), &disk))?;
        let start = if self.plan.keeps > 0 { self.resumed(node).0 } else { Start::Run };
        match self.trial(node, disk, start) {
            Trial::Starts(engine) => self.oracle.on_trial(&Seen {
                node,
                probe: engine.probe(),
                engine: &engine,
                clocks: None,
            }),
            // Removed a moment ago, it has not been told yet.
            Trial::Halts(Halt::Removed) if self.oracle.is_former(node) => Ok(()),
            Trial::Halts(halt) => Err(refuses(node, &halt)),
        }
    }

    /// Starts a node from a disk, as far as it needs nobody else.
    pub(super) fn trial(&self, node: usize, disk: SimDisk, start: Start) -> Trial {
        trial(self.engine(node, 1), disk, start)
    }

    /// The next fitting operation of a node's disk will lie.
    pub(super) fn lie_next(&mut self, node: usize, lie: Lie) {
        self.nodes[node].scars.lie = Some(lie);
    }

    /// An operation ends with a lie, if it is one that can: never about the hard state, of which
    /// both copies could be lost that way.
    pub(super) fn lie(&mut self, at: usize, op: OpId) -> Option<Result<Completion, DiskError>> {
        let is_judged = self.probe(at).is_some_and(|probe| probe.judged);
        let node = &mut self.nodes[at];
        let about = node.disk.is_about(op);
        // What is spare may become the hard state, as long as there is none.
        let keeps_promises = |file| matches!(file, File::HardState | File::Spare(_));
        let lie = node.scars.lie.filter(|lie| match lie {
            Lie::Lost | Lie::Late(_) => node.disk.is_promise(op),
            Lie::Elsewhere(_) => node.disk.is_a(op, Victim::Write),
            Lie::Misfiled(_) => node.disk.is_a(op, Victim::Write) && node.disk.has_promised(),
            Lie::Names => node.disk.is_a(op, Victim::SyncDirectory) && node.disk.has_promised(),
        })?;
        if about.is_some_and(keeps_promises) {
            return None;
        }
        (node.scars.lie, node.scars.is_ruined, node.scars.may_forget) = (None, true, true);
        node.scars.is_misled = !is_judged;
        let (result, kind) = match lie {
            Lie::Lost => (node.disk.complete_falsely(op), "lost-write"),
            Lie::Names => (node.disk.complete_falsely(op), "lost-names"),
            Lie::Elsewhere(pick) => (node.disk.complete_elsewhere(op, pick), "misdirected-write"),
            Lie::Misfiled(pick) => (node.disk.complete_misfiled(op, pick), "misfiled-write"),
            // Counted when it is told.
            Lie::Late(late) => (node.disk.complete_too_soon(op, late), "late-report"),
        };
        if !matches!(lie, Lie::Late(_)) {
            self.struck(kind);
        }
        self.note(Some(at), || {
            let file = about.map_or_else(|| "the directory".to_owned(), |file| file.to_string());
            format!("lied: {kind}, {op:?} of {file}")
        });
        Some(result)
    }

    /// A read ends with what lies elsewhere, if it is its turn. Nothing durable is another for it, and who reads in a
    /// restart goes by what is read: what nothing proves durable is taken for torn then, and cut.
    pub(super) fn misread(&mut self, at: usize, op: OpId) -> Option<Result<Completion, DiskError>> {
        let is_judged = self.probe(at).is_some_and(|probe| probe.judged);
        let Node { scars, disk, .. } = &mut self.nodes[at];
        let file = disk.read_of(op)?;
        // Of its two copies one at most is bad.
        let is_last_copy = file == File::HardState && (scars.is_rotten || scars.is_vote_ruined);
        let (after, pick) = scars.misread.filter(|_| !is_last_copy)?;
        if after > 0 {
            scars.misread = Some((after - 1, pick));
            return None;
        }
        let before = disk.at_rest();
        let completion = disk.complete_from_elsewhere(op, pick)?;
        let was_struck = scars.has_any() || scars.has_failed;
        (scars.misread, scars.is_ruined) = (None, true);
        if !is_judged {
            // What was struck before may have been the one witness, and what was read the other.
            let proven = if was_struck { LogIndex(0) } else { proven(self.engine(at, 1), &before) };
            self.nodes[at].scars.misread_to = Some(proven);
        }
        self.struck("misdirected-read");
        self.note(Some(at), || format!("misread: {op:?} of {file}"));
        Some(Ok(completion))
    }

    /// Keeps what is durable on a node's disk now.
    pub(super) fn take_image(&mut self, node: usize) {
        let mut image = self.nodes[node].disk.clone();
        image.cut_power(Survivors::None, self.disks.lane(super::SITE_CRASH, node as u32));
        self.nodes[node].scars.image = Some(image);
    }

    /// A disk is again what it was when the image was taken.
    pub(super) fn put_image_back(&mut self, at: usize, down: u64) {
        let Some(image) = self.nodes[at].scars.image.take() else { return };
        self.fell(at, Survivors::None, down);
        let node = &mut self.nodes[at];
        node.disk = image;
        (node.scars.is_ruined, node.scars.may_forget, node.scars.is_old) = (true, true, true);
        self.oracle.on_set_back(at);
        self.struck("old-image");
    }

    /// A node's disk is a new one; `formatted`: and its node shall be one.
    pub(super) fn empty_disk(&mut self, node: usize, formatted: bool) {
        let geometry = self.plan.geometry;
        let scars = &mut self.nodes[node].scars;
        (scars.is_ruined, scars.is_new) = (true, formatted);
        scars.misread_to = None;
        self.nodes[node].disk = SimDisk::new(geometry);
        self.nodes[node].kept = Kept::default();
        self.oracle.on_wiped(node);
    }

    /// Whether those of these nodes are a quorum to whose disks nothing was done that is beyond the budget,
    /// or nothing that they have not got over: they serve, without a gate, and miss nothing.
    pub(crate) fn has_sound_quorum(&self, takes_part: impl Fn(usize) -> bool) -> bool {
        let is_over = |probe: lakebed::inspect::Probe| probe.ready && !probe.gated && !probe.holed;
        let serves = |node: usize| self.probe(node).is_some_and(is_over);
        let is_sound = |node: usize| !self.nodes[node].scars.is_ruined || serves(node);
        self.oracle.are_quorum(&|node| takes_part(node) && is_sound(node))
    }

    /// Whether a node is not started any more, its disk being beyond what it can start from.
    #[must_use]
    pub fn is_out(&self, node: usize) -> bool {
        self.nodes[node].scars.is_out || self.nodes[node].has_left
    }

    /// Whether a node is not to be started any more.
    pub(super) fn stays_out(&mut self, at: usize) -> bool {
        if self.nodes[at].has_left {
            return true;
        }
        let disk = &self.nodes[at].disk;
        let scars = &self.nodes[at].scars;
        if scars.is_out || !scars.may_forget || !self.forgets(at, disk, scars.is_old) {
            return scars.is_out;
        }
        self.forgot(at);
        true
    }

    /// An operation of a node failed. Was that in a restart from a disk that has lied, what could not be
    /// read may be all that told of the lie.
    pub(super) fn withheld(&mut self, at: usize) {
        let is_judged = self.probe(at).is_some_and(|probe| probe.judged);
        let scars = &mut self.nodes[at].scars;
        scars.is_misled |= scars.may_forget && !is_judged;
        if !is_judged {
            // Either may have been one copy of what the other one held.
            scars.misread_to = scars.misread_to.map(|_| LogIndex(0));
            scars.has_failed = true;
        }
    }

    fn forgot(&mut self, at: usize) {
        self.stats.amnesias += 1;
        self.nodes[at].scars.is_out = true;
        self.note(Some(at), || "forgot: what it promised; it stays down".into());
    }

    /// A lie to a restart, which looked at its disk again after that, or a read that failed or went astray then, took
    /// from it what it had promised: no other start was there to find it. Not what is proven on a disk that is
    /// whole: that is damaged and not torn, whatever one read says.
    pub(super) fn goes_out(&mut self, at: usize, last: LogIndex, proven: LogIndex) -> Checked {
        if last < proven {
            let what = format!("ends at {last} since a read went astray, its disk proves {proven}");
            return Err(Violation::new("one read does not make it forget", at, what));
        }
        self.forgot(at);
        self.kill(at);
        Ok(())
    }
}

/// The first segment of a log that does not lie in one still.
fn oldest_full_segment(disk: &SimDisk) -> Option<File> {
    let mut segments =
        disk.list().map(|(file, _)| file).filter(|file| matches!(file, File::Segment(_)));
    let oldest = segments.next()?;
    segments.next().map(|_| oldest)
}

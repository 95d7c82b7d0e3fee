//! What happens to disks and processes.
//!
//! Within what is borne (docs/recovery.md): of what is committed somebody has another copy, and a quorum of all
//! members that may be in force is left without who lost a log.

use super::*;
use crate::raft::gate::Gate;

impl Storm {
    /// Some of what was asked of the disk becomes durable.
    pub(super) fn sync(&mut self, at: u64) {
        let (which, part) = (self.draw(4), self.draw(100));
        let disk = &mut self.cluster.at(at).disk;
        let waiting = disk.log.len() - disk.durable;
        match which {
            0 => disk.sync_promises(),
            1 if waiting > 0 => {
                disk.sync_promises();
                disk.durable += part % (waiting + 1);
            }
            _ => drop(disk.sync()),
        }
    }

    pub(super) fn fill(&mut self, at: u64) {
        let which = self.draw(4);
        let disk = &mut self.cluster.at(at).disk;
        match which {
            0 => disk.full = true,
            1 => disk.saturated ^= true,
            _ => disk.full = false,
        }
    }

    pub(super) fn crash(&mut self, at: u64) {
        let node = self.cluster.at(at);
        if node.raft.gate.is_none() {
            // The disk learned of it at once.
            self.shut.remove(&at);
        }
        self.cluster.at(at).disk.find_what_is_lost();
        self.restart(at);
    }

    fn restart(&mut self, at: u64) {
        self.cluster.crash(at);
        let node = self.cluster.at(at);
        node.disk.lazy = true;
        node.raft.gate = self.shut.get(&at).map(|nonce| Gate::new(*nonce));
        self.known.forget_life(at);
        self.haunt(at);
    }

    /// The bytes of a committed entry that others have as well: found by a restart, or when they are read.
    pub(super) fn rot(&mut self, at: u64) {
        let durable = self.cluster.at(at).disk.durable.min(self.known.committed.len());
        let is_shut = self.cluster.nodes.iter().any(|node| node.raft.gate.is_some());
        if durable == 0 || is_shut || !self.is_spared(at) {
            return;
        }
        let index = durable - self.draw(durable.min(8));
        // Whoever is no voter to this node may be unknown to it tomorrow.
        let raft = &self.cluster.nodes[at as usize - 1].raft;
        let votes =
            |id: u64| [&raft.membership, &raft.previous].iter().all(|of| of.is_voter(node(id)));
        let mut others = self.ids().filter(|other| *other != at && votes(*other));
        if !others.any(|other| self.has(other, index)) {
            return;
        }
        let is_late = self.draw(2) == 0;
        let disk = &mut self.cluster.at(at).disk;
        disk.lose_unseen(index as u64);
        if is_late && disk.holes.is_empty() {
            disk.owes_nothing = true;
        } else {
            self.crash(at);
        }
    }

    /// Whether this disk has the entry that was committed there.
    pub(super) fn has(&self, at: u64, index: usize) -> bool {
        let disk = &self.cluster.nodes[at as usize - 1].disk;
        let is_it = |(head, frame): &(entry::Head, Bytes)| {
            head.id == self.known.committed[index - 1] && *frame != ROTTEN
        };
        disk.durable >= index && is_it(&disk.log[index - 1])
    }

    /// The bytes of its last durable entry are lost, which nobody else has got; a restart finds out.
    pub(super) fn lose_alone(&mut self, at: u64) {
        let Node { raft, disk, .. } = &self.cluster.nodes[at as usize - 1];
        let Some(last) = disk.durable.checked_sub(1) else { return };
        let id = disk.log[last].0.id;
        let lacks = |other: u64| {
            let disk = &self.cluster.nodes[other as usize - 1].disk;
            other == at || disk.log.get(last).is_none_or(|(head, _)| head.id != id)
        };
        // Who commits without the others has nobody to lose it to.
        let is_alone = [&raft.membership, &raft.previous, &disk.recorded, &disk.previous]
            .into_iter()
            .any(|of| of.is_quorum(|id| id == node(at)));
        if !is_alone && self.ids().all(lacks) && !self.is_damaged() {
            self.cluster.at(at).disk.lose(id.index.0);
            self.crash(at);
        }
    }

    /// What was in its log is not known any more, where nobody else has lost anything.
    pub(super) fn lose_log(&mut self, at: u64) {
        // A disk that fails, fails again.
        let at = if self.draw(2) == 0 { self.shut_last } else { at };
        if self.gone.contains(&at) || self.is_paused(at) {
            return;
        }
        self.look_at_clock(at);
        let is_member = self.cluster.at(at).raft.membership.members().next().is_some();
        if !is_member || !self.is_spared(at) || self.is_damaged() {
            return;
        }
        self.record_lost(at);
        self.shut_last = at;
        let disk = &mut self.cluster.at(at).disk;
        self.shut.insert(at, [at * 100, disk.epoch + 1]);
        disk.log.clear();
        disk.holes.clear();
        (disk.durable, disk.owes_nothing) = (0, false);
        // The newest members are those of an entry that is gone.
        if disk.recorded.at.index > LogIndex(0) {
            disk.recorded = Arc::clone(&disk.previous);
        }
        self.restart(at);
    }

    /// Whether a quorum is left without it, whichever members are in force.
    fn is_spared(&self, at: u64) -> bool {
        let is_left =
            |of: &Arc<Membership>| of.voters.is_empty() || of.is_quorum(|id| id != node(at));
        let all = self.ids().map(|id| &self.cluster.nodes[id as usize - 1]);
        all.flat_map(|node| [&node.raft.membership, &node.raft.previous, &node.disk.recorded])
            .all(is_left)
    }

    fn is_damaged(&self) -> bool {
        let is_rotten = |node: &Node| node.disk.log.iter().any(|(_, frame)| *frame == ROTTEN);
        let is_shut = |node: &Node| node.raft.gate.is_some();
        !self.shut.is_empty() || self.cluster.nodes.iter().any(|n| is_shut(n) || is_rotten(n))
    }
}

impl Disk {
    fn sync_promises(&mut self) {
        self.promised = self.wanted;
        [self.recorded, self.previous] = self.wanted_members.clone();
    }

    /// As a restart does, of what is durable.
    fn find_what_is_lost(&mut self) {
        self.log.truncate(self.durable);
        self.owes_nothing = false;
        let lost = self.log.iter().filter(|(_, frame)| *frame == ROTTEN);
        self.holes = lost.map(|(head, _)| head.id.index).collect();
    }
}

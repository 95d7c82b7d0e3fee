//! What can be done to hosts, and to the disks of their groups.

use super::{Coming, Groups, SITE_CRASH, SITE_VICTIM, looks, node_id, of_group, seats::Seat};
use crate::{
    client::Workload,
    disk::Survivors,
    network::{Connection, MEMBERS_WANTED, unwanted},
    oracle::{Checked, Violation},
    plan::{FaultKind, MS, Moment},
    world::{ARMED_MAX, Armed},
};
use lakebed::{Control, Engine, Event, GroupId, HostEvent, Membership, StateMachine};

impl<M: StateMachine, W: Workload> Groups<M, W> {
    /// Lets a planned fault strike. What strikes a disk strikes that of one group.
    pub fn strike(&mut self, fault: &FaultKind) -> Checked {
        self.note(None, None, || format!("fault: {fault}"));
        // Others wait for what they are to strike, and are counted then.
        let waits = matches!(
            fault,
            FaultKind::PowerCut { .. }
                | FaultKind::KillAndCut { .. }
                | FaultKind::Damage { .. }
                | FaultKind::Change { .. }
                | FaultKind::BackUp { .. }
        );
        if !waits {
            self.struck(fault.name());
        }
        match fault {
            FaultKind::PowerCut { .. } | FaultKind::KillAndCut { .. } => {
                Armed::of(fault).into_iter().for_each(|cut| self.arm(cut));
            }
            FaultKind::Damage { node, part, harm, pick, survivors, down } => {
                self.damage(*node, (*part, *harm, *pick), *survivors, *down);
            }
            FaultKind::DiskFull { node, .. } => self.fill_disks(*node),
            FaultKind::Change { steps } => return self.want_change(steps),
            FaultKind::Kill { node, down } => self.fell(*node, None, *down),
            FaultKind::Partition { side, both_ways, noticed, .. } => {
                self.partition(side, *both_ways, *noticed);
            }
            FaultKind::Isolated { node, noticed, .. } => self.isolate(*node, *noticed),
            FaultKind::Pause { node, lasts } => {
                let node = &mut self.nodes[*node];
                node.paused_until = node.paused_until.max(self.now + lasts);
            }
            FaultKind::SlowLink { from, to, bytes_per_ms, lasts } => {
                self.network.slow(*from, *to, *bytes_per_ms, self.now + lasts);
            }
            FaultKind::SlowDisk { node, factor, .. } => self.nodes[*node].slowness = *factor,
            FaultKind::SetClock { node, by_ms } => {
                self.nodes[*node].clock.step(by_ms * MS as i64);
            }
            FaultKind::StalledClock { node, lasts } => {
                self.nodes[*node].clock.stall(self.now, *lasts);
            }
            FaultKind::Tune { node, to } => {
                let tuning = Box::new(to.of(&self.plan.tuning));
                if let Some(group) = self.victim(*node) {
                    return self.feed(*node, [HostEvent::Group(group, Event::Tune(tuning))]);
                }
            }
            FaultKind::Stop { node, hand_over } => return self.stop(*node, *hand_over),
            FaultKind::Transfer { node } => return self.transfer(*node),
            FaultKind::SyncFailure { node, failure } => {
                if let Some(group) = self.victim(*node)
                    && let Some(seat) = self.nodes[*node].seats.get_mut(&group)
                {
                    seat.next_sync_fails = Some(*failure);
                }
            }
            FaultKind::FailedOperation { node, victim, error } => {
                if let Some(group) = self.victim(*node)
                    && let Some(seat) = self.nodes[*node].seats.get_mut(&group)
                {
                    seat.next_fails = Some((*victim, *error));
                }
            }
            FaultKind::HungDisk { node, .. } => {
                if let Some(group) = self.victim(*node)
                    && let Some(seat) = self.nodes[*node].seats.get_mut(&group)
                {
                    seat.hangs.get_or_insert_default();
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Ends a fault that lasts.
    pub fn relent(&mut self, fault: &FaultKind) {
        match fault {
            FaultKind::Partition { side, both_ways, .. } => self.unite(side, *both_ways),
            FaultKind::Isolated { node, .. } => self.readmit(*node),
            FaultKind::SlowDisk { node, .. } => self.nodes[*node].slowness = 1,
            FaultKind::DiskFull { node, .. } => self.empty_disks(*node),
            FaultKind::HungDisk { node, .. } => self.release_disks(*node),
            _ => {}
        }
    }

    /// Ends every fault.
    pub fn heal(&mut self) {
        self.note(None, None, || "heal".into());
        self.healed = Some(self.asked());
        self.armed.clear();
        self.network.heal();
        for node in 0..self.nodes.len() {
            self.nodes[node].slowness = 1;
            self.nodes[node].clock.go_on(self.now);
            for seat in self.nodes[node].seats.values_mut() {
                seat.next_fails = None;
                seat.next_sync_fails = None;
            }
            self.empty_disks(node);
            self.release_disks(node);
        }
        self.rejoin();
    }

    /// A group that a node has a disk of.
    pub(super) fn victim(&mut self, node: usize) -> Option<GroupId> {
        let seats: Vec<GroupId> = self.nodes[node].seats.keys().copied().collect();
        let draw = self.draws.lane(SITE_VICTIM, node as u32);
        (!seats.is_empty()).then(|| *draw.pick(&seats))
    }

    /// One group of a node stops and comes back, while the node goes on.
    fn stop(&mut self, node: usize, hand_over: bool) -> Checked {
        let Some(group) = self.victim(node) else { return Ok(()) };
        self.feed(node, [HostEvent::Group(group, Event::Stop { hand_over })])
    }

    /// A group's leadership is handed to a node that is a member of it.
    fn transfer(&mut self, node: usize) -> Checked {
        let Some(group) = self.victim(node) else { return Ok(()) };
        let Some(leader) = self.leader(group) else { return Ok(()) };
        self.order(leader, group, Control::Transfer { to: Some(node_id(node)) })
    }

    /// Somebody wants something of a group, and does not wait for what comes of it.
    pub(super) fn order(&mut self, at: usize, group: GroupId, control: Control) -> Checked {
        let asked = self.groups.get_mut(&group).expect("it is here");
        let (_, order) = asked.order(at, control);
        self.feed(at, [HostEvent::Group(group, order)])
    }

    // ---- falls that wait ---------------------------------------------------------------------

    fn arm(&mut self, cut: Armed) {
        let is_ready = cut.nodes.iter().any(|node| self.is_at(*node, cut.moment));
        self.armings += 1;
        let number = self.armings;
        self.armed.insert(number, cut);
        if is_ready {
            self.fall(number);
        } else {
            self.schedule(self.now + ARMED_MAX, Coming::ArmedCut { number });
        }
    }

    /// Whether the moment is there for one of a node's groups.
    fn is_at(&self, node: usize, moment: Moment) -> bool {
        let is_at = |seat: &Seat<M>| moment.is_of(&seat.disk);
        self.is_up(node) && self.nodes[node].seats.values().any(is_at)
    }

    /// As in the world of one group: what waits for this strikes.
    pub(super) fn strike_if_pending(&mut self, node: usize) {
        let meets = |cut: &Armed| cut.nodes.contains(&node) && self.is_at(node, cut.moment);
        let met = self.armed.iter().find(|(_, cut)| meets(cut)).map(|(number, _)| *number);
        if let Some(number) = met {
            self.fall(number);
        }
    }

    /// As in the world of one group: the moment did not come.
    pub(super) fn fall_late(&mut self, number: u64) {
        let Some(cut) = self.armed.get(&number) else { return };
        if cut.nodes.iter().any(|node| self.is_up(*node)) {
            self.fall(number);
        } else {
            self.schedule(self.now + ARMED_MAX, Coming::ArmedCut { number });
        }
    }

    fn fall(&mut self, number: u64) {
        let Some(cut) = self.armed.remove(&number) else { return };
        if cut.is_kill {
            self.struck("kill-and-cut");
            cut.nodes.iter().for_each(|node| self.fell(*node, None, cut.down));
            return self.arm(Armed { moment: Moment::Pending, is_kill: false, ..cut });
        }
        self.struck("power-cut");
        for node in cut.nodes {
            self.fell_with_rot(node, cut.survivors, cut.rot, cut.down);
        }
    }

    /// A node's power fails, or (`None`) its process is killed; it comes back.
    pub fn fell(&mut self, node: usize, survivors: Option<Survivors>, down: u64) {
        if self.nodes[node].host.is_none() {
            return;
        }
        self.die(node, survivors);
        let life = self.nodes[node].life;
        self.schedule(self.now + down, Coming::Start { node, life });
    }

    /// The same, and it stays down.
    pub fn die(&mut self, node: usize, survivors: Option<Survivors>) {
        self.note(Some(node), None, || format!("falls, survivors {survivors:?}"));
        let draw = self.disks.lane(SITE_CRASH, node as u32);
        let mut is_pending = false;
        for seat in self.nodes[node].seats.values_mut() {
            is_pending |= seat.disk.has_pending_sectors();
            match survivors {
                Some(survivors) => seat.disk.cut_power(survivors, draw),
                None => seat.disk.kill(draw),
            }
        }
        if survivors.is_some() {
            self.stats.crashes += 1;
            self.stats.crashes_with_writes_pending += u64::from(is_pending);
        } else {
            self.stats.kills += 1;
        }
        let groups: Vec<GroupId> = self.nodes[node].seats.keys().copied().collect();
        for group in groups {
            self.bury(node, group);
        }
        let gone = &mut self.nodes[node];
        let host = gone.host.take().expect("the node was up");
        self.counted = looks::sum(self.counted, host.counters());
        gone.paused_until = 0;
        gone.heard.forget();
        (gone.wake, gone.deadline) = (u64::MAX, None);
        self.network.want_nobody(node);
        for peer in 0..self.nodes.len() {
            self.network.disconnect(node, peer);
            self.schedule_link_down(peer, node);
        }
    }

    /// Starts a node that is down.
    pub fn restart(&mut self, node: usize) {
        let life = self.nodes[node].life;
        self.schedule(self.now, Coming::Start { node, life });
    }

    fn release_disks(&mut self, node: usize) {
        let held: Vec<_> = self.nodes[node]
            .seats
            .iter_mut()
            .flat_map(|(group, seat)| {
                let life = seat.life;
                let held = seat.hangs.take().unwrap_or_default();
                held.into_iter().map(move |op| (*group, life, op))
            })
            .collect();
        for (group, life, op) in held {
            self.schedule(self.now, Coming::Completion { node, group, life, op });
        }
    }

    // ---- connections -------------------------------------------------------------------------

    /// As in the world of one group.
    pub fn partition(&mut self, side: &[bool], both_ways: bool, noticed: bool) {
        let parted = self.network.divide(side, both_ways);
        for (from, to) in parted.into_iter().filter(|_| noticed) {
            self.break_connection(from, to);
        }
    }

    /// Ends one partition, whatever else divides the nodes. Its connections break that lost something
    /// unnoticed.
    fn unite(&mut self, side: &[bool], both_ways: bool) {
        for (from, to) in self.network.unite(side, both_ways) {
            self.break_connection(from, to);
        }
    }

    /// Ends all partitions.
    pub fn rejoin(&mut self) {
        for (node, peer) in self.network.rejoin() {
            self.break_connection(node, peer);
        }
    }

    fn isolate(&mut self, node: usize, noticed: bool) {
        self.network.isolate(node);
        for peer in 0..self.nodes.len() {
            if noticed && peer != node {
                self.break_connection(node, peer);
            }
        }
    }

    fn readmit(&mut self, node: usize) {
        self.network.readmit(node);
        for peer in 0..self.nodes.len() {
            if peer != node {
                self.break_connection(node, peer);
            }
        }
    }

    /// As in the world of one group.
    pub(super) fn want(&mut self, node: usize, members: &Membership) {
        for (peer, is_wanted) in self.network.want(node, members) {
            if is_wanted {
                self.schedule_link_up(node, peer);
                self.schedule_link_up(peer, node);
                continue;
            }
            if let Some(Connection { number, .. }) = self.network.connection(node, peer) {
                self.schedule(self.now, Coming::LinkDown { node, peer, number });
            }
            self.schedule_link_down(peer, node);
        }
    }

    /// Whoever is a member in force of one of a node's groups is one whom it wants to be connected
    /// with.
    pub(super) fn wants_its_members(&self, node: usize) -> Checked {
        let Some(host) = &self.nodes[node].host else { return Ok(()) };
        for group in host.touched() {
            // One that has halted is not there any more.
            let members = host.core(*group).and_then(Engine::membership);
            let Some(members) = members else { continue };
            if let Some(id) = self.network.unwanted(node, members) {
                let violation = Violation::new(MEMBERS_WANTED, node, unwanted(id, members));
                return Err(of_group(*group, violation));
            }
        }
        Ok(())
    }

    pub(super) fn break_connection(&mut self, a: usize, b: usize) {
        self.schedule_link_down(a, b);
        self.schedule_link_down(b, a);
    }

    fn schedule_link_down(&mut self, node: usize, peer: usize) {
        if let Some(Connection { number, .. }) = self.network.connection(node, peer) {
            let at = self.now + self.network.notice(node, peer);
            self.schedule(at, Coming::LinkDown { node, peer, number });
        }
    }

    pub(super) fn link_down(&mut self, node: usize, peer: usize, number: u64) -> Checked {
        if self.network.connection(node, peer).is_none_or(|own| own.number != number) {
            return Ok(());
        }
        self.network.disconnect(node, peer);
        self.schedule_link_up(node, peer);
        self.feed(node, [HostEvent::Link { peer: node_id(peer), up: false }])
    }

    /// A node that just started is met by whoever wants to be connected with it.
    pub(super) fn connect(&mut self, node: usize) {
        for peer in 0..self.nodes.len() {
            if peer != node {
                self.schedule_link_up(node, peer);
                self.schedule_link_up(peer, node);
            }
        }
    }

    fn schedule_link_up(&mut self, node: usize, peer: usize) {
        let lives = (self.nodes[node].life, self.nodes[peer].life);
        let at = self.now + self.network.notice(node, peer);
        self.schedule(at, Coming::LinkUp { node, peer, lives });
    }

    pub(super) fn link_up(&mut self, node: usize, peer: usize, lives: (u32, u32)) -> Checked {
        let are_up = self.lives(node, lives.0) && self.lives(peer, lives.1);
        if !are_up || !self.network.is_wanted(node, peer) {
            return Ok(());
        }
        if !self.network.is_whole(node, peer) {
            self.schedule_link_up(node, peer);
            return Ok(());
        }
        let id = node_id(peer);
        match self.network.connection(node, peer) {
            Some(connection) if connection.peer_life == lives.1 => return Ok(()),
            Some(_) => self.feed(node, [HostEvent::Link { peer: id, up: false }])?,
            None => {}
        }
        if !self.lives(node, lives.0) {
            // It fell over that.
            return Ok(());
        }
        self.network.connect(node, peer, lives.1);
        self.feed(node, [HostEvent::Link { peer: id, up: true }])
    }
}

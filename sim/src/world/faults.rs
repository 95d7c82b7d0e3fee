//! What can be done to a cluster: power, processes, connections, disks.

use super::{Coming, Fall, SITE_CRASH, World};
use crate::{
    client::Workload,
    disk::{Failure, SimDisk, Survivors, Victim},
    harm::rot_hard_state,
    network::{Connection, MEMBERS_WANTED},
    node::Lie,
    oracle::{Checked, Violation},
    plan::{FaultKind, MS, Moment},
};
use lakebed::{DiskError, Engine, Event, File, LogIndex, Membership, StateMachine};

/// How long an armed power cut waits for its moment, and then strikes all the same.
pub(crate) const ARMED_MAX: u64 = 200 * MS;

/// A fall that waits for its moment.
#[derive(Clone, Debug)]
pub(crate) struct Armed {
    pub(crate) nodes: Vec<usize>,
    pub(crate) moment: Moment,
    pub(crate) survivors: Survivors,
    pub(crate) rot: Option<u8>,
    /// At the moment it is the process that dies, and the power fails when it is back.
    pub(crate) is_kill: bool,
    pub(crate) down: u64,
}

impl Armed {
    /// The fall that a fault is; `None`: it is another one.
    pub(crate) fn of(fault: &FaultKind) -> Option<Self> {
        match fault {
            FaultKind::PowerCut { nodes, moment, survivors, rot, down } => Some(Self {
                nodes: nodes.clone(),
                moment: *moment,
                survivors: *survivors,
                rot: *rot,
                is_kill: false,
                down: *down,
            }),
            FaultKind::KillAndCut { node, moment, survivors, down } => Some(Self {
                nodes: vec![*node],
                moment: *moment,
                survivors: *survivors,
                rot: None,
                is_kill: true,
                down: *down,
            }),
            _ => None,
        }
    }
}

impl Moment {
    /// Whether a disk is at it.
    pub(crate) fn is_of(self, disk: &SimDisk) -> bool {
        match self {
            Self::Pending => disk.has_pending_sectors(),
            Self::PendingHardState => disk.has_pending_sectors_of(File::HardState),
            Self::PendingName => disk.has_pending_names(),
        }
    }
}

impl<M: StateMachine, W: Workload> World<M, W> {
    /// Lets a planned fault strike.
    pub fn strike(&mut self, fault: &FaultKind) -> Checked {
        self.begin_fault(fault)?;
        self.fall_due();
        Ok(())
    }

    fn begin_fault(&mut self, fault: &FaultKind) -> Checked {
        self.note(None, || format!("fault: {fault}"));
        // Others wait for what they are to strike, and are counted then.
        let waits = matches!(
            fault,
            FaultKind::PowerCut { .. }
                | FaultKind::KillAndCut { .. }
                | FaultKind::PowerCutAt { .. }
                | FaultKind::KillAt { .. }
                | FaultKind::FailAt { .. }
                | FaultKind::Flip { .. }
                | FaultKind::SyncFailure { .. }
                | FaultKind::UnheardFailure { .. }
                | FaultKind::FailedOperation { .. }
                | FaultKind::Damage { .. }
                | FaultKind::Ruin { .. }
                | FaultKind::Rot { .. }
                | FaultKind::LostWrite { .. }
                | FaultKind::MisdirectedWrite { .. }
                | FaultKind::MisfiledWrite { .. }
                | FaultKind::LostNames { .. }
                | FaultKind::LateReport { .. }
                | FaultKind::MisdirectedRead { .. }
                | FaultKind::OldImage { .. }
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
            FaultKind::PowerCutAt { node, step, outcome, rot, down } => {
                self.plan_fall(*node, *step, Fall::Power(*outcome, *rot), *down);
            }
            FaultKind::KillAt { node, step, down } => {
                self.plan_fall(*node, *step, Fall::Kill, *down);
            }
            FaultKind::FailAt { node, operation, mishap } => {
                self.nodes[*node].mishaps.insert(*operation, *mishap);
            }
            FaultKind::Flip { node, file, bit, down } => {
                self.fell(*node, Survivors::None, *down);
                self.flip(*node, *file, *bit);
            }
            FaultKind::Kill { node, down } => {
                if self.nodes[*node].is_up() {
                    self.kill(*node);
                    self.schedule_start(*node, *down);
                }
            }
            FaultKind::Partition { side, both_ways, noticed, .. } => {
                self.partition(side, *both_ways, *noticed);
            }
            FaultKind::BackUp { node, pause } => self.begin_backup(*node, *pause)?,
            FaultKind::Transfer { node } => {
                if let Some(leader) = self.leading() {
                    self.hand_over(leader, Some(*node))?;
                }
            }
            FaultKind::Change { steps } => self.want_change(steps)?,
            FaultKind::Tune { node, to } => {
                let tuning = to.of(&self.tuning(*node));
                self.feed(*node, Some(Event::Tune(Box::new(tuning))))?;
            }
            FaultKind::Times { to } => {
                self.times = *to;
                for node in 0..self.nodes.len() {
                    let tuning = self.tuning(node);
                    self.feed(node, Some(Event::Tune(Box::new(tuning))))?;
                }
            }
            FaultKind::SyncFailure { node, failure } => self.fail_next_sync(*node, *failure),
            FaultKind::UnheardFailure { node, given, down } => {
                self.nodes[*node].next_unheard = Some((*given, *down));
            }
            FaultKind::DiskFull { node, .. } => self.fill_disk(*node),
            FaultKind::SlowDisk { node, factor, .. } => self.nodes[*node].slowness = *factor,
            FaultKind::Stop { node, hand_over } => {
                self.feed(*node, Some(Event::Stop { hand_over: *hand_over }))?;
            }
            FaultKind::HungDisk { node, .. } => self.hang_disk(*node),
            FaultKind::FailedOperation { node, victim, error } => {
                self.fail_next(*node, *victim, *error);
            }
            FaultKind::Pause { node, lasts } => self.pause(*node, *lasts),
            FaultKind::SetClock { node, by_ms } => {
                self.step_wall_clock(*node, by_ms * MS as i64);
            }
            FaultKind::StalledClock { node, lasts } => self.stall_clock(*node, *lasts),
            FaultKind::Isolated { node, noticed, .. } => self.isolate(*node, *noticed),
            FaultKind::Damage { node, part, harm, pick, survivors, down } => {
                self.fell(*node, *survivors, *down);
                self.damage(*node, *part, *harm, *pick);
            }
            FaultKind::Ruin { node, harm, pick, down } => {
                self.fell(*node, Survivors::Random, *down);
                self.ruin(*node, *harm, *pick);
            }
            FaultKind::Rot { node, part, pick } => {
                self.rot(*node, *part, *pick);
            }
            FaultKind::LostWrite { node } => self.lie_next(*node, Lie::Lost),
            FaultKind::MisdirectedWrite { node, pick } => {
                self.lie_next(*node, Lie::Elsewhere(*pick));
            }
            FaultKind::MisfiledWrite { node, pick } => self.lie_next(*node, Lie::Misfiled(*pick)),
            FaultKind::LostNames { node } => self.lie_next(*node, Lie::Names),
            FaultKind::LateReport { node, failure } => self.lie_next(*node, Lie::Late(*failure)),
            FaultKind::MisdirectedRead { node, after, pick } => {
                self.nodes[*node].scars.misread = Some((*after, *pick));
            }
            FaultKind::OldImage { node, .. } => self.take_image(*node),
            FaultKind::DiskGone { node, formatted, down } => {
                self.fell(*node, Survivors::None, *down);
                self.empty_disk(*node, *formatted);
            }
            FaultKind::SlowLink { from, to, bytes_per_ms, lasts } => {
                self.network.slow(*from, *to, *bytes_per_ms, self.now + lasts);
            }
        }
        Ok(())
    }

    /// Ends a fault that lasts.
    pub fn relent(&mut self, fault: &FaultKind) {
        match fault {
            FaultKind::Partition { side, both_ways, .. } => self.unite(side, *both_ways),
            FaultKind::DiskFull { node, .. } => self.nodes[*node].disk.set_room(u64::MAX),
            FaultKind::SlowDisk { node, .. } => self.nodes[*node].slowness = 1,
            FaultKind::HungDisk { node, .. } => self.release_disk(*node),
            FaultKind::Isolated { node, .. } => self.readmit(*node),
            FaultKind::OldImage { node, down, .. } => self.put_image_back(*node, *down),
            _ => {}
        }
    }

    /// Ends every fault, and starts whoever is down.
    pub fn heal(&mut self) {
        self.note(None, || "heal".into());
        self.healed = Some(self.asked());
        self.armed.clear();
        self.network.heal();
        for node in 0..self.nodes.len() {
            self.nodes[node].disk.set_room(u64::MAX);
            self.nodes[node].slowness = 1;
            self.nodes[node].falls.clear();
            self.nodes[node].mishaps.clear();
            self.nodes[node].next_sync_fails = None;
            self.nodes[node].next_fails = None;
            (self.nodes[node].next_unheard, self.nodes[node].unheard) = (None, None);
            (self.nodes[node].scars.lie, self.nodes[node].scars.misread) = (None, None);
            self.nodes[node].disk.forget_late_failures();
            self.nodes[node].clock.go_on(self.now);
            self.release_disk(node);
        }
        self.rejoin();
    }

    /// Cuts the power of a node now; it stays down.
    pub fn cut_power(&mut self, node: usize, survivors: Survivors) {
        if !self.nodes[node].is_up() {
            return;
        }
        let draw = self.disks.lane(SITE_CRASH, node as u32);
        let disk = &mut self.nodes[node].disk;
        self.stats.crashes += 1;
        self.stats.crashes_with_writes_pending += u64::from(disk.has_pending_sectors());
        disk.cut_power(survivors, draw);
        self.note(Some(node), || format!("power cut, survivors {survivors:?}"));
        self.buried(node);
    }

    /// Damages one of the two copies of a hard state, all of it.
    pub fn rot_hard_state(&mut self, node: usize, copy: u8) {
        rot_hard_state(&mut self.nodes[node].disk, copy);
        self.nodes[node].scars.is_rotten = true;
        self.stats.disk_failures += 1;
        self.note(Some(node), || format!("copy {copy} of the hard state rots"));
    }

    /// Kills a node's process now; its kernel lives, and it stays down.
    pub fn kill(&mut self, node: usize) {
        if !self.nodes[node].is_up() {
            return;
        }
        self.stats.kills += 1;
        self.nodes[node].disk.kill(self.disks.lane(SITE_CRASH, node as u32));
        self.note(Some(node), || "killed".into());
        self.buried(node);
    }

    /// Starts a node that is down.
    pub fn restart(&mut self, node: usize) {
        assert!(!self.nodes[node].is_up(), "node {} is up", node + 1);
        self.schedule_start(node, 0);
    }

    /// Separates the nodes of the first side from the others; `both_ways`: in both directions,
    /// else the second side does not hear the first.
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

    /// Ends all partitions. Connections that lost something unnoticed break now.
    pub fn rejoin(&mut self) {
        for (node, peer) in self.network.rejoin() {
            self.break_connection(node, peer);
        }
    }

    /// A node hears nobody and nobody hears it.
    pub fn isolate(&mut self, node: usize, noticed: bool) {
        self.network.isolate(node);
        for peer in 0..self.nodes.len() {
            if noticed && peer != node {
                self.break_connection(node, peer);
            }
        }
    }

    /// Two nodes do not hear each other, and believe that they are connected.
    pub(crate) fn part(&mut self, a: usize, b: usize) {
        self.network.part(a, b);
    }

    /// A node that was alone is so no longer. Connections that lost something break now.
    pub fn readmit(&mut self, node: usize) {
        self.network.readmit(node);
        for peer in 0..self.nodes.len() {
            if peer != node {
                self.break_connection(node, peer);
            }
        }
    }

    /// Makes the next sync or durable write of a node fail.
    pub fn fail_next_sync(&mut self, node: usize, failure: Failure) {
        self.nodes[node].next_sync_fails = Some(failure);
    }

    /// Makes the next such operation of a node fail with this error, with a part of its effect.
    pub fn fail_next(&mut self, node: usize, victim: Victim, error: DiskError) {
        self.nodes[node].next_fails = Some((victim, error));
    }

    /// Takes all free room from a node's disk.
    pub fn fill_disk(&mut self, node: usize) {
        let disk = &mut self.nodes[node].disk;
        disk.set_room(disk.used());
    }

    /// A disk takes everything and ends nothing, until it is released; a restart does not help.
    pub fn hang_disk(&mut self, node: usize) {
        self.nodes[node].hangs.get_or_insert_default();
    }

    /// A disk that hung ends what it was given, and serves again.
    pub fn release_disk(&mut self, node: usize) {
        let life = self.nodes[node].life;
        for op in self.nodes[node].hangs.take().into_iter().flatten() {
            self.schedule(self.now, Coming::Completion { node, life, op });
        }
    }

    /// A process stands still for so long, and its clock goes on: what is sent to it, and what its
    /// disk has done, it sees afterwards. If it stands still already, until the later end.
    pub fn pause(&mut self, node: usize, lasts: u64) {
        let (until, node) = (self.now + lasts, &mut self.nodes[node]);
        if node.is_up() && until > node.paused_until {
            if node.paused_until > self.now {
                node.heard.put_off(node.paused_until, until);
            }
            node.paused_until = until;
        }
    }

    /// A node's wall clock is set forward or back by so many nanoseconds; the clock that its
    /// timers go by is not.
    pub fn step_wall_clock(&mut self, node: usize, nanos: i64) {
        self.nodes[node].clock.step(nanos);
    }

    /// The clock that a node's timers go by stands still for so long, then goes on from there.
    pub fn stall_clock(&mut self, node: usize, lasts: u64) {
        self.nodes[node].clock.stall(self.now, lasts);
    }

    fn arm(&mut self, cut: Armed) {
        let number = self.agenda.count();
        let ready = cut.nodes.iter().any(|&node| self.is_at(node, cut.moment));
        self.armed.insert(number, cut);
        if ready {
            self.fall(number);
        } else {
            self.schedule(self.now + ARMED_MAX, Coming::ArmedCut { number });
        }
    }

    fn is_at(&self, node: usize, moment: Moment) -> bool {
        self.nodes[node].is_up() && moment.is_of(&self.nodes[node].disk)
    }

    /// A node has sectors pending, perhaps: then a power cut that waits for it strikes. Another
    /// one that waits for the same goes on waiting, as the node is down now.
    pub(super) fn strike_if_pending(&mut self, node: usize) {
        let meets = |cut: &Armed| cut.nodes.contains(&node) && self.is_at(node, cut.moment);
        let met = self.armed.iter().find(|(_, cut)| meets(cut)).map(|(number, _)| *number);
        if let Some(number) = met {
            self.fall(number);
        }
    }

    /// The moment of an armed cut did not come, and it strikes at whatever is there. Machines that
    /// are all down cannot lose power: then it waits on, or it would be spent on nobody.
    pub(super) fn fall_late(&mut self, number: u64) {
        let Some(cut) = self.armed.get(&number) else { return };
        if cut.nodes.iter().any(|&node| self.nodes[node].is_up()) {
            self.fall(number);
        } else {
            self.schedule(self.now + ARMED_MAX, Coming::ArmedCut { number });
        }
    }

    fn fall(&mut self, number: u64) {
        let Some(cut) = self.armed.remove(&number) else { return };
        if cut.is_kill {
            return self.kill_and_cut(cut);
        }
        self.struck("power-cut");
        for node in cut.nodes {
            if self.nodes[node].is_up() {
                // Until its disk was judged a node may have but one whole copy.
                let rot = cut.rot.filter(|_| self.probe(node).is_some_and(|probe| probe.judged));
                self.cut_power(node, cut.survivors);
                rot.inspect(|copy| self.rot_hard_state(node, *copy));
                self.schedule_start(node, cut.down);
            }
        }
    }

    fn kill_and_cut(&mut self, cut: Armed) {
        self.struck("kill-and-cut");
        for &node in &cut.nodes {
            self.kill(node);
            self.schedule_start(node, cut.down);
        }
        self.arm(Armed { moment: Moment::Pending, is_kill: false, ..cut });
    }

    /// What follows for the others when a node is gone.
    pub(super) fn buried(&mut self, node: usize) {
        let engine = self.nodes[node].engine.as_ref().expect("the node was up");
        self.marks.add(engine.status().marks);
        let term = engine.probe().term;
        self.nodes[node].scars.term = self.nodes[node].scars.term.max(term);
        // What it decided may be a mark on its disk by now; what else befalls that until the next start, nobody knows.
        let scars = &mut self.nodes[node].scars;
        scars.misread_to = scars.misread_to.map(|_| LogIndex(0));
        scars.has_failed = false;
        self.nodes[node].stop();
        self.oracle.on_death(node);
        self.network.want_nobody(node);
        for peer in 0..self.nodes.len() {
            self.network.disconnect(node, peer);
            self.schedule_link_down(peer, node);
        }
        self.abandon_requests(node);
    }

    /// A node has said whom it wants to be connected with: it closes what it wants no longer, at once,
    /// and its peer notices some time. A guest that it never wanted stays.
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

    /// Whoever is a member in force is one whom a node wants to be connected with, there where it is.
    pub(super) fn wants_its_members(&mut self, node: usize) -> Checked {
        let members = self.nodes[node].engine.as_ref().and_then(Engine::membership);
        let Some(members) = members else { return Ok(()) };
        match self.network.lacks(node, members) {
            Some(what) => Err(Violation::new(MEMBERS_WANTED, node, what)),
            None => Ok(()),
        }
    }

    /// A connection breaks: both ends notice some time, and make a new one if they can.
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
        self.feed(node, Some(Event::Link { peer: super::node_id(peer), up: false }))
    }

    /// A node that just started is met by whoever wants to be connected with it; whom it wants
    /// itself it says later.
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
            // Tried again until somebody answers, as a driver does.
            self.schedule_link_up(node, peer);
            return Ok(());
        }
        let id = super::node_id(peer);
        match self.network.connection(node, peer) {
            Some(connection) if connection.peer_life == lives.1 => return Ok(()),
            // Believed whole, it led to the peer's older life: what was sent on it may be lost.
            Some(_) => self.feed(node, Some(Event::Link { peer: id, up: false }))?,
            None => {}
        }
        if !self.lives(node, lives.0) {
            // It fell over that.
            return Ok(());
        }
        self.network.connect(node, peer, lives.1);
        self.feed(node, Some(Event::Link { peer: id, up: true }))
    }
}

//! The simulated disks, as a plugin of madsim: a machine that is killed loses what its disk had not
//! made durable, as the next death was drawn.
//!
//! The bytes and what survives of them are [`SimDisk`]'s, the one of the fast simulator; here is
//! when operations end, and that a driver is told. Invariant: a process is never told of an
//! operation of the one before it.

use crate::time::{Alarm, now};
use lakebed::{Class, DiskError, DiskRequest, Event, File, OpId};
use lakebed_runtime::Disk;
use lakebed_sim::{
    disk::{Failure, SimDisk, Survivors, Victim},
    plan::{DiskTimes, Latency, Plan},
    prng::{Concern, Stream},
};
use madsim::{plugin::Simulator, rand::GlobalRng, task::NodeId as MachineId, time::TimeHandle};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Waker},
};
use tokio::sync::Notify;

/// Sites of draws.
const SITE_READ: u32 = 1;
const SITE_WRITE: u32 = 2;
const SITE_SYNC: u32 = 3;
const SITE_CRASH: u32 = 4;
const SITE_PARTLY: u32 = 5;

/// How far apart the two copies of a hard state begin (docs/disk-format.md).
const COPY_BYTES: u64 = 1 << 20;

/// How a process ends when its machine is killed next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Death {
    /// The machine loses power.
    PowerCut(Survivors),
    /// The kernel lives.
    Kill,
}

/// Every machine's disk: a plugin of madsim's runtime, which must be registered.
#[derive(Default)]
pub(crate) struct Disks {
    devices: Mutex<BTreeMap<u64, Device>>,
    submitted: Arc<Notify>,
}

impl Simulator for Disks {
    fn new(_: &GlobalRng, _: &TimeHandle, _: &madsim::Config) -> Self {
        Self::default()
    }

    fn reset_node(&self, machine: MachineId) {
        if let Some(device) = self.devices().get(&id(machine)) {
            device.state().die();
        }
    }
}

impl Disks {
    /// Puts a disk into a machine.
    pub(crate) fn install(&self, machine: MachineId, device: Device) {
        device.state().submitted = Arc::clone(&self.submitted);
        self.devices().insert(id(machine), device);
    }

    /// Waits until any of them takes an operation.
    pub(crate) async fn submitted(&self) {
        self.submitted.notified().await;
    }

    fn devices(&self) -> MutexGuard<'_, BTreeMap<u64, Device>> {
        self.devices.lock().expect("nothing panics while it holds the disks")
    }
}

/// A number that orders machines: madsim's id shows it and does not give it away.
fn id(machine: MachineId) -> u64 {
    machine.to_string().parse().expect("madsim's ids are numbers")
}

/// What happened to a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) operations: u64,
    pub(crate) power_cuts: u64,
    pub(crate) power_cuts_with_writes_pending: u64,
    pub(crate) kills: u64,
    pub(crate) failures: u64,
}

/// A machine's disk; clones are the same one.
#[derive(Clone)]
pub(crate) struct Device(Arc<Mutex<State>>);

struct State {
    disk: SimDisk,
    times: DiskTimes,
    at: u32,
    draws: Stream,
    /// Rises with each death; what belongs to an older life is ignored.
    life: u32,
    /// When operations end, and which.
    ends: BTreeSet<(u64, OpId)>,
    slowness: u64,
    /// Nothing ends.
    hangs: bool,
    death: Death,
    next_fails: Option<(Victim, DiskError)>,
    next_sync_fails: Option<Failure>,
    has_rotted: bool,
    /// Promises that are kept in words only: what this disk is broken on purpose by.
    forgets_syncs: bool,
    waker: Option<Waker>,
    submitted: Arc<Notify>,
    counts: Counts,
}

impl Device {
    /// The disk of this machine, empty.
    pub(crate) fn new(plan: &Plan, at: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            disk: SimDisk::new(plan.geometry),
            times: plan.disk,
            at: at as u32,
            draws: Stream::new(plan.seed, Concern::Disk),
            life: 0,
            ends: BTreeSet::new(),
            slowness: 1,
            hangs: false,
            death: Death::PowerCut(Survivors::None),
            next_fails: None,
            next_sync_fails: None,
            has_rotted: false,
            forgets_syncs: false,
            waker: None,
            submitted: Arc::default(),
            counts: Counts::default(),
        })))
    }

    /// For one process.
    pub(crate) fn open(&self) -> NodeDisk {
        let life = self.state().life;
        NodeDisk { device: self.clone(), life, alarm: Alarm::default() }
    }

    /// Whether a node was ever formatted on it.
    pub(crate) fn is_formatted(&self) -> bool {
        self.state().disk.list().any(|(file, _)| file == File::HardState)
    }

    /// Whether a power cut now may lose sectors: of the hard state, or any.
    pub(crate) fn has_pending(&self, hard_state: bool) -> bool {
        let state = self.state();
        if hard_state {
            state.disk.has_pending_sectors_of(File::HardState)
        } else {
            state.disk.has_pending_sectors()
        }
    }

    /// How the process that uses it dies, if it is killed next.
    pub(crate) fn dies_by(&self, death: Death) {
        self.state().death = death;
    }

    /// One copy of the hard state rots, of all of this disk's life: a second time it might be the
    /// other one, before the first was mended.
    pub(crate) fn rot_hard_state(&self, copy: u8) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.has_rotted, true) {
            let range = [0..COPY_BYTES, COPY_BYTES..u64::MAX][usize::from(copy)].clone();
            state.disk.rot(File::HardState, range);
        }
    }

    pub(crate) fn set_room(&self, bytes: u64) {
        self.state().disk.set_room(bytes);
    }

    pub(crate) fn used(&self) -> u64 {
        self.state().disk.used()
    }

    pub(crate) fn set_slowness(&self, factor: u64) {
        self.state().slowness = factor;
    }

    pub(crate) fn hang(&self) {
        self.state().hangs = true;
    }

    pub(crate) fn go_on(&self) {
        let mut state = self.state();
        state.hangs = false;
        state.wake();
    }

    pub(crate) fn fail_next(&self, victim: Victim, error: DiskError) {
        self.state().next_fails = Some((victim, error));
    }

    pub(crate) fn fail_next_sync(&self, failure: Failure) {
        self.state().next_sync_fails = Some(failure);
    }

    /// From now on it says of every sync that it is done, and does nothing.
    pub(crate) fn forget_syncs(&self) {
        self.state().forgets_syncs = true;
    }

    /// Nothing fails any more.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.disk.set_room(u64::MAX);
        (state.slowness, state.hangs) = (1, false);
        (state.next_fails, state.next_sync_fails) = (None, None);
        state.wake();
    }

    pub(crate) fn counts(&self) -> Counts {
        self.state().counts
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds a disk")
    }
}

impl State {
    fn die(&mut self) {
        let draw = self.draws.lane(SITE_CRASH, self.at);
        match self.death {
            Death::PowerCut(survivors) => {
                self.counts.power_cuts += 1;
                let pending = u64::from(self.disk.has_pending_sectors());
                self.counts.power_cuts_with_writes_pending += pending;
                self.disk.cut_power(survivors, draw);
            }
            Death::Kill => {
                self.counts.kills += 1;
                self.disk.kill(draw);
            }
        }
        self.death = Death::PowerCut(Survivors::None);
        self.life += 1;
        self.ends.clear();
        self.waker = None;
        self.next_sync_fails = None;
        // A sector that cannot be read waits for whoever reads next.
        self.next_fails.take_if(|(victim, _)| *victim != Victim::Read);
    }

    fn submit(&mut self, op: OpId, request: DiskRequest) {
        self.counts.operations += 1;
        let (site, Latency { least, tail }) = match &request {
            DiskRequest::Sync { .. }
            | DiskRequest::SyncDirectory
            | DiskRequest::Create { .. }
            | DiskRequest::Write { durable: true, .. } => (SITE_SYNC, self.times.sync),
            DiskRequest::Write { .. } => (SITE_WRITE, self.times.write),
            _ => (SITE_READ, self.times.read),
        };
        let lasts = self.draws.lane(site, self.at).delay(least, tail) * self.slowness;
        self.disk.submit(op, request);
        self.ends.insert((now() + lasts, op));
        self.submitted.notify_waiters();
    }

    fn end(&mut self, op: OpId) -> Event {
        let disk = &mut self.disk;
        let is_promise = disk.is_promise(op);
        let fails = self.next_sync_fails.take_if(|_| is_promise);
        let breaks = self.next_fails.take_if(|(victim, _)| disk.is_a(op, *victim));
        self.counts.failures += u64::from(fails.is_some() || breaks.is_some());
        let result = match (fails, breaks) {
            (Some(failure), _) => disk.fail(op, failure),
            (None, Some((Victim::Read, error))) => disk.fail(op, Failure::Nothing(error)),
            (None, Some((_, error))) => {
                disk.fail_partly(op, error, self.draws.lane(SITE_PARTLY, self.at))
            }
            (None, None) if self.forgets_syncs && is_promise => {
                // The cache has it, and nothing writes it back.
                let _ = disk.fail(op, Failure::CleanKeep);
                Ok(lakebed::Completion::Done)
            }
            (None, None) => disk.complete(op),
        };
        Event::Completed { op, result }
    }

    fn wake(&mut self) {
        self.waker.take().into_iter().for_each(Waker::wake);
    }
}

/// A disk, as one process sees it.
pub(crate) struct NodeDisk {
    device: Device,
    life: u32,
    alarm: Alarm,
}

impl NodeDisk {
    /// `None`: this process is dead, and only has not gone yet.
    fn state(&self) -> Option<MutexGuard<'_, State>> {
        let state = self.device.state();
        (state.life == self.life).then_some(state)
    }
}

impl Disk for NodeDisk {
    fn submit(&mut self, op: OpId, _: Class, request: DiskRequest) {
        if let Some(mut state) = self.state() {
            state.submit(op, request);
        }
    }

    fn flush(&mut self) {}

    fn poll_completed(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) {
        let Some(mut state) = self.state() else { return };
        state.waker = Some(cx.waker().clone());
        if state.hangs {
            return;
        }
        let now = now();
        while let Some(&(at, op)) = state.ends.first()
            && at <= now
        {
            state.ends.pop_first();
            events.push(state.end(op));
        }
        let next = state.ends.first().map(|(at, _)| *at);
        drop(state);
        if let Some(at) = next {
            self.alarm.set(cx, at);
        }
    }

    fn is_idle(&self) -> bool {
        self.state().is_none_or(|state| state.ends.is_empty())
    }
}

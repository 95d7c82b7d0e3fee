//! A disk on the kernel's queues: writes around the page cache, many in flight, and one
//! `fdatasync` in flight for each file, for all that completed meanwhile.
//!
//! Writes are begun and synced by the driver's own thread: no other is woken. Names and new files
//! are the business of a [`Lane`]. Invariant: a durable write ends after a sync that began when
//! both its places were written.

use super::{
    ALIGN, Ending,
    gate::Gate,
    lane::{Done, Job, Lane},
    open_direct,
    place::Place,
    uring::{Ended, Ring},
    zeros,
};
use crate::driver::Disk;
use bytes::Bytes;
use lakebed::{
    Class, Completion, DiskError, DiskRequest, Event, Extent, File, OpId,
    files::{Directory, disk_error},
};
use rustix::io::Errno;
use slab::Slab;
use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, OpenOptions},
    io,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::io::unix::AsyncFd;

/// The most operations of each class in flight.
const IN_FLIGHT_MAX: [usize; 3] = [128, 32, 4];
/// Files that are kept open.
const HANDLES_MAX: usize = 64;
/// Of what nobody waits for, while commits are in flight.
const YIELDING_MAX: usize = 1;

/// [`Disk`] by `io_uring`.
pub struct UringDisk {
    ring: AsyncFd<Ring>,
    directory: Arc<Directory>,
    lane: Lane,
    /// What the lane has done.
    done: Arc<Done>,
    gate: Arc<Gate>,
    /// What the gate was told last.
    gate_busy: bool,
    /// Operations that were submitted and not begun, by class.
    waiting: [VecDeque<Job>; 3],
    /// How many are in flight, by class.
    in_flight: [usize; 3],
    flights: Slab<Flight>,
    handles: BTreeMap<File, Handles>,
    syncs: BTreeMap<File, Syncs>,
    /// Files whose names the lane is changing: their descriptors are stale when it is done.
    names: BTreeMap<OpId, [Option<File>; 2]>,
    ended: Vec<Event>,
    /// Kept for its room.
    transfers: Vec<Ended>,
    /// Operations that have not been told as ended.
    open: usize,
}

/// Whose transfers are under way.
enum Flight {
    Write(Write),
    Read(OpId, Class),
    Sync(File, Vec<(OpId, Class)>),
}

struct Write {
    op: OpId,
    class: Class,
    file: File,
    durable: bool,
    /// Places that are not written yet.
    places: u8,
    failed: Option<DiskError>,
}

/// The descriptors of a file.
#[derive(Clone)]
struct Handles {
    cached: Arc<fs::File>,
    /// Around the page cache; `None` where the file system has no such thing.
    direct: Option<Arc<fs::File>>,
}

/// The operations that wait for a sync of a file, or will.
struct Syncs {
    handle: Arc<fs::File>,
    running: bool,
    ready: Vec<(OpId, Class)>,
    /// Durable writes under way.
    writing: usize,
}

impl Syncs {
    /// Writes that were begun together end together, or nearly so. Were the first to end synced
    /// alone, all the others would wait for that sync and then for their own.
    const fn is_due(&self) -> bool {
        !self.running && !self.ready.is_empty() && self.ready.len() >= self.writing
    }

    const fn is_idle(&self) -> bool {
        !self.running && self.ready.is_empty() && self.writing == 0
    }
}

impl UringDisk {
    /// Drives this directory, or gives it back where the kernel does not allow this, or the file system
    /// takes no writes around its cache though it says so. Must be called within a tokio runtime.
    pub fn new(directory: Directory) -> Result<Self, (Directory, io::Error)> {
        let ring = match Ring::new().and_then(Ring::watch) {
            Ok(ring) => ring,
            Err(error) => return Err((directory, error)),
        };
        if !zeros::takes_direct(&directory) {
            return Err((directory, Errno::INVAL.into()));
        }
        // What is read and written goes through descriptors of its own: those would be kept twice.
        let directory = Arc::new(directory.with_open_files(1));
        let (done, gate) = (Arc::new(Done::default()), Arc::new(Gate::default()));
        let place: Arc<dyn Place> = Arc::<Directory>::clone(&directory);
        let lane = Lane::new("lakebed-disk", place, Arc::clone(&gate), Arc::clone(&done));
        let lane = match lane {
            Ok(lane) => lane,
            Err(error) => {
                let directory = Arc::into_inner(directory).expect("the lane did not begin");
                return Err((directory.with_open_files(HANDLES_MAX), error));
            }
        };
        Ok(Self {
            ring,
            directory,
            lane,
            done,
            gate,
            gate_busy: false,
            waiting: Default::default(),
            in_flight: [0; 3],
            flights: Slab::new(),
            handles: BTreeMap::new(),
            syncs: BTreeMap::new(),
            names: BTreeMap::new(),
            ended: Vec::new(),
            transfers: Vec::new(),
            open: 0,
        })
    }
}

impl Disk for UringDisk {
    fn submit(&mut self, op: OpId, class: Class, request: DiskRequest) {
        self.open += 1;
        let job = Job { op, class, request };
        let names = match job.request {
            DiskRequest::Read { .. } | DiskRequest::Write { .. } | DiskRequest::Sync { .. } => {
                return self.waiting[class as usize].push_back(job);
            }
            DiskRequest::List | DiskRequest::SyncDirectory => [None, None],
            DiskRequest::Create { file, .. } => [Some(file), None],
            DiskRequest::Remove { file } => {
                // Were it open here still, the driver's own thread would give its room back, all at once.
                self.handles.remove(&file);
                [Some(file), None]
            }
            DiskRequest::Rename { from, to } => [Some(from), Some(to)],
        };
        self.names.insert(op, names);
        self.lane.push(job);
    }

    fn flush(&mut self) {
        for class in [Class::Commit, Class::Serve, Class::Background] {
            self.begin_waiting(class);
        }
        self.begin_syncs();
        self.ring.get_mut().submit();
        if self.gate_busy != self.is_committing() {
            self.gate_busy = self.is_committing();
            self.gate.set_busy(self.gate_busy);
        }
    }

    fn poll_completed(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) {
        loop {
            while self.reap() {
                self.flush();
            }
            match self.ring.poll_read_ready(cx) {
                Poll::Ready(Ok(mut ready)) => ready.clear_ready(),
                Poll::Ready(Err(error)) => panic!("the runtime gave the disk up: {error}"),
                Poll::Pending => break,
            }
        }
        let before = self.ended.len();
        self.done.take(cx.waker(), &mut self.ended);
        for at in before..self.ended.len() {
            self.forget_names(at);
        }
        self.open -= self.ended.len();
        events.append(&mut self.ended);
    }

    fn is_idle(&self) -> bool {
        self.open == 0
    }
}

impl UringDisk {
    const fn is_committing(&self) -> bool {
        self.in_flight[Class::Commit as usize] > 0
    }

    fn begin_waiting(&mut self, class: Class) {
        let yields = class == Class::Background && self.is_committing();
        let most = if yields { YIELDING_MAX } else { IN_FLIGHT_MAX[class as usize] };
        while self.in_flight[class as usize] < most && self.ring.get_ref().has_room(2) {
            let Some(job) = self.waiting[class as usize].pop_front() else { return };
            self.in_flight[class as usize] += 1;
            let (op, class) = (job.op, job.class);
            if let Err(error) = self.begin(job) {
                self.end(op, class, Err(error));
            }
        }
    }

    fn begin(&mut self, Job { op, class, request }: Job) -> Result<(), DiskError> {
        match request {
            DiskRequest::Write { file, at, and, durable } => {
                let handles = self.handles(file)?;
                if durable {
                    self.syncs(file, &handles).writing += 1;
                }
                let places = 1 + u8::from(and.is_some());
                let write = Write { op, class, file, durable, places, failed: None };
                let flight = self.flights.insert(Flight::Write(write));
                for extent in [Some(at), and].into_iter().flatten() {
                    self.write(flight, &handles, extent);
                }
            }
            DiskRequest::Read { file, offset, len } => {
                let handles = self.handles(file)?;
                let flight = self.flights.insert(Flight::Read(op, class));
                self.ring.get_mut().read(flight, handles.cached, offset, len as usize);
            }
            DiskRequest::Sync { file } => {
                let handles = self.handles(file)?;
                self.syncs(file, &handles).ready.push((op, class));
            }
            _ => unreachable!("names are the lane's"),
        }
        Ok(())
    }

    fn write(&mut self, flight: usize, handles: &Handles, extent: Extent) {
        let aligned = (extent.offset | extent.len()).is_multiple_of(ALIGN as u64);
        let direct = handles.direct.as_ref().filter(|_| aligned);
        let file = Arc::clone(direct.unwrap_or(&handles.cached));
        self.ring.get_mut().write(flight, file, extent, direct.is_some());
    }

    fn syncs(&mut self, file: File, handles: &Handles) -> &mut Syncs {
        self.syncs.entry(file).or_insert_with(|| Syncs {
            handle: Arc::clone(&handles.cached),
            running: false,
            ready: Vec::new(),
            writing: 0,
        })
    }

    /// One sync in flight for each file: what is written meanwhile shares the next.
    fn begin_syncs(&mut self) {
        for (&file, syncs) in &mut self.syncs {
            if !syncs.is_due() || !self.ring.get_ref().has_room(1) {
                continue;
            }
            syncs.running = true;
            let ops = std::mem::take(&mut syncs.ready);
            let flight = self.flights.insert(Flight::Sync(file, ops));
            self.ring.get_mut().sync(flight, Arc::clone(&syncs.handle));
        }
    }

    /// True if anything happened, so that more may be begun.
    fn reap(&mut self) -> bool {
        let mut transfers = std::mem::take(&mut self.transfers);
        let any = self.ring.get_mut().reap(&mut transfers);
        for Ended { key, result } in transfers.drain(..) {
            let result = result.map_err(|error| disk_error(&error));
            self.on_transferred(key, result);
        }
        self.transfers = transfers;
        any
    }

    fn on_transferred(&mut self, flight: usize, result: Result<Bytes, DiskError>) {
        if let Flight::Write(write) = &mut self.flights[flight] {
            write.failed = write.failed.or_else(|| result.as_ref().err().copied());
            write.places -= 1;
            if write.places > 0 {
                return;
            }
        }
        match self.flights.remove(flight) {
            Flight::Write(write) => self.on_written(&write),
            Flight::Read(op, class) => {
                let read = result.map(Completion::Read);
                self.end(op, class, read);
            }
            Flight::Sync(file, ops) => self.on_synced(file, ops, result.map(drop)),
        }
    }

    fn on_written(&mut self, &Write { op, class, file, durable, failed, .. }: &Write) {
        if durable {
            let syncs = self.syncs.get_mut(&file).expect("it was kept while the write ran");
            syncs.writing -= 1;
            if failed.is_none() {
                return syncs.ready.push((op, class));
            }
            self.forget_idle(file);
        }
        self.end(op, class, failed.map_or(Ok(Completion::Done), Err));
    }

    fn on_synced(&mut self, file: File, ops: Vec<(OpId, Class)>, result: Result<(), DiskError>) {
        for (op, class) in ops {
            self.end(op, class, result.map(|()| Completion::Done));
        }
        let syncs = self.syncs.get_mut(&file).expect("it was kept while the sync ran");
        syncs.running = false;
        self.forget_idle(file);
    }

    fn forget_idle(&mut self, file: File) {
        if self.syncs.get(&file).is_some_and(Syncs::is_idle) {
            self.syncs.remove(&file);
        }
    }

    fn end(&mut self, op: OpId, class: Class, result: Ending) {
        self.in_flight[class as usize] -= 1;
        self.ended.push(Event::Completed { op, result });
    }

    /// A descriptor follows its file, not its name.
    fn forget_names(&mut self, at: usize) {
        let Event::Completed { op, .. } = &self.ended[at] else { return };
        for file in self.names.remove(op).into_iter().flatten().flatten() {
            self.handles.remove(&file);
        }
    }

    /// A log may have more segments than a process may have files open. What is in flight holds
    /// its descriptor itself.
    fn make_room_for_handles(&mut self) {
        let oldest = self.handles.keys().find(|file| matches!(file, File::Segment(_))).copied();
        if let Some(oldest) = oldest.filter(|_| self.handles.len() >= HANDLES_MAX) {
            self.handles.remove(&oldest);
        }
    }

    fn handles(&mut self, file: File) -> Result<Handles, DiskError> {
        if let Some(handles) = self.handles.get(&file) {
            return Ok(handles.clone());
        }
        let options = OpenOptions::new().read(true).write(true).clone();
        let cached = Arc::new(self.directory.open_beside(file, &options)?);
        // A snapshot is written and read in sequence, and nobody waits: the cache serves it well.
        let direct = match file {
            File::Part(..) | File::Snapshot(_) => None,
            File::HardState | File::Segment(_) | File::Spare(_) => {
                open_direct(&self.directory, file)?.map(Arc::new)
            }
        };
        let handles = Handles { cached, direct };
        self.make_room_for_handles();
        self.handles.insert(file, handles.clone());
        Ok(handles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: File = File::Segment(1);

    /// A queue without a bound is one in the device, where nothing passes anything.
    #[tokio::test]
    async fn so_much_is_in_flight_and_what_nobody_waits_for_yields() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(temporary.path()).unwrap();
        let create = DiskRequest::Create { file: LOG, len: 1 << 20, zeroed: true };
        directory.perform(&create).unwrap();
        let Ok(mut disk) = UringDisk::new(directory) else { return };
        let submit = |disk: &mut UringDisk, class, request: &dyn Fn(u64) -> DiskRequest| {
            for n in 0..150 {
                let op = OpId(1000 * class as u64 + n);
                disk.submit(op, class, request(n));
            }
        };
        submit(&mut disk, Class::Background, &|n| DiskRequest::Read {
            file: LOG,
            offset: n,
            len: 1,
        });
        submit(&mut disk, Class::Commit, &|n| {
            let at = Extent::new(4096 * n, Bytes::from_static(&[7; 4096]));
            DiskRequest::Write { file: LOG, at, and: None, durable: true }
        });
        disk.flush();
        assert_eq!(disk.in_flight, [128, 0, YIELDING_MAX]);
        let mut events = Vec::new();
        std::future::poll_fn(|cx| {
            disk.poll_completed(cx, &mut events);
            if disk.is_idle() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert_eq!((events.len(), disk.in_flight), (300, [0; 3]));
        assert!(disk.syncs.is_empty() && disk.waiting.iter().all(VecDeque::is_empty));
    }
}

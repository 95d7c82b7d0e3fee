//! This driver keeps the contract that every driver owes: over real sockets, on each of its disks,
//! and over a disk that ends operations late, in any order, and with failures.

use lakebed::{
    Class, ClusterId, Completion, Config, DiskError, DiskRequest, Event, GroupId, OpId,
    conformance::{FaultyDisk, Seat, check},
    files::Directory,
};
use lakebed_runtime::{
    Disk, DiskKind, Driver, SystemClock, disk,
    net::{Identity, TcpNet},
};
use std::task::Context;

/// What the kit's disk needs from a driver's: everything waits there until it is looked for.
struct Faulty {
    disk: FaultyDisk,
    directory: Directory,
}

impl Disk for Faulty {
    fn submit(&mut self, op: OpId, _class: Class, request: DiskRequest) {
        self.disk.submit(op, request);
    }

    fn flush(&mut self) {}

    fn poll_completed(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) {
        let perform = |request: &DiskRequest| -> Result<Completion, DiskError> {
            self.directory.perform(request)
        };
        if let Some((op, result)) = self.disk.complete(perform) {
            events.push(Event::Completed { op, result });
            cx.waker().wake_by_ref();
        }
    }

    fn is_idle(&self) -> bool {
        self.disk.is_idle()
    }
}

/// Drives a seat until the halt.
fn drive(seat: Seat, disk: impl FnOnce(Directory, FaultyDisk) -> Box<dyn Disk + Send>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async move {
        let config = Config::new(GroupId(1), seat.node);
        let directory = Directory::open(&seat.dir).unwrap();
        let disk = disk(directory, seat.disk);
        let cluster = ClusterId(1);
        let identity = Identity { cluster, group: config.group, node: seat.node };
        let net = TcpNet::new(identity, &[], seat.listener, &config.tuning).unwrap();
        let surroundings = (disk, net, SystemClock::default());
        let (_, driver) = Driver::new(seat.core, &config, seat.start, seat.machine, surroundings);
        driver.await;
    });
}

fn keeps_the_contract(
    disk: impl Fn(Directory, FaultyDisk) -> Box<dyn Disk + Send> + Copy + Send + Sync + 'static,
) {
    let scratch = tempfile::tempdir().unwrap();
    check(scratch.path(), move |seat| drive(seat, disk)).assert();
}

#[test]
fn the_driver_keeps_the_contract_on_files() {
    keeps_the_contract(|directory, _| disk::open(DiskKind::Files, directory).unwrap());
}

#[test]
fn the_driver_keeps_the_contract_on_the_best_disk_there_is() {
    keeps_the_contract(|directory, _| disk::open(DiskKind::Auto, directory).unwrap());
}

#[test]
fn the_driver_keeps_the_contract_on_a_faulty_disk() {
    keeps_the_contract(|directory, disk| Box::new(Faulty { disk, directory }));
}

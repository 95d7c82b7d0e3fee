//! The runtime's driver keeps the contract, on its own disks and network and on faulty ones.

use bytes::Bytes;
use lakebed::{
    Class, ClusterId, Config, DiskRequest, Event, GroupId, Membership, NodeId, OpId,
    conformance::{FaultyDisk, LossyLink, Seat, check},
    files::Directory,
};
use lakebed_runtime::{
    Disk, DiskKind, Driver, Net, SystemClock, disk,
    net::{Identity, TcpNet},
};
use std::task::Context;
use tokio::runtime::Builder;

fn net(seat_node: NodeId, listener: std::net::TcpListener, members: &Membership) -> TcpNet {
    let identity =
        Identity { cluster: ClusterId(1), group: GroupId(1), groups: 0, node: seat_node };
    let mut net =
        TcpNet::new(identity, b"", listener, &Config::new(GroupId(1), NodeId(1))).unwrap();
    // Scripted cores do not say whom they want to talk to.
    net.connect(members);
    net
}

fn drive(seat: Seat, kind: DiskKind) {
    let config = Config::new(GroupId(1), seat.node);
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let disk = disk::open(kind, Directory::open(&seat.dir).unwrap()).unwrap();
        let net = net(seat.node, seat.listener, &seat.members);
        let surroundings = (disk, net, SystemClock::default());
        Driver::new(seat.core, &config, seat.start, seat.machine, surroundings).1.await;
    });
}

/// The disks and the network of these drivers have no room for faults; [`Faulty`] and [`Lossy`]
/// have.
const NEED_SEAMS: [&str; 2] = ["failures put in", "losses put in"];

#[test]
fn on_threads_the_driver_keeps_the_contract() {
    let scratch = tempfile::tempdir().unwrap();
    let report = check(scratch.path(), |seat| drive(seat, DiskKind::Files));
    report.accept_unchecked(&NEED_SEAMS).assert();
}

#[test]
fn on_the_best_disk_there_is_the_driver_keeps_the_contract() {
    let scratch = tempfile::tempdir().unwrap();
    let report = check(scratch.path(), |seat| drive(seat, DiskKind::Auto));
    report.accept_unchecked(&NEED_SEAMS).assert();
}

/// Ends one operation at each poll, in an order that nobody expects.
struct Faulty {
    disk: FaultyDisk,
    directory: Directory,
}

impl Disk for Faulty {
    fn submit(&mut self, op: OpId, _: Class, request: DiskRequest) {
        self.disk.submit(op, request);
    }

    fn flush(&mut self) {}

    fn poll_completed(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) {
        if let Some((op, result)) = self.disk.complete(|request| self.directory.perform(request)) {
            events.push(Event::Completed { op, result });
            cx.waker().wake_by_ref();
        }
    }

    fn is_idle(&self) -> bool {
        self.disk.is_idle()
    }
}

/// Loses a message now and then, and says so.
struct Lossy {
    link: LossyLink,
    net: TcpNet,
    lost: Vec<Event>,
}

impl Net for Lossy {
    fn connect(&mut self, members: &Membership) {
        self.net.connect(members);
    }

    fn send(&mut self, to: NodeId, head: Bytes, body: Bytes) {
        if self.link.loses(to) {
            self.lost.extend([false, true].map(|up| Event::Link { peer: to, up }));
        } else {
            self.net.send(to, head, body);
        }
    }

    fn flush(&mut self) {
        self.net.flush();
    }

    fn poll_events(&mut self, cx: &mut Context<'_>, events: &mut Vec<Event>) {
        events.append(&mut self.lost);
        self.net.poll_events(cx, events);
    }
}

#[test]
fn under_faults_the_driver_keeps_the_contract() {
    let scratch = tempfile::tempdir().unwrap();
    check(scratch.path(), |seat| {
        let config = Config::new(GroupId(1), seat.node);
        Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let directory = Directory::open(&seat.dir).unwrap();
            let disk = Faulty { disk: seat.disk, directory };
            let net = net(seat.node, seat.listener, &seat.members);
            let net = Lossy { link: seat.link, net, lost: Vec::new() };
            let surroundings = (disk, net, SystemClock::default());
            Driver::new(seat.core, &config, seat.start, seat.machine, surroundings).1.await;
        });
    })
    .assert();
}

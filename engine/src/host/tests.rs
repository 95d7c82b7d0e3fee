//! Hosts on trial, with cores that only keep what they were told.

use super::*;
use crate::{codec::Encoder, event::Start, message::*, types::Term};
use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
};

const MS: u64 = 1_000_000;

/// Keeps what it was told, each call for itself, and says what it is made to.
#[derive(Clone, Debug, Default)]
struct Fake {
    told: Rc<RefCell<Vec<Vec<Event>>>>,
    says: Rc<RefCell<Vec<Action>>>,
    deadline: Rc<RefCell<Option<Instant>>>,
    leader: Option<NodeId>,
    panics: Rc<Cell<bool>>,
    panics_when_asked: Rc<Cell<bool>>,
}

impl Core for Fake {
    fn handle(
        &mut self,
        _: Instant,
        events: impl IntoIterator<Item = Event>,
        actions: &mut Vec<Action>,
    ) {
        self.told.borrow_mut().push(events.into_iter().collect());
        assert!(!self.panics.get(), "as the test wants it");
        actions.append(&mut self.says.borrow_mut());
    }

    fn deadline(&self) -> Option<Instant> {
        assert!(!self.panics_when_asked.get(), "as the test wants it");
        *self.deadline.borrow()
    }

    fn status(&self) -> Status {
        Status { leader: self.leader, ..Status::default() }
    }
}

impl Fake {
    fn take(&self) -> Vec<Vec<Event>> {
        mem::take(&mut self.told.borrow_mut())
    }

    fn told(&self) -> Vec<Event> {
        self.take().into_iter().flatten().collect()
    }
}

fn config(node: u64) -> HostConfig {
    HostConfig {
        cluster: ClusterId(7),
        node: NodeId(node),
        life: node * 1000,
        heartbeat: Duration::from_millis(100),
        silence_max: Duration::from_millis(1000),
    }
}

fn members(ids: &[u64]) -> Arc<Membership> {
    let member = |id: &u64| Member {
        id: NodeId(*id),
        incarnation: 0,
        address: Bytes::from(format!("there:{id}")),
    };
    Arc::new(Membership::of(ids.iter().map(member)))
}

fn link(peer: u64, up: bool) -> Event {
    Event::Link { peer: NodeId(peer), up }
}

fn message(group: u64) -> Bytes {
    let head = Head { group: GroupId(group), term: Term(3), ..Head::default() };
    let (head, _) = Encoder::default().encode(&mut Message { head, payload: Payload::TimeoutNow });
    head
}

/// Host 1, its cores by group, and what it said.
struct Bench {
    host: Host<Fake>,
    cores: BTreeMap<u64, Fake>,
    now: u64,
    said: Vec<HostAction>,
}

impl Bench {
    /// With these groups, and the other members of each.
    fn new(groups: &[(u64, &[u64])]) -> Self {
        let host = Host::new(config(1)).expect("the configuration is valid");
        let mut bench = Self { host, cores: BTreeMap::new(), now: 1000 * MS, said: Vec::new() };
        for (group, others) in groups {
            bench.add(*group, others, None);
        }
        bench
    }

    fn add(&mut self, group: u64, others: &[u64], leader: Option<u64>) {
        let core = Fake { leader: leader.map(NodeId), ..Fake::default() };
        let all: Vec<_> = [1].into_iter().chain(others.iter().copied()).collect();
        core.says.borrow_mut().push(Action::Members(members(&all)));
        self.cores.insert(group, core.clone());
        self.host.create(GroupId(group), core).expect("it is new");
        self.tell(HostEvent::Group(GroupId(group), Event::Start(Start::Run)));
        self.cores[&group].take();
    }

    fn tell(&mut self, event: HostEvent) {
        self.tell_all([event]);
    }

    fn tell_all<const N: usize>(&mut self, events: [HostEvent; N]) {
        self.host.handle(Instant(self.now), events, &mut self.said);
    }

    fn link(&mut self, peer: u64, up: bool) {
        self.tell(HostEvent::Link { peer: NodeId(peer), up });
    }

    fn receive(&mut self, from: u64, bytes: Bytes) {
        self.tell(HostEvent::Received { from: NodeId(from), bytes });
    }

    fn beat(&mut self, from: u64, life: u64, departures: u64, hears: bool) {
        let (cluster, from_id, to) = (ClusterId(7), NodeId(from), NodeId(1));
        let beat = Beat { cluster, from: from_id, to, life, departures, hears };
        self.receive(from, beat.encode());
    }

    /// Time passes, the host is called at its deadlines.
    fn pass(&mut self, time: u64) {
        let until = self.now + time;
        while let Some(at) = self.host.deadline().filter(|at| at.0 <= until) {
            self.now = self.now.max(at.0);
            self.host.handle(Instant(self.now), [], &mut self.said);
        }
        self.now = until;
    }

    fn beats(&mut self) -> Vec<u64> {
        let said = mem::take(&mut self.said);
        let beat = |action| match action {
            HostAction::Beat { to, .. } => Some(to.0),
            _ => None,
        };
        said.into_iter().filter_map(beat).collect()
    }
}

/// What the panicking group had said goes with it; what the others were to be told does not.
#[test]
fn a_panic_in_one_group_is_named_and_the_others_go_on() {
    let mut bench = Bench::new(&[(1, &[2]), (2, &[2]), (3, &[2])]);
    bench.said.clear();
    bench.cores[&2].panics.set(true);
    let link = || HostEvent::Link { peer: NodeId(2), up: true };
    bench.beat(2, 9, 0, true);
    let (host, said) = (&mut bench.host, &mut bench.said);
    let now = Instant(bench.now);
    let panicked = catch_unwind(AssertUnwindSafe(|| host.handle(now, [link()], said)));
    assert!(panicked.is_err());
    assert_eq!(bench.host.interrupted(), Some(GroupId(2)));
    assert!(bench.cores[&3].take().is_empty(), "its turn is yet to come");
    drop(bench.host.remove(GroupId(2)).expect("it is still there"));
    assert_eq!(bench.host.interrupted(), None);
    bench.host.handle(now, [], &mut bench.said);
    for group in [1, 3] {
        assert_eq!(bench.cores[&group].told(), [self::link(2, true)], "group {group}");
    }
    assert_eq!(bench.host.groups().collect::<Vec<_>>(), [GroupId(1), GroupId(3)]);
    // That a group ended here is told to the others by the next beat.
    assert_eq!(bench.host.departures, 1);
}

#[test]
fn a_message_goes_to_the_group_that_it_names_and_no_other() {
    let mut bench = Bench::new(&[(1, &[2]), (2, &[2]), (3, &[2])]);
    bench.receive(2, message(2));
    let expected = Event::Received { from: NodeId(2), bytes: message(2) };
    assert_eq!(bench.cores[&2].take(), [[expected]]);
    assert!(bench.cores[&1].take().is_empty() && bench.cores[&3].take().is_empty());
    for stray in [message(4), Bytes::from_static(b"GET / HTTP/1.1"), Bytes::new()] {
        bench.receive(2, stray);
    }
    assert_eq!(bench.host.counters().unroutable, 3);
    assert!(bench.cores.values().all(|core| core.take().is_empty()));
}

#[test]
fn only_groups_that_are_due_are_called_and_each_once() {
    let mut bench = Bench::new(&[(1, &[]), (2, &[]), (3, &[])]);
    for (group, at) in [(1, 1300), (2, 1100)] {
        bench.cores[&group].deadline.replace(Some(Instant(at * MS)));
        bench.tell(HostEvent::Group(GroupId(group), link(9, true)));
    }
    bench.cores.values().for_each(|core| drop(core.take()));
    assert_eq!(bench.host.deadline(), Some(Instant(1100 * MS)));
    bench.cores[&2].deadline.replace(None);
    bench.pass(200 * MS);
    assert_eq!(bench.cores[&2].take(), [Vec::<Event>::new()]);
    assert!(bench.cores[&1].take().is_empty() && bench.cores[&3].take().is_empty());
    assert_eq!(bench.host.deadline(), Some(Instant(1300 * MS)));
    bench.host.remove(GroupId(1)).expect("it is there");
    assert_eq!(bench.host.deadline(), None);
}

#[test]
fn what_happens_to_one_group_in_one_call_is_told_at_once() {
    let mut bench = Bench::new(&[(1, &[2]), (2, &[2])]);
    let events = [1, 2, 1].map(|group| HostEvent::Group(GroupId(group), link(9, true)));
    bench.host.handle(Instant(bench.now), events, &mut bench.said);
    assert_eq!(bench.cores[&1].take().iter().map(Vec::len).collect::<Vec<_>>(), [2]);
    assert_eq!(bench.cores[&2].take().iter().map(Vec::len).collect::<Vec<_>>(), [1]);
}

#[test]
fn each_node_has_one_beat_however_many_groups_there_are() {
    let groups: Vec<_> = (1..=100).map(|group| (group, &[2, 3][..])).collect();
    let mut bench = Bench::new(&groups);
    assert_eq!(bench.host.deadline(), None, "nobody is connected");
    bench.link(2, true);
    bench.link(3, true);
    bench.beats();
    for _ in 0..9 {
        bench.pass(100 * MS);
        bench.receive(2, message(1));
        bench.receive(3, message(1));
    }
    let mut beats = bench.beats();
    beats.sort_unstable();
    assert_eq!(beats, [[2; 9], [3; 9]].concat());
}

#[test]
fn a_silent_node_is_lost_to_its_groups_and_found_by_its_first_word() {
    let mut bench = Bench::new(&[(1, &[2]), (2, &[3]), (3, &[2, 3])]);
    bench.link(2, true);
    assert_eq!(bench.cores[&1].told(), [link(2, true)]);
    assert!(bench.cores[&2].told().is_empty(), "it has no such member");
    assert_eq!(bench.cores[&3].told(), [link(2, true)]);
    bench.pass(900 * MS);
    bench.beat(2, 1, 0, true);
    bench.pass(900 * MS);
    assert!(bench.cores[&1].told().is_empty());
    bench.pass(300 * MS);
    assert_eq!(bench.cores[&1].told(), [link(2, false)]);
    assert_eq!(bench.cores[&3].told(), [link(2, false)]);
    assert!(!bench.host.is_up(NodeId(2)));
    bench.pass(3000 * MS);
    assert!(bench.cores[&1].told().is_empty(), "once");
    bench.beat(2, 1, 0, true);
    assert_eq!(bench.cores[&1].told(), [link(2, true)]);
    // The connection breaks: that is known at once, and it is not told twice.
    bench.link(2, false);
    assert_eq!(bench.cores[&1].told(), [link(2, false)]);
    bench.pass(3000 * MS);
    assert!(bench.cores[&1].told().is_empty());
    assert_eq!(bench.host.counters().silences, 1);
}

#[test]
fn a_node_that_does_not_hear_this_one_is_lost_too() {
    let mut bench = Bench::new(&[(1, &[2])]);
    bench.link(2, true);
    bench.cores[&1].told();
    bench.beat(2, 1, 0, false);
    assert_eq!(bench.cores[&1].told(), [link(2, false)]);
    bench.beat(2, 1, 0, true);
    assert_eq!(bench.cores[&1].told(), [link(2, true)]);
}

#[test]
fn a_restart_that_no_link_told_of_is_seen() {
    let mut bench = Bench::new(&[(1, &[2])]);
    bench.link(2, true);
    bench.beat(2, 1, 5, true);
    bench.cores[&1].told();
    bench.beat(2, 2, 0, true);
    assert_eq!(bench.cores[&1].told(), [link(2, false), link(2, true)]);
    assert_eq!(bench.host.counters().unseen_restarts, 1);
}

#[test]
fn a_group_given_up_elsewhere_makes_those_ask_that_are_led_there() {
    let mut bench = Bench::new(&[]);
    for (group, leader) in [(1, Some(2)), (2, Some(3)), (3, None), (4, Some(2))] {
        bench.add(group, &[2, 3], leader);
    }
    bench.link(2, true);
    bench.beat(2, 1, 4, true);
    bench.cores.values().for_each(|core| drop(core.take()));
    bench.beat(2, 1, 4, true);
    assert!(bench.cores.values().all(|core| core.told().is_empty()), "nothing new");
    bench.beat(2, 1, 5, true);
    let told: Vec<_> = bench.cores.values().map(Fake::told).collect();
    assert_eq!(told, [vec![link(2, true)], vec![], vec![], vec![link(2, true)]]);
}

/// The first beat of a connection may be the one that tells of it: since the link came up the group may
/// have gone to rest, and have ended there.
#[test]
fn what_the_first_beat_tells_of_departures_is_news() {
    let mut bench = Bench::new(&[]);
    bench.add(1, &[2], Some(2));
    bench.link(2, true);
    bench.cores[&1].take();
    bench.beat(2, 1, 1, true);
    assert_eq!(bench.cores[&1].told(), [link(2, true)]);
    // Over a new connection it may have been another one.
    bench.link(2, false);
    bench.link(2, true);
    bench.cores[&1].take();
    bench.beat(2, 1, 1, true);
    assert_eq!(bench.cores[&1].told(), [link(2, true)]);
    bench.beat(2, 1, 1, true);
    assert!(bench.cores[&1].take().is_empty(), "nothing new");
}

/// One call may bring the heartbeat that offers rest, from a leader that nobody knew of, and the beat that
/// tells of its end.
#[test]
fn who_hears_of_its_leader_and_of_a_departure_in_one_call_asks_behind_that() {
    let mut bench = Bench::new(&[(1, &[2]), (2, &[2]), (3, &[3])]);
    bench.link(2, true);
    bench.beat(2, 1, 0, true);
    bench.cores.values().for_each(|core| drop(core.take()));
    let beat = Beat {
        cluster: ClusterId(7),
        from: NodeId(2),
        to: NodeId(1),
        life: 1,
        departures: 1,
        hears: true,
    };
    let from = NodeId(2);
    let events =
        [message(1), beat.encode(), message(3)].map(|bytes| HostEvent::Received { from, bytes });
    bench.host.handle(Instant(bench.now), events, &mut bench.said);
    let of = |group| Event::Received { from, bytes: message(group) };
    assert_eq!(bench.cores[&1].take(), [[of(1), link(2, true)]]);
    assert!(bench.cores[&2].take().is_empty(), "it is led by nobody");
    assert_eq!(bench.cores[&3].take(), [[of(3)]], "it has no such member");
}

/// A connection broke and there is another one: groups were told, and are told once.
#[test]
fn a_restart_that_links_told_of_is_no_other_news() {
    let mut bench = Bench::new(&[(1, &[2])]);
    bench.link(2, true);
    bench.beat(2, 1, 5, true);
    bench.link(2, false);
    bench.link(2, true);
    bench.cores[&1].told();
    bench.beat(2, 2, 0, true);
    assert!(bench.cores[&1].take().is_empty());
    assert_eq!(bench.host.counters().unseen_restarts, 0);
}

#[test]
fn groups_come_and_go_and_so_do_the_nodes_that_they_need() {
    let mut bench = Bench::new(&[(1, &[2]), (2, &[2, 3])]);
    let wanted = |said: &[HostAction]| {
        said.iter().rev().find_map(|action| match action {
            HostAction::Connect(members) => {
                let member = |m: &Member| (m.id.0, m.address.clone());
                Some(members.members().map(member).collect::<Vec<_>>())
            }
            _ => None,
        })
    };
    let both = [(2, Bytes::from("there:2")), (3, Bytes::from("there:3"))];
    assert_eq!(wanted(&bench.said), Some(both.to_vec()));
    assert_eq!(bench.host.groups().collect::<Vec<_>>(), [GroupId(1), GroupId(2)]);
    let again = bench.host.create(GroupId(1), Fake::default());
    assert_eq!(again, Err(HostError::Exists(GroupId(1))));

    bench.link(3, true);
    bench.host.remove(GroupId(2)).expect("it is there");
    assert_eq!(bench.host.remove(GroupId(2)).err(), Some(HostError::Unknown(GroupId(2))));
    bench.tell(HostEvent::Group(GroupId(2), link(3, true)));
    assert_eq!(wanted(&bench.said), Some(both[..1].to_vec()));
    assert_eq!(bench.host.groups().collect::<Vec<_>>(), [GroupId(1)]);
    assert_eq!(bench.cores[&2].told(), [link(3, true)], "nothing after its end");
}

#[test]
fn a_group_that_comes_later_is_told_which_nodes_are_there() {
    let mut bench = Bench::new(&[(1, &[2, 3])]);
    bench.link(2, true);
    bench.link(3, true);
    bench.link(3, false);
    let core = Fake::default();
    core.says.borrow_mut().push(Action::Members(members(&[1, 2, 3, 4])));
    bench.host.create(GroupId(9), core.clone()).expect("it is new");
    bench.tell(HostEvent::Group(GroupId(9), Event::Start(Start::Run)));
    let expected = [Event::Start(Start::Run), link(2, true), link(3, false)];
    assert_eq!(core.told(), expected, "of the fourth nobody knows anything");
}

#[test]
fn a_halt_counts_as_a_departure_once_and_is_listed_until_it_is_removed() {
    let mut bench = Bench::new(&[(1, &[2]), (2, &[2])]);
    bench.link(2, true);
    bench.beats();
    bench.cores[&1].says.borrow_mut().push(Action::Halt(Box::new(crate::Halt::Stopped)));
    bench.tell(HostEvent::Group(GroupId(1), Event::Stop { hand_over: false }));
    assert_eq!(bench.host.groups().count(), 2);
    bench.cores.values().for_each(|core| drop(core.take()));
    bench.link(2, false);
    bench.link(2, true);
    assert!(bench.cores[&1].take().is_empty(), "it has halted");
    assert_eq!(bench.cores[&2].told(), [link(2, false), link(2, true)]);
    bench.host.remove(GroupId(1)).expect("it is there");
    bench.pass(100 * MS);
    let departures = bench.said.iter().rev().find_map(|action| match action {
        HostAction::Beat { bytes, .. } => Beat::decode(bytes).map(|beat| beat.departures),
        _ => None,
    });
    assert_eq!(departures, Some(1));
}

#[test]
fn a_silence_must_outlast_two_heartbeats() {
    let wrong = HostConfig { silence_max: Duration::from_millis(199), ..config(1) };
    let host = Host::<Fake>::new(wrong);
    assert_eq!(host.err(), Some(HostError::SilenceNotAboveHeartbeat));
}

/// Nobody is woken to hear what time it is: whoever has something else to do hears it with that.
#[test]
fn each_group_is_told_the_time_with_what_happens_next() {
    let mut bench = Bench::new(&[(1, &[2]), (2, &[2])]);
    bench.tell(HostEvent::Time(Timestamp(500)));
    assert!(bench.cores.values().all(|core| core.take().is_empty()));
    bench.now += 3;
    bench.receive(2, message(1));
    let told = bench.cores[&1].told();
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(told[0], Event::time(Timestamp(503)));
    bench.receive(2, message(1));
    assert_eq!(bench.cores[&1].told().len(), 1, "it was told already");
    bench.now += 4;
    bench.link(2, true);
    assert_eq!(bench.cores[&1].told(), [link(2, true)]);
    assert_eq!(bench.cores[&2].told(), [Event::time(Timestamp(507)), link(2, true)]);
    bench.tell(HostEvent::Time(Timestamp(9)));
    bench.receive(2, message(2));
    assert_eq!(bench.cores[&2].told()[0], Event::time(Timestamp(9)));
}

/// Whose clock was set since the host heard of it, and who tells so: what is dated behind that goes by the later word.
#[test]
fn what_a_host_heard_before_comes_before_what_its_groups_are_told() {
    let mut bench = Bench::new(&[(1, &[2]), (2, &[2])]);
    let said = |bench: &Bench| bench.cores[&1].told();
    bench.tell(HostEvent::Time(Timestamp(500)));
    bench.now += 3;
    let later = || HostEvent::Group(GroupId(1), Event::time(Timestamp(90)));
    bench.tell(later());
    assert_eq!(said(&bench), [503, 90].map(|time| Event::time(Timestamp(time))));
    bench.tell_all([later(), HostEvent::Time(Timestamp(80))]);
    assert_eq!(said(&bench), [90, 80].map(|time| Event::time(Timestamp(time))));
}

/// A change of members that is in force takes a node out, its connection is let go, and the change is rolled
/// back: what the group was told last of that node is that it is there.
#[test]
fn a_node_that_is_a_member_again_and_gone_meanwhile_is_told_to_be_gone() {
    let mut bench = Bench::new(&[(1, &[2, 3])]);
    bench.link(2, true);
    assert_eq!(bench.cores[&1].told(), [link(2, true)]);
    let says = |bench: &mut Bench, ids: &[u64]| {
        bench.cores[&1].says.borrow_mut().push(Action::Members(members(ids)));
        bench.receive(3, message(1));
    };
    says(&mut bench, &[1, 3]);
    // As a driver does whose host wants it no more.
    bench.link(2, false);
    says(&mut bench, &[1, 2, 3]);
    let told = bench.cores[&1].told();
    let last = told.iter().rev().find(|event| matches!(event, Event::Link { peer: NodeId(2), .. }));
    assert_eq!(last, Some(&link(2, false)), "{told:?}");
}

/// An engine at fault is at fault wherever it is called within `handle`.
#[test]
fn a_panic_of_an_engine_that_is_asked_for_its_deadline_is_its_own() {
    let mut bench = Bench::new(&[(1, &[2]), (2, &[2])]);
    bench.cores[&2].panics_when_asked.set(true);
    let (host, said) = (&mut bench.host, &mut bench.said);
    let now = Instant(bench.now);
    let event = HostEvent::Link { peer: NodeId(2), up: true };
    let panicked = catch_unwind(AssertUnwindSafe(|| host.handle(now, [event], said)));
    assert!(panicked.is_err());
    assert_eq!(bench.host.interrupted(), Some(GroupId(2)));
}

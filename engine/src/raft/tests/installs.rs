//! A snapshot from a leader, as consensus sees it: what waits while the storage takes it in.

use super::{
    super::{
        progress::{Pace, Peer},
        role::Leader,
    },
    changes::{joined, member},
    *,
};
use crate::{
    change::Change,
    marks::Mark,
    message::{AppendAnswer, Conflict, InstallAnswer},
    status::Status,
    types::{Piece, SnapshotName},
};

const SNAPSHOT: SnapshotName =
    SnapshotName { at: id(2, 1), id: SnapshotId(7), bytes: 100, digest: 0 };

/// The first of these bytes of the snapshot.
fn piece(offset: u64, bytes: usize) -> Piece {
    let bytes = Bytes::from(vec![3; bytes]);
    Piece { snapshot: SNAPSHOT, offset, time: Timestamp(0), members: None, bytes }
}

/// A leader that sends its snapshot to node 2, in place of its log or, if `it_joins`, beside it.
fn sending(it_joins: bool) -> Raft {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    let mut raft = cluster.at(1).raft.clone();
    raft.messages().clear();
    let peer = peer(&mut raft);
    assert_eq!(peer.pace, Pace::Replicate);
    if it_joins {
        peer.transfer = Some(Default::default())
    } else {
        peer.begin_install()
    }
    raft.replicate();
    raft.messages().clear();
    raft.on_piece_read(node(2), piece(0, 10));
    raft
}

fn peer(raft: &mut Raft) -> &mut Peer {
    match &mut raft.role {
        Role::Leader(leader) => leader.peer(node(2)).expect("it is a member"),
        other => panic!("{other:?}"),
    }
}

/// What node 2 says of a snapshot.
fn answer(raft: &mut Raft, answer: InstallAnswer) {
    let (from, to) = (node(2), node(1));
    let head = Head {
        from,
        to,
        incarnation: 200,
        to_incarnation: 100,
        answers: raft.life(),
        ..raft.head_to(from)
    };
    raft.on_message(from, Message { head, payload: Payload::InstallAnswer(answer) });
}

fn of_this(next: u64, done: bool) -> InstallAnswer {
    InstallAnswer { snapshot: SNAPSHOT.at, id: SNAPSHOT.id, next, stored: next, done }
}

/// The first byte of the next piece that the leader wants to read.
fn goes_on(raft: &mut Raft) -> Option<u64> {
    raft.pieces_wanted().clear();
    raft.stray();
    raft.replicate();
    raft.pieces_wanted().first().map(|&(_, from)| from)
}

/// Word of another snapshot, or of bytes that this one does not have, moves nothing.
#[test]
fn only_word_of_the_snapshot_on_its_way_moves_it() {
    for it_joins in [false, true] {
        let mut raft = sending(it_joins);
        assert_eq!(goes_on(&mut raft), None, "the peer has not said that it gets further");
        answer(&mut raft, of_this(SNAPSHOT.bytes + 1, false));
        answer(&mut raft, InstallAnswer { id: SnapshotId(8), ..of_this(10, false) });
        assert_eq!(goes_on(&mut raft), None);
        answer(&mut raft, of_this(10, false));
        assert_eq!(goes_on(&mut raft), Some(10));
        assert!(peer(&mut raft).transfer.is_some(), "it is not at its end");
    }
}

/// Whoever waits for it is shown how far it is.
#[test]
fn how_much_of_a_snapshot_a_peer_has_is_told() {
    let told = |raft: &Raft| {
        let mut status = Status::default();
        raft.report(&mut status);
        let peer = status.peers.into_iter().find(|peer| peer.node == node(2)).expect("a member");
        (peer.snapshot_bytes, peer.snapshot_bytes_total)
    };
    let mut raft = sending(false);
    assert_eq!(told(&raft), (0, 100));
    answer(&mut raft, of_this(10, false));
    assert_eq!(told(&raft), (10, 100));
    answer(&mut raft, of_this(100, true));
    assert_eq!(told(&raft), (0, 0), "none is on its way any more");
}

/// Until then it can carry no majority of a change; who only lags can.
#[test]
fn whoever_said_that_it_lacks_its_state_lacks_it_until_it_has_the_snapshot() {
    let mut raft = sending(true);
    let mut lacks = |said| {
        answer(&mut raft, said);
        peer(&mut raft).lacks_state
    };
    assert!(!lacks(of_this(10, false)));
    assert!(lacks(InstallAnswer { snapshot: LogId::ZERO, ..of_this(0, false) }));
    assert!(lacks(of_this(20, false)));
    assert!(!lacks(of_this(100, true)));
}

/// In place of the log it is followed by entries at once. One that lies before the log was of no use, if no
/// more is said.
#[test]
fn a_peer_that_has_the_snapshot_goes_on_from_there() {
    let mut raft = sending(false);
    answer(&mut raft, of_this(100, true));
    let peer_now = peer(&mut raft);
    assert!(peer_now.transfer.is_none() && peer_now.pace == Pace::Probe { asked: false });
    assert_eq!((peer_now.next, peer_now.useless), (LogIndex(2), LogIndex(0)));
    let mut raft = sending(true);
    answer(&mut raft, of_this(100, true));
    let peer_now = peer(&mut raft);
    assert!(peer_now.transfer.is_none() && peer_now.pace == Pace::Replicate);
    assert_eq!(peer_now.useless, LogIndex(1));
}

/// What follows it is sent beside it, and only once.
#[test]
fn entries_behind_a_snapshot_are_not_sent_again_with_every_piece() {
    let mut raft = sending(false);
    assert_eq!(peer(&mut raft).next, LogIndex(2));
    peer(&mut raft).next = LogIndex(5);
    raft.on_piece_read(node(2), piece(10, 10));
    assert_eq!(peer(&mut raft).next, LogIndex(5));
}

/// It asks because it has heard of none. If one is on its way the question is an old one.
#[test]
fn who_asks_for_a_state_is_sent_one_and_not_anew() {
    let mut raft = sending(true);
    raft.facts.newest = LogIndex(1);
    answer(&mut raft, of_this(10, false));
    answer(&mut raft, InstallAnswer::default());
    assert_eq!(goes_on(&mut raft), Some(10), "it is not begun anew");
    peer(&mut raft).transfer = None;
    answer(&mut raft, of_this(10, false));
    assert!(peer(&mut raft).transfer.is_none(), "of one that was given up");
    answer(&mut raft, InstallAnswer::default());
    assert!(peer(&mut raft).transfer.is_some());
}

/// There is none that would help it, and the machine has come further: another is to come to be.
#[test]
fn a_newer_snapshot_is_wanted_where_the_newest_was_of_no_use() {
    for (newest, useless, is_wanted) in [(1, 1, true), (1, 0, false), (2, 2, false)] {
        let mut raft = sending(true);
        raft.facts.newest = LogIndex(newest);
        let peer_now = peer(&mut raft);
        (peer_now.transfer, peer_now.useless) = (None, LogIndex(useless));
        assert_eq!(raft.log.marks.applying(), LogIndex(2));
        answer(&mut raft, InstallAnswer::default());
        assert_eq!(peer(&mut raft).transfer.is_none(), is_wanted);
        let Role::Leader(leader) = &raft.role else { panic!("it leads") };
        assert_eq!(leader.wanted_beyond, is_wanted.then_some(LogIndex(newest)));
    }
}

/// What no leader sends is its fault, and is not kept.
#[test]
fn a_piece_of_no_snapshot_there_can_be_is_a_fault() {
    let wrong: [fn(&mut Piece); 4] = [
        |piece| piece.snapshot.at.term = Term(3),
        |piece| piece.snapshot.at.index = LogIndex(0),
        |piece| piece.offset = 91,
        |piece| piece.offset = u64::MAX,
    ];
    let far = SnapshotName { at: id(2, 900), ..SNAPSHOT };
    for (n, change) in wrong.into_iter().enumerate() {
        let mut cluster = Cluster::led(3);
        let mut bad = Piece { snapshot: far, ..piece(0, 10) };
        change(&mut bad);
        let head = cluster.at(1).raft.head_to(node(2));
        cluster.at(2).raft.on_message(node(1), Message { head, payload: Payload::Install(bad) });
        assert!(cluster.at(2).raft.pieces().is_empty(), "the {n}th");
        cluster.settle(2);
        assert_eq!(cluster.at(2).faults(), ["a piece of no snapshot there can be"], "the {n}th");
    }
    let mut cluster = Cluster::led(3);
    let head = cluster.at(1).raft.head_to(node(2));
    let payload = Payload::Install(Piece { snapshot: far, ..piece(90, 10) });
    cluster.at(2).raft.on_message(node(1), Message { head, payload });
    assert_eq!(cluster.at(2).raft.pieces().len(), 1, "the last one there can be");
}

/// What the leader of node 2 is told of a snapshot now.
fn told(raft: &mut Raft) -> Vec<InstallAnswer> {
    raft.messages().clear();
    raft.acknowledge_install();
    let told = raft.messages().drain(..).map(|message| match message.payload {
        Payload::InstallAnswer(answer) => answer,
        other => panic!("{other:?}"),
    });
    told.collect()
}

/// Each piece is answered, whatever became of it; and word of room is given once.
#[test]
fn pieces_and_room_are_answered_once() {
    let mut cluster = Cluster::led(3);
    let head = cluster.at(1).raft.head_to(node(2));
    let raft = &mut cluster.at(2).raft;
    let snapshot = SnapshotName { at: id(2, 900), ..SNAPSHOT };
    let payload = Payload::Install(Piece { snapshot, ..piece(0, 10) });
    raft.on_message(node(1), Message { head, payload });
    assert_eq!(told(raft).len(), 1, "nothing is received yet");
    assert_eq!(told(raft), []);
    raft.facts.receiving = Some(Receiving { snapshot, next: 10, stored: 10, is_whole: false });
    let room =
        InstallAnswer { snapshot: snapshot.at, id: snapshot.id, next: 10, stored: 10, done: false };
    assert_eq!(told(raft), [room]);
    assert_eq!(told(raft), []);
}

/// A part of one stands for nothing, and what there is of it is gone on with.
#[test]
fn a_snapshot_that_is_not_whole_takes_nobodys_place() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.run();
    let last = cluster.at(2).raft.log.last();
    // Behind the log, of an entry that it holds, and of another than is committed there.
    for (at, is_committed) in [(id(2, 900), false), (last, false), (id(1, last.index.0), true)] {
        for is_whole in [false, true] {
            let mut raft = cluster.at(2).raft.clone();
            let snapshot = SnapshotName { at, ..SNAPSHOT };
            raft.facts.is_state_lost = true;
            raft.facts.receiving = Some(Receiving { snapshot, next: 1, stored: 1, is_whole });
            if is_committed {
                raft.log.marks.advance_committed(last.index);
            }
            raft.stray();
            raft.install();
            let is_taken = raft.receiver.taking.is_some() || raft.is_joining() || raft.discards;
            assert_eq!(is_taken, is_whole, "{at}");
        }
    }
}

/// What differs from it goes; and where the log has come as far nothing does.
#[test]
fn a_whole_snapshot_takes_entries_that_differ_or_is_not_needed() {
    let mut cluster = Cluster::led(5);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    let committed = cluster.at(2).raft.log.last();
    [3, 4, 5].into_iter().for_each(|id| cluster.isolate(id));
    cluster.propose(1, 2, &["two have it"]);
    cluster.run();
    let mut follower = cluster.at(2).raft.clone();
    let last = follower.log.last();
    assert!(last > committed && follower.log.marks.committed() == committed.index);
    let met = |follower: &Raft, at: LogId| {
        let mut raft = follower.clone();
        let snapshot = SnapshotName { at, ..SNAPSHOT };
        raft.facts.receiving = Some(Receiving { snapshot, next: 1, stored: 1, is_whole: true });
        raft.stray();
        raft.install();
        let marks = [Mark::InstallTookEntries, Mark::InstallNotNeeded];
        (raft.receiver.taking, raft.take_discard(), marks.map(|mark| raft.marks.has(mark)))
    };
    // Whoever sent the last entry in its term cannot have another there.
    let differs = LogId { term: last.term.next(), ..last };
    assert_eq!(met(&follower, differs), (None, true, [false, false]));
    follower.become_follower(differs.term, None);
    assert_eq!(met(&follower, differs), (Some(differs), false, [true, false]));
    let behind = id(9, last.index.0 + 1);
    assert_eq!(met(&follower, behind), (Some(behind), false, [false, false]));
    assert_eq!(met(&follower, committed), (None, true, [false, true]));
}

/// It would be sent once more what is about to be its state.
#[test]
fn no_state_is_asked_for_while_one_is_taken_in() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.run();
    let last = cluster.at(2).raft.log.last();
    let mut lost = cluster.at(2).raft.clone();
    lost.facts.is_state_lost = true;
    for at in [id(1, 900), last] {
        let mut raft = lost.clone();
        let snapshot = SnapshotName { at, bytes: 1, ..SnapshotName::default() };
        raft.facts.receiving = Some(Receiving { snapshot, next: 1, stored: 1, is_whole: true });
        told(&mut raft);
        raft.ask_for_snapshot();
        assert_eq!(told(&mut raft), [], "it is whole");
        raft.stray();
        raft.install();
        raft.facts.receiving = None;
        raft.ask_for_snapshot();
        assert_eq!(told(&mut raft), [], "it takes the place of what was lost");
    }
    lost.ask_for_snapshot();
    assert_eq!(told(&mut lost), [InstallAnswer::default()]);
    lost.facts.is_state_lost = false;
    lost.ask_for_snapshot();
    assert_eq!(told(&mut lost), [], "it lacks nothing");
}

/// What would be sent to it is kept for as long, log and snapshot.
#[test]
fn nothing_is_kept_for_one_who_is_silent() {
    let mut cluster = Cluster::led(3);
    let most = cluster.tuning.election.1.as_nanos() as u64;
    cluster.elapse(300 * MS);
    cluster.isolate(2);
    peer(&mut cluster.at(1).raft).begin_install();
    cluster.elapse(most / 2);
    assert!(cluster.at(1).raft.is_installing_others(), "it may be back at once");
    cluster.elapse(most);
    assert!(!cluster.at(1).raft.is_installing_others());
    // However late this leader's own timer runs.
    for (late, is_kept) in [(0, true), (1, false)] {
        let mut cluster = cluster.clone();
        let now = cluster.now;
        let second = peer(&mut cluster.at(1).raft);
        second.begin_install();
        second.heard = now;
        cluster.pass(most + late);
        let now = cluster.now;
        let Role::Leader(leader) = &mut cluster.at(1).raft.role else { panic!("it leads") };
        leader.peer(node(3)).expect("it is a member").heard = now;
        cluster.settle(1);
        assert_eq!(cluster.at(1).role(), status::Role::Leader);
        assert_eq!(cluster.at(1).raft.is_installing_others(), is_kept, "{late}");
    }
}

/// Two learners held up a voter, without which one more loss is too many, for as long as theirs took.
#[test]
fn a_voter_is_sent_a_snapshot_before_learners_are() {
    let mut cluster = joined(3, 5);
    cluster.changed(1, 100, &[4, 5].map(|id| Change::AddLearner(member(id))));
    cluster.elapse(300 * MS);
    let Role::Leader(leader) = &mut cluster.at(1).raft.role else { panic!("it leads") };
    let is_voter = |id: NodeId| id.0 <= 3;
    let begun = |leader: &Leader| {
        let sent = leader.peers.iter().filter(|peer| peer.is_sent_snapshot());
        sent.map(|peer| peer.id.0).collect::<BTreeSet<_>>()
    };
    let lacks = |leader: &mut Leader, id: u64| {
        leader.peer(node(id)).expect("it is a member").transfer = Some(Default::default());
    };
    [4, 5].into_iter().for_each(|id| lacks(leader, id));
    assert!(!leader.give_turns(2, is_voter));
    assert_eq!(begun(leader), [4, 5].into());
    lacks(leader, 2);
    leader.peer(node(2)).unwrap().paused = true;
    assert!(!leader.give_turns(2, is_voter), "nothing can be sent to it");
    leader.peer(node(2)).unwrap().paused = false;
    assert!(leader.give_turns(2, is_voter));
    let both = begun(leader);
    assert!(both.len() == 2 && both.contains(&2), "{both:?}");
    assert!(!leader.give_turns(2, is_voter) && begun(leader) == both, "nobody else waits for it");
    // One that gets no further has had its turn.
    leader.peer(node(2)).unwrap().is_stuck = true;
    lacks(leader, 2);
    assert!(!leader.give_turns(2, is_voter) && begun(leader) == [4, 5].into());
    leader.peer(node(2)).unwrap().is_stuck = false;
    assert!(leader.give_turns(2, is_voter));
    // A voter gives its turn to nobody, and a learner comes again when there is one.
    lacks(leader, 3);
    assert!(leader.give_turns(2, is_voter) && begun(leader) == [2, 3].into());
    leader.peer(node(2)).unwrap().transfer = None;
    assert!(!leader.give_turns(2, is_voter));
    assert_eq!(begun(leader).len(), 2);
}

/// One that was away for a moment is not.
#[test]
fn who_is_there_and_gets_no_further_comes_after_others() {
    for is_there in [true, false] {
        let mut raft = sending(false);
        while peer(&mut raft).transfer.is_some() {
            raft.now = raft.now.after(raft.tuning.heartbeat);
            let now = raft.now;
            let Role::Leader(leader) = &mut raft.role else { panic!("it leads") };
            let heard = leader.peers.iter_mut().filter(|peer| is_there || peer.id != node(2));
            heard.for_each(|peer| peer.heard = now);
            raft.time_out();
        }
        assert_eq!(peer(&mut raft).is_stuck, is_there);
    }
}

/// What a limit allows leaves evenly, and not all of a heartbeat's at once: the leader wakes for the next piece.
#[test]
fn the_next_piece_is_read_when_the_last_one_is_paid_for() {
    let mut raft = sending(false);
    raft.tuning.transfer_bytes_per_second = 1000;
    answer(&mut raft, of_this(10, false));
    assert_eq!(goes_on(&mut raft), Some(10));
    raft.on_piece_read(node(2), piece(10, 10));
    answer(&mut raft, of_this(20, false));
    assert_eq!(goes_on(&mut raft), None, "ten bytes are ten milliseconds");
    let paid = raft.now.after(Duration::from_millis(10));
    assert_eq!(raft.deadline(), Some(paid));
    raft.now = paid;
    raft.time_out();
    assert_eq!(goes_on(&mut raft), Some(20));
    raft.on_piece_read(node(2), piece(20, 10));
    assert!(raft.deadline() < Some(raft.now.after(Duration::from_millis(11))));
    peer(&mut raft).transfer = None;
    assert!(raft.deadline() > Some(raft.now.after(Duration::from_millis(11))), "for nobody");
}

/// Where somebody writes, what a snapshot takes of the disks and processors has him wait: it goes out a message at a
/// time, and rests behind each twice as long as that took. With nobody who writes a window is on its way.
#[test]
fn a_snapshot_gives_way_to_those_who_write() {
    for writes in [true, false] {
        let mut raft = sending(false);
        raft.tuning.append_bytes_max = 10;
        let last = raft.log.marks.last();
        let Role::Leader(leader) = &mut raft.role else { panic!("it leads") };
        leader.committed_before = if writes { last.previous() } else { last };
        answer(&mut raft, of_this(10, false));
        assert_eq!(goes_on(&mut raft), Some(10));
        raft.on_piece_read(node(2), piece(10, 10));
        assert_eq!(goes_on(&mut raft), (!writes).then_some(20), "one is on its way");
        let took = Duration::from_millis(3);
        raft.now = raft.now.after(took);
        if !writes {
            raft.on_piece_read(node(2), piece(20, 10));
        }
        let all = if writes { 20 } else { 30 };
        answer(&mut raft, of_this(all, false));
        assert_eq!(goes_on(&mut raft), (!writes).then_some(30));
        let rested = raft.now.after(took * 2);
        assert_eq!(raft.deadline(), Some(rested));
        raft.now = rested;
        raft.time_out();
        assert_eq!(goes_on(&mut raft), writes.then_some(20), "if it has not gone on before");
        assert!(raft.deadline() > Some(rested), "nothing is to be done for it by then");
    }
}

/// Who takes it in begins with it, and what it appends is no earlier.
#[test]
fn a_piece_has_the_time_of_the_log_that_it_stands_for() {
    let mut raft = sending(false);
    let sent = raft.messages().drain(..).filter_map(|message| match message.payload {
        Payload::Install(piece) => Some(piece.time),
        _ => None,
    });
    let times: Vec<_> = sent.collect();
    assert!(times == [raft.log.last_time()] && times[0] > Timestamp(0));
}

/// It waits there until the snapshot is in, once the peer has said that it takes that.
#[test]
fn what_follows_a_snapshot_is_sent_while_it_is_on_its_way() {
    let mut raft = sending(false);
    let appended = |raft: &mut Raft| {
        raft.messages().clear();
        goes_on(raft);
        let sent = raft.messages().drain(..).filter_map(|message| match message.payload {
            Payload::Append(append) if message.head.to == node(2) => {
                Some((append.prev, entry::frames(&append.frames).count()))
            }
            _ => None,
        });
        sent.collect::<Vec<_>>()
    };
    assert_eq!(appended(&mut raft), []);
    answer(&mut raft, of_this(10, false));
    assert_eq!(appended(&mut raft), [(SNAPSHOT.at, 1)]);
    assert_eq!(appended(&mut raft), [], "once");
}

/// What follows it directly is the first that this disk can give.
#[test]
fn a_snapshot_is_outrun_when_what_follows_it_is_gone() {
    for (gives_from, is_outrun) in [(2, false), (3, true)] {
        let mut raft = sending(false);
        raft.facts.gives_from = LogIndex(gives_from);
        goes_on(&mut raft);
        assert_eq!(raft.marks.has(Mark::InstallOutrun), is_outrun);
        assert_eq!(peer(&mut raft).transfer.is_none(), is_outrun);
    }
}

#[test]
fn who_gets_further_is_stuck_no_more() {
    for moves in [true, false] {
        let mut raft = sending(false);
        peer(&mut raft).is_stuck = true;
        answer(&mut raft, of_this(if moves { 10 } else { 0 }, false));
        raft.now = raft.now.after(raft.tuning.heartbeat);
        raft.time_out();
        assert_eq!(peer(&mut raft).is_stuck, !moves);
    }
}

/// Where the state itself is lost the log alone is no way to it, however much of that there is.
#[test]
fn a_log_without_its_state_reaches_nowhere() {
    let mut cluster = Cluster::led(3);
    cluster.elapse(300 * MS);
    let raft = &mut cluster.at(2).raft;
    (raft.facts.is_state_lost, raft.facts.hole) = (true, Some(id(2, 9)));
    let applied = raft.log.marks.applying();
    assert_eq!([applied.previous(), applied].map(|at| raft.reaches(id(2, at.0))), [true, false]);
    assert!(!raft.reaches(id(2, 8)));
}

/// One of all that there is may have been sent; one of more was not.
#[test]
fn word_of_a_snapshot_that_was_never_sent_is_a_fault() {
    let mut raft = sending(false);
    let last = raft.log.last();
    for (at, faults) in [(last, 0), (LogId { index: last.index.next(), ..last }, 1)] {
        raft.actions.clear();
        answer(&mut raft, InstallAnswer { snapshot: at, ..of_this(0, false) });
        assert_eq!(raft.actions.len(), faults, "{:?}", raft.actions);
    }
}

/// Who led before learns that it does not; and one who leads now is followed.
#[test]
fn a_piece_is_taken_from_who_leads_now() {
    for (term, is_taken) in [(1, false), (2, true), (3, true)] {
        let mut cluster = Cluster::led(3);
        let head = Head { term: Term(term), ..cluster.at(1).raft.head_to(node(2)) };
        let snapshot = SnapshotName { at: id(1, 900), ..SNAPSHOT };
        let payload = Payload::Install(Piece { snapshot, ..piece(0, 10) });
        let raft = &mut cluster.at(2).raft;
        raft.on_message(node(1), Message { head, payload });
        assert_eq!(raft.pieces().len(), usize::from(is_taken), "{term}");
        assert_eq!(raft.marks.has(Mark::StaleTermAnswered), !is_taken);
    }
}

/// What follows the snapshot was compacted: it is the next one that it will go on from.
#[test]
fn what_is_no_more_in_the_log_is_not_sent_behind_a_snapshot() {
    let mut raft = sending(false);
    answer(&mut raft, of_this(10, false));
    raft.log.compacted(LogIndex(3));
    goes_on(&mut raft);
    assert_eq!(peer(&mut raft).next, LogIndex(2));
    assert!(raft.wishes().is_empty());
}

/// It is asked what it holds with each heartbeat, and lacks what the snapshot brings.
#[test]
fn who_is_sent_a_snapshot_is_not_asked_anew_for_lacking_it() {
    let mut raft = sending(false);
    let (from, second) = (node(2), peer(&mut raft));
    second.sequence = second.sequence.max(second.probing_since);
    let sequence = second.sequence;
    let runs = vec![(LogIndex(0), Term(0))];
    let conflict = Conflict { through: LogIndex(0), committed: LogIndex(0), runs };
    let answer =
        AppendAnswer { sequence, conflict: Some(Box::new(conflict)), ..AppendAnswer::default() };
    let (to, answers) = (node(1), raft.life());
    let head =
        Head { from, to, incarnation: 200, to_incarnation: 100, answers, ..raft.head_to(from) };
    raft.on_message(from, Message { head, payload: Payload::AppendAnswer(answer) });
    let peer = peer(&mut raft);
    assert_eq!((peer.pace, peer.transfer.is_some()), (Pace::Install, true));
    assert_eq!(peer.transfer.and_then(|transfer| transfer.at()), Some(SNAPSHOT.at.index));
}

/// For people: what is sent again counts again.
#[test]
fn the_bytes_of_snapshots_are_counted_at_both_ends() {
    let told = |raft: &Raft| {
        let mut status = Status::default();
        raft.report(&mut status);
        (status.snapshot_bytes_sent, status.snapshot_bytes_received)
    };
    let mut raft = sending(false);
    assert_eq!(told(&raft), (10, 0));
    answer(&mut raft, of_this(10, false));
    raft.stray();
    raft.replicate();
    raft.on_piece_read(node(2), piece(10, 30));
    assert_eq!(told(&raft), (40, 0));
    let mut cluster = Cluster::led(3);
    let head = cluster.at(1).raft.head_to(node(2));
    let snapshot = SnapshotName { at: id(2, 900), ..SNAPSHOT };
    for (bytes, received) in [(10, 10), (10, 20), (5, 25)] {
        let payload = Payload::Install(Piece { snapshot, ..piece(0, bytes) });
        cluster.at(2).raft.on_message(node(1), Message { head, payload });
        assert_eq!(told(&cluster.at(2).raft), (0, received));
    }
}

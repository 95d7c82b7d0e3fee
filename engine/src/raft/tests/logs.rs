use super::*;
use crate::message::{Append, AppendAnswer, Conflict, InstallAnswer};

fn appends(said: &[(NodeId, Payload)]) -> Vec<(NodeId, LogId, usize, LogIndex)> {
    let append = |(to, payload): &(NodeId, Payload)| match payload {
        Payload::Append(append) => {
            let entries = entry::frames(&append.frames).count();
            Some((*to, append.prev, entries, append.commit))
        }
        _ => None,
    };
    said.iter().filter_map(append).collect()
}

#[test]
fn the_leader_sends_before_its_own_sync_and_counts_itself_after() {
    let mut cluster = Cluster::led(3);
    cluster.at(1).disk.lazy = true;
    cluster.isolate(3);
    cluster.propose(1, 7, &["a"]);
    let said = cluster.said(1);
    let expected = (id(2, 1), 1, LogIndex(1));
    assert_eq!(appends(&said), [2, 3].map(|to| (node(to), expected.0, expected.1, expected.2)));

    // Node 2 has it durably; one of three is no quorum.
    let answer = AppendAnswer {
        sequence: 1,
        matched: LogIndex(2),
        durable: LogIndex(2),
        ..AppendAnswer::default()
    };
    from_peer(&mut cluster, Payload::AppendAnswer(answer));
    cluster.settle(1);
    assert_eq!(cluster.at(1).raft.committed(), LogIndex(1));
    cluster.at(1).disk.sync();
    cluster.settle(1);
    assert_eq!(cluster.at(1).raft.committed(), LogIndex(2));
    assert_eq!(commands(cluster.at(1)), [("a".into(), Some(7))]);
}

fn from_peer(cluster: &mut Cluster, payload: Payload) {
    let term = cluster.at(1).raft.term;
    let answers = cluster.at(1).raft.life();
    let head = Head {
        from: node(2),
        to: node(1),
        incarnation: 200,
        to_incarnation: 100,
        answers,
        term,
        ..cluster.at(2).raft.head_to(node(1))
    };
    cluster.at(1).raft.on_message(node(2), Message { head, payload });
}

#[test]
fn a_follower_acknowledges_what_is_durable_and_matched() {
    let mut cluster = Cluster::led(3);
    cluster.at(2).disk.lazy = true;
    cluster.at(3).disk.lazy = true;
    cluster.propose(1, 1, &["a"]);
    cluster.run();
    assert_eq!(cluster.at(1).raft.committed(), LogIndex(1), "received is not stored");
    cluster.at(2).disk.sync();
    cluster.run();
    assert_eq!(cluster.at(1).raft.committed(), LogIndex(2));
}

/// The figure's followers, whose logs lack entries, have extra ones, or both.
#[test]
fn figure_7_followers_end_with_the_leaders_log() {
    let leader = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    let followers: [&[u64]; 6] = [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
    ];
    for follower in followers {
        // The third node has the leader's log, so that it wins whatever the follower thinks.
        let terms: [&[u64]; 3] = [&leader, follower, &leader];
        let disks = terms.map(|terms| disk_with(7, terms, 3));
        let mut cluster = Cluster::new(disks.into());
        cluster.elect(1);
        cluster.elapse(200 * MS);
        let expected = cluster.at(1).ids();
        assert_eq!(expected.len(), 11, "the leader's term begins with an entry of its own");
        assert_eq!(cluster.at(2).ids(), expected, "{follower:?}");
        assert_eq!(cluster.nodes[1].applied, cluster.nodes[0].applied);
    }
}

/// Figure 8 (c): an entry of term 2 on a majority is not committed by counting; the first entry
/// of the leader's own term commits both.
#[test]
fn figure_8_older_terms_are_not_committed_by_counting() {
    let logs: [&[u64]; 5] = [&[1, 2], &[1, 2], &[1, 2], &[1], &[1]];
    let mut cluster = Cluster::new(logs.map(|terms| disk_with(3, terms, 5)).into());
    cluster.elect(1);
    let mut cluster = {
        // Again, but every follower's disk keeps what it has and takes nothing new.
        let disks = logs.map(|terms| disk_with(3, terms, 5));
        assert_eq!(cluster.at(1).raft.committed(), LogIndex(3));
        Cluster::new(disks.into())
    };
    for id in 2..=5 {
        cluster.at(id).raft.patience = Duration::from_secs(3600);
    }
    cluster.run();
    cluster.pass(3000 * MS);
    cluster.settle(1);
    while let Some((from, message)) = cluster.queue.pop_front() {
        if let Payload::Append(append) = &message.payload
            && !append.frames.is_empty()
        {
            cluster.at(message.head.to.0).disk.lazy = true;
        }
        cluster.deliver(from, message);
    }
    assert_eq!(cluster.at(1).role(), status::Role::Leader);
    assert_eq!(cluster.at(1).ids().len(), 3);
    assert_eq!(cluster.at(1).raft.committed(), LogIndex(0), "index 2 is on three of five");
    cluster.elapse(100 * MS);
    assert!(cluster.at(1).has(Mark::OlderTermNotCounted));
    for id in 2..=3 {
        cluster.at(id).disk.sync();
    }
    cluster.run();
    assert_eq!(cluster.at(1).raft.committed(), LogIndex(3));
}

/// A delayed or repeated append must not cut entries that do not conflict (lessons.md 12).
#[test]
fn a_repeated_append_cuts_nothing() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    let now = cluster.now;
    let first = cluster.at(1).settle(now);
    for message in first.clone() {
        cluster.deliver(node(1), message);
    }
    cluster.propose(1, 2, &["b"]);
    cluster.run();
    let before = cluster.at(2).ids();
    assert_eq!(before.len(), 3);
    for message in first.into_iter().filter(|message| message.head.to == node(2)) {
        cluster.deliver(node(1), message);
    }
    assert_eq!(cluster.at(2).ids(), before);
    assert!(cluster.at(2).has(Mark::DuplicateAppendKept));
    assert!(!cluster.at(2).has(Mark::ConflictTruncated));
}

fn impossible_appends(cluster: &mut Cluster) -> Vec<(Message, &'static str)> {
    let head = Head { answers: Life::NONE, ..cluster.at(1).raft.head_to(node(2)) };
    let other = disk_with(1, &[1, 1, 1], 3).log;
    let append = |prev, frames: &[Bytes]| {
        Payload::Append(Append {
            sequence: 99,
            prev,
            frames: frames.concat().into(),
            ..Append::default()
        })
    };
    let frames: Vec<Bytes> = other.iter().map(|(_, frame)| frame.clone()).collect();
    let mut flipped = frames[0].to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let gap = [frames[0].clone(), frames[2].clone()];
    let cases = [
        (
            append(LogId::ZERO, &frames[..1]),
            "another entry where one is committed, or than it sent in this term",
        ),
        (
            append(id(1, 1), &[]),
            "another entry where one is committed, or than it sent in this term",
        ),
        (append(LogId::ZERO, &[flipped.into()]), "entry body checksum"),
        (append(LogId::ZERO, &gap), "entries that do not follow each other"),
        (append(id(2, 1), &frames[..1]), "entries that do not follow each other"),
    ];
    cases.map(|(payload, why)| (Message { head, payload }, why)).into()
}

#[test]
fn impossible_appends_change_nothing() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.run();
    cluster.elapse(100 * MS);
    for (message, why) in impossible_appends(&mut cluster) {
        let before = (cluster.at(2).ids(), cluster.at(2).raft.log.marks);
        cluster.at(2).notes.clear();
        cluster.deliver(node(1), message);
        assert_eq!(cluster.at(2).faults(), [why]);
        assert_eq!((cluster.at(2).ids(), cluster.at(2).raft.log.marks), before);
    }
}

#[test]
fn acknowledging_what_was_never_sent_is_a_fault() {
    let usual = AppendAnswer::default;
    let conflict = |committed| {
        let (through, committed) = (LogIndex(1), LogIndex(committed));
        Some(Box::new(Conflict { through, committed, runs: vec![(LogIndex(1), Term(2))] }))
    };
    let answers = [
        (AppendAnswer { matched: LogIndex(50), durable: LogIndex(50), ..usual() }, true),
        (AppendAnswer { matched: LogIndex(0), durable: LogIndex(1), ..usual() }, true),
        (AppendAnswer { sequence: 1000, ..usual() }, true),
        (AppendAnswer { round: 1000, ..usual() }, true),
        (AppendAnswer { conflict: conflict(2), ..usual() }, true),
        // The leader's log has one entry.
        (AppendAnswer { conflict: conflict(1), ..usual() }, false),
    ];
    for (answer, is_fault) in answers {
        let mut cluster = Cluster::led(3);
        from_peer(&mut cluster, Payload::AppendAnswer(answer.clone()));
        cluster.settle(1);
        let expected = if is_fault { &["acknowledges what was never sent"][..] } else { &[] };
        assert_eq!(cluster.at(1).faults(), expected, "{answer:?}");
        assert_eq!(cluster.at(1).raft.committed(), LogIndex(1));
    }
}

/// Two logs of many terms that have nothing in common above the first entry.
#[test]
fn divergence_is_found_in_few_messages() {
    let runs = 1000;
    let leader: Vec<u64> = std::iter::once(1).chain((1..runs).map(|run| run * 2)).collect();
    let follower: Vec<u64> = std::iter::once(1).chain((1..runs).map(|run| run * 2 + 1)).collect();
    let term = runs * 2 + 2;
    let disks = [&leader, &follower, &leader].map(|terms| disk_with(term, terms, 3));
    let mut cluster = Cluster::new(disks.into());
    let mut longer = leader.clone();
    longer.push(term);
    cluster.nodes[0] =
        Node::start(disk_with(term, &longer, 3), 1, &cluster.tuning.clone(), 1, cluster.now);
    cluster.elect(1);
    let before = cluster.delivered;
    cluster.elapse(100 * MS);
    assert_eq!(cluster.at(2).ids(), cluster.at(1).ids());
    assert!(cluster.at(1).has(Mark::DivergenceBisected));
    let probes = cluster.at(1).raft.log.last().index.0.ilog2() as usize;
    assert!(cluster.delivered - before < 8 * probes, "{}", cluster.delivered - before);
}

#[test]
fn one_round_trip_finds_a_plain_conflict() {
    let leader = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    let follower = [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3];
    let mut cluster =
        Cluster::new([&leader[..], &follower, &leader].map(|t| disk_with(7, t, 3)).into());
    cluster.elect(1);
    cluster.elapse(100 * MS);
    let peer = match &mut cluster.at(1).raft.role {
        Role::Leader(leader) => leader.peer(node(2)).unwrap().clone(),
        other => panic!("{other:?}"),
    };
    assert!(peer.sequence <= 4, "a probe, the entries, a heartbeat: {}", peer.sequence);
    assert_eq!(cluster.at(2).ids(), cluster.at(1).ids());
}

fn small() -> Tuning {
    Tuning {
        append_bytes_max: 256,
        inflight_bytes_max: 1024,
        cache_bytes_max: 1024,
        apply_bytes_max: 512,
        catch_up_bytes_max: 256,
        ..Tuning::default()
    }
}

fn led_with(nodes: u64, tuning: Tuning) -> Cluster {
    let mut cluster =
        Cluster::tuned((0..nodes).map(|_| disk_with(1, &[], nodes)).collect(), tuning);
    cluster.elect(1);
    cluster
}

#[test]
fn a_peer_that_was_away_is_fed_from_disk_and_memory_stays_bounded() {
    let mut cluster = led_with(3, small());
    cluster.isolate(3);
    for request in 0..200 {
        cluster.propose(1, request, &["a command of some length"]);
        cluster.run();
        assert!(cluster.at(1).raft.log.cache_bytes() <= 1024);
    }
    cluster.cut.clear();
    cluster.elapse(500 * MS);
    assert!(cluster.at(1).disk.reads > 10);
    assert!(cluster.at(1).has(Mark::PeerFedFromDisk));
    assert_eq!(cluster.at(3).ids(), cluster.at(1).ids());
    assert_eq!(cluster.at(3).applied.len(), 200);
}

/// A storm of three, seed 1007335: entries were asked back from disk for a peer, its late answers
/// then let the log let go of them, and neither the read came nor another one was asked for.
#[test]
fn a_peer_is_fed_though_a_read_for_it_never_came() {
    let mut cluster = led_with(3, small());
    cluster.isolate(3);
    for request in 0..50 {
        cluster.propose(1, request, &["a command of some length"]);
        cluster.run();
    }
    let Role::Leader(leader) = &mut cluster.at(1).raft.role else { panic!("it leads") };
    let peer = leader.peer(node(3)).unwrap();
    peer.reading = true;
    peer.probe(peer.next);
    cluster.cut.clear();
    cluster.elapse(500 * MS);
    assert_eq!(cluster.at(3).ids(), cluster.at(1).ids());
}

/// Churn, seed 3600170: a link that mixes up what is sent, and a message for each of thousands of
/// entries. All of them were sent anew for each one that came where it belonged.
#[test]
fn who_was_away_is_sent_many_entries_at_once_though_they_came_one_by_one() {
    let mut cluster = Cluster::led(3);
    cluster.isolate(3);
    for request in 0..100 {
        cluster.propose(1, request, &["a command of some length"]);
        cluster.run();
    }
    let before = cluster.at(1).raft.log.marks.last();
    let Role::Leader(leader) = &mut cluster.at(1).raft.role else { panic!("it leads") };
    let sent = leader.peer(node(3)).unwrap().sequence;
    cluster.cut.clear();
    cluster.elapse(300 * MS);
    assert_eq!(cluster.at(1).raft.log.marks.last(), before);
    assert_eq!(cluster.at(3).ids(), cluster.at(1).ids());
    let Role::Leader(leader) = &mut cluster.at(1).raft.role else { panic!("it leads") };
    let appends = leader.peer(node(3)).unwrap().sequence - sent;
    assert!(appends <= 12, "a probe, the entries, a heartbeat each 50 ms: {appends}");
}

#[test]
fn small_pieces_are_joined_as_far_as_there_is_room() {
    let mut cluster = Cluster::led(1);
    for request in 0..4 {
        cluster.propose(1, request, &[&"x".repeat(10 * request as usize)]);
        cluster.run();
    }
    for command in ["large".repeat(1000), "x".to_string()] {
        cluster.propose(1, 4, &[&command]);
        cluster.run();
    }
    let node = cluster.at(1);
    let frames: Vec<&[u8]> = node.disk.log.iter().map(|(_, frame)| &frame[..]).collect();
    let gather = |from, to, bytes_max, room| {
        let chunk = node.raft.log.gather(LogIndex(from), LogIndex(to), bytes_max, room).unwrap();
        assert_eq!(chunk.first, LogIndex(from));
        let expected = frames[from as usize - 1..chunk.last.0 as usize].concat();
        assert_eq!(chunk.frames, expected);
        chunk.last.0
    };
    let ample = 1 << 20;
    for from in 1..=5 {
        for to in from..=5 {
            assert_eq!(gather(from, to, ample, ample), to);
            assert_eq!(gather(from, to, ample, 0), from, "one always");
            assert_eq!(gather(from, to, 0, ample), from, "one always");
            let bytes = frames[from as usize - 1..to as usize].concat().len();
            assert_eq!(gather(from, 5, ample, bytes), to);
            assert_eq!(gather(from, 5, ample, bytes - 1), (to - 1).max(from));
        }
    }
    assert_eq!(frames.len(), 7);
    assert_eq!(gather(1, 7, ample, ample), 5, "what is large goes as it is");
    assert_eq!(gather(6, 7, ample, ample), 6, "and alone");
    assert_eq!(node.raft.log.gather(LogIndex(8), LogIndex(8), ample, ample), None);
}

#[test]
fn the_window_bounds_what_is_on_its_way() {
    let mut cluster = led_with(3, small());
    cluster.isolate(3);
    cluster.at(2).disk.lazy = true;
    for request in 0..100 {
        cluster.propose(1, request, &["a command of some length"]);
        cluster.run();
    }
    let unacknowledged: usize =
        cluster.at(2).disk.log[1..].iter().map(|(_, frame)| frame.len()).sum();
    assert!((512..=1024).contains(&unacknowledged), "{unacknowledged}");
    assert!(cluster.at(1).has(Mark::WindowFull));
    cluster.at(2).disk.lazy = false;
    cluster.elapse(300 * MS);
    assert_eq!(cluster.at(2).ids().len(), 101);
}

#[test]
fn the_machine_is_given_no_more_than_it_may_hold() {
    let mut cluster = led_with(1, small());
    cluster.at(1).prompt = false;
    for request in 0..100 {
        cluster.propose(1, request, &["a command of some length"]);
        cluster.run();
    }
    let given = cluster.at(1).raft.log.marks.applying();
    assert!((LogIndex(5)..LogIndex(8)).contains(&given), "{given}");
    // Memory forgot what comes next; the disk has it.
    cluster.at(1).prompt = true;
    cluster.at(1).raft.on_applied(given);
    cluster.run();
    assert_eq!(commands(cluster.at(1)).len(), 100);
    assert!(cluster.at(1).has(Mark::MachineFedFromDisk));
}

/// Read as leader, cut as follower, delivered as leader again.
#[test]
fn entries_read_before_a_cut_are_not_sent_after_it() {
    let mut cluster = led_with(3, small());
    let stale = disk_with(1, &[1, 1, 1], 3).read(ReadWish {
        reader: crate::storage::Reader::Peer(node(2)),
        from: LogIndex(2),
        to: LogIndex(3),
        bytes_max: 1000,
    });
    (0..20).for_each(|request| {
        cluster.propose(1, request, &["a command of some length"]);
        cluster.run();
    });
    let Role::Leader(leader) = &mut cluster.at(1).raft.role else { panic!("it leads") };
    let peer = leader.peer(node(2)).unwrap();
    (peer.pace, peer.next) = (progress::Pace::Replicate, LogIndex(2));
    cluster.at(1).raft.on_read_back(crate::storage::Reader::Peer(node(2)), stale);
    let Role::Leader(leader) = &mut cluster.at(1).raft.role else { panic!("it leads") };
    assert_eq!(leader.peer(node(2)).unwrap().fed, None);
}

/// Read for a peer, and not sent before a snapshot was on its way to it, which moved where it goes on: what
/// was read was sent as what follows the snapshot (churn, seed 7140285).
#[test]
fn what_was_read_for_a_peer_is_sent_from_where_it_goes_on_only() {
    let mut cluster = Cluster::led(3);
    for request in 0..8 {
        cluster.propose(1, request, &["a"]);
        cluster.run();
    }
    let read = cluster.at(1).raft.log.slice(LogIndex(2), LogIndex(4), 1000);
    let Role::Leader(leader) = &mut cluster.at(1).raft.role else { panic!("it leads") };
    let peer = leader.peer(node(2)).unwrap();
    assert!(read.is_some() && peer.next > LogIndex(8));
    peer.fed = read;
    cluster.propose(1, 9, &["b"]);
    let first = |(to, payload): (NodeId, Payload)| match payload {
        Payload::Append(append) => {
            let first = entry::frames(&append.frames).next().expect("it is no heartbeat");
            Some((to, append.prev.index.next(), first.id.index))
        }
        _ => None,
    };
    let said: Vec<_> = cluster.said(1).into_iter().filter_map(first).collect();
    assert_eq!(said, [2, 3].map(|to| (node(to), LogIndex(10), LogIndex(10))));
}

#[test]
fn those_who_are_caught_up_hear_of_a_commit_with_the_next_entries() {
    let mut cluster = Cluster::led(3);
    let before = cluster.delivered;
    for request in 1..=10 {
        cluster.propose(1, request, &["a"]);
        cluster.run();
    }
    assert_eq!(cluster.delivered - before, 40, "entries and acknowledgements");
    assert_eq!([1, 2, 3].map(|id| cluster.at(id).applied.len()), [10, 9, 9]);
}

#[test]
fn those_who_are_caught_up_hear_of_a_commit_in_time_and_do_not_answer() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.run();
    let before = cluster.delivered;
    let notice = cluster.at(1).raft.deadline().expect("a leader has heartbeats");
    assert_eq!(notice, cluster.now.after(Tuning::default().commit_notice));
    cluster.pass(notice.0 - cluster.now.0);
    cluster.run();
    assert_eq!(cluster.delivered - before, 2, "one to each, and no answer");
    assert_eq!([2, 3].map(|id| cluster.at(id).applied.len()), [1, 1]);
    assert!(cluster.at(1).raft.deadline().expect("heartbeats go on") > cluster.now);
}

/// A leader whose log begins late knows nothing of a peer; asked about the entry before its first
/// one, the peer says what it has.
#[test]
fn no_peer_is_asked_about_what_is_gone() {
    let disks = (0..3).map(|_| disk_with(1, &[1; 20], 3)).collect();
    let mut cluster = Cluster::new(disks);
    cluster.elect(1);
    cluster.elapse(200 * MS);
    cluster.isolate(3);
    cluster.at(3).disk.log.truncate(15);
    cluster.at(3).disk.durable = 15;
    cluster.crash(3);
    cluster.at(1).raft.log.compacted(LogIndex(11));
    cluster.at(1).raft.become_follower(Term(2), None);
    cluster.elect(1);
    cluster.at(1).raft.on_link(node(3), false);
    cluster.settle(1);
    cluster.cut.clear();
    cluster.at(1).raft.on_link(node(3), true);
    cluster.run();
    assert_eq!(cluster.nodes[2].ids(), cluster.nodes[0].ids());
}

/// Nobody may be told that he has it still.
#[test]
fn what_a_snapshot_takes_the_place_of_is_durable_no_more() {
    let mut log = Log::new(&recovered(&disk_with(5, &[1, 1, 2, 2, 2, 4], 1), 1));
    log.advance_durable(LogIndex(6));
    log.end_before(id(3, 4));
    assert_eq!(log.marks.durable(), LogIndex(4));
}

/// Whom the snapshots that there are do no good, another one is taken for, once; and only by the leader.
#[test]
fn a_leader_takes_a_snapshot_for_whom_the_last_one_does_no_good() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a", "b"]);
    cluster.elapse(300 * MS);
    assert!(!cluster.at(1).raft.wants_own_snapshot());
    let answers = cluster.at(1).raft.life();
    // It asks for a snapshot, and there is none.
    let head = Head { answers, ..cluster.at(2).raft.head_to(node(1)) };
    let payload = Payload::InstallAnswer(InstallAnswer::default());
    cluster.at(1).raft.on_message(node(2), Message { head, payload });
    let raft = &mut cluster.at(1).raft;
    assert!(raft.wants_own_snapshot());
    raft.facts.newest = LogIndex(1);
    assert!(!raft.wants_own_snapshot(), "there is another one");
    raft.facts.newest = LogIndex(0);
    raft.become_follower(Term(9), None);
    assert!(!raft.wants_own_snapshot(), "that is the next leader's affair");
}

/// A machine is never given less than it held, whatever state was lost.
#[test]
fn a_snapshot_of_less_than_was_applied_is_not_needed() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a", "b"]);
    cluster.elapse(300 * MS);
    let raft = &mut cluster.at(2).raft;
    let applied = raft.log.marks.applying();
    assert!(applied > LogIndex(1));
    raft.facts.is_state_lost = true;
    let reaches = [applied.previous(), applied, applied.next()]
        .map(|index| raft.reaches(LogId::new(Term(1), index)));
    assert_eq!(reaches, [true, false, false]);
    raft.facts.is_state_lost = false;
    assert!(raft.reaches(LogId::new(Term(1), applied)), "then its log is as good");
}

#[test]
fn a_run_that_reaches_over_the_border_is_one() {
    let mut log = Log::new(&recovered(&disk_with(5, &[1, 1, 2, 2, 2, 4], 1), 1));
    log.marks.advance_committed(LogIndex(6));
    log.compacted(LogIndex(4));
    let runs = log.runs_up_to(LogIndex(6), 8);
    assert_eq!(runs, [(LogIndex(3), Term(2)), (LogIndex(6), Term(4))]);
}

#[test]
fn nothing_is_sent_over_a_link_that_is_down() {
    let mut cluster = Cluster::led(3);
    cluster.at(1).raft.on_link(node(3), false);
    cluster.propose(1, 1, &["a"]);
    let said = cluster.said(1);
    assert_eq!(appends(&said).iter().map(|append| append.0).collect::<Vec<_>>(), [node(2)]);
    cluster.at(1).raft.on_link(node(3), true);
    let said = cluster.said(1);
    assert_eq!(appends(&said)[0], (node(3), id(2, 1), 1, LogIndex(1)), "it is asked anew");
}

/// A lost append shows in the next one's refusal, or in silence.
#[test]
fn a_lost_append_is_sent_again() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    let now = cluster.now;
    drop(cluster.at(1).settle(now));
    assert_eq!(cluster.at(2).ids().len(), 1);
    cluster.elapse(300 * MS);
    assert_eq!(cluster.at(2).ids().len(), 2);
    assert_eq!(cluster.at(3).ids().len(), 2);
}

#[test]
fn followers_hear_what_may_be_removed() {
    let mut cluster = Cluster::led(3);
    cluster.propose(1, 1, &["a"]);
    cluster.elapse(300 * MS);
    assert_eq!([1, 2].map(|id| cluster.at(id).raft.retained()), [LogIndex(3); 2]);
    cluster.isolate(3);
    cluster.propose(1, 2, &["b"]);
    cluster.elapse(300 * MS);
    assert_eq!([1, 2].map(|id| cluster.at(id).raft.retained()), [LogIndex(3); 2], "3 needs it");
}

#[test]
#[should_panic(expected = "truncating 1, committed is 2")]
fn committed_entries_are_never_cut() {
    let mut cluster = Cluster::led(1);
    cluster.propose(1, 1, &["a"]);
    cluster.run();
    cluster.at(1).raft.log.truncate(LogIndex(1));
}

#[test]
fn compaction_forgets_identities_below_and_keeps_the_border() {
    let disk = disk_with(5, &[1, 1, 2, 2, 2, 4], 1);
    for first in 1..=7 {
        let mut log = Log::new(&recovered(&disk, 1));
        log.marks.advance_committed(LogIndex(6));
        log.compacted(LogIndex(first));
        let terms = [0, 1, 1, 2, 2, 2, 4];
        for (index, term) in (0..).zip(terms) {
            let known = index + 1 >= first;
            let expected = known.then_some(Term(term));
            assert_eq!(log.term_at(LogIndex(index)), expected, "{index} from {first}");
        }
        assert_eq!(log.last(), id(4, 6));
    }
}

/// Its disk hung, and its link broke now and then: each time it was given another window, and had memory
/// for one.
#[test]
fn a_peer_that_is_asked_anew_may_hold_a_window_in_memory_still() {
    let window = 4096;
    let tuning = Tuning { inflight_bytes_max: window, append_bytes_max: 1024, ..Tuning::default() };
    let mut cluster = Cluster::tuned((0..3).map(|_| disk_with(1, &[], 3)).collect(), tuning);
    cluster.elect(1);
    cluster.run();
    cluster.at(3).disk.lazy = true;
    let command = "x".repeat(200);
    for round in 0..10 {
        for n in 0..100 {
            cluster.propose(1, round * 100 + n, &[&command]);
            cluster.run();
        }
        cluster.at(1).raft.on_link(node(3), false);
        cluster.run();
        cluster.at(1).raft.on_link(node(3), true);
        cluster.elapse(200 * MS);
    }
    let disk = &cluster.nodes[2].disk;
    let open: usize = disk.log[disk.durable..].iter().map(|(_, frame)| frame.len()).sum();
    assert!(open as u64 <= window + 1024 && open > 1024, "{open} bytes");
    cluster.at(3).disk.lazy = false;
    cluster.elapse(1000 * MS);
    assert_eq!(cluster.nodes[2].ids(), cluster.nodes[0].ids());
}

/// Whoever takes in a snapshot refuses what agrees with its log too: it was sent the same entries again as
/// fast as it refused them.
#[test]
fn who_refuses_the_same_again_is_asked_by_the_next_heartbeat() {
    let mut cluster = Cluster::led(3);
    cluster.run();
    cluster.isolate(2);
    cluster.propose(1, 1, &["a"]);
    cluster.run();
    cluster.at(1).raft.on_link(node(2), false);
    cluster.at(1).raft.on_link(node(2), true);
    let sent = |cluster: &mut Cluster| {
        let said = cluster.said(1);
        appends(&said).into_iter().filter(|append| append.0 == node(2)).collect::<Vec<_>>()
    };
    assert_eq!(sent(&mut cluster), [(node(2), id(2, 1), 1, LogIndex(2))], "it is asked anew");
    let refusal = |cluster: &Cluster| {
        let Role::Leader(leader) = &cluster.nodes[0].raft.role else { panic!("it leads") };
        let sequence = leader.peers.iter().find(|peer| peer.id == node(2)).map(|p| p.sequence);
        let runs = vec![(LogIndex(1), Term(2))];
        let conflict = Conflict { through: LogIndex(1), committed: LogIndex(1), runs };
        Payload::AppendAnswer(AppendAnswer {
            sequence: sequence.expect("it is a peer"),
            conflict: Some(Box::new(conflict)),
            ..AppendAnswer::default()
        })
    };
    for _ in 0..3 {
        let payload = refusal(&cluster);
        from_peer(&mut cluster, payload);
        assert_eq!(sent(&mut cluster), []);
    }
    cluster.pass(cluster.tuning.heartbeat.as_nanos() as u64);
    assert_eq!(sent(&mut cluster), [(node(2), id(2, 1), 0, LogIndex(2))]);
}

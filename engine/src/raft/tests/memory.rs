//! What the log keeps in memory, and what is read back where it does not.

use super::{super::log::Log, *};

/// A log whose entries came in chunks of this many, all in `term`.
fn log_of(term: u64, chunks: &[usize]) -> Log {
    let mut log = Log::new(&recovered(&disk_with(1, &[], 1), 1));
    chunks.iter().for_each(|entries| append(&mut log, term, *entries));
    log
}

fn append(log: &mut Log, term: u64, entries: usize) {
    let (mut prev, mut heads, mut frames) = (log.last(), Vec::new(), Vec::new());
    for _ in 0..entries {
        let at = LogId::new(Term(term), prev.index.next());
        let (head, frame) =
            Batch::one(at.to_string().as_bytes()).seal(seed(), at, prev.term, Timestamp(1));
        heads.push(head);
        frames.extend_from_slice(&frame);
        prev = at;
    }
    log.append(&heads, frames.into());
}

/// All that is reckoned with, and every entry's bytes.
fn held(log: &Log) -> (LogId, u64, u64, Vec<Option<Bytes>>) {
    let bytes = (1..=9).map(|index| {
        let index = LogIndex(index);
        log.slice(index, index, usize::MAX).map(|chunk| chunk.frames)
    });
    (log.last(), log.cache_bytes(), log.volatile_bytes(), bytes.collect())
}

/// As if it had never been there: whether the disk had it or not, and where a chunk is cut in its middle.
#[test]
fn what_is_cut_is_in_memory_no_more() {
    for durable in [0, 1, 4, 5] {
        let mut cut = log_of(1, &[1, 3, 1]);
        cut.advance_durable(LogIndex(durable));
        cut.truncate(LogIndex(3));
        let mut short = log_of(1, &[1, 1]);
        short.advance_durable(LogIndex(durable.min(2)));
        assert_eq!(held(&cut), held(&short), "{durable} are durable");
        // Others take its place.
        for log in [&mut cut, &mut short] {
            append(log, 2, 2);
            log.advance_durable(LogIndex(3));
        }
        assert_eq!(held(&cut), held(&short), "{durable} were durable");
    }
}

/// What two who were away are sent is read for one after the other.
#[test]
fn no_more_is_read_at_once_than_who_catches_up_may_have() {
    let tuning = Tuning {
        append_bytes_max: 256,
        cache_bytes_max: 1024,
        catch_up_bytes_max: 512,
        ..Tuning::default()
    };
    let mut cluster = Cluster::tuned((0..4).map(|_| disk_with(1, &[], 4)).collect(), tuning);
    cluster.elect(1);
    for request in 0..50 {
        cluster.propose(1, request, &["a command of some length"]);
        cluster.run();
    }
    let raft = &mut cluster.at(1).raft;
    let Role::Leader(leader) = &mut raft.role else { panic!("it leads") };
    for peer in &mut leader.peers {
        peer.probe(LogIndex(2));
        peer.pace = progress::Pace::Replicate;
    }
    raft.stray();
    for (is_busy, wishes) in [(false, 2), (true, 1)] {
        let mut raft = raft.clone();
        let Role::Leader(leader) = &mut raft.role else { panic!("it leads") };
        leader.peers[0].reading = is_busy;
        raft.wishes().clear();
        raft.replicate();
        assert_eq!(raft.wishes().len(), wishes, "there is room for two of three");
    }
}

#[test]
fn what_is_in_memory_is_not_read() {
    let mut cluster = Cluster::led(3);
    for request in 0..5 {
        cluster.propose(1, request, &["a"]);
        cluster.run();
    }
    let raft = &mut cluster.at(1).raft;
    assert_eq!(raft.given(), raft.log.last(), "the machine has it as well");
    let Role::Leader(leader) = &mut raft.role else { panic!("it leads") };
    for peer in &mut leader.peers {
        peer.probe(LogIndex(2));
        peer.pace = progress::Pace::Replicate;
    }
    raft.stray();
    raft.replicate();
    assert_eq!((raft.wishes().len(), cluster.at(1).disk.reads), (0, 0));
}

#[test]
fn what_was_let_go_costs_nothing() {
    let mut log = log_of(1, &[1, 3, 1]);
    log.advance_durable(LogIndex(4));
    let newest = log_of(1, &[1, 3]).cache_bytes();
    let all = log.cache_bytes();
    log.evict(all);
    assert_eq!(log.cache_bytes(), all, "it is no more than may be kept");
    log.evict(0);
    assert_eq!(log.cache_bytes(), all - newest, "the disk does not have it");
    log.advance_durable(LogIndex(5));
    log.evict(0);
    assert_eq!(log.cache_bytes(), 0);
}

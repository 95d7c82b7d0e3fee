//! The machine's commands, one property each.

use super::*;
use crate::{Answered, Queries, command::tests::samples};
use lakebed::{LogIndex, Term};
use std::collections::BTreeSet;

#[path = "machine_options_tests.rs"]
mod options;

const SECOND: u64 = 1_000_000_000;

/// A machine whose log grows by a command at a time.
#[derive(Default)]
struct Log {
    kv: Kv,
    index: u64,
}

impl Log {
    fn apply_at(&mut self, time: u64, command: Command<'_>) -> String {
        let (mut bytes, mut answer) = (Vec::new(), Vec::new());
        command.encode(&mut bytes);
        self.index += 1;
        let at = LogId::new(Term(1), LogIndex(self.index));
        self.kv.apply(at, Timestamp(time), &bytes, &mut answer);
        String::from_utf8(answer).unwrap()
    }

    fn apply(&mut self, command: Command<'_>) -> String {
        self.apply_at(self.kv.time().0, command)
    }

    fn set(&mut self, key: &str, value: &str) -> String {
        let (key, value) = (key.as_bytes(), value.as_bytes());
        self.apply(Command::Set { key, value, when: When::Always, millis: 0 })
    }

    fn incr(&mut self, key: &str, by: i64) -> String {
        self.apply(Command::Incr { key: key.as_bytes(), by })
    }

    fn ask_at(&self, clock: u64, commands: &[Command<'_>]) -> Answered {
        let mut queries = Queries::default();
        queries.clock(Timestamp(clock));
        commands.iter().for_each(|command| queries.push(command));
        let mut answer = Vec::new();
        self.kv.query(queries.bytes(), &mut answer);
        Answered::parse(answer.into()).unwrap()
    }

    fn ask(&self, command: Command<'_>) -> String {
        let answered = self.ask_at(0, &[command]);
        assert_eq!((answered.count, answered.stopped), (1, Stopped::Done));
        String::from_utf8(answered.values.into()).unwrap()
    }

    fn get(&self, key: &str) -> String {
        self.ask(Command::Get(key.as_bytes()))
    }
}

fn list<'a>(items: &[&str], buf: &'a mut Vec<u8>) -> List<'a> {
    List::of(items.iter().map(|item| item.as_bytes()), buf)
}

fn frozen(kv: &Kv) -> Vec<u8> {
    kv.freeze().flat_map(Vec::from).collect()
}

#[test]
fn a_value_is_what_was_set_last() {
    let mut log = Log::default();
    assert_eq!(log.get("a"), "$-1\r\n");
    assert_eq!(log.set("a", "1"), "+OK\r\n");
    assert_eq!(log.set("a", "twelve"), "+OK\r\n");
    assert_eq!(log.get("a"), "$6\r\ntwelve\r\n");
}

#[test]
fn conditions_of_set_hold() {
    let mut log = Log::default();
    let set = |when, value| Command::Set { key: b"a", value, when, millis: 0 };
    assert_eq!(log.apply(set(When::Present, b"0")), "$-1\r\n");
    assert_eq!(log.apply(set(When::Absent, b"1")), "+OK\r\n");
    assert_eq!(log.apply(set(When::Absent, b"2")), "$-1\r\n");
    assert_eq!(log.apply(set(When::Present, b"3")), "+OK\r\n");
    assert_eq!(log.get("a"), "$1\r\n3\r\n");
}

#[test]
fn del_and_exists_count_keys() {
    let (mut log, mut buf) = (Log::default(), Vec::new());
    log.set("a", "");
    log.set("b", "");
    let keys = list(&["a", "a", "b", "c"], &mut buf);
    assert_eq!(log.ask(Command::Exists(keys)), ":3\r\n");
    assert_eq!(log.apply(Command::Del(keys)), ":2\r\n");
    assert_eq!(log.ask(Command::Exists(keys)), ":0\r\n");
    assert!(log.kv.is_empty());
}

#[test]
fn incr_counts_from_zero_and_refuses_what_is_no_number() {
    let mut log = Log::default();
    assert_eq!(log.incr("n", 1), ":1\r\n");
    assert_eq!(log.incr("n", -43), ":-42\r\n");
    assert_eq!(log.get("n"), "$3\r\n-42\r\n");
    for value in ["", "x", "1.5", " 1", "+1", "01", "-0", "9223372036854775808"] {
        log.set("n", value);
        assert_eq!(log.incr("n", 1), format!("-{NOT_AN_INTEGER}\r\n"), "{value:?}");
    }
}

#[test]
fn incr_does_not_overflow() {
    let mut log = Log::default();
    for (edge, by) in [(i64::MAX, 1), (i64::MIN, -1)] {
        log.set("n", &edge.to_string());
        assert_eq!(log.incr("n", by), format!("-{OVERFLOW}\r\n"));
        assert_eq!(log.incr("n", 0), format!(":{edge}\r\n"));
    }
}

#[test]
fn append_answers_the_new_length() {
    let mut log = Log::default();
    assert_eq!(log.apply(Command::Append { key: b"a", value: b"one" }), ":3\r\n");
    assert_eq!(log.apply(Command::Append { key: b"a", value: b"two" }), ":6\r\n");
    assert_eq!(log.get("a"), "$6\r\nonetwo\r\n");
}

#[test]
fn too_long_values_and_keys_are_refused_and_nothing_changes() {
    let (mut log, mut buf) = (Log::default(), Vec::new());
    let value = vec![b'v'; VALUE_BYTES_MAX];
    let key = vec![b'k'; KEY_BYTES_MAX + 1];
    let set = |key, value| Command::Set { key, value, when: When::Always, millis: 0 };
    assert_eq!(log.apply(set(b"a", &value)), "+OK\r\n");
    let before = log.kv.len();
    let refused = format!("-{TOO_LONG}\r\n");
    assert_eq!(log.apply(Command::Append { key: b"a", value: b"x" }), refused);
    assert_eq!(log.apply(set(&key, b"")), refused);
    assert_eq!(log.apply(Command::Incr { key: &key, by: 1 }), refused);
    assert_eq!(log.apply(Command::Append { key: &key, value: b"x" }), refused);
    let pairs = List::of([b"fits", &b"1"[..], &key, b"2"], &mut buf);
    assert_eq!(log.apply(Command::MSet(pairs)), refused);
    assert_eq!(log.kv.len(), before);
}

#[test]
fn many_are_set_and_got_at_once() {
    let (mut log, mut buf) = (Log::default(), Vec::new());
    assert_eq!(log.apply(Command::MSet(list(&["a", "1", "b", "2"], &mut buf))), "+OK\r\n");
    let answer = log.ask(Command::MGet(list(&["b", "none", "a"], &mut buf)));
    assert_eq!(answer, "*3\r\n$1\r\n2\r\n$-1\r\n$1\r\n1\r\n");
}

#[test]
fn an_answer_is_bounded() {
    let (mut log, mut buf) = (Log::default(), Vec::new());
    let value = vec![b'v'; VALUE_BYTES_MAX];
    log.apply(Command::Set { key: b"a", value: &value, when: When::Always, millis: 0 });
    let keys = list(&["a"; 17], &mut buf);
    assert_eq!(log.ask(Command::MGet(keys)), format!("-{ANSWER_TOO_LONG}\r\n"));
}

#[test]
fn a_query_stops_at_its_budget_and_says_where() {
    let mut log = Log::default();
    let value = vec![b'v'; VALUE_BYTES_MAX];
    log.apply(Command::Set { key: b"a", value: &value, when: When::Always, millis: 0 });
    let answered = log.ask_at(0, &[Command::Get(b"a"); 9]);
    assert_eq!((answered.count, answered.stopped), (2, Stopped::Budget));
    assert!(answered.values.len() <= QUERY_BYTES_MAX);
}

#[test]
fn a_query_is_answered_in_the_room_that_there_is() {
    let mut log = Log::default();
    log.set("a", "1234");
    log.set("b", &"b".repeat(100));
    let count = |keys: &[&str], bytes_max, must_answer| {
        let (mut queries, mut answer) = (Queries::default(), Vec::new());
        queries.room(bytes_max, must_answer);
        keys.iter().for_each(|key| queries.push(&Command::Get(key.as_bytes())));
        log.kv.query(queries.bytes(), &mut answer);
        let answered = Answered::parse(answer.into()).unwrap();
        let is_whole = answered.count == keys.len();
        assert_eq!(answered.stopped, if is_whole { Stopped::Done } else { Stopped::Budget });
        (answered.count, answered.values.len())
    };
    // Ten bytes for each `a`.
    assert_eq!(count(&["a"; 5], 50, false), (5, 50));
    assert_eq!(count(&["a"; 5], 49, false), (4, 40));
    assert_eq!(count(&["a", "b", "a"], 50, false), (1, 10));
    assert_eq!(count(&["b", "a"], 50, false), (0, 0));
    assert_eq!(count(&["b", "a"], 50, true), (1, 108));
    assert_eq!(count(&["a"; 5], 0, true), (1, 10));
}

/// 1,500 digests in one pipeline, of a state of 20 MB, were one step: for 20 s the node did nothing
/// else, and another one was elected.
#[test]
fn a_query_stops_when_it_was_work_enough() {
    let mut log = Log::default();
    let value = vec![b'v'; VALUE_BYTES_MAX];
    for key in [b"a", b"b", b"c"] {
        log.apply(Command::Set { key, value: &value, when: When::Always, millis: 0 });
    }
    let digests = log.ask_at(0, &[Command::Digest; 100]);
    assert_eq!((digests.count, digests.stopped), (2, Stopped::Budget));
    // Beyond the budget by itself, it is answered all the same.
    for key in [b"d", b"e"] {
        log.apply(Command::Set { key, value: &value, when: When::Always, millis: 0 });
    }
    let digests = log.ask_at(0, &[Command::Digest; 100]);
    assert_eq!((digests.count, digests.stopped), (1, Stopped::Budget));
    let scan = Command::Scan { cursor: 0, count: u32::MAX, pattern: b"*" };
    let scans = log.ask_at(0, &[scan; 1000]);
    assert!((10..200).contains(&scans.count), "{} scans of all shards", scans.count);
    let mut buf = Vec::new();
    let keys = vec!["none"; 10_000];
    let exists = log.ask_at(0, &[Command::Exists(list(&keys, &mut buf)); 100]);
    assert!((1..20).contains(&exists.count), "{} times 10,000 keys", exists.count);
    let gets = log.ask_at(0, &[Command::Get(b"none"); 10_000]);
    assert_eq!((gets.count, gets.stopped), (10_000, Stopped::Done));
}

#[test]
fn keys_expire_by_the_entries_time() {
    let mut log = Log::default();
    let set = Command::Set { key: b"a", value: b"1", when: When::Always, millis: 1500 };
    log.apply_at(10 * SECOND, set);
    assert_eq!(log.ask(Command::Ttl { key: b"a", millis: true }), ":1500\r\n");
    assert_eq!(log.ask(Command::Ttl { key: b"a", millis: false }), ":2\r\n");
    log.apply_at(11 * SECOND, Command::Tick);
    assert_eq!(log.get("a"), "$1\r\n1\r\n");
    assert_eq!(log.ask(Command::Ttl { key: b"a", millis: true }), ":500\r\n");
    log.apply_at(11 * SECOND + SECOND / 2, Command::Tick);
    assert_eq!(log.get("a"), "$-1\r\n");
    assert_eq!(log.ask(Command::Ttl { key: b"a", millis: true }), ":-2\r\n");
    assert!(log.kv.is_empty());
}

#[test]
fn time_never_goes_back() {
    let mut log = Log::default();
    log.apply_at(10 * SECOND, Command::Expire { key: b"a", millis: 1 });
    log.apply_at(3 * SECOND, Command::Tick);
    assert_eq!(log.kv.time(), Timestamp(10 * SECOND));
}

#[test]
fn expire_gives_and_takes_life() {
    let mut log = Log::default();
    let expire = |millis| Command::Expire { key: b"a", millis };
    assert_eq!(log.apply(expire(1000)), ":0\r\n");
    log.set("a", "1");
    assert_eq!(log.ask(Command::Ttl { key: b"a", millis: false }), ":-1\r\n");
    assert_eq!(log.apply(expire(2000)), ":1\r\n");
    assert_eq!(log.ask(Command::Ttl { key: b"a", millis: false }), ":2\r\n");
    log.incr("a", 1);
    assert_eq!(log.ask(Command::Ttl { key: b"a", millis: false }), ":2\r\n");
    log.set("a", "1");
    assert_eq!(log.ask(Command::Ttl { key: b"a", millis: false }), ":-1\r\n");
    assert_eq!(log.apply(expire(-1)), ":1\r\n");
    assert_eq!(log.get("a"), "$-1\r\n");
    log.set("a", "1");
    log.apply(expire(i64::MAX));
    assert_ne!(log.get("a"), "$-1\r\n");
}

/// More of them than one command removes: most are still there when they are looked at.
fn expired() -> Log {
    let mut log = Log::default();
    for n in 0..4 * REAPED_MAX {
        let (key, value) = (format!("k{n:02}"), format!("{n}"));
        let (key, value) = (key.as_bytes(), value.as_bytes());
        log.apply_at(SECOND, Command::Set { key, value, when: When::Always, millis: 1 });
    }
    log.apply_at(2 * SECOND, Command::Tick);
    assert_eq!(log.kv.len(), 3 * REAPED_MAX);
    log
}

#[test]
fn what_has_expired_is_no_base_to_build_on() {
    let (mut log, mut buf) = (expired(), Vec::new());
    assert_eq!(log.apply(Command::Append { key: b"k31", value: b"x" }), ":1\r\n");
    assert_eq!(log.incr("k30", 1), ":1\r\n");
    assert_eq!(log.ask(Command::Ttl { key: b"k30", millis: false }), ":-1\r\n");
    assert_eq!(log.apply(Command::Del(list(&["k29"], &mut buf))), ":0\r\n");
    assert_eq!(log.ask(Command::MGet(list(&["k31", "k30", "k28"], &mut buf))).len(), 23);
}

#[test]
fn a_read_that_the_clock_may_change_asks_for_the_time() {
    let mut log = Log::default();
    let set = Command::Set { key: b"a", value: b"1", when: When::Always, millis: 1000 };
    log.apply_at(10 * SECOND, set);
    log.set("b", "2");
    let reads = [Command::Get(b"b"), Command::Get(b"a"), Command::Get(b"b")];
    let early = log.ask_at(10 * SECOND + 1, &reads);
    assert_eq!((early.count, early.stopped), (3, Stopped::Done));
    let late = log.ask_at(11 * SECOND, &reads);
    assert_eq!((late.count, late.stopped), (1, Stopped::Stale));
    log.apply_at(11 * SECOND, Command::Tick);
    let after = log.ask_at(11 * SECOND, &reads);
    assert_eq!((after.count, after.stopped), (3, Stopped::Done));
    assert_eq!(&after.values[..], b"$1\r\n2\r\n$-1\r\n$1\r\n2\r\n");
}

/// For a tenth of a second it was told how long a key had to live that GET no longer found.
#[test]
fn a_ttl_that_the_clock_may_end_asks_for_the_time() {
    let mut log = Log::default();
    let set = |key, millis| Command::Set { key, value: b"1", when: When::Always, millis };
    log.apply_at(10 * SECOND, set(b"a", 50));
    log.apply_at(10 * SECOND, set(b"b", 0));
    for millis in [false, true] {
        let ttl = [Command::Ttl { key: b"a", millis }];
        let expires = 10 * SECOND + SECOND / 20;
        assert_eq!(log.ask_at(expires - 1, &ttl).stopped, Stopped::Done);
        assert_eq!(log.ask_at(expires, &ttl).stopped, Stopped::Stale);
        let lasting = [Command::Ttl { key: b"b", millis }, Command::Ttl { key: b"none", millis }];
        assert_eq!(log.ask_at(20 * SECOND, &lasting).stopped, Stopped::Done);
        let piece = Command::GetRange { key: b"a", start: 0, end: 0 };
        for read in [Command::Type(b"a"), Command::StrLen(b"a"), piece] {
            assert_eq!(log.ask_at(expires - 1, &[read]).stopped, Stopped::Done);
            assert_eq!(log.ask_at(expires, &[read]).stopped, Stopped::Stale);
        }
    }
    // What lasts longer may be told a tenth of a second late.
    log.apply(set(b"c", 5000));
    let ttl = [Command::Ttl { key: b"c", millis: true }];
    assert_eq!(log.ask_at(10 * SECOND + TTL_LAG_MAX, &ttl).stopped, Stopped::Done);
    assert_eq!(log.ask_at(10 * SECOND + TTL_LAG_MAX + 1, &ttl).stopped, Stopped::Stale);
}

/// In a cluster without writes a scan listed for ever what had expired.
#[test]
fn a_scan_that_the_clock_may_change_asks_for_the_time() {
    let mut log = Log::default();
    // More of them than one command removes.
    for n in 0..4 * REAPED_MAX {
        let key = format!("k{n:02}");
        let (key, value) = (key.as_bytes(), &b""[..]);
        log.apply_at(SECOND, Command::Set { key, value, when: When::Always, millis: 1000 });
    }
    log.set("b", "");
    let scan = [Command::Scan { cursor: 0, count: 1000, pattern: b"*" }];
    let early = log.ask_at(2 * SECOND - 1, &scan);
    assert_eq!((early.count, early.stopped), (1, Stopped::Done));
    let late = log.ask_at(2 * SECOND, &scan);
    assert_eq!((late.count, late.stopped), (0, Stopped::Stale));
    log.apply_at(2 * SECOND, Command::Tick);
    let after = log.ask_at(2 * SECOND, &scan);
    assert_eq!(&after.values[..], b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\nb\r\n");
}

#[test]
fn a_query_writes_nothing() {
    let mut buf = Vec::new();
    let writes: Vec<_> =
        samples(&mut buf).into_iter().filter(|command| !command.is_read()).collect();
    let mut log = Log::default();
    log.set("key", "5");
    let before = log.kv.digest();
    for write in writes {
        assert_eq!(log.ask(write), "-ERR a query does not write\r\n");
    }
    assert_eq!(log.kv.digest(), before);
}

#[test]
fn unknown_bytes_are_answered_and_change_nothing_but_the_position() {
    let mut kv = Kv::default();
    let mut answer = Vec::new();
    kv.apply(LogId::new(Term(1), LogIndex(1)), Timestamp(1), b"\xff", &mut answer);
    assert_eq!(answer, b"-ERR unknown command in the log\r\n");
    assert_eq!((kv.at().index, kv.len()), (LogIndex(1), 0));
}

/// Follows the cursors; the keys in the order they were told.
fn scan_all(log: &Log, count: u32, pattern: &[u8]) -> Vec<String> {
    let (mut cursor, mut keys) = (0, Vec::new());
    loop {
        let answer = log.ask(Command::Scan { cursor, count, pattern });
        let lines: Vec<_> = answer.split("\r\n").collect();
        cursor = lines[2].parse().unwrap();
        keys.extend(lines[4..].iter().skip(1).step_by(2).map(|key| key.to_string()));
        if cursor == 0 {
            return keys;
        }
    }
}

#[test]
fn a_scan_tells_every_key_once() {
    let mut log = Log::default();
    let expected: BTreeSet<_> = (0..500).map(|n| format!("key{n}")).collect();
    expected.iter().for_each(|key| drop(log.set(key, "")));
    for count in [1, 10, 10_000] {
        let keys = scan_all(&log, count, b"*");
        assert_eq!(keys.len(), expected.len());
        assert_eq!(keys.into_iter().collect::<BTreeSet<_>>(), expected);
    }
    assert_eq!(scan_all(&log, 10, b"key49?").len(), 10);
}

/// A few keys of 65,000 bytes and a pattern half as long took 11 s.
#[test]
fn a_scan_stops_when_it_was_work_enough() {
    let mut log = Log::default();
    let pattern = format!("*{}b", "a".repeat(1000));
    for n in 0..12 {
        log.set(&format!("{}{n}", "a".repeat(65_000)), "");
    }
    let scan = Command::Scan { cursor: 0, count: 100_000, pattern: pattern.as_bytes() };
    let mut out = Vec::new();
    let work = log.kv.read(scan, &mut out);
    assert!(!out.starts_with(b"*2\r\n$1\r\n0\r\n"), "there are keys left");
    assert!((QUERY_WORK_MAX..2 * QUERY_WORK_MAX).contains(&work), "{work}");
    assert_eq!(scan_all(&log, 100_000, pattern.as_bytes()).len(), 0);
    assert_eq!(scan_all(&log, 100_000, b"*a1?").len(), 2);
}

#[test]
fn a_pattern_that_is_too_long_is_refused() {
    let mut log = Log::default();
    log.set("a", "");
    let pattern = vec![b'*'; 1025];
    let scan = |pattern| Command::Scan { cursor: 0, count: 10_000, pattern };
    assert_eq!(log.ask(scan(&pattern)), format!("-{PATTERN_TOO_LONG}\r\n"));
    assert_eq!(scan_all(&log, 10, &pattern[1..]), ["a"]);
}

/// A state of several pieces, with expiries, empty and long values.
fn varied() -> Log {
    let mut log = Log::default();
    for n in 0..300u64 {
        let (key, value) = (format!("key-{n}"), "v".repeat(8 * n as usize));
        let (key, value) = (key.as_bytes(), value.as_bytes());
        let millis = if n % 3 == 0 { n * 1000 } else { 0 };
        log.apply_at(n * SECOND, Command::Set { key, value, when: When::Always, millis });
    }
    let value = vec![b'x'; 300_000];
    log.apply(Command::Set { key: b"", value: &value, when: When::Always, millis: 0 });
    log
}

fn restored(pieces: &[&[u8]]) -> Result<Kv, MachineError> {
    let mut kv = Kv::default();
    let mut offset = 0;
    for (n, piece) in pieces.iter().enumerate() {
        kv.restore(offset, piece, n + 1 == pieces.len())?;
        offset += piece.len() as u64;
    }
    Ok(kv)
}

#[test]
fn a_restored_machine_goes_on_like_the_frozen_one() {
    let mut log = varied();
    let state = frozen(&log.kv);
    assert!(log.kv.freeze().count() > 3);
    let mut copy = Log { kv: restored(&[&state]).unwrap(), index: log.index };
    for second in 300..500 {
        let (one, other) = (log.incr("n", 1), copy.incr("n", 1));
        assert_eq!(one, other);
        log.apply_at(second * SECOND, Command::Tick);
        copy.apply_at(second * SECOND, Command::Tick);
        assert_eq!(log.kv.digest(), copy.kv.digest(), "second {second}");
    }
}

#[test]
fn a_state_is_restored_wherever_it_is_cut() {
    let mut log = Log::default();
    log.set("a", "one");
    log.apply(Command::Set { key: b"b", value: b"", when: When::Always, millis: 9 });
    let state = frozen(&log.kv);
    for cut in 0..=state.len() {
        let kv = restored(&[&state[..cut], &state[cut..]]).unwrap();
        assert_eq!(kv.digest(), log.kv.digest(), "cut at {cut}");
    }
    let bytes: Vec<_> = state.chunks(1).collect();
    assert_eq!(restored(&bytes).unwrap().digest(), log.kv.digest());
}

#[test]
fn what_is_no_whole_state_is_refused() {
    let mut log = Log::default();
    log.set("a", "one");
    let state = frozen(&log.kv);
    for end in 0..state.len() {
        assert!(restored(&[&state[..end]]).is_err(), "{end} bytes");
    }
    assert!(restored(&[&state, b"x"]).is_err());
    let mut other = state.clone();
    other[5] = 2;
    assert!(restored(&[&other]).is_err());
    let mut long = state.clone();
    long[40..44].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(restored(&[&long]).is_err());
    let mut kv = Kv::default();
    assert!(kv.restore(5, &state[5..], true).is_err());
    kv.restore(0, &state[..5], false).unwrap();
    assert!(kv.restore(6, &state[6..], true).is_err());
}

#[test]
fn a_restore_begun_anew_forgets_the_one_before() {
    let log = varied();
    let state = frozen(&log.kv);
    let mut kv = Kv::default();
    kv.restore(0, &state[..70_000], false).unwrap();
    kv.restore(0, &state, true).unwrap();
    assert_eq!(kv.digest(), log.kv.digest());
}

#[test]
fn a_view_is_of_the_moment_it_was_taken() {
    let mut log = varied();
    let expected = frozen(&log.kv);
    let mut seen = Vec::new();
    // Between any two pieces everything is changed.
    let mut round = 0;
    for piece in log.kv.freeze() {
        seen.extend_from_slice(&piece);
        round += 1;
        for n in 0..300 {
            log.set(&format!("key-{n}"), &format!("round {round}"));
        }
        log.apply(Command::Append { key: b"", value: b"more" });
        log.set(&format!("new-{round}"), "");
    }
    assert!(round > 3 && seen == expected);
    assert_ne!(frozen(&log.kv), expected);
}

#[test]
fn digests_differ_by_anything() {
    let mut digests = BTreeSet::new();
    let mut log = Log::default();
    digests.insert(log.kv.digest());
    let mut buf = Vec::new();
    for command in samples(&mut buf).into_iter().filter(|command| !command.is_read()) {
        log.apply(command);
        assert!(digests.insert(log.kv.digest()), "{command:?}");
    }
}

#[test]
fn what_is_foreseen_changes_nothing() {
    let mut buf = Vec::new();
    let mut commands = vec![vec![], vec![255]];
    for command in samples(&mut buf) {
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        commands.push(bytes);
    }
    let mut log = Log::default();
    log.set("key", "5");
    let before = log.kv.digest();
    let mut taken = 0;
    let told = commands.iter().map(|command| &command[..]).inspect(|_| taken += 1);
    log.kv.foresee(&mut told.into_iter());
    assert_eq!((taken, log.kv.digest()), (commands.len(), before));
}

//! What sessions promise, command by command.

use super::{Limits, Reply, Request, SessionError, SessionId, Sessions};
use crate::{LogId, LogIndex, MachineError, Mark, StateMachine, Term, Timestamp};
use bytes::Bytes;
use std::{cell::RefCell, time::Duration};

/// All commands it was given, which it answers with how many there are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct List(Vec<u8>);

impl StateMachine for List {
    fn apply(&mut self, _: LogId, _: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
        self.0.extend_from_slice(command);
        answer.extend_from_slice(self.0.len().to_string().as_bytes());
        // A long answer for a command that begins with an l.
        answer.extend(command.starts_with(b"l").then_some([b'.'; 100]).into_iter().flatten());
    }

    fn query(&self, query: &[u8], answer: &mut Vec<u8>) {
        answer.extend_from_slice(query);
        answer.extend_from_slice(&self.0);
    }

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        let pieces: Vec<_> = self.0.chunks(3).map(Bytes::copy_from_slice).collect();
        Box::new(pieces.into_iter())
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], _: bool) -> Result<(), MachineError> {
        if offset == 0 {
            self.0.clear();
        }
        assert_eq!(offset, self.0.len() as u64);
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// A machine, and what time it is for it.
#[derive(Clone)]
struct Bench {
    machine: Sessions<List>,
    index: u64,
    time: u64,
}

impl Bench {
    fn new() -> Self {
        let limits = Limits {
            sessions_max: 3,
            answers_max: 2,
            answer_bytes_max: 50,
            unused_max: Duration::from_nanos(1000),
        };
        Self { machine: Sessions::new(List::default(), limits), index: 0, time: 10_000 }
    }

    fn apply(&mut self, command: &[u8]) -> Vec<u8> {
        self.index += 1;
        self.time += 1;
        let mut answer = Vec::new();
        let at = LogId::new(Term(1), LogIndex(self.index));
        self.machine.apply(at, Timestamp(self.time), command, &mut answer);
        answer
    }

    fn ask(&mut self, request: Request<'_>) -> Vec<u8> {
        let mut command = Vec::new();
        request.encode(&mut command);
        self.apply(&command)
    }

    fn open(&mut self) -> SessionId {
        let answer = self.ask(Request::Open);
        match Reply::parse(&answer) {
            Ok(Reply::Opened(session)) => session,
            other => panic!("{other:?}"),
        }
    }

    /// The answer, and whether it was given before.
    fn run(
        &mut self,
        session: SessionId,
        sequence: u64,
        command: &str,
    ) -> Result<(String, bool), SessionError> {
        let command = command.as_bytes();
        let answer = self.ask(Request::Run { session, sequence, command });
        match Reply::parse(&answer)? {
            Reply::Done { answer, again } => Ok((String::from_utf8_lossy(answer).into(), again)),
            other => panic!("{other:?}"),
        }
    }

    fn state(&self) -> Vec<u8> {
        self.machine.freeze().flatten().collect()
    }

    fn met(&self, mark: Mark) -> bool {
        self.machine.marks().has(mark)
    }

    /// A machine restored from the state of this one, in pieces of so many bytes.
    fn restored(&self, piece: usize) -> Self {
        let mut other = Self::new();
        // What it was before is forgotten.
        other.open();
        other.apply(b"x");
        let state = self.state();
        let pieces = state.len().div_ceil(piece);
        for n in 0..pieces {
            let bytes = &state[n * piece..state.len().min((n + 1) * piece)];
            other.machine.restore((n * piece) as u64, bytes, n + 1 == pieces).unwrap();
        }
        Self { machine: other.machine, ..*self }
    }
}

fn first(answer: &str) -> Result<(String, bool), SessionError> {
    Ok((answer.into(), false))
}

fn again(answer: &str) -> Result<(String, bool), SessionError> {
    Ok((answer.into(), true))
}

#[test]
fn a_retry_is_not_applied_and_gets_the_first_answer() {
    let mut bench = Bench::new();
    let session = bench.open();
    assert_eq!(bench.run(session, 1, "a"), first("1"));
    bench.apply(b"zz");
    assert_eq!(bench.run(session, 1, "a"), again("1"));
    assert_eq!(bench.run(session, 2, "b"), first("4"));
    assert_eq!(bench.run(session, 1, "a"), again("1"));
    assert_eq!(bench.machine.machine().0, b"azzb");
    assert!(bench.met(Mark::SessionRetryAnswered));
}

#[test]
fn sessions_do_not_know_each_other() {
    let mut bench = Bench::new();
    let (one, other) = (bench.open(), bench.open());
    assert_eq!((one.number, other.number), (1, 2));
    assert_eq!(bench.run(one, 1, "a"), first("1"));
    assert_eq!(bench.run(other, 1, "b"), first("2"));
    assert_eq!(bench.run(one, 1, "a"), again("1"));
}

#[test]
fn a_number_that_comes_too_early_or_too_late_is_told_so() {
    let mut bench = Bench::new();
    let session = bench.open();
    let early = Err(SessionError::OutOfOrder { expected: 1 });
    assert_eq!(bench.run(session, 2, "b"), early);
    assert_eq!(bench.run(session, u64::MAX, "b"), early);
    (1..=4).for_each(|n| drop(bench.run(session, n, "c")));
    assert_eq!(bench.run(session, 6, "b"), Err(SessionError::OutOfOrder { expected: 5 }));
    assert_eq!(bench.run(session, 3, "c"), again("3"));
    assert_eq!(bench.run(session, 2, "c"), Err(SessionError::TooOld { last: 4 }));
    assert_eq!(bench.machine.machine().0, b"cccc");
    assert!(bench.met(Mark::SessionOutOfOrder) && bench.met(Mark::SessionAnswerForgotten));
}

#[test]
fn answers_are_kept_up_to_their_bytes() {
    let mut bench = Bench::new();
    let session = bench.open();
    bench.run(session, 1, "a").unwrap();
    let (long, _) = bench.run(session, 2, "l").unwrap();
    assert_eq!(long.len(), 101);
    let gone = Err(SessionError::TooOld { last: 2 });
    assert_eq!((bench.run(session, 2, "l"), bench.run(session, 1, "a")), (gone.clone(), gone));
    assert_eq!(bench.run(session, 3, "a"), first("3"));
    assert_eq!(bench.run(session, 3, "a"), again("3"));
}

#[test]
fn a_session_expires_by_the_time_of_entries_since_its_last_use() {
    let mut bench = Bench::new();
    let (used, unused) = (bench.open(), bench.open());
    bench.time += 900;
    assert_eq!(bench.run(used, 1, "a"), first("1"));
    bench.time += 900;
    assert_eq!(bench.run(used, 1, "a"), again("1"));
    assert_eq!(bench.run(unused, 1, "b"), Err(SessionError::Expired));
    assert_eq!(bench.machine.len(), 1);
    bench.time += 1000;
    bench.open();
    assert_eq!(bench.machine.len(), 1, "those that have expired make room");
    assert_eq!(bench.run(used, 1, "a"), Err(SessionError::Expired));
    assert_eq!(bench.machine.machine().0, b"a");
    assert!(bench.met(Mark::SessionExpired) && !bench.met(Mark::SessionEvicted));
}

#[test]
fn one_session_too_many_ends_the_one_that_was_not_used_for_the_longest() {
    let mut bench = Bench::new();
    let sessions: Vec<_> = (0..3).map(|_| bench.open()).collect();
    bench.run(sessions[0], 1, "a").unwrap();
    bench.open();
    assert!(bench.met(Mark::SessionEvicted));
    assert_eq!(bench.run(sessions[1], 1, "b"), Err(SessionError::Expired));
    assert_eq!(bench.run(sessions[0], 1, "a"), again("1"));
    assert_eq!(bench.run(sessions[2], 1, "c"), first("2"));
}

#[test]
fn a_session_that_never_was_is_told_from_one_that_has_ended() {
    let mut bench = Bench::new();
    let session = bench.open();
    let other = SessionId { opened: Timestamp(1), ..session };
    let later = SessionId { number: 2, ..session };
    let zero = SessionId { number: 0, ..session };
    for unknown in [other, later, zero] {
        assert_eq!(bench.run(unknown, 1, "a"), Err(SessionError::Unknown));
    }
    assert_eq!(Reply::parse(&bench.ask(Request::Close(session))), Ok(Reply::Closed));
    assert_eq!(bench.run(session, 1, "a"), Err(SessionError::Expired));
    let closed = bench.ask(Request::Close(session));
    assert_eq!(Reply::parse(&closed), Err(SessionError::Expired));
    assert_eq!(bench.machine.machine().0, b"");
}

#[test]
fn commands_without_a_session_reach_the_machine_as_they_are() {
    let mut bench = Bench::new();
    for command in [&b""[..], b"a", &[0xf4], &[0xef, 0xf0]] {
        let mut encoded = Vec::new();
        Request::Plain(command).encode(&mut encoded);
        assert_eq!(encoded, command);
    }
    for first in 0xf0..=0xf3 {
        let before = bench.machine.machine().0.len();
        bench.ask(Request::Plain(&[first, 7]));
        assert_eq!(bench.machine.machine().0[before..], [first, 7]);
    }
    let mut answer = Vec::new();
    bench.machine.query(b"?", &mut answer);
    assert_eq!(answer[..3], [b'?', 0xf0, 7]);
}

#[test]
fn bytes_that_are_no_request_are_answered_and_not_applied() {
    let mut bench = Bench::new();
    let session = bench.open();
    let (mut run, mut close) = (Vec::new(), Vec::new());
    Request::Run { session, sequence: 0, command: b"a" }.encode(&mut run);
    Request::Close(session).encode(&mut close);
    close.push(0);
    for bytes in [&run[..], &run[..20], &close, &close[..16], &[0xf1, 0], &[0xf2], &[0xf3]] {
        let answer = bench.apply(bytes);
        assert_eq!(Reply::parse(&answer), Err(SessionError::Malformed), "{bytes:?}");
    }
    assert_eq!(bench.machine.machine().0, b"");
}

#[test]
fn a_restored_machine_goes_on_where_the_other_was() {
    let mut bench = Bench::new();
    let (one, other) = (bench.open(), bench.open());
    (1..=3).for_each(|n| drop(bench.run(one, n, "abc")));
    bench.run(other, 1, "l").unwrap();
    let ended = bench.open();
    bench.ask(Request::Close(ended));
    for piece in [1, 2, 7, 8, 39, 40, 41, 1000] {
        let (mut before, mut restored) = (bench.clone(), bench.restored(piece));
        assert_eq!(restored.state(), bench.state(), "{piece}");
        assert_eq!(restored.run(one, 3, "abc"), again("9"));
        assert_eq!(restored.run(ended, 1, "x"), Err(SessionError::Expired));
        assert_eq!(restored.run(one, 4, "d"), first("11"));
        before.run(one, 3, "abc").unwrap();
        before.run(ended, 1, "x").unwrap_err();
        before.run(one, 4, "d").unwrap();
        // Whoever is evicted next is the same.
        assert_eq!((before.open(), before.open()), (restored.open(), restored.open()));
        assert_eq!(before.state(), restored.state(), "{piece}");
    }
}

/// A snapshot turns out bad behind what was taken in, and there is no other: all is applied anew.
#[test]
fn a_restore_that_is_broken_off_leaves_nothing() {
    let mut bench = Bench::new();
    let session = bench.open();
    (1..4).for_each(|n| drop(bench.run(session, n, "abc")));
    let state = bench.state();
    for taken in 1..state.len() {
        let mut other = Bench::new();
        other.machine.restore(0, &state[..taken], false).unwrap();
        other.machine.restore(0, b"", false).unwrap();
        assert_eq!(other.state(), Bench::new().state(), "{taken}");
        assert_eq!(other.open(), session);
        (1..4).for_each(|n| drop(other.run(session, n, "abc")));
        assert_eq!(other.state(), state, "{taken}");
    }
}

#[test]
fn a_view_does_not_change_with_the_table() {
    let mut bench = Bench::new();
    let session = bench.open();
    bench.run(session, 1, "a").unwrap();
    let (state, view) = (bench.state(), bench.machine.freeze());
    bench.run(session, 2, "b").unwrap();
    bench.open();
    assert_eq!(view.flatten().collect::<Vec<_>>(), state);
    assert_ne!(bench.state(), state);
}

#[test]
fn a_state_from_before_there_were_sessions_is_the_machines() {
    let states =
        [&b""[..], b"abc", b"LKB", b"LKBSESS", b"LKBSESA something", b"longer than any head"];
    for state in states {
        for piece in [1, 5, 100] {
            let mut bench = Bench::new();
            bench.open();
            let pieces = state.len().div_ceil(piece).max(1);
            for n in 0..pieces {
                let (from, to) = (n * piece, state.len().min((n + 1) * piece));
                let last = n + 1 == pieces;
                bench.machine.restore(from as u64, &state[from..to], last).unwrap();
            }
            assert_eq!((&bench.machine.machine().0[..], bench.machine.len()), (state, 0));
        }
    }
}

#[test]
fn states_that_are_none_are_refused_with_what_is_wrong() {
    let mut bench = Bench::new();
    let session = bench.open();
    bench.run(session, 1, "a").unwrap();
    let state = bench.state();
    let with = |at: usize, byte: u8| {
        let mut state = state.clone();
        state[at] = byte;
        state
    };
    let cases = [
        (with(7, 2), "of version 2, and this build reads 1"),
        (with(32, 2), "2 sessions of 1, used 2 times"),
        (with(32, 0), ""),
        (with(40, 9), "session 9 behind 0, of 1"),
        (with(40, 0), "session 0 behind 0"),
        (with(56, 3), "was used as the 3th"),
        (with(56, 0), "was used as the 0th"),
        (with(72, 0), "contradicts itself"),
        (with(25, 0), "contradicts itself"),
        (with(81, 9), "2305 answers of session 1, not up to 1024"),
        (with(87, 9), "bytes of answers of session 1"),
        (state[..20].to_vec(), "the state ends after 20 bytes"),
        (state[..58].to_vec(), "the state ends 1 sessions early"),
    ];
    for (state, expected) in cases {
        let mut other = Bench::new();
        match other.machine.restore(0, &state, true) {
            Ok(()) => assert!(expected.is_empty(), "{expected}"),
            Err(error) => assert!(error.0.contains(expected) && !expected.is_empty(), "{error}"),
        }
    }
    let mut other = Bench::new();
    assert!(other.machine.restore(3, b"a", false).unwrap_err().0.contains("from its first byte"));
    other.machine.restore(0, b"LKB", false).unwrap();
    let gap = other.machine.restore(5, b"a", false).unwrap_err();
    assert!(gap.0.contains("expected the state from byte 3, got 5"), "{gap}");
}

#[test]
fn names_of_sessions_are_one_word() {
    let session = SessionId { number: 7, opened: Timestamp(u64::MAX) };
    assert_eq!(session.to_string().parse(), Ok(session));
    for wrong in ["", "7", "7-", "-7", "+7-1", "07-1", "7-1-1", "7-18446744073709551616", "a-b"] {
        assert!(wrong.parse::<SessionId>().is_err(), "{wrong}");
    }
}

#[test]
fn what_is_no_reply_is_said_to_be_none() {
    for bytes in [&b""[..], &[2, 1], &[3, 0], &[16, 0], &[18, 1], &[19], &[21], b"+OK\r\n"] {
        assert_eq!(Reply::parse(bytes), Err(SessionError::NoReply), "{bytes:?}");
    }
}

/// Storm of three, seed 3024: entries of a new leader were of an earlier time than those before
/// them (`the_time_of_the_last_entry_is_found_in_whichever_segment_it_is`).
#[test]
fn an_entry_of_an_earlier_time_makes_no_session_older_than_it_is() {
    let mut bench = Bench::new();
    let session = bench.open();
    bench.time -= 5000;
    assert_eq!(bench.run(session, 1, "a"), first("1"));
    let state = bench.restored(1000).state();
    assert_eq!(state, bench.state());
    bench.time += 5500;
    assert_eq!(bench.run(session, 1, "a"), again("1"));
    bench.time += 1000;
    assert_eq!(bench.run(session, 1, "a"), Err(SessionError::Expired));
    bench.time -= 2000;
    assert_eq!(bench.run(session, 1, "a"), Err(SessionError::Expired));
}

/// Of the machine's commands alone, as it will see them.
#[test]
fn a_machine_foresees_what_it_is_going_to_apply() {
    struct Seer(RefCell<Vec<Vec<u8>>>);

    impl StateMachine for Seer {
        fn apply(&mut self, _: LogId, _: Timestamp, _: &[u8], _: &mut Vec<u8>) {}

        fn foresee(&self, commands: &mut dyn Iterator<Item = &[u8]>) {
            self.0.borrow_mut().extend(commands.map(<[u8]>::to_vec));
        }

        fn query(&self, _: &[u8], _: &mut Vec<u8>) {}

        fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
            Box::new(std::iter::empty())
        }

        fn restore(&mut self, _: u64, _: &[u8], _: bool) -> Result<(), MachineError> {
            Ok(())
        }
    }

    let session = SessionId { number: 1, opened: Timestamp(1) };
    let asked = [
        Request::Plain(b"a"),
        Request::Open,
        Request::Run { session, sequence: 1, command: b"b" },
        Request::Close(session),
        Request::Plain(b"\xf0"),
    ];
    let bytes = |request: &Request<'_>| {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        bytes
    };
    let mut commands: Vec<_> = asked.iter().map(bytes).collect();
    commands.push(b"\xf2malformed".to_vec());
    let sessions = Sessions::new(Seer(RefCell::default()), Limits::default());
    sessions.foresee(&mut commands.iter().map(|command| &command[..]));
    assert_eq!(*sessions.machine().0.borrow(), [&b"a"[..], b"b", b"\xf0"]);
}

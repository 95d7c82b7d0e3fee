//! Sessions: what stands before a command, and the table in a snapshot.

use crate::{
    LogId, LogIndex, MachineError, StateMachine, Term, Timestamp,
    session::{Limits, Reply, Request, SessionId, Sessions},
};
use bytes::Bytes;

/// A machine that is the bytes it was given.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Blob(Vec<u8>);

impl StateMachine for Blob {
    fn apply(&mut self, _: LogId, _: Timestamp, command: &[u8], answer: &mut Vec<u8>) {
        answer.extend_from_slice(command);
        self.0.extend_from_slice(command);
    }

    fn query(&self, _: &[u8], _: &mut Vec<u8>) {}

    fn freeze(&self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        Box::new(std::iter::once(Bytes::copy_from_slice(&self.0)))
    }

    fn restore(&mut self, offset: u64, bytes: &[u8], _: bool) -> Result<(), MachineError> {
        if offset == 0 {
            self.0.clear();
        }
        assert_eq!(offset, self.0.len() as u64, "a machine is handed its bytes in order");
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Any command, and any state in pieces as the first byte says. A command is one request, in one
/// form, or none; a state is taken in and given out again to the byte, or refused; and whatever is
/// asked of what was taken in is answered.
pub fn session(input: &[u8]) {
    let Some((piece, bytes)) = input.split_first() else { return };
    command(bytes);
    let mut machine = Sessions::new(Blob::default(), limits());
    match restore(&mut machine, bytes, usize::from(*piece) + 1) {
        Ok(()) => {
            assert_eq!(frozen(&machine), given(bytes), "a state is given out as it was taken in");
            ask(machine, bytes);
        }
        Err(error) => {
            assert!(error.to_string().starts_with("not a table of sessions: "), "{error}");
        }
    }
}

/// What a state becomes: one from before there were sessions has a table then.
fn given(bytes: &[u8]) -> Vec<u8> {
    if bytes.len() >= 8 && bytes.starts_with(b"LKBSESS") {
        return bytes.to_vec();
    }
    [&b"LKBSESS\x01"[..], &[0; 32], bytes].concat()
}

fn limits() -> Limits {
    Limits { sessions_max: 4, answers_max: 2, ..Limits::default() }
}

fn restore(machine: &mut Sessions<Blob>, bytes: &[u8], piece: usize) -> Result<(), MachineError> {
    let pieces = bytes.len().div_ceil(piece).max(1);
    for n in 0..pieces {
        let (from, to) = (n * piece, bytes.len().min((n + 1) * piece));
        machine.restore(from as u64, &bytes[from..to], n + 1 == pieces)?;
    }
    Ok(())
}

fn frozen(machine: &Sessions<Blob>) -> Vec<u8> {
    machine.freeze().flatten().collect()
}

fn command(bytes: &[u8]) {
    let Ok(request) = Request::parse(bytes) else { return };
    let mut again = Vec::new();
    request.encode(&mut again);
    assert_eq!(Request::parse(&again), Ok(request), "a request is read back");
    if !matches!(request, Request::Plain(_)) {
        assert_eq!(again, bytes, "a request has one form");
    }
}

/// Opens a session and uses it, and those that the bytes name.
fn ask(mut machine: Sessions<Blob>, bytes: &[u8]) {
    let mut index = 0;
    let mut apply = |machine: &mut Sessions<Blob>, command: &[u8]| {
        index += 1;
        let mut answer = Vec::new();
        let at = LogId::new(Term(1), LogIndex(index));
        machine.apply(at, Timestamp(index << 42), command, &mut answer);
        answer
    };
    apply(&mut machine, bytes);
    let named = bytes.get(40..56).and_then(|id| id.try_into().ok()).map(id);
    let opened = apply(&mut machine, &encoded(Request::Open));
    let Ok(Reply::Opened(opened)) = Reply::parse(&opened) else { panic!("{opened:?}") };
    for session in [Some(opened), named].into_iter().flatten() {
        for sequence in [1, 2, 1, u64::MAX] {
            let request = Request::Run { session, sequence, command: b"c" };
            let answer = apply(&mut machine, &encoded(request));
            assert!(Reply::parse(&answer) != Err(crate::session::SessionError::NoReply));
        }
        apply(&mut machine, &encoded(Request::Close(session)));
    }
}

fn id(bytes: [u8; 16]) -> SessionId {
    let [number, opened] = crate::le::u64s_at(&bytes, 0);
    SessionId { number, opened: Timestamp(opened) }
}

fn encoded(request: Request<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    request.encode(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::corpus::replay;

    #[test]
    fn kept_tables_are_given_out_as_they_were_taken_in_or_refused() {
        let mut machine = Sessions::new(Blob::default(), limits());
        let mut run = |n: u64, request: Request<'_>| {
            let at = LogId::new(Term(1), LogIndex(n));
            machine.apply(at, Timestamp(n), &encoded(request), &mut Vec::new());
        };
        let named = |n| SessionId { number: n, opened: Timestamp(n) };
        (1..=5).for_each(|n| run(n, Request::Open));
        (1..=3).for_each(|sequence| {
            run(5 + sequence, Request::Run { session: named(3), sequence, command: b"three" });
        });
        run(9, Request::Close(named(4)));
        let state = [&[200][..], &frozen(&machine)].concat();
        let requests = [
            Request::Run { session: named(1), sequence: 1, command: b"c" },
            Request::Open,
            Request::Close(named(1)),
            Request::Plain(&[0xf1, 7]),
        ];
        let requests = requests.into_iter().map(|request| [&[0][..], &encoded(request)].concat());
        let seeds: Vec<_> = std::iter::once(state).chain(requests).collect();
        replay("session", session, &seeds);
    }
}

//! The table as the first part of a snapshot.
//!
//! ```text
//! magic "LKBSESS", version u8
//! sessions ever opened u64, uses u64, the latest time u64, sessions u64
//! per session, in the order of their numbers:
//!     number u64, opened u64, stamp of last use u64, time of last use u64, last sequence u64,
//!     answers u32, and per answer, the oldest first: length u32, bytes
//! then the machine's own
//! ```
//!
//! Integers are little-endian. A state that begins otherwise is the machine's alone: it is from
//! before there were sessions. Invariant: equal tables have equal bytes, and what is taken in is
//! given out again to the byte; no length is believed before its bytes are there.

use super::table::{ANSWER_BYTES_MAX, ANSWERS_MAX, Session, Table};
use crate::{MachineError, Timestamp, le};
use bytes::{BufMut, Bytes, BytesMut};
use std::{collections::VecDeque, sync::Arc, vec::IntoIter};

const MAGIC: [u8; 8] = *b"LKBSESS\x01";
/// The magic without its version.
const NAME_BYTES: usize = 7;
const HEAD_BYTES: usize = 40;
/// More uses than anybody has time for.
const USES_MAX: u64 = 1 << 62;
const SESSION_BYTES: usize = 44;
/// A piece ends with the session that makes it this long.
const PIECE_BYTES: usize = 64 << 10;

/// A view in pieces.
pub(super) struct Frozen {
    head: Option<[u8; HEAD_BYTES]>,
    sessions: IntoIter<(u64, Arc<Session>)>,
}

impl Frozen {
    pub(super) fn new(table: &Table) -> Self {
        let mut head = [0; HEAD_BYTES];
        head[..8].copy_from_slice(&MAGIC);
        le::put_u64s(&mut head, 8, &[table.opened, table.uses, table.time.0, table.len() as u64]);
        let shared = |(number, session): (&u64, &Arc<Session>)| (*number, Arc::clone(session));
        let sessions: Vec<_> = table.sessions.iter().map(shared).collect();
        Self { head: Some(head), sessions: sessions.into_iter() }
    }
}

impl Iterator for Frozen {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut piece = BytesMut::new();
        if let Some(head) = self.head.take() {
            piece.put_slice(&head);
        }
        while piece.len() < PIECE_BYTES
            && let Some((number, session)) = self.sessions.next()
        {
            put(&mut piece, number, &session);
        }
        (!piece.is_empty()).then(|| piece.freeze())
    }
}

fn put(out: &mut impl BufMut, number: u64, session: &Session) {
    let Session { opened, used, time, sequence, answers } = session;
    [number, opened.0, *used, time.0, *sequence]
        .into_iter()
        .for_each(|field| out.put_u64_le(field));
    out.put_u32_le(answers.len() as u32);
    for answer in answers {
        out.put_u32_le(answer.len() as u32);
        out.put_slice(answer);
    }
}

/// A view on its way back in.
#[derive(Clone, Debug, Default)]
pub(super) struct Thaw {
    /// Bytes taken in so far.
    taken: u64,
    /// Bytes of them that the machine was handed.
    pub(super) handed: u64,
    /// The beginning of what is not whole yet.
    carry: Vec<u8>,
    part: Part,
    /// The last session's number.
    number: u64,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Part {
    #[default]
    Head,
    /// So many sessions.
    Sessions(u64),
    Machine,
}

impl Thaw {
    /// Takes in the next bytes; what of them, and of those before, is the machine's, once that has
    /// begun.
    pub(super) fn take(
        &mut self,
        offset: u64,
        bytes: &[u8],
        last: bool,
        table: &mut Table,
    ) -> Result<Option<Vec<u8>>, MachineError> {
        if offset != self.taken {
            return Err(bad(format!("expected the state from byte {}, got {offset}", self.taken)));
        }
        self.taken += bytes.len() as u64;
        let mut carry = std::mem::take(&mut self.carry);
        carry.extend_from_slice(bytes);
        let mut used = 0;
        while let Some(step) = self.step(&carry[used..], last, table)? {
            used += step;
        }
        carry.drain(..used);
        match self.part {
            Part::Machine => Ok(Some(carry)),
            Part::Sessions(missing) if last => {
                Err(bad(format!("the state ends {missing} sessions early")))
            }
            _ => {
                self.carry = carry;
                Ok(None)
            }
        }
    }

    /// Takes in the head or a session; how many bytes that were, `None`: they are not all there,
    /// or the machine's.
    fn step(
        &mut self,
        rest: &[u8],
        last: bool,
        table: &mut Table,
    ) -> Result<Option<usize>, MachineError> {
        match self.part {
            Part::Head => self.head(rest, last, table),
            Part::Sessions(0) => {
                self.part = Part::Machine;
                Ok(None)
            }
            Part::Sessions(missing) => {
                let Some((number, session, used)) = parse(rest)? else { return Ok(None) };
                self.insert(number, session, table)?;
                self.part = Part::Sessions(missing - 1);
                Ok(Some(used))
            }
            Part::Machine => Ok(None),
        }
    }

    fn head(
        &mut self,
        rest: &[u8],
        last: bool,
        table: &mut Table,
    ) -> Result<Option<usize>, MachineError> {
        let shown = rest.len().min(NAME_BYTES);
        if rest[..shown] != MAGIC[..shown] || last && rest.len() < MAGIC.len() {
            self.part = Part::Machine;
            return Ok(None);
        }
        let ours = MAGIC[NAME_BYTES];
        if let Some(version) = rest.get(NAME_BYTES).filter(|version| **version != ours) {
            return Err(bad(format!("of version {version}, and this build reads {ours}")));
        }
        let Some(head) = rest.first_chunk::<HEAD_BYTES>() else {
            let ends = last.then(|| bad(format!("the state ends after {} bytes", rest.len())));
            return ends.map_or(Ok(None), Err);
        };
        let sessions: u64;
        [table.opened, table.uses, table.time.0, sessions] = le::u64s_at(head, 8);
        if sessions > table.opened || table.opened > table.uses || table.uses > USES_MAX {
            let (opened, uses) = (table.opened, table.uses);
            return Err(bad(format!("{sessions} sessions of {opened}, used {uses} times")));
        }
        self.part = Part::Sessions(sessions);
        Ok(Some(HEAD_BYTES))
    }

    fn insert(
        &mut self,
        number: u64,
        session: Session,
        table: &mut Table,
    ) -> Result<(), MachineError> {
        let before = std::mem::replace(&mut self.number, number);
        if number <= before || number > table.opened {
            let opened = table.opened;
            return Err(bad(format!("session {number} behind {before}, of {opened}")));
        }
        let used = session.used;
        if session.opened > session.time
            || session.time > table.time
            || session.answers.len() as u64 > session.sequence
        {
            return Err(bad(format!("session {number} contradicts itself")));
        }
        if used == 0 || used > table.uses || !table.insert(number, session) {
            return Err(bad(format!("session {number} was used as the {used}th")));
        }
        Ok(())
    }
}

/// The next session and how long it is; `None`: it is not all there.
fn parse(rest: &[u8]) -> Result<Option<(u64, Session, usize)>, MachineError> {
    let Some(head) = rest.first_chunk::<SESSION_BYTES>() else { return Ok(None) };
    let [number, opened, used, time, sequence] = le::u64s_at(head, 0);
    let count = le::u32_at(head, 40);
    if count > ANSWERS_MAX {
        return Err(bad(format!("{count} answers of session {number}, not up to {ANSWERS_MAX}")));
    }
    let (mut answers, mut at, mut bytes) = (VecDeque::new(), SESSION_BYTES, 0);
    for _ in 0..count {
        let Some(len) = rest.get(at..at + 4) else { return Ok(None) };
        let len = le::u32_at(len, 0);
        bytes += u64::from(len);
        if bytes > u64::from(ANSWER_BYTES_MAX) {
            return Err(bad(format!("{bytes} bytes of answers of session {number}")));
        }
        at += 4;
        let Some(answer) = rest.get(at..at + len as usize) else { return Ok(None) };
        answers.push_back(Bytes::copy_from_slice(answer));
        at += len as usize;
    }
    let (opened, time) = (Timestamp(opened), Timestamp(time));
    Ok(Some((number, Session { opened, used, time, sequence, answers }, at)))
}

fn bad(why: String) -> MachineError {
    MachineError(format!("not a table of sessions: {why}"))
}

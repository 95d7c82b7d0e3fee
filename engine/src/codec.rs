//! Bytes <-> [`Message`]. Total: whatever arrives is a message or a named fault, never a panic.
//!
//! ```text
//!  0  crc of the rest of the head     16 cluster            64 receiver's incarnation
//!  4  version, kind, two zero bytes   24 cluster epoch      72 log epoch
//!  8  head length                     32 group              80 log epoch answered to
//! 12  body length                     40 from, 48 to        88 term
//!                                     56 incarnation        96 fields of the kind
//! ```
//!
//! All little-endian. The head's crc makes a flipped bit a fault; the body is entries, which carry
//! checksums of their own, or forwarded commands, whose crc is a field of the head. Knows no
//! roles: whether a message is believed is decided by those who receive it.

use crate::{
    message::{
        Append, AppendAnswer, Ballot, CONFLICT_RUNS_MAX, Conflict, FATES_MAX, Fate, Forward, Head,
        Message, Payload, Placement, Verdict,
    },
    types::{ClusterId, GroupId, LogId, LogIndex, NodeId, Term, Timestamp},
};
use bytes::{BufMut, Bytes, BytesMut};

const VERSION: u8 = 1;
const FIXED_BYTES: usize = 96;
/// Room for one head of any kind.
const HEAD_BYTES_MAX: usize = 48 << 10;
/// A body is one append: half of the largest segment there can be.
const BODY_BYTES_MAX: usize = 1 << 30;
/// Heads are cut from a common buffer: one allocation for some sixty of them.
const POOL_BYTES: usize = 8 << 10;

/// Why bytes are no message.
pub(crate) type Fault = &'static str;

/// Writes messages, heads one behind the other into buffers that they share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Encoder {
    pool: BytesMut,
}

impl Encoder {
    /// The message's head and body; the body's bytes are shared, not copied.
    pub(crate) fn encode(&mut self, message: Message) -> (Bytes, Bytes) {
        let (room, body) = shape(&message.payload);
        if self.pool.capacity() < room {
            self.pool = BytesMut::with_capacity(room.max(POOL_BYTES));
        }
        self.pool.put_slice(&fixed(&message.head, kind(&message.payload), body.len()));
        put_payload(&mut self.pool, &message.payload);
        let bytes = self.pool.len() as u32;
        self.pool[8..12].copy_from_slice(&bytes.to_le_bytes());
        let crc = crc32c::crc32c(&self.pool[4..]);
        self.pool[..4].copy_from_slice(&crc.to_le_bytes());
        (self.pool.split().freeze(), body)
    }
}

/// An upper bound of the head's bytes, and the body.
fn shape(payload: &Payload) -> (usize, Bytes) {
    match payload {
        Payload::Append(append) => {
            (FIXED_BYTES + 72 + append.fates.len() * 32, append.frames.clone())
        }
        Payload::AppendAnswer(answer) => {
            let runs = answer.conflict.as_ref().map_or(0, |conflict| conflict.runs.len());
            (FIXED_BYTES + 72 + runs * 16, Bytes::new())
        }
        Payload::Forward(forward) => (FIXED_BYTES + 40, forward.commands.clone()),
        _ => (FIXED_BYTES + 32, Bytes::new()),
    }
}

/// Whether this may be the head of a message that commits its sender: a vote, an acknowledgement.
pub(crate) fn may_commit(head: &[u8]) -> bool {
    matches!(head.get(5), Some(5 | 6 | 8))
}

const fn kind(payload: &Payload) -> u8 {
    match payload {
        Payload::Hello { .. } => 1,
        Payload::FormedWithoutYou => 2,
        Payload::PreVote(_) => 3,
        Payload::PreVoteAnswer(_) => 4,
        Payload::Vote(_) => 5,
        Payload::VoteAnswer(_) => 6,
        Payload::Append(_) => 7,
        Payload::AppendAnswer(_) => 8,
        Payload::ReadIndex { .. } => 9,
        Payload::ReadIndexAnswer { .. } => 10,
        Payload::Forward(_) => 11,
    }
}

fn fixed(head: &Head, kind: u8, body_bytes: usize) -> [u8; FIXED_BYTES] {
    let mut bytes = [0; FIXED_BYTES];
    bytes[4] = VERSION;
    bytes[5] = kind;
    bytes[12..16].copy_from_slice(&(body_bytes as u32).to_le_bytes());
    let fields = [
        head.cluster.0,
        head.cluster_epoch,
        head.group.0,
        head.from.0,
        head.to.0,
        head.incarnation,
        head.to_incarnation,
        head.log_epoch,
        head.answers,
        head.term.0,
    ];
    for (place, field) in bytes[16..].chunks_exact_mut(8).zip(fields) {
        place.copy_from_slice(&field.to_le_bytes());
    }
    bytes
}

fn put_payload(buf: &mut BytesMut, payload: &Payload) {
    match payload {
        Payload::Hello { ask } => buf.put_u8(u8::from(*ask)),
        Payload::FormedWithoutYou => {}
        Payload::PreVote(ballot) | Payload::Vote(ballot) => {
            put_words(buf, [ballot.round, ballot.last.term.0, ballot.last.index.0]);
        }
        Payload::PreVoteAnswer(verdict) | Payload::VoteAnswer(verdict) => {
            buf.put_u64_le(verdict.round);
            buf.put_u8(u8::from(verdict.granted));
        }
        Payload::Append(append) => put_append(buf, append),
        Payload::AppendAnswer(answer) => put_answer(buf, answer),
        Payload::ReadIndex { round } => buf.put_u64_le(*round),
        Payload::ReadIndexAnswer { round, index } => put_words(buf, [*round, index.0]),
        Payload::Forward(forward) => {
            put_words(buf, [forward.session, forward.sequence, forward.time.0]);
            buf.put_u32_le(forward.count);
            buf.put_u32_le(crc32c::crc32c(&forward.commands));
        }
    }
}

fn put_append(buf: &mut BytesMut, append: &Append) {
    let prev = append.prev;
    put_words(buf, [append.sequence, append.round, prev.term.0, prev.index.0]);
    put_words(buf, [append.commit.0, append.retain.0, append.session, append.fates_after]);
    buf.put_u8(u8::from(append.ask));
    buf.put_u32_le(append.fates.len() as u32);
    for fate in &append.fates {
        put_fate(buf, fate);
    }
}

fn put_fate(buf: &mut BytesMut, fate: &Fate) {
    buf.put_u64_le(fate.sequence);
    match fate.outcome {
        Placement::At { id, ordinal } => {
            buf.put_u8(0);
            put_words(buf, [id.term.0, id.index.0]);
            buf.put_u32_le(ordinal);
        }
        Placement::Busy => buf.put_u8(1),
        Placement::DiskFull => buf.put_u8(2),
        Placement::TooLarge => buf.put_u8(3),
    }
}

fn put_answer(buf: &mut BytesMut, answer: &AppendAnswer) {
    let (matched, durable) = (answer.matched.0, answer.durable.0);
    put_words(buf, [answer.sequence, answer.round, matched, durable, answer.fates]);
    buf.put_u8(u8::from(answer.full));
    // Zero runs stand for "no conflict": a conflict names one at least.
    let Some(conflict) = &answer.conflict else { return buf.put_u32_le(0) };
    buf.put_u32_le(conflict.runs.len() as u32);
    put_words(buf, [conflict.through.0, conflict.committed.0]);
    for (first, term) in &conflict.runs {
        put_words(buf, [first.0, term.0]);
    }
}

fn put_words<const N: usize>(buf: &mut BytesMut, words: [u64; N]) {
    let mut bytes = [[0; 8]; N];
    for (place, word) in bytes.iter_mut().zip(words) {
        *place = word.to_le_bytes();
    }
    buf.put_slice(bytes.as_flattened());
}

/// Reads a message; its body stays a slice of `bytes`.
pub(crate) fn decode(bytes: &Bytes) -> Result<Message, Fault> {
    let (kind, head_bytes) = judge_frame(bytes)?;
    let mut cursor = Cursor(&bytes[16..head_bytes]);
    let head = take_head(&mut cursor).ok_or("message head cut short")?;
    let body = Body { bytes, at: head_bytes };
    let payload = take_payload(kind, &mut cursor, &body)?.ok_or("message field")?;
    let bodiless = !matches!(payload, Payload::Append(_) | Payload::Forward(_));
    if !cursor.0.is_empty() || (bodiless && bytes.len() != head_bytes) {
        return Err("message longer than its kind");
    }
    Ok(Message { head, payload })
}

/// Lengths, checksum and version: the kind, and the length of the head.
fn judge_frame(bytes: &[u8]) -> Result<(u8, usize), Fault> {
    let mut cursor = Cursor(bytes);
    let (crc, version, kind, zero, head, body) = (|| {
        let crc = cursor.u32()?;
        let [version, kind, a, b] = cursor.take()?;
        Some((crc, version, kind, [a, b], cursor.u32()? as usize, cursor.u32()? as usize))
    })()
    .ok_or("message cut short")?;
    if !(FIXED_BYTES..=HEAD_BYTES_MAX).contains(&head) || body > BODY_BYTES_MAX {
        return Err("message length");
    }
    if bytes.len() != head + body {
        return Err("message cut short or too long");
    }
    if crc32c::crc32c(&bytes[4..head]) != crc {
        return Err("message checksum");
    }
    if version != VERSION || zero != [0, 0] {
        return Err("message of another version");
    }
    Ok((kind, head))
}

/// What follows the head, not yet taken for anything.
struct Body<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Body<'_> {
    fn slice(&self) -> Bytes {
        // An empty slice would keep the whole message alive.
        if self.at == self.bytes.len() { Bytes::new() } else { self.bytes.slice(self.at..) }
    }
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn bool(&mut self) -> Option<bool> {
        self.u8().filter(|&byte| byte <= 1).map(|byte| byte == 1)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn index(&mut self) -> Option<LogIndex> {
        self.u64().map(LogIndex)
    }

    fn log_id(&mut self) -> Option<LogId> {
        Some(LogId::new(Term(self.u64()?), self.index()?))
    }
}

fn take_head(from: &mut Cursor<'_>) -> Option<Head> {
    Some(Head {
        cluster: ClusterId(from.u64()?),
        cluster_epoch: from.u64()?,
        group: GroupId(from.u64()?),
        from: NodeId(from.u64()?),
        to: NodeId(from.u64()?),
        incarnation: from.u64()?,
        to_incarnation: from.u64()?,
        log_epoch: from.u64()?,
        answers: from.u64()?,
        term: Term(from.u64()?),
    })
}

fn take_payload(
    kind: u8,
    from: &mut Cursor<'_>,
    body: &Body<'_>,
) -> Result<Option<Payload>, Fault> {
    Ok(match kind {
        1 => from.bool().map(|ask| Payload::Hello { ask }),
        2 => Some(Payload::FormedWithoutYou),
        3 => take_ballot(from).map(Payload::PreVote),
        4 => take_verdict(from).map(Payload::PreVoteAnswer),
        5 => take_ballot(from).map(Payload::Vote),
        6 => take_verdict(from).map(Payload::VoteAnswer),
        7 => take_append(from, body).map(Payload::Append),
        8 => take_answer(from).map(Payload::AppendAnswer),
        9 => from.u64().map(|round| Payload::ReadIndex { round }),
        10 => take_read_index(from),
        11 => take_forward(from, body)?.map(Payload::Forward),
        _ => return Err("message of an unknown kind"),
    })
}

fn take_ballot(from: &mut Cursor<'_>) -> Option<Ballot> {
    Some(Ballot { round: from.u64()?, last: from.log_id()? })
}

fn take_verdict(from: &mut Cursor<'_>) -> Option<Verdict> {
    Some(Verdict { round: from.u64()?, granted: from.bool()? })
}

fn take_read_index(from: &mut Cursor<'_>) -> Option<Payload> {
    Some(Payload::ReadIndexAnswer { round: from.u64()?, index: from.index()? })
}

fn take_append(from: &mut Cursor<'_>, body: &Body<'_>) -> Option<Append> {
    Some(Append {
        sequence: from.u64()?,
        round: from.u64()?,
        prev: from.log_id()?,
        commit: from.index()?,
        retain: from.index()?,
        session: from.u64()?,
        fates_after: from.u64()?,
        ask: from.bool()?,
        fates: take_list(from, FATES_MAX, take_fate)?,
        frames: body.slice(),
    })
}

/// A list behind its length, which is judged before there is room made for it.
fn take_list<T>(
    from: &mut Cursor<'_>,
    items_max: usize,
    take: impl Fn(&mut Cursor<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let items = from.u32()? as usize;
    if items > items_max {
        return None;
    }
    (0..items).map(|_| take(from)).collect()
}

fn take_fate(from: &mut Cursor<'_>) -> Option<Fate> {
    let sequence = from.u64()?;
    let outcome = match from.u8()? {
        0 => Placement::At { id: from.log_id()?, ordinal: from.u32()? },
        1 => Placement::Busy,
        2 => Placement::DiskFull,
        3 => Placement::TooLarge,
        _ => return None,
    };
    Some(Fate { sequence, outcome })
}

fn take_answer(from: &mut Cursor<'_>) -> Option<AppendAnswer> {
    Some(AppendAnswer {
        sequence: from.u64()?,
        round: from.u64()?,
        matched: from.index()?,
        durable: from.index()?,
        fates: from.u64()?,
        full: from.bool()?,
        conflict: take_conflict(from)?,
    })
}

/// The outer `None`: malformed; the inner: no conflict.
#[allow(clippy::option_option, reason = "the two absences differ, and this is private")]
fn take_conflict(from: &mut Cursor<'_>) -> Option<Option<Box<Conflict>>> {
    let runs = from.u32()? as usize;
    if runs == 0 {
        return Some(None);
    }
    if runs > CONFLICT_RUNS_MAX {
        return None;
    }
    let (through, committed) = (from.index()?, from.index()?);
    let runs: Option<Vec<_>> =
        (0..runs).map(|_| Some((from.index()?, Term(from.u64()?)))).collect();
    Some(Some(Box::new(Conflict { through, committed, runs: runs? })))
}

fn take_forward(from: &mut Cursor<'_>, body: &Body<'_>) -> Result<Option<Forward>, Fault> {
    let fields = (|| {
        let (session, sequence) = (from.u64()?, from.u64()?);
        Some((session, sequence, Timestamp(from.u64()?), from.u32()?, from.u32()?))
    })();
    let Some((session, sequence, time, count, crc)) = fields else { return Ok(None) };
    let commands = body.slice();
    if crc32c::crc32c(&commands) != crc {
        return Err("forwarded commands' checksum");
    }
    Ok(Some(Forward { session, sequence, time, count, commands }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Batch;

    fn head() -> Head {
        Head {
            cluster: ClusterId(1),
            cluster_epoch: 2,
            group: GroupId(3),
            from: NodeId(4),
            to: NodeId(5),
            incarnation: 6,
            to_incarnation: 7,
            log_epoch: 8,
            answers: 9,
            term: Term(10),
        }
    }

    fn every_kind() -> Vec<Message> {
        let ballot = Ballot { round: 3, last: LogId::new(Term(2), LogIndex(9)) };
        let verdict = Verdict { round: 3, granted: true };
        let at = Placement::At { id: LogId::new(Term(2), LogIndex(8)), ordinal: 4 };
        let fates = [at, Placement::Busy, Placement::DiskFull, Placement::TooLarge];
        let conflict = Conflict {
            through: LogIndex(20),
            committed: LogIndex(3),
            runs: vec![(LogIndex(4), Term(1)), (LogIndex(9), Term(3))],
        };
        let answer = AppendAnswer {
            sequence: 1,
            round: 2,
            matched: LogIndex(3),
            durable: LogIndex(4),
            fates: 5,
            full: true,
            conflict: None,
        };
        let append = Append {
            sequence: 1,
            round: 2,
            ask: true,
            prev: LogId::new(Term(3), LogIndex(4)),
            commit: LogIndex(5),
            retain: LogIndex(6),
            session: 7,
            fates_after: 6,
            fates: (7..).zip(fates).map(|(sequence, outcome)| Fate { sequence, outcome }).collect(),
            frames: Bytes::from_static(b"entries carry checksums of their own"),
        };
        let batch = Batch::one(b"set a 1");
        let forward = Forward {
            session: 4,
            sequence: 1,
            time: Timestamp(2),
            count: 1,
            commands: Bytes::copy_from_slice(batch.body()),
        };
        [
            Payload::Hello { ask: true },
            Payload::FormedWithoutYou,
            Payload::PreVote(ballot),
            Payload::PreVoteAnswer(verdict),
            Payload::Vote(ballot),
            Payload::VoteAnswer(verdict),
            Payload::Append(Append::default()),
            Payload::Append(append),
            Payload::AppendAnswer(AppendAnswer {
                conflict: Some(Box::new(conflict)),
                ..answer.clone()
            }),
            Payload::AppendAnswer(answer),
            Payload::ReadIndex { round: 1 },
            Payload::ReadIndexAnswer { round: 1, index: LogIndex(2) },
            Payload::Forward(forward),
        ]
        .map(|payload| Message { head: head(), payload })
        .into()
    }

    fn whole(message: Message) -> Bytes {
        let (head, body) = Encoder::default().encode(message);
        [head, body].concat().into()
    }

    #[test]
    fn every_kind_comes_back_as_it_was() {
        for message in every_kind() {
            assert_eq!(decode(&whole(message.clone())), Ok(message));
        }
    }

    #[test]
    fn heads_from_one_pool_do_not_mix() {
        let mut encoder = Encoder::default();
        let kept: Vec<_> = (0..40).flat_map(|_| every_kind()).collect();
        let encoded: Vec<_> = kept.iter().map(|message| encoder.encode(message.clone())).collect();
        for (message, (head, body)) in kept.into_iter().zip(encoded) {
            assert_eq!(decode(&[head, body].concat().into()), Ok(message));
        }
    }

    #[test]
    fn every_truncation_and_extension_is_a_fault() {
        for message in every_kind() {
            let bytes = whole(message);
            for end in 0..bytes.len() {
                assert!(decode(&bytes.slice(..end)).is_err(), "{end} of {bytes:?}");
            }
            assert!(decode(&[&bytes[..], &[0]].concat().into()).is_err());
        }
    }

    #[test]
    fn every_flipped_bit_of_a_head_is_a_fault() {
        for message in every_kind() {
            let frames = matches!(&message.payload, Payload::Append(_));
            let (head, body) = Encoder::default().encode(message);
            let covered = if frames { head.len() } else { head.len() + body.len() };
            for bit in 0..covered * 8 {
                let mut bad = [&head[..], &body[..]].concat();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(&bad.into()).is_err(), "bit {bit}");
            }
        }
    }

    /// The checksum keeps accidents out; a peer gone wrong computes it right. Whatever its fields
    /// say, decoding ends and allocates no more than the message's own length allows.
    #[test]
    fn every_byte_changed_under_a_right_checksum_is_survived() {
        for message in every_kind() {
            let bytes = whole(message);
            for at in 4..bytes.len() {
                for value in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut bad = bytes.to_vec();
                    bad[at] = value;
                    let head = u32::from_le_bytes([bad[8], bad[9], bad[10], bad[11]]) as usize;
                    let crc = crc32c::crc32c(&bad[4..head.clamp(4, bytes.len())]);
                    bad[..4].copy_from_slice(&crc.to_le_bytes());
                    let _ = decode(&bad.into());
                }
            }
        }
    }
}

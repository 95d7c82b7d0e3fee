//! Bytes <-> [`Message`]. Total: whatever arrives is a message or a named fault, never a panic.
//!
//! ```text
//!  0  crc                             16 cluster            64 receiver's incarnation
//!  4  version, kind, two zero bytes   24 cluster epoch      72 log epoch
//!  8  head length                     32 group              80 log epoch answered to
//! 12  body length                     40 from, 48 to        88 term
//!                                     56 incarnation        96 fields of the kind
//! ```
//!
//! A head is 64-bit words, little-endian. Its crc begins with the four bytes behind it and goes
//! over all words that follow, so a flipped bit is a fault and no byte is taken alone. The body is
//! entries, which carry checksums of their own, or forwarded commands, whose crc is a field of the
//! head. Knows no roles: whether a message is believed is decided by those who receive it.

#[cfg(test)]
pub(crate) mod tests;

use crate::{
    backup::Origin,
    le,
    membership::{CODE_BYTES_MAX, Membership},
    message::{
        Append, AppendAnswer, Ballot, CONFLICT_RUNS_MAX, Conflict, FATES_MAX, Fate, Forward, Head,
        InstallAnswer, Life, Message, Payload, Placement, Refill, Verdict,
    },
    types::{
        ClusterId, GroupId, LogId, LogIndex, NodeId, Piece, SnapshotId, SnapshotName, Term,
        Timestamp,
    },
};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::{mem::take, sync::Arc};

const VERSION: u8 = 1;
const WORD: usize = 8;
const FIXED_WORDS: usize = 12;
const FIXED_BYTES: usize = FIXED_WORDS * WORD;
const FATE_WORDS: usize = 4;
const RUN_WORDS: usize = 2;
/// Room for one head of any kind.
const HEAD_BYTES_MAX: usize = 48 << 10;
/// A body is one append: half of the largest segment there can be.
const BODY_BYTES_MAX: usize = 1 << 30;
/// Heads are cut from a common buffer: one allocation for a dozen of them, and few enough that the
/// buffer stays in the nearest cache.
const POOL_BYTES: usize = 2 << 10;

/// Why bytes are no message.
pub(crate) type Fault = &'static str;

/// Writes messages, heads one behind the other into buffers that they share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Encoder {
    pool: BytesMut,
}

impl Encoder {
    /// The message's head and body. The body's bytes are not copied: they are taken out of it.
    pub(crate) fn encode(&mut self, message: &mut Message) -> (Bytes, Bytes) {
        let Message { head, payload } = message;
        match payload {
            Payload::Hello { ask, origin } if origin.is_nothing() => {
                self.bare(head, 1, [u64::from(*ask)])
            }
            Payload::Hello { ask, origin: Origin { at, id } } => {
                self.bare(head, 20, [u64::from(*ask), at.term.0, at.index.0, id.0])
            }
            Payload::FormedWithoutYou => self.bare(head, 2, []),
            Payload::PreVote(ballot) => self.bare(head, 3, ballot_words(*ballot)),
            Payload::PreVoteAnswer(verdict) => self.bare(head, 4, verdict_words(*verdict)),
            Payload::Vote(ballot) => self.bare(head, 5, ballot_words(*ballot)),
            Payload::VoteAnswer(verdict) => self.bare(head, 6, verdict_words(*verdict)),
            Payload::Append(append) => self.append(head, append),
            Payload::AppendAnswer(answer) => self.answer(head, answer),
            Payload::ReadIndex { round } => self.bare(head, 9, [*round]),
            Payload::ReadIndexAnswer { round, index } => self.bare(head, 10, [*round, index.0]),
            Payload::Forward(forward) => self.forward(head, forward),
            Payload::Install(piece) => self.piece(head, piece),
            Payload::InstallAnswer(answer) => self.bare(head, 13, install_words(answer)),
            Payload::Gate { nonce } => self.bare(head, 14, *nonce),
            Payload::GateAnswer { nonce: [life, fault], last } => {
                self.bare(head, 15, [*life, *fault, last.0])
            }
            Payload::RefillAsk { at } => self.bare(head, 16, [at.term.0, at.index.0]),
            Payload::TimeoutNow => self.bare(head, 19, []),
            Payload::Members(members) => self.members(head, members),
            Payload::Removed { at } => self.bare(head, 18, [at.term.0, at.index.0]),
            Payload::Refill(given) => {
                let words = [given.gone.term.0, given.gone.index.0, given.time.0];
                self.begin(head, 17, words, 0, given.frames.len());
                (self.finish(), take(&mut given.frames))
            }
        }
    }

    fn append(&mut self, head: &Head, append: &mut Append) -> (Bytes, Bytes) {
        let fates = append.fates.len();
        let words = [
            append.sequence,
            append.round,
            append.prev.term.0,
            append.prev.index.0,
            append.commit.0,
            append.retain.0,
            append.session.0,
            append.fates_after,
            u64::from(append.ask) | u64::from(append.rest) << 1 | (fates as u64) << 32,
        ];
        self.begin(head, 7, words, fates * FATE_WORDS, append.frames.len());
        append.fates.iter().for_each(|fate| self.put(fate_words(fate)));
        (self.finish(), take(&mut append.frames))
    }

    fn answer(&mut self, head: &Head, answer: &AppendAnswer) -> (Bytes, Bytes) {
        // Zero runs stand for "no conflict": a conflict names one at least.
        let runs = answer.conflict.as_ref().map_or(&[][..], |conflict| &conflict.runs);
        let (through, committed) = answer
            .conflict
            .as_ref()
            .map_or((0, 0), |conflict| (conflict.through.0, conflict.committed.0));
        let words = [
            answer.sequence,
            answer.round,
            answer.matched.0,
            answer.durable.0,
            answer.fates,
            runs.len() as u64
                | u64::from(answer.full) << 32
                | u64::from(answer.gated) << 33
                | u64::from(answer.rests) << 34,
            through,
            committed,
        ];
        self.begin(head, 8, words, runs.len() * RUN_WORDS, 0);
        runs.iter().for_each(|(first, term)| self.put([first.0, term.0]));
        (self.finish(), Bytes::new())
    }

    fn forward(&mut self, head: &Head, forward: &mut Forward) -> (Bytes, Bytes) {
        let crc = crc32c::crc32c(&forward.commands);
        let words = [
            forward.session.0,
            forward.sequence,
            forward.time.0,
            u64::from(forward.count) | u64::from(crc) << 32,
        ];
        self.begin(head, 11, words, 0, forward.commands.len());
        (self.finish(), take(&mut forward.commands))
    }

    fn members(&mut self, head: &Head, members: &Membership) -> (Bytes, Bytes) {
        let (members, length) = padded(members.encode());
        self.begin(head, 21, [length], members.len() / WORD, 0);
        self.pool.put_slice(&members);
        (self.finish(), Bytes::new())
    }

    fn piece(&mut self, head: &Head, piece: &mut Piece) -> (Bytes, Bytes) {
        let SnapshotName { at, id, bytes, digest } = piece.snapshot;
        let crc = crc32c::crc32c(&piece.bytes);
        let crcs = u64::from(digest) | u64::from(crc) << 32;
        let members = piece.members.as_ref().map_or_else(Vec::new, |members| members.encode());
        let (members, length) = padded(members);
        let (offset, time) = (piece.offset, piece.time.0);
        let words = [at.term.0, at.index.0, id.0, bytes, crcs, offset, time, length];
        self.begin(head, 12, words, members.len() / WORD, piece.bytes.len());
        self.pool.put_slice(&members);
        (self.finish(), take(&mut piece.bytes))
    }

    /// A message of fixed length and without a body.
    fn bare<const N: usize>(&mut self, head: &Head, kind: u8, words: [u64; N]) -> (Bytes, Bytes) {
        self.begin(head, kind, words, 0, 0);
        (self.finish(), Bytes::new())
    }

    /// Writes the fixed part of a head, which `more` words will follow.
    fn begin<const N: usize>(
        &mut self,
        head: &Head,
        kind: u8,
        words: [u64; N],
        more: usize,
        body_bytes: usize,
    ) {
        let head_bytes = FIXED_BYTES + (N + more) * WORD;
        // Nearly always all heads that were cut from it are gone: the same buffer serves again.
        if self.pool.capacity() < head_bytes && !self.pool.try_reclaim(head_bytes) {
            self.pool = BytesMut::with_capacity(head_bytes.max(POOL_BYTES));
        }
        self.put([
            u64::from(VERSION) << 32 | u64::from(kind) << 40,
            head_bytes as u64 | (body_bytes as u64) << 32,
            head.cluster.0,
            head.cluster_epoch,
            head.group.0,
            head.from.0,
            head.to.0,
            head.incarnation,
            head.to_incarnation,
            head.life.0,
            head.answers.0,
            head.term.0,
        ]);
        self.put(words);
    }

    fn put<const N: usize>(&mut self, words: [u64; N]) {
        self.pool.put_slice(le::words(words).as_flattened());
    }

    fn finish(&mut self) -> Bytes {
        let crc = crc(&self.pool);
        self.pool[..4].copy_from_slice(&crc.to_le_bytes());
        self.pool.split().freeze()
    }
}

const fn ballot_words(ballot: Ballot) -> [u64; 4] {
    [ballot.round, ballot.last.term.0, ballot.last.index.0, ballot.is_wished as u64]
}

const fn verdict_words(verdict: Verdict) -> [u64; 2] {
    [verdict.round, verdict.granted as u64]
}

const fn install_words(answer: &InstallAnswer) -> [u64; 6] {
    let InstallAnswer { snapshot, id, next, stored, done } = *answer;
    [snapshot.term.0, snapshot.index.0, id.0, next, stored, done as u64]
}

const fn fate_words(fate: &Fate) -> [u64; FATE_WORDS] {
    match fate.outcome {
        Placement::At { id, ordinal } => {
            [fate.sequence, (ordinal as u64) << 32, id.term.0, id.index.0]
        }
        Placement::Busy => [fate.sequence, 1, 0, 0],
        Placement::DiskFull => [fate.sequence, 2, 0, 0],
        Placement::TooLarge => [fate.sequence, 3, 0, 0],
    }
}

/// The checksum of a whole head, its own field left out.
fn crc(head: &[u8]) -> u32 {
    let seed = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    crc32c::crc32c_append(seed, &head[WORD..])
}

/// The group that a message names, believed by nobody yet.
pub(crate) fn group_of(bytes: &[u8]) -> Option<GroupId> {
    let (words, _) = bytes.as_chunks::<WORD>();
    (words.len() >= FIXED_WORDS).then(|| GroupId(u64::from_le_bytes(words[4])))
}

/// A head of fixed length alone, of a kind that engines do not know.
pub(crate) fn bare_head(kind: u8, fields: [u64; FIXED_WORDS - 2]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(FIXED_BYTES);
    bytes.put_u64_le(u64::from(VERSION) << 32 | u64::from(kind) << 40);
    bytes.put_u64_le(FIXED_BYTES as u64);
    fields.into_iter().for_each(|field| bytes.put_u64_le(field));
    let crc = crc(&bytes);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes.freeze()
}

/// What [`bare_head`] was given, if it was that.
pub(crate) fn bare_words(kind: u8, bytes: &[u8]) -> Option<[u64; FIXED_WORDS - 2]> {
    let (found, words) = judge_frame(bytes).ok()?;
    let (_, fields) = words.split_first_chunk::<2>()?;
    let fields = <[[u8; WORD]; FIXED_WORDS - 2]>::try_from(fields).ok()?;
    (found == kind && bytes.len() == FIXED_BYTES).then(|| le::numbers(&fields))
}

/// Whether this may be the head of a message that commits its sender: a vote, an acknowledgement, the
/// wish for another leader, what a gate waits for, and of which fault that is.
pub(crate) fn may_commit(head: &[u8]) -> bool {
    matches!(head.get(5), Some(5 | 6 | 8 | 14 | 15 | 19))
}

/// Whether a message is one that only leaders send: an append, or a piece of a snapshot.
pub(crate) fn is_leaders(head: &[u8]) -> bool {
    matches!(head.get(5), Some(7 | 12))
}

/// Whether a message is a piece of a snapshot; of one that is none, perhaps.
pub(crate) fn is_piece(head: &[u8]) -> bool {
    head.get(5) == Some(&12)
}

/// Reads a message; its body is what `bytes` holds behind the head.
pub(crate) fn decode(mut bytes: Bytes) -> Result<Message, Fault> {
    let (kind, words) = judge_frame(&bytes)?;
    let (fixed, fields) = words.split_first_chunk().ok_or("message length")?;
    let (head_bytes, mut fields) = (words.len() * WORD, Fields(fields));
    let mut payload =
        take_payload(kind, &mut fields, &bytes[head_bytes..])?.ok_or("message field")?;
    if !fields.0.is_empty() {
        return Err("message longer than its kind");
    }
    let head = take_head(fixed);
    bytes.advance(head_bytes);
    match body_of(&mut payload) {
        // An empty body would keep the whole message alive.
        _ if bytes.is_empty() => {}
        Some(body) => *body = bytes,
        None => return Err("message longer than its kind"),
    }
    Ok(Message { head, payload })
}

/// The body of a message of a kind that has one.
const fn body_of(payload: &mut Payload) -> Option<&mut Bytes> {
    match payload {
        Payload::Append(append) => Some(&mut append.frames),
        Payload::Forward(forward) => Some(&mut forward.commands),
        Payload::Install(piece) => Some(&mut piece.bytes),
        Payload::Refill(given) => Some(&mut given.frames),
        _ => None,
    }
}

/// Lengths, checksum and version: the kind, and the words of the head.
fn judge_frame(bytes: &[u8]) -> Result<(u8, &[[u8; WORD]]), Fault> {
    let (words, _) = bytes.as_chunks::<WORD>();
    let [first, lengths, ..] = words else { return Err("message cut short") };
    let lengths = u64::from_le_bytes(*lengths);
    let (head, body) = (lengths as u32 as usize, (lengths >> 32) as usize);
    let is_sound = (FIXED_BYTES..=HEAD_BYTES_MAX).contains(&head) && head.is_multiple_of(WORD);
    if !is_sound || body > BODY_BYTES_MAX {
        return Err("message length");
    }
    if bytes.len() != head + body {
        return Err("message cut short or too long");
    }
    let [a, b, c, d, version, kind, zero @ ..] = *first;
    if crc(&bytes[..head]) != u32::from_le_bytes([a, b, c, d]) {
        return Err("message checksum");
    }
    if version != VERSION || zero != [0, 0] {
        return Err("message of another version");
    }
    Ok((kind, &words[..head / WORD]))
}

/// Words of a head that are not taken yet.
struct Fields<'a>(&'a [[u8; WORD]]);

impl Fields<'_> {
    /// The next ones, all or none.
    fn take<const N: usize>(&mut self) -> Option<[u64; N]> {
        let (words, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(le::numbers(words))
    }

    /// Items of `N` words each. How many there are is judged before there is room made for them.
    fn take_list<const N: usize, T>(
        &mut self,
        items: u64,
        items_max: usize,
        item: impl Fn([u64; N]) -> Option<T>,
    ) -> Option<Vec<T>> {
        if items == 0 {
            return Some(Vec::new());
        }
        if items > items_max as u64 {
            return None;
        }
        (0..items).map(|_| self.take().and_then(&item)).collect()
    }
}

fn take_head(words: &[[u8; WORD]; FIXED_WORDS]) -> Head {
    let [_, _, cluster, cluster_epoch, group, from, to, incarnation, rest @ ..] =
        le::numbers(words);
    let [to_incarnation, life, answers, term] = rest;
    Head {
        cluster: ClusterId(cluster),
        cluster_epoch,
        group: GroupId(group),
        from: NodeId(from),
        to: NodeId(to),
        incarnation,
        to_incarnation,
        life: Life(life),
        answers: Life(answers),
        term: Term(term),
    }
}

/// What the head says of the payload; a body, which is only judged here, is left out.
fn take_payload(kind: u8, from: &mut Fields<'_>, body: &[u8]) -> Result<Option<Payload>, Fault> {
    Ok(match kind {
        1 => from.take().and_then(|[ask]| bool_of(ask)).map(|ask| {
            let origin = Origin::default();
            Payload::Hello { ask, origin }
        }),
        20 => from.take().and_then(|[ask, term, index, id]| {
            let (at, id) = (LogId::new(Term(term), LogIndex(index)), SnapshotId(id));
            let origin = Origin { at, id };
            // What began with nothing says so in the other form.
            let ask = bool_of(ask).filter(|_| !origin.is_nothing())?;
            Some(Payload::Hello { ask, origin })
        }),
        2 => Some(Payload::FormedWithoutYou),
        3 => from.take().and_then(ballot_of).map(Payload::PreVote),
        4 => from.take().and_then(verdict_of).map(Payload::PreVoteAnswer),
        5 => from.take().and_then(ballot_of).map(Payload::Vote),
        6 => from.take().and_then(verdict_of).map(Payload::VoteAnswer),
        7 => take_append(from).map(Payload::Append),
        8 => take_answer(from).map(Payload::AppendAnswer),
        9 => from.take().map(|[round]| Payload::ReadIndex { round }),
        10 => from.take().map(|[round, index]| {
            let index = LogIndex(index);
            Payload::ReadIndexAnswer { round, index }
        }),
        11 => take_forward(from, body)?.map(Payload::Forward),
        12 => take_piece(from, body)?.map(Payload::Install),
        13 => from.take().and_then(install_answer_of).map(Payload::InstallAnswer),
        14 => from.take().map(|nonce| Payload::Gate { nonce }),
        15 => from.take().map(|[life, fault, last]| {
            let (nonce, last) = ([life, fault], LogIndex(last));
            Payload::GateAnswer { nonce, last }
        }),
        16 => from.take().map(|[term, index]| {
            let at = LogId::new(Term(term), LogIndex(index));
            Payload::RefillAsk { at }
        }),
        17 => from.take().map(|[term, index, time]| {
            let (gone, time) = (LogId::new(Term(term), LogIndex(index)), Timestamp(time));
            Payload::Refill(Refill { gone, time, frames: Bytes::new() })
        }),
        19 => Some(Payload::TimeoutNow),
        21 => {
            let members = from.take().and_then(|[length]| take_members(from, length)).flatten();
            members.map(Payload::Members)
        }
        18 => from.take().map(|[term, index]| {
            let at = LogId::new(Term(term), LogIndex(index));
            Payload::Removed { at }
        }),
        _ => return Err("message of an unknown kind"),
    })
}

const fn bool_of(word: u64) -> Option<bool> {
    match word {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

fn ballot_of([round, term, index, is_wished]: [u64; 4]) -> Option<Ballot> {
    let last = LogId::new(Term(term), LogIndex(index));
    (is_wished <= 1).then_some(Ballot { round, last, is_wished: is_wished == 1 })
}

fn verdict_of([round, granted]: [u64; 2]) -> Option<Verdict> {
    bool_of(granted).map(|granted| Verdict { round, granted })
}

fn take_append(from: &mut Fields<'_>) -> Option<Append> {
    let [sequence, round, prev_term, prev_index, commit, retain, session, fates_after, counts] =
        from.take()?;
    let flags = counts as u32;
    if flags > 0b11 {
        return None;
    }
    Some(Append {
        sequence,
        round,
        prev: LogId::new(Term(prev_term), LogIndex(prev_index)),
        commit: LogIndex(commit),
        retain: LogIndex(retain),
        session: Life(session),
        fates_after,
        ask: flags & 1 == 1,
        rest: flags >> 1 == 1,
        fates: from.take_list(counts >> 32, FATES_MAX, fate_of)?,
        frames: Bytes::new(),
    })
}

const fn fate_of([sequence, outcome, term, index]: [u64; FATE_WORDS]) -> Option<Fate> {
    let outcome = match (outcome as u32, outcome >> 32, term, index) {
        (0, ordinal, term, index) => {
            let id = LogId::new(Term(term), LogIndex(index));
            Placement::At { id, ordinal: ordinal as u32 }
        }
        (1, 0, 0, 0) => Placement::Busy,
        (2, 0, 0, 0) => Placement::DiskFull,
        (3, 0, 0, 0) => Placement::TooLarge,
        _ => return None,
    };
    Some(Fate { sequence, outcome })
}

fn take_answer(from: &mut Fields<'_>) -> Option<AppendAnswer> {
    let [sequence, round, matched, durable, fates, counts, through, committed] = from.take()?;
    let runs = counts & u64::from(u32::MAX);
    let (full, gated) = (counts >> 32 & 1 == 1, counts >> 33 & 1 == 1);
    let rests = bool_of(counts >> 34)?;
    let conflict = if runs > 0 {
        let run = |[first, term]: [u64; RUN_WORDS]| Some((LogIndex(first), Term(term)));
        let runs = from.take_list(runs, CONFLICT_RUNS_MAX, run)?;
        let (through, committed) = (LogIndex(through), LogIndex(committed));
        Some(Box::new(Conflict { through, committed, runs }))
    } else if (through, committed) == (0, 0) {
        None
    } else {
        return None;
    };
    let (matched, durable) = (LogIndex(matched), LogIndex(durable));
    Some(AppendAnswer { sequence, round, matched, durable, fates, full, gated, rests, conflict })
}

fn take_forward(from: &mut Fields<'_>, body: &[u8]) -> Result<Option<Forward>, Fault> {
    let Some([session, sequence, time, counts]) = from.take() else { return Ok(None) };
    if crc32c::crc32c(body) != (counts >> 32) as u32 {
        return Err("forwarded commands' checksum");
    }
    let (session, time, count) = (Life(session), Timestamp(time), counts as u32);
    let commands = Bytes::new();
    Ok(Some(Forward { session, sequence, time, count, commands }))
}

fn take_piece(from: &mut Fields<'_>, body: &[u8]) -> Result<Option<Piece>, Fault> {
    let Some([term, index, id, bytes, crcs, offset, time, length]) = from.take() else {
        return Ok(None);
    };
    let Some(members) = take_members(from, length) else { return Ok(None) };
    if crc32c::crc32c(body) != (crcs >> 32) as u32 {
        return Err("snapshot piece's checksum");
    }
    let at = LogId::new(Term(term), LogIndex(index));
    let snapshot = SnapshotName { at, id: SnapshotId(id), bytes, digest: crcs as u32 };
    let (time, bytes) = (Timestamp(time), Bytes::new());
    Ok(Some(Piece { snapshot, offset, time, members, bytes }))
}

/// Zeros make whole words of it; and how long it was.
fn padded(mut bytes: Vec<u8>) -> (Vec<u8>, u64) {
    let length = bytes.len();
    bytes.resize(length.next_multiple_of(WORD), 0);
    (bytes, length as u64)
}

/// A membership of so many bytes, which zeros make whole words; none, if there are none.
#[expect(clippy::option_option, reason = "whether it is well formed, and whether there is one")]
fn take_members(from: &mut Fields<'_>, length: u64) -> Option<Option<Arc<Membership>>> {
    let length = usize::try_from(length).ok().filter(|length| *length <= CODE_BYTES_MAX)?;
    let words = from.0.split_off(..length.div_ceil(WORD))?;
    let (bytes, padding) = words.as_flattened().split_at(length);
    if length == 0 {
        return Some(None);
    }
    let members = Membership::decode(bytes).filter(|members| members.encode() == bytes)?;
    padding.iter().all(|byte| *byte == 0).then(|| Some(Arc::new(members)))
}

fn install_answer_of([term, index, id, next, stored, done]: [u64; 6]) -> Option<InstallAnswer> {
    let snapshot = LogId::new(Term(term), LogIndex(index));
    Some(InstallAnswer { snapshot, id: SnapshotId(id), next, stored, done: bool_of(done)? })
}

/// The same bytes with the checksum that they should have: a peer gone wrong computes it right.
#[cfg(any(test, fuzzing))]
pub(crate) fn with_right_crc(mut bytes: Vec<u8>) -> Vec<u8> {
    let head = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]) as usize;
    let crc = crc(&bytes[..head.clamp(WORD, bytes.len())]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

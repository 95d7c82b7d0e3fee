//! The entry: encoded once, and the same bytes on the leader's disk, on the wire, on the
//! followers' disks and in the hands of the state machine.
//!
//! ```text
//!  0  magic "LAKE"     16  index            48  command count
//!  4  header crc       24  term             52  body crc
//!  8  total length     32  previous term    56  kind, flags, six zero bytes
//! 12  body length      40  leader's time    64  body: per command a u32 length and its bytes
//! ```
//!
//! All little-endian. The *header crc* covers bytes 8..64, seeded with cluster and group, so an
//! entry of another cluster is no entry. The *body crc* covers the body and then index and term:
//! a new header over an old body of equal length does not pass. As the header covers the body crc,
//! the header crc alone identifies the whole entry; a slot keeps it as its *digest*.

use crate::le::{u32_at, u64_at};
use crate::types::{ClusterId, GroupId, LogId, LogIndex, RequestId, Requests, Term, Timestamp};
use bytes::{BufMut, Bytes, BytesMut};

/// The length of an entry's header in bytes; its body follows.
pub const HEAD_BYTES: usize = 64;
/// Appends up to this size are copied into a buffer that they share in the log: that costs less than to keep,
/// for each of them, the buffer that it came in, and to come back to it when all else has gone through the caches.
pub(crate) const SHARED_BYTES_MAX: usize = 8 << 10;
const MAGIC: &[u8; 4] = b"LAKE";

/// What an entry carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Commands for the state machine.
    Commands = 1,
    /// A [`Membership`](crate::Membership), in force from here on.
    Membership = 2,
    /// Nothing: the first entry of a leader's term.
    Empty = 3,
    /// Nothing: a place in the log that a later step waits for.
    Barrier = 4,
}

impl Kind {
    pub(crate) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Commands),
            2 => Some(Self::Membership),
            3 => Some(Self::Empty),
            4 => Some(Self::Barrier),
            _ => None,
        }
    }
}

/// Ties the checksums of entries to one cluster and group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seed(u32);

impl Seed {
    /// The seed of this group of this cluster.
    #[must_use]
    pub fn new(cluster: ClusterId, group: GroupId) -> Self {
        Self(crc32c::crc32c_append(
            crc32c::crc32c(&cluster.0.to_le_bytes()),
            &group.0.to_le_bytes(),
        ))
    }
}

/// An entry's header, verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    /// The entry's identity.
    pub id: LogId,
    /// The term of the entry before it.
    pub prev_term: Term,
    /// The clock of the leader that made it, or the time of an entry before it if that is later.
    pub time: Timestamp,
    /// Header and body, in bytes.
    pub total_bytes: u32,
    /// Commands in the body.
    pub count: u32,
    /// What the body is.
    pub kind: Kind,
    /// The header crc, which identifies header and body.
    pub digest: u32,
    body_crc: u32,
}

/// Why bytes are not an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Malformed {
    /// Fewer bytes than a header, or than the header says.
    Short,
    /// No entry begins here.
    Magic,
    /// The header's checksum does not hold: other bytes, or another cluster's.
    HeaderChecksum,
    /// The header is whole and says what no writer of this version writes.
    Field,
    /// The header is good and the body is not the one it was written for.
    BodyChecksum,
}

impl Malformed {
    /// A few words for a report.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Short => "entry cut short",
            Self::Magic => "no entry here",
            Self::HeaderChecksum => "entry header checksum",
            Self::Field => "entry header field",
            Self::BodyChecksum => "entry body checksum",
        }
    }
}

impl Head {
    /// Reads and verifies the header at the start of `bytes`; the body may be missing.
    pub fn parse(bytes: &[u8], seed: Seed) -> Result<Self, Malformed> {
        let head = bytes.first_chunk::<HEAD_BYTES>().ok_or(Malformed::Short)?;
        if &head[..4] != MAGIC {
            return Err(Malformed::Magic);
        }
        let digest = u32_at(head, 4);
        if crc32c::crc32c_append(seed.0, &head[8..]) != digest {
            return Err(Malformed::HeaderChecksum);
        }
        let (total_bytes, body_bytes) = (u32_at(head, 8), u32_at(head, 12));
        if total_bytes.checked_sub(body_bytes) != Some(HEAD_BYTES as u32) || head[57..] != [0; 7] {
            return Err(Malformed::Field);
        }
        Ok(Self {
            id: LogId::new(Term(u64_at(head, 24)), LogIndex(u64_at(head, 16))),
            prev_term: Term(u64_at(head, 32)),
            time: Timestamp(u64_at(head, 40)),
            total_bytes,
            count: u32_at(head, 48),
            kind: Kind::from_byte(head[56]).ok_or(Malformed::Field)?,
            digest,
            body_crc: u32_at(head, 52),
        })
    }

    /// Verifies `body`, which must have the length that the header says.
    pub fn verify_body(&self, body: &[u8]) -> Result<(), Malformed> {
        if body.len() + HEAD_BYTES != self.total_bytes as usize {
            return Err(Malformed::Short);
        }
        if body_crc(body, self.id) != self.body_crc {
            return Err(Malformed::BodyChecksum);
        }
        Ok(())
    }

    /// Reads the entry at the start of `bytes` and verifies all of it.
    pub fn parse_whole(bytes: &[u8], seed: Seed) -> Result<Self, Malformed> {
        let head = Self::parse(bytes, seed)?;
        let frame = bytes.get(..head.total_bytes as usize).ok_or(Malformed::Short)?;
        head.verify_body(&frame[HEAD_BYTES..])?;
        Ok(head)
    }
}

fn body_crc(body: &[u8], id: LogId) -> u32 {
    let mut tail = [0; 16];
    tail[..8].copy_from_slice(&id.index.0.to_le_bytes());
    tail[8..].copy_from_slice(&id.term.0.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(body), &tail)
}

/// Commands on their way in: the body of an entry in the making, with room for its header.
///
/// Built by whoever proposes, on any thread; the engine seals it in place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    buf: BytesMut,
    count: u32,
}

impl Default for Batch {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl Batch {
    /// An empty batch with room for `bytes` of commands and their lengths (four bytes each).
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        let mut buf = BytesMut::with_capacity(bytes + HEAD_BYTES);
        buf.put_bytes(0, HEAD_BYTES);
        Self { buf, count: 0 }
    }

    /// A batch of one command.
    #[must_use]
    pub fn one(command: &[u8]) -> Self {
        let mut batch = Self::with_capacity(command.len() + 4);
        batch.push(command);
        batch
    }

    /// Adds a command.
    pub fn push(&mut self, command: &[u8]) {
        self.buf.put_u32_le(command.len() as u32);
        self.buf.put_slice(command);
        self.count += 1;
    }

    /// Adds a command that `encode` writes in place.
    pub fn push_with(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        let at = self.buf.len();
        self.buf.put_u32_le(0);
        encode(&mut self.buf);
        let bytes = (self.buf.len() - at - 4) as u32;
        self.buf[at..at + 4].copy_from_slice(&bytes.to_le_bytes());
        self.count += 1;
    }

    /// Adds all commands of `other` behind its own.
    pub fn append(&mut self, other: &Self) {
        self.buf.extend_from_slice(other.body());
        self.count += other.count;
    }

    /// How many commands.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The body's length in bytes: the commands and four bytes for each.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.buf.len() - HEAD_BYTES
    }

    /// Whether it has no command.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The commands, each behind its length.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.buf[HEAD_BYTES..]
    }

    /// The body alone.
    pub(crate) fn into_body(self) -> Bytes {
        self.buf.freeze().slice(HEAD_BYTES..)
    }

    /// A batch whose body came over the wire; `None` when `body` is not `count` commands.
    #[must_use]
    pub fn from_body(body: &[u8], count: u32) -> Option<Self> {
        let mut rest = body;
        for _ in 0..count {
            let bytes = rest.split_off(..4)?;
            rest.split_off(..u32_at(bytes, 0) as usize)?;
        }
        if !rest.is_empty() {
            return None;
        }
        let mut batch = Self::with_capacity(body.len());
        batch.buf.put_slice(body);
        batch.count = count;
        Some(batch)
    }

    /// Writes the header into its room: the batch is an entry from here on.
    pub(crate) fn seal(
        self,
        seed: Seed,
        id: LogId,
        prev_term: Term,
        time: Timestamp,
    ) -> (Head, Bytes) {
        let (count, len) = (self.count, self.buf.len());
        // What is counted in memory is the entry: a buffer that is mostly empty is not kept for it.
        let is_roomy = len > SHARED_BYTES_MAX && self.buf.capacity() > 2 * len;
        let buf = if is_roomy { BytesMut::from(&self.buf[..]) } else { self.buf };
        seal(buf, seed, id, prev_term, time, count, Kind::Commands)
    }
}

/// An entry that is no batch of commands: its body is the engine's own.
pub(crate) fn seal_body(
    kind: Kind,
    body: &[u8],
    seed: Seed,
    id: LogId,
    prev_term: Term,
    time: Timestamp,
) -> (Head, Bytes) {
    let mut buf = BytesMut::with_capacity(HEAD_BYTES + body.len());
    buf.put_bytes(0, HEAD_BYTES);
    buf.put_slice(body);
    seal(buf, seed, id, prev_term, time, 0, kind)
}

fn seal(
    mut buf: BytesMut,
    seed: Seed,
    id: LogId,
    prev_term: Term,
    time: Timestamp,
    count: u32,
    kind: Kind,
) -> (Head, Bytes) {
    let body_crc = body_crc(&buf[HEAD_BYTES..], id);
    let total_bytes = buf.len() as u32;
    let head = &mut buf[..HEAD_BYTES];
    head[..4].copy_from_slice(MAGIC);
    head[8..12].copy_from_slice(&total_bytes.to_le_bytes());
    head[12..16].copy_from_slice(&(total_bytes - HEAD_BYTES as u32).to_le_bytes());
    head[16..24].copy_from_slice(&id.index.0.to_le_bytes());
    head[24..32].copy_from_slice(&id.term.0.to_le_bytes());
    head[32..40].copy_from_slice(&prev_term.0.to_le_bytes());
    head[40..48].copy_from_slice(&time.0.to_le_bytes());
    head[48..52].copy_from_slice(&count.to_le_bytes());
    head[52..56].copy_from_slice(&body_crc.to_le_bytes());
    head[56..].copy_from_slice(&[kind as u8, 0, 0, 0, 0, 0, 0, 0]);
    let digest = crc32c::crc32c_append(seed.0, &head[8..]);
    head[4..8].copy_from_slice(&digest.to_le_bytes());
    let head = Head { id, prev_term, time, total_bytes, count, kind, digest, body_crc };
    (head, buf.freeze())
}

/// Makes lengths and checksums hold, whatever else the header says; false: it is too short.
#[cfg(any(test, fuzzing))]
pub(crate) fn with_right_crcs(frame: &mut [u8], seed: Seed) -> bool {
    if frame.len() < HEAD_BYTES {
        return false;
    }
    let (head, body) = frame.split_at_mut(HEAD_BYTES);
    let total_bytes = (HEAD_BYTES + body.len()) as u32;
    head[8..12].copy_from_slice(&total_bytes.to_le_bytes());
    head[12..16].copy_from_slice(&(body.len() as u32).to_le_bytes());
    let id = LogId::new(Term(u64_at(head, 24)), LogIndex(u64_at(head, 16)));
    head[52..56].copy_from_slice(&body_crc(body, id).to_le_bytes());
    let digest = crc32c::crc32c_append(seed.0, &head[8..]);
    head[4..8].copy_from_slice(&digest.to_le_bytes());
    true
}

/// Which commands of an [`Entries`] somebody on this node waits for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Runs {
    /// Nobody waits.
    #[default]
    None,
    /// One run: the rule.
    One(Run),
    /// Several, in ascending order.
    Many(Box<[Run]>),
}

impl Runs {
    pub(crate) fn as_slice(&self) -> &[Run] {
        match self {
            Self::None => &[],
            Self::One(run) => std::slice::from_ref(run),
            Self::Many(runs) => runs,
        }
    }
}

/// Consecutive commands that consecutive requests wait for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The first command, counted over all commands of the [`Entries`].
    pub ordinal: u32,
    /// Who waits.
    pub requests: Requests,
}

/// Whole entries, contiguous in index and in memory, verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entries {
    /// The first entry's index.
    pub first: LogIndex,
    /// The last entry's index.
    pub last: LogIndex,
    pub(crate) frames: Bytes,
    pub(crate) runs: Runs,
}

/// One entry, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its identity.
    pub id: LogId,
    /// The clock of the leader that made it, or the time of an entry before it if that is later.
    pub time: Timestamp,
    /// What its body is.
    pub kind: Kind,
    /// How many commands it carries.
    pub count: u32,
    /// Its body.
    pub body: &'a [u8],
}

impl Entry<'_> {
    /// Header and body, in bytes.
    pub(crate) const fn total_bytes(&self) -> usize {
        HEAD_BYTES + self.body.len()
    }
}

/// One command, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    /// The entry that carries it.
    pub at: LogId,
    /// The leader's clock when it made that entry.
    pub time: Timestamp,
    /// What the client proposed.
    pub bytes: &'a [u8],
    /// Who waits for the answer on this node.
    pub request: Option<RequestId>,
}

impl Entries {
    /// Header and body bytes of all entries, which is what they count for while they are with the machine
    /// ([`Tuning::apply_bytes_max`](crate::Tuning::apply_bytes_max)).
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.frames.len()
    }

    /// The entries in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> + Clone + '_ {
        frames(&self.frames)
    }

    /// The commands in order.
    pub fn commands(&self) -> impl Iterator<Item = Command<'_>> + Clone + '_ {
        Commands {
            frames: &self.frames,
            body: &[],
            at: LogId::ZERO,
            time: Timestamp(0),
            runs: self.runs.as_slice(),
            ordinal: 0,
        }
    }
}

/// See [`Entries::commands`]. The one thing that is done for each command: in the loop of whoever
/// goes through them it takes less than half of what calls of it take, or of adapters around others.
#[derive(Clone)]
struct Commands<'a> {
    /// The entries that follow.
    frames: &'a [u8],
    /// What is left of the entry at hand, and whose it is.
    body: &'a [u8],
    at: LogId,
    time: Timestamp,
    /// Those that do not end before the next command.
    runs: &'a [Run],
    ordinal: u32,
}

impl<'a> Iterator for Commands<'a> {
    type Item = Command<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<Command<'a>> {
        while self.body.is_empty() {
            let entry = next_frame(&mut self.frames)?;
            if entry.kind == Kind::Commands {
                (self.body, self.at, self.time) = (entry.body, entry.id, entry.time);
            }
        }
        let (length, rest) = self.body.split_first_chunk().expect("the entry was verified");
        let (bytes, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        self.body = rest;
        Some(Command { at: self.at, time: self.time, bytes, request: self.next_request() })
    }
}

impl Commands<'_> {
    /// Who waits for the next command.
    #[inline(always)]
    fn next_request(&mut self) -> Option<RequestId> {
        let ordinal = self.ordinal;
        self.ordinal += 1;
        while let [run, rest @ ..] = self.runs {
            if ordinal < run.ordinal + run.requests.count {
                let place = ordinal.checked_sub(run.ordinal)?;
                return Some(RequestId(run.requests.first.0 + u64::from(place)));
            }
            self.runs = rest;
        }
        None
    }
}

/// The leader's clock in the entry at the start of `frame`, which was verified before.
pub(crate) fn time_of(frame: &[u8]) -> Timestamp {
    Timestamp(u64_at(frame, 40))
}

/// The entries in `bytes`, which were verified before.
pub(crate) fn frames(bytes: &[u8]) -> impl Iterator<Item = Entry<'_>> + Clone + '_ {
    let mut rest = bytes;
    std::iter::from_fn(move || next_frame(&mut rest))
}

/// The first of the entries in `rest`, which is cut off there.
#[inline]
fn next_frame<'a>(rest: &mut &'a [u8]) -> Option<Entry<'a>> {
    if rest.is_empty() {
        return None;
    }
    let frame = rest.split_off(..u32_at(rest, 8) as usize).expect("the entry was verified");
    Some(Entry {
        id: LogId::new(Term(u64_at(frame, 24)), LogIndex(u64_at(frame, 16))),
        time: Timestamp(u64_at(frame, 40)),
        kind: Kind::from_byte(frame[56]).expect("the entry was verified"),
        count: u32_at(frame, 48),
        body: &frame[HEAD_BYTES..],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> Seed {
        Seed::new(ClusterId(7), GroupId(1))
    }

    fn sealed(commands: &[&[u8]], index: u64) -> Bytes {
        let mut batch = Batch::default();
        commands.iter().for_each(|command| batch.push(command));
        batch.seal(seed(), LogId::new(Term(3), LogIndex(index)), Term(2), Timestamp(11)).1
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let frame = sealed(&[b"set a 1", b""], 5);
        assert!(Head::parse_whole(&frame, seed()).is_ok());
        for bit in 0..frame.len() * 8 {
            let mut bad = frame.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Head::parse_whole(&bad, seed()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn what_sealing_says_is_what_is_read_back() {
        let (head, frame) = Batch::one(b"set a 1").seal(
            seed(),
            LogId::new(Term(3), LogIndex(5)),
            Term(2),
            Timestamp(11),
        );
        assert_eq!(Head::parse_whole(&frame, seed()), Ok(head));
    }

    #[test]
    fn old_body_under_a_new_header_is_noticed() {
        let (old, new) = (sealed(&[b"aaaa"], 5), sealed(&[b"bbbb"], 6));
        let mixed = [&new[..HEAD_BYTES], &old[HEAD_BYTES..]].concat();
        assert_eq!(Head::parse_whole(&mixed, seed()), Err(Malformed::BodyChecksum));
    }

    #[test]
    fn another_clusters_entry_is_no_entry() {
        let other = Seed::new(ClusterId(8), GroupId(1));
        assert_eq!(Head::parse(&sealed(&[b"a"], 1), other), Err(Malformed::HeaderChecksum));
    }

    #[test]
    fn commands_know_who_waits() {
        let frames = [sealed(&[b"a", b"b"], 1), sealed(&[b"c", b"d"], 2)].concat();
        let run = |ordinal, first, count| Run {
            ordinal,
            requests: Requests { first: RequestId(first), count },
        };
        let entries = Entries {
            first: LogIndex(1),
            last: LogIndex(2),
            frames: frames.into(),
            runs: Runs::Many([run(0, 40, 1), run(2, 90, 2)].into()),
        };
        let seen: Vec<_> =
            entries.commands().map(|c| (c.bytes.to_vec(), c.request.map(|r| r.0))).collect();
        let expected = [(b"a", Some(40)), (b"b", None), (b"c", Some(90)), (b"d", Some(91))];
        assert_eq!(seen, expected.map(|(bytes, request)| (bytes.to_vec(), request)));
    }

    #[test]
    fn a_body_from_the_wire_is_checked() {
        let batch = Batch::one(b"hello");
        assert_eq!(Batch::from_body(batch.body(), 1).as_ref(), Some(&batch));
        assert_eq!(Batch::from_body(batch.body(), 2), None);
        assert_eq!(Batch::from_body(&batch.body()[..6], 1), None);
        assert_eq!(Batch::from_body(&u32::MAX.to_le_bytes(), 1), None);
    }
}

//! Messages on a stream: length, checksum, bytes.
//!
//! Knows nothing of what a message says. Invariant: a message is handed on whole, with a checksum
//! that holds, in a buffer of its own; a length is compared with the limit before there is one.
//!
//! ```text
//! 0  length of the message    4  crc of the message, seeded with the session    8  the message
//! ```
//!
//! The session, drawn in the handshake, ties a frame to its connection.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::{collections::VecDeque, fmt, io::IoSlice};

pub(super) const HEADER_BYTES: usize = 8;
/// Messages below this length are read many at a time and copied out; longer ones are read in
/// place.
const STAGE_BYTES: usize = 64 << 10;
/// What an announced length alone is worth in memory: beyond it, room grows with what has come.
const ANNOUNCED_BYTES: usize = 1 << 20;

/// Why a stream is given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FrameError {
    /// Longer than the limit.
    TooLong { bytes: u32, bytes_max: u32 },
    /// The checksum does not hold.
    Checksum,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes, bytes_max } => {
                write!(f, "a frame of {bytes} bytes, the limit is {bytes_max}")
            }
            Self::Checksum => f.write_str("a frame's checksum does not hold"),
        }
    }
}

pub(super) fn checksum(session: u32, parts: [&[u8]; 2]) -> u32 {
    parts.into_iter().fold(session, crc32c::crc32c_append)
}

/// Cuts a stream into messages.
#[derive(Debug)]
pub(super) struct Decoder {
    session: u32,
    bytes_max: u32,
    stage: BytesMut,
    long: Option<Long>,
}

/// A message that is read in place.
#[derive(Debug)]
struct Long {
    message: BytesMut,
    bytes: usize,
    crc: u32,
}

impl Long {
    fn new(bytes: usize, crc: u32) -> Self {
        Self { message: BytesMut::with_capacity(bytes.min(ANNOUNCED_BYTES)), bytes, crc }
    }

    /// Makes room for as much again, and for no byte more than there will be.
    fn grow(&mut self) {
        let there = self.message.len();
        if there == self.message.capacity() && there < self.bytes {
            let mut larger = BytesMut::with_capacity(self.bytes.min(2 * there));
            larger.put_slice(&self.message);
            self.message = larger;
        }
    }
}

impl Decoder {
    pub(super) fn new(session: u32, bytes_max: u32) -> Self {
        Self { session, bytes_max, stage: BytesMut::with_capacity(STAGE_BYTES), long: None }
    }

    /// Where the next bytes of the stream go, and how many at most.
    pub(super) fn room(&mut self) -> bytes::buf::Limit<&mut BytesMut> {
        match &mut self.long {
            Some(long) => {
                long.grow();
                let room = long.bytes.min(long.message.capacity()) - long.message.len();
                (&mut long.message).limit(room)
            }
            None => {
                self.stage.reserve(STAGE_BYTES - self.stage.len());
                let room = STAGE_BYTES - self.stage.len();
                (&mut self.stage).limit(room)
            }
        }
    }

    /// The next message that has arrived whole.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        if let Some(long) = self.long.take_if(|long| long.message.len() == long.bytes) {
            return self.verified(long.message.freeze(), long.crc).map(Some);
        }
        let Some(header) = self.stage.first_chunk::<HEADER_BYTES>().filter(|_| self.long.is_none())
        else {
            return Ok(None);
        };
        let [a, b, c, d, e, f, g, h] = *header;
        let (bytes, crc) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        if bytes > self.bytes_max {
            return Err(FrameError::TooLong { bytes, bytes_max: self.bytes_max });
        }
        self.message(bytes as usize, crc)
    }

    fn message(&mut self, bytes: usize, crc: u32) -> Result<Option<Bytes>, FrameError> {
        let whole = HEADER_BYTES + bytes;
        if self.stage.len() >= whole {
            let message = Bytes::copy_from_slice(&self.stage[HEADER_BYTES..whole]);
            self.stage.advance(whole);
            return self.verified(message, crc).map(Some);
        }
        if whole > STAGE_BYTES {
            let mut long = Long::new(bytes, crc);
            self.stage.advance(HEADER_BYTES);
            long.message.put(self.stage.split());
            self.long = Some(long);
        }
        Ok(None)
    }

    fn verified(&self, message: Bytes, crc: u32) -> Result<Bytes, FrameError> {
        if checksum(self.session, [&message, &[]]) == crc {
            Ok(message)
        } else {
            Err(FrameError::Checksum)
        }
    }
}

/// Messages that wait for the stream to take them; read as one [`Buf`].
#[derive(Debug)]
pub(super) struct Outgoing {
    session: u32,
    messages: VecDeque<Message>,
    /// Bytes of the first message that the stream took.
    taken: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Message {
    header: [u8; HEADER_BYTES],
    head: Bytes,
    body: Bytes,
}

impl Message {
    fn parts(&self) -> [&[u8]; 3] {
        [&self.header, &self.head, &self.body]
    }

    const fn bytes(&self) -> usize {
        HEADER_BYTES + self.head.len() + self.body.len()
    }
}

impl Outgoing {
    pub(super) const fn new(session: u32) -> Self {
        Self { session, messages: VecDeque::new(), taken: 0, bytes: 0 }
    }

    pub(super) fn push(&mut self, head: Bytes, body: Bytes) {
        let bytes = (head.len() + body.len()) as u32;
        let mut header = [0; HEADER_BYTES];
        header[..4].copy_from_slice(&bytes.to_le_bytes());
        header[4..].copy_from_slice(&checksum(self.session, [&head, &body]).to_le_bytes());
        let message = Message { header, head, body };
        self.bytes += message.bytes();
        self.messages.push_back(message);
    }
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.slices().next().unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        slices
            .iter_mut()
            .zip(self.slices())
            .map(|(slice, part)| *slice = IoSlice::new(part))
            .count()
    }

    fn advance(&mut self, bytes: usize) {
        self.bytes -= bytes;
        self.taken += bytes;
        while let Some(first) = self.messages.front().filter(|first| self.taken >= first.bytes()) {
            self.taken -= first.bytes();
            self.messages.pop_front();
        }
    }
}

impl Outgoing {
    /// Everything that was not taken, in order, without empty slices.
    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let mut skip = self.taken;
        self.messages.iter().flat_map(Message::parts).filter_map(move |part| {
            let skipped = skip.min(part.len());
            skip -= skipped;
            Some(&part[skipped..]).filter(|rest| !rest.is_empty())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: u32 = 77;
    const LIMIT: u32 = 200 << 10;

    fn message(bytes: usize) -> Bytes {
        (0..bytes).map(|n| (n * 31 + bytes) as u8).collect()
    }

    fn stream(messages: &[(Bytes, Bytes)]) -> Bytes {
        let mut outgoing = Outgoing::new(SESSION);
        for (head, body) in messages {
            outgoing.push(head.clone(), body.clone());
        }
        let mut stream = BytesMut::new();
        // As a socket does it: a part of what one gather offers.
        while outgoing.has_remaining() {
            let mut slices = [IoSlice::new(&[]); 4];
            let offered = outgoing.chunks_vectored(&mut slices);
            let mut taken = 0;
            for slice in &slices[..offered] {
                let part = slice.len().min(1000 - taken);
                stream.put_slice(&slice[..part]);
                taken += part;
            }
            outgoing.advance(taken);
        }
        stream.freeze()
    }

    fn decode(stream: &[u8], piece: usize) -> Result<Vec<Bytes>, FrameError> {
        let mut decoder = Decoder::new(SESSION, LIMIT);
        let mut messages = Vec::new();
        let mut rest = stream;
        while !rest.is_empty() {
            let mut room = decoder.room();
            let bytes = rest.len().min(piece).min(room.remaining_mut());
            room.put_slice(&rest[..bytes]);
            rest.advance(bytes);
            while let Some(message) = decoder.next()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn messages_survive_any_cut_of_the_stream() {
        let long = STAGE_BYTES - HEADER_BYTES;
        let sizes = [(0, 0), (3, 0), (7, 5000), (20, long - 20), (20, long - 19), (9, 150_000)];
        let sent: Vec<_> = sizes.map(|(head, body)| (message(head), message(body))).into();
        let stream = stream(&sent);
        let expected: Vec<Vec<u8>> =
            sent.iter().map(|(head, body)| [&head[..], &body[..]].concat()).collect();
        for piece in [1, 7, 4096, usize::MAX] {
            assert_eq!(decode(&stream, piece).unwrap(), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let good = stream(&[(message(5), message(12))]);
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            // A longer length may also leave the message incomplete: nothing is handed on.
            assert!(
                decode(&bad, usize::MAX).is_ok_and(|m| m.is_empty()) || decode(&bad, 3).is_err()
            );
        }
    }

    #[test]
    fn a_flipped_bit_of_a_long_message_is_noticed() {
        let good = stream(&[(message(5), message(2 * STAGE_BYTES))]);
        for byte in [4, HEADER_BYTES, HEADER_BYTES + 5, STAGE_BYTES, good.len() - 1] {
            let mut bad = good.to_vec();
            bad[byte] ^= 4;
            for piece in [1000, usize::MAX] {
                assert_eq!(decode(&bad, piece), Err(FrameError::Checksum), "byte {byte}");
            }
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_believed() {
        let mut header = [0xff; HEADER_BYTES];
        let error = FrameError::TooLong { bytes: u32::MAX, bytes_max: LIMIT };
        assert_eq!(decode(&header, usize::MAX), Err(error));
        header[..4].copy_from_slice(&(LIMIT + 1).to_le_bytes());
        assert!(decode(&header, usize::MAX).is_err());
        header[..4].copy_from_slice(&LIMIT.to_le_bytes());
        assert_eq!(decode(&header, usize::MAX), Ok(vec![]));
    }

    #[test]
    fn a_message_longer_than_a_length_is_worth_grows_as_it_comes() {
        let sent = message(3 * ANNOUNCED_BYTES + 5);
        let stream = stream(&[(sent.clone(), Bytes::new())]);
        let mut decoder = Decoder::new(SESSION, 4 << 20);
        let (mut rest, mut most) = (&stream[..], 0);
        while !rest.is_empty() {
            let mut room = decoder.room();
            let bytes = rest.len().min(10_000).min(room.remaining_mut());
            room.put_slice(&rest[..bytes]);
            rest.advance(bytes);
            let held = decoder.long.as_ref().map_or(0, |long| long.message.capacity());
            assert!(held <= ANNOUNCED_BYTES.max(2 * (stream.len() - rest.len())));
            most = most.max(held);
            match decoder.next().unwrap() {
                Some(whole) => assert!(rest.is_empty() && whole == sent),
                None => assert!(!rest.is_empty()),
            }
        }
        assert_eq!(most, sent.len());
    }

    #[test]
    fn frames_of_another_session_are_refused() {
        let mut outgoing = Outgoing::new(SESSION + 1);
        outgoing.push(message(5), Bytes::new());
        let stream = outgoing.copy_to_bytes(outgoing.remaining());
        assert_eq!(decode(&stream, usize::MAX), Err(FrameError::Checksum));
    }
}

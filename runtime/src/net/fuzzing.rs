//! Targets for a fuzzer: streams of frames, and hellos.

use super::{
    frame::{Decoder, HEADER_BYTES, Outgoing, checksum},
    handshake::{Credentials, HELLO_BYTES},
};
use crate::net::Identity;
use bytes::{Buf, BufMut, Bytes};
use lakebed::{ClusterId, GroupId, NodeId};

const SESSION: u32 = 77;
const LIMIT: u32 = 8 << 20;

/// A stream of frames, cut into pieces as the first byte says: as it comes, and with checksums
/// that hold. What is handed on is what was sent, wherever the stream was cut.
pub fn frame(input: &[u8]) {
    let Some((piece, stream)) = input.split_first() else { return };
    judge(stream, usize::from(*piece) + 1);
    judge(&sealed(stream), usize::from(*piece) + 1);
}

fn judge(stream: &[u8], piece: usize) {
    let messages = decoded(stream, piece);
    assert_eq!(messages, decoded(stream, usize::MAX), "cut otherwise, it says otherwise");
    let mut outgoing = Outgoing::new(SESSION);
    messages.into_iter().for_each(|message| outgoing.push(message, Bytes::new()));
    let again = outgoing.copy_to_bytes(outgoing.remaining());
    assert!(stream.starts_with(&again), "a stream has one form");
}

fn decoded(mut stream: &[u8], piece: usize) -> Vec<Bytes> {
    let (mut decoder, mut messages) = (Decoder::new(SESSION, LIMIT), Vec::new());
    while !stream.is_empty() {
        let mut room = decoder.room();
        let bytes = stream.len().min(piece).min(room.remaining_mut());
        assert!(bytes > 0, "there is room for more as long as nothing is wrong");
        room.put_slice(&stream[..bytes]);
        stream.advance(bytes);
        loop {
            match decoder.next() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return messages,
            }
        }
    }
    messages
}

fn sealed(stream: &[u8]) -> Vec<u8> {
    let mut sealed = stream.to_vec();
    let mut rest = &mut sealed[..];
    while let Some((header, after)) = rest.split_first_chunk_mut::<HEADER_BYTES>() {
        let [a, b, c, d, ..] = *header;
        let bytes = u32::from_le_bytes([a, b, c, d]) as usize;
        let Some((message, after)) = after.split_at_mut_checked(bytes) else { break };
        header[4..].copy_from_slice(&checksum(SESSION, [message, &[]]).to_le_bytes());
        rest = after;
    }
    sealed
}

fn credentials() -> Credentials {
    let identity =
        Identity { cluster: ClusterId(7), group: GroupId(1), groups: 0, node: NodeId(2) };
    Credentials { identity, secret: b"secret".to_vec() }
}

/// A hello: as it comes, and with a checksum that holds. Only one that is meant for this node of
/// this cluster and group is believed.
pub fn handshake(input: &[u8]) {
    let Some(hello) = input.first_chunk::<HELLO_BYTES>() else { return };
    let mut sealed = *hello;
    let crc = crc32c::crc32c(&sealed[..HELLO_BYTES - 4]);
    sealed[HELLO_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    for bytes in [*hello, sealed] {
        match credentials().judge_hello(bytes, None) {
            Ok(theirs) => {
                assert_eq!(&theirs.bytes[..12], b"LAKEPEER\x01\0\0\0");
                let ours = [7_u64, 1, theirs.from.0, 2].map(u64::to_le_bytes);
                assert_eq!(&theirs.bytes[16..48], ours.as_flattened());
                assert_eq!(theirs.bytes, bytes, "the proof is over all that was said");
            }
            // It is told to people, whatever it was.
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::corpus::replay;

    #[test]
    fn kept_streams_are_one_form_wherever_they_are_cut() {
        let mut outgoing = Outgoing::new(SESSION);
        for bytes in [0, 5, 300] {
            outgoing.push(Bytes::from(vec![bytes as u8; bytes]), Bytes::new());
        }
        let stream = outgoing.copy_to_bytes(outgoing.remaining());
        let announced = [&[1][..], &LIMIT.to_le_bytes(), &[0; 40]].concat();
        replay("frame", frame, &[[&[6][..], &stream].concat(), announced]);
    }

    #[test]
    fn kept_hellos_are_meant_for_us_or_refused() {
        let them = Identity { node: NodeId(3), ..credentials().identity };
        let hello = Credentials { identity: them, ..credentials() }.hello(NodeId(2)).unwrap();
        let of_another_version = [&hello[..8], &[9], &hello[9..]].concat();
        replay("handshake", handshake, &[hello.to_vec(), of_another_version]);
    }
}

//! What peers say.

use crate::{
    codec::{self, Encoder},
    host,
    le::{put_u32, u32_at},
};
use bytes::Bytes;

/// Any message: as it comes, and with lengths and checksums that hold.
pub fn message(input: &[u8]) {
    judge(Bytes::copy_from_slice(input));
    if let Some(sealed) = sealed(input.to_vec()) {
        judge(sealed.into());
    }
}

fn judge(bytes: Bytes) {
    if let Ok(mut message) = codec::decode(bytes.clone()) {
        let (head, body) = Encoder::default().encode(&mut message);
        assert_eq!([head, body].concat(), bytes, "a message has one form");
    }
    if let Some(again) = host::beat_again(&bytes) {
        assert_eq!(again, bytes, "a beat has one form");
    }
}

/// The message as a peer gone wrong would send it: its fields as they are, all else right.
fn sealed(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    const KIND_AT: usize = 5;
    let head_least = 96;
    if bytes.len() < head_least {
        return None;
    }
    let head = (u32_at(&bytes, 8) as usize).clamp(head_least, bytes.len()) / 8 * 8;
    let body = bytes.len() - head;
    put_u32(&mut bytes, 8, head as u32);
    put_u32(&mut bytes, 12, body as u32);
    let body_crc_at = match bytes[KIND_AT] {
        11 => Some(head_least + 28),
        12 => Some(head_least + 36),
        _ => None,
    };
    if let Some(at) = body_crc_at.filter(|at| at + 4 <= head) {
        let crc = crc32c::crc32c(&bytes[head..]);
        put_u32(&mut bytes, at, crc);
    }
    Some(codec::with_right_crc(bytes))
}

#[cfg(test)]
mod tests {
    use crate::{codec::tests::every_kind, fuzzing::corpus::replay};

    #[test]
    fn kept_messages_are_one_form_or_a_fault() {
        let seeds: Vec<_> = every_kind().into_iter().map(crate::codec::tests::whole).collect();
        let seeds: Vec<_> = seeds.into_iter().map(Into::into).collect();
        replay("message", super::message, &seeds);
    }
}

//! Every kind there and back, and what no peer should send.

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
        life: Life(8),
        answers: Life(9),
        term: Term(10),
    }
}

pub(crate) fn every_kind() -> Vec<Message> {
    let ballot = Ballot { round: 3, last: LogId::new(Term(2), LogIndex(9)), is_wished: true };
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
        gated: true,
        rests: true,
        conflict: None,
    };
    let append = Append {
        sequence: 1,
        round: 2,
        ask: true,
        rest: true,
        prev: LogId::new(Term(3), LogIndex(4)),
        commit: LogIndex(5),
        retain: LogIndex(6),
        session: Life(7),
        fates_after: 6,
        fates: (7..).zip(fates).map(|(sequence, outcome)| Fate { sequence, outcome }).collect(),
        frames: Bytes::from_static(b"entries carry checksums of their own"),
    };
    let snapshot = SnapshotName {
        at: LogId::new(Term(3), LogIndex(9)),
        id: SnapshotId(7),
        bytes: 1 << 40,
        digest: 5,
    };
    let piece = Piece {
        snapshot,
        offset: 1 << 33,
        time: Timestamp(3),
        members: None,
        bytes: Bytes::from_static(b"state"),
    };
    let address = Bytes::from_static(b"an address");
    let member = crate::Member { id: NodeId(9), incarnation: 7, address };
    let members = Arc::new(Membership::of([member]));
    let first_piece = Piece { offset: 0, members: Some(Arc::clone(&members)), ..piece.clone() };
    let install_answer = InstallAnswer {
        snapshot: snapshot.at,
        id: snapshot.id,
        next: 1 << 33,
        stored: 4096,
        done: true,
    };
    let batch = Batch::one(b"set a 1");
    let forward = Forward {
        session: Life(4),
        sequence: 1,
        time: Timestamp(2),
        count: 1,
        commands: Bytes::copy_from_slice(batch.body()),
    };
    [
        Payload::Hello { ask: true, origin: Origin::default() },
        Payload::Hello { ask: false, origin: Origin { at: snapshot.at, id: SnapshotId(7) } },
        Payload::FormedWithoutYou,
        Payload::PreVote(ballot),
        Payload::PreVoteAnswer(verdict),
        Payload::Vote(ballot),
        Payload::TimeoutNow,
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
        Payload::Install(piece),
        Payload::Install(first_piece),
        Payload::InstallAnswer(install_answer),
        Payload::Gate { nonce: [1, 2] },
        Payload::GateAnswer { nonce: [1, 2], last: LogIndex(7) },
        Payload::RefillAsk { at: snapshot.at },
        Payload::Refill(Refill { frames: Bytes::from_static(b"checked too"), ..Refill::default() }),
        Payload::Refill(Refill { gone: snapshot.at, time: Timestamp(7), frames: Bytes::new() }),
        Payload::Removed { at: snapshot.at },
        Payload::Members(Arc::clone(&members)),
    ]
    .map(|payload| Message { head: head(), payload })
    .into()
}

pub(crate) fn whole(mut message: Message) -> Bytes {
    let (head, body) = Encoder::default().encode(&mut message);
    [head, body].concat().into()
}

#[test]
fn every_kind_comes_back_as_it_was() {
    for message in every_kind() {
        assert_eq!(decode(whole(message.clone())), Ok(message));
    }
}

#[test]
fn heads_from_one_pool_do_not_mix() {
    let mut encoder = Encoder::default();
    let kept: Vec<_> = (0..40).flat_map(|_| every_kind()).collect();
    let encoded: Vec<_> = kept.iter().map(|message| encoder.encode(&mut message.clone())).collect();
    for (message, (head, body)) in kept.into_iter().zip(encoded) {
        assert_eq!(decode([head, body].concat().into()), Ok(message));
    }
}

/// A buffer serves again when all heads that were cut from it are gone, and not before.
#[test]
fn a_head_that_is_kept_outlives_those_that_are_not() {
    let (mut encoder, messages) = (Encoder::default(), every_kind());
    let mut kept = Vec::new();
    for n in 0..50 {
        for message in &messages {
            let (head, body) = encoder.encode(&mut message.clone());
            if n % 10 == 9 {
                kept.push((message, head, body));
            }
        }
    }
    for (message, head, body) in kept {
        assert_eq!(decode([head, body].concat().into()).as_ref(), Ok(message));
    }
}

#[test]
fn every_truncation_and_extension_is_a_fault() {
    for message in every_kind() {
        let bytes = whole(message);
        for end in 0..bytes.len() {
            assert!(decode(bytes.slice(..end)).is_err(), "{end} of {bytes:?}");
        }
        assert!(decode([&bytes[..], &[0]].concat().into()).is_err());
    }
}

#[test]
fn every_flipped_bit_of_a_head_is_a_fault() {
    for mut message in every_kind() {
        let frames = matches!(&message.payload, Payload::Append(_) | Payload::Refill(_));
        let (head, body) = Encoder::default().encode(&mut message);
        let covered = if frames { head.len() } else { head.len() + body.len() };
        for bit in 0..covered * 8 {
            let mut bad = [&head[..], &body[..]].concat();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(bad.into()).is_err(), "bit {bit}");
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
                let _ = decode(with_right_crc(bad).into());
            }
        }
    }
}

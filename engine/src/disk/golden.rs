//! Golden bytes: every structure of format v1, field by field, in `fixtures/formats/v1/`.
//!
//! A file names each field with its place and its bytes. It is compared with what is written
//! today, and what it holds is read today; everything that no field covers must be zero. What
//! stands there never changes: a new version gets a folder of its own.
//! (`LAKEBED_GOLDEN=write cargo test -p lakebed golden` writes files that are missing.)

use super::{
    Fault, FileSeed,
    hard_state::{self, Cut, First, Gate, HardState, Install},
    reseal,
    segment::{EndRecord, FloorLag, Header, Layout, Slot},
    snapshot,
};
use crate::{
    entry::{Batch, Head, Kind, Seed},
    le::{put_u16, put_u32, put_u64s, u32_at, u64s_at},
    membership::{Member, Membership},
    types::{ClusterId, GroupId, Identity, LogId, LogIndex, NodeId, SnapshotId, Term, Timestamp},
};
use bytes::Bytes;
use std::{fmt::Write as _, path::PathBuf, sync::Arc};

/// A field's name and length; names that begin with `-` are unused and must be zero.
type Field = (&'static str, usize);

const PRELUDE: &[Field] =
    &[("magic", 8), ("version", 2), ("incompatible features", 2), ("crc32c", 4)];
const IDENTITY: &[Field] =
    &[("cluster", 8), ("cluster epoch", 8), ("group", 8), ("node", 8), ("incarnation", 8)];

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../fixtures/formats/v1", &format!("{name}.hex")].iter().collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// One line a field: place, length, name, bytes; what is left must be zero.
fn render(fields: &[Field], bytes: &[u8]) -> String {
    let (mut text, mut at) = (String::new(), 0);
    for &(name, len) in fields {
        let field = &bytes[at..at + len];
        if name.starts_with('-') {
            assert!(field.iter().all(|&byte| byte == 0), "{name} at {at} must be zero");
        } else {
            writeln!(text, "{at:>6} {len:>4}  {name:<28} {}", hex(field)).expect("a string");
        }
        at += len;
    }
    assert!(bytes[at..].iter().all(|&byte| byte == 0), "what lies behind the fields must be zero");
    writeln!(text, "{:>6}       (length; all other bytes are zero)", bytes.len())
        .expect("a string");
    text
}

/// The bytes that a golden file holds.
fn parse(text: &str) -> Vec<u8> {
    let (lines, total) = text.trim_end().rsplit_once('\n').expect("the last line is the length");
    let len = total.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a length");
    let mut bytes = vec![0; len];
    for line in lines.lines() {
        let at: usize = line[..6].trim().parse().expect("a place");
        let field = line[42..].split_whitespace();
        for (n, byte) in field.enumerate() {
            bytes[at + n] = u8::from_str_radix(byte, 16).expect("a byte");
        }
    }
    bytes
}

/// What is written today is what stands there; what stands there is handed back to be read.
fn golden(name: &str, fields: &[&[Field]], bytes: &[u8]) -> Vec<u8> {
    let text = render(&fields.concat(), bytes);
    let path = path(name);
    if !path.exists() && std::env::var("LAKEBED_GOLDEN").is_ok_and(|v| v == "write") {
        std::fs::write(&path, &text).expect("fixtures can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    assert_eq!(text, found, "{name}: v1 must never change");
    parse(&found)
}

fn identity() -> Identity {
    Identity {
        cluster: ClusterId(0x1111),
        cluster_epoch: 0x12,
        group: GroupId(0x13),
        node: NodeId(0x14),
        incarnation: 0x1515_1515,
    }
}

fn members(ids: &[u64]) -> Vec<Member> {
    let address = |id| Bytes::from(format!("host-{id}:7500"));
    let member = |&id| Member { id: NodeId(id), incarnation: 0x100 + id, address: address(id) };
    ids.iter().map(member).collect()
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(Term(term), LogIndex(index))
}

fn membership(at: LogId) -> Arc<Membership> {
    let (voters, outgoing) = (members(&[0x14, 0x21]), members(&[0x21, 0x22]));
    Arc::new(Membership { at, voters, outgoing, learners: members(&[0x23]), used: NodeId(0) })
}

const MEMBERSHIP: [Field; 23] = [
    ("membership: term", 8),
    ("membership: index", 8),
    ("membership: members", 2),
    ("member: id", 8),
    ("member: incarnation", 8),
    ("member: roles", 1),
    ("member: address length", 1),
    ("member: address", 12),
    ("member: id", 8),
    ("member: incarnation", 8),
    ("member: roles", 1),
    ("member: address length", 1),
    ("member: address", 12),
    ("member: id", 8),
    ("member: incarnation", 8),
    ("member: roles", 1),
    ("member: address length", 1),
    ("member: address", 12),
    ("member: id", 8),
    ("member: incarnation", 8),
    ("member: roles", 1),
    ("member: address length", 1),
    ("member: address", 12),
];
const MEMBERSHIP_BYTES: usize = 18 + 4 * 30;

#[test]
fn golden_hard_state() {
    let hard = HardState {
        number: 0x31,
        identity: identity(),
        term: Term(0x32),
        vote: Some(NodeId(0x21)),
        commit_hint: LogIndex(0x33),
        durable_hint: LogIndex(0x34),
        first: First { index: LogIndex(0x35), prev_term: Term(0x36), segment: 0x37 },
        newest_segment: 0x38,
        highest_segment: 0x39,
        write_epoch: 0x3a,
        cut: Cut { from: LogIndex(0x3b), epoch: 0x3c },
        cutting: true,
        installing: true,
        clean: true,
        gated: true,
        restored: false,
        install: Install {
            at: id(0x3d, 0x3e),
            id: SnapshotId(0x3f),
            next_offset: 0x40,
            membership: membership(id(0x41, 0x42)),
        },
        gate: Gate {
            term: Term(0x43),
            from: LogIndex(0x44),
            until: LogIndex(0x45),
            nonce: [0x46, 0x47],
        },
        newest: membership(id(0x48, 0x49)),
        previous: membership(id(0x4a, 0x4b)),
        peers: vec![(NodeId(0x21), 0x4c), (NodeId(0x22), 0x4d)],
        feature_level: 0x4e,
        filling: LogIndex(0),
        align: 0,
    };
    let fixed: &[Field] = &[
        ("number", 8),
        ("cluster", 8),
        ("cluster epoch", 8),
        ("group", 8),
        ("node", 8),
        ("incarnation", 8),
        ("term", 8),
        ("vote", 8),
        ("flags", 4),
        ("feature level", 4),
        ("commit hint", 8),
        ("durable hint", 8),
        ("first: index", 8),
        ("first: previous term", 8),
        ("first: segment", 8),
        ("newest segment", 8),
        ("write epoch", 8),
        ("cut: from", 8),
        ("cut: epoch", 8),
        ("install: index", 8),
        ("install: term", 8),
        ("install: snapshot id", 8),
        ("install: next offset", 8),
        ("gate: term", 8),
        ("gate: from", 8),
        ("gate: until", 8),
        ("gate: nonce, incarnation", 8),
        ("gate: nonce, write epoch", 8),
        ("highest segment", 8),
    ];
    let peers: &[Field] = &[
        ("peers", 8),
        ("peer: node", 8),
        ("peer: write epoch", 8),
        ("peer: node", 8),
        ("peer: write epoch", 8),
        ("- more peers", 2048 - 296),
    ];
    // As it was written before there was a place for these, and as it is with them.
    let with_used = |membership: Arc<Membership>| {
        Arc::new(Membership { used: NodeId(0x50), ..Membership::clone(&membership) })
    };
    let later = HardState {
        restored: true,
        install: Install {
            membership: with_used(hard.install.membership.clone()),
            ..hard.install.clone()
        },
        newest: with_used(hard.newest.clone()),
        previous: with_used(hard.previous.clone()),
        filling: LogIndex(0x4f),
        align: 4096,
        ..hard.clone()
    };
    let ages: [(_, &[Field], &[Field], _); 2] = [
        ("hard-state", &[("- reserved", 16)], &[("- used", 8)], hard),
        ("hard-state-later", &[("filling", 8), ("align", 8)], &[("membership: used", 8)], later),
    ];
    for (name, reserved, used, hard) in ages {
        let gap: &[Field] = &[("- more members", 4096 - MEMBERSHIP_BYTES - 8)];
        let members = [&MEMBERSHIP, used, gap, &MEMBERSHIP, used, gap, &MEMBERSHIP, used];
        let fields = [&[PRELUDE, fixed, reserved, peers], &members[..]].concat();
        let bytes = golden(name, &fields, &hard.encode());
        assert_eq!(bytes.len(), hard_state::BLOCK_BYTES);
        assert_eq!(HardState::decode(&bytes, GroupId(0x13)), Ok(hard));
    }
}

#[test]
fn golden_hard_state_of_a_new_node() {
    let mut hard = HardState::new(identity(), Arc::new(Membership::default()));
    hard.number = 1;
    let fields: &[Field] = &[
        ("number", 8),
        ("cluster", 8),
        ("cluster epoch", 8),
        ("group", 8),
        ("node", 8),
        ("incarnation", 8),
        ("- term, vote, flags", 24),
        ("- hints", 16),
        ("first: index", 8),
        ("- first: previous term", 8),
        ("first: segment", 8),
    ];
    let bytes = golden("hard-state-new", &[PRELUDE, fields], &hard.encode());
    assert_eq!(HardState::decode(&bytes, GroupId(0x13)), Ok(hard));
}

#[test]
fn golden_segment() {
    let header = Header {
        identity: identity(),
        sequence: 0x51,
        first: LogIndex(0x52),
        prev_term: Term(0x53),
        epoch: 0x54,
        layout: Layout::new(1 << 16, 512),
        window_bytes: 0x55,
        staged_for: SnapshotId(0x56),
    };
    let fields: &[Field] = &[
        ("first index", 8),
        ("previous term", 8),
        ("write epoch", 8),
        ("length", 8),
        ("align", 8),
        ("slots", 8),
        ("data at", 8),
        ("window", 8),
        ("staged for snapshot", 8),
    ];
    let fields = [PRELUDE, &[("sequence", 8)], IDENTITY, fields];
    let bytes = golden("segment-header", &fields, &header.encode());
    assert_eq!(Header::decode(&bytes, GroupId(0x13), 0x51), Ok(header.clone()));
    for (blocks, is_segment) in [(16, true), (15, false)] {
        let header = Header { layout: Layout::new(blocks * 512, 512), ..header.clone() };
        let decoded = Header::decode(&header.encode(), GroupId(0x13), 0x51);
        assert_eq!(decoded.is_ok(), is_segment, "sixteen blocks at least");
    }

    let end = EndRecord {
        last: id(0x61, 0x62),
        epoch: 0x63,
        floor_lag: FloorLag(0),
        data_bytes: 0x65,
        last_time: Timestamp(0x66),
        runs: vec![(LogIndex(0x52), Term(0x60)), (LogIndex(0x60), Term(0x61))],
    };
    let fields: &[Field] = &[
        ("sequence", 8),
        ("last index", 8),
        ("last term", 8),
        ("write epoch", 8),
        ("floor lag", 8),
        ("data end", 8),
        ("last time", 8),
        ("runs", 8),
        ("- reserved", 16),
        ("run: first index", 8),
        ("run: term", 8),
        ("run: first index", 8),
        ("run: term", 8),
    ];
    let bytes = end.encode(GroupId(0x13), 0x51, 512);
    let bytes = golden("segment-end", &[PRELUDE, fields], &bytes);
    assert_eq!(EndRecord::decode(&bytes, GroupId(0x13), 0x51), Ok(end));
}

#[test]
fn golden_entry_and_slot() {
    let seed = Seed::new(ClusterId(0x1111), GroupId(0x13));
    let mut batch = Batch::one(b"set a 1");
    batch.push(b"");
    let (_, frame) = batch.seal(seed, id(0x72, 0x71), Term(0x73), Timestamp(0x74));
    let fields: &[Field] = &[
        ("magic", 4),
        ("header crc32c", 4),
        ("total length", 4),
        ("body length", 4),
        ("index", 8),
        ("term", 8),
        ("previous term", 8),
        ("time", 8),
        ("commands", 4),
        ("body crc32c", 4),
        ("kind", 1),
        ("- flags", 7),
        ("command: length", 4),
        ("command", 7),
        ("command: length", 4),
    ];
    let frame = golden("entry", &[fields], &frame);
    let head = Head::parse_whole(&frame, seed).expect("the golden entry is whole");
    assert_eq!((head.id, head.count, head.kind), (id(0x72, 0x71), 2, Kind::Commands));

    let slot = Slot::of(&head, 0x8000, 0x54, FloorLag(3));
    let fields: &[Field] = &[
        ("index, low half", 4),
        ("offset", 4),
        ("term", 8),
        ("total length", 4),
        ("digest", 4),
        ("kind and write epoch", 8),
        ("floor lag", 4),
        ("crc32c", 4),
    ];
    let file = FileSeed::new(GroupId(0x13), 0x51);
    let bytes = golden("slot", &[fields], &slot.encode(file));
    assert_eq!(Slot::decode(&bytes, file, LogIndex(0x71)), Some(slot));
}

#[test]
fn golden_snapshot() {
    let header = snapshot::Header {
        identity: identity(),
        at: id(0x81, 0x82),
        id: SnapshotId(0x83),
        origin: snapshot::Origin::Captured,
        block_bytes: snapshot::block_bytes(512),
        groups: 0,
        time: Timestamp(0),
        membership: membership(id(0x84, 0x85)),
    };
    let fields: &[Field] =
        &[("index", 8), ("term", 8), ("snapshot id", 8), ("origin", 8), ("block length", 8)];
    // As each was written before there was a place for the number of groups, and as it is with one; and so for the
    // time.
    let of_groups = snapshot::Header { groups: 0x86, ..header.clone() };
    let with_time = snapshot::Header { time: Timestamp(0x87), ..of_groups.clone() };
    let ages: [(_, &[Field], _); 3] = [
        ("snapshot-header", &[("- reserved", 160)], header),
        ("snapshot-header-groups", &[("groups", 8), ("- reserved", 152)], of_groups),
        ("snapshot-header-time", &[("groups", 8), ("time", 8), ("- reserved", 144)], with_time),
    ];
    for (name, later, header) in ages {
        let fields = [PRELUDE, IDENTITY, fields, later, &MEMBERSHIP];
        let bytes = golden(name, &fields, &header.encode(512));
        assert_eq!(snapshot::Header::decode(&bytes, GroupId(0x13), id(0x81, 0x82)), Ok(header));
    }

    let (group, id) = (GroupId(0x13), SnapshotId(0x83));
    let fields: &[Field] = &[
        ("magic", 4),
        ("crc32c", 4),
        ("number", 8),
        ("payload length", 4),
        ("- reserved", 4),
        ("payload", 5),
    ];
    let bytes = snapshot::encode_block(b"state", 9, group, id, 512);
    let bytes = golden("snapshot-block", &[fields], &bytes);
    assert_eq!(snapshot::decode_block(&bytes, 9, group, id), Ok(&b"state"[..]));

    let footer = snapshot::Footer { blocks: 0x91, payload_bytes: 0x92, digest: 0x93 };
    let fields: &[Field] = &[("blocks", 8), ("payload length", 8), ("payload crc32c", 8)];
    let bytes = golden("snapshot-footer", &[PRELUDE, fields], &footer.encode(group, id, 512));
    assert_eq!(snapshot::Footer::decode(&bytes, group, id), Ok(footer));
}

/// A file that has another's name, or that says of its blocks what none is: its checksum is right.
#[test]
fn a_snapshot_of_another_place_or_of_no_blocks_is_none() {
    let at = id(0x81, 0x82);
    let header = |block_bytes, at| snapshot::Header {
        identity: identity(),
        at,
        id: SnapshotId(0x83),
        origin: snapshot::Origin::Captured,
        block_bytes,
        groups: 0,
        time: Timestamp(0),
        membership: membership(LogId::ZERO),
    };
    let read = |header: snapshot::Header| {
        snapshot::Header::decode(&header.encode(512), GroupId(0x13), at).map(|_| ())
    };
    let block_bytes = snapshot::block_bytes(512);
    assert_eq!(read(header(block_bytes, at)), Ok(()));
    assert_eq!(read(header(block_bytes, id(0x80, 0x82))), Err(Fault::Field), "of another term");
    for block_bytes in [0, 511, (16 << 20) + 1] {
        assert_eq!(read(header(block_bytes, at)), Err(Fault::Field), "{block_bytes}");
    }
}

/// What a newer program wrote is whole and may mean anything. Either mark is enough: a version, or a feature
/// that an older one must not pass over.
#[test]
fn a_block_of_a_newer_version_or_of_a_feature_not_known_here_is_newer() {
    let group = GroupId(0x13);
    let footer = snapshot::Footer { blocks: 1, payload_bytes: 2, digest: 3 };
    let seed = FileSeed::new(group, 0x83);
    for (version, incompatible) in [(2, 0), (0, 0), (1, 1), (1, 0x8000)] {
        let mut block = footer.encode(group, SnapshotId(0x83), 512);
        put_u16(&mut block, 8, version);
        put_u16(&mut block, 10, incompatible);
        assert!(reseal(&mut block, seed));
        let read = snapshot::Footer::decode(&block, group, SnapshotId(0x83));
        assert_eq!(read, Err(Fault::Newer(version)), "{version}, {incompatible:#x}");
    }
}

/// Each field by itself: its checksum is right, and no writer says it.
#[test]
fn a_segment_of_a_shape_that_none_has_is_none() {
    let group = GroupId(0x13);
    let header = Header {
        identity: identity(),
        sequence: 0x51,
        first: LogIndex(0x52),
        prev_term: Term(0x53),
        epoch: 0x54,
        layout: Layout::new(1 << 16, 512),
        window_bytes: 0x55,
        staged_for: SnapshotId::default(),
    };
    for align in [256, 768] {
        let odd = Header { layout: Layout::new(1 << 16, align), ..header.clone() };
        let read = Header::decode(&odd.encode(), group, 0x51);
        assert_eq!(read, Err(Fault::Field), "{align} is no unit of a disk");
    }
    let with = |at: usize, value: u64| {
        let mut block = header.encode();
        put_u64s(&mut block, at, &[value]);
        assert!(reseal(&mut block, FileSeed::new(group, 0x51)));
        Header::decode(&block, group, 0x51).map(|_| ())
    };
    let [sequence, in_group, first, len, align, slots, data_at] =
        [0, 3, 6, 9, 10, 11, 12].map(|field| 16 + 8 * field);
    let said = |at| u64s_at::<1>(&header.encode(), at)[0];
    assert_eq!(with(len, said(len)), Ok(()));
    let wrong = [
        (sequence, 0x52),
        (in_group, 0x14),
        (first, 0),
        (len, (1 << 31) + 512),
        (align, 0),
        (align, 256),
        (align, 513),
        (align, 1 << 32),
        (slots, said(slots) + 1),
        (data_at, said(data_at) + 512),
    ];
    for (at, value) in wrong {
        assert_eq!(with(at, value), Err(Fault::Field), "{value} at {at}");
    }
}

/// The first number is 1, and there is no flag beyond the last.
#[test]
fn a_hard_state_of_no_number_or_of_a_flag_not_known_here_is_none() {
    let group = GroupId(0x13);
    let bytes = parse(&std::fs::read_to_string(path("hard-state")).expect("a golden file"));
    let with = |at: usize, value: u32| {
        let mut block = bytes.clone();
        put_u32(&mut block, at, value);
        assert!(reseal(&mut block, FileSeed::new(group, 0)));
        HardState::decode(&block, group).map(|_| ())
    };
    let (flags_at, flags) = (80, u32_at(&bytes, 80));
    assert_eq!(with(flags_at, flags), Ok(()));
    assert_eq!(with(flags_at, flags | 1 << 31), Err(Fault::Field));
    let mut nameless = bytes.clone();
    put_u64s(&mut nameless, 16, &[0]);
    assert!(reseal(&mut nameless, FileSeed::new(group, 0)));
    assert_eq!(HardState::decode(&nameless, group), Err(Fault::Field));
}

/// No bit of a structure can flip unnoticed: zeros, stale bytes and other files' bytes neither.
#[test]
fn every_flipped_bit_of_every_structure_is_noticed() {
    let group = GroupId(0x13);
    let read = |name: &str| parse(&std::fs::read_to_string(path(name)).expect("a golden file"));
    let file = FileSeed::new(group, 0x51);
    let seed = Seed::new(ClusterId(0x1111), group);
    type Reads = Box<dyn Fn(&[u8]) -> bool>;
    let snapshot_header =
        move |b: &[u8]| snapshot::Header::decode(b, group, id(0x81, 0x82)).is_ok();
    let structures: [(&str, Reads); 11] = [
        ("hard-state", Box::new(move |b| HardState::decode(b, group).is_ok())),
        ("hard-state-later", Box::new(move |b| HardState::decode(b, group).is_ok())),
        ("segment-header", Box::new(move |b| Header::decode(b, group, 0x51).is_ok())),
        ("segment-end", Box::new(move |b| EndRecord::decode(b, group, 0x51).is_ok())),
        ("slot", Box::new(move |b| Slot::decode(b, file, LogIndex(0x71)).is_some())),
        ("entry", Box::new(move |b| Head::parse_whole(b, seed).is_ok())),
        ("snapshot-header", Box::new(snapshot_header)),
        ("snapshot-header-groups", Box::new(snapshot_header)),
        ("snapshot-header-time", Box::new(snapshot_header)),
        (
            "snapshot-block",
            Box::new(move |b| {
                // Only what the length covers is sealed; the padding behind it is not read.
                snapshot::decode_block(b, 9, group, SnapshotId(0x83)).is_ok()
                    && b[29..].iter().all(|&byte| byte == 0)
            }),
        ),
        (
            "snapshot-footer",
            Box::new(move |b| snapshot::Footer::decode(b, group, SnapshotId(0x83)).is_ok()),
        ),
    ];
    for (name, reads) in &structures {
        let mut bytes = read(name);
        assert!(reads(&bytes), "{name}");
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!reads(&bytes), "{name}: bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert!(!reads(&vec![0; bytes.len()]), "{name}: zeros");
        assert!(!reads(&vec![0xff; bytes.len()]), "{name}: ones");
        assert!(
            (0..bytes.len())
                .all(|len| len > 28 && *name == "snapshot-block" || !reads(&bytes[..len])),
            "{name}: cut short"
        );
    }
}

//! Commands and their bytes: each of its form, and those that are none.

use super::*;

/// One command of each kind.
pub(crate) fn samples(buf: &mut Vec<u8>) -> Vec<Command<'_>> {
    let list = List::of([&b"k"[..], b"", b"longer", b"v"], buf);
    let (key, value) = (&b"key"[..], &b"value"[..]);
    vec![
        Command::Set { key, value, when: When::Present, millis: 1500 },
        Command::Del(list),
        Command::Incr { key, by: -3 },
        Command::Append { key, value: b"" },
        Command::MSet(list),
        Command::Expire { key, millis: -1 },
        Command::Tick,
        Command::Get(key),
        Command::Exists(list),
        Command::MGet(list),
        Command::Ttl { key, millis: true },
        Command::DbSize,
        Command::Scan { cursor: 9, count: 10, pattern: b"k*" },
        Command::Digest,
        Command::SetAs { key, value, when: When::Absent, lives: Lives::Ever, tells: true },
        Command::SetAs { key, value, when: When::Always, lives: Lives::Until(5), tells: false },
        Command::SetAs { key, value, when: When::Present, lives: Lives::AsBefore, tells: true },
        Command::SetNew { key: b"new", value },
        Command::GetEx { key, lives: Lives::For(700) },
        Command::ExpireAs { key, expiry: Expiry::At(-3), only: Only::Sooner },
        Command::ExpireAs { key, expiry: Expiry::In(i64::MAX), only: Only::Lasting },
        Command::Persist(key),
        Command::GetDel(key),
        Command::Type(key),
        Command::StrLen(key),
        Command::MSetNew(list),
        Command::Rename { key, to: b"other", only_new: true },
        Command::GetRange { key, start: -3, end: 7 },
    ]
}

#[test]
fn commands_are_read_back() {
    let mut buf = Vec::new();
    for command in samples(&mut buf) {
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        assert_eq!(Command::decode(&bytes), Some(command));
    }
}

/// Logs hold them.
#[test]
fn bytes_stay_what_they_are() {
    let (key, value, mut buf) = (&b"k"[..], &b"v"[..], Vec::new());
    let set = Command::Set { key, value, when: When::Absent, millis: 258 };
    let as_before =
        Command::SetAs { key, value, when: When::Present, lives: Lives::AsBefore, tells: true };
    let cases: [(Command<'_>, &[u8]); 15] = [
        (set, b"\x01\x01\x02\x01\0\0\0\0\0\0\x01\0\0\0kv"),
        (Command::Incr { key, by: -2 }, b"\x03\xfe\xff\xff\xff\xff\xff\xff\xffk"),
        (Command::Append { key, value }, b"\x04\x01\0\0\0kv"),
        (Command::Expire { key, millis: 5 }, b"\x06\x05\0\0\0\0\0\0\0k"),
        (Command::Get(key), b"\x20k"),
        (Command::Ttl { key, millis: true }, b"\x23\x01k"),
        (as_before, b"\x08\x02\x03\x01\0\0\0\0\0\0\0\0\x01\0\0\0kv"),
        (Command::SetNew { key, value }, b"\x09\x01\0\0\0kv"),
        (Command::GetDel(key), b"\x0ak"),
        (Command::GetEx { key, lives: Lives::Until(5) }, b"\x0b\x02\x05\0\0\0\0\0\0\0k"),
        (
            Command::ExpireAs { key, expiry: Expiry::At(5), only: Only::Later },
            b"\x0c\x03\x01\x05\0\0\0\0\0\0\0k",
        ),
        (Command::Persist(key), b"\x0dk"),
        (Command::MSetNew(List::of([key, value], &mut buf)), b"\x0e\x01\0\0\0k\x01\0\0\0v"),
        (Command::Rename { key, to: value, only_new: true }, b"\x0f\x01\x01\0\0\0kv"),
        (
            Command::GetRange { key, start: 5, end: -2 },
            b"\x29\x05\0\0\0\0\0\0\0\xfe\xff\xff\xff\xff\xff\xff\xffk",
        ),
    ];
    for (command, expected) in cases {
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        assert_eq!(bytes, expected, "{command:?}");
    }
}

#[test]
fn bytes_of_no_command_are_none() {
    let [odd, odd_new] =
        [MSET, MSET_NEW].map(|kind| [&[kind][..], &1u32.to_le_bytes(), b"k"].concat());
    let long = [&[DEL][..], &9u32.to_le_bytes(), b"k"].concat();
    let bad: [&[u8]; 9] =
        [b"", &[0], &[255], &[SET, 3], &[TICK, 0], &[RENAME, 2], &odd, &odd_new, &long];
    let (key, value) = (&b"k"[..], &b""[..]);
    // Each of these has another form already.
    let twice = [
        Command::SetAs { key, value, when: When::Always, lives: Lives::Ever, tells: false },
        Command::SetAs { key, value, when: When::Always, lives: Lives::For(1), tells: false },
        Command::GetEx { key, lives: Lives::AsBefore },
        Command::ExpireAs { key, expiry: Expiry::In(1), only: Only::Always },
    ];
    for command in twice {
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        assert_eq!(Command::decode(&bytes), None, "{command:?}");
    }
    for bytes in bad {
        assert_eq!(Command::decode(bytes), None, "{bytes:?}");
    }
}

#[test]
fn a_prefix_of_a_command_does_not_panic() {
    let mut buf = Vec::new();
    for command in samples(&mut buf) {
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        for end in 0..bytes.len() {
            assert_ne!(Command::decode(&bytes[..end]), Some(command), "{end} bytes");
        }
    }
}

/// By them it is decided which group performs a command, or that none can.
#[test]
fn a_command_names_all_its_keys() {
    let mut buf = Vec::new();
    let list = List::of([&b"a"[..], b"1", b"b", b"2"], &mut buf);
    let keys = |command: Command<'static>| command.keys().collect::<Vec<_>>();
    assert_eq!(keys(Command::Rename { key: b"a", to: b"b", only_new: false }), [b"a", b"b"]);
    assert_eq!(keys(Command::GetRange { key: b"a", start: 0, end: 1 }), [b"a"]);
    for pairs in [Command::MSet(list), Command::MSetNew(list)] {
        assert_eq!(pairs.keys().collect::<Vec<_>>(), [b"a", b"b"]);
    }
    assert_eq!(Command::Del(list).keys().count(), 4);
    assert_eq!(keys(Command::DbSize).len(), 0);
}

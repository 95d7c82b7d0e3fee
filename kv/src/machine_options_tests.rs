//! What commands ask of a key before they change it, and for how long they do.

use super::*;

#[test]
fn set_keeps_a_ttl_and_tells_the_value_of_before() {
    let mut log = Log::default();
    let set = |value, when, lives, tells| Command::SetAs { key: b"a", value, when, lives, tells };
    let ttl = |log: &Log| log.ask(Command::Ttl { key: b"a", millis: true });
    log.apply_at(SECOND, set(b"1", When::Absent, Lives::For(5000), true));
    assert_eq!((log.get("a"), ttl(&log)), ("$1\r\n1\r\n".into(), ":5000\r\n".into()));
    let kept = log.apply_at(2 * SECOND, set(b"2", When::Always, Lives::AsBefore, false));
    assert_eq!((kept, ttl(&log)), ("+OK\r\n".into(), ":4000\r\n".into()));
    assert_eq!(log.apply(set(b"3", When::Absent, Lives::Ever, true)), "$1\r\n2\r\n");
    assert_eq!(log.apply(set(b"3", When::Absent, Lives::AsBefore, false)), "$-1\r\n");
    assert_eq!(log.get("a"), "$1\r\n2\r\n");
    assert_eq!(log.apply(set(b"3", When::Present, Lives::Until(9000), true)), "$1\r\n2\r\n");
    assert_eq!((log.get("a"), ttl(&log)), ("$1\r\n3\r\n".into(), ":7000\r\n".into()));
    assert_eq!(log.apply(set(b"4", When::Always, Lives::Ever, true)), "$1\r\n3\r\n");
    assert_eq!((log.get("a"), ttl(&log)), ("$1\r\n4\r\n".into(), ":-1\r\n".into()));
    // What is over before it begins is not there.
    assert_eq!(log.apply(set(b"5", When::Always, Lives::Until(2000), false)), "+OK\r\n");
    assert_eq!((log.get("a"), log.kv.len()), ("$-1\r\n".into(), 0));
    assert_eq!(log.apply(set(b"5", When::Present, Lives::Ever, true)), "$-1\r\n");
    assert!(log.kv.is_empty());
    let long = vec![b'v'; VALUE_BYTES_MAX + 1];
    let refused = format!("-{TOO_LONG}\r\n");
    assert_eq!(log.apply(set(&long, When::Always, Lives::AsBefore, true)), refused);
    assert_eq!(log.apply(Command::SetNew { key: b"a", value: &long }), refused);
}

#[test]
fn a_value_is_got_once_and_set_once() {
    let mut log = Log::default();
    let set = |value| Command::SetNew { key: b"a", value };
    assert_eq!(log.apply(Command::GetDel(b"a")), "$-1\r\n");
    assert_eq!(log.ask(Command::Type(b"a")), "+none\r\n");
    assert_eq!(log.ask(Command::StrLen(b"a")), ":0\r\n");
    assert_eq!(log.apply(set(b"one")), ":1\r\n");
    assert_eq!(log.apply(set(b"two")), ":0\r\n");
    assert_eq!(log.ask(Command::Type(b"a")), "+string\r\n");
    assert_eq!(log.ask(Command::StrLen(b"a")), ":3\r\n");
    assert_eq!(log.apply(Command::GetDel(b"a")), "$3\r\none\r\n");
    assert!(log.kv.is_empty());
}

#[test]
fn a_value_is_got_and_lives_on_as_it_is_told() {
    let mut log = Log::default();
    let ttl = |log: &Log| log.ask(Command::Ttl { key: b"a", millis: true });
    let get = |lives| Command::GetEx { key: b"a", lives };
    assert_eq!(log.apply_at(SECOND, get(Lives::For(5))), "$-1\r\n");
    assert!(log.kv.is_empty());
    log.set("a", "1");
    for (lives, left) in
        [(Lives::For(500), 500), (Lives::Until(3000), 2000), (Lives::Ever, -1), (Lives::For(9), 9)]
    {
        assert_eq!(log.apply(get(lives)), "$1\r\n1\r\n");
        assert_eq!(ttl(&log), format!(":{left}\r\n"));
    }
    assert_eq!(log.apply(Command::Persist(b"a")), ":1\r\n");
    assert_eq!((log.apply(Command::Persist(b"a")), ttl(&log)), (":0\r\n".into(), ":-1\r\n".into()));
    log.apply_at(9 * SECOND, Command::Tick);
    assert_eq!(log.apply(get(Lives::Until(1000))), "$1\r\n1\r\n");
    assert_eq!(log.apply(Command::Persist(b"a")), ":0\r\n");
    assert!(log.kv.is_empty());
}

/// Each option upon a key that lasts, and upon one that has ten seconds.
#[test]
fn expire_asks_what_expiry_there_is() {
    let cases = [
        (Only::Always, [1, 1, 1, 1]),
        (Only::Lasting, [1, 0, 0, 0]),
        (Only::Expiring, [0, 1, 1, 1]),
        (Only::Later, [0, 0, 0, 1]),
        (Only::Sooner, [1, 1, 0, 0]),
        (Only::ExpiringSooner, [0, 1, 0, 0]),
    ];
    let forms = |millis: i64| [Expiry::In(millis), Expiry::At(20_000 + millis)];
    for (only, [lasting, sooner, same, later]) in cases {
        let tries =
            [(0, 10_000, lasting), (1, 9_000, sooner), (1, 10_000, same), (1, 11_000, later)];
        for (expires, millis, wanted) in tries {
            // The first form of the first option is EXPIRE's own.
            for expiry in forms(millis).into_iter().skip((only == Only::Always).into()) {
                let mut log = Log::default();
                let key = &b"a"[..];
                let millis_before = 10_000 * expires;
                let set =
                    Command::Set { key, value: b"", when: When::Always, millis: millis_before };
                log.apply_at(20 * SECOND, set);
                let answer = log.apply(Command::ExpireAs { key, expiry, only });
                assert_eq!(answer, format!(":{wanted}\r\n"), "{only:?} {expires} {expiry:?}");
                let before = if expires == 0 { -1 } else { 10_000 };
                let left = if wanted == 1 { millis } else { before };
                let ttl = log.ask(Command::Ttl { key, millis: true });
                assert_eq!(ttl, format!(":{left}\r\n"), "{only:?} {expires} {expiry:?}");
            }
        }
    }
    // Told again within its millisecond, it is the same.
    for (nanos, millis, expected) in
        [(1, 5000, ":0\r\n"), (1_000_000, 5000, ":1\r\n"), (1, 5001, ":1\r\n")]
    {
        let mut log = Log::default();
        let (key, only) = (&b"a"[..], Only::Later);
        log.apply_at(SECOND, Command::Set { key, value: b"", when: When::Always, millis: 5000 });
        let expire = Command::ExpireAs { key, expiry: Expiry::In(millis), only };
        assert_eq!(log.apply_at(SECOND + nanos, expire), expected);
    }
    // What lasts does so longer than up to any time, the latest one as well.
    let mut log = Log::default();
    log.set("a", "1");
    let latest = Expiry::At(((NEVER.0 - 1) / NANOS_PER_MILLI) as i64);
    let expire = Command::ExpireAs { key: b"a", expiry: latest, only: Only::Sooner };
    assert_eq!((log.apply(expire), log.apply(expire)), (":1\r\n".into(), ":0\r\n".into()));
    // What is over removes it; what is not there has no expiry.
    for expiry in
        [Expiry::In(-1), Expiry::In(0), Expiry::In(i64::MIN), Expiry::At(-5), Expiry::At(20_000)]
    {
        let mut log = Log::default();
        log.apply_at(20 * SECOND, Command::Tick);
        log.set("a", "1");
        let expire = Command::ExpireAs { key: b"a", expiry, only: Only::Sooner };
        assert_eq!(log.apply(expire), ":1\r\n", "{expiry:?}");
        assert!(log.kv.is_empty(), "{expiry:?}");
        assert_eq!(log.apply(expire), ":0\r\n");
    }
}

#[test]
fn what_has_expired_is_not_there() {
    let mut log = expired();
    assert_eq!(log.ask(Command::Type(b"k31")), "+none\r\n");
    assert_eq!(log.ask(Command::StrLen(b"k31")), ":0\r\n");
    assert_eq!(log.apply(Command::Persist(b"k31")), ":0\r\n");
    assert_eq!(log.apply(Command::GetDel(b"k30")), "$-1\r\n");
    let mut log = expired();
    let (key, lives) = (&b"k31"[..], Lives::AsBefore);
    let set = Command::SetAs { key, value: b"x", when: When::Always, lives, tells: true };
    assert_eq!(log.apply(set), "$-1\r\n");
    assert_eq!(log.ask(Command::Ttl { key, millis: true }), ":-1\r\n");
    let get = Command::GetEx { key: b"k30", lives: Lives::Ever };
    assert_eq!(log.apply(get), "$-1\r\n");
    let mut log = expired();
    assert_eq!(log.apply(Command::SetNew { key, value: b"x" }), ":1\r\n");
    assert_eq!(log.ask(Command::Ttl { key, millis: true }), ":-1\r\n");
    let expire = Command::ExpireAs { key: b"k30", expiry: Expiry::At(9000), only: Only::Always };
    assert_eq!(log.apply(expire), ":0\r\n");
}

#[test]
fn several_are_set_if_none_of_them_is_there() {
    let (mut log, mut buf, long) = (Log::default(), Vec::new(), vec![b'v'; VALUE_BYTES_MAX + 1]);
    let mut set = |log: &mut Log, items: &[&[u8]]| {
        log.apply(Command::MSetNew(List::of(items.iter().copied(), &mut buf)))
    };
    assert_eq!(set(&mut log, &[b"a", b"1", b"b", b"2"]), ":1\r\n");
    assert_eq!(set(&mut log, &[b"c", b"3", b"b", b"4"]), ":0\r\n");
    assert_eq!(set(&mut log, &[b"c", b"3", b"d", &long]), format!("-{TOO_LONG}\r\n"));
    assert_eq!((log.get("a"), log.get("b")), ("$1\r\n1\r\n".into(), "$1\r\n2\r\n".into()));
    assert_eq!(log.kv.len(), 2);
    // One that is named twice is not there before.
    assert_eq!(set(&mut log, &[b"c", b"3", b"c", b"4"]), ":1\r\n");
    assert_eq!(log.get("c"), "$1\r\n4\r\n");
}

/// Of many that expire at once the last are still to be removed.
#[test]
fn what_has_expired_is_in_nobodys_way() {
    let (mut log, mut buf) = (Log::default(), Vec::new());
    let keys: Vec<_> = (0..3 * REAPED_MAX).map(|n| format!("a{n:02}")).collect();
    for key in &keys {
        let (key, value) = (key.as_bytes(), b"1");
        log.apply_at(SECOND, Command::Set { key, value, when: When::Always, millis: 5 });
    }
    let [last, before] = [1, 2].map(|n| keys[keys.len() - n].as_bytes());
    let set = Command::MSetNew(List::of([last, b"2"], &mut buf));
    assert_eq!(log.apply_at(2 * SECOND, set), ":1\r\n");
    assert!(log.kv.len() > REAPED_MAX, "they have not been removed yet");
    assert_eq!(log.ask(Command::Ttl { key: last, millis: true }), ":-1\r\n");
    let rename = Command::Rename { key: last, to: before, only_new: true };
    assert_eq!(log.apply(rename), ":1\r\n");
    assert_eq!(log.ask(Command::Get(before)), "$1\r\n2\r\n");
    assert_eq!(log.ask(Command::Ttl { key: before, millis: true }), ":-1\r\n");
}

#[test]
fn a_key_takes_its_value_and_its_time_to_another() {
    let mut log = Log::default();
    let ttl = |log: &Log, key| log.ask(Command::Ttl { key, millis: true });
    let (long, missing) = (vec![b'k'; KEY_BYTES_MAX + 1], format!("-{NO_SUCH_KEY}\r\n"));
    fn rename<'a>(key: &'a [u8], to: &'a [u8]) -> Command<'a> {
        Command::Rename { key, to, only_new: false }
    }
    fn rename_new<'a>(key: &'a [u8], to: &'a [u8]) -> Command<'a> {
        Command::Rename { key, to, only_new: true }
    }
    assert_eq!(log.apply_at(SECOND, rename(b"a", b"b")), missing);
    assert_eq!(log.apply(rename(b"a", b"a")), missing);
    log.set("a", "1");
    log.set("b", "2");
    log.apply(Command::Expire { key: b"b", millis: 5000 });
    assert_eq!(log.apply(rename(b"a", &long)), format!("-{TOO_LONG}\r\n"));
    assert_eq!(log.apply(rename_new(b"a", b"b")), ":0\r\n");
    assert_eq!((log.get("b"), log.kv.len()), ("$1\r\n2\r\n".into(), 2));
    // What the other one had goes, its time as well.
    assert_eq!(log.apply(rename(b"a", b"b")), "+OK\r\n");
    assert_eq!((log.get("b"), log.get("a")), ("$1\r\n1\r\n".into(), "$-1\r\n".into()));
    assert_eq!((ttl(&log, b"b"), log.kv.len()), (":-1\r\n".into(), 1));
    log.apply(Command::Expire { key: b"b", millis: 5000 });
    assert_eq!(log.apply_at(2 * SECOND, rename_new(b"b", b"a")), ":1\r\n");
    assert_eq!((log.get("a"), ttl(&log, b"a")), ("$1\r\n1\r\n".into(), ":4000\r\n".into()));
    // To itself.
    assert_eq!(log.apply(rename(b"a", b"a")), "+OK\r\n");
    assert_eq!(log.apply(rename_new(b"a", b"a")), ":0\r\n");
    assert_eq!((log.get("a"), ttl(&log, b"a")), ("$1\r\n1\r\n".into(), ":4000\r\n".into()));
    // Nothing is left of what has expired.
    log.apply_at(7 * SECOND, Command::Tick);
    assert_eq!((log.apply(rename(b"a", b"b")), log.kv.len()), (missing, 0));
}

/// Answers are those of Redis 7.
#[test]
fn a_piece_of_a_value_is_counted_from_either_end() {
    let mut log = Log::default();
    log.set("a", "hello");
    let get = |log: &Log, start, end| log.ask(Command::GetRange { key: b"a", start, end });
    let cases = [
        (0, -1, "hello"),
        (0, 0, "h"),
        (1, 3, "ell"),
        (-3, -1, "llo"),
        (-3, -4, ""),
        (3, 1, ""),
        (5, 9, ""),
        (2, i64::MAX, "llo"),
        (i64::MIN, i64::MAX, "hello"),
        (i64::MIN, i64::MIN, "h"),
        (0, -6, "h"),
        (i64::MAX, i64::MIN, ""),
        (-1, i64::MIN, ""),
        (-6, -7, ""),
        (-7, -6, "h"),
    ];
    for (start, end, expected) in cases {
        let expected = format!("${}\r\n{expected}\r\n", expected.len());
        assert_eq!(get(&log, start, end), expected, "{start} to {end}");
    }
    log.set("a", "");
    assert_eq!(get(&log, 0, -1), "$0\r\n\r\n");
    log.apply(Command::GetDel(b"a"));
    assert_eq!(get(&log, 0, -1), "$0\r\n\r\n");
}

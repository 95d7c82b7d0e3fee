//! What clients say, and what is understood.

use super::*;
use crate::{Expiry, Only, serve::reader::Reader};

/// Parses a line of words, as a client would send them.
fn with<T>(line: &str, look: impl FnOnce(Request<'_>) -> T) -> T {
    let words: Vec<_> = line.split(' ').collect();
    let mut bytes = Vec::new();
    answer::array(&mut bytes, words.len());
    words.iter().for_each(|word| answer::bulk(&mut bytes, word.as_bytes()));
    let mut reader = Reader::new(10_000);
    reader.room().extend_from_slice(&bytes);
    assert_eq!(reader.next(), Ok(true));
    look(parse(reader.args(), &mut Vec::new()))
}

fn check(line: &str, expected: Command<'_>) {
    with(line, |request| assert_eq!(request, Request::Command(expected), "{line}"));
    let mut batch = lakebed::Batch::default();
    batch.push_with(|out| expected.encode(out));
    let sent: usize = line.split(' ').map(|word| word.len() + 6).sum();
    assert!(batch.bytes() <= sent + 4, "{line} costs the log more than its client");
}

fn reply(line: &str) -> String {
    with(line, |request| match request {
        Request::Answered(bytes) => String::from_utf8(bytes).unwrap(),
        Request::Map(Map { pairs, bytes }) => {
            format!("%{pairs}\r\n{}", String::from_utf8(bytes).unwrap())
        }
        other => panic!("{line}: {other:?}"),
    })
}

#[test]
fn commands_are_understood() {
    let (key, value, mut buf) = (&b"k"[..], &b"v"[..], Vec::new());
    let set = |when, millis| Command::Set { key, value, when, millis };
    check("set k v", set(When::Always, 0));
    check("SET k v NX", set(When::Absent, 0));
    check("SET k v ex 2 xx", set(When::Present, 2000));
    check("SET k v PX 2", set(When::Always, 2));
    check("SET k v XX xx EX x EX 2", set(When::Present, 2000));
    check("SET k v NX PX 3 NX", set(When::Absent, 3));
    check("GET k", Command::Get(key));
    check("INCR k", Command::Incr { key, by: 1 });
    check("INCRBY k -7", Command::Incr { key, by: -7 });
    check("DECRBY k 7", Command::Incr { key, by: -7 });
    check("decrby k -9223372036854775807", Command::Incr { key, by: i64::MAX });
    check("DECR k", Command::Incr { key, by: -1 });
    check("APPEND k v", Command::Append { key, value });
    let list = List::of([key, value], &mut buf);
    check("DEL k v", Command::Del(list));
    check("EXISTS k v", Command::Exists(list));
    check("MGET k v", Command::MGet(list));
    check("MSET k v", Command::MSet(list));
    check("MSETNX k v", Command::MSetNew(list));
    check("RENAME k v", Command::Rename { key, to: value, only_new: false });
    check("RENAMENX k v", Command::Rename { key, to: value, only_new: true });
    check("GETRANGE k 0 -1", Command::GetRange { key, start: 0, end: -1 });
    check("EXPIRE k 3", Command::Expire { key, millis: 3000 });
    check("INCRBY k 0", Command::Incr { key, by: 0 });
    check("PEXPIRE k -9223372036854775808", Command::Expire { key, millis: i64::MIN });
    let far = 14_048_697_562_605;
    check("PEXPIRE k 14048697562605", Command::Expire { key, millis: far });
    check("SET k v EX 14048697562", set(When::Always, 14_048_697_562_000));
    let sets = |when, lives, tells| Command::SetAs { key, value, when, lives, tells };
    check("SET k v KEEPTTL", sets(When::Always, Lives::AsBefore, false));
    check("set k v keepttl get xx", sets(When::Present, Lives::AsBefore, true));
    check("SET k v GET", sets(When::Always, Lives::Ever, true));
    check("SET k v NX GET PX 3", sets(When::Absent, Lives::For(3), true));
    check("SET k v exat 3", sets(When::Always, Lives::Until(3000), false));
    check(
        "SET k v PXAT 18446744073709",
        sets(When::Always, Lives::Until(18_446_744_073_709), false),
    );
    check("GETSET k v", sets(When::Always, Lives::Ever, true));
    check("SETNX k v", Command::SetNew { key, value });
    check("SETEX k 2 v", set(When::Always, 2000));
    check("PSETEX k 2 v", set(When::Always, 2));
    check("GETDEL k", Command::GetDel(key));
    check("GETEX k", Command::Get(key));
    check("GETEX k PERSIST", Command::GetEx { key, lives: Lives::Ever });
    check("GETEX k PX 7", Command::GetEx { key, lives: Lives::For(7) });
    check("GETEX k EXAT 7", Command::GetEx { key, lives: Lives::Until(7000) });
    check("TYPE k", Command::Type(key));
    check("STRLEN k", Command::StrLen(key));
    check("PERSIST k", Command::Persist(key));
    check("TOUCH k v", Command::Exists(list));
    check("UNLINK k v", Command::Del(list));
    let expires = |expiry, only| Command::ExpireAs { key, expiry, only };
    check("EXPIREAT k 3", expires(Expiry::At(3000), Only::Always));
    check("PEXPIREAT k -3 xx", expires(Expiry::At(-3), Only::Expiring));
    check("EXPIRE k 3 nx NX", expires(Expiry::In(3000), Only::Lasting));
    check("EXPIRE k 3 GT XX", expires(Expiry::In(3000), Only::Later));
    check("PEXPIRE k 3 LT", expires(Expiry::In(3), Only::Sooner));
    check("PEXPIRE k 3 XX LT", expires(Expiry::In(3), Only::ExpiringSooner));
    check("PEXPIRE k -3", Command::Expire { key, millis: -3 });
    check("TTL k", Command::Ttl { key, millis: false });
    check("PTTL k", Command::Ttl { key, millis: true });
    check("DBSIZE", Command::DbSize);
    check("SCAN 5", Command::Scan { cursor: 5, count: 10, pattern: b"*" });
    check("SCAN 5 match k count 7", Command::Scan { cursor: 5, count: 7, pattern: key });
    let all = Command::Scan { cursor: 5, count: u32::MAX, pattern: b"*" };
    check("SCAN 5 TYPE String COUNT 4294967296", all);
    check("lakebed digest", Command::Digest);
}

#[test]
fn wrong_commands_are_answered_with_what_is_wrong() {
    let cases = [
        ("NONE a", "unknown command 'none'"),
        ("GET", "wrong number of arguments for 'get' command"),
        ("GET a b", "wrong number of arguments"),
        ("MSET a", "wrong number of arguments"),
        ("MSETNX", "wrong number of arguments for 'msetnx' command"),
        ("MSETNX a b c", "wrong number of arguments"),
        ("RENAME a", "wrong number of arguments for 'rename' command"),
        ("RENAMENX a b c", "wrong number of arguments for 'renamenx' command"),
        ("GETRANGE k 0", "wrong number of arguments for 'getrange' command"),
        ("GETRANGE k x 0", "not an integer"),
        ("GETRANGE k 0 9223372036854775808", "not an integer"),
        ("DEL", "wrong number of arguments"),
        ("SET k v NX XX", "syntax error"),
        ("SET k v XX NX XX", "syntax error"),
        ("SET k v EX 3 PX 3", "syntax error"),
        ("SET k v EX 3 EX x", "not an integer"),
        ("SET k v EX", "syntax error"),
        ("SET k v EX x", "not an integer"),
        ("SET k v EX 0", "invalid expire time in 'set' command"),
        ("SET k v EX 9223372036854775807", "invalid expire time"),
        ("SET k v EX 9223372036854775", "invalid expire time"),
        ("SET k v PX 9223372036854775807", "invalid expire time"),
        ("SET k v PX +3", "not an integer"),
        ("SET k v PX -3", "invalid expire time in 'set' command"),
        ("SET k v KEEPTTL EX 3", "syntax error"),
        ("SET k v EX 3 KEEPTTL", "syntax error"),
        ("SET k v EX 3 EXAT 3", "syntax error"),
        ("SET k v EXAT", "syntax error"),
        ("SET k v PERSIST", "syntax error"),
        ("SET k v EXAT 0", "invalid expire time in 'set' command"),
        ("SET k v PXAT -5", "invalid expire time"),
        ("SET k v PXAT 18446744073710", "invalid expire time"),
        ("SET k v PX 14048697562606", "invalid expire time"),
        ("SETNX k", "wrong number of arguments for 'setnx' command"),
        ("SETEX k v 3", "not an integer"),
        ("SETEX k 0 v", "invalid expire time in 'setex' command"),
        ("PSETEX k -1 v", "invalid expire time in 'psetex' command"),
        ("SETEX k 3", "wrong number of arguments for 'setex' command"),
        ("GETSET k", "wrong number of arguments for 'getset' command"),
        ("GETDEL k v", "wrong number of arguments for 'getdel' command"),
        ("GETEX k KEEPTTL", "syntax error"),
        ("GETEX k PERSIST EX 3", "syntax error"),
        ("GETEX k EX 3 PERSIST", "syntax error"),
        ("GETEX k EX", "syntax error"),
        ("GETEX k PX 0", "invalid expire time in 'getex' command"),
        ("TYPE", "wrong number of arguments for 'type' command"),
        ("STRLEN a b", "wrong number of arguments"),
        ("PERSIST", "wrong number of arguments"),
        ("TOUCH", "wrong number of arguments for 'touch' command"),
        ("EXPIREAT k 18446744074", "invalid expire time in 'expireat' command"),
        ("EXPIRE k 14048697563", "invalid expire time in 'expire' command"),
        ("EXPIRE k 1 NX XX", "NX and XX, GT or LT options at the same time are not compatible"),
        ("EXPIRE k 1 lt nx", "NX and XX, GT or LT options at the same time are not compatible"),
        ("EXPIRE k x GT LT", "GT and LT options at the same time are not compatible"),
        ("EXPIRE k 1 EX", "Unsupported option EX"),
        ("INCRBY k 1.5", "not an integer"),
        ("INCRBY k +3", "not an integer or out of range"),
        ("INCRBY k 007", "not an integer"),
        ("INCRBY k -0", "not an integer"),
        ("INCRBY k -03", "not an integer"),
        ("INCRBY k -", "not an integer"),
        ("DECRBY k 00", "not an integer"),
        ("DECRBY k", "wrong number of arguments for 'decrby' command"),
        ("DECRBY k 9223372036854775808", "not an integer"),
        ("DECRBY k -9223372036854775808", "decrement would overflow"),
        ("EXPIRE k 9223372036854775807", "invalid expire time"),
        ("EXPIRE k -9223372036854775807", "invalid expire time"),
        ("EXPIRE k 9223372036854775", "invalid expire time in 'expire' command"),
        ("PEXPIRE k 9223372036854775807", "invalid expire time"),
        ("EXPIRE k 03", "not an integer"),
        ("EXPIRE k", "wrong number of arguments for 'expire' command"),
        ("PEXPIRE k x foo bar", "Unsupported option foo"),
        ("SCAN x", "invalid cursor"),
        ("SCAN 0 COUNT 0", "syntax error"),
        ("SCAN 0 COUNT -1", "syntax error"),
        ("SCAN 0 TYPE", "syntax error"),
        ("SELECT 1", "DB index is out of range"),
        ("SELECT x", "value is not an integer or out of range"),
        ("CONFIG SET a b", "when the node is started"),
        ("CLIENT LIST", "CLIENT knows"),
        ("CLIENT SETNAME", "wrong number of arguments for 'client' command"),
        ("CLIENT GETNAME x", "wrong number of arguments"),
        ("CLIENT ID x", "wrong number of arguments"),
        ("CLIENT SETNAME a\tb", "Client names cannot contain spaces"),
        ("HELLO 3 SETNAME a\nb", "Client names cannot contain spaces"),
        ("TIME now", "wrong number of arguments for 'time' command"),
        ("WAIT 1", "wrong number of arguments for 'wait' command"),
        ("WAIT x 0", "not an integer"),
        ("WAIT 1 x", "not an integer"),
        ("WAIT 1 -1", "timeout is negative"),
        ("KEYS", "wrong number of arguments for 'keys' command"),
        ("LAKEBED FREEZE", "LAKEBED knows"),
        ("LAKEBED BACKUP", "LAKEBED knows"),
        ("LAKEBED BACKUP READ 1", "LAKEBED knows"),
        ("LAKEBED BACKUP READ x 1", "BACKUP READ takes an offset and a length"),
        ("LAKEBED CHANGE", "CHANGE takes one step or several: ADD id address"),
        ("LAKEBED SNAPSHOT now", "LAKEBED knows"),
        ("LAKEBED GROUP", "LAKEBED knows"),
        ("HELLO two", "not an integer"),
        ("HELLO 2 SETNAME", "syntax error"),
        ("HELLO 2 AUTH a b", "no users"),
        ("LAKEBED GROUP x INFO", "not an integer"),
        ("LAKEBED GROUP 1", "LAKEBED knows"),
        ("LAKEBED GROUP 1 GROUP 1 INFO", "LAKEBED knows"),
        ("LAKEBED GROUP 1 SESSION OPEN", "LAKEBED knows"),
        ("MULTI x", "wrong number of arguments for 'multi' command"),
        ("EXEC x", "wrong number of arguments"),
        ("RESET x", "wrong number of arguments"),
        ("HELLO 3 AUTH a b", "no users"),
        ("HELLO 3 SETNAME", "syntax error"),
    ];
    for (line, expected) in cases {
        let reply = reply(line);
        assert!(reply.starts_with("-ERR ") && reply.contains(expected), "{line}: {reply}");
    }
    for line in ["HELLO 1", "HELLO 4", "HELLO -3", "HELLO 4 AUTH a b"] {
        assert_eq!(reply(line), "-NOPROTO unsupported protocol version\r\n");
    }
    let long = "?".repeat(PATTERN_BYTES_MAX + 1);
    let keys = format!("KEYS {long}");
    for line in [format!("SCAN 0 MATCH {long}"), format!("CONFIG GET save {long}"), keys] {
        assert_eq!(reply(&line), format!("-{PATTERN_TOO_LONG}\r\n"));
    }
    let named = reply(&format!("CLIENT SETNAME {long}"));
    assert!(named.starts_with("-ERR a client's name exceeds"), "{named}");
    check(
        &format!("SCAN 0 MATCH {}", &long[1..]),
        Command::Scan { cursor: 0, count: 10, pattern: &long.as_bytes()[1..] },
    );
}

#[test]
fn what_tools_ask_first_is_answered() {
    assert_eq!(reply("PING"), "+PONG\r\n");
    assert_eq!(reply("PING hello"), "$5\r\nhello\r\n");
    assert_eq!(reply("ECHO hello"), "$5\r\nhello\r\n");
    assert_eq!(reply("SELECT 0"), "+OK\r\n");
    assert_eq!(reply("CONFIG GET save"), "%1\r\n$4\r\nsave\r\n$0\r\n\r\n");
    assert_eq!(reply("CONFIG GET append*").matches('$').count(), 4);
    assert_eq!(reply("CONFIG GET none"), "%0\r\n");
    assert_eq!(reply("COMMAND"), "*0\r\n");
    assert_eq!(reply("SCAN 0 TYPE hash"), "*2\r\n$1\r\n0\r\n*0\r\n");
    assert_eq!(reply("COMMAND COUNT"), ":0\r\n");
    assert_eq!(reply("COMMAND DOCS"), "%0\r\n");
    for (line, asked) in [
        ("CLIENT SETINFO LIB-NAME x", client::Asked::SetInfo),
        ("client setname x", client::Asked::SetName(b"x")),
        ("CLIENT GETNAME", client::Asked::GetName),
        ("CLIENT id", client::Asked::Id),
    ] {
        with(line, |request| assert_eq!(request, Request::Client(asked), "{line}"));
    }
    for (line, protocol, name) in [
        ("HELLO", None, None),
        ("HELLO 2", Some(Protocol::Resp2), None),
        ("hello 2 setname x", Some(Protocol::Resp2), Some(&b"x"[..])),
        ("HELLO 3 SETNAME x", Some(Protocol::Resp3), Some(b"x")),
    ] {
        with(line, |request| assert_eq!(request, Request::Hello(protocol, name), "{line}"));
    }
    with("TIME", |request| assert_eq!(request, Request::Time));
    with("WAIT 2 100", |request| assert_eq!(request, Request::Wait));
    with("keys a*", |request| assert_eq!(request, Request::Keys(b"a*")));
    with("RESET", |request| assert_eq!(request, Request::Reset));
    let order = |line: &str, order| {
        with(line, |request| assert_eq!(request, Request::Order(order), "{line}"));
    };
    order("LAKEBED snapshot", Order::Snapshot);
    order("lakebed backup begin", Order::BeginBackup);
    order("LAKEBED BACKUP READ 5 9999999999", Order::ReadBackup { offset: 5, len: u32::MAX });
    order("LAKEBED BACKUP END", Order::EndBackup);
    let within = |line: &str, inner: Request<'_>| {
        let expected = Request::Within(3, Box::new(inner));
        with(line, |request| assert_eq!(request, expected, "{line}"));
    };
    within("LAKEBED GROUP 3 SNAPSHOT", Request::Order(Order::Snapshot));
    within("lakebed group 3 digest", Request::Command(Command::Digest));
    within("LAKEBED GROUP 3 info", Request::Info);
    for (line, word) in [
        ("multi", Word::Multi),
        ("EXEC", Word::Exec),
        ("DISCARD", Word::Discard),
        ("WATCH a b", Word::Watch),
        ("UNWATCH", Word::Watch),
    ] {
        with(line, |request| assert_eq!(request, Request::Transaction(word), "{line}"));
    }
    with("QUIT", |request| assert_eq!(request, Request::Quit));
    with("INFO server", |request| assert_eq!(request, Request::Info));
}

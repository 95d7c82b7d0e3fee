//! From the words of a client to what they ask for.
//!
//! Knows no connection and no state. What is wrong with a command is answered here, so that the
//! log holds none that cannot be performed.

use super::{
    client,
    options::{self, Unit},
    orders::{Order, WrongOrder},
    outgoing::Protocol,
    reader::Args,
    sessions, stale,
    transactions::Word,
};
use crate::{
    Command, List, Lives, When, answer,
    glob::{Glob, PATTERN_BYTES_MAX},
    machine::PATTERN_TOO_LONG,
};
use std::fmt;

/// What CONFIG GET knows: what benchmarks ask to describe what they measure.
const SETTINGS: [(&str, &str); 5] = [
    ("appendfsync", "always"),
    ("appendonly", "yes"),
    ("databases", "1"),
    ("maxmemory", "0"),
    ("save", ""),
];
/// The longest command name.
const NAME_BYTES_MAX: usize = 16;

/// What a client asks for.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Request<'a> {
    /// To be performed by the machine.
    Command(Command<'a>),
    /// Answered already.
    Answered(Vec<u8>),
    /// Answered already, by a map.
    Map(Map),
    /// Which protocol to speak from now on, if another one, and a name for the client.
    Hello(Option<Protocol>, Option<&'a [u8]>),
    /// Who the client is.
    Client(client::Asked<'a>),
    /// How old what the client reads may be.
    Stale(stale::Asked),
    /// To be as new.
    Reset,
    /// Of a session: goes into the log by itself.
    Session(sessions::Asked),
    /// The same for one group, counted from one, whatever the keys say: a command that names no
    /// key, an order, or how it is.
    Within(u64, Box<Self>),
    /// For the node itself.
    Order(Order),
    /// How the node is.
    Info,
    /// What time it is.
    Time,
    /// On how many nodes beside this one what was written is for certain.
    Wait,
    /// All keys that match this pattern.
    Keys(&'a [u8]),
    /// Of a transaction.
    Transaction(Word),
    /// To be let go.
    Quit,
}

/// A map, which the second protocol knows as an array.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Map {
    pub(crate) pairs: usize,
    /// Keys and values.
    pub(crate) bytes: Vec<u8>,
}

/// What is wrong with a command.
pub(crate) enum Wrong<'a> {
    Unknown,
    Arity,
    Syntax,
    Integer,
    Expiry,
    Cursor,
    Database,
    Order(WrongOrder<'a>),
    /// There is none of this name.
    Option(&'a [u8]),
    Text(&'static str),
}

type Parsed<'a> = Result<Request<'a>, Wrong<'a>>;

/// The request of this command; lists of keys are written into `list`.
pub(crate) fn parse<'a>(args: Args<'a>, list: &'a mut Vec<u8>) -> Request<'a> {
    let (name, rest) = args.split_first().expect("a command has a name");
    let mut upper = [0; NAME_BYTES_MAX];
    let parsed = match upper.get_mut(..name.len()) {
        Some(upper) => {
            upper.copy_from_slice(name);
            upper.make_ascii_uppercase();
            parse_named(upper, rest, list)
        }
        None => Err(Wrong::Unknown),
    };
    parsed.unwrap_or_else(|wrong| {
        Request::Answered(answered(|out| {
            answer::error(out, &Complaint { wrong, name }.to_string())
        }))
    })
}

fn parse_named<'a>(name: &[u8], args: Args<'a>, list: &'a mut Vec<u8>) -> Parsed<'a> {
    let command = match name {
        b"GET" => Command::Get(one(args)?),
        b"SET" => options::set(args)?,
        b"SETNX" => {
            let [key, value] = args.all().ok_or(Wrong::Arity)?;
            Command::SetNew { key, value }
        }
        b"SETEX" => options::set_ex(args, Unit::SECONDS)?,
        b"PSETEX" => options::set_ex(args, Unit::MILLIS)?,
        b"GETSET" => {
            let [key, value] = args.all().ok_or(Wrong::Arity)?;
            Command::SetAs { key, value, when: When::Always, lives: Lives::Ever, tells: true }
        }
        b"GETDEL" => Command::GetDel(one(args)?),
        b"GETEX" => options::get_ex(args)?,
        b"TYPE" => Command::Type(one(args)?),
        b"STRLEN" => Command::StrLen(one(args)?),
        b"PERSIST" => Command::Persist(one(args)?),
        b"INCR" => Command::Incr { key: one(args)?, by: 1 },
        b"DECR" => Command::Incr { key: one(args)?, by: -1 },
        b"INCRBY" => incr_by(args)?,
        b"DECRBY" => decr_by(args)?,
        b"APPEND" => {
            let [key, value] = args.all().ok_or(Wrong::Arity)?;
            Command::Append { key, value }
        }
        b"DEL" | b"UNLINK" => Command::Del(keys(args, list)?),
        b"EXISTS" | b"TOUCH" => Command::Exists(keys(args, list)?),
        b"MGET" => Command::MGet(keys(args, list)?),
        b"MSET" if args.len().is_multiple_of(2) => Command::MSet(keys(args, list)?),
        b"MSETNX" if args.len().is_multiple_of(2) => Command::MSetNew(keys(args, list)?),
        b"RENAME" | b"RENAMENX" => {
            let [key, to] = args.all().ok_or(Wrong::Arity)?;
            Command::Rename { key, to, only_new: name == b"RENAMENX" }
        }
        b"GETRANGE" => {
            let [key, start, end] = args.all().ok_or(Wrong::Arity)?;
            Command::GetRange { key, start: number(start)?, end: number(end)? }
        }
        b"EXPIRE" => options::expire(args, Unit::SECONDS)?,
        b"PEXPIRE" => options::expire(args, Unit::MILLIS)?,
        b"EXPIREAT" => options::expire(args, Unit::SECONDS_AT)?,
        b"PEXPIREAT" => options::expire(args, Unit::MILLIS_AT)?,
        b"TTL" => Command::Ttl { key: one(args)?, millis: false },
        b"PTTL" => Command::Ttl { key: one(args)?, millis: true },
        b"DBSIZE" if args.len() == 0 => Command::DbSize,
        b"SCAN" => return scan(args),
        b"KEYS" => return pattern(one(args)?).map(Request::Keys),
        b"LAKEBED" => return lakebed(args),
        b"MSET" | b"MSETNX" | b"DBSIZE" => return Err(Wrong::Arity),
        _ => return parse_local(name, args),
    };
    Ok(Request::Command(command))
}

/// What any server answers without its state.
fn parse_local<'a>(name: &[u8], args: Args<'a>) -> Parsed<'a> {
    let answer = match name {
        b"PING" if args.len() == 0 => answered(|out| answer::simple(out, "PONG")),
        b"PING" | b"ECHO" => {
            let text = one(args)?;
            answered(|out| answer::bulk(out, text))
        }
        b"SELECT" => match one(args)? {
            b"0" => ok(),
            other => {
                return Err(number::<i32>(other).map_or_else(|wrong| wrong, |_| Wrong::Database));
            }
        },
        b"CONFIG" => return config(args).map(Request::Map),
        b"COMMAND" => return Ok(command(args)),
        b"CLIENT" => return client::parse(args).map(Request::Client),
        b"HELLO" => return hello(args),
        b"TIME" if args.len() == 0 => return Ok(Request::Time),
        b"TIME" => return Err(Wrong::Arity),
        b"WAIT" => return wait(args),
        b"RESET" if args.len() == 0 => return Ok(Request::Reset),
        b"RESET" => return Err(Wrong::Arity),
        b"INFO" => return Ok(Request::Info),
        b"QUIT" => return Ok(Request::Quit),
        b"MULTI" => return transaction(Word::Multi, args),
        b"EXEC" => return transaction(Word::Exec, args),
        b"DISCARD" => return transaction(Word::Discard, args),
        b"WATCH" | b"UNWATCH" => return Ok(Request::Transaction(Word::Watch)),
        _ => return Err(Wrong::Unknown),
    };
    Ok(Request::Answered(answer))
}

const fn transaction<'a>(word: Word, args: Args<'a>) -> Parsed<'a> {
    if args.len() > 0 { Err(Wrong::Arity) } else { Ok(Request::Transaction(word)) }
}

fn one(args: Args<'_>) -> Result<&[u8], Wrong<'_>> {
    let [arg] = args.all().ok_or(Wrong::Arity)?;
    Ok(arg)
}

fn keys<'a>(args: Args<'_>, list: &'a mut Vec<u8>) -> Result<List<'a>, Wrong<'a>> {
    if args.len() == 0 {
        return Err(Wrong::Arity);
    }
    Ok(List::of(args.iter(), list))
}

/// In the one form that a number has: no plus, no zeros before it, no minus before zero.
pub(crate) fn number<T: std::str::FromStr>(arg: &[u8]) -> Result<T, Wrong<'static>> {
    let plain = matches!(arg, b"0" | [b'1'..=b'9', ..] | [b'-', b'1'..=b'9', ..]);
    let digits = std::str::from_utf8(arg).ok().filter(|_| plain);
    digits.and_then(|digits| digits.parse().ok()).ok_or(Wrong::Integer)
}

fn incr_by(args: Args<'_>) -> Result<Command<'_>, Wrong<'_>> {
    let [key, by] = args.all().ok_or(Wrong::Arity)?;
    Ok(Command::Incr { key, by: number(by)? })
}

fn decr_by(args: Args<'_>) -> Result<Command<'_>, Wrong<'_>> {
    let [key, by] = args.all().ok_or(Wrong::Arity)?;
    // The least number has no opposite.
    let by = number::<i64>(by)?.checked_neg();
    Ok(Command::Incr { key, by: by.ok_or(Wrong::Text("ERR decrement would overflow"))? })
}

/// `SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]`
fn scan(args: Args<'_>) -> Parsed<'_> {
    let mut args = args.iter();
    let cursor = number(args.next().ok_or(Wrong::Arity)?).map_err(|_| Wrong::Cursor)?;
    let (mut count, mut pattern, mut has_type) = (10_i64, &b"*"[..], true);
    while let Some(option) = args.next() {
        let value = args.next().ok_or(Wrong::Syntax)?;
        if option.eq_ignore_ascii_case(b"COUNT") {
            count = number(value)?;
        } else if option.eq_ignore_ascii_case(b"MATCH") {
            pattern = value;
        } else if option.eq_ignore_ascii_case(b"TYPE") {
            has_type = value.eq_ignore_ascii_case(b"string");
        } else {
            return Err(Wrong::Syntax);
        }
    }
    if count < 1 {
        return Err(Wrong::Syntax);
    }
    let pattern = self::pattern(pattern)?;
    if !has_type {
        // There are strings alone: nothing is found, and that was all.
        return Ok(Request::Answered(b"*2\r\n$1\r\n0\r\n*0\r\n".into()));
    }
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    Ok(Request::Command(Command::Scan { cursor, count, pattern }))
}

fn pattern(pattern: &[u8]) -> Result<&[u8], Wrong<'_>> {
    let fits = pattern.len() <= PATTERN_BYTES_MAX;
    fits.then_some(pattern).ok_or(Wrong::Text(PATTERN_TOO_LONG))
}

/// `WAIT numreplicas timeout`: nobody is waited for, what was answered is where it has to be.
fn wait(args: Args<'_>) -> Parsed<'_> {
    let [replicas, millis] = args.all().ok_or(Wrong::Arity)?;
    number::<i64>(replicas)?;
    if number::<i64>(millis)? < 0 {
        return Err(Wrong::Text("ERR timeout is negative"));
    }
    Ok(Request::Wait)
}

fn lakebed<'a>(args: Args<'a>) -> Parsed<'a> {
    if let Some([what]) = args.all()
        && what.eq_ignore_ascii_case(b"DIGEST")
    {
        return Ok(Request::Command(Command::Digest));
    }
    if let Some((what, rest)) = args.split_first()
        && what.eq_ignore_ascii_case(b"SESSION")
    {
        return Ok(sessions::parse(rest).map_or_else(Request::Answered, Request::Session));
    }
    if let Some((what, rest)) = args.split_first()
        && what.eq_ignore_ascii_case(b"GROUP")
    {
        return within(rest);
    }
    if let Some((what, rest)) = args.split_first()
        && what.eq_ignore_ascii_case(b"STALE")
    {
        return stale::parse(rest).map(Request::Stale).ok_or(Wrong::Text(stale::WRONG));
    }
    Order::parse(args).map(Request::Order).map_err(Wrong::Order)
}

/// `GROUP n INFO`, or what stands behind `LAKEBED` otherwise.
fn within<'a>(args: Args<'a>) -> Parsed<'a> {
    let usage = || Wrong::Order(WrongOrder::Unknown);
    let (group, rest) = args.split_first().ok_or_else(usage)?;
    let group = number(group)?;
    // A session says itself whose it is, what is read may be as old in each, and groups are not within groups. Seen before what stands
    // behind is parsed: whoever repeats it would have a stack as deep as they like.
    let is_whole = |(what, _): &(&[u8], _)| {
        [&b"GROUP"[..], b"SESSION", b"STALE"].iter().any(|name| what.eq_ignore_ascii_case(name))
    };
    if rest.split_first().as_ref().is_some_and(is_whole) {
        return Err(usage());
    }
    let asked = match rest.all() {
        Some([what]) if what.eq_ignore_ascii_case(b"INFO") => Request::Info,
        _ => lakebed(rest)?,
    };
    Ok(Request::Within(group, Box::new(asked)))
}

fn config(args: Args<'_>) -> Result<Map, Wrong<'_>> {
    let (what, names) = args.split_first().ok_or(Wrong::Arity)?;
    if !what.eq_ignore_ascii_case(b"GET") {
        return Err(Wrong::Text("ERR the configuration is given when the node is started"));
    }
    if names.len() == 0 {
        return Err(Wrong::Arity);
    }
    let mut asked = [false; SETTINGS.len()];
    for name in names.iter() {
        let name = name.to_ascii_lowercase();
        let mut glob = Glob::new(&name).ok_or(Wrong::Text(PATTERN_TOO_LONG))?;
        for (asked, (setting, _)) in asked.iter_mut().zip(SETTINGS) {
            *asked = *asked || glob.matches(setting.as_bytes());
        }
    }
    let mut map = Map { pairs: 0, bytes: Vec::new() };
    for ((name, value), _) in SETTINGS.iter().zip(asked).filter(|(_, asked)| *asked) {
        answer::bulk(&mut map.bytes, name.as_bytes());
        answer::bulk(&mut map.bytes, value.as_bytes());
        map.pairs += 1;
    }
    Ok(map)
}

/// Interactive clients ask for a table to complete names by; they do without.
fn command<'a>(args: Args<'a>) -> Request<'a> {
    let is = |name: &[u8]| args.iter().next().is_some_and(|what| what.eq_ignore_ascii_case(name));
    if is(b"DOCS") {
        return Request::Map(Map { pairs: 0, bytes: Vec::new() });
    }
    let count = is(b"COUNT");
    Request::Answered(answered(
        |out| {
            if count { answer::integer(out, 0) } else { answer::array(out, 0) }
        },
    ))
}

/// Libraries say which protocol they speak.
fn hello(args: Args<'_>) -> Parsed<'_> {
    let (mut args, mut protocol, mut called) = (args.iter(), None, None);
    if let Some(version) = args.next() {
        let version: i64 = number(version)
            .map_err(|_| Wrong::Text("ERR Protocol version is not an integer or out of range"))?;
        protocol = Some(match version {
            2 => Protocol::Resp2,
            3 => Protocol::Resp3,
            // Those that would rather speak another one stay with theirs at this code.
            _ => return Err(Wrong::Text("NOPROTO unsupported protocol version")),
        });
    }
    while let Some(option) = args.next() {
        if option.eq_ignore_ascii_case(b"AUTH") {
            return Err(Wrong::Text("ERR AUTH: this server has no users and no passwords"));
        }
        let names = option.eq_ignore_ascii_case(b"SETNAME");
        called = Some(client::name(args.next().filter(|_| names).ok_or(Wrong::Syntax)?)?);
    }
    Ok(Request::Hello(protocol, called))
}

/// Who answers to HELLO, in which protocol, and which client.
pub(crate) fn greeting(protocol: Protocol, id: u64) -> Map {
    let bytes = answered(|out| {
        // Any node takes any command, as the one that Redis calls the master.
        let words = [
            ("server", "lakebed"),
            ("version", env!("CARGO_PKG_VERSION")),
            ("mode", "standalone"),
            ("role", "master"),
        ];
        for word in words.iter().flat_map(|(name, value)| [name, value]) {
            answer::bulk(out, word.as_bytes());
        }
        answer::bulk(out, b"proto");
        answer::integer(out, protocol.version());
        answer::bulk(out, b"id");
        answer::integer(out, id.cast_signed());
        answer::bulk(out, b"modules");
        answer::array(out, 0);
    });
    Map { pairs: 7, bytes }
}

fn answered(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn ok() -> Vec<u8> {
    answered(|out| answer::simple(out, "OK"))
}

/// What is wrong, with which command.
struct Complaint<'a> {
    wrong: Wrong<'a>,
    name: &'a [u8],
}

impl fmt::Display for Complaint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = |text: &'_ [u8]| text[..text.len().min(64)].to_vec();
        let name = start(self.name).to_ascii_lowercase();
        let name = name.escape_ascii();
        match self.wrong {
            Wrong::Unknown => write!(f, "ERR unknown command '{name}'"),
            Wrong::Arity => write!(f, "ERR wrong number of arguments for '{name}' command"),
            Wrong::Syntax => f.write_str("ERR syntax error"),
            Wrong::Integer => f.write_str("ERR value is not an integer or out of range"),
            Wrong::Expiry => write!(f, "ERR invalid expire time in '{name}' command"),
            Wrong::Cursor => f.write_str("ERR invalid cursor"),
            Wrong::Database => f.write_str("ERR DB index is out of range: there is 0 alone"),
            Wrong::Order(wrong) => wrong.fmt(f),
            Wrong::Option(option) => {
                write!(f, "ERR Unsupported option {}", start(option).escape_ascii())
            }
            Wrong::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;

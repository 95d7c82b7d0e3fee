//! Orders to the node itself: to take a snapshot, to hand it out as a backup, to hand its leadership
//! over, to change the members.
//!
//! ```text
//! LAKEBED SNAPSHOT                 +TERM.INDEX, when it is durable
//! LAKEBED BACKUP BEGIN             its name and length; it is kept from now on
//! LAKEBED BACKUP READ OFFSET LEN   so many bytes of it; fewer at its end, and where that is much
//! LAKEBED BACKUP END               +OK; so does the end of the connection
//! LAKEBED TRANSFER [ID]            +TERM.INDEX, when that node, or any other, leads
//! LAKEBED CHANGE STEP ...          +TERM.INDEX of the members, when they are in force and committed;
//!                                  a step is ADD ID ADDR, PROMOTE ID, DEMOTE ID, REMOVE ID or
//!                                  MOVE ID ADDR, and all of them are one change
//! LAKEBED GROUP N ...              the same for one group of several, as do LAKEBED GROUP N DIGEST
//!                                  and LAKEBED GROUP N INFO
//! ```
//!
//! Knows no byte of a backup. Invariant: a connection keeps one snapshot at most, and none when it
//! has ended.

use super::{
    address::{WrongAddress, check_address},
    reader::Args,
    store::{Asked, Failure, Store},
    stores::Stores,
};
use crate::answer;
use bytes::Bytes;
use lakebed::{Change, Control, File, Member, Membership, NodeId, Outcome, Refusal};
use std::fmt;

/// What is wrong with an order that is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WrongOrder<'a> {
    Unknown,
    /// A change of none.
    NoSteps,
    Step(&'a [u8]),
    /// The step, or order, and what is given for a node's id.
    Id(&'a [u8], &'a [u8]),
    NoId(&'a [u8]),
    NoAddress(&'a [u8]),
    Address(WrongAddress),
    /// Of a backup, where to read it.
    Place,
}

const STEPS: &str = "ADD id address, PROMOTE id, DEMOTE id, REMOVE id, MOVE id address";

impl fmt::Display for WrongOrder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |word: &'_ [u8]| word[..word.len().min(64)].escape_ascii().to_string();
        match self {
            Self::Unknown => f.write_str(USAGE),
            Self::NoSteps => write!(f, "ERR CHANGE takes one step or several: {STEPS}"),
            Self::Step(word) => {
                write!(f, "ERR CHANGE has no step '{}', there are {STEPS}", quoted(word))
            }
            Self::Id(verb, id) => write!(
                f,
                "ERR {} '{}': a node's id is a whole number, from 1 on",
                quoted(verb),
                quoted(id)
            ),
            Self::NoId(verb) => write!(f, "ERR {} takes a node's id", quoted(verb)),
            Self::NoAddress(verb) => {
                write!(f, "ERR {} takes an address behind a node's id", quoted(verb))
            }
            Self::Address(wrong) => write!(f, "ERR no address of a member: {wrong}"),
            Self::Place => f.write_str("ERR BACKUP READ takes an offset and a length, in bytes"),
        }
    }
}

/// What there is instead of one that is unknown.
pub(crate) const USAGE: &str = "ERR LAKEBED knows DIGEST, SNAPSHOT, BACKUP BEGIN, BACKUP READ \
     offset length, BACKUP END, TRANSFER [id], SESSION OPEN [key], SESSION DO session number \
     write..., SESSION CLOSE session, and CHANGE with steps ADD id address, PROMOTE id, DEMOTE id, \
     REMOVE id, MOVE id address; all of it but sessions, and INFO, for one group: GROUP number ...; \
     and STALE [milliseconds | OFF]";

/// What a step of a change begins with.
const VERBS: [&[u8]; 5] = [b"ADD", b"PROMOTE", b"DEMOTE", b"REMOVE", b"MOVE"];

/// An order to the node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    Snapshot,
    BeginBackup,
    ReadBackup { offset: u64, len: u32 },
    EndBackup,
    Transfer { to: Option<NodeId> },
    Change(Vec<Change>),
}

impl Order {
    /// What stands behind `LAKEBED`.
    pub(crate) fn parse<'a>(args: Args<'a>) -> Result<Self, WrongOrder<'a>> {
        let upper: Vec<_> = args.iter().map(<[u8]>::to_ascii_uppercase).collect();
        let words: Vec<_> = upper.iter().map(Vec::as_slice).collect();
        // Names and addresses are taken as they are written.
        let given: Vec<_> = args.iter().collect();
        Ok(match words[..] {
            [b"TRANSFER"] => Self::Transfer { to: None },
            [b"TRANSFER", _] => Self::Transfer { to: Some(node(given[0], given[1])?) },
            [b"CHANGE", ..] => Self::Change(steps(&given[1..])?),
            [b"SNAPSHOT"] => Self::Snapshot,
            [b"BACKUP", b"BEGIN"] => Self::BeginBackup,
            [b"BACKUP", b"END"] => Self::EndBackup,
            [b"BACKUP", b"READ", offset, len] => {
                let place = number(offset).zip(number(len));
                let (offset, len) = place.ok_or(WrongOrder::Place)?;
                Self::ReadBackup { offset, len: u32::try_from(len).unwrap_or(u32::MAX) }
            }
            _ => return Err(WrongOrder::Unknown),
        })
    }
}

fn steps<'a>(mut words: &[&'a [u8]]) -> Result<Vec<Change>, WrongOrder<'a>> {
    let mut steps = Vec::new();
    while let [verb, rest @ ..] = words {
        let upper = verb.to_ascii_uppercase();
        if !VERBS.contains(&&upper[..]) {
            return Err(WrongOrder::Step(verb));
        }
        let (id, rest) = rest.split_first().ok_or(WrongOrder::NoId(verb))?;
        let id = node(verb, id)?;
        let member = || {
            let (address, rest) = rest.split_first().ok_or(WrongOrder::NoAddress(verb))?;
            let text = std::str::from_utf8(address).map_err(|_| WrongAddress::Form);
            text.and_then(check_address).map_err(WrongOrder::Address)?;
            let address = Bytes::copy_from_slice(address);
            Ok((Member { id, incarnation: 0, address }, rest))
        };
        let (step, rest) = match &upper[..] {
            b"ADD" => member().map(|(member, rest)| (Change::AddLearner(member), rest))?,
            b"MOVE" => member().map(|(member, rest)| (Change::Address(member), rest))?,
            b"PROMOTE" => (Change::Promote(id), rest),
            b"DEMOTE" => (Change::Demote(id), rest),
            _ => (Change::Remove(id), rest),
        };
        steps.push(step);
        words = rest;
    }
    if steps.is_empty() { Err(WrongOrder::NoSteps) } else { Ok(steps) }
}

/// Who has an address already that one of these steps moves another member to, and whom. One that leaves has
/// its own as long as it is heard. A new node may be where a dead one was: it has to answer there, before
/// it is anything.
fn taken(members: &Membership, steps: &[Change]) -> Option<(NodeId, NodeId)> {
    // What is wrong otherwise is for the engine to say.
    let next = members.joint(members.changed(steps).ok()?);
    steps.iter().find_map(|step| {
        let Change::Address(given) = step else { return None };
        let mut others = next.members().filter(|other| other.id != given.id);
        others.find(|other| other.address == given.address).map(|other| (other.id, given.id))
    })
}

/// For this step, or order.
fn node<'a>(verb: &'a [u8], word: &'a [u8]) -> Result<NodeId, WrongOrder<'a>> {
    number(word).filter(|id| *id > 0).map(NodeId).ok_or(WrongOrder::Id(verb, word))
}

fn number(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// The backup that a client is taking.
#[derive(Debug, Default)]
pub(crate) struct Taking {
    /// The group, and its file.
    file: Option<(usize, File)>,
}

impl Taking {
    /// Carries out an order and answers it.
    pub(crate) async fn carry_out(
        &mut self,
        order: Order,
        group: usize,
        stores: &Stores<impl Store>,
        out: &mut Vec<u8>,
    ) {
        let store = stores.of(group);
        let asked = match &order {
            Order::Transfer { .. } | Order::Change(_) => Asked::Write,
            _ => Asked::Read,
        };
        let outcome = match (order, self.file) {
            (Order::Transfer { to }, _) => store.control(Control::Transfer { to }).await,
            (Order::Change(steps), _) => match change(store, steps).await {
                Ok(outcome) => outcome,
                Err(reason) => return answer::error(out, &reason),
            },
            (Order::Snapshot, _) => store.control(Control::Snapshot).await,
            (Order::BeginBackup, _) => {
                self.end(stores).await;
                store.control(Control::PinSnapshot).await
            }
            (Order::ReadBackup { offset, len }, Some((group, file))) => {
                stores.of(group).control(Control::ReadPinned { file, offset, len }).await
            }
            (Order::ReadBackup { .. } | Order::EndBackup, None) => {
                return answer::error(out, "ERR no backup was begun on this connection");
            }
            (Order::EndBackup, Some(_)) => {
                self.end(stores).await;
                return answer::simple(out, "OK");
            }
        };
        match outcome {
            Ok(Outcome::Done(at)) => answer::simple(out, &at.to_string()),
            Ok(Outcome::Pinned(file, bytes)) => {
                self.file = Some((group, file));
                answer::array(out, 2);
                answer::bulk(out, file.name().as_bytes());
                answer::integer(out, i64::try_from(bytes).unwrap_or(i64::MAX));
            }
            Ok(Outcome::Read(bytes)) => answer::bulk(out, &bytes),
            Ok(Outcome::Refused(refusal)) => fail(out, &Failure::Refused(refusal), asked),
            Ok(Outcome::Unknown) => fail(out, &Failure::Unknown, asked),
            Err(failure) => fail(out, &failure, asked),
        }
    }

    /// What was kept is given back. It may have been before: for want of reads, or with the node.
    pub(crate) async fn end(&mut self, stores: &Stores<impl Store>) {
        if let Some((group, file)) = self.file.take() {
            drop(stores.of(group).control(Control::Unpin { file }).await);
        }
    }
}

/// Asks for a change of members, unless it would have two of them at one address.
async fn change(
    store: &impl Store,
    steps: Vec<Change>,
) -> Result<Result<Outcome, Failure>, String> {
    let status = match store.status().await {
        Ok(status) => status,
        Err(failure) => return Ok(Err(failure)),
    };
    match taken(&status.members, &steps) {
        Some((has, wants)) => {
            Err(format!("ERR node {has} has the address that node {wants} is given"))
        }
        None => Ok(store.control(Control::Change(steps)).await),
    }
}

fn fail(out: &mut Vec<u8>, failure: &Failure, asked: Asked) {
    let reply = match (failure, asked) {
        (Failure::Unknown, Asked::Write) => {
            "UNKNOWN it may have come about, or may yet: look with INFO before trying again".into()
        }
        // What reads are told is that writes go on where there is room.
        (Failure::Refused(Refusal::DiskFull), Asked::Read) => {
            "DISKFULL no room on this node's disk for a snapshot: make room, or ask another node"
                .into()
        }
        (failure, asked) => failure.reply(asked),
    };
    answer::error(out, &reply);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_one_or_more_steps_and_nothing_else() {
        let words = |text: &'static str| {
            let words: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
            steps(&words)
        };
        let address = Bytes::from_static(b"Host:8404");
        let member = Member { id: NodeId(4), incarnation: 0, address };
        let both = vec![Change::Promote(NodeId(4)), Change::Remove(NodeId(2))];
        assert_eq!(words("add 4 Host:8404"), Ok(vec![Change::AddLearner(member)]));
        assert_eq!(words("promote 4 remove 2"), Ok(both));
        assert_eq!(steps(&[]), Err(WrongOrder::NoSteps));
        for (given, wrong, says) in [
            ("", WrongOrder::Step(b""), "no step '', there are ADD id address, PROMOTE id, "),
            ("add 4", WrongOrder::NoAddress(b"add"), "add takes an address behind a node's id"),
            ("promote", WrongOrder::NoId(b"promote"), "promote takes a node's id"),
            ("PROMOTE x", WrongOrder::Id(b"PROMOTE", b"x"), "PROMOTE 'x': a node's id is a whole"),
            ("add 0 h:1", WrongOrder::Id(b"add", b"0"), "add '0': a node's id is a whole number"),
            ("promote 4 5", WrongOrder::Step(b"5"), "no step '5', there are"),
            ("do 4", WrongOrder::Step(b"do"), "no step 'do', there are"),
        ] {
            assert_eq!(words(given), Err(wrong), "{given}");
            let told = wrong.to_string();
            assert!(told.starts_with("ERR ") && told.contains(says), "{given}: {told}");
        }
    }

    /// Any bytes were one: INFO had a line more, and a member that nobody had added.
    #[test]
    fn an_address_is_one_before_it_is_kept() {
        let given = |verb, address| steps(&[verb, b"3", address]);
        let long = [&b"h".repeat(64)[..], b":1"].concat();
        for verb in [&b"ADD"[..], b"MOVE"] {
            for (address, wrong) in [
                (&b"127.0.0.1:7870\r\nrole:king,5@x:1"[..], WrongAddress::Form),
                (b"a,b:1", WrongAddress::Form),
                (b"a\xff:1", WrongAddress::Form),
                (b"host", WrongAddress::Form),
                (b"host:0", WrongAddress::PortZero),
                (&long, WrongAddress::TooLong),
            ] {
                let refused = Err(WrongOrder::Address(wrong));
                assert_eq!(given(verb, address), refused, "{}", address.escape_ascii());
            }
            assert!(given(verb, b"[::1]:7870").is_ok());
        }
    }

    #[test]
    fn an_address_is_of_one_member_at_a_time() {
        let member = |id, address: &str| {
            let address = Bytes::copy_from_slice(address.as_bytes());
            Member { id: NodeId(id), incarnation: 0, address }
        };
        let members = Membership::of([member(1, "a:1"), member(2, "b:1"), member(3, "c:1")]);
        let add = |id, address| Change::AddLearner(member(id, address));
        let moves = |id, address| Change::Address(member(id, address));
        let found = |steps: &[Change]| taken(&members, steps).map(|(has, wants)| (has.0, wants.0));
        assert_eq!(found(&[add(4, "d:1")]), None);
        assert_eq!(found(&[add(4, "b:1")]), None, "where a dead one was");
        assert_eq!(found(&[moves(3, "a:1")]), Some((1, 3)));
        assert_eq!(found(&[moves(3, "c:1")]), None, "it is its own");
        assert_eq!(found(&[add(4, "d:1"), moves(3, "d:1")]), Some((4, 3)));
        assert_eq!(found(&[moves(1, "b:1"), moves(2, "a:1")]), None, "they change places");
        assert_eq!(found(&[moves(3, "b:1"), Change::Remove(NodeId(2))]), Some((2, 3)));
        assert_eq!(found(&[Change::Remove(NodeId(2))]), None);
    }

    #[test]
    fn failures_say_what_to_do() {
        let reply = |refusal| {
            let mut out = Vec::new();
            fail(&mut out, &Failure::Refused(refusal), Asked::Read);
            String::from_utf8(out).unwrap()
        };
        assert!(reply(Refusal::DiskFull).contains("ask another node"));
        assert!(reply(Refusal::NoSnapshot).starts_with("-ERR nothing was applied yet"));
        assert!(reply(Refusal::NotPinned(File::Segment(1))).contains("begin again"));
        assert!(reply(Refusal::Busy).starts_with("-BUSY "));
    }
}

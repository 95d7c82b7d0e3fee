//! A session ends for a reason, and an answer is forgotten for one (protocol, "Sessions"): it was not used
//! for as long as that takes, by the entries' time, or as many others as there is room for were used since;
//! newer answers took its room.
//!
//! Keeps books of its own, from what the log holds and the reference answers. Knows no more of the table
//! than its limits.

use super::{Checked, Violation};
use lakebed::{
    Timestamp,
    session::{Limits, Reply, Request, SessionError, SessionId},
};
use std::{collections::BTreeMap, time::Duration};

#[derive(Clone, Debug, Default)]
pub(super) struct Sessions {
    /// What machines keep; nothing is asked of sessions before this is known.
    limits: Option<Limits>,
    by_number: BTreeMap<u64, Session>,
    /// The greatest time so far.
    time: Timestamp,
    uses: u64,
}

#[derive(Clone, Debug)]
struct Session {
    opened: Timestamp,
    /// Its last use: which of all uses, and when.
    used: u64,
    time: Timestamp,
    sequence: u64,
    /// How long the answer to each of its commands was.
    answers: Vec<usize>,
    has_ended: bool,
}

impl Session {
    /// How many answers are kept: the newest, as many as are allowed and fit.
    fn kept(&self, limits: &Limits) -> usize {
        let newest = self.answers.iter().rev().take(limits.answers_max as usize);
        let sums = newest.scan(0, |sum, len| {
            *sum += len;
            Some(*sum)
        });
        sums.take_while(|sum| *sum <= limits.answer_bytes_max as usize).count()
    }
}

impl Sessions {
    pub(super) fn new(limits: Option<Limits>) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Everything was lost, and begins anew.
    pub(super) fn forget(&mut self) {
        *self = Self::new(self.limits);
    }

    /// The reference was given a command, and answered like this.
    pub(super) fn on_answer(
        &mut self,
        node: usize,
        time: Timestamp,
        command: &[u8],
        answer: &[u8],
    ) -> Checked {
        let Ok(request) = Request::parse(command) else { return Ok(()) };
        self.on_reply(node, time, request, Reply::parse(answer))
    }

    fn on_reply(
        &mut self,
        node: usize,
        time: Timestamp,
        request: Request<'_>,
        reply: Result<Reply<'_>, SessionError>,
    ) -> Checked {
        let Some(limits) = self.limits else { return Ok(()) };
        self.time = self.time.max(match request {
            Request::Plain(_) => Timestamp(0),
            _ => time,
        });
        let wrong = match (request, reply) {
            (Request::Open, Ok(Reply::Opened(id))) => {
                self.open(id);
                None
            }
            (Request::Run { session, sequence, .. }, reply) => {
                self.run(session, sequence, &reply, &limits)
            }
            _ => None,
        };
        let Some(what) = wrong else { return Ok(()) };
        Err(Violation::new("sessions end for a reason", node, what))
    }

    fn open(&mut self, id: SessionId) {
        self.uses += 1;
        let (used, time) = (self.uses, self.time);
        let answers = Vec::new();
        let session =
            Session { opened: id.opened, used, time, sequence: 0, answers, has_ended: false };
        self.by_number.insert(id.number, session);
    }

    /// What is wrong with the reply to a command of a session.
    fn run(
        &mut self,
        id: SessionId,
        sequence: u64,
        reply: &Result<Reply<'_>, SessionError>,
        limits: &Limits,
    ) -> Option<String> {
        let used = self.by_number.get(&id.number)?.used;
        let others = self.by_number.values().filter(|other| other.used > used).count();
        let (time, most) = (self.time, limits.sessions_max as usize);
        let session = self.by_number.get_mut(&id.number).filter(|s| s.opened == id.opened)?;
        let unused = Duration::from_nanos(time.0.saturating_sub(session.time.0));
        let is_expired = unused >= limits.unused_max;
        if *reply == Err(SessionError::Expired) {
            let may_end = session.has_ended || is_expired || others >= most;
            session.has_ended = true;
            return (!may_end).then(|| {
                format!("{id} has ended, used {unused:?} ago and by {others} others since")
            });
        }
        if session.has_ended || is_expired {
            return Some(format!("{id} goes on, and had ended, not used for {unused:?}"));
        }
        self.uses += 1;
        (session.used, session.time) = (self.uses, time);
        match reply {
            Ok(Reply::Done { answer, again: false }) => {
                session.sequence += 1;
                session.answers.push(answer.len());
                None
            }
            Err(SessionError::TooOld { .. }) => {
                let behind = session.sequence.checked_sub(sequence);
                let kept = session.kept(limits) as u64;
                let is_kept = behind.is_none_or(|behind| behind < kept);
                is_kept.then(|| {
                    format!("{id} says of {sequence} that it is too old, and keeps {kept} answers")
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(sequence: u64) -> Request<'static> {
        let session = SessionId { number: 1, opened: Timestamp(1) };
        Request::Run { session, sequence, command: b"" }
    }

    fn done(answer: &[u8]) -> Result<Reply<'_>, SessionError> {
        Ok(Reply::Done { answer, again: false })
    }

    /// Books with one session, of two that there is room for, and with one command.
    fn books() -> Sessions {
        let unused_max = Duration::from_nanos(100);
        let limits = Limits { sessions_max: 2, answers_max: 2, answer_bytes_max: 8, unused_max };
        let mut books = Sessions::new(Some(limits));
        books.open(SessionId { number: 1, opened: Timestamp(1) });
        books.on_reply(0, Timestamp(2), run(1), done(&[7; 6])).unwrap();
        books
    }

    #[test]
    fn a_session_ends_when_others_took_its_place_or_its_time_is_over() {
        let at = |books: &mut Sessions, time| {
            books.on_reply(0, Timestamp(time), run(2), Err(SessionError::Expired))
        };
        assert!(at(&mut books(), 101).is_err() && at(&mut books(), 102).is_ok());
        let mut crowded = books();
        crowded.open(SessionId { number: 2, opened: Timestamp(3) });
        assert!(at(&mut crowded.clone(), 4).is_err());
        crowded.open(SessionId { number: 3, opened: Timestamp(3) });
        assert!(at(&mut crowded, 4).is_ok() && at(&mut crowded, 4).is_ok());
    }

    #[test]
    fn an_answer_is_forgotten_when_others_took_its_room() {
        let mut books = books();
        let is_old = |books: &mut Sessions, sequence| {
            books.on_reply(0, Timestamp(3), run(sequence), Err(SessionError::TooOld { last: 1 }))
        };
        assert!(is_old(&mut books, 1).is_err());
        books.on_reply(0, Timestamp(3), run(2), done(&[7; 3])).unwrap();
        assert!(is_old(&mut books, 1).is_ok() && is_old(&mut books, 2).is_err());
    }
}

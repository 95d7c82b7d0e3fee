//! The table of sessions: who has come how far, and what they were answered.
//!
//! Knows no machine and no bytes of commands. Invariant: it follows from the requests and their
//! entries' times alone; sessions in the order of their last use are sessions in the order of
//! their expiry.

use super::{SessionError, SessionId};
use crate::{Mark, Marks, Timestamp};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

/// The most answers that any [`Limits`] keep for a session.
pub const ANSWERS_MAX: u32 = 1024;
/// The most bytes of answers that any [`Limits`] keep for a session.
pub const ANSWER_BYTES_MAX: u32 = 1 << 20;
/// How many expired sessions are removed when one is opened, so that no command removes them all.
const REAPED_MAX: usize = 8;

/// What sessions may cost. All of it together: `sessions_max` times `answer_bytes_max`, and about
/// 200 bytes for each session and 100 for each answer that it keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The most sessions; one more ends the one that was not used for the longest.
    pub sessions_max: u32,
    /// The most answers kept for a session: so many of its commands may be sent again. 1 to
    /// [`ANSWERS_MAX`].
    pub answers_max: u32,
    /// The most bytes of answers kept for a session, up to [`ANSWER_BYTES_MAX`]. An answer that is
    /// longer is given once; to a retry, [`SessionError::TooOld`].
    pub answer_bytes_max: u32,
    /// How long a session lasts after its last use, by the entries' time.
    pub unused_max: Duration,
}

impl Default for Limits {
    /// 4096 sessions of 16 answers or 16 KiB, for an hour: 64 MiB at most.
    fn default() -> Self {
        Self {
            sessions_max: 4096,
            answers_max: 16,
            answer_bytes_max: 16 << 10,
            unused_max: Duration::from_secs(3600),
        }
    }
}

impl Limits {
    pub(super) fn assert_meant(&self) {
        let Self { sessions_max, answers_max, answer_bytes_max, unused_max } = *self;
        assert!(sessions_max > 0, "a machine with sessions has room for one");
        assert!((1..=ANSWERS_MAX).contains(&answers_max), "{answers_max} answers of a session");
        assert!(answer_bytes_max <= ANSWER_BYTES_MAX, "{answer_bytes_max} bytes of answers");
        assert!(!unused_max.is_zero(), "a session lasts for a while");
    }
}

/// One session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Session {
    /// The time of the entry that opened it.
    pub(super) opened: Timestamp,
    /// The stamp of its last use.
    pub(super) used: u64,
    /// The time of the entry that used it last.
    pub(super) time: Timestamp,
    /// The last command that was applied.
    pub(super) sequence: u64,
    /// What the last ones were answered, up to `sequence`.
    pub(super) answers: VecDeque<Bytes>,
}

impl Session {
    fn bytes(&self) -> usize {
        self.answers.iter().map(Bytes::len).sum()
    }

    /// What a command was answered that is not beyond the last one.
    fn answer(&self, sequence: u64) -> Option<Bytes> {
        let since = usize::try_from(self.sequence - sequence).ok()?;
        let at = self.answers.len().checked_sub(since + 1)?;
        self.answers.get(at).cloned()
    }

    /// Keeps the newest answer, and of the older ones what there is room for beside it.
    fn keep(&mut self, answer: &[u8], limits: &Limits) {
        self.answers.push_back(Bytes::copy_from_slice(answer));
        let mut bytes = self.bytes();
        while self.answers.len() > limits.answers_max as usize
            || bytes > limits.answer_bytes_max as usize
        {
            bytes -= self.answers.pop_front().map_or(0, |answer| answer.len());
        }
    }
}

/// What becomes of a command that has its turn.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Admission {
    /// It is to be applied, and its answer to be kept.
    First,
    /// It was.
    Again(Bytes),
}

/// All sessions.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) limits: Limits,
    /// By number. Shared with views, so that a capture copies no answers.
    pub(super) sessions: BTreeMap<u64, Arc<Session>>,
    /// The number of each by the stamp of its last use.
    by_use: BTreeMap<u64, u64>,
    /// How many were ever opened: the last one's number.
    pub(super) opened: u64,
    /// Uses of any session so far: the last stamp.
    pub(super) uses: u64,
    /// The latest time of a request: what expires is never alive again, whatever entries say.
    pub(super) time: Timestamp,
    /// What this node's machine has met; no part of the state.
    pub(super) marks: Marks,
}

impl Table {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            sessions: BTreeMap::new(),
            by_use: BTreeMap::new(),
            opened: 0,
            uses: 0,
            time: Timestamp(0),
            marks: Marks::default(),
        }
    }

    /// Forgets all of it; what this machine has met, it has.
    pub(super) fn clear(&mut self) {
        *self = Self { marks: self.marks, ..Self::new(self.limits) };
    }

    pub(super) fn len(&self) -> usize {
        self.sessions.len()
    }

    /// A new session, for which another one may have to end.
    pub(super) fn open(&mut self, time: Timestamp) -> SessionId {
        let time = self.reach(time);
        self.reap(time);
        while self.len() >= self.limits.sessions_max as usize {
            self.marks.set(Mark::SessionEvicted);
            self.remove_first();
        }
        (self.opened, self.uses) = (self.opened + 1, self.uses + 1);
        let (number, used) = (self.opened, self.uses);
        let session = Session { opened: time, used, time, sequence: 0, answers: VecDeque::new() };
        self.insert(number, session);
        SessionId { number, opened: time }
    }

    /// Takes in a session, from a request or a snapshot; false: its stamp is another's.
    pub(super) fn insert(&mut self, number: u64, session: Session) -> bool {
        let is_only = self.by_use.insert(session.used, number).is_none();
        self.sessions.insert(number, Arc::new(session));
        is_only
    }

    /// What becomes of a session's command; one that is to be applied counts as applied.
    pub(super) fn admit(
        &mut self,
        id: SessionId,
        sequence: u64,
        time: Timestamp,
    ) -> Result<Admission, SessionError> {
        let time = self.reach(time);
        self.check(id, time)?;
        let session = self.touch(id.number, time);
        let last = session.sequence;
        let is_retry = sequence <= last;
        if sequence.checked_sub(1) == Some(last)
            || is_retry && cfg!(lakebed_break = "apply_retries")
        {
            session.sequence = last.max(sequence);
            return Ok(Admission::First);
        }
        let (admission, mark) = if !is_retry {
            (Err(SessionError::OutOfOrder { expected: last + 1 }), Mark::SessionOutOfOrder)
        } else {
            match session.answer(sequence) {
                Some(answer) => (Ok(Admission::Again(answer)), Mark::SessionRetryAnswered),
                None => (Err(SessionError::TooOld { last }), Mark::SessionAnswerForgotten),
            }
        };
        self.marks.set(mark);
        admission
    }

    /// Keeps what the command was answered that has just been admitted.
    pub(super) fn keep(&mut self, id: SessionId, answer: &[u8]) {
        let limits = self.limits;
        let session = self.sessions.get_mut(&id.number).expect("it was admitted just now");
        Arc::make_mut(session).keep(answer, &limits);
    }

    pub(super) fn close(&mut self, id: SessionId, time: Timestamp) -> Result<(), SessionError> {
        let time = self.reach(time);
        self.check(id, time)?;
        self.remove(id.number);
        Ok(())
    }

    /// The table's time, at a request of this time.
    fn reach(&mut self, time: Timestamp) -> Timestamp {
        self.time = self.time.max(time);
        self.time
    }

    /// Whether the session is there, at this time.
    fn check(&mut self, id: SessionId, time: Timestamp) -> Result<(), SessionError> {
        match self.sessions.get(&id.number) {
            Some(session) if session.opened != id.opened => Err(SessionError::Unknown),
            Some(session) if self.is_expired(session, time) => {
                self.marks.set(Mark::SessionExpired);
                self.remove(id.number);
                Err(SessionError::Expired)
            }
            Some(_) => Ok(()),
            None if (1..=self.opened).contains(&id.number) => Err(SessionError::Expired),
            None => Err(SessionError::Unknown),
        }
    }

    fn is_expired(&self, session: &Session, time: Timestamp) -> bool {
        Duration::from_nanos(time.0.saturating_sub(session.time.0)) >= self.limits.unused_max
    }

    fn touch(&mut self, number: u64, time: Timestamp) -> &mut Session {
        self.uses += 1;
        let session = self.sessions.get_mut(&number).expect("it was looked for");
        let session = Arc::make_mut(session);
        self.by_use.remove(&session.used);
        self.by_use.insert(self.uses, number);
        (session.used, session.time) = (self.uses, time);
        session
    }

    fn reap(&mut self, time: Timestamp) {
        for _ in 0..REAPED_MAX {
            let Some(number) = self.by_use.first_key_value().map(|(_, number)| *number) else {
                return;
            };
            if !self.is_expired(&self.sessions[&number], time) {
                return;
            }
            self.marks.set(Mark::SessionExpired);
            self.remove(number);
        }
    }

    fn remove_first(&mut self) {
        if let Some((_, number)) = self.by_use.pop_first() {
            self.sessions.remove(&number);
        }
    }

    fn remove(&mut self, number: u64) {
        if let Some(session) = self.sessions.remove(&number) {
            self.by_use.remove(&session.used);
        }
    }
}

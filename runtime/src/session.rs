//! Commands that are applied once, whatever becomes of their answers: a session as its program
//! holds it (`lakebed::session`, the machine's half).
//!
//! Knows no engine: it proposes through handles, again and again. Invariant: a command keeps its
//! number until its end is known, and no other one gets it.

use crate::handle::{Failure, Handle};
use bytes::Bytes;
use lakebed::{
    Refusal,
    session::{Reply, Request, SessionError, SessionId},
};
use std::{fmt, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// How long one try may take: a node that stands still says nothing.
const TRY_MAX: Duration = Duration::from_secs(2);
/// The shortest pause between two tries, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));
/// How long to try, unless something else is said.
const PATIENCE: Duration = Duration::from_secs(30);

/// A session with a machine that has them ([`lakebed::Sessions`]), through one node of this
/// process or several, any of which will do. One command at a time; needs a tokio runtime with a
/// timer.
///
/// A call whose future is dropped withdraws nothing: what it began keeps its number, and the next
/// call finishes it first.
#[derive(Debug)]
pub struct Session {
    nodes: Nodes,
    id: SessionId,
    /// The last command whose end is known.
    sequence: u64,
    /// The next one, once it was sent.
    open: Option<Open>,
}

/// A command whose end is not known.
#[derive(Debug)]
struct Open {
    command: Vec<u8>,
    doubt: Doubt,
}

/// Whether a try that is over may yet be applied. A later refusal says nothing of an earlier try, in
/// this call or in one before it, and a try that was dropped has not ended.
#[derive(Clone, Copy, Debug, Default)]
struct Doubt(bool);

/// Who is asked.
#[derive(Debug)]
struct Nodes {
    handles: Vec<Handle>,
    /// The one that is asked next.
    at: usize,
    patience: Duration,
}

impl Session {
    /// Opens one. Tries for 30 s, at each of the nodes in turn.
    ///
    /// # Panics
    /// Without a node.
    pub async fn open(handles: impl IntoIterator<Item = Handle>) -> Result<Self, SessionFailure> {
        let handles: Vec<_> = handles.into_iter().collect();
        assert!(!handles.is_empty(), "a session goes through a node");
        let mut nodes = Nodes { handles, at: 0, patience: PATIENCE };
        let answer = nodes.insist(&encoded(Request::Open), &mut Doubt::default()).await?;
        match Reply::parse(&answer)? {
            Reply::Opened(id) => Ok(Self { nodes, id, sequence: 0, open: None }),
            _ => Err(SessionFailure::Session(SessionError::NoReply)),
        }
    }

    /// The same; each call tries for this long.
    #[must_use]
    pub fn within(mut self, patience: Duration) -> Self {
        self.nodes.patience = patience;
        self
    }

    /// Its name.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// How many of its commands have ended: applied, with an answer or without.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Replicates a command that is applied once, and resolves with its answer. It is sent again,
    /// to each node in turn, until it is answered. Finishes first what an earlier call left open, whose
    /// answer nobody hears then; if that is not answered this one is not sent
    /// ([`SessionFailure::Earlier`]).
    pub async fn propose_one(&mut self, command: &[u8]) -> Result<Bytes, SessionFailure> {
        if self.open.is_some()
            && let Err(SessionFailure::Unanswered(failure)) = self.finish().await
        {
            return Err(SessionFailure::Earlier(failure));
        }
        self.open = Some(Open { command: command.to_vec(), doubt: Doubt::default() });
        self.finish().await
    }

    /// Sends again what an earlier call left open, because of [`SessionFailure::Unanswered`] or
    /// because it was dropped. `None`: there is nothing.
    pub async fn retry(&mut self) -> Option<Result<Bytes, SessionFailure>> {
        self.open.as_ref()?;
        Some(self.finish().await)
    }

    /// Ends the session, so that the machine need not keep it until it expires.
    pub async fn close(mut self) -> Result<(), SessionFailure> {
        let request = encoded(Request::Close(self.id));
        let answer = self.nodes.insist(&request, &mut Doubt::default()).await?;
        match Reply::parse(&answer) {
            // A retry finds it gone.
            Ok(Reply::Closed) | Err(SessionError::Expired) => Ok(()),
            Ok(_) => Err(SessionFailure::Session(SessionError::NoReply)),
            Err(error) => Err(error.into()),
        }
    }

    async fn finish(&mut self) -> Result<Bytes, SessionFailure> {
        let Open { command, doubt } = self.open.as_mut().expect("there is something to finish");
        let (session, sequence) = (self.id, self.sequence + 1);
        let request = encoded(Request::Run { session, sequence, command });
        let answer = match self.nodes.insist(&request, doubt).await {
            Ok(answer) => answer,
            Err(failure) => {
                // Certainly not applied, now or later: the number is free.
                self.open.take_if(|_| matches!(failure, SessionFailure::Refused(_)));
                return Err(failure);
            }
        };
        let ended = match Reply::parse(&answer) {
            Ok(Reply::Done { answer: of, .. }) => Ok(answer.slice_ref(of)),
            Ok(_) => Err(SessionError::NoReply),
            Err(error) => Err(error),
        };
        let is_applied = matches!(ended, Ok(_) | Err(SessionError::TooOld { .. }));
        self.sequence += u64::from(is_applied);
        self.open = None;
        ended.map_err(SessionFailure::from)
    }
}

impl Nodes {
    /// Proposes the same until it is answered.
    async fn insist(&mut self, command: &[u8], doubt: &mut Doubt) -> Result<Bytes, SessionFailure> {
        let begun = Instant::now();
        let mut pause = PAUSES.0;
        loop {
            let before = std::mem::replace(doubt, Doubt(true));
            let reply = self.handles[self.at].propose_one(command);
            let failure = match timeout(TRY_MAX, reply).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Unknown,
            };
            if failure != Failure::Unknown {
                *doubt = before;
            }
            match failure {
                Failure::Refused(refusal) if !passes(&refusal) && !doubt.0 => {
                    return Err(SessionFailure::Refused(refusal));
                }
                failure if begun.elapsed() + pause >= self.patience => {
                    return Err(SessionFailure::Unanswered(failure));
                }
                _ => {}
            }
            self.at = (self.at + 1) % self.handles.len();
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}

/// Whether it may be otherwise a moment later, or on another node.
const fn passes(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::NotLeader { .. }
            | Refusal::Busy
            | Refusal::NotReady
            | Refusal::DiskFull
            | Refusal::Transferring
            | Refusal::Stopping
    )
}

fn encoded(request: Request<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    request.encode(&mut bytes);
    bytes
}

/// Why a session's command has no answer.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum SessionFailure {
    /// No node answered in time, the last one for this reason. The command may be applied, or not;
    /// it is applied once, by [`Session::retry`] or before the session's next command.
    Unanswered(Failure),
    /// The command before it is still not answered, the last time for this reason, so that this one was
    /// not sent. [`Session::retry`] is about the one before.
    Earlier(Failure),
    /// It is certainly not applied, and would be refused again.
    Refused(Refusal),
    /// The machine says why it has no answer.
    Session(SessionError),
}

impl From<SessionError> for SessionFailure {
    fn from(error: SessionError) -> Self {
        Self::Session(error)
    }
}

impl fmt::Display for SessionFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unanswered(failure) => write!(f, "not answered in time, at last: {failure}"),
            Self::Earlier(failure) => {
                write!(f, "not sent, as the command before it is not answered, at last: {failure}")
            }
            Self::Refused(refusal) => write!(f, "refused: {refusal}"),
            Self::Session(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for SessionFailure {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::{self, Inbox, Waiter};
    use futures::{FutureExt as _, task::noop_waker};
    use lakebed::Timestamp;
    use std::{future::Future, pin::pin, sync::Arc};

    const ID: SessionId = SessionId { number: 1, opened: Timestamp(1) };

    fn session() -> (Arc<Inbox>, Session) {
        let inbox = Arc::new(Inbox::new(1 << 20));
        let handles = vec![Handle::new(Arc::clone(&inbox))];
        let nodes = Nodes { handles, at: 0, patience: Duration::ZERO };
        (inbox, Session { nodes, id: ID, sequence: 0, open: None })
    }

    /// The bytes of what was proposed, which ends so.
    fn end(inbox: &Inbox, with: Result<Bytes, Failure>) -> Bytes {
        let mut taken = Vec::new();
        inbox.poll(&noop_waker(), &mut taken);
        let Some(inbox::Request::Propose { batch, waiter: Waiter::One(reply) }) = taken.pop()
        else {
            panic!("one command was proposed");
        };
        drop(reply.send(with));
        Bytes::copy_from_slice(batch.body())
    }

    /// What it comes to when its only try ends so, and what was proposed.
    async fn ends<T>(inbox: &Inbox, call: impl Future<Output = T>, with: Failure) -> (T, Bytes) {
        let mut call = pin!(call);
        assert!(call.as_mut().now_or_never().is_none());
        let proposed = end(inbox, Err(with));
        (call.await, proposed)
    }

    /// The end of that time was computed, and there is none.
    #[tokio::test]
    async fn whoever_tries_for_ever_tries_again() {
        let (inbox, session) = session();
        let mut session = session.within(Duration::MAX);
        let mut call = pin!(session.propose_one(b"x"));
        assert!(call.as_mut().now_or_never().is_none());
        drop(end(&inbox, Err(Failure::Unknown)));
        assert!(call.now_or_never().is_none(), "it is sent again");
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_be_otherwise_a_moment_later_is_tried_again() {
        for refusal in [
            Refusal::NotLeader { hint: None },
            Refusal::Busy,
            Refusal::NotReady,
            Refusal::DiskFull,
            Refusal::Transferring,
            Refusal::Stopping,
        ] {
            let (inbox, session) = session();
            let mut session = session.within(Duration::MAX);
            let mut call = pin!(session.propose_one(b"x"));
            assert!(call.as_mut().now_or_never().is_none());
            let first = end(&inbox, Err(Failure::Refused(refusal.clone())));
            assert!(timeout(PAUSES.1, call.as_mut()).await.is_err(), "{refusal}");
            assert_eq!(end(&inbox, Err(Failure::Refused(Refusal::TooLarge))), first);
            assert_eq!(call.await, Err(SessionFailure::Refused(Refusal::TooLarge)));
        }
    }

    /// A try whose end nobody knows may be applied after a later one was refused: were the number free
    /// then, another command got the answer to this one.
    #[tokio::test]
    async fn a_refusal_frees_no_number_that_an_earlier_call_has_sent() {
        let too_large = || Failure::Refused(Refusal::TooLarge);
        let (inbox, mut session) = session();
        let (ended, first) = ends(&inbox, session.propose_one(b"x"), Failure::Unknown).await;
        assert_eq!(ended, Err(SessionFailure::Unanswered(Failure::Unknown)));
        for _ in 0..2 {
            let (ended, again) = ends(&inbox, session.retry(), too_large()).await;
            assert_eq!(ended, Some(Err(SessionFailure::Unanswered(too_large()))));
            assert_eq!(again, first, "the same under the same number");
        }
        // The next one waits for it, and is not taken for it: it was told of as its own end.
        let (ended, again) = ends(&inbox, session.propose_one(b"y"), too_large()).await;
        assert_eq!(again, first);
        assert_eq!(ended, Err(SessionFailure::Earlier(too_large())));
    }

    /// That the answer to the one before is gone was told as the end of the next one, which was not sent.
    #[tokio::test]
    async fn what_became_of_a_command_is_not_told_of_the_next_one() {
        let (inbox, mut session) = session();
        let (_, first) = ends(&inbox, session.propose_one(b"x"), Failure::Unknown).await;
        let mut call = pin!(session.propose_one(b"y"));
        assert!(call.as_mut().now_or_never().is_none());
        let gone = |kind| [kind, 1, 0, 0, 0, 0, 0, 0, 0];
        let is_gone = |kind: &u8| {
            Reply::parse(&gone(*kind)).is_err_and(|why| why == SessionError::TooOld { last: 1 })
        };
        let reply = gone((0..=u8::MAX).find(is_gone).expect("machines say so"));
        assert_eq!(end(&inbox, Ok(Bytes::copy_from_slice(&reply))), first);
        assert!(call.as_mut().now_or_never().is_none(), "the next one is on its way");
        assert_ne!(end(&inbox, Err(Failure::Refused(Refusal::TooLarge))), first);
        assert_eq!(call.await, Err(SessionFailure::Refused(Refusal::TooLarge)));
    }

    /// A call that is dropped has sent something, and does not hear what became of it.
    #[tokio::test]
    async fn a_refusal_frees_no_number_that_a_dropped_call_has_sent() {
        let too_large = || Failure::Refused(Refusal::TooLarge);
        let (inbox, mut session) = session();
        assert!(session.propose_one(b"x").now_or_never().is_none());
        let first = end(&inbox, Err(Failure::Unknown));
        let (ended, again) = ends(&inbox, session.retry(), too_large()).await;
        assert_eq!(ended, Some(Err(SessionFailure::Unanswered(too_large()))));
        assert_eq!(again, first);
    }

    /// What a machine with sessions answers that this is what is made of.
    fn reply(rest: &[u8], is_it: impl Fn(Result<Reply<'_>, SessionError>) -> bool) -> Bytes {
        let replies = (0..=u8::MAX).map(|kind| [&[kind], rest].concat());
        replies
            .into_iter()
            .find(|bytes| is_it(Reply::parse(bytes)))
            .expect("machines say so")
            .into()
    }

    /// The next one would have got its number, and been answered as a retry of it.
    #[tokio::test]
    async fn one_whose_answer_is_gone_was_applied_and_its_number_is_used() {
        let (inbox, mut session) = session();
        drop(ends(&inbox, session.propose_one(b"x"), Failure::Unknown).await);
        let gone = SessionError::TooOld { last: 1 };
        let answer = reply(&1_u64.to_le_bytes(), |parsed| parsed == Err(gone));
        let ended = {
            let mut call = pin!(session.retry());
            assert!(call.as_mut().now_or_never().is_none());
            end(&inbox, Ok(answer));
            call.await
        };
        assert_eq!(ended, Some(Err(SessionFailure::Session(gone))));
        assert_eq!((session.sequence(), session.open.is_none()), (1, true));
    }

    /// A first try closed it, and its answer was lost.
    #[tokio::test]
    async fn a_session_that_is_gone_is_closed() {
        let (inbox, session) = session();
        let mut call = pin!(session.close());
        assert!(call.as_mut().now_or_never().is_none());
        end(&inbox, Ok(reply(&[], |parsed| parsed == Err(SessionError::Expired))));
        assert_eq!(call.await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_answers_the_next_node_is_asked() {
        let (inbox, session) = session();
        let mut session = session.within(Duration::MAX);
        let other = Arc::new(Inbox::new(1 << 20));
        session.nodes.handles.push(Handle::new(Arc::clone(&other)));
        let mut call = pin!(session.propose_one(b"x"));
        let tries = timeout(TRY_MAX + PAUSES.1, call.as_mut()).await;
        assert!(tries.is_err());
        let first = end(&inbox, Err(Failure::Unknown));
        let answer = reply(b"answer", |parsed| matches!(parsed, Ok(Reply::Done { .. })));
        assert_eq!(end(&other, Ok(answer)), first);
        assert_eq!(call.await, Ok(Bytes::from_static(b"answer")));
    }

    #[tokio::test]
    async fn what_was_refused_and_nothing_else_leaves_its_number_to_the_next() {
        let too_large = || Failure::Refused(Refusal::TooLarge);
        let (inbox, mut session) = session();
        let (ended, first) = ends(&inbox, session.propose_one(b"x"), too_large()).await;
        assert_eq!(ended, Err(SessionFailure::Refused(Refusal::TooLarge)));
        assert!(session.retry().now_or_never().is_some_and(|ended| ended.is_none()));
        let (_, next) = ends(&inbox, session.propose_one(b"y"), too_large()).await;
        assert_eq!(next.len(), first.len());
        assert_ne!(next, first);
    }
}

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
    open: Option<Vec<u8>>,
}

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
        let answer = nodes.insist(&encoded(Request::Open)).await?;
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
    /// to each node in turn, until it is answered. Finishes first what an earlier call left open.
    pub async fn propose_one(&mut self, command: &[u8]) -> Result<Bytes, SessionFailure> {
        if self.open.is_some() {
            self.finish().await?;
        }
        self.open = Some(command.to_vec());
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
        let answer = self.nodes.insist(&encoded(Request::Close(self.id))).await?;
        match Reply::parse(&answer) {
            // A retry finds it gone.
            Ok(Reply::Closed) | Err(SessionError::Expired) => Ok(()),
            Ok(_) => Err(SessionFailure::Session(SessionError::NoReply)),
            Err(error) => Err(error.into()),
        }
    }

    async fn finish(&mut self) -> Result<Bytes, SessionFailure> {
        let command = self.open.as_ref().expect("there is something to finish");
        let (session, sequence) = (self.id, self.sequence + 1);
        let request = encoded(Request::Run { session, sequence, command });
        let answer = match self.nodes.insist(&request).await {
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
    async fn insist(&mut self, command: &[u8]) -> Result<Bytes, SessionFailure> {
        let until = Instant::now() + self.patience;
        let (mut pause, mut may_be_applied) = (PAUSES.0, false);
        loop {
            let reply = self.handles[self.at].propose_one(command);
            let failure = match timeout(TRY_MAX, reply).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Unknown,
            };
            may_be_applied |= failure == Failure::Unknown;
            match failure {
                Failure::Refused(refusal) if !passes(&refusal) && !may_be_applied => {
                    return Err(SessionFailure::Refused(refusal));
                }
                failure if Instant::now() + pause >= until => {
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
            Self::Refused(refusal) => write!(f, "refused: {refusal}"),
            Self::Session(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for SessionFailure {}

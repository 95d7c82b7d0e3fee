//! What a recovery by force does, or did: the end of a lost quorum, told before and after.

use crate::{
    membership::Membership,
    types::{ClusterId, GroupId, LogId, LogIndex, NodeId, Term},
};
use std::{
    fmt::{self, Display, Formatter},
    sync::Arc,
};

/// A node that becomes the only voter of its cluster, by
/// [`Start::ForceSoleVoter`](crate::Start): what it has, and what may be lost.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Forced {
    /// Whether it was done. If not, nothing was written: the loss was not acknowledged.
    pub is_done: bool,
    /// The cluster.
    pub cluster: ClusterId,
    /// The replicated log.
    pub group: GroupId,
    /// The node.
    pub node: NodeId,
    /// The cluster epoch before, and after.
    pub epoch: (u64, u64),
    /// The term before, and after.
    pub term: (Term, Term),
    /// The members before: all but this node are out, for good.
    pub members: Arc<Membership>,
    /// The newest whole snapshot; [`LogId::ZERO`]: none.
    pub snapshot: LogId,
    /// The last entry that is kept.
    pub last: LogId,
    /// Up to here this node knew the log to be committed.
    pub committed: LogIndex,
    /// Up to here this node once had the log durably, or knew it to be committed.
    pub known: LogIndex,
    /// The first entry that goes because it, or what it was, is bad here; what follows goes too.
    pub cut: Option<LogIndex>,
}

impl Forced {
    /// Entries that were there, as this very disk shows, and are lost with this node as the only
    /// one: the first and the last. What others had beyond these nobody can tell.
    #[must_use]
    pub fn known_loss(&self) -> Option<(LogIndex, LogIndex)> {
        (self.known > self.last.index).then(|| (self.last.index.next(), self.known))
    }
}

impl Display for Forced {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { cluster, group, node, last, .. } = self;
        writeln!(f, "node         {node} of cluster {cluster}, group {group}")?;
        writeln!(f, "members      {}", self.members)?;
        writeln!(
            f,
            "has          log up to {} (term {}), snapshot {}, committed at least {}",
            last.index, last.term, self.snapshot.index, self.committed
        )?;
        writeln!(
            f,
            "may be lost  every write behind entry {} of which the others had been told",
            last.index
        )?;
        if let Some((from, to)) = self.known_loss() {
            writeln!(
                f,
                "IS LOST      entries {from} to {to}: this node knows that they were there, and \
                 does not have them"
            )?;
        }
        if let Some(from) = self.cut {
            writeln!(f, "is cut       from entry {from} on: it is bad on this disk")?;
        }
        let [was, becomes] = if self.is_done { ["was", "is"] } else { ["is", "becomes"] };
        write!(
            f,
            "cluster epoch {was} {}, {becomes} {}; node {node} {becomes} the only voter, and no \
             other member of before can come back",
            self.epoch.0, self.epoch.1
        )
    }
}

//! The hard state: what a restart must not forget. Two copies far apart, each of two blocks, so
//! that the newest block of a copy is never overwritten.
//!
//! ```text
//! copy A: block 0 at 0,     block 1 at 64 KiB        a block is 16 KiB
//! copy B: block 0 at 1 MiB, block 1 at 1 MiB + 64 KiB
//! ```

use super::{Fault, FileSeed, open_block, seal_block};
use crate::{
    config::is_align,
    le::{put_u32, put_u64, put_u64s, u32_at, u64_at, u64s_at},
    membership::{CODE_BYTES_MAX, Membership},
    types::{ClusterId, GroupId, Identity, LogId, LogIndex, NodeId, SnapshotId, Term},
};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"LAKEHARD";
/// A block's length.
pub(crate) const BLOCK_BYTES: usize = 16 << 10;
/// The file's length.
pub(crate) const FILE_BYTES: u64 = (1 << 20) + (128 << 10);
/// Where each block of each copy lies.
pub(crate) const OFFSETS: [[u64; 2]; 2] = [[0, 64 << 10], [1 << 20, (1 << 20) + (64 << 10)]];
/// The most peers whose write epochs are remembered.
pub(crate) const PEERS_MAX: usize = 64;

const FILLING_AT: usize = 240;
const ALIGN_AT: usize = 248;
const PEERS_AT: usize = 256;
const MEMBERSHIPS_AT: [usize; 3] = [2048, 6144, 10240];

// A membership of any legal size fits before the next one begins.
const _: () = assert!(MEMBERSHIPS_AT[0] + CODE_BYTES_MAX <= MEMBERSHIPS_AT[1]);
const _: () = assert!(MEMBERSHIPS_AT[2] + CODE_BYTES_MAX <= BLOCK_BYTES);

const CUTTING: u32 = 1;
const INSTALLING: u32 = 2;
const CLEAN: u32 = 4;
const GATED: u32 = 8;
const VOTED: u32 = 16;
const RESTORED: u32 = 32;

/// Where the log begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct First {
    pub(crate) index: LogIndex,
    /// The term of the entry before it.
    pub(crate) prev_term: Term,
    /// The segment that holds it.
    pub(crate) segment: u64,
}

/// The last cut: what lies at `from` or above with a smaller epoch is dead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Cut {
    pub(crate) from: LogIndex,
    pub(crate) epoch: u64,
}

/// The last snapshot that was installed from a peer, or is being.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Install {
    pub(crate) at: LogId,
    pub(crate) id: SnapshotId,
    pub(crate) next_offset: u64,
    pub(crate) membership: Arc<Membership>,
}

/// The vote gate of a node whose tail is unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Gate {
    pub(crate) term: Term,
    pub(crate) from: LogIndex,
    pub(crate) until: LogIndex,
    /// Incarnation and write epoch of the fault.
    pub(crate) nonce: [u64; 2],
}

/// One node's hard state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HardState {
    /// Raised by each update; the highest good one counts.
    pub(crate) number: u64,
    pub(crate) identity: Identity,
    pub(crate) term: Term,
    pub(crate) vote: Option<NodeId>,
    /// min(committed, durable), some time ago.
    pub(crate) commit_hint: LogIndex,
    /// Durable up to here, some time ago.
    pub(crate) durable_hint: LogIndex,
    pub(crate) first: First,
    /// The newest segment in use, named before anything in it is acknowledged; zero: none yet.
    pub(crate) newest_segment: u64,
    /// The highest segment sequence ever announced: sequences are never reused.
    pub(crate) highest_segment: u64,
    /// Raised in the first update of each start and by each cut.
    pub(crate) write_epoch: u64,
    pub(crate) cut: Cut,
    pub(crate) cutting: bool,
    pub(crate) installing: bool,
    pub(crate) clean: bool,
    pub(crate) gated: bool,
    /// Made from a backup, `install` says which, and has not met every other member since.
    pub(crate) restored: bool,
    pub(crate) install: Install,
    pub(crate) gate: Gate,
    pub(crate) newest: Arc<Membership>,
    pub(crate) previous: Arc<Membership>,
    /// The highest write epoch seen of each peer.
    pub(crate) peers: Vec<(NodeId, u64)>,
    pub(crate) feature_level: u32,
    /// The entry that is being written into a hole, and may lie in a cache alone; zero: none.
    pub(crate) filling: LogIndex,
    /// What everything else on the disk is aligned to, in bytes; zero: written before it was told.
    pub(crate) align: u32,
}

impl HardState {
    /// A new node's, before its first update.
    pub(crate) fn new(identity: Identity, members: Arc<Membership>) -> Self {
        Self {
            number: 0,
            identity,
            term: Term(0),
            vote: None,
            commit_hint: LogIndex(0),
            durable_hint: LogIndex(0),
            first: First { index: LogIndex(1), prev_term: Term(0), segment: 1 },
            newest_segment: 0,
            highest_segment: 0,
            write_epoch: 0,
            cut: Cut::default(),
            cutting: false,
            installing: false,
            clean: false,
            gated: false,
            restored: false,
            install: Install::default(),
            gate: Gate::default(),
            newest: members.clone(),
            previous: members,
            peers: Vec::new(),
            feature_level: 0,
            filling: LogIndex(0),
            align: 0,
        }
    }

    fn flags(&self) -> u32 {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        flag(self.cutting, CUTTING)
            | flag(self.installing, INSTALLING)
            | flag(self.clean, CLEAN)
            | flag(self.gated, GATED)
            | flag(self.vote.is_some(), VOTED)
            | flag(self.restored, RESTORED)
    }

    /// Its block. Everything not named here is zero.
    pub(crate) fn encode(&self) -> Vec<u8> {
        assert!(self.peers.len() <= PEERS_MAX, "at most {PEERS_MAX} peers are remembered");
        let mut block = vec![0; BLOCK_BYTES];
        let identity = &self.identity;
        put_u64s(
            &mut block,
            16,
            &[
                self.number,
                identity.cluster.0,
                identity.cluster_epoch,
                identity.group.0,
                identity.node.0,
                identity.incarnation,
                self.term.0,
                self.vote.unwrap_or_default().0,
            ],
        );
        put_u32(&mut block, 80, self.flags());
        put_u32(&mut block, 84, self.feature_level);
        put_u64s(
            &mut block,
            88,
            &[
                self.commit_hint.0,
                self.durable_hint.0,
                self.first.index.0,
                self.first.prev_term.0,
                self.first.segment,
                self.newest_segment,
                self.write_epoch,
                self.cut.from.0,
                self.cut.epoch,
            ],
        );
        let (install, gate) = (&self.install, &self.gate);
        let [incarnation, epoch] = gate.nonce;
        put_u64s(
            &mut block,
            160,
            &[install.at.index.0, install.at.term.0, install.id.0, install.next_offset],
        );
        put_u64s(
            &mut block,
            192,
            &[gate.term.0, gate.from.0, gate.until.0, incarnation, epoch, self.highest_segment],
        );
        put_u64(&mut block, FILLING_AT, self.filling.0);
        put_u64(&mut block, ALIGN_AT, self.align.into());
        put_u64(&mut block, PEERS_AT, self.peers.len() as u64);
        for (n, (peer, epoch)) in self.peers.iter().enumerate() {
            put_u64s(&mut block, PEERS_AT + 8 + 16 * n, &[peer.0, *epoch]);
        }
        for (at, membership) in MEMBERSHIPS_AT.into_iter().zip(self.memberships()) {
            let bytes = membership.encode();
            block[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        seal_block(&mut block, MAGIC, seed(identity.group));
        block
    }

    fn memberships(&self) -> [&Membership; 3] {
        [&self.newest, &self.previous, &self.install.membership]
    }

    /// Whose state a block is, whatever its group.
    pub(crate) fn owner(block: &[u8]) -> Option<Identity> {
        let group = GroupId(u64s_at::<4>(block.get(16..48)?, 0)[3]);
        Self::decode(block, group).ok().map(|hard| hard.identity)
    }

    /// Reads a block of this group.
    pub(crate) fn decode(block: &[u8], group: GroupId) -> Result<Self, Fault> {
        if block.len() != BLOCK_BYTES {
            return Err(Fault::Absent);
        }
        open_block(block, MAGIC, seed(group), BLOCK_BYTES)?;
        Self::fields(block).filter(|hard| hard.identity.group == group).ok_or(Fault::Field)
    }

    fn fields(block: &[u8]) -> Option<Self> {
        let [number, cluster, cluster_epoch, group, node, incarnation, term, vote] =
            u64s_at(block, 16);
        let flags = u32_at(block, 80);
        let [commit, durable, first, prev_term, segment, newest_segment, write_epoch, from, epoch] =
            u64s_at(block, 88);
        let [install_index, install_term, install_id, next_offset] = u64s_at(block, 160);
        let [gate_term, gate_from, gate_until, nonce_incarnation, nonce_epoch, highest_segment] =
            u64s_at(block, 192);
        let membership = |n: usize| Membership::decode(&block[MEMBERSHIPS_AT[n]..]).map(Arc::new);
        if flags >= RESTORED * 2 || number == 0 {
            return None;
        }
        Some(Self {
            number,
            identity: Identity {
                cluster: ClusterId(cluster),
                cluster_epoch,
                group: GroupId(group),
                node: NodeId(node),
                incarnation,
            },
            term: Term(term),
            vote: (flags & VOTED != 0).then_some(NodeId(vote)),
            commit_hint: LogIndex(commit),
            durable_hint: LogIndex(durable),
            first: First { index: LogIndex(first), prev_term: Term(prev_term), segment },
            newest_segment,
            highest_segment,
            write_epoch,
            cut: Cut { from: LogIndex(from), epoch },
            cutting: flags & CUTTING != 0,
            installing: flags & INSTALLING != 0,
            clean: flags & CLEAN != 0,
            gated: flags & GATED != 0,
            restored: flags & RESTORED != 0,
            install: Install {
                at: LogId::new(Term(install_term), LogIndex(install_index)),
                id: SnapshotId(install_id),
                next_offset,
                membership: membership(2)?,
            },
            gate: Gate {
                term: Term(gate_term),
                from: LogIndex(gate_from),
                until: LogIndex(gate_until),
                nonce: [nonce_incarnation, nonce_epoch],
            },
            newest: membership(0)?,
            previous: membership(1)?,
            peers: peers(block)?,
            feature_level: u32_at(block, 84),
            filling: LogIndex(u64_at(block, FILLING_AT)),
            align: align(block)?,
        })
    }
}

fn align(block: &[u8]) -> Option<u32> {
    let align = u32::try_from(u64_at(block, ALIGN_AT)).ok()?;
    (align == 0 || is_align(align)).then_some(align)
}

fn peers(block: &[u8]) -> Option<Vec<(NodeId, u64)>> {
    let count = usize::try_from(u64_at(block, PEERS_AT)).ok().filter(|&n| n <= PEERS_MAX)?;
    let peer = |n| {
        let [node, epoch] = u64s_at(block, PEERS_AT + 8 + 16 * n);
        (NodeId(node), epoch)
    };
    Some((0..count).map(peer).collect())
}

/// The hard state is no numbered file: sequence zero, which no segment has.
fn seed(group: GroupId) -> FileSeed {
    FileSeed::new(group, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::reseal;

    /// One that was made from a backup votes while it has not met all others.
    #[test]
    fn flags_are_read_back_in_any_company_and_strangers_among_them_are_not() {
        let mut hard = HardState::new(Identity::default(), Arc::default());
        hard.number = 1;
        for flags in 0..2 * RESTORED {
            let has = |flag| flags & flag != 0;
            (hard.cutting, hard.installing) = (has(CUTTING), has(INSTALLING));
            (hard.clean, hard.gated, hard.restored) = (has(CLEAN), has(GATED), has(RESTORED));
            hard.vote = has(VOTED).then_some(NodeId(3));
            let mut block = hard.encode();
            assert_eq!(HardState::decode(&block, GroupId(0)).as_ref(), Ok(&hard), "{flags:b}");
            put_u32(&mut block, 80, flags | RESTORED << 1);
            assert!(reseal(&mut block, seed(GroupId(0))));
            assert_eq!(HardState::decode(&block, GroupId(0)), Err(Fault::Field), "{flags:b}");
        }
    }

    /// Elsewhere the commit index was read back in 32 bits, and no node whose log had got that far started again.
    #[test]
    fn numbers_of_more_than_32_bits_are_read_back_whole() {
        let mut many = (1_u64..).map(|n| n << 40 | n);
        let mut next = || many.next().expect("there is no end to them");
        let mut hard = HardState::new(Identity::default(), Arc::default());
        hard.identity = Identity {
            cluster: ClusterId(next()),
            cluster_epoch: next(),
            group: GroupId(next()),
            node: NodeId(next()),
            incarnation: next(),
        };
        let id = |next: &mut dyn FnMut() -> u64| LogId::new(Term(next()), LogIndex(next()));
        (hard.number, hard.term, hard.vote) = (next(), Term(next()), Some(NodeId(next())));
        (hard.commit_hint, hard.durable_hint) = (LogIndex(next()), LogIndex(next()));
        (hard.first.index, hard.first.prev_term) = (LogIndex(next()), Term(next()));
        hard.first.segment = next();
        (hard.newest_segment, hard.highest_segment) = (next(), next());
        (hard.write_epoch, hard.filling) = (next(), LogIndex(next()));
        hard.cut = Cut { from: LogIndex(next()), epoch: next() };
        (hard.install.at, hard.install.id) = (id(&mut next), SnapshotId(next()));
        hard.install.next_offset = next();
        hard.gate = Gate {
            term: Term(next()),
            from: LogIndex(next()),
            until: LogIndex(next()),
            nonce: [next(), next()],
        };
        hard.peers = vec![(NodeId(next()), next())];
        assert_eq!(HardState::decode(&hard.encode(), hard.identity.group), Ok(hard));
    }
}

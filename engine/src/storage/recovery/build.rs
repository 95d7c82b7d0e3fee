//! A new node's hard state, which makes it a node.

use super::{Recovery, RecoveryOp, Stage};
use crate::{
    action::Halt,
    disk::hard_state,
    event::Start,
    file::{DiskRequest, Extent, File},
    membership::Membership,
    storage::{
        look::{self, Look},
        ops::Ops,
    },
    types::{ClusterId, Identity},
};
use bytes::Bytes;
use std::sync::Arc;

impl Recovery {
    /// A new node: its hard state is built aside and gets its name when it is whole, so that a
    /// crash in between leaves nothing at all.
    pub(super) fn build(&mut self, step: u8, ops: &mut Ops) -> Result<(), Halt> {
        let file = File::Spare(0);
        let request = match step {
            0 => DiskRequest::Create { file, len: hard_state::FILE_BYTES, zeroed: true },
            1 => {
                let bytes = Bytes::from(self.new_node()?.encode());
                let extent = |copy: usize| Extent::new(hard_state::OFFSETS[copy][0], bytes.clone());
                DiskRequest::Write { file, at: extent(0), and: Some(extent(1)), durable: false }
            }
            2 => DiskRequest::Sync { file },
            3 => DiskRequest::Rename { from: file, to: File::HardState },
            4 => DiskRequest::SyncDirectory,
            _ => {
                if let Some(backup) = self.restores() {
                    return Err(Halt::Built(backup.at));
                }
                // What was built is read back like any other node's.
                self.start = Start::Run;
                self.stage = Stage::Begin;
                self.look = Look::new(&self.config);
                return Ok(());
            }
        };
        self.stage = Stage::Build(step + 1);
        self.ask(RecoveryOp::Step, request, ops);
        Ok(())
    }

    /// Whoever is not a member of the cluster that it forms would follow nobody for ever, and no hard
    /// state names a member twice, or more of them than it has room for.
    pub(super) fn check_members(&self, members: &Membership) -> Result<(), Halt> {
        let refused = |row, expected: &str| {
            Err(look::refused(row, File::HardState, 0, expected, &members.to_string()))
        };
        if !members.is_encodable() {
            let expected = "at most 32 members with addresses of at most 64 bytes";
            return refused("too-many-members", expected);
        }
        if !members.is_voter(self.config.node) {
            return refused("no-member", &format!("node {} among the voters", self.config.node));
        }
        let mut ids: Vec<_> = members.members().map(|member| member.id).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return refused("member-twice", "each member once");
        }
        Ok(())
    }

    fn new_node(&self) -> Result<hard_state::HardState, Halt> {
        let (cluster, members) = match &self.start {
            Start::Format { cluster, members } | Start::Restore { cluster, members, .. } => {
                (*cluster, members.clone())
            }
            Start::Join { cluster } => (*cluster, Arc::new(Membership::default())),
            _ => unreachable!("only these build a node"),
        };
        if !matches!(self.start, Start::Join { .. }) {
            self.check_members(&members)?;
        }
        let identity = self.new_identity(cluster);
        let met = look::with_incarnation(&members, identity.node, identity.incarnation);
        let mut hard = hard_state::HardState::new(identity, Arc::new(met));
        hard.number = 1;
        self.begin_behind_backup(&mut hard);
        Ok(hard)
    }

    pub(super) fn new_identity(&self, cluster: ClusterId) -> Identity {
        Identity {
            cluster,
            cluster_epoch: 0,
            group: self.config.group,
            node: self.config.node,
            // Zero means "not met yet".
            incarnation: look::draw(self.seed).max(1),
        }
    }
}

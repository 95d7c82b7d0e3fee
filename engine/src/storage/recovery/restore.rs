//! A new node out of a backup: its snapshot first, whole and named, and then its hard state.
//!
//! The hard state is what makes it a node, so a crash before it has its name leaves a directory
//! that no start but another restore takes for anything. The state comes from the machine, as if
//! it were captured, and must turn out to be the backup's to the last byte.

use super::{Parts, Recovery, RecoveryOp, Stage};
use crate::{
    action::Halt,
    backup::Backup,
    disk::{
        hard_state::HardState,
        snapshot::{Header, Origin, block_bytes},
    },
    event::Start,
    file::{DiskRequest, File},
    marks::Mark,
    membership::Membership,
    storage::{install, look, ops::Ops},
    types::{Identity, LogIndex},
};
use std::sync::Arc;

impl Recovery {
    pub(super) fn restores(&self) -> Option<&Backup> {
        match &self.start {
            Start::Restore { backup, .. } => Some(backup),
            _ => None,
        }
    }

    /// Removes what an earlier restore has left, which may have been another backup's.
    pub(super) fn clear(&mut self, ops: &mut Ops) -> Result<(), Halt> {
        self.check_restore()?;
        let left: Vec<File> = self.look.files().collect();
        if left.iter().any(|file| matches!(file, File::Part(..) | File::Snapshot(_))) {
            ops.met(Mark::RestoreRepeated);
        }
        for file in left {
            self.ask(RecoveryOp::Step, DiskRequest::Remove { file }, ops);
        }
        self.stage = Stage::Cleared;
        Ok(())
    }

    /// What the caller can be wrong in.
    fn check_restore(&self) -> Result<(), Halt> {
        let Start::Restore { cluster, members, backup } = &self.start else { return Ok(()) };
        let wrong = |row, expected: &str, found: String| {
            Err(look::refused(row, File::Snapshot(backup.at), 0, expected, &found))
        };
        if backup.cluster == *cluster {
            let expected = "another cluster: members of the old one must never meet those of the \
                            new one";
            return wrong(
                "same-cluster",
                expected,
                format!("a backup of cluster {cluster} itself"),
            );
        }
        if backup.group != self.config.group {
            let expected = format!("a backup of group {}", self.config.group);
            return wrong("foreign", &expected, format!("one of group {}", backup.group));
        }
        self.check_members(members)
    }

    pub(super) fn save(&mut self, parts: &mut Parts<'_>) -> Result<(), Halt> {
        let Start::Restore { cluster, members, backup } = &self.start else {
            unreachable!("only a restore saves")
        };
        let identity = self.new_identity(*cluster);
        let header = self.header(identity, members, backup);
        parts.snapshots.save_backup(header, (backup.bytes, backup.digest), parts.ops);
        self.stage = Stage::Save;
        Ok(())
    }

    fn header(&self, identity: Identity, members: &Membership, backup: &Backup) -> Header {
        Header {
            identity,
            at: backup.at,
            id: backup.id,
            // Like one from a peer: the log begins behind it.
            origin: Origin::Installed,
            block_bytes: block_bytes(self.config.disk_align),
            groups: self.config.groups,
            time: backup.time,
            membership: Arc::new(look::with_incarnation(
                members,
                identity.node,
                identity.incarnation,
            )),
        }
    }

    /// Whether the snapshot is whole and has its name.
    pub(super) fn go_on_saving(&self, parts: &mut Parts<'_>) -> Result<bool, Halt> {
        let Start::Restore { backup, .. } = &self.start else { return Ok(true) };
        // There is no log that would have to reach as far.
        parts.snapshots.go_on_saving(LogIndex(u64::MAX), false, parts.ops);
        let (file, done) = (File::Snapshot(backup.at), parts.snapshots.newest() == backup.at);
        if let Some(error) = parts.snapshots.take_given_up() {
            return Err(Halt::DiskFailed { file, error });
        }
        if !done && parts.snapshots.saving.is_none() {
            let expected =
                format!("{} bytes of state, checksum {:08x}", backup.bytes, backup.digest);
            return Err(look::refused("backup-differs", file, 0, &expected, "another state"));
        }
        Ok(done)
    }

    /// A hard state whose log begins behind the backup.
    pub(super) fn begin_behind_backup(&self, hard: &mut HardState) {
        let Start::Restore { members, backup, .. } = &self.start else { return };
        let header = self.header(hard.identity, members, backup);
        install::adopt(hard, &header);
        hard.term = backup.at.term;
        hard.restored = true;
    }
}

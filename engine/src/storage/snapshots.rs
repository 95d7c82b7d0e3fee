//! Snapshots: those that count, those on their way there, captured piece by piece while writes go on or
//! received from a peer, and the one that the machine takes in.
//!
//! Save: part, sync, rename, sync the directory; only then it counts. An own snapshot is renamed
//! only when the log is durable up to it, so none ever reaches behind the end of its own log; a
//! peer's when it takes the log's place.

use super::{
    Identity,
    install::remove,
    leftover::Leftover,
    ops::Ops,
    pins::Pins,
    restoring::Restoring,
    saving::{Save, Saving},
    serving::Serving,
};
use crate::{
    action::Halt,
    config::{Config, Tuning},
    disk::snapshot::{BLOCK_HEAD_BYTES, Footer, Header, Origin, block_bytes, header_bytes},
    event::{Chunk, MachineError},
    file::{DiskError, File},
    marks::Mark,
    membership::Membership,
    types::{CaptureId, LogId, LogIndex, Piece, SnapshotId, SnapshotName, Timestamp},
};
use std::{collections::VecDeque, sync::Arc};

/// A whole snapshot in the directory.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {
    pub(crate) header: Header,
    pub(crate) footer: Footer,
}

impl SnapshotFile {
    pub(crate) const fn file(&self) -> File {
        File::Snapshot(self.header.at)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Snapshots {
    pub(super) identity: Identity,
    pub(super) align: u32,
    /// Of how many groups this is one, as the embedder says.
    groups: u32,
    pub(super) restore_bytes_max: u64,
    /// Oldest first.
    pub(super) whole: Vec<SnapshotFile>,
    /// Those that turned out bad and are there still; they count for nothing. Oldest first.
    pub(super) spoilt: Vec<SnapshotFile>,
    /// Another one is to be taken for that.
    pub(super) wants_fresh: bool,
    pub(super) saving: Option<Saving>,
    /// What a peer sends, beside everything else.
    pub(super) staging: Option<Saving>,
    /// What an earlier life staged and a crash broke off.
    pub(super) left: Option<Leftover>,
    pub(super) serving: Serving,
    pub(crate) pins: Pins,
    pub(super) restoring: Option<Restoring>,
    /// How far the machine was handed snapshots whose restore was broken off, as long as it has not
    /// answered that: its answers come in order, and these are nothing to the running one.
    pub(super) unanswered: VecDeque<u64>,
    pub(super) restored: Option<LogId>,
    /// Those that this life could not read: they may be whole, and the next one be told.
    pub(super) unread: Vec<(File, DiskError)>,
    /// What is restored takes the place of a state that the machine has: it cannot begin anew.
    pub(super) replaces: bool,
    /// No snapshot is left for the log to go on from: a peer must send one.
    pub(super) is_lost: bool,
    /// Whether a peer could.
    pub(super) has_peers: bool,
    captures: u64,
    /// Why the last save of an own snapshot was given up.
    given_up: Option<DiskError>,
    pub(super) fault: Option<Halt>,
}

/// A snapshot on its way from a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Receiving {
    pub(crate) snapshot: SnapshotName,
    /// The next byte it waits for.
    pub(crate) next: u64,
    /// Of what came, that which leaves room for more.
    pub(crate) stored: u64,
    /// All of it is on disk.
    pub(crate) is_whole: bool,
}

impl Snapshots {
    pub(super) const fn set_cluster_epoch(&mut self, epoch: u64) {
        self.identity.cluster_epoch = epoch;
    }

    pub(crate) fn new(identity: Identity, config: &Config) -> Self {
        Self {
            identity,
            align: config.disk_align,
            groups: config.groups,
            restore_bytes_max: config.tuning.restore_bytes_max,
            whole: Vec::new(),
            spoilt: Vec::new(),
            wants_fresh: false,
            saving: None,
            staging: None,
            left: None,
            serving: Serving::default(),
            pins: Pins::default(),
            restoring: None,
            unanswered: VecDeque::new(),
            restored: None,
            unread: Vec::new(),
            replaces: false,
            is_lost: false,
            has_peers: false,
            captures: 0,
            given_up: None,
            fault: None,
        }
    }

    pub(crate) const fn tune(&mut self, tuning: &Tuning) {
        self.restore_bytes_max = tuning.restore_bytes_max;
    }

    pub(crate) fn newest(&self) -> LogId {
        self.whole.last().map_or(LogId::ZERO, |snapshot| snapshot.header.at)
    }

    pub(crate) fn newest_bytes(&self) -> u64 {
        self.whole.last().map_or(0, |snapshot| snapshot.footer.payload_bytes)
    }

    /// The length of all files of snapshots that count.
    pub(super) fn bytes_on_disk(&self) -> u64 {
        self.whole.iter().map(|snapshot| snapshot.file_bytes(self.align)).sum()
    }

    /// What the machine holds from here on by itself, once it does.
    pub(crate) const fn restored(&self) -> Option<LogId> {
        self.restored
    }

    /// Whether the machine has its state, and no snapshot is being written, read or looked after.
    pub(super) fn are_at_rest(&self) -> bool {
        self.restored.is_some()
            && self.restoring.is_none()
            && self.saving.is_none()
            && self.staging.is_none()
            && self.serving.is_idle()
            && self.pins.is_empty()
            && self.given_up.is_none()
            && !self.wants_fresh
            && !self.is_lost
            && self.fault.is_none()
    }

    // ---- save --------------------------------------------------------------------------------

    pub(crate) fn capture(
        &mut self,
        at: LogId,
        (membership, time): (Arc<Membership>, Timestamp),
        number: u64,
        ops: &mut Ops,
    ) -> bool {
        // A spoilt one of the same place may be pinned, and a pinned file stays as it is.
        if self.saving.is_some() || at <= self.newest() || self.pins.uses(at) {
            return false;
        }
        self.captures += 1;
        let header = self.header(at, SnapshotId(number), Origin::Captured, (membership, time));
        let capture = CaptureId(self.captures);
        self.saving = Some(Saving::capture(header, capture, self.align, ops));
        true
    }

    /// The machine holds a backup's state, of so many bytes and with this checksum.
    pub(super) fn save_backup(&mut self, header: Header, meant: (u64, u32), ops: &mut Ops) {
        let capture = CaptureId(1);
        self.saving = Some(Saving::capture(header, capture, self.align, ops).meant(meant));
    }

    fn header(
        &self,
        at: LogId,
        id: SnapshotId,
        origin: Origin,
        (membership, time): (Arc<Membership>, Timestamp),
    ) -> Header {
        let Self { identity, align, groups, .. } = *self;
        let block_bytes = block_bytes(align);
        Header { identity, at, id, origin, block_bytes, groups, time, membership }
    }

    pub(crate) fn on_captured(&mut self, capture: CaptureId, result: Result<Chunk, MachineError>) {
        let Some(saving) = self.saving.as_mut().filter(|saving| saving.is_of(capture)) else {
            return;
        };
        match result {
            Ok(chunk) => saving.take_chunk(&chunk),
            Err(error) => self.fault = Some(Halt::Machine(error)),
        }
    }

    /// Goes on with the save of an own snapshot; `is_stuck`: the log waits for room, some of which this
    /// takes that waits for the log.
    pub(crate) fn go_on_saving(&mut self, durable: LogIndex, is_stuck: bool, ops: &mut Ops) {
        let Some(saving) = &mut self.saving else { return };
        let mut given_up = saving.go_on(self.align, ops);
        if is_stuck && durable < saving.header.at.index && given_up.is_none() {
            given_up = saving.give_up(DiskError::Full, ops);
        }
        self.given_up = given_up.or(self.given_up);
        let Some(saving) = &mut self.saving else { return };
        if saving.step == Save::Whole {
            if durable >= saving.header.at.index {
                saving.name(ops);
            } else {
                ops.met(Mark::SnapshotWaitedForLog);
            }
        }
        if !saving.is_over() {
            return;
        }
        if let Some(Saving { header, footer, step: Save::SyncName, .. }) = self.saving.take() {
            let passed = self.left.take_if(|left| left.at <= header.at);
            passed.into_iter().for_each(|left| remove(left.file(), ops));
            self.freshen(header.at);
            self.whole.push(SnapshotFile { header, footer });
        }
    }

    /// Why a save was given up since this was asked last.
    pub(crate) const fn take_given_up(&mut self) -> Option<DiskError> {
        self.given_up.take()
    }

    pub(super) fn abandon_capture(&mut self, ops: &mut Ops) {
        if let Some(saving) = self.saving.as_mut().filter(|saving| !saving.is_being_named()) {
            saving.abandon(ops);
        }
    }

    // ---- from a peer -------------------------------------------------------------------------

    /// A piece of a peer's snapshot.
    pub(crate) fn stage(&mut self, piece: &Piece, ops: &mut Ops) {
        let is_another =
            |staging: &Saving| staging.received().is_none_or(|(name, ..)| name != piece.snapshot);
        if let Some(staging) = self.staging.as_mut().filter(|staging| is_another(staging)) {
            ops.met(Mark::InstallReplaced);
            return staging.abandon(ops);
        }
        if self.staging.is_none() {
            // Those of the first piece: the header is written before anything else.
            let Some(members) = &piece.members else { return ops.met(Mark::InstallPieceRefused) };
            if ops.is_about(File::Part(piece.snapshot.at, piece.snapshot.id)) {
                // What an earlier life left of it is going, and would take this with it.
                return ops.met(Mark::InstallPieceRefused);
            }
            let told = (Arc::clone(members), piece.time);
            self.staging = Some(self.begin_staging(piece.snapshot, told, ops));
        }
        let staging = self.staging.as_mut().expect("it was just begun");
        if !staging.take_piece(piece) {
            ops.met(Mark::InstallPieceRefused);
        }
    }

    fn begin_staging(
        &mut self,
        name: SnapshotName,
        told: (Arc<Membership>, Timestamp),
        ops: &mut Ops,
    ) -> Saving {
        let header = self.header(name.at, name.id, Origin::Installed, told);
        match self.left.take() {
            Some(left) if left.begins(name, &header, self.align) => {
                Saving::go_on_from(&left, header, name, self.align)
            }
            left => {
                // One of its own name is replaced.
                let other = left.filter(|left| (left.at, left.id) != (name.at, name.id));
                other.into_iter().for_each(|left| remove(left.file(), ops));
                Saving::stage(header, name, self.align, ops)
            }
        }
    }

    pub(crate) fn go_on_staging(&mut self, ops: &mut Ops) {
        let Some(staging) = &mut self.staging else { return };
        staging.go_on(self.align, ops);
        if staging.is_over() && staging.step == Save::Remove {
            self.staging = None;
        }
    }

    /// The log has come as far by itself.
    pub(crate) fn discard_staged(&mut self, ops: &mut Ops) {
        if let Some(staging) = &mut self.staging {
            staging.abandon(ops);
        }
    }

    /// What a peer sends, and how far it is.
    pub(crate) fn receiving(&self) -> Option<Receiving> {
        let staging = self.staging.as_ref().filter(|staging| !staging.is_unwanted())?;
        let (snapshot, next, stored) = staging.received()?;
        let is_whole = staging.step == Save::Whole;
        Some(Receiving { snapshot, next, stored, is_whole })
    }

    /// A peer's snapshot that is whole and has no name yet.
    pub(super) fn staged(&self) -> Option<SnapshotName> {
        self.receiving().filter(|receiving| receiving.is_whole).map(|receiving| receiving.snapshot)
    }

    pub(super) fn name_staged(&mut self, ops: &mut Ops) {
        self.staging.as_mut().expect("it is whole").name(ops);
    }

    /// The peer's snapshot once it has its name.
    pub(super) fn named(&self) -> Option<&Header> {
        let staging = self.staging.as_ref()?;
        (staging.is_over() && staging.step == Save::SyncName).then_some(&staging.header)
    }

    pub(super) fn take_named(&mut self) -> SnapshotFile {
        let Saving { header, footer, .. } = self.staging.take().expect("it was announced");
        SnapshotFile { header, footer }
    }

    /// Whether files are at work that an install would take away.
    pub(super) const fn is_busy(&self) -> bool {
        self.saving.is_some() || self.restoring.is_some()
    }

    /// This one is the only one from now on, and the machine begins with it. Returns what it made
    /// superfluous.
    pub(super) fn replace(&mut self, installed: SnapshotFile, ops: &mut Ops) -> Vec<File> {
        let at = installed.header.at;
        self.freshen(at);
        let mut old = std::mem::replace(&mut self.whole, vec![installed]);
        // What had its name is gone with that.
        old.retain(|snapshot| snapshot.header.at != at);
        old.append(&mut self.spoilt);
        let unread = std::mem::take(&mut self.unread).into_iter().map(|(file, _)| file);
        self.serving.keep(&[]);
        self.pins.clear();
        self.restored = None;
        self.is_lost = false;
        self.replaces = true;
        self.restore(ops);
        old.iter().map(SnapshotFile::file).chain(unread).collect()
    }
}

impl SnapshotFile {
    pub(super) fn block_offset(&self, number: u64, align: u32) -> u64 {
        header_bytes(align) + number * u64::from(self.header.block_bytes)
    }

    /// The length of the file.
    pub(super) fn file_bytes(&self, align: u32) -> u64 {
        let last = self.footer.blocks - 1;
        let end = self.block_offset(last, align) + u64::from(self.block_len(last, align));
        end + u64::from(align)
    }

    /// The bytes of a block on disk, padding included.
    pub(super) fn block_len(&self, number: u64, align: u32) -> u32 {
        let payload = u64::from(self.header.block_bytes) - BLOCK_HEAD_BYTES as u64;
        let left = self.footer.payload_bytes.saturating_sub(number * payload).min(payload);
        (BLOCK_HEAD_BYTES as u64 + left).next_multiple_of(u64::from(align)) as u32
    }
}

/// The seed of a snapshot's own blocks needs its id, which its header tells.
pub(crate) fn whole(
    header: &[u8],
    footer: &[u8],
    at: LogId,
    identity: &Identity,
) -> Option<SnapshotFile> {
    let header = Header::decode(header, identity.group, at).ok()?;
    let footer = Footer::decode(footer, identity.group, header.id).ok()?;
    let is_ours = header.identity.cluster == identity.cluster;
    (is_ours && footer.blocks > 0).then_some(SnapshotFile { header, footer })
}

//! A disk that holds files in memory: what was asked waits until it is done, and is lost or kept
//! whole when the power fails. Torn writes are the simulator's.

use bytes::{Bytes, BytesMut};
use lakebed::{Completion, DiskError, DiskRequest, Extent, File, OpId};
use std::{
    collections::{BTreeMap, VecDeque, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    ops::Range,
    sync::Arc,
};

/// What files are hashed by.
const BLOCK: usize = 512;

/// A file and a hash of what it holds: the sum over its blocks, so that a write costs what it is
/// long and not what the file is.
#[derive(Clone, Debug)]
struct Content {
    bytes: Arc<Vec<u8>>,
    hash: u64,
}

impl Content {
    fn zeros(len: u64) -> Self {
        Self { bytes: Arc::new(vec![0; len as usize]), hash: 0 }
    }

    fn write(&mut self, extent: &Extent) {
        let (start, end) = (extent.offset as usize, extent.end() as usize);
        let blocks = start / BLOCK..end.div_ceil(BLOCK);
        let before = hash_of(&self.bytes, blocks.clone());
        let bytes = Arc::make_mut(&mut self.bytes);
        bytes.resize(bytes.len().max(end), 0);
        let filled = start + extent.bytes.len();
        bytes[start..filled].copy_from_slice(&extent.bytes);
        bytes[filled..end].fill(0);
        let after = hash_of(bytes, blocks);
        self.hash = self.hash.wrapping_sub(before).wrapping_add(after);
    }
}

/// A block of zeros counts as nothing.
fn hash_of(bytes: &[u8], blocks: Range<usize>) -> u64 {
    let hash = |n: usize| {
        let block = &bytes[bytes.len().min(n * BLOCK)..bytes.len().min((n + 1) * BLOCK)];
        if block.iter().all(|byte| *byte == 0) {
            return 0;
        }
        let mut hasher = DefaultHasher::new();
        (n, block).hash(&mut hasher);
        hasher.finish()
    };
    blocks.map(hash).fold(0, u64::wrapping_add)
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    files: BTreeMap<File, Content>,
    /// Asked for and not done, oldest first.
    waiting: VecDeque<(OpId, DiskRequest)>,
}

impl Disk {
    pub(crate) fn submit(&mut self, op: OpId, request: DiskRequest) {
        self.waiting.push_back((op, request));
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Does what has waited longest.
    pub(crate) fn go_on(&mut self) -> Option<(OpId, Result<Completion, DiskError>)> {
        let (op, request) = self.waiting.pop_front()?;
        Some((op, self.perform(request)))
    }

    /// The power fails: what waits is done and nobody is told, or is not done.
    pub(crate) fn lose_power(&mut self, keeps: bool) {
        while let Some((_, request)) = self.waiting.pop_front() {
            if keeps {
                let _ = self.perform(request);
            }
        }
    }

    /// Of the log nothing is left.
    pub(crate) fn lose_log(&mut self) {
        self.files.retain(|file, _| !matches!(file, File::Segment(_)));
    }

    fn perform(&mut self, request: DiskRequest) -> Result<Completion, DiskError> {
        match request {
            DiskRequest::List => {
                let length =
                    |(file, content): (&File, &Content)| (*file, content.bytes.len() as u64);
                return Ok(Completion::Listed(self.files.iter().map(length).collect()));
            }
            DiskRequest::Read { file, offset, len } => {
                return Ok(Completion::Read(self.read(file, offset, len)?));
            }
            DiskRequest::Create { file, len, .. } => {
                self.files.insert(file, Content::zeros(len));
            }
            DiskRequest::Write { file, at, and, .. } => {
                let content = self.files.get_mut(&file).ok_or(DiskError::NotFound)?;
                [Some(at), and].iter().flatten().for_each(|extent| content.write(extent));
            }
            DiskRequest::Rename { from, to } => {
                let content = self.files.remove(&from).ok_or(DiskError::NotFound)?;
                self.files.insert(to, content);
            }
            DiskRequest::Remove { file } => {
                self.files.remove(&file).ok_or(DiskError::NotFound)?;
            }
            DiskRequest::Sync { .. } | DiskRequest::SyncDirectory => {}
        }
        Ok(Completion::Done)
    }

    fn read(&self, file: File, offset: u64, len: u32) -> Result<Bytes, DiskError> {
        let bytes = &self.files.get(&file).ok_or(DiskError::NotFound)?.bytes;
        let start = bytes.len().min(offset as usize);
        let end = bytes.len().min(start + len as usize);
        Ok(BytesMut::from(&bytes[start..end]).freeze())
    }
}

impl Hash for Disk {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for (file, content) in &self.files {
            (file, content.bytes.len(), content.hash).hash(state);
        }
        for (op, request) in &self.waiting {
            op.0.hash(state);
            hash_request(request, state);
        }
    }
}

fn hash_request<H: Hasher>(request: &DiskRequest, state: &mut H) {
    std::mem::discriminant(request).hash(state);
    match request {
        DiskRequest::List | DiskRequest::SyncDirectory => {}
        DiskRequest::Create { file, len, .. } => (file, len).hash(state),
        DiskRequest::Read { file, offset, len } => (file, offset, len).hash(state),
        DiskRequest::Write { file, at, and, .. } => {
            file.hash(state);
            for extent in [Some(at), and.as_ref()].into_iter().flatten() {
                (extent.offset, &extent.bytes, extent.zeros).hash(state);
            }
        }
        DiskRequest::Sync { file } | DiskRequest::Remove { file } => file.hash(state),
        DiskRequest::Rename { from, to } => (from, to).hash(state),
    }
}

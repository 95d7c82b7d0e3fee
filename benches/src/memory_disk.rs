//! A disk in memory that performs each request at once and never fails.
//!
//! It keeps what it is given as it was given, as the peer's memory storage does: what is compared
//! is consensus, not how fast bytes are copied to where nobody reads them.

use bytes::{Bytes, BytesMut};
use lakebed::{Completion, DiskError, DiskRequest, Extent, File};

/// What was written, in this order: where two overlap the later one holds, elsewhere are zeros.
#[derive(Default)]
struct Image {
    len: u64,
    writes: Vec<Extent>,
}

#[derive(Default)]
pub struct MemoryDisk {
    /// A handful.
    files: Vec<(File, Image)>,
}

impl MemoryDisk {
    pub fn perform(&mut self, request: DiskRequest) -> Result<Completion, DiskError> {
        match request {
            DiskRequest::List => return Ok(self.list()),
            DiskRequest::Read { file, offset, len } => {
                return Ok(Completion::Read(self.image(file)?.read(offset, len)));
            }
            DiskRequest::Create { file, len, .. } => {
                self.remove(file);
                self.files.push((file, Image { len, ..Image::default() }));
            }
            DiskRequest::Write { file, at, and, .. } => {
                let image = self.image(file)?;
                image.write(at);
                if let Some(and) = and {
                    image.write(and);
                }
            }
            DiskRequest::Rename { from, to } => {
                let mut image = self.remove(from).ok_or(DiskError::NotFound)?;
                if matches!(to, File::Spare(_)) {
                    // What an old segment held is read by nobody, and would be kept for ever.
                    image.writes.clear();
                }
                self.remove(to);
                self.files.push((to, image));
            }
            DiskRequest::Remove { file } => {
                self.remove(file).ok_or(DiskError::NotFound)?;
            }
            DiskRequest::Sync { .. } | DiskRequest::SyncDirectory => {}
        }
        Ok(Completion::Done)
    }

    fn image(&mut self, file: File) -> Result<&mut Image, DiskError> {
        let found = self.files.iter_mut().find(|(name, _)| *name == file);
        found.map(|(_, image)| image).ok_or(DiskError::NotFound)
    }

    fn remove(&mut self, file: File) -> Option<Image> {
        let place = self.files.iter().position(|(name, _)| *name == file)?;
        Some(self.files.remove(place).1)
    }

    fn list(&self) -> Completion {
        let length = |(file, image): &(File, Image)| (*file, image.len);
        Completion::Listed(self.files.iter().map(length).collect())
    }
}

impl Image {
    fn write(&mut self, extent: Extent) {
        self.len = self.len.max(extent.end());
        // A block of slots is written again and again: its former image goes.
        let same = |old: &&mut Extent| old.offset == extent.offset && old.len() == extent.len();
        match self.writes.iter_mut().rev().take(4).find(same) {
            Some(old) => *old = extent,
            None => self.writes.push(extent),
        }
    }

    fn read(&self, offset: u64, len: u32) -> Bytes {
        let (start, end) = (offset.min(self.len), (offset + u64::from(len)).min(self.len));
        let mut bytes = BytesMut::zeroed((end - start) as usize);
        for extent in &self.writes {
            let (from, to) = (extent.offset.max(start), extent.end().min(end));
            if from < to {
                let part = (from - extent.offset) as usize..(to - extent.offset) as usize;
                bytes[(from - start) as usize..(to - start) as usize]
                    .copy_from_slice(&extent.whole()[part]);
            }
        }
        bytes.freeze()
    }
}

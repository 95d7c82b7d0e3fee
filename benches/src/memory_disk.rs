//! A disk in memory that performs each request at once and never fails.
//!
//! Files that are removed leave their memory to files to come: what is compared is consensus, not
//! how fast the system finds fresh pages.

use bytes::Bytes;
use lakebed::{Completion, DiskError, DiskRequest, Extent, File};
use std::collections::BTreeMap;

#[derive(Default)]
pub struct MemoryDisk {
    files: BTreeMap<File, Vec<u8>>,
    spare: Vec<Vec<u8>>,
}

impl MemoryDisk {
    pub fn perform(&mut self, request: DiskRequest) -> Result<Completion, DiskError> {
        match request {
            DiskRequest::List => return Ok(self.list()),
            DiskRequest::Read { file, offset, len } => return self.read(file, offset, len),
            DiskRequest::Create { file, len, .. } => self.create(file, len as usize),
            DiskRequest::Write { file, at, and, .. } => {
                let bytes = self.file(file)?;
                write(bytes, &at);
                and.iter().for_each(|extent| write(bytes, extent));
            }
            DiskRequest::Rename { from, to } => {
                let bytes = self.files.remove(&from).ok_or(DiskError::NotFound)?;
                self.spare.extend(self.files.insert(to, bytes));
            }
            DiskRequest::Remove { file } => {
                self.spare.push(self.files.remove(&file).ok_or(DiskError::NotFound)?);
            }
            DiskRequest::Sync { .. } | DiskRequest::SyncDirectory => {}
        }
        Ok(Completion::Done)
    }

    fn file(&mut self, file: File) -> Result<&mut Vec<u8>, DiskError> {
        self.files.get_mut(&file).ok_or(DiskError::NotFound)
    }

    fn create(&mut self, file: File, len: usize) {
        let fits = self.spare.iter().position(|spare| spare.capacity() >= len);
        let mut bytes = fits.map(|n| self.spare.swap_remove(n)).unwrap_or_default();
        bytes.clear();
        bytes.resize(len, 0);
        self.spare.extend(self.files.insert(file, bytes));
    }

    fn list(&self) -> Completion {
        let length = |(file, bytes): (&File, &Vec<u8>)| (*file, bytes.len() as u64);
        Completion::Listed(self.files.iter().map(length).collect())
    }

    fn read(&mut self, file: File, offset: u64, len: u32) -> Result<Completion, DiskError> {
        let bytes = self.file(file)?;
        let start = bytes.len().min(offset as usize);
        let end = bytes.len().min(start + len as usize);
        Ok(Completion::Read(Bytes::copy_from_slice(&bytes[start..end])))
    }
}

fn write(file: &mut Vec<u8>, extent: &Extent) {
    let start = extent.offset as usize;
    let end = start + extent.bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[start..end].copy_from_slice(&extent.bytes);
}

//! The bare system calls, into a file that was written with zeros before: what the device gives.

use super::Appender;
use io_uring::{IoUring, opcode, types};
use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    fs::{File, OpenOptions},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    ptr::NonNull,
    time::{Duration, Instant},
};

const FILE_BYTES: u64 = 256 << 20;
const BLOCK: usize = 4096;

/// A file of zeros that is gone when it is dropped.
struct Zeroed {
    file: File,
    path: PathBuf,
}

impl Zeroed {
    fn create(dir: &Path, name: &str, flags: i32) -> Self {
        let path = dir.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let file = options.open(&path).expect("a new file");
        let zeros = vec![0; 1 << 20];
        for offset in (0..FILE_BYTES).step_by(zeros.len()) {
            file.write_all_at(&zeros, offset).expect("room");
        }
        file.sync_all().expect("a sync");
        let file = OpenOptions::new().write(true).custom_flags(flags).open(&path).expect("a file");
        Self { file, path }
    }
}

impl Drop for Zeroed {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).expect("it was created");
    }
}

/// `pwrite` as many times as are in flight, then one `fdatasync` for all.
pub struct Files {
    zeroed: Zeroed,
    at: u64,
    depth: usize,
}

impl Files {
    pub fn create(dir: &Path, depth: usize) -> Self {
        Self { zeroed: Zeroed::create(dir, "raw-files", 0), at: 0, depth }
    }
}

impl Appender for Files {
    fn append(&mut self, batch: &[Vec<u8>], least: Duration) -> u64 {
        let start = Instant::now();
        let mut batches = 0;
        while start.elapsed() < least {
            for _ in 0..self.depth {
                let bytes = batch.concat();
                if self.at + bytes.len() as u64 > FILE_BYTES {
                    self.at = 0;
                }
                self.zeroed.file.write_all_at(&bytes, self.at).expect("a write");
                self.at += bytes.len() as u64;
            }
            self.zeroed.file.sync_data().expect("a sync");
            batches += self.depth as u64;
        }
        batches
    }
}

/// A buffer that `O_DIRECT` takes.
struct Aligned {
    bytes: NonNull<u8>,
    layout: Layout,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let layout = Layout::from_size_align(len, BLOCK).expect("a block is a power of two");
        // SAFETY: the layout is not empty: a batch has at least one command.
        let bytes = NonNull::new(unsafe { alloc_zeroed(layout) }).expect("memory");
        Self { bytes, layout }
    }

    fn fill(&mut self, batch: &[Vec<u8>]) {
        let len = self.layout.size();
        // SAFETY: the block is `len` initialised bytes, and nobody else looks at it now.
        let mut to = unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr(), len) };
        for command in batch {
            let (here, rest) = to.split_at_mut(command.len());
            here.copy_from_slice(command);
            to = rest;
        }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and freed once.
        unsafe { dealloc(self.bytes.as_ptr(), self.layout) }
    }
}

/// Many durable direct writes in flight: the form whose flushes the device merges best.
pub struct Uring {
    ring: IoUring,
    zeroed: Zeroed,
    at: u64,
    depth: usize,
}

impl Uring {
    pub fn create(dir: &Path, depth: usize) -> Self {
        let ring = IoUring::new(depth as u32 * 2).expect("a kernel with io_uring");
        Self { ring, zeroed: Zeroed::create(dir, "raw-uring", libc::O_DIRECT), at: 0, depth }
    }

    fn submit(&mut self, slot: usize, buffer: &Aligned) {
        let len = buffer.layout.size() as u64;
        if self.at + len > FILE_BYTES {
            self.at = 0;
        }
        let file = types::Fd(self.zeroed.file.as_raw_fd());
        let write = opcode::Write::new(file, buffer.bytes.as_ptr(), len as u32)
            .offset(self.at)
            .rw_flags(libc::RWF_DSYNC)
            .build()
            .user_data(slot as u64);
        self.at += len;
        // SAFETY: buffer and file live until `append` has seen every completion.
        unsafe { self.ring.submission().push(&write) }.expect("the ring has twice the room");
    }

    /// Waits for at least one completion and returns the slots that are free again.
    fn wait(&mut self, len: usize) -> Vec<usize> {
        self.ring.submit_and_wait(1).expect("the ring works");
        let freed = |entry: io_uring::cqueue::Entry| {
            assert_eq!(entry.result(), len as i32, "a whole write");
            entry.user_data() as usize
        };
        self.ring.completion().map(freed).collect()
    }
}

impl Appender for Uring {
    fn append(&mut self, batch: &[Vec<u8>], least: Duration) -> u64 {
        let bytes: usize = batch.iter().map(Vec::len).sum();
        let len = bytes.next_multiple_of(BLOCK);
        let mut buffers: Vec<Aligned> = (0..self.depth).map(|_| Aligned::new(len)).collect();
        let mut free: Vec<usize> = (0..self.depth).collect();
        let (start, mut submitted, mut done) = (Instant::now(), 0, 0);
        while done < submitted || start.elapsed() < least {
            if start.elapsed() < least {
                for slot in std::mem::take(&mut free) {
                    buffers[slot].fill(batch);
                    self.submit(slot, &buffers[slot]);
                    submitted += 1;
                }
            }
            if done < submitted {
                let freed = self.wait(len);
                done += freed.len() as u64;
                free.extend(freed);
            }
        }
        done
    }
}

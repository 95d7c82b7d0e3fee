//! The kernel's queues: whole transfers between files and memory, many in flight.
//!
//! The only module with `unsafe`; each block says why it may. Knows neither operations nor classes. Invariant: what the kernel
//! reads from, writes to and holds open lives in `transfers` from before a transfer is pushed
//! until its completion was reaped; dropping the ring waits for that.

#![allow(unsafe_code)]

use super::{ALIGN, kept::Kept};
use bytes::{Bytes, BytesMut};
use io_uring::{IoUring, Probe, opcode, squeue, types};
use lakebed::Extent;
use slab::Slab;
use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind},
    mem,
    os::fd::{AsRawFd, RawFd},
    ptr::NonNull,
    sync::Arc,
};
use tokio::io::{Interest, unix::AsyncFd};

/// The most transfers in flight.
pub(super) const TRANSFERS_MAX: u32 = 512;
/// Bytes of aligned memory kept for later transfers.
const POOL_BYTES_MAX: usize = 16 << 20;
/// `EIO`: the kernel wrote nothing and gave no reason.
const EIO: i32 = 5;

/// A transfer that has ended: the caller's key, and what was read.
pub(super) struct Ended {
    pub(super) key: usize,
    pub(super) result: io::Result<Bytes>,
}

struct Transfer {
    key: usize,
    file: Arc<fs::File>,
    offset: u64,
    memory: Memory,
    /// Bytes transferred so far.
    done: usize,
}

enum Memory {
    /// Written from where it is.
    Shared(Bytes),
    /// Written from an aligned copy of this length.
    Aligned(Aligned, usize),
    /// Read into: so many bytes at most.
    Read(BytesMut, usize),
    /// A sync.
    None,
}

/// Submission and completion queue, and everything the kernel may touch.
pub(super) struct Ring {
    uring: IoUring,
    transfers: Slab<Transfer>,
    pool: Pool,
    kept: Kept,
}

impl Ring {
    /// Fails where the kernel has no such queues, or does not let us have them.
    pub(super) fn new() -> io::Result<Self> {
        let uring = IoUring::builder().setup_coop_taskrun().build(TRANSFERS_MAX)?;
        let mut probe = Probe::new();
        uring.submitter().register_probe(&mut probe)?;
        let needed = [opcode::Read::CODE, opcode::Write::CODE, opcode::Fsync::CODE];
        if !needed.iter().all(|&code| probe.is_supported(code)) {
            return Err(ErrorKind::Unsupported.into());
        }
        let (pool, kept) = (Pool::default(), Kept::default());
        Ok(Self { uring, transfers: Slab::new(), pool, kept })
    }

    /// Lets the runtime know when transfers have ended. Must be called within a tokio runtime.
    pub(super) fn watch(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is the ring's own, and closed only when the ring is dropped.
        let watched = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) };
        watched.map_err(io::Error::from)
    }

    /// Whether `transfers` more may be begun.
    pub(super) fn has_room(&self, transfers: usize) -> bool {
        self.transfers.len() + transfers <= TRANSFERS_MAX as usize
    }

    /// Writes all of `bytes`; `direct`: the file was opened so, and memory must be aligned.
    pub(super) fn write(&mut self, key: usize, file: Arc<fs::File>, extent: Extent, direct: bool) {
        let offset = extent.offset;
        let is_aligned = extent.zeros == 0 && extent.bytes.as_ptr().addr().is_multiple_of(ALIGN);
        let memory = if direct && !is_aligned {
            Memory::Aligned(self.pool.copy_of(&extent), extent.len() as usize)
        } else {
            Memory::Shared(extent.whole())
        };
        self.begin(Transfer { key, file, offset, memory, done: 0 });
    }

    /// Reads `len` bytes, or to the end of the file.
    pub(super) fn read(&mut self, key: usize, file: Arc<fs::File>, offset: u64, len: usize) {
        let memory = Memory::Read(self.kept.memory(len), len);
        self.begin(Transfer { key, file, offset, memory, done: 0 });
    }

    /// Makes durable what was written to the file by transfers that have ended.
    pub(super) fn sync(&mut self, key: usize, file: Arc<fs::File>) {
        self.begin(Transfer { key, file, offset: 0, memory: Memory::None, done: 0 });
    }

    /// Hands everything that was begun to the kernel.
    pub(super) fn submit(&mut self) {
        while !self.uring.submission().is_empty() {
            match self.uring.submit() {
                Ok(_) => {}
                Err(error) if is_transient(&error) => {}
                Err(error) => panic!("the kernel takes no more disk operations: {error}"),
            }
        }
    }

    /// Adds what has ended; true if there was any completion.
    pub(super) fn reap(&mut self, ended: &mut Vec<Ended>) -> bool {
        let mut any = false;
        while let Some((at, result)) = self.next_completion() {
            any = true;
            match self.transfers[at].progress(result) {
                Some(result) => {
                    let transfer = self.transfers.remove(at);
                    ended.push(self.end(transfer, result));
                }
                None => self.push(at),
            }
        }
        any
    }

    fn next_completion(&mut self) -> Option<(usize, i32)> {
        let completion = self.uring.completion().next()?;
        Some((completion.user_data() as usize, completion.result()))
    }

    fn begin(&mut self, transfer: Transfer) {
        let at = self.transfers.insert(transfer);
        self.push(at);
    }

    fn push(&mut self, at: usize) {
        let entry = self.transfers[at].entry().user_data(at as u64);
        if self.uring.submission().is_full() {
            self.submit();
        }
        // SAFETY: memory and file of the entry belong to `self.transfers[at]`, which is removed
        // only when its completion was reaped, and is never touched before.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        pushed.expect("there is room: what was full has just been submitted");
    }

    fn end(&mut self, transfer: Transfer, result: io::Result<()>) -> Ended {
        let Transfer { key, memory, done, .. } = transfer;
        let result = match memory {
            Memory::Read(bytes, _) => result.map(|()| self.kept.read(bytes, done)),
            Memory::Aligned(memory, _) => {
                self.pool.give_back(memory);
                result.map(|()| Bytes::new())
            }
            Memory::Shared(_) | Memory::None => result.map(|()| Bytes::new()),
        };
        Ended { key, result }
    }
}

impl AsRawFd for Ring {
    /// Readable when a transfer has ended.
    fn as_raw_fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let mut ended = Vec::new();
        while !self.transfers.is_empty() {
            match self.uring.submit_and_wait(1) {
                Ok(_) => drop(self.reap(&mut ended)),
                Err(error) if is_transient(&error) => {}
                Err(_) => {
                    // Better lost than freed while the kernel writes into it.
                    mem::forget(mem::take(&mut self.transfers));
                    return;
                }
            }
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::ResourceBusy)
}

impl Transfer {
    /// What is still to be transferred.
    fn entry(&mut self) -> squeue::Entry {
        let fd = types::Fd(self.file.as_raw_fd());
        let offset = self.offset + self.done as u64;
        let (start, len) = match &mut self.memory {
            Memory::None => {
                return opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
            }
            Memory::Read(bytes, len) => {
                let start = bytes.as_mut_ptr().wrapping_add(self.done);
                return opcode::Read::new(fd, start, (*len - self.done) as u32)
                    .offset(offset)
                    .build();
            }
            Memory::Shared(bytes) => (bytes.as_ptr(), bytes.len()),
            Memory::Aligned(memory, len) => (memory.start.as_ptr().cast_const(), *len),
        };
        let rest = start.wrapping_add(self.done);
        opcode::Write::new(fd, rest, (len - self.done) as u32).offset(offset).build()
    }

    /// Takes note of a completion. `None`: the rest must be asked for again.
    fn progress(&mut self, result: i32) -> Option<io::Result<()>> {
        if result < 0 {
            let error = io::Error::from_raw_os_error(-result);
            // A sync that failed has told so once: the next one would succeed over nothing.
            let is_over = matches!(self.memory, Memory::None) || !is_transient(&error);
            return is_over.then_some(Err(error));
        }
        self.done += result.unsigned_abs() as usize;
        let (len, is_read) = match &self.memory {
            Memory::None => return Some(Ok(())),
            Memory::Read(_, len) => (*len, true),
            Memory::Shared(bytes) => (bytes.len(), false),
            Memory::Aligned(_, len) => (*len, false),
        };
        match result {
            _ if self.done == len => Some(Ok(())),
            0 if is_read => Some(Ok(())),
            0 => Some(Err(io::Error::from_raw_os_error(EIO))),
            _ => None,
        }
    }
}

/// Memory aligned for transfers around the page cache.
struct Aligned {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its memory as a box does, and nothing in it belongs to a thread.
unsafe impl Send for Aligned {}

impl Aligned {
    fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes, ALIGN).expect("a write is far below 2^63");
        // SAFETY: the layout is not empty: the pool rounds up to at least `ALIGN` bytes.
        let start = unsafe { alloc(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Self { start, layout }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: it was allocated with this layout, and nobody else frees it.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Aligned memory between two transfers, by size.
#[derive(Default)]
struct Pool {
    free: BTreeMap<usize, Vec<Aligned>>,
    bytes: usize,
}

impl Pool {
    fn copy_of(&mut self, extent: &Extent) -> Aligned {
        let (bytes, zeros) = (&extent.bytes, extent.zeros as usize);
        let room = (extent.len() as usize).next_power_of_two().max(ALIGN);
        let kept = self.free.get_mut(&room).and_then(Vec::pop);
        let memory = match kept {
            Some(memory) => {
                self.bytes -= room;
                memory
            }
            None => Aligned::new(room),
        };
        let start = memory.start.as_ptr();
        // SAFETY: it has room for the whole extent, is ours alone, and so does not overlap it.
        unsafe {
            start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            start.add(bytes.len()).write_bytes(0, zeros);
        }
        memory
    }

    fn give_back(&mut self, memory: Aligned) {
        let room = memory.layout.size();
        if self.bytes + room <= POOL_BYTES_MAX {
            self.bytes += room;
            self.free.entry(room).or_default().push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use std::io::Write;

    fn run(ring: &mut Ring) -> Vec<Ended> {
        let mut ended = Vec::new();
        while !ring.transfers.is_empty() {
            ring.uring.submit_and_wait(1).unwrap();
            ring.reap(&mut ended);
        }
        ended
    }

    /// Its error has been told: the kernel would call the next sync of the file good.
    #[test]
    fn a_sync_that_fails_is_not_tried_again() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let progress = |memory, code: Errno| {
            let file = Arc::clone(&file);
            let mut transfer = Transfer { key: 0, file, offset: 0, memory, done: 0 };
            transfer.progress(-code.raw_os_error()).map(|result| result.is_err())
        };
        for code in [Errno::INTR, Errno::AGAIN, Errno::BUSY] {
            assert_eq!(progress(Memory::None, code), Some(true), "{code}");
            assert_eq!(progress(Memory::Shared(Bytes::new()), code), None, "{code}");
            assert_eq!(progress(Memory::Read(BytesMut::new(), 0), code), None, "{code}");
        }
        assert_eq!(progress(Memory::Shared(Bytes::new()), Errno::IO), Some(true));
        let read = progress(Memory::Read(BytesMut::new(), 0), Errno::IO);
        assert_eq!(read, Some(true), "it would pass for the end of the file");
    }

    #[test]
    fn a_short_transfer_goes_on_where_it_stopped() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let memory = Memory::Shared(Bytes::from_static(b"abcdef"));
        let mut transfer = Transfer { key: 0, file, offset: 10, memory, done: 0 };
        assert!(transfer.progress(4).is_none());
        assert_eq!(transfer.done, 4);
        assert!(transfer.progress(-4).is_none(), "EINTR is tried again");
        assert!(transfer.progress(2).unwrap().is_ok());
        transfer.done = 4;
        let error = transfer.progress(0).unwrap().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(EIO), "no progress is no success");
    }

    #[test]
    fn a_read_is_short_only_at_the_end_of_the_file() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let memory = Memory::Read(BytesMut::zeroed(9), 9);
        let mut transfer = Transfer { key: 0, file, offset: 0, memory, done: 0 };
        assert!(transfer.progress(4).is_none() && transfer.progress(3).is_none());
        assert!(transfer.progress(0).unwrap().is_ok());
        assert_eq!(transfer.done, 7);
    }

    /// Disks seldom stop in the middle: what the kernel is asked for then is tried as if one had.
    #[test]
    fn what_is_left_of_a_transfer_is_asked_for_where_it_belongs() {
        let Ok(mut ring) = Ring::new() else { return };
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let file = Arc::new(file);
        let aligned = ring.pool.copy_of(&Extent::new(0, Bytes::from_static(b"ABCD")));
        let read = Memory::Read(BytesMut::from(&b"....."[..]), 5);
        for (offset, done, memory) in [
            (1, 2, Memory::Shared(Bytes::from_static(b"abcd"))),
            (5, 3, Memory::Aligned(aligned, 4)),
            (3, 1, read),
        ] {
            ring.begin(Transfer { key: 0, file: Arc::clone(&file), offset, memory, done });
            let bytes = run(&mut ring).pop().unwrap().result.unwrap();
            if offset == 3 {
                assert_eq!(bytes, b".d567"[..]);
            }
        }
        let mut found = [0; 10];
        std::os::unix::fs::FileExt::read_exact_at(&*file, &mut found, 0).unwrap();
        assert_eq!(&found, b"012cd567D9");
    }

    #[test]
    fn more_transfers_than_the_queue_holds_all_end_once() {
        let Ok(mut ring) = Ring::new() else { return };
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let file = Arc::new(file);
        let count = TRANSFERS_MAX as usize;
        for key in 0..count {
            assert!(ring.has_room(1));
            ring.read(key, Arc::clone(&file), key as u64 % 12, 4);
        }
        assert!(!ring.has_room(1));
        let mut ended = run(&mut ring);
        ended.sort_by_key(|ended| ended.key);
        assert_eq!(ended.len(), count);
        for Ended { key, result } in ended {
            let from = (key % 12).min(10);
            assert_eq!(result.unwrap(), &b"0123456789"[from..(from + 4).min(10)]);
        }
    }

    #[test]
    fn a_dropped_ring_waits_for_its_transfers() {
        let Ok(mut ring) = Ring::new() else { return };
        let file = Arc::new(tempfile::tempfile().unwrap());
        for n in 0..64 {
            let bytes = Bytes::from(vec![n as u8; ALIGN]);
            let extent = Extent::new(n * ALIGN as u64, bytes);
            ring.write(0, Arc::clone(&file), extent, false);
        }
        ring.submit();
        drop(ring);
        assert_eq!(Arc::strong_count(&file), 1);
        assert_eq!(file.metadata().unwrap().len(), 64 * ALIGN as u64);
    }

    #[test]
    fn aligned_memory_is_used_again() {
        let extent = |bytes: Vec<u8>| Extent::new(0, bytes.into());
        let mut pool = Pool::default();
        let memory = pool.copy_of(&extent(vec![7; 5000]));
        let start = memory.start;
        assert!(start.as_ptr().addr().is_multiple_of(ALIGN));
        pool.give_back(memory);
        assert_eq!(pool.bytes, 8192);
        assert_eq!(pool.copy_of(&extent(vec![8; 8192])).start, start);
        assert_eq!(pool.bytes, 0);
    }

    #[test]
    fn aligned_memory_that_is_kept_is_bounded() {
        let mut pool = Pool::default();
        let extent = Extent::new(0, vec![7; POOL_BYTES_MAX / 4].into());
        let lent: Vec<_> = (0..6).map(|_| pool.copy_of(&extent)).collect();
        lent.into_iter().for_each(|memory| pool.give_back(memory));
        let kept: usize = pool.free.values().flatten().map(|memory| memory.layout.size()).sum();
        assert_eq!((pool.bytes, kept), (POOL_BYTES_MAX, POOL_BYTES_MAX));
    }

    #[test]
    fn memory_is_read_into_again_when_nobody_holds_what_was_read() {
        let Ok(mut ring) = Ring::new() else { return };
        let len = 256 << 10;
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..2 * len).map(|at| (at / 1000) as u8).collect();
        file.write_all(&content).unwrap();
        let file = Arc::new(file);
        let mut read = |offset: usize| {
            ring.read(0, Arc::clone(&file), offset as u64, len);
            let read = run(&mut ring).pop().unwrap().result.unwrap();
            assert!(content[offset..].starts_with(&read));
            read
        };
        let first = read(0);
        let place = first.as_ptr();
        assert_ne!(read(5).as_ptr(), place, "somebody holds the first");
        drop(first);
        assert_eq!(read(7).as_ptr(), place);
        assert_eq!(read(2 * len - 3).len(), 3, "at the end");
    }

    #[test]
    fn what_fills_a_block_is_zeros_also_over_what_was_there() {
        let Ok(mut ring) = Ring::new() else { return };
        let file = Arc::new(tempfile::tempfile().unwrap());
        for direct in [false, true] {
            let old = Extent::new(0, vec![9; ALIGN].into());
            let short = Extent { zeros: ALIGN as u32 - 3, ..Extent::new(0, vec![1; 3].into()) };
            for extent in [old, short] {
                // The file is in memory on some machines: the buffers are what is tried here.
                let direct = direct && extent.zeros > 0;
                ring.write(0, Arc::clone(&file), extent, direct);
                run(&mut ring).into_iter().for_each(|ended| drop(ended.result.unwrap()));
            }
            let mut found = vec![7; ALIGN];
            std::os::unix::fs::FileExt::read_exact_at(&*file, &mut found, 0).unwrap();
            assert_eq!((&found[..3], &found[3..]), (&[1; 3][..], &[0; ALIGN - 3][..]));
        }
    }
}

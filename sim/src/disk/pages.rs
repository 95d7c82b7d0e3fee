//! The durable bytes of one file: sparse pages, shared until written.
//!
//! Knows neither length nor names. Invariant: what was never written reads as zeros.

use bytes::Bytes;
use lakebed::tape::Digest;
use std::{ops::Range, sync::Arc};

pub(super) const PAGE_BYTES: u64 = 4096;
const LEN: usize = PAGE_BYTES as usize;
static ZEROS: [u8; LEN] = [0; LEN];
/// What is read where nothing was written, up to as much at once.
static NOTHING: [u8; 16 * LEN] = [0; 16 * LEN];

/// One page: nothing, a part of what was written once, or bytes of its own.
#[derive(Clone, Debug, Default)]
enum Page {
    #[default]
    Zeros,
    /// Those from there on.
    Written(Bytes, usize),
    Own(Arc<[u8; LEN]>),
}

impl Page {
    fn bytes(&self) -> &[u8; LEN] {
        match self {
            Self::Zeros => &ZEROS,
            Self::Written(bytes, at) => {
                bytes[*at..].first_chunk().expect("a whole page was written")
            }
            Self::Own(bytes) => bytes,
        }
    }

    fn own(&mut self) -> &mut [u8; LEN] {
        if !matches!(self, Self::Own(_)) {
            *self = Self::Own(Arc::new(*self.bytes()));
        }
        let Self::Own(bytes) = self else { unreachable!("it was made so") };
        Arc::make_mut(bytes)
    }
}

/// Bytes by offset. A clone shares every page until one side writes it.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages(Arc<Vec<Page>>);

impl Pages {
    /// The `len` bytes from `offset` on: without a copy if they were written together, or never.
    pub(super) fn read(&self, offset: u64, len: usize) -> Bytes {
        if let Some(bytes) = self.in_one_piece(offset, len) {
            return bytes;
        }
        let mut bytes = Vec::with_capacity(len);
        for (page, within, range) in cut(offset, len) {
            let page = self.0.get(page).map_or(&ZEROS, Page::bytes);
            bytes.extend_from_slice(&page[within..within + range.len()]);
        }
        bytes.into()
    }

    fn in_one_piece(&self, offset: u64, len: usize) -> Option<Bytes> {
        let first = self.0.get((offset / PAGE_BYTES) as usize).unwrap_or(&Page::Zeros);
        let mut pages = cut(offset, len)
            .map(|(page, within, range)| (self.0.get(page).unwrap_or(&Page::Zeros), within, range));
        match first {
            Page::Zeros if len <= NOTHING.len() => pages
                .all(|(page, ..)| matches!(page, Page::Zeros))
                .then(|| Bytes::from_static(&NOTHING[..len])),
            Page::Written(whole, at) => {
                let from = at + (offset % PAGE_BYTES) as usize;
                let follows = |(page, within, range): (&Page, usize, Range<usize>)| {
                    let Page::Written(other, at) = page else { return false };
                    other.as_ptr() == whole.as_ptr() && at + within == from + range.start
                };
                let is_whole = from + len <= whole.len() && pages.all(follows);
                is_whole.then(|| whole.slice(from..from + len))
            }
            _ => None,
        }
    }

    /// Replaces the bytes from `offset` on. Whole pages are kept as they are, without a copy.
    pub(super) fn write(&mut self, offset: u64, bytes: &Bytes) {
        let pages = Arc::make_mut(&mut self.0);
        let end = (offset + bytes.len() as u64).div_ceil(PAGE_BYTES) as usize;
        if pages.len() < end {
            pages.resize_with(end, Page::default);
        }
        for (page, within, range) in cut(offset, bytes.len()) {
            if range.len() == LEN {
                pages[page] = Page::Written(bytes.clone(), range.start);
            } else {
                let len = range.len();
                pages[page].own()[within..within + len].copy_from_slice(&bytes[range]);
            }
        }
    }

    /// Adds to a hash what the first `len` bytes are. What was never written is as zeros are.
    pub(super) fn digest(&self, len: u64, digest: &mut Digest) {
        for (at, page) in (0..len.div_ceil(PAGE_BYTES)).zip(self.0.iter()) {
            let bytes = &page.bytes()[..(len - at * PAGE_BYTES).min(PAGE_BYTES) as usize];
            if !matches!(page, Page::Zeros) && *bytes != ZEROS[..bytes.len()] {
                digest.number(at);
                digest.bytes(bytes);
            }
        }
    }

    /// Calls with every part of this size that is not all zeros, and where it is.
    pub(super) fn for_each_written(&mut self, size: usize, mut call: impl FnMut(u64, &mut [u8])) {
        for (at, page) in (0..).step_by(LEN).zip(Arc::make_mut(&mut self.0)) {
            if matches!(page, Page::Zeros) {
                continue;
            }
            for (part, bytes) in (at..).step_by(size).zip(page.own().chunks_mut(size)) {
                if *bytes != ZEROS[..size] {
                    call(part, bytes);
                }
            }
        }
    }
}

/// Each page that a range lies in, the place within it, and the part of the range that lies there.
fn cut(offset: u64, len: usize) -> impl Iterator<Item = (usize, usize, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % PAGE_BYTES) as usize;
        let take = (LEN - within).min(len - done);
        done += take;
        (take > 0).then_some(((at / PAGE_BYTES) as usize, within, done - take..done))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<const N: usize>(pages: &Pages, offset: u64) -> [u8; N] {
        pages.read(offset, N)[..].try_into().unwrap()
    }

    fn filled(byte: u8, len: usize) -> Bytes {
        vec![byte; len].into()
    }

    #[test]
    fn a_clone_does_not_see_later_writes() {
        let mut pages = Pages::default();
        pages.write(4000, &filled(1, 200));
        let before = pages.clone();
        pages.write(4095, &filled(2, 2));
        assert_eq!(read(&before, 4094), [1, 1, 1, 1]);
        assert_eq!(read(&pages, 4094), [1, 2, 2, 1]);
    }

    #[test]
    fn a_whole_page_is_kept_until_a_part_of_it_is_written() {
        let mut pages = Pages::default();
        let written = filled(1, 3 * LEN);
        pages.write(512, &written);
        pages.write(LEN as u64 + 512, &filled(2, 512));
        assert_eq!(read(&pages, 511), [0, 1]);
        assert_eq!(read(&pages, LEN as u64 + 511), [1, 2]);
        assert_eq!(read(&pages, LEN as u64 + 1023), [2, 1]);
        assert_eq!(written, filled(1, 3 * LEN));
    }

    #[test]
    fn what_was_written_together_is_read_as_it_is() {
        let mut pages = Pages::default();
        let bytes: Vec<u8> = (0..4 * LEN).map(|n| (n / 100) as u8).collect();
        let written = Bytes::from(bytes);
        pages.write(LEN as u64, &written);
        let part = pages.read(2 * LEN as u64 + 10, 2 * LEN);
        assert_eq!(part.as_ptr(), written[LEN + 10..].as_ptr());
        assert_eq!(part, written[LEN + 10..][..2 * LEN]);
        // The same bytes once more, elsewhere: what lies beside each other was not written so.
        pages.write(5 * LEN as u64, &written.slice(..2 * LEN));
        let joint = pages.read(4 * LEN as u64, 2 * LEN);
        assert_eq!(joint[..LEN], written[3 * LEN..]);
        assert_eq!(joint[LEN..], written[..LEN]);
        let beyond = pages.read(6 * LEN as u64, 2 * LEN);
        assert_eq!(beyond[..LEN], written[LEN..2 * LEN]);
        assert_eq!(beyond[LEN..], ZEROS);
    }

    #[test]
    fn what_was_never_written_is_zero() {
        let mut pages = Pages::default();
        pages.write(10 * 4096, &filled(7, 1));
        assert_eq!(read(&pages, 10 * 4096 - 1), [0, 7, 0]);
        let mut parts = Vec::new();
        pages.for_each_written(512, |at, bytes| parts.push((at, bytes[0])));
        assert_eq!(parts, [(10 * 4096, 7)]);
    }
}

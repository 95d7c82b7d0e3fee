//! The durable bytes of one file: sparse pages, shared until written.
//!
//! Knows neither length nor names. Invariant: what was never written reads as zeros.

use std::{collections::BTreeMap, sync::Arc};

const PAGE_BYTES: u64 = 4096;
type Page = [u8; PAGE_BYTES as usize];

/// Bytes by offset. A clone shares every page until one side writes it.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages(Arc<BTreeMap<u64, Arc<Page>>>);

impl Pages {
    /// Fills `into` with the bytes from `offset` on.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) {
        for_each_page(offset, into.len(), |page, within, range| {
            let into = &mut into[range];
            match self.0.get(&page) {
                Some(bytes) => into.copy_from_slice(&bytes[within..within + into.len()]),
                None => into.fill(0),
            }
        });
    }

    /// Replaces the bytes from `offset` on.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let pages = Arc::make_mut(&mut self.0);
        for_each_page(offset, bytes.len(), |page, within, range| {
            let bytes = &bytes[range];
            let page = pages.entry(page).or_insert_with(|| Arc::new([0; PAGE_BYTES as usize]));
            Arc::make_mut(page)[within..within + bytes.len()].copy_from_slice(bytes);
        });
    }
}

/// Calls with each page, the place within it, and the range of the caller's bytes that lies there.
fn for_each_page(
    offset: u64,
    len: usize,
    mut call: impl FnMut(u64, usize, std::ops::Range<usize>),
) {
    let mut done = 0;
    while done < len {
        let at = offset + done as u64;
        let within = (at % PAGE_BYTES) as usize;
        let take = (PAGE_BYTES as usize - within).min(len - done);
        call(at / PAGE_BYTES, within, done..done + take);
        done += take;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_does_not_see_later_writes() {
        let mut pages = Pages::default();
        pages.write(4000, &[1; 200]);
        let before = pages.clone();
        pages.write(4095, &[2; 2]);
        let mut found = [9; 4];
        before.read(4094, &mut found);
        assert_eq!(found, [1, 1, 1, 1]);
        pages.read(4094, &mut found);
        assert_eq!(found, [1, 2, 2, 1]);
    }

    #[test]
    fn what_was_never_written_is_zero() {
        let mut pages = Pages::default();
        pages.write(10 * 4096, &[7]);
        let mut found = [9; 3];
        pages.read(10 * 4096 - 1, &mut found);
        assert_eq!(found, [0, 7, 0]);
    }
}

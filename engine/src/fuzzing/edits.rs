//! Good bytes, changed here and there: how a fuzzer reaches what lies deep in a large structure.

/// A stretch of bytes to be written over others.
pub(super) struct Edit<'a> {
    pub(super) at: usize,
    pub(super) bytes: &'a [u8],
}

/// Reads edits of something this long: where (four bytes), how many bytes (one), these bytes.
/// Whatever is cut short is shorter; nothing is refused, so that no mutation is in vain.
pub(super) fn edits(mut input: &[u8], len: usize) -> impl Iterator<Item = Edit<'_>> {
    std::iter::from_fn(move || {
        let [a, b, c, d, bytes] = *input.split_off(..5)?.first_chunk().expect("five were taken");
        let at = u32::from_le_bytes([a, b, c, d]) as usize % len.max(1);
        let bytes = input.split_off(..input.len().min(bytes.into())).expect("not beyond the end");
        Some(Edit { at, bytes: &bytes[..bytes.len().min(len - at)] })
    })
}

/// `base` with these edits.
pub(super) fn edited(base: &[u8], input: &[u8]) -> Vec<u8> {
    let mut bytes = base.to_vec();
    for edit in edits(input, base.len()) {
        bytes[edit.at..edit.at + edit.bytes.len()].copy_from_slice(edit.bytes);
    }
    bytes
}

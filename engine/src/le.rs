//! Little-endian fields at fixed places: what every format on disk and wire is made of.
//!
//! Callers have checked the length; a place outside `bytes` is our own mistake and panics.

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes were sliced"))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were sliced"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were sliced"))
}

pub(crate) fn put_u16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

pub(crate) fn put_u64(bytes: &mut [u8], at: usize, value: u64) {
    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

/// Consecutive 64-bit fields from `at` on.
pub(crate) fn put_u64s(bytes: &mut [u8], at: usize, values: &[u64]) {
    for (n, &value) in values.iter().enumerate() {
        put_u64(bytes, at + 8 * n, value);
    }
}

/// Consecutive 64-bit fields from `at` on.
pub(crate) fn u64s_at<const N: usize>(bytes: &[u8], at: usize) -> [u64; N] {
    std::array::from_fn(|n| u64_at(bytes, at + 8 * n))
}

/// Numbers as words. A loop, because `array::map` is not inlined everywhere: where it was not, it took a
/// third of what it costs to encode a message.
#[inline]
pub(crate) fn words<const N: usize>(numbers: [u64; N]) -> [[u8; 8]; N] {
    let mut words = [[0; 8]; N];
    for (word, number) in words.iter_mut().zip(numbers) {
        *word = number.to_le_bytes();
    }
    words
}

/// Words as numbers.
#[inline]
pub(crate) fn numbers<const N: usize>(words: &[[u8; 8]; N]) -> [u64; N] {
    let mut numbers = [0; N];
    for (number, word) in numbers.iter_mut().zip(words) {
        *number = u64::from_le_bytes(*word);
    }
    numbers
}

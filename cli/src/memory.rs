//! Where memory comes from: an allocator that asks for it in huge pages.
//!
//! Knows nothing of what is kept in it. What a write costs is to a good part the wait for memory, and that is
//! longer where a processor must first look up where a page lies: a store of a hundred megabytes has more
//! small pages than it remembers. And the buffers of entries are large: given back to the system and asked
//! for anew, each of their pages would be one that has to be cleared first.

#![allow(unsafe_code)]

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// To ask for huge pages: most systems give them to those alone who do.
// SAFETY: the allocator looks for this name, which nobody else has, and finds what it expects: a pointer
// to text that ends in a zero.
#[used]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub(crate) static SETTINGS: &[u8; 11] = b"thp:always\0";

#[cfg(test)]
mod tests {
    use std::{
        ffi::{CStr, c_char},
        ptr,
    };
    use tikv_jemalloc_sys::mallctl;

    /// Under any other name they would lie there unread.
    #[test]
    fn the_allocator_has_read_its_settings() {
        let mut value: *const c_char = ptr::null();
        let mut len = size_of_val(&value);
        // SAFETY: what this name stands for is a pointer, and has room for one.
        let error = unsafe {
            let value = ptr::from_mut(&mut value).cast();
            mallctl(c"opt.thp".as_ptr(), value, &mut len, ptr::null_mut(), 0)
        };
        assert_eq!(error, 0);
        // SAFETY: it points to text that ends in a zero and stays.
        assert_eq!(unsafe { CStr::from_ptr(value) }, c"always");
    }
}

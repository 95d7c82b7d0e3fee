//! Panics of engines and machines, caught and kept: where, what, and whose.
//!
//! A panic is a broken invariant like any other and is told with its seed; the standard output of
//! thousands of runs is no place for it. Panics outside of a watched run go where they went before.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook},
    sync::Once,
};

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static SEEN: RefCell<Panic> = const { RefCell::new(Panic { what: String::new(), blame: None }) };
}

/// What is known of a panic.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Panic {
    /// Where, and its message.
    pub(crate) what: String,
    /// What the user's machine was doing, if it was within it.
    pub(crate) blame: Option<String>,
}

/// Runs this, and tells of its panic instead of printing it.
pub(crate) fn caught<T>(run: impl FnOnce() -> T) -> Result<T, Panic> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = take_hook();
        set_hook(Box::new(move |info| {
            if !WATCHED.get() {
                return others(info);
            }
            let what = info.payload_as_str().unwrap_or("no message");
            let at = info.location().map_or_else(String::new, |at| format!("{at}: "));
            SEEN.set(Panic { what: format!("{at}{what}"), blame: None });
        }));
    });
    let outer = WATCHED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    WATCHED.set(outer);
    result.map_err(|_| SEEN.take())
}

/// Says what was being done when a panic came; for destructors that run because of one.
pub(crate) fn blame(doing: String) {
    SEEN.with_borrow_mut(|seen| {
        seen.blame.get_or_insert(doing);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_with_its_place() {
        assert_eq!(caught(|| 7), Ok(7));
        let panic = caught(|| panic!("number {}", 3)).unwrap_err();
        assert!(panic.what.ends_with(": number 3") && panic.what.contains("panics.rs:"));
        assert_eq!(panic.blame, None);
    }
}

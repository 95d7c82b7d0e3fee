//! Panics of engines, machines and workloads, caught and kept: where, what, and whose.
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
    /// The invariant that it breaks if it is the user's, and what the user's part was doing.
    pub(crate) blame: Option<(&'static str, String)>,
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
pub(crate) fn blame(invariant: &'static str, doing: String) {
    SEEN.with_borrow_mut(|seen| {
        seen.blame.get_or_insert((invariant, doing));
    });
}

/// While it lives, a panic breaks this invariant.
pub(crate) struct Blame(pub(crate) &'static str);

impl Drop for Blame {
    fn drop(&mut self) {
        if std::thread::panicking() {
            blame(self.0, String::new());
        }
    }
}

/// Ends a run with a broken invariant, from where nothing can be returned.
pub(crate) fn raise(invariant: &'static str, what: String) -> ! {
    /// Where the panic came from says nothing: it is the sentence.
    struct Sentence(&'static str, String);

    impl Drop for Sentence {
        fn drop(&mut self) {
            let what = std::mem::take(&mut self.1);
            SEEN.set(Panic { what, blame: Some((self.0, String::new())) });
        }
    }

    let sentence = Sentence(invariant, what);
    panic!("{}: {}", sentence.0, sentence.1)
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

    #[test]
    fn a_panic_is_told_with_whose_it_is() {
        let panic = caught(|| {
            let _blame = Blame("nobody panics");
            panic!("number 3")
        });
        assert_eq!(panic.unwrap_err().blame, Some(("nobody panics", String::new())));
        let raised = caught(|| raise("all is well", "it is not".into())).unwrap_err();
        let blame = Some(("all is well", String::new()));
        assert_eq!(raised, Panic { what: "it is not".into(), blame });
    }
}

//! What threads leave for one task, which is woken for it: ended operations, machines that came home, who rang.
//!
//! Knows nothing of what it holds. Invariant: what is left is taken once, in the order in which it came, and
//! whoever takes is woken for what it did not find. `loom` looks for an order of steps in which it is not (`woken.rs`).

use crate::sync::{AtomicWaker, Mutex, lock};
use std::{mem, task::Waker};

pub(crate) struct Mailbox<T> {
    items: Mutex<Vec<T>>,
    reader: AtomicWaker,
}

impl<T> Mailbox<T> {
    pub(crate) fn put(&self, item: T) {
        self.put_all([item]);
    }

    /// All at once: the reader is woken once.
    pub(crate) fn put_all(&self, items: impl IntoIterator<Item = T>) {
        lock(&self.items).extend(items);
        self.wake();
    }

    /// Wakes the reader, for whatever reason.
    pub(crate) fn wake(&self) {
        self.reader.wake();
    }

    /// Wakes `waker` from here on. To be said before one looks.
    pub(crate) fn listen(&self, waker: &Waker) {
        #[cfg(not(lakebed_loom))]
        self.reader.register(waker);
        #[cfg(lakebed_loom)]
        self.reader.register_by_ref(waker);
    }

    /// Moves everything to the end of `items` and says how much; wakes `waker` at the next.
    pub(crate) fn take(&self, waker: &Waker, items: &mut Vec<T>) -> usize {
        self.listen(waker);
        let mut held = lock(&self.items);
        let count = held.len();
        if items.is_empty() {
            mem::swap(&mut *held, items);
        } else {
            items.append(&mut held);
        }
        count
    }
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Self { items: Mutex::new(Vec::new()), reader: AtomicWaker::new() }
    }
}

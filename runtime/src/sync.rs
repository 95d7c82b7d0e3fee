//! Locks, wakers and threads: the usual ones, or those of `loom` in a build of its own (`woken.rs`).

use std::sync::PoisonError;

#[cfg(lakebed_loom)]
pub(crate) use loom::{
    future::AtomicWaker,
    sync::{Condvar, Mutex, MutexGuard},
    thread,
};
#[cfg(not(lakebed_loom))]
pub(crate) use {
    futures::task::AtomicWaker,
    std::{
        sync::{Condvar, Mutex, MutexGuard},
        thread,
    },
};

/// For what is whole at every instant, whoever panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Files that are written beside their names, and go with a process that is told to end.
//!
//! Knows no backup. Invariant: what a signal leaves of what [`run`] does is what was there before, or all of
//! the new files under their names.

use crate::{
    block_on,
    log::{self, note},
    signals::{INTERRUPTED, Signals},
};
use anyhow::Result;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
};
use tokio::sync::oneshot;

static FILES: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
/// Whether all have their names; held while they get them.
static ARE_NAMED: Mutex<bool> = Mutex::new(false);

/// Does this on a thread of its own. A signal ends the process when what is not finished is gone; a second one,
/// at once.
///
/// Any thread of a process may be the one that its signal interrupts: what waits in there has to go on waiting.
pub(crate) fn run<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let (tell, mut told) = oneshot::channel();
    thread::scope(|scope| {
        block_on(async {
            let mut signals = Signals::listen()?;
            scope.spawn(|| drop(tell.send(work())));
            tokio::select! {
                done = &mut told => return done?,
                () = signals.next() => {}
            }
            // A file system that hangs must not keep the second signal from being heard.
            thread::spawn(end);
            tokio::select! {
                done = told => done?,
                never = signals.die_at_next() => never,
            }
        })
    })
}

fn end() {
    let are_named = lock(&ARE_NAMED);
    if *are_named {
        // All that is left to do is to say so.
        return;
    }
    let files = lock(&FILES);
    files.iter().for_each(|file| drop(fs::remove_file(file)));
    note("stopped: nothing was kept");
    log::flush();
    process::exit(INTERRUPTED)
}

/// Makes a file that is not finished yet, unless nothing comes of it.
pub(crate) fn make<T>(file: &Path, make: impl FnOnce() -> Result<Option<T>>) -> Result<Option<T>> {
    let mut files = lock(&FILES);
    let made = make()?;
    if made.is_some() {
        files.insert(file.to_owned());
    }
    Ok(made)
}

/// It is finished, or gone.
pub(crate) fn forget(file: &Path) {
    lock(&FILES).remove(file);
}

/// Gives all of them their names: a signal waits until they have.
pub(crate) fn name<T>(name: impl FnOnce() -> Result<T>) -> Result<T> {
    let mut are_named = lock(&ARE_NAMED);
    let named = name();
    *are_named = named.is_ok();
    named
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

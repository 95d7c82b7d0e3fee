//! Looks at a node's file system, which may hang with its disk.
//!
//! Knows nothing of what is looked for. Invariant: whoever looks is answered in time, and a disk that
//! hangs keeps one thread, however often it is looked at.

use std::{sync::Arc, time::Duration};
use tokio::{sync::Mutex, task::spawn_blocking, time::timeout};

/// How long a look may take.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// The looks at one file system: one at a time.
#[derive(Clone, Debug)]
pub(crate) struct Looks {
    turn: Arc<Mutex<()>>,
    patience: Duration,
}

impl Default for Looks {
    fn default() -> Self {
        Self { turn: Arc::default(), patience: LOOK_MAX }
    }
}

impl Looks {
    /// What is found; nothing, which is the default, if that takes too long or an earlier look still does.
    pub(crate) async fn find<T: Default + Send + 'static>(
        &self,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let found = timeout(self.patience, async {
            let turn = Arc::clone(&self.turn).lock_owned().await;
            let look = move || {
                let found = look();
                drop(turn);
                found
            };
            spawn_blocking(look).await.ok()
        });
        found.await.ok().flatten().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    /// INFO waited for a `statfs` that hung, and each look at the metrics left one more thread to it.
    #[tokio::test]
    async fn a_disk_that_hangs_keeps_one_look_and_nobody_who_looks() {
        let ((open, gate), (begun, begins)) = (channel::<()>(), channel());
        let hasty = Looks { patience: Duration::ZERO, ..Looks::default() };
        let patient = Looks { patience: Duration::from_secs(60), turn: Arc::clone(&hasty.turn) };
        // It ends with the test at the latest.
        let hangs = move || begun.send(()).map_or(1, |()| gate.recv().map_or(2, |()| 3));
        assert_eq!(hasty.find(hangs).await, 0, "nothing is known");
        begins.recv().expect("it was begun");
        let (looked, looks) = channel();
        for _ in 0..3 {
            let looked = looked.clone();
            assert_eq!(hasty.find(move || looked.send(()).map_or(1, |()| 2)).await, 0);
        }
        drop((looked, open));
        assert_eq!(patient.find(|| 3).await, 3, "and then it is looked again");
        assert!(looks.recv().is_err(), "nobody looked meanwhile");
    }
}

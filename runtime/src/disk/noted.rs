//! A place that notes what was asked of it, in order, and where some of that fails; for tests of what makes
//! durable what others have asked for.

use super::{Ending, place::Place};
use bytes::Bytes;
use lakebed::{Completion, DiskError, DiskRequest, Extent, File};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
};

const FAILS: DiskError = DiskError::Io { errno: 5 };
/// A write there fails.
const BAD: u64 = 13;

/// See the module. Its syncs wait until they are let.
#[derive(Clone)]
pub(super) struct Noted(Arc<Notes>);

struct Notes {
    asked: Mutex<Vec<String>>,
    begun: Sender<()>,
    gate: Mutex<Receiver<()>>,
}

/// One there, what tells of each sync that begins, and what lets all of them go on when it is dropped.
pub(super) fn noted() -> (Noted, Receiver<()>, Sender<()>) {
    let ((begun, begins), (open, gate)) = (channel(), channel());
    let notes = Notes { asked: Mutex::default(), begun, gate: Mutex::new(gate) };
    (Noted(Arc::new(notes)), begins, open)
}

/// A round of commits, by the numbers of their operations.
pub(super) fn round() -> [(u64, DiskRequest); 5] {
    let write = |segment, offset, durable| {
        let at = Extent::new(offset, Bytes::from_static(b"x"));
        DiskRequest::Write { file: File::Segment(segment), at, and: None, durable }
    };
    [
        (1, write(1, 0, true)),
        (2, write(2, 0, true)),
        (3, write(1, 1, false)),
        (4, DiskRequest::Sync { file: File::Segment(3) }),
        (5, write(1, BAD, true)),
    ]
}

/// Those of the round that wait for no sync.
pub(super) const AT_ONCE: [u64; 2] = [3, 5];

impl Noted {
    /// Each sync came behind all writes, once for each file, and everybody was told of his own.
    pub(super) fn judge(&self, ended: &BTreeMap<u64, Ending>) {
        let asked = self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).join(", ");
        assert_eq!(
            asked,
            "write 1 at 0, write 2 at 0, write 1 at 1, write 1 at 13, sync 1, sync 2, sync 3"
        );
        let expected = [Ok(()), Err(FAILS), Ok(()), Ok(()), Err(FAILS)];
        let expected = expected.map(|ended| ended.map(|()| Completion::Done));
        assert_eq!(*ended, (1..).zip(expected).collect());
    }
}

impl Place for Noted {
    fn perform(&self, request: &DiskRequest) -> Ending {
        let (note, fails) = match request {
            DiskRequest::Write { file: File::Segment(segment), at, durable: false, .. } => {
                (format!("write {segment} at {}", at.offset), at.offset == BAD)
            }
            DiskRequest::Sync { file: File::Segment(segment) } => {
                (format!("sync {segment}"), *segment == 2)
            }
            request => (format!("{request:?}"), false),
        };
        let is_sync = note.starts_with("sync");
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).push(note);
        if is_sync {
            // The test may be over.
            let _ = self.0.begun.send(());
            let _ = self.0.gate.lock().unwrap_or_else(PoisonError::into_inner).recv();
        }
        if fails { Err(FAILS) } else { Ok(Completion::Done) }
    }

    fn read(&self, _: File, _: u64, _: &mut [u8]) -> Result<usize, DiskError> {
        Ok(0)
    }

    fn create(&self, _: File, _: u64, _: &mut dyn FnMut()) -> Ending {
        Ok(Completion::Done)
    }

    fn remove(&self, _: File, _: &mut dyn FnMut()) -> Ending {
        Ok(Completion::Done)
    }
}

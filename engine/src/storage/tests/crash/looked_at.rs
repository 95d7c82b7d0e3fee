//! What crashes leave, looked at: nothing in it is told as damage that a crash alone can make, what
//! the look says a restart does is what it does, and after the restart every byte is well.

use super::{Disk, Lives, config};
use crate::{Inspection, report::Defect, storage::*};

impl Lives {
    /// Before the restart: it must start, and at most a record is torn that has another copy.
    pub(super) fn look_after_crash(&self) {
        if self.disk.names.contains_key(&File::HardState) {
            let found = look(&self.disk);
            assert!(found.judgement.starts, "{found}");
            assert!(found.defects.iter().all(has_a_copy), "{found}");
        }
    }

    /// After it: what was torn was written again.
    pub(super) fn look_after_restart(&self) {
        let found = look(&self.disk);
        assert!(found.is_well(), "{found}");
        let log = found.log.expect("it was looked at");
        let last = self.recovered.as_ref().expect("the restart is over").last;
        assert_eq!(log.last, last, "{found}");
    }
}

fn has_a_copy(defect: &Defect) -> bool {
    let copied = ["a block of copy", "header ", "the end record"];
    copied.iter().any(|record| defect.expected.starts_with(record))
}

fn look(disk: &Disk) -> Inspection {
    let mut disk = disk.clone();
    let mut storage = Storage::new(&config(), 7);
    storage.on_start(Start::Verify);
    loop {
        let mut out = Vec::new();
        assert!(storage.recover(Instant(1), &mut out).is_none());
        match storage.halt() {
            None => {}
            Some(Halt::Inspected(found)) => return *found,
            Some(other) => panic!("{other}"),
        }
        for action in out {
            let Action::Disk { op, request, .. } = action else { continue };
            let result = disk.perform(&request);
            storage.on_completed(Instant(1), op, result);
        }
    }
}

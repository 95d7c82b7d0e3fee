//! How much memory this process has at its peak.
//!
//! Of the whole process: what is measured by it runs alone.

use std::fs;

/// A time to come, from what there is now on.
pub struct Peak {
    before: u64,
}

impl Peak {
    /// What was freed before is given back first, for it would be used again without being seen.
    pub fn begin() -> Self {
        // SAFETY: it takes nothing of ours.
        unsafe { libc::malloc_trim(0) };
        // The system forgets the peak of before.
        fs::write("/proc/self/clear_refs", "5").expect("a process may ask that of itself");
        Self { before: of_status("VmRSS:") }
    }

    /// Bytes that there were at most at one time, beyond those at the beginning.
    pub fn bytes(&self) -> u64 {
        of_status("VmHWM:").saturating_sub(self.before)
    }
}

/// A line of what the system tells, in bytes.
fn of_status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("it tells of itself");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("a number of KiB") << 10
}

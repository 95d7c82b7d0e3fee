//! Who holds a lock, as far as the system tells (`/proc/locks`, see proc_locks(5)).

use rustix::fs::{major, minor};
use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// The process that holds this file's lock.
pub(super) fn of(lock: &Path) -> Option<u32> {
    let file = fs::metadata(lock).ok()?;
    let (major, minor) = (major(file.dev()), minor(file.dev()));
    let name = format!("{major:02x}:{minor:02x}:{}", file.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| process(line, &name))
}

/// `1: FLOCK  ADVISORY  WRITE 4711 fd:01:1234 0 EOF`; a process of another namespace is zero.
fn process(line: &str, file: &str) -> Option<u32> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let [_, "FLOCK", _, _, process, found, ..] = fields[..] else { return None };
    let process = process.parse().ok().filter(|process| *process > 0)?;
    (found == file).then_some(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_systems_table_is_read() {
        let line = "12: FLOCK  ADVISORY  WRITE 4711 fd:01:1234 0 EOF";
        assert_eq!(process(line, "fd:01:1234"), Some(4711));
        for (line, file) in [
            (line, "fd:01:12"),
            ("12: POSIX  ADVISORY  WRITE 4711 fd:01:1234 0 EOF", "fd:01:1234"),
            ("12: -> FLOCK  ADVISORY  WRITE 4711 fd:01:1234 0 EOF", "fd:01:1234"),
            ("12: FLOCK  ADVISORY  WRITE 0 fd:01:1234 0 EOF", "fd:01:1234"),
            ("", "fd:01:1234"),
        ] {
            assert_eq!(process(line, file), None, "{line}");
        }
    }
}

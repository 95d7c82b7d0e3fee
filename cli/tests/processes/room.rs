//! Room on disk that a test takes and gives back: the system's own refusals, not acted ones.
//!
//! Small file systems, mounted where nobody else sees them: the test runs again in a namespace of
//! its own, which takes its mounts with it. Where the system allows no mounts, the size of files
//! is limited instead, and the test says so: that too is the system's refusal in the middle of a
//! node's writes, though a file system that is full refuses more than that.

use crate::common::{Process, lakebed};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use std::{
    env,
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

/// Says, to a test that runs again, that it may mount.
const INSIDE: &str = "LAKEBED_TEST_MOUNTS";
const BALLAST: &str = "ballast";

/// What a test may do about room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Means {
    Mounts,
    /// Limits of processes.
    Limits,
}

/// Runs this test by the means that there are; `name` is its path below the crate.
pub(crate) fn with_room(name: &str, test: fn(Means)) {
    if env::var_os(INSIDE).is_some() {
        return test(Means::Mounts);
    }
    match namespace() {
        Ok(flags) => again(name, flags),
        Err(why) => {
            // Not by a macro: what those print is shown of tests that fail alone.
            let mut stderr = io::stderr();
            writeln!(stderr, "{name}: no mounts here ({why}): files are limited instead").unwrap();
            test(Means::Limits);
        }
    }
}

/// The flags of `unshare` that lead to a place where one may mount: as root, or as a user who
/// becomes root of nothing else.
fn namespace() -> Result<&'static str, String> {
    let mut why = String::new();
    for flags in ["-m", "-rm"] {
        let tried = Command::new("unshare")
            .args([flags, "mount", "-t", "tmpfs", "-o", "size=1m", "lakebed", "/mnt"])
            .output();
        match tried {
            Ok(Output { status, .. }) if status.success() => return Ok(flags),
            Ok(Output { stderr, .. }) => why = String::from_utf8_lossy(&stderr).trim().into(),
            Err(error) => why = format!("unshare: {error}"),
        }
    }
    Err(why)
}

/// The same test in a namespace of its own.
fn again(name: &str, flags: &str) {
    let status = Command::new("unshare")
        .arg(flags)
        .arg(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status();
    assert!(status.unwrap().success(), "{name} failed in its own namespace: see above");
}

/// A small file system, or what stands for it.
pub(crate) struct Room {
    means: Means,
    dir: PathBuf,
}

impl Room {
    /// Makes `dir` a place of `mib` MiB, as far as there are means for it.
    pub(crate) fn of(means: Means, dir: &Path, mib: u32) -> Self {
        fs::create_dir_all(dir).unwrap();
        if means == Means::Mounts {
            let size = format!("size={mib}m");
            let mount = ["-t", "tmpfs", "-o", &size, "lakebed"];
            let status = Command::new("mount").args(mount).arg(dir).status();
            assert!(status.unwrap().success(), "it worked a moment ago");
        }
        Self { means, dir: dir.to_owned() }
    }

    /// Takes all room from these processes; what they have they keep.
    pub(crate) fn take(&self, processes: &[Pid]) {
        match self.means {
            Means::Mounts => self.fill(),
            Means::Limits => {
                let largest = largest_file(&self.dir);
                processes.iter().for_each(|process| limit(*process, Some(largest)));
            }
        }
    }

    fn fill(&self) {
        let mut ballast = File::create(self.dir.join(BALLAST)).unwrap();
        let error = loop {
            if let Err(error) = ballast.write_all(&[7; 4096]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
    }

    /// Gives it back.
    pub(crate) fn give(&self, processes: &[Pid]) {
        match self.means {
            Means::Mounts => fs::remove_file(self.dir.join(BALLAST)).unwrap(),
            Means::Limits => processes.iter().for_each(|process| limit(*process, None)),
        }
    }
}

/// What was mounted goes with the namespace: whoever looks into a failure finds a copy.
impl Drop for Room {
    fn drop(&mut self) {
        if thread::panicking() && self.means == Means::Mounts {
            let copy = self.dir.with_extension("kept");
            // The test has failed already.
            let _ = Command::new("cp").arg("-a").arg(&self.dir).arg(copy).status();
        }
    }
}

/// The size of files that this process may write; without one, as much as it may have.
fn limit(process: Pid, bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    prlimit(Some(process), Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum })
        .unwrap();
}

fn largest_file(dir: &Path) -> u64 {
    let sizes = fs::read_dir(dir).unwrap().map(|entry| {
        let entry = entry.unwrap();
        match entry.metadata().unwrap() {
            found if found.is_dir() => largest_file(&entry.path()),
            found => found.len(),
        }
    });
    sizes.max().unwrap_or(0)
}

/// A command whose files may grow to so many blocks of 512 bytes: what a full disk is to it.
pub(crate) fn limited(args: &[&str], blocks: u32) -> Command {
    let command = lakebed(args);
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("ulimit -f {blocks}; exec \"$0\" \"$@\"")]);
    shell.arg(command.get_program()).args(command.get_args());
    shell
}

/// Under that limit it ends with this on standard error.
#[track_caller]
pub(crate) fn finds_no_room(args: &[&str], blocks: u32, expected: &[&str]) {
    let mut process = Process::start(&mut limited(args, blocks));
    let (code, told) = (process.ended().code(), process.errors());
    assert_eq!(code, Some(1), "{told}");
    for expected in expected {
        assert!(told.contains(expected), "{told}");
    }
}

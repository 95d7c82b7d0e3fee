//! Replays what fuzzing found worth keeping, so that a bug it found stays found: a part of each
//! crate's tests, beside the targets that the fuzzer runs.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Runs every kept input of this target, and these to begin with. `LAKEBED_GOLDEN=write` keeps the
/// latter where there is nothing yet: a fuzzer starts from them.
pub(crate) fn replay(target: &str, run: impl Fn(&[u8]), seeds: &[Vec<u8>]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/fuzz").join(target);
    if !folder.exists() && std::env::var("LAKEBED_GOLDEN").is_ok_and(|v| v == "write") {
        fs::create_dir_all(&folder).expect("fixtures can be written");
        for (n, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("seed-{n:02}")), seed).expect("fixtures can be written");
        }
    }
    seeds.iter().for_each(|seed| run(seed));
    let kept = kept(&folder);
    assert!(!kept.is_empty(), "{}: nothing is kept for this target", folder.display());
    for path in kept {
        // The last one that is named is the one that failed.
        println!("{}", path.display());
        run(&fs::read(path).expect("a kept input can be read"));
    }
}

fn kept(folder: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut found: Vec<_> = found.map(|entry| entry.expect("a folder is listed").path()).collect();
    found.sort();
    found
}

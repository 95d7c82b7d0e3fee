//! What a fuzzer runs: plans (`engine/src/fuzzing` says how targets are made). No part of the
//! library.

use crate::{PlanFile, plan::PlanError};

/// Any text: a plan is printed as it is read, and whatever is none is said to be none, where.
pub fn plan(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match text.parse::<PlanFile>() {
        Ok(file) => {
            let printed = file.to_string();
            assert_eq!(printed.parse(), Ok(file), "{printed}");
        }
        Err(error) => {
            if let PlanError::Line { line, .. } = &error {
                assert!((1..=text.lines().count().max(1)).contains(line), "{error}");
            }
            assert!(!error.to_string().is_empty());
        }
    }
}

#[cfg(test)]
#[path = "../../fuzz/corpus.rs"]
mod corpus;

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    #[test]
    fn kept_plans_are_printed_as_they_are_read() {
        let plans = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/plans");
        let plans = fs::read_dir(plans).expect("plans are kept");
        let read = |entry: std::io::Result<fs::DirEntry>| {
            fs::read(entry.expect("a folder is listed").path()).expect("a plan can be read")
        };
        let plans: Vec<_> = plans.map(read).collect();
        assert!(plans.len() > 20, "{} plans", plans.len());
        corpus::replay("plan", plan, &plans);
    }
}

//! What the environment asks for.

use crate::{Seed, plan::PlanFile};
use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    path::{Path, PathBuf},
};

/// How many seeds a test runs unless it is told otherwise.
const SEEDS_DEFAULT: u64 = 20;

/// What is run, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Settings {
    pub(super) runs: Runs,
    pub(super) trace: bool,
    pub(super) twice: bool,
    /// Where a shrunk plan goes, if what fails is to be shrunk.
    pub(super) shrink: Option<PathBuf>,
}

/// Seeds, or a plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Runs {
    Seeds { first: u64, count: u64 },
    Plan(PathBuf),
}

impl Settings {
    /// From variables; in a sentence, which of them cannot be meant.
    pub(super) fn read(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, String> {
        let number = |name| variable(name).map(|value| number(name, &value)).transpose();
        let flag = |name| Ok::<_, String>(number(name)?.is_some_and(|n| n > 0));
        let path = |name| variable(name).map(|value| typed(name, &value)).transpose();
        let runs = match (number("SIM_SEED")?, number("SIM_SEEDS")?, path("SIM_PLAN")?) {
            (None, None, None) => Runs::Seeds { first: 0, count: SEEDS_DEFAULT },
            (Some(first), None, None) => Runs::Seeds { first, count: 1 },
            (None, Some(0), None) => return Err("SIM_SEEDS must be at least 1, not 0".into()),
            (None, Some(count), None) => Runs::Seeds { first: 0, count },
            (None, None, Some(path)) => Runs::Plan(path),
            _ => return Err("give one of SIM_SEED, SIM_SEEDS and SIM_PLAN, not several".into()),
        };
        let (trace, twice) = (flag("SIM_TRACE")?, flag("SIM_TWICE")?);
        Ok(Self { runs, trace, twice, shrink: path("SIM_SHRINK")? })
    }

    /// What to run, for a test that checks this scenario.
    pub(super) fn seeds(&self, scenario: &str) -> Result<impl Iterator<Item = Seed>, String> {
        self.shrink.as_deref().map_or(Ok(()), writable)?;
        let (first, count, planned) = match &self.runs {
            Runs::Seeds { first, count } => (*first, *count, None),
            Runs::Plan(path) => (0, 0, Some(Seed::of_plan(plan(path, scenario)?.plan))),
        };
        let drawn = (0..count).map(move |n| Seed::new(first.wrapping_add(n)));
        Ok(planned.into_iter().chain(drawn))
    }
}

fn plan(path: &Path, scenario: &str) -> Result<PlanFile, String> {
    let at = path.display();
    let text = fs::read_to_string(path).map_err(|e| format!("SIM_PLAN: cannot read {at}: {e}"))?;
    let file: PlanFile = text.parse().map_err(|error| format!("SIM_PLAN: {at}: {error}"))?;
    if file.scenario.is_empty() || file.scenario == scenario {
        return Ok(file);
    }
    let other = &file.scenario;
    Err(format!("SIM_PLAN: {at} is a plan of {other}, and this test runs {scenario}"))
}

/// Whether the shrunk plan can be kept there: it takes long until there is one. What is there is left
/// alone, and nothing is left there.
fn writable(path: &Path) -> Result<(), String> {
    let is_new = !path.exists();
    let opened = File::options().append(true).create(true).open(path);
    opened.map_err(|e| format!("SIM_SHRINK: cannot write {}: {e}", path.display()))?;
    if is_new {
        // That it stays, and is empty, is no harm.
        let _ = fs::remove_file(path);
    }
    Ok(())
}

fn number(name: &str, value: &OsStr) -> Result<u64, String> {
    let number = value.to_str().and_then(|value| value.parse().ok());
    number.ok_or_else(|| format!("{name} must be a whole number, not {value:?}"))
}

/// Where a path leads that was typed in a shell: cargo runs tests in another directory.
fn typed(name: &str, value: &OsStr) -> Result<PathBuf, String> {
    if value.is_empty() {
        return Err(format!("{name} must be the name of a file, and is empty"));
    }
    let typed_in = env::var_os("PWD").map(PathBuf::from).filter(|shell| shell.is_absolute());
    Ok(typed_in.map_or_else(|| value.into(), |shell| shell.join(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Settings, String> {
        let of = |name: &str| variables.iter().find(|(known, _)| *known == name);
        Settings::read(|name| of(name).map(|(_, value)| value.into()))
    }

    #[test]
    fn a_test_runs_what_it_is_told() {
        let some = Runs::Seeds { first: 0, count: SEEDS_DEFAULT };
        assert_eq!(read(&[]).unwrap().runs, some);
        let one = read(&[("SIM_SEED", "18446744073709551615"), ("SIM_TRACE", "1")]).unwrap();
        assert_eq!(one.runs, Runs::Seeds { first: u64::MAX, count: 1 });
        assert!(one.trace && !one.twice && one.shrink.is_none());
        assert_eq!(one.seeds("any").unwrap().count(), 1);
        let plan = read(&[("SIM_PLAN", "/some/plan"), ("SIM_SHRINK", "/smaller")]).unwrap();
        assert_eq!(plan.runs, Runs::Plan("/some/plan".into()));
        assert_eq!(plan.shrink, Some("/smaller".into()));
    }

    #[test]
    fn variables_that_cannot_be_meant_are_refused() {
        let cases: [(&[(&str, &str)], &str); 6] = [
            (&[("SIM_SEED", "x")], "SIM_SEED must be a whole number, not \"x\""),
            (&[("SIM_SEEDS", "-1")], "SIM_SEEDS must be a whole number"),
            (&[("SIM_SEEDS", "0")], "SIM_SEEDS must be at least 1"),
            (&[("SIM_SEED", "1"), ("SIM_PLAN", "f")], "not several"),
            (&[("SIM_TRACE", "yes")], "SIM_TRACE must be a whole number"),
            (&[("SIM_PLAN", "")], "SIM_PLAN must be the name of a file"),
        ];
        for (variables, expected) in cases {
            let problem = read(variables).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }

    #[test]
    fn a_plan_that_cannot_be_run_is_named() {
        let dir = env::temp_dir().join(format!("lakebed-settings-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a.plan");
        let refused = |text: Option<&str>| {
            if let Some(text) = text {
                fs::write(&path, text).unwrap();
            }
            let problem = plan(&path, "storm_of_three").unwrap_err();
            assert!(problem.contains("a.plan"), "{problem}");
            problem
        };
        assert!(refused(None).contains("cannot read"));
        assert!(refused(Some("lakebed plan 1\nnonsense\n")).contains("line 2"));
        assert!(refused(Some("lakebed plan 0\n")).contains("an older lakebed"));
        let other = "lakebed plan 1\nscenario storm_of_five\nseed 1\nnodes 5\n";
        assert!(refused(Some(other)).contains("a plan of storm_of_five"));
        fs::remove_dir_all(&dir).unwrap();
    }

    /// It was found out behind all the work, and the failure was not told either.
    #[test]
    fn a_shrunk_plan_that_cannot_be_kept_is_refused_before_anything_runs() {
        let dir = env::temp_dir().join(format!("lakebed-shrunk-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let seeds = |path: &Path| {
            let settings = read(&[("SIM_SHRINK", path.to_str().unwrap())]).unwrap();
            settings.seeds("any").map(Iterator::count)
        };
        for wrong in [&dir.join("none/small.plan"), &dir] {
            let problem = seeds(wrong).unwrap_err();
            let expected = format!("SIM_SHRINK: cannot write {}: ", wrong.display());
            assert!(problem.starts_with(&expected), "{problem}");
        }
        let (new, kept) = (dir.join("new.plan"), dir.join("kept.plan"));
        fs::write(&kept, "of before").unwrap();
        assert!(seeds(&new).is_ok() && seeds(&kept).is_ok());
        assert!(!new.exists(), "nothing is made");
        assert_eq!(fs::read_to_string(&kept).unwrap(), "of before");
        fs::remove_dir_all(&dir).unwrap();
    }
}

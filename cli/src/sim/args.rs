//! The command line of `lakebed sim`, and which part of a sweep a machine of many does.

use clap::{
    Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use lakebed_scenarios::{
    SCENARIOS, Scenario, scenario,
    stories::{self, STORIES, Told},
};
use std::{
    ffi::OsString,
    num::{NonZeroU64, NonZeroUsize},
    path::PathBuf,
    str::FromStr,
};

#[derive(Subcommand, Debug)]
pub(crate) enum Sim {
    /// List the scenarios
    List,
    /// Run many seeds
    Run(Run),
    /// Run one seed, or a plan that was kept, again
    Replay(One),
    /// Print what happens in one run, a line per event and per action
    Trace(One),
    /// Write the plan of a seed
    Plan(Planned),
    /// Make what fails as small as it can be and fail in the same way
    Shrink(Kept),
    /// Crash a story at every step of a node's disk, in every way that the disk allows
    Exhaust(Exhaust),
    /// Flip each bit of a node's disk, one at a time, and start the cluster again
    Flips(Flips),
}

#[derive(clap::Args, Debug)]
pub(crate) struct Exhaust {
    /// Which [default: each]
    #[arg(value_parser = stories())]
    pub(crate) story: Option<&'static Told>,
    /// Crash each recovery as well, at each of its steps
    #[arg(long)]
    pub(crate) twice: bool,
    /// Crash only at each N-th step
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) every: NonZeroU64,
    /// Let sectors tear within when the power fails
    #[arg(long)]
    pub(crate) tears: bool,
    #[command(flatten)]
    pub(crate) share: Share,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Flips {
    /// Flip only each N-th
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) every: NonZeroUsize,
    #[command(flatten)]
    pub(crate) share: Share,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Share {
    /// Whose disk, counting from 1 [default: one after the other]
    #[arg(long)]
    pub(crate) node: Option<NonZeroUsize>,
    /// How many are tried at a time [default: one per processor]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) jobs: Option<u16>,
    /// End with one line, a JSON list with an object per story and node
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the plan of a failure goes; where several nodes or stories are searched, each puts its
    /// name in: FILE-STORY-node-N [default: STORY-DIGEST.plan here]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

fn stories() -> impl TypedValueParser<Value = &'static Told> {
    PossibleValuesParser::new(STORIES.iter().map(|told| told.scenario.name)).map(|name| {
        let told = STORIES.iter().find(|told| told.scenario.name == name);
        told.expect("clap takes no other name")
    })
}

#[derive(clap::Args, Debug)]
pub(crate) struct Run {
    /// Which [default: all, one after the other]
    #[arg(value_parser = scenarios())]
    pub(crate) scenario: Option<&'static Scenario>,
    /// The first seed, and the first that is not run
    #[arg(long, value_name = "FIRST..END", default_value = "0..1000")]
    pub(crate) seeds: Seeds,
    /// How many run at a time [default: one per processor]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) jobs: Option<u16>,
    /// Run the I-th of N parts, counting from 1; I may be left out within a batch job of
    /// Kubernetes or Slurm
    #[arg(long, value_name = "I/N")]
    pub(crate) shard: Option<ShardArg>,
    /// End with one line, a JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::Args, Debug)]
pub(crate) struct One {
    /// Whose machine and workload
    #[arg(value_parser = scenarios())]
    pub(crate) scenario: &'static Scenario,
    /// A seed, or the file of a plan
    #[arg(value_name = "SEED|FILE")]
    pub(crate) which: Which,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Planned {
    #[command(flatten)]
    pub(crate) one: One,
    /// Where the plan goes [default: it is printed]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Kept {
    #[command(flatten)]
    pub(crate) one: One,
    /// Where the plan goes [default: SCENARIO-SEED.plan here, or beside FILE]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

fn scenarios() -> impl TypedValueParser<Value = &'static Scenario> {
    let stories = stories::all().map(|told| told.scenario.name);
    PossibleValuesParser::new(SCENARIOS.iter().map(|scenario| scenario.name).chain(stories))
        .map(|name| scenario(&name).expect("clap takes no other name"))
}

/// A seed, or where a plan is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    Seed(u64),
    File(PathBuf),
}

impl FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(seed) => Ok(Self::Seed(seed)),
            Err(_) if digits => Err("a seed is a whole number below 2^64".into()),
            Err(_) => Ok(Self::File(text.into())),
        }
    }
}

/// Seeds from the first up to, and without, the last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Seeds {
    pub(crate) first: u64,
    pub(crate) end: u64,
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "seeds are FIRST..END, such as 0..10000".to_string();
        let (first, end) = text.split_once("..").ok_or_else(form)?;
        let number = |text: &str| text.parse::<u64>().map_err(|_| form());
        let (first, end) = (number(first)?, number(end)?);
        if first > end {
            return Err(format!("it ends before it begins; {end}..{first} is meant?"));
        }
        if first == end {
            return Err(format!("no seed is in it; {first}..{} is one", first.saturating_add(1)));
        }
        Ok(Self { first, end })
    }
}

/// What `--shard` says: which part, perhaps, and of how many.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ShardArg {
    index: Option<u64>,
    of: u64,
}

impl FromStr for ShardArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "a shard is I/N, such as 1/8, or /N within a batch job".to_string();
        let (index, of) = text.split_once('/').ok_or_else(form)?;
        let of: u64 = of.parse().map_err(|_| form())?;
        if of == 0 {
            return Err("there is no part of nothing; N is 1 or more".into());
        }
        if index.is_empty() {
            return Ok(Self { index: None, of });
        }
        match index.parse().map_err(|_| form())? {
            0 => Err(format!("parts count from 1; the first one is 1/{of}")),
            index if index > of => Err(format!("there are {of} parts; the last one is {of}/{of}")),
            index => Ok(Self { index: Some(index - 1), of }),
        }
    }
}

/// A part of a sweep: every `of`-th seed, from the `index`-th on, which counts from zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Shard {
    pub(crate) index: u64,
    pub(crate) of: u64,
}

impl Shard {
    /// From the flag; what that leaves out, from what batch systems tell a job of many. In a
    /// sentence, why that cannot be.
    pub(crate) fn of(
        flag: Option<ShardArg>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, String> {
        if let Some(ShardArg { index: Some(index), of }) = flag {
            return Ok(Self { index, of });
        }
        let number = |name: &str| -> Result<Option<u64>, String> {
            let Some(value) = variable(name) else { return Ok(None) };
            let number = value.to_str().and_then(|value| value.parse().ok());
            number.map(Some).ok_or_else(|| format!("{name} is no whole number: {value:?}"))
        };
        let (name, found) = match number("JOB_COMPLETION_INDEX")? {
            Some(index) => ("JOB_COMPLETION_INDEX", Some((index, None))),
            None => ("SLURM_ARRAY_TASK_ID", slurm(number)?),
        };
        let (index, of) = match (found, flag) {
            (None, None) => (0, 1),
            (None, Some(ShardArg { of, .. })) => {
                return Err(format!(
                    "--shard /{of} needs JOB_COMPLETION_INDEX or SLURM_ARRAY_TASK_ID; elsewhere \
                     say which part, such as --shard 1/{of}"
                ));
            }
            (Some((index, of)), flag) => match flag.map(|flag| flag.of).or(of) {
                Some(of) => (index, of),
                None => {
                    return Err(format!(
                        "{name} is {index}, and nothing says of how many: give --shard /N with \
                         the job's number of completions, or --shard 1/1 to run all"
                    ));
                }
            },
        };
        if index >= of {
            return Err(format!("{name} makes this part {} of {of}", index.saturating_add(1)));
        }
        Ok(Self { index, of })
    }
}

/// Which task of its array this is, from zero, and of how many.
fn slurm(
    number: impl Fn(&str) -> Result<Option<u64>, String>,
) -> Result<Option<(u64, Option<u64>)>, String> {
    let Some(id) = number("SLURM_ARRAY_TASK_ID")? else { return Ok(None) };
    let least = number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0);
    let step = number("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1);
    let count = number("SLURM_ARRAY_TASK_COUNT")?;
    Ok(Some((id.saturating_sub(least) / step, count)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_that_cannot_be_meant_are_refused() {
        assert_eq!("3..7".parse(), Ok(Seeds { first: 3, end: 7 }));
        let cases = [
            ("7..3", "3..7 is meant?"),
            ("7..7", "7..8 is one"),
            ("7", "FIRST..END"),
            ("..", "FIRST..END"),
            ("0..=7", "FIRST..END"),
            ("-1..7", "FIRST..END"),
            ("0..18446744073709551616", "FIRST..END"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<Seeds>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    type Variables<'a> = &'a [(&'a str, &'a str)];

    fn shard(flag: &str, variables: Variables<'_>) -> Result<(u64, u64), String> {
        let flag = (!flag.is_empty()).then(|| flag.parse::<ShardArg>()).transpose()?;
        let of = |name: &str| variables.iter().find(|(known, _)| *known == name);
        let shard = Shard::of(flag, |name| of(name).map(|(_, value)| value.into()))?;
        Ok((shard.index, shard.of))
    }

    #[test]
    fn a_shard_is_told_by_the_flag_or_by_the_batch_system() {
        let kubernetes = [("JOB_COMPLETION_INDEX", "4")];
        let slurm = [
            ("SLURM_ARRAY_TASK_ID", "11"),
            ("SLURM_ARRAY_TASK_MIN", "5"),
            ("SLURM_ARRAY_TASK_STEP", "2"),
            ("SLURM_ARRAY_TASK_COUNT", "8"),
        ];
        assert_eq!(shard("", &[]), Ok((0, 1)));
        assert_eq!(shard("3/8", &[]), Ok((2, 8)));
        assert_eq!(shard("3/8", &kubernetes), Ok((2, 8)));
        assert_eq!(shard("/8", &kubernetes), Ok((4, 8)));
        assert_eq!(shard("", &slurm), Ok((3, 8)));
        assert_eq!(shard("/20", &slurm), Ok((3, 20)));
    }

    #[test]
    fn a_shard_that_cannot_be_meant_is_refused() {
        let kubernetes = [("JOB_COMPLETION_INDEX", "4")];
        let cases: [(&str, Variables<'_>, &str); 10] = [
            ("9/8", &[], "the last one is 8/8"),
            ("0/8", &[], "the first one is 1/8"),
            ("1/0", &[], "N is 1 or more"),
            ("8", &[], "I/N"),
            ("a/8", &[], "I/N"),
            ("/8", &[], "--shard 1/8"),
            ("", &kubernetes, "give --shard /N"),
            ("/4", &kubernetes, "JOB_COMPLETION_INDEX makes this part 5 of 4"),
            ("/4", &[("JOB_COMPLETION_INDEX", "x")], "no whole number"),
            ("", &[("SLURM_ARRAY_TASK_ID", "3")], "SLURM_ARRAY_TASK_ID is 3"),
        ];
        for (flag, variables, expected) in cases {
            let error = shard(flag, variables).unwrap_err();
            assert!(error.contains(expected), "{flag}: {error}");
        }
    }

    #[test]
    fn a_number_is_a_seed_and_the_rest_are_files() {
        assert_eq!("17".parse(), Ok(Which::Seed(17)));
        assert_eq!("17.plan".parse(), Ok(Which::File("17.plan".into())));
        assert!("99999999999999999999".parse::<Which>().is_err());
    }
}

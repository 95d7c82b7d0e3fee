//! Wakes one mutant after the other and asks, cheapest first, who notices.

use crate::list::Mutant;
use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// How often it is looked whether a run has ended.
const LOOK: Duration = Duration::from_millis(5);
/// How a line ends in which a test program says that a test failed. It runs the others all the same.
const FAILED: &[u8] = b" FAILED";
/// What a run may take: so much, and so many times what it takes with all mutants asleep.
const GRACE: (Duration, u32) = (Duration::from_secs(10), 6);

/// Tests of the engine that take seconds: others come before them.
const SLOW: [&str; 6] = [
    "storage::tests::crash",
    "storage::tests::replays",
    "every_used_byte",
    "rafts_properties_hold",
    "every_flipped_bit",
    "a_log_of_many_segments",
];

/// A run that passes as long as nobody is awake.
struct Hunter {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    seeds: Option<u32>,
    directory: PathBuf,
    takes: Duration,
}

/// What became of a mutant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fate {
    pub id: u32,
    pub name: String,
    /// Who noticed.
    pub caught_by: Option<String>,
    /// It did not end in time.
    pub hung: bool,
}

/// Who hunts, beside the engine's own tests.
#[derive(clap::Args)]
pub struct Party {
    /// Storms and seeds of the first look, for most are noticed by a few
    #[arg(long, value_delimiter = ',', value_parser = parse_storm,
          default_value = "storm_of_three=10,storm_of_five=5,storm_of_installs=5,churn=3")]
    quick: Vec<(String, u32)>,
    /// Storms and seeds for those that neither it nor the engine's tests noticed: a few of every storm,
    /// as it may be one alone that meets what a mutant is about
    #[arg(long, value_delimiter = ',', value_parser = parse_storm,
          default_value = "storm_of_three=40,storm_of_five=40,storm_of_installs=40,\
                           storm_of_one=40,storm_of_sessions=40,storm_of_leases=40,\
                           churn=40,churn_of_installs=40,beyond_the_budget=40,\
                           ruin_of_installs=40")]
    closer: Vec<(String, u32)>,
    /// Storms and seeds for those that are left
    #[arg(long, value_delimiter = ',', value_parser = parse_storm,
          default_value = "storm_of_three=400,storm_of_five=400,storm_of_installs=300,\
                           storm_of_one=200,storm_of_sessions=100,churn=300,\
                           churn_of_installs=200,beyond_the_budget=300,ruin_of_installs=200")]
    thorough: Vec<(String, u32)>,
    /// Tests of the scenarios that are left out
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
}

fn parse_storm(text: &str) -> Result<(String, u32), String> {
    let (storm, seeds) = text.split_once('=').ok_or("a storm and its seeds, as in churn=100")?;
    let seeds = seeds.parse().map_err(|error| format!("{seeds:?}: {error}"))?;
    Ok((storm.into(), seeds))
}

/// Hunts those that `out` says nothing of yet, and adds a line for each.
pub fn hunt(
    tree: &Path,
    mutants: &[&Mutant],
    party: &Party,
    out: &Path,
    jobs: usize,
) -> Result<Vec<Fate>> {
    let hunters = hunters(tree, party)?;
    let mut fates = read(out)?;
    let known: BTreeSet<u32> = fates.iter().map(|fate| fate.id).collect();
    let left: Vec<_> = mutants.iter().filter(|mutant| !known.contains(&mutant.id)).collect();
    let bar = indicatif::ProgressBar::new(left.len() as u64);
    let file = Mutex::new(File::options().create(true).append(true).open(out)?);
    let queue = Mutex::new(left.into_iter());
    let next = || queue.lock().expect("nobody panics with it").next();
    let found: Mutex<Vec<Fate>> = Mutex::default();
    thread::scope(|scope| {
        let work = || -> Result<()> {
            while let Some(mutant) = next() {
                let fate = one(mutant, &hunters)?;
                let line = serde_json::to_string(&fate)?;
                writeln!(file.lock().expect("nobody panics with it"), "{line}")?;
                found.lock().expect("nobody panics with it").push(fate);
                bar.inc(1);
            }
            Ok(())
        };
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("it does not panic"))
    })?;
    bar.finish_and_clear();
    fates.extend(found.into_inner().expect("nobody panics with it"));
    let asked: BTreeSet<u32> = mutants.iter().map(|mutant| mutant.id).collect();
    fates.retain(|fate| asked.contains(&fate.id));
    Ok(fates)
}

/// What an earlier hunt found.
pub fn read(out: &Path) -> Result<Vec<Fate>> {
    let text = if out.exists() { fs::read_to_string(out)? } else { String::new() };
    text.lines()
        .map(|line| serde_json::from_str(line).context("a line of an earlier hunt"))
        .collect()
}

fn one(mutant: &Mutant, hunters: &[Hunter]) -> Result<Fate> {
    let mut fate = Fate { id: mutant.id, name: mutant.name.clone(), caught_by: None, hung: false };
    for hunter in hunters {
        match hunter.run(mutant.id, GRACE.0 + hunter.takes * GRACE.1)? {
            Some(true) => continue,
            Some(false) => {}
            None => fate.hung = true,
        }
        fate.caught_by = Some(hunter.name.clone());
        break;
    }
    Ok(fate)
}

/// The programs, built; each passes with nobody awake.
fn hunters(tree: &Path, Party { quick, closer, thorough, without }: &Party) -> Result<Vec<Hunter>> {
    let engine = programs(tree, &["-p", "lakebed", "--lib", "--tests"])?;
    let scenarios = programs(tree, &["-p", "lakebed-scenarios", "--tests"])?;
    let all = scenarios.get("all").context("there is no test named all")?;
    let of = |list: &[(String, u32)]| -> Vec<Hunter> {
        let hunter = |(storm, seeds): &(String, u32)| Hunter {
            name: format!("{seeds} seeds of {storm}"),
            program: all.clone(),
            arguments: vec!["--exact".into(), format!("storms::{storm}")],
            seeds: Some(*seeds),
            directory: tree.join("scenarios"),
            takes: Duration::ZERO,
        };
        list.iter().map(hunter).collect()
    };
    let test = |place: &str, name: &str, programs: &BTreeMap<String, PathBuf>, which: &[&str]| {
        let program = programs.get(name).with_context(|| format!("there is no test {name}"))?;
        anyhow::Ok(Hunter {
            name: format!("tests of {place}, {name} {}", which.join(" ")).trim_end().into(),
            program: program.clone(),
            arguments: which.iter().map(ToString::to_string).collect(),
            seeds: None,
            directory: tree.join(place),
            takes: Duration::ZERO,
        })
    };
    let skipped: Vec<_> = SLOW.iter().flat_map(|slow| ["--skip", slow]).collect();
    let mut hunters = of(quick);
    hunters.push(test("engine", "lakebed", &engine, &skipped)?);
    hunters.push(test("engine", "cluster", &engine, &[])?);
    let first = hunters.len();
    hunters.push(test("engine", "conformance", &engine, &[])?);
    hunters.push(test("engine", "lakebed", &engine, &SLOW)?);
    hunters.extend(of(closer));
    hunters.extend(of(thorough));
    let is_left_out = |name: &String| name == "storms" || without.contains(name);
    for part in parts(all)?.iter().filter(|part| !is_left_out(part)) {
        hunters.push(test("scenarios", "all", &scenarios, &[&format!("{part}::")])?);
    }
    for name in scenarios.keys().filter(|name| *name != "all" && !is_left_out(name)) {
        hunters.push(test("scenarios", name, &scenarios, &[])?);
    }
    for hunter in &mut hunters {
        let begun = Instant::now();
        let passes = hunter.run(0, Duration::from_secs(1800))?;
        hunter.takes = begun.elapsed();
        ensure!(passes == Some(true), "{} fails with no mutant awake", hunter.name);
        eprintln!("{} takes {:.1?}", hunter.name, hunter.takes);
    }
    // What the first ones notice is most of it, and soon; of the others each may be who notices.
    hunters[first..].sort_by_key(|hunter| hunter.takes);
    Ok(hunters)
}

/// What the tests of a program are called by before the first `::`.
fn parts(program: &Path) -> Result<BTreeSet<String>> {
    let listed = Command::new(program).args(["--list", "--format", "terse"]).output()?;
    ensure!(listed.status.success(), "{} does not list its tests", program.display());
    let listed = String::from_utf8(listed.stdout)?;
    let part = |line: &str| line.split_once("::").map(|(part, _)| part.to_owned());
    Ok(listed.lines().filter_map(part).collect())
}

/// The test programs of a package, by name.
fn programs(tree: &Path, arguments: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    #[derive(Deserialize)]
    struct Line {
        target: Option<Target>,
        executable: Option<PathBuf>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
    }
    let output = Command::new(env!("CARGO"))
        .args(["test", "-q", "--release", "--no-run", "--message-format=json"])
        .args(arguments)
        .envs([
            ("RUSTFLAGS", "--cap-lints=allow"),
            ("CARGO_PROFILE_RELEASE_LTO", "off"),
            ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
            ("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true"),
            ("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true"),
        ])
        .current_dir(tree)
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "the tree does not build");
    let lines = str::from_utf8(&output.stdout)?.lines();
    let lines = lines.filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let built = lines.filter_map(|line| Some((line.target?.name, line.executable?)));
    let built: BTreeMap<_, _> = built.collect();
    if built.is_empty() {
        bail!("nothing was built for {arguments:?}");
    }
    Ok(built)
}

impl Hunter {
    /// Whether it passes; `None`: it does not end.
    fn run(&self, id: u32, most: Duration) -> Result<Option<bool>> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs([("LAKEBED_MUTANT", id.to_string()), ("INSTA_UPDATE", "no".into())])
            .env("RUST_BACKTRACE", "0")
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(seeds) = self.seeds {
            command.env("SIM_SEEDS", seeds.to_string());
        }
        await_end(&mut command.spawn()?, most)
    }
}

/// Whether it passes; `None`: it does not end. As soon as a test has failed the others need not run.
fn await_end(child: &mut Child, most: Duration) -> Result<Option<bool>> {
    let begun = Instant::now();
    let said = child.stdout.take().context("it has nothing to say it on")?;
    let fails = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&fails);
    thread::spawn(move || {
        for line in BufReader::new(said).split(b'\n').map_while(Result::ok) {
            seen.fetch_or(line.ends_with(FAILED), Ordering::Relaxed);
        }
    });
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        let fails = fails.load(Ordering::Relaxed);
        if fails || begun.elapsed() > most {
            child.kill()?;
            child.wait()?;
            return Ok(fails.then_some(false));
        }
        thread::park_timeout(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_ends_a_run_and_no_end_is_none() {
        let of = |script: &str, most: Duration| {
            let mut shell = Command::new("sh");
            shell.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
            await_end(&mut shell.spawn().unwrap(), most).unwrap()
        };
        let long = Duration::from_secs(600);
        assert_eq!(of("echo 'test a ... ok'", long), Some(true));
        assert_eq!(of("exit 101", long), Some(false));
        assert_eq!(of("echo 'test a ... FAILED'; exec cat", long), Some(false));
        assert_eq!(of("exec cat", Duration::ZERO), None);
    }
}

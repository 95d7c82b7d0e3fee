//! Wakes one mutant after the other and asks those who reach it, cheapest first, whether they notice.
//!
//! A test that never asks whether a mutant is awake runs the same with it and without: whom each test reaches is
//! found once, with all asleep.

use crate::list::Mutant;
use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tempfile::NamedTempFile;

/// How often it is looked whether a run has ended.
const LOOK: Duration = Duration::from_millis(2);
/// How a line ends in which a test program says that a test failed. It runs the others all the same.
const FAILED: &[u8] = b" FAILED";
/// What a run may take: so much, and so many times what it takes with all mutants asleep.
const GRACE: (Duration, u32) = (Duration::from_secs(6), 6);
/// Who has noticed a mutant is asked first of the next one of its file, if it takes no longer.
const SOON: f64 = 0.5;

/// The test programs of the engine that hunt: the others look at no behaviour.
const ENGINE: [&str; 3] = ["lakebed", "cluster", "conformance"];

/// A run that passes as long as nobody is awake.
struct Hunter {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    seeds: Option<u32>,
    directory: PathBuf,
}

/// What is known of a hunter.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    name: String,
    /// Seconds, with all asleep.
    takes: f64,
    /// The mutants that it would meet; unknown where it did not end in that time.
    reaches: Option<BTreeSet<u32>>,
}

/// What became of a mutant.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fate {
    pub id: u32,
    pub name: String,
    /// Who noticed.
    pub caught_by: Option<String>,
    /// It did not end in time.
    pub hung: bool,
    /// Nobody was asked who takes longer, in seconds.
    pub at_most: f64,
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
    /// Whoever takes longer, in seconds and with all asleep, is not asked. A hunt that asks more of them asks
    /// those again that nobody noticed
    #[arg(long, default_value_t = 60.0)]
    at_most: f64,
    /// Tests that are left out, by how their names begin
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
}

fn parse_storm(text: &str) -> Result<(String, u32), String> {
    let (storm, seeds) = text.split_once('=').ok_or("a storm and its seeds, as in churn=100")?;
    let seeds = seeds.parse().map_err(|error| format!("{seeds:?}: {error}"))?;
    Ok((storm.into(), seeds))
}

/// Hunts those that `out` says nothing of yet, and adds a line for each; to `reach`, one for each hunter.
pub fn hunt(
    tree: &Path,
    mutants: &[&Mutant],
    party: &Party,
    (reach, out): (&Path, &Path),
    jobs: usize,
) -> Result<Vec<Fate>> {
    let (hunters, at_most) = (hunters(tree, party)?, party.at_most);
    let known = scout(&hunters, &std::path::absolute(reach)?, at_most, jobs)?;
    let mut party: Vec<_> = hunters.iter().map(|hunter| (hunter, &known[&hunter.name])).collect();
    party.retain(|(_, known)| known.takes <= at_most);
    party.sort_by(|(_, one), (_, other)| one.takes.total_cmp(&other.takes));
    let is_done = |fate: &Fate| fate.caught_by.is_some() || fate.at_most >= at_most;
    let done = read(out)?.into_iter().filter(is_done);
    let done: BTreeSet<u32> = done.map(|fate| fate.id).collect();
    let left: Vec<_> = mutants.iter().filter(|mutant| !done.contains(&mutant.id)).collect();
    // By file: who noticed lately.
    let lately: Mutex<BTreeMap<&str, Vec<usize>>> = Mutex::default();
    each(&left, jobs, out, |mutant| {
        let mut order = lately
            .lock()
            .expect("nobody panics with it")
            .get(&*mutant.file)
            .cloned()
            .unwrap_or_default();
        let others: Vec<_> = (0..party.len()).filter(|n| !order.contains(n)).collect();
        order.extend(others);
        let (fate, by) = one(mutant, &party, &order, at_most)?;
        if let Some(by) = by.filter(|by| party[*by].1.takes < SOON) {
            let mut lately = lately.lock().expect("nobody panics with it");
            let lately = lately.entry(&mutant.file).or_default();
            lately.retain(|other| *other != by);
            lately.insert(0, by);
        }
        Ok(fate)
    })?;
    let asked: BTreeSet<u32> = mutants.iter().map(|mutant| mutant.id).collect();
    let mut fates = fates(out)?;
    fates.retain(|fate| asked.contains(&fate.id));
    Ok(fates)
}

/// What is known of each, from an earlier hunt or by a run of its own. All that end in time pass with nobody awake.
fn scout(
    hunters: &[Hunter],
    reach: &Path,
    at_most: f64,
    jobs: usize,
) -> Result<BTreeMap<String, Known>> {
    let known = |lines: Vec<Known>| lines.into_iter().map(|known| (known.name.clone(), known));
    let before: BTreeMap<_, _> = known(read(reach)?).collect();
    let is_known = |hunter: &&Hunter| {
        let known = before.get(&hunter.name);
        known.is_some_and(|known| known.reaches.is_some() || known.takes >= at_most)
    };
    let strangers: Vec<_> = hunters.iter().filter(|hunter| !is_known(hunter)).collect();
    each(&strangers, jobs, reach, |hunter| {
        let reached = NamedTempFile::new()?;
        let begun = Instant::now();
        let passes = hunter.run(0, Some(reached.path()), Duration::from_secs_f64(at_most))?;
        let takes = begun.elapsed().as_secs_f64();
        ensure!(passes != Some(false), "{} fails with no mutant awake", hunter.name);
        let reaches = passes.map(|_| {
            let ids = fs::read_to_string(reached.path())?;
            anyhow::Ok(ids.lines().map(str::parse).collect::<Result<_, _>>()?)
        });
        Ok(Known { name: hunter.name.clone(), takes, reaches: reaches.transpose()? })
    })?;
    Ok(known(read(reach)?).collect())
}

/// Does this for each, so many at one time, and adds a line to the file for what comes of it.
fn each<T: Sync, R: Serialize>(
    of: &[T],
    jobs: usize,
    out: &Path,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<()> {
    let bar = indicatif::ProgressBar::new(of.len() as u64);
    let file = Mutex::new(File::options().create(true).append(true).open(out)?);
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some(one) = of.get(next.fetch_add(1, Ordering::Relaxed)) {
            let line = serde_json::to_string(&work(one)?)?;
            writeln!(file.lock().expect("nobody panics with it"), "{line}")?;
            bar.inc(1);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("it does not panic"))
    })?;
    bar.finish_and_clear();
    Ok(())
}

/// What became of each, as the last hunt that asked found it.
pub fn fates(out: &Path) -> Result<Vec<Fate>> {
    let by_id = read(out)?.into_iter().map(|fate: Fate| (fate.id, fate));
    Ok(by_id.collect::<BTreeMap<_, _>>().into_values().collect())
}

/// The lines of an earlier hunt.
fn read<T: DeserializeOwned>(out: &Path) -> Result<Vec<T>> {
    let text = if out.exists() { fs::read_to_string(out)? } else { String::new() };
    text.lines()
        .map(|line| serde_json::from_str(line).context("a line of an earlier hunt"))
        .collect()
}

/// What becomes of a mutant, and who noticed, asked in this order.
fn one(
    mutant: &Mutant,
    party: &[(&Hunter, &Known)],
    order: &[usize],
    at_most: f64,
) -> Result<(Fate, Option<usize>)> {
    let name = mutant.name.clone();
    let mut fate = Fate { id: mutant.id, name, caught_by: None, hung: false, at_most };
    for &n in order {
        let (hunter, known) = party[n];
        if known.reaches.as_ref().is_none_or(|reaches| !reaches.contains(&mutant.id)) {
            continue;
        }
        let most = GRACE.0 + Duration::from_secs_f64(known.takes) * GRACE.1;
        match hunter.run(mutant.id, None, most)? {
            Some(true) => continue,
            Some(false) => {}
            None => fate.hung = true,
        }
        fate.caught_by = Some(hunter.name.clone());
        return Ok((fate, Some(n)));
    }
    Ok((fate, None))
}

/// Each test of the engine and of the scenarios alone, and the storms in three portions.
fn hunters(
    tree: &Path,
    Party { quick, closer, thorough, without, .. }: &Party,
) -> Result<Vec<Hunter>> {
    let engine = programs(tree, &["-p", "lakebed", "--lib", "--tests"])?;
    let scenarios = programs(tree, &["-p", "lakebed-scenarios", "--tests"])?;
    let all = scenarios.get("all").context("there is no test named all")?;
    let hunter = |(storm, seeds): &(String, u32)| Hunter {
        name: format!("{seeds} seeds of {storm}"),
        program: all.clone(),
        arguments: vec!["--exact".into(), format!("storms::{storm}")],
        seeds: Some(*seeds),
        directory: tree.join("scenarios"),
    };
    let mut hunters: Vec<_> = [quick, closer, thorough].into_iter().flatten().map(hunter).collect();
    let of_engine = ENGINE.iter().map(|name| {
        let program = engine.get(*name).with_context(|| format!("there is no test {name}"))?;
        anyhow::Ok(("engine", *name, program))
    });
    let of_scenarios = scenarios.iter().map(|(name, program)| Ok(("scenarios", &**name, program)));
    for program in of_engine.chain(of_scenarios) {
        let (place, name, program) = program?;
        let tests = tests(program)?;
        let is_left_out = |test: &String| {
            test.starts_with("storms::") || without.iter().any(|of| test.starts_with(of))
        };
        for test in tests.into_iter().filter(|test| !is_left_out(test)) {
            hunters.push(Hunter {
                name: format!("{place} {name} {test}"),
                program: program.clone(),
                arguments: vec!["--exact".into(), test],
                seeds: None,
                directory: tree.join(place),
            });
        }
    }
    Ok(hunters)
}

/// What the tests of a program are called.
fn tests(program: &Path) -> Result<Vec<String>> {
    let listed = Command::new(program).args(["--list", "--format", "terse"]).output()?;
    ensure!(listed.status.success(), "{} does not list its tests", program.display());
    let listed = String::from_utf8(listed.stdout)?;
    Ok(listed.lines().filter_map(|line| line.strip_suffix(": test")).map(Into::into).collect())
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
    /// Whether it passes; `None`: it does not end. Whom it reaches is written there.
    fn run(&self, id: u32, reached: Option<&Path>, most: Duration) -> Result<Option<bool>> {
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
        if let Some(reached) = reached {
            command.env("LAKEBED_REACHED", reached);
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

    /// Those that nobody noticed are hunted again by more.
    #[test]
    fn what_the_last_hunt_found_of_a_mutant_counts() {
        let out = NamedTempFile::new().unwrap();
        let fate = |id, caught_by: Option<&str>, at_most| Fate {
            id,
            name: "a mutant".into(),
            caught_by: caught_by.map(Into::into),
            hung: false,
            at_most,
        };
        for hunt in [
            [fate(2, None, 1.0), fate(1, Some("a test"), 1.0)],
            [fate(2, Some("a storm"), 9.0), fate(3, None, 9.0)],
        ] {
            each(&hunt, 1, out.path(), |fate| Ok(fate.clone())).unwrap();
        }
        let found = fates(out.path()).unwrap();
        let found: Vec<_> = found.iter().map(|fate| (fate.id, fate.caught_by.as_deref())).collect();
        assert_eq!(found, [(1, Some("a test")), (2, Some("a storm")), (3, None)]);
    }

    /// Who takes longer than is asked for is stopped, and known for that.
    #[test]
    fn who_reaches_what_is_found_with_all_asleep() {
        let hunter = |name: &str, script: &str| Hunter {
            name: name.into(),
            program: "sh".into(),
            arguments: vec!["-c".into(), script.into()],
            seeds: None,
            directory: ".".into(),
        };
        let out = NamedTempFile::new().unwrap();
        let hunters = [
            hunter("two", "echo 7 >>$LAKEBED_REACHED; echo 3 >>$LAKEBED_REACHED"),
            hunter("none", "true"),
        ];
        scout(&hunters, out.path(), 600.0, 1).unwrap();
        let slow = [hunter("slow", "exec cat /dev/zero")];
        let known = scout(&slow, out.path(), 0.01, 1).unwrap();
        let reaches = |name: &str| known[name].reaches.clone().map(Vec::from_iter);
        assert_eq!(reaches("two"), Some(vec![3, 7]));
        assert_eq!((reaches("none"), reaches("slow")), (Some(vec![]), None));
        let fails = [hunter("fails", "exit 1")];
        assert!(scout(&fails, out.path(), 60.0, 1).is_err());
    }
}

//! Whoever has a machine of their own types what the screen of its failure says, and that does what it says.

use lakebed_sim::{
    Draw, Op, Outcome, Seed, Small, SmallMachine, Storm, Timestamp, check, check::quoted,
};
use std::{
    env, fs,
    panic::resume_unwind,
    path::Path,
    process::{Command, Stdio},
};

/// The machine on the front page of `lakebed-sim`, which may forget all but a byte when it is restored.
#[derive(Default)]
struct Sum<const FORGETS: bool>(u64);

impl<const FORGETS: bool> SmallMachine for Sum<FORGETS> {
    fn apply(&mut self, _: Timestamp, command: &[u8]) -> Vec<u8> {
        self.0 = self.0.wrapping_add(command[0].into());
        self.save()
    }

    fn save(&self) -> Vec<u8> {
        self.0.to_le_bytes().into()
    }

    fn load(bytes: &[u8]) -> Option<Self> {
        let sum = u64::from_le_bytes(bytes.try_into().ok()?);
        Some(Self(if FORGETS { sum & 0xff } else { sum }))
    }
}

fn workload(draw: &mut Draw) -> Op {
    if draw.ratio(1, 4) { Op::Read(vec![]) } else { Op::Propose(vec![draw.below(40) as u8]) }
}

/// The first seeds do not show it.
fn stranger(seed: Seed) -> Outcome {
    let forgets = seed.number >= 3;
    let storm = Storm::new(seed).nodes(3);
    match forgets {
        false => storm.run(Small::<Sum<false>>::default, workload),
        true => storm.run(Small::<Sum<true>>::default, workload),
    }
}

/// Set where this program runs as the stranger's; to `aside`, where that checks on a thread of its own.
const STRANGER: &str = "LAKEBED_TEST_OF_A_STRANGER";
const TEST: &str = "stranger::what_a_failure_prints_does_what_it_says";

/// No test read what is printed: commands that run nothing, or something else, would have passed.
#[test]
fn what_a_failure_prints_does_what_it_says() {
    match env::var(STRANGER).as_deref() {
        Err(_) => {}
        Ok("aside") => {
            let aside = std::thread::spawn(|| drop(check("sum", stranger)));
            return aside.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
        Ok(_) => return drop(check("sum", stranger)),
    }
    // What is printed is one word to a shell.
    let dir = env::temp_dir().join(format!("it's a stranger's {}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let found = Screen::of(&typed(&dir, "", &["--exact", TEST]));
    let seed = format!("SIM_SEED={}", found.seed);
    let shrunk = dir.join(format!("sum-{}.plan", found.seed));
    found.assert_says(&seed, &shrunk);
    // A thread that a test starts is not named after it. The exact name stands there where nextest runs it.
    let aside = format!("{STRANGER}=aside");
    assert_eq!(Screen::of(&typed(&dir, &aside, &["--exact", TEST])), found);

    assert_eq!(Screen::of(&printed(&dir, &found, "replay")), found);
    let traced = printed(&dir, &found, "trace");
    assert_eq!(Screen::of(&traced), found);
    let events = traced.lines().filter(|line| line.contains("ms  1 > ")).count();
    assert!(events > 100, "{events} events of node 1 are printed");

    let told = printed(&dir, &found, "shrink");
    let small = Screen::of(&told);
    assert!(told.contains(&format!("  shrunk from {} faults, ", found.faults.len())), "{told}");
    assert!(small.faults.len() < found.faults.len(), "{told}");
    assert_eq!((&small.seed, &small.invariant), (&found.seed, &found.invariant));
    let kept = fs::read_to_string(&shrunk).unwrap();
    let faults: Vec<_> = kept.lines().filter(|line| line.starts_with("at ")).collect();
    assert_eq!(faults, small.faults);
    assert!(kept.contains(&format!("\ninvariant {}\n", small.invariant)), "{kept}");

    let smaller = dir.join(format!("sum-{}.smaller.plan", found.seed));
    small.assert_says(&format!("SIM_PLAN={}", word(&shrunk)), &smaller);
    assert_eq!(Screen::of(&printed(&dir, &small, "replay")), small);
    let again = Screen::of(&printed(&dir, &small, "shrink"));
    assert!(smaller.exists() && again.faults.len() <= small.faults.len());
    assert_eq!(again.invariant, small.invariant);

    // What had been found was gone with its place.
    let full = format!("SIM_PLAN={} SIM_SHRINK=/dev/full", word(&shrunk));
    let told = typed(&dir, &full, &["--exact", TEST]);
    assert_eq!(Screen::of(&told).commands, small.commands);
    let plan = fs::read_to_string(&smaller).unwrap();
    let unkept = format!(
        "cannot write the shrunk plan to /dev/full: No space left on device (os error 28); it is, to \
         be kept by hand:\n{plan}"
    );
    assert!(told.contains(&unkept), "{told}");
    fs::remove_dir_all(&dir).unwrap();
}

/// What is told of a failure.
#[derive(PartialEq, Eq, Debug)]
struct Screen {
    seed: String,
    invariant: String,
    faults: Vec<String>,
    commands: Vec<(String, String)>,
    /// All of it.
    text: String,
}

impl Screen {
    fn of(told: &str) -> Self {
        let begins = told.find("\nscenario sum, seed ").unwrap_or_else(|| panic!("{told}"));
        let lines = told[begins..].lines().skip(1);
        let lines = lines.take_while(|line| line.starts_with(['s', ' ']));
        // What it was shrunk from is told when it is shrunk alone.
        let lines: Vec<_> = lines.filter(|line| !line.starts_with("  shrunk from ")).collect();
        let after = |begin: &str| lines.iter().find_map(|line| line.strip_prefix(begin));
        let until = |begin, end| after(begin).and_then(|rest| rest.split_once(end)).unwrap().0;
        let faults = lines.iter().filter_map(|line| line.strip_prefix("    "));
        let faults = faults.filter(|line| line.starts_with("at ")).map(String::from);
        let command = |what: &str| {
            let typed = after(&format!("  {what}: ")).unwrap_or_else(|| panic!("{told}"));
            (what.into(), typed.into())
        };
        Self {
            seed: until("scenario sum, seed ", ",").into(),
            invariant: until("  broken: ", ": ").into(),
            faults: faults.collect(),
            commands: ["replay", "trace", "shrink"].map(command).into(),
            text: lines.join("\n"),
        }
    }

    fn assert_says(&self, which: &str, shrunk: &Path) {
        let release = if cfg!(debug_assertions) { "" } else { " --release" };
        let test = format!("cargo test{release} -p lakebed-scenarios -- --exact {TEST}");
        let expected = [
            ("replay", format!("{which} {test}")),
            ("trace", format!("{which} SIM_TRACE=1 {test} --nocapture")),
            ("shrink", format!("{which} SIM_SHRINK={} {test} --nocapture", word(shrunk))),
        ];
        assert_eq!(self.commands, expected.map(|(what, typed)| (what.into(), typed)));
    }
}

fn word(path: &Path) -> String {
    quoted(path.to_str().unwrap())
}

/// Types one of the commands of a screen.
fn printed(dir: &Path, screen: &Screen, what: &str) -> String {
    let (_, command) = screen.commands.iter().find(|(of, _)| of == what).unwrap();
    let (variables, cargo) = command.split_once("cargo test").unwrap();
    let (_, arguments) = cargo.split_once(" -- ").unwrap();
    typed(dir, variables, &[arguments])
}

/// What this program tells of the stranger's test, which fails. Cargo would but start it.
fn typed(dir: &Path, variables: &str, arguments: &[&str]) -> String {
    let program = word(&env::current_exe().unwrap());
    let line = format!("{variables} {program} {} 2>&1", arguments.join(" "));
    let mut shell = Command::new("sh");
    for (variable, _) in env::vars_os() {
        if variable.to_str().is_some_and(|name| name.starts_with("SIM_")) {
            shell.env_remove(variable);
        }
    }
    shell.args(["-c", &line]).stdin(Stdio::null()).env(STRANGER, "1").env("TMPDIR", dir);
    shell.env("CARGO_PKG_NAME", env!("CARGO_PKG_NAME")).env("RUST_BACKTRACE", "0");
    let output = shell.output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(101), "{line}\n{told}");
    assert!(told.contains("running 1 test\n"), "{line}\n{told}");
    told
}

//! Goes through one of the explorations, or one that is put together on the command line.

use lakebed_explore::{LARGE, Limits, SMALL, explore};
use std::{env, process::ExitCode, str::FromStr};

const USAGE: &str = "\
usage: lakebed-explore NAME [LIMIT=N]... [steps=N] [threads=N]

  every state that three nodes can reach within the limits NAME stands for, each of which can be
  set to another: begin=led|formed waits=1,1,0 proposals=1 transfers=0 removals=0 power-cuts=1 losses=0 repeats=0 order=any|sent
  disks=prompt|slow; no more than so many steps";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(what) => {
            let names: Vec<_> = SMALL.iter().chain(&LARGE).map(|limits| limits.name).collect();
            eprintln!("lakebed-explore: {what}\n\n{USAGE}\n\n  NAME: {}", names.join(", "));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<bool, String> {
    let (name, settings) = args.split_first().ok_or("a name is missing")?;
    let mut limits = SMALL
        .iter()
        .chain(&LARGE)
        .find(|limits| limits.name == name)
        .ok_or_else(|| format!("no exploration is called {name}"))?
        .clone();
    let (mut steps_max, mut threads) = (usize::MAX, 1);
    for setting in settings {
        let (key, value) =
            setting.split_once('=').ok_or_else(|| format!("{setting} is no LIMIT=N"))?;
        match key {
            "steps" => steps_max = number(setting, value)?,
            "threads" => threads = number(setting, value)?,
            _ => set(&mut limits, setting, key, value)?,
        }
    }
    println!("{limits:?}");
    let explored = explore(&limits, threads, steps_max);
    print!("{explored}");
    Ok(explored.violation.is_none() && explored.unreached.is_empty())
}

fn set(limits: &mut Limits, setting: &str, key: &str, value: &str) -> Result<(), String> {
    match (key, value) {
        ("waits", _) => {
            let waits: Vec<_> =
                value.split(',').map(|n| number(setting, n)).collect::<Result<_, _>>()?;
            limits.waits =
                waits.try_into().map_err(|_| format!("{setting} is no number for each node"))?;
        }
        ("proposals", _) => limits.proposals = number(setting, value)?,
        ("transfers", _) => limits.transfers = number(setting, value)?,
        ("removals", _) => limits.removals = number(setting, value)?,
        ("power-cuts", _) => limits.power_cuts = number(setting, value)?,
        ("losses", _) => limits.losses = number(setting, value)?,
        ("repeats", _) => limits.repeats = number(setting, value)?,
        ("leaders", _) => limits.leaders_reached = number(setting, value)?,
        ("entries", _) => limits.committed_reached = number(setting, value)?,
        ("begin", "led" | "formed") => limits.begins_led = value == "led",
        ("order", "any" | "sent") => limits.any_order = value == "any",
        ("disks", "prompt" | "slow") => limits.disks_are_prompt = value == "prompt",
        _ => return Err(format!("{setting} sets nothing")),
    }
    Ok(())
}

fn number<N: FromStr>(setting: &str, value: &str) -> Result<N, String> {
    value.parse().map_err(|_| format!("{setting} is no number that could be"))
}

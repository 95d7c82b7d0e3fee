//! Goes through one of the explorations, or one that is put together on the command line.

use lakebed_explore::{Begins, FOUNDING, LARGE, Limits, SMALL, explore, walk};
use std::{env, process::ExitCode, str::FromStr};

const USAGE: &str = "\
usage: lakebed-explore NAME [LIMIT=N]... [steps=N] [threads=N] [walk=SEED]

  every state that three nodes can reach within the limits NAME stands for, each of which can be
  set to another: begin=founding|formed|led|ahead|pair waits=1,1,0 proposals=1 transfers=0 removals=0 additions=0
  promotions=0 formers=0 wipes=0 power-cuts=1 log-losses=0 losses=0 repeats=0 order=any|sent
  network=late|prompt disks=prompt|slow; no more than so many steps. walk=SEED: at random, so many steps (1,000,000)";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(what) => {
            let names: Vec<_> = all().map(|limits| limits.name).collect();
            eprintln!("lakebed-explore: {what}\n\n{USAGE}\n\n  NAME: {}", names.join(", "));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<bool, String> {
    let (name, settings) = args.split_first().ok_or("a name is missing")?;
    let mut limits = all()
        .find(|limits| limits.name == name)
        .ok_or_else(|| format!("no exploration is called {name}"))?
        .clone();
    let (mut steps, mut threads, mut seed) = (None, 1, None);
    for setting in settings {
        let (key, value) =
            setting.split_once('=').ok_or_else(|| format!("{setting} is no LIMIT=N"))?;
        match key {
            "steps" => steps = Some(number(setting, value)?),
            "walk" => seed = Some(number(setting, value)?),
            "threads" => threads = number(setting, value)?,
            _ => set(&mut limits, setting, key, value)?,
        }
    }
    println!("{limits:?}");
    let explored = match seed {
        Some(seed) => walk(&limits, seed, steps.unwrap_or(1_000_000)),
        None => explore(&limits, threads, steps.unwrap_or(usize::MAX)),
    };
    print!("{explored}");
    Ok(explored.violation.is_none() && explored.unreached.is_empty())
}

fn all() -> impl Iterator<Item = &'static Limits> {
    SMALL.iter().chain(&LARGE).chain([&FOUNDING])
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
        ("additions", _) => limits.additions = number(setting, value)?,
        ("promotions", _) => limits.promotions = number(setting, value)?,
        ("formers", _) => limits.formers = number(setting, value)?,
        ("wipes", _) => limits.wipes = number(setting, value)?,
        ("power-cuts", _) => limits.power_cuts = number(setting, value)?,
        ("log-losses", _) => limits.log_losses = number(setting, value)?,
        ("losses", _) => limits.losses = number(setting, value)?,
        ("repeats", _) => limits.repeats = number(setting, value)?,
        ("leaders", _) => limits.leaders_reached = number(setting, value)?,
        ("entries", _) => limits.committed_reached = number(setting, value)?,
        ("begin", "founding") => limits.begins = Begins::Founding,
        ("begin", "formed") => limits.begins = Begins::Formed,
        ("begin", "led") => limits.begins = Begins::Led,
        ("begin", "ahead") => limits.begins = Begins::Ahead,
        ("begin", "pair") => limits.begins = Begins::Pair,
        ("network", "late" | "prompt") => limits.is_late = value == "late",
        ("order", "any" | "sent") => limits.any_order = value == "any",
        ("disks", "prompt" | "slow") => limits.disks_are_prompt = value == "prompt",
        _ => return Err(format!("{setting} sets nothing")),
    }
    Ok(())
}

fn number<N: FromStr>(setting: &str, value: &str) -> Result<N, String> {
    value.parse().map_err(|_| format!("{setting} is no number that could be"))
}

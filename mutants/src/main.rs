//! Every mutant that `cargo mutants` lists for the engine, in one build, and who notices which.
//!
//! A build for each mutant would take days. Here all of them are written into one copy of the
//! engine, asleep, and a process is told by its environment which one is awake.

mod hunt;
mod list;
mod plant;
mod sites;
mod tree;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

/// Mutation testing of the engine by one build
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Copy the repository and write the mutants into the copy
    Plant {
        /// What `cargo mutants --list --json` printed
        list: PathBuf,
        /// The repository
        repository: PathBuf,
        /// The copy, which must not be there yet
        tree: PathBuf,
    },
    /// Wake one after the other and see who notices
    Hunt {
        /// What `cargo mutants --list --json` printed
        list: PathBuf,
        /// The copy that was planted
        tree: PathBuf,
        /// A line of JSON for each test and portion of seeds: what it takes, and which mutants it would meet
        reach: PathBuf,
        /// A line of JSON for each mutant; those that have one already are not hunted again
        out: PathBuf,
        /// Only every n-th, beginning with the i-th, counted from 1
        #[arg(long, value_name = "I/N", default_value = "1/1", value_parser = parse_shard)]
        shard: (u32, u32),
        #[command(flatten)]
        party: hunt::Party,
        /// How many at one time
        #[arg(long, default_value_t = 1)]
        jobs: usize,
    },
    /// Tell how many were noticed, by whom, and which were not
    Tell {
        /// The lines of a hunt
        out: PathBuf,
    },
}

fn parse_shard(text: &str) -> Result<(u32, u32), String> {
    let (shard, of) = text.split_once('/').ok_or("two numbers, as in 1/8")?;
    let number = |text: &str| text.parse::<u32>().map_err(|error| format!("{text:?}: {error}"));
    let (shard, of) = (number(shard)?, number(of)?);
    if shard == 0 || shard > of {
        return Err(format!("there is no shard {shard} of {of}: they count from 1"));
    }
    Ok((shard, of))
}

fn main() -> Result<()> {
    match Args::parse().command {
        Command::Plant { list, repository, tree } => {
            ensure!(!tree.exists(), "{} is there already: take it away", tree.display());
            let mutants = list::read(&list)?;
            let dead = tree::Tree::copy(&repository, &tree, &mutants)?.grow()?;
            let text: Vec<_> = dead.iter().map(u32::to_string).collect();
            fs::write(tree.join("unviable"), text.join("\n"))?;
            println!(
                "{} mutants, without {} that do not compile or cannot be put to sleep",
                mutants.len() - dead.len(),
                dead.len()
            );
        }
        Command::Hunt { list, tree, reach, out, shard: (shard, of), party, jobs } => {
            let mutants = list::read(&list)?;
            let unviable = tree.join("unviable");
            let dead = fs::read_to_string(&unviable)
                .with_context(|| format!("cannot read {}: plant first", unviable.display()))?;
            let dead: BTreeSet<u32> = dead.lines().map(str::parse).collect::<Result<_, _>>()?;
            let is_asked = |id: u32| !dead.contains(&id) && id % of == shard % of;
            let asked: Vec<_> = mutants.iter().filter(|mutant| is_asked(mutant.id)).collect();
            tell(&hunt::hunt(&tree, &asked, &party, (&reach, &out), jobs)?);
        }
        Command::Tell { out } => tell(&hunt::fates(&out)?),
    }
    Ok(())
}

fn tell(fates: &[hunt::Fate]) {
    let mut hunters = BTreeMap::<&str, u32>::new();
    for fate in fates {
        if let Some(by) = &fate.caught_by {
            *hunters.entry(by).or_default() += 1;
        }
    }
    let caught: u32 = hunters.values().sum();
    let share = f64::from(caught) * 100.0 / fates.len().max(1) as f64;
    let hung = fates.iter().filter(|fate| fate.hung).count();
    println!("{caught} of {} noticed ({share:.1} %), {hung} of them by not ending", fates.len());
    for (hunter, count) in hunters {
        println!("{count:>6} by {hunter}");
    }
    for fate in fates.iter().filter(|fate| fate.caught_by.is_none()) {
        println!("MISSED {} {}", fate.id, fate.name);
    }
}

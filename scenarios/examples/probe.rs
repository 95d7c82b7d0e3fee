use lakebed_scenarios::stories::*;
use lakebed_sim::exhaust::*;
use std::{ops::ControlFlow::Continue, time::Instant, cell::Cell};
fn env(name: &str, or: u64) -> u64 { std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(or) }
fn main() {
    if env("FIND", 0) > 0 {
        use lakebed_sim::{World, plan::*};
        let mut story = FLIPPED.story();
        let mut faults = std::mem::take(&mut story.plan.faults);
        faults[1] = Fault { at: env("ISO2", 425) * MS, kind: FaultKind::Isolated { node: 0, noticed: false, lasts: env("LASTS2", 275) * MS } };
        let mut world = World::new(story.plan, story.machine, story.workload);
        let mut turns = vec![];
        for f in &faults[..2] { turns.push((f.at, true, f.kind.clone())); turns.push((f.at + f.kind.lasts().unwrap(), false, f.kind.clone())); }
        let mut quiet = 0;
        while world.now() < 1300 * MS {
            if let Some((at, b, k)) = turns.first().cloned() && world.next_at() >= at { turns.remove(0); world.pass_until(at); if b { world.strike(&k).unwrap() } else { world.relent(&k) } continue; }
            let acked = world.acknowledged();
            world.step().unwrap();
            if acked != world.acknowledged() { quiet = world.now(); }
            for (f, l) in world.disk(0).list() { if matches!(f, lakebed::File::Part(..)) { println!("{} {f} {l} {:?} pending {}", world.now(), world.disk(0).used_sectors(f), world.disk(0).has_pending_sectors()); } }
        }
        println!("quiet since {quiet}");
        return;
    }
    if let Ok(path) = std::env::var("PLANBIT") {
        let mut plan = FLIPPED.story().plan;
        let (file, node) = (lakebed::File::Segment(env("LOG", 8)), env("NODE", 0) as usize);
        plan.faults.push(lakebed_sim::plan::Fault { at: 719_700_000, kind: lakebed_sim::plan::FaultKind::Flip { node, file, bit: env("BIT", 0), down: 1_000_000 } });
        std::fs::write(&path, lakebed_sim::PlanFile::new("every_structure", plan).to_string()).unwrap();
        return;
    }
    let every = env("FLIPS", 0);
    if every > 0 {
        let story = FLIPPED.story();
        let node = env("NODE", 0) as usize;
        let bits = story.bits(node);
        let picked: Vec<_> = bits.iter().copied().skip(env("FROM", 0) as usize).filter(|b| env("LOGS", 2) == 2 || (env("LOGS", 2) == 1) == matches!(b.file, lakebed::File::Segment(_))).step_by(every as usize).collect();
        let mut files: Vec<_> = bits.iter().map(|b| b.file.to_string()).collect(); files.dedup(); println!("{files:?}");
        println!("{} bits of {}", picked.len(), bits.len());
        let begun = Instant::now(); let mut said = begun;
        match story.flips(node, &picked, |f| { let n = f.count(); if env("SHOW", 0) > 0 { println!("{} {:?}", n, f.cases); } if n % 1000 == 0 && said.elapsed().as_secs() > 60 { said = Instant::now(); println!("{n} so far {:?}", f.cases); } Continue(()) }) {
            Ok(f) => { println!("{:.1}/s {} events", f.count() as f64 / begun.elapsed().as_secs_f64(), f.events); for (k, v) in f.cases { println!("  {k:?} {v}"); } }
            Err(f) => { println!("{f}"); std::fs::write("/tmp/flip.plan", lakebed_sim::PlanFile::new("every_structure", f.report.plan.clone()).to_string()).unwrap(); }
        }
        return;
    }
    let which = std::env::var("STORY").unwrap_or_default();
    for told in &STORIES {
        if !which.is_empty() && told.scenario.name != which { continue; }
        let story = told.story();
        for node in 0..story.plan.nodes {
            if env("NODE", node as u64) != node as u64 { continue; }
            let once = story.tell(node).unwrap();
            let search = Search::new(node, env("TWICE", 0) > 0);
            let begun = Instant::now();
            let seen = Cell::new(Tried::default());
            let r = story.search(&search, (0, env("PART", 1)), |t| { seen.set(*t); Continue(()) });
            let s = begun.elapsed().as_secs_f64();
            let t = seen.get();
            let how = match r { Ok(_) => "passes".into(), Err(f) => if env("FULL", 0) > 0 { format!("{f}") } else { f.violation.to_string().chars().take(120).collect::<String>() + " AT " + &f.report.plan.faults[..2].iter().map(|f| f.to_string()).collect::<Vec<_>>().join("; ") } };
            println!("{} {node}: ops {} steps {} first {} second {} equal {} events {} {s:.2}s {:.0}/s: {how}", told.scenario.name, once.operations, once.steps, t.first, t.second, t.equal, t.events, (t.first + t.second) as f64 / s);
        }
    }
}

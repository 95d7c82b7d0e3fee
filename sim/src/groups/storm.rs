//! A storm over many groups: load and faults for a while, then healed, when every group must serve,
//! become the same everywhere, and go to rest; and when a node that leads gives groups up then, or is
//! killed, those must have other leaders soon, and whoever is left of any group is served.

use super::{Census, Groups, node_id};
use crate::{
    client::{Fate, Workload},
    oracle::{Checked, Violation},
    panics,
    plan::{Fault, FaultKind, MS, Plan},
    report::{Failure, Report},
    seed::Seed,
    storm::{happen_max, is_whole, turns, violation},
};
use lakebed::{Change, Control, GroupId, RequestId, StateMachine, Term};

/// After healing all must be up within this, and then have answered.
const SERVE_WITHIN: u64 = 5_000 * MS;
/// How long until a request that was refused, or whose end is unknown, is made again.
const ASK_AGAIN_AFTER: u64 = 15 * MS;
/// After the last request all members of all groups must be the same within this, and rest.
const CONVERGE_WITHIN: u64 = 10_000 * MS;
/// And then nothing may change for so long, if they do not rest.
const CALM: u64 = 1_000 * MS;
/// So long a message may be on its way that was sent before everything was healed.
const LATE: u64 = 1_000 * MS;
/// In so many groups no more happens than in a storm of one.
const GROUPS_LIKE_A_STORM: u64 = 10;
/// So much of a trace stands on the screen of a failure.
const LINES: usize = 25;

/// Runs a story in a world of groups and makes a report of it.
pub fn observe<M: StateMachine, W: Workload>(
    seed: &Seed,
    mut world: Groups<M, W>,
    story: impl FnOnce(&mut Groups<M, W>) -> Checked,
) -> Result<Report, Box<Failure>> {
    world.agenda.limit(seed.happen_max());
    if seed.is_kept() || seed.is_traced() {
        world.trace(seed.print(), seed.is_kept());
    }
    let told = panics::caught(|| story(&mut world));
    let told = told.unwrap_or_else(|panic| Err(violation(panic, world.touched())));
    let trace = if seed.is_kept() { world.last_lines(None, usize::MAX) } else { Vec::new() };
    let report = Report {
        seed: seed.number,
        time: world.now(),
        stats: world.stats(),
        digest: world.digest(),
        marks: world.marks(),
        plan: world.plan().clone(),
        asked: world.asked(),
        suspicion: None,
        trace,
    };
    match told {
        Ok(()) => Ok(report),
        Err(violation) => {
            let lines = world.last_lines(violation.node, LINES);
            Err(Box::new(Failure { report, violation, lines }))
        }
    }
}

/// A whole run over `plan`'s network, disks and faults.
pub fn run<M: StateMachine, W: Workload>(
    seed: &Seed,
    plan: Plan,
    census: Census,
    machine: fn() -> M,
    workload: W,
) -> Result<Report, Box<Failure>> {
    let mut world = Groups::new(plan, census, machine, workload);
    // Logs that are looked through all the time are that in each group, and in calm seconds too.
    let storms = census.groups.div_ceil(GROUPS_LIKE_A_STORM);
    world.agenda.limit(happen_max(&world.plan).saturating_mul(storms));
    observe(seed, world, |world| {
        storm(world)?;
        world.heal();
        serve(world)?;
        converge(world)?;
        give_groups_up(world, SERVE_WITHIN)?;
        lose_a_leader(world, SERVE_WITHIN)?;
        serve_on(world)?;
        lose_members_unheard(world, SERVE_WITHIN)?;
        serve_on(world)
    })
}

/// Lets the plan's faults strike and end, each at its time.
fn storm<M: StateMachine, W: Workload>(world: &mut Groups<M, W>) -> Checked {
    for turn in turns(&world.plan().faults.clone()) {
        until(world, turn.at)?;
        if turn.begins {
            world.strike(&turn.fault.kind)?;
        } else {
            world.relent(&turn.fault.kind);
        }
    }
    let last = world.now().max(world.busy_until()) + 400 * MS;
    until(world, last)
}

/// Lets time pass to then.
pub fn until<M: StateMachine, W: Workload>(world: &mut Groups<M, W>, at: u64) -> Checked {
    while world.next_at() < at {
        world.step()?;
    }
    world.now = world.now.max(at);
    Ok(())
}

/// Lets time pass until something holds; that it does within `limit` is an invariant.
pub fn run_until<M: StateMachine, W: Workload>(
    world: &mut Groups<M, W>,
    limit: u64,
    what: &str,
    mut missing: impl FnMut(&mut Groups<M, W>) -> Result<Vec<GroupId>, Violation>,
) -> Checked {
    let end = world.now() + limit;
    loop {
        let lacks = missing(world)?;
        if lacks.is_empty() {
            return Ok(());
        }
        if world.now() > end {
            let first = describe(world, lacks[0]);
            let what = format!("waited {} ms for {what} of {lacks:?}; {first}", limit / MS);
            return Err(Violation { invariant: "liveness", node: None, what });
        }
        let next = world.now() + MS;
        until(world, next)?;
    }
}

fn describe<M: StateMachine, W: Workload>(world: &Groups<M, W>, group: GroupId) -> String {
    let node = |node: usize| match world.probe(node, group) {
        None => format!("{} is not there", node + 1),
        Some(probe) => format!(
            "{}: {} term {} leader {:?} applied {} committed {} last {}{}{}",
            node + 1,
            probe.role,
            probe.term,
            probe.leader,
            probe.applied,
            probe.committed,
            probe.last,
            if probe.ready { "" } else { " not ready" },
            if probe.hibernates { " rests" } else { "" },
        ),
    };
    let nodes: Vec<_> = world.members_of(group).into_iter().map(node).collect();
    format!("group {group}: {}", nodes.join("; "))
}

/// Whoever leads a group answers a write and a read that it was asked for now.
pub fn serve<M: StateMachine, W: Workload>(world: &mut Groups<M, W>) -> Checked {
    run_until(world, SERVE_WITHIN, "all members", |world| {
        let is_ready = |node, group| world.probe(node, group).is_some_and(|probe| probe.ready);
        Ok(lacking(world, |world, group| {
            world.members_of(group).into_iter().all(|node| is_ready(node, group))
        }))
    })?;
    let of = |group| errands(group, None);
    serves(world, world.living().into_iter().flat_map(of).collect())
}

/// A write and a read.
fn errands(group: GroupId, of: Option<usize>) -> [Errand; 2] {
    [true, false].map(|is_write| Errand { group, of, is_write, asked: None })
}

fn serves<M: StateMachine, W: Workload>(
    world: &mut Groups<M, W>,
    mut errands: Vec<Errand>,
) -> Checked {
    run_until(world, SERVE_WITHIN, "answers", |world| {
        let mut open = Vec::new();
        for mut errand in std::mem::take(&mut errands) {
            if !errand.is_done(world)? {
                open.push(errand);
            }
        }
        errands = open;
        Ok(errands.iter().map(|errand| errand.group).collect())
    })
}

/// What a member of a group, or whoever leads it, is asked for, until it is answered.
struct Errand {
    group: GroupId,
    of: Option<usize>,
    is_write: bool,
    asked: Option<(RequestId, u64)>,
}

impl Errand {
    /// Asks, and again when that ended without an answer, as in the world of one group.
    fn is_done<M: StateMachine, W: Workload>(
        &mut self,
        world: &mut Groups<M, W>,
    ) -> Result<bool, Violation> {
        let fate = self.asked.map(|(id, since)| (world.fate(self.group, id), since));
        let is_answered = matches!(fate, Some((Fate::Answered(_), _)));
        let leader = world.leader(self.group);
        let node = self.of.or(leader);
        // Where followers forward nothing, writes are the affair of whoever leads.
        let is_elsewhere = self.is_write && !world.plan().tuning.forward && node != leader;
        let has_left = node.is_some_and(|node| !world.members_of(self.group).contains(&node));
        if is_answered || is_elsewhere && leader.is_some() || has_left {
            return Ok(true);
        }
        let waits = fate.is_some_and(|(fate, since)| {
            fate == Fate::Open || world.now() < since + ASK_AGAIN_AFTER
        });
        let is_there = |node: &usize| world.probe(*node, self.group).is_some();
        let Some(node) = node.filter(is_there).filter(|_| !waits) else { return Ok(false) };
        let asked = world.request_of_kind(node, self.group, self.is_write)?;
        self.asked = asked.map(|id| (id, world.now()));
        Ok(asked.is_none())
    }
}

/// The living groups of which something does not hold.
fn lacking<M: StateMachine, W: Workload>(
    world: &Groups<M, W>,
    holds: impl Fn(&Groups<M, W>, GroupId) -> bool,
) -> Vec<GroupId> {
    world.living().into_iter().filter(|group| !holds(world, *group)).collect()
}

/// Without load all members come to the same log and state, and go to rest; no change is half made,
/// and what was removed is gone: nodes from groups, and groups.
pub fn converge<M: StateMachine, W: Workload>(world: &mut Groups<M, W>) -> Checked {
    world.dismiss_clients();
    run_until(world, CONVERGE_WITHIN, "the same log", |world| Ok(lacking(world, is_one_log)))?;
    // As in the world of one group: under load a member that lags has no answers.
    let of = |group| {
        let members = world.members_of(group).into_iter();
        members.flat_map(move |node| errands(group, Some(node)))
    };
    let each = world.living().into_iter().flat_map(of).collect();
    serves(world, each)?;
    run_until(world, CONVERGE_WITHIN, "the same log, and rest,", |world| {
        Ok(lacking(world, |world, group| {
            is_one_log(world, group) && (world.rest_after().is_zero() || world.rests(group))
        }))
    })?;
    world.let_strangers_go()?;
    run_until(world, CONVERGE_WITHIN, "the end", |world| {
        let removed = world.groups.iter().filter(|(_, group)| group.is_removed);
        Ok(removed.map(|(id, _)| *id).filter(|id| !world.is_gone(*id)).collect())
    })?;
    world.compare_states()?;
    run_until(world, CONVERGE_WITHIN, "the end of every request", |world| {
        Ok(world.groups_with_open_requests())
    })?;
    let reigns = reigns(world);
    if world.rest_after().is_zero() {
        let at = world.now() + CALM;
        until(world, at)?;
    } else {
        silence(world)?;
    }
    stays_calm(world, &reigns)
}

/// Whether all members of a group hold the same log, whole, and have applied it, and nobody is left
/// that must go.
fn is_one_log<M: StateMachine, W: Workload>(world: &Groups<M, W>, group: GroupId) -> bool {
    let members = world.membership(group);
    let owed = world.members_of(group);
    let probes: Vec<_> = owed.iter().filter_map(|node| world.probe(*node, group)).collect();
    let last = probes.iter().map(|probe| probe.last).max();
    probes.len() == owed.len()
        && members.outgoing.is_empty()
        && (0..world.nodes()).all(|node| !world.must_leave(node, group, &members))
        && owed.iter().zip(&probes).all(|(node, probe)| {
            let is_given = |index| {
                let mut others = owed.iter().zip(&probes).filter(|(other, _)| *other != node);
                others.any(|(other, probe)| world.scars(*other, group).gives(probe, index))
            };
            Some(probe.last) == last && is_whole(probe, world.scars(*node, group), is_given)
        })
}

/// Who leads each group, and in which term.
type Reign = (GroupId, Option<(usize, Option<Term>)>);

fn reigns<M: StateMachine, W: Workload>(world: &Groups<M, W>) -> Vec<Reign> {
    let term = |node, group| world.probe(node, group).map(|probe| probe.term);
    let reign = |group| world.leader(group).map(|node| (node, term(node, group)));
    world.living().into_iter().map(|group| (group, reign(group))).collect()
}

/// As in the world of one group: nothing has happened, so whoever led leads on, over one log.
fn stays_calm<M: StateMachine, W: Workload>(world: &Groups<M, W>, before: &[Reign]) -> Checked {
    let after = reigns(world);
    let is_calm = |reign: &&Reign| after.contains(reign) && is_one_log(world, reign.0);
    let Some((group, led)) = before.iter().find(|reign| !is_calm(reign)) else {
        world.check_links()?;
        return world.check_disks();
    };
    let what = format!(
        "without faults and load group {group} was led by {led:?}, with one log, and now {}",
        describe(world, *group)
    );
    Err(Violation::of_cluster("a calm cluster stays as it is", what))
}

/// Groups at rest say nothing, however long; but for what was damaged, and is found only then.
fn silence<M: StateMachine, W: Workload>(world: &mut Groups<M, W>) -> Checked {
    let mut excuses = struck(world);
    loop {
        // What was still on its way, doubled or late, may wake one of them once more.
        let at = world.now() + LATE;
        until(world, at)?;
        run_until(world, CONVERGE_WITHIN, "rest", |world| {
            Ok(lacking(world, |world, group| world.rests(group)))
        })?;
        let before = world.sent().messages;
        let at = world.now() + 500 * MS;
        until(world, at)?;
        let said = world.sent().messages - before;
        if said == 0 {
            return Ok(());
        }
        if excuses == 0 {
            let what = format!("all groups rest, and their engines sent {said} messages");
            return Err(Violation::of_cluster("who rests is silent", what));
        }
        excuses -= 1;
    }
}

/// How many entries and files were damaged, each of which a scrub may find.
fn struck<M: StateMachine, W: Workload>(world: &Groups<M, W>) -> usize {
    let of = |group| {
        let members = world.members_of(group);
        let count = |node: &usize| {
            let scars = world.scars(*node, group);
            scars.entries.len() + scars.files.len()
        };
        members.iter().map(count).sum::<usize>()
    };
    world.living().into_iter().map(of).sum()
}

/// The node that leads most groups is killed: within `limit` they have other leaders, unless so few
/// of their members vote that none can.
pub fn lose_a_leader<M: StateMachine, W: Workload>(
    world: &mut Groups<M, W>,
    limit: u64,
) -> Checked {
    let (victim, orphans) = leads_most(world);
    world.die(victim, None);
    are_led(world, limit, &orphans)
}

/// The node that leads most groups gives up half of them for good, as if their machines had panicked, and
/// goes on with the others: no link tells of that, and the groups may rest. Within `limit` those that it
/// gave up have other leaders.
pub fn give_groups_up<M: StateMachine, W: Workload>(
    world: &mut Groups<M, W>,
    limit: u64,
) -> Checked {
    let (node, led) = leads_most(world);
    let orphans: Vec<GroupId> = led.into_iter().step_by(2).collect();
    for group in &orphans {
        world.give_up(node, *group)?;
    }
    are_led(world, limit, &orphans)
}

/// Each group that can do without it loses a member for good that does not lead it, of which nobody is told.
/// Whoever does not rest hears by then that it is silent. Then each is to be led by another, or to take one out
/// who is there. Whatever comes of that, those who are there are enough to go on, and within `limit` one of
/// them leads.
pub fn lose_members_unheard<M: StateMachine, W: Workload>(
    world: &mut Groups<M, W>,
    limit: u64,
) -> Checked {
    let mut bereft = Vec::new();
    for group in world.living() {
        let Some(leader) = world.leader(group) else { continue };
        let members = world.membership(group);
        let others = members.voter_ids().map(|id| id.0 as usize - 1).filter(|node| *node != leader);
        let there = |node: &usize| world.probe(*node, group).is_some();
        let others: Vec<usize> = others.filter(there).collect();
        let [lost, other, ..] = others[..] else { continue };
        if !world.has_quorum(group, Some(lost)) {
            continue;
        }
        world.give_up(lost, group)?;
        bereft.push((group, other));
    }
    let heard = world.now() + limit;
    until(world, heard)?;
    for ((group, other), removes) in bereft.iter().zip([true, false].into_iter().cycle()) {
        let Some(leader) = world.leader(*group) else { continue };
        let removed = Control::Change(vec![Change::Remove(node_id(*other))]);
        let control = if removes { removed } else { Control::Transfer { to: None } };
        world.order(leader, *group, control)?;
    }
    let decided = world.now() + limit;
    until(world, decided)?;
    run_until(world, limit, "a leader and a quorum", |world| {
        let lacks = |group: &GroupId| !world.has_quorum(*group, None) || !world.is_led(*group);
        Ok(bereft.iter().map(|(group, _)| *group).filter(lacks).collect())
    })
}

/// The node that leads most of the groups that can do without it, and those.
fn leads_most<M: StateMachine, W: Workload>(world: &Groups<M, W>) -> (usize, Vec<GroupId>) {
    let leads = |node| {
        let is_lost = |group: &GroupId| {
            world.leader(*group) == Some(node) && world.has_quorum(*group, Some(node))
        };
        world.living().into_iter().filter(is_lost).collect::<Vec<_>>()
    };
    let all = (0..world.nodes()).map(|node| (node, leads(node)));
    all.max_by_key(|(_, groups)| groups.len()).expect("there are nodes")
}

/// With nodes and groups away for good, every group of which a quorum is there answers all who are
/// there of it, whether it rested meanwhile or not.
fn serve_on<M: StateMachine, W: Workload>(world: &mut Groups<M, W>) -> Checked {
    let there = |group| {
        let members = world.members_of(group).into_iter();
        members.filter(|node| world.probe(*node, group).is_some()).collect::<Vec<_>>()
    };
    let is_whole = |group: &GroupId| {
        let probe = |node: &usize| world.probe(*node, *group);
        let is_able = |node| probe(node).is_some_and(|probe| probe.ready && !probe.holed);
        world.has_quorum(*group, None) && there(*group).iter().all(is_able)
    };
    let of = |group| there(group).into_iter().flat_map(move |node| errands(group, Some(node)));
    let each = world.living().into_iter().filter(is_whole).flat_map(of).collect();
    serves(world, each)
}

fn are_led<M: StateMachine, W: Workload>(
    world: &mut Groups<M, W>,
    limit: u64,
    orphans: &[GroupId],
) -> Checked {
    run_until(world, limit, "another leader", |world| {
        Ok(orphans.iter().copied().filter(|group| !world.is_led(*group)).collect())
    })
}

/// A storm's plan with what groups need: they rest soon, and leave alone what they cannot do. In half
/// of the runs there are machines beside these nodes that wait to join.
#[must_use]
pub fn plan(seed: &Seed, nodes: usize) -> Plan {
    let draw = || {
        let number = seed.number;
        // Not the same half of those that have many groups, or groups of five.
        let changes = (number + number / 16) % 2 == 1;
        if changes { Plan::churn(number, nodes) } else { Plan::storm(number, nodes) }
    };
    let mut plan = seed.plan().cloned().unwrap_or_else(draw);
    // A group that begins later would have the former times.
    let is_of_all = |kind: &FaultKind| matches!(kind, FaultKind::Times { .. });
    plan.faults.retain(|Fault { kind, .. }| {
        !kind.is_enumerated() && !kind.is_beyond() && !is_of_all(kind)
    });
    plan.tuning.hibernate_after = plan.tuning.heartbeat * 3;
    plan
}

//! What a majority owes while a minority is broken: everything, as if the minority were not there.
//!
//! At the end of a storm all is healed, and then a minority of the voters breaks once more, in one way
//! ([`Trouble`]), for a while. Those who are whole hear each other, their disks end what they are given, and
//! their logs are as new as anybody's. What they owe rests on `docs/protocol.md` ("Elections"), and nothing
//! of it on anybody's luck but that two who stand at once draw different timeouts:
//!
//! 1. *They serve.* Each of them answers a write and a read within [`SERVE_WITHIN`] election timeouts of the
//!    minority's breaking. Check-quorum and the followers' timeouts see to it that whoever led for nobody
//!    is followed by somebody; pre-vote needs only a quorum that can hear.
//! 2. *Nobody of the minority leads*: who hears no quorum steps down (check-quorum), and so does a leader whose
//!    own disk no longer ends its operations, though it has a quorum without itself.
//! 3. *Nobody disturbs them*: whoever of them led before, or leads then, goes on to, in that term, unless links alone
//!    may be too slow for the timeouts that are in force by then. Who hears of no leader asks
//!    before it stands (pre-vote), is told no by whoever hears one (stickiness), and its term stays. Terms rise
//!    by the few elections that were needed and no more, on either side.
//!
//! Where the minority has one link left, to one node of the majority, the same is owed by any quorum whose
//! voters all hear each other: if whoever leads has one, it leads on, with the minority if it is of it. Who
//! hears that leader serves; who does not, though it hears most others, owes nothing but to disturb nobody.
//! Nothing is promised to a quorum that is connected only by way of others: Raft forwards no votes.

use super::{errands, is_member, leader, run_for, takes_part};
use crate::{
    client::Workload,
    disk::{EIO, Failure, Survivors},
    oracle::{Checked, Violation},
    plan::{FaultKind, MS, Minority, Trouble},
    world::World,
};
use errands::Asked;
use lakebed::{DiskError, NodeId, Role, StateMachine, Term};

/// So many of the longest election timeouts may pass until a majority serves.
const SERVE_WITHIN: u64 = 12;
/// And so many until whoever has no quorum leads no more.
const LEAD_WITHIN: u64 = 3;
/// A leader that had no room asks its disk for some again after so long, and may refuse until then.
const ROOM_WITHIN: u64 = 1_000 * MS;
/// So long nobody asks for anything in some runs, after the minority broke.
const QUIET: u64 = 3;
/// For so many more nothing may change.
const STAY: u64 = 4;
/// So many elections may be needed, as two may stand at once: over the slowest links they do in two of five
/// elections. Six were too few for one in some hundred thousand storms.
const TERMS_MAX: u64 = 12;
/// So many writes are under way when the minority breaks.
const WRITES: usize = 8;

const SERVES: &str = "a majority serves without a minority";
const LEADS: &str = "nobody leads without a quorum and a disk";
const DISTURBS: &str = "nobody disturbs a majority";

/// A minority breaks, if the plan has one, and mends; in between the majority does what it owes. Returns
/// whether it was there.
pub(super) fn goes_on<M: StateMachine, W: Workload>(
    world: &mut World<M, W>,
) -> Result<bool, Violation> {
    let minority = world.plan().minority;
    let camps = minority.and_then(|minority| Camps::of(world, minority));
    let Some(mut camps) = camps else { return Ok(false) };
    let (term, before) = (highest_term(world), reign(world));
    if camps.is_quiet {
        camps.part(world)?;
        camps.wait(world, QUIET * camps.timeout)?;
    } else {
        write_at_once(world)?;
        camps.part(world)?;
    }
    camps.serve(world)?;
    camps.lose_their_leaders(world)?;
    // One whose disk hangs may have served with the disks of others until it stepped down.
    camps.serve(world)?;
    let then = reign(world);
    for _ in 1..STAY {
        camps.wait(world, camps.timeout)?;
        camps.serve(world)?;
    }
    let need_not_change = before.is_some_and(|(leader, _)| camps.serving.contains(&leader));
    if world.has_prompt_links() {
        camps.lead_on(world, if need_not_change { before } else { then })?;
    }
    let risen = highest_term(world).0 - term.0;
    if risen > TERMS_MAX {
        let what = format!("the highest term has risen by {risen}");
        return Err(camps.broken(DISTURBS, None, &what));
    }
    camps.mend(world);
    Ok(true)
}

/// Who leads, and in which term.
type Reign = Option<(usize, Term)>;

fn reign<M: StateMachine, W: Workload>(world: &World<M, W>) -> Reign {
    leader(world).and_then(|leader| Some((leader, world.probe(leader)?.term)))
}

fn highest_term<M: StateMachine, W: Workload>(world: &World<M, W>) -> Term {
    let probes = (0..world.nodes()).filter_map(|node| world.probe(node));
    probes.map(|probe| probe.term).max().unwrap_or_default()
}

/// Asks whoever leads for so much that some of it is under way for a while.
fn write_at_once<M: StateMachine, W: Workload>(world: &mut World<M, W>) -> Checked {
    let Some(leads) = leader(world) else { return Ok(()) };
    for _ in 0..WRITES {
        world.request_of_kind(leads, true)?;
    }
    Ok(())
}

/// The two sides, by nodes.
struct Camps {
    trouble: Trouble,
    is_quiet: bool,
    minority: Vec<usize>,
    /// Who of the others keeps one link to the minority, if that is the trouble.
    between: Option<usize>,
    /// Who must serve.
    serving: Vec<usize>,
    /// The longest election timeout of any node, in simulated nanoseconds.
    timeout: u64,
    /// When those who come and go do so next, and whether they are away.
    turns_at: u64,
    are_away: bool,
}

impl Camps {
    /// `None` if nobody may be missing, or if it is not sure who could lead.
    fn of<M: StateMachine, W: Workload>(world: &World<M, W>, minority: Minority) -> Option<Self> {
        let leads = leader(world)?;
        let members = world.members(leads)?;
        let of = |id: NodeId| id.0 as usize - 1;
        let voters: Vec<usize> = members.voters.iter().map(|member| of(member.id)).collect();
        let is_there = |node: &usize| takes_part(world, *node) && is_member(world, *node);
        let is_able =
            |node: &usize| world.probe(*node).is_some_and(|probe| probe.ready && !probe.holed);
        let quorum = voters.len() / 2 + 1;
        let there = voters.iter().filter(|node| is_there(node)).count();
        let count = there.checked_sub(quorum)?.min(minority.most);
        let place = voters.iter().position(|node| *node == leads)? + usize::from(!minority.leads);
        let mut ring = (0..voters.len()).map(|by| voters[(place + by) % voters.len()]);
        let broken: Vec<usize> = ring.by_ref().filter(is_there).take(count).collect();
        let others = (0..world.nodes()).filter(|node| is_there(node) && !broken.contains(node));
        let others: Vec<usize> = others.collect();
        if broken.is_empty() || !others.iter().all(is_able) {
            return None;
        }
        let plan = world.plan();
        let delay = plan.tuning.election_delay.as_nanos() as u64 * (world.nodes() as u64 - 1);
        let timeout = plan.longest(plan.election_max() + delay);
        let is_between = |node: &usize| voters.contains(node);
        let between = others.iter().copied().find(is_between);
        let between = between.filter(|_| minority.trouble == Trouble::OneLink);
        let with_it = [broken.as_slice(), between.as_slice()].concat();
        let leads_on = between.is_some() && minority.leads && with_it.len() >= quorum;
        Some(Self {
            trouble: minority.trouble,
            is_quiet: minority.quiet,
            minority: broken,
            between,
            serving: if leads_on { with_it } else { others },
            timeout,
            turns_at: 0,
            are_away: false,
        })
    }

    /// Breaks the minority.
    fn part<M: StateMachine, W: Workload>(&mut self, world: &mut World<M, W>) -> Checked {
        let nodes = world.nodes();
        let side = |of: &[usize]| (0..nodes).map(|node| of.contains(&node)).collect();
        let others = (0..nodes).filter(|node| !self.minority.contains(node));
        let lasts = self.timeout;
        let parted =
            |side, both_ways, noticed| FaultKind::Partition { side, both_ways, noticed, lasts };
        match self.trouble {
            Trouble::Down => {
                self.minority.iter().for_each(|node| world.cut_power(*node, Survivors::Random));
            }
            Trouble::Alone | Trouble::ComesAndGoes => self.take_away(world)?,
            Trouble::Apart => {
                let kind = parted(side(&self.minority), true, true);
                world.strike(&kind)?;
            }
            Trouble::Unheard => {
                let kind = parted(side(&self.minority), false, false);
                world.strike(&kind)?;
            }
            Trouble::Deaf => {
                let kind = parted(side(&others.collect::<Vec<_>>()), false, false);
                world.strike(&kind)?;
            }
            Trouble::OneLink => {
                for node in others.filter(|node| Some(*node) != self.between) {
                    self.minority.iter().for_each(|other| world.part(node, *other));
                }
            }
            Trouble::HungDisk => {
                for node in &self.minority {
                    world.strike(&FaultKind::HungDisk { node: *node, lasts })?;
                }
            }
            Trouble::FailingDisk => {}
        }
        Ok(())
    }

    fn take_away<M: StateMachine, W: Workload>(&mut self, world: &mut World<M, W>) -> Checked {
        (self.are_away, self.turns_at) = (true, world.now() + self.timeout * 3 / 2);
        for node in &self.minority {
            let (node, lasts) = (*node, self.timeout);
            world.strike(&FaultKind::Isolated { node, noticed: false, lasts })?;
        }
        Ok(())
    }

    /// What has to be done again and again for the trouble to last.
    fn last<M: StateMachine, W: Workload>(&mut self, world: &mut World<M, W>) -> Checked {
        match self.trouble {
            Trouble::FailingDisk => {
                let error = Failure::Nothing(DiskError::Io { errno: EIO });
                let ways = [Failure::CleanKeep, Failure::CleanRevert, error];
                for node in &self.minority {
                    let way = (world.now() / MS) as usize % ways.len();
                    world.fail_next_sync(*node, ways[way]);
                }
            }
            Trouble::ComesAndGoes if world.now() >= self.turns_at => {
                if !self.are_away {
                    return self.take_away(world);
                }
                (self.are_away, self.turns_at) = (false, world.now() + self.timeout / 4);
                self.minority.iter().for_each(|node| world.readmit(*node));
            }
            _ => {}
        }
        Ok(())
    }

    fn wait<M: StateMachine, W: Workload>(
        &mut self,
        world: &mut World<M, W>,
        time: u64,
    ) -> Checked {
        let until = world.now() + time;
        while world.now() < until {
            self.last(world)?;
            run_for(world, MS)?;
        }
        Ok(())
    }

    fn serve<M: StateMachine, W: Workload>(&mut self, world: &mut World<M, W>) -> Checked {
        // Where followers forward nothing, only whoever leads shows that anything is served.
        let members = self.serving.iter().map(|node| Asked::Member(*node));
        let asked: Vec<Asked> = members.chain([Asked::Leader]).collect();
        let within = SERVE_WITHIN * self.timeout + ROOM_WITHIN;
        let told = errands::serves_within(world, &asked, within, |world| self.last(world));
        told.map_err(|violation| match violation.invariant {
            super::LIVENESS => self.broken(SERVES, violation.node, &violation.what),
            _ => violation,
        })
    }

    /// Nobody of the minority leads any more, where that is owed.
    fn lose_their_leaders<M: StateMachine, W: Workload>(
        &mut self,
        world: &mut World<M, W>,
    ) -> Checked {
        if matches!(self.trouble, Trouble::ComesAndGoes | Trouble::OneLink) {
            return Ok(());
        }
        let until = world.now() + LEAD_WITHIN * self.timeout + ROOM_WITHIN;
        while let Some(node) = self
            .minority
            .iter()
            .copied()
            .find(|node| world.probe(*node).is_some_and(|probe| probe.role == Role::Leader))
        {
            if world.now() > until {
                return Err(self.broken(LEADS, Some(node), "it leads on"));
            }
            self.wait(world, MS)?;
        }
        Ok(())
    }

    /// Whoever of those who hear each other led goes on to, in the same term.
    fn lead_on<M: StateMachine, W: Workload>(&self, world: &World<M, W>, before: Reign) -> Checked {
        let after = reign(world);
        // One that comes and goes may lead, and be followed when it is away the next time.
        let is_whole = before.is_some_and(|(leader, _)| self.serving.contains(&leader));
        if !is_whole && self.trouble == Trouble::ComesAndGoes || is_whole && before == after {
            return Ok(());
        }
        let named = |reign: Reign| match reign {
            Some((leader, term)) => format!("node {} in term {term}", leader + 1),
            None => "nobody".into(),
        };
        let what = format!("{} led, and then {} did", named(before), named(after));
        Err(self.broken(DISTURBS, None, &what))
    }

    /// The minority is as whole as the others again.
    fn mend<M: StateMachine, W: Workload>(&self, world: &mut World<M, W>) {
        world.heal();
        let is_down = |node: &&usize| world.probe(**node).is_none();
        if self.trouble == Trouble::Down {
            let down: Vec<usize> = self.minority.iter().filter(is_down).copied().collect();
            down.into_iter().for_each(|node| world.restart(node));
        }
    }

    fn broken(&self, invariant: &'static str, node: Option<usize>, what: &str) -> Violation {
        let nodes: Vec<String> = self.minority.iter().map(|node| (node + 1).to_string()).collect();
        let (trouble, nodes) = (self.trouble, nodes.join(","));
        let timeout = self.timeout / MS;
        let what = format!(
            "the trouble of {nodes} is {trouble:?}, an election timeout {timeout} ms at most: {what}"
        );
        Violation { invariant, node, what }
    }
}

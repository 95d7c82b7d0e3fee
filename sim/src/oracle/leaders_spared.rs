//! Whoever has heard from a leader gives nobody else its vote within its least election timeout, and nobody any
//! within that of its start, as it may have forgotten whom it heard (thesis §4.2.3 and §6.4.1): leases rest on
//! that. Unless that leader itself has asked the candidate to stand: then it answers by no lease any more. Who does knows that
//! nobody leads a later term: a quorum waits still, by its own clocks, or is down and will wait.
//!
//! By the voter's own clock, and by the least timeout that there ever is. Invariant: what was heard counts from
//! when it was handled, and a vote from when it was given, which both may be earlier than what is said of it.

use super::{Checked, Seen, Violation, members_in_force::quorum};
use crate::plan::{FaultKind, Plan};
use bytes::Bytes;
use lakebed::{
    Instant, NodeId, RequestId, Requests, Role, Term,
    inspect::{Probe, Said, leads},
};
use std::{collections::BTreeSet, time::Duration};

#[derive(Clone, Debug)]
pub(super) struct Spared {
    least: Duration,
    voters: Vec<Voter>,
    /// Who stood in which term because its leader asked it to.
    wished: BTreeSet<(NodeId, Term)>,
    /// The last term in which each node asked another to stand.
    gave_up: Vec<Term>,
    /// Who did in the step that is being looked at: by then it may have answered.
    gives_up: Option<(usize, Term)>,
    /// The read under a lease that is being handled, and who waits still.
    leased: Option<(RequestId, Vec<bool>)>,
    /// The last term that anybody was seen to lead.
    led: Term,
}

/// A node in its present life.
#[derive(Clone, Copy, Debug, Default)]
struct Voter {
    /// What it is handling is a leader's word.
    hears: Option<(NodeId, Term)>,
    /// When it began, or heard one last.
    since: Option<Instant>,
    /// In which term it heard that.
    heard: Option<Term>,
}

impl Spared {
    pub(super) fn new(nodes: usize) -> Self {
        let voters = vec![Voter::default(); nodes];
        let (wished, gave_up) = (BTreeSet::new(), vec![Term(0); nodes]);
        Self {
            least: Duration::ZERO,
            voters,
            wished,
            gave_up,
            gives_up: None,
            leased: None,
            led: Term(0),
        }
    }

    pub(super) fn hold_to(&mut self, plan: &Plan) {
        let times = plan.faults.iter().filter_map(|fault| match fault.kind {
            FaultKind::Times { to } => Some(to.election),
            _ => None,
        });
        let percent = times.min().unwrap_or(100).min(100);
        let least = plan.tunings().map(|tuning| tuning.election.0).min().unwrap_or_default();
        self.least = least * percent / 100;
    }

    pub(super) fn on_death(&mut self, node: usize) {
        self.voters[node] = Voter::default();
    }

    /// A message is about to be handled.
    pub(super) fn on_received(&mut self, node: usize, from: NodeId, bytes: &Bytes) {
        self.voters[node].hears = leads(bytes).map(|term| (from, term));
    }

    /// Something was handled.
    pub(super) fn on_step(&mut self, seen: &Seen<'_>) {
        if let Some((node, term)) = self.gives_up.take() {
            self.gave_up[node] = self.gave_up[node].max(term);
        }
        let Voter { hears, since, heard } = &mut self.voters[seen.node];
        let (hears, probe) = (hears.take(), &seen.probe);
        let Some((now, _)) = seen.clocks else { return };
        // Who has left leads nobody, though its word may come late.
        let members = seen.engine.membership();
        let has_left = |leader| members.is_some_and(|members| members.is_former(leader));
        let follows = |(leader, term)| {
            probe.leader == Some(leader) && probe.term == term && !has_left(leader)
        };
        let hears = hears.filter(|hears| follows(*hears));
        if since.is_none() || hears.is_some() {
            *since = Some(now);
            *heard = hears.map(|(_, term)| term);
        }
    }

    /// A node says something to another.
    pub(super) fn on_sent(&mut self, node: usize, said: Said) {
        match said {
            Said::StandsFor { term, is_wished: true } => {
                self.wished.insert((NodeId(node as u64 + 1), term));
            }
            Said::AsksToStand { term } => self.gives_up = Some((node, term)),
            _ => {}
        }
    }

    /// What a node is about to handle is a read under its lease, or nothing of the kind; `now`: the clock of
    /// each node that is up, and the least that it waits.
    pub(super) fn on_leased(
        &mut self,
        request: Option<RequestId>,
        now: impl Iterator<Item = Option<(Instant, Duration)>>,
    ) {
        self.leased = request.map(|request| {
            let waits = |(now, voter): (Option<(Instant, Duration)>, &Voter)| match now {
                Some((now, least)) => voter.since.is_some_and(|since| now < since.after(least)),
                None => true,
            };
            (request, now.zip(&self.voters).map(waits).collect())
        });
    }

    /// Reads go to the machine: that at once, if the lease alone answers it.
    pub(super) fn on_query(&self, seen: &Seen<'_>, requests: &Requests) -> Checked {
        let (node, probe) = (seen.node, &seen.probe);
        let Some((leased, waits)) = &self.leased else { return Ok(()) };
        let is_it = requests.ids().any(|request| request == *leased);
        if probe.role != Role::Leader || is_alone(seen) || !is_it {
            return Ok(());
        }
        let has_asked = self.gave_up[node] == probe.term;
        let why = match seen.engine.membership() {
            _ if has_asked => "in which it has asked another node to stand".into(),
            _ if self.led > probe.term => format!("and term {} was led", self.led),
            Some(members) => {
                let waits = |id: NodeId| {
                    let at = id.0 as usize - 1;
                    at == node || waits.get(at).is_none_or(|waits| *waits)
                };
                match quorum(members, waits) {
                    Ok(()) => return Ok(()),
                    Err(why) => format!("for which a majority must wait still: {why}"),
                }
            }
            None => return Ok(()),
        };
        let what = format!("answers by a lease in term {}, {why}", probe.term);
        Err(Violation::new("a lease holds", node, what))
    }

    /// `before`: what the node showed before, in this life.
    pub(super) fn on_view(&mut self, seen: &Seen<'_>, before: Option<&Probe>) -> Checked {
        let (own, probe) = (NodeId(seen.node as u64 + 1), &seen.probe);
        if probe.role == Role::Leader {
            self.led = self.led.max(probe.term);
        }
        let Some(before) = before.filter(|before| before.judged) else { return Ok(()) };
        let Some(candidate) = probe.vote.filter(|candidate| *candidate != own) else {
            return Ok(());
        };
        let is_given = (before.term, before.vote) == (probe.term, probe.vote);
        if is_given || is_alone(seen) || self.wished.contains(&(candidate, probe.term)) {
            return Ok(());
        }
        let Voter { since, heard, .. } = self.voters[seen.node];
        // Whom it heard has asked somebody to stand since, who may not have been elected.
        let is_released =
            heard.is_some_and(|heard| self.wished.iter().any(|(_, stood)| *stood == heard.next()));
        let (Some((now, _)), Some(since), false) = (seen.clocks, since, is_released) else {
            return Ok(());
        };
        let silence = now.since(since);
        if silence >= self.least {
            return Ok(());
        }
        let what = format!(
            "votes for node {candidate} in term {}, {silence:?} after it heard from a leader or began, and \
             {:?} is the least that it waits",
            probe.term, self.least
        );
        Err(Violation::new("who leads is kept to", seen.node, what))
    }
}

fn is_alone(seen: &Seen<'_>) -> bool {
    let own = NodeId(seen.node as u64 + 1);
    seen.engine.membership().is_some_and(|members| members.is_sole_voter(own))
}

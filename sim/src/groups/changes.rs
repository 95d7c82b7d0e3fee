//! Members that come and go, in many groups at a time: a node that joins is taken in by some of the
//! groups, its cohort, and what the plan says of it then is asked of each of them.
//!
//! Invariant: a node has an engine of a group while it is one of the group's hosts: from the beginning
//! or from when it was to join, until it was removed and knows it.

use super::{Coming, Group, Groups, SITE_COHORT, node_id, of_group};
use crate::{
    changes::{Ended, PATIENCE, PAUSE, Turn},
    client::{Request, Workload},
    oracle::Checked,
    plan::{Step, Steps},
};
use lakebed::{Control, Event, GroupId, HostEvent, Membership, Outcome, RequestId, StateMachine};
use std::sync::Arc;

impl<M: StateMachine, W: Workload> Groups<M, W> {
    /// Wants the members of some groups to be others. Who is added begins a new cohort; all that
    /// follows is asked of the last one.
    pub(super) fn want_change(&mut self, steps: &Steps) -> Checked {
        let newcomer = steps.0.iter().find_map(|step| match step {
            Step::Add(node) => Some(*node),
            _ => None,
        });
        if newcomer.is_some() || self.cohort.is_empty() {
            self.cohort = self.draw_cohort();
        }
        for id in self.cohort.clone() {
            let Some(group) = self.groups.get_mut(&id).filter(|group| !group.is_removed) else {
                continue;
            };
            let number = group.changes.want(&meant(steps, group));
            if let Some(node) = newcomer.filter(|node| group.hosts.insert(*node)) {
                self.sit(node, id)?;
            }
            self.ask_for_change(id, number, 0)?;
        }
        Ok(())
    }

    /// About half of the groups, and one at least.
    fn draw_cohort(&mut self) -> Vec<GroupId> {
        let mut cohort = self.living();
        let draw = self.draws.lane(SITE_COHORT, 0);
        let first = (!cohort.is_empty()).then(|| *draw.pick(&cohort));
        cohort.retain(|group| Some(*group) == first || draw.ratio(1, 2));
        cohort
    }

    /// Asks for the `turn`th time, unless that was done before.
    pub(super) fn ask_for_change(&mut self, id: GroupId, number: u64, turn: u32) -> Checked {
        let of = |node: usize| self.nodes[node].seats.get(&id).map(|seat| &seat.disk);
        let Group { changes, harmed, .. } = &self.groups[&id];
        let must_wait = changes.takes_away(number) && harmed.is_open(of);
        let leader = self.leader(id).filter(|_| !must_wait);
        let group = self.groups.get_mut(&id).expect("only what was founded is changed");
        if group.is_removed {
            return Ok(());
        }
        let (changes, turn) = match group.changes.turn(number, turn, leader) {
            Turn::Over => return Ok(()),
            Turn::Later(turn) => {
                self.schedule(self.now + PAUSE, Coming::Change { group: id, number, turn });
                return Ok(());
            }
            Turn::Ask(changes, turn) => (changes, turn),
        };
        let leader = leader.expect("only who leads is asked");
        let request = group.order(leader, Control::Change(changes.clone()));
        group.changes.asked(request.0, number, &changes);
        self.schedule(self.now + PATIENCE, Coming::Change { group: id, number, turn });
        self.feed(leader, [HostEvent::Group(id, request.1)])
    }

    /// A request for a change, if it is one, has come to its end.
    pub(super) fn changed(
        &mut self,
        at: usize,
        id: GroupId,
        request: RequestId,
        outcome: &Outcome,
    ) -> Checked {
        let group = self.groups.get_mut(&id).expect("only what was founded is changed");
        let sought = group.changes.sought(request);
        let checked = match (sought, outcome) {
            (Some(changes), Outcome::Done(done)) => group.oracle.on_changed(at, *done, &changes),
            (Some(changes), Outcome::Refused(_)) if group.changes.on_refused(request) => {
                group.oracle.on_change_refused(at, &changes)
            }
            _ => Ok(()),
        };
        checked.map_err(|violation| of_group(id, violation))?;
        match group.changes.on_end(request, outcome) {
            Some(Ended::Refused { number, why, turn }) => {
                self.note(None, Some(id), || format!("change {number} refused: {why}"));
                if let Some(turn) = turn {
                    self.schedule(self.now + PAUSE, Coming::Change { group: id, number, turn });
                }
            }
            Some(Ended::Made) => self.struck("change"),
            Some(Ended::Unknown) | None => {}
        }
        Ok(())
    }

    /// Whoever waits to join a group that has not taken it in is stopped: it would go on asking.
    pub(super) fn let_strangers_go(&mut self) -> Checked {
        for id in self.living() {
            let members = self.members_of(id);
            let group = self.groups.get_mut(&id).expect("it lives");
            let strangers: Vec<usize> =
                group.hosts.iter().copied().filter(|host| !members.contains(host)).collect();
            group.hosts.retain(|host| members.contains(host));
            for node in strangers {
                self.feed(node, [HostEvent::Group(id, Event::Stop { hand_over: false })])?;
            }
        }
        Ok(())
    }

    /// Nothing more is to change.
    pub(super) fn want_no_changes(&mut self) {
        self.groups.values_mut().for_each(|group| group.changes.clear());
    }

    /// A group's members: as who leads it says, or, while nobody does, whoever knows of the newest.
    pub(super) fn membership(&self, id: GroupId) -> Arc<Membership> {
        let says = |node: usize| self.nodes[node].host.as_ref()?.core(id)?.membership();
        if let Some(members) = self.leader(id).and_then(says) {
            return Arc::clone(members);
        }
        let group = &self.groups[&id];
        let known = group.hosts.iter().filter_map(|node| says(*node));
        let newest = known.max_by_key(|members| members.at);
        let known = newest.filter(|members| !members.voters.is_empty());
        Arc::clone(known.unwrap_or(&group.founders))
    }

    /// The nodes that are members of a group.
    pub(super) fn members_of(&self, id: GroupId) -> Vec<usize> {
        let members = self.membership(id);
        members.members().map(|member| member.id.0 as usize - 1).collect()
    }

    /// Whether a node is no member any more, goes on, and knows somebody who could tell it.
    pub(super) fn must_leave(&self, node: usize, id: GroupId, members: &Membership) -> bool {
        let says = |node: usize| self.nodes[node].host.as_ref()?.core(id)?.membership();
        let Some(known) = says(node) else { return false };
        let tells = |at: usize| known.member(node_id(at)).is_some() && says(at).is_some();
        members.is_former(node_id(node))
            && members.members().any(|member| tells(member.id.0 as usize - 1))
    }
}

impl<M: StateMachine> Group<M> {
    /// An order to a node, of nobody's.
    pub(super) fn order(&mut self, node: usize, control: Control) -> (RequestId, Event) {
        let id = self.requests.begin(Request::order(node, self.oracle.acknowledged()));
        (id, Event::Control { id, control })
    }
}

/// The steps as a group takes them: a plan knows founders of the cluster, and a founder who is none
/// of the group stands for one who is.
fn meant<M: StateMachine>(steps: &Steps, group: &Group<M>) -> Steps {
    let founders: Vec<usize> =
        group.founders.members().map(|member| member.id.0 as usize - 1).collect();
    let mut steps = steps.clone();
    for node in steps.0.iter_mut().filter_map(Step::node_mut) {
        if *node < group.drawn_from && !founders.contains(node) {
            *node = founders[*node % founders.len()];
        }
    }
    steps
}

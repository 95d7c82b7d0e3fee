//! What clients and operators ask.

use super::{super::changes::member, *};
use crate::change::Change as Alter;

impl Storm {
    pub(super) fn propose(&mut self, at: u64) {
        let count = self.draw(3) as u64 + 1;
        let first = self.known.request(at, count);
        let names: Vec<_> = (first..first + count).map(|id| id.to_string()).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        self.cluster.propose(at, first, &names);
    }

    pub(super) fn read(&mut self, at: u64) {
        let id = self.known.request_read(at);
        let mode = if self.draw(2) == 0 { ReadMode::Lease } else { ReadMode::Linearizable };
        self.cluster.at(at).raft.on_read(Requests::one(RequestId(id)), mode);
        self.cluster.settle(at);
        // Nobody was asked.
        if self.cluster.at(at).queried.iter().any(|(read, _)| *read == id) {
            self.check_nobody_else_leads(at);
        }
    }

    pub(super) fn transfer(&mut self, at: u64) {
        let id = self.known.request(at, 1);
        let to = (self.draw(3) > 0).then(|| node(self.draw_node()));
        self.cluster.at(at).raft.on_transfer(RequestId(id), to);
    }

    /// One or two changes at once, most of them such as may be made.
    pub(super) fn change(&mut self, at: u64) {
        let members = Arc::clone(&self.cluster.at(at).raft.membership);
        let changes: Vec<_> = (0..=self.draw(2)).map(|_| self.draw_change(&members)).collect();
        let id = self.known.request(at, 1);
        self.cluster.at(at).raft.on_change(RequestId(id), &changes);
    }

    fn draw_change(&mut self, members: &Membership) -> Alter {
        let next = members.greatest_id().0 + 1;
        let who = node(self.draw_node());
        match self.draw(5) {
            0 | 1 if next <= self.cluster.nodes.len() as u64 => Alter::AddLearner(member(next)),
            2 | 3 if !members.learners.is_empty() => {
                Alter::Promote(members.learners[self.draw(members.learners.len())].id)
            }
            2 | 3 => Alter::Demote(who),
            _ => Alter::Remove(who),
        }
    }
}

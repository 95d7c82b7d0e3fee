//! Lines between nodes: what is lost, late or twice on them, and what waits.

use super::*;

/// Lines of a node, or the node itself, stand still until then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slow {
    until: u64,
    /// What is for it waits, and what is of it.
    waits: [bool; 2],
    is_paused: bool,
}

impl Storm {
    /// For about as long as an election takes. What waits comes in its order, when others have gone on meanwhile.
    pub(super) fn stand_still(&mut self, at: u64) {
        let (which, lasts) = (self.draw(12), self.draw(2500) as u64);
        let waits = [which != 1, which != 2];
        if which < 4 && !self.slow.contains_key(&at) {
            let slow = Slow { until: self.now + lasts * MS, waits, is_paused: which == 3 };
            self.slow.insert(at, slow);
        }
    }

    pub(super) fn is_paused(&self, at: u64) -> bool {
        self.slow.get(&at).is_some_and(|slow| slow.is_paused)
    }

    /// What stood still long enough goes on.
    pub(super) fn go_on(&mut self) {
        let (before, now) = (self.slow.len(), self.now);
        self.slow.retain(|_, slow| slow.until > now);
        if self.slow.len() < before {
            let held = std::mem::take(&mut self.held);
            self.flying.splice(0..0, held);
        }
    }

    fn is_waiting(&self, from: NodeId, to: NodeId) -> bool {
        let waits = |of: NodeId, way: usize| self.slow.get(&of.0).is_some_and(|s| s.waits[way]);
        waits(to, 0) || waits(from, 1)
    }

    /// Some of what is said, to be said again long after.
    pub(super) fn keep(&mut self, message: &(NodeId, Message)) {
        const KEPT_MAX: usize = 40;
        let is_seldom = !matches!(message.1.payload, Payload::Append(_) | Payload::AppendAnswer(_));
        if !self.weather.is_late || self.draw(if is_seldom { 2 } else { 6 }) != 0 {
            return;
        }
        let which = self.draw(KEPT_MAX);
        let old = &mut self.old[usize::from(is_seldom)];
        if old.len() < KEPT_MAX {
            old.push(message.clone());
        } else {
            old[which] = message.clone();
        }
    }

    pub(super) fn deliver_old(&mut self) {
        let of = self.draw(2);
        if !self.old[of].is_empty() {
            let which = self.draw(self.old[of].len());
            let (from, message) = self.old[of][which].clone();
            self.hand_over(from, message);
        }
    }

    /// Whoever begins anew hears some of what was for its life before.
    pub(super) fn haunt(&mut self, at: u64) {
        if !self.weather.is_late || self.draw(2) == 0 {
            return;
        }
        let is_for = |(_, message): &&(NodeId, Message)| message.head.to == node(at);
        let mut former: Vec<_> = self.old.iter().flatten().filter(is_for).cloned().collect();
        for _ in 0..former.len().min(4) {
            let (which, place) = (self.draw(former.len()), self.draw(40));
            self.flying.insert(place.min(self.flying.len()), former.swap_remove(which));
        }
    }

    /// Mostly in order; some come twice, some never.
    pub(super) fn deliver(&mut self) {
        if self.flying.is_empty() {
            return;
        }
        let among = self.flying.len().min(if self.draw(10) == 0 { 20 } else { 1 });
        let which = self.draw(among);
        let (from, message) = match self.draw(20) {
            0 => self.flying[which].clone(),
            _ => self.flying.remove(which),
        };
        if self.draw(30) != 0 {
            self.hand_over(from, message);
        }
    }

    fn hand_over(&mut self, from: NodeId, message: Message) {
        let to = message.head.to;
        let is_there = to.0 as usize <= self.cluster.nodes.len() && !self.gone.contains(&to.0);
        if !is_there || self.cluster.cut.contains(&(from, to)) {
            return;
        }
        if self.is_waiting(from, to) {
            self.held.push((from, message));
            return;
        }
        self.look_at_clock(to.0);
        let before = self.hears(from, &message);
        self.cluster.at(to.0).raft.on_message(from, message);
        self.check_heard(to.0, from, before);
        self.settle(to.0);
    }

    pub(super) fn cut(&mut self, at: u64) {
        match self.draw(3) {
            0 => self.cluster.isolate(at),
            _ => {
                let to = self.draw_node();
                self.cluster.cut.insert((node(at), node(to)));
            }
        }
    }

    pub(super) fn heal(&mut self) {
        self.cluster.cut.clear();
        for at in self.gone.clone() {
            self.cluster.isolate(at);
        }
    }

    pub(super) fn link(&mut self, at: u64) {
        let (peer, up) = (self.draw_node(), self.draw(8) > 0);
        if peer != at {
            self.cluster.at(at).raft.on_link(node(peer), up);
        }
    }
}

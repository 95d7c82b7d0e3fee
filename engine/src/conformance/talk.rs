//! Two cores that talk over the driver's network: one sends numbered messages, the other checks
//! them and says when it has the last one.

use super::{
    Breach, Clause,
    ledger::{Ledger, SILENCE_MAX},
};
use crate::{Action, Event, Halt, Instant, Membership, NodeId};
use bytes::{BufMut, Bytes, BytesMut};
use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

/// Messages of one round.
const MESSAGES: u64 = 64;
/// How many leave at one time.
const BURST: u64 = 16;
/// What may be lost is asked for again this often.
const PATIENCE: Duration = Duration::from_millis(20);

const HEAD_BYTES: usize = 17;
const DATA: u8 = 0;
const END: u8 = 1;
const ACK: u8 = 2;

/// What both ends know.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    rounds_done: u32,
    /// The greatest number that never arrived, though a greater one did.
    missing: u64,
}

#[derive(Debug)]
pub(super) struct Talk {
    me: NodeId,
    peer: NodeId,
    members: Option<Arc<Membership>>,
    shared: Arc<Mutex<Conversation>>,
    /// Rounds after which this core halts.
    rounds: u32,
    up: bool,
    /// It was said that the link is down, and not yet that it is up again.
    down: bool,
    /// Since when the peer is heard all the same.
    heard_since: Option<Instant>,
    sent: u64,
    /// What was sent when the link was last said to be down: losses up to here were told.
    told: u64,
    round_start: u64,
    seen: Option<u64>,
    /// Since when it is known that something was lost of which nothing was told.
    silent_since: Option<Instant>,
    deadline: Option<Instant>,
    /// The round is over and the peer's life with it: it must go down before the next.
    awaits_down: bool,
}

impl Talk {
    pub(super) fn new(
        me: NodeId,
        peer: NodeId,
        members: Arc<Membership>,
        shared: Arc<Mutex<Conversation>>,
        rounds: u32,
    ) -> Self {
        Self {
            me,
            peer,
            members: Some(members),
            shared,
            rounds,
            up: false,
            down: false,
            heard_since: None,
            sent: 0,
            told: 0,
            round_start: 0,
            seen: None,
            silent_since: None,
            deadline: None,
            awaits_down: false,
        }
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(super) fn handle(
        &mut self,
        now: Instant,
        events: Vec<Event>,
        actions: &mut Vec<Action>,
        ledger: &mut Ledger,
    ) {
        actions.extend(self.members.take().map(Action::Members));
        for event in events {
            match event {
                Event::Received { from, bytes } => {
                    self.on_message(now, (from, &bytes), actions, ledger);
                }
                Event::Link { peer, up } if peer == self.peer => self.on_link(up),
                _ => {}
            }
        }
        if self.is_sender() && self.up {
            self.send(actions);
        }
        self.deadline = Some(now.after(PATIENCE));
        ledger.awaited = self.awaited();
        if self.rounds_done() >= self.rounds && ledger.lost_in_silence().is_none() {
            self.deadline = None;
            actions.push(Action::Halt(Box::new(Halt::Stopped)));
        }
    }

    fn is_sender(&self) -> bool {
        self.me < self.peer
    }

    fn conversation(&self) -> MutexGuard<'_, Conversation> {
        self.shared.lock().expect("nothing panics while it holds the conversation")
    }

    fn rounds_done(&self) -> u32 {
        self.conversation().rounds_done
    }

    fn on_link(&mut self, up: bool) {
        (self.up, self.down) = (up, !up);
        self.heard_since.take_if(|_| up);
        if !up {
            self.told = self.sent;
        }
        if !up && self.awaits_down {
            self.awaits_down = false;
            self.round_start = self.sent;
        }
    }

    fn on_message(
        &mut self,
        now: Instant,
        (from, bytes): (NodeId, &Bytes),
        actions: &mut Vec<Action>,
        ledger: &mut Ledger,
    ) {
        let Some((number, kind)) = number_and_kind(bytes) else {
            return ledger.breach(Clause::SendsInOrder, "a message arrived that nobody sent");
        };
        if from != self.peer || bytes[..] != message(number, kind).concat() {
            let detail = format!("message {number} is not what was sent, or not from {from}");
            return ledger.breach(Clause::SendsInOrder, detail);
        }
        if self.down {
            let since = *self.heard_since.get_or_insert(now);
            if now.since(since) > SILENCE_MAX {
                let detail = format!("{} is heard, and Link up never came after down", self.peer);
                return ledger.breach(Clause::LinkUp, detail);
            }
        }
        if kind == ACK {
            return self.on_ack(now, number, ledger);
        }
        if let Some(seen) = self.seen.filter(|seen| number <= *seen) {
            let detail = format!("message {number} arrived after {seen}");
            ledger.breach(Clause::SendsInOrder, detail);
        }
        // What went to a former life is missing as well: that it is gone was told.
        if number > self.seen.unwrap_or_default() + 1 {
            self.conversation().missing = number - 1;
        }
        self.seen = Some(number);
        // One who is down is sent nothing; the last message comes again until it is up.
        if kind == END && !self.down {
            actions.push(self.action(number, ACK));
        }
    }

    /// All that was sent before has arrived, or been lost.
    fn on_ack(&mut self, now: Instant, number: u64, ledger: &mut Ledger) {
        if self.awaits_down || number <= self.round_start + MESSAGES {
            return;
        }
        let missing = self.conversation().missing;
        if missing > self.told {
            // A loss may be told later than others arrive; the last message is sent again until then.
            let since = *self.silent_since.get_or_insert(now);
            if now.since(since) > SILENCE_MAX {
                let detail = format!("message {missing} to {} was lost in silence", self.peer);
                ledger.breach(Clause::LossTold, detail);
            }
            return;
        }
        self.silent_since = None;
        self.conversation().rounds_done += 1;
        self.round_start = self.sent;
        self.awaits_down = self.rounds_done() < self.rounds;
    }

    fn send(&mut self, actions: &mut Vec<Action>) {
        if self.rounds_done() >= self.rounds {
            return;
        }
        // While the peer is to go down, what is sent to it is lost sooner or later.
        let has_data = !self.awaits_down && self.sent - self.round_start < MESSAGES;
        let (count, kind) = if has_data { (BURST, DATA) } else { (1, END) };
        for _ in 0..count {
            self.sent += 1;
            actions.push(self.action(self.sent, kind));
        }
    }

    fn action(&self, number: u64, kind: u8) -> Action {
        let [head, body] = message(number, kind);
        Action::Send { to: self.peer, head, body }
    }

    /// What a hang here would mean.
    fn awaited(&self) -> Option<Breach> {
        let breach = |clause, detail: &str| Some(Breach { clause, detail: detail.into() });
        if self.awaits_down {
            breach(Clause::LossTold, "the peer halted and Link down never came")
        } else if self.silent_since.is_some() {
            breach(Clause::LossTold, "messages were lost in silence")
        } else if self.down {
            breach(Clause::LinkUp, "Link up never came after down")
        } else if !self.up {
            breach(Clause::SendsInOrder, "Link up never came, so nothing was sent")
        } else {
            breach(Clause::SendsInOrder, "the last message never arrived, however often it left")
        }
    }
}

/// A message's number is in its head; all else follows from number and kind.
fn message(number: u64, kind: u8) -> [Bytes; 2] {
    let (head_more, body) = match (kind, number % MESSAGES) {
        (DATA, 13) => (0, 1 << 20),
        (DATA, 14) => (70 << 10, 0),
        (DATA, n) => (0, (n as usize % 4) * 1000),
        _ => (0, 0),
    };
    let mut head = BytesMut::with_capacity(HEAD_BYTES + head_more);
    head.put_u64_le(number);
    head.put_u8(kind);
    head.put_u64_le(!number);
    head.put_bytes(number as u8, head_more);
    [head.freeze(), vec![!number as u8; body].into()]
}

fn number_and_kind(bytes: &[u8]) -> Option<(u64, u8)> {
    let (number, rest) = bytes.split_first_chunk::<8>()?;
    rest.first().map(|kind| (u64::from_le_bytes(*number), *kind))
}

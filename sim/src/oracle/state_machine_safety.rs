//! Every machine applies the same commands in the same order, each once per life, without gaps,
//! and answers the same (Raft §5.4.3, figure 3 "State Machine Safety").
//!
//! The first to apply an entry sets the record and moves the reference, a machine of the user's
//! own kind that lives through no crash; whoever comes later is compared.

use super::{Checked, Violation, history::History, sessions_end::Sessions, times_go_on::Times};
use crate::{
    seat::Seat,
    witness::{Applied, Asked, Given, Inputs, PREFIX_BYTES, Witness, digest, state_digest},
};
use bytes::Bytes;
use lakebed::{
    Entries, Entry, Kind, LogId, LogIndex, Marks, StateMachine, session::Limits, tape::Digest,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Record {
    id: LogId,
    content: u64,
    answers: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Machines<M> {
    /// What was applied at each index, from one on.
    records: Vec<Record>,
    reference: Witness<M>,
    /// The last index that each node's machine holds; `None` while a snapshot is being taken in.
    positions: Vec<Option<LogIndex>>,
    /// The commands applied and the queries asked, while somebody wants them.
    kept: Option<Inputs>,
    /// The times of those that the reference was given.
    times: Times,
    sessions: Sessions,
}

impl<M: StateMachine> Machines<M> {
    pub(super) fn new(nodes: usize, machine: Seat<M>) -> Self {
        let positions = vec![Some(LogIndex(0)); nodes];
        Self {
            records: Vec::new(),
            reference: Witness::new(machine),
            positions,
            kept: None,
            times: Times::new(),
            sessions: Sessions::default(),
        }
    }

    /// All up to here was applied in another cluster, to the machine that is the reference now.
    pub(super) fn begin_behind(&mut self, at: LogId) {
        let elsewhere = Record { id: LogId::ZERO, content: 0, answers: 0 };
        self.records = vec![elsewhere; at.index.0 as usize];
    }

    /// What the reference has met: every command, once.
    pub(super) fn marks(&self) -> Marks {
        self.reference.machine.marks()
    }

    pub(super) fn keep_inputs(&mut self) {
        self.kept = Some(Inputs::default());
    }

    pub(super) const fn inputs(&self) -> Option<&Inputs> {
        self.kept.as_ref()
    }

    /// What lies behind this was lost by a recovery by force: the reference, which begins anew in
    /// this machine, is what it was there.
    pub(super) fn forget_behind(&mut self, last: LogIndex, machine: Seat<M>) {
        if self.reference_position() <= last {
            return;
        }
        self.records.truncate(last.0 as usize);
        self.times.forget();
        self.sessions.forget();
        let kept = self.kept.as_mut().expect("whoever tells a story keeps the commands");
        kept.commands.retain(|given| given.at.index <= last);
        kept.queries.retain(|asked| asked.at <= last);
        self.reference = Witness::new(machine);
        for Given { at, time, command } in &kept.commands {
            let mut answer = Vec::new();
            self.reference.machine.apply(*at, *time, command, &mut answer);
            // What was right before is now.
            drop(self.sessions.on_answer(0, *time, command, &answer));
        }
    }

    pub(super) fn on_death(&mut self, node: usize) {
        self.positions[node] = Some(LogIndex(0));
    }

    pub(super) fn hold_sessions_to(&mut self, limits: Option<Limits>) {
        self.sessions = Sessions::new(limits);
    }

    pub(super) fn on_restore(&mut self, node: usize, at: LogId, whole: bool) {
        // At zero it forgets everything, and that is all.
        self.positions[node] = (whole || at == LogId::ZERO).then_some(at.index);
    }

    pub(super) fn position(&self, node: usize) -> LogIndex {
        self.positions[node].unwrap_or_default()
    }

    const fn reference_position(&self) -> LogIndex {
        LogIndex(self.records.len() as u64)
    }

    pub(super) fn on_apply(
        &mut self,
        node: usize,
        entries: &Entries,
        applied: &[Applied],
        history: &mut History,
    ) -> Checked {
        let mut applied = applied;
        for entry in entries.entries() {
            let of_entry = applied.partition_point(|command| command.at.index <= entry.id.index);
            let (commands, rest) = applied.split_at(of_entry);
            applied = rest;
            self.on_entry(node, &entry, commands, history)?;
        }
        Ok(())
    }

    fn on_entry(
        &mut self,
        node: usize,
        entry: &Entry<'_>,
        commands: &[Applied],
        history: &mut History,
    ) -> Checked {
        let index = entry.id.index;
        if self.positions[node] != Some(index.previous()) {
            let position = self.positions[node];
            let what = format!("applies {} when its machine is at {position:?}", entry.id);
            return Err(Violation::new("state machine safety", node, what));
        }
        self.positions[node] = Some(index);
        if index == self.reference_position().next() {
            self.times.on_entry(node, entry)?;
            self.advance_reference(node, entry)?;
            history.on_first_apply(node, commands)?;
        }
        let found = record(entry, commands);
        let known = self.records.get(index.0 as usize - 1).copied();
        if known == Some(found) {
            return Ok(());
        }
        let what = match known {
            None => format!("applies {} before anybody applied {}", entry.id, index.previous()),
            Some(known) if (known.id, known.content) == (found.id, found.content) => {
                format!("its machine answers {} otherwise than the reference does", entry.id)
            }
            Some(known) => format!("applies {} where {} was applied before", entry.id, known.id),
        };
        Err(Violation::new("state machine safety", node, what))
    }

    fn advance_reference(&mut self, node: usize, entry: &Entry<'_>) -> Checked {
        self.reference.applied.clear();
        let mut answer = Vec::new();
        for command in commands_of(entry) {
            answer.clear();
            if let Some(kept) = &mut self.kept {
                let command = command[PREFIX_BYTES..].to_vec();
                kept.commands.push(Given { at: entry.id, time: entry.time, command });
            }
            self.reference.apply(entry.id, entry.time, command, &mut answer);
            self.sessions.on_answer(node, entry.time, &command[PREFIX_BYTES..], &answer)?;
        }
        self.records.push(record(entry, &self.reference.applied));
        Ok(())
    }

    pub(super) fn on_ask(&mut self, node: usize, query: &Bytes) {
        if let (Some(kept), Some(at)) = (&mut self.kept, self.positions[node]) {
            kept.queries.push(Asked { at, query: query.clone() });
        }
    }

    pub(super) fn on_query(&self, node: usize, query: &[u8], answer: &[u8]) -> Checked {
        let Some(position) = self.positions[node] else {
            let what = "answers a query, and its machine is nowhere yet".into();
            return Err(Violation::new("state machine safety", node, what));
        };
        if position != self.reference_position() {
            return Ok(());
        }
        let mut expected = Vec::new();
        self.reference.query(query, &mut expected);
        if expected == answer {
            return Ok(());
        }
        let at = self.reference_position();
        let what = format!("answers a query at {at} otherwise than the reference does");
        Err(Violation::new("state machine safety", node, what))
    }

    /// Whether a node's machine stands where the reference does.
    pub(super) fn is_there(&self, node: usize) -> bool {
        self.positions[node] == Some(self.reference_position())
    }

    pub(super) fn on_state(&self, node: usize, machine: &Seat<M>) -> Checked {
        let (position, reference) = (self.positions[node], self.reference_position());
        if position != Some(reference) {
            let what = format!("its machine is at {position:?}, the reference at {reference}");
            return Err(Violation::new("convergence", node, what));
        }
        if state_digest(machine) == state_digest(&self.reference.machine) {
            return Ok(());
        }
        let what = format!("its machine at {reference} is not what the reference is");
        Err(Violation::new("state machine safety", node, what))
    }
}

/// The commands of an entry, each behind its length.
fn commands_of<'a>(entry: &Entry<'a>) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = if entry.kind == Kind::Commands { entry.body } else { &[] };
    std::iter::from_fn(move || {
        let (len, behind) = rest.split_first_chunk::<4>()?;
        let (command, behind) = behind.split_at(u32::from_le_bytes(*len) as usize);
        rest = behind;
        Some(command)
    })
}

fn record(entry: &Entry<'_>, commands: &[Applied]) -> Record {
    let mut answers = Digest::default();
    commands.iter().for_each(|command| answers.number(command.answer));
    let mut content = Digest::default();
    content.number(entry.kind as u64);
    content.number(entry.time.0);
    content.number(digest(entry.body));
    Record { id: entry.id, content: content.value(), answers: answers.value() }
}

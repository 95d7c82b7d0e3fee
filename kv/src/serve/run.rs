//! Which commands of a pipeline go together: of each group writes into one batch, or reads into one
//! query; and how they are performed.
//!
//! Knows no connection. Invariant: of each group commands are taken in order, and what is taken can
//! be answered in order and in bounded room.

use super::store::{Asked, Failure, Store};
use crate::{Answered, Command, Queries, Stopped, answer};
use lakebed::{Batch, Timestamp};
use std::{collections::VecDeque, mem};

/// The most values that a batch may answer with. Reads among writes ride along in the log, so
/// that a read sees the write before it without waiting for it.
const RIDING_VALUES_MAX: usize = 16;

/// Commands that are performed together: by each group its own, beside each other.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    /// One for each group that has a part in it.
    pub(crate) parts: Vec<Part>,
    /// Which part each command went to, if there are several.
    order: VecDeque<u16>,
}

impl Runs {
    /// Takes a command, of at most `bytes`, unless it has to wait for those before it.
    pub(crate) fn take(
        &mut self,
        (group, command): (usize, &Command<'_>),
        bytes: usize,
        bytes_max: usize,
        room: usize,
    ) -> bool {
        let at = self.parts.iter().position(|part| part.group == group);
        if let Some(at) = at {
            let taken = self.parts[at].run.take(command, bytes, bytes_max);
            if taken && self.parts.len() > 1 {
                self.order.push_back(at as u16);
            }
            return taken;
        }
        if self.parts.len() == 1 {
            // Until now there was no order to keep.
            self.order.extend((0..self.parts[0].run.count()).map(|_| 0));
        }
        if !self.parts.is_empty() {
            self.order.push_back(self.parts.len() as u16);
        }
        self.parts.push(Part { group, run: Run::of(command, room), out: Vec::new(), at: 0 });
        true
    }

    /// By whose clock it is decided whether to ask for the time.
    pub(crate) fn clock(&mut self, clock: Timestamp) {
        for part in &mut self.parts {
            if let Run::Reads(queries) = &mut part.run {
                queries.clock(clock);
            }
        }
    }

    /// Whether answers are still to come.
    pub(crate) fn is_open(&self) -> bool {
        !self.order.is_empty()
    }

    /// The parts that have no answer left to give, and commands that have none yet.
    pub(crate) fn waiting(&mut self) -> impl Iterator<Item = &mut Part> {
        self.parts.iter_mut().filter(|part| part.at == part.out.len() && part.is_open())
    }

    /// Moves answers to `out` in the order of their commands: as far as there are any, and as
    /// `out` has room.
    pub(crate) fn collect(&mut self, out: &mut Vec<u8>, bytes_max: usize) {
        while let Some(&at) = self.order.front()
            && out.len() <= bytes_max
        {
            let part = &mut self.parts[usize::from(at)];
            match answer::first(&part.out[part.at..]) {
                Some(value) => {
                    out.extend_from_slice(value);
                    part.at += value.len();
                }
                None if part.is_open() => return,
                // Its machine has answered less than it was asked.
                None => answer::error(out, &Failure::Unknown.reply(part.run.asked())),
            }
            self.order.pop_front();
        }
    }
}

/// What one group performs of them.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) group: usize,
    run: Run,
    /// Answers, of which those before `at` were given.
    out: Vec<u8>,
    at: usize,
}

impl Part {
    /// Whether it has commands without an answer.
    pub(crate) fn is_open(&self) -> bool {
        self.run.count() > 0
    }

    /// As [`step`](Self::step), its answers kept here.
    pub(crate) async fn step_aside<T: Store>(&mut self, store: &T) {
        let mut out = mem::take(&mut self.out);
        out.clear();
        self.at = 0;
        self.step(store, &mut out).await;
        self.out = out;
    }

    /// Performs its writes, or so many of its reads as one answer holds.
    pub(crate) async fn step<T: Store>(&mut self, store: &T, out: &mut Vec<u8>) {
        let (asked, count) = (self.run.asked(), self.run.count());
        let result = match &mut self.run {
            Run::Writes { batch, .. } => store.propose(mem::take(batch), out).await,
            Run::Reads(queries) => ask(store, queries, out).await,
        };
        if let Err(failure) = result {
            // The same for each command that is left.
            let reply = failure.reply(asked);
            let left = if asked == Asked::Read { self.run.count() } else { count };
            (0..left).for_each(|_| answer::error(out, &reply));
            self.run.give_up();
        }
    }
}

async fn ask<T: Store>(store: &T, queries: &mut Queries, out: &mut Vec<u8>) -> Result<(), Failure> {
    let answer = store.read(queries.bytes()).await?;
    let answered = Answered::parse(answer).ok_or(Failure::Unknown)?;
    if answered.count == 0 && answered.stopped != Stopped::Stale {
        return Err(Failure::Unknown);
    }
    out.extend_from_slice(&answered.values);
    queries.advance(answered.count);
    if answered.stopped == Stopped::Stale {
        let mut tick = Batch::default();
        tick.push_with(|out| Command::Tick.encode(out));
        store.propose(tick, &mut Vec::new()).await?;
        // Once is enough: the machine's time is now as late as the leader's.
        queries.clock(Timestamp::default());
    }
    Ok(())
}

/// Commands of one group.
#[derive(Debug)]
pub(crate) enum Run {
    /// Through the log.
    Writes {
        batch: Batch,
        /// How many values they may answer with.
        values: usize,
    },
    /// Beside the log.
    Reads(Queries),
}

impl Run {
    const fn asked(&self) -> Asked {
        match self {
            Self::Writes { .. } => Asked::Write,
            Self::Reads(_) => Asked::Read,
        }
    }

    /// How many commands have no answer yet.
    fn count(&self) -> usize {
        match self {
            Self::Writes { batch, .. } => batch.count() as usize,
            Self::Reads(queries) => queries.count(),
        }
    }

    fn give_up(&mut self) {
        match self {
            Self::Writes { batch, .. } => *batch = Batch::default(),
            Self::Reads(queries) => *queries = Queries::default(),
        }
    }

    /// A run that begins with this command, with `room` for it and what may follow.
    pub(crate) fn of(command: &Command<'_>, room: usize) -> Self {
        if command.is_read() {
            let mut queries = Queries::default();
            queries.push(command);
            return Self::Reads(queries);
        }
        let mut batch = Batch::with_capacity(room);
        batch.push_with(|out| command.encode(out));
        Self::Writes { batch, values: 0 }
    }

    /// Takes one command more, of at most `bytes`, unless it has to wait for those before it.
    pub(crate) fn take(&mut self, command: &Command<'_>, bytes: usize, bytes_max: usize) -> bool {
        match self {
            Self::Reads(queries) => {
                let takes = command.is_read() && queries.bytes().len() + bytes <= bytes_max;
                if takes {
                    queries.push(command);
                }
                takes
            }
            Self::Writes { batch, values } => {
                let Some(more) = command.values() else { return false };
                let takes =
                    *values + more <= RIDING_VALUES_MAX && batch.bytes() + bytes <= bytes_max;
                if takes {
                    batch.push_with(|out| command.encode(out));
                    *values += more;
                }
                takes
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{List, When};

    const SET: Command<'_> = Command::Set { key: b"a", value: b"1", when: When::Always, millis: 0 };
    const GET: Command<'_> = Command::Get(b"a");

    /// How many commands each run takes: those of the log as positive numbers.
    fn runs(commands: &[Command<'_>], bytes_max: usize) -> Vec<i32> {
        let (mut runs, mut current) = (Vec::new(), None::<Run>);
        for command in commands {
            let taken = current.as_mut().is_some_and(|run| run.take(command, 30, bytes_max));
            if !taken {
                runs.extend(current.replace(Run::of(command, 0)));
            }
        }
        runs.extend(current);
        let count = |run: &Run| match run {
            Run::Writes { batch, .. } => batch.count() as i32,
            Run::Reads(queries) => -(queries.count() as i32),
        };
        runs.iter().map(count).collect()
    }

    #[test]
    fn writes_share_a_batch_and_reads_a_query() {
        assert_eq!(runs(&[SET; 64], 10_000), [64]);
        assert_eq!(runs(&[GET; 64], 10_000), [-64]);
        assert_eq!(runs(&[GET, GET, SET, GET, SET], 10_000), [-2, 3]);
    }

    #[test]
    fn reads_ride_along_as_far_as_their_answers_are_bounded() {
        let mut commands = vec![SET];
        commands.extend([GET; 20]);
        assert_eq!(runs(&commands, 10_000), [17, -4]);
        let mut keys = Vec::new();
        let many = Command::MGet(List::of([&b"a"[..]; 17], &mut keys));
        assert_eq!(runs(&[SET, many, SET], 10_000), [1, -1, 1]);
        assert_eq!(runs(&[SET, Command::Digest, SET], 10_000), [1, -1, 1]);
    }

    #[test]
    fn runs_are_bounded_in_bytes() {
        assert!(runs(&[SET; 100], 200).iter().all(|&count| count > 0 && count < 15));
        assert!(runs(&[GET; 100], 200).iter().all(|&count| count < 0 && count > -35));
    }
}

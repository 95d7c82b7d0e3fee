//! Which commands of a pipeline go together: of each group writes into one batch, or reads into one
//! query; and how they are performed.
//!
//! Knows no connection. Invariant: of each group commands are taken in order, and what is taken can
//! be answered in order and in bounded room.

use super::{
    stale::Stale,
    store::{Asked, Failure, Store},
    stores::{Group, Stores},
};
use crate::{Answered, Command, Queries, Stopped, answer};
use futures::future::join_all;
use lakebed::{Batch, Refusal, Timestamp};
use std::{collections::VecDeque, mem};

/// The most values that a batch may answer with. Reads among writes ride along in the log, so
/// that a read sees the write before it without waiting for it. Of all groups together: their
/// batches are answered at once.
const RIDING_VALUES_MAX: usize = 16;
/// How long the answers may be together that wait for those of other groups, apart from the batches'.
/// What is longer is asked for when it is its turn.
const ASIDE_BYTES_MAX: usize = 1 << 20;

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
        let values: usize = self.parts.iter().map(|part| part.run.values()).sum();
        if let Some(at) = at {
            let taken = self.parts[at].run.take(command, bytes, bytes_max, values);
            if taken && self.parts.len() > 1 {
                self.order.push_back(at as u16);
            }
            return taken;
        }
        let run = Run::of(command, room);
        if !self.parts.is_empty() && values + run.values() > RIDING_VALUES_MAX {
            return false;
        }
        if self.parts.len() == 1 {
            // Until now there was no order to keep.
            self.order.extend((0..self.parts[0].run.count()).map(|_| 0));
        }
        if !self.parts.is_empty() {
            self.order.push_back(self.parts.len() as u16);
        }
        self.parts.push(Part {
            group,
            run,
            stale: Stale::default(),
            out: Vec::new(),
            at: 0,
            is_large: false,
        });
        true
    }

    /// How old what is read may be, and by which clock it is decided whether to ask for the time.
    pub(crate) fn allow<T: Store>(&mut self, stale: Stale, stores: &Stores<T>) {
        for part in &mut self.parts {
            part.stale = stale;
            if let Run::Reads(queries) = &mut part.run {
                queries.clock(stale.clock(stores.group(part.group).clock.now()));
            }
        }
    }

    /// Whether answers are still to come.
    pub(crate) fn is_open(&self) -> bool {
        !self.order.is_empty()
    }

    /// Goes on with all groups beside each other, and answers as far as `out` has room.
    pub(crate) async fn step<T: Store>(
        &mut self,
        stores: &Stores<T>,
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) {
        join_all(self.waiting().map(|part| part.step_aside(stores.group(part.group)))).await;
        self.collect(out, bytes_max);
    }

    /// The parts to go on with, once the answer that is due is not there: that one's, and of the
    /// others those that have room for answers that wait. However long an answer is that is not
    /// due, it takes no more than that room.
    fn waiting(&mut self) -> impl Iterator<Item = &mut Part> {
        let due = self.order.front().map(|at| usize::from(*at));
        let is_missing = due.is_some_and(|due| self.parts[due].waiting_bytes() == 0);
        let share = ASIDE_BYTES_MAX / self.parts.len().max(1);
        let waiting = self.parts.iter_mut().enumerate().filter(move |(at, part)| {
            is_missing && part.is_open() && (due == Some(*at) || part.has_room(share))
        });
        waiting.map(move |(at, part)| {
            if let Run::Reads(queries) = &mut part.run {
                let room = share.saturating_sub(part.out.len() - part.at);
                queries.room(room, due == Some(at));
            }
            part
        })
    }

    /// Moves answers to `out` in the order of their commands: as far as there are any, and as
    /// `out` has room.
    fn collect(&mut self, out: &mut Vec<u8>, bytes_max: usize) {
        while let Some(&at) = self.order.front()
            && out.len() <= bytes_max
        {
            let part = &mut self.parts[usize::from(at)];
            match answer::first(&part.out[part.at..]) {
                Some(value) => {
                    out.extend_from_slice(value);
                    part.at += value.len();
                    if part.waiting_bytes() == 0 {
                        // The room of a large answer is not kept while others have their turn.
                        (part.out, part.at) = (Vec::new(), 0);
                    }
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
    /// How old what it reads may be.
    stale: Stale,
    /// Answers, of which those before `at` were given.
    out: Vec<u8>,
    at: usize,
    /// Whether its next answer is too long to wait.
    is_large: bool,
}

impl Part {
    /// Whether it has commands without an answer.
    pub(crate) fn is_open(&self) -> bool {
        self.run.count() > 0
    }

    /// How long the answers are that were not given.
    const fn waiting_bytes(&self) -> usize {
        self.out.len() - self.at
    }

    /// Whether it is worth while to ask for answers that are not due. Half of the room, or groups
    /// that are asked one by one would wait for each other.
    const fn has_room(&self, share: usize) -> bool {
        let has_room = !self.is_large && self.waiting_bytes() <= share / 2;
        has_room || matches!(self.run, Run::Writes { .. })
    }

    /// As [`step`](Self::step), its answers kept here.
    async fn step_aside<T: Store>(&mut self, by: &Group<T>) {
        let mut out = mem::take(&mut self.out);
        out.drain(..mem::take(&mut self.at));
        let before = self.run.count();
        let stopped = self.step(by, &mut out).await;
        self.is_large = stopped == Stopped::Budget && self.run.count() == before;
        self.out = out;
    }

    /// Performs its writes, or so many of its reads as one answer holds; why not more.
    pub(crate) async fn step<T: Store>(&mut self, by: &Group<T>, out: &mut Vec<u8>) -> Stopped {
        let (asked, count) = (self.run.asked(), self.run.count());
        let result = match &mut self.run {
            Run::Writes { batch, .. } => {
                by.store.propose(mem::take(batch), out).await.map(|()| Stopped::Done)
            }
            Run::Reads(queries) => ask(by, self.stale, queries, out).await,
        };
        result.unwrap_or_else(|failure| {
            // The same for each command that is left.
            let reply = failure.reply(asked);
            let left = if asked == Asked::Read { self.run.count() } else { count };
            (0..left).for_each(|_| answer::error(out, &reply));
            self.run.give_up();
            Stopped::Done
        })
    }
}

/// Adds so many answers to `out` as one answer of the machine holds; why not more.
pub(crate) async fn ask<T: Store>(
    Group { store, clock }: &Group<T>,
    stale: Stale,
    queries: &mut Queries,
    out: &mut Vec<u8>,
) -> Result<Stopped, Failure> {
    let answer = match store.read(queries.bytes(), stale.mode()).await {
        // The node has heard of no leader for longer than that: then it is asked for anew, and what is read
        // is as fresh as any.
        Err(Failure::Refused(Refusal::NotReady)) if stale.is_allowed() => {
            store.read(queries.bytes(), Stale::NEVER.mode()).await?
        }
        answer => answer?,
    };
    let answered = Answered::parse(answer).ok_or(Failure::Unknown)?;
    let may_be_none = match answered.stopped {
        Stopped::Done => false,
        Stopped::Budget => !queries.must_answer(),
        Stopped::Stale => true,
    };
    if answered.count == 0 && !may_be_none {
        return Err(Failure::Unknown);
    }
    clock.saw(answered.time);
    out.extend_from_slice(&answered.values);
    queries.advance(answered.count);
    if answered.stopped == Stopped::Stale {
        let mut tick = Batch::default();
        tick.push_with(|out| Command::Tick.encode(out));
        match store.propose(tick, &mut Vec::new()).await {
            // That no write is taken is no reason not to read: the machine's time will do, which
            // stands still only until one is.
            Ok(()) => clock.forget(),
            Err(Failure::Refused(Refusal::DiskFull | Refusal::Busy | Refusal::Transferring)) => {}
            Err(failure) => return Err(failure),
        }
        // Once is enough: the machine's time is now as late as the leader's, or cannot be.
        queries.clock(Timestamp::default());
    }
    Ok(answered.stopped)
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

    /// How many values it may answer with, its reads apart, which are asked for in portions.
    const fn values(&self) -> usize {
        match self {
            Self::Writes { values, .. } => *values,
            Self::Reads(_) => 0,
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
        Self::Writes { batch, values: command.values().unwrap_or_default() }
    }

    /// Takes one command more, of at most `bytes`, unless it has to wait for those before it.
    /// `riding`: how many values all batches may answer with up to now.
    fn take(
        &mut self,
        command: &Command<'_>,
        bytes: usize,
        bytes_max: usize,
        riding: usize,
    ) -> bool {
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
                    riding + more <= RIDING_VALUES_MAX && batch.bytes() + bytes <= bytes_max;
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
pub(crate) mod tests {
    use super::*;
    use crate::{Kv, List, When};
    use bytes::{Buf, Bytes};
    use lakebed::{LogId, ReadMode, StateMachine, Status};
    use std::sync::{Arc, Mutex};

    const SET: Command<'_> = Command::Set { key: b"a", value: b"1", when: When::Always, millis: 0 };
    const GET: Command<'_> = Command::Get(b"a");

    /// How many commands each run takes: those of the log as positive numbers.
    fn runs(commands: &[Command<'_>], bytes_max: usize) -> Vec<i32> {
        let (mut runs, mut current) = (Vec::new(), None::<Run>);
        for command in commands {
            let taken =
                current.as_mut().is_some_and(|run| run.take(command, 30, bytes_max, run.values()));
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

    /// Of all batches together: sixteen values for each group were a gigabyte for one client.
    #[test]
    fn reads_that_ride_along_are_bounded_over_all_groups() {
        let mut runs = Runs::default();
        assert!((0..64).all(|group| runs.take((group, &SET), 30, 10_000, 0)));
        assert!((0..16).all(|group| runs.take((group, &GET), 30, 10_000, 0)));
        assert!(!runs.take((16, &GET), 30, 10_000, 0));
        assert!(runs.take((16, &SET), 30, 10_000, 0));
    }

    /// Of writes that answer with a value each, a batch may have as many, the first one included.
    #[test]
    fn values_that_writes_answer_with_are_bounded() {
        const TAKE: Command<'_> = Command::GetDel(b"a");
        assert_eq!(runs(&[TAKE; 40], 10_000), [16, 16, 8]);
        let mut all = Runs::default();
        assert!((0..16).all(|group| all.take((group, &TAKE), 30, 10_000, 0)));
        assert!(!all.take((16, &TAKE), 30, 10_000, 0));
        assert!(all.take((16, &SET), 30, 10_000, 0));
    }

    /// A machine that all groups have, and how often it was asked.
    #[derive(Clone, Default)]
    pub(crate) struct Shared(Arc<Mutex<(Kv, usize)>>);

    impl Store for Shared {
        async fn propose(&self, batch: Batch, out: &mut Vec<u8>) -> Result<(), Failure> {
            let (mut body, mut machine) = (batch.body(), self.0.lock().unwrap());
            while !body.is_empty() {
                let len = body.get_u32_le() as usize;
                machine.0.apply(LogId::default(), Timestamp(1), &body[..len], out);
                body.advance(len);
            }
            Ok(())
        }

        async fn read(&self, query: &[u8], _: ReadMode) -> Result<Bytes, Failure> {
            let mut machine = self.0.lock().unwrap();
            machine.1 += 1;
            let mut answer = Vec::new();
            machine.0.query(query, &mut answer);
            Ok(answer.into())
        }

        async fn status(&self) -> Result<Status, Failure> {
            Err(Failure::Unknown)
        }
    }

    const GROUPS: usize = 64;
    const OUT_BYTES: usize = 256 << 10;

    /// Asks all groups, the first command of each, then the second; how often they were asked
    /// together, and in what room.
    async fn asked_of_all(store: &Shared, commands: &[Command<'_>]) -> (usize, usize) {
        let (mut runs, mut expected) = (Runs::default(), Vec::new());
        let turns = commands.iter().flat_map(|command| (0..GROUPS).map(move |at| (at, command)));
        for turn in turns {
            assert!(runs.take(turn, 30, 1 << 20, 0));
        }
        for command in commands {
            let mut queries = Queries::default();
            queries.push(command);
            let answered =
                Answered::parse(store.read(queries.bytes(), ReadMode::Lease).await.unwrap())
                    .unwrap();
            (0..GROUPS).for_each(|_| expected.push(answered.values.clone()));
        }
        let stores = Stores::from(vec![store.clone(); GROUPS]);
        let (mut steps, mut room, mut expected) = (0, 0, expected.into_iter());
        while runs.is_open() {
            let mut out = Vec::new();
            runs.step(&stores, &mut out, OUT_BYTES).await;
            steps += 1;
            room = room.max(runs.parts.iter().map(|part| part.out.capacity()).sum());
            let mut rest = &out[..];
            while let Some(value) = answer::first(rest) {
                assert!(expected.next().unwrap() == value);
                rest = &rest[value.len()..];
            }
            assert_eq!(rest, b"");
        }
        assert!(expected.next().is_none());
        (steps, room)
    }

    /// Every group's part was answered in full before the first of it was sent: 20 MiB for each of
    /// 64 groups, for a client that only had to stop reading.
    #[tokio::test]
    async fn answers_that_wait_for_others_are_bounded() {
        let (store, value) = (Shared::default(), vec![b'v'; 1 << 20]);
        let mut batch = Batch::default();
        let set = Command::Set { key: b"large", value: &value, when: When::Always, millis: 0 };
        batch.push_with(|out| set.encode(out));
        batch.push_with(|out| SET.encode(out));
        store.propose(batch, &mut Vec::new()).await.unwrap();
        let (large, mut keys) = (Command::Get(b"large"), Vec::new());
        let many = Command::MGet(List::of([&b"large"[..]; 4], &mut keys));
        let commands = [GET, large, large, GET, many, large, GET, large];
        let (_, room) = asked_of_all(&store, &commands).await;
        // One that is due and found no room to be sent, and twice what may wait.
        assert!(room <= (10 << 20), "{room} bytes");
    }

    #[tokio::test]
    async fn small_answers_are_asked_of_all_groups_at_once() {
        let store = Shared::default();
        let (steps, room) = asked_of_all(&store, &[GET; 100]).await;
        assert_eq!((steps, store.0.lock().unwrap().1), (1, GROUPS + 100));
        assert!(room <= 2 * ASIDE_BYTES_MAX);
        let (steps, room) = asked_of_all(&store, &[GET; 10_000]).await;
        // 3.2 MB of them.
        assert!(steps < 30 && room <= 4 * ASIDE_BYTES_MAX, "{steps} steps in {room} bytes");
    }

    #[test]
    fn runs_are_bounded_in_bytes() {
        assert!(runs(&[SET; 100], 200).iter().all(|&count| count > 0 && count < 15));
        assert!(runs(&[GET; 100], 200).iter().all(|&count| count < 0 && count > -35));
    }
}

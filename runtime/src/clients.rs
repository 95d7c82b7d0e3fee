//! Those who wait for an answer, by request id.
//!
//! Knows neither engine nor sockets. Invariant: each request that was given an id ends once, and
//! a batch is resolved when the last of its requests has ended.
//!
//! A request id is the number of its batch and its ordinal in it, so that finding who waits costs
//! the same however many do. Numbers are given in turn, and nearly all batches end nearly in turn: they
//! lie in a row, by number. One that waits while those behind it end, as an order may for minutes, is
//! moved out of it, so that the row is never much longer than there are batches in it that wait.

use crate::{
    handle::{Answers, Carried, Failure},
    inbox::{BATCH_BYTES, Sender, Waiter},
};
use lakebed::{Batch, Clients, Outcome, Refusal, RequestId, Requests};
use std::{
    collections::{BTreeMap, VecDeque},
    mem,
};

/// The bits of a request id that hold its ordinal.
const ORDINAL_BITS: u32 = 24;
/// The most requests of one batch.
pub(crate) const BATCH_COUNT_MAX: u32 = 1 << ORDINAL_BITS;

/// Numbers of batches begin anew behind the last that fits beside an ordinal. At a million a second that
/// is twelve days; nobody waits for so many at one time.
const NUMBER_MASK: u64 = u64::MAX >> ORDINAL_BITS;

/// A batch whose end is awaited.
struct Pending {
    waiter: Waiting,
    /// Requests that have not ended.
    open: u32,
}

enum Waiting {
    Commands { waiter: Waiter, answers: Answers, ends: Ends },
    Queries { waiter: Waiter, answers: Answers, ends: Ends, queries: Cursor },
    Order(Sender<Carried>),
}

/// How the requests of a batch ended that have no answer.
#[derive(Default)]
struct Ends {
    refused: Option<Refusal>,
    unknown: bool,
}

impl Ends {
    /// Partly refused is unknown: who asked must not take a part for the whole.
    fn failure(self, answered: usize) -> Option<Failure> {
        match self.refused {
            _ if self.unknown => Some(Failure::Unknown),
            Some(_) if answered > 0 => Some(Failure::Unknown),
            refused => refused.map(Failure::Refused),
        }
    }
}

/// Finds the queries of a batch, which are asked for in ascending order.
struct Cursor {
    queries: Batch,
    ordinal: u32,
    offset: usize,
}

impl Cursor {
    /// The query of this ordinal, which is not below the one asked for before.
    fn query(&mut self, ordinal: u32) -> &[u8] {
        let body = self.queries.body();
        let len_at = |offset: usize| {
            let len = body[offset..].first_chunk().expect("a batch is whole commands");
            u32::from_le_bytes(*len) as usize
        };
        assert!(ordinal >= self.ordinal, "query {ordinal} asked for behind {}", self.ordinal);
        while self.ordinal < ordinal {
            self.offset += 4 + len_at(self.offset);
            self.ordinal += 1;
        }
        let start = self.offset + 4;
        &body[start..start + len_at(self.offset)]
    }
}

/// The most bytes of queries that wait for the machine, [`BATCH_BYTES`] added for each batch; one batch
/// always may.
const QUERY_BYTES_MAX: usize = 64 << 20;

/// The row is not tidied for less: what waits for a sync, and is passed by reads meanwhile, stays in it.
const ROW_MIN: usize = 1024;

/// The table of those who wait.
#[derive(Default)]
pub(crate) struct Table {
    /// Bytes of queries that have not ended, and what their batches take beside them.
    query_bytes: usize,
    /// The number of the batch at the front.
    first: u64,
    /// The row; `None`: it has ended, or waits elsewhere.
    batches: VecDeque<Option<Pending>>,
    /// How many in the row have not ended.
    waiting: usize,
    /// By number, those that waited for so long that they were moved out of the row.
    late: BTreeMap<u64, Pending>,
}

impl Table {
    /// Gives ids to the commands of a batch.
    pub(crate) fn commands(&mut self, count: u32, waiter: Waiter) -> Requests {
        let waiter =
            Waiting::Commands { waiter, answers: Answers::default(), ends: Ends::default() };
        self.insert(count, waiter)
    }

    /// Gives ids to a batch of queries, and keeps them until they are asked for. `None`: there is no room
    /// until others have ended, and that was said.
    pub(crate) fn queries(&mut self, queries: Batch, waiter: Waiter) -> Option<Requests> {
        let bytes = queries.bytes() + BATCH_BYTES;
        if self.query_bytes > 0 && self.query_bytes + bytes > QUERY_BYTES_MAX {
            waiter.resolve(Err(Failure::Refused(Refusal::Busy)));
            return None;
        }
        self.query_bytes += bytes;
        let (answers, ends) = (Answers::default(), Ends::default());
        let count = queries.count();
        let queries = Cursor { queries, ordinal: 0, offset: 0 };
        Some(self.insert(count, Waiting::Queries { waiter, answers, ends, queries }))
    }

    /// Gives an id to an order.
    pub(crate) fn order(&mut self, reply: Sender<Carried>) -> RequestId {
        self.insert(1, Waiting::Order(reply)).first
    }

    /// Ends all of these alike.
    pub(crate) fn end(&mut self, requests: Requests, outcome: &Outcome) {
        requests.ids().for_each(|id| self.answer(id, Err(outcome)));
    }

    /// Ends whatever is still open: the engine is gone.
    pub(crate) fn end_all(&mut self) {
        self.query_bytes = 0;
        self.waiting = 0;
        let late = mem::take(&mut self.late).into_values();
        for pending in late.chain(self.batches.drain(..).flatten()) {
            match pending.waiter {
                Waiting::Commands { waiter, .. } | Waiting::Queries { waiter, .. } => {
                    waiter.resolve(Err(Failure::Unknown));
                }
                Waiting::Order(reply) => drop(reply.send(Err(Failure::Unknown))),
            }
        }
    }

    fn insert(&mut self, count: u32, waiter: Waiting) -> Requests {
        assert!((1..=BATCH_COUNT_MAX).contains(&count), "{count} requests in one batch");
        // Numbers begin anew, and whoever is late may have waited for as long as that takes.
        while !self.late.is_empty() && self.late.contains_key(&self.next()) {
            self.batches.push_back(None);
        }
        let number = self.next();
        self.batches.push_back(Some(Pending { waiter, open: count }));
        self.waiting += 1;
        Requests { first: RequestId(number << ORDINAL_BITS), count }
    }

    /// The number behind the row.
    fn next(&self) -> u64 {
        (self.first + self.batches.len() as u64) & NUMBER_MASK
    }

    /// Where a batch waits in the row, if it does.
    fn place(&self, number: u64) -> Option<usize> {
        let at = usize::try_from(number.wrapping_sub(self.first) & NUMBER_MASK).ok()?;
        self.batches.get(at)?.is_some().then_some(at)
    }

    fn pending(&mut self, id: RequestId) -> &mut Pending {
        let number = number(id);
        let pending = match self.place(number) {
            Some(at) => self.batches[at].as_mut(),
            None => self.late.get_mut(&number),
        };
        pending.unwrap_or_else(|| panic!("request {id} ended twice, or was never made"))
    }

    fn take(&mut self, id: RequestId) -> Waiting {
        let number = number(id);
        let Some(at) = self.place(number) else { return self.take_late(number) };
        let pending = self.batches[at].take().expect("it waits there");
        self.waiting -= 1;
        self.let_go();
        if self.batches.len() > ROW_MIN && self.batches.len() > 2 * self.waiting {
            self.move_late();
        }
        if self.batches.capacity() > 4 * ROW_MIN {
            self.give_back();
        }
        self.count_out(&pending.waiter);
        pending.waiter
    }

    #[cold]
    fn take_late(&mut self, number: u64) -> Waiting {
        let pending = self.late.remove(&number).expect("its last request has just ended");
        self.count_out(&pending.waiter);
        pending.waiter
    }

    fn count_out(&mut self, waiter: &Waiting) {
        if let Waiting::Queries { queries, .. } = waiter {
            self.query_bytes -= queries.queries.bytes() + BATCH_BYTES;
        }
    }

    #[cold]
    fn give_back(&mut self) {
        let room = ROW_MIN.max(2 * self.batches.len());
        if self.batches.capacity() > 4 * room {
            self.batches.shrink_to(room);
        }
    }

    /// What has ended at the front of the row.
    fn let_go(&mut self) {
        while let Some(None) = self.batches.front() {
            self.batches.pop_front();
            self.first = (self.first + 1) & NUMBER_MASK;
        }
    }

    /// Whoever is at the front of the row while most of it has ended. Each batch is moved once at most, so
    /// that this costs little for each.
    #[cold]
    fn move_late(&mut self) {
        while self.batches.len() > ROW_MIN.max(2 * self.waiting)
            && let Some(front) = self.batches.front_mut()
        {
            if let Some(pending) = front.take() {
                self.waiting -= 1;
                self.late.insert(self.first, pending);
            }
            self.let_go();
        }
    }
}

impl Clients for Table {
    fn query(&mut self, id: RequestId) -> &[u8] {
        match &mut self.pending(id).waiter {
            Waiting::Queries { queries, .. } => queries.query(ordinal(id)),
            _ => panic!("request {id} is no query"),
        }
    }

    fn answer(&mut self, id: RequestId, result: Result<&[u8], &Outcome>) {
        let pending = self.pending(id);
        pending.waiter.record(id, result, pending.open);
        pending.open -= 1;
        let last = pending.open == 0;
        if last {
            self.take(id).resolve(result);
        }
    }
}

impl Waiting {
    /// How one of the `open` requests that have not ended did.
    fn record(&mut self, id: RequestId, result: Result<&[u8], &Outcome>, open: u32) {
        let (Self::Commands { answers, ends, .. } | Self::Queries { answers, ends, .. }) = self
        else {
            return;
        };
        match result {
            Ok(answer) => {
                let in_order = answers.len() == ordinal(id) as usize || ends.refused.is_some();
                assert!(in_order || ends.unknown, "request {id} answered out of order");
                if answers.is_empty() {
                    // Mostly they all come now, and are alike.
                    answers.make_room(open as usize, answer);
                }
                answers.push(answer);
            }
            Err(Outcome::Refused(refusal)) => ends.refused = Some(refusal.clone()),
            Err(_) => ends.unknown = true,
        }
    }

    fn resolve(self, last: Result<&[u8], &Outcome>) {
        match self {
            Self::Commands { waiter, answers, ends }
            | Self::Queries { waiter, answers, ends, .. } => {
                let failure = ends.failure(answers.len());
                waiter.resolve(failure.map_or(Ok(answers), Err));
            }
            Self::Order(reply) => {
                let outcome = last.expect_err("an order has no answer");
                drop(reply.send(Carried::of(outcome)));
            }
        }
    }
}

/// Which batch it is of.
const fn number(id: RequestId) -> u64 {
    id.0 >> ORDINAL_BITS
}

const fn ordinal(id: RequestId) -> u32 {
    (id.0 & (BATCH_COUNT_MAX as u64 - 1)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, channel::oneshot};
    use lakebed::LogId;

    type Result<T> = std::result::Result<T, Failure>;

    fn all() -> (Waiter, oneshot::Receiver<Result<Answers>>) {
        let (sender, receiver) = oneshot::channel();
        (Waiter::All(sender), receiver)
    }

    fn resolved<T>(receiver: oneshot::Receiver<T>) -> Option<T> {
        receiver.now_or_never().map(|sent| sent.unwrap())
    }

    #[test]
    fn a_batch_is_resolved_by_its_last_answer() {
        let mut table = Table::default();
        let (waiter, receiver) = all();
        let requests = table.commands(2, waiter);
        let mut ids = requests.ids();
        table.answer(ids.next().unwrap(), Ok(b"a"));
        assert_eq!(table.batches.len(), 1);
        table.answer(ids.next().unwrap(), Ok(b"b"));
        let answers = resolved(receiver).unwrap().unwrap();
        assert_eq!(answers.iter().collect::<Vec<_>>(), [b"a", b"b"]);
        assert!(table.batches.is_empty());
    }

    #[test]
    fn batches_end_in_any_order_and_keep_their_ids() {
        let mut table = Table::default();
        let (first, second) = (all(), all());
        let one = table.commands(1, first.0);
        let two = table.commands(1, second.0);
        table.answer(two.first, Ok(b"2"));
        let third = all();
        let three = table.commands(1, third.0);
        table.answer(one.first, Ok(b"1"));
        table.answer(three.first, Ok(b"3"));
        for (receiver, expected) in [(first.1, b"1"), (second.1, b"2"), (third.1, b"3")] {
            let answers = resolved(receiver).unwrap().unwrap();
            assert_eq!(answers.answer(0), Some(&expected[..]));
        }
    }

    /// An order may wait for minutes, and whatever was asked behind it kept its slot as long.
    #[test]
    fn one_that_waits_long_keeps_no_room_for_those_that_have_ended() {
        let mut table = Table::default();
        let (reply, order) = oneshot::channel();
        let waiting = table.order(reply);
        let (slow, slow_receiver) = all();
        let slow = table.queries(Batch::one(b"slow"), slow).unwrap();
        for _ in 0..100_000 {
            let (waiter, receiver) = all();
            let requests = table.commands(1, waiter);
            table.answer(requests.first, Ok(b"quick"));
            assert_eq!(resolved(receiver).unwrap().unwrap().answer(0), Some(&b"quick"[..]));
            assert!(table.batches.len() <= 2048, "{} slots for two", table.batches.len());
        }
        let query = table.query(slow.first).to_vec();
        table.answer(slow.first, Ok(&query));
        assert_eq!(resolved(slow_receiver).unwrap().unwrap().answer(0), Some(&b"slow"[..]));
        table.answer(waiting, Err(&Outcome::Done(LogId::ZERO)));
        assert_eq!(resolved(order).unwrap(), Ok(Carried::Done(LogId::ZERO)));
        assert_eq!(table.query_bytes, 0);
    }

    #[test]
    fn the_room_that_many_needed_is_given_back() {
        let mut table = Table::default();
        let many: Vec<_> = (0..100_000).map(|_| table.commands(1, all().0)).collect();
        many.into_iter().for_each(|requests| table.answer(requests.first, Ok(b"")));
        assert!(table.batches.capacity() <= 8192, "{} slots for none", table.batches.capacity());
    }

    /// The number's top bits went without a word, and its answer found nobody.
    #[test]
    fn behind_the_last_number_of_a_batch_comes_the_first() {
        let mut table = Table { first: NUMBER_MASK - 1, ..Table::default() };
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let (waiter, receiver) = all();
                (table.commands(2, waiter), receiver)
            })
            .collect();
        let number = |requests: &Requests| requests.first.0 >> ORDINAL_BITS;
        let numbers: Vec<_> = waiting.iter().map(|(requests, _)| number(requests)).collect();
        assert_eq!(numbers, [NUMBER_MASK - 1, NUMBER_MASK, 0, 1]);
        for at in [2, 1, 0, 3] {
            let text = at.to_string();
            waiting[at].0.ids().for_each(|id| table.answer(id, Ok(text.as_bytes())));
        }
        for (at, (_, receiver)) in waiting.into_iter().enumerate() {
            let answers = resolved(receiver).unwrap().unwrap();
            assert_eq!(answers.answer(1), Some(at.to_string().as_bytes()));
        }
        assert_eq!((table.first, table.batches.len()), (2, 0));
    }

    /// Its number comes round again while it waits.
    #[test]
    fn one_that_is_late_keeps_its_number_to_itself() {
        let mut table = Table::default();
        let (late, receiver) = all();
        let late = table.commands(1, late);
        for _ in 0..2 * ROW_MIN {
            let requests = table.commands(1, all().0);
            table.answer(requests.first, Ok(b"quick"));
        }
        assert_eq!((table.batches.len(), table.late.len()), (0, 1));
        table.first = NUMBER_MASK;
        let others = [all(), all()].map(|(waiter, receiver)| (table.commands(1, waiter), receiver));
        assert_eq!(others.each_ref().map(|(r, _)| number(r.first)), [NUMBER_MASK, 1]);
        table.answer(late.first, Ok(b"late"));
        assert_eq!(resolved(receiver).unwrap().unwrap().answer(0), Some(&b"late"[..]));
        for (requests, receiver) in others {
            table.answer(requests.first, Ok(b"another"));
            assert_eq!(resolved(receiver).unwrap().unwrap().answer(0), Some(&b"another"[..]));
        }
        assert_eq!((table.batches.len(), table.waiting), (0, 0));
    }

    #[test]
    fn a_batch_that_failed_in_part_is_refused_only_as_a_whole() {
        let busy = Outcome::Refused(Refusal::Busy);
        type Ending = std::result::Result<&'static [u8], Outcome>;
        let cases: [([Ending; 2], Failure); 3] = [
            ([Err(busy.clone()), Err(busy.clone())], Failure::Refused(Refusal::Busy)),
            ([Ok(b"a"), Err(busy.clone())], Failure::Unknown),
            ([Err(busy), Err(Outcome::Unknown)], Failure::Unknown),
        ];
        for (endings, expected) in cases {
            let mut table = Table::default();
            let (waiter, receiver) = all();
            let requests = table.commands(2, waiter);
            for (id, ending) in requests.ids().zip(&endings) {
                table.answer(id, ending.as_deref());
            }
            assert_eq!(resolved(receiver).unwrap(), Err(expected));
        }
    }

    #[test]
    fn queries_are_lent_by_ordinal() {
        let mut table = Table::default();
        let mut queries = Batch::one(b"first");
        queries.push(b"");
        queries.push(b"third");
        let (waiter, receiver) = all();
        for id in table.queries(queries, waiter).unwrap().ids() {
            let query = table.query(id).to_vec();
            table.answer(id, Ok(&query));
        }
        let answers = resolved(receiver).unwrap().unwrap();
        assert_eq!(answers.iter().collect::<Vec<_>>(), [&b"first"[..], b"", b"third"]);
    }

    /// The engine has handed them on, and the inbox is empty: nobody else bounds what waits for a machine
    /// that is slow.
    #[test]
    fn queries_without_room_are_refused_until_others_have_ended() {
        let mut table = Table::default();
        let large = || Batch::one(&vec![0; QUERY_BYTES_MAX * 3 / 4]);
        let (first, second, third) = (all(), all(), all());
        let one = table.queries(large(), first.0).unwrap();
        assert_eq!(table.queries(large(), second.0), None);
        assert_eq!(resolved(second.1).unwrap(), Err(Failure::Refused(Refusal::Busy)));
        table.answer(one.first, Ok(b"1"));
        assert!(table.queries(large(), third.0).is_some());
    }

    /// A query of one byte took hundreds, and was reckoned as five: thirteen million had room.
    #[test]
    fn queries_without_bytes_need_room_as_well() {
        let mut table = Table::default();
        let has_room = |_: &u32| table.queries(Batch::one(b"?"), all().0).is_some();
        let taken = (0..300_000).take_while(has_room).count();
        assert!((1_000..=QUERY_BYTES_MAX / 256).contains(&taken), "{taken} queries wait");
    }

    #[test]
    fn what_is_open_at_the_end_is_unknown() {
        let mut table = Table::default();
        let (waiter, batch) = all();
        table.commands(3, waiter);
        let (reply, order) = oneshot::channel();
        table.order(reply);
        (0..2 * ROW_MIN).for_each(|_| {
            let requests = table.commands(1, all().0);
            table.answer(requests.first, Ok(b"quick"));
        });
        table.commands(1, all().0);
        assert_eq!(
            (table.waiting, table.late.len()),
            (1, 2),
            "some wait in the row, others do not"
        );
        table.end_all();
        assert_eq!(resolved(batch).unwrap(), Err(Failure::Unknown));
        assert_eq!(resolved(order).unwrap(), Err(Failure::Unknown));
    }
}

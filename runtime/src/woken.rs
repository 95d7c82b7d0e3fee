//! Whoever waits is woken, in whatever order threads take their steps: `loom` goes through them, and
//! says so when everybody waits for everybody. `just loom`, in a build of its own.

use crate::{
    inbox::{Bell, Inbox, Request},
    mailbox::Mailbox,
};
use futures::channel::oneshot::{self, Canceled};
use lakebed::GroupId;
use loom::{future::block_on, model::Builder, thread};
use std::{
    future::{Future, poll_fn},
    sync::Arc,
    task::{Poll, Waker},
};

/// Goes through every order in which no more than so many steps of a thread are interrupted: all of them take
/// hours. `LOOM_MAX_PREEMPTIONS` is another bound for all.
pub(crate) fn model(interruptions: usize, run: impl Fn() + Send + Sync + 'static) {
    let mut model = Builder::new();
    model.preemption_bound.get_or_insert(interruptions);
    model.check(run);
}

/// Until `look`, which is called whenever its waker was woken, has found so much; and there is no more.
pub(crate) fn found(
    count: usize,
    mut look: impl FnMut(&Waker) -> usize,
) -> impl Future<Output = ()> {
    let mut found = 0;
    poll_fn(move |cx| {
        found += look(cx.waker());
        assert!(found <= count, "something was taken twice");
        if found == count { Poll::Ready(()) } else { Poll::Pending }
    })
}

fn push(inbox: &Arc<Inbox>) -> thread::JoinHandle<()> {
    let inbox = Arc::clone(inbox);
    thread::spawn(move || inbox.push(Request::Stop { hand_over: false }))
}

/// Moves what an inbox holds out of it and says how much that was.
fn take(inbox: &Inbox) -> usize {
    let mut taken = Vec::new();
    inbox.take(&mut taken);
    taken.len()
}

#[test]
fn what_threads_leave_is_found() {
    model(3, || {
        let mailbox = Arc::new(Mailbox::default());
        let threads = [1, 2].map(|item| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || mailbox.put_all([item, -item]))
        });
        let mut items = Vec::new();
        block_on(found(4, |waker| mailbox.take(waker, &mut items)));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(matches!(items[..], [1, -1, 2, -2] | [2, -2, 1, -1]), "{items:?}");
    });
}

/// Whom a driver has for itself wakes it at each request.
#[test]
fn what_is_asked_of_one_node_is_heard() {
    model(3, || {
        let inbox = Arc::new(Inbox::new(100));
        let threads = [&inbox; 2].map(push);
        block_on(found(2, |waker| {
            let mut taken = Vec::new();
            inbox.poll(waker, &mut taken);
            taken.len()
        }));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// The first request rings, and no other does before that one is taken.
#[test]
fn what_is_asked_of_one_group_of_many_is_heard() {
    model(3, || {
        let bell = Arc::new(Bell::default());
        let inbox = Arc::new(Inbox::at(Arc::clone(&bell), GroupId(1), 100));
        let threads = [&inbox; 2].map(push);
        block_on(found(2, |waker| {
            let mut rang = Vec::new();
            bell.take(waker, &mut rang);
            rang.into_iter().map(|_| take(&inbox)).sum()
        }));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// Whoever asks for the end of a node that ends without one is not left waiting, while others hold its inbox.
#[test]
fn who_asks_while_the_driver_goes_is_told() {
    model(3, || {
        let inbox = Arc::new(Inbox::new(100));
        let (reply, mut receiver) = oneshot::channel();
        let thread = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || inbox.push(Request::Ended(reply)))
        };
        inbox.abandon();
        assert!(inbox.has_ended());
        inbox.let_go();
        thread.join().unwrap();
        assert_eq!(receiver.try_recv().map(|_| ()), Err(Canceled));
    });
}

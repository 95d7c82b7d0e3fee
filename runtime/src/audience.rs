//! Who waits for word of a node or a group: for its notes, or for its end.
//!
//! Knows no engine. Invariant: of those who wait no more as many are kept as of those who do, or a few. A group
//! in which nothing happens would find nobody gone, however many came.

use crate::inbox::{Request, Sender};
use futures::channel::mpsc;
use lakebed::{Halt, Note};
use std::sync::Arc;

/// So many are never looked through.
const FEW: usize = 16;

/// See the module.
#[derive(Default)]
pub(crate) struct Audience {
    notes: Kept<mpsc::Sender<Note>>,
    end: Kept<Sender<Arc<Halt>>>,
}

impl Audience {
    pub(crate) fn subscribe(&mut self, notes: mpsc::Sender<Note>) {
        self.notes.keep(notes, mpsc::Sender::is_closed);
    }

    pub(crate) fn await_end(&mut self, reply: Sender<Arc<Halt>>) {
        self.end.keep(reply, Sender::is_canceled);
    }

    /// A subscriber that is slow misses the note; one that is gone is forgotten.
    pub(crate) fn tell(&mut self, note: &Note) {
        let offer = |notes: &mut mpsc::Sender<Note>| {
            notes.try_send(note.clone()).map_or_else(|error| error.is_full(), |()| true)
        };
        self.notes.all.retain_mut(offer);
    }

    /// Those who wait for the end, to be answered with it.
    pub(crate) fn waiting(self) -> impl Iterator<Item = Request> {
        self.end.all.into_iter().map(Request::Ended)
    }
}

struct Kept<T> {
    all: Vec<T>,
    /// When they are so many, those who are gone are let go.
    most: usize,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { all: Vec::new(), most: FEW }
    }
}

impl<T> Kept<T> {
    fn keep(&mut self, one: T, is_gone: impl Fn(&T) -> bool) {
        if self.all.len() == self.most {
            self.all.retain(|one| !is_gone(one));
            self.most = FEW.max(2 * self.all.len());
        }
        self.all.push(one);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::channel::oneshot;

    #[test]
    fn one_that_is_slow_misses_notes_and_hears_the_next() {
        let mut audience = Audience::default();
        let (notes, mut noted) = mpsc::channel(0);
        audience.subscribe(notes);
        audience.subscribe(mpsc::channel(0).0);
        for _ in 0..2 {
            // There is room for one.
            (0..3).for_each(|_| audience.tell(&Note::DiskFull(true)));
            assert_eq!(audience.notes.all.len(), 1, "whoever has gone is let go");
            assert!(noted.try_recv().is_ok());
            assert!(noted.try_recv().is_err());
        }
    }

    /// As somebody does who looks now and then whether the node has ended.
    #[test]
    fn those_who_have_gone_are_forgotten_though_nothing_happens() {
        let mut audience = Audience::default();
        let stay: Vec<_> = (0..100)
            .map(|_| {
                let ((notes, noted), (reply, ended)) = (mpsc::channel(1), oneshot::channel());
                audience.subscribe(notes);
                audience.await_end(reply);
                (noted, ended)
            })
            .collect();
        for _ in 0..10_000 {
            audience.subscribe(mpsc::channel(1).0);
            audience.await_end(oneshot::channel().0);
        }
        let (notes, end) = (audience.notes.all.len(), audience.end.all.len());
        assert!(notes <= 200 && end <= 200, "{notes} and {end} for {}", stay.len());
        let heard = audience
            .waiting()
            .filter(|request| matches!(request, Request::Ended(reply) if !reply.is_canceled()));
        assert_eq!(heard.count(), stay.len());
    }
}

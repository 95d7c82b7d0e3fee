//! What is said on standard error, in whole lines; and that nobody waits for who reads it.
//!
//! Knows neither who says something nor what. Invariant: once it is [`detached`](detach), no line
//! keeps whoever says it waiting, and none that cannot be written harms anybody: it is lost, and
//! that some were lost is the next thing to be written.

use std::{
    fmt::Display,
    io::{self, Write},
    mem,
    sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::Duration,
};

/// The most that waits to be written.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// How long the end of the process waits for what was said before.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// What a thread of its own writes, if there is one.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// From here on lines are written by a thread of their own. For commands that others rely on as long
/// as they run: a pipe that nobody reads is soon full, and whoever writes to it stands still.
pub(crate) fn detach() -> io::Result<()> {
    let writer = thread::Builder::new().name("log".into());
    let queue = QUEUE.get_or_init(|| Queue::new(WAITING_BYTES_MAX));
    writer.spawn(|| queue.write_to(io::stderr())).map(drop)
}

/// Says this on standard error.
pub(crate) fn note(text: impl Display) {
    push(format!("{text}\n").into_bytes());
}

/// Waits, though not for ever, until what was said is written. Before the process ends.
pub(crate) fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_MAX);
    }
}

fn push(line: Vec<u8>) {
    match QUEUE.get() {
        Some(queue) => queue.push(line),
        // There is nobody else whom that could be told.
        None => drop(io::stderr().write_all(&line)),
    }
}

/// Where events are written, each as a whole.
pub(crate) struct Events;

impl Write for Events {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        push(event.to_vec());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines on their way.
struct Queue {
    waiting: Mutex<Waiting>,
    /// Something came, or all was written.
    changed: Condvar,
    bytes_max: usize,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<Vec<u8>>,
    bytes: usize,
    /// How many found no place behind these.
    lost: u64,
    /// Whether others are just being written.
    is_writing: bool,
}

impl Waiting {
    const fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.lost == 0
    }
}

impl Queue {
    fn new(bytes_max: usize) -> Self {
        Self { waiting: Mutex::default(), changed: Condvar::new(), bytes_max }
    }

    /// Held for moments only: never while something is written.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: Vec<u8>) {
        let mut waiting = self.waiting();
        // Once one is lost, so are those behind it, until what stands before them is on its way.
        if waiting.lost > 0 || waiting.bytes + line.len() > self.bytes_max {
            waiting.lost += 1;
        } else {
            waiting.bytes += line.len();
            waiting.lines.push(line);
        }
        self.changed.notify_all();
    }

    /// Writes what comes, for ever.
    fn write_to(&self, out: impl Write) {
        let mut out = Lossy { out, lost: 0 };
        loop {
            let waiting = self.changed.wait_while(self.waiting(), |waiting| waiting.is_empty());
            let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
            let taken =
                mem::replace(&mut *waiting, Waiting { is_writing: true, ..Waiting::default() });
            drop(waiting);
            out.write(&taken);
            self.waiting().is_writing = false;
            self.changed.notify_all();
        }
    }

    fn flush(&self, patience: Duration) {
        let is_left = |waiting: &mut Waiting| waiting.is_writing || !waiting.is_empty();
        drop(self.changed.wait_timeout_while(self.waiting(), patience, is_left));
    }
}

/// What lines are written to, and how many could not be.
struct Lossy<W> {
    out: W,
    lost: u64,
}

impl<W: Write> Lossy<W> {
    fn write(&mut self, taken: &Waiting) {
        for line in &taken.lines {
            self.tell_lost();
            if self.out.write_all(line).is_err() {
                self.lost += 1;
            }
        }
        self.lost += taken.lost;
        self.tell_lost();
    }

    /// Where they would have stood.
    fn tell_lost(&mut self) {
        let line = format!("lines that could not be written here: {}\n", self.lost);
        if self.lost > 0 && self.out.write_all(line.as_bytes()).is_ok() {
            self.lost = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::ErrorKind,
        sync::{
            Arc,
            mpsc::{Receiver, Sender, channel},
        },
    };

    /// Says what it is given, and has written it when it is told how that went.
    struct Slow {
        given: Sender<String>,
        went: Receiver<io::Result<()>>,
    }

    impl Write for Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            // At its end nobody listens any more.
            let _ = self.given.send(String::from_utf8_lossy(line).into_owned());
            self.went.recv().map_err(io::Error::other)?.map(|()| line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Ends = (Arc<Queue>, Receiver<String>, Sender<io::Result<()>>);

    fn queue(bytes_max: usize) -> Ends {
        let queue = Arc::new(Queue::new(bytes_max));
        let ((given, lines), (goes, went)) = (channel(), channel());
        let own = Arc::clone(&queue);
        drop(thread::spawn(move || own.write_to(Slow { given, went })));
        (queue, lines, goes)
    }

    #[test]
    fn who_speaks_does_not_wait_and_what_was_lost_is_told() {
        let (queue, lines, goes) = queue(4);
        let say = |line: &str| queue.push(line.into());
        let next = |count| lines.iter().take(count).collect::<Vec<_>>();
        let lost = |count| format!("lines that could not be written here: {count}\n");
        say("1\n");
        assert_eq!(next(1), ["1\n"]);
        // It is being written, however long that takes.
        ["2\n", "3\n", "4\n", "5\n", ""].into_iter().for_each(say);
        (0..4).for_each(|_| goes.send(Ok(())).unwrap());
        assert_eq!(next(3), ["2\n", "3\n", &lost(3)]);
        // Neither the line is written nor what tells of it.
        say("6\n");
        (0..2).for_each(|_| goes.send(Err(ErrorKind::StorageFull.into())).unwrap());
        assert_eq!(next(2), ["6\n", &lost(1)]);
        say("7\n");
        (0..2).for_each(|_| goes.send(Ok(())).unwrap());
        assert_eq!(next(2), [&lost(1), "7\n"]);
    }

    #[test]
    fn the_end_waits_for_what_was_said_but_not_for_ever() {
        let (queue, lines, goes) = queue(4);
        queue.push("1\n".into());
        assert_eq!(lines.recv().as_deref(), Ok("1\n"));
        queue.flush(Duration::from_millis(1));
        assert!(queue.waiting().is_writing);
        goes.send(Ok(())).unwrap();
        queue.flush(Duration::from_secs(60));
        assert!(!queue.waiting().is_writing);
    }
}

//! Which commands of a pipeline go together: writes into one batch, reads into one query.
//!
//! Knows no connection. Invariant: commands are taken in order, and what is taken can be answered
//! in order and in bounded room.

use crate::{Command, Queries};
use lakebed::Batch;

/// The most values that a batch may answer with. Reads among writes ride along in the log, so
/// that a read sees the write before it without waiting for it.
const RIDING_VALUES_MAX: usize = 16;

/// Commands that are performed together.
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

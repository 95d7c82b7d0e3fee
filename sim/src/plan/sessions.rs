//! Sessions of clients: how few are kept, for how short, and how often an answer is lost.

use super::{
    MS, Plan,
    site::Site,
    text::{Field, TIME_MAX, plain, time},
};
use lakebed::session::{ANSWER_BYTES_MAX, ANSWERS_MAX, Limits};
use std::time::Duration;

/// What rates are parts of.
const RATE_MAX: u64 = 65_536;

/// What sessions are like in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sessions {
    /// The most of them, in every machine.
    pub sessions_max: u32,
    /// The most answers that are kept for each.
    pub answers_max: u32,
    /// The most bytes of such answers.
    pub answer_bytes_max: u32,
    /// How long one lasts that is not used, by the entries' time.
    pub unused_max: u64,
    /// Answers in 65,536 that do not reach their client.
    pub lost: u64,
    /// Commands in 65,536 before which the client sends one too early.
    pub early: u64,
}

impl Default for Sessions {
    /// Enough of everything.
    fn default() -> Self {
        Self {
            sessions_max: 64,
            answers_max: 4,
            answer_bytes_max: 4 << 10,
            unused_max: 3_600_000 * MS,
            lost: 0,
            early: 0,
        }
    }
}

impl Sessions {
    /// Those of a seed, if one that has some.
    #[must_use]
    pub fn drawn(seed: u64) -> Self {
        Self::draw(seed).1
    }

    /// In one storm of four.
    pub(super) fn of_storm(seed: u64) -> Option<Self> {
        let (are_there, sessions) = Self::draw(seed);
        are_there.then_some(sessions)
    }

    fn draw(seed: u64) -> (bool, Self) {
        let mut draw = Site::Sessions.draw(seed);
        let are_there = draw.ratio(1, 4);
        let sessions = Self {
            sessions_max: *draw.pick(&[2, 8, 64]),
            answers_max: *draw.pick(&[1, 1, 2, 4]),
            answer_bytes_max: *draw.pick(&[8, 64, 4 << 10, 4 << 10]),
            unused_max: *draw.pick(&[40 * MS, 400 * MS, 3_600_000 * MS, 3_600_000 * MS]),
            lost: *draw.pick(&[0, 655, 6_553]),
            early: *draw.pick(&[0, 0, 655]),
        };
        (are_there, sessions)
    }

    pub(super) fn fields(&mut self) -> Vec<Field<'_>> {
        vec![
            plain("most", &mut self.sessions_max),
            plain("answers", &mut self.answers_max),
            plain("answer-bytes", &mut self.answer_bytes_max),
            time("unused", &mut self.unused_max),
            plain("lost", &mut self.lost),
            plain("early", &mut self.early),
        ]
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        let Self { sessions_max, answers_max, answer_bytes_max, unused_max, lost, early } = *self;
        if sessions_max == 0 || unused_max == 0 || unused_max > TIME_MAX {
            return Err("sessions: there is room for one, and it lasts for a while".into());
        }
        if !(1..=ANSWERS_MAX).contains(&answers_max) || answer_bytes_max > ANSWER_BYTES_MAX {
            return Err(format!(
                "sessions keep 1 to {ANSWERS_MAX} answers, and {ANSWER_BYTES_MAX} bytes of them"
            ));
        }
        if lost >= RATE_MAX || early >= RATE_MAX {
            return Err(format!("sessions lose, and hurry, less than {RATE_MAX} in that many"));
        }
        Ok(())
    }
}

impl Plan {
    /// What machines keep of sessions; `None`: they have none.
    pub(crate) fn session_limits(&self) -> Option<Limits> {
        self.sessions.map(|sessions| Limits {
            sessions_max: sessions.sessions_max,
            answers_max: sessions.answers_max,
            answer_bytes_max: sessions.answer_bytes_max,
            unused_max: Duration::from_nanos(sessions.unused_max),
        })
    }
}

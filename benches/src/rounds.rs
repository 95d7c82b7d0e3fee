//! Interleaved rounds, and the ratio of each pair.

use std::time::{Duration, Instant};

const STRIDE: u64 = 32;

/// Many measurements of one thing.
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn new(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        Self(samples)
    }

    pub fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    /// The smallest that so many of all, between none and one, do not exceed.
    pub fn quantile(&self, of: f64) -> f64 {
        let rank = (self.0.len() as f64 * of).ceil() as usize;
        self.0[rank.saturating_sub(1)]
    }

    pub fn min(&self) -> f64 {
        self.0[0]
    }

    pub fn max(&self) -> f64 {
        self.0[self.0.len() - 1]
    }
}

/// A contestant: does a round's work and says how much that was.
pub type Contestant<'a> = Box<dyn FnMut() -> Work + 'a>;

/// How much was done in which time.
#[derive(Clone, Copy)]
pub struct Work {
    pub commands: u64,
    pub took: Duration,
}

impl Work {
    /// Times `work`, which says how many times it did this many commands.
    pub fn counted(commands: u64, work: impl FnOnce() -> u64) -> Self {
        let start = Instant::now();
        let times = work();
        Self { commands: times * commands, took: start.elapsed() }
    }

    /// Repeats `work` of this many commands until this thread has worked for `least`. What else
    /// the machine does meanwhile does not count.
    pub fn of_this_thread(least: Duration, commands: u64, mut work: impl FnMut()) -> Self {
        let start = thread_time();
        let mut times = 0;
        while thread_time() - start < least {
            // The clock costs as much as a small command: look at it seldom.
            (0..STRIDE).for_each(|_| work());
            times += STRIDE;
        }
        Self { commands: times * commands, took: thread_time() - start }
    }

    fn rate(self) -> f64 {
        self.commands as f64 / self.took.as_secs_f64()
    }
}

/// The processor time this thread has used.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to `time`, which outlives it, and to nothing else.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0, "every system has this clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Commands per second of each contestant: one round of each in turn, the order turning too.
pub fn interleave(rounds: usize, contestants: &mut [Contestant<'_>]) -> Vec<Vec<f64>> {
    let mut rates = vec![Vec::new(); contestants.len()];
    for round in 0..rounds {
        for turn in 0..contestants.len() {
            let who = (round + turn) % contestants.len();
            rates[who].push(contestants[who]().rate());
        }
    }
    rates
}

/// The ratio of each pair.
pub fn ratios(ours: &[f64], theirs: &[f64]) -> Samples {
    Samples::new(ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect())
}

/// `1234567.0` as `1.23 M`.
pub fn readable(rate: f64) -> String {
    match rate {
        r if r >= 1e6 => format!("{:.2} M", r / 1e6),
        r if r >= 1e3 => format!("{:.1} k", r / 1e3),
        r => format!("{r:.0}"),
    }
}

/// `median (min..max)` of a ratio.
pub fn readable_ratio(ratios: &Samples) -> String {
    format!("{:.2}x ({:.2}..{:.2})", ratios.median(), ratios.min(), ratios.max())
}

//! What a scenario is given: a seed, perhaps a plan in its place, and whether its run is watched.

use crate::{plan::Plan, trace::Print};
use std::sync::Arc;

/// A seed, or a plan that was made from one.
#[derive(Clone, Debug)]
pub struct Seed {
    /// The number from which everything is drawn.
    pub number: u64,
    plan: Option<Arc<Plan>>,
    watch: Watch,
    happen_max: u64,
}

/// Who reads the trace of a run.
#[derive(Clone, Copy, Debug)]
enum Watch {
    Nobody,
    /// Its last lines go into a report.
    Report,
    /// Each line is given to this.
    Reader(Print),
    /// All lines are compared with another run's.
    Differ,
}

impl Seed {
    /// A seed whose run is not traced.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self { number, plan: None, watch: Watch::Nobody, happen_max: u64::MAX }
    }

    /// A plan to be run as it is, whatever a storm would draw.
    #[must_use]
    pub fn of_plan(plan: impl Into<Arc<Plan>>) -> Self {
        let plan = plan.into();
        Self { number: plan.seed, plan: Some(plan), watch: Watch::Nobody, happen_max: u64::MAX }
    }

    /// The same; the last lines of its run are kept for the report.
    #[must_use]
    pub fn traced(self) -> Self {
        Self { watch: Watch::Report, ..self }
    }

    /// The same; `print` is given a line of each event and action of its run as it happens.
    #[must_use]
    pub fn printed(self, print: Print) -> Self {
        Self { watch: Watch::Reader(print), ..self }
    }

    /// The same; each event and action of its run is kept.
    #[must_use]
    pub fn kept(self) -> Self {
        Self { watch: Watch::Differ, ..self }
    }

    /// The same; its run fails when so much has happened, if it has not ended before.
    #[must_use]
    pub fn at_most(self, happen_max: u64) -> Self {
        Self { happen_max, ..self }
    }

    /// After how much that happened its run is to end.
    pub(crate) const fn happen_max(&self) -> u64 {
        self.happen_max
    }

    /// The plan to be run, if it is not to be drawn.
    #[must_use]
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_deref()
    }

    pub(crate) fn is_traced(&self) -> bool {
        !matches!(self.watch, Watch::Nobody)
    }

    pub(crate) fn print(&self) -> Option<Print> {
        match self.watch {
            Watch::Reader(print) => Some(print),
            _ => None,
        }
    }

    pub(crate) fn is_kept(&self) -> bool {
        matches!(self.watch, Watch::Differ)
    }
}

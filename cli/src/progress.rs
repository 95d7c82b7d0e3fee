//! Shows how far a restart is, when it takes long enough to wonder.
//!
//! On a terminal bars move; elsewhere a line is written whenever a node reaches another phase.

use crate::log::note;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use lakebed::{Phase, Recovery, Role, Status};
use std::{collections::BTreeMap, io::IsTerminal, time::Duration};

/// A restart that is faster than this is not shown.
pub(crate) const QUIET: Duration = Duration::from_secs(1);

/// One line per node.
#[derive(Default)]
pub(crate) struct Progress {
    bars: MultiProgress,
    nodes: BTreeMap<u64, Shown>,
}

struct Shown {
    bar: ProgressBar,
    said: String,
}

impl Progress {
    /// Shows where this node is.
    pub(crate) fn show(&mut self, id: u64, status: &Status) {
        let bars = &self.bars;
        let shown = self.nodes.entry(id).or_insert_with(|| {
            let bar = ProgressBar::new_spinner().with_prefix(format!("node {id}"));
            Shown { bar: bars.add(bar), said: String::new() }
        });
        let (doing, recovery) = (doing(status), &status.recovery);
        let (style, done, total) = measure(recovery);
        shown.bar.set_style(style);
        shown.bar.set_length(total);
        shown.bar.set_position(done);
        shown.bar.set_message(doing.clone());
        shown.bar.tick();
        if doing != shown.said && !std::io::stderr().is_terminal() {
            note(format_args!("node {id}: {doing}"));
        }
        shown.said = doing;
    }

    /// Takes the lines away.
    pub(crate) fn clear(&mut self) {
        for shown in std::mem::take(&mut self.nodes).into_values() {
            shown.bar.finish_and_clear();
        }
    }
}

/// A bar for so many bytes; elsewhere than on a terminal it shows nothing.
pub(crate) fn bytes_bar(what: &str) -> ProgressBar {
    ProgressBar::new(0).with_style(bytes_style()).with_message(what.to_string())
}

pub(crate) fn bytes_style() -> ProgressStyle {
    let template = "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} \
                    {binary_bytes_per_sec}, {eta} left";
    style(template).progress_chars("=> ")
}

/// For what is counted in entries of the log.
pub(crate) fn entries_bar(what: &str) -> ProgressBar {
    ProgressBar::new(0).with_style(entries_style()).with_message(what.to_string())
}

pub(crate) fn entries_style() -> ProgressStyle {
    style("{msg} [{bar:30}] {pos}/{len} entries").progress_chars("=> ")
}

/// Not every phase is measured: some in bytes, the replay in entries.
fn measure(recovery: &Recovery) -> (ProgressStyle, u64, u64) {
    let Recovery { bytes_done, bytes_total, entries_done, entries_total, .. } = *recovery;
    let bar = |of| style(&format!("{{prefix}} [{{bar:30}}] {of} {{msg}}")).progress_chars("=> ");
    match recovery.phase {
        Phase::Replay => (bar("{pos}/{len} entries"), entries_done, entries_total),
        Phase::Ready => (style("{prefix} {spinner} {msg}"), 0, 0),
        _ if bytes_total > 0 => {
            (bar("{binary_bytes}/{binary_total_bytes}"), bytes_done, bytes_total)
        }
        _ => (style("{prefix} {spinner} {msg}"), 0, 0),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are ours")
}

/// What the node is busy with.
fn doing(status: &Status) -> String {
    match (status.recovery.phase, status.role) {
        (Phase::Ready, Role::Forming) => {
            let met = "waits until every node has met every other";
            let missing = status.members.members().filter(|member| member.incarnation == 0);
            let missing: Vec<_> = missing.map(|member| member.id.to_string()).collect();
            match &missing[..] {
                [] => met.into(),
                missing => format!("{met}; not met yet: {}", missing.join(", ")),
            }
        }
        (Phase::Ready, _) if status.members.member(status.node).is_none() => {
            "waits to be added (lakebed member add)".into()
        }
        (Phase::Ready, _) if status.leader.is_none() && status.gated => {
            let found = status.recovery.verdict.iter().map(|found| format!(" ({found})"));
            format!(
                "has lost a part of its log, and waits for a leader to give it again{}",
                found.collect::<String>()
            )
        }
        (Phase::Ready, _) if status.leader.is_none() => "waits for a leader".into(),
        (Phase::Ready, _) => "ready".into(),
        (phase, _) => format!("recovers: {phase}"),
    }
}

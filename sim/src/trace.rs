//! What happened, one line per event and per action, for people: the simulated time, the node (or
//! `-` for all), where there are many groups the group (or `-` for a host and all of its own), `>` for an
//! event and `<` for an action, and what it is.
//!
//! A run is traced only when somebody will read it: a failing seed is run once more with the trace
//! on, which costs nothing to those that pass.

use crate::plan::MS;
use bytes::Bytes;
use lakebed::{
    Action, Completion, DiskRequest, Event, Extent, GroupId, Machine, inspect::describe,
};
use std::collections::VecDeque;

/// How many lines are kept.
const LINES_MAX: usize = 4096;

/// Where lines go to as they come.
pub type Print = fn(&str);

/// The last lines of a run.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    lines: VecDeque<(Option<usize>, String)>,
    lines_max: usize,
    print: Option<Print>,
}

impl Trace {
    /// Without a line; `print` is given each as it comes.
    pub(crate) const fn new(print: Option<Print>) -> Self {
        Self { lines: VecDeque::new(), lines_max: LINES_MAX, print }
    }

    /// Of which no line is forgotten.
    pub(crate) const fn whole() -> Self {
        Self { lines: VecDeque::new(), lines_max: usize::MAX, print: None }
    }

    /// Adds a line about a node, or about the whole cluster.
    pub(crate) fn add(&mut self, now: u64, node: Option<usize>, line: &str) {
        let who = node.map_or_else(|| "-".into(), |node| (node + 1).to_string());
        let line = format!("{:>5}.{:06}ms {who:>2} {line}", now / MS, now % MS);
        if let Some(print) = self.print {
            print(&line);
        }
        if self.lines.len() == self.lines_max {
            self.lines.pop_front();
        }
        self.lines.push_back((node, line));
    }

    /// The last lines about this node and the cluster, or about all.
    pub(crate) fn last(&self, node: Option<usize>, count: usize) -> Vec<String> {
        let about =
            |(of, _): &&(Option<usize>, String)| of.is_none() || node.is_none() || *of == node;
        let mut lines: Vec<String> =
            self.lines.iter().rev().filter(about).take(count).map(|(_, l)| l.clone()).collect();
        lines.reverse();
        lines
    }
}

/// A line of a world of many groups, in the columns of one.
pub(crate) fn about(group: Option<GroupId>, line: &str) -> String {
    let which = group.map_or_else(|| "-".into(), |group| group.to_string());
    format!("{which:>3} {line}")
}

/// An event in one line.
#[must_use]
pub fn event(event: &Event) -> String {
    match event {
        Event::Start(start) => format!("> start {start:?}"),
        Event::Received { from, bytes } => {
            format!("> from {from} {}", describe(bytes))
        }
        Event::Completed { op, result: Ok(Completion::Read(bytes)) } => {
            format!("> done {op} read {} bytes", bytes.len())
        }
        Event::Completed { op, result: Ok(Completion::Listed(files)) } => {
            let files: Vec<String> = files.iter().map(|(f, len)| format!("{f}:{len}")).collect();
            format!("> done {op} listed {}", files.join(" "))
        }
        Event::Completed { op, result: Ok(Completion::Done) } => format!("> done {op}"),
        Event::Completed { op, result: Err(error) } => format!("> failed {op} {error}"),
        Event::Propose { first, batch, .. } => {
            format!("> propose {first} {} commands {} bytes", batch.count(), batch.bytes())
        }
        Event::Captured { capture, result: Ok(chunk) } => {
            format!("> captured {capture} {} bytes last {}", chunk.bytes.len(), chunk.last)
        }
        other => format!("> {other:?}"),
    }
}

/// An action in one line.
#[must_use]
pub fn action(action: &Action) -> String {
    match action {
        Action::Disk { op, request, .. } => format!("< disk {op} {}", self::request(request)),
        Action::Send { to, head, body } => {
            let whole = Bytes::from([&head[..], &body[..]].concat());
            format!("< to {to} {}", describe(&whole))
        }
        Action::Machine(Machine::Apply(entries)) => {
            format!("< apply {}..={}", entries.first, entries.last)
        }
        Action::Machine(Machine::Restore { at, offset, bytes, last }) => {
            format!("< restore {at} offset {offset} {} bytes last {last}", bytes.len())
        }
        Action::Machine(step) => format!("< {step:?}"),
        Action::Halt(halt) => format!("< halt: {halt}"),
        Action::Members(members) => format!("< members {members}"),
        other => format!("< {other:?}"),
    }
}

fn request(request: &DiskRequest) -> String {
    match request {
        DiskRequest::Write { file, at, and, durable } => {
            let and = and.as_ref().map_or_else(String::new, |and| format!(" and {}", extent(and)));
            let durable = if *durable { " durable" } else { "" };
            format!("write {file} {}{and}{durable}", extent(at))
        }
        other => format!("{other:?}"),
    }
}

fn extent(extent: &Extent) -> String {
    format!("{}+{}", extent.offset, extent.len())
}

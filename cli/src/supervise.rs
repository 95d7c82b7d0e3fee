//! From the start of nodes to their end: recovery shown, signals obeyed, ends reported.

use crate::{
    log::note,
    metrics,
    node::{Plan, Running},
    progress::{Progress, QUIET},
    say,
    signals::Signals,
};
use anyhow::Result;
use futures::future::{join_all, select_all};
use lakebed::{Halt, Phase, Status};
use std::{
    net::TcpListener,
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::time::{Interval, interval};

/// How often nodes are asked how they are while they start, and how long they may take to say.
const LOOK: Duration = Duration::from_millis(50);

/// What to do with nodes that serve, by their ids.
type Greeting = Box<dyn Fn(&[u64]) -> String>;

/// The nodes of this process.
pub(crate) struct Supervisor {
    nodes: Vec<Running>,
    /// Whether a node that stops hands its leadership over first: not when all stop together.
    hand_over: bool,
    /// What to print once they serve.
    greeting: Greeting,
    started: Instant,
    /// Until they serve.
    progress: Option<Progress>,
    /// Where it is told how they are.
    metrics: Option<TcpListener>,
    failed: bool,
}

/// What happened.
enum Happened {
    Signal,
    End(usize, Result<Arc<Halt>>),
    Look,
}

impl Supervisor {
    pub(crate) fn new(hand_over: bool, greeting: impl Fn(&[u64]) -> String + 'static) -> Self {
        Self {
            nodes: Vec::new(),
            hand_over,
            greeting: Box::new(greeting),
            started: Instant::now(),
            progress: Some(Progress::default()),
            metrics: None,
            failed: false,
        }
    }

    /// Tells there how the nodes are.
    pub(crate) fn metrics(mut self, listener: Option<TcpListener>) -> Self {
        self.metrics = listener;
        self
    }

    /// Runs these nodes until all have ended or a signal ends them.
    pub(crate) async fn run(mut self, plans: Vec<Plan>, mut signals: Signals) -> Result<ExitCode> {
        for plan in plans {
            tokio::select! {
                running = plan.start() => self.nodes.push(running?),
                () = signals.next() => return self.stop(signals).await,
            }
        }
        if let Some(listener) = self.metrics.take() {
            let sources = self.nodes.iter().map(|node| node.source.clone()).collect();
            // It ends with this process.
            drop(tokio::spawn(metrics::serve(listener, sources)));
        }
        let mut look = interval(LOOK);
        while !self.nodes.is_empty() {
            match self.next(&mut signals, &mut look).await {
                Happened::Signal => return self.stop(signals).await,
                Happened::End(at, halt) => {
                    let node = self.nodes.swap_remove(at);
                    self.report(node.source.id, &*halt?, self.nodes.len());
                }
                Happened::Look => self.look().await,
            }
        }
        Ok(ExitCode::FAILURE)
    }

    async fn next(&mut self, signals: &mut Signals, look: &mut Interval) -> Happened {
        let starting = self.progress.is_some();
        let ends = select_all(self.nodes.iter_mut().map(|node| Box::pin(node.ended())));
        tokio::select! {
            () = signals.next() => Happened::Signal,
            (halt, at, _) = ends => Happened::End(at, halt),
            _ = look.tick(), if starting => Happened::Look,
        }
    }

    /// Why a node has ended that runs beside so many others.
    fn report(&mut self, id: u64, halt: &Halt, others: usize) {
        match halt {
            Halt::Stopped => {}
            // As somebody wished; the others go on without it, at each start.
            Halt::Removed if others > 0 => note(format_args!(
                "node {id} was removed from the cluster, and has ended; the others go on"
            )),
            _ => {
                self.failed = true;
                note(format_args!("error: node {id} ended: {halt}"));
            }
        }
    }

    async fn look(&mut self) {
        let Some(progress) = &mut self.progress else { return };
        let statuses = statuses(&self.nodes).await;
        // Of a node that has ended none is left.
        let all_serve =
            |groups: &Groups| !groups.is_empty() && groups.iter().all(|(_, status)| serves(status));
        if statuses.iter().all(|groups| groups.as_ref().is_some_and(all_serve)) {
            progress.clear();
            self.progress = None;
            for (node, groups) in self.nodes.iter().zip(statuses.iter().flatten()) {
                say_found(node, groups);
            }
            say(format_args!("ready after {:.1?}", self.started.elapsed()));
            // Others may have ended since they were started, and who ends leaves no order.
            let mut ids: Vec<_> = self.nodes.iter().map(|node| node.source.id).collect();
            ids.sort_unstable();
            say((self.greeting)(&ids));
        } else if self.started.elapsed() >= QUIET {
            for (node, groups) in self.nodes.iter().zip(&statuses) {
                if let Some(status) = groups.as_ref().and_then(furthest_back) {
                    progress.show(node.source.id, &status);
                }
            }
        }
    }

    /// Stops what runs; at another signal, at once.
    async fn stop(mut self, mut signals: Signals) -> Result<ExitCode> {
        if let Some(progress) = &mut self.progress {
            progress.clear();
        }
        crate::STOPPING.store(true, Relaxed);
        say("stopping (Ctrl-C again to stop at once)");
        self.nodes.iter().for_each(|node| node.stop(self.hand_over));
        let mut nodes = std::mem::take(&mut self.nodes);
        let ended = tokio::select! {
            ended = join_all(nodes.iter_mut().map(Running::ended)) => ended,
            never = signals.die_at_next() => never,
        };
        for (node, halt) in nodes.iter().zip(ended) {
            self.report(node.source.id, &*halt?, nodes.len() - 1);
        }
        say("stopped");
        Ok(if self.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// How the groups of a node are, by number, but those that have ended there.
type Groups = Vec<(u64, Status)>;

/// How the groups of the nodes are; a node that is too busy to say has none.
async fn statuses(nodes: &[Running]) -> Vec<Option<Groups>> {
    let of = async |node: &Running| {
        let mut groups = node.source.statuses(LOOK).await?;
        groups.retain(|(group, _)| !node.source.has_ended(*group));
        Some(groups)
    };
    join_all(nodes.iter().map(of)).await
}

/// A node's groups as one: where the last of them is, with what all of them have to do.
fn furthest_back(groups: &Groups) -> Option<Status> {
    let groups = || groups.iter().map(|(_, status)| status);
    let last = groups().min_by_key(|status| (status.recovery.phase, serves(status)));
    let mut status = last?.clone();
    let sum = |of: fn(&Status) -> u64| groups().map(of).sum();
    status.recovery.bytes_done = sum(|status| status.recovery.bytes_done);
    status.recovery.bytes_total = sum(|status| status.recovery.bytes_total);
    status.recovery.entries_done = sum(|status| status.recovery.entries_done);
    status.recovery.entries_total = sum(|status| status.recovery.entries_total);
    Some(status)
}

/// What a node's restart found and repaired.
fn say_found(node: &Running, groups: &Groups) {
    let found = |(group, status): &(u64, Status)| Some((*group, status.recovery.verdict.clone()?));
    for (group, verdict) in groups.iter().filter_map(found).filter(|_| !node.is_new) {
        let of =
            if node.source.groups.len() > 1 { format!(", group {group},") } else { String::new() };
        say(format_args!("node {}{of} found: {verdict}", node.source.id));
    }
}

fn serves(status: &Status) -> bool {
    status.ready && status.recovery.phase == Phase::Ready && status.leader.is_some()
}

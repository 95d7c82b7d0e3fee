//! Ctrl-C while a node recovers, at instants from its start until it serves: it ends within a
//! second, and the next start comes to the same verdict and the same state. So in the stages that last
//! long enough for somebody to see them, waited for; those before take a millisecond, and are met one and
//! all where the disk holds them back (`runtime/tests/all/interrupted.rs`).
//!
//! Instants: `LAKEBED_INTERRUPTS`, by default 12.

use crate::{
    common::{PATIENCE, Patient, Process, connect, output},
    lone::Lone,
};
use rustix::process::Signal;
use std::{
    os::unix::process::ExitStatusExt,
    process::{self, ExitStatus},
    thread,
    time::{Duration, Instant},
};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

const END_MAX: Duration = Duration::from_secs(1);
/// How often it may take longer before it is believed to: whoever keeps the processors busy takes a second from
/// a process that has something to do in it.
const LATE_MAX: u32 = 4;
/// How often a stage may pass that is to be seen.
const TRIES: u32 = 20;
const VALUE_BYTES: usize = 64 << 10;

/// A node that was killed with a snapshot to restore, and a log behind it to replay.
fn killed() -> Lone {
    let lone = Lone::that(&["--snapshot-log-bytes", "3000000"], |connection| write(connection, 0));
    let mut node = lone.start();
    node.says("ready");
    write(&mut connect(lone.clients).unwrap(), 1);
    node.kill();
    node.ended();
    lone
}

fn write(connection: &mut redis::Connection, version: u8) {
    for n in 0..200 {
        let value = vec![b'a' + version; VALUE_BYTES];
        redis::cmd("SET").arg(format!("key:{n}")).arg(value).exec(connection).unwrap();
    }
}

/// The row of the verdict table that a start would be decided by.
fn verdict(lone: &Lone) -> String {
    let told = output(&["inspect", &lone.path().display().to_string()]);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told = String::from_utf8(told.stdout).unwrap();
    let row = told.lines().find(|line| line.starts_with("verdict"));
    row.unwrap_or_else(|| panic!("no verdict in {told}")).into()
}

fn digest(lone: &Lone) -> (u64, String) {
    Patient::new(lone.clients).ask(&["LAKEBED", "DIGEST"])
}

/// Lets nodes that are started from here obey Ctrl-C from their first instant. What a shell starts
/// in the background ignores it, and hands that down: an interrupt before a node listens would be
/// lost, and the test wait for ever. What is caught is not handed down.
fn catch_interrupts() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let mut interrupts = runtime.block_on(async { signal(SignalKind::interrupt()) }).unwrap();
    thread::spawn(move || {
        runtime.block_on(interrupts.recv());
        process::exit(130)
    });
}

/// Interrupts it, and again if that took too long: it ends soon, if not each time.
fn soon<T>(when: &str, mut interrupt: impl FnMut() -> (T, Duration)) -> T {
    let mut late = Vec::new();
    loop {
        let (told, took) = interrupt();
        if took < END_MAX {
            return told;
        }
        late.push(took);
        assert!(late.len() < LATE_MAX as usize, "interrupted {when}, it took {late:?} to end");
    }
}

/// Starts it, interrupts it after this long, and waits for its end. Whether it served by then, and how long
/// that took.
fn interrupt(lone: &Lone, after: Duration) -> (bool, Duration) {
    let mut node = lone.start();
    let at = Instant::now() + after;
    while Instant::now() < at {
        thread::yield_now();
    }
    let took = ends(&mut node);
    (node.stdout.iter().any(|line| line.starts_with("ready")), took)
}

/// Interrupts it, and waits for its end.
fn ends(node: &mut Process) -> Duration {
    node.signal(Signal::INT);
    let asked = Instant::now();
    let status = node.ended();
    let took = asked.elapsed();
    assert!(is_an_end(status), "{status}, {}", node.errors());
    took
}

/// Starts it, and interrupts it when it says itself that it is in this stage. `None`: nobody saw it there.
fn interrupt_in(lone: &Lone, stage: &str) -> Option<Duration> {
    let mut node = lone.start();
    let deadline = Instant::now() + PATIENCE;
    let mut connection = None;
    loop {
        assert!(Instant::now() < deadline, "it never came to {stage}, and did not get ready");
        let Some(asked) = connection.as_mut() else {
            connection = connect(lone.clients).ok();
            continue;
        };
        let Ok(info) = redis::cmd("INFO").query::<String>(asked) else {
            connection = None;
            continue;
        };
        let now = info.lines().find_map(|line| line.strip_prefix("recovery_phase:")).unwrap();
        if now == stage {
            return Some(ends(&mut node));
        }
        if now == "ready" {
            node.kill();
            node.ended();
            return None;
        }
    }
}

/// By itself, or by the signal before it had come to listen for any.
fn is_an_end(status: ExitStatus) -> bool {
    status.success() || status.signal() == Some(Signal::INT.as_raw())
}

fn serves(lone: &Lone) -> (Process, Duration) {
    let begun = Instant::now();
    let node = lone.start();
    node.says("ready");
    (node, begun.elapsed())
}

#[test]
fn a_recovery_that_is_interrupted_ends_at_once_and_comes_to_the_same() {
    let instants = std::env::var("LAKEBED_INTERRUPTS").map_or(12, |n| n.parse().unwrap());
    catch_interrupts();
    let lone = killed();
    let before = verdict(&lone);
    let (mut node, took) = serves(&lone);
    let expected = digest(&lone);
    node.kill();
    node.ended();
    let mut early = 0;
    for n in 0..instants {
        // Most of them soon, for most of the time a node alone waits for its own election.
        let after = took * (n + 1) * (n + 1) * 9 / (instants * instants * 8);
        let served = soon(&format!("after {after:?}"), || interrupt(&lone, after));
        early += u32::from(!served);
        assert_eq!(verdict(&lone), before, "interrupt {n} of {instants}");
    }
    for stage in ["restore", "replay"] {
        soon(&format!("in {stage}"), || {
            let seen = (0..TRIES).find_map(|_| interrupt_in(&lone, stage));
            ((), seen.unwrap_or_else(|| panic!("nobody saw it in {stage}, in {TRIES} starts")))
        });
        assert_eq!(verdict(&lone), before, "interrupted in {stage}");
    }
    let (_node, _) = serves(&lone);
    assert_eq!(digest(&lone), expected);
    assert!(early > instants / 4, "only {early} of {instants} came before the node served");
    println!("{early} of {instants} interrupts came before the node served");
}

//! The `lakebed` command: a replicated store in one process, or a node of one; how it is, and what
//! is in its directory; backups and what becomes of them; and the simulator.
//!
//! Knows flags, ports, folders and signals; everything else is the library's. Exit codes: 0 after
//! a clean stop, 1 when something failed, what was to be said among it, 2 when the command line
//! cannot be meant.

#![deny(clippy::print_stderr, clippy::print_stdout)]

mod addresses;
mod args;
mod backup;
mod backup_files;
mod client;
mod cluster_file;
mod descriptors;
mod groups;
mod groups_file;
mod log;
mod look;
mod looks;
mod machine;
mod member;
mod metrics;
mod node;
mod nodes;
mod observed;
mod progress;
mod recover;
mod restore;
mod serve;
mod signals;
mod sim;
mod status;
mod store;
mod supervise;
mod tape;
mod unfinished;
mod up;

use anyhow::Result;
use clap::Parser;
use log::note;
use mimalloc::MiMalloc;
use std::{
    fmt::Display,
    io::{self, ErrorKind, IsTerminal, Write},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};
use tracing_subscriber::filter::LevelFilter;

/// What a write costs is to a good part the wait for memory: of the system's allocator the buffers of entries
/// are large, go back to the system, and come again with pages to clear.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let args = args::Args::parse();
    let done = prepare(&args.command).and_then(|()| perform(args.command));
    let code = done.unwrap_or_else(|error| {
        note(format_args!("error: {}", explain(&error)));
        ExitCode::FAILURE
    });
    log::flush();
    // Whoever reads a file that is not whole must not take it for all there was to say.
    if code == ExitCode::SUCCESS && UNSAID.load(Relaxed) { ExitCode::FAILURE } else { code }
}

/// What is the process's own.
fn prepare(command: &args::Command) -> Result<()> {
    signals::outlive_limits()?;
    if matches!(command, args::Command::Up(_) | args::Command::Serve(_)) {
        log::detach()?;
    }
    log_to_stderr();
    Ok(())
}

fn perform(command: args::Command) -> Result<ExitCode> {
    match command {
        args::Command::Up(up) => up::run(&up),
        args::Command::Serve(serve) => serve::run(&serve),
        args::Command::Status(status) => status::run(&status),
        args::Command::Groups(groups) => groups::run(&groups),
        args::Command::Snapshot(snapshot) => backup::snapshot(&snapshot),
        args::Command::Backup(backup) => backup::backup(&backup),
        args::Command::Transfer(transfer) => member::transfer(&transfer),
        args::Command::Member(member) => member::run(&member),
        args::Command::Restore(restore) => restore::run(&restore),
        args::Command::Recover(recover) => recover::run(&recover),
        args::Command::Inspect(inspect) => look::inspect(&inspect),
        args::Command::Verify(verify) => look::verify(&verify),
        args::Command::Sim(sim) => sim::run(&sim),
        args::Command::Tape(tape) => tape::run(&tape),
    }
}

/// The error and what caused it, each thing once: some say themselves what they were caused by.
fn explain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Whether this process is about to end: that its nodes lose each other is no news then.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// What nodes warn of; `LAKEBED_LOG=info` (or `debug`, `error`, `off`) for more or less.
fn log_to_stderr() {
    let asked = std::env::var_os("LAKEBED_LOG").filter(|asked| !asked.is_empty());
    let level = asked.as_ref().and_then(|asked| asked.to_str()?.parse().ok());
    if let (Some(asked), None) = (asked, level) {
        note(format_args!(
            "LAKEBED_LOG={} is no level (off, error, warn, info, debug or trace): warn is taken",
            asked.display()
        ));
    }
    let writer = || -> Box<dyn Write> {
        if STOPPING.load(Relaxed) { Box::new(io::sink()) } else { Box::new(log::Events) }
    };
    tracing_subscriber::fmt()
        .with_max_level(level.unwrap_or(LevelFilter::WARN))
        .with_ansi(io::stderr().is_terminal())
        .with_writer(writer)
        .with_target(false)
        // Of what it could not write it would tell at that same place, and panic.
        .log_internal_errors(false)
        .init();
}

/// Whether something could not be said.
static UNSAID: AtomicBool = AtomicBool::new(false);

/// `1 seed`, `2 seeds`.
fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// Prints, unless nobody reads any more: `lakebed status | head -1` is no failure. Any other error is
/// told at once, and fails the command when it ends.
fn say(text: impl Display) {
    let mut stdout = io::stdout().lock();
    let said = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
    if let Err(error) = said
        && error.kind() != ErrorKind::BrokenPipe
        && !UNSAID.swap(true, Relaxed)
    {
        note(format_args!(
            "error: cannot write to standard output: {error}; what was to be said is lost"
        ));
    }
}

/// Runs the asynchronous part of a command on this thread.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = lakebed_runtime::executor()?;
    let done = runtime.block_on(work);
    // A look at a file system that hangs is waited for by nobody, and so not at the end either.
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn the_end_does_not_wait_for_a_look_that_hangs() {
        let (goes_on, hangs) = channel::<()>();
        let look = async {
            drop(tokio::task::spawn_blocking(move || hangs.recv()));
            Ok(())
        };
        block_on(look).unwrap();
        drop(goes_on);
    }
}

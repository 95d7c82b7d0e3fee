//! Real processes of the built binary, ended with the test whatever happens to it.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    io::{BufRead, BufReader, Read},
    net::{SocketAddr, TcpListener},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        atomic::{AtomicU16, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

/// The most that anything here waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what another process does.
const LOOK: Duration = Duration::from_millis(10);

/// A command line of the binary.
pub(crate) fn lakebed(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lakebed"));
    command.args(args).stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub(crate) fn output(args: &[&str]) -> Output {
    let mut process = Process::start(&mut lakebed(args));
    let status = process.ended();
    let all = |which: &Receiver<String>| which.iter().collect::<String>().into_bytes();
    Output { status, stdout: all(&process.stdout), stderr: all(&process.stderr) }
}

/// Runs it to its end, which must be this exit code, with this on standard error.
#[track_caller]
pub(crate) fn fails(args: &[&str], code: i32, expected: &[&str]) {
    let output = output(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    for expected in expected {
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
}

/// A running process; killed, by its id, when it is dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) stdout: Receiver<String>,
    pub(crate) stderr: Receiver<String>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Self { child, stdout, stderr }
    }

    /// Waits for a line of standard output that begins like this.
    #[track_caller]
    pub(crate) fn says(&self, expected: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.stdout.recv_timeout(left) {
                Ok(line) if line.starts_with(expected) => return line,
                Ok(_) => {}
                Err(_) => {
                    let stderr: String = self.stderr.try_iter().collect();
                    panic!("{expected:?} was not said; errors: {stderr}");
                }
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGKILL, without waiting for the end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// What it complained of, after its end.
    pub(crate) fn errors(&self) -> String {
        self.stderr.iter().collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line + "\n").is_err() {
                break;
            }
        }
    });
    receiver
}

/// Looks again and again until it holds.
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "within {PATIENCE:?} not: {what}");
        thread::park_timeout(LOOK);
    }
}

/// That many free ports in a row, each for one test alone, below those that the system hands out.
pub(crate) fn ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 100).unwrap() * 100;
    loop {
        let first = 20_000 + (start + NEXT.fetch_add(count, Ordering::Relaxed)) % 10_000;
        let free = |port| TcpListener::bind(loopback(port)).is_ok();
        if (first..first + count).all(free) {
            return first;
        }
    }
}

pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A connection to the node that serves clients on this port, if there is one.
pub(crate) fn connect(port: u16) -> redis::RedisResult<redis::Connection> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
    let connection = client.get_connection_with_timeout(PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    Ok(connection)
}

/// A node that is asked until it answers: on a busy machine the leader may just have changed. Only
/// for commands that may be performed twice.
pub(crate) struct Patient {
    port: u16,
    connection: Option<redis::Connection>,
}

impl Patient {
    pub(crate) fn new(port: u16) -> Self {
        Self { port, connection: None }
    }

    #[track_caller]
    pub(crate) fn ask<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        let mut answer = None;
        eventually("the command is answered", || {
            answer = self.try_ask(words).ok();
            answer.is_some()
        });
        answer.expect("it was just awaited")
    }

    fn try_ask<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> redis::RedisResult<T> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(self.port)?,
        };
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        let answer = command.query(&mut connection)?;
        self.connection = Some(connection);
        Ok(answer)
    }
}

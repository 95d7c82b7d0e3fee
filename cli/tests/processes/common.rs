//! Real processes of the built binary, ended with the test whatever happens to it.

use rustix::{
    fs::{Mode, OFlags},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
};
use serde_json::Value;
use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, File},
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

/// The most that anything here waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// A node answers or refuses within a few election timeouts, which here are well below a second:
/// one that has said nothing for this long never will.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How many lines of a process are shown when its test fails.
const LAST_WORDS: usize = 40;
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
    output_of(&mut lakebed(args))
}

/// The same, at a terminal at which somebody types this.
pub(crate) fn output_at_a_terminal(args: &[&str], typed: &str) -> Output {
    let mut terminal = File::from(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap());
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    // Not the terminal of this process, or a hang-up would end the tests.
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let keyboard = rustix::fs::open(&name, flags, Mode::empty()).unwrap();
    terminal.write_all(typed.as_bytes()).unwrap();
    output_of(lakebed(args).stdin(keyboard))
}

pub(crate) fn output_of(command: &mut Command) -> Output {
    let mut process = Process::start(command);
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

/// Runs it to its good end. What it said.
#[track_caller]
pub(crate) fn done(args: &[&str]) -> String {
    let output = output(args);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// The same of a command that says one JSON object.
#[track_caller]
pub(crate) fn json(args: &[&str]) -> Value {
    serde_json::from_str(&done(&[args, &["--json"]].concat())).unwrap()
}

/// A path as it stands on a command line.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A directory that outlives a test that fails, so that one can look what is in it.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// A file of this name beside what is tested.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.path().join(format!("{name}.log"))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.disable_cleanup(true);
            eprintln!("kept for whoever looks into this: {}", self.path().display());
        }
    }
}

/// A running process; killed, by its id, when it is dropped. If its test has failed by then, it
/// is told how the process was and what it said last.
pub(crate) struct Process {
    child: Child,
    pub(crate) stdout: Receiver<String>,
    pub(crate) stderr: Receiver<String>,
    last_words: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_with(command, || None)
    }

    /// What it says is added to this file as well, and more than usual.
    pub(crate) fn start_logged(command: &mut Command, log: &Path) -> Self {
        let append = || File::options().create(true).append(true).open(log).unwrap();
        Self::start_with(command.env("LAKEBED_LOG", "info"), || Some(append()))
    }

    fn start_with(command: &mut Command, log: impl Fn() -> Option<File>) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let last_words = Arc::default();
        let stdout = lines(child.stdout.take().unwrap(), log(), Arc::clone(&last_words));
        let stderr = lines(child.stderr.take().unwrap(), log(), Arc::clone(&last_words));
        Self { child, stdout, stderr, last_words }
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

    pub(crate) fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).unwrap();
    }

    /// By age. A signal of the process that is sent to one of them is heard by that one, if it can be.
    pub(crate) fn threads(&self) -> Vec<Pid> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.id().as_raw_nonzero())).unwrap();
        let id = |name: OsString| Pid::from_raw(name.to_str().unwrap().parse().unwrap()).unwrap();
        let mut ids: Vec<_> = tasks.map(|task| id(task.unwrap().file_name())).collect();
        ids.sort_unstable_by_key(|id: &Pid| id.as_raw_nonzero());
        ids
    }

    pub(crate) fn is_stopped(&self) -> bool {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.id().as_raw_nonzero())).unwrap();
        status.contains("\nState:\tT")
    }

    /// SIGKILL, without waiting for the end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// Whether it has ended by now.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
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
        let ended = self.child.try_wait();
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let id = self.child.id();
            match ended {
                Ok(Some(status)) => eprintln!("process {id} had ended before, {status}"),
                _ => eprintln!("process {id} was running"),
            }
            let last_words = self.last_words.lock().unwrap();
            last_words.iter().for_each(|line| eprint!("    {line}"));
        }
    }
}

fn lines(
    stream: impl Read + Send + 'static,
    mut log: Option<File>,
    last_words: Arc<Mutex<VecDeque<String>>>,
) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let line = line + "\n";
            if let Some(log) = &mut log {
                log.write_all(line.as_bytes()).unwrap();
            }
            let mut last_words = last_words.lock().unwrap();
            last_words.push_back(line.clone());
            if last_words.len() > LAST_WORDS {
                last_words.pop_front();
            }
            drop(last_words);
            // Whoever does not listen any more may still want to see it in the end.
            let _ = sender.send(line);
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

pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The same as it stands on a command line.
pub(crate) fn local(port: u16) -> String {
    loopback(port).to_string()
}

/// A connection to the node that serves clients on this port, if there is one.
pub(crate) fn connect(port: u16) -> redis::RedisResult<redis::Connection> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
    let connection = client.get_connection_with_timeout(PATIENCE)?;
    connection.set_read_timeout(Some(ANSWER_MAX))?;
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
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_ask(words) {
                Ok(answer) => return answer,
                Err(error) => {
                    let port = self.port;
                    assert!(!error.is_timeout(), "port {port} says nothing to {words:?}: {error}");
                    assert!(Instant::now() < deadline, "port {port}, {words:?}, still: {error}");
                }
            }
            thread::park_timeout(LOOK);
        }
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

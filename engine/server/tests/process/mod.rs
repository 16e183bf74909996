//! The real `leveret` binary as a child process, and the least client that can talk to it.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions only")]

pub(crate) mod client;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// A start takes some 50 ms; machines that build something else meanwhile are slower.
const START_PATIENCE: Duration = Duration::from_mins(1);

/// A directory of its own for each use, removed at the end.
pub(crate) struct Directory(pub(crate) PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("leveret-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running broker; killed when dropped.
pub(crate) struct Broker {
    child: Child,
    pub(crate) directory: Arc<Directory>,
    pub(crate) banner: Vec<String>,
    stderr: Receiver<String>,
    seen: String,
}

impl Broker {
    /// Starts on ports of the kernel's choice.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(Command::new(env!("CARGO_BIN_EXE_leveret")), arguments)
    }

    /// The same, by a command that ends in the binary's path, such as `taskset -c 0 leveret`.
    pub(crate) fn start_with(command: Command, arguments: &[&str]) -> Self {
        Self::start_by(command, Arc::new(Directory::new()), arguments)
    }

    /// Starts in a directory where perhaps another broker was before.
    pub(crate) fn start_in(directory: &Arc<Directory>, arguments: &[&str]) -> Self {
        let command = Command::new(env!("CARGO_BIN_EXE_leveret"));
        Self::start_by(command, Arc::clone(directory), arguments)
    }

    fn start_by(command: Command, directory: Arc<Directory>, arguments: &[&str]) -> Self {
        Self::launch_in(command, directory, arguments).unwrap_or_else(|mut broker| {
            let log = broker.drain_stderr().to_owned();
            panic!("no banner: {:?}\n{log}", broker.banner);
        })
    }

    /// The same, but a broker that ends, or hangs, before its banner is handed back as an error.
    pub(crate) fn launch(command: Command, arguments: &[&str]) -> Result<Self, Self> {
        Self::launch_in(command, Arc::new(Directory::new()), arguments)
    }

    fn launch_in(
        mut command: Command,
        directory: Arc<Directory>,
        arguments: &[&str],
    ) -> Result<Self, Self> {
        command.arg("serve");
        for option in ["--listen", "--http", "--metrics"] {
            if !arguments.contains(&option) {
                command.args([option, "127.0.0.1:0"]);
            }
        }
        let mut child = command
            .args(arguments)
            .current_dir(&directory.0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        let mut broker = Self { child, directory, banner: Vec::new(), stderr, seen: String::new() };
        let deadline = Instant::now() + START_PATIENCE;
        while !broker.banner.iter().any(|line| line.contains("Ctrl-C")) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = stdout.recv_timeout(left) else {
                return Err(broker);
            };
            broker.banner.push(line);
        }
        Ok(broker)
    }

    /// The number of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How the process ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Ends the process with SIGKILL and waits until nothing is left of it.
    pub(crate) fn kill(&mut self) -> ExitStatus {
        // It may have ended by itself.
        let _ = self.child.kill();
        self.child.wait().unwrap()
    }

    /// The real address of a listener: `amqp`, `http` or `metrics`.
    pub(crate) fn address(&self, purpose: &str) -> SocketAddr {
        let end = format!(" ({purpose})");
        let line = self.banner.iter().find(|line| line.ends_with(&end)).unwrap();
        let address = line.strip_prefix("listening on ").unwrap().strip_suffix(&end).unwrap();
        address.parse().unwrap()
    }

    /// Sends a signal by name, such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").arg(format!("-{name}")).arg(id).status();
        assert!(sent.unwrap().success());
    }

    /// Waits for a line on stderr.
    pub(crate) fn wait_for_log(&mut self, part: &str) {
        let deadline = Instant::now() + START_PATIENCE;
        while !self.seen.contains(part) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.stderr.recv_timeout(left) else {
                panic!("`{part}` was not logged, but:\n{}", self.seen);
            };
            self.seen.push_str(&(line + "\n"));
        }
    }

    /// Waits for the end and says how it ended.
    pub(crate) fn wait(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {patience:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// All of stderr so far.
    pub(crate) fn drain_stderr(&mut self) -> &str {
        while let Ok(line) = self.stderr.recv_timeout(Duration::from_millis(200)) {
            self.seen.push_str(&(line + "\n"));
        }
        &self.seen
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `leveret` to its end; panics where that takes too long.
pub(crate) fn run(arguments: &[&str], directory: &Directory) -> Output {
    run_with(Command::new(env!("CARGO_BIN_EXE_leveret")), arguments, directory)
}

/// The same, by a command that ends in the binary's path.
pub(crate) fn run_with(mut command: Command, arguments: &[&str], directory: &Directory) -> Output {
    let child = command
        .args(arguments)
        .current_dir(&directory.0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, receiver) = channel();
    let id = child.id();
    thread::spawn(move || sender.send(child.wait_with_output()));
    match receiver.recv_timeout(START_PATIENCE) {
        Ok(output) => output.unwrap(),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            let _ = Command::new("kill").arg("-KILL").arg(id.to_string()).status();
            panic!("{arguments:?} did not end");
        }
    }
}

/// `GET path`; the status line and the body.
pub(crate) fn get(address: SocketAddr, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(START_PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

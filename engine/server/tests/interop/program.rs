//! A client program as a child process: its output by line, bounded waits, an end in any case.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Within this time a program must print what it is expected to print, or end. Starting an
/// interpreter takes 0.3 s alone; with six programs on two busy cores it was seen to take 3 s.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Kept per program; the longest good run prints about 100 lines, a broker's log may be longer.
const LINES_MAX: usize = 5_000;

/// A running program. Dropping it kills it and all it has started.
pub(crate) struct Program {
    name: String,
    child: Child,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
    /// Lines before this one were already found by `expect`.
    seen: usize,
}

#[derive(Default)]
struct Output {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    kept: VecDeque<String>,
    dropped: usize,
    open: usize,
}

impl Program {
    /// Starts `command` as the leader of a process group of its own.
    pub(crate) fn start(name: &str, command: &mut Command) -> Self {
        let mut child = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: cannot start {command:?}: {error}"));
        let output = Arc::new(Output::default());
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        output.lines.lock().unwrap().open = 2;
        let readers = vec![read_lines(stdout, &output), read_lines(stderr, &output)];
        Self { name: name.to_owned(), child, output, readers, seen: 0 }
    }

    /// Waits for a line, after the last one found, that contains `text`; returns it.
    pub(crate) fn expect(&mut self, text: &str) -> String {
        match self.find(text, PATIENCE) {
            Some(line) => line,
            None => panic!("{}: no {text:?} in its output:\n{}", self.name, self.output()),
        }
    }

    /// Like [`Program::expect`], but gives up after `patience`, or when the output has ended.
    pub(crate) fn find(&mut self, text: &str, patience: Duration) -> Option<String> {
        let deadline = Instant::now() + patience;
        let mut lines = self.output.lines.lock().unwrap();
        loop {
            let start = self.seen.saturating_sub(lines.dropped);
            let found = lines.kept.iter().skip(start).position(|line| line.contains(text));
            if let Some(position) = found {
                self.seen = lines.dropped + start + position + 1;
                return Some(lines.kept[start + position].clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || lines.open == 0 {
                return None;
            }
            lines = self.output.changed.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Waits until `count` lines contain `text`, from the very first line on; returns them.
    pub(crate) fn expect_count(&self, text: &str, count: usize) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.matching(text);
            if found.len() >= count {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "{}: {} of {count} lines with {text:?}:\n{}",
                self.name,
                found.len(),
                self.output()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// All lines so far that contain `text`.
    pub(crate) fn matching(&self, text: &str) -> Vec<String> {
        let lines = self.output.lines.lock().unwrap();
        lines.kept.iter().filter(|line| line.contains(text)).cloned().collect()
    }

    /// Everything printed so far.
    pub(crate) fn output(&self) -> String {
        let lines = self.output.lines.lock().unwrap();
        lines.kept.iter().fold(String::new(), |text, line| text + "    " + line + "\n")
    }

    /// Writes one line to the program's standard input.
    pub(crate) fn tell(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("stdin is piped");
        stdin.write_all(format!("{line}\n").as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Waits for the end, which must be a good one; returns the whole output.
    pub(crate) fn succeed(mut self) -> String {
        let status = self.wait(PATIENCE);
        let status = status.unwrap_or_else(|| {
            panic!("{}: still running after {PATIENCE:?}:\n{}", self.name, self.output())
        });
        self.close_output();
        assert!(status.success(), "{}: {status}:\n{}", self.name, self.output());
        self.output()
    }

    /// Waits for the end at most `patience`.
    pub(crate) fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends `SIGTERM` to this process alone, as an operator or Ctrl-C's service cousin does.
    pub(crate) fn terminate(&self) {
        signal("TERM", &self.child.id().to_string());
    }

    /// `SIGKILL`: the program gets no chance to close its connection.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The whole group, so that a pool's children do not outlive their parent.
    fn kill_group(&mut self) {
        signal("KILL", &format!("-{}", self.child.id()));
        let _ended = self.child.wait();
    }

    fn close_output(&mut self) {
        self.kill_group();
        for reader in self.readers.drain(..) {
            reader.join().expect("a reader does not panic");
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.close_output();
    }
}

/// Through the shell: signals are `unsafe` in Rust, and this folder stays free of it.
fn signal(name: &str, target: &str) {
    let mut kill = Command::new("sh");
    kill.args(["-c", "kill -s \"$0\" -- \"$1\"", name, target]).stderr(Stdio::null());
    // The target may have ended by itself; who waits for it sees how.
    let _sent = kill.status().expect("sh is there");
}

fn read_lines(from: impl Read + Send + 'static, output: &Arc<Output>) -> JoinHandle<()> {
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n') {
            let Ok(line) = line else { break };
            let mut lines = output.lines.lock().unwrap();
            if lines.kept.len() == LINES_MAX {
                lines.kept.pop_front();
                lines.dropped += 1;
            }
            lines.kept.push_back(String::from_utf8_lossy(&line).into_owned());
            output.changed.notify_all();
        }
        output.lines.lock().unwrap().open -= 1;
        output.changed.notify_all();
    })
}

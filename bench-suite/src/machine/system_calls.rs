//! Counts the system calls of a broker, in a run of its own: counting slows the broker down, so
//! such a run says nothing about its speed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fault::Fault;
use crate::machine::procfs;

/// The tracepoint at the entry of every system call.
const TRACEPOINT: &str = "raw_syscalls:sys_enter";

/// How long attaching to all threads may take, and how long the end may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the state of the tracer is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A program that counts system calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tracer {
    /// Counts in the kernel, which slows the broker down a little.
    Perf(PathBuf),
    /// Stops the broker twice per call, which slows it down many times over.
    Strace(PathBuf),
}

/// A running tracer. Dropping it ends it without a result.
#[derive(Debug)]
pub(crate) struct Tracing {
    tracer: Tracer,
    /// `None` once it has been waited for.
    child: Option<Child>,
}

impl Tracer {
    /// The best tracer that is installed and allowed to count.
    pub(crate) fn find() -> Option<Self> {
        Self::find_in(&std::env::var_os("PATH")?)
    }

    fn find_in(path: &OsStr) -> Option<Self> {
        let perf = executable("perf", path).filter(|perf| may_use_tracepoints(perf));
        perf.map(Self::Perf).or_else(|| executable("strace", path).map(Self::Strace))
    }

    /// Its name in a report.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Perf(_) => "perf",
            Self::Strace(_) => "strace",
        }
    }

    /// Attaches to a process, its descendants and all their threads. Counts from the return on.
    pub(crate) fn start(&self, pid: u32) -> Result<Tracing, Fault> {
        let members = procfs::members(pid)?;
        let child = self
            .command(&members)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Fault::io(format!("start {}", self.name())))?;
        let mut tracing = Tracing { tracer: self.clone(), child: Some(child) };
        tracing.wait_until_attached(&members)?;
        Ok(tracing)
    }

    fn command(&self, members: &[u32]) -> Command {
        let members = members.iter().map(ToString::to_string);
        match self {
            Self::Perf(path) => {
                let mut command = Command::new(path);
                let members: Vec<String> = members.collect();
                command.args(["stat", "-x", " ", "-e", TRACEPOINT, "-p", &members.join(",")]);
                command
            }
            Self::Strace(path) => {
                let mut command = Command::new(path);
                // Quiet, because one line for each of thousands of threads would fill the pipe.
                command.args(["-c", "-f", "-qq"]);
                for member in members {
                    command.args(["-p", &member]);
                }
                command
            }
        }
    }

    fn is_attached(&self, child: u32, members: &[u32]) -> bool {
        let threads = || members.iter().flat_map(|pid| procfs::threads(*pid).into_iter());
        match self {
            // One counter per thread. They are enabled after the last one was opened, and then perf
            // sleeps.
            Self::Perf(_) => {
                perf_counters(child) >= threads().count().max(1) && procfs::is_asleep(child)
            }
            Self::Strace(_) => threads().all(|tid| tracer_of(tid) == Some(child)),
        }
    }

    fn parse(&self, report: &str) -> Option<u64> {
        match self {
            Self::Perf(_) => parse_perf(report),
            Self::Strace(_) => parse_strace(report),
        }
    }

    fn end_signal(&self) -> Signal {
        match self {
            Self::Perf(_) => Signal::SIGINT,
            // Strace ignores SIGINT if this program was started in the background of a script.
            Self::Strace(_) => Signal::SIGTERM,
        }
    }
}

impl Tracing {
    /// Ends the tracer and returns the number of system calls, including those of processes that
    /// were started meanwhile.
    pub(crate) fn stop(mut self) -> Result<u64, Fault> {
        let name = self.tracer.name();
        let output = self.end()?;
        let report = String::from_utf8_lossy(&output.stderr);
        self.tracer.parse(&report).ok_or_else(|| {
            Fault::Process(format!("{name} counted no system calls: {}", report.trim()))
        })
    }

    fn wait_until_attached(&mut self, members: &[u32]) -> Result<(), Fault> {
        let deadline = Instant::now() + PATIENCE;
        while let Some(child) = &mut self.child {
            let has_ended = child.try_wait().map_err(Fault::io("wait for a tracer"))?.is_some();
            if !has_ended && self.tracer.is_attached(child.id(), members) {
                break;
            }
            if has_ended || Instant::now() > deadline {
                let (name, output) = (self.tracer.name(), self.end()?);
                return Err(Fault::Process(format!(
                    "{name} could not attach to process {} (may this user trace it?): {}",
                    members[0],
                    String::from_utf8_lossy(&output.stderr).trim()
                )));
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    /// Asks it to end, kills it if it does not, and returns its output.
    fn end(&mut self) -> Result<Output, Fault> {
        let mut child = self.child.take().ok_or_else(|| {
            Fault::Process(format!("{} has been stopped before", self.tracer.name()))
        })?;
        let deadline = Instant::now() + PATIENCE;
        // The process has not been waited for, so the id is still its own.
        let _ = kill(Pid::from_raw(child.id().cast_signed()), self.tracer.end_signal());
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // Fails only if it has already ended.
                let _ = child.kill();
            }
            thread::sleep(POLL_INTERVAL);
        }
        child.wait_with_output().map_err(Fault::io(format!("read from {}", self.tracer.name())))
    }
}

impl Drop for Tracing {
    /// A tracer that keeps running would slow down all later runs.
    fn drop(&mut self) {
        if self.child.is_some() {
            // Drop cannot return an error.
            let _ = self.end();
        }
    }
}

/// The first file with this name in the directories of `path`.
fn executable(name: &str, path: &OsStr) -> Option<PathBuf> {
    let candidates = std::env::split_paths(path).filter(|directory| directory.is_absolute());
    candidates.map(|directory| directory.join(name)).find(|candidate| candidate.is_file())
}

/// Tries whether perf may count at tracepoints.
fn may_use_tracepoints(perf: &Path) -> bool {
    let mut trial = Command::new(perf);
    trial.args(["stat", "-x", " ", "-e", TRACEPOINT, "true"]).env("LC_ALL", "C");
    let report = trial.stdin(Stdio::null()).output();
    report.is_ok_and(|report| {
        parse_perf(&String::from_utf8_lossy(&report.stderr)).is_some_and(|calls| calls > 0)
    })
}

/// How many counters perf has opened.
fn perf_counters(perf: u32) -> usize {
    let files = fs::read_dir(format!("/proc/{perf}/fd")).into_iter().flatten().flatten();
    let targets = files.filter_map(|file| fs::read_link(file.path()).ok());
    targets.filter(|target| target.as_os_str() == "anon_inode:[perf_event]").count()
}

fn tracer_of(tid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("TracerPid:"))?.trim().parse().ok()
}

/// Parses `COUNT  EVENT TIME SHARE`; `None` if the event was not counted.
fn parse_perf(report: &str) -> Option<u64> {
    let line = report.lines().find(|line| line.contains(TRACEPOINT))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Parses the line `100.00 SECONDS USECS CALLS [ERRORS] total`.
fn parse_strace(report: &str) -> Option<u64> {
    let mut columns = report.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    columns.find(|columns| columns.last() == Some(&"total"))?.get(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    /// Letters that `cat` copies one by one, each with a read and a write.
    const LETTERS: u64 = 300;

    fn path() -> std::ffi::OsString {
        std::env::var_os("PATH").unwrap()
    }

    fn cat() -> Child {
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }

    fn echo(cat: &mut Child, letters: u64) {
        for _ in 0..letters {
            cat.stdin.as_mut().unwrap().write_all(b"a").unwrap();
            cat.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        }
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn check(tracer: &Tracer) {
        let mut cat = cat();
        // Calls before the start do not count.
        echo(&mut cat, 3 * LETTERS);
        let tracing = tracer.start(cat.id()).unwrap();
        echo(&mut cat, LETTERS);
        let calls = tracing.stop().unwrap();
        // A read that was interrupted by attaching is repeated.
        assert!((2 * LETTERS - 1..3 * LETTERS).contains(&calls), "{calls} with {tracer:?}");
        // Dropping the tracer releases the process unharmed.
        drop(tracer.start(cat.id()).unwrap());
        echo(&mut cat, 1);
        assert_eq!(tracer_of(cat.id()), Some(0));
        end(cat);
    }

    #[test]
    fn the_best_tracer_counts_what_a_process_does() {
        if let Some(tracer) = Tracer::find() {
            check(&tracer);
        } else {
            assert_eq!(executable("strace", &path()), None);
        }
    }

    #[test]
    fn strace_counts_what_a_process_does() {
        if let Some(strace) = executable("strace", &path()) {
            check(&Tracer::Strace(strace));
        } else {
            assert!(!matches!(Tracer::find(), Some(Tracer::Strace(_))));
        }
    }

    #[test]
    fn without_programs_there_is_no_tracer() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(Tracer::find_in(empty.path().as_os_str()), None);
        assert_eq!(Tracer::find_in(OsStr::new("")), None);
    }

    #[test]
    fn a_process_that_is_gone_is_a_fault() {
        let mut gone = Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        let tracer = Tracer::Perf(PathBuf::from("perf"));
        assert!(matches!(tracer.start(gone.id()).unwrap_err(), Fault::Process(_)));
    }

    #[test]
    fn a_tracer_that_gives_up_is_a_fault() {
        let cat = cat();
        let fault = Tracer::Strace(PathBuf::from("false")).start(cat.id()).unwrap_err();
        assert!(fault.to_string().contains("could not attach"), "{fault}");
        let missing = Tracer::Strace(PathBuf::from("no-such-program")).start(cat.id());
        assert!(missing.unwrap_err().to_string().contains("start strace"));
        end(cat);
    }

    #[test]
    fn reports_are_read() {
        assert_eq!(parse_perf("29  raw_syscalls:sys_enter 574304 100.00  \n"), Some(29));
        assert_eq!(parse_perf("<not counted>  raw_syscalls:sys_enter 0 0.00\n"), None);
        assert_eq!(parse_perf("event syntax error"), None);
        let head = "% time  seconds  usecs/call  calls  errors syscall\n";
        let total = |line: &str| parse_strace(&format!("{head}{line}\n"));
        assert_eq!(total("100.00 0.000014 0 29 1 total"), Some(29));
        assert_eq!(total("100.00 0.000014 0 29 total"), Some(29));
        assert_eq!(total("100.00 0.000014 0 29 write"), None);
    }
}

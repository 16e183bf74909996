//! Facts from Linux about processes and the machine: processor time, resident memory, limits.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use core_affinity::CoreId;
use nix::time::ClockId;

use crate::fault::Fault;

/// Ticks of `/proc/PID/stat` per second: `USER_HZ`, which is 100 on every current Linux, whatever
/// the internal tick of the kernel is.
const TICKS_PER_S: f64 = 100.0;

/// The clocks of processes and threads in the kernel's numbering: the inverted id, shifted by three
/// bits, then 2 for "processor time in nanoseconds" and 4 for "of one thread".
const CLOCK_OF_PROCESS: i32 = 2;
const CLOCK_OF_THREAD: i32 = 2 | 4;

/// The longest reported command line in octets; that of RabbitMQ has about 2 KiB.
const COMMAND_SIZE_MAX: usize = 8 << 10;

/// The endings of the names of arguments whose value is a secret, such as the cookie of Erlang.
const SECRETS: [&str; 4] = ["password", "cookie", "secret", "token"];

/// Descriptors of the load client besides its connections.
const DESCRIPTORS_RESERVED: u64 = 64;

/// The fields of a line of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Processor time in user and kernel, of all threads, in ticks.
    own_ticks: u64,
    /// The same for children that have ended.
    ended_ticks: u64,
}

/// Processor time of a process and its descendants, in seconds.
///
/// A living process is read from its clock, which counts nanoseconds and includes threads that have
/// ended. A sum over threads would lose those, and ticks of 10 ms are too coarse for a short
/// window. Only descendants that have ended are counted in ticks, with an error of at most one tick
/// each.
pub(crate) fn cpu_s(pid: u32) -> Result<f64, Fault> {
    let stats = stats()?;
    let seconds = |ticks: u64| ticks as f64 / TICKS_PER_S;
    // The clock of a process that has just ended fails, or shows less than its ticks.
    let own = |pid, stat: &Stat| {
        let clock_s = read_clock_s(pid, CLOCK_OF_PROCESS).unwrap_or(0.0);
        clock_s.max(seconds(stat.own_ticks)) + seconds(stat.ended_ticks)
    };
    Ok(tree(pid, &stats)?.iter().map(|pid| own(*pid, &stats[pid])).sum())
}

/// Processor time of one thread of this process, in seconds.
pub(crate) fn thread_cpu_s(tid: u32) -> Result<f64, Fault> {
    read_clock_s(tid, CLOCK_OF_THREAD)
        .ok_or_else(|| Fault::Process(format!("there is no load thread {tid}: it ended or failed")))
}

/// The kernel's number of this thread, for [`thread_cpu_s`].
pub(crate) fn current_tid() -> Result<u32, Fault> {
    let link = fs::read_link("/proc/thread-self").map_err(Fault::io("read /proc/thread-self"))?;
    let tid = link.file_name().and_then(|name| name.to_str()?.parse().ok());
    tid.ok_or_else(|| Fault::Process("/proc/thread-self names no thread".to_owned()))
}

/// Resident memory of a process and its descendants, in bytes. Pages that they share count for
/// each of them.
pub(crate) fn rss_bytes(pid: u32) -> Result<u64, Fault> {
    rss_bytes_of(&members(pid)?)
}

/// Resident memory of the processes that [`members`] found, the root first, in bytes: far cheaper
/// than [`rss_bytes`], which looks at every process of the machine.
pub(crate) fn rss_bytes_of(members: &[u32]) -> Result<u64, Fault> {
    let mut bytes = 0;
    for (index, member) in members.iter().enumerate() {
        // A descendant that ended meanwhile has no memory.
        match fs::read_to_string(format!("/proc/{member}/status")) {
            Ok(status) => bytes += parse_rss_bytes(&status).unwrap_or(0),
            Err(_) if index == 0 => {
                return Err(Fault::Process(format!("process {member} of the broker has ended")));
            }
            Err(_) => {}
        }
    }
    Ok(bytes)
}

/// A process and its descendants; the process comes first.
pub(crate) fn members(pid: u32) -> Result<Vec<u32>, Fault> {
    let descendants = tree(pid, &stats()?)?.into_iter().filter(|member| *member != pid);
    Ok(std::iter::once(pid).chain(descendants).collect())
}

/// The threads of a process; empty if it has ended.
pub(crate) fn threads(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The command line of a process, with arguments separated by spaces and without passwords and
/// other secrets, because it is part of reports. `None` if it cannot be read.
pub(crate) fn command_line(pid: u32) -> Option<String> {
    let octets = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let text = String::from_utf8_lossy(&octets);
    let command = join_arguments(text.trim_end_matches('\0').split('\0'));
    (!command.is_empty()).then_some(command)
}

/// The cores that a process may run on, in the kernel's notation, for example `0` or `0-3`.
pub(crate) fn allowed_cores(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    field(&status, "Cpus_allowed_list:").unwrap_or("?").to_owned()
}

/// Binds this thread to a core, if one is given.
pub(crate) fn pin(core: Option<&usize>) -> Result<(), Fault> {
    match core {
        Some(&id) if !core_affinity::set_for_current(CoreId { id }) => {
            Err(Fault::Machine(format!("this process may not run on core {id}")))
        }
        _ => Ok(()),
    }
}

/// Whether this process may open `connections` sockets.
pub(crate) fn check_open_files(connections: u32) -> Result<(), Fault> {
    let limits = fs::read_to_string("/proc/self/limits").map_err(Fault::io("read limits"))?;
    let needed = u64::from(connections) + DESCRIPTORS_RESERVED;
    match parse_open_files_max(&limits) {
        Some(max) if max < needed => Err(Fault::Machine(format!(
            "{connections} connections need an open files limit of {needed}, but it is {max}: \
             raise it (ulimit -n), also for the brokers, or lower the scenario's number"
        ))),
        _ => Ok(()),
    }
}

fn stats() -> Result<BTreeMap<u32, Stat>, Fault> {
    let entries = fs::read_dir("/proc").map_err(Fault::io("list /proc"))?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // Processes that end meanwhile are skipped.
    let stat = |pid| parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?);
    Ok(pids.filter_map(|pid: u32| Some((pid, stat(pid)?))).collect())
}

/// A process and its descendants.
fn tree(root: u32, stats: &BTreeMap<u32, Stat>) -> Result<BTreeSet<u32>, Fault> {
    if !stats.contains_key(&root) {
        return Err(Fault::Process(format!("there is no process {root}")));
    }
    let mut members = BTreeSet::from([root]);
    loop {
        // A parent may have a higher id than its child, so this repeats until nothing is found.
        let before = members.len();
        for (pid, stat) in stats {
            if members.contains(&stat.parent) {
                members.insert(*pid);
            }
        }
        if members.len() == before {
            return Ok(members);
        }
    }
}

/// Whether a process is in an interruptible sleep.
pub(crate) fn is_asleep(pid: u32) -> bool {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    line.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('S'))
}

/// Parses `pid (name) state ppid … utime stime cutime cstime …`; the name may contain spaces and
/// parentheses.
fn parse_stat(line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own_ticks: ticks(11)? + ticks(12)?,
        ended_ticks: ticks(13)? + ticks(14)?,
    })
}

fn parse_rss_bytes(status: &str) -> Option<u64> {
    let kib: u64 = field(status, "VmRSS:")?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

fn parse_open_files_max(limits: &str) -> Option<u64> {
    field(limits, "Max open files")?.split_whitespace().next()?.parse().ok()
}

/// `None` if there is no such process or thread.
fn read_clock_s(id: u32, kind: i32) -> Option<f64> {
    let id = i32::try_from(id).ok()?;
    let time = ClockId::from_raw((!id << 3) | kind).now().ok()?;
    Some(Duration::from(time).as_secs_f64())
}

fn join_arguments<'a>(arguments: impl Iterator<Item = &'a str>) -> String {
    let mut command = String::new();
    let mut is_secret = false;
    for argument in arguments {
        if !command.is_empty() {
            command.push(' ');
        }
        let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
        let names_secret = SECRETS.iter().any(|end| name.to_ascii_lowercase().ends_with(end));
        if is_secret {
            command.push_str("***");
        } else if names_secret && !value.is_empty() {
            command.push_str(name);
            command.push_str("=***");
        } else {
            command.push_str(&without_password(argument));
        }
        is_secret = names_secret && value.is_empty() && name.starts_with('-');
    }
    if command.len() > COMMAND_SIZE_MAX {
        command.truncate(command.floor_char_boundary(COMMAND_SIZE_MAX));
        command.push('…');
    }
    command
}

/// Replaces the password of each `scheme://user:password@host`.
fn without_password(argument: &str) -> String {
    let mut parts = argument.split("://");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str("://");
        let authority = part.split(['/', '?', '#', ' ', ',', '"']).next().unwrap_or_default();
        let user_info = authority.rsplit_once('@').map(|(user_info, _)| user_info);
        match user_info.and_then(|user_info| Some((user_info, user_info.split_once(':')?))) {
            Some((user_info, (user, _))) => {
                text.push_str(user);
                text.push_str(":***");
                text.push_str(&part[user_info.len()..]);
            }
            None => text.push_str(part),
        }
    }
    text
}

fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn stat_lines_are_read_behind_the_name() {
        let line = "42 (a) b (c) S 7 42 42 0 -1 4194304 1 2 3 4 100 20 3 4 20 0 9 0 1";
        assert_eq!(parse_stat(line), Some(Stat { parent: 7, own_ticks: 120, ended_ticks: 7 }));
        assert_eq!(parse_stat("42 (short) S 7 42"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn status_and_limits_are_read() {
        let status = "Name:\tbeam.smp\nVmRSS:\t  123 kB\nCpus_allowed_list:\t0-1\n";
        assert_eq!(parse_rss_bytes(status), Some(123 << 10));
        assert_eq!(parse_rss_bytes("Name:\tkthreadd\n"), None);
        let limits = "Limit  Soft Limit  Hard Limit\nMax open files   1024   4096   files\n";
        assert_eq!(parse_open_files_max(limits), Some(1024));
    }

    #[test]
    fn a_tree_is_a_process_and_all_below() {
        let stat = |parent| Stat { parent, own_ticks: 1, ended_ticks: 0 };
        let stats = [(1, stat(0)), (5, stat(9)), (9, stat(1)), (7, stat(5)), (8, stat(1))].into();
        assert_eq!(tree(9, &stats).unwrap(), [5, 7, 9].into());
        assert!(tree(2, &stats).is_err());
    }

    #[test]
    fn this_process_and_its_child_are_measured() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let own = std::process::id();
        assert!(tree(own, &stats().unwrap()).unwrap().contains(&child.id()));
        let child_bytes = rss_bytes(child.id()).unwrap();
        assert!(child_bytes > 0 && rss_bytes(own).unwrap() > child_bytes);
        let before = cpu_s(own).unwrap();
        let mut sum = 0_u64;
        while cpu_s(own).unwrap() < before + 0.05 {
            sum = black_box(sum + 1);
        }
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(!allowed_cores(own).is_empty());
    }

    #[test]
    fn a_thread_that_works_is_told_from_one_that_sleeps() {
        /// Twenty ticks.
        const WORK_S: f64 = 0.2;
        let process_before_s = cpu_s(std::process::id()).unwrap();
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let (tid_sender, sleeper_tid) = std::sync::mpsc::channel();
        let sleeper = std::thread::spawn(move || {
            tid_sender.send(current_tid().unwrap()).unwrap();
            wait.recv().unwrap_err();
        });
        let sleeper_tid = sleeper_tid.recv().unwrap();
        let worker = std::thread::spawn(|| {
            let tid = current_tid().unwrap();
            while thread_cpu_s(tid).unwrap() < WORK_S {}
            thread_cpu_s(tid).unwrap()
        });
        let worked_s = worker.join().unwrap();
        assert!(thread_cpu_s(sleeper_tid).unwrap() < worked_s);
        assert!(threads(std::process::id()).contains(&sleeper_tid));
        drop(done);
        sleeper.join().unwrap();
        // The time of ended threads is still part of the process. Children of other tests that end
        // meanwhile may take a tick each with them.
        assert!(cpu_s(std::process::id()).unwrap() >= process_before_s + worked_s / 2.0);
        assert!(thread_cpu_s(4_000_000).is_err() && thread_cpu_s(u32::MAX).is_err());
    }

    #[test]
    fn processor_time_has_finer_steps_than_ticks_and_never_goes_back() {
        // A process without ended children, because their time is only counted in ticks.
        let mut busy = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let (mut before_s, mut has_fine_step) = (cpu_s(busy.id()).unwrap(), false);
        while !has_fine_step {
            let now_s = cpu_s(busy.id()).unwrap();
            assert!(now_s >= before_s, "{now_s} after {before_s}");
            has_fine_step = now_s > before_s && now_s - before_s < 1.0 / TICKS_PER_S;
            before_s = now_s;
        }
        busy.kill().unwrap();
        busy.wait().unwrap();
    }

    #[test]
    fn the_memory_of_a_process_that_ended_is_not_zero() {
        let mut child = Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(rss_bytes_of(&[child.id()]).unwrap_err().to_string().contains("has ended"));
        assert!(members(child.id()).is_err() && threads(child.id()).is_empty());
    }

    #[test]
    fn command_lines_have_no_secrets() {
        let join = |arguments: &[&str]| join_arguments(arguments.iter().copied());
        for (arguments, expected) in [
            (&["a", "--uri", "amqp://me:pw@host:1/v"][..], "a --uri amqp://me:***@host:1/v"),
            (&["--uri=amqp://me:p@w@h,amqp://b:c@d"], "--uri=amqp://me:***@h,amqp://b:***@d"),
            (&["http://host:80/a@b", "amqp://me@h"], "http://host:80/a@b amqp://me@h"),
            (&["erl", "-setcookie", "hush", "-x"], "erl -setcookie *** -x"),
            (&["--password=pw", "--shards", "1"], "--password=*** --shards 1"),
            (&["https://a.example/password", "b"], "https://a.example/password b"),
        ] {
            assert_eq!(join(arguments), expected);
        }
        let long = join(&["é".repeat(COMMAND_SIZE_MAX).as_str()]);
        assert!(long.len() <= COMMAND_SIZE_MAX + '…'.len_utf8() && long.ends_with('…'));
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        // The kernel shows it only a moment after the start.
        let command = loop {
            match command_line(child.id()) {
                Some(command) => break command,
                None => std::thread::yield_now(),
            }
        };
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(command, "sleep 600");
        assert_eq!(command_line(child.id()), None);
    }

    #[test]
    fn more_connections_than_descriptors_are_refused() {
        assert!(check_open_files(10).is_ok());
        let refusal = check_open_files(4_000_000_000).map_err(|fault| fault.to_string());
        assert!(refusal.is_ok() || refusal.unwrap_err().contains("ulimit -n"));
    }
}

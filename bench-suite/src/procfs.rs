//! What Linux says about processes and the machine: processor time, resident memory, limits.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use core_affinity::CoreId;

use crate::fault::Fault;

/// Ticks of `/proc/PID/stat` per second: `USER_HZ`, which is 100 on every Linux of today, whatever
/// the kernel's own tick.
const TICKS_PER_S: f64 = 100.0;

/// Descriptors of the load client that are not connections.
const DESCRIPTORS_RESERVED: u64 = 64;

/// What one line of `/proc/PID/stat` says.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Processor time in user and kernel, of all threads and of children that ended, in ticks.
    cpu_ticks: u64,
}

/// Processor time of a process and its descendants, in seconds.
pub(crate) fn cpu_s(pid: u32) -> Result<f64, Fault> {
    let stats = stats()?;
    let ticks: u64 = tree(pid, &stats)?.iter().map(|pid| stats[pid].cpu_ticks).sum();
    Ok(ticks as f64 / TICKS_PER_S)
}

/// Resident memory of a process and its descendants, in bytes. Pages that they share count for
/// each of them.
pub(crate) fn rss_bytes(pid: u32) -> Result<u64, Fault> {
    let mut bytes = 0;
    for member in tree(pid, &stats()?)? {
        // A descendant that ended meanwhile has no memory.
        match fs::read_to_string(format!("/proc/{member}/status")) {
            Ok(status) => bytes += parse_rss_bytes(&status).unwrap_or(0),
            Err(error) if member == pid => return Err(Fault::io(format!("read {pid}"))(error)),
            Err(_) => {}
        }
    }
    Ok(bytes)
}

/// The cores that a process may run on, as the kernel writes them, for example `0` or `0-3`.
pub(crate) fn allowed_cores(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    field(&status, "Cpus_allowed_list:").unwrap_or("?").to_owned()
}

/// Processor, cores, kernel and load of this machine, in one line.
pub(crate) fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = read("/proc/cpuinfo");
    let model = processors
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(|line| line.split(": ").nth(1))
        .unwrap_or("unknown processor")
        .to_owned();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let load = read("/proc/loadavg");
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    format!(
        "{model}, {cores} cores allowed, Linux {}, load average before the first run {}",
        read("/proc/sys/kernel/osrelease").trim(),
        load.join(" ")
    )
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
             raise it (ulimit -n), also for the brokers, or lower --connections"
        ))),
        _ => Ok(()),
    }
}

fn stats() -> Result<BTreeMap<u32, Stat>, Fault> {
    let entries = fs::read_dir("/proc").map_err(Fault::io("list /proc"))?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // Processes that end meanwhile are left out.
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
        // A parent may have a higher number than its child: repeat until nobody is found.
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

/// Reads `pid (name) state ppid … utime stime cutime cstime …`; the name may have spaces and
/// parentheses.
fn parse_stat(line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        cpu_ticks: ticks(11)? + ticks(12)? + ticks(13)? + ticks(14)?,
    })
}

fn parse_rss_bytes(status: &str) -> Option<u64> {
    let kib: u64 = field(status, "VmRSS:")?.strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

fn parse_open_files_max(limits: &str) -> Option<u64> {
    field(limits, "Max open files")?.split_whitespace().next()?.parse().ok()
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
        assert_eq!(parse_stat(line), Some(Stat { parent: 7, cpu_ticks: 127 }));
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
        let stat = |parent| Stat { parent, cpu_ticks: 1 };
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
        assert!(!allowed_cores(own).is_empty() && machine().contains("Linux"));
    }

    #[test]
    fn more_connections_than_descriptors_are_refused() {
        assert!(check_open_files(10).is_ok());
        let refusal = check_open_files(4_000_000_000).map_err(|fault| fault.to_string());
        assert!(refusal.is_ok() || refusal.unwrap_err().contains("ulimit -n"));
    }
}

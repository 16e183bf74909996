//! The machine of a measurement, as recorded with the results, and what may make the results
//! doubtful.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::fault::Fault;
use crate::machine::procfs;
use crate::results::{Environment, Subject};

/// How long git may take: a large working directory on a cold disk needs seconds.
const GIT_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of git's output is read: one changed file is enough.
const GIT_ANSWER_SIZE_MAX: u64 = 4 << 10;

/// The load per core above which other processes disturb the measurement.
const LOAD_PER_CORE_MAX: f64 = 0.5;

/// Collects the description. `load_cores` are those of the load threads; empty if they are not
/// pinned.
pub(crate) fn environment(load_cores: &[usize]) -> Environment {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Environment {
        started_unix_s: since_1970.as_secs(),
        cpu_model: parse_cpu_model(&read("/proc/cpuinfo")),
        cores_online: cores_online().len(),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        memory_total_bytes: parse_memory_total_bytes(&read("/proc/meminfo")).unwrap_or(0),
        governor: fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
            .ok()
            .map(|governor| governor.trim().to_owned()),
        commit: commit(),
        load_average: parse_load_average(&read("/proc/loadavg")).unwrap_or_default(),
        load_cores: load_cores.to_vec(),
    }
}

/// Reasons to doubt figures from this machine, one sentence each. `subjects` are the measured
/// subjects.
pub(crate) fn warnings(environment: &Environment, subjects: &[Subject]) -> Vec<String> {
    let mut warnings = Vec::new();
    let (cores, load) = (environment.cores_online, environment.load_average[0]);
    if cores < 2 {
        warnings.push("there is only one core: broker and load take it from each other".to_owned());
    }
    if load > LOAD_PER_CORE_MAX * cores as f64 {
        warnings.push(format!(
            "the load average was {load} on {cores} cores before the first run: something else is \
             working here, stop it or trust only the ratios"
        ));
    }
    if let Some(governor) = environment.governor.as_deref().filter(|name| *name != "performance") {
        warnings.push(format!(
            "the scaling governor is `{governor}`: the clock of the cores changes with the load; \
             set `performance`"
        ));
    }
    for subject in subjects {
        let broker_cores = parse_cores(subject.cores.as_deref().unwrap_or_default());
        let shared = environment.load_cores.iter().filter(|core| broker_cores.contains(core));
        let shared: Vec<String> = shared.map(ToString::to_string).collect();
        if !shared.is_empty() {
            warnings.push(format!(
                "{} may run on core {}, where the load runs: they slow each other down; pin it \
                 elsewhere (taskset -c)",
                subject.name,
                shared.join(" and ")
            ));
        }
    }
    warnings
}

/// Whether the load threads may run on `load_cores`.
pub(crate) fn check_cores(load_cores: &[usize]) -> Result<(), Fault> {
    let allowed = parse_cores(&procfs::allowed_cores(std::process::id()));
    check_among(load_cores, &cores_online(), &allowed).map_err(Fault::Machine)
}

fn check_among(
    load_cores: &[usize],
    online: &BTreeSet<usize>,
    allowed: &BTreeSet<usize>,
) -> Result<(), String> {
    let list = |cores: &BTreeSet<usize>| {
        cores.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    };
    for (index, core) in load_cores.iter().enumerate() {
        if !online.contains(core) {
            return Err(format!(
                "core {core} was asked for the load, but this machine has {} cores: {}",
                online.len(),
                list(online)
            ));
        }
        if !allowed.contains(core) {
            return Err(format!(
                "core {core} was asked for the load, but this process may only run on: {} (it was \
                 started with taskset, or in a container with a cpuset)",
                list(allowed)
            ));
        }
        if load_cores[..index].contains(core) {
            return Err(format!("core {core} was asked for the load twice; name each core once"));
        }
    }
    Ok(())
}

fn cores_online() -> BTreeSet<usize> {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let cores = parse_cores(online.trim());
    if cores.is_empty() {
        // A sandbox may hide /sys; then only the cores that this process may use are known.
        return parse_cores(&procfs::allowed_cores(std::process::id()));
    }
    cores
}

/// The cores in the kernel's notation, for example `0-2,8`; empty if the text is invalid.
fn parse_cores(list: &str) -> BTreeSet<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

fn parse_cpu_model(cpuinfo: &str) -> String {
    // ARM kernels give only the number of the part, not a name.
    let value = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let part = || value("CPU part").map(|part| format!("CPU part {part}"));
    value("model name").or_else(part).unwrap_or_else(|| "unknown processor".to_owned())
}

fn parse_memory_total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

fn parse_load_average(loadavg: &str) -> Option<[f64; 3]> {
    let mut averages = loadavg.split_whitespace().map(str::parse);
    let mut next = || averages.next()?.ok();
    Some([next()?, next()?, next()?])
}

/// The revision of the working directory, with `+` if there are changes; `None` without git or a
/// repository.
fn commit() -> Option<String> {
    let revision = ask_git(&["rev-parse", "--short", "HEAD"])?;
    let changes = ask_git(&["status", "--porcelain"])?;
    let mark = if changes.is_empty() { "" } else { "+" };
    Some(format!("{}{mark}", revision.trim()))
}

fn ask_git(arguments: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    // Git must neither ask for input nor write to the repository.
    git.args(arguments).env("GIT_TERMINAL_PROMPT", "0").env("GIT_OPTIONAL_LOCKS", "0");
    answer_within(&mut git, GIT_TIMEOUT)
}

/// The start of a program's output, if it succeeds in time.
fn answer_within(command: &mut Command, timeout: Duration) -> Option<String> {
    let deadline = Instant::now() + timeout;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let mut stdout = child.stdout.take()?;
    let (answer, answers) = mpsc::channel();
    // A pipe has no read timeout, so this thread waits for it. It ends with the program.
    thread::spawn(move || {
        let mut text = Vec::new();
        let read = stdout.by_ref().take(GIT_ANSWER_SIZE_MAX).read_to_end(&mut text);
        // The program must be able to write the rest, or it would never end.
        let rest = std::io::copy(&mut stdout, &mut std::io::sink());
        // Fails after the timeout, when the result is no longer needed.
        let _ = answer.send(read.and(rest).ok().map(|_| text));
    });
    let text = answers.recv_timeout(timeout).ok().flatten();
    let has_succeeded = end_by(&mut child, deadline);
    let text = text.filter(|_| has_succeeded)?;
    String::from_utf8(text).ok()
}

/// Waits until a child ends, and kills it at the deadline. Returns whether it succeeded.
fn end_by(child: &mut Child, deadline: Instant) -> bool {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
            _ => {
                // If it cannot be killed, it has already ended.
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calm() -> Environment {
        Environment {
            started_unix_s: 1,
            cpu_model: "a processor".to_owned(),
            cores_online: 4,
            kernel: "6.1".to_owned(),
            memory_total_bytes: 1 << 30,
            governor: Some("performance".to_owned()),
            commit: None,
            load_average: [0.5, 4.0, 4.0],
            load_cores: vec![1, 2],
        }
    }

    fn subject(cores: Option<&str>) -> Subject {
        Subject {
            name: "leveret".to_owned(),
            is_floor: false,
            product: "Leveret".to_owned(),
            address: "127.0.0.1:5672".to_owned(),
            pid: Some(1),
            cores: cores.map(str::to_owned),
            command: None,
            rss_bytes: None,
        }
    }

    #[test]
    fn this_machine_is_described() {
        let environment = environment(&[0]);
        assert!(environment.started_unix_s > 1_700_000_000);
        assert!(environment.cores_online > 0 && environment.memory_total_bytes > 1 << 20);
        assert!(!environment.kernel.is_empty() && !environment.cpu_model.is_empty());
        assert_eq!(environment.load_cores, [0]);
        assert!(environment.commit.is_none_or(|commit| commit.len() >= 4));
    }

    #[test]
    fn a_calm_machine_gives_no_warning() {
        let subjects = [subject(Some("0,3")), subject(None), subject(Some("?"))];
        assert_eq!(warnings(&calm(), &subjects), [""; 0]);
        assert_eq!(warnings(&Environment { governor: None, ..calm() }, &[]), [""; 0]);
    }

    #[test]
    fn what_disturbs_is_named() {
        let busy = Environment { load_average: [2.1, 0.0, 0.0], ..calm() };
        let saving = Environment { governor: Some("powersave".to_owned()), ..calm() };
        let small = Environment { cores_online: 1, load_average: [0.0; 3], ..calm() };
        for (environment, expected) in
            [(busy, "load average was 2.1"), (saving, "`powersave`"), (small, "only one core")]
        {
            let warnings = warnings(&environment, &[]);
            assert!(warnings.len() == 1 && warnings[0].contains(expected), "{warnings:?}");
        }
        let shared = warnings(&calm(), &[subject(Some("0-1")), subject(Some("0-3"))]);
        assert!(shared[0].contains("leveret may run on core 1,"), "{shared:?}");
        assert!(shared[1].contains("core 1 and 2,"), "{shared:?}");
    }

    #[test]
    fn cores_that_are_not_there_or_not_allowed_are_refused() {
        let (online, allowed) = (parse_cores("0-3"), parse_cores("1,3"));
        let check = |cores: &[usize]| check_among(cores, &online, &allowed);
        assert_eq!(check(&[3, 1]), Ok(()));
        assert_eq!(check(&[]), Ok(()));
        assert!(check(&[1, 4]).unwrap_err().contains("core 4 was asked for the load, but this"));
        assert!(check(&[2]).unwrap_err().contains("may only run on: 1, 3 "));
        assert!(check(&[1, 1]).unwrap_err().contains("core 1 was asked for the load twice"));
        assert!(check_cores(&[1_000_000]).unwrap_err().to_string().contains("core 1000000"));
        let own = cores_online().into_iter().find(|core| check_cores(&[*core]).is_ok());
        assert!(own.is_some());
    }

    #[test]
    fn lists_of_cores_are_read() {
        assert_eq!(parse_cores("0-2,8"), [0, 1, 2, 8].into());
        assert_eq!(parse_cores("5"), [5].into());
        assert_eq!(parse_cores("?"), [].into());
        assert_eq!(parse_cores(""), [].into());
    }

    #[test]
    fn files_of_the_kernel_are_read() {
        assert_eq!(parse_cpu_model("model name\t: Fast One\nmodel name\t: Other"), "Fast One");
        assert_eq!(parse_cpu_model("CPU part\t: 0xd0c\n"), "CPU part 0xd0c");
        assert_eq!(parse_cpu_model(""), "unknown processor");
        assert_eq!(parse_memory_total_bytes("MemTotal:    2048 kB\nMemFree: 1 kB"), Some(2 << 20));
        assert_eq!(parse_memory_total_bytes("MemFree: 1 kB"), None);
        assert_eq!(parse_load_average("0.38 0.47 0.96 1/92 2341"), Some([0.38, 0.47, 0.96]));
        assert_eq!(parse_load_average("0.38"), None);
    }

    #[test]
    fn a_program_that_hangs_or_fails_has_no_answer() {
        let ask = |program: &str, argument: &str, timeout| {
            answer_within(Command::new(program).arg(argument), timeout)
        };
        let minute = Duration::from_mins(1);
        assert_eq!(ask("echo", "yes", minute).as_deref(), Some("yes\n"));
        assert_eq!(ask("sleep", "600", Duration::from_millis(20)), None);
        assert_eq!(ask("false", "", minute), None);
        assert_eq!(ask("no-such-program", "", minute), None);
        // More than a pipe holds: the program still ends.
        let long = answer_within(Command::new("seq").arg("100000"), minute).unwrap();
        assert_eq!(long.len() as u64, GIT_ANSWER_SIZE_MAX);
    }
}

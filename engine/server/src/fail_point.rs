//! Kills the process or fails disk operations at chosen points, for crash tests. Only with the
//! feature `fail-points`; without it every function here does nothing.
//!
//! | variable | entry | what happens |
//! |---|---|---|
//! | `LEVERET_FAIL_POINT` | `NAME` or `NAME:N` | SIGKILL at the N-th arrival there (default 1st) |
//! | `LEVERET_FAIL_DISK` | `SITE:N:ERROR` | the N-th operation of the kind fails |
//! | `LEVERET_SLOW_DISK` | `MIN_MS..MAX_MS` | every commit is reported late |
//! | | `STALL_MS@N` | the N-th commit is |
//!
//! Several entries are separated by commas. Sites: `commit`, `prepare` (by pieces of 1 MiB),
//! `read`, `rename`, `open`. Errors: `EIO`, `ENOSPC`, and for commits `short`.

#[cfg(feature = "fail-points")]
pub(crate) use armed::{check, commit_delay_ns, fault, reach};
#[cfg(not(feature = "fail-points"))]
pub(crate) use unarmed::{check, commit_delay_ns, fault, reach};

use std::io;

use nix::errno::Errno;

/// A disk operation that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    Commit,
    Prepare,
    Read,
    Rename,
    Open,
}

/// How the operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "fail-points"), expect(dead_code, reason = "never made"))]
pub(crate) enum Fault {
    Error(Errno),
    /// Only a part of the bytes is written.
    Short,
}

impl Fault {
    /// The error that the operating system would return.
    pub(crate) fn error(self) -> io::Error {
        match self {
            Self::Error(errno) => errno.into(),
            Self::Short => io::ErrorKind::WriteZero.into(),
        }
    }
}

#[cfg(not(feature = "fail-points"))]
mod unarmed {
    use super::{Fault, Site};

    /// Ends the process if one of the variables cannot be parsed.
    #[inline(always)]
    pub(crate) fn check() {}

    /// A named point at which a test may kill the process.
    #[inline(always)]
    pub(crate) fn reach(_name: &'static str) {}

    /// The fault that this operation has to report, if any.
    #[inline(always)]
    pub(crate) fn fault(_site: Site) -> Option<Fault> {
        None
    }

    /// How much later than it happened this commit is reported.
    #[inline(always)]
    pub(crate) fn commit_delay_ns() -> u64 {
        0
    }
}

#[cfg(feature = "fail-points")]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use nix::errno::Errno;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::{Fault, Site};

    static KILL_POINTS: LazyLock<Vec<KillPoint>> =
        LazyLock::new(|| from_env("LEVERET_FAIL_POINT", kill_point));
    static DISK_FAULTS: LazyLock<Vec<DiskFault>> =
        LazyLock::new(|| from_env("LEVERET_FAIL_DISK", disk_fault));
    static DELAYS: LazyLock<Vec<Delay>> = LazyLock::new(|| from_env("LEVERET_SLOW_DISK", delay));
    static COMMITS: AtomicU64 = AtomicU64::new(0);

    /// Ends the process if one of the variables cannot be parsed.
    pub(crate) fn check() {
        LazyLock::force(&KILL_POINTS);
        LazyLock::force(&DISK_FAULTS);
        LazyLock::force(&DELAYS);
    }

    /// A named point at which a test may kill the process.
    pub(crate) fn reach(name: &'static str) {
        let here =
            |kill_point: &&KillPoint| kill_point.name == name && kill_point.countdown.is_over();
        if KILL_POINTS.iter().any(|kill_point| here(&kill_point)) {
            let _ = kill(Pid::this(), Signal::SIGKILL);
            // The signal may be handled by another thread first. This one must not go on.
            loop {
                std::thread::park();
            }
        }
    }

    /// The fault that this operation has to report, if any.
    pub(crate) fn fault(site: Site) -> Option<Fault> {
        let mut here = DISK_FAULTS.iter().filter(|disk_fault| disk_fault.site == site);
        here.find_map(|disk_fault| disk_fault.countdown.is_over().then_some(disk_fault.fault))
    }

    /// How much later than it happened this commit is reported.
    pub(crate) fn commit_delay_ns() -> u64 {
        let commit = COMMITS.fetch_add(1, Ordering::Relaxed) + 1;
        let delays = DELAYS.iter().map(|delay| delay.of_commit(commit));
        delays.max().unwrap_or_default() * 1_000_000
    }

    /// True exactly once, on the N-th call.
    #[derive(Debug)]
    struct Countdown {
        at: u64,
        seen: AtomicU64,
    }

    impl Countdown {
        fn is_over(&self) -> bool {
            self.seen.fetch_add(1, Ordering::Relaxed) + 1 == self.at
        }
    }

    struct KillPoint {
        name: String,
        countdown: Countdown,
    }

    #[derive(Debug)]
    struct DiskFault {
        site: Site,
        fault: Fault,
        countdown: Countdown,
    }

    #[derive(Debug, PartialEq, Eq)]
    enum Delay {
        Between { min_ms: u64, max_ms: u64 },
        Stall { stall_ms: u64, at: u64 },
    }

    impl Delay {
        fn of_commit(&self, commit: u64) -> u64 {
            match *self {
                Self::Stall { stall_ms, at } => u64::from(commit == at) * stall_ms,
                Self::Between { min_ms, max_ms } => {
                    // One step of splitmix64: the same delays in every run.
                    let mut mixed = commit.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                    min_ms + (mixed ^ (mixed >> 27)) % (max_ms - min_ms + 1)
                }
            }
        }
    }

    /// The entries of a variable. A mistake ends the process, so that no test passes because its
    /// fault was never injected.
    fn from_env<T>(variable: &str, parse: fn(&str) -> Option<T>) -> Vec<T> {
        let text = std::env::var(variable).unwrap_or_default();
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let parsed = entries.map(|entry| {
            parse(entry).unwrap_or_else(|| {
                eprintln!("leveret: {variable}: cannot read `{entry}`");
                std::process::exit(2)
            })
        });
        parsed.collect()
    }

    fn countdown(at: &str) -> Option<Countdown> {
        let at = at.parse().ok().filter(|at| *at > 0)?;
        Some(Countdown { at, seen: AtomicU64::new(0) })
    }

    fn kill_point(entry: &str) -> Option<KillPoint> {
        let (name, at) = entry.split_once(':').unwrap_or((entry, "1"));
        Some(KillPoint { name: name.to_owned(), countdown: countdown(at)? })
    }

    fn disk_fault(entry: &str) -> Option<DiskFault> {
        let mut parts = entry.split(':');
        let site = match parts.next()? {
            "commit" => Site::Commit,
            "prepare" => Site::Prepare,
            "read" => Site::Read,
            "rename" => Site::Rename,
            "open" => Site::Open,
            _ => return None,
        };
        let countdown = countdown(parts.next()?)?;
        let fault = match parts.next()? {
            "EIO" => Fault::Error(Errno::EIO),
            "ENOSPC" => Fault::Error(Errno::ENOSPC),
            "short" if site == Site::Commit => Fault::Short,
            _ => return None,
        };
        parts.next().is_none().then_some(DiskFault { site, fault, countdown })
    }

    fn delay(entry: &str) -> Option<Delay> {
        if let Some((stall, at)) = entry.split_once('@') {
            let (stall_ms, at) = (stall.parse().ok()?, at.parse().ok().filter(|at| *at > 0)?);
            return Some(Delay::Stall { stall_ms, at });
        }
        let (min, max) = entry.split_once("..")?;
        let (min_ms, max_ms) = (min.parse().ok()?, max.parse().ok()?);
        (min_ms <= max_ms).then_some(Delay::Between { min_ms, max_ms })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn entries_say_where_when_and_how() {
            let third = kill_point("after-commit:3").unwrap();
            assert_eq!(third.name, "after-commit");
            let over: Vec<bool> = (0..5).map(|_| third.countdown.is_over()).collect();
            assert_eq!(over, [false, false, true, false, false]);
            assert!(kill_point("before-commit").unwrap().countdown.is_over());
            let short = disk_fault("commit:2:short").unwrap();
            assert_eq!((short.site, short.fault), (Site::Commit, Fault::Short));
            let full = disk_fault("prepare:1:ENOSPC").unwrap();
            assert_eq!((full.site, full.fault), (Site::Prepare, Fault::Error(Errno::ENOSPC)));
            assert_eq!(delay("30000@7"), Some(Delay::Stall { stall_ms: 30_000, at: 7 }));
            let between = delay("5..9").unwrap();
            let delays: Vec<u64> = (0..200).map(|commit| between.of_commit(commit)).collect();
            assert!(delays.iter().all(|delay| (5..=9).contains(delay)));
            assert!((5..=9).all(|delay| delays.contains(&delay)));
        }

        #[test]
        fn mistakes_are_not_overlooked() {
            assert!(["x:0", "x:one", "x:"].iter().all(|entry| kill_point(entry).is_none()));
            for entry in ["read:1:short", "read:1", "write:1:EIO", "read:1:EIO:2", "read:0:EIO"] {
                assert!(disk_fault(entry).is_none(), "{entry}");
            }
            assert!(["9..5", "5", "5@0", "a@1"].iter().all(|entry| delay(entry).is_none()));
        }
    }
}

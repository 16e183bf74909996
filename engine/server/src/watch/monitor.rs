//! Watches memory and disk space, and informs the shards when publishers have to be blocked or
//! unblocked.
//!
//! ```text
//!  shards ── memory (relaxed) ──► Resources ◄── looks ── monitor ── statvfs ──► data directory
//!     ▲                                                     │
//!     └──────────── alarms, then a wake ────────────────────┘
//! ```
//! It has a thread of its own because `statvfs` can hang together with its file system. That must
//! not stop new connections, signals or metrics.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use leveret_broker::alarms::Alarms;
use leveret_ring::{WakeTarget, Waker};
use nix::sys::statvfs::statvfs;
use tracing::{info, warn};

use crate::config::Config;
use crate::shared_state::SharedState;
use crate::thread::{self, Start, ThreadEvent};
use crate::watch::memory::MemoryLimit;

/// How often memory is checked when it is nearly used up. At 10 Gbit/s, 125 MB arrive in between:
/// on a host of 8 GB, a tenth of the memory between the store's half and the default limit.
const PERIOD_MIN: Duration = Duration::from_millis(100);

/// How often disk space is checked, and memory while there is plenty. An idle broker wakes only
/// this often. Within this second a disk that writes 2 GB/s uses up the default of
/// `disk_free_min_bytes`.
const PERIOD_MAX: Duration = Duration::from_secs(1);

/// The most that one shard can receive, in bytes per second: over loopback one core reaches 3.8
/// GB/s.
const INFLOW_MAX_PER_SHARD: u64 = 4_000_000_000;

/// Starts the monitor's thread. It begins its work when the shards can be woken.
pub(crate) fn spawn(
    monitor: Monitor,
    shards: usize,
    thread_events: &Sender<ThreadEvent>,
    started: Receiver<Start>,
) -> io::Result<()> {
    thread::spawn("monitor".to_owned(), thread_events.clone(), move || {
        if let Ok(Start { wakes, .. }) = started.recv() {
            let wakers: Vec<Waker> = wakes.iter().take(shards).map(WakeTarget::waker).collect();
            monitor.run(&wakers);
        }
        Ok::<(), Infallible>(())
    })
}

/// The state of the thread.
pub(crate) struct Monitor {
    shared: Arc<SharedState>,
    memory: Threshold,
    disk: Threshold,
    data_dir: PathBuf,
    /// The last check of the disk failed. Logged once, not every second.
    disk_hidden: bool,
}

impl Monitor {
    /// Watches `data_dir`, which must exist.
    pub(crate) fn new(config: &Config, limit: &MemoryLimit, shared: Arc<SharedState>) -> Self {
        info!("memory limit: {} bytes ({})", limit.bytes, limit.source);
        shared.resources.memory_limit_bytes.store(limit.bytes, Ordering::Relaxed);
        Self {
            shared,
            memory: Threshold::at_most(limit.bytes),
            disk: Threshold::at_least(config.disk_free_min_bytes),
            data_dir: config.data_dir.clone(),
            disk_hidden: false,
        }
    }

    /// Checks everything once, before the first client can publish.
    pub(crate) fn look(&mut self) {
        self.look_at_memory();
        self.look_at_disk();
        self.shared.resources.set_alarms(self.alarms());
    }

    /// Checks periodically until the broker quits; `wakers` wake the shards.
    pub(crate) fn run(mut self, wakers: &[Waker]) {
        let mut since_disk = Duration::ZERO;
        loop {
            let period = self.period(wakers.len());
            if !self.shared.sleep(period) {
                return;
            }
            self.look_at_memory();
            since_disk += period;
            if since_disk >= PERIOD_MAX {
                since_disk = Duration::ZERO;
                self.look_at_disk();
            }
            if self.alarms() != self.shared.resources.alarms() {
                self.shared.resources.set_alarms(self.alarms());
                wakers.iter().for_each(Waker::wake);
            }
        }
    }

    /// The time in which memory cannot run out at any rate of publishing; short while the alarm is
    /// on.
    fn period(&self, shards: usize) -> Duration {
        if self.memory.alarm {
            return PERIOD_MIN;
        }
        let room = self.memory.on.saturating_sub(self.shared.resources.memory_bytes());
        let inflow = INFLOW_MAX_PER_SHARD.saturating_mul(shards as u64).max(1);
        Duration::from_secs_f64(room as f64 / inflow as f64).clamp(PERIOD_MIN, PERIOD_MAX)
    }

    fn alarms(&self) -> Alarms {
        Alarms { memory: self.memory.alarm, disk: self.disk.alarm }
    }

    fn look_at_memory(&mut self) {
        let used = self.shared.resources.memory_bytes();
        let Threshold { on, off, .. } = self.memory;
        match self.memory.look(used) {
            Some(true) => warn!(
                "memory alarm: messages use {used} of {on} bytes; connections that publish are \
                 blocked until it is {off}. Consume or purge queues, or raise memory_limit_bytes"
            ),
            Some(false) => info!("memory alarm is over: messages use {used} of {on} bytes"),
            None => {}
        }
    }

    fn look_at_disk(&mut self) {
        let path = self.data_dir.display();
        let free = match statvfs(&self.data_dir) {
            Ok(found) => found.blocks_available().saturating_mul(found.fragment_size()),
            Err(error) => {
                if !std::mem::replace(&mut self.disk_hidden, true) {
                    warn!(
                        "cannot see the free space of {path}: {error}. The disk alarm stays {}; \
                         is the directory still there and mounted?",
                        if self.disk.alarm { "on" } else { "off" }
                    );
                }
                return;
            }
        };
        if std::mem::take(&mut self.disk_hidden) {
            info!("the free space of {path} can be seen again");
        }
        self.shared.resources.disk_free_bytes.store(free, Ordering::Relaxed);
        let Threshold { on, off, .. } = self.disk;
        match self.disk.look(free) {
            Some(true) => warn!(
                "disk alarm: the file system of {path} has {free} bytes free, less than {on}; \
                 connections that publish are blocked until it has {off}. Free some space, or \
                 lower disk_free_min_bytes"
            ),
            Some(false) => info!("disk alarm is over: {path} has {free} bytes free"),
            None => {}
        }
    }
}

/// An alarm with hysteresis, so that a value that moves around its limit does not block and unblock
/// publishers all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Threshold {
    /// Whether values above the limit raise the alarm; otherwise values below it do.
    bad_above: bool,
    on: u64,
    off: u64,
    alarm: bool,
}

impl Threshold {
    /// The alarm goes on above `limit` and off at 90 % of it.
    fn at_most(limit: u64) -> Self {
        Self { bad_above: true, on: limit, off: limit - limit / 10, alarm: false }
    }

    /// The alarm goes on below `limit` and off at 110 % of it.
    fn at_least(limit: u64) -> Self {
        Self { bad_above: false, on: limit, off: limit + limit / 10, alarm: false }
    }

    /// The new state, if this value changes it.
    fn look(&mut self, figure: u64) -> Option<bool> {
        let Self { bad_above, on, off, alarm } = *self;
        let changed = match (alarm, bad_above) {
            (false, true) => figure > on,
            (false, false) => figure < on,
            (true, true) => figure <= off,
            (true, false) => figure >= off,
        };
        self.alarm ^= changed;
        changed.then_some(self.alarm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_go_off_later_than_they_go_on() {
        let mut memory = Threshold::at_most(1_000);
        let seen = [999, 1_000, 1_001, 1_000, 901, 900, 1_000].map(|used| memory.look(used));
        assert_eq!(seen, [None, None, Some(true), None, None, Some(false), None]);
        let mut disk = Threshold::at_least(1_000);
        let seen = [1_001, 1_000, 999, 1_000, 1_099, 1_100, 1_000].map(|free| disk.look(free));
        assert_eq!(seen, [None, None, Some(true), None, None, Some(false), None]);
    }

    fn monitor(config: &Config, shared: &Arc<SharedState>) -> Monitor {
        let limit = MemoryLimit { bytes: 1_000, source: "a test".to_owned() };
        Monitor::new(config, &limit, Arc::clone(shared))
    }

    #[test]
    fn a_vanished_directory_keeps_the_last_state() {
        let parent = tempfile::tempdir().unwrap();
        let data_dir = parent.path().join("data");
        std::fs::create_dir(&data_dir).unwrap();
        let shared = Arc::new(SharedState::new(1, 1));
        for (disk_free_min_bytes, alarm) in [(16 << 20, false), (1 << 50, true)] {
            let config =
                Config { data_dir: data_dir.clone(), disk_free_min_bytes, ..Config::default() };
            let mut monitor = monitor(&config, &shared);
            monitor.look();
            assert_eq!(shared.resources.alarms(), Alarms { memory: false, disk: alarm });
            assert!(shared.resources.disk_free_bytes.load(Ordering::Relaxed) > 0);
            std::fs::remove_dir(&data_dir).unwrap();
            monitor.look();
            assert!(monitor.disk_hidden && monitor.disk.alarm == alarm);
            std::fs::create_dir(&data_dir).unwrap();
            monitor.look();
            assert!(!monitor.disk_hidden && monitor.disk.alarm == alarm);
        }
    }

    #[test]
    fn the_memory_of_all_shards_counts() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config {
            data_dir: directory.path().to_owned(),
            disk_free_min_bytes: 1,
            ..Config::default()
        };
        let shared = Arc::new(SharedState::new(2, 1));
        let mut monitor = monitor(&config, &shared);
        for (used, alarm) in [(500, false), (501, true), (401, true), (400, false)] {
            shared.resources.publish(0, 500);
            shared.resources.publish(1, used);
            monitor.look();
            assert_eq!(shared.resources.alarms().memory, alarm, "{used}");
        }
    }

    #[test]
    fn memory_is_looked_at_before_it_can_run_out() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config { data_dir: directory.path().to_owned(), ..Config::default() };
        let shared = Arc::new(SharedState::new(2, 1));
        let limit = MemoryLimit { bytes: 10 << 30, source: "a test".to_owned() };
        let mut monitor = Monitor::new(&config, &limit, Arc::clone(&shared));
        assert_eq!(monitor.period(2), PERIOD_MAX, "an idle broker sleeps");
        shared.resources.publish(0, 6 << 30);
        let half = monitor.period(2);
        assert!(half > PERIOD_MIN && half < PERIOD_MAX);
        assert!(half.as_secs_f64() * 2.0 * INFLOW_MAX_PER_SHARD as f64 <= (4_u64 << 30) as f64);
        shared.resources.publish(1, (4 << 30) - 1);
        assert_eq!(monitor.period(2), PERIOD_MIN);
        shared.resources.publish(1, 5 << 30);
        monitor.look();
        shared.resources.publish(1, 0);
        shared.resources.publish(0, 0);
        assert_eq!(monitor.period(2), PERIOD_MIN, "the alarm ends soon after its cause");
    }
}

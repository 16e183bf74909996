//! What all threads of one broker share, none of it touched per message.

pub(crate) mod connection_placement;
pub(crate) mod resources;
pub(crate) mod shard_reports;

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use leveret_ring::{WakeTarget, Waker};

use self::connection_placement::ConnectionPlacement;
use self::resources::Resources;
use self::shard_reports::ShardReports;

/// The stages from running to the end of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Stage {
    /// The broker serves clients.
    Running,
    /// No new connections are accepted; open ones are asked to close.
    Stopping,
    /// All connections are gone; the shards end their logs.
    Closing,
    /// The threads end now.
    Quitting,
}

/// State shared by all threads. A thread that changes it wakes the threads it concerns, so that
/// none has to poll.
pub(crate) struct SharedState {
    stage: AtomicU8,
    /// For threads that sleep without a ring: see [`SharedState::sleep`].
    entered: (Mutex<()>, Condvar),
    /// The connections of each shard.
    pub(crate) placement: ConnectionPlacement,
    /// The reports of the shards.
    pub(crate) shard_reports: ShardReports,
    /// Memory and disk use, and the alarms.
    pub(crate) resources: Resources,
}

impl SharedState {
    /// For `shards` shards that together serve at most `connections_max` connections.
    pub(crate) fn new(shards: usize, connections_max: u32) -> Self {
        Self {
            stage: AtomicU8::new(Stage::Running as u8),
            entered: (Mutex::new(()), Condvar::new()),
            placement: ConnectionPlacement::new(shards, connections_max),
            shard_reports: ShardReports::new(shards),
            resources: Resources::new(shards),
        }
    }

    /// The current stage.
    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Running,
            1 => Stage::Stopping,
            2 => Stage::Closing,
            _ => Stage::Quitting,
        }
    }

    /// Enters a stage and wakes all threads. An earlier stage than the current one is ignored.
    pub(crate) fn enter(&self, stage: Stage, wakes: &[WakeTarget]) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
        wakes.iter().map(WakeTarget::waker).for_each(|waker: Waker| waker.wake());
        let (guard, entered) = &self.entered;
        // Taking the lock ensures that no thread is between checking the stage and going to sleep.
        drop(guard.lock().unwrap_or_else(PoisonError::into_inner));
        entered.notify_all();
    }

    /// Sleeps for the given time, or until [`Stage::Quitting`]; false if that stage has been
    /// reached.
    pub(crate) fn sleep(&self, time: Duration) -> bool {
        let (guard, entered) = &self.entered;
        let guard = guard.lock().unwrap_or_else(PoisonError::into_inner);
        let still_sleeps = |(): &mut ()| self.stage() != Stage::Quitting;
        // Poisoning does not matter: the lock guards no data.
        drop(entered.wait_timeout_while(guard, time, still_sleeps));
        self.stage() != Stage::Quitting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_only_go_on() {
        let shared = SharedState::new(1, 1);
        assert_eq!(shared.stage(), Stage::Running);
        shared.enter(Stage::Quitting, &[]);
        shared.enter(Stage::Stopping, &[]);
        assert_eq!(shared.stage(), Stage::Quitting);
    }

    #[test]
    fn a_sleeping_thread_wakes_when_the_broker_quits() {
        let shared = SharedState::new(1, 1);
        assert!(shared.sleep(Duration::from_millis(1)));
        std::thread::scope(|scope| {
            let sleeping = scope.spawn(|| shared.sleep(Duration::MAX));
            shared.enter(Stage::Stopping, &[]);
            shared.enter(Stage::Quitting, &[]);
            assert!(!sleeping.join().unwrap());
        });
    }
}

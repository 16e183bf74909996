//! The control thread. It is the last member of the mesh, after all shards, and orders all changes
//! of exchanges, queues and bindings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use leveret_broker::id::ShardId;
use leveret_broker::mesh::batch::Batch;
use leveret_broker::shard::control_member::ControlMember;
use leveret_ring::{Completion, Endpoint, Ring, RingConfig, RingError, Wait, WakeTarget};
use tracing::warn;

use crate::data::metadata::MetadataThread;
use crate::log::Rate;
use crate::shard::driver::LANES;
use crate::shared_state::{SharedState, Stage};

/// Batches taken from one lane per turn. There may be many, because the patterns of topic exchanges
/// are compiled only once per turn.
const BATCHES_PER_LANE_MAX: usize = 128;

/// How soon to try again to send to a shard whose lane is full.
const FULL_LANE_RETRY: Duration = Duration::from_millis(1);

/// Background work starts after this time without a request. Without the pause, bindings that
/// change a thousand times per second would merge all patterns of their exchange a thousand times
/// per second.
const QUIET_MIN: Duration = Duration::from_millis(20);

/// The pause is also this many times the duration of the last background work. Merging a million
/// patterns takes a tenth of a second of a core that a shard may need; this limits it to a tenth of
/// that core.
const QUIET_FACTOR: u32 = 10;

/// Lines about new queues per second: enough to see a pattern, as in the control state.
const WARNING_LINES_MAX: u32 = 64;

/// The ring of the control thread. It has no sockets and is used only to sleep and to wake, so the
/// smallest ring will do.
pub(crate) fn ring_config() -> RingConfig {
    RingConfig {
        sockets_max: 1,
        buffer_count: 4,
        buffer_size_bytes: 4096,
        lend_above_free_buffers: 0,
        submission_entries: 1024,
        completion_entries: 8192,
    }
}

/// The control state with its ring and its endpoint of the mesh.
pub(crate) struct ControlDriver {
    pub(crate) member: ControlMember,
    /// Commits durable changes before the shards learn of them.
    pub(crate) metadata: MetadataThread,
    pub(crate) ring: Ring,
    pub(crate) mesh: Endpoint<Batch>,
    /// Wakes the members of the mesh, by number.
    pub(crate) wakes: Arc<[WakeTarget]>,
    pub(crate) shared: Arc<SharedState>,
    pub(crate) state: TurnState,
}

/// State kept from one turn to the next.
#[derive(Default)]
pub(crate) struct TurnState {
    completions: Vec<Completion>,
    /// When the last request came; `None` if no background work is left.
    busy_since: Option<Instant>,
    /// How long the last background work took.
    idle_work_took: Duration,
    /// Mail waits because a lane is full.
    lane_full: bool,
    warnings: Rate,
}

impl TurnState {
    /// The time until background work is due; `None` if there is none.
    fn until_quiet(&self) -> Option<Duration> {
        let quiet = QUIET_MIN.max(self.idle_work_took * QUIET_FACTOR);
        self.busy_since.map(|since| quiet.saturating_sub(since.elapsed()))
    }

    fn wait(&self) -> Wait {
        let retry = self.lane_full.then_some(FULL_LANE_RETRY);
        match self.until_quiet().into_iter().chain(retry).min() {
            Some(Duration::ZERO) => Wait::No,
            Some(wait) => Wait::Until(wait),
            None => Wait::Forever,
        }
    }
}

impl ControlDriver {
    /// Runs until the broker quits.
    pub(crate) fn run(mut self) -> Result<(), RingError> {
        loop {
            self.turn(self.state.wait())?;
            // These are wake-ups; they carry no data.
            self.state.completions.clear();
            if self.shared.stage() == Stage::Quitting {
                return Ok(());
            }
            if self.take_mail() | self.take_stored() {
                self.member.finish_turn();
                self.state.busy_since = Some(Instant::now());
            } else if self.state.until_quiet() == Some(Duration::ZERO) {
                let started = Instant::now();
                let more = self.member.idle();
                self.state.idle_work_took = started.elapsed();
                self.state.busy_since = more.then(Instant::now);
            }
            self.store_changes();
            self.send_mail();
            self.report_warnings();
        }
    }

    fn turn(&mut self, wait: Wait) -> Result<(), RingError> {
        let sleep = wait != Wait::No && self.mesh.prepare_sleep();
        let wait = if sleep { wait } else { Wait::No };
        let turned = self.ring.turn(wait, &mut self.state.completions);
        self.mesh.awake();
        turned
    }

    /// True if there was any mail.
    fn take_mail(&mut self) -> bool {
        let mut any = false;
        for from in 0..self.mesh.id() {
            for (lane, _) in LANES {
                for _ in 0..BATCHES_PER_LANE_MAX {
                    let Some(batch) = self.mesh.receive(from, lane) else {
                        break;
                    };
                    let emptied = self.member.handle_mail(ShardId(from as u16), batch);
                    self.mesh.give_back(from, emptied);
                    any = true;
                }
            }
        }
        any
    }

    /// True if a commit became durable, so that the shards may be informed of its changes.
    fn take_stored(&mut self) -> bool {
        let mut any = false;
        while let Some(through) = self.metadata.poll_done() {
            self.member.made_durable(through);
            any = true;
        }
        any
    }

    fn store_changes(&mut self) {
        if let Some((through, changes)) = self.member.poll_durable() {
            let waker = self.wakes[self.mesh.id()].waker();
            self.metadata.commit(through, changes, waker);
        }
    }

    fn send_mail(&mut self) {
        self.state.lane_full = false;
        for to in 0..self.mesh.id() {
            let mut sent = false;
            for (lane, of_mail) in LANES {
                let member = ShardId(to as u16);
                while self.mesh.has_room(to, lane) {
                    let Some(batch) = self.member.poll_mail(member, of_mail) else {
                        break;
                    };
                    let delivered = self.mesh.try_send(to, lane, batch).is_ok();
                    assert!(delivered, "we are the lane's only sender and saw room");
                    sent = true;
                    if let Some(emptied) = self.mesh.take_back(to) {
                        self.member.take_back(emptied);
                    }
                }
                self.state.lane_full |= self.member.has_mail(member, of_mail);
            }
            if sent && self.mesh.needs_wake(to) {
                self.ring.wake(&self.wakes[to]);
            }
        }
    }

    /// Says which new queues will not do what their arguments ask for.
    fn report_warnings(&mut self) {
        while let Some(warning) = self.member.poll_warning() {
            self.state.warnings.withhold(warning.withheld);
            let Some(withheld) = self.state.warnings.admit_some(WARNING_LINES_MAX) else {
                continue;
            };
            warn!(
                withheld,
                "queue {:?} in vhost {:?} is declared with arguments that have no effect yet: {}",
                warning.queue,
                warning.vhost,
                warning.arguments.join(", ")
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_can_wait_waits_for_quiet() {
        let hour = Duration::from_hours(1);
        let mut state = TurnState::default();
        assert_eq!((state.until_quiet(), state.wait()), (None, Wait::Forever));
        state.busy_since = Instant::now().checked_sub(hour);
        assert_eq!((state.until_quiet(), state.wait()), (Some(Duration::ZERO), Wait::No));
        // The last background work took an hour, so ten hours of quiet are due. One has passed.
        state.idle_work_took = hour;
        let left = state.until_quiet().unwrap();
        assert!(left > 8 * hour && left <= 9 * hour, "{left:?}");
        assert!(matches!(state.wait(), Wait::Until(wait) if wait > 8 * hour));
        state.lane_full = true;
        assert_eq!(state.wait(), Wait::Until(FULL_LANE_RETRY));
    }
}

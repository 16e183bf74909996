//! Reports of shards, on request: the asker leaves a number and wakes the shard, the shard puts
//! its report up at the end of its turn. A shard that nobody asks pays nothing.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use leveret_broker::shard::report::{QueueReport, Report};
use leveret_ring::{RingCounters, Waker};

/// How long an asker waits. A shard's turn is far shorter unless it is starved of its core.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often it looks meanwhile.
const LOOK: Duration = Duration::from_millis(1);

/// A shard and its ring at one moment.
#[derive(Clone, Debug)]
pub(crate) struct ShardReport {
    pub(crate) report: Report,
    pub(crate) ring: RingCounters,
    pub(crate) buffers_free: u32,
    pub(crate) buffers_leased: u32,
}

/// What an asker got of one shard.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// False where it did not answer in time; the report is then its last one, without queues.
    pub(crate) answered: bool,
    /// `None` where it never answered.
    pub(crate) report: Option<Arc<ShardReport>>,
}

/// The reports of all shards that ever answered.
pub(crate) fn reports(looks: &[Look]) -> impl Iterator<Item = &Arc<ShardReport>> {
    looks.iter().filter_map(|look| look.report.as_ref())
}

/// The described queues with their shards.
pub(crate) fn queue_reports(looks: &[Look]) -> impl Iterator<Item = (u16, &QueueReport)> {
    reports(looks).flat_map(|look| {
        let report = &look.report;
        report.queue_reports.iter().map(|queue| (report.shard.0, queue))
    })
}

/// One place per shard.
pub(crate) struct Board {
    desks: Vec<Desk>,
    /// Askers of reports with queues, which are large and kept only while somebody waits.
    queue_askers: AtomicUsize,
}

#[derive(Default)]
struct Desk {
    plain: Slot,
    with_queues: Slot,
}

#[derive(Default)]
struct Slot {
    asked: AtomicU64,
    answered: AtomicU64,
    report: Mutex<Option<Arc<ShardReport>>>,
}

impl Board {
    /// For `shards` shards.
    pub(crate) fn new(shards: usize) -> Self {
        let desks = (0..shards).map(|_| Desk::default()).collect();
        Self { desks, queue_askers: AtomicUsize::new(0) }
    }

    /// The shard's side, after it was woken: answers what was asked. `describe` is told whether to
    /// describe queues.
    pub(crate) fn answer(&self, shard: usize, describe: impl Fn(bool) -> ShardReport) {
        let desk = &self.desks[shard];
        desk.plain.answer(|| describe(false));
        desk.with_queues.answer(|| describe(true));
    }

    /// The asker's side: a look at every shard, in order.
    pub(crate) async fn look(&self, wakers: &[Waker], with_queues: bool) -> Vec<Look> {
        let asking = with_queues.then(|| QueueAsker::new(self));
        let numbers: Vec<u64> =
            self.desks.iter().map(|desk| desk.slot(with_queues).ask()).collect();
        wakers.iter().for_each(Waker::wake);
        let mut left = PATIENCE;
        while !self.all_answered(&numbers, with_queues) && !left.is_zero() {
            tokio::time::sleep(LOOK).await;
            left = left.saturating_sub(LOOK);
        }
        let looks = self.desks.iter().zip(numbers).map(|(desk, number)| {
            let slot = desk.slot(with_queues);
            let answered = slot.has_answered(number);
            let slot = if answered { slot } else { &desk.plain };
            Look { answered, report: slot.lock().clone() }
        });
        let looks = looks.collect();
        drop(asking);
        looks
    }

    fn all_answered(&self, numbers: &[u64], with_queues: bool) -> bool {
        let mut desks = self.desks.iter().zip(numbers);
        desks.all(|(desk, number)| desk.slot(with_queues).has_answered(*number))
    }
}

impl Desk {
    fn slot(&self, with_queues: bool) -> &Slot {
        if with_queues { &self.with_queues } else { &self.plain }
    }
}

impl Slot {
    fn ask(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::AcqRel) + 1
    }

    fn has_answered(&self, number: u64) -> bool {
        self.answered.load(Ordering::Acquire) >= number
    }

    fn answer(&self, describe: impl FnOnce() -> ShardReport) {
        let asked = self.asked.load(Ordering::Acquire);
        if self.has_answered(asked) {
            return;
        }
        let report = Arc::new(describe());
        // Held elsewhere only for the time of cloning a reference.
        *self.lock() = Some(report);
        self.answered.store(asked, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<ShardReport>>> {
        // The guarded value is replaced whole, so a panic elsewhere cannot have spoilt it.
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops the large reports when the last asker has its copy, or gave up.
struct QueueAsker<'a>(&'a Board);

impl<'a> QueueAsker<'a> {
    fn new(board: &'a Board) -> Self {
        board.queue_askers.fetch_add(1, Ordering::AcqRel);
        Self(board)
    }
}

impl Drop for QueueAsker<'_> {
    fn drop(&mut self) {
        if self.0.queue_askers.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.desks.iter().for_each(|desk| *desk.with_queues.lock() = None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use leveret_broker::id::ShardId;
    use leveret_broker::routing::topology::Topology;
    use leveret_broker::settings::Settings;
    use leveret_broker::shard::Shard;
    use tokio::runtime::Builder;

    use super::*;

    fn describe(shard: u16) -> ShardReport {
        let topology = Topology::with_presets(1, 2);
        let shard = Shard::new(ShardId(shard), 2, Arc::new(Settings::default()), topology);
        ShardReport {
            report: shard.report(false),
            ring: RingCounters::default(),
            buffers_free: 0,
            buffers_leased: 0,
        }
    }

    fn look(board: &Board, with_queues: bool) -> Vec<Look> {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(board.look(&[], with_queues))
    }

    #[test]
    fn a_shard_answers_once_per_question_and_only_then() {
        let board = Arc::new(Board::new(1));
        board.answer(0, |_| panic!("nobody asked"));
        let asker = std::thread::spawn({
            let board = Arc::clone(&board);
            move || look(&board, true)
        });
        let answered = std::cell::Cell::new(0);
        while !asker.is_finished() {
            board.answer(0, |with_queues| {
                assert!(with_queues);
                answered.set(answered.get() + 1);
                describe(0)
            });
        }
        let looks = asker.join().unwrap();
        assert!(looks[0].answered && looks[0].report.is_some());
        assert_eq!(answered.get(), 1);
        assert!(board.desks[0].with_queues.lock().is_none(), "large reports are not kept");
    }

    #[test]
    fn a_silent_shard_is_waited_for_in_bounds_and_shown_as_it_was() {
        let board = Board::new(2);
        board.desks[0].plain.ask();
        board.answer(0, |_| describe(0));
        let start = std::time::Instant::now();
        let looks = look(&board, false);
        assert!(start.elapsed() >= PATIENCE);
        assert!(!looks[0].answered && looks[0].report.is_some());
        assert!(!looks[1].answered && looks[1].report.is_none());
    }
}

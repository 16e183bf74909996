//! Reports of the shards, on request. The requester increments a number and wakes the shard; the
//! shard stores its report at the end of its turn. Without requests a shard has no cost.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use leveret_broker::shard::report::{QueueReport, Report};
use leveret_ring::{RingCounters, Waker};

/// How long a requester waits. A turn of a shard is far shorter, unless the shard gets no CPU time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// How often the requester checks for answers.
const POLL_PERIOD: Duration = Duration::from_millis(1);

/// The state of a shard and its ring at one moment.
#[derive(Clone, Debug)]
pub(crate) struct ShardReport {
    pub(crate) report: Report,
    pub(crate) ring: RingCounters,
    pub(crate) buffers_free: u32,
    pub(crate) buffers_leased: u32,
}

/// The answer of one shard to a request.
#[derive(Clone, Debug)]
pub(crate) struct ShardAnswer {
    /// False if the shard did not answer in time; the report is then an earlier one, without
    /// queues.
    pub(crate) answered: bool,
    /// `None` if the shard has never answered.
    pub(crate) report: Option<Arc<ShardReport>>,
}

/// The reports of all shards that have one.
pub(crate) fn reports(answers: &[ShardAnswer]) -> impl Iterator<Item = &Arc<ShardReport>> {
    answers.iter().filter_map(|answer| answer.report.as_ref())
}

/// The described queues, each with its shard.
pub(crate) fn queue_reports(answers: &[ShardAnswer]) -> impl Iterator<Item = (u16, &QueueReport)> {
    reports(answers).flat_map(|shard| {
        let report = &shard.report;
        report.queue_reports.iter().map(|queue| (report.shard.0, queue))
    })
}

/// The reports of all shards.
pub(crate) struct ShardReports {
    shards: Vec<ShardSlots>,
    /// Open requests for reports with queues. Such reports are large, so they are kept only while a
    /// request is open.
    queue_requests: AtomicUsize,
}

#[derive(Default)]
struct ShardSlots {
    plain: Slot,
    with_queues: Slot,
}

#[derive(Default)]
struct Slot {
    requested: AtomicU64,
    answered: AtomicU64,
    report: Mutex<Option<Arc<ShardReport>>>,
}

impl ShardReports {
    /// For `shards` shards.
    pub(crate) fn new(shards: usize) -> Self {
        let shards = (0..shards).map(|_| ShardSlots::default()).collect();
        Self { shards, queue_requests: AtomicUsize::new(0) }
    }

    /// Answers open requests. Called by the shard after a wake-up. The argument of `describe` says
    /// whether to describe queues.
    pub(crate) fn answer(&self, shard: usize, describe: impl Fn(bool) -> ShardReport) {
        let slots = &self.shards[shard];
        slots.plain.answer(|| describe(false));
        slots.with_queues.answer(|| describe(true));
    }

    /// Requests a report from every shard and waits; the answers are in the order of the shards.
    pub(crate) async fn request(&self, wakers: &[Waker], with_queues: bool) -> Vec<ShardAnswer> {
        let queue_request = with_queues.then(|| QueueRequest::new(self));
        let numbers: Vec<u64> =
            self.shards.iter().map(|slots| slots.slot(with_queues).request()).collect();
        wakers.iter().for_each(Waker::wake);
        let mut left = ANSWER_TIMEOUT;
        while !self.all_answered(&numbers, with_queues) && !left.is_zero() {
            tokio::time::sleep(POLL_PERIOD).await;
            left = left.saturating_sub(POLL_PERIOD);
        }
        let answers = self.shards.iter().zip(numbers).map(|(slots, number)| {
            let slot = slots.slot(with_queues);
            let answered = slot.has_answered(number);
            let slot = if answered { slot } else { &slots.plain };
            ShardAnswer { answered, report: slot.lock().clone() }
        });
        let answers = answers.collect();
        drop(queue_request);
        answers
    }

    fn all_answered(&self, numbers: &[u64], with_queues: bool) -> bool {
        let mut shards = self.shards.iter().zip(numbers);
        shards.all(|(slots, number)| slots.slot(with_queues).has_answered(*number))
    }
}

impl ShardSlots {
    fn slot(&self, with_queues: bool) -> &Slot {
        if with_queues { &self.with_queues } else { &self.plain }
    }
}

impl Slot {
    fn request(&self) -> u64 {
        self.requested.fetch_add(1, Ordering::AcqRel) + 1
    }

    fn has_answered(&self, number: u64) -> bool {
        self.answered.load(Ordering::Acquire) >= number
    }

    fn answer(&self, describe: impl FnOnce() -> ShardReport) {
        let requested = self.requested.load(Ordering::Acquire);
        if self.has_answered(requested) {
            return;
        }
        let report = Arc::new(describe());
        // The lock is otherwise held only while a reference is cloned.
        *self.lock() = Some(report);
        self.answered.store(requested, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<ShardReport>>> {
        // The value is always replaced as a whole, so a panic elsewhere cannot have damaged it.
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Drops the large reports when the last open request has its copy or has given up.
struct QueueRequest<'a>(&'a ShardReports);

impl<'a> QueueRequest<'a> {
    fn new(reports: &'a ShardReports) -> Self {
        reports.queue_requests.fetch_add(1, Ordering::AcqRel);
        Self(reports)
    }
}

impl Drop for QueueRequest<'_> {
    fn drop(&mut self) {
        if self.0.queue_requests.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.shards.iter().for_each(|slots| *slots.with_queues.lock() = None);
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

    fn request(reports: &ShardReports, with_queues: bool) -> Vec<ShardAnswer> {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(reports.request(&[], with_queues))
    }

    #[test]
    fn a_shard_answers_once_per_question_and_only_then() {
        let reports = Arc::new(ShardReports::new(1));
        reports.answer(0, |_| panic!("nobody asked"));
        let requester = std::thread::spawn({
            let reports = Arc::clone(&reports);
            move || request(&reports, true)
        });
        let answered = std::cell::Cell::new(0);
        while !requester.is_finished() {
            reports.answer(0, |with_queues| {
                assert!(with_queues);
                answered.set(answered.get() + 1);
                describe(0)
            });
        }
        let answers = requester.join().unwrap();
        assert!(answers[0].answered && answers[0].report.is_some());
        assert_eq!(answered.get(), 1);
        assert!(reports.shards[0].with_queues.lock().is_none(), "large reports are not kept");
    }

    #[test]
    fn a_silent_shard_is_waited_for_in_bounds_and_shown_as_it_was() {
        let reports = ShardReports::new(2);
        reports.shards[0].plain.request();
        reports.answer(0, |_| describe(0));
        let start = std::time::Instant::now();
        let answers = request(&reports, false);
        assert!(start.elapsed() >= ANSWER_TIMEOUT);
        assert!(!answers[0].answered && answers[0].report.is_some());
        assert!(!answers[1].answered && answers[1].report.is_none());
    }
}

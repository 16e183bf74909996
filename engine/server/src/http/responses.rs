//! The bodies of HTTP responses, made from the reports of the shards.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use leveret_broker::catalog::name::Name;
use leveret_broker::shard::report::{QueueReport, Report};

use crate::clock::Clock;
use crate::config::Durability;
use crate::http::metrics::{self, Figures};
use crate::http::snapshot::{Flow, Latency, LogSnapshot, QueueSnapshot, ShardSnapshot, Snapshot};
use crate::shared_state::shard_reports::{ShardAnswer, queue_reports, reports};

/// Above this many queues none is listed, neither in `leveret top` nor in the metrics per object.
/// Describing one queue takes its shard some hundred nanoseconds and 0.7 KB, so this many stall a
/// shard for a few milliseconds.
const QUEUES_LISTED_MAX: usize = 10_000;

/// Renders the bodies.
pub(crate) struct Responses {
    clock: Clock,
    cluster_name: String,
    durability: Durability,
    /// How many messages had passed through each queue at the previous request, to find the queues
    /// that are busy now. It has the queues of that request, so at most [`QUEUES_LISTED_MAX`].
    passed: Mutex<HashMap<(Name, Name), u64>>,
}

impl Responses {
    /// For the broker with this name; `clock` started with it.
    pub(crate) fn new(clock: Clock, cluster_name: String, durability: Durability) -> Self {
        Self { clock, cluster_name, durability, passed: Mutex::default() }
    }

    /// Whether there are few enough queues to describe each.
    pub(crate) fn lists_queues(answers: &[ShardAnswer]) -> bool {
        reports(answers).map(|report| report.report.queues).sum::<usize>() <= QUEUES_LISTED_MAX
    }

    /// `/`: a few lines for a person.
    pub(crate) fn index(&self, answers: &[ShardAnswer]) -> String {
        let sum = |of: fn(&Report) -> usize| {
            reports(answers).map(|shard| of(&shard.report)).sum::<usize>()
        };
        let mut text = format!(
            "Leveret {}, {}, up {} s\n\n",
            env!("CARGO_PKG_VERSION"),
            self.cluster_name,
            self.clock.uptime_ns() / 1_000_000_000
        );
        for (name, count) in [
            ("shards", answers.len()),
            ("connections", sum(|report| report.connections)),
            ("channels", sum(|report| report.channels)),
            ("consumers", sum(|report| report.consumers)),
            ("queues", sum(|report| report.queues)),
            ("messages ready", sum(|report| report.messages_ready)),
            ("messages unacked", sum(|report| report.messages_unacked)),
        ] {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name:<18}{count:>12}");
        }
        text.push_str(
            "\nMore: /metrics and /metrics/per-object for Prometheus, /api/top as JSON, and \
             `leveret top`\n",
        );
        text
    }

    /// `/metrics`.
    pub(crate) fn metrics(&self, answers: &[ShardAnswer], figures: Figures) -> String {
        metrics::broker(answers, &self.identity(figures), false)
    }

    /// `/metrics/per-object`: the same and one series per queue.
    pub(crate) fn metrics_per_object(&self, answers: &[ShardAnswer], figures: Figures) -> String {
        let mut text = metrics::broker(answers, &self.identity(figures), true);
        text.push_str(&metrics::queues(answers));
        text
    }

    /// `/api/top`, with at most `queues` of the busiest queues.
    pub(crate) fn top(&self, answers: &[ShardAnswer], queues: usize) -> String {
        let snapshot = Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            cluster_name: self.cluster_name.clone(),
            uptime_ns: self.clock.uptime_ns(),
            shards: (0..)
                .zip(answers)
                .map(|(shard, answer)| shard_snapshot(shard, answer))
                .collect(),
            queues: self.busiest(answers, queues),
        };
        // JSON cannot have map keys other than strings; there are none here, so this cannot fail.
        serde_json::to_string(&snapshot).unwrap_or_default()
    }

    fn identity(&self, figures: Figures) -> metrics::Identity<'_> {
        metrics::Identity {
            cluster_name: &self.cluster_name,
            uptime_s: self.clock.uptime_ns() as f64 / 1e9,
            durability: self.durability,
            figures,
        }
    }

    /// The queues with the most messages since the previous request; among equals the longest
    /// first.
    fn busiest(&self, answers: &[ShardAnswer], count: usize) -> Vec<QueueSnapshot> {
        if count == 0 {
            return Vec::new();
        }
        // The map is always replaced as a whole, so a panic elsewhere cannot have damaged it.
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ranked: Vec<(u64, u16, &QueueReport)> = Vec::new();
        let mut now = HashMap::new();
        for (shard, queue) in queue_reports(answers) {
            let total = queue.counts.published + queue.counts.delivered;
            let key = (queue.vhost.clone(), queue.name.clone());
            let before = passed.get(&key).copied().unwrap_or(0);
            ranked.push((total.saturating_sub(before), shard, queue));
            now.insert(key, total);
        }
        *passed = now;
        ranked.sort_by(|a, b| {
            let key = |(activity, _, queue): &(u64, u16, &QueueReport)| {
                std::cmp::Reverse((*activity, queue.messages_ready))
            };
            key(a).cmp(&key(b)).then_with(|| a.2.name.as_bytes().cmp(b.2.name.as_bytes()))
        });
        ranked.truncate(count);
        ranked.into_iter().map(|(_, shard, queue)| queue_snapshot(shard, queue)).collect()
    }
}

fn shard_snapshot(shard: u16, answer: &ShardAnswer) -> ShardSnapshot {
    let Some(report) = answer.report.as_ref().map(|report| &report.report) else {
        return ShardSnapshot { shard, ..ShardSnapshot::default() };
    };
    let counts = &report.counts;
    ShardSnapshot {
        shard,
        answered: answer.answered,
        connections: report.connections as u64,
        channels: report.channels as u64,
        consumers: report.consumers as u64,
        queues: report.queues as u64,
        blocked: report.blocked.alarm as u64,
        memory_alarm: report.alarms.memory,
        disk_alarm: report.alarms.disk,
        log: report.log.map(|log| LogSnapshot {
            commits: log.counts.commits,
            committed_bytes: log.counts.committed_bytes,
            used_bytes: log.used_bytes,
            live_bytes: log.live_bytes,
        }),
        flow: Flow {
            ready: report.messages_ready as u64,
            unacked: report.messages_unacked as u64,
            published: counts.client.published,
            delivered: counts.home.delivered_auto_ack
                + counts.home.delivered_manual_ack
                + counts.client.got_auto_ack
                + counts.client.got_manual_ack,
            acknowledged: counts.client.acknowledged,
        },
        publish_to_deliver: latency_of_shard(&report.publish_to_deliver),
        time_in_queue: latency_of_shard(&report.time_in_queue),
    }
}

fn queue_snapshot(shard: u16, queue: &QueueReport) -> QueueSnapshot {
    let text = |name: &Name| String::from_utf8_lossy(name.as_bytes()).into_owned();
    let (publish_to_deliver, time_in_queue) = match &queue.latency {
        Some((first, second)) => (latency_of_queue(first), latency_of_queue(second)),
        None => Default::default(),
    };
    QueueSnapshot {
        name: text(&queue.name),
        vhost: text(&queue.vhost),
        shard,
        consumers: queue.consumers as u64,
        flow: Flow {
            ready: queue.messages_ready as u64,
            unacked: queue.messages_unacked as u64,
            published: queue.counts.published,
            delivered: queue.counts.delivered,
            acknowledged: queue.counts.acknowledged,
        },
        publish_to_deliver,
        time_in_queue,
    }
}

/// Buckets of an eighth of an octave, so values are at most 12 % too high; at most some hundred
/// buckets.
fn latency_of_shard(histogram: &hdrhistogram::Histogram<u64>) -> Latency {
    let mut buckets: Vec<(u64, u64)> = Vec::new();
    for step in histogram.iter_recorded() {
        let bound = round_up(step.value_iterated_to());
        match buckets.last_mut() {
            Some((last, count)) if *last == bound => *count += step.count_at_value(),
            _ => buckets.push((bound, step.count_at_value())),
        }
    }
    Latency(buckets)
}

/// Rounds up to a number with at most four significant bits.
fn round_up(value: u64) -> u64 {
    let shift = value.checked_ilog2().unwrap_or(0).saturating_sub(3);
    value.div_ceil(1 << shift) << shift
}

fn latency_of_queue(histogram: &leveret_broker::histogram::Histogram) -> Latency {
    let mut before = 0;
    let buckets = histogram.buckets().map(|(bound_s, cumulative)| {
        let count = cumulative - before;
        before = cumulative;
        // The infinite bound saturates to u64::MAX.
        ((bound_s * 1e9).round() as u64, count)
    });
    Latency(buckets.filter(|(_, count)| *count > 0).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::http::sample_reports::{busy_answer, fresh_answer};
    use crate::shared_state::shard_reports::ShardReport;

    fn responses() -> Responses {
        Responses::new(Clock::start(), "leveret@alpha".to_owned(), Durability::Flush)
    }

    fn top(responses: &Responses, answers: &[ShardAnswer], queues: usize) -> Snapshot {
        serde_json::from_str(&responses.top(answers, queues)).unwrap()
    }

    #[test]
    fn the_first_page_counts_everything() {
        let text = responses().index(&[busy_answer(0, &[("a", 1)]), busy_answer(1, &[("b", 1)])]);
        let count = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().last().unwrap().parse::<u64>().unwrap()
        };
        assert_eq!((count("shards"), count("connections"), count("queues")), (2, 4, 2));
        assert!(text.contains("leveret@alpha") && text.contains("leveret top"));
    }

    #[test]
    fn top_says_what_shards_reported() {
        let silent = ShardAnswer { answered: false, report: None };
        let snapshot = top(&responses(), &[busy_answer(0, &[]), silent], 0);
        let shard = &snapshot.shards[0];
        assert_eq!((shard.flow.published, shard.flow.delivered), (100, 65));
        assert_eq!((shard.blocked, shard.memory_alarm, shard.disk_alarm), (1, true, false));
        assert_eq!(shard.publish_to_deliver.0.iter().map(|(_, count)| count).sum::<u64>(), 3);
        let median = shard.publish_to_deliver.quantile_ns(0.5).unwrap();
        assert!((3_000..3_400).contains(&median), "{median}");
        assert_eq!((snapshot.shards[1].shard, snapshot.shards[1].answered), (1, false));
        assert!(snapshot.queues.is_empty());
    }

    #[test]
    fn the_busiest_since_the_last_look_come_first() {
        let responses = responses();
        let names = |snapshot: Snapshot| -> Vec<String> {
            snapshot.queues.into_iter().map(|queue| queue.name).collect()
        };
        let first = [busy_answer(0, &[("old", 1_000), ("new", 10)])];
        assert_eq!(names(top(&responses, &first, 9)), ["old", "new"]);
        let second =
            [busy_answer(0, &[("old", 1_001), ("new", 90)]), busy_answer(1, &[("idle", 0)])];
        assert_eq!(names(top(&responses, &second, 2)), ["new", "old"]);
        let queue = &top(&responses, &second, 1).queues[0];
        assert_eq!(queue.time_in_queue.0.first(), Some(&(3_072, 1)));
        assert_eq!(queue.time_in_queue.0.last(), Some(&(u64::MAX, 1)));
    }

    #[test]
    fn too_many_queues_are_not_described() {
        let mut crowded = ShardReport::clone(&fresh_answer(0).report.unwrap());
        crowded.report.queues = QUEUES_LISTED_MAX + 1;
        let crowded = ShardAnswer { answered: true, report: Some(Arc::new(crowded)) };
        assert!(Responses::lists_queues(&[fresh_answer(0), fresh_answer(1)]));
        assert!(!Responses::lists_queues(&[fresh_answer(0), crowded]));
    }

    #[test]
    fn bounds_have_four_leading_bits() {
        for value in [0, 1, 7, 15, 16, 17, 1_000, 3_000, 1 << 40, (1 << 40) + 1] {
            let bound = round_up(value);
            assert!(bound >= value && bound as f64 <= value as f64 * 1.125, "{value} {bound}");
            assert!(bound == 0 || bound.ilog2() - bound.trailing_zeros() <= 3, "{bound}");
        }
    }
}

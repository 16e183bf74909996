//! What `leveret top` reads over HTTP, as JSON. Counters only grow; the reader computes
//! differences.

use serde::{Deserialize, Serialize};

/// The state of the broker at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// The broker's version.
    pub(crate) version: String,
    /// The broker's name.
    pub(crate) cluster_name: String,
    /// Time since the start.
    pub(crate) uptime_ns: u64,
    /// By number.
    pub(crate) shards: Vec<ShardSnapshot>,
    /// The busiest queues, busiest first.
    pub(crate) queues: Vec<QueueSnapshot>,
}

/// One shard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShardSnapshot {
    pub(crate) shard: u16,
    /// False if the shard did not answer in time; the rest is then from its last answer.
    pub(crate) answered: bool,
    pub(crate) connections: u64,
    pub(crate) channels: u64,
    pub(crate) consumers: u64,
    pub(crate) queues: u64,
    /// Connections that are blocked by an alarm.
    pub(crate) blocked: u64,
    /// The alarms that the shard knows of.
    pub(crate) memory_alarm: bool,
    pub(crate) disk_alarm: bool,
    pub(crate) log: Option<LogSnapshot>,
    pub(crate) flow: Flow,
    pub(crate) publish_to_deliver: Latency,
    pub(crate) time_in_queue: Latency,
}

/// One shard's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogSnapshot {
    /// Commits since the start.
    pub(crate) commits: u64,
    /// Bytes of these commits.
    pub(crate) committed_bytes: u64,
    /// Size of the files with records.
    pub(crate) used_bytes: u64,
    /// Size of the messages in these files that a queue still holds.
    pub(crate) live_bytes: u64,
}

/// One queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueueSnapshot {
    pub(crate) name: String,
    pub(crate) vhost: String,
    /// Its home.
    pub(crate) shard: u16,
    pub(crate) consumers: u64,
    pub(crate) flow: Flow,
    pub(crate) publish_to_deliver: Latency,
    pub(crate) time_in_queue: Latency,
}

/// Messages that are in queues now, and messages that passed since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Flow {
    pub(crate) ready: u64,
    pub(crate) unacked: u64,
    pub(crate) published: u64,
    pub(crate) delivered: u64,
    pub(crate) acknowledged: u64,
}

impl Flow {
    /// The sum of both.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            ready: self.ready + other.ready,
            unacked: self.unacked + other.unacked,
            published: self.published + other.published,
            delivered: self.delivered + other.delivered,
            acknowledged: self.acknowledged + other.acknowledged,
        }
    }
}

/// Counts of latencies: the upper bound of a bucket in nanoseconds, and its count. Empty buckets
/// are left out; the highest bound is `u64::MAX`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Latency(pub(crate) Vec<(u64, u64)>);

impl Latency {
    /// The counts since `earlier`.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let before = |bound: u64| {
            let found = earlier.0.iter().find(|(of, _)| *of == bound);
            found.map_or(0, |(_, count)| *count)
        };
        let counts =
            self.0.iter().map(|(bound, count)| (*bound, count.saturating_sub(before(*bound))));
        Self(counts.filter(|(_, count)| *count > 0).collect())
    }

    /// The sum of both.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        let mut sum = self.0.clone();
        for (bound, count) in &other.0 {
            match sum.binary_search_by_key(bound, |(of, _)| *of) {
                Ok(at) => sum[at].1 += count,
                Err(at) => sum.insert(at, (*bound, *count)),
            }
        }
        Self(sum)
    }

    /// The bound that a fraction `q` (0 to 1) of the latencies does not exceed; `None` if there are
    /// no latencies.
    pub(crate) fn quantile_ns(&self, q: f64) -> Option<u64> {
        let count: u64 = self.0.iter().map(|(_, count)| count).sum();
        let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let reached = self.0.iter().find(|(_, count)| {
            seen += count;
            seen >= rank
        });
        reached.map(|(bound, _)| *bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bounds_of_buckets() {
        let latency = Latency(vec![(1_000, 50), (2_000, 49), (u64::MAX, 1)]);
        assert_eq!(latency.quantile_ns(0.0), Some(1_000));
        assert_eq!(latency.quantile_ns(0.5), Some(1_000));
        assert_eq!(latency.quantile_ns(0.51), Some(2_000));
        assert_eq!(latency.quantile_ns(0.99), Some(2_000));
        assert_eq!(latency.quantile_ns(1.0), Some(u64::MAX));
        assert_eq!(Latency::default().quantile_ns(0.5), None);
    }

    #[test]
    fn differences_and_sums_keep_every_count() {
        let earlier = Latency(vec![(1_000, 5), (4_000, 2)]);
        let later = Latency(vec![(1_000, 5), (2_000, 3), (4_000, 9)]);
        assert_eq!(later.since(&earlier), Latency(vec![(2_000, 3), (4_000, 7)]));
        assert_eq!(earlier.plus(&later.since(&earlier)), later);
        let restarted = Latency(vec![(1_000, 1)]);
        assert_eq!(restarted.since(&later), Latency::default(), "a restart is not negative");
    }

    #[test]
    fn it_survives_json() {
        let mut snapshot = Snapshot { version: "1".into(), uptime_ns: 7, ..Snapshot::default() };
        snapshot.queues.push(QueueSnapshot {
            name: "a\u{1b}[31m\"".into(),
            time_in_queue: Latency(vec![(u64::MAX, 1)]),
            ..QueueSnapshot::default()
        });
        let text = serde_json::to_string(&snapshot).unwrap();
        assert!(!text.contains('\u{1b}'));
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), snapshot);
    }
}

//! Sample reports of shards, for the tests of metrics and responses.

use std::sync::Arc;

use leveret_broker::catalog::name::Name;
use leveret_broker::id::ShardId;
use leveret_broker::queue::Counts;
use leveret_broker::routing::topology::Topology;
use leveret_broker::settings::Settings;
use leveret_broker::shard::Shard;
use leveret_broker::shard::report::{LogReport, QueueReport};
use leveret_ring::RingCounters;

use crate::shared_state::shard_reports::{ShardAnswer, ShardReport};

/// The answer of a new shard.
pub(crate) fn fresh_answer(shard: u16) -> ShardAnswer {
    let topology = Topology::with_presets(1, 2);
    let fresh = Shard::new(ShardId(shard), 2, Arc::new(Settings::default()), topology);
    let report = ShardReport {
        report: fresh.report(true),
        ring: RingCounters::default(),
        buffers_free: 248,
        buffers_leased: 3,
    };
    ShardAnswer { answered: true, report: Some(Arc::new(report)) }
}

/// The answer of a shard with some traffic and with these queues.
pub(crate) fn busy_answer(shard: u16, queues: &[(&str, u64)]) -> ShardAnswer {
    let fresh = fresh_answer(shard);
    let mut busy = ShardReport::clone(&fresh.report.unwrap());
    let report = &mut busy.report;
    report.connections = 2;
    report.alarms.memory = true;
    report.blocked.alarm = 1;
    report.queues = queues.len();
    report.counts.client.published = 100;
    report.counts.home.delivered_auto_ack = 60;
    report.counts.client.got_manual_ack = 5;
    report.counts.home.damaged = 2;
    report.messages_paged_out = 7;
    let mut log = LogReport { live_bytes: 600, ..LogReport::default() };
    log.counts.commits = 11;
    report.log = Some(log);
    for nanoseconds in [3_000, 3_000, 2_000_000] {
        report.publish_to_deliver.saturating_record(nanoseconds);
        report.time_in_queue.saturating_record(nanoseconds / 2);
    }
    report.queue_reports = queues.iter().map(|(name, published)| queue(name, *published)).collect();
    ShardAnswer { answered: true, report: Some(Arc::new(busy)) }
}

fn queue(name: &str, published: u64) -> QueueReport {
    let mut latency = leveret_broker::histogram::Histogram::new();
    latency.record(3_000);
    latency.record(u64::MAX);
    let mut report = QueueReport {
        vhost: Name::from("/"),
        name: Name::from(name),
        messages_ready: 4,
        messages_unacked: 1,
        consumers: 2,
        counts: Counts::default(),
        latency: Some((latency.clone(), latency)),
    };
    report.counts.published = published;
    report
}

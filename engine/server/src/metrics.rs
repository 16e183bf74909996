//! Metrics in the text format of Prometheus: everything under `leveret_` per shard, and the core
//! families under `RabbitMQ`'s names, so that its dashboards and alerts find them.

mod text;

use leveret_broker::core::ShardCounts;
use leveret_broker::report::{QueueReport, Report};
use leveret_ring::RingCounters;

use self::text::{Kind, Text};
use crate::board::{Look, ShardReport};
use crate::host;
use crate::pages::{queue_reports, reports};

/// Whose metrics these are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity<'a> {
    pub(crate) cluster_name: &'a str,
    pub(crate) uptime_s: f64,
    pub(crate) connections_refused: u64,
}

type ShardGauge = (&'static str, &'static str, fn(&Report) -> usize);
type ShardCount = (&'static str, &'static str, fn(&ShardCounts) -> u64);
type RingCount = (&'static str, &'static str, fn(&RingCounters) -> u64);

#[rustfmt::skip]
const SHARD_GAUGES: [ShardGauge; 10] = [
    ("connections", "Open client connections.", |report| report.connections),
    ("channels", "Open channels.", |report| report.channels),
    ("consumers", "Consumers of the shard's queues.", |report| report.consumers),
    ("queues", "Queues that live on the shard.", |report| report.queues),
    ("queue_messages_ready", "Messages that wait.", |report| report.messages_ready),
    ("queue_messages_unacked", "Messages given out and not settled.", |report| report.messages_unacked),
    ("store_live_bytes", "Bytes of messages at rest.", |report| report.store_live_bytes),
    ("store_segment_bytes", "Bytes of segment memory, used or kept.", |report| report.store_segment_bytes),
    ("outbox_bytes", "Bytes that wait for sockets.", |report| report.outbox_bytes),
    ("mail_bytes", "Bytes that wait for other shards.", |report| report.mail_bytes),
];

#[rustfmt::skip]
const SHARD_COUNTS: [ShardCount; 18] = [
    ("connections_opened_total", "Connections accepted.", |counts| counts.connections_opened),
    ("connections_closed_total", "Connections closed.", |counts| counts.connections_closed),
    ("handshakes_timed_out_total", "Connections whose handshake took too long.", |counts| counts.handshakes_timed_out),
    ("heartbeats_missed_total", "Connections whose heartbeats stayed out.", |counts| counts.heartbeats_missed),
    ("channels_opened_total", "Channels opened.", |counts| counts.channels_opened),
    ("channels_closed_total", "Channels closed.", |counts| counts.channels_closed),
    ("messages_received_total", "Messages from publishers.", |counts| counts.published),
    ("messages_received_bytes_total", "Body bytes of those.", |counts| counts.published_bytes),
    ("messages_received_confirm_total", "Messages on channels in confirm mode.", |counts| counts.published_confirm),
    ("messages_unroutable_dropped_total", "Messages without a queue, dropped.", |counts| counts.unroutable_dropped),
    ("messages_unroutable_returned_total", "Messages without a queue, returned.", |counts| counts.unroutable_returned),
    ("messages_delivered_consume_auto_ack_total", "Deliveries that nobody acks.", |counts| counts.delivered_auto_ack),
    ("messages_delivered_consume_manual_ack_total", "Deliveries to be acked.", |counts| counts.delivered_manual_ack),
    ("messages_delivered_get_auto_ack_total", "basic.get that nobody acks.", |counts| counts.got_auto_ack),
    ("messages_delivered_get_manual_ack_total", "basic.get to be acked.", |counts| counts.got_manual_ack),
    ("messages_get_empty_total", "basic.get of an empty queue.", |counts| counts.got_empty),
    ("messages_redelivered_total", "Messages given out again.", |counts| counts.redelivered),
    ("messages_acknowledged_total", "Deliveries acked.", |counts| counts.acknowledged),
];

#[rustfmt::skip]
const RING_COUNTS: [RingCount; 8] = [
    ("ring_enters_total", "System calls of the ring.", |ring| ring.enters),
    ("ring_submissions_total", "Operations given to the kernel.", |ring| ring.submissions),
    ("ring_completions_total", "Completions taken from the kernel.", |ring| ring.completions),
    ("ring_receive_rearms_total", "Multishot receives armed again.", |ring| ring.receive_rearms),
    ("ring_starvations_total", "Receives that found no buffer.", |ring| ring.starvations),
    ("ring_completion_overflows_total", "Completion queue overflows.", |ring| ring.completion_overflows),
    ("ring_wakes_sent_total", "Wakes sent to other shards.", |ring| ring.wakes_sent),
    ("ring_wakes_received_total", "Wakes received.", |ring| ring.wakes_received),
];

/// What `RabbitMQ` calls the counts of messages; queues give the second label.
#[rustfmt::skip]
const GLOBAL_COUNTS: [ShardCount; 12] = [
    ("received", PROTOCOL, |counts| counts.published),
    ("received_confirm", PROTOCOL, |counts| counts.published_confirm),
    ("unroutable_dropped", PROTOCOL, |counts| counts.unroutable_dropped),
    ("unroutable_returned", PROTOCOL, |counts| counts.unroutable_returned),
    ("delivered", QUEUE_TYPE, delivered),
    ("delivered_consume_auto_ack", QUEUE_TYPE, |counts| counts.delivered_auto_ack),
    ("delivered_consume_manual_ack", QUEUE_TYPE, |counts| counts.delivered_manual_ack),
    ("delivered_get_auto_ack", QUEUE_TYPE, |counts| counts.got_auto_ack),
    ("delivered_get_manual_ack", QUEUE_TYPE, |counts| counts.got_manual_ack),
    ("get_empty", QUEUE_TYPE, |counts| counts.got_empty),
    ("redelivered", QUEUE_TYPE, |counts| counts.redelivered),
    ("acknowledged", QUEUE_TYPE, |counts| counts.acknowledged),
];

/// Gauges that `RabbitMQ` has too.
const OBJECTS: [&str; 4] = ["connections", "channels", "consumers", "queues"];

const PROTOCOL: &str = "protocol=\"amqp091\"";
const QUEUE_TYPE: &str = "protocol=\"amqp091\",queue_type=\"rabbit_classic_queue\"";

fn delivered(counts: &ShardCounts) -> u64 {
    counts.delivered_auto_ack
        + counts.delivered_manual_ack
        + counts.got_auto_ack
        + counts.got_manual_ack
}

/// The metrics of the whole broker and of each shard. Families that [`queues`] has per queue are
/// left out `with_queues`, as `RabbitMQ` does.
pub(crate) fn broker(looks: &[Look], identity: &Identity<'_>, with_queues: bool) -> String {
    let mut text = Text::default();
    text.family("leveret_build_info", Kind::Gauge, "The broker's version.");
    text.sample(
        "leveret_build_info",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1,
    );
    text.single(
        "leveret_uptime_seconds",
        Kind::Gauge,
        "Since the start.",
        identity.uptime_s,
    );
    text.single(
        "leveret_connections_refused_total",
        Kind::Counter,
        "Connections closed at once, at the limit or in a storm.",
        identity.connections_refused,
    );
    let exchanges = reports(looks)
        .map(|look| look.report.exchanges)
        .max()
        .unwrap_or(0);
    text.single("leveret_exchanges", Kind::Gauge, "Exchanges.", exchanges);
    shards(&mut text, looks);
    latencies(&mut text, looks);
    process(&mut text);
    rabbitmq(&mut text, looks, identity);
    if !with_queues {
        queue_sums(&mut text, looks);
    }
    text.finish()
}

fn shards(text: &mut Text, looks: &[Look]) {
    let name = "leveret_shard_answered";
    text.family(
        name,
        Kind::Gauge,
        "0: the shard did not answer in time; its figures are old.",
    );
    for (shard, look) in looks.iter().enumerate() {
        text.sample(
            name,
            &[("shard", &shard.to_string())],
            u8::from(look.answered),
        );
    }
    for (name, help, value) in SHARD_GAUGES {
        per_shard(text, looks, name, Kind::Gauge, help, |look| {
            value(&look.report) as u64
        });
    }
    for (name, help, value) in SHARD_COUNTS {
        per_shard(text, looks, name, Kind::Counter, help, |look| {
            value(&look.report.counts)
        });
    }
    for (name, help, value) in RING_COUNTS {
        per_shard(text, looks, name, Kind::Counter, help, |look| {
            value(&look.ring)
        });
    }
    per_shard(
        text,
        looks,
        "receive_buffers_free",
        Kind::Gauge,
        "Free receive buffers.",
        |look| u64::from(look.buffers_free),
    );
    per_shard(
        text,
        looks,
        "receive_buffers_leased",
        Kind::Gauge,
        "Buffers in use.",
        |look| u64::from(look.buffers_leased),
    );
}

fn per_shard(
    text: &mut Text,
    looks: &[Look],
    name: &str,
    kind: Kind,
    help: &str,
    value: impl Fn(&ShardReport) -> u64,
) {
    let name = format!("leveret_{name}");
    text.family(&name, kind, help);
    for look in reports(looks) {
        text.sample(
            &name,
            &[("shard", &look.report.shard.to_string())],
            value(look),
        );
    }
}

fn latencies(text: &mut Text, looks: &[Look]) {
    let name = "leveret_publish_to_deliver_seconds";
    text.family(
        name,
        Kind::Histogram,
        "From a publish to the delivery's way out.",
    );
    for look in reports(looks) {
        let shard = look.report.shard.to_string();
        text.precise_histogram(name, &[("shard", &shard)], &look.report.publish_to_deliver);
    }
    let name = "leveret_time_in_queue_seconds";
    text.family(
        name,
        Kind::Histogram,
        "From becoming ready to leaving the queue.",
    );
    for look in reports(looks) {
        let shard = look.report.shard.to_string();
        text.precise_histogram(name, &[("shard", &shard)], &look.report.time_in_queue);
    }
}

/// Under the usual names and under those of `RabbitMQ`'s dashboards.
fn process(text: &mut Text) {
    let figures = [
        (
            "process_resident_memory_bytes",
            "Resident memory.",
            host::resident_bytes(),
        ),
        ("process_open_fds", "Open files.", host::open_files()),
        (
            "process_max_fds",
            "The limit of open files.",
            host::limit("Max open files"),
        ),
    ];
    for (name, help, value) in figures {
        let Some(value) = value else { continue };
        text.single(name, Kind::Gauge, help, value);
        text.single(&format!("rabbitmq_{name}"), Kind::Gauge, help, value);
    }
}

fn rabbitmq(text: &mut Text, looks: &[Look], identity: &Identity<'_>) {
    let name = identity.cluster_name;
    text.family(
        "rabbitmq_identity_info",
        Kind::Gauge,
        "What dashboards join everything on.",
    );
    let labels = [
        ("rabbitmq_node", name),
        ("rabbitmq_cluster", name),
        ("rabbitmq_cluster_permanent_id", name),
        ("rabbitmq_endpoint", "aggregated"),
    ];
    text.sample("rabbitmq_identity_info", &labels, 1);
    text.family("rabbitmq_build_info", Kind::Gauge, "The broker's version.");
    let labels = [
        ("rabbitmq_version", env!("CARGO_PKG_VERSION")),
        ("product_name", "Leveret"),
        ("product_version", env!("CARGO_PKG_VERSION")),
    ];
    text.sample("rabbitmq_build_info", &labels, 1);
    let uptime = "Since the start; called so for RabbitMQ's dashboards.";
    text.single(
        "rabbitmq_erlang_uptime_seconds",
        Kind::Gauge,
        uptime,
        identity.uptime_s,
    );

    for (name, help, value) in SHARD_GAUGES
        .iter()
        .filter(|(name, ..)| OBJECTS.contains(name))
    {
        let sum: usize = reports(looks).map(|look| value(&look.report)).sum();
        text.single(&format!("rabbitmq_{name}"), Kind::Gauge, help, sum);
    }
    let opened_and_closed = SHARD_COUNTS
        .iter()
        .filter(|(name, ..)| name.ends_with("s_opened_total") || name.ends_with("s_closed_total"));
    for (name, help, value) in opened_and_closed {
        let sum: u64 = reports(looks).map(|look| value(&look.report.counts)).sum();
        text.single(&format!("rabbitmq_{name}"), Kind::Counter, help, sum);
    }
    for (name, labels, value) in GLOBAL_COUNTS {
        let name = format!("rabbitmq_global_messages_{name}_total");
        let sum: u64 = reports(looks).map(|look| value(&look.report.counts)).sum();
        text.family(&name, Kind::Counter, "Over all queues.");
        text.labelled(&name, labels, sum);
    }
    let consumers: usize = reports(looks).map(|look| look.report.consumers).sum();
    text.family("rabbitmq_global_consumers", Kind::Gauge, "Consumers.");
    text.labelled("rabbitmq_global_consumers", PROTOCOL, consumers);
}

/// Messages of all queues together.
fn queue_sums(text: &mut Text, looks: &[Look]) {
    let sum = |of: fn(&Report) -> usize| reports(looks).map(|look| of(&look.report)).sum::<usize>();
    let (ready, unacked) = (
        sum(|report| report.messages_ready),
        sum(|report| report.messages_unacked),
    );
    for (name, help, value) in [
        (
            "rabbitmq_queue_messages",
            "Ready and unacked messages.",
            ready + unacked,
        ),
        (
            "rabbitmq_queue_messages_ready",
            "Messages that wait.",
            ready,
        ),
        (
            "rabbitmq_queue_messages_unacked",
            "Messages given out and not settled.",
            unacked,
        ),
    ] {
        text.single(name, Kind::Gauge, help, value);
    }
}

type QueueFigure = (&'static str, Kind, &'static str, fn(&QueueReport) -> u64);

#[rustfmt::skip]
const QUEUE_FIGURES: [QueueFigure; 8] = [
    ("rabbitmq_queue_messages", Kind::Gauge, "Ready and unacked messages.", |queue| (queue.messages_ready + queue.messages_unacked) as u64),
    ("rabbitmq_queue_messages_ready", Kind::Gauge, "Messages that wait.", |queue| queue.messages_ready as u64),
    ("rabbitmq_queue_messages_unacked", Kind::Gauge, "Messages given out and not settled.", |queue| queue.messages_unacked as u64),
    ("rabbitmq_queue_consumers", Kind::Gauge, "Consumers.", |queue| queue.consumers as u64),
    ("leveret_queue_messages_published_total", Kind::Counter, "Messages that came in.", |queue| queue.counts.published),
    ("leveret_queue_messages_delivered_total", Kind::Counter, "Messages given out.", |queue| queue.counts.delivered),
    ("leveret_queue_messages_acknowledged_total", Kind::Counter, "Deliveries acked.", |queue| queue.counts.acknowledged),
    ("leveret_queue_messages_redelivered_total", Kind::Counter, "Messages given out again.", |queue| queue.counts.redelivered),
];

/// The metrics of each queue, where they were asked for and are not too many.
pub(crate) fn queues(looks: &[Look]) -> String {
    let mut text = Text::default();
    let there: usize = reports(looks).map(|look| look.report.queues).sum();
    let described = queue_reports(looks).count();
    text.single(
        "leveret_queues_not_described",
        Kind::Gauge,
        "Queues left out below, all of them where there are too many.",
        there.saturating_sub(described),
    );
    for (name, kind, help, value) in QUEUE_FIGURES {
        text.family(name, kind, help);
        for (_, queue) in queue_reports(looks) {
            with_labels(queue, |labels| text.sample(name, labels, value(queue)));
        }
    }
    let name = "leveret_queue_publish_to_deliver_seconds";
    text.family(
        name,
        Kind::Histogram,
        "From a publish to the delivery's way out.",
    );
    for (_, queue) in queue_reports(looks) {
        let Some((latency, _)) = &queue.latency else {
            continue;
        };
        with_labels(queue, |labels| {
            text.compact_histogram(name, labels, latency)
        });
    }
    let name = "leveret_queue_time_in_queue_seconds";
    text.family(
        name,
        Kind::Histogram,
        "From becoming ready to leaving the queue.",
    );
    for (_, queue) in queue_reports(looks) {
        let Some((_, latency)) = &queue.latency else {
            continue;
        };
        with_labels(queue, |labels| {
            text.compact_histogram(name, labels, latency)
        });
    }
    text.finish()
}

fn with_labels(queue: &QueueReport, then: impl FnOnce(&[(&str, &str)])) {
    let vhost = String::from_utf8_lossy(queue.vhost.as_bytes());
    let name = String::from_utf8_lossy(queue.name.as_bytes());
    then(&[("vhost", &vhost), ("queue", &name)]);
}

#[cfg(test)]
mod tests;

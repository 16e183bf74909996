//! The tables of metric families: name, help text, and where the value comes from.

use leveret_broker::alarms::Alarms;
use leveret_broker::delivery::body_bytes::Copies;
use leveret_broker::shard::counts::ShardCounts;
use leveret_broker::shard::report::{BlockedCounts, LogReport, QueueReport, Report};
use leveret_broker::storage::log::LogCounts;
use leveret_ring::RingCounters;

use super::text::Kind;

/// A gauge of a shard, under `leveret_`.
pub(super) type ShardGauge = (&'static str, &'static str, fn(&Report) -> usize);
/// A counter of a shard, under `leveret_`.
pub(super) type ShardCount = (&'static str, &'static str, fn(&ShardCounts) -> u64);
/// A gauge of a shard's log, under `leveret_log_`.
pub(super) type LogGauge = (&'static str, &'static str, fn(&LogReport) -> u64);
/// A counter of a shard's log, under `leveret_log_`.
pub(super) type LogCount = (&'static str, &'static str, fn(&LogCounts) -> u64);
/// A counter of a shard's ring, under `leveret_`.
pub(super) type RingCount = (&'static str, &'static str, fn(&RingCounters) -> u64);
/// The purpose of a copy, and how many body bytes were copied for it.
pub(super) type BodyCopy = (&'static str, fn(&Copies) -> u64);
/// A reason why publishers are blocked, and how many connections it blocks.
pub(super) type BlockReason = (&'static str, fn(&BlockedCounts) -> usize);
/// An alarm.
pub(super) type Alarm = (&'static str, &'static str, fn(Alarms) -> bool);
/// A figure of a queue.
pub(super) type QueueFigure = (&'static str, Kind, &'static str, fn(&QueueReport) -> u64);

/// A table of rows `field "name" "text";`.
macro_rules! table {
    ($($($field:ident).+ $name:literal $text:expr;)*) => {
        [$(($name, $text, |of| of.$($field).+),)*]
    };
}

/// Gauges of a shard.
pub(super) const SHARD_GAUGES: [ShardGauge; 12] = table! {
    connections "connections" "Open client connections.";
    channels "channels" "Open channels.";
    consumers "consumers" "Consumers of the shard's queues.";
    queues "queues" "Queues that live on the shard.";
    messages_ready "queue_messages_ready" "Messages that wait.";
    messages_unacked "queue_messages_unacked" "Messages given out and not settled.";
    store_live_bytes "store_live_bytes" "Bytes of messages at rest.";
    store_segment_bytes "store_segment_bytes" "Bytes of segment memory, used or kept.";
    messages_paged_out "messages_paged_out" "Messages at rest that are on disk only.";
    outbox_bytes "outbox_bytes" "Bytes that wait for sockets.";
    mail_bytes "mail_bytes" "Bytes that wait for other shards.";
    memory_bytes "memory_bytes" "Memory of messages, what the memory alarm is about.";
};

/// Why publishers are blocked.
pub(super) const BLOCKED: [BlockReason; 4] = [
    ("alarm", |blocked| blocked.alarm),
    ("log", |blocked| blocked.log),
    ("mesh", |blocked| blocked.mesh),
    ("backlog", |blocked| blocked.backlog),
];

/// The alarms under `RabbitMQ`'s names.
pub(super) const ALARMS: [Alarm; 2] = [
    ("memory_used_watermark", "1: memory runs out.", |alarms| alarms.memory),
    ("free_disk_space_watermark", "1: disk space runs out.", |alarms| alarms.disk),
];

/// Counters of a shard.
pub(super) const SHARD_COUNTS: [ShardCount; 19] = table! {
    client.connections_opened "connections_opened_total" "Connections accepted.";
    client.connections_closed "connections_closed_total" "Connections closed.";
    client.handshakes_timed_out "handshakes_timed_out_total" "Handshakes that took too long.";
    client.heartbeats_missed "heartbeats_missed_total" "Connections whose heartbeats stayed out.";
    client.channels_opened "channels_opened_total" "Channels opened.";
    client.channels_closed "channels_closed_total" "Channels closed.";
    client.published "messages_received_total" "Messages from publishers.";
    client.published_bytes "messages_received_bytes_total" "Body bytes of those.";
    published_confirm "messages_received_confirm_total" "Messages on channels in confirm mode.";
    client.unroutable_dropped "messages_unroutable_dropped_total" "Dropped: no queue.";
    client.unroutable_returned "messages_unroutable_returned_total" "Returned: no queue.";
    home.delivered_auto_ack "messages_delivered_consume_auto_ack_total" "Deliveries without acks.";
    home.delivered_manual_ack "messages_delivered_consume_manual_ack_total" "Deliveries with acks.";
    client.got_auto_ack "messages_delivered_get_auto_ack_total" "basic.get without acks.";
    client.got_manual_ack "messages_delivered_get_manual_ack_total" "basic.get to be acked.";
    home.got_empty "messages_get_empty_total" "basic.get of an empty queue.";
    home.redelivered "messages_redelivered_total" "Messages given out again.";
    client.acknowledged "messages_acknowledged_total" "Deliveries acked.";
    home.damaged "messages_damaged_total" "Lost messages, and damage found at boot.";
};

/// The purposes for which body bytes are copied.
pub(super) const BODY_COPIES: [BodyCopy; 5] = [
    ("assembly", |copied| copied.assembly),
    ("store", |copied| copied.store),
    ("log", |copied| copied.log),
    ("mail", |copied| copied.mail),
    ("outbox", |copied| copied.outbox),
];

/// Gauges of a log.
pub(super) const LOG_GAUGES: [LogGauge; 5] = [
    ("segments", "Segments with records.", |log| log.segments as u64),
    ("used_bytes", "Bytes of their files.", |log| log.used_bytes),
    ("live_bytes", "Bytes of messages in them that some queue holds.", |log| log.live_bytes),
    ("waiting_bytes", "Bytes in memory that wait to be written.", |log| log.waiting_bytes as u64),
    ("unconfirmed", "Publishes whose confirm waits for the disk.", |log| log.unconfirmed),
];

/// Counters of a log.
pub(super) const LOG_COUNTS: [LogCount; 9] = table! {
    commits "commits_total" "Commits: one write and flush for all that came meanwhile.";
    committed_bytes "committed_bytes_total" "Bytes of those.";
    publishes "publishes_total" "Publish records, copies not counted.";
    publish_bytes "publish_bytes_total" "Bytes of those.";
    copies "copies_total" "Publish records copied forward to empty a segment.";
    copied_bytes "copied_bytes_total" "Bytes of those.";
    settles "settles_total" "Settle records.";
    recycled "segments_recycled_total" "Segments taken into use again.";
    reads "reads_total" "Reads of messages that were on disk only.";
};

/// Counters of a ring.
pub(super) const RING_COUNTS: [RingCount; 9] = table! {
    enters "ring_enters_total" "System calls of the ring.";
    submissions "ring_submissions_total" "Operations given to the kernel.";
    completions "ring_completions_total" "Completions taken from the kernel.";
    receive_rearms "ring_receive_rearms_total" "Multishot receives armed again.";
    starvations "ring_starvations_total" "Receives that found no buffer.";
    received_bytes_copied "ring_received_bytes_copied_total" "Received bytes copied out of short \
        buffers.";
    completion_overflows "ring_completion_overflows_total" "Completion queue overflows.";
    wakes_sent "ring_wakes_sent_total" "Wakes sent to other shards.";
    wakes_received "ring_wakes_received_total" "Wakes received.";
};

/// Gauges that `RabbitMQ` has too.
pub(super) const OBJECTS: [&str; 4] = ["connections", "channels", "consumers", "queues"];

/// The label of counters of published messages.
pub(super) const PROTOCOL: &str = "protocol=\"amqp091\"";
/// The labels of counters of delivered messages.
const QUEUE_TYPE: &str = "protocol=\"amqp091\",queue_type=\"rabbit_classic_queue\"";

/// `rabbitmq_global_messages_*_total` with its labels.
pub(super) const GLOBAL_COUNTS: [ShardCount; 11] = table! {
    client.published "received" PROTOCOL;
    published_confirm "received_confirm" PROTOCOL;
    client.unroutable_dropped "unroutable_dropped" PROTOCOL;
    client.unroutable_returned "unroutable_returned" PROTOCOL;
    home.delivered_auto_ack "delivered_consume_auto_ack" QUEUE_TYPE;
    home.delivered_manual_ack "delivered_consume_manual_ack" QUEUE_TYPE;
    client.got_auto_ack "delivered_get_auto_ack" QUEUE_TYPE;
    client.got_manual_ack "delivered_get_manual_ack" QUEUE_TYPE;
    home.got_empty "get_empty" QUEUE_TYPE;
    home.redelivered "redelivered" QUEUE_TYPE;
    client.acknowledged "acknowledged" QUEUE_TYPE;
};

/// The sum of all kinds of deliveries, as `RabbitMQ` counts it.
pub(super) const GLOBAL_DELIVERED: ShardCount = ("delivered", QUEUE_TYPE, |counts| {
    counts.home.delivered_auto_ack
        + counts.home.delivered_manual_ack
        + counts.client.got_auto_ack
        + counts.client.got_manual_ack
});

/// The figures of each queue.
pub(super) const QUEUE_FIGURES: [QueueFigure; 8] = [
    ("rabbitmq_queue_messages", Kind::Gauge, "Ready and unacked messages.", |queue| {
        (queue.messages_ready + queue.messages_unacked) as u64
    }),
    ("rabbitmq_queue_messages_ready", Kind::Gauge, "Messages that wait.", |queue| {
        queue.messages_ready as u64
    }),
    ("rabbitmq_queue_messages_unacked", Kind::Gauge, "Messages not settled.", |queue| {
        queue.messages_unacked as u64
    }),
    ("rabbitmq_queue_consumers", Kind::Gauge, "Consumers.", |queue| queue.consumers as u64),
    ("leveret_queue_messages_published_total", Kind::Counter, "Messages in.", |queue| {
        queue.counts.published
    }),
    ("leveret_queue_messages_delivered_total", Kind::Counter, "Messages given out.", |queue| {
        queue.counts.delivered
    }),
    ("leveret_queue_messages_acknowledged_total", Kind::Counter, "Deliveries acked.", |queue| {
        queue.counts.acknowledged
    }),
    ("leveret_queue_messages_redelivered_total", Kind::Counter, "Given out again.", |queue| {
        queue.counts.redelivered
    }),
];

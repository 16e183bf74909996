//! Metrics in the text format of Prometheus. Everything is there under `leveret_`, per shard; the
//! core families are also there under `RabbitMQ`'s names, so that its dashboards and alerts work.

mod families;
mod text;

use leveret_broker::home::leaving::Reason;
use leveret_broker::shard::report::{QueueReport, Report};

use self::families::{
    ALARMS, BLOCKED, BODY_COPIES, GLOBAL_COUNTS, GLOBAL_DELIVERED, LOG_COUNTS, LOG_GAUGES, OBJECTS,
    PROTOCOL, QUEUE_FIGURES, RING_COUNTS, SHARD_COUNTS, SHARD_GAUGES,
};
use self::text::{Kind, Text};
use crate::config::Durability;
use crate::host;
use crate::shared_state::shard_reports::{ShardAnswer, ShardReport, queue_reports, reports};

/// Labels and values that describe the broker as a whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity<'a> {
    pub(crate) cluster_name: &'a str,
    pub(crate) uptime_s: f64,
    pub(crate) durability: Durability,
    pub(crate) figures: Figures,
}

/// Values that no shard reports.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) connections_refused: u64,
    /// Publishers are blocked above this.
    pub(crate) memory_limit_bytes: u64,
    /// Free space of the data directory's file system.
    pub(crate) disk_free_bytes: u64,
}

/// The metrics of the whole broker and of each shard. If `with_queues`, the families that
/// [`queues`] has per queue are left out, as `RabbitMQ` does.
pub(crate) fn broker(
    answers: &[ShardAnswer],
    identity: &Identity<'_>,
    with_queues: bool,
) -> String {
    let mut text = Text::default();
    text.family("leveret_build_info", Kind::Gauge, "The broker's version.");
    text.sample("leveret_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.family("leveret_durability_info", Kind::Gauge, "What has a message when it is confirmed.");
    text.sample("leveret_durability_info", &[("mode", &identity.durability.to_string())], 1);
    text.single("leveret_uptime_seconds", Kind::Gauge, "Since the start.", identity.uptime_s);
    text.single(
        "leveret_connections_refused_total",
        Kind::Counter,
        "Connections closed at once, at the limit or in a storm.",
        identity.figures.connections_refused,
    );
    let exchanges = reports(answers).map(|shard| shard.report.exchanges).max().unwrap_or(0);
    text.single("leveret_exchanges", Kind::Gauge, "Exchanges.", exchanges);
    resources(&mut text, identity.figures);
    shards(&mut text, answers);
    logs(&mut text, answers);
    bodies(&mut text, answers);
    left_queues(&mut text, answers);
    blocked(&mut text, answers);
    latencies(&mut text, answers);
    process(&mut text);
    rabbitmq(&mut text, answers, identity);
    if !with_queues {
        queue_sums(&mut text, answers);
    }
    text.finish()
}

fn shards(text: &mut Text, answers: &[ShardAnswer]) {
    let name = "leveret_shard_answered";
    text.family(name, Kind::Gauge, "0: the shard did not answer in time; its figures are old.");
    for (shard, answer) in answers.iter().enumerate() {
        text.sample(name, &[("shard", &shard.to_string())], u8::from(answer.answered));
    }
    for (name, help, value) in SHARD_GAUGES {
        per_shard(text, answers, name, Kind::Gauge, help, |shard| value(&shard.report) as u64);
    }
    for (name, help, value) in SHARD_COUNTS {
        per_shard(text, answers, name, Kind::Counter, help, |shard| value(&shard.report.counts));
    }
    for (name, help, value) in RING_COUNTS {
        per_shard(text, answers, name, Kind::Counter, help, |shard| value(&shard.ring));
    }
    per_shard(
        text,
        answers,
        "receive_buffers_free",
        Kind::Gauge,
        "Free receive buffers.",
        |shard| u64::from(shard.buffers_free),
    );
    per_shard(text, answers, "receive_buffers_leased", Kind::Gauge, "Buffers in use.", |shard| {
        u64::from(shard.buffers_leased)
    });
}

/// Under our own names and under those of `RabbitMQ`'s dashboards.
fn resources(text: &mut Text, figures: Figures) {
    for (name, rabbitmq_name, help, value) in [
        (
            "memory_limit_bytes",
            "resident_memory_limit_bytes",
            "Memory of messages above which publishers are blocked.",
            figures.memory_limit_bytes,
        ),
        (
            "disk_free_bytes",
            "disk_space_available_bytes",
            "Free space where the data directory is.",
            figures.disk_free_bytes,
        ),
    ] {
        text.single(&format!("leveret_{name}"), Kind::Gauge, help, value);
        text.single(&format!("rabbitmq_{rabbitmq_name}"), Kind::Gauge, help, value);
    }
}

fn logs(text: &mut Text, answers: &[ShardAnswer]) {
    for (name, help, value) in LOG_GAUGES {
        let name = format!("log_{name}");
        per_shard(text, answers, &name, Kind::Gauge, help, |shard| {
            shard.report.log.as_ref().map_or(0, value)
        });
    }
    for (name, help, value) in LOG_COUNTS {
        let name = format!("log_{name}");
        per_shard(text, answers, &name, Kind::Counter, help, |shard| {
            shard.report.log.map_or(0, |log| value(&log.counts))
        });
    }
}

/// Shows that bodies are not copied: compare these two families over all shards.
fn bodies(text: &mut Text, answers: &[ShardAnswer]) {
    let help = "Body bytes put into what is sent to clients, by copy or by reference.";
    per_shard(text, answers, "body_bytes_delivered_total", Kind::Counter, help, |shard| {
        shard.report.body_bytes.delivered()
    });
    let name = "leveret_body_bytes_copied_total";
    text.family(name, Kind::Counter, "Body bytes copied in user space, and into what.");
    for shard in reports(answers) {
        let label = shard.report.shard.to_string();
        for (into, bytes) in BODY_COPIES {
            let labels = [("shard", label.as_str()), ("into", into)];
            text.sample(name, &labels, bytes(&shard.report.body_bytes.copied));
        }
    }
}

fn left_queues(text: &mut Text, answers: &[ShardAnswer]) {
    let name = "leveret_messages_left_total";
    text.family(name, Kind::Counter, "Messages that left queues, by the reason.");
    for answer in reports(answers) {
        let shard = answer.report.shard.to_string();
        for reason in Reason::ALL {
            let labels = [("shard", shard.as_str()), ("reason", reason.word())];
            text.sample(name, &labels, answer.report.counts.home.left[reason as usize]);
        }
    }
}

fn blocked(text: &mut Text, answers: &[ShardAnswer]) {
    let name = "leveret_connections_blocked";
    text.family(name, Kind::Gauge, "Connections whose publishes are held back, and why.");
    for shard in reports(answers) {
        let label = shard.report.shard.to_string();
        for (reason, count) in BLOCKED {
            let labels = [("shard", label.as_str()), ("reason", reason)];
            text.sample(name, &labels, count(&shard.report.blocked));
        }
    }
}

fn per_shard(
    text: &mut Text,
    answers: &[ShardAnswer],
    name: &str,
    kind: Kind,
    help: &str,
    value: impl Fn(&ShardReport) -> u64,
) {
    let name = format!("leveret_{name}");
    text.family(&name, kind, help);
    for shard in reports(answers) {
        text.sample(&name, &[("shard", &shard.report.shard.to_string())], value(shard));
    }
}

fn latencies(text: &mut Text, answers: &[ShardAnswer]) {
    let name = "leveret_publish_to_deliver_seconds";
    text.family(name, Kind::Histogram, "From a publish to the delivery's way out.");
    for shard in reports(answers) {
        let label = shard.report.shard.to_string();
        text.precise_histogram(name, &[("shard", &label)], &shard.report.publish_to_deliver);
    }
    let name = "leveret_time_in_queue_seconds";
    text.family(name, Kind::Histogram, "From becoming ready to leaving the queue.");
    for shard in reports(answers) {
        let label = shard.report.shard.to_string();
        text.precise_histogram(name, &[("shard", &label)], &shard.report.time_in_queue);
    }
}

/// Under Prometheus's usual names and under those of `RabbitMQ`'s dashboards.
fn process(text: &mut Text) {
    let figures = [
        ("process_resident_memory_bytes", "Resident memory.", host::resident_bytes()),
        ("process_open_fds", "Open files.", host::open_files()),
        ("process_max_fds", "The limit of open files.", host::limit("Max open files")),
    ];
    for (name, help, value) in figures {
        let Some(value) = value else { continue };
        text.single(name, Kind::Gauge, help, value);
        text.single(&format!("rabbitmq_{name}"), Kind::Gauge, help, value);
    }
}

fn rabbitmq(text: &mut Text, answers: &[ShardAnswer], identity: &Identity<'_>) {
    let name = identity.cluster_name;
    text.family("rabbitmq_identity_info", Kind::Gauge, "What dashboards join everything on.");
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
    text.single("rabbitmq_erlang_uptime_seconds", Kind::Gauge, uptime, identity.uptime_s);

    for (name, help, value) in SHARD_GAUGES.iter().filter(|(name, ..)| OBJECTS.contains(name)) {
        let sum: usize = reports(answers).map(|shard| value(&shard.report)).sum();
        text.single(&format!("rabbitmq_{name}"), Kind::Gauge, help, sum);
    }
    let opened_and_closed = SHARD_COUNTS
        .iter()
        .filter(|(name, ..)| name.ends_with("s_opened_total") || name.ends_with("s_closed_total"));
    for (name, help, value) in opened_and_closed {
        let sum: u64 = reports(answers).map(|shard| value(&shard.report.counts)).sum();
        text.single(&format!("rabbitmq_{name}"), Kind::Counter, help, sum);
    }
    for (name, labels, value) in GLOBAL_COUNTS.into_iter().chain([GLOBAL_DELIVERED]) {
        let name = format!("rabbitmq_global_messages_{name}_total");
        let sum: u64 = reports(answers).map(|shard| value(&shard.report.counts)).sum();
        text.family(&name, Kind::Counter, "Over all queues.");
        text.labelled(&name, labels, sum);
    }
    for (name, help, is_on) in ALARMS {
        let on = reports(answers).any(|shard| is_on(shard.report.alarms));
        text.single(&format!("rabbitmq_alarms_{name}"), Kind::Gauge, help, u8::from(on));
    }
    let consumers: usize = reports(answers).map(|shard| shard.report.consumers).sum();
    text.family("rabbitmq_global_consumers", Kind::Gauge, "Consumers.");
    text.labelled("rabbitmq_global_consumers", PROTOCOL, consumers);
}

/// The messages of all queues together.
fn queue_sums(text: &mut Text, answers: &[ShardAnswer]) {
    let sum =
        |of: fn(&Report) -> usize| reports(answers).map(|shard| of(&shard.report)).sum::<usize>();
    let (ready, unacked) =
        (sum(|report| report.messages_ready), sum(|report| report.messages_unacked));
    for (name, help, value) in [
        ("rabbitmq_queue_messages", "Ready and unacked messages.", ready + unacked),
        ("rabbitmq_queue_messages_ready", "Messages that wait.", ready),
        ("rabbitmq_queue_messages_unacked", "Messages given out and not settled.", unacked),
    ] {
        text.single(name, Kind::Gauge, help, value);
    }
}

/// The metrics of each queue; none if there are too many queues to describe.
pub(crate) fn queues(answers: &[ShardAnswer]) -> String {
    let mut text = Text::default();
    let there: usize = reports(answers).map(|shard| shard.report.queues).sum();
    let described = queue_reports(answers).count();
    text.single(
        "leveret_queues_not_described",
        Kind::Gauge,
        "Queues left out below, all of them where there are too many.",
        there.saturating_sub(described),
    );
    for (name, kind, help, value) in QUEUE_FIGURES {
        text.family(name, kind, help);
        for (_, queue) in queue_reports(answers) {
            with_labels(queue, |labels| text.sample(name, labels, value(queue)));
        }
    }
    let name = "leveret_queue_publish_to_deliver_seconds";
    text.family(name, Kind::Histogram, "From a publish to the delivery's way out.");
    for (_, queue) in queue_reports(answers) {
        let Some((latency, _)) = &queue.latency else {
            continue;
        };
        with_labels(queue, |labels| {
            text.compact_histogram(name, labels, latency);
        });
    }
    let name = "leveret_queue_time_in_queue_seconds";
    text.family(name, Kind::Histogram, "From becoming ready to leaving the queue.");
    for (_, queue) in queue_reports(answers) {
        let Some((_, latency)) = &queue.latency else {
            continue;
        };
        with_labels(queue, |labels| {
            text.compact_histogram(name, labels, latency);
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

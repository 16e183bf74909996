#![allow(clippy::float_cmp, reason = "counts are whole, and kept exactly")]

use std::collections::BTreeSet;

use super::*;
use crate::http::sample_reports::{busy_answer, fresh_answer};

fn identity() -> Identity<'static> {
    let figures =
        Figures { connections_refused: 3, memory_limit_bytes: 4_000, disk_free_bytes: 5_000 };
    Identity {
        cluster_name: "leveret@alpha",
        uptime_s: 1.5,
        durability: Durability::Flush,
        figures,
    }
}

/// Checks the format of every line; returns the samples.
fn parse(text: &str) -> Vec<(String, f64)> {
    let mut families = BTreeSet::new();
    let mut family = String::new();
    let mut samples = Vec::new();
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap().to_owned();
            assert!(families.insert(family.clone()), "{family} is there twice");
            continue;
        }
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert!(["counter", "gauge", "histogram"].contains(&kind));
            assert!(kind != "counter" || name.ends_with("_total"), "{name}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        let suffixes = ["", "_bucket", "_sum", "_count"];
        assert!(suffixes.iter().any(|suffix| name == format!("{family}{suffix}")), "{line}");
        samples.push((series.to_owned(), value.parse().unwrap()));
    }
    let series: BTreeSet<_> = samples.iter().map(|(series, _)| series).collect();
    assert_eq!(series.len(), samples.len(), "no series is there twice");
    samples
}

fn value(samples: &[(String, f64)], series: &str) -> f64 {
    let found = samples.iter().find(|(of, _)| of == series);
    found.unwrap_or_else(|| panic!("{series} is missing")).1
}

#[test]
fn the_broker_is_described_per_shard_and_as_rabbitmq() {
    let answers = [busy_answer(0, &[("a", 1)]), busy_answer(1, &[("b", 1), ("c", 1)])];
    let samples = parse(&broker(&answers, &identity(), false));
    for (series, expected) in [
        ("leveret_connections{shard=\"0\"}", 2.0),
        ("leveret_queues{shard=\"1\"}", 2.0),
        ("leveret_messages_received_total{shard=\"0\"}", 100.0),
        ("leveret_receive_buffers_free{shard=\"0\"}", 248.0),
        ("leveret_connections_refused_total", 3.0),
        ("leveret_durability_info{mode=\"flush\"}", 1.0),
        ("leveret_memory_limit_bytes", 4_000.0),
        ("rabbitmq_disk_space_available_bytes", 5_000.0),
        ("leveret_messages_damaged_total{shard=\"1\"}", 2.0),
        ("leveret_messages_paged_out{shard=\"0\"}", 7.0),
        ("leveret_log_commits_total{shard=\"0\"}", 11.0),
        ("leveret_log_live_bytes{shard=\"1\"}", 600.0),
        ("leveret_publish_to_deliver_seconds_count{shard=\"1\"}", 3.0),
        ("leveret_publish_to_deliver_seconds_bucket{shard=\"1\",le=\"0.000005\"}", 2.0),
        ("leveret_time_in_queue_seconds_bucket{shard=\"0\",le=\"+Inf\"}", 3.0),
        ("leveret_shard_answered{shard=\"1\"}", 1.0),
        ("leveret_memory_bytes{shard=\"0\"}", 0.0),
        ("leveret_connections_blocked{shard=\"0\",reason=\"alarm\"}", 1.0),
        ("leveret_connections_blocked{shard=\"1\",reason=\"mesh\"}", 0.0),
        ("rabbitmq_alarms_memory_used_watermark", 1.0),
        ("rabbitmq_alarms_free_disk_space_watermark", 0.0),
        ("rabbitmq_connections", 4.0),
        ("rabbitmq_queues", 3.0),
        ("rabbitmq_global_messages_received_total{protocol=\"amqp091\"}", 200.0),
        ("rabbitmq_erlang_uptime_seconds", 1.5),
    ] {
        assert_eq!(value(&samples, series), expected, "{series}");
    }
    let delivered = "rabbitmq_global_messages_delivered_total{protocol=\"amqp091\",\
                     queue_type=\"rabbit_classic_queue\"}";
    assert_eq!(value(&samples, delivered), 130.0);
    assert!(value(&samples, "rabbitmq_process_resident_memory_bytes") > 0.0);
}

#[test]
fn every_family_of_rabbitmqs_overview_is_there_before_any_traffic() {
    let text = broker(&[fresh_answer(0)], &identity(), false);
    let samples = parse(&text);
    for family in [
        "identity_info",
        "build_info",
        "connections",
        "channels",
        "queues",
        "consumers",
        "connections_opened_total",
        "connections_closed_total",
        "channels_opened_total",
        "channels_closed_total",
        "queue_messages_ready",
        "queue_messages_unacked",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_max_fds",
        "erlang_uptime_seconds",
        "global_consumers",
        "global_messages_received_total",
        "global_messages_received_confirm_total",
        "global_messages_unroutable_dropped_total",
        "global_messages_unroutable_returned_total",
        "global_messages_delivered_total",
        "global_messages_redelivered_total",
        "global_messages_acknowledged_total",
        "global_messages_get_empty_total",
    ] {
        let name = format!("rabbitmq_{family}");
        let there = |series: &str| series == name || series.starts_with(&format!("{name}{{"));
        assert!(samples.iter().any(|(series, _)| there(series)), "{name}");
    }
    let joined = "rabbitmq_node=\"leveret@alpha\",rabbitmq_cluster=\"leveret@alpha\"";
    assert!(text.contains(joined) && text.contains("rabbitmq_endpoint=\"aggregated\""));
}

#[test]
fn a_silent_shard_is_marked_and_does_not_vanish() {
    let old = ShardAnswer { answered: false, ..busy_answer(1, &[]) };
    let never = ShardAnswer { answered: false, report: None };
    let samples = parse(&broker(&[fresh_answer(0), old, never], &identity(), false));
    assert_eq!(value(&samples, "leveret_shard_answered{shard=\"0\"}"), 1.0);
    assert_eq!(value(&samples, "leveret_shard_answered{shard=\"1\"}"), 0.0);
    assert_eq!(value(&samples, "leveret_shard_answered{shard=\"2\"}"), 0.0);
    assert_eq!(value(&samples, "leveret_connections{shard=\"1\"}"), 2.0);
}

#[test]
fn queues_are_described_under_their_names() {
    let answers = [busy_answer(0, &[("or\"ders\n", 42), ("b", 7)])];
    let text = broker(&answers, &identity(), true) + &queues(&answers);
    let samples = parse(&text);
    let labels = "vhost=\"/\",queue=\"or\\\"ders\\n\"";
    for (series, expected) in [
        (format!("leveret_queue_messages_published_total{{{labels}}}"), 42.0),
        (format!("rabbitmq_queue_messages_ready{{{labels}}}"), 4.0),
        (format!("leveret_queue_time_in_queue_seconds_count{{{labels}}}"), 2.0),
        ("leveret_queues_not_described".to_owned(), 0.0),
    ] {
        assert_eq!(value(&samples, &series), expected, "{series}");
    }
}

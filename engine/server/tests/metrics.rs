//! What the real binary tells about itself over HTTP and in `leveret top`.

mod process;

use process::client::Client;
use process::{Broker, Directory, get, run};

/// The value of one series, a whole number.
fn value(metrics: &str, series: &str) -> u64 {
    let start = format!("{series} ");
    let mut found = metrics.lines().filter_map(|line| line.strip_prefix(&start));
    match found.next().map(str::parse) {
        Some(Ok(value)) => value,
        other => panic!("{series} is {other:?} in\n{metrics}"),
    }
}

/// Publishes `count` messages to `queue`, gets half of them, and stays connected.
fn traffic(broker: &Broker, queue: &str, count: usize) -> Client {
    let mut client = Client::open(broker.address("amqp"));
    client.open_channel();
    client.declare(queue);
    for _ in 0..count {
        client.publish(queue, b"some body");
    }
    for _ in 0..count / 2 {
        assert!(client.get(queue).is_some());
    }
    client
}

#[test]
fn messages_are_counted_on_both_ports() {
    let broker = Broker::start(&["--shards", "2"]);
    let _client = traffic(&broker, "counted", 20);
    for purpose in ["http", "metrics"] {
        let (status, metrics) = get(broker.address(purpose), "/metrics");
        assert!(status.contains("200"), "{status}");
        let received = "rabbitmq_global_messages_received_total{protocol=\"amqp091\"}";
        assert_eq!(value(&metrics, received), 20);
        assert_eq!(value(&metrics, "rabbitmq_connections"), 1);
        assert_eq!(value(&metrics, "rabbitmq_channels"), 1);
        assert_eq!(value(&metrics, "rabbitmq_queues"), 1);
        assert_eq!(value(&metrics, "rabbitmq_queue_messages_ready"), 10);
        let by_shard: u64 = (0..2)
            .map(|shard| {
                let name = "leveret_publish_to_deliver_seconds_count";
                value(&metrics, &format!("{name}{{shard=\"{shard}\"}}"))
            })
            .sum();
        assert_eq!(by_shard, 10);
    }
}

#[test]
fn each_queue_has_its_series() {
    let broker = Broker::start(&["--shards", "2"]);
    let _clients = [traffic(&broker, "first", 8), traffic(&broker, "sec\"ond", 4)];
    let (_, metrics) = get(broker.address("metrics"), "/metrics/per-object");
    let of = |name: &str, queue: &str| {
        value(&metrics, &format!("{name}{{vhost=\"/\",queue=\"{queue}\"}}"))
    };
    assert_eq!(of("rabbitmq_queue_messages_ready", "first"), 4);
    assert_eq!(of("rabbitmq_queue_messages_ready", "sec\\\"ond"), 2);
    assert_eq!(of("leveret_queue_messages_published_total", "first"), 8);
    assert_eq!(of("leveret_queue_time_in_queue_seconds_count", "first"), 4);
    assert_eq!(value(&metrics, "leveret_queues_not_described"), 0);
}

#[test]
fn the_first_page_helps_and_unknown_pages_are_not_found() {
    let broker = Broker::start(&["--shards", "1"]);
    for purpose in ["http", "metrics"] {
        let (status, page) = get(broker.address(purpose), "/");
        assert!(status.contains("200") && page.contains("/metrics"), "{page}");
        assert!(get(broker.address(purpose), "/nothing").0.contains("404"));
    }
}

#[test]
fn top_shows_shards_and_queues_once() {
    let broker = Broker::start(&["--shards", "2"]);
    let _client = traffic(&broker, "watched", 6);
    let directory = Directory::new();
    let http = broker.address("http").to_string();
    let output = run(&["top", "--once", "--http", &http], &directory);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("1 connections, 1 channels"), "{text}");
    let line = text.lines().find(|line| line.starts_with("watched")).unwrap();
    assert_eq!(line.split_whitespace().nth(1), Some("3"), "ready: {line}");
    assert!(!text.contains('\u{1b}'), "plain text");
}

#[test]
fn top_without_a_broker_explains_itself() {
    let broker = Broker::start(&["--http", "none"]);
    assert!(!broker.banner.iter().any(|line| line.ends_with("(http)")), "{:?}", broker.banner);
    let directory = Directory::new();
    let amqp = broker.address("amqp").to_string();
    for address in [amqp.as_str(), "127.0.0.1:1"] {
        let output = run(&["top", "--once", "--http", address], &directory);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(address) && text.contains("--http ADDR:PORT"), "{text}");
    }
}

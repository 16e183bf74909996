//! Alarms of the real binary: publishers are told and held back until there is room again.
#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions only")]

mod process;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use process::client::Client;
use process::{Broker, Directory, get};

/// Each holds every message: the index of a message in so many queues is the larger part of what
/// it costs, and stays in memory when the message is on the disk.
const QUEUES: usize = 64;

const BODY_BYTES: usize = 100;

/// The options of a broker whose configuration is this text.
fn start(configuration: &str) -> (Broker, Directory) {
    let directory = Directory::new();
    let file = directory.file("leveret.toml", configuration);
    let broker = Broker::start(&["--shards", "2", "--config", file.to_str().unwrap()]);
    (broker, directory)
}

fn open(broker: &Broker) -> Client {
    let mut client = Client::open(broker.address("amqp"));
    client.open_channel();
    client
}

/// The sum of a series over all its labels but one.
fn sum(broker: &Broker, name: &str, label: &str) -> u64 {
    let (_, metrics) = get(broker.address("metrics"), "/metrics");
    let lines = metrics.lines().filter(|line| line.starts_with(name) && line.contains(label));
    lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

/// How often the end of an alarm is looked for: for a minute.
const LOOKS_MAX: u32 = 6_000;

#[test]
fn a_full_memory_blocks_publishers_until_it_is_drained() {
    let (mut broker, _directory) = start("memory_limit_bytes = 67108864\n");
    let mut publisher = open(&broker);
    let queues: Vec<String> = (0..QUEUES).map(|number| format!("backlog-{number}")).collect();
    for queue in &queues {
        publisher.declare(queue);
        publisher.bind(queue, "amq.fanout");
    }
    let enough = Arc::new(AtomicBool::new(false));
    // The writing side waits for the broker once it is blocked.
    let writing = thread::spawn({
        let (mut publisher, enough) = (publisher.clone(), Arc::clone(&enough));
        move || {
            let mut published = 0;
            while !enough.load(Ordering::Relaxed) {
                publisher.publish_to("amq.fanout", &[7; BODY_BYTES]);
                published += 1;
            }
            published
        }
    });
    assert_eq!(publisher.read_blocked(), "low on memory");
    enough.store(true, Ordering::Relaxed);
    broker.wait_for_log("memory alarm: messages use ");
    assert_eq!(sum(&broker, "rabbitmq_alarms_memory_used_watermark", ""), 1);
    assert_eq!(sum(&broker, "rabbitmq_alarms_free_disk_space_watermark", ""), 0);
    assert_eq!(sum(&broker, "leveret_connections_blocked", "reason=\"alarm\""), 1);
    assert!(sum(&broker, "leveret_memory_bytes{", "") > 16 << 20);

    let mut consumer = open(&broker);
    for queue in &queues[1..] {
        consumer.purge(queue);
    }
    let mut got = 0;
    while consumer.get(&queues[0]).is_some() {
        got += 1;
    }
    publisher.read_unblocked();
    broker.wait_for_log("memory alarm is over");
    let published = writing.join().unwrap();
    while got < published {
        match consumer.get(&queues[0]) {
            Some(body) => got += usize::from(body.len() == BODY_BYTES),
            None => {
                // What the sockets held back may fill the memory once more.
                for queue in &queues[1..] {
                    consumer.purge(queue);
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
    assert_eq!(consumer.get(&queues[0]), None);
    // The alarm is looked at from time to time only.
    for _ in 0..LOOKS_MAX {
        for queue in &queues[1..] {
            consumer.purge(queue);
        }
        let alarms = sum(&broker, "rabbitmq_alarms_memory_used_watermark", "");
        if alarms + sum(&broker, "leveret_connections_blocked", "") == 0 {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("the alarm or the block stays");
}

#[test]
fn a_full_disk_blocks_publishers_from_the_start_and_nobody_else() {
    let (mut broker, _directory) = start("disk_free_min_bytes = 1125899906842624\n");
    broker.wait_for_log("disk alarm: the file system of ");
    let mut publishers = [open(&broker), open(&broker)];
    for publisher in &mut publishers {
        publisher.declare("q");
        publisher.publish("q", b"held back");
        assert_eq!(publisher.read_blocked(), "low on disk");
    }
    let mut consumer = open(&broker);
    assert_eq!(consumer.get("q"), None);
    let (_, top) = get(broker.address("http"), "/api/top");
    assert_eq!(top.matches("\"disk_alarm\":true").count(), 2, "both shards: {top}");
    assert_eq!(sum(&broker, "rabbitmq_alarms_free_disk_space_watermark", ""), 1);

    broker.signal("TERM");
    for client in publishers.iter_mut().chain([&mut consumer]) {
        assert_eq!(client.read_close().0, 320);
        client.close_ok();
        assert!(client.is_cut());
    }
    assert!(broker.wait(Duration::from_mins(1)).success());
}

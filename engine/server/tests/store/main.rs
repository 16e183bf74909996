//! The data directory of the real binary: looked at, damaged, mixed up, and moved between shards.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions only")]

#[path = "../process/mod.rs"]
mod process;
mod session;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use process::{Broker, Directory, get, run};
use session::{Got, Session};

const PATIENCE: Duration = Duration::from_mins(1);

const BODIES: [&str; 3] = ["first body\n", "second body", "third body"];

/// A stopped broker's directory: one durable queue with [`BODIES`].
fn stopped_with_orders() -> Arc<Directory> {
    let directory = Arc::new(Directory::new());
    let mut broker = Broker::start_in(&directory, &["--shards", "1"]);
    let session = Session::open(broker.address("amqp"));
    session.declare("orders");
    for body in BODIES {
        session.publish("", "orders", body);
    }
    drop(session);
    stop(&mut broker);
    directory
}

fn stop(broker: &mut Broker) {
    broker.signal("TERM");
    assert_eq!(broker.wait(PATIENCE).code(), Some(0));
}

fn data_dir(directory: &Directory) -> PathBuf {
    directory.0.join("leveret-data")
}

/// All files below a directory: what is in them and when they were written.
fn files(path: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let modified = fs::metadata(&path).unwrap().modified().unwrap();
            found.insert(path.clone(), (modified, fs::read(path).unwrap()));
        }
    }
    found
}

/// The segment that holds these bytes, and where.
fn find(directory: &Directory, part: &[u8]) -> (PathBuf, usize) {
    let all = files(&data_dir(directory)).into_iter();
    let mut segments = all.filter(|(path, _)| path.extension().is_some_and(|of| of == "segment"));
    segments
        .find_map(|(path, (_, bytes))| {
            Some((path, bytes.windows(part.len()).position(|window| window == part)?))
        })
        .unwrap()
}

/// Flips a bit of the second message's body; the file.
fn rot(directory: &Directory) -> PathBuf {
    let (path, at) = find(directory, b"second body");
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    path
}

/// What a command says, and its exit code.
fn said(output: &Output) -> (Option<i32>, String) {
    let text = [&output.stdout[..], &output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

fn look(command: &str, directory: &Directory) -> (Option<i32>, String) {
    said(&run(&[command, "leveret-data"], directory))
}

fn assert_refused(directory: &Directory, parts: &[&str]) {
    let before = files(&data_dir(directory));
    let serve = ["serve", "--listen", "127.0.0.1:0", "--http", "none", "--metrics", "none"];
    let (code, text) = said(&run(&[&serve[..], &["--shards", "1"]].concat(), directory));
    assert_eq!(code, Some(1), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let after = files(&data_dir(directory)).into_iter();
    let logs = after.filter(|(path, _)| path.extension().is_some_and(|of| of == "segment"));
    for (path, (_, bytes)) in logs {
        assert!(before[&path].1 == bytes, "{} was changed", path.display());
    }
}

fn bodies(got: &[Got]) -> Vec<&str> {
    got.iter().map(|got| got.body.as_str()).collect()
}

#[test]
fn check_and_dump_tell_what_a_sound_directory_holds() {
    let directory = stopped_with_orders();
    let before = files(&data_dir(&directory));
    let (code, text) = look("check", &directory);
    assert_eq!(code, Some(0), "{text}");
    let parts = ["stopped in order", "3 messages held", "queue \"orders\" in vhost \"/\"", "sound"];
    for part in parts.into_iter().chain(["last written 20"]) {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let (code, text) = look("dump", &directory);
    assert_eq!(code, Some(0), "{text}");
    let name = text.lines().find(|line| line.contains("queue \"orders\"")).unwrap();
    let log_id = name.strip_prefix("log id ").unwrap().split(':').next().unwrap();
    let published: Vec<&str> = text.lines().filter(|line| line.contains(" publish ")).collect();
    assert_eq!(published.len(), 3, "{text}");
    let parts = ["exchange=\"\" key=\"orders\"", " arrived=20", "Z priority=0 "].map(str::to_owned);
    for part in parts.into_iter().chain([format!("queues={log_id}:")]) {
        assert!(published[0].contains(&part), "{part} is missing in {}", published[0]);
    }
    assert!(published[0].ends_with("body=11 \"first body\\n\""), "{}", published[0]);
    let barrier = text.lines().find(|line| line.contains(" barrier ")).unwrap();
    assert!(barrier.contains(" written=20") && barrier.ends_with('Z'), "{barrier}");
    assert_eq!(files(&data_dir(&directory)), before, "both only read");
}

#[test]
fn a_look_beside_a_broker_warns_and_changes_nothing() {
    let directory = Arc::new(Directory::new());
    let mut broker = Broker::start_in(&directory, &["--shards", "1"]);
    let session = Session::open(broker.address("amqp"));
    session.declare("orders");
    session.publish("", "orders", "a body");
    // So that it writes nothing by itself meanwhile.
    broker.signal("STOP");
    let mut attempts = 0;
    let ((code, text), (dump_code, dumped)) = loop {
        let before = files(&data_dir(&directory));
        let looks = (look("check", &directory), look("dump", &directory));
        let after = files(&data_dir(&directory));
        if after == before {
            break looks;
        }
        // The kernel may have been at a write of the broker's. Whoever looks would change it again.
        attempts += 1;
        assert!(attempts < 10, "{after:?} was {before:?}");
    };
    broker.signal("CONT");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.starts_with("warning: a broker is running here"), "{text}");
    assert!(text.contains("1 messages held") && text.contains("\"orders\""), "{text}");
    assert!(dump_code == Some(0) && dumped.contains("\"a body\""), "{dumped}");
    assert_eq!(session.get("orders").unwrap().body, "a body");
    broker.kill();
    let (code, text) = look("check", &directory);
    assert_eq!(code, Some(0), "a kill is no damage: {text}");
    assert!(text.contains("not stopped in order") && text.contains("\"orders\""), "{text}");
}

#[test]
fn what_is_no_data_directory_is_said_to_be_none() {
    let directory = Directory::new();
    let (code, text) = look("check", &directory);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("leveret-data") && text.contains("No such file"), "{text}");
    fs::create_dir(data_dir(&directory)).unwrap();
    for _ in ["empty", "with foreign files"] {
        let (code, text) = look("check", &directory);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains("no data directory of Leveret"), "{text}");
        directory.file("leveret-data/notes.txt", "mine");
    }
    fs::create_dir(data_dir(&directory).join("shard-0000")).unwrap();
    directory.file("leveret-data/shard-0000/0000000001.segment", &"garbage ".repeat(2_000));
    directory.file("leveret-data/metadata.redb", &"garbage ".repeat(2_000));
    let (code, text) = look("check", &directory);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("would not start") && text.contains("metadata.redb"), "{text}");
}

#[test]
fn a_rotten_record_is_named_and_the_rest_is_served() {
    let directory = stopped_with_orders();
    let path = rot(&directory);
    let name = path.file_name().unwrap().to_str().unwrap();
    let (code, text) = look("check", &directory);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(name) && text.contains(", offset "), "{text}");

    let mut broker = Broker::start_in(&directory, &["--shards", "1"]);
    broker.wait_for_log("damage in ");
    assert!(broker.drain_stderr().contains(name));
    let (_, metrics) = get(broker.address("metrics"), "/metrics");
    assert!(metrics.contains("leveret_messages_damaged_total{shard=\"0\"} 1\n"), "{metrics}");
    let session = Session::open(broker.address("amqp"));
    let got = session.get_all("orders");
    assert_eq!(bodies(&got), [BODIES[0], BODIES[2]]);
    assert!(path.exists(), "it has messages");
    for got in &got {
        session.ack(got);
    }
    let kept = data_dir(&directory).join(format!("quarantine/shard-0000-{name}"));
    let deadline = Instant::now() + PATIENCE;
    while !kept.exists() {
        assert!(Instant::now() < deadline, "{} is not there", kept.display());
        // Something has to be written: what is dead is looked at when a commit ends.
        session.publish("", "orders", "more");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(!path.exists());
}

#[test]
fn what_does_not_belong_together_is_refused_in_words() {
    let directory = stopped_with_orders();
    let broker = Broker::start_in(&directory, &["--shards", "1"]);
    let pid = format!("process {}", broker.pid());
    // So that it prepares no file meanwhile.
    broker.signal("STOP");
    assert_refused(&directory, &["in use", &pid]);
    drop(broker);

    let metadata = data_dir(&directory).join("metadata.redb");
    let aside = directory.0.join("aside");
    fs::rename(&metadata, &aside).unwrap();
    assert_refused(&directory, &["metadata.redb", "it is missing", "Nothing was deleted"]);
    assert!(!metadata.exists());
    fs::rename(&aside, &metadata).unwrap();

    let (path, _) = find(&directory, b"first body");
    let own = fs::read(&path).unwrap();
    let other = stopped_with_orders();
    let (foreign, _) = find(&other, b"first body");
    fs::copy(foreign, &path).unwrap();
    assert_refused(&directory, &["belongs to another data directory", "Nothing was changed"]);
    let (code, text) = look("check", &directory);
    assert!(code == Some(2) && text.contains("another data directory"), "{text}");

    let mut newer = own.clone();
    newer[8] = 2;
    newer[12..16].fill(0);
    let sum = crc32c::crc32c(&newer[..4096]);
    newer[12..16].copy_from_slice(&sum.to_le_bytes());
    fs::write(&path, newer).unwrap();
    assert_refused(&directory, &["has format 2", "reads format 1"]);

    fs::write(&path, own).unwrap();
    let broker = Broker::start_in(&directory, &["--shards", "1"]);
    let got = Session::open(broker.address("amqp")).get_all("orders");
    assert_eq!(bodies(&got), BODIES);
}

#[test]
fn another_number_of_shards_keeps_messages_order_and_flags() {
    const QUEUES: usize = 9;
    let directory = Arc::new(Directory::new());
    let name = |queue: usize| format!("queue-{queue}");
    let mut broker = Broker::start_in(&directory, &["--shards", "1"]);
    let session = Session::open(broker.address("amqp"));
    session.declare_fanout("all");
    for queue in 0..QUEUES {
        session.declare(&name(queue));
        session.bind(&name(queue), "all");
    }
    drop(session);
    let mut held: Vec<Vec<String>> = vec![Vec::new(); QUEUES];
    let mut delivered = 0;
    for (before, after) in [("1", "3"), ("3", "2"), ("2", "1")] {
        let session = Session::open(broker.address("amqp"));
        for number in 0..4 {
            let shared = format!("shared {number} on {before}");
            session.publish("all", "", &shared);
            for (queue, held) in held.iter_mut().enumerate() {
                let own = format!("own {number} of {queue} on {before}");
                session.publish("", &name(queue), &own);
                held.extend([shared.clone(), own]);
            }
        }
        // Two are given out, and the first of them is settled.
        for (queue, held) in held.iter_mut().enumerate() {
            let got = [session.get(&name(queue)).unwrap(), session.get(&name(queue)).unwrap()];
            assert_eq!(bodies(&got), held[..2]);
            session.ack(&got[0]);
            held.remove(0);
        }
        delivered = delivered.max(2) - 1;
        // An ack has no answer; what comes behind it on its channel has one.
        session.declare(&name(0));
        drop(session);
        stop(&mut broker);

        broker = Broker::start_in(&directory, &["--shards", after]);
        let session = Session::open(broker.address("amqp"));
        for (queue, held) in held.iter().enumerate() {
            let got = session.get_all(&name(queue));
            assert_eq!(bodies(&got), *held, "queue {queue}, {before} to {after} shards");
            let flags: Vec<bool> = got.iter().map(|got| got.redelivered).collect();
            let expected: Vec<bool> = (0..held.len()).map(|index| index < delivered).collect();
            assert_eq!(flags, expected, "queue {queue}, {before} to {after} shards");
        }
        delivered = held[0].len();
        // They return to their queues.
        drop(session);
        stop(&mut broker);
        broker = Broker::start_in(&directory, &["--shards", after]);
    }
}

//! What was declared durable outlives the real binary, however it ends.

#![allow(clippy::unwrap_used, reason = "clippy.toml allows it in test functions only")]

mod process;

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeBindOptions,
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use leveret_broker::catalog::user::PasswordHash;
use process::{Broker, Directory};

const PATIENCE: Duration = Duration::from_mins(1);

/// A connection and its channel.
type Opened = (Connection, Channel);

#[test]
fn what_is_durable_is_there_after_a_kill_and_nothing_else_is() {
    let directory = Arc::new(Directory::new());
    let mut broker = Broker::start_in(&directory, &["--shards", "2"]);
    let address = broker.address("amqp");
    let opened = run(async move {
        let opened = open(address).await;
        declare_all(&opened.1).await;
        opened
    });
    // The last answer has just come: nothing else keeps what it promised.
    broker.signal("KILL");
    broker.wait(PATIENCE);
    drop((opened, broker));

    let mut broker = Broker::start_in(&directory, &["--shards", "2"]);
    let address = broker.address("amqp");
    let opened = run(async move {
        let opened = open(address).await;
        check_all(&opened.0, &opened.1).await;
        opened
    });
    broker.signal("TERM");
    assert_eq!(broker.wait(PATIENCE).code(), Some(0));
    drop((opened, broker));

    let broker = Broker::start_in(&directory, &["--shards", "2"]);
    let address = broker.address("amqp");
    run(async move {
        let (connection, channel) = open(address).await;
        check_all(&connection, &channel).await;
    });
}

/// Operators have no way in yet, so the rows are written as `docs/STORE_FORMAT.md` says them.
#[test]
fn stored_users_may_come_in_and_removed_ones_may_not() {
    let directory = Arc::new(Directory::new());
    let mut broker = Broker::start_in(&directory, &["--shards", "2"]);
    assert!(may_enter(&broker, "guest:guest", "%2f"));
    broker.signal("TERM");
    assert_eq!(broker.wait(PATIENCE).code(), Some(0));
    drop(broker);
    store_users(&directory);
    for signal in ["KILL", "TERM"] {
        let mut broker = Broker::start_in(&directory, &["--shards", "2"]);
        assert!(may_enter(&broker, "u:secret", "v"));
        assert!(!may_enter(&broker, "u:wrong", "v"));
        assert!(!may_enter(&broker, "u:secret", "%2f"));
        assert!(!may_enter(&broker, "guest:guest", "%2f"), "a removed user stays removed");
        broker.signal(signal);
        broker.wait(PATIENCE);
    }
}

fn may_enter(broker: &Broker, login: &str, vhost: &str) -> bool {
    let url = format!("amqp://{login}@{}/{vhost}", broker.address("amqp"));
    run(async move { Connection::connect(&url, ConnectionProperties::default()).await.is_ok() })
}

type Table = redb::TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Removes `guest`, and adds the virtual host `v` and a user who may do everything there.
fn store_users(directory: &Directory) {
    let path = directory.0.join("leveret-data/metadata.redb");
    let database = redb::Database::open(path).unwrap();
    let transaction = database.begin_write().unwrap();
    let table = |name| transaction.open_table(Table::new(name)).unwrap();
    let (guest, of_guest) = (key(&["guest"]), key(&["/", "guest"]));
    assert!(table("users").remove(&*guest).unwrap().is_some());
    assert!(table("permissions").remove(&*of_guest).unwrap().is_some());
    let hash = PasswordHash::new([1, 2, 3, 4], b"secret").octets().to_vec();
    let (vhost, user, permitted) = (key(&["v"]), key(&["u"]), key(&["v", "u"]));
    let next = b"next vhost id".to_vec();
    for (name, key, value) in [
        ("vhosts", &vhost, postcard::to_stdvec(&())),
        ("vhost ids", &vhost, postcard::to_stdvec(&1_u32)),
        ("store", &next, postcard::to_stdvec(&2_u32)),
        ("users", &user, postcard::to_stdvec(&(1_u8, hash, 0_u8, ["management"].as_slice()))),
        ("permissions", &permitted, postcard::to_stdvec(&(".*", ".*", ".*"))),
    ] {
        let mut value = value.unwrap();
        let checksum = crc32c::crc32c_append(crc32c::crc32c(key), &value);
        value.extend(checksum.to_le_bytes());
        table(name).insert(&**key, &*value).unwrap();
    }
    transaction.commit().unwrap();
}

/// Parts, each behind its length.
fn key(parts: &[&str]) -> Vec<u8> {
    let part = |part: &&str| [&(part.len() as u32).to_le_bytes(), part.as_bytes()].concat();
    parts.iter().flat_map(part).collect()
}

#[test]
fn a_damaged_database_is_refused_in_words_and_kept() {
    let directory = Arc::new(Directory::new());
    drop(Broker::start_in(&directory, &["--shards", "1"]));
    let path = directory.0.join("leveret-data/metadata.redb");
    let sound = std::fs::read(&path).unwrap();
    let mut damaged = sound.clone();
    damaged[..4096].fill(0x5A);
    std::fs::write(&path, &damaged).unwrap();
    let serve = ["serve", "--listen", "127.0.0.1:0", "--http", "none", "--metrics", "none"];
    let output = process::run(&serve, &directory);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("metadata.redb: it is damaged") && text.contains("Restore"), "{text}");
    assert_eq!(std::fs::read(&path).unwrap(), damaged);
    std::fs::write(&path, sound).unwrap();
    drop(Broker::start_in(&directory, &["--shards", "1"]));
}

fn run<T: Send + 'static>(body: impl Future<Output = T> + Send + 'static) -> T {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, body).await.unwrap() })
}

async fn open(address: std::net::SocketAddr) -> Opened {
    let url = format!("amqp://guest:guest@{address}/%2f");
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

async fn declare_all(channel: &Channel) {
    for (name, durable) in [("q1", true), ("q2", true), ("gone", true), ("transient", false)] {
        let options = QueueDeclareOptions { durable, ..QueueDeclareOptions::default() };
        channel.queue_declare(name.into(), options, FieldTable::default()).await.unwrap();
    }
    for (name, kind, durable) in [
        ("d", ExchangeKind::Direct, true),
        ("t", ExchangeKind::Topic, true),
        ("h", ExchangeKind::Headers, true),
        ("f", ExchangeKind::Fanout, true),
        ("deleted", ExchangeKind::Fanout, true),
        ("fleeting", ExchangeKind::Fanout, false),
    ] {
        let options = ExchangeDeclareOptions { durable, ..ExchangeDeclareOptions::default() };
        let none = FieldTable::default();
        channel.exchange_declare(name.into(), kind, options, none).await.unwrap();
    }
    bind(channel, "q1", "d", "key", FieldTable::default()).await;
    bind(channel, "q2", "d", "unbound", FieldTable::default()).await;
    bind(channel, "q1", "t", "a.*.#", FieldTable::default()).await;
    bind(channel, "q2", "t", "*.b", FieldTable::default()).await;
    bind(channel, "q2", "h", "", colour()).await;
    bind(channel, "transient", "f", "", FieldTable::default()).await;
    bind(channel, "gone", "f", "", FieldTable::default()).await;
    let none = FieldTable::default;
    channel.queue_unbind("q2".into(), "d".into(), "unbound".into(), none()).await.unwrap();
    channel.queue_delete("gone".into(), QueueDeleteOptions::default()).await.unwrap();
    channel.exchange_delete("deleted".into(), ExchangeDeleteOptions::default()).await.unwrap();
    let options = ExchangeBindOptions::default();
    channel.exchange_bind("t".into(), "f".into(), "".into(), options, none()).await.unwrap();
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str, arguments: FieldTable) {
    let options = QueueBindOptions::default();
    channel
        .queue_bind(queue.into(), exchange.into(), key.into(), options, arguments)
        .await
        .unwrap();
}

fn colour() -> FieldTable {
    let mut table = FieldTable::default();
    table.insert(ShortString::from("colour"), AMQPValue::LongString("red".into()));
    table
}

async fn check_all(connection: &Connection, channel: &Channel) {
    for (queue, exists) in [("q1", true), ("q2", true), ("gone", false), ("transient", false)] {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let channel = connection.create_channel().await.unwrap();
        let found = channel.queue_declare(queue.into(), passive, FieldTable::default()).await;
        assert_eq!(found.is_ok(), exists, "queue {queue}");
    }
    for (exchange, exists) in [("t", true), ("deleted", false), ("fleeting", false)] {
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let channel = connection.create_channel().await.unwrap();
        let (kind, none) = (ExchangeKind::Topic, FieldTable::default());
        let found = channel.exchange_declare(exchange.into(), kind, passive, none).await;
        assert_eq!(found.is_ok(), exists, "exchange {exchange}");
    }
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    for (exchange, key, queues) in [
        ("", "q2", &["q2"][..]),
        ("d", "key", &["q1"]),
        ("d", "unbound", &[]),
        ("t", "a.b", &["q1", "q2"]),
        ("h", "", &["q2"]),
        ("f", "a.x", &["q1"]),
    ] {
        let properties = BasicProperties::default().with_headers(colour());
        let options = BasicPublishOptions::default();
        let sent = channel.basic_publish(exchange.into(), key.into(), options, b"m", properties);
        sent.await.unwrap().await.unwrap();
        let mut reached = Vec::new();
        for queue in ["q1", "q2"] {
            let no_ack = BasicGetOptions { no_ack: true };
            if channel.basic_get(queue.into(), no_ack).await.unwrap().is_some() {
                reached.push(queue);
            }
        }
        assert_eq!(reached, queues, "{exchange} {key}");
    }
}

//! Resident memory of the broker: per idle connection and per waiting message.
//!
//! A tenth is opened or published before the first look, so that what a broker lays out once is
//! not counted. All runs are compared with the first look of the first run: a broker keeps memory
//! that it once had, and what a second run finds free is still the price of its messages.

use std::thread;
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::broker::Broker;
use crate::client::Connection;
use crate::fault::Fault;
use crate::procfs;
use crate::publisher::WRITE_SIZE;
use crate::scenario::Reading;

/// How long a broker is left alone before its memory is read: garbage collectors have run, and
/// statistics that it writes every second are written.
const SETTLE: Duration = Duration::from_secs(1);

/// How long the number of waiting messages may stand still below what was published.
const STANDSTILL_MAX: Duration = Duration::from_secs(10);

/// Between two questions for that number: rare enough not to be a load.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The warm-up is this share of the load.
const WARM_UP_SHARE: u32 = 10;

/// The body of a waiting message, in octets.
const WAITING_BODY_SIZE: usize = 100;

/// What a broker held after the first warm-up of a scenario; not known before.
pub(crate) type BaselineBytes = Option<u64>;

/// Opens `count` connections, reads the growth, and closes them.
pub(crate) fn measure_connections(
    broker: &Broker,
    count: u32,
    baseline: &mut BaselineBytes,
) -> Result<Reading, Fault> {
    let warm_up = count / WARM_UP_SHARE;
    procfs::check_open_files(count + warm_up)?;
    let mut connections = Vec::new();
    open(broker, warm_up, &mut connections)?;
    let before = settled_baseline(broker, baseline)?;
    open(broker, count, &mut connections)?;
    let growth = settled_rss(broker)? - before;
    for connection in connections {
        connection.close()?;
    }
    Ok(Reading { values: vec![growth / f64::from(count)], messages: 0 })
}

/// Publishes `count` messages, reads the growth, and purges them.
pub(crate) fn measure_backlog(
    broker: &Broker,
    count: u32,
    run: u64,
    baseline: &mut BaselineBytes,
) -> Result<Reading, Fault> {
    let queue = format!("leveret-bench-{}", broker.pid);
    let (warm_up, all) =
        (u64::from(count / WARM_UP_SHARE), u64::from(count + count / WARM_UP_SHARE));
    let mut connection = Connection::open(broker.address)?;
    connection.open_channel()?;
    connection.make_queue(&queue)?;
    let mut batch = Batch::new(&queue, WAITING_BODY_SIZE, run, WRITE_SIZE);
    publish(&mut connection, &mut batch, &queue, 0, warm_up)?;
    let before = settled_baseline(broker, baseline)?;
    publish(&mut connection, &mut batch, &queue, warm_up, all)?;
    let growth = settled_rss(broker)? - before;
    let purged = connection.purge(&queue)?;
    if purged != all {
        return Err(Fault::Messages(format!("{purged} of {all} waiting messages were purged")));
    }
    connection.delete_queue(&queue)?;
    connection.close()?;
    Ok(Reading { values: vec![growth / f64::from(count)], messages: all })
}

fn open(broker: &Broker, count: u32, connections: &mut Vec<Connection>) -> Result<(), Fault> {
    for _ in 0..count {
        connections.push(Connection::open(broker.address)?);
    }
    Ok(())
}

/// Publishes the messages from number `published` up to `goal`, until all of them wait.
fn publish(
    connection: &mut Connection,
    batch: &mut Batch,
    queue: &str,
    mut published: u64,
    goal: u64,
) -> Result<(), Fault> {
    while published < goal {
        let count = batch.count().min(goal - published);
        connection.write(batch.number(published, count))?;
        published += count;
    }
    await_waiting(connection, queue, goal)
}

/// Asks until `goal` messages wait: `RabbitMQ` answers for a queue before that queue has seen all
/// that the same channel had published before.
fn await_waiting(connection: &mut Connection, queue: &str, goal: u64) -> Result<(), Fault> {
    let (mut waiting, mut changed) = (0, Instant::now());
    while changed.elapsed() < STANDSTILL_MAX {
        let before = waiting;
        waiting = connection.message_count(queue)?;
        if waiting == goal {
            return Ok(());
        }
        if waiting != before {
            changed = Instant::now();
        }
        thread::sleep(POLL_INTERVAL);
    }
    Err(Fault::Messages(format!("{waiting} of {goal} published messages wait in the queue")))
}

fn settled_rss(broker: &Broker) -> Result<f64, Fault> {
    thread::sleep(SETTLE);
    Ok(procfs::rss_bytes(broker.pid)? as f64)
}

fn settled_baseline(broker: &Broker, baseline: &mut BaselineBytes) -> Result<f64, Fault> {
    if let Some(bytes) = baseline {
        return Ok(*bytes as f64);
    }
    let bytes = settled_rss(broker)?;
    *baseline = Some(bytes as u64);
    Ok(bytes)
}

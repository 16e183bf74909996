//! A queue is filled, rests, and is drained.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{CHANNEL, Connection};
use crate::driver::threads;
use crate::fault::Fault;
use crate::load::tally::Tally;
use crate::machine::procfs;
use crate::machine::usage::{self, Usage, Used};
use crate::results::RatePoint;
use crate::run::{LiveView, Reading, Setting, flow};
use crate::scenario::{Backlog, Flow};
use crate::topology::{self, Topology};

/// How often the depth of the queue is checked while it fills.
const DEPTH_INTERVAL: Duration = Duration::from_millis(50);

/// How long the backlog rests before memory is read: garbage is collected and buffers are freed.
const REST: Duration = Duration::from_secs(1);

/// How long a broker may be silent here: RabbitMQ blocks publishers far longer than elsewhere while
/// it makes room for millions of messages.
const SILENCE_MAX: Duration = Duration::from_mins(2);

/// The prefetch limit for draining, as of a worker that acknowledges.
const PREFETCH: u16 = 1000;
const ACK_EVERY: u16 = 100;

/// One run.
pub(crate) fn run(
    setting: &Setting<'_>,
    backlog: &Backlog,
    live: LiveView<'_>,
) -> Result<Reading, Fault> {
    let flow = Flow {
        body_bytes: backlog.body_bytes,
        durable: backlog.durable,
        persistent: backlog.persistent,
        prefetch: PREFETCH,
        ack_every: ACK_EVERY,
        ..Flow::default()
    };
    let setting = &Setting { silence_max: SILENCE_MAX, ..*setting };
    let topology = Topology::new(&flow, setting.first_stream);
    let declared = topology.declare(setting.broker);
    let reading = declared.and_then(|()| fill_and_drain(setting, backlog, &flow, &topology, live));
    let removed = topology.remove(setting.broker);
    let reading = reading?;
    removed?;
    Ok(reading)
}

fn fill_and_drain(
    setting: &Setting<'_>,
    backlog: &Backlog,
    flow: &Flow,
    topology: &Topology,
    live: LiveView<'_>,
) -> Result<Reading, Fault> {
    let streams = topology::streams_of(flow);
    let mut reading = Reading { streams, ..Reading::default() };
    let tally = Arc::new(Tally::new(Instant::now(), setting.first_stream, streams, 1));
    let before_bytes = usage::rss_bytes(setting.broker)?;
    let fill = Usage::start(setting.broker, before_bytes)?;
    pile_up(setting, backlog.messages, flow, topology, &tally, live)?;
    let used = fill.end()?;
    note_rates(used, backlog.messages, "filled_per_s", "filled_per_broker_cpu_s", &mut reading);
    thread::sleep(REST);
    if let (Some(before), Some(pid)) = (before_bytes, setting.broker.pid) {
        let rest = procfs::rss_bytes(pid)?;
        let bytes = rest.saturating_sub(before) as f64 / backlog.messages as f64;
        // Less than the bodies: the broker reused memory, or has the messages on disk.
        if bytes >= backlog.body_bytes as f64 {
            reading.metrics.insert("bytes_per_message", bytes);
        }
        reading.metrics.insert("rss_rest_bytes", before as f64);
        reading.metrics.insert("rss_peak_bytes", rest as f64);
    }
    let drain = Usage::start(setting.broker, before_bytes)?;
    let consumer = flow::consumer(setting, flow, topology, &tally, 0, &[])?;
    let (parties, (), drained) = threads::drive(setting, vec![vec![consumer]], |_| ());
    let messages = flow::messages(parties, tally.published());
    if messages.is_clean() {
        drained?;
        let count = backlog.messages;
        let used = drain.end()?;
        note_rates(used, count, "drained_per_s", "drained_per_broker_cpu_s", &mut reading);
    }
    reading.messages = Some(messages);
    Ok(reading)
}

/// Publishes this many messages and waits until all are in the queue.
pub(crate) fn pile_up(
    setting: &Setting<'_>,
    messages: u64,
    flow: &Flow,
    topology: &Topology,
    tally: &Arc<Tally>,
    live: LiveView<'_>,
) -> Result<(), Fault> {
    let publisher = flow::publisher(setting, flow, topology, tally, 0, Some(messages))?;
    let (_, filled, published) = threads::drive(setting, vec![vec![publisher]], |_| {
        let filled = wait_for_depth(setting, topology, messages, tally, live);
        tally.stop();
        filled
    });
    published?;
    filled
}

/// Waits until everything published is in the queue.
fn wait_for_depth(
    setting: &Setting<'_>,
    topology: &Topology,
    messages: u64,
    tally: &Tally,
    live: LiveView<'_>,
) -> Result<(), Fault> {
    let mut connection = Connection::open(setting.broker)?;
    connection.open_channel(CHANNEL)?;
    let (mut depth, mut grown) = (0, Instant::now());
    while depth < messages {
        let now = connection.message_count(&topology.queue(0))?;
        if now > depth {
            (depth, grown) = (now, Instant::now());
        } else if grown.elapsed() > setting.silence_max {
            let lost = messages - depth;
            return Err(Fault::Messages(format!("{lost} of {messages} never came to the queue")));
        }
        let published_per_s = depth as f64 / tally.epoch.elapsed().as_secs_f64();
        let at_s = tally.epoch.elapsed().as_secs_f64();
        live(&RatePoint { at_s, published_per_s, confirmed_per_s: 0.0, consumed_per_s: 0.0 }, None);
        thread::sleep(DEPTH_INTERVAL);
    }
    connection.close()
}

/// Messages per second of a period, and per second of the broker's processor time in it.
fn note_rates(
    used: Used,
    messages: u64,
    per_s: &'static str,
    per_cpu_s: &'static str,
    reading: &mut Reading,
) {
    reading.metrics.insert(per_s, messages as f64 / used.elapsed_s);
    if let Some(cpu_s) = used.cpu_s {
        reading.metrics.insert(per_cpu_s, messages as f64 / cpu_s);
    }
}

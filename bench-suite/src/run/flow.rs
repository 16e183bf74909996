//! One run of a flow: publishers and consumers on the load threads, a measured window, and the
//! counts of all messages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::client::{CHANNEL, Connection};
use crate::driver::threads;
use crate::fault::Fault;
use crate::load::consumer::{Consumer, ConsumerPlan};
use crate::load::deliveries::Lane;
use crate::load::endpoint::{Attached, Endpoint};
use crate::load::latency::LatencyHistogram;
use crate::load::publisher::{Publisher, PublisherPlan};
use crate::load::schedule::Schedule;
use crate::load::sequence::SharedCheck;
use crate::load::tally::Tally;
use crate::machine::window::Window;
use crate::results::Messages;
use crate::run::{LiveView, Reading, Setting};
use crate::scenario::Flow;
use crate::topology::{self, Topology};

/// The default limit on octets in flight without confirms: sixteen receive buffers of a fast
/// broker, which therefore never waits, and for a slow broker a queue of some tenths of a second.
/// More would test long queues.
const UNDER_WAY_BYTES: u64 = 1 << 20;

/// The same limit in messages: 20,000 of 16 B are 1.4 MB on the wire.
const UNDER_WAY_MAX: u64 = 20_000;
const UNDER_WAY_MIN: u64 = 16;

/// One run. Lost or changed messages are part of the reading; a fault means that the run could not
/// be made.
pub(crate) fn run(
    setting: &Setting<'_>,
    flow: &Flow,
    live: LiveView<'_>,
) -> Result<Reading, Fault> {
    let topology = Topology::new(flow, setting.first_stream);
    let declared = topology.declare(setting.broker);
    let reading = declared.and_then(|()| measure(setting, flow, &topology, live));
    let removed = topology.remove(setting.broker);
    // The first fault is more important than one of the clean-up.
    let reading = reading?;
    removed?;
    Ok(reading)
}

/// An endpoint of a flow.
pub(crate) enum Party {
    Publisher(Box<Publisher>),
    Consumer(Box<Consumer>),
}

/// One run on a declared topology.
pub(crate) fn measure(
    setting: &Setting<'_>,
    flow: &Flow,
    topology: &Topology,
    live: LiveView<'_>,
) -> Result<Reading, Fault> {
    let length = match flow.seconds {
        seconds if seconds > 0.0 => Duration::from_secs_f64(seconds),
        _ => setting.window,
    };
    let setting = &Setting { window: length, ..*setting };
    let _bystanders = bystanders(setting, flow)?;
    let tally = tally(flow, setting.first_stream);
    if setting.is_watched {
        tally.watch();
    }
    let placed = place(setting, flow, topology, &tally)?;
    let has_confirms = flow.confirm_window > 0;
    let (parties, window, driven) = threads::drive(setting, placed, |watched| {
        watched.window(setting, &tally, has_confirms, live)
    });
    account(flow, parties, window, driven)
}

/// The counters for a flow.
pub(crate) fn tally(flow: &Flow, first_stream: u32) -> Arc<Tally> {
    let (streams, copies) = (topology::streams_of(flow), topology::copies(flow));
    Arc::new(Tally::new(Instant::now(), first_stream, streams, copies))
}

/// Opens connections that stay idle until they are dropped.
fn bystanders(setting: &Setting<'_>, flow: &Flow) -> Result<Vec<Connection>, Fault> {
    (0..flow.bystanders).map(|_| Connection::open(setting.broker)).collect()
}

/// Opens all connections. Consumers are placed from the last core on and publishers from the first,
/// so that with two cores they do not share one.
pub(crate) fn place(
    setting: &Setting<'_>,
    flow: &Flow,
    topology: &Topology,
    tally: &Arc<Tally>,
) -> Result<Vec<Vec<Attached<Party>>>, Fault> {
    let threads = setting.load_cores.len().max(1);
    let mut placed: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
    let shared = shared_checks(flow, topology);
    for number in 0..flow.consumers {
        let party = consumer(setting, flow, topology, tally, number, &shared)?;
        placed[threads - 1 - usize::from(number) % threads].push(party);
    }
    for number in 0..flow.publishers {
        let party = publisher(setting, flow, topology, tally, number, None)?;
        placed[usize::from(number) % threads].push(party);
    }
    // A thread without endpoints would be useless.
    placed.retain(|parties| !parties.is_empty());
    Ok(placed)
}

/// A connection that consumes from its share of the queues.
pub(crate) fn consumer(
    setting: &Setting<'_>,
    flow: &Flow,
    topology: &Topology,
    tally: &Arc<Tally>,
    number: u16,
    shared: &[Arc<SharedCheck>],
) -> Result<Attached<Party>, Fault> {
    let mut connection = Connection::open(setting.broker)?;
    connection.open_channel(CHANNEL)?;
    connection.open_idle_channels(flow.idle_channels)?;
    let lanes = lanes(topology, shared, number);
    if flow.prefetch > 0 {
        connection.qos(flow.prefetch)?;
    }
    for lane in &lanes {
        let queue = topology.queue(u32::from(lane.tag));
        connection.consume(&queue, &topology::consumer_tag(lane.tag), flow.prefetch == 0)?;
    }
    let plan = ConsumerPlan {
        channel: CHANNEL,
        lanes,
        body_size: flow.body_bytes,
        frame_size_max: connection.frame_size_max(),
        prefetch: flow.prefetch,
        ack_every: flow.ack_every,
        work: Duration::from_micros(u64::from(flow.work_us)),
    };
    let consumer = Consumer::new(plan, Arc::clone(tally))?;
    connection.into_attached(Party::Consumer(Box::new(consumer)))
}

/// The lanes of a consumer, with the checks that it shares with others.
fn lanes(topology: &Topology, shared: &[Arc<SharedCheck>], consumer: u16) -> Vec<Lane> {
    let lanes = topology.lanes(consumer).into_iter();
    let lane = |(tag, streams)| Lane {
        tag,
        streams,
        shared: shared.get(usize::from(tag)).map(Arc::clone),
    };
    lanes.map(lane).collect()
}

/// One check for each queue with several consumers; empty if each queue has one consumer.
fn shared_checks(flow: &Flow, topology: &Topology) -> Vec<Arc<SharedCheck>> {
    if !flow.shared {
        return Vec::new();
    }
    let lanes = topology.lanes(0).into_iter();
    lanes.map(|(_, streams)| Arc::new(SharedCheck::new(streams))).collect()
}

/// A connection that publishes, at most `limit` messages.
pub(crate) fn publisher(
    setting: &Setting<'_>,
    flow: &Flow,
    topology: &Topology,
    tally: &Arc<Tally>,
    number: u16,
    limit: Option<u64>,
) -> Result<Attached<Party>, Fault> {
    let mut connection = Connection::open(setting.broker)?;
    connection.open_channel(CHANNEL)?;
    connection.open_idle_channels(flow.idle_channels)?;
    if flow.confirm_window > 0 {
        connection.select_confirms()?;
    }
    let plan = PublisherPlan {
        channel: CHANNEL,
        routes: topology.routes(number),
        body_size: flow.body_bytes,
        frame_size_max: connection.frame_size_max(),
        confirm_window: flow.confirm_window,
        under_way_max: under_way_max(flow, limit),
        schedule: schedule(setting, flow)?,
        limit,
    };
    let publisher = Publisher::new(plan, Arc::clone(tally))?;
    connection.into_attached(Party::Publisher(Box::new(publisher)))
}

/// There is no limit for an open loop, which never skips messages, and for a publisher with a limit
/// of its own.
fn under_way_max(flow: &Flow, limit: Option<u64>) -> u64 {
    match (flow.under_way_max, limit) {
        (_, Some(_)) => u64::MAX,
        _ if flow.rate_per_s > 0.0 => u64::MAX,
        (0, None) => (UNDER_WAY_BYTES / flow.body_bytes as u64).clamp(UNDER_WAY_MIN, UNDER_WAY_MAX),
        (messages, None) => u64::from(messages),
    }
}

/// Each publisher has its share of the rate. A ramp lasts from the start to the end of the run.
fn schedule(setting: &Setting<'_>, flow: &Flow) -> Result<Option<Schedule>, Fault> {
    let share = 1.0 / f64::from(flow.publishers);
    let (from, to) = (flow.rate_per_s * share, flow.rate_end_per_s * share);
    match (from > 0.0, to > 0.0) {
        (false, _) => Ok(None),
        (true, false) => Schedule::constant(from).map(Some),
        (true, true) => Schedule::ramp(from, to, setting.warm_up + setting.window).map(Some),
    }
}

/// Combines the counts of the endpoints with the result of the watching thread.
fn account(
    flow: &Flow,
    parties: Vec<Party>,
    window: Result<Window, Fault>,
    driven: Result<(), Fault>,
) -> Result<Reading, Fault> {
    let mut reading = Reading { streams: topology::streams_of(flow), ..Reading::default() };
    let mut messages = Messages::default();
    let mut delivery = LatencyHistogram::new();
    let (mut confirm, mut send_lag) = (LatencyHistogram::new(), LatencyHistogram::new());
    for party in parties {
        match party {
            Party::Publisher(publisher) => {
                let report = publisher.finish();
                messages.published += report.published;
                confirm.merge(report.confirm);
                send_lag.merge(report.send_lag);
            }
            Party::Consumer(consumer) => {
                let report = consumer.finish();
                messages.add(&report.messages);
                delivery.merge(report.delivery);
            }
        }
    }
    // A broker that lost messages is silent at the end; the loss explains more.
    match driven {
        Err(Fault::Silent { .. }) if !messages.is_clean() => {}
        driven => driven?,
    }
    reading.messages = Some(messages);
    if !messages.is_clean() {
        return Ok(reading);
    }
    let window = window?;
    reading.metrics = window.metrics();
    reading.rates = window.rates;
    let kinds = [("delivery", delivery), ("confirm", confirm), ("send_lag", send_lag)];
    for (key, latencies) in kinds {
        if let Some(latency) = latencies.summary() {
            reading.latencies.insert(key, latency);
        }
    }
    Ok(reading)
}

/// The counts of endpoints that were not measured.
pub(crate) fn messages(parties: Vec<Party>, published: u64) -> Messages {
    let mut messages = Messages { published, ..Messages::default() };
    for party in parties {
        if let Party::Consumer(consumer) = party {
            messages.add(&consumer.finish().messages);
        }
    }
    messages
}

impl Endpoint for Party {
    fn receive(&mut self, chunk: &[u8], now: Instant) -> Result<(), Fault> {
        match self {
            Self::Publisher(publisher) => publisher.receive(chunk, now),
            Self::Consumer(consumer) => consumer.receive(chunk, now),
        }
    }

    fn poll_send(&mut self, now: Instant, out: &mut Vec<u8>) -> Result<(), Fault> {
        match self {
            Self::Publisher(publisher) => publisher.poll_send(now, out),
            Self::Consumer(consumer) => consumer.poll_send(now, out),
        }
    }

    fn next_due(&self, now: Instant) -> Option<Instant> {
        match self {
            Self::Publisher(publisher) => publisher.next_due(now),
            Self::Consumer(consumer) => consumer.next_due(now),
        }
    }

    fn is_done(&self) -> bool {
        match self {
            Self::Publisher(publisher) => publisher.is_done(),
            Self::Consumer(consumer) => consumer.is_done(),
        }
    }

    fn awaits(&self) -> &'static str {
        match self {
            Self::Publisher(publisher) => publisher.awaits(),
            Self::Consumer(consumer) => consumer.awaits(),
        }
    }
}

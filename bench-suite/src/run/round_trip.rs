//! One run of round trips: callers, and a server if they call one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::broker::Broker;
use crate::client::{CHANNEL, Connection, QueueOptions};
use crate::driver::threads;
use crate::fault::Fault;
use crate::load::endpoint::Attached;
use crate::load::latency::LatencyHistogram;
use crate::load::round_trip::{Caller, CallerPlan, Question, RoundTripEndpoint, RpcServer};
use crate::load::stamp::{BODY_SIZE_MAX, STAMP_SIZE};
use crate::load::tally::Tally;
use crate::results::Messages;
use crate::run::{LiveView, Reading, Setting};
use crate::scenario::{RoundTrip, RoundTripKind};

/// The pseudo-queue of direct replies.
const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

type RoundTripAttached = Attached<RoundTripEndpoint>;

/// One run. Each caller has one stream.
pub(crate) fn run(
    setting: &Setting<'_>,
    what: &RoundTrip,
    live: LiveView<'_>,
) -> Result<Reading, Fault> {
    check(what)?;
    let callers = u32::from(what.callers);
    let tally = Arc::new(Tally::new(Instant::now(), setting.first_stream, callers, 1));
    let placed = deal(attach(setting, what, &tally)?, setting.load_cores.len());
    let (endpoints, window, driven) =
        threads::drive(setting, placed, |watched| watched.window(setting, &tally, false, live));
    driven?;
    let (mut messages, mut latencies) = (Messages::default(), LatencyHistogram::new());
    for endpoint in endpoints {
        if let RoundTripEndpoint::Caller(caller) = endpoint {
            let (seen, times) = caller.finish();
            messages.published += seen.published;
            messages.add(&seen);
            latencies.merge(times);
        }
    }
    let window = window?;
    let mut metrics = window.metrics();
    // The figures that a flow has per message.
    let counted = [
        ("messages_per_s", Some("round_trips_per_s")),
        ("messages_per_broker_cpu_s", Some("round_trips_per_broker_cpu_s")),
        ("published_per_s", None),
        ("client_ceiling_per_s", None),
    ];
    for (key, renamed) in counted {
        if let (Some(value), Some(renamed)) = (metrics.remove(key), renamed) {
            metrics.insert(renamed, value);
        }
    }
    let latencies = latencies.summary().map(|summary| ("round_trip", summary));
    Ok(Reading {
        metrics,
        messages: Some(messages),
        latencies: BTreeMap::from_iter(latencies),
        rates: window.rates,
        streams: callers,
    })
}

fn check(what: &RoundTrip) -> Result<(), Fault> {
    if what.callers == 0 {
        return Err(Fault::Scenario("`callers` is 0; at least 1 is needed".to_owned()));
    }
    if !(STAMP_SIZE..=BODY_SIZE_MAX).contains(&what.body_bytes) {
        return Err(Fault::Scenario(format!(
            "`body_bytes` is {}; from {STAMP_SIZE} (the stamp that every message carries) to \
             {BODY_SIZE_MAX} (the largest message that brokers take by default) can be sent",
            what.body_bytes
        )));
    }
    Ok(())
}

/// Opens all connections and starts their consumers. All queues are exclusive: they are deleted
/// with their connections, even if the run fails.
fn attach(
    setting: &Setting<'_>,
    what: &RoundTrip,
    tally: &Arc<Tally>,
) -> Result<Vec<RoundTripAttached>, Fault> {
    let prefix = format!("leveret-bench.{}.{:08}", std::process::id(), setting.first_stream);
    let server_queue = format!("{prefix}.server");
    let is_rpc =
        matches!(what.what, RoundTripKind::RpcReplyQueue | RoundTripKind::RpcDirectReplyTo);
    let mut attached = Vec::new();
    let streams = setting.first_stream..setting.first_stream + u32::from(what.callers);
    if is_rpc {
        let mut connection = connect(setting.broker)?;
        make_queue(&mut connection, &server_queue)?;
        connection.consume(&server_queue, "server", true)?;
        let frame_size_max = connection.frame_size_max();
        let server = RpcServer::new(frame_size_max, streams.clone(), Arc::clone(tally));
        attached.push(connection.into_attached(RoundTripEndpoint::Server(Box::new(server)))?);
    }
    for (caller, stream) in streams.enumerate() {
        let mut connection = connect(setting.broker)?;
        let queue = format!("{prefix}.q{caller:05}");
        let server_queue = server_queue.clone();
        let question = match what.what {
            RoundTripKind::Get => Question::Get { queue: queue.clone() },
            RoundTripKind::Deliver => Question::Deliver { queue: queue.clone() },
            RoundTripKind::RpcReplyQueue => Question::Rpc { server_queue, reply_to: queue.clone() },
            RoundTripKind::RpcDirectReplyTo => {
                Question::Rpc { server_queue, reply_to: DIRECT_REPLY_TO.to_owned() }
            }
        };
        match what.what {
            RoundTripKind::Get => make_queue(&mut connection, &queue)?,
            RoundTripKind::Deliver | RoundTripKind::RpcReplyQueue => {
                make_queue(&mut connection, &queue)?;
                connection.consume(&queue, "caller", true)?;
            }
            RoundTripKind::RpcDirectReplyTo => {
                connection.consume(DIRECT_REPLY_TO, "caller", true)?;
            }
        }
        let caller = Caller::new(CallerPlan {
            question,
            body_size: what.body_bytes,
            stream,
            frame_size_max: connection.frame_size_max(),
            tally: Arc::clone(tally),
        });
        attached.push(connection.into_attached(RoundTripEndpoint::Caller(Box::new(caller)))?);
    }
    Ok(attached)
}

fn connect(broker: &Broker) -> Result<Connection, Fault> {
    let mut connection = Connection::open(broker)?;
    connection.open_channel(CHANNEL)?;
    Ok(connection)
}

fn make_queue(connection: &mut Connection, queue: &str) -> Result<(), Fault> {
    let options = QueueOptions { exclusive: true, ..QueueOptions::default() };
    connection.declare_queue(queue, &options).map(drop)
}

/// Distributes the connections over the threads; no thread is left without one.
fn deal(attached: Vec<RoundTripAttached>, cores: usize) -> Vec<Vec<RoundTripAttached>> {
    let count = cores.clamp(1, attached.len().max(1));
    let mut threads: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
    for (index, one) in attached.into_iter().enumerate() {
        threads[index % count].push(one);
    }
    threads
}

//! Measures a flow alone, with an interference, and alone again: what the interference costs it.
//!
//! ```text
//!   alone ──► make idle things, start the trouble ──► both ────► end, remove ──► alone
//!      └────────────── mean ─────────── ratio ───────────┴──────── mean ───────────┘
//! ```
//!
//! The flow is measured alone at both ends, so that an even drift of the machine cancels out of the
//! ratio.

mod idle_things;
mod trouble;

use std::collections::BTreeMap;

use self::idle_things::Standing;
use crate::fault::Fault;
use crate::results::Latency;
use crate::run::{LiveView, Reading, Setting, flow};
use crate::scenario::{Exchange, Flow, IdleThings, Interference, Trouble};
use crate::topology::{self, Topology};

/// A compared figure: its key, its key for the flow alone, and the key of the ratio.
type Compared = (&'static str, &'static str, &'static str);

const PER_S: Compared = ("messages_per_s", "alone_messages_per_s", "kept_messages_per_s");
const PER_CPU_S: Compared = (
    "messages_per_broker_cpu_s",
    "alone_messages_per_broker_cpu_s",
    "kept_messages_per_broker_cpu_s",
);

/// A compared percentile of the delivery: its key for the flow alone, and the key of the ratio.
type ComparedLatency = (&'static str, &'static str, fn(&Latency) -> f64);

const LATENCIES: [ComparedLatency; 2] = [
    ("alone_delivery_p99_us", "delivery_p99_ratio", |latency| latency.p99_us),
    ("alone_delivery_p99_9_us", "delivery_p99_9_ratio", |latency| latency.p99_9_us),
];

/// Each published key has 16 patterns. With fewer keys, the patterns that are bound at the same
/// time ([`trouble::BOUND_AT_ONCE`]) would not be distinct.
const KEYS_MIN: u32 = trouble::BOUND_AT_ONCE as u32 / 2 / 16;

/// One run. Its figures are those of the flow with the interference.
pub(crate) fn run(
    setting: &Setting<'_>,
    interference: &Interference,
    live: LiveView<'_>,
) -> Result<Reading, Fault> {
    let mut streams = Streams { next: setting.first_stream };
    let before = alone(&streams.setting(setting, &interference.flow), interference, live)?;
    let mut reading = disturbed(setting, &mut streams, interference, live)?;
    if reading.messages.is_some_and(|messages| !messages.is_clean()) {
        reading.streams = streams.next - setting.first_stream;
        return Ok(reading);
    }
    let after = alone(&streams.setting(setting, &interference.flow), interference, live)?;
    compare(interference, &before, &mut reading, &after);
    for other in [before.messages, after.messages].into_iter().flatten() {
        let messages = reading.messages.get_or_insert_default();
        messages.published += other.published;
        messages.add(&other);
    }
    reading.streams = streams.next - setting.first_stream;
    Ok(reading)
}

/// Refuses a scenario that cannot be run or is meaningless.
pub(crate) fn check(interference: &Interference) -> Result<(), Fault> {
    topology::check(&interference.flow)?;
    if let Some(flow) = interference.trouble.as_ref().and_then(trouble::flow_of) {
        topology::check(&flow)?;
    }
    let refuse = |why: &str| Err(Fault::Scenario(why.to_owned()));
    match &interference.trouble {
        None if interference.idle == IdleThings::default() => {
            refuse("nothing stands beside the flow: give `idle` or `trouble`")
        }
        Some(_) if interference.flow.rate_per_s == 0.0 => refuse(
            "a flow that takes all it can get is slower beside any trouble: give it a \
             `rate_per_s`, and its latency is compared",
        ),
        Some(Trouble::Connections(churn)) if churn.clients == 0 => {
            refuse("`clients` is 0; at least 1 is needed")
        }
        Some(Trouble::Bindings(churn)) => match churn.changes_per_s {
            _ if interference.flow.exchange != Exchange::Topic => {
                refuse("bindings come and go on a topic exchange: give the flow one")
            }
            _ if interference.flow.queues * interference.flow.keys_per_queue < KEYS_MIN => refuse(
                "bindings that come and go need at least 4 published keys to be different: give \
                 the flow more `queues` or `keys_per_queue`",
            ),
            per_s if per_s.is_finite() && per_s > 0.0 => Ok(()),
            per_s => refuse(&format!("`changes_per_s` is {per_s}; a number above 0 is needed")),
        },
        _ => Ok(()),
    }
}

/// Gives every run of a flow streams of its own.
struct Streams {
    next: u32,
}

impl Streams {
    /// With several load cores, the first one is for the trouble and the others are for the flow. A
    /// single core is shared, and the trouble has the lower priority.
    fn setting<'a>(&mut self, setting: &Setting<'a>, flow: &Flow) -> Setting<'a> {
        let load_cores = match setting.load_cores {
            [_, rest @ ..] if !rest.is_empty() => rest,
            all => all,
        };
        Setting { first_stream: self.take(flow), load_cores, ..*setting }
    }

    fn take(&mut self, flow: &Flow) -> u32 {
        let first_stream = self.next;
        self.next += topology::streams_of(flow);
        first_stream
    }
}

fn alone(
    setting: &Setting<'_>,
    interference: &Interference,
    live: LiveView<'_>,
) -> Result<Reading, Fault> {
    let reading = flow::run(setting, &interference.flow, live)?;
    match reading.messages {
        Some(messages) if !messages.is_clean() => Err(Fault::Messages(messages.to_string())),
        _ => Ok(reading),
    }
}

/// The flow with the interference, and the cost of creating and deleting it.
fn disturbed(
    setting: &Setting<'_>,
    streams: &mut Streams,
    interference: &Interference,
    live: LiveView<'_>,
) -> Result<Reading, Fault> {
    let flow = Flow { idle_channels: interference.idle.channels, ..interference.flow.clone() };
    let flow_setting = streams.setting(setting, &flow);
    let mut standing = Standing::new(setting, interference.idle);
    // Bindings change until after the consumers of the flow have left.
    let topology = Topology::new(&flow, flow_setting.first_stream).keep_queues();
    let measured = standing.make().and_then(|()| {
        topology.declare(setting.broker)?;
        let Some(trouble) = &interference.trouble else {
            return flow::measure(&flow_setting, &flow, &topology, live);
        };
        let first_stream = trouble::flow_of(trouble).map_or(0, |flow| streams.take(&flow));
        let its_setting = &Setting { first_stream, ..*setting };
        trouble::during(its_setting, trouble, &topology, live, |live| {
            flow::measure(&flow_setting, &flow, &topology, live)
        })
    });
    // Everything is deleted after a failed run too; the first fault is more important.
    let removed = topology.remove(setting.broker);
    let ended = standing.remove();
    let mut reading = measured?;
    removed?;
    reading.metrics.extend(ended?);
    Ok(reading)
}

/// Compares the flow with the interference to the mean of both measurements alone.
fn compare(interference: &Interference, before: &Reading, reading: &mut Reading, after: &Reading) {
    let metrics = &mut reading.metrics;
    if interference.trouble.is_some() {
        // The processor time includes that of the trouble.
        metrics.remove("messages_per_broker_cpu_s");
    }
    let is_open = interference.flow.rate_per_s > 0.0;
    for (key, alone, ratio) in [PER_S, PER_CPU_S] {
        let values = [before, after].map(|reading| reading.metrics.get(key).copied());
        let (Some(now), [Some(first), Some(last)]) = (metrics.get(key).copied(), values) else {
            continue;
        };
        // In an open loop the rate is given.
        if is_open && key == PER_S.0 {
            continue;
        }
        compare_one(metrics, alone, f64::midpoint(first, last), ratio, now);
    }
    if !is_open {
        return;
    }
    let delivery =
        |reading: &Reading, of: fn(&Latency) -> f64| reading.latencies.get("delivery").map(of);
    for (alone, ratio, of) in LATENCIES {
        let values = [before, reading, after].map(|reading| delivery(reading, of));
        if let [Some(first), Some(now), Some(last)] = values {
            compare_one(&mut reading.metrics, alone, f64::midpoint(first, last), ratio, now);
        }
    }
}

fn compare_one(
    metrics: &mut BTreeMap<&'static str, f64>,
    alone: &'static str,
    alone_value: f64,
    ratio: &'static str,
    now: f64,
) {
    metrics.insert(alone, alone_value);
    // A quotient by zero is not a figure, and not valid JSON.
    if alone_value > 0.0 {
        metrics.insert(ratio, now / alone_value);
    }
}

#[cfg(test)]
mod tests;

//! One measured run of each kind of load, with its input and its result.

pub(crate) mod backlog;
pub(crate) mod churn;
pub(crate) mod flow;
pub(crate) mod idle;
pub(crate) mod interference;
pub(crate) mod round_trip;
pub(crate) mod search;
#[cfg(test)]
mod stub;
#[cfg(test)]
mod truth;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::broker::Broker;
use crate::results::{Latency, Messages, RatePoint};
use crate::scenario::Transport;

/// The input of every run besides its scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting<'a> {
    pub(crate) broker: &'a Broker,
    /// The cores of the load threads, one thread each; empty for one thread that is not pinned.
    pub(crate) load_cores: &'a [usize],
    /// The measured time after the warm-up.
    pub(crate) window: Duration,
    /// The time before it: connections settle, caches and the broker's memory warm up.
    pub(crate) warm_up: Duration,
    /// How long a broker may be silent while something is awaited.
    pub(crate) silence_max: Duration,
    pub(crate) transport: Transport,
    /// Whether latencies are shown during the run.
    pub(crate) is_watched: bool,
    /// Streams from this one on are free for this run.
    pub(crate) first_stream: u32,
}

/// Shows the rates of the last interval, and p50 and p99 of the deliveries so far in microseconds.
pub(crate) type LiveView<'a> = &'a dyn Fn(&RatePoint, Option<[u64; 2]>);

/// The result of a run; it becomes a [`crate::results::Run`].
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// By the keys of [`crate::results::METRICS`].
    pub(crate) metrics: BTreeMap<&'static str, f64>,
    /// If they are not clean, the run has failed.
    pub(crate) messages: Option<Messages>,
    /// By the keys of [`crate::results::LATENCIES`].
    pub(crate) latencies: BTreeMap<&'static str, Latency>,
    pub(crate) rates: Vec<RatePoint>,
    /// The number of streams that it used, from [`Setting::first_stream`] on.
    pub(crate) streams: u32,
}

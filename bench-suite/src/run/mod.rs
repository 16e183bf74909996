//! One measured run of each kind of load, and what it is given and gives back.

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

/// What every run needs to know besides its scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting<'a> {
    pub(crate) broker: &'a Broker,
    /// Cores of the load threads, one thread each; empty for one thread that is not pinned.
    pub(crate) load_cores: &'a [usize],
    /// How long is measured, after the warm-up.
    pub(crate) window: Duration,
    /// Before it: connections settle, caches and the broker's memory warm up.
    pub(crate) warm_up: Duration,
    /// How long a broker may be silent while something is awaited.
    pub(crate) silence_max: Duration,
    pub(crate) transport: Transport,
    /// Whether somebody looks on, to whom latencies are to be shown.
    pub(crate) is_watched: bool,
    /// Streams from here on are free for this run.
    pub(crate) first_stream: u32,
}

/// Shows what goes on: rates of the last interval, and p50 and p99 of the deliveries so far in
/// microseconds.
pub(crate) type LiveView<'a> = &'a dyn Fn(&RatePoint, Option<[u64; 2]>);

/// What one run found; it becomes a [`crate::results::Run`].
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// By the keys of [`crate::results::METRICS`].
    pub(crate) metrics: BTreeMap<&'static str, f64>,
    /// Unclean ones make the run a failed one.
    pub(crate) messages: Option<Messages>,
    /// By the keys of [`crate::results::LATENCIES`].
    pub(crate) latencies: BTreeMap<&'static str, Latency>,
    pub(crate) rates: Vec<RatePoint>,
    /// Streams that it used, from [`Setting::first_stream`] on.
    pub(crate) streams: u32,
}

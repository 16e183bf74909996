//! The results of a measurement, as written to `results.json`: the schema, version 1.
//!
//! The names of the fields are the schema. A change of their meaning raises [`SCHEMA_VERSION`]; a
//! new optional field does not. See `docs/RESULTS_SCHEMA.md`.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Version of the schema that this program writes, and the only one that it reads.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// One measurement: several subjects, several scenarios, interleaved runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Results {
    /// [`SCHEMA_VERSION`].
    pub(crate) schema_version: u32,
    /// Version of `leveret-bench`.
    pub(crate) bench_version: String,
    pub(crate) environment: Environment,
    /// Ratios refer to the first subject. The floor, if there is one, is the last.
    pub(crate) subjects: Vec<Subject>,
    /// In the order of execution.
    pub(crate) scenarios: Vec<ScenarioResult>,
}

/// The machine and its state before the first run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Environment {
    /// Seconds since 1970.
    pub(crate) started_unix_s: u64,
    pub(crate) cpu_model: String,
    pub(crate) cores_online: usize,
    /// Kernel release.
    pub(crate) kernel: String,
    pub(crate) memory_total_bytes: u64,
    /// Scaling governor of the first core; `None` if it is unknown.
    pub(crate) governor: Option<String>,
    /// Revision of the working directory, with `+` if there are changes.
    pub(crate) commit: Option<String>,
    /// Load averages over 1, 5 and 15 minutes before the first run.
    pub(crate) load_average: [f64; 3],
    /// Cores of the load threads; empty if they are not pinned.
    pub(crate) load_cores: Vec<usize>,
}

/// A broker or the floor, as it was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subject {
    /// The name in reports.
    pub(crate) name: String,
    /// Whether it is the floor, not a broker.
    pub(crate) is_floor: bool,
    /// Product and version from `connection.start`.
    pub(crate) product: String,
    /// Without user and password.
    pub(crate) address: String,
    /// Root of its process tree; `None` if its processes cannot be seen.
    pub(crate) pid: Option<u32>,
    /// The cores that it may use, in the kernel's notation, for example `0` or `0-3`.
    pub(crate) cores: Option<String>,
    /// Its command line, with its settings.
    pub(crate) command: Option<String>,
    /// Resident memory before the first run.
    pub(crate) rss_bytes: Option<u64>,
}

/// All runs of one scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScenarioResult {
    /// Name of its file, without `.toml`.
    pub(crate) name: String,
    /// One line for a heading.
    pub(crate) title: String,
    /// The question that it answers, for readers who do not know it.
    pub(crate) question: String,
    /// The scenario file.
    pub(crate) definition: String,
    /// The transport of the load client: `tokio-uring`, `io-uring` or `blocking`.
    pub(crate) transport: String,
    /// In the order of execution: run 1 of each subject, run 2 of each subject, …
    pub(crate) runs: Vec<Run>,
}

/// One run against one subject.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    /// Index of the subject.
    pub(crate) subject: usize,
    /// From 1.
    pub(crate) number: u32,
    /// Why the run is invalid; then nothing else in it may be used.
    pub(crate) fault: Option<String>,
    /// By the keys of [`METRICS`]; figures that could not be measured are missing.
    pub(crate) metrics: BTreeMap<String, f64>,
    /// `None` if the scenario moves no messages (idle connections, churn).
    pub(crate) messages: Option<Messages>,
    /// By the keys of [`LATENCIES`].
    pub(crate) latencies: BTreeMap<String, Latency>,
    /// Rates over time, including the warm-up; may be empty.
    pub(crate) rates: Vec<RatePoint>,
}

/// The messages of a run, including warm-up and end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Messages {
    pub(crate) published: u64,
    /// All expected deliveries: a message counts once for each queue it was routed to.
    pub(crate) expected: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) reordered: u64,
    /// With a wrong checksum, a changed filler or a wrong size.
    pub(crate) corrupted: u64,
    /// From another run or another queue, or never published.
    pub(crate) foreign: u64,
}

/// A point in the plot of rates over time.
#[expect(clippy::struct_field_names, reason = "the unit is part of the name")]
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RatePoint {
    /// End of the interval, seconds since the run began.
    pub(crate) at_s: f64,
    pub(crate) published_per_s: f64,
    /// 0 without confirms.
    pub(crate) confirmed_per_s: f64,
    pub(crate) consumed_per_s: f64,
}

/// Times of one kind, within the measured window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p99_9_us: f64,
    pub(crate) p99_99_us: f64,
    pub(crate) max_us: f64,
    /// `(percentile, microseconds)`, ascending, for a curve on a logarithmic axis: 50, 75, 87.5, …
    pub(crate) curve: Vec<(f64, f64)>,
}

/// Whether a higher figure is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
    /// It explains other figures and is not compared.
    Neither,
}

/// A figure of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Metric {
    /// Its key in [`Run::metrics`].
    pub(crate) key: &'static str,
    /// The heading of its column, with the unit.
    pub(crate) heading: &'static str,
    pub(crate) better: Better,
    /// Whether a comparison with the floor is meaningful; then reports show the share of the floor.
    pub(crate) has_floor: bool,
}

const fn metric(key: &'static str, heading: &'static str, better: Better) -> Metric {
    Metric { key, heading, better, has_floor: false }
}

/// All figures, in the order of a report's columns.
pub(crate) const METRICS: [Metric; 36] = [
    metric("kept_messages_per_s", "messages/s, × alone", Better::More),
    metric("kept_messages_per_broker_cpu_s", "messages per broker CPU s, × alone", Better::More),
    metric("delivery_p99_9_ratio", "p99.9 of deliveries, × alone", Better::Less),
    metric("delivery_p99_ratio", "p99 of deliveries, × alone", Better::Less),
    Metric { key: "messages_per_s", heading: "messages/s", better: Better::More, has_floor: true },
    Metric {
        key: "messages_per_broker_cpu_s",
        heading: "messages per broker CPU s",
        better: Better::More,
        has_floor: true,
    },
    metric("rate_max_per_s", "highest rate within the bound, messages/s", Better::More),
    Metric {
        key: "round_trips_per_s",
        heading: "round trips/s",
        better: Better::More,
        has_floor: true,
    },
    metric("round_trips_per_broker_cpu_s", "round trips per broker CPU s", Better::More),
    metric("operations_per_s", "operations/s", Better::More),
    metric("operations_per_broker_cpu_s", "operations per broker CPU s", Better::More),
    metric("filled_per_s", "filled, messages/s", Better::More),
    metric("filled_per_broker_cpu_s", "filled per broker CPU s", Better::More),
    metric("drained_per_s", "drained, messages/s", Better::More),
    metric("drained_per_broker_cpu_s", "drained per broker CPU s", Better::More),
    metric("bytes_per_message", "resident bytes per waiting message", Better::Less),
    metric("bytes_per_connection", "resident bytes per connection", Better::Less),
    metric("cpu_us_per_connection", "broker CPU µs per opened connection", Better::Less),
    metric("idle_cpu_percent", "broker CPU % while idle", Better::Less),
    metric("made_per_s", "idle things made/s", Better::More),
    metric("made_per_broker_cpu_s", "idle things made per broker CPU s", Better::More),
    metric("removed_per_s", "idle things removed/s", Better::More),
    metric("bytes_per_idle_thing", "resident bytes per idle thing", Better::Less),
    metric("system_calls_per_message", "system calls per message", Better::Less),
    metric("rss_rest_bytes", "resident bytes before the run", Better::Neither),
    metric("rss_peak_bytes", "resident bytes at most", Better::Less),
    metric("published_per_s", "published/s", Better::Neither),
    metric("confirmed_per_s", "confirmed/s", Better::Neither),
    metric("broker_busy", "broker CPU s per s", Better::Neither),
    metric("client_busy", "busiest load thread, CPU s per s", Better::Neither),
    metric("client_ceiling_per_s", "the client's ceiling, messages/s", Better::Neither),
    metric("alone_messages_per_s", "alone: messages/s", Better::Neither),
    metric("alone_messages_per_broker_cpu_s", "alone: messages per broker CPU s", Better::Neither),
    metric("alone_delivery_p99_us", "alone: p99 of deliveries, µs", Better::Neither),
    metric("alone_delivery_p99_9_us", "alone: p99.9 of deliveries, µs", Better::Neither),
    metric("trouble_per_s", "done beside it, per s", Better::Neither),
];

/// Kinds of latency: key in [`Run::latencies`] and heading.
pub(crate) const LATENCIES: [(&str, &str); 5] = [
    ("delivery", "intended send time → delivery"),
    ("confirm", "intended send time → confirm"),
    ("round_trip", "request → reply"),
    ("send_lag", "intended send time → send (the client's own delay)"),
    ("operation", "operation"),
];

impl Messages {
    /// Adds the counts of another endpoint, except for published messages, which several endpoints
    /// may count.
    pub(crate) const fn add(&mut self, other: &Self) {
        self.expected += other.expected;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.corrupted += other.corrupted;
        self.foreign += other.foreign;
    }

    /// Whether every message came once, unchanged and in order.
    pub(crate) const fn is_clean(&self) -> bool {
        self.lost == 0
            && self.duplicated == 0
            && self.reordered == 0
            && self.corrupted == 0
            && self.foreign == 0
    }
}

impl fmt::Display for Messages {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, lost, duplicated, reordered, corrupted, foreign, .. } = self;
        write!(
            out,
            "of {expected} messages {lost} lost, {duplicated} duplicated, {reordered} reordered, \
             {corrupted} corrupted, {foreign} foreign"
        )
    }
}

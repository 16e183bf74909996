//! The order of a measurement: every scenario, run by run, alternating between the subjects.

use std::time::Duration;

use crate::broker::{self, Broker};
use crate::catalogue::{self, Entry};
use crate::cli::Plan;
use crate::client::Connection;
use crate::fault::Fault;
use crate::floor::process::FloorProcess;
use crate::live::Live;
use crate::machine::system_calls::Tracer;
use crate::machine::{environment, procfs};
use crate::report::text::{quantity, time_us};
use crate::results::{
    Better, LATENCIES, METRICS, Metric, Results, Run, SCHEMA_VERSION, ScenarioResult, Subject,
};
use crate::run::{Reading, Setting};
use crate::scenario::Load;
use crate::{report, run};

/// The time before the measured window in which connections settle, and caches and the broker's
/// memory warm up.
const WARM_UP: Duration = Duration::from_millis(500);

/// How long a broker may be silent while something is awaited. RabbitMQ pauses for seconds when it
/// pages messages out.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Streams that are skipped after a run that ended early, because its number of streams is unknown.
const STREAMS_OF_A_FAILED_RUN: u32 = 1 << 16;

/// The highest first stream of a run, so that the streams of the largest run fit the 24 bits of a
/// stamp.
const FIRST_STREAM_MAX: u32 = 15 << 20;

/// How many figures are shown in the line of a run.
const FIGURES_SHOWN: usize = 2;

/// Makes all runs. The reports are written again after every scenario, so that an interrupted
/// measurement keeps its results. A failed run is part of the results; only what prevents all runs
/// (no broker, no process, no such core) is an error.
pub(crate) fn measure(plan: &Plan) -> Result<(Results, report::Written), Fault> {
    let mut entries = catalogue::choose(&plan.scenarios)?;
    if plan.scenarios.is_empty() && !plan.scenario_files.is_empty() {
        entries.clear();
    }
    for path in &plan.scenario_files {
        entries.push(catalogue::read(path)?);
    }
    environment::check_cores(&plan.load_cores)?;
    for broker in &plan.brokers {
        broker::check_target(broker, plan.allow_remote)?;
        broker::check_process(broker)?;
    }
    let environment = environment::environment(&plan.load_cores);
    let tracer = if plan.system_calls {
        Some(Tracer::find().ok_or_else(|| {
            Fault::Machine("--system-calls needs perf with tracepoints, or strace".to_owned())
        })?)
    } else {
        None
    };
    let needs_floor = !plan.no_floor && entries.iter().any(|entry| entry.scenario.floor);
    let floor = needs_floor.then(|| FloorProcess::start(floor_core(plan))).transpose()?;
    let mut brokers = plan.brokers.clone();
    brokers.extend(floor.as_ref().map(|floor| floor.broker.clone()));
    let subjects = brokers.iter().map(inspect).collect::<Result<Vec<_>, _>>()?;
    for warning in environment::warnings(&environment, &subjects) {
        eprintln!("leveret-bench: warning: {warning}");
    }
    let results = Results {
        schema_version: SCHEMA_VERSION,
        bench_version: env!("CARGO_PKG_VERSION").to_owned(),
        environment,
        subjects,
        scenarios: Vec::new(),
    };
    Measurement { plan, brokers, tracer, results, next_stream: 0 }.run(&entries)
}

/// The core of the floor: the one that was requested, or that of the first broker.
fn floor_core(plan: &Plan) -> Option<usize> {
    let of_broker = || {
        let cores = procfs::allowed_cores(plan.brokers.first()?.pid?);
        cores.split(['-', ',']).next()?.parse().ok()
    };
    plan.floor_core.or_else(of_broker)
}

/// Inspects a broker once, before the first run.
fn inspect(broker: &Broker) -> Result<Subject, Fault> {
    let connection = Connection::open(broker)?;
    let product = connection.product.clone();
    connection.close()?;
    Ok(Subject {
        name: broker.name.clone(),
        is_floor: broker.is_floor,
        product,
        address: broker.address.to_string(),
        pid: broker.pid,
        cores: broker.pid.map(procfs::allowed_cores),
        command: broker.pid.and_then(procfs::command_line),
        rss_bytes: broker.pid.map(procfs::rss_bytes).transpose()?,
    })
}

struct Measurement<'p> {
    plan: &'p Plan,
    brokers: Vec<Broker>,
    tracer: Option<Tracer>,
    results: Results,
    /// Every run has streams of its own, so that a late message of another run is recognised as
    /// foreign.
    next_stream: u32,
}

impl Measurement<'_> {
    fn run(mut self, entries: &[Entry]) -> Result<(Results, report::Written), Fault> {
        let takes_part = |entry: &Entry, broker: &Broker| entry.scenario.floor || !broker.is_floor;
        let count = |entry| self.brokers.iter().filter(|broker| takes_part(entry, broker)).count();
        let runs: usize = entries.iter().map(count).sum();
        let live = Live::new(runs as u64 * u64::from(self.plan.runs));
        let mut written = report::write(&self.results, &self.plan.out)?;
        for entry in entries {
            let result = self.run_scenario(entry, &live);
            self.results.scenarios.push(result);
            written = report::write(&self.results, &self.plan.out)?;
        }
        live.end();
        Ok((self.results, written))
    }

    fn run_scenario(&mut self, entry: &Entry, live: &Live) -> ScenarioResult {
        let mut runs = Vec::new();
        let mut baselines = vec![None; self.brokers.len()];
        for number in 1..=self.plan.runs {
            for subject in 0..self.brokers.len() {
                if self.brokers[subject].is_floor && !entry.scenario.floor {
                    continue;
                }
                let name = self.brokers[subject].name.clone();
                live.begin(&entry.name, &name, number, self.plan.runs);
                let outcome = self.run_once(entry, subject, live, &mut baselines);
                let mut run = run_of(subject, number, outcome);
                if number == self.plan.runs && run.fault.is_none() {
                    self.count_system_calls(entry, subject, &mut run, live);
                }
                let line = one_line(&run);
                live.finish_run(&format!("{} · {name} · run {number}: {line}", entry.name));
                runs.push(run);
            }
        }
        ScenarioResult {
            name: entry.name.clone(),
            title: entry.scenario.title.clone(),
            question: entry.scenario.question.clone(),
            definition: entry.text.clone(),
            transport: entry.scenario.transport_name().to_owned(),
            runs,
        }
    }

    fn run_once(
        &mut self,
        entry: &Entry,
        subject: usize,
        live: &Live,
        // Resident memory before the first run of the scenario, by subject.
        baselines: &mut [Option<u64>],
    ) -> Result<Reading, Fault> {
        let setting = Setting {
            broker: &self.brokers[subject],
            load_cores: &self.plan.load_cores,
            window: Duration::from_secs(self.plan.seconds),
            warm_up: WARM_UP,
            silence_max: SILENCE_MAX,
            transport: entry.scenario.transport,
            is_watched: live.is_on_terminal(),
            first_stream: self.next_stream,
        };
        let sample = |point: &_, delivery_us| live.sample(point, delivery_us);
        let outcome = match &entry.scenario.load {
            Load::Flow(flow) => run::flow::run(&setting, flow, &sample),
            Load::Search(search) => run::search::run(&setting, search, &sample),
            Load::RoundTrip(what) => run::round_trip::run(&setting, what, &sample),
            Load::Backlog(backlog) => run::backlog::run(&setting, backlog, &sample),
            Load::Churn(churn) => run::churn::run(&setting, churn),
            Load::Interference(interference) => {
                run::interference::run(&setting, interference, &sample)
            }
            Load::Idle(idle) => run::idle::run(&setting, idle, &mut baselines[subject]),
        };
        let streams = outcome.as_ref().map_or(STREAMS_OF_A_FAILED_RUN, |reading| reading.streams);
        self.next_stream += streams;
        if self.next_stream > FIRST_STREAM_MAX {
            self.next_stream = 0;
        }
        outcome
    }

    /// An extra run only for counting system calls, because counting slows the broker down.
    fn count_system_calls(&mut self, entry: &Entry, subject: usize, run: &mut Run, live: &Live) {
        let (Some(tracer), Some(pid)) = (&self.tracer, self.brokers[subject].pid) else { return };
        let Ok(tracing) = tracer.start(pid) else { return };
        let outcome = self.run_once(entry, subject, live, &mut vec![None; self.brokers.len()]);
        let calls = tracing.stop();
        if let (Ok(Reading { messages: Some(messages), .. }), Ok(calls)) = (outcome, calls)
            && messages.expected > 0
        {
            let per_message = calls as f64 / messages.expected as f64;
            run.metrics.insert("system_calls_per_message".to_owned(), per_message);
        }
    }
}

/// The result of a run for the progress view: its first figures, and its median and worst latency.
fn one_line(run: &Run) -> String {
    if let Some(fault) = &run.fault {
        return format!("FAILED: {fault}");
    }
    let metrics = METRICS.iter().filter(|metric| metric.better != Better::Neither);
    let figure = |metric: &Metric| {
        run.metrics.get(metric.key).map(|value| format!("{} {}", quantity(*value), metric.heading))
    };
    let mut parts: Vec<String> = metrics.filter_map(figure).take(FIGURES_SHOWN).collect();
    for (key, _) in LATENCIES {
        if let Some(latency) = run.latencies.get(key) {
            parts.push(format!("{key} p99 {}", time_us(latency.p99_us)));
        }
    }
    parts.join(", ")
}

fn run_of(subject: usize, number: u32, outcome: Result<Reading, Fault>) -> Run {
    let (reading, fault) = match outcome {
        Ok(reading) => (reading, None),
        Err(fault) => (Reading::default(), Some(fault.to_string())),
    };
    let unclean = reading.messages.filter(|messages| !messages.is_clean());
    Run {
        subject,
        number,
        fault: fault.or_else(|| unclean.map(|messages| messages.to_string())),
        metrics: reading.metrics.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        messages: reading.messages,
        latencies: reading.latencies.into_iter().map(|(key, l)| (key.to_owned(), l)).collect(),
        rates: reading.rates,
    }
}

//! Things are created and deleted one after the other on one thread; an operation includes both.

use std::ops::RangeInclusive;
use std::thread;
use std::time::{Duration, Instant};

use leveret_amqp::OwnedTable;

use crate::broker::Broker;
use crate::client::{Binding, CHANNEL, Connection, QueueOptions};
use crate::fault::Fault;
use crate::load::latency::LatencyHistogram;
use crate::machine::procfs;
use crate::machine::usage::{self, Usage, Used};
use crate::run::{Reading, Setting};
use crate::scenario::{Churn, ChurnKind};

/// How often the broker's memory is read: often enough to see a lasting peak, too rarely to be a
/// load.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How many names are used in turn. A single name would be the easiest case for a broker, and ever
/// new names would grow what a broker keeps for each name.
const NAMES: u64 = 1000;

/// Bindings and queues have numbers with seven digits.
const STANDING_MAX: u32 = 9_000_000;

/// One run.
pub(crate) fn run(setting: &Setting<'_>, what: &Churn) -> Result<Reading, Fault> {
    let rest_bytes = usage::rss_bytes(setting.broker)?;
    let (used, operations, latencies) = thread::scope(|scope| {
        let churning = scope.spawn(|| {
            procfs::pin(setting.load_cores.first())?;
            churn(setting, what, rest_bytes)
        });
        churning.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    let (per_s, per_cpu_s) = ("operations_per_s", Some("operations_per_broker_cpu_s"));
    let mut metrics = used.metrics(setting.broker, operations, per_s, per_cpu_s)?;
    metrics.extend(rest_bytes.map(|bytes| ("rss_rest_bytes", bytes as f64)));
    let latencies = latencies.summary().map(|summary| ("operation", summary));
    Ok(Reading { metrics, latencies: latencies.into_iter().collect(), ..Reading::default() })
}

fn churn(
    setting: &Setting<'_>,
    what: &Churn,
    rest_bytes: Option<u64>,
) -> Result<(Used, u64, LatencyHistogram), Fault> {
    let mut churner = Churner::new(setting, what)?;
    let measured = measure(setting, &mut churner, rest_bytes);
    // Also after a failed run. The first fault is more important than one of the clean-up.
    let finished = churner.finish();
    let measured = measured?;
    finished.map(|()| measured)
}

fn measure(
    setting: &Setting<'_>,
    churner: &mut Churner<'_>,
    rest_bytes: Option<u64>,
) -> Result<(Used, u64, LatencyHistogram), Fault> {
    let started = Instant::now();
    let mut number = 0;
    while started.elapsed() < setting.warm_up {
        churner.make_and_remove(number)?;
        number += 1;
    }
    let (first, mut latencies) = (number, LatencyHistogram::new());
    let mut usage = Usage::start(setting.broker, rest_bytes)?;
    let mut looked = Instant::now();
    while usage.elapsed() < setting.window {
        let before = Instant::now();
        churner.make_and_remove(number)?;
        latencies.record(before.elapsed());
        number += 1;
        if looked.elapsed() > LOOK_EVERY {
            usage.look()?;
            looked = Instant::now();
        }
    }
    Ok((usage.end()?, number - first, latencies))
}

/// The connection that creates and deletes, and the things that exist all the time. Queues are
/// exclusive, so that they are deleted with the connection even if the run fails.
struct Churner<'s> {
    broker: &'s Broker,
    kind: ChurnKind,
    standing: u32,
    connection: Connection,
    /// Idle connections.
    others: Vec<Connection>,
    prefix: String,
}

impl<'s> Churner<'s> {
    fn new(setting: &'s Setting<'_>, what: &Churn) -> Result<Self, Fault> {
        let Churn { what: kind, standing } = *what;
        if standing > STANDING_MAX {
            return Err(Fault::Scenario(format!(
                "`standing` is {standing}; at most {STANDING_MAX} can be numbered"
            )));
        }
        let mut connection = Connection::open(setting.broker)?;
        connection.open_channel(CHANNEL)?;
        let prefix = format!("leveret-bench.{}.churn", std::process::id());
        let (broker, others) = (setting.broker, Vec::new());
        let mut churner = Self { broker, kind, standing, connection, others, prefix };
        match churner.stand() {
            Ok(()) => Ok(churner),
            Err(fault) => {
                // Best effort: the first fault is more important than one of the clean-up.
                let _ = churner.finish();
                Err(fault)
            }
        }
    }

    /// Creates the things that exist all the time.
    fn stand(&mut self) -> Result<(), Fault> {
        match self.kind {
            ChurnKind::Connection => {
                // If this fails, the next check says how far the limit is below what is needed.
                let _ = leveret_ring::raise_open_files_limit();
                procfs::check_open_files(self.standing)?;
                for _ in 0..self.standing {
                    self.others.push(Connection::open(self.broker)?);
                }
                Ok(())
            }
            ChurnKind::Channel => {
                for channel in self.standing_channels()? {
                    self.connection.open_channel(channel)?;
                }
                Ok(())
            }
            ChurnKind::Queue => {
                let names: Vec<_> = (0..self.standing).map(|number| self.queue(number)).collect();
                self.connection.declare_many(&names, &exclusive())
            }
            ChurnKind::Binding => {
                self.connection.declare_exchange(&self.prefix, "topic", false)?;
                self.connection.declare_queue(&self.queue(0), &exclusive())?;
                let bindings: Vec<_> =
                    (0..self.standing).map(|number| self.binding(number)).collect();
                self.connection.bind_many(&bindings)
            }
        }
    }

    /// The channels after the first and before the one that is opened and closed.
    fn standing_channels(&self) -> Result<RangeInclusive<u16>, Fault> {
        let channel_max = self.connection.channel_max();
        // 0 means that only the type of the number limits it.
        let channel_max = if channel_max == 0 { u16::MAX } else { channel_max };
        let last = u32::from(CHANNEL) + self.standing;
        if last >= u32::from(channel_max) {
            return Err(Fault::Scenario(format!(
                "`standing` is {}, but this broker allows {channel_max} channels on a connection",
                self.standing
            )));
        }
        Ok(CHANNEL + 1..=last as u16)
    }

    fn make_and_remove(&mut self, number: u64) -> Result<(), Fault> {
        let next = self.standing + (number % NAMES) as u32;
        match self.kind {
            ChurnKind::Connection => Connection::open(self.broker)?.close(),
            ChurnKind::Channel => {
                let channel = CHANNEL + self.standing as u16 + 1;
                self.connection.open_channel(channel)?;
                self.connection.close_channel(channel)
            }
            ChurnKind::Queue => {
                let queue = self.queue(next);
                self.connection.declare_queue(&queue, &exclusive())?;
                self.connection.delete_queue(&queue)
            }
            ChurnKind::Binding => {
                let binding = self.binding(next);
                self.connection.bind(&binding)?;
                self.connection.unbind(&binding)
            }
        }
    }

    /// Deletes the things that existed all the time.
    fn finish(mut self) -> Result<(), Fault> {
        if self.kind == ChurnKind::Binding {
            // A channel that was closed by an exception could not delete anything.
            let mut cleaner = Connection::open(self.broker)?;
            cleaner.open_channel(CHANNEL)?;
            cleaner.delete_exchange(&self.prefix)?;
            cleaner.close()?;
        }
        for other in self.others.drain(..) {
            other.close()?;
        }
        self.connection.close()
    }

    fn queue(&self, number: u32) -> String {
        format!("{}.q{number:07}", self.prefix)
    }

    fn binding(&self, number: u32) -> Binding {
        Binding {
            queue: self.queue(0),
            exchange: self.prefix.clone(),
            routing_key: format!("k{number:07}.*.stock.#"),
            arguments: OwnedTable::default(),
        }
    }
}

fn exclusive() -> QueueOptions {
    QueueOptions { exclusive: true, ..QueueOptions::default() }
}

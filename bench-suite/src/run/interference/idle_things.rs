//! Idle things that exist while a flow is measured, and the cost of creating them.
//!
//! A broker may answer one method of a connection at a time, so several connections are used, and
//! each sends many methods before it reads the first answer.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use leveret_amqp::OwnedTable;

use crate::client::{Binding, CHANNEL, Connection, QueueOptions};
use crate::fault::Fault;
use crate::machine::procfs;
use crate::machine::usage::{self, Usage};
use crate::run::Setting;
use crate::scenario::IdleThings;

/// Connections that create queues and bindings in parallel, each on a thread. More of them do not
/// make a broker with one core faster.
const MAKERS: u32 = 8;

/// Queues per connection that bindings lead to.
const BOUND_QUEUES: u32 = 125;

/// How many methods each connection sends before it checks the time.
const AT_ONCE: usize = 2_048;

/// After this long the run is given up: the scenario is not about creating things.
const MAKING_MAX: Duration = Duration::from_mins(15);

/// How long one answer may take: some brokers delete an exchange with a million bindings in
/// minutes.
const PATIENCE: Duration = Duration::from_mins(15);

/// A broker that has used almost no processor time for this long has settled. Some brokers
/// reorganise what was created once they have been idle for a while.
const SETTLED_AFTER: Duration = Duration::from_secs(3);

/// The share of a core that a settled broker may use: more than the 3 % that RabbitMQ uses for
/// 5,000 idle connections.
const SETTLED_SHARE: f64 = 0.1;

/// After this long, the remaining processor time counts as the cost of idle things.
const SETTLING_MAX: Duration = Duration::from_secs(30);

/// The idle things. All queues are exclusive: they are deleted with their connections, even if a
/// run fails.
pub(crate) struct Standing<'s> {
    setting: &'s Setting<'s>,
    what: IdleThings,
    prefix: String,
    makers: Vec<Connection>,
    idle: Vec<Connection>,
    metrics: BTreeMap<&'static str, f64>,
}

impl<'s> Standing<'s> {
    /// Without anything created yet.
    pub(crate) fn new(setting: &'s Setting<'s>, what: IdleThings) -> Self {
        let prefix = format!("leveret-bench.{}.idle", std::process::id());
        let (makers, idle) = (Vec::new(), Vec::new());
        Self { setting, what, prefix, makers, idle, metrics: BTreeMap::new() }
    }

    /// Creates everything.
    pub(crate) fn make(&mut self) -> Result<(), Fault> {
        let count = self.count();
        if count == 0 {
            return Ok(());
        }
        let before_bytes = usage::rss_bytes(self.setting.broker)?;
        let making = Usage::start(self.setting.broker, before_bytes)?;
        self.on_load_core(Self::make_all)?;
        let used = making.end()?;
        let keys = ("made_per_s", Some("made_per_broker_cpu_s"));
        let made = used.metrics(self.setting.broker, u64::from(count), keys.0, keys.1)?;
        self.metrics.extend(made.into_iter().filter(|(key, _)| key.starts_with("made")));
        if let (Some(before), Some(after)) = (before_bytes, usage::rss_bytes(self.setting.broker)?)
            // A broker that freed more memory than it allocated has no such figure.
            && let Some(growth) = after.checked_sub(before)
        {
            self.metrics.insert("bytes_per_idle_thing", growth as f64 / f64::from(count));
        }
        self.settle()
    }

    /// Waits until the broker has settled.
    fn settle(&self) -> Result<(), Fault> {
        let started = Instant::now();
        let Some(mut before_s) = usage::cpu_s(self.setting.broker)? else { return Ok(()) };
        while started.elapsed() < SETTLING_MAX {
            thread::sleep(SETTLED_AFTER);
            let Some(now_s) = usage::cpu_s(self.setting.broker)? else { return Ok(()) };
            if now_s - before_s < SETTLED_SHARE * SETTLED_AFTER.as_secs_f64() {
                return Ok(());
            }
            before_s = now_s;
        }
        Ok(())
    }

    /// Deletes everything, including what was created before a failure. Returns the cost of
    /// creating and deleting.
    pub(crate) fn remove(mut self) -> Result<BTreeMap<&'static str, f64>, Fault> {
        let (count, started) = (self.count(), Instant::now());
        if count > 0 {
            self.on_load_core(Self::remove_all)?;
            let removed_per_s = f64::from(count) / started.elapsed().as_secs_f64();
            self.metrics.insert("removed_per_s", removed_per_s);
        }
        Ok(self.metrics)
    }

    /// Without channels, which belong to the connections of the flow.
    const fn count(&self) -> u32 {
        let IdleThings { queues, bindings, connections, channels: _ } = self.what;
        queues + bindings + connections
    }

    fn on_load_core(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), Fault> + Send,
    ) -> Result<(), Fault> {
        thread::scope(|scope| {
            let core = self.setting.load_cores.first();
            let working = scope.spawn(move || {
                procfs::pin(core)?;
                work(self)
            });
            working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn make_all(&mut self) -> Result<(), Fault> {
        let until = Instant::now() + MAKING_MAX;
        let IdleThings { queues, bindings, connections, .. } = self.what;
        // If this fails, the next check says how far the limit is below what is needed.
        let _ = leveret_ring::raise_open_files_limit();
        procfs::check_open_files(connections)?;
        for _ in 0..connections {
            check_time(until)?;
            self.idle.push(Connection::open(self.setting.broker)?);
        }
        if queues + bindings == 0 {
            return Ok(());
        }
        for _ in 0..MAKERS {
            let mut maker = Connection::open(self.setting.broker)?;
            maker.set_patience(PATIENCE)?;
            maker.open_channel(CHANNEL)?;
            self.makers.push(maker);
        }
        if bindings > 0 {
            self.makers[0].declare_exchange(&self.prefix, "topic", false)?;
        }
        self.each_maker(|standing, number, maker| {
            make_many(share(queues, number), until, |queues| {
                let names: Vec<String> = queues.iter().map(|&q| standing.queue(q)).collect();
                maker.declare_many(&names, &exclusive())
            })?;
            if bindings == 0 {
                return Ok(());
            }
            let bound: Vec<String> =
                (0..BOUND_QUEUES).map(|queue| standing.bound_queue(number, queue)).collect();
            maker.declare_many(&bound, &exclusive())?;
            make_many(share(bindings, number), until, |bindings| {
                let of = |&binding| standing.binding(&bound, number, binding);
                maker.bind_many(&bindings.iter().map(of).collect::<Vec<_>>())
            })
        })
    }

    fn remove_all(&mut self) -> Result<(), Fault> {
        for connection in self.idle.drain(..) {
            connection.close()?;
        }
        if self.what.bindings > 0
            && let Some(maker) = self.makers.first_mut()
        {
            // All bindings are deleted with the exchange.
            maker.delete_exchange(&self.prefix)?;
        }
        let until = Instant::now() + MAKING_MAX;
        let queues = self.what.queues;
        self.each_maker(|standing, number, maker| {
            make_many(share(queues, number), until, |queues| {
                let names: Vec<String> = queues.iter().map(|&q| standing.queue(q)).collect();
                maker.delete_many(&names)
            })
        })?;
        self.makers.drain(..).try_for_each(Connection::close)
    }

    /// Lets all makers do their part in parallel.
    fn each_maker(
        &mut self,
        part: impl Fn(&Self, u32, &mut Connection) -> Result<(), Fault> + Sync,
    ) -> Result<(), Fault> {
        let mut makers = std::mem::take(&mut self.makers);
        let done = thread::scope(|scope| {
            let (standing, part) = (&*self, &part);
            let working: Vec<_> = (0..MAKERS)
                .zip(&mut makers)
                .map(|(number, maker)| scope.spawn(move || part(standing, number, maker)))
                .collect();
            let join = |working: thread::ScopedJoinHandle<'_, Result<(), Fault>>| {
                working.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            // All threads are joined before the first fault is returned.
            working.into_iter().map(join).collect::<Vec<_>>().into_iter().collect()
        });
        self.makers = makers;
        done
    }

    fn queue(&self, number: u32) -> String {
        format!("{}.q{number:07}", self.prefix)
    }

    /// A queue is bound by the connection that owns it.
    fn bound_queue(&self, maker: u32, number: u32) -> String {
        format!("{}.b{maker}.{number:03}", self.prefix)
    }

    fn binding(&self, bound: &[String], maker: u32, number: u32) -> Binding {
        let queue = (number / MAKERS + maker) % BOUND_QUEUES;
        Binding {
            queue: bound[queue as usize].clone(),
            exchange: self.prefix.clone(),
            routing_key: format!("k{number:07}.*.stock.#"),
            arguments: OwnedTable::default(),
        }
    }
}

/// The numbers of the things of one maker.
fn share(count: u32, maker: u32) -> Vec<u32> {
    (maker..count).step_by(MAKERS as usize).collect()
}

/// Creates or deletes things with these numbers, [`AT_ONCE`] at a time.
fn make_many(
    numbers: Vec<u32>,
    until: Instant,
    mut make: impl FnMut(&[u32]) -> Result<(), Fault>,
) -> Result<(), Fault> {
    numbers.chunks(AT_ONCE).try_for_each(|some| {
        check_time(until)?;
        make(some)
    })
}

fn check_time(until: Instant) -> Result<(), Fault> {
    if Instant::now() < until {
        return Ok(());
    }
    Err(Fault::Messages(format!(
        "the broker had not made or removed the idle things after {} min",
        MAKING_MAX.as_secs() / 60
    )))
}

fn exclusive() -> QueueOptions {
    QueueOptions { exclusive: true, ..QueueOptions::default() }
}

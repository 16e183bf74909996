//! The load that interferes with a measured flow. It has a thread of its own, which gets the load
//! core only when the flow does not need it, so that the two compete in the broker.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Binding, CHANNEL, Connection};
use crate::driver::{self, DrivePlan};
use crate::fault::Fault;
use crate::load::endpoint::Attached;
use crate::load::tally::Tally;
use crate::machine::procfs;
use crate::results::Messages;
use crate::run::flow::{self, Party};
use crate::run::{LiveView, Reading, Setting, backlog};
use crate::scenario::{Backlog, BindingChurn, ConnectionChurn, Flow, Trouble};
use crate::topology::Topology;

/// How often a thread checks whether the measured window has begun.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// How often some bindings are changed.
const CHANGE_EVERY: Duration = Duration::from_millis(5);

/// How many bindings exist before the first of them is deleted again.
pub(crate) const BOUND_AT_ONCE: u64 = 128;

/// How much was done.
struct Done {
    /// Messages, connections or changes.
    count: u64,
    elapsed: Duration,
    messages: Messages,
}

/// The flow that is the trouble, if it is one.
pub(crate) fn flow_of(trouble: &Trouble) -> Option<Flow> {
    match trouble {
        Trouble::Flow(flow) => Some(flow.clone()),
        Trouble::Drain(backlog) => Some(drained(backlog)),
        Trouble::Connections(_) | Trouble::Bindings(_) => None,
    }
}

/// As fast as possible, without acks.
fn drained(backlog: &Backlog) -> Flow {
    Flow {
        body_bytes: backlog.body_bytes,
        durable: backlog.durable,
        persistent: backlog.persistent,
        ..Flow::default()
    }
}

/// Runs the trouble while `measure` runs with its own live view. `innocent` is the topology of the
/// measured flow; it has been declared.
pub(crate) fn during(
    setting: &Setting<'_>,
    trouble: &Trouble,
    innocent: &Topology,
    live: LiveView<'_>,
    measure: impl FnOnce(LiveView<'_>) -> Result<Reading, Fault>,
) -> Result<Reading, Fault> {
    let flow = flow_of(trouble).unwrap_or_default();
    let tally = flow::tally(&flow, setting.first_stream);
    let warm_up_s = setting.warm_up.as_secs_f64();
    let (reading, done) = thread::scope(|scope| {
        let (ready, is_ready) = mpsc::channel();
        let stage = Stage { setting, tally: &tally, ready };
        let making = scope.spawn(|| stage.make(trouble, innocent));
        // Fails only if the thread ended before it was ready.
        let reading = is_ready.recv().map_err(|_| Fault::Aborted).and_then(|()| {
            measure(&|point, delivery_us| {
                // The last point of the warm-up is the first of the window.
                if point.at_s >= warm_up_s {
                    tally.measure();
                }
                live(point, delivery_us);
            })
        });
        tally.stop();
        (reading, making.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let (mut reading, done) = match (reading, done) {
        // The reason why it never was ready is more important.
        (Err(Fault::Aborted), Err(fault)) => return Err(fault),
        (reading, done) => (reading?, done?),
    };
    let per_s = done.count as f64 / done.elapsed.as_secs_f64();
    if per_s.is_finite() {
        reading.metrics.insert("trouble_per_s", per_s);
    }
    let messages = reading.messages.get_or_insert_default();
    messages.published += done.messages.published;
    messages.add(&done.messages);
    Ok(reading)
}

/// The state of the thread. The tally is also the signal: the measured window begins when measuring
/// is switched on, and the run is over when the tally is stopped.
struct Stage<'a> {
    setting: &'a Setting<'a>,
    tally: &'a Arc<Tally>,
    /// Notified once the trouble has begun or is ready to begin.
    ready: Sender<()>,
}

impl Stage<'_> {
    fn make(self, trouble: &Trouble, innocent: &Topology) -> Result<Done, Fault> {
        procfs::pin(self.setting.load_cores.first())?;
        leveret_ring::give_way().map_err(Fault::io("lower the priority of a thread"))?;
        match trouble {
            Trouble::Flow(flow) => self.declared(flow, Self::flow),
            Trouble::Drain(backlog) => self.declared(&drained(backlog), |stage, flow, topology| {
                stage.drain(backlog.messages, flow, topology)
            }),
            Trouble::Connections(churn) => self.connections(*churn),
            Trouble::Bindings(churn) => self.bindings(*churn, innocent),
        }
    }

    fn is_ready(&self) {
        // Fails only if the run has failed.
        let _ = self.ready.send(());
    }

    fn is_over(&self) -> bool {
        self.tally.is_stopped()
    }

    fn declared(
        &self,
        flow: &Flow,
        run: impl FnOnce(&Self, &Flow, &Topology) -> Result<Done, Fault>,
    ) -> Result<Done, Fault> {
        let topology = Topology::new(flow, self.setting.first_stream);
        let declared = topology.declare(self.setting.broker);
        let done = declared.and_then(|()| run(self, flow, &topology));
        let removed = topology.remove(self.setting.broker);
        let done = done?;
        removed.map(|()| done)
    }

    fn flow(&self, flow: &Flow, topology: &Topology) -> Result<Done, Fault> {
        let cores = self.setting.load_cores;
        let setting = Setting { load_cores: &cores[..cores.len().min(1)], ..*self.setting };
        let placed = flow::place(&setting, flow, topology, self.tally)?;
        self.is_ready();
        let started = Instant::now();
        let (parties, driven) = self.drive(placed.into_iter().flatten().collect());
        let messages = flow::messages(parties, self.tally.published());
        settled(driven, &messages)?;
        Ok(Done { count: self.tally.consumed(), elapsed: started.elapsed(), messages })
    }

    fn drain(&self, count: u64, flow: &Flow, topology: &Topology) -> Result<Done, Fault> {
        // This consumer knows how many messages come and that all have been published.
        let filled = flow::tally(flow, self.setting.first_stream);
        backlog::pile_up(self.setting, count, flow, topology, &filled, &|_, _| ())?;
        self.is_ready();
        while !self.tally.is_measuring() && !self.is_over() {
            thread::sleep(LOOK_EVERY);
        }
        let started = Instant::now();
        let consumer = flow::consumer(self.setting, flow, topology, &filled, 0, &[])?;
        let (parties, driven) = self.drive(vec![consumer]);
        let messages = flow::messages(parties, count);
        settled(driven, &messages)?;
        Ok(Done { count, elapsed: started.elapsed(), messages })
    }

    /// Drives the endpoints on this thread.
    fn drive(&self, attached: Vec<Attached<Party>>) -> (Vec<Party>, Result<(), Fault>) {
        let plan = DrivePlan {
            transport: self.setting.transport,
            core: self.setting.load_cores.first().copied(),
            silence_max: self.setting.silence_max,
            abort: Arc::new(AtomicBool::new(false)),
        };
        driver::drive(attached, &plan)
    }

    fn connections(&self, churn: ConnectionChurn) -> Result<Done, Fault> {
        self.is_ready();
        let started = Instant::now();
        let counts: Result<Vec<u64>, Fault> = thread::scope(|scope| {
            // These threads inherit core and priority from this one.
            let clients: Vec<_> = (0..churn.clients)
                .map(|_| {
                    scope.spawn(|| {
                        let mut count = 0;
                        while !self.is_over() {
                            Connection::open(self.setting.broker)?.close()?;
                            count += 1;
                        }
                        Ok(count)
                    })
                })
                .collect();
            let join = |client: thread::ScopedJoinHandle<'_, Result<u64, Fault>>| {
                client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            clients.into_iter().map(join).collect()
        });
        let (count, elapsed) = (counts?.iter().sum(), started.elapsed());
        Ok(Done { count, elapsed, messages: Messages::default() })
    }

    fn bindings(&self, churn: BindingChurn, innocent: &Topology) -> Result<Done, Fault> {
        let mut connection = Connection::open(self.setting.broker)?;
        connection.open_channel(CHANNEL)?;
        self.is_ready();
        let (started, mut bound) = (Instant::now(), 0);
        while !self.is_over() {
            // A bind and an unbind are two changes.
            let due = started.elapsed().as_secs_f64() * churn.changes_per_s / 2.0;
            let count = (due as u64).saturating_sub(bound).min(BOUND_AT_ONCE);
            if count == 0 {
                thread::sleep(CHANGE_EVERY);
                continue;
            }
            let some: Vec<Binding> =
                (bound..bound + count).map(|number| innocent.harmless_binding(number)).collect();
            connection.bind_many(&some)?;
            connection.unbind_many(&some)?;
            bound += count;
        }
        let elapsed = started.elapsed();
        connection.close()?;
        Ok(Done { count: 2 * bound, elapsed, messages: Messages::default() })
    }
}

/// A broker that lost messages is silent at the end; the loss explains more.
fn settled(driven: Result<(), Fault>, messages: &Messages) -> Result<(), Fault> {
    match driven {
        Err(Fault::Silent { .. }) if !messages.is_clean() => Ok(()),
        driven => driven,
    }
}

//! The command line, and a broker from its configuration to its end.
//!
//! ```text
//!  probe ► bind ► threads make their rings ► all ready ► listen ► banner ► … signal … ► stop
//! ```
//! Everything that can fail because of the host fails before the banner, with an explanation, and
//! leaves nothing behind but the data directory.

pub(crate) mod banner;
pub(crate) mod check;
pub(crate) mod cli;
pub(crate) mod signal;

use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use leveret_broker::control::Control;
use leveret_broker::home::durability::Recovered;
use leveret_broker::mesh::batch::Batch;
use leveret_broker::routing::topology::Topology;
use leveret_broker::settings::Settings;
use leveret_broker::shard::control_member::ControlMember;
use leveret_ring::{Endpoint, Features, Mesh, WakeTarget, Waker};
use tracing::{debug, info, warn};

use crate::boot::banner::Banner;
use crate::boot::cli::ServeArguments;
use crate::clock::Clock;
use crate::config::Config;
use crate::data::disk::Storage;
use crate::data::disk::directory::DataDirectory;
use crate::data::disk::files;
use crate::data::disk::probe::{self, Findings};
use crate::data::metadata::{Metadata, MetadataThread};
use crate::data::recover::{RecoveredData, recover};
use crate::fail_point;
use crate::failure::Failure;
use crate::http::responses::Responses;
use crate::listeners::{Bound, Purpose, bind_all};
use crate::shard::acceptor::ACCEPTING_SHARD;
use crate::shard::cores::{self, CorePlan};
use crate::shard::thread::{self, ShardParts};
use crate::shared_state::{SharedState, Stage};
use crate::thread::{Start, ThreadEvent};
use crate::watch::memory::MemoryLimit;
use crate::watch::monitor::{self, Monitor};
use crate::{host, http, log};

/// How long clients may take to close their connections: enough for a close handshake over a slow
/// line, and less than service managers wait before they kill (systemd 90 s, containers 10 s).
const STOP_PATIENCE: Duration = Duration::from_secs(8);

/// How long the last commits of the logs may take. A disk can stall for seconds, and without these
/// commits the last acknowledgements are lost. Together with the other limits it is below the 90 s
/// above; being killed earlier costs no more than giving up.
const CLOSE_PATIENCE: Duration = Duration::from_mins(1);

/// How long the threads may take after that to give their rings back to the kernel.
const QUIT_PATIENCE: Duration = Duration::from_secs(2);

/// How long the process lives on after a failure, so that replies to clients can leave.
const FAILURE_DELAY: Duration = Duration::from_millis(50);

/// How long the threads may take to create their rings. Each takes milliseconds.
const READY_PATIENCE: Duration = Duration::from_mins(1);

/// Runs the broker until it is asked to stop.
pub(crate) fn serve(arguments: &ServeArguments) -> Result<(), Failure> {
    let config = arguments.configuration()?;
    if arguments.print_config {
        say(&config.to_toml());
        return Ok(());
    }
    // Cannot fail: `validate` has parsed the same filter.
    let _ = log::start(&config.log);
    fail_point::check();
    let features = leveret_ring::probe()?;
    let mut broker = Broker::start(&config)?;
    let Some(listeners) = broker.open()? else {
        return Ok(());
    };
    broker.announce(&config, &features, &listeners);
    match broker.wait_for_end() {
        Ending::Signal => broker.stop(),
        Ending::Failure { thread, reason } => Err(failed(thread, reason)),
    }
}

/// Waits briefly so that refusals to publishers can leave. Nothing else can be trusted after a
/// failure.
fn failed(thread: String, reason: String) -> Failure {
    std::thread::sleep(FAILURE_DELAY);
    Failure::Thread { thread, reason }
}

/// A running broker, as the main thread sees it.
struct Broker {
    shared: Arc<SharedState>,
    thread_events: Receiver<ThreadEvent>,
    plan: CorePlan,
    connections_max: u32,
    /// Holds the lock of the data directory.
    data: DataDirectory,
    findings: Findings,
    wakes: Arc<[WakeTarget]>,
    /// For the members of the mesh, by number, and the monitor last.
    starts: Vec<Sender<Start>>,
    amqp: Vec<Bound>,
    http: Vec<Bound>,
    responses: Option<Responses>,
}

/// What all threads are created from.
struct Threads<'a> {
    config: &'a Config,
    plan: &'a CorePlan,
    connections_max: u32,
    storage: &'a Storage,
    shared: &'a Arc<SharedState>,
    thread_events: &'a Sender<ThreadEvent>,
    clock: Clock,
}

impl Threads<'_> {
    fn monitor(&self, monitor: Monitor) -> Result<Sender<Start>, Failure> {
        let (start, started) = mpsc::channel();
        monitor::spawn(monitor, self.plan.cores.len(), self.thread_events, started)
            .map_err(system("start the monitor thread"))?;
        Ok(start)
    }

    /// Starts the shards, and the thread that creates and removes their files.
    fn shards(
        &self,
        logs: Vec<Recovered>,
        endpoints: Vec<Endpoint<Batch>>,
        settings: Settings,
        topology: &Topology,
    ) -> Result<Vec<Sender<Start>>, Failure> {
        let shards = self.plan.cores.len();
        // The files thread ends when the last shard has dropped its sender.
        let (files, requests) = files::channel(shards);
        files::spawn(self.storage.clone(), requests, self.thread_events)
            .map_err(system("start the files thread"))?;
        let settings = Arc::new(settings);
        let spin_ns = u64::from(self.config.spin_us(self.plan.exclusive)) * 1_000;
        let cores = self.plan.cores.iter().enumerate();
        let mut starts = Vec::new();
        for ((index, core), (log, endpoint)) in cores.zip(logs.into_iter().zip(endpoints)) {
            let parts = ShardParts {
                index,
                shards: shards as u16,
                core: *core,
                ring: self.config.ring(shards, self.connections_max),
                settings: Arc::clone(&settings),
                spin_ns,
                storage: self.storage.clone(),
                files: files.clone(),
                log,
                shared: Arc::clone(self.shared),
                thread_events: self.thread_events.clone(),
                clock: self.clock,
            };
            let (start, started) = mpsc::channel();
            starts.push(start);
            thread::spawn_shard(parts, endpoint, topology.clone(), started)
                .map_err(system("start a shard's thread"))?;
        }
        Ok(starts)
    }

    fn control(
        &self,
        endpoint: Option<Endpoint<Batch>>,
        control: Control,
        metadata: Metadata,
    ) -> Result<Sender<Start>, Failure> {
        let (start, started) = mpsc::channel();
        if let Some(endpoint) = endpoint {
            let metadata = MetadataThread::start(metadata, self.thread_events)
                .map_err(system("start the metadata thread"))?;
            let member = ControlMember::of(control);
            thread::spawn_control(
                endpoint,
                member,
                metadata,
                self.shared,
                self.thread_events,
                started,
            )
            .map_err(system("start the control thread"))?;
        }
        Ok(start)
    }
}

/// Why the broker ends.
enum Ending {
    Signal,
    Failure { thread: String, reason: String },
}

impl Broker {
    /// Binds the addresses and creates all threads, which then wait for their start.
    fn start(config: &Config) -> Result<Self, Failure> {
        let (sender, thread_events) = mpsc::channel();
        signal::watch(sender.clone()).map_err(system("watch for signals"))?;
        let plan = cores::plan(&leveret_ring::allowed_cores(), config.shards);
        if !plan.exclusive {
            warn!("more shards than cores: {}; this works and is slower", plan.describe());
        }
        let open_files = leveret_ring::raise_open_files_limit()
            .map_err(system("read or raise the limit of open files"))?;
        let connections_max = config.connections_max(open_files)?;
        let (data, findings) = open_data_directory(config)?;
        let storage = findings.storage(data.layout().clone(), config.durability);
        let amqp = bind_all(&config.listen, Purpose::Amqp)?;
        let mut http = bind_all(&config.http, Purpose::Http)?;
        http.extend(bind_all(&config.metrics, Purpose::Metrics)?);

        let shards = plan.cores.len();
        let shared = Arc::new(SharedState::new(shards, connections_max));
        let clock = Clock::start();
        let limit = MemoryLimit::find(config.memory_limit_bytes, shards, Path::new("/"));
        let mut monitor = Monitor::new(config, &limit, Arc::clone(&shared));
        monitor.look();
        let settings = Settings {
            store_memory_max_bytes: limit.store_bytes(shards),
            ..config.settings(&host::name())
        };
        let mut endpoints = Mesh::new(shards + 1, usize::from(config.mesh_lane_batches));
        let seed = seed();
        let segment_bytes = config.log_segment_bytes;
        let root = data.layout().root();
        let RecoveredData { control, metadata, logs } =
            recover(root, &storage, shards as u16, segment_bytes, seed, clock.time().wall)?;
        // The last member of the mesh is the control state.
        let control_endpoint = endpoints.pop();
        let threads = Threads {
            config,
            plan: &plan,
            connections_max,
            storage: &storage,
            shared: &shared,
            thread_events: &sender,
            clock,
        };
        let mut starts = threads.shards(logs, endpoints, settings, control.topology())?;
        starts.push(threads.control(control_endpoint, control, metadata)?);
        starts.push(threads.monitor(monitor)?);
        let cluster_name = config.cluster_name(&host::name());
        let responses = Some(Responses::new(clock, cluster_name, config.durability));
        let wakes = Arc::from([]);
        Ok(Self {
            shared,
            thread_events,
            plan,
            connections_max,
            data,
            findings,
            wakes,
            starts,
            amqp,
            http,
            responses,
        })
    }

    /// Starts the threads' work and opens the addresses. `None` if a signal came first.
    fn open(&mut self) -> Result<Option<Vec<(SocketAddr, Purpose)>>, Failure> {
        let Some(wakes) = self.wait_until_ready()? else {
            return Ok(None);
        };
        self.wakes = wakes;
        let mut open = Vec::new();
        let mut listen = |bounds: Vec<Bound>| -> Result<Vec<(TcpListener, Purpose)>, Failure> {
            let listened = bounds.into_iter().map(|bound| {
                open.push((bound.address, bound.purpose));
                let purpose = bound.purpose;
                Ok((bound.listen()?, purpose))
            });
            listened.collect()
        };
        let amqp = listen(std::mem::take(&mut self.amqp))?;
        let http = listen(std::mem::take(&mut self.http))?;
        let mut listeners: Vec<TcpListener> =
            amqp.into_iter().map(|(listener, _)| listener).collect();
        for (member, start) in self.starts.drain(..).enumerate() {
            let accepts = member == ACCEPTING_SHARD;
            let listeners = if accepts { std::mem::take(&mut listeners) } else { Vec::new() };
            let wakes = Arc::clone(&self.wakes);
            // Fails if the thread is gone. It has then reported its failure, which ends the broker.
            let _ = start.send(Start { wakes, listeners });
        }
        if let Some(responses) = self.responses.take() {
            let shards = self.plan.cores.len();
            let wakers: Vec<Waker> = self.wakes[..shards].iter().map(WakeTarget::waker).collect();
            http::spawn(http, responses, wakers, Arc::clone(&self.shared))
                .map_err(system("start the HTTP thread"))?;
        }
        Ok(Some(open))
    }

    fn wait_until_ready(&self) -> Result<Option<Arc<[WakeTarget]>>, Failure> {
        let mut wakes: Vec<Option<WakeTarget>> = vec![None; self.plan.cores.len() + 1];
        while wakes.iter().any(Option::is_none) {
            match self.thread_events.recv_timeout(READY_PATIENCE) {
                Ok(ThreadEvent::Ready { member, wake }) => wakes[member] = Some(wake),
                Ok(ThreadEvent::Failed { thread, reason }) => {
                    return Err(Failure::Thread { thread, reason });
                }
                Ok(ThreadEvent::Signal { .. }) => return Ok(None),
                Ok(ThreadEvent::Stopped | ThreadEvent::Closed | ThreadEvent::Ended) => {}
                Err(_) => {
                    let reason = "its ring was not ready in time".to_owned();
                    return Err(Failure::Thread { thread: "a shard".to_owned(), reason });
                }
            }
        }
        Ok(Some(wakes.into_iter().flatten().collect()))
    }

    fn announce(&self, config: &Config, features: &Features, listeners: &[(SocketAddr, Purpose)]) {
        let data_dir = self.data.layout().root();
        let absolute = std::path::absolute(data_dir);
        let banner = Banner {
            features,
            shards: self.plan.describe(),
            listeners,
            connections_max: self.connections_max,
            data_dir: absolute.as_deref().unwrap_or(data_dir),
            durability: self.findings.describe(config.durability),
            warnings: &self.findings.warnings(config.durability),
        };
        say(&banner.to_string());
    }

    fn wait_for_end(&self) -> Ending {
        loop {
            match self.thread_events.recv() {
                Ok(ThreadEvent::Signal { name }) => {
                    info!("{name}: stopping; a second one ends the broker at once");
                    return Ending::Signal;
                }
                Ok(ThreadEvent::Failed { thread, reason }) => {
                    return Ending::Failure { thread, reason };
                }
                Ok(
                    ThreadEvent::Ready { .. }
                    | ThreadEvent::Stopped
                    | ThreadEvent::Closed
                    | ThreadEvent::Ended,
                ) => {}
                Err(_) => {
                    let thread = "every thread".to_owned();
                    return Ending::Failure { thread, reason: "is gone".to_owned() };
                }
            }
        }
    }

    /// Closes the listeners and connections, ends the logs and the threads, all within a time
    /// limit. An error if the end of a log could not be made durable.
    fn stop(&self) -> Result<(), Failure> {
        let shards = self.plan.cores.len();
        self.shared.enter(Stage::Stopping, &self.wakes);
        let stopped = self
            .count_events(shards, STOP_PATIENCE, |event| matches!(event, ThreadEvent::Stopped))?;
        if stopped < shards {
            let left: u32 = self.shared.placement.counts().iter().sum();
            warn!("{left} clients did not take leave within {} s", STOP_PATIENCE.as_secs());
        }
        self.shared.enter(Stage::Closing, &self.wakes);
        let closed = self
            .count_events(shards, CLOSE_PATIENCE, |event| matches!(event, ThreadEvent::Closed))?;
        if closed < shards {
            return Err(Failure::DiskStandsStill { waited: CLOSE_PATIENCE });
        }
        self.shared.enter(Stage::Quitting, &self.wakes);
        // The control thread, the monitor, the files thread and the metadata thread end too.
        self.count_events(shards + 4, QUIT_PATIENCE, |event| matches!(event, ThreadEvent::Ended))?;
        info!("stopped");
        Ok(())
    }

    /// Waits up to `patience` for `wanted` events and returns how many came. A failure of a thread
    /// is an error.
    fn count_events(
        &self,
        wanted: usize,
        patience: Duration,
        counts: impl Fn(&ThreadEvent) -> bool,
    ) -> Result<usize, Failure> {
        let deadline = Instant::now() + patience;
        let mut seen = 0;
        while seen < wanted {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.thread_events.recv_timeout(left) {
                Ok(event) if counts(&event) => seen += 1,
                Ok(ThreadEvent::Failed { thread, reason }) => return Err(failed(thread, reason)),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        Ok(seen)
    }
}

fn open_data_directory(config: &Config) -> Result<(DataDirectory, Findings), Failure> {
    let data = DataDirectory::open(&config.data_dir)?;
    let failure = |source| Failure::DataDirectory { path: config.data_dir.clone(), source };
    let findings = probe::probe(data.layout().root()).map_err(failure)?;
    findings.details().iter().for_each(|detail| debug!("{detail}"));
    Ok((data, findings))
}

/// Writes to stdout. `print!` would panic if the reader is gone.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Different in each run, so that clients cannot choose names that collide in a hash table.
fn seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

fn system(what: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |source| Failure::System { what, source }
}

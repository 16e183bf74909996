//! From the configuration to a running broker, and back to nothing.
//!
//! ```text
//!  probe ► bind ► threads make their rings ► all ready ► listen ► banner ► … signal … ► stop
//! ```
//! Whatever can fail because of the host fails before the banner, in words, and leaves nothing
//! behind but the data directory.

use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use leveret_broker::topology::Topology;
use leveret_ring::{Features, Mesh, WakeTarget, Waker};
use tracing::{info, warn};

use crate::banner::Banner;
use crate::cli::ServeArguments;
use crate::clock::Clock;
use crate::config::Config;
use crate::cores::{self, CorePlan};
use crate::failure::Failure;
use crate::listeners::{Bound, Purpose, bind_all};
use crate::notice::Notice;
use crate::pages::Pages;
use crate::shared::{Shared, Stage};
use crate::thread::{self, ShardSeat, StartControl, StartShard};
use crate::{host, http, log, signal};

/// How long clients have to take leave: enough for a close handshake over a slow line, and less
/// than the patience of those who stop services (systemd 90 s, containers 10 s before they kill).
const STOP_PATIENCE: Duration = Duration::from_secs(8);

/// How long the threads then have to give their rings back to the kernel; with the above 10 s.
const QUIT_PATIENCE: Duration = Duration::from_secs(2);

/// How long rings may take to be made; each takes milliseconds.
const READY_PATIENCE: Duration = Duration::from_mins(1);

/// Runs the broker until it is asked to stop.
pub(crate) fn serve(arguments: &ServeArguments) -> Result<(), Failure> {
    let config = arguments.configuration()?;
    if arguments.print_config {
        say(&config.to_toml());
        return Ok(());
    }
    // `validate` has parsed the same filter.
    let _ = log::start(&config.log);
    let features = leveret_ring::probe()?;
    let mut broker = Broker::start(&config)?;
    let Some(listeners) = broker.open()? else {
        return Ok(());
    };
    broker.announce(&config, &features, &listeners);
    let reason = broker.wait_for_end();
    broker.stop();
    match reason {
        Ending::Signal => Ok(()),
        Ending::Failure { thread, reason } => Err(Failure::Thread { thread, reason }),
    }
}

/// A broker between its start and its end, as the main thread sees it.
struct Broker {
    shared: Arc<Shared>,
    notices: Receiver<Notice>,
    plan: CorePlan,
    connections_max: u32,
    wakes: Arc<[WakeTarget]>,
    starts: Vec<Sender<StartShard>>,
    start_control: Sender<StartControl>,
    amqp: Vec<Bound>,
    http: Vec<Bound>,
    pages: Option<Pages>,
}

/// Why the broker ends.
enum Ending {
    Signal,
    Failure { thread: String, reason: String },
}

impl Broker {
    /// Takes the addresses and makes all threads, which then wait to be let go.
    fn start(config: &Config) -> Result<Self, Failure> {
        let (sender, notices) = mpsc::channel();
        signal::watch(sender.clone()).map_err(system("watch for signals"))?;
        let plan = cores::plan(&leveret_ring::allowed_cores(), config.shards);
        if !plan.exclusive {
            warn!("more shards than cores: {}; this works and is slower", plan.describe());
        }
        let open_files = leveret_ring::raise_open_files_limit()
            .map_err(system("read or raise the limit of open files"))?;
        let connections_max = config.connections_max(open_files)?;
        make_data_directory(&config.data_dir)?;
        let amqp = bind_all(&config.listen, Purpose::Amqp)?;
        let mut http = bind_all(&config.http, Purpose::Http)?;
        http.extend(bind_all(&config.metrics, Purpose::Metrics)?);

        let shards = plan.cores.len();
        let shared = Arc::new(Shared::new(shards, connections_max));
        let clock = Clock::start();
        let seats = seats(config, &plan, connections_max, &shared, clock, &sender);
        let mut starts = Vec::new();
        let mut endpoints = Mesh::new(shards + 1, usize::from(config.mesh_lane_batches));
        let seed = seed();
        let topology = Topology::with_presets(seed, shards as u16);
        // The last member is the control state.
        let control_endpoint = endpoints.pop();
        for (seat, endpoint) in seats.into_iter().zip(endpoints) {
            let (start, started) = mpsc::channel();
            starts.push(start);
            thread::spawn_shard(seat, endpoint, topology.clone(), started)
                .map_err(system("start a shard's thread"))?;
        }
        let (start_control, started) = mpsc::channel();
        if let Some(endpoint) = control_endpoint {
            thread::spawn_control(endpoint, topology, seed, &shared, &sender, started)
                .map_err(system("start the control thread"))?;
        }
        let pages = Some(Pages::new(clock, config.cluster_name(&host::name())));
        let wakes = Arc::from([]);
        Ok(Self {
            shared,
            notices,
            plan,
            connections_max,
            wakes,
            starts,
            start_control,
            amqp,
            http,
            pages,
        })
    }

    /// Lets the threads go and opens the addresses. `None` where a signal came first.
    fn open(&mut self) -> Result<Option<Vec<(SocketAddr, Purpose)>>, Failure> {
        let Some(wakes) = self.wait_until_ready()? else {
            return Ok(None);
        };
        self.wakes = wakes;
        for start in self.starts.drain(..) {
            // A thread that is gone has left a notice, which ends the broker.
            let _ = start.send(StartShard { wakes: Arc::clone(&self.wakes) });
        }
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
        let listeners = amqp.into_iter().map(|(listener, _)| listener).collect();
        let wakes = Arc::clone(&self.wakes);
        let _ = self.start_control.send(StartControl { wakes, listeners });
        if let Some(pages) = self.pages.take() {
            let shards = self.plan.cores.len();
            let doorbells: Vec<Waker> =
                self.wakes[..shards].iter().map(WakeTarget::waker).collect();
            http::spawn(http, pages, doorbells, Arc::clone(&self.shared))
                .map_err(system("start the HTTP thread"))?;
        }
        Ok(Some(open))
    }

    fn wait_until_ready(&self) -> Result<Option<Arc<[WakeTarget]>>, Failure> {
        let mut wakes: Vec<Option<WakeTarget>> = vec![None; self.plan.cores.len() + 1];
        while wakes.iter().any(Option::is_none) {
            match self.notices.recv_timeout(READY_PATIENCE) {
                Ok(Notice::Ready { member, wake }) => wakes[member] = Some(wake),
                Ok(Notice::Failed { thread, reason }) => {
                    return Err(Failure::Thread { thread, reason });
                }
                Ok(Notice::Signal { .. }) => return Ok(None),
                Ok(Notice::Stopped | Notice::Ended) => {}
                Err(_) => {
                    let reason = "its ring was not ready in time".to_owned();
                    return Err(Failure::Thread { thread: "a shard".to_owned(), reason });
                }
            }
        }
        Ok(Some(wakes.into_iter().flatten().collect()))
    }

    fn announce(&self, config: &Config, features: &Features, listeners: &[(SocketAddr, Purpose)]) {
        let data_dir = std::path::absolute(&config.data_dir);
        let banner = Banner {
            features,
            shards: self.plan.describe(),
            listeners,
            connections_max: self.connections_max,
            data_dir: data_dir.as_deref().unwrap_or(&config.data_dir),
        };
        say(&banner.to_string());
    }

    fn wait_for_end(&self) -> Ending {
        loop {
            match self.notices.recv() {
                Ok(Notice::Signal { name }) => {
                    info!("{name}: stopping; a second one ends the broker at once");
                    return Ending::Signal;
                }
                Ok(Notice::Failed { thread, reason }) => return Ending::Failure { thread, reason },
                Ok(Notice::Ready { .. } | Notice::Stopped | Notice::Ended) => {}
                Err(_) => {
                    let thread = "every thread".to_owned();
                    return Ending::Failure { thread, reason: "is gone".to_owned() };
                }
            }
        }
    }

    /// Closes the listeners, takes leave of clients, and ends the threads, all in bounded time.
    fn stop(&self) {
        let shards = self.plan.cores.len();
        self.shared.enter(Stage::Stopping, &self.wakes);
        let stopped =
            self.count_notices(shards, STOP_PATIENCE, |notice| matches!(notice, Notice::Stopped));
        if stopped < shards {
            let left: u32 = self.shared.placement.counts().iter().sum();
            warn!("{left} clients did not take leave within {} s", STOP_PATIENCE.as_secs());
        }
        self.shared.enter(Stage::Quitting, &self.wakes);
        self.count_notices(shards + 1, QUIT_PATIENCE, |notice| matches!(notice, Notice::Ended));
        info!("stopped");
    }

    /// Waits for `wanted` notices, `patience` long; returns how many came.
    fn count_notices(
        &self,
        wanted: usize,
        patience: Duration,
        counts: impl Fn(&Notice) -> bool,
    ) -> usize {
        let deadline = Instant::now() + patience;
        let mut seen = 0;
        while seen < wanted {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.notices.recv_timeout(left) {
                Ok(notice) if counts(&notice) => seen += 1,
                // A thread that fails now can neither stop nor end; do not wait for it.
                Ok(Notice::Failed { thread, reason }) => {
                    warn!("{thread} failed: {reason}");
                    seen += 1;
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        seen
    }
}

/// What each shard's thread is given.
fn seats(
    config: &Config,
    plan: &CorePlan,
    connections_max: u32,
    shared: &Arc<Shared>,
    clock: Clock,
    notices: &Sender<Notice>,
) -> Vec<ShardSeat> {
    let settings = Arc::new(config.settings(&host::name()));
    let spin_us = config.spin_us(plan.exclusive);
    let seat = |(index, core): (usize, &Option<usize>)| ShardSeat {
        index,
        shards: plan.cores.len() as u16,
        core: *core,
        ring: config.ring(plan.cores.len(), connections_max),
        settings: Arc::clone(&settings),
        spin_ns: u64::from(spin_us) * 1_000,
        shared: Arc::clone(shared),
        notices: notices.clone(),
        clock,
    };
    plan.cores.iter().enumerate().map(seat).collect()
}

fn make_data_directory(path: &Path) -> Result<(), Failure> {
    let failure = |source| Failure::DataDirectory { path: path.into(), source };
    std::fs::create_dir_all(path).map_err(failure)?;
    std::fs::read_dir(path).map_err(failure)?;
    Ok(())
}

/// Writes to stdout. Not by `print!`, which panics where nobody reads.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Different in each run, so that clients cannot aim their names at one bucket of a hash table.
fn seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

fn system(what: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |source| Failure::System { what, source }
}

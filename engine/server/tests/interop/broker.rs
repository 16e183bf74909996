//! The broker under test: a `leveret` process of our own, or one that is already running.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::program::Program;
use crate::tools;

/// Names a broker that is already running; the tests then start none.
const RUNNING_BROKER: &str = "LEVERET_INTEROP_BROKER";

/// A start takes milliseconds; a debug build on a loaded machine was allowed two orders more.
const START_MAX: Duration = Duration::from_secs(20);

/// Closing every client properly is bounded by the broker itself; this is that bound, doubled.
const STOP_MAX: Duration = Duration::from_secs(20);

/// Shard counts that have a shared broker: the matrix knows 1, 2 and 4.
const SHARDS_MAX: usize = 4;

/// One broker; stops, and must do so cleanly, when dropped.
pub(crate) struct Broker {
    amqp: SocketAddr,
    credentials: String,
    own: Option<Own>,
}

/// What only a broker of our own has.
struct Own {
    metrics: SocketAddr,
    http: SocketAddr,
    shards: usize,
    data: PathBuf,
    process: Mutex<Option<Program>>,
}

impl Broker {
    /// The broker with so many shards that whoever runs at the same time uses, too. It stops with
    /// its last user: the test runner has no moment "after all tests".
    pub(crate) fn shared(shards: usize) -> Arc<Self> {
        static RUNNING: Mutex<[Weak<Broker>; SHARDS_MAX + 1]> =
            Mutex::new([const { Weak::new() }; SHARDS_MAX + 1]);
        let mut running = RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(broker) = running[shards].upgrade() {
            return broker;
        }
        let broker = Arc::new(Self::start(shards));
        running[shards] = Arc::downgrade(&broker);
        broker
    }

    /// A broker for one test alone.
    pub(crate) fn start(shards: usize) -> Self {
        if let Ok(url) = std::env::var(RUNNING_BROKER) {
            return Self::running(&url);
        }
        let [amqp, http, metrics] = [free_address(), free_address(), free_address()];
        let data = tools::scratch(&format!("broker-{}", amqp.port()));
        let own = Own { metrics, http, shards, data, process: Mutex::new(None) };
        let broker = Self { amqp, credentials: "guest:guest".to_owned(), own: Some(own) };
        broker.boot();
        broker
    }

    fn running(url: &str) -> Self {
        let parts = url.strip_prefix("amqp://").and_then(|rest| rest.rsplit_once('@'));
        let (credentials, address) = parts.unwrap_or_else(|| {
            panic!("{RUNNING_BROKER} is amqp://USER:PASSWORD@ADDRESS:PORT/, not {url:?}")
        });
        let amqp = address.trim_end_matches('/').parse().unwrap_or_else(|error| {
            panic!("{RUNNING_BROKER}: {address:?} is no ADDRESS:PORT: {error}")
        });
        Self { amqp, credentials: credentials.to_owned(), own: None }
    }

    /// Where it listens for AMQP.
    pub(crate) fn address(&self) -> SocketAddr {
        self.amqp
    }

    /// The URL for clients that reach it at `address`, with the vhost `/`.
    pub(crate) fn url(&self, address: SocketAddr) -> String {
        format!("amqp://{}@{address}/%2F", self.credentials)
    }

    /// Whether this is a `leveret` that the tests have started, so that they may stop it.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Stops it, cleanly, leaves it away for `pause`, and starts it on the same port again.
    pub(crate) fn restart(&self, pause: Duration) {
        self.stop();
        std::thread::sleep(pause);
        self.boot();
    }

    /// The text of its metrics page.
    pub(crate) fn metrics(&self) -> String {
        let own = self.own.as_ref().expect("metrics of our own broker only");
        let mut stream = TcpStream::connect(own.metrics).expect("the metrics port is open");
        stream.set_read_timeout(Some(START_MAX)).unwrap();
        let request =
            format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", own.metrics);
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "the metrics page says:\n{answer}");
        answer
    }

    /// The open AMQP connections of each shard, by the gauge `leveret_connections{shard="N"}`.
    pub(crate) fn connections_by_shard(&self) -> Vec<usize> {
        let shards = self.own.as_ref().expect("gauges of our own broker only").shards;
        let page = self.metrics();
        let gauge = |shard| {
            let start = format!("leveret_connections{{shard=\"{shard}\"}} ");
            let value = page.lines().find_map(|line| line.strip_prefix(&start));
            let value = value.unwrap_or_else(|| panic!("no {start:?} in the metrics:\n{page}"));
            value.trim().parse().unwrap_or_else(|_| panic!("{start}{value}: no count"))
        };
        (0..shards).map(gauge).collect()
    }

    /// What the broker has printed; for a running one there is nothing to show.
    pub(crate) fn log(&self) -> String {
        let process = self.own.as_ref().map(|own| own.process.lock());
        match process {
            Some(Ok(process)) => process.as_ref().map(Program::output).unwrap_or_default(),
            _ => String::new(),
        }
    }

    fn boot(&self) {
        let own = self.own.as_ref().expect("only our own broker is started");
        let mut command = Command::new(env!("CARGO_BIN_EXE_leveret"));
        command.arg("serve").arg("--listen").arg(self.amqp.to_string());
        command.arg("--http").arg(own.http.to_string());
        command.arg("--metrics").arg(own.metrics.to_string());
        command.arg("--data-dir").arg(&own.data).arg("--shards").arg(own.shards.to_string());
        let mut process = Program::start("leveret", &mut command);
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(self.amqp).is_err() {
            if let Some(status) = process.wait(Duration::from_millis(10)) {
                panic!("leveret ended while starting: {status}:\n{}", process.output());
            }
            let log = process.output();
            assert!(Instant::now() < deadline, "leveret does not listen on {}:\n{log}", self.amqp);
        }
        *own.process.lock().unwrap() = Some(process);
    }

    fn stop(&self) {
        let own = self.own.as_ref().expect("only our own broker is stopped");
        let Some(mut process) = own.process.lock().unwrap().take() else {
            return;
        };
        process.terminate();
        let status = process.wait(STOP_MAX);
        let log = process.output();
        let status = status.unwrap_or_else(|| panic!("running {STOP_MAX:?} after SIGTERM:\n{log}"));
        assert!(status.success(), "after SIGTERM leveret ended with {status}:\n{log}");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if self.own.is_none() {
            return;
        }
        // A test that fails already has its reason; the process is killed with its `Program`.
        if !std::thread::panicking() {
            self.stop();
        }
        if let Some(own) = &self.own {
            let _removed = std::fs::remove_dir_all(own.data.as_path() as &Path);
        }
    }
}

/// An address nobody listens on, below the ports that the kernel gives to outgoing connections:
/// such a one could take the port while a broker is away for its restart.
pub(crate) fn free_address() -> SocketAddr {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two runs at the same time start at different places.
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(start) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST + offset));
        // Not tried by listening: a process forked meanwhile would hold on to the listener.
        if TcpStream::connect(address).is_err() {
            return address;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT)
}

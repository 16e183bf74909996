//! A data directory and an address that outlive the brokers on them.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::process::{Broker, Directory};
use crate::wire::{PATIENCE, Wire};

/// Segments so small that rolling, recycling and copying forward never stop.
pub(crate) const SMALL_SEGMENTS: &str = "log_segment_bytes = 262144\n";

/// Removed with everything in it when dropped.
pub(crate) struct Home {
    directory: Directory,
    config: PathBuf,
    data: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Home {
    /// With lines of TOML as configuration.
    pub(crate) fn new(options: &str) -> Self {
        let directory = Directory::new();
        let data = directory.0.join("data");
        Self::with(directory, data, options)
    }

    /// The data is elsewhere, and stays.
    pub(crate) fn at(data: PathBuf, options: &str) -> Self {
        Self::with(Directory::new(), data, options)
    }

    fn with(directory: Directory, data: PathBuf, options: &str) -> Self {
        // Shards that poll would take the cores from the clients of a small machine.
        let config = directory.file("leveret.toml", &format!("{options}spin_us = 0\n"));
        Self { directory, config, data, address: free_address() }
    }

    /// Where the configuration is, and the data unless they are elsewhere.
    pub(crate) fn path(&self) -> &Path {
        &self.directory.0
    }

    /// Starts a broker; one that ends before its banner is the error.
    pub(crate) fn launch(
        &self,
        shards: usize,
        environment: &[(&str, String)],
    ) -> Result<Broker, Broker> {
        wait_until_free(self.address);
        let mut command = Command::new(env!("CARGO_BIN_EXE_leveret"));
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        let (shards, listen) = (shards.to_string(), self.address.to_string());
        let arguments = [
            ["--data-dir", self.data.to_str().unwrap()],
            ["--config", self.config.to_str().unwrap()],
            ["--shards", &shards],
            ["--listen", &listen],
            ["--http", "none"],
            ["--metrics", "none"],
            ["--log", "warn"],
        ];
        Broker::launch(command, arguments.as_flattened())
    }

    /// Starts a broker that must come up.
    pub(crate) fn start(&self, shards: usize) -> Broker {
        self.start_with(shards, &[])
    }

    /// The same, with variables of the environment.
    pub(crate) fn start_with(&self, shards: usize, environment: &[(&str, String)]) -> Broker {
        self.launch(shards, environment).unwrap_or_else(|broker| {
            let directory = self.directory.0.display();
            panic!("it does not start in {directory}:\n{}", log_of(broker));
        })
    }

    /// A connection to a broker that must be there.
    pub(crate) fn connect(&self) -> Wire {
        Wire::open(self.address, 0).expect("a broker listens")
    }
}

/// The kernel takes an `io_uring` apart after its process was reaped, and until then an accept
/// under way keeps the listening socket.
fn wait_until_free(address: SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = TcpListener::bind(address) {
        assert!(Instant::now() < deadline, "{address} is not free again: {error}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// What a broker said on stderr.
pub(crate) fn log_of(mut broker: Broker) -> String {
    broker.drain_stderr().to_owned()
}

/// An address that nothing listens on and that the kernel gives to no outgoing connection, so that
/// it stays free between two brokers.
fn free_address() -> SocketAddr {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = (std::process::id() as u16).wrapping_mul(37);
    for _ in 0..COUNT {
        let port = FIRST + own.wrapping_add(NEXT.fetch_add(1, SeqCst)) % COUNT;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port from {FIRST} on");
}

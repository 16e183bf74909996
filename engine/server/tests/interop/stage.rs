//! Where a scenario plays: a broker, the way to it, and names and a folder of its own.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::broker::Broker;
use crate::program::Program;
use crate::proxy::Proxy;
use crate::tools;

/// How the clients of a test reach their broker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Route {
    /// As users do.
    Direct,
    /// Through a proxy that cuts frames at random bytes.
    Cut,
}

/// One thing that users do, played with one client.
pub(crate) type Scenario = (&'static str, fn(&Stage));

/// What a scenario gets to play with.
pub(crate) struct Stage {
    name: &'static str,
    broker: Arc<Broker>,
    address: SocketAddr,
    prefix: String,
    folder: PathBuf,
}

/// Scenarios that play at the same time over all tests: mostly they wait.
const PLAYING_MAX: usize = 6;

/// The seed of the cutting proxies when `LEVERET_INTEROP_SEED` says no other.
const SEED_DEFAULT: u64 = 20_091;

/// Plays all scenarios, some at the same time, against one broker; fails if any does.
pub(crate) fn play(scenarios: &[Scenario], shards: usize, route: Route) {
    let broker = Broker::shared(shards);
    let seed = seed();
    let proxy = match route {
        Route::Direct => None,
        Route::Cut => Some(Proxy::cutting(broker.address(), seed)),
    };
    let address = proxy.as_ref().map_or(broker.address(), Proxy::address);
    let play_one = |&(name, scenario): &Scenario| {
        let stage = Stage::new(name, &broker, address);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _slot = Slot::take();
                std::panic::catch_unwind(AssertUnwindSafe(|| scenario(&stage))).is_ok()
            })
            .expect("a thread for a scenario")
    };
    let playing: Vec<_> = scenarios.iter().map(play_one).collect();
    let ended = playing.into_iter().map(|thread| thread.join().expect("panics are caught"));
    let failed: Vec<_> =
        scenarios.iter().zip(ended).filter(|(_, good)| !good).map(|((name, _), _)| name).collect();
    let log = || broker.log();
    assert!(
        failed.is_empty(),
        "{failed:?} failed ({route:?}, seed {seed}); the broker:\n{}",
        log()
    );
}

impl Stage {
    /// A stage on which no other scenario of any run has played.
    pub(crate) fn new(name: &'static str, broker: &Arc<Broker>, address: SocketAddr) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // A process id alone comes back on a broker that outlives the tests.
        let started = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
        let run = (started.as_secs() << 16) ^ u64::from(std::process::id());
        Self {
            name,
            broker: Arc::clone(broker),
            address,
            prefix: format!("{run:x}.{number}."),
            folder: tools::scratch(&format!("{number}-{name}")),
        }
    }

    /// The same stage, reached at another address.
    pub(crate) fn moved_to(&self, address: SocketAddr) -> Self {
        Self::new(self.name, &self.broker, address)
    }

    /// Whether the broker may be stopped.
    pub(crate) fn broker_is_own(&self) -> bool {
        self.broker.is_own()
    }

    /// The URL for clients, with the vhost `/`.
    pub(crate) fn url(&self) -> String {
        self.broker.url(self.address)
    }

    /// A name that belongs to this stage alone.
    pub(crate) fn named(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A folder of this stage alone.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A client program with what every one of them needs.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.current_dir(&self.folder);
        command.env("AMQP_URL", self.url()).env("PREFIX", &self.prefix);
        // Lines must come when they are printed, and the sources stay free of compiled files.
        command.env("PYTHONUNBUFFERED", "1").env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }

    /// Runs one of `programs/` to its good end; it must print `passed NAME` for just these names.
    pub(crate) fn pass_all(&self, command: &mut Command, names: &[&str]) {
        let output = Program::start(self.name, command).succeed();
        let passed: Vec<_> =
            output.lines().filter_map(|line| line.trim().strip_prefix("passed ")).collect();
        assert_eq!(passed, names, "{}:\n{output}", self.name);
    }

    /// Plays with a relay between this stage and `scenario`, which can call for an outage.
    pub(crate) fn with_relay(&self, scenario: impl FnOnce(&Self, &dyn Fn())) {
        let relay = Proxy::relaying(self.address);
        scenario(&self.moved_to(relay.address()), &|| relay.outage(OUTAGE));
    }

    /// Lets a program run until it says `ready`, calls for the outage, and expects the program to
    /// come back by itself.
    pub(crate) fn survive(&self, command: &mut Command, outage: &dyn Fn()) {
        let mut program = Program::start(self.name, command);
        program.expect("ready");
        outage();
        program.expect("passed reconnect");
        program.succeed();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _removed = std::fs::remove_dir_all(&self.folder);
            // The run's folder goes with the last one in it; what failed stays to be looked at.
            let _removed = self.folder.parent().map(std::fs::remove_dir);
        }
    }
}

/// Long enough that every client meets a refused connection at least once.
pub(crate) const OUTAGE: Duration = Duration::from_millis(700);

fn seed() -> u64 {
    match std::env::var("LEVERET_INTEROP_SEED") {
        Ok(text) => text.parse().expect("LEVERET_INTEROP_SEED is a number"),
        Err(_) => SEED_DEFAULT,
    }
}

/// The right to play; given back when dropped.
struct Slot;

static PLAYING: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

impl Slot {
    fn take() -> Self {
        let mut playing = PLAYING.0.lock().unwrap();
        while *playing == PLAYING_MAX {
            playing = PLAYING.1.wait(playing).unwrap();
        }
        *playing += 1;
        Self
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        *PLAYING.0.lock().unwrap() -= 1;
        PLAYING.1.notify_one();
    }
}

//! A private `RabbitMQ` node for the time of the test.
//!
//! It lives under `target/differential/`, on free ports, with its own `epmd`, so that it neither
//! meets nor disturbs a node that is installed on the machine. A shell holds both processes by
//! their ids and ends them when its standard input closes: also when the test is killed.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::link::Link;

/// Where Debian keeps the start script that does not change user or directory.
const SERVER_SCRIPT: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// The version the test is written against.
pub(crate) const VERSION: &str = "3.10";

/// A cold start takes 5 to 10 s on two cores, more while other builds run.
const START_TIMEOUT: Duration = Duration::from_mins(2);

/// Starts `epmd` and the node, waits for the end of input, ends both by their ids.
const SHELL: &str = r#"
epmd -port "$ERL_EPMD_PORT" & epmd=$!
"$1" -noinput & node=$!
read -r _
kill -9 "$node" "$epmd"
wait
"#;

/// A running node.
#[derive(Debug)]
pub(crate) struct Node {
    shell: Child,
    address: SocketAddr,
    directory: PathBuf,
}

static SHARED: Mutex<Weak<Node>> = Mutex::new(Weak::new());

impl Node {
    /// The node of this test process; it ends with the last user.
    pub(crate) fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(node) = shared.upgrade() {
            return node;
        }
        let node = Arc::new(Self::start());
        *shared = Arc::downgrade(&node);
        node
    }

    /// Where it listens for AMQP.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    fn start() -> Self {
        install();
        let [amqp, distribution, epmd] = free_ports();
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("differential")
            .join(format!("node-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(directory.join("log")).expect("a directory for RabbitMQ");
        fs::write(directory.join("enabled_plugins"), "[].\n").expect("a plugin list");
        fs::write(directory.join("rabbitmq.conf"), CONFIGURATION).expect("a configuration");
        let output = fs::File::create(directory.join("output")).expect("an output file");
        let shell = Command::new("sh")
            .args(["-c", SHELL, "sh", SERVER_SCRIPT])
            .env("HOME", &directory)
            .env("ERL_EPMD_PORT", epmd.to_string())
            .env("RABBITMQ_ALLOW_INPUT", "1")
            .env("RABBITMQ_NODENAME", format!("differential-{amqp}@localhost"))
            .env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_NODE_PORT", amqp.to_string())
            .env("RABBITMQ_DIST_PORT", distribution.to_string())
            .env("RABBITMQ_CONF_ENV_FILE", "/dev/null")
            .env("RABBITMQ_CONFIG_FILE", directory.join("rabbitmq.conf"))
            .env("RABBITMQ_MNESIA_BASE", directory.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", directory.join("log"))
            .env("RABBITMQ_PID_FILE", directory.join("pid"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", directory.join("enabled_plugins"))
            // Schedulers that spin would take the cores from the broker beside it.
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+sbwt none +sbwtdcpu none")
            .stdin(Stdio::piped())
            .stdout(output.try_clone().expect("an output file"))
            .stderr(output)
            .spawn()
            .expect("a shell");
        let address = SocketAddr::from(([127, 0, 0, 1], amqp));
        let mut node = Self { shell, address, directory };
        node.wait_until_ready();
        node
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + START_TIMEOUT;
        while let Err(error) = Link::connect(self.address) {
            let ended = self.shell.try_wait().expect("the state of a child");
            if ended.is_some() || Instant::now() > deadline {
                let output = fs::read_to_string(self.directory.join("output")).unwrap_or_default();
                panic!("RabbitMQ did not start: {error}\n{output}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Logs of refused methods would fill the disk: there are hundreds of thousands.
const CONFIGURATION: &str = "\
log.console = false
log.file.level = critical
log.connection.level = critical
log.channel.level = critical
log.queue.level = critical
";

/// `RabbitMQ` is required: where it is missing and we may, it is installed from Debian.
fn install() {
    if Path::new(SERVER_SCRIPT).exists() {
        return;
    }
    let installed = Command::new("apt-get")
        .args(["install", "-y", "--no-install-recommends", "rabbitmq-server"])
        .env("DEBIAN_FRONTEND", "noninteractive")
        // The package would start a node of its own.
        .env("RUNLEVEL", "1")
        .stdout(Stdio::null())
        .status();
    assert!(
        installed.is_ok_and(|status| status.success()) && Path::new(SERVER_SCRIPT).exists(),
        "this test needs RabbitMQ {VERSION}: apt-get install rabbitmq-server"
    );
}

/// Ports that were free a moment ago.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("a bound address").port())
}

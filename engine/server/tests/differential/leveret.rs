//! The `leveret` binary as a child process.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// It starts in milliseconds; the machine may be busy building.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A running broker with its own directory. It is killed and cleared away when dropped.
#[derive(Debug)]
pub(crate) struct Leveret {
    child: Child,
    address: SocketAddr,
    directory: PathBuf,
}

impl Leveret {
    /// Starts one on free ports. `name` is that of the test.
    pub(crate) fn start(name: &str, shard_count: usize) -> Self {
        let ports: [TcpListener; 3] =
            std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let [amqp, http, metrics] =
            ports.map(|listener| listener.local_addr().expect("a bound address"));
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!(
            "{name}-leveret-{}-{}",
            std::process::id(),
            amqp.port()
        ));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).expect("a directory for the broker");
        let output = fs::File::create(directory.join("output")).expect("an output file");
        let child = Command::new(env!("CARGO_BIN_EXE_leveret"))
            .arg("serve")
            .args(["--listen", &amqp.to_string()])
            .args(["--http", &http.to_string()])
            .args(["--metrics", &metrics.to_string()])
            .arg("--data-dir")
            .arg(directory.join("data"))
            .args(["--shards", &shard_count.to_string()])
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("an output file"))
            .stderr(output)
            .spawn()
            .expect("the leveret binary");
        let mut leveret = Self { child, address: amqp, directory };
        leveret.wait_until_ready();
        leveret
    }

    /// Where it listens for AMQP.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it wrote so far.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.directory.join("output")).unwrap_or_default()
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + START_TIMEOUT;
        while let Err(error) = TcpStream::connect(self.address) {
            let ended = self.child.try_wait().expect("the state of a child");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "leveret did not start: {error}\n{}",
                self.output()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Leveret {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("--- what leveret wrote ---\n{}", self.output());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

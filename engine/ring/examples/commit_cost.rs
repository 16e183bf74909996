//! The device's own limit: what a bare loop needs to write and flush, one write under way.
//!
//! ```sh
//! cargo run --release -p leveret-ring --example commit_cost -- DIRECTORY
//! ```
//!
//! Into a file that is laid out and zeroed, as a segment of the log is: once by direct I/O with
//! `RWF_DSYNC` and once by a buffered write with an `fdatasync` behind it; waited for once by
//! polling and once asleep, which adds a wake-up but leaves the core to the kernel.
#![cfg(not(loom))]
#![allow(unexpected_cfgs, reason = "loom builds only the model in src/sleep.rs")]

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leveret_ring::{
    Completion, Ring, RingConfig, Wait, WriteUntil, allowed_cores, pin_current_thread,
};

const FILE_BYTES: usize = 64 << 20;
const BLOCK_BYTES: usize = 4_096;
const REPEATS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let path = Path::new(&directory).join("commit_cost.tmp");
    if let Some(core) = allowed_cores().first() {
        pin_current_thread(*core)?;
    }
    let mut ring =
        Ring::new(&RingConfig { sockets_max: 1, buffer_count: 4, ..RingConfig::default() })?;
    lay_out(&path)?;
    println!("{directory}: median / 99 % of single commits, {REPEATS} interleaved runs each");
    let ways = [(true, Wait::No), (false, Wait::No), (true, Wait::Forever), (false, Wait::Forever)];
    for (length, rounds) in [(BLOCK_BYTES, 400), (1 << 20, 40)] {
        let mut times: [Vec<Duration>; 4] = Default::default();
        // Interleaved, so that a slow phase of the machine hits all.
        for _ in 0..REPEATS {
            for ((direct, wait), times) in ways.into_iter().zip(&mut times) {
                match open(&path, direct) {
                    Ok(file) => {
                        let way = Way { file, direct, wait };
                        commits(&mut ring, &way, length, rounds, times)?;
                    }
                    Err(error) => println!("direct: {direct}: {error}"),
                }
            }
        }
        for ((direct, wait), times) in ways.iter().zip(&mut times) {
            let how = if *direct { "O_DIRECT + RWF_DSYNC" } else { "write + fdatasync" };
            let waiting = if *wait == Wait::No { "polled" } else { "asleep" };
            report(&format!("{how}, {waiting}"), length, times);
        }
    }
    std::fs::remove_file(path)?;
    Ok(())
}

fn lay_out(path: &Path) -> std::io::Result<()> {
    std::fs::write(path, vec![0; FILE_BYTES])?;
    File::open(path)?.sync_all()
}

fn open(path: &Path, direct: bool) -> std::io::Result<Arc<File>> {
    let flags = if direct { libc::O_DIRECT } else { 0 };
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).map(Arc::new)
}

/// How to commit, and how to wait for it.
struct Way {
    file: Arc<File>,
    direct: bool,
    wait: Wait,
}

/// Commits one behind the other, round and round the file; adds the time of each.
fn commits(
    ring: &mut Ring,
    way: &Way,
    length: usize,
    rounds: usize,
    times: &mut Vec<Duration>,
) -> Result<(), Box<dyn Error>> {
    let mut bytes = vec![1; length + BLOCK_BYTES];
    let start = bytes.as_ptr().align_offset(BLOCK_BYTES);
    for round in 0..rounds {
        bytes[start..start + length].fill(round as u8);
        let offset = (round * length % FILE_BYTES) as u64;
        let begin = Instant::now();
        let until = if way.direct { WriteUntil::Durable } else { WriteUntil::Taken };
        ring.write_file(&way.file, bytes, start..start + length, offset, until, 0);
        let (written, result) = completion(ring, way.wait)?;
        if result? != length {
            return Err("a short write".into());
        }
        if !way.direct {
            ring.sync_file(&way.file, 0);
            completion(ring, way.wait)?.1?;
        }
        times.push(begin.elapsed());
        bytes = written;
    }
    Ok(())
}

type Ended = (Vec<u8>, std::io::Result<usize>);

fn completion(ring: &mut Ring, wait: Wait) -> Result<Ended, Box<dyn Error>> {
    let mut completions = Vec::new();
    loop {
        ring.turn(wait, &mut completions)?;
        if let Some(Completion::File { bytes, result, .. }) = completions.pop() {
            return Ok((bytes, result));
        }
    }
}

fn report(way: &str, length: usize, times: &mut [Duration]) {
    times.sort_unstable();
    let Some(median) = times.get(times.len() / 2) else {
        return;
    };
    let slow = times[times.len() * 99 / 100];
    let rate = length as f64 / median.as_secs_f64() / 1e6;
    let kib = length / 1024;
    println!("{kib:>5} KiB  {way:<29} {median:>9.1?} / {slow:>9.1?}  {rate:>7.1} MB/s");
}

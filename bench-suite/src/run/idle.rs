//! Idle connections: the memory of each, the cost of opening it, and the cost of all of them while
//! nothing happens.
//!
//! A tenth is opened before the first measurement, so that one-time allocations of a broker are not
//! counted.

use std::thread;
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::client::Connection;
use crate::fault::Fault;
use crate::load::latency::LatencyHistogram;
use crate::machine::{procfs, usage};
use crate::run::{Reading, Setting};
use crate::scenario::Idle;

/// How long a broker is left alone before its memory is read, so that periodic statistics have been
/// written.
const SETTLE: Duration = Duration::from_secs(1);

/// After an earlier scenario a broker may free memory for a while. This is how often the test waits
/// for that; what remains after that is slow enough for a run.
const SETTLES_MAX: u32 = 15;

/// Memory is stable if it changes by less than this part while the broker settles.
const STILL_PART: u64 = 100;

/// The part of the connections that is opened as a warm-up.
const WARM_UP_SHARE: u32 = 10;

/// One run. `baseline_bytes` is the memory of this broker before the first run of the scenario, and
/// is set then: a broker keeps memory that it once had, and what a second run reuses is still the
/// cost of its connections.
pub(crate) fn run(
    setting: &Setting<'_>,
    what: &Idle,
    baseline_bytes: &mut Option<u64>,
) -> Result<Reading, Fault> {
    thread::scope(|scope| {
        let measuring = scope.spawn(|| {
            procfs::pin(setting.load_cores.first())?;
            measure(setting, what.connections, baseline_bytes)
        });
        measuring.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn measure(
    setting: &Setting<'_>,
    count: u32,
    baseline_bytes: &mut Option<u64>,
) -> Result<Reading, Fault> {
    if count == 0 {
        return Err(Fault::Scenario("`connections` is 0; at least 1 is needed".to_owned()));
    }
    let broker = setting.broker;
    let warm_up = count / WARM_UP_SHARE;
    // If this fails, the next check says how far the limit is below what is needed.
    let _ = leveret_ring::raise_open_files_limit();
    procfs::check_open_files(count.saturating_add(warm_up))?;

    let mut reading = Reading::default();
    let mut connections = Vec::new();
    open(setting, warm_up, &mut connections, &mut LatencyHistogram::new())?;
    let rest_bytes = settled_rss_bytes(broker)?;
    *baseline_bytes = baseline_bytes.or(rest_bytes);
    let cpu_before_s = usage::cpu_s(broker)?;

    let (started, mut latencies) = (Instant::now(), LatencyHistogram::new());
    open(setting, count, &mut connections, &mut latencies)?;
    let opened_per_s = f64::from(count) / started.elapsed().as_secs_f64();
    reading.metrics.insert("operations_per_s", opened_per_s);
    reading.latencies.extend(latencies.summary().map(|summary| ("operation", summary)));

    // Work that a broker does for a connection after its answer is part of the cost.
    thread::sleep(SETTLE);
    let idle_cpu_s = usage::cpu_s(broker)?;
    if let (Some(before), Some(after)) = (cpu_before_s, idle_cpu_s) {
        let each_us = (after - before) * 1e6 / f64::from(count);
        reading.metrics.insert("cpu_us_per_connection", each_us);
    }
    if let (Some(before), Some(after)) = (*baseline_bytes, usage::rss_bytes(broker)?) {
        // A broker that freed more memory than it allocated has no such figure.
        if let Some(growth) = after.checked_sub(before) {
            let each = growth as f64 / f64::from(count);
            reading.metrics.insert("bytes_per_connection", each);
        }
        reading.metrics.insert("rss_rest_bytes", before as f64);
        reading.metrics.insert("rss_peak_bytes", after.max(before) as f64);
    }

    let (started, cpu_before_s) = (Instant::now(), usage::cpu_s(broker)?);
    thread::sleep(setting.window);
    if let (Some(before), Some(after)) = (cpu_before_s, usage::cpu_s(broker)?) {
        let share = (after - before) / started.elapsed().as_secs_f64();
        reading.metrics.insert("idle_cpu_percent", share * 100.0);
    }
    // All connections must still be open.
    for connection in connections {
        connection.close()?;
    }
    Ok(reading)
}

/// Resident memory once it is stable.
fn settled_rss_bytes(broker: &Broker) -> Result<Option<u64>, Fault> {
    let mut bytes = None;
    for _ in 0..SETTLES_MAX {
        let before = bytes.unwrap_or(u64::MAX);
        thread::sleep(SETTLE);
        bytes = usage::rss_bytes(broker)?;
        if bytes.is_none_or(|now| now.abs_diff(before) < now / STILL_PART) {
            break;
        }
    }
    Ok(bytes)
}

fn open(
    setting: &Setting<'_>,
    count: u32,
    connections: &mut Vec<Connection>,
    latencies: &mut LatencyHistogram,
) -> Result<(), Fault> {
    for _ in 0..count {
        let started = Instant::now();
        connections.push(Connection::open(setting.broker)?);
        latencies.record(started.elapsed());
    }
    Ok(())
}

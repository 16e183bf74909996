//! The files of the logs: reading them at boot, checking and dumping them, and moving queues
//! between shards.
//!
//! ```text
//!  recover ──► RecoveredLog per shard ──► no queue misplaced ─────────────────────► shards start
//!     ▲                               └─► rehome ──► metadata commit ──► tidy_up ──┐
//!     └────────────────────────────────────────────────────────────────────────────┘
//! ```

pub(crate) mod check;
pub(crate) mod dump;
mod read;
mod rehome;
mod utc;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use leveret_broker::storage::log::recovery::RecoveredLog;
use tracing::{error, info};

use crate::fail_point;
use crate::failure::Failure;

pub(crate) use self::rehome::{Move, rehome, tidy_up};

/// The time between two log lines about recovery progress.
const PROGRESS_PERIOD: Duration = Duration::from_secs(1);

/// The progress of one shard's recovery.
#[derive(Debug, Default)]
struct Progress {
    bytes: AtomicU64,
    bytes_all: AtomicU64,
    messages: AtomicU64,
}

/// Reads the logs of all shards that have a directory, with one thread each. Damage is logged and
/// does not stop recovery; a log of another data directory does. If `store_id` is `None`, the logs
/// need not match any metadata.
///
/// After an unclean end every file is flushed: the records may be only in the page cache so far,
/// but the header of the next segment will declare them durable.
pub(crate) fn recover(
    data_dir: &Path,
    store_id: Option<[u8; 16]>,
) -> Result<BTreeMap<u16, RecoveredLog>, Failure> {
    let shards = shard_directories(data_dir)?;
    let progress: BTreeMap<u16, Progress> =
        shards.keys().map(|shard| (*shard, Progress::default())).collect();
    let (sender, finished) = mpsc::channel();
    let mut logs = BTreeMap::new();
    std::thread::scope(|scope| {
        for ((shard, path), (_, progress)) in shards.iter().zip(&progress) {
            let sender = sender.clone();
            scope.spawn(move || {
                let log = recover_shard(*shard, path, store_id, progress);
                // Cannot fail: the receiver lives as long as this scope.
                let _ = sender.send((*shard, log));
            });
        }
        drop(sender);
        loop {
            match finished.recv_timeout(PROGRESS_PERIOD) {
                Ok((shard, log)) => drop(logs.insert(shard, log)),
                Err(RecvTimeoutError::Timeout) => report_progress(&progress),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    let logs: BTreeMap<u16, RecoveredLog> =
        logs.into_iter().map(|(shard, log)| Ok((shard, log?))).collect::<Result<_, Failure>>()?;
    if logs.len() < shards.len() {
        let reason = "a thread that read a log panicked; this is a bug".to_owned();
        return Err(Failure::Store { path: data_dir.to_owned(), reason });
    }
    for log in logs.values() {
        report(data_dir, log);
    }
    fail_point::reach("recovery-done");
    Ok(logs)
}

fn recover_shard(
    shard: u16,
    path: &Path,
    store_id: Option<[u8; 16]>,
    progress: &Progress,
) -> Result<RecoveredLog, Failure> {
    let log = read::read_log(shard, path, store_id, progress)?;
    if !log.clean {
        for number in log.segments.keys() {
            let file = segment_path(path, *number);
            let synced = fs::File::open(&file).and_then(|file| file.sync_data());
            synced.map_err(unreadable(&file))?;
        }
    }
    Ok(log)
}

fn report_progress(progress: &BTreeMap<u16, Progress>) {
    for (shard, progress) in progress {
        let bytes_all = progress.bytes_all.load(Ordering::Relaxed).max(1);
        let percent = progress.bytes.load(Ordering::Relaxed) * 100 / bytes_all;
        if percent < 100 {
            let messages = progress.messages.load(Ordering::Relaxed) as f64 / 1e6;
            info!("recovering shard {shard}: {percent} %, {messages:.1} M messages");
        }
    }
}

fn report(data_dir: &Path, log: &RecoveredLog) {
    let path = shard_directory(data_dir, log.shard);
    for damage in &log.damage {
        let file = segment_path(&path, damage.segment);
        error!("damage in {}: {damage}. The file is kept.", file.display());
    }
    for torn in &log.torn {
        info!(
            "shard {}: segment {} ends at {}: {} bytes behind it were never confirmed",
            log.shard, torn.segment, torn.offset, torn.length
        );
    }
    if log.counts.unknown > 0 {
        error!("shard {}: {} records of a newer version", log.shard, log.counts.unknown);
    }
    if log.counts.passed_over > 0 {
        let count = log.counts.passed_over;
        info!("shard {}: {count} records of a newer version were passed over", log.shard);
    }
}

/// The directories with logs, by shard.
pub(crate) fn shard_directories(data_dir: &Path) -> Result<BTreeMap<u16, PathBuf>, Failure> {
    let mut found = BTreeMap::new();
    for path in entries(data_dir)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(shard) = name.strip_prefix("shard-").and_then(|number| number.parse().ok()) else {
            continue;
        };
        if path == shard_directory(data_dir, shard) && path.is_dir() {
            found.insert(shard, path);
        }
    }
    Ok(found)
}

/// The segment files of one shard, by number.
pub(crate) fn segment_files(path: &Path) -> Result<BTreeMap<u32, PathBuf>, Failure> {
    let mut found = BTreeMap::new();
    for file in entries(path)? {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(number) = name.strip_suffix(".segment").and_then(|name| name.parse().ok()) else {
            continue;
        };
        if file == segment_path(path, number) {
            found.insert(number, file);
        }
    }
    Ok(found)
}

/// The directory of a shard's log.
pub(crate) fn shard_directory(data_dir: &Path, shard: u16) -> PathBuf {
    data_dir.join(format!("shard-{shard:04}"))
}

/// A segment's file in its shard's directory.
pub(crate) fn segment_path(shard_directory: &Path, number: u32) -> PathBuf {
    shard_directory.join(format!("{number:010}.segment"))
}

fn entries(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let listed = fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>());
    listed.map_err(unreadable(path))
}

fn unreadable(path: &Path) -> impl Fn(io::Error) -> Failure {
    let path = path.to_owned();
    move |source| Failure::Store {
        path: path.clone(),
        reason: format!("{source}. Check the disk, and the owner of the file"),
    }
}

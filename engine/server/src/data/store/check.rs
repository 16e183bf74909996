//! `leveret check DATADIR`: what a data directory holds. Reads only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::Path;

use leveret_broker::storage::log::LogId;
use leveret_broker::storage::log::recovery::RecoveredLog;

use crate::data::metadata::{FILE_NAME, Loaded, Metadata};
use crate::failure::{EXIT_USAGE, Failure};

use super::read::read_log;
use super::utc::utc;
use super::{Progress, segment_path, shard_directories};

/// Some data was lost.
const EXIT_DAMAGE: u8 = 1;

/// Prints the verdict; returns the exit code: 0 sound, 1 damage, 2 unreadable.
pub(crate) fn run(data_dir: &Path) -> u8 {
    let mut text = String::new();
    let in_use = is_in_use(data_dir);
    if in_use {
        text.push_str(
            "warning: a broker is running here; what it is writing now may look torn or damaged\n",
        );
    }
    let code = match check(data_dir, in_use, &mut text) {
        Ok(true) => {
            text.push_str("\nThe data is sound.\n");
            0
        }
        Ok(false) => {
            text.push_str("\nThere is damage: see above. Nothing was changed.\n");
            EXIT_DAMAGE
        }
        Err(failure) => {
            eprintln!("leveret: {failure}");
            EXIT_USAGE
        }
    };
    // An error means that stdout was closed by its reader, which is fine; the exit code still has
    // the result.
    let _ = io::stdout().lock().write_all(text.as_bytes());
    code
}

fn check(data_dir: &Path, in_use: bool, text: &mut String) -> Result<bool, Failure> {
    let shards = shard_directories(data_dir)?;
    let metadata = data_dir.join(FILE_NAME);
    if shards.is_empty() && !metadata.exists() {
        let reason = "it is no data directory of Leveret: there is neither metadata.redb nor a log";
        return Err(Failure::Store { path: data_dir.to_owned(), reason: reason.to_owned() });
    }
    if shards.is_empty() {
        text.push_str("no logs: nothing durable was ever published here\n");
    }
    let (names, mut sound, mut store_id) = match Metadata::peek(data_dir) {
        Ok(loaded) => {
            // Writing to a string does not fail.
            for damage in &loaded.damages {
                let _ = writeln!(text, "DAMAGE: {damage}");
            }
            (queue_names(&loaded), loaded.damages.is_empty(), Some(loaded.store_id))
        }
        // The files of a copy that was made while a broker ran may not fit together.
        Err(failure) => {
            let refused = "the broker would not start here";
            let kind = if in_use { "queues have no names below" } else { refused };
            let _ = writeln!(text, "{kind}: {failure}");
            (BTreeMap::new(), in_use, None)
        }
    };
    for (shard, path) in shards {
        let log = read_log(shard, &path, store_id, &Progress::default())?;
        store_id = store_id.or(log.store_id);
        sound &= log.damage.is_empty();
        describe(&log, &path, &names, text);
    }
    Ok(sound)
}

fn describe(log: &RecoveredLog, path: &Path, names: &BTreeMap<LogId, String>, text: &mut String) {
    let mut say = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    let places: BTreeSet<_> = log.messages().map(|(_, _, place)| place).collect();
    let bytes: u64 = places.iter().map(|place| u64::from(place.length)).sum();
    let end = match (log.clean, log.torn.is_empty()) {
        (true, _) => "stopped in order",
        (false, true) => "not stopped in order",
        (false, false) => "not stopped in order, torn end",
    };
    say(format!("shard {}: {end}, epoch {}", log.shard, log.highest_epoch));
    say(format!(
        "  {} segments, {} files not in use, {} bytes, {} records",
        log.segments.len(),
        log.unused.len(),
        log.counts.bytes,
        log.counts.records
    ));
    say(format!("  {} messages held, {bytes} bytes", places.len()));
    for (log_id, queue) in log.queues.iter().filter(|(_, queue)| !queue.messages.is_empty()) {
        let unknown = "no queue that is known";
        let name = names.get(log_id).map_or(unknown, String::as_str);
        say(format!("    log id {log_id}: {} messages, {name}", queue.messages.len()));
    }
    if let Some(written_at) = log.written_at {
        say(format!("  last written {}", utc(written_at)));
    }
    if log.counts.unknown > 0 {
        say(format!("  {} records of a newer version, kept", log.counts.unknown));
    }
    if log.counts.passed_over > 0 {
        say(format!("  {} records of a newer version, passed over", log.counts.passed_over));
    }
    for torn in &log.torn {
        say(format!(
            "  torn: segment {}, offset {}, {} bytes (never confirmed)",
            torn.segment, torn.offset, torn.length
        ));
    }
    for damage in &log.damage {
        let file = segment_path(path, damage.segment);
        say(format!("  DAMAGE in {}: {damage}", file.display()));
    }
}

/// The names of the queues, by log id.
pub(super) fn queue_names(loaded: &Loaded) -> BTreeMap<LogId, String> {
    let queues = loaded.definitions.queues.iter();
    let named = queues.map(|queue| {
        let name = queue.name.as_bytes().escape_ascii();
        let vhost = queue.vhost.as_bytes().escape_ascii();
        (queue.log_id, format!("queue \"{name}\" in vhost \"{vhost}\""))
    });
    named.collect()
}

/// Whether a broker holds the lock. The shared lock that is taken for this is released at once.
fn is_in_use(data_dir: &Path) -> bool {
    let lock = File::open(data_dir.join("lock"));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

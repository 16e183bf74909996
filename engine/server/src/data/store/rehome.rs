//! Moves queues to other shards after the number of shards has changed. The metadata decide which
//! queue belongs to which shard.
//!
//! ```text
//!  sources ──► copies under new log ids in the new homes' logs ──► closed, durable
//!                                                                    │ metadata commit
//!                                     old log ids mean nothing ◄─────┘
//! ```
//! A crash before the metadata commit leaves copies under log ids that no queue has: dead records.
//! A crash after it leaves the old records as dead records. In both cases the next boot continues.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use leveret_broker::id::{Instant, WallTime};
use leveret_broker::storage::log::operation::{DiskEvent, DiskOperation};
use leveret_broker::storage::log::record::{
    self, MarkRecord, PublishRecord, Queues, Record, Stamp,
};
use leveret_broker::storage::log::recovery::RecoveredLog;
use leveret_broker::storage::log::{Log, LogEvent, LogId, Place, Position, QueueRef};

use crate::fail_point;
use crate::failure::Failure;

use super::read::read_record;
use super::{segment_files, segment_path, shard_directory, unreadable};

/// Bytes that are collected in memory before they are written.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// A queue that moves to another shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    /// The shard whose log has its messages.
    pub(crate) from: u16,
    /// Its log id there.
    pub(crate) old: LogId,
    /// Its new home.
    pub(crate) to: u16,
    /// Its log id there, which was never used before.
    pub(crate) new: LogId,
}

/// Copies the messages of the moving queues durably to their new homes. Sequence numbers are kept,
/// and so are the marks of messages that were delivered before. The caller then commits the new log
/// ids and homes to the metadata, calls [`tidy_up`], and recovers again.
///
/// `carry_out` carries out a disk operation of a shard's log.
pub(crate) fn rehome(
    data_dir: &Path,
    store_id: [u8; 16],
    segment_bytes: u32,
    now: WallTime,
    logs: &mut BTreeMap<u16, RecoveredLog>,
    moves: &[Move],
    carry_out: &mut dyn FnMut(u16, DiskOperation) -> Option<DiskEvent>,
) -> Result<(), Failure> {
    let mut homes: BTreeMap<u16, Vec<Move>> = BTreeMap::new();
    for queue in moves {
        homes.entry(queue.to).or_default().push(*queue);
    }
    for (home, moves) in &homes {
        let arriving = arriving(logs, moves);
        let marks = marks(logs, *home, moves);
        let own = logs
            .entry(*home)
            .or_insert_with(|| RecoveredLog { shard: *home, ..RecoveredLog::default() });
        let places: std::collections::BTreeSet<Place> =
            own.messages().map(|(_, _, place)| place).collect();
        let identity = own.next_identity(store_id);
        let (mut segments, remove) = own.into_segments(identity, segment_bytes);
        for segment in remove {
            carry_out(*home, DiskOperation::Remove { segment, damaged: false });
        }
        for place in places {
            segments.hold(place);
        }
        let mut target = Target { home: *home, log: Log::new(segments), now, carry_out };
        for ((from, place), queues) in arriving {
            target.copy(&shard_directory(data_dir, from), place, &queues)?;
        }
        target.log.close(marks.into_iter());
        target.flush()?;
    }
    fail_point::reach("rehome-copied");
    Ok(())
}

/// The messages that move to one home, by their current place, with the queues that hold them.
fn arriving(
    logs: &BTreeMap<u16, RecoveredLog>,
    moves: &[Move],
) -> BTreeMap<(u16, Place), Vec<QueueRef>> {
    let mut arriving: BTreeMap<(u16, Place), Vec<QueueRef>> = BTreeMap::new();
    for queue in moves {
        let held = logs.get(&queue.from).and_then(|log| log.queues.get(&queue.old));
        for (sequence, place) in held.iter().flat_map(|held| &held.messages) {
            let target = QueueRef { log_id: queue.new, sequence: *sequence };
            arriving.entry((queue.from, *place)).or_default().push(target);
        }
    }
    arriving
}

/// The marks that the new home's log needs for its queues before it is closed.
fn marks(logs: &BTreeMap<u16, RecoveredLog>, home: u16, moves: &[Move]) -> Vec<MarkRecord> {
    let queue = |shard: u16, log_id: LogId, new: LogId| {
        let queue = logs.get(&shard)?.queues.get(&log_id)?;
        let (next_sequence, delivered_through) = (queue.next_sequence, queue.delivered_through);
        Some(MarkRecord { log_id: new, next_sequence, delivered_through })
    };
    let own = logs.get(&home).into_iter().flat_map(|log| log.queues.keys());
    let own = own.filter_map(|log_id| queue(home, *log_id, *log_id));
    own.chain(moves.iter().filter_map(|moved| queue(moved.from, moved.old, moved.new))).collect()
}

struct Target<'a> {
    home: u16,
    log: Log,
    now: WallTime,
    carry_out: &'a mut dyn FnMut(u16, DiskOperation) -> Option<DiskEvent>,
}

impl Target<'_> {
    fn copy(&mut self, from: &Path, place: Place, queues: &[QueueRef]) -> Result<(), Failure> {
        let file = segment_path(from, place.segment);
        let bytes = read_record(&file, place.offset, place.length).map_err(unreadable(&file))?;
        let epoch = bytes.get(16..).and_then(<[u8]>::first_chunk).copied();
        let position = Position::new(place.segment, place.offset);
        let stamp = Stamp { position, epoch: u32::from_le_bytes(epoch.unwrap_or_default()) };
        let Some((_, Record::Publish(publish))) = record::decode(&bytes, stamp) else {
            let reason = format!(
                "the record at {} was valid and is not any more. The disk is not reliable; nothing \
                 was moved",
                place.offset
            );
            return Err(Failure::Store { path: file, reason });
        };
        self.log.take_over(&PublishRecord { queues: Queues::Values(queues), ..publish });
        if self.log.waiting_bytes() > WAITING_BYTES_MAX { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let failed = |home: u16, reason: String| Failure::Store {
            path: format!("shard-{home:04}").into(),
            reason: format!(
                "queues cannot be moved there: {reason}. Nothing is lost: make space or repair \
                 the disk and start again, or start with as many shards as before"
            ),
        };
        while let Some(operation) = self.log.poll_operation(self.now) {
            let Some(event) = (self.carry_out)(self.home, operation) else { continue };
            if let LogEvent::Failed(error) = self.log.handle(event, Instant(0)) {
                return Err(failed(self.home, error.to_string()));
            }
        }
        if self.log.is_settled() {
            return Ok(());
        }
        Err(failed(self.home, "no space left on the device".to_owned()))
    }
}

/// Removes the directories of shards that no longer exist, once the metadata refer to nothing in
/// them. Damaged segments are moved to `quarantine/`.
pub(crate) fn tidy_up(
    data_dir: &Path,
    shards: u16,
    logs: &BTreeMap<u16, RecoveredLog>,
    is_live: impl Fn(u16, LogId) -> bool,
) -> Result<(), Failure> {
    for (shard, path) in super::shard_directories(data_dir)? {
        let Some(log) = logs.get(&shard).filter(|_| shard >= shards) else { continue };
        let mut held = log.queues.iter().filter(|(_, queue)| !queue.messages.is_empty());
        if held.any(|(log_id, _)| is_live(shard, *log_id)) {
            continue;
        }
        remove(data_dir, shard, &path, log).map_err(unreadable(&path))?;
    }
    Ok(())
}

fn remove(data_dir: &Path, shard: u16, path: &Path, log: &RecoveredLog) -> io::Result<()> {
    let quarantine = data_dir.join("quarantine");
    for damage in &log.damage {
        let from = segment_path(path, damage.segment);
        if from.exists() {
            fs::create_dir_all(&quarantine)?;
            let name = format!("shard-{shard:04}-{:010}.segment", damage.segment);
            fs::rename(from, quarantine.join(name))?;
            File::open(&quarantine)?.sync_all()?;
        }
    }
    // Oldest first, so that settlements outlive the messages they settle.
    for file in segment_files(path).map_err(io::Error::other)?.values() {
        fs::remove_file(file)?;
        File::open(path)?.sync_all()?;
    }
    fs::remove_dir_all(path)?;
    File::open(data_dir)?.sync_all()
}

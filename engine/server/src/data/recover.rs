//! Recovers the state of the previous run: declarations and messages.
//!
//! ```text
//!  metadata ──► logs ──► has the number of shards changed? ── no ──► control state, one log each
//!     ▲                        │ yes
//!     └── one commit ◄── copies of what moves, durable, under new log ids
//! ```
//! Nothing is skipped silently: damaged parts are reported and kept.

use std::collections::BTreeMap;
use std::mem;
use std::path::Path;

use leveret_broker::control::{Control, Definitions, DurableChange, home_of};
use leveret_broker::home::durability::Recovered;
use leveret_broker::id::{Instant, WallTime};
use leveret_broker::storage::log::operation::DiskOperation;
use leveret_broker::storage::log::recovery::RecoveredLog;
use leveret_broker::storage::log::segment::Segments;
use leveret_broker::storage::log::{Log, LogEvent, LogId};
use tracing::{error, info};

use crate::data::disk::Storage;
use crate::data::disk::blocking::BlockingDisk;
use crate::data::metadata::{self, Loaded, Metadata};
use crate::data::store::{self, Move};
use crate::failure::Failure;

/// The recovered state, ready for the threads.
pub(crate) struct RecoveredData {
    /// The control state with all declarations.
    pub(crate) control: Control,
    /// The metadata store.
    pub(crate) metadata: Metadata,
    /// The log of each shard.
    pub(crate) logs: Vec<Recovered>,
}

/// Reads the data directory for `shards` shards; `now` is for what has to be written.
pub(crate) fn recover(
    data_dir: &Path,
    storage: &Storage,
    shards: u16,
    segment_bytes: u32,
    seed: u64,
    now: WallTime,
) -> Result<RecoveredData, Failure> {
    let (metadata, mut loaded) = Metadata::open(data_dir, shards)?;
    if loaded.fresh {
        info!("{} is a new data directory", data_dir.display());
    }
    for damage in &loaded.damages {
        error!("{damage}");
    }
    let mut logs = store::recover(data_dir, Some(loaded.store_id))?;
    if loaded.shards_before != shards {
        let directory = Directory { path: data_dir, storage, segment_bytes, now };
        directory.rehome(&metadata, &mut loaded, &mut logs, shards)?;
        logs = store::recover(data_dir, Some(loaded.store_id))?;
    }
    // A damaged row may belong to any queue, so no record can be considered dead.
    let mut keeps_unknown =
        !loaded.damages.is_empty() || !loaded.definitions.quarantined.is_empty();
    let definitions = mem::take(&mut loaded.definitions);
    let (mut control, rejected) = Control::recover(definitions, shards, seed);
    for rejected in rejected {
        keeps_unknown |= rejected.log_id.is_some();
        error!("not restored: {rejected}. Its definition stays in {}", metadata::FILE_NAME);
    }
    // What a new broker starts with is durable before any shard has it.
    if let Some((through, changes)) = control.poll_durable() {
        metadata.commit(&changes)?;
        control.made_durable(through);
    }
    let logs = (0..shards).map(|shard| {
        let log = logs.remove(&shard).unwrap_or(RecoveredLog { shard, ..RecoveredLog::default() });
        open_log(log, loaded.store_id, storage, segment_bytes, keeps_unknown, now)
    });
    let logs = logs.collect::<Result<_, Failure>>()?;
    Ok(RecoveredData { control, metadata, logs })
}

/// Prepares a log for its shard.
fn open_log(
    mut log: RecoveredLog,
    store_id: [u8; 16],
    storage: &Storage,
    segment_bytes: u32,
    keeps_unknown: bool,
    now: WallTime,
) -> Result<Recovered, Failure> {
    let queues = mem::take(&mut log.queues);
    let messages: usize = queues.values().map(|queue| queue.messages.len()).sum();
    if messages > 0 {
        let how = if log.clean { "a clean stop" } else { "an unclean end" };
        info!("shard {}: {messages} messages after {how}", log.shard);
    }
    let damage = log.damage.len() as u64;
    let identity = log.next_identity(store_id);
    let (mut segments, unused) = log.into_segments(identity, segment_bytes);
    let mut disk = BlockingDisk::new(log.shard, storage.clone());
    for segment in unused {
        disk.carry_out(DiskOperation::Remove { segment, damaged: false });
    }
    if log.clean && messages > 0 {
        segments = begin(segments, &mut disk, now)?;
    }
    Ok(Recovered { segments, queues, keeps_unknown, damage })
}

/// Overwrites the close record at the end of the log before any message can be delivered from it.
fn begin(segments: Segments, disk: &mut BlockingDisk, now: WallTime) -> Result<Segments, Failure> {
    let shard = segments.identity().shard;
    let failed = |reason: String| Failure::Store {
        path: format!("shard-{shard:04}").into(),
        reason: format!("its log cannot be written: {reason}. Nothing is lost"),
    };
    let mut log = Log::begin(segments);
    while let Some(operation) = log.poll_operation(now) {
        let Some(event) = disk.carry_out(operation) else { continue };
        if let LogEvent::Failed(error) = log.handle(event, Instant::default()) {
            return Err(failed(error.to_string()));
        }
    }
    if !log.is_settled() {
        return Err(failed("no space left on the device".to_owned()));
    }
    Ok(log.into_segments())
}

struct Directory<'a> {
    path: &'a Path,
    storage: &'a Storage,
    segment_bytes: u32,
    now: WallTime,
}

impl Directory<'_> {
    /// Gives every queue a home among `shards` shards. Queues with a new home are copied there
    /// under new log ids; they have moved at the moment the new ids are committed.
    fn rehome(
        &self,
        metadata: &Metadata,
        loaded: &mut Loaded,
        logs: &mut BTreeMap<u16, RecoveredLog>,
        shards: u16,
    ) -> Result<(), Failure> {
        let moves = moves(&mut loaded.definitions, shards);
        info!("{} shards instead of {}: {} queues move", shards, loaded.shards_before, moves.len());
        let mut disks: BTreeMap<u16, BlockingDisk> = BTreeMap::new();
        let storage = self.storage;
        let mut carry_out = |shard: u16, operation| {
            let disk =
                disks.entry(shard).or_insert_with(|| BlockingDisk::new(shard, storage.clone()));
            disk.carry_out(operation)
        };
        let (path, store_id) = (self.path, loaded.store_id);
        let (segment_bytes, now) = (self.segment_bytes, self.now);
        store::rehome(path, store_id, segment_bytes, now, logs, &moves, &mut carry_out)?;
        let next_log_id = loaded.definitions.next_log_id;
        let moved = loaded.definitions.queues.iter();
        let changes: Vec<_> = moved
            .filter(|queue| moves.iter().any(|moved| moved.new == queue.log_id))
            .map(|queue| DurableChange::PutQueue { queue: queue.clone(), next_log_id })
            .collect();
        metadata.commit(&changes)?;
        metadata.set_shards(shards)?;
        let live: Vec<LogId> = loaded.definitions.queues.iter().map(|queue| queue.log_id).collect();
        let quarantine = !loaded.definitions.quarantined.is_empty() || !loaded.damages.is_empty();
        store::tidy_up(path, shards, logs, |_, log_id| quarantine || live.contains(&log_id))
    }
}

/// Assigns new homes and log ids to the queues that need them.
fn moves(definitions: &mut Definitions, shards: u16) -> Vec<Move> {
    let highest = definitions.queues.iter().map(|queue| queue.log_id).max().unwrap_or(0);
    definitions.next_log_id = definitions.next_log_id.max(highest + 1);
    let mut moves = Vec::new();
    for queue in &mut definitions.queues {
        let to = home_of(&queue.vhost, &queue.name, shards).0;
        if to == queue.home {
            continue;
        }
        let new = definitions.next_log_id;
        definitions.next_log_id += 1;
        moves.push(Move { from: queue.home, old: queue.log_id, to, new });
        (queue.home, queue.log_id) = (to, new);
    }
    moves
}

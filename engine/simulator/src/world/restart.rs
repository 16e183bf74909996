//! How a broker dies or stops, and how the next one reads the disks.

use std::mem;
use std::sync::Arc;

use leveret_broker::control::{Control, DurableChange};
use leveret_broker::home::durability::Recovered;
use leveret_broker::id::{Instant, ShardId, Time};
use leveret_broker::settings::Settings;
use leveret_broker::shard::Shard;
use leveret_broker::shard::control_member::ControlMember;
use leveret_broker::storage::log::operation::{DiskEvent, DiskOperation};
use leveret_broker::storage::log::recovery::RecoveredLog;
use leveret_broker::storage::log::segment::Segments;
use leveret_broker::storage::log::{Log, LogEvent};

use crate::disk::Disk;
use crate::power::differential::{compare, recover};
use crate::power::reader;
use crate::random::Random;
use crate::world::metadata::{MetadataStore, definitions};

/// Of the data directory of every world.
const STORE_ID: [u8; 16] = [7; 16];

/// Of the logs that are read at boot, the percentage that a second reader reads as well.
const COMPARED_PERCENT: u64 = 20;

/// How a broker dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// The process alone: the disks go on, and the next process syncs what it reads.
    Kill,
    /// Everything: of each thing that was not synced, this percentage is kept.
    PowerCut {
        /// From 0 to 100.
        kept_percent: u64,
    },
}

/// What a new broker starts from.
#[derive(Debug)]
pub struct Boot<'a> {
    /// How many shards there are.
    pub shards: u16,
    /// Limits and names.
    pub settings: Arc<Settings>,
    /// Of the world.
    pub seed: u64,
    /// The time.
    pub time: Time,
    /// Size of new segments.
    pub segment_bytes: u32,
    /// What was declared.
    pub metadata: &'a mut MetadataStore<DurableChange>,
    /// The disk of each shard, as the crash left it.
    pub disks: &'a mut [Disk],
    /// Where choices come from.
    pub random: &'a mut Random,
    /// The one before stopped in order: every log has to say so.
    pub stopped: bool,
    /// Planted bugs: messages are taken for such that were never given out.
    pub forgets_flags: bool,
}

/// A broker with everything that the disks and the metadata have.
///
/// # Errors
/// Why it does not start.
pub fn restart(mut boot: Boot<'_>) -> Result<(Vec<Shard>, ControlMember), String> {
    if let Some(breach) = boot.disks.iter().find_map(Disk::breach) {
        return Err(format!("the contract with the disk is broken: {breach}"));
    }
    let (seed, shards) = (boot.seed, boot.shards);
    let declared = definitions(boot.metadata.durable());
    let (mut control, rejected) = Control::recover(declared, shards, seed);
    if let Some(rejected) = rejected.first() {
        return Err(format!("not restored: {rejected}"));
    }
    // As the server does: what a new broker starts with is durable before any shard has it.
    if let Some((through, changes)) = control.poll_durable() {
        boot.metadata.commit(through, changes, boot.time.now);
        boot.metadata.complete(boot.time.now);
        control.made_durable(through);
    }
    let topology = control.topology().clone();
    let mut booted = Vec::new();
    for id in 0..shards {
        let recovered = boot.open_log(id).map_err(|error| format!("log of shard {id}: {error}"))?;
        let settings = Arc::clone(&boot.settings);
        let mut shard = Shard::new(ShardId(id), shards, settings, topology.clone());
        shard.open_log(recovered, boot.time);
        booted.push(shard);
    }
    Ok((booted, ControlMember::of(control)))
}

impl Boot<'_> {
    /// Reads a log and makes it ready for its shard, in the order of the server.
    fn open_log(&mut self, shard: u16) -> Result<Recovered, String> {
        let disk = &mut self.disks[usize::from(shard)];
        let image = disk.volume().live().clone();
        if self.random.chance(COMPARED_PERCENT) {
            compare(&image, shard, &reader::read(&image))?;
        }
        let mut log = recover(&image, shard)?;

        if !log.damage.is_empty() {
            return Err(format!("damage on a sound disk: {:?}", log.damage));
        }
        if self.stopped && !log.clean {
            return Err("not clean after a clean stop".into());
        }
        if self.forgets_flags {
            log.queues.values_mut().for_each(|queue| queue.delivered_through = 0);
        }
        self.prepare(shard, &mut log)
    }

    fn prepare(&mut self, shard: u16, log: &mut RecoveredLog) -> Result<Recovered, String> {
        let queues = mem::take(&mut log.queues);
        let holds_any = queues.values().any(|queue| !queue.messages.is_empty());
        let identity = log.next_identity(STORE_ID);
        let (mut segments, unused) = log.into_segments(identity, self.segment_bytes);
        let disk = &mut self.disks[usize::from(shard)];
        for segment in unused {
            let remove = DiskOperation::Remove { segment, damaged: false };
            disk.submit(remove, self.time.now, self.random);
            carry_out(disk, self.time.now, self.random);
        }
        if log.clean && holds_any {
            segments = begin(segments, disk, self.time, self.random)?;
        }
        Ok(Recovered { segments, queues, keeps_unknown: false, damage: 0 })
    }
}

/// Has the log no longer end with its close, before anything can be given out of it.
fn begin(
    segments: Segments,
    disk: &mut Disk,
    time: Time,
    random: &mut Random,
) -> Result<Segments, String> {
    let Time { mut now, wall } = time;
    let mut log = Log::begin(segments);
    while !log.is_settled() {
        while let Some(operation) = log.poll_operation(wall) {
            disk.submit(operation, now, random);
        }
        let events = carry_out(disk, now, random);
        let Some(timeout) = log.next_timeout().filter(|_| events.is_empty()) else {
            if events.is_empty() {
                return Err("the log waits for nothing".into());
            }
            for event in events {
                if let LogEvent::Failed(error) = log.handle(event, now) {
                    return Err(error.to_string());
                }
            }
            continue;
        };
        now = now.max(timeout);
        log.handle_timeout(now);
    }
    // What the log asked for besides: files laid out ahead.
    while let Some(operation) = log.poll_operation(wall) {
        disk.submit(operation, now, random);
        for event in carry_out(disk, now, random) {
            log.handle(event, now);
        }
    }
    Ok(log.into_segments())
}

/// Has the disk finish all that is under way.
fn carry_out(disk: &mut Disk, mut now: Instant, random: &mut Random) -> Vec<DiskEvent> {
    let mut events = Vec::new();
    while let Some(due) = disk.next_due() {
        now = now.max(due);
        events.extend(disk.step(now, random));
    }
    events
}

//! How a broker crashes or stops, and how the next one recovers from the disks.

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

/// The store id of the data directory of every world.
const STORE_ID: [u8; 16] = [7; 16];

/// The percentage of recovered logs that the second reader reads as well.
const COMPARED_PERCENT: u64 = 20;

/// How a broker dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Only the process dies. The disks continue, and the next process syncs everything it reads.
    Kill,
    /// The power is cut. This percentage of unsynced changes is kept.
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
    /// The seed of the world.
    pub seed: u64,
    /// The time.
    pub time: Time,
    /// Size of new segments.
    pub segment_bytes: u32,
    /// What was declared.
    pub metadata: &'a mut MetadataStore<DurableChange>,
    /// The disk of each shard, as the crash left it.
    pub disks: &'a mut [Disk],
    /// The source of random choices.
    pub random: &'a mut Random,
    /// Whether the previous broker stopped cleanly; then every log must say so.
    pub stopped: bool,
    /// A planted bug: all messages count as never delivered.
    pub forgets_flags: bool,
}

/// Starts a broker from the disks and the metadata.
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
    /// Recovers a log and prepares it for its shard, in the same steps as the server.
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

/// Overwrites the close record at the end of the log before any message can be delivered from it.
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

/// Lets the disk complete everything that is in progress.
fn carry_out(disk: &mut Disk, mut now: Instant, random: &mut Random) -> Vec<DiskEvent> {
    let mut events = Vec::new();
    while let Some(due) = disk.next_due() {
        now = now.max(due);
        events.extend(disk.step(now, random));
    }
    events
}

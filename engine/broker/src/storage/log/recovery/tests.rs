//! Logs that were written by [`Log`] come back as they were.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::operation::{DiskEvent, DiskOperation};
use super::super::record::{self, PublishRecord, Queues, Stamp};
use super::super::segment::{Identity, Segments};
use super::super::{Log, LogEvent};
use super::*;
use crate::id::{Instant, SECOND_NS, Time, WallTime};
use crate::message::{Body, Likeness, Message};

pub(super) const STORE: [u8; 16] = [7; 16];
pub(super) const SHARD: u16 = 3;
const SEGMENT_BYTES: u32 = 16 << 10;

pub(super) const AT: Time = Time { now: Instant(1), wall: WallTime(1_000) };

pub(super) type Files = BTreeMap<u32, Vec<u8>>;
pub(super) type Model = BTreeMap<(LogId, u64), Vec<u8>>;

/// Files in memory; the last write and what it hit can be taken back in parts.
#[derive(Default, Clone)]
pub(super) struct Disk {
    pub(super) files: Files,
    pub(super) last: Option<(u32, usize, Vec<u8>, Vec<u8>)>,
}

impl Disk {
    fn carry_out(&mut self, operation: DiskOperation) -> Option<DiskEvent> {
        match operation {
            DiskOperation::Prepare { segment, size_bytes, recycled } => {
                let old = recycled.and_then(|number| self.files.remove(&number));
                self.files.insert(segment, old.unwrap_or_else(|| vec![0; size_bytes as usize]));
                Some(DiskEvent::Prepared { segment, result: Ok(()) })
            }
            DiskOperation::Commit { segment, offset, blocks } => {
                let at = offset as usize;
                let file = self.files.get_mut(&segment).unwrap();
                let target = &mut file[at..at + blocks.len()];
                self.last = Some((segment, at, target.to_vec(), blocks.as_slice().to_vec()));
                target.copy_from_slice(blocks.as_slice());
                Some(DiskEvent::Committed { segment, offset, blocks, result: Ok(()) })
            }
            DiskOperation::Read { .. } => None,
            DiskOperation::Remove { segment, .. } => {
                self.files.remove(&segment);
                None
            }
        }
    }

    pub(super) fn recover(&self) -> RecoveredLog {
        recover(&self.files, 1 << 20).unwrap()
    }
}

pub(super) fn recover(files: &Files, chunk: usize) -> Result<RecoveredLog, Refusal> {
    let mut recovery = Recovery::new(Some(STORE), SHARD);
    for (number, file) in files {
        recovery.begin(*number, file.len() as u64);
        for piece in file.chunks(chunk) {
            recovery.feed(piece)?;
        }
        recovery.end()?;
    }
    Ok(recovery.finish())
}

/// What a recovered log holds, read from the files as its places say.
pub(super) fn contents(files: &Files, log: &RecoveredLog) -> Model {
    let body = |place: Place| match record_at(files, place).body {
        Body::Inline(body) => body.to_vec(),
        Body::Pieces(_) => panic!("{place:?} was read"),
    };
    let held = log.messages();
    held.map(|(log_id, sequence, place)| ((log_id, sequence), body(place))).collect()
}

/// The publish record at a place.
pub(super) fn record_at(files: &Files, place: Place) -> PublishRecord<'_> {
    let file = &files[&place.segment][place.offset as usize..];
    let position = Position::new(place.segment, place.offset);
    let epoch = u32::from_le_bytes(file[16..20].try_into().unwrap());
    let (length, record) = record::decode(file, Stamp { position, epoch }).unwrap();
    assert_eq!(length, place.length as usize);
    let Record::Publish(publish) = record else { panic!("{record:?}") };
    publish
}

/// A log with a model of what its queues hold.
pub(super) struct World {
    pub(super) log: Log,
    pub(super) disk: Disk,
    places: BTreeMap<(LogId, u64), Place>,
    holders: BTreeMap<Place, BTreeSet<(LogId, u64)>>,
    pub(super) model: Model,
    pub(super) ever: Model,
    next: BTreeMap<LogId, u64>,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Publish { queues: u8, size: usize },
    Settle(usize),
    Copy,
    Flush,
    Idle,
}

impl World {
    pub(super) fn new() -> Self {
        let identity = Identity { store_id: STORE, shard: SHARD, epoch: 1 };
        Self::of(Log::new(Segments::new(identity, SEGMENT_BYTES)), Disk::default())
    }

    fn of(log: Log, disk: Disk) -> Self {
        let (places, holders) = (BTreeMap::new(), BTreeMap::new());
        let (model, ever, next) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { log, disk, places, holders, model, ever, next }
    }

    /// Goes on in a new epoch with what recovery found.
    pub(super) fn reopen(self) -> Self {
        let Self { disk, ever, next, .. } = self;
        Self::from_disk(disk, ever, next)
    }

    pub(super) fn from_disk(mut disk: Disk, ever: Model, next: BTreeMap<LogId, u64>) -> Self {
        let mut recovered = disk.recover();
        let model = contents(&disk.files, &recovered);
        let identity = recovered.next_identity(STORE);
        let (mut segments, remove) = recovered.into_segments(identity, SEGMENT_BYTES);
        for number in remove {
            disk.files.remove(&number);
        }
        let mut world_holders = BTreeMap::<_, BTreeSet<_>>::new();
        let mut places = BTreeMap::new();
        for (log_id, sequence, place) in recovered.messages() {
            world_holders.entry(place).or_default().insert((log_id, sequence));
            places.insert((log_id, sequence), place);
        }
        for place in world_holders.keys() {
            segments.hold(*place);
        }
        let mut world = Self::of(Log::new(segments), disk);
        (world.model, world.ever, world.places) = (model, ever, places);
        (world.holders, world.next) = (world_holders, next);
        for (log_id, queue) in &recovered.queues {
            world.next.insert(*log_id, queue.next_sequence);
        }
        world
    }

    pub(super) fn run(&mut self) {
        while let Some(operation) = self.log.poll_operation(AT.wall) {
            if let Some(event) = self.disk.carry_out(operation) {
                assert!(!matches!(self.log.handle(event, Instant(1)), LogEvent::Failed(_)));
            }
        }
    }

    pub(super) fn flush(&mut self) {
        self.log.handle_timeout(Instant(SECOND_NS));
        self.run();
        self.log.handle_timeout(Instant(2 * SECOND_NS));
        self.run();
    }

    pub(super) fn step(&mut self, step: &Step) {
        match *step {
            Step::Publish { queues, size } => self.publish(queues, size),
            Step::Settle(nth) => self.settle(nth),
            Step::Copy => self.copy_oldest(),
            Step::Flush => self.run(),
            Step::Idle => self.flush(),
        }
    }

    fn publish(&mut self, queues: u8, size: usize) {
        let ids = (1..=4_u8).filter(|id| queues & 1 << id != 0).map(u64::from);
        let mut refs: Vec<QueueRef> = Vec::new();
        for log_id in ids {
            let next = self.next.entry(log_id).or_default();
            refs.push(QueueRef { log_id, sequence: *next });
            *next += 1;
        }
        if refs.is_empty() {
            return;
        }
        let body: Vec<u8> = (0..size).map(|at| (at as u64 ^ refs[0].sequence) as u8).collect();
        for queue in &refs {
            self.model.insert((queue.log_id, queue.sequence), body.clone());
            self.ever.insert((queue.log_id, queue.sequence), body.clone());
        }
        let gone = QueueRef { log_id: PROCESS_QUEUE | 9, sequence: 1 };
        let written: Vec<_> = refs.iter().copied().chain([gone]).collect();
        let place = self.log.publish(&message(&body), &written, AT);
        self.hold(place, &refs);
    }

    fn hold(&mut self, place: Place, refs: &[QueueRef]) {
        for queue in refs {
            self.places.insert((queue.log_id, queue.sequence), place);
            let key = (queue.log_id, queue.sequence);
            self.holders.entry(place).or_default().insert(key);
        }
    }

    fn settle(&mut self, nth: usize) {
        if self.places.is_empty() {
            return;
        }
        let (log_id, sequence) = *self.places.keys().nth(nth % self.places.len()).unwrap();
        let place = self.places.remove(&(log_id, sequence)).unwrap();
        self.model.remove(&(log_id, sequence));
        self.log.settle(QueueRef { log_id, sequence }, place, Instant(1));
        let holders = self.holders.get_mut(&place).unwrap();
        holders.remove(&(log_id, sequence));
        if holders.is_empty() {
            self.holders.remove(&place);
            self.log.release(place);
        }
    }

    fn copy_oldest(&mut self) {
        self.run();
        let Some(oldest) = self.places.values().map(|place| place.segment).min() else { return };
        if oldest == self.log.segments().tail() {
            return;
        }
        let here: Vec<Place> =
            self.holders.keys().filter(|place| place.segment == oldest).copied().collect();
        for place in here {
            let keys = self.holders.remove(&place).unwrap();
            let refs: Vec<QueueRef> = keys
                .iter()
                .map(|(log_id, sequence)| QueueRef { log_id: *log_id, sequence: *sequence })
                .collect();
            let record = record_at(&self.disk.files, place);
            let copy = PublishRecord { queues: Queues::Values(&refs), ..record };
            let to = self.log.copy_forward(&copy, oldest);
            self.log.release(place);
            self.hold(to, &refs);
        }
    }
}

pub(super) fn message(body: &[u8]) -> Message<'_> {
    Message {
        exchange: b"x",
        routing_key: b"key",
        properties: &[0x10, 0, 2],
        body: Body::Inline(body),
        published_at: Instant(0),
        likeness: Likeness::UNKNOWN,
    }
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..32_u8, 0..3000_usize).prop_map(|(queues, size)| Step::Publish { queues, size }),
        8 => (0..40_usize).prop_map(Step::Settle),
        1 => Just(Step::Copy),
        4 => Just(Step::Flush),
        1 => Just(Step::Idle),
    ];
    proptest::collection::vec(step, 1..120)
}

fn assert_sound(log: &RecoveredLog) {
    assert_eq!((log.damage.as_slice(), log.torn.as_slice()), (&[][..], &[][..]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_was_flushed_comes_back_epoch_after_epoch(
        rounds in proptest::collection::vec(steps(), 4),
        chunk in 1..5000_usize,
    ) {
        let mut world = World::new();
        for (round, steps) in rounds.iter().enumerate() {
            for step in steps {
                world.step(step);
            }
            world.flush();
            let found = recover(&world.disk.files, chunk).unwrap();
            assert_sound(&found);
            assert!(!found.clean && found.highest_epoch <= round as u32 + 1);
            assert_eq!(contents(&world.disk.files, &found), world.model);
            for (log_id, queue) in &found.queues {
                assert!(queue.next_sequence <= world.next[log_id]);
                assert_eq!(queue.delivered_through, queue.next_sequence);
            }
            let expected = world.model.clone();
            world = world.reopen();
            assert_eq!(world.model, expected);
        }
    }

    #[test]
    fn a_torn_write_loses_nothing_that_was_confirmed(
        rounds in proptest::collection::vec((steps(), steps()), 3),
        holes in any::<u64>(),
    ) {
        let mut world = World::new();
        for (before, after) in &rounds {
            for step in before {
                world.step(step);
            }
            world.flush();
            let sure = world.model.clone();
            after.iter().filter(|step| matches!(step, Step::Publish { .. } | Step::Settle(_)))
                .take(12).for_each(|step| world.step(step));
            world.disk.last = None;
            world.run();
            let Some((segment, at, old, new)) = world.disk.last.clone() else { continue };
            let (both, either) = (common(&sure, &world.model), world.ever.clone());
            let mut torn = world.disk.clone();
            for sectors in 0..=new.len() / 512 {
                let file = torn.files.get_mut(&segment).unwrap();
                for sector in 0..new.len() / 512 {
                    // All up to a point; on the last turn any of them.
                    let written = sector < sectors
                        || sectors == 0 && holes >> (sector % 64) & 1 != 0;
                    let range = sector * 512..(sector + 1) * 512;
                    let source = if written { &new } else { &old };
                    file[at + range.start..at + range.end].copy_from_slice(&source[range]);
                }
                let found = torn.recover();
                assert_eq!(found.damage, []);
                let held = contents(&torn.files, &found);
                assert!(both.keys().all(|key| held.contains_key(key)));
                assert!(held.iter().all(|(key, body)| either.get(key) == Some(body)));
                if sectors == new.len() / 512 / 2 {
                    world.disk = torn.clone();
                }
            }
            world = world.reopen();
            world.ever.extend(world.model.clone());
        }
    }
}

fn common(one: &Model, other: &Model) -> Model {
    let shared = one.iter().filter(|(key, _)| other.contains_key(key));
    shared.map(|(key, body)| (*key, body.clone())).collect()
}

#[test]
fn a_close_is_believed_only_at_the_end() {
    let mut world = World::new();
    world.step(&Step::Publish { queues: 6, size: 10 });
    world.step(&Step::Publish { queues: 6, size: 10 });
    let marks = [1, 2].map(|log_id| MarkRecord { log_id, next_sequence: 7, delivered_through: 1 });
    world.log.close(marks.into_iter());
    world.run();
    let found = world.disk.recover();
    assert!(found.clean);
    let queue = &found.queues[&1];
    assert_eq!((queue.next_sequence, queue.delivered_through, queue.messages.len()), (7, 1, 2));
    assert_eq!(found.queues[&2].messages, queue.messages);
    world = world.reopen();
    world.step(&Step::Publish { queues: 2, size: 10 });
    world.run();
    let found = world.disk.recover();
    assert!(!found.clean && found.highest_epoch == 2);
    assert_eq!(found.queues[&1].delivered_through, found.queues[&1].next_sequence);
}

#[test]
fn segments_that_settlements_name_are_remembered() {
    let mut world = World::new();
    for _ in 0..10 {
        world.step(&Step::Publish { queues: 2, size: 3000 });
        world.run();
    }
    world.settle(0);
    world.flush();
    let found = world.disk.recover();
    let (last, tail) = found.segments.last_key_value().unwrap();
    assert!(*last > 1 && tail.settles == BTreeSet::from([1]), "{:?}", found.segments);
}

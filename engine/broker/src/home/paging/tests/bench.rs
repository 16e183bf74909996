//! A shard's queues, its log on files in memory, and what should be in the queues.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use crate::catalog::arguments::QueueArguments;
use crate::catalog::name::Name;
use crate::catalog::object::QueueMeta;
use crate::delivery::outputs::Outputs;
use crate::home::Home;
use crate::home::paging::record_in;
use crate::id::{
    ChannelKey, ConsumerKey, Instant, Owner, QueueId, SECOND_NS, ShardId, Time, VhostId,
};
use crate::mesh::batch::Batch;
use crate::mesh::mail::{Lane, Mail, QueueAnswer, QueueRequest};
use crate::message::{Body, Likeness, Message, Messages};
use crate::queue::ready::Entry;
use crate::queue::terms::{Deliveries, Settlement, Signal, Subscription};
use crate::settings::Settings;
use crate::storage::log::blocks::Blocks;
use crate::storage::log::operation::{DiskError, DiskEvent, DiskOperation};
use crate::storage::log::record::PublishRecord;
use crate::storage::log::segment::{Identity, Segments};
use crate::storage::log::{Log, LogId, PROCESS_QUEUE, Place, QueueRef};
use crate::storage::store::{MessageId, Where};
use crate::turn::Turn;

pub(super) const SEGMENT_BYTES: u32 = 128 << 10;
pub(super) const BUDGET_BYTES: usize = 256 << 10;

/// Clients are on another shard, so that all they get is mail.
const CLIENTS: ShardId = ShardId(1);

pub(super) struct Bench {
    pub(super) home: Home,
    pub(super) turn: Turn,
    out: Outputs,
    pub(super) files: BTreeMap<u32, Vec<u8>>,
    pub(super) quarantine: BTreeSet<u32>,
    pub(super) gone: u32,
    pub(super) empty: u32,
    /// How many reads fail from now on.
    pub(super) fail_reads: u32,
    /// Reads of this segment fail.
    pub(super) unreadable: Option<u32>,
    /// Messages may be missing.
    pub(super) lossy: bool,
    pending: Vec<DiskOperation>,
    model: BTreeMap<QueueId, Model>,
    unacked: Vec<Unacked>,
    consumers: Vec<(QueueId, ConsumerKey)>,
    getters: VecDeque<ChannelKey>,
    delivered: u64,
    /// When each message was published, by its number.
    published: Vec<Instant>,
    next_number: u64,
    next_generation: u32,
    random: u64,
}

/// The ready messages of a queue by position: number, size, and whether it was given out before.
#[derive(Default)]
struct Model {
    ready: BTreeMap<u64, (u64, u32, bool)>,
    next: u64,
}

#[derive(Clone, Copy)]
struct Unacked {
    queue: QueueId,
    delivery: Deliveries,
    channel: ChannelKey,
    message: (u64, (u64, u32, bool)),
}

fn body_of(number: u64, size: u32) -> Vec<u8> {
    (0..u64::from(size)).map(|at| (number.wrapping_mul(31) + at) as u8).collect()
}

fn channel(number: u16) -> ChannelKey {
    let owner = Owner { shard: CLIENTS, ..Owner::default() };
    ChannelKey { owner, channel: number, incarnation: 0 }
}

impl Bench {
    pub(super) fn new(seed: u64) -> Self {
        let settings =
            Settings { store_memory_max_bytes: BUDGET_BYTES as u64, ..Settings::default() };
        let mut home = Home::new(&settings);
        let identity = Identity { store_id: [7; 16], shard: 0, epoch: 4 };
        home.shared.log = Some(Log::new(Segments::new(identity, SEGMENT_BYTES)));
        let shard = ShardId(0);
        Self {
            home,
            turn: Turn::new(shard, 2, Arc::new(settings)),
            out: Outputs::new(shard, 3),
            files: BTreeMap::new(),
            quarantine: BTreeSet::new(),
            gone: 0,
            empty: 0,
            fail_reads: 0,
            unreadable: None,
            lossy: false,
            pending: Vec::new(),
            model: BTreeMap::new(),
            unacked: Vec::new(),
            consumers: Vec::new(),
            getters: VecDeque::new(),
            delivered: 0,
            published: Vec::new(),
            next_number: 0,
            next_generation: 1,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        }
    }

    fn pass_time(&mut self, nanoseconds: u64) {
        self.turn.set_time(Time::at(self.turn.now.after(nanoseconds)));
    }

    fn chance(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % below
    }

    pub(super) fn add_queue(&mut self, slot: u32, durable: bool) {
        let generation = self.next_generation;
        self.next_generation += 1;
        let id = QueueId { slot, generation };
        let meta = QueueMeta {
            id,
            vhost: VhostId(0),
            name: Name::from("q"),
            home: ShardId(0),
            durable,
            log_id: durable.then_some(LogId::from(generation)),
            exclusive: None,
            auto_delete: false,
            arguments: Bytes::new(),
            settings: QueueArguments::default(),
        };
        self.home.add_queue(Arc::new(meta));
        self.model.insert(id, Model::default());
    }

    fn id(&self, slot: usize) -> QueueId {
        self.home.queues[slot].as_ref().unwrap().meta.id
    }

    pub(super) fn publish(&mut self, slots: &[usize], size: u32, persistent: bool) {
        self.publish_run(slots, size, 1, persistent);
    }

    /// Messages that come in one mail.
    pub(super) fn publish_run(&mut self, slots: &[usize], size: u32, count: u64, persistent: bool) {
        let queues: Vec<_> = slots.iter().map(|slot| self.id(*slot)).collect();
        let properties: &[u8] = if persistent { &[0x10, 0, 2] } else { &[0, 0] };
        let mut batch = Batch::default();
        for number in self.next_number..self.next_number + count {
            for queue in &queues {
                let model = self.model.get_mut(queue).unwrap();
                model.ready.insert(model.next, (number, size, false));
                model.next += 1;
            }
            let message = Message {
                exchange: b"x",
                routing_key: b"key",
                properties,
                body: Body::Inline(&body_of(number, size)),
                published_at: self.turn.now,
                likeness: Likeness::UNKNOWN,
            };
            batch.publish(queues.iter().copied(), &mut Some(&message), None);
            self.published.push(self.turn.now);
        }
        self.next_number += count;
        let [Mail::Publish { parcels, .. }] = batch.mails[..] else { panic!("{batch:?}") };
        let messages = batch.messages(parcels);
        self.home.publish(&self.turn, &mut self.out, queues.into_iter(), &messages);
        self.read_mail();
    }

    /// A message goes through a queue without consumers, and so through the log.
    pub(super) fn pass(&mut self, slot: usize, size: u32) {
        self.publish(&[slot], size, true);
        self.get(slot, true);
    }

    /// Traffic of some segments, in each of which `stuck` keeps a message.
    pub(super) fn traffic(&mut self, segments: u32, busy: usize, stuck: usize) {
        for _ in 0..segments {
            self.publish(&[stuck], 100, true);
            for number in 0..SEGMENT_BYTES / 1_000 {
                self.pass(busy, 1_000);
                if number % 16 == 0 {
                    self.run_disk();
                }
            }
        }
    }

    /// Fills a queue with messages that are on disk only, as recovery does.
    pub(super) fn recover(&mut self, slot: usize, count: u32) -> Vec<Place> {
        for number in 0..count {
            self.publish(&[slot], 200 + number % 100, true);
        }
        self.run_disk();
        let queue = self.home.queues[slot].as_ref().unwrap();
        let messages: Vec<_> = queue.kind.pageable().iter().collect();
        let evict = |entry: Entry| {
            if let Where::Store(id) = entry.rests {
                self.home.shared.store.evict(id);
            }
            self.home.shared.store.place_of(entry.rests).unwrap()
        };
        messages.into_iter().map(evict).collect()
    }

    pub(super) fn consume(&mut self, slot: usize, number: u16, prefetch: u16, no_ack: bool) {
        self.consume_at(slot, number, prefetch, no_ack, 0);
    }

    pub(super) fn consume_at(
        &mut self,
        slot: usize,
        number: u16,
        prefetch: u16,
        no_ack: bool,
        priority: i32,
    ) {
        let queue = self.id(slot);
        let consumer = ConsumerKey { channel: channel(number), number: self.next_generation };
        self.next_generation += 1;
        let (exclusive, limited) = (false, false);
        let subscription =
            Subscription { consumer, prefetch, no_ack, exclusive, priority, limited };
        self.home.ask(&self.turn, &mut self.out, queue, QueueRequest::Consume(subscription));
        self.home.signal(&self.turn, &mut self.out, queue, &consumer, Signal::Start);
        self.consumers.push((queue, consumer));
        self.read_mail();
    }

    pub(super) fn get(&mut self, slot: usize, no_ack: bool) {
        let channel = channel(1_000 + self.getters.len() as u16);
        self.getters.push_back(channel);
        let queue = self.id(slot);
        self.home.ask(&self.turn, &mut self.out, queue, QueueRequest::Get(channel, no_ack));
        self.read_mail();
    }

    pub(super) fn purge(&mut self, slot: usize) {
        let queue = self.id(slot);
        self.model.get_mut(&queue).unwrap().ready.clear();
        self.home.ask(&self.turn, &mut self.out, queue, QueueRequest::Purge(channel(900)));
        self.read_mail();
    }

    pub(super) fn delete(&mut self, slot: usize) {
        let queue = self.id(slot);
        let (channel, if_unused, if_empty) = (channel(900), false, false);
        self.home.ask(
            &self.turn,
            &mut self.out,
            queue,
            QueueRequest::Delete { channel, if_unused, if_empty },
        );
        self.read_mail();
        self.home.remove_queue(&self.turn, &mut self.out, queue);
        self.model.remove(&queue);
        self.unacked.retain(|unacked| unacked.queue != queue);
        self.consumers.retain(|(consumed, _)| *consumed != queue);
    }

    /// All channels end.
    pub(super) fn leave(&mut self) {
        let numbers = (0..8).chain(1_000..1_100).map(channel);
        let unacked = std::mem::take(&mut self.unacked);
        for Unacked { queue, message: (position, (number, size, _)), .. } in unacked {
            let model = self.model.get_mut(&queue).unwrap();
            model.ready.insert(position, (number, size, true));
        }
        self.consumers.clear();
        self.getters.clear();
        let channels: Vec<_> = numbers.collect();
        self.home.end_channels(&self.turn, &mut self.out, channel(0), &channels);
        self.read_mail();
    }

    fn settle(&mut self, index: usize, settlement: Settlement) {
        let Unacked { queue, delivery, message, .. } = self.unacked.swap_remove(index);
        if settlement == Settlement::Requeue {
            let (position, (number, size, _)) = message;
            let model = self.model.get_mut(&queue).unwrap();
            model.ready.insert(position, (number, size, true));
        }
        self.home.settle(&self.turn, &mut self.out, queue, delivery, settlement, true);
        self.read_mail();
    }

    pub(super) fn settle_one(&mut self, slot: usize, settlement: Settlement) {
        let queue = self.id(slot);
        let oldest = self.unacked.iter().enumerate().filter(|(_, out)| out.queue == queue);
        let index = oldest.min_by_key(|(_, out)| out.message.0).unwrap().0;
        self.settle(index, settlement);
    }

    pub(super) fn ack_one(&mut self, slot: usize) {
        self.settle_one(slot, Settlement::Ack);
    }

    pub(super) fn ack_all(&mut self) {
        while !self.unacked.is_empty() {
            self.settle(self.unacked.len() - 1, Settlement::Ack);
            self.run_disk_a_little();
        }
    }

    pub(super) fn delivered(&self) -> u64 {
        self.delivered
    }

    pub(super) fn model_ready(&self, slot: usize) -> usize {
        self.model[&self.id(slot)].ready.len()
    }

    pub(super) fn gets_waiting(&self) -> usize {
        self.getters.len()
    }

    pub(super) fn held_by(&self, number: u16) -> usize {
        self.unacked.iter().filter(|unacked| unacked.channel == channel(number)).count()
    }

    /// A message is not expected any more.
    pub(super) fn forget(&mut self, slot: usize, position: u64) {
        let queue = self.id(slot);
        assert!(self.model.get_mut(&queue).unwrap().ready.remove(&position).is_some());
    }

    /// The number of a ready message that the store knows.
    pub(super) fn known(&self, slot: usize, position: u64) -> MessageId {
        match self.home.queues[slot].as_ref().unwrap().kind.find(position) {
            Some(Where::Store(id)) => id,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn rot(&mut self, place: Place) {
        let file = self.files.get_mut(&place.segment).unwrap();
        file[place.offset as usize + 50] ^= 4;
    }

    pub(super) fn refs_at(&self, place: Place) -> Vec<QueueRef> {
        let mut blocks = Blocks::default();
        blocks.extend(&self.files[&place.segment]);
        let record: PublishRecord<'_> = record_in(&blocks, 0, place, 4).unwrap();
        record.queues.iter().collect()
    }

    /// What a queue gave out, as the queue knows it and as the log does.
    pub(super) fn given_out(&self, slot: usize) -> Vec<(u64, QueueRef)> {
        let checked_out = self.home.queues[slot].as_ref().unwrap().kind.checked_out();
        let known = checked_out.map(|out| {
            let place = self.home.shared.store.place_of(out.location).unwrap();
            let [known] = self.refs_at(place)[..] else { panic!("several queues at {place:?}") };
            (out.position, known)
        });
        known.collect()
    }

    fn took(
        &mut self,
        queue: QueueId,
        message: &Message<'_>,
        redelivered: bool,
    ) -> (u64, (u64, u32, bool)) {
        let lossy = self.lossy;
        let body = match message.body {
            Body::Inline(bytes) => bytes.to_vec(),
            Body::Pieces(pieces) => pieces.concat(),
        };
        let ready = &mut self.model.get_mut(&queue).unwrap().ready;
        loop {
            let (position, expected) = ready.pop_first().expect("a message too many");
            let (number, size, again) = expected;
            if body != body_of(number, size) && lossy {
                continue;
            }
            assert!(body == body_of(number, size), "not message {number} of {queue:?}");
            assert_eq!(redelivered, again, "message {number} of {queue:?}");
            assert_eq!((message.exchange, message.routing_key), (&b"x"[..], &b"key"[..]));
            // Also of a message that was on disk only.
            assert_eq!(message.published_at, self.published[number as usize]);
            self.delivered += 1;
            return (position, expected);
        }
    }

    fn read_mail(&mut self) {
        while let Some(batch) = self.out.mesh.take(CLIENTS, Lane::Reply) {
            for mail in &batch.mails {
                match mail {
                    Mail::Deliver { delivery, parcels } => {
                        let (queue, channel) = (delivery.queue, delivery.consumer.channel);
                        let mut run = delivery.run();
                        batch.messages(*parcels).lend(|message| {
                            let message = self.took(queue, message, delivery.redelivered);
                            let number = run.next().and_then(|given| given.number);
                            if let Some(first) = number {
                                let (holder, count) = (delivery.holder, 1);
                                let delivery = Deliveries { holder, first, count };
                                self.unacked.push(Unacked { queue, delivery, channel, message });
                            }
                            true
                        });
                    }
                    Mail::Got { channel, got, parcel } => {
                        let queue = got.queue;
                        let message = self.took(queue, &batch.unpack(parcel), got.redelivered);
                        let (channel, waiting) = (*channel, &mut self.getters);
                        let at = waiting.iter().position(|getter| *getter == channel);
                        waiting.remove(at.expect("nobody asked"));
                        if let Some(first) = got.delivery {
                            let delivery = Deliveries { holder: got.holder, first, count: 1 };
                            self.unacked.push(Unacked { queue, delivery, channel, message });
                        }
                    }
                    Mail::Answered { channel, answer } => {
                        self.gone += u32::from(matches!(answer, QueueAnswer::Gone(_)));
                        self.empty += u32::from(matches!(answer, QueueAnswer::Empty));
                        self.getters.retain(|getter| getter != channel);
                    }
                    _ => {}
                }
            }
            self.out.mesh.recycle(batch);
            let relieved = self.out.mesh.relieved(CLIENTS);
            self.home.room_again(&self.turn, &mut self.out, relieved.consumers);
        }
    }

    fn collect_operations(&mut self) {
        self.home.write_records(&self.turn);
        while let Some(operation) =
            self.home.shared.log.as_mut().unwrap().poll_operation(self.turn.wall)
        {
            self.pending.push(operation);
        }
    }

    fn carry_out(&mut self, operation: DiskOperation) {
        let event = match operation {
            DiskOperation::Prepare { segment, size_bytes, recycled } => {
                let old = recycled.map(|number| self.files.remove(&number).unwrap());
                let file = old.unwrap_or_else(|| vec![0; size_bytes as usize]);
                assert!(self.files.insert(segment, file).is_none());
                DiskEvent::Prepared { segment, result: Ok(()) }
            }
            DiskOperation::Commit { segment, offset, blocks } => {
                let file = self.files.get_mut(&segment).unwrap();
                let at = offset as usize;
                file[at..at + blocks.len()].copy_from_slice(blocks.as_slice());
                DiskEvent::Committed { segment, offset, blocks, result: Ok(()) }
            }
            DiskOperation::Read { read, segment, offset, length } => {
                let failed = || DiskError::Failed("no such file".to_owned());
                let end = (offset + length) as usize;
                let mut result = match self.files.get(&segment) {
                    Some(file) if end <= file.len() => {
                        let mut blocks = Blocks::with_capacity(length as usize);
                        blocks.extend(&file[offset as usize..end]);
                        Ok(blocks)
                    }
                    _ => Err(failed()),
                };
                if self.fail_reads > 0 || self.unreadable == Some(segment) {
                    self.fail_reads = self.fail_reads.saturating_sub(1);
                    result = Err(failed());
                }
                DiskEvent::Read { read, result }
            }
            DiskOperation::Remove { segment, damaged } => {
                assert!(self.files.remove(&segment).is_some());
                if damaged {
                    self.quarantine.insert(segment);
                }
                DiskEvent::Removed { segment }
            }
        };
        self.home.disk(&self.turn, &mut self.out, event);
        self.read_mail();
    }

    /// The only read under way, kept back.
    pub(super) fn take_read(&mut self) -> DiskOperation {
        self.collect_operations();
        let mut reads = self
            .pending
            .extract_if(.., |operation| matches!(operation, DiskOperation::Read { .. }));
        reads.next().unwrap()
    }

    pub(super) fn give_back(&mut self, operation: DiskOperation) {
        self.pending.push(operation);
    }

    /// Some of what the disk has to do is done, in any order.
    pub(super) fn run_disk_a_little(&mut self) {
        self.collect_operations();
        for _ in 0..self.chance(3) {
            if !self.pending.is_empty() {
                let index = self.chance(self.pending.len() as u64) as usize;
                let operation = self.pending.swap_remove(index);
                self.carry_out(operation);
                self.collect_operations();
            }
        }
    }

    /// All is done, and time passes.
    pub(super) fn run_disk(&mut self) {
        for _ in 0..3 {
            loop {
                self.collect_operations();
                if self.pending.is_empty() {
                    break;
                }
                let index = self.chance(self.pending.len() as u64) as usize;
                let operation = self.pending.swap_remove(index);
                self.carry_out(operation);
            }
            self.pass_time(SECOND_NS);
            self.home.shared.log.as_mut().unwrap().handle_timeout(self.turn.now);
        }
    }

    pub(super) fn random_step(&mut self) {
        let slot = self.chance(5) as usize;
        match self.chance(100) {
            0..60 => {
                let mut slots = vec![slot];
                if self.chance(3) == 0 {
                    slots.push((slot + 1) % 5);
                    slots.push((slot + 2) % 5);
                }
                let size = match self.chance(200) {
                    0 => self.chance(300_000),
                    1..20 => self.chance(5_000),
                    _ => self.chance(600),
                };
                let persistent = self.chance(2) == 0;
                self.publish(&slots, size as u32, persistent);
            }
            60..64 => {
                let no_ack = self.chance(2) == 0;
                self.get(slot, no_ack);
            }
            64..84 => {
                if !self.unacked.is_empty() {
                    let index = self.chance(self.unacked.len() as u64) as usize;
                    let settlement = match self.chance(4) {
                        0 => Settlement::Requeue,
                        1 => Settlement::Reject,
                        _ => Settlement::Ack,
                    };
                    self.settle(index, settlement);
                }
            }
            84..86 => {
                let (number, prefetch) = (self.chance(8) as u16, self.chance(30) as u16);
                let no_ack = self.chance(4) == 0;
                self.consume(slot, number, prefetch, no_ack);
            }
            86..90 => {
                if let Some((queue, consumer)) = self.consumers.pop() {
                    self.home.ask(&self.turn, &mut self.out, queue, QueueRequest::Cancel(consumer));
                    self.read_mail();
                }
            }
            90 if self.chance(8) == 0 => self.purge(slot),
            91 if self.chance(8) == 0 => {
                self.delete(slot);
                self.add_queue(slot as u32, slot.is_multiple_of(2));
            }
            92 if self.chance(8) == 0 => self.leave(),
            _ => {
                self.pass_time(SECOND_NS / 1_000);
                self.home.shared.log.as_mut().unwrap().handle_timeout(self.turn.now);
            }
        }
        self.run_disk_a_little();
    }

    /// Consumes everything.
    pub(super) fn wind_up(&mut self) {
        self.leave();
        let slots: Vec<_> = self.model.keys().map(|queue| queue.slot as usize).collect();
        for slot in slots {
            self.consume(slot, 1, 0, true);
        }
        self.run_disk();
    }

    /// The budget holds, but for what is never evicted: one message at each front, what was given
    /// back, and what was given out before memory was over its budget.
    pub(super) fn check_memory(&self) {
        let store = &self.home.shared.store;
        let mut kept = BTreeSet::new();
        for queue in self.home.queues.iter().flatten() {
            let ready = queue.kind.pageable();
            let waiting = ready.returned().chain(ready.get(0));
            kept.extend(waiting.filter_map(|entry| match entry.rests {
                Where::Store(id) => Some(id),
                Where::Log(_) => None,
            }));
            kept.extend(queue.kind.checked_out().filter_map(|out| match out.location {
                Where::Store(id) => Some(id),
                Where::Log(_) => None,
            }));
        }
        let kept = kept.into_iter().filter(|id| store.is_resident(*id));
        let kept: usize = kept.map(|id| store.size_bytes(id)).sum();
        let (bytes, most) = (store.live_bytes(), BUDGET_BYTES + kept.min(2 * BUDGET_BYTES));
        assert!(bytes <= most, "{bytes} bytes in memory, {kept} of them kept");
    }

    /// Files are at most twice what is held, and `spare` segments.
    pub(super) fn check_disk(&self, spare: u64) {
        let bytes: u64 = self.files.values().map(|file| file.len() as u64).sum();
        let live = self.home.shared.log.as_ref().unwrap().segments().live_bytes();
        let most = 2 * live + spare * u64::from(SEGMENT_BYTES);
        assert!(bytes <= most, "{bytes} bytes of files, {live} live");
    }

    pub(super) fn expect_empty(&self) {
        assert!(self.lossy || self.model.values().all(|model| model.ready.is_empty()));
        assert!(self.unacked.is_empty() && self.getters.is_empty());
        for queue in self.home.queues.iter().flatten() {
            assert_eq!(queue.kind.ready_count() + queue.kind.unacked_count(), 0);
            assert!(queue.pages.as_ref().is_none_or(|pages| pages.under_way == 0));
        }
        let store = &self.home.shared.store;
        assert_eq!((store.messages(), store.absent_messages(), store.live_bytes()), (0, 0, 0));
        let segments = self.home.shared.log.as_ref().unwrap().segments();
        assert_eq!(segments.live_bytes(), 0);
        assert!(segments.begun().len() <= 2, "{:?}", segments.begun());
        assert!(self.home.by_log_id.keys().all(|log_id| log_id & PROCESS_QUEUE == 0));
    }
}

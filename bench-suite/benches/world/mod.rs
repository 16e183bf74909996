//! Shards and their control without threads, ring or kernel: octets in, octets out.
//!
//! Whoever measures it measures the user-space share of a broker's work, and nothing else. Mail
//! between shards moves batch by batch, as over the mesh, but on one core: what cache lines cost
//! that travel between two is not in it. A disk takes everything, and ends commits when it is told.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use leveret_amqp::TableRef;
use leveret_amqp::client::Hello;
use leveret_amqp::encoder::{Publish, encode_content};
use leveret_amqp::limits::Tune;
use leveret_amqp::method::{
    BasicConsume, BasicQos, ChannelOpen, Encode, QueueDeclare, encode_frame,
};
use leveret_broker::delivery::operation::Operation;
use leveret_broker::home::durability::Recovered;
use leveret_broker::id::{ConnectionId, Instant, ShardId, Time};
use leveret_broker::mesh::batch::Batch;
use leveret_broker::mesh::mail::Lane;
use leveret_broker::routing::topology::Topology;
use leveret_broker::settings::Settings;
use leveret_broker::shard::Shard;
use leveret_broker::shard::control_member::ControlMember;
use leveret_broker::shard::event::Event;
use leveret_broker::storage::log::operation::{DiskEvent, DiskOperation};
use leveret_broker::storage::log::segment::{Identity, Segments};

/// Bytes of one receive buffer.
pub(crate) const RECEIVE_BUFFER_BYTES: usize = 64 << 10;

/// Frame size that both sides agree on, in bytes.
pub(crate) const FRAME_SIZE_MAX: u32 = 131_072;

/// Bytes of a log's segment, as a broker has them by default.
const SEGMENT_BYTES: u32 = 16 << 20;

/// The properties of a publish: none.
const PLAIN: &[u8] = &[0, 0];

/// The delivery mode alone: persistent.
const PERSISTENT: &[u8] = &[0x10, 0, 2];

/// The shards of a broker, their control, and whatever is connected to them.
pub(crate) struct World {
    shards: Vec<Shard>,
    control: ControlMember,
    /// The shard of each connection, by its slot.
    places: Vec<usize>,
    /// Ends of commits that were not told yet, with their shards.
    commits: Vec<(usize, DiskEvent)>,
    time: Time,
}

impl World {
    /// An empty broker with the predeclared exchanges.
    pub(crate) fn new(shards: u16) -> Self {
        let topology = Topology::with_presets(7, shards);
        let settings = Arc::new(Settings::default());
        let shard = |id| Shard::new(ShardId(id), shards, Arc::clone(&settings), topology.clone());
        let shards_of = (0..shards).map(shard).collect();
        let control = ControlMember::new(topology, shards, 7);
        Self {
            shards: shards_of,
            control,
            places: Vec::new(),
            commits: Vec::new(),
            time: Time::at(Instant(1)),
        }
    }

    /// The same with a log for each shard.
    pub(crate) fn with_logs(shards: u16) -> Self {
        let mut world = Self::new(shards);
        for (shard, number) in world.shards.iter_mut().zip(0..) {
            let identity = Identity { store_id: [7; 16], shard: number, epoch: 1 };
            let recovered = Recovered {
                segments: Segments::new(identity, SEGMENT_BYTES),
                queues: BTreeMap::new(),
                keeps_unknown: false,
                damage: 0,
            };
            shard.open_log(recovered, world.time);
        }
        world
    }

    /// The commits under way end well; the next ones begin. Returns the octets of what is answered.
    pub(crate) fn end_commits(&mut self) -> usize {
        let mut sent = 0;
        for (shard, ended) in std::mem::take(&mut self.commits) {
            self.shards[shard].handle(Event::Disk(ended), self.time);
            sent += self.drain(shard);
        }
        sent
    }

    /// Logs a client in at a shard and opens its channel 1.
    pub(crate) fn connect(&mut self, shard: usize) -> ConnectionId {
        let connection = ConnectionId { slot: self.places.len() as u32, generation: 1 };
        self.places.push(shard);
        let peer = ([127, 0, 0, 1], 40_000).into();
        self.shards[shard].handle(Event::Accepted { connection, peer }, self.time);
        let tune = Tune { frame_max: FRAME_SIZE_MAX, ..Hello::GUEST.tune };
        let mut hello = Vec::new();
        Hello { tune, ..Hello::GUEST }.encode(&mut hello);
        encode_frame(1, &ChannelOpen {}, &mut hello);
        self.feed(connection, hello.into());
        connection
    }

    /// Sends a method on channel 1; returns the octets of the answers.
    pub(crate) fn say(&mut self, connection: ConnectionId, method: &impl Encode) -> usize {
        let mut bytes = Vec::new();
        encode_frame(1, method, &mut bytes);
        self.feed(connection, bytes.into())
    }

    /// One turn of a driver, and of the others for as long as it makes them mail; returns the
    /// octets they would have sent.
    pub(crate) fn feed(&mut self, connection: ConnectionId, bytes: Bytes) -> usize {
        let shard = self.places[connection.slot as usize];
        self.shards[shard].handle(Event::Received { connection, bytes }, self.time);
        let mut sent = self.drain(shard);
        while self.carry() {
            sent += (0..self.shards.len()).map(|shard| self.drain(shard)).sum::<usize>();
        }
        sent
    }

    /// Carries the mail that is there; false when there is none.
    fn carry(&mut self) -> bool {
        let mut any = false;
        let control = self.shards.len();
        for (from, to) in (0..=control).flat_map(|from| (0..=control).map(move |to| (from, to))) {
            if from == to {
                continue;
            }
            for lane in [Lane::Reply, Lane::Work] {
                while let Some(batch) = self.take_batch(from, to, lane) {
                    self.hand_over(from, to, batch);
                    any = true;
                }
            }
        }
        any
    }

    fn take_batch(&mut self, from: usize, to: usize, lane: Lane) -> Option<Batch> {
        let to = ShardId(to as u16);
        match self.shards.get_mut(from) {
            Some(shard) => shard.poll_mail(to, lane),
            None => self.control.poll_mail(to, lane),
        }
    }

    fn hand_over(&mut self, from: usize, to: usize, batch: Batch) {
        let of = ShardId(from as u16);
        let emptied = if let Some(shard) = self.shards.get_mut(to) {
            shard.handle_mail(of, batch, self.time)
        } else {
            let emptied = self.control.handle_mail(of, batch);
            self.control.finish_turn();
            emptied
        };
        match self.shards.get_mut(from) {
            Some(shard) => shard.take_back(emptied),
            None => self.control.take_back(emptied),
        }
    }

    fn drain(&mut self, shard: usize) -> usize {
        let mut sent = 0;
        while let Some(operation) = self.shards[shard].poll_operation() {
            match operation {
                Operation::Send { connection, outbox } => {
                    sent += black_box(&outbox).len();
                    self.shards[shard].handle(Event::Sent { connection, outbox }, self.time);
                }
                Operation::Disk(operation) => self.carry_out(shard, operation),
                _ => {}
            }
        }
        sent
    }

    fn carry_out(&mut self, shard: usize, operation: DiskOperation) {
        let event = match operation {
            DiskOperation::Prepare { segment, .. } => {
                DiskEvent::Prepared { segment, result: Ok(()) }
            }
            DiskOperation::Remove { segment, .. } => DiskEvent::Removed { segment },
            DiskOperation::Commit { segment, offset, blocks } => {
                let ended = DiskEvent::Committed { segment, offset, blocks, result: Ok(()) };
                return self.commits.push((shard, ended));
            }
            DiskOperation::Read { .. } => unreachable!("memory has room for all messages"),
        };
        self.shards[shard].handle(Event::Disk(event), self.time);
    }
}

/// A buffer of publishes and their number.
pub(crate) fn publishes(body: &[u8], exchange: &str, routing_key: &str) -> (Bytes, u64) {
    publishes_of(PLAIN, body, exchange, routing_key)
}

/// The same for messages that are persistent.
pub(crate) fn persistent_publishes(body: &[u8], routing_key: &str) -> (Bytes, u64) {
    publishes_of(PERSISTENT, body, "", routing_key)
}

fn publishes_of(properties: &[u8], body: &[u8], exchange: &str, routing_key: &str) -> (Bytes, u64) {
    let mut wire = Vec::new();
    let mut count = 0;
    while wire.len() + body.len() + 128 < RECEIVE_BUFFER_BYTES {
        let publish = Publish {
            channel: 1,
            exchange: exchange.as_bytes(),
            routing_key: routing_key.as_bytes(),
            mandatory: false,
            immediate: false,
        };
        encode_content(&mut wire, publish, properties, body, FRAME_SIZE_MAX);
        count += 1;
    }
    (wire.into(), count)
}

/// Which shards a message is on: where it comes in, where its queue lives, where it goes out.
#[derive(Clone, Copy)]
pub(crate) struct Path {
    pub(crate) publisher: usize,
    pub(crate) home: usize,
    pub(crate) consumer: usize,
}

impl Path {
    /// All on one shard.
    pub(crate) const LOCAL: Self = Self { publisher: 0, home: 0, consumer: 0 };
}

/// A publisher, and the consumer of the queue `work`, of a broker with shards enough.
pub(crate) fn work_queue(
    world: &mut World,
    no_ack: bool,
    path: Path,
) -> (ConnectionId, ConnectionId) {
    let (publisher, consumer) = (world.connect(path.publisher), world.connect(path.consumer));
    let owner = world.connect(path.home);
    declare_work(world, owner);
    consume_work(world, consumer, no_ack, 0);
    (publisher, consumer)
}

/// Declares the queue `work`. It lives on the shard of this connection, for it is an auto-delete
/// queue.
pub(crate) fn declare_work(world: &mut World, connection: ConnectionId) {
    declare(world, connection, false);
}

/// Declares the queue `work` so that it outlives its broker.
pub(crate) fn declare_durable_work(world: &mut World, connection: ConnectionId) {
    declare(world, connection, true);
}

fn declare(world: &mut World, connection: ConnectionId, durable: bool) {
    let declare = QueueDeclare { durable, auto_delete: !durable, ..QueueDeclare::named("work") };
    world.say(connection, &declare);
}

/// Consumes from the queue `work`, `prefetch` unsettled messages at a time (0: any number).
pub(crate) fn consume_work(
    world: &mut World,
    consumer: ConnectionId,
    no_ack: bool,
    prefetch: u16,
) -> usize {
    let qos = BasicQos { prefetch_size: 0, prefetch_count: prefetch, global: false };
    world.say(consumer, &qos);
    let consume = BasicConsume {
        queue: "work",
        consumer_tag: "c",
        no_local: false,
        no_ack,
        exclusive: false,
        nowait: false,
        arguments: TableRef::default(),
    };
    world.say(consumer, &consume)
}

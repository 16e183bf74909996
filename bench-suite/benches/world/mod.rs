//! A shard and its control without threads, ring or kernel: octets in, octets out.
//!
//! Whoever measures it measures the user-space share of a broker's work, and nothing else.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use leveret_amqp::encoder::{Publish, encode_content};
use leveret_amqp::method::{
    BasicConsume, BasicQos, ChannelOpen, ConnectionOpen, ConnectionStartOk, ConnectionTuneOk,
    Encode, QueueDeclare, encode_frame,
};
use leveret_amqp::{TableBuilder, TableRef};
use leveret_broker::control::ControlMember;
use leveret_broker::event::{Event, Operation};
use leveret_broker::id::{ConnectionId, Instant, ShardId};
use leveret_broker::mail::Lane;
use leveret_broker::settings::Settings;
use leveret_broker::shard::Shard;
use leveret_broker::topology::Topology;

/// Bytes of one receive buffer.
const RECEIVE_BUFFER_BYTES: usize = 64 << 10;

/// Frame size that both sides agree on, in bytes.
const FRAME_SIZE_MAX: u32 = 131_072;

/// One shard, its control, and whatever is connected to it.
pub(crate) struct World {
    shard: Shard,
    control: ControlMember,
    now: Instant,
}

impl World {
    /// An empty broker with the predeclared exchanges.
    pub(crate) fn new() -> Self {
        let topology = Topology::with_presets(7, 1);
        let shard = Shard::new(ShardId(0), 1, Arc::new(Settings::default()), topology.clone());
        Self { shard, control: ControlMember::new(topology, 1, 7), now: Instant(1) }
    }

    /// Logs a client in and opens its channel 1. Slots number the connections from 0.
    pub(crate) fn connect(&mut self, slot: u32) -> ConnectionId {
        let connection = ConnectionId { slot, generation: 1 };
        let peer = ([127, 0, 0, 1], 40_000).into();
        self.shard.handle(Event::Accepted { connection, peer, local: peer }, self.now);
        let empty = TableBuilder::new().finish();
        let mut hello = b"AMQP\0\0\x09\x01".to_vec();
        let start_ok = ConnectionStartOk {
            client_properties: empty.as_ref(),
            mechanism: "PLAIN",
            response: b"\0guest\0guest",
            locale: "en_US",
        };
        encode_frame(0, &start_ok, &mut hello);
        let tune_ok =
            ConnectionTuneOk { channel_max: 2047, frame_max: FRAME_SIZE_MAX, heartbeat: 0 };
        encode_frame(0, &tune_ok, &mut hello);
        encode_frame(0, &ConnectionOpen { virtual_host: "/" }, &mut hello);
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

    /// One turn of a driver; returns the octets it would have sent.
    pub(crate) fn feed(&mut self, connection: ConnectionId, bytes: Bytes) -> usize {
        self.shard.handle(Event::Received { connection, bytes }, self.now);
        let mut sent = self.drain();
        while let Some(batch) = self.shard.poll_mail(ShardId(1), Lane::Work) {
            self.control.handle_mail(ShardId(0), batch);
            self.control.finish_turn();
            while let Some(batch) = self.control.poll_mail(ShardId(0), Lane::Reply) {
                self.shard.handle_mail(ShardId(1), batch, self.now);
            }
            sent += self.drain();
        }
        sent
    }

    fn drain(&mut self) -> usize {
        let mut sent = 0;
        while let Some(operation) = self.shard.poll_operation() {
            if let Operation::Send { connection, outbox } = operation {
                sent += black_box(&outbox).len();
                self.shard.handle(Event::Sent { connection, outbox }, self.now);
            }
        }
        sent
    }
}

/// A buffer of publishes and their number.
pub(crate) fn publishes(body: &[u8], exchange: &str, routing_key: &str) -> (Bytes, u64) {
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
        encode_content(&mut wire, publish, &[0, 0], body, FRAME_SIZE_MAX);
        count += 1;
    }
    (wire.into(), count)
}

/// A publisher, and the consumer of the queue `work`, which it has declared.
pub(crate) fn work_queue(world: &mut World, no_ack: bool) -> (ConnectionId, ConnectionId) {
    let (publisher, consumer) = (world.connect(0), world.connect(1));
    let arguments = TableRef::default();
    let declare = QueueDeclare {
        queue: "work",
        passive: false,
        durable: false,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments,
    };
    world.say(consumer, &declare);
    world.say(consumer, &BasicQos { prefetch_size: 0, prefetch_count: 0, global: false });
    let consume = BasicConsume {
        queue: "work",
        consumer_tag: "c",
        no_local: false,
        no_ack,
        exclusive: false,
        nowait: false,
        arguments,
    };
    world.say(consumer, &consume);
    (publisher, consumer)
}

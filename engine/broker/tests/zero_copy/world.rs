//! Shards and their control without a kernel, so that a test sees the memory that is sent.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use leveret_amqp::TableRef;
use leveret_amqp::client::Hello;
use leveret_amqp::encoder::{Publish, encode_content};
use leveret_amqp::limits::Tune;
use leveret_amqp::method::{BasicConsume, ChannelOpen, Encode, QueueDeclare, encode_frame};
use leveret_broker::delivery::body_bytes::BodyBytes;
use leveret_broker::delivery::operation::Operation;
use leveret_broker::id::{ConnectionId, Instant, ShardId, Time, WallTime};
use leveret_broker::mesh::mail::Lane;
use leveret_broker::routing::topology::Topology;
use leveret_broker::settings::Settings;
use leveret_broker::shard::Shard;
use leveret_broker::shard::control_member::ControlMember;
use leveret_broker::shard::event::Event;

/// Bytes of a receive buffer.
pub(crate) const BUFFER_BYTES: usize = 64 << 10;

const NOW: Time = Time { now: Instant(1), wall: WallTime(1) };

/// A client and where it is connected.
#[derive(Clone, Copy)]
pub(crate) struct Client {
    shard: u16,
    connection: ConnectionId,
    frame_max: u32,
}

/// What clients were sent.
#[derive(Default)]
pub(crate) struct Sent {
    /// Rendered bytes: frames, headers and copied bodies.
    pub(crate) rendered_bytes: usize,
    /// Bodies sent by reference.
    pub(crate) shared: Vec<Bytes>,
}

impl Sent {
    pub(crate) fn shared_bytes(&self) -> usize {
        self.shared.iter().map(Bytes::len).sum()
    }
}

/// Some shards, their control, and who is connected.
pub(crate) struct World {
    shards: Vec<Shard>,
    control: ControlMember,
    clients: u32,
    /// The memory of everything that was received.
    received: Vec<Range<usize>>,
}

impl World {
    pub(crate) fn new(shards: u16) -> Self {
        let topology = Topology::with_presets(7, shards);
        let settings = Arc::new(Settings::default());
        let of = |id| Shard::new(ShardId(id), shards, Arc::clone(&settings), topology.clone());
        let shards_of: Vec<Shard> = (0..shards).map(of).collect();
        let control = ControlMember::new(topology.clone(), shards, 7);
        Self { shards: shards_of, control, clients: 0, received: Vec::new() }
    }

    /// Logs a client in at a shard and opens its channel 1.
    pub(crate) fn connect(&mut self, shard: u16, frame_max: u32) -> Client {
        let connection = ConnectionId { slot: self.clients, generation: 1 };
        self.clients += 1;
        let peer = ([127, 0, 0, 1], 40_000).into();
        let accepted = Event::Accepted { connection, peer };
        self.shards[usize::from(shard)].handle(accepted, NOW);
        let tune = Tune { frame_max, ..Hello::GUEST.tune };
        let mut hello = Vec::new();
        Hello { tune, ..Hello::GUEST }.encode(&mut hello);
        encode_frame(1, &ChannelOpen {}, &mut hello);
        let client = Client { shard, connection, frame_max };
        self.feed(client, hello.into());
        client
    }

    pub(crate) fn declare(&mut self, client: Client, queue: &str) {
        let declare = QueueDeclare { exclusive: true, ..QueueDeclare::named(queue) };
        self.say(client, &declare);
    }

    pub(crate) fn consume(&mut self, client: Client, queue: &str, no_ack: bool) -> Sent {
        let consume = BasicConsume {
            queue,
            consumer_tag: queue,
            no_local: false,
            no_ack,
            exclusive: false,
            nowait: false,
            arguments: TableRef::default(),
        };
        self.say(client, &consume)
    }

    pub(crate) fn say(&mut self, client: Client, method: &impl Encode) -> Sent {
        let mut bytes = Vec::new();
        encode_frame(1, method, &mut bytes);
        self.feed(client, bytes.into())
    }

    /// Publishes messages as one stream of full receive buffers, the first of them shorter by
    /// `offset_bytes`; returns what clients were sent.
    pub(crate) fn publish(
        &mut self,
        client: Client,
        to: (&str, &str),
        bodies: &[Vec<u8>],
        offset_bytes: usize,
    ) -> Sent {
        let mut stream = Vec::new();
        for body in bodies {
            let publish = Publish {
                channel: 1,
                exchange: to.0.as_bytes(),
                routing_key: to.1.as_bytes(),
                mandatory: false,
                immediate: false,
            };
            encode_content(&mut stream, publish, &[0, 0], body, client.frame_max);
        }
        let mut sent = Sent::default();
        let mut rest = stream.as_slice();
        let mut room = BUFFER_BYTES - offset_bytes;
        while !rest.is_empty() {
            let (buffer, later) = rest.split_at(rest.len().min(room));
            let more = self.feed(client, Bytes::copy_from_slice(buffer));
            sent.rendered_bytes += more.rendered_bytes;
            sent.shared.extend(more.shared);
            (rest, room) = (later, BUFFER_BYTES);
        }
        sent
    }

    /// One received buffer, and everything that follows from it.
    pub(crate) fn feed(&mut self, client: Client, bytes: Bytes) -> Sent {
        let start = bytes.as_ptr() as usize;
        self.received.push(start..start + bytes.len());
        let event = Event::Received { connection: client.connection, bytes };
        self.shards[usize::from(client.shard)].handle(event, NOW);
        let mut sent = Sent::default();
        loop {
            self.take_operations(&mut sent);
            if !self.carry_mail() {
                return sent;
            }
        }
    }

    /// Whether bytes that were sent are still where they were received.
    pub(crate) fn is_received_memory(&self, sent: &Bytes) -> bool {
        let start = sent.as_ptr() as usize;
        let holds =
            |received: &Range<usize>| received.start <= start && start + sent.len() <= received.end;
        self.received.iter().any(holds)
    }

    /// The counts of all shards together.
    pub(crate) fn body_bytes(&self) -> BodyBytes {
        let mut sum = BodyBytes::default();
        for shard in &self.shards {
            let BodyBytes { shared, copied } = shard.report(false).body_bytes;
            sum.shared += shared;
            sum.copied.assembly += copied.assembly;
            sum.copied.store += copied.store;
            sum.copied.log += copied.log;
            sum.copied.mail += copied.mail;
            sum.copied.outbox += copied.outbox;
        }
        sum
    }

    fn take_operations(&mut self, sent: &mut Sent) {
        for shard in &mut self.shards {
            while let Some(operation) = shard.poll_operation() {
                if let Operation::Send { connection, outbox } = operation {
                    sent.rendered_bytes += outbox.scratch.len();
                    // As the driver does: their memory is held until they are sent.
                    sent.shared.extend(outbox.bodies.iter().map(|(_, body)| body.clone()));
                    shard.handle(Event::Sent { connection, outbox }, NOW);
                }
            }
        }
    }

    fn carry_mail(&mut self) -> bool {
        let count = self.shards.len() as u16;
        let mut carried = false;
        for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
            for lane in [Lane::Work, Lane::Reply] {
                while let Some(batch) = self.shards[usize::from(from)].poll_mail(ShardId(to), lane)
                {
                    self.shards[usize::from(to)].handle_mail(ShardId(from), batch, NOW);
                    carried = true;
                }
            }
        }
        for shard in 0..count {
            while let Some(batch) =
                self.shards[usize::from(shard)].poll_mail(ShardId(count), Lane::Work)
            {
                self.control.handle_mail(ShardId(shard), batch);
                carried = true;
            }
        }
        self.control.finish_turn();
        for shard in 0..count {
            while let Some(batch) = self.control.poll_mail(ShardId(shard), Lane::Reply) {
                self.shards[usize::from(shard)].handle_mail(ShardId(count), batch, NOW);
                carried = true;
            }
        }
        carried
    }
}

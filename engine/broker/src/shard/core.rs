//! Everything of a shard that a frame may touch while it is being read: all but the reading
//! halves of its connections.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use hdrhistogram::Histogram;

use crate::alarms::Alarms;
use crate::catalog::object::Destination;
use crate::client::connection::Deadline;
use crate::delivery::body_bytes::BodyBytes;
use crate::delivery::confirms::AtOnce;
use crate::delivery::operation::Operation;
use crate::delivery::writers::{Room, Way, Writers};
use crate::home::compaction::Reclaim;
use crate::home::durability::{Rested, Unconfirmed};
use crate::home::memory::spare_segments;
use crate::home::paging::{Damage, Paging};
use crate::id::{
    ChannelKey, ConnectionId, ConsumerKey, Instant, Map, QueueId, ShardId, seeded_map,
};
use crate::mesh::delivery::Delivery;
use crate::mesh::mail::{Lane, Mail};
use crate::mesh::outgoing::Post;
use crate::message::{Likeness, Message, Messages, Upcoming};
use crate::pressure::Pressure;
use crate::queue::Queue;
use crate::queue::terms::Signal;
use crate::routing::route::RouteScratch;
use crate::routing::topology::Topology;
use crate::settings::Settings;
use crate::storage::log::{Log, LogId};
use crate::storage::store::{MessageId, Store};
use crate::timer::Timers;

/// The state of a shard without its connections' reading halves.
#[derive(Debug)]
pub struct Core {
    /// Which shard this is.
    pub id: ShardId,
    /// How many shards there are; the control state is the mesh member behind the last one.
    pub shards: u16,
    /// The time of the current turn.
    pub now: Instant,
    /// Limits and names.
    pub settings: Arc<Settings>,
    /// This shard's replica of what exists.
    pub topology: Topology,
    /// Queues that live here, by slot of [`crate::id::QueueId`].
    pub queues: Vec<Option<Box<Queue>>>,
    /// Their messages.
    pub store: Store,
    /// Where what has to outlive the process goes. `None`: nothing does, and confirms say only that
    /// a message is in its queues.
    pub log: Option<Log>,
    /// Publishes whose confirm waits for the log.
    pub unconfirmed: Unconfirmed,
    /// Publishes that their channel is yet to be told of.
    pub(crate) confirmed_at_once: AtOnce,
    /// The queues that the message at hand came to rest in.
    pub(crate) rested: Rested,
    /// All shards have been told that publishers towards this one have to wait.
    pub(crate) told_backed_up: bool,
    /// Reads of messages that are on disk only.
    pub paging: Paging,
    /// The segment that is being emptied.
    pub reclaim: Reclaim,
    /// The durable queues that live here.
    pub by_log_id: Map<LogId, QueueId>,
    /// Records that could not be read, until somebody asks; see [`Damage`].
    pub damage: Vec<Damage>,
    /// The ways out of this shard.
    pub exits: Exits,
    /// The newest of the numbers given out for messages that are alike.
    pub last_likeness: Likeness,
    /// Scratch of routing.
    pub route: RouteScratch,
    /// A queue with a backlog that the message at hand came to rest in, or is sent to.
    pub backlogged: Option<QueueId>,
    /// Queues of other shards that have a backlog, and the publishers here that wait for them.
    pub(crate) backlogs_elsewhere: BTreeMap<QueueId, BTreeSet<ConnectionId>>,
    /// Scratch of routing: where the current message goes.
    pub destinations: Vec<Destination>,
    /// Scratch of publishing: shards that have yet to answer for the messages at hand.
    pub(crate) away: Vec<ShardId>,
    /// Scratch of publishing: how many of the messages at hand each queue gave out at once.
    pub(crate) given: Vec<usize>,
    /// Scratch of publishing: where those rest that were given out and are to be acknowledged.
    pub(crate) handed: Vec<MessageId>,
    /// Reading halves that may go on, to be looked at before the turn ends.
    pub unblocked: Vec<(ConnectionId, Pressure)>,
    /// Connections that wait until the log has room.
    pub log_waiters: BTreeSet<ConnectionId>,
    /// What runs out, broker-wide: publishers wait while any alarm is on.
    pub alarms: Alarms,
    /// What the kernel has to do, sends excepted.
    pub operations: VecDeque<Operation>,
    /// Deadlines of connections.
    pub timers: Timers<(ConnectionId, Deadline)>,
    /// Queues that a channel consumes or gets from, to be left when it ends.
    pub visits: Map<ChannelKey, BTreeSet<QueueId>>,
    /// Counters since the start.
    pub counts: ShardCounts,
    /// Latencies of all messages that left queues here.
    pub latency: ShardLatency,
}

/// Writers and mail: where deliveries go.
#[derive(Debug)]
pub struct Exits {
    /// Which shard this is.
    pub id: ShardId,
    /// The connections of this shard.
    pub writers: Writers,
    /// Mail for the others, and for this shard itself.
    pub post: Post,
    /// What of bodies was copied; the store and the log count their own.
    pub body_bytes: BodyBytes,
}

/// What a shard counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardCounts {
    /// Connections accepted.
    pub connections_opened: u64,
    /// Connections closed.
    pub connections_closed: u64,
    /// Connections given up because their handshake took too long.
    pub handshakes_timed_out: u64,
    /// Connections given up because their heartbeats stayed out.
    pub heartbeats_missed: u64,
    /// Channels opened.
    pub channels_opened: u64,
    /// Channels closed.
    pub channels_closed: u64,
    /// Messages received from publishers.
    pub published: u64,
    /// Body bytes of those.
    pub published_bytes: u64,
    /// Messages received on channels in confirm mode.
    pub published_confirm: u64,
    /// Messages that reached no queue and were dropped.
    pub unroutable_dropped: u64,
    /// Messages that reached no queue and were returned.
    pub unroutable_returned: u64,
    /// Deliveries to consumers that acknowledge nothing.
    pub delivered_auto_ack: u64,
    /// Deliveries to consumers that acknowledge.
    pub delivered_manual_ack: u64,
    /// `basic.get` that acknowledge nothing.
    pub got_auto_ack: u64,
    /// `basic.get` to be acknowledged.
    pub got_manual_ack: u64,
    /// `basic.get` that found nothing.
    pub got_empty: u64,
    /// Messages given out again.
    pub redelivered: u64,
    /// Deliveries that were acknowledged.
    pub acknowledged: u64,
    /// Messages lost because their record in the log could not be read.
    pub damaged: u64,
}

impl ShardCounts {
    /// Counts a delivery to a consumer.
    #[inline]
    pub fn count_delivery(&mut self, no_ack: bool) {
        self.count_deliveries(no_ack, 1);
    }

    /// Counts deliveries to a consumer.
    #[inline]
    pub fn count_deliveries(&mut self, no_ack: bool, count: u64) {
        self.delivered_auto_ack += if no_ack { count } else { 0 };
        self.delivered_manual_ack += if no_ack { 0 } else { count };
    }
}

/// The latencies of a shard, in nanoseconds.
#[derive(Clone, Debug)]
pub struct ShardLatency {
    /// From the arrival of a publish's last frame to the delivery's way out.
    pub publish_to_deliver: Histogram<u64>,
    /// From becoming ready to leaving the queue.
    pub time_in_queue: Histogram<u64>,
    /// Messages that left in the turn they came in, the common case: both latencies are 0 on a
    /// clock that is read once a turn, so they are counted here and told by [`Self::told`].
    pub passed_through: u64,
}

/// One hour: what waits longer is told apart by nobody who looks at a latency.
const LATENCY_MAX_NS: u64 = 3600 * 1_000_000_000;

impl Default for ShardLatency {
    fn default() -> Self {
        // Two digits of 1 ns to 1 h: 1 % error in 35 KiB.
        let histogram = Histogram::new_with_max(LATENCY_MAX_NS, 2).expect("the bounds are sound");
        Self { publish_to_deliver: histogram.clone(), time_in_queue: histogram, passed_through: 0 }
    }
}

impl ShardLatency {
    /// Notes that a message left a queue: `published_at` its publisher's time, `ready_at` ours.
    #[inline(always)]
    pub fn record(&mut self, published_at: Instant, ready_at: Instant, now: Instant) {
        if published_at == now {
            self.passed_through += 1;
        } else {
            self.publish_to_deliver.saturating_record(now.since(published_at));
            self.time_in_queue.saturating_record(now.since(ready_at));
        }
    }

    /// Notes that so many messages left, which waited equally long.
    pub fn record_many(
        &mut self,
        published_at: Instant,
        ready_at: Instant,
        now: Instant,
        count: u64,
    ) {
        if published_at == now {
            self.passed_through += count;
            return;
        }
        self.publish_to_deliver.saturating_record_n(now.since(published_at), count);
        self.time_in_queue.saturating_record_n(now.since(ready_at), count);
    }

    /// Both histograms with everything in them.
    pub fn told(&self) -> [Histogram<u64>; 2] {
        [&self.publish_to_deliver, &self.time_in_queue].map(|histogram| {
            let mut told = histogram.clone();
            told.saturating_record_n(0, self.passed_through);
            told
        })
    }
}

impl Core {
    /// A shard without queues and connections.
    pub fn new(id: ShardId, shards: u16, settings: Arc<Settings>, topology: Topology) -> Self {
        let (writers, post) = (Writers::default(), Post::new(shards + 1));
        let exits = Exits { id, writers, post, body_bytes: BodyBytes::default() };
        let mut store = Store::default();
        store.limit_spare(spare_segments(&settings));
        store.set_budget(settings.store_memory_max_bytes as usize);
        store.limit_received(settings.receive_buffers_kept_max.into());
        Self {
            id,
            shards,
            now: Instant::default(),
            settings,
            topology,
            queues: Vec::new(),
            store,
            log: None,
            unconfirmed: Unconfirmed::default(),
            confirmed_at_once: AtOnce::default(),
            rested: Rested::default(),
            told_backed_up: false,
            paging: Paging::default(),
            reclaim: Reclaim::default(),
            // Keys are made by the broker: no seed is needed.
            by_log_id: seeded_map(0),
            damage: Vec::new(),
            exits,
            last_likeness: Likeness::UNKNOWN,
            route: RouteScratch::default(),
            backlogged: None,
            backlogs_elsewhere: BTreeMap::new(),
            destinations: Vec::new(),
            away: Vec::new(),
            given: Vec::new(),
            handed: Vec::new(),
            unblocked: Vec::new(),
            log_waiters: BTreeSet::new(),
            alarms: Alarms::default(),
            operations: VecDeque::new(),
            timers: Timers::new(),
            // Keys are made by the broker: no seed is needed.
            visits: seeded_map(0),
            counts: ShardCounts::default(),
            latency: ShardLatency::default(),
        }
    }

    /// The mesh member that holds the control state.
    pub fn control(&self) -> ShardId {
        ShardId(self.shards)
    }

    /// The log has room again: the connections that waited for it go on before the turn ends.
    pub fn log_relieved(&mut self) {
        let waiters = std::mem::take(&mut self.log_waiters);
        self.unblocked.extend(waiters.into_iter().map(|connection| (connection, Pressure::Log)));
    }

    /// Sends mail that makes the receiver do something.
    pub fn work(&mut self, to: ShardId, mail: Mail) {
        self.exits.post.send(to, Lane::Work, mail);
    }

    /// Sends mail that follows from the receiver's work.
    pub fn reply(&mut self, to: ShardId, mail: Mail) {
        self.exits.post.send(to, Lane::Reply, mail);
    }
}

impl Exits {
    /// Whether a delivery to this consumer would find room on its way out.
    #[inline(always)]
    pub fn room(&mut self, consumer: &ConsumerKey) -> Room {
        let shard = consumer.channel.owner.shard;
        if shard == self.id {
            self.writers.room(consumer)
        } else if self.post.is_backed_up(shard, Lane::Reply) {
            Room::Full
        } else {
            Room::Yes(Way::Mesh(shard))
        }
    }

    /// Gives out what a channel's limit allows to the consumers that wait for it.
    pub fn grant_waiting(&mut self, channel: ChannelKey) {
        loop {
            let Some((writer, index)) = self.writers.channel(channel) else { return };
            let outbound = writer.channel_at(index);
            let Some(key) = outbound.limit.next_grant() else { return };
            let Some(consumer) = outbound.consumer(key.number) else {
                outbound.limit.granted -= 1;
                continue;
            };
            let (home, queue) = (consumer.home, consumer.queue);
            let mail = Mail::Consumer { queue, consumer: key, signal: Signal::Grant };
            self.post.send(home, Lane::Work, mail);
        }
    }

    /// Asks the consumer's channel for a delivery under its limit. False: the grant comes later.
    pub fn grant(&mut self, queue: QueueId, consumer: &ConsumerKey) -> bool {
        let shard = consumer.channel.owner.shard;
        if shard != self.id {
            let wants = Mail::Wants { consumer: *consumer, queue };
            self.post.send(shard, Lane::Reply, wants);
            return false;
        }
        let Some((writer, index)) = self.writers.channel(consumer.channel) else { return false };
        let limit = &mut writer.channel_at(index).limit;
        limit.wanting.push_back(*consumer);
        // Others that wanted before are served first.
        limit.wanting.len() == 1 && limit.next_grant().is_some()
    }

    /// Has the queue told when there is room for this consumer again.
    pub fn pass_over(&mut self, queue: QueueId, consumer: ConsumerKey) {
        let shard = consumer.channel.owner.shard;
        if shard == self.id {
            self.writers.pass_over(queue, consumer);
        } else {
            self.post.pass_over(shard, queue, consumer);
        }
    }

    /// Sends a delivery to its consumer by the way that [`Self::room`] found.
    #[inline(always)]
    pub fn deliver(&mut self, way: Way, make: impl Fn() -> Delivery, message: &Message<'_>) {
        // Made where it is used: a value that the mesh takes by reference must not be laid out in
        // memory for the sockets, too.
        match way {
            Way::Socket(place) => {
                let delivery = make();
                self.writers.deliver_at(place, &delivery, message);
                if delivery.granted && delivery.number.is_none() {
                    // The grant was not used up: nothing will be settled.
                    self.grant_waiting(delivery.consumer.channel);
                }
            }
            Way::Mesh(shard) => {
                self.mail_deliveries(shard, &make(), &mut Some(message));
            }
        }
    }

    /// Sends deliveries of one source to their consumer by the way that [`Self::room`] found, until
    /// there are no more or no room: one at least, if there is one. Returns how many it took from
    /// `messages`.
    #[inline(always)]
    pub fn deliver_many(&mut self, way: Way, first: Delivery, messages: &mut impl Messages) -> u64 {
        match way {
            Way::Socket(place) => {
                let taken = self.writers.deliver_many_at(place, &first, messages);
                if first.granted && first.number.is_none() {
                    // The grant was not used up: nothing will be settled.
                    self.grant_waiting(first.consumer.channel);
                }
                taken
            }
            Way::Mesh(shard) => self.mail_deliveries(shard, &first, messages),
        }
    }

    /// Mails deliveries of one source to the shard of their consumer, until there are no more or
    /// the lane is backed up. Returns how many.
    #[inline(never)]
    fn mail_deliveries(
        &mut self,
        shard: ShardId,
        first: &Delivery,
        messages: &mut impl Messages,
    ) -> u64 {
        let mut taken = 0;
        loop {
            let number = first.number.map(|number| number + taken);
            let batch = self.post.open(shard, Lane::Reply);
            let packed = batch.deliver(&Delivery { number, ..*first }, messages);
            taken += packed.count;
            self.body_bytes.copied.mail += packed.copied_bytes;
            if !batch.is_full() || self.post.is_backed_up(shard, Lane::Reply) {
                return taken;
            }
        }
    }

    /// Mails messages to the home of their queues, which tells `confirm` that it has them.
    #[inline(never)]
    pub(crate) fn mail_publishes(
        &mut self,
        home: ShardId,
        queues: impl Iterator<Item = QueueId> + Clone,
        messages: &impl Upcoming,
        confirm: Option<ChannelKey>,
    ) {
        let mut messages = messages.clone();
        while messages.count() > 0 {
            let batch = self.post.open(home, Lane::Work);
            let packed = batch.publish(queues.clone(), &mut messages, confirm);
            self.body_bytes.copied.mail += packed.copied_bytes;
        }
    }
}

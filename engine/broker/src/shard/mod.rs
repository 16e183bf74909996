//! The engine of one core, as a value that the driver holds.
//!
//! ```text
//!   Event ────► handle ────────┐                    ┌──► poll_operation ──► kernel
//!   Batch ────► handle_mail ───┼──► Core + reading ─┤
//!   clock ────► handle_timeout ┘      halves        └──► poll_mail ───────► other members
//! ```
//! Whatever comes in is worked off before `handle` returns, mail to this shard itself included;
//! what has to go out waits until it is polled, so a turn's worth of it leaves in one piece.

pub mod control_member;
pub mod core;
pub mod event;
pub mod report;

use std::sync::Arc;

use crate::alarms::Alarms;
use crate::client::channel::Answered;
use crate::client::connection::Connection;
use crate::control::{Answer, Request};
use crate::delivery::operation::Operation;
use crate::delivery::outbox::Outbox;
use crate::home::durability::Recovered;
use crate::id::{ConnectionId, ConsumerKey, Instant, ShardId};
use crate::mesh::batch::Batch;
use crate::mesh::mail::{Lane, Mail};
use crate::message::Upcoming;
use crate::pressure::Pressure;
use crate::queue::Queue;
use crate::queue::terms::Signal;
use crate::routing::change::{Change, Delta};
use crate::routing::topology::Topology;
use crate::settings::Settings;
use crate::shard::core::Core;
use crate::shard::event::Event;

/// Handshakes are given up at multiples of this. Nearly all of these deadlines come when the
/// handshake is long over, and then one wake-up of a sleeping shard serves all of a step.
const HANDSHAKE_STEP_NS: u64 = 1 << 26;

/// One shard.
#[derive(Debug)]
pub struct Shard {
    core: Core,
    /// Reading halves by slot; one is out while its bytes are read.
    connections: Vec<Option<Box<Connection>>>,
    connection_count: usize,
    /// See [`Self::take_traffic`].
    traffic: bool,
    /// Connections are told to go, and no new ones are taken.
    stopping: bool,
    /// The newest delta that the control state has been told of.
    told_sequence: u64,
}

impl Shard {
    /// A shard without connections. `topology` is what all shards start from.
    pub fn new(id: ShardId, shards: u16, settings: Arc<Settings>, topology: Topology) -> Self {
        let mut core = Core::new(id, shards, settings, topology);
        let recovered = core.topology.queues().filter(|meta| meta.home == id);
        let recovered: Vec<_> = recovered.map(|meta| Queue::new(Arc::clone(meta))).collect();
        for queue in recovered {
            core.add_queue(queue);
        }
        let told_sequence = core.topology.sequence();
        Self {
            core,
            connections: Vec::new(),
            connection_count: 0,
            traffic: false,
            stopping: false,
            told_sequence,
        }
    }

    /// Opens the shard's log, before anything else is taken in; see [`Core::open_log`].
    pub fn open_log(&mut self, recovered: Recovered) {
        self.core.open_log(recovered);
    }

    /// Takes in what happened to a connection.
    pub fn handle(&mut self, event: Event, now: Instant) {
        self.core.now = now;
        match event {
            Event::Received { connection, bytes } => {
                let mut traffic = self.traffic;
                self.with(connection, |connection, core| {
                    connection.receive(core, bytes);
                    traffic |= connection.channel_count() > 0;
                });
                self.traffic = traffic;
            }
            Event::Sent { connection, outbox } => self.sent(connection, outbox),
            Event::Accepted { connection, peer } => {
                self.accepted(Connection::new(connection, peer));
            }
            Event::Ended { connection } => self.with(connection, Connection::cut),
            Event::Closed { connection } => self.closed(connection),
            Event::Disk(event) => self.core.disk(event),
            Event::Alarms(alarms) => self.alarms(alarms),
            Event::Stop => self.stop(),
            Event::CloseLog => self.core.close_log(),
        }
        self.settle_down();
    }

    /// Takes in mail from another member of the mesh. What is returned is the emptied batch, which
    /// is of most use to its sender: see [`Self::take_back`].
    pub fn handle_mail(&mut self, from: ShardId, batch: Batch, now: Instant) -> Batch {
        self.core.now = now;
        let emptied = self.open(from, batch);
        self.settle_down();
        emptied
    }

    /// Takes back a batch that another member has emptied, to be filled again. Without it whoever
    /// only sends would lay out new memory for each batch, and whoever only receives would free it.
    pub fn take_back(&mut self, emptied: Batch) {
        self.core.exits.post.recycle(emptied);
    }

    /// Takes in the time.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.core.now = now;
        while let Some((connection, deadline)) = self.core.timers.pop_due(now) {
            self.with(connection, |connection, core| {
                connection.deadline(core, deadline);
            });
        }
        if let Some(log) = &mut self.core.log {
            log.handle_timeout(now);
        }
        self.settle_down();
    }

    /// When [`Self::handle_timeout`] is to be called at the latest.
    pub fn next_timeout(&self) -> Option<Instant> {
        let log = self.core.log.as_ref().and_then(crate::storage::log::Log::next_timeout);
        self.core.timers.next().into_iter().chain(log).min()
    }

    /// The next thing for the kernel to do.
    pub fn poll_operation(&mut self) -> Option<Operation> {
        if let Some(operation) = self.core.operations.pop_front() {
            return Some(operation);
        }
        while let Some(writer) = self.core.exits.writers.next_queued() {
            writer.write_confirms();
            if writer.sending || writer.cut {
                continue;
            }
            let connection = writer.id;
            if !writer.outbox.is_empty() {
                writer.sending = true;
                writer.sending_bytes = writer.outbox.len();
                writer.wrote = true;
                let outbox = std::mem::take(&mut writer.outbox);
                self.core.exits.body_bytes.count_sent(&outbox);
                return Some(Operation::Send { connection, outbox });
            }
            if writer.ending {
                writer.cut = true;
                return Some(Operation::Close { connection });
            }
            // An idle connection keeps no memory to write into: whoever writes next takes it.
            let unused = std::mem::take(&mut writer.outbox);
            self.core.exits.writers.recycle(unused);
        }
        self.core.write_records();
        self.core.log.as_mut()?.poll_operation().map(Operation::Disk)
    }

    /// The next batch for another member of the mesh. To be called while the mesh has room: what
    /// is left here stops what feeds it.
    pub fn poll_mail(&mut self, to: ShardId, lane: Lane) -> Option<Batch> {
        let batch = self.core.exits.post.take(to, lane)?;
        let relieved = self.core.exits.post.relieved(to);
        let publishers = relieved.publishers.into_iter();
        self.core.unblocked.extend(publishers.map(|connection| (connection, Pressure::Mesh)));
        self.core.room_again(relieved.consumers);
        Some(batch)
    }

    /// Whether there is mail for another member.
    pub fn has_mail(&self, to: ShardId, lane: Lane) -> bool {
        self.core.exits.post.has_mail(to, lane)
    }

    /// Whether work is left that needs no event: publishers that may go on, and mail to this shard
    /// itself, both of which [`Self::poll_mail`] can leave behind.
    pub fn has_work(&self) -> bool {
        let (id, post) = (self.core.id, &self.core.exits.post);
        !self.core.unblocked.is_empty()
            || post.has_mail(id, Lane::Work)
            || post.has_mail(id, Lane::Reply)
    }

    /// Goes on with such work.
    pub fn work(&mut self, now: Instant) {
        self.core.now = now;
        self.settle_down();
    }

    /// Whether, since this was last asked, a connection with channels has said something or taken
    /// something: then more of it is likely at once. Who logs in or takes leave does not count.
    pub fn take_traffic(&mut self) -> bool {
        std::mem::take(&mut self.traffic)
    }

    /// Connections, those that are ending included.
    pub fn connections(&self) -> usize {
        self.connection_count
    }

    /// Whether the shard was told to stop and all connections are gone.
    pub fn is_stopped(&self) -> bool {
        self.stopping && self.connection_count == 0
    }

    /// All but the reading halves of connections, for reports and for checks of invariants.
    pub fn core(&self) -> &Core {
        &self.core
    }

    pub(crate) fn core_mut(&mut self) -> &mut Core {
        &mut self.core
    }

    /// The reading halves of all connections.
    pub fn reading_halves(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().flatten().map(|connection| &**connection)
    }

    /// Runs `act` on a connection, beside everything else of the shard.
    #[inline]
    fn with(&mut self, id: ConnectionId, act: impl FnOnce(&mut Connection, &mut Core)) {
        let Some(place) = self.connections.get_mut(id.slot as usize) else {
            return;
        };
        let Some(mut connection) = place.take_if(|connection| connection.id == id) else {
            return;
        };
        act(&mut connection, &mut self.core);
        self.connections[id.slot as usize] = Some(connection);
    }

    /// Works off the mail to this shard itself, and what may go on because of it.
    fn settle_down(&mut self) {
        let id = self.core.id;
        loop {
            let post = &mut self.core.exits.post;
            if let Some(batch) = post.take(id, Lane::Work).or_else(|| post.take(id, Lane::Reply)) {
                let emptied = self.open(id, batch);
                self.core.exits.post.recycle(emptied);
            } else if let Some((connection, block)) = self.core.unblocked.pop() {
                self.with(connection, |connection, core| connection.relieved(core, block));
            } else {
                break;
            }
        }
        self.core.note_confirmed();
        let sequence = self.core.topology.sequence();
        if sequence > self.told_sequence {
            self.told_sequence = sequence;
            let request = Request::Applied { shard: id, sequence };
            let control = self.core.control();
            self.core.work(control, Mail::Control(Box::new(request)));
        }
    }

    fn open(&mut self, from: ShardId, mut batch: Batch) -> Batch {
        self.core.last_likeness = batch.renumber(self.core.last_likeness);
        let mut mails = std::mem::take(&mut batch.mails);
        for mail in mails.drain(..) {
            self.mail(from, mail, &batch);
        }
        batch.mails = mails;
        batch.clear();
        batch
    }

    /// Mail from a channel to the homes of queues; answers go another way.
    fn mail(&mut self, from: ShardId, mail: Mail, batch: &Batch) {
        let core = &mut self.core;
        match mail {
            Mail::Publish { queues, parcels, confirm } => {
                let (queues, messages) = (batch.queues(queues), batch.messages(parcels));
                let through = core.publish_home(queues.iter().copied(), &messages);
                let count = messages.count() as u32;
                if let Some(channel) = confirm
                    && !core.awaits_log(from, channel, through, count)
                {
                    core.confirm_to(from, channel, count);
                }
                if let Some(queue) = core.backlogged.take() {
                    core.tell_of_backlog(from, queue);
                }
            }
            Mail::Settle { queue, deliveries, settlement, serve } => {
                core.settle(queue, deliveries, settlement, serve);
            }
            Mail::Ask(asked) => core.ask(asked.0, asked.1),
            Mail::Leave { asker, channels } => core.leave(asker, &channels),
            Mail::Consumer { queue, consumer, signal } => core.signal(queue, &consumer, signal),
            Mail::Control(_) => debug_assert!(false, "requests go to the control state"),
            reply => self.reply(from, reply, batch),
        }
    }

    /// Mail from the homes of queues and from the control state to channels.
    fn reply(&mut self, from: ShardId, mail: Mail, batch: &Batch) {
        let core = &mut self.core;
        match mail {
            Mail::Deliver { delivery, parcels } => {
                let Some(place) = core.exits.writers.place(delivery.consumer.channel) else {
                    return;
                };
                core.exits.writers.deliver_all_at(place, delivery, &mut batch.messages(parcels));
                if delivery.granted && delivery.number.is_none() {
                    core.grant(delivery.consumer.channel);
                }
                core.stop_full_consumer(&delivery.consumer);
            }
            Mail::Got { channel, got, parcel } => {
                core.write_got(channel, &got, &batch.unpack(&parcel));
                self.with(channel.owner.connection, |connection, core| {
                    connection.got(core, channel);
                });
            }
            Mail::Answered { channel, answer } => {
                self.with(channel.owner.connection, |connection, core| {
                    connection.answered(core, channel, Answered::Queue(answer));
                });
            }
            Mail::Confirmed { channel, count } => core.confirmed(from, channel, count),
            Mail::Refused { channel, count } => core.refused(from, channel, count),
            Mail::LogBackedUp(backed_up) => core.home_backed_up(from, backed_up),
            Mail::Backlog { queue, is_large } => core.backlog_elsewhere(queue, is_large),
            Mail::Cancelled(consumer) => core.consumer_cancelled(&consumer),
            Mail::Wants { consumer, .. } => core.consumer_wants(consumer),
            Mail::GrantUnused(consumer) => core.grant_unused(consumer),
            Mail::Delta(delta) => self.delta(&delta),
            Mail::ControlAnswer(answer) => {
                let Answer { asker, outcome } = *answer;
                self.with(asker.owner.connection, |connection, core| {
                    connection.answered(core, asker, Answered::Control(outcome));
                });
            }
            work => debug_assert!(false, "{work:?} is no reply"),
        }
    }

    fn delta(&mut self, delta: &Arc<Delta>) {
        let core = &mut self.core;
        core.topology.apply(delta);
        match &delta.change {
            Change::QueueDeclared(meta) if meta.home == core.id => {
                core.add_queue(Queue::new(Arc::clone(meta)));
            }
            Change::QueueDeleted { queue, .. } => core.remove_queue(*queue),
            _ => {}
        }
    }

    fn accepted(&mut self, connection: Connection) {
        let slot = connection.id.slot as usize;
        if self.connections.len() <= slot {
            self.connections.resize_with(slot + 1, || None);
        }
        self.connection_count += 1;
        self.core.counts.connections_opened += 1;
        self.core.accept(&connection);
        let id = connection.id;
        self.connections[slot] = Some(Box::new(connection));
        if self.stopping {
            self.with(id, Connection::stop);
        }
    }

    fn closed(&mut self, id: ConnectionId) {
        self.with(id, Connection::cut);
        let Some(place) = self.connections.get_mut(id.slot as usize) else {
            return;
        };
        if place.take_if(|connection| connection.id == id).is_some() {
            self.connection_count -= 1;
            self.core.counts.connections_closed += 1;
            self.core.exits.writers.remove(id);
        }
        let connections = &self.connections;
        self.core.timers.sweep(self.connection_count, |(id, _)| {
            let connection = connections.get(id.slot as usize).and_then(Option::as_ref);
            connection.is_some_and(|connection| connection.id == *id)
        });
    }

    fn sent(&mut self, id: ConnectionId, outbox: Outbox) {
        self.core.exits.writers.recycle(outbox);
        let low = self.core.settings.outbox_low_bytes;
        let Some(writer) = self.core.exits.writers.get_mut(id) else {
            return;
        };
        writer.sending = false;
        writer.sending_bytes = 0;
        self.traffic |= writer.has_channels();
        let relieved = writer.relieved(low);
        self.core.room_again(relieved);
        self.core.start_remote_consumers(id);
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.with_each(Connection::stop);
    }

    /// Which alarm it is means nothing to those that wait already: they have been told why, and
    /// go on when all are off.
    fn alarms(&mut self, alarms: Alarms) {
        let before = std::mem::replace(&mut self.core.alarms, alarms);
        self.core.free_spare_memory();
        if alarms.any() != before.any() {
            self.with_each(Connection::alarms_changed);
        }
    }

    fn with_each(&mut self, act: fn(&mut Connection, &mut Core)) {
        for slot in 0..self.connections.len() {
            if let Some(id) = self.connections[slot].as_ref().map(|connection| connection.id) {
                self.with(id, act);
            }
        }
    }
}

impl Core {
    fn accept(&mut self, connection: &Connection) {
        let high = self.settings.outbox_high_bytes;
        self.exits.writers.insert(connection.id, high);
        let at = self.now.after(self.settings.handshake_timeout_ns).rounded_up(HANDSHAKE_STEP_NS);
        self.timers.arm(at, (connection.id, crate::client::connection::Deadline::Handshake));
    }

    /// Tells a channel on another shard that so many more of its publishes are done; counts fold.
    pub(crate) fn confirm_to(&mut self, shard: ShardId, channel: crate::id::ChannelKey, done: u32) {
        let batch = self.exits.post.open(shard, Lane::Reply);
        if let Some(Mail::Confirmed { channel: last, count }) = batch.mails.last_mut()
            && *last == channel
        {
            *count += done;
            return;
        }
        batch.push(Mail::Confirmed { channel, count: done });
    }

    pub(crate) fn confirmed(&mut self, home: ShardId, channel: crate::id::ChannelKey, count: u32) {
        let Some((writer, index)) = self.exits.writers.channel(channel) else {
            return;
        };
        let outbound = writer.channel_at(index);
        outbound.confirms_due = true;
        if let Some(confirms) = &mut outbound.confirms {
            confirms.confirmed(home, count);
        }
    }

    /// The queue of a consumer is gone: the client hears of it if it can.
    fn consumer_cancelled(&mut self, consumer: &ConsumerKey) {
        let Some((writer, index)) = self.exits.writers.channel(consumer.channel) else {
            return;
        };
        let removed = writer.channel_at(index).remove_consumer(consumer.number);
        if let Some(removed) = removed
            && writer.cancel_notify
        {
            let cancel =
                leveret_amqp::method::BasicCancel { consumer_tag: &removed.tag, nowait: true };
            let number = consumer.channel.channel;
            leveret_amqp::encode_frame(number, &cancel, &mut writer.outbox.scratch);
        }
    }

    /// After deliveries from another shard: if the socket is full, their home has to stop.
    fn stop_full_consumer(&mut self, consumer: &ConsumerKey) {
        let here = self.id;
        let Some((writer, index)) = self.exits.writers.channel(consumer.channel) else {
            return;
        };
        if !writer.is_full() {
            return;
        }
        let found = writer.channel_at(index).consumer_mut(consumer.number);
        let Some(found) = found.filter(|found| !found.stopped && found.home != here) else {
            return;
        };
        found.stopped = true;
        let (home, queue, consumer) = (found.home, found.queue, found.key);
        writer.remote_stopped = true;
        self.work(home, Mail::Consumer { queue, consumer, signal: Signal::Stop });
    }

    /// After a send: if there is room again, homes that had to stop may go on.
    fn start_remote_consumers(&mut self, id: ConnectionId) {
        let low = self.settings.outbox_low_bytes;
        let Some(writer) = self.exits.writers.get_mut(id) else {
            return;
        };
        if !writer.remote_stopped || writer.outbox.len() > low {
            return;
        }
        writer.remote_stopped = false;
        let mut started = Vec::new();
        for consumer in
            writer.channels_mut().flat_map(crate::delivery::channel::Outbound::consumers_mut)
        {
            if std::mem::take(&mut consumer.stopped) {
                started.push((consumer.home, consumer.queue, consumer.key));
            }
        }
        for (home, queue, consumer) in started {
            self.work(home, Mail::Consumer { queue, consumer, signal: Signal::Start });
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use leveret_amqp::method::{
        ChannelOpen, ConnectionClose, ConnectionOpen, ConnectionStartOk, ConnectionTuneOk,
    };
    use leveret_amqp::{TableBuilder, encode_frame};

    use super::*;

    const CLIENT: ConnectionId = ConnectionId { slot: 0, generation: 1 };

    /// Has the shard read `bytes` and send what it says to them; whether both were traffic.
    fn exchange(shard: &mut Shard, bytes: Vec<u8>) -> (bool, bool) {
        let now = Instant(1);
        let bytes = Bytes::from(bytes);
        shard.handle(Event::Received { connection: CLIENT, bytes }, now);
        let heard = shard.take_traffic();
        while let Some(operation) = shard.poll_operation() {
            if let Operation::Send { connection, outbox } = operation {
                shard.handle(Event::Sent { connection, outbox }, now);
            }
        }
        (heard, shard.take_traffic())
    }

    fn hello() -> Vec<u8> {
        let empty = TableBuilder::new().finish();
        let mut hello = b"AMQP\0\0\x09\x01".to_vec();
        let start_ok = ConnectionStartOk {
            client_properties: empty.as_ref(),
            mechanism: "PLAIN",
            response: b"\0guest\0guest",
            locale: "en_US",
        };
        encode_frame(0, &start_ok, &mut hello);
        let tune_ok = ConnectionTuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 0 };
        encode_frame(0, &tune_ok, &mut hello);
        encode_frame(0, &ConnectionOpen { virtual_host: "/" }, &mut hello);
        hello
    }

    #[test]
    fn connections_that_came_one_after_the_other_are_given_up_together() {
        let topology = Topology::with_presets(7, 1);
        let mut shard = Shard::new(ShardId(0), 1, Arc::new(Settings::default()), topology);
        let peer = ([127, 0, 0, 1], 40_000).into();
        for slot in 0..3 {
            let connection = ConnectionId { slot, generation: 1 };
            shard
                .handle(Event::Accepted { connection, peer }, Instant(1 + u64::from(slot) * 1_000));
        }
        let due = shard.next_timeout().unwrap();
        assert!(due >= Instant(1 + 2_000).after(Settings::default().handshake_timeout_ns));
        shard.handle_timeout(due);
        assert_eq!(shard.next_timeout(), None);
        assert_eq!(shard.core.counts.handshakes_timed_out, 3);
    }

    #[test]
    fn only_channels_make_traffic_and_nobody_keeps_an_outbox() {
        let topology = Topology::with_presets(7, 1);
        let mut shard = Shard::new(ShardId(0), 1, Arc::new(Settings::default()), topology);
        let peer = ([127, 0, 0, 1], 40_000).into();
        shard.handle(Event::Accepted { connection: CLIENT, peer }, Instant(1));
        let outbox_capacity =
            |shard: &Shard| shard.core.exits.writers.get(CLIENT).unwrap().outbox.scratch.capacity();
        assert_eq!(exchange(&mut shard, hello()), (false, false));
        assert!(shard.reading_halves().next().unwrap().session().is_some(), "it is open");
        assert_eq!(outbox_capacity(&shard), 0);
        let mut open = Vec::new();
        encode_frame(1, &ChannelOpen {}, &mut open);
        assert_eq!(exchange(&mut shard, open), (true, true));
        assert_eq!(outbox_capacity(&shard), 0);
        let mut close = Vec::new();
        let method = ConnectionClose { reply_code: 200, reply_text: "", class_id: 0, method_id: 0 };
        encode_frame(0, &method, &mut close);
        assert_eq!(exchange(&mut shard, close), (false, false));
    }
}

//! The engine of one core, as a value that the driver holds.
//!
//! ```text
//!   Event ────► handle ────────┐                    ┌──► poll_operation ──► kernel
//!   Batch ────► handle_mail ───┼──► clients, home, ─┤
//!   clock ────► handle_timeout ┘     outputs        └──► poll_mail ───────► other members
//! ```
//! Whatever comes in is worked off before `handle` returns, mail to this shard itself included;
//! what has to go out waits until it is polled, so a turn's worth of it leaves in one piece.

pub mod control_member;
pub mod counts;
pub mod event;
pub mod report;

use std::sync::Arc;

use crate::alarms::Alarms;
use crate::client::backend::Backend;
use crate::client::channel::Answered;
use crate::client::connection::{Connection, Deadline};
use crate::control::{Answer, Request};
use crate::delivery::operation::Operation;
use crate::delivery::outbox::Outbox;
use crate::home::durability::Recovered;
use crate::id::{ConnectionId, Instant, ShardId, Time};
use crate::mesh::batch::Batch;
use crate::mesh::mail::{Lane, Mail};
use crate::message::Upcoming;
use crate::routing::change::{Change, Delta};
use crate::routing::topology::Topology;
use crate::settings::Settings;
use crate::shard::event::Event;
use crate::storage::log::Log;
use crate::turn::Turn;

/// Handshakes are given up at multiples of this. Nearly all of these deadlines come when the
/// handshake is long over, and then one wake-up of a sleeping shard serves all of a step.
const HANDSHAKE_STEP_NS: u64 = 1 << 26;

/// One shard.
#[derive(Debug)]
pub struct Shard {
    /// All but the reading halves.
    backend: Backend,
    /// Reading halves by slot; one is taken out while its bytes are read.
    connections: Vec<Option<Box<Connection>>>,
    connection_count: usize,
    /// See [`Self::take_traffic`].
    traffic: bool,
    /// Connections are asked to end, and no new ones are taken.
    stopping: bool,
    /// The newest delta whose application this shard has reported to the control state.
    reported_sequence: u64,
}

impl Shard {
    /// A shard without connections. `topology` is what all shards start from.
    pub fn new(id: ShardId, shards: u16, settings: Arc<Settings>, topology: Topology) -> Self {
        let turn = Turn::new(id, shards, settings);
        let mut backend = Backend::new(turn, topology);
        for meta in backend.topology.queues().filter(|meta| meta.home == id) {
            backend.home.add_queue(Arc::clone(meta));
        }
        Self {
            reported_sequence: backend.topology.sequence(),
            backend,
            connections: Vec::new(),
            connection_count: 0,
            traffic: false,
            stopping: false,
        }
    }

    /// Opens the shard's log, before anything else is taken in; see [`Home::open_log`].
    pub fn open_log(&mut self, recovered: Recovered, time: Time) {
        self.backend.turn.set_time(time);
        self.backend.home.open_log(&self.backend.turn, recovered);
    }

    /// Takes in what happened to a connection.
    pub fn handle(&mut self, event: Event, time: Time) {
        self.backend.turn.set_time(time);
        match event {
            Event::Received { connection, bytes } => {
                let mut traffic = self.traffic;
                self.with(connection, |connection, backend| {
                    connection.receive(backend, bytes);
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
            Event::Disk(event) => {
                let Backend { home, turn, outputs, .. } = &mut self.backend;
                home.disk(turn, outputs, event);
            }
            Event::Alarms(alarms) => self.alarms(alarms),
            Event::Stop => self.stop(),
            Event::CloseLog => self.backend.home.close_log(&self.backend.turn),
        }
        self.settle_down();
    }

    /// Takes in mail from another member of the mesh. What is returned is the emptied batch, which
    /// is of most use to its sender: see [`Self::take_back`].
    pub fn handle_mail(&mut self, from: ShardId, batch: Batch, time: Time) -> Batch {
        self.backend.turn.set_time(time);
        let emptied = self.open(from, batch);
        self.settle_down();
        emptied
    }

    /// Takes back a batch that another member has emptied, to be filled again. Without it whoever
    /// only sends would lay out new memory for each batch, and whoever only receives would free it.
    pub fn take_back(&mut self, emptied: Batch) {
        self.backend.outputs.mesh.recycle(emptied);
    }

    /// Takes in the time.
    pub fn handle_timeout(&mut self, time: Time) {
        self.backend.turn.set_time(time);
        while let Some((connection, deadline)) = self.backend.deadlines.pop_due(time.now) {
            self.with(connection, |connection, backend| {
                connection.deadline(backend, deadline);
            });
        }
        if let Some(log) = self.backend.home.log_mut() {
            log.handle_timeout(time.now);
        }
        self.settle_down();
    }

    /// When [`Self::handle_timeout`] is to be called at the latest.
    pub fn next_timeout(&self) -> Option<Instant> {
        let log = self.backend.home.log().and_then(Log::next_timeout);
        self.backend.deadlines.next().into_iter().chain(log).min()
    }

    /// The next thing for the kernel to do.
    pub fn poll_operation(&mut self) -> Option<Operation> {
        let outputs = &mut self.backend.outputs;
        if let Some(operation) = outputs.operations.pop_front() {
            return Some(operation);
        }
        while let Some(writer) = outputs.writers.next_queued() {
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
                outputs.body_bytes.count_sent(&outbox);
                return Some(Operation::Send { connection, outbox });
            }
            if writer.ending {
                writer.cut = true;
                return Some(Operation::Close { connection });
            }
            // An idle connection keeps no memory to write into: the next one that writes takes it.
            let unused = std::mem::take(&mut writer.outbox);
            outputs.writers.recycle(unused);
        }
        let Backend { home, turn, .. } = &mut self.backend;
        home.write_records(turn);
        home.log_mut()?.poll_operation(turn.wall).map(Operation::Disk)
    }

    /// The next batch for another member of the mesh. To be called while the mesh has room: what
    /// is left here stops what feeds it.
    pub fn poll_mail(&mut self, to: ShardId, lane: Lane) -> Option<Batch> {
        let batch = self.backend.outputs.mesh.take(to, lane)?;
        self.backend.relieve(to);
        Some(batch)
    }

    /// Whether there is mail for another member.
    pub fn has_mail(&self, to: ShardId, lane: Lane) -> bool {
        self.backend.outputs.mesh.has_mail(to, lane)
    }

    /// Whether work is left that needs no event: publishers that may go on, and mail to this shard
    /// itself, both of which [`Self::poll_mail`] can leave behind.
    pub fn has_work(&self) -> bool {
        let (here, outputs) = (self.backend.turn.shard, &self.backend.outputs);
        !outputs.resumed.is_empty()
            || outputs.mesh.has_mail(here, Lane::Work)
            || outputs.mesh.has_mail(here, Lane::Reply)
    }

    /// Goes on with such work.
    pub fn work(&mut self, time: Time) {
        self.backend.turn.set_time(time);
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
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The reading halves of all connections.
    pub fn reading_halves(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().flatten().map(|connection| &**connection)
    }

    /// Runs `act` on a connection, beside everything else of the shard.
    #[inline]
    fn with(&mut self, id: ConnectionId, act: impl FnOnce(&mut Connection, &mut Backend)) {
        let Some(place) = self.connections.get_mut(id.slot as usize) else {
            return;
        };
        let Some(mut connection) = place.take_if(|connection| connection.id == id) else {
            return;
        };
        act(&mut connection, &mut self.backend);
        self.connections[id.slot as usize] = Some(connection);
    }

    /// Works off the mail to this shard itself, and what may go on because of it.
    fn settle_down(&mut self) {
        let here = self.backend.turn.shard;
        loop {
            let mesh = &mut self.backend.outputs.mesh;
            if let Some(batch) =
                mesh.take(here, Lane::Work).or_else(|| mesh.take(here, Lane::Reply))
            {
                let emptied = self.open(here, batch);
                self.backend.outputs.mesh.recycle(emptied);
            } else if let Some((connection, pressure)) = self.backend.outputs.resumed.pop() {
                self.with(connection, |connection, backend| {
                    connection.relieved(backend, pressure);
                });
            } else {
                break;
            }
        }
        self.backend.outputs.flush_confirms();
        let sequence = self.backend.topology.sequence();
        if sequence > self.reported_sequence {
            self.reported_sequence = sequence;
            let request = Request::Applied { shard: here, sequence };
            let control = self.backend.turn.control();
            self.backend.outputs.work(control, Mail::Control(Box::new(request)));
        }
    }

    fn open(&mut self, from: ShardId, mut batch: Batch) -> Batch {
        self.backend.last_likeness = batch.renumber(self.backend.last_likeness);
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
        let Backend { home, turn, outputs, .. } = &mut self.backend;
        match mail {
            Mail::Publish { queues, parcels, confirm } => {
                let (queues, messages) = (batch.queues(queues), batch.messages(parcels));
                let accepted = home.publish(turn, outputs, queues.iter().copied(), &messages);
                let count = messages.count() as u32;
                if let Some(channel) = confirm {
                    if accepted.refused {
                        outputs.refuse(from, channel, turn.shard, count);
                    } else if !home.confirms_later((from, channel), &accepted, count) {
                        outputs.confirm(from, channel, turn.shard, count);
                    }
                }
                if let Some(queue) = accepted.backlog {
                    home.backlog_begins(turn, outputs, queue, from);
                }
            }
            Mail::Settle { queue, deliveries, settlement, serve } => {
                home.settle(turn, outputs, queue, deliveries, settlement, serve);
            }
            Mail::Ask(asked) => home.ask(turn, outputs, asked.0, asked.1),
            Mail::ChannelsEnded { asker, channels } => {
                home.end_channels(turn, outputs, asker, &channels);
            }
            Mail::Consumer { queue, consumer, signal } => {
                home.signal(turn, outputs, queue, &consumer, signal);
            }
            Mail::Control(_) => debug_assert!(false, "requests go to the control state"),
            reply => self.reply(from, reply, batch),
        }
    }

    /// Mail from the homes of queues and from the control state to channels.
    fn reply(&mut self, from: ShardId, mail: Mail, batch: &Batch) {
        let backend = &mut self.backend;
        let outputs = &mut backend.outputs;
        match mail {
            Mail::Deliver { delivery, parcels } => {
                let Some(slot) = outputs.writers.slot(delivery.consumer.channel) else {
                    return;
                };
                outputs.writers.deliver_all_at(slot, delivery, &mut batch.messages(parcels));
                if delivery.granted && delivery.number.is_none() {
                    outputs.grant_waiting(delivery.consumer.channel);
                }
                outputs.stop_full_consumer(&delivery.consumer);
            }
            Mail::Got { channel, got, parcel } => {
                backend.write_got(channel, &got, &batch.unpack(&parcel));
                self.with(channel.owner.connection, |connection, backend| {
                    connection.got(backend, channel);
                });
            }
            Mail::Answered { channel, answer } => {
                self.with(channel.owner.connection, |connection, backend| {
                    connection.answered(backend, channel, Answered::Queue(answer));
                });
            }
            Mail::Confirmed { channel, count } => outputs.confirmed(from, channel, count),
            Mail::Refused { channel, count } => outputs.refused(from, channel, count),
            Mail::LogBackedUp(backed_up) => {
                outputs.mesh.set_log_backed_up(from, backed_up);
                backend.relieve(from);
            }
            Mail::Backlog { queue, is_large } => backend.backlog_changed(queue, is_large),
            Mail::Cancelled(consumer) => outputs.consumer_cancelled(&consumer),
            Mail::Wants { consumer, .. } => outputs.consumer_wants(consumer),
            Mail::GrantUnused(consumer) => outputs.grant_unused(consumer),
            Mail::Delta(delta) => self.delta(&delta),
            Mail::ControlAnswer(answer) => {
                let Answer { asker, outcome } = *answer;
                self.with(asker.owner.connection, |connection, backend| {
                    connection.answered(backend, asker, Answered::Control(outcome));
                });
            }
            work => debug_assert!(false, "{work:?} is no reply"),
        }
    }

    fn delta(&mut self, delta: &Arc<Delta>) {
        let Backend { home, turn, topology, outputs, .. } = &mut self.backend;
        topology.apply(delta);
        match &delta.change {
            Change::QueueDeclared(meta) if meta.home == turn.shard => {
                home.add_queue(Arc::clone(meta));
            }
            Change::QueueDeleted { queue, .. } => home.remove_queue(turn, outputs, *queue),
            _ => {}
        }
    }

    fn accepted(&mut self, connection: Connection) {
        let (id, slot) = (connection.id, connection.id.slot as usize);
        if self.connections.len() <= slot {
            self.connections.resize_with(slot + 1, || None);
        }
        self.connection_count += 1;
        let Backend { turn, outputs, deadlines, counts, .. } = &mut self.backend;
        counts.connections_opened += 1;
        outputs.writers.insert(id, turn.settings.outbox_high_bytes);
        let due = turn.now.after(turn.settings.handshake_timeout_ns);
        deadlines.arm(due.rounded_up(HANDSHAKE_STEP_NS), (id, Deadline::Handshake));
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
            self.backend.counts.connections_closed += 1;
            self.backend.outputs.writers.remove(id);
        }
        let connections = &self.connections;
        self.backend.deadlines.sweep(self.connection_count, |(id, _)| {
            let connection = connections.get(id.slot as usize).and_then(Option::as_ref);
            connection.is_some_and(|connection| connection.id == *id)
        });
    }

    fn sent(&mut self, id: ConnectionId, outbox: Outbox) {
        let Backend { home, turn, outputs, .. } = &mut self.backend;
        outputs.writers.recycle(outbox);
        let low_bytes = turn.settings.outbox_low_bytes;
        let Some(writer) = outputs.writers.get_mut(id) else {
            return;
        };
        writer.sending = false;
        writer.sending_bytes = 0;
        self.traffic |= writer.has_channels();
        let relieved = writer.relieved(low_bytes);
        home.room_again(turn, outputs, relieved);
        outputs.start_remote_consumers(id, low_bytes);
    }

    fn stop(&mut self) {
        self.stopping = true;
        self.with_each(Connection::stop);
    }

    /// Connections that wait already do not hear of another alarm: their clients know a reason, and
    /// go on when all alarms are off.
    fn alarms(&mut self, alarms: Alarms) {
        let Backend { home, turn, alarms: present, .. } = &mut self.backend;
        let before = std::mem::replace(present, alarms);
        home.keep_spare_memory(&turn.settings, !alarms.memory);
        if alarms.any() != before.any() {
            self.with_each(Connection::alarms_changed);
        }
    }

    fn with_each(&mut self, act: fn(&mut Connection, &mut Backend)) {
        for slot in 0..self.connections.len() {
            if let Some(id) = self.connections[slot].as_ref().map(|connection| connection.id) {
                self.with(id, act);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use leveret_amqp::client::Hello;
    use leveret_amqp::encode_frame;
    use leveret_amqp::method::{ChannelOpen, ConnectionClose};

    use super::*;

    const CLIENT: ConnectionId = ConnectionId { slot: 0, generation: 1 };

    /// Has the shard read `bytes` and send what it says to them; whether both were traffic.
    fn exchange(shard: &mut Shard, bytes: Vec<u8>) -> (bool, bool) {
        let time = Time::at(Instant(1));
        let bytes = Bytes::from(bytes);
        shard.handle(Event::Received { connection: CLIENT, bytes }, time);
        let heard = shard.take_traffic();
        while let Some(operation) = shard.poll_operation() {
            if let Operation::Send { connection, outbox } = operation {
                shard.handle(Event::Sent { connection, outbox }, time);
            }
        }
        (heard, shard.take_traffic())
    }

    fn hello() -> Vec<u8> {
        let mut hello = Vec::new();
        Hello::GUEST.encode(&mut hello);
        hello
    }

    #[test]
    fn connections_that_came_one_after_the_other_are_given_up_together() {
        let topology = Topology::with_presets(7, 1);
        let mut shard = Shard::new(ShardId(0), 1, Arc::new(Settings::default()), topology);
        let peer = ([127, 0, 0, 1], 40_000).into();
        for slot in 0..3 {
            let connection = ConnectionId { slot, generation: 1 };
            let time = Time::at(Instant(1 + u64::from(slot) * 1_000));
            shard.handle(Event::Accepted { connection, peer }, time);
        }
        let due = shard.next_timeout().unwrap();
        assert!(due >= Instant(1 + 2_000).after(Settings::default().handshake_timeout_ns));
        shard.handle_timeout(Time::at(due));
        assert_eq!(shard.next_timeout(), None);
        assert_eq!(shard.backend.counts.handshakes_timed_out, 3);
    }

    #[test]
    fn only_channels_make_traffic_and_nobody_keeps_an_outbox() {
        let topology = Topology::with_presets(7, 1);
        let mut shard = Shard::new(ShardId(0), 1, Arc::new(Settings::default()), topology);
        let peer = ([127, 0, 0, 1], 40_000).into();
        shard.handle(Event::Accepted { connection: CLIENT, peer }, Time::at(Instant(1)));
        let outbox_capacity = |shard: &Shard| {
            shard.backend.outputs.writers.get(CLIENT).unwrap().outbox.scratch.capacity()
        };
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

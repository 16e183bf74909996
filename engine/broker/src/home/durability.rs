//! The seam of queues and log: what is logged, which confirms wait for it, what a start takes over,
//! and the clean end.

use std::collections::BTreeMap;

use crate::delivery::operation::Operation;
use crate::delivery::outputs::Outputs;
use crate::id::{ChannelKey, Map, QueueId, ShardId, seeded_map};
use crate::mesh::mail::Mail;
use crate::message::Message;
use crate::queue::kind::RecoveredMessage;
use crate::queue::records::can_keep;
use crate::storage::log::operation::{DiskError, DiskEvent};
use crate::storage::log::record::MarkRecord;
use crate::storage::log::recovery::RecoveredQueue;
use crate::storage::log::segment::Segments;
use crate::storage::log::{Log, LogEvent, LogId, Place, QueueRef, Ticket};
use crate::storage::store::{MessageId, Store, Where};
use crate::turn::Turn;

use super::leaving::Reason;
use super::pending_confirms::Waiting;
use super::{Accepted, Home, Shared};

/// The queues that keep the message at hand.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// As the log knows them, with the message's position in each.
    pub(super) queues: Vec<QueueRef>,
    /// The message has to outlive the process in one of them.
    pub(super) durable: bool,
}

/// What a shard's log was found to hold.
#[derive(Debug)]
pub struct Recovered {
    /// Its segments, for the next writer.
    pub segments: Segments,
    /// What each queue holds, by log id.
    pub queues: BTreeMap<LogId, RecoveredQueue>,
    /// Records of queues that nobody knows are not dead: some definition is damaged.
    pub keeps_unknown: bool,
    /// Places in the log that are damaged.
    pub damage: u64,
}

impl Home {
    /// Opens the log: durable messages go there from now on, and the queues hold what they held.
    /// Their messages stay on the disk until a consumer wants them.
    pub fn open_log(&mut self, turn: &Turn, recovered: Recovered) {
        let Recovered { mut segments, queues, keeps_unknown, damage } = recovered;
        self.shared.counts.damaged += damage;
        let mut shared = shared_places(&queues);
        for (log_id, held) in queues {
            let queue = self.by_log_id.get(&log_id).copied();
            let queue = queue.and_then(|id| self.queues.get_mut(id.slot as usize)?.as_deref_mut());
            let Some(queue) = queue else {
                if keeps_unknown {
                    held.messages.iter().for_each(|(_, place)| segments.keep_aside(*place));
                }
                continue;
            };
            let store = &mut self.shared.store;
            let messages = held.messages.into_iter().map(|(position, place)| {
                let shared = shared.get_mut(&place);
                let location = location_of(place, shared, store, &mut segments);
                let redelivered = position < held.delivered_through;
                RecoveredMessage { position, location, redelivered }
            });
            queue.kind.recover(messages, held.next_sequence, turn.wall);
        }
        self.shared.log = Some(Log::new(segments));
    }

    /// Gives those messages their records that a commit can take along now. They are read from the
    /// store: what was settled in the meantime is not there any more.
    pub fn write_records(&mut self, turn: &Turn) {
        self.shared.write_records(turn, Log::take_unwritten);
    }

    /// Whether the confirm of `count` publishes of a channel, which [`Home::publish`] has just
    /// accepted, has to wait for the log. If so, it follows when the log has come so far.
    #[inline]
    pub fn confirms_later(
        &mut self,
        (shard, channel): (ShardId, ChannelKey),
        accepted: &Accepted,
        count: u32,
    ) -> bool {
        if accepted.promise.is_none() && self.shared.pending_confirms.is_empty() {
            return false;
        }
        self.shared.confirms_later((shard, channel), accepted.promise, count)
    }

    /// Takes what the disk answers.
    pub fn disk(&mut self, turn: &Turn, out: &mut Outputs, event: DiskEvent) {
        let Some(log) = &mut self.shared.log else {
            return;
        };
        match log.handle(event, turn.now) {
            LogEvent::None => {}
            LogEvent::Durable => {
                self.shared.confirm_durable(turn, out);
                self.made_durable(turn, out);
            }
            LogEvent::Read(read, result) => self.pages_arrived(turn, out, read, &result),
            LogEvent::Failed(error) => return self.shared.log_failed(turn, out, &error),
        }
        if self.shared.log_backed_up && self.shared.log.as_ref().is_some_and(Log::is_relieved) {
            self.shared.report_pressure(turn, out, false);
        }
    }

    /// Ends the log in order. To be called when all connections of all shards are gone.
    pub fn close_log(&mut self, turn: &Turn) {
        self.shared.write_records(turn, Log::take_all_unwritten);
        let Some(log) = &mut self.shared.log else {
            return;
        };
        let queues = self.queues.iter().flatten().filter(|queue| !queue.closing);
        log.close(queues.filter_map(|queue| {
            Some(MarkRecord {
                log_id: queue.log_id?,
                next_sequence: queue.kind.next_position(),
                delivered_through: queue.kind.delivered_through(),
            })
        }));
    }

    /// Whether everything in the log is durable.
    pub fn is_log_settled(&self) -> bool {
        self.shared.log.as_ref().is_none_or(Log::is_settled)
    }

    /// The queue is gone for good: whatever it held leaves.
    pub(super) fn drop_messages(&mut self, turn: &Turn, id: QueueId) {
        let Some(slot) = self.queues.get_mut(id.slot as usize) else {
            return;
        };
        let Some(mut queue) = slot.take_if(|queue| queue.id == id) else {
            return;
        };
        if let Some(log_id) = queue.log_id {
            self.by_log_id.remove(&log_id);
        }
        let mut departures = self.shared.departures(queue.log_id, Reason::Deleted, turn.now);
        queue.kind.clear(|message| departures.leave_placed(message));
    }
}

impl Shared {
    /// Whether the log has failed: the process is about to end, and nothing is kept any more.
    #[inline]
    pub(super) fn has_failed(&self) -> bool {
        self.log.as_ref().is_some_and(Log::has_failed)
    }

    /// Adds a message to the log if one of the queues in [`Self::stored`] keeps it durably, or if
    /// memory has no room for it. Returns how far the log has to have come before its publisher may
    /// be confirmed.
    pub(super) fn log_stored(
        &mut self,
        turn: &Turn,
        out: &mut Outputs,
        id: MessageId,
        message: &Message<'_>,
    ) -> Option<Ticket> {
        let durable = std::mem::take(&mut self.stored.durable);
        let overflows = self.overflows();
        let Some(log) = self.log.as_mut().filter(|_| durable || overflows) else {
            self.stored.queues.clear();
            return None;
        };
        let awaited = log.add(id, message, &self.stored.queues);
        let (through, backed_up) = (log.last_added(), log.is_backed_up());
        self.store.logged(id, awaited);
        self.stored.queues.clear();
        if backed_up && !self.log_backed_up {
            self.report_pressure(turn, out, true);
        }
        durable.then_some(through)
    }

    /// Writes the records of messages that `take` finds due, each with the queues that it fills in.
    fn write_records(
        &mut self,
        turn: &Turn,
        take: fn(&mut Log, &mut Vec<QueueRef>) -> Option<MessageId>,
    ) {
        let (Some(log), queues) = (&mut self.log, &mut self.stored.queues) else {
            return;
        };
        while let Some(id) = take(log, queues) {
            self.store.logged(id, log.publish(&self.store.message(id), queues, turn.time()));
        }
        queues.clear();
    }

    fn confirms_later(
        &mut self,
        (shard, channel): (ShardId, ChannelKey),
        promise: Option<Ticket>,
        count: u32,
    ) -> bool {
        let Some(through) = promise.or_else(|| self.pending_confirms.turn_of(&channel)) else {
            return false;
        };
        let written = self.log.as_ref().map_or(Ticket(0), Log::written);
        self.pending_confirms.push(Waiting { through, shard, channel, count }, written);
        true
    }

    fn confirm_durable(&mut self, turn: &Turn, out: &mut Outputs) {
        let Some(confirmed) = self.log.as_ref().map(Log::confirmed) else {
            return;
        };
        while let Some(waiting) = self.pending_confirms.pop(confirmed) {
            out.confirm(waiting.shard, waiting.channel, turn.shard, waiting.count);
        }
    }

    /// What the disk has of the commit under way is unknown: its publishers are refused, and the
    /// process has to end.
    #[cold]
    fn log_failed(&mut self, turn: &Turn, out: &mut Outputs, error: &DiskError) {
        while let Some(waiting) = self.pending_confirms.pop(Ticket(u64::MAX)) {
            out.refuse(waiting.shard, waiting.channel, turn.shard, waiting.count);
        }
        let reason = format!("the log of shard {} cannot be written: {error}", turn.shard);
        out.operations.push_back(Operation::Fail { reason });
    }

    /// Notifies all shards, this one included, whether publishers towards this home have to wait.
    #[cold]
    fn report_pressure(&mut self, turn: &Turn, out: &mut Outputs, backed_up: bool) {
        self.log_backed_up = backed_up;
        for shard in turn.all_shards() {
            out.reply(shard, Mail::LogBackedUp(backed_up));
        }
    }
}

/// The places that several queues name, each for the store's id of its message.
fn shared_places(queues: &BTreeMap<LogId, RecoveredQueue>) -> Map<Place, Option<MessageId>> {
    let mut shared = seeded_map(0);
    // One queue alone shares no message with others.
    if queues.len() > 1 {
        let messages = queues.values().flat_map(|queue| &queue.messages);
        let mut places: Vec<_> = messages.map(|(_, place)| *place).collect();
        places.sort_unstable();
        let twice = places.windows(2).filter(|pair| pair[0] == pair[1]);
        shared.extend(twice.map(|pair| (pair[0], None)));
    }
    shared
}

/// Where a message that was read back is for one more of its queues.
fn location_of(
    place: Place,
    shared: Option<&mut Option<MessageId>>,
    store: &mut Store,
    segments: &mut Segments,
) -> Where {
    if let Some(Some(known)) = shared {
        store.retain(*known);
        return Where::Store(*known);
    }
    segments.hold(place);
    if shared.is_none() && can_keep(place) {
        store.left();
        return Where::Log(place);
    }
    let message = store.recovered(place, 1);
    if let Some(shared) = shared {
        *shared = Some(message);
    }
    Where::Store(message)
}

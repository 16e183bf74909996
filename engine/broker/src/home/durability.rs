//! What waits for the log: confirms of messages that have to be durable first, publishers that are
//! faster than the disk, and the clean end.

use std::collections::{BTreeMap, VecDeque};

use crate::delivery::operation::Operation;
use crate::id::{ChannelKey, Instant, Map, QueueId, ShardId, seeded_map};
use crate::mesh::mail::{Lane, Mail};
use crate::message::Message;
use crate::pressure::Pressure;
use crate::queue::ready::Entry;
use crate::queue::records::can_keep;
use crate::queue::state::State;
use crate::shard::core::Core;
use crate::storage::log::operation::{DiskError, DiskEvent};
use crate::storage::log::record::MarkRecord;
use crate::storage::log::recovery::RecoveredQueue;
use crate::storage::log::segment::Segments;
use crate::storage::log::{Log, LogEvent, LogId, Place, QueueRef, Ticket};
use crate::storage::store::{MessageId, Release, Store, Where};

/// Publishes of channels in confirm mode that this home has in its log and not yet on the disk, in
/// the order of the log.
///
/// A channel hears of its publishes in their order, so one that needs no log waits behind those of
/// its channel that do.
#[derive(Debug)]
pub struct Unconfirmed {
    waiting: VecDeque<Waiting>,
    /// How many publishes of channels on other shards wait. Those of this one know it themselves.
    remote: Map<ChannelKey, u32>,
}

#[derive(Debug)]
struct Waiting {
    /// The log has to have come so far.
    through: Ticket,
    shard: ShardId,
    channel: ChannelKey,
    count: u32,
}

/// Where the message at hand came to rest.
#[derive(Debug, Default)]
pub(crate) struct Rested {
    /// The queues, as the log knows them.
    pub(crate) queues: Vec<QueueRef>,
    /// It is to outlive the process in one of them.
    pub(crate) durable: bool,
}

impl Default for Unconfirmed {
    fn default() -> Self {
        // Keys are made by the broker: no seed is needed.
        Self { waiting: VecDeque::new(), remote: seeded_map(0) }
    }
}

impl Unconfirmed {
    /// Publishes that wait, all together.
    pub fn count(&self) -> u64 {
        self.waiting.iter().map(|waiting| u64::from(waiting.count)).sum()
    }

    /// Adds publishes. Those of one channel in one commit are told together; one of a later commit
    /// must not hold up those before: what came before `written` has its record.
    #[inline]
    fn push(&mut self, waiting: Waiting, written: Ticket) {
        if let Some(last) = self.waiting.back_mut()
            && last.channel == waiting.channel
            && last.through > written
        {
            last.through = waiting.through;
            last.count += waiting.count;
            return;
        }
        self.waiting.push_back(waiting);
    }

    fn pop(&mut self, confirmed: Ticket) -> Option<Waiting> {
        if self.waiting.front()?.through > confirmed {
            return None;
        }
        let waiting = self.waiting.pop_front()?;
        if let Some(count) = self.remote.get_mut(&waiting.channel) {
            *count -= waiting.count;
            if *count == 0 {
                self.remote.remove(&waiting.channel);
            }
        }
        Some(waiting)
    }
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

impl Core {
    /// Opens the log: durable messages go there from now on, and the queues hold what they held.
    /// Their messages stay on the disk until somebody wants them.
    pub fn open_log(&mut self, recovered: Recovered) {
        let Recovered { mut segments, queues, keeps_unknown, damage } = recovered;
        self.counts.damaged += damage;
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
            let (store, now) = (&mut self.store, self.now);
            let entries = held.messages.into_iter().map(|(position, place)| {
                let rests = rests_at(place, shared.get_mut(&place), store, &mut segments);
                let redelivered = position < held.delivered_through;
                Entry { rests, redelivered, position, ready_at: now }
            });
            let (next, delivered) = (held.next_sequence, held.delivered_through);
            queue.state = State::recovered(entries, next, delivered);
        }
        self.log = Some(Log::new(segments));
    }

    /// Adds a message to the log if one of the queues in [`Core::rested`] keeps it durably, or if
    /// memory has no room for it. Returns how far the log has to have come before its publisher may
    /// be told.
    pub(crate) fn log_rested(&mut self, id: MessageId, message: &Message<'_>) -> Option<Ticket> {
        let durable = std::mem::take(&mut self.rested.durable);
        let overflows = self.overflows();
        let Some(log) = self.log.as_mut().filter(|_| durable || overflows) else {
            self.rested.queues.clear();
            return None;
        };
        let awaited = log.add(id, message, &self.rested.queues);
        let (through, backed_up) = (log.last_added(), log.is_backed_up());
        self.store.logged(id, awaited);
        self.rested.queues.clear();
        if backed_up && !self.told_backed_up {
            self.tell_backed_up(true);
        }
        durable.then_some(through)
    }

    /// Gives those messages their records that a commit can take along now. They are read from the
    /// store: what was settled in the meantime is not there any more.
    pub(crate) fn write_records(&mut self) {
        let (Some(log), queues) = (&mut self.log, &mut self.rested.queues) else {
            return;
        };
        while let Some(id) = log.take_unwritten(queues) {
            self.store.logged(id, log.publish(&self.store.message(id), queues));
        }
        queues.clear();
    }

    /// A queue no longer holds a message.
    #[inline]
    pub(crate) fn let_go(&mut self, queue: Option<LogId>, sequence: u64, rests: Where) {
        Leave::of(queue, &mut self.store, &mut self.log, self.now).any(sequence, rests);
    }

    /// The store has forgotten a message whose record is at `place`.
    pub(crate) fn release_logged(&mut self, place: Place) {
        if let Some(log) = &mut self.log {
            log.release(place);
        }
    }

    /// Whether the next `count` publishes of a channel have to wait for the log before this home
    /// answers them; `through` is what [`Core::publish_home`] said of them. If so, the answer
    /// follows.
    #[inline]
    pub(crate) fn awaits_log(
        &mut self,
        shard: ShardId,
        channel: ChannelKey,
        through: Option<Ticket>,
        count: u32,
    ) -> bool {
        if through.is_none() && self.unconfirmed.waiting.is_empty() {
            return false;
        }
        self.wait_for_log(shard, channel, through, count)
    }

    fn wait_for_log(
        &mut self,
        shard: ShardId,
        channel: ChannelKey,
        through: Option<Ticket>,
        count: u32,
    ) -> bool {
        let here = self.id;
        let through = match through {
            Some(through) => through,
            None if !self.is_behind_others(shard, channel) => return false,
            // Nothing of its own to wait for, only its turn.
            None => self.unconfirmed.waiting.back().map_or(Ticket(0), |last| last.through),
        };
        let written = self.log.as_ref().map_or(Ticket(0), Log::written);
        self.unconfirmed.push(Waiting { through, shard, channel, count }, written);
        if shard != here {
            *self.unconfirmed.remote.entry(channel).or_default() += count;
        }
        true
    }

    /// Whether earlier publishes of a channel wait for this home's log.
    fn is_behind_others(&mut self, shard: ShardId, channel: ChannelKey) -> bool {
        let here = self.id;
        if shard != here {
            return self.unconfirmed.remote.contains_key(&channel);
        }
        let Some((writer, index)) = self.exits.writers.channel(channel) else {
            return false;
        };
        writer.channel_at(index).confirms.as_ref().is_some_and(|confirms| confirms.awaits(here))
    }

    /// Takes what the disk answers.
    pub fn disk(&mut self, event: DiskEvent) {
        let Some(log) = &mut self.log else {
            return;
        };
        match log.handle(event, self.now) {
            LogEvent::None => {}
            LogEvent::Durable => {
                self.confirm_durable();
                self.made_durable();
            }
            LogEvent::Read(read, result) => self.pages_arrived(read, &result),
            LogEvent::Failed(error) => return self.log_failed(&error),
        }
        if self.told_backed_up && self.log.as_ref().is_some_and(Log::is_relieved) {
            self.tell_backed_up(false);
        }
    }

    fn confirm_durable(&mut self) {
        let Some(confirmed) = self.log.as_ref().map(Log::confirmed) else {
            return;
        };
        while let Some(waiting) = self.unconfirmed.pop(confirmed) {
            let Waiting { shard, channel, count, .. } = waiting;
            if shard == self.id {
                self.confirmed(shard, channel, count);
            } else {
                self.confirm_to(shard, channel, count);
            }
        }
    }

    /// Nobody knows what the disk has of what was under way: publishers are told that we do not
    /// have it, and the process has to go.
    #[cold]
    fn log_failed(&mut self, error: &DiskError) {
        while let Some(waiting) = self.unconfirmed.pop(Ticket(u64::MAX)) {
            let Waiting { shard, channel, count, .. } = waiting;
            if shard == self.id {
                self.refused(shard, channel, count);
            } else {
                self.reply(shard, Mail::Refused { channel, count });
            }
        }
        let reason = format!("the log of shard {} cannot be written: {error}", self.id);
        self.operations.push_back(Operation::Fail { reason });
    }

    /// A home could not keep publishes of a channel here.
    pub(crate) fn refused(&mut self, home: ShardId, channel: ChannelKey, count: u32) {
        let Some((writer, index)) = self.exits.writers.channel(channel) else {
            return;
        };
        let outbound = writer.channel_at(index);
        outbound.confirms_due = true;
        if let Some(confirms) = &mut outbound.confirms {
            confirms.refuse(home, count);
        }
    }

    /// Tells all shards, this one too, whether publishers towards it have to wait.
    #[cold]
    fn tell_backed_up(&mut self, backed_up: bool) {
        self.told_backed_up = backed_up;
        for shard in (0..self.shards).map(ShardId).filter(|shard| *shard != self.id) {
            self.exits.post.send(shard, Lane::Reply, Mail::LogBackedUp(backed_up));
        }
        if !backed_up {
            self.log_relieved();
        }
    }

    /// Another home says whether publishers towards it have to wait.
    pub(crate) fn home_backed_up(&mut self, home: ShardId, backed_up: bool) {
        self.exits.post.set_log_backed_up(home, backed_up);
        let relieved = self.exits.post.relieved(home);
        let publishers = relieved.publishers.into_iter();
        self.unblocked.extend(publishers.map(|connection| (connection, Pressure::Mesh)));
        self.room_again(relieved.consumers);
    }

    /// Ends the log in order. To be called when all connections of all shards are gone.
    pub(crate) fn close_log(&mut self) {
        let (Some(log), held) = (&mut self.log, &mut self.rested.queues) else {
            return;
        };
        while let Some(id) = log.take_all_unwritten(held) {
            self.store.logged(id, log.publish(&self.store.message(id), held));
        }
        held.clear();
        let queues = self.queues.iter().flatten().filter(|queue| !queue.closing);
        log.close(queues.filter_map(|queue| {
            Some(MarkRecord {
                log_id: queue.log_id?,
                next_sequence: queue.state.next_position(),
                delivered_through: queue.state.delivered_through(),
            })
        }));
    }

    /// Whether everything in the log is durable.
    pub fn is_log_settled(&self) -> bool {
        self.log.as_ref().is_none_or(Log::is_settled)
    }

    /// The queue is gone for good: whatever it held is let go. Its records need no settling, for
    /// nobody knows its number any more.
    pub(crate) fn drop_messages(&mut self, id: QueueId) {
        let Some(place) = self.queues.get_mut(id.slot as usize) else {
            return;
        };
        let Some(mut queue) = place.take_if(|queue| queue.meta.id == id) else {
            return;
        };
        if let Some(log_id) = queue.log_id {
            self.by_log_id.remove(&log_id);
        }
        for rests in queue.state.drain() {
            let place = match rests {
                Where::Store(message) => self.store.release(message),
                Where::Log(place) => {
                    self.store.forgotten();
                    Some(place)
                }
            };
            if let Some(place) = place {
                self.release_logged(place);
            }
        }
    }
}

/// The places that several queues name, for what the store will know them by.
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

/// Takes in a message that was read back for one queue more.
fn rests_at(
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

/// Messages that a queue, known to the log or not, no longer holds.
pub(crate) struct Leave<'a> {
    queue: Option<LogId>,
    release: Release<'a>,
    log: Option<&'a mut Log>,
    now: Instant,
}

impl<'a> Leave<'a> {
    #[inline]
    pub(crate) fn of(
        queue: Option<LogId>,
        store: &'a mut Store,
        log: &'a mut Option<Log>,
        now: Instant,
    ) -> Self {
        Self { queue, release: store.releases(), log: log.as_mut(), now }
    }

    /// Lets the message of this sequence go.
    #[inline(always)]
    pub(crate) fn one(&mut self, sequence: u64, message: MessageId) {
        if let Some(log_id) = self.queue
            && let Some(place) = self.release.log_entry(message)
            && let Some(log) = &mut self.log
        {
            log.settle(QueueRef { log_id, sequence }, place, self.now);
        }
        if let Some(place) = self.release.release(message)
            && let Some(log) = &mut self.log
        {
            log.release(place);
        }
    }

    /// Lets the message of this sequence go, wherever it rests.
    pub(crate) fn any(&mut self, sequence: u64, rests: Where) {
        let place = match rests {
            Where::Store(message) => return self.one(sequence, message),
            Where::Log(place) => place,
        };
        self.release.forgotten();
        let Some(log) = &mut self.log else { return };
        if let Some(log_id) = self.queue {
            log.settle(QueueRef { log_id, sequence }, place, self.now);
        }
        log.release(place);
    }
}

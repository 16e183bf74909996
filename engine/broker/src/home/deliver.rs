//! Messages leave the queues of this shard: who takes the next ones, and how long they took. What
//! leaves as it comes in is in `publish.rs`, what has waited is given out here.

use std::{mem, slice};

use crate::delivery::writers::{Room, Way};
use crate::home::durability::Leave;
use crate::id::{Instant, QueueId, ShardId};
use crate::mesh::delivery::Delivery;
use crate::message::{Message, Messages};
use crate::queue::consumers::{Next, Taker};
use crate::queue::state::Change;
use crate::queue::{Queue, Waits};
use crate::shard::core::{Core, Exits, ShardLatency};
use crate::storage::store::{MessageId, Reader};

use super::open_queue;

impl Core {
    /// Gives ready messages to consumers that can take them.
    pub fn pump(&mut self, id: QueueId) {
        loop {
            self.serve_getters(id);
            self.give_out(id);
            self.backlog_shrank(id);
            if !self.page_in(id) {
                return;
            }
        }
    }

    /// Run by run: who takes it and what its messages have in common is looked up once.
    fn give_out(&mut self, id: QueueId) {
        let Some(queue) = open_queue(&mut self.queues, id) else {
            return;
        };
        // Nobody is asked to take a message that has to be read first.
        while queue.state.front().is_some_and(|front| self.store.is_at_hand(front.rests)) {
            let Some((taker, way)) = next_taker(queue, &mut self.exits) else {
                return;
            };
            let Some(run) = queue.state.front_run() else {
                return;
            };
            let holder = (!taker.no_ack).then_some(taker.holder);
            let number = holder.map(|holder| queue.state.next_delivery(holder));
            let first = delivery_of(queue, self.id, &taker, number, run.redelivered);
            let most = run.messages.len().min(queue.consumers.in_a_row(&taker));
            let next = Resting { ids: run.messages[..most].iter(), reader: self.store.reader() };
            let times = (run.ready_at, self.now);
            let mut leaving = Leaving::of(next, times, &mut queue.waits, &mut self.latency);
            let count = self.exits.deliver_many(way, first, &mut leaving);
            leaving.tell();
            self.counts.redelivered += if run.redelivered { count } else { 0 };
            queue.counts.redelivered += if run.redelivered { count } else { 0 };
            self.counts.count_deliveries(taker.no_ack, count);
            queue.counts.delivered += count;
            queue.consumers.took_many(&taker, count as u32);
            let taken = &run.messages[..count as usize];
            if taker.no_ack {
                let mut leave = Leave::of(queue.log_id, &mut self.store, &mut self.log, self.now);
                taken
                    .iter()
                    .zip(run.position..)
                    .for_each(|(id, position)| leave.one(position, *id));
            } else {
                Self::given_out(&mut self.store, self.log.as_ref(), taken);
            }
            queue.state.apply(Change::CheckOut(holder, count as usize));
        }
    }
}

/// Messages that leave a queue one after the other. Those that waited equally long, as those do
/// that came in one turn, have their latencies counted together.
pub(super) struct Leaving<'a, M> {
    messages: M,
    published_at: Instant,
    ready_at: Instant,
    now: Instant,
    /// Of those that were published at that time.
    count: u64,
    of_queue: &'a mut Waits,
    of_shard: &'a mut ShardLatency,
}

/// Messages at rest, as far as they are resident.
struct Resting<'a> {
    ids: slice::Iter<'a, MessageId>,
    reader: Reader<'a>,
}

impl Messages for Resting<'_> {
    #[inline(always)]
    fn lend(&mut self, mut take: impl FnMut(&Message<'_>) -> bool) {
        while let Some(message) = self.ids.next().and_then(|id| self.reader.read(*id)) {
            if !take(message) {
                return;
            }
        }
    }
}

impl<M: Messages> Messages for Leaving<'_, M> {
    #[inline(always)]
    fn lend(&mut self, mut take: impl FnMut(&Message<'_>) -> bool) {
        self.messages.lend(|message| {
            if message.published_at != self.published_at {
                let before = mem::replace(&mut self.published_at, message.published_at);
                let count = mem::take(&mut self.count);
                tell_waits(self.of_queue, self.of_shard, [before, self.ready_at, self.now], count);
            }
            self.count += 1;
            take(message)
        });
    }
}

impl<'a, M> Leaving<'a, M> {
    /// `times`: when they became ready, and now.
    #[inline(always)]
    pub(super) fn of(
        messages: M,
        (ready_at, now): (Instant, Instant),
        of_queue: &'a mut Waits,
        of_shard: &'a mut ShardLatency,
    ) -> Self {
        let published_at = Instant(0);
        Self { messages, published_at, ready_at, now, count: 0, of_queue, of_shard }
    }

    /// Tells how long the last ones took.
    pub(super) fn tell(self) {
        let times = [self.published_at, self.ready_at, self.now];
        tell_waits(self.of_queue, self.of_shard, times, self.count);
    }
}

#[inline(never)]
fn tell_waits(
    of_queue: &mut Waits,
    of_shard: &mut ShardLatency,
    [published_at, ready_at, now]: [Instant; 3],
    count: u64,
) {
    if count > 0 {
        of_queue.record_many(published_at, ready_at, now, count);
        of_shard.record_many(published_at, ready_at, now, count);
    }
}

/// The next consumer in turn that has room on its way out, and that way.
#[inline(always)]
pub(super) fn next_taker(queue: &mut Queue, exits: &mut Exits) -> Option<(Taker, Way)> {
    loop {
        let (taker, granted) = match queue.consumers.next() {
            Next::Take(taker) => (taker, true),
            Next::AskGrant(taker) => (taker, false),
            Next::Nobody => return None,
        };
        match exits.room(&queue.consumers.key(taker.holder)) {
            Room::Yes(way) if granted => return Some((taker, way)),
            room => pass_on(queue, exits, taker, room),
        }
    }
}

/// The consumer in front cannot take a message now.
#[inline(never)]
fn pass_on(queue: &mut Queue, exits: &mut Exits, taker: Taker, room: Room) {
    let key = queue.consumers.key(taker.holder);
    match room {
        Room::Yes(_) if exits.grant(queue.id, &key) => queue.consumers.granted(&taker),
        Room::Yes(_) => queue.consumers.wait_for_grant(&taker),
        Room::Full => {
            queue.consumers.stop_here(taker.holder);
            exits.pass_over(queue.id, key);
        }
        // Its leave is under way.
        Room::Gone => queue.consumers.stop_here(taker.holder),
    }
}

#[inline(always)]
pub(super) fn delivery_of(
    queue: &Queue,
    home: ShardId,
    taker: &Taker,
    number: Option<u64>,
    redelivered: bool,
) -> Delivery {
    let (consumer, holder) = (queue.consumers.key(taker.holder), taker.holder);
    Delivery {
        consumer,
        queue: queue.id,
        home,
        holder,
        number,
        redelivered,
        granted: taker.granted,
    }
}

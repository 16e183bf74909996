//! Messages that have waited are given out: who takes the next ones, and how long they took.
//! Messages that leave as they come in are in `publish.rs`.

use std::{mem, slice};

use crate::delivery::outputs::Outputs;
use crate::delivery::writers::{Capacity, Sink};
use crate::id::{Instant, ShardId};
use crate::mesh::delivery::Delivery;
use crate::message::{Message, Messages};
use crate::queue::consumers::{Next, Taker};
use crate::queue::{Queue, Waits};
use crate::storage::store::{MessageId, Reader};

use super::OpenQueue;
use super::latency::ShardLatency;
use super::leaving::Reason;

impl OpenQueue<'_> {
    /// Gives ready messages to consumers that can take them.
    pub(super) fn pump(&mut self) {
        loop {
            self.serve_getters();
            self.give_out();
            self.backlog_shrank();
            if !self.page_in() {
                return;
            }
        }
    }

    /// Run by run: the consumer, and what its messages have in common, is looked up once.
    fn give_out(&mut self) {
        let Self { queue, home, turn, out } = self;
        // No consumer is asked to take a message that has to be read first.
        while queue.kind.front().is_some_and(|front| home.store.is_at_hand(front.rests)) {
            let Some((taker, sink)) = next_taker(queue, out) else {
                return;
            };
            let Some(run) = queue.kind.front_run() else {
                return;
            };
            let holder = (!taker.no_ack).then_some(taker.holder);
            let number = holder.map(|holder| queue.kind.next_delivery(holder));
            let first = delivery_of(queue, turn.shard, &taker, number, run.redelivered);
            let most = run.messages.len().min(queue.consumers.in_a_row(&taker));
            let next = AtRest { ids: run.messages[..most].iter(), reader: home.store.reader() };
            let waited_ns = turn.wall.since(run.ready_at);
            let mut timed =
                Timed::of(next, waited_ns, turn.now, &mut queue.waits, &mut home.latency);
            let count = out.deliver_many(sink, first, &mut timed);
            timed.record();
            home.counts.redelivered += if run.redelivered { count } else { 0 };
            queue.counts.redelivered += if run.redelivered { count } else { 0 };
            home.counts.count_deliveries(taker.no_ack, count);
            queue.counts.delivered += count;
            queue.consumers.took_many(&taker, count as u32);
            if taker.no_ack {
                let mut departures = home.departures(queue.log_id, Reason::Acknowledged, turn.now);
                queue.kind.check_out(None, count, |message| departures.leave_placed(message));
            } else {
                home.given_out(&run.messages[..count as usize]);
                queue.kind.check_out(holder, count, |_| {});
            }
        }
    }
}

/// Messages of a queue whose latencies are recorded as they are lent. Messages of one turn waited
/// equally long and are recorded together.
pub(super) struct Timed<'a, M> {
    messages: M,
    published_at: Instant,
    waited_ns: u64,
    now: Instant,
    /// Messages lent that were published at that time.
    count: u64,
    of_queue: &'a mut Waits,
    of_shard: &'a mut ShardLatency,
}

/// Messages in the store, up to the first that is not in memory.
struct AtRest<'a> {
    ids: slice::Iter<'a, MessageId>,
    reader: Reader<'a>,
}

impl Messages for AtRest<'_> {
    #[inline(always)]
    fn lend(&mut self, mut take: impl FnMut(&Message<'_>) -> bool) {
        while let Some(message) = self.ids.next().and_then(|id| self.reader.read(*id)) {
            if !take(message) {
                return;
            }
        }
    }
}

impl<M: Messages> Messages for Timed<'_, M> {
    #[inline(always)]
    fn lend(&mut self, mut take: impl FnMut(&Message<'_>) -> bool) {
        self.messages.lend(|message| {
            if message.published_at != self.published_at {
                let before = mem::replace(&mut self.published_at, message.published_at);
                let count = mem::take(&mut self.count);
                record_waits(self.of_queue, self.of_shard, before, self.waited_ns, self.now, count);
            }
            self.count += 1;
            take(message)
        });
    }
}

impl<'a, M> Timed<'a, M> {
    /// They waited in the queue for `waited_ns`.
    #[inline(always)]
    pub(super) fn of(
        messages: M,
        waited_ns: u64,
        now: Instant,
        of_queue: &'a mut Waits,
        of_shard: &'a mut ShardLatency,
    ) -> Self {
        let published_at = Instant(0);
        Self { messages, published_at, waited_ns, now, count: 0, of_queue, of_shard }
    }

    /// Records how long the last ones took.
    pub(super) fn record(self) {
        let Self { of_queue, of_shard, published_at, waited_ns, now, count, .. } = self;
        record_waits(of_queue, of_shard, published_at, waited_ns, now, count);
    }
}

#[inline(never)]
fn record_waits(
    of_queue: &mut Waits,
    of_shard: &mut ShardLatency,
    published_at: Instant,
    waited_ns: u64,
    now: Instant,
    count: u64,
) {
    if count > 0 {
        of_queue.record_many(published_at, waited_ns, now, count);
        of_shard.record_many(published_at, waited_ns, now, count);
    }
}

/// The next consumer in turn that has room, and where.
#[inline(always)]
pub(super) fn next_taker(queue: &mut Queue, out: &mut Outputs) -> Option<(Taker, Sink)> {
    loop {
        let (taker, granted) = match queue.consumers.next() {
            Next::Take(taker) => (taker, true),
            Next::AskGrant(taker) => (taker, false),
            Next::Nobody => return None,
        };
        match out.capacity(&queue.consumers.key(taker.holder)) {
            Capacity::Room(sink) if granted => return Some((taker, sink)),
            capacity => pass_on(queue, out, taker, capacity),
        }
    }
}

/// The consumer in front cannot take a message now.
#[inline(never)]
fn pass_on(queue: &mut Queue, out: &mut Outputs, taker: Taker, capacity: Capacity) {
    let key = queue.consumers.key(taker.holder);
    match capacity {
        Capacity::Room(_) if out.ask_grant(queue.id, &key) => queue.consumers.granted(&taker),
        Capacity::Room(_) => queue.consumers.wait_for_grant(&taker),
        Capacity::Full => {
            queue.consumers.stop_here(taker.holder);
            out.pass_over(queue.id, key);
        }
        // The end of its channel is under way.
        Capacity::Gone => queue.consumers.stop_here(taker.holder),
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

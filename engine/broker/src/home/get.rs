//! `basic.get`.

use crate::id::ChannelKey;
use crate::mesh::mail::{Got, Lane, Mail, QueueAnswer};
use crate::queue::ready::Entry;
use crate::storage::store::Where;

use super::OpenQueue;
use super::leaving::Reason;

impl OpenQueue<'_> {
    /// Answers a `basic.get`, at once or when the front message has been read from the disk.
    pub(super) fn get(&mut self, channel: ChannelKey, no_ack: bool) {
        if self.has_to_wait(channel, no_ack) {
            return;
        }
        let front = self.queue.kind.front();
        let Some(Entry { rests: Where::Store(message), redelivered, position, ready_at }) = front
        else {
            debug_assert!(front.is_none(), "the front message is at hand");
            self.home.counts.got_empty += 1;
            return self.answer(channel, QueueAnswer::Empty);
        };
        let holder = (!no_ack).then(|| self.queue.consumers.got(channel));
        if !no_ack {
            self.home.channel_queues.entry(channel).or_default().insert(self.queue.id);
        }
        let delivery = self.queue.kind.check_out(holder, 1, |_| {});
        self.queue.counts.delivered += 1;
        self.queue.counts.redelivered += u64::from(redelivered);
        self.home.counts.redelivered += u64::from(redelivered);
        let message_at_rest = self.home.store.message(message);
        let (published_at, now) = (message_at_rest.published_at, self.turn.now);
        let waited_ns = self.turn.wall.since(ready_at);
        self.queue.waits.record_many(published_at, waited_ns, now, 1);
        self.home.latency.record_many(published_at, waited_ns, now, 1);
        let got = Got {
            queue: self.queue.id,
            home: self.turn.shard,
            holder: holder.unwrap_or_default(),
            delivery,
            redelivered,
            remaining: self.queue.kind.ready_count() as u32,
        };
        let batch = self.out.mesh.open(channel.owner.shard, Lane::Reply);
        let parcel = batch.pack(&message_at_rest);
        batch.push(Mail::Got { channel, got, parcel });
        self.out.body_bytes.copied.mail += message_at_rest.body.copied_bytes();
        if no_ack {
            let log_id = self.queue.log_id;
            let mut departures = self.home.departures(log_id, Reason::Acknowledged, self.turn.now);
            departures.leave(position, message);
        } else {
            self.home.given_out(&[message]);
        }
    }
}

//! `basic.ack`, `nack`, `reject` and `recover`.

use std::collections::BTreeSet;

use leveret_amqp::method::{BasicAck, BasicNack, BasicRecoverOk, BasicReject};

use crate::client::backend::Backend;
use crate::delivery::unacked::{Run, Source};
use crate::error::Exception;
use crate::id::ChannelKey;
use crate::mesh::mail::Lane;
use crate::queue::terms::Settlement;

use super::call::{Call, Flow, Outcome};

impl Call<'_> {
    #[inline]
    pub(crate) fn ack(&mut self, ack: BasicAck) -> Outcome {
        self.settle(ack.delivery_tag, ack.multiple, Settlement::Ack)
    }

    pub(super) fn nack(&mut self, nack: &BasicNack) -> Outcome {
        let settlement = if nack.requeue { Settlement::Requeue } else { Settlement::Reject };
        self.settle(nack.delivery_tag, nack.multiple, settlement)
    }

    pub(super) fn reject(&mut self, reject: &BasicReject) -> Outcome {
        let settlement = if reject.requeue { Settlement::Requeue } else { Settlement::Reject };
        self.settle(reject.delivery_tag, false, settlement)
    }

    #[inline]
    fn settle(&mut self, tag: u64, multiple: bool, settlement: Settlement) -> Outcome {
        if self.channel.transaction.is_some() {
            self.settle_in_transaction(tag, multiple, settlement)?;
        } else {
            self.backend.settle_tags(self.channel.key, tag, multiple, settlement)?;
        }
        Ok(Flow::Done)
    }

    pub(super) fn recover(&mut self, requeue: bool, answered: bool) -> Outcome {
        if !requeue {
            return Err(Exception::not_implemented("requeue=false"));
        }
        // Tag 0 names no delivery: without any unacked, this settles none and is no error.
        self.backend.settle_tags(self.channel.key, 0, true, Settlement::Requeue)?;
        if answered {
            self.write(&BasicRecoverOk {});
        }
        Ok(Flow::Done)
    }
}

impl Backend {
    /// Settles one delivery, or all up to a tag; tag 0 with `multiple` means all unacked ones.
    ///
    /// # Errors
    /// 406 unless the tag itself is unacked, also for `multiple`, as in RabbitMQ.
    #[inline]
    pub fn settle_tags(
        &mut self,
        channel: ChannelKey,
        tag: u64,
        multiple: bool,
        settlement: Settlement,
    ) -> Result<(), Exception> {
        let Some((writer, index)) = self.outputs.writers.channel(channel) else {
            return Ok(());
        };
        let outbound = writer.channel_at(index);
        let limited = outbound.limit.prefetch > 0;
        if multiple {
            let all = tag == 0;
            if !all && !outbound.unacked.contains(tag) {
                return Err(unknown(tag));
            }
            // Not `u64::MAX`: settling may bring redeliveries at once, under higher tags that the
            // client did not mean.
            let through = if all { outbound.last_delivery_tag() } else { tag };
            self.settle_through(channel, through, settlement);
        } else {
            let run = outbound.settle(tag).ok_or_else(|| unknown(tag))?;
            self.settle_run(&run, settlement, true);
        }
        if limited {
            self.grant(channel);
        }
        Ok(())
    }

    fn settle_through(&mut self, channel: ChannelKey, tag: u64, settlement: Settlement) {
        if settlement == Settlement::Requeue {
            return self.requeue_through(channel, tag);
        }
        while let Some((writer, index)) = self.outputs.writers.channel(channel)
            && let Some(run) = writer.channel_at(index).settle_through(tag)
        {
            self.settle_run(&run, settlement, true);
        }
    }

    /// Requeues all deliveries up to a tag. A queue serves its consumers only after its last run is
    /// back: a message delivered before that could overtake older ones.
    fn requeue_through(&mut self, channel: ChannelKey, tag: u64) {
        let Some((writer, index)) = self.outputs.writers.channel(channel) else { return };
        let outbound = writer.channel_at(index);
        let mut returned = Vec::new();
        while let Some(run) = outbound.settle_through(tag) {
            returned.push((run, false));
        }
        // Backwards, the first run of a queue is its last one.
        let mut seen = BTreeSet::new();
        for (run, last_of_queue) in returned.iter_mut().rev() {
            *last_of_queue = seen.insert(run.source.queue);
        }
        for (run, last_of_queue) in returned {
            self.settle_run(&run, Settlement::Requeue, last_of_queue);
        }
    }

    /// Sends the settlement of deliveries to the home of their queue. The channel no longer has
    /// them.
    pub(super) fn settle_run(&mut self, run: &Run, settlement: Settlement, serve: bool) {
        let Source { queue, home, .. } = run.source;
        if settlement == Settlement::Ack {
            self.counts.acknowledged += run.count();
        }
        let deliveries = run.deliveries();
        if home == self.turn.shard {
            self.home.settle(&self.turn, &mut self.outputs, queue, deliveries, settlement, serve);
        } else {
            let batch = self.outputs.mesh.open(home, Lane::Work);
            batch.settle(queue, deliveries, settlement, serve);
        }
    }
}

#[cold]
pub(super) fn unknown(tag: u64) -> Exception {
    Exception::precondition_failed(format!("unknown delivery tag {tag}"))
}

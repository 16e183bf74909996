//! Acknowledging, rejecting and asking again.

use std::collections::BTreeSet;

use leveret_amqp::method::{BasicAck, BasicNack, BasicRecoverOk, BasicReject};

use crate::core::Core;
use crate::error::Exception;
use crate::id::ChannelKey;
use crate::mail::{Mail, Settlement};
use crate::outbound::Unacked;

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
            self.core.settle_tags(self.channel.key, tag, multiple, settlement)?;
        }
        Ok(Flow::Done)
    }

    pub(super) fn recover(&mut self, requeue: bool, answered: bool) -> Outcome {
        if !requeue {
            return Err(Exception::not_implemented("requeue=false"));
        }
        // Nothing unacked is fine here, so the error of an unknown tag cannot come up.
        self.core.settle_tags(self.channel.key, 0, true, Settlement::Requeue)?;
        if answered {
            self.write(&BasicRecoverOk {});
        }
        Ok(Flow::Done)
    }
}

impl Core {
    /// Settles one delivery, or all up to a tag; tag 0 with `multiple` means all there are.
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
        let all = multiple && tag == 0;
        let Some((writer, index)) = self.exits.writers.channel(channel) else {
            return Ok(());
        };
        let outbound = writer.channel_at(index);
        // A settled message may come back at once under a higher tag: that one is not meant.
        let through = if all { outbound.last_delivery_tag() } else { tag };
        if !multiple {
            let Some(unacked) = outbound.unacked.remove(tag) else {
                return Err(unknown(tag));
            };
            self.settle_one(channel, unacked, settlement, true);
            return Ok(());
        }
        if !all && outbound.unacked.find(tag).is_none() {
            return Err(unknown(tag));
        }
        if settlement == Settlement::Requeue {
            self.requeue_through(channel, through);
            return Ok(());
        }
        while let Some((writer, index)) = self.exits.writers.channel(channel)
            && let Some((_, unacked)) = writer.channel_at(index).unacked.pop_through(through)
        {
            self.settle_one(channel, unacked, settlement, true);
        }
        Ok(())
    }

    /// Settles one delivery that is known to be unacked.
    pub fn settle_tag(&mut self, channel: ChannelKey, tag: u64, settlement: Settlement) {
        if let Some((writer, index)) = self.exits.writers.channel(channel)
            && let Some(unacked) = writer.channel_at(index).unacked.remove(tag)
        {
            self.settle_one(channel, unacked, settlement, true);
        }
    }

    /// Returns all deliveries up to a tag, each queue's together.
    fn requeue_through(&mut self, channel: ChannelKey, through: u64) {
        let Some((writer, index)) = self.exits.writers.channel(channel) else { return };
        let held = &mut writer.channel_at(index).unacked;
        let mut returned = Vec::new();
        while let Some((_, unacked)) = held.pop_through(through) {
            returned.push((unacked, false));
        }
        let mut seen = BTreeSet::new();
        for (unacked, last_of_queue) in returned.iter_mut().rev() {
            *last_of_queue = seen.insert(unacked.queue);
        }
        for (unacked, last_of_queue) in returned {
            self.settle_one(channel, unacked, Settlement::Requeue, last_of_queue);
        }
    }

    #[inline]
    fn settle_one(
        &mut self,
        channel: ChannelKey,
        unacked: Unacked,
        settlement: Settlement,
        serve: bool,
    ) {
        let Unacked { queue, home, delivery, counted, .. } = unacked;
        if settlement == Settlement::Ack {
            self.counts.acknowledged += 1;
        }
        if counted && let Some((writer, index)) = self.exits.writers.channel(channel) {
            let limit = &mut writer.channel_at(index).limit;
            limit.unsettled -= 1;
            if limit.prefetch > 0 {
                self.grant(channel);
            }
        }
        if home == self.id {
            self.settle(queue, delivery, settlement, serve);
        } else {
            self.work(home, Mail::Settle { queue, delivery, settlement, serve });
        }
    }
}

#[cold]
fn unknown(tag: u64) -> Exception {
    Exception::precondition_failed(format!("unknown delivery tag {tag}"))
}

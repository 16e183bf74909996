//! Consumers of a channel, and `basic.get`.

use leveret_amqp::TableRef;
use leveret_amqp::encoder::GetOk;
use leveret_amqp::method::{BasicCancel, BasicCancelOk, BasicConsume, BasicGet};

use crate::catalog::name::Name;
use crate::catalog::permission::{Access, ResourceKind};
use crate::client::backend::Backend;
use crate::delivery::unacked::Source;
use crate::error::Exception;
use crate::id::ChannelKey;
use crate::mesh::mail::{Got, QueueRequest};
use crate::message::Message;
use crate::queue::terms::Subscription;

use super::answer::Awaited;
use super::call::{Call, Flow, Outcome};

impl Call<'_> {
    pub(super) fn consume(&mut self, consume: &BasicConsume<'_>) -> Outcome {
        let name = self.exact_queue_name(consume.queue)?;
        self.permit(Access::Read, ResourceKind::Queue, &name)?;
        let tag = match consume.consumer_tag {
            "" => self.session.next_consumer_tag(),
            tag => tag.to_owned(),
        };
        let taken =
            self.outbound().is_some_and(|outbound| outbound.consumer_by_tag(&tag).is_some());
        if taken {
            return Err(Exception::not_allowed(format!("attempt to reuse consumer tag '{tag}'")));
        }
        let queue = self.queue(&name)?;
        let priority = self.consumer_priority(&name, consume.arguments)?;
        let (id, home, no_ack) = (queue.id, queue.home, consume.no_ack);
        let prefetch = self.channel.prefetch;
        let Some(outbound) = self.outbound() else {
            return Ok(Flow::Done);
        };
        outbound.know_home(home);
        let limited = outbound.limit.prefetch > 0;
        let Some(consumer) = outbound.add_consumer(&tag, id, home, no_ack) else {
            return Err(Exception::not_allowed("too many consumers on one channel"));
        };
        let exclusive = consume.exclusive;
        let subscription =
            Subscription { consumer, prefetch, no_ack, exclusive, priority, limited };
        let then = Awaited::Consume(consumer.number, name, consume.nowait);
        self.ask(id, home, QueueRequest::Consume(subscription), then)
    }

    pub(super) fn cancel(&mut self, cancel: &BasicCancel<'_>) -> Outcome {
        let found = self.outbound().and_then(|outbound| {
            let consumer = outbound.consumer_by_tag(cancel.consumer_tag)?;
            Some((consumer.key, consumer.queue, consumer.home))
        });
        let Some((consumer, queue, home)) = found else {
            if !cancel.nowait {
                self.write(&BasicCancelOk { consumer_tag: cancel.consumer_tag });
            }
            return Ok(Flow::Done);
        };
        let tag = cancel.consumer_tag.into();
        let then = Awaited::Cancel(consumer.number, tag, cancel.nowait);
        self.ask(queue, home, QueueRequest::Cancel(consumer), then)
    }

    pub(super) fn get(&mut self, get: &BasicGet<'_>) -> Outcome {
        let name = self.exact_queue_name(get.queue)?;
        self.permit(Access::Read, ResourceKind::Queue, &name)?;
        let queue = self.queue(&name)?;
        if let Some(outbound) = self.outbound() {
            outbound.know_home(queue.home);
        }
        let request = QueueRequest::Get(self.channel.key, get.no_ack);
        self.ask(queue.id, queue.home, request, Awaited::Get(name))
    }

    /// `x-priority`; our queues ignore other arguments.
    fn consumer_priority(&self, queue: &Name, arguments: TableRef<'_>) -> Result<i32, Exception> {
        let Some(value) = arguments.get("x-priority") else { return Ok(0) };
        let Some(priority) = value.as_integer() else {
            return Err(Exception::precondition_failed(format!(
                "invalid arg 'x-priority' for queue '{queue}' in vhost '{}': \"expected integer, \
                 got {}\"",
                self.session.opened.vhost_name,
                value.rabbit_type_name(),
            )));
        };
        Ok(priority.clamp(i32::MIN.into(), i32::MAX.into()) as i32)
    }
}

impl Backend {
    /// Writes `basic.get-ok`. If the channel is gone, its message returns to the queue when the
    /// home gets the channel's end.
    pub fn write_got(&mut self, channel: ChannelKey, got: &Got, message: &Message<'_>) {
        let Some((writer, index)) = self.outputs.writers.channel(channel) else {
            return;
        };
        let outbound = writer.channel_at(index);
        let delivery_tag = outbound.next_delivery_tag();
        let Got { queue, home, holder, redelivered, .. } = *got;
        if let Some(number) = got.delivery {
            let source = Source { queue, home, holder, counted: false };
            outbound.unacked.push(delivery_tag, source, number);
            self.counts.got_manual_ack += 1;
        } else {
            self.counts.got_auto_ack += 1;
        }
        let method = GetOk {
            channel: channel.channel,
            delivery_tag,
            redelivered,
            exchange: message.exchange,
            routing_key: message.routing_key,
            message_count: got.remaining,
        };
        writer.write_content(method, message);
    }
}

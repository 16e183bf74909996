//! Class basic (60): messages.
//!
//! Publish, deliver, return and get-ok are followed by a content header frame. The exchange and
//! the routing key of a publish are octets: looking them up needs no UTF-8, and `RabbitMQ` takes
//! any routing key.

use super::methods;
use crate::table::TableRef;

methods! {
    /// Limits unacknowledged deliveries.
    (60, 10) "basic.qos" BasicQos [] {
        /// In octets. `RabbitMQ` refuses anything but 0.
        prefetch_size: u32 = long,
        /// In messages, 0 is no limit.
        prefetch_count: u16 = short,
        /// For the whole channel, not for each consumer started later.
        global: bool = bit,
    } []

    /// Answers [`BasicQos`].
    (60, 11) "basic.qos-ok" BasicQosOk [] {} []

    /// Starts a consumer.
    (60, 20) "basic.consume" BasicConsume<'a> [reserved_short] {
        /// Name; empty is the last one declared on the channel.
        queue: &'a str = shortstr,
        /// Tag; empty asks the server for one.
        consumer_tag: &'a str = shortstr,
        /// Ignored, as in `RabbitMQ`.
        no_local: bool = bit,
        /// Deliveries are not acknowledged.
        no_ack: bool = bit,
        /// The queue may have no other consumer.
        exclusive: bool = bit,
        /// Do not answer.
        nowait: bool = bit,
        /// For example `x-priority`.
        arguments: TableRef<'a> = table,
    } []

    /// Answers [`BasicConsume`].
    (60, 21) "basic.consume-ok" BasicConsumeOk<'a> [] {
        /// Tag, also where the server chose it.
        consumer_tag: &'a str = shortstr,
    } []

    /// Ends a consumer; from the server: its queue is gone.
    (60, 30) "basic.cancel" BasicCancel<'a> [] {
        /// Tag of the consumer.
        consumer_tag: &'a str = shortstr,
        /// Do not answer.
        nowait: bool = bit,
    } []

    /// Answers [`BasicCancel`].
    (60, 31) "basic.cancel-ok" BasicCancelOk<'a> [] {
        /// Tag of the consumer.
        consumer_tag: &'a str = shortstr,
    } []

    /// Sends a message to an exchange.
    (60, 40) "basic.publish" BasicPublish<'a> [reserved_short] {
        /// Name; empty is the default exchange.
        exchange: &'a [u8] = opaque_shortstr,
        /// Routing key.
        routing_key: &'a [u8] = opaque_shortstr,
        /// Return the message if it reaches no queue.
        mandatory: bool = bit,
        /// Return the message if it reaches no consumer. `RabbitMQ` refuses it with 540.
        immediate: bool = bit,
    } []

    /// Gives a mandatory message back to its publisher.
    (60, 50) "basic.return" BasicReturn<'a> [] {
        /// 312 or 313.
        reply_code: u16 = short,
        /// For example `NO_ROUTE`.
        reply_text: &'a str = shortstr,
        /// As it was published.
        exchange: &'a [u8] = opaque_shortstr,
        /// As it was published.
        routing_key: &'a [u8] = opaque_shortstr,
    } []

    /// Gives a message to a consumer.
    (60, 60) "basic.deliver" BasicDeliver<'a> [] {
        /// Tag of the consumer.
        consumer_tag: &'a str = shortstr,
        /// Number of the delivery on its channel, from 1.
        delivery_tag: u64 = longlong,
        /// The message may have been delivered before.
        redelivered: bool = bit,
        /// As it was published.
        exchange: &'a [u8] = opaque_shortstr,
        /// As it was published.
        routing_key: &'a [u8] = opaque_shortstr,
    } []

    /// Asks for one message.
    (60, 70) "basic.get" BasicGet<'a> [reserved_short] {
        /// Name; empty is the last one declared on the channel.
        queue: &'a str = shortstr,
        /// The delivery is not acknowledged.
        no_ack: bool = bit,
    } []

    /// Answers [`BasicGet`] with a message.
    (60, 71) "basic.get-ok" BasicGetOk<'a> [] {
        /// Number of the delivery on its channel, from 1.
        delivery_tag: u64 = longlong,
        /// The message may have been delivered before.
        redelivered: bool = bit,
        /// As it was published.
        exchange: &'a [u8] = opaque_shortstr,
        /// As it was published.
        routing_key: &'a [u8] = opaque_shortstr,
        /// Messages still ready in the queue.
        message_count: u32 = long,
    } []

    /// Answers [`BasicGet`]: the queue has none.
    (60, 72) "basic.get-empty" BasicGetEmpty [reserved_shortstr] {} []

    /// Acknowledges deliveries; from the server: confirms publishes.
    (60, 80) "basic.ack" BasicAck [] {
        /// Number of the delivery or publish.
        delivery_tag: u64 = longlong,
        /// And all before it; with tag 0 all there are.
        multiple: bool = bit,
    } []

    /// Refuses one delivery.
    (60, 90) "basic.reject" BasicReject [] {
        /// Number of the delivery.
        delivery_tag: u64 = longlong,
        /// Put it back in its queue; else it is dropped or dead-lettered.
        requeue: bool = bit,
    } []

    /// As [`BasicRecover`], without an answer.
    (60, 100) "basic.recover-async" BasicRecoverAsync [] {
        /// `RabbitMQ` refuses false with 540.
        requeue: bool = bit,
    } []

    /// Requeues all unacknowledged deliveries of the channel.
    (60, 110) "basic.recover" BasicRecover [] {
        /// `RabbitMQ` refuses false with 540.
        requeue: bool = bit,
    } []

    /// Answers [`BasicRecover`].
    (60, 111) "basic.recover-ok" BasicRecoverOk [] {} []

    /// An extension of `RabbitMQ`: refuses deliveries; from the server: refuses publishes.
    (60, 120) "basic.nack" BasicNack [] {
        /// Number of the delivery or publish.
        delivery_tag: u64 = longlong,
        /// And all before it; with tag 0 all there are.
        multiple: bool = bit,
        /// Put them back in their queues; else they are dropped or dead-lettered.
        requeue: bool = bit,
    } []
}

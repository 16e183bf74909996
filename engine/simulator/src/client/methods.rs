//! Constructors for methods with the arguments that most tests use.

use leveret_amqp::TableRef;
use leveret_amqp::method::{BasicConsume, ExchangeDeclare, QueueBind, QueueDelete};

/// `exchange.declare` with all flags off.
pub const fn declare_exchange<'a>(
    exchange: &'a str,
    kind: &'a str,
    arguments: TableRef<'a>,
) -> ExchangeDeclare<'a> {
    ExchangeDeclare {
        exchange,
        kind,
        passive: false,
        durable: false,
        auto_delete: false,
        internal: false,
        nowait: false,
        arguments,
    }
}

/// `queue.bind` without arguments.
pub const fn bind_queue<'a>(queue: &'a str, exchange: &'a str, key: &'a str) -> QueueBind<'a> {
    QueueBind {
        queue,
        exchange,
        routing_key: key.as_bytes(),
        nowait: false,
        arguments: TableRef::EMPTY,
    }
}

/// `queue.delete` without conditions.
pub const fn delete_queue(queue: &str) -> QueueDelete<'_> {
    QueueDelete { queue, if_unused: false, if_empty: false, nowait: false }
}

/// `basic.consume` with all flags off.
pub const fn consume<'a>(queue: &'a str, consumer_tag: &'a str) -> BasicConsume<'a> {
    BasicConsume {
        queue,
        consumer_tag,
        no_local: false,
        no_ack: false,
        exclusive: false,
        nowait: false,
        arguments: TableRef::EMPTY,
    }
}

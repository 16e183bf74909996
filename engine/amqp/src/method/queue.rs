//! Class queue (50).

use super::methods;
use crate::table::TableRef;

methods! {
    /// Creates a queue, or checks that it exists.
    (50, 10) "queue.declare" QueueDeclare<'a> [reserved_short] {
        /// Name; empty asks the server for one.
        queue: &'a str = shortstr,
        /// Only check that it exists.
        passive: bool = bit,
        /// Survives a restart.
        durable: bool = bit,
        /// Only for this connection, and deleted with it.
        exclusive: bool = bit,
        /// Vanishes with its last consumer.
        auto_delete: bool = bit,
        /// Do not answer.
        nowait: bool = bit,
        /// For example `x-message-ttl`.
        arguments: TableRef<'a> = table,
    } []

    /// Answers [`QueueDeclare`].
    (50, 11) "queue.declare-ok" QueueDeclareOk<'a> [] {
        /// Name, also where the server chose it.
        queue: &'a str = shortstr,
        /// Messages ready for delivery.
        message_count: u32 = long,
        /// Consumers.
        consumer_count: u32 = long,
    } []

    /// Binds a queue to an exchange.
    (50, 20) "queue.bind" QueueBind<'a> [reserved_short] {
        /// Name; empty is the last one declared on the channel.
        queue: &'a str = shortstr,
        /// The exchange that sends.
        exchange: &'a str = shortstr,
        /// Binding key.
        routing_key: &'a [u8] = opaque_shortstr,
        /// Do not answer.
        nowait: bool = bit,
        /// Arguments of the binding.
        arguments: TableRef<'a> = table,
    } []

    /// Answers [`QueueBind`].
    (50, 21) "queue.bind-ok" QueueBindOk [] {} []

    /// Drops all ready messages.
    (50, 30) "queue.purge" QueuePurge<'a> [reserved_short] {
        /// Name; empty is the last one declared on the channel.
        queue: &'a str = shortstr,
        /// Do not answer.
        nowait: bool = bit,
    } []

    /// Answers [`QueuePurge`].
    (50, 31) "queue.purge-ok" QueuePurgeOk [] {
        /// Messages dropped.
        message_count: u32 = long,
    } []

    /// Deletes a queue.
    (50, 40) "queue.delete" QueueDelete<'a> [reserved_short] {
        /// Name; empty is the last one declared on the channel.
        queue: &'a str = shortstr,
        /// Only if it has no consumers.
        if_unused: bool = bit,
        /// Only if it has no messages.
        if_empty: bool = bit,
        /// Do not answer.
        nowait: bool = bit,
    } []

    /// Answers [`QueueDelete`].
    (50, 41) "queue.delete-ok" QueueDeleteOk [] {
        /// Messages dropped.
        message_count: u32 = long,
    } []

    /// Removes a binding. Always answered.
    (50, 50) "queue.unbind" QueueUnbind<'a> [reserved_short] {
        /// Name; empty is the last one declared on the channel.
        queue: &'a str = shortstr,
        /// The exchange that sends.
        exchange: &'a str = shortstr,
        /// Binding key.
        routing_key: &'a [u8] = opaque_shortstr,
        /// Arguments of the binding.
        arguments: TableRef<'a> = table,
    } []

    /// Answers [`QueueUnbind`].
    (50, 51) "queue.unbind-ok" QueueUnbindOk [] {} []
}

impl<'a> QueueDeclare<'a> {
    /// A queue with all flags off and without arguments.
    pub const fn named(queue: &'a str) -> Self {
        Self {
            queue,
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            nowait: false,
            arguments: TableRef::EMPTY,
        }
    }
}

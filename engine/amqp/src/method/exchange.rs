//! Class exchange (40).

use super::methods;
use crate::table::TableRef;

methods! {
    /// Creates an exchange, or checks that it exists.
    (40, 10) "exchange.declare" ExchangeDeclare<'a> [reserved_short] {
        /// Name.
        exchange: &'a str = shortstr,
        /// `direct`, `fanout`, `topic`, `headers` or that of an extension.
        kind: &'a str = shortstr,
        /// Only check that it exists.
        passive: bool = bit,
        /// Survives a restart.
        durable: bool = bit,
        /// Vanishes with its last binding.
        auto_delete: bool = bit,
        /// Takes messages from other exchanges only.
        internal: bool = bit,
        /// Do not answer.
        nowait: bool = bit,
        /// For example `alternate-exchange`.
        arguments: TableRef<'a> = table,
    } []

    /// Answers [`ExchangeDeclare`].
    (40, 11) "exchange.declare-ok" ExchangeDeclareOk [] {} []

    /// Deletes an exchange.
    (40, 20) "exchange.delete" ExchangeDelete<'a> [reserved_short] {
        /// Name.
        exchange: &'a str = shortstr,
        /// Only if it has no bindings.
        if_unused: bool = bit,
        /// Do not answer.
        nowait: bool = bit,
    } []

    /// Answers [`ExchangeDelete`].
    (40, 21) "exchange.delete-ok" ExchangeDeleteOk [] {} []

    /// An extension of `RabbitMQ`: binds an exchange to an exchange.
    (40, 30) "exchange.bind" ExchangeBind<'a> [reserved_short] {
        /// The exchange that receives.
        destination: &'a str = shortstr,
        /// The exchange that sends.
        source: &'a str = shortstr,
        /// Binding key.
        routing_key: &'a [u8] = opaque_shortstr,
        /// Do not answer.
        nowait: bool = bit,
        /// Arguments of the binding.
        arguments: TableRef<'a> = table,
    } []

    /// Answers [`ExchangeBind`].
    (40, 31) "exchange.bind-ok" ExchangeBindOk [] {} []

    /// An extension of `RabbitMQ`: removes a binding between exchanges.
    (40, 40) "exchange.unbind" ExchangeUnbind<'a> [reserved_short] {
        /// The exchange that receives.
        destination: &'a str = shortstr,
        /// The exchange that sends.
        source: &'a str = shortstr,
        /// Binding key.
        routing_key: &'a [u8] = opaque_shortstr,
        /// Do not answer.
        nowait: bool = bit,
        /// Arguments of the binding.
        arguments: TableRef<'a> = table,
    } []

    /// Answers [`ExchangeUnbind`]. The id is 51, not 41.
    (40, 51) "exchange.unbind-ok" ExchangeUnbindOk [] {} []
}

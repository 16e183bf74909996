//! Class access (30), of AMQP 0-8. Old clients still send it; the ticket has no effect.

use super::methods;

methods! {
    /// Asks for a ticket. `RabbitMQ` answers with ticket 1 and ignores tickets everywhere.
    (30, 10) "access.request" AccessRequest<'a> [] {
        /// Name of the realm.
        realm: &'a str = shortstr,
        /// Asks for exclusive access.
        exclusive: bool = bit,
        /// Asks for passive access.
        passive: bool = bit,
        /// Asks for active access.
        active: bool = bit,
        /// Asks for write access.
        write: bool = bit,
        /// Asks for read access.
        read: bool = bit,
    } []

    /// Grants a ticket.
    (30, 11) "access.request-ok" AccessRequestOk [] {
        /// The ticket.
        ticket: u16 = short,
    } []
}

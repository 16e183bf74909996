//! Class connection (10). All on channel 0.

use super::methods;
use crate::table::TableRef;

methods! {
    /// The server's first word.
    (10, 10) "connection.start" ConnectionStart<'a> [] {
        /// 0
        version_major: u8 = octet,
        /// 9
        version_minor: u8 = octet,
        /// Product, version, capabilities.
        server_properties: TableRef<'a> = table,
        /// SASL mechanisms, separated by spaces.
        mechanisms: &'a [u8] = longstr,
        /// Locales, separated by spaces.
        locales: &'a [u8] = longstr,
    } []

    /// The client's login.
    (10, 11) "connection.start-ok" ConnectionStartOk<'a> [] {
        /// Product, version, capabilities, connection name.
        client_properties: TableRef<'a> = table,
        /// The SASL mechanism the client chose.
        mechanism: &'a str = shortstr,
        /// The first response of the mechanism, see [`crate::sasl`].
        response: &'a [u8] = longstr,
        /// The locale the client chose.
        locale: &'a str = shortstr,
    } []

    /// A further SASL challenge.
    (10, 20) "connection.secure" ConnectionSecure<'a> [] {
        /// Opaque to AMQP.
        challenge: &'a [u8] = longstr,
    } []

    /// A further SASL response.
    (10, 21) "connection.secure-ok" ConnectionSecureOk<'a> [] {
        /// Opaque to AMQP.
        response: &'a [u8] = longstr,
    } []

    /// The limits the server proposes, see [`crate::limits`].
    (10, 30) "connection.tune" ConnectionTune [] {
        /// Highest channel number, 0 is no limit.
        channel_max: u16 = short,
        /// Largest frame in octets, 0 is no limit.
        frame_max: u32 = long,
        /// Heartbeat interval in seconds, 0 is none.
        heartbeat: u16 = short,
    } []

    /// The limits the client settles for.
    (10, 31) "connection.tune-ok" ConnectionTuneOk [] {
        /// Highest channel number, 0 is no limit.
        channel_max: u16 = short,
        /// Largest frame in octets, 0 is no limit.
        frame_max: u32 = long,
        /// Heartbeat interval in seconds, 0 is none.
        heartbeat: u16 = short,
    } []

    /// Enters a virtual host.
    (10, 40) "connection.open" ConnectionOpen<'a> [] {
        /// Name of the virtual host.
        virtual_host: &'a str = shortstr,
    } [reserved_shortstr, reserved_bit]

    /// Answers [`ConnectionOpen`]: the connection is ready.
    (10, 41) "connection.open-ok" ConnectionOpenOk [reserved_shortstr] {} []

    /// Closes the connection, because of an error or not.
    (10, 50) "connection.close" ConnectionClose<'a> [] {
        /// A reply code, see [`crate::ReplyCode`].
        reply_code: u16 = short,
        /// `NAME - explanation`.
        reply_text: &'a str = shortstr,
        /// Class of the method at fault, or 0.
        class_id: u16 = short,
        /// The method at fault, or 0.
        method_id: u16 = short,
    } []

    /// Answers [`ConnectionClose`].
    (10, 51) "connection.close-ok" ConnectionCloseOk [] {} []

    /// An extension of `RabbitMQ`: publishes are not read until [`ConnectionUnblocked`].
    (10, 60) "connection.blocked" ConnectionBlocked<'a> [] {
        /// For example `low on memory`.
        reason: &'a str = shortstr,
    } []

    /// An extension of `RabbitMQ`: publishes are read again.
    (10, 61) "connection.unblocked" ConnectionUnblocked [] {} []

    /// An extension of `RabbitMQ`: new credentials before the old ones expire.
    (10, 70) "connection.update-secret" ConnectionUpdateSecret<'a> [] {
        /// The new password or token.
        new_secret: &'a [u8] = longstr,
        /// Why, for the log.
        reason: &'a str = shortstr,
    } []

    /// Answers [`ConnectionUpdateSecret`].
    (10, 71) "connection.update-secret-ok" ConnectionUpdateSecretOk [] {} []
}

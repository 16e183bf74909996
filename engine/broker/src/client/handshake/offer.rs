//! The protocol header and `connection.start`.

use std::fmt;

use leveret_amqp::method::ConnectionStart;
use leveret_amqp::{TableBuilder, encode_frame};

use crate::settings::Settings;

use super::MECHANISMS;

/// The capabilities in the server properties, in `RabbitMQ`'s order.
///
/// A name stands here only once the broker does what it promises, so `direct_reply_to` is missing;
/// clients take that for false. `connection.blocked` promises the method when an alarm blocks a
/// connection. py-amqp also needs this capability to notice a dead connection before it publishes:
/// without it celery loses results after an outage.
pub const CAPABILITIES: [&str; 8] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
];

/// The protocol of a peer that does not speak AMQP 0-9-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// A browser, a probe or a load balancer.
    Http,
    /// A TLS client on the plain port.
    Tls,
    /// AMQP with these four octets of protocol id, major, minor and revision.
    Version([u8; 4]),
    /// Anything else.
    Unknown([u8; 8]),
}

impl fmt::Display for HeaderFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http => f.write_str("HTTP request received instead of an AMQP header"),
            Self::Tls => f.write_str("TLS client detected on a port without TLS"),
            Self::Version([id, major, minor, revision]) => {
                write!(f, "AMQP version {id} {major} {minor} {revision} is not 0-9-1")
            }
            Self::Unknown(bytes) => write!(f, "no AMQP header: \"{}\"", bytes.escape_ascii()),
        }
    }
}

/// Accepts AMQP 0-9-1 and the header of 0-9, which differs in nothing else that matters here.
///
/// ```text
/// ┌──────────────────┬───────┬───────┬───────┬──────────┐
/// │ 'A' 'M' 'Q' 'P'  │ id: 0 │ major │ minor │ revision │   0-9-1 is 0 0 9 1, 0-9 is 1 1 0 9
/// └──────────────────┴───────┴───────┴───────┴──────────┘
/// ```
///
/// 0-8 (`1 1 8 0` and `1 1 9 1`), which `RabbitMQ` before 4.0 speaks, is refused as in 4.x.
pub(super) fn check(bytes: [u8; 8]) -> Result<(), HeaderFault> {
    match bytes {
        [b'A', b'M', b'Q', b'P', 0, 0, 9, 1] | [b'A', b'M', b'Q', b'P', 1, 1, 0, 9] => Ok(()),
        [b'A', b'M', b'Q', b'P', id, major, minor, revision] => {
            Err(HeaderFault::Version([id, major, minor, revision]))
        }
        // A handshake record of SSL 3 to TLS 1.3, whose first message is ClientHello.
        [0x16, 3, _, _, _, 1, _, _] => Err(HeaderFault::Tls),
        _ if is_http(&bytes) => Err(HeaderFault::Http),
        _ => Err(HeaderFault::Unknown(bytes)),
    }
}

fn is_http(bytes: &[u8]) -> bool {
    const METHODS: [&[u8]; 8] =
        [b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"CONNECT ", b"PATCH "];
    METHODS.iter().any(|method| bytes.starts_with(method))
}

/// Writes `connection.start`. It announces 0-9 for 0-9-1 too: the field has no room for a revision.
pub(super) fn write_start(settings: &Settings, out: &mut Vec<u8>) {
    let capabilities =
        CAPABILITIES.iter().fold(TableBuilder::new(), |table, name| table.bool(name, true));
    let properties = TableBuilder::new().table("capabilities", &capabilities.finish());
    let properties = settings
        .server_properties()
        .iter()
        .fold(properties, |table, (name, text)| table.long_str(name, text))
        .finish();
    let start = ConnectionStart {
        version_major: 0,
        version_minor: 9,
        server_properties: properties.as_ref(),
        mechanisms: MECHANISMS.as_bytes(),
        locales: b"en_US",
    };
    encode_frame(0, &start, out);
}

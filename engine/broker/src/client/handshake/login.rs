//! `connection.start-ok`: the identity of the client.

use core::hint::black_box;
use core::net::IpAddr;

use leveret_amqp::method::ConnectionStartOk;
use leveret_amqp::sasl::{Credentials, parse_amqplain, parse_plain};
use leveret_amqp::{OwnedTable, ReplyCode};

use crate::catalog::name::Name;
use crate::catalog::user::PasswordHash;
use crate::error::Exception;
use crate::routing::topology::Topology;

use super::{Client, ClientCapabilities};

/// The SASL mechanisms offered, separated by spaces as `connection.start` wants them.
pub const MECHANISMS: &str = "PLAIN AMQPLAIN";

/// Largest SASL response in bytes: a name and a token of 2 KiB each. Without a limit, an unknown
/// client could make us hash megabytes.
pub const RESPONSE_SIZE_MAX_BYTES: usize = 4096;

/// Why a login failed.
pub(super) enum Refusal {
    /// The method is malformed.
    Malformed(Exception),
    /// The credentials are wrong.
    Login {
        /// The exception for the client.
        error: Exception,
        /// The reason, for the log only.
        reason: String,
        /// Whether the client understands `connection.close` at this point.
        may_be_told: bool,
    },
}

/// Checks mechanism, credentials, and that a local-only user connects from this host.
pub(super) fn log_in(
    address: IpAddr,
    start_ok: &ConnectionStartOk<'_>,
    topology: &Topology,
) -> Result<Client, Refusal> {
    let (mechanism, credentials) =
        parse(start_ok).map_err(|error| Refusal::Malformed(error.of(ConnectionStartOk::IDS)))?;
    let user = authenticate(credentials, address, topology).map_err(|reason| {
        let capabilities = ClientCapabilities::of(start_ok.client_properties);
        Refusal::Login {
            // RabbitMQ names no method here.
            error: Exception::access_refused(format!(
                "Login was refused using authentication mechanism {mechanism}. \
                 For details see the broker logfile."
            )),
            reason: format!("{mechanism} login refused: {reason}"),
            may_be_told: capabilities.authentication_failure_close,
        }
    })?;
    Ok(Client { user, mechanism, properties: OwnedTable::from(start_ok.client_properties) })
}

fn parse<'a>(
    start_ok: &ConnectionStartOk<'a>,
) -> Result<(&'static str, Credentials<'a>), Exception> {
    let response = start_ok.response;
    if response.len() > RESPONSE_SIZE_MAX_BYTES {
        let text = format!("response of {} bytes is too large", response.len());
        return Err(Exception::new(ReplyCode::SyntaxError, text));
    }
    let (mechanism, credentials) = match start_ok.mechanism {
        "PLAIN" => ("PLAIN", parse_plain(response)),
        "AMQPLAIN" => ("AMQPLAIN", parse_amqplain(response)),
        unknown => {
            let text = format!("unknown authentication mechanism '{unknown}'");
            return Err(Exception::new(ReplyCode::CommandInvalid, text));
        }
    };
    // RabbitMQ's text would contain the response, and so the password.
    let credentials =
        credentials.map_err(|error| Exception::new(ReplyCode::SyntaxError, error.to_string()))?;
    Ok((mechanism, credentials))
}

/// The name of the user, or why not for the log.
fn authenticate(
    credentials: Credentials<'_>,
    address: IpAddr,
    topology: &Topology,
) -> Result<Name, String> {
    let Credentials { username, password } = credentials;
    let shown = String::from_utf8_lossy(username);
    let user = str::from_utf8(username).ok().and_then(|name| topology.user(name));
    let Some(user) = user.filter(|user| user.authenticate(password)) else {
        if user.is_none() {
            // As much work as for a known user, so that the time taken does not reveal user names.
            black_box(PasswordHash::new([0; 4], password));
        }
        return Err(format!("user '{shown}' - invalid credentials"));
    };
    if user.loopback_only && !is_loopback(address) {
        return Err(format!("user '{shown}' can only connect via localhost"));
    }
    Ok(user.name.clone())
}

/// 127.0.0.0/8 and `::1`; an IPv4-mapped IPv6 address counts as its IPv4 address
/// (`rabbit_net:is_loopback`).
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_what_rabbitmq_takes_for_it() {
        let cases = [
            ("127.0.0.1", true),
            ("127.255.255.254", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("::ffff:7f01:203", true),
            ("128.0.0.1", false),
            ("10.0.0.1", false),
            ("0.0.0.0", false),
            ("::", false),
            ("::2", false),
            ("::ffff:10.0.0.1", false),
            // The deprecated IPv4-compatible form is a routable IPv6 address.
            ("::127.0.0.1", false),
            ("fe80::1", false),
        ];
        for (address, expected) in cases {
            assert_eq!(is_loopback(address.parse().unwrap()), expected, "{address}");
        }
    }
}

//! The arguments of `queue.declare`, `exchange.declare` and bindings: valid values and their
//! meaning.
//!
//! All functions here are pure: a shard calls them before it asks the control state. The texts
//! are those of `RabbitMQ` 3.10 (`rabbit_amqqueue:declare_args`), whose order of checks is kept
//! too, because the first failing check decides the text that a client reads.

mod binding;
mod exchange;
mod known;
mod queue;

#[cfg(test)]
mod tests;

use leveret_amqp::{TableRef, Value};

use crate::catalog::name::Name;
use crate::error::Exception;

pub use self::binding::check_headers_binding;
pub use self::exchange::{
    check_exchange, check_exchange_deletion, check_exchange_name, check_not_default_exchange,
    parse_exchange_kind,
};
pub(crate) use self::known::{known_arguments, without_effect};
pub use self::queue::{
    Overflow, QueueArguments, QueueKind, QueueProperties, check_dead_letter_exchange, check_queue,
    check_queue_name,
};

/// CR and LF are taken out of names before anything else (`strip_cr_lf`).
pub fn strip_cr_lf(name: &str) -> Name {
    if name.bytes().any(|octet| matches!(octet, b'\r' | b'\n')) {
        return Name::from(name.replace(['\r', '\n'], ""));
    }
    Name::from(name)
}

fn check_reserved(kind: &str, name: &str) -> Result<(), Exception> {
    if name.starts_with("amq.") {
        return Err(Exception::access_refused(format!(
            "{kind} name '{name}' contains reserved prefix 'amq.*'"
        )));
    }
    Ok(())
}

fn exchange_name_argument(
    arguments: TableRef<'_>,
    name: &str,
    owner: &str,
) -> Result<Option<Name>, Exception> {
    match arguments.get(name) {
        None => Ok(None),
        Some(Value::LongStr(octets)) => Ok(Some(lossy_name(octets))),
        Some(other) => Err(Exception::precondition_failed(format!(
            "invalid type '{}' for arg '{name}' in {owner}",
            other.rabbit_type_name()
        ))),
    }
}

/// Long strings need not be UTF-8, names are; a name that is not belongs to no exchange.
fn lossy_name(octets: &[u8]) -> Name {
    Name::from(&*String::from_utf8_lossy(octets))
}

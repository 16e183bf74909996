//! The arguments and the name of `exchange.declare`.

use leveret_amqp::TableRef;

use crate::catalog::name::Name;
use crate::catalog::object::ExchangeKind;
use crate::error::Exception;

use super::{check_reserved, exchange_name_argument};

/// The argument that names an alternate exchange.
const ALTERNATE: &str = "alternate-exchange";

/// For `exchange.declare` of an exchange that does not exist yet.
///
/// # Errors
/// 403 for `amq.*`.
pub fn check_exchange_name(name: &str) -> Result<(), Exception> {
    check_reserved("exchange", name)
}

/// For all methods of class exchange, and `queue.bind` and `queue.unbind`.
///
/// # Errors
/// 403 for the default exchange, the one without a name.
pub fn check_not_default_exchange(name: &str) -> Result<(), Exception> {
    if name.is_empty() {
        return Err(Exception::access_refused("operation not permitted on the default exchange"));
    }
    Ok(())
}

/// For `exchange.delete`, whether or not the exchange exists.
///
/// # Errors
/// 403 for `amq.*`.
pub fn check_exchange_deletion(vhost: &str, name: &str) -> Result<(), Exception> {
    if name.starts_with("amq.") {
        return Err(Exception::access_refused(format!(
            "deletion of system exchange '{name}' in vhost '{vhost}' not allowed"
        )));
    }
    Ok(())
}

/// The `type` of `exchange.declare`.
///
/// # Errors
/// 406 for a type that does not exist, as `RabbitMQ` 4 does; 3.x closed the connection with 503
/// and the same text.
pub fn parse_exchange_kind(name: &str) -> Result<ExchangeKind, Exception> {
    ExchangeKind::parse(name)
        .ok_or_else(|| Exception::precondition_failed(format!("unknown exchange type '{name}'")))
}

/// The arguments of a new exchange: its alternate exchange, if any. The asker needs permission
/// to read the exchange and to write to the alternate.
///
/// # Errors
/// 406 for an alternate that is not a long string.
pub fn check_exchange(
    vhost: &str,
    name: &str,
    arguments: TableRef<'_>,
) -> Result<Option<Name>, Exception> {
    exchange_name_argument(arguments, ALTERNATE, &format!("exchange '{name}' in vhost '{vhost}'"))
}

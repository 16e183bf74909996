//! Whether a redeclared object equals the existing one.
//!
//! The first difference decides the text that the client reads, so the order is `RabbitMQ`'s. A
//! shard that knows the object checks it alone: a redeclaration does not go to the control state.

use leveret_amqp::{TableRef, Value};

use crate::catalog::arguments::known_arguments;
use crate::catalog::erlang_term;
use crate::catalog::object::{Exchange, ExchangeKind, QueueMeta};
use crate::error::Exception;
use crate::id::Owner;

/// The properties that `queue.declare` gives for an existing queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueRedeclaration<'a> {
    /// As declared; durable *and* exclusive counts as not durable.
    pub durable: bool,
    /// The asking connection, if the queue is declared exclusive.
    pub exclusive: Option<Owner>,
    /// As declared.
    pub auto_delete: bool,
    /// Its arguments.
    pub arguments: TableRef<'a>,
}

/// The properties that `exchange.declare` gives for an existing exchange.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeRedeclaration<'a> {
    /// As declared.
    pub kind: ExchangeKind,
    /// As declared.
    pub durable: bool,
    /// As declared.
    pub auto_delete: bool,
    /// As declared.
    pub internal: bool,
    /// Its arguments, of which only the alternate exchange counts.
    pub arguments: TableRef<'a>,
}

/// Compares a redeclaration with the queue (`rabbit_amqqueue:assert_equivalence`).
///
/// # Errors
/// 405 unless both are exclusive to the same connection or to none; 406 for the first difference.
pub fn check_queue(
    queue: &QueueMeta,
    vhost: &str,
    declared: QueueRedeclaration<'_>,
) -> Result<(), Exception> {
    if queue.exclusive != declared.exclusive {
        return Err(locked(queue, vhost));
    }
    let object = || shown_queue(queue, vhost);
    let durable = declared.durable && declared.exclusive.is_none();
    check_flag("durable", object, queue.durable, durable)?;
    check_flag("auto_delete", object, queue.auto_delete, declared.auto_delete)?;
    let current = TableRef::trusted(&queue.arguments);
    for name in known_arguments(queue.settings.kind) {
        check_argument(name, object, current, declared.arguments)?;
    }
    Ok(())
}

/// Compares a redeclaration with the exchange (`rabbit_exchange:assert_equivalence`).
///
/// # Errors
/// 406 for the first difference.
pub fn check_exchange(
    exchange: &Exchange,
    vhost: &str,
    declared: ExchangeRedeclaration<'_>,
) -> Result<(), Exception> {
    let object = || format!("exchange '{}' in vhost '{vhost}'", exchange.name);
    if exchange.kind != declared.kind {
        let (received, current) = (declared.kind.as_str(), exchange.kind.as_str());
        return Err(inequivalent("type", &object(), &quoted(received), &quoted(current)));
    }
    check_flag("durable", object, exchange.durable, declared.durable)?;
    check_flag("auto_delete", object, exchange.auto_delete, declared.auto_delete)?;
    check_flag("internal", object, exchange.internal, declared.internal)?;
    let current = TableRef::trusted(&exchange.arguments);
    check_argument("alternate-exchange", object, current, declared.arguments)
}

/// Whether a connection may use a queue at all (`check_exclusive_access`, lax). For every method
/// that names a queue, passive declaration included, except redeclaration.
///
/// # Errors
/// 405 for another connection's exclusive queue.
pub fn check_exclusive_access(
    queue: &QueueMeta,
    vhost: &str,
    owner: Owner,
) -> Result<(), Exception> {
    match queue.exclusive {
        Some(other) if other != owner => Err(locked(queue, vhost)),
        _ => Ok(()),
    }
}

/// 404 for a queue that does not exist.
pub fn no_queue(name: &str, vhost: &str) -> Exception {
    Exception::not_found(format!("no queue '{name}' in vhost '{vhost}'"))
}

/// 404 for an exchange that does not exist.
pub fn no_exchange(name: &str, vhost: &str) -> Exception {
    Exception::not_found(format!("no exchange '{name}' in vhost '{vhost}'"))
}

fn locked(queue: &QueueMeta, vhost: &str) -> Exception {
    Exception::resource_locked(format!(
        "cannot obtain exclusive access to locked {}. It could be originally declared on another \
         connection or the exclusive property value does not match that of the original \
         declaration.",
        shown_queue(queue, vhost)
    ))
}

fn shown_queue(queue: &QueueMeta, vhost: &str) -> String {
    format!("queue '{}' in vhost '{vhost}'", queue.name)
}

fn check_flag(
    name: &str,
    object: impl Fn() -> String,
    current: bool,
    received: bool,
) -> Result<(), Exception> {
    if current == received {
        return Ok(());
    }
    Err(inequivalent(name, &object(), &quoted(received), &quoted(current)))
}

/// `rabbit_misc:assert_args_equivalence1`. Values are shown with their type only where the other
/// side has none.
fn check_argument(
    name: &str,
    object: impl Fn() -> String,
    current: TableRef<'_>,
    received: TableRef<'_>,
) -> Result<(), Exception> {
    let (received, current) = match (received.get(name), current.get(name)) {
        (None, None) => return Ok(()),
        (Some(received), Some(current)) if erlang_term::equivalent(received, current) => {
            return Ok(());
        }
        (Some(received), Some(current)) => {
            (quoted(erlang_term::print(received)), quoted(erlang_term::print(current)))
        }
        (None, Some(value)) | (Some(value), None)
            if name == "x-queue-type" && value == Value::LongStr(b"classic") =>
        {
            return Ok(());
        }
        (received, current) => (value_or_none(received), value_or_none(current)),
    };
    Err(inequivalent(name, &object(), &received, &current))
}

fn value_or_none(value: Option<Value<'_>>) -> String {
    match value {
        None => "none".to_owned(),
        Some(value) => {
            format!(
                "the value '{}' of type '{}'",
                erlang_term::print(value),
                value.rabbit_type_name()
            )
        }
    }
}

fn quoted(value: impl std::fmt::Display) -> String {
    format!("'{value}'")
}

fn inequivalent(name: &str, object: &str, received: &str, current: &str) -> Exception {
    Exception::precondition_failed(format!(
        "inequivalent arg '{name}' for {object}: received {received} but current is {current}"
    ))
}

#[cfg(test)]
mod tests;

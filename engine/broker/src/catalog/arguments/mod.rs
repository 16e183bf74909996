//! The arguments of `queue.declare`, `exchange.declare` and bindings: what is valid, what it means.
//!
//! All functions here are pure: a shard calls them before it asks the control state. The texts
//! are those of `RabbitMQ` 3.10 (`rabbit_amqqueue:declare_args`), whose order of checks is kept
//! too, because the first failing check decides what a client reads.

use bytes::Bytes;
use leveret_amqp::{TableRef, Value};

use crate::catalog::name::Name;
use crate::catalog::object::ExchangeKind;
use crate::error::Exception;

/// Longest time to live: ten years of 365 days, in milliseconds (`?MAX_EXPIRY_TIMER`).
const EXPIRY_MS_MAX: i64 = 315_360_000_000;

/// The argument that names an alternate exchange.
const ALTERNATE: &str = "alternate-exchange";

/// The `x-queue-type` argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum QueueKind {
    /// One copy on one shard.
    #[default]
    Classic,
    /// Declared as `quorum` by clients that want replication (celery ≥ 5.5 does by default). It
    /// obeys the quorum type's rules, and is kept like a classic queue as long as there is one
    /// node: a quorum of one.
    Quorum,
}

impl QueueKind {
    /// The value of `x-queue-type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::Quorum => "quorum",
        }
    }

    /// The name `RabbitMQ` prints: that of the module.
    fn module(self) -> &'static str {
        match self {
            Self::Classic => "rabbit_classic_queue",
            Self::Quorum => "rabbit_quorum_queue",
        }
    }
}

/// What happens to a full queue: `x-overflow`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// The oldest messages go.
    #[default]
    DropHead,
    /// New messages are refused.
    RejectPublish,
    /// New messages are refused and dead-lettered.
    RejectPublishDlx,
}

/// What the arguments of a queue mean. `None` = not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueArguments {
    /// `x-queue-type`.
    pub kind: QueueKind,
    /// `x-message-ttl` in milliseconds.
    pub message_ttl_ms: Option<u64>,
    /// `x-expires` in milliseconds, ≥ 1.
    pub expires_ms: Option<u64>,
    /// `x-max-length` in ready messages.
    pub length_max: Option<u64>,
    /// `x-max-length-bytes` in octets of ready bodies.
    pub length_bytes_max: Option<u64>,
    /// `x-overflow`.
    pub overflow: Overflow,
    /// `x-dead-letter-exchange`; may be empty, the default exchange.
    pub dead_letter_exchange: Option<Name>,
    /// `x-dead-letter-routing-key`.
    pub dead_letter_routing_key: Option<Bytes>,
    /// `x-max-priority`.
    pub priority_max: Option<u8>,
    /// `x-single-active-consumer`.
    pub single_active_consumer: bool,
    /// `x-delivery-limit`; negative = none.
    pub delivery_limit: Option<i64>,
}

impl QueueArguments {
    /// Reads what is understood and leaves out what is not, so it cannot fail.
    pub fn parse(table: TableRef<'_>) -> Self {
        let unsigned = |name| u64::try_from(table.get(name)?.as_integer()?).ok();
        let text = |name| table.get(name)?.as_long_str();
        Self {
            kind: match text("x-queue-type") {
                Some(b"quorum") => QueueKind::Quorum,
                _ => QueueKind::Classic,
            },
            message_ttl_ms: unsigned("x-message-ttl"),
            expires_ms: unsigned("x-expires"),
            length_max: unsigned("x-max-length"),
            length_bytes_max: unsigned("x-max-length-bytes"),
            overflow: match text("x-overflow") {
                Some(b"reject-publish") => Overflow::RejectPublish,
                Some(b"reject-publish-dlx") => Overflow::RejectPublishDlx,
                _ => Overflow::DropHead,
            },
            dead_letter_exchange: text("x-dead-letter-exchange").map(lossy_name),
            dead_letter_routing_key: text("x-dead-letter-routing-key").map(Bytes::copy_from_slice),
            priority_max: unsigned("x-max-priority").and_then(|max| u8::try_from(max).ok()),
            single_active_consumer: table
                .get("x-single-active-consumer")
                .and_then(|value| value.as_bool())
                .unwrap_or(false),
            delivery_limit: table.get("x-delivery-limit").and_then(|value| value.as_integer()),
        }
    }
}

/// A queue about to be declared.
#[derive(Clone, Copy, Debug)]
pub struct QueueProperties<'a> {
    /// The name of its virtual host.
    pub vhost: &'a str,
    /// Its name; empty for a name made by the server.
    pub name: &'a str,
    /// As declared.
    pub durable: bool,
    /// As declared.
    pub exclusive: bool,
    /// As declared.
    pub auto_delete: bool,
    /// Its arguments.
    pub arguments: TableRef<'a>,
}

/// CR and LF are taken out of names before anything else (`strip_cr_lf`).
pub fn strip_cr_lf(name: &str) -> Name {
    if name.bytes().any(|octet| matches!(octet, b'\r' | b'\n')) {
        return Name::from(name.replace(['\r', '\n'], ""));
    }
    Name::from(name)
}

/// For `queue.declare` that is not passive, whether or not the queue exists: the name may not be
/// reserved. An empty name asks for one made by the server, which only classic queues can have.
///
/// # Errors
/// 403 for `amq.*`, 406 for a server-named queue of another type.
pub fn check_queue_name(name: &str, arguments: TableRef<'_>) -> Result<(), Exception> {
    if !name.is_empty() {
        return check_reserved("queue", name);
    }
    let module = match arguments.get("x-queue-type").and_then(|value| value.as_long_str()) {
        Some(b"quorum") => "rabbit_quorum_queue",
        Some(b"stream") => "rabbit_stream_queue",
        _ => return Ok(()),
    };
    Err(Exception::precondition_failed(format!(
        "Cannot declare a server-named queue for type {module}"
    )))
}

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

/// The dead-letter exchange of a new queue, if any. The asker needs permission to read the queue
/// and to write to that exchange. Comes before [`check_queue`].
///
/// # Errors
/// 406 if it is not a long string.
pub fn check_dead_letter_exchange(queue: QueueProperties<'_>) -> Result<Option<Name>, Exception> {
    exchange_name_argument(queue.arguments, "x-dead-letter-exchange", &queue.shown())
}

/// The arguments of a new queue. Arguments that no queue type knows are kept and ignored.
///
/// # Errors
/// 406 for a value that is not valid, an argument of another queue type, or a quorum queue that
/// is exclusive, auto-delete or not durable; 540 for the type `stream`.
pub fn check_queue(queue: QueueProperties<'_>) -> Result<QueueArguments, Exception> {
    let invalid = |name: &str, reason: String| {
        Exception::precondition_failed(format!(
            "invalid arg '{name}' for {}: {reason}",
            queue.shown()
        ))
    };
    let table = queue.arguments;
    if let Some(value) = table.get("x-queue-type") {
        check_queue_type(value).map_err(|reason| invalid("x-queue-type", reason))?;
        if value.as_long_str() == Some(b"stream") {
            return Err(Exception::not_implemented("queue type 'stream' is not implemented"));
        }
    }
    let arguments = QueueArguments::parse(table);
    for known in KNOWN.iter().filter(|known| known.belongs_to(arguments.kind)) {
        if let Some(value) = table.get(known.name) {
            (known.check)(value, table).map_err(|reason| invalid(known.name, reason))?;
        }
    }
    check_foreign_arguments(queue, arguments.kind)?;
    if arguments.kind == QueueKind::Quorum {
        check_quorum(queue)?;
    }
    Ok(arguments)
}

/// The arguments by which a redeclared queue of this kind must equal the existing one.
pub(crate) fn known_arguments(kind: QueueKind) -> impl Iterator<Item = &'static str> {
    KNOWN.iter().filter(move |known| known.belongs_to(kind)).map(|known| known.name)
}

/// Those of a new queue's arguments that ask for something that is not there yet. Not among them
/// is what only advises `RabbitMQ` where to keep a queue.
pub(crate) fn without_effect(table: TableRef<'_>) -> Vec<&'static str> {
    // False is no single active consumer, a negative delivery limit is none.
    let asks = |value: Value<'_>| {
        value.as_bool() != Some(false) && value.as_integer().is_none_or(|number| number >= 0)
    };
    WITHOUT_EFFECT.into_iter().filter(|name| table.get(name).is_some_and(asks)).collect()
}

/// The `x-match` argument of a binding from a headers exchange.
///
/// # Errors
/// 406 for anything but `all`, `any`, `all-with-x` and `any-with-x`.
pub fn check_headers_binding(arguments: TableRef<'_>) -> Result<(), Exception> {
    let text = match arguments.get("x-match") {
        None | Some(Value::LongStr(b"all" | b"any" | b"all-with-x" | b"any-with-x")) => {
            return Ok(());
        }
        Some(Value::LongStr(other)) => format!(
            "Invalid x-match field value {}; expected all, any, all-with-x, or any-with-x",
            erlang_binary(other)
        ),
        Some(other) => format!(
            "Invalid x-match field type {} (value {}); expected longstr",
            other.rabbit_type_name(),
            match other {
                Value::Bytes(octets) => erlang_binary(octets),
                other => crate::catalog::erlang_term::print(other),
            }
        ),
    };
    Err(Exception::precondition_failed(text))
}

impl QueueProperties<'_> {
    fn shown(&self) -> String {
        format!("queue '{}' in vhost '{}'", self.name, self.vhost)
    }
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

fn erlang_binary(octets: &[u8]) -> String {
    format!("<<\"{}\">>", String::from_utf8_lossy(octets))
}

/// Arguments that another queue type knows are mistakes, `check_arguments_key`.
fn check_foreign_arguments(queue: QueueProperties<'_>, kind: QueueKind) -> Result<(), Exception> {
    for (name, _) in queue.arguments {
        let foreign =
            KNOWN.iter().any(|known| known.name.as_bytes() == name && !known.belongs_to(kind))
                || STREAM_ONLY.iter().any(|stream| stream.as_bytes() == name);
        if foreign {
            return Err(Exception::precondition_failed(format!(
                "invalid arg '{}' for {} of queue type {}",
                String::from_utf8_lossy(name),
                queue.shown(),
                kind.module()
            )));
        }
    }
    Ok(())
}

/// `rabbit_quorum_queue:declare`.
fn check_quorum(queue: QueueProperties<'_>) -> Result<(), Exception> {
    let property = if queue.auto_delete {
        "auto-delete"
    } else if queue.exclusive {
        "exclusive-owner"
    } else if !queue.durable {
        "non-durable"
    } else {
        return Ok(());
    };
    Err(Exception::precondition_failed(format!(
        "invalid property '{property}' for {}",
        queue.shown()
    )))
}

/// An argument that some queue type knows.
struct Known {
    name: &'static str,
    classic: bool,
    quorum: bool,
    /// `Err` is what `RabbitMQ` prints after the colon.
    check: fn(Value<'_>, TableRef<'_>) -> Result<(), String>,
}

impl Known {
    const fn both(
        name: &'static str,
        check: fn(Value<'_>, TableRef<'_>) -> Result<(), String>,
    ) -> Self {
        Self { name, classic: true, quorum: true, check }
    }

    const fn classic(
        name: &'static str,
        check: fn(Value<'_>, TableRef<'_>) -> Result<(), String>,
    ) -> Self {
        Self { name, classic: true, quorum: false, check }
    }

    const fn quorum(
        name: &'static str,
        check: fn(Value<'_>, TableRef<'_>) -> Result<(), String>,
    ) -> Self {
        Self { name, classic: false, quorum: true, check }
    }

    fn belongs_to(&self, kind: QueueKind) -> bool {
        match kind {
            QueueKind::Classic => self.classic,
            QueueKind::Quorum => self.quorum,
        }
    }
}

/// In the order of `declare_args`. `x-queue-leader-locator` is taken for classic queues too, as
/// `RabbitMQ` does from 3.12 on; `x-queue-master-locator` and `x-delivery-limit` have no check.
const KNOWN: &[Known] = &[
    Known::both("x-expires", check_expires),
    Known::both("x-message-ttl", check_message_ttl),
    Known::both("x-dead-letter-exchange", check_text),
    Known::both("x-dead-letter-routing-key", check_dead_letter_routing_key),
    Known::quorum("x-dead-letter-strategy", check_dead_letter_strategy),
    Known::both("x-max-length", check_not_negative),
    Known::both("x-max-length-bytes", check_not_negative),
    Known::quorum("x-max-in-memory-length", check_not_negative),
    Known::quorum("x-max-in-memory-bytes", check_not_negative),
    Known::classic("x-max-priority", check_max_priority),
    Known::both("x-overflow", check_overflow),
    Known::classic("x-queue-mode", check_queue_mode),
    Known::classic("x-queue-version", check_queue_version),
    Known::both("x-single-active-consumer", check_bool),
    Known::both("x-queue-type", |value, _| check_queue_type(value)),
    Known::quorum("x-quorum-initial-group-size", check_positive),
    Known::both("x-queue-leader-locator", check_leader_locator),
    Known::classic("x-queue-master-locator", |_, _| Ok(())),
    Known::quorum("x-delivery-limit", |_, _| Ok(())),
];

/// Checked, compared and without effect; `docs/COMPATIBILITY.md` lists them too.
const WITHOUT_EFFECT: [&str; 11] = [
    "x-expires",
    "x-message-ttl",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
    "x-max-length",
    "x-max-length-bytes",
    "x-max-priority",
    "x-overflow",
    "x-single-active-consumer",
    "x-delivery-limit",
];

/// Arguments that only streams know.
const STREAM_ONLY: &[&str] =
    &["x-max-age", "x-stream-max-segment-size-bytes", "x-initial-cluster-size"];

fn integer(value: Value<'_>) -> Result<i64, String> {
    value
        .as_integer()
        .ok_or_else(|| format!("\"expected integer, got {}\"", value.rabbit_type_name()))
}

fn not_negative(value: Value<'_>) -> Result<i64, String> {
    match integer(value)? {
        number if number < 0 => Err(format!("{{value_negative,{number}}}")),
        number => Ok(number),
    }
}

fn check_not_negative(value: Value<'_>, _: TableRef<'_>) -> Result<(), String> {
    not_negative(value).map(|_| ())
}

fn check_positive(value: Value<'_>, _: TableRef<'_>) -> Result<(), String> {
    match not_negative(value)? {
        0 => Err("{value_zero,0}".to_owned()),
        _ => Ok(()),
    }
}

fn check_message_ttl(value: Value<'_>, _: TableRef<'_>) -> Result<(), String> {
    match not_negative(value)? {
        number if number > EXPIRY_MS_MAX => Err(format!("{{value_too_large,{number}}}")),
        _ => Ok(()),
    }
}

fn check_expires(value: Value<'_>, table: TableRef<'_>) -> Result<(), String> {
    match integer(value)? {
        0 => Err("{value_zero,0}".to_owned()),
        _ => check_message_ttl(value, table),
    }
}

fn check_max_priority(value: Value<'_>, _: TableRef<'_>) -> Result<(), String> {
    match not_negative(value)? {
        number if number > i64::from(u8::MAX) => Err(format!("{{max_value_exceeded,{number}}}")),
        _ => Ok(()),
    }
}

fn check_queue_version(value: Value<'_>, _: TableRef<'_>) -> Result<(), String> {
    match not_negative(value)? {
        1 | 2 => Ok(()),
        number => Err(format!("\"unsupported queue version '{number}'\"")),
    }
}

fn check_bool(value: Value<'_>, _: TableRef<'_>) -> Result<(), String> {
    value.as_bool().map(|_| ()).ok_or_else(|| unacceptable(value))
}

fn check_text(value: Value<'_>, _: TableRef<'_>) -> Result<(), String> {
    text(value).map(|_| ())
}

fn check_dead_letter_routing_key(value: Value<'_>, table: TableRef<'_>) -> Result<(), String> {
    text(value)?;
    match table.get("x-dead-letter-exchange") {
        Some(_) => Ok(()),
        None => Err("routing_key_but_no_dlx_defined".to_owned()),
    }
}

fn check_dead_letter_strategy(value: Value<'_>, _: TableRef<'_>) -> Result<(), String> {
    match text(value)? {
        b"at-most-once" | b"at-least-once" => Ok(()),
        _ => Err("invalid_dlx_strategy".to_owned()),
    }
}

fn check_overflow(value: Value<'_>, _: TableRef<'_>) -> Result<(), String> {
    match text(value)? {
        b"drop-head" | b"reject-publish" | b"reject-publish-dlx" => Ok(()),
        _ => Err("invalid_overflow".to_owned()),
    }
}

fn check_leader_locator(value: Value<'_>, _: TableRef<'_>) -> Result<(), String> {
    match text(value)? {
        b"client-local" | b"balanced" | b"random" | b"least-leaders" => Ok(()),
        _ => Err("invalid_queue_locator_arg".to_owned()),
    }
}

fn check_queue_mode(value: Value<'_>, _: TableRef<'_>) -> Result<(), String> {
    match text(value)? {
        b"default" | b"lazy" => Ok(()),
        other => Err(format!("\"unsupported queue mode '{}'\"", String::from_utf8_lossy(other))),
    }
}

fn check_queue_type(value: Value<'_>) -> Result<(), String> {
    match text(value)? {
        b"classic" | b"quorum" | b"stream" => Ok(()),
        other => Err(format!("\"unsupported queue type '{}'\"", String::from_utf8_lossy(other))),
    }
}

fn text(value: Value<'_>) -> Result<&[u8], String> {
    match value {
        Value::LongStr(octets) => Ok(octets),
        other => Err(unacceptable(other)),
    }
}

fn unacceptable(value: Value<'_>) -> String {
    format!("{{unacceptable_type,{}}}", value.rabbit_type_name())
}

#[cfg(test)]
mod tests;

//! The arguments that queue types know, and which values each takes.

use leveret_amqp::{TableRef, Value};

use super::queue::QueueKind;

/// Longest time to live: ten years of 365 days, in milliseconds (`?MAX_EXPIRY_TIMER`).
const EXPIRY_MS_MAX: i64 = 315_360_000_000;

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

/// An argument that some queue type knows.
pub(super) struct Known {
    pub(super) name: &'static str,
    classic: bool,
    quorum: bool,
    /// `Err` is what `RabbitMQ` prints after the colon.
    pub(super) check: fn(Value<'_>, TableRef<'_>) -> Result<(), String>,
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

    pub(super) fn belongs_to(&self, kind: QueueKind) -> bool {
        match kind {
            QueueKind::Classic => self.classic,
            QueueKind::Quorum => self.quorum,
        }
    }
}

/// In the order of `declare_args`. `x-queue-leader-locator` is taken for classic queues too, as
/// `RabbitMQ` does from 3.12 on; `x-queue-master-locator` and `x-delivery-limit` have no check.
pub(super) const KNOWN: &[Known] = &[
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
pub(super) const STREAM_ONLY: &[&str] =
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

pub(super) fn check_queue_type(value: Value<'_>) -> Result<(), String> {
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

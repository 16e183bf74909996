//! The arguments of `queue.declare`.

use bytes::Bytes;
use leveret_amqp::TableRef;

use crate::catalog::name::Name;
use crate::error::Exception;

use super::known::{KNOWN, STREAM_ONLY, check_queue_type};
use super::{check_reserved, exchange_name_argument, lossy_name};

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

/// The meaning of a queue's arguments. `None` = not given.
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
    /// Reads the arguments that are understood and ignores the others, so it cannot fail.
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

impl QueueProperties<'_> {
    fn shown(&self) -> String {
        format!("queue '{}' in vhost '{}'", self.name, self.vhost)
    }
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

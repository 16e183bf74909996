//! Exchanges, queues and bindings.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;

use crate::catalog::arguments::QueueArguments;
use crate::id::{ExchangeId, Owner, QueueId, ShardId, VhostId};

use super::name::Name;

/// How an exchange compares binding keys with messages (specification 3.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExchangeKind {
    /// Binding key equals routing key.
    Direct,
    /// Every binding matches.
    Fanout,
    /// Binding keys are patterns of words.
    Topic,
    /// Binding arguments are compared with the message's headers.
    Headers,
}

impl ExchangeKind {
    /// The kind of this type name; `None` for types that do not exist.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "direct" => Some(Self::Direct),
            "fanout" => Some(Self::Fanout),
            "topic" => Some(Self::Topic),
            "headers" => Some(Self::Headers),
            _ => None,
        }
    }

    /// The type name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }
}

impl fmt::Display for ExchangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which kind of object the destination of a binding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BindingTarget {
    /// `queue.bind`, `queue.unbind`.
    Queue,
    /// `exchange.bind`, `exchange.unbind`.
    Exchange,
}

/// An exchange without its bindings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Its identity; a redeclared exchange of the same name has another one.
    pub id: ExchangeId,
    /// Where it lives.
    pub vhost: VhostId,
    /// Its name; empty for the default exchange.
    pub name: Name,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Survives a restart.
    pub durable: bool,
    /// Goes with its last binding as a source.
    pub auto_delete: bool,
    /// Cannot be published to.
    pub internal: bool,
    /// The argument table as received, without its length prefix.
    pub arguments: Bytes,
    /// Where unroutable messages go: the `alternate-exchange` argument.
    pub alternate: Option<Name>,
}

/// A queue without its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueMeta {
    /// Its identity; a redeclared queue of the same name has another one.
    pub id: QueueId,
    /// Where it lives.
    pub vhost: VhostId,
    /// Its name.
    pub name: Name,
    /// The shard that keeps its messages.
    pub home: ShardId,
    /// Survives a restart.
    pub durable: bool,
    /// Identifies its records in the log, never used twice. Only durable queues have one.
    pub log_id: Option<u64>,
    /// The only connection that may use it.
    pub exclusive: Option<Owner>,
    /// Goes with its last consumer.
    pub auto_delete: bool,
    /// The argument table as received, without its length prefix.
    pub arguments: Bytes,
    /// The meaning of the argument table.
    pub settings: QueueArguments,
}

impl QueueMeta {
    /// Where messages for this queue go.
    pub fn destination(&self) -> Destination {
        Destination { queue: self.id, home: self.home }
    }
}

/// A queue and the shard it lives on, as routing finds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// The queue.
    pub queue: QueueId,
    /// The shard that keeps its messages.
    pub home: ShardId,
}

/// The destination of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// A queue.
    Queue(Destination),
    /// Another exchange.
    Exchange(ExchangeId),
}

/// A binding. Two bindings are the same if source, target, key and canonical arguments are.
///
/// Shared by all shards; the key is stored once per binding, whatever the number of shards.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The exchange that messages come from.
    pub source: ExchangeId,
    /// Where they go.
    pub target: Target,
    /// The binding key, opaque bytes.
    pub key: Arc<[u8]>,
    /// The argument table as received, without its length prefix.
    pub arguments: Bytes,
    /// The arguments sorted by name, as `RabbitMQ` compares them between bindings.
    pub canonical: Bytes,
}

impl PartialEq for Binding {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
            && self.target == other.target
            && self.key == other.key
            && self.canonical == other.canonical
    }
}

impl Eq for Binding {}

impl Hash for Binding {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source.hash(state);
        self.target.hash(state);
        self.key.hash(state);
        self.canonical.hash(state);
    }
}

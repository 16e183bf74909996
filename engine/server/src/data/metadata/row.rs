//! Tables, keys and rows.
//!
//! ```text
//!  key:    ┌────────┬──────┬────────┬──────┬─ ─      value: ┌──────────────┬────────┐
//!          │ length │ part │ length │ part │              │ postcard row │ crc32c │
//!          │ u32    │      │ u32    │      │              │              │ u32    │
//!          └────────┴──────┴────────┴──────┴─ ─            └──────────────┴────────┘
//! ```
//! The checksum covers the key and the row.

use bytes::Bytes;
use leveret_broker::catalog::name::Name;
use leveret_broker::catalog::object::{BindingTarget, ExchangeKind};
use leveret_broker::control::{BindingDefinition, ExchangeDefinition, QueueDefinition};
use redb::TableDefinition;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Values about the whole store, by name.
pub(super) const STORE: Table = TableDefinition::new("store");
/// Key: name.
pub(super) const VHOSTS: Table = TableDefinition::new("vhosts");
/// Key: virtual host, name.
pub(super) const EXCHANGES: Table = TableDefinition::new("exchanges");
/// Key: virtual host, name.
pub(super) const QUEUES: Table = TableDefinition::new("queues");
/// Key: virtual host, source, kind of destination, destination, key, arguments.
pub(super) const BINDINGS: Table = TableDefinition::new("bindings");

/// In [`STORE`]: major and minor number of the format.
pub(super) const FORMAT: &[u8] = b"format";
/// In [`STORE`]: the id of the data directory, 16 octets.
pub(super) const STORE_ID: &[u8] = b"store id";
/// In [`STORE`]: the number of shards of the last run.
pub(super) const SHARDS: &[u8] = b"shards";
/// In [`STORE`]: the log id of the next durable queue.
pub(super) const NEXT_LOG_ID: &[u8] = b"next log id";

/// The format that this program writes. A database with another major number is refused.
pub(super) const FORMAT_WRITTEN: (u16, u16) = (1, 0);

const CHECKSUM_SIZE: usize = 4;

const AUTO_DELETE: u8 = 1;
const INTERNAL: u8 = 2;

/// The value of an exchange.
#[derive(Serialize, Deserialize)]
struct ExchangeRow {
    /// 0 direct, 1 fanout, 2 topic, 3 headers.
    kind: u8,
    /// Bit 0 auto-delete, bit 1 internal.
    flags: u8,
    arguments: Vec<u8>,
}

/// The value of a queue.
#[derive(Serialize, Deserialize)]
struct QueueRow {
    log_id: u64,
    home: u16,
    /// Bit 0 auto-delete.
    flags: u8,
    arguments: Vec<u8>,
}

/// Why a row cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// The checksum does not fit.
    Checksum,
    /// The checksum is right, but the content is nothing that this program writes.
    Content,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Checksum => "its checksum does not fit",
            Self::Content => "its content is unknown, perhaps of a newer broker",
        })
    }
}

/// The stored form of a row. Encoding cannot fail for rows, which consist of numbers and octets.
pub(super) fn seal(key: &[u8], row: &impl Serialize) -> Result<Vec<u8>, postcard::Error> {
    let mut value = postcard::to_stdvec(row)?;
    value.extend_from_slice(&checksum(key, &value).to_le_bytes());
    Ok(value)
}

/// The row in a stored value.
pub(super) fn unseal<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, Damage> {
    let (row, stored) = value.split_last_chunk::<CHECKSUM_SIZE>().ok_or(Damage::Checksum)?;
    if checksum(key, row) != u32::from_le_bytes(*stored) {
        return Err(Damage::Checksum);
    }
    match postcard::take_from_bytes(row) {
        Ok((row, [])) => Ok(row),
        _ => Err(Damage::Content),
    }
}

fn checksum(key: &[u8], row: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), row)
}

/// A key of several parts.
pub(super) fn key(parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::new();
    for part in parts {
        key.extend_from_slice(&(part.len() as u32).to_le_bytes());
        key.extend_from_slice(part);
    }
    key
}

fn parts<const COUNT: usize>(mut key: &[u8]) -> Option<[&[u8]; COUNT]> {
    let mut found = [&[][..]; COUNT];
    for part in &mut found {
        let (length, rest) = key.split_first_chunk::<4>()?;
        (*part, key) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    }
    key.is_empty().then_some(found)
}

fn name(octets: &[u8]) -> Option<Name> {
    std::str::from_utf8(octets).ok().map(Name::from)
}

/// The virtual host and the name in a key.
pub(super) fn names(key: &[u8]) -> Option<(Name, Name)> {
    let [vhost, object] = parts(key)?;
    Some((name(vhost)?, name(object)?))
}

pub(super) fn vhost_name(key: &[u8]) -> Option<Name> {
    let [vhost] = parts(key)?;
    name(vhost)
}

pub(super) fn exchange_value(
    key: &[u8],
    exchange: &ExchangeDefinition,
) -> Result<Vec<u8>, postcard::Error> {
    let kind = match exchange.kind {
        ExchangeKind::Direct => 0,
        ExchangeKind::Fanout => 1,
        ExchangeKind::Topic => 2,
        ExchangeKind::Headers => 3,
    };
    let internal = if exchange.internal { INTERNAL } else { 0 };
    let flags = internal | if exchange.auto_delete { AUTO_DELETE } else { 0 };
    seal(key, &ExchangeRow { kind, flags, arguments: exchange.arguments.to_vec() })
}

pub(super) fn read_exchange(key: &[u8], value: &[u8]) -> Result<ExchangeDefinition, Damage> {
    let row: ExchangeRow = unseal(key, value)?;
    let (vhost, name) = names(key).ok_or(Damage::Content)?;
    let kind = match row.kind {
        0 => ExchangeKind::Direct,
        1 => ExchangeKind::Fanout,
        2 => ExchangeKind::Topic,
        3 => ExchangeKind::Headers,
        _ => return Err(Damage::Content),
    };
    Ok(ExchangeDefinition {
        vhost,
        name,
        kind,
        auto_delete: row.flags & AUTO_DELETE != 0,
        internal: row.flags & INTERNAL != 0,
        arguments: Bytes::from(row.arguments),
    })
}

pub(super) fn queue_value(key: &[u8], queue: &QueueDefinition) -> Result<Vec<u8>, postcard::Error> {
    let flags = if queue.auto_delete { AUTO_DELETE } else { 0 };
    let arguments = queue.arguments.to_vec();
    seal(key, &QueueRow { log_id: queue.log_id, home: queue.home, flags, arguments })
}

pub(super) fn read_queue(key: &[u8], value: &[u8]) -> Result<QueueDefinition, Damage> {
    let row: QueueRow = unseal(key, value)?;
    let (vhost, name) = names(key).ok_or(Damage::Content)?;
    Ok(QueueDefinition {
        vhost,
        name,
        log_id: row.log_id,
        home: row.home,
        auto_delete: row.flags & AUTO_DELETE != 0,
        arguments: Bytes::from(row.arguments),
    })
}

pub(super) fn binding_key(binding: &BindingDefinition) -> Vec<u8> {
    let target = match binding.target {
        BindingTarget::Queue => b"q",
        BindingTarget::Exchange => b"e",
    };
    key(&[
        binding.vhost.as_bytes(),
        binding.source.as_bytes(),
        target,
        binding.destination.as_bytes(),
        &binding.key,
        &binding.arguments,
    ])
}

/// The value of a binding is empty except for the checksum.
pub(super) fn read_binding(key: &[u8], value: &[u8]) -> Result<BindingDefinition, Damage> {
    unseal::<()>(key, value)?;
    binding_of(key).ok_or(Damage::Content)
}

fn binding_of(octets: &[u8]) -> Option<BindingDefinition> {
    let [vhost, source, target, destination, key, arguments] = parts(octets)?;
    let target = match target {
        b"q" => BindingTarget::Queue,
        b"e" => BindingTarget::Exchange,
        _ => return None,
    };
    Some(BindingDefinition {
        vhost: name(vhost)?,
        source: name(source)?,
        destination: name(destination)?,
        target,
        key: Bytes::copy_from_slice(key),
        arguments: Bytes::copy_from_slice(arguments),
    })
}

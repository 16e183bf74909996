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
use leveret_broker::catalog::user::{PasswordHash, User};
use leveret_broker::control::{
    BindingDefinition, ExchangeDefinition, PermissionsDefinition, QueueDefinition,
};
use redb::TableDefinition;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(super) type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Values about the whole store, by name.
pub(super) const STORE: Table = TableDefinition::new("store");
/// Key: name.
pub(super) const VHOSTS: Table = TableDefinition::new("vhosts");
/// Key: name of a virtual host. Since format 1.1.
pub(super) const VHOST_IDS: Table = TableDefinition::new("vhost ids");
/// Key: name. Since format 1.1.
pub(super) const USERS: Table = TableDefinition::new("users");
/// Key: virtual host, user. Since format 1.1.
pub(super) const PERMISSIONS: Table = TableDefinition::new("permissions");
/// Key: virtual host, name.
pub(super) const EXCHANGES: Table = TableDefinition::new("exchanges");
/// Key: virtual host, name.
pub(super) const QUEUES: Table = TableDefinition::new("queues");
/// Key: virtual host, source, kind of destination, destination, key, arguments.
pub(super) const BINDINGS: Table = TableDefinition::new("bindings");

/// All of them but [`STORE`].
pub(super) const TABLES: [Table; 7] =
    [VHOSTS, VHOST_IDS, USERS, PERMISSIONS, EXCHANGES, QUEUES, BINDINGS];

/// In [`STORE`]: major and minor number of the format.
pub(super) const FORMAT: &[u8] = b"format";
/// In [`STORE`]: the id of the data directory, 16 octets.
pub(super) const STORE_ID: &[u8] = b"store id";
/// In [`STORE`]: the number of shards of the last run.
pub(super) const SHARDS: &[u8] = b"shards";
/// In [`STORE`]: the log id of the next durable queue.
pub(super) const NEXT_LOG_ID: &[u8] = b"next log id";
/// In [`STORE`]: the id of the next virtual host. Comes with the first users and virtual hosts that
/// are stored.
pub(super) const NEXT_VHOST_ID: &[u8] = b"next vhost id";

/// The format that this program writes. A database with another major number is refused.
pub(super) const FORMAT_WRITTEN: (u16, u16) = (1, 1);

const CHECKSUM_SIZE: usize = 4;

const AUTO_DELETE: u8 = 1;
const INTERNAL: u8 = 2;

const LOOPBACK_ONLY: u8 = 1;

/// The user has no password.
const NO_PASSWORD: u8 = 0;
/// Four octets of salt, and the SHA-256 of salt and password.
const SALTED_SHA_256: u8 = 1;

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

/// The value of a user.
#[derive(Serialize, Deserialize)]
struct UserRow {
    /// 0 no password, 1 salted SHA-256.
    hashing: u8,
    /// The password as `hashing` makes it.
    password: Vec<u8>,
    /// Bit 0 may connect from this host only.
    flags: u8,
    tags: Vec<String>,
}

/// The value of permissions: patterns.
#[derive(Serialize, Deserialize)]
struct PermissionsRow {
    configure: String,
    write: String,
    read: String,
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

/// The name of a virtual host or user.
pub(super) fn single_name(key: &[u8]) -> Option<Name> {
    let [only] = parts(key)?;
    name(only)
}

/// A virtual host has nothing behind its key but the checksum; its id stands in another table.
pub(super) fn read_vhost(key: &[u8], value: &[u8]) -> Result<Name, Damage> {
    unseal::<()>(key, value)?;
    single_name(key).ok_or(Damage::Content)
}

pub(super) fn read_vhost_id(key: &[u8], value: &[u8]) -> Result<(Name, u32), Damage> {
    let id = unseal(key, value)?;
    Ok((single_name(key).ok_or(Damage::Content)?, id))
}

pub(super) fn user_value(key: &[u8], user: &User) -> Result<Vec<u8>, postcard::Error> {
    let (hashing, password) = match &user.password {
        Some(hash) => (SALTED_SHA_256, hash.octets().to_vec()),
        None => (NO_PASSWORD, Vec::new()),
    };
    let flags = if user.loopback_only { LOOPBACK_ONLY } else { 0 };
    let tags = user.tags.iter().map(|tag| tag.as_str().to_owned()).collect();
    seal(key, &UserRow { hashing, password, flags, tags })
}

pub(super) fn read_user(key: &[u8], value: &[u8]) -> Result<User, Damage> {
    let row: UserRow = unseal(key, value)?;
    let password = match (row.hashing, row.password.try_into()) {
        (NO_PASSWORD, _) => None,
        (SALTED_SHA_256, Ok(octets)) => Some(PasswordHash::from_octets(octets)),
        _ => return Err(Damage::Content),
    };
    Ok(User {
        name: single_name(key).ok_or(Damage::Content)?,
        password,
        tags: row.tags.into_iter().map(Name::from).collect(),
        loopback_only: row.flags & LOOPBACK_ONLY != 0,
    })
}

pub(super) fn permissions_value(
    key: &[u8],
    permissions: &PermissionsDefinition,
) -> Result<Vec<u8>, postcard::Error> {
    let PermissionsDefinition { configure, write, read, .. } = permissions.clone();
    seal(key, &PermissionsRow { configure, write, read })
}

pub(super) fn read_permissions(key: &[u8], value: &[u8]) -> Result<PermissionsDefinition, Damage> {
    let PermissionsRow { configure, write, read } = unseal(key, value)?;
    let (vhost, user) = names(key).ok_or(Damage::Content)?;
    Ok(PermissionsDefinition { user, vhost, configure, write, read })
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

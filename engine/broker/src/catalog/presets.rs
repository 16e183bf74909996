//! What a new broker starts with: one virtual host, its exchanges, and one user.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::id::{ExchangeId, VhostId};

use super::name::Name;
use super::object::{Exchange, ExchangeKind};
use super::permission::Permissions;
use super::user::{PasswordHash, User};

/// The virtual host of a new broker.
pub const VHOST: &str = "/";

/// The exchanges of every virtual host (`rabbit_vhost:do_add` in `RabbitMQ` 3.10): name, kind,
/// internal. `amq.rabbitmq.log` is there only where logging to an exchange is on.
pub(crate) const EXCHANGES: [(&str, ExchangeKind, bool); 7] = [
    ("", ExchangeKind::Direct, false),
    ("amq.direct", ExchangeKind::Direct, false),
    ("amq.topic", ExchangeKind::Topic, false),
    // The specification's name (3.1.3.4) and its older synonym.
    ("amq.match", ExchangeKind::Headers, false),
    ("amq.headers", ExchangeKind::Headers, false),
    ("amq.fanout", ExchangeKind::Fanout, false),
    ("amq.rabbitmq.trace", ExchangeKind::Topic, true),
];

/// The exchanges of a new virtual host. They have no identities yet.
pub(crate) fn exchanges(vhost: VhostId) -> impl Iterator<Item = Exchange> {
    EXCHANGES.into_iter().map(move |(name, kind, internal)| Exchange {
        id: ExchangeId::default(),
        vhost,
        name: Name::from(name),
        kind,
        durable: true,
        auto_delete: false,
        internal,
        arguments: Bytes::new(),
        alternate: None,
    })
}

/// Whether each virtual host has an exchange of this name.
pub(crate) fn is_exchange(name: &str) -> bool {
    EXCHANGES.iter().any(|(preset, ..)| *preset == name)
}

/// The user of a new broker: `guest` with the password `guest`, an administrator who may connect
/// from this host only. `seed` also salts the password.
pub(crate) fn user(seed: u64) -> User {
    // Administrators can read the salt. It must not reveal the seed, which guards the hash tables.
    let digest = Sha256::new().chain_update(b"salt of guest").chain_update(seed.to_be_bytes());
    let digest: [u8; 32] = digest.finalize().into();
    let salt = [digest[0], digest[1], digest[2], digest[3]];
    User {
        name: Name::from("guest"),
        password: Some(PasswordHash::new(salt, b"guest")),
        tags: vec![Name::from("administrator")],
        loopback_only: true,
    }
}

/// The permissions of that user in [`VHOST`]: everything.
pub(crate) fn permissions() -> Permissions {
    Permissions::full()
}

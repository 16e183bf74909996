//! What a new broker starts with: one virtual host, its exchanges, and one user.

use bytes::Bytes;

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

/// The user of a new broker: `guest` with the password `guest`, an administrator who may connect
/// from this host only. `salt` goes into the password hash.
pub(crate) fn user(salt: [u8; 4]) -> User {
    User {
        name: Name::from("guest"),
        password: Some(PasswordHash::new(salt, b"guest")),
        tags: vec![Name::from("administrator")],
        loopback_only: true,
    }
}

/// What that user may do in [`VHOST`]: everything.
pub(crate) fn permissions() -> Permissions {
    Permissions::full()
}

//! What a new broker starts with.

use std::sync::Arc;

use bytes::Bytes;

use crate::catalog::permission::Permissions;
use crate::id::{ExchangeId, VhostId};

use super::change::Change;
use super::topology::Topology;
use crate::catalog::name::Name;
use crate::catalog::object::{Exchange, ExchangeKind};
use crate::catalog::user::{PasswordHash, User};

/// The exchanges of every virtual host (`rabbit_vhost:do_add` in `RabbitMQ` 3.10): name, kind,
/// internal. `amq.rabbitmq.log` is there only where logging to an exchange is on.
const EXCHANGES: [(&str, ExchangeKind, bool); 7] = [
    ("", ExchangeKind::Direct, false),
    ("amq.direct", ExchangeKind::Direct, false),
    ("amq.topic", ExchangeKind::Topic, false),
    // The specification's name (3.1.3.4) and its older synonym.
    ("amq.match", ExchangeKind::Headers, false),
    ("amq.headers", ExchangeKind::Headers, false),
    ("amq.fanout", ExchangeKind::Fanout, false),
    ("amq.rabbitmq.trace", ExchangeKind::Topic, true),
];

impl Topology {
    /// The virtual host `/` with its exchanges, and the user `guest` with the password `guest`,
    /// who may do everything, from this host only. `seed` also salts the password.
    pub fn with_presets(seed: u64, shards: u16) -> Self {
        let mut topology = Self::new(seed, shards);
        let vhost = VhostId(0);
        topology.apply_change(&Change::VhostAdded(vhost, Name::from("/")));
        for (slot, exchange) in (0..).zip(preset_exchanges(vhost)) {
            let id = ExchangeId { slot, generation: 0 };
            topology.apply_change(&Change::ExchangeDeclared(Arc::new(Exchange { id, ..exchange })));
        }
        let guest = User {
            name: Name::from("guest"),
            password: Some(PasswordHash::new((seed as u32).to_be_bytes(), b"guest")),
            tags: vec![Name::from("administrator")],
            loopback_only: true,
        };
        topology.apply_change(&Change::UserPut(Arc::new(guest)));
        topology.apply_change(&Change::PermissionsPut {
            user: Name::from("guest"),
            vhost,
            permissions: Arc::new(Permissions::full()),
        });
        topology
    }
}

/// The exchanges of a new virtual host, all of which need an identity yet.
pub(crate) fn preset_exchanges(vhost: VhostId) -> impl Iterator<Item = Exchange> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_broker_has_what_rabbitmq_has() {
        let topology = Topology::with_presets(7, 2);
        let vhost = topology.vhost_id("/").unwrap();
        assert_eq!(topology.vhost_id("other"), None);
        for (name, kind, internal) in EXCHANGES {
            let exchange = topology.exchange(vhost, name.as_bytes()).unwrap();
            assert_eq!((exchange.kind, exchange.internal), (kind, internal));
            assert!(exchange.durable && !exchange.auto_delete);
        }
        let guest = topology.user("guest").unwrap();
        assert!(guest.authenticate(b"guest") && !guest.authenticate(b"Guest"));
        assert!(guest.loopback_only && guest.is_administrator());
        assert!(topology.permissions("guest", vhost).is_some());
        assert!(topology.permissions("nobody", vhost).is_none());
        assert_eq!(topology.sequence(), 0, "replicas start from here");
    }
}

//! The exchanges, queues and bindings that exist before the random clients come.

use leveret_amqp::method::{ExchangeBind, ExchangeDeclare, QueueDeclare};
use leveret_amqp::{OwnedTable, TableBuilder, TableRef};

use crate::client::Client;
use crate::client::methods::{bind_queue, declare_exchange};
use crate::world::World;

/// Queues that last for the whole run. There are more than shards, so that each shard has some.
pub const LASTING_QUEUES: usize = 6;

/// Names of short-lived queues.
pub const PASSING_QUEUES: usize = 4;

/// Exchange, routing key, and the lasting queues that a message reaches by them.
pub type Route = (&'static str, &'static str, &'static [usize]);

/// All routes to lasting queues.
pub const ROUTES: [Route; 17] = [
    ("", "lasting-0", &[0]),
    ("", "lasting-1", &[1]),
    ("", "lasting-2", &[2]),
    ("", "lasting-3", &[3]),
    ("", "lasting-4", &[4]),
    ("", "lasting-5", &[5]),
    ("sim.direct", "k0", &[0, 1]),
    ("sim.direct", "k1", &[1]),
    ("sim.fanout", "any", &[2, 3, 5]),
    ("sim.topic", "a.b", &[1]),
    ("sim.topic", "a.z", &[1, 4]),
    ("sim.topic", "q.w.z", &[4]),
    ("sim.alt", "none", &[2, 3, 5]),
    ("sim.alt", "x", &[5]),
    ("sim.outer", "k0", &[0, 1]),
    ("sim.direct", "nowhere", &[]),
    ("sim.topic", "b.b", &[]),
];

/// The name of a lasting queue.
pub fn lasting(queue: usize) -> String {
    format!("lasting-{queue}")
}

/// Whether clients may consume from a lasting queue without acknowledging. A client that leaves
/// then loses messages, as AMQP allows; the other half of the queues is checked strictly.
pub const fn may_be_lossy(queue: usize) -> bool {
    queue % 2 == 1
}

/// Whether a lasting queue is durable. Two are not, so that some messages are routed to both kinds.
pub const fn is_durable(queue: usize) -> bool {
    queue != 3 && queue != 4
}

/// The bindings of lasting queues: queue, exchange, key.
const BINDINGS: [(usize, &str, &str); 9] = [
    (0, "sim.direct", "k0"),
    (1, "sim.direct", "k0"),
    (1, "sim.direct", "k1"),
    (2, "sim.fanout", ""),
    (3, "sim.fanout", ""),
    (5, "sim.fanout", ""),
    (1, "sim.topic", "a.*"),
    (4, "sim.topic", "#.z"),
    (5, "sim.alt", "x"),
];

/// Declares and binds everything that lasts for the whole run.
pub fn declare_all(world: &mut World) {
    let mut client = Client::open(world, 0);
    let durable = |exchange, kind| ExchangeDeclare {
        durable: true,
        ..declare_exchange(exchange, kind, TableRef::EMPTY)
    };
    for (exchange, kind) in [
        ("sim.direct", "direct"),
        ("sim.fanout", "fanout"),
        ("sim.topic", "topic"),
        ("sim.outer", "fanout"),
    ] {
        client.request(world, 1, &durable(exchange, kind));
    }
    let alternate: OwnedTable =
        TableBuilder::new().long_str("alternate-exchange", "sim.fanout").finish();
    let with_alternate =
        ExchangeDeclare { arguments: alternate.as_ref(), ..durable("sim.alt", "direct") };
    client.request(world, 1, &with_alternate);
    declare_queues(&mut client, world, |_| true);
    let outer = ExchangeBind {
        destination: "sim.direct",
        source: "sim.outer",
        routing_key: b"",
        nowait: false,
        arguments: TableRef::EMPTY,
    };
    client.request(world, 1, &outer);
    assert!(client.closed_channels.is_empty(), "{:?}", client.closed_channels);
    client.close(world);
}

/// Declares and binds again what does not survive a restart; everything else must still exist.
pub fn redeclare_transient(world: &mut World) {
    let mut client = Client::open(world, 0);
    declare_queues(&mut client, world, |queue| !is_durable(queue));
    assert!(client.closed_channels.is_empty(), "{:?}", client.closed_channels);
    client.close(world);
}

fn declare_queues(client: &mut Client, world: &mut World, which: impl Fn(usize) -> bool) {
    for queue in (0..LASTING_QUEUES).filter(|queue| which(*queue)) {
        let name = lasting(queue);
        let declare = QueueDeclare { durable: is_durable(queue), ..QueueDeclare::named(&name) };
        client.request(world, 1, &declare);
    }
    for (queue, exchange, key) in BINDINGS.into_iter().filter(|(queue, ..)| which(*queue)) {
        client.request(world, 1, &bind_queue(&lasting(queue), exchange, key));
    }
}

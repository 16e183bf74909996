//! What exists in a run before its clients come: queues that last, and the ways to them.

use leveret_amqp::method::{ExchangeBind, ExchangeDeclare, QueueDeclare};
use leveret_amqp::{OwnedTable, TableBuilder, TableRef};

use crate::client::Client;
use crate::client::methods::{bind_queue, declare_exchange, declare_queue};
use crate::world::World;

/// Queues that last for the whole run: more than shards, so that each has some.
pub const LASTING_QUEUES: usize = 6;

/// Names of queues that come and go.
pub const PASSING_QUEUES: usize = 4;

/// Exchange, routing key, and the lasting queues a message reaches thereby.
pub type Route = (&'static str, &'static str, &'static [usize]);

/// All ways of messages whose end is certain.
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
/// then loses messages by contract, so half of the queues are spared and judged strictly.
pub const fn may_be_lossy(queue: usize) -> bool {
    queue % 2 == 1
}

/// Whether a lasting queue outlives the broker. Two do not: messages go to both kinds at once.
pub const fn is_durable(queue: usize) -> bool {
    queue != 3 && queue != 4
}

/// Exchange and key by which a lasting queue is bound.
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

/// Declares and binds everything that lasts.
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

/// Declares and binds anew, after a restart, what does not outlive the broker; all else has to be
/// there.
pub fn redeclare_transient(world: &mut World) {
    let mut client = Client::open(world, 0);
    declare_queues(&mut client, world, |queue| !is_durable(queue));
    assert!(client.closed_channels.is_empty(), "{:?}", client.closed_channels);
    client.close(world);
}

fn declare_queues(client: &mut Client, world: &mut World, which: impl Fn(usize) -> bool) {
    for queue in (0..LASTING_QUEUES).filter(|queue| which(*queue)) {
        let name = lasting(queue);
        let declare = QueueDeclare { durable: is_durable(queue), ..declare_queue(&name) };
        client.request(world, 1, &declare);
    }
    for (queue, exchange, key) in BINDINGS.into_iter().filter(|(queue, ..)| which(*queue)) {
        client.request(world, 1, &bind_queue(&lasting(queue), exchange, key));
    }
}

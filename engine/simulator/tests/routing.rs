//! From exchange to exchange to queues, and where no way leads.

use leveret_amqp::method::{
    ExchangeBind, ExchangeDeclare, ExchangeDelete, QueueDeclare, QueueUnbind,
};
use leveret_amqp::{Method, TableBuilder, TableRef};
use leveret_simulator::client::Client;
use leveret_simulator::client::methods::{bind_queue, consume, declare_exchange};
use leveret_simulator::world::World;

fn bind_exchange<'a>(destination: &'a str, source: &'a str, key: &'a str) -> ExchangeBind<'a> {
    ExchangeBind {
        destination,
        source,
        routing_key: key.as_bytes(),
        nowait: false,
        arguments: TableRef::EMPTY,
    }
}

/// Two queues consumed on the last shard without acknowledgement, and a publisher on the first.
fn listened(shards: u16) -> (World, Client, Client) {
    let mut world = World::calm(shards);
    let publisher = Client::open(&mut world, 0);
    let mut listener = Client::open(&mut world, shards - 1);
    for queue in ["a", "b"] {
        listener.request(&mut world, 1, &QueueDeclare::named(queue));
        let mut all = consume(queue, queue);
        all.no_ack = true;
        listener.request(&mut world, 1, &all);
    }
    (world, publisher, listener)
}

fn tags(world: &mut World, listener: &mut Client) -> String {
    let mut tags: Vec<_> =
        listener.deliveries(world).into_iter().map(|delivery| delivery.consumer_tag).collect();
    tags.sort();
    tags.concat()
}

#[test]
fn a_binding_holds_everywhere_once_it_is_answered() {
    for shards in [1, 3] {
        let (mut world, mut publisher, mut listener) = listened(shards);
        for round in 0..20 {
            let key = format!("key-{round}");
            listener.request(&mut world, 1, &bind_queue("a", "amq.direct", &key));
            publisher.publish(&mut world, 1, ("amq.direct", &key), true, b"x");
            publisher.settle(&mut world);
            assert!(publisher.take().is_empty(), "not returned");
            assert_eq!(tags(&mut world, &mut listener), "a");
            let unbind = QueueUnbind {
                queue: "a",
                exchange: "amq.direct",
                routing_key: key.as_bytes(),
                arguments: TableRef::EMPTY,
            };
            listener.request(&mut world, 1, &unbind);
            publisher.publish(&mut world, 1, ("amq.direct", &key), true, b"x");
            publisher.settle(&mut world);
            let returned = publisher.take();
            assert!(matches!(returned[0].method(), Some(Method::BasicReturn(_))));
            assert_eq!(tags(&mut world, &mut listener), "");
        }
    }
}

#[test]
fn messages_go_through_exchanges_once_to_each_queue() {
    for shards in [1, 3] {
        let (mut world, mut publisher, mut listener) = listened(shards);
        for (exchange, kind) in [("in", "topic"), ("mid", "fanout"), ("out", "direct")] {
            listener.request(&mut world, 1, &declare_exchange(exchange, kind, TableRef::EMPTY));
        }
        listener.request(&mut world, 1, &bind_exchange("mid", "in", "*.error"));
        listener.request(&mut world, 1, &bind_exchange("out", "in", "#"));
        // A cycle, which must not go round.
        listener.request(&mut world, 1, &bind_exchange("in", "mid", ""));
        listener.request(&mut world, 1, &bind_queue("a", "mid", ""));
        listener.request(&mut world, 1, &bind_queue("a", "out", "disk.error"));
        listener.request(&mut world, 1, &bind_queue("b", "out", "disk.info"));
        for (key, expected) in
            [("disk.error", "a"), ("disk.info", "b"), ("cpu.error", "a"), ("cpu.info", "")]
        {
            publisher.publish(&mut world, 1, ("in", key), false, b"x");
            publisher.settle(&mut world);
            assert_eq!(tags(&mut world, &mut listener), expected, "{key}");
        }
    }
}

#[test]
fn an_alternate_exchange_takes_what_has_no_way() {
    for shards in [1, 3] {
        let (mut world, mut publisher, mut listener) = listened(shards);
        let arguments = TableBuilder::new().long_str("alternate-exchange", "rest").finish();
        listener.request(&mut world, 1, &declare_exchange("rest", "fanout", TableRef::EMPTY));
        listener.request(&mut world, 1, &declare_exchange("main", "direct", arguments.as_ref()));
        listener.request(&mut world, 1, &bind_queue("a", "main", "known"));
        listener.request(&mut world, 1, &bind_queue("b", "rest", ""));
        publisher.publish(&mut world, 1, ("main", "known"), true, b"x");
        publisher.settle(&mut world);
        assert_eq!(tags(&mut world, &mut listener), "a");
        publisher.publish(&mut world, 1, ("main", "unknown"), true, b"x");
        publisher.settle(&mut world);
        assert_eq!(tags(&mut world, &mut listener), "b");
        assert!(publisher.take().is_empty(), "it was routed after all");
        listener.request(
            &mut world,
            1,
            &ExchangeDelete { exchange: "rest", if_unused: false, nowait: false },
        );
        publisher.publish(&mut world, 1, ("main", "unknown"), true, b"x");
        publisher.settle(&mut world);
        assert!(matches!(publisher.take()[0].method(), Some(Method::BasicReturn(_))));
    }
}

#[test]
fn an_auto_delete_exchange_goes_with_its_last_binding() {
    for shards in [1, 3] {
        let (mut world, mut publisher, mut listener) = listened(shards);
        let declare = ExchangeDeclare {
            auto_delete: true,
            ..declare_exchange("brief", "fanout", TableRef::EMPTY)
        };
        listener.request(&mut world, 1, &declare);
        listener.request(&mut world, 1, &bind_queue("a", "brief", ""));
        publisher.publish(&mut world, 1, ("brief", ""), false, b"x");
        publisher.settle(&mut world);
        assert_eq!(tags(&mut world, &mut listener), "a");
        listener.request(&mut world, 1, &leveret_simulator::client::methods::delete_queue("a"));
        publisher.publish(&mut world, 1, ("brief", ""), false, b"x");
        publisher.settle(&mut world);
        let (_, closed) = &publisher.closed_channels[0];
        assert_eq!((closed.code, closed.method), (404, (60, 40)));
        assert_eq!(closed.text, "NOT_FOUND - no exchange 'brief' in vhost '/'");
    }
}

/// Publishers mostly repeat themselves, and the broker makes use of it: a message must be read for
/// itself all the same, whatever came before it in the same buffer.
#[test]
fn a_message_is_what_it_says_whatever_the_one_before_was() {
    const BODY: [u8; 700] = [b'.'; 700];
    let (mut world, mut publisher, mut listener) = listened(1);
    publisher.open_channel(&mut world, 2);
    let mut expected = [const { Vec::new() }; 2];
    // Runs of alike messages, each run from the last one different in one thing.
    let runs = [
        (1, "a", false, 16, 4),
        (1, "a", false, 17, 3),
        (1, "a", false, 0, 3),
        (1, "a", false, 600, 3),
        (1, "b", false, 600, 1),
        (1, "a", false, 600, 4),
        (2, "a", false, 600, 3),
        (1, "a", true, 16, 3),
        (1, "nobody", true, 16, 3),
        (1, "nobody", false, 16, 3),
        (1, "nobody", true, 0, 3),
        (2, "b", true, 16, 3),
        (1, "b", false, 1, 5),
    ];
    let mut returned = Vec::new();
    for (channel, queue, mandatory, size, count) in runs {
        for _ in 0..count {
            publisher.publish(&mut world, channel, ("", queue), mandatory, &BODY[..size]);
            match queue {
                "a" => expected[0].push(size),
                "b" => expected[1].push(size),
                _ if mandatory => returned.push(size),
                _ => {}
            }
        }
    }
    publisher.settle(&mut world);
    let deliveries = listener.deliveries(&mut world);
    let sizes = |queue: &str| -> Vec<usize> {
        let of_queue = deliveries.iter().filter(|delivery| delivery.consumer_tag == queue);
        of_queue.map(|delivery| delivery.body.len()).collect()
    };
    assert_eq!([sizes("a"), sizes("b")], expected);
    let incoming: Vec<_> = publisher.take().iter().map(|incoming| incoming.body().len()).collect();
    assert_eq!(incoming, returned);
}

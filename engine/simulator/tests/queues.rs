//! Queues and what ends them.

use leveret_amqp::Method;
use leveret_amqp::method::{BasicGet, ChannelClose, QueueDeclare, QueueDelete, QueuePurge};
use leveret_broker::id::VhostId;
use leveret_broker::queue::Queue;
use leveret_broker::settings::Settings;
use leveret_simulator::client::Client;
use leveret_simulator::client::methods::{consume, delete_queue};
use leveret_simulator::client::stream::Incoming;
use leveret_simulator::world::World;
use leveret_simulator::world::faults::Faults;

fn counts(client: &mut Client, world: &mut World, queue: &str) -> (u32, u32) {
    let passive = QueueDeclare { passive: true, ..QueueDeclare::named(queue) };
    let incoming = client.request(world, 1, &passive);
    let Some(Method::QueueDeclareOk(ok)) = incoming.method() else { panic!("{incoming:?}") };
    (ok.message_count, ok.consumer_count)
}

#[test]
fn an_exclusive_queue_belongs_to_its_connection_and_goes_with_it() {
    for shards in [1, 3] {
        for reset in [false, true] {
            let mut world = World::calm(shards);
            let mut owner = Client::open(&mut world, shards - 1);
            let mut other = Client::open(&mut world, 0);
            let declare = QueueDeclare { exclusive: true, ..QueueDeclare::named("mine") };
            owner.request(&mut world, 1, &declare);
            other.request(&mut world, 1, &consume("mine", "c"));
            let (_, closed) = other.closed_channels.remove(0);
            assert_eq!((closed.code, closed.method), (405, (60, 20)), "{}", closed.text);
            if reset {
                world.reset(owner.socket);
                world.run(100_000);
            } else {
                // Close-ok means that the name is free again.
                owner.close(&mut world);
            }
            other.open_channel(&mut world, 1);
            let incoming = other.request(&mut world, 1, &QueueDeclare::named("mine"));
            assert!(matches!(incoming.method(), Some(Method::QueueDeclareOk(_))), "{incoming:?}");
        }
    }
}

/// How a consumer ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Channel,
    Connection,
    ChannelException,
    ConnectionException,
}

/// Has the client end in this way.
fn end(client: &mut Client, world: &mut World, end: End) {
    match end {
        End::Channel => {
            let (class_id, method_id) = (0, 0);
            let close = ChannelClose { reply_code: 200, reply_text: "bye", class_id, method_id };
            client.send(world, 1, &close);
        }
        End::Connection => client.send_close(world),
        End::ChannelException => client.send(world, 1, &consume("no such queue", "d")),
        // A consumer tag twice.
        End::ConnectionException => client.send(world, 1, &consume("kept", "c")),
    }
}

/// Whether the client was told that it has ended.
fn hears_end(client: &mut Client, world: &mut World) -> bool {
    client.receive(world).expect("the server speaks AMQP");
    let is_end = |method| matches!(method, Method::ChannelCloseOk(_) | Method::ChannelClose(_));
    let channel_ended = client.take().iter().filter_map(Incoming::method).any(is_end);
    channel_ended || client.left || client.closed.is_some()
}

#[test]
fn who_hears_of_an_end_finds_nothing_of_it_left() {
    use End::{Channel, ChannelException, Connection, ConnectionException};
    for (seed, shards) in (0..8).flat_map(|seed| [(seed, 1), (seed, 3)]) {
        for how in [Channel, Connection, ChannelException, ConnectionException] {
            let mut world = World::new(seed, shards, Faults::none(), Settings::default());
            let mut declarer = Client::open(&mut world, shards - 1);
            let mut consumer = Client::open(&mut world, 0);
            let passing = QueueDeclare { auto_delete: true, ..QueueDeclare::named("passing") };
            declarer.request(&mut world, 1, &passing);
            declarer.request(&mut world, 1, &QueueDeclare::named("kept"));
            consumer.request(&mut world, 1, &consume("passing", "p"));
            consumer.request(&mut world, 1, &consume("kept", "c"));
            declarer.publish(&mut world, 1, ("", "kept"), false, b"unacked");
            assert_eq!(consumer.deliveries(&mut world).len(), 1);

            end(&mut consumer, &mut world, how);
            while !hears_end(&mut consumer, &mut world) {
                assert!(world.step(), "{how:?}: no word of the end");
            }

            let case = format!("{how:?}, seed {seed}, {shards} shards");
            for shard in world.shards() {
                let found = shard.backend().topology.queue(VhostId(0), b"passing");
                assert!(found.is_none(), "{case}: the auto-delete queue is still there");
            }
            let ready = |queue: &&Queue| queue.kind.ready_count() == 1;
            let queues = world.shards().iter().flat_map(|shard| shard.backend().home.queues());
            let back = queues.filter(ready).count();
            assert_eq!(back, 1, "{case}: the message is not back yet");
        }
    }
}

#[test]
fn purge_and_delete_count_what_they_drop() {
    for shards in [1, 3] {
        let mut world = World::calm(shards);
        let mut client = Client::open(&mut world, shards - 1);
        let mut publisher = Client::open(&mut world, 0);
        for queue in ["a", "b", "c", "d"] {
            client.request(&mut world, 1, &QueueDeclare::named(queue));
            for _ in 0..5 {
                publisher.publish(&mut world, 1, ("", queue), false, b"x");
            }
            publisher.settle(&mut world);
            // One is given out: it stays.
            client.request(&mut world, 1, &BasicGet { queue, no_ack: false });
            assert_eq!(counts(&mut client, &mut world, queue), (4, 0));
            let incoming = client.request(&mut world, 1, &QueuePurge { queue, nowait: false });
            let Some(Method::QueuePurgeOk(ok)) = incoming.method() else { panic!("{incoming:?}") };
            assert_eq!(ok.message_count, 4);
            publisher.publish(&mut world, 1, ("", queue), false, b"x");
            publisher.settle(&mut world);
            let incoming = client.request(&mut world, 1, &delete_queue(queue));
            let Some(Method::QueueDeleteOk(ok)) = incoming.method() else { panic!("{incoming:?}") };
            assert_eq!(ok.message_count, 1);
        }
        assert!(world.shards().iter().all(|shard| shard.backend().home.store().messages() == 0));
    }
}

#[test]
fn deletion_can_be_conditional() {
    for shards in [1, 3] {
        let mut world = World::calm(shards);
        let mut client = Client::open(&mut world, shards - 1);
        client.request(&mut world, 1, &QueueDeclare::named("q"));
        client.publish(&mut world, 1, ("", "q"), false, b"x");
        let if_empty = QueueDelete { if_empty: true, ..delete_queue("q") };
        client.request(&mut world, 1, &if_empty);
        client.open_channel(&mut world, 1);
        client.request(&mut world, 1, &consume("q", "c"));
        client.deliveries(&mut world);
        client.open_channel(&mut world, 2);
        let if_unused = QueueDelete { if_unused: true, ..delete_queue("q") };
        client.request(&mut world, 2, &if_unused);
        let texts: Vec<_> =
            client.closed_channels.iter().map(|(_, closed)| closed.text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty",
                "PRECONDITION_FAILED - queue 'q' in vhost '/' in use",
            ]
        );
    }
}

#[test]
fn a_server_named_queue_is_the_channels_last_one() {
    for shards in [1, 3] {
        let mut world = World::calm(shards);
        let mut client = Client::open(&mut world, shards - 1);
        let incoming = client.request(&mut world, 1, &QueueDeclare::named(""));
        let Some(Method::QueueDeclareOk(ok)) = incoming.method() else { panic!("{incoming:?}") };
        let name = ok.queue.to_owned();
        assert!(name.starts_with("amq.gen-"), "{name}");
        client.publish(&mut world, 1, ("", &name), true, b"to you");
        let incoming = client.request(&mut world, 1, &BasicGet { queue: "", no_ack: true });
        assert_eq!(incoming.body(), b"to you");
    }
}

#[test]
fn declarations_that_differ_are_refused_and_race_without_harm() {
    for shards in [1, 3] {
        let mut world = World::calm(shards);
        let mut clients: Vec<Client> =
            (0..4).map(|number| Client::open(&mut world, number % shards)).collect();
        for round in 0..10 {
            let name = format!("raced-{round}");
            for (number, client) in clients.iter().enumerate() {
                let declare = QueueDeclare { durable: number == 3, ..QueueDeclare::named(&name) };
                let mut out = Vec::new();
                leveret_amqp::encode_frame(1, &declare, &mut out);
                world.write(client.socket, &out);
            }
            let mut won = 0;
            for client in &mut clients {
                client.settle(&mut world);
                let ok = client
                    .take()
                    .iter()
                    .any(|incoming| matches!(incoming.method(), Some(Method::QueueDeclareOk(_))));
                won += usize::from(ok);
                if let Some((_, closed)) = client.closed_channels.pop() {
                    assert_eq!((closed.code, closed.method), (406, (50, 10)));
                    client.open_channel(&mut world, 1);
                }
            }
            assert!(won == 3 || won == 1, "either all plain ones or the durable one: {won}");
        }
    }
}

//! Alarms: publishers are held back and told why, and nobody else notices.

use leveret_amqp::Method;
use leveret_amqp::limits::Tune;
use leveret_amqp::method::{BasicAck, BasicGet, ConfirmSelect, QueueDeclare};
use leveret_broker::alarms::Alarms;
use leveret_simulator::client::Client;
use leveret_simulator::client::methods::consume;
use leveret_simulator::world::World;

const SECOND_NS: u64 = 1_000_000_000;
const NONE: Alarms = Alarms { memory: false, disk: false };
const MEMORY: Alarms = Alarms { memory: true, disk: false };
const DISK: Alarms = Alarms { memory: false, disk: true };
const BOTH: Alarms = Alarms { memory: true, disk: true };

/// How many messages a queue holds.
fn count(client: &mut Client, world: &mut World, queue: &str) -> u32 {
    let passive = QueueDeclare { passive: true, ..QueueDeclare::named(queue) };
    match client.request(world, 1, &passive).method() {
        Some(Method::QueueDeclareOk(ok)) => ok.message_count,
        other => panic!("{other:?}"),
    }
}

fn blocked_connections(world: &World) -> usize {
    world.shards().iter().map(|shard| shard.report(false).blocked.alarm).sum()
}

#[test]
fn the_next_publish_is_the_last_thing_read() {
    for shards in [1, 3] {
        let mut world = World::calm(shards);
        let mut publisher = Client::open(&mut world, 0);
        let mut observer = Client::open(&mut world, shards - 1);
        publisher.request(&mut world, 1, &QueueDeclare::named("q"));
        publisher.publish(&mut world, 1, ("", "q"), false, b"before");
        publisher.settle(&mut world);
        world.alarm_all(MEMORY);
        publisher.settle(&mut world);
        assert_eq!(publisher.blocked, None, "it has not published since");
        publisher.request(&mut world, 1, &QueueDeclare::named("other"));
        assert_eq!(publisher.blocked, None, "and may do anything else");

        publisher.publish(&mut world, 1, ("", "q"), false, b"held back");
        publisher.publish(&mut world, 1, ("", "q"), false, b"unread");
        publisher.settle(&mut world);
        assert_eq!(publisher.blocked.as_deref(), Some("low on memory"));
        assert_eq!(count(&mut observer, &mut world, "q"), 1);
        assert_eq!(blocked_connections(&world), 1);
        // Which alarm it is makes no difference any more.
        for alarms in [BOTH, DISK] {
            world.alarm_all(alarms);
            publisher.settle(&mut world);
            assert_eq!(publisher.blocked.as_deref(), Some("low on memory"));
        }
        world.alarm_all(NONE);
        publisher.settle(&mut world);
        assert_eq!(publisher.blocked, None);
        assert_eq!(count(&mut observer, &mut world, "q"), 3);
        assert_eq!(blocked_connections(&world), 0);
        publisher.close(&mut world);
        observer.close(&mut world);
        assert_eq!(world.lent_buffers(), 0);
    }
}

#[test]
fn the_reason_is_what_runs_out_when_the_publish_comes() {
    let cases = [(MEMORY, "low on memory"), (DISK, "low on disk"), (BOTH, "low on disk & memory")];
    for (alarms, reason) in cases {
        let mut world = World::calm(1);
        world.alarm_all(alarms);
        let mut late = Client::open(&mut world, 0);
        assert_eq!(late.blocked, None);
        // A message without a body is whole with its header: it gets in and is the last one.
        late.request(&mut world, 1, &QueueDeclare::named("q"));
        late.request(&mut world, 1, &ConfirmSelect { nowait: false });
        late.publish(&mut world, 1, ("", "q"), false, b"");
        late.settle(&mut world);
        assert_eq!(late.blocked.as_deref(), Some(reason));
        let incoming = late.take();
        assert!(matches!(incoming[0].method(), Some(Method::BasicAck(_))), "{incoming:?}");
    }
}

#[test]
fn a_publish_that_fails_counts_too() {
    let mut world = World::calm(1);
    let mut client = Client::open(&mut world, 0);
    world.alarm_all(DISK);
    client.publish(&mut world, 1, ("missing", "q"), false, b"");
    client.settle(&mut world);
    assert_eq!(client.closed_channels.first().map(|(_, closed)| closed.code), Some(404));
    assert_eq!(client.blocked.as_deref(), Some("low on disk"));
    world.alarm_all(NONE);
    client.settle(&mut world);
    client.open_channel(&mut world, 1);
    client.close(&mut world);
}

#[test]
fn a_client_that_cannot_be_told_is_held_back_all_the_same() {
    let mut world = World::calm(1);
    let tune = Tune { heartbeat: 0, ..Tune::SERVER_DEFAULT };
    let mut publisher = Client::connect(&mut world, 0, tune);
    publisher.supports_blocked = false;
    publisher.settle(&mut world);
    publisher.open_channel(&mut world, 1);
    publisher.request(&mut world, 1, &QueueDeclare::named("q"));
    world.alarm_all(DISK);
    for _ in 0..3 {
        publisher.publish(&mut world, 1, ("", "q"), false, b"x");
    }
    publisher.send(&mut world, 1, &QueueDeclare::named("later"));
    publisher.settle(&mut world);
    assert_eq!(blocked_connections(&world), 1);
    assert!(publisher.incoming.is_empty(), "{:?}", publisher.incoming);
    world.alarm_all(NONE);
    publisher.settle(&mut world);
    assert!(matches!(publisher.take()[0].method(), Some(Method::QueueDeclareOk(_))));
    assert_eq!(count(&mut publisher, &mut world, "q"), 3);
}

#[test]
fn consumers_go_on_and_a_blocked_connection_is_blocked_wholly() {
    for shards in [1, 3] {
        let mut world = World::calm(shards);
        let mut both = Client::open(&mut world, 0);
        let mut consumer = Client::open(&mut world, shards - 1);
        both.request(&mut world, 1, &QueueDeclare::named("q"));
        for _ in 0..10 {
            both.publish(&mut world, 1, ("", "q"), false, b"x");
        }
        both.settle(&mut world);
        world.alarm_all(MEMORY);
        consumer.request(&mut world, 1, &consume("q", "c"));
        let delivered = consumer.deliveries(&mut world);
        assert_eq!(delivered.len(), 10);
        consumer.send(&mut world, 1, &BasicAck { delivery_tag: 8, multiple: true });
        consumer.settle(&mut world);
        assert_eq!(
            world.shards().iter().map(|s| s.report(false).messages_unacked).sum::<usize>(),
            2
        );
        consumer.close(&mut world);

        // What it consumes still reaches it; what it says is not heard.
        both.request(&mut world, 1, &consume("q", "c"));
        let delivered = both.deliveries(&mut world);
        assert_eq!(delivered.len(), 2);
        both.publish(&mut world, 1, ("", "q"), false, b"y");
        both.send(&mut world, 1, &BasicAck { delivery_tag: 2, multiple: true });
        both.settle(&mut world);
        assert!(both.blocked.is_some());
        let unacked = |world: &World| -> usize {
            world.shards().iter().map(|shard| shard.report(false).messages_unacked).sum()
        };
        assert_eq!(unacked(&world), 2, "the ack is not read");
        world.alarm_all(NONE);
        assert_eq!(both.deliveries(&mut world).len(), 1);
        assert_eq!(unacked(&world), 1, "the message that was held back");
    }
}

#[test]
fn silence_of_a_blocked_connection_is_no_death_and_it_hears_heartbeats() {
    let mut world = World::calm(1);
    let tune = Tune { heartbeat: 10, ..Tune::SERVER_DEFAULT };
    let mut blocked = Client::open_with(&mut world, 0, tune);
    let mut silent = Client::open_with(&mut world, 0, tune);
    world.alarm_all(MEMORY);
    blocked.publish(&mut world, 1, ("", "nowhere"), false, b"x");
    blocked.settle(&mut world);
    blocked.take();
    for _ in 0..20 {
        world.advance(5 * SECOND_NS + 1_000_000);
        blocked.settle(&mut world);
        silent.settle(&mut world);
    }
    assert!(world.is_closed(silent.socket), "it is not blocked, so it is judged");
    assert!(!world.is_closed(blocked.socket));
    assert!(blocked.take().len() >= 8, "one heartbeat an interval");
    // Unblocked, it is judged again.
    world.alarm_all(NONE);
    for _ in 0..7 {
        world.advance(5 * SECOND_NS + 1_000_000);
        blocked.settle(&mut world);
    }
    assert!(world.is_closed(blocked.socket));
    assert_eq!(world.lent_buffers(), 0);
}

#[test]
fn a_blocked_client_that_leaves_is_answered_when_it_is_heard_again() {
    // What they send comes in few pieces: a socket that was paused would not notice its end.
    let faults = leveret_simulator::world::faults::Faults::none();
    let mut world = World::new(2, 1, faults, leveret_broker::settings::Settings::default());
    let mut answers_close = Client::open(&mut world, 0);
    let mut rude = Client::open(&mut world, 0);
    world.alarm_all(MEMORY);
    for client in [&mut answers_close, &mut rude] {
        client.publish(&mut world, 1, ("", "nowhere"), false, b"x");
        client.settle(&mut world);
        assert!(client.blocked.is_some());
    }
    answers_close.send_close(&mut world);
    answers_close.settle(&mut world);
    assert!(!answers_close.left && !world.is_closed(answers_close.socket));
    // A connection that is reset is gone at once.
    world.reset(rude.socket);
    world.run(1_000_000);
    assert!(world.is_closed(rude.socket));
    assert_eq!(blocked_connections(&world), 1);
    world.alarm_all(NONE);
    answers_close.settle(&mut world);
    assert!(
        answers_close.left
            && answers_close.blocked.is_none()
            && world.is_closed(answers_close.socket)
    );
    assert_eq!(world.lent_buffers(), 0);
}

#[test]
fn a_stopped_broker_takes_leave_of_blocked_clients_too() {
    let mut world = World::calm(1);
    let mut client = Client::open(&mut world, 0);
    world.alarm_all(BOTH);
    for _ in 0..5 {
        client.publish(&mut world, 1, ("", "nowhere"), false, &vec![0; 30_000]);
    }
    client.settle(&mut world);
    assert!(client.blocked.is_some());
    world.stop();
    client.settle(&mut world);
    assert_eq!(client.closed.as_ref().map(|closed| closed.code), Some(320));
    assert!(world.is_closed(client.socket));
    assert!(world.shards().iter().all(leveret_broker::shard::Shard::is_stopped));
}

#[test]
fn what_a_blocked_publisher_sends_meanwhile_stays_in_its_socket() {
    let mut world = World::calm(1);
    let mut publisher = Client::open(&mut world, 0);
    let mut observer = Client::open(&mut world, 0);
    publisher.request(&mut world, 1, &QueueDeclare::named("q"));
    world.alarm_all(DISK);
    for _ in 0..200 {
        publisher.publish(&mut world, 1, ("", "q"), false, &vec![7; 20_000]);
    }
    publisher.settle(&mut world);
    assert!(world.lent_buffers() <= 4, "{} buffers are held", world.lent_buffers());
    let held = world.shards()[0].report(false).memory_bytes;
    assert!(held < 20_000, "nothing has got in: {held} bytes");
    for alarms in [NONE, MEMORY].repeat(20) {
        world.alarm_all(alarms);
        for _ in 0..world.random.below(60) {
            world.step();
        }
    }
    world.alarm_all(NONE);
    publisher.settle(&mut world);
    assert_eq!(publisher.blocked, None);
    assert_eq!(count(&mut observer, &mut world, "q"), 200);
    assert!(world.shards()[0].report(false).memory_bytes > 200 * 20_000);
    for _ in 0..200 {
        let incoming = observer.request(&mut world, 1, &BasicGet { queue: "q", no_ack: true });
        assert_eq!(incoming.body().len(), 20_000);
    }
    assert_eq!(world.lent_buffers(), 0);
}

//! Connections: handshake, limits, silence and every kind of end.

use leveret_amqp::client::Hello;
use leveret_amqp::frame::PROTOCOL_HEADER;
use leveret_amqp::limits::Tune;
use leveret_amqp::method::{
    BasicGet, BasicQos, ChannelCloseOk, ChannelOpen, ConnectionCloseOk, QueueDeclare,
};
use leveret_amqp::{Method, encode_frame};
use leveret_simulator::client::Client;
use leveret_simulator::client::methods::consume;
use leveret_simulator::client::stream::Incoming;
use leveret_simulator::world::World;
use leveret_simulator::world::faults::Faults;

const SECOND_NS: u64 = 1_000_000_000;
const TUNE: Tune = Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 0 };

#[test]
fn a_handshake_that_takes_too_long_is_cut() {
    let mut world = World::calm(1);
    let silent = world.connect(0);
    let slow = world.connect(0);
    world.write(slow, &PROTOCOL_HEADER[..7]);
    let mut quick = Client::open(&mut world, 0);
    world.advance(9 * SECOND_NS);
    world.run(1_000);
    assert!(!world.is_closed(silent) && !world.is_closed(slow));
    world.advance(2 * SECOND_NS);
    world.run(1_000);
    assert!(world.is_closed(silent) && world.is_closed(slow));
    quick.close(&mut world);
    assert_eq!(world.lent_buffers(), 0);
}

#[test]
fn another_protocol_is_told_ours() {
    let mut world = World::calm(1);
    for hello in [&b"AMQP\0\x01\0\0"[..], b"GET / HTTP/1.1\r\n\r\n", b"AMQP\x01\x01\x08\x00"] {
        let socket = world.connect(0);
        world.write(socket, hello);
        world.run(1_000);
        assert_eq!(world.read(socket), PROTOCOL_HEADER);
        assert!(world.is_closed(socket));
    }
    assert_eq!(world.lent_buffers(), 0);
}

#[test]
fn a_silent_peer_is_given_up_and_an_idle_one_hears_heartbeats() {
    let mut world = World::calm(1);
    let tune = Tune { heartbeat: 10, ..TUNE };
    let mut silent = Client::open_with(&mut world, 0, tune);
    let mut alive = Client::open_with(&mut world, 0, tune);
    let mut heartbeats = 0;
    for half in 0..12 {
        world.advance(5 * SECOND_NS + 1_000_000);
        world.write(alive.socket, &leveret_amqp::frame::HEARTBEAT);
        alive.settle(&mut world);
        silent.settle(&mut world);
        heartbeats +=
            alive.take().iter().filter(|incoming| **incoming == Incoming::Heartbeat).count();
        if half < 3 {
            assert!(!world.is_closed(silent.socket), "two intervals are allowed");
        }
    }
    assert!(world.is_closed(silent.socket));
    assert!(!world.is_closed(alive.socket));
    // As from RabbitMQ one an interval: looked for each half, and the last one counts as traffic.
    assert!((5..=7).contains(&heartbeats), "{heartbeats}");
}

#[test]
fn a_stopped_broker_tells_its_clients_320() {
    for shards in [1, 3] {
        for seed in 0..30 {
            let mut faults = Faults::none();
            faults.lane_batches = 1;
            let mut world =
                World::new(seed, shards, faults, leveret_broker::settings::Settings::default());
            let mut idle = Client::open(&mut world, 0);
            let mut blocked = Client::open(&mut world, shards - 1);
            // It waits for an answer, with more behind it, when the broker stops.
            for name in ["a", "b", "c"] {
                blocked.send(&mut world, 1, &QueueDeclare::named(name));
                blocked.publish(&mut world, 1, ("", name), false, &vec![1; 40_000]);
            }
            for _ in 0..world.random.below(40) {
                world.step();
            }
            world.stop();
            for client in [&mut idle, &mut blocked] {
                client.settle(&mut world);
                let closed = client.closed.clone().expect("a word before the end");
                assert_eq!((closed.code, closed.method), (320, (0, 0)));
                assert!(closed.text.starts_with("CONNECTION_FORCED - "), "{}", closed.text);
                assert!(world.is_closed(client.socket), "at once, not after a time-out");
            }
            assert!(world.shards().iter().all(leveret_broker::shard::Shard::is_stopped));
            assert_eq!(world.lent_buffers(), 0, "seed {seed}");
        }
    }
}

#[test]
fn large_messages_are_cut_to_each_receivers_frames() {
    for shards in [1, 3] {
        let mut world = World::calm(shards);
        let mut small = Client::open_with(&mut world, shards - 1, Tune { frame_max: 4096, ..TUNE });
        let mut large = Client::open(&mut world, 0);
        small.request(&mut world, 1, &QueueDeclare::named("q"));
        // The stream checks each frame against the negotiated size.
        for size in [0, 1, 511, 512, 513, 4087, 4088, 4089, 16_384, 131_064, 131_065, 1 << 20] {
            let body: Vec<u8> = (0..size).map(|at: usize| (at * 7) as u8).collect();
            large.publish(&mut world, 1, ("", "q"), false, &body);
            large.settle(&mut world);
            let incoming = small.request(&mut world, 1, &BasicGet { queue: "q", no_ack: true });
            assert_eq!(incoming.body(), body, "{size}");
            small.publish(&mut world, 1, ("", "q"), false, &body);
            small.settle(&mut world);
            let incoming = large.request(&mut world, 1, &BasicGet { queue: "q", no_ack: true });
            assert_eq!(incoming.body(), body, "{size}");
        }
        assert_eq!(world.lent_buffers(), 0);
    }
}

#[test]
fn channels_do_not_disturb_each_other() {
    for shards in [1, 3] {
        let mut world = World::calm(shards);
        let mut client = Client::open(&mut world, 0);
        client.request(&mut world, 1, &QueueDeclare::named("q"));
        for channel in 2..=200 {
            client.open_channel(&mut world, channel);
        }
        for channel in 2..=200 {
            client.send(
                &mut world,
                channel,
                &BasicQos { prefetch_size: 0, prefetch_count: 1, global: false },
            );
            client.send(&mut world, channel, &consume("q", "same-tag"));
        }
        client.settle(&mut world);
        client.take();
        for _ in 0..250 {
            client.publish(&mut world, 1, ("", "q"), false, b"x");
        }
        let mut channels: Vec<u16> =
            client.deliveries(&mut world).iter().map(|delivery| delivery.channel).collect();
        channels.sort_unstable();
        assert_eq!(channels, (2..=200).collect::<Vec<_>>(), "one for each");
        client.close(&mut world);
        assert!(world.shards().iter().all(|shard| shard.backend().home.channels() == 0));
    }
}

#[test]
fn a_closing_channel_swallows_everything_but_its_end() {
    for shards in [1, 3] {
        let mut world = World::calm(shards);
        let mut client = Client::open(&mut world, 0);
        client.answers_close = false;
        client.request(&mut world, 1, &QueueDeclare::named("q"));
        client.publish(&mut world, 1, ("no-such-exchange", ""), false, b"closes the channel");
        client.publish(&mut world, 1, ("", "q"), false, &[3; 9_000]);
        client.send(&mut world, 1, &QueueDeclare::named("swallowed"));
        client.settle(&mut world);
        assert_eq!(client.closed_channels.len(), 1);
        assert_eq!(client.closed_channels[0].1.code, 404);
        client.send(&mut world, 1, &ChannelCloseOk {});
        client.take();
        client.open_channel(&mut world, 1);
        let incoming = client.request(&mut world, 1, &BasicGet { queue: "q", no_ack: true });
        assert!(matches!(incoming.method(), Some(Method::BasicGetEmpty(_))));
        let passive = QueueDeclare { passive: true, ..QueueDeclare::named("swallowed") };
        client.request(&mut world, 1, &passive);
        assert_eq!(client.closed_channels[1].1.code, 404);
    }
}

#[test]
fn a_client_that_never_agrees_to_the_end_is_cut() {
    let mut world = World::calm(1);
    let mut client = Client::open(&mut world, 0);
    client.answers_close = false;
    client.open_channel(&mut world, 2);
    client.send(&mut world, 2, &ChannelOpen {});
    client.settle(&mut world);
    assert_eq!(client.closed.as_ref().map(|closed| closed.code), Some(504));
    client.send(&mut world, 1, &QueueDeclare::named("ignored"));
    client.settle(&mut world);
    assert!(!world.is_closed(client.socket));
    world.advance(31 * SECOND_NS);
    world.run(1_000);
    assert!(world.is_closed(client.socket));
}

#[test]
fn a_consumer_that_does_not_read_costs_a_bounded_outbox() {
    for shards in [1, 3] {
        let faults = Faults { window_bytes: 1_000, outbox_high_bytes: 64 << 10, ..Faults::none() };
        let settings = leveret_broker::settings::Settings::default();
        let mut world = World::new(7, shards, faults, settings);
        let mut publisher = Client::open(&mut world, 0);
        let mut consumer = Client::open(&mut world, shards - 1);
        consumer.request(&mut world, 1, &QueueDeclare::named("q"));
        let mut all = consume("q", "c");
        all.no_ack = true;
        consumer.request(&mut world, 1, &all);
        for number in 0..400_u16 {
            let mut body = vec![0; 20_000];
            body[..2].copy_from_slice(&number.to_be_bytes());
            publisher.publish(&mut world, 1, ("", "q"), false, &body);
            publisher.settle(&mut world);
        }
        // The watermark and one message; from afar also what the mesh holds before it stops.
        let under_way = if shards == 1 { 0 } else { 1_500 << 10 };
        for shard in world.shards() {
            for writer in shard.backend().outputs.writers.iter() {
                let waiting = writer.outbox.len();
                assert!(waiting <= (64 << 10) + 21_000 + under_way, "{waiting} bytes");
            }
        }
        let delivered = consumer.deliveries(&mut world);
        let numbers: Vec<u16> = delivered
            .iter()
            .map(|delivery| u16::from_be_bytes([delivery.body[0], delivery.body[1]]))
            .collect();
        assert_eq!(numbers, (0..400).collect::<Vec<_>>());
        assert_eq!(world.lent_buffers(), 0);
    }
}

#[test]
fn a_session_may_be_cut_at_every_byte() {
    let mut session = PROTOCOL_HEADER.to_vec();
    session.extend(login());
    for shards in [1, 3] {
        for cut in 0..=session.len() {
            let mut world = World::calm(shards);
            let socket = world.connect(shards - 1);
            world.write(socket, &session[..cut]);
            world.run(10_000);
            if cut % 2 == 0 {
                world.reset(socket);
            } else {
                world.half_close(socket);
            }
            world.run(10_000);
            assert!(world.is_closed(socket), "cut at {cut}");
            assert_eq!(world.lent_buffers(), 0, "cut at {cut}");
            assert!(world.is_mail_drained());
            for shard in world.shards() {
                assert_eq!((shard.connections(), shard.backend().home.channels()), (0, 0));
                assert_eq!(shard.backend().outputs.writers.iter().count(), 0);
            }
        }
    }
}

/// Everything a client says that logs in, declares, publishes, consumes and says goodbye.
fn login() -> Vec<u8> {
    let mut out = Vec::new();
    let tune = Tune { channel_max: 0x7F, frame_max: 4096, heartbeat: 0 };
    let hello = Hello { tune, ..Hello::GUEST };
    hello.encode_start_ok(&mut out);
    hello.encode_tune_ok(&mut out);
    hello.encode_open(&mut out);
    encode_frame(1, &ChannelOpen {}, &mut out);
    let declare = QueueDeclare { exclusive: true, ..QueueDeclare::named("mine") };
    encode_frame(1, &declare, &mut out);
    let publish = leveret_amqp::encoder::Publish {
        channel: 1,
        exchange: b"",
        routing_key: b"mine",
        mandatory: true,
        immediate: false,
    };
    leveret_amqp::encoder::encode_content(&mut out, publish, &[0, 0], &[5; 700], 300);
    encode_frame(1, &consume("mine", "c"), &mut out);
    encode_frame(0, &ConnectionCloseOk {}, &mut out);
    out
}

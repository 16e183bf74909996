//! Users and virtual hosts that operators set: who may come in, before and after a crash.

use leveret_amqp::limits::Tune;
use leveret_amqp::method::QueueDeclare;
use leveret_broker::catalog::name::Name;
use leveret_broker::catalog::permission::Permissions;
use leveret_broker::catalog::user::{PasswordHash, User};
use leveret_broker::control::{AdminAnswer, AdminRequest, AdminRequestId};
use leveret_broker::settings::Settings;
use leveret_simulator::client::Client;
use leveret_simulator::world::World;
use leveret_simulator::world::faults::Faults;
use leveret_simulator::world::restart::Crash;

const TUNE: Tune = Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 0 };
const POWER_CUT: Crash = Crash::PowerCut { kept_percent: 0 };

fn user(name: &str, password: &[u8]) -> AdminRequest {
    AdminRequest::PutUser(User {
        name: Name::from(name),
        password: Some(PasswordHash::new([9, 9, 9, 9], password)),
        tags: Vec::new(),
        loopback_only: false,
    })
}

fn permit(user: &str, vhost: &str) -> AdminRequest {
    let (user, vhost) = (Name::from(user), Name::from(vhost));
    AdminRequest::PutPermissions { user, vhost, permissions: Permissions::full() }
}

/// Asks for all of it and waits until it is done.
fn operate(world: &mut World, changes: impl IntoIterator<Item = AdminRequest>) {
    let asked: Vec<AdminRequestId> =
        changes.into_iter().map(|change| world.administer(change)).collect();
    world.run(1_000_000);
    let answers = world.take_admin_answers();
    let expected: Vec<AdminAnswer> =
        asked.into_iter().map(|request| AdminAnswer { request, outcome: Ok(()) }).collect();
    assert_eq!(answers, expected);
}

/// How a login ends: `open`, or the server's text.
fn log_in(
    world: &mut World,
    shard: u16,
    login: (&'static str, &'static str),
    vhost: &'static str,
) -> String {
    let mut client = Client::connect(world, shard, TUNE);
    (client.user, client.password) = login;
    client.virtual_host = vhost;
    client.settle(world);
    if !client.open {
        return client.closed.map_or("cut".to_owned(), |closed| closed.text);
    }
    client.close(world);
    "open".to_owned()
}

#[test]
fn what_an_operator_set_is_there_after_a_power_cut() {
    for shards in [1, 3] {
        let mut world = World::calm(shards);
        let last = shards - 1;
        assert_eq!(log_in(&mut world, last, ("guest", "guest"), "/"), "open");
        operate(
            &mut world,
            [
                AdminRequest::AddVhost(Name::from("v")),
                user("u", b"secret"),
                permit("u", "v"),
                AdminRequest::RemoveUser(Name::from("guest")),
            ],
        );
        for crash in [None, Some(POWER_CUT), Some(Crash::Kill)] {
            if let Some(crash) = crash {
                world.crash(crash).unwrap();
            }
            for shard in [0, last] {
                assert_eq!(log_in(&mut world, shard, ("u", "secret"), "v"), "open");
                let refused = log_in(&mut world, shard, ("u", "wrong"), "v");
                assert!(refused.contains("Login was refused"), "{refused}");
                let refused = log_in(&mut world, shard, ("u", "secret"), "/");
                assert!(refused.contains("access to vhost '/' refused for user 'u'"), "{refused}");
                let refused = log_in(&mut world, shard, ("guest", "guest"), "/");
                assert!(refused.contains("Login was refused"), "{refused}");
            }
        }
    }
}

/// An answer is a promise: whenever the power fails behind it, what it answered is there.
#[test]
fn what_was_answered_is_durable() {
    let mut kept = [0, 0];
    for seed in 0..60 {
        let mut faults = Faults::none();
        faults.metadata_max_ns = 1_000_000;
        let mut world = World::new(seed, 3, faults, Settings::default());
        world.administer(user("u", b"secret"));
        world.administer(permit("u", "/"));
        for _ in 0..seed {
            world.step();
        }
        let answered = world.take_admin_answers().len();
        world.crash(POWER_CUT).unwrap();
        let found = log_in(&mut world, 1, ("u", "secret"), "/") == "open";
        assert!(found || answered < 2, "seed {seed}");
        kept[usize::from(found)] += 1;
    }
    assert!(kept[0] > 5 && kept[1] > 5, "{kept:?}");
}

#[test]
fn a_removed_virtual_host_is_gone_on_every_shard_and_for_good() {
    let mut world = World::calm(3);
    let vhost = || AdminRequest::AddVhost(Name::from("v"));
    operate(&mut world, [vhost(), permit("guest", "v")]);
    let mut client = Client::connect(&mut world, 1, TUNE);
    client.virtual_host = "v";
    client.settle(&mut world);
    client.open_channel(&mut world, 1);
    for name in ["a", "b", "c", "d"] {
        client.request(&mut world, 1, &QueueDeclare { durable: true, ..QueueDeclare::named(name) });
        client.publish(&mut world, 1, ("", name), false, b"message");
    }
    client.settle(&mut world);
    let held = |world: &World| -> usize {
        world.shards().iter().map(|shard| shard.backend().home.queues().count()).sum()
    };
    assert_eq!(held(&world), 4);
    operate(&mut world, [AdminRequest::RemoveVhost(Name::from("v"))]);
    assert_eq!(held(&world), 0, "the homes have let go of the queues");
    // A virtual host of the same name is another one, for those that are still connected too.
    operate(&mut world, [vhost(), permit("guest", "v")]);
    client.send(&mut world, 1, &QueueDeclare { passive: true, ..QueueDeclare::named("a") });
    client.settle(&mut world);
    assert!(client.closed.is_some() || !client.closed_channels.is_empty());
    for crash in [None, Some(POWER_CUT)] {
        if let Some(crash) = crash {
            world.crash(crash).unwrap();
        }
        assert_eq!(log_in(&mut world, 2, ("guest", "guest"), "v"), "open");
        assert_eq!(held(&world), 0);
    }
}

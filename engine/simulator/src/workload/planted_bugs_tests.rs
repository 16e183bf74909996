//! The oracle must catch every planted bug; otherwise it is blind.

use leveret_amqp::method::QueueDeclare;
use leveret_broker::settings::Settings;

use super::run::{Plan, Run};
use crate::client::Client;
use crate::client::methods::consume;
use crate::world::World;
use crate::world::planted_bug::{BUGS, Bug, PlantedBug};

/// Runs seeds with the planted bug until one run fails.
fn is_caught(bug: Bug) -> Option<(u64, String)> {
    (0..SEEDS_MAX).find_map(|seed| {
        let mut run = Run::new(Plan { seed, steps: 500, shards: Some(3) });
        if run.world.faults().patience_steps() > QUICK_STEPS {
            return None;
        }
        run.world.plant(PlantedBug::new(bug, (seed % 7) as u32));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.all(500).err()));
        let error = match caught {
            Ok(error) => error?,
            Err(_) => "panicked".into(),
        };
        assert!(
            run.world.planted_bug.is_some_and(|planted_bug| planted_bug.done),
            "{bug:?}: {error}"
        );
        Some((seed, error))
    })
}

/// The number of seeds within which each bug must be caught.
const SEEDS_MAX: u64 = 400;

/// Worlds that move byte by byte are slow and do not show these bugs any better.
const QUICK_STEPS: u64 = 40;

#[test]
fn every_planted_bug_is_caught() {
    for bug in BUGS {
        let caught = is_caught(bug);
        let Some((seed, error)) = caught else { panic!("{bug:?} was not caught") };
        println!("{bug:?}: seed {seed}: {error}");
    }
}

#[test]
fn a_home_that_never_answers_keeps_no_connection_for_ever() {
    let mut world = World::calm(2);
    let mut declarer = Client::open(&mut world, 1);
    let mut consumer = Client::open(&mut world, 0);
    let passing = QueueDeclare { auto_delete: true, ..QueueDeclare::named("passing") };
    declarer.request(&mut world, 1, &passing);
    consumer.request(&mut world, 1, &consume("passing", "p"));
    world.plant(PlantedBug::new(Bug::LoseChannelsEnded, 0));
    consumer.send_close(&mut world);
    consumer.settle(&mut world);
    assert!(!consumer.left && !world.is_closed(consumer.socket), "it waits for the home");
    world.advance(Settings::default().close_wait_ns);
    consumer.settle(&mut world);
    assert!(!consumer.left && world.is_closed(consumer.socket), "but not for ever");
}

#[test]
fn a_seed_repeats_exactly() {
    for seed in [3, 11] {
        let plan = Plan { seed, steps: 400, shards: None };
        let (mut first, mut second) = (Run::new(plan), Run::new(plan));
        assert_eq!(first.all(400), second.all(400));
        assert_eq!(first.actions, second.actions);
        assert!(!first.actions.is_empty());
    }
}

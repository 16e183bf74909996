//! Runs for CI, and planted bugs: each must be caught, or the images prove nothing.

use std::collections::BTreeSet;

use leveret_broker::storage::log::QueueRef;
use leveret_broker::storage::log::bug::Bug;

use super::expected::Note;
use super::images::Traced;
use super::workload::Workload;
use super::{Plan, judge, reader, run};
use crate::disk::flaw::{FLAWS, Flaw, Rot};
use crate::disk::volume::{Image, Volume};
use crate::random::Random;

/// How many images each test run checks.
const IMAGES: u64 = 40_000;

/// The number of seeds within which every bug must be caught.
const SEEDS_MAX: u64 = 150;

const BUGS: [Bug; 11] = [
    Bug::BarrierUnsummed,
    Bug::DurableAtSubmit,
    Bug::SettlesForgotten,
    Bug::BarrierTooHigh,
    Bug::CopyNotAwaited,
    Bug::NoFiller,
    Bug::EpochKept,
    Bug::BlockShared,
    Bug::OwnEndNotAwaited,
    Bug::EndOfFile,
    Bug::SettlesDropped,
];

#[test]
fn no_loss_of_power_loses_what_was_confirmed() {
    let (mut images, mut seed) = (0, 0);
    while images < IMAGES {
        match run(Plan::of(seed), IMAGES - images) {
            Ok(judged) => images += judged,
            Err(error) => panic!("{error}\ncargo power --seed {seed}"),
        }
        seed += 1;
    }
    println!("{images} images of {seed} runs");
}

#[test]
fn every_flaw_of_a_disk_is_caught() {
    for flaw in FLAWS {
        let (seed, error) = first_error(Some(flaw), None);
        println!("{flaw:?}: seed {seed}: {error}");
    }
}

#[test]
fn every_bug_of_the_log_is_caught() {
    for bug in BUGS {
        let (seed, error) = first_error(None, Some(bug));
        println!("{bug:?}: seed {seed}: {error}");
    }
}

/// Rot changes messages only where damage is reported, and invents none. The last segment is left
/// out: what no later barrier covers looks like a torn end.
#[test]
fn rot_is_reported_and_invents_nothing() {
    let (mut changed, mut reported) = (0, 0);
    for seed in 0..8 {
        let trace = Workload::new(seed).run(Plan::of(seed).turns).unwrap();
        let (before, image) = last_images(&trace);
        let sound = reader::read(&image);
        let last = *sound.begun.keys().next_back().unwrap();
        let known = all_published(&trace);
        let mut random = Random::new(seed);
        for _ in 0..300 {
            let mut rotten = image.clone();
            let rot = random.pick(&[Rot::Flip, Rot::Blank, Rot::Lost, Rot::Misdirected]);
            let Some((segment, offset)) = rotten.rot(rot, &before, &mut random) else { continue };
            let reading = reader::read(&rotten);
            for (queue, (_, fingerprint)) in &reading.held {
                assert!(known.contains(&(*queue, *fingerprint)), "seed {seed}: {queue:?}");
            }
            let is_changed = reading.held != sound.held;
            let is_reported = !reading.damage.is_empty();
            if segment < last {
                let place = format!("seed {seed}: {rot:?} at {offset} of segment {segment}");
                assert!(is_reported || !is_changed, "{place}");
            }
            (changed, reported) =
                (changed + u32::from(is_changed), reported + u32::from(is_reported));
        }
    }
    println!("{changed} changed, {reported} reported");
    assert!(changed > 100 && reported > 100);
}

/// The durable images in the middle and at the end of a run.
fn last_images(trace: &[Traced]) -> (Image, Image) {
    let mut volume = Volume::default();
    let mut middle = Image::default();
    for (moment, traced) in trace.iter().enumerate() {
        match traced {
            Traced::Step(step) => volume.make(step),
            Traced::Cut(image) => volume = Volume::of(image.clone()),
            Traced::Note(_) => {}
        }
        if moment == trace.len() * 9 / 10 {
            middle = volume.durable().clone();
        }
    }
    (middle, volume.durable().clone())
}

fn all_published(trace: &[Traced]) -> BTreeSet<(QueueRef, u32)> {
    let notes = trace.iter().filter_map(|traced| match traced {
        Traced::Note(Note::Published(queues, fingerprint)) => Some((queues, fingerprint)),
        _ => None,
    });
    notes.flat_map(|(queues, sum)| queues.iter().map(|queue| (*queue, *sum))).collect()
}

fn first_error(flaw: Option<Flaw>, bug: Option<Bug>) -> (u64, String) {
    let caught = (0..SEEDS_MAX).find_map(|seed| Some((seed, error(seed, flaw, bug)?)));
    caught.unwrap_or_else(|| panic!("{flaw:?} {bug:?} was not caught in {SEEDS_MAX} seeds"))
}

/// The first failure of a run; a failed assertion in the log counts as well.
fn error(seed: u64, flaw: Option<Flaw>, bug: Option<Bug>) -> Option<String> {
    let caught = std::panic::catch_unwind(|| {
        let mut workload = Workload::new(seed);
        if let Some(flaw) = flaw {
            workload.disk.plant(flaw);
        }
        workload.bug = bug;
        judge(&workload.run(Plan::of(seed).turns)?, seed, u64::MAX)
    });
    match caught {
        Ok(judged) => judged.err(),
        Err(_) => Some("panicked".into()),
    }
}

#[test]
fn a_seed_repeats_exactly() {
    for seed in [1, 5] {
        let trace = |_| format!("{:?}", Workload::new(seed).run(100));
        assert_eq!(trace(1), trace(2));
    }
}

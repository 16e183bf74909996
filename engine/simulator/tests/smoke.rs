//! Two hundred worlds in every test run; `cargo sim` runs as many as one likes.

use leveret_simulator::workload::run::{Plan, Tally, run};

/// Runs a range of seeds and checks that they were worth it.
fn all_go_well(seeds: std::ops::Range<u64>) {
    let mut total = Tally::default();
    for seed in seeds {
        let plan = Plan { seed, steps: 400, shards: None };
        match run(plan) {
            Ok(tally) => {
                total.published += tally.published;
                total.delivered += tally.delivered;
            }
            Err(error) => panic!("{error}\ncargo sim --seed {seed} --steps 400"),
        }
    }
    assert!(total.published > 10_000 && total.delivered > 10_000, "{total:?}");
}

#[test]
fn worlds_0_to_99() {
    all_go_well(0..100);
}

#[test]
fn worlds_100_to_199() {
    all_go_well(100..200);
}

//! What all other benches are divided by, so that their figures can be kept: how fast the machine
//! is right now, which on a shared host is another thing each hour.
//!
//! A chain of multiplications that each need the one before: the clock of the core and nothing
//! else. A bench that waits for memory does not follow it; `perf-scripts/criterion.sh` allows for
//! that.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};

/// Long enough that the loop around it does not count.
const STEPS: u32 = 1_000;

fn calibration(criterion: &mut Criterion) {
    criterion.bench_function("calibration/1,000 dependent multiplications", |bencher| {
        bencher.iter(|| {
            let mut value = black_box(0x9E37_79B9_7F4A_7C15_u64);
            for _ in 0..STEPS {
                value = (value ^ value >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            }
            value
        });
    });
}

criterion_group!(benches, calibration);
criterion_main!(benches);

//! What counting a latency costs the broker, beside the library that the load client uses.
//!
//! Stands for the one or two records that every delivery makes when a message waited (see
//! `Queue::record_latency`): a change of a nanosecond in `record` is a nanosecond on each message.
//! The histogram of the broker has 64 buckets in 272 octets, so that 100,000 queues can have one
//! each; `hdrhistogram` with three digits has some thousand in tens of kilobytes, which is why it
//! stands in the client and not in the broker. `merge` and `quantile` stand for a look at the
//! metrics: once per queue and scrape.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use hdrhistogram::Histogram as HdrHistogram;
use leveret_broker::histogram::Histogram;

/// Latencies of one bench: more than a branch predictor learns, few enough for the first cache.
const LATENCIES: u64 = 1_024;

/// Nanoseconds from 1 µs to 1 s, even over the octaves, in an order without a pattern.
fn latencies() -> Vec<u64> {
    (0..LATENCIES)
        .map(|number| {
            let bits = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
            let octave = 10 + bits % 20;
            1 << octave | (bits >> 8) & ((1 << octave) - 1)
        })
        .collect()
}

/// A histogram of three digits from 1 µs to one hour, as the load client keeps.
fn hdr() -> HdrHistogram<u64> {
    HdrHistogram::new_with_bounds(1_000, 3_600_000_000_000, 3).expect("valid bounds")
}

/// The quantiles of both must agree with the latencies themselves, within their promises.
fn check(latencies: &[u64]) {
    let (mut ours, mut theirs) = (Histogram::new(), hdr());
    for latency in latencies {
        ours.record(*latency);
        theirs.record(*latency).expect("within its bounds");
    }
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    assert_eq!((ours.count(), theirs.len()), (LATENCIES, LATENCIES));
    assert_eq!(ours.sum_ns(), latencies.iter().sum::<u64>());
    for (quantile, rank) in [(0.5, LATENCIES / 2), (0.75, LATENCIES * 3 / 4), (1.0, LATENCIES)] {
        let exact = sorted[rank as usize - 1];
        let found = ours.quantile(quantile).expect("not empty");
        assert!(found.abs_diff(exact) * 5 <= exact + 5_000, "{found} for {exact}");
        let found = theirs.value_at_quantile(quantile);
        assert!(found.abs_diff(exact) * 500 <= exact + 500_000, "{found} for {exact}");
    }
}

/// One latency: of many kinds, and always the same (all counts in one place of memory).
fn record(criterion: &mut Criterion) {
    let latencies = latencies();
    check(&latencies);
    let same = vec![42_000; latencies.len()];
    let mut group = criterion.benchmark_group("histogram/record");
    group.throughput(Throughput::Elements(1));
    for (name, latencies) in [("spread", &latencies), ("same", &same)] {
        group.bench_function(format!("broker, {name}"), |bencher| {
            let mut histogram = Histogram::new();
            let mut latencies = latencies.iter().cycle();
            bencher.iter(|| latencies.next().map(|latency| histogram.record(black_box(*latency))));
            assert!(histogram.count() > 0);
        });
        group.bench_function(format!("hdrhistogram, {name}"), |bencher| {
            let mut histogram = hdr();
            let mut latencies = latencies.iter().cycle();
            bencher.iter(|| latencies.next().map(|latency| histogram.record(black_box(*latency))));
            assert!(!histogram.is_empty());
        });
    }
    group.finish();
}

/// What a scrape of the metrics does with each queue.
fn read(criterion: &mut Criterion) {
    let latencies = latencies();
    let (mut ours, mut theirs) = (Histogram::new(), hdr());
    for latency in &latencies {
        ours.record(*latency);
        theirs.record(*latency).expect("within its bounds");
    }
    let mut group = criterion.benchmark_group("histogram/read");
    group.bench_function("broker, quantile", |bencher| {
        bencher.iter(|| ours.quantile(black_box(0.99)));
    });
    group.bench_function("hdrhistogram, quantile", |bencher| {
        bencher.iter(|| theirs.value_at_quantile(black_box(0.99)));
    });
    let mut sum = Histogram::new();
    sum.merge(&ours);
    assert_eq!((sum.count(), sum.quantile(0.99)), (LATENCIES, ours.quantile(0.99)));
    group.bench_function("broker, merge", |bencher| bencher.iter(|| sum.merge(black_box(&ours))));
    let mut sum = hdr();
    group.bench_function("hdrhistogram, merge", |bencher| {
        bencher.iter(|| sum.add(black_box(&theirs)).is_ok());
    });
    assert!(sum.len().is_multiple_of(LATENCIES), "a merge lost counts");
    group.finish();
}

criterion_group!(histogram, record, read);
criterion_main!(histogram);

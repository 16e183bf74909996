//! Durations of many operations, as a histogram.

use std::ops::Neg;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::results::Latency;

/// The unit of the histogram, in nanoseconds: fine enough for a round trip over loopback.
const UNIT_NS: u64 = 100;
const UNITS_PER_US: u64 = 1000 / UNIT_NS;

/// The longest duration that is recorded exactly: no run waits longer for anything.
const LONGEST: Duration = Duration::from_mins(10);
const LONGEST_UNITS: u64 = LONGEST.as_nanos() as u64 / UNIT_NS;

/// Significant digits of each duration.
const DIGITS: u8 = 3;

/// The last percentile of a curve is `1 - 2⁻²⁴`, 99.999994 %; reaching it takes 17 million
/// durations.
const CURVE_STEPS_MAX: u32 = 24;

/// Latencies up to 10 minutes, with three digits. A histogram grows with its longest duration up to
/// 190 KiB, so even a thousand of them are cheap.
#[derive(Debug)]
pub(crate) struct LatencyHistogram {
    histogram: Histogram<u64>,
    /// The last value, and how often it was repeated: messages of one chunk often have the same.
    last_units: u64,
    last_count: u64,
}

impl LatencyHistogram {
    /// An empty histogram.
    pub(crate) fn new() -> Self {
        let mut histogram =
            Histogram::new_with_bounds(1, 2, DIGITS).expect("three digits from 1 on are valid");
        histogram.auto(true);
        Self { histogram, last_units: 0, last_count: 0 }
    }

    /// Records a duration in microseconds.
    #[inline]
    pub(crate) fn record_us(&mut self, elapsed_us: u32) {
        self.record_units(u64::from(elapsed_us) * UNITS_PER_US);
    }

    /// Records a duration. More than 10 minutes count as 10 minutes.
    #[inline]
    pub(crate) fn record(&mut self, elapsed: Duration) {
        self.record_units(elapsed.as_nanos() as u64 / UNIT_NS);
    }

    #[inline]
    fn record_units(&mut self, units: u64) {
        if units == self.last_units {
            self.last_count += 1;
        } else {
            self.flush();
            (self.last_units, self.last_count) = (units, 1);
        }
    }

    fn flush(&mut self) {
        let units = self.last_units.min(LONGEST_UNITS);
        if self.last_count > 0 {
            self.histogram.record_n(units, self.last_count).expect("it grows as far as that");
            self.last_count = 0;
        }
    }

    /// Adds the durations of another histogram.
    pub(crate) fn merge(&mut self, mut other: Self) {
        self.flush();
        other.flush();
        self.histogram.add(&other.histogram).expect("it grows as far as that");
    }

    /// p50 and p99 so far in microseconds; `None` if it is empty.
    pub(crate) fn quantiles_us(&mut self) -> Option<[u64; 2]> {
        self.flush();
        let at = |quantile| self.histogram.value_at_quantile(quantile) / UNITS_PER_US;
        (!self.histogram.is_empty()).then(|| [at(0.5), at(0.99)])
    }

    /// The form for reports; `None` if it is empty.
    pub(crate) fn summary(mut self) -> Option<Latency> {
        self.flush();
        let histogram = &self.histogram;
        let us = |units: u64| units as f64 / UNITS_PER_US as f64;
        let at = |percentile: f64| us(histogram.value_at_percentile(percentile));
        let count = histogram.len();
        // A percentile is included if at least one duration lies above it.
        let steps = count.checked_ilog2()?.min(CURVE_STEPS_MAX);
        let percentiles = (1..=steps).map(|step| 100.0 * (1.0 - f64::from(step).neg().exp2()));
        Some(Latency {
            count,
            mean_us: histogram.mean() / UNITS_PER_US as f64,
            p50_us: at(50.0),
            p90_us: at(90.0),
            p99_us: at(99.0),
            p99_9_us: at(99.9),
            p99_99_us: at(99.99),
            max_us: us(histogram.max()),
            curve: percentiles.map(|percentile| (percentile, at(percentile))).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three digits are kept, so the error may be a thousandth.
    fn assert_near(found: f64, expected: f64) {
        assert!((found - expected).abs() <= expected / 1000.0 + 0.1, "{found}, not {expected}");
    }

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut histogram = LatencyHistogram::new();
        for elapsed_us in 1..=100_000 {
            histogram.record_us(elapsed_us);
        }
        let latency = histogram.summary().unwrap();
        assert_eq!(latency.count, 100_000);
        assert_near(latency.mean_us, 50_000.5);
        assert_near(latency.p50_us, 50_000.0);
        assert_near(latency.p99_us, 99_000.0);
        assert_near(latency.p99_99_us, 99_990.0);
        assert_near(latency.max_us, 100_000.0);
        let percentiles: Vec<_> = latency.curve.iter().map(|point| point.0).collect();
        assert_eq!(percentiles[..3], [50.0, 75.0, 87.5]);
        assert_eq!(percentiles.len(), 16, "2¹⁶ is the last power of two below 100,000");
        assert!(percentiles[15] > 99.99);
        assert!(latency.curve.is_sorted_by(|before, after| before.1 <= after.1));
        for (percentile, elapsed_us) in latency.curve {
            assert_near(elapsed_us, percentile * 1000.0);
        }
    }

    #[test]
    fn short_and_long_times_are_both_kept() {
        let mut histogram = LatencyHistogram::new();
        histogram.record(Duration::from_nanos(1234));
        let latency = histogram.summary().unwrap();
        assert_eq!((latency.count, latency.curve.len()), (1, 0));
        assert_near(latency.max_us, 1.2);
        let mut histogram = LatencyHistogram::new();
        histogram.record(Duration::from_hours(1));
        assert_near(histogram.summary().unwrap().max_us, 600e6);
    }

    #[test]
    fn merged_histograms_have_the_times_of_both() {
        let (mut one, mut other) = (LatencyHistogram::new(), LatencyHistogram::new());
        for _ in 0..3 {
            one.record_us(10);
            other.record_us(5_000_000);
        }
        other.record_us(7);
        one.merge(other);
        let latency = one.summary().unwrap();
        assert_near(latency.p50_us, 10.0);
        assert_near(latency.p90_us, 5e6);
        assert_near(latency.mean_us, (3.0 * 5e6 + 30.0 + 7.0) / 7.0);
    }

    #[test]
    fn nothing_recorded_is_nothing_reported() {
        let mut histogram = LatencyHistogram::new();
        histogram.merge(LatencyHistogram::new());
        assert!(histogram.summary().is_none());
    }
}

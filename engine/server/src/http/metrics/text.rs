//! Writes the text format of Prometheus.

use std::fmt::{Display, Write};

/// Upper bounds of the histograms of shards, in nanoseconds: 1, 2.5 and 5 of each decade from 1 µs
/// to 10 s. They are fixed so that quantiles over time and over shards can be computed.
const BOUNDS_NS: [u64; 22] = {
    let mut bounds = [0; 22];
    let mut decade = 1_000;
    let mut index = 0;
    while index < 21 {
        bounds[index] = decade;
        bounds[index + 1] = decade * 5 / 2;
        bounds[index + 2] = decade * 5;
        decade *= 10;
        index += 3;
    }
    bounds[21] = decade;
    bounds
};

/// Only every fourth bucket of a queue's histogram is written: one per two octaves, 16 lines per
/// queue.
const COMPACT_STEP: usize = 4;

/// The kind of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The text under construction. Writing to a `String` cannot fail, so results of `write!` are
/// ignored.
#[derive(Debug, Default)]
pub(super) struct Text(String);

impl Text {
    /// The text written so far.
    pub(super) fn finish(self) -> String {
        self.0
    }

    /// Begins a family; its samples follow.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One sample; the values of its labels are escaped.
    pub(super) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels = join(labels);
        self.labelled(name, &labels, value);
    }

    /// One sample with labels that are already in the text format.
    pub(super) fn labelled(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name}{{{labels}}} {value}");
    }

    /// A family of one sample without labels.
    pub(super) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    /// The samples of a shard's histogram of nanoseconds.
    pub(super) fn precise_histogram(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        histogram: &hdrhistogram::Histogram<u64>,
    ) {
        let labels = join(labels);
        let mut counts = [0; BOUNDS_NS.len()];
        let mut sum_ns = 0.0;
        for step in histogram.iter_recorded() {
            let (value, count) = (step.value_iterated_to(), step.count_at_value());
            sum_ns += value as f64 * count as f64;
            if let Some(count_below) =
                counts.get_mut(BOUNDS_NS.partition_point(|bound| *bound < value))
            {
                *count_below += count;
            }
        }
        let mut cumulative = 0;
        for (bound, count) in BOUNDS_NS.iter().zip(counts) {
            cumulative += count;
            self.bucket(name, &labels, *bound as f64 / 1e9, cumulative);
        }
        self.end_histogram(name, &labels, histogram.len(), sum_ns / 1e9);
    }

    /// The samples of a queue's histogram.
    pub(super) fn compact_histogram(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        histogram: &leveret_broker::histogram::Histogram,
    ) {
        let labels = join(labels);
        let buckets = histogram.buckets().skip(COMPACT_STEP - 1).step_by(COMPACT_STEP);
        for (bound, count) in buckets.filter(|(bound, _)| bound.is_finite()) {
            self.bucket(name, &labels, bound, count);
        }
        self.end_histogram(name, &labels, histogram.count(), histogram.sum_ns() as f64 / 1e9);
    }

    fn bucket(&mut self, name: &str, labels: &str, bound_s: f64, count: u64) {
        let _ = writeln!(self.0, "{name}_bucket{{{labels},le=\"{bound_s}\"}} {count}");
    }

    fn end_histogram(&mut self, name: &str, labels: &str, count: u64, sum_s: f64) {
        let _ = writeln!(self.0, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
        let _ = writeln!(self.0, "{name}_sum{{{labels}}} {sum_s}");
        let _ = writeln!(self.0, "{name}_count{{{labels}}} {count}");
    }
}

fn join(labels: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
    pairs.join(",")
}

/// Escapes backslash, quote and line feed, as the format requires, and other control characters in
/// a name as `\\u{…}`, to protect terminals.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            control if control.is_control() => {
                let _ = write!(escaped, "\\\\u{{{:x}}}", control as u32);
            }
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        text.sample("m", &[("queue", "a\"b\\c\nd\u{1b}e"), ("vhost", "/")], 7);
        assert_eq!(text.finish(), "m{queue=\"a\\\"b\\\\c\\nd\\\\u{1b}e\",vhost=\"/\"} 7\n");
    }

    #[test]
    fn bounds_ascend_from_a_microsecond_to_ten_seconds() {
        assert!(BOUNDS_NS.is_sorted());
        assert_eq!(&BOUNDS_NS[..4], [1_000, 2_500, 5_000, 10_000]);
        assert_eq!(BOUNDS_NS[21], 10_000_000_000);
    }

    #[test]
    fn a_histogram_is_cumulative_and_complete() {
        let mut histogram = hdrhistogram::Histogram::new_with_max(3_600_000_000_000, 2).unwrap();
        for nanoseconds in [500, 2_400, 2_400, 60_000_000_000] {
            histogram.saturating_record(nanoseconds);
        }
        let mut text = Text::default();
        text.precise_histogram("h", &[("shard", "0")], &histogram);
        let text = text.finish();
        for line in [
            "h_bucket{shard=\"0\",le=\"0.000001\"} 1",
            "h_bucket{shard=\"0\",le=\"0.0000025\"} 3",
            "h_bucket{shard=\"0\",le=\"10\"} 3",
            "h_bucket{shard=\"0\",le=\"+Inf\"} 4",
            "h_count{shard=\"0\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis missing in\n{text}");
        }
        let sum = text.lines().find_map(|line| line.strip_prefix("h_sum{shard=\"0\"} ")).unwrap();
        assert!((sum.parse::<f64>().unwrap() - 60.0).abs() < 0.6, "{sum}");
    }

    #[test]
    fn a_queues_histogram_has_sixteen_buckets() {
        let mut histogram = leveret_broker::histogram::Histogram::new();
        histogram.record(3_000);
        histogram.record(u64::MAX);
        let mut text = Text::default();
        text.compact_histogram("h", &[("queue", "q")], &histogram);
        let text = text.finish();
        let buckets: Vec<&str> = text.lines().filter(|line| line.contains("_bucket")).collect();
        assert_eq!(buckets.len(), 16);
        assert!(buckets[0].ends_with("le=\"0.000004096\"} 1"), "{}", buckets[0]);
        assert!(buckets[14].ends_with("} 1") && buckets[15].ends_with("le=\"+Inf\"} 2"));
    }
}

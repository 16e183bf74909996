//! A latency histogram small enough for every queue to have one.
//!
//! ```text
//!  bucket    0          1          2          3      …     62          63
//!  from      0       1.536 µs   2.048 µs   3.072 µs  …   36.7 min    55.0 min
//!  to     1.536 µs   2.048 µs   3.072 µs   4.096 µs  …   55.0 min       ∞
//! ```
//!
//! Two buckets per octave, so that a bucket is found with a leading-zero count and a shift. The
//! edges are `2ⁿ` and `1.5 × 2ⁿ` nanoseconds from 2¹⁰ (1 µs) to 2⁴² (73 min).

/// Buckets of a [`Histogram`]: two for each of 32 octaves.
pub const BUCKET_COUNT: usize = 64;

/// Bytes of one [`Histogram`]: 100,000 queues with one each cost 27 MB.
pub const HISTOGRAM_SIZE_BYTES: usize = 272;

const _: () = assert!(size_of::<Histogram>() == HISTOGRAM_SIZE_BYTES);

/// Times below this are counted with it, in nanoseconds.
const FLOOR_NS: u64 = 1 << 10;
/// Times above this are counted with it, in nanoseconds: 73 min.
const CEILING_NS: u64 = (1 << 42) - 1;

/// Counts of latencies. Counts are exact, never lost and never saturate.
#[derive(Clone, Debug)]
pub struct Histogram {
    /// The low 32 bits of each count.
    low: [u32; BUCKET_COUNT],
    /// The high 32 bits, made when the first bucket passes 2³²: an hour at a million a second.
    high: Option<Box<[u32; BUCKET_COUNT]>>,
    /// Of all latencies, in nanoseconds; wraps after 584 years of summed waiting.
    sum_ns: u64,
}

impl Histogram {
    /// Nothing counted.
    pub const fn new() -> Self {
        Self { low: [0; BUCKET_COUNT], high: None, sum_ns: 0 }
    }

    /// Counts one latency.
    #[inline]
    pub fn record(&mut self, nanoseconds: u64) {
        let index = bucket_index(nanoseconds);
        self.sum_ns = self.sum_ns.wrapping_add(nanoseconds);
        let (count, carried) = self.low[index].overflowing_add(1);
        self.low[index] = count;
        if carried {
            self.carry(index, 1);
        }
    }

    /// Counts the same latency `count` times.
    pub fn record_many(&mut self, nanoseconds: u64, count: u64) {
        let index = bucket_index(nanoseconds);
        self.sum_ns = self.sum_ns.wrapping_add(nanoseconds.wrapping_mul(count));
        let total = u64::from(self.low[index]) + count;
        self.low[index] = total as u32;
        let carried = (total >> u32::BITS) as u32;
        if carried > 0 {
            self.carry(index, carried);
        }
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
        for index in 0..BUCKET_COUNT {
            let total = self.bucket(index) + other.bucket(index);
            self.low[index] = total as u32;
            let high = (total >> 32) as u32;
            let carried = high - self.high_of(index);
            if carried != 0 {
                self.carry(index, carried);
            }
        }
    }

    /// Forgets everything counted.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// How many latencies were counted.
    pub fn count(&self) -> u64 {
        (0..BUCKET_COUNT).map(|index| self.bucket(index)).sum()
    }

    /// The sum of all counted latencies in nanoseconds, exact.
    pub const fn sum_ns(&self) -> u64 {
        self.sum_ns
    }

    /// The latency in nanoseconds that a fraction `q` (0 to 1, others are clamped) of the counted
    /// latencies does not exceed; `None` while nothing was counted.
    ///
    /// The nearest-rank quantile. Between 1.5 µs and 73 min the result is off by at most 20 %;
    /// below it is 1.024 µs, above it is 62.8 min.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = (q.clamp(0.0, 1.0) * count as f64).ceil() as u64;
        let rank = rank.clamp(1, count);
        let mut seen = 0;
        let index = (0..BUCKET_COUNT).find(|&index| {
            seen += self.bucket(index);
            seen >= rank
        })?;
        Some(representative_ns(index))
    }

    /// The buckets of a Prometheus histogram: upper bound in seconds (the last is infinite) and
    /// the count of all latencies up to it.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let mut cumulative = 0;
        (0..BUCKET_COUNT).map(move |index| {
            cumulative += self.bucket(index);
            let bound_s = match index + 1 {
                BUCKET_COUNT => f64::INFINITY,
                next => lower_bound_ns(next) as f64 / 1e9,
            };
            (bound_s, cumulative)
        })
    }

    fn bucket(&self, index: usize) -> u64 {
        u64::from(self.high_of(index)) << 32 | u64::from(self.low[index])
    }

    fn high_of(&self, index: usize) -> u32 {
        self.high.as_ref().map_or(0, |high| high[index])
    }

    #[cold]
    fn carry(&mut self, index: usize, amount: u32) {
        self.high.get_or_insert_with(|| Box::new([0; BUCKET_COUNT]))[index] += amount;
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// ```text
///  ns = 1 b x x x x x …      octave = place of the leading one
///         └ half             index  = 2 × (octave − 10) + half
/// ```
#[inline(always)]
fn bucket_index(nanoseconds: u64) -> usize {
    let clamped = nanoseconds.clamp(FLOOR_NS, CEILING_NS);
    let octave = clamped.ilog2();
    let leading_two_bits = (clamped >> (octave - 1)) as usize;
    // The mask changes nothing; it tells the compiler that no bounds check is needed.
    (2 * octave as usize + leading_two_bits - 22) & (BUCKET_COUNT - 1)
}

/// The least latency of a bucket in nanoseconds, but for bucket 0, which starts at 0.
const fn lower_bound_ns(index: usize) -> u64 {
    (2 + index as u64 % 2) << (9 + index / 2)
}

/// The harmonic mean of the edges `a` and `b`: of all values it is the one whose relative error
/// over the bucket is least, `(b − a) / (a + b)`, so 1/5 where `b = 1.5 a` and 1/7 where it is
/// `4/3 a`.
const fn representative_ns(index: usize) -> u64 {
    if index == 0 {
        return FLOOR_NS;
    }
    let (a, b) = (lower_bound_ns(index) as u128, lower_bound_ns(index + 1) as u128);
    (2 * a * b / (a + b)) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn buckets_tile_the_range() {
        assert_eq!(bucket_index(0), 0);
        assert_eq!(bucket_index(1535), 0);
        for index in 1..BUCKET_COUNT {
            let from = lower_bound_ns(index);
            assert_eq!(bucket_index(from), index);
            assert_eq!(bucket_index(from - 1), index - 1);
        }
        assert_eq!(bucket_index(u64::MAX), BUCKET_COUNT - 1);
        assert!(lower_bound_ns(BUCKET_COUNT) > 3_600_000_000_000, "reaches beyond an hour");
    }

    #[test]
    fn counts_pass_32_bits_without_loss() {
        let mut histogram = Histogram::new();
        histogram.record(5_000);
        histogram.low[bucket_index(5_000)] = u32::MAX;
        histogram.record(5_000);
        assert_eq!(histogram.count(), 1 << 32);
        histogram.record(5_000);
        assert_eq!(histogram.count(), (1 << 32) + 1);
        let other = histogram.clone();
        histogram.merge(&other);
        assert_eq!(histogram.count(), (1 << 33) + 2);
        let mut plain = Histogram::new();
        plain.low[bucket_index(5_000)] = u32::MAX;
        let half = plain.clone();
        plain.merge(&half);
        assert_eq!(plain.count(), 2 * u64::from(u32::MAX));
        assert_eq!(plain.buckets().last(), Some((f64::INFINITY, plain.count())));
        plain.clear();
        assert_eq!((plain.count(), plain.quantile(0.5)), (0, None));
    }

    #[test]
    fn prometheus_bounds_ascend_and_counts_accumulate() {
        let mut histogram = Histogram::new();
        for nanoseconds in [0, 1_600, 1_000_000, 7_200_000_000_000] {
            histogram.record(nanoseconds);
        }
        let buckets: Vec<_> = histogram.buckets().collect();
        assert_eq!(buckets.len(), BUCKET_COUNT);
        assert!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1));
        assert_eq!(buckets[0], (1.536e-6, 1));
        assert_eq!(buckets[1], (2.048e-6, 2));
        assert_eq!(buckets[62].1, 3, "two hours are counted in the infinite bucket only");
        assert_eq!(buckets[63], (f64::INFINITY, 4));
        assert_eq!(histogram.sum_ns(), 7_200_001_001_600);
    }

    fn latency() -> impl Strategy<Value = u64> {
        // Even over the octaves, not over the numbers.
        (11..42_u32, any::<u64>())
            .prop_map(|(octave, bits)| (1 << octave | bits & ((1 << octave) - 1)).max(1536))
    }

    proptest! {
        #[test]
        fn quantiles_are_within_a_fifth(
            mut latencies in proptest::collection::vec(latency(), 1..300),
            q in 0.0..=1.0_f64,
        ) {
            let mut halves = [Histogram::new(), Histogram::new()];
            for (number, latency) in latencies.iter().enumerate() {
                halves[number % 2].record(*latency);
            }
            let [mut histogram, other] = halves;
            histogram.merge(&other);
            latencies.sort_unstable();
            let count = latencies.len();
            let rank = ((q * count as f64).ceil() as usize).clamp(1, count);
            let exact = latencies[rank - 1] as f64;
            let found = histogram.quantile(q).unwrap() as f64;
            prop_assert!((found - exact).abs() <= 0.2 * exact + 1.0, "{found} for {exact}");
            prop_assert_eq!(histogram.count(), latencies.len() as u64);
            prop_assert_eq!(histogram.sum_ns(), latencies.iter().sum::<u64>());
        }

        #[test]
        fn any_latency_is_counted_once(nanoseconds in any::<u64>()) {
            let mut histogram = Histogram::new();
            histogram.record(nanoseconds);
            prop_assert_eq!(histogram.count(), 1);
            let bound_s = histogram.buckets().find(|bucket| bucket.1 == 1).unwrap().0;
            prop_assert!(nanoseconds as f64 / 1e9 <= bound_s);
        }
    }
}

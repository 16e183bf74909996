//! Axes of plots: the position of a value, and the labelled values.

/// With more labels on one axis they would touch each other.
const TICKS_MAX: usize = 12;

/// The height of a label.
const ROOM_UPWARDS: f64 = 18.0;

/// The width of a label such as `0.001 ×`.
const ROOM_SIDEWAYS: f64 = 54.0;

/// Maps values to positions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Axis {
    is_log: bool,
    low: f64,
    high: f64,
    /// The position of the lowest value.
    pub(crate) from: f64,
    /// The position of the highest value.
    pub(crate) to: f64,
}

impl Axis {
    /// Equal distances for equal differences.
    pub(crate) const fn linear(low: f64, high: f64, from: f64, to: f64) -> Self {
        Self { is_log: false, low, high, from, to }
    }

    /// Equal distances for equal ratios; both ends are above zero.
    pub(crate) const fn logarithmic(low: f64, high: f64, from: f64, to: f64) -> Self {
        Self { is_log: true, low, high, from, to }
    }

    /// The position of a value; values beyond an end are at that end.
    pub(crate) fn place(&self, value: f64) -> f64 {
        let part = if self.is_log {
            (value.max(f64::MIN_POSITIVE) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        let part = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
        self.from + part * (self.to - self.from)
    }

    /// Round values, at most [`TICKS_MAX`].
    pub(crate) fn ticks(&self) -> Vec<f64> {
        if self.is_log { self.log_ticks() } else { self.linear_ticks() }
    }

    fn linear_ticks(&self) -> Vec<f64> {
        let rough = (self.high - self.low) / 6.0;
        let size = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * size);
        let step = step.into_iter().find(|step| *step >= rough).unwrap_or(rough);
        let first = (self.low / step).ceil() as i64;
        let ticks = (first..).take(TICKS_MAX).map(|index| index as f64 * step);
        ticks.take_while(|tick| *tick <= self.high * (1.0 + 1e-9)).collect()
    }

    /// 1, 2 and 5 times each power of ten; if there are too many, only the powers or some of them.
    fn log_ticks(&self) -> Vec<f64> {
        let (first, last) = (self.low.log10().floor() as i32, self.high.log10().ceil() as i32);
        let is_inside =
            |tick: &f64| (self.low * (1.0 - 1e-9)..=self.high * (1.0 + 1e-9)).contains(tick);
        let of = |factors: &[f64], stride: usize| -> Vec<f64> {
            let powers = (first..=last).step_by(stride).map(|power| 10_f64.powi(power));
            let ticks = powers.flat_map(|power| factors.iter().map(move |factor| factor * power));
            ticks.filter(is_inside).collect()
        };
        let choices = [of(&[1.0, 2.0, 5.0], 1), of(&[1.0, 3.0], 1), of(&[1.0], 1)];
        let fits = choices.into_iter().find(|ticks| self.have_room(ticks));
        fits.unwrap_or_else(|| of(&[1.0], (last - first) as usize / TICKS_MAX + 2))
    }

    /// Whether the labels do not touch each other.
    fn have_room(&self, ticks: &[f64]) -> bool {
        let room = if self.from > self.to { ROOM_UPWARDS } else { ROOM_SIDEWAYS };
        let distance = |pair: &[f64]| (self.place(pair[1]) - self.place(pair[0])).abs();
        ticks.len() <= TICKS_MAX && ticks.windows(2).all(|pair| distance(pair) >= room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_ratios_have_equal_distances() {
        let axis = Axis::logarithmic(1.0, 100.0, 0.0, 400.0);
        assert!((axis.place(10.0) - 200.0).abs() < 1e-9);
        assert!((axis.place(0.0) - 0.0).abs() < 1e-9);
        assert!((axis.place(1e9) - 400.0).abs() < 1e-9);
        assert_eq!(axis.ticks(), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        let narrow = Axis::logarithmic(1.0, 100.0, 0.0, 150.0);
        assert_eq!(narrow.ticks(), [1.0, 10.0, 100.0]);
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(Axis::linear(0.0, 10.0, 0.0, 1.0).ticks(), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        for high in [1e-3, 0.7, 3.0, 42.0, 1e6, 7.7e12] {
            let linear = Axis::linear(0.0, high, 0.0, 1.0).ticks();
            assert!((3..=TICKS_MAX).contains(&linear.len()), "{high}: {linear:?}");
            let log = Axis::logarithmic(1e-4, high, 0.0, 600.0).ticks();
            assert!((2..=TICKS_MAX).contains(&log.len()), "{high}: {log:?}");
        }
    }
}

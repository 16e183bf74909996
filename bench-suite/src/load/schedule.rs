//! When messages are sent in an open loop: at a rate that does not depend on the broker, so that
//! all of its delays are measured.

use std::time::{Duration, Instant};

use crate::fault::Fault;

const NS_PER_S: f64 = 1e9;

/// A constant rate, or a rate that changes evenly to another one and then stays.
///
/// Every time is computed from the index of its message and not from the previous time, so the
/// schedule does not drift. Message 0 is due when the schedule starts.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    /// Messages per second at the start.
    start_per_s: f64,
    /// Messages per second after the ramp.
    end_per_s: f64,
    /// The length of the ramp in seconds; 0 for a constant rate.
    ramp_s: f64,
    began: Option<Instant>,
}

impl Schedule {
    /// A constant rate in messages per second.
    pub(crate) fn constant(rate_per_s: f64) -> Result<Self, Fault> {
        Self::ramp(rate_per_s, rate_per_s, Duration::ZERO)
    }

    /// A rate that changes evenly within `over` and then stays.
    pub(crate) fn ramp(start_per_s: f64, end_per_s: f64, over: Duration) -> Result<Self, Fault> {
        for rate in [start_per_s, end_per_s] {
            if !(rate > 0.0 && rate <= NS_PER_S) {
                return Err(Fault::Scenario(format!(
                    "a rate of {rate} messages/s cannot be kept: give one above 0 and up to 10⁹"
                )));
            }
        }
        Ok(Self { start_per_s, end_per_s, ramp_s: over.as_secs_f64(), began: None })
    }

    /// Starts the schedule, unless it has started.
    pub(crate) fn begin(&mut self, at: Instant) {
        self.began.get_or_insert(at);
    }

    /// When it started.
    pub(crate) const fn began(&self) -> Option<Instant> {
        self.began
    }

    /// How many messages are due: those with an intended time up to `now`. 0 before the start.
    pub(crate) fn due(&self, now: Instant) -> u64 {
        let Some(passed) = self.began.and_then(|began| now.checked_duration_since(began)) else {
            return 0;
        };
        let passed_ns = passed.as_nanos() as u64;
        // The inverse function is exact except for its last digit.
        let mut count = self.count_after(passed.as_secs_f64()) as u64;
        while self.offset_ns(count) <= passed_ns {
            count += 1;
        }
        while count > 0 && self.offset_ns(count - 1) > passed_ns {
            count -= 1;
        }
        count
    }

    /// When message `index` has to be sent; `None` before the start.
    pub(crate) fn intended(&self, index: u64) -> Option<Instant> {
        Some(self.began? + Duration::from_nanos(self.offset_ns(index)))
    }

    /// When message `index` has to be sent, in nanoseconds after the start.
    #[inline]
    pub(crate) fn offset_ns(&self, index: u64) -> u64 {
        let index = index as f64;
        let offset_s =
            if self.ramp_s == 0.0 { index / self.end_per_s } else { self.ramp_offset_s(index) };
        (offset_s * NS_PER_S).round() as u64
    }

    /// The index as a function of time is `start·t + slope·t²/2` up to the end of the ramp.
    fn ramp_offset_s(&self, index: f64) -> f64 {
        let in_ramp = self.start_per_s.midpoint(self.end_per_s) * self.ramp_s;
        if index >= in_ramp {
            return self.ramp_s + (index - in_ramp) / self.end_per_s;
        }
        let slope = (self.end_per_s - self.start_per_s) / self.ramp_s;
        // This form of the solution does not subtract nearly equal numbers.
        let root = (self.start_per_s.powi(2) + 2.0 * slope * index).max(0.0).sqrt();
        2.0 * index / (self.start_per_s + root)
    }

    fn count_after(&self, passed_s: f64) -> f64 {
        let in_ramp_s = passed_s.min(self.ramp_s);
        let slope =
            if self.ramp_s > 0.0 { (self.end_per_s - self.start_per_s) / self.ramp_s } else { 0.0 };
        self.start_per_s * in_ramp_s
            + slope * in_ramp_s.powi(2) / 2.0
            + self.end_per_s * (passed_s - in_ramp_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn begun(mut schedule: Schedule) -> (Schedule, Instant) {
        let start = Instant::now();
        schedule.begin(start);
        (schedule, start)
    }

    #[test]
    fn a_constant_rate_does_not_drift() {
        let (schedule, start) = begun(Schedule::constant(3.0).unwrap());
        for index in [0, 1, 2, 3, 300, 3 * 24 * HOUR] {
            let offset = schedule.intended(index).unwrap() - start;
            assert_eq!(offset.as_nanos(), (u128::from(index) * 1_000_000_000 + 1) / 3);
        }
    }

    #[test]
    fn what_is_due_is_what_has_passed() {
        let ramp = |from, to| Schedule::ramp(from, to, Duration::from_secs(10)).unwrap();
        let schedules = [
            Schedule::constant(1.0).unwrap(),
            Schedule::constant(0.3).unwrap(),
            Schedule::constant(99_999.7).unwrap(),
            ramp(1.0, 1000.0),
            ramp(1000.0, 1.0),
            ramp(5.0, 5.0),
        ];
        for (schedule, start) in schedules.map(begun) {
            for index in (0..200).chain(5000..5100).chain([1_000_000, 360_000_000]) {
                let intended = schedule.intended(index).unwrap();
                let before = intended.checked_sub(Duration::from_nanos(1)).unwrap();
                assert_eq!(schedule.due(intended), index + 1, "{schedule:?} at {index}");
                assert_eq!(schedule.due(before), index, "{schedule:?} before {index}");
            }
            assert_eq!(schedule.due(start), 1);
        }
    }

    #[test]
    fn a_ramp_goes_evenly_from_one_rate_to_the_other() {
        let schedule = Schedule::ramp(100.0, 300.0, Duration::from_secs(10)).unwrap();
        let (schedule, start) = begun(schedule);
        let due = |seconds| schedule.due(start + Duration::from_secs(seconds)) - 1;
        // The mean of the rates at both ends of each interval, times its length.
        assert_eq!([due(1), due(5), due(10), due(11)], [110, 750, 2000, 2300]);
    }

    #[test]
    fn it_begins_once_and_nothing_is_due_before() {
        let mut schedule = Schedule::constant(10.0).unwrap();
        let start = Instant::now() + Duration::from_secs(1);
        assert_eq!((schedule.due(start), schedule.intended(0)), (0, None));
        schedule.begin(start);
        schedule.begin(start + Duration::from_secs(9));
        assert_eq!((schedule.began(), schedule.due(start)), (Some(start), 1));
        let before = start.checked_sub(Duration::from_millis(1)).unwrap();
        assert_eq!(schedule.due(before), 0);
    }

    #[test]
    fn rates_that_make_no_sense_are_refused() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Schedule::constant(rate).is_err(), "{rate}");
            assert!(Schedule::ramp(1.0, rate, Duration::from_secs(1)).is_err(), "{rate}");
        }
    }
}

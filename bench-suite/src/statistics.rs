//! Medians, spreads, ratios and noise of a handful of runs.

use std::collections::BTreeMap;

/// One value per valid run, by the number of the run.
pub(crate) type RunValues = BTreeMap<u32, f64>;

/// A summary of several runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

/// The summary of the values; `None` without values.
pub(crate) fn summarize(values: &[f64]) -> Option<Summary> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    let median =
        if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) };
    Some(Summary { median, lowest: sorted[0], highest: sorted[sorted.len() - 1] })
}

/// The summary of several runs.
pub(crate) fn summarize_runs(values: &RunValues) -> Option<Summary> {
    summarize(&values.values().copied().collect::<Vec<_>>())
}

/// The ratio of each run to the run of `base` with the same number. The two were made one after the
/// other, so both had the same noise. Runs are left out if one side failed or the base is not above
/// zero.
pub(crate) fn ratios(values: &RunValues, base: &RunValues) -> RunValues {
    let ratio = |(run, value): (&u32, &f64)| {
        let base = base.get(run).filter(|base| **base > 0.0)?;
        Some((*run, value / base))
    };
    values.iter().filter_map(ratio).collect()
}

/// The spread of equal runs: the median distance from the median, relative to the median. `None`
/// without values or if the median is zero.
///
/// A single outlier does not change it, as it would change a standard deviation.
pub(crate) fn relative_deviation(values: &[f64]) -> Option<f64> {
    let median = summarize(values)?.median;
    let distances: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
    let deviation = summarize(&distances)?.median;
    (median != 0.0).then(|| deviation / median.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_two() {
        let summary = summarize(&[5.0, 1.0, 3.0]).unwrap();
        assert_eq!(summary, Summary { median: 3.0, lowest: 1.0, highest: 5.0 });
        assert_eq!(summarize(&[4.0, 1.0, 2.0, 9.0]).unwrap().median.to_bits(), 3.0_f64.to_bits());
        assert_eq!(summarize(&[]), None);
    }

    #[test]
    fn ratios_are_of_neighbours() {
        // The second pair ran on a machine at half speed, which does not affect the ratio.
        let fast = RunValues::from([(1, 100.0), (2, 50.0), (4, 30.0), (5, 8.0)]);
        let base = RunValues::from([(1, 10.0), (2, 5.0), (3, 1.0), (5, 0.0)]);
        assert_eq!(ratios(&fast, &base), RunValues::from([(1, 10.0), (2, 10.0)]));
        let summary = summarize_runs(&ratios(&fast, &base)).unwrap();
        assert_eq!(summary, Summary { median: 10.0, lowest: 10.0, highest: 10.0 });
        let none = RunValues::new();
        assert_eq!(summarize_runs(&ratios(&none, &base)), None);
    }

    #[test]
    fn one_run_out_of_line_does_not_move_the_deviation() {
        let calm = relative_deviation(&[99.0, 100.0, 101.0, 98.0, 102.0]).unwrap();
        let spiked = relative_deviation(&[99.0, 100.0, 101.0, 98.0, 900.0]).unwrap();
        assert!((calm - 0.01).abs() < 1e-12, "{calm}");
        assert!(spiked < 0.02, "{spiked}");
        assert_eq!(relative_deviation(&[0.0, 0.0]), None);
        assert_eq!(relative_deviation(&[]), None);
    }
}

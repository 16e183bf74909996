//! Medians, spreads and ratios of a handful of runs.

/// Several runs in three numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

/// The summary of at least one value.
pub(crate) fn summarize(values: &[f64]) -> Option<Summary> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    let median =
        if sorted.len() % 2 == 1 { upper } else { f64::midpoint(sorted[middle - 1], upper) };
    Some(Summary { median, lowest: sorted[0], highest: sorted[sorted.len() - 1] })
}

/// The summary of the ratios of runs that were made one after the other, so that both sides had
/// the same noise. Runs where either side failed, or the base is not above zero, are left out.
pub(crate) fn summarize_ratios(values: &[Option<f64>], base: &[Option<f64>]) -> Option<Summary> {
    let ratios: Vec<f64> = values
        .iter()
        .zip(base)
        .filter_map(|(value, base)| Some((*value)? / base.filter(|base| *base > 0.0)?))
        .collect();
    summarize(&ratios)
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
        // The second pair ran on a machine at half speed: the ratio does not see it.
        let fast = [Some(100.0), Some(50.0), None, Some(30.0), Some(8.0)];
        let base = [Some(10.0), Some(5.0), Some(1.0), None, Some(0.0)];
        let ratio = summarize_ratios(&fast, &base).unwrap();
        assert_eq!(ratio, Summary { median: 10.0, lowest: 10.0, highest: 10.0 });
        assert_eq!(summarize_ratios(&[None], &[Some(1.0)]), None);
    }
}

//! Compares two measurements: what changed, and whether the change is more than noise.
//!
//! Absolute figures of two days differ with the state of the machine. If both measurements have the
//! same base, the ratios to it are compared, because the machine hardly affects them.
//!
//! **The rule.** A change is beyond the noise when all three hold:
//! 1. the values of the old runs and those of the new runs do not overlap;
//! 2. the change of the median is larger than twice the larger relative median absolute deviation
//!    of the two sides;
//! 3. it is larger than 1 %.
//!
//! Each side needs three runs. If nothing has changed, three runs against three still do not
//! overlap in one of ten cases by chance, and five against five in one of 126. Therefore the second
//! condition is needed too, and five runs are better.

use std::fmt;

use crate::report::figures::{self, Measure};
use crate::report::text;
use crate::results::{Better, Results, ScenarioResult};
use crate::statistics::{RunValues, ratios, relative_deviation, summarize_runs};

/// With fewer runs on one side there is no verdict.
const RUNS_MIN: usize = 3;

/// A change must be larger than the deviation of the runs by this factor.
const DEVIATIONS_MIN: f64 = 2.0;

/// Smaller changes do not matter, however steady the runs are.
const CHANGE_MIN: f64 = 0.01;

/// The verdict on a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Better, beyond the noise.
    Better,
    /// Worse, beyond the noise.
    Worse,
    /// Not distinguishable from noise.
    WithinNoise,
    /// Not enough valid runs on one side.
    TooFewRuns,
}

/// A compared figure.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) scenario: String,
    pub(crate) subject: String,
    pub(crate) heading: String,
    /// Whether `old` and `new` are ratios to the base instead of absolute figures.
    pub(crate) is_ratio: bool,
    pub(crate) old: f64,
    pub(crate) new: f64,
    /// `new / old - 1`; `None` if `old` is zero.
    pub(crate) relative: Option<f64>,
    pub(crate) verdict: Verdict,
    is_time: bool,
}

/// The result of a comparison.
#[derive(Debug, Clone)]
pub(crate) struct Comparison {
    /// The common base, if ratios to it are compared.
    pub(crate) base: Option<String>,
    pub(crate) changes: Vec<Change>,
    /// Scenarios and subjects whose runs all fail now, while some were valid before.
    pub(crate) now_failing: Vec<(String, String)>,
    /// Reasons why the comparison is weaker than it looks, or incomplete.
    pub(crate) warnings: Vec<String>,
}

/// Compares scenarios and subjects with the same name.
pub(crate) fn compare(old: &Results, new: &Results) -> Comparison {
    let has_base = |results: &Results| results.subjects.len() > 1;
    let base = (old.subjects[0].name == new.subjects[0].name && has_base(old) && has_base(new))
        .then(|| old.subjects[0].name.clone());
    let mut comparison = Comparison {
        base,
        changes: Vec::new(),
        now_failing: Vec::new(),
        warnings: machine_warnings(old, new),
    };
    for before in &old.scenarios {
        match new.scenarios.iter().find(|after| after.name == before.name) {
            None => comparison.warn(format!("scenario {} is only in the old results", before.name)),
            Some(after) if after.definition != before.definition => comparison.warn(format!(
                "scenario {} is left out: its file changed, so both measured something else",
                before.name
            )),
            Some(after) => comparison.add_scenario(old, before, new, after),
        }
    }
    for after in &new.scenarios {
        if !old.scenarios.iter().any(|before| before.name == after.name) {
            comparison.warn(format!("scenario {} is only in the new results", after.name));
        }
    }
    comparison
}

impl Comparison {
    /// Whether anything is worse beyond the noise, or fails only now.
    pub(crate) fn is_worse(&self) -> bool {
        let is_worse = |change: &Change| change.verdict == Verdict::Worse;
        !self.now_failing.is_empty() || self.changes.iter().any(is_worse)
    }

    fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    fn add_scenario(
        &mut self,
        old: &Results,
        before: &ScenarioResult,
        new: &Results,
        after: &ScenarioResult,
    ) {
        for (index, subject) in old.subjects.iter().enumerate() {
            let is_base = self.base.as_ref() == Some(&subject.name);
            // The floor and the base are the measures for others, so they are not judged.
            if is_base || (subject.is_floor && index > 0) {
                continue;
            }
            let Some(twin) = new.subjects.iter().position(|twin| twin.name == subject.name) else {
                continue;
            };
            let valid = |scenario, subject| figures::valid_runs(scenario, subject);
            if valid(before, index).0 > 0 && matches!(valid(after, twin), (0, all) if all > 0) {
                self.now_failing.push((before.name.clone(), subject.name.clone()));
            }
            for measure in figures::measures().iter().filter(|measure| measure.is_compared()) {
                let figure = self.change(measure, (before, index), (after, twin));
                self.changes.extend(figure.map(|change| Change {
                    scenario: before.name.clone(),
                    subject: subject.name.clone(),
                    ..change
                }));
            }
        }
    }

    fn change(
        &self,
        measure: &Measure,
        (before, index): (&ScenarioResult, usize),
        (after, twin): (&ScenarioResult, usize),
    ) -> Option<Change> {
        let old_values = measure.values(before, index);
        let new_values = measure.values(after, twin);
        let old_ratios = ratios(&old_values, &measure.values(before, 0));
        let new_ratios = ratios(&new_values, &measure.values(after, 0));
        let is_ratio = self.base.is_some() && !old_ratios.is_empty() && !new_ratios.is_empty();
        let (old, new) = if is_ratio { (old_ratios, new_ratios) } else { (old_values, new_values) };
        let (old_median, new_median) = (summarize_runs(&old)?.median, summarize_runs(&new)?.median);
        Some(Change {
            scenario: String::new(),
            subject: String::new(),
            heading: measure.heading.clone(),
            is_ratio,
            old: old_median,
            new: new_median,
            relative: (old_median != 0.0).then(|| new_median / old_median - 1.0),
            verdict: judge(&old, &new, measure.better),
            is_time: measure.unit == figures::Unit::Microseconds,
        })
    }
}

/// The rule of this module.
fn judge(old: &RunValues, new: &RunValues, better: Better) -> Verdict {
    if old.len() < RUNS_MIN || new.len() < RUNS_MIN {
        return Verdict::TooFewRuns;
    }
    let (Some(before), Some(after)) = (summarize_runs(old), summarize_runs(new)) else {
        return Verdict::TooFewRuns;
    };
    let deviation = |values: &RunValues| {
        relative_deviation(&values.values().copied().collect::<Vec<_>>()).unwrap_or(0.0)
    };
    let are_apart = before.highest < after.lowest || after.highest < before.lowest;
    // Any change from zero is infinitely large.
    let change = if before.median == 0.0 {
        f64::INFINITY
    } else {
        (after.median / before.median - 1.0).abs()
    };
    let noise = DEVIATIONS_MIN * deviation(old).max(deviation(new));
    if !are_apart || change <= noise.max(CHANGE_MIN) {
        return Verdict::WithinNoise;
    }
    match (better, after.median > before.median) {
        (Better::More, true) | (Better::Less, false) => Verdict::Better,
        (Better::More, false) | (Better::Less, true) => Verdict::Worse,
        (Better::Neither, _) => Verdict::WithinNoise,
    }
}

fn machine_warnings(old: &Results, new: &Results) -> Vec<String> {
    let mut warnings = Vec::new();
    let (before, after) = (&old.environment, &new.environment);
    let mut differ = |what: &str, before: String, after: String| {
        if before != after {
            warnings.push(format!("{what} differs: {before} before, {after} now"));
        }
    };
    differ("the processor", before.cpu_model.clone(), after.cpu_model.clone());
    differ("the number of cores", before.cores_online.to_string(), after.cores_online.to_string());
    differ(
        "the set of cores of the load",
        format!("{:?}", before.load_cores),
        format!("{:?}", after.load_cores),
    );
    for subject in &old.subjects {
        let Some(twin) = new.subjects.iter().find(|twin| twin.name == subject.name) else {
            warnings.push(format!("{} is only in the old results", subject.name));
            continue;
        };
        let mut differ = |what: &str, before: &str, after: &str| {
            if before != after {
                let name = &subject.name;
                warnings
                    .push(format!("the {what} of {name} differs: {before} before, {after} now"));
            }
        };
        let cores = |cores: &Option<String>| cores.clone().unwrap_or_else(|| "unknown".to_owned());
        differ("product", &subject.product, &twin.product);
        differ("set of cores", &cores(&subject.cores), &cores(&twin.cores));
    }
    let is_new = |subject: &&crate::results::Subject| {
        !old.subjects.iter().any(|twin| twin.name == subject.name)
    };
    for subject in new.subjects.iter().filter(is_new) {
        warnings.push(format!("{} is only in the new results", subject.name));
    }
    warnings
}

impl fmt::Display for Comparison {
    /// Plain lines for a terminal; changes beyond the noise come first.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.base {
            Some(base) => writeln!(
                out,
                "Compared are ratios to {base}, which both results have as their base."
            )?,
            None => writeln!(
                out,
                "WARNING: compared are absolute figures, because the results have no common base \
                 (first subject of at least two).\nA change may come from the machine alone. \
                 Measure both against the same base to be sure."
            )?,
        }
        for warning in &self.warnings {
            writeln!(out, "Note: {warning}.")?;
        }
        for (scenario, subject) in &self.now_failing {
            writeln!(out, "FAILING: every new run of {subject} in {scenario} failed.")?;
        }
        let sections = [
            (Verdict::Worse, "Worse, beyond the noise"),
            (Verdict::Better, "Better, beyond the noise"),
            (Verdict::WithinNoise, "Within the noise"),
            (
                Verdict::TooFewRuns,
                "Too few runs to tell (three valid ones on each side are needed)",
            ),
        ];
        for (verdict, title) in sections {
            let ours = || self.changes.iter().filter(|change| change.verdict == verdict);
            if ours().next().is_some() {
                writeln!(out, "\n{title}:")?;
            }
            for change in ours() {
                writeln!(out, "  {change}")?;
            }
        }
        if self.changes.is_empty() {
            writeln!(
                out,
                "\nNothing could be compared: no subject and figure is in both results."
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write = match (self.is_ratio, self.is_time) {
            (true, _) => text::ratio,
            (false, true) => text::time_us,
            (false, false) => text::quantity,
        };
        let Self { scenario, subject, heading, .. } = self;
        write!(out, "{scenario}, {subject}, {heading}: ")?;
        write!(out, "{} → {}", write(self.old), write(self.new))?;
        match self.relative {
            Some(change) => write!(out, " ({:+.1} %)", change * 100.0)?,
            None => write!(out, " (from zero)")?,
        }
        if self.is_ratio { Ok(()) } else { write!(out, " [absolute]") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    const SPEED: &str = "messages_per_s";

    /// The speed of `leveret` times `factor`, with noise.
    fn changed(factor: f64) -> Results {
        let mut results = sample::results();
        for run in results.scenarios[0].runs.iter_mut().filter(|run| run.subject == 1) {
            let noise = 1.0 + 0.02 * (f64::from(run.number) - 2.0);
            *run.metrics.get_mut(SPEED).unwrap() *= factor * noise;
        }
        results
    }

    fn speed(comparison: &Comparison) -> &Change {
        comparison.changes.iter().find(|change| change.heading == "messages/s").unwrap()
    }

    #[test]
    fn a_change_of_the_machine_is_no_change() {
        let (old, mut new) = (changed(1.0), changed(1.0));
        for run in &mut new.scenarios[0].runs {
            *run.metrics.get_mut(SPEED).unwrap() *= 0.3;
        }
        let comparison = compare(&old, &new);
        assert_eq!(speed(&comparison).verdict, Verdict::WithinNoise);
        assert!(speed(&comparison).is_ratio && !comparison.is_worse());
        assert!(comparison.to_string().contains("ratios to old"), "{comparison}");
    }

    #[test]
    fn a_change_is_judged_by_the_noise_of_the_runs() {
        let against = |factor| compare(&changed(1.0), &changed(factor));
        assert_eq!(speed(&against(0.98)).verdict, Verdict::WithinNoise);
        assert_eq!(speed(&against(0.7)).verdict, Verdict::Worse);
        assert_eq!(speed(&against(1.3)).verdict, Verdict::Better);
        assert!(against(0.7).is_worse() && !against(1.3).is_worse());
        assert!(against(0.7).to_string().contains("-30.0 %"), "{}", against(0.7));
    }

    #[test]
    fn of_times_less_is_better() {
        let mut new = sample::results();
        for run in new.scenarios[0].runs.iter_mut().filter(|run| run.subject == 1) {
            run.latencies.get_mut("delivery").unwrap().p99_us *= 2.0;
        }
        let worse = compare(&sample::results(), &new);
        let p99 = worse.changes.iter().find(|change| change.heading.ends_with(", p99")).unwrap();
        assert_eq!(p99.verdict, Verdict::Worse);
        assert!(!compare(&new, &sample::results()).is_worse());
    }

    #[test]
    fn two_runs_tell_nothing() {
        let mut new = changed(0.1);
        new.scenarios[0].runs[1].fault = Some("cut".to_owned());
        let comparison = compare(&changed(1.0), &new);
        assert_eq!(speed(&comparison).verdict, Verdict::TooFewRuns);
        assert!(!comparison.is_worse());
        for run in new.scenarios[0].runs.iter_mut().filter(|run| run.subject == 1) {
            run.fault = Some("cut".to_owned());
        }
        let failing = compare(&changed(1.0), &new);
        assert_eq!(failing.now_failing, [("small".to_owned(), "leveret".to_owned())]);
        assert!(failing.is_worse());
    }

    #[test]
    fn without_a_common_base_figures_are_compared_with_a_warning() {
        let (mut old, mut new) = (changed(1.0), changed(0.5));
        for results in [&mut old, &mut new] {
            results.subjects.remove(0);
            let runs = &mut results.scenarios[0].runs;
            runs.retain(|run| run.subject > 0);
            for run in runs.iter_mut() {
                run.subject -= 1;
            }
            results.subjects.truncate(1);
            runs.retain(|run| run.subject == 0);
        }
        let comparison = compare(&old, &new);
        assert!(!speed(&comparison).is_ratio);
        assert!(comparison.to_string().starts_with("WARNING"), "{comparison}");
        assert!((speed(&comparison).relative.unwrap() + 0.5).abs() < 1e-9);
    }

    #[test]
    fn what_is_not_the_same_is_not_compared() {
        let mut new = changed(0.1);
        new.scenarios[0].definition.push_str("\n# more");
        new.environment.cpu_model = "Another CPU".to_owned();
        let comparison = compare(&changed(1.0), &new);
        assert!(comparison.changes.is_empty() && !comparison.is_worse());
        let text = comparison.to_string();
        assert!(text.contains("its file changed") && text.contains("Another CPU"), "{text}");
    }
}

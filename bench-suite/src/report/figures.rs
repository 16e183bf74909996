//! The content of a report before it becomes text or pictures: every figure with its ratio to the
//! base and its share of the floor. Failed runs are left out.

use crate::results::{
    Better, LATENCIES, Latency, METRICS, Messages, Results, Run, ScenarioResult, Subject,
};
use crate::statistics::{RunValues, Summary, ratios, summarize_runs};

/// A percentile of a latency: its name, whether ratios are shown, and its value.
type Percentile = (&'static str, bool, fn(&Latency) -> f64);

/// The rows of a latency. The rarest values differ between runs by chance alone, therefore p99.99
/// and the maximum have no ratio.
const PERCENTILES: [Percentile; 6] = [
    ("p50", true, |latency| latency.p50_us),
    ("p90", false, |latency| latency.p90_us),
    ("p99", true, |latency| latency.p99_us),
    ("p99.9", true, |latency| latency.p99_9_us),
    ("p99.99", false, |latency| latency.p99_99_us),
    ("max", false, |latency| latency.max_us),
];

/// A latency of the load client itself: it explains others, is not compared and has no plot.
pub(crate) const CLIENT_LATENCY: &str = "send_lag";

/// Above this share of a core, a load thread is saturated.
const CLIENT_BUSY_MIN: f64 = 0.95;

/// Below this share of its cores, a broker is not saturated.
const BROKER_BUSY_MAX: f64 = 0.9;

/// A row of a table: a metric, or a percentile of a latency.
#[derive(Debug, Clone)]
pub(crate) struct Measure {
    /// The heading, with the unit if there is one.
    pub(crate) heading: String,
    pub(crate) better: Better,
    pub(crate) unit: Unit,
    has_floor: bool,
    source: Source,
}

/// The format of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// A number; the heading has the unit.
    Plain,
    /// A duration.
    Microseconds,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    Metric(&'static str),
    Latency(&'static str, fn(&Latency) -> f64),
}

/// The aspect of a headline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aspect {
    /// The main figure of the scenario.
    Main,
    /// The cost for the broker.
    PerCpu,
    /// The latency of the slowest hundredth.
    P99,
}

/// One measure of one subject over its valid runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cell {
    pub(crate) value: Summary,
    /// The ratio to the base; `None` for the base itself and for measures that are not compared.
    pub(crate) ratio: Option<Summary>,
    /// The share of the floor, where 1 is all of it; `None` for the floor itself and if it is
    /// meaningless.
    pub(crate) share: Option<Summary>,
}

/// All measures, in the order of a table's rows.
pub(crate) fn measures() -> Vec<Measure> {
    let metrics = METRICS.iter().map(|metric| Measure {
        heading: metric.heading.to_owned(),
        better: metric.better,
        unit: Unit::Plain,
        has_floor: metric.has_floor,
        source: Source::Metric(metric.key),
    });
    let latencies = LATENCIES.iter().flat_map(|(kind, heading)| {
        PERCENTILES.iter().map(move |(percentile, compared, of)| {
            let is_compared = *compared && *kind != CLIENT_LATENCY;
            Measure {
                heading: format!("{heading}, {percentile}"),
                better: if is_compared { Better::Less } else { Better::Neither },
                unit: Unit::Microseconds,
                has_floor: false,
                source: Source::Latency(kind, *of),
            }
        })
    });
    metrics.chain(latencies).collect()
}

/// The measure with a key: a metric, or a latency and its percentile, as in `delivery.p99`.
pub(crate) fn measure(key: &str) -> Option<Measure> {
    let heading = if let Some((kind, percentile)) = key.split_once('.') {
        let (_, heading) = LATENCIES.iter().find(|(of, _)| *of == kind)?;
        format!("{heading}, {percentile}")
    } else {
        METRICS.iter().find(|metric| metric.key == key)?.heading.to_owned()
    };
    measures().into_iter().find(|measure| measure.heading == heading)
}

/// The measures that at least one valid run of the scenario has.
pub(crate) fn present(scenario: &ScenarioResult) -> Vec<Measure> {
    let has = |measure: &Measure| scenario.runs.iter().any(|run| measure.value(run).is_some());
    measures().into_iter().filter(has).collect()
}

/// The measures in the overview.
pub(crate) fn headlines(scenario: &ScenarioResult) -> Vec<(Aspect, Measure)> {
    let all: Vec<Measure> = present(scenario).into_iter().filter(Measure::is_compared).collect();
    let main = all.iter().find(|measure| !measure.is_per_cpu());
    let per_cpu = all.iter().find(|measure| measure.is_per_cpu());
    let p99 = all.iter().find(|measure| measure.heading.ends_with(", p99"));
    [(Aspect::Main, main), (Aspect::PerCpu, per_cpu), (Aspect::P99, p99)]
        .into_iter()
        .filter_map(|(aspect, measure)| Some((aspect, measure?.clone())))
        .collect()
}

impl Measure {
    /// The value in a run; `None` for a failed run.
    pub(crate) fn value(&self, run: &Run) -> Option<f64> {
        if run.fault.is_some() {
            return None;
        }
        let value = match self.source {
            Source::Metric(key) => *run.metrics.get(key)?,
            Source::Latency(kind, of) => of(run.latencies.get(kind)?),
        };
        value.is_finite().then_some(value)
    }

    /// The values of all valid runs of a subject.
    pub(crate) fn values(&self, scenario: &ScenarioResult, subject: usize) -> RunValues {
        let ours = scenario.runs.iter().filter(|run| run.subject == subject);
        ours.filter_map(|run| Some((run.number, self.value(run)?))).collect()
    }

    /// Whether it has a better direction.
    pub(crate) fn is_compared(&self) -> bool {
        self.better != Better::Neither
    }

    /// Whether it is work done per second of the broker's CPU time.
    pub(crate) fn is_per_cpu(&self) -> bool {
        matches!(self.source, Source::Metric(key) if key.ends_with("_per_broker_cpu_s"))
    }

    /// The heading with the better direction, for places where both are in one cell.
    pub(crate) fn label(&self) -> String {
        match self.better {
            Better::More => format!("{} (more is better)", self.heading),
            Better::Less => format!("{} (less is better)", self.heading),
            Better::Neither => self.heading.clone(),
        }
    }
}

/// One measure of one subject; `None` if no valid run has it.
pub(crate) fn cell(
    results: &Results,
    scenario: &ScenarioResult,
    subject: usize,
    measure: &Measure,
) -> Option<Cell> {
    let values = measure.values(scenario, subject);
    let to = |other: usize| summarize_runs(&ratios(&values, &measure.values(scenario, other)));
    let ratio = if subject != 0 && measure.is_compared() { to(0) } else { None };
    let floor = floor(results).filter(|floor| *floor != subject && measure.has_floor);
    Some(Cell { value: summarize_runs(&values)?, ratio, share: floor.and_then(to) })
}

/// The index of the floor, if there is one.
pub(crate) fn floor(results: &Results) -> Option<usize> {
    results.subjects.iter().position(|subject| subject.is_floor)
}

/// The number of valid runs of a subject, and of all its runs.
pub(crate) fn valid_runs(scenario: &ScenarioResult, subject: usize) -> (usize, usize) {
    let ours = scenario.runs.iter().filter(|run| run.subject == subject);
    let (mut valid, mut all) = (0, 0);
    for run in ours {
        all += 1;
        valid += usize::from(run.fault.is_none());
    }
    (valid, all)
}

/// The messages of all valid runs of a subject; `None` if the scenario moves none.
pub(crate) fn messages(scenario: &ScenarioResult, subject: usize) -> Option<Messages> {
    let ours = scenario.runs.iter().filter(|run| run.subject == subject && run.fault.is_none());
    ours.filter_map(|run| run.messages).reduce(|sum, run| Messages {
        published: sum.published.saturating_add(run.published),
        expected: sum.expected.saturating_add(run.expected),
        lost: sum.lost.saturating_add(run.lost),
        duplicated: sum.duplicated.saturating_add(run.duplicated),
        reordered: sum.reordered.saturating_add(run.reordered),
        corrupted: sum.corrupted.saturating_add(run.corrupted),
        foreign: sum.foreign.saturating_add(run.foreign),
    })
}

/// Subjects for which the load client was the limit of a scenario. An open loop has a limit of its
/// own, and its client polls the clock whenever nothing is due.
pub(crate) fn client_limited<'a>(
    results: &'a Results,
    scenario: &ScenarioResult,
) -> Vec<&'a Subject> {
    let median = |subject, wanted: &str| {
        let all = measures();
        let measure = all
            .iter()
            .find(|measure| matches!(measure.source, Source::Metric(key) if key == wanted))?;
        Some(summarize_runs(&measure.values(scenario, subject))?.median)
    };
    let is_open_loop = scenario.runs.iter().any(|run| run.latencies.contains_key("send_lag"));
    let is_limited = |index: usize, subject: &Subject| {
        if is_open_loop {
            return None;
        }
        let client = median(index, "client_busy")?;
        let broker = median(index, "broker_busy")?;
        let listed = subject.cores.as_deref().and_then(count_cores);
        let cores = listed.unwrap_or(results.environment.cores_online) as f64;
        Some(client >= CLIENT_BUSY_MIN && broker < BROKER_BUSY_MAX * cores)
    };
    let subjects = results.subjects.iter().enumerate();
    subjects
        .filter(|(index, subject)| is_limited(*index, subject) == Some(true))
        .map(|(_, subject)| subject)
        .collect()
}

/// The number of cores in the kernel's notation: `0-3,8` has five. `None` if the text is invalid.
pub(crate) fn count_cores(list: &str) -> Option<usize> {
    let mut count = 0_usize;
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

/// The failed runs as text: where each was made, and why it failed.
pub(crate) fn failures(results: &Results) -> Vec<(String, &str)> {
    let mut failures = Vec::new();
    for scenario in &results.scenarios {
        for run in &scenario.runs {
            if let Some(fault) = &run.fault {
                let subject = &results.subjects[run.subject].name;
                failures
                    .push((format!("{}, {subject}, run {}", scenario.name, run.number), &**fault));
            }
        }
    }
    failures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::{results, run};

    #[test]
    fn a_failed_run_contributes_no_figure() {
        let mut results = results();
        results.scenarios[0].runs[1].fault = Some("lost 3".to_owned());
        results.scenarios[0].runs[1].metrics.insert("messages_per_s".to_owned(), 1e12);
        let scenario = &results.scenarios[0];
        let measure = &present(scenario)[0];
        let cell = cell(&results, scenario, 1, measure).unwrap();
        assert!(cell.value.highest < 1e12, "{cell:?}");
        assert_eq!(measure.values(scenario, 1).keys().copied().collect::<Vec<_>>(), [2, 3]);
        assert_eq!(valid_runs(scenario, 1), (2, 3));
        assert_eq!(messages(scenario, 1).unwrap().published, 2_000);
        assert_eq!(failures(&results)[0].1, "lost 3");
    }

    #[test]
    fn ratios_and_shares_are_of_the_same_run() {
        let results = results();
        let scenario = &results.scenarios[0];
        let speed = &present(scenario)[0];
        let of = |subject| cell(&results, scenario, subject, speed).unwrap();
        // The sample has base 100, subject 1000, floor 2000, each times the speed of the machine in
        // that run.
        assert!((of(1).ratio.unwrap().median - 10.0).abs() < 1e-9);
        assert!((of(1).ratio.unwrap().highest - 10.0).abs() < 1e-9);
        assert!((of(1).share.unwrap().median - 0.5).abs() < 1e-9);
        assert!((of(0).share.unwrap().median - 0.05).abs() < 1e-9);
        assert_eq!((of(0).ratio, of(2).share), (None, None));
    }

    #[test]
    fn the_client_is_called_the_limit_only_when_the_broker_has_time_left() {
        let mut results = results();
        results.scenarios[0].runs = vec![
            run(0, 1, &[("client_busy", 0.99), ("broker_busy", 0.95)]),
            run(1, 1, &[("client_busy", 0.99), ("broker_busy", 0.50)]),
            run(2, 1, &[("client_busy", 0.50), ("broker_busy", 0.50)]),
        ];
        let limited = client_limited(&results, &results.scenarios[0]);
        assert_eq!(limited.len(), 1);
        assert_eq!(limited[0].name, "leveret");
    }

    #[test]
    fn cores_are_counted_as_the_kernel_lists_them() {
        assert_eq!(count_cores("0"), Some(1));
        assert_eq!(count_cores("0-3,8"), Some(5));
        assert_eq!(count_cores("3-0"), None);
        assert_eq!(count_cores("all"), None);
    }

    #[test]
    fn headlines_are_the_purpose_the_cost_and_the_tail() {
        let results = results();
        let aspects: Vec<Aspect> =
            headlines(&results.scenarios[0]).iter().map(|(aspect, _)| *aspect).collect();
        assert_eq!(aspects, [Aspect::Main, Aspect::PerCpu, Aspect::P99]);
    }
}

//! The plots of a report, and their data.

use std::fmt;

use crate::report::figures::{self, Aspect, CLIENT_LATENCY, Measure};
use crate::report::plot::{self, Bar, Group, Heading, Ink, Line, Origin};
use crate::report::text;
use crate::results::{LATENCIES, Results, Run, ScenarioResult};
use crate::statistics::summarize;

/// The most points of a line: more cannot be distinguished on a screen.
const POINTS_MAX: usize = 400;

/// Above this ratio between subjects, a linear axis would hide the slower one.
const LINEAR_RATIO_MAX: f64 = 15.0;

/// A plot with its caption.
#[derive(Debug)]
pub(crate) struct Picture {
    pub(crate) svg: String,
    pub(crate) caption: String,
    /// Its subjects, for the legend.
    pub(crate) subjects: Vec<usize>,
}

/// The colour of a subject.
pub(crate) fn ink(results: &Results, subject: usize) -> Ink {
    if results.subjects[subject].is_floor { Ink::Floor } else { Ink::Subject(subject) }
}

/// All scenarios together: one plot for each aspect that any of them has.
pub(crate) fn overview(results: &Results) -> Result<Vec<Picture>, fmt::Error> {
    let base = &results.subjects[0].name;
    let aspects = [
        (Aspect::Main, "main", "What the scenario is made for", "The direction is in the labels"),
        (
            Aspect::PerCpu,
            "per-cpu",
            "Work per second of broker CPU",
            "Longer to the right is better",
        ),
        (Aspect::P99, "p99", "Time of the slowest hundredth", "Longer to the left is better"),
    ];
    let mut pictures = Vec::new();
    for (aspect, id, what, direction) in aspects {
        let wanted = |scenario: &ScenarioResult| {
            let headlines = figures::headlines(scenario);
            let measure = headlines.into_iter().find(|headline| headline.0 == aspect)?.1;
            let label = format!("{}: {}", scenario.name, measure.label());
            ratio_group(results, scenario, &measure, label)
        };
        let groups: Vec<Group> = results.scenarios.iter().filter_map(wanted).collect();
        if groups.is_empty() {
            continue;
        }
        let title = format!("{what}, as a multiple of {base}, in each scenario");
        let heading = Heading { id: format!("overview-{id}"), kind: "bars", title };
        let caption = format!(
            "{what}, as a multiple of {base}. The upright line at 1 × is {base} itself. \
             {direction}. The axis is logarithmic: from 1 to 10 is as far as from 10 to 100."
        );
        let svg = plot::bars(&heading, &groups, Origin::One)?;
        pictures.push(Picture { svg, caption, subjects: (1..results.subjects.len()).collect() });
    }
    Ok(pictures)
}

/// All plots of one scenario; their ids begin with `slug`.
pub(crate) fn of_scenario(
    results: &Results,
    scenario: &ScenarioResult,
    slug: &str,
) -> Result<Vec<Picture>, fmt::Error> {
    let mut pictures = Vec::new();
    pictures.extend(ratio_bars(results, scenario, slug)?);
    pictures.extend(rates(results, scenario, slug)?);
    for (kind, heading) in LATENCIES.into_iter().filter(|(kind, _)| *kind != CLIENT_LATENCY) {
        pictures.extend(percentiles(results, scenario, slug, (kind, heading))?);
    }
    pictures.extend(cpu(results, scenario, slug)?);
    Ok(pictures)
}

fn ratio_group(
    results: &Results,
    scenario: &ScenarioResult,
    measure: &Measure,
    label: String,
) -> Option<Group> {
    let bar = |subject: usize| {
        let ratio = figures::cell(results, scenario, subject, measure)?.ratio?;
        let name = &results.subjects[subject].name;
        let text = format!("{} {}", text::ratio(ratio.median), text::wrap(name, 14, 1).concat());
        Some(Bar { ink: ink(results, subject), value: ratio.median, text })
    };
    let bars: Vec<Bar> = (1..results.subjects.len()).filter_map(bar).collect();
    (!bars.is_empty()).then_some(Group { label, bars })
}

fn ratio_bars(
    results: &Results,
    scenario: &ScenarioResult,
    slug: &str,
) -> Result<Option<Picture>, fmt::Error> {
    let base = &results.subjects[0].name;
    let compared = figures::present(scenario).into_iter().filter(Measure::is_compared);
    let groups: Vec<Group> = compared
        .filter_map(|measure| ratio_group(results, scenario, &measure, measure.label()))
        .collect();
    if groups.is_empty() {
        return Ok(None);
    }
    let title = format!("{}: every compared figure as a multiple of {base}", scenario.title);
    let heading = Heading { id: format!("{slug}-bars"), kind: "bars", title };
    let caption = format!(
        "Every compared figure as a multiple of {base}, which is the upright line at 1 ×. The \
         axis is logarithmic."
    );
    let svg = plot::bars(&heading, &groups, Origin::One)?;
    Ok(Some(Picture { svg, caption, subjects: (1..results.subjects.len()).collect() }))
}

fn cpu(
    results: &Results,
    scenario: &ScenarioResult,
    slug: &str,
) -> Result<Option<Picture>, fmt::Error> {
    let mut subjects = Vec::new();
    let mut groups = Vec::new();
    for measure in figures::present(scenario).iter().filter(|measure| measure.is_per_cpu()) {
        let mut bars = Vec::new();
        for subject in 0..results.subjects.len() {
            let cell = figures::cell(results, scenario, subject, measure);
            let Some(cell) = cell.filter(|cell| cell.value.median > 0.0) else { continue };
            let value = 1e6 / cell.value.median;
            let text = format!("{} µs", text::quantity(value));
            bars.push(Bar { ink: ink(results, subject), value, text });
            subjects.push(subject);
        }
        let what = measure.heading.split(" per ").next().unwrap_or_default();
        let one = match what {
            "messages" => "one message",
            "operations" => "one operation",
            "filled" => "filling in one message",
            "drained" => "draining one message",
            other => other,
        };
        groups.push(Group { label: format!("broker CPU µs for {one} (less is better)"), bars });
    }
    groups.retain(|group| !group.bars.is_empty());
    if groups.is_empty() {
        return Ok(None);
    }
    subjects.sort_unstable();
    subjects.dedup();
    let title = format!("{}: microseconds of broker CPU for one piece of work", scenario.title);
    let heading = Heading { id: format!("{slug}-cpu"), kind: "cpu", title };
    let caption =
        "CPU that the broker spends on one piece of work, in microseconds (millionths of \
                   a second). Shorter is better. All cores of the broker count."
            .to_owned();
    let svg = plot::bars(&heading, &groups, Origin::Zero)?;
    Ok(Some(Picture { svg, caption, subjects }))
}

fn rates(
    results: &Results,
    scenario: &ScenarioResult,
    slug: &str,
) -> Result<Option<Picture>, fmt::Error> {
    let valid = || scenario.runs.iter().filter(|run| run.fault.is_none());
    let is_consumed = valid().flat_map(|run| &run.rates).any(|point| point.consumed_per_s > 0.0);
    let curve = |run: &Run| -> Vec<(f64, f64)> {
        let rate = |point: &crate::results::RatePoint| {
            let rate = if is_consumed { point.consumed_per_s } else { point.published_per_s };
            (point.at_s, rate)
        };
        thin(&run.rates.iter().map(rate).collect::<Vec<_>>())
    };
    let mean = |points: &[(f64, f64)]| {
        points.iter().map(|point| point.1).sum::<f64>() / points.len() as f64
    };
    let (lines, subjects) = lines(results, scenario, curve, mean);
    if lines.is_empty() {
        return Ok(None);
    }
    let means: Vec<f64> = lines.iter().map(|line| mean(&line.points)).collect();
    let highest = means.iter().copied().fold(0.0, f64::max);
    let lowest = means.iter().copied().filter(|mean| *mean > 0.0).fold(highest, f64::min);
    let is_log = highest > lowest * LINEAR_RATIO_MAX;
    let which = if is_consumed { "received by the consumers" } else { "published" };
    let title = format!("{}: messages {which} per second, over time", scenario.title);
    let heading = Heading { id: format!("{slug}-rates"), kind: "rates", title };
    let scale = if is_log {
        "The upright axis is logarithmic, because the subjects lie far apart."
    } else {
        "The upright axis begins at zero."
    };
    let caption = format!(
        "Messages {which} in each second, warm-up included. The thick line is the run in the \
         middle, the thin ones are the other runs. {scale}"
    );
    let svg = plot::rates(&heading, &lines, is_log)?;
    Ok(Some(Picture { svg, caption, subjects }))
}

fn percentiles(
    results: &Results,
    scenario: &ScenarioResult,
    slug: &str,
    (kind, name): (&str, &str),
) -> Result<Option<Picture>, fmt::Error> {
    let curve = |run: &Run| -> Vec<(f64, f64)> {
        let all = run.latencies.get(kind).map_or(&[][..], |latency| &latency.curve);
        let inside = all.iter().filter(|(percentile, _)| (50.0..100.0).contains(percentile));
        inside.map(|(percentile, us)| (plot::nines(*percentile), us.max(0.1))).collect()
    };
    // The main run has the median p99: 2 on the axis.
    let p99 = |points: &[(f64, f64)]| {
        points.iter().take_while(|point| point.0 <= 2.01).last().map_or(0.0, |point| point.1)
    };
    let (lines, subjects) = lines(results, scenario, curve, p99);
    if lines.is_empty() {
        return Ok(None);
    }
    let title = format!("{}: {name}, percentile curve", scenario.title);
    let heading = Heading { id: format!("{slug}-percentiles-{kind}"), kind: "percentiles", title };
    let caption = format!(
        "Time of {name}. Read it so: at 99 % the curve shows the time that 99 of 100 did not \
         exceed. Lower is better; a flat curve means that the rare slow cases are hardly slower \
         than usual. Both axes are logarithmic. The thick line is the run in the middle, the thin \
         ones are the other runs."
    );
    let svg = plot::percentiles(&heading, &lines)?;
    Ok(Some(Picture { svg, caption, subjects }))
}

/// One line for each valid run with points, and the subjects of these runs. The run whose `rank` is
/// closest to the median of its subject is the main one.
fn lines(
    results: &Results,
    scenario: &ScenarioResult,
    curve: impl Fn(&Run) -> Vec<(f64, f64)>,
    rank: impl Fn(&[(f64, f64)]) -> f64,
) -> (Vec<Line>, Vec<usize>) {
    let (mut lines, mut subjects) = (Vec::new(), Vec::new());
    for subject in 0..results.subjects.len() {
        let ours = |run: &&Run| run.subject == subject && run.fault.is_none();
        let curves: Vec<_> = scenario.runs.iter().filter(ours).map(&curve).collect();
        let curves: Vec<_> = curves.into_iter().filter(|points| !points.is_empty()).collect();
        let ranks: Vec<f64> = curves.iter().map(|points| rank(points)).collect();
        let Some(summary) = summarize(&ranks) else { continue };
        let distance = |index: &usize| (ranks[*index] - summary.median).abs();
        let middle = (0..ranks.len()).min_by(|a, b| distance(a).total_cmp(&distance(b)));
        subjects.push(subject);
        lines.extend(curves.into_iter().enumerate().map(|(index, points)| Line {
            ink: ink(results, subject),
            is_main: Some(index) == middle,
            points,
        }));
    }
    (lines, subjects)
}

/// At most [`POINTS_MAX`] points: neighbours are replaced by their mean, so that no spike vanishes
/// completely.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mean = |chunk: &[(f64, f64)]| {
        let rate = chunk.iter().map(|point| point.1).sum::<f64>() / chunk.len() as f64;
        (chunk[chunk.len() - 1].0, rate)
    };
    points.chunks(points.len().div_ceil(POINTS_MAX).max(1)).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::results;

    #[test]
    fn failed_runs_have_no_line() {
        let mut results = results();
        let of = |results: &Results| {
            let scenario = &results.scenarios[0];
            let curve = |run: &Run| vec![(run.number as f64, 1.0)];
            lines(results, scenario, curve, |points| points[0].0)
        };
        let (all, subjects) = of(&results);
        assert_eq!((all.len(), subjects), (9, vec![0, 1, 2]));
        assert_eq!(all.iter().filter(|line| line.is_main).count(), 3);
        assert!(all[1].is_main, "the middle one of three");
        for run in results.scenarios[0].runs.iter_mut().filter(|run| run.subject == 1) {
            run.fault = Some("cut".to_owned());
        }
        let (rest, subjects) = of(&results);
        assert_eq!((rest.len(), subjects), (6, vec![0, 2]));
    }

    #[test]
    fn long_lines_are_thinned_to_their_means() {
        let points: Vec<_> = (0..1_200).map(|index| (index as f64, 3.0)).collect();
        let thinned = thin(&points);
        assert_eq!(thinned.len(), 400);
        assert_eq!(thinned[0], (2.0, 3.0));
        assert_eq!(thin(&points[..5]).len(), 5);
        assert!(thin(&[]).is_empty());
    }

    #[test]
    fn every_kind_of_plot_is_drawn() {
        let results = results();
        let pictures = of_scenario(&results, &results.scenarios[0], "s").unwrap();
        for kind in ["bars", "rates", "percentiles", "cpu"] {
            let mark = format!("data-plot=\"{kind}\"");
            assert!(pictures.iter().any(|picture| picture.svg.contains(&mark)), "{kind}");
        }
        assert_eq!(overview(&results).unwrap().len(), 3);
    }

    #[test]
    fn a_lone_subject_has_no_ratios() {
        let mut results = results();
        results.subjects.truncate(1);
        results.scenarios[0].runs.retain(|run| run.subject == 0);
        assert!(overview(&results).unwrap().is_empty());
        assert!(ratio_bars(&results, &results.scenarios[0], "s").unwrap().is_none());
    }
}

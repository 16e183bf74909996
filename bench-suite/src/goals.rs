//! The table of goals: target, measured figure, and whether the goal is met. It is generated from
//! results files, so that no figure is copied by hand.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::fault::Fault;
use crate::report::figures::{self, Measure, Unit};
use crate::report::text;
use crate::results::{Better, Results, ScenarioResult};
use crate::statistics::{Summary, ratios, summarize_runs};

/// Which goals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Which {
    /// What a flow reaches alone.
    Speed,
    /// What it costs a flow that others are there.
    #[value(name = "beside")]
    Interference,
}

impl Which {
    fn text(self) -> &'static str {
        match self {
            Self::Speed => include_str!("../goals.toml"),
            Self::Interference => include_str!("../beside.toml"),
        }
    }

    /// The lines of a page between which the table stands.
    fn lines(self) -> [&'static str; 2] {
        match self {
            Self::Speed => {
                ["<!-- begin: leveret-bench goals -->", "<!-- end: leveret-bench goals -->"]
            }
            Self::Interference => [
                "<!-- begin: leveret-bench goals --table beside -->",
                "<!-- end: leveret-bench goals --table beside -->",
            ],
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Goals {
    goal: Vec<Goal>,
}

/// One row of the table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Goal {
    title: String,
    scenario: String,
    /// The key of a metric, or of a latency and its percentile.
    figure: String,
    at_least: Option<f64>,
    at_most: Option<f64>,
    /// Compared with the floor's figure in the same interleaved runs.
    floor_share_at_least: Option<f64>,
    floor_share_at_most: Option<f64>,
}

/// The comparison of a row.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Bound {
    Value(Better, f64),
    FloorShare(Better, f64),
}

/// The measured values of a row.
#[derive(Debug)]
struct Measured {
    rival: Option<Summary>,
    floor: Option<Summary>,
    ours: Summary,
    /// The ratio between neighbouring runs.
    times_rival: Option<Summary>,
    floor_share: Option<Summary>,
    /// Valid runs of the judged subject, and all of its runs.
    runs: (usize, usize),
}

/// The subjects that are compared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subjects<'a> {
    /// The name of the subject that is judged.
    pub(crate) ours: &'a str,
    /// The name of the subject that it is compared with.
    pub(crate) rival: &'a str,
}

/// Names of the scenarios that the goals need, each once.
pub(crate) fn scenarios(which: Which) -> Result<BTreeSet<String>, Fault> {
    Ok(goals(which)?.into_iter().map(|goal| goal.scenario).collect())
}

/// The table as Markdown. If several results contain a scenario, the last one counts.
pub(crate) fn table(
    which: Which,
    measured: &[Results],
    subjects: Subjects<'_>,
) -> Result<String, Fault> {
    let mut rows = Vec::new();
    for goal in goals(which)? {
        rows.push((goal.bound()?, goal.measure()?, goal));
    }
    Ok(Table { measured, subjects, rows }.to_string())
}

/// Replaces the table in a page.
pub(crate) fn insert(which: Which, page: &Path, table: &str) -> Result<(), Fault> {
    let shown = page.display();
    let text = fs::read_to_string(page).map_err(Fault::io(format!("read {shown}")))?;
    let [begin, end] = which.lines();
    let replaced = replace(which, &text, table)
        .ok_or_else(|| Fault::Usage(format!("{shown} has no lines `{begin}` and `{end}`")))?;
    fs::write(page, replaced).map_err(Fault::io(format!("write {shown}")))
}

fn replace(which: Which, page: &str, table: &str) -> Option<String> {
    let [begin, end] = which.lines();
    let (before, rest) = page.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}\n{table}{end}{after}"))
}

fn goals(which: Which) -> Result<Vec<Goal>, Fault> {
    let goals: Goals = toml::from_str(which.text())
        .map_err(|error| Fault::Usage(format!("the {which:?} goals are not valid: {error}")))?;
    Ok(goals.goal)
}

impl Goal {
    fn bound(&self) -> Result<Bound, Fault> {
        let bounds = [
            self.at_least.map(|value| Bound::Value(Better::More, value)),
            self.at_most.map(|value| Bound::Value(Better::Less, value)),
            self.floor_share_at_least.map(|share| Bound::FloorShare(Better::More, share)),
            self.floor_share_at_most.map(|share| Bound::FloorShare(Better::Less, share)),
        ];
        let mut bounds = bounds.into_iter().flatten();
        match (bounds.next(), bounds.next()) {
            (Some(bound), None) => Ok(bound),
            _ => Err(Fault::Usage(format!("the goal `{}` needs one bound", self.title))),
        }
    }

    fn measure(&self) -> Result<Measure, Fault> {
        figures::measure(&self.figure)
            .ok_or_else(|| Fault::Usage(format!("there is no figure `{}`", self.figure)))
    }

    fn measured(
        &self,
        measure: &Measure,
        measured: &[Results],
        subjects: Subjects<'_>,
    ) -> Option<Measured> {
        let mut with_scenario = measured.iter().rev().filter_map(|results| {
            let scenario = results.scenarios.iter().find(|of| of.name == self.scenario)?;
            Some((results, scenario))
        });
        with_scenario.find_map(|(of, scenario)| row(of, scenario, measure, subjects))
    }
}

fn row(
    results: &Results,
    scenario: &ScenarioResult,
    measure: &Measure,
    subjects: Subjects<'_>,
) -> Option<Measured> {
    let index = |name: &str| results.subjects.iter().position(|subject| subject.name == name);
    let of = |subject: usize| measure.values(scenario, subject);
    let ours = index(subjects.ours)?;
    let to = |other: Option<usize>| {
        other.and_then(|other| summarize_runs(&ratios(&of(ours), &of(other))))
    };
    let (rival, floor) = (index(subjects.rival), figures::floor(results));
    Some(Measured {
        rival: rival.and_then(|rival| summarize_runs(&of(rival))),
        floor: floor.and_then(|floor| summarize_runs(&of(floor))),
        ours: summarize_runs(&of(ours))?,
        times_rival: to(rival),
        floor_share: to(floor),
        runs: figures::valid_runs(scenario, ours),
    })
}

impl Bound {
    fn is_met(self, measured: &Measured) -> Option<bool> {
        let (better, value, bound) = match self {
            Self::Value(better, bound) => (better, measured.ours.median, bound),
            Self::FloorShare(better, bound) => (better, measured.floor_share?.median, bound),
        };
        // A failed run lost, duplicated or reordered something, which no speed makes up for.
        let (valid, all) = measured.runs;
        let reached = if better == Better::Less { value <= bound } else { value >= bound };
        Some(reached && valid == all)
    }

    fn shown(self, unit: Unit) -> String {
        let sign = |better| if better == Better::Less { "≤" } else { "≥" };
        match self {
            Self::Value(better, bound) => format!("{} {}", sign(better), write(unit)(bound)),
            Self::FloorShare(Better::Less, bound) => {
                format!("≤ {} the floor's", text::ratio(bound))
            }
            Self::FloorShare(better, bound) => {
                format!("{} {} of the floor", sign(better), text::share(bound))
            }
        }
    }
}

fn write(unit: Unit) -> fn(f64) -> String {
    match unit {
        Unit::Plain => text::quantity,
        Unit::Microseconds => text::time_us,
    }
}

struct Table<'a> {
    measured: &'a [Results],
    subjects: Subjects<'a>,
    rows: Vec<(Bound, Measure, Goal)>,
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Subjects { ours, rival } = self.subjects;
        let (ours, rival) = (text::markdown(ours), text::markdown(rival));
        writeln!(
            out,
            "| scenario | figure | {rival} | floor | goal | {ours} | × {rival} | × floor | met? |"
        )?;
        writeln!(out, "|---|---|---:|---:|---:|---:|---:|---:|---|")?;
        for (bound, measure, goal) in &self.rows {
            self.write_row(out, *bound, measure, goal)?;
        }
        writeln!(out)?;
        for results in self.measured {
            write_origin(out, results)?;
        }
        Ok(())
    }
}

impl Table<'_> {
    fn write_row(
        &self,
        out: &mut fmt::Formatter<'_>,
        bound: Bound,
        measure: &Measure,
        goal: &Goal,
    ) -> fmt::Result {
        let unit = write(measure.unit);
        write!(out, "| {}, `{}` | {} ", goal.title, goal.scenario, measure.heading)?;
        let goal_shown = bound.shown(measure.unit);
        let Some(measured) = goal.measured(measure, self.measured, self.subjects) else {
            return writeln!(out, "| – | – | {goal_shown} | – | – | – | not measured |");
        };
        let median = |of: Option<Summary>, write: fn(f64) -> String| {
            of.map_or_else(|| "–".to_owned(), |of| write(of.median))
        };
        let met = match (bound.is_met(&measured), measured.runs) {
            (_, (valid, all)) if valid < all => format!("**no**: {valid} of {all} runs valid"),
            (Some(true), _) => "yes".to_owned(),
            (Some(false), _) => "**no**".to_owned(),
            (None, _) => "not measured".to_owned(),
        };
        writeln!(
            out,
            "| {} | {} | {goal_shown} | {} | {} | {} | {met} |",
            median(measured.rival, unit),
            median(measured.floor, unit),
            text::spread(&measured.ours, unit),
            median(measured.times_rival, text::ratio),
            median(measured.floor_share, text::ratio),
        )
    }
}

/// The machine of the figures, because they mean little on another one.
fn write_origin(out: &mut fmt::Formatter<'_>, results: &Results) -> fmt::Result {
    let environment = &results.environment;
    let runs = results.scenarios.iter().flat_map(|scenario| &scenario.runs);
    let most = runs.map(|run| run.number).max().unwrap_or(0);
    let names: Vec<String> =
        results.scenarios.iter().map(|scenario| format!("`{}`", scenario.name)).collect();
    writeln!(
        out,
        "* {}: {}; up to {most} runs; {} cores, {}, kernel {}; revision {}.",
        text::date(environment.started_unix_s),
        names.join(", "),
        environment.cores_online,
        text::markdown(&environment.cpu_model),
        text::markdown(&environment.kernel),
        environment.commit.as_deref().map_or_else(|| "unknown".to_owned(), text::markdown),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue;
    use crate::report::sample;

    const SUBJECTS: Subjects<'_> = Subjects { ours: "leveret", rival: "old" };

    /// The sample's scenario, renamed to one that has a goal.
    fn measured(scenario: &str) -> Results {
        let mut results = sample::results();
        results.scenarios[0].name = scenario.to_owned();
        results
    }

    fn line(table: &str, scenario: &str) -> String {
        let wanted = format!("`{scenario}` |");
        let found = table.lines().find(|line| line.contains(&wanted));
        found.unwrap_or_else(|| panic!("no {scenario} in\n{table}")).to_owned()
    }

    #[test]
    fn every_goal_has_one_bound_a_figure_and_a_scenario() {
        for which in [Which::Speed, Which::Interference] {
            for goal in goals(which).unwrap() {
                goal.bound().unwrap();
                goal.measure().unwrap();
            }
            let names: Vec<String> = scenarios(which).unwrap().into_iter().collect();
            assert_eq!(catalogue::choose(&names).unwrap().len(), names.len());
        }
    }

    #[test]
    fn a_goal_by_the_floor_is_judged_by_neighbouring_runs() {
        // The sample has base 100, ours 1000 and floor 2000, each times the speed of the machine in
        // that run.
        let missed = table(Which::Speed, &[measured("throughput-1k")], SUBJECTS).unwrap();
        let missed = line(&missed, "throughput-1k");
        assert!(missed.contains("| ≥ 85 % of the floor | 1,000 (500 – 2,000) |"), "{missed}");
        assert!(missed.ends_with("| 10.0 × | 0.50 × | **no** |"), "{missed}");
        let mut near = measured("throughput-1k");
        for run in near.scenarios[0].runs.iter_mut().filter(|run| run.subject == 1) {
            *run.metrics.get_mut("messages_per_broker_cpu_s").unwrap() *= 1.8;
        }
        let met =
            table(Which::Speed, &[measured("throughput-1k"), near.clone()], SUBJECTS).unwrap();
        assert!(line(&met, "throughput-1k").ends_with("| 18.0 × | 0.90 × | yes |"), "{met}");
        near.scenarios[0].runs[1].fault = Some("lost 3".to_owned());
        let broken = table(Which::Speed, &[near], SUBJECTS).unwrap();
        assert!(
            line(&broken, "throughput-1k").ends_with("**no**: 2 of 3 runs valid |"),
            "{broken}"
        );
    }

    #[test]
    fn an_absolute_goal_is_judged_by_the_median() {
        let mut results = measured("deep-queue");
        for run in &mut results.scenarios[0].runs {
            run.metrics.insert("bytes_per_message".to_owned(), 132.0);
            run.metrics.insert("filled_per_broker_cpu_s".to_owned(), 11e6);
        }
        let table = table(Which::Speed, &[results], SUBJECTS).unwrap();
        let rows: Vec<&str> =
            table.lines().filter(|line| line.contains("`deep-queue` |")).collect();
        assert!(rows[0].contains("≥ 12,000,000") && rows[0].ends_with("**no** |"), "{table}");
        assert!(rows[1].ends_with("| not measured |"), "{table}");
        assert!(rows[2].contains("≤ 132") && rows[2].ends_with("yes |"), "{table}");
    }

    #[test]
    fn a_page_keeps_what_stands_around_the_table() {
        let page = |speed: &str, beside: &str| {
            let [[begin, end], [begin_beside, end_beside]] =
                [Which::Speed, Which::Interference].map(Which::lines);
            format!("# Head\n{begin}\n{speed}{end}\n{begin_beside}\n{beside}{end_beside}\ntail\n")
        };
        let old = page("old\n", "old\n");
        let replaced = replace(Which::Speed, &old, "| new |\n").unwrap();
        assert_eq!(replaced, page("| new |\n", "old\n"));
        assert_eq!(replace(Which::Speed, &replaced, "| new |\n").unwrap(), replaced);
        let both = replace(Which::Interference, &replaced, "| newer |\n").unwrap();
        assert_eq!(both, page("| new |\n", "| newer |\n"));
        assert_eq!(replace(Which::Interference, "no lines", ""), None);
    }
}

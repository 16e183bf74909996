//! The report for pull requests: first ratios, then all figures, then failures.

use std::fmt;

use crate::report::figures::{self, Measure, Unit};
use crate::report::text;
use crate::results::{Results, ScenarioResult};
use crate::statistics::Summary;

/// The whole report.
pub(crate) fn markdown(results: &Results) -> String {
    Page(results).to_string()
}

struct Page<'a>(&'a Results);

impl fmt::Display for Page<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let results = self.0;
        writeln!(out, "# Load test\n")?;
        write_environment(out, results)?;
        write_overview(out, results)?;
        for scenario in &results.scenarios {
            write_scenario(out, results, scenario)?;
        }
        write_failures(out, results)
    }
}

fn write_environment(out: &mut fmt::Formatter<'_>, results: &Results) -> fmt::Result {
    let environment = &results.environment;
    let or_unknown = |text: &Option<String>| {
        text.as_deref().map_or_else(|| "unknown".to_owned(), text::markdown)
    };
    let [one, five, fifteen] = environment.load_average;
    writeln!(
        out,
        "{}, leveret-bench {}, revision {}. {} cores, {}; memory {} bytes; kernel {}; governor \
         {}; load before the first run {one:.2} {five:.2} {fifteen:.2}; load client {}.\n",
        text::date(environment.started_unix_s),
        text::markdown(&results.bench_version),
        or_unknown(&environment.commit),
        environment.cores_online,
        text::markdown(&environment.cpu_model),
        text::count(environment.memory_total_bytes),
        text::markdown(&environment.kernel),
        or_unknown(&environment.governor),
        match environment.load_cores.as_slice() {
            [] => "not pinned".to_owned(),
            cores => format!("on cores {}", list(cores)),
        },
    )?;
    for (index, subject) in results.subjects.iter().enumerate() {
        let role = match (subject.is_floor, index) {
            (true, _) => " (the floor: a bare relay, no broker)",
            (false, 0) if results.subjects.len() > 1 => " (the base of all ratios)",
            _ => "",
        };
        write!(out, "* **{}**{role}: ", text::markdown(&subject.name))?;
        write!(
            out,
            "{} at {}",
            text::markdown(&subject.product),
            text::markdown(&subject.address)
        )?;
        write!(out, ", cores {}", or_unknown(&subject.cores))?;
        if let Some(bytes) = subject.rss_bytes {
            write!(out, ", {} bytes resident before the first run", text::count(bytes))?;
        }
        if let Some(command) = &subject.command {
            write!(out, "; {}", text::markdown(command))?;
        }
        writeln!(out)?;
    }
    if results.subjects.len() < 2 {
        writeln!(
            out,
            "\n> **Warning: only one subject was measured.** Without a second one on the same \
             machine at the same time there are no ratios, and these figures mean little on any \
             other machine."
        )?;
    }
    Ok(())
}

fn write_overview(out: &mut fmt::Formatter<'_>, results: &Results) -> fmt::Result {
    writeln!(out, "\n## Overview\n")?;
    let base = text::markdown(&results.subjects[0].name);
    writeln!(
        out,
        "Median (lowest – highest) over interleaved runs. A ratio compares neighbouring runs: run \
         k of a subject with run k of {base}. A share of the floor says how much of what is \
         possible on this machine without a broker was reached.\n"
    )?;
    let floor = figures::floor(results);
    let mut headings = vec!["scenario".to_owned(), "figure".to_owned()];
    let others = || (1..results.subjects.len()).filter(|subject| Some(*subject) != floor);
    let brokers = || (0..results.subjects.len()).filter(|subject| Some(*subject) != floor);
    let name = |subject: usize| text::markdown(&results.subjects[subject].name);
    headings.extend(others().map(|subject| format!("{}: × {base}", name(subject))));
    if floor.is_some() {
        headings.extend(brokers().map(|subject| format!("{}: share of the floor", name(subject))));
    }
    headings.push(base.clone());
    write_head(out, &headings, 2)?;
    for scenario in &results.scenarios {
        for (_, measure) in figures::headlines(scenario) {
            let cell = |subject| figures::cell(results, scenario, subject, &measure);
            let mut row = vec![text::markdown(&scenario.name), text::markdown(&measure.label())];
            row.extend(
                others()
                    .map(|subject| shown(cell(subject).and_then(|cell| cell.ratio), text::ratio)),
            );
            if floor.is_some() {
                row.extend(
                    brokers().map(|subject| {
                        shown(cell(subject).and_then(|cell| cell.share), text::share)
                    }),
                );
            }
            row.push(shown(cell(0).map(|cell| cell.value), writer(&measure)));
            write_row(out, &row)?;
        }
    }
    Ok(())
}

fn write_scenario(
    out: &mut fmt::Formatter<'_>,
    results: &Results,
    scenario: &ScenarioResult,
) -> fmt::Result {
    let (name, title) = (text::markdown(&scenario.name), text::markdown(&scenario.title));
    writeln!(out, "\n## {name}: {title}\n")?;
    writeln!(out, "{}\n", text::markdown(&scenario.question))?;
    writeln!(out, "Load client: {}.", text::markdown(&scenario.transport))?;
    for subject in figures::client_limited(results, scenario) {
        writeln!(
            out,
            "\n**{}: the load client was the limit here, not the broker.** Its busiest thread had \
             no time left while the broker had. messages/s is a lower bound; messages per broker \
             CPU s still holds.",
            text::markdown(&subject.name)
        )?;
    }
    let measures = figures::present(scenario);
    for subject in 0..results.subjects.len() {
        write_subject(out, results, scenario, subject, &measures)?;
    }
    Ok(())
}

fn write_subject(
    out: &mut fmt::Formatter<'_>,
    results: &Results,
    scenario: &ScenarioResult,
    subject: usize,
    measures: &[Measure],
) -> fmt::Result {
    let (valid, all) = figures::valid_runs(scenario, subject);
    if all == 0 {
        return Ok(());
    }
    let name = text::markdown(&results.subjects[subject].name);
    writeln!(out, "\n### {name}, valid runs {valid} of {all}\n")?;
    let floor = figures::floor(results);
    let has_ratio = subject != 0;
    let has_share = floor.is_some_and(|floor| floor != subject);
    let mut headings = vec!["figure".to_owned(), "median (lowest – highest)".to_owned()];
    if has_ratio {
        headings.push(format!("× {}", text::markdown(&results.subjects[0].name)));
    }
    if has_share {
        headings.push("share of the floor".to_owned());
    }
    let rows: Vec<Vec<String>> = measures
        .iter()
        .filter_map(|measure| {
            let cell = figures::cell(results, scenario, subject, measure)?;
            let value = text::spread(&cell.value, writer(measure));
            let mut row = vec![text::markdown(&measure.label()), value];
            row.extend(has_ratio.then(|| shown(cell.ratio, text::ratio)));
            row.extend(has_share.then(|| shown(cell.share, text::share)));
            Some(row)
        })
        .collect();
    if rows.is_empty() {
        return writeln!(out, "No valid run: there are no figures.");
    }
    write_head(out, &headings, 1)?;
    for row in &rows {
        write_row(out, row)?;
    }
    if let Some(messages) = figures::messages(scenario, subject) {
        writeln!(
            out,
            "\nMessages of the valid runs: {} published, {} expected, {} lost, {} duplicated, {} \
             reordered, {} corrupted, {} foreign.",
            text::count(messages.published),
            text::count(messages.expected),
            text::count(messages.lost),
            text::count(messages.duplicated),
            text::count(messages.reordered),
            text::count(messages.corrupted),
            text::count(messages.foreign)
        )?;
    }
    Ok(())
}

fn write_failures(out: &mut fmt::Formatter<'_>, results: &Results) -> fmt::Result {
    writeln!(out, "\n## Failed runs\n")?;
    let failures = figures::failures(results);
    if failures.is_empty() {
        return writeln!(out, "None.");
    }
    writeln!(out, "They contribute to no figure above.\n")?;
    for (place, fault) in failures {
        writeln!(out, "* {}: {}", text::markdown(&place), text::markdown(fault))?;
    }
    Ok(())
}

/// The format of a measure's values.
pub(crate) fn writer(measure: &Measure) -> fn(f64) -> String {
    match measure.unit {
        Unit::Plain => text::quantity,
        Unit::Microseconds => text::time_us,
    }
}

/// Numbers with commas between them.
pub(crate) fn list(numbers: &[usize]) -> String {
    numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
}

fn shown(summary: Option<Summary>, write: fn(f64) -> String) -> String {
    summary.map_or_else(|| "–".to_owned(), |summary| text::spread(&summary, write))
}

/// Headings; the first `texts` columns are texts, the others numbers.
fn write_head(out: &mut fmt::Formatter<'_>, headings: &[String], texts: usize) -> fmt::Result {
    write_row(out, headings)?;
    let rules = (0..headings.len()).map(|column| if column < texts { "---" } else { "---:" });
    writeln!(out, "|{}|", rules.collect::<Vec<_>>().join("|"))
}

fn write_row(out: &mut fmt::Formatter<'_>, cells: &[String]) -> fmt::Result {
    writeln!(out, "| {} |", cells.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::results;

    #[test]
    fn the_overview_has_ratios_before_figures() {
        let text = markdown(&results());
        let row = text.lines().find(|line| line.starts_with("| small | messages/s")).unwrap();
        // Ratio to the base, shares of the floor of both brokers, and finally the base itself.
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(cells[3..6], ["10.0 ×", "5.0 %", "50 %"], "{row}");
        assert_eq!(cells[6], "100 (50.0 – 200)", "{row}");
        assert!(text.contains("valid runs 3 of 3"), "{text}");
        assert!(text.contains("3,000 published"), "{text}");
        assert!(text.contains("p99.99 | "), "{text}");
    }

    #[test]
    fn failed_runs_are_named_and_not_counted() {
        let mut results = results();
        results.scenarios[0].runs[1].fault = Some("lost 3 | *messages*".to_owned());
        results.scenarios[0].runs[1].metrics.insert("messages_per_s".to_owned(), 9e9);
        let text = markdown(&results);
        assert!(text.contains("* small, leveret, run 1: lost 3 \\| \\*messages\\*"), "{text}");
        assert!(text.contains("leveret, valid runs 2 of 3"), "{text}");
        assert!(!text.contains("9,000,000,000"), "{text}");
        for run in results.scenarios[0].runs.iter_mut().filter(|run| run.subject == 1) {
            run.fault = Some("cut".to_owned());
        }
        let text = markdown(&results);
        assert!(text.contains("No valid run"), "{text}");
    }

    #[test]
    fn every_row_has_as_many_cells_as_its_heading() {
        let mut results = results();
        results.subjects[1].name = "a|b".to_owned();
        results.scenarios[0].question = "# not a heading\n| no | table |".to_owned();
        let text = markdown(&results);
        let mut columns = None;
        let mut tables = 0;
        for line in text.lines() {
            if line.starts_with('|') {
                let cells = line.replace("\\|", "").matches('|').count();
                tables += usize::from(columns.is_none());
                assert_eq!(*columns.get_or_insert(cells), cells, "{line}");
            } else {
                columns = None;
            }
        }
        assert_eq!(tables, 4);
        assert!(!text.contains("\n# not"), "{text}");
    }

    #[test]
    fn a_lone_subject_is_warned_of() {
        let mut results = results();
        assert!(!markdown(&results).contains("only one subject"));
        results.subjects.truncate(1);
        results.scenarios[0].runs.retain(|run| run.subject == 0);
        assert!(markdown(&results).contains("only one subject"));
    }

    #[test]
    fn the_client_as_the_limit_is_said() {
        let mut results = results();
        for run in &mut results.scenarios[0].runs {
            run.metrics.insert("client_busy".to_owned(), 0.97);
            run.metrics.insert("broker_busy".to_owned(), [1.0, 0.4, 1.0][run.subject]);
        }
        let text = markdown(&results);
        assert!(text.contains("**leveret: the load client was the limit here"), "{text}");
        assert!(!text.contains("**old: the load client"), "{text}");
    }
}

//! The report: Markdown tables of medians, spreads and ratios.

use std::fmt;

use crate::fault::Fault;
use crate::scenario::{Metric, Reading, Scenario};
use crate::statistics::{Summary, summarize, summarize_ratios};

/// A broker as it was found.
#[derive(Debug)]
pub(crate) struct Subject {
    pub(crate) name: String,
    /// Product and version, as it says.
    pub(crate) product: String,
    /// Cores that it may use.
    pub(crate) cores: String,
    /// Resident memory before the first run.
    pub(crate) rss_bytes: u64,
}

/// One run against one broker.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) scenario: Scenario,
    /// Index of the subject.
    pub(crate) broker: usize,
    /// From 1.
    pub(crate) run: u32,
    pub(crate) reading: Result<Reading, Fault>,
}

/// All of a measurement.
#[derive(Debug)]
pub(crate) struct Report {
    subjects: Vec<Subject>,
    machine: String,
    /// Cores of the load threads.
    cores: Vec<usize>,
    /// In the order in which they were made.
    pub(crate) outcomes: Vec<Outcome>,
}

impl Report {
    pub(crate) const fn new(subjects: Vec<Subject>, machine: String, cores: Vec<usize>) -> Self {
        Self { subjects, machine, cores, outcomes: Vec::new() }
    }

    /// Whether any run lost, doubled or reordered messages, or could not be made.
    pub(crate) fn has_failed_runs(&self) -> bool {
        self.outcomes.iter().any(|outcome| outcome.reading.is_err())
    }

    fn of(&self, scenario: Scenario, broker: usize) -> impl Iterator<Item = &Outcome> {
        let ours =
            move |outcome: &&Outcome| (outcome.scenario, outcome.broker) == (scenario, broker);
        self.outcomes.iter().filter(ours)
    }

    /// One value per run, none where it failed.
    fn values(&self, scenario: Scenario, broker: usize, metric: usize) -> Vec<Option<f64>> {
        let value = |outcome: &Outcome| {
            let reading = outcome.reading.as_ref().ok()?;
            reading.values.get(metric).copied()
        };
        self.of(scenario, broker).map(value).collect()
    }

    /// The cells of one metric of one broker: median with spread, and ratio where compared.
    fn cells(&self, scenario: Scenario, broker: usize, metric: usize) -> Vec<String> {
        let values = self.values(scenario, broker, metric);
        let valid: Vec<f64> = values.iter().flatten().copied().collect();
        let mut cells = vec![cell(summarize(&valid), quantity)];
        if scenario.metrics()[metric].compared && self.subjects.len() > 1 {
            let base = self.values(scenario, 0, metric);
            cells.push(match broker {
                0 => "1".to_owned(),
                _ => cell(summarize_ratios(&values, &base), ratio),
            });
        }
        cells
    }

    fn write_table(&self, out: &mut fmt::Formatter<'_>, scenario: Scenario) -> fmt::Result {
        let base = self.subjects.first().map_or("", |subject| subject.name.as_str());
        let mut headings = vec!["broker".to_owned()];
        for Metric { name, compared } in scenario.metrics() {
            headings.push((*name).to_owned());
            if *compared && self.subjects.len() > 1 {
                headings.push(format!("× {base}"));
            }
        }
        headings.push("valid runs".to_owned());
        write_row(out, &headings)?;
        writeln!(out, "|---{}|", "|---:".repeat(headings.len() - 1))?;
        for (broker, subject) in self.subjects.iter().enumerate() {
            let mut cells = vec![subject.name.clone()];
            for metric in 0..scenario.metrics().len() {
                cells.extend(self.cells(scenario, broker, metric));
            }
            let all = self.of(scenario, broker).count();
            let valid = self.of(scenario, broker).filter(|run| run.reading.is_ok()).count();
            cells.push(format!("{valid} of {all}"));
            write_row(out, &cells)?;
        }
        Ok(())
    }

    fn write_subjects(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "Machine: {}.", self.machine)?;
        match self.cores.as_slice() {
            [] => writeln!(out, "Load: not pinned.")?,
            cores => writeln!(out, "Load: pinned to {cores:?}.")?,
        }
        for subject in &self.subjects {
            let resident = quantity(subject.rss_bytes as f64);
            let Subject { name, product, cores, .. } = subject;
            writeln!(out, "* {name}: {product}, on cores {cores}, {resident} B resident at first")?;
        }
        Ok(())
    }

    fn write_totals(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (broker, subject) in self.subjects.iter().enumerate() {
            let ours = self.outcomes.iter().filter(|outcome| outcome.broker == broker);
            let valid = ours.filter_map(|outcome| outcome.reading.as_ref().ok());
            let messages: u64 = valid.map(|reading| reading.messages).sum();
            writeln!(out, "* {} carried {messages} messages in all valid runs", subject.name)?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "# First figures\n")?;
        self.write_subjects(out)?;
        writeln!(
            out,
            "\nMedian (lowest – highest) of interleaved runs. A ratio is the median of the ratios \
             of neighbouring runs;\nthroughput: more is better, memory: less is better. Where \
             `broker CPU s per s` is well below\nthe cores of the broker, the load was the limit \
             of messages/s, not the broker."
        )?;
        if self.subjects.len() < 2 {
            writeln!(out, "**Only one broker: these figures mean little on any other machine.**")?;
        }
        for scenario in Scenario::ALL {
            if self.outcomes.iter().any(|outcome| outcome.scenario == scenario) {
                writeln!(out, "\n## {}\n", scenario.title())?;
                self.write_table(out, scenario)?;
            }
        }
        writeln!(out, "\n## Messages\n")?;
        self.write_totals(out)?;
        if self.has_failed_runs() {
            writeln!(out, "\n## Failed runs\n")?;
        }
        for outcome in self.outcomes.iter().filter(|outcome| outcome.reading.is_err()) {
            let Outcome { scenario, run, .. } = outcome;
            let name = &self.subjects[outcome.broker].name;
            writeln!(out, "* {scenario:?}, run {run}, {name}: {outcome}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reading {
            Ok(reading) => {
                let metrics = self.scenario.metrics().iter().zip(&reading.values);
                let parts =
                    metrics.map(|(metric, value)| format!("{} {}", quantity(*value), metric.name));
                out.write_str(&parts.collect::<Vec<_>>().join(", "))
            }
            Err(fault) => write!(out, "FAILED: {fault}"),
        }
    }
}

fn write_row(out: &mut fmt::Formatter<'_>, cells: &[String]) -> fmt::Result {
    writeln!(out, "| {} |", cells.join(" | "))
}

fn cell(summary: Option<Summary>, text: fn(f64) -> String) -> String {
    match summary {
        Some(Summary { median, lowest, highest }) => {
            format!("{} ({} – {})", text(median), text(lowest), text(highest))
        }
        None => "–".to_owned(),
    }
}

/// Three digits and a decimal prefix: `1.23 M`.
fn quantity(value: f64) -> String {
    let (scaled, prefix) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, " G"),
        size if size >= 1e6 => (value / 1e6, " M"),
        size if size >= 1e3 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    format!("{}{prefix}", ratio(scaled))
}

/// Three digits: `0.0123`, `1.23`, `123`.
fn ratio(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        size if size >= 0.1 => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests;

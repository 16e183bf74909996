//! Writes the report of a measurement in three formats: `results.json` for programs, `report.md`
//! for pull requests and `report.html` for people.

pub(crate) mod axis;
pub(crate) mod figures;
pub(crate) mod html;
pub(crate) mod markdown;
pub(crate) mod pictures;
pub(crate) mod plot;
#[cfg(test)]
pub(crate) mod sample;
pub(crate) mod text;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::fault::Fault;
use crate::results::{Results, SCHEMA_VERSION};

/// The largest accepted file of results. A long measurement has some megabytes.
const RESULTS_MAX_BYTES: u64 = 1 << 30;

/// The paths of the three files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) results: PathBuf,
    pub(crate) markdown: PathBuf,
    pub(crate) html: PathBuf,
}

/// Writes all three files; creates the directory if it is missing. Each file is replaced
/// atomically, and `results.json` comes first, so that a bug in a report loses no measurement.
pub(crate) fn write(results: &Results, directory: &Path) -> Result<Written, Fault> {
    let results = without_broken_numbers(results);
    fs::create_dir_all(directory)
        .map_err(Fault::io(format!("make the directory {}", directory.display())))?;
    let written = Written {
        results: directory.join("results.json"),
        markdown: directory.join("report.md"),
        html: directory.join("report.html"),
    };
    let json = serde_json::to_string_pretty(&results)
        .map_err(|fault| Fault::Machine(format!("cannot write the results as JSON: {fault}")))?;
    replace(&written.results, &json)?;
    check(&results).map_err(Fault::Machine)?;
    replace(&written.markdown, &markdown::markdown(&results))?;
    replace(&written.html, &html::html(&results)?)?;
    Ok(written)
}

/// Reads `results.json`, only with the current version of the schema.
pub(crate) fn read(path: &Path) -> Result<Results, Fault> {
    let shown = path.display();
    let length = fs::metadata(path).map_err(Fault::io(format!("read {shown}")))?.len();
    if length > RESULTS_MAX_BYTES {
        return Err(Fault::Machine(format!(
            "{shown} has {length} bytes, which no results.json has; give a results.json that \
             leveret-bench wrote"
        )));
    }
    let json = fs::read_to_string(path).map_err(Fault::io(format!("read {shown}")))?;
    parse(&json).map_err(|fault| Fault::Machine(format!("{shown} {fault}")))
}

fn parse(json: &str) -> Result<Results, String> {
    let value: serde_json::Value = serde_json::from_str(json).map_err(|fault| {
        format!("is not JSON ({fault}); give a results.json that leveret-bench wrote")
    })?;
    // The version is checked first, because results of another schema fail in many unclear ways.
    match value.get("schema_version").and_then(serde_json::Value::as_u64) {
        Some(version) if version == u64::from(SCHEMA_VERSION) => {}
        Some(version) => {
            return Err(format!(
                "has version {version} of the results schema, but this leveret-bench reads only \
                 version {SCHEMA_VERSION}; use the leveret-bench that wrote it, or measure again"
            ));
        }
        None => {
            return Err(
                "has no schema_version; give a results.json that leveret-bench wrote".to_owned()
            );
        }
    }
    let results: Results = serde_json::from_value(value).map_err(|fault| {
        format!(
            "does not follow version {SCHEMA_VERSION} of the results schema: {fault}; was it \
             changed by hand?"
        )
    })?;
    check(&results)?;
    Ok(results)
}

/// Checks what the types cannot express.
fn check(results: &Results) -> Result<(), String> {
    if results.subjects.is_empty() {
        return Err("has no subjects: there is nothing to report".to_owned());
    }
    for scenario in &results.scenarios {
        if let Some(run) = scenario.runs.iter().find(|run| run.subject >= results.subjects.len()) {
            return Err(format!(
                "has a run of subject {} in scenario {}, but only {} subjects; was it changed by \
                 hand?",
                run.subject,
                scenario.name,
                results.subjects.len()
            ));
        }
    }
    Ok(())
}

/// JSON has no infinity and no NaN. A run with such a number was measured by a broken harness: it
/// is marked as failed, and the other runs are kept.
fn without_broken_numbers(results: &Results) -> Results {
    let mut results = results.clone();
    for run in results.scenarios.iter_mut().flat_map(|scenario| &mut scenario.runs) {
        let broken = run.metrics.iter().find(|metric| !metric.1.is_finite());
        let broken = broken.map(|(key, value)| format!("{key} is {value}"));
        run.metrics.retain(|_, value| value.is_finite());
        let is_latency_broken = run.latencies.values().any(|latency| {
            let fixed = [latency.mean_us, latency.p50_us, latency.p90_us, latency.p99_us];
            let rare = [latency.p99_9_us, latency.p99_99_us, latency.max_us];
            let curve = latency.curve.iter().flat_map(|(percentile, us)| [*percentile, *us]);
            fixed.into_iter().chain(rare).chain(curve).any(|number| !number.is_finite())
        });
        if is_latency_broken {
            run.latencies.clear();
        }
        let is_rate_broken = |point: &crate::results::RatePoint| {
            let rates = [point.published_per_s, point.confirmed_per_s, point.consumed_per_s];
            !point.at_s.is_finite() || rates.iter().any(|rate| !rate.is_finite())
        };
        let are_rates_broken = run.rates.iter().any(is_rate_broken);
        run.rates.retain(|point| !is_rate_broken(point));
        let broken = broken
            .or_else(|| is_latency_broken.then(|| "a latency is not a number".to_owned()))
            .or_else(|| are_rates_broken.then(|| "a rate is not a number".to_owned()));
        if let Some(broken) = broken {
            let fault = format!("{broken}: a defect of leveret-bench, please report it");
            run.fault.get_or_insert(fault);
        }
    }
    results
}

/// Writes a temporary file and renames it: readers see the old file or the new one.
fn replace(path: &Path, content: &str) -> Result<(), Fault> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.part", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = fs::write(&temporary, content).and_then(|()| fs::rename(&temporary, path));
    written.map_err(|fault: io::Error| {
        // The file may not exist. The first fault is the one to report.
        let _ = fs::remove_file(&temporary);
        Fault::io(format!("write {}", path.display()))(fault)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(change: impl FnOnce(&mut serde_json::Value)) -> Result<Results, String> {
        let mut value = serde_json::to_value(sample::results()).unwrap();
        change(&mut value);
        parse(&value.to_string())
    }

    #[test]
    fn what_was_written_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let results = sample::results();
        let written = write(&results, &directory.path().join("new/one")).unwrap();
        assert_eq!(read(&written.results).unwrap(), results);
        let html = fs::read_to_string(&written.html).unwrap();
        assert!(html.ends_with("</html>\n"));
        assert!(fs::read_to_string(&written.markdown).unwrap().contains("leveret"));
        let files = fs::read_dir(directory.path().join("new/one")).unwrap().count();
        assert_eq!(files, 3, "nothing half-written is left");
    }

    #[test]
    fn another_version_of_the_schema_is_refused() {
        let fault = parsed(|value| value["schema_version"] = 2.into()).unwrap_err();
        assert!(fault.contains("version 2") && fault.contains("only version 1"), "{fault}");
        let none = parsed(|value| value["schema_version"] = serde_json::Value::Null);
        assert!(none.unwrap_err().contains("no schema_version"));
        assert!(parse("nothing").unwrap_err().contains("not JSON"));
        assert!(parsed(|_| ()).is_ok());
    }

    #[test]
    fn results_that_point_nowhere_are_refused() {
        let run = parsed(|value| value["scenarios"][0]["runs"][0]["subject"] = 9.into());
        assert!(run.unwrap_err().contains("subject 9"));
        let none = parsed(|value| value["subjects"] = serde_json::json!([]));
        assert!(none.unwrap_err().contains("no subjects"));
        let other = parsed(|value| value["mood"] = 1.into());
        assert!(other.unwrap_err().contains("mood"));
    }

    #[test]
    fn a_number_that_is_none_fails_its_run_and_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let mut results = sample::results();
        let metrics = &mut results.scenarios[0].runs[0].metrics;
        metrics.insert("messages_per_s".to_owned(), f64::NAN);
        results.scenarios[0].runs[1].rates[0].consumed_per_s = f64::INFINITY;
        let written = write(&results, directory.path()).unwrap();
        let read = read(&written.results).unwrap();
        let faults: Vec<_> = read.scenarios[0].runs.iter().map(|run| &run.fault).collect();
        assert!(faults[0].as_ref().unwrap().contains("messages_per_s is NaN"));
        assert!(faults[1].as_ref().unwrap().contains("rate"));
        assert!(faults[2..].iter().all(|fault| fault.is_none()));
    }
}

//! The built-in scenarios, and how some of them are chosen.

use std::path::Path;

use glob::Pattern;

use crate::fault::Fault;
use crate::run::interference;
use crate::scenario::{Load, Scenario};
use crate::topology;

macro_rules! scenarios {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../scenarios/", $name, ".toml")))),*]
    };
}

/// Name and text of every file in `bench-suite/scenarios`, in the order of execution: scenarios
/// that compare memory with a fresh broker come first, those that leave much behind in a broker
/// come last.
const BUILT_IN: [(&str, &str); 56] = scenarios![
    "idle-connections",
    "throughput-16b",
    "throughput-1k",
    "throughput-64k",
    "throughput-1m",
    "manual-ack-16b",
    "confirms-16b",
    "confirms-1k",
    "durable-1k",
    "durable-window-1",
    "durable-window-1-quorum",
    "durable-window-100",
    "durable-window-100-quorum",
    "durable-window-1000",
    "durable-window-1000-quorum",
    "durable-window-10000",
    "durable-window-10000-quorum",
    "unflushed-window-1000",
    "unflushed-window-10000",
    "fanout-10",
    "fanout-1000",
    "topic-10",
    "topic-1k",
    "topic-100k",
    "headers",
    "direct-many-keys",
    "many-queues",
    "work-queue-slow",
    "publish-deliver",
    "basic-get",
    "rpc-reply-queue",
    "rpc-direct-reply-to",
    "latency-1k",
    "latency-20k",
    "latency-100k",
    "rate-search",
    "ramp",
    "soak",
    "beside-1k-channels-throughput-16b",
    "beside-1k-channels-confirms-1k",
    "beside-10k-connections-throughput-16b",
    "beside-10k-connections-confirms-1k",
    "beside-100k-queues-throughput-16b",
    "beside-100k-queues-confirms-1k",
    "beside-1m-bindings-throughput-16b",
    "beside-1m-bindings-confirms-1k",
    "beside-slow-consumer",
    "beside-flood",
    "beside-connection-churn",
    "beside-drain",
    "beside-binding-churn",
    "churn-connection",
    "churn-channel",
    "churn-queue",
    "churn-binding",
    "deep-queue",
];

/// A scenario with its name and the text of its file.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) scenario: Scenario,
}

/// The built-in scenarios whose name matches one of `globs`, or all if there are none.
///
/// # Errors
/// If a glob is malformed or matches nothing, so that a typing mistake does not shorten a
/// measurement.
pub(crate) fn choose(globs: &[String]) -> Result<Vec<Entry>, Fault> {
    let mut patterns = Vec::new();
    for glob in globs {
        let pattern = Pattern::new(glob)
            .map_err(|error| Fault::Usage(format!("`{glob}` is not a pattern: {error}")))?;
        if !BUILT_IN.iter().any(|(name, _)| pattern.matches(name)) {
            return Err(Fault::Usage(format!(
                "no scenario matches `{glob}`; `leveret-bench list` names them"
            )));
        }
        patterns.push(pattern);
    }
    let chosen = |name: &str| patterns.is_empty() || patterns.iter().any(|p| p.matches(name));
    let entries = BUILT_IN.iter().filter(|(name, _)| chosen(name));
    entries.map(|(name, text)| parse(name, text)).collect()
}

/// Reads a scenario file of the user's own.
pub(crate) fn read(path: &Path) -> Result<Entry, Fault> {
    let text = std::fs::read_to_string(path)
        .map_err(Fault::io(format!("read the scenario {}", path.display())))?;
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    parse(&name, &text)
}

fn parse(name: &str, text: &str) -> Result<Entry, Fault> {
    let scenario: Scenario = toml::from_str(text)
        .map_err(|error| Fault::Usage(format!("the scenario {name} is not valid: {error}")))?;
    match &scenario.load {
        Load::Flow(flow) => topology::check(flow)?,
        Load::Interference(interference) => interference::check(interference)?,
        Load::Search(search) => topology::check(&search.flow)?,
        Load::RoundTrip(_) | Load::Backlog(_) | Load::Churn(_) | Load::Idle(_) => {}
    }
    Ok(Entry { name: name.to_owned(), text: text.to_owned(), scenario })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_is_built_in_and_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
        let files: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        let names: BTreeSet<String> =
            choose(&[]).unwrap().into_iter().map(|entry| entry.name).collect();
        assert_eq!(files, names);
    }

    #[test]
    fn globs_choose_and_typing_mistakes_are_reported() {
        let names = |globs: &[&str]| -> Vec<String> {
            let globs: Vec<String> = globs.iter().map(|&glob| glob.to_owned()).collect();
            choose(&globs).unwrap().into_iter().map(|entry| entry.name).collect()
        };
        assert_eq!(names(&["confirms-*"]), ["confirms-16b", "confirms-1k"]);
        assert_eq!(names(&["headers", "basic-get", "head*"]), ["headers", "basic-get"]);
        for wrong in ["throughput-16kb", "[", ""] {
            assert!(choose(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        let file = "title = 't'\nquestion = 'q'\n[load.flow]\nbody_byte = 16\n";
        let refusal = parse("mine", file).unwrap_err().to_string();
        assert!(refusal.contains("mine") && refusal.contains("body_byte"), "{refusal}");
    }
}

//! `leveret check`: can the broker run here? Starts nothing and changes nothing.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use leveret_ring::{Feature, allowed_cores, probe};

use crate::config::Config;
use crate::data::disk::probe;
use crate::data::store;
use crate::failure::{ConfigError, EXIT_UNAVAILABLE, EXIT_USAGE};
use crate::host;
use crate::shard::cores;

/// `leveret check`.
#[derive(Debug, PartialEq, Eq, Args)]
pub(crate) struct CheckArguments {
    /// Check the logs of this data directory instead. Exit code 0: sound, 1: damage, 2: unreadable
    #[arg(value_name = "DATADIR", conflicts_with = "config")]
    pub(crate) data_dir: Option<PathBuf>,
    /// A TOML file to check as well
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// Prints the findings and returns the exit code.
pub(crate) fn run(arguments: &CheckArguments) -> u8 {
    if let Some(data_dir) = &arguments.data_dir {
        return store::check::run(data_dir);
    }
    let mut findings = Findings::default();
    findings.kernel();
    let config = findings.configuration(arguments);
    findings.host(&config);
    findings.disk(&config);
    let verdict = match findings.exit_code {
        0 => "The broker can run here.",
        EXIT_UNAVAILABLE => "The broker cannot run here: see \"kernel\" above.",
        _ => "The broker would refuse this configuration.",
    };
    findings.say(format!("\n{verdict}"));
    // An error means that stdout was closed by its reader, which is fine; the exit code still has
    // the result.
    let _ = io::stdout().lock().write_all(findings.text.as_bytes());
    findings.exit_code
}

#[derive(Debug, Default)]
struct Findings {
    text: String,
    exit_code: u8,
}

impl Findings {
    fn say(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    fn kernel(&mut self) {
        match probe() {
            Ok(features) => {
                self.say(format!("kernel: Linux {}", features.kernel_release));
                for feature in features.iter() {
                    self.feature(feature);
                }
            }
            Err(error) => {
                self.say("kernel:");
                for feature in &error.features {
                    self.feature(feature);
                }
                self.say(format!("  {}\n  {}", error.cause, error.remedy));
                self.exit_code = EXIT_UNAVAILABLE;
            }
        }
    }

    fn feature(&mut self, feature: &Feature) {
        let found = if feature.present { "yes" } else { "no" };
        let need = if feature.needed { "needed" } else { "optional" };
        self.say(format!("  {found:<4} {need:<9} {}", feature.name));
    }

    fn configuration(&mut self, arguments: &CheckArguments) -> Config {
        let (what, read) = match &arguments.config {
            None => ("defaults".to_owned(), Ok(Config::default())),
            Some(path) => (path.display().to_string(), Config::from_file(path)),
        };
        match read.and_then(|config| config.validate().map(|()| config)) {
            Ok(config) => {
                self.say(format!("configuration: {what}: valid"));
                config
            }
            Err(error) => {
                self.say(format!("configuration: {what}: {error}"));
                self.refuse();
                Config::default()
            }
        }
    }

    fn host(&mut self, config: &Config) {
        let plan = cores::plan(&allowed_cores(), config.shards);
        self.say(format!("cores: {}", plan.describe()));
        if !plan.exclusive {
            self.say("  warning: fewer cores than shards; shards that share a core are slower");
        }
        // The broker raises the soft limit to the hard limit, so the hard limit is what counts.
        let connections = leveret_ring::raise_open_files_limit()
            .map_err(|error| ConfigError::Contradiction(error.to_string()))
            .and_then(|open_files| Ok((open_files, config.connections_max(open_files)?)));
        match connections {
            Ok((open_files, connections)) => self.say(format!(
                "open files: {open_files}, good for {connections} client connections"
            )),
            Err(error) => {
                self.say(format!("open files: {error}"));
                self.refuse();
            }
        }
        let memory = host::limit("Max locked memory");
        let memory = memory.map_or("unlimited".to_owned(), |bytes| format!("{bytes} bytes"));
        self.say(format!("locked memory: {memory} (receive buffers are not locked)"));
    }

    /// Probes the disk with a nameless temporary file.
    fn disk(&mut self, config: &Config) {
        let wanted = &config.data_dir;
        let wanted = std::path::absolute(wanted).unwrap_or_else(|_| wanted.clone());
        self.say(format!("data directory: {}", wanted.display()));
        let Some(there) = wanted.ancestors().find(|path| path.is_dir()) else {
            return;
        };
        if there != wanted {
            self.say(format!("  is not there yet; tried in {}", there.display()));
        }
        match probe::probe(there) {
            Ok(found) => {
                self.say(format!("  durability: {}", found.describe(config.durability)));
                for detail in found.details() {
                    self.say(format!("  {detail}"));
                }
                for warning in found.warnings(config.durability) {
                    self.say(format!("  warning: {warning}"));
                }
            }
            Err(error) => {
                self.say(format!("  it cannot be written: {error}"));
                self.refuse();
            }
        }
    }

    fn refuse(&mut self) {
        if self.exit_code == 0 {
            self.exit_code = EXIT_USAGE;
        }
    }
}

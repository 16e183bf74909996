//! Why a command failed: the message for the user, and the exit code.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use leveret_ring::ProbeError;
use thiserror::Error;

/// `EX_CONFIG` of sysexits.h: a restart does not help until the host is changed.
pub(crate) const EXIT_UNAVAILABLE: u8 = 78;

/// What clap uses for a wrong command line.
pub(crate) const EXIT_USAGE: u8 = 2;

/// Why a command failed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The configuration is wrong.
    #[error("{0}\nRun `leveret serve --print-config` to see every option with its limit.")]
    Config(#[from] ConfigError),
    /// The kernel, or the sandbox around the process, has no usable `io_uring`.
    #[error(
        "{}\n{}\nNothing was started. `leveret check` shows what this machine offers.",
        .0.cause, .0.remedy
    )]
    Unavailable(#[from] ProbeError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({purpose}): {source}. {}", remedy(.source, .option))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the address is for.
        purpose: &'static str,
        /// The option that sets the address.
        option: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The data directory cannot be created or opened.
    #[error(
        "cannot use the data directory {}: {source}. Choose another with --data-dir, or make this \
         one writable.",
        path.display()
    )]
    DataDirectory {
        /// Which directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another process uses the data directory.
    #[error(
        "the data directory {} is in use by {}. Stop that broker, or choose another directory \
         with --data-dir.",
        path.display(),
        holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    DataDirectoryInUse {
        /// Which directory.
        path: PathBuf,
        /// The process id in its lock file.
        holder: Option<u32>,
    },
    /// The metadata cannot be read or written.
    #[error("cannot use {}: {reason}", path.display())]
    Metadata {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The logs of the data directory cannot be used.
    #[error("cannot use {}: {reason}.", path.display())]
    Store {
        /// Which file or directory.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A thread could not be started or could not go on.
    #[error("{thread} failed: {reason}")]
    Thread {
        /// Which thread.
        thread: String,
        /// What happened and what to do.
        reason: String,
    },
    /// The last commits before a stop did not complete in time.
    #[error(
        "the disk did not write the end of a log within {} s. Nothing confirmed is lost; the next \
         start reads the log as after a crash, and what was acknowledged last may come again.",
        waited.as_secs()
    )]
    DiskStandsStill {
        /// How long the broker waited.
        waited: Duration,
    },
    /// Any other refusal of the operating system.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// `leveret top` got no answer from a running broker.
    #[error(
        "cannot ask the broker at {address}: {reason}. Is it running, and is its HTTP address \
             there? Another one: leveret top --http ADDR:PORT"
    )]
    Ask {
        /// Its HTTP address.
        address: SocketAddr,
        /// What went wrong.
        reason: String,
    },
}

impl Failure {
    /// The exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => EXIT_USAGE,
            Self::Unavailable(_) => EXIT_UNAVAILABLE,
            _ => 1,
        }
    }
}

/// Why a configuration is refused.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML, has an unknown key, or a value of the wrong type.
    #[error("invalid configuration {}: {reason}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and why; several lines.
        reason: String,
    },
    /// A value is outside of its limit.
    #[error("option {option}: {reason}")]
    Limit {
        /// Which option.
        option: &'static str,
        /// What is allowed.
        reason: String,
    },
    /// The values contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

fn remedy(error: &io::Error, option: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "Something listens there already, perhaps another broker. Stop it, or choose another \
             address with {option} ADDR:PORT."
        ),
        io::ErrorKind::PermissionDenied => {
            format!("Ports below 1024 need a privilege. Choose another with {option} ADDR:PORT.")
        }
        io::ErrorKind::AddrNotAvailable => format!(
            "This host has no such address. Choose one that it has, such as 127.0.0.1, with \
             {option} ADDR:PORT."
        ),
        _ => format!("Choose another address with {option} ADDR:PORT."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_the_kinds_apart() {
        let unavailable = Failure::Unavailable(ProbeError {
            cause: "io_uring is forbidden".into(),
            remedy: "Allow it.".into(),
            features: Vec::new(),
        });
        assert_eq!(unavailable.exit_code(), 78);
        let text = unavailable.to_string();
        assert!(text.starts_with("io_uring is forbidden\nAllow it."), "{text}");
        let config = Failure::Config(ConfigError::Contradiction("a and b".into()));
        assert_eq!(config.exit_code(), 2);
        assert_eq!(Failure::Thread { thread: "x".into(), reason: "y".into() }.exit_code(), 1);
    }

    #[test]
    fn a_taken_port_names_the_option_that_changes_it() {
        let failure = Failure::Listen {
            address: "127.0.0.1:5672".parse().unwrap(),
            purpose: "amqp",
            option: "--listen",
            source: io::ErrorKind::AddrInUse.into(),
        };
        let text = failure.to_string();
        assert!(text.contains("127.0.0.1:5672") && text.contains("--listen ADDR:PORT"), "{text}");
    }
}

//! Why a run is invalid or cannot be made.

use std::io;

use leveret_amqp::{FrameError, MethodError};
use thiserror::Error;

/// A failure of one run, or of the preparation for all runs.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    /// The operating system refused something.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The broker closed the connection or the channel.
    #[error("the broker closed the {what}: {code} {text}")]
    Closed {
        /// `connection` or `channel`.
        what: &'static str,
        /// Its reply code.
        code: u16,
        /// Its reply text.
        text: String,
    },
    /// The connection ended without a `connection.close`.
    #[error("the broker cut the connection (wrong user, wrong port, or it died)")]
    Cut,
    /// The broker was silent for too long.
    #[error("nothing came from the broker for {seconds} s while waiting for {expected}")]
    Silent {
        /// What was awaited.
        expected: &'static str,
        /// How long it was awaited.
        seconds: u64,
    },
    /// An unexpected method.
    #[error("expected {expected}, but the broker sent {method}")]
    Unexpected {
        /// The expected method.
        expected: &'static str,
        /// The received method.
        method: &'static str,
    },
    /// A frame is invalid.
    #[error("the broker sent a broken frame: {0}")]
    Frame(#[from] FrameError),
    /// A method frame is invalid.
    #[error("the broker sent a broken method: {0}")]
    Method(#[from] MethodError),
    /// Messages were lost, duplicated, reordered or changed.
    #[error("{0}")]
    Messages(String),
    /// The processes of a broker cannot be read, or do not belong to the broker.
    #[error("{0}")]
    Process(String),
    /// Another thread of the run failed first and reports the cause.
    #[error("another connection of the run failed first")]
    Aborted,
    /// A scenario is contradictory or exceeds a limit.
    #[error("the scenario cannot be run: {0}")]
    Scenario(String),
    /// The command line or a scenario file is invalid.
    #[error("{0}")]
    Usage(String),
    /// The machine does not allow what was requested.
    #[error("{0}")]
    Machine(String),
}

impl Fault {
    /// Converts an I/O error: `.map_err(Fault::io("read from the broker"))`.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Io { action: action.into(), source }
    }
}

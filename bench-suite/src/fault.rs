//! Why a run is worth nothing, or cannot be made.

use std::io;

use leveret_amqp::{FrameError, MethodError};
use thiserror::Error;

/// A failure of one run, or of the preparation of all.
#[derive(Debug, Error)]
pub(crate) enum Fault {
    /// The operating system refused something.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// Why not.
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
    /// Nothing came for too long.
    #[error("nothing came from the broker for {seconds} s while waiting for {expected}")]
    Silent {
        /// What was missing.
        expected: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// A method that has no place here.
    #[error("expected {expected}, but the broker sent {method}")]
    Unexpected {
        /// What should have come.
        expected: &'static str,
        /// What came.
        method: &'static str,
    },
    /// The stream of frames is broken.
    #[error("the broker sent a broken frame: {0}")]
    Frame(#[from] FrameError),
    /// A method frame is broken.
    #[error("the broker sent a broken method: {0}")]
    Method(#[from] MethodError),
    /// Messages were lost, duplicated, reordered or changed.
    #[error("{0}")]
    Messages(String),
    /// The processes of a broker cannot be read, or are not those of the broker.
    #[error("{0}")]
    Process(String),
    /// Another thread of the run failed, and says why.
    #[error("another connection of the run failed first")]
    Aborted,
    /// A scenario that contradicts itself, or asks for more than can be.
    #[error("the scenario cannot be run: {0}")]
    Scenario(String),
    /// The command line or a scenario file asks for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// The machine does not allow what was asked for.
    #[error("{0}")]
    Machine(String),
}

impl Fault {
    /// Makes a fault of an I/O error: `.map_err(Fault::io("read from the broker"))`.
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Io { action: action.into(), source }
    }
}

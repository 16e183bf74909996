//! The questions of `leveret-bench first`, and what their answers are counted in.

use clap::ValueEnum;

/// One question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// Resident memory per open, idle connection
    IdleConnections,
    /// Resident memory per waiting message of 100 bytes
    QueuedMessages,
    /// 16 bytes, transient, auto-ack: one publisher, one consumer
    AutoAck,
    /// 16 bytes, transient, confirms in a window of 1000, manual ack of every 100, prefetch 1000
    Confirms,
}

/// A column of a scenario's table.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    /// Heading, unit included.
    pub(crate) name: &'static str,
    /// Whether the report compares brokers by it.
    pub(crate) compared: bool,
}

const BYTES_PER_CONNECTION: [Metric; 1] =
    [Metric { name: "resident bytes per connection", compared: true }];

const BYTES_PER_MESSAGE: [Metric; 1] =
    [Metric { name: "resident bytes per message", compared: true }];

const FLOW: [Metric; 3] = [
    Metric { name: "messages/s", compared: true },
    Metric { name: "messages per broker CPU s", compared: true },
    Metric { name: "broker CPU s per s", compared: false },
];

impl Scenario {
    /// Memory first: it is compared with a fresh broker.
    pub(crate) const ALL: [Self; 4] =
        [Self::IdleConnections, Self::QueuedMessages, Self::AutoAck, Self::Confirms];

    /// Heading of the report.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::IdleConnections => "Idle connections",
            Self::QueuedMessages => "Waiting messages of 100 B, transient, classic queue",
            Self::AutoAck => "16 B, transient, auto-ack, one publisher → one consumer",
            Self::Confirms => {
                "16 B, transient, confirms (window 1000), ack multiple of every 100, prefetch 1000"
            }
        }
    }

    /// What one run answers, in this order.
    pub(crate) const fn metrics(self) -> &'static [Metric] {
        match self {
            Self::IdleConnections => &BYTES_PER_CONNECTION,
            Self::QueuedMessages => &BYTES_PER_MESSAGE,
            Self::AutoAck | Self::Confirms => &FLOW,
        }
    }
}

/// What one run against one broker found.
#[derive(Debug)]
pub(crate) struct Reading {
    /// A value for each of [`Scenario::metrics`].
    pub(crate) values: Vec<f64>,
    /// Messages that the broker took during the whole run, warm-up and end included.
    pub(crate) messages: u64,
}

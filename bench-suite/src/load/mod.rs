//! The load as values: what is published and how it is checked, for one connection at a time. A
//! `driver` moves the octets.

pub(crate) mod batch;
pub(crate) mod confirm_window;
pub(crate) mod consumer;
pub(crate) mod deliveries;
pub(crate) mod endpoint;
pub(crate) mod latency;
pub(crate) mod publisher;
pub(crate) mod round_trip;
pub(crate) mod schedule;
pub(crate) mod sequence;
pub(crate) mod stamp;
pub(crate) mod tally;

//! The load as values: what is published and how it is checked, one connection's side at a time.
//! What moves the octets is in `driver`.

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

//! Memory and disk space: limits, and the alarms that block publishers.

pub(crate) mod memory;
pub(crate) mod monitor;

//! Messages in memory and on disk, without an idea of the order of queues.

pub mod log;
pub mod store;

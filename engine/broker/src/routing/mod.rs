//! Which queues a message reaches.

pub mod change;
pub(crate) mod exchange;
pub mod route;
mod route_cache;
pub mod topic;
pub mod topology;

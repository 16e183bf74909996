//! The threads that drive the shards and the control state.

pub(crate) mod acceptor;
pub(crate) mod control_driver;
pub(crate) mod cores;
pub(crate) mod driver;
pub(crate) mod polling;
pub(crate) mod receive_queue;
pub(crate) mod thread;

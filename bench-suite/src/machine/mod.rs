//! Facts from the kernel about this machine, the brokers' processes and the load threads.

pub(crate) mod environment;
pub(crate) mod procfs;
pub(crate) mod system_calls;
pub(crate) mod usage;
pub(crate) mod window;

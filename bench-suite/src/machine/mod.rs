//! What the kernel knows of this machine, of the brokers' processes and of the load threads.

pub(crate) mod environment;
pub(crate) mod procfs;
pub(crate) mod system_calls;
pub(crate) mod usage;
pub(crate) mod window;

//! What the whole broker runs out of.

/// What runs out, broker-wide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    /// Memory is above its limit.
    pub memory: bool,
    /// Free space on the data directory's file system is below its limit.
    pub disk: bool,
}

impl Alarms {
    /// Whether publishers have to wait.
    pub fn any(self) -> bool {
        self.memory || self.disk
    }
}

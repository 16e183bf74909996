//! Why publishers have to wait.

/// A reason not to read on from a connection that publishes. Each ends on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// The mesh lane towards the home of a queue is backed up.
    Mesh,
    /// The log of the home of a queue is backed up.
    Log,
    /// Memory or disk space runs out.
    Alarm,
    /// A queue's consumers are behind and may catch up in a moment.
    Backlog,
}

impl Pressure {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Mesh, Self::Log, Self::Alarm, Self::Backlog];
}

//! Mistakes that tests plant into a log, to see that they are noticed.
//!
//! Without the feature `planted-bugs` there is nothing to plant and all of this compiles to
//! nothing. The places that ask are none that a publish passes through by itself.

/// A mistake to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A barrier's checksum does not cover what it says.
    BarrierUnsummed,
    /// A commit counts as durable when it is handed to the disk.
    DurableAtSubmit,
    /// A dead segment is given up although its settle records are needed.
    SettlesForgotten,
    /// A barrier says that its own batch is durable.
    BarrierTooHigh,
    /// A segment is given up before the copies of its messages are durable.
    CopyNotAwaited,
    /// What is behind the last record of a batch is left as it is.
    NoFiller,
    /// A boot writes with the epoch of the one before it.
    EpochKept,
    /// The next batch begins in the last block of the one before it.
    BlockShared,
    /// A segment's file is taken for another one while it is still written.
    OwnEndNotAwaited,
    /// A header does not say where the segment before ended, but that all of its file is used.
    EndOfFile,
    /// The settlements that a commit should take along are dropped.
    SettlesDropped,
}

/// The mistake that a log makes, if any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Planted {
    #[cfg(feature = "planted-bugs")]
    bug: Option<Bug>,
}

impl Planted {
    #[cfg(feature = "planted-bugs")]
    pub(super) fn of(bug: Bug) -> Self {
        Self { bug: Some(bug) }
    }

    /// Whether this mistake is to be made.
    #[cfg(feature = "planted-bugs")]
    pub(super) fn is(self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// Never.
    #[cfg(not(feature = "planted-bugs"))]
    #[expect(clippy::unused_self, reason = "nothing can be planted")]
    pub(super) const fn is(self, _: Bug) -> bool {
        false
    }
}

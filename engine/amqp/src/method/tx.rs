//! Class tx (90): transactions on one channel.

use super::methods;

methods! {
    /// Puts the channel in transaction mode.
    (90, 10) "tx.select" TxSelect [] {} []
    /// Answers [`TxSelect`].
    (90, 11) "tx.select-ok" TxSelectOk [] {} []
    /// Carries out the publishes and acknowledgements since the last commit.
    (90, 20) "tx.commit" TxCommit [] {} []
    /// Answers [`TxCommit`].
    (90, 21) "tx.commit-ok" TxCommitOk [] {} []
    /// Discards the publishes and acknowledgements since the last commit.
    (90, 30) "tx.rollback" TxRollback [] {} []
    /// Answers [`TxRollback`].
    (90, 31) "tx.rollback-ok" TxRollbackOk [] {} []
}

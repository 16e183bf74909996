//! Commits changes.

use leveret_broker::control::DurableChange;
use redb::{Durability, WriteTransaction};
use serde::Serialize;

use super::Metadata;
use super::row::{self, BINDINGS, EXCHANGES, NEXT_LOG_ID, QUEUES, SHARDS, STORE, VHOSTS};
use crate::fail_point;
use crate::failure::Failure;

impl Metadata {
    /// Writes all of `changes`, or none after a failure or a crash. They are durable on return.
    pub(crate) fn commit(&self, changes: &[DurableChange]) -> Result<(), Failure> {
        fail_point::reach("before-metadata-commit");
        self.write(|transaction| write_changes(transaction, changes))?;
        fail_point::reach("after-metadata-commit");
        Ok(())
    }

    /// Stores the number of shards of this run. All queues must have homes among them by now.
    pub(crate) fn set_shards(&self, shards: u16) -> Result<(), Failure> {
        self.write(|transaction| put_fact(transaction, SHARDS, &shards))
    }

    fn write(
        &self,
        body: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), Failure> {
        let transaction = begin(&self.database).map_err(|error| self.failure(error))?;
        body(&transaction).map_err(|error| self.failure(error))?;
        transaction.commit().map_err(|error| self.failure(error))
    }
}

/// Begins a transaction whose commit is flushed.
///
/// The commit has two phases: the new state is flushed before the pointer to it. With one phase,
/// redb would take a state with wrong checksums for a torn commit and go back to the previous
/// state, so corrupted declarations would vanish silently.
pub(super) fn begin(database: &redb::Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_two_phase_commit(true);
    Ok(transaction)
}

pub(super) fn put_fact(
    transaction: &WriteTransaction,
    key: &[u8],
    value: &impl Serialize,
) -> Result<(), redb::Error> {
    let value = sealed(row::seal(key, value))?;
    transaction.open_table(STORE)?.insert(key, &*value)?;
    Ok(())
}

fn write_changes(
    transaction: &WriteTransaction,
    changes: &[DurableChange],
) -> Result<(), redb::Error> {
    let mut vhosts = transaction.open_table(VHOSTS)?;
    let mut exchanges = transaction.open_table(EXCHANGES)?;
    let mut queues = transaction.open_table(QUEUES)?;
    let mut bindings = transaction.open_table(BINDINGS)?;
    let mut log_id = None;
    for change in changes {
        match change {
            DurableChange::PutVhost(vhost) => {
                let key = row::key(&[vhost.name.as_bytes()]);
                vhosts.insert(&*key, &*sealed(row::seal(&key, &()))?)?;
            }
            DurableChange::PutExchange(exchange) => {
                let key = row::key(&[exchange.vhost.as_bytes(), exchange.name.as_bytes()]);
                exchanges.insert(&*key, &*sealed(row::exchange_value(&key, exchange))?)?;
            }
            DurableChange::DropExchange { vhost, name } => {
                exchanges.remove(&*row::key(&[vhost.as_bytes(), name.as_bytes()]))?;
            }
            DurableChange::PutQueue { queue, next_log_id } => {
                let key = row::key(&[queue.vhost.as_bytes(), queue.name.as_bytes()]);
                queues.insert(&*key, &*sealed(row::queue_value(&key, queue))?)?;
                log_id = Some(*next_log_id);
            }
            DurableChange::DropQueue { vhost, name } => {
                queues.remove(&*row::key(&[vhost.as_bytes(), name.as_bytes()]))?;
            }
            DurableChange::PutBinding(binding) => {
                let key = row::binding_key(binding);
                bindings.insert(&*key, &*sealed(row::seal(&key, &()))?)?;
            }
            DurableChange::DropBinding(binding) => {
                bindings.remove(&*row::binding_key(binding))?;
            }
        }
    }
    match log_id {
        Some(next) => put_fact(transaction, NEXT_LOG_ID, &next),
        None => Ok(()),
    }
}

fn sealed(row: Result<Vec<u8>, postcard::Error>) -> Result<Vec<u8>, redb::Error> {
    row.map_err(|error| redb::Error::Corrupted(format!("a row that has no form: {error}")))
}

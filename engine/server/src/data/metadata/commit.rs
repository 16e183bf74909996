//! Commits changes.

use leveret_broker::control::DurableChange;
use leveret_broker::id::VhostId;
use redb::{Durability, WriteTransaction};
use serde::Serialize;

use super::Metadata;
use super::row::{
    self, BINDINGS, EXCHANGES, NEXT_LOG_ID, NEXT_VHOST_ID, PERMISSIONS, QUEUES, SHARDS, STORE,
    USERS, VHOST_IDS, VHOSTS,
};
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
    let mut tables = Tables::open(transaction)?;
    let (mut next_log_id, mut next_vhost_id) = (None, None);
    for change in changes {
        tables.write(change)?;
        match change {
            DurableChange::PutQueue { next_log_id: next, .. } => next_log_id = Some(next),
            DurableChange::PutVhost { next_vhost_id: next, .. } => next_vhost_id = Some(next),
            _ => {}
        }
    }
    if let Some(next) = next_log_id {
        put_fact(transaction, NEXT_LOG_ID, next)?;
    }
    if let Some(next) = next_vhost_id {
        put_fact(transaction, NEXT_VHOST_ID, next)?;
    }
    Ok(())
}

type OpenTable<'a> = redb::Table<'a, &'static [u8], &'static [u8]>;

/// All tables but the facts.
struct Tables<'a> {
    vhosts: OpenTable<'a>,
    vhost_ids: OpenTable<'a>,
    users: OpenTable<'a>,
    permissions: OpenTable<'a>,
    exchanges: OpenTable<'a>,
    queues: OpenTable<'a>,
    bindings: OpenTable<'a>,
}

impl<'a> Tables<'a> {
    fn open(transaction: &'a WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            vhosts: transaction.open_table(VHOSTS)?,
            vhost_ids: transaction.open_table(VHOST_IDS)?,
            users: transaction.open_table(USERS)?,
            permissions: transaction.open_table(PERMISSIONS)?,
            exchanges: transaction.open_table(EXCHANGES)?,
            queues: transaction.open_table(QUEUES)?,
            bindings: transaction.open_table(BINDINGS)?,
        })
    }

    fn write(&mut self, change: &DurableChange) -> Result<(), redb::Error> {
        match change {
            DurableChange::PutVhost { vhost, .. } => {
                let key = row::key(&[vhost.name.as_bytes()]);
                put(&mut self.vhosts, &key, row::seal(&key, &()))?;
                if let Some(VhostId(id)) = vhost.id {
                    put(&mut self.vhost_ids, &key, row::seal(&key, &id))?;
                }
            }
            DurableChange::DropVhost { name } => {
                let key = row::key(&[name.as_bytes()]);
                self.vhosts.remove(&*key)?;
                self.vhost_ids.remove(&*key)?;
            }
            DurableChange::PutUser(user) => {
                let key = row::key(&[user.name.as_bytes()]);
                put(&mut self.users, &key, row::user_value(&key, user))?;
            }
            DurableChange::DropUser { name } => {
                self.users.remove(&*row::key(&[name.as_bytes()]))?;
            }
            DurableChange::PutPermissions(permissions) => {
                let key = row::key(&[permissions.vhost.as_bytes(), permissions.user.as_bytes()]);
                put(&mut self.permissions, &key, row::permissions_value(&key, permissions))?;
            }
            DurableChange::DropPermissions { user, vhost } => {
                self.permissions.remove(&*row::key(&[vhost.as_bytes(), user.as_bytes()]))?;
            }
            DurableChange::PutExchange(exchange) => {
                let key = row::key(&[exchange.vhost.as_bytes(), exchange.name.as_bytes()]);
                put(&mut self.exchanges, &key, row::exchange_value(&key, exchange))?;
            }
            DurableChange::DropExchange { vhost, name } => {
                self.exchanges.remove(&*row::key(&[vhost.as_bytes(), name.as_bytes()]))?;
            }
            DurableChange::PutQueue { queue, .. } => {
                let key = row::key(&[queue.vhost.as_bytes(), queue.name.as_bytes()]);
                put(&mut self.queues, &key, row::queue_value(&key, queue))?;
            }
            DurableChange::DropQueue { vhost, name } => {
                self.queues.remove(&*row::key(&[vhost.as_bytes(), name.as_bytes()]))?;
            }
            DurableChange::PutBinding(binding) => {
                let key = row::binding_key(binding);
                put(&mut self.bindings, &key, row::seal(&key, &()))?;
            }
            DurableChange::DropBinding(binding) => {
                self.bindings.remove(&*row::binding_key(binding))?;
            }
        }
        Ok(())
    }
}

fn put(
    table: &mut OpenTable<'_>,
    key: &[u8],
    value: Result<Vec<u8>, postcard::Error>,
) -> Result<(), redb::Error> {
    table.insert(key, &*sealed(value)?)?;
    Ok(())
}

fn sealed(row: Result<Vec<u8>, postcard::Error>) -> Result<Vec<u8>, redb::Error> {
    row.map_err(|error| redb::Error::Corrupted(format!("a row that has no form: {error}")))
}

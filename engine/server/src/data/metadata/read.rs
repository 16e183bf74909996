//! Reading the rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use leveret_broker::catalog::name::Name;
use leveret_broker::control::VhostDefinition;
use leveret_broker::id::VhostId;
use redb::{ReadTransaction, ReadableTable};

use super::row::{
    self, BINDINGS, Damage, EXCHANGES, PERMISSIONS, QUEUES, Table, USERS, VHOST_IDS, VHOSTS,
};
use super::{FILE_NAME, Loaded};

impl Loaded {
    /// Reads all rows. A damaged one is reported and left out.
    pub(super) fn read_rows(&mut self, transaction: &ReadTransaction) -> Result<(), redb::Error> {
        self.read_vhosts(transaction)?;
        let (exchanges, _) = self.rows(transaction, EXCHANGES, "exchange", row::read_exchange)?;
        self.definitions.exchanges = exchanges;
        let (queues, damaged) = self.rows(transaction, QUEUES, "queue", row::read_queue)?;
        self.definitions.queues = queues;
        self.definitions.quarantined.extend(damaged.iter().filter_map(|key| row::names(key)));
        let (bindings, _) = self.rows(transaction, BINDINGS, "binding", row::read_binding)?;
        self.definitions.bindings = bindings;
        Ok(())
    }

    fn read_vhosts(&mut self, transaction: &ReadTransaction) -> Result<(), redb::Error> {
        let (names, _) = self.rows(transaction, VHOSTS, "virtual host", row::read_vhost)?;
        let mut ids = BTreeMap::new();
        if self.format >= (1, 1) {
            let what = "the id of virtual host";
            ids.extend(self.rows(transaction, VHOST_IDS, what, row::read_vhost_id)?.0);
            let (users, _) = self.rows(transaction, USERS, "user", row::read_user)?;
            self.definitions.users = users.into_iter().map(Arc::new).collect();
            let what = "the permissions of user";
            let (permissions, _) =
                self.rows(transaction, PERMISSIONS, what, row::read_permissions)?;
            self.definitions.permissions = permissions;
        }
        let with_id = |name: Name| {
            let id = ids.get(&name).copied().map(VhostId);
            VhostDefinition { name, id }
        };
        self.definitions.vhosts = names.into_iter().map(with_id).collect();
        Ok(())
    }

    /// The rows of a table, and the keys of those that are damaged.
    fn rows<T>(
        &mut self,
        transaction: &ReadTransaction,
        table: Table,
        what: &str,
        read: impl Fn(&[u8], &[u8]) -> Result<T, Damage>,
    ) -> Result<(Vec<T>, Vec<Vec<u8>>), redb::Error> {
        let (mut rows, mut damaged) = (Vec::new(), Vec::new());
        for row in transaction.open_table(table)?.iter()? {
            let (key, value) = row?;
            match read(key.value(), value.value()) {
                Ok(row) => rows.push(row),
                Err(damage) => {
                    let what = named(what, key.value());
                    self.damages
                        .push(format!("the row of {what} in {FILE_NAME} is not used: {damage}"));
                    damaged.push(key.value().to_vec());
                }
            }
        }
        Ok((rows, damaged))
    }
}

fn named(what: &str, key: &[u8]) -> String {
    if let Some((vhost, name)) = row::names(key) {
        return format!("{what} '{name}' in vhost '{vhost}'");
    }
    match row::single_name(key) {
        Some(name) => format!("{what} '{name}'"),
        None => format!("{what} {}", key.escape_ascii()),
    }
}

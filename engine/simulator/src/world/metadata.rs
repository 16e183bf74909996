//! The metadata store of a broker: a list that grows by whole commits.
//!
//! It stands for `metadata.redb`, a database that applies each commit completely or not at all, one
//! at a time.

use std::sync::Arc;

use leveret_broker::control::{Definitions, DurableChange};
use leveret_broker::id::Instant;

use crate::random::Random;

/// The commits, of changes of type `T`.
#[derive(Clone, Debug)]
pub struct MetadataStore<T> {
    durable: Vec<T>,
    under_way: Option<Commit<T>>,
}

#[derive(Clone, Debug)]
struct Commit<T> {
    /// The number that the control state gave it.
    through: u64,
    changes: Vec<T>,
    due: Instant,
}

impl<T> Default for MetadataStore<T> {
    fn default() -> Self {
        Self { durable: Vec::new(), under_way: None }
    }
}

impl<T> MetadataStore<T> {
    /// Begins a commit that completes at `due`.
    ///
    /// # Panics
    /// If another commit is in progress.
    pub fn commit(&mut self, through: u64, changes: Vec<T>, due: Instant) {
        assert!(self.under_way.is_none(), "two commits of metadata at a time");
        self.under_way = Some(Commit { through, changes, due });
    }

    /// When the current commit completes.
    pub fn next_due(&self) -> Option<Instant> {
        self.under_way.as_ref().map(|commit| commit.due)
    }

    /// Completes the current commit if it is due, and returns its number.
    pub fn complete(&mut self, now: Instant) -> Option<u64> {
        let commit = self.under_way.take_if(|commit| commit.due <= now)?;
        self.durable.extend(commit.changes);
        Some(commit.through)
    }

    /// The broker crashes: the current commit is applied as a whole, or not at all.
    pub fn crash(&mut self, random: &mut Random) {
        let commit = self.under_way.take().filter(|_| random.chance(50));
        self.durable.extend(commit.into_iter().flat_map(|commit| commit.changes));
    }

    /// All changes that are durable, oldest first.
    pub fn durable(&self) -> &[T] {
        &self.durable
    }
}

/// The definitions that result from these changes.
pub fn definitions(changes: &[DurableChange]) -> Definitions {
    let mut declared = Definitions::default();
    for change in changes {
        take_in(&mut declared, change);
    }
    declared
}

fn take_in(declared: &mut Definitions, change: &DurableChange) {
    use DurableChange::{
        DropBinding, DropExchange, DropPermissions, DropQueue, DropUser, DropVhost, PutBinding,
        PutExchange, PutPermissions, PutQueue, PutUser, PutVhost,
    };
    match change {
        PutVhost { vhost, next_vhost_id } => {
            declared.vhosts.retain(|other| other.name != vhost.name);
            declared.vhosts.push(vhost.clone());
            declared.next_vhost_id = *next_vhost_id;
        }
        DropVhost { name } => declared.vhosts.retain(|other| other.name != *name),
        PutUser(user) => {
            declared.users.retain(|other| other.name != user.name);
            declared.users.push(Arc::clone(user));
        }
        DropUser { name } => declared.users.retain(|other| other.name != *name),
        PutPermissions(put) => {
            let key = (&put.user, &put.vhost);
            declared.permissions.retain(|other| (&other.user, &other.vhost) != key);
            declared.permissions.push(put.clone());
        }
        DropPermissions { user, vhost } => {
            declared.permissions.retain(|other| (&other.user, &other.vhost) != (user, vhost));
        }
        PutExchange(exchange) => {
            let key = (&exchange.vhost, &exchange.name);
            declared.exchanges.retain(|other| (&other.vhost, &other.name) != key);
            declared.exchanges.push(exchange.clone());
        }
        DropExchange { vhost, name } => {
            declared.exchanges.retain(|other| (&other.vhost, &other.name) != (vhost, name));
        }
        PutQueue { queue, next_log_id } => {
            let key = (&queue.vhost, &queue.name);
            declared.queues.retain(|other| (&other.vhost, &other.name) != key);
            declared.queues.push(queue.clone());
            declared.next_log_id = *next_log_id;
        }
        DropQueue { vhost, name } => {
            declared.queues.retain(|other| (&other.vhost, &other.name) != (vhost, name));
        }
        PutBinding(binding) => {
            declared.bindings.retain(|other| other != binding);
            declared.bindings.push(binding.clone());
        }
        DropBinding(binding) => declared.bindings.retain(|other| other != binding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_keeps_a_commit_wholly_or_not_at_all() {
        let mut lengths = [0; 3];
        for seed in 0..40 {
            let mut metadata = MetadataStore::default();
            metadata.commit(7, vec!["a"], Instant(5));
            assert_eq!(metadata.complete(Instant(4)), None);
            assert_eq!(metadata.complete(Instant(5)), Some(7));
            metadata.commit(9, vec!["b", "c"], Instant(9));
            metadata.crash(&mut Random::new(seed));
            assert_eq!(metadata.next_due(), None);
            match metadata.durable() {
                ["a"] => lengths[0] += 1,
                ["a", "b", "c"] => lengths[2] += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(lengths[0] > 0 && lengths[2] > 0);
    }
}

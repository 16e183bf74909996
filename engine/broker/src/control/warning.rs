//! Warnings for the log: a queue was declared with arguments that have no effect yet.

use std::collections::VecDeque;

use leveret_amqp::TableRef;

use crate::catalog::arguments;
use crate::catalog::name::Name;

/// Warnings kept until the driver asks, which it does each turn: enough to see a pattern, and at
/// most 64 KiB, for two names and a list of arguments take less than 1 KiB. The rest is counted.
const WARNINGS_MAX: usize = 64;

/// A queue was created although some of its arguments have no effect yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The name of its virtual host.
    pub vhost: Name,
    /// Its name, which the server may have made.
    pub queue: Name,
    /// The names of the arguments without effect.
    pub arguments: Vec<&'static str>,
    /// How many queues found no room here since the last warning.
    pub withheld: u64,
}

/// The warnings that wait for the driver.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    waiting: VecDeque<Warning>,
    withheld: u64,
}

impl Warnings {
    /// A queue is created with these arguments.
    pub(super) fn note(&mut self, vhost: &Name, queue: &Name, table: TableRef<'_>) {
        let arguments = arguments::without_effect(table);
        if arguments.is_empty() {
            return;
        }
        if self.waiting.len() >= WARNINGS_MAX {
            self.withheld += 1;
            return;
        }
        let (vhost, queue) = (vhost.clone(), queue.clone());
        self.waiting.push_back(Warning { vhost, queue, arguments, withheld: 0 });
    }

    /// The oldest one.
    pub(super) fn poll(&mut self) -> Option<Warning> {
        let warning = self.waiting.pop_front()?;
        Some(Warning { withheld: std::mem::take(&mut self.withheld), ..warning })
    }
}

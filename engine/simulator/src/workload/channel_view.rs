//! What a client knows about one of its channels.

use std::collections::BTreeMap;

use crate::identity::Identity;
use crate::workload::oracle::ChannelUid;
use crate::workload::topology::lasting;

/// What a channel is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Publishes to lasting queues, with confirms or without.
    Publisher { confirm: bool },
    /// Consumes and gets from lasting queues.
    Consumer,
    /// Declares, deletes, publishes to and consumes from short-lived queues; the broker may close
    /// the channel at any time.
    Churner,
}

/// The answer that a channel waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// None: it may send the next method.
    Nothing,
    /// `channel.open-ok`
    Open,
    /// Any answer that changes nothing in this view.
    Answer,
    /// `basic.cancel-ok`
    Cancel(String),
    /// `basic.get-ok` or `basic.get-empty`
    Get(Source, bool),
    /// `basic.recover-ok`
    Recover,
    /// `channel.close-ok`
    Close,
    /// `channel.close`, after a violation.
    Refusal,
}

/// The queue that messages are taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A lasting queue.
    Lasting(usize),
    /// A short-lived queue.
    Passing(String),
}

impl Source {
    /// The name of the queue.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Lasting(queue) => lasting(*queue),
            Self::Passing(name) => name.clone(),
        }
    }
}

/// A consumer on the channel.
#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    pub(crate) source: Source,
    pub(crate) no_ack: bool,
    /// The most unacknowledged deliveries; 0 is no limit.
    pub(crate) prefetch: u16,
    pub(crate) number: u64,
}

/// A delivery that the client has not settled.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) source: Source,
    pub(crate) identity: Identity,
    /// `None` if it came by `basic.get`.
    pub(crate) consumer: Option<u64>,
}

/// One channel.
#[derive(Debug)]
pub(crate) struct ChannelView {
    pub(crate) number: u16,
    pub(crate) uid: ChannelUid,
    pub(crate) role: Role,
    pub(crate) waiting: Waiting,
    /// The broker may close it, because the client has violated a rule or may have.
    pub(crate) suspect: bool,
    /// By consumer tag.
    pub(crate) consumers: BTreeMap<String, Consumer>,
    /// Consumers started so far.
    pub(crate) consumers_started: u64,
    /// By delivery tag.
    pub(crate) held: BTreeMap<u64, Held>,
    /// The limit for consumers that start from now on.
    pub(crate) prefetch: u16,
    /// The limit for the whole channel; 0 is no limit.
    pub(crate) global: u16,
    /// Publishes so far.
    pub(crate) published: u64,
    /// How many `basic.qos-ok` have to come before anything else.
    pub(crate) answers_due: u8,
}

impl ChannelView {
    pub(crate) fn new(number: u16, uid: ChannelUid, role: Role) -> Self {
        Self {
            number,
            uid,
            role,
            waiting: Waiting::Open,
            suspect: role == Role::Churner,
            consumers: BTreeMap::new(),
            consumers_started: 0,
            held: BTreeMap::new(),
            prefetch: 0,
            global: 0,
            published: 0,
            answers_due: 0,
        }
    }

    /// Unacknowledged deliveries to consumers, not those of `basic.get`.
    pub(crate) fn held_by_consumers(&self) -> usize {
        self.held.values().filter(|held| held.consumer.is_some()).count()
    }

    /// Unacknowledged deliveries to one consumer.
    pub(crate) fn held_by(&self, consumer: u64) -> usize {
        self.held.values().filter(|held| held.consumer == Some(consumer)).count()
    }

    /// Whether the broker should deliver another message to the consumer.
    pub(crate) fn wants(&self, consumer: &Consumer) -> bool {
        let prefetch = usize::from(consumer.prefetch);
        let global = usize::from(self.global);
        // When the limit of the whole channel is reached, consumers without acknowledgements stop
        // as well.
        (global == 0 || self.held_by_consumers() < global)
            && (consumer.no_ack || prefetch == 0 || self.held_by(consumer.number) < prefetch)
    }

    /// An error if a delivery exceeds a prefetch limit.
    pub(crate) fn check_prefetch(&self, consumer: &Consumer) -> Result<(), String> {
        let (own, all) = (self.held_by(consumer.number), self.held_by_consumers());
        let over = |limit: u16, held: usize| limit > 0 && held > usize::from(limit);
        if over(consumer.prefetch, own) || over(self.global, all) {
            return Err(format!(
                "prefetch exceeded: {own} of {} and {all} of {} (global)",
                consumer.prefetch, self.global
            ));
        }
        Ok(())
    }
}

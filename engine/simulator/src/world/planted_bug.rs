//! Planted bugs: the oracle must catch each of them; otherwise it is blind.
//!
//! A bug is planted once, in the mesh or in the network between correct shards. The effect is that
//! of a shard with that bug.

use bytes::Bytes;
use leveret_broker::control::DurableChange;
use leveret_broker::mesh::batch::Batch;
use leveret_broker::mesh::mail::{Lane, Mail, QueueRequest};
use leveret_broker::queue::terms::{Settlement, Signal};

use crate::disk::Disk;
use crate::disk::flaw::Flaw;

/// A bug to plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A batch of publishes never arrives.
    LosePublish,
    /// A settled message returns to its queue.
    RequeueSettled,
    /// A requeued message is dropped instead.
    DropRequeued,
    /// A redelivery lacks the flag `redelivered`.
    HideRedelivered,
    /// A first delivery has the flag `redelivered`.
    ClaimRedelivered,
    /// A consumer has no prefetch limit.
    ForgetPrefetch,
    /// A confirm covers one publish too few.
    LoseConfirm,
    /// A delivery never arrives.
    LoseDelivery,
    /// Two successive deliveries are swapped.
    SwapDeliveries,
    /// A home is not informed that a consumer may start.
    LoseStart,
    /// A channel's end is not told to a home.
    LoseChannelsEnded,
    /// A receive buffer is never returned.
    KeepBuffer,
    /// A delivered body is damaged.
    DamageBody,
    /// After a crash, messages that may have been delivered lack the flag `redelivered`.
    ForgetRecovered,
    /// Messages are confirmed before they are on the disk.
    ConfirmUndurable,
    /// A commit of metadata is reported as durable and is not.
    LoseMetadata,
}

pub(crate) const BUGS: [Bug; 16] = [
    Bug::LosePublish,
    Bug::RequeueSettled,
    Bug::DropRequeued,
    Bug::HideRedelivered,
    Bug::ClaimRedelivered,
    Bug::ForgetPrefetch,
    Bug::LoseConfirm,
    Bug::LoseDelivery,
    Bug::SwapDeliveries,
    Bug::LoseStart,
    Bug::LoseChannelsEnded,
    Bug::KeepBuffer,
    Bug::DamageBody,
    Bug::ForgetRecovered,
    Bug::ConfirmUndurable,
    Bug::LoseMetadata,
];

/// A bug that is planted in a world.
#[derive(Debug)]
pub(crate) struct PlantedBug {
    bug: Bug,
    /// How many opportunities to let pass first.
    spared: u32,
    pub(crate) done: bool,
    kept: Vec<Bytes>,
}

impl PlantedBug {
    pub(crate) const fn new(bug: Bug, spared: u32) -> Self {
        Self { bug, spared, done: false, kept: Vec::new() }
    }

    /// A receive buffer was lent.
    pub(crate) fn received(&mut self, bytes: &Bytes) {
        if self.bug == Bug::KeepBuffer && self.strikes() {
            self.kept.push(bytes.clone());
        }
    }

    /// Bytes of a send are about to leave.
    pub(crate) fn transmitted(&mut self, wire: &mut [u8]) {
        // After a frame header, so that the body is damaged and not the frame.
        let body = wire.windows(3).position(|octets| octets == [0xCE, 3, 0]);
        if let Some(at) = body.filter(|at| self.bug == Bug::DamageBody && at + 12 < wire.len())
            && self.strikes()
        {
            wire[at + 10] ^= 0x40;
        }
    }

    /// A batch is about to leave.
    pub(crate) fn sent(&mut self, lane: Lane, mut batch: Batch) -> Batch {
        let publishes = batch.mails.iter().any(|mail| matches!(mail, Mail::Publish { .. }));
        if self.bug == Bug::LosePublish && lane == Lane::Work && publishes && self.strikes() {
            batch.mails.retain(|mail| !matches!(mail, Mail::Publish { .. }));
        }
        batch.mails = batch.mails.drain(..).flat_map(apart).collect();
        let mut at = 0;
        while at < batch.mails.len() {
            if !self.done {
                self.tamper(&mut batch.mails, at);
            }
            at += 1;
        }
        batch
    }

    /// A broker starts. True: it forgets which messages may have been delivered.
    pub(crate) fn booted(&mut self) -> bool {
        let forgets = self.bug == Bug::ForgetRecovered;
        self.done |= forgets;
        forgets
    }

    /// Plants bugs of the disks.
    pub(crate) fn plant(&mut self, disks: &mut [Disk]) {
        if self.bug == Bug::ConfirmUndurable {
            self.done = true;
            for disk in disks {
                disk.plant(Flaw::AcknowledgeUnwritten);
            }
        }
    }

    /// Changes of metadata are about to be committed.
    pub(crate) fn stored(&mut self, changes: Vec<DurableChange>) -> Vec<DurableChange> {
        let lost = self.bug == Bug::LoseMetadata && self.strikes();
        if lost { Vec::new() } else { changes }
    }

    fn strikes(&mut self) -> bool {
        if self.done || self.spared > 0 {
            self.spared = self.spared.saturating_sub(1);
            return false;
        }
        self.done = true;
        true
    }

    fn tamper(&mut self, mails: &mut Vec<Mail>, at: usize) {
        let bug = self.bug;
        let swaps = matches!(
            (&mails[at], mails.get(at + 1)),
            (Mail::Deliver { delivery: a, .. }, Some(Mail::Deliver { delivery: b, .. }))
                if a.consumer == b.consumer && !a.redelivered && !b.redelivered
        );
        let loses = match &mails[at] {
            Mail::Deliver { delivery, .. } => bug == Bug::LoseDelivery && delivery.number.is_some(),
            Mail::Consumer { signal: Signal::Start, .. } => bug == Bug::LoseStart,
            Mail::ChannelsEnded { .. } => bug == Bug::LoseChannelsEnded,
            _ => false,
        };
        if bug == Bug::SwapDeliveries && swaps && self.strikes() {
            mails.swap(at, at + 1);
        } else if loses && self.strikes() {
            mails.remove(at);
        } else {
            self.falsify(&mut mails[at]);
        }
    }

    fn falsify(&mut self, mail: &mut Mail) {
        match (self.bug, mail) {
            (Bug::RequeueSettled, Mail::Settle { settlement, .. })
                if *settlement == Settlement::Ack && self.strikes() =>
            {
                *settlement = Settlement::Requeue;
            }
            (Bug::DropRequeued, Mail::Settle { settlement, .. })
                if *settlement == Settlement::Requeue && self.strikes() =>
            {
                *settlement = Settlement::Ack;
            }
            (Bug::HideRedelivered, Mail::Deliver { delivery, .. })
                if delivery.redelivered && self.strikes() =>
            {
                delivery.redelivered = false;
            }
            (Bug::ClaimRedelivered, Mail::Deliver { delivery, .. })
                if !delivery.redelivered && self.strikes() =>
            {
                delivery.redelivered = true;
            }
            (Bug::ForgetPrefetch, Mail::Ask(asked)) => {
                if let QueueRequest::Consume(subscription) = &mut asked.1
                    && subscription.prefetch > 0
                    && !subscription.limited
                {
                    subscription.prefetch = 0;
                    self.done = true;
                }
            }
            (Bug::LoseConfirm, Mail::Confirmed { count, .. }) if self.strikes() => *count -= 1,
            _ => {}
        }
    }
}

/// Splits a run of deliveries into one mail per delivery.
fn apart(mail: Mail) -> Vec<Mail> {
    match mail {
        Mail::Deliver { delivery, parcels } => {
            let each = delivery.run().zip(parcels.each());
            each.map(|(delivery, parcels)| Mail::Deliver { delivery, parcels }).collect()
        }
        other => vec![other],
    }
}

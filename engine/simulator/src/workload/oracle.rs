//! The oracle: what must be true in every run, whatever happens at random.
//!
//! It follows each copy of a message: one per lasting queue that the message was routed to. It sees
//! everything that clients send and receive. After a reset it is unknown what the broker has read
//! of the connection's channels, so both outcomes are accepted for their last methods.

use std::collections::{BTreeMap, BTreeSet};

use crate::identity::Identity;

/// A channel of a client, as a number that is unique in a run. It is also the publisher in
/// [`Identity`].
pub type ChannelUid = u32;

/// The state of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Everything written on it will be read by the broker.
    Open,
    /// The client has closed it.
    Left,
    /// It is unknown what the broker read from it.
    Broken,
}

/// Where a copy is, as far as clients can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In its queue, never delivered.
    Fresh,
    /// Delivered to a channel that has to settle it.
    Held(ChannelUid),
    /// Acknowledged or rejected on a channel.
    Settled(ChannelUid),
    /// Delivered without acknowledgement.
    Consumed,
    /// Requeued by a client.
    Requeued,
    /// In its queue after a crash, because it was confirmed and not settled.
    Recovered,
    /// In its queue after a crash, or not: it was unknown whether the message or its settlement was
    /// durable.
    Doubtful,
    /// Lost in a crash, or durably settled before.
    Gone,
}

/// How a client ended a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement {
    /// Acknowledged, or rejected without requeue.
    Done,
    /// Requeued.
    Requeue,
}

/// A delivery, as its client sees it.
#[derive(Clone, Copy, Debug)]
pub struct Delivered {
    /// The lasting queue.
    pub queue: usize,
    /// The message.
    pub identity: Identity,
    /// The flag of the delivery.
    pub redelivered: bool,
    /// The receiving channel.
    pub channel: ChannelUid,
    /// The consumer on that channel; 0 for `basic.get`.
    pub consumer: u64,
    /// Without acknowledgement.
    pub no_ack: bool,
}

/// A published message.
#[derive(Debug)]
struct Published {
    /// The lasting queues it is routed to; `None` if the route depends on other clients.
    queues: Option<Vec<usize>>,
    mandatory: bool,
    returned: bool,
    confirmed: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct QueueFacts {
    /// A channel with manual acknowledgement has left. Deliveries that were in flight to it come
    /// back with the flag `redelivered`.
    holder_left: bool,
    /// A channel without acknowledgement has left. Deliveries that were in flight to it are lost,
    /// as AMQP allows.
    lossy: bool,
}

/// Accounts for every message of a run.
#[derive(Debug, Default)]
pub struct Oracle {
    fates: Vec<Fate>,
    /// Durable lasting queues; their messages are persistent.
    durable: BTreeSet<usize>,
    messages: BTreeMap<Identity, Published>,
    copies: BTreeMap<(Identity, usize), Place>,
    queues: BTreeMap<usize, QueueFacts>,
    /// Publishes that still need a confirm, by channel.
    unconfirmed: BTreeMap<ChannelUid, BTreeSet<u64>>,
    /// The newest first delivery, by publisher, queue and consumer.
    newest: BTreeMap<(ChannelUid, usize, ChannelUid, u64), u64>,
    /// First deliveries from short-lived queues.
    passing: BTreeSet<(Identity, String)>,
    deliveries: u64,
    lost_by_contract: u64,
}

impl Oracle {
    /// An oracle that knows which lasting queues are durable. All messages are persistent.
    pub fn of(is_durable: impl Fn(usize) -> bool) -> Self {
        let durable =
            (0..crate::workload::topology::LASTING_QUEUES).filter(|queue| is_durable(*queue));
        Self { durable: durable.collect(), ..Self::default() }
    }

    /// The broker has crashed. Its promises still hold: confirmed messages in durable queues come
    /// back, flagged. Messages whose confirm or settlement was still open may come back; others
    /// must not.
    pub fn crashed(&mut self) {
        self.fates.fill(Fate::Broken);
        // All messages that come back now are flagged anyway.
        self.queues.values_mut().for_each(|facts| facts.holder_left = false);
        for ((identity, queue), place) in &mut self.copies {
            let confirmed = self.messages.get(identity).is_some_and(|message| message.confirmed);
            *place = match place {
                _ if !self.durable.contains(queue) => Place::Gone,
                Place::Gone => Place::Gone,
                Place::Settled(_) | Place::Consumed | Place::Doubtful => Place::Doubtful,
                _ if !confirmed => Place::Doubtful,
                _ => Place::Recovered,
            };
        }
    }

    /// The broker has stopped cleanly and all channels are gone. Durable queues have the same
    /// messages as before, and messages that were never delivered are not flagged.
    pub fn stopped(&mut self) {
        for ((_, queue), place) in &mut self.copies {
            if !self.durable.contains(queue) {
                *place = Place::Gone;
            }
        }
    }

    /// Everything that the broker has read is processed and durable: messages that were settled on
    /// channels in order will not come back, not even after a crash.
    pub fn all_durable(&mut self) {
        for place in self.copies.values_mut() {
            if matches!(place, Place::Settled(by) if self.fates[*by as usize] != Fate::Broken) {
                *place = Place::Gone;
            }
        }
    }

    /// A channel is opened.
    pub fn open_channel(&mut self) -> ChannelUid {
        self.fates.push(Fate::Open);
        self.fates.len() as ChannelUid - 1
    }

    /// The client has written `channel.close` or `connection.close`.
    pub fn leave_channel(&mut self, channel: ChannelUid) {
        if self.fate(channel) == Fate::Open {
            self.fates[channel as usize] = Fate::Left;
        }
    }

    /// It is unknown from now on what the broker reads from the channel.
    pub fn break_channel(&mut self, channel: ChannelUid) {
        self.fates[channel as usize] = Fate::Broken;
    }

    /// A consumer of a lasting queue, or a channel with an open `basic.get`, is gone or about to
    /// be.
    pub fn taker_left(&mut self, queue: usize, no_ack: bool) {
        let facts = self.queues.entry(queue).or_default();
        facts.lossy |= no_ack;
        facts.holder_left |= !no_ack;
    }

    /// A client has published a message.
    pub fn published(
        &mut self,
        identity: Identity,
        queues: Option<&[usize]>,
        mandatory: bool,
        confirm: bool,
    ) {
        for queue in queues.unwrap_or_default() {
            self.copies.insert((identity, *queue), Place::Fresh);
        }
        let queues = queues.map(<[usize]>::to_vec);
        let published = Published { queues, mandatory, returned: false, confirmed: false };
        self.messages.insert(identity, published);
        if confirm {
            self.unconfirmed.entry(identity.publisher).or_default().insert(identity.sequence);
        }
    }

    /// A client has received `basic.ack` for publishes.
    ///
    /// # Errors
    /// If a message was not published, was confirmed before, or has to be returned first.
    pub fn confirmed(
        &mut self,
        channel: ChannelUid,
        tag: u64,
        multiple: bool,
    ) -> Result<(), String> {
        let open = self.unconfirmed.entry(channel).or_default();
        let mut named = BTreeSet::from([tag]);
        if multiple {
            let above = open.split_off(&(tag + 1));
            named = std::mem::replace(open, above);
        } else if !open.remove(&tag) {
            named.clear();
        }
        if !named.contains(&tag) {
            return Err(format!("confirm of {tag} on channel {channel}, which was not due"));
        }
        for sequence in named {
            let identity = Identity { publisher: channel, sequence };
            let Some(message) = self.messages.get_mut(&identity) else {
                continue;
            };
            message.confirmed = true;
            let unroutable = message.queues.as_ref().is_some_and(Vec::is_empty);
            if message.mandatory && unroutable && !message.returned {
                return Err(format!("{identity:?} was confirmed before it was returned"));
            }
        }
        Ok(())
    }

    /// A client has received `basic.return`.
    ///
    /// # Errors
    /// If the message was routable, or was returned twice or after its confirm.
    pub fn returned(&mut self, channel: ChannelUid, identity: Identity) -> Result<(), String> {
        let Some(message) = self.messages.get_mut(&identity) else {
            return Err(format!("{identity:?} was returned and never published"));
        };
        let routable = message.queues.as_ref().is_some_and(|queues| !queues.is_empty());
        let reason = message.mandatory && !routable && identity.publisher == channel;
        if !reason || message.confirmed || std::mem::replace(&mut message.returned, true) {
            return Err(format!("{identity:?} was returned on {channel}: {message:?}"));
        }
        Ok(())
    }

    /// A client has received a message from a lasting queue.
    ///
    /// # Errors
    /// If it was never published, is a duplicate, has the wrong flag, or comes out of order.
    pub fn delivered(&mut self, delivered: Delivered) -> Result<(), String> {
        let Delivered { queue, identity, redelivered, channel, no_ack, .. } = delivered;
        let Some(place) = self.copies.get(&(identity, queue)).copied() else {
            return Err(format!("phantom: {delivered:?}"));
        };
        if self.fate(channel) != Fate::Open {
            // The message may have been requeued and delivered to another channel by now.
            return Ok(());
        }
        self.deliveries += 1;
        let flag_due = match place {
            Place::Fresh => redelivered && self.facts(queue).holder_left,
            Place::Held(holder) if self.fate(holder) == Fate::Open => {
                return Err(format!("delivered while {holder} has it: {delivered:?}"));
            }
            Place::Settled(by) if self.fate(by) != Fate::Broken => {
                return Err(format!("back after it was settled on {by}: {delivered:?}"));
            }
            Place::Consumed => return Err(format!("back after auto-ack: {delivered:?}")),
            Place::Gone => return Err(format!("back from the dead: {delivered:?}")),
            Place::Held(_) | Place::Settled(_) | Place::Requeued => true,
            Place::Recovered | Place::Doubtful => true,
        };
        if redelivered != flag_due {
            return Err(format!("redelivered has to be {flag_due} from {place:?}: {delivered:?}"));
        }
        let place = if no_ack { Place::Consumed } else { Place::Held(channel) };
        let before = self.copies.insert((identity, queue), place);
        let recovered = matches!(before, Some(Place::Recovered | Place::Doubtful));
        if let Some(message) = self.messages.get_mut(&identity).filter(|_| recovered) {
            // It was on the disk, so it counts as confirmed from now on.
            message.confirmed = true;
        }
        // A delivery in flight to a client that left returns to its old position, so clients that
        // already received later messages see it out of order.
        let late = !recovered || self.facts(queue).holder_left;
        if redelivered && late { Ok(()) } else { self.check_order(delivered) }
    }

    fn check_order(&mut self, delivered: Delivered) -> Result<(), String> {
        let Delivered { queue, identity, channel, consumer, .. } = delivered;
        let newest = self.newest.entry((identity.publisher, queue, channel, consumer)).or_default();
        if identity.sequence <= *newest {
            return Err(format!("after {newest} of its publisher came {delivered:?}"));
        }
        *newest = identity.sequence;
        Ok(())
    }

    /// A client has received a message from a short-lived queue.
    ///
    /// # Errors
    /// If it was never published, or is a duplicate without the flag.
    pub fn passed(
        &mut self,
        queue: &str,
        identity: Identity,
        redelivered: bool,
    ) -> Result<(), String> {
        if !self.messages.contains_key(&identity) {
            return Err(format!("phantom {identity:?} from {queue}"));
        }
        if !redelivered && !self.passing.insert((identity, queue.to_owned())) {
            return Err(format!("{identity:?} twice from {queue} without the flag"));
        }
        Ok(())
    }

    /// A client has settled a delivery.
    pub fn settled(&mut self, queue: usize, identity: Identity, by: ChannelUid, how: Settlement) {
        if self.copies.get(&(identity, queue)) == Some(&Place::Held(by)) {
            let place = match how {
                Settlement::Done => Place::Settled(by),
                Settlement::Requeue => Place::Requeued,
            };
            self.copies.insert((identity, queue), place);
        }
    }

    /// The world is at rest and everything that clients wrote has been read.
    ///
    /// # Errors
    /// If a publish was never confirmed, or an unroutable one was never returned.
    pub fn check_quiet(&self) -> Result<(), String> {
        for (channel, open) in &self.unconfirmed {
            if self.fate(*channel) == Fate::Open && !open.is_empty() {
                return Err(format!("never confirmed on channel {channel}: {open:?}"));
            }
        }
        for (identity, message) in &self.messages {
            let unroutable = message.queues.as_ref().is_some_and(Vec::is_empty);
            let open = self.fate(identity.publisher) == Fate::Open;
            if open && unroutable && message.mandatory && !message.returned {
                return Err(format!("never returned: {identity:?}"));
            }
        }
        Ok(())
    }

    /// All clients have left and all lasting queues have been emptied.
    ///
    /// # Errors
    /// If messages are lost.
    pub fn check_all_accounted(&mut self) -> Result<(), String> {
        for ((identity, queue), place) in &self.copies {
            if matches!(place, Place::Settled(_) | Place::Consumed | Place::Doubtful | Place::Gone)
            {
                continue;
            }
            let confirmed = self.messages.get(identity).is_some_and(|message| message.confirmed);
            if !confirmed && self.fate(identity.publisher) == Fate::Broken {
                continue;
            }
            if self.facts(*queue).lossy {
                self.lost_by_contract += 1;
                continue;
            }
            return Err(format!("lost: {identity:?} of queue {queue}, last {place:?}"));
        }
        Ok(())
    }

    /// Messages published, deliveries checked, and messages lost to clients that left without
    /// acknowledging anything.
    pub fn totals(&self) -> (usize, u64, u64) {
        (self.messages.len(), self.deliveries, self.lost_by_contract)
    }

    fn fate(&self, channel: ChannelUid) -> Fate {
        self.fates[channel as usize]
    }

    fn facts(&self, queue: usize) -> QueueFacts {
        self.queues.get(&queue).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: usize = 0;

    /// A published message, confirmed or not, in a durable queue or not.
    fn published(durable: bool, confirmed: bool) -> (Oracle, Identity) {
        let mut oracle = Oracle::of(|_| durable);
        let publisher = oracle.open_channel();
        let identity = Identity { publisher, sequence: 1 };
        oracle.published(identity, Some(&[QUEUE]), false, true);
        if confirmed {
            oracle.confirmed(publisher, 1, false).unwrap();
        }
        (oracle, identity)
    }

    /// Delivers the message to a new channel.
    fn deliver(
        oracle: &mut Oracle,
        identity: Identity,
        redelivered: bool,
    ) -> Result<ChannelUid, String> {
        let channel = oracle.open_channel();
        let (queue, consumer, no_ack) = (QUEUE, 1, false);
        let delivered = Delivered { queue, identity, redelivered, channel, consumer, no_ack };
        oracle.delivered(delivered).map(|()| channel)
    }

    #[test]
    fn a_confirmed_message_that_a_crash_loses_is_missed() {
        let (mut oracle, identity) = published(true, true);
        oracle.crashed();
        assert!(oracle.check_all_accounted().is_err());
        oracle.crashed();
        let channel = deliver(&mut oracle, identity, true).unwrap();
        oracle.settled(QUEUE, identity, channel, Settlement::Done);
        oracle.check_all_accounted().unwrap();
    }

    #[test]
    fn an_unconfirmed_message_may_be_lost_or_come_back_but_then_stays() {
        let (mut oracle, identity) = published(true, false);
        oracle.crashed();
        oracle.check_all_accounted().unwrap();
        deliver(&mut oracle, identity, true).unwrap();
        oracle.crashed();
        assert!(oracle.check_all_accounted().is_err());
    }

    #[test]
    fn what_comes_back_from_a_crash_without_the_flag_is_a_lie() {
        for delivered_before in [false, true] {
            let (mut oracle, identity) = published(true, true);
            if delivered_before {
                deliver(&mut oracle, identity, false).unwrap();
            }
            oracle.crashed();
            assert!(deliver(&mut oracle, identity, false).is_err());
        }
    }

    #[test]
    fn nothing_comes_back_from_a_queue_that_is_not_durable() {
        let (mut oracle, identity) = published(false, true);
        oracle.crashed();
        oracle.check_all_accounted().unwrap();
        assert!(deliver(&mut oracle, identity, true).is_err());
    }

    #[test]
    fn an_acknowledged_message_may_come_back_until_that_is_durable() {
        for durable in [false, true] {
            let (mut oracle, identity) = published(true, true);
            let channel = deliver(&mut oracle, identity, false).unwrap();
            oracle.settled(QUEUE, identity, channel, Settlement::Done);
            if durable {
                oracle.all_durable();
            }
            oracle.crashed();
            assert_eq!(deliver(&mut oracle, identity, true).is_err(), durable);
        }
    }

    #[test]
    fn what_a_clean_stop_leaves_is_all_there_and_flagged_only_if_it_was_given_out() {
        for delivered_before in [false, true] {
            let after_stop = || {
                let (mut oracle, identity) = published(true, true);
                if delivered_before {
                    let channel = deliver(&mut oracle, identity, false).unwrap();
                    oracle.break_channel(channel);
                }
                oracle.stopped();
                (oracle, identity)
            };
            let (mut oracle, identity) = after_stop();
            assert!(oracle.check_all_accounted().is_err());
            assert!(deliver(&mut oracle, identity, !delivered_before).is_err());
            let (mut oracle, identity) = after_stop();
            deliver(&mut oracle, identity, delivered_before).unwrap();
        }
        let (mut oracle, identity) = published(false, true);
        oracle.stopped();
        assert!(deliver(&mut oracle, identity, false).is_err());
    }

    #[test]
    fn what_a_crash_leaves_comes_in_the_old_order() {
        let mut oracle = Oracle::of(|_| true);
        let publisher = oracle.open_channel();
        for sequence in 1..=2 {
            let identity = Identity { publisher, sequence };
            oracle.published(identity, Some(&[QUEUE]), false, true);
            oracle.confirmed(publisher, sequence, false).unwrap();
        }
        oracle.crashed();
        let channel = oracle.open_channel();
        let mut deliver = |sequence| {
            let identity = Identity { publisher, sequence };
            let (queue, consumer, no_ack, redelivered) = (QUEUE, 1, false, true);
            let delivered = Delivered { queue, identity, redelivered, channel, consumer, no_ack };
            oracle.delivered(delivered)
        };
        deliver(2).unwrap();
        assert!(deliver(1).is_err());
    }
}

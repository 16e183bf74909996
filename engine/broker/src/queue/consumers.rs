//! The consumers of a queue, and which of them can take a message right now.

use std::collections::VecDeque;

use crate::id::{ChannelKey, ConsumerKey, Map, seeded_map};
use crate::queue::terms::{Signal, Subscription};

use super::terms::Holder;

/// Consumers and getters of one queue.
///
/// A holder stays in the table until its last delivery is settled, also after `basic.cancel`.
/// A consumer stands in the ring of its priority exactly while it has credit, is not stopped,
/// and is not waiting for a grant.
#[derive(Debug)]
pub struct Consumers {
    holders: Vec<Option<HolderState>>,
    vacant: Vec<u32>,
    by_consumer: Map<ConsumerKey, u32>,
    getters: Map<ChannelKey, u32>,
    /// Highest priority first.
    rings: Vec<(i32, VecDeque<u32>)>,
    active: usize,
    /// A consumer was added at least once: before that, auto-delete does not apply.
    pub had_consumer: bool,
}

/// Bits of [`HolderState::stopped`].
const STOPPED_HERE: u8 = 1;
const STOPPED_BY_CHANNEL: u8 = 2;

#[derive(Debug)]
struct HolderState {
    channel: ChannelKey,
    /// `None` for the deliveries of `basic.get`.
    subscription: Option<Subscription>,
    unsettled: u32,
    active: bool,
    in_ring: bool,
    stopped: u8,
    grants: u32,
    asked: bool,
}

/// A consumer that can take a message.
#[derive(Clone, Copy, Debug)]
pub struct Taker {
    /// Its index in the table; [`Consumers::key`] names the consumer.
    pub holder: Holder,
    /// The client will not acknowledge the deliveries.
    pub no_ack: bool,
    /// Taking a message uses up a grant of the channel-wide limit.
    pub granted: bool,
    /// The only consumer in turn, without limits: a delivery changes neither its credit nor the
    /// turn.
    unaffected: bool,
}

/// The consumer whose turn it is.
#[derive(Clone, Copy, Debug)]
pub enum Next {
    /// This one can take a message.
    Take(Taker),
    /// This one can take a message once its channel grants it one.
    AskGrant(Taker),
    /// No consumer can take a message.
    Nobody,
}

impl Default for Consumers {
    fn default() -> Self {
        Self {
            holders: Vec::new(),
            vacant: Vec::new(),
            // The broker makes the keys, so no client can choose colliding ones: no seed is needed.
            by_consumer: seeded_map(0),
            getters: seeded_map(0),
            rings: Vec::new(),
            active: 0,
            had_consumer: false,
        }
    }
}

impl HolderState {
    /// `no_ack`, and whether each delivery needs a grant.
    #[inline(always)]
    fn terms(&self) -> (bool, bool) {
        self.subscription.map_or((false, false), |terms| (terms.no_ack, terms.limited))
    }

    #[inline(always)]
    fn has_credit(&self) -> bool {
        self.active
            && self.stopped == 0
            && self.subscription.is_some_and(|subscription| {
                subscription.no_ack
                    || subscription.prefetch == 0
                    || self.unsettled < u32::from(subscription.prefetch)
            })
    }
}

impl Consumers {
    /// Adds a consumer.
    ///
    /// # Errors When the queue has an exclusive consumer, or has consumers and this one asks to be
    /// exclusive.
    pub fn add(&mut self, subscription: Subscription) -> Result<(), ExclusiveUse> {
        let taken = self.active > 0;
        if taken && (subscription.exclusive || self.exclusive_use()) {
            return Err(ExclusiveUse);
        }
        let holder = self.occupy(HolderState {
            channel: subscription.consumer.channel,
            subscription: Some(subscription),
            unsettled: 0,
            active: true,
            in_ring: false,
            stopped: 0,
            grants: 0,
            asked: false,
        });
        self.by_consumer.insert(subscription.consumer, holder);
        self.active += 1;
        self.had_consumer = true;
        self.enter_ring(holder);
        Ok(())
    }

    /// How many consumers there are, without cancelled ones.
    pub fn count(&self) -> usize {
        self.active
    }

    /// The next consumer in turn.
    #[inline(always)]
    pub fn next(&mut self) -> Next {
        for (_, ring) in &mut self.rings {
            while let Some(&place) = ring.front() {
                // A consumer that was stopped is still in the ring; it leaves when its turn comes.
                let holder = self.holders[place as usize].as_ref();
                let Some(holder) = holder.filter(|holder| holder.has_credit()) else {
                    ring.pop_front();
                    leave_ring(&mut self.holders, place);
                    continue;
                };
                let (no_ack, granted) = holder.terms();
                let unaffected = no_ack && !granted && ring.len() == 1;
                let taker = Taker { holder: Holder(place), no_ack, granted, unaffected };
                if granted && holder.grants == 0 {
                    return Next::AskGrant(taker);
                }
                return Next::Take(taker);
            }
        }
        Next::Nobody
    }

    /// The consumer that a taker is.
    #[inline(always)]
    pub fn key(&self, Holder(place): Holder) -> ConsumerKey {
        let holder = self.holders[place as usize].as_ref();
        let subscription = holder.and_then(|holder| holder.subscription.as_ref());
        subscription.map_or_else(ConsumerKey::default, |subscription| subscription.consumer)
    }

    /// How many messages the consumer that [`Self::next`] offered may take before another one's
    /// turn comes or its credit ends.
    #[inline]
    pub fn in_a_row(&self, taker: &Taker) -> usize {
        if taker.unaffected {
            return usize::MAX;
        }
        let holder = self.holders[taker.holder.0 as usize].as_ref();
        let Some((holder, terms)) = holder.and_then(|holder| Some((holder, holder.subscription?)))
        else {
            return 1;
        };
        let ring = self.rings.iter().find(|(level, _)| *level == terms.priority);
        if taker.granted || ring.is_none_or(|(_, ring)| ring.len() > 1) {
            return 1;
        }
        if taker.no_ack || terms.prefetch == 0 {
            return usize::MAX;
        }
        (u32::from(terms.prefetch) - holder.unsettled) as usize
    }

    /// Counts `count` deliveries, at most [`Self::in_a_row`], and passes the turn on.
    #[inline(always)]
    pub fn took_many(&mut self, taker: &Taker, count: u32) {
        if !taker.unaffected {
            self.turn_on(*taker, count);
        }
    }

    #[inline(never)]
    fn turn_on(&mut self, taker: Taker, count: u32) {
        let Holder(place) = taker.holder;
        let Some(holder) = &mut self.holders[place as usize] else {
            return;
        };
        let Some(subscription) = holder.subscription else {
            return;
        };
        holder.unsettled += if taker.no_ack { 0 } else { count };
        holder.grants -= if taker.granted { count } else { 0 };
        let stays = holder.has_credit();
        holder.in_ring = stays;
        let ring = self.rings.iter_mut().find(|(level, _)| *level == subscription.priority);
        if let Some((_, ring)) = ring {
            // A lone consumer that stays is in front and at the back already.
            if !stays {
                ring.pop_front();
            } else if ring.len() > 1 {
                ring.rotate_left(1);
            }
        }
    }

    /// The channel granted a delivery to the consumer in front without delay.
    pub fn granted(&mut self, taker: &Taker) {
        if let Some(holder) = &mut self.holders[taker.holder.0 as usize] {
            holder.grants += 1;
        }
    }

    /// The consumer in front has to wait for a grant: the turn goes on without it.
    pub fn wait_for_grant(&mut self, taker: &Taker) {
        let Holder(place) = taker.holder;
        let Some(holder) = &mut self.holders[place as usize] else { return };
        holder.asked = true;
        holder.in_ring = false;
        let priority = holder.subscription.map_or(0, |subscription| subscription.priority);
        if let Some((_, ring)) = self.rings.iter_mut().find(|(level, _)| *level == priority) {
            ring.pop_front();
        }
    }

    /// Counts a message given to `basic.get` that the client has to settle.
    pub fn got(&mut self, channel: ChannelKey) -> Holder {
        let place = if let Some(place) = self.getters.get(&channel) {
            *place
        } else {
            let place = self.occupy(HolderState {
                channel,
                subscription: None,
                unsettled: 0,
                active: false,
                in_ring: false,
                stopped: 0,
                grants: 0,
                asked: false,
            });
            self.getters.insert(channel, place);
            place
        };
        if let Some(holder) = &mut self.holders[place as usize] {
            holder.unsettled += 1;
        }
        Holder(place)
    }

    /// Counts deliveries that were settled or requeued.
    #[inline]
    pub fn settled(&mut self, Holder(place): Holder, count: u32) {
        let Some(holder) = self.holders[place as usize].as_mut() else {
            return;
        };
        holder.unsettled -= count;
        if !holder.active {
            self.forget_if_done(place);
        } else if !holder.in_ring {
            self.enter_ring(place);
        }
    }

    /// The local socket or mesh lane of the consumer is full.
    pub fn stop_here(&mut self, Holder(place): Holder) {
        if let Some(holder) = &mut self.holders[place as usize] {
            holder.stopped |= STOPPED_HERE;
        }
    }

    /// The local socket or mesh lane of the consumer has room again.
    pub fn start_here(&mut self, key: &ConsumerKey) {
        if let Some(place) = self.by_consumer.get(key).copied() {
            if let Some(holder) = &mut self.holders[place as usize] {
                holder.stopped &= !STOPPED_HERE;
            }
            self.enter_ring(place);
        }
    }

    /// Applies a signal of the consumer's channel. True for a grant: if the queue has no message
    /// for it, the caller takes it back with [`Self::return_grants`].
    pub fn signal(&mut self, key: &ConsumerKey, signal: Signal) -> bool {
        let Some(place) = self.by_consumer.get(key).copied() else {
            return false;
        };
        let Some(holder) = &mut self.holders[place as usize] else {
            return false;
        };
        match signal {
            Signal::Stop => holder.stopped |= STOPPED_BY_CHANNEL,
            Signal::Start => holder.stopped &= !STOPPED_BY_CHANNEL,
            Signal::Limited(limited) => {
                if let Some(subscription) = &mut holder.subscription {
                    subscription.limited = limited;
                }
                holder.asked = false;
            }
            Signal::Grant => {
                holder.grants += 1;
                holder.asked = false;
            }
        }
        self.enter_ring(place);
        signal == Signal::Grant
    }

    /// Takes back the unused grants of a consumer for which no message waits.
    pub fn return_grants(&mut self, key: &ConsumerKey) -> u32 {
        let Some(place) = self.by_consumer.get(key).copied() else {
            return 0;
        };
        let Some(holder) = &mut self.holders[place as usize] else {
            return 0;
        };
        std::mem::take(&mut holder.grants)
    }

    /// Ends a consumer; its unsettled deliveries stay valid. False if there is none of this key.
    pub fn cancel(&mut self, key: &ConsumerKey) -> bool {
        let Some(place) = self.by_consumer.remove(key) else {
            return false;
        };
        self.active -= 1;
        if let Some(holder) = &mut self.holders[place as usize] {
            holder.active = false;
            let priority = holder.subscription.map_or(0, |subscription| subscription.priority);
            if std::mem::take(&mut holder.in_ring)
                && let Some((_, ring)) = self.rings.iter_mut().find(|(level, _)| *level == priority)
            {
                ring.retain(|other| *other != place);
            }
        }
        self.forget_if_done(place);
        true
    }

    /// All consumers and getters of a channel, for its end.
    pub fn of_channel(&self, channel: ChannelKey) -> (Vec<ConsumerKey>, Vec<Holder>) {
        let mut keys = Vec::new();
        let mut holders = Vec::new();
        for (place, holder) in self.holders.iter().enumerate() {
            let Some(holder) = holder.as_ref().filter(|holder| holder.channel == channel) else {
                continue;
            };
            holders.push(Holder(place as u32));
            if holder.active {
                keys.extend(holder.subscription.map(|subscription| subscription.consumer));
            }
        }
        (keys, holders)
    }

    /// The channels of all holders; one may come more than once.
    pub fn channels(&self) -> Vec<ChannelKey> {
        self.holders.iter().flatten().map(|holder| holder.channel).collect()
    }

    /// All consumers that are not cancelled.
    pub fn keys(&self) -> Vec<ConsumerKey> {
        let holders = self.holders.iter().flatten().filter(|holder| holder.active);
        holders.filter_map(|holder| Some(holder.subscription?.consumer)).collect()
    }

    fn exclusive_use(&self) -> bool {
        let holders = self.holders.iter().flatten().filter(|holder| holder.active);
        holders.filter_map(|holder| holder.subscription).any(|subscription| subscription.exclusive)
    }

    fn occupy(&mut self, holder: HolderState) -> u32 {
        if let Some(place) = self.vacant.pop() {
            self.holders[place as usize] = Some(holder);
            return place;
        }
        self.holders.push(Some(holder));
        self.holders.len() as u32 - 1
    }

    fn forget_if_done(&mut self, place: u32) {
        let done = self.holders[place as usize]
            .as_ref()
            .filter(|holder| !holder.active && holder.unsettled == 0);
        let Some(holder) = done else { return };
        if holder.subscription.is_none() {
            self.getters.remove(&holder.channel);
        }
        self.holders[place as usize] = None;
        self.vacant.push(place);
    }

    fn enter_ring(&mut self, place: u32) {
        let Some(holder) = &mut self.holders[place as usize] else {
            return;
        };
        if holder.in_ring || holder.asked || !holder.has_credit() {
            return;
        }
        let priority = holder.subscription.map_or(0, |subscription| subscription.priority);
        holder.in_ring = true;
        match self.rings.binary_search_by(|(level, _)| priority.cmp(level)) {
            Ok(index) => self.rings[index].1.push_back(place),
            Err(index) => self.rings.insert(index, (priority, VecDeque::from([place]))),
        }
    }
}

#[cold]
fn leave_ring(holders: &mut [Option<HolderState>], place: u32) {
    if let Some(holder) = &mut holders[place as usize] {
        holder.in_ring = false;
    }
}

/// A queue with an exclusive consumer was to get another one, or the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExclusiveUse;

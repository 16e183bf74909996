//! Mail between threads: a bounded queue per ordered pair and lane, and the calls that go with it.
//!
//! ```text
//!            to 0        to 1        to 2         each cell: work lane │ reply lane,
//! from 0      –        [ W │ R ]   [ W │ R ]      one sender, one receiver
//! from 1   [ W │ R ]      –        [ W │ R ]
//! from 2   [ W │ R ]   [ W │ R ]      –
//! ```
//!
//! Two lanes, so that a receiver whose work lanes are full can always be answered: a reply never
//! waits behind work. One queue per pair, so that one noisy sender fills only its own room. A
//! queue's item is meant to be a batch: the price of a push is then paid once per turn and
//! destination.

use std::marker::PhantomData;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use crate::sleep::Sleeping;

/// The two queues of each ordered pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// What asks for something; the sender holds credit for it.
    Work,
    /// What answers (acks, confirms, releases, credit); sized so that it cannot fill.
    Reply,
}

/// Both lanes, in the order in which a receiver should look: replies free what work needs.
const LANES: [Lane; 2] = [Lane::Reply, Lane::Work];

struct Shared<T> {
    participants: usize,
    /// `(from * participants + to) * 2 + lane`.
    queues: Vec<ArrayQueue<T>>,
    sleeping: Vec<Sleeping>,
}

impl<T> Shared<T> {
    fn queue(&self, from: usize, to: usize, lane: Lane) -> &ArrayQueue<T> {
        assert!(from < self.participants && to < self.participants && from != to, "no such pair");
        &self.queues[(from * self.participants + to) * 2 + lane as usize]
    }
}

/// Makes the endpoints; see [`Mesh::new`].
pub struct Mesh<T>(PhantomData<T>);

impl<T: Send> Mesh<T> {
    /// One endpoint per participant, to be moved to its thread. Each lane of each pair holds at
    /// most `lane_capacity_batches` (at least one) items. All of it is allocated here: twice the
    /// square of `participants`, times the capacity, times the size of an item and 8 bytes.
    #[allow(clippy::new_ret_no_self, reason = "a mesh is only ever seen from its endpoints")]
    pub fn new(participants: usize, lane_capacity_batches: usize) -> Vec<Endpoint<T>> {
        assert!(participants > 0 && lane_capacity_batches > 0);
        let queues = (0..participants * participants * 2)
            .map(|index| {
                let (from, to) = (index / 2 / participants, index / 2 % participants);
                // Nobody mails himself; the place only keeps the arithmetic simple.
                ArrayQueue::new(if from == to { 1 } else { lane_capacity_batches })
            })
            .collect();
        let sleeping = (0..participants).map(|_| Sleeping::new()).collect();
        let shared = Arc::new(Shared { participants, queues, sleeping });
        (0..participants).map(|id| Endpoint { id, shared: Arc::clone(&shared) }).collect()
    }
}

/// One participant's view of the mesh. Panics on a participant that does not exist and on itself.
pub struct Endpoint<T> {
    id: usize,
    shared: Arc<Shared<T>>,
}

impl<T: Send> Endpoint<T> {
    /// This participant's number, `0..participants()`.
    pub fn id(&self) -> usize {
        self.id
    }

    /// How many participants there are, this one included.
    pub fn participants(&self) -> usize {
        self.shared.participants
    }

    /// Puts an item into a lane.
    ///
    /// # Errors
    /// Gives the item back when the lane is full. Never blocks.
    pub fn try_send(&self, to: usize, lane: Lane, item: T) -> Result<(), T> {
        self.shared.queue(self.id, to, lane).push(item)
    }

    /// True when the next [`Endpoint::try_send`] there will succeed (we are its only sender).
    pub fn has_room(&self, to: usize, lane: Lane) -> bool {
        !self.shared.queue(self.id, to, lane).is_full()
    }

    /// Takes the oldest item of a lane.
    pub fn receive(&self, from: usize, lane: Lane) -> Option<T> {
        self.shared.queue(from, self.id, lane).pop()
    }

    /// True when some lane holds something for us.
    pub fn has_mail(&self) -> bool {
        (0..self.shared.participants).filter(|from| *from != self.id).any(|from| {
            LANES.iter().any(|lane| !self.shared.queue(from, self.id, *lane).is_empty())
        })
    }

    /// Call before a turn that may sleep. False: mail is there, do not sleep. After true, every
    /// sender is told by [`Endpoint::needs_wake`] to wake us, until [`Endpoint::awake`].
    pub fn prepare_sleep(&self) -> bool {
        self.shared.sleeping[self.id].prepare(|| self.has_mail())
    }

    /// Call after such a turn: senders need not wake us any more.
    pub fn awake(&self) {
        self.shared.sleeping[self.id].awake();
    }

    /// Call once per turn and destination after the last [`Endpoint::try_send`] to it: true when
    /// the destination sleeps and the caller has to wake it.
    #[must_use = "a destination that is not woken sleeps on"]
    pub fn needs_wake(&self, to: usize) -> bool {
        self.shared.sleeping[to].needs_wake()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_separate_bounded_and_in_order() {
        let endpoints = Mesh::<u32>::new(3, 2);
        assert_eq!(endpoints.iter().map(Endpoint::id).collect::<Vec<_>>(), [0, 1, 2]);
        let (a, b, c) = (&endpoints[0], &endpoints[1], &endpoints[2]);
        assert!(!b.has_mail());
        assert_eq!(a.try_send(1, Lane::Work, 1), Ok(()));
        assert!(a.has_room(1, Lane::Work));
        assert_eq!(a.try_send(1, Lane::Work, 2), Ok(()));
        assert!(!a.has_room(1, Lane::Work));
        assert_eq!(a.try_send(1, Lane::Work, 3), Err(3));
        assert_eq!(a.try_send(1, Lane::Reply, 4), Ok(()));
        assert_eq!(c.try_send(1, Lane::Work, 5), Ok(()));
        assert!(b.has_mail() && !a.has_mail() && !c.has_mail());
        assert_eq!(b.receive(0, Lane::Reply), Some(4));
        assert_eq!(b.receive(0, Lane::Work), Some(1));
        assert_eq!(b.receive(0, Lane::Work), Some(2));
        assert_eq!(b.receive(0, Lane::Work), None);
        assert_eq!(b.receive(2, Lane::Work), Some(5));
        assert!(!b.has_mail());
    }

    #[test]
    fn a_sleeper_is_woken_once() {
        let endpoints = Mesh::<u32>::new(3, 2);
        assert!(!endpoints[0].needs_wake(1), "awake");
        assert!(endpoints[1].prepare_sleep());
        endpoints[0].try_send(1, Lane::Work, 1).unwrap();
        assert!(endpoints[0].needs_wake(1));
        endpoints[2].try_send(1, Lane::Work, 1).unwrap();
        assert!(!endpoints[2].needs_wake(1), "somebody else did");
        endpoints[1].awake();
        assert!(!endpoints[1].prepare_sleep(), "mail is there");
        assert!(!endpoints[0].needs_wake(1));
    }

    #[test]
    #[should_panic(expected = "no such pair")]
    fn nobody_mails_himself() {
        let endpoints = Mesh::<u32>::new(2, 2);
        let _ = endpoints[0].try_send(0, Lane::Work, 1);
    }
}

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
//!
//! A third queue takes emptied batches the other way. Without it a shard that only sends would
//! allocate each batch, and one that only receives would free memory of another thread. It wakes no
//! thread, and a batch that finds it full is dropped.

use std::marker::PhantomData;
use std::sync::Arc;

#[cfg(not(all(loom, test)))]
use crossbeam_queue::ArrayQueue;

#[cfg(all(loom, test))]
use crate::loom_queue::ArrayQueue;
use crate::sleep::Sleeping;

/// The two queues of each ordered pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Requests; the sender holds credit for them.
    Work,
    /// Answers (acks, confirms, releases, credit); sized so that it cannot fill.
    Reply,
}

/// Emptied items on their way back to one sender: as many as a lane of the usual size holds. More
/// would only be cold memory.
const RETURNS_MAX: usize = 32;

/// Both lanes, in the order in which a receiver should look: replies free resources for work.
const LANES: [Lane; 2] = [Lane::Reply, Lane::Work];

struct Shared<T> {
    participants: usize,
    /// `(from * participants + to) * 2 + lane`.
    queues: Vec<ArrayQueue<T>>,
    /// `from * participants + to`.
    returns: Vec<ArrayQueue<T>>,
    sleeping: Vec<Sleeping>,
}

impl<T> Shared<T> {
    fn queue(&self, from: usize, to: usize, lane: Lane) -> &ArrayQueue<T> {
        assert!(from < self.participants && to < self.participants && from != to, "no such pair");
        &self.queues[(from * self.participants + to) * 2 + lane as usize]
    }

    fn returns(&self, from: usize, to: usize) -> &ArrayQueue<T> {
        assert!(from < self.participants && to < self.participants && from != to, "no such pair");
        &self.returns[from * self.participants + to]
    }
}

/// Makes the endpoints; see [`Mesh::new`].
pub struct Mesh<T>(PhantomData<T>);

impl<T: Send> Mesh<T> {
    /// One endpoint per participant, to be moved to its thread. Each lane of each pair holds at
    /// most `lane_capacity_batches` (at least one) items. All of it is allocated here: the square
    /// of `participants`, times twice the capacity and 32 for returns, times the size of an item
    /// and 8 bytes.
    #[allow(clippy::new_ret_no_self, reason = "a mesh is only ever seen from its endpoints")]
    pub fn new(participants: usize, lane_capacity_batches: usize) -> Vec<Endpoint<T>> {
        assert!(participants > 0 && lane_capacity_batches > 0);
        // No participant mails itself; the unused places keep the index arithmetic simple.
        let queue = |pair: usize, capacity| {
            let is_own = pair / participants == pair % participants;
            ArrayQueue::new(if is_own { 1 } else { capacity })
        };
        let pairs = participants * participants;
        let queues = (0..pairs * 2).map(|index| queue(index / 2, lane_capacity_batches)).collect();
        let returns = (0..pairs).map(|pair| queue(pair, RETURNS_MAX)).collect();
        let sleeping = (0..participants).map(|_| Sleeping::new()).collect();
        let shared = Arc::new(Shared { participants, queues, returns, sleeping });
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
        take(self.shared.queue(from, self.id, lane))
    }

    /// Gives an emptied item back to its sender, for [`Endpoint::take_back`]; drops it if enough of
    /// them are on their way.
    pub fn give_back(&self, from: usize, emptied: T) {
        // An item that does not fit is dropped.
        let _ = self.shared.returns(self.id, from).push(emptied);
    }

    /// Takes an item that was sent there and came back. Call it once for each item sent.
    pub fn take_back(&self, to: usize) -> Option<T> {
        take(self.shared.returns(to, self.id))
    }

    /// True when some lane holds something for us.
    pub fn has_mail(&self) -> bool {
        (0..self.shared.participants).filter(|from| *from != self.id).any(|from| {
            LANES.iter().any(|lane| !self.shared.queue(from, self.id, *lane).is_empty())
        })
    }

    /// Call before a turn that may sleep. False: mail is there, do not sleep. After true, and until
    /// [`Endpoint::awake`], [`Endpoint::needs_wake`] is true for one sender with new mail.
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

/// A pop that costs no fence while the queue is empty, as most queues are in most turns.
fn take<T>(queue: &ArrayQueue<T>) -> Option<T> {
    if queue.is_empty() { None } else { queue.pop() }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn emptied_items_go_back_and_stand_in_nobodys_way() {
        let endpoints = Mesh::<u32>::new(3, 2);
        let (a, b, c) = (&endpoints[0], &endpoints[1], &endpoints[2]);
        assert_eq!(a.take_back(1), None);
        for item in 0..100 {
            b.give_back(0, item);
        }
        assert!(!a.has_mail(), "nobody is called for what came back");
        assert_eq!(c.take_back(1), None);
        assert_eq!(b.take_back(0), None);
        let back: Vec<u32> = std::iter::from_fn(|| a.take_back(1)).collect();
        assert_eq!(back, (0..RETURNS_MAX as u32).collect::<Vec<_>>());
        assert_eq!(b.try_send(0, Lane::Reply, 1), Ok(()), "lanes are not what is full");
    }

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

#[cfg(all(loom, test))]
mod loom_tests {
    use loom::cell::Cell;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::thread;

    use super::*;

    /// Stands in for `MSG_RING`: how often each participant was woken.
    struct Doorbells(Vec<AtomicUsize>);

    impl Doorbells {
        fn new(participants: usize) -> Arc<Self> {
            Arc::new(Self((0..participants).map(|_| AtomicUsize::new(0)).collect()))
        }

        fn ring(&self, participant: usize) {
            self.0[participant].fetch_add(1, Ordering::Relaxed);
        }

        /// A sleeper with mail was woken once. A participant that was about to sleep may have been
        /// woken too, but not twice.
        fn check(&self, participant: usize, sleeps_on_mail: bool) {
            let rung = self.0[participant].load(Ordering::Relaxed);
            assert!(rung <= 1, "{participant} was woken {rung} times");
            assert!(rung == 1 || !sleeps_on_mail, "{participant} sleeps on its mail");
        }
    }

    /// An item that is written and read without atomics: loom fails where a lane does not order
    /// the one before the other.
    struct Item(Cell<u32>);

    impl Item {
        fn new(value: u32) -> Self {
            Self(Cell::new(value))
        }
    }

    /// The sender's half of a turn, as the driver has it.
    fn send(endpoint: &Endpoint<Item>, to: usize, items: &[(Lane, u32)], doorbells: &Doorbells) {
        for (lane, value) in items {
            assert!(endpoint.try_send(to, *lane, Item::new(*value)).is_ok(), "there is room");
        }
        if endpoint.needs_wake(to) {
            doorbells.ring(to);
        }
    }

    /// All received items, by sender and lane. Fails if an item came from another sender.
    fn receive(endpoint: &Endpoint<Item>, from: usize, lane: Lane, seen: &mut Vec<u32>) {
        while let Some(item) = endpoint.receive(from, lane) {
            seen.push(item.0.get());
            item.0.set(0);
            endpoint.give_back(from, item);
        }
    }

    fn two(capacity: usize) -> (Endpoint<Item>, Endpoint<Item>) {
        let mut endpoints = Mesh::new(2, capacity);
        let second = endpoints.pop().unwrap();
        (endpoints.pop().unwrap(), second)
    }

    /// The receiver's half of a turn: it sleeps only without mail, and later mail wakes it once.
    #[test]
    fn loom_mail_reaches_a_receiver_that_goes_to_sleep() {
        loom::model(|| {
            let (a, b) = two(2);
            let doorbells = Doorbells::new(2);
            let sender = {
                let doorbells = Arc::clone(&doorbells);
                thread::spawn(move || {
                    send(&a, 1, &[(Lane::Work, 1)], &doorbells);
                    send(&a, 1, &[(Lane::Work, 2), (Lane::Reply, 3)], &doorbells);
                })
            };
            let (mut work, mut reply) = (Vec::new(), Vec::new());
            receive(&b, 0, Lane::Work, &mut work);
            receive(&b, 0, Lane::Reply, &mut reply);
            let before = work.len() + reply.len();
            let sleeps = b.prepare_sleep();
            sender.join().unwrap();
            assert!(sleeps || b.has_mail(), "stayed up for nothing");
            // All mail is sent. A sleeper with mail left was woken, and none was woken twice.
            doorbells.check(1, sleeps && before < 3);
            b.awake();
            receive(&b, 0, Lane::Work, &mut work);
            receive(&b, 0, Lane::Reply, &mut reply);
            assert_eq!((work, reply), (vec![1, 2], vec![3]), "lost or out of order");
        });
    }

    /// A full lane refuses and loses nothing: retried items arrive in order, also around the end of
    /// its ring.
    #[test]
    fn loom_a_full_lane_keeps_order() {
        let mut model = loom::model::Builder::new();
        // Both wait in loops: without a bound the search does not end in reasonable time.
        model.preemption_bound = Some(3);
        model.check(|| {
            let (a, b) = two(1);
            let sender = thread::spawn(move || {
                for value in [1, 2] {
                    while !a.has_room(1, Lane::Work) {
                        thread::yield_now();
                    }
                    let sent = a.try_send(1, Lane::Work, Item::new(value));
                    assert!(sent.is_ok(), "we are the lane's only sender and saw room");
                }
            });
            let mut seen = Vec::new();
            while seen.len() < 2 {
                match b.receive(0, Lane::Work) {
                    Some(item) => seen.push(item.0.get()),
                    None => thread::yield_now(),
                }
            }
            sender.join().unwrap();
            assert_eq!(seen, [1, 2]);
        });
    }

    /// An item that comes back is empty, and no other thread has it.
    #[test]
    fn loom_returned_items_are_whole() {
        loom::model(|| {
            let (a, b) = two(2);
            let receiver = thread::spawn(move || {
                let mut seen = Vec::new();
                receive(&b, 0, Lane::Work, &mut seen);
                (b, seen)
            });
            let doorbells = Doorbells::new(2);
            send(&a, 1, &[(Lane::Work, 1), (Lane::Work, 2)], &doorbells);
            let mut back = 0;
            let mut take_back = |a: &Endpoint<Item>| {
                while let Some(item) = a.take_back(1) {
                    assert_eq!(item.0.get(), 0, "not emptied");
                    item.0.set(9);
                    back += 1;
                }
            };
            take_back(&a);
            let (b, mut seen) = receiver.join().unwrap();
            receive(&b, 0, Lane::Work, &mut seen);
            take_back(&a);
            assert_eq!((seen, back), (vec![1, 2], 2));
        });
    }

    /// Two participants mail each other and go to sleep: never do both sleep with mail waiting.
    #[test]
    fn loom_two_that_mail_each_other_do_not_both_sleep() {
        loom::model(|| {
            let (a, b) = two(1);
            let doorbells = Doorbells::new(2);
            let other = {
                let doorbells = Arc::clone(&doorbells);
                thread::spawn(move || {
                    send(&b, 0, &[(Lane::Reply, 2)], &doorbells);
                    let sleeps = b.prepare_sleep();
                    (b, sleeps)
                })
            };
            send(&a, 1, &[(Lane::Work, 1)], &doorbells);
            let a_sleeps = a.prepare_sleep();
            let (b, b_sleeps) = other.join().unwrap();
            for (endpoint, sleeps, id) in [(&a, a_sleeps, 0), (&b, b_sleeps, 1)] {
                assert!(endpoint.has_mail(), "nobody received anything");
                doorbells.check(id, sleeps);
            }
        });
    }

    /// Two senders at one sleeper: both see that it sleeps, one wakes it.
    #[test]
    fn loom_of_two_senders_one_wakes() {
        let mut model = loom::model::Builder::new();
        // Three threads: without a bound the search does not end in reasonable time.
        model.preemption_bound = Some(3);
        model.check(|| {
            let mut endpoints = Mesh::<Item>::new(3, 1);
            let (c, b, a) =
                (endpoints.pop().unwrap(), endpoints.pop().unwrap(), endpoints.pop().unwrap());
            let doorbells = Doorbells::new(3);
            let senders = [(b, 2), (c, 3)].map(|(endpoint, value)| {
                let doorbells = Arc::clone(&doorbells);
                thread::spawn(move || send(&endpoint, 0, &[(Lane::Work, value)], &doorbells))
            });
            let sleeps = a.prepare_sleep();
            for sender in senders {
                sender.join().unwrap();
            }
            doorbells.check(0, sleeps);
            let mut seen = Vec::new();
            receive(&a, 1, Lane::Work, &mut seen);
            receive(&a, 2, Lane::Work, &mut seen);
            assert_eq!(seen, [2, 3]);
        });
    }
}

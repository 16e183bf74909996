//! Receive buffers dropped on other threads, on their way back to their ring.
//!
//! The protocol is that of [`Sleeping`]: the first buffer that comes back wakes a ring that sleeps
//! while sockets wait for buffers. Flag and queue are on cache lines of their own, because every
//! thread that drops a buffer reads the flag and writes to the queue.

#[cfg(not(all(loom, test)))]
use crossbeam_queue::ArrayQueue;

#[cfg(all(loom, test))]
use crate::loom_queue::ArrayQueue;
use crate::sleep::Sleeping;

/// The way back of the buffers of one ring.
pub(crate) struct Returns {
    /// As many places as buffers, so a push always succeeds.
    queue: ArrayQueue<u16>,
    /// Set while the ring sleeps, or is about to, and sockets wait for buffers.
    starving: Sleeping,
}

impl Returns {
    pub(crate) fn new(buffer_count: u16) -> Self {
        let queue = ArrayQueue::new(usize::from(buffer_count));
        Self { queue, starving: Sleeping::new() }
    }

    /// Any thread: brings a buffer back. True if the caller has to wake the ring.
    #[must_use = "a ring that is not called sleeps on"]
    pub(crate) fn give_back(&self, index: u16) -> bool {
        let pushed = self.queue.push(index);
        debug_assert!(pushed.is_ok(), "a buffer came back twice");
        self.starving.needs_wake()
    }

    /// The ring's thread: takes a buffer that came back.
    pub(crate) fn take(&self) -> Option<u16> {
        if self.queue.is_empty() { None } else { self.queue.pop() }
    }

    /// The ring's thread, before it sleeps: the next buffer that comes back wakes it. False if one
    /// has come back already: do not sleep.
    pub(crate) fn starve(&self) -> bool {
        self.starving.prepare(|| !self.queue.is_empty())
    }

    /// The ring's thread, after it slept.
    pub(crate) fn stop_starving(&self) {
        self.starving.awake();
    }
}

#[cfg(all(loom, test))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::thread;

    use super::*;

    fn take_all(returns: &Returns) -> Vec<u16> {
        std::iter::from_fn(|| returns.take()).collect()
    }

    /// Each buffer comes back once, and a ring that slept for lack of one was woken once.
    fn run(droppers: u16, buffers_each: u16) {
        let returns = Arc::new(Returns::new(droppers * buffers_each));
        let doorbell = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..droppers)
            .map(|dropper| {
                let (returns, doorbell) = (Arc::clone(&returns), Arc::clone(&doorbell));
                thread::spawn(move || {
                    for buffer in 0..buffers_each {
                        if returns.give_back(dropper * buffers_each + buffer) {
                            doorbell.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        // The ring's turn, as in `turn.rs`: take what is there, then starve.
        let mut back = take_all(&returns);
        let expected = droppers * buffers_each;
        let missing = usize::from(expected) - back.len();
        let sleeps = missing > 0 && returns.starve();
        for dropper in threads {
            dropper.join().unwrap();
        }
        // A ring that did not sleep may still have been woken while it was about to.
        let called = doorbell.load(Ordering::Relaxed);
        assert!(called == 1 || !sleeps && called == 0, "called {called} times, sleeps: {sleeps}");
        returns.stop_starving();
        back.extend(take_all(&returns));
        back.sort_unstable();
        assert_eq!(back, (0..expected).collect::<Vec<_>>());
        assert!(!returns.give_back(0), "nobody starves any more");
    }

    #[test]
    fn loom_buffers_of_one_dropper_come_back() {
        loom::model(|| run(1, 2));
    }

    #[test]
    fn loom_buffers_of_two_droppers_come_back() {
        let mut model = loom::model::Builder::new();
        // Three threads: without a bound the search does not end in reasonable time.
        model.preemption_bound = Some(3);
        model.check(|| run(2, 1));
    }
}

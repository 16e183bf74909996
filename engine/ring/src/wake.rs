//! Waking a ring that sleeps in its turn.
//!
//! Between rings by `MSG_RING`, from other threads by eventfd. Measured on a busy 2-core virtual
//! machine with `examples/wake_cost.rs`, a wake in both ways: 44 µs against 46 µs when the other
//! side sleeps, 12.5 µs against 10.8 µs when it spins; the order stayed so in all runs, the
//! differences are near the noise. Not latency decides but system calls: the message goes with the
//! enter that the sender makes anyway, while the eventfd costs the sender a `write(2)` and the
//! receiver one more operation to arm its read again. A message that the target cannot take (it is
//! short of memory) falls back to the eventfd, so that no wake is lost.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::kernel::{eventfd, ring_doorbell};

/// Wakes a ring from any thread, by its eventfd: one `write(2)` per call. For threads without a
/// ring, such as those of signals and of HTTP; a ring wakes another one with
/// [`Ring::wake`](crate::Ring::wake).
#[derive(Debug, Clone)]
pub struct Waker {
    pub(crate) doorbell: Arc<OwnedFd>,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { doorbell: Arc::new(eventfd()?) })
    }

    /// Makes the ring's current or next turn report
    /// [`Completion::Woken`](crate::Completion::Woken). Several wakes before that turn are reported
    /// as one.
    pub fn wake(&self) {
        ring_doorbell(self.doorbell.as_fd());
    }
}

/// A ring as the receiver of wakes. Cheap to clone and to send to other threads.
#[derive(Debug, Clone)]
pub struct WakeTarget {
    pub(crate) waker: Waker,
    /// A second descriptor of the ring, so that its number cannot be reused for another file.
    pub(crate) ring: Arc<OwnedFd>,
}

impl WakeTarget {
    /// A waker of the same ring for threads without a ring.
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

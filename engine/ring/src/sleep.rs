//! Going to sleep without losing a wake (Seastar's protocol, `reactor.cc`
//! `try_enter_interrupt_mode`).
//!
//! ```text
//!   receiver                          sender
//!   sleeping = true                   put mail into the inbox
//!   fence(SeqCst)                     fence(SeqCst)
//!   look into all inboxes             sleeping? take it (swap false) and wake
//!   empty: sleep, else: stay
//! ```
//!
//! One of the two fences comes first in the single total order: either the sender sees `sleeping`,
//! or the receiver sees the mail. The tests at the end model this with loom, which tries every
//! interleaving that the memory model allows. So do those of `mesh.rs` and `returns.rs`, which
//! build on it. They need a separate build:
//!
//! ```sh
//! RUSTFLAGS="--cfg loom" cargo test -p leveret-ring --lib --release --target-dir target/loom loom_
//! ```

#[cfg(all(loom, test))]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(all(loom, test)))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Whether one participant sleeps. Alone on its cache lines (two, because the prefetcher takes
/// pairs): every sender reads it each turn.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Sleeping(AtomicBool);

impl Sleeping {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// The receiver's side: true when it may sleep, false when `has_mail`.
    pub(crate) fn prepare(&self, has_mail: impl FnOnce() -> bool) -> bool {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if has_mail() {
            self.0.store(false, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// The receiver is awake again, for any reason.
    pub(crate) fn awake(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// The sender's side, after its mail is in the inbox: true when it has to wake the receiver. Of
    /// several senders one gets true.
    pub(crate) fn needs_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::AcqRel)
    }
}

#[cfg(all(loom, test))]
mod tests {
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;

    use super::*;

    /// One receiver with a doorbell and an inbox per sender, all with the weakest orderings: only
    /// the fences of the protocol may make it correct.
    struct World {
        sleeping: Sleeping,
        inboxes: Vec<AtomicUsize>,
        doorbell: AtomicUsize,
    }

    fn run(senders: usize, mails: usize) {
        let world = Arc::new(World {
            sleeping: Sleeping::new(),
            inboxes: (0..senders).map(|_| AtomicUsize::new(0)).collect(),
            doorbell: AtomicUsize::new(0),
        });
        let threads: Vec<_> = (0..senders)
            .map(|sender| {
                let world = Arc::clone(&world);
                loom::thread::spawn(move || {
                    for _ in 0..mails {
                        world.inboxes[sender].fetch_add(1, Ordering::Relaxed);
                        if world.sleeping.needs_wake() {
                            world.doorbell.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        let seen = |world: &World| -> usize {
            world.inboxes.iter().map(|inbox| inbox.load(Ordering::Relaxed)).sum()
        };
        let before = std::cell::Cell::new(0);
        let slept = world.sleeping.prepare(|| {
            before.set(seen(&world));
            before.get() > 0
        });
        for thread in threads {
            thread.join().unwrap();
        }
        let rung = world.doorbell.load(Ordering::Relaxed);
        // All mail is there now. A receiver that went to sleep must have been woken exactly once.
        if slept {
            assert_eq!(rung, 1, "a lost or a double wake");
        } else {
            assert!(before.get() > 0, "stayed up for nothing");
        }
        world.sleeping.awake();
    }

    #[test]
    fn loom_one_sender_is_never_missed() {
        loom::model(|| run(1, 2));
    }

    #[test]
    fn loom_two_senders_wake_once() {
        loom::model(|| run(2, 1));
    }
}

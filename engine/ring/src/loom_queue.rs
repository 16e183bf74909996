//! `crossbeam_queue::ArrayQueue` for loom: the same algorithm with the same orderings, on loom's
//! atomics, because loom only sees those. Written after version 0.3.14 (`src/array_queue.rs`),
//! without its backoff and the methods that are not used here.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicUsize, Ordering, fence};
use loom::thread::yield_now;

struct Slot<T> {
    stamp: AtomicUsize,
    value: UnsafeCell<Option<T>>,
}

pub(crate) struct ArrayQueue<T> {
    head: AtomicUsize,
    tail: AtomicUsize,
    slots: Box<[Slot<T>]>,
    one_lap: usize,
}

// SAFETY: only the thread that moved `tail` over a slot touches its value, until the stamp shows
// that it is written; after that, only the thread that moved `head` over it. Loom checks this.
unsafe impl<T: Send> Sync for ArrayQueue<T> {}
// SAFETY: as above; it owns its values.
unsafe impl<T: Send> Send for ArrayQueue<T> {}

impl<T> ArrayQueue<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        let slot = |index| Slot { stamp: AtomicUsize::new(index), value: UnsafeCell::new(None) };
        Self {
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            slots: (0..capacity).map(slot).collect(),
            one_lap: (capacity + 1).next_power_of_two(),
        }
    }

    /// The position after `position`.
    fn next(&self, position: usize) -> usize {
        let (index, lap) = (position & (self.one_lap - 1), position & !(self.one_lap - 1));
        if index + 1 < self.slots.len() { position + 1 } else { lap.wrapping_add(self.one_lap) }
    }

    fn slot(&self, position: usize) -> &Slot<T> {
        &self.slots[position & (self.one_lap - 1)]
    }

    pub(crate) fn push(&self, value: T) -> Result<(), T> {
        let mut tail = self.tail.load(Ordering::Relaxed);
        loop {
            let slot = self.slot(tail);
            let stamp = slot.stamp.load(Ordering::Acquire);
            if tail == stamp {
                let (seq_cst, relaxed) = (Ordering::SeqCst, Ordering::Relaxed);
                match self.tail.compare_exchange_weak(tail, self.next(tail), seq_cst, relaxed) {
                    Ok(_) => {
                        // SAFETY: the stamp shows that the slot is free, and the exchange gave it
                        // to this thread alone.
                        slot.value.with_mut(|place| unsafe { *place = Some(value) });
                        slot.stamp.store(tail + 1, Ordering::Release);
                        return Ok(());
                    }
                    Err(moved) => tail = moved,
                }
            } else if stamp.wrapping_add(self.one_lap) == tail + 1 {
                fence(Ordering::SeqCst);
                if self.head.load(Ordering::Relaxed).wrapping_add(self.one_lap) == tail {
                    return Err(value);
                }
                yield_now();
                tail = self.tail.load(Ordering::Relaxed);
            } else {
                yield_now();
                tail = self.tail.load(Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn pop(&self) -> Option<T> {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let slot = self.slot(head);
            let stamp = slot.stamp.load(Ordering::Acquire);
            if head + 1 == stamp {
                let (seq_cst, relaxed) = (Ordering::SeqCst, Ordering::Relaxed);
                match self.head.compare_exchange_weak(head, self.next(head), seq_cst, relaxed) {
                    Ok(_) => {
                        // SAFETY: the stamp shows that the slot is written, and the exchange gave
                        // it to this thread alone.
                        let value = slot.value.with_mut(|place| unsafe { (*place).take() });
                        slot.stamp.store(head.wrapping_add(self.one_lap), Ordering::Release);
                        return value;
                    }
                    Err(moved) => head = moved,
                }
            } else if stamp == head {
                fence(Ordering::SeqCst);
                if self.tail.load(Ordering::Relaxed) == head {
                    return None;
                }
                yield_now();
                head = self.head.load(Ordering::Relaxed);
            } else {
                yield_now();
                head = self.head.load(Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        let head = self.head.load(Ordering::SeqCst);
        self.tail.load(Ordering::SeqCst) == head
    }

    pub(crate) fn is_full(&self) -> bool {
        let tail = self.tail.load(Ordering::SeqCst);
        self.head.load(Ordering::SeqCst).wrapping_add(self.one_lap) == tail
    }
}

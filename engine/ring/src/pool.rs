//! The memory of the receive buffers, and the leases that hold them.
//!
//! ```text
//!            claim (completion)                    last slice dropped
//!  buffer ring ─────────────► Lease in a Bytes ─────────────┬──────────────┐
//!      ▲                                        home thread │  other thread│
//!      │                                              local list     return queue
//!      └───────────── republished once per turn ◄───────────┴──────────────┘
//! ```

use std::cell::UnsafeCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::kernel::{Mapping, ring_doorbell};
use crate::returns::Returns;

/// A number per thread that is never used twice, unlike an address or a kernel id.
fn thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

/// The slab of all receive buffers of one ring. Lives as long as the ring or any lease.
pub(crate) struct Pool {
    memory: Mapping,
    buffer_size_bytes: usize,
    buffer_count: u16,
    home: u64,
    /// Buffers dropped on the home thread. Touched by that thread only.
    local: Local,
    /// Buffers dropped elsewhere.
    returned: Returns,
    doorbell: Arc<OwnedFd>,
}

/// Alone on its cache lines: other threads read the neighbouring fields whenever they drop a
/// buffer.
#[repr(align(128))]
struct Local(UnsafeCell<Vec<u16>>);

// SAFETY: `local` is the only field that is not `Sync` by itself; `give_back` and `take_returned`
// touch it only after they compared the calling thread's number with `home`, and numbers are unique
// for the life of the process.
unsafe impl Sync for Pool {}

impl Pool {
    /// Allocates `buffer_count` buffers. The calling thread touches them and is their home.
    pub(crate) fn new(
        buffer_count: u16,
        buffer_size_bytes: usize,
        doorbell: Arc<OwnedFd>,
    ) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            memory: Mapping::new(usize::from(buffer_count) * buffer_size_bytes)?,
            buffer_size_bytes,
            buffer_count,
            home: thread_number(),
            local: Local(UnsafeCell::new(Vec::with_capacity(usize::from(buffer_count)))),
            returned: Returns::new(buffer_count),
            doorbell,
        }))
    }

    pub(crate) fn buffer_size_bytes(&self) -> usize {
        self.buffer_size_bytes
    }

    /// The address to give to the kernel for one buffer.
    pub(crate) fn address(&self, index: u16) -> u64 {
        self.pointer(index) as u64
    }

    fn pointer(&self, index: u16) -> *mut u8 {
        assert!(index < self.buffer_count, "buffer {index} does not exist");
        // SAFETY: index < count, so the offset is inside the mapping.
        unsafe { self.memory.base().as_ptr().add(usize::from(index) * self.buffer_size_bytes) }
    }

    /// Wraps the first `length` bytes of a buffer that the kernel filled.
    ///
    /// # Safety
    /// The kernel must have given up the buffer, no other lease of it may exist, and it must not be
    /// given to the kernel again before this lease came back through [`Pool::take_returned`].
    pub(crate) unsafe fn lend(self: &Arc<Self>, index: u16, length: usize) -> Bytes {
        assert!(index < self.buffer_count && length <= self.buffer_size_bytes);
        Bytes::from_owner(Lease { pool: Arc::clone(self), index, length })
    }

    fn give_back(&self, index: u16) {
        if thread_number() == self.home {
            // SAFETY: this is the home thread, so no other thread touches the list, and neither
            // this block nor the one in `take_returned` calls anything that could come back here.
            unsafe { (*self.local.0.get()).push(index) };
            return;
        }
        if self.returned.give_back(index) {
            ring_doorbell(self.doorbell.as_fd());
        }
    }

    /// Moves the indices of all buffers that came back to the end of `into`. Home thread only.
    pub(crate) fn take_returned(&self, into: &mut Vec<u16>) {
        assert_eq!(thread_number(), self.home, "a ring left its thread");
        // SAFETY: this is the home thread (checked above); see `give_back`.
        unsafe { into.append(&mut *self.local.0.get()) };
        // Bounded: other threads may go on returning while we drain.
        for _ in 0..self.buffer_count {
            let Some(index) = self.returned.take() else {
                break;
            };
            into.push(index);
        }
    }

    /// Announces that the ring will sleep although sockets wait for buffers: the next buffer
    /// dropped elsewhere rings the doorbell. False when one has come back already: do not sleep.
    pub(crate) fn starve(&self) -> bool {
        self.returned.starve()
    }

    pub(crate) fn stop_starving(&self) {
        self.returned.stop_starving();
    }
}

/// One buffer on loan, inside a `Bytes`.
struct Lease {
    pool: Arc<Pool>,
    index: u16,
    length: usize,
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `length` lies inside the buffer (asserted in `lend`), its bytes are initialised
        // (zeroed by mmap, then written by the kernel), and by the promise of `lend` it is not
        // written to while the lease lives.
        unsafe { std::slice::from_raw_parts(self.pool.pointer(self.index), self.length) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.give_back(self.index);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::kernel::eventfd;

    fn pool() -> Arc<Pool> {
        Pool::new(4, 4_096, Arc::new(eventfd().unwrap())).unwrap()
    }

    #[test]
    fn the_last_slice_returns_the_buffer_on_any_thread() {
        let pool = pool();
        let mut back = Vec::new();
        // SAFETY: the kernel never had these buffers and each is lent once.
        let (first, second) = unsafe { (pool.lend(0, 10), pool.lend(3, 4_096)) };
        let slice = first.slice(2..4);
        drop(first);
        pool.take_returned(&mut back);
        assert!(back.is_empty());
        drop(slice);
        std::thread::spawn(move || drop(second)).join().unwrap();
        pool.take_returned(&mut back);
        assert_eq!(back, [0, 3]);
    }

    #[test]
    fn a_starving_ring_hears_of_buffers_dropped_elsewhere_only_once() {
        let pool = pool();
        // SAFETY: as above.
        let (first, second) = unsafe { (pool.lend(1, 1), pool.lend(2, 1)) };
        assert!(pool.starve());
        std::thread::spawn(move || drop(first)).join().unwrap();
        assert!(!pool.starve(), "a buffer is back: no sleep");
        std::thread::spawn(move || drop(second)).join().unwrap();
        let mut count = 0_u64;
        // SAFETY: reads eight bytes into a local.
        let read = unsafe {
            use std::os::fd::AsRawFd;
            libc::read(pool.doorbell.as_raw_fd(), (&raw mut count).cast(), 8)
        };
        assert_eq!((read, count), (8, 1));
    }

    #[test]
    fn leases_outlive_the_ring() {
        let pool = pool();
        // SAFETY: as above.
        let bytes = unsafe { pool.lend(0, 16) };
        drop(pool);
        assert_eq!(&bytes[..], [0; 16]);
    }
}

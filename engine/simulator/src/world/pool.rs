//! Receive buffers: lent with each receive, and counted until the last slice is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

/// The receive buffers of one shard.
#[derive(Debug)]
pub(crate) struct Pool {
    lent: Arc<AtomicUsize>,
    buffers: usize,
}

struct Lease {
    bytes: Vec<u8>,
    lent: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.lent.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    pub(crate) fn new(buffers: usize) -> Self {
        Self { lent: Arc::default(), buffers }
    }

    pub(crate) fn lent(&self) -> usize {
        self.lent.load(Ordering::Relaxed)
    }

    /// Lends a buffer with these bytes. When only a quarter is left, the bytes are copied and the
    /// buffer returns at once, as in a real driver: incomplete messages hold buffers and could
    /// otherwise wait for each other for ever.
    pub(crate) fn lend(&self, bytes: Vec<u8>) -> Bytes {
        if self.lent() * 4 >= self.buffers * 3 {
            return Bytes::from(bytes);
        }
        self.lent.fetch_add(1, Ordering::Relaxed);
        Bytes::from_owner(Lease { bytes, lent: Arc::clone(&self.lent) })
    }
}

//! The provided buffer rings: which receive buffers the kernel may fill next.
//!
//! ```text
//!  entry 0            entry 1                      each 16 bytes
//! ┌──────────────────┬──────────────────┬─ ─ ─┐    address u64, length u32, id u16,
//! │ addr len id TAIL │ addr len id  –   │     │    and in entry 0 the tail u16 in the
//! └──────────────────┴──────────────────┴─ ─ ─┘    place of the reserved field
//! ```
//!
//! Two groups: *main*, which all multishot receives take from, and a small *reserve* that only
//! single receives of starved sockets take from, in the order in which they starved. A flood can
//! therefore empty the main group, but every connection still gets its turn, and with it the acks
//! and heartbeats that make buffers come back.
//!
//! The kernel fills buffers in the order in which it got them. If it had all of them, each would
//! have left a core's caches before its next use. So it gets only twice as many as a turn uses, the
//! most recently returned first: 1.13 and 1.16 times the messages of 1 KiB per CPU second, without
//! and with acks.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use bytes::Bytes;
use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use crate::config::RingConfig;
use crate::kernel::Mapping;
use crate::pool::Pool;

/// Group number of the buffers for multishot receives.
pub(crate) const GROUP_MAIN: u16 = 0;
/// Group number of the buffers for starved sockets.
pub(crate) const GROUP_RESERVE: u16 = 1;

/// The kernel gets at least this many buffers of the main group (64 KiB each: 1 MiB, a level 2
/// cache). With fewer, a burst would end its multishot receive, to be armed again, over and over.
const OFFERED_MIN: u32 = 16;

/// After this many turns with receives, the offer to the kernel may shrink to what they used.
const TURNS_PER_LOOK: u32 = 1_024;

/// One ring of provided buffers, shared with the kernel.
struct Group {
    entries: Mapping,
    mask: u16,
    /// Next entry to fill; the kernel reads the copy in entry 0.
    tail: u16,
    /// Buffers that the kernel has, by our latest knowledge.
    free: u32,
}

impl Group {
    /// Makes and registers a ring for at least `buffers` entries.
    fn register(submitter: &Submitter<'_>, id: u16, buffers: u16) -> io::Result<Self> {
        let capacity = buffers.next_power_of_two();
        let entries = Mapping::new(usize::from(capacity) * size_of::<BufRingEntry>())?;
        // SAFETY: the mapping holds `capacity` zeroed entries, is page-aligned, and `Buffers` keeps
        // it until the ring is closed (see the order of the fields of `Ring` and its drop).
        unsafe {
            let address = entries.base().as_ptr() as u64;
            submitter.register_buf_ring_with_flags(address, capacity, id, 0)?;
        }
        Ok(Self { entries, mask: capacity - 1, tail: 0, free: 0 })
    }

    /// Writes the next entry; the kernel sees it after [`Group::publish`].
    fn put(&mut self, index: u16, address: u64, length: u32) {
        let place = usize::from(self.tail & self.mask);
        assert!((place + 1) * size_of::<BufRingEntry>() <= self.entries.length_bytes());
        // SAFETY: the place is inside the mapping (asserted); the kernel reads only entries below
        // the published tail, and the ring has a place for each of its buffers, so this one is
        // free.
        let entry = unsafe { &mut *self.entries.base().cast::<BufRingEntry>().as_ptr().add(place) };
        entry.set_addr(address);
        entry.set_len(length);
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
        self.free += 1;
    }

    fn publish(&mut self) {
        // SAFETY: entry 0 is inside the mapping; its tail field is two-byte aligned and, after the
        // registration, only ever accessed as an atomic by us and read by the kernel.
        let tail = unsafe {
            let first = self.entries.base().cast::<BufRingEntry>().as_ptr();
            AtomicU16::from_ptr(BufRingEntry::tail(first).cast_mut())
        };
        tail.store(self.tail, Ordering::Release);
    }
}

/// All receive buffers of a ring, and which of them the kernel, leases and neither have.
pub(crate) struct Buffers {
    pool: Arc<Pool>,
    main: Group,
    reserve: Group,
    /// Indices from here on belong to the reserve.
    reserve_from: u16,
    /// True while a lease holds the buffer: proof that no buffer is published twice.
    lent: Vec<bool>,
    leases_out: u32,
    returned: Vec<u16>,
    /// Buffers of the main group that neither the kernel nor a lease has, coldest first.
    idle: Vec<u16>,
    /// How many of the main group the kernel should have.
    offer: u32,
    /// Buffers of the main group that were claimed since the last [`Buffers::reclaim`].
    claimed: u32,
    /// The highest `claimed` of one turn, over the last `turns` turns.
    claimed_max: u32,
    turns: u32,
    /// See [`RingConfig::lend_above_free_buffers`].
    lend_above_free: u32,
    /// See [`crate::RingCounters::received_bytes_copied`].
    copied_bytes: u64,
}

impl Buffers {
    /// Registers both groups and gives the kernel its first buffers.
    pub(crate) fn new(
        config: &RingConfig,
        submitter: &Submitter<'_>,
        pool: Arc<Pool>,
    ) -> io::Result<Self> {
        let reserve_from = config.buffer_count - config.reserve_count();
        let mut buffers = Self {
            main: Group::register(submitter, GROUP_MAIN, reserve_from)?,
            reserve: Group::register(submitter, GROUP_RESERVE, config.reserve_count())?,
            pool,
            reserve_from,
            lent: vec![false; usize::from(config.buffer_count)],
            leases_out: 0,
            lend_above_free: config.lend_above_free_buffers.into(),
            copied_bytes: 0,
            returned: Vec::with_capacity(usize::from(config.buffer_count)),
            idle: (0..reserve_from).collect(),
            offer: OFFERED_MIN,
            claimed: 0,
            claimed_max: 0,
            turns: 0,
        };
        for index in reserve_from..config.buffer_count {
            buffers.put(index);
        }
        buffers.reserve.publish();
        buffers.offer();
        Ok(buffers)
    }

    fn group(&mut self, index: u16) -> &mut Group {
        if index < self.reserve_from { &mut self.main } else { &mut self.reserve }
    }

    fn put(&mut self, index: u16) {
        let address = self.pool.address(index);
        let length = self.pool.buffer_size_bytes() as u32;
        self.group(index).put(index, address, length);
    }

    /// Takes the buffer of a completion: a lease of its first `length` bytes, or, when it holds
    /// nothing (an end of stream can still have taken one), straight back to the kernel.
    pub(crate) fn claim(&mut self, index: u16, length: usize) -> Option<Bytes> {
        let lent = &mut self.lent[usize::from(index)];
        assert!(!*lent, "the kernel reported buffer {index} twice");
        let group = self.group(index);
        group.free -= 1;
        if length == 0 {
            self.put(index);
            self.group(index).publish();
            return None;
        }
        self.lent[usize::from(index)] = true;
        self.leases_out += 1;
        self.claimed += u32::from(index < self.reserve_from);
        // SAFETY: the kernel reported the buffer as used, `lent` shows that no other lease exists,
        // and `put` follows only after `take_returned` named it (see `reclaim`).
        let lease = unsafe { self.pool.lend(index, length) };
        // Short of buffers: the bytes are copied, and dropping the lease here returns the buffer.
        if self.free_main() >= self.lend_above_free {
            return Some(lease);
        }
        self.copied_bytes += length as u64;
        Some(Bytes::copy_from_slice(&lease))
    }

    /// Takes every buffer that came back, and refills the kernel's groups. Call once a turn.
    pub(crate) fn reclaim(&mut self) {
        let mut returned = std::mem::take(&mut self.returned);
        self.pool.take_returned(&mut returned);
        for index in returned.drain(..) {
            let lent = std::mem::replace(&mut self.lent[usize::from(index)], false);
            assert!(lent, "buffer {index} came back without a lease");
            self.leases_out -= 1;
            if index < self.reserve_from {
                self.idle.push(index);
            } else {
                self.put(index);
                self.reserve.publish();
            }
        }
        self.returned = returned;
        self.look_at_claimed();
        self.offer();
    }

    /// The kernel found no buffer of the main group. Gives it more, if there are any.
    pub(crate) fn offer_more(&mut self) -> bool {
        self.offer = (2 * self.offer).min(self.reserve_from.into());
        self.offer();
        self.main.free > 0
    }

    /// Gives the kernel buffers of the main group until it has `self.offer`, hottest first.
    fn offer(&mut self) {
        let before = self.main.free;
        while self.main.free < self.offer
            && let Some(index) = self.idle.pop()
        {
            self.put(index);
        }
        if self.main.free > before {
            self.main.publish();
        }
    }

    /// Adapts the offer to the use of the turns: up at once, down after many turns with less.
    fn look_at_claimed(&mut self) {
        let claimed = std::mem::take(&mut self.claimed);
        if claimed == 0 {
            return;
        }
        self.claimed_max = self.claimed_max.max(claimed);
        self.turns += 1;
        if self.turns == TURNS_PER_LOOK {
            self.offer = 2 * std::mem::take(&mut self.claimed_max);
            self.turns = 0;
        }
        self.offer = self.offer.max(2 * claimed).max(OFFERED_MIN);
    }

    /// Buffers of the main group that hold nothing.
    pub(crate) fn free_main(&self) -> u32 {
        self.main.free + self.idle.len() as u32
    }

    /// Buffers of the reserve that the kernel may fill.
    pub(crate) fn free_reserve(&self) -> u32 {
        self.reserve.free
    }

    /// Buffers held by leases, as of the last [`Buffers::reclaim`].
    pub(crate) fn leases_out(&self) -> u32 {
        self.leases_out
    }

    pub(crate) fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }
}

//! Group commit: records gather in a batch while the one before is written.

use std::collections::VecDeque;

use super::blocks::Blocks;
use super::bug::{Bug, Planted};
use super::record::{self, BARRIER_BYTES, HEADER_BYTES, Stamp};
use super::{BLOCK_BYTES, Position};
use crate::id::WallTime;

/// Bytes after which a batch is closed: where the device's throughput no longer grows (1 MiB and a
/// flush: 3.2 GB/s of 3.3), and what a shard copies in a fraction of a millisecond.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Written batches kept for reuse: one being filled, one under way, one to turn around.
const SPARE_BATCHES_MAX: usize = 3;

/// The batches of one log.
#[derive(Debug)]
pub(super) struct Commits {
    epoch: u32,
    segment: u32,
    size_bytes: u32,
    /// Where the open batch starts.
    offset: u32,
    /// Empty where no batch is open.
    open: Blocks,
    closed: VecDeque<Batch>,
    closed_bytes: usize,
    under_way: Option<UnderWay>,
    durable: Position,
    spare: Vec<Blocks>,
    planted: Planted,
}

/// A batch on its way to the disk.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) blocks: Blocks,
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    length: usize,
    /// It holds more than a barrier.
    has_records: bool,
}

impl Commits {
    pub(super) fn new(epoch: u32, segment: u32, size_bytes: u32) -> Self {
        Self {
            epoch,
            segment,
            size_bytes,
            offset: 0,
            open: Blocks::default(),
            closed: VecDeque::new(),
            closed_bytes: 0,
            under_way: None,
            // Whatever lies before was read from the disk.
            durable: Position::new(segment, 0),
            spare: Vec::new(),
            planted: Planted::default(),
        }
    }

    #[cfg(feature = "planted-bugs")]
    pub(super) fn plant(&mut self, planted: Planted) {
        self.planted = planted;
        self.epoch -= u32::from(planted.is(Bug::EpochKept));
    }

    /// Behind the last record added.
    #[inline]
    pub(super) fn appended(&self) -> Position {
        Position::new(self.segment, self.end())
    }

    #[inline]
    pub(super) fn durable(&self) -> Position {
        self.durable
    }

    pub(super) fn waiting_bytes(&self) -> usize {
        self.closed_bytes + self.open.len() + self.under_way.map_or(0, |batch| batch.length)
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether a whole batch waits to be written.
    #[inline]
    pub(super) fn has_closed(&self) -> bool {
        !self.closed.is_empty()
    }

    pub(super) fn has_batches(&self) -> bool {
        !self.closed.is_empty() || !self.open.is_empty()
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.is_under_way() && !self.has_batches()
    }

    /// Whether a record of `length` can be added to the open batch.
    #[inline]
    pub(super) fn has_room(&self, length: usize) -> bool {
        !self.open.is_empty()
            && self.open.len() + length <= BATCH_BYTES_MAX
            && self.fits_segment(self.end() as usize + length)
    }

    /// Whether a batch with a record of `length` fits behind the closed ones.
    pub(super) fn fits_behind(&self, length: usize) -> bool {
        self.fits_segment(self.offset as usize + self.prelude_bytes() + length)
    }

    /// Bytes that a batch with a record of `length` takes in a new segment, at most.
    pub(super) fn bytes_in_new_segment(length: usize) -> usize {
        BLOCK_BYTES + padded(BARRIER_BYTES + length)
    }

    /// Closes the open batch: fills its last block.
    pub(super) fn close_batch(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let end = self.end() as usize;
        if padded(end) > end && self.planted.is(Bug::NoFiller) {
            self.open.extend_zeros(padded(end) - end);
        } else if padded(end) > end {
            self.append(|blocks, stamp| record::encode_filler(blocks, stamp, padded(end) - end));
        }
        let fresh = Blocks::default();
        let batch = Batch {
            segment: self.segment,
            offset: self.offset,
            blocks: std::mem::replace(&mut self.open, fresh),
        };
        self.offset += batch.blocks.len() as u32;
        if self.planted.is(Bug::BlockShared) && batch.blocks.len() > 2 * BLOCK_BYTES {
            self.offset -= BLOCK_BYTES as u32;
        }
        self.closed_bytes += batch.blocks.len();
        self.closed.push_back(batch);
    }

    /// Goes on in a new segment. The open batch was closed before.
    pub(super) fn turn_to(&mut self, (segment, size_bytes): (u32, u32)) {
        debug_assert!(self.open.is_empty());
        (self.segment, self.size_bytes, self.offset) = (segment, size_bytes, 0);
    }

    /// Opens a batch for a record of `length`, behind `header` in a new segment.
    pub(super) fn open_batch(&mut self, header: impl FnOnce() -> [u8; BLOCK_BYTES], length: usize) {
        debug_assert!(self.open.is_empty());
        let capacity = (BATCH_BYTES_MAX + BLOCK_BYTES).max(2 * BLOCK_BYTES + padded(length));
        self.open = match self.spare.pop() {
            Some(spare) if spare.room() >= capacity => spare,
            _ => Blocks::with_capacity(capacity),
        };
        if self.offset == 0 {
            self.open.extend(&header());
        }
        // What it says is put in when the batch leaves.
        self.open.extend_zeros(BARRIER_BYTES);
    }

    /// Adds a record; returns its position.
    #[inline]
    pub(super) fn append(&mut self, encode: impl FnOnce(&mut Blocks, Stamp)) -> Position {
        let position = self.appended();
        encode(&mut self.open, Stamp { position, epoch: self.epoch });
        position
    }

    /// The next batch to be written, if its segment can be; its barrier says that it is `now`.
    pub(super) fn next(
        &mut self,
        now: WallTime,
        is_ready: impl FnOnce(u32) -> bool,
    ) -> Option<Batch> {
        if self.closed.is_empty() {
            self.close_batch();
        }
        if !is_ready(self.closed.front()?.segment) {
            return None;
        }
        let mut batch = self.closed.pop_front()?;
        self.closed_bytes -= batch.blocks.len();
        let start = if batch.offset == 0 { BLOCK_BYTES } else { 0 };
        let position = Position::new(batch.segment, batch.offset + start as u32);
        let stamp = Stamp { position, epoch: self.epoch };
        let barrier = &mut batch.blocks.as_mut_slice()[start..start + BARRIER_BYTES];
        record::encode_barrier(barrier, stamp, self.durable, now);
        if self.planted.is(Bug::BarrierUnsummed) {
            barrier[HEADER_BYTES] ^= 0x10;
        }
        let length = batch.blocks.len();
        let end = Position::new(batch.segment, batch.offset + length as u32);
        if self.planted.is(Bug::BarrierTooHigh) {
            let barrier = &mut batch.blocks.as_mut_slice()[start..start + BARRIER_BYTES];
            record::encode_barrier(barrier, stamp, end, now);
        }
        if self.planted.is(Bug::DurableAtSubmit) {
            self.durable = end;
        }
        let behind = start + BARRIER_BYTES;
        let has_records = !record::is_filler_at(batch.blocks.as_slice(), behind);
        self.under_way = Some(UnderWay { length, has_records });
        Some(batch)
    }

    /// A batch is durable. True if it held more than a barrier.
    pub(super) fn committed(&mut self, segment: u32, offset: u32, mut blocks: Blocks) -> bool {
        self.durable = Position::new(segment, offset + blocks.len() as u32);
        if self.spare.len() < SPARE_BATCHES_MAX && blocks.len() <= BATCH_BYTES_MAX + BLOCK_BYTES {
            blocks.clear();
            self.spare.push(blocks);
        }
        self.under_way.take().is_some_and(|batch| batch.has_records)
    }

    #[inline]
    fn end(&self) -> u32 {
        self.offset + self.open.len() as u32
    }

    fn prelude_bytes(&self) -> usize {
        BARRIER_BYTES + if self.offset == 0 { BLOCK_BYTES } else { 0 }
    }

    #[inline]
    fn fits_segment(&self, end: usize) -> bool {
        padded(end) <= self.size_bytes as usize
    }
}

/// The end of the last block: there is no gap that a filler could not fill.
#[inline]
fn padded(end: usize) -> usize {
    let whole = end.next_multiple_of(BLOCK_BYTES);
    if whole == end || whole - end >= HEADER_BYTES { whole } else { whole + BLOCK_BYTES }
}

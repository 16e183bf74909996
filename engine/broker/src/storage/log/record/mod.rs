//! Records: what one is made of, written and read.

mod publish;
#[cfg(test)]
mod tests;

pub use self::publish::{Arrival, PublishRecord, Queues};

use self::publish::PUBLISH_FIXED_BYTES;
use super::blocks::Blocks;
use super::{LogId, Position};
use crate::id::WallTime;

/// Bytes before every payload.
pub const HEADER_BYTES: usize = 40;

/// Bytes of a barrier.
pub const BARRIER_BYTES: usize = HEADER_BYTES + 16;

/// Bytes of a mark.
pub const MARK_BYTES: usize = HEADER_BYTES + 24;

/// Bytes of a close.
pub const CLOSE_BYTES: usize = HEADER_BYTES;

/// Bytes of a settle record before its ranges.
const SETTLE_FIXED_BYTES: usize = HEADER_BYTES + 16;

const BARRIER: u8 = 1;
const FILLER: u8 = 2;
const PUBLISH: u8 = 3;
const SETTLE: u8 = 4;
const MARK: u8 = 5;
const CLOSE: u8 = 6;

/// Kinds from here on may be passed over by a reader that does not know them.
const KIND_PASSED_OVER: u8 = 128;

/// Flags that a reader has to know. None has a meaning yet.
const FLAGS_TO_BE_KNOWN: u8 = 0xf0;

/// Where a record stands, which is a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Its address.
    pub position: Position,
    /// The epoch of its segment.
    pub epoch: u32,
}

/// The begin of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarrierRecord {
    /// Everything below was durable when the batch was made.
    pub synced_upto: Position,
    /// When that was; `None` in a record of format 1.0.
    pub written_at: Option<WallTime>,
}

/// What a clean stop knows of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkRecord {
    /// The queue.
    pub log_id: LogId,
    /// The sequence of its next message.
    pub next_sequence: u64,
    /// Messages below were given out before.
    pub delivered_through: u64,
}

/// A record as read.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// The begin of a batch.
    Barrier(BarrierRecord),
    /// Nothing.
    Filler,
    /// A message.
    Publish(PublishRecord<'a>),
    /// Messages a queue no longer holds: 16 bytes for each range, both ends included.
    Settle(LogId, Ranges<'a>),
    /// What a clean stop knows of a queue.
    Mark(MarkRecord),
    /// A clean stop.
    Close,
    /// Of a kind or group that this version does not know and that has to be kept.
    Unknown(u8),
    /// Of a kind that this version does not know and may pass over.
    PassedOver(u8),
    /// Of a newer version, with flags that have to be known to read it.
    Newer {
        /// Its kind.
        kind: u8,
        /// All its flags.
        flags: u8,
    },
}

/// The ranges of a settle record.
#[derive(Clone, Copy, Debug)]
pub struct Ranges<'a>(&'a [u8]);

impl Ranges<'_> {
    /// First and last of each range.
    pub fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        pairs(self.0)
    }
}

/// Bytes of a settle record with this many ranges.
pub fn settle_bytes(ranges: usize) -> usize {
    SETTLE_FIXED_BYTES + 16 * ranges
}

/// Writes a settle record.
pub fn encode_settle(blocks: &mut Blocks, stamp: Stamp, log_id: LogId, ranges: &[(u64, u64)]) {
    let start = blocks.len();
    let mut fixed = [0; SETTLE_FIXED_BYTES];
    fixed[40..48].copy_from_slice(&log_id.to_le_bytes());
    fixed[48..52].copy_from_slice(&(ranges.len() as u32).to_le_bytes());
    blocks.extend(&fixed);
    for (first, last) in ranges {
        blocks.extend(&first.to_le_bytes());
        blocks.extend(&last.to_le_bytes());
    }
    finish(blocks, start, SETTLE, stamp);
}

/// Writes a mark.
pub fn encode_mark(blocks: &mut Blocks, stamp: Stamp, mark: &MarkRecord) {
    let start = blocks.len();
    blocks.extend(&[0; HEADER_BYTES]);
    for word in [mark.log_id, mark.next_sequence, mark.delivered_through] {
        blocks.extend(&word.to_le_bytes());
    }
    finish(blocks, start, MARK, stamp);
}

/// Writes a close.
pub fn encode_close(blocks: &mut Blocks, stamp: Stamp) {
    let start = blocks.len();
    blocks.extend(&[0; HEADER_BYTES]);
    finish(blocks, start, CLOSE, stamp);
}

/// Writes a filler of `length` bytes, at least [`HEADER_BYTES`].
pub fn encode_filler(blocks: &mut Blocks, stamp: Stamp, length: usize) {
    let start = blocks.len();
    blocks.extend_zeros(length);
    finish(blocks, start, FILLER, stamp);
}

/// Writes a barrier into the [`BARRIER_BYTES`] kept for it.
pub fn encode_barrier(bytes: &mut [u8], stamp: Stamp, synced_upto: Position, now: WallTime) {
    bytes[HEADER_BYTES..HEADER_BYTES + 8].copy_from_slice(&synced_upto.0.to_le_bytes());
    bytes[HEADER_BYTES + 8..].copy_from_slice(&now.0.to_le_bytes());
    seal(bytes, BARRIER, stamp);
}

/// Writes a record as a newer version might.
#[cfg(test)]
pub(super) fn encode_any(blocks: &mut Blocks, stamp: Stamp, kind: u8, flags: u8, payload: &[u8]) {
    let start = blocks.len();
    let mut header = [0; HEADER_BYTES];
    header[21] = flags;
    blocks.extend(&header);
    blocks.extend(payload);
    finish(blocks, start, kind, stamp);
}

/// Whether the record at `at`, written by us, is a filler.
pub(super) fn is_filler_at(bytes: &[u8], at: usize) -> bool {
    bytes.get(at + 20) == Some(&FILLER)
}

/// Reads the record that starts `bytes`, which stands at `stamp` if it is valid: its length and
/// what it says. `None` for anything that was not written there in that epoch.
pub fn decode(bytes: &[u8], stamp: Stamp) -> Option<(usize, Record<'_>)> {
    let length = length(bytes, stamp)?;
    let record = bytes.get(..length)?;
    if crc32c::crc32c(&record[4..]) != word(record, 0)? {
        return None;
    }
    let payload = &record[HEADER_BYTES..];
    let local = record[24..HEADER_BYTES].iter().all(|byte| *byte == 0);
    let flags = record[21];
    let said = match record[20] {
        kind @ KIND_PASSED_OVER.. => Record::PassedOver(kind),
        kind if flags & FLAGS_TO_BE_KNOWN != 0 => Record::Newer { kind, flags },
        kind if !local => Record::Unknown(kind),
        BARRIER => {
            let synced_upto = Position(long(payload, 0)?);
            Record::Barrier(BarrierRecord {
                synced_upto,
                written_at: long(payload, 8).map(WallTime),
            })
        }
        FILLER => Record::Filler,
        PUBLISH => Record::Publish(PublishRecord::decode(record)?),
        SETTLE => {
            let ranges = payload.get(16..)?.get(..16 * word(payload, 8)? as usize)?;
            Record::Settle(long(payload, 0)?, Ranges(ranges))
        }
        MARK => Record::Mark(MarkRecord {
            log_id: long(payload, 0)?,
            next_sequence: long(payload, 8)?,
            delivered_through: long(payload, 16)?,
        }),
        CLOSE => Record::Close,
        kind => Record::Unknown(kind),
    };
    Some((length, said))
}

/// The length of the record that seems to start `bytes`, which may hold only a part of it; `None`
/// where position, epoch or length say that it does not.
pub fn length(bytes: &[u8], stamp: Stamp) -> Option<usize> {
    let length = word(bytes, 4)? as usize;
    let stands = long(bytes, 8)? == stamp.position.0 && word(bytes, 16)? == stamp.epoch;
    (stands && length >= HEADER_BYTES && length.is_multiple_of(8)).then_some(length)
}

/// The queues that a publish or settle record names which starts `bytes` and is not valid: a guess
/// for people who look for what is lost.
pub fn named_queues(bytes: &[u8]) -> impl Iterator<Item = LogId> {
    let settle = long(bytes, HEADER_BYTES).filter(|_| bytes.get(20) == Some(&SETTLE));
    let count = word(bytes, 40).filter(|_| bytes.get(20) == Some(&PUBLISH)).unwrap_or(0);
    let queues = bytes.get(PUBLISH_FIXED_BYTES..).unwrap_or_default();
    // More queues than there are bytes: it is no publish record.
    let queues = queues.get(..16 * count as usize).unwrap_or_default();
    settle.into_iter().chain(pairs(queues).map(|(log_id, _)| log_id))
}

/// Pads the record that starts at `start` and puts its header in.
#[inline]
fn finish(blocks: &mut Blocks, start: usize, kind: u8, stamp: Stamp) {
    let length = (blocks.len() - start).next_multiple_of(8);
    blocks.extend_zeros(start + length - blocks.len());
    seal(&mut blocks.as_mut_slice()[start..], kind, stamp);
}

#[inline]
fn seal(record: &mut [u8], kind: u8, stamp: Stamp) {
    let length = record.len() as u32;
    record[4..8].copy_from_slice(&length.to_le_bytes());
    record[8..16].copy_from_slice(&stamp.position.0.to_le_bytes());
    record[16..20].copy_from_slice(&stamp.epoch.to_le_bytes());
    record[20] = kind;
    let sum = crc32c::crc32c(&record[4..]);
    record[..4].copy_from_slice(&sum.to_le_bytes());
}

fn pairs(bytes: &[u8]) -> impl Iterator<Item = (u64, u64)> {
    bytes.chunks_exact(16).filter_map(|pair| Some((long(pair, 0)?, long(pair, 8)?)))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

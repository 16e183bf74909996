//! Splits a segment's bytes into records and into gaps between them.

use std::collections::BTreeSet;

use super::super::record::{self, HEADER_BYTES, Record, Stamp};
use super::super::segment::{Header, HeaderError};
use super::super::{BLOCK_BYTES, LogId, PROCESS_QUEUE, Position};

/// Records start on multiples of this.
const ALIGNMENT: usize = 8;

/// Queues named as suspects of one gap. More help nobody: then any queue is suspect.
const SUSPECTS_MAX: usize = 64;

/// What a segment consists of, in the order of its offsets.
#[derive(Debug)]
pub enum Item<'a> {
    /// The first block; always the first item.
    Header(Result<Header, HeaderError>),
    /// A valid record.
    Record {
        /// Its offset.
        offset: u32,
        /// Its length in bytes.
        length: u32,
        /// The epoch that it names, which is that of the header where there is one.
        epoch: u32,
        /// What it says.
        record: Record<'a>,
    },
    /// Bytes that are no valid record.
    Gap(Gap),
}

/// Bytes of a segment that are no valid record: damage, a torn end, or the unused rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// Where it starts.
    pub start: u32,
    /// Behind it.
    pub end: u32,
    /// No valid record of this segment is behind it.
    pub is_last: bool,
    /// Something in it names its own address and the segment's epoch, as only a record does.
    pub has_traces: bool,
    /// Queues that invalid publish and settle records in it seem to name.
    pub suspects: BTreeSet<LogId>,
}

impl Gap {
    /// Whether it looks like what lies behind the last batch of any segment.
    pub fn is_unused_rest(&self) -> bool {
        self.is_last && !self.has_traces && (self.start as usize).is_multiple_of(BLOCK_BYTES)
    }
}

/// Reads one segment. It keeps at most one record's worth of bytes, or what claims to be one.
#[derive(Debug)]
pub struct SegmentReader {
    number: u32,
    file_bytes: u64,
    epoch: Option<u32>,
    has_header: bool,
    buffer: Vec<u8>,
    /// Offset of the buffer's first byte in the segment.
    base: u64,
    /// Where the next record is looked for.
    at: u64,
    gap: Option<Gap>,
}

enum Probe {
    Valid(usize, u32),
    Invalid,
    /// More bytes decide.
    Open,
}

impl SegmentReader {
    /// Of a file with this number in its name and of this size. Records have 32-bit offsets: what
    /// is behind those is not read.
    pub fn new(number: u32, file_bytes: u64) -> Self {
        Self {
            number,
            file_bytes: file_bytes.min(u64::from(u32::MAX)),
            epoch: None,
            has_header: false,
            buffer: Vec::new(),
            base: 0,
            at: 0,
            gap: None,
        }
    }

    /// Takes the file's next bytes.
    pub fn feed(&mut self, bytes: &[u8], sink: &mut impl FnMut(Item<'_>)) {
        let room = self.file_bytes.saturating_sub(self.base + self.buffer.len() as u64);
        self.buffer.extend_from_slice(&bytes[..bytes.len().min(room as usize)]);
        let buffer = std::mem::take(&mut self.buffer);
        self.read(&buffer, false, sink);
        self.buffer = buffer;
        let done = ((self.at - self.base) as usize).min(self.buffer.len());
        self.buffer.drain(..done);
        self.base += done as u64;
    }

    /// There are no more bytes.
    pub fn end(mut self, sink: &mut impl FnMut(Item<'_>)) {
        let buffer = std::mem::take(&mut self.buffer);
        self.read(&buffer, true, sink);
        let start = self.at as u32;
        let mut gap = self.gap.take().unwrap_or_else(|| Gap { start, ..Gap::default() });
        (gap.end, gap.is_last) = (gap.start.max(self.file_bytes as u32), true);
        sink(Item::Gap(gap));
    }

    fn read(&mut self, buffer: &[u8], ended: bool, sink: &mut impl FnMut(Item<'_>)) {
        if !self.has_header && !self.read_header(buffer, ended, sink) {
            return;
        }
        loop {
            let Some(rest) = buffer.get((self.at - self.base) as usize..) else { return };
            if self.gap.is_some() {
                self.skip_foreign_bytes(rest);
            }
            let Some(rest) = buffer.get((self.at - self.base) as usize..) else { return };
            if rest.len() < HEADER_BYTES {
                return;
            }
            match self.probe(rest, ended) {
                Probe::Open => return,
                Probe::Invalid => {
                    self.open_gap(rest);
                    self.at += ALIGNMENT as u64;
                }
                Probe::Valid(length, epoch) => {
                    self.take_record(rest, length, epoch, sink);
                }
            }
        }
    }

    fn read_header(&mut self, buffer: &[u8], ended: bool, sink: &mut impl FnMut(Item<'_>)) -> bool {
        if buffer.len() < BLOCK_BYTES && !ended {
            return false;
        }
        let block = &buffer[..buffer.len().min(BLOCK_BYTES)];
        // What a cut off file still has of its header is enough: the rest of one is zeros.
        let mut whole = [0; BLOCK_BYTES];
        whole[..block.len()].copy_from_slice(block);
        let header = Header::decode(&whole);
        self.epoch = match header {
            Ok(header) if header.segment == self.number => Some(header.identity.epoch),
            _ => None,
        };
        (self.has_header, self.at) = (true, BLOCK_BYTES as u64);
        sink(Item::Header(header));
        true
    }

    fn take_record(
        &mut self,
        rest: &[u8],
        length: usize,
        epoch: u32,
        sink: &mut impl FnMut(Item<'_>),
    ) {
        let position = Position::new(self.number, self.at as u32);
        let Some((_, record)) = record::decode(rest, Stamp { position, epoch }) else { return };
        if let Some(mut gap) = self.gap.take() {
            gap.end = self.at as u32;
            sink(Item::Gap(gap));
        }
        // Where no header tells it, the first record does.
        self.epoch = Some(epoch);
        sink(Item::Record { offset: self.at as u32, length: length as u32, epoch, record });
        self.at += length as u64;
    }

    /// Whether a record is at [`Self::at`], where `rest` starts.
    fn probe(&self, rest: &[u8], ended: bool) -> Probe {
        let more = if ended { Probe::Invalid } else { Probe::Open };
        let Some(named) = rest.get(16..).and_then(<[u8]>::first_chunk) else { return more };
        let epoch = self.epoch.unwrap_or(u32::from_le_bytes(*named));
        let stamp = Stamp { position: Position::new(self.number, self.at as u32), epoch };
        let Some(length) = record::length(rest, stamp) else { return Probe::Invalid };
        if self.at + length as u64 > self.file_bytes {
            return Probe::Invalid;
        }
        if rest.len() < length {
            return more;
        }
        match record::decode(rest, stamp) {
            Some(_) => Probe::Valid(length, epoch),
            None => Probe::Invalid,
        }
    }

    fn open_gap(&mut self, rest: &[u8]) {
        let position = Position::new(self.number, self.at as u32);
        let word = |at: usize| rest.get(at..)?.first_chunk().copied().map(u64::from_le_bytes);
        let half = |at: usize| rest.get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
        let epoch = half(16).filter(|epoch| self.epoch.is_none_or(|own| own == *epoch));
        let is_trace = word(8) == Some(position.0) && epoch.is_some();
        let is_first = self.gap.is_none();
        let gap = self.gap.get_or_insert_with(|| Gap { start: self.at as u32, ..Gap::default() });
        gap.has_traces |= is_trace;
        if is_trace || is_first {
            let named = record::named_queues(rest).filter(|id| id & PROCESS_QUEUE == 0);
            gap.suspects.extend(named.take(SUSPECTS_MAX.saturating_sub(gap.suspects.len())));
        }
    }

    /// Passes over bytes in a gap that do not name their own address.
    fn skip_foreign_bytes(&mut self, rest: &[u8]) {
        let number = u64::from(self.number);
        let mut at = self.at;
        for words in rest.get(ALIGNMENT..).unwrap_or_default().chunks_exact(ALIGNMENT) {
            let named = words.first_chunk().copied().map(u64::from_le_bytes);
            if named == Some(number << 32 | at) {
                break;
            }
            at += ALIGNMENT as u64;
        }
        self.at = at;
    }
}

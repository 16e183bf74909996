//! What was read of a log.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::super::segment::{Identity, Segment, Segments};
use super::super::{LogId, Place};
use super::RecoveredQueue;
use crate::id::WallTime;

/// What a log holds and what is wrong with it.
#[derive(Debug, Default)]
pub struct RecoveredLog {
    /// Whose data directory, if any segment tells.
    pub store_id: Option<[u8; 16]>,
    /// Whose log.
    pub shard: u16,
    /// The highest epoch seen; the next writer takes the next one. 0: there is no segment.
    pub highest_epoch: u32,
    /// It ends with the close of an orderly stop.
    pub clean: bool,
    /// Queues that records name, those without messages included.
    pub queues: BTreeMap<LogId, RecoveredQueue>,
    /// Segments with records.
    pub segments: BTreeMap<u32, Segment>,
    /// Files without records, with their sizes in bytes.
    pub unused: Vec<(u32, u64)>,
    /// What was once durable and is not valid.
    pub damage: Vec<Damage>,
    /// What was being written when the broker stopped, and was never confirmed.
    pub torn: Vec<Torn>,
    /// When its last batch was made, if its barrier says.
    pub written_at: Option<WallTime>,
    /// How much was read.
    pub counts: RecoveryCounts,
}

/// How much was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecoveryCounts {
    /// Bytes of all files.
    pub bytes: u64,
    /// Valid records of all kinds.
    pub records: u64,
    /// Publish records that count, copies included.
    pub publishes: u64,
    /// Settle records that count.
    pub settles: u64,
    /// Records that this version does not know and keeps.
    pub unknown: u64,
    /// Records that this version does not know and passes over.
    pub passed_over: u64,
}

/// Bytes that were durable once and are not valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub segment: u32,
    /// Where in its file.
    pub offset: u32,
    /// How many bytes.
    pub length: u32,
    /// What they were.
    pub kind: DamageKind,
    /// Queues that the damaged records seem to name. Empty: it may be any queue of the shard.
    pub suspects: BTreeSet<LogId>,
}

/// What is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// The header; the records do not need it.
    Header,
    /// Records.
    Record,
    /// The file is shorter than its header says.
    Truncated,
    /// The whole segment: its file is there without header and records.
    Lost,
}

/// The end of a segment that was being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment.
    pub segment: u32,
    /// Where in its file.
    pub offset: u32,
    /// How many bytes.
    pub length: u32,
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "the header is damaged (records were read without it)",
            Self::Record => "records are damaged",
            Self::Truncated => "the file is shorter than it was made",
            Self::Lost => "header and records are gone",
        })
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, offset, length, kind, suspects } = self;
        write!(f, "segment {segment}, offset {offset}, {length} bytes: {kind}")?;
        match (kind, suspects.is_empty()) {
            (DamageKind::Record, true) => f.write_str("; may concern any queue of the shard"),
            (_, true) => Ok(()),
            _ => {
                let named: Vec<String> = suspects.iter().map(ToString::to_string).collect();
                write!(f, "; may concern the queues with log id {}", named.join(", "))
            }
        }
    }
}

impl RecoveredLog {
    /// Each message that a queue holds, by queue, then by sequence. A message that several queues
    /// hold comes once for each, with the same place.
    pub fn messages(&self) -> impl Iterator<Item = (LogId, u64, Place)> {
        self.queues.iter().flat_map(|(log_id, queue)| {
            let messages = queue.messages.iter();
            messages.map(|(sequence, place)| (*log_id, *sequence, *place))
        })
    }

    /// Who writes to this log next.
    pub fn next_identity(&self, store_id: [u8; 16]) -> Identity {
        Identity { store_id, shard: self.shard, epoch: self.highest_epoch.saturating_add(1) }
    }

    /// The segments for the next writer. Nothing is held in them yet: [`Segments::hold`] is called
    /// once for each place that a queue which still exists holds. Files that cannot be used again
    /// come back, to be removed.
    pub fn into_segments(
        &mut self,
        identity: Identity,
        segment_bytes: u32,
    ) -> (Segments, Vec<u32>) {
        let fits = |size: &u64| *size == u64::from(segment_bytes);
        let unused = std::mem::take(&mut self.unused);
        let (keep, remove): (Vec<_>, Vec<_>) = unused.into_iter().partition(|(_, s)| fits(s));
        let keep = keep.into_iter().map(|(number, _)| (number, segment_bytes)).collect();
        let begun = std::mem::take(&mut self.segments);
        let remove = remove.into_iter().map(|(number, _)| number).collect();
        (Segments::recovered(identity, segment_bytes, begun, keep), remove)
    }
}

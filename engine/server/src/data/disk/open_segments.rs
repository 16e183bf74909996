//! The open files of segments: all that are written to, and some of those that are read.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::Arc;

/// Files that are open only for reading, per shard. Reading ahead goes through a few segments at a
/// time, and reopening a file costs microseconds. The number is small enough that even with many
/// shards there are descriptors left for clients.
const READABLE_MAX: usize = 16;

/// By segment.
#[derive(Debug, Default)]
pub(crate) struct OpenSegments {
    /// Prepared segments that are not before the one written last. They are never closed to make
    /// room.
    writable: BTreeMap<u32, Arc<File>>,
    readable: BTreeMap<u32, Readable>,
    uses: u64,
}

#[derive(Debug)]
struct Readable {
    file: Arc<File>,
    last_use: u64,
}

impl OpenSegments {
    /// Adds a segment that was prepared.
    pub(crate) fn add_writable(&mut self, segment: u32, file: Arc<File>) {
        self.writable.insert(segment, file);
    }

    /// Adds a segment that was opened for reading. If there are too many, the least recently used
    /// one is closed.
    pub(crate) fn add_readable(&mut self, segment: u32, file: Arc<File>) {
        self.uses += 1;
        self.readable.insert(segment, Readable { file, last_use: self.uses });
        if self.readable.len() > READABLE_MAX {
            let oldest = self.readable.iter().min_by_key(|(_, readable)| readable.last_use);
            if let Some(oldest) = oldest.map(|(segment, _)| *segment) {
                self.readable.remove(&oldest);
            }
        }
    }

    /// The file to write to. A log never writes to an earlier segment again, so their files are
    /// closed.
    pub(crate) fn for_writing(&mut self, segment: u32) -> Option<Arc<File>> {
        while let Some(first) = self.writable.first_entry()
            && *first.key() < segment
        {
            let (earlier, file) = first.remove_entry();
            self.add_readable(earlier, file);
        }
        self.writable.get(&segment).cloned()
    }

    /// The file to read from, if it is open.
    pub(crate) fn for_reading(&mut self, segment: u32) -> Option<Arc<File>> {
        if let Some(file) = self.writable.get(&segment) {
            return Some(Arc::clone(file));
        }
        self.uses += 1;
        let readable = self.readable.get_mut(&segment)?;
        readable.last_use = self.uses;
        Some(Arc::clone(&readable.file))
    }

    /// Closes a file that is removed or becomes another segment.
    pub(crate) fn close(&mut self, segment: u32) {
        self.writable.remove(&segment);
        self.readable.remove(&segment);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_is_closed_and_never_one_that_is_written() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let mut open = OpenSegments::default();
        open.add_writable(1_000, Arc::clone(&file));
        open.add_writable(1_001, Arc::clone(&file));
        for segment in 0..READABLE_MAX as u32 {
            open.add_readable(segment, Arc::clone(&file));
        }
        assert!(open.for_reading(0).is_some());
        open.add_readable(500, Arc::clone(&file));
        assert!(open.for_reading(1).is_none() && open.for_reading(0).is_some());
        assert!(open.for_writing(1_000).is_some());
        assert!(open.for_writing(1_001).is_some());
        assert!(open.for_writing(1_000).is_none(), "behind the segment that is written");
        assert!(open.for_reading(1_000).is_some(), "but still there to be read");
        assert_eq!(open.readable.len(), READABLE_MAX);
        open.close(1_000);
        open.close(1_001);
        assert!(open.for_reading(1_000).is_none() && open.for_writing(1_001).is_none());
    }
}

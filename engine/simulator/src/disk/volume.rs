//! The content of a disk, twice: what reads see, and what a power cut leaves.
//!
//! ```text
//!   Step ──► live image                          reads, and a killed process's successor
//!     └────► pending: single sectors and names
//!               └── Sync, SyncDirectory ──► durable image
//! ```
//! A power cut keeps an arbitrary subset of the pending changes, in any order: disks write their
//! caches back as they like, and the kernel promises nothing before a sync.

use std::collections::BTreeMap;
use std::sync::Arc;

/// The unit of an atomic write.
pub const SECTOR_BYTES: usize = 512;

/// A file, independent of its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// A name in the log's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// A segment.
    Segment(u32),
    /// A file that is being laid out for this segment.
    Laying(u32),
}

/// The smallest step of an operation.
#[derive(Clone, Debug)]
pub enum Step {
    /// A new and empty file.
    Create(Name, FileId),
    /// Writes bytes without syncing them.
    Write(FileId, u32, Arc<[u8]>),
    /// Makes all earlier writes to a file durable.
    Sync(FileId),
    /// Changes a name, replacing a file that has the new name.
    Rename(Name, Name),
    /// A name is removed.
    Unlink(Name),
    /// Makes all names durable.
    SyncDirectory,
}

/// Names and files at one moment. Cheap to clone: contents are shared until they change.
#[derive(Clone, Debug, Default)]
pub struct Image {
    names: BTreeMap<Name, FileId>,
    files: BTreeMap<FileId, Arc<Vec<u8>>>,
}

/// The directory of a disk in both images.
#[derive(Clone, Debug, Default)]
pub struct Volume {
    live: Image,
    durable: Image,
    pending: Vec<Pending>,
}

/// A change that a power cut may undo.
#[derive(Clone, Debug)]
pub enum Pending {
    /// A write; each of its sectors can be lost on its own.
    Write(FileId, u32, Arc<[u8]>),
    /// A new name.
    Link(Name, FileId),
    /// A changed name.
    Rename(Name, Name, FileId),
    /// A removed name.
    Unlink(Name),
}

impl Pending {
    /// How many parts of it can be lost on their own.
    pub fn sectors(&self) -> usize {
        match self {
            Self::Write(_, _, bytes) => bytes.len().div_ceil(SECTOR_BYTES),
            _ => 1,
        }
    }
}

impl Image {
    /// The files of segments, by number, without files that are still being laid out.
    pub fn segments(&self) -> impl Iterator<Item = (u32, &Arc<Vec<u8>>)> {
        self.names.iter().filter_map(|(name, file)| match name {
            Name::Segment(number) => Some((*number, self.files.get(file)?)),
            Name::Laying(_) => None,
        })
    }

    /// The file with this name.
    pub fn file(&self, name: Name) -> Option<FileId> {
        self.names.get(&name).copied()
    }

    /// All names with their files.
    pub fn names(&self) -> &BTreeMap<Name, FileId> {
        &self.names
    }

    /// The content of a file.
    pub fn content(&self, file: FileId) -> Option<&Arc<Vec<u8>>> {
        self.files.get(&file)
    }

    /// The size of all files with a name.
    pub fn used_bytes(&self) -> usize {
        self.names.values().filter_map(|file| self.files.get(file)).map(|file| file.len()).sum()
    }

    /// Writes into a file. A shorter file grows, with zeros in between.
    pub fn write(&mut self, file: FileId, offset: usize, bytes: &[u8]) {
        let content = Arc::make_mut(self.files.entry(file).or_default());
        let end = offset + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset..end].copy_from_slice(bytes);
    }

    /// Replaces the content of a file.
    pub(super) fn replace(&mut self, file: FileId, content: Vec<u8>) {
        self.files.insert(file, Arc::new(content));
    }

    fn rename(&mut self, from: Name, to: Name, file: FileId) {
        if self.names.get(&from) == Some(&file) {
            self.names.remove(&from);
        }
        self.names.insert(to, file);
    }

    /// Applies the sectors of a change for which `keep` is true.
    fn apply(&mut self, pending: &Pending, mut keep: impl FnMut(usize) -> bool) {
        match pending {
            Pending::Write(file, offset, bytes) => {
                let sectors = bytes.chunks(SECTOR_BYTES).enumerate();
                let mut kept = sectors.filter(|(sector, _)| keep(*sector)).peekable();
                // Adjacent sectors are written together, because this takes most of the time of
                // building an image.
                while let Some((first, _)) = kept.next() {
                    let mut last = first;
                    while let Some((next, _)) = kept.next_if(|(next, _)| *next == last + 1) {
                        last = next;
                    }
                    let start = first * SECTOR_BYTES;
                    let end = ((last + 1) * SECTOR_BYTES).min(bytes.len());
                    self.write(*file, *offset as usize + start, &bytes[start..end]);
                }
            }
            Pending::Link(name, file) if keep(0) => {
                self.names.insert(*name, *file);
            }
            Pending::Rename(from, to, file) if keep(0) => self.rename(*from, *to, *file),
            Pending::Unlink(name) if keep(0) => {
                self.names.remove(name);
            }
            _ => {}
        }
    }

    fn forget_unnamed(&mut self) {
        let names = &self.names;
        self.files.retain(|file, _| names.values().any(|named| named == file));
    }
}

impl Volume {
    /// A disk with this content, all of it durable.
    pub fn of(image: Image) -> Self {
        Self { live: image.clone(), durable: image, pending: Vec::new() }
    }

    /// What reads see.
    pub fn live(&self) -> &Image {
        &self.live
    }

    /// What survives a power cut for certain.
    pub fn durable(&self) -> &Image {
        &self.durable
    }

    /// What a power cut may undo, oldest first.
    pub fn pending(&self) -> &[Pending] {
        &self.pending
    }

    /// Applies a step.
    pub fn make(&mut self, step: &Step) {
        match step {
            Step::Create(name, file) => {
                self.live.names.insert(*name, *file);
                self.live.files.insert(*file, Arc::default());
                self.pending.push(Pending::Link(*name, *file));
            }
            Step::Write(file, offset, bytes) => {
                self.live.write(*file, *offset as usize, bytes);
                self.pending.push(Pending::Write(*file, *offset, Arc::clone(bytes)));
            }
            Step::Rename(from, to) => {
                if let Some(file) = self.live.file(*from) {
                    self.live.rename(*from, *to, file);
                    self.pending.push(Pending::Rename(*from, *to, file));
                }
            }
            Step::Unlink(name) => {
                self.live.names.remove(name);
                self.pending.push(Pending::Unlink(*name));
            }
            Step::Sync(file) => {
                self.settle(|pending| matches!(pending, Pending::Write(of, ..) if of == file));
                self.durable.files.entry(*file).or_default();
            }
            Step::SyncDirectory => {
                self.settle(|pending| !matches!(pending, Pending::Write(..)));
                self.live.forget_unnamed();
                let live = &self.live.files;
                self.durable.files.retain(|file, _| live.contains_key(file));
            }
        }
    }

    /// The image after a power cut. `keep` decides which sectors of the pending changes are kept,
    /// by index of the change and of the sector in it.
    pub fn image(&self, mut keep: impl FnMut(usize, usize) -> bool) -> Image {
        let mut image = self.durable.clone();
        for (index, pending) in self.pending.iter().enumerate() {
            image.apply(pending, |sector| keep(index, sector));
        }
        // A name may be kept although nothing was kept of what was written to its file.
        for file in image.names.values() {
            image.files.entry(*file).or_default();
        }
        image
    }

    fn settle(&mut self, becomes_durable: impl Fn(&Pending) -> bool) {
        let durable = &mut self.durable;
        self.pending.retain(|pending| {
            let settled = becomes_durable(pending);
            if settled {
                durable.apply(pending, |_| true);
            }
            !settled
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileId = FileId(1);

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_any_part_of_the_rest() {
        let mut volume = Volume::default();
        volume.make(&Step::Create(Name::Laying(4), FILE));
        volume.make(&Step::Write(FILE, 0, vec![1; 2 * SECTOR_BYTES].into()));
        assert_eq!(volume.image(|_, _| false).segments().count(), 0);
        volume.make(&Step::Sync(FILE));
        volume.make(&Step::Rename(Name::Laying(4), Name::Segment(4)));
        assert_eq!(volume.image(|_, _| false).names().len(), 0);
        assert_eq!(volume.image(|index, _| index == 0).segments().count(), 0);
        assert_eq!(volume.image(|_, _| true).segments().count(), 1);
        volume.make(&Step::SyncDirectory);
        volume.make(&Step::Write(FILE, 0, vec![2; 2 * SECTOR_BYTES].into()));
        for (first, second) in [(true, false), (false, true), (true, true)] {
            let image = volume.image(|_, sector| if sector == 0 { first } else { second });
            let (_, content) = image.segments().next().unwrap();
            assert_eq!(content[0], 1 + u8::from(first));
            assert_eq!(content[SECTOR_BYTES], 1 + u8::from(second));
            assert_eq!(content.len(), 2 * SECTOR_BYTES);
        }
        assert_eq!(volume.live().segments().next().unwrap().1[0], 2);
    }

    #[test]
    fn names_come_back_that_were_removed_without_a_sync() {
        let mut volume = Volume::default();
        volume.make(&Step::Create(Name::Segment(1), FILE));
        volume.make(&Step::Write(FILE, 0, vec![7; SECTOR_BYTES].into()));
        volume.make(&Step::Sync(FILE));
        volume.make(&Step::SyncDirectory);
        volume.make(&Step::Unlink(Name::Segment(1)));
        assert_eq!(volume.live().segments().count(), 0);
        assert_eq!(volume.image(|_, _| false).segments().next().unwrap().1[0], 7);
        assert_eq!(volume.image(|_, _| true).segments().count(), 0);
        volume.make(&Step::SyncDirectory);
        assert_eq!(volume.image(|_, _| false).segments().count(), 0);
    }
}

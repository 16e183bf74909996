//! A made-up disk for the log of one shard.
//!
//! It carries out operations in the smallest steps between which the power can be cut. Steps of
//! different operations come in any order, each after a random delay. See [`volume`] for what a
//! power cut leaves and [`flaw`] for what may go wrong.

pub mod flaw;
mod rot;
pub mod volume;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use leveret_broker::id::Instant;
use leveret_broker::storage::log::BLOCK_BYTES;
use leveret_broker::storage::log::blocks::Blocks;
use leveret_broker::storage::log::operation::{DiskError, DiskEvent, DiskOperation};

use crate::random::Random;

use self::flaw::{DiskFaults, Failure, Flaw};
use self::volume::{FileId, Image, Name, SECTOR_BYTES, Step, Volume};

/// The percentage of opportunities at which a flawed disk goes wrong.
const FLAW_PERCENT: u64 = 20;

/// The disk of one log.
#[derive(Debug)]
pub struct Disk {
    volume: Volume,
    faults: DiskFaults,
    flaw: Option<Flaw>,
    tasks: Vec<Task>,
    steps: u64,
    files: u32,
    /// How many new files are still refused for lack of space.
    refusals: u32,
    /// The offset, by segment, below which nothing may be written again.
    written: BTreeMap<u32, u32>,
    /// The live image before the last write.
    before: Image,
    recorded: Option<Vec<Step>>,
    breach: Option<String>,
}

/// An operation in progress.
#[derive(Debug)]
struct Task {
    operation: DiskOperation,
    /// The bytes of a commit, which its write step shares with the images.
    bytes: Arc<[u8]>,
    actions: VecDeque<Action>,
    due: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Create,
    LayOut,
    SyncLaid,
    Name,
    SyncDirectory,
    Write,
    Sync,
    Read,
    Remove,
    Answer,
}

impl Disk {
    /// An empty disk.
    pub fn new(faults: DiskFaults) -> Self {
        Self {
            volume: Volume::default(),
            faults,
            flaw: None,
            tasks: Vec::new(),
            steps: 0,
            files: 0,
            refusals: 0,
            written: BTreeMap::new(),
            before: Image::default(),
            recorded: None,
            breach: None,
        }
    }

    /// From now on the disk has this flaw.
    pub fn plant(&mut self, flaw: Flaw) {
        self.flaw = Some(flaw);
    }

    /// From now on steps are kept for [`Self::take_steps`].
    pub fn record(&mut self) {
        self.recorded = Some(Vec::new());
    }

    /// The steps since the last call.
    pub fn take_steps(&mut self) -> Vec<Step> {
        self.recorded.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The live and the durable image.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// Steps made over the life of the disk.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// An operation of the log that breaks its contract with the disk.
    pub fn breach(&self) -> Option<&str> {
        self.breach.as_deref()
    }

    /// Accepts an operation.
    pub fn submit(&mut self, operation: DiskOperation, now: Instant, random: &mut Random) {
        let bytes = match &operation {
            DiskOperation::Commit { blocks, .. } => Arc::from(blocks.as_slice()),
            _ => Arc::default(),
        };
        let actions = self.plan(&operation, random);
        let due = self.delayed(now, random);
        self.tasks.push(Task { operation, bytes, actions, due });
    }

    /// Whether no operation is in progress.
    pub fn is_idle(&self) -> bool {
        self.tasks.is_empty()
    }

    /// When the next step is possible.
    pub fn next_due(&self) -> Option<Instant> {
        self.possible().map(|index| self.tasks[index].due).min()
    }

    /// Tasks that may continue. Of the tasks that create or remove files, only the oldest may.
    fn possible(&self) -> impl Iterator<Item = usize> {
        let of_files = |task: &Task| {
            let kind = &task.operation;
            matches!(kind, DiskOperation::Prepare { .. } | DiskOperation::Remove { .. })
        };
        let first = self.tasks.iter().position(of_files);
        let ordered = self.flaw != Some(Flaw::FilesOutOfOrder);
        (0..self.tasks.len()).filter(move |index| {
            !ordered || !of_files(&self.tasks[*index]) || Some(*index) == first
        })
    }

    /// Makes a random step out of those that are due. Returns an event if it was the last step of
    /// an operation.
    pub fn step(&mut self, now: Instant, random: &mut Random) -> Option<DiskEvent> {
        let due = self.possible().filter(|index| self.tasks[*index].due <= now);
        let due: Vec<usize> = due.collect();
        let index = *due.get(random.index(due.len()))?;
        let mut task = self.tasks.remove(index);
        task.due = self.delayed(now, random);
        let event = self.advance(&mut task, random);
        if !task.actions.is_empty() {
            self.tasks.insert(index, task);
        }
        event
    }

    /// Continues with this image: what a power cut has left, or the live image after the process
    /// was killed, which the next process syncs before it believes anything in it.
    pub fn reboot(&mut self, image: Image) {
        self.tasks.clear();
        // A process may not write to segments of an earlier process.
        self.written = image.segments().map(|(number, _)| (number, u32::MAX)).collect();
        self.volume = Volume::of(image);
        let laying = self.volume.live().names().keys().copied();
        let laying: Vec<Name> = laying.filter(|name| matches!(name, Name::Laying(_))).collect();
        for name in laying {
            self.make(Step::Unlink(name));
        }
        self.make(Step::SyncDirectory);
    }

    /// The process was killed, while the disk continues. The next process syncs before it reads.
    pub fn kill(&mut self) {
        self.tasks.clear();
        self.written =
            self.volume.live().segments().map(|(number, _)| (number, u32::MAX)).collect();
        if self.flaw == Some(Flaw::NoSyncAtBoot) {
            return;
        }
        let files: Vec<FileId> = self.volume.live().names().values().copied().collect();
        for file in files {
            self.make(Step::Sync(file));
        }
        self.make(Step::SyncDirectory);
    }

    fn delayed(&self, now: Instant, random: &mut Random) -> Instant {
        let stalls = random.chance(self.faults.stall_percent);
        let most = if stalls { self.faults.stall_max_ns } else { self.faults.step_max_ns };
        now.after(random.below(most + 1))
    }

    fn plan(&mut self, operation: &DiskOperation, random: &mut Random) -> VecDeque<Action> {
        use Action::{
            Answer, Create, LayOut, Name, Read, Remove, Sync, SyncDirectory, SyncLaid, Write,
        };
        let flawed = |flaw| self.flaw == Some(flaw);
        let strikes = random.chance(FLAW_PERCENT);
        let actions: &[Action] = match operation {
            DiskOperation::Prepare { recycled: None, .. } if flawed(Flaw::NoDirectorySync) => {
                &[Create, LayOut, SyncLaid, Name, Answer]
            }
            DiskOperation::Prepare { recycled: None, .. } => {
                &[Create, LayOut, SyncLaid, Name, SyncDirectory, Answer]
            }
            DiskOperation::Prepare { .. } if flawed(Flaw::NoDirectorySync) => &[Name, Answer],
            DiskOperation::Prepare { .. } => &[Name, SyncDirectory, Answer],
            DiskOperation::Commit { .. } if flawed(Flaw::AcknowledgeUnsynced) && strikes => {
                &[Write, Answer, Sync]
            }
            DiskOperation::Commit { .. } if flawed(Flaw::AcknowledgeUnwritten) && strikes => {
                &[Answer, Write, Sync]
            }
            DiskOperation::Commit { .. } if flawed(Flaw::DropSync) && strikes => &[Write, Answer],
            DiskOperation::Commit { .. } => &[Write, Sync, Answer],
            DiskOperation::Read { .. } => &[Read],
            DiskOperation::Remove { .. } => &[Remove, SyncDirectory, Answer],
        };
        actions.iter().copied().collect()
    }

    fn advance(&mut self, task: &mut Task, random: &mut Random) -> Option<DiskEvent> {
        let action = task.actions.pop_front()?;
        if let Some(error) = self.failure(action, task, random) {
            task.actions.clear();
            return Some(answer(&mut task.operation, Err(error)));
        }
        match action {
            Action::Answer => return Some(self.finish(task)),
            Action::Read => return Some(self.read(&task.operation)),
            _ => {}
        }
        match &task.operation {
            DiskOperation::Prepare { segment, size_bytes, recycled } => {
                self.prepare(action, *segment, *size_bytes, *recycled);
            }
            DiskOperation::Commit { segment, offset, .. } => {
                let (segment, offset) = (*segment, *offset);
                self.commit(action, segment, offset, &task.bytes, random);
            }
            DiskOperation::Remove { segment, .. } => {
                self.make(match action {
                    Action::Remove => Step::Unlink(Name::Segment(*segment)),
                    _ => Step::SyncDirectory,
                });
            }
            DiskOperation::Read { .. } => {}
        }
        None
    }

    /// Whether this step fails. The part of a failing write that is done nevertheless is applied.
    fn failure(&mut self, action: Action, task: &Task, random: &mut Random) -> Option<DiskError> {
        let failure = self.faults.failure.filter(|(at, _)| *at == self.steps);
        self.steps += 1;
        if let Some((_, Failure::Full(refusals))) = failure {
            self.refusals = refusals;
        }
        if self.refusals > 0 && action == Action::LayOut {
            self.refusals -= 1;
            if let DiskOperation::Prepare { segment, .. } = task.operation {
                self.make(Step::Unlink(Name::Laying(segment)));
            }
            return Some(DiskError::Full);
        }
        let (_, failure) = failure.filter(|(_, failure)| !matches!(failure, Failure::Full(_)))?;
        if let (Action::Write, DiskOperation::Commit { segment, offset, .. }) =
            (action, &task.operation)
        {
            let sectors = task.bytes.len() / SECTOR_BYTES;
            let done = random.index(sectors) * SECTOR_BYTES;
            self.write(*segment, *offset, task.bytes[..done].into());
        }
        // A failed removal is not reported.
        let reported = !matches!(task.operation, DiskOperation::Remove { .. });
        reported.then(|| failure.error())
    }

    fn prepare(&mut self, action: Action, segment: u32, size_bytes: u32, recycled: Option<u32>) {
        let (laying, named) = (Name::Laying(segment), Name::Segment(segment));
        match action {
            Action::Create => {
                self.files += 1;
                self.make(Step::Create(laying, FileId(self.files)));
            }
            Action::LayOut | Action::SyncLaid => {
                let Some(file) = self.volume.live().file(laying) else { return };
                self.make(match action {
                    Action::LayOut => Step::Write(file, 0, vec![0; size_bytes as usize].into()),
                    _ => Step::Sync(file),
                });
            }
            Action::Name => {
                if self.volume.live().file(named).is_some() {
                    self.complain(format!("segment {segment} is prepared and exists"));
                }
                let from = recycled.map_or(laying, |old| Name::Segment(self.recyclable(old)));
                if self.volume.live().file(from).is_none() {
                    self.complain(format!(
                        "{from:?} is to be segment {segment} and does not exist"
                    ));
                }
                self.written.insert(segment, 0);
                self.make(Step::Rename(from, named));
            }
            _ => self.make(Step::SyncDirectory),
        }
    }

    /// The segment whose file is recycled: the right one, unless the disk has a flaw.
    fn recyclable(&self, old: u32) -> u32 {
        if self.flaw != Some(Flaw::RecycleWrongFile) {
            return old;
        }
        let mut others = self.volume.live().segments().map(|(number, _)| number);
        others.find(|number| *number != old).unwrap_or(old)
    }

    fn commit(
        &mut self,
        action: Action,
        segment: u32,
        offset: u32,
        bytes: &Arc<[u8]>,
        random: &mut Random,
    ) {
        if action == Action::Sync {
            if let Some(file) = self.volume.live().file(Name::Segment(segment)) {
                self.make(Step::Sync(file));
            }
            return;
        }
        let strikes = random.chance(FLAW_PERCENT);
        match self.flaw.filter(|_| strikes) {
            Some(Flaw::IgnoreShortWrite) => {
                let done = random.index(bytes.len() / SECTOR_BYTES) * SECTOR_BYTES;
                self.write(segment, offset, bytes[..done].into());
            }
            Some(Flaw::WrongOffset) => {
                self.write(segment, offset + BLOCK_BYTES as u32, Arc::clone(bytes));
            }
            _ => {
                self.check_commit(segment, offset, bytes.len());
                self.write(segment, offset, Arc::clone(bytes));
            }
        }
    }

    /// Checks that a commit overwrites no acknowledged data and does not go beyond the file.
    fn check_commit(&mut self, segment: u32, offset: u32, length: usize) {
        let file = self.volume.live().file(Name::Segment(segment));
        let size = file.and_then(|file| self.volume.live().content(file)).map(|file| file.len());
        let aligned =
            (offset as usize).is_multiple_of(BLOCK_BYTES) && length.is_multiple_of(BLOCK_BYTES);
        let fits = size.is_some_and(|size| offset as usize + length <= size);
        let behind = self.written.get(&segment).is_some_and(|written| *written <= offset);
        if !(aligned && fits && behind) {
            let written = self.written.get(&segment);
            self.complain(format!(
                "commit of {length} bytes at {offset} of segment {segment}, \
                 of {size:?} bytes and written up to {written:?}"
            ));
        }
    }

    fn write(&mut self, segment: u32, offset: u32, bytes: Arc<[u8]>) {
        self.before = self.volume.live().clone();
        if let Some(file) = self.volume.live().file(Name::Segment(segment)) {
            self.make(Step::Write(file, offset, bytes));
        }
    }

    fn read(&self, operation: &DiskOperation) -> DiskEvent {
        let DiskOperation::Read { read, segment, offset, length } = operation else {
            unreachable!("only reads are planned as such");
        };
        let stale = self.flaw == Some(Flaw::StaleRead);
        let image = if stale { &self.before } else { self.volume.live() };
        let (start, end) = (*offset as usize, (*offset + *length) as usize);
        let file = image.file(Name::Segment(*segment)).and_then(|file| image.content(file));
        let result = match file.and_then(|content| content.get(start..end)) {
            Some(bytes) => {
                let mut blocks = Blocks::with_capacity(bytes.len());
                blocks.extend(bytes);
                Ok(blocks)
            }
            None => Err(DiskError::Failed(format!("segment {segment} has no {start}..{end}"))),
        };
        DiskEvent::Read { read: *read, result }
    }

    fn finish(&mut self, task: &mut Task) -> DiskEvent {
        if let DiskOperation::Commit { segment, offset, blocks } = &task.operation {
            let end = offset + blocks.len() as u32;
            self.written.insert(*segment, end);
        }
        answer(&mut task.operation, Ok(()))
    }

    fn make(&mut self, step: Step) {
        self.volume.make(&step);
        if let Some(recorded) = &mut self.recorded {
            recorded.push(step);
        }
    }

    fn complain(&mut self, what: String) {
        self.breach.get_or_insert(what);
    }
}

fn answer(operation: &mut DiskOperation, result: Result<(), DiskError>) -> DiskEvent {
    match operation {
        DiskOperation::Prepare { segment, .. } => DiskEvent::Prepared { segment: *segment, result },
        DiskOperation::Commit { segment, offset, blocks } => {
            let blocks = std::mem::take(blocks);
            DiskEvent::Committed { segment: *segment, offset: *offset, blocks, result }
        }
        DiskOperation::Read { read, .. } => {
            let result = result.map(|()| Blocks::default());
            DiskEvent::Read { read: *read, result }
        }
        DiskOperation::Remove { segment, .. } => DiskEvent::Removed { segment: *segment },
    }
}

//! Reads, writes and flushes of ordinary files.
//!
//! The ring owns buffer and file of each operation from the call to its [`Completion::File`],
//! because the kernel may use the memory all that time, however long a disk takes and whatever the
//! caller drops. Nothing is retried or continued here: the caller decides what to do about a short
//! or failed write.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::{opcode, squeue, types};

use crate::completion::Completion;
use crate::queue::Completed;
use crate::ring::Ring;
use crate::token::{Kind, Token};

/// File operations under way at once per ring. A log has one write and a few dozen reads under way,
/// and operations beyond a device's own queue (64 to 1,024) only wait there.
const OPERATIONS_MAX: usize = 1_024;

/// When a write completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteUntil {
    /// When the bytes are in the page cache, or with `O_DIRECT` in the device's cache.
    Taken,
    /// When the bytes are durable on the device (`RWF_DSYNC`), as after an `fdatasync(2)`.
    Durable,
}

impl Ring {
    /// Writes `bytes[range]` to the file from `offset` on, in one piece. Reported as
    /// [`Completion::File`] with the bytes written, which may be fewer. With `O_DIRECT`, address,
    /// length and offset have to be aligned as the file system wants.
    ///
    /// # Panics
    /// When the range is not inside of `bytes` or longer than 2 GiB, which no write takes at once.
    pub fn write_file(
        &mut self,
        file: &Arc<File>,
        bytes: Vec<u8>,
        range: Range<usize>,
        offset: u64,
        until: WriteUntil,
        token: u64,
    ) {
        let part = &bytes[range];
        let (address, length) = (part.as_ptr(), length_of(part));
        let flags = match until {
            WriteUntil::Taken => 0,
            WriteUntil::Durable => libc::RWF_DSYNC,
        };
        let descriptor = types::Fd(file.as_raw_fd());
        let entry = opcode::Write::new(descriptor, address, length).offset(offset).rw_flags(flags);
        let under_way = UnderWay { file: Arc::clone(file), bytes, token };
        // SAFETY: the address is that of `length` initialised bytes in the heap memory of `bytes`,
        // which goes into the operation unchanged, with the file.
        unsafe { self.push_file(under_way, entry.build()) };
    }

    /// Fills `bytes[range]` from the file at `offset`. Reported as [`Completion::File`] with the
    /// bytes read, which are fewer at the end of the file. Alignment as for [`Ring::write_file`].
    ///
    /// # Panics
    /// As [`Ring::write_file`].
    pub fn read_file(
        &mut self,
        file: &Arc<File>,
        mut bytes: Vec<u8>,
        range: Range<usize>,
        offset: u64,
        token: u64,
    ) {
        let part = &mut bytes[range];
        let (address, length) = (part.as_mut_ptr(), length_of(part));
        let descriptor = types::Fd(file.as_raw_fd());
        let entry = opcode::Read::new(descriptor, address, length).offset(offset);
        let under_way = UnderWay { file: Arc::clone(file), bytes, token };
        // SAFETY: the address is that of `length` bytes in the heap memory of `bytes`, exclusively
        // ours, which goes into the operation unchanged, with the file.
        unsafe { self.push_file(under_way, entry.build()) };
    }

    /// Makes all data written to the file durable, with the metadata needed to read it
    /// (`fdatasync(2)`). Reported as [`Completion::File`] without bytes. Covers only writes that
    /// completed before.
    pub fn sync_file(&mut self, file: &Arc<File>, token: u64) {
        let descriptor = types::Fd(file.as_raw_fd());
        let entry = opcode::Fsync::new(descriptor).flags(types::FsyncFlags::DATASYNC).build();
        let under_way = UnderWay { file: Arc::clone(file), bytes: Vec::new(), token };
        // SAFETY: a flush points to nothing, and the file goes into the operation.
        unsafe { self.push_file(under_way, entry) };
    }

    /// File operations that have not been reported.
    pub fn files_under_way(&self) -> usize {
        self.files.under_way
    }

    /// # Safety
    /// What the entry points to must be the heap memory of `under_way.bytes`, its descriptor that
    /// of `under_way.file`.
    unsafe fn push_file(&mut self, under_way: UnderWay, entry: squeue::Entry) {
        match self.files.start(under_way) {
            Ok(token) => {
                // SAFETY: `files` keeps buffer and file until the completion takes them out in
                // `on_file`, and `Ring::drop` gives them up rather than free them before.
                unsafe { self.queue.push(entry.user_data(token.pack())) };
            }
            Err(refused) => self.ready.push(refused.report(Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                format!("more than {OPERATIONS_MAX} file operations at once"),
            )))),
        }
    }

    pub(crate) fn on_file(&mut self, done: Completed, completions: &mut Vec<Completion>) {
        match self.files.end(done.token) {
            Some(ended) => completions.push(ended.report(done.length())),
            None => self.queue.counters.stale_completions += 1,
        }
    }
}

/// The memory and the file that the kernel uses until the operation completes.
struct UnderWay {
    /// Closed with its last operation at the earliest.
    #[expect(dead_code, reason = "held, not used")]
    file: Arc<File>,
    bytes: Vec<u8>,
    token: u64,
}

impl UnderWay {
    fn report(self, result: io::Result<usize>) -> Completion {
        Completion::File { token: self.token, bytes: self.bytes, result }
    }
}

/// The operations under way, by slot.
#[derive(Default)]
pub(crate) struct Files {
    slots: Vec<Slot>,
    free: Vec<u32>,
    under_way: usize,
}

#[derive(Default)]
struct Slot {
    /// Counts the operations, so that a completion is never taken for that of a later one.
    generation: u32,
    operation: Option<UnderWay>,
}

impl Files {
    /// Adds an operation; gives it back if [`FILE_OPERATIONS_MAX`] are under way.
    fn start(&mut self, operation: UnderWay) -> Result<Token, UnderWay> {
        let number = match self.free.pop() {
            Some(number) => number,
            None if self.slots.len() < OPERATIONS_MAX => {
                self.slots.push(Slot::default());
                self.slots.len() as u32 - 1
            }
            None => return Err(operation),
        };
        let slot = &mut self.slots[number as usize];
        slot.generation = slot.generation.wrapping_add(1);
        slot.operation = Some(operation);
        self.under_way += 1;
        Ok(Token::new(Kind::File, number, slot.generation))
    }

    fn end(&mut self, token: Token) -> Option<UnderWay> {
        let slot = self.slots.get_mut(token.slot as usize)?;
        let ended = slot.operation.take_if(|_| slot.generation == token.generation)?;
        self.free.push(token.slot);
        self.under_way -= 1;
        Some(ended)
    }
}

fn length_of(part: &[u8]) -> u32 {
    let length = i32::try_from(part.len());
    length.expect("no read or write moves 2 GiB at once").cast_unsigned()
}

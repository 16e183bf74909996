//! The disk on real files, with a real ring and with blocking calls.

use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use leveret_ring::{Completion, RingConfig, Wait};

use super::blocking::BlockingDisk;
use super::*;
use crate::clock::Clock;

const SIZE: u32 = 256 << 10;
const BLOCK: u32 = BLOCK_BYTES as u32;

/// More turns than any step takes on a loaded machine; reached only if something is wrong.
const PATIENCE_TURNS: usize = 2_000;

fn storage(root: &Path, access: Access, durability: Durability) -> Storage {
    Storage { layout: Layout::new(root), access, durability }
}

/// All storage modes that this machine supports.
fn storages(root: &Path) -> Vec<Storage> {
    let found = probe::probe(root).unwrap();
    let direct = found.storage(Layout::new(root), Durability::Flush);
    let buffered = |durability| storage(root, Access::Buffered, durability);
    vec![direct, buffered(Durability::Flush), buffered(Durability::Os)]
}

/// A shard's disk with its ring; the files thread ends with them.
struct World {
    disk: Disk,
    ring: Ring,
    clock: Clock,
}

impl World {
    fn new(storage: &Storage) -> Self {
        let (requests, work) = files::channel(1);
        let of_files = storage.clone();
        thread::spawn(move || files::run(&of_files, &work));
        let config = RingConfig { sockets_max: 1, buffer_count: 4, ..RingConfig::default() };
        let ring = Ring::new(&config).unwrap();
        let disk = Disk::new(3, storage.clone(), requests, ring.wake_target().waker());
        Self { disk, ring, clock: Clock::start() }
    }

    fn begin(&mut self, operation: DiskOperation) {
        self.disk.carry_out(operation, &mut self.ring, self.clock.now());
    }

    fn event(&mut self) -> DiskEvent {
        let mut completions = Vec::new();
        for _ in 0..PATIENCE_TURNS {
            let now = self.clock.now();
            if let Some(event) = self.disk.poll_event(&mut self.ring, now) {
                return event;
            }
            let wait = Wait::Until(Duration::from_millis(10));
            self.ring.turn(wait, &mut completions).unwrap();
            let now = self.clock.now();
            for completion in completions.drain(..) {
                if let Completion::File { token, bytes, result } = completion {
                    self.disk.complete(token, bytes, result, &mut self.ring, now);
                }
            }
        }
        panic!("nothing happened");
    }

    fn do_one(&mut self, operation: DiskOperation) -> DiskEvent {
        self.begin(operation);
        self.event()
    }
}

fn prepare(segment: u32, recycled: Option<u32>) -> DiskOperation {
    DiskOperation::Prepare { segment, size_bytes: SIZE, recycled }
}

fn commit(segment: u32, offset: u32, value: u8, count: usize) -> DiskOperation {
    let mut blocks = Blocks::with_capacity(count * BLOCK_BYTES);
    blocks.extend(&vec![value; count * BLOCK_BYTES]);
    DiskOperation::Commit { segment, offset, blocks }
}

fn read(number: u64, segment: u32, offset: u32, length: u32) -> DiskOperation {
    DiskOperation::Read { read: ReadId(number), segment, offset, length }
}

fn assert_prepared(event: DiskEvent, expected: u32) {
    let DiskEvent::Prepared { segment, result } = event else { panic!("{event:?}") };
    assert_eq!((segment, result), (expected, Ok(())));
}

fn assert_committed(event: DiskEvent, expected: (u32, u32)) -> Blocks {
    let DiskEvent::Committed { segment, offset, blocks, result } = event else {
        panic!("{event:?}")
    };
    assert_eq!(((segment, offset), result), (expected, Ok(())));
    blocks
}

fn read_result(event: DiskEvent, number: u64) -> Result<Vec<u8>, DiskError> {
    let DiskEvent::Read { read, result } = event else { panic!("{event:?}") };
    assert_eq!(read, ReadId(number));
    result.map(|blocks| blocks.as_slice().to_vec())
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn await_removals(world: &mut World, count: usize) {
    for _ in 0..count {
        let event = world.event();
        assert!(matches!(event, DiskEvent::Removed { .. }), "{event:?}");
    }
}

#[test]
fn a_segment_is_prepared_written_read_recycled_and_removed() {
    let root = tempfile::tempdir().unwrap();
    for (round, storage) in storages(root.path()).into_iter().enumerate() {
        let first = 10 * round as u32 + 1;
        let layout = &storage.layout;
        let mut world = World::new(&storage);
        assert_prepared(world.do_one(prepare(first, None)), first);
        assert_eq!(std::fs::read(layout.segment(3, first)).unwrap(), vec![0; SIZE as usize]);
        let back = assert_committed(world.do_one(commit(first, BLOCK, 7, 3)), (first, BLOCK));
        assert_eq!(back.len(), 3 * BLOCK_BYTES, "the blocks come back");
        assert_committed(world.do_one(commit(first, 4 * BLOCK, 8, 1)), (first, 4 * BLOCK));
        let bytes = read_result(world.do_one(read(5, first, 0, 5 * BLOCK)), 5).unwrap();
        let expected: Vec<u8> =
            [0, 7, 7, 7, 8].iter().flat_map(|value| [*value; BLOCK_BYTES]).collect();
        assert_eq!(bytes, expected);
        let on_disk = std::fs::read(layout.segment(3, first)).unwrap();
        assert_eq!(on_disk[..expected.len()], expected);

        let second = first + 1;
        assert_prepared(world.do_one(prepare(second, Some(first))), second);
        assert_eq!(names(&layout.shard(3)), [format!("{second:010}.segment")]);
        assert_committed(world.do_one(commit(second, 0, 9, 1)), (second, 0));
        let bytes = read_result(world.do_one(read(6, second, 0, 2 * BLOCK)), 6).unwrap();
        assert_eq!((bytes[0], bytes[BLOCK_BYTES]), (9, 7), "the old content lies behind");

        world.begin(DiskOperation::Remove { segment: second, damaged: round == 0 });
        await_removals(&mut world, 1);
        assert_eq!(names(&layout.shard(3)), Vec::<String>::new());
    }
    assert_eq!(names(&root.path().join("quarantine")), ["shard-0003-0000000002.segment"]);
}

#[test]
fn a_segment_of_an_earlier_run_is_opened_for_its_reads() {
    let root = tempfile::tempdir().unwrap();
    for storage in storages(root.path()) {
        let mut before = BlockingDisk::new(3, storage.clone());
        std::fs::remove_dir_all(storage.layout.shard(3)).unwrap_or_default();
        for segment in 1..=30 {
            assert_prepared(before.carry_out(prepare(segment, None)).unwrap(), segment);
            let operation = commit(segment, 0, segment as u8, 64);
            assert_committed(before.carry_out(operation).unwrap(), (segment, 0));
        }
        let mut world = World::new(&storage);
        // More segments than are kept open, and more reads than the ring gets at once.
        let reads: Vec<(u64, u32)> =
            (0..300).map(|number| (number, 1 + (number * 7 % 30) as u32)).collect();
        for (number, segment) in &reads {
            world.begin(read(*number, *segment, BLOCK, BLOCK));
        }
        let mut seen = BTreeMap::new();
        while seen.len() < reads.len() {
            let DiskEvent::Read { read, result } = world.event() else { panic!() };
            assert!(seen.insert(read.0, result.unwrap().as_slice().to_vec()).is_none());
        }
        for (number, segment) in reads {
            assert_eq!(seen[&number], vec![segment as u8; BLOCK_BYTES]);
        }
    }
}

#[test]
fn what_cannot_be_done_is_said_and_never_done_by_half() {
    let root = tempfile::tempdir().unwrap();
    for storage in storages(root.path()) {
        std::fs::remove_dir_all(storage.layout.shard(3)).unwrap_or_default();
        let mut world = World::new(&storage);
        let failed = |error: DiskError, part: &str| match error {
            DiskError::Failed(reason) => assert!(reason.contains(part), "{reason}"),
            DiskError::Full => panic!("not full"),
        };
        let missing = read_result(world.do_one(read(1, 8, 0, BLOCK)), 1).unwrap_err();
        failed(missing, "cannot open");
        let DiskEvent::Committed { result, blocks, .. } = world.do_one(commit(8, 0, 1, 1)) else {
            panic!()
        };
        assert_eq!(blocks.len(), BLOCK_BYTES);
        failed(result.unwrap_err(), "without having been prepared");
        assert_prepared(world.do_one(prepare(8, None)), 8);
        let behind = read_result(world.do_one(read(2, 8, SIZE - BLOCK, 2 * BLOCK)), 2);
        failed(behind.unwrap_err(), "short read: 4096 of 8192 bytes");
        let DiskEvent::Prepared { result, .. } = world.do_one(prepare(8, None)) else { panic!() };
        failed(result.unwrap_err(), "exists");
        let DiskEvent::Prepared { result, .. } = world.do_one(prepare(9, Some(7))) else {
            panic!()
        };
        failed(result.unwrap_err(), "cannot prepare");
        assert_eq!(names(&storage.layout.shard(3)), ["0000000008.segment"]);
        std::os::unix::fs::symlink("0000000008.segment", storage.layout.segment(3, 5)).unwrap();
        nix::unistd::mkfifo(&storage.layout.segment(3, 6), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (number, segment) in [(3, 5), (4, 6)] {
            let refused = read_result(world.do_one(read(number, segment, 0, BLOCK)), number);
            failed(refused.unwrap_err(), "cannot open");
        }
    }
}

#[test]
fn the_blocking_disk_does_the_same() {
    let root = tempfile::tempdir().unwrap();
    for durability in [Durability::Flush, Durability::Os] {
        let storage = storage(root.path(), Access::Direct, durability);
        let mut disk = BlockingDisk::new(3, storage.clone());
        assert_prepared(disk.carry_out(prepare(1, None)).unwrap(), 1);
        assert_committed(disk.carry_out(commit(1, BLOCK, 4, 2)).unwrap(), (1, BLOCK));
        let bytes = read_result(disk.carry_out(read(1, 1, 0, 4 * BLOCK)).unwrap(), 1).unwrap();
        assert_eq!((bytes[0], bytes[BLOCK_BYTES], bytes[3 * BLOCK_BYTES]), (0, 4, 0));
        assert_prepared(disk.carry_out(prepare(2, Some(1))).unwrap(), 2);
        assert!(read_result(disk.carry_out(read(2, 1, 0, BLOCK)).unwrap(), 2).is_err());
        assert!(read_result(disk.carry_out(read(3, 2, SIZE, BLOCK)).unwrap(), 3).is_err());
        let removed = disk.carry_out(DiskOperation::Remove { segment: 2, damaged: false });
        assert!(matches!(removed, Some(DiskEvent::Removed { segment: 2 })));
        // The file does not exist any more, so it is neither removed nor reported as removed.
        assert!(disk.carry_out(DiskOperation::Remove { segment: 2, damaged: false }).is_none());
        assert_eq!(names(&storage.layout.shard(3)), Vec::<String>::new());
    }
}

#[test]
fn requests_beyond_the_limit_wait_and_are_all_done() {
    let root = tempfile::tempdir().unwrap();
    let storage = storage(root.path(), Access::Buffered, Durability::Os);
    let mut world = World::new(&storage);
    for segment in 1..=60 {
        world.begin(DiskOperation::Prepare { segment, size_bytes: BLOCK, recycled: None });
    }
    (1..=60).for_each(|segment| assert_prepared(world.event(), segment));
    for segment in 1..=60 {
        world.begin(DiskOperation::Remove { segment, damaged: false });
    }
    await_removals(&mut world, 60);
    assert_eq!(names(&storage.layout.shard(3)), Vec::<String>::new());
}

#[test]
fn a_full_disk_is_told_from_a_broken_one() {
    for code in [nix::libc::ENOSPC, nix::libc::EDQUOT] {
        assert_eq!(disk_error("x", io::Error::from_raw_os_error(code)), DiskError::Full);
    }
    let broken = disk_error("cannot write y", io::Error::from_raw_os_error(nix::libc::EIO));
    assert!(matches!(broken, DiskError::Failed(reason) if reason.starts_with("cannot write y: ")));
    assert!(whole(Ok(8), 8, "write").is_ok());
    assert!(whole(Ok(7), 8, "write").unwrap_err().to_string().contains("short write: 7 of 8"));
}

#[test]
fn a_disk_dropped_at_work_leaves_its_thread_to_end() {
    let root = tempfile::tempdir().unwrap();
    let storage = storage(root.path(), Access::Buffered, Durability::Os);
    let (requests, work) = files::channel(1);
    let (ended, end) = mpsc::channel();
    let of_files = storage.clone();
    thread::spawn(move || {
        files::run(&of_files, &work);
        ended.send(()).unwrap();
    });
    let config = RingConfig { sockets_max: 1, buffer_count: 4, ..RingConfig::default() };
    let mut ring = Ring::new(&config).unwrap();
    let mut disk = Disk::new(3, storage, requests, ring.wake_target().waker());
    disk.carry_out(prepare(1, None), &mut ring, Instant(0));
    drop((disk, ring));
    end.recv_timeout(Duration::from_mins(1)).unwrap();
}

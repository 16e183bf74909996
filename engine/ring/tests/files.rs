//! Reads, writes and flushes of ordinary files by a ring.
#![cfg(not(loom))]
#![allow(unexpected_cfgs, reason = "loom builds only the model in src/sleep.rs")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leveret_ring::{Completion, Ring, RingConfig, Wait, WriteUntil};

/// Far beyond what any step takes on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(20);
const BLOCK: usize = 4_096;

fn ring() -> Ring {
    let config = RingConfig { sockets_max: 4, buffer_count: 4, ..RingConfig::default() };
    Ring::new(&config).unwrap()
}

/// A new file of this test, whose name is gone at once. In the build's directory: `/tmp` may be in
/// memory and refuse direct I/O.
fn file(flags: i32) -> io::Result<Arc<File>> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    let path = fresh_path();
    let opened = options.custom_flags(flags).open(&path);
    std::fs::remove_file(&path).unwrap();
    opened.map(Arc::new)
}

fn fresh_path() -> PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("files-{}-{number}", std::process::id());
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

type Ended = (Vec<u8>, io::Result<usize>);

/// Turns until `count` operations ended; by token.
fn ends(ring: &mut Ring, count: usize) -> BTreeMap<u64, Ended> {
    let deadline = Instant::now() + DEADLINE;
    let (mut ended, mut completions) = (BTreeMap::new(), Vec::new());
    while ended.len() < count {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "{} of {count} operations ended", ended.len());
        ring.turn(Wait::Until(left), &mut completions).unwrap();
        for completion in completions.drain(..) {
            if let Completion::File { token, bytes, result } = completion {
                assert!(ended.insert(token, (bytes, result)).is_none(), "{token} ended twice");
            }
        }
    }
    ended
}

fn end(ring: &mut Ring, token: u64) -> Ended {
    ends(ring, 1).remove(&token).unwrap()
}

/// A vector and the offset of its first aligned block, `blocks` of them set to `value`.
fn aligned(value: u8, blocks: usize) -> (Vec<u8>, usize) {
    let bytes = vec![value; (blocks + 1) * BLOCK];
    let start = bytes.as_ptr().align_offset(BLOCK);
    (bytes, start)
}

fn round_trip(flags: i32, until: WriteUntil) {
    let mut ring = ring();
    let file = file(flags).unwrap();
    let (bytes, start) = aligned(7, 2);
    let address = bytes.as_ptr();
    ring.write_file(&file, bytes, start..start + 2 * BLOCK, BLOCK as u64, until, 1);
    let (bytes, result) = end(&mut ring, 1);
    assert_eq!((result.unwrap(), bytes.as_ptr()), (2 * BLOCK, address), "the buffer comes back");
    ring.sync_file(&file, 2);
    let (empty, result) = end(&mut ring, 2);
    assert_eq!((empty.len(), result.unwrap()), (0, 0));
    let (bytes, start) = aligned(1, 3);
    ring.read_file(&file, bytes, start..start + 3 * BLOCK, 0, 3);
    let (bytes, result) = end(&mut ring, 3);
    assert_eq!(result.unwrap(), 3 * BLOCK);
    assert_eq!(bytes[..start], vec![1; start], "bytes before the range are left alone");
    assert_eq!(bytes[start..start + BLOCK], [0; BLOCK]);
    assert_eq!(bytes[start + BLOCK..start + 3 * BLOCK], [7; 2 * BLOCK]);
    assert_eq!(ring.files_under_way(), 0);
}

#[test]
fn what_is_written_is_read() {
    round_trip(0, WriteUntil::Taken);
    round_trip(0, WriteUntil::Durable);
}

#[test]
fn what_is_written_directly_is_read() {
    match file(libc::O_DIRECT) {
        Ok(_) => round_trip(libc::O_DIRECT, WriteUntil::Durable),
        // Not every file system has direct I/O; those that do not say exactly this.
        Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EINVAL)),
    }
}

#[test]
fn a_read_across_the_end_is_short_and_one_behind_it_empty() {
    let mut ring = ring();
    let file = file(0).unwrap();
    file.write_all_at(&[5; 100], 0).unwrap();
    ring.read_file(&file, vec![0; 64], 0..64, 60, 1);
    let (bytes, result) = end(&mut ring, 1);
    assert_eq!(result.unwrap(), 40);
    assert_eq!((&bytes[..40], &bytes[40..]), (&[5; 40][..], &[0; 24][..]));
    ring.read_file(&file, bytes, 0..64, 100, 2);
    assert_eq!(end(&mut ring, 2).1.unwrap(), 0);
}

#[test]
fn a_file_that_cannot_be_written_says_so_and_gives_the_buffer_back() {
    let mut ring = ring();
    let path = fresh_path();
    std::fs::write(&path, b"kept").unwrap();
    let file = Arc::new(File::open(&path).unwrap());
    ring.write_file(&file, vec![1; 4], 0..4, 0, WriteUntil::Taken, 9);
    let (bytes, result) = end(&mut ring, 9);
    assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EBADF));
    assert_eq!(bytes, [1; 4]);
    assert_eq!(std::fs::read(&path).unwrap(), b"kept");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn many_at_once_each_end_once_with_their_own_bytes() {
    const COUNT: usize = 600;
    let mut ring = ring();
    let file = file(0).unwrap();
    for number in 0..COUNT {
        let offset = (number * 512) as u64;
        let bytes = vec![number as u8; 512];
        ring.write_file(&file, bytes, 0..512, offset, WriteUntil::Taken, number as u64);
    }
    assert_eq!(ring.files_under_way(), COUNT);
    assert!(ends(&mut ring, COUNT).values().all(|(_, result)| matches!(result, Ok(512))));
    for number in 0..COUNT {
        ring.read_file(&file, vec![0xff; 512], 0..512, (number * 512) as u64, number as u64);
    }
    for (number, (bytes, result)) in ends(&mut ring, COUNT) {
        assert_eq!((result.unwrap(), bytes), (512, vec![number as u8; 512]));
    }
}

#[test]
fn one_too_many_is_refused_with_its_buffer_and_harms_no_other() {
    let mut ring = ring();
    let file = file(0).unwrap();
    for number in 0..1_025 {
        ring.write_file(&file, vec![3; 8], 0..8, number * 8, WriteUntil::Taken, number);
    }
    let mut ended = ends(&mut ring, 1_025);
    let (bytes, result) = ended.remove(&1_024).unwrap();
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
    assert_eq!(bytes, [3; 8]);
    assert!(ended.values().all(|(_, result)| matches!(result, Ok(8))));
    ring.sync_file(&file, 0);
    end(&mut ring, 0).1.unwrap();
}

#[test]
fn a_file_dropped_by_its_user_stays_open_for_its_operation() {
    let mut ring = ring();
    let file = file(0).unwrap();
    let other = Arc::new(file.try_clone().unwrap());
    ring.write_file(&file, vec![8; 100], 0..100, 0, WriteUntil::Durable, 1);
    let watch = Arc::downgrade(&file);
    drop(file);
    assert!(watch.upgrade().is_some(), "the ring holds it");
    assert_eq!(end(&mut ring, 1).1.unwrap(), 100);
    assert!(watch.upgrade().is_none(), "and lets it go");
    ring.read_file(&other, vec![0; 100], 0..100, 0, 2);
    assert_eq!(end(&mut ring, 2).0, [8; 100]);
}

#[test]
fn a_ring_dropped_with_operations_under_way_ends_them() {
    let file = file(0).unwrap();
    for submitted in [false, true] {
        let mut ring = ring();
        for number in 0..200_u64 {
            let bytes = vec![1; 64 << 10];
            ring.write_file(&file, bytes, 0..64 << 10, number << 16, WriteUntil::Durable, number);
        }
        if submitted {
            ring.turn(Wait::No, &mut Vec::new()).unwrap();
        }
        drop(ring);
        // Only the ring's clones: none is left behind.
        assert_eq!(Arc::strong_count(&file), 1);
    }
}

#[test]
#[should_panic(expected = "range end index 5 out of range")]
fn a_range_outside_of_the_buffer_is_refused() {
    ring().write_file(&file(0).unwrap(), vec![0; 4], 0..5, 0, WriteUntil::Taken, 1);
}

//! Reads segment files in order.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use leveret_broker::storage::log::BLOCK_BYTES;
use leveret_broker::storage::log::recovery::{RecoveredLog, Recovery, Refusal};
use leveret_broker::storage::log::segment::Header;
use tracing::error;

use crate::fail_point;
use crate::failure::Failure;

use super::{Progress, segment_files, unreadable};

/// The size of one read. Larger reads are not faster.
const READ_BYTES: usize = 1 << 20;

/// Reads all segments of one shard.
pub(super) fn read_log(
    shard: u16,
    path: &Path,
    store_id: Option<[u8; 16]>,
    progress: &Progress,
) -> Result<RecoveredLog, Failure> {
    let files = segment_files(path)?;
    for file in files.values() {
        let metadata = fs::metadata(file).map_err(unreadable(file))?;
        progress.bytes_all.fetch_add(metadata.len(), Ordering::Relaxed);
    }
    let ends = ends(&files);
    let mut recovery = Recovery::new(store_id, shard);
    for (number, path) in &files {
        let end = ends.get(number).map_or(u64::MAX, |end| u64::from(*end));
        let mut at = 0;
        let refused = |refusal: Refusal| {
            let remedy = match refusal {
                Refusal::Format { .. } | Refusal::Newer { .. } => {
                    "Start the version of Leveret that wrote it"
                }
                Refusal::ForeignStore { .. } | Refusal::OtherShard { .. } => {
                    "Move the file to where it belongs"
                }
            };
            let reason = format!(
                "{refusal}. Nothing was changed. {remedy}, or start with another --data-dir"
            );
            Failure::Store { path: path.clone(), reason }
        };
        let length = fs::metadata(path).map_err(unreadable(path))?.len();
        recovery.begin(*number, length);
        read_file(path, |bytes| {
            let behind = end.saturating_sub(at).min(bytes.len() as u64) as usize;
            bytes[behind..].fill(0);
            at += bytes.len() as u64;
            recovery.feed(bytes).map_err(refused)?;
            progress.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            progress.messages.store(recovery.held_so_far(), Ordering::Relaxed);
            Ok(())
        })?;
        recovery.end().map_err(refused)?;
        fail_point::reach("recovery-segment");
    }
    Ok(recovery.finish())
}

/// Where each segment ends according to the header of the next one. Bytes after that end came too
/// late: a killed process had started a write that the kernel completed only after the next process
/// had read the file. Such a write was never confirmed.
fn ends(files: &BTreeMap<u32, PathBuf>) -> BTreeMap<u32, u32> {
    let header = |(number, path): (&u32, &PathBuf)| {
        let mut block = [0; BLOCK_BYTES];
        File::open(path).and_then(|file| file.read_exact_at(&mut block, 0)).ok()?;
        let header = Header::decode(&block).ok().filter(|header| header.segment == *number)?;
        Some(header.previous)
    };
    files.iter().filter_map(header).collect()
}

/// Passes a file's bytes to `take`, piece by piece. Blocks that the disk cannot read are logged and
/// replaced by zeros, so that they count as damage if they matter.
pub(super) fn read_file(
    path: &Path,
    mut take: impl FnMut(&mut [u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let file = File::open(path).map_err(unreadable(path))?;
    let length = file.metadata().map_err(unreadable(path))?.len();
    let mut buffer = vec![0; READ_BYTES];
    let mut at = 0;
    while at < length {
        let piece = &mut buffer[..READ_BYTES.min((length - at) as usize)];
        if file.read_exact_at(piece, at).is_err() {
            read_blocks(&file, path, piece, at);
        }
        take(piece)?;
        at += piece.len() as u64;
    }
    Ok(())
}

fn read_blocks(file: &File, path: &Path, piece: &mut [u8], start: u64) {
    for (index, block) in piece.chunks_mut(BLOCK_BYTES).enumerate() {
        let at = start + (index * BLOCK_BYTES) as u64;
        if let Err(source) = file.read_exact_at(block, at) {
            block.fill(0);
            error!("cannot read {} at {at}: {source}", path.display());
        }
    }
}

/// Reads a record's bytes.
pub(super) fn read_record(path: &Path, offset: u32, length: u32) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length as usize];
    File::open(path)?.read_exact_at(&mut bytes, u64::from(offset))?;
    Ok(bytes)
}

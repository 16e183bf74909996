//! Compares the broker's recovery with the second reader.

use std::collections::{BTreeMap, BTreeSet};

use leveret_broker::storage::log::recovery::{RecoveredLog, Recovery};
use leveret_broker::storage::log::{Place, QueueRef};

use crate::disk::volume::Image;

use super::reader::Reading;

/// Bytes that recovery gets at a time, in turn: whole files, and pieces that cut every record.
const PIECES: [usize; 3] = [1 << 20, 4096, 10_000];

/// Recovers a log with the broker's code.
///
/// # Errors
/// If recovery refuses the log.
pub fn recover(image: &Image, shard: u16) -> Result<RecoveredLog, String> {
    let mut recovery = Recovery::new(None, shard);
    for (turn, (number, bytes)) in image.segments().enumerate() {
        recovery.begin(number, bytes.len() as u64);
        for piece in bytes.chunks(PIECES[turn % PIECES.len()]) {
            recovery.feed(piece).map_err(|refusal| refusal.to_string())?;
        }
        recovery.end().map_err(|refusal| refusal.to_string())?;
    }
    Ok(recovery.finish())
}

/// Compares the broker's recovery of an image with the result of the second reader.
///
/// # Errors
/// The first difference.
pub fn compare(image: &Image, shard: u16, reading: &Reading) -> Result<(), String> {
    let log = recover(image, shard)?;
    let held: BTreeMap<QueueRef, Place> = log
        .messages()
        .map(|(log_id, sequence, place)| (QueueRef { log_id, sequence }, place))
        .collect();
    let read = reading.held.iter().map(|(queue, (place, _))| (*queue, *place));
    if !held.iter().map(|(queue, place)| (*queue, *place)).eq(read.clone()) {
        let missing = read.clone().find(|(queue, place)| held.get(queue) != Some(place));
        let more = held.iter().find(|(queue, _)| !reading.held.contains_key(queue));
        return Err(format!("recovery misses {missing:?} and has {more:?}"));
    }
    if let Some(damage) = log.damage.first().filter(|_| reading.damage.is_empty()) {
        return Err(format!("recovery reports {damage:?}"));
    }
    let unused: BTreeSet<u32> = log.unused.iter().map(|(number, _)| *number).collect();
    let agreed = [
        // Recovery may take the old content of a recycled file for that of a later process.
        ("clean", log.clean == reading.clean || !log.clean && !log.unused.is_empty()),
        // Recovery may also have found a higher epoch in the old content of a recycled file.
        ("epoch", log.highest_epoch >= reading.epoch),
        ("damage", log.damage.is_empty() == reading.damage.is_empty()),
        ("segments", log.segments.keys().eq(reading.begun.keys())),
        ("unused", unused == reading.unused.iter().map(|(number, _)| *number).collect()),
    ];
    if let Some((what, _)) = agreed.iter().find(|(_, agrees)| !agrees) {
        let Reading { clean, epoch, damage, unused, begun, .. } = reading;
        return Err(format!(
            "{what} differs: {clean} {epoch} {damage:?} {unused:?} {begun:?}, \
             recovery: {} {} {:?} {:?} {:?}",
            log.clean, log.highest_epoch, log.damage, log.unused, log.segments
        ));
    }
    for (number, segment) in &log.segments {
        let begun = &reading.begun[number];
        // Naming one segment too many only keeps a file longer; naming one too few loses its
        // settlements.
        if segment.end != begun.end || !segment.settles.is_superset(&begun.settles) {
            return Err(format!("segment {number} differs: {begun:?}, recovery: {segment:?}"));
        }
    }
    Ok(())
}

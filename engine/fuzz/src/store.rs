//! Properties of reading a log back from any bytes.

use std::collections::BTreeMap;

use leveret_broker::id::{Instant, Time, WallTime};
use leveret_broker::storage::log::operation::{DiskEvent, DiskOperation};
use leveret_broker::storage::log::record::{self, Record, Stamp};
use leveret_broker::storage::log::recovery::{RecoveredLog, Recovery, Refusal};
use leveret_broker::storage::log::segment::{Identity, Segments};
use leveret_broker::storage::log::{Log, Position, QueueRef};
use leveret_broker::message::{Body, Likeness, Message};

const IDENTITY: Identity = Identity { store_id: [1; 16], shard: 0, epoch: 1 };
const SEGMENT_BYTES: u32 = 16 << 10;
const AT: Time = Time { now: Instant(0), wall: WallTime(1_000) };

type Files = BTreeMap<u32, Vec<u8>>;

/// What is held can be read where it is said to be, and does not depend on the pieces in which the
/// files are read. Input: an octet that says whether the rest is segments or changes to sound ones.
pub fn recovery(input: &[u8]) {
    let Some((kind, rest)) = input.split_first() else {
        return;
    };
    let mut files = if kind % 2 == 0 { split(rest) } else { sound_files() };
    if kind % 2 == 1 {
        for change in rest.chunks_exact(5) {
            let number = 1 + u32::from(change[0]) % files.len() as u32;
            let at = usize::from(u16::from_le_bytes([change[1], change[2]])) * 7;
            if let Some(file) = files.get_mut(&number) {
                let end = (at + usize::from(change[3]) + 1).min(file.len());
                file.get_mut(at..end).into_iter().flatten().for_each(|octet| *octet ^= change[4]);
            }
        }
    }
    let whole = recover(&files, 1 << 20);
    let pieces = recover(&files, 997);
    let (Ok(whole), Ok(pieces)) = (&whole, &pieces) else {
        assert!(whole.is_err() && pieces.is_err());
        return;
    };
    assert_eq!((&whole.damage, &whole.torn), (&pieces.damage, &pieces.torn));
    assert_eq!(whole.queues, pieces.queues);
    for (log_id, sequence, place) in whole.messages() {
        let file = &files[&place.segment][place.offset as usize..];
        let epoch = u32::from_le_bytes(file[16..20].try_into().unwrap_or_default());
        let position = Position::new(place.segment, place.offset);
        let (length, record) = record::decode(file, Stamp { position, epoch }).expect("a record");
        let Record::Publish(publish) = record else { panic!("{record:?}") };
        assert_eq!(length, place.length as usize);
        let queue = QueueRef { log_id, sequence };
        assert!(publish.queues.iter().any(|found| found == queue));
    }
}

fn split(input: &[u8]) -> Files {
    let length = (input.len() / 3).max(1);
    (1..).zip(input.chunks(length).map(<[u8]>::to_vec)).collect()
}

fn recover(files: &Files, piece_bytes: usize) -> Result<RecoveredLog, Refusal> {
    let mut recovery = Recovery::new(Some(IDENTITY.store_id), IDENTITY.shard);
    for (number, file) in files {
        recovery.begin(*number, file.len() as u64);
        file.chunks(piece_bytes).try_for_each(|piece| recovery.feed(piece))?;
        recovery.end()?;
    }
    Ok(recovery.finish())
}

/// Three segments with messages and settlements.
fn sound_files() -> Files {
    let (mut files, mut places) = (Files::new(), Vec::new());
    let mut log = Log::new(Segments::new(IDENTITY, SEGMENT_BYTES));
    for sequence in 0..60 {
        let queue = QueueRef { log_id: 1 + sequence % 2, sequence };
        let body = vec![sequence as u8; 500];
        let message = Message {
            exchange: b"x",
            routing_key: b"key",
            properties: &[0, 0],
            body: Body::Inline(&body),
            published_at: Instant(0),
            likeness: Likeness::UNKNOWN,
        };
        places.push((queue, log.publish(&message, &[queue], AT)));
        if sequence % 3 == 0 {
            let (queue, place) = places.swap_remove(places.len() / 2);
            log.settle(queue, place, Instant(0));
        }
        while let Some(operation) = log.poll_operation(AT.wall) {
            let event = match operation {
                DiskOperation::Prepare { segment, size_bytes, .. } => {
                    files.insert(segment, vec![0; size_bytes as usize]);
                    DiskEvent::Prepared { segment, result: Ok(()) }
                }
                DiskOperation::Commit { segment, offset, blocks } => {
                    let at = offset as usize;
                    if let Some(file) = files.get_mut(&segment) {
                        file[at..at + blocks.len()].copy_from_slice(blocks.as_slice());
                    }
                    DiskEvent::Committed { segment, offset, blocks, result: Ok(()) }
                }
                DiskOperation::Read { .. } | DiskOperation::Remove { .. } => continue,
            };
            log.handle(event, Instant(0));
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_and_changed_segments_are_taken() {
        let sound = recover(&sound_files(), 1 << 20).unwrap();
        assert!(sound.damage.is_empty() && sound.messages().count() == 40);
        for at in 0..400_u16 {
            let [low, high] = (at * 5).to_le_bytes();
            recovery(&[1, at as u8, low, high, 3, 0x55]);
        }
        recovery(&[&[0][..], &sound_files().into_values().flatten().collect::<Vec<_>>()].concat());
    }
}

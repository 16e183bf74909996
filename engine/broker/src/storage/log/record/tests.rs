//! Records against the layout that `docs/STORE_FORMAT.md` gives, read by its offsets.

use leveret_amqp::PropertiesBuilder;
use proptest::prelude::*;

use super::super::QueueRef;
use super::*;
use crate::id::{Instant, Time};
use crate::message::{Body, Likeness, Message};

const STAMP: Stamp = Stamp { position: Position(7 << 32 | 4096), epoch: 3 };

/// What a publish record says, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    queues: Vec<QueueRef>,
    exchange: Vec<u8>,
    routing_key: Vec<u8>,
    properties: Vec<u8>,
    body: Vec<u8>,
    arrival: Option<Arrival>,
    extension: Vec<u8>,
}

impl Said {
    fn of(record: &PublishRecord<'_>) -> Self {
        let Body::Inline(body) = record.body else { panic!("{record:?} was read") };
        Self {
            queues: record.queues.iter().collect(),
            exchange: record.exchange.to_vec(),
            routing_key: record.routing_key.to_vec(),
            properties: record.properties.to_vec(),
            body: body.to_vec(),
            arrival: record.arrival,
            extension: record.extension.to_vec(),
        }
    }

    fn record(&self) -> PublishRecord<'_> {
        PublishRecord {
            queues: Queues::Values(&self.queues),
            exchange: &self.exchange,
            routing_key: &self.routing_key,
            properties: &self.properties,
            body: Body::Inline(&self.body),
            arrival: self.arrival,
            extension: &self.extension,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut blocks = Blocks::default();
        self.record().encode(&mut blocks, STAMP);
        assert_eq!(blocks.len(), self.record().length());
        blocks.as_slice().to_vec()
    }

    /// Reads a record by the offsets of the document. One of format 1.0 looks at no flags.
    fn read(bytes: &[u8], minor: u16) -> Self {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let flags = if minor == 0 { 0 } else { bytes[21] };
        let mut at = 64;
        let mut take = |length: usize| {
            at += length;
            bytes[at - length..at].to_vec()
        };
        let queues = take(16 * word(40));
        let queue = |at: usize| QueueRef { log_id: long(64 + at), sequence: long(72 + at) };
        let queues = (0..queues.len()).step_by(16).map(queue).collect();
        let exchange = take(usize::from(bytes[52]));
        let routing_key = take(usize::from(bytes[53]));
        let (properties, body) = (take(word(44)), take(word(48)));
        let arrival = Arrival { at: WallTime(long(56)), priority: bytes[54] };
        let arrival = (flags & 1 != 0).then_some(arrival);
        let mut extension = Vec::new();
        if flags & 2 != 0 {
            let length = take(4);
            extension = take(u32::from_le_bytes(length.try_into().unwrap()) as usize);
        }
        let (rest, minor) = (&bytes[at..], minor);
        assert!(minor == 0 || rest.len() < 8 && rest.iter().all(|byte| *byte == 0));
        Self { queues, exchange, routing_key, properties, body, arrival, extension }
    }
}

fn octets(most: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..most)
}

prop_compose! {
    fn said()(
        queues in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..4),
        (exchange, routing_key) in (octets(256), octets(256)),
        (properties, body, extension) in (octets(40), octets(300), octets(60)),
        (arrival, priority) in (proptest::option::of(any::<u64>()), any::<u8>()),
    ) -> Said {
        let queue = |(log_id, sequence)| QueueRef { log_id, sequence };
        let queues = queues.into_iter().map(queue).collect();
        let arrival = arrival.map(|at| Arrival { at: WallTime(at), priority });
        Said { queues, exchange, routing_key, properties, body, arrival, extension }
    }
}

proptest! {
    #[test]
    fn publish_records_are_what_the_document_says(said in said(), at in any::<usize>()) {
        let mut bytes = said.encode();
        prop_assert_eq!(bytes.len() % 8, 0);
        prop_assert_eq!(&Said::read(&bytes, 1), &said);
        let Some((length, Record::Publish(publish))) = decode(&bytes, STAMP) else {
            return Err(TestCaseError::fail("no publish record"));
        };
        prop_assert_eq!((length, &Said::of(&publish)), (bytes.len(), &said));
        // What 1.0 reads is the same message.
        let older = Said { arrival: None, extension: Vec::new(), ..said };
        prop_assert_eq!(&Said::read(&bytes, 0), &older);
        // And what 1.0 wrote is read without what it did not know.
        let mut blocks = Blocks::default();
        older.record().encode(&mut blocks, STAMP);
        prop_assert_eq!((blocks.as_slice()[21], &blocks.as_slice()[54..64]), (0, &[0; 10][..]));
        // Another bit is no record.
        let bit = at % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(decode(&bytes, STAMP).is_none());
    }

    #[test]
    fn no_bytes_under_a_sound_sum_make_a_reader_fail(
        kind in 0..10_u8,
        flags in 0..8_u8,
        payload in octets(120),
    ) {
        let mut blocks = Blocks::default();
        encode_any(&mut blocks, STAMP, kind, flags, &payload);
        if let Some((length, Record::Publish(publish))) = decode(blocks.as_slice(), STAMP) {
            prop_assert!(publish.length() <= length);
        }
    }
}

#[test]
fn a_message_tells_when_it_came_and_its_priority() {
    let time = Time { now: Instant(900), wall: WallTime(5_000_900) };
    for (priority, expected) in [(None, 0), (Some(0), 0), (Some(200), 200)] {
        let properties = PropertiesBuilder {
            content_type: Some(b"text/plain"),
            delivery_mode: Some(2),
            priority,
            ..PropertiesBuilder::default()
        };
        let properties = properties.finish();
        let message = Message {
            exchange: b"x",
            routing_key: b"key",
            properties: &properties,
            body: Body::Inline(b"body"),
            published_at: Instant(300),
            likeness: Likeness::UNKNOWN,
        };
        let queues = [QueueRef { log_id: 1, sequence: 2 }];
        let record = PublishRecord::of(&message, &queues, time);
        assert_eq!(record.length(), PublishRecord::length_of(&message, queues.len()));
        let said = Said::of(&record);
        assert_eq!(said.arrival, Some(Arrival { at: WallTime(5_000_300), priority: expected }));
        assert_eq!(Said::read(&said.encode(), 1), said);
    }
}

#[test]
fn barriers_tell_the_time_or_do_not() {
    let mut bytes = [0; BARRIER_BYTES];
    encode_barrier(&mut bytes, STAMP, Position(77), WallTime(99));
    let (length, barrier) = decode(&bytes, STAMP).unwrap();
    let expected = BarrierRecord { synced_upto: Position(77), written_at: Some(WallTime(99)) };
    assert!(matches!(barrier, Record::Barrier(said) if said == expected), "{barrier:?}");
    assert_eq!((length, bytes[40], bytes[48]), (56, 77, 99));
    let mut blocks = Blocks::default();
    encode_any(&mut blocks, STAMP, BARRIER, 0, &77_u64.to_le_bytes());
    let (length, barrier) = decode(blocks.as_slice(), STAMP).unwrap();
    let older = BarrierRecord { written_at: None, ..expected };
    assert!(matches!(barrier, Record::Barrier(said) if said == older), "{barrier:?}");
    assert_eq!(length, 48);
}

#[test]
fn what_is_not_known_is_passed_over_kept_or_refused() {
    let said = |kind, flags| {
        let mut blocks = Blocks::default();
        encode_any(&mut blocks, STAMP, kind, flags, &[0; 24]);
        format!("{:?}", decode(blocks.as_slice(), STAMP).unwrap().1)
    };
    for (kind, flags, expected) in [
        (127, 0x0f, "Unknown(127)"),
        (128, 0, "PassedOver(128)"),
        (255, 0xff, "PassedOver(255)"),
        (CLOSE, 0x0f, "Close"),
        (CLOSE, 0x10, "Newer { kind: 6, flags: 16 }"),
        (FILLER, 0x80, "Newer { kind: 2, flags: 128 }"),
        (127, 0x40, "Newer { kind: 127, flags: 64 }"),
    ] {
        assert_eq!(said(kind, flags), expected);
    }
}

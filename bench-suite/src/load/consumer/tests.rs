use leveret_amqp::encoder::{Deliver, encode_content};
use leveret_amqp::properties::NO_PROPERTIES;
use leveret_amqp::{Decoder, Frame, Method};

use super::*;
use crate::load::sequence::SharedCheck;
use crate::load::stamp::{self, Stamp};

/// Deliveries of stream 0, with these delivery tags and sequence numbers.
fn wire(messages: impl IntoIterator<Item = (u64, u64)>) -> Vec<u8> {
    let mut wire = Vec::new();
    for (delivery_tag, sequence) in messages {
        let deliver = Deliver {
            channel: 1,
            consumer_tag: b"0000",
            delivery_tag,
            redelivered: false,
            exchange: b"",
            routing_key: b"q",
        };
        let body = stamp::body(Stamp { stream: 0, sequence, intended_us: 0 }, 16);
        encode_content(&mut wire, deliver, NO_PROPERTIES, &body, 0);
    }
    wire
}

/// Tags and flags of the acks in `wire`.
fn acks(wire: &[u8]) -> Vec<(u64, bool)> {
    let (mut decoder, mut cursor, mut acks) = (Decoder::new(0), 0, Vec::new());
    while let Some(frame) = decoder.next(wire, &mut cursor).unwrap() {
        let Frame::Method { payload, .. } = frame else { panic!("{frame:?}") };
        match Method::decode(payload).unwrap() {
            Method::BasicAck(ack) => acks.push((ack.delivery_tag, ack.multiple)),
            other => panic!("{}", other.name()),
        }
    }
    acks
}

fn plan(prefetch: u16, ack_every: u16, work: Duration) -> ConsumerPlan {
    let lanes = vec![Lane { tag: 0, streams: 0..1, shared: None }];
    let (channel, body_size, frame_size_max) = (1, 16, 0);
    ConsumerPlan { channel, lanes, body_size, frame_size_max, prefetch, ack_every, work }
}

fn consumer(plan: ConsumerPlan) -> (Consumer, Arc<Tally>, Instant) {
    let start = Instant::now();
    let tally = Arc::new(Tally::new(start, 0, 1, 1));
    (Consumer::new(plan, Arc::clone(&tally)).unwrap(), tally, start)
}

fn polled(consumer: &mut Consumer, now: Instant) -> Vec<(u64, bool)> {
    let mut out = Vec::new();
    consumer.poll_send(now, &mut out).unwrap();
    acks(&out)
}

#[test]
fn automatic_acks_are_none() {
    let (mut consumer, tally, now) = consumer(plan(0, 0, Duration::ZERO));
    consumer.receive(&wire((1..=5).zip(0..)), now).unwrap();
    assert!(polled(&mut consumer, now).is_empty() && consumer.next_due(now).is_none());
    assert!(tally.consumed() == 5 && !consumer.is_done());
    tally.close_stream(0, 5);
    assert!(consumer.is_done());
    let report = consumer.finish();
    assert!(report.messages.is_clean() && report.messages.expected == 5);
}

#[test]
fn acks_stand_for_several_and_the_rest_comes_at_the_end() {
    let (mut consumer, tally, now) = consumer(plan(10, 3, Duration::ZERO));
    // Two messages were fetched before, so the first tag is 3.
    consumer.receive(&wire((3..11).zip(0..)), now).unwrap();
    assert_eq!(consumer.next_due(now), Some(now));
    assert_eq!(polled(&mut consumer, now), [(5, true), (8, true)]);
    assert_eq!(consumer.next_due(now), None);
    tally.close_stream(0, 8);
    assert!(!consumer.is_done());
    assert_eq!(consumer.next_due(now), Some(now));
    assert_eq!(polled(&mut consumer, now), [(10, true)]);
    assert!(consumer.is_done() && consumer.next_due(now).is_none());
}

#[test]
fn a_single_ack_stands_for_one() {
    let (mut consumer, _tally, now) = consumer(plan(1, 1, Duration::ZERO));
    consumer.receive(&wire([(1, 0)]), now).unwrap();
    assert_eq!(polled(&mut consumer, now), [(1, false)]);
}

#[test]
fn a_slow_consumer_works_on_one_after_the_other() {
    let work = Duration::from_millis(10);
    let (mut consumer, tally, start) = consumer(plan(10, 1, work));
    let at = |ms| start + Duration::from_millis(ms);
    consumer.receive(&wire((1..=6).zip(0..)), start).unwrap();
    assert_eq!(consumer.next_due(start), Some(at(10)));
    assert!(polled(&mut consumer, at(9)).is_empty());
    assert_eq!(polled(&mut consumer, at(10)), [(1, false)]);
    assert_eq!(consumer.next_due(at(10)), Some(at(20)));
    assert_eq!(polled(&mut consumer, at(35)), [(2, false), (3, false)], "polled late");
    assert_eq!(consumer.next_due(at(35)), Some(at(40)), "nothing is put off for that");
    tally.close_stream(0, 6);
    tally.stop();
    assert_eq!(consumer.next_due(at(36)), Some(at(36)));
    assert_eq!(polled(&mut consumer, at(36)), [(4, false), (5, false), (6, false)]);
    assert!(consumer.is_done());
}

#[test]
fn idle_time_is_no_work() {
    let (mut consumer, _tally, start) = consumer(plan(10, 1, Duration::from_millis(10)));
    let at = |ms| start + Duration::from_millis(ms);
    consumer.receive(&wire([(1, 0)]), start).unwrap();
    assert_eq!(polled(&mut consumer, at(50)), [(1, false)]);
    assert_eq!(consumer.next_due(at(50)), None);
    consumer.receive(&wire([(2, 1)]), at(60)).unwrap();
    assert_eq!(consumer.next_due(at(60)), Some(at(70)));
}

#[test]
fn two_consumers_of_a_queue_are_done_together() {
    let now = Instant::now();
    let tally = Arc::new(Tally::new(now, 0, 1, 1));
    let check = Arc::new(SharedCheck::new(0..1));
    let consumer = || {
        let mut plan = plan(0, 0, Duration::ZERO);
        plan.lanes[0].shared = Some(Arc::clone(&check));
        Consumer::new(plan, Arc::clone(&tally)).unwrap()
    };
    let (mut one, mut other) = (consumer(), consumer());
    tally.close_stream(0, 4);
    one.receive(&wire([(1, 1), (2, 3)]), now).unwrap();
    assert!(!one.is_done());
    other.receive(&wire([(1, 0), (2, 2)]), now).unwrap();
    assert!(one.is_done() && other.is_done());
    let (one, other) = (one.finish().messages, other.finish().messages);
    assert!(one.is_clean() && other.is_clean());
    assert_eq!(one.expected + other.expected, 4);
}

#[test]
fn tags_that_jump_are_a_fault_where_they_matter() {
    let jump = wire([(1, 0), (3, 1)]);
    let (mut automatic, _tally, now) = consumer(plan(0, 0, Duration::ZERO));
    automatic.receive(&jump, now).unwrap();
    let (mut manual, _tally, now) = consumer(plan(5, 5, Duration::ZERO));
    assert!(manual.receive(&jump, now).unwrap_err().to_string().contains("delivery tags"));
}

#[test]
fn latencies_are_those_of_the_measured_window() {
    let (mut consumer, tally, start) = consumer(plan(0, 0, Duration::ZERO));
    let at = |ms| start + Duration::from_millis(ms);
    consumer.receive(&wire([(1, 0)]), at(1)).unwrap();
    tally.measure();
    consumer.receive(&wire([(2, 1), (3, 2)]), at(5)).unwrap();
    tally.end_measuring();
    consumer.receive(&wire([(4, 3)]), at(9)).unwrap();
    let latency = consumer.finish().delivery.summary().unwrap();
    assert_eq!((latency.count, (latency.max_us / 100.0).round()), (2, 50.0));
}

#[test]
fn plans_that_would_hang_are_refused() {
    let tally = Arc::new(Tally::new(Instant::now(), 0, 1, 1));
    let work = Duration::from_millis(1);
    for plan in [plan(5, 6, Duration::ZERO), plan(5, 0, Duration::ZERO), plan(0, 0, work)] {
        assert!(Consumer::new(plan, Arc::clone(&tally)).is_err());
    }
}

use leveret_amqp::method::{BasicNack, ConnectionClose, Encode, encode_frame};
use leveret_amqp::properties::NO_PROPERTIES;

use super::*;
use crate::load::stamp::Stamp;

fn plan(confirm_window: u32, under_way_max: u64) -> PublisherPlan {
    let route = |routing_key: &str, stream| Route {
        exchange: String::new(),
        routing_key: routing_key.to_owned(),
        properties: NO_PROPERTIES.to_vec(),
        stream,
    };
    PublisherPlan {
        channel: 1,
        routes: vec![route("a", 0), route("b", 1)],
        body_size: 16,
        frame_size_max: 0,
        confirm_window,
        under_way_max,
        schedule: None,
        limit: None,
    }
}

fn publisher(plan: PublisherPlan) -> (Publisher, Arc<Tally>, Instant) {
    let start = Instant::now();
    let tally = Arc::new(Tally::new(start, 0, 2, 1));
    (Publisher::new(plan, Arc::clone(&tally)).unwrap(), tally, start)
}

/// The stamps of the messages that it sends.
fn polled(publisher: &mut Publisher, now: Instant) -> Vec<Stamp> {
    let (mut out, mut stamps) = (Vec::new(), Vec::new());
    publisher.poll_send(now, &mut out).unwrap();
    assert!(out.len() <= SEND_SIZE);
    let (mut decoder, mut cursor) = (Decoder::new(0), 0);
    while let Some(frame) = decoder.next(&out, &mut cursor).unwrap() {
        if let Frame::Body { data, .. } = frame {
            stamps.push(Stamp::decode(out[data].try_into().unwrap()).unwrap());
        }
    }
    stamps
}

fn encoded(method: &impl Encode) -> Vec<u8> {
    let mut wire = Vec::new();
    encode_frame(1, method, &mut wire);
    wire
}

fn ack(delivery_tag: u64, multiple: bool) -> Vec<u8> {
    encoded(&BasicAck { delivery_tag, multiple })
}

#[test]
fn no_more_than_the_window_is_unconfirmed() {
    let (mut publisher, tally, now) = publisher(plan(10, 0));
    assert_eq!(publisher.next_due(now), Some(now));
    assert_eq!(polled(&mut publisher, now).len(), 10);
    assert_eq!((publisher.next_due(now), polled(&mut publisher, now).len()), (None, 0));
    publisher.receive(&[ack(2, false), ack(5, true)].concat(), now).unwrap();
    assert_eq!((tally.published(), tally.confirmed()), (10, 5));
    assert_eq!(publisher.next_due(now), Some(now));
    assert_eq!(polled(&mut publisher, now).len(), 5);
    tally.stop();
    assert!(polled(&mut publisher, now).is_empty() && !publisher.is_done());
    assert_eq!((publisher.next_due(now), tally.total(0)), (None, None));
    for octet in ack(15, true) {
        publisher.receive(&[octet], now).unwrap();
    }
    assert!(publisher.is_done() && publisher.next_due(now).is_none());
    assert_eq!((tally.total(0), tally.total(1)), (Some(8), Some(7)));
    assert_eq!(publisher.finish().published, 15);
}

#[test]
fn confirm_latencies_count_from_the_intended_time() {
    let (mut publisher, tally, start) = publisher(plan(10, 0));
    let at = |ms| start + Duration::from_millis(ms);
    polled(&mut publisher, at(10));
    publisher.receive(&ack(1, false), at(11)).unwrap();
    tally.measure();
    publisher.receive(&ack(4, true), at(30)).unwrap();
    let report = publisher.finish();
    let latency = report.confirm.summary().unwrap();
    assert_eq!((latency.count, (latency.max_us / 100.0).round()), (3, 200.0));
    assert!(report.send_lag.summary().is_none());
}

#[test]
fn without_confirms_the_consumers_set_the_pace() {
    let (mut publisher, tally, now) = publisher(plan(0, 100));
    assert_eq!(polled(&mut publisher, now).len(), 100);
    assert_eq!(publisher.next_due(now), Some(now + PAUSE));
    tally.note_consumed(24);
    assert_eq!(publisher.next_due(now), Some(now + PAUSE), "too few to be worth a send");
    tally.note_consumed(1);
    assert_eq!(publisher.next_due(now), Some(now));
    assert_eq!(polled(&mut publisher, now).len(), 25);
    tally.stop();
    assert_eq!(publisher.next_due(now), Some(now), "to close its streams");
    assert!(polled(&mut publisher, now).is_empty() && publisher.is_done());
    assert_eq!((tally.total(0), tally.total(1)), (Some(63), Some(62)));
}

#[test]
fn it_stops_at_its_limit_and_keeps_its_connection_until_the_run_ends() {
    let (mut publisher, tally, now) =
        publisher(PublisherPlan { limit: Some(2001), ..plan(0, u64::MAX) });
    let mut stamps = Vec::new();
    while publisher.next_due(now) == Some(now) {
        stamps.extend(polled(&mut publisher, now));
    }
    assert!(!publisher.is_done() && publisher.next_due(now).is_some());
    assert_eq!((stamps.len(), tally.total(0)), (2001, None));
    tally.stop();
    assert!(polled(&mut publisher, now).is_empty() && publisher.is_done());
    assert_eq!((tally.total(0), tally.total(1)), (Some(1001), Some(1000)));
    for (stamp, number) in stamps.iter().zip(0..) {
        assert_eq!((u64::from(stamp.stream), stamp.sequence), (number % 2, number / 2));
    }
}

#[test]
fn what_is_late_is_sent_with_its_intended_time() {
    let schedule = Some(Schedule::constant(1000.0).unwrap());
    let (mut publisher, tally, start) = publisher(PublisherPlan { schedule, ..plan(0, u64::MAX) });
    tally.measure();
    let at = |ms| start + Duration::from_millis(ms);
    assert_eq!(publisher.next_due(at(5)), Some(at(5)), "it begins with the first turn");
    assert_eq!(polled(&mut publisher, at(5)).len(), 1);
    assert_eq!(publisher.next_due(at(5)), Some(at(6)));
    // The driver was away for 10 ms: ten messages are sent, none is skipped, and each has its own
    // time.
    let times: Vec<_> =
        polled(&mut publisher, at(15)).iter().map(|stamp| stamp.intended_us).collect();
    assert_eq!(times, (6..=15).map(|ms| ms * 1000).collect::<Vec<_>>());
    assert_eq!(publisher.next_due(at(15)), Some(at(16)));
    let lag = publisher.finish().send_lag.summary().unwrap();
    assert_eq!((lag.count, (lag.max_us / 100.0).round()), (11, 90.0));
}

#[test]
fn a_full_window_delays_a_schedule_but_keeps_its_times() {
    let schedule = Some(Schedule::constant(1000.0).unwrap());
    let (mut publisher, _tally, start) = publisher(PublisherPlan { schedule, ..plan(2, 0) });
    let at = |ms| start + Duration::from_millis(ms);
    polled(&mut publisher, start);
    assert_eq!(polled(&mut publisher, at(10)).len(), 1);
    assert_eq!(publisher.next_due(at(10)), None);
    publisher.receive(&ack(2, true), at(20)).unwrap();
    assert!(publisher.next_due(at(20)).unwrap() <= at(20));
    let times: Vec<_> =
        polled(&mut publisher, at(20)).iter().map(|stamp| stamp.intended_us).collect();
    assert_eq!(times, [2000, 3000]);
}

#[test]
fn a_slow_schedule_looks_around() {
    let schedule = Some(Schedule::constant(0.01).unwrap());
    let (mut publisher, _tally, now) = publisher(PublisherPlan { schedule, ..plan(2, 0) });
    polled(&mut publisher, now);
    assert_eq!(publisher.next_due(now), Some(now + LOOK_AROUND));
}

#[test]
fn refusals_are_faults() {
    let (reply_code, class_id, method_id) = (320, 0, 0);
    let close = ConnectionClose { reply_code, reply_text: "forced", class_id, method_id };
    let nack = encoded(&BasicNack { delivery_tag: 1, multiple: false, requeue: false });
    let cases = [
        (ack(11, false), 10, "did not wait"),
        (ack(1, false), 0, "without confirms"),
        (nack, 10, "refused publish 1"),
        (encoded(&close), 10, "connection: 320 forced"),
        (encoded(&close), 0, "connection: 320 forced"),
    ];
    for (wire, confirm_window, said) in cases {
        let (mut publisher, _tally, now) = publisher(plan(confirm_window, 10));
        polled(&mut publisher, now);
        let fault = publisher.receive(&wire, now).unwrap_err().to_string();
        assert!(fault.contains(said), "{fault}");
    }
    let tally = Arc::new(Tally::new(Instant::now(), 0, 2, 1));
    assert!(Publisher::new(plan(0, 0), tally).is_err());
}

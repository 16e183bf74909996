//! The checker against histories made by hand: each kind of violation is found, and nothing else.

use crate::checker::{ACK_WINDOW_NS, Kind, Report, check};
use crate::history::{Ack, Delivered, End, History, Id, Outcome, Published, Stall};

const CRASH_NS: u64 = 10 * ACK_WINDOW_NS;

fn published(serial: u32, outcome: Outcome) -> Published {
    let id = Id::new(1, serial);
    Published { id, persistent: true, targets: 0b1, fingerprint: serial, outcome }
}

fn delivered(serial: u32, incarnation: u32, ack: Ack) -> Delivered {
    let id = Id::new(1, serial);
    Delivered { queue: 0, id, fingerprint: serial, redelivered: false, incarnation, ack }
}

fn again(serial: u32, incarnation: u32, ack: Ack) -> Delivered {
    Delivered { redelivered: true, ..delivered(serial, incarnation, ack) }
}

/// Incarnation 0 crashed, 1 was stopped, 2 drained the queues.
fn judge(published: &[Published], delivered: &[Delivered]) -> Report {
    check(&History {
        published: published.to_vec(),
        delivered: delivered.to_vec(),
        ends: vec![End::Crashed(CRASH_NS), End::Stopped],
        ..History::default()
    })
}

#[track_caller]
fn expect(published: &[Published], delivered: &[Delivered], kinds: &[Kind]) {
    let report = judge(published, delivered);
    assert_eq!(report.kinds(), kinds, "{report}");
}

use Outcome::{Confirmed, Refused, Unknown};

#[test]
fn a_clean_history_is_clean() {
    let report = judge(
        &[published(1, Confirmed), published(2, Unknown), published(3, Unknown)],
        &[
            delivered(1, 0, Ack::None),
            again(1, 1, Ack::None),
            delivered(3, 1, Ack::Known(5)),
            again(1, 2, Ack::Sent),
        ],
    );
    assert_eq!(report.kinds(), [], "{report}");
    let counts = (report.confirmed, report.unknown_present, report.unknown_absent);
    assert_eq!(counts, (1, 1, 1));
    assert_eq!((report.deliveries, report.redeliveries), (4, 2));
}

#[test]
fn a_confirmed_message_that_nobody_got_is_lost() {
    expect(&[published(1, Confirmed)], &[], &[Kind::Lost]);
}

#[test]
fn a_confirmed_message_that_was_seen_but_not_acknowledged_is_lost() {
    expect(&[published(1, Confirmed)], &[delivered(1, 0, Ack::None)], &[Kind::Lost]);
}

#[test]
fn a_confirmed_message_must_reach_all_its_queues() {
    let both = Published { targets: 0b11, ..published(1, Confirmed) };
    let first = delivered(1, 0, Ack::Sent);
    expect(&[both], &[first], &[Kind::Lost]);
    expect(&[both], &[first, Delivered { queue: 1, ..first }], &[]);
}

#[test]
fn what_was_not_confirmed_or_is_transient_may_be_absent() {
    let transient = Published { persistent: false, ..published(3, Confirmed) };
    expect(&[published(1, Unknown), published(2, Refused), transient], &[], &[]);
}

#[test]
fn what_was_never_sent_is_a_phantom() {
    let known = (published(2, Confirmed), delivered(2, 0, Ack::Sent));
    for serial in [1, 3] {
        let mut all = [delivered(serial, 0, Ack::Sent), known.1];
        all.sort_by_key(|delivery| delivery.id);
        expect(&[known.0], &all, &[Kind::Phantom]);
    }
    expect(&[], &[delivered(1, 0, Ack::Sent)], &[Kind::Phantom]);
}

#[test]
fn another_content_is_a_phantom() {
    let torn = Delivered { fingerprint: 77, ..delivered(1, 0, Ack::Sent) };
    expect(&[published(1, Confirmed)], &[torn], &[Kind::Phantom]);
}

#[test]
fn another_queue_is_a_phantom() {
    let right = delivered(1, 0, Ack::Sent);
    let wrong = Delivered { queue: 3, ..right };
    let nowhere = Delivered { queue: 200, ..right };
    expect(&[published(1, Confirmed)], &[right, wrong], &[Kind::Phantom]);
    expect(&[published(1, Confirmed)], &[right, nowhere], &[Kind::Phantom]);
}

#[test]
fn a_second_delivery_must_be_flagged_whoever_ended_the_first() {
    for (first, second) in [(0, 0), (0, 1), (1, 2)] {
        let pair = [delivered(1, first, Ack::None), delivered(1, second, Ack::Sent)];
        expect(&[published(1, Confirmed)], &pair, &[Kind::Unflagged]);
    }
}

#[test]
fn a_third_delivery_must_be_flagged_too() {
    let all = [delivered(1, 0, Ack::None), again(1, 1, Ack::None), delivered(1, 2, Ack::Sent)];
    expect(&[published(1, Confirmed)], &all, &[Kind::Unflagged]);
}

#[test]
fn a_first_delivery_may_be_flagged() {
    expect(&[published(1, Confirmed)], &[again(1, 1, Ack::Sent)], &[]);
}

#[test]
fn first_deliveries_ascend_within_a_channel() {
    let sent = [published(1, Confirmed), published(2, Confirmed)];
    let swapped = [delivered(2, 0, Ack::Sent), delivered(1, 0, Ack::Sent)];
    expect(&sent, &swapped, &[Kind::Order]);
    let crossing = [swapped[0], again(1, 1, Ack::Sent)];
    expect(&sent, &crossing, &[Kind::Order]);
}

#[test]
fn repeated_deliveries_and_other_channels_have_no_order() {
    let sent = [published(1, Confirmed), published(2, Confirmed)];
    let requeued = [
        delivered(1, 0, Ack::None),
        delivered(2, 0, Ack::None),
        again(1, 1, Ack::Sent),
        again(2, 1, Ack::Sent),
    ];
    expect(&sent, &requeued, &[]);
    let other = Published { id: Id::new(0, 9), ..published(9, Confirmed) };
    let of_other = Delivered { id: other.id, ..delivered(9, 0, Ack::Sent) };
    let all = [delivered(1, 0, Ack::Sent), of_other, delivered(2, 0, Ack::Sent)];
    expect(&[sent[0], sent[1], other], &all, &[]);
}

#[test]
fn an_acked_message_may_return_only_if_the_crash_was_close() {
    let sent = [published(1, Confirmed)];
    let last = again(1, 1, Ack::Sent);
    let close = Ack::Known(CRASH_NS - ACK_WINDOW_NS);
    let far = Ack::Known(CRASH_NS - ACK_WINDOW_NS - 1);
    for (ack, kinds, returned) in
        [(Ack::Sent, &[][..], 1), (close, &[], 1), (far, &[Kind::AckReturned], 0)]
    {
        let report = judge(&sent, &[delivered(1, 0, ack), last]);
        assert_eq!(report.kinds(), kinds, "{report}");
        assert_eq!(report.acks_returned_in_window, returned);
    }
}

#[test]
fn time_in_which_the_disk_stood_still_does_not_count() {
    let since = CRASH_NS - ACK_WINDOW_NS - 300;
    let stall = |from_ns, to_ns| Stall { from_ns, to_ns };
    for (stalls, kinds) in [
        (vec![stall(since, since + 300)], &[][..]),
        (vec![stall(since + 1, since + 101), stall(CRASH_NS - 200, CRASH_NS + 999)], &[]),
        (
            vec![stall(since + 1, since + 100), stall(CRASH_NS - 200, CRASH_NS + 999)],
            &[Kind::AckReturned],
        ),
        (vec![stall(0, since), stall(CRASH_NS, CRASH_NS + 999)], &[Kind::AckReturned]),
    ] {
        let report = check(&History {
            published: vec![published(1, Confirmed)],
            delivered: vec![delivered(1, 0, Ack::Known(since)), again(1, 1, Ack::Sent)],
            ends: vec![End::Crashed(CRASH_NS), End::Stopped],
            stalls,
            ..History::default()
        });
        assert_eq!(report.kinds(), kinds, "{report}");
    }
}

#[test]
fn an_acked_message_must_not_return_after_a_stop_or_from_the_same_broker() {
    let sent = [published(1, Confirmed)];
    let known = Ack::Known(CRASH_NS);
    for (first, second) in [(1, 2), (0, 0), (2, 3)] {
        let pair = [delivered(1, first, known), again(1, second, Ack::Sent)];
        expect(&sent, &pair, &[Kind::AckReturned]);
    }
    let unread = [delivered(1, 1, Ack::Sent), again(1, 2, Ack::Sent)];
    expect(&sent, &unread, &[]);
}

#[test]
fn an_acked_message_that_returns_must_be_flagged() {
    let pair = [delivered(1, 0, Ack::Sent), delivered(1, 1, Ack::Sent)];
    expect(&[published(1, Confirmed)], &pair, &[Kind::Unflagged]);
}

#[test]
fn complaints_of_clients_are_violations() {
    let complaints = vec!["the queue is gone".to_owned()];
    let report = check(&History { complaints, ..History::default() });
    assert_eq!(report.kinds(), [Kind::Complaint]);
    assert!(report.to_string().contains("the queue is gone"));
}

#[test]
fn a_million_events_are_judged() {
    let sent: Vec<Published> = (0..500_000).map(|serial| published(serial, Confirmed)).collect();
    let got: Vec<Delivered> = (0..500_000).map(|serial| delivered(serial, 0, Ack::Sent)).collect();
    expect(&sent, &got, &[]);
    expect(&sent, &got[1..], &[Kind::Lost]);
}

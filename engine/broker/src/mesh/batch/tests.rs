use crate::id::ConsumerKey;
use crate::message::First;
use crate::queue::terms::Holder;

use super::*;

fn small(routing_key: &'static [u8]) -> Message<'static> {
    Message {
        exchange: b"x",
        routing_key,
        properties: &[0, 0],
        body: Body::Inline(b"hello"),
        published_at: Instant(7),
        likeness: Likeness::UNKNOWN,
    }
}

fn assert_same(message: &Message<'_>, sent: &Message<'_>) {
    assert_eq!(message.exchange, sent.exchange);
    assert_eq!(message.routing_key, sent.routing_key);
    assert_eq!(message.properties, sent.properties);
    match (message.body, sent.body) {
        (Body::Inline(body), Body::Inline(sent)) => assert_eq!(body, sent),
        (Body::Pieces(body), Body::Pieces(sent)) => assert_eq!(body, sent),
        (body, sent) => panic!("{body:?} of {sent:?}"),
    }
    assert_eq!(message.published_at, sent.published_at);
}

#[test]
fn a_parcel_unpacks_to_what_was_packed() {
    let pieces = [Bytes::from_static(b"large "), Bytes::from_static(b"body")];
    let large = Message { exchange: b"", body: Body::Pieces(&pieces), ..small(b"key") };
    let unnamed = Message { exchange: b"", routing_key: b"", ..small(b"") };
    // The same letters split elsewhere are different names.
    let shifted = Message { exchange: b"xk", routing_key: b"ey", ..small(b"") };
    let sent = [unnamed, small(b"key"), small(b"key"), shifted, large, large, small(b"key")];
    let mut batch = Batch::default();
    let parcels = sent.map(|message| batch.pack(&message));
    for (parcel, sent) in parcels.iter().zip(&sent) {
        assert_same(&batch.unpack(parcel), sent);
    }
}

#[test]
fn what_is_alike_travels_once() {
    let [one, two] = [1, 2].map(|number| (0..number).fold(Likeness::UNKNOWN, |l, _| l.next()));
    let alike = |likeness| Message { likeness, ..small(b"a long routing key") };
    let mut batch = Batch::default();
    let mut bytes_of = |message: Message<'_>| {
        let before = batch.bytes.len();
        let parcel = batch.pack(&message);
        assert_same(&batch.unpack(&parcel), &message);
        batch.bytes.len() - before
    };
    let whole = bytes_of(alike(one));
    assert_eq!(bytes_of(alike(one)), b"hello".len());
    assert_eq!(bytes_of(Message { published_at: Instant(8), ..alike(one) }), whole);
    assert_eq!(bytes_of(alike(two)), whole);
    assert_eq!(bytes_of(alike(Likeness::UNKNOWN)), whole);
    assert_eq!(bytes_of(alike(Likeness::UNKNOWN)), whole, "nobody has compared them");
    batch.clear();
    let parcel = batch.pack(&alike(two));
    assert_eq!(batch.bytes.len(), whole);
    assert_same(&batch.unpack(&parcel), &alike(two));
}

#[test]
fn the_receiver_numbers_likeness_anew() {
    let one = Likeness::UNKNOWN.next();
    let sent = [one, one, one.next(), one, Likeness::UNKNOWN, Likeness::UNKNOWN];
    let mut batch = Batch::default();
    let parcels = sent.map(|likeness| batch.pack(&Message { likeness, ..small(b"key") }));
    let last = one.next().next();
    let newest = batch.renumber(last);
    let got = parcels.map(|parcel| batch.unpack(&parcel).likeness);
    assert!(got[0].is(got[1]));
    let numbers: std::collections::BTreeSet<_> = got.iter().map(|l| l.to_bytes()).collect();
    assert_eq!(numbers.len(), 5);
    assert!(got.iter().all(|new| !new.is(last) && *new != Likeness::UNKNOWN && *new != one));
    assert!(got[5].is(newest));
}

#[test]
fn what_goes_the_same_way_is_one_mail() {
    let queue = |slot| QueueId { slot, generation: 1 };
    let channel = ChannelKey { channel: 3, ..ChannelKey::default() };
    let mut batch = Batch::default();
    // One entry per message: its queues, and whether a confirm is wanted.
    let publishes: [(&[QueueId], bool); 7] = [
        (&[queue(1)], false),
        (&[queue(1)], false),
        (&[queue(1), queue(2)], false),
        (&[queue(1), queue(2)], true),
        (&[queue(1), queue(2)], true),
        (&[queue(1)], true),
        (&[queue(2)], true),
    ];
    let keys: [&'static [u8]; 7] = [b"a", b"b", b"b", b"b", b"b", b"b", b"c"];
    for ((queues, confirm), key) in publishes.into_iter().zip(keys) {
        let queues = queues.iter().copied();
        batch.publish(queues, &mut Some(&small(key)), confirm.then_some(channel));
    }
    let mut seen = Vec::new();
    for mail in &batch.mails {
        let Mail::Publish { queues, parcels, confirm } = mail else { panic!("{mail:?}") };
        batch.messages(*parcels).lend(|message| {
            assert_same(message, &small(keys[seen.len()]));
            seen.push((batch.queues(*queues), *confirm == Some(channel)));
            true
        });
    }
    assert_eq!(seen, publishes);
    assert_eq!(batch.mails.len(), 5);
}

#[test]
fn a_run_of_deliveries_keeps_each_number_and_breaks_where_something_differs() {
    let given = |consumer, holder, number, redelivered| Delivery {
        consumer: ConsumerKey { number: consumer, ..ConsumerKey::default() },
        queue: QueueId::default(),
        home: crate::id::ShardId(1),
        holder: Holder(holder),
        number,
        redelivered,
        granted: false,
    };
    let sent = [
        given(1, 4, Some(10), false),
        given(1, 4, Some(11), false),
        given(1, 4, Some(13), false),
        given(1, 4, Some(14), true),
        given(1, 4, None, true),
        given(1, 4, None, true),
        given(1, 4, Some(15), true),
        given(2, 5, Some(16), true),
        given(2, 6, Some(17), true),
    ];
    let mut batch = Batch::default();
    for delivery in &sent {
        batch.deliver(delivery, &mut Some(&small(b"key")));
    }
    let mut seen = Vec::new();
    for mail in &batch.mails {
        let Mail::Deliver { delivery, parcels } = mail else { panic!("{mail:?}") };
        let mut run = delivery.run();
        batch.messages(*parcels).lend(|message| {
            assert_same(message, &small(b"key"));
            seen.extend(run.next());
            true
        });
    }
    assert_eq!(seen, sent);
    assert_eq!(batch.mails.len(), 7);
}

#[test]
fn what_was_lent_of_a_run_is_gone_from_it() {
    fn keys(mut messages: impl Messages, most: usize) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        messages.lend(|message| {
            keys.push(message.routing_key.to_vec());
            keys.len() < most
        });
        keys
    }
    let mut batch = Batch::default();
    for key in [b"a", b"b", b"c", b"d", b"e"] {
        batch.publish([QueueId::default()].into_iter(), &mut Some(&small(key)), None);
    }
    let [Mail::Publish { parcels, .. }] = batch.mails[..] else { panic!("{batch:?}") };
    let mut run = batch.messages(parcels);
    assert!(keys(First { of: &mut run, most: 0 }, 9).is_empty());
    assert_eq!(keys(First { of: &mut run, most: 2 }, 9), [b"a", b"b"]);
    assert_eq!(keys(First { of: &mut run, most: 2 }, 1), [b"c"]);
    assert_eq!(run.count(), 2);
    assert_eq!(keys(First { of: &mut run, most: usize::MAX }, 9), [b"d", b"e"]);
    assert_eq!(run.count(), 0);
    assert!(keys(run, 9).is_empty());
}

#[test]
fn settlements_that_follow_each_other_are_one_mail() {
    let [one, two] = [1, 2].map(|slot| QueueId { slot, generation: 1 });
    let of = |holder, first, count| Deliveries { holder: Holder(holder), first, count };
    let sent = [
        (one, of(1, 5, 2), Settlement::Ack, true),
        (one, of(1, 7, 1), Settlement::Ack, true),
        (one, of(1, 9, 1), Settlement::Ack, true),
        (one, of(2, 10, 1), Settlement::Ack, true),
        (two, of(2, 11, 1), Settlement::Ack, true),
        (two, of(2, 12, 1), Settlement::Requeue, false),
        (two, of(2, 13, 3), Settlement::Requeue, false),
        (two, of(2, 16, 1), Settlement::Requeue, true),
    ];
    let mut batch = Batch::default();
    for (queue, deliveries, settlement, serve) in sent {
        batch.settle(queue, deliveries, settlement, serve);
    }
    let each = |queue, deliveries: Deliveries, settlement, serve| {
        let numbers = deliveries.numbers();
        numbers.map(move |number| (queue, deliveries.holder, number, settlement, serve))
    };
    let mut seen = Vec::new();
    for mail in &batch.mails {
        let Mail::Settle { queue, deliveries, settlement, serve } = mail else {
            panic!("{mail:?}")
        };
        seen.extend(each(*queue, *deliveries, *settlement, *serve));
    }
    let sent = sent.into_iter();
    let sent = sent.flat_map(|(queue, of, settlement, serve)| each(queue, of, settlement, serve));
    assert_eq!(seen, sent.collect::<Vec<_>>());
    assert_eq!(batch.mails.len(), 6);
}

#[test]
fn everything_in_a_batch_weighs() {
    let fills: [fn(&mut Batch); 3] = [
        |batch| {
            batch.publish([QueueId::default()].into_iter(), &mut Some(&small(b"key")), None);
        },
        |batch| batch.push(Mail::LogBackedUp(true)),
        |batch| {
            let body = [Bytes::from_static(&[0; 1000])];
            let message = Message { body: Body::Pieces(&body), ..small(b"key") };
            batch.publish([QueueId::default()].into_iter(), &mut Some(&message), None);
        },
    ];
    for fill in fills {
        let mut batch = Batch::default();
        let mut added = 0;
        while !batch.is_full() {
            fill(&mut batch);
            added += 1;
        }
        assert!((60..=BATCH_BYTES_MAX / size_of::<Parcel>()).contains(&added), "{added}");
    }
}

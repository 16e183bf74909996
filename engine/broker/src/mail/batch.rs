//! Several mails for one destination, with everything they point into.
//!
//! ```text
//!  mails     Publish { queues 0..1, parcels 0..3 }   Settle { deliveries 41..43 }   Publish …
//!  queues    q7
//!  parcels   ▪ ▪ ▪                 each: which head, and where its body is
//!  heads     ▪                     what messages that are alike have in common
//!  bytes     exchange key properties body body body
//!  pieces    large bodies, by reference
//! ```
//!
//! A run of messages that go the same way is one mail: per message only a parcel and its body
//! travel, one after the other, so that the receiver's core can fetch them ahead.

use std::marker::PhantomData;
use std::{fmt, slice};

use bytes::Bytes;

use crate::id::{ChannelKey, Instant, QueueId};
use crate::message::{Body, Likeness, Message, Messages};
use crate::writer::Delivery;

use super::{Deliveries, Mail, Settlement};

/// A batch is closed at this many bytes, those of bodies that it refers to included: enough to pay
/// a place in the mesh once per many messages, and a full lane is bounded.
pub const BATCH_BYTES_MAX: usize = 64 << 10;

/// Several mails for one destination, with everything they point into.
#[derive(Debug, Default)]
pub struct Batch {
    /// In sending order.
    pub mails: Vec<Mail>,
    queues: Vec<QueueId>,
    parcels: Vec<Parcel>,
    heads: Vec<Head>,
    bytes: Vec<u8>,
    pieces: Vec<Bytes>,
    weight_bytes: usize,
}

/// A message inside a [`Batch`].
#[derive(Clone, Copy, Debug)]
pub struct Parcel {
    head: u32,
    /// Where its body starts: in the bytes, or with which of the pieces.
    body: u32,
    /// Bytes of a body that is not in pieces.
    length: u32,
    /// How many pieces the body is in; 0: none.
    pieces: u32,
}

/// All but the bodies of messages that follow each other. Names and properties are in the bytes,
/// one behind the other.
#[derive(Clone, Copy, Debug)]
struct Head {
    /// As numbered by the shard that has the batch.
    likeness: Likeness,
    published_at: Instant,
    start: u32,
    properties_length: u32,
    exchange_length: u8,
    routing_key_length: u8,
}

/// Some of a batch's things of one kind that follow each other.
pub struct Span<T> {
    start: u32,
    end: u32,
    kind: PhantomData<fn() -> T>,
}

impl Batch {
    /// Whether the batch should be sent before more is put in.
    #[inline(always)]
    pub fn is_full(&self) -> bool {
        self.weight_bytes >= BATCH_BYTES_MAX
    }

    /// Bytes that the batch holds or keeps alive.
    #[inline]
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// Adds a mail.
    pub fn push(&mut self, mail: Mail) {
        self.mails.push(mail);
        self.weight_bytes += size_of::<Mail>();
    }

    /// Forgets the content and keeps the memory.
    pub fn clear(&mut self) {
        self.mails.clear();
        self.queues.clear();
        self.parcels.clear();
        self.heads.clear();
        self.bytes.clear();
        self.pieces.clear();
        self.weight_bytes = 0;
    }

    /// Numbers anew which messages are alike, for the shard that received the batch, from its last
    /// number. Returns the last one now.
    #[must_use]
    pub(crate) fn renumber(&mut self, mut last: Likeness) -> Likeness {
        for head in &mut self.heads {
            last = last.next();
            head.likeness = last;
        }
        last
    }

    /// Adds a message for queues of the receiver: to the last mail, if it says the same.
    #[inline(always)]
    pub fn publish(
        &mut self,
        queues: impl Iterator<Item = QueueId> + Clone,
        message: &Message<'_>,
        confirm: Option<ChannelKey>,
    ) {
        match self.mails.last_mut() {
            Some(Mail::Publish { queues: same, parcels, confirm: asker })
                if *asker == confirm
                    && queues.clone().eq(same.of(&self.queues).iter().copied()) =>
            {
                parcels.end += 1;
            }
            _ => self.begin_publish(queues, confirm),
        }
        let parcel = self.pack(message);
        self.parcels.push(parcel);
    }

    #[inline(never)]
    fn begin_publish(
        &mut self,
        queues: impl Iterator<Item = QueueId>,
        confirm: Option<ChannelKey>,
    ) {
        let start = self.queues.len();
        self.queues.extend(queues);
        self.weight_bytes += (self.queues.len() - start) * size_of::<QueueId>();
        let queues = Span::new(start, self.queues.len());
        self.push(Mail::Publish { queues, parcels: Span::next(&self.parcels), confirm });
    }

    /// Adds a message for a consumer: to the last mail, if it says the same.
    #[inline(always)]
    pub fn deliver(&mut self, delivery: &Delivery, message: &Message<'_>) {
        match self.mails.last_mut() {
            Some(Mail::Deliver { delivery: first, parcels })
                if delivery.continues(first, parcels.len()) =>
            {
                parcels.end += 1;
            }
            _ => {
                let parcels = Span::next(&self.parcels);
                self.push(Mail::Deliver { delivery: *delivery, parcels });
            }
        }
        let parcel = self.pack(message);
        self.parcels.push(parcel);
    }

    /// Adds the end of deliveries: to the last mail, if it says the same of those before them.
    #[inline]
    pub fn settle(
        &mut self,
        queue: QueueId,
        deliveries: Deliveries,
        settlement: Settlement,
        serve: bool,
    ) {
        if let Some(Mail::Settle { queue: of, deliveries: last, settlement: said, serve: serves }) =
            self.mails.last_mut()
            && (*of, *said, *serves) == (queue, settlement, serve)
            && (last.holder, last.first + last.count) == (deliveries.holder, deliveries.first)
        {
            last.count += deliveries.count;
            return;
        }
        self.push(Mail::Settle { queue, deliveries, settlement, serve });
    }

    /// Copies a message into the batch; large bodies only gain a reference.
    #[inline(always)]
    pub fn pack(&mut self, message: &Message<'_>) -> Parcel {
        let head = match self.heads.last() {
            Some(last) if last.is_of(message) => self.heads.len() - 1,
            _ => self.add_head(message),
        } as u32;
        match message.body {
            Body::Inline(bytes) => {
                let body = self.bytes.len() as u32;
                self.bytes.extend_from_slice(bytes);
                self.weight_bytes += size_of::<Parcel>() + bytes.len();
                Parcel { head, body, length: bytes.len() as u32, pieces: 0 }
            }
            Body::Pieces(pieces) => {
                let body = self.pieces.len() as u32;
                self.pieces.extend_from_slice(pieces);
                self.weight_bytes += size_of::<Parcel>() + message.body.len();
                Parcel { head, body, length: 0, pieces: pieces.len() as u32 }
            }
        }
    }

    #[inline(never)]
    fn add_head(&mut self, message: &Message<'_>) -> usize {
        let Message { exchange, routing_key, properties, likeness, published_at, .. } = *message;
        let start = self.bytes.len();
        self.bytes.extend_from_slice(exchange);
        self.bytes.extend_from_slice(routing_key);
        self.bytes.extend_from_slice(properties);
        self.weight_bytes += size_of::<Head>() + self.bytes.len() - start;
        self.heads.push(Head {
            likeness,
            published_at,
            start: start as u32,
            properties_length: properties.len() as u32,
            exchange_length: exchange.len() as u8,
            routing_key_length: routing_key.len() as u8,
        });
        self.heads.len() - 1
    }

    /// The message of a parcel that was packed into this batch.
    pub fn unpack(&self, parcel: &Parcel) -> Message<'_> {
        Message { body: self.body(parcel), ..self.headed(parcel.head) }
    }

    /// The messages of a mail.
    #[inline]
    pub fn messages(&self, parcels: Span<Parcel>) -> Run<'_> {
        let parcels = parcels.of(&self.parcels).iter();
        Run { batch: self, parcels, head: u32::MAX, message: Message::EMPTY }
    }

    #[inline(always)]
    fn body(&self, parcel: &Parcel) -> Body<'_> {
        let body = parcel.body as usize;
        match parcel.pieces as usize {
            0 => Body::Inline(&self.bytes[body..body + parcel.length as usize]),
            pieces => Body::Pieces(&self.pieces[body..body + pieces]),
        }
    }

    /// A message without its body.
    #[inline(never)]
    fn headed(&self, head: u32) -> Message<'_> {
        let head = &self.heads[head as usize];
        let rest = &self.bytes[head.start as usize..];
        let (exchange, rest) = rest.split_at(usize::from(head.exchange_length));
        let (routing_key, rest) = rest.split_at(usize::from(head.routing_key_length));
        Message {
            exchange,
            routing_key,
            properties: &rest[..head.properties_length as usize],
            body: Body::Inline(&[]),
            published_at: head.published_at,
            likeness: head.likeness,
        }
    }

    /// The queues of a [`Mail::Publish`].
    pub fn queues(&self, queues: Span<QueueId>) -> &[QueueId] {
        queues.of(&self.queues)
    }
}

/// The messages of a mail, one after the other: what they have in common is looked up once.
#[derive(Debug)]
pub struct Run<'a> {
    batch: &'a Batch,
    parcels: slice::Iter<'a, Parcel>,
    /// That of the last message.
    head: u32,
    message: Message<'a>,
}

impl<'a> Run<'a> {
    /// Whether there are no more.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.parcels.as_slice().is_empty()
    }

    /// The first `most` of them, which stay in this run.
    #[must_use]
    pub fn first(&self, most: usize) -> Self {
        let all: &'a [Parcel] = self.parcels.as_slice();
        let (head, message) = (self.head, self.message);
        Self { batch: self.batch, parcels: all[..most.min(all.len())].iter(), head, message }
    }

    /// Leaves out the first `count` of them.
    pub fn skip(&mut self, count: u64) {
        let all: &'a [Parcel] = self.parcels.as_slice();
        self.parcels = all[all.len().min(count as usize)..].iter();
    }
}

impl Messages for Run<'_> {
    #[inline(always)]
    fn next(&mut self) -> Option<&Message<'_>> {
        let parcel = self.parcels.next()?;
        if parcel.head != self.head {
            self.head = parcel.head;
            self.message = self.batch.headed(parcel.head);
        }
        self.message.body = self.batch.body(parcel);
        Some(&self.message)
    }
}

impl Head {
    #[inline(always)]
    fn is_of(&self, message: &Message<'_>) -> bool {
        self.likeness.is(message.likeness) && self.published_at == message.published_at
    }
}

impl<T> Span<T> {
    fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32, kind: PhantomData }
    }

    /// What is about to be added.
    fn next(all: &[T]) -> Self {
        Self::new(all.len(), all.len() + 1)
    }

    #[inline]
    fn of(self, all: &[T]) -> &[T] {
        &all[self.start as usize..self.end as usize]
    }

    #[inline]
    fn len(self) -> u64 {
        u64::from(self.end - self.start)
    }

    /// One span for each.
    pub fn each(self) -> impl Iterator<Item = Self> {
        (self.start..self.end).map(|at| Self { start: at, end: at + 1, kind: PhantomData })
    }
}

// Derived ones would ask the same of `T`.
impl<T> Clone for Span<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Span<T> {}

impl<T> fmt::Debug for Span<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use crate::id::ConsumerKey;
    use crate::queue::state::Holder;

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
        // The same letters, cut elsewhere, are other names.
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
        // Queues, and whether a confirm is wanted: an entry for each message.
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
            batch.publish(queues, &small(key), confirm.then_some(channel));
        }
        let mut seen = Vec::new();
        for mail in &batch.mails {
            let Mail::Publish { queues, parcels, confirm } = mail else { panic!("{mail:?}") };
            let mut messages = batch.messages(*parcels);
            while let Some(message) = messages.next() {
                assert_same(message, &small(keys[seen.len()]));
                seen.push((batch.queues(*queues), *confirm == Some(channel)));
            }
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
            batch.deliver(delivery, &small(b"key"));
        }
        let mut seen = Vec::new();
        for mail in &batch.mails {
            let Mail::Deliver { delivery, parcels } = mail else { panic!("{mail:?}") };
            let (mut run, mut messages) = (delivery.run(), batch.messages(*parcels));
            while let Some(message) = messages.next() {
                assert_same(message, &small(b"key"));
                seen.extend(run.next());
            }
        }
        assert_eq!(seen, sent);
        assert_eq!(batch.mails.len(), 7);
    }

    #[test]
    fn the_first_of_a_run_stay_in_it_until_they_are_left_out() {
        fn keys(mut run: Run<'_>) -> Vec<Vec<u8>> {
            let mut keys = Vec::new();
            while let Some(message) = run.next() {
                keys.push(message.routing_key.to_vec());
            }
            keys
        }
        let mut batch = Batch::default();
        for key in [b"a", b"b", b"c"] {
            batch.publish([QueueId::default()].into_iter(), &small(key), None);
        }
        let [Mail::Publish { parcels, .. }] = batch.mails[..] else { panic!("{batch:?}") };
        let mut run = batch.messages(parcels);
        assert_eq!(keys(run.first(2)), [b"a", b"b"]);
        assert_eq!(keys(run.first(usize::MAX)), [b"a", b"b", b"c"]);
        run.skip(2);
        assert_eq!(keys(run.first(2)), [b"c"]);
        assert!(!run.is_over());
        run.skip(1);
        assert!(run.is_over() && run.next().is_none());
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
        let sent =
            sent.flat_map(|(queue, of, settlement, serve)| each(queue, of, settlement, serve));
        assert_eq!(seen, sent.collect::<Vec<_>>());
        assert_eq!(batch.mails.len(), 6);
    }

    #[test]
    fn everything_in_a_batch_weighs() {
        let fills: [fn(&mut Batch); 3] = [
            |batch| batch.publish([QueueId::default()].into_iter(), &small(b"key"), None),
            |batch| batch.push(Mail::LogBackedUp(true)),
            |batch| {
                let body = [Bytes::from_static(&[0; 1000])];
                let message = Message { body: Body::Pieces(&body), ..small(b"key") };
                batch.publish([QueueId::default()].into_iter(), &message, None);
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
}

//! Several mails for one destination, with the tables that they refer to.
//!
//! ```text
//!  mails     Publish { queues 0..1, parcels 0..3 }   Settle { deliveries 41..43 }   Publish …
//!  queues    q7
//!  parcels   ▪ ▪ ▪                 each: index of its head, place of its body
//!  heads     ▪                     likeness, arrival time, place of names and properties
//!  bytes     exchange key properties body body body
//!  pieces    large bodies, by reference
//! ```
//!
//! A run of messages with the same destination is one mail. Each message then adds only a parcel
//! and its body, one behind the other, so that the receiver's core can prefetch them.

use std::marker::PhantomData;
use std::{fmt, slice};

use bytes::Bytes;

use crate::id::{ChannelKey, Instant, QueueId};
use crate::mesh::delivery::Delivery;
use crate::message::{Body, Likeness, Message, Messages, Upcoming};

use super::mail::Mail;
use crate::queue::terms::{Deliveries, Settlement};

/// A batch is closed at this many bytes, including bodies by reference: enough that many messages
/// share the cost of one transfer through the mesh, and a bound for a full lane.
pub const BATCH_BYTES_MAX: usize = 64 << 10;

/// Several mails for one destination, with the tables that they refer to.
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
    /// The index of its head.
    head: u32,
    /// Where its body starts: an offset in the bytes, or the index of its first piece.
    body: u32,
    /// Bytes of a body in the bytes; 0 for one in pieces.
    length: u32,
    /// How many pieces the body has; 0 if it is in the bytes.
    pieces: u32,
}

/// The common part of consecutive messages: all but their bodies. Names and properties are in the
/// bytes, one behind the other.
#[derive(Clone, Copy, Debug)]
struct Head {
    /// A number of the shard that has the batch.
    likeness: Likeness,
    published_at: Instant,
    start: u32,
    properties_length: u32,
    exchange_length: u8,
    routing_key_length: u8,
}

/// The result of adding messages to a batch.
#[derive(Clone, Copy, Debug)]
pub struct Packed {
    /// How many messages.
    pub count: u64,
    /// Bytes of their bodies that were copied.
    pub copied_bytes: u64,
}

/// A range of one of the tables of a batch.
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

    /// Drops the content and keeps the memory.
    pub fn clear(&mut self) {
        self.mails.clear();
        self.queues.clear();
        self.parcels.clear();
        self.heads.clear();
        self.bytes.clear();
        self.pieces.clear();
        self.weight_bytes = 0;
    }

    /// Replaces the likeness numbers of the sending shard by new ones of the receiving shard, which
    /// assigned `last` before. Returns the last number assigned now.
    #[must_use]
    pub(crate) fn renumber(&mut self, mut last: Likeness) -> Likeness {
        // A number per head: messages of one head are alike. Two heads that are also alike get
        // different numbers, which costs a comparison of names later but is never wrong.
        for head in &mut self.heads {
            last = last.next();
            head.likeness = last;
        }
        last
    }

    /// Adds messages for queues of the receiver until the batch is full. They extend the last mail
    /// if it is for the same queues and the same channel.
    #[inline(always)]
    pub fn publish(
        &mut self,
        queues: impl Iterator<Item = QueueId> + Clone,
        messages: &mut impl Messages,
        confirm: Option<ChannelKey>,
    ) -> Packed {
        let (packed, packed_at) = self.pack_all(messages);
        // The parcels of the last mail are the last in the table, so the new ones follow them
        // without a gap: a mail of another kind in between ends the run.
        match self.mails.last_mut() {
            Some(Mail::Publish { queues: same, parcels, confirm: asker })
                if *asker == confirm
                    && queues.clone().eq(same.of(&self.queues).iter().copied()) =>
            {
                parcels.end = packed_at.end;
            }
            _ if packed.count > 0 => {
                let start = self.queues.len();
                self.queues.extend(queues);
                self.weight_bytes += (self.queues.len() - start) * size_of::<QueueId>();
                let queues = Span::new(start, self.queues.len());
                self.push(Mail::Publish { queues, parcels: packed_at, confirm });
            }
            _ => {}
        }
        packed
    }

    /// Adds messages for a consumer until the batch is full. `first` is the delivery of the first;
    /// the others continue it. They extend the last mail if `first` continues its deliveries.
    #[inline(always)]
    pub fn deliver(&mut self, first: &Delivery, messages: &mut impl Messages) -> Packed {
        let (packed, packed_at) = self.pack_all(messages);
        match self.mails.last_mut() {
            Some(Mail::Deliver { delivery, parcels })
                if first.continues(delivery, parcels.len()) =>
            {
                parcels.end = packed_at.end;
            }
            _ if packed.count > 0 => {
                self.push(Mail::Deliver { delivery: *first, parcels: packed_at });
            }
            _ => {}
        }
        packed
    }

    /// Copies messages into the batch until it is full. Returns their counts and their parcels.
    #[inline(always)]
    fn pack_all(&mut self, messages: &mut impl Messages) -> (Packed, Span<Parcel>) {
        let start = self.parcels.len();
        let mut copied_bytes = 0;
        messages.lend(|message| {
            let parcel = self.pack(message);
            self.parcels.push(parcel);
            copied_bytes += u64::from(parcel.length);
            !self.is_full()
        });
        let span = Span::new(start, self.parcels.len());
        (Packed { count: span.len(), copied_bytes }, span)
    }

    /// Adds the settlement of deliveries. It extends the last mail if that settles the deliveries
    /// just before them in the same way.
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
        // Only the last head is tried: messages that are alike usually come in sequence.
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
                // Weighs its bytes although it adds none: the batch keeps them alive.
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

    /// A message with this head and no body.
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

/// The messages of a mail in their order. A head is looked up once for consecutive messages.
#[derive(Clone, Debug)]
pub struct Run<'a> {
    batch: &'a Batch,
    parcels: slice::Iter<'a, Parcel>,
    /// The head of the last message lent.
    head: u32,
    message: Message<'a>,
}

impl Messages for Run<'_> {
    #[inline(always)]
    fn lend(&mut self, mut take: impl FnMut(&Message<'_>) -> bool) {
        for parcel in self.parcels.by_ref() {
            if parcel.head != self.head {
                self.head = parcel.head;
                self.message = self.batch.headed(parcel.head);
            }
            self.message.body = self.batch.body(parcel);
            if !take(&self.message) {
                return;
            }
        }
    }
}

impl Upcoming for Run<'_> {
    #[inline(always)]
    fn count(&self) -> usize {
        self.parcels.len()
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

    #[inline]
    fn of(self, all: &[T]) -> &[T] {
        &all[self.start as usize..self.end as usize]
    }

    #[inline]
    fn len(self) -> u64 {
        u64::from(self.end - self.start)
    }

    /// One span for each element.
    pub fn each(self) -> impl Iterator<Item = Self> {
        (self.start..self.end).map(|at| Self { start: at, end: at + 1, kind: PhantomData })
    }
}

// Derived impls would require `T: Clone`, `Copy` and `Debug`.
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
mod tests;

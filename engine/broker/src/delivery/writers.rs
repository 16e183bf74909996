//! The writing half of the connections of a shard.
//!
//! Frames are encoded into a connection's outbox at once. The driver collects outboxes once per
//! turn, at most one per socket at a time.

use bytes::Bytes;
use leveret_amqp::encoder::{self, ContentMethod};
use leveret_amqp::frame::FRAME_END;

use crate::delivery::channel::{Consumer, Outbound};
use crate::delivery::outbox::Outbox;
use crate::id::{ChannelKey, ConnectionId, ConsumerKey, QueueId, ShardId};
use crate::mesh::batch::Run;
use crate::mesh::delivery::Delivery;
use crate::message::{Body, Message, Messages, Upcoming};

/// Emptied outboxes kept for the next writer, hottest first.
const SPARE_OUTBOXES_MAX: usize = 32;

/// An outbox with more memory than this is not recycled: twice the high watermark.
const SPARE_OUTBOX_BYTES_MAX: usize = 2 << 20;

/// The writing half of one connection.
#[derive(Debug)]
pub struct Writer {
    /// The connection.
    pub id: ConnectionId,
    /// Bytes that wait to be sent.
    pub outbox: Outbox,
    /// The driver has an outbox of this connection.
    pub sending: bool,
    /// Bytes of that outbox.
    pub sending_bytes: usize,
    /// Close the socket when everything is written.
    pub ending: bool,
    /// The driver has got [`Operation::Close`](super::operation::Operation::Close).
    pub cut: bool,
    /// The negotiated frame size in bytes, for cutting bodies.
    pub frame_size_max: u32,
    /// The client understands `basic.cancel` from us.
    pub cancel_notify: bool,
    /// Something was written since the heartbeat timer last looked.
    pub wrote: bool,
    /// Sorted by number.
    channels: Vec<Box<Outbound>>,
    last_channel: usize,
    /// Consumers of local queues that were passed over because the outbox was full.
    passed_over: Vec<(QueueId, ConsumerKey)>,
    /// At least one consumer of a remote home is stopped.
    pub remote_stopped: bool,
    /// It stands in [`Writers::queue`].
    queued: bool,
    /// The part of [`Writers::waiting_bytes`] that is this connection's.
    counted_bytes: usize,
    high_watermark_bytes: usize,
}

/// Where deliveries for a consumer leave this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Its channel is here. Valid until channels of the connection open or close.
    Socket(ChannelSlot),
    /// Its channel is on another shard.
    Shard(ShardId),
}

/// Where the writing half of a channel is: the slot of its connection and its index there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelSlot {
    slot: u32,
    channel: u32,
}

/// Whether a delivery for a consumer can leave this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capacity {
    /// There is room.
    Room(Sink),
    /// The socket or the lane is full for now.
    Full,
    /// The channel or connection is gone; the mail that ends its consumers is under way.
    Gone,
}

/// The writing halves of all connections of a shard.
#[derive(Debug, Default)]
pub struct Writers {
    slots: Vec<Option<Box<Writer>>>,
    /// Connections with something to send or to end.
    queue: Vec<u32>,
    spare: Vec<Outbox>,
    waiting_bytes: usize,
}

impl Writers {
    /// Adds the writing half of a new connection.
    pub fn insert(&mut self, id: ConnectionId, high_watermark_bytes: usize) {
        let slot = id.slot as usize;
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        self.slots[slot] = Some(Box::new(Writer {
            id,
            outbox: Outbox::default(),
            sending: false,
            sending_bytes: 0,
            ending: false,
            cut: false,
            frame_size_max: 0,
            cancel_notify: false,
            wrote: false,
            channels: Vec::new(),
            last_channel: 0,
            passed_over: Vec::new(),
            remote_stopped: false,
            queued: false,
            counted_bytes: 0,
            high_watermark_bytes,
        }));
    }

    /// Forgets a connection.
    pub fn remove(&mut self, id: ConnectionId) -> Option<Box<Writer>> {
        self.get(id)?;
        let removed = self.slots[id.slot as usize].take()?;
        self.waiting_bytes -= removed.counted_bytes;
        Some(removed)
    }

    /// Bytes that wait for sockets, including outboxes that the driver has. Counted once a turn for
    /// each queued connection, before confirms are written; every change queues its connection.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// The writing half of a connection.
    #[inline]
    pub fn get(&self, id: ConnectionId) -> Option<&Writer> {
        let writer = self.slots.get(id.slot as usize)?.as_deref()?;
        (writer.id == id).then_some(writer)
    }

    /// As [`Self::get`], for writing: the connection is queued for sending.
    #[inline(always)]
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Writer> {
        let writer = self.slots.get_mut(id.slot as usize)?.as_deref_mut()?;
        if writer.id != id {
            return None;
        }
        if !writer.queued {
            enlist(&mut self.queue, &mut self.spare, writer);
        }
        Some(writer)
    }

    /// The connection of a channel, and the channel's index for [`Writer::channel_at`].
    #[inline(always)]
    pub fn channel(&mut self, key: ChannelKey) -> Option<(&mut Writer, usize)> {
        let writer = self.get_mut(key.owner.connection)?;
        let index = writer.channel_index(key.channel)?;
        (writer.channels[index].key.incarnation == key.incarnation).then_some((writer, index))
    }

    /// Whether a delivery to the consumer would find room, and where.
    #[inline(always)]
    pub fn capacity(&mut self, consumer: &ConsumerKey) -> Capacity {
        let key = &consumer.channel;
        let slot = key.owner.connection.slot;
        let writer = self.slots.get_mut(slot as usize).and_then(Option::as_deref_mut);
        let Some(writer) = writer.filter(|writer| writer.id == key.owner.connection) else {
            return Capacity::Gone;
        };
        match writer.channel_index(key.channel) {
            Some(index) if writer.channels[index].key.incarnation == key.incarnation => {
                if writer.is_full() {
                    return Capacity::Full;
                }
                Capacity::Room(Sink::Socket(ChannelSlot { slot, channel: index as u32 }))
            }
            _ => Capacity::Gone,
        }
    }

    /// Remembers a consumer of a local queue that found no room.
    pub fn pass_over(&mut self, queue: QueueId, consumer: ConsumerKey) {
        if let Some(writer) = self.get_mut(consumer.channel.owner.connection) {
            writer.passed_over.push((queue, consumer));
        }
    }

    /// Where deliveries that came by mail go; valid until channels of the connection open or close.
    /// `None` if the channel is gone. Its deliveries are then dropped: unsettled ones return to the
    /// queue when the home gets the channel's end.
    pub fn slot(&mut self, channel: ChannelKey) -> Option<ChannelSlot> {
        let (writer, index) = self.channel(channel)?;
        Some(ChannelSlot { slot: writer.id.slot, channel: index as u32 })
    }

    /// Writes a delivery to the channel at a slot just found by [`Self::capacity`] or
    /// [`Self::slot`].
    #[inline(always)]
    pub fn deliver_at(&mut self, at: ChannelSlot, delivery: &Delivery, message: &Message<'_>) {
        let Some(writer) = self.slots[at.slot as usize].as_deref_mut() else {
            return;
        };
        if !writer.queued {
            enlist(&mut self.queue, &mut self.spare, writer);
        }
        let Writer { channels, outbox, frame_size_max, .. } = writer;
        let delivered = channels[at.channel as usize].deliver(delivery);
        if let Some((delivery_tag, consumer)) = delivered {
            write_delivery(outbox, consumer, *frame_size_max, delivery, delivery_tag, message);
        }
    }

    /// Writes deliveries of one source to the channel at a slot just found, until the outbox is
    /// full or no message is left: at least one, if there is one. Returns how many it took from
    /// `messages`.
    #[inline]
    pub fn deliver_many_at(
        &mut self,
        at: ChannelSlot,
        first: &Delivery,
        messages: &mut impl Messages,
    ) -> u64 {
        let Some(writer) = self.slots[at.slot as usize].as_deref_mut() else {
            return 0;
        };
        if !writer.queued {
            enlist(&mut self.queue, &mut self.spare, writer);
        }
        let Writer { channels, outbox, frame_size_max, high_watermark_bytes, .. } = writer;
        let outbound = &mut channels[at.channel as usize];
        let taken = outbound.deliver_many(first, |first_tag, consumer| {
            let mut count = 0;
            messages.lend(|message| {
                let tag = first_tag + count;
                write_delivery(outbox, consumer, *frame_size_max, first, tag, message);
                count += 1;
                // Asked after the write, so that one message always goes.
                outbox.len() < *high_watermark_bytes
            });
            count
        });
        // The consumer is gone: one message is dropped, so that a caller's loop comes to an end.
        taken.unwrap_or_else(|| {
            let mut dropped = 0;
            messages.lend(|_| {
                dropped += 1;
                false
            });
            dropped
        })
    }

    /// Writes all deliveries of a mail to the channel at a slot just found by [`Self::slot`]. They
    /// have left their queue, so they go into the outbox even if it is full.
    pub fn deliver_all_at(&mut self, at: ChannelSlot, first: Delivery, messages: &mut Run<'_>) {
        let mut next = first;
        while messages.count() > 0 {
            let taken = self.deliver_many_at(at, &next, messages);
            if taken == 0 {
                return;
            }
            next.number = next.number.map(|number| number + taken);
        }
    }

    /// Takes the next connection that has something to send or to end.
    pub fn next_queued(&mut self) -> Option<&mut Writer> {
        loop {
            // The connection may have been removed since it was queued, and its slot be empty.
            let slot = self.queue.pop()? as usize;
            if self.slots[slot].as_ref().is_some_and(|writer| writer.queued) {
                let writer = self.slots[slot].as_deref_mut()?;
                writer.queued = false;
                let bytes = writer.outbox.len() + writer.sending_bytes;
                self.waiting_bytes += bytes;
                self.waiting_bytes -= std::mem::replace(&mut writer.counted_bytes, bytes);
                return Some(writer);
            }
        }
    }

    /// Keeps a sent outbox for reuse.
    pub fn recycle(&mut self, mut outbox: Outbox) {
        outbox.clear();
        let fits = outbox.scratch.capacity() <= SPARE_OUTBOX_BYTES_MAX;
        if fits && self.spare.len() < SPARE_OUTBOXES_MAX {
            self.spare.push(outbox);
        }
    }

    /// All connections.
    pub fn iter(&self) -> impl Iterator<Item = &Writer> {
        self.slots.iter().flatten().map(|writer| &**writer)
    }
}

impl Writer {
    /// Whether the outbox is full: deliveries have to wait.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.outbox.len() >= self.high_watermark_bytes
    }

    /// Adds a channel.
    pub fn open_channel(&mut self, key: ChannelKey) {
        let at = self.channels.partition_point(|channel| channel.key.channel < key.channel);
        self.channels.insert(at, Box::new(Outbound::new(key)));
    }

    /// Forgets a channel.
    pub fn close_channel(&mut self, number: u16) -> Option<Box<Outbound>> {
        let index = self.channel_index(number)?;
        Some(self.channels.remove(index))
    }

    /// The writing half of a channel by its number.
    #[inline]
    pub fn channel_mut(&mut self, number: u16) -> Option<&mut Outbound> {
        let index = self.channel_index(number)?;
        Some(&mut self.channels[index])
    }

    /// The writing half of a channel by the index that [`Writers::channel`] found.
    #[inline]
    pub fn channel_at(&mut self, index: usize) -> &mut Outbound {
        &mut self.channels[index]
    }

    /// Whether there is any channel.
    pub fn has_channels(&self) -> bool {
        !self.channels.is_empty()
    }

    /// All channels.
    pub fn channels(&self) -> impl Iterator<Item = &Outbound> {
        self.channels.iter().map(|channel| &**channel)
    }

    /// All channels, mutable.
    pub fn channels_mut(&mut self) -> impl Iterator<Item = &mut Outbound> {
        self.channels.iter_mut().map(|channel| &mut **channel)
    }

    /// Writes the confirms that are due on all channels.
    pub fn write_confirms(&mut self) {
        for channel in &mut self.channels {
            if std::mem::take(&mut channel.confirms_due)
                && let Some(confirms) = &mut channel.confirms
            {
                confirms.acknowledge(channel.key.channel, &mut self.outbox.scratch);
            }
        }
    }

    /// Writes a content-bearing method with its message.
    pub fn write_content<'a>(
        &mut self,
        method: impl Into<ContentMethod<'a>>,
        message: &Message<'_>,
    ) {
        write_content(&mut self.outbox, self.frame_size_max, method, message);
    }

    /// Takes the consumers that were passed over, if there is room again.
    pub fn relieved(&mut self, low_watermark_bytes: usize) -> Vec<(QueueId, ConsumerKey)> {
        if self.outbox.len() > low_watermark_bytes {
            return Vec::new();
        }
        std::mem::take(&mut self.passed_over)
    }

    #[inline(always)]
    fn channel_index(&mut self, number: u16) -> Option<usize> {
        // The index is a guess only: channels may have been opened or closed in front of it.
        let last = self.channels.get(self.last_channel);
        if last.is_some_and(|channel| channel.key.channel == number) {
            return Some(self.last_channel);
        }
        let found = self.channels.binary_search_by_key(&number, |channel| channel.key.channel);
        self.last_channel = found.ok()?;
        Some(self.last_channel)
    }
}

/// Writes a delivery: the frames around the body are copied from the consumer's envelope, if it has
/// one that suits.
#[inline(always)]
fn write_delivery(
    outbox: &mut Outbox,
    consumer: &mut Consumer,
    frame_size_max: u32,
    delivery: &Delivery,
    delivery_tag: u64,
    message: &Message<'_>,
) {
    let body_size = message.body.len();
    // Cheapest first: same likeness and body size, so the envelope suits without a look at names
    // and properties. Tag and channel are the consumer's, and never differ. An envelope of size 0
    // is none, so an empty body must not match it.
    let again = body_size > 0
        && consumer.envelope.body_size() == body_size
        && consumer.last_likeness.is(message.likeness);
    // Else `address` compares, and renders another envelope if it must. What fits none is encoded
    // whole: no body, a body of several frames, or large properties.
    if !again && !consumer.address(message, delivery, delivery_tag, frame_size_max) {
        let deliver = consumer.method(message, delivery, delivery_tag);
        return write_content(outbox, frame_size_max, deliver, message);
    }
    consumer.envelope.write(&mut outbox.scratch, delivery_tag, delivery.redelivered);
    outbox.write_body(&message.body);
    outbox.scratch.push(FRAME_END);
}

/// Queues a connection for sending. If its outbox has no memory, it gets a recycled one.
#[inline(never)]
fn enlist(queue: &mut Vec<u32>, spare: &mut Vec<Outbox>, writer: &mut Writer) {
    writer.queued = true;
    queue.push(writer.id.slot);
    if writer.outbox.scratch.capacity() == 0
        && let Some(spare) = spare.pop()
    {
        writer.outbox = spare;
    }
}

#[inline(never)]
fn write_content<'a>(
    outbox: &mut Outbox,
    frame_size_max: u32,
    method: impl Into<ContentMethod<'a>>,
    message: &Message<'_>,
) {
    match message.body {
        Body::Inline(body) => {
            outbox.copied_body_bytes += body.len();
            let scratch = &mut outbox.scratch;
            encoder::encode_content(scratch, method, message.properties, body, frame_size_max);
        }
        Body::Pieces(pieces) => {
            write_shared(outbox, frame_size_max, method.into(), message.properties, pieces);
        }
    }
}

#[inline(never)]
fn write_shared(
    outbox: &mut Outbox,
    frame_size_max: u32,
    method: ContentMethod<'_>,
    properties: &[u8],
    pieces: &[Bytes],
) {
    let size = pieces.iter().map(|piece| piece.len() as u64).sum();
    // For each body frame: the offset in `scratch` behind its header, and its bytes of the body.
    let mut parts = Vec::new();
    let scratch = &mut outbox.scratch;
    encoder::encode_content_parts(
        scratch,
        method,
        properties,
        size,
        frame_size_max,
        |at, range| {
            parts.push((at, range.end - range.start));
        },
    );
    // Frames and pieces end at different places: a frame may need parts of several pieces, and a
    // piece may reach into several frames.
    let mut pieces = pieces.iter();
    let mut piece = Bytes::new();
    for (at, mut size) in parts {
        while size > 0 {
            if piece.is_empty() {
                let Some(next) = pieces.next() else { return };
                piece = next.clone();
                continue;
            }
            let cut = piece.split_to(piece.len().min(size as usize));
            size -= cut.len() as u64;
            outbox.insert_shared(at, cut);
        }
    }
}

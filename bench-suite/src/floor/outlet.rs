//! The sending side of a connection, and how messages are written to it.

use bytes::Bytes;
use leveret_amqp::encoder::{
    ContentMethod, Deliver, GetOk, body_frame_size_max, encode_content_prefix,
};
use leveret_amqp::frame::{FRAME_BODY, FRAME_END, frame_header};
use leveret_amqp::method::{Encode, encode_frame};
use leveret_ring::{Outgoing, SocketId};

use super::message::Message;
use super::topology::Consumer;

/// Octets that may wait for a connection before its publishers are held back: 1 ms on a link of 10
/// Gbit/s.
pub(super) const PENDING_MAX: usize = 1 << 20;

/// From this size on, octets are sent from the receive buffer. Copying fewer is cheaper than
/// another element of a gathering send.
pub(super) const REFERENCE_FROM: usize = 1_024;

/// A larger send buffer is freed: it served the burst of a single turn.
const SCRATCH_KEPT: usize = 4 * PENDING_MAX;

/// The sending side of one connection.
#[derive(Debug, Default)]
pub(super) struct Outlet {
    pub(super) socket: Option<SocketId>,
    /// Encoded, and not given to the kernel yet.
    scratch: Vec<u8>,
    bodies: Vec<(usize, Bytes)>,
    bodies_size: usize,
    /// The buffers of the previous send; `None` while the kernel uses them.
    spare: Spare,
    /// Publishers that wait until less is pending.
    pub(super) feeders: Vec<SocketId>,
    /// Close the connection once everything is sent.
    pub(super) closing: bool,
    /// The last delivery tag of each channel; a connection has few channels.
    tags: Vec<(u16, u64)>,
}

#[derive(Debug)]
enum Spare {
    Here(Outgoing),
    WithKernel,
}

impl Default for Spare {
    fn default() -> Self {
        Self::Here(Outgoing::default())
    }
}

impl Outlet {
    /// Octets that have not been given to the kernel.
    #[inline]
    pub(super) fn pending(&self) -> usize {
        self.scratch.len() + self.bodies_size
    }

    pub(super) fn is_empty(&self) -> bool {
        self.scratch.is_empty()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.is_empty() && matches!(self.spare, Spare::Here(_))
    }

    /// Whether the peer reads more slowly than output comes. Without a send in progress, the output
    /// leaves at the end of the turn, so it does not count.
    pub(super) fn is_behind(&self) -> bool {
        self.pending() > PENDING_MAX && matches!(self.spare, Spare::WithKernel)
    }

    /// The next send; `None` while another one is in progress.
    pub(super) fn start(&mut self) -> Option<Outgoing> {
        if self.scratch.is_empty() {
            return None;
        }
        match std::mem::replace(&mut self.spare, Spare::WithKernel) {
            // It is sent after the current send.
            Spare::WithKernel => None,
            Spare::Here(spare) => {
                let scratch = std::mem::replace(&mut self.scratch, spare.scratch);
                let bodies = std::mem::replace(&mut self.bodies, spare.bodies);
                self.bodies_size = 0;
                Some(Outgoing { scratch, bodies })
            }
        }
    }

    /// The kernel has taken the whole send.
    pub(super) fn sent(&mut self, mut outgoing: Outgoing) {
        outgoing.scratch.clear();
        if outgoing.scratch.capacity() > SCRATCH_KEPT {
            outgoing.scratch = Vec::new();
        }
        self.spare = Spare::Here(outgoing);
    }

    pub(super) fn send(&mut self, channel: u16, method: &impl Encode) {
        encode_frame(channel, method, &mut self.scratch);
    }

    pub(super) fn forget_channel(&mut self, channel: u16) {
        self.tags.retain(|(number, _)| *number != channel);
    }

    /// The index of a channel's delivery tag; valid until a channel is closed.
    pub(super) fn tags_of(&mut self, channel: u16) -> usize {
        let known = self.tags.iter().position(|(number, _)| *number == channel);
        known.unwrap_or_else(|| {
            self.tags.push((channel, 0));
            self.tags.len() - 1
        })
    }

    #[inline(always)]
    fn next_tag(&mut self, tags: usize) -> u64 {
        self.tags[tags].1 += 1;
        self.tags[tags].1
    }

    /// Delivers content frames unchanged: the range `content` of `chunk`.
    #[inline(always)]
    pub(super) fn deliver_frames(
        &mut self,
        feed: &Feed,
        chunk: &Bytes,
        content: std::ops::Range<usize>,
    ) {
        let tag = self.next_tag(feed.tags);
        let start = self.scratch.len();
        self.scratch.extend_from_slice(&feed.template);
        let tag_at = start + feed.tag_at;
        if let Some(place) = self.scratch.get_mut(tag_at..tag_at + 8) {
            place.copy_from_slice(&tag.to_be_bytes());
        }
        if content.len() < REFERENCE_FROM {
            self.scratch.extend_from_slice(&chunk[content]);
        } else {
            self.bodies_size += content.len();
            self.bodies.push((self.scratch.len(), chunk.slice(content)));
        }
    }

    /// Delivers a message in frames of the consumer's size.
    pub(super) fn deliver(&mut self, feed: &Feed, message: &Message) {
        let delivery_tag = self.next_tag(feed.tags);
        let method = Deliver {
            channel: feed.channel,
            consumer_tag: &feed.consumer_tag,
            delivery_tag,
            redelivered: false,
            exchange: &message.exchange,
            routing_key: &message.routing_key,
        };
        self.content(method.into(), feed.channel, message, feed.frame_max);
    }

    /// Delivers a message as the answer to `basic.get`.
    pub(super) fn deliver_got(
        &mut self,
        channel: u16,
        message: &Message,
        left: u32,
        frame_max: u32,
    ) {
        let tags = self.tags_of(channel);
        let method = GetOk {
            channel,
            delivery_tag: self.next_tag(tags),
            redelivered: false,
            exchange: &message.exchange,
            routing_key: &message.routing_key,
            message_count: left,
        };
        self.content(method.into(), channel, message, frame_max);
    }

    fn content(
        &mut self,
        method: ContentMethod<'_>,
        channel: u16,
        message: &Message,
        frame_max: u32,
    ) {
        let size = message.size() as u64;
        encode_content_prefix(&mut self.scratch, method, &message.properties, size);
        let (mut left, mut room) = (size, 0);
        for part in &message.parts {
            let mut rest = 0..part.len();
            while !rest.is_empty() {
                if room == 0 {
                    room = u64::from(body_frame_size_max(frame_max)).min(left) as usize;
                    let header = frame_header(FRAME_BODY, channel, room as u32);
                    self.scratch.extend_from_slice(&header);
                }
                let piece = rest.start..rest.start + rest.len().min(room);
                rest.start = piece.end;
                room -= piece.len();
                left -= piece.len() as u64;
                if piece.len() < REFERENCE_FROM {
                    self.scratch.extend_from_slice(&part[piece]);
                } else {
                    self.bodies_size += piece.len();
                    self.bodies.push((self.scratch.len(), part.slice(piece)));
                }
                if room == 0 {
                    self.scratch.push(FRAME_END);
                }
            }
        }
    }
}

/// A consumer on the route of a publisher: its connection, and the start of its deliveries.
#[derive(Debug, Clone)]
pub(super) struct Feed {
    pub(super) slot: usize,
    pub(super) channel: u16,
    pub(super) frame_max: u32,
    pub(super) consumer_tag: Vec<u8>,
    /// The index of the channel's delivery tag.
    tags: usize,
    /// A complete deliver frame, except for the delivery tag.
    template: Vec<u8>,
    tag_at: usize,
}

impl Feed {
    pub(super) fn new(
        outlet: &mut Outlet,
        consumer: &Consumer,
        exchange: &[u8],
        routing_key: &[u8],
    ) -> Self {
        let method = Deliver {
            channel: consumer.channel,
            consumer_tag: consumer.tag.as_bytes(),
            delivery_tag: 0,
            redelivered: false,
            exchange,
            routing_key,
        };
        let mut template = Vec::new();
        // An empty content header is encoded too and cut off again.
        let no_properties = leveret_amqp::properties::NO_PROPERTIES;
        encode_content_prefix(&mut template, method, no_properties, 0);
        let header_size = leveret_amqp::encoder::content_header_frame_size(no_properties);
        template.truncate(template.len() - header_size);
        Self {
            slot: consumer.slot,
            channel: consumer.channel,
            frame_max: consumer.frame_max,
            consumer_tag: consumer.tag.clone().into_bytes(),
            tags: outlet.tags_of(consumer.channel),
            template,
            // Frame header, ids, length of the consumer tag, consumer tag.
            tag_at: 7 + 4 + 1 + consumer.tag.len(),
        }
    }
}

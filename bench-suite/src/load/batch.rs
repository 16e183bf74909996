//! A buffer of publishes that is encoded once; only the stamps change.

use leveret_amqp::encoder::{Publish, encode_content, encode_content_prefix};
use leveret_amqp::frame::FRAME_HEADER_SIZE;

use crate::fault::Fault;
use crate::load::stamp::{
    self, BODY_SIZE_MAX, SEQUENCE_BITS, SEQUENCE_MAX, STAMP_SIZE, STREAM_MAX, Stamp,
};

/// The size of a buffer in octets, unless one round over all routes needs more. It fits the level 2
/// cache together with what is sent.
const WIRE_SIZE: usize = 64 << 10;

/// The size of the largest buffer: 10,000 routes of 6 KiB, or four of the largest bodies.
const WIRE_SIZE_MAX: usize = 65 << 20;

/// Octets of the longest name on the wire (`shortstr`).
const NAME_SIZE_MAX: usize = 255;

/// Where a publisher sends to, and the stream that its messages form there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// Empty means the default exchange.
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    /// Encoded flags and values, as [`encode_content`] takes them.
    pub(crate) properties: Vec<u8>,
    pub(crate) stream: u32,
}

/// Publishes to each route in turn, in slots of the same size.
///
/// ```text
/// ┌─────────┬─────────┬─────────┬─────────┬───
/// │ route 0 │ route 1 │ route 2 │ route 0 │ …   each: method, header, body frames
/// └─────────┴─────────┴─────────┴─────────┴───
/// ```
#[derive(Debug)]
pub(crate) struct Batch {
    wire: Vec<u8>,
    /// The size of a slot in octets.
    stride: usize,
    /// The offset of the stamp in a slot.
    stamp_offset: usize,
    /// The next slot, and its route.
    slot: usize,
    route: usize,
    /// The first word of the next stamp of each route: stream and sequence number.
    heads: Vec<u64>,
}

impl Batch {
    /// A batch with bodies of `body_size` octets, at least [`STAMP_SIZE`], in frames of at most
    /// `frame_size_max` octets (0 is no limit).
    pub(crate) fn new(
        channel: u16,
        routes: &[Route],
        body_size: usize,
        frame_size_max: u32,
    ) -> Result<Self, Fault> {
        if !(STAMP_SIZE..=BODY_SIZE_MAX).contains(&body_size) {
            return Err(Fault::Scenario(format!(
                "a body of {body_size} B cannot be sent: give {STAMP_SIZE} to {BODY_SIZE_MAX}"
            )));
        }
        check_routes(routes)?;
        let mut round = Vec::new();
        for route in routes {
            let publish = publish_of(channel, route);
            let first = Stamp { stream: route.stream, sequence: 0, intended_us: 0 };
            let body = stamp::body(first, body_size);
            encode_content(&mut round, publish, &route.properties, &body, frame_size_max);
            if round.len() > WIRE_SIZE_MAX {
                return Err(Fault::Scenario(format!(
                    "one message of {body_size} B to each of {} keys takes more than the \
                     {WIRE_SIZE_MAX} B that a publisher holds: give smaller bodies or fewer keys",
                    routes.len()
                )));
            }
        }
        let mut prefix = Vec::new();
        let (first, size) = (&routes[0], body_size as u64);
        encode_content_prefix(&mut prefix, publish_of(channel, first), &first.properties, size);
        let rounds = (WIRE_SIZE / round.len()).max(1);
        Ok(Self {
            stride: round.len() / routes.len(),
            wire: round.repeat(rounds),
            stamp_offset: prefix.len() + FRAME_HEADER_SIZE,
            slot: 0,
            route: 0,
            heads: routes.iter().map(|route| u64::from(route.stream) << SEQUENCE_BITS).collect(),
        })
    }

    /// The size of one publish in octets.
    pub(crate) const fn stride(&self) -> usize {
        self.stride
    }

    /// Appends the next `count` publishes; `intended_us` is called once for each, in order.
    #[inline]
    pub(crate) fn append(
        &mut self,
        mut count: usize,
        mut intended_us: impl FnMut() -> u32,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        // The sequence number of the first route is at least that of any other.
        if (self.heads[0] & SEQUENCE_MAX) + count as u64 > SEQUENCE_MAX {
            return Err(Fault::Scenario(format!(
                "a stream has only {SEQUENCE_MAX} numbers: give more publishers or keys, or less \
                 time"
            )));
        }
        while count > 0 {
            let start = self.slot * self.stride;
            let end = self.wire.len().min(start + count * self.stride);
            let part = &mut self.wire[start..end];
            for publish in part.chunks_exact_mut(self.stride) {
                let head = &mut self.heads[self.route];
                publish[self.stamp_offset..self.stamp_offset + STAMP_SIZE]
                    .copy_from_slice(&stamp::encode(*head, intended_us()));
                *head += 1;
                self.route += 1;
                if self.route == self.heads.len() {
                    self.route = 0;
                }
            }
            out.extend_from_slice(part);
            let appended = (end - start) / self.stride;
            count -= appended;
            self.slot = if end == self.wire.len() { 0 } else { self.slot + appended };
        }
        Ok(())
    }

    /// Each stream, and how many messages it has so far.
    pub(crate) fn totals(&self) -> impl Iterator<Item = (u32, u64)> {
        self.heads.iter().map(|head| ((head >> SEQUENCE_BITS) as u32, head & SEQUENCE_MAX))
    }
}

fn publish_of(channel: u16, route: &Route) -> Publish<'_> {
    Publish {
        channel,
        exchange: route.exchange.as_bytes(),
        routing_key: route.routing_key.as_bytes(),
        // A lost message is counted as lost anyway; a return would count it twice.
        mandatory: false,
        immediate: false,
    }
}

/// Checks that all routes fit slots of the same size and have streams of their own.
fn check_routes(routes: &[Route]) -> Result<(), Fault> {
    let first = routes
        .first()
        .ok_or_else(|| Fault::Scenario("a publisher needs at least one route".to_owned()))?;
    let sizes =
        |route: &Route| route.exchange.len() + route.routing_key.len() + route.properties.len();
    for route in routes {
        let (exchange, key) = (&route.exchange, &route.routing_key);
        if exchange.len().max(key.len()) > NAME_SIZE_MAX {
            return Err(Fault::Scenario(format!(
                "the names of a route have at most {NAME_SIZE_MAX} B: shorten {exchange:?} or \
                 {key:?}"
            )));
        }
        if sizes(route) != sizes(first) {
            return Err(Fault::Scenario(format!(
                "the routes of a publisher must be of one size, but exchange {exchange:?} and key \
                 {key:?} with properties have {} B, those of the first route {} B: pad the keys",
                sizes(route),
                sizes(first)
            )));
        }
        if route.stream > STREAM_MAX {
            return Err(Fault::Scenario(format!(
                "stream {} is above {STREAM_MAX}: give fewer publishers, keys, queues or runs",
                route.stream
            )));
        }
    }
    let mut streams: Vec<_> = routes.iter().map(|route| route.stream).collect();
    streams.sort_unstable();
    match streams.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Fault::Scenario(format!("two routes share stream {}", pair[0]))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use leveret_amqp::properties::NO_PROPERTIES;
    use leveret_amqp::{Decoder, Frame, Method};

    use super::*;

    fn route(routing_key: &str, stream: u32) -> Route {
        let (exchange, properties) = ("x".to_owned(), NO_PROPERTIES.to_vec());
        Route { exchange, routing_key: routing_key.to_owned(), properties, stream }
    }

    /// Key and body of each publish.
    fn messages(wire: &[u8], frame_size_max: u32) -> Vec<(String, Vec<u8>)> {
        let mut messages: Vec<(String, Vec<u8>)> = Vec::new();
        let (mut decoder, mut cursor) = (Decoder::new(frame_size_max), 0);
        while let Some(frame) = decoder.next(wire, &mut cursor).unwrap() {
            match frame {
                Frame::Method { payload, .. } => match Method::decode(payload).unwrap() {
                    Method::BasicPublish(publish) => {
                        let key = String::from_utf8(publish.routing_key.to_vec()).unwrap();
                        messages.push((key, Vec::new()));
                    }
                    other => panic!("{}", other.name()),
                },
                Frame::Body { data, .. } => {
                    messages.last_mut().unwrap().1.extend_from_slice(&wire[data]);
                }
                _ => {}
            }
        }
        assert!(decoder.between_frames() && cursor == wire.len());
        messages
    }

    fn expected(
        routes: &[Route],
        from: usize,
        count: usize,
        size: usize,
    ) -> Vec<(String, Vec<u8>)> {
        let message = |number: usize| {
            let route = &routes[number % routes.len()];
            let sequence = (number / routes.len()) as u64;
            let stamp = Stamp { stream: route.stream, sequence, intended_us: number as u32 };
            (route.routing_key.clone(), stamp::body(stamp, size))
        };
        (from..from + count).map(message).collect()
    }

    #[test]
    fn routes_take_turns_and_each_counts_for_itself() {
        let routes = [route("a", 7), route("b", 5), route("c", STREAM_MAX)];
        for (size, frame_size_max) in [(16, 0), (1000, 4096), (10_000, 4096), (200_000, 131_072)] {
            let mut batch = Batch::new(1, &routes, size, frame_size_max).unwrap();
            let (mut from, mut time) = (0, 0..);
            for count in [1, 2, 3, 7, 0, 5] {
                let mut out = Vec::new();
                batch.append(count, || time.next().unwrap(), &mut out).unwrap();
                assert_eq!(out.len(), count * batch.stride());
                let found = messages(&out, frame_size_max);
                assert!(found == expected(&routes, from, count, size), "{count} of {size} B");
                from += count;
            }
            let totals: Vec<_> = batch.totals().collect();
            assert_eq!(totals, [(7, 6), (5, 6), (STREAM_MAX, 6)]);
        }
    }

    #[test]
    fn more_than_the_buffer_can_be_appended_at_once() {
        let routes = [route("key", 1)];
        let (mut batch, mut out, mut time) = (Batch::new(1, &routes, 16, 0).unwrap(), vec![], 0..);
        let count = 2 * WIRE_SIZE / batch.stride();
        batch.append(count, || time.next().unwrap(), &mut out).unwrap();
        assert!(batch.wire.len() <= WIRE_SIZE);
        assert!(messages(&out, 0) == expected(&routes, 0, count, 16));
    }

    #[test]
    fn ten_thousand_routes_have_a_slot_each() {
        let routes: Vec<_> = (0..10_000).map(|key| route(&format!("{key:05}"), key)).collect();
        let batch = Batch::new(1, &routes, 16, 0).unwrap();
        assert_eq!(batch.wire.len(), 10_000 * batch.stride());
    }

    fn refused(routes: &[Route], body_size: usize) -> String {
        Batch::new(1, routes, body_size, 0).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_sent_is_refused() {
        let good = route("key", 1);
        let cases = [
            (refused(&[], 16), "at least one"),
            (refused(std::slice::from_ref(&good), 15), "body of 15 B"),
            (refused(std::slice::from_ref(&good), BODY_SIZE_MAX + 1), "cannot be sent"),
            (refused(&[good.clone(), route("longer", 2)], 16), "pad the keys"),
            (refused(&[good.clone(), good], 16), "share stream 1"),
            (refused(&[route("key", STREAM_MAX + 1)], 16), "fewer publishers"),
            (refused(&[route(&"k".repeat(256), 1)], 16), "shorten"),
        ];
        for (fault, said) in cases {
            assert!(fault.contains(said), "{fault}");
        }
        let routes: Vec<_> = (0..100).map(|key| route(&format!("{key:02}"), key)).collect();
        assert!(refused(&routes, 1 << 20).contains("smaller bodies"));
    }

    #[test]
    fn a_stream_ends_before_its_numbers_do() {
        let mut batch = Batch::new(1, &[route("key", 1)], 16, 0).unwrap();
        batch.heads[0] = 1 << SEQUENCE_BITS | (SEQUENCE_MAX - 2);
        let mut out = Vec::new();
        assert!(batch.append(3, || 0, &mut out).is_err() && out.is_empty());
        batch.append(2, || 0, &mut out).unwrap();
        assert_eq!(batch.totals().next(), Some((1, SEQUENCE_MAX)));
    }
}

//! `basic.publish`, from its first frame to the queues: the hot path of a shard.

use std::ops::Range;

use bytes::Bytes;
use leveret_amqp::decoder::Decoder;
use leveret_amqp::encoder::Return;
use leveret_amqp::method::BasicPublish;
use leveret_amqp::{Properties, PropertiesBuilder, ReplyCode, TableBuilder};

use crate::catalog::equivalence::no_exchange;
use crate::catalog::object::Destination;
use crate::catalog::permission::{Access, ResourceKind};
use crate::client::backend::Backend;
use crate::client::connection::{Deadline, Session};
use crate::error::Exception;
use crate::home::backlog::PATIENCE_NS;
use crate::id::{ChannelKey, ExchangeId, QueueId, ShardId};
use crate::message::{BODY_COPY_MAX_BYTES, Body, Likeness, Message, Upcoming};
use crate::pressure::Pressure;
use crate::routing::route::has_extra_keys;

use super::Channel;
use super::call::Call;
use super::repeats::Form;

/// Largest `expiration` in RabbitMQ 3.x: the limit of its timers.
const EXPIRATION_MAX_MS: u64 = u32::MAX as u64;

/// The flag of the `headers` property, in the first octet.
const HEADERS_FLAG: u8 = 0x20;

/// The flags of `expiration` and `user-id`, whose values are checked at publish.
const JUDGED_FLAGS: [u8; 2] = [0x01, 0x10];

impl Call<'_> {
    /// The first frame of a publish.
    #[inline(always)]
    pub fn publish_begin(&mut self, publish: &BasicPublish<'_>) -> Result<(), Exception> {
        if publish.immediate {
            return Err(Exception::not_implemented("immediate=true").of(BasicPublish::IDS));
        }
        self.channel.content.begin(publish);
        self.channel.prelude.forget();
        if self.channel.route.aim(publish.exchange, publish.routing_key) {
            self.channel.likeness = Likeness::UNKNOWN;
        }
        Ok(())
    }

    /// The content header of a publish.
    #[inline(always)]
    pub fn publish_header(&mut self, payload: &[u8]) -> Result<(), Exception> {
        let Channel { content, likeness, .. } = &mut *self.channel;
        if content.header(payload, &self.backend.turn.settings, likeness)? {
            return self.publish_empty();
        }
        Ok(())
    }

    /// Keeps the first two frames of a message that has route and properties of the one before it:
    /// the next message may begin with the same frames.
    #[inline(always)]
    pub fn keep_prelude(&mut self, frames: Option<&[u8]>) {
        if let Some(frames) = frames
            && self.channel.likeness != Likeness::UNKNOWN
        {
            self.channel.prelude.keep(frames);
        }
    }

    /// Skips frames at `at` that repeat the last message: method and header, or whole messages. The
    /// caller reads on at the returned offset. `None` if the frames are different.
    #[inline(always)]
    pub fn publish_again(&mut self, decoder: &Decoder, chunk: &Bytes, at: usize) -> Option<usize> {
        let (body_size, body_at) = self.channel.prelude.ahead(chunk, at)?;
        if !self.channel.content.is_idle() {
            return None;
        }
        // If no whole message repeats the last one, its first two frames still do: they need no
        // decoding, and only the body is read in the general way.
        let repeats_end = self.publish_repeats(decoder, chunk, at);
        repeats_end.or_else(|| {
            let whole = self.channel.content.again(body_size, &self.backend.turn.settings);
            whole.then_some(body_at)
        })
    }

    /// Publishes a run of messages that repeat the last one, with one check of route and limits for
    /// all. Returns where the last one ends; `None` if the run is empty or needs other checks.
    #[inline(never)]
    fn publish_repeats(&mut self, decoder: &Decoder, chunk: &Bytes, at: usize) -> Option<usize> {
        let Channel { key, content, route, confirm, transaction, likeness, prelude, .. } =
            &mut *self.channel;
        // These need a look at each message: a route that was computed for another topology or for
        // these headers only, properties whose values are checked, a transaction that keeps
        // messages, and an alarm, which blocks the connection after its next publish.
        let topology = &self.backend.topology;
        let versions = (topology.version(), topology.permission_version());
        let known = route.is_current(versions) && !are_judged(&content.properties);
        if !known || transaction.is_some() || self.backend.alarms.any() {
            return None;
        }
        let body_size_max = self.backend.turn.settings.message_size_max_bytes;
        let form = Form { decoder, prelude, channel: key.channel, body_size_max };
        let message = Message {
            exchange: &route.exchange,
            routing_key: &route.routing_key,
            properties: &content.properties,
            body: Body::Inline(&[]),
            published_at: self.backend.turn.now,
            likeness: *likeness,
        };
        let found = form.find(chunk, at);
        let repeats = found.of(chunk, message);
        if repeats.count() == 0 {
            return None;
        }
        self.backend.counts.published += repeats.count() as u64;
        self.backend.counts.published_bytes += found.body_bytes;
        let (destinations, mandatory) = (&route.destinations, content.mandatory);
        let held = self.backend.send_to_queues(*key, destinations, &repeats, mandatory, *confirm);
        self.session.published(self.backend, held);
        Some(found.end)
    }

    #[inline(never)]
    fn publish_empty(&mut self) -> Result<(), Exception> {
        self.publish(Body::Inline(&[]))
    }

    /// A body frame of a publish, or a part of one.
    #[inline(always)]
    pub fn publish_body(
        &mut self,
        chunk: &Bytes,
        data: Range<usize>,
        whole: bool,
        last: bool,
    ) -> Result<(), Exception> {
        if whole && self.channel.content.whole_body(data.len()) {
            if data.len() <= BODY_COPY_MAX_BYTES {
                return self.publish(Body::Inline(&chunk[data]));
            }
            return self.publish(Body::Pieces(&[chunk.slice(data)]));
        }
        self.publish_in_parts(chunk, data, last)
    }

    #[inline(never)]
    fn publish_in_parts(
        &mut self,
        chunk: &Bytes,
        data: Range<usize>,
        last: bool,
    ) -> Result<(), Exception> {
        let complete = self.channel.content.body(chunk, data, last)?;
        let copied = std::mem::take(&mut self.channel.content.copied_bytes);
        self.backend.outputs.body_bytes.copied.assembly += copied;
        if !complete {
            return Ok(());
        }
        // Taken out, because `publish` borrows the channel and the body at once. The two fields
        // that outlast the message go back.
        let content = std::mem::take(&mut self.channel.content);
        self.channel.content.properties.extend_from_slice(&content.properties);
        self.channel.content.mandatory = content.mandatory;
        self.publish(content.assembled())
    }

    /// Publishes a complete message.
    #[inline(always)]
    fn publish(&mut self, body: Body<'_>) -> Result<(), Exception> {
        self.backend.counts.published += 1;
        self.backend.counts.published_bytes += body.len() as u64;
        let properties = &self.channel.content.properties;
        let judged = are_judged(properties);
        let topology = &self.backend.topology;
        let versions = (topology.version(), topology.permission_version());
        let own_way = properties[0] & HEADERS_FLAG != 0 && has_extra_keys(properties);
        let known_way = !own_way && self.channel.route.is_current(versions);
        if judged || !known_way {
            // RabbitMQ checks exchange, properties and route in this order: the first fault
            // decides.
            let exchange = if known_way { None } else { Some(self.published_exchange(versions)?) };
            if judged {
                self.check_properties()?;
            }
            if let Some(exchange) = exchange {
                self.find_route(exchange, versions, own_way)?;
            }
        }
        if self.channel.route.strip_bcc {
            self.channel.likeness = Likeness::UNKNOWN;
            self.channel.content.properties = without_bcc(&self.channel.content.properties);
        }
        let Channel { key, content, route, confirm, transaction, likeness, .. } =
            &mut *self.channel;
        // Something differs from the last message of this channel: a new number says so to the
        // store, to mail batches and to envelopes.
        if *likeness == Likeness::UNKNOWN {
            self.backend.last_likeness = self.backend.last_likeness.next();
            *likeness = self.backend.last_likeness;
        }
        let message = Message {
            exchange: &route.exchange,
            routing_key: &route.routing_key,
            properties: &content.properties,
            body,
            published_at: self.backend.turn.now,
            likeness: *likeness,
        };
        if let Some(transaction) = transaction {
            self.backend.outputs.body_bytes.copied.mail += message.body.copied_bytes();
            return transaction.publish(&message, &route.destinations, content.mandatory);
        }
        let (destinations, mandatory) = (&route.destinations, content.mandatory);
        let held =
            self.backend.send_to_queues(*key, destinations, &Some(&message), mandatory, *confirm);
        self.session.published(self.backend, held);
        Ok(())
    }

    /// The exchange, if the user may publish to it.
    #[inline]
    fn published_exchange(&mut self, versions: (u64, u64)) -> Result<ExchangeId, Exception> {
        if let Some(exchange) = self.channel.route.target(versions) {
            return Ok(exchange);
        }
        let exchange = self.find_exchange().map_err(|failed| failed.of(BasicPublish::IDS))?;
        self.channel.route.found(exchange, versions);
        Ok(exchange)
    }

    #[inline(never)]
    fn find_exchange(&self) -> Result<ExchangeId, Exception> {
        let opened = &self.session.opened;
        let sent_name = &self.channel.route.exchange;
        let exchange = self.backend.topology.exchange(opened.vhost, sent_name);
        let cleaned;
        // A name that exists as it was sent is well-formed.
        let (exchange, name) = match exchange {
            Some(exchange) => (Some(exchange), &exchange.name),
            None => {
                let Ok(name) = str::from_utf8(sent_name) else {
                    let text = "Malformed UTF-8 in shortstr";
                    return Err(Exception::new(ReplyCode::FrameError, text));
                };
                cleaned = crate::catalog::arguments::strip_cr_lf(name);
                (self.backend.topology.exchange(opened.vhost, cleaned.as_bytes()), &cleaned)
            }
        };
        self.permit(Access::Write, ResourceKind::Exchange, name)?;
        let Some(exchange) = exchange else {
            return Err(no_exchange(name, &opened.vhost_name));
        };
        if exchange.internal {
            let vhost = &opened.vhost_name;
            let text = format!("cannot publish to internal exchange '{name}' in vhost '{vhost}'");
            return Err(Exception::access_refused(text));
        }
        Ok(exchange.id)
    }

    /// Computes the route: the queues of the message, sorted by home.
    #[inline(never)]
    fn find_route(
        &mut self,
        exchange: ExchangeId,
        versions: (u64, u64),
        own_way: bool,
    ) -> Result<(), Exception> {
        let route = &mut self.channel.route;
        let routed = self.backend.topology.route(
            &mut self.backend.route,
            exchange,
            &route.routing_key,
            &self.channel.content.properties,
            &mut route.destinations,
        );
        let routed = routed.map_err(|exception| exception.of(BasicPublish::IDS))?;
        route.destinations.sort_unstable_by_key(|destination| destination.home);
        route.strip_bcc = routed.strip_bcc;
        // With extra routing keys in its headers, the route is of this message only.
        let reusable = routed.cacheable && !own_way;
        route.computed(if reusable { versions } else { (0, 0) });
        Ok(())
    }

    /// Checks the properties whose values RabbitMQ checks.
    #[inline(never)]
    fn check_properties(&self) -> Result<(), Exception> {
        let blame = |text: String| Err(Exception::precondition_failed(text).of(BasicPublish::IDS));
        let properties = Properties::trusted(&self.channel.content.properties);
        let user = self.session.opened.user.as_bytes();
        if let Some(claimed) = properties.user_id()
            && claimed != user
            && !self.session.may_impersonate(&self.backend.topology)
        {
            return blame(format!(
                "user_id property set to '{}' but authenticated user was '{}'",
                String::from_utf8_lossy(claimed),
                self.session.opened.user,
            ));
        }
        if let Some(expiration) = properties.expiration() {
            check_expiration(expiration)?;
        }
        Ok(())
    }
}

/// The reasons why a publisher has to wait after its messages were sent to their queues.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    /// A home whose lane or log is backed up.
    home: Option<(ShardId, Pressure)>,
    /// A queue whose consumers are behind.
    backlog: Option<QueueId>,
}

impl Backend {
    /// Returns messages that reach no queue to their publisher (`mandatory`), or drops them.
    #[cold]
    fn unroutable(&mut self, channel: ChannelKey, messages: &impl Upcoming, mandatory: bool) {
        if !mandatory {
            self.counts.unroutable_dropped += messages.count() as u64;
            return;
        }
        self.counts.unroutable_returned += messages.count() as u64;
        let Some((writer, _)) = self.outputs.writers.channel(channel) else {
            return;
        };
        messages.clone().lend(|message| {
            let method = Return {
                channel: channel.channel,
                reply_code: ReplyCode::NoRoute.code(),
                reply_text: ReplyCode::NoRoute.name().as_bytes(),
                exchange: message.exchange,
                routing_key: message.routing_key,
            };
            writer.write_content(method, message);
            true
        });
    }

    /// Sends messages to the homes of their queues, once to each home, and registers their
    /// confirms. Returns why the publisher has to wait, if it has to. `destinations` must be sorted
    /// by home.
    #[inline(always)]
    pub(super) fn send_to_queues(
        &mut self,
        channel: ChannelKey,
        destinations: &[Destination],
        messages: &impl Upcoming,
        mandatory: bool,
        confirm: bool,
    ) -> Held {
        if destinations.is_empty() {
            self.unroutable(channel, messages, mandatory);
        }
        let count = messages.count() as u32;
        let here = self.turn.shard;
        let mut held = Held::default();
        let mut refused = false;
        for group in destinations.chunk_by(|left, right| left.home == right.home) {
            let home = group[0].home;
            let queues = group.iter().map(|destination| destination.queue);
            // A remote home confirms by mail, and its pressure is known here from earlier mail.
            if home != here {
                held.backlog = self.known_backlog(queues.clone()).or(held.backlog);
                self.outputs.mail_publishes(home, queues, messages, confirm.then_some(channel));
                if confirm {
                    self.awaited.push(home);
                }
                let pressure = self.outputs.mesh.publish_pressure(home);
                held.home = pressure.map(|pressure| (home, pressure)).or(held.home);
                continue;
            }
            // The local home answers now, unless it confirms only when the log is durable.
            let accepted = self.home.publish(&self.turn, &mut self.outputs, queues, messages);
            refused = accepted.refused;
            if confirm && (refused || self.home.confirms_later((here, channel), &accepted, count)) {
                self.awaited.push(home);
            }
            if accepted.log_backed_up {
                held.home = Some((home, Pressure::Log));
            }
            held.backlog = accepted.backlog.or(held.backlog);
        }
        if !confirm {
            return held;
        }
        if self.awaited.is_empty() {
            self.outputs.confirm_at_once(channel, count);
        } else {
            self.outputs.confirm_later(channel, &self.awaited, count);
            self.awaited.clear();
            // Only now: an answer counts publishes that `confirm_later` has registered.
            if refused {
                self.outputs.refused(here, channel, count);
            }
        }
        held
    }
}

impl Session {
    /// After messages were sent to their queues: blocks the connection for the reasons in `held`.
    #[inline]
    pub(super) fn published(&mut self, backend: &mut Backend, held: Held) {
        if let Some((home, pressure)) = held.home
            && self.blocks.add(pressure, backend.turn.now)
        {
            backend.outputs.mesh.wait_to_publish(home, self.id, pressure);
        }
        if let Some(queue) = held.backlog {
            self.wait_for_consumers(backend, queue);
        }
    }

    /// Blocks the connection until the consumers of a queue have caught up, or a deadline.
    #[inline(never)]
    fn wait_for_consumers(&mut self, backend: &mut Backend, queue: QueueId) {
        // After a wait that ran into its deadline, publishes go through for a while.
        let now = backend.turn.now;
        if now < self.hurries_until {
            return;
        }
        let Some(publishers) = backend.backlog_publishers(queue) else {
            return;
        };
        if !self.blocks.add(Pressure::Backlog, now) {
            return;
        }
        publishers.insert(self.id);
        backend.deadlines.arm(now.after(PATIENCE_NS), (self.id, Deadline::Backlog));
    }
}

/// Whether the message has one of [`JUDGED_FLAGS`].
#[inline(always)]
fn are_judged(properties: &[u8]) -> bool {
    [properties[0] & JUDGED_FLAGS[0], properties[1] & JUDGED_FLAGS[1]] != [0, 0]
}

/// `expiration` is a decimal number of milliseconds as text.
fn check_expiration(expiration: &[u8]) -> Result<(), Exception> {
    let shown = String::from_utf8_lossy(expiration);
    let digits = shown.strip_prefix(['-', '+']).unwrap_or(&shown);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let reason = if end == 0 {
        "no_integer".to_owned()
    } else if end < digits.len() {
        format!("{{leftover_string,\"{}\"}}", &digits[end..])
    } else if shown.starts_with('-') && digits.bytes().any(|digit| digit != b'0') {
        format!("{{value_negative,{shown}}}")
    } else if digits.parse::<u64>().is_ok_and(|milliseconds| milliseconds <= EXPIRATION_MAX_MS) {
        return Ok(());
    } else {
        format!("{{value_too_big,{digits}}}")
    };
    let text = format!("invalid expiration '{shown}': {reason}");
    Err(Exception::precondition_failed(text).of(BasicPublish::IDS))
}

/// The properties without the header `BCC`, which consumers must not see.
fn without_bcc(properties: &[u8]) -> Vec<u8> {
    let properties = Properties::trusted(properties);
    let Some(headers) = properties.headers() else {
        return properties.as_bytes().to_vec();
    };
    let mut kept = TableBuilder::new();
    for (name, value) in headers.iter().filter(|(name, _)| *name != b"BCC") {
        kept = kept.value(name, value);
    }
    let kept = kept.finish();
    let mut builder = PropertiesBuilder::from(properties);
    builder.headers = Some(kept.as_ref());
    builder.finish()
}

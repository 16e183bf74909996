//! Where a message goes: the walk over exchanges, bindings and alternate exchanges.

use std::mem;

use leveret_amqp::{Properties, TableRef, Value};

use crate::error::Exception;
use crate::id::ExchangeId;
use crate::routing::exchange::Bindings;
use crate::routing::topic::Matcher;

use super::route_cache::{Question, RouteCache};
use super::topology::{ExchangeEntry, Topology};
use crate::catalog::object::{Destination, Target};

/// Most keys that the headers `CC` and `BCC` may add, each 255 octets or less in a sane message.
/// `RabbitMQ` has no limit; each key costs a walk over the bindings, which a client must not be
/// able to multiply without bound.
pub const EXTRA_KEYS_MAX: usize = 255;

/// The flag of the `headers` property in the first octet of the property flags.
const HEADERS_FLAG: u8 = 0x20;

/// The result of routing next to the destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routed {
    /// The result depends on exchange, routing key and [`Topology::version`] alone: no headers
    /// exchange was met and there were no `CC` or `BCC` keys. A message found in a cache of such
    /// results must not have such keys either, see [`has_extra_keys`].
    pub cacheable: bool,
    /// The message has the header `BCC`, which **the caller must take out** before it delivers
    /// or stores the message; nothing here rewrites properties.
    pub strip_bcc: bool,
}

/// Memory and results that a shard reuses from message to message, so that routing does not
/// allocate. It belongs to one topology.
#[derive(Debug)]
pub struct RouteScratch {
    cache: RouteCache,
    matcher: Matcher,
    stamps: Stamps,
    work: Vec<ExchangeId>,
    /// Empty between messages; kept for its memory.
    headers: Vec<(&'static [u8], Value<'static>)>,
    /// Empty between messages; kept for its memory.
    keys: Vec<&'static [u8]>,
}

impl Default for RouteScratch {
    fn default() -> Self {
        Self::new()
    }
}

impl RouteScratch {
    /// A scratch that grows with the slots of queues and exchanges it meets.
    pub fn new() -> Self {
        Self {
            cache: RouteCache::default(),
            matcher: Matcher::new(),
            stamps: Stamps::default(),
            work: Vec::new(),
            headers: Vec::new(),
            keys: Vec::new(),
        }
    }
}

#[cfg(test)]
impl RouteScratch {
    /// Address and capacity of each list.
    pub(super) fn memory(&self) -> [(usize, usize); 3] {
        [
            (self.work.as_ptr().addr(), self.work.capacity()),
            (self.headers.as_ptr().addr(), self.headers.capacity()),
            (self.keys.as_ptr().addr(), self.keys.capacity()),
        ]
    }
}

/// Whether a message must be routed by itself because of its `CC` or `BCC` header.
#[inline]
pub fn has_extra_keys(properties: &[u8]) -> bool {
    headers_of(properties)
        .is_some_and(|headers| headers.iter().any(|(name, _)| matches!(name, b"CC" | b"BCC")))
}

impl Topology {
    /// Fills `out` with the queues that a message reaches, each once, in no promised order.
    ///
    /// `properties` are the validated flags and values of the content header. The routing keys are
    /// `routing_key` and the long strings in the headers `CC` and `BCC`. A message that none of an
    /// exchange's bindings match goes on to the alternate exchange, if that exists. Each exchange
    /// is visited once, so that cycles end. An exchange that does not exist any more leads nowhere.
    ///
    /// # Errors
    /// 406 for a `CC` or `BCC` header that is no array (`RabbitMQ`'s text), or with more than
    /// [`EXTRA_KEYS_MAX`] keys (ours).
    #[inline]
    pub fn route(
        &self,
        scratch: &mut RouteScratch,
        exchange: ExchangeId,
        routing_key: &[u8],
        properties: &[u8],
        out: &mut Vec<Destination>,
    ) -> Result<Routed, Exception> {
        out.clear();
        // Three ways, the cheapest first: one look-up, a cached result, the walk. Keys from headers
        // are in no cached question, so messages with such keys always take the walk.
        let Some(entry) = self.exchange_entry(exchange).filter(|_| !has_extra_keys(properties))
        else {
            return self.route_graph(scratch, exchange, routing_key, properties, out);
        };
        if self.route_simply(entry, routing_key, out) {
            return Ok(Routed { cacheable: true, strip_bcc: false });
        }
        let question = Question::new(self.seed, self.version, exchange, routing_key);
        if let Some(known) = scratch.cache.get(&question) {
            out.extend_from_slice(known);
            return Ok(Routed { cacheable: true, strip_bcc: false });
        }
        let routed = self.route_graph(scratch, exchange, routing_key, properties, out)?;
        if routed.cacheable {
            scratch.cache.put(&question, out);
        }
        Ok(routed)
    }

    /// The common cases, one look-up each; false leaves it to the walk.
    #[inline]
    fn route_simply(&self, entry: &ExchangeEntry, key: &[u8], out: &mut Vec<Destination>) -> bool {
        match &entry.bindings {
            Bindings::Default => out.extend(self.queue_destination(entry, key)),
            // Through another exchange a message may reach a queue twice, which only the walk sees.
            _ if entry.exchange_bindings > 0 => return false,
            Bindings::Direct(bindings) => bindings.route(key, &mut |target| push(target, out)),
            Bindings::Fanout(bindings) => bindings.route(&mut |target| push(target, out)),
            Bindings::Topic(_) | Bindings::Headers(_) => return false,
        }
        !out.is_empty() || entry.meta.alternate.is_none()
    }

    #[inline]
    fn queue_destination(&self, entry: &ExchangeEntry, name: &[u8]) -> Option<Destination> {
        let queues = &self.vhost(entry.meta.vhost)?.queues;
        queues.get(name).map(|queue| queue.destination)
    }

    fn route_graph(
        &self,
        scratch: &mut RouteScratch,
        exchange: ExchangeId,
        routing_key: &[u8],
        properties: &[u8],
        out: &mut Vec<Destination>,
    ) -> Result<Routed, Exception> {
        let headers = headers_of(properties);
        let mut keys = recycle(mem::take(&mut scratch.keys));
        keys.push(routing_key);
        let mut strip_bcc = false;
        if let Some(headers) = headers {
            strip_bcc = add_extra_keys(headers, &mut keys)?;
        }
        let mut walk = Walk {
            topology: self,
            keys: &keys,
            headers,
            sorted: None,
            cacheable: keys.len() == 1,
            scratch,
            out,
        };
        walk.run(exchange);
        let cacheable = walk.cacheable;
        // The lists borrow from this message, so only their memory goes back to the scratch.
        if let Some(sorted) = walk.sorted.take() {
            walk.scratch.headers = recycle_headers(sorted);
        }
        scratch.keys = recycle(keys);
        Ok(Routed { cacheable, strip_bcc })
    }
}

/// The way of one message.
struct Walk<'w, 'm> {
    topology: &'w Topology,
    /// The routing key and those of `CC` and `BCC`.
    keys: &'w [&'m [u8]],
    headers: Option<TableRef<'m>>,
    /// The headers by name, once a headers exchange is met.
    sorted: Option<Vec<(&'m [u8], Value<'m>)>>,
    cacheable: bool,
    scratch: &'w mut RouteScratch,
    out: &'w mut Vec<Destination>,
}

impl Walk<'_, '_> {
    fn run(&mut self, exchange: ExchangeId) {
        self.scratch.stamps.begin();
        self.scratch.work.clear();
        self.enter(exchange);
        while let Some(exchange) = self.scratch.work.pop() {
            if let Some(entry) = self.topology.exchange_entry(exchange) {
                self.visit(entry);
            }
        }
    }

    fn enter(&mut self, exchange: ExchangeId) {
        if self.scratch.stamps.exchange(exchange) {
            self.scratch.work.push(exchange);
        }
    }

    fn visit(&mut self, entry: &ExchangeEntry) {
        if matches!(entry.bindings, Bindings::Headers(_)) {
            self.sort_headers();
        }
        let RouteScratch { matcher, stamps, work, .. } = &mut *self.scratch;
        let out = &mut *self.out;
        let mut matched = false;
        let mut found = |target| {
            matched = true;
            match target {
                Target::Queue(destination) => {
                    if stamps.queue(destination) {
                        out.push(destination);
                    }
                }
                Target::Exchange(exchange) => {
                    if stamps.exchange(exchange) {
                        work.push(exchange);
                    }
                }
            }
        };
        match &entry.bindings {
            Bindings::Default => {
                for key in self.keys {
                    if let Some(queue) = self.topology.queue_destination(entry, key) {
                        found(Target::Queue(queue));
                    }
                }
            }
            Bindings::Direct(bindings) => {
                self.keys.iter().for_each(|key| bindings.route(key, &mut found));
            }
            Bindings::Fanout(bindings) => bindings.route(&mut found),
            Bindings::Topic(bindings) => {
                self.keys.iter().for_each(|key| bindings.route(matcher, key, &mut found));
            }
            Bindings::Headers(bindings) => {
                bindings.route(self.sorted.as_deref().unwrap_or_default(), &mut found);
            }
        }
        if !matched {
            self.enter_alternate(entry);
        }
    }

    fn enter_alternate(&mut self, entry: &ExchangeEntry) {
        let Some(name) = &entry.meta.alternate else {
            return;
        };
        if let Some(alternate) = self.topology.exchange(entry.meta.vhost, name.as_bytes()) {
            self.enter(alternate.id);
        }
    }

    /// Sorts the headers by name. Equal names keep their order, which is that of their addresses.
    fn sort_headers(&mut self) {
        self.cacheable = false;
        if self.sorted.is_none() {
            let mut sorted = recycle_headers(mem::take(&mut self.scratch.headers));
            sorted.extend(self.headers.into_iter().flat_map(TableRef::iter));
            sorted.sort_unstable_by_key(|(name, _)| (*name, name.as_ptr()));
            self.sorted = Some(sorted);
        }
    }
}

#[inline]
fn push(target: Target, out: &mut Vec<Destination>) {
    if let Target::Queue(destination) = target {
        out.push(destination);
    }
}

/// Which queues and exchanges this message has met. A stamp per slot saves clearing.
#[derive(Debug, Default)]
struct Stamps {
    current: u32,
    queues: Vec<u32>,
    exchanges: Vec<u32>,
}

impl Stamps {
    /// Forgets everything.
    fn begin(&mut self) {
        self.current = self.current.wrapping_add(1);
        if self.current == 0 {
            self.queues.fill(0);
            self.exchanges.fill(0);
            self.current = 1;
        }
    }

    /// True the first time.
    #[inline]
    fn queue(&mut self, destination: Destination) -> bool {
        mark(&mut self.queues, destination.queue.slot, self.current)
    }

    /// True the first time.
    #[inline]
    fn exchange(&mut self, exchange: ExchangeId) -> bool {
        mark(&mut self.exchanges, exchange.slot, self.current)
    }
}

#[inline]
fn mark(stamps: &mut Vec<u32>, slot: u32, stamp: u32) -> bool {
    let slot = slot as usize;
    if slot >= stamps.len() {
        // Doubling keeps the next hundred thousand queues from growing it one by one.
        stamps.resize((slot + 1).next_power_of_two(), 0);
    }
    mem::replace(&mut stamps[slot], stamp) != stamp
}

#[inline]
fn headers_of(properties: &[u8]) -> Option<TableRef<'_>> {
    match properties.first() {
        Some(flags) if flags & HEADERS_FLAG != 0 => Properties::trusted(properties).headers(),
        _ => None,
    }
}

/// Appends the long strings of `CC` and `BCC` (`rabbit_basic:header_routes`); whether there is a
/// `BCC`. Other values in the arrays are ignored, as `RabbitMQ` does.
fn add_extra_keys<'a>(headers: TableRef<'a>, keys: &mut Vec<&'a [u8]>) -> Result<bool, Exception> {
    let mut bcc = false;
    for name in ["CC", "BCC"] {
        let Some(value) = headers.get(name) else {
            continue;
        };
        let Some(array) = value.as_array() else {
            return Err(Exception::precondition_failed(format!(
                "invalid message: {{unacceptable_type_in_header,\"{name}\",{}}}",
                value.rabbit_type_name(),
            )));
        };
        bcc |= name == "BCC";
        for key in array.iter().filter_map(|value| value.as_long_str()) {
            if keys.len() > EXTRA_KEYS_MAX {
                return Err(Exception::precondition_failed(format!(
                    "invalid message: more than {EXTRA_KEYS_MAX} routing keys in CC and BCC",
                )));
            }
            keys.push(key);
        }
    }
    Ok(bcc)
}

/// An empty list with the memory of another: collecting from a list of the same layout reuses
/// its allocation.
fn recycle<'a>(mut keys: Vec<&[u8]>) -> Vec<&'a [u8]> {
    keys.clear();
    keys.into_iter().map(|_| -> &'a [u8] { &[] }).collect()
}

/// As [`recycle`].
fn recycle_headers<'a>(mut headers: Vec<(&[u8], Value<'_>)>) -> Vec<(&'a [u8], Value<'a>)> {
    headers.clear();
    headers.into_iter().map(|_| -> (&'a [u8], Value<'a>) { (&[], Value::Void) }).collect()
}

//! What is sent where: ten durable queues behind the default, a direct, a fanout and a topic
//! exchange, and messages of all sizes, most of them small so that the rate stays high.

use leveret_amqp::PropertiesBuilder;

use crate::history::{Id, Outcome, Published};
use crate::random::Random;
use crate::wire::{Cut, Wire, fingerprint};

pub(crate) const QUEUES: u8 = 10;

const DIRECT: &str = "crash.direct";
const FANOUT: &str = "crash.fanout";
const TOPIC: &str = "crash.topic";

const EXCHANGES: [(&str, &str); 3] = [(DIRECT, "direct"), (FANOUT, "fanout"), (TOPIC, "topic")];

/// The queues of the fanout exchange.
const FANOUT_QUEUES: [u8; 3] = [0, 4, 8];

const TOPIC_BINDINGS: [(u8, &str); 3] = [(1, "a.#"), (2, "*.b"), (9, "#.z")];

/// Routing keys and the queues that [`TOPIC_BINDINGS`] sends them to, by bits.
const TOPIC_KEYS: [(&str, u16); 4] =
    [("a.b", 1 << 1 | 1 << 2), ("a.z", 1 << 1 | 1 << 9), ("x.b", 1 << 2), ("c.d.z", 1 << 9)];

pub(crate) fn queue_name(queue: u8) -> String {
    format!("crash.q{queue}")
}

/// The number in a name that [`queue_name`] made.
pub(crate) fn queue_number(name: &str) -> u8 {
    name.strip_prefix("crash.q").and_then(|number| number.parse().ok()).expect("a queue of ours")
}

/// Declares and binds everything.
pub(crate) fn declare(wire: &mut Wire) -> Result<(), Cut> {
    for (exchange, kind) in EXCHANGES {
        wire.declare_exchange(exchange, kind, false)?;
    }
    for queue in 0..QUEUES {
        wire.declare_queue(&queue_name(queue), false)?;
        wire.bind(&queue_name(queue), DIRECT, &format!("k{queue}"))?;
    }
    for queue in FANOUT_QUEUES {
        wire.bind(&queue_name(queue), FANOUT, "")?;
    }
    for (queue, pattern) in TOPIC_BINDINGS {
        wire.bind(&queue_name(queue), TOPIC, pattern)?;
    }
    Ok(())
}

/// Asks for everything that was declared; what is missing is declared again, so that a run can
/// tell of more than the first thing it found.
pub(crate) fn demand(wire: &mut Wire) -> Result<Option<String>, Cut> {
    let mut missing = Vec::new();
    for (exchange, kind) in EXCHANGES {
        if !exists(wire, |wire| wire.declare_exchange(exchange, kind, true))? {
            missing.push(exchange.to_owned());
        }
    }
    for queue in (0..QUEUES).map(queue_name) {
        if !exists(wire, |wire| wire.declare_queue(&queue, true).map(drop))? {
            missing.push(queue);
        }
    }
    if missing.is_empty() {
        return Ok(None);
    }
    declare(wire)?;
    Ok(Some(format!("declared durable, confirmed and gone: {}", missing.join(", "))))
}

/// Whether a passive declaration succeeds; the channel is open again where it does not.
pub(crate) fn exists(
    wire: &mut Wire,
    ask: impl FnOnce(&mut Wire) -> Result<(), Cut>,
) -> Result<bool, Cut> {
    match ask(wire) {
        Ok(()) => Ok(true),
        Err(Cut::Closed(404, _)) => wire.open_channel().map(|()| false),
        Err(cut) => Err(cut),
    }
}

/// Buffers a message of the generator's choice; what is to be known of it.
pub(crate) fn publish(wire: &mut Wire, random: &mut Random, id: Id) -> Published {
    let (exchange, key, targets) = route(random);
    let persistent = random.chance(95);
    let text = id.to_text();
    let properties = PropertiesBuilder {
        delivery_mode: Some(if persistent { 2 } else { 1 }),
        message_id: Some(text.as_bytes()),
        ..PropertiesBuilder::default()
    }
    .finish();
    let body = filler(random.next(), body_size(random));
    wire.publish(exchange, &key, &properties, &body);
    let fingerprint = fingerprint(exchange.as_bytes(), key.as_bytes(), &properties, &body);
    Published { id, persistent, targets, fingerprint, outcome: Outcome::Unknown }
}

/// A persistent message with an id for a queue, by the default exchange.
pub(crate) fn publish_to(wire: &mut Wire, queue: &str, id: Id, body_size: usize) -> Published {
    let text = id.to_text();
    let properties = PropertiesBuilder {
        delivery_mode: Some(2),
        message_id: Some(text.as_bytes()),
        ..PropertiesBuilder::default()
    }
    .finish();
    let body = filler(u64::from(id.serial()), body_size);
    wire.publish("", queue, &properties, &body);
    let fingerprint = fingerprint(b"", queue.as_bytes(), &properties, &body);
    Published { id, persistent: true, targets: 1, fingerprint, outcome: Outcome::Unknown }
}

fn route(random: &mut Random) -> (&'static str, String, u16) {
    let queue = random.below(QUEUES.into()) as u8;
    match random.below(10) {
        0..4 => ("", queue_name(queue), 1 << queue),
        4..7 => (DIRECT, format!("k{queue}"), 1 << queue),
        7 => {
            let targets = FANOUT_QUEUES.iter().fold(0, |bits, queue| bits | 1 << queue);
            (FANOUT, "any".to_owned(), targets)
        }
        _ => {
            let (key, targets) = random.pick(&TOPIC_KEYS);
            (TOPIC, key.to_owned(), targets)
        }
    }
}

/// In bytes: the median is some 500, the mean some 2,500.
fn body_size(random: &mut Random) -> usize {
    let largest = random.weighted(&[(500, 1), (6_000, 1_000), (3_000, 4_000), (400, 40_000)]);
    if random.below(5_000) == 0 { 1 << 20 } else { random.below(largest) }
}

fn filler(seed: u64, size: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut body = Vec::with_capacity(size + 8);
    while body.len() < size {
        body.extend_from_slice(&random.next().to_le_bytes());
    }
    body.truncate(size);
    body
}

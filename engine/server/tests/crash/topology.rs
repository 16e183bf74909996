//! A client that declares, binds and deletes durable things, and after every restart asks for all
//! of them: what was confirmed must be as it was confirmed.

use std::time::Instant;

use leveret_amqp::PropertiesBuilder;
use leveret_amqp::TableRef;
use leveret_amqp::method::{ExchangeDelete, QueueDelete, QueuePurge, QueueUnbind};

use crate::history::Id;
use crate::load::{Phase, Shared};
use crate::random::Random;
use crate::traffic::exists;
use crate::wire::{Cut, PATIENCE, Received, Wire};

/// Queues, as many exchanges, and a binding from each exchange to its queue.
const SLOTS: usize = 8;

const KINDS: [&str; 3] = ["direct", "fanout", "topic"];

const KEY: &str = "key";

/// What is known of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Present,
    Absent,
    /// The broker ended before it answered.
    Either,
}

impl Known {
    fn of(present: bool) -> Self {
        if present { Self::Present } else { Self::Absent }
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    queue: Known,
    exchange: Known,
    binding: Known,
}

/// Changes the topology until the run is quiet, and checks it after each restart.
pub(crate) fn change_and_check(shared: &Shared) {
    let mut random = Random::new(shared.seed ^ 0x70F0);
    let mut slots =
        [Slot { queue: Known::Absent, exchange: Known::Absent, binding: Known::Absent }; SLOTS];
    while let Some((incarnation, mut wire)) = shared.connect(Phase::Quiet) {
        let result = check(shared, incarnation, &mut wire, &mut slots)
            .and_then(|()| change(shared, &mut wire, &mut random, &mut slots));
        if let Err(cut) = result {
            shared.note_cut("the topology client", cut);
        }
    }
}

fn queue(slot: usize) -> String {
    format!("topology.q{slot}")
}

fn exchange(slot: usize) -> String {
    format!("topology.x{slot}")
}

fn check(
    shared: &Shared,
    incarnation: u32,
    wire: &mut Wire,
    slots: &mut [Slot],
) -> Result<(), Cut> {
    for (number, slot) in slots.iter_mut().enumerate() {
        let (queue, exchange) = (queue(number), exchange(number));
        let has_queue = exists(wire, |wire| wire.declare_queue(&queue, true).map(drop))?;
        let kind = KINDS[number % KINDS.len()];
        let has_exchange = exists(wire, |wire| wire.declare_exchange(&exchange, kind, true))?;
        let has_binding = has_queue && has_exchange && is_bound(shared, wire, &queue, &exchange)?;
        for (what, known, present) in [
            (&queue, &mut slot.queue, has_queue),
            (&exchange, &mut slot.exchange, has_exchange),
            (&format!("{exchange} -> {queue}"), &mut slot.binding, has_binding),
        ] {
            if *known != Known::Either && *known != Known::of(present) {
                let text = format!("{what} was {known:?}, but not for incarnation {incarnation}");
                shared.complain(text);
            }
            *known = Known::of(present);
        }
    }
    Ok(())
}

/// Bindings cannot be asked for: a message tells, and is taken away again.
fn is_bound(shared: &Shared, wire: &mut Wire, queue: &str, exchange: &str) -> Result<bool, Cut> {
    // On a connection of its own: a message would be counted by the confirms of another channel.
    let mut probe = Wire::open(shared.address, 0)?;
    probe.select_confirms()?;
    let id = Id::new(u32::MAX, 0).to_text();
    let message_id = Some(id.as_bytes());
    let properties = PropertiesBuilder { message_id, ..PropertiesBuilder::default() }.finish();
    probe.publish_mandatory(true, exchange, KEY, &properties, b"probe");
    let deadline = Instant::now() + PATIENCE;
    let mut returned = false;
    loop {
        match probe.poll_until(deadline)? {
            Some(Received::Returned(_)) => returned = true,
            Some(Received::Confirm { .. }) => break,
            Some(_) => {}
            None => panic!("the broker lives but has not confirmed for {PATIENCE:?}"),
        }
    }
    if !returned {
        wire.call(&QueuePurge { queue, nowait: false })?;
    }
    Ok(!returned)
}

fn change(
    shared: &Shared,
    wire: &mut Wire,
    random: &mut Random,
    slots: &mut [Slot],
) -> Result<(), Cut> {
    while !shared.is_at_least(Phase::Quiet) {
        let number = random.below(SLOTS);
        let (queue, exchange) = (queue(number), exchange(number));
        let kind = KINDS[number % KINDS.len()];
        // What is written here is what is known if the answer does not come.
        let slot = &mut slots[number];
        let whole = slot.queue == Known::Present && slot.exchange == Known::Present;
        match random.below(6) {
            0 | 1 => {
                slot.queue = either_unless(slot.queue, Known::Present);
                wire.declare_queue(&queue, false)?;
                slot.queue = Known::Present;
                slot.exchange = either_unless(slot.exchange, Known::Present);
                wire.declare_exchange(&exchange, kind, false)?;
                slot.exchange = Known::Present;
            }
            2 | 3 if whole => {
                slot.binding = either_unless(slot.binding, Known::Present);
                wire.bind(&queue, &exchange, KEY)?;
                slot.binding = Known::Present;
            }
            4 if whole => {
                slot.binding = either_unless(slot.binding, Known::Absent);
                let (routing_key, arguments) = (KEY.as_bytes(), TableRef::EMPTY);
                let (queue, exchange) = (queue.as_str(), exchange.as_str());
                wire.call(&QueueUnbind { queue, exchange, routing_key, arguments })?;
                slot.binding = Known::Absent;
            }
            5 if random.chance(50) => {
                slot.binding = either_unless(slot.binding, Known::Absent);
                slot.queue = either_unless(slot.queue, Known::Absent);
                let (queue, nowait) = (queue.as_str(), false);
                wire.call(&QueueDelete { queue, if_unused: false, if_empty: false, nowait })?;
                (slot.queue, slot.binding) = (Known::Absent, Known::Absent);
            }
            5 => {
                slot.binding = either_unless(slot.binding, Known::Absent);
                slot.exchange = either_unless(slot.exchange, Known::Absent);
                let exchange = exchange.as_str();
                wire.call(&ExchangeDelete { exchange, if_unused: false, nowait: false })?;
                (slot.exchange, slot.binding) = (Known::Absent, Known::Absent);
            }
            _ => {}
        }
    }
    Ok(())
}

/// A change that is asked for and not answered leaves both possible, unless nothing changes.
fn either_unless(known: Known, same: Known) -> Known {
    if known == same { same } else { Known::Either }
}

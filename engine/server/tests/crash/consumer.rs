//! A consumer of some queues, the only one each of them has.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use crate::history::{Ack, Delivered};
use crate::load::{CONSUMERS, Phase, Shared};
use crate::random::Random;
use crate::traffic::{self, QUEUES, queue_name, queue_number};
use crate::wire::{Cut, Message, Received, Wire, queue_declare};

const PREFETCH: u16 = 200;

/// How many of the newest deliveries are kept without an ack while others publish.
const KEPT_MAX: usize = 60;

/// Between two questions that tell which acks the broker surely knows.
const FENCE_INTERVAL: Duration = Duration::from_millis(10);

const NAP: Duration = Duration::from_micros(300);

/// A thread's state over all its connections.
pub(crate) struct Consumer<'a> {
    shared: &'a Shared,
    number: u8,
    queues: Vec<String>,
    random: Random,
    delivered: Vec<Delivered>,
}

/// What is due on one connection.
struct Session {
    incarnation: u32,
    /// Delivery tag to place in `delivered`.
    unacked: BTreeMap<u64, usize>,
    /// Acknowledged since the last fence was sent.
    acked: Vec<usize>,
    fence: Option<Fence>,
    fence_sent: Instant,
    /// Deliveries after which the next acks are sent.
    acks_due_in: usize,
}

/// A question to each queue, behind some acks.
struct Fence {
    answers_due: usize,
    ready: u32,
    /// Known to the broker when the last answer is there.
    acked: Vec<usize>,
    /// Nothing was delivered since it was sent.
    undisturbed: bool,
}

impl<'a> Consumer<'a> {
    /// Consumes until the run ends.
    pub(crate) fn run(shared: &'a Shared, number: u8) -> Vec<Delivered> {
        let own = (0..QUEUES).filter(|queue| queue % CONSUMERS == number);
        let mut consumer = Self {
            shared,
            number,
            queues: own.map(queue_name).collect(),
            random: Random::new(shared.seed ^ u64::from(number + 1) << 48),
            delivered: Vec::new(),
        };
        while let Some((incarnation, mut wire)) = shared.connect(Phase::End) {
            if let Err(cut) = consumer.consume(&mut wire, incarnation) {
                shared.note_cut("a consumer", cut);
            }
        }
        consumer.delivered
    }

    fn consume(&mut self, wire: &mut Wire, incarnation: u32) -> Result<(), Cut> {
        if let Some(complaint) = traffic::demand(wire)? {
            self.shared.complain(complaint);
        }
        wire.prefetch(PREFETCH)?;
        let mut session = Session {
            incarnation,
            unacked: BTreeMap::new(),
            acked: Vec::new(),
            fence: None,
            fence_sent: Instant::now(),
            acks_due_in: 1,
        };
        for queue in &self.queues {
            wire.consume(queue)?;
        }
        while !self.shared.is_at_least(Phase::End) {
            let mut idle = true;
            while let Some(received) = wire.poll()? {
                idle = false;
                match received {
                    Received::Message(message) => self.note(&message, &mut session),
                    Received::Queue(_, ready) => self.pass_fence(ready, &mut session),
                    _ => {}
                }
            }
            if idle || session.acks_due_in == 0 {
                self.acknowledge(wire, &mut session);
            }
            if session.fence.is_none() && session.fence_sent.elapsed() > FENCE_INTERVAL {
                self.send_fence(wire, &mut session);
            }
            if idle {
                thread::sleep(NAP);
            }
        }
        Ok(())
    }

    fn note(&mut self, message: &Message, session: &mut Session) {
        session.unacked.insert(message.tag, self.delivered.len());
        session.acks_due_in = session.acks_due_in.saturating_sub(1);
        if let Some(fence) = &mut session.fence {
            fence.undisturbed = false;
        }
        self.delivered.push(Delivered {
            queue: queue_number(&message.consumer),
            id: message.id,
            fingerprint: message.fingerprint,
            redelivered: message.redelivered,
            incarnation: session.incarnation,
            ack: Ack::None,
        });
    }

    /// Acknowledges in part: some at a time, some by one, the newest not yet.
    fn acknowledge(&mut self, wire: &mut Wire, session: &mut Session) {
        let draining = self.shared.is_at_least(Phase::Drain);
        session.acks_due_in = 1 + self.random.below(100);
        let kept = if draining { 0 } else { self.random.below(KEPT_MAX) };
        let through = session.unacked.keys().rev().nth(kept).copied();
        let Some(through) = through else { return };
        if draining || self.random.chance(70) {
            wire.ack(through, true);
            let later = session.unacked.split_off(&(through + 1));
            session.acked.extend(std::mem::replace(&mut session.unacked, later).into_values());
        } else {
            let tags: Vec<u64> = session.unacked.range(..=through).map(|(tag, _)| *tag).collect();
            for tag in tags.into_iter().filter(|_| self.random.chance(80)) {
                wire.ack(tag, false);
                session.acked.extend(session.unacked.remove(&tag));
            }
        }
        for at in &session.acked {
            self.delivered[*at].ack = Ack::Sent;
        }
    }

    /// Queues answer in the order in which they were told things, so what was acknowledged before
    /// the question is known to them when they answer.
    fn send_fence(&mut self, wire: &mut Wire, session: &mut Session) {
        for queue in &self.queues {
            wire.send(&queue_declare(queue, true));
        }
        session.fence_sent = Instant::now();
        session.fence = Some(Fence {
            answers_due: self.queues.len(),
            ready: 0,
            acked: std::mem::take(&mut session.acked),
            undisturbed: true,
        });
    }

    fn pass_fence(&mut self, ready: u32, session: &mut Session) {
        let Some(mut fence) = session.fence.take() else { return };
        fence.answers_due -= 1;
        fence.ready += ready;
        if fence.answers_due > 0 {
            session.fence = Some(fence);
            return;
        }
        let now_ns = self.shared.now_ns();
        for at in fence.acked {
            self.delivered[at].ack = Ack::Known(now_ns);
        }
        let number = usize::from(self.number);
        self.shared.ready[number].store(fence.ready, SeqCst);
        let unacked = !session.unacked.is_empty() || !session.acked.is_empty();
        if fence.ready == 0 && fence.undisturbed && !unacked {
            self.shared.drained[number].store(session.incarnation + 1, SeqCst);
        }
    }
}

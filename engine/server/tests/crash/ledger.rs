//! The history of one queue, written by a test that publishes and gets by itself.

use std::time::Instant;

use crate::checker::{Report, check};
use crate::history::{Ack, Delivered, End, History, Id, Outcome};
use crate::traffic;
use crate::unconfirmed::Unconfirmed;
use crate::wire::{Cut, Message, PATIENCE, Received, Wire};

/// What was sent and got so far.
pub(crate) struct Ledger {
    queue: &'static str,
    history: History,
    unconfirmed: Unconfirmed<usize>,
    channel: u32,
    serial: u32,
    pub(crate) blocked: bool,
    /// Heartbeats since the last confirm.
    pub(crate) heartbeats: usize,
}

impl Ledger {
    pub(crate) fn new(queue: &'static str) -> Self {
        Self {
            queue,
            history: History::default(),
            unconfirmed: Unconfirmed::new(),
            channel: 0,
            serial: 0,
            blocked: false,
            heartbeats: 0,
        }
    }

    /// Declares the queue and begins to publish on this connection. What an earlier one did not
    /// confirm stays unknown.
    pub(crate) fn begin(&mut self, wire: &mut Wire) -> Result<(), Cut> {
        wire.declare_queue(self.queue, false)?;
        wire.select_confirms()?;
        self.channel += 1;
        (self.serial, self.blocked) = (0, false);
        self.unconfirmed = Unconfirmed::new();
        Ok(())
    }

    /// Buffers a persistent message.
    pub(crate) fn publish(&mut self, wire: &mut Wire, body_size: usize) {
        let id = Id::new(self.channel, self.serial);
        self.serial += 1;
        self.unconfirmed.push(self.history.published.len());
        self.history.published.push(traffic::publish_to(wire, self.queue, id, body_size));
    }

    pub(crate) fn unconfirmed(&self) -> usize {
        self.unconfirmed.len()
    }

    pub(crate) fn published(&self) -> usize {
        self.history.published.len()
    }

    pub(crate) fn confirmed(&self) -> usize {
        let confirmed = |outcome| outcome == Outcome::Confirmed;
        self.history.published.iter().filter(|message| confirmed(message.outcome)).count()
    }

    /// Whether a publish was refused.
    pub(crate) fn is_refused(&self) -> bool {
        self.history.published.iter().any(|message| message.outcome == Outcome::Refused)
    }

    /// Takes in what is there.
    pub(crate) fn poll(&mut self, wire: &mut Wire) -> Result<(), Cut> {
        while let Some(received) = wire.poll()? {
            self.take(received);
        }
        Ok(())
    }

    /// Waits until at most `most` messages are unconfirmed.
    pub(crate) fn settle(&mut self, wire: &mut Wire, most: usize) -> Result<(), Cut> {
        let deadline = Instant::now() + PATIENCE;
        while self.unconfirmed.len() > most {
            match wire.poll_until(deadline)? {
                Some(received) => self.take(received),
                None => panic!("the broker lives but has not confirmed for {PATIENCE:?}"),
            }
        }
        Ok(())
    }

    fn take(&mut self, received: Received) {
        match received {
            Received::Confirm { tag, multiple, refused } => {
                self.heartbeats = 0;
                let outcome = if refused { Outcome::Refused } else { Outcome::Confirmed };
                match self.unconfirmed.settle(tag, multiple) {
                    Ok(all) => {
                        for at in all {
                            self.history.published[at].outcome = outcome;
                        }
                    }
                    Err(complaint) => self.history.complaints.push(complaint),
                }
            }
            Received::Blocked => self.blocked = true,
            Received::Unblocked => self.blocked = false,
            Received::Heartbeat => self.heartbeats += 1,
            _ => {}
        }
    }

    /// Gets and acknowledges a message; false where the queue has none.
    pub(crate) fn get(&mut self, wire: &mut Wire) -> Result<bool, Cut> {
        let Some(message) = wire.get(self.queue)? else { return Ok(false) };
        wire.ack(message.tag, false);
        self.note(&message, Ack::Sent);
        Ok(true)
    }

    /// Writes down a delivery.
    pub(crate) fn note(&mut self, message: &Message, ack: Ack) {
        self.history.delivered.push(Delivered {
            queue: 0,
            id: message.id,
            fingerprint: message.fingerprint,
            redelivered: message.redelivered,
            incarnation: self.history.ends.len() as u32,
            ack,
        });
    }

    /// What follows is of the next broker. Which acks the last one knew is not asked here.
    pub(crate) fn next_incarnation(&mut self) {
        self.history.ends.push(End::Crashed(0));
    }

    /// Empties the queue and judges.
    pub(crate) fn drain(&mut self, wire: &mut Wire) -> Report {
        wire.declare_queue(self.queue, true).expect("the queue is there");
        while self.get(wire).expect("a healthy broker") {}
        // The answer comes when all acks were read.
        assert_eq!(wire.declare_queue(self.queue, true), Ok(0));
        check(&self.history)
    }
}

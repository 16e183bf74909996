//! What a log must contain at each moment, given what clients know by then.

use std::collections::BTreeMap;

use leveret_broker::storage::log::QueueRef;

use super::reader::Reading;

/// Something that clients know, or that limits what a crash may do.
#[derive(Clone, Debug)]
pub enum Note {
    /// The log got a message for these queues; with the fingerprint of the message.
    Published(Vec<QueueRef>, u32),
    /// The publisher has got its confirm.
    Confirmed(Vec<QueueRef>),
    /// A consumer has acknowledged it.
    Settled(QueueRef),
    /// A settlement is on the disk.
    SettledForGood(QueueRef),
    /// The log was closed, and all of it is durable.
    Closed,
    /// A process has started and recovered this.
    Boot(Reading),
}

/// What a log must contain and may contain.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    messages: BTreeMap<QueueRef, Message>,
    /// Messages that must be there: confirmed and not settled.
    owed: usize,
    closed: bool,
    /// Number and epoch of the last segment when the current process started.
    boot: (u32, u32),
}

#[derive(Clone, Copy, Debug)]
struct Message {
    fingerprint: u32,
    confirmed: bool,
    settled: bool,
}

impl Expected {
    /// Updates the expectation.
    pub fn note(&mut self, note: &Note) {
        match note {
            Note::Published(queues, fingerprint) => {
                self.closed = false;
                let message =
                    Message { fingerprint: *fingerprint, confirmed: false, settled: false };
                self.messages.extend(queues.iter().map(|queue| (*queue, message)));
            }
            Note::Confirmed(queues) => {
                for queue in queues {
                    self.change(*queue, |message| message.confirmed = true);
                }
            }
            Note::Settled(queue) => self.change(*queue, |message| message.settled = true),
            Note::SettledForGood(queue) => {
                self.change(*queue, |message| message.settled = true);
                self.messages.remove(queue);
            }
            Note::Closed => self.closed = true,
            Note::Boot(reading) => {
                let begun = reading.begun.keys().next_back().copied();
                let unused = reading.unused.iter().map(|(number, _)| *number).max();
                self.boot = (begun.max(unused).unwrap_or(0), reading.epoch);
                self.closed = false;
                // After a restart it is known for each message whether it is there or gone for
                // good.
                self.messages = BTreeMap::new();
                for (queue, (_, fingerprint)) in &reading.held {
                    let fingerprint = *fingerprint;
                    let message = Message { fingerprint, confirmed: true, settled: false };
                    self.messages.insert(*queue, message);
                }
                self.owed = self.messages.len();
            }
        }
    }

    /// Checks what was read after a power cut.
    ///
    /// # Errors
    /// A message that is lost, is back although it was settled, was never published, or was
    /// changed; or damage that is none.
    pub fn check(&self, reading: &Reading) -> Result<(), String> {
        if let Some(place) = reading.damage.first() {
            return Err(format!("damage at {place:?} although only power was lost"));
        }
        if self.closed && !reading.clean {
            return Err("a clean stop is not seen".into());
        }
        let (last, epoch) = self.boot;
        let mut since = reading.begun.range(last + 1..);
        if let Some((number, segment)) = since.find(|(_, segment)| segment.epoch <= epoch) {
            return Err(format!("segment {number} has epoch {} of an earlier boot", segment.epoch));
        }
        let mut there = 0;
        for (queue, (place, fingerprint)) in &reading.held {
            let Some(message) = self.messages.get(queue) else {
                return Err(format!("phantom: {queue:?} at {place:?}, never there or settled"));
            };
            if message.fingerprint != *fingerprint {
                return Err(format!("{queue:?} at {place:?} is another message"));
            }
            there += usize::from(message.is_owed());
        }
        if there == self.owed {
            return Ok(());
        }
        let lost = self.messages.iter().filter(|(_, message)| message.is_owed());
        let mut lost = lost.filter(|(queue, _)| !reading.held.contains_key(queue));
        Err(format!("lost: {} messages, {:?} first", self.owed - there, lost.next()))
    }

    fn change(&mut self, queue: QueueRef, change: impl FnOnce(&mut Message)) {
        if let Some(message) = self.messages.get_mut(&queue) {
            self.owed -= usize::from(message.is_owed());
            change(message);
            self.owed += usize::from(message.is_owed());
        }
    }
}

impl Message {
    fn is_owed(&self) -> bool {
        self.confirmed && !self.settled
    }
}

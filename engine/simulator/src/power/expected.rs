//! What a log has to hold at each moment, from what was said to clients until then.

use std::collections::BTreeMap;

use leveret_broker::storage::log::QueueRef;

use super::reader::Reading;

/// Something that clients know, or that bounds what a crash may do.
#[derive(Clone, Debug)]
pub enum Note {
    /// A message was given to the log for these queues; its fingerprint.
    Published(Vec<QueueRef>, u32),
    /// Its publisher has heard of it.
    Confirmed(Vec<QueueRef>),
    /// A consumer has acknowledged it.
    Settled(QueueRef),
    /// That is on the disk.
    SettledForGood(QueueRef),
    /// The log was closed in order and all of it is durable.
    Closed,
    /// A process begins and believes this.
    Boot(Reading),
}

/// What a log has to hold and may hold.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    messages: BTreeMap<QueueRef, Message>,
    /// Those that must be there: confirmed and not settled.
    owed: usize,
    closed: bool,
    /// Number and epoch of the last segment when the running process began.
    boot: (u32, u32),
}

#[derive(Clone, Copy, Debug)]
struct Message {
    fingerprint: u32,
    confirmed: bool,
    settled: bool,
}

impl Expected {
    /// Takes a note in.
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
                // What was unknown is known now: it is there for good, or gone for good.
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

    /// Judges what was read after a loss of power.
    ///
    /// # Errors
    /// What is lost, back from the dead, never published, not as published, or called damage.
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

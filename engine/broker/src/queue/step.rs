//! The steps of a queue: nothing else changes it.
//!
//! A step carries all that it depends on: messages by position, holders by number, time as the wall
//! time of the shard that decided on it. It holds no id of a store, no instant of a process and
//! nothing about what is in memory. So the same steps in the same order give the same queue on
//! every shard, and none can fail. Recovery makes a queue by steps, too: it enqueues what the log
//! holds.
//!
//! ```text
//!             0    1                  9                 17        21        25
//!   enqueue   │ 1  │ position         │ count           │ at               │ redelivered │
//!   pass      │ 2  │ count            │
//!   hand over │ 3  │ holder  │ count            │
//!   check out │ 4  │ from             │ count           │ 0 or 1  holder
//!   settle    │ 5  │ holder  │ first            │ count            │
//!   requeue   │ 6  │ holder  │ first            │ count            │ at               │
//!   drop      │ 7  │ from             │ count           │
//!   clear     │ 8  │
//! ```
//! Numbers are little endian: 8 octets each, a holder 4, a flag 1. The holder of a check-out
//! follows its flag if that is 1.

use crate::id::WallTime;
use crate::queue::terms::{Deliveries, Holder};

/// One change of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `count` messages arrive and wait, the first one at `position`. Skipped positions belong to
    /// messages that arrived and left before a restart.
    Enqueue {
        /// Not below the queue's next position.
        position: u64,
        /// How many.
        count: u64,
        /// When they became ready.
        at: WallTime,
        /// They may have been given out before, by a process that ended.
        redelivered: bool,
    },
    /// `count` messages arrive and leave at once: the consumer does not acknowledge.
    PassThrough {
        /// How many.
        count: u64,
    },
    /// `count` messages arrive and go at once to a holder that has to settle them.
    HandOver {
        /// Who has them then.
        holder: Holder,
        /// How many.
        count: u64,
    },
    /// The next messages leave, to a holder that has to settle them, or for good.
    CheckOut {
        /// The position of the first one.
        from: u64,
        /// How many; no more than wait.
        count: u64,
        /// Who has them then; `None` if the consumer does not acknowledge.
        holder: Option<Holder>,
    },
    /// Deliveries of a holder end, acknowledged or rejected; numbers it does not hold are skipped.
    Settle(Deliveries),
    /// Messages of a holder's deliveries return to their places; numbers it does not hold are
    /// skipped.
    Requeue {
        /// Which.
        deliveries: Deliveries,
        /// When they became ready again.
        at: WallTime,
    },
    /// The next messages leave without being given out.
    Drop {
        /// The position of the first one.
        from: u64,
        /// How many; no more than wait.
        count: u64,
    },
    /// Everything leaves: the end of the queue.
    Clear,
}

const ENQUEUE: u8 = 1;
const PASS_THROUGH: u8 = 2;
const HAND_OVER: u8 = 3;
const CHECK_OUT: u8 = 4;
const SETTLE: u8 = 5;
const REQUEUE: u8 = 6;
const DROP: u8 = 7;
const CLEAR: u8 = 8;

impl Step {
    /// Appends the octets of the step.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let number = |out: &mut Vec<u8>, number: u64| out.extend_from_slice(&number.to_le_bytes());
        let holder = |out: &mut Vec<u8>, Holder(slot): Holder| {
            out.extend_from_slice(&slot.to_le_bytes());
        };
        let deliveries = |out: &mut Vec<u8>, deliveries: &Deliveries| {
            holder(out, deliveries.holder);
            number(out, deliveries.first);
            number(out, deliveries.count);
        };
        match self {
            Self::Enqueue { position, count, at, redelivered } => {
                out.push(ENQUEUE);
                number(out, *position);
                number(out, *count);
                number(out, at.0);
                out.push(u8::from(*redelivered));
            }
            Self::PassThrough { count } => {
                out.push(PASS_THROUGH);
                number(out, *count);
            }
            Self::HandOver { holder: to, count } => {
                out.push(HAND_OVER);
                holder(out, *to);
                number(out, *count);
            }
            Self::CheckOut { from, count, holder: to } => {
                out.push(CHECK_OUT);
                number(out, *from);
                number(out, *count);
                out.push(u8::from(to.is_some()));
                if let Some(to) = to {
                    holder(out, *to);
                }
            }
            Self::Settle(settled) => {
                out.push(SETTLE);
                deliveries(out, settled);
            }
            Self::Requeue { deliveries: returned, at } => {
                out.push(REQUEUE);
                deliveries(out, returned);
                number(out, at.0);
            }
            Self::Drop { from, count } => {
                out.push(DROP);
                number(out, *from);
                number(out, *count);
            }
            Self::Clear => out.push(CLEAR),
        }
    }

    /// Reads a step and returns the octets behind it; `None` if the octets are not a step.
    pub fn decode(octets: &[u8]) -> Option<(Self, &[u8])> {
        let mut reader = Reader(octets);
        let step = match reader.octet()? {
            ENQUEUE => Self::Enqueue {
                position: reader.number()?,
                count: reader.number()?,
                at: WallTime(reader.number()?),
                redelivered: reader.flag()?,
            },
            PASS_THROUGH => Self::PassThrough { count: reader.number()? },
            HAND_OVER => Self::HandOver { holder: reader.holder()?, count: reader.number()? },
            CHECK_OUT => Self::CheckOut {
                from: reader.number()?,
                count: reader.number()?,
                holder: if reader.flag()? { Some(reader.holder()?) } else { None },
            },
            SETTLE => Self::Settle(reader.deliveries()?),
            REQUEUE => {
                let deliveries = reader.deliveries()?;
                Self::Requeue { deliveries, at: WallTime(reader.number()?) }
            }
            DROP => Self::Drop { from: reader.number()?, count: reader.number()? },
            CLEAR => Self::Clear,
            _ => return None,
        };
        Some((step, reader.0))
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const SIZE: usize>(&mut self) -> Option<[u8; SIZE]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn octet(&mut self) -> Option<u8> {
        self.take().map(|[octet]| octet)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn holder(&mut self) -> Option<Holder> {
        self.take().map(u32::from_le_bytes).map(Holder)
    }

    fn flag(&mut self) -> Option<bool> {
        match self.octet()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn deliveries(&mut self) -> Option<Deliveries> {
        let (holder, first, count) = (self.holder()?, self.number()?, self.number()?);
        // A range that overflows cannot be one of deliveries.
        first.checked_add(count)?;
        Some(Deliveries { holder, first, count })
    }
}

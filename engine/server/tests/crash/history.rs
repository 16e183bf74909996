//! What clients and the killer saw, for the checker to judge. Times are nanoseconds since the
//! history began.

/// A message: number of the publisher's channel, place on that channel. Sent once, ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id(u64);

impl Id {
    pub(crate) const fn new(channel: u32, serial: u32) -> Self {
        Self((channel as u64) << 32 | serial as u64)
    }

    pub(crate) const fn channel(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(crate) const fn serial(self) -> u32 {
        self.0 as u32
    }

    /// As it travels in the property `message-id`.
    pub(crate) fn to_text(self) -> String {
        format!("{:016x}", self.0)
    }

    /// Nothing that was sent has the id of a text that is none.
    pub(crate) fn from_text(text: &[u8]) -> Self {
        let number = std::str::from_utf8(text).ok().and_then(|t| u64::from_str_radix(t, 16).ok());
        Self(number.unwrap_or(u64::MAX))
    }
}

/// What the publisher was told about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Confirmed,
    Refused,
    /// The connection ended first: the message may be there or not.
    Unknown,
}

/// A message that a publisher sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Published {
    pub(crate) id: Id,
    /// Transient messages need not outlive the process.
    pub(crate) persistent: bool,
    /// The queues it belongs into: bit n is queue n.
    pub(crate) targets: u16,
    /// CRC32C over exchange, routing key, properties and body.
    pub(crate) fingerprint: u32,
    pub(crate) outcome: Outcome,
}

/// A message that a consumer got. Those of one queue stand in the order of their arrival.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivered {
    pub(crate) queue: u8,
    pub(crate) id: Id,
    pub(crate) fingerprint: u32,
    pub(crate) redelivered: bool,
    /// Which start of the broker gave it out.
    pub(crate) incarnation: u32,
    pub(crate) ack: Ack,
}

/// How far the acknowledgement of a delivery came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ack {
    None,
    /// Sent; the broker may have died before it read that.
    Sent,
    /// The queue answered a question that was asked behind it: from this time on the broker knew.
    Known(u64),
}

/// How a broker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Without a chance to do anything; the time is the last one at which it surely lived.
    Crashed(u64),
    /// In order: nothing that the broker knew may be forgotten.
    Stopped,
}

/// A time during which the disk did not end a flush of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stall {
    pub(crate) from_ns: u64,
    pub(crate) to_ns: u64,
}

/// Everything, once all queues were drained.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) published: Vec<Published>,
    pub(crate) delivered: Vec<Delivered>,
    /// The end of each incarnation, by its number; the last one may lack.
    pub(crate) ends: Vec<End>,
    /// When nothing could become durable, in the order of time.
    pub(crate) stalls: Vec<Stall>,
    /// What clients found wrong by themselves: topology that is gone, broken protocol.
    pub(crate) complaints: Vec<String>,
}

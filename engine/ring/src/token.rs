//! The operation that a completion belongs to, packed in the 64 bits that the kernel hands back.
//!
//! ```text
//!  63        56 55                    32 31                              0
//! ┌────────────┬────────────────────────┬─────────────────────────────────┐
//! │ kind (8)   │ slot (24)              │ generation (32)                 │
//! └────────────┴────────────────────────┴─────────────────────────────────┘
//! ```
//!
//! Never a pointer: a late completion of a closed socket must find a changed generation, not freed
//! memory.

/// Largest slot number that fits.
pub(crate) const SLOT_MAX: u32 = (1 << 24) - 1;

/// What the completed operation was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Multishot accept; slot = listener.
    Accept = 1,
    /// Pause before the next accept; slot = listener.
    AcceptBackoff = 2,
    /// Receive, multishot or single; slot = socket.
    Receive = 3,
    /// Send or sendmsg; slot = socket.
    Send = 4,
    /// Cancel of an operation of a socket; slot = socket.
    Cancel = 5,
    /// Half close; slot = socket.
    Shutdown = 6,
    /// Close of the fixed file; slot = socket.
    Close = 7,
    /// Message from another ring.
    Wake = 8,
    /// A message of ours that could not be delivered; slot = index of the target.
    WakeFailed = 9,
    /// Read of our eventfd.
    Doorbell = 10,
    /// Cancel whose result is ignored (listeners, shutdown of the ring).
    CancelOther = 11,
    /// Read, write or flush of a file; slot = operation.
    File = 12,
}

/// An unpacked `user_data`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl Token {
    pub(crate) fn new(kind: Kind, slot: u32, generation: u32) -> Self {
        debug_assert!(slot <= SLOT_MAX);
        Self { kind, slot, generation }
    }

    pub(crate) fn pack(self) -> u64 {
        (self.kind as u64) << 56
            | u64::from(self.slot & SLOT_MAX) << 32
            | u64::from(self.generation)
    }

    /// `None` for a kind we never submit.
    pub(crate) fn unpack(user_data: u64) -> Option<Self> {
        let kind = match user_data >> 56 {
            1 => Kind::Accept,
            2 => Kind::AcceptBackoff,
            3 => Kind::Receive,
            4 => Kind::Send,
            5 => Kind::Cancel,
            6 => Kind::Shutdown,
            7 => Kind::Close,
            8 => Kind::Wake,
            9 => Kind::WakeFailed,
            10 => Kind::Doorbell,
            11 => Kind::CancelOther,
            12 => Kind::File,
            _ => return None,
        };
        Some(Self { kind, slot: (user_data >> 32) as u32 & SLOT_MAX, generation: user_data as u32 })
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn packs_and_unpacks_every_kind() {
        for code in 1..=12_u64 {
            for (slot, generation) in [(0, 0), (1, u32::MAX), (SLOT_MAX, 7)] {
                let user_data = code << 56 | u64::from(slot) << 32 | u64::from(generation);
                let token = Token::unpack(user_data).unwrap();
                assert_eq!((token.slot, token.generation), (slot, generation));
                assert_eq!(token.kind as u64, code);
                assert_eq!(token.pack(), user_data);
            }
        }
        assert_eq!(Token::unpack(0), None);
        assert_eq!(Token::unpack(13 << 56), None);
        assert_eq!(Token::unpack(u64::MAX), None);
    }
}

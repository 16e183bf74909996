//! Where the memory copy of a message is, and how many queues hold the message.
//!
//! ```text
//!   63     62        40 39     18 17     0
//!  ┌──────┬────────────┬─────────┬────────┐
//!  │loaded│ references │ segment │ offset │
//!  └──────┴────────────┴─────────┴────────┘
//! ```

use super::SEGMENT_BYTES;

const OFFSET_BITS: u32 = SEGMENT_BYTES.trailing_zeros();
const SEGMENT_BITS: u32 = 22;
const REFERENCE: u64 = 1 << (OFFSET_BITS + SEGMENT_BITS);
const PLACE_MASK: u64 = REFERENCE - 1;
const LOADED: u64 = 1 << 63;

/// The segment number in a slot that no message uses.
pub(super) const VACANT: u32 = (1 << SEGMENT_BITS) - 1;

/// The segment of a message that has no memory copy.
pub(super) const ABSENT: u32 = VACANT - 1;

/// The store's entry for one [`MessageId`](super::MessageId): 8 bytes. There is room for 1 TiB of
/// segments, and for twice as many references as there can be queues.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot(u64);

impl Slot {
    /// A slot that no message uses.
    pub(super) const VACANT: Self = Self((VACANT as u64) << OFFSET_BITS);

    #[inline]
    pub(super) fn new(segment: u32, offset: u32, references: u32) -> Self {
        let mut slot = Self(u64::from(references) * REFERENCE);
        slot.place(segment, offset);
        slot
    }

    #[inline]
    pub(super) fn segment(self) -> u32 {
        (self.0 >> OFFSET_BITS) as u32 & VACANT
    }

    #[inline]
    pub(super) fn offset(self) -> u32 {
        self.0 as u32 & (SEGMENT_BYTES as u32 - 1)
    }

    /// Sets where the memory copy is.
    #[inline]
    pub(super) fn place(&mut self, segment: u32, offset: u32) {
        debug_assert!(segment <= VACANT && (offset as usize) < SEGMENT_BYTES);
        let place = u64::from(segment) << OFFSET_BITS | u64::from(offset);
        self.0 = self.0 & !PLACE_MASK | place;
    }

    #[inline]
    pub(super) fn references(self) -> u32 {
        ((self.0 & !LOADED) / REFERENCE) as u32
    }

    #[inline]
    pub(super) fn retain(&mut self) {
        self.0 += REFERENCE;
    }

    /// Gives a reference back; returns how many are left.
    #[inline]
    pub(super) fn release(&mut self) -> u32 {
        debug_assert!(self.references() > 0, "released a message that nobody held");
        self.0 -= REFERENCE;
        self.references()
    }

    /// The copy was read from the log, so its record is durable.
    #[inline]
    pub(super) fn is_loaded(self) -> bool {
        self.0 & LOADED != 0
    }

    pub(super) fn set_loaded(&mut self, loaded: bool) {
        self.0 = if loaded { self.0 | LOADED } else { self.0 & !LOADED };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_slot_says_stays_apart() {
        let (segment, offset) = (ABSENT - 1, SEGMENT_BYTES as u32 - 1);
        let mut slot = Slot::new(segment, offset, (1 << 23) - 2);
        slot.retain();
        slot.set_loaded(true);
        assert_eq!((slot.segment(), slot.offset()), (segment, offset));
        assert_eq!((slot.references(), slot.is_loaded()), ((1 << 23) - 1, true));
        assert_eq!(slot.release(), (1 << 23) - 2);
        slot.place(ABSENT, 0);
        assert_eq!((slot.segment(), slot.offset(), slot.references()), (ABSENT, 0, (1 << 23) - 2));
        slot.set_loaded(false);
        assert!(!slot.is_loaded() && size_of::<Slot>() == 8);
    }
}

//! The bytes that wait to be written to one socket.

use bytes::Bytes;

use crate::message::Body;

/// Bytes for a socket: copied ones in `scratch`, large bodies by reference between them.
///
/// ```text
///  wire:    scratch[0..a]  body₀  scratch[a..b]  body₁  scratch[b..]
///  bodies:  [(a, body₀), (b, body₁)]            offsets ascend
/// ```
#[derive(Debug, Default)]
pub struct Outbox {
    /// Frame headers, methods, content headers and small bodies.
    pub scratch: Vec<u8>,
    /// Shared bodies, each with the offset in `scratch` before which it is sent.
    pub bodies: Vec<(usize, Bytes)>,
    shared_bytes: usize,
    /// Bytes of `scratch` that are small bodies. The code that copies one in adds its length.
    pub copied_body_bytes: usize,
}

impl Outbox {
    /// Bytes that will go over the wire.
    #[inline]
    pub fn len(&self) -> usize {
        self.scratch.len() + self.shared_bytes
    }

    /// Bytes that will go over the wire by reference.
    pub fn shared_bytes(&self) -> usize {
        self.shared_bytes
    }

    /// Whether no bytes wait.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a body that fits one frame: copied if it is inline, else by reference.
    #[inline(always)]
    pub fn write_body(&mut self, body: &Body<'_>) {
        match body {
            Body::Inline(octets) => {
                self.copied_body_bytes += octets.len();
                self.scratch.extend_from_slice(octets);
            }
            Body::Pieces(pieces) => self.share_body(pieces),
        }
    }

    fn share_body(&mut self, pieces: &[Bytes]) {
        let offset = self.scratch.len();
        for piece in pieces {
            self.insert_shared(offset, piece.clone());
        }
    }

    /// Adds a shared body piece before `scratch[offset]`; offsets must not descend.
    pub fn insert_shared(&mut self, offset: usize, piece: Bytes) {
        debug_assert!(self.bodies.last().is_none_or(|(last, _)| *last <= offset));
        self.shared_bytes += piece.len();
        self.bodies.push((offset, piece));
    }

    /// `scratch` and `bodies`, to be written without copying.
    pub fn into_parts(self) -> (Vec<u8>, Vec<(usize, Bytes)>) {
        (self.scratch, self.bodies)
    }

    /// An outbox with the memory of parts whose content has been sent.
    pub fn from_parts(scratch: Vec<u8>, bodies: Vec<(usize, Bytes)>) -> Self {
        let mut outbox = Self { scratch, bodies, ..Self::default() };
        outbox.clear();
        outbox
    }

    /// Drops the content and keeps the memory.
    pub fn clear(&mut self) {
        self.scratch.clear();
        self.bodies.clear();
        self.shared_bytes = 0;
        self.copied_body_bytes = 0;
    }

    /// Copies the wire form out, for tests and for the simulator's network.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut wire = Vec::with_capacity(self.len());
        let mut from = 0;
        for (offset, piece) in &self.bodies {
            wire.extend_from_slice(&self.scratch[from..*offset]);
            wire.extend_from_slice(piece);
            from = *offset;
        }
        wire.extend_from_slice(&self.scratch[from..]);
        wire
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_pieces_stand_between_the_copied_bytes() {
        let mut outbox = Outbox::default();
        outbox.scratch.extend_from_slice(b"ab");
        outbox.insert_shared(2, Bytes::from_static(b"XY"));
        outbox.insert_shared(2, Bytes::from_static(b"Z"));
        outbox.scratch.extend_from_slice(b"cd");
        assert_eq!(outbox.to_vec(), b"abXYZcd");
        assert_eq!(outbox.len(), 7);
        outbox.clear();
        assert!(outbox.is_empty() && outbox.to_vec().is_empty());
    }
}

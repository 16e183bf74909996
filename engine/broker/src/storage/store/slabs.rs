//! The memory of segments: allocated a huge page at a time, given out a segment at a time.
//!
//! The first touch of a small page costs 1.7 µs, that of the same bytes in a huge page 0.4 µs, and
//! recently used memory nothing. So the piece that came back last is given out first. A slab goes
//! back to the system as a whole, when none of its pieces is in use.

use bytes::BytesMut;

use super::SEGMENT_BYTES;

/// Bytes of a slab: a huge page.
pub(super) const SLAB_BYTES: usize = 2 << 20;

const PIECES: usize = SLAB_BYTES / SEGMENT_BYTES;

/// Memory for segments.
#[derive(Debug, Default)]
pub(super) struct Slabs {
    /// Pieces that no segment uses, coldest first.
    spare: Vec<Piece>,
    /// How many pieces of each slab are spare.
    spare_of: Vec<usize>,
    /// Numbers of slabs without memory.
    unused: Vec<u32>,
}

/// [`SEGMENT_BYTES`] of memory with arbitrary content; empty in a segment without memory.
#[derive(Debug, Default)]
pub(super) struct Piece {
    pub(super) bytes: BytesMut,
    slab: u32,
}

impl Slabs {
    /// Takes a piece to write to.
    pub(super) fn take(&mut self) -> Piece {
        let piece = self.spare.pop().unwrap_or_else(|| self.lay_out());
        self.spare_of[piece.slab as usize] -= 1;
        piece
    }

    /// Takes a piece back; see [`Self::limit_spare`] for `kept`.
    pub(super) fn put_back(&mut self, piece: Piece, kept: usize) {
        let slab = piece.slab as usize;
        self.spare.push(piece);
        self.spare_of[slab] += 1;
        self.limit_spare(kept);
    }

    /// Gives slabs back to the system while more than `kept` pieces are spare, coldest first. A
    /// slab with a piece in use stays, so more pieces than `kept` may remain.
    pub(super) fn limit_spare(&mut self, kept: usize) {
        while self.spare.len() > kept {
            let is_whole = |piece: &&Piece| self.spare_of[piece.slab as usize] == PIECES;
            let Some(slab) = self.spare.iter().find(is_whole).map(|piece| piece.slab) else {
                return;
            };
            self.spare.retain(|piece| piece.slab != slab);
            self.spare_of[slab as usize] = 0;
            self.unused.push(slab);
        }
    }

    /// Pieces that no segment uses.
    pub(super) fn spare(&self) -> usize {
        self.spare.len()
    }

    /// Bytes of all slabs.
    pub(super) fn bytes(&self) -> usize {
        (self.spare_of.len() - self.unused.len()) * SLAB_BYTES
    }

    #[cold]
    fn lay_out(&mut self) -> Piece {
        let slab = self.unused.pop().unwrap_or_else(|| {
            self.spare_of.push(0);
            self.spare_of.len() as u32 - 1
        });
        self.spare_of[slab as usize] = PIECES;
        // The kernel zeroes new memory at its first touch, so this line itself touches none.
        let mut rest = BytesMut::zeroed(SLAB_BYTES);
        for piece in (1..PIECES).rev() {
            let bytes = rest.split_off(piece * SEGMENT_BYTES);
            self.spare.push(Piece { bytes, slab });
        }
        Piece { bytes: rest, slab }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slab_goes_back_as_a_whole() {
        let mut slabs = Slabs::default();
        let mut pieces: Vec<_> = (0..3 * PIECES).map(|_| slabs.take()).collect();
        assert_eq!((slabs.bytes(), slabs.spare()), (3 * SLAB_BYTES, 0));
        assert!(pieces.iter().all(|piece| piece.bytes.len() == SEGMENT_BYTES));
        // The first piece of each slab stays in use.
        let mut kept = Vec::new();
        for number in (0..3).rev() {
            kept.push(pieces.remove(number * PIECES));
        }
        for piece in pieces {
            slabs.put_back(piece, 0);
        }
        assert_eq!((slabs.bytes(), slabs.spare()), (3 * SLAB_BYTES, 3 * (PIECES - 1)));
        for (piece, left) in kept.into_iter().zip([2, 1, 1]) {
            slabs.put_back(piece, PIECES);
            assert_eq!(slabs.bytes(), left * SLAB_BYTES);
        }
        assert_eq!(slabs.spare(), PIECES);
        slabs.limit_spare(0);
        assert_eq!((slabs.bytes(), slabs.spare()), (0, 0));
    }
}

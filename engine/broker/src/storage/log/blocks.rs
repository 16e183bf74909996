//! Bytes that a disk takes without copying: whole blocks, aligned in memory.

use super::BLOCK_BYTES;

/// A growing run of bytes that starts on a block's boundary in memory.
///
/// Direct I/O wants aligned addresses, and safe code has no aligned allocation: so the bytes start
/// at the first aligned address of a vector that is at most a block longer. The vector is replaced,
/// never reallocated, so the address stays.
#[derive(Debug, Default)]
pub struct Blocks {
    bytes: Vec<u8>,
    start: usize,
}

impl Blocks {
    /// Room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        let mut bytes: Vec<u8> = Vec::with_capacity(capacity + BLOCK_BYTES);
        let start = bytes.as_ptr().align_offset(BLOCK_BYTES).min(BLOCK_BYTES);
        bytes.resize(start, 0);
        Self { bytes, start }
    }

    /// `length` zeros, to be read into.
    pub fn zeroed(length: usize) -> Self {
        let mut blocks = Self::with_capacity(length);
        blocks.bytes.resize(blocks.start + length, 0);
        blocks
    }

    /// The vector and where in it the bytes start, for the kernel.
    pub fn into_parts(self) -> (Vec<u8>, usize) {
        (self.bytes, self.start)
    }

    /// From what [`Self::into_parts`] gave.
    pub fn from_parts(bytes: Vec<u8>, start: usize) -> Self {
        debug_assert!(start <= bytes.len());
        Self { bytes, start }
    }

    /// Bytes held.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that fit without another allocation.
    #[inline]
    pub fn room(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    /// Adds bytes.
    #[inline]
    pub fn extend(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    /// Adds zeros.
    #[inline]
    pub fn extend_zeros(&mut self, count: usize) {
        self.reserve(count);
        self.bytes.resize(self.bytes.len() + count, 0);
    }

    /// The bytes.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The bytes, to be changed.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    /// Forgets the bytes and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.truncate(self.start);
    }

    /// Grows by moving to a new vector, whose start is aligned anew.
    #[inline]
    fn reserve(&mut self, count: usize) {
        if self.room() < count {
            self.grow(count);
        }
    }

    #[cold]
    fn grow(&mut self, count: usize) {
        let mut larger = Self::with_capacity((self.len() + count).max(2 * self.len()));
        larger.bytes.extend_from_slice(self.as_slice());
        *self = larger;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_start_on_a_block_however_they_grow() {
        let mut blocks = Blocks::with_capacity(100);
        let mut expected = Vec::new();
        for round in 0..2_000_usize {
            blocks.extend(&[round as u8; 7]);
            blocks.extend_zeros(round % 5);
            expected.extend([round as u8; 7]);
            expected.resize(expected.len() + round % 5, 0);
            assert_eq!(blocks.as_slice().as_ptr().align_offset(BLOCK_BYTES), 0);
        }
        assert_eq!(blocks.as_slice(), expected);
        let (bytes, start) = blocks.into_parts();
        let mut blocks = Blocks::from_parts(bytes, start);
        assert_eq!(blocks.len(), expected.len());
        blocks.clear();
        assert!(blocks.is_empty());
    }
}

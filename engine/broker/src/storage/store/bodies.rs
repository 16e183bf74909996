//! Bodies that leave by reference: copied once, into chunks of memory that are reused.
//!
//! ```text
//!   current ──full──► in use ──last body given back──► emptied ──nobody reads it──► current
//! ```
//! An outbox may still hold a body whose message is gone, so an emptied chunk is reused only when
//! no slice of it is left; hottest first, as with segments.
//!
//! Within a limit, a body is not copied at all but stays in its receive buffer ([`received`]).
//!
//! [`received`]: super::received

use bytes::{Bytes, BytesMut};

use crate::message::Body;

use super::SEGMENT_BYTES;
use super::received::ReceiveBuffers;
use super::slabs::SLAB_BYTES;

/// The size of a chunk: a few in turn stay in a level 2 cache. A body above half of it gets memory
/// of its own, so that it pins nothing but itself.
const CHUNK_BYTES: usize = SEGMENT_BYTES;

/// Above this, bodies wait too long to be in a cache when they leave. Further chunks are a huge
/// page each, whose first touch costs less.
const SMALL_CHUNKS_BYTES: usize = 4 << 20;

/// Emptied chunks tried in search of one without slices: one outbox that fills and one that is
/// being sent pin 2 MiB, which is half of these.
const RECLAIM_TRIES: usize = 16;

/// All shared bodies of a store.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    shared: Vec<SharedBody>,
    vacant: Vec<u32>,
    chunks: Vec<Chunk>,
    /// Numbers of chunks without memory.
    unused: Vec<u32>,
    current: Option<u32>,
    /// Chunks whose bodies are all given up, coldest first; outboxes may still hold slices.
    emptied: Vec<u32>,
    emptied_bytes: usize,
    chunk_bytes: usize,
    own_bytes: usize,
    bytes: usize,
    copied_bytes: u64,
    receive_buffers: ReceiveBuffers,
}

#[derive(Debug)]
struct SharedBody {
    bytes: Bytes,
    memory: Memory,
}

/// The memory that a body is in.
#[derive(Clone, Copy, Debug)]
enum Memory {
    /// The chunk of this number.
    Chunk(u32),
    /// An allocation of its own.
    Own,
    /// The receive buffer of this number.
    Received(u32),
}

/// Memory that bodies are copied into, one behind the other.
#[derive(Debug, Default)]
struct Chunk {
    /// The unwritten part. It also keeps the whole allocation alive for reuse.
    rest: BytesMut,
    size_bytes: usize,
    bodies: u32,
}

impl Bodies {
    /// Adds a body; returns its number.
    pub(super) fn share(&mut self, body: &Body<'_>) -> u32 {
        let number = self.vacant.pop().unwrap_or(self.shared.len() as u32);
        let shared = self.left_received(body, number).unwrap_or_else(|| self.copied(body));
        self.bytes += shared.bytes.len();
        match self.shared.get_mut(number as usize) {
            Some(vacant) => *vacant = shared,
            None => self.shared.push(shared),
        }
        number
    }

    /// Leaves a body where it was received, if it may stay there.
    #[inline]
    fn left_received(&mut self, body: &Body<'_>, number: u32) -> Option<SharedBody> {
        let Body::Pieces([piece]) = body else { return None };
        let memory = Memory::Received(self.receive_buffers.keep(piece, number)?);
        Some(SharedBody { bytes: piece.clone(), memory })
    }

    fn copied(&mut self, body: &Body<'_>) -> SharedBody {
        let length = body.len();
        self.copied_bytes += length as u64;
        if length > CHUNK_BYTES / 2 {
            self.own_bytes += length;
            let mut own = BytesMut::with_capacity(length);
            copy(body, &mut own);
            return SharedBody { bytes: own.freeze(), memory: Memory::Own };
        }
        let number = self.chunk_with_room(length);
        let chunk = &mut self.chunks[number as usize];
        copy(body, &mut chunk.rest);
        chunk.bodies += 1;
        SharedBody { bytes: chunk.rest.split().freeze(), memory: Memory::Chunk(number) }
    }

    /// Until [`Self::end_received`], new bodies may lie in this receive buffer and stay there.
    pub(super) fn begin_received(&mut self, received: &Bytes) {
        self.receive_buffers.begin(received);
    }

    /// The receive buffer of [`Self::begin_received`] has been read.
    #[inline]
    pub(super) fn end_received(&mut self) {
        if let Some((buffer, bodies)) = self.receive_buffers.end() {
            self.empty_received(buffer, &bodies);
        }
    }

    /// Copies bodies out of a receive buffer. A number in the list may belong to a body elsewhere
    /// by now, which stays there.
    #[cold]
    fn empty_received(&mut self, buffer: u32, bodies: &[u32]) {
        for number in bodies {
            let SharedBody { bytes, memory } = &self.shared[*number as usize];
            if matches!(memory, Memory::Received(of) if *of == buffer) {
                let received = bytes.clone();
                self.shared[*number as usize] = self.copied(&Body::Inline(&received));
                self.receive_buffers.give_up(buffer);
            }
        }
    }

    /// Receive buffers that bodies are in.
    pub(super) fn receive_buffers(&self) -> usize {
        self.receive_buffers.kept()
    }

    /// Keeps at most this many receive buffers.
    pub(super) fn limit_received(&mut self, buffers: usize) {
        self.receive_buffers.limit(buffers);
    }

    /// The body of this number.
    #[inline]
    pub(super) fn get(&self, number: u32) -> &Bytes {
        &self.shared[number as usize].bytes
    }

    /// Gives a body up. Returns whether that emptied a chunk, which is then kept for reuse.
    pub(super) fn unshare(&mut self, number: u32) -> bool {
        // The slot must not keep saying `Received`: its buffer still lists this number, and would
        // copy a body that is gone.
        let vacant = SharedBody { bytes: Bytes::new(), memory: Memory::Own };
        let body = std::mem::replace(&mut self.shared[number as usize], vacant);
        let length = body.bytes.len();
        self.bytes -= length;
        self.vacant.push(number);
        let chunk_number = match body.memory {
            Memory::Chunk(number) => number,
            Memory::Own => {
                self.own_bytes -= length;
                return false;
            }
            Memory::Received(number) => {
                self.receive_buffers.give_up(number);
                return false;
            }
        };
        let chunk = &mut self.chunks[chunk_number as usize];
        chunk.bodies -= 1;
        let emptied = chunk.bodies == 0 && self.current != Some(chunk_number);
        if emptied {
            self.emptied.push(chunk_number);
            self.emptied_bytes += chunk.size_bytes;
        }
        emptied
    }

    /// Frees emptied chunks, coldest first, until they take at most this many bytes.
    pub(super) fn limit_emptied(&mut self, kept_bytes: usize) {
        let mut surplus = 0;
        while self.emptied_bytes > kept_bytes {
            let chunk = &mut self.chunks[self.emptied[surplus] as usize];
            self.emptied_bytes -= chunk.size_bytes;
            self.chunk_bytes -= chunk.size_bytes;
            *chunk = Chunk::default();
            surplus += 1;
        }
        self.unused.extend(self.emptied.drain(..surplus));
    }

    /// Bytes of emptied chunks that are kept for reuse.
    pub(super) fn emptied_bytes(&self) -> usize {
        self.emptied_bytes
    }

    /// Bytes that were copied in, since the start.
    pub(super) fn copied_bytes(&self) -> u64 {
        self.copied_bytes
    }

    /// Bytes of all bodies.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Memory of bodies, of chunks kept for reuse, and of the table, without receive buffers.
    pub(super) fn memory_bytes(&self) -> usize {
        self.chunk_bytes + self.own_bytes + self.shared.capacity() * size_of::<SharedBody>()
    }

    #[inline]
    fn chunk_with_room(&mut self, length: usize) -> u32 {
        if let Some(current) = self.current
            && self.chunks[current as usize].rest.capacity() >= length
        {
            return current;
        }
        self.next_chunk()
    }

    #[cold]
    fn next_chunk(&mut self) -> u32 {
        // `unshare` does not list the current chunk, so one that is empty already is listed here.
        if let Some(last) = self.current
            && self.chunks[last as usize].bodies == 0
        {
            self.emptied.push(last);
            self.emptied_bytes += self.chunks[last as usize].size_bytes;
        }
        let number = self.reclaimed().unwrap_or_else(|| self.new_chunk());
        self.current = Some(number);
        number
    }

    /// The hottest emptied chunk of which no slice is left.
    fn reclaimed(&mut self) -> Option<u32> {
        // An emptied chunk has less than half of `CHUNK_BYTES` unwritten, so `try_reclaim` succeeds
        // only if it gets the whole chunk back.
        let from = self.emptied.len().saturating_sub(RECLAIM_TRIES);
        let chunks = &mut self.chunks;
        let free = self.emptied[from..]
            .iter()
            .rposition(|number| chunks[*number as usize].rest.try_reclaim(CHUNK_BYTES))?;
        let number = self.emptied.remove(from + free);
        self.emptied_bytes -= self.chunks[number as usize].size_bytes;
        Some(number)
    }

    fn new_chunk(&mut self) -> u32 {
        let is_small = self.chunk_bytes < SMALL_CHUNKS_BYTES;
        let size_bytes = if is_small { CHUNK_BYTES } else { SLAB_BYTES };
        self.chunk_bytes += size_bytes;
        let chunk = Chunk { rest: BytesMut::with_capacity(size_bytes), size_bytes, bodies: 0 };
        if let Some(number) = self.unused.pop() {
            self.chunks[number as usize] = chunk;
            return number;
        }
        self.chunks.push(chunk);
        self.chunks.len() as u32 - 1
    }
}

fn copy(body: &Body<'_>, to: &mut BytesMut) {
    match body {
        Body::Inline(bytes) => to.extend_from_slice(bytes),
        Body::Pieces(pieces) => pieces.iter().for_each(|piece| to.extend_from_slice(piece)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(bodies: &mut Bodies, length: usize, fill: u8) -> u32 {
        bodies.share(&Body::Inline(&vec![fill; length]))
    }

    #[test]
    fn chunks_are_used_again() {
        let mut bodies = Bodies::default();
        let mut held = std::collections::VecDeque::new();
        for round in 0..20_000_u32 {
            held.push_back((share(&mut bodies, 1024, round as u8), round as u8));
            if held.len() > 1_000 {
                let (number, fill) = held.pop_front().unwrap();
                assert!(bodies.get(number).iter().all(|byte| *byte == fill));
                bodies.unshare(number);
            }
        }
        // A thousand bodies lie in four chunks; one is begun and one not quite empty.
        assert!(bodies.chunks.len() <= 6, "{} chunks", bodies.chunks.len());
        for (number, _) in held {
            bodies.unshare(number);
        }
        bodies.limit_emptied(0);
        assert_eq!((bodies.bytes(), bodies.emptied_bytes()), (0, 0));
        assert_eq!(bodies.chunk_bytes, CHUNK_BYTES, "the current one stays");
    }

    #[test]
    fn what_is_lent_is_not_written_over() {
        let mut bodies = Bodies::default();
        let mut lent = Vec::new();
        for fill in 0..40_u8 {
            let number = share(&mut bodies, CHUNK_BYTES / 2, fill);
            lent.push((bodies.get(number).clone(), fill));
            bodies.unshare(number);
        }
        for (body, fill) in lent.drain(..) {
            assert!(body.iter().all(|byte| *byte == fill), "body {fill} was written over");
        }
        let chunks = bodies.chunks.len();
        for fill in 0..40_u8 {
            let number = share(&mut bodies, CHUNK_BYTES / 2, fill);
            bodies.unshare(number);
        }
        assert_eq!(bodies.chunks.len(), chunks);
    }

    #[test]
    fn a_large_body_has_memory_of_its_own() {
        let mut bodies = Bodies::default();
        let small = share(&mut bodies, 1024, 1);
        let large = share(&mut bodies, CHUNK_BYTES, 2);
        let other = share(&mut bodies, 1024, 3);
        assert_eq!((bodies.chunks.len(), bodies.own_bytes), (1, CHUNK_BYTES));
        assert!(!bodies.unshare(large));
        assert_eq!((bodies.get(small)[0], bodies.get(other)[0], bodies.own_bytes), (1, 3, 0));
    }
}

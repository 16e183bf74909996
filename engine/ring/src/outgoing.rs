//! The bytes of a send, and their memory while the kernel works on it.
//!
//! ```text
//!  scratch:  ├── deliver frame, body header ──┼── frame end, next deliver … ──┼─ frame end ─┤
//!                                             ▲ offset                        ▲ offset
//!  bodies:                               ├─ Bytes ─┤                      ├─ Bytes ─┤
//! ```

use bytes::Bytes;
use io_uring::{opcode, squeue, types};

/// `UIO_MAXIOV` of sendmsg(2): more pieces are refused with EMSGSIZE.
const IOVECS_MAX: usize = 1_024;

/// The kernel moves at most 2 GiB - 4 KiB per call (`MAX_RW_COUNT`); half of that is enough.
const BYTES_PER_CALL_MAX: usize = 1 << 30;

/// Keeps whole frames together and survives a peer that is gone without SIGPIPE.
const FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

/// Bytes to send: frames and small bodies in `scratch`, large bodies by reference.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Frames and small bodies.
    pub scratch: Vec<u8>,
    /// Bodies with their offsets: each is sent before the byte of `scratch` at its offset. Offsets
    /// ascend (several bodies may share one) and are at most `scratch.len()`.
    pub bodies: Vec<(usize, Bytes)>,
}

impl Outgoing {
    /// Bytes on the wire.
    pub fn length_bytes(&self) -> usize {
        self.scratch.len() + self.bodies.iter().map(|(_, body)| body.len()).sum::<usize>()
    }

    /// True when there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.length_bytes() == 0
    }
}

/// Where a send stands: the next byte is byte `body_position` of body `body` once the scratch
/// before that body's offset is sent, up to `scratch`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cursor {
    body: usize,
    body_position: usize,
    scratch: usize,
}

/// A send under way. Boxed by its owner and not moved or changed until the completion: the kernel
/// holds the address of `header`, and through it those of all the rest.
pub(crate) struct Sending {
    outgoing: Outgoing,
    cursor: Cursor,
    /// Raw addresses into `outgoing`, rebuilt before each submission.
    iovecs: Vec<libc::iovec>,
    header: libc::msghdr,
    left_bytes: usize,
}

impl Sending {
    /// An idle one, for [`Sending::start`].
    pub(crate) fn new() -> Box<Self> {
        // SAFETY: msghdr is a plain C struct of integers and pointers; all zero is its empty value.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Self {
            outgoing: Outgoing::default(),
            cursor: Cursor::default(),
            iovecs: Vec::new(),
            header,
            left_bytes: 0,
        })
    }

    /// Takes the bytes to send. Panics if the offsets do not ascend or exceed `scratch`: that is a
    /// bug of the encoder, and sending would corrupt the stream.
    pub(crate) fn start(&mut self, outgoing: Outgoing) {
        let mut before = 0;
        for (offset, _) in &outgoing.bodies {
            assert!(before <= *offset && *offset <= outgoing.scratch.len(), "bad body offset");
            before = *offset;
        }
        self.cursor = Cursor::default();
        self.left_bytes = outgoing.length_bytes();
        self.outgoing = outgoing;
    }

    /// Bytes that are still to be sent.
    pub(crate) fn left_bytes(&self) -> usize {
        self.left_bytes
    }

    /// Ends the send: gives the buffers back, without the bodies.
    pub(crate) fn finish(&mut self) -> Outgoing {
        self.iovecs.clear();
        let mut outgoing = std::mem::take(&mut self.outgoing);
        outgoing.bodies.clear();
        outgoing
    }

    /// The operation for the next part of the unsent bytes. The caller must neither move nor change
    /// this until the operation has completed.
    pub(crate) fn operation(&mut self, file: types::Fixed) -> squeue::Entry {
        if self.outgoing.bodies.is_empty() {
            let rest = &self.outgoing.scratch[self.cursor.scratch..];
            let length = rest.len().min(BYTES_PER_CALL_MAX) as u32;
            return opcode::Send::new(file, rest.as_ptr(), length).flags(FLAGS).build();
        }
        self.gather();
        self.header.msg_iov = self.iovecs.as_mut_ptr();
        self.header.msg_iovlen = self.iovecs.len();
        opcode::SendMsg::new(file, &raw const self.header).flags(FLAGS as u32).build()
    }

    /// Fills `iovecs` from the cursor on, within both limits.
    fn gather(&mut self) {
        let mut iovecs = std::mem::take(&mut self.iovecs);
        iovecs.clear();
        let mut bytes = 0;
        let mut cursor = self.cursor;
        while iovecs.len() < IOVECS_MAX && bytes < BYTES_PER_CALL_MAX {
            let Some(piece) = self.piece(cursor) else {
                break;
            };
            let length = piece.len().min(BYTES_PER_CALL_MAX - bytes);
            iovecs
                .push(libc::iovec { iov_base: piece.as_ptr().cast_mut().cast(), iov_len: length });
            bytes += length;
            cursor = self.after(cursor, length);
        }
        self.iovecs = iovecs;
    }

    /// The longest contiguous piece at the cursor; never empty, `None` at the end.
    fn piece(&self, mut cursor: Cursor) -> Option<&[u8]> {
        loop {
            let Some((offset, body)) = self.outgoing.bodies.get(cursor.body) else {
                let rest = &self.outgoing.scratch[cursor.scratch..];
                return if rest.is_empty() { None } else { Some(rest) };
            };
            if cursor.scratch < *offset {
                return Some(&self.outgoing.scratch[cursor.scratch..*offset]);
            }
            if cursor.body_position < body.len() {
                return Some(&body[cursor.body_position..]);
            }
            cursor.body += 1;
            cursor.body_position = 0;
        }
    }

    /// The cursor after `length` more bytes.
    fn after(&self, mut cursor: Cursor, mut length: usize) -> Cursor {
        while length > 0 {
            let Some((offset, body)) = self.outgoing.bodies.get(cursor.body) else {
                cursor.scratch += length;
                return cursor;
            };
            let scratch = (*offset - cursor.scratch).min(length);
            cursor.scratch += scratch;
            length -= scratch;
            let of_body = (body.len() - cursor.body_position).min(length);
            cursor.body_position += of_body;
            length -= of_body;
            if cursor.scratch == *offset && cursor.body_position == body.len() {
                cursor.body += 1;
                cursor.body_position = 0;
            }
        }
        cursor
    }

    /// Notes that the kernel took `length` bytes.
    pub(crate) fn advance(&mut self, length: usize) {
        debug_assert!(length <= self.left_bytes);
        let length = length.min(self.left_bytes);
        self.cursor = self.after(self.cursor, length);
        self.left_bytes -= length;
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    /// Walks a send in steps of at most `step` bytes and returns what went out.
    fn walk(outgoing: Outgoing, step: usize) -> Vec<u8> {
        let mut sending = Sending::new();
        sending.start(outgoing);
        let mut wire = Vec::new();
        while sending.left_bytes() > 0 {
            sending.gather();
            assert!((1..=IOVECS_MAX).contains(&sending.iovecs.len()));
            let mut budget = step;
            let mut taken = 0;
            for iovec in &sending.iovecs {
                assert!(iovec.iov_len > 0);
                let length = iovec.iov_len.min(budget);
                // SAFETY: gather made the iovec from live slices that nothing changed since.
                let piece = unsafe { std::slice::from_raw_parts(iovec.iov_base.cast(), length) };
                wire.extend_from_slice(piece);
                taken += length;
                budget -= length;
            }
            sending.advance(taken);
        }
        assert!(sending.piece(sending.cursor).is_none());
        assert!(sending.finish().bodies.is_empty());
        wire
    }

    fn expected(outgoing: &Outgoing) -> Vec<u8> {
        let mut wire = Vec::new();
        let mut from = 0;
        for (offset, body) in &outgoing.bodies {
            wire.extend_from_slice(&outgoing.scratch[from..*offset]);
            wire.extend_from_slice(body);
            from = *offset;
        }
        wire.extend_from_slice(&outgoing.scratch[from..]);
        wire
    }

    #[test]
    fn any_cut_gives_the_wire_order() {
        let scratch: Vec<u8> = (0..100).collect();
        let shapes: Vec<Vec<(usize, &'static [u8])>> = vec![
            vec![],
            vec![(0, b"first")],
            vec![(100, b"last")],
            vec![
                (0, b"a"),
                (0, b"bb"),
                (7, b""),
                (7, b"ccc"),
                (99, b"dddd"),
                (100, b""),
                (100, b"e"),
            ],
        ];
        for shape in shapes {
            for step in [1, 2, 3, 7, 50, 1_000] {
                let make = || Outgoing {
                    scratch: scratch.clone(),
                    bodies: shape
                        .iter()
                        .map(|(at, body)| (*at, Bytes::from_static(body)))
                        .collect(),
                };
                assert_eq!(walk(make(), step), expected(&make()), "{shape:?} in steps of {step}");
            }
        }
    }

    #[test]
    fn more_bodies_than_one_call_takes() {
        let make = || Outgoing {
            scratch: vec![1; 3_000],
            bodies: (0..3_000).map(|at| (at, Bytes::from(vec![at as u8; 3]))).collect(),
        };
        assert_eq!(walk(make(), usize::MAX), expected(&make()));
    }

    #[test]
    #[should_panic(expected = "bad body offset")]
    fn descending_offsets_are_a_bug() {
        let body = Bytes::from_static(b"x");
        let outgoing = Outgoing { scratch: vec![0; 9], bodies: vec![(5, body.clone()), (4, body)] };
        Sending::new().start(outgoing);
    }

    #[test]
    #[should_panic(expected = "bad body offset")]
    fn offsets_beyond_the_scratch_are_a_bug() {
        Sending::new()
            .start(Outgoing { scratch: vec![], bodies: vec![(1, Bytes::from_static(b"x"))] });
    }

    #[test]
    fn an_empty_send_has_nothing_left() {
        let mut sending = Sending::new();
        sending.start(Outgoing { scratch: vec![], bodies: vec![(0, Bytes::new())] });
        assert_eq!(sending.left_bytes(), 0);
    }
}

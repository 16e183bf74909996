//! The frame: the envelope of everything after the protocol header (specification 2.3.5).
//!
//! ```text
//!  0      1         3                7                    7+size  8+size
//! ┌──────┬─────────┬────────────────┬────────────────────┬──────┐
//! │ kind │ channel │      size      │ payload, size octets│ 0xCE │
//! │  u8  │ u16     │ u32            │                    │      │
//! └──────┴─────────┴────────────────┴────────────────────┴──────┘
//! ```
//!
//! All integers of AMQP are big-endian. `frame-max` counts the whole frame, so a payload that
//! keeps to the specification has at most `frame-max - 8` octets.

/// The octet that ends each frame.
pub const FRAME_END: u8 = 0xCE;

/// Octets before the payload: kind, channel, size.
pub const FRAME_HEADER_SIZE: usize = 7;

/// Octets around the payload: the header and the end octet.
pub const FRAME_OVERHEAD: usize = FRAME_HEADER_SIZE + 1;

/// The smallest `frame-max` a peer may ask for, in octets (specification 4.2.3, frame-min-size).
pub const FRAME_MIN_SIZE: u32 = 4096;

/// The frame limit before `tune-ok`, in octets: `RabbitMQ`'s `initial_frame_max` since 4.1, wide
/// enough for an access token in `connection.start-ok`.
pub const FRAME_SIZE_MAX_BEFORE_TUNE: u32 = 8192;

/// What a client sends first: `AMQP`, then 0, major 0, minor 9, revision 1.
pub const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\0\0\x09\x01";

/// Frame kind of a method.
pub const FRAME_METHOD: u8 = 1;

/// Frame kind of a content header.
pub const FRAME_HEADER: u8 = 2;

/// Frame kind of a part of a content body.
pub const FRAME_BODY: u8 = 3;

/// Frame kind of a heartbeat. Its payload is empty.
pub const FRAME_HEARTBEAT: u8 = 8;

/// A whole heartbeat frame on channel 0.
pub const HEARTBEAT: [u8; FRAME_OVERHEAD] = [FRAME_HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END];

/// The seven octets before a payload of `payload_size` octets.
#[inline(always)]
pub const fn frame_header(kind: u8, channel: u16, payload_size: u32) -> [u8; FRAME_HEADER_SIZE] {
    let channel = channel.to_be_bytes();
    let size = payload_size.to_be_bytes();
    [kind, channel[0], channel[1], size[0], size[1], size[2], size[3]]
}

//! The frame decoder: every cut of a stream gives the same frames, and every fault its error.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use leveret_amqp::frame::{
    FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, HEARTBEAT, PROTOCOL_HEADER,
    frame_header,
};
use leveret_amqp::{Decoder, Frame, FrameError, ReplyCode};
use proptest::prelude::*;

const FRAME_SIZE_MAX: u32 = 4096;

/// A whole frame with its payload copied, for comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Whole {
    kind: u8,
    channel: u16,
    payload: Vec<u8>,
}

impl Whole {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&frame_header(self.kind, self.channel, self.payload.len() as u32));
        out.extend_from_slice(&self.payload);
        out.push(FRAME_END);
    }
}

/// Feeds the chunks and puts body parts together again.
fn decode(decoder: &mut Decoder, chunks: &[&[u8]]) -> (Vec<Whole>, Result<(), FrameError>) {
    let mut frames = Vec::new();
    let mut body: Option<Whole> = None;
    let mut fed = 0;
    for chunk in chunks {
        let mut cursor = 0;
        fed += chunk.len();
        loop {
            match decoder.next(chunk, &mut cursor) {
                Err(error) => return (frames, Err(error)),
                Ok(None) => break,
                Ok(Some(frame)) => collect(frame, chunk, &mut body, &mut frames),
            }
            assert!(cursor <= chunk.len());
        }
        assert_eq!(cursor, chunk.len(), "the chunk is used up");
        assert!(decoder.gathered_size() <= fed, "holds only what arrived");
    }
    (frames, Ok(()))
}

fn collect(frame: Frame<'_>, chunk: &[u8], body: &mut Option<Whole>, frames: &mut Vec<Whole>) {
    let whole = |kind, channel, payload: &[u8]| Whole { kind, channel, payload: payload.to_vec() };
    if !matches!(frame, Frame::Body { .. }) {
        assert_eq!(*body, None, "a frame begins inside a body frame");
    }
    match frame {
        Frame::Method { channel, payload } => frames.push(whole(FRAME_METHOD, channel, payload)),
        Frame::Header { channel, payload } => frames.push(whole(FRAME_HEADER, channel, payload)),
        Frame::Heartbeat { channel } => frames.push(whole(FRAME_HEARTBEAT, channel, &[])),
        Frame::Body { channel, data, first, last } => {
            assert_eq!(first, body.is_none());
            let part = body.get_or_insert_with(|| whole(FRAME_BODY, channel, &[]));
            assert_eq!(part.channel, channel);
            part.payload.extend_from_slice(&chunk[data]);
            if last {
                frames.extend(body.take());
            }
        }
    }
}

fn frames() -> impl Strategy<Value = Vec<Whole>> {
    let frame = (prop_oneof![Just(1_u8), Just(2), Just(3), Just(3), Just(8)], any::<u16>())
        .prop_flat_map(|(kind, channel)| {
            let size_max = if kind == FRAME_HEARTBEAT { 0 } else { 40 };
            prop::collection::vec(any::<u8>(), 0..=size_max).prop_map(move |payload| Whole {
                kind,
                channel,
                payload,
            })
        });
    prop::collection::vec(frame, 0..8)
}

fn stream(frames: &[Whole]) -> Vec<u8> {
    let mut stream = Vec::new();
    for frame in frames {
        frame.encode(&mut stream);
    }
    stream
}

fn cut<'a>(stream: &'a [u8], at: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<_> = at.iter().map(|index| index.index(stream.len() + 1)).collect();
    at.sort_unstable();
    let mut chunks = Vec::new();
    let mut start = 0;
    for end in at.into_iter().chain([stream.len()]) {
        chunks.push(&stream[start..end]);
        start = end;
    }
    chunks
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_frames(
        frames in frames(),
        at in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let stream = stream(&frames);
        let mut decoder = Decoder::new(FRAME_SIZE_MAX);
        let (decoded, result) = decode(&mut decoder, &cut(&stream, &at));
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(decoded, frames);
        prop_assert!(decoder.between_frames());
    }

    #[test]
    fn any_cut_of_a_broken_stream_gives_the_same_error(
        frames in frames(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        at in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut stream = stream(&frames);
        prop_assume!(!stream.is_empty());
        for (index, octet) in damage {
            let index = index.index(stream.len());
            stream[index] = octet;
        }
        let whole = decode(&mut Decoder::new(64), &[&stream]);
        let octets: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(&decode(&mut Decoder::new(64), &octets), &whole);
        prop_assert_eq!(&decode(&mut Decoder::new(64), &cut(&stream, &at)), &whole);
    }

    #[test]
    fn hostile_octets_never_panic(
        stream in prop::collection::vec(any::<u8>(), 0..300),
        frame_size_max in any::<u32>(),
        at in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let mut decoder = Decoder::new(frame_size_max);
        let (_, result) = decode(&mut decoder, &cut(&stream, &at));
        if let Err(error) = result {
            prop_assert_eq!(decoder.next(&[1, 2, 3], &mut 0), Err(error));
        }
    }
}

#[test]
fn every_pair_of_cuts_gives_the_same_frames() {
    let frames = [
        Whole { kind: FRAME_METHOD, channel: 1, payload: b"method".to_vec() },
        Whole { kind: FRAME_BODY, channel: 1, payload: b"body".to_vec() },
        Whole { kind: FRAME_BODY, channel: 1, payload: Vec::new() },
        Whole { kind: FRAME_HEARTBEAT, channel: 0, payload: Vec::new() },
        Whole { kind: FRAME_HEADER, channel: 1, payload: Vec::new() },
    ];
    let stream = stream(&frames);
    for first in 0..=stream.len() {
        for second in first..=stream.len() {
            let chunks = [&stream[..first], &stream[first..second], &stream[second..]];
            let (decoded, result) = decode(&mut Decoder::new(FRAME_SIZE_MAX), &chunks);
            assert_eq!((decoded.as_slice(), result), (frames.as_slice(), Ok(())));
        }
    }
}

/// The error of a stream, the same whole and octet by octet.
fn error_of(frame_size_max: u32, stream: &[u8]) -> FrameError {
    let octets: Vec<&[u8]> = stream.chunks(1).collect();
    let (_, whole) = decode(&mut Decoder::new(frame_size_max), &[stream]);
    let (_, parts) = decode(&mut Decoder::new(frame_size_max), &octets);
    assert_eq!(whole, parts);
    whole.unwrap_err()
}

#[test]
fn payload_may_exceed_the_limit_by_the_eight_octets_of_overhead() {
    for kind in [FRAME_METHOD, FRAME_HEADER, FRAME_BODY] {
        let size_max = FRAME_SIZE_MAX;
        let frame = Whole { kind, channel: 1, payload: vec![7; size_max as usize] };
        let stream = stream(std::slice::from_ref(&frame));
        let (decoded, result) = decode(&mut Decoder::new(FRAME_SIZE_MAX), &[&stream]);
        assert_eq!((decoded, result), (vec![frame], Ok(())));

        let size = size_max + 1;
        let header = frame_header(kind, 1, size);
        assert_eq!(error_of(FRAME_SIZE_MAX, &header), FrameError::TooLarge { size, size_max });
    }
}

#[test]
fn largest_declared_size_is_refused_at_the_header() {
    let header = frame_header(FRAME_METHOD, 1, u32::MAX);
    let size_max = 8192;
    assert_eq!(error_of(8192, &header), FrameError::TooLarge { size: u32::MAX, size_max });
    // Without a limit a body of that size is begun, but never a method, which would be held.
    let mut decoder = Decoder::new(0);
    assert_eq!(decoder.next(&frame_header(FRAME_BODY, 1, u32::MAX), &mut 0), Ok(None));
    assert!(matches!(error_of(0, &header), FrameError::TooLarge { .. }));
}

#[test]
fn second_protocol_header_is_a_frame_too_large() {
    let error = error_of(8192, PROTOCOL_HEADER);
    assert_eq!(error, FrameError::TooLarge { size: 0x5000_0009, size_max: 8192 });
    assert_eq!(error.reply_code(), ReplyCode::FrameError);
}

#[test]
fn unknown_kinds_are_refused() {
    for kind in (0..=255).filter(|kind| ![1, 2, 3, 8].contains(kind)) {
        let frame = Whole { kind, channel: 1, payload: vec![1] };
        assert_eq!(error_of(FRAME_SIZE_MAX, &stream(&[frame])), FrameError::UnknownType(kind));
    }
}

#[test]
fn wrong_end_octet_is_refused_on_every_kind() {
    for (kind, size) in [(FRAME_METHOD, 5), (FRAME_HEADER, 14), (FRAME_BODY, 3), (FRAME_BODY, 0)] {
        let mut stream = stream(&[Whole { kind, channel: 1, payload: vec![0; size] }]);
        *stream.last_mut().unwrap() = 0xCD;
        assert_eq!(error_of(FRAME_SIZE_MAX, &stream), FrameError::BadEnd(0xCD));
    }
    assert_eq!(error_of(FRAME_SIZE_MAX, &[8, 0, 0, 0, 0, 0, 0, 0]), FrameError::BadEnd(0));
}

#[test]
fn heartbeat_has_no_payload() {
    let stream = stream(&[Whole { kind: FRAME_HEARTBEAT, channel: 0, payload: vec![1] }]);
    assert_eq!(error_of(FRAME_SIZE_MAX, &stream), FrameError::HeartbeatWithPayload(1));
    let mut decoder = Decoder::new(FRAME_SIZE_MAX);
    assert_eq!(decoder.next(&HEARTBEAT, &mut 0), Ok(Some(Frame::Heartbeat { channel: 0 })));
}

#[test]
fn nothing_is_read_after_an_error() {
    let mut decoder = Decoder::new(FRAME_SIZE_MAX);
    let mut cursor = 0;
    let error = Err(FrameError::UnknownType(9));
    assert_eq!(decoder.next(&frame_header(9, 0, 0), &mut cursor), error);
    assert_eq!(decoder.next(&HEARTBEAT, &mut 0), error);
    assert!(!decoder.between_frames());
}

#[test]
fn limit_changes_for_the_frames_that_follow() {
    let frame = Whole { kind: FRAME_BODY, channel: 1, payload: vec![0; 9000] };
    let stream = stream(&[frame]);
    let mut decoder = Decoder::new(8192);
    decoder.set_frame_size_max(131_072);
    let frame = decoder.next(&stream, &mut 0).unwrap();
    assert_eq!(frame, Some(Frame::Body { channel: 1, data: 7..9007, first: true, last: true }));
    assert_eq!(decoder.gathered_size(), 0, "bodies are not copied");
}

#[test]
fn end_octet_alone_in_the_next_chunk() {
    let stream = stream(&[Whole { kind: FRAME_BODY, channel: 5, payload: b"abc".to_vec() }]);
    let mut decoder = Decoder::new(FRAME_SIZE_MAX);
    let mut cursor = 0;
    let first = decoder.next(&stream[..10], &mut cursor).unwrap();
    assert_eq!(first, Some(Frame::Body { channel: 5, data: 7..10, first: true, last: false }));
    assert_eq!(decoder.next(&stream[..10], &mut cursor), Ok(None));
    let second = decoder.next(&stream[10..], &mut 0).unwrap();
    assert_eq!(second, Some(Frame::Body { channel: 5, data: 0..0, first: false, last: true }));
}

#[test]
fn cursor_beyond_the_chunk_is_no_frame() {
    assert_eq!(Decoder::new(0).next(&HEARTBEAT, &mut 100), Ok(None));
}

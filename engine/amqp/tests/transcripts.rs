//! Transcripts of real clients against `RabbitMQ` 3.10, both directions of each connection.
//!
//! pika, aio-pika, kombu and py-amqp, amqplib (Node) and the tools of rabbitmq-c declared, bound,
//! published, consumed, confirmed, returned, recovered, failed and closed through a proxy that
//! wrote down the octets.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use leveret_amqp::frame::{FRAME_END, FRAME_HEADER, FRAME_METHOD, PROTOCOL_HEADER, frame_header};
use leveret_amqp::{
    ContentHeader, Decoder, Frame, Method, Properties, PropertiesBuilder, encode_frame, sasl,
};

/// Name and octets of all transcripts, protocol headers cut off.
fn transcripts() -> Vec<(String, Vec<u8>)> {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "transcripts"].iter().collect();
    let mut transcripts = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut octets = fs::read(path).unwrap();
        if name.ends_with(".client.bin") {
            assert_eq!(&octets[..8], PROTOCOL_HEADER, "{name}");
            octets.drain(..8);
        }
        transcripts.push((name, octets));
    }
    transcripts.sort();
    assert!(transcripts.len() >= 20, "the corpus is complete");
    transcripts
}

/// One frame as it was read: its start, its octets, and of body frames the sum of the parts.
fn frames(octets: &[u8], chunk_size: usize) -> Vec<Vec<u8>> {
    let mut decoder = Decoder::new(131_072);
    let (mut frames, mut body) = (Vec::new(), Vec::new());
    for chunk in octets.chunks(chunk_size) {
        let mut cursor = 0;
        while let Some(frame) = decoder.next(chunk, &mut cursor).unwrap() {
            match frame {
                Frame::Method { channel, payload } => frames.push(rebuild(1, channel, payload)),
                Frame::Header { channel, payload } => frames.push(rebuild(2, channel, payload)),
                Frame::Heartbeat { channel } => frames.push(rebuild(8, channel, &[])),
                Frame::Body { channel, data, last, .. } => {
                    body.extend_from_slice(&chunk[data]);
                    if last {
                        frames.push(rebuild(3, channel, &body));
                        body.clear();
                    }
                }
            }
        }
    }
    assert!(decoder.between_frames(), "the transcript ends between frames");
    frames
}

fn rebuild(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let header = frame_header(kind, channel, payload.len() as u32);
    [&header, payload, &[FRAME_END]].concat()
}

#[test]
fn every_chunk_size_gives_the_octets_back() {
    for (name, octets) in transcripts() {
        for chunk_size in [1, 2, 3, 7, 8, 64, 1000, 4096, usize::MAX] {
            let frames = frames(&octets, chunk_size);
            assert_eq!(frames.concat(), octets, "{name} in chunks of {chunk_size}");
        }
    }
}

/// Reserved fields that clients of the corpus fill all the same. They are written as zeros.
const RESERVED_FILLED: [(&str, &[u8]); 3] = [
    ("channel.open", b"\x010"),
    ("connection.open", b"\x01/\0\x01"),
    ("connection.open", b"\x05/nope\0\x01"),
];

/// Methods that no client of the corpus sends, and `RabbitMQ` did not.
const UNSEEN: [&str; 7] = [
    "connection.secure",
    "connection.secure-ok",
    "connection.blocked",
    "connection.unblocked",
    "access.request",
    "access.request-ok",
    "basic.recover-async",
];

#[test]
fn every_method_is_encoded_to_the_same_octets() {
    let (mut seen, mut filled) = (BTreeSet::new(), BTreeSet::new());
    for (name, octets) in transcripts() {
        for frame in frames(&octets, usize::MAX).iter().filter(|frame| frame[0] == FRAME_METHOD) {
            let payload = &frame[7..frame.len() - 1];
            let method = Method::decode(payload).unwrap();
            let mut encoded = Vec::new();
            encode_frame(u16::from_be_bytes([frame[1], frame[2]]), &method, &mut encoded);
            if RESERVED_FILLED.contains(&(method.name(), &payload[4..])) {
                assert_ne!(encoded, *frame);
                filled.insert(payload.to_vec());
            } else {
                assert_eq!(encoded, *frame, "{name}: {method:?}");
            }
            seen.insert(method.name());
        }
    }
    assert_eq!(filled.len(), RESERVED_FILLED.len());
    let all = Method::ALL_IDS.iter().map(|ids| name_of(*ids));
    let unseen: Vec<_> = all.filter(|name| !seen.contains(name)).collect();
    assert_eq!(unseen, UNSEEN);
}

/// The name of a method whose arguments are all zero.
fn name_of((class, id): (u16, u16)) -> &'static str {
    let payload = [&class.to_be_bytes()[..], &id.to_be_bytes(), &[0; 32]].concat();
    (4..=payload.len())
        .find_map(|size| Method::decode(&payload[..size]).ok())
        .expect("zeros are arguments of any method")
        .name()
}

#[test]
fn every_content_header_is_encoded_to_the_same_octets() {
    let mut with_headers = 0;
    for (name, octets) in transcripts() {
        for frame in frames(&octets, usize::MAX).iter().filter(|frame| frame[0] == FRAME_HEADER) {
            let header = ContentHeader::decode(&frame[7..frame.len() - 1]).unwrap();
            assert_eq!((header.class_id, header.weight), (60, 0), "{name}");
            let properties = Properties::parse(header.properties).unwrap();
            let built = PropertiesBuilder::from(properties).finish();
            assert_eq!(built, header.properties, "{name}: {properties:?}");
            with_headers += usize::from(properties.headers().is_some());
        }
    }
    assert!(with_headers > 10);
}

#[test]
fn every_login_is_read() {
    let mut mechanisms = BTreeSet::new();
    for (name, octets) in transcripts() {
        for frame in frames(&octets, usize::MAX).iter().filter(|frame| frame[0] == FRAME_METHOD) {
            let Ok(Method::ConnectionStartOk(start_ok)) =
                Method::decode(&frame[7..frame.len() - 1])
            else {
                continue;
            };
            let (credentials, encoded) = match start_ok.mechanism {
                "PLAIN" => {
                    let credentials = sasl::parse_plain(start_ok.response).unwrap();
                    (credentials, sasl::encode_plain(credentials))
                }
                "AMQPLAIN" => {
                    let credentials = sasl::parse_amqplain(start_ok.response).unwrap();
                    (credentials, sasl::encode_amqplain(credentials))
                }
                other => panic!("{name}: mechanism {other}"),
            };
            assert_eq!(credentials.username, b"guest", "{name}");
            assert_eq!(encoded, start_ok.response, "{name}");
            mechanisms.insert(start_ok.mechanism.to_owned());
        }
    }
    assert!(mechanisms.iter().map(String::as_str).eq(["AMQPLAIN", "PLAIN"]));
}

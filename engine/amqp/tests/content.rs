//! Content: headers, properties, and whole messages as they are written and read.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::borrow::Cow;

use leveret_amqp::encoder::{
    ContentMethod, Deliver, GetOk, Publish, Return, body_frame_size_max, encode_content,
    encode_content_header, encode_content_parts, encode_content_prefix,
};
use leveret_amqp::method::{BasicDeliver, BasicGetOk, BasicPublish, BasicReturn};
use leveret_amqp::properties::{NO_PROPERTIES, relayable, validate};
use leveret_amqp::{
    ContentHeader, Decoder, Frame, Method, OwnedTable, Properties, PropertiesBuilder,
    PropertiesError, ReplyCode, TableBuilder, TableError,
};
use proptest::prelude::*;

/// Properties that own what they hold.
#[derive(Debug, Clone)]
struct Model {
    strings: [Option<Vec<u8>>; 10],
    headers: Option<OwnedTable>,
    octets: [Option<u8>; 2],
    timestamp: Option<u64>,
}

impl Model {
    fn builder(&self) -> PropertiesBuilder<'_> {
        let string = |index: usize| self.strings[index].as_deref();
        PropertiesBuilder {
            content_type: string(0),
            content_encoding: string(1),
            headers: self.headers.as_ref().map(OwnedTable::as_ref),
            delivery_mode: self.octets[0],
            priority: self.octets[1],
            correlation_id: string(2),
            reply_to: string(3),
            expiration: string(4),
            message_id: string(5),
            timestamp: self.timestamp,
            kind: string(6),
            user_id: string(7),
            app_id: string(8),
            cluster_id: string(9),
        }
    }
}

fn model() -> impl Strategy<Value = Model> {
    let octets = || prop::collection::vec(any::<u8>(), 0..30);
    let strings = prop::collection::vec(prop::option::of(octets()), 10);
    let headers = prop::option::of(
        octets()
            .prop_map(|value| TableBuilder::new().long_str("k", &value).bool("b", true).finish()),
    );
    (strings, headers, any::<[Option<u8>; 2]>(), any::<Option<u64>>()).prop_map(
        |(strings, headers, octets, timestamp)| Model {
            strings: strings.try_into().unwrap(),
            headers,
            octets,
            timestamp,
        },
    )
}

proptest! {
    #[test]
    fn properties_are_read_as_written(model in model()) {
        let bytes = model.builder().finish();
        let properties = Properties::parse(&bytes).unwrap();
        prop_assert_eq!(PropertiesBuilder::from(properties), model.builder());
        prop_assert_eq!(properties.is_persistent(), model.octets[0] == Some(2));
        prop_assert_eq!(relayable(&bytes), Cow::Borrowed(bytes.as_slice()));
    }

    #[test]
    fn every_cut_and_every_surplus_of_properties_is_refused(model in model()) {
        let mut bytes = model.builder().finish();
        for size in 0..bytes.len() {
            prop_assert!(validate(&bytes[..size]).is_err());
        }
        bytes.push(0);
        prop_assert_eq!(validate(&bytes), Err(PropertiesError::TrailingBytes(1)));
    }

    #[test]
    fn hostile_properties_never_panic(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0..4_u8], 0..60),
    ) {
        let unchecked = PropertiesBuilder::from(Properties::trusted(&bytes)).finish();
        if validate(&bytes).is_ok() {
            let relayed = relayable(&bytes);
            prop_assert_eq!(validate(&relayed), Ok(()));
            prop_assert_eq!(unchecked, relayed.into_owned());
        }
    }
}

#[test]
fn words_that_continue_the_flags_are_read_and_not_sent_on() {
    let priority = [0x08, 0x01, 0x00, 0x01, 0x00, 0x00, 7];
    assert_eq!(Properties::parse(&priority).unwrap().priority(), Some(7));
    assert_eq!(*relayable(&priority), [0x08, 0x00, 7]);
    assert_eq!(validate(&[0x08, 0x01, 0x00, 0x02, 7]), Err(PropertiesError::UnknownFlag));
    assert_eq!(validate(&[0x08, 0x01]), Err(PropertiesError::Truncated));
    // Bit 1 stands for nothing, and RabbitMQ lets it pass.
    assert_eq!(validate(&[0x08, 0x02, 7]), Ok(()));
    assert_eq!(*relayable(&[0x08, 0x02, 7]), [0x08, 0x00, 7]);
}

#[test]
fn malformed_headers_are_syntax_errors() {
    let error = validate(b"\x20\0\0\0\0\x03\x01a?").unwrap_err();
    assert_eq!(error, PropertiesError::Table(TableError::UnknownType(b'?')));
    assert_eq!(error.reply_code(), ReplyCode::SyntaxError);
    assert_eq!(PropertiesError::Truncated.reply_code(), ReplyCode::FrameError);
}

#[test]
fn content_header_layout() {
    let mut frame = Vec::new();
    encode_content_header(3, 0x0102, &[0x10, 0x00, 2], &mut frame);
    let wire = b"\x02\0\x03\0\0\0\x0F\0\x3C\0\0\0\0\0\0\0\0\x01\x02\x10\0\x02\xCE";
    assert_eq!(frame, wire);
    let header = ContentHeader::decode(&frame[7..frame.len() - 1]).unwrap();
    assert_eq!((header.class_id, header.weight, header.body_size), (60, 0, 0x0102));
    assert_eq!(Properties::parse(header.properties).unwrap().delivery_mode(), Some(2));
    for size in 0..12 {
        assert_eq!(ContentHeader::decode(&wire[..size]), Err(PropertiesError::Truncated));
    }
}

/// Reads a message back: its method payload, its header, its body, and the size of each body frame.
struct Message {
    method: Vec<u8>,
    properties: Vec<u8>,
    body: Vec<u8>,
    body_frames: Vec<usize>,
}

fn read_message(stream: &[u8], expected_channel: u16) -> Message {
    let mut decoder = Decoder::new(0);
    let mut cursor = 0;
    let Some(Frame::Method { channel, payload }) = decoder.next(stream, &mut cursor).unwrap()
    else {
        panic!("no method frame");
    };
    assert_eq!(channel, expected_channel);
    let method = payload.to_vec();
    let Some(Frame::Header { channel, payload }) = decoder.next(stream, &mut cursor).unwrap()
    else {
        panic!("no content header frame");
    };
    assert_eq!(channel, expected_channel);
    let header = ContentHeader::decode(payload).unwrap();
    assert_eq!((header.class_id, header.weight), (60, 0));
    let properties = header.properties.to_vec();
    let (body_size, mut body, mut body_frames) = (header.body_size, Vec::new(), Vec::new());
    while let Some(frame) = decoder.next(stream, &mut cursor).unwrap() {
        let Frame::Body { channel, data, first: true, last: true } = frame else {
            panic!("not a whole body frame: {frame:?}");
        };
        assert_eq!(channel, expected_channel);
        assert!(!data.is_empty(), "an empty body frame");
        body_frames.push(data.len());
        body.extend_from_slice(&stream[data]);
    }
    assert_eq!(body.len() as u64, body_size);
    Message { method, properties, body, body_frames }
}

#[derive(Debug, Clone)]
struct Names {
    tag: String,
    exchange: Vec<u8>,
    routing_key: Vec<u8>,
}

fn names() -> impl Strategy<Value = Names> {
    let octets = || prop::collection::vec(any::<u8>(), 0..=255);
    ("[a-z]{0,80}", octets(), octets()).prop_map(|(tag, exchange, routing_key)| Names {
        tag,
        exchange,
        routing_key,
    })
}

/// Deliver and return in the encoder's form and in the method table's form.
fn content_methods(
    names: &Names,
    channel: u16,
    delivery_tag: u64,
    redelivered: bool,
) -> Vec<(ContentMethod<'_>, Method<'_>)> {
    let Names { tag, exchange, routing_key } = names;
    let (text, consumer_tag) = (tag.as_str(), tag.as_bytes());
    let deliver =
        Deliver { channel, consumer_tag, delivery_tag, redelivered, exchange, routing_key };
    let delivered =
        BasicDeliver { consumer_tag: text, delivery_tag, redelivered, exchange, routing_key };
    let reply_code = 312;
    let returned = Return { channel, reply_code, reply_text: consumer_tag, exchange, routing_key };
    let gone = BasicReturn { reply_code, reply_text: text, exchange, routing_key };
    let mut methods = vec![(deliver.into(), delivered.into()), (returned.into(), gone.into())];
    methods.extend(untagged_methods(names, channel, delivery_tag, redelivered));
    methods
}

/// Get-ok and publish in both forms.
fn untagged_methods(
    names: &Names,
    channel: u16,
    delivery_tag: u64,
    redelivered: bool,
) -> [(ContentMethod<'_>, Method<'_>); 2] {
    let Names { exchange, routing_key, .. } = names;
    let message_count = 5;
    let get_ok = GetOk { channel, delivery_tag, redelivered, exchange, routing_key, message_count };
    let got = BasicGetOk { delivery_tag, redelivered, exchange, routing_key, message_count };
    let (mandatory, immediate) = (redelivered, !redelivered);
    let publish = Publish { channel, exchange, routing_key, mandatory, immediate };
    let published = BasicPublish { exchange, routing_key, mandatory, immediate };
    [(get_ok.into(), got.into()), (publish.into(), published.into())]
}

proptest! {
    #[test]
    fn messages_are_read_as_written(
        names in names(),
        channel in any::<u16>(),
        tag in any::<u64>(),
        flag in any::<bool>(),
        model in model(),
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..100),
            prop::collection::vec(any::<u8>(), 4000..13_000),
        ],
        frame_size_max in prop_oneof![Just(0_u32), Just(4096), Just(8192), Just(131_072)],
    ) {
        let properties = model.builder().finish();
        for (content_method, method) in content_methods(&names, channel, tag, flag) {
            let mut stream = b"before".to_vec();
            encode_content(&mut stream, content_method, &properties, &body, frame_size_max);
            prop_assert_eq!(&stream[..6], b"before");
            let message = read_message(&stream[6..], channel);
            prop_assert_eq!(Method::decode(&message.method), Ok(method));
            prop_assert_eq!(&message.properties, &properties);
            prop_assert_eq!(&message.body, &body);
            check_cuts(&message.body_frames, frame_size_max)?;

            let by_parts = in_parts(content_method, &properties, &body, frame_size_max);
            prop_assert_eq!(&by_parts, &stream[6..]);

            let mut prefix = Vec::new();
            encode_content_prefix(&mut prefix, content_method, &properties, body.len() as u64);
            prop_assert!(stream[6..].starts_with(&prefix));
        }
    }
}

/// All body frames but the last are full.
fn check_cuts(body_frames: &[usize], frame_size_max: u32) -> Result<(), TestCaseError> {
    let size_max = body_frame_size_max(frame_size_max) as usize;
    if let Some((last, full)) = body_frames.split_last() {
        prop_assert!(full.iter().all(|size| *size == size_max));
        prop_assert!(*last <= size_max);
    }
    Ok(())
}

/// The message put together from the frames and the body parts of the form by reference.
fn in_parts(
    method: ContentMethod<'_>,
    properties: &[u8],
    body: &[u8],
    frame_size_max: u32,
) -> Vec<u8> {
    let (mut out, mut parts) = (Vec::new(), Vec::new());
    let size = body.len() as u64;
    encode_content_parts(&mut out, method, properties, size, frame_size_max, |offset, range| {
        parts.push((offset, range.start as usize..range.end as usize));
    });
    let (mut whole, mut written) = (Vec::new(), 0);
    for (offset, range) in parts {
        whole.extend_from_slice(&out[written..offset]);
        whole.extend_from_slice(&body[range]);
        written = offset;
    }
    whole.extend_from_slice(&out[written..]);
    whole
}

#[test]
fn body_is_cut_at_the_frame_limit() {
    let publish = Publish {
        channel: 1,
        exchange: b"",
        routing_key: b"q",
        mandatory: false,
        immediate: false,
    };
    let sizes = |body_size: usize, frame_size_max| {
        let mut stream = Vec::new();
        let body = vec![1; body_size];
        encode_content(&mut stream, publish, NO_PROPERTIES, &body, frame_size_max);
        read_message(&stream, 1).body_frames
    };
    assert_eq!(sizes(0, 4096), [0; 0], "an empty body has no body frame");
    assert_eq!(sizes(1, 4096), [1]);
    assert_eq!(sizes(4088, 4096), [4088]);
    assert_eq!(sizes(4089, 4096), [4088, 1]);
    assert_eq!(sizes(8176, 4096), [4088, 4088]);
    assert_eq!(sizes(300_000, 0), [300_000]);
    assert_eq!(sizes(4089, 1), [4088, 1], "below the minimum counts as the minimum");
}

#[test]
fn long_names_are_cut_at_255_octets() {
    let name = [b'x'; 300];
    let deliver = Deliver {
        channel: 1,
        consumer_tag: &name,
        delivery_tag: 1,
        redelivered: false,
        exchange: &name,
        routing_key: &name,
    };
    let mut stream = Vec::new();
    encode_content(&mut stream, deliver, NO_PROPERTIES, b"b", 0);
    let message = read_message(&stream, 1);
    let Ok(Method::BasicDeliver(decoded)) = Method::decode(&message.method) else {
        panic!("not a deliver");
    };
    assert_eq!(decoded.routing_key, &name[..255]);
    assert_eq!(decoded.consumer_tag.len(), 255);
}

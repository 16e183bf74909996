//! Rows of publishing: the order of frames, sizes, properties.

use leveret_amqp::PropertiesBuilder;
use leveret_amqp::encoder;
use leveret_amqp::frame::{FRAME_BODY, FRAME_HEADER};
use leveret_amqp::method::{BasicPublish, ExchangeDeclare};
use leveret_amqp::{TableBuilder, TableRef};

use crate::frames::{content_header, publish};
use crate::row::Outcome::{self, ChannelClose, Close, Reply};
use crate::row::Row;
use crate::wire::{Wire, frame};

const fn same(name: &'static str, script: fn(&mut Wire), ours: Outcome) -> Row {
    Row { name, script, ours, rabbit: None }
}

const GOES_ON: Outcome = Reply("channel.flow-ok", "");
const UNEXPECTED: Outcome = Close(505, "UNEXPECTED_FRAME");

/// The order of frames and the size of bodies.
pub(crate) const ORDER_ROWS: &[Row] = &[
    same(
        "64: a method in the place of the header",
        |wire| {
            begin(wire);
            wire.ask();
        },
        Close(505, "expected content header for class 60, got non content header frame instead"),
    ),
    same(
        "65: a header without a publish",
        |wire| {
            wire.channel();
            wire.send(content_header(0));
        },
        Close(505, "expected method frame, got non method frame instead"),
    ),
    same(
        "66: a header of class queue",
        |wire| {
            begin(wire);
            wire.send(frame(FRAME_HEADER, 1, &[0, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        },
        UNEXPECTED,
    ),
    same(
        "67: weight 1",
        |wire| {
            begin(wire);
            wire.send(frame(FRAME_HEADER, 1, &[0, 60, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        },
        UNEXPECTED,
    ),
    same(
        "68: a header of 11 octets",
        |wire| {
            begin(wire);
            wire.send(frame(FRAME_HEADER, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        },
        Close(501, "FRAME_ERROR"),
    ),
    Row {
        name: "69: a body of 16 EiB",
        script: |wire| {
            begin(wire);
            wire.send(content_header(u64::MAX));
        },
        ours: Close(501, "FRAME_ERROR"),
        rabbit: Some(Outcome::Anything),
    },
    Row {
        name: "70: a body larger than a message may be",
        script: |wire| {
            begin(wire);
            wire.send(content_header(200 * 1024 * 1024));
        },
        ours: ChannelClose(
            406,
            "message size 209715200 is larger than configured max size 134217728",
        ),
        // It first collects the body.
        rabbit: Some(Outcome::Anything),
    },
    Row {
        name: "71: more body than declared",
        script: |wire| {
            begin(wire);
            wire.send(content_header(3));
            wire.send(frame(FRAME_BODY, 1, b"four"));
        },
        ours: Close(501, "FRAME_ERROR"),
        rabbit: Some(Outcome::Anything),
    },
    same(
        "72: less body than declared, then a method",
        |wire| {
            begin(wire);
            wire.send(content_header(5));
            wire.send(frame(FRAME_BODY, 1, b"four"));
            wire.ask();
        },
        Close(505, "expected content body, got non content body frame instead"),
    ),
    same(
        "73: empty body frames inside a body",
        |wire| {
            begin(wire);
            wire.send(content_header(2));
            for part in [&b""[..], b"a", b"", b"b"] {
                wire.send(frame(FRAME_BODY, 1, part));
            }
            wire.ask();
        },
        GOES_ON,
    ),
    same(
        "73: an empty body frame behind a body",
        |wire| {
            begin(wire);
            wire.send(content_header(1));
            wire.send(frame(FRAME_BODY, 1, b"a"));
            wire.send(frame(FRAME_BODY, 1, b""));
        },
        UNEXPECTED,
    ),
    same(
        "74: a body frame where none is expected",
        |wire| {
            begin(wire);
            wire.send(content_header(0));
            wire.send(frame(FRAME_BODY, 1, b"body"));
        },
        UNEXPECTED,
    ),
];

/// Properties.
pub(crate) const PROPERTY_ROWS: &[Row] = &[
    Row {
        name: "75: a property that is not there",
        // Content type is announced, its text is longer than the frame.
        script: |wire| with_properties(wire, b"\x80\x00\x0aplain"),
        ours: Close(501, "FRAME_ERROR"),
        rabbit: Some(Close(541, "INTERNAL_ERROR")),
    },
    Row {
        name: "75: headers that are no table",
        script: |wire| with_properties(wire, b"\x20\x00\0\0\0\x03\x01k?"),
        ours: Close(502, "SYNTAX_ERROR"),
        rabbit: Some(Close(541, "INTERNAL_ERROR")),
    },
    Row {
        name: "76: flags that go on",
        script: |wire| with_properties(wire, b"\x00\x01\x00\x00"),
        ours: GOES_ON,
        rabbit: Some(Close(541, "INTERNAL_ERROR")),
    },
    Row {
        name: "77: delivery mode 0",
        script: |wire| with_properties(wire, b"\x10\x00\x00"),
        ours: GOES_ON,
        rabbit: Some(ChannelClose(406, "invalid message: {delivery_mode_unknown,0}")),
    },
    Row {
        name: "77: delivery mode 255",
        script: |wire| with_properties(wire, b"\x10\x00\xff"),
        ours: GOES_ON,
        rabbit: Some(ChannelClose(406, "invalid message: {delivery_mode_unknown,255}")),
    },
    same("77: priority 255", |wire| with_properties(wire, b"\x08\x00\xff"), GOES_ON),
    same("78: expiration of letters", |wire| expiring(wire, b"abc"), INVALID_EXPIRATION),
    same("78: negative expiration", |wire| expiring(wire, b"-1"), INVALID_EXPIRATION),
    same("78: expiration with a fraction", |wire| expiring(wire, b"1.5"), INVALID_EXPIRATION),
    same("78: expiration in 35 years", |wire| expiring(wire, b"1099511627776"), INVALID_EXPIRATION),
    same(
        "79: the name of another user",
        |wire| {
            let properties = PropertiesBuilder { user_id: Some(b"mallory"), ..Default::default() };
            with_properties(wire, &properties.finish());
        },
        ChannelClose(
            406,
            "PRECONDITION_FAILED - user_id property set to 'mallory' but authenticated user was \
             'guest'",
        ),
    ),
    same(
        "81: immediate",
        |wire| {
            wire.channel();
            wire.method(1, &BasicPublish { immediate: true, ..publish(b"nowhere") });
            wire.send(content_header(0));
        },
        Close(540, "NOT_IMPLEMENTED - immediate=true"),
    ),
    same(
        "82: an exchange that is missing",
        |wire| {
            wire.channel();
            wire.method(1, &BasicPublish { exchange: b"bad.missing", ..publish(b"nowhere") });
            wire.send(content_header(0));
        },
        ChannelClose(404, "NOT_FOUND - no exchange 'bad.missing' in vhost '/'"),
    ),
    same(
        "83: an internal exchange",
        |wire| {
            wire.channel();
            wire.method(
                1,
                &ExchangeDeclare {
                    exchange: "bad.83",
                    kind: "fanout",
                    passive: false,
                    durable: false,
                    auto_delete: false,
                    internal: true,
                    nowait: false,
                    arguments: TableRef::default(),
                },
            );
            wire.expect("exchange.declare-ok");
            wire.method(1, &BasicPublish { exchange: b"bad.83", ..publish(b"nowhere") });
            wire.send(content_header(0));
        },
        ChannelClose(
            403,
            "ACCESS_REFUSED - cannot publish to internal exchange 'bad.83' in vhost '/'",
        ),
    ),
    same(
        "a table of headers that is fine",
        |wire| {
            let headers = TableBuilder::new().int("n", 1).finish();
            let properties =
                PropertiesBuilder { headers: Some(headers.as_ref()), ..Default::default() };
            with_properties(wire, &properties.finish());
        },
        GOES_ON,
    ),
];

const INVALID_EXPIRATION: Outcome = ChannelClose(406, "PRECONDITION_FAILED - invalid expiration '");

/// Opens a channel and publishes without content.
fn begin(wire: &mut Wire) {
    wire.channel();
    wire.method(1, &publish(b"nowhere"));
}

/// Publishes an empty body with these flags and values, and asks whether the channel goes on.
fn with_properties(wire: &mut Wire, properties: &[u8]) {
    begin(wire);
    let mut out = Vec::new();
    encoder::encode_content_header(1, 0, properties, &mut out);
    wire.send(out);
    wire.ask();
}

fn expiring(wire: &mut Wire, expiration: &[u8]) {
    let properties = PropertiesBuilder { expiration: Some(expiration), ..Default::default() };
    with_properties(wire, &properties.finish());
}

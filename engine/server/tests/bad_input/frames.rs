//! Rows of frames, of method encoding, and of which method may stand where.

use leveret_amqp::frame::{FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, frame_header};
use leveret_amqp::method::{
    BasicCancelOk, BasicPublish, ChannelCloseOk, ChannelFlow, ChannelOpen, ConnectionBlocked,
    ConnectionOpen, ConnectionStart, ConnectionTuneOk, QueueDeclareOk,
};
use leveret_amqp::{TableRef, encoder};

use crate::row::Outcome::{self, ChannelClose, Close, Cut, Reply};
use crate::row::{AT_ONCE, Row};
use crate::tables::{declare_with_table, raw_table};
use crate::wire::{Wire, frame, method_frame};

/// What the two brokers agree on.
const fn same(name: &'static str, script: fn(&mut Wire), ours: Outcome) -> Row {
    Row { name, script, ours, rabbit: None }
}

/// `RabbitMQ`'s reader crashes and cuts the connection; Leveret says why.
const fn instead_of_a_crash(name: &'static str, script: fn(&mut Wire), ours: Outcome) -> Row {
    Row { name, script, ours, rabbit: Some(Cut(AT_ONCE)) }
}

const FRAME_ERROR: Outcome = Close(501, "FRAME_ERROR");
const GOES_ON: Outcome = Reply("channel.flow-ok", "");

/// Frames on a connection that is open.
pub(crate) const FRAME_ROWS: &[Row] = &[
    same("14: type 0", |wire| after_open(wire, &frame(0, 1, b"")), FRAME_ERROR),
    same("14: type 4", |wire| after_open(wire, &frame(4, 1, b"")), FRAME_ERROR),
    same("14: type 9", |wire| after_open(wire, &frame(9, 1, b"")), FRAME_ERROR),
    same("14: type 255", |wire| after_open(wire, &frame(255, 0, b"x")), FRAME_ERROR),
    same(
        "15: wrong frame end",
        |wire| {
            let mut octets = method_frame(1, &ChannelOpen {});
            *octets.last_mut().expect("a frame has an end") = 0;
            after_open(wire, &octets);
        },
        FRAME_ERROR,
    ),
    same(
        "17: larger than frame_max",
        |wire| after_open(wire, &frame_header(FRAME_BODY, 1, 131_073)),
        FRAME_ERROR,
    ),
    same(
        "17: a payload of frame_max is forgiven",
        |wire| {
            wire.open_tuned(2047, 4096);
            wire.method(1, &ChannelOpen {});
            wire.send(publish_header(4096));
            wire.send(frame(FRAME_BODY, 1, &[b'x'; 4096]));
            wire.ask();
        },
        GOES_ON,
    ),
    same(
        "18: a size of 4 GiB",
        |wire| after_open(wire, &frame_header(FRAME_METHOD, 1, u32::MAX)),
        FRAME_ERROR,
    ),
    same(
        "20: less than declared, then the end",
        |wire| {
            wire.open();
            wire.send(frame_header(FRAME_METHOD, 1, 100));
            wire.finish_sending();
        },
        Outcome::Anything,
    ),
    same(
        "36: heartbeat on a channel",
        |wire| after_channel(wire, &frame(FRAME_HEARTBEAT, 1, b"")),
        Close(505, "UNEXPECTED_FRAME"),
    ),
    same(
        "37: heartbeat with a payload",
        |wire| after_open(wire, &frame(FRAME_HEARTBEAT, 0, b"thump")),
        FRAME_ERROR,
    ),
    same(
        "38: content header on channel 0",
        |wire| after_open(wire, &frame(FRAME_HEADER, 0, &[0; 14])),
        Close(505, "UNEXPECTED_FRAME"),
    ),
    same(
        "38: body on channel 0",
        |wire| after_open(wire, &frame(FRAME_BODY, 0, b"body")),
        Close(505, "UNEXPECTED_FRAME"),
    ),
];

/// Methods that cannot be read.
pub(crate) const METHOD_ROWS: &[Row] = &[
    same("21: empty", |wire| after_channel(wire, &frame(FRAME_METHOD, 1, b"")), FRAME_ERROR),
    same(
        "21: 3 octets",
        |wire| after_channel(wire, &frame(FRAME_METHOD, 1, b"\0\x32\0")),
        FRAME_ERROR,
    ),
    instead_of_a_crash(
        "22: unknown class",
        |wire| after_channel(wire, &frame(FRAME_METHOD, 1, &[0, 99, 0, 10])),
        Close(503, "COMMAND_INVALID"),
    ),
    instead_of_a_crash(
        "23: unknown method",
        |wire| after_channel(wire, &frame(FRAME_METHOD, 1, &[0, 50, 0, 99])),
        Close(503, "COMMAND_INVALID"),
    ),
    same(
        "24: truncated",
        |wire| after_channel(wire, &frame(FRAME_METHOD, 1, &[0, 50, 0, 10, 0, 0])),
        FRAME_ERROR,
    ),
    same(
        "24: octets behind",
        |wire| after_channel(wire, &frame(FRAME_METHOD, 1, &[0, 20, 0, 20, 1, 1])),
        FRAME_ERROR,
    ),
    same(
        "25: a name beyond the frame",
        |wire| after_channel(wire, &frame(FRAME_METHOD, 1, b"\0\x32\0\x0a\0\0\xffshort")),
        FRAME_ERROR,
    ),
    same(
        "26: a name that is not UTF-8",
        |wire| {
            after_channel(
                wire,
                &frame(FRAME_METHOD, 1, b"\0\x32\0\x0a\0\0\x02\xc3\x28\x02\0\0\0\0"),
            );
        },
        FRAME_ERROR,
    ),
    same(
        "27: a routing key that is not UTF-8",
        |wire| {
            wire.channel();
            wire.method(1, &publish(b"\xc3\x28"));
            wire.send(content_header(0));
            wire.ask();
        },
        GOES_ON,
    ),
    instead_of_a_crash(
        "29: unknown type in a table",
        |wire| declare_with_table(wire, "bad.29", &raw_table(b"\x01k?")),
        Close(502, "SYNTAX_ERROR"),
    ),
    instead_of_a_crash(
        "30: a table within a table beyond it",
        |wire| declare_with_table(wire, "bad.30", &raw_table(b"\x01kF\0\0\0\xff\x01")),
        Close(502, "SYNTAX_ERROR"),
    ),
    Row {
        name: "30: a table beyond the frame",
        script: |wire| {
            after_channel(wire, &frame(FRAME_METHOD, 1, b"\0\x32\0\x0a\0\0\x01q\0\0\0\0\xff\x01k"));
        },
        ours: Close(502, "SYNTAX_ERROR"),
        rabbit: Some(FRAME_ERROR),
    },
];

/// Methods where they do not belong.
pub(crate) const PLACE_ROWS: &[Row] = &[
    same(
        "54: open twice",
        |wire| {
            after_open(wire, &method_frame(0, &ConnectionOpen { virtual_host: "/" }));
        },
        Close(504, "unexpected method in connection state running"),
    ),
    same(
        "54: tune-ok twice",
        |wire| {
            let tune = ConnectionTuneOk { channel_max: 10, frame_max: 4096, heartbeat: 0 };
            after_open(wire, &method_frame(0, &tune));
        },
        Close(504, "unexpected method in connection state running"),
    ),
    same(
        "54: start by the client",
        |wire| {
            let start = ConnectionStart {
                version_major: 0,
                version_minor: 9,
                server_properties: TableRef::default(),
                mechanisms: b"PLAIN",
                locales: b"en_US",
            };
            after_open(wire, &method_frame(0, &start));
        },
        Close(504, "unexpected method in connection state running"),
    ),
    same(
        "55: a channel's method on channel 0",
        |wire| after_open(wire, &method_frame(0, &ChannelOpen {})),
        Close(504, "unexpected method in connection state running"),
    ),
    same(
        "56: a connection's method on a channel",
        |wire| {
            after_channel(wire, &method_frame(1, &ConnectionOpen { virtual_host: "/" }));
        },
        Close(503, "COMMAND_INVALID - unimplemented method"),
    ),
    same(
        "57: a channel that is not open",
        |wire| after_open(wire, &method_frame(7, &ChannelFlow { active: true })),
        Close(504, "CHANNEL_ERROR - expected 'channel.open'"),
    ),
    same(
        "58: open twice",
        |wire| after_channel(wire, &method_frame(1, &ChannelOpen {})),
        Close(504, "CHANNEL_ERROR - second 'channel.open' seen"),
    ),
    same(
        "59: a high channel number",
        |wire| after_open(wire, &method_frame(60_000, &ChannelOpen {})),
        Reply("channel.open-ok", ""),
    ),
    same(
        "60: too many channels",
        |wire| {
            wire.open_tuned(2, 131_072);
            for channel in 1..=3 {
                wire.method(channel, &ChannelOpen {});
            }
        },
        Close(530, "NOT_ALLOWED"),
    ),
    same(
        "62: close-ok unasked",
        |wire| after_channel(wire, &method_frame(1, &ChannelCloseOk {})),
        Close(503, "COMMAND_INVALID - unimplemented method"),
    ),
    same(
        "63: declare-ok by the client",
        |wire| {
            let ok = QueueDeclareOk { queue: "q", message_count: 0, consumer_count: 0 };
            after_channel(wire, &method_frame(1, &ok));
        },
        Close(503, "COMMAND_INVALID - unimplemented method"),
    ),
    same(
        "63: blocked by the client",
        |wire| {
            after_open(wire, &method_frame(0, &ConnectionBlocked { reason: "tired" }));
        },
        Close(504, "unexpected method in connection state running"),
    ),
    Row {
        name: "63: cancel-ok by the client",
        script: |wire| {
            wire.channel();
            wire.method(1, &BasicCancelOk { consumer_tag: "t" });
            wire.ask();
        },
        ours: GOES_ON,
        rabbit: Some(Close(503, "COMMAND_INVALID - unimplemented method")),
    },
    same(
        "61: frames after the server's channel.close",
        |wire| {
            wire.channel();
            wire.method(1, &leveret_amqp::method::BasicGet { queue: "bad.missing", no_ack: true });
            for _ in 0..3 {
                wire.method(1, &publish(b"swallowed"));
                wire.send(content_header(0));
            }
            wire.ask();
        },
        ChannelClose(404, "NOT_FOUND - no queue 'bad.missing' in vhost '/'"),
    ),
];

/// A publish to the default exchange, without its content.
pub(crate) const fn publish(routing_key: &[u8]) -> BasicPublish<'_> {
    BasicPublish { exchange: b"", routing_key, mandatory: false, immediate: false }
}

/// A content header frame without properties.
pub(crate) fn content_header(body_size: u64) -> Vec<u8> {
    let mut out = Vec::new();
    encoder::encode_content_header(1, body_size, &[0, 0], &mut out);
    out
}

fn publish_header(body_size: u64) -> Vec<u8> {
    let mut out = method_frame(1, &publish(b"nowhere"));
    out.extend(content_header(body_size));
    out
}

fn after_open(wire: &mut Wire, octets: &[u8]) {
    wire.open();
    wire.send(octets);
}

fn after_channel(wire: &mut Wire, octets: &[u8]) {
    wire.channel();
    wire.send(octets);
}

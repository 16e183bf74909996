//! Rows of the protocol header and of the time before `connection.open-ok`.

use std::thread;
use std::time::Duration;

use leveret_amqp::TableBuilder;
use leveret_amqp::frame::{FRAME_METHOD, PROTOCOL_HEADER, frame_header};
use leveret_amqp::method::{
    ChannelOpen, ConnectionOpen, ConnectionSecureOk, ConnectionTuneOk, ConnectionUpdateSecret,
};

use crate::row::Outcome::{self, Anything, Close, CloseOrCut, Cut, Header, Reply};
use crate::row::{AT_ONCE, HANDSHAKE, Row, SILENT};
use crate::wire::{Wire, guest, method_frame, plain, start_ok, start_ok_with};

const START: Outcome = Reply("connection.start", "version_minor: 9");
const OPENED: Outcome = Reply("connection.open-ok", "");
const OUR_HEADER: Outcome = Header(PROTOCOL_HEADER);

/// What the two brokers agree on.
const fn same(name: &'static str, script: fn(&mut Wire), ours: Outcome) -> Row {
    Row { name, script, ours, rabbit: None }
}

/// `RabbitMQ` waits in silence and cuts; Leveret waits as long, and says why.
const fn explained(name: &'static str, script: fn(&mut Wire), ours: Outcome) -> Row {
    Row { name, script, ours, rabbit: Some(Cut(SILENT)) }
}

/// Protocol headers.
pub(crate) const HEADER_ROWS: &[Row] = &[
    same("1", |wire| wire.send(PROTOCOL_HEADER), START),
    same("2: 0-9", |wire| wire.send(b"AMQP\x01\x01\x00\x09"), START),
    same("3: 0-9-2", |wire| wire.send(b"AMQP\x00\x00\x09\x02"), OUR_HEADER),
    same("3: 0-10", |wire| wire.send(b"AMQP\x00\x00\x0a\x00"), OUR_HEADER),
    same("4: 0-8", |wire| wire.send(b"AMQP\x00\x00\x08\x00"), OUR_HEADER),
    Row {
        name: "4: 0-8 of old clients",
        script: |wire| wire.send(b"AMQP\x01\x01\x08\x00"),
        ours: OUR_HEADER,
        rabbit: Some(Reply("connection.start", "version_major: 8")),
    },
    same("5: 1.0 with SASL", |wire| wire.send(b"AMQP\x03\x01\x00\x00"), OUR_HEADER),
    same("6: 1.0", |wire| wire.send(b"AMQP\x00\x01\x00\x00"), OUR_HEADER),
    same("7: garbage", |wire| wire.send(b"garbage!"), OUR_HEADER),
    same("8: HTTP", |wire| wire.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"), OUR_HEADER),
    same("9: TLS", |wire| wire.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), OUR_HEADER),
    same("10: a part of the header", |wire| wire.send(b"AMQP"), Cut(HANDSHAKE)),
    same("11: nothing", Wire::finish_sending, Cut(AT_ONCE)),
    same("12: only the header", Wire::start, Cut(HANDSHAKE)),
    same(
        "13: the header twice",
        |wire| {
            wire.start();
            wire.send(PROTOCOL_HEADER);
        },
        Cut(SILENT),
    ),
];

/// Logging in.
pub(crate) const LOGIN_ROWS: &[Row] = &[
    same(
        "16: wrong frame end",
        |wire| {
            wire.start();
            let mut frame = start_ok("PLAIN", &guest());
            *frame.last_mut().expect("a frame has an end") = 0;
            wire.send(frame);
        },
        Cut(SILENT),
    ),
    same(
        "19: a frame that is too large",
        |wire| {
            wire.start();
            wire.send(frame_header(FRAME_METHOD, 0, 9_000));
        },
        Cut(SILENT),
    ),
    explained(
        "35: unknown type in client properties",
        |wire| {
            wire.start();
            let mut frame = start_ok_with(
                &TableBuilder::new().bool("marked", true).finish(),
                "PLAIN",
                &guest(),
            );
            let letter = frame.windows(7).position(|part| part == b"markedt").expect("a field");
            frame[letter + 6] = b'?';
            wire.send(frame);
        },
        CloseOrCut(502),
    ),
    explained(
        "39: a channel before open-ok",
        |wire| {
            wire.log_in();
            wire.method(1, &ChannelOpen {});
        },
        CloseOrCut(505),
    ),
    explained(
        "40: unknown mechanism",
        |wire| {
            wire.start();
            wire.send(start_ok("ROT13", &guest()));
        },
        Close(503, "COMMAND_INVALID"),
    ),
    explained(
        "41: PLAIN without separators",
        |wire| {
            wire.start();
            wire.send(start_ok("PLAIN", b"guestguest"));
        },
        Close(502, "SYNTAX_ERROR"),
    ),
    explained(
        "41: a response of 5,000 octets",
        |wire| {
            wire.start();
            wire.send(start_ok("PLAIN", &plain(&"x".repeat(5_000))));
        },
        Close(502, "SYNTAX_ERROR"),
    ),
    same(
        "42: wrong password, with the capability",
        |wire| {
            wire.start();
            wire.send(start_ok("PLAIN", &plain("wrong")));
        },
        Close(403, REFUSED),
    ),
    same(
        "43: wrong password, without the capability",
        |wire| {
            wire.start();
            let properties = TableBuilder::new().finish();
            wire.send(start_ok_with(&properties, "PLAIN", &plain("wrong")));
        },
        Cut(SILENT),
    ),
    explained(
        "45: start-ok twice",
        |wire| {
            wire.log_in();
            wire.send(start_ok("PLAIN", &guest()));
        },
        CloseOrCut(504),
    ),
    explained(
        "45: secure-ok unasked",
        |wire| {
            wire.log_in();
            wire.method(0, &ConnectionSecureOk { response: b"" });
        },
        CloseOrCut(504),
    ),
];

const REFUSED: &str = "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. \
                       For details see the broker logfile.";

/// Limits and virtual hosts.
pub(crate) const TUNE_ROWS: &[Row] = &[
    explained(
        "46: open before tune-ok",
        |wire| {
            wire.log_in();
            wire.method(0, &ConnectionOpen { virtual_host: "/" });
        },
        Close(504, "CHANNEL_ERROR"),
    ),
    same("47: frame_max 4096", |wire| tune(wire, 2047, 4096, 0), OPENED),
    explained(
        "47: frame_max 4095",
        |wire| tune(wire, 2047, 4095, 0),
        Close(530, "negotiated frame_max = 4095 is lower than the minimum allowed value (4096)"),
    ),
    explained(
        "48: frame_max above ours",
        |wire| tune(wire, 2047, 200_000, 0),
        Close(530, "frame_max = 200000 is higher than the maximum allowed value (131072)"),
    ),
    explained(
        "48: frame_max 0",
        |wire| tune(wire, 2047, 0, 0),
        Close(530, "frame_max = 0 is higher than the maximum allowed value (131072)"),
    ),
    explained(
        "49: channel_max 0",
        |wire| tune(wire, 0, 131_072, 0),
        Close(530, "channel_max = 0 (no limit) is higher than the maximum allowed value (2047)"),
    ),
    explained(
        "49: channel_max above ours",
        |wire| tune(wire, 3000, 131_072, 0),
        Close(530, "channel_max = 3000 is higher than the maximum allowed value (2047)"),
    ),
    same("50: no heartbeat", |wire| tune(wire, 2047, 131_072, 0), OPENED),
    same("50: a heartbeat in 18 hours", |wire| tune(wire, 2047, 131_072, 65_535), OPENED),
    same(
        "51: unknown vhost",
        |wire| {
            wire.log_in();
            wire.method(0, &TUNE_OK);
            wire.method(0, &ConnectionOpen { virtual_host: "nowhere" });
        },
        Close(530, "NOT_ALLOWED - vhost nowhere not found"),
    ),
    same(
        "110: everything in one packet",
        |wire| {
            let mut all = PROTOCOL_HEADER.to_vec();
            all.extend(start_ok("PLAIN", &guest()));
            all.extend(method_frame(0, &TUNE_OK));
            all.extend(method_frame(0, &ConnectionOpen { virtual_host: "/" }));
            all.extend(method_frame(1, &ChannelOpen {}));
            wire.send(all);
        },
        Reply("channel.open-ok", ""),
    ),
    same(
        "111: octet by octet",
        |wire| {
            let pause = Duration::from_millis(2);
            wire.send_slowly(PROTOCOL_HEADER, pause);
            wire.expect("connection.start");
            wire.send_slowly(&start_ok("PLAIN", &guest()), pause);
            wire.send_slowly(&method_frame(0, &TUNE_OK), pause);
            wire.send_slowly(&method_frame(0, &ConnectionOpen { virtual_host: "/" }), pause);
            wire.send_slowly(&method_frame(1, &ChannelOpen {}), pause);
        },
        Reply("channel.open-ok", ""),
    ),
    same(
        "112: a new secret",
        |wire| {
            wire.open();
            wire.method(0, &ConnectionUpdateSecret { new_secret: b"wrong", reason: "test" });
        },
        // A password does not expire, so it is not looked at.
        Reply("connection.update-secret-ok", ""),
    ),
    same(
        "a client that is gone in the middle",
        |wire| {
            wire.open();
            wire.send(&method_frame(1, &ChannelOpen {})[..5]);
            thread::sleep(Duration::from_millis(20));
            wire.finish_sending();
        },
        Anything,
    ),
];

const TUNE_OK: ConnectionTuneOk =
    ConnectionTuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 0 };

fn tune(wire: &mut Wire, channel_max: u16, frame_max: u32, heartbeat: u16) {
    wire.log_in();
    wire.method(0, &ConnectionTuneOk { channel_max, frame_max, heartbeat });
    wire.method(0, &ConnectionOpen { virtual_host: "/" });
}

//! Every way through the handshake, and every way out of it, as a table.

use std::sync::Arc;

use leveret_amqp::frame::{FRAME_BODY, FRAME_HEARTBEAT, PROTOCOL_HEADER};
use leveret_amqp::method::{
    BasicQos, ChannelOpen, ConnectionClose, ConnectionOpen, ConnectionSecureOk, ConnectionStart,
    ConnectionStartOk, ConnectionUpdateSecret,
};
use leveret_amqp::sasl::{Credentials, encode_amqplain, encode_plain};
use leveret_amqp::{Decoder, Frame, MethodError, TableBuilder};
use proptest::prelude::*;

use crate::catalog::user::{PasswordHash, User};
use crate::routing::change::{Change, Delta};

use super::*;

const LOCAL: &str = "127.0.0.1:40000";
const REMOTE: &str = "192.0.2.7:40000";

/// One connection and the broker it talks to.
struct Peer {
    topology: Topology,
    settings: Settings,
    handshake: Handshake,
    out: Vec<u8>,
}

impl Peer {
    fn new(address: &str) -> Self {
        let mut topology = Topology::with_presets(1, 1);
        let user = User {
            name: Name::from("stranger"),
            password: Some(PasswordHash::new([1, 2, 3, 4], b"secret")),
            tags: Vec::new(),
            loopback_only: false,
        };
        topology.apply(&Delta { sequence: 1, change: Change::UserPut(Arc::new(user)) });
        Self {
            topology,
            settings: Settings::for_host("test"),
            handshake: Handshake::new(address.parse().unwrap()),
            out: Vec::new(),
        }
    }

    fn local() -> Self {
        Self::new(LOCAL)
    }

    fn header(&mut self, bytes: [u8; 8]) -> Step {
        self.out.clear();
        self.handshake.header(&bytes, &self.settings, &mut self.out)
    }

    fn send<'a>(&mut self, method: impl Into<Method<'a>>) -> Step {
        self.send_on(0, method)
    }

    fn send_on<'a>(&mut self, channel: u16, method: impl Into<Method<'a>>) -> Step {
        self.out.clear();
        let method = method.into();
        let (topology, settings) = (&self.topology, &self.settings);
        self.handshake.method(channel, &method, topology, settings, &mut self.out)
    }

    /// Goes on to a state without a fault.
    fn reach(address: &str, state: &str) -> Self {
        let mut peer = Self::new(address);
        assert!(matches!(peer.header(*PROTOCOL_HEADER), Step::Continue));
        if state == "starting" {
            return peer;
        }
        assert!(matches!(peer.send(start_ok("PLAIN", b"\0guest\0guest")), Step::Continue));
        if state == "tuning" {
            return peer;
        }
        assert!(matches!(peer.send(tune_ok(2047, 131_072, 60)), Step::Continue));
        assert_eq!(state, "opening");
        peer
    }
}

fn start_ok<'a>(mechanism: &'a str, response: &'a [u8]) -> ConnectionStartOk<'a> {
    let client_properties = TableRef::EMPTY;
    ConnectionStartOk { client_properties, mechanism, response, locale: "en_US" }
}

fn tune_ok(channel_max: u16, frame_max: u32, heartbeat: u16) -> ConnectionTuneOk {
    ConnectionTuneOk { channel_max, frame_max, heartbeat }
}

fn open(virtual_host: &str) -> ConnectionOpen<'_> {
    ConnectionOpen { virtual_host }
}

fn capable() -> OwnedTable {
    let capabilities = TableBuilder::new()
        .bool("authentication_failure_close", true)
        .bool("consumer_cancel_notify", true)
        .bool("basic.nack", false)
        .int("connection.blocked", 1)
        .finish();
    TableBuilder::new()
        .long_str("product", "hare")
        .table("capabilities", &capabilities)
        .long_str("connection_name", "the name")
        .finish()
}

/// The kind of a step and its exception: `Close 530 (10,30) text`.
fn show(step: &Step) -> String {
    let told = |kind: &str, error: &Exception| {
        let (class, method) = error.method;
        format!("{kind} {} ({class},{method}) {}", error.code.code(), error.explanation)
    };
    match step {
        Step::Continue => "Continue".into(),
        Step::Opened(_) => "Opened".into(),
        Step::Close(error) => told("Close", error),
        Step::CloseLater(error) => told("CloseLater", error),
        Step::CutLater(error) => told("CutLater", error),
        Step::Cut(fault) => format!("Cut {fault}"),
    }
}

/// Bad inputs 1 to 9 of the list.
#[test]
fn protocol_headers() {
    let cases: [(&[u8; 8], &str); 14] = [
        (b"AMQP\0\0\x09\x01", "Continue"),
        (b"AMQP\x01\x01\0\x09", "Continue"),
        (b"AMQP\0\0\x09\x02", "Cut AMQP version 0 0 9 2 is not 0-9-1"),
        (b"AMQP\0\0\x0a\0", "Cut AMQP version 0 0 10 0 is not 0-9-1"),
        (b"AMQP\0\0\x08\0", "Cut AMQP version 0 0 8 0 is not 0-9-1"),
        (b"AMQP\x01\x01\x08\0", "Cut AMQP version 1 1 8 0 is not 0-9-1"),
        (b"AMQP\x01\x01\x09\x01", "Cut AMQP version 1 1 9 1 is not 0-9-1"),
        (b"AMQP\x03\x01\0\0", "Cut AMQP version 3 1 0 0 is not 0-9-1"),
        (b"AMQP\0\x01\0\0", "Cut AMQP version 0 1 0 0 is not 0-9-1"),
        (b"garbage\xff", "Cut no AMQP header: \"garbage\\xff\""),
        (b"amqp\0\0\x09\x01", "Cut no AMQP header: \"amqp\\x00\\x00\\t\\x01\""),
        (b"GET / HT", "Cut HTTP request received instead of an AMQP header"),
        (b"OPTIONS ", "Cut HTTP request received instead of an AMQP header"),
        (b"\x16\x03\x01\x02\0\x01\0\x01", "Cut TLS client detected on a port without TLS"),
    ];
    for (bytes, expected) in cases {
        let mut peer = Peer::local();
        assert_eq!(show(&peer.header(*bytes)), expected);
        if expected != "Continue" {
            assert_eq!(peer.out, PROTOCOL_HEADER, "the answer is the version we speak");
        }
    }
}

#[test]
fn a_second_header_is_no_frame() {
    let mut peer = Peer::reach(LOCAL, "starting");
    assert_eq!(show(&peer.header(*PROTOCOL_HEADER)), "CutLater 501 (0,0) second protocol header");
}

#[test]
fn start_says_what_we_can() {
    let mut peer = Peer::local();
    peer.header(*PROTOCOL_HEADER);
    assert!(peer.out.len() < 4096, "fits the smallest frame a client must take");
    let start = read::<1>(&peer.out);
    let Method::ConnectionStart(ConnectionStart {
        version_major: 0,
        version_minor: 9,
        server_properties,
        mechanisms: b"PLAIN AMQPLAIN",
        locales: b"en_US",
    }) = start[0]
    else {
        panic!("{start:?}");
    };
    assert_eq!(server_properties.get("product"), Some(Value::LongStr(b"Leveret")));
    assert_eq!(server_properties.get("cluster_name"), Some(Value::LongStr(b"leveret@test")));
    let version = env!("CARGO_PKG_VERSION").as_bytes();
    assert_eq!(server_properties.get("version"), Some(Value::LongStr(version)));
    let Some(Value::Table(capabilities)) = server_properties.get("capabilities") else {
        panic!("{server_properties:?}");
    };
    let names: Vec<_> = capabilities.iter().map(|(name, _)| name).collect();
    assert_eq!(names, CAPABILITIES.map(str::as_bytes));
    assert!(capabilities.iter().all(|(_, value)| value == Value::Bool(true)));
    let keys: Vec<_> = server_properties.iter().map(|(name, _)| name).collect();
    assert!(keys.is_sorted(), "RabbitMQ sorts them");
}

/// The longest texts the settings allow still fit the smallest frame.
#[test]
fn start_is_bounded() {
    let mut peer = Peer::local();
    let longest = "x".repeat(crate::settings::SERVER_PROPERTY_SIZE_MAX_BYTES);
    peer.settings.product.clone_from(&longest);
    peer.settings.version.clone_from(&longest);
    peer.settings.platform.clone_from(&longest);
    peer.settings.copyright.clone_from(&longest);
    peer.settings.information.clone_from(&longest);
    peer.settings.cluster_name = longest;
    assert_eq!(peer.settings.validate(), Ok(()));
    peer.header(*PROTOCOL_HEADER);
    assert!(peer.out.len() <= 4096);
}

#[test]
fn the_whole_way() {
    let amqplain = encode_amqplain(Credentials { username: b"guest", password: b"guest" });
    let plain = encode_plain(Credentials { username: b"guest", password: b"guest" });
    for (header, mechanism, response) in
        [(b"AMQP\0\0\x09\x01", "PLAIN", plain), (b"AMQP\x01\x01\0\x09", "AMQPLAIN", amqplain)]
    {
        let mut peer = Peer::local();
        assert_eq!(show(&peer.header(*header)), "Continue");
        assert!(matches!(peer.handshake.heartbeat(), Step::Continue));
        let properties = capable();
        let mut login = start_ok(mechanism, &response);
        login.client_properties = properties.as_ref();
        assert_eq!(show(&peer.send(login)), "Continue");
        assert_eq!(
            read::<1>(&peer.out),
            [Method::from(ConnectionTune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 })]
        );
        assert_eq!(show(&peer.send(tune_ok(7, 4096, 65_535))), "Continue");
        assert!(peer.out.is_empty());
        let Step::Opened(opened) = peer.send(open("/")) else { panic!("not opened") };
        assert_eq!(read::<1>(&peer.out), [Method::from(ConnectionOpenOk {})]);
        assert_eq!(opened.user, "guest");
        assert_eq!(opened.mechanism, mechanism);
        assert_eq!(opened.vhost, peer.topology.vhost_id("/").unwrap());
        assert_eq!(opened.vhost_name, "/");
        assert_eq!(
            (opened.channel_max, opened.frame_size_max, opened.heartbeat_s),
            (7, 4096, 65_535)
        );
        assert_eq!(
            opened.capabilities,
            ClientCapabilities {
                authentication_failure_close: true,
                consumer_cancel_notify: true,
                ..ClientCapabilities::default()
            },
            "a false or an integer is no capability"
        );
        assert_eq!(opened.connection_name(), Some("the name"));
        assert_eq!(opened.client_text("product"), Some("hare"));
        assert_eq!(opened.client_text("version"), None);
        assert_eq!(opened.client_properties, properties);
    }
}

const TOLD: &str = "Close 403 (0,0) Login was refused using authentication mechanism PLAIN. \
                    For details see the broker logfile.";
const WRONG: &str = "PLAIN login refused: user 'guest' - invalid credentials";

/// Logs in with `PLAIN` and returns the step and the reason for the log.
fn log_in_from(address: &str, is_capable: bool, response: &[u8]) -> (String, Option<String>) {
    let mut peer = Peer::reach(address, "starting");
    let properties = if is_capable { capable() } else { OwnedTable::default() };
    let mut login = start_ok("PLAIN", response);
    login.client_properties = properties.as_ref();
    let step = show(&peer.send(login));
    (step, peer.handshake.refusal().map(str::to_owned))
}

/// Bad inputs 42 and 43 of the list.
#[test]
fn wrong_passwords() {
    let long = [&b"\0guest\0"[..], &[b'x'; RESPONSE_SIZE_MAX_BYTES - 7]].concat();
    let wrong: [&[u8]; 4] = [b"\0guest\0wrong", b"\0guest\0Guest", b"\0guest\0", &long];
    for response in wrong {
        let told = (TOLD.to_owned(), Some(WRONG.to_owned()));
        assert_eq!(log_in_from(LOCAL, true, response), told);
        // A name or an address that is wrong too changes nothing.
        assert_eq!(log_in_from(REMOTE, true, response), told);
        let untold = (TOLD.replace("Close", "CutLater"), Some(WRONG.to_owned()));
        assert_eq!(log_in_from(LOCAL, false, response), untold);
    }
    for (name, shown) in [(&b"nobody"[..], "nobody"), (b"\xff", "\u{fffd}"), (b"", "")] {
        let response = encode_plain(Credentials { username: name, password: b"guest" });
        let told = (TOLD.to_owned(), Some(WRONG.replace("guest", shown)));
        assert_eq!(log_in_from(LOCAL, true, &response), told);
    }
}

/// Bad input 44 of the list.
#[test]
fn guests_from_elsewhere() {
    let reason = "PLAIN login refused: user 'guest' can only connect via localhost".to_owned();
    let told = (TOLD.to_owned(), Some(reason.clone()));
    assert_eq!(log_in_from(REMOTE, true, b"\0guest\0guest"), told);
    let untold = (TOLD.replace("Close", "CutLater"), Some(reason));
    assert_eq!(log_in_from(REMOTE, false, b"\0guest\0guest"), untold);
    let let_in = ("Continue".to_owned(), None);
    assert_eq!(log_in_from(LOCAL, true, b"\0guest\0guest"), let_in);
    assert_eq!(log_in_from(REMOTE, true, b"\0stranger\0secret"), let_in);
}

#[test]
fn loopback_through_an_ipv6_socket_is_loopback() {
    for (address, expected) in [
        ("[::ffff:127.0.0.1]:5", "Continue"),
        ("[::1]:5", "Continue"),
        ("127.9.9.9:5", "Continue"),
        ("[::ffff:10.0.0.1]:5", "CutLater 403"),
        ("[2001:db8::1]:5", "CutLater 403"),
    ] {
        let mut peer = Peer::reach(address, "starting");
        let step = show(&peer.send(start_ok("PLAIN", b"\0guest\0guest")));
        assert!(step.starts_with(expected), "{address}: {step}");
    }
}

/// Bad inputs 40 and 41 of the list.
#[test]
fn logins_that_make_no_sense() {
    let too_long = [b'x'; RESPONSE_SIZE_MAX_BYTES + 1];
    let login_only = TableBuilder::new().long_str("LOGIN", "guest").finish();
    let number = TableBuilder::new().long_str("LOGIN", "guest").int("PASSWORD", 1).finish();
    let cases: [(&str, &[u8], &str); 10] = [
        ("FOO", b"", "503 (10,11) unknown authentication mechanism 'FOO'"),
        ("plain", b"\0guest\0guest", "503 (10,11) unknown authentication mechanism 'plain'"),
        ("EXTERNAL", b"", "503 (10,11) unknown authentication mechanism 'EXTERNAL'"),
        ("PLAIN", b"guestguest", "502 (10,11) PLAIN response is malformed"),
        ("PLAIN", b"", "502 (10,11) PLAIN response is malformed"),
        ("PLAIN", b"\0guest\0guest\0", "502 (10,11) PLAIN response is malformed"),
        (
            "PLAIN",
            b"other\0guest\0guest",
            "502 (10,11) PLAIN response asks for another authorization identity",
        ),
        ("PLAIN", &too_long, "502 (10,11) response of 4097 bytes is too large"),
        (
            "AMQPLAIN",
            login_only.as_bytes(),
            "502 (10,11) AMQPLAIN auth info is missing LOGIN or PASSWORD field",
        ),
        (
            "AMQPLAIN",
            number.as_bytes(),
            "502 (10,11) AMQPLAIN auth info is missing LOGIN or PASSWORD field",
        ),
    ];
    for (mechanism, response, expected) in cases {
        let mut peer = Peer::reach(LOCAL, "starting");
        let step = show(&peer.send(start_ok(mechanism, response)));
        assert_eq!(step, format!("CloseLater {expected}"));
        assert_eq!(peer.handshake.refusal(), None);
    }
    let mut peer = Peer::reach(LOCAL, "starting");
    let step = show(&peer.send(start_ok("AMQPLAIN", b"\xff\xff")));
    assert!(step.starts_with("CloseLater 502 (10,11) AMQPLAIN response is malformed"), "{step}");
}

/// Bad inputs 47 to 50 of the list.
#[test]
fn tuning() {
    let cases = [
        ((2047, 131_072, 60), "Continue"),
        ((1, 4096, 0), "Continue"),
        ((2047, 8191, 65_535), "Continue"),
        (
            (0, 131_072, 60),
            "Close 530 (10,30) negotiated channel_max = 0 (no limit) is higher than the maximum \
             allowed value (2047)",
        ),
        (
            (2048, 131_072, 60),
            "Close 530 (10,30) negotiated channel_max = 2048 is higher than the maximum allowed \
             value (2047)",
        ),
        (
            (2047, 0, 60),
            "Close 530 (10,30) negotiated frame_max = 0 is higher than the maximum allowed value \
             (131072)",
        ),
        (
            (2047, 131_073, 60),
            "Close 530 (10,30) negotiated frame_max = 131073 is higher than the maximum allowed \
             value (131072)",
        ),
        (
            (2047, 4095, 60),
            "Close 530 (10,30) negotiated frame_max = 4095 is lower than the minimum allowed \
             value (4096)",
        ),
        (
            (2047, 1, 60),
            "Close 530 (10,30) negotiated frame_max = 1 is lower than the minimum allowed value \
             (4096)",
        ),
    ];
    for ((channel_max, frame_max, heartbeat), expected) in cases {
        let mut peer = Peer::reach(LOCAL, "tuning");
        assert_eq!(show(&peer.send(tune_ok(channel_max, frame_max, heartbeat))), expected);
        assert!(peer.out.is_empty());
    }
}

/// Bad inputs 51 and 52 of the list.
#[test]
fn virtual_hosts() {
    for (user, vhost, expected) in [
        (b"\0guest\0guest".as_slice(), "/", "Opened"),
        (b"\0guest\0guest", "nope", "Close 530 (10,40) vhost nope not found"),
        (b"\0guest\0guest", "", "Close 530 (10,40) vhost  not found"),
        (b"\0stranger\0secret", "nope", "Close 530 (10,40) vhost nope not found"),
        (
            b"\0stranger\0secret",
            "/",
            "Close 530 (10,40) access to vhost '/' refused for user 'stranger'",
        ),
    ] {
        let mut peer = Peer::reach(LOCAL, "starting");
        peer.send(start_ok("PLAIN", user));
        peer.send(tune_ok(2047, 131_072, 60));
        assert_eq!(show(&peer.send(open(vhost))), expected);
    }
}

/// Bad inputs 45, 46 and 54 of the list, and all else that is not next in line.
#[test]
fn methods_out_of_turn() {
    let methods: [(&str, Method<'_>); 9] = [
        ("starting", start_ok("PLAIN", b"\0guest\0guest").into()),
        ("", ConnectionSecureOk { response: b"" }.into()),
        ("tuning", tune_ok(2047, 131_072, 60).into()),
        ("opening", open("/").into()),
        ("", ConnectionTune { channel_max: 0, frame_max: 0, heartbeat: 0 }.into()),
        ("", ConnectionUpdateSecret { new_secret: b"x", reason: "" }.into()),
        ("", ConnectionClose { reply_code: 200, reply_text: "", class_id: 0, method_id: 0 }.into()),
        ("", ChannelOpen {}.into()),
        ("", BasicQos { prefetch_size: 0, prefetch_count: 1, global: false }.into()),
    ];
    for (state, kind) in [("starting", "CloseLater"), ("tuning", "Close"), ("opening", "Close")] {
        for (fits, method) in &methods {
            let mut peer = Peer::reach(LOCAL, state);
            let step = show(&peer.send(*method));
            if *fits == state {
                assert!(step == "Continue" || step == "Opened", "{step}");
                continue;
            }
            let (class, id) = method.ids();
            let text = format!("unexpected method in connection state {state}");
            assert_eq!(step, format!("{kind} 504 ({class},{id}) {text}"));
        }
    }
}

/// Bad inputs 39, 36 and 38 of the list.
#[test]
fn frames_out_of_turn() {
    for (state, kind) in [("starting", "CloseLater"), ("tuning", "Close"), ("opening", "Close")] {
        let step = Peer::reach(LOCAL, state).send_on(1, ChannelOpen {});
        let text = "type 1, all octets = <<0,20,0,10,0>>";
        assert_eq!(show(&step), format!("{kind} 505 (0,0) {text}"));
        // What is right on channel 0 is wrong on another.
        let step = Peer::reach(LOCAL, state).send_on(1, open("/"));
        assert!(show(&step).starts_with(&format!("{kind} 505")));
        let step = Peer::reach(LOCAL, state).handshake.unexpected_frame(FRAME_BODY, b"abc");
        let text = "type 3, all octets = <<\"abc\">>";
        assert_eq!(show(&step), format!("{kind} 505 (0,0) {text}"));
        let step = Peer::reach(LOCAL, state).handshake.unexpected_frame(FRAME_HEARTBEAT, b"");
        assert_eq!(show(&step), format!("{kind} 505 (0,0) type 8, all octets = <<>>"));
    }
}

/// Bad inputs 13, 16, 19 and 35 of the list, through the decoder as a connection uses it.
#[test]
fn bytes_that_are_no_frame() {
    let mut bad_end = Vec::new();
    encode_frame(0, &start_ok("PLAIN", b"\0guest\0guest"), &mut bad_end);
    *bad_end.last_mut().unwrap() = b'x';
    let streams: [(&[u8], &str); 4] = [
        (PROTOCOL_HEADER, "header sent twice"),
        (b"\x01\0\0\0\0\x20\x10", "8208 bytes declared"),
        (b"\x01\0\0\xff\xff\xff\xff", "4 GiB declared"),
        (&bad_end, "wrong end octet"),
    ];
    for (stream, what) in streams {
        for (state, kind) in
            [("starting", "CutLater 501"), ("tuning", "CutLater 501"), ("opening", "Close 501")]
        {
            let mut decoder = Decoder::new(HANDSHAKE_FRAME_SIZE_MAX);
            let error = decoder.next(stream, &mut 0).unwrap_err();
            let error = Exception::new(error.reply_code(), error.to_string());
            let step = show(&Peer::reach(LOCAL, state).handshake.refuse(error));
            assert!(step.starts_with(kind), "{what} in {state}: {step}");
        }
    }
    let unknown_letter = [b"\0\x0a\0\x0b\0\0\0\x03\x01aZ".as_slice(), b"\0\0\0\0\0\0"].concat();
    let error = Method::decode(&unknown_letter).unwrap_err();
    assert!(matches!(error, MethodError::Table(_)), "{error}");
    let error = Exception::new(error.reply_code(), error.to_string()).of((10, 11));
    let step = show(&Peer::reach(LOCAL, "starting").handshake.refuse(error));
    assert!(step.starts_with("CloseLater 502 (10,11)"), "{step}");
}

#[test]
fn heartbeats_are_borne_but_not_for_ever() {
    let mut peer = Peer::reach(LOCAL, "starting");
    for _ in 0..HANDSHAKE_HEARTBEAT_COUNT_MAX {
        assert!(matches!(peer.handshake.heartbeat(), Step::Continue));
    }
    assert_eq!(show(&peer.send(start_ok("PLAIN", b"\0guest\0guest"))), "Continue");
    assert_eq!(show(&peer.handshake.heartbeat()), "Close 505 (0,0) type 8, all octets = <<>>");
}

#[test]
fn a_secret_is_renewed_for_those_who_may_still_enter() {
    let topology = Peer::local().topology;
    let mut out = Vec::new();
    assert_eq!(update_secret("guest", "/", &topology, &mut out), Ok(()));
    assert_eq!(out, [1, 0, 0, 0, 0, 0, 4, 0, 10, 0, 71, 0xCE]);
    out.clear();
    for (user, vhost, text) in [
        ("gone", "/", "New secret was refused by one of the backends"),
        ("stranger", "/", "access to vhost '/' refused for user 'stranger'"),
        ("guest", "gone", "vhost gone not found"),
    ] {
        let error = update_secret(user, vhost, &topology, &mut out).unwrap_err();
        assert_eq!(error, Exception::not_allowed(text).of((10, 70)));
        assert!(out.is_empty());
    }
}

/// Whole methods on channel 0.
fn read<const N: usize>(bytes: &[u8]) -> [Method<'_>; N] {
    let mut frames = bytes;
    std::array::from_fn(|index| {
        let size = u32::from_be_bytes(frames[3..7].try_into().unwrap()) as usize;
        let (frame, rest) = frames.split_at(size + 8);
        assert_eq!((&frame[..3], frame[size + 7]), ([1, 0, 0].as_slice(), 0xCE));
        frames = rest;
        assert_eq!(rest.is_empty(), index + 1 == N);
        Method::decode(&frame[7..size + 7]).unwrap()
    })
}

proptest! {
    /// No sequence of bytes panics, and none is let in without the password.
    #[test]
    fn hostile_bytes_end_the_handshake_or_wait(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        state in prop_oneof![Just("starting"), Just("tuning"), Just("opening")],
        kind in prop_oneof![Just(1_u8), any::<u8>()],
        method in 0..80_u8,
    ) {
        let mut peer = Peer::reach(LOCAL, state);
        let mut stream = vec![kind, 0, 0, 0, 0, 0, 4 + bytes.len() as u8, 0, 10, 0, method];
        stream.extend_from_slice(&bytes);
        stream.push(0xCE);
        let mut decoder = Decoder::new(HANDSHAKE_FRAME_SIZE_MAX);
        let mut cursor = 0;
        let step = match decoder.next(&stream, &mut cursor) {
            Ok(Some(Frame::Method { channel, payload })) => match Method::decode(payload) {
                Ok(method) => {
                    let (topology, settings) = (&peer.topology, &peer.settings);
                    peer.handshake.method(channel, &method, topology, settings, &mut peer.out)
                }
                Err(error) => {
                    let error = Exception::new(error.reply_code(), error.to_string());
                    peer.handshake.refuse(error)
                }
            },
            Ok(_) => Step::Continue,
            Err(error) => {
                let error = Exception::new(error.reply_code(), error.to_string());
                peer.handshake.refuse(error)
            }
        };
        if let Step::Opened(opened) = step {
            prop_assert_eq!(state, "opening");
            prop_assert_eq!(opened.user, "guest");
        }
    }
}

//! A raw client: sends any octets, reads what comes until the broker has made up its mind.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use leveret_amqp::frame::{FRAME_END, PROTOCOL_HEADER, frame_header};
use leveret_amqp::method::{
    ChannelFlow, ChannelOpen, ConnectionCloseOk, ConnectionOpen, ConnectionStartOk,
    ConnectionTuneOk, Encode, encode_frame,
};
use leveret_amqp::sasl::{Credentials, encode_plain};
use leveret_amqp::{Decoder, Frame, Method, OwnedTable, TableBuilder};

/// Longer than the longest timeout of a broker that is tested here: 10 s for the handshake.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was seen last, and everything before it that is worth a word.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) end: End,
    /// Time from the last octet sent.
    pub(crate) after: Duration,
    /// The names of the methods that came before.
    pub(crate) before: Vec<&'static str>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// `connection.close`
    Close { code: u16, text: String, ids: (u16, u16) },
    /// `channel.close`
    ChannelClose { code: u16, text: String, ids: (u16, u16) },
    /// A protocol header, and then the end of the stream.
    Header([u8; 8]),
    /// The end of the stream.
    Cut,
    /// The method that was waited for, with its fields.
    Reply(String),
    /// Nothing.
    Silence,
    /// Octets that are not AMQP.
    Garbled(String),
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    /// Octets that came and were not read yet.
    input: Vec<u8>,
    decoder: Decoder,
    sent_at: Instant,
}

impl Wire {
    /// Connects, and sends nothing.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the broker listens");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
        Self { stream, input: Vec::new(), decoder: Decoder::new(131_072), sent_at: Instant::now() }
    }

    /// Sends octets as they are. That the broker stopped reading shows later.
    pub(crate) fn send(&mut self, octets: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(octets.as_ref());
        self.sent_at = Instant::now();
    }

    /// Sends octets one by one.
    pub(crate) fn send_slowly(&mut self, octets: &[u8], pause: Duration) {
        for octet in octets {
            self.send([*octet]);
            thread::sleep(pause);
        }
    }

    /// Sends a method.
    pub(crate) fn method(&mut self, channel: u16, method: &impl Encode) {
        self.send(method_frame(channel, method));
    }

    /// The protocol header, and waits for `connection.start`.
    pub(crate) fn start(&mut self) {
        self.send(PROTOCOL_HEADER);
        self.expect("connection.start");
    }

    /// Logs in, and waits for `connection.tune`.
    pub(crate) fn log_in(&mut self) {
        self.start();
        self.send(start_ok("PLAIN", &guest()));
        self.expect("connection.tune");
    }

    /// A connection that is ready.
    pub(crate) fn open(&mut self) {
        self.open_tuned(2047, 131_072);
    }

    /// A connection that is ready, with limits.
    pub(crate) fn open_tuned(&mut self, channel_max: u16, frame_max: u32) {
        self.log_in();
        self.method(0, &ConnectionTuneOk { channel_max, frame_max, heartbeat: 0 });
        self.method(0, &ConnectionOpen { virtual_host: "/" });
        self.expect("connection.open-ok");
    }

    /// A connection with an open channel 1.
    pub(crate) fn channel(&mut self) {
        self.open();
        self.method(1, &ChannelOpen {});
        self.expect("channel.open-ok");
    }

    /// A question that channel 1 answers when it has dealt with all before: `channel.flow-ok`.
    pub(crate) fn ask(&mut self) {
        self.method(1, &ChannelFlow { active: true });
    }

    /// Closes the socket in one direction.
    pub(crate) fn finish_sending(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Waits for a method that must come.
    pub(crate) fn expect(&mut self, name: &str) -> String {
        match self.wait_for(name).end {
            End::Reply(reply) => reply,
            other => panic!("{name} expected, {other:?} came"),
        }
    }

    /// Answers a `connection.close`; the stream must end then. `RabbitMQ` waits for 3 s after an
    /// error of the frame layer.
    pub(crate) fn answer_close(&mut self) -> Seen {
        self.method(0, &ConnectionCloseOk {});
        self.wait_for("nothing")
    }

    /// Reads until a method of this name, a close, the end of the stream or of patience.
    pub(crate) fn wait_for(&mut self, name: &str) -> Seen {
        let mut before = Vec::new();
        let end = loop {
            if let Some(end) = self.read_input(name, &mut before) {
                break end;
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => break self.cut(),
                Ok(size) => self.input.extend_from_slice(&chunk[..size]),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => break End::Silence,
                    _ => break self.cut(),
                },
            }
        };
        Seen { end, after: self.sent_at.elapsed(), before }
    }

    fn cut(&mut self) -> End {
        match self.input.as_slice().try_into() {
            Ok(header) => End::Header(header),
            Err(_) => End::Cut,
        }
    }

    fn read_input(&mut self, name: &str, before: &mut Vec<&'static str>) -> Option<End> {
        // A broker that does not like the client's header answers with its own, outside any frame.
        if b"AMQP".starts_with(&self.input) || self.input.starts_with(b"AMQP") {
            return None;
        }
        let input = std::mem::take(&mut self.input);
        let mut cursor = 0;
        loop {
            let end = match self.decoder.next(&input, &mut cursor) {
                Ok(Some(Frame::Method { payload, .. })) => match Method::decode(payload) {
                    Ok(method) => end_of(&method, name, before),
                    Err(error) => Some(End::Garbled(error.to_string())),
                },
                Ok(Some(_)) => None,
                Ok(None) => return None,
                Err(error) => Some(End::Garbled(error.to_string())),
            };
            if end.is_some() {
                self.input = input[cursor..].to_vec();
                return end;
            }
        }
    }
}

fn end_of(method: &Method<'_>, name: &str, before: &mut Vec<&'static str>) -> Option<End> {
    if method.name() == name {
        return Some(End::Reply(format!("{method:?}")));
    }
    match method {
        Method::ConnectionClose(close) => Some(End::Close {
            code: close.reply_code,
            text: close.reply_text.to_owned(),
            ids: (close.class_id, close.method_id),
        }),
        Method::ChannelClose(close) => Some(End::ChannelClose {
            code: close.reply_code,
            text: close.reply_text.to_owned(),
            ids: (close.class_id, close.method_id),
        }),
        other => {
            before.push(other.name());
            None
        }
    }
}

/// A whole method frame.
pub(crate) fn method_frame(channel: u16, method: &impl Encode) -> Vec<u8> {
    let mut out = Vec::new();
    encode_frame(channel, method, &mut out);
    out
}

/// A whole frame of any kind.
pub(crate) fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = frame_header(kind, channel, payload.len() as u32).to_vec();
    out.extend_from_slice(payload);
    out.push(FRAME_END);
    out
}

/// The response of `guest`.
pub(crate) fn guest() -> Vec<u8> {
    plain("guest")
}

/// The response of `guest` with a password.
pub(crate) fn plain(password: &str) -> Vec<u8> {
    encode_plain(Credentials { username: b"guest", password: password.as_bytes() })
}

/// `connection.start-ok` of a client that wants to be told why it is refused.
pub(crate) fn start_ok(mechanism: &str, response: &[u8]) -> Vec<u8> {
    let capabilities = TableBuilder::new().bool("authentication_failure_close", true).finish();
    let properties = TableBuilder::new().table("capabilities", &capabilities).finish();
    start_ok_with(&properties, mechanism, response)
}

/// `connection.start-ok` with other properties.
pub(crate) fn start_ok_with(properties: &OwnedTable, mechanism: &str, response: &[u8]) -> Vec<u8> {
    method_frame(
        0,
        &ConnectionStartOk {
            client_properties: properties.as_ref(),
            mechanism,
            response,
            locale: "en_US",
        },
    )
}

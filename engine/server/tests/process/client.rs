//! An AMQP client made of bytes, so that it can be as rude as a test needs it.
//!
//! ```text
//!  frame:   type(1) channel(2) size(4)  payload  0xCE
//!  method:  class(2) method(2) arguments
//! ```

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const FRAME_END: u8 = 0xCE;

/// The tuned `frame_max` of 131,072 less what stands around a payload.
const BODY_FRAME_SIZE_MAX: usize = 131_072 - 8;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection.
pub(crate) struct Client(TcpStream);

impl Client {
    /// Opens `/` as `guest`, without heartbeats, and understands `connection.blocked`.
    pub(crate) fn open(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        client.0.write_all(b"AMQP\x00\x00\x09\x01").unwrap();
        client.expect(10, 10);
        let response = [&[0, 0, 0, 12], &b"\0guest\0guest"[..]].concat();
        let capabilities = [&short("connection.blocked")[..], b"t\x01"].concat();
        let properties = [&short("capabilities")[..], b"F", &sized(&capabilities)].concat();
        let start_ok =
            [&sized(&properties)[..], &short("PLAIN"), &response, &short("en_US")].concat();
        client.method(0, 10, 11, &start_ok);
        client.expect(10, 30);
        client.method(0, 10, 31, &[0x07, 0xFF, 0, 2, 0, 0, 0, 0]);
        client.method(0, 10, 40, &[&short("/")[..], &[0, 0]].concat());
        client.expect(10, 41);
        client
    }

    /// A socket on which nothing was said.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    /// Opens channel 1.
    pub(crate) fn open_channel(&mut self) {
        self.method(1, 20, 10, &[0]);
        self.expect(20, 11);
    }

    /// Declares a queue with default properties.
    pub(crate) fn declare(&mut self, queue: &str) {
        self.declare_queue(queue, false, &[]);
    }

    /// Declares a durable queue.
    pub(crate) fn declare_durable(&mut self, queue: &str) {
        self.declare_queue(queue, true, &[]);
    }

    /// Declares a queue with arguments, each a number.
    pub(crate) fn declare_with(&mut self, queue: &str, arguments: &[(&str, i32)]) {
        let field =
            |(name, value): &(&str, i32)| [&short(name)[..], b"I", &value.to_be_bytes()].concat();
        let fields: Vec<_> = arguments.iter().map(field).collect();
        self.declare_queue(queue, false, &fields.concat());
    }

    fn declare_queue(&mut self, queue: &str, durable: bool, arguments: &[u8]) {
        let bits = [u8::from(durable) << 1];
        let names = [&[0, 0][..], &short(queue)].concat();
        self.method(1, 50, 10, &[&names[..], &bits, &sized(arguments)].concat());
        self.expect(50, 11);
    }

    /// Binds a queue to an exchange without a key.
    pub(crate) fn bind(&mut self, queue: &str, exchange: &str) {
        let names = [short(queue), short(exchange), short("")].concat();
        self.method(1, 50, 20, &[&[0, 0][..], &names, &[0], &[0; 4]].concat());
        self.expect(50, 21);
    }

    /// Drops all that waits in a queue.
    pub(crate) fn purge(&mut self, queue: &str) {
        self.method(1, 50, 30, &[&[0, 0][..], &short(queue), &[0]].concat());
        self.expect(50, 31);
    }

    /// Publishes to a queue by the default exchange.
    pub(crate) fn publish(&mut self, queue: &str, body: &[u8]) {
        self.publish_with(&[0, 0], "", queue, body);
    }

    /// Publishes to an exchange without a key.
    pub(crate) fn publish_to(&mut self, exchange: &str, body: &[u8]) {
        self.publish_with(&[0, 0], exchange, "", body);
    }

    /// The same, to outlive the broker.
    pub(crate) fn publish_persistent(&mut self, queue: &str, body: &[u8]) {
        self.publish_with(&[0x10, 0, 2], "", queue, body);
    }

    fn publish_with(&mut self, properties: &[u8], exchange: &str, key: &str, body: &[u8]) {
        self.method(1, 60, 40, &[&[0, 0][..], &short(exchange), &short(key), &[0]].concat());
        let size = (body.len() as u64).to_be_bytes();
        self.frame(HEADER, 1, &[&[0, 60, 0, 0][..], &size, properties].concat());
        for piece in body.chunks(BODY_FRAME_SIZE_MAX) {
            self.frame(BODY, 1, piece);
        }
    }

    /// Gets a message without acknowledging it; `None` where the queue is empty.
    pub(crate) fn get(&mut self, queue: &str) -> Option<Vec<u8>> {
        self.method(1, 60, 70, &[&[0, 0][..], &short(queue), &[1]].concat());
        let (_, payload) = self.read_frame();
        if payload[..4] == [0, 60, 0, 72] {
            return None;
        }
        assert_eq!(payload[..4], [0, 60, 0, 71], "get-ok");
        Some(self.read_content())
    }

    /// Subscribes to a queue.
    pub(crate) fn consume(&mut self, queue: &str, no_ack: bool) {
        let bits = u8::from(no_ack) << 1;
        let tag = short("consumer");
        self.method(1, 60, 20, &[&[0, 0][..], &short(queue), &tag, &[bits], &[0; 4]].concat());
        self.expect(60, 21);
    }

    /// Waits for a delivery; its body.
    pub(crate) fn read_delivery(&mut self) -> Vec<u8> {
        self.expect(60, 60);
        self.read_content()
    }

    fn read_content(&mut self) -> Vec<u8> {
        let (kind, header) = self.read_frame();
        assert_eq!(kind, HEADER);
        let size = u64::from_be_bytes(header[4..12].try_into().unwrap());
        let mut body = Vec::new();
        while (body.len() as u64) < size {
            body.extend(self.read_frame().1);
        }
        body
    }

    /// Reads `connection.close`; its reply code and text.
    pub(crate) fn read_close(&mut self) -> (u16, String) {
        let payload = self.expect(10, 50);
        let text = &payload[7..7 + usize::from(payload[6])];
        (u16::from_be_bytes([payload[4], payload[5]]), String::from_utf8_lossy(text).into_owned())
    }

    /// Reads `connection.blocked`; its reason.
    pub(crate) fn read_blocked(&mut self) -> String {
        let payload = self.expect(10, 60);
        String::from_utf8_lossy(&payload[5..]).into_owned()
    }

    /// Reads `connection.unblocked`.
    pub(crate) fn read_unblocked(&mut self) {
        self.expect(10, 61);
    }

    /// The same connection for another thread.
    pub(crate) fn clone(&self) -> Self {
        Self(self.0.try_clone().unwrap())
    }

    /// Answers `connection.close`.
    pub(crate) fn close_ok(&mut self) {
        self.method(0, 10, 51, &[]);
    }

    /// Whether the broker has closed the connection, read to its end.
    pub(crate) fn is_cut(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    fn expect(&mut self, class: u16, method: u16) -> Vec<u8> {
        let (kind, payload) = self.read_frame();
        let ids = (be16(&payload[..2]), be16(&payload[2..4]));
        assert_eq!((kind, ids), (METHOD, (class, method)), "{payload:?}");
        payload
    }

    fn read_frame(&mut self) -> (u8, Vec<u8>) {
        let mut header = [0; 7];
        self.0.read_exact(&mut header).unwrap();
        let size = u32::from_be_bytes(header[3..].try_into().unwrap());
        let mut payload = vec![0; size as usize + 1];
        self.0.read_exact(&mut payload).unwrap();
        assert_eq!(payload.pop(), Some(FRAME_END));
        (header[0], payload)
    }

    fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        let ids = [class.to_be_bytes(), method.to_be_bytes()].concat();
        self.frame(METHOD, channel, &[&ids, arguments].concat());
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let size = (payload.len() as u32).to_be_bytes();
        let frame = [&[kind][..], &channel.to_be_bytes(), &size, payload, &[FRAME_END]].concat();
        self.0.write_all(&frame).unwrap();
    }
}

fn short(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

fn sized(table: &[u8]) -> Vec<u8> {
    [&(table.len() as u32).to_be_bytes()[..], table].concat()
}

fn be16(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

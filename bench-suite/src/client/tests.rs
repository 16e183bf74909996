use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::thread;

use leveret_amqp::encoder::{Deliver, encode_content};
use leveret_amqp::method::{
    BasicConsumeOk, ChannelOpenOk, ConnectionOpenOk, ConnectionStart, ConnectionTune,
    QueueDeclareOk,
};
use leveret_amqp::properties::NO_PROPERTIES;

use super::*;
use crate::broker::parse_broker;

/// What the scripted broker sends, in order, whatever it receives.
#[derive(Default)]
struct Script {
    wire: Vec<u8>,
}

impl Script {
    fn logged_in() -> Self {
        let server_properties =
            TableBuilder::new().long_str("product", "Script").long_str("version", "7").finish();
        let start = ConnectionStart {
            version_major: 0,
            version_minor: 9,
            server_properties: server_properties.as_ref(),
            mechanisms: b"PLAIN",
            locales: b"en_US",
        };
        Self::default()
            .say(0, &start)
            .say(0, &ConnectionTune { channel_max: 9, frame_max: 8192, heartbeat: 60 })
            .say(0, &ConnectionOpenOk {})
            .say(1, &ChannelOpenOk {})
    }

    fn say(mut self, channel: u16, method: &impl Encode) -> Self {
        encode_frame(channel, method, &mut self.wire);
        self
    }

    /// Sends the whole script to the first client, `size` octets at a time, and waits for the end.
    fn start(self, size: usize) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            for chunk in self.wire.chunks(size) {
                stream.write_all(chunk).unwrap();
            }
            // A client may leave before the script has ended.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        address
    }
}

fn open(address: SocketAddr) -> Result<Connection, Fault> {
    let mut connection = Connection::open(&parse_broker(&format!("a={address}")).unwrap())?;
    connection.open_channel(CHANNEL)?;
    Ok(connection)
}

fn delivery(delivery_tag: u64, body: &[u8]) -> Vec<u8> {
    let deliver = Deliver {
        channel: CHANNEL,
        consumer_tag: b"0000",
        delivery_tag,
        redelivered: false,
        exchange: b"",
        routing_key: b"q",
    };
    let mut wire = Vec::new();
    encode_content(&mut wire, deliver, NO_PROPERTIES, body, 0);
    wire
}

#[test]
fn what_comes_too_early_is_handed_over() {
    for size in [1, 50, 100_000] {
        let mut script = Script::logged_in().say(1, &BasicConsumeOk { consumer_tag: "0000" });
        script.wire.extend(delivery(1, b"early"));
        let mut script = script.say(1, &BasicConsumeOk { consumer_tag: "0001" });
        let late = delivery(2, &[7; 5000]);
        script.wire.extend_from_slice(&late);
        let mut connection = open(script.start(size)).unwrap();
        assert_eq!((&*connection.product, connection.frame_size_max()), ("Script 7", 8192));
        assert_eq!(connection.channel_max(), 9);
        connection.consume("q", "0000", true).unwrap();
        connection.consume("r", "0001", true).unwrap();
        let Attached { mut stream, mut received, .. } = connection.into_attached(()).unwrap();
        let expected = [delivery(1, b"early"), late].concat();
        let mut rest = vec![0; expected.len() - received.len()];
        stream.read_exact(&mut rest).unwrap();
        received.extend(rest);
        assert_eq!(received, expected, "in chunks of {size}");
    }
}

#[test]
fn many_questions_are_answered_in_order() {
    let count = 3 * UNANSWERED_MAX + 1;
    let ok = QueueDeclareOk { queue: "q", message_count: 5, consumer_count: 0 };
    let answers = (0..=count).fold(Script::logged_in(), |script, _| script.say(1, &ok));
    let mut connection = open(answers.start(100_000)).unwrap();
    let names: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    connection.declare_many(&names, &QueueOptions::default()).unwrap();
    assert_eq!(connection.message_count("q").unwrap(), 5);
}

#[test]
fn refusals_are_told_in_the_words_of_the_broker() {
    let close =
        ChannelClose { reply_code: 404, reply_text: "NOT_FOUND", class_id: 50, method_id: 10 };
    let mut connection = open(Script::logged_in().say(1, &close).start(100_000)).unwrap();
    let fault = connection.message_count("q").unwrap_err().to_string();
    assert!(fault.contains("channel: 404 NOT_FOUND"), "{fault}");

    let close =
        ConnectionClose { reply_code: 403, reply_text: "REFUSED", class_id: 0, method_id: 0 };
    let fault = open(Script::default().say(0, &close).start(100_000)).unwrap_err().to_string();
    assert!(fault.contains("connection: 403 REFUSED"), "{fault}");
}

#[test]
fn another_protocol_is_no_broker() {
    let script = Script { wire: b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec() };
    let fault = open(script.start(100_000)).unwrap_err();
    assert!(matches!(fault, Fault::Frame(_)), "{fault}");
    // Frames larger than negotiated.
    let mut script = Script::logged_in();
    script.wire.extend_from_slice(&[1, 0, 1, 0, 0, 0x20, 9, 0]);
    let fault = open(script.start(100_000)).unwrap().message_count("q").unwrap_err();
    assert!(matches!(fault, Fault::Frame(_)), "{fault}");
}

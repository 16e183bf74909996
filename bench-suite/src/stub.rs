//! A relay that speaks just enough AMQP to be put under load, and can be told to do wrong: the
//! truth of the harness is tested against it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use leveret_amqp::encoder::{Deliver, encode_content};
use leveret_amqp::method::{
    BasicAck, BasicConsumeOk, BasicQosOk, ChannelClose, ChannelOpenOk, ConfirmSelectOk,
    ConnectionCloseOk, ConnectionOpenOk, ConnectionStart, ConnectionTune, QueueDeclareOk,
    QueueDeleteOk, encode_frame,
};
use leveret_amqp::properties::NO_PROPERTIES;
use leveret_amqp::{Decoder, Frame, Method, TableRef};

/// Every message with this remainder of [`PERIOD`] is treated wrongly.
const VICTIM: u64 = 500;
const PERIOD: u64 = 997;

/// What the relay does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    None,
    Lose,
    Duplicate,
    /// Delivers a message after its successor.
    Reorder,
    /// Changes one bit of the body.
    Corrupt,
    /// Cuts the last octet of the body off.
    Shorten,
    /// Takes publishes and says nothing.
    ForgetConfirms,
    ConfirmTwice,
    RefuseQueue,
}

type Consumer = Arc<Mutex<Option<TcpStream>>>;

/// Serves one publisher and one consumer, then ends.
pub(crate) fn start(defect: Defect) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound address");
    thread::spawn(move || {
        let consumer = Consumer::default();
        for stream in listener.incoming().take(2) {
            let session = Session {
                stream: stream.expect("a connection"),
                consumer: Arc::clone(&consumer),
                defect,
                confirms: false,
                published: 0,
                delivered: 0,
                held: None,
                deliveries: Vec::new(),
                answers: Vec::new(),
            };
            thread::spawn(move || session.serve());
        }
    });
    address
}

struct Session {
    stream: TcpStream,
    consumer: Consumer,
    defect: Defect,
    confirms: bool,
    published: u64,
    delivered: u64,
    /// A message that waits for its successor.
    held: Option<Vec<u8>>,
    /// For the consumer's connection.
    deliveries: Vec<u8>,
    /// For this connection.
    answers: Vec<u8>,
}

impl Session {
    /// Until the client closes; a client that gives up is no failure of the relay.
    fn serve(mut self) {
        let mut chunk = vec![0; 64 << 10];
        let (mut decoder, mut body) = (Decoder::new(0), Vec::new());
        if self.stream.read_exact(&mut chunk[..8]).is_err() {
            return;
        }
        self.greet();
        while self.send().is_ok() {
            let size = match self.stream.read(&mut chunk) {
                Ok(size) if size > 0 => size,
                _ => return,
            };
            let (chunk, mut cursor, published) = (&chunk[..size], 0, self.published);
            while let Some(frame) = decoder.next(chunk, &mut cursor).expect("valid frames") {
                match frame {
                    Frame::Method { payload, .. } => {
                        self.answer(Method::decode(payload).expect("a valid method"));
                    }
                    Frame::Body { data, last, .. } => {
                        body.extend_from_slice(&chunk[data]);
                        if last {
                            self.relay(std::mem::take(&mut body));
                        }
                    }
                    _ => {}
                }
            }
            if self.confirms && self.published > published {
                self.confirm();
            }
        }
    }

    fn greet(&mut self) {
        let start = ConnectionStart {
            version_major: 0,
            version_minor: 9,
            server_properties: TableRef::EMPTY,
            mechanisms: b"PLAIN",
            locales: b"en_US",
        };
        encode_frame(0, &start, &mut self.answers);
    }

    fn answer(&mut self, method: Method<'_>) {
        let out = &mut self.answers;
        match method {
            Method::ConnectionStartOk(_) => {
                let tune = ConnectionTune { channel_max: 9, frame_max: 131_072, heartbeat: 60 };
                encode_frame(0, &tune, out);
            }
            Method::ConnectionOpen(_) => encode_frame(0, &ConnectionOpenOk {}, out),
            Method::ConnectionClose(_) => encode_frame(0, &ConnectionCloseOk {}, out),
            Method::ChannelOpen(_) => encode_frame(1, &ChannelOpenOk {}, out),
            Method::QueueDelete(_) => encode_frame(1, &QueueDeleteOk { message_count: 0 }, out),
            Method::QueueDeclare(_) if self.defect == Defect::RefuseQueue => {
                let (class_id, method_id) = (50, 10);
                let reply_text = "NOT_FOUND";
                let close = ChannelClose { reply_code: 404, reply_text, class_id, method_id };
                encode_frame(1, &close, out);
            }
            Method::QueueDeclare(declare) => {
                let queue = declare.queue;
                let answer = QueueDeclareOk { queue, message_count: 0, consumer_count: 1 };
                encode_frame(1, &answer, out);
            }
            Method::BasicQos(_) => encode_frame(1, &BasicQosOk {}, out),
            Method::BasicConsume(consume) => {
                encode_frame(1, &BasicConsumeOk { consumer_tag: consume.consumer_tag }, out);
                let stream = self.stream.try_clone().expect("a second handle");
                *self.consumer.lock().expect("no panic") = Some(stream);
            }
            Method::ConfirmSelect(_) => {
                self.confirms = true;
                encode_frame(1, &ConfirmSelectOk {}, out);
            }
            _ => {}
        }
    }

    fn relay(&mut self, mut body: Vec<u8>) {
        self.published += 1;
        let defect = match self.published % PERIOD {
            VICTIM => self.defect,
            _ => Defect::None,
        };
        match defect {
            Defect::Lose => return,
            Defect::Reorder => {
                self.held = Some(body);
                return;
            }
            Defect::Corrupt => body[15] ^= 1,
            Defect::Shorten => drop(body.pop()),
            Defect::Duplicate => self.deliver(&body),
            _ => {}
        }
        self.deliver(&body);
        if let Some(held) = self.held.take() {
            self.deliver(&held);
        }
    }

    fn deliver(&mut self, body: &[u8]) {
        self.delivered += 1;
        let deliver = Deliver {
            channel: 1,
            consumer_tag: b"bench",
            delivery_tag: self.delivered,
            redelivered: false,
            exchange: b"",
            routing_key: b"q",
        };
        encode_content(&mut self.deliveries, deliver, NO_PROPERTIES, body, 0);
    }

    fn confirm(&mut self) {
        let ack = BasicAck { delivery_tag: self.published, multiple: true };
        let times = match self.defect {
            Defect::ForgetConfirms => 0,
            Defect::ConfirmTwice => 2,
            _ => 1,
        };
        for _ in 0..times {
            encode_frame(1, &ack, &mut self.answers);
        }
    }

    fn send(&mut self) -> std::io::Result<()> {
        if !self.deliveries.is_empty() {
            let mut consumer = self.consumer.lock().expect("no panic");
            consumer.as_mut().expect("a consumer").write_all(&self.deliveries)?;
            self.deliveries.clear();
        }
        self.stream.write_all(&self.answers)?;
        self.answers.clear();
        Ok(())
    }
}

//! A client: real AMQP over a socket of the world.

pub mod methods;
pub mod stream;

use std::collections::{BTreeMap, VecDeque};

use leveret_amqp::client::Hello;
use leveret_amqp::encoder::{self, Publish};
use leveret_amqp::frame::PROTOCOL_HEADER;
use leveret_amqp::limits::Tune;
use leveret_amqp::method::{
    ChannelCloseOk, ChannelOpen, ConnectionClose, ConnectionCloseOk, Encode, encode_frame,
};
use leveret_amqp::sasl::Credentials;
use leveret_amqp::{Method, TableBuilder};

use crate::client::stream::{Incoming, Stream};
use crate::world::World;
use crate::world::network::SocketId;

/// The limit on steps until a world with a single open request must be at rest.
const STEPS_MAX: u64 = 5_000_000;

/// How a server ended a connection or channel: reply code, text, class and method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The reply code.
    pub code: u16,
    /// The reply text.
    pub text: String,
    /// The method that caused the error, or zeros.
    pub method: (u16, u16),
}

/// A delivery to a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The channel.
    pub channel: u16,
    /// Tag of the consumer.
    pub consumer_tag: String,
    /// Number on the channel.
    pub delivery_tag: u64,
    /// The flag of the delivery.
    pub redelivered: bool,
    /// The body.
    pub body: Vec<u8>,
}

/// One connection of a client.
#[derive(Debug)]
pub struct Client {
    /// Its socket.
    pub socket: SocketId,
    /// Received and not looked at yet; without methods of the handshake and of closing.
    pub incoming: VecDeque<Incoming>,
    /// `connection.open-ok` has been received.
    pub open: bool,
    /// The server has sent `connection.close`.
    pub closed: Option<Closed>,
    /// This client has sent `connection.close` and received close-ok.
    pub left: bool,
    /// The reason of `connection.blocked`, while the connection is blocked.
    pub blocked: Option<String>,
    /// The user that it logs in as.
    pub user: &'static str,
    /// The password of that user.
    pub password: &'static str,
    /// The virtual host that it opens.
    pub virtual_host: &'static str,
    /// Says at login that it understands `connection.blocked`.
    pub supports_blocked: bool,
    /// Channels that the server closed, and why.
    pub closed_channels: Vec<(u16, Closed)>,
    /// Answers `close` automatically. Off in tests of a missing answer.
    pub answers_close: bool,
    tune: Tune,
    stream: Stream,
    /// The last delivery tag of each channel.
    delivery_tags: BTreeMap<u16, u64>,
}

impl Client {
    /// Connects and begins the handshake. `tune` is the client's answer to the server's tune; its
    /// frame-max must be between 4096 octets and the server's offer.
    pub fn connect(world: &mut World, shard: u16, tune: Tune) -> Self {
        let socket = world.connect(shard);
        world.write(socket, PROTOCOL_HEADER);
        Self::silent(socket, tune)
    }

    /// A client that has sent nothing yet.
    pub fn silent(socket: SocketId, tune: Tune) -> Self {
        Self {
            socket,
            incoming: VecDeque::new(),
            open: false,
            closed: None,
            left: false,
            blocked: None,
            user: "guest",
            password: "guest",
            virtual_host: "/",
            supports_blocked: true,
            closed_channels: Vec::new(),
            answers_close: true,
            tune,
            stream: Stream::new(),
            delivery_tags: BTreeMap::new(),
        }
    }

    /// Connects and opens the connection and channel 1.
    ///
    /// # Panics
    /// If the server refuses.
    pub fn open(world: &mut World, shard: u16) -> Self {
        Self::open_with(world, shard, Tune { heartbeat: 0, ..Tune::SERVER_DEFAULT })
    }

    /// The same with the given limits.
    ///
    /// # Panics
    /// If the server refuses.
    pub fn open_with(world: &mut World, shard: u16, tune: Tune) -> Self {
        let mut client = Self::connect(world, shard, tune);
        client.settle(world);
        assert!(client.open, "the connection did not open: {:?}", client.closed);
        client.open_channel(world, 1);
        client
    }

    /// Opens another channel and waits for the answer.
    ///
    /// # Panics
    /// If the server refuses.
    pub fn open_channel(&mut self, world: &mut World, channel: u16) {
        let incoming = self.request(world, channel, &ChannelOpen {});
        assert!(matches!(incoming.method(), Some(Method::ChannelOpenOk(_))), "{incoming:?}");
    }

    /// Sends a method.
    pub fn send(&mut self, world: &mut World, channel: u16, method: &impl Encode) {
        let mut out = Vec::new();
        encode_frame(channel, method, &mut out);
        world.write(self.socket, &out);
    }

    /// Sends a message without properties.
    pub fn publish(
        &mut self,
        world: &mut World,
        channel: u16,
        (exchange, routing_key): (&str, &str),
        mandatory: bool,
        body: &[u8],
    ) {
        let publish = Publish {
            channel,
            exchange: exchange.as_bytes(),
            routing_key: routing_key.as_bytes(),
            mandatory,
            immediate: false,
        };
        let mut out = Vec::new();
        encoder::encode_content(&mut out, publish, &[0, 0], body, self.tune.frame_max);
        world.write(self.socket, &out);
    }

    /// Sends a method, lets the world come to rest, and returns the first answer.
    ///
    /// # Panics
    /// If there is no answer.
    pub fn request(&mut self, world: &mut World, channel: u16, method: &impl Encode) -> Incoming {
        let before = self.incoming.len();
        self.send(world, channel, method);
        self.settle(world);
        let Some(incoming) = self.incoming.remove(before) else {
            panic!("no answer; closed: {:?} {:?}", self.closed, self.closed_channels);
        };
        incoming
    }

    /// Lets the world come to rest and receives everything that was sent to this client.
    ///
    /// # Panics
    /// If the server sends anything that is not valid AMQP.
    pub fn settle(&mut self, world: &mut World) {
        loop {
            world.run(STEPS_MAX);
            match self.receive(world) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Receives what has reached the client. True if there was anything.
    ///
    /// # Errors
    /// If it is not valid AMQP.
    pub fn receive(&mut self, world: &mut World) -> Result<bool, String> {
        let bytes = world.read(self.socket);
        if bytes.is_empty() {
            return Ok(false);
        }
        let mut incoming = Vec::new();
        self.stream.feed(&bytes, &mut incoming)?;
        for incoming in incoming {
            self.handle(world, incoming)?;
        }
        Ok(true)
    }

    /// Takes everything received so far.
    pub fn take(&mut self) -> Vec<Incoming> {
        self.incoming.drain(..).collect()
    }

    /// Lets the world come to rest and takes the deliveries from what was received.
    pub fn deliveries(&mut self, world: &mut World) -> Vec<Delivery> {
        self.settle(world);
        let mut deliveries = Vec::new();
        self.incoming.retain(|incoming| {
            let Some(Method::BasicDeliver(deliver)) = incoming.method() else {
                return true;
            };
            deliveries.push(Delivery {
                channel: incoming.channel(),
                consumer_tag: deliver.consumer_tag.to_owned(),
                delivery_tag: deliver.delivery_tag,
                redelivered: deliver.redelivered,
                body: incoming.body().to_vec(),
            });
            false
        });
        deliveries
    }

    /// Closes the connection and waits until it is closed.
    ///
    /// # Panics
    /// If the server does not answer.
    pub fn close(&mut self, world: &mut World) {
        self.send_close(world);
        self.settle(world);
        assert!(self.left && world.is_closed(self.socket), "no close-ok");
    }

    /// Sends `connection.close`.
    pub fn send_close(&mut self, world: &mut World) {
        let (class_id, method_id) = (0, 0);
        let close = ConnectionClose { reply_code: 200, reply_text: "bye", class_id, method_id };
        self.send(world, 0, &close);
    }

    /// Whether no frame and no message is partly received.
    pub fn is_between_messages(&self) -> bool {
        self.stream.is_between_messages()
    }

    fn handle(&mut self, world: &mut World, incoming: Incoming) -> Result<(), String> {
        let channel = incoming.channel();
        if self.left || self.closed.is_some() && channel != 0 {
            return Err(format!("a word after the end: {incoming:?}"));
        }
        let Some(method) = incoming.method() else {
            self.incoming.push_back(incoming);
            return Ok(());
        };
        match method {
            Method::ConnectionStart(_) => self.log_in(world),
            Method::ConnectionTune(_) => self.tune(world),
            Method::ConnectionOpenOk(_) => self.open = true,
            Method::ConnectionCloseOk(_) => self.left = true,
            Method::ConnectionBlocked(blocked) => {
                let reason = Some(blocked.reason.to_owned());
                if self.blocked.is_some() || !self.supports_blocked {
                    return Err(format!("blocked out of the blue: {reason:?}"));
                }
                self.blocked = reason;
            }
            Method::ConnectionUnblocked(_) => {
                if self.blocked.take().is_none() {
                    return Err("unblocked out of the blue".into());
                }
            }
            Method::ConnectionClose(close) => {
                self.closed = Some(Closed {
                    code: close.reply_code,
                    text: close.reply_text.to_owned(),
                    method: (close.class_id, close.method_id),
                });
                if self.answers_close {
                    self.send(world, 0, &ConnectionCloseOk {});
                }
            }
            Method::ChannelClose(close) => {
                let closed = Closed {
                    code: close.reply_code,
                    text: close.reply_text.to_owned(),
                    method: (close.class_id, close.method_id),
                };
                self.closed_channels.push((channel, closed));
                self.delivery_tags.remove(&channel);
                if self.answers_close {
                    self.send(world, channel, &ChannelCloseOk {});
                }
                self.incoming.push_back(incoming);
            }
            other => {
                self.check_tag(channel, &other)?;
                self.incoming.push_back(incoming);
            }
        }
        Ok(())
    }

    fn check_tag(&mut self, channel: u16, method: &Method<'_>) -> Result<(), String> {
        let tag = match method {
            Method::BasicDeliver(deliver) => deliver.delivery_tag,
            Method::BasicGetOk(got) => got.delivery_tag,
            Method::ChannelOpenOk(_) => {
                self.delivery_tags.insert(channel, 0);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let Some(last) = self.delivery_tags.get_mut(&channel) else {
            return Err(format!("a delivery on channel {channel}, which is not open"));
        };
        if tag != *last + 1 {
            return Err(format!("delivery tag {tag} after {last} on channel {channel}"));
        }
        *last = tag;
        Ok(())
    }

    fn log_in(&mut self, world: &mut World) {
        let capabilities = TableBuilder::new()
            .bool("consumer_cancel_notify", true)
            .bool("basic.nack", true)
            .bool("authentication_failure_close", true)
            .bool("connection.blocked", self.supports_blocked)
            .finish();
        let properties = TableBuilder::new().table("capabilities", &capabilities).finish();
        let credentials =
            Credentials { username: self.user.as_bytes(), password: self.password.as_bytes() };
        let mut out = Vec::new();
        Hello { credentials, properties: properties.as_ref(), ..Hello::GUEST }
            .encode_start_ok(&mut out);
        world.write(self.socket, &out);
    }

    fn tune(&mut self, world: &mut World) {
        let mut out = Vec::new();
        let hello = Hello { tune: self.tune, virtual_host: self.virtual_host, ..Hello::GUEST };
        hello.encode_tune_ok(&mut out);
        hello.encode_open(&mut out);
        world.write(self.socket, &out);
        self.stream.set_frame_size_max(self.tune.frame_max);
    }
}

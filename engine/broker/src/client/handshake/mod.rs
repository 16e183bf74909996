//! From the first byte of a connection to `connection.open-ok`.
//!
//! ```text
//!  client                       server                 state
//!  "AMQP" 0 0 9 1          ──►                         header
//!                          ◄──  start                  starting
//!  start-ok                ──►  (who are you?)
//!                          ◄──  tune                   tuning
//!  tune-ok                 ──►  (what did we agree?)   opening
//!  open                    ──►  (may you enter?)
//!                          ◄──  open-ok                [`Step::Opened`]
//! ```
//!
//! Only this order exists, so at most three methods are read before the connection is open. A
//! fault ends the handshake the way `RabbitMQ` 3.10 (`rabbit_reader:handle_exception`) ends it:
//! peers that have not logged in get silence first, so that guessing costs them time. Where
//! `RabbitMQ` then cuts without a word, we say what was wrong before we cut.

mod login;
mod offer;
mod secret;

use core::net::SocketAddr;

use leveret_amqp::limits::{Tune, negotiate};
use leveret_amqp::method::{ConnectionOpenOk, ConnectionTune, ConnectionTuneOk};
use leveret_amqp::{Method, OwnedTable, ReplyCode, TableRef, Value, encode_frame};

use crate::catalog::name::Name;
use crate::client::frame_text;
use crate::error::Exception;
use crate::id::VhostId;
use crate::routing::topology::Topology;
use crate::settings::Settings;

pub use self::login::{MECHANISMS, RESPONSE_SIZE_MAX_BYTES};
pub use self::offer::{CAPABILITIES, HeaderFault};
pub use self::secret::update_secret;

use self::login::{Refusal, log_in};
use self::offer::write_start;

/// Largest frame before [`Step::Opened`], in bytes: the limit of the decoder.
///
/// `RabbitMQ`'s `initial_frame_max` since 4.1: an OAuth token does not fit 4096.
pub const HANDSHAKE_FRAME_SIZE_MAX: u32 = 8192;

/// Heartbeats accepted before [`Step::Opened`]. No interval is agreed yet, so an honest client
/// sends none; with this bound a handshake is at most 8 + 3 × 8208 + 16 × 8 bytes.
pub const HANDSHAKE_HEARTBEAT_COUNT_MAX: u8 = 16;

/// What the caller does after a piece of the handshake was read.
///
/// In every case it sends the bytes in `out` first.
#[derive(Debug)]
pub enum Step {
    /// Read on.
    Continue,
    /// The connection is open; the decoder's limit is `frame_size_max` from now on.
    Opened(Box<Opened>),
    /// Send `connection.close` with this at once, discard further input, and cut on `close-ok` or
    /// after [`Settings::silent_close_delay_ns`] (`RabbitMQ`'s `?NORMAL_TIMEOUT`).
    Close(Exception),
    /// Discard further input and send nothing for [`Settings::silent_close_delay_ns`], then do as
    /// [`Step::Close`].
    CloseLater(Exception),
    /// Discard further input and send nothing for [`Settings::silent_close_delay_ns`], then cut.
    /// The exception is for the log only.
    CutLater(Exception),
    /// Cut: the peer speaks another protocol and has got our protocol header.
    Cut(HeaderFault),
}

/// A connection that may be used now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The user that logged in. Its permissions may change: look them up in the topology each time.
    pub user: Name,
    /// The SASL mechanism that was used, `PLAIN` or `AMQPLAIN`.
    pub mechanism: &'static str,
    /// The virtual host the connection works in.
    pub vhost: VhostId,
    /// Its name.
    pub vhost_name: Name,
    /// Most channels open at once, never 0.
    pub channel_max: u16,
    /// Largest frame in bytes with its 8 bytes of overhead, 4096 to the server's limit.
    pub frame_size_max: u32,
    /// Heartbeat interval in seconds, 0 is none.
    pub heartbeat_s: u16,
    /// The optional methods that the client understands.
    pub capabilities: ClientCapabilities,
    /// The client's properties (product, version, connection name and others): at most
    /// [`HANDSHAKE_FRAME_SIZE_MAX`] bytes.
    pub client_properties: OwnedTable,
}

impl Opened {
    /// `connection_name`, which listings show as `user_provided_name`. Only a string counts.
    pub fn connection_name(&self) -> Option<&str> {
        self.client_text("connection_name")
    }

    /// A text among the client's properties, such as `product` or `version`.
    pub fn client_text(&self, name: &str) -> Option<&str> {
        match self.client_properties.get(name) {
            Some(Value::LongStr(text)) => str::from_utf8(text).ok(),
            _ => None,
        }
    }
}

/// The features that a client declared in its `capabilities` property.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCapabilities {
    /// May be sent `basic.cancel`.
    pub consumer_cancel_notify: bool,
    /// May be sent `connection.blocked`.
    pub connection_blocked: bool,
    /// May be sent `connection.close` when the login is refused.
    pub authentication_failure_close: bool,
    /// Knows `basic.nack`.
    pub basic_nack: bool,
    /// Knows `confirm.select`.
    pub publisher_confirms: bool,
    /// Knows `exchange.bind`.
    pub exchange_exchange_bindings: bool,
}

impl ClientCapabilities {
    /// Reads them from client properties. As in `RabbitMQ`, `capabilities` must be a table, and a
    /// feature counts only as the boolean true.
    pub fn of(client_properties: TableRef<'_>) -> Self {
        let Some(Value::Table(table)) = client_properties.get("capabilities") else {
            return Self::default();
        };
        let has = |name: &str| matches!(table.get(name), Some(Value::Bool(true)));
        Self {
            consumer_cancel_notify: has("consumer_cancel_notify"),
            connection_blocked: has("connection.blocked"),
            authentication_failure_close: has("authentication_failure_close"),
            basic_nack: has("basic.nack"),
            publisher_confirms: has("publisher_confirms"),
            exchange_exchange_bindings: has("exchange_exchange_bindings"),
        }
    }
}

/// The handshake of one connection.
#[derive(Debug)]
pub struct Handshake {
    peer: SocketAddr,
    state: State,
    heartbeat_count: u8,
    refusal: Option<String>,
}

#[derive(Debug)]
enum State {
    Header,
    Starting,
    Tuning(Client),
    Opening(Client, Tune),
    Over,
}

/// A client that logged in.
#[derive(Debug)]
struct Client {
    user: Name,
    mechanism: &'static str,
    properties: OwnedTable,
}

impl Handshake {
    /// A connection that has sent nothing yet. `peer` decides whether the client counts as local,
    /// so it must be the true address of the socket.
    pub const fn new(peer: SocketAddr) -> Self {
        Self { peer, state: State::Header, heartbeat_count: 0, refusal: None }
    }

    /// Reads the first eight bytes and answers with `connection.start`, or with our own protocol
    /// header if the client wants another protocol (specification 4.2.2).
    pub fn header(&mut self, bytes: &[u8; 8], settings: &Settings, out: &mut Vec<u8>) -> Step {
        if !matches!(self.state, State::Header) {
            let error = Exception::new(ReplyCode::FrameError, "second protocol header");
            return self.refuse(error);
        }
        match offer::check(*bytes) {
            Ok(()) => {
                write_start(settings, out);
                self.state = State::Starting;
                Step::Continue
            }
            Err(fault) => {
                out.extend_from_slice(leveret_amqp::frame::PROTOCOL_HEADER);
                self.state = State::Over;
                Step::Cut(fault)
            }
        }
    }

    /// Reads a method.
    pub fn method(
        &mut self,
        channel: u16,
        method: &Method<'_>,
        topology: &Topology,
        settings: &Settings,
        out: &mut Vec<u8>,
    ) -> Step {
        if channel != 0 {
            let mut payload = Vec::new();
            method.encode(&mut payload);
            return self.unexpected_frame(leveret_amqp::frame::FRAME_METHOD, &payload);
        }
        let state = std::mem::replace(&mut self.state, State::Over);
        match (state, method) {
            (State::Starting, Method::ConnectionStartOk(start_ok)) => {
                match log_in(self.peer.ip(), start_ok, topology) {
                    Ok(client) => self.logged_in(client, settings, out),
                    Err(refusal) => self.refused(refusal),
                }
            }
            (State::Tuning(client), Method::ConnectionTuneOk(tune_ok)) => {
                self.tuned(client, *tune_ok, settings)
            }
            (State::Opening(client, tune), Method::ConnectionOpen(open)) => {
                match enter(client, tune, open.virtual_host, topology) {
                    Ok(opened) => {
                        encode_frame(0, &ConnectionOpenOk {}, out);
                        Step::Opened(opened)
                    }
                    Err(error) => Step::Close(error.of(method.ids())),
                }
            }
            (state, method) => {
                self.state = state;
                self.refuse(unexpected_method(self.state_name(), method.ids()))
            }
        }
    }

    /// Accepts a heartbeat on channel 0, as `RabbitMQ` does in every state.
    pub fn heartbeat(&mut self) -> Step {
        self.heartbeat_count += 1;
        if self.heartbeat_count <= HANDSHAKE_HEARTBEAT_COUNT_MAX {
            return Step::Continue;
        }
        self.unexpected_frame(leveret_amqp::frame::FRAME_HEARTBEAT, &[])
    }

    /// Refuses a content header, a body, or any frame on a channel other than 0.
    pub fn unexpected_frame(&mut self, kind: u8, payload: &[u8]) -> Step {
        self.refuse(frame_text::unexpected_frame(kind, payload))
    }

    /// Ends the handshake because of bytes that could not be read as a frame or as a method.
    pub fn refuse(&mut self, error: Exception) -> Step {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Opening(..) => Step::Close(error),
            // Frame boundaries are lost, so close-ok could not be read: cut without close.
            _ if error.code == ReplyCode::FrameError => Step::CutLater(error),
            State::Tuning(_) => Step::Close(error),
            State::Header | State::Starting | State::Over => Step::CloseLater(error),
        }
    }

    /// Why the login was refused, in the words of `RabbitMQ`'s log. Not sent to the client.
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    fn logged_in(&mut self, client: Client, settings: &Settings, out: &mut Vec<u8>) -> Step {
        let Tune { channel_max, frame_max, heartbeat } = settings.tune();
        encode_frame(0, &ConnectionTune { channel_max, frame_max, heartbeat }, out);
        self.state = State::Tuning(client);
        Step::Continue
    }

    fn refused(&mut self, refusal: Refusal) -> Step {
        match refusal {
            Refusal::Malformed(error) => Step::CloseLater(error),
            Refusal::Login { error, reason, may_be_told } => {
                self.refusal = Some(reason);
                if may_be_told { Step::Close(error) } else { Step::CutLater(error) }
            }
        }
    }

    fn tuned(&mut self, client: Client, answer: ConnectionTuneOk, settings: &Settings) -> Step {
        let answer = Tune {
            channel_max: answer.channel_max,
            frame_max: answer.frame_max,
            heartbeat: answer.heartbeat,
        };
        match negotiate(settings.tune(), answer) {
            Ok(tune) => {
                self.state = State::Opening(client, tune);
                Step::Continue
            }
            // RabbitMQ names its own `connection.tune`, the offer that the client exceeded.
            Err(error) => Step::Close(
                Exception::new(error.reply_code(), error.to_string()).of(ConnectionTune::IDS),
            ),
        }
    }

    fn state_name(&self) -> &'static str {
        match self.state {
            State::Header => "pre_init",
            State::Starting => "starting",
            State::Tuning(_) => "tuning",
            State::Opening(..) => "opening",
            State::Over => "closing",
        }
    }
}

/// The refusal of a method on channel 0 that does not fit the state of the connection. After the
/// handshake that state is `running`.
pub fn unexpected_method(state: &str, ids: (u16, u16)) -> Exception {
    let text = format!("unexpected method in connection state {state}");
    Exception::new(ReplyCode::ChannelError, text).of(ids)
}

fn enter(
    client: Client,
    tune: Tune,
    vhost_name: &str,
    topology: &Topology,
) -> Result<Box<Opened>, Exception> {
    let vhost = check_vhost_access(&client.user, vhost_name, topology)?;
    Ok(Box::new(Opened {
        user: client.user,
        mechanism: client.mechanism,
        vhost,
        vhost_name: topology.vhost_name(vhost).cloned().unwrap_or_default(),
        channel_max: tune.channel_max,
        frame_size_max: tune.frame_max,
        heartbeat_s: tune.heartbeat,
        capabilities: ClientCapabilities::of(client.properties.as_ref()),
        client_properties: client.properties,
    }))
}

/// 530 with `RabbitMQ` 3.10's words: no quotes around a missing virtual host.
fn check_vhost_access(user: &str, vhost: &str, topology: &Topology) -> Result<VhostId, Exception> {
    let Some(id) = topology.vhost_id(vhost) else {
        return Err(Exception::not_allowed(format!("vhost {vhost} not found")));
    };
    if topology.permissions(user, id).is_none() {
        let text = format!("access to vhost '{vhost}' refused for user '{user}'");
        return Err(Exception::not_allowed(text));
    }
    Ok(id)
}

#[cfg(test)]
mod tests;

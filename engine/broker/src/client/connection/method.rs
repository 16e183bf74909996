//! Methods that are not on the hot path, and the frames of connections that are not running.

use bytes::Bytes;
use leveret_amqp::decoder::Frame;
use leveret_amqp::method::{ChannelOpen, ChannelOpenOk, ConnectionCloseOk};
use leveret_amqp::{Method, MethodError, ReplyCode};

use crate::client::backend::Backend;
use crate::client::channel::{Awaiting, Call, Channel, Flow};
use crate::client::handshake::{Step, unexpected_method, update_secret};
use crate::error::Exception;
use crate::id::ChannelKey;

use super::close::Ending;
use super::read::{Next, shown};
use super::{Connection, Deadline, PROTOCOL_HEADER_BYTES, Session, Stage};

impl Connection {
    /// A method of a running connection.
    #[inline(never)]
    pub(super) fn method(&mut self, backend: &mut Backend, number: u16, payload: &[u8]) -> Next {
        let method = match Method::decode(payload) {
            Ok(method) => method,
            Err(error) => return self.failed(backend, 0, undecodable(error)),
        };
        if number == 0 {
            return self.connection_method(backend, &method);
        }
        let Some(index) = self.channel_index(number) else {
            return self.unopened(backend, number, &method);
        };
        if self.channels[index].closing {
            return self.closing_channel(backend, number, &method);
        }
        if !self.channels[index].content.is_idle() {
            let exception = self.channels[index].content.unexpected();
            return self.failed(backend, 0, exception);
        }
        match &method {
            Method::ChannelOpen(_) => {
                let text = "second 'channel.open' seen";
                let exception = Exception::new(ReplyCode::ChannelError, text);
                self.failed(backend, 0, exception.of(ChannelOpen::IDS))
            }
            Method::ChannelClose(_) => {
                self.channel_closed(backend, number);
                Next::Look
            }
            Method::BasicPublish(publish) => self.call(backend, number, method.ids(), |call| {
                call.publish_begin(publish).map(|()| Flow::Done)
            }),
            _ => self.call(backend, number, method.ids(), |call| call.method(&method)),
        }
    }

    /// Carries out a method on an open channel.
    pub(super) fn call(
        &mut self,
        backend: &mut Backend,
        number: u16,
        method: (u16, u16),
        carry_out: impl FnOnce(&mut Call<'_>) -> Result<Flow, Exception>,
    ) -> Next {
        let Some(index) = self.channel_index(number) else {
            return Next::Frame;
        };
        let Stage::Running(session) = &mut self.stage else {
            return Next::Look;
        };
        let channel = &mut *self.channels[index];
        let key = channel.key;
        match carry_out(&mut Call { backend, session, channel }) {
            Ok(Flow::Done) if !session.blocks.any() => Next::Frame,
            Ok(Flow::Done) => Next::Look,
            Ok(Flow::Await(what)) => {
                session.awaiting = Some(Awaiting { channel: key, method, what });
                Next::Look
            }
            Err(exception) => self.failed(backend, number, exception.of(method)),
        }
    }

    fn connection_method(&mut self, backend: &mut Backend, method: &Method<'_>) -> Next {
        let Stage::Running(session) = &self.stage else {
            return Next::Look;
        };
        match method {
            Method::ConnectionClose(_) => {
                self.connection_closed(backend);
                Next::Look
            }
            Method::ConnectionUpdateSecret(_) => {
                let Some(writer) = backend.outputs.writers.get_mut(self.id) else {
                    return Next::Look;
                };
                let out = &mut writer.outbox.scratch;
                let (user, vhost) = (&session.opened.user, &session.opened.vhost_name);
                match update_secret(user, vhost, &backend.topology, out) {
                    Ok(()) => Next::Frame,
                    Err(exception) => self.failed(backend, 0, exception),
                }
            }
            method => self.failed(backend, 0, unexpected_method("running", method.ids())),
        }
    }

    fn unopened(&mut self, backend: &mut Backend, number: u16, method: &Method<'_>) -> Next {
        let Stage::Running(session) = &self.stage else {
            return Next::Look;
        };
        let Method::ChannelOpen(_) = method else {
            let exception = Exception::new(ReplyCode::ChannelError, "expected 'channel.open'");
            return self.failed(backend, 0, exception.of(method.ids()));
        };
        let max = session.opened.channel_max;
        if self.channels.len() >= usize::from(max) {
            let count = self.channels.len();
            let text = format!(
                "number of channels opened ({count}) has reached the negotiated channel_max ({max})"
            );
            return self.failed(backend, 0, Exception::not_allowed(text).of(ChannelOpen::IDS));
        }
        self.incarnations = self.incarnations.wrapping_add(1);
        let incarnation = self.incarnations;
        let key = ChannelKey { owner: self.owner(backend), channel: number, incarnation };
        let at = self.channels.partition_point(|channel| channel.key.channel < number);
        self.channels.insert(at, Box::new(Channel::new(key)));
        if let Some(writer) = backend.outputs.writers.get_mut(self.id) {
            writer.open_channel(key);
        }
        backend.counts.channels_opened += 1;
        self.write(backend, number, &ChannelOpenOk {});
        Next::Frame
    }

    /// A channel that we closed reacts to close and close-ok, and ignores all other methods.
    fn closing_channel(&mut self, backend: &mut Backend, number: u16, method: &Method<'_>) -> Next {
        match method {
            Method::ChannelCloseOk(_) => self.remove_channel(backend, number),
            Method::ChannelClose(_) => {
                self.write(backend, number, &leveret_amqp::method::ChannelCloseOk {});
            }
            _ => {}
        }
        Next::Frame
    }

    /// Gathers the protocol header and returns the bytes behind it.
    pub(super) fn read_protocol_header(
        &mut self,
        backend: &mut Backend,
        mut bytes: Bytes,
    ) -> Bytes {
        let Stage::Header(handshake, gathered) = &mut self.stage else {
            return bytes;
        };
        let wanted = PROTOCOL_HEADER_BYTES - gathered.len();
        gathered.extend_from_slice(&bytes.split_to(wanted.min(bytes.len())));
        let Ok(header) = <[u8; PROTOCOL_HEADER_BYTES]>::try_from(gathered.as_slice()) else {
            return bytes;
        };
        let Some(writer) = backend.outputs.writers.get_mut(self.id) else {
            return bytes;
        };
        let step = handshake.header(&header, &backend.turn.settings, &mut writer.outbox.scratch);
        if let Stage::Header(handshake, _) = std::mem::replace(&mut self.stage, Stage::Ended) {
            self.stage = Stage::Handshake(handshake);
        }
        self.step(backend, step);
        bytes
    }

    /// A frame of a connection that is not open yet, or no longer open.
    #[cold]
    pub(super) fn frame_before_or_after(
        &mut self,
        backend: &mut Backend,
        frame: &Frame<'_>,
        chunk: &Bytes,
    ) -> Next {
        match &mut self.stage {
            Stage::Handshake(handshake) => {
                let Some(writer) = backend.outputs.writers.get_mut(self.id) else {
                    return Next::Look;
                };
                let step = match frame {
                    Frame::Method { channel, payload } => match Method::decode(payload) {
                        Ok(method) => handshake.method(
                            *channel,
                            &method,
                            &backend.topology,
                            &backend.turn.settings,
                            &mut writer.outbox.scratch,
                        ),
                        Err(error) => handshake.refuse(undecodable(error)),
                    },
                    Frame::Heartbeat { channel: 0 } => handshake.heartbeat(),
                    other => {
                        let (kind, payload) = shown(other, chunk);
                        handshake.unexpected_frame(kind, payload)
                    }
                };
                self.step(backend, step);
            }
            Stage::Closing(Ending::AwaitCloseOk) => self.closing_frame(backend, frame),
            _ => {}
        }
        Next::Look
    }

    /// We have sent close: only close and close-ok are still read.
    fn closing_frame(&mut self, backend: &mut Backend, frame: &Frame<'_>) {
        let Frame::Method { channel: 0, payload } = frame else {
            return;
        };
        match Method::decode(payload) {
            Ok(Method::ConnectionCloseOk(_)) => self.end(backend),
            Ok(Method::ConnectionClose(_)) => self.write(backend, 0, &ConnectionCloseOk {}),
            _ => {}
        }
    }

    /// Carries out the decision of the handshake.
    pub(super) fn step(&mut self, backend: &mut Backend, step: Step) {
        let delay_ns = backend.turn.settings.silent_close_delay_ns;
        match step {
            Step::Continue => {}
            Step::Opened(opened) => {
                if let Some(writer) = backend.outputs.writers.get_mut(self.id) {
                    writer.frame_size_max = opened.frame_size_max;
                    writer.cancel_notify = opened.capabilities.consumer_cancel_notify;
                }
                self.stage = Stage::Running(Session::new(self.owner(backend), opened));
                self.start_heartbeat(backend);
            }
            Step::Close(exception) => {
                self.close_connection(backend, &exception);
                self.arm(backend, delay_ns, Deadline::Close);
            }
            Step::CloseLater(exception) => {
                self.stage = Stage::Closing(Ending::Silent(Some(Box::new(exception))));
                self.arm(backend, delay_ns, Deadline::Silence);
            }
            Step::CutLater(_) => {
                self.stage = Stage::Closing(Ending::Silent(None));
                self.arm(backend, delay_ns, Deadline::Silence);
            }
            Step::Cut(_) => self.end(backend),
        }
    }
}

#[cold]
fn undecodable(error: MethodError) -> Exception {
    Exception::new(error.reply_code(), error.to_string())
}

//! The end of channels and connections.

use std::collections::BTreeMap;

use leveret_amqp::method::{
    ChannelClose, ChannelCloseOk, ConnectionClose, ConnectionCloseOk, Encode, encode_frame,
};
use leveret_amqp::reply::reply_text;

use crate::client::backend::Backend;
use crate::client::channel::{Awaited, Awaiting};
use crate::control::Request;
use crate::delivery::operation::Operation;
use crate::error::Exception;
use crate::id::{ChannelKey, ShardId};
use crate::mesh::mail::Mail;

use super::{Connection, Deadline, Stage};

/// How far a connection has come in ending.
#[derive(Debug)]
pub enum Ending {
    /// We have sent `close` and wait for `close-ok`.
    AwaitCloseOk,
    /// Resources are being released; `answers` replies are outstanding. Then we send `close` (with
    /// the exception) or `close-ok`.
    AwaitRelease {
        /// Replies outstanding, of homes and of the control state.
        answers: usize,
        /// Our exception; `None` if the client closes the connection.
        close: Option<Box<Exception>>,
    },
    /// Silence until the deadline. Then we send `close` with this exception, or cut without one.
    Silent(Option<Box<Exception>>),
}

impl Connection {
    /// Ends one channel with an exception. Its number is free again after close-ok.
    pub(super) fn close_channel(
        &mut self,
        backend: &mut Backend,
        number: u16,
        exception: &Exception,
    ) {
        let Some(index) = self.channel_index(number) else {
            return;
        };
        self.channels[index].closing = true;
        self.release_channel(backend, index, Some(Box::new(exception.clone())));
    }

    /// The client ends a channel.
    pub(super) fn channel_closed(&mut self, backend: &mut Backend, number: u16) {
        if let Some(index) = self.channel_index(number) {
            self.release_channel(backend, index, None);
        }
    }

    /// Releases a channel at all its homes. The client gets close or close-ok when they have
    /// answered, as with `RabbitMQ`: by then auto-delete queues are gone, and messages are back in
    /// their queues.
    fn release_channel(
        &mut self,
        backend: &mut Backend,
        index: usize,
        close: Option<Box<Exception>>,
    ) {
        let key = self.channels[index].key;
        let homes = self.leave_channels(backend, key, &[key.channel]);
        self.await_homes(backend, key, homes, close);
    }

    /// One more home has released the channel.
    pub(super) fn home_left(
        &mut self,
        backend: &mut Backend,
        channel: ChannelKey,
        homes: usize,
        close: Option<Box<Exception>>,
    ) {
        self.await_homes(backend, channel, homes - 1, close);
    }

    fn await_homes(
        &mut self,
        backend: &mut Backend,
        channel: ChannelKey,
        homes: usize,
        close: Option<Box<Exception>>,
    ) {
        if let Stage::Running(session) = &mut self.stage
            && homes > 0
        {
            let what = Awaited::Leave { homes, close };
            session.awaiting = Some(Awaiting { channel, method: ChannelClose::IDS, what });
        } else if let Some(exception) = close {
            self.say_channel_close(backend, channel.channel, &exception);
        } else {
            self.remove_channel(backend, channel.channel);
            self.write(backend, channel.channel, &ChannelCloseOk {});
        }
    }

    fn say_channel_close(&mut self, backend: &mut Backend, number: u16, exception: &Exception) {
        let text = reply_text(exception.code, &exception.explanation);
        let close = ChannelClose {
            reply_code: exception.code.code(),
            reply_text: &text,
            class_id: exception.method.0,
            method_id: exception.method.1,
        };
        self.write(backend, number, &close);
    }

    /// Forgets a channel; its number is free again.
    pub(super) fn remove_channel(&mut self, backend: &mut Backend, number: u16) {
        if let Some(index) = self.channel_index(number) {
            self.channels.remove(index);
            backend.counts.channels_closed += 1;
        }
    }

    /// Ends the connection with an exception.
    pub(super) fn close_connection(&mut self, backend: &mut Backend, exception: &Exception) {
        self.leave(backend, Some(Box::new(exception.clone())));
    }

    /// The client ends the connection.
    pub(super) fn connection_closed(&mut self, backend: &mut Backend) {
        self.leave(backend, None);
    }

    /// Releases everything. As with `RabbitMQ` the client gets close or close-ok only when its
    /// exclusive and auto-delete queues are gone, so that its next connection can declare them
    /// again.
    fn leave(&mut self, backend: &mut Backend, close: Option<Box<Exception>>) {
        let answers = self.release(backend);
        if answers == 0 {
            return self.say_end(backend, close);
        }
        self.stage = Stage::Closing(Ending::AwaitRelease { answers, close });
        self.arm(backend, backend.turn.settings.close_wait_ns, Deadline::Close);
    }

    fn say_end(&mut self, backend: &mut Backend, close: Option<Box<Exception>>) {
        match close {
            Some(exception) => self.say_close(backend, &exception),
            None => self.say_close_ok(backend),
        }
    }

    fn say_close(&mut self, backend: &mut Backend, exception: &Exception) {
        let text = reply_text(exception.code, &exception.explanation);
        let close = ConnectionClose {
            reply_code: exception.code.code(),
            reply_text: &text,
            class_id: exception.method.0,
            method_id: exception.method.1,
        };
        self.write(backend, 0, &close);
        self.stage = Stage::Closing(Ending::AwaitCloseOk);
        self.arm(backend, backend.turn.settings.close_wait_ns, Deadline::Close);
    }

    /// Both sides have closed: the outbox is sent, then the socket closes.
    fn say_close_ok(&mut self, backend: &mut Backend) {
        self.write(backend, 0, &ConnectionCloseOk {});
        self.end(backend);
    }

    /// Closes the socket once everything is written.
    pub(super) fn end(&mut self, backend: &mut Backend) {
        self.stage = Stage::Ended;
        if let Some(writer) = backend.outputs.writers.get_mut(self.id) {
            writer.ending = true;
        }
        self.arm(backend, backend.turn.settings.close_wait_ns, Deadline::Close);
    }

    /// Closes the socket at once; what is unwritten is lost.
    pub fn cut(&mut self, backend: &mut Backend) {
        self.release(backend);
        self.stage = Stage::Ended;
        self.pending.clear();
        if let Some(writer) = backend.outputs.writers.get_mut(self.id)
            && !std::mem::replace(&mut writer.cut, true)
        {
            writer.ending = true;
            backend.outputs.operations.push_back(Operation::Close { connection: self.id });
        }
    }

    /// The broker stops.
    pub fn stop(&mut self, backend: &mut Backend) {
        match self.stage {
            Stage::Running(_) => {
                let code = leveret_amqp::ReplyCode::ConnectionForced;
                self.close_connection(
                    backend,
                    &Exception::new(code, "broker forced connection closure"),
                );
                // It may have been blocked, and its pending bytes may contain close-ok.
                self.resume(backend);
            }
            Stage::Header(..) | Stage::Handshake(_) => self.cut(backend),
            Stage::Closing(_) | Stage::Ended => {}
        }
    }

    /// One more home, or the control state, has released the connection.
    pub(super) fn released(&mut self, backend: &mut Backend) {
        let Stage::Closing(Ending::AwaitRelease { answers, close }) = &mut self.stage else {
            return;
        };
        *answers -= 1;
        if *answers == 0 {
            let close = close.take();
            self.say_end(backend, close);
            self.resume(backend);
        }
    }

    /// A deadline has come.
    pub fn deadline(&mut self, backend: &mut Backend, deadline: Deadline) {
        match (deadline, &mut self.stage) {
            (Deadline::Heartbeat, Stage::Running(_)) => self.heartbeat_due(backend),
            (Deadline::Backlog, Stage::Running(_)) => self.backlog_stays(backend),
            (Deadline::Handshake, Stage::Header(..) | Stage::Handshake(_)) => {
                backend.counts.handshakes_timed_out += 1;
                self.cut(backend);
            }
            (Deadline::Silence, Stage::Closing(Ending::Silent(exception))) => {
                let Some(exception) = exception.take() else {
                    return self.cut(backend);
                };
                self.close_connection(backend, &exception);
                // As RabbitMQ: no longer wait for a peer that never logged in.
                self.arm(backend, backend.turn.settings.silent_close_delay_ns, Deadline::Close);
            }
            (Deadline::Close, Stage::Closing(_) | Stage::Ended) => self.cut(backend),
            _ => {}
        }
    }

    /// Releases everything that the connection holds. Returns how many replies will follow: one of
    /// each home of its channels, and one of the control state for its exclusive queues.
    fn release(&mut self, backend: &mut Backend) -> usize {
        let owner = self.owner(backend);
        let asker = ChannelKey { owner, channel: 0, incarnation: 0 };
        let numbers: Vec<u16> = self.channels.iter().map(|channel| channel.key.channel).collect();
        let homes = self.leave_channels(backend, asker, &numbers);
        for number in numbers {
            self.remove_channel(backend, number);
        }
        let Stage::Running(session) = &mut self.stage else {
            return homes;
        };
        let owns_exclusive = std::mem::take(&mut session.owns_exclusive);
        if owns_exclusive {
            let request = Request::OwnerGone(owner);
            backend.outputs.work(backend.turn.control(), Mail::Control(Box::new(request)));
        }
        homes + usize::from(owns_exclusive)
    }

    /// Ends the writing halves of channels: due confirms are written, and all homes that know the
    /// channels take back their deliveries. A home gets one mail for all channels, so that no
    /// message returned by one is delivered to another. Returns how many homes will answer to
    /// `asker`.
    fn leave_channels(
        &mut self,
        backend: &mut Backend,
        asker: ChannelKey,
        numbers: &[u16],
    ) -> usize {
        // Before the channels go: a confirm that is gathered or due would be lost with them.
        backend.outputs.flush_confirms();
        let Some(writer) = backend.outputs.writers.get_mut(self.id) else { return 0 };
        writer.write_confirms();
        let mut left: BTreeMap<ShardId, Vec<ChannelKey>> = BTreeMap::new();
        for outbound in numbers.iter().filter_map(|number| writer.close_channel(*number)) {
            for home in &outbound.homes {
                left.entry(*home).or_default().push(outbound.key);
            }
        }
        let homes = left.len();
        for (home, channels) in left {
            backend.outputs.work(home, Mail::ChannelsEnded { asker, channels });
        }
        homes
    }

    pub(super) fn write(&mut self, backend: &mut Backend, number: u16, method: &impl Encode) {
        if let Some(writer) = backend.outputs.writers.get_mut(self.id) {
            encode_frame(number, method, &mut writer.outbox.scratch);
        }
    }

    pub(super) fn arm(&mut self, backend: &mut Backend, delay_ns: u64, deadline: Deadline) {
        backend.deadlines.arm(backend.turn.now.after(delay_ns), (self.id, deadline));
    }
}

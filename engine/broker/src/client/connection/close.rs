//! How channels and connections end.

use std::collections::BTreeMap;

use leveret_amqp::method::{
    ChannelClose, ChannelCloseOk, ConnectionClose, ConnectionCloseOk, Encode, encode_frame,
};
use leveret_amqp::reply::reply_text;

use crate::client::channel::{Awaited, Awaiting};
use crate::control::Request;
use crate::delivery::operation::Operation;
use crate::error::Exception;
use crate::id::{ChannelKey, ShardId};
use crate::mesh::mail::Mail;
use crate::shard::core::Core;

use super::{Connection, Deadline, Stage};

/// Why a connection reads nothing any more.
#[derive(Debug)]
pub enum Ending {
    /// We said close and wait for close-ok.
    AwaitCloseOk,
    /// What the connection held is being let go of, which so many will say. Then we say close with
    /// the exception, or close-ok.
    AwaitRelease {
        /// Homes and the control state, those that have answered excepted.
        answers: usize,
        /// Why we end the connection, unless its client does.
        close: Option<Box<Exception>>,
    },
    /// Silence until the deadline, then this, or no word at all.
    Silent(Option<Box<Exception>>),
}

impl Connection {
    /// Ends one channel with an exception. Its number is free again after close-ok.
    pub(super) fn close_channel(&mut self, core: &mut Core, number: u16, exception: &Exception) {
        let Some(index) = self.channel_index(number) else {
            return;
        };
        self.channels[index].closing = true;
        self.release_channel(core, index, Some(Box::new(exception.clone())));
    }

    /// The client ends a channel.
    pub(super) fn channel_closed(&mut self, core: &mut Core, number: u16) {
        if let Some(index) = self.channel_index(number) {
            self.release_channel(core, index, None);
        }
    }

    /// Has all homes let go of a channel. Its client hears of its end when they have, as with
    /// `RabbitMQ`: an auto-delete queue is gone then, and a message is back in its queue.
    fn release_channel(&mut self, core: &mut Core, index: usize, close: Option<Box<Exception>>) {
        let key = self.channels[index].key;
        let homes = self.leave_channels(core, key, &[key.channel]);
        self.await_homes(core, key, homes, close);
    }

    /// One more home has let go of the channel.
    pub(super) fn home_left(
        &mut self,
        core: &mut Core,
        channel: ChannelKey,
        homes: usize,
        close: Option<Box<Exception>>,
    ) {
        self.await_homes(core, channel, homes - 1, close);
    }

    fn await_homes(
        &mut self,
        core: &mut Core,
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
            self.say_channel_close(core, channel.channel, &exception);
        } else {
            self.remove_channel(core, channel.channel);
            self.write(core, channel.channel, &ChannelCloseOk {});
        }
    }

    fn say_channel_close(&mut self, core: &mut Core, number: u16, exception: &Exception) {
        let text = reply_text(exception.code, &exception.explanation);
        let close = ChannelClose {
            reply_code: exception.code.code(),
            reply_text: &text,
            class_id: exception.method.0,
            method_id: exception.method.1,
        };
        self.write(core, number, &close);
    }

    /// Forgets a channel; its number is free again.
    pub(super) fn remove_channel(&mut self, core: &mut Core, number: u16) {
        if let Some(index) = self.channel_index(number) {
            self.channels.remove(index);
            core.counts.channels_closed += 1;
        }
    }

    /// Ends the connection with an exception.
    pub(super) fn close_connection(&mut self, core: &mut Core, exception: &Exception) {
        self.leave(core, Some(Box::new(exception.clone())));
    }

    /// The client ends the connection.
    pub(super) fn connection_closed(&mut self, core: &mut Core) {
        self.leave(core, None);
    }

    /// Lets go of everything. As with `RabbitMQ` the client hears that the connection ends when its
    /// exclusive and auto-delete queues are gone: the next connection may declare them anew.
    fn leave(&mut self, core: &mut Core, close: Option<Box<Exception>>) {
        let answers = self.release(core);
        if answers == 0 {
            return self.say_end(core, close);
        }
        self.stage = Stage::Closing(Ending::AwaitRelease { answers, close });
        self.arm(core, core.settings.close_wait_ns, Deadline::Close);
    }

    fn say_end(&mut self, core: &mut Core, close: Option<Box<Exception>>) {
        match close {
            Some(exception) => self.say_close(core, &exception),
            None => self.say_close_ok(core),
        }
    }

    fn say_close(&mut self, core: &mut Core, exception: &Exception) {
        let text = reply_text(exception.code, &exception.explanation);
        let close = ConnectionClose {
            reply_code: exception.code.code(),
            reply_text: &text,
            class_id: exception.method.0,
            method_id: exception.method.1,
        };
        self.write(core, 0, &close);
        self.stage = Stage::Closing(Ending::AwaitCloseOk);
        self.arm(core, core.settings.close_wait_ns, Deadline::Close);
    }

    /// Both sides are done with talking: what is written goes out, then the socket closes.
    fn say_close_ok(&mut self, core: &mut Core) {
        self.write(core, 0, &ConnectionCloseOk {});
        self.end(core);
    }

    /// Closes the socket once everything is written.
    pub(super) fn end(&mut self, core: &mut Core) {
        self.stage = Stage::Ended;
        if let Some(writer) = core.exits.writers.get_mut(self.id) {
            writer.ending = true;
        }
        self.arm(core, core.settings.close_wait_ns, Deadline::Close);
    }

    /// Closes the socket at once; what is unwritten is lost.
    pub fn cut(&mut self, core: &mut Core) {
        self.release(core);
        self.stage = Stage::Ended;
        self.pending.clear();
        if let Some(writer) = core.exits.writers.get_mut(self.id)
            && !std::mem::replace(&mut writer.cut, true)
        {
            writer.ending = true;
            core.operations.push_back(Operation::Close { connection: self.id });
        }
    }

    /// The broker stops.
    pub fn stop(&mut self, core: &mut Core) {
        match self.stage {
            Stage::Running(_) => {
                let code = leveret_amqp::ReplyCode::ConnectionForced;
                self.close_connection(
                    core,
                    &Exception::new(code, "broker forced connection closure"),
                );
                // It may have been blocked: what it held back can contain close-ok.
                self.resume(core);
            }
            Stage::Header(..) | Stage::Handshake(_) => self.cut(core),
            Stage::Closing(_) | Stage::Ended => {}
        }
    }

    /// One more has let go of the connection.
    pub(super) fn released(&mut self, core: &mut Core) {
        let Stage::Closing(Ending::AwaitRelease { answers, close }) = &mut self.stage else {
            return;
        };
        *answers -= 1;
        if *answers == 0 {
            let close = close.take();
            self.say_end(core, close);
            self.resume(core);
        }
    }

    /// A deadline has come.
    pub fn deadline(&mut self, core: &mut Core, deadline: Deadline) {
        match (deadline, &mut self.stage) {
            (Deadline::Heartbeat, Stage::Running(_)) => self.heartbeat_due(core),
            (Deadline::Backlog, Stage::Running(_)) => self.backlog_stays(core),
            (Deadline::Handshake, Stage::Header(..) | Stage::Handshake(_)) => {
                core.counts.handshakes_timed_out += 1;
                self.cut(core);
            }
            (Deadline::Silence, Stage::Closing(Ending::Silent(exception))) => {
                let Some(exception) = exception.take() else {
                    return self.cut(core);
                };
                self.close_connection(core, &exception);
                // RabbitMQ waits no longer for a peer that never logged in.
                self.arm(core, core.settings.silent_close_delay_ns, Deadline::Close);
            }
            (Deadline::Close, Stage::Closing(_) | Stage::Ended) => self.cut(core),
            _ => {}
        }
    }

    /// Lets go of everything the connection holds. Returns how many will say that they have let go
    /// of it, too: homes of its channels, and the control state for its exclusive queues.
    fn release(&mut self, core: &mut Core) -> usize {
        let owner = self.owner(core);
        let asker = ChannelKey { owner, channel: 0, incarnation: 0 };
        let numbers: Vec<u16> = self.channels.iter().map(|channel| channel.key.channel).collect();
        let homes = self.leave_channels(core, asker, &numbers);
        for number in numbers {
            self.remove_channel(core, number);
        }
        let Stage::Running(session) = &mut self.stage else {
            return homes;
        };
        if session.blocks.lift(crate::pressure::Pressure::Log) {
            core.log_waiters.remove(&self.id);
        }
        let owns_exclusive = std::mem::take(&mut session.owns_exclusive);
        if owns_exclusive {
            let request = Request::OwnerGone(owner);
            core.work(core.control(), Mail::Control(Box::new(request)));
        }
        homes + usize::from(owns_exclusive)
    }

    /// Ends the writing halves of channels: due confirms are written, and all homes that know
    /// them take back what they had. A home hears of all channels at once, so that none of them
    /// is given what another one returns. Returns how many homes will tell `asker` that they
    /// have.
    fn leave_channels(&mut self, core: &mut Core, asker: ChannelKey, numbers: &[u16]) -> usize {
        core.note_confirmed();
        let Some(writer) = core.exits.writers.get_mut(self.id) else { return 0 };
        writer.write_confirms();
        let mut left: BTreeMap<ShardId, Vec<ChannelKey>> = BTreeMap::new();
        for outbound in numbers.iter().filter_map(|number| writer.close_channel(*number)) {
            for home in &outbound.homes {
                left.entry(*home).or_default().push(outbound.key);
            }
        }
        let homes = left.len();
        for (home, channels) in left {
            core.work(home, Mail::Leave { asker, channels });
        }
        homes
    }

    pub(super) fn write(&mut self, core: &mut Core, number: u16, method: &impl Encode) {
        if let Some(writer) = core.exits.writers.get_mut(self.id) {
            encode_frame(number, method, &mut writer.outbox.scratch);
        }
    }

    pub(super) fn arm(&mut self, core: &mut Core, delay_ns: u64, deadline: Deadline) {
        core.timers.arm(core.now.after(delay_ns), (self.id, deadline));
    }
}

//! A client that acts at random: it publishes, consumes, violates rules and disconnects.

use leveret_amqp::limits::Tune;
use leveret_amqp::method::{BasicQos, ChannelClose, ChannelOpen, ConfirmSelect};

use crate::client::Client;
use crate::random::Random;
use crate::workload::channel_view::{ChannelView, Role, Source, Waiting};
use crate::workload::oracle::Oracle;
use crate::world::World;

/// The most channels of one client at a time.
const CHANNELS_MAX: usize = 4;

/// One client of a run.
#[derive(Debug)]
pub(crate) struct RandomClient {
    pub(crate) name: usize,
    pub(crate) connection: Client,
    pub(crate) channels: Vec<ChannelView>,
    pub(crate) frame_max: u32,
    /// Its connection is about to end: the client has reset or half-closed it, or the broker stops.
    pub(crate) doomed: bool,
    /// It has sent `connection.close`.
    leaving: bool,
    /// The connection is gone, with all its channels.
    pub(crate) gone: bool,
}

impl RandomClient {
    /// Connects to a random shard.
    pub(crate) fn new(world: &mut World, name: usize) -> Self {
        let shard = world.random.index(world.shards().len()) as u16;
        let frame_max = world.random.pick(&[4096, 4096, 5000, 131_072]);
        let tune = Tune { channel_max: 2047, frame_max, heartbeat: 0 };
        Self {
            name,
            connection: Client::connect(world, shard, tune),
            channels: Vec::new(),
            frame_max,
            doomed: false,
            leaving: false,
            gone: false,
        }
    }

    /// Receives, and then does something at random. Returns a description for the log.
    ///
    /// # Errors
    /// What the broker has done wrong.
    pub(crate) fn turn(
        &mut self,
        world: &mut World,
        oracle: &mut Oracle,
    ) -> Result<Option<String>, String> {
        // Does not always read: slow readers are the hardest clients for a broker.
        if world.random.chance(60) {
            self.receive(world, oracle)?;
        }
        if self.gone || self.doomed || self.leaving || !self.connection.open {
            return Ok(None);
        }
        let done = match world.random.below(100) {
            chance if chance < world.faults().reset_percent => Some(self.reset(world, oracle)),
            98 if world.random.chance(30) => Some(self.send_close(world, oracle)),
            99 if world.random.chance(20) => Some(self.half_close(world, oracle)),
            _ if self.channels.len() < CHANNELS_MAX && world.random.chance(25) => {
                self.open_channel(world, oracle)
            }
            _ => self.act(world, oracle),
        };
        Ok(done)
    }

    /// Receives what has come. True if there was anything.
    ///
    /// # Errors
    /// What the broker has done wrong.
    pub(crate) fn receive(
        &mut self,
        world: &mut World,
        oracle: &mut Oracle,
    ) -> Result<bool, String> {
        if self.gone {
            return Ok(false);
        }
        // Checked before reading, so that nothing more can come after what is read now.
        let over = world.is_closed(self.connection.socket);
        let any = self.connection.receive(world)?;
        for incoming in self.connection.take() {
            self.observe(oracle, &incoming)?;
        }
        // If both sides have sent close, the broker may not have read everything before ours.
        if let Some(closed) = &self.connection.closed {
            if !self.doomed && !self.leaving {
                return Err(format!("client {} was closed: {closed:?}", self.name));
            }
            self.lose_all(oracle);
        } else if self.connection.left {
            self.gone = true;
            self.channels.clear();
        } else if over {
            // Deadlines end slow handshakes, and closes that take too long.
            let hasty = self.leaving && world.faults().jump_percent > 0;
            let expected = self.doomed || hasty || !self.connection.open;
            if !expected {
                return Err(format!("client {} was cut off", self.name));
            }
            self.lose_all(oracle);
        }
        Ok(any)
    }

    /// Whether the connection is open and this client has not begun to leave.
    pub(crate) fn is_active(&self) -> bool {
        self.connection.open && !self.gone && !self.doomed && !self.leaving
    }

    /// Disconnects, with `connection.close` or with a reset.
    pub(crate) fn disconnect(&mut self, world: &mut World, oracle: &mut Oracle) {
        if self.gone || self.doomed || self.leaving {
            return;
        }
        if self.connection.open && world.random.chance(70) {
            self.send_close(world, oracle);
        } else {
            self.reset(world, oracle);
        }
    }

    /// Removes a channel whose state in the broker is unknown.
    pub(crate) fn lose_channel(&mut self, at: usize, oracle: &mut Oracle) {
        let channel = self.channels.remove(at);
        oracle.break_channel(channel.uid);
        channel.report_takers_left(oracle);
    }

    /// The broker has crashed.
    pub(crate) fn lose_broker(&mut self, oracle: &mut Oracle) {
        self.lose_all(oracle);
    }

    fn lose_all(&mut self, oracle: &mut Oracle) {
        self.gone = true;
        self.doomed = true;
        while !self.channels.is_empty() {
            self.lose_channel(0, oracle);
        }
    }

    fn reset(&mut self, world: &mut World, oracle: &mut Oracle) -> String {
        world.reset(self.connection.socket);
        self.lose_all(oracle);
        "resets".into()
    }

    fn half_close(&mut self, world: &mut World, oracle: &mut Oracle) -> String {
        world.half_close(self.connection.socket);
        self.doomed = true;
        for channel in &self.channels {
            // The broker reads everything that was written, but its answers may be cut off.
            oracle.break_channel(channel.uid);
            channel.report_takers_left(oracle);
        }
        "half-closes".into()
    }

    fn send_close(&mut self, world: &mut World, oracle: &mut Oracle) -> String {
        self.connection.send_close(world);
        self.leaving = true;
        for channel in &mut self.channels {
            oracle.leave_channel(channel.uid);
            channel.report_takers_left(oracle);
            channel.waiting = Waiting::Close;
        }
        "says goodbye".into()
    }

    fn open_channel(&mut self, world: &mut World, oracle: &mut Oracle) -> Option<String> {
        let number = (1..=CHANNELS_MAX as u16)
            .find(|number| self.channels.iter().all(|channel| channel.number != *number))?;
        let role = match world.random.below(10) {
            0..=2 => Role::Publisher { confirm: true },
            3..=4 => Role::Publisher { confirm: false },
            5..=8 => Role::Consumer,
            _ => Role::Churner,
        };
        let uid = oracle.open_channel();
        if role == Role::Churner {
            oracle.break_channel(uid);
        }
        self.connection.send(world, number, &ChannelOpen {});
        let mut channel = ChannelView::new(number, uid, role);
        if matches!(role, Role::Publisher { confirm: true }) {
            self.connection.send(world, number, &ConfirmSelect { nowait: true });
        }
        if role == Role::Consumer {
            self.limit(world, &mut channel);
        }
        self.channels.push(channel);
        Some(format!("opens channel {number} ({uid}) as {role:?}"))
    }

    /// Sets the prefetch limits of a channel without consumers.
    fn limit(&mut self, world: &mut World, channel: &mut ChannelView) {
        channel.prefetch = world.random.pick(&[0, 1, 2, 10]);
        channel.global = world.random.pick(&[0, 0, 1, 3, 7]);
        channel.answers_due = 2;
        for (prefetch_count, global) in [(channel.prefetch, false), (channel.global, true)] {
            let qos = BasicQos { prefetch_size: 0, prefetch_count, global };
            self.connection.send(world, channel.number, &qos);
        }
    }

    fn act(&mut self, world: &mut World, oracle: &mut Oracle) -> Option<String> {
        if self.channels.is_empty() {
            return None;
        }
        let at = world.random.index(self.channels.len());
        let may_settle = !matches!(self.channels[at].waiting, Waiting::Close | Waiting::Refusal);
        if may_settle && !self.channels[at].held.is_empty() && world.random.chance(50) {
            return Some(self.settle(world, oracle, at));
        }
        if self.channels[at].waiting != Waiting::Nothing {
            return None;
        }
        if world.random.chance(3) {
            return Some(self.close_channel(world, oracle, at));
        }
        if world.random.chance(2) {
            return Some(self.violate(world, oracle, at));
        }
        match self.channels[at].role {
            Role::Publisher { confirm } => Some(self.publish_some(world, oracle, at, confirm)),
            Role::Consumer => self.consume_something(world, oracle, at),
            Role::Churner => self.churn(world, oracle, at),
        }
    }

    fn close_channel(&mut self, world: &mut World, oracle: &mut Oracle, at: usize) -> String {
        let channel = &mut self.channels[at];
        let close = ChannelClose { reply_code: 200, reply_text: "done", class_id: 0, method_id: 0 };
        self.connection.send(world, channel.number, &close);
        oracle.leave_channel(channel.uid);
        channel.report_takers_left(oracle);
        channel.waiting = Waiting::Close;
        format!("closes channel {}", channel.uid)
    }

    /// A random body size: tiny, small, about one frame, or several frames.
    pub(crate) fn body_size(&self, random: &mut Random, size_max: usize) -> usize {
        let frame = self.frame_max as usize;
        let wanted = match random.below(20) {
            0..=11 => random.index(200),
            12..=14 => 500 + random.index(30),
            15..=16 => frame - 16 + random.index(32),
            17..=18 => random.index(20_000),
            _ => random.index(200_000),
        };
        wanted.min(size_max)
    }
}

impl ChannelView {
    /// Reports to the oracle that the consumers and open gets of this channel are about to be gone.
    pub(crate) fn report_takers_left(&self, oracle: &mut Oracle) {
        let consumers = self.consumers.values().map(|consumer| (&consumer.source, consumer.no_ack));
        let held = self.held.values().map(|held| (&held.source, false));
        let getting = match &self.waiting {
            Waiting::Get(source, no_ack) => Some((source, *no_ack)),
            _ => None,
        };
        for (source, no_ack) in consumers.chain(held).chain(getting) {
            if let Source::Lasting(queue) = source {
                oracle.taker_left(*queue, no_ack);
            }
        }
    }
}

//! A client with a will of its own: it publishes, consumes, errs and dies by chance.

use leveret_amqp::limits::Tune;
use leveret_amqp::method::{BasicQos, ChannelClose, ChannelOpen, ConfirmSelect};

use crate::client::Client;
use crate::random::Random;
use crate::workload::channel_view::{Role, Seat, Source, Waiting};
use crate::workload::oracle::Oracle;
use crate::world::World;

/// Channels one agent has at a time.
const SEATS_MAX: usize = 4;

/// One client of a run.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) name: usize,
    pub(crate) client: Client,
    pub(crate) seats: Vec<Seat>,
    pub(crate) frame_max: u32,
    /// It has reset or half-closed its connection, or done what ends connections.
    pub(crate) doomed: bool,
    /// It has said `connection.close`.
    leaving: bool,
    /// It is gone, and all its channels with it.
    pub(crate) gone: bool,
}

impl Agent {
    /// Connects to a shard by chance.
    pub(crate) fn new(world: &mut World, name: usize) -> Self {
        let shard = world.random.index(world.shards().len()) as u16;
        let frame_max = world.random.pick(&[4096, 4096, 5000, 131_072]);
        let tune = Tune { channel_max: 2047, frame_max, heartbeat: 0 };
        Self {
            name,
            client: Client::connect(world, shard, tune),
            seats: Vec::new(),
            frame_max,
            doomed: false,
            leaving: false,
            gone: false,
        }
    }

    /// Reads what has come and does something by chance. Returns what, for the log.
    ///
    /// # Errors
    /// What the broker has done wrong.
    pub(crate) fn turn(
        &mut self,
        world: &mut World,
        oracle: &mut Oracle,
    ) -> Result<Option<String>, String> {
        // A client that is slow to read is the broker's hardest.
        if world.random.chance(60) {
            self.listen(world, oracle)?;
        }
        if self.gone || self.doomed || self.leaving || !self.client.open {
            return Ok(None);
        }
        let done = match world.random.below(100) {
            chance if chance < world.faults().reset_percent => Some(self.reset(world, oracle)),
            98 if world.random.chance(30) => Some(self.say_goodbye(world, oracle)),
            99 if world.random.chance(20) => Some(self.half_close(world, oracle)),
            _ if self.seats.len() < SEATS_MAX && world.random.chance(25) => {
                self.open_seat(world, oracle)
            }
            _ => self.act(world, oracle),
        };
        Ok(done)
    }

    /// Reads what has come. True if there was anything.
    ///
    /// # Errors
    /// What the broker has done wrong.
    pub(crate) fn listen(
        &mut self,
        world: &mut World,
        oracle: &mut Oracle,
    ) -> Result<bool, String> {
        if self.gone {
            return Ok(false);
        }
        // Asked first: what is read after it is all there ever will be.
        let over = world.is_closed(self.client.socket);
        let any = self.client.listen(world)?;
        for heard in self.client.take() {
            self.hear(oracle, &heard)?;
        }
        // Where both said close, the broker may not have read all that came before ours.
        if let Some(closed) = &self.client.closed {
            if !self.doomed && !self.leaving {
                return Err(format!("client {} was closed: {closed:?}", self.name));
            }
            self.lose_all(oracle);
        } else if self.client.left {
            self.gone = true;
            self.seats.clear();
        } else if over {
            // Deadlines end handshakes, and goodbyes that take too long.
            let hasty = self.leaving && world.faults().jump_percent > 0;
            let expected = self.doomed || hasty || !self.client.open;
            if !expected {
                return Err(format!("client {} was cut off", self.name));
            }
            self.lose_all(oracle);
        }
        Ok(any)
    }

    /// Whether the connection is open and this client means to go on.
    pub(crate) fn is_settled(&self) -> bool {
        self.client.open && !self.gone && !self.doomed && !self.leaving
    }

    /// Leaves, properly or not, as chance has it.
    pub(crate) fn depart(&mut self, world: &mut World, oracle: &mut Oracle) {
        if self.gone || self.doomed || self.leaving {
            return;
        }
        if self.client.open && world.random.chance(70) {
            self.say_goodbye(world, oracle);
        } else {
            self.reset(world, oracle);
        }
    }

    /// A channel whose state at the server is not known any more.
    pub(crate) fn lose_seat(&mut self, at: usize, oracle: &mut Oracle) {
        let seat = self.seats.remove(at);
        oracle.break_channel(seat.uid);
        seat.tell_takers_left(oracle);
    }

    /// The broker is gone without a word.
    pub(crate) fn lose_broker(&mut self, oracle: &mut Oracle) {
        self.lose_all(oracle);
    }

    fn lose_all(&mut self, oracle: &mut Oracle) {
        self.gone = true;
        self.doomed = true;
        while !self.seats.is_empty() {
            self.lose_seat(0, oracle);
        }
    }

    fn reset(&mut self, world: &mut World, oracle: &mut Oracle) -> String {
        world.reset(self.client.socket);
        self.lose_all(oracle);
        "resets".into()
    }

    fn half_close(&mut self, world: &mut World, oracle: &mut Oracle) -> String {
        world.half_close(self.client.socket);
        self.doomed = true;
        for seat in &self.seats {
            // All that was written will be read, but answers may be cut off.
            oracle.break_channel(seat.uid);
            seat.tell_takers_left(oracle);
        }
        "half-closes".into()
    }

    fn say_goodbye(&mut self, world: &mut World, oracle: &mut Oracle) -> String {
        self.client.say_goodbye(world);
        self.leaving = true;
        for seat in &mut self.seats {
            oracle.leave_channel(seat.uid);
            seat.tell_takers_left(oracle);
            seat.waiting = Waiting::Close;
        }
        "says goodbye".into()
    }

    fn open_seat(&mut self, world: &mut World, oracle: &mut Oracle) -> Option<String> {
        let number = (1..=SEATS_MAX as u16)
            .find(|number| self.seats.iter().all(|seat| seat.number != *number))?;
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
        self.client.send(world, number, &ChannelOpen {});
        let mut seat = Seat::new(number, uid, role);
        if matches!(role, Role::Publisher { confirm: true }) {
            self.client.send(world, number, &ConfirmSelect { nowait: true });
        }
        if role == Role::Consumer {
            self.limit(world, &mut seat);
        }
        self.seats.push(seat);
        Some(format!("opens channel {number} ({uid}) as {role:?}"))
    }

    /// Sets the prefetch limits of a channel that has no consumers yet.
    fn limit(&mut self, world: &mut World, seat: &mut Seat) {
        seat.prefetch = world.random.pick(&[0, 1, 2, 10]);
        seat.global = world.random.pick(&[0, 0, 1, 3, 7]);
        seat.answers_due = 2;
        for (prefetch_count, global) in [(seat.prefetch, false), (seat.global, true)] {
            let qos = BasicQos { prefetch_size: 0, prefetch_count, global };
            self.client.send(world, seat.number, &qos);
        }
    }

    fn act(&mut self, world: &mut World, oracle: &mut Oracle) -> Option<String> {
        if self.seats.is_empty() {
            return None;
        }
        let at = world.random.index(self.seats.len());
        let may_settle = !matches!(self.seats[at].waiting, Waiting::Close | Waiting::Refusal);
        if may_settle && !self.seats[at].held.is_empty() && world.random.chance(50) {
            return Some(self.settle(world, oracle, at));
        }
        if self.seats[at].waiting != Waiting::Nothing {
            return None;
        }
        if world.random.chance(3) {
            return Some(self.close_seat(world, oracle, at));
        }
        if world.random.chance(2) {
            return Some(self.err(world, oracle, at));
        }
        match self.seats[at].role {
            Role::Publisher { confirm } => Some(self.publish_some(world, oracle, at, confirm)),
            Role::Consumer => self.consume_something(world, oracle, at),
            Role::Churner => self.churn(world, oracle, at),
        }
    }

    fn close_seat(&mut self, world: &mut World, oracle: &mut Oracle, at: usize) -> String {
        let seat = &mut self.seats[at];
        let close = ChannelClose { reply_code: 200, reply_text: "done", class_id: 0, method_id: 0 };
        self.client.send(world, seat.number, &close);
        oracle.leave_channel(seat.uid);
        seat.tell_takers_left(oracle);
        seat.waiting = Waiting::Close;
        format!("closes channel {}", seat.uid)
    }

    /// A body size by chance: empty-ish, small, about a frame, or several frames.
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

impl Seat {
    /// Whoever takes from lasting queues here is about to be gone.
    pub(crate) fn tell_takers_left(&self, oracle: &mut Oracle) {
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

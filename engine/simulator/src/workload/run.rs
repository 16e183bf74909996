//! One run: a topology, random clients, and an oracle that accounts for every message.

use std::collections::VecDeque;

use leveret_amqp::Method;
use leveret_amqp::method::BasicGet;
use leveret_broker::alarms::Alarms;
use leveret_broker::client::backend::Backend;
use leveret_broker::settings::Settings;
use leveret_broker::shard::report::BlockedCounts;

use crate::client::Client;
use crate::client::methods::delete_queue;
use crate::identity::Identity;
use crate::random::Random;
use crate::workload::channel_view::{Source, Waiting};
use crate::workload::oracle::{Delivered, Oracle};
use crate::workload::random_client::RandomClient;
use crate::workload::topology::{
    LASTING_QUEUES, PASSING_QUEUES, declare_all, is_durable, lasting, redeclare_transient,
};
use crate::world::World;
use crate::world::faults::Faults;
use crate::world::restart::Crash;

/// How many of the last actions are kept for the report of a failure.
const ACTIONS_KEPT: usize = 40;

/// The limit on steps until a world without new requests must be at rest.
const QUIET_STEPS_MAX: u64 = 3_000_000;

/// By then all deadlines of a closing connection have passed.
const CLOSING_NS: u64 = 120_000_000_000;

/// What to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The seed of all choices.
    pub seed: u64,
    /// Turns of clients; between two turns the world makes a random number of steps.
    pub steps: u64,
    /// The number of shards; random if it is not given.
    pub shards: Option<u16>,
}

/// The result of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages published.
    pub published: usize,
    /// Deliveries checked.
    pub delivered: u64,
    /// Messages lost, as AMQP allows, to clients that left without acknowledging anything.
    pub lost_by_contract: u64,
    /// Steps of the world.
    pub steps: u64,
}

/// A run in progress.
pub(crate) struct Run {
    pub(crate) world: World,
    oracle: Oracle,
    clients: Vec<RandomClient>,
    /// The last actions, oldest first.
    pub(crate) actions: VecDeque<String>,
    clients_started: usize,
    clients_max: usize,
}

/// Runs a plan.
///
/// # Errors
/// What was wrong, with the last actions of the clients, one per line.
pub fn run(plan: Plan) -> Result<Tally, String> {
    let mut run = Run::new(plan);
    match run.all(plan.steps) {
        Ok(tally) => Ok(tally),
        Err(error) => Err(run.describe(&error)),
    }
}

impl Run {
    pub(crate) fn new(plan: Plan) -> Self {
        let mut random = Random::new(plan.seed);
        let shards = plan.shards.unwrap_or_else(|| random.between(1, 4) as u16);
        let faults = Faults::random(&mut random);
        let clients_max = random.between(2, 6) as usize;
        Self {
            world: World::new(random.bits(), shards, faults, Settings::default()),
            oracle: Oracle::of(is_durable),
            clients: Vec::new(),
            actions: VecDeque::new(),
            clients_started: 0,
            clients_max,
        }
    }

    pub(crate) fn describe(&self, error: &str) -> String {
        let actions: Vec<&str> = self.actions.iter().map(String::as_str).collect();
        let (faults, shards) = (self.world.faults(), self.world.shards().len());
        format!("{}\n{shards} shards, {faults:?}\n{error}", actions.join("\n"))
    }

    pub(crate) fn all(&mut self, steps: u64) -> Result<Tally, String> {
        declare_all(&mut self.world);
        for _ in 0..steps {
            if self.world.random.below(1000) < self.world.faults().restart_permille {
                self.restart()?;
            } else {
                self.step()?;
            }
        }
        self.world.alarm_all(Alarms::default());
        self.come_to_rest()?;
        self.check_rest()?;
        if self.world.is_all_durable() {
            self.oracle.all_durable();
        }
        if self.world.faults().crash_permille > 0 && self.world.random.chance(50) {
            self.crash()?;
        }
        if self.world.random.chance(10) {
            self.restart()?;
        }
        self.empty()?;
        self.check_empty()?;
        let (published, delivered, lost_by_contract) = self.oracle.totals();
        Ok(Tally { published, delivered, lost_by_contract, steps: self.world.steps() })
    }

    fn step(&mut self) -> Result<(), String> {
        let patience = self.world.faults().patience_steps();
        for _ in 0..self.world.random.below(patience) {
            self.world.step();
        }
        self.clients.retain(|client| !client.gone);
        if self.clients.len() < self.clients_max && self.world.random.chance(20) {
            let client = RandomClient::new(&mut self.world, self.clients_started);
            self.log(&format!("client {} connects", self.clients_started));
            self.clients_started += 1;
            self.clients.push(client);
            return Ok(());
        }
        if self.world.random.chance(self.world.faults().jump_percent) {
            let jump = self.world.random.below(self.world.faults().jump_max_ns);
            self.world.advance(jump);
            self.log(&format!("the clock jumps by {jump} ns"));
        }
        self.alarm_by_chance();
        let crashes = self.world.random.below(1000) < self.world.faults().crash_permille;
        if crashes || self.world.has_failed() {
            return self.crash();
        }
        if self.clients.is_empty() {
            return Ok(());
        }
        let at = self.world.random.index(self.clients.len());
        let client = &mut self.clients[at];
        if let Some(action) = client.turn(&mut self.world, &mut self.oracle)? {
            let action = format!("client {} {action}", client.name);
            self.log(&action);
        }
        Ok(())
    }

    fn alarm_by_chance(&mut self) {
        let percent = self.world.faults().alarm_percent;
        if percent == 0 || !self.world.random.chance(percent) {
            return;
        }
        let shard = self.world.random.index(self.world.shards().len()) as u16;
        let [memory, disk] = [50; 2].map(|percent| self.world.random.chance(percent));
        self.world.alarm(shard, Alarms { memory, disk });
        self.log(&format!("alarms of shard {shard}: memory {memory}, disk {disk}"));
    }

    /// The broker crashes at an arbitrary moment. Only what clients know about their messages
    /// counts.
    fn crash(&mut self) -> Result<(), String> {
        for client in &mut self.clients {
            client.lose_broker(&mut self.oracle);
        }
        self.clients.clear();
        self.oracle.crashed();
        let kept_percent = self.world.random.pick(&[0, 50, 100]);
        let crash = self.world.random.pick(&[Crash::Kill, Crash::PowerCut { kept_percent }]);
        self.log(&format!("the broker dies: {crash:?}"));
        self.world.crash(crash)?;
        redeclare_transient(&mut self.world);
        Ok(())
    }

    /// The broker stops cleanly and another one starts. The power may be cut in between: everything
    /// is durable by then.
    fn restart(&mut self) -> Result<(), String> {
        self.stop()?;
        self.clients.clear();
        self.oracle.stopped();
        self.world.close_logs();
        self.come_to_rest()?;
        if !self.world.is_all_durable() {
            return Err("the end of a log is not durable".into());
        }
        let cut = Crash::PowerCut { kept_percent: 0 };
        let end = self.world.random.pick(&[Crash::Kill, cut]);
        self.log(&format!("the broker has stopped: {end:?}"));
        self.world.restart(end)?;
        redeclare_transient(&mut self.world);
        Ok(())
    }

    fn log(&mut self, action: &str) {
        if self.actions.len() == ACTIONS_KEPT {
            self.actions.pop_front();
        }
        self.actions.push_back(format!("{:>8}  {action}", self.world.steps()));
    }

    /// Lets the world come to rest; clients only receive.
    fn come_to_rest(&mut self) -> Result<(), String> {
        let start = self.world.steps();
        loop {
            while self.world.step() {
                if self.world.steps() - start > QUIET_STEPS_MAX {
                    return Err("the world finds no rest".into());
                }
                if self.world.steps().is_multiple_of(64) {
                    self.receive()?;
                }
            }
            if !self.receive()? {
                return Ok(());
            }
        }
    }

    fn receive(&mut self) -> Result<bool, String> {
        let mut any = false;
        for client in &mut self.clients {
            any |= client.receive(&mut self.world, &mut self.oracle)?;
        }
        Ok(any)
    }

    /// Checks a world at rest: everything is answered, and no consumer waits for a message that is
    /// ready.
    fn check_rest(&mut self) -> Result<(), String> {
        self.clients.retain(|client| !client.gone);
        self.oracle.check_quiet()?;
        if !self.world.is_mail_drained() {
            return Err("mail is left in a quiet world".into());
        }
        let blocked = self.world.shards().iter().map(leveret_broker::shard::Shard::blocked_counts);
        if let Some(blocked) = blocked.into_iter().find(|of| *of != BlockedCounts::default()) {
            return Err(format!("a connection is held back in a quiet world: {blocked:?}"));
        }
        for client in self.clients.iter().filter(|client| client.is_active()) {
            if !client.connection.is_between_messages() {
                return Err(format!("client {} has half a message", client.name));
            }
            for channel in &client.channels {
                let idle = channel.waiting == Waiting::Nothing;
                if !idle {
                    return Err(format!(
                        "channel {} still waits: {:?}",
                        channel.uid, channel.waiting
                    ));
                }
                for consumer in
                    channel.consumers.values().filter(|consumer| channel.wants(consumer))
                {
                    self.check_served(&consumer.source, channel.uid)?;
                }
            }
        }
        Ok(())
    }

    fn check_served(&self, source: &Source, channel: u32) -> Result<(), String> {
        let ready = self.ready(&source.name());
        if ready == 0 {
            return Ok(());
        }
        Err(format!("{ready} messages in {} although channel {channel} wants them", source.name()))
    }

    fn ready(&self, name: &str) -> usize {
        let queues = self.world.shards().iter().flat_map(|shard| shard.backend().home.queues());
        let named = queues.filter(|queue| &*queue.meta.name == name && !queue.closing);
        named.map(|queue| queue.kind.ready_count()).sum()
    }

    /// Stops the broker while clients still act. All clients have to be disconnected.
    fn stop(&mut self) -> Result<(), String> {
        for _ in 0..20 {
            self.step()?;
        }
        self.world.stop();
        self.log("the broker stops");
        for client in &mut self.clients {
            client.doomed = true;
        }
        self.come_to_rest()?;
        self.world.advance(CLOSING_NS);
        self.come_to_rest()?;
        let stopped = self.world.shards().iter().all(leveret_broker::shard::Shard::is_stopped);
        // Bodies at rest may be in some.
        let kept =
            self.world.shards().iter().map(|shard| shard.backend().home.store().receive_buffers());
        let (lent, kept) = (self.world.lent_buffers(), kept.sum());
        if stopped && lent <= kept {
            return Ok(());
        }
        Err(format!("stopped: {stopped}, {lent} lent, {kept} kept"))
    }

    /// All clients leave; then one more client consumes everything that is left.
    fn empty(&mut self) -> Result<(), String> {
        for client in &mut self.clients {
            client.disconnect(&mut self.world, &mut self.oracle);
        }
        self.come_to_rest()?;
        self.world.advance(CLOSING_NS);
        self.come_to_rest()?;
        self.clients.retain(|client| !client.gone);
        if let Some(client) = self.clients.first() {
            return Err(format!("client {} cannot leave", client.name));
        }
        let mut last = Client::open(&mut self.world, 0);
        let channel = self.oracle.open_channel();
        for queue in 0..LASTING_QUEUES {
            self.drain(&mut last, channel, queue)?;
        }
        for queue in 0..PASSING_QUEUES {
            last.request(&mut self.world, 1, &delete_queue(&format!("passing-{queue}")));
        }
        last.close(&mut self.world);
        Ok(())
    }

    fn drain(&mut self, client: &mut Client, channel: u32, queue: usize) -> Result<(), String> {
        loop {
            let get = BasicGet { queue: &lasting(queue), no_ack: true };
            let incoming = client.request(&mut self.world, 1, &get);
            let Some(Method::BasicGetOk(got)) = incoming.method() else {
                return Ok(());
            };
            let identity = Identity::read(incoming.body())?;
            let (redelivered, no_ack, consumer) = (got.redelivered, true, 0);
            let delivered = Delivered { queue, identity, redelivered, channel, consumer, no_ack };
            self.oracle.delivered(delivered)?;
        }
    }

    /// Checks that no connection and no message is left.
    fn check_empty(&mut self) -> Result<(), String> {
        self.oracle.check_all_accounted()?;
        let lent = self.world.lent_buffers();
        if lent > 0 {
            return Err(format!("{lent} receive buffers are not returned"));
        }
        if !self.world.is_mail_drained() {
            return Err("mail is left in an empty world".into());
        }
        for shard in self.world.shards() {
            let Backend { home, outputs, turn, .. } = shard.backend();
            let consumers: usize = home.queues().map(|queue| queue.consumers.count()).sum();
            let remains = [
                ("messages", home.store().messages()),
                ("shared bytes", home.store().live_bytes()),
                ("references", home.store().all_references()),
                ("bytes for sockets", outputs.writers.waiting_bytes()),
                ("channels of queues", home.channels()),
                ("writers", outputs.writers.iter().count()),
                ("connections", shard.connections()),
                ("consumers", consumers),
            ];
            if let Some((what, count)) = remains.into_iter().find(|(_, count)| *count > 0) {
                return Err(format!("{count} {what} are left on shard {}", turn.shard));
            }
        }
        Ok(())
    }
}

//! Runs the steps of a sequence on one broker and writes down what comes.
//!
//! Messages move on their own, so after each step the run waits until all is still, without
//! sleeping: the answer to a method comes after everything the broker did before it on the same
//! path. First the channel of the step answers, then each queue (asked from the same connection,
//! so that the question comes after the messages), then every channel that listens.

mod channel;
mod receive;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use leveret_amqp::TableRef;
use leveret_amqp::method::{
    BasicGet, ChannelClose, ChannelFlow, ChannelOpen, ConnectionClose, ExchangeDeclare,
    ExchangeDelete, QueueDeclare, QueueDelete,
};

use channel::Channel;

use crate::link::{Event, Link};
use crate::record::{ChannelId, StepRecord, Transcript, line_of};
use crate::step::{Action, CHANNEL_CLOSE, Names, Odd, Step, Tag};

/// Connections a sequence may use.
pub(crate) const CONNECTION_COUNT: usize = 2;

/// The channel for questions of the test itself; sequences use low numbers.
const HELPER: u16 = 100;

/// A delivery tag that no run reaches.
const UNKNOWN_TAG: u64 = 1_000_000;

/// `RabbitMQ`'s queues answer questions about their size before they take messages that came
/// earlier, so they are asked until the answer stays the same. More than three times was never
/// seen.
const SETTLE_COUNT_MAX: usize = 6;

/// How names begin that the server chose. For a queue 16 octets in base64 without padding follow;
/// what follows for a consumer is up to the broker.
const GENERATED_QUEUE: &str = "amq.gen-";
const GENERATED_CONSUMER: &str = "amq.ctag-";
const GENERATED_SIZE: usize = 22;

/// A broker learns of a lost socket in its own time, and nothing tells when it is done.
const DROP_DELAY: Duration = Duration::from_millis(40);

/// One of the two brokers, with connections that outlive a sequence.
#[derive(Debug)]
pub(crate) struct Side {
    address: SocketAddr,
    links: [Option<Link>; CONNECTION_COUNT],
    helper_is_open: [bool; CONNECTION_COUNT],
}

impl Side {
    /// No connection yet.
    pub(crate) const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            links: [const { None }; CONNECTION_COUNT],
            helper_is_open: [false; CONNECTION_COUNT],
        }
    }

    /// Runs a sequence. All names begin with `prefix`, which no other run may use.
    pub(crate) fn run(&mut self, steps: &[Step], prefix: &str) -> Transcript {
        let mut run = Run {
            side: self,
            prefix: prefix.to_owned(),
            generated: Vec::new(),
            consumer_tags: Vec::new(),
            body_count: 0,
            queues: BTreeMap::new(),
            exchanges: BTreeSet::new(),
            channels: BTreeMap::new(),
            step: 0,
            declares_exclusive: false,
            publishes_once: false,
            something_closed: false,
            record: StepRecord::default(),
        };
        let mut transcript = Transcript::default();
        for (index, step) in steps.iter().enumerate() {
            run.step = index;
            run.perform(step);
            transcript.steps.push(std::mem::take(&mut run.record));
        }
        run.step = steps.len();
        run.finish(&mut transcript);
        transcript
    }
}

/// One sequence on one broker.
#[derive(Debug)]
struct Run<'s> {
    side: &'s mut Side,
    prefix: String,
    generated: Vec<String>,
    consumer_tags: Vec<String>,
    body_count: u64,
    /// Queues that may exist, with the connection that has them to itself.
    queues: BTreeMap<String, Option<usize>>,
    exchanges: BTreeSet<String>,
    channels: BTreeMap<ChannelId, Channel>,
    step: usize,
    declares_exclusive: bool,
    /// What is returned in this step is what was published in it.
    publishes_once: bool,
    /// An error ended a channel in this step: what it held goes to others.
    something_closed: bool,
    record: StepRecord,
}

/// The names as one connection sees them.
struct View<'r, 's> {
    run: &'r mut Run<'s>,
    connection: usize,
}

impl Names for View<'_, '_> {
    fn prefix(&self) -> &str {
        &self.run.prefix
    }

    fn generated(&self, index: u8) -> Option<&str> {
        self.run.generated.get(usize::from(index)).map(String::as_str)
    }

    fn take_tag(&mut self, channel: u16, tag: Tag, multiple: bool) -> Option<u64> {
        let channel = self.run.channels.get_mut(&(self.connection, channel));
        match tag {
            Tag::Unknown => Some(UNKNOWN_TAG),
            Tag::Zero => {
                if let Some(channel) = channel.filter(|_| multiple) {
                    channel.outstanding.clear();
                }
                Some(0)
            }
            Tag::Used => Some(channel.and_then(|channel| channel.used).unwrap_or(UNKNOWN_TAG)),
            Tag::Outstanding(index) => channel?.take_outstanding(index, false, multiple),
            Tag::EndOfStep(index) => channel?.take_outstanding(index, true, multiple),
        }
    }

    fn next_body(&mut self) -> u64 {
        self.run.body_count += 1;
        self.run.body_count
    }
}

impl Run<'_> {
    fn perform(&mut self, step: &Step) {
        self.something_closed = false;
        let connection = step.connection;
        match &step.action {
            Action::ConnectionClose => self.close_connection(connection),
            Action::ConnectionDrop => {
                self.side.links[connection] = None;
                self.forget_connection(connection);
                thread::sleep(DROP_DELAY);
            }
            action => {
                if !self.send(step, action) {
                    self.channel_record((connection, step.channel))
                        .replies
                        .push("nothing to acknowledge".to_owned());
                    return;
                }
            }
        }
        if step.action.has_consequences() || self.something_closed {
            self.settle(connection);
        }
    }

    /// Sends an action and waits for the channel to answer. False if there was nothing to send.
    fn send(&mut self, step: &Step, action: &Action) -> bool {
        let id = (step.connection, step.channel);
        self.connect(step.connection);
        let opens = matches!(action, Action::ChannelOpen);
        if !step.raw && !opens && !self.channels.contains_key(&id) {
            self.open(id);
        }
        let mut out = Vec::new();
        let mut view = View { run: self, connection: step.connection };
        if !action.encode(step.channel, &mut view, &mut out) {
            return false;
        }
        self.note(id, action);
        let Some(link) = &mut self.side.links[step.connection] else {
            return true;
        };
        link.out().extend_from_slice(&out);
        // Behind these no question may follow at once: nobody is there to answer, or it is an
        // error to ask while a commit is not done.
        let is_last = matches!(
            action,
            Action::ChannelClose | Action::Odd(Odd::CloseOkUnasked) | Action::TxCommit
        );
        if !is_last {
            link.method(step.channel, &ChannelFlow { active: true });
        }
        link.flush();
        let flows = action.parts().iter();
        let mut flow_ok_left =
            1 + flows.filter(|part| matches!(part, Action::Flow { active: true })).count();
        while self.side.links[step.connection].is_some() {
            let received = self.receive(step.connection);
            let ours = received.channel == step.channel;
            match received.event {
                Event::ChannelClose(_) | Event::ChannelCloseOk if ours => break,
                Event::Reply(reply) if ours && reply.starts_with("TxCommitOk") => break,
                Event::FlowOk { .. } if ours => {
                    flow_ok_left -= 1;
                    if flow_ok_left == 0 {
                        break;
                    }
                    self.channel_record(id).replies.push("flow-ok".to_owned());
                }
                _ => {}
            }
        }
        self.wait_for_confirms(id);
        true
    }

    /// Remembers what the answers will not say.
    fn note(&mut self, id: ChannelId, action: &Action) {
        self.declares_exclusive = false;
        self.publishes_once = matches!(action, Action::Publish(_));
        for part in action.parts() {
            match part {
                Action::QueueDeclare { queue, flags, .. } => {
                    self.declares_exclusive = flags.exclusive && !flags.passive;
                    if flags.nowait {
                        let view = View { run: self, connection: id.0 };
                        let name = queue.text(&view);
                        self.add_queue(&name, id.0);
                    }
                }
                Action::ExchangeDeclare { exchange, flags, .. } if !flags.passive => {
                    let name = exchange.text(&View { run: self, connection: id.0 });
                    if !name.is_empty() && !name.starts_with("amq.") {
                        self.exchanges.insert(name);
                    }
                }
                _ => {
                    if let Some(channel) = self.channels.get_mut(&id) {
                        channel.note(part);
                    }
                }
            }
        }
    }

    fn add_queue(&mut self, name: &str, connection: usize) {
        let name = name.replace(['\r', '\n'], "");
        if name.is_empty() {
            return;
        }
        let owner = self.declares_exclusive.then_some(connection);
        self.queues.entry(name).or_insert(owner);
    }

    /// Persistent messages are confirmed when they are stored, whenever that is.
    fn wait_for_confirms(&mut self, id: ChannelId) {
        while let Some(channel) = self.channels.get(&id)
            && let Some(published) = channel.published
            && (channel.confirmed.len() as u64) < published
        {
            self.receive(id.0);
        }
    }

    /// Waits until nothing moves any more; see the top of the file.
    fn settle(&mut self, connection: usize) {
        if self.side.links.iter().all(Option::is_none) {
            self.connect(connection);
        }
        let first = if self.side.links[connection].is_some() { connection } else { 1 - connection };
        for _ in 0..SETTLE_COUNT_MAX {
            let before = self.record.queues.clone();
            self.ask_queues(first);
            let other = 1 - first;
            if self.side.links[other].is_some() {
                self.ask_queues(other);
            }
            self.ask_channels();
            if self.record.queues == before {
                return;
            }
        }
    }

    /// Asks each queue how many messages and consumers it has.
    fn ask_queues(&mut self, connection: usize) {
        let queues = self.queues.iter();
        let visible = queues.filter(|(_, owner)| owner.is_none_or(|owner| owner == connection));
        let mut names: VecDeque<String> = visible.map(|(name, _)| name.clone()).collect();
        while !names.is_empty() && self.side.links[connection].is_some() {
            self.open_helper(connection);
            let Some(link) = &mut self.side.links[connection] else {
                return;
            };
            for name in &names {
                link.method(HELPER, &passive(name));
            }
            link.flush();
            while let Some(name) = names.front().cloned()
                && self.side.links[connection].is_some()
            {
                let state = match self.helper_event(connection) {
                    Some(Event::Declared { messages, consumers, .. }) => {
                        format!("{messages} messages, {consumers} consumers")
                    }
                    Some(Event::ChannelClose(close)) => {
                        self.queues.remove(&name);
                        self.readable_close(&close)
                    }
                    other => format!("{other:?}"),
                };
                let name = self.readable(&name);
                self.record.queues.insert(name, state);
                names.pop_front();
                if !self.side.helper_is_open[connection] {
                    break;
                }
            }
        }
    }

    /// Asks each channel that may receive something unasked.
    fn ask_channels(&mut self) {
        for connection in 0..CONNECTION_COUNT {
            let Some(link) = &mut self.side.links[connection] else {
                continue;
            };
            let channels = self.channels.iter();
            let mut listening: BTreeSet<u16> = channels
                .filter(|(id, channel)| id.0 == connection && channel.listens)
                .map(|(id, _)| id.1)
                .collect();
            for channel in &listening {
                link.method(*channel, &ChannelFlow { active: true });
            }
            link.flush();
            while !listening.is_empty() && self.side.links[connection].is_some() {
                let received = self.receive(connection);
                if let Event::FlowOk { .. } | Event::ChannelClose(_) = received.event {
                    listening.remove(&received.channel);
                }
            }
        }
    }

    /// Closes all channels, empties and deletes all queues and exchanges.
    fn finish(&mut self, transcript: &mut Transcript) {
        let open: Vec<ChannelId> = self.channels.keys().copied().collect();
        for id in open {
            if let Some(link) = &mut self.side.links[id.0] {
                link.method(id.1, &CHANNEL_CLOSE);
                link.flush();
            }
            while self.channels.contains_key(&id) {
                self.receive(id.0);
            }
            // What it held may go to a consumer of the next.
            if self.channels.values().any(|channel| channel.listens) {
                self.settle(id.0);
            }
        }
        self.settle(0);
        transcript.end = std::mem::take(&mut self.record);
        let queues: Vec<_> = self.queues.clone().into_iter().collect();
        for (name, owner) in queues {
            let connection = owner.unwrap_or(0);
            let contents = self.empty_queue(connection, &name);
            transcript.contents.insert(self.readable(&name), contents);
        }
        for name in std::mem::take(&mut self.exchanges) {
            let state = self.remove_exchange(&name);
            transcript.exchanges.insert(self.readable(&name), state);
        }
    }

    fn empty_queue(&mut self, connection: usize, name: &str) -> Vec<String> {
        self.connect(connection);
        self.open_helper(connection);
        let mut contents = Vec::new();
        loop {
            let Some(link) = &mut self.side.links[connection] else {
                return contents;
            };
            link.method(HELPER, &BasicGet { queue: name, no_ack: true });
            link.flush();
            match self.helper_event(connection) {
                Some(Event::Got { redelivered, messages, message, .. }) => {
                    let message = self.readable(&line_of(&message));
                    contents
                        .push(format!("{message} redelivered={redelivered} and {messages} more"));
                }
                Some(Event::Reply(_)) => break,
                Some(Event::ChannelClose(close)) => {
                    contents.push(self.readable_close(&close));
                    return contents;
                }
                other => {
                    contents.push(format!("{other:?}"));
                    return contents;
                }
            }
        }
        if let Some(link) = &mut self.side.links[connection] {
            let (if_unused, if_empty, nowait) = (false, false, false);
            link.method(HELPER, &QueueDelete { queue: name, if_unused, if_empty, nowait });
            link.flush();
            self.helper_event(connection);
        }
        contents
    }

    /// Whether the exchange is there; then deletes it.
    fn remove_exchange(&mut self, name: &str) -> String {
        self.connect(0);
        self.open_helper(0);
        let Some(link) = &mut self.side.links[0] else {
            return "no connection".to_owned();
        };
        link.method(
            HELPER,
            &ExchangeDeclare {
                exchange: name,
                kind: "direct",
                passive: true,
                durable: false,
                auto_delete: false,
                internal: false,
                nowait: false,
                arguments: TableRef::default(),
            },
        );
        link.flush();
        let state = match self.helper_event(0) {
            Some(Event::Reply(_)) => "is there".to_owned(),
            Some(Event::ChannelClose(close)) => return self.readable_close(&close),
            other => return format!("{other:?}"),
        };
        if let Some(link) = &mut self.side.links[0] {
            let (if_unused, nowait) = (false, false);
            link.method(HELPER, &ExchangeDelete { exchange: name, if_unused, nowait });
            link.flush();
            self.helper_event(0);
        }
        state
    }
}

/// Opening and closing.
impl Run<'_> {
    fn connect(&mut self, connection: usize) {
        if self.side.links[connection].is_some() {
            return;
        }
        self.side.helper_is_open[connection] = false;
        match Link::connect(self.side.address) {
            Ok(link) => self.side.links[connection] = Some(link),
            Err(error) => self.violation((connection, 0), &format!("cannot connect: {error}")),
        }
    }

    fn open(&mut self, id: ChannelId) {
        let Some(link) = &mut self.side.links[id.0] else {
            return;
        };
        link.method(id.1, &ChannelOpen {});
        link.flush();
        while self.side.links[id.0].is_some() && !self.channels.contains_key(&id) {
            self.receive(id.0);
        }
    }

    fn open_helper(&mut self, connection: usize) {
        if self.side.helper_is_open[connection] {
            return;
        }
        if let Some(link) = &mut self.side.links[connection] {
            link.method(HELPER, &ChannelOpen {});
            link.flush();
            self.side.helper_is_open[connection] =
                self.helper_event(connection) == Some(Event::ChannelOpened);
        }
    }

    fn close_connection(&mut self, connection: usize) {
        self.connect(connection);
        if let Some(link) = &mut self.side.links[connection] {
            let ChannelClose { reply_code, reply_text, class_id, method_id } = CHANNEL_CLOSE;
            link.method(0, &ConnectionClose { reply_code, reply_text, class_id, method_id });
            link.flush();
        }
        while self.side.links[connection].is_some() {
            let received = self.receive(connection);
            if received.event == Event::ConnectionCloseOk {
                self.side.links[connection] = None;
            }
        }
        self.forget_connection(connection);
    }

    /// Its channels are gone, and nobody has its queues to himself any more.
    fn forget_connection(&mut self, connection: usize) {
        self.side.helper_is_open[connection] = false;
        self.channels.retain(|id, _| id.0 != connection);
        for owner in self.queues.values_mut() {
            if *owner == Some(connection) {
                *owner = None;
            }
        }
    }
}

fn passive(queue: &str) -> QueueDeclare<'_> {
    QueueDeclare { passive: true, ..QueueDeclare::named(queue) }
}

//! Runs the steps of a sequence on one broker and writes down what comes.
//!
//! Messages move on their own, so after each step the run waits until all is still, without
//! sleeping: the answer to a method comes after everything the broker did before it on the same
//! path. First the channel of the step answers, then each queue (asked from the same connection,
//! so that the question comes after the messages), then every channel that listens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use leveret_amqp::TableRef;
use leveret_amqp::method::{
    BasicGet, ChannelClose, ChannelCloseOk, ChannelFlow, ChannelOpen, ConnectionClose,
    ConnectionCloseOk, ExchangeDeclare, ExchangeDelete, QueueDeclare, QueueDelete,
};

use crate::link::{Close, Event, Link, Received};
use crate::record::{ChannelId, ChannelRecord, StepRecord, Transcript, line_of};
use crate::step::{Action, CHANNEL_CLOSE, Names, Step, Tag};

/// Connections a sequence may use.
pub(crate) const CONNECTION_COUNT: usize = 2;

/// The channel for questions of the test itself; sequences use low numbers.
const HELPER: u16 = 100;

/// A delivery tag that no run reaches.
const UNKNOWN_TAG: u64 = 1_000_000;

/// How names begin that the server chose: 16 octets in base64 without padding follow.
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

/// What the run knows of an open channel.
#[derive(Debug, Default)]
struct Channel {
    /// Deliveries to be acknowledged, oldest first; those of one step in the order of their
    /// consumers.
    outstanding: Vec<Outstanding>,
    /// The last tag that was acknowledged.
    used: Option<u64>,
    /// Of the gets that were not answered yet: whether they are without acknowledgement.
    gets: VecDeque<bool>,
    /// Consumers without acknowledgement.
    no_ack: BTreeSet<String>,
    /// Whether the consumer whose name the server is about to choose is one.
    next_is_no_ack: bool,
    /// Publishes since `confirm.select`.
    published: Option<u64>,
    /// Those that were confirmed.
    confirmed: BTreeSet<u64>,
    /// Consumers or confirms can make it receive something unasked.
    listens: bool,
}

#[derive(Debug)]
struct Outstanding {
    step: usize,
    source: String,
    tag: u64,
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
        self.run
            .generated
            .get(usize::from(index))
            .map(String::as_str)
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
            Tag::Used => Some(
                channel
                    .and_then(|channel| channel.used)
                    .unwrap_or(UNKNOWN_TAG),
            ),
            Tag::Outstanding(index) => channel?.take_outstanding(index, false, multiple),
            Tag::EndOfStep(index) => channel?.take_outstanding(index, true, multiple),
        }
    }

    fn next_body(&mut self) -> u64 {
        self.run.body_count += 1;
        self.run.body_count
    }
}

impl Channel {
    fn take_outstanding(&mut self, index: u8, end_of_step: bool, multiple: bool) -> Option<u64> {
        if self.outstanding.is_empty() {
            return None;
        }
        let index = usize::from(index) % self.outstanding.len();
        let step = self.outstanding[index].step;
        let tag = if end_of_step {
            let same = self.outstanding.iter().filter(|one| one.step == step);
            same.map(|one| one.tag).max()?
        } else {
            self.outstanding[index].tag
        };
        self.outstanding.retain(|one| {
            if multiple {
                one.tag > tag
            } else {
                one.tag != tag
            }
        });
        self.used = Some(tag);
        Some(tag)
    }
}

impl Run<'_> {
    fn perform(&mut self, step: &Step) {
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
        if step.action.has_consequences() {
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
        let mut view = View {
            run: self,
            connection: step.connection,
        };
        if !action.encode(step.channel, &mut view, &mut out) {
            return false;
        }
        self.note(id, action);
        let Some(link) = &mut self.side.links[step.connection] else {
            return true;
        };
        link.out().extend_from_slice(&out);
        let closes = matches!(action, Action::ChannelClose);
        if !closes {
            link.method(step.channel, &ChannelFlow { active: true });
        }
        link.flush();
        let flows = action.parts().iter();
        let mut flow_ok_left = 1 + flows
            .filter(|part| matches!(part, Action::Flow { active: true }))
            .count();
        while self.side.links[step.connection].is_some() {
            let received = self.receive(step.connection);
            let ours = received.channel == step.channel;
            match received.event {
                Event::ChannelClose(_) | Event::ChannelCloseOk if ours => break,
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
        for part in action.parts() {
            match part {
                Action::QueueDeclare { queue, flags, .. } => {
                    self.declares_exclusive = flags.exclusive && !flags.passive;
                    if flags.nowait {
                        let view = View {
                            run: self,
                            connection: id.0,
                        };
                        let name = queue.text(&view);
                        self.add_queue(&name, id.0);
                    }
                }
                Action::ExchangeDeclare {
                    exchange, flags, ..
                } if !flags.passive => {
                    let name = exchange.text(&View {
                        run: self,
                        connection: id.0,
                    });
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
        let first = if self.side.links[connection].is_some() {
            connection
        } else {
            1 - connection
        };
        self.ask_queues(first);
        let other = 1 - first;
        if self.side.links[other].is_some() {
            self.ask_queues(other);
        }
        self.ask_channels();
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
                    Some(Event::Declared {
                        messages,
                        consumers,
                        ..
                    }) => {
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
            link.method(
                HELPER,
                &BasicGet {
                    queue: name,
                    no_ack: true,
                },
            );
            link.flush();
            match self.helper_event(connection) {
                Some(Event::Got {
                    redelivered,
                    messages,
                    message,
                    ..
                }) => {
                    let message = self.readable(&line_of(&message));
                    contents.push(format!(
                        "{message} redelivered={redelivered} and {messages} more"
                    ));
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
            link.method(
                HELPER,
                &QueueDelete {
                    queue: name,
                    if_unused,
                    if_empty,
                    nowait,
                },
            );
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
            link.method(
                HELPER,
                &ExchangeDelete {
                    exchange: name,
                    if_unused,
                    nowait,
                },
            );
            link.flush();
            self.helper_event(0);
        }
        state
    }
}

impl Channel {
    fn note(&mut self, part: &Action) {
        match part {
            Action::Get { no_ack, .. } => self.gets.push_back(*no_ack),
            Action::Consume {
                consumer_tag,
                no_ack,
                ..
            } => {
                self.listens = true;
                self.next_is_no_ack = *no_ack;
                if *no_ack {
                    self.no_ack.insert((*consumer_tag).to_owned());
                } else {
                    self.no_ack.remove(*consumer_tag);
                }
            }
            Action::Recover { .. } | Action::RecoverAsync { .. } => self.outstanding.clear(),
            Action::ConfirmSelect { .. } => {
                self.listens = true;
                self.published.get_or_insert(0);
            }
            Action::Publish(_) => {
                if let Some(published) = &mut self.published {
                    *published += 1;
                }
            }
            _ => {}
        }
    }

    fn add_outstanding(&mut self, step: usize, source: String, tag: u64) {
        self.outstanding.push(Outstanding { step, source, tag });
        self.outstanding.sort_by(|left, right| {
            (left.step, &left.source, left.tag).cmp(&(right.step, &right.source, right.tag))
        });
    }
}

/// Receiving.
impl Run<'_> {
    /// The next thing that comes on a connection, written down.
    fn receive(&mut self, connection: usize) -> Received {
        let Some(link) = &mut self.side.links[connection] else {
            return Received {
                channel: 0,
                event: Event::End,
            };
        };
        let received = link.receive();
        let id = (connection, received.channel);
        match &received.event {
            Event::ConnectionClose(_) => {
                link.method(0, &ConnectionCloseOk {});
                link.flush();
            }
            Event::ChannelClose(_) => {
                link.method(received.channel, &ChannelCloseOk {});
                link.flush();
            }
            _ => {}
        }
        if received.channel == HELPER {
            if let Event::ChannelClose(_) = received.event {
                self.side.helper_is_open[connection] = false;
            }
            return received;
        }
        self.write_down(id, &received.event);
        received
    }

    fn write_down(&mut self, id: ChannelId, event: &Event) {
        match event {
            Event::FlowOk { .. } => return,
            Event::ChannelOpened => {
                self.channels.insert(id, Channel::default());
                self.channel_record(id).replies.push("open-ok".to_owned());
            }
            Event::ChannelCloseOk => {
                self.channels.remove(&id);
                self.channel_record(id).replies.push("close-ok".to_owned());
            }
            Event::ChannelClose(close) => {
                self.channels.remove(&id);
                let close = self.readable_close(close);
                self.channel_record(id)
                    .replies
                    .push(format!("channel.close {close}"));
            }
            Event::ConnectionClose(close) => {
                let close = self.readable_close(close);
                self.channel_record(id)
                    .replies
                    .push(format!("connection.close {close}"));
            }
            Event::End | Event::Silence | Event::Garbled(_) => {
                self.side.links[id.0] = None;
                self.forget_connection(id.0);
                self.channel_record(id).replies.push(format!("{event:?}"));
            }
            Event::Declared {
                queue,
                messages,
                consumers,
            } => {
                if queue.starts_with(GENERATED_QUEUE)
                    && queue.len() == GENERATED_QUEUE.len() + GENERATED_SIZE
                    && !self.generated.contains(queue)
                {
                    self.generated.push(queue.clone());
                }
                self.add_queue(queue, id.0);
                let queue = self.readable(queue);
                let text =
                    format!("declare-ok '{queue}' {messages} messages {consumers} consumers");
                self.channel_record(id).replies.push(text);
            }
            Event::Reply(reply) => {
                if reply.starts_with("BasicGetEmpty")
                    && let Some(channel) = self.channels.get_mut(&id)
                {
                    channel.gets.pop_front();
                }
                let reply = self.readable(reply);
                self.channel_record(id).replies.push(reply);
            }
            _ => self.write_down_message(id, event),
        }
    }

    fn write_down_message(&mut self, id: ChannelId, event: &Event) {
        let step = self.step;
        match event {
            Event::Consuming { consumer_tag } => self.write_down_consumer(id, consumer_tag),
            Event::Delivered {
                consumer_tag,
                tag,
                redelivered,
                message,
            } => {
                self.learn_consumer(id, consumer_tag);
                let text = self.readable(&line_of(message));
                let source = self.readable(consumer_tag);
                if let Some(channel) = self.channels.get_mut(&id)
                    && !channel.no_ack.contains(consumer_tag)
                {
                    channel.add_outstanding(step, source.clone(), *tag);
                }
                let record = self.channel_record(id);
                record.delivery_tags.insert(*tag);
                let text = format!("{text} redelivered={redelivered}");
                record.deliveries.entry(source).or_default().push(text);
            }
            Event::Got {
                tag,
                redelivered,
                messages,
                message,
            } => {
                let text = self.readable(&line_of(message));
                if let Some(channel) = self.channels.get_mut(&id)
                    && channel.gets.pop_front() == Some(false)
                {
                    channel.add_outstanding(step, String::new(), *tag);
                }
                let text =
                    format!("get-ok {tag} {text} redelivered={redelivered} and {messages} more");
                self.channel_record(id).replies.push(text);
            }
            Event::Returned {
                code,
                text,
                message,
            } => {
                let message = self.readable(&line_of(message));
                let record = self.channel_record(id);
                record.returns.push(format!("{code} {text} {message}"));
            }
            Event::Confirm { tag, multiple, ack } => self.confirm(id, *tag, *multiple, *ack),
            Event::Cancelled { consumer_tag } => {
                let consumer_tag = self.readable(consumer_tag);
                if !self.channel_record(id).cancels.insert(consumer_tag) {
                    self.violation(id, "cancelled twice");
                }
            }
            other => self.channel_record(id).replies.push(format!("{other:?}")),
        }
    }

    fn write_down_consumer(&mut self, id: ChannelId, consumer_tag: &str) {
        self.learn_consumer(id, consumer_tag);
        let consumer_tag = self.readable(consumer_tag);
        let record = self.channel_record(id);
        if record.deliveries.contains_key(&consumer_tag) {
            self.violation(id, "delivery before consume-ok");
        }
        self.channel_record(id)
            .replies
            .push(format!("consume-ok '{consumer_tag}'"));
    }

    fn confirm(&mut self, id: ChannelId, tag: u64, multiple: bool, ack: bool) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let mut confirmed = BTreeSet::from([tag]);
        if multiple {
            confirmed.extend((1..tag).filter(|tag| !channel.confirmed.contains(tag)));
        }
        let twice = channel.confirmed.contains(&tag);
        let beyond = channel
            .published
            .is_none_or(|published| tag == 0 || tag > published);
        channel.confirmed.extend(&confirmed);
        let record = self.channel_record(id);
        if ack {
            &mut record.acked
        } else {
            &mut record.nacked
        }
        .extend(confirmed);
        if twice {
            self.violation(id, "confirmed twice");
        }
        if beyond {
            self.violation(id, "confirm of what was not published");
        }
    }

    fn violation(&mut self, id: ChannelId, text: &str) {
        self.channel_record(id).violations.push(text.to_owned());
    }

    fn channel_record(&mut self, id: ChannelId) -> &mut ChannelRecord {
        self.record.channels.entry(id).or_default()
    }

    /// The next event of the helper channel, `None` when the connection is gone.
    fn helper_event(&mut self, connection: usize) -> Option<Event> {
        while self.side.links[connection].is_some() {
            let received = self.receive(connection);
            if received.channel == HELPER {
                return Some(received.event);
            }
        }
        None
    }

    /// Text without what differs from run to run.
    fn readable(&self, text: &str) -> String {
        let mut text = text.replace(&self.prefix, "~");
        for (index, name) in self.generated.iter().enumerate() {
            text = text.replace(name, &format!("<generated {index}>"));
        }
        for (index, tag) in self.consumer_tags.iter().enumerate() {
            text = text.replace(tag, &format!("<consumer {index}>"));
        }
        // A name that was refused before anybody learnt it.
        if let Some(start) = text.find(GENERATED_QUEUE) {
            let end = start + GENERATED_QUEUE.len() + GENERATED_SIZE;
            if text
                .get(start..end)
                .is_some_and(|name| !name.contains('\''))
            {
                text.replace_range(start..end, "<generated>");
            }
        }
        text
    }

    /// Learns a name that the server chose.
    fn learn_consumer(&mut self, id: ChannelId, tag: &str) {
        let size = GENERATED_CONSUMER.len() + GENERATED_SIZE;
        if !tag.starts_with(GENERATED_CONSUMER)
            || tag.len() != size
            || self.consumer_tags.iter().any(|other| other == tag)
        {
            return;
        }
        self.consumer_tags.push(tag.to_owned());
        if let Some(channel) = self.channels.get_mut(&id)
            && channel.next_is_no_ack
        {
            channel.no_ack.insert(tag.to_owned());
        }
    }

    fn readable_close(&self, close: &Close) -> String {
        let text = self.readable(&close.text);
        format!("{} '{text}' ({}, {})", close.code, close.ids.0, close.ids.1)
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
            let ChannelClose {
                reply_code,
                reply_text,
                class_id,
                method_id,
            } = CHANNEL_CLOSE;
            link.method(
                0,
                &ConnectionClose {
                    reply_code,
                    reply_text,
                    class_id,
                    method_id,
                },
            );
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
    QueueDeclare {
        queue,
        passive: true,
        durable: false,
        exclusive: false,
        auto_delete: false,
        nowait: false,
        arguments: TableRef::default(),
    }
}

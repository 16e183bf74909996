//! Receiving: everything that comes is written down as it will be compared.

use std::collections::BTreeSet;

use leveret_amqp::method::{ChannelCloseOk, ConnectionCloseOk};

use super::channel::Channel;
use super::{GENERATED_CONSUMER, GENERATED_QUEUE, GENERATED_SIZE, HELPER, Run};
use crate::link::{Close, Event, Received};
use crate::record::{ChannelId, ChannelRecord, line_of};

impl Run<'_> {
    /// The next thing that comes on a connection, written down.
    pub(super) fn receive(&mut self, connection: usize) -> Received {
        let Some(link) = &mut self.side.links[connection] else {
            return Received { channel: 0, event: Event::End };
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

    pub(super) fn write_down(&mut self, id: ChannelId, event: &Event) {
        match event {
            Event::FlowOk { .. } => {}
            Event::ChannelOpened => {
                self.channels.insert(id, Channel::default());
                self.channel_record(id).replies.push("open-ok".to_owned());
            }
            Event::ChannelCloseOk => {
                self.channels.remove(&id);
                self.channel_record(id).replies.push("close-ok".to_owned());
            }
            Event::ChannelClose(close) => {
                self.something_closed = true;
                self.channels.remove(&id);
                let close = self.readable_close(close);
                let record = self.channel_record(id);
                record.replies.push(format!("channel.close {close}"));
                // How many confirms get out before the error is a race.
                record.acked.clear();
            }
            Event::ConnectionClose(close) => {
                self.something_closed = true;
                let close = self.readable_close(close);
                self.channel_record(id).replies.push(format!("connection.close {close}"));
            }
            Event::End | Event::Silence | Event::Garbled(_) => {
                self.side.links[id.0] = None;
                self.forget_connection(id.0);
                self.channel_record(id).replies.push(format!("{event:?}"));
            }
            Event::Declared { queue, messages, consumers } => {
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

    pub(super) fn write_down_message(&mut self, id: ChannelId, event: &Event) {
        let step = self.step;
        match event {
            Event::Consuming { consumer_tag } => self.write_down_consumer(id, consumer_tag),
            Event::Delivered { consumer_tag, tag, redelivered, message } => {
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
            Event::Got { tag, redelivered, messages, message } => {
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
            Event::Returned { code, text, message } => {
                let message = self.readable(&line_of(message));
                let record = self.channel_record(id);
                record.returns.push(format!("{code} {text} {message}"));
                if !record.acked.is_empty() && self.publishes_once {
                    self.violation(id, "return behind its confirm");
                }
            }
            Event::Confirm { tag, multiple, ack } => self.confirm(id, *tag, *multiple, *ack),
            Event::Cancelled { consumer_tag } => {
                self.learn_consumer(id, consumer_tag);
                let consumer_tag = self.readable(consumer_tag);
                if !self.channel_record(id).cancels.insert(consumer_tag) {
                    self.violation(id, "cancelled twice");
                }
            }
            other => self.channel_record(id).replies.push(format!("{other:?}")),
        }
    }

    pub(super) fn write_down_consumer(&mut self, id: ChannelId, consumer_tag: &str) {
        self.learn_consumer(id, consumer_tag);
        let consumer_tag = self.readable(consumer_tag);
        let record = self.channel_record(id);
        if record.deliveries.contains_key(&consumer_tag) {
            self.violation(id, "delivery before consume-ok");
        }
        self.channel_record(id).replies.push(format!("consume-ok '{consumer_tag}'"));
    }

    pub(super) fn confirm(&mut self, id: ChannelId, tag: u64, multiple: bool, ack: bool) {
        let Some(channel) = self.channels.get_mut(&id) else {
            return;
        };
        let mut confirmed = BTreeSet::from([tag]);
        if multiple {
            confirmed.extend((1..tag).filter(|tag| !channel.confirmed.contains(tag)));
        }
        let twice = channel.confirmed.contains(&tag);
        let beyond = channel.published.is_none_or(|published| tag == 0 || tag > published);
        channel.confirmed.extend(&confirmed);
        let record = self.channel_record(id);
        if ack { &mut record.acked } else { &mut record.nacked }.extend(confirmed);
        if twice {
            self.violation(id, "confirmed twice");
        }
        if beyond {
            self.violation(id, "confirm of what was not published");
        }
    }

    pub(super) fn violation(&mut self, id: ChannelId, text: &str) {
        self.channel_record(id).violations.push(text.to_owned());
    }

    pub(super) fn channel_record(&mut self, id: ChannelId) -> &mut ChannelRecord {
        self.record.channels.entry(id).or_default()
    }

    /// The next event of the helper channel, `None` when the connection is gone.
    pub(super) fn helper_event(&mut self, connection: usize) -> Option<Event> {
        while self.side.links[connection].is_some() {
            let received = self.receive(connection);
            if received.channel == HELPER {
                return Some(received.event);
            }
        }
        None
    }

    /// Text without what differs from run to run.
    pub(super) fn readable(&self, text: &str) -> String {
        let mut text = text.replace(&self.prefix, "~");
        for (index, name) in self.generated.iter().enumerate() {
            text = text.replace(name, &format!("<generated {index}>"));
        }
        let mut tags: Vec<_> = self.consumer_tags.iter().enumerate().collect();
        // One may be the beginning of another.
        tags.sort_by_key(|(_, tag)| usize::MAX - tag.len());
        for (index, tag) in tags {
            text = text.replace(tag, &format!("<consumer {index}>"));
        }
        // A name that was refused before anybody learnt it.
        if let Some(start) = text.find(GENERATED_QUEUE) {
            let end = start + GENERATED_QUEUE.len() + GENERATED_SIZE;
            if text.get(start..end).is_some_and(|name| !name.contains('\'')) {
                text.replace_range(start..end, "<generated>");
            }
        }
        text
    }

    /// Learns a name that the server chose.
    pub(super) fn learn_consumer(&mut self, id: ChannelId, tag: &str) {
        if !tag.starts_with(GENERATED_CONSUMER)
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

    pub(super) fn readable_close(&self, close: &Close) -> String {
        let text = self.readable(&close.text);
        format!("{} '{text}' ({}, {})", close.code, close.ids.0, close.ids.1)
    }
}

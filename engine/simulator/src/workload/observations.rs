//! How a random client checks what it receives.

use leveret_amqp::Method;

use crate::client::stream::Incoming;
use crate::identity::Identity;
use crate::workload::channel_view::{ChannelView, Held, Source, Waiting};
use crate::workload::oracle::{Delivered, Oracle};
use crate::workload::random_client::RandomClient;

/// Reply codes of an expected `channel.close`.
const REFUSALS: [u16; 4] = [403, 404, 405, 406];

impl RandomClient {
    /// Checks one received method.
    pub(crate) fn observe(
        &mut self,
        oracle: &mut Oracle,
        incoming: &Incoming,
    ) -> Result<(), String> {
        let Some(method) = incoming.method() else {
            return Ok(());
        };
        let number = incoming.channel();
        let Some(at) = self.channels.iter().position(|channel| channel.number == number) else {
            return Err(format!("{} on channel {number}, which is closed", method.name()));
        };
        let channel = &mut self.channels[at];
        match &method {
            Method::ChannelClose(close) => {
                if !channel.suspect || !REFUSALS.contains(&close.reply_code) {
                    return Err(format!("channel {} refused: {close:?}", channel.uid));
                }
                if channel.waiting != Waiting::Close {
                    self.lose_channel(at, oracle);
                }
                Ok(())
            }
            Method::ChannelCloseOk(_) => {
                if channel.waiting != Waiting::Close {
                    return Err("channel.close-ok out of the blue".into());
                }
                self.channels.remove(at);
                Ok(())
            }
            // The broker sent this before it received the close.
            _ if channel.waiting == Waiting::Close => Ok(()),
            _ => channel.observe(oracle, &method, incoming.body()),
        }
    }
}

impl ChannelView {
    fn observe(
        &mut self,
        oracle: &mut Oracle,
        method: &Method<'_>,
        body: &[u8],
    ) -> Result<(), String> {
        match method {
            Method::BasicDeliver(deliver) => {
                let identity = Identity::read(body)?;
                self.deliver(oracle, deliver, identity)
            }
            Method::BasicReturn(_) => oracle.returned(self.uid, Identity::read(body)?),
            Method::BasicAck(ack) => oracle.confirmed(self.uid, ack.delivery_tag, ack.multiple),
            Method::BasicGetOk(got) => {
                let Waiting::Get(source, no_ack) = self.take_waiting() else {
                    return Err(format!("get-ok out of the blue: {got:?}"));
                };
                let identity = Identity::read(body)?;
                self.receive(oracle, &source, identity, got.redelivered, no_ack, 0)?;
                if !no_ack {
                    let held = Held { source, identity, consumer: None };
                    self.held.insert(got.delivery_tag, held);
                }
                Ok(())
            }
            Method::BasicCancel(cancel) => {
                let gone = self.consumers.remove(cancel.consumer_tag);
                match gone {
                    Some(consumer) if matches!(consumer.source, Source::Passing(_)) => Ok(()),
                    other => Err(format!("cancelled by the server: {other:?}")),
                }
            }
            Method::BasicCancelOk(ok) => {
                let Waiting::Cancel(tag) = self.take_waiting() else {
                    return Err("cancel-ok out of the blue".into());
                };
                self.consumers.remove(&tag);
                if ok.consumer_tag == tag { Ok(()) } else { Err(format!("{ok:?} for {tag}")) }
            }
            Method::BasicQosOk(_) if self.answers_due > 0 => {
                self.answers_due -= 1;
                Ok(())
            }
            Method::BasicRecoverOk(_) if self.waiting == Waiting::Recover => {
                self.waiting = Waiting::Nothing;
                Ok(())
            }
            Method::BasicNack(_) => Err("a publish was refused".into()),
            answer => self.answered(answer),
        }
    }

    fn answered(&mut self, answer: &Method<'_>) -> Result<(), String> {
        let expected = match self.waiting {
            Waiting::Open => matches!(answer, Method::ChannelOpenOk(_)),
            Waiting::Get(..) => matches!(answer, Method::BasicGetEmpty(_)),
            Waiting::Answer => true,
            _ => false,
        };
        if !expected {
            return Err(format!("{} while waiting for {:?}", answer.name(), self.waiting));
        }
        self.waiting = Waiting::Nothing;
        Ok(())
    }

    fn take_waiting(&mut self) -> Waiting {
        std::mem::replace(&mut self.waiting, Waiting::Nothing)
    }

    fn deliver(
        &mut self,
        oracle: &mut Oracle,
        deliver: &leveret_amqp::method::BasicDeliver<'_>,
        identity: Identity,
    ) -> Result<(), String> {
        let Some(consumer) = self.consumers.get(deliver.consumer_tag).cloned() else {
            return Err(format!("a delivery to no consumer: {deliver:?}"));
        };
        let (source, number) = (consumer.source.clone(), consumer.number);
        self.receive(oracle, &source, identity, deliver.redelivered, consumer.no_ack, number)?;
        if consumer.no_ack {
            return Ok(());
        }
        let held = Held { source, identity, consumer: Some(number) };
        self.held.insert(deliver.delivery_tag, held);
        self.check_prefetch(&consumer)
    }

    fn receive(
        &mut self,
        oracle: &mut Oracle,
        source: &Source,
        identity: Identity,
        redelivered: bool,
        no_ack: bool,
        consumer: u64,
    ) -> Result<(), String> {
        match source {
            Source::Lasting(queue) => oracle.delivered(Delivered {
                queue: *queue,
                identity,
                redelivered,
                channel: self.uid,
                consumer,
                no_ack,
            }),
            Source::Passing(queue) => oracle.passed(queue, identity, redelivered),
        }
    }
}

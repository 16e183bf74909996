//! The methods that wait for an answer, and their second half.

use std::sync::Arc;

use leveret_amqp::method::{
    BasicCancelOk, BasicConsumeOk, BasicGetEmpty, QueueDeclareOk, QueueDeleteOk, QueuePurgeOk,
};

use crate::catalog::equivalence::no_queue;
use crate::catalog::name::Name;
use crate::catalog::object::QueueMeta;
use crate::control::{Outcome as ControlOutcome, QueueDeclaration, Request};
use crate::error::Exception;
use crate::id::{ChannelKey, QueueId};
use crate::mesh::mail::{Mail, QueueAnswer, QueueRequest};
use crate::queue::terms::Signal;

use super::call::{Call, Flow, Outcome};

/// Times a declaration starts over because the queue it found was being deleted.
///
/// Each time needs another client to delete and declare the same name in between.
const DECLARE_ATTEMPTS_MAX: u8 = 16;

/// A request under way.
#[derive(Debug)]
pub struct Awaiting {
    /// The channel that asked.
    pub channel: ChannelKey,
    /// The method that asked, for the exception it may end with.
    pub method: (u16, u16),
    /// How the method continues.
    pub what: Awaited,
}

/// How a method continues with its answer.
#[derive(Debug)]
pub enum Awaited {
    /// It sends its `-ok`.
    Plain(Plain),
    /// `queue.declare` of a queue that may have to be created.
    Declare(Box<Declaring>),
    /// `queue.declare`, passive, or the counts of a queue that exists.
    Count(Name, bool),
    /// `queue.delete`.
    Delete(Arc<QueueMeta>, bool),
    /// `queue.purge`.
    Purge(Arc<QueueMeta>, bool),
    /// `basic.consume`: the consumer's number on the channel.
    Consume(u32, Name, bool),
    /// `basic.cancel`: the consumer's number and tag on the channel.
    Cancel(u32, Box<str>, bool),
    /// `basic.get`.
    Get(Name),
    /// The end of the channel.
    Leave {
        /// Homes that have not released it yet.
        homes: usize,
        /// Our exception; `None` if the client closes it.
        close: Option<Box<Exception>>,
    },
}

/// A `queue.declare` on its way.
#[derive(Debug)]
pub struct Declaring {
    /// The request to the control state.
    pub declaration: QueueDeclaration,
    /// The client wants no answer.
    pub nowait: bool,
    /// How often it started over.
    pub attempts: u8,
}

/// An answer without arguments, unless the client wants none.
#[derive(Clone, Copy, Debug)]
pub struct Plain(Option<fn(u16, &mut Vec<u8>)>);

impl Plain {
    /// The answer that `write` appends, given the channel number.
    pub fn new(nowait: bool, write: fn(u16, &mut Vec<u8>)) -> Self {
        Self((!nowait).then_some(write))
    }

    /// Writes it.
    pub fn write(self, channel: u16, out: &mut Vec<u8>) {
        if let Some(write) = self.0 {
            write(channel, out);
        }
    }
}

/// The answer to a request.
#[derive(Debug)]
pub enum Answered {
    /// From a queue's home.
    Queue(QueueAnswer),
    /// From the control state.
    Control(Result<ControlOutcome, Exception>),
}

impl Call<'_> {
    /// Continues a method whose answer has come.
    pub fn answered(&mut self, what: Awaited, answer: Answered) -> Outcome {
        match answer {
            Answered::Queue(answer) => self.queue_answered(what, answer),
            Answered::Control(answer) => self.control_answered(what, answer),
        }
    }

    fn control_answered(
        &mut self,
        what: Awaited,
        answer: Result<ControlOutcome, Exception>,
    ) -> Outcome {
        let outcome = answer?;
        match (what, outcome) {
            (Awaited::Plain(reply), _) => self.plain(reply),
            (
                Awaited::Declare(declaring),
                ControlOutcome::QueueDeclared { queue, name, created },
            ) => self.declared(*declaring, queue, name, created),
            (Awaited::Delete(_, nowait), ControlOutcome::QueueDeleted(message_count)) => {
                if !nowait {
                    self.write(&QueueDeleteOk { message_count });
                }
                Ok(Flow::Done)
            }
            // The cancelled consumer was the last one of an auto-delete queue.
            (Awaited::Cancel(number, tag, nowait), ControlOutcome::QueueDeleted(_)) => {
                self.cancelled(number, &tag, nowait)
            }
            (what, outcome) => {
                debug_assert!(false, "{what:?} was answered with {outcome:?}");
                Ok(Flow::Done)
            }
        }
    }

    fn queue_answered(&mut self, what: Awaited, answer: QueueAnswer) -> Outcome {
        match (what, answer) {
            (Awaited::Declare(declaring), QueueAnswer::Gone(queue)) => {
                self.declare_again(*declaring, queue)
            }
            (Awaited::Declare(declaring), QueueAnswer::Counted { messages, consumers }) => {
                let name = declaring.declaration.name;
                self.declare_ok(name, messages, consumers, declaring.nowait)
            }
            (Awaited::Count(name, nowait), QueueAnswer::Counted { messages, consumers }) => {
                self.declare_ok(name, messages, consumers, nowait)
            }
            (Awaited::Purge(_, nowait), QueueAnswer::Purged(message_count)) => {
                if !nowait {
                    self.write(&QueuePurgeOk { message_count });
                }
                Ok(Flow::Done)
            }
            (Awaited::Delete(_, nowait), QueueAnswer::Gone(_)) => {
                if !nowait {
                    self.write(&QueueDeleteOk { message_count: 0 });
                }
                Ok(Flow::Done)
            }
            (Awaited::Consume(number, _, nowait), QueueAnswer::Done) => {
                self.consuming(number, nowait)
            }
            (Awaited::Consume(number, name, _), QueueAnswer::Gone(_)) => {
                self.forget_consumer(number);
                Err(self.gone(&name))
            }
            (Awaited::Consume(number, name, _), QueueAnswer::ExclusiveUse) => {
                self.forget_consumer(number);
                let vhost = &self.session.opened.vhost_name;
                let text = format!("queue '{name}' in vhost '{vhost}' in exclusive use");
                Err(Exception::access_refused(text))
            }
            (Awaited::Delete(queue, _), QueueAnswer::InUse) => Err(self.kept(&queue, "in use")),
            (Awaited::Delete(queue, _), QueueAnswer::NotEmpty) => {
                Err(self.kept(&queue, "not empty"))
            }
            (Awaited::Cancel(number, tag, nowait), QueueAnswer::Done | QueueAnswer::Gone(_)) => {
                self.cancelled(number, &tag, nowait)
            }
            (Awaited::Get(_), QueueAnswer::Empty) => {
                self.write(&BasicGetEmpty {});
                Ok(Flow::Done)
            }
            (Awaited::Get(name) | Awaited::Count(name, _), QueueAnswer::Gone(_)) => {
                Err(self.gone(&name))
            }
            (Awaited::Purge(queue, _), QueueAnswer::Gone(_)) => Err(self.gone(&queue.name)),
            (what, answer) => {
                debug_assert!(false, "{what:?} was answered with {answer:?}");
                Ok(Flow::Done)
            }
        }
    }

    fn gone(&self, name: &Name) -> Exception {
        no_queue(name, &self.session.opened.vhost_name)
    }

    /// `queue.delete` is refused.
    fn kept(&self, queue: &QueueMeta, reason: &str) -> Exception {
        let vhost = &self.session.opened.vhost_name;
        let text = format!("queue '{}' in vhost '{vhost}' {reason}", queue.name);
        Exception::precondition_failed(text)
    }

    fn declared(
        &mut self,
        mut declaring: Declaring,
        queue: QueueId,
        name: Name,
        created: bool,
    ) -> Outcome {
        if created {
            return self.declare_ok(name, 0, 0, declaring.nowait);
        }
        // Another client declared it in between: it may have messages and consumers.
        let Some(home) = self.backend.topology.queue_by_id(queue).map(|queue| queue.home) else {
            return self.declare_again(declaring, queue);
        };
        declaring.declaration.name = name;
        let count = QueueRequest::Count(self.channel.key);
        self.ask(queue, home, count, Awaited::Declare(Box::new(declaring)))
    }

    fn declare_again(&mut self, mut declaring: Declaring, gone: QueueId) -> Outcome {
        declaring.attempts += 1;
        if declaring.attempts > DECLARE_ATTEMPTS_MAX {
            return Err(self.gone(&declaring.declaration.name));
        }
        declaring.declaration.gone = Some(gone);
        let request = Request::DeclareQueue(self.channel.key, declaring.declaration.clone());
        self.request(request, Awaited::Declare(Box::new(declaring)))
    }

    fn declare_ok(
        &mut self,
        name: Name,
        message_count: u32,
        consumer_count: u32,
        nowait: bool,
    ) -> Outcome {
        if !nowait {
            self.write(&QueueDeclareOk { queue: &name, message_count, consumer_count });
        }
        self.channel.last_queue = name;
        Ok(Flow::Done)
    }

    fn consuming(&mut self, number: u32, nowait: bool) -> Outcome {
        let Some(consumer) = self.outbound().and_then(|outbound| outbound.consumer(number)) else {
            return Ok(Flow::Done);
        };
        let (tag, home, queue) = (consumer.tag.clone(), consumer.home, consumer.queue);
        let consumer = consumer.key;
        if !nowait {
            self.write(&BasicConsumeOk { consumer_tag: &tag });
        }
        self.backend.outputs.work(home, Mail::Consumer { queue, consumer, signal: Signal::Start });
        Ok(Flow::Done)
    }

    /// The client gets cancel-ok even if the end of the queue has cancelled the consumer meanwhile.
    fn cancelled(&mut self, number: u32, consumer_tag: &str, nowait: bool) -> Outcome {
        self.forget_consumer(number);
        if !nowait {
            self.write(&BasicCancelOk { consumer_tag });
        }
        Ok(Flow::Done)
    }

    fn forget_consumer(&mut self, number: u32) {
        if let Some(outbound) = self.outbound() {
            outbound.remove_consumer(number);
        }
    }
}

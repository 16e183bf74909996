//! One method of a client, with the state that it may use.

use leveret_amqp::method::{
    AccessRequestOk, BasicAck, BasicPublish, BasicQos, ChannelFlowOk, ConfirmSelectOk,
    encode_frame, split_ids,
};
use leveret_amqp::method::{BasicQosOk, Encode};
use leveret_amqp::{Method, ReplyCode};

use crate::catalog::equivalence::{check_exclusive_access, no_queue};
use crate::catalog::name::Name;
use crate::catalog::object::QueueMeta;
use crate::catalog::permission::{self, Access, ResourceKind};
use crate::client::backend::Backend;
use crate::client::connection::Session;
use crate::control::Request;
use crate::delivery::channel::Outbound;
use crate::delivery::confirms::Confirms;
use crate::error::Exception;
use crate::id::{QueueId, ShardId};
use crate::mesh::mail::{Mail, QueueRequest};
use crate::queue::terms::Signal;
use std::sync::Arc;

use super::{Awaited, Channel};

/// A method being carried out.
pub struct Call<'a> {
    /// The shard behind the connection.
    pub backend: &'a mut Backend,
    /// The connection, without its channels.
    pub session: &'a mut Session,
    /// The channel.
    pub channel: &'a mut Channel,
}

/// How a method ended.
#[derive(Debug)]
pub enum Flow {
    /// It is done, and answered if it had to be.
    Done,
    /// It has sent a request; the connection reads on when the answer has come.
    Await(Awaited),
}

/// The result of a method.
pub(super) type Outcome = Result<Flow, Exception>;

impl Call<'_> {
    /// Carries out `basic.publish` and `basic.ack`. `None` if the method is another one, malformed,
    /// or not allowed here: the general path then decides.
    #[inline(always)]
    pub fn hot_method(&mut self, payload: &[u8]) -> Option<Result<(), Exception>> {
        if !self.channel.content.is_idle() {
            return None;
        }
        let (done, ids) = match split_ids(payload).ok()? {
            (BasicPublish::IDS, args) => {
                (self.publish_begin(&BasicPublish::decode(args).ok()?), BasicPublish::IDS)
            }
            (BasicAck::IDS, args) => {
                (self.ack(BasicAck::decode(args).ok()?).map(drop), BasicAck::IDS)
            }
            _ => return None,
        };
        Some(done.map_err(|exception| exception.of(ids)))
    }

    /// Carries out any method of a channel except open, close, close-ok and publish.
    pub fn method(&mut self, method: &Method<'_>) -> Outcome {
        match method {
            Method::ExchangeDeclare(method) => self.exchange_declare(method),
            Method::ExchangeDelete(method) => self.exchange_delete(method),
            Method::ExchangeBind(method) => self.exchange_bind(method),
            Method::ExchangeUnbind(method) => self.exchange_unbind(method),
            Method::QueueDeclare(method) => self.queue_declare(method),
            Method::QueueBind(method) => self.queue_bind(method),
            Method::QueueUnbind(method) => self.queue_unbind(method),
            Method::QueuePurge(method) => self.queue_purge(method),
            Method::QueueDelete(method) => self.queue_delete(method),
            Method::BasicQos(method) => self.qos(method),
            Method::BasicConsume(method) => self.consume(method),
            Method::BasicCancel(method) => self.cancel(method),
            // Old clients answer our `basic.cancel`; the consumer is gone already.
            Method::BasicCancelOk(_) => Ok(Flow::Done),
            Method::BasicGet(method) => self.get(method),
            Method::BasicAck(method) => self.ack(*method),
            Method::BasicNack(method) => self.nack(method),
            Method::BasicReject(method) => self.reject(method),
            Method::BasicRecover(method) => self.recover(method.requeue, true),
            Method::BasicRecoverAsync(method) => self.recover(method.requeue, false),
            Method::ConfirmSelect(method) => self.confirm_select(method.nowait),
            Method::ChannelFlow(method) if method.active => {
                self.write(&ChannelFlowOk { active: true });
                Ok(Flow::Done)
            }
            Method::ChannelFlow(_) => Err(Exception::not_implemented("active=false")),
            Method::AccessRequest(_) => {
                self.write(&AccessRequestOk { ticket: 1 });
                Ok(Flow::Done)
            }
            Method::TxSelect(_) => self.tx_select(),
            Method::TxCommit(_) => self.tx_commit(),
            Method::TxRollback(_) => self.tx_rollback(),
            _ => Err(Exception::new(ReplyCode::CommandInvalid, "unimplemented method")),
        }
    }

    /// Writes a method on this channel.
    pub fn write(&mut self, method: &impl Encode) {
        let number = self.channel.key.channel;
        if let Some(writer) = self.backend.outputs.writers.get_mut(self.session.id) {
            encode_frame(number, method, &mut writer.outbox.scratch);
        }
    }

    /// The writing half of this channel.
    pub fn outbound(&mut self) -> Option<&mut Outbound> {
        let (writer, index) = self.backend.outputs.writers.channel(self.channel.key)?;
        Some(writer.channel_at(index))
    }

    /// Refuses (403) if the user lacks this permission.
    pub fn permit(&self, access: Access, kind: ResourceKind, name: &str) -> Result<(), Exception> {
        let opened = &self.session.opened;
        let permissions = self.backend.topology.permissions(&opened.user, opened.vhost);
        permission::check(
            permissions.map(|permissions| &**permissions),
            access,
            kind,
            name,
            &opened.vhost_name,
            &opened.user,
        )
    }

    /// Resolves a queue name: an empty one means the channel's last declared queue.
    pub fn queue_name(&self, name: &str) -> Result<Name, Exception> {
        self.exact_queue_name(name).map(|name| crate::catalog::arguments::strip_cr_lf(&name))
    }

    /// As [`Self::queue_name`], for the methods whose names RabbitMQ leaves with CR and LF:
    /// consume, get and purge.
    pub fn exact_queue_name(&self, name: &str) -> Result<Name, Exception> {
        if !name.is_empty() {
            return Ok(Name::from(name));
        }
        if self.channel.last_queue.is_empty() {
            return Err(Exception::not_found("no previously declared queue"));
        }
        Ok(self.channel.last_queue.clone())
    }

    /// The queue of this name, if this connection may use it.
    pub fn queue(&self, name: &Name) -> Result<Arc<QueueMeta>, Exception> {
        let opened = &self.session.opened;
        let queue = self.backend.topology.queue(opened.vhost, name.as_bytes());
        let queue = queue.ok_or_else(|| no_queue(name, &opened.vhost_name))?;
        check_exclusive_access(queue, &opened.vhost_name, self.session.owner)?;
        Ok(Arc::clone(queue))
    }

    /// Sends a request to a queue's home.
    pub fn ask(
        &mut self,
        queue: QueueId,
        home: ShardId,
        request: QueueRequest,
        then: Awaited,
    ) -> Outcome {
        self.backend.outputs.work(home, Mail::Ask(Box::new((queue, request))));
        Ok(Flow::Await(then))
    }

    /// Sends a request to the control state.
    pub fn request(&mut self, request: Request, then: Awaited) -> Outcome {
        let control = self.backend.turn.control();
        self.backend.outputs.work(control, Mail::Control(Box::new(request)));
        Ok(Flow::Await(then))
    }

    fn confirm_select(&mut self, nowait: bool) -> Outcome {
        if self.channel.transaction.is_some() {
            let text = "cannot switch from tx to confirm mode";
            return Err(Exception::precondition_failed(text));
        }
        self.channel.confirm = true;
        if let Some(outbound) = self.outbound() {
            outbound.confirms.get_or_insert_with(Confirms::default);
        }
        if !nowait {
            self.write(&ConfirmSelectOk {});
        }
        Ok(Flow::Done)
    }

    fn qos(&mut self, qos: &BasicQos) -> Outcome {
        if qos.prefetch_size != 0 {
            let text = format!("prefetch_size!=0 ({})", qos.prefetch_size);
            return Err(Exception::not_implemented(text));
        }
        if qos.global {
            self.limit_channel(u32::from(qos.prefetch_count));
        } else {
            self.channel.prefetch = qos.prefetch_count;
            // As RabbitMQ 3.x: the newer `basic.qos` also ends an earlier channel-wide limit.
            self.limit_channel(0);
        }
        self.write(&BasicQosOk {});
        Ok(Flow::Done)
    }

    /// Sets the channel-wide prefetch, also for existing consumers.
    fn limit_channel(&mut self, prefetch: u32) {
        let Some(outbound) = self.outbound() else {
            return;
        };
        let was_limited = outbound.limit.prefetch > 0;
        outbound.limit.prefetch = prefetch;
        let limited = prefetch > 0;
        let mut notified = Vec::new();
        if limited != was_limited {
            outbound.limit.wanting.clear();
            notified.extend(
                outbound.consumers().map(|consumer| (consumer.home, consumer.queue, consumer.key)),
            );
        }
        for (home, queue, consumer) in notified {
            let signal = Signal::Limited(limited);
            self.backend.outputs.work(home, Mail::Consumer { queue, consumer, signal });
        }
        self.backend.grant(self.channel.key);
    }
}

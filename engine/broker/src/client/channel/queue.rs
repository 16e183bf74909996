//! Class queue: declare, bind, unbind, purge and delete.

use bytes::Bytes;
use std::sync::Arc;

use leveret_amqp::TableRef;
use leveret_amqp::method::{
    QueueBind, QueueBindOk, QueueDeclare, QueueDelete, QueueDeleteOk, QueuePurge, QueueUnbind,
    QueueUnbindOk, encode_frame,
};

use crate::catalog::arguments::{self, QueueProperties};
use crate::catalog::equivalence::{QueueRedeclaration, check_exclusive_access, check_queue};
use crate::catalog::name::Name;
use crate::catalog::object::BindingTarget;
use crate::catalog::permission::{Access, ResourceKind};
use crate::control::{BindingChange, QueueDeclaration, Request};
use crate::error::Exception;
use crate::mesh::mail::QueueRequest;

use super::answer::{Awaited, Declaring, Plain};
use super::call::{Call, Flow, Outcome};

/// Stands in the text of a refusal for a name that the server would have generated.
const REFUSED_NAME: &str = "amq.gen-AAAAAAAAAAAAAAAAAAAAAA";

impl Call<'_> {
    pub(super) fn queue_declare(&mut self, declare: &QueueDeclare<'_>) -> Outcome {
        if declare.passive {
            return self.queue_declare_passive(declare);
        }
        let name = arguments::strip_cr_lf(declare.queue);
        let opened = &self.session.opened;
        let (vhost, vhost_name) = (opened.vhost, opened.vhost_name.clone());
        arguments::check_queue_name(&name, declare.arguments)?;
        if !name.is_empty() {
            self.permit(Access::Configure, ResourceKind::Queue, &name)?;
        }
        let exclusive = declare.exclusive.then_some(self.session.owner);
        let declaration = QueueDeclaration {
            vhost,
            name: name.clone(),
            durable: declare.durable,
            exclusive,
            auto_delete: declare.auto_delete,
            arguments: Bytes::copy_from_slice(declare.arguments.as_bytes()),
            gone: None,
        };
        let nowait = declare.nowait;
        let declaring = Awaited::Declare(Box::new(Declaring { declaration, nowait, attempts: 0 }));
        if let Some(queue) = self.backend.topology.queue(vhost, name.as_bytes()) {
            let declared = QueueRedeclaration {
                durable: declare.durable,
                exclusive,
                auto_delete: declare.auto_delete,
                arguments: declare.arguments,
            };
            check_queue(queue, &vhost_name, declared)?;
            let (id, home) = (queue.id, queue.home);
            return self.ask(id, home, QueueRequest::Count(self.channel.key), declaring);
        }
        self.check_new_queue(declare, &name)?;
        self.session.owns_exclusive |= declare.exclusive;
        let Awaited::Declare(declaring) = declaring else {
            return Ok(Flow::Done);
        };
        let request = Request::DeclareQueue(self.channel.key, declaring.declaration.clone());
        self.request(request, Awaited::Declare(declaring))
    }

    fn queue_declare_passive(&mut self, declare: &QueueDeclare<'_>) -> Outcome {
        // Unlike in all other methods, an empty name does not mean the last declared queue.
        let name = arguments::strip_cr_lf(declare.queue);
        let queue = self.queue(&name)?;
        let count = QueueRequest::Count(self.channel.key);
        self.ask(queue.id, queue.home, count, Awaited::Count(name, declare.nowait))
    }

    fn check_new_queue(&self, declare: &QueueDeclare<'_>, name: &Name) -> Result<(), Exception> {
        // RabbitMQ generates the name before it refuses, and shows it.
        let name = &if name.is_empty() { Name::from(REFUSED_NAME) } else { name.clone() };
        let properties = QueueProperties {
            vhost: &self.session.opened.vhost_name,
            name,
            durable: declare.durable,
            exclusive: declare.exclusive,
            auto_delete: declare.auto_delete,
            arguments: declare.arguments,
        };
        let dead_letter_exchange = arguments::check_dead_letter_exchange(properties)?;
        if let Some(exchange) = dead_letter_exchange {
            self.permit(Access::Read, ResourceKind::Queue, name)?;
            self.permit(Access::Write, ResourceKind::Exchange, &exchange)?;
        }
        arguments::check_queue(properties)?;
        Ok(())
    }

    pub(super) fn queue_bind(&mut self, bind: &QueueBind<'_>) -> Outcome {
        let change =
            self.queue_binding(bind.queue, bind.exchange, bind.routing_key, bind.arguments)?;
        self.check_headers_binding(&change, bind.arguments)?;
        let request = Request::Bind(self.channel.key, change);
        let reply = Plain::new(bind.nowait, |channel, out| {
            encode_frame(channel, &QueueBindOk {}, out);
        });
        self.request(request, Awaited::Plain(reply))
    }

    pub(super) fn queue_unbind(&mut self, unbind: &QueueUnbind<'_>) -> Outcome {
        let QueueUnbind { queue, exchange, routing_key, arguments } = *unbind;
        let change = self.queue_binding(queue, exchange, routing_key, arguments)?;
        let request = Request::Unbind(self.channel.key, change);
        let reply = Plain::new(false, |channel, out| {
            encode_frame(channel, &QueueUnbindOk {}, out);
        });
        self.request(request, Awaited::Plain(reply))
    }

    fn queue_binding(
        &mut self,
        queue: &str,
        exchange: &str,
        routing_key: &[u8],
        arguments: TableRef<'_>,
    ) -> Result<BindingChange, Exception> {
        let source = arguments::strip_cr_lf(exchange);
        let destination = self.queue_name(queue)?;
        // An empty key with an empty queue name means the queue's own name.
        let own_name = queue.is_empty() && routing_key.is_empty();
        let key = if own_name { destination.as_bytes() } else { routing_key };
        self.permit(Access::Write, ResourceKind::Queue, &destination)?;
        arguments::check_not_default_exchange(&source)?;
        self.permit(Access::Read, ResourceKind::Exchange, &source)?;
        let name = destination.clone();
        Ok(self.binding(source, name, BindingTarget::Queue, key, arguments))
    }

    pub(super) fn queue_purge(&mut self, purge: &QueuePurge<'_>) -> Outcome {
        let name = self.exact_queue_name(purge.queue)?;
        self.permit(Access::Read, ResourceKind::Queue, &name)?;
        let queue = self.queue(&name)?;
        let request = QueueRequest::Purge(self.channel.key);
        let (id, home) = (queue.id, queue.home);
        self.ask(id, home, request, Awaited::Purge(queue, purge.nowait))
    }

    pub(super) fn queue_delete(&mut self, delete: &QueueDelete<'_>) -> Outcome {
        let name = self.queue_name(delete.queue)?;
        self.permit(Access::Configure, ResourceKind::Queue, &name)?;
        let opened = &self.session.opened;
        let Some(queue) = self.backend.topology.queue(opened.vhost, name.as_bytes()) else {
            let reply = Plain::new(delete.nowait, |channel, out| {
                encode_frame(channel, &QueueDeleteOk { message_count: 0 }, out);
            });
            return self.plain(reply);
        };
        check_exclusive_access(queue, &opened.vhost_name, self.session.owner)?;
        let request = QueueRequest::Delete {
            channel: self.channel.key,
            if_unused: delete.if_unused,
            if_empty: delete.if_empty,
        };
        let queue = Arc::clone(queue);
        let (id, home) = (queue.id, queue.home);
        self.ask(id, home, request, Awaited::Delete(queue, delete.nowait))
    }
}

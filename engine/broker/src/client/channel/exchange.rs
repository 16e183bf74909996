//! Class exchange: declare, delete, bind and unbind.

use bytes::Bytes;
use leveret_amqp::TableRef;
use leveret_amqp::method::{
    ExchangeBind, ExchangeBindOk, ExchangeDeclare, ExchangeDeclareOk, ExchangeDelete,
    ExchangeDeleteOk, ExchangeUnbind, ExchangeUnbindOk, encode_frame,
};

use crate::catalog::arguments;
use crate::catalog::equivalence::{ExchangeRedeclaration, check_exchange, no_exchange};
use crate::catalog::name::Name;
use crate::catalog::object::{BindingTarget, ExchangeKind};
use crate::catalog::permission::{Access, ResourceKind};
use crate::control::{BindingChange, ExchangeDeclaration, Request};
use crate::error::Exception;

use super::answer::{Awaited, Plain};
use super::call::{Call, Flow, Outcome};

impl Call<'_> {
    pub(super) fn exchange_declare(&mut self, declare: &ExchangeDeclare<'_>) -> Outcome {
        let name = arguments::strip_cr_lf(declare.exchange);
        let vhost = self.session.opened.vhost;
        if declare.passive {
            arguments::check_not_default_exchange(&name)?;
            if self.backend.topology.exchange(vhost, name.as_bytes()).is_none() {
                return Err(no_exchange(&name, &self.session.opened.vhost_name));
            }
            return self.plain(Plain::new(declare.nowait, |channel, out| {
                encode_frame(channel, &ExchangeDeclareOk {}, out);
            }));
        }
        let kind = arguments::parse_exchange_kind(declare.kind)?;
        arguments::check_not_default_exchange(&name)?;
        self.permit(Access::Configure, ResourceKind::Exchange, &name)?;
        let vhost_name = self.session.opened.vhost_name.clone();
        if let Some(existing) = self.backend.topology.exchange(vhost, name.as_bytes()) {
            let declared = ExchangeRedeclaration {
                kind,
                durable: declare.durable,
                auto_delete: declare.auto_delete,
                internal: declare.internal,
                arguments: declare.arguments,
            };
            check_exchange(existing, &vhost_name, declared)?;
            return self.plain(Plain::new(declare.nowait, |channel, out| {
                encode_frame(channel, &ExchangeDeclareOk {}, out);
            }));
        }
        arguments::check_exchange_name(&name)?;
        let alternate = arguments::check_exchange(&vhost_name, &name, declare.arguments)?;
        if let Some(alternate) = alternate {
            self.permit(Access::Read, ResourceKind::Exchange, &name)?;
            self.permit(Access::Write, ResourceKind::Exchange, &alternate)?;
        }
        let declaration = ExchangeDeclaration {
            vhost,
            name,
            kind,
            durable: declare.durable,
            auto_delete: declare.auto_delete,
            internal: declare.internal,
            arguments: Bytes::copy_from_slice(declare.arguments.as_bytes()),
        };
        let request = Request::DeclareExchange(self.channel.key, declaration);
        self.request(
            request,
            Awaited::Plain(Plain::new(declare.nowait, |channel, out| {
                encode_frame(channel, &ExchangeDeclareOk {}, out);
            })),
        )
    }

    pub(super) fn exchange_delete(&mut self, delete: &ExchangeDelete<'_>) -> Outcome {
        let name = arguments::strip_cr_lf(delete.exchange);
        arguments::check_not_default_exchange(&name)?;
        arguments::check_exchange_deletion(&self.session.opened.vhost_name, &name)?;
        self.permit(Access::Configure, ResourceKind::Exchange, &name)?;
        let request = Request::DeleteExchange {
            asker: self.channel.key,
            vhost: self.session.opened.vhost,
            name,
            if_unused: delete.if_unused,
        };
        self.request(
            request,
            Awaited::Plain(Plain::new(delete.nowait, |channel, out| {
                encode_frame(channel, &ExchangeDeleteOk {}, out);
            })),
        )
    }

    pub(super) fn exchange_bind(&mut self, bind: &ExchangeBind<'_>) -> Outcome {
        let change =
            self.exchange_binding(bind.source, bind.destination, bind.routing_key, bind.arguments)?;
        self.check_headers_binding(&change, bind.arguments)?;
        let request = Request::Bind(self.channel.key, change);
        self.request(
            request,
            Awaited::Plain(Plain::new(bind.nowait, |channel, out| {
                encode_frame(channel, &ExchangeBindOk {}, out);
            })),
        )
    }

    pub(super) fn exchange_unbind(&mut self, unbind: &ExchangeUnbind<'_>) -> Outcome {
        let ExchangeUnbind { source, destination, routing_key, nowait, arguments } = *unbind;
        let change = self.exchange_binding(source, destination, routing_key, arguments)?;
        let request = Request::Unbind(self.channel.key, change);
        self.request(
            request,
            Awaited::Plain(Plain::new(nowait, |channel, out| {
                encode_frame(channel, &ExchangeUnbindOk {}, out);
            })),
        )
    }

    fn exchange_binding(
        &mut self,
        source: &str,
        destination: &str,
        key: &[u8],
        arguments: TableRef<'_>,
    ) -> Result<BindingChange, Exception> {
        let source = arguments::strip_cr_lf(source);
        let destination = arguments::strip_cr_lf(destination);
        arguments::check_not_default_exchange(&destination)?;
        self.permit(Access::Write, ResourceKind::Exchange, &destination)?;
        arguments::check_not_default_exchange(&source)?;
        self.permit(Access::Read, ResourceKind::Exchange, &source)?;
        Ok(self.binding(source, destination, BindingTarget::Exchange, key, arguments))
    }

    /// The change of a binding as the control state wants it.
    pub(super) fn binding(
        &self,
        source: Name,
        destination: Name,
        target: BindingTarget,
        key: &[u8],
        arguments: TableRef<'_>,
    ) -> BindingChange {
        BindingChange {
            vhost: self.session.opened.vhost,
            source,
            destination,
            target,
            key: Bytes::copy_from_slice(key),
            arguments: Bytes::copy_from_slice(arguments.as_bytes()),
            owner: self.session.owner,
        }
    }

    /// The binding arguments as a headers exchange reads them. A missing exchange or queue is no
    /// error here: the control state reports that first.
    pub(super) fn check_headers_binding(
        &self,
        change: &BindingChange,
        arguments: TableRef<'_>,
    ) -> Result<(), Exception> {
        let topology = &self.backend.topology;
        let (source, destination) = (change.source.as_bytes(), change.destination.as_bytes());
        let ready = match change.target {
            BindingTarget::Queue => topology
                .queue(change.vhost, destination)
                .is_some_and(|queue| queue.exclusive.is_none_or(|owner| owner == change.owner)),
            BindingTarget::Exchange => topology.exchange(change.vhost, destination).is_some(),
        };
        let exchange = topology.exchange(change.vhost, source);
        if ready && exchange.is_some_and(|exchange| exchange.kind == ExchangeKind::Headers) {
            arguments::check_headers_binding(arguments)?;
        }
        Ok(())
    }

    /// Answers at once with a method that has no arguments.
    pub(super) fn plain(&mut self, reply: Plain) -> Outcome {
        if let Some(writer) = self.backend.outputs.writers.get_mut(self.session.id) {
            reply.write(self.channel.key.channel, &mut writer.outbox.scratch);
        }
        Ok(Flow::Done)
    }
}

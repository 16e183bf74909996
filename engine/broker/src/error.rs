//! What goes wrong because of a peer, and what that peer is told.
//!
//! Every refusal in the broker is an [`Exception`]. Its reply code decides whether it ends the
//! channel or the connection (`leveret_amqp::reply`), so there is no second place to keep in step.

use leveret_amqp::reply::ReplyCode;

/// A refusal on its way to the client as `channel.close` or `connection.close`.
///
/// Clients decide by code *and* by the failing method's ids *and* by text (oslo.messaging,
/// spring-amqp), so all three are RabbitMQ's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// The AMQP reply code.
    pub code: ReplyCode,
    /// The explanation without the leading `NAME - `.
    pub explanation: String,
    /// Class and method id of the failing method, `(0, 0)` where no method is to blame.
    pub method: (u16, u16),
}

impl Exception {
    /// A refusal that blames no method yet; see [`Exception::of`].
    pub fn new(code: ReplyCode, explanation: impl Into<String>) -> Self {
        Self { code, explanation: explanation.into(), method: (0, 0) }
    }

    /// Names the failing method, unless it was named where the error was found.
    #[must_use]
    pub fn of(mut self, method: (u16, u16)) -> Self {
        if self.method == (0, 0) {
            self.method = method;
        }
        self
    }

    /// 403 on the channel.
    pub fn access_refused(explanation: impl Into<String>) -> Self {
        Self::new(ReplyCode::AccessRefused, explanation)
    }

    /// 404 on the channel.
    pub fn not_found(explanation: impl Into<String>) -> Self {
        Self::new(ReplyCode::NotFound, explanation)
    }

    /// 405 on the channel.
    pub fn resource_locked(explanation: impl Into<String>) -> Self {
        Self::new(ReplyCode::ResourceLocked, explanation)
    }

    /// 406 on the channel.
    pub fn precondition_failed(explanation: impl Into<String>) -> Self {
        Self::new(ReplyCode::PreconditionFailed, explanation)
    }

    /// 530 on the connection.
    pub fn not_allowed(explanation: impl Into<String>) -> Self {
        Self::new(ReplyCode::NotAllowed, explanation)
    }

    /// 540 on the connection.
    pub fn not_implemented(explanation: impl Into<String>) -> Self {
        Self::new(ReplyCode::NotImplemented, explanation)
    }
}

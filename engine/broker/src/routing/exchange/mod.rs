//! The bindings of one exchange, arranged for routing.
//!
//! Adding and removing a binding costs the same whatever the number of bindings. The control state
//! adds no binding twice, and removes none that is not there.

pub(crate) mod direct;
pub(crate) mod fanout;
pub(crate) mod headers;
pub(crate) mod targets;
pub(crate) mod topic;

use std::sync::Arc;

use crate::catalog::object::{Binding, ExchangeKind};

use self::direct::DirectBindings;
use self::fanout::FanoutBindings;
use self::headers::HeadersBindings;
use self::topic::TopicBindings;

/// The bindings whose source is one exchange.
#[derive(Clone, Debug)]
pub(crate) enum Bindings {
    /// The default exchange: every queue is bound by its name, nothing is stored.
    Default,
    /// By exact key.
    Direct(DirectBindings),
    /// Without a condition.
    Fanout(FanoutBindings),
    /// By pattern.
    Topic(Box<TopicBindings>),
    /// By headers.
    Headers(HeadersBindings),
}

impl Bindings {
    /// No bindings yet.
    pub(crate) fn new(kind: ExchangeKind, seed: u64) -> Self {
        match kind {
            ExchangeKind::Direct => Self::Direct(DirectBindings::new(seed)),
            ExchangeKind::Fanout => Self::Fanout(FanoutBindings::new(seed)),
            ExchangeKind::Topic => Self::Topic(Box::new(TopicBindings::new(seed))),
            ExchangeKind::Headers => Self::Headers(HeadersBindings::new(seed)),
        }
    }

    /// Adds a binding.
    pub(crate) fn bind(&mut self, binding: &Arc<Binding>) {
        match self {
            Self::Default => {}
            Self::Direct(bindings) => bindings.bind(&binding.key, binding.target),
            Self::Fanout(bindings) => bindings.bind(binding.target),
            Self::Topic(bindings) => bindings.bind(&binding.key, binding.target),
            Self::Headers(bindings) => bindings.bind(binding),
        }
    }

    /// Takes a binding away.
    pub(crate) fn unbind(&mut self, binding: &Binding) {
        match self {
            Self::Default => {}
            Self::Direct(bindings) => bindings.unbind(&binding.key, binding.target),
            Self::Fanout(bindings) => bindings.unbind(binding.target),
            Self::Topic(bindings) => bindings.unbind(&binding.key, binding.target),
            Self::Headers(bindings) => bindings.unbind(binding),
        }
    }
}

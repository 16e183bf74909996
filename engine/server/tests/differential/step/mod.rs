//! What a generated sequence consists of. Names are small indexes, so that steps meet each other;
//! they become text with the prefix of the run, so that runs do not.

mod encode;

pub(crate) use encode::CHANNEL_CLOSE;

/// One step: what is sent, on which channel of which connection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    /// Index of the connection, 0 or 1.
    pub(crate) connection: usize,
    /// Channel number, from 1.
    pub(crate) channel: u16,
    /// Send it even where the channel is not open.
    pub(crate) raw: bool,
    /// What is sent.
    pub(crate) action: Action,
}

/// A queue name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum QueueName {
    /// One of the universe.
    Numbered(u8),
    /// Empty: the last one declared on the channel, or a new one.
    Empty,
    /// The n-th name the server chose in this sequence; if there is none yet, a missing one.
    Generated(u8),
    /// Never declared.
    Missing,
    /// `amq.` and something.
    Reserved,
    /// With a line end inside.
    LineEnd,
}

/// An exchange name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ExchangeName {
    /// One of the universe.
    Numbered(u8),
    /// The default exchange.
    Default,
    /// Predeclared: its keys get the prefix of the run.
    Predeclared(&'static str),
    /// Never declared.
    Missing,
    /// `amq.` and something.
    Reserved,
}

/// A routing or binding key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// As it is.
    Text(&'static str),
    /// The name of a queue.
    Queue(QueueName),
}

/// A value in an argument table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Argument {
    Bool(bool),
    Byte(i8),
    Short(i16),
    Int(i32),
    Long(i64),
    Unsigned(u32),
    Double(f64),
    Text(&'static str),
    Exchange(ExchangeName),
    Void,
    Empty,
}

/// A table of arguments.
pub(crate) type Arguments = Vec<(&'static str, Argument)>;

/// Which delivery an acknowledgement names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// The n-th outstanding one of the channel; nothing is sent if there is none.
    Outstanding(u8),
    /// The last one that arrived in the same step as the n-th.
    EndOfStep(u8),
    /// One that was acknowledged before, or an unknown one.
    Used,
    /// 0
    Zero,
    /// Far beyond all.
    Unknown,
}

/// The properties of a publish.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Props {
    None,
    Persistent,
    Transient,
    All,
    Headers(Arguments),
    Expiration(&'static str),
    UserId(&'static str),
    Priority(u8),
    DeliveryMode(u8),
}

/// The body of a publish: it begins with a number that no other publish of the run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    Empty,
    Small,
    /// Of exactly one frame.
    FrameSized,
    /// Of three frames.
    Large,
    /// Cut into body frames of a few octets.
    InPieces,
}

/// A message to be published.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Publish {
    pub(crate) exchange: ExchangeName,
    pub(crate) key: Key,
    pub(crate) mandatory: bool,
    pub(crate) immediate: bool,
    pub(crate) props: Props,
    pub(crate) body: Body,
}

/// Flags of `queue.declare`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct QueueFlags {
    pub(crate) passive: bool,
    pub(crate) durable: bool,
    pub(crate) exclusive: bool,
    pub(crate) auto_delete: bool,
    pub(crate) nowait: bool,
}

/// Flags of `exchange.declare`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ExchangeFlags {
    pub(crate) passive: bool,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    pub(crate) internal: bool,
    pub(crate) nowait: bool,
}

/// Frames that no client library sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Odd {
    DeclareOkByClient,
    CloseOkUnasked,
    PublishWithoutHeader,
    HeaderAlone,
    BodyAlone,
    BodyAfterEmpty,
    HeaderOfOtherClass,
    HeartbeatOnChannel,
    ChannelMethodOnZero,
    ConnectionMethodOnChannel,
    OpenTwice,
    TuneAgain,
    CancelOkByClient,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    ChannelOpen,
    ChannelClose,
    Flow {
        active: bool,
    },
    Access,
    ExchangeDeclare {
        exchange: ExchangeName,
        kind: &'static str,
        flags: ExchangeFlags,
        arguments: Arguments,
    },
    ExchangeDelete {
        exchange: ExchangeName,
        if_unused: bool,
        nowait: bool,
    },
    ExchangeBind {
        destination: ExchangeName,
        source: ExchangeName,
        key: Key,
        nowait: bool,
        arguments: Arguments,
    },
    ExchangeUnbind {
        destination: ExchangeName,
        source: ExchangeName,
        key: Key,
        nowait: bool,
        arguments: Arguments,
    },
    QueueDeclare {
        queue: QueueName,
        flags: QueueFlags,
        arguments: Arguments,
    },
    QueueBind {
        queue: QueueName,
        exchange: ExchangeName,
        key: Key,
        nowait: bool,
        arguments: Arguments,
    },
    QueueUnbind {
        queue: QueueName,
        exchange: ExchangeName,
        key: Key,
        arguments: Arguments,
    },
    QueuePurge {
        queue: QueueName,
        nowait: bool,
    },
    QueueDelete {
        queue: QueueName,
        if_unused: bool,
        if_empty: bool,
        nowait: bool,
    },
    Qos {
        size: u32,
        count: u16,
        global: bool,
    },
    Consume {
        queue: QueueName,
        consumer_tag: &'static str,
        no_local: bool,
        no_ack: bool,
        exclusive: bool,
        nowait: bool,
        arguments: Arguments,
    },
    Cancel {
        consumer_tag: &'static str,
        nowait: bool,
    },
    Publish(Publish),
    Get {
        queue: QueueName,
        no_ack: bool,
    },
    Ack {
        tag: Tag,
        multiple: bool,
    },
    Nack {
        tag: Tag,
        multiple: bool,
        requeue: bool,
    },
    Reject {
        tag: Tag,
        requeue: bool,
    },
    Recover {
        requeue: bool,
    },
    RecoverAsync {
        requeue: bool,
    },
    ConfirmSelect {
        nowait: bool,
    },
    TxSelect,
    TxCommit,
    TxRollback,
    Odd(Odd),
    /// Several actions in one write: what follows an error is swallowed until close-ok.
    Burst(Vec<Action>),
    /// `connection.close`
    ConnectionClose,
    /// The socket is closed without a word.
    ConnectionDrop,
}

/// What turns indexes into names and numbers.
pub(crate) trait Names {
    /// Begins all names of the run.
    fn prefix(&self) -> &str;
    /// The n-th name the server chose.
    fn generated(&self, index: u8) -> Option<&str>;
    /// The number of an outstanding delivery, which is none any more; `None` where none is.
    fn take_tag(&mut self, channel: u16, tag: Tag, multiple: bool) -> Option<u64>;
    /// A number for the next body.
    fn next_body(&mut self) -> u64;
}

impl QueueName {
    /// The name on the wire.
    pub(crate) fn text(self, names: &impl Names) -> String {
        let prefix = names.prefix();
        match self {
            Self::Numbered(number) => format!("{prefix}q{number}"),
            Self::Empty => String::new(),
            Self::Generated(index) => match names.generated(index) {
                Some(name) => name.to_owned(),
                None => format!("{prefix}ungenerated"),
            },
            Self::Missing => format!("{prefix}missing"),
            Self::Reserved => format!("amq.{prefix}q"),
            Self::LineEnd => format!("{prefix}\r\nq0"),
        }
    }
}

impl ExchangeName {
    /// The name on the wire.
    pub(crate) fn text(self, names: &impl Names) -> String {
        let prefix = names.prefix();
        match self {
            Self::Numbered(number) => format!("{prefix}e{number}"),
            Self::Default => String::new(),
            Self::Predeclared(name) => name.to_owned(),
            Self::Missing => format!("{prefix}missing"),
            Self::Reserved => format!("amq.{prefix}e"),
        }
    }
}

impl Key {
    /// The key on the wire. The predeclared exchanges are shared by all runs.
    pub(crate) fn text(self, exchange: ExchangeName, names: &impl Names) -> String {
        let key = match self {
            Self::Text(text) => text.to_owned(),
            Self::Queue(queue) => queue.text(names),
        };
        match exchange {
            ExchangeName::Predeclared(_) => format!("{}.{key}", names.prefix()),
            _ => key,
        }
    }
}

impl Action {
    /// The action itself, or the actions of a burst.
    pub(crate) fn parts(&self) -> &[Self] {
        match self {
            Self::Burst(actions) => actions,
            single => std::slice::from_ref(single),
        }
    }

    /// Whether the action can move messages or end consumers, on whatever channel.
    pub(crate) fn has_consequences(&self) -> bool {
        !matches!(
            self,
            Self::ChannelOpen
                | Self::Flow { .. }
                | Self::Access
                | Self::ExchangeDeclare { .. }
                | Self::ExchangeBind { .. }
                | Self::QueueBind { .. }
                | Self::Qos { global: false, .. }
                | Self::ConfirmSelect { .. }
                | Self::TxSelect
        )
    }
}

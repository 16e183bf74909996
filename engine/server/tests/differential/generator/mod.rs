//! Makes sequences out of seeds.
//!
//! A sequence begins with a few declarations, so that most of it happens on things that exist,
//! and goes on with a mixture of steps whose weights depend on its theme.

mod vocabulary;

use vocabulary::{
    BODIES, CONSUMER_TAGS, EXCHANGE_ARGUMENTS, EXCHANGE_KINDS, HEADER_VALUES, KEYS, MATCHES, ODDS,
    QUEUE_ARGUMENTS, THEMES, weights,
};

use crate::random::Random;
use crate::step::{
    Action, Argument, Arguments, Body, ExchangeFlags, ExchangeName, Key, Props, Publish,
    QueueFlags, QueueName, Step, Tag,
};

/// What a sequence is mostly about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Theme {
    Routing,
    Headers,
    Delivery,
    Confirms,
    Transactions,
    Ownership,
    Declarations,
    Mistakes,
}

/// What a step is about.
#[derive(Debug, Clone, Copy)]
enum Subject {
    Publish,
    Burst,
    Get,
    Consume,
    Cancel,
    Answer,
    Recover,
    Qos,
    DeclareQueue,
    DeleteQueue,
    Purge,
    BindQueue,
    UnbindQueue,
    DeclareExchange,
    DeleteExchange,
    BindExchange,
    UnbindExchange,
    Confirm,
    Transaction,
    Channel,
    Connection,
    Odd,
}

/// Most sequences show what they have to show in a dozen steps; short ones are cheap to run.
const STEP_COUNT_MIN: usize = 4;
const STEP_COUNT_SPREAD: usize = 14;

/// The sequence of a seed.
pub(crate) fn sequence(seed: u64) -> Vec<Step> {
    let mut random = Random::new(seed);
    let theme = random.weighted(THEMES);
    let mut generator = Generator {
        theme,
        connection_count: match theme {
            Theme::Ownership => 2,
            _ if random.chance(20) => 2,
            _ => 1,
        },
        channel_count: 1 + random.below(3) as u16,
        random,
    };
    let mut steps = generator.prelude();
    let step_count = STEP_COUNT_MIN + generator.random.below(STEP_COUNT_SPREAD);
    for _ in 0..step_count {
        let subject = generator.random.weighted(weights(theme));
        let action = generator.action(subject);
        let step = generator.step(action);
        steps.push(step);
    }
    steps
}

#[derive(Debug)]
struct Generator {
    theme: Theme,
    connection_count: usize,
    channel_count: u16,
    random: Random,
}

impl Generator {
    /// The things most steps need.
    fn prelude(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.theme != Theme::Declarations || self.random.chance(30) {
            let queue_count = 1 + self.random.below(3) as u8;
            for number in 0..queue_count {
                let flags = QueueFlags {
                    durable: self.random.chance(30),
                    exclusive: self.random.chance(10),
                    auto_delete: self.random.chance(15),
                    ..QueueFlags::default()
                };
                let queue = QueueName::Numbered(number);
                steps.push(first(Action::QueueDeclare { queue, flags, arguments: Vec::new() }));
            }
        }
        if matches!(self.theme, Theme::Routing | Theme::Headers) {
            self.routing_prelude(&mut steps);
        }
        match self.theme {
            Theme::Confirms => {
                let nowait = self.random.chance(20);
                steps.push(first(Action::ConfirmSelect { nowait }));
            }
            Theme::Transactions if self.random.chance(80) => steps.push(first(Action::TxSelect)),
            Theme::Delivery => {
                for _ in 0..self.random.below(4) {
                    let action = self.publish_to_queue();
                    steps.push(first(action));
                }
            }
            _ => {}
        }
        steps
    }

    fn routing_prelude(&mut self, steps: &mut Vec<Step>) {
        for number in 0..=self.random.below(3) as u8 {
            let kind = match self.theme {
                Theme::Headers if number == 0 => "headers",
                _ => self.random.weighted(EXCHANGE_KINDS),
            };
            let flags = ExchangeFlags {
                internal: number > 0 && self.random.chance(10),
                auto_delete: self.random.chance(10),
                ..ExchangeFlags::default()
            };
            let mut arguments = Vec::new();
            if self.random.chance(20) {
                let alternate = ExchangeName::Numbered(self.random.below(3) as u8);
                arguments.push(("alternate-exchange", Argument::Exchange(alternate)));
            }
            let exchange = ExchangeName::Numbered(number);
            steps.push(first(Action::ExchangeDeclare { exchange, kind, flags, arguments }));
        }
        for _ in 0..=self.random.below(4) {
            let action = self.action(Subject::BindQueue);
            steps.push(first(action));
        }
    }

    fn step(&mut self, action: Action) -> Step {
        let raw_percent = if self.theme == Theme::Mistakes { 6 } else { 1 };
        Step {
            connection: self.random.below(self.connection_count),
            channel: 1 + self.random.below(self.channel_count.into()) as u16,
            raw: self.random.chance(raw_percent),
            action,
        }
    }

    fn action(&mut self, subject: Subject) -> Action {
        match subject {
            Subject::Publish => Action::Publish(self.publish()),
            Subject::Burst => self.burst(),
            Subject::Get => Action::Get { queue: self.queue(), no_ack: self.random.chance(35) },
            Subject::Consume => self.consume(),
            Subject::Cancel => Action::Cancel {
                consumer_tag: self.random.weighted(CONSUMER_TAGS),
                nowait: self.random.chance(15),
            },
            Subject::Answer => self.answer(),
            Subject::Recover => {
                let requeue = self.random.chance(90);
                if self.random.chance(70) {
                    Action::Recover { requeue }
                } else {
                    Action::RecoverAsync { requeue }
                }
            }
            Subject::Qos => Action::Qos {
                size: if self.random.chance(3) { 100 } else { 0 },
                count: self.random.pick(&[0, 1, 1, 2, 2, 3]),
                global: self.random.chance(35),
            },
            Subject::Confirm => Action::ConfirmSelect { nowait: self.random.chance(20) },
            Subject::Transaction => match self.random.below(10) {
                0 | 1 => Action::TxSelect,
                2..7 => Action::TxCommit,
                _ => Action::TxRollback,
            },
            Subject::Channel => self.channel(),
            Subject::Connection => {
                if self.random.chance(80) {
                    Action::ConnectionClose
                } else {
                    Action::ConnectionDrop
                }
            }
            Subject::Odd => Action::Odd(self.random.pick(ODDS)),
            _ => self.topology(subject),
        }
    }

    fn channel(&mut self) -> Action {
        match self.random.below(10) {
            0 => Action::ChannelOpen,
            1 | 2 => Action::Flow { active: true },
            3 => Action::Flow { active: !self.random.chance(50) },
            4 => Action::Access,
            _ => Action::ChannelClose,
        }
    }

    fn topology(&mut self, subject: Subject) -> Action {
        let nowait = self.random.chance(15);
        match subject {
            Subject::DeclareQueue => self.declare_queue(nowait),
            Subject::DeleteQueue => Action::QueueDelete {
                queue: self.queue(),
                if_unused: self.random.chance(25),
                if_empty: self.random.chance(25),
                nowait,
            },
            Subject::Purge => Action::QueuePurge { queue: self.queue(), nowait },
            Subject::BindQueue => {
                let exchange = self.source();
                let arguments = self.binding_arguments();
                Action::QueueBind {
                    queue: self.queue(),
                    exchange,
                    key: self.key(),
                    nowait,
                    arguments,
                }
            }
            Subject::UnbindQueue => {
                let exchange = self.source();
                let arguments = self.binding_arguments();
                Action::QueueUnbind { queue: self.queue(), exchange, key: self.key(), arguments }
            }
            Subject::DeclareExchange => self.declare_exchange(nowait),
            Subject::DeleteExchange => Action::ExchangeDelete {
                exchange: self.exchange(),
                if_unused: self.random.chance(40),
                nowait,
            },
            Subject::BindExchange => Action::ExchangeBind {
                destination: self.destination(),
                source: self.source(),
                key: self.key(),
                nowait,
                arguments: self.binding_arguments(),
            },
            _ => Action::ExchangeUnbind {
                destination: self.destination(),
                source: self.source(),
                key: self.key(),
                nowait,
                arguments: self.binding_arguments(),
            },
        }
    }

    fn queue(&mut self) -> QueueName {
        self.random.weighted(&[
            (45, QueueName::Numbered(0)),
            (25, QueueName::Numbered(1)),
            (15, QueueName::Numbered(2)),
            (8, QueueName::Empty),
            (4, QueueName::Generated(0)),
            (2, QueueName::Missing),
            (1, QueueName::LineEnd),
        ])
    }

    fn exchange(&mut self) -> ExchangeName {
        self.random.weighted(&[
            (40, ExchangeName::Numbered(0)),
            (25, ExchangeName::Numbered(1)),
            (20, ExchangeName::Numbered(2)),
            (5, ExchangeName::Default),
            (4, ExchangeName::Predeclared("amq.direct")),
            (4, ExchangeName::Predeclared("amq.topic")),
            (2, ExchangeName::Missing),
        ])
    }

    /// What may be bound to: bindings of the shared fanout and headers exchanges would meet the
    /// messages of other runs.
    fn source(&mut self) -> ExchangeName {
        self.exchange()
    }

    /// A predeclared exchange as destination would keep bindings after the run.
    fn destination(&mut self) -> ExchangeName {
        match self.exchange() {
            ExchangeName::Predeclared(_) => ExchangeName::Numbered(0),
            other => other,
        }
    }

    fn key(&mut self) -> Key {
        match self.theme {
            Theme::Routing if self.random.chance(85) => Key::Text(self.random.pick(KEYS)),
            _ if self.random.chance(50) => Key::Text(self.random.pick(&KEYS[..5])),
            _ if self.random.chance(50) => Key::Text(self.random.pick(KEYS)),
            _ => Key::Queue(QueueName::Numbered(self.random.below(3) as u8)),
        }
    }

    fn publish(&mut self) -> Publish {
        let routed = match self.theme {
            Theme::Routing | Theme::Headers => 85,
            _ => 20,
        };
        let (exchange, key) = if self.random.chance(routed) {
            let exchange = match self.random.below(40) {
                0 => ExchangeName::Predeclared("amq.fanout"),
                1 => ExchangeName::Predeclared("amq.headers"),
                2 => ExchangeName::Predeclared("amq.match"),
                _ => self.exchange(),
            };
            (exchange, self.key())
        } else {
            let queue = match self.queue() {
                QueueName::Empty => QueueName::Numbered(0),
                other => other,
            };
            (ExchangeName::Default, Key::Queue(queue))
        };
        Publish {
            exchange,
            key,
            mandatory: self.random.chance(30),
            immediate: self.random.chance(1),
            props: self.props(),
            body: self.random.weighted(BODIES),
        }
    }

    fn publish_to_queue(&mut self) -> Action {
        Action::Publish(Publish {
            exchange: ExchangeName::Default,
            key: Key::Queue(QueueName::Numbered(self.random.below(2) as u8)),
            mandatory: false,
            immediate: false,
            props: Props::None,
            body: Body::Small,
        })
    }

    fn props(&mut self) -> Props {
        if self.theme == Theme::Headers && self.random.chance(80) {
            return Props::Headers(self.header_fields());
        }
        match self.random.below(100) {
            0..15 => Props::Persistent,
            15..21 => Props::Transient,
            21..29 => Props::All,
            29..37 => Props::Headers(self.header_fields()),
            37 => Props::Expiration(self.random.pick(&["3600000", "abc", "-1", "1.5", "", " 1"])),
            38 => Props::UserId(self.random.pick(&["guest", "guest", "mallory", ""])),
            39 => Props::Priority(self.random.pick(&[0, 9, 255])),
            40 => Props::DeliveryMode(self.random.pick(&[0, 3, 255])),
            _ => Props::None,
        }
    }

    fn header_fields(&mut self) -> Arguments {
        let mut fields = Arguments::new();
        for name in ["h", "i", "x-h"] {
            if self.random.chance(60) {
                fields.push((name, self.random.pick(HEADER_VALUES)));
            }
        }
        fields
    }

    fn binding_arguments(&mut self) -> Arguments {
        let with_headers = match self.theme {
            Theme::Headers => 85,
            Theme::Routing => 15,
            _ => 4,
        };
        if !self.random.chance(with_headers) {
            return Vec::new();
        }
        let mut fields = self.header_fields();
        if self.random.chance(70) {
            fields.push(("x-match", self.random.weighted(MATCHES)));
        }
        fields
    }

    /// Only the first action may fail: what the broker delivers and confirms between a good publish
    /// and an error behind it is a race.
    fn burst(&mut self) -> Action {
        let first = match self.theme {
            Theme::Mistakes if self.random.chance(40) => Subject::Get,
            _ => Subject::Publish,
        };
        let mut actions = vec![self.action(first)];
        for _ in 0..=self.random.below(5) {
            let action = match self.theme {
                Theme::Delivery if self.random.chance(25) => self.answer_in_burst(),
                _ => Action::Publish(self.publish_safely()),
            };
            actions.push(action);
        }
        Action::Burst(actions)
    }

    /// Not all there are: what arrives during the burst would be a race.
    fn answer_in_burst(&mut self) -> Action {
        let tag = Tag::Outstanding(self.random.below(4) as u8);
        let requeue = self.random.chance(60);
        if self.random.chance(50) {
            Action::Ack { tag, multiple: false }
        } else {
            Action::Nack { tag, multiple: false, requeue }
        }
    }

    /// To an exchange that exists, with properties that are valid.
    fn publish_safely(&mut self) -> Publish {
        let (exchange, key) = if self.random.chance(20) {
            let name = self.random.pick(&["amq.direct", "amq.topic", "amq.fanout"]);
            (ExchangeName::Predeclared(name), self.key())
        } else {
            let queue = QueueName::Numbered(self.random.below(3) as u8);
            (ExchangeName::Default, Key::Queue(queue))
        };
        let props = match self.random.below(5) {
            0 => Props::Persistent,
            1 => Props::Headers(self.header_fields()),
            _ => Props::None,
        };
        Publish {
            exchange,
            key,
            mandatory: self.random.chance(30),
            immediate: false,
            props,
            body: self.random.weighted(BODIES),
        }
    }

    fn consume(&mut self) -> Action {
        let arguments = match self.random.below(30) {
            0 => vec![(
                "x-priority",
                self.random.pick(&[Argument::Int(0), Argument::Text("high"), Argument::Bool(true)]),
            )],
            1 => vec![("x-unknown", Argument::Int(1))],
            _ => Vec::new(),
        };
        Action::Consume {
            queue: self.queue(),
            consumer_tag: self.random.weighted(CONSUMER_TAGS),
            no_local: self.random.chance(10),
            no_ack: self.random.chance(30),
            exclusive: self.random.chance(10),
            nowait: self.random.chance(10),
            arguments,
        }
    }

    fn answer(&mut self) -> Action {
        let multiple = self.random.chance(30);
        let index = self.random.below(4) as u8;
        let tag = match self.random.below(100) {
            0..2 => Tag::Used,
            2..4 => Tag::Unknown,
            4..5 => Tag::Zero,
            5..14 if multiple => Tag::Zero,
            _ if multiple => Tag::EndOfStep(index),
            _ => Tag::Outstanding(index),
        };
        let requeue = self.random.chance(60);
        match self.random.below(10) {
            0..5 => Action::Ack { tag, multiple },
            5..8 => Action::Nack { tag, multiple, requeue },
            _ if multiple => Action::Nack { tag, multiple, requeue },
            _ => Action::Reject { tag, requeue },
        }
    }

    fn declare_queue(&mut self, nowait: bool) -> Action {
        let queue = match self.random.below(40) {
            0 => QueueName::Reserved,
            1 => QueueName::LineEnd,
            2..6 => QueueName::Empty,
            _ => self.queue(),
        };
        let exclusive = if self.theme == Theme::Ownership { 35 } else { 15 };
        let auto_delete = if self.theme == Theme::Ownership { 35 } else { 15 };
        let flags = QueueFlags {
            passive: self.random.chance(20),
            durable: self.random.chance(35),
            exclusive: self.random.chance(exclusive),
            auto_delete: self.random.chance(auto_delete),
            nowait: nowait && queue != QueueName::Empty,
        };
        let with_arguments = if self.theme == Theme::Declarations { 50 } else { 8 };
        let mut arguments = Arguments::new();
        if self.random.chance(with_arguments) {
            for _ in 0..=self.random.below(2) {
                let (name, value) = self.random.pick(QUEUE_ARGUMENTS);
                if arguments.iter().all(|(other, _)| *other != name) {
                    arguments.push((name, value));
                }
            }
        }
        Action::QueueDeclare { queue, flags, arguments }
    }

    fn declare_exchange(&mut self, nowait: bool) -> Action {
        let exchange = match self.random.below(30) {
            0 => ExchangeName::Reserved,
            1 => ExchangeName::Predeclared("amq.headers"),
            2 => ExchangeName::Predeclared("amq.fanout"),
            _ => self.exchange(),
        };
        let kind = match self.random.below(40) {
            0 => "x-unknown",
            1 => "",
            2 => "Direct",
            _ => self.random.weighted(EXCHANGE_KINDS),
        };
        let predeclared = matches!(exchange, ExchangeName::Predeclared(_));
        let flags = ExchangeFlags {
            passive: self.random.chance(15),
            durable: self.random.chance(if predeclared { 80 } else { 25 }),
            auto_delete: self.random.chance(20),
            internal: self.random.chance(12),
            nowait,
        };
        let mut arguments = Arguments::new();
        if self.random.chance(25) {
            arguments.push(self.random.pick(EXCHANGE_ARGUMENTS));
        }
        Action::ExchangeDeclare { exchange, kind, flags, arguments }
    }
}

const fn first(action: Action) -> Step {
    Step { connection: 0, channel: 1, raw: false, action }
}

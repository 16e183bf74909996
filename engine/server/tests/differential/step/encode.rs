//! Steps as frames.

use leveret_amqp::frame::{FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, frame_header};
use leveret_amqp::method::{
    AccessRequest, BasicAck, BasicCancel, BasicConsume, BasicGet, BasicNack, BasicPublish,
    BasicQos, BasicRecover, BasicRecoverAsync, BasicReject, ChannelClose, ChannelCloseOk,
    ChannelFlow, ChannelOpen, ConfirmSelect, ConnectionOpen, ConnectionTuneOk, ExchangeBind,
    ExchangeDeclare, ExchangeDelete, ExchangeUnbind, QueueBind, QueueDeclare, QueueDeclareOk,
    QueueDelete, QueuePurge, QueueUnbind, TxCommit, TxRollback, TxSelect, encode_frame,
};
use leveret_amqp::{OwnedTable, PropertiesBuilder, TableBuilder, Value, encoder};

use super::{Action, Argument, Arguments, Body, Names, Odd, Props, Publish};

/// The table on the wire.
fn table(arguments: &Arguments, names: &impl Names) -> OwnedTable {
    let nested = TableBuilder::new().finish();
    let mut builder = TableBuilder::new();
    for (name, argument) in arguments {
        builder = match *argument {
            Argument::Bool(value) => builder.bool(name, value),
            Argument::Byte(value) => builder.value(name, Value::I8(value)),
            Argument::Short(value) => builder.value(name, Value::I16(value)),
            Argument::Int(value) => builder.int(name, value),
            Argument::Long(value) => builder.long(name, value),
            Argument::Unsigned(value) => builder.value(name, Value::U32(value)),
            Argument::Double(value) => builder.value(name, Value::F64(value)),
            Argument::Text(value) => builder.long_str(name, value),
            Argument::Exchange(value) => builder.long_str(name, value.text(names)),
            Argument::Void => builder.value(name, Value::Void),
            Argument::Empty => builder.table(name, &nested),
        };
    }
    builder.finish()
}

impl Action {
    /// Appends the frames of the action. False where there is nothing to send.
    pub(crate) fn encode(&self, channel: u16, names: &mut impl Names, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Burst(actions) => {
                let mut sent = false;
                for action in actions {
                    sent |= action.encode(channel, names, out);
                }
                return sent;
            }
            Self::Ack { tag, .. } | Self::Nack { tag, .. } | Self::Reject { tag, .. } => {
                let multiple = matches!(
                    self,
                    Self::Ack { multiple: true, .. } | Self::Nack { multiple: true, .. }
                );
                let Some(delivery_tag) = names.take_tag(channel, *tag, multiple) else {
                    return false;
                };
                self.encode_answer(channel, delivery_tag, out);
            }
            Self::Publish(publish) => publish.encode(channel, names, out),
            Self::Odd(odd) => odd.encode(channel, out),
            Self::ExchangeDeclare { .. } | Self::ExchangeDelete { .. } => {
                self.encode_exchange(channel, names, out);
            }
            Self::ExchangeBind { .. } | Self::QueueBind { .. } => {
                self.encode_binding(channel, names, out);
            }
            Self::ExchangeUnbind { .. } | Self::QueueUnbind { .. } => {
                self.encode_unbinding(channel, names, out);
            }
            Self::QueueDeclare { .. } | Self::QueuePurge { .. } | Self::QueueDelete { .. } => {
                self.encode_queue(channel, names, out);
            }
            Self::Consume { .. } | Self::Cancel { .. } | Self::Get { .. } => {
                self.encode_consumer(channel, names, out);
            }
            Self::ConnectionClose | Self::ConnectionDrop => return false,
            _ => self.encode_channel(channel, out),
        }
        true
    }

    fn encode_answer(&self, channel: u16, delivery_tag: u64, out: &mut Vec<u8>) {
        match *self {
            Self::Ack { multiple, .. } => {
                encode_frame(channel, &BasicAck { delivery_tag, multiple }, out);
            }
            Self::Nack { multiple, requeue, .. } => {
                encode_frame(channel, &BasicNack { delivery_tag, multiple, requeue }, out);
            }
            Self::Reject { requeue, .. } => {
                encode_frame(channel, &BasicReject { delivery_tag, requeue }, out);
            }
            _ => unreachable!("only acknowledgements come here"),
        }
    }

    fn encode_exchange(&self, channel: u16, names: &impl Names, out: &mut Vec<u8>) {
        match self {
            Self::ExchangeDeclare { exchange, kind, flags, arguments } => {
                encode_frame(
                    channel,
                    &ExchangeDeclare {
                        exchange: &exchange.text(names),
                        kind,
                        passive: flags.passive,
                        durable: flags.durable,
                        auto_delete: flags.auto_delete,
                        internal: flags.internal,
                        nowait: flags.nowait,
                        arguments: table(arguments, names).as_ref(),
                    },
                    out,
                );
            }
            Self::ExchangeDelete { exchange, if_unused, nowait } => {
                let exchange = &exchange.text(names);
                let (if_unused, nowait) = (*if_unused, *nowait);
                encode_frame(channel, &ExchangeDelete { exchange, if_unused, nowait }, out);
            }
            _ => unreachable!("only exchanges come here"),
        }
    }

    fn encode_binding(&self, channel: u16, names: &impl Names, out: &mut Vec<u8>) {
        match self {
            Self::ExchangeBind { destination, source, key, nowait, arguments } => {
                encode_frame(
                    channel,
                    &ExchangeBind {
                        destination: &destination.text(names),
                        source: &source.text(names),
                        routing_key: key.text(*source, names).as_bytes(),
                        nowait: *nowait,
                        arguments: table(arguments, names).as_ref(),
                    },
                    out,
                );
            }
            Self::QueueBind { queue, exchange, key, nowait, arguments } => {
                encode_frame(
                    channel,
                    &QueueBind {
                        queue: &queue.text(names),
                        exchange: &exchange.text(names),
                        routing_key: key.text(*exchange, names).as_bytes(),
                        nowait: *nowait,
                        arguments: table(arguments, names).as_ref(),
                    },
                    out,
                );
            }
            _ => unreachable!("only binding comes here"),
        }
    }

    fn encode_unbinding(&self, channel: u16, names: &impl Names, out: &mut Vec<u8>) {
        match self {
            Self::ExchangeUnbind { destination, source, key, nowait, arguments } => {
                encode_frame(
                    channel,
                    &ExchangeUnbind {
                        destination: &destination.text(names),
                        source: &source.text(names),
                        routing_key: key.text(*source, names).as_bytes(),
                        nowait: *nowait,
                        arguments: table(arguments, names).as_ref(),
                    },
                    out,
                );
            }
            Self::QueueUnbind { queue, exchange, key, arguments } => {
                encode_frame(
                    channel,
                    &QueueUnbind {
                        queue: &queue.text(names),
                        exchange: &exchange.text(names),
                        routing_key: key.text(*exchange, names).as_bytes(),
                        arguments: table(arguments, names).as_ref(),
                    },
                    out,
                );
            }
            _ => unreachable!("only unbinding comes here"),
        }
    }

    fn encode_consumer(&self, channel: u16, names: &impl Names, out: &mut Vec<u8>) {
        match self {
            Self::Consume {
                queue,
                consumer_tag,
                no_local,
                no_ack,
                exclusive,
                nowait,
                arguments,
            } => {
                encode_frame(
                    channel,
                    &BasicConsume {
                        queue: &queue.text(names),
                        consumer_tag,
                        no_local: *no_local,
                        no_ack: *no_ack,
                        exclusive: *exclusive,
                        nowait: *nowait,
                        arguments: table(arguments, names).as_ref(),
                    },
                    out,
                );
            }
            Self::Cancel { consumer_tag, nowait } => {
                encode_frame(channel, &BasicCancel { consumer_tag, nowait: *nowait }, out);
            }
            Self::Get { queue, no_ack } => {
                let queue = &queue.text(names);
                encode_frame(channel, &BasicGet { queue, no_ack: *no_ack }, out);
            }
            _ => unreachable!("only consuming comes here"),
        }
    }

    fn encode_queue(&self, channel: u16, names: &impl Names, out: &mut Vec<u8>) {
        match self {
            Self::QueueDeclare { queue, flags, arguments } => {
                encode_frame(
                    channel,
                    &QueueDeclare {
                        queue: &queue.text(names),
                        passive: flags.passive,
                        durable: flags.durable,
                        exclusive: flags.exclusive,
                        auto_delete: flags.auto_delete,
                        nowait: flags.nowait,
                        arguments: table(arguments, names).as_ref(),
                    },
                    out,
                );
            }
            Self::QueuePurge { queue, nowait } => {
                let queue = &queue.text(names);
                encode_frame(channel, &QueuePurge { queue, nowait: *nowait }, out);
            }
            Self::QueueDelete { queue, if_unused, if_empty, nowait } => {
                let delete = QueueDelete {
                    queue: &queue.text(names),
                    if_unused: *if_unused,
                    if_empty: *if_empty,
                    nowait: *nowait,
                };
                encode_frame(channel, &delete, out);
            }
            _ => unreachable!("only queues come here"),
        }
    }

    fn encode_channel(&self, channel: u16, out: &mut Vec<u8>) {
        match self {
            Self::ChannelOpen => encode_frame(channel, &ChannelOpen {}, out),
            Self::ChannelClose => encode_frame(channel, &CHANNEL_CLOSE, out),
            Self::Flow { active } => encode_frame(channel, &ChannelFlow { active: *active }, out),
            Self::Access => encode_frame(channel, &ACCESS_REQUEST, out),
            Self::Qos { size, count, global } => {
                let qos =
                    BasicQos { prefetch_size: *size, prefetch_count: *count, global: *global };
                encode_frame(channel, &qos, out);
            }
            Self::Recover { requeue } => {
                encode_frame(channel, &BasicRecover { requeue: *requeue }, out);
            }
            Self::RecoverAsync { requeue } => {
                encode_frame(channel, &BasicRecoverAsync { requeue: *requeue }, out);
            }
            Self::ConfirmSelect { nowait } => {
                encode_frame(channel, &ConfirmSelect { nowait: *nowait }, out);
            }
            Self::TxSelect => encode_frame(channel, &TxSelect {}, out),
            Self::TxCommit => encode_frame(channel, &TxCommit {}, out),
            Self::TxRollback => encode_frame(channel, &TxRollback {}, out),
            _ => unreachable!("all other actions have their own encoder"),
        }
    }
}

/// A close without a fault.
pub(crate) const CHANNEL_CLOSE: ChannelClose<'_> =
    ChannelClose { reply_code: 200, reply_text: "bye", class_id: 0, method_id: 0 };

const ACCESS_REQUEST: AccessRequest<'_> = AccessRequest {
    realm: "/data",
    exclusive: false,
    passive: true,
    active: true,
    write: true,
    read: true,
};

impl Publish {
    fn encode(&self, channel: u16, names: &mut impl Names, out: &mut Vec<u8>) {
        let exchange = self.exchange.text(names);
        let routing_key = self.key.text(self.exchange, names);
        let method = BasicPublish {
            exchange: exchange.as_bytes(),
            routing_key: routing_key.as_bytes(),
            mandatory: self.mandatory,
            immediate: self.immediate,
        };
        encode_frame(channel, &method, out);
        let body = self.body.octets(names.next_body());
        let properties = self.props.octets(names);
        encoder::encode_content_header(channel, body.len() as u64, &properties, out);
        for part in body.chunks(self.body.part_size()) {
            out.extend_from_slice(&frame_header(FRAME_BODY, channel, part.len() as u32));
            out.extend_from_slice(part);
            out.push(FRAME_END);
        }
    }
}

/// The most body octets in a frame of 131,072.
const PART_SIZE_MAX: usize = 131_064;

impl Body {
    fn octets(self, number: u64) -> Vec<u8> {
        let mut octets = format!("m{number}").into_bytes();
        match self {
            Self::Empty => octets.clear(),
            Self::Small => {}
            Self::FrameSized => octets.resize(PART_SIZE_MAX, b'f'),
            Self::Large => octets.resize(2 * PART_SIZE_MAX + 1, b'l'),
            Self::InPieces => octets.resize(20, b'p'),
        }
        octets
    }

    const fn part_size(self) -> usize {
        match self {
            Self::InPieces => 7,
            _ => PART_SIZE_MAX,
        }
    }
}

impl Props {
    fn octets(&self, names: &impl Names) -> Vec<u8> {
        let headers;
        let mut properties = PropertiesBuilder::default();
        match self {
            Self::None => {}
            Self::Persistent => properties.delivery_mode = Some(2),
            Self::Transient => properties.delivery_mode = Some(1),
            Self::All => {
                headers = TableBuilder::new().int("n", 1).long_str("s", "text").finish();
                properties = all_properties(&headers);
            }
            Self::Headers(arguments) => {
                headers = table(arguments, names);
                properties.headers = Some(headers.as_ref());
            }
            Self::Expiration(text) => properties.expiration = Some(text.as_bytes()),
            Self::UserId(text) => properties.user_id = Some(text.as_bytes()),
            Self::Priority(priority) => properties.priority = Some(*priority),
            Self::DeliveryMode(mode) => properties.delivery_mode = Some(*mode),
        }
        properties.finish()
    }
}

fn all_properties(headers: &OwnedTable) -> PropertiesBuilder<'_> {
    PropertiesBuilder {
        content_type: Some(b"text/plain"),
        content_encoding: Some(b"identity"),
        headers: Some(headers.as_ref()),
        delivery_mode: Some(1),
        priority: Some(0),
        correlation_id: Some(b"c-1"),
        reply_to: Some(b"somewhere"),
        expiration: Some(b"3600000"),
        message_id: Some(b"\xff\x00 not text"),
        timestamp: Some(u64::MAX),
        kind: Some(b"kind"),
        user_id: Some(b"guest"),
        app_id: Some(b"app"),
        cluster_id: Some(b"cluster"),
    }
}

impl Odd {
    fn encode(self, channel: u16, out: &mut Vec<u8>) {
        let publish =
            BasicPublish { exchange: b"", routing_key: b"", mandatory: false, immediate: false };
        match self {
            Self::DeclareOkByClient => {
                let ok = QueueDeclareOk { queue: "q", message_count: 0, consumer_count: 0 };
                encode_frame(channel, &ok, out);
            }
            Self::CloseOkUnasked => encode_frame(channel, &ChannelCloseOk {}, out),
            Self::PublishWithoutHeader => {
                encode_frame(channel, &publish, out);
                encode_frame(channel, &ACCESS_REQUEST, out);
            }
            Self::HeaderAlone => encoder::encode_content_header(channel, 0, &[0, 0], out),
            Self::BodyAlone => raw_frame(FRAME_BODY, channel, b"alone", out),
            Self::BodyAfterEmpty => {
                encode_frame(channel, &publish, out);
                encoder::encode_content_header(channel, 0, &[0, 0], out);
                raw_frame(FRAME_BODY, channel, b"too much", out);
            }
            Self::HeaderOfOtherClass => {
                encode_frame(channel, &publish, out);
                let payload = [0, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                raw_frame(FRAME_HEADER, channel, &payload, out);
            }
            Self::HeartbeatOnChannel => raw_frame(FRAME_HEARTBEAT, channel, b"", out),
            Self::ChannelMethodOnZero => encode_frame(0, &ACCESS_REQUEST, out),
            Self::ConnectionMethodOnChannel => {
                encode_frame(channel, &ConnectionOpen { virtual_host: "/" }, out);
            }
            Self::OpenTwice => encode_frame(0, &ConnectionOpen { virtual_host: "/" }, out),
            Self::TuneAgain => {
                let tune = ConnectionTuneOk { channel_max: 10, frame_max: 4096, heartbeat: 0 };
                encode_frame(0, &tune, out);
            }
            Self::CancelOkByClient => {
                let ok = leveret_amqp::method::BasicCancelOk { consumer_tag: "t0" };
                encode_frame(channel, &ok, out);
            }
        }
    }
}

fn raw_frame(kind: u8, channel: u16, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&frame_header(kind, channel, payload.len() as u32));
    out.extend_from_slice(payload);
    out.push(FRAME_END);
}

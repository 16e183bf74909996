//! One connection of an ordinary client, without `async`.

use std::net::SocketAddr;
use std::time::Duration;

use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use tokio::runtime::Runtime;

/// Bounds a hang.
const PATIENCE: Duration = Duration::from_mins(1);

/// What `basic.get` gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) body: String,
    pub(crate) redelivered: bool,
    pub(crate) tag: u64,
}

/// A connection with one channel in confirm mode.
pub(crate) struct Session {
    runtime: Runtime,
    // Open as long as this lives.
    _connection: Connection,
    channel: Channel,
}

impl Session {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let (connection, channel) = bounded(&runtime, async {
            let url = format!("amqp://guest:guest@{address}/%2f");
            let properties = ConnectionProperties::default();
            let connection = Connection::connect(&url, properties).await.unwrap();
            let channel = connection.create_channel().await.unwrap();
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            (connection, channel)
        });
        Self { runtime, _connection: connection, channel }
    }

    /// Declares a durable queue.
    pub(crate) fn declare(&self, queue: &str) {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let declared = self.channel.queue_declare(queue.into(), options, FieldTable::default());
        bounded(&self.runtime, declared).unwrap();
    }

    /// Declares a durable fanout exchange.
    pub(crate) fn declare_fanout(&self, exchange: &str) {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let (kind, none) = (ExchangeKind::Fanout, FieldTable::default());
        let declared = self.channel.exchange_declare(exchange.into(), kind, options, none);
        bounded(&self.runtime, declared).unwrap();
    }

    pub(crate) fn bind(&self, queue: &str, exchange: &str) {
        let (options, none) = (QueueBindOptions::default(), FieldTable::default());
        let bound =
            self.channel.queue_bind(queue.into(), exchange.into(), "".into(), options, none);
        bounded(&self.runtime, bound).unwrap();
    }

    /// Publishes a persistent message and waits for its confirm.
    pub(crate) fn publish(&self, exchange: &str, key: &str, body: &str) {
        let (options, body) = (BasicPublishOptions::default(), body.as_bytes());
        let properties = BasicProperties::default().with_delivery_mode(2);
        let confirmation = bounded(&self.runtime, async {
            let channel = &self.channel;
            let sent =
                channel.basic_publish(exchange.into(), key.into(), options, body, properties);
            sent.await.unwrap().await.unwrap()
        });
        assert!(confirmation.is_ack(), "{confirmation:?}");
    }

    /// Gets a message, to be acknowledged.
    pub(crate) fn get(&self, queue: &str) -> Option<Got> {
        let got = self.channel.basic_get(queue.into(), BasicGetOptions::default());
        let BasicGetMessage { delivery, .. } = bounded(&self.runtime, got).unwrap()?;
        let body = String::from_utf8(delivery.data.clone()).unwrap();
        Some(Got { body, redelivered: delivery.redelivered, tag: delivery.delivery_tag })
    }

    /// Gets all messages, to be acknowledged.
    pub(crate) fn get_all(&self, queue: &str) -> Vec<Got> {
        std::iter::from_fn(|| self.get(queue)).collect()
    }

    pub(crate) fn ack(&self, got: &Got) {
        bounded(&self.runtime, self.channel.basic_ack(got.tag, BasicAckOptions::default()))
            .unwrap();
    }
}

fn bounded<T>(runtime: &Runtime, body: impl Future<Output = T>) -> T {
    runtime.block_on(async { tokio::time::timeout(PATIENCE, body).await.unwrap() })
}

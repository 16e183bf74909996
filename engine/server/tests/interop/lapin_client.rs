//! lapin, the Rust client, in the test's own process.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_lite::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicNackOptions,
    BasicPublishOptions, BasicQosOptions, BasicRejectOptions, ConfirmSelectOptions,
    ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer,
    ExchangeKind,
};

use crate::broker::Broker;
use crate::program::PATIENCE;
use crate::stage::Stage;

/// Long enough for a delivery that must not come.
const SETTLE: Duration = Duration::from_millis(200);

/// Connections of [`all_to_all`]: two for each of four shards.
const CONNECTIONS: usize = 8;

/// Messages from each connection to each queue.
const MESSAGES: usize = 20;

/// Each check with a publisher and a consumer connection.
pub(crate) fn features(stage: &Stage) {
    run(async {
        let publisher = connect(stage).await;
        let consumer = connect(stage).await;
        for check in 0..8 {
            let out = publisher.create_channel().await.unwrap();
            let into = consumer.create_channel().await.unwrap();
            out.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            match check {
                0 => confirm(stage, &out, &into).await,
                1 => topic(stage, &out, &into).await,
                2 => returned(stage, &out).await,
                3 => cancel(stage, &out, &into).await,
                4 => cancel_notification(stage, &out, &into).await,
                5 => requeue(stage, &out, &into).await,
                6 => prefetch(stage, &out, &into).await,
                _ => large_with_headers(stage, &out, &into).await,
            }
            out.close(200, "done".into()).await.unwrap();
            into.close(200, "done".into()).await.unwrap();
        }
        publisher.close(200, "done".into()).await.unwrap();
        consumer.close(200, "done".into()).await.unwrap();
    });
}

/// Every connection publishes to the queue of every connection. Connections go to the least loaded
/// shard, so all ordered pairs of shards are among them, be there 1, 2 or 4.
pub(crate) fn all_to_all(stage: &Stage) {
    run(async {
        let mut connections = Vec::new();
        let mut consumers = Vec::new();
        for number in 0..CONNECTIONS {
            let connection = connect(stage).await;
            let channel = connection.create_channel().await.unwrap();
            let queue = declare(&channel, &stage.named(&format!("to{number}"))).await;
            consumers.push(consume(&channel, &queue, true).await);
            connections.push((connection, channel));
        }
        for (from, (connection, _)) in connections.iter().enumerate() {
            let channel = connection.create_channel().await.unwrap();
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            let mut confirms = Vec::new();
            for message in 0..MESSAGES {
                for to in 0..CONNECTIONS {
                    let queue = stage.named(&format!("to{to}"));
                    let body = format!("{from} {message}");
                    confirms.push(send(&channel, &queue, body.as_bytes()).await);
                }
            }
            for confirm in confirms {
                assert!(matches!(confirm.await.unwrap(), Confirmation::Ack(None)));
            }
        }
        for consumer in &mut consumers {
            let mut by_sender = BTreeMap::<usize, Vec<usize>>::new();
            for delivery in take(consumer, CONNECTIONS * MESSAGES).await {
                let text = String::from_utf8(delivery.data).unwrap();
                let (from, message) = text.split_once(' ').unwrap();
                by_sender.entry(from.parse().unwrap()).or_default().push(message.parse().unwrap());
            }
            let wanted = (0..CONNECTIONS).map(|from| (from, (0..MESSAGES).collect())).collect();
            assert_eq!(by_sender, wanted, "each sender's messages once and in order");
        }
        for (connection, _) in connections {
            connection.close(200, "done".into()).await.unwrap();
        }
    });
}

/// An open connection that does nothing, with the runtime that keeps it alive.
pub(crate) fn idle(broker: &Broker) -> (tokio::runtime::Runtime, Connection) {
    let runtime = runtime();
    let url = broker.url(broker.address());
    let connection = runtime
        .block_on(async { Connection::connect(&url, ConnectionProperties::default()).await })
        .unwrap();
    (runtime, connection)
}

/// lapin's own recovery restores channels, queues and consumers.
pub(crate) fn reconnect(stage: &Stage, outage: &dyn Fn()) {
    run(async {
        let properties = ConnectionProperties::default().enable_auto_recover();
        let connection = Connection::connect(&stage.url(), properties).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        let queue = stage.named("reconnect");
        let durable = QueueDeclareOptions::durable();
        let declared = channel.queue_declare(queue.as_str().into(), durable, FieldTable::default());
        declared.await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let mut consumer = consume(&channel, &queue, true).await;
        send(&channel, &queue, b"start").await.await.unwrap();
        assert_eq!(take(&mut consumer, 1).await[0].data, b"start");

        tokio::task::block_in_place(outage);

        let publishing = publish_through(&channel, &queue, b"end");
        let receiving = receive_through(&channel, &mut consumer, b"end");
        futures_lite::future::zip(publishing, receiving).await;
        connection.close(200, "done".into()).await.unwrap();
    });
}

/// Publishes until the broker has confirmed; lapin asks its user to wait and repeat.
async fn publish_through(channel: &Channel, queue: &str, body: &[u8]) {
    loop {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let properties = BasicProperties::default();
        let sent = channel.basic_publish("".into(), queue.into(), options, body, properties).await;
        let confirmed = match sent {
            Ok(confirm) => confirm.await,
            Err(error) => Err(error),
        };
        match confirmed {
            Ok(Confirmation::Ack(None)) => return,
            // Queues do not survive a restart yet, and recovery has not declared this one again.
            Ok(Confirmation::Ack(Some(_))) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(other) => panic!("not confirmed: {other:?}"),
            Err(error) => channel.wait_for_recovery(error).await.unwrap(),
        }
    }
}

async fn receive_through(channel: &Channel, consumer: &mut Consumer, body: &[u8]) {
    while let Some(delivery) = consumer.next().await {
        match delivery {
            Ok(delivery) if delivery.data == body => return,
            Ok(_) => {}
            Err(error) => channel.wait_for_recovery(error).await.unwrap(),
        }
    }
    panic!("the consumer ended");
}

async fn confirm(stage: &Stage, out: &Channel, into: &Channel) {
    let queue = declare(into, &stage.named("confirm")).await;
    let mut confirms = Vec::new();
    for number in 0..200_u8 {
        confirms.push(send(out, &queue, &[number]).await);
    }
    for confirm in confirms {
        assert_eq!(confirm.await.unwrap(), Confirmation::Ack(None));
    }
    let mut consumer = consume(into, &queue, true).await;
    let bodies: Vec<_> = take(&mut consumer, 200).await.iter().map(|got| got.data[0]).collect();
    assert_eq!(bodies, (0..200).collect::<Vec<u8>>());
}

async fn topic(stage: &Stage, out: &Channel, into: &Channel) {
    let exchange: ShortString = stage.named("topic").into();
    let options = ExchangeDeclareOptions { auto_delete: true, ..Default::default() };
    let table = FieldTable::default();
    into.exchange_declare(exchange.clone(), ExchangeKind::Topic, options, table).await.unwrap();
    let queue = declare(into, "").await;
    for key in ["*.orange.*", "*.*.rabbit", "lazy.#"] {
        let options = QueueBindOptions::default();
        let bound = into.queue_bind(
            queue.as_str().into(),
            exchange.clone(),
            key.into(),
            options,
            FieldTable::default(),
        );
        bound.await.unwrap();
    }
    for key in ["quick.orange.rabbit", "quick.brown.fox", "lazy", "orange", "lazy.pink.rabbit"] {
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default();
        let sent = out.basic_publish(exchange.clone(), key.into(), options, b"", properties);
        sent.await.unwrap().await.unwrap();
    }
    let mut consumer = consume(into, &queue, true).await;
    let came = take(&mut consumer, 3).await;
    let keys: Vec<_> = came.iter().map(|delivery| delivery.routing_key.as_str()).collect();
    assert_eq!(keys, ["quick.orange.rabbit", "lazy", "lazy.pink.rabbit"]);
}

async fn returned(stage: &Stage, out: &Channel) {
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let properties = BasicProperties::default().with_message_id("m1".into());
    let nowhere = stage.named("nowhere");
    let sent = out.basic_publish("".into(), nowhere.into(), options, b"back", properties);
    let Confirmation::Ack(Some(back)) = sent.await.unwrap().await.unwrap() else {
        panic!("confirmed, but not returned");
    };
    assert_eq!((back.reply_code, back.reply_text.as_str()), (312, "NO_ROUTE"));
    assert_eq!(back.delivery.data, b"back");
    assert_eq!(back.delivery.properties.message_id().as_ref().unwrap().as_str(), "m1");
}

async fn cancel(stage: &Stage, out: &Channel, into: &Channel) {
    let queue = declare(into, &stage.named("cancel")).await;
    let mut consumer = consume(into, &queue, true).await;
    send(out, &queue, b"before").await.await.unwrap();
    assert_eq!(take(&mut consumer, 1).await[0].data, b"before");
    into.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await.unwrap();
    send(out, &queue, b"after").await.await.unwrap();
    assert!(consumer.next().await.is_none(), "cancelled, and nothing more");
    let left = into.queue_delete(queue.as_str().into(), QueueDeleteOptions::default());
    assert_eq!(left.await.unwrap(), 1);
}

async fn cancel_notification(stage: &Stage, out: &Channel, into: &Channel) {
    let options = QueueDeclareOptions::default();
    let queue = stage.named("cancel_notification");
    let table = FieldTable::default();
    into.queue_declare(queue.as_str().into(), options, table).await.unwrap();
    let mut consumer = consume(into, &queue, true).await;
    out.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    assert!(consumer.next().await.is_none(), "told that the queue is gone");
}

async fn requeue(stage: &Stage, out: &Channel, into: &Channel) {
    let queue = declare(into, &stage.named("requeue")).await;
    for body in [b"a", b"b", b"c"] {
        send(out, &queue, body).await.await.unwrap();
    }
    let first = get_three(into, &queue).await;
    assert!(first.iter().all(|delivery| !delivery.redelivered));
    first[2].nack(BasicNackOptions { multiple: true, requeue: true }).await.unwrap();
    let again = get_three(into, &queue).await;
    let bodies: Vec<_> = again.iter().map(|delivery| delivery.data.as_slice()).collect();
    assert_eq!(bodies, [b"a", b"b", b"c"], "the original positions");
    assert!(again.iter().all(|delivery| delivery.redelivered));
    again[0].reject(BasicRejectOptions { requeue: false }).await.unwrap();
    again[2].ack(BasicAckOptions { multiple: true }).await.unwrap();
    let empty = into.basic_get(queue.as_str().into(), BasicGetOptions::default()).await.unwrap();
    assert!(empty.is_none());
}

async fn get_three(into: &Channel, queue: &str) -> Vec<Delivery> {
    let mut taken = Vec::new();
    for _ in 0..3 {
        let got = into.basic_get(queue.into(), BasicGetOptions::default()).await.unwrap();
        taken.push(got.expect("a message").delivery);
    }
    taken
}

async fn prefetch(stage: &Stage, out: &Channel, into: &Channel) {
    let queue = declare(into, &stage.named("prefetch")).await;
    for number in 0..5 {
        send(out, &queue, &[number]).await.await.unwrap();
    }
    into.basic_qos(2, BasicQosOptions::default()).await.unwrap();
    let mut consumer = consume(into, &queue, false).await;
    let first = take(&mut consumer, 2).await;
    assert!(nothing(&mut consumer).await, "two are unacknowledged");
    first[0].ack(BasicAckOptions::default()).await.unwrap();
    assert_eq!(take(&mut consumer, 1).await[0].data, [2]);
    assert!(nothing(&mut consumer).await, "two are unacknowledged again");
}

async fn large_with_headers(stage: &Stage, out: &Channel, into: &Channel) {
    let queue = declare(into, &stage.named("large")).await;
    let body: Vec<_> = (0..1_000_003_u32).map(|byte| (byte % 251) as u8).collect();
    let mut headers = FieldTable::default();
    headers.insert("int".into(), AMQPValue::LongInt(7));
    headers.insert("text".into(), AMQPValue::LongString("ä".into()));
    headers.insert("table".into(), AMQPValue::FieldTable(headers.clone()));
    let properties = BasicProperties::default()
        .with_headers(headers)
        .with_delivery_mode(2)
        .with_priority(3)
        .with_correlation_id("c".into())
        .with_expiration("60000".into())
        .with_timestamp(1_700_000_000);
    let options = BasicPublishOptions::default();
    let key = queue.as_str().into();
    let sent = out.basic_publish("".into(), key, options, &body, properties.clone());
    sent.await.unwrap().await.unwrap();
    let mut consumer = consume(into, &queue, true).await;
    let came = take(&mut consumer, 1).await.remove(0);
    assert!(came.data == body, "another body of {} bytes", came.data.len());
    assert_eq!(came.properties, properties);
}

/// Runs `work` on a runtime of its own, for a bounded time.
fn run(work: impl Future<Output = ()>) {
    let runtime = runtime();
    let done = runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await });
    runtime.shutdown_background();
    done.expect("lapin's programs end in time");
}

fn runtime() -> tokio::runtime::Runtime {
    // One worker would do, were it not for a test that blocks it on purpose.
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn connect(stage: &Stage) -> Connection {
    Connection::connect(&stage.url(), ConnectionProperties::default()).await.unwrap()
}

/// A queue that goes with its connection; without a name the broker gives it one.
async fn declare(channel: &Channel, name: &str) -> String {
    // The publisher on its other connection only publishes, so the queue can be private.
    let options = QueueDeclareOptions::exclusive();
    let declared = channel.queue_declare(name.into(), options, FieldTable::default()).await;
    declared.unwrap().name().as_str().to_owned()
}

async fn consume(channel: &Channel, queue: &str, no_ack: bool) -> Consumer {
    let options = BasicConsumeOptions { no_ack, ..Default::default() };
    let table = FieldTable::default();
    channel.basic_consume(queue.into(), "".into(), options, table).await.unwrap()
}

async fn send(channel: &Channel, queue: &str, body: &[u8]) -> lapin::PublisherConfirm {
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default();
    channel.basic_publish("".into(), queue.into(), options, body, properties).await.unwrap()
}

async fn take(consumer: &mut Consumer, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.push(consumer.next().await.expect("the consumer goes on").unwrap());
    }
    taken
}

async fn nothing(consumer: &mut Consumer) -> bool {
    tokio::time::timeout(SETTLE, consumer.next()).await.is_err()
}

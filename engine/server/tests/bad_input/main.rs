//! What broken, old and hostile clients send, and what the broker answers.
//!
//! Each row is one input; its number is that of the project's list of bad inputs, which was read
//! out of RabbitMQ. All rows of a group run at the same time on one broker; afterwards a message
//! that was put in before must still be there. The broker is the `leveret` binary, or with
//! `LEVERET_BAD_INPUT_BROKER=host:port` any other: a RabbitMQ 3.10, of which the rows know in what
//! it differs.
//!
//! Not here: what needs two connections (row 87: the differential test), users and permissions
//! (44, 52, 53), headers with a meaning (80, 84), a close that is never answered (109: 30 s).

mod content;
mod frames;
mod handshake;
#[path = "../differential/leveret.rs"]
mod leveret;
mod row;
mod rules;
mod tables;
mod wire;

use std::env;
use std::net::{SocketAddr, ToSocketAddrs};

use leveret_amqp::method::{BasicGet, QueueDeclare, QueueDelete};

use crate::frames::{content_header, publish};
use crate::leveret::Leveret;
use crate::row::Row;
use crate::wire::Wire;

#[test]
fn protocol_headers() {
    check("headers", handshake::HEADER_ROWS);
}

#[test]
fn logins() {
    check("logins", handshake::LOGIN_ROWS);
}

#[test]
fn limits_and_virtual_hosts() {
    check("limits", handshake::TUNE_ROWS);
}

#[test]
fn frames_that_are_broken() {
    check("frames", frames::FRAME_ROWS);
}

#[test]
fn methods_that_cannot_be_read() {
    check("methods", frames::METHOD_ROWS);
}

#[test]
fn methods_in_the_wrong_place() {
    check("places", frames::PLACE_ROWS);
}

#[test]
fn tables_and_names() {
    check("tables", tables::TABLE_ROWS);
}

#[test]
fn content_in_the_wrong_order() {
    check("content", content::ORDER_ROWS);
}

#[test]
fn properties() {
    check("properties", content::PROPERTY_ROWS);
}

#[test]
fn declarations() {
    check("declarations", rules::DECLARATION_ROWS);
}

#[test]
fn exchanges_and_bindings() {
    check("exchanges", rules::EXCHANGE_ROWS);
}

#[test]
fn deliveries_and_modes() {
    check("deliveries", rules::DELIVERY_ROWS);
}

/// Runs the rows on a broker that holds a message, and looks for the message afterwards.
fn check(group: &str, rows: &[Row]) {
    let broker = Broker::of_environment(group);
    let witness = format!("witness.{group}.{}", std::process::id());
    put(broker.address, &witness);
    row::check(broker.address, broker.is_rabbit, rows);
    look_for(broker.address, &witness);
}

struct Broker {
    address: SocketAddr,
    is_rabbit: bool,
    _leveret: Option<Leveret>,
}

impl Broker {
    fn of_environment(group: &str) -> Self {
        if let Ok(address) = env::var("LEVERET_BAD_INPUT_BROKER") {
            let mut addresses = address.to_socket_addrs().expect("host:port");
            let address = addresses.next().expect("an address");
            return Self { address, is_rabbit: true, _leveret: None };
        }
        let leveret = Leveret::start(&format!("bad-input-{group}"), 1);
        Self { address: leveret.address(), is_rabbit: false, _leveret: Some(leveret) }
    }
}

fn put(address: SocketAddr, queue: &str) {
    let mut wire = Wire::connect(address);
    wire.channel();
    wire.method(1, &QueueDeclare { durable: true, ..QueueDeclare::named(queue) });
    wire.expect("queue.declare-ok");
    wire.method(1, &publish(queue.as_bytes()));
    wire.send(content_header(0));
    wire.ask();
    wire.expect("channel.flow-ok");
}

fn look_for(address: SocketAddr, queue: &str) {
    let mut wire = Wire::connect(address);
    wire.channel();
    wire.method(1, &BasicGet { queue, no_ack: true });
    wire.expect("basic.get-ok");
    wire.method(1, &QueueDelete { queue, if_unused: false, if_empty: false, nowait: false });
    wire.expect("queue.delete-ok");
}

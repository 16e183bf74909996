//! Real, unmodified client programs against a real broker process.
//!
//! ```text
//! cargo interop                      everything; a filter may follow: cargo interop four_shards
//! ```
//!
//! **What runs.** The programs under `interop/programs` are as a user of that library writes them,
//! the tutorials as separate processes in separate "terminals". Every client family plays all its
//! scenarios against 1, 2 and 4 shards, directly and through a proxy that cuts frames at random
//! bytes in both directions. Beside the matrix: connections spread over the shards, every client
//! lives through a restart of the broker, and the broker stops cleanly with clients connected.
//!
//! **What it needs.** `python3` (3.11 or later, with `venv`), `node` with `npm`, and Debian's
//! `amqp-tools`; as root on Debian the tests install what is missing. The client libraries are
//! pinned and go to `target/interop`, once. A missing tool is a failure, never a skipped test.
//!
//! **Another broker.** The tests are proved right against `RabbitMQ`: with
//! `LEVERET_INTEROP_BROKER=amqp://guest:guest@127.0.0.1:5672/` they start no broker and use that
//! one. The shard counts then only repeat the run; a restart becomes an outage of the connections;
//! what is about Leveret alone (its gauges, its stop) checks nothing and says so.
//!
//! **Seeds.** `LEVERET_INTEROP_SEED=N` chooses where the proxy cuts; a failure names its seed.
//!
//! A test starts up to six scenarios at a time over all test threads, as they mostly wait, so the
//! number of test threads needs no tuning. All waits are bounded.

// All of this is test code, though only the functions below bear the attribute.
#![allow(clippy::unwrap_used)]

mod broker;
mod clients;
mod lapin_client;
mod program;
mod proxy;
mod restart;
mod stage;
mod tools;
mod tutorials;

use std::net::TcpStream;

use broker::Broker;
use clients::{AIO_PIKA, AMQPLIB, CELERY, KOMBU, LAPIN, PIKA, PIKA_013, RABBITMQ_C};
use stage::{Route, play};

/// One test per client family: the rows of the matrix.
macro_rules! every_family {
    ($world:ident, $shards:expr, $route:expr) => {
        mod $world {
            use super::*;

            #[test]
            fn pika_0_13() {
                play(PIKA_013, $shards, $route);
            }

            #[test]
            fn pika() {
                play(PIKA, $shards, $route);
            }

            #[test]
            fn aio_pika() {
                play(AIO_PIKA, $shards, $route);
            }

            #[test]
            fn kombu() {
                play(KOMBU, $shards, $route);
            }

            #[test]
            fn celery() {
                play(CELERY, $shards, $route);
            }

            #[test]
            fn amqplib() {
                play(AMQPLIB, $shards, $route);
            }

            #[test]
            fn rabbitmq_c() {
                play(RABBITMQ_C, $shards, $route);
            }

            #[test]
            fn lapin() {
                play(LAPIN, $shards, $route);
            }
        }
    };
}

every_family!(one_shard, 1, Route::Direct);
every_family!(two_shards, 2, Route::Direct);
every_family!(four_shards, 4, Route::Direct);
every_family!(one_shard_cut_frames, 1, Route::Cut);
every_family!(two_shards_cut_frames, 2, Route::Cut);
every_family!(four_shards_cut_frames, 4, Route::Cut);

/// Publisher and consumer meet on different shards only if connections are spread.
#[test]
fn connections_spread_over_all_shards() {
    let broker = Broker::start(4);
    if !broker.is_own() {
        println!("nothing checked: the gauges are Leveret's own");
        return;
    }
    let clients: Vec<_> = (0..8).map(|_| lapin_client::idle(&broker)).collect();
    assert_eq!(broker.connections_by_shard(), [2, 2, 2, 2]);
    drop(clients);
}

/// Every client library comes back to a broker that was stopped and started again.
#[test]
fn clients_survive_a_restart() {
    restart::clients_survive_a_restart();
}

/// Dropping the broker sends `SIGTERM` and demands exit code 0, with a client that never read.
#[test]
fn stops_with_clients_connected() {
    let broker = Broker::start(2);
    if !broker.is_own() {
        println!("nothing checked: the running broker is not ours to stop");
        return;
    }
    let open = lapin_client::idle(&broker);
    let silent = TcpStream::connect(broker.address()).unwrap();
    drop(broker);
    drop((open, silent));
}

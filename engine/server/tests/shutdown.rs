//! Ending the real binary: clients are told, time is bounded, a second signal is not argued with.

mod process;

use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use process::Broker;
use process::client::Client;

/// The longest stop where the disk does not stand still.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Scheduling on a machine that does other things too.
const SLACK: Duration = Duration::from_secs(5);

#[test]
fn clients_are_told_and_the_broker_ends_well() {
    let mut broker = Broker::start(&["--shards", "2"]);
    let address = broker.address("amqp");
    let mut clients: Vec<Client> = (0..5).map(|_| Client::open(address)).collect();
    clients[0].open_channel();
    let mut silent = Client::connect(address);
    let asked = Instant::now();
    broker.signal("TERM");
    for client in &mut clients {
        let (code, text) = client.read_close();
        assert_eq!(code, 320);
        assert!(text.starts_with("CONNECTION_FORCED"), "{text}");
        client.close_ok();
        assert!(client.is_cut());
    }
    assert!(silent.is_cut(), "who has not said hello is cut");
    assert_eq!(broker.wait(SLACK).code(), Some(0));
    assert!(asked.elapsed() < SLACK, "{:?}", asked.elapsed());
    assert!(TcpStream::connect(address).is_err());
    assert!(broker.drain_stderr().contains("stopped"));
}

#[test]
fn an_idle_broker_ends_at_once_on_ctrl_c() {
    let mut broker = Broker::start(&[]);
    broker.signal("INT");
    assert_eq!(broker.wait(SLACK).code(), Some(0));
}

#[test]
fn a_client_that_does_not_let_go_is_left_behind_in_time() {
    let mut broker = Broker::start(&["--shards", "1"]);
    let mut rude = Client::open(broker.address("amqp"));
    let asked = Instant::now();
    broker.signal("TERM");
    assert_eq!(rude.read_close().0, 320);
    assert_eq!(broker.wait(STOP_MAX + SLACK).code(), Some(0));
    assert!(asked.elapsed() > Duration::from_secs(5), "it was given some time");
    assert!(rude.is_cut());
    assert!(broker.drain_stderr().contains("1 clients did not take leave"));
}

#[test]
fn new_clients_are_refused_while_it_stops() {
    let mut broker = Broker::start(&["--shards", "1"]);
    let address = broker.address("amqp");
    let mut rude = Client::open(address);
    broker.signal("TERM");
    assert_eq!(rude.read_close().0, 320);
    // The listener closes within the control thread's next turns.
    let deadline = Instant::now() + SLACK;
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < deadline, "still listening");
        std::thread::sleep(Duration::from_millis(10));
    }
    rude.close_ok();
    assert_eq!(broker.wait(SLACK).code(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second, code) in [("TERM", "INT", 130), ("INT", "TERM", 143)] {
        let mut broker = Broker::start(&["--shards", "1"]);
        let mut rude = Client::open(broker.address("amqp"));
        broker.signal(first);
        assert_eq!(rude.read_close().0, 320);
        let asked = Instant::now();
        broker.signal(second);
        let status = broker.wait(SLACK);
        assert_eq!((status.code(), status.signal()), (Some(code), None));
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    }
}

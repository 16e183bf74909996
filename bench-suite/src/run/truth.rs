//! Tests of the harness: each defect of a broker is detected and named, and a correct broker
//! passes.

use std::time::Duration;

use crate::broker::{Broker, parse_broker};
use crate::fault::Fault;
use crate::results::Messages;
use crate::run::stub::{Defect, Stub};
use crate::run::{Reading, Setting, flow};
use crate::scenario::{Exchange, Flow, Transport};

const TRANSPORTS: [Transport; 2] = [Transport::TokioUring, Transport::IoUring];

fn broker_of(stub: &Stub) -> Broker {
    parse_broker(&format!("stub={}", stub.address)).unwrap()
}

fn run_for(
    defect: Defect,
    flow: &Flow,
    transport: Transport,
    window: Duration,
) -> Result<Reading, Fault> {
    let stub = Stub::start(defect);
    let setting = Setting {
        broker: &broker_of(&stub),
        load_cores: &[],
        window,
        warm_up: Duration::from_millis(50),
        silence_max: Duration::from_secs(1),
        transport,
        is_watched: true,
        first_stream: 7,
    };
    flow::run(&setting, flow, &|_, _| ())
}

fn run(defect: Defect, flow: &Flow, transport: Transport) -> Result<Reading, Fault> {
    run_for(defect, flow, transport, Duration::from_millis(200))
}

fn confirmed() -> Flow {
    Flow { confirm_window: 100, prefetch: 100, ack_every: 10, ..Flow::default() }
}

fn messages(defect: Defect, flow: &Flow, transport: Transport) -> Messages {
    run(defect, flow, transport).unwrap().messages.unwrap()
}

#[test]
fn a_right_broker_passes_every_kind_of_flow() {
    let flows = [
        Flow::default(),
        confirmed(),
        Flow { body_bytes: 300_000, ..confirmed() },
        Flow { queues: 3, keys_per_queue: 2, publishers: 2, consumers: 3, ..confirmed() },
        Flow { exchange: Exchange::Fanout, queues: 4, consumers: 2, ..Flow::default() },
        Flow { consumers: 3, shared: true, ..confirmed() },
        Flow { rate_per_s: 2000.0, ..Flow::default() },
        Flow { rate_per_s: 500.0, rate_end_per_s: 5000.0, ..confirmed() },
        Flow { work_us: 100, ..confirmed() },
    ];
    for transport in TRANSPORTS {
        for flow in &flows {
            let reading = run(Defect::None, flow, transport)
                .unwrap_or_else(|fault| panic!("{flow:?} on {transport:?}: {fault}"));
            let messages = reading.messages.unwrap();
            assert!(messages.is_clean() && messages.published > 0, "{flow:?}: {messages}");
            assert!(reading.metrics["messages_per_s"] > 0.0);
            assert!(reading.latencies["delivery"].count > 0);
        }
    }
}

#[test]
fn each_defect_is_counted_as_what_it_is() {
    for transport in TRANSPORTS {
        let count = |defect| messages(defect, &confirmed(), transport);
        assert!(count(Defect::Lose).lost > 0);
        assert!(count(Defect::Duplicate).duplicated > 0);
        assert!(count(Defect::Reorder).reordered > 0);
        assert!(count(Defect::Corrupt).corrupted > 0);
        assert!(count(Defect::Shorten).corrupted > 0);
        let large = Flow { body_bytes: 5000, ..confirmed() };
        assert!(messages(Defect::CorruptFiller, &large, transport).corrupted > 0);
        let two = Flow { queues: 2, consumers: 2, ..confirmed() };
        assert!(messages(Defect::Misroute, &two, transport).foreign > 0);
    }
}

#[test]
fn a_message_that_is_lost_without_confirms_is_lost_too() {
    for transport in TRANSPORTS {
        let messages = messages(Defect::Lose, &Flow::default(), transport);
        assert!(messages.lost > 0 && messages.duplicated == 0, "{messages}");
    }
}

#[test]
fn a_broker_that_cannot_go_on_is_a_fault_that_says_why() {
    for transport in TRANSPORTS {
        let fault = |defect| run(defect, &confirmed(), transport).unwrap_err();
        assert!(matches!(fault(Defect::ForgetConfirms), Fault::Silent { .. }));
        assert!(matches!(fault(Defect::ConfirmTwice), Fault::Messages(_)));
        assert!(matches!(fault(Defect::Nack), Fault::Messages(_)));
        assert!(matches!(fault(Defect::RefuseQueue), Fault::Closed { code: 404, .. }));
    }
}

/// How long the stalling broker stops each second.
const STALL: Duration = Duration::from_millis(100);

/// A broker that stops for 100 ms each second. Some of the messages that were due during a stop
/// waited for almost all of it, although none of them was sent meanwhile.
#[test]
fn an_open_loop_shows_what_a_stall_costs() {
    let stall = Defect::Stall { every: Duration::from_secs(1), length: STALL };
    let stall_us = STALL.as_micros() as f64;
    let flow = Flow { rate_per_s: 1000.0, ..Flow::default() };
    for transport in TRANSPORTS {
        let reading = run_for(stall, &flow, transport, Duration::from_secs(2)).unwrap();
        let delivery = &reading.latencies["delivery"];
        assert!(
            delivery.max_us > 0.8 * stall_us,
            "the longest wait is that of the stop: {delivery:?}"
        );
        // A tenth of all messages are due during a stop, and half of those wait for at least half
        // of it.
        assert!(delivery.p99_us > 0.6 * stall_us, "{delivery:?}");
        assert!(delivery.p50_us < delivery.p99_us / 2.0, "{delivery:?}");
    }
}

#[test]
fn a_slow_broker_holds_the_closed_loop_back_and_shows_in_the_open_one() {
    let slow = Defect::Slow { per_s: 500 };
    for transport in TRANSPORTS {
        let closed = run(slow, &Flow { under_way_max: 16, ..Flow::default() }, transport).unwrap();
        assert!(closed.metrics["messages_per_s"] < 1000.0, "{:?}", closed.metrics);
        let (fast, slowed) = (Flow { rate_per_s: 2000.0, ..Flow::default() }, slow);
        let open = run(slowed, &fast, transport).unwrap();
        let right = run(Defect::None, &fast, transport).unwrap();
        let p50_us = |reading: &Reading| reading.latencies["delivery"].p50_us;
        assert!(p50_us(&open) > 4.0 * p50_us(&right), "waiting counts from the intended time");
    }
}

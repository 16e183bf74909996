use std::time::Duration;

use super::*;
use crate::broker::{Broker, parse_broker};
use crate::load::latency::LatencyHistogram;
use crate::run::stub::{Defect, Stub};
use crate::scenario::{Backlog, BindingChurn, ConnectionChurn, Transport};

/// A steady flow that the stub can handle, with enough patterns for changing bindings.
fn steady() -> Flow {
    let exchange = Exchange::Topic;
    Flow { rate_per_s: 500.0, exchange, keys_per_queue: 4, ..Flow::default() }
}

fn interference(flow: Flow, trouble: Trouble) -> Interference {
    Interference { flow, idle: IdleThings::default(), trouble: Some(trouble) }
}

fn run_against(defect: Defect, interference: &Interference) -> Result<Reading, Fault> {
    check(interference)?;
    let stub = Stub::start(defect);
    let broker: Broker = parse_broker(&format!("stub={}", stub.address)).unwrap();
    let setting = Setting {
        broker: &broker,
        load_cores: &[],
        window: Duration::from_millis(300),
        warm_up: Duration::from_millis(50),
        silence_max: Duration::from_secs(1),
        transport: Transport::IoUring,
        is_watched: false,
        first_stream: 7,
    };
    run(&setting, interference, &|_, _| ())
}

fn troubles() -> Vec<Trouble> {
    vec![
        Trouble::Flow(Flow { rate_per_s: 1000.0, ..Flow::default() }),
        Trouble::Drain(Backlog {
            messages: 5000,
            body_bytes: 100,
            durable: false,
            persistent: false,
        }),
        Trouble::Connections(ConnectionChurn { clients: 2 }),
        Trouble::Bindings(BindingChurn { changes_per_s: 1000.0 }),
    ]
}

#[test]
fn every_trouble_is_made_while_the_flow_is_measured() {
    for trouble in troubles() {
        let interference = interference(steady(), trouble);
        let reading = run_against(Defect::None, &interference)
            .unwrap_or_else(|fault| panic!("{:?}: {fault}", interference.trouble));
        let messages = reading.messages.unwrap();
        assert!(messages.is_clean(), "{:?}: {messages}", interference.trouble);
        assert!(reading.metrics["trouble_per_s"] > 0.0, "{:?}", interference.trouble);
        assert!(reading.metrics["delivery_p99_9_ratio"] > 0.0, "{:?}", reading.metrics);
        assert!(!reading.metrics.contains_key("messages_per_broker_cpu_s"));
        // Three runs of the flow, each with its own streams, and one of the trouble.
        let of_trouble =
            u32::from(trouble::flow_of(interference.trouble.as_ref().unwrap()).is_some());
        assert_eq!(reading.streams, 3 * topology::streams_of(&interference.flow) + of_trouble);
    }
}

#[test]
fn idle_things_are_made_and_a_greedy_flow_keeps_a_share() {
    let idle = IdleThings { queues: 50, bindings: 30, connections: 5, channels: 10 };
    let interference = Interference { flow: Flow::default(), idle, trouble: None };
    let reading = run_against(Defect::None, &interference).unwrap();
    assert!(reading.messages.unwrap().is_clean());
    for key in ["kept_messages_per_s", "alone_messages_per_s", "made_per_s", "removed_per_s"] {
        assert!(reading.metrics[key] > 0.0, "{key}: {:?}", reading.metrics);
    }
    assert!(!reading.metrics.contains_key("delivery_p99_ratio"), "it would be one of throughput");
}

#[test]
fn what_the_trouble_lost_fails_the_run_as_well() {
    // One message in a thousand is lost: some of those belong to the trouble, which has far more
    // messages.
    let trouble = Trouble::Flow(Flow { rate_per_s: 10_000.0, ..Flow::default() });
    let interference = interference(Flow { rate_per_s: 20.0, ..steady() }, trouble);
    let reading = run_against(Defect::Lose, &interference).unwrap();
    assert!(reading.messages.unwrap().lost > 0);
}

#[test]
fn a_trouble_that_cannot_begin_says_why() {
    let trouble = Trouble::Connections(ConnectionChurn { clients: 1 });
    let fault = run_against(Defect::RefuseQueue, &interference(steady(), trouble)).unwrap_err();
    assert!(matches!(fault, Fault::Closed { code: 404, .. }), "{fault}");
}

#[test]
fn the_flow_alone_is_the_mean_of_before_and_after() {
    let reading = |per_s| Reading {
        metrics: [(PER_S.0, per_s), (PER_CPU_S.0, 2.0 * per_s)].into(),
        ..Reading::default()
    };
    let idle = IdleThings { queues: 1, ..IdleThings::default() };
    let interference = Interference { flow: Flow::default(), idle, trouble: None };
    let mut between = reading(90.0);
    compare(&interference, &reading(80.0), &mut between, &reading(120.0));
    assert_eq!((between.metrics[PER_S.1], between.metrics[PER_CPU_S.1]), (100.0, 200.0));
    assert_eq!((between.metrics[PER_S.2], between.metrics[PER_CPU_S.2]), (0.9, 0.9));
}

#[test]
fn tails_are_compared_at_a_fixed_rate_and_cost_is_not() {
    let reading = |time_us: u32| {
        let mut times = LatencyHistogram::new();
        times.record_us(time_us);
        Reading {
            metrics: [(PER_S.0, 500.0), (PER_CPU_S.0, 1000.0)].into(),
            latencies: times.summary().map(|summary| ("delivery", summary)).into_iter().collect(),
            ..Reading::default()
        }
    };
    let interference = interference(steady(), Trouble::Connections(ConnectionChurn { clients: 1 }));
    let mut between = reading(600);
    compare(&interference, &reading(100), &mut between, &reading(300));
    for (alone, ratio, _) in LATENCIES {
        assert!((between.metrics[alone] - 200.0).abs() < 1.0, "{:?}", between.metrics);
        assert!((between.metrics[ratio] - 3.0).abs() < 0.01, "{:?}", between.metrics);
    }
    // The rate is given, and the processor time includes the trouble.
    for key in [PER_S.2, PER_CPU_S.0, PER_CPU_S.2] {
        assert!(!between.metrics.contains_key(key), "{key}: {:?}", between.metrics);
    }
}

#[test]
fn what_says_nothing_is_refused() {
    let nothing =
        Interference { flow: Flow::default(), idle: IdleThings::default(), trouble: None };
    let churn = |changes_per_s| Trouble::Bindings(BindingChurn { changes_per_s });
    let nobody = Trouble::Connections(ConnectionChurn { clients: 0 });
    let rate_only = Flow { rate_per_s: 1.0, ..Flow::default() };
    let wrong = [
        (nothing, "nothing stands"),
        (interference(Flow::default(), churn(1.0)), "rate_per_s"),
        (interference(steady(), nobody), "clients"),
        (interference(rate_only, churn(1.0)), "topic"),
        (interference(Flow { keys_per_queue: 3, ..steady() }, churn(1.0)), "keys"),
        (interference(steady(), churn(0.0)), "changes_per_s"),
        (interference(steady(), Trouble::Flow(Flow { queues: 0, ..Flow::default() })), "queues"),
    ];
    for (interference, part) in wrong {
        let refusal = check(&interference).unwrap_err().to_string();
        assert!(refusal.contains(part), "{interference:?}: {refusal}");
    }
}

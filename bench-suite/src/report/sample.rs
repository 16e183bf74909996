//! Results for tests: base, subject and floor in three interleaved runs of one scenario.

use std::collections::BTreeMap;

use crate::results::{
    Environment, Latency, Messages, RatePoint, Results, Run, SCHEMA_VERSION, ScenarioResult,
    Subject,
};

/// Base 100 messages/s, `leveret` 1000 and the floor 2000, each times the speed of the machine,
/// which is 1, 0.5 and 2 in the three rounds.
pub(crate) fn results() -> Results {
    let mut runs = Vec::new();
    for (number, pace) in [(1, 1.0), (2, 0.5), (3, 2.0)] {
        for (subject, rate) in [(0, 100.0), (1, 1_000.0), (2, 2_000.0)] {
            let rate = rate * pace;
            let metrics = [("messages_per_s", rate), ("messages_per_broker_cpu_s", rate)];
            let mut run = run(subject, number, &metrics);
            run.latencies.insert("delivery".to_owned(), latency(1e6 / rate));
            run.rates = (1..=10).map(|second| point(f64::from(second), rate)).collect();
            run.messages =
                Some(Messages { published: 1_000, expected: 1_000, ..Messages::default() });
            runs.push(run);
        }
    }
    Results {
        schema_version: SCHEMA_VERSION,
        bench_version: "0.1.0".to_owned(),
        environment: environment(),
        subjects: vec![subject("old", false), subject("leveret", false), subject("floor", true)],
        scenarios: vec![ScenarioResult {
            name: "small".to_owned(),
            title: "Small messages".to_owned(),
            question: "How many?".to_owned(),
            definition: "title = \"Small messages\"".to_owned(),
            transport: "tokio-uring".to_owned(),
            runs,
        }],
    }
}

/// A valid run with these metrics.
pub(crate) fn run(subject: usize, number: u32, metrics: &[(&str, f64)]) -> Run {
    Run {
        subject,
        number,
        fault: None,
        metrics: metrics.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect(),
        messages: None,
        latencies: BTreeMap::new(),
        rates: Vec::new(),
    }
}

fn latency(us: f64) -> Latency {
    Latency {
        count: 1_000,
        mean_us: us,
        p50_us: us,
        p90_us: us * 2.0,
        p99_us: us * 3.0,
        p99_9_us: us * 5.0,
        p99_99_us: us * 8.0,
        max_us: us * 9.0,
        curve: vec![(50.0, us), (90.0, us * 2.0), (99.0, us * 3.0), (99.9, us * 5.0)],
    }
}

fn point(at_s: f64, rate: f64) -> RatePoint {
    RatePoint { at_s, published_per_s: rate, confirmed_per_s: 0.0, consumed_per_s: rate }
}

fn subject(name: &str, is_floor: bool) -> Subject {
    Subject {
        name: name.to_owned(),
        is_floor,
        product: format!("{name} 1.0"),
        address: "127.0.0.1:5672".to_owned(),
        pid: Some(7),
        cores: Some("0".to_owned()),
        command: Some(format!("{name} --cores 0")),
        rss_bytes: Some(1_000_000),
    }
}

fn environment() -> Environment {
    Environment {
        started_unix_s: 0,
        cpu_model: "Some CPU".to_owned(),
        cores_online: 2,
        kernel: "6.1".to_owned(),
        memory_total_bytes: 8_000_000_000,
        governor: None,
        commit: Some("abc+".to_owned()),
        load_average: [0.1, 0.2, 0.3],
        load_cores: vec![1],
    }
}

//! Results by hand, in the words of the schema, so that a change of the schema is noticed.

use serde_json::{Value, json};

/// Why one run failed; it has letters that HTML would take for its own.
pub(crate) const FAULT: &str = "2 messages lost & 1 <duplicated>";

/// A name that HTML would take for its own.
pub(crate) const NAME: &str = "leveret <0.1>";

const RUNS: u32 = 5;

/// Three subjects, the last one the floor, and two scenarios in five interleaved runs.
pub(crate) fn results() -> Value {
    json!({
        "schema_version": 1,
        "bench_version": "0.1.0",
        "environment": {
            "started_unix_s": 1_795_000_000_u64,
            "cpu_model": "AMD EPYC 7B13",
            "cores_online": 4,
            "kernel": "6.1.0",
            "memory_total_bytes": 16_000_000_000_u64,
            "governor": "performance",
            "commit": "0123abc+",
            "load_average": [0.1, 0.2, 0.3],
            "load_cores": [1, 2]
        },
        "subjects": [
            subject("rabbitmq", false, "RabbitMQ 3.10.8"),
            subject(NAME, false, "Leveret 0.1.0"),
            subject("floor", true, "leveret-bench limit")
        ],
        "scenarios": [
            scenario("small", "16 B, transient, automatic acks",
                "How many small messages can one core move when nobody asks for receipts?",
                [31_000.0, 1_240_000.0, 3_300_000.0], [14_000.0, 310.0, 95.0], true),
            scenario("durable", "1 kB, persistent, publisher confirms, manual acks",
                "What is left of the speed when every message must survive a crash?",
                [9_000.0, 90_000.0, 240_000.0], [22_000.0, 4_100.0, 600.0], false)
        ]
    })
}

fn subject(name: &str, is_floor: bool, product: &str) -> Value {
    json!({
        "name": name,
        "is_floor": is_floor,
        "product": product,
        "address": "127.0.0.1:5672",
        "pid": 4_711,
        "cores": "0",
        "command": format!("{name} --some --setting 1"),
        "rss_bytes": 12_345_678
    })
}

fn scenario(
    name: &str,
    title: &str,
    question: &str,
    rates: [f64; 3],
    p50_us: [f64; 3],
    has_failed_run: bool,
) -> Value {
    let mut runs = Vec::new();
    for number in 1..=RUNS {
        // The machine is restless, for all subjects alike.
        let pace = [1.0, 0.93, 1.04, 0.88, 1.02][number as usize - 1];
        for subject in 0..3 {
            let fails = has_failed_run && subject == 1 && number == 4;
            runs.push(run(subject, number, rates[subject] * pace, p50_us[subject] / pace, fails));
        }
    }
    json!({
        "name": name,
        "title": title,
        "question": question,
        "definition": format!("title = \"{title}\"\nquestion = \"{question}\"\n"),
        "transport": "tokio-uring",
        "runs": runs
    })
}

fn run(subject: usize, number: u32, rate: f64, p50_us: f64, fails: bool) -> Value {
    let count = (rate * 10.0) as u64;
    let rates: Vec<Value> = (1..=100)
        .map(|step| {
            let at_s = f64::from(step) / 10.0;
            let wave = 1.0 + 0.06 * (at_s * 3.0 + f64::from(number)).sin();
            let ramp = (at_s / 1.5).min(1.0);
            json!({
                "at_s": at_s,
                "published_per_s": rate * wave,
                "confirmed_per_s": 0.0,
                "consumed_per_s": rate * wave * ramp
            })
        })
        .collect();
    let system_calls = [0.9, 0.02, 0.01][subject];
    let rss_peak_bytes = [210e6, 31e6, 9e6][subject];
    let broker_busy = [0.99, 0.95, 0.5][subject];
    let client_busy = [0.2, 0.7, 0.98][subject];
    json!({
        "subject": subject,
        "number": number,
        "fault": if fails { json!(FAULT) } else { Value::Null },
        "metrics": {
            "messages_per_s": rate,
            "messages_per_broker_cpu_s": rate * 1.1,
            "system_calls_per_message": system_calls,
            "rss_rest_bytes": 110e6,
            "rss_peak_bytes": rss_peak_bytes,
            "published_per_s": rate,
            "broker_busy": broker_busy,
            "client_busy": client_busy
        },
        "messages": {
            "published": count, "expected": count, "lost": if fails { 2 } else { 0 },
            "duplicated": 0, "reordered": 0, "corrupted": 0, "foreign": 0
        },
        "latencies": {
            "delivery": latency(p50_us, count),
            "confirm": latency(p50_us * 0.8, count),
            "send_lag": latency(20.0, count)
        },
        "rates": rates
    })
}

fn latency(p50_us: f64, count: u64) -> Value {
    // Each halving of the rest takes a bit longer than the last one.
    let at = |halvings: i32| p50_us * 1.22_f64.powi(halvings - 1);
    let curve: Vec<Value> =
        (1..=17).map(|n| json!([100.0 * (1.0 - 0.5_f64.powi(n)), at(n)])).collect();
    json!({
        "count": count, "mean_us": p50_us * 1.2, "p50_us": p50_us, "p90_us": at(3),
        "p99_us": at(7), "p99_9_us": at(10), "p99_99_us": at(13), "max_us": at(18),
        "curve": curve
    })
}

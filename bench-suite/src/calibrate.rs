//! The limit of the load client itself: the same flows against the floor with each transport,
//! interleaved. A scenario in which a broker comes close to that limit needs the faster transport.

use std::fmt;
use std::time::Duration;

use crate::cli::Calibrate;
use crate::fault::Fault;
use crate::floor::process::FloorProcess;
use crate::machine::environment;
use crate::measurement::SILENCE_MAX;
use crate::report::text::quantity;
use crate::run::{Setting, flow};
use crate::scenario::{Flow, Transport};
use crate::statistics::{Summary, summarize};

/// The bodies of the throughput scenarios, without the largest, which only measures copying.
const BODIES_BYTES: [usize; 3] = [16, 1 << 10, 64 << 10];

/// The two transports with their names in reports.
const TRANSPORTS: [(Transport, &str); 2] =
    [(Transport::TokioUring, "tokio-uring"), (Transport::IoUring, "io-uring")];

/// Shorter than in a measurement: the floor has no memory to warm up.
const WARM_UP: Duration = Duration::from_millis(200);

/// The results of all runs with one transport and one size.
#[derive(Debug, Default)]
struct Row {
    body_bytes: usize,
    transport: &'static str,
    messages_per_s: Vec<f64>,
    ceiling_per_s: Vec<f64>,
    client_busy: Vec<f64>,
    floor_busy: Vec<f64>,
}

/// A table of the client's limits.
#[derive(Debug)]
pub(crate) struct Ceilings {
    rows: Vec<Row>,
}

/// Measures; client and floor are both on this machine.
pub(crate) fn calibrate(calibrate: &Calibrate) -> Result<Ceilings, Fault> {
    let load_cores = Vec::from_iter(calibrate.load_core);
    environment::check_cores(&load_cores)?;
    let floor = FloorProcess::start(calibrate.floor_core)?;
    let mut rows = Vec::new();
    for body_bytes in BODIES_BYTES {
        rows.extend(TRANSPORTS.map(|(_, transport)| Row {
            body_bytes,
            transport,
            ..Row::default()
        }));
    }
    let mut first_stream = 0;
    for _ in 0..calibrate.runs {
        for (index, row) in rows.iter_mut().enumerate() {
            let setting = Setting {
                broker: &floor.broker,
                load_cores: &load_cores,
                window: Duration::from_secs(calibrate.seconds),
                warm_up: WARM_UP,
                silence_max: SILENCE_MAX,
                is_watched: false,
                transport: TRANSPORTS[index % TRANSPORTS.len()].0,
                first_stream,
            };
            let flow = Flow { body_bytes: row.body_bytes, ..Flow::default() };
            let reading = flow::run(&setting, &flow, &|_, _| ())?;
            if let Some(unclean) = reading.messages.filter(|messages| !messages.is_clean()) {
                return Err(Fault::Messages(unclean.to_string()));
            }
            first_stream += reading.streams;
            row.note(&reading.metrics);
        }
    }
    Ok(Ceilings { rows })
}

impl Row {
    fn note(&mut self, metrics: &std::collections::BTreeMap<&'static str, f64>) {
        let values = [
            ("messages_per_s", &mut self.messages_per_s),
            ("client_ceiling_per_s", &mut self.ceiling_per_s),
            ("client_busy", &mut self.client_busy),
            ("broker_busy", &mut self.floor_busy),
        ];
        for (key, values) in values {
            values.extend(metrics.get(key));
        }
    }
}

impl fmt::Display for Ceilings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            out,
            "The load client against the floor, one publisher and one consumer on one thread.\n\
             Ceiling: messages per CPU second of the load thread, what it could move if nothing \
             else were a limit.\nMedian (lowest – highest) of interleaved runs.\n"
        )?;
        writeln!(
            out,
            "| body | driven by | ceiling, messages/s | moved, messages/s | client busy | \
             floor busy |\n|---:|---|---:|---:|---:|---:|"
        )?;
        for row in &self.rows {
            writeln!(
                out,
                "| {} B | {} | {} | {} | {} | {} |",
                row.body_bytes,
                row.transport,
                cell(&row.ceiling_per_s),
                cell(&row.messages_per_s),
                cell(&row.client_busy),
                cell(&row.floor_busy),
            )?;
        }
        Ok(())
    }
}

fn cell(values: &[f64]) -> String {
    match summarize(values) {
        Some(Summary { median, lowest, highest }) => {
            format!("{} ({} – {})", quantity(median), quantity(lowest), quantity(highest))
        }
        None => "–".to_owned(),
    }
}

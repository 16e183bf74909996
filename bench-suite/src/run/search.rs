//! Searches the highest rate at which a flow keeps its latency: doubles the rate until it does not,
//! then narrows it down.

use std::time::Duration;

use crate::fault::Fault;
use crate::run::{LiveView, Reading, Setting, flow};
use crate::scenario::{Flow, Search};

/// A second is enough for a p99 at the lowest rates of a search, which has about fifteen probes.
const PROBE_MAX: Duration = Duration::from_secs(1);

/// Steps of narrowing down. The last one is 2^(1/16), 4 %, which is less than the difference
/// between two runs.
const NARROWING_STEPS: u32 = 4;

/// A broker that delivers less than this share of the rate falls behind, whatever its latency in
/// the window was.
const KEPT_UP: f64 = 0.97;

/// One run. The latencies are those at the highest rate that held.
pub(crate) fn run(
    setting: &Setting<'_>,
    search: &Search,
    live: LiveView<'_>,
) -> Result<Reading, Fault> {
    let mut probes = Probes { setting: *setting, search, live, streams: 0, best: None };
    let (mut held, mut broke) = (None, None);
    let mut rate = search.from_per_s;
    while rate <= search.to_per_s {
        if !probes.holds(rate)? {
            broke = Some(rate);
            break;
        }
        held = Some(rate);
        rate *= 2.0;
    }
    if let (Some(mut held), Some(mut broke)) = (held, broke) {
        for _ in 0..NARROWING_STEPS {
            let middle: f64 = (held * broke).sqrt();
            if probes.holds(middle)? {
                held = middle;
            } else {
                broke = middle;
            }
        }
    }
    let Some((rate, mut reading)) = probes.best else {
        return Err(Fault::Messages(format!(
            "99 % of the messages took more than {} µs even at {} messages/s",
            search.p99_max_us, search.from_per_s
        )));
    };
    reading.metrics.insert("rate_max_per_s", rate);
    reading.streams = probes.streams;
    Ok(reading)
}

struct Probes<'a> {
    setting: Setting<'a>,
    search: &'a Search,
    live: LiveView<'a>,
    streams: u32,
    /// The highest rate that held, and the reading at that rate.
    best: Option<(f64, Reading)>,
}

impl Probes<'_> {
    fn holds(&mut self, rate_per_s: f64) -> Result<bool, Fault> {
        let setting = Setting {
            window: self.setting.window.min(PROBE_MAX),
            first_stream: self.setting.first_stream + self.streams,
            ..self.setting
        };
        let flow = Flow { rate_per_s, ..self.search.flow.clone() };
        let reading = flow::run(&setting, &flow, self.live)?;
        self.streams += reading.streams;
        if let Some(unclean) = reading.messages.filter(|messages| !messages.is_clean()) {
            return Err(Fault::Messages(unclean.to_string()));
        }
        let p99_us = reading.latencies.get("delivery").map_or(f64::INFINITY, |l| l.p99_us);
        let kept_up =
            reading.metrics.get("messages_per_s").copied().unwrap_or(0.0) >= KEPT_UP * rate_per_s;
        let holds = kept_up && p99_us <= self.search.p99_max_us;
        if holds && self.best.as_ref().is_none_or(|(best, _)| rate_per_s > *best) {
            self.best = Some((rate_per_s, reading));
        }
        Ok(holds)
    }
}

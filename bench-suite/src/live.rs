//! Shows the progress of a measurement: bars on a terminal, otherwise one line per finished run.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::report::text;
use crate::results::RatePoint;

/// How often the elapsed time is updated between two samples.
const TICK: Duration = Duration::from_millis(250);

const OVERALL_WITH_TIME_LEFT: &str =
    "{bar:30} {pos} of {len} runs · {elapsed_precise} · about {eta_precise} left";

/// The progress view on stderr; it can be used from every thread.
pub(crate) struct Live {
    total_runs: u64,
    state: Mutex<State>,
    view: View,
}

#[derive(Debug, Default)]
struct State {
    finished_runs: u64,
    /// Rates of the current run, once they are known.
    rates: Option<RatePoint>,
    /// p50 and p99 in microseconds.
    delivery_us: Option<[u64; 2]>,
}

enum View {
    Terminal { all: MultiProgress, overall: ProgressBar, current: ProgressBar, rates: ProgressBar },
    Lines(Mutex<Box<dyn Write + Send>>),
}

impl Live {
    /// Starts the view for this many runs over all scenarios and subjects.
    pub(crate) fn new(total_runs: u64) -> Self {
        if io::stderr().is_terminal() {
            Self::on(total_runs, ProgressDrawTarget::stderr())
        } else {
            Self::lines(total_runs, Box::new(io::stderr()))
        }
    }

    /// A run begins; `run` counts from 1 to `runs` for this scenario and subject.
    pub(crate) fn begin(&self, scenario: &str, subject: &str, run: u32, runs: u32) {
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.rates, state.delivery_us) = (None, None);
        }
        if let View::Terminal { current, rates, .. } = &self.view {
            current.set_message(format!("{scenario} · {subject} · run {run} of {runs}"));
            rates.set_message("connecting");
        }
    }

    /// Whether stderr is a terminal, so that latencies are worth computing.
    pub(crate) const fn is_on_terminal(&self) -> bool {
        matches!(self.view, View::Terminal { .. })
    }

    /// Shows the rates since the last sample, and p50 and p99 of the deliveries so far in
    /// microseconds.
    pub(crate) fn sample(&self, point: &RatePoint, delivery_us: Option<[u64; 2]>) {
        self.show(|state| (state.rates, state.delivery_us) = (Some(*point), delivery_us));
    }

    /// A run has ended, valid or failed: prints a line that stays.
    pub(crate) fn finish_run(&self, one_line: &str) {
        let finished = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.finished_runs += 1;
            state.finished_runs
        };
        match &self.view {
            View::Terminal { all, overall, .. } => {
                // The remaining time is unknown until the first run has ended.
                overall.set_style(style(OVERALL_WITH_TIME_LEFT));
                overall.set_position(finished);
                // The line goes to the terminal; without one it is not printed.
                let _ = all.println(one_line);
            }
            View::Lines(out) => {
                let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
                // A closed stderr does not end a measurement.
                let _ = writeln!(out, "[{finished}/{}] {one_line}", self.total_runs);
            }
        }
    }

    /// Removes the bars; the lines stay.
    pub(crate) fn end(&self) {
        if let View::Terminal { all, overall, current, rates } = &self.view {
            for bar in [overall, current, rates] {
                bar.finish_and_clear();
            }
            let _ = all.clear();
        }
    }

    fn on(total_runs: u64, target: ProgressDrawTarget) -> Self {
        let all = MultiProgress::with_draw_target(target);
        let overall = all.add(ProgressBar::new(total_runs));
        overall.set_style(style("{bar:30} {pos} of {len} runs · {elapsed_precise}"));
        let current = all.add(ProgressBar::new_spinner());
        current.set_style(style("{spinner} {msg}"));
        let rates = all.add(ProgressBar::new_spinner());
        rates.set_style(style("  {msg}"));
        overall.enable_steady_tick(TICK);
        current.enable_steady_tick(TICK);
        let view = View::Terminal { all, overall, current, rates };
        Self { total_runs, state: Mutex::default(), view }
    }

    fn lines(total_runs: u64, out: Box<dyn Write + Send>) -> Self {
        Self { total_runs, state: Mutex::default(), view: View::Lines(Mutex::new(out)) }
    }

    fn show(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        if let View::Terminal { rates, .. } = &self.view {
            rates.set_message(words(&state));
        }
    }
}

fn words(state: &State) -> String {
    let mut words = state.rates.map_or_else(String::new, |point| {
        format!(
            "{:.0} s: published {}/s, confirmed {}/s, consumed {}/s",
            point.at_s,
            text::quantity(point.published_per_s),
            text::quantity(point.confirmed_per_s),
            text::quantity(point.consumed_per_s)
        )
    });
    if let Some(quantiles_us) = state.delivery_us {
        let [p50, p99] = quantiles_us.map(|us| text::time_us(us as f64));
        words = format!("{words} · delivery p50 {p50}, p99 {p99}");
    }
    words
}

/// Templates are constants. A broken one would show the default style.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(octets)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const POINT: RatePoint = RatePoint {
        at_s: 2.0,
        published_per_s: 1_000.0,
        confirmed_per_s: 900.0,
        consumed_per_s: 800.0,
    };

    #[test]
    fn without_a_terminal_there_is_one_line_per_run() {
        let out = Shared::default();
        let live = Live::lines(2, Box::new(out.clone()));
        live.begin("small", "leveret", 1, 2);
        live.sample(&POINT, Some([100, 900]));
        live.finish_run("small, leveret: 1,000 messages/s");
        live.finish_run("small, old: failed");
        live.end();
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text, "[1/2] small, leveret: 1,000 messages/s\n[2/2] small, old: failed\n");
    }

    #[test]
    fn a_terminal_shows_the_run_and_its_rates() {
        fn is_sync<T: Sync>(_: &T) {}
        let live = Live::on(2, ProgressDrawTarget::hidden());
        is_sync(&live);
        live.begin("small", "leveret", 1, 2);
        live.sample(&POINT, Some([100, 900]));
        let View::Terminal { overall, current, rates, .. } = &live.view else { unreachable!() };
        assert_eq!(current.message(), "small · leveret · run 1 of 2");
        let expected = "2 s: published 1,000/s, confirmed 900/s, consumed 800/s · \
                        delivery p50 100 µs, p99 900 µs";
        assert_eq!(rates.message(), expected);
        live.finish_run("done");
        assert_eq!(overall.position(), 1);
        // Nothing of the previous run is shown as part of the next one.
        live.begin("small", "old", 1, 2);
        assert_eq!(rates.message(), "connecting");
        live.end();
        assert!(overall.is_finished());
    }
}

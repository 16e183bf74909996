//! Watches one run: waits for the warm-up, opens the measured window, samples counters and memory,
//! and computes the figures of the window.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::fault::Fault;
use crate::load::tally::Tally;
use crate::machine::procfs;
use crate::results::RatePoint;

/// The time between two points of the plot. A longer interval would hide stalls of 100 ms.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// The approximate limit on points per run: more points than a plot has pixels only make the report
/// larger. Runs of more than 5 minutes get a longer interval.
const POINTS_MAX: u32 = 3_000;

/// The longest single sleep, so that an aborted run ends soon.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// How often the broker's processes are looked up. This reads all of /proc and takes milliseconds
/// from the load.
const LOOK_UP_INTERVAL: Duration = Duration::from_secs(2);

/// The least time that a broker needs per message: about 30 steps of a processor, less than parsing
/// its frame takes. A process that uses less is not the one that moves the messages.
const CPU_S_PER_MESSAGE_MIN: f64 = 10e-9;

/// What is watched, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch<'a> {
    pub(crate) tally: &'a Tally,
    /// The root of the broker's process tree, if its processes can be seen.
    pub(crate) broker: Option<u32>,
    /// Ids of the load threads, from [`procfs::current_tid`]; read at both ends of the window.
    pub(crate) load_threads: &'a Mutex<Vec<u32>>,
    pub(crate) warm_up: Duration,
    pub(crate) window: Duration,
    /// Whether publishes are confirmed; without confirms the figure is left out.
    pub(crate) has_confirms: bool,
    /// Ends the run early.
    pub(crate) abort: &'a AtomicBool,
}

/// The result of the measured window. Counters cover only the window.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Window {
    /// Shorter than requested if the run was aborted.
    pub(crate) elapsed_s: f64,
    pub(crate) published: u64,
    /// `None` without confirms.
    pub(crate) confirmed: Option<u64>,
    pub(crate) consumed: u64,
    pub(crate) broker_cpu_s: Option<f64>,
    /// CPU seconds per second of the busiest load thread; `None` if no thread lived the whole time.
    pub(crate) client_busy: Option<f64>,
    /// Resident memory of the broker when watching began.
    pub(crate) rss_rest_bytes: Option<u64>,
    /// The highest sample, including the warm-up.
    pub(crate) rss_peak_bytes: Option<u64>,
    /// Including the warm-up.
    pub(crate) rates: Vec<RatePoint>,
}

impl Watch<'_> {
    /// Watches a run that has just started, from the warm-up to the end of the window. `live` gets
    /// each new point. Does not stop the run.
    ///
    /// A window in which nothing moved, or in which the broker's processes did nothing, is a fault;
    /// so is a run that is aborted before its window.
    pub(crate) fn run(&self, live: &dyn Fn(&RatePoint)) -> Result<Window, Fault> {
        let mut samples = Samples::begin(self, live)?;
        samples.until(samples.began + self.warm_up)?;
        if self.abort.load(Relaxed) {
            return Err(Fault::Messages("the run was aborted while it warmed up".to_owned()));
        }
        self.tally.measure();
        let start = self.snapshot();
        // The window must be closed after a failed run too.
        let end = start.and_then(|start| {
            samples.until(start.at + self.window)?;
            Ok((start, self.snapshot()?))
        });
        self.tally.end_measuring();
        let (start, end) = end?;
        let window = samples.finish(&start, &end);
        window.check(self.broker)?;
        Ok(window)
    }

    fn snapshot(&self) -> Result<Snapshot, Fault> {
        let counts = Counts::read(self.tally);
        let at = Instant::now();
        let load_threads = self
            .load_threads
            .lock()
            .map_err(|_| Fault::Process("a load thread failed while it started".to_owned()))?;
        let times = load_threads.iter().map(|tid| Some((*tid, procfs::thread_cpu_s(*tid).ok()?)));
        let load_cpu_s = times.flatten().collect();
        let broker_cpu_s = self.broker.map(procfs::cpu_s).transpose()?;
        Ok(Snapshot { at, counts, load_cpu_s, broker_cpu_s })
    }
}

impl Window {
    /// By the keys of [`crate::results::METRICS`]; figures that could not be measured are left out.
    pub(crate) fn metrics(&self) -> BTreeMap<&'static str, f64> {
        let per_s = |count: u64| count as f64 / self.elapsed_s;
        let metrics = [
            ("messages_per_s", Some(per_s(self.consumed))),
            (
                "messages_per_broker_cpu_s",
                self.broker_cpu_s.map(|cpu_s| self.consumed as f64 / cpu_s),
            ),
            ("published_per_s", Some(per_s(self.published))),
            ("confirmed_per_s", self.confirmed.map(per_s)),
            ("broker_busy", self.broker_cpu_s.map(|cpu_s| cpu_s / self.elapsed_s)),
            ("client_busy", self.client_busy),
            ("client_ceiling_per_s", self.client_busy.map(|busy| per_s(self.consumed) / busy)),
            ("rss_rest_bytes", self.rss_rest_bytes.map(|bytes| bytes as f64)),
            ("rss_peak_bytes", self.rss_peak_bytes.map(|bytes| bytes as f64)),
        ];
        // A quotient by zero is not a figure, and not valid JSON.
        let measured = metrics.into_iter().filter_map(|(key, value)| Some((key, value?)));
        measured.filter(|(_, value)| value.is_finite()).collect()
    }

    fn check(&self, broker: Option<u32>) -> Result<(), Fault> {
        if self.consumed == 0 {
            let published = self.published;
            return Err(Fault::Messages(format!(
                "no message arrived in the measured window of {:.1} s ({published} were published)",
                self.elapsed_s
            )));
        }
        let cpu_s_min = self.consumed as f64 * CPU_S_PER_MESSAGE_MIN;
        match (self.broker_cpu_s, broker) {
            (Some(cpu_s), Some(pid)) if cpu_s < cpu_s_min => Err(Fault::Process(format!(
                "{} messages moved, but process {pid} and its children worked for {cpu_s} s: that \
                 is not the broker; give the pid of the process that listens",
                self.consumed
            ))),
            _ => Ok(()),
        }
    }
}

/// The counters of a run at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    published: u64,
    confirmed: u64,
    consumed: u64,
}

impl Counts {
    fn read(tally: &Tally) -> Self {
        Self {
            published: tally.published(),
            confirmed: tally.confirmed(),
            consumed: tally.consumed(),
        }
    }
}

/// One end of the window.
#[derive(Debug)]
struct Snapshot {
    at: Instant,
    counts: Counts,
    /// By thread id.
    load_cpu_s: BTreeMap<u32, f64>,
    broker_cpu_s: Option<f64>,
}

impl Snapshot {
    /// The highest share of the time since `start` that a load thread was on a processor.
    fn busiest_since(&self, start: &Self, elapsed_s: f64) -> Option<f64> {
        let worked_s = |tid: &u32, cpu_s: &f64| Some(cpu_s - start.load_cpu_s.get(tid)?);
        let worked = self.load_cpu_s.iter().filter_map(|(tid, cpu_s)| worked_s(tid, cpu_s));
        worked.max_by(f64::total_cmp).map(|worked_s| worked_s / elapsed_s)
    }
}

/// The points of a run so far.
struct Samples<'a> {
    watch: &'a Watch<'a>,
    live: &'a dyn Fn(&RatePoint),
    interval: Duration,
    began: Instant,
    last_at: Instant,
    last: Counts,
    rates: Vec<RatePoint>,
    /// The broker's processes, and when they were looked up; empty if they cannot be seen.
    members: Vec<u32>,
    looked_up: Instant,
    rss_rest_bytes: Option<u64>,
    rss_peak_bytes: Option<u64>,
}

impl<'a> Samples<'a> {
    fn begin(watch: &'a Watch<'a>, live: &'a dyn Fn(&RatePoint)) -> Result<Self, Fault> {
        let members = watch.broker.map(procfs::members).transpose()?.unwrap_or_default();
        let rss_bytes = watch.broker.map(|_| procfs::rss_bytes_of(&members)).transpose()?;
        let began = Instant::now();
        Ok(Self {
            watch,
            live,
            interval: interval(watch.warm_up + watch.window),
            began,
            last_at: began,
            last: Counts::read(watch.tally),
            rates: Vec::new(),
            members,
            looked_up: began,
            rss_rest_bytes: rss_bytes,
            rss_peak_bytes: rss_bytes,
        })
    }

    /// Samples until `end`, or until the run is aborted.
    fn until(&mut self, end: Instant) -> Result<(), Fault> {
        while Instant::now() < end {
            // The last interval takes the rest, so that none is so short that its rate is noise.
            let next = self.last_at + self.interval;
            let next = if next + self.interval / 2 > end { end } else { next };
            while let left = next.saturating_duration_since(Instant::now())
                && !left.is_zero()
            {
                if self.watch.abort.load(Relaxed) {
                    return Ok(());
                }
                thread::sleep(left.min(SLEEP_MAX));
            }
            self.sample()?;
        }
        Ok(())
    }

    fn sample(&mut self) -> Result<(), Fault> {
        let (now, counts) = (Instant::now(), Counts::read(self.watch.tally));
        let elapsed_s = now.duration_since(self.last_at).as_secs_f64();
        // No time has passed only if the clock stands still.
        if elapsed_s > 0.0 {
            let per_s = |now: u64, last: u64| (now - last) as f64 / elapsed_s;
            let point = RatePoint {
                at_s: now.duration_since(self.began).as_secs_f64(),
                published_per_s: per_s(counts.published, self.last.published),
                confirmed_per_s: per_s(counts.confirmed, self.last.confirmed),
                consumed_per_s: per_s(counts.consumed, self.last.consumed),
            };
            (self.last_at, self.last) = (now, counts);
            (self.live)(&point);
            self.rates.push(point);
        }
        self.sample_rss(now)
    }

    fn sample_rss(&mut self, now: Instant) -> Result<(), Fault> {
        let Some(broker) = self.watch.broker else { return Ok(()) };
        if now.duration_since(self.looked_up) >= LOOK_UP_INTERVAL {
            (self.members, self.looked_up) = (procfs::members(broker)?, now);
        }
        let bytes = procfs::rss_bytes_of(&self.members)?;
        self.rss_peak_bytes = self.rss_peak_bytes.max(Some(bytes));
        Ok(())
    }

    fn finish(self, start: &Snapshot, end: &Snapshot) -> Window {
        let elapsed_s = end.at.duration_since(start.at).as_secs_f64();
        let cpu_s = end.broker_cpu_s.zip(start.broker_cpu_s);
        let confirmed = end.counts.confirmed - start.counts.confirmed;
        Window {
            elapsed_s,
            published: end.counts.published - start.counts.published,
            confirmed: self.watch.has_confirms.then_some(confirmed),
            consumed: end.counts.consumed - start.counts.consumed,
            broker_cpu_s: cpu_s.map(|(end_s, start_s)| end_s - start_s),
            client_busy: end.busiest_since(start, elapsed_s),
            rss_rest_bytes: self.rss_rest_bytes,
            rss_peak_bytes: self.rss_peak_bytes,
            rates: self.rates,
        }
    }
}

/// The time between two points in a run of this length.
fn interval(total: Duration) -> Duration {
    INTERVAL_MIN.max(total / POINTS_MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::results::METRICS;

    /// Watches 300 ms of warm-up and 400 ms of window while a thread moves messages, or does not.
    fn watch(
        broker: Option<u32>,
        is_moving: bool,
        live: &dyn Fn(&RatePoint),
    ) -> Result<Window, Fault> {
        let tally = Tally::new(Instant::now(), 0, 1, 1);
        let (threads, abort) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        thread::scope(|scope| {
            let load = scope.spawn(|| {
                threads.lock().unwrap().push(procfs::current_tid().unwrap());
                while !tally.is_stopped() {
                    if is_moving {
                        tally.note_published(3);
                        tally.note_confirmed(2);
                        tally.note_consumed(1);
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            });
            let watch = Watch {
                tally: &tally,
                broker,
                load_threads: &threads,
                warm_up: Duration::from_millis(300),
                window: Duration::from_millis(400),
                has_confirms: true,
                abort: &abort,
            };
            let window = watch.run(&|point| {
                // Only the window is measured, not the warm-up.
                assert!(tally.is_measuring() || point.at_s < 0.7);
                live(point);
            });
            assert!(!tally.is_measuring());
            tally.stop();
            load.join().unwrap();
            window
        })
    }

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap()
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_window_has_rates_and_figures() {
        let live_points = Cell::new(0);
        let own = std::process::id();
        let window = watch(Some(own), true, &|_| live_points.set(live_points.get() + 1)).unwrap();
        assert!(window.elapsed_s >= 0.4);
        assert_eq!(live_points.get(), window.rates.len());
        assert!(window.rates.len() >= 2 && window.rates.len() <= 7);
        assert!(window.rates.windows(2).all(|pair| pair[0].at_s < pair[1].at_s));
        // An increment may fall between reading the two counters.
        assert!(window.published >= 2 * window.consumed);
        assert!(window.confirmed.unwrap() > window.consumed);
        assert!(window.rss_peak_bytes >= window.rss_rest_bytes && window.rss_rest_bytes > Some(0));
        let metrics = window.metrics();
        assert_eq!(metrics.len(), 9);
        assert!(metrics.keys().all(|key| METRICS.iter().any(|metric| metric.key == *key)));
        assert!(metrics["published_per_s"] > metrics["confirmed_per_s"]);
        assert!(metrics["confirmed_per_s"] > metrics["messages_per_s"]);
        // The load thread sleeps nearly always, so it could do far more.
        assert!(metrics["client_ceiling_per_s"] > metrics["messages_per_s"]);
        assert!(metrics["client_busy"] <= metrics["broker_busy"]);
    }

    #[test]
    fn a_process_that_does_nothing_is_not_the_broker() {
        let sleeper = sleeper();
        let fault = watch(Some(sleeper.id()), true, &|_| ()).unwrap_err();
        end(sleeper);
        assert!(matches!(&fault, Fault::Process(_)), "{fault}");
        assert!(fault.to_string().contains("that is not the broker"), "{fault}");
    }

    #[test]
    fn a_broker_that_is_gone_is_a_fault() {
        let sleeper = sleeper();
        let pid = sleeper.id();
        let sleeper = Cell::new(Some(sleeper));
        let kill = |_: &RatePoint| sleeper.take().map_or((), end);
        let fault = watch(Some(pid), true, &kill).unwrap_err();
        assert!(fault.to_string().contains("has ended"), "{fault}");
        assert!(matches!(watch(Some(pid), true, &|_| ()).unwrap_err(), Fault::Process(_)));
    }

    #[test]
    fn a_window_without_messages_is_a_fault() {
        let fault = watch(None, false, &|_| ()).unwrap_err();
        assert!(fault.to_string().contains("no message arrived"), "{fault}");
    }

    #[test]
    fn what_was_not_measured_is_no_metric() {
        let mut window = watch(None, true, &|_| ()).unwrap();
        assert_eq!((window.broker_cpu_s, window.rss_peak_bytes), (None, None));
        (window.confirmed, window.client_busy) = (None, Some(0.0));
        let metrics = window.metrics();
        let keys: Vec<&str> = metrics.into_keys().collect();
        assert_eq!(keys, ["client_busy", "messages_per_s", "published_per_s"]);
    }

    #[test]
    fn an_aborted_run_ends_early() {
        let tally = Tally::new(Instant::now(), 0, 1, 1);
        let (threads, abort) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        let hour = Duration::from_hours(1);
        let watch = Watch {
            tally: &tally,
            broker: None,
            load_threads: &threads,
            warm_up: Duration::ZERO,
            window: hour,
            has_confirms: false,
            abort: &abort,
        };
        let window = thread::scope(|scope| {
            scope.spawn(|| {
                while !tally.is_measuring() {
                    thread::yield_now();
                }
                thread::sleep(Duration::from_millis(10));
                tally.note_consumed(1);
                abort.store(true, Relaxed);
            });
            watch.run(&|_| ()).unwrap()
        });
        assert!(window.elapsed_s < hour.as_secs_f64() && window.consumed == 1);
        let fault = Watch { warm_up: hour, ..watch }.run(&|_| ()).unwrap_err();
        assert!(fault.to_string().contains("aborted while it warmed up"), "{fault}");
    }

    #[test]
    fn long_runs_have_longer_intervals() {
        assert_eq!(interval(Duration::from_secs(10)), INTERVAL_MIN);
        assert_eq!(interval(Duration::from_mins(5)), INTERVAL_MIN);
        let hour = Duration::from_hours(1);
        assert_eq!(hour.as_nanos() / interval(hour).as_nanos(), u128::from(POINTS_MAX));
    }
}

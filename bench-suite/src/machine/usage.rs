//! Processor time and memory of a broker over a period. Absent if its processes cannot be seen.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::broker::Broker;
use crate::fault::Fault;
use crate::machine::procfs;

/// More operations than any broker does within the kernel's resolution of 10 ms.
const OPERATIONS_FREE_MAX: u64 = 10_000;

/// A measurement that has been started.
#[derive(Debug)]
pub(crate) struct Usage<'b> {
    broker: &'b Broker,
    started: Instant,
    cpu_before_s: Option<f64>,
    rss_peak_bytes: Option<u64>,
}

/// The result of a measurement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Used {
    pub(crate) elapsed_s: f64,
    pub(crate) cpu_s: Option<f64>,
    pub(crate) rss_peak_bytes: Option<u64>,
}

/// Resident memory of a broker now.
pub(crate) fn rss_bytes(broker: &Broker) -> Result<Option<u64>, Fault> {
    broker.pid.map(procfs::rss_bytes).transpose()
}

/// Processor time of a broker since it was started, in seconds.
pub(crate) fn cpu_s(broker: &Broker) -> Result<Option<f64>, Fault> {
    broker.pid.map(procfs::cpu_s).transpose()
}

impl<'b> Usage<'b> {
    /// `rest_bytes` is the memory before the run: the peak is at least this.
    pub(crate) fn start(broker: &'b Broker, rest_bytes: Option<u64>) -> Result<Self, Fault> {
        let rss_peak_bytes = rss_bytes(broker)?.max(rest_bytes);
        let cpu_before_s = cpu_s(broker)?;
        Ok(Self { broker, started: Instant::now(), cpu_before_s, rss_peak_bytes })
    }

    /// Reads the memory.
    pub(crate) fn look(&mut self) -> Result<(), Fault> {
        self.rss_peak_bytes = self.rss_peak_bytes.max(rss_bytes(self.broker)?);
        Ok(())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn end(mut self) -> Result<Used, Fault> {
        let (elapsed_s, cpu_after_s) = (self.elapsed().as_secs_f64(), cpu_s(self.broker)?);
        self.look()?;
        let cpu_s = cpu_after_s.zip(self.cpu_before_s).map(|(after, before)| after - before);
        Ok(Used { elapsed_s, cpu_s, rss_peak_bytes: self.rss_peak_bytes })
    }
}

impl Used {
    /// Figures for `operations`: `(per second, per broker CPU second)`, as far as they are known,
    /// under these keys, and how busy the broker was.
    pub(crate) fn metrics(
        &self,
        broker: &Broker,
        operations: u64,
        per_s: &'static str,
        per_cpu_s: Option<&'static str>,
    ) -> Result<BTreeMap<&'static str, f64>, Fault> {
        let mut metrics = BTreeMap::from([(per_s, operations as f64 / self.elapsed_s)]);
        if let Some(bytes) = self.rss_peak_bytes {
            metrics.insert("rss_peak_bytes", bytes as f64);
        }
        let Some(cpu_s) = self.cpu_s else { return Ok(metrics) };
        metrics.insert("broker_busy", cpu_s / self.elapsed_s);
        if cpu_s > 0.0 {
            if let Some(key) = per_cpu_s {
                metrics.insert(key, operations as f64 / cpu_s);
            }
        } else if operations > OPERATIONS_FREE_MAX {
            return Err(Fault::Process(format!(
                "process {} did {operations} operations without any processor time: is it {}?",
                broker.pid.unwrap_or(0),
                broker.name
            )));
        }
        Ok(metrics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::parse_broker;

    #[test]
    fn figures_are_per_second_and_per_processor_second() {
        let broker = parse_broker("a=127.0.0.1:1,pid=1").unwrap();
        let used = Used { elapsed_s: 2.0, cpu_s: Some(0.5), rss_peak_bytes: Some(7) };
        let metrics = used.metrics(&broker, 100, "per_s", Some("per_cpu_s")).unwrap();
        let expected =
            [("per_s", 50.0), ("per_cpu_s", 200.0), ("broker_busy", 0.25), ("rss_peak_bytes", 7.0)];
        assert_eq!(metrics, expected.into());
    }

    #[test]
    fn what_cannot_be_seen_is_absent_and_what_cannot_be_is_refused() {
        let broker = parse_broker("a=127.0.0.1:1").unwrap();
        let used = Used { elapsed_s: 2.0, cpu_s: None, rss_peak_bytes: None };
        let metrics = used.metrics(&broker, 100, "per_s", Some("per_cpu_s")).unwrap();
        assert_eq!(metrics, [("per_s", 50.0)].into());
        let wrong = Used { cpu_s: Some(0.0), ..used };
        assert!(wrong.metrics(&broker, 10, "per_s", None).is_ok());
        let refusal = wrong.metrics(&broker, 1_000_000, "per_s", None).unwrap_err().to_string();
        assert!(refusal.contains("without any processor time"), "{refusal}");
    }

    #[test]
    fn a_stretch_of_time_is_measured() {
        let own = format!("a=127.0.0.1:1,pid={}", std::process::id());
        let own = parse_broker(&own).unwrap();
        let mut usage = Usage::start(&own, Some(1)).unwrap();
        usage.look().unwrap();
        let used = usage.end().unwrap();
        assert!(used.cpu_s.unwrap() >= 0.0 && used.elapsed_s > 0.0);
        assert!(used.rss_peak_bytes.unwrap() > 0);
        let unseen = Broker { pid: None, ..own };
        let used = Usage::start(&unseen, None).unwrap().end().unwrap();
        assert_eq!((used.cpu_s, used.rss_peak_bytes), (None, None));
    }
}

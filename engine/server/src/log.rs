//! Logs to stderr, and the limit on how often one thing is said.
//!
//! Whatever comes from a client is logged with its `Debug` form, which escapes control characters.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// The least time between two lines of one [`Rate`].
const RATE_PERIOD: Duration = Duration::from_secs(1);

/// Starts logging. Does nothing where it was started before, as it may be in tests.
pub(crate) fn start(directives: &str) -> Result<(), ParseError> {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter(directives)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .finish();
    // An error only says that logging had been started.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

/// The filter of the option `log`.
pub(crate) fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(directives)
}

/// Lets one line a second through, so that a flood of clients cannot flood the log.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    last: Option<Instant>,
    withheld: u64,
}

impl Rate {
    /// Whether to log now: the number of lines withheld since the last one, or `None` for silence.
    pub(crate) fn admit(&mut self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.duration_since(last) < RATE_PERIOD) {
            self.withheld += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.withheld))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_and_a_count_of_the_rest() {
        let mut rate = Rate::default();
        let start = Instant::now();
        assert_eq!(rate.admit_at(start), Some(0));
        for _ in 0..5 {
            assert_eq!(rate.admit_at(start + Duration::from_millis(999)), None);
        }
        assert_eq!(rate.admit_at(start + Duration::from_secs(1)), Some(5));
        assert_eq!(rate.admit_at(start + Duration::from_secs(3)), Some(0));
    }

    #[test]
    fn filters_are_checked() {
        assert!(filter("info").is_ok() && filter("warn,leveret_server=debug").is_ok());
        assert!(filter("a=b=c").is_err());
    }
}

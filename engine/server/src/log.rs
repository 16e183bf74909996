//! Logging to stderr, and a limit on how often one message is logged.
//!
//! Text that comes from a client is logged in its `Debug` form, which escapes control characters.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// The least time between two lines of one [`Rate`].
const RATE_PERIOD: Duration = Duration::from_secs(1);

/// Why a filter is refused.
#[derive(Debug, Error)]
pub(crate) enum FilterError {
    /// A word where a level belongs.
    #[error("`{}` is not a level; use off, error, warn, info, debug or trace, or TARGET=LEVEL",
            .0.escape_debug())]
    Level(String),
    /// Something is wrong with a target.
    #[error(transparent)]
    Target(#[from] ParseError),
}

/// Starts logging. Does nothing if logging was started before, as happens in tests.
pub(crate) fn start(directives: &str) -> Result<(), FilterError> {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter(directives)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .finish();
    // The only error is that logging was started before.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

/// The filter of the option `log`. Levels are looked at here, because a word that is none would be
/// taken for a target, and a filter that has nothing but targets silences all others.
pub(crate) fn filter(directives: &str) -> Result<EnvFilter, FilterError> {
    let known: Result<Vec<String>, _> = directives.split(',').map(directive).collect();
    Ok(EnvFilter::builder().parse(known?.join(","))?)
}

/// `LEVEL` or `TARGET=LEVEL`, with the level in our words.
fn directive(text: &str) -> Result<String, FilterError> {
    let text = text.trim();
    let (target, word) = match text.rsplit_once('=') {
        Some((target, word)) => (Some(target), word),
        None => (None, text),
    };
    let level = level(word).ok_or_else(|| FilterError::Level(word.to_owned()))?;
    Ok(target.map_or(level.to_owned(), |target| format!("{target}={level}")))
}

/// The level of this name. `RabbitMQ` has more of them: each stands for the one of ours that shows
/// all it asks for.
fn level(word: &str) -> Option<&'static str> {
    Some(match &*word.to_ascii_lowercase() {
        "off" | "none" => "off",
        "error" | "critical" | "alert" | "emergency" => "error",
        "warn" | "warning" => "warn",
        "info" | "notice" => "info",
        "debug" => "debug",
        "trace" => "trace",
        _ => return None,
    })
}

/// Lets a limited number of lines per second through, so that a flood of clients cannot flood the
/// log.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    /// When the current second began.
    last: Option<Instant>,
    /// Lines in this second.
    lines: u32,
    withheld: u64,
}

impl Rate {
    /// Whether to log now: the number of lines withheld since the last one, or `None` to withhold
    /// this one too.
    pub(crate) fn admit(&mut self) -> Option<u64> {
        self.admit_at(Instant::now(), 1)
    }

    /// The same, with `lines_max` lines per second.
    pub(crate) fn admit_some(&mut self, lines_max: u32) -> Option<u64> {
        self.admit_at(Instant::now(), lines_max)
    }

    /// Counts lines that were withheld before they came here.
    pub(crate) fn withhold(&mut self, lines: u64) {
        self.withheld += lines;
    }

    fn admit_at(&mut self, now: Instant, lines_max: u32) -> Option<u64> {
        if self.last.is_none_or(|last| now.duration_since(last) >= RATE_PERIOD) {
            (self.last, self.lines) = (Some(now), 0);
        }
        if self.lines >= lines_max {
            self.withheld += 1;
            return None;
        }
        self.lines += 1;
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
        assert_eq!(rate.admit_at(start, 1), Some(0));
        for _ in 0..5 {
            assert_eq!(rate.admit_at(start + Duration::from_millis(999), 1), None);
        }
        assert_eq!(rate.admit_at(start + Duration::from_secs(1), 1), Some(5));
        assert_eq!(rate.admit_at(start + Duration::from_secs(3), 1), Some(0));

        let mut rate = Rate::default();
        let admitted: Vec<_> = (0..4).map(|_| rate.admit_at(start, 2)).collect();
        assert_eq!(admitted, [Some(0), Some(0), None, None]);
        rate.withhold(3);
        assert_eq!(rate.admit_at(start + Duration::from_secs(1), 2), Some(5));
    }

    #[test]
    fn filters_are_checked() {
        assert!(filter("info").is_ok() && filter("warn,leveret_server=debug").is_ok());
        assert!(filter("a=b=c").is_err());
        for (text, word) in [
            ("loud", "loud"),
            ("leveret_server", "leveret_server"),
            ("info,warm", "warm"),
            ("leveret_server=loud", "loud"),
            ("info,", ""),
        ] {
            let error = filter(text).unwrap_err().to_string();
            let expected = format!("`{word}` is not a level; use off, error, warn, info, debug");
            assert!(error.starts_with(&expected), "{text}: {error}");
        }
    }

    #[test]
    fn the_words_of_rabbitmq_are_levels_too() {
        for (given, expected) in [
            ("warning", "warn"),
            ("none", "off"),
            ("critical", "error"),
            ("notice", "info"),
            ("Warning", "warn"),
            ("warning, leveret_broker=none", "warn,leveret_broker=off"),
        ] {
            let shown = EnvFilter::builder().parse(expected).unwrap().to_string();
            assert_eq!(filter(given).unwrap().to_string(), shown, "{given}");
        }
    }
}

//! `leveret top`: rates and latencies of a running broker, by polling its HTTP address.

mod client;
mod render;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use crate::failure::Failure;
use crate::http::snapshot::Snapshot;

/// Moves the cursor to the top left corner.
const HOME: &str = "\x1b[H";
/// Clears the rest of the line and ends it.
const CLEAR_LINE: &str = "\x1b[K\n";
/// Clears the rest of the screen.
const CLEAR_REST: &str = "\x1b[J";
/// Clears the whole screen; used once at the start.
const CLEAR_ALL: &str = "\x1b[2J";

/// `leveret top`.
#[derive(Debug, PartialEq, Eq, Args)]
pub(crate) struct TopArguments {
    /// The broker's HTTP address
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:15672")]
    pub(crate) http: SocketAddr,
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value = "1",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) interval_s: u64,
    /// How many of the busiest queues to show
    #[arg(long, value_name = "N", default_value = "10",
          value_parser = clap::value_parser!(u16).range(0..=200))]
    pub(crate) queues: u16,
    /// Look twice, print plain text once and exit
    #[arg(long)]
    pub(crate) once: bool,
}

/// Shows the broker until the process is interrupted, or once.
pub(crate) fn run(arguments: &TopArguments) -> Result<(), Failure> {
    let ask = || {
        client::snapshot(arguments.http, arguments.queues)
            .map_err(|reason| Failure::Ask { address: arguments.http, reason })
    };
    let interval = Duration::from_secs(arguments.interval_s);
    let mut before = ask()?;
    if !arguments.once && print(CLEAR_ALL).is_err() {
        return Ok(());
    }
    loop {
        std::thread::sleep(interval);
        let now = ask()?;
        let text = show(&before, &now, arguments.once);
        // A closed pipe, as in `leveret top | head`, is a normal end.
        if print(&text).is_err() || arguments.once {
            return Ok(());
        }
        before = now;
    }
}

fn show(before: &Snapshot, now: &Snapshot, plain: bool) -> String {
    let end = if plain { "\n" } else { CLEAR_LINE };
    let mut body = render::lines(before, now).join(end);
    body.push_str(end);
    if plain { body } else { format!("{HOME}{body}{CLEAR_REST}") }
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::boot::check::CheckArguments;
use crate::config::{Addresses, Config, parse_address};
use crate::data::store::dump::DumpArguments;
use crate::failure::ConfigError;
use crate::http::top::TopArguments;

/// The end of the `--help` text.
const EXAMPLES: &str = "\
Examples:
  leveret                                  start with the defaults; user guest, password guest
  leveret serve --listen 127.0.0.1:5673    listen on another port
  leveret serve --print-config > my.toml   write down every option, then: leveret --config my.toml
  leveret check                            can the broker run on this machine?
  leveret check leveret-data               are the logs of this data directory sound?
  leveret top                              watch rates and latencies of a running broker

Not there yet: users other than guest, who may connect from this host only; time to live, length
limits, dead-lettering and priorities of messages. A queue that asks for one of these is declared,
does not do it, and is named in the log.

Exit codes: 0 stopped as asked, 1 failed, 2 wrong usage or configuration, 78 io_uring is not
available (`leveret check` says why), 128 + N ended by a second signal N.";

/// A message broker that speaks AMQP 0-9-1, as `RabbitMQ` does.
#[derive(Debug, Parser)]
#[command(name = "leveret", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArguments,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the broker (this is what plain `leveret` does)
    Serve(ServeArguments),
    /// Say whether the broker can run here: kernel features, cores, limits, configuration; or, with
    /// a data directory, whether its logs are sound
    Check(CheckArguments),
    /// Print the records of the logs of a data directory, one line each
    Dump(DumpArguments),
    /// Show rates and latencies of a running broker, live
    Top(TopArguments),
}

/// `leveret serve`. What is not given here comes from the file, then from the defaults.
#[derive(Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct ServeArguments {
    /// Where AMQP clients of this host connect; may be repeated [default: 127.0.0.1:5672]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    listen: Vec<Option<SocketAddr>>,
    /// Where HTTP is served, or `none`; may be repeated [default: 127.0.0.1:15672]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    http: Vec<Option<SocketAddr>>,
    /// Where Prometheus scrapes, or `none`; may be repeated [default: 127.0.0.1:15692]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_address)]
    metrics: Vec<Option<SocketAddr>>,
    /// Directory of the broker's data, made where missing [default: ./leveret-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Engine threads [default: one per core that this process may use]
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
    /// A TOML file with options; the command line overrides it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What to log: off, error, warn, info, debug or trace, also TARGET=LEVEL [default: info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Print every option with its meaning, limit and present value as TOML, and exit
    #[arg(long)]
    pub(crate) print_config: bool,
}

/// Parses the command line. After `--help`, `--version` or a mistake it ends the process.
pub(crate) fn parse() -> Command {
    let cli = Cli::parse();
    cli.command.unwrap_or(Command::Serve(cli.serve))
}

impl ServeArguments {
    /// The configuration: the file, overridden by the command line, and validated.
    pub(crate) fn configuration(&self) -> Result<Config, ConfigError> {
        let mut config = match &self.config {
            Some(path) => Config::from_file(path)?,
            None => Config::default(),
        };
        override_addresses(&mut config.listen, &self.listen);
        override_addresses(&mut config.http, &self.http);
        override_addresses(&mut config.metrics, &self.metrics);
        if let Some(data_dir) = &self.data_dir {
            config.data_dir.clone_from(data_dir);
        }
        config.shards = self.shards.or(config.shards);
        if let Some(log) = &self.log {
            config.log.clone_from(log);
        }
        config.validate()?;
        Ok(config)
    }
}

fn override_addresses(addresses: &mut Addresses, given: &[Option<SocketAddr>]) {
    if !given.is_empty() {
        *addresses = given.iter().flatten().copied().collect();
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn serve(arguments: &[&str]) -> ServeArguments {
        let all = std::iter::once(&"leveret").chain(arguments);
        let cli = Cli::try_parse_from(all).unwrap();
        match cli.command.unwrap_or(Command::Serve(cli.serve)) {
            Command::Serve(arguments) => arguments,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(arguments: &[&str]) -> String {
        let all = std::iter::once(&"leveret").chain(arguments);
        Cli::try_parse_from(all).unwrap_err().to_string()
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_with_or_without_its_options() {
        let options = ["--listen", "0.0.0.0:1", "--listen", "[::1]:2", "--shards", "4"];
        let plain = serve(&options);
        let named: Vec<_> = std::iter::once("serve").chain(options).collect();
        assert_eq!(plain, serve(&named));
        let config = plain.configuration().unwrap();
        assert_eq!((config.listen.len(), config.shards), (2, Some(4)));
        assert_eq!(serve(&[]).configuration().unwrap(), Config::default());
    }

    #[test]
    fn the_command_line_overrides_the_file() {
        let path = std::env::temp_dir().join(format!("leveret-cli-{}.toml", std::process::id()));
        std::fs::write(&path, "shards = 2\nheartbeat_s = 7\nhttp = '127.0.0.1:9'\nlog = 'debug'")
            .unwrap();
        let file = path.to_str().unwrap();
        let config = serve(&["--config", file]).configuration().unwrap();
        assert_eq!((config.shards, config.heartbeat_s, config.http.len()), (Some(2), 7, 1));
        let config = serve(&[
            "--config",
            file,
            "--shards",
            "3",
            "--http",
            "none",
            "--metrics",
            "127.0.0.1:0",
            "--data-dir",
            "elsewhere",
            "--log",
            "warn",
        ])
        .configuration()
        .unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((config.shards, config.heartbeat_s, config.http.len()), (Some(3), 7, 0));
        assert_eq!(config.metrics[0].port(), 0);
        assert_eq!(config.data_dir, PathBuf::from("elsewhere"));
        assert_eq!(config.log, "warn");
    }

    #[test]
    fn mistakes_are_explained() {
        assert!(refusal(&["--listen", "5672"]).contains("is not ADDR:PORT"));
        assert!(refusal(&["--shards", "many"]).contains("--shards"));
        assert!(refusal(&["sevre"]).contains("serve"));
        assert!(refusal(&["top", "--interval-s", "0"]).contains("1..=3600"));
        let none = serve(&["--listen", "none"]).configuration().unwrap_err().to_string();
        assert!(none.contains("listen") && none.contains("1 to 16 addresses"), "{none}");
        let shards = serve(&["--shards", "0"]).configuration().unwrap_err().to_string();
        assert!(shards.contains("1 to 1024"), "{shards}");
    }

    #[test]
    fn help_names_every_command_and_the_exit_codes() {
        let help = Cli::command().render_help().to_string();
        for word in ["serve", "check", "top", "--listen", "--data-dir", "78 io_uring", "Examples"] {
            assert!(help.contains(word), "{word} is missing in {help}");
        }
    }

    #[test]
    fn help_promises_no_more_than_there_is() {
        let help = Cli::command().render_help().to_string();
        for word in ["Not there yet", "guest", "time to live", "dead-lettering", "priorities"] {
            assert!(help.contains(word), "{word} is missing in {help}");
        }
        // Nobody can log in from another host yet.
        assert!(!help.contains("0.0.0.0"), "{help}");
    }
}

//! The options of the broker: name, default, limit and meaning of each.
//!
//! One table defines them all. Order of precedence: command line, TOML file of `--config`, default.
//! A key that is not in the table is an error, and so is a value outside of its limit.

mod address;
mod durability;
mod option;

use std::path::{Path, PathBuf};

use leveret_broker::settings::Settings;
use leveret_ring::RingConfig;
use serde::Deserialize;

pub(crate) use self::address::{Addresses, parse_address};
pub(crate) use self::durability::Durability;
use self::option::{Limit, OptionRow, Value};
use crate::failure::ConfigError;

/// Descriptors reserved for everything but client connections: listeners, rings, eventfds, HTTP,
/// logs.
const DESCRIPTORS_RESERVED: u64 = 256;

/// The largest derived value of `connections_max`; its tables take 44 bytes per connection, 2.9 MB
/// in all.
const CONNECTIONS_DERIVED_MAX: u64 = 65_536;

/// The derived value of `spin_us`: about the cost of waking a sleeping core (15 to 37 µs), so that
/// waiting costs at most twice as much as the better choice would have.
const SPIN_DERIVED_US: u32 = 30;

/// Generates [`Config`], its defaults and its checks from one table.
macro_rules! options {
    ($($name:ident: $type:ty = $default:expr, $limit:expr, $doc:literal;)*) => {
        /// All options with their values. A field of type `Option` is derived if it is not set.
        #[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct Config {
            $(#[doc = $doc] pub(crate) $name: $type,)*
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Config {
            /// Checks every value against its limit.
            fn check_limits(&self) -> Result<(), ConfigError> {
                $(self.$name.check(&$limit).map_err(|reason| ConfigError::Limit {
                    option: stringify!($name),
                    reason,
                })?;)*
                Ok(())
            }

            /// The table with the values of this configuration.
            fn rows(&self) -> Vec<OptionRow> {
                vec![$(OptionRow {
                    name: stringify!($name),
                    value: self.$name.to_toml(),
                    limit: $limit.to_string(),
                    doc: $doc,
                },)*]
            }
        }
    };
}

#[rustfmt::skip]
options! {
    listen: Addresses = Addresses::loopback(5672), Limit::Items(1, 16),
        "Where AMQP clients connect.";
    http: Addresses = Addresses::loopback(15672), Limit::Items(0, 4),
        "Where HTTP is served (status, /api/top, /metrics); none = off.";
    metrics: Addresses = Addresses::loopback(15692), Limit::Items(0, 4),
        "Where Prometheus scrapes /metrics, as with `RabbitMQ`'s plugin; none = off.";
    data_dir: PathBuf = PathBuf::from("leveret-data"), Limit::Bytes(1, 4096),
        "Directory of the broker's data; made where missing.";
    shards: Option<u16> = None, Limit::Range(1, 1024),
        "Engine threads. Not set: one per core that this process may use.";
    connections_max: Option<u32> = None, Limit::Range(1, 16_000_000),
        "Client connections at once. Not set: the open files limit less 256, at most 65536.";
    heartbeat_s: u16 = 60, Limit::Range(0, 65_535),
        "Heartbeat interval offered to clients, whose answer decides; 0 = none.";
    handshake_timeout_ms: u32 = 10_000, Limit::Range(100, 600_000),
        "From connecting to connection.open; slower clients are cut.";
    frame_max_bytes: u32 = 131_072, Limit::Range(8_192, 16 << 20),
        "Largest frame offered to clients.";
    channel_max: u16 = 2_047, Limit::Range(1, 65_535),
        "Most channels per connection offered to clients.";
    message_size_max_bytes: u64 = 128 << 20, Limit::Range(1, 512 << 20),
        "Largest message body; a larger one closes its channel.";
    durability: Durability = Durability::Flush, Limit::Words("\"flush\" or \"os\""),
        "What a publisher's confirm means for a persistent message: \"flush\" = the device has it, \
         \"os\" = the operating system has it (survives the process, not the machine).";
    memory_limit_bytes: Option<u64> = None, Limit::Range(64 << 20, 1 << 50),
        "Memory for messages and connections. Half of it keeps messages, the rest of them live on \
         disk; above all of it publishers are blocked. Not set: 40 % of the memory of the host or \
         of the control group, whichever is less.";
    disk_free_min_bytes: u64 = 2 << 30, Limit::Range(16 << 20, 1 << 50),
        "Publishers are blocked while the file system of the data directory has less free space.";
    log_segment_bytes: u32 = 16 << 20, Limit::MultipleOf(4_096, 64 << 10, 1 << 30),
        "Size of the files a shard's log consists of.";
    outbox_high_bytes: u32 = 1 << 20, Limit::Range(64 << 10, 1 << 30),
        "A connection with this much unsent data gets no more deliveries.";
    outbox_low_bytes: u32 = 256 << 10, Limit::Range(0, (1 << 30) - 1),
        "Deliveries go on below this; less than `outbox_high_bytes`.";
    receive_buffers: u16 = 256, Limit::PowerOfTwo(4, 32_768),
        "Receive buffers per shard, shared by all its connections.";
    receive_buffer_bytes: u32 = 65_536, Limit::MultipleOf(4_096, 4_096, 16 << 20),
        "Size of one receive buffer.";
    mesh_lane_batches: u16 = 32, Limit::Range(2, 4_096),
        "Batches of mail that may wait between two shards, per lane; each is at most 64 KiB.";
    spin_us: Option<u32> = None, Limit::Range(0, 1_000_000),
        "How long a shard polls after its last work before it sleeps, where that mostly was long \
         enough of late. Polling saves the 15-37 us of a wake-up and burns the core meanwhile. Not \
         set: 30 if each shard has a core, else 0.";
    product: String = "Leveret".into(), Limit::Bytes(1, 512),
        "`product` in the server properties, for clients that look at it.";
    version: String = env!("CARGO_PKG_VERSION").into(), Limit::Bytes(1, 512),
        "`version` in the server properties, for clients that look at it.";
    cluster_name: Option<String> = None, Limit::Bytes(1, 256),
        "`cluster_name` in the server properties and in metrics. Not set: leveret@HOST.";
    log: String = "info".into(), Limit::Bytes(1, 1024),
        "What is logged to stderr: off, error, warn, info, debug or trace, also per target \
         (info,TARGET=LEVEL). `RabbitMQ`'s words for levels do too.";
}

impl Config {
    /// Reads a TOML file; options that it does not set have their defaults. Limits are checked
    /// later by [`Config::validate`], after the command line has been applied.
    pub(crate) fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.into(), source })?;
        Self::from_toml(&text).map_err(|reason| ConfigError::Syntax { path: path.into(), reason })
    }

    fn from_toml(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
    }

    /// Checks every limit, and that the options fit together.
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.check_limits()?;
        if self.outbox_low_bytes >= self.outbox_high_bytes {
            return Err(ConfigError::Contradiction(format!(
                "outbox_low_bytes ({}) must be less than outbox_high_bytes ({})",
                self.outbox_low_bytes, self.outbox_high_bytes
            )));
        }
        crate::log::filter(&self.log).map_err(|error| ConfigError::Limit {
            option: "log",
            reason: format!("`{}` is not a log filter: {error}", self.log.escape_debug()),
        })?;
        self.settings("localhost").validate().map_err(|error| {
            ConfigError::Contradiction(format!("the options do not fit together: {error}"))
        })
    }

    /// A TOML file that documents every option and sets it to its current value.
    pub(crate) fn to_toml(&self) -> String {
        let rows: Vec<String> = self.rows().iter().map(ToString::to_string).collect();
        format!(
            "# Configuration of Leveret. Use: leveret serve --config FILE\n\
             # Keys that are commented out are derived at the start.\n\n{}",
            rows.join("\n")
        )
    }

    /// The settings that every shard gets.
    pub(crate) fn settings(&self, host: &str) -> Settings {
        Settings {
            channel_max: self.channel_max,
            frame_size_max: self.frame_max_bytes,
            heartbeat_s: self.heartbeat_s,
            handshake_timeout_ns: u64::from(self.handshake_timeout_ms) * 1_000_000,
            message_size_max_bytes: self.message_size_max_bytes,
            outbox_high_bytes: self.outbox_high_bytes as usize,
            outbox_low_bytes: self.outbox_low_bytes as usize,
            receive_buffers_kept_max: self.receive_buffers / 4,
            product: self.product.clone(),
            version: self.version.clone(),
            cluster_name: self.cluster_name(host),
            ..Settings::default()
        }
    }

    /// The name in the server properties and in metrics.
    pub(crate) fn cluster_name(&self, host: &str) -> String {
        self.cluster_name.clone().unwrap_or_else(|| format!("leveret@{host}"))
    }

    /// The ring of one of `shards` shards that together serve `connections_max` connections.
    pub(crate) fn ring(&self, shards: usize, connections_max: u32) -> RingConfig {
        // A shard gets a new connection only if no other shard has fewer, so it never has more than
        // its share plus one.
        let share = connections_max.div_ceil(shards as u32) + 1;
        RingConfig {
            sockets_max: share,
            buffer_count: self.receive_buffers,
            buffer_size_bytes: self.receive_buffer_bytes,
            lend_above_free_buffers: self.receive_buffers / 4,
            ..RingConfig::default()
        }
    }

    /// The limit on client connections if the process may have `open_files_max` descriptors.
    pub(crate) fn connections_max(&self, open_files_max: u64) -> Result<u32, ConfigError> {
        let available = open_files_max.saturating_sub(DESCRIPTORS_RESERVED);
        match self.connections_max {
            None if available == 0 => Err(ConfigError::Contradiction(format!(
                "the open files limit of {open_files_max} leaves no room for connections; raise it \
                 above {DESCRIPTORS_RESERVED} (ulimit -n, LimitNOFILE=, --ulimit nofile)"
            ))),
            None => Ok(available.min(CONNECTIONS_DERIVED_MAX) as u32),
            Some(wanted) if u64::from(wanted) <= available => Ok(wanted),
            Some(wanted) => Err(ConfigError::Contradiction(format!(
                "connections_max = {wanted} needs an open files limit of {}, but it is \
                 {open_files_max}; raise it (ulimit -n, LimitNOFILE=, --ulimit nofile) or lower \
                 connections_max",
                u64::from(wanted) + DESCRIPTORS_RESERVED
            ))),
        }
    }

    /// How long a shard polls before it sleeps.
    pub(crate) fn spin_us(&self, owns_its_core: bool) -> u32 {
        self.spin_us.unwrap_or(if owns_its_core { SPIN_DERIVED_US } else { 0 })
    }
}

#[cfg(test)]
mod tests;

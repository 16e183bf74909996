//! The limits and names every shard of a broker is given, fixed while the broker runs.

use thiserror::Error;

use leveret_amqp::frame::FRAME_MIN_SIZE;
use leveret_amqp::limits::Tune;

use crate::id::SECOND_NS;

/// Largest `body_size` a content header may declare, in bytes: 512 MiB.
///
/// `RabbitMQ`'s `?MAX_MSG_SIZE` (`rabbit_command_assembler`): above it the *connection* ends with
/// 501, whatever [`Settings::message_size_max_bytes`] allows.
pub const BODY_SIZE_MAX_BYTES: u64 = 512 << 20;

/// Largest text of one server property, in bytes. Six of them and the capabilities stay well
/// below [`FRAME_MIN_SIZE`], the frame every client can take before it has tuned.
pub const SERVER_PROPERTY_SIZE_MAX_BYTES: usize = 512;

/// Limits of one broker and the names it shows.
///
/// Times are nanoseconds, ready to be added to an [`Instant`](crate::id::Instant).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Most channels of one connection, offered in `connection.tune`. 1 to 65535, default 2047:
    /// `RabbitMQ`'s since 3.7, chosen as far above honest use and far below what a leak can make.
    pub channel_max: u16,
    /// Largest frame in bytes, its 8 bytes of overhead included, offered in `connection.tune`.
    /// 8192 to 16 MiB, default 131072 as `RabbitMQ`: a body of that size amortises the three
    /// frame headers to nothing, and two of them still fit a level 2 cache.
    pub frame_size_max: u32,
    /// Heartbeat interval in seconds, offered in `connection.tune`. 0 to 65535 where 0 is none,
    /// default 60 as `RabbitMQ`. The client's answer decides.
    pub heartbeat_s: u16,
    /// From accept to `connection.open-ok`. 0.1 s to 10 min, default 10 s as `RabbitMQ`: three
    /// round trips even over a satellite, and what one silent socket may cost.
    pub handshake_timeout_ns: u64,
    /// How long a peer that failed before it was trusted is left in silence. 0 to 1 min, default
    /// 3 s as `RabbitMQ`: it slows password guessing by a factor of some thousands.
    pub silent_close_delay_ns: u64,
    /// How long `connection.close-ok` is awaited before the socket is cut. 0.1 s to 10 min,
    /// default 30 s as `RabbitMQ`'s `?CLOSING_TIMEOUT`.
    pub close_wait_ns: u64,
    /// Largest message body in bytes; a larger one ends its channel with 406. 1 to
    /// [`BODY_SIZE_MAX_BYTES`], default 128 MiB as `RabbitMQ` 3.x: its 4.x lowered this to 16 MiB
    /// and thereby refuses what worked before.
    pub message_size_max_bytes: u64,
    /// A connection with this many bytes waiting to be sent gets no more deliveries. 64 KiB to
    /// 1 GiB, default 1 MiB: 1 ms of a 10 Gbit/s link, so a fast client never runs dry.
    pub outbox_high_bytes: usize,
    /// Deliveries go on below this many waiting bytes. Below the high mark, default 256 KiB: the
    /// gap is what one wake-up of the queues is paid with.
    pub outbox_low_bytes: usize,
    /// Memory of one shard for messages at rest; what exceeds it lives on disk only. 1 MiB to 1
    /// PiB, default 512 MiB: half of what 40 % of 5 GB leave to each of two shards.
    pub store_memory_max_bytes: u64,
    /// Receive buffers of one shard in which bodies at rest are left; further ones are copied. 0 to
    /// 8,192, default 64: a quarter of the 256 that a shard has, which leaves enough of them to
    /// receive into.
    pub receive_buffers_kept_max: u16,
    /// `product` in the server properties. Some clients look at it: kombu sends `basic.qos` with
    /// `global` (and thereby can change a prefetch later) only to a product `RabbitMQ` from 3.3.
    pub product: String,
    /// `version` in the server properties.
    pub version: String,
    /// `platform` in the server properties.
    pub platform: String,
    /// `copyright` in the server properties.
    pub copyright: String,
    /// `information` in the server properties.
    pub information: String,
    /// `cluster_name` in the server properties, default `leveret@localhost`.
    pub cluster_name: String,
}

impl Settings {
    /// The defaults under the cluster name `leveret@<host>`.
    pub fn for_host(host: &str) -> Self {
        Self { cluster_name: format!("leveret@{host}"), ..Self::default() }
    }

    /// What is offered in `connection.tune`.
    pub const fn tune(&self) -> Tune {
        Tune {
            channel_max: self.channel_max,
            frame_max: self.frame_size_max,
            heartbeat: self.heartbeat_s,
        }
    }

    /// Whether every value is within the limits its field documents.
    pub fn validate(&self) -> Result<(), SettingsError> {
        check("channel_max", self.channel_max.into(), 1, u16::MAX.into())?;
        let frame_min = u64::from(2 * FRAME_MIN_SIZE);
        check("frame_size_max", self.frame_size_max.into(), frame_min, 16 << 20)?;
        let minutes_10 = 600 * SECOND_NS;
        check("handshake_timeout_ns", self.handshake_timeout_ns, SECOND_NS / 10, minutes_10)?;
        check("silent_close_delay_ns", self.silent_close_delay_ns, 0, 60 * SECOND_NS)?;
        check("close_wait_ns", self.close_wait_ns, SECOND_NS / 10, minutes_10)?;
        check("message_size_max_bytes", self.message_size_max_bytes, 1, BODY_SIZE_MAX_BYTES)?;
        check("outbox_high_bytes", self.outbox_high_bytes as u64, 64 << 10, 1 << 30)?;
        let low_max = self.outbox_high_bytes as u64 - 1;
        check("outbox_low_bytes", self.outbox_low_bytes as u64, 0, low_max)?;
        check("store_memory_max_bytes", self.store_memory_max_bytes, 1 << 20, 1 << 50)?;
        check("receive_buffers_kept_max", self.receive_buffers_kept_max.into(), 0, 8_192)?;
        for (option, text) in self.server_properties() {
            check(option, text.len() as u64, 0, SERVER_PROPERTY_SIZE_MAX_BYTES as u64)?;
        }
        Ok(())
    }

    /// The texts among the server properties, in `RabbitMQ`'s (alphabetic) order.
    pub fn server_properties(&self) -> [(&'static str, &str); 6] {
        [
            ("cluster_name", &self.cluster_name),
            ("copyright", &self.copyright),
            ("information", &self.information),
            ("platform", &self.platform),
            ("product", &self.product),
            ("version", &self.version),
        ]
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            channel_max: 2047,
            frame_size_max: 131_072,
            heartbeat_s: 60,
            handshake_timeout_ns: 10 * SECOND_NS,
            silent_close_delay_ns: 3 * SECOND_NS,
            close_wait_ns: 30 * SECOND_NS,
            message_size_max_bytes: 128 << 20,
            outbox_high_bytes: 1 << 20,
            outbox_low_bytes: 256 << 10,
            store_memory_max_bytes: 512 << 20,
            receive_buffers_kept_max: 64,
            product: "Leveret".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            platform: "Rust".into(),
            copyright: "Copyright (c) 2026 the Leveret authors.".into(),
            information: "Licensed under MIT or Apache-2.0.".into(),
            cluster_name: "leveret@localhost".into(),
        }
    }
}

/// A setting outside its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{option} = {value} is outside {min} to {max}")]
pub struct SettingsError {
    /// The field of [`Settings`]; of a text, its size in bytes is judged.
    pub option: &'static str,
    /// What it was set to.
    pub value: u64,
    /// The least allowed.
    pub min: u64,
    /// The most allowed.
    pub max: u64,
}

fn check(option: &'static str, value: u64, min: u64, max: u64) -> Result<(), SettingsError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(SettingsError { option, value, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_rabbitmqs_and_valid() {
        let settings = Settings::for_host("alpha");
        assert_eq!(settings.validate(), Ok(()));
        assert_eq!(settings.tune(), Tune::SERVER_DEFAULT);
        assert_eq!(settings.cluster_name, "leveret@alpha");
    }

    #[test]
    fn every_limit_is_held() {
        type Change = fn(&mut Settings);
        let cases: [(&str, Change); 16] = [
            ("channel_max", |s| s.channel_max = 0),
            ("frame_size_max", |s| s.frame_size_max = 0),
            ("frame_size_max", |s| s.frame_size_max = 8191),
            ("frame_size_max", |s| s.frame_size_max = (16 << 20) + 1),
            ("handshake_timeout_ns", |s| s.handshake_timeout_ns = 0),
            ("silent_close_delay_ns", |s| {
                s.silent_close_delay_ns = 61 * SECOND_NS;
            }),
            ("close_wait_ns", |s| s.close_wait_ns = 0),
            ("message_size_max_bytes", |s| s.message_size_max_bytes = 0),
            ("message_size_max_bytes", |s| {
                s.message_size_max_bytes = BODY_SIZE_MAX_BYTES + 1;
            }),
            ("outbox_high_bytes", |s| s.outbox_high_bytes = 0),
            ("outbox_low_bytes", |s| {
                s.outbox_low_bytes = s.outbox_high_bytes;
            }),
            ("store_memory_max_bytes", |s| s.store_memory_max_bytes = (1 << 20) - 1),
            ("store_memory_max_bytes", |s| s.store_memory_max_bytes = (1 << 50) + 1),
            ("receive_buffers_kept_max", |s| s.receive_buffers_kept_max = 8_193),
            ("product", |s| {
                s.product = "x".repeat(SERVER_PROPERTY_SIZE_MAX_BYTES + 1);
            }),
            ("cluster_name", |s| s.cluster_name = "x".repeat(1000)),
        ];
        for (option, change) in cases {
            let mut settings = Settings::default();
            change(&mut settings);
            assert_eq!(settings.validate().unwrap_err().option, option);
        }
    }
}

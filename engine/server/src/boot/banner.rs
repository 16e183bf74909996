//! What the user sees on stdout once the broker has started.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use leveret_ring::Features;

use crate::listeners::Purpose;

/// The content of the banner. It must promise nothing that this version does not keep.
pub(crate) struct Banner<'a> {
    pub(crate) features: &'a Features,
    /// From [`CorePlan::describe`](crate::shard::cores::CorePlan::describe).
    pub(crate) shards: String,
    pub(crate) listeners: &'a [(SocketAddr, Purpose)],
    pub(crate) connections_max: u32,
    pub(crate) data_dir: &'a Path,
    /// From [`Findings::describe`](crate::data::disk::probe::Findings::describe).
    pub(crate) durability: String,
    /// Reasons why the durability above cannot be guaranteed.
    pub(crate) warnings: &'a [String],
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Leveret {}, an AMQP 0-9-1 broker", env!("CARGO_PKG_VERSION"))?;
        let found = self.features.iter().filter(|feature| feature.present).count();
        let lacking: Vec<&str> = self
            .features
            .iter()
            .filter(|feature| !feature.present)
            .map(|feature| feature.name)
            .collect();
        write!(f, "kernel: Linux {}, {found} io_uring features", self.features.kernel_release)?;
        if lacking.is_empty() {
            writeln!(f, ", all that are looked for")?;
        } else {
            writeln!(f, "; without the optional: {}", lacking.join(", "))?;
        }
        writeln!(f, "shards: {}; at most {} connections", self.shards, self.connections_max)?;
        writeln!(f, "data directory: {}", self.data_dir.display())?;
        writeln!(f, "durability: {}", self.durability)?;
        for warning in self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        for (address, purpose) in self.listeners {
            writeln!(f, "listening on {address} ({})", purpose.name())?;
        }
        writeln!(f, "{}", self.next())
    }
}

impl Banner<'_> {
    fn next(&self) -> String {
        let of = |purpose| self.listeners.iter().find(|(_, of)| *of == purpose);
        let amqp = of(Purpose::Amqp).map_or(String::new(), |(address, _)| {
            format!(
                "next: connect to amqp://guest:guest@{}/ (user guest: from this host only)",
                reachable(*address)
            )
        });
        let watch = match of(Purpose::Http) {
            Some((address, _)) if *address == SocketAddr::from(([127, 0, 0, 1], 15672)) => {
                "      watch it with: leveret top; stop it with Ctrl-C".to_owned()
            }
            Some((address, _)) => format!(
                "      watch it with: leveret top --http {}; stop it with Ctrl-C",
                reachable(*address)
            ),
            None => "      stop it with Ctrl-C".to_owned(),
        };
        format!("{amqp}\n{watch}")
    }
}

/// An address that clients can connect to: loopback if the listener has the wildcard address.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_runs_where_and_what_is_next() {
        let features = leveret_ring::probe().unwrap();
        let listeners = [
            ("0.0.0.0:5673".parse().unwrap(), Purpose::Amqp),
            ("127.0.0.1:15673".parse().unwrap(), Purpose::Http),
            ("127.0.0.1:15692".parse().unwrap(), Purpose::Metrics),
        ];
        let banner = Banner {
            features: &features,
            shards: "2 shards on cores 0-1".into(),
            listeners: &listeners,
            connections_max: 768,
            data_dir: Path::new("leveret-data"),
            durability: "flush (O_DIRECT + RWF_DSYNC on ext4)".into(),
            warnings: &["the power may fail".into()],
        };
        let text = banner.to_string();
        for line in [
            "shards: 2 shards on cores 0-1; at most 768 connections",
            "data directory: leveret-data",
            "durability: flush (O_DIRECT + RWF_DSYNC on ext4)",
            "warning: the power may fail",
            "listening on 0.0.0.0:5673 (amqp)",
            "listening on 127.0.0.1:15673 (http)",
            "listening on 127.0.0.1:15692 (metrics)",
            "next: connect to amqp://guest:guest@127.0.0.1:5673/ (user guest: from this host only)",
            "      watch it with: leveret top --http 127.0.0.1:15673; stop it with Ctrl-C",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nis missing in\n{text}");
        }
        assert!(text.contains(&features.kernel_release));
    }
}

//! What a confirm means.

use std::fmt;

use serde::Deserialize;

use super::option::Value;

/// Where a persistent message has to be stored before its publisher gets a confirm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durability {
    /// On the device: the message survives a loss of power.
    #[default]
    Flush,
    /// In the operating system: the message survives the end of the process, but not of the
    /// machine, as in `RabbitMQ`'s classic queues.
    Os,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flush => "flush",
            Self::Os => "os",
        })
    }
}

impl Value for Durability {
    fn measure(&self) -> Option<u64> {
        None
    }

    fn to_toml(&self) -> Option<String> {
        Some(format!("\"{self}\""))
    }
}

//! What a confirm means.

use std::fmt;

use serde::Deserialize;

use super::option::Value;

/// What has a persistent message when its publisher is told that the broker has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durability {
    /// The device: it survives the loss of power.
    #[default]
    Flush,
    /// The operating system: it survives the end of the process only, like `RabbitMQ`'s classic
    /// queues.
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

//! Lists of `ADDR:PORT`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Addresses to listen on. In TOML: one string or a list of strings; `none` or `[]` is an empty
/// list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Addresses(Vec<SocketAddr>);

impl Addresses {
    /// A port on loopback only.
    pub(crate) fn loopback(port: u16) -> Self {
        Self(vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)])
    }

    /// The addresses of texts such as `127.0.0.1:5672` or `none`.
    pub(crate) fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let parsed: Result<Vec<_>, _> = texts.into_iter().map(parse_address).collect();
        Ok(Self(parsed?.into_iter().flatten().collect()))
    }
}

impl FromIterator<SocketAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = SocketAddr>>(addresses: I) -> Self {
        Self(addresses.into_iter().collect())
    }
}

impl Deref for Addresses {
    type Target = [SocketAddr];

    fn deref(&self) -> &[SocketAddr] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "expected \"ADDR:PORT\", \"none\" or a list of \"ADDR:PORT\""
        )]
        enum Texts {
            One(String),
            Many(Vec<String>),
        }
        let parsed = match Texts::deserialize(deserializer)? {
            Texts::One(text) => Self::parse([text.as_str()]),
            Texts::Many(texts) => Self::parse(texts.iter().map(String::as_str)),
        };
        parsed.map_err(D::Error::custom)
    }
}

/// Parses one address; `None` for the word `none`. The error explains the expected form.
pub(crate) fn parse_address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "none" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| {
        format!(
            "`{}` is not ADDR:PORT with a numeric address, such as 127.0.0.1:5672 or [::1]:5672",
            text.escape_debug()
        )
    })
}

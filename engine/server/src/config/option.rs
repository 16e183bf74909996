//! One row of the option table: its value as TOML and its limit.

use std::fmt;
use std::path::PathBuf;

use super::Addresses;

/// The values that an option may have. Both ends are included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    /// A number between both.
    Range(u64, u64),
    /// A power of two between both.
    PowerOfTwo(u64, u64),
    /// A multiple of the first number, between the second and the third.
    MultipleOf(u64, u64, u64),
    /// A string with a length between both, in bytes.
    Bytes(u64, u64),
    /// A list with a length between both.
    Items(u64, u64),
    /// One of these words; the type itself checks this.
    Words(&'static str),
}

impl Limit {
    fn allows(self, number: u64) -> bool {
        match self {
            Self::Range(least, most) | Self::Bytes(least, most) | Self::Items(least, most) => {
                (least..=most).contains(&number)
            }
            Self::PowerOfTwo(least, most) => {
                (least..=most).contains(&number) && number.is_power_of_two()
            }
            Self::MultipleOf(of, least, most) => {
                (least..=most).contains(&number) && number.is_multiple_of(of)
            }
            Self::Words(_) => true,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(least, most) => write!(f, "{least} to {most}"),
            Self::PowerOfTwo(least, most) => write!(f, "a power of two, {least} to {most}"),
            Self::MultipleOf(of, least, most) => {
                write!(f, "a multiple of {of}, {least} to {most}")
            }
            Self::Bytes(least, most) => write!(f, "{least} to {most} bytes"),
            Self::Words(words) => f.write_str(words),
            Self::Items(0, most) => write!(f, "at most {most} addresses"),
            Self::Items(least, most) => write!(f, "{least} to {most} addresses"),
        }
    }
}

/// The type of an option.
pub(super) trait Value {
    /// The number that the limit applies to: the value, the length or the count. `None`: nothing to
    /// check.
    fn measure(&self) -> Option<u64>;

    /// The value in TOML; `None` if it is derived.
    fn to_toml(&self) -> Option<String>;

    /// Checks the value; the error names the limit.
    fn check(&self, limit: &Limit) -> Result<(), String> {
        match self.measure() {
            Some(measure) if !limit.allows(measure) => {
                Err(format!("{measure} is not allowed; it must be {limit}"))
            }
            _ => Ok(()),
        }
    }
}

macro_rules! number {
    ($($type:ty),*) => {
        $(impl Value for $type {
            fn measure(&self) -> Option<u64> {
                Some(u64::from(*self))
            }

            fn to_toml(&self) -> Option<String> {
                Some(self.to_string())
            }
        })*
    };
}

number!(u16, u32, u64);

impl<T: Value> Value for Option<T> {
    fn measure(&self) -> Option<u64> {
        self.as_ref().and_then(Value::measure)
    }

    fn to_toml(&self) -> Option<String> {
        self.as_ref().and_then(Value::to_toml)
    }
}

impl Value for String {
    fn measure(&self) -> Option<u64> {
        Some(self.len() as u64)
    }

    fn to_toml(&self) -> Option<String> {
        Some(toml::Value::from(self.as_str()).to_string())
    }
}

impl Value for PathBuf {
    fn measure(&self) -> Option<u64> {
        Some(self.as_os_str().len() as u64)
    }

    fn to_toml(&self) -> Option<String> {
        Some(toml::Value::from(self.to_string_lossy().as_ref()).to_string())
    }
}

impl Value for Addresses {
    fn measure(&self) -> Option<u64> {
        Some(self.len() as u64)
    }

    fn to_toml(&self) -> Option<String> {
        let texts: Vec<String> = self.iter().map(|address| format!("\"{address}\"")).collect();
        Some(format!("[{}]", texts.join(", ")))
    }
}

/// One option, ready to be printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OptionRow {
    /// The key in the file.
    pub(super) name: &'static str,
    /// The current value; `None` if it is derived.
    pub(super) value: Option<String>,
    /// The limit as text.
    pub(super) limit: String,
    /// The documentation.
    pub(super) doc: &'static str,
}

/// The option as lines of a TOML file.
impl fmt::Display for OptionRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# {}", self.doc)?;
        writeln!(f, "# Allowed: {}.", self.limit)?;
        match &self.value {
            Some(value) => writeln!(f, "{} = {value}", self.name),
            None => writeln!(f, "# {} =", self.name),
        }
    }
}

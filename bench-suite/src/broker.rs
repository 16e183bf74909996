//! Which broker: its name in the report, where it listens, and its process.

use std::net::{Ipv4Addr, SocketAddr};

/// A broker under test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broker {
    /// How the report calls it.
    pub(crate) name: String,
    /// Where it speaks AMQP. Always loopback.
    pub(crate) address: SocketAddr,
    /// The root of its process tree.
    pub(crate) pid: u32,
}

/// Reads `NAME=HOST:PORT,pid=PID`.
///
/// A load test is an attack on whoever did not ask for it, and the processor time of a broker
/// elsewhere cannot be read: only loopback addresses are taken.
pub(crate) fn parse_broker(text: &str) -> Result<Broker, String> {
    let form = || format!("`{text}` is not NAME=HOST:PORT,pid=PID");
    let (name, rest) = text.split_once('=').ok_or_else(form)?;
    let (address, pid) = rest.split_once(",pid=").ok_or_else(form)?;
    if name.is_empty() || name.contains('|') {
        return Err(format!("`{name}` cannot be the name of a row in a table"));
    }
    let address = parse_address(address).ok_or_else(form)?;
    if !address.ip().is_loopback() {
        return Err(format!("{address} is not a loopback address; only those are put under load"));
    }
    let pid = pid.parse().map_err(|_| format!("`{pid}` is not a process id"))?;
    Ok(Broker { name: name.to_owned(), address, pid })
}

fn parse_address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some((Ipv4Addr::LOCALHOST, port.parse().ok()?).into()),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_name_address_and_process() {
        let broker = parse_broker("leveret=127.0.0.1:5672,pid=42").unwrap();
        assert_eq!((broker.name.as_str(), broker.pid), ("leveret", 42));
        assert_eq!(broker.address, ([127, 0, 0, 1], 5672).into());
        let local = parse_broker("a=localhost:1,pid=2").unwrap().address;
        assert_eq!(local, ([127, 0, 0, 1], 1).into());
        assert!(parse_broker("a=[::1]:5672,pid=2").unwrap().address.is_ipv6());
    }

    #[test]
    fn only_loopback_is_put_under_load() {
        for address in ["192.0.2.1:5672", "0.0.0.0:5672", "[2001:db8::1]:5672"] {
            let refusal = parse_broker(&format!("a={address},pid=1")).unwrap_err();
            assert!(refusal.contains("loopback"), "{refusal}");
        }
    }

    #[test]
    fn mistakes_are_explained() {
        for text in ["", "a", "a=127.0.0.1:1", "a=127.0.0.1,pid=1", "a=host:1,pid=1"] {
            let refusal = parse_broker(text).unwrap_err();
            assert!(refusal.contains("NAME=HOST:PORT,pid=PID"), "{text}: {refusal}");
        }
        assert!(parse_broker("a=127.0.0.1:1,pid=x").unwrap_err().contains("process id"));
        assert!(parse_broker("|=127.0.0.1:1,pid=1").unwrap_err().contains("name"));
    }
}

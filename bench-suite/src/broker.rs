//! A broker under test: its name in the report, its address, its user, and its process.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};

use crate::fault::Fault;
use crate::machine::procfs;

/// The port of AMQP without TLS.
const PORT: u16 = 5672;

/// A broker under test.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Broker {
    /// The name in the report.
    pub(crate) name: String,
    /// The AMQP address.
    pub(crate) address: SocketAddr,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) virtual_host: String,
    /// The root of its process tree; `None` if its processes cannot be seen.
    pub(crate) pid: Option<u32>,
    /// Whether it is the floor, not a broker.
    pub(crate) is_floor: bool,
}

/// Reads `NAME=amqp://USER:PASSWORD@HOST:PORT/VHOST[,pid=PID]` or `NAME=HOST:PORT[,pid=PID]`.
///
/// As in the URI specification of `RabbitMQ`, user, password and virtual host may be
/// percent-encoded. Without user and password both are `guest`, without a port it is 5672, and
/// without a path the virtual host is `/`.
pub(crate) fn parse_broker(text: &str) -> Result<Broker, String> {
    let (name, rest) = text
        .split_once('=')
        .ok_or_else(|| format!("{} is not NAME=HOST:PORT or NAME=amqp://…", quoted(text)))?;
    if name.is_empty() || name.contains('|') {
        return Err(format!("{} cannot be the name of a row in a table", quoted(name)));
    }
    let (place, pid) = match rest.rsplit_once(",pid=") {
        None => (rest, None),
        Some((place, pid)) => {
            let pid = pid.parse().map_err(|_| format!("`{pid}` is not a process id"))?;
            (place, Some(pid))
        }
    };
    let place = match place.split_once("://") {
        None if place.contains(['/', '@']) => {
            return Err(format!("{} is no HOST:PORT; does amqp:// miss?", quoted(place)));
        }
        None => read_place(place, Some(""))?,
        Some((scheme, place)) if scheme.eq_ignore_ascii_case("amqp") => read_uri(place)?,
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("amqps") => {
            return Err("amqps:// is not supported yet; give the port without TLS".to_owned());
        }
        Some((scheme, _)) => return Err(format!("`{scheme}://` is no scheme of AMQP: amqp://")),
    };
    let Place { address, user, password, virtual_host } = place;
    let name = name.to_owned();
    Ok(Broker { name, address, user, password, virtual_host, pid, is_floor: false })
}

/// Refuses a target on another machine without `--allow-remote`, because a load test is an attack
/// on a broker whose owner has not agreed to it.
pub(crate) fn check_target(broker: &Broker, allow_remote: bool) -> Result<(), Fault> {
    if allow_remote || broker.address.ip().is_loopback() {
        return Ok(());
    }
    Err(Fault::Usage(format!(
        "{broker} is not on a loopback address: a load test is an attack on whoever did not ask \
         for it; if this broker is yours to put under load, say --allow-remote"
    )))
}

/// Refuses a process id that cannot be read: without it, every figure per processor second would be
/// missing.
pub(crate) fn check_process(broker: &Broker) -> Result<(), Fault> {
    let Some(pid) = broker.pid else { return Ok(()) };
    procfs::cpu_s(pid).map(drop).map_err(|fault| {
        Fault::Process(format!(
            "the process id {pid} that was given for {} cannot be read ({fault}): give the root \
             of its processes, or leave `,pid={pid}` out and do without CPU and memory",
            broker.name
        ))
    })
}

impl Broker {
    /// The floor that this program runs as a process of its own.
    pub(crate) fn floor(address: SocketAddr, pid: u32) -> Self {
        Self {
            name: "floor".to_owned(),
            address,
            user: "guest".to_owned(),
            password: "guest".to_owned(),
            virtual_host: "/".to_owned(),
            pid: Some(pid),
            is_floor: true,
        }
    }

    /// The address as a URI, without user and password.
    pub(crate) fn uri(&self) -> String {
        format!("amqp://{}/{}", self.address, percent_encode(&self.virtual_host))
    }
}

impl fmt::Display for Broker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.name, self.uri())
    }
}

/// Without the password, because the text may end up in a report.
impl fmt::Debug for Broker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, address, user, password: _, virtual_host, pid, is_floor } = self;
        formatter
            .debug_struct("Broker")
            .field("name", name)
            .field("address", address)
            .field("user", user)
            .field("virtual_host", virtual_host)
            .field("pid", pid)
            .field("is_floor", is_floor)
            .finish_non_exhaustive()
    }
}

/// The parts of a URI.
struct Place {
    address: SocketAddr,
    user: String,
    password: String,
    virtual_host: String,
}

/// Parses the part after `amqp://`.
fn read_uri(text: &str) -> Result<Place, String> {
    if text.contains(['?', '#']) {
        return Err("parameters behind `?` of an amqp:// URI are not supported; the load client \
                    has none of them"
            .to_owned());
    }
    match text.split_once('/') {
        None => read_place(text, None),
        Some((_, path)) if path.contains('/') => {
            Err(format!("`/{path}` is no virtual host: write a slash in its name as %2f"))
        }
        Some((authority, path)) => read_place(authority, Some(path)),
    }
}

/// Parses `USER:PASSWORD@HOST:PORT`; only the host is required.
fn read_place(authority: &str, path: Option<&str>) -> Result<Place, String> {
    let (credentials, host_and_port) = match authority.rsplit_once('@') {
        Some((credentials, rest)) => (Some(credentials), rest),
        None => (None, authority),
    };
    let (user, password) = match credentials.map(|text| text.split_once(':').unwrap_or((text, "")))
    {
        Some((user, password)) => (percent_decode(user)?, percent_decode(password)?),
        None => ("guest".to_owned(), "guest".to_owned()),
    };
    let virtual_host = match path {
        None | Some("") => "/".to_owned(),
        Some(path) => percent_decode(path)?,
    };
    Ok(Place { address: resolve(host_and_port)?, user, password, virtual_host })
}

/// Resolves `HOST`, `HOST:PORT` or `[IPv6]:PORT`.
fn resolve(host_and_port: &str) -> Result<SocketAddr, String> {
    let (host, port) = match host_and_port.rsplit_once(':') {
        // Colons within brackets belong to the address.
        Some((host, port)) if !port.contains(']') => (
            host,
            port.parse()
                .map_err(|_| format!("`{port}` of `{host_and_port}` is not a port: 1 to 65535"))?,
        ),
        _ => (host_and_port, PORT),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if host.is_empty() || port == 0 {
        return Err(format!("`{host_and_port}` is not HOST:PORT"));
    }
    let addresses: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("the host `{host}` cannot be found: {error}"))?
        .collect();
    // If a name has several addresses, IPv4 comes first: a broker on `localhost` may listen on it
    // alone.
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    first.copied().ok_or_else(|| format!("the host `{host}` has no address"))
}

/// Quotes an argument in an error message, but never a password, because errors may end up in a
/// log.
fn quoted(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, place)) => format!("`…@{place}`"),
        None => format!("`{text}`"),
    }
}

fn percent_decode(text: &str) -> Result<String, String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    let wrong = || "a `%` in an amqp:// URI needs two hexadecimal digits behind it".to_owned();
    while let Some((&octet, behind)) = rest.split_first() {
        rest = behind;
        if octet != b'%' {
            octets.push(octet);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2).ok_or_else(wrong)?;
        let digit = |octet: u8| char::from(octet).to_digit(16).ok_or_else(wrong);
        octets.push((digit(digits[0])? << 4 | digit(digits[1])?) as u8);
        rest = behind;
    }
    String::from_utf8(octets).map_err(|_| "a part of an amqp:// URI is not UTF-8".to_owned())
}

fn percent_encode(text: &str) -> String {
    use fmt::Write;
    let mut encoded = String::new();
    for octet in text.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            encoded.push(char::from(octet));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{octet:02x}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Broker {
        parse_broker(text).unwrap()
    }

    #[test]
    fn a_broker_is_name_address_and_process() {
        let broker = parse("leveret=127.0.0.1:5672,pid=42");
        assert_eq!((broker.name.as_str(), broker.pid), ("leveret", Some(42)));
        assert_eq!(broker.address, ([127, 0, 0, 1], 5672).into());
        assert_eq!(
            (&*broker.user, &*broker.password, &*broker.virtual_host),
            ("guest", "guest", "/")
        );
        assert_eq!(parse("a=localhost:1").address, ([127, 0, 0, 1], 1).into());
        assert_eq!(parse("a=localhost:1").pid, None);
        assert!(parse("a=[::1]:5672,pid=2").address.is_ipv6());
    }

    #[test]
    fn a_uri_says_who_logs_in_and_where() {
        let broker = parse("rabbit=amqp://me%40home:s%3acret%2f@127.0.0.1:1234/some%2Fhost,pid=7");
        assert_eq!(broker.address, ([127, 0, 0, 1], 1234).into());
        assert_eq!((&*broker.user, &*broker.password), ("me@home", "s:cret/"));
        assert_eq!((&*broker.virtual_host, broker.pid), ("some/host", Some(7)));
        let slash = parse("a=amqp://127.0.0.1/%2f");
        assert_eq!((&*slash.virtual_host, slash.address.port()), ("/", 5672));
        assert_eq!(slash, parse("a=AMQP://guest:guest@127.0.0.1:5672/"));
        assert_eq!(slash, parse("a=amqp://127.0.0.1"));
        assert_eq!(parse("a=amqp://[::1]").address, "[::1]:5672".parse().unwrap());
        assert_eq!(parse("a=amqp://[::1]:9/x").address, "[::1]:9".parse().unwrap());
    }

    #[test]
    fn passwords_are_not_shown() {
        let broker = parse("rabbit=amqp://me:secret@127.0.0.1:1234/some%2fhost");
        assert_eq!(broker.to_string(), "rabbit (amqp://127.0.0.1:1234/some%2fhost)");
        assert!(!format!("{broker:?}").contains("secret"));
        for text in ["amqp://me:secret@host", "a=me:secret@127.0.0.1:1"] {
            let refusal = parse_broker(text).unwrap_err();
            assert!(!refusal.contains("secret"), "{refusal}");
        }
    }

    #[test]
    fn only_loopback_is_put_under_load_unless_allowed() {
        for address in ["192.0.2.1:5672", "0.0.0.0:5672", "[2001:db8::1]:5672"] {
            let broker = parse(&format!("a={address}"));
            let refusal = check_target(&broker, false).unwrap_err().to_string();
            assert!(
                refusal.contains("loopback") && refusal.contains("--allow-remote"),
                "{refusal}"
            );
            assert!(check_target(&broker, true).is_ok());
        }
        assert!(check_target(&parse("a=[::1]:5672"), false).is_ok());
    }

    #[test]
    fn a_process_that_cannot_be_read_is_refused() {
        let own = parse(&format!("a=127.0.0.1:1,pid={}", std::process::id()));
        assert!(check_process(&own).is_ok());
        assert!(check_process(&Broker { pid: None, ..own.clone() }).is_ok());
        // Higher than any process id on Linux, which are below 2^22.
        let nobody = Broker { pid: Some(4_194_305), ..own };
        let refusal = check_process(&nobody).unwrap_err().to_string();
        assert!(refusal.contains("4194305") && refusal.contains("pid="), "{refusal}");
    }

    #[test]
    fn mistakes_are_explained() {
        for (text, part) in [
            ("", "NAME="),
            ("a", "NAME="),
            ("=127.0.0.1:1", "name"),
            ("a|b=127.0.0.1:1", "name"),
            ("a=127.0.0.1:1,pid=x", "process id"),
            ("a=127.0.0.1:x", "port"),
            ("a=127.0.0.1:0", "HOST:PORT"),
            ("a=:1", "HOST:PORT"),
            ("a=127.0.0.1:1/x", "amqp://"),
            ("a=http://127.0.0.1", "scheme"),
            ("a=amqps://127.0.0.1", "not supported yet"),
            ("a=amqp://127.0.0.1/a/b", "%2f"),
            ("a=amqp://127.0.0.1/%2", "two hexadecimal digits"),
            ("a=amqp://127.0.0.1/%+1", "two hexadecimal digits"),
            ("a=amqp://127.0.0.1/%ff", "UTF-8"),
            ("a=amqp://127.0.0.1/x?heartbeat=1", "parameters"),
        ] {
            let refusal = parse_broker(text).unwrap_err();
            assert!(refusal.contains(part), "{text}: {refusal}");
        }
    }
}

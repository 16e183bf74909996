//! The broker's own addresses: bound early, so that a taken port is found before anything runs;
//! listening late, so that no client connects before it can be served.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::failure::Failure;

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`. A storm
/// of reconnecting clients beyond it meets one second of TCP's patience.
const BACKLOG: i32 = 4096;

/// How long an address may still belong to a predecessor that was killed: the kernel ends what its
/// rings had under way, the listener among it, only after the process is gone.
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(1);

/// How soon it is tried again.
const PREDECESSOR_RETRY: Duration = Duration::from_millis(20);

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// AMQP clients.
    Amqp,
    /// People and tools.
    Http,
    /// Prometheus.
    Metrics,
}

impl Purpose {
    /// As the banner calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amqp => "amqp",
            Self::Http => "http",
            Self::Metrics => "metrics",
        }
    }

    fn option(self) -> &'static str {
        match self {
            Self::Amqp => "--listen",
            Self::Http => "--http",
            Self::Metrics => "--metrics",
        }
    }
}

/// An address that is taken and not yet open.
#[derive(Debug)]
pub(crate) struct Bound {
    socket: Socket,
    /// With the real port where 0 was asked for.
    pub(crate) address: SocketAddr,
    pub(crate) purpose: Purpose,
}

/// Takes all addresses of one purpose.
pub(crate) fn bind_all(addresses: &[SocketAddr], purpose: Purpose) -> Result<Vec<Bound>, Failure> {
    addresses.iter().map(|address| bind(*address, purpose)).collect()
}

fn bind(address: SocketAddr, purpose: Purpose) -> Result<Bound, Failure> {
    let failure = |source| listen_failure(address, purpose, source);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
        .map_err(failure)?;
    // Restarting must not wait for the last connections of the previous run to time out.
    socket.set_reuse_address(true).map_err(failure)?;
    let deadline = Instant::now() + PREDECESSOR_PATIENCE;
    while let Err(error) = socket.bind(&address.into()) {
        if error.kind() != io::ErrorKind::AddrInUse || Instant::now() >= deadline {
            return Err(failure(error));
        }
        std::thread::sleep(PREDECESSOR_RETRY);
    }
    let local = socket.local_addr().map_err(failure)?;
    let address = local.as_socket().unwrap_or(address);
    Ok(Bound { socket, address, purpose })
}

impl Bound {
    /// Opens the address.
    pub(crate) fn listen(self) -> Result<TcpListener, Failure> {
        self.socket
            .listen(BACKLOG)
            .map_err(|source| listen_failure(self.address, self.purpose, source))?;
        Ok(self.socket.into())
    }
}

fn listen_failure(address: SocketAddr, purpose: Purpose, source: io::Error) -> Failure {
    Failure::Listen { address, purpose: purpose.name(), option: purpose.option(), source }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn any_port() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn nobody_connects_between_bind_and_listen() {
        let bound = bind(any_port(), Purpose::Amqp).unwrap();
        let address = bound.address;
        assert_ne!(address.port(), 0);
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let listener = bound.listen().unwrap();
        TcpStream::connect(address).unwrap();
        assert!(listener.accept().is_ok());
    }

    #[test]
    fn a_taken_port_is_found_at_once() {
        let listener = bind(any_port(), Purpose::Amqp).unwrap().listen().unwrap();
        let address = listener.local_addr().unwrap();
        let failure = bind_all(&[any_port(), address], Purpose::Http).unwrap_err();
        assert_eq!(failure.exit_code(), 1);
        let text = failure.to_string();
        assert!(text.contains(&address.to_string()) && text.contains("--http"), "{text}");
    }
}

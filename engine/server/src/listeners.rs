//! The addresses of the broker. They are bound early, so that a port that is in use is found before
//! anything starts, and listened on late, so that no client connects before it can be served.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::failure::Failure;

/// Connections that may wait to be accepted; the kernel lowers it to `net.core.somaxconn`. In a
/// storm of reconnects beyond it, a client's SYN is dropped and repeated after one second.
const BACKLOG: i32 = 4096;

/// How long an address may still be held by a previous broker that was killed. The kernel closes
/// the listeners in its rings only after the process is gone.
const PREDECESSOR_PATIENCE: Duration = Duration::from_secs(1);

/// How long to wait before binding is tried again.
const PREDECESSOR_RETRY: Duration = Duration::from_millis(20);

/// What an address is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// AMQP clients.
    Amqp,
    /// Browsers and tools.
    Http,
    /// Prometheus.
    Metrics,
}

impl Purpose {
    /// The name in the banner.
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

/// A bound socket that does not listen yet.
#[derive(Debug)]
pub(crate) struct Bound {
    socket: Socket,
    /// With the port that the kernel chose if port 0 was requested.
    pub(crate) address: SocketAddr,
    pub(crate) purpose: Purpose,
}

/// Binds all addresses of one purpose.
pub(crate) fn bind_all(addresses: &[SocketAddr], purpose: Purpose) -> Result<Vec<Bound>, Failure> {
    addresses.iter().map(|address| bind(*address, purpose)).collect()
}

fn bind(address: SocketAddr, purpose: Purpose) -> Result<Bound, Failure> {
    let failure = |source| listen_failure(address, purpose, source);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
        .map_err(failure)?;
    // A restart must not wait until the last connections of the previous run have timed out.
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
    /// Starts to listen.
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

//! One connection's side of the load, as a value: octets in, octets out, time passed in. What moves
//! the octets is in `driver`; what is moved is here, the same for every driver.

use std::net::TcpStream;
use std::time::Instant;

use crate::fault::Fault;

/// A connection under load, after its topology was declared and its consumers were started.
///
/// ```text
///             receive(chunk, now)              poll_send(now, out)
///   driver ───────────────────────► endpoint ──────────────────────► driver
///             next_due(now): when to poll although nothing came
/// ```
pub(crate) trait Endpoint: Send {
    /// Takes octets from the broker, cut anywhere.
    fn receive(&mut self, chunk: &[u8], now: Instant) -> Result<(), Fault>;

    /// Appends what is to be sent now: whole frames, up to some 128 KiB or one message. It is
    /// called only when all of the last `out` is with the kernel, so that a slow broker holds the
    /// endpoint back.
    fn poll_send(&mut self, now: Instant, out: &mut Vec<u8>) -> Result<(), Fault>;

    /// When [`Endpoint::poll_send`] has something, as far as can be told now: `now` or earlier for
    /// at once, `None` for not before something comes. The driver asks in every turn, as what other
    /// endpoints did may have changed it; an answer in the future is a time to look again.
    fn next_due(&self, now: Instant) -> Option<Instant>;

    /// Whether it neither has to send nor waits for anything. Once true it stays so.
    fn is_done(&self) -> bool;

    /// What it waits for, for the report of a broker that went silent.
    fn awaits(&self) -> &'static str;
}

/// An endpoint and its socket, ready to be driven.
pub(crate) struct Attached<E> {
    /// Connected, blocking, without timeouts.
    pub(crate) stream: TcpStream,
    /// Octets that came before the endpoint took over, to be received first.
    pub(crate) received: Vec<u8>,
    pub(crate) endpoint: E,
}

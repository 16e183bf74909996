//! A minimal HTTP client for the one request of `leveret top`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::http::snapshot::Snapshot;

/// The broker answers within 2 s even if a shard does not.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A response with 1,024 shards and 200 queues, with full histograms, is below 6 MiB.
const RESPONSE_SIZE_MAX_BYTES: u64 = 16 << 20;

/// Requests a snapshot with the `queues` busiest queues. The error is a phrase.
pub(super) fn snapshot(address: SocketAddr, queues: u16) -> Result<Snapshot, String> {
    let response =
        get(address, &format!("/api/top?queues={queues}")).map_err(|error| error.to_string())?;
    parse(&response)
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut response = Vec::new();
    stream.take(RESPONSE_SIZE_MAX_BYTES).read_to_end(&mut response)?;
    Ok(response)
}

fn parse(response: &[u8]) -> Result<Snapshot, String> {
    let end = response
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .ok_or("the answer is not HTTP")?;
    let head = String::from_utf8_lossy(&response[..end]);
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("it answered {}", status.escape_debug()));
    }
    serde_json::from_slice(&response[end + 4..])
        .map_err(|error| format!("the answer is not that of a Leveret broker ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_answers_are_read_and_bad_ones_named() {
        let json = serde_json::to_string(&Snapshot::default()).unwrap();
        let good = format!("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{json}");
        assert_eq!(parse(good.as_bytes()).unwrap(), Snapshot::default());
        let cases: [(&[u8], &str); 4] = [
            (b"", "not HTTP"),
            (b"AMQP\x00\x00\x09\x01", "not HTTP"),
            (b"HTTP/1.0 404 Not Found\r\n\r\n{}", "404 Not Found"),
            (b"HTTP/1.0 200 OK\r\n\r\n{\"node\":1}", "not that of a Leveret broker"),
        ];
        for (response, expected) in cases {
            let reason = parse(response).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        }
    }
}

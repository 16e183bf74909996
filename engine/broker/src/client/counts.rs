//! The counters of the reading halves.

/// Counters of the connections of one shard since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCounts {
    /// Connections accepted.
    pub connections_opened: u64,
    /// Connections closed.
    pub connections_closed: u64,
    /// Connections given up because their handshake took too long.
    pub handshakes_timed_out: u64,
    /// Connections given up because their heartbeats were missing.
    pub heartbeats_missed: u64,
    /// Channels opened.
    pub channels_opened: u64,
    /// Channels closed.
    pub channels_closed: u64,
    /// Messages received from publishers.
    pub published: u64,
    /// Body bytes of received messages.
    pub published_bytes: u64,
    /// Messages that reached no queue and were dropped.
    pub unroutable_dropped: u64,
    /// Messages that reached no queue and were returned.
    pub unroutable_returned: u64,
    /// Messages for `basic.get` with `no_ack`.
    pub got_auto_ack: u64,
    /// Messages for `basic.get` that the client has to acknowledge.
    pub got_manual_ack: u64,
    /// Deliveries that were acknowledged.
    pub acknowledged: u64,
}

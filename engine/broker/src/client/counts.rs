//! What the reading halves count.

/// Counters of the connections of one shard since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientCounts {
    /// Connections accepted.
    pub connections_opened: u64,
    /// Connections closed.
    pub connections_closed: u64,
    /// Connections given up because their handshake took too long.
    pub handshakes_timed_out: u64,
    /// Connections given up because their heartbeats stayed out.
    pub heartbeats_missed: u64,
    /// Channels opened.
    pub channels_opened: u64,
    /// Channels closed.
    pub channels_closed: u64,
    /// Messages received from publishers.
    pub published: u64,
    /// Body bytes of those.
    pub published_bytes: u64,
    /// Messages that reached no queue and were dropped.
    pub unroutable_dropped: u64,
    /// Messages that reached no queue and were returned.
    pub unroutable_returned: u64,
    /// `basic.get` that acknowledge nothing.
    pub got_auto_ack: u64,
    /// `basic.get` to be acknowledged.
    pub got_manual_ack: u64,
    /// Deliveries that were acknowledged.
    pub acknowledged: u64,
}

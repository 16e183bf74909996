//! A message that the floor cannot pass on as it came.

use bytes::Bytes;

/// A message that is not relayed as it came: it was cut by the end of a receive buffer, it is
/// framed differently for its consumer, or it waits.
#[derive(Debug, Clone, Default)]
pub(super) struct Message {
    pub(super) exchange: Vec<u8>,
    pub(super) routing_key: Vec<u8>,
    /// Property flags and values.
    pub(super) properties: Vec<u8>,
    pub(super) parts: Vec<Bytes>,
}

impl Message {
    pub(super) fn size(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    /// Octets it holds while it rests.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>()
            + self.exchange.len()
            + self.routing_key.len()
            + self.properties.len()
            + self.size()
    }

    /// A copy that holds no receive buffers.
    pub(super) fn to_rest(&self) -> Self {
        let body: Vec<u8> = self.parts.concat();
        Self { parts: vec![Bytes::from(body)], ..self.clone() }
    }
}

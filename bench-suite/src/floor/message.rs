//! A message that cannot be forwarded unchanged.

use bytes::Bytes;

/// A message that is not forwarded in its original frames: it was cut by the end of a receive
/// buffer, a consumer needs other frames, or it is stored.
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

    /// Octets of memory while it is stored.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>()
            + self.exchange.len()
            + self.routing_key.len()
            + self.properties.len()
            + self.size()
    }

    /// A copy that does not hold receive buffers.
    pub(super) fn to_rest(&self) -> Self {
        let body: Vec<u8> = self.parts.concat();
        Self { parts: vec![Bytes::from(body)], ..self.clone() }
    }
}

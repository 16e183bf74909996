//! Building the properties of a message.

use super::{Properties, Property};
use crate::table::TableRef;
use crate::wire::Writer;

/// The properties of a message to be written. Strings are cut at 255 octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PropertiesBuilder<'a> {
    /// MIME type of the body.
    pub content_type: Option<&'a [u8]>,
    /// Encoding of the body.
    pub content_encoding: Option<&'a [u8]>,
    /// The headers table.
    pub headers: Option<TableRef<'a>>,
    /// 2 is persistent, 1 transient.
    pub delivery_mode: Option<u8>,
    /// For priority queues.
    pub priority: Option<u8>,
    /// The id by which the client matches a reply to its request.
    pub correlation_id: Option<&'a [u8]>,
    /// The queue for replies.
    pub reply_to: Option<&'a [u8]>,
    /// Time to live in milliseconds, in decimal digits.
    pub expiration: Option<&'a [u8]>,
    /// The application's id of the message.
    pub message_id: Option<&'a [u8]>,
    /// Seconds since 1970-01-01, UTC.
    pub timestamp: Option<u64>,
    /// The application's name of the kind of message (`type`).
    pub kind: Option<&'a [u8]>,
    /// The user who published.
    pub user_id: Option<&'a [u8]>,
    /// The application's own name.
    pub app_id: Option<&'a [u8]>,
    /// Deprecated by the specification.
    pub cluster_id: Option<&'a [u8]>,
}

/// All properties of a received message, for changing some of them.
impl<'a> From<Properties<'a>> for PropertiesBuilder<'a> {
    fn from(from: Properties<'a>) -> Self {
        Self {
            content_type: from.content_type(),
            content_encoding: from.content_encoding(),
            headers: from.headers(),
            delivery_mode: from.delivery_mode(),
            priority: from.priority(),
            correlation_id: from.correlation_id(),
            reply_to: from.reply_to(),
            expiration: from.expiration(),
            message_id: from.message_id(),
            timestamp: from.timestamp(),
            kind: from.kind(),
            user_id: from.user_id(),
            app_id: from.app_id(),
            cluster_id: from.cluster_id(),
        }
    }
}

impl PropertiesBuilder<'_> {
    /// Appends flags and values. Always one word of flags.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.short(self.flags());
        for string in [self.content_type, self.content_encoding].into_iter().flatten() {
            writer.opaque_shortstr(string);
        }
        if let Some(headers) = self.headers {
            writer.table(headers);
        }
        for octet in [self.delivery_mode, self.priority].into_iter().flatten() {
            writer.octet(octet);
        }
        let strings = [self.correlation_id, self.reply_to, self.expiration, self.message_id];
        for string in strings.into_iter().flatten() {
            writer.opaque_shortstr(string);
        }
        if let Some(timestamp) = self.timestamp {
            writer.timestamp(timestamp);
        }
        let strings = [self.kind, self.user_id, self.app_id, self.cluster_id];
        for string in strings.into_iter().flatten() {
            writer.opaque_shortstr(string);
        }
    }

    /// Flags and values.
    pub fn finish(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    fn flags(&self) -> u16 {
        let set = [
            (self.content_type.is_some(), Property::ContentType),
            (self.content_encoding.is_some(), Property::ContentEncoding),
            (self.headers.is_some(), Property::Headers),
            (self.delivery_mode.is_some(), Property::DeliveryMode),
            (self.priority.is_some(), Property::Priority),
            (self.correlation_id.is_some(), Property::CorrelationId),
            (self.reply_to.is_some(), Property::ReplyTo),
            (self.expiration.is_some(), Property::Expiration),
            (self.message_id.is_some(), Property::MessageId),
            (self.timestamp.is_some(), Property::Timestamp),
            (self.kind.is_some(), Property::Kind),
            (self.user_id.is_some(), Property::UserId),
            (self.app_id.is_some(), Property::AppId),
            (self.cluster_id.is_some(), Property::ClusterId),
        ];
        set.into_iter().fold(
            0,
            |flags, (is_set, property)| {
                if is_set { flags | property.flag() } else { flags }
            },
        )
    }
}

//! Bindings by headers: the headers exchange.

use std::sync::Arc;

use leveret_amqp::{TableRef, Value};

use crate::catalog::erlang_term;
use crate::catalog::object::{Binding, Target};
use crate::id::{Map, seeded_map};

/// The headers of one message, sorted by name; of equal names the first comes first.
pub(crate) type SortedHeaders<'a> = [(&'a [u8], Value<'a>)];

/// The bindings of one headers exchange.
///
/// Each is compared with each message, as in `RabbitMQ`: conditions may ask for any value of any
/// header, and real exchanges of this kind have few bindings.
#[derive(Clone, Debug)]
pub(crate) struct HeadersBindings {
    bindings: Vec<(MatchMode, Arc<Binding>)>,
    positions: Map<Arc<Binding>, u32>,
}

/// The `x-match` argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MatchMode {
    /// One true condition is enough.
    any: bool,
    /// Names that start with `x-` are conditions too; `x-match` itself never is.
    with_x: bool,
}

impl HeadersBindings {
    /// No bindings; they hash with `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self { bindings: Vec::new(), positions: seeded_map(seed) }
    }

    /// Adds a binding.
    pub(crate) fn bind(&mut self, binding: &Arc<Binding>) {
        let mode = MatchMode::of(TableRef::trusted(&binding.canonical));
        self.positions.insert(Arc::clone(binding), self.bindings.len() as u32);
        self.bindings.push((mode, Arc::clone(binding)));
    }

    /// Takes a binding away.
    pub(crate) fn unbind(&mut self, binding: &Binding) {
        let Some(position) = self.positions.remove(binding) else {
            return;
        };
        self.bindings.swap_remove(position as usize);
        if let Some((_, moved)) = self.bindings.get(position as usize) {
            self.positions.insert(Arc::clone(moved), position);
        }
    }

    /// Reports the targets of a message with these headers; one may come several times.
    pub(crate) fn route(&self, headers: &SortedHeaders<'_>, found: &mut impl FnMut(Target)) {
        for (mode, binding) in &self.bindings {
            if mode.matches(TableRef::trusted(&binding.canonical), headers) {
                found(binding.target);
            }
        }
    }
}

impl MatchMode {
    fn of(arguments: TableRef<'_>) -> Self {
        let mode = arguments.get("x-match").and_then(|value| value.as_long_str());
        Self {
            any: matches!(mode, Some(b"any" | b"any-with-x")),
            with_x: matches!(mode, Some(b"all-with-x" | b"any-with-x")),
        }
    }

    /// One pass over conditions and headers, both sorted. No condition at all matches everything
    /// in mode `all` and nothing in mode `any`.
    fn matches(self, conditions: TableRef<'_>, headers: &SortedHeaders<'_>) -> bool {
        let mut headers = headers.iter().peekable();
        for (name, expected) in conditions.iter().filter(|(name, _)| self.is_condition(name)) {
            while headers.next_if(|(header, _)| *header < name).is_some() {}
            // Taken from the list: a second condition on the name meets the second such header.
            let met = headers.next_if(|(header, _)| *header == name).is_some_and(|(_, value)| {
                expected == Value::Void || erlang_term::equal(expected, *value)
            });
            if met == self.any {
                return self.any;
            }
        }
        !self.any
    }

    fn is_condition(self, name: &[u8]) -> bool {
        name != b"x-match" && (self.with_x || !name.starts_with(b"x-"))
    }
}

#[cfg(test)]
mod tests {
    use leveret_amqp::{OwnedTable, TableBuilder};

    use super::*;

    fn matches(conditions: TableBuilder, headers: TableBuilder) -> bool {
        let conditions = crate::routing::topology::canonical_arguments(&conditions.finish());
        let headers: OwnedTable = headers.finish();
        let mut sorted: Vec<_> = headers.as_ref().iter().collect();
        sorted.sort_by_key(|(name, _)| *name);
        let conditions = TableRef::trusted(&conditions);
        MatchMode::of(conditions).matches(conditions, &sorted)
    }

    fn table() -> TableBuilder {
        TableBuilder::new()
    }

    #[test]
    fn all_is_the_default() {
        let both = || table().int("a", 1).long_str("b", "x");
        assert!(matches(both(), both().int("c", 3)));
        assert!(matches(both().long_str("x-match", "all"), both()));
        assert!(!matches(both(), table().int("a", 1)));
        assert!(!matches(both(), table().int("a", 1).long_str("b", "y")));
        assert!(matches(table(), table()) && matches(table(), both()));
    }

    #[test]
    fn any_wants_one() {
        let any = || table().long_str("x-match", "any");
        assert!(matches(any().int("a", 1).int("b", 2), table().int("b", 2)));
        assert!(!matches(any().int("a", 1).int("b", 2), table().int("b", 3)));
        assert!(!matches(any(), table()) && !matches(any(), table().int("a", 1)));
    }

    #[test]
    fn names_with_x_count_only_where_asked() {
        let mode = |mode| table().long_str("x-match", mode).int("x-a", 1);
        assert!(matches(mode("all"), table()));
        assert!(!matches(mode("all-with-x"), table()));
        assert!(matches(mode("all-with-x"), table().int("x-a", 1)));
        assert!(!matches(mode("any"), table().int("x-a", 1)));
        assert!(matches(mode("any-with-x"), table().int("x-a", 1)));
        assert!(!matches(mode("any-with-x"), table().long_str("x-match", "any-with-x")));
    }

    #[test]
    fn void_asks_for_presence_and_types_do_not_matter() {
        let present = || table().value("a", Value::Void);
        assert!(matches(present(), table().long_str("a", "whatever")));
        assert!(!matches(present(), table().int("b", 1)));
        assert!(matches(table().int("a", 1), table().value("a", Value::U8(1))));
        assert!(!matches(table().int("a", 1), table().long_str("a", "1")));
    }

    #[test]
    fn order_and_duplicates() {
        let conditions = || table().int("b", 2).int("a", 1);
        assert!(matches(conditions(), table().int("a", 1).int("b", 2)));
        assert!(!matches(table().int("a", 2), table().int("a", 1).int("a", 2)));
        assert!(matches(table().int("a", 1).int("a", 2), table().int("a", 1).int("a", 2)));
    }
}

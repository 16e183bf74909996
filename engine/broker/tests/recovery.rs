//! What recovery costs.

use std::time::{Duration, Instant};

use bytes::Bytes;
use leveret_broker::catalog::name::Name;
use leveret_broker::catalog::object::BindingTarget;
use leveret_broker::control::{BindingDefinition, Control, Definitions, QueueDefinition};

/// Queues, each with a literal and a wildcard binding.
fn definitions(queues: u64) -> Definitions {
    let vhost = Name::from("/");
    let mut definitions = Definitions { next_log_id: queues + 1, ..Definitions::default() };
    for number in 0..queues {
        let name = Name::from(format!("queue-{number}"));
        definitions.queues.push(QueueDefinition {
            vhost: vhost.clone(),
            name: name.clone(),
            log_id: number + 1,
            home: (number % 2) as u16,
            auto_delete: false,
            arguments: Bytes::new(),
        });
        for (source, key) in [("amq.direct", "k"), ("amq.topic", "*.a")] {
            definitions.bindings.push(BindingDefinition {
                vhost: vhost.clone(),
                source: Name::from(source),
                destination: name.clone(),
                target: BindingTarget::Queue,
                key: Bytes::from(format!("{key}.{number}")),
                arguments: Bytes::new(),
            });
        }
    }
    definitions
}

/// The best of three, for others use this machine too.
fn recover(queues: u64) -> Duration {
    let once = || {
        let definitions = definitions(queues);
        let start = Instant::now();
        let (control, rejected) = Control::recover(definitions, 2, 1);
        let spent = start.elapsed();
        assert_eq!(rejected, []);
        assert_eq!(control.topology().queues().count() as u64, queues);
        assert_eq!(control.binding_count() as u64, 2 * queues);
        spent
    };
    (0..3).map(|_| once()).min().unwrap_or_default()
}

/// Sixteen times as many objects may fall out of the caches, and no more: a cost that grew with
/// what exists would be 256 times as high.
#[test]
fn an_object_costs_the_same_however_many_there_are() {
    let (few, many) = (recover(2_000), recover(32_000));
    let ratio = many.as_secs_f64() / few.as_secs_f64();
    assert!(ratio < 16.0 * 6.0, "16 times as much took {ratio:.1} times as long");
}

use std::collections::{BTreeMap, BTreeSet};

use leveret_amqp::{Properties, TableRef};

use super::*;

const EXCHANGES: [Exchange; 5] =
    [Exchange::Default, Exchange::Fanout, Exchange::Direct, Exchange::Topic, Exchange::Headers];

/// Three queues, two publishers, and more than one key wherever there can be.
fn flow(exchange: Exchange) -> Flow {
    let mut flow = Flow { exchange, queues: 3, consumers: 2, publishers: 2, ..Flow::default() };
    if exchange != Exchange::Default {
        flow.keys_per_queue = 4;
    }
    if bindings_needed(&flow) == 12 {
        flow.bindings = 50;
    }
    check(&flow).unwrap();
    flow
}

/// Whether a binding key with `*` and `#` matches a routing key.
fn topic_matches(pattern: &[&str], key: &[&str]) -> bool {
    match (pattern.split_first(), key.split_first()) {
        (None, _) => key.is_empty(),
        (Some((&"#", rest)), _) => (0..=key.len()).any(|skip| topic_matches(rest, &key[skip..])),
        (Some((word, rest)), Some((first, others))) => {
            (*word == "*" || word == first) && topic_matches(rest, others)
        }
        (Some(_), None) => false,
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split('.').collect()
}

fn headers_match(binding: &Binding, route: &Route) -> bool {
    let properties = Properties::parse(&route.properties).unwrap();
    let (asked, given) = (binding.arguments.as_ref(), properties.headers().unwrap());
    let text = |table: TableRef<'_>, name: &str| {
        table.get(name).and_then(|value| value.as_long_str().map(<[u8]>::to_vec))
    };
    assert_eq!(text(asked, "x-match").unwrap(), b"all");
    ["region", "account"].iter().all(|name| {
        let value = text(asked, name);
        assert!(value.is_some(), "{name} is asked for");
        value == text(given, name)
    })
}

/// The queues that a publish reaches, repeated if several bindings match.
fn reached(topology: &Topology, route: &Route) -> Vec<String> {
    assert_eq!(route.exchange, topology.exchange());
    if topology.flow.exchange == Exchange::Default {
        return vec![route.routing_key.clone()];
    }
    let matches = |binding: &Binding| match topology.flow.exchange {
        Exchange::Default => false,
        Exchange::Fanout => true,
        Exchange::Direct => binding.routing_key == route.routing_key,
        Exchange::Topic => topic_matches(&words(&binding.routing_key), &words(&route.routing_key)),
        Exchange::Headers => headers_match(binding, route),
    };
    topology.bindings().filter(matches).map(|binding| binding.queue).collect()
}

#[test]
fn each_stream_goes_through_the_queues_whose_lanes_have_it() {
    for exchange in EXCHANGES {
        let flow = flow(exchange);
        let topology = Topology::new(&flow, 70);
        let mut streams = BTreeSet::new();
        for route in (0..2).flat_map(|publisher| topology.routes(publisher)) {
            assert!(streams.insert(route.stream), "{exchange:?}: {} twice", route.stream);
            let lanes = (0..2).flat_map(|consumer| topology.lanes(consumer));
            let expected: BTreeSet<String> = lanes
                .filter(|(_, streams)| streams.contains(&route.stream))
                .map(|(queue, _)| topology.queue(u32::from(queue)))
                .collect();
            let reached = reached(&topology, &route);
            assert_eq!(reached.len() as u64, copies(&flow), "{exchange:?}: {route:?}");
            assert_eq!(BTreeSet::from_iter(reached), expected, "{exchange:?}: {route:?}");
        }
        let all: BTreeSet<u32> = (70..70 + streams_of(&flow)).collect();
        assert_eq!(streams, all, "{exchange:?}");
    }
}

#[test]
fn streams_are_numbered_as_documented() {
    let topology = Topology::new(&flow(Exchange::Direct), 1000);
    for publisher in 0..2 {
        for (index, route) in topology.routes(publisher).iter().enumerate() {
            // Alternating between the queues.
            let (queue, key) = (index as u32 % 3, index as u32 / 3);
            assert_eq!(route.stream, 1000 + (queue * 4 + key) * 2 + u32::from(publisher));
            assert_eq!(reached(&topology, route), [topology.queue(queue)]);
        }
    }
    let fan_out = Topology::new(&flow(Exchange::Fanout), 1000);
    let streams: Vec<u32> = fan_out.routes(1).iter().map(|route| route.stream).collect();
    assert_eq!(streams, [1001]);
    assert_eq!(fan_out.lanes(0), [(0, 1000..1002), (2, 1000..1002)]);
}

#[test]
fn queues_are_dealt_in_turn_or_shared() {
    let mut flow = flow(Exchange::Default);
    let queues = |flow: &Flow, consumer| -> Vec<u16> {
        Topology::new(flow, 0).lanes(consumer).into_iter().map(|(queue, _)| queue).collect()
    };
    assert_eq!((queues(&flow, 0), queues(&flow, 1)), (vec![0, 2], vec![1]));
    (flow.shared, flow.consumers) = (true, 5);
    check(&flow).unwrap();
    assert!((0..5).all(|consumer| queues(&flow, consumer) == [0, 1, 2]));
    assert_eq!((consumer_tag(0), consumer_tag(65_534)), ("0000".into(), "fffe".into()));
}

#[test]
fn publishes_of_a_scenario_are_equally_long() {
    for exchange in EXCHANGES {
        let flow = Flow { queues: 1200, durable: true, persistent: true, ..flow(exchange) };
        let routes = Topology::new(&Flow { bindings: 0, ..flow }, 7).routes(0);
        let sizes: BTreeSet<_> = routes
            .iter()
            .map(|route| (route.exchange.len(), route.routing_key.len(), route.properties.len()))
            .collect();
        assert_eq!(sizes.len(), 1, "{exchange:?}: {sizes:?}");
        for route in &routes {
            assert!(Properties::parse(&route.properties).unwrap().is_persistent());
        }
    }
    let routes = Topology::new(&flow(Exchange::Direct), 7).routes(0);
    assert!(routes.iter().all(|route| route.properties == [0, 0]));
}

#[test]
fn there_are_as_many_different_bindings_as_asked_for() {
    for exchange in [Exchange::Direct, Exchange::Topic, Exchange::Headers] {
        let topology = Topology::new(&flow(exchange), 0);
        let mut per_queue = BTreeMap::<String, u32>::new();
        let bindings: Vec<Binding> = topology.bindings().collect();
        for (index, binding) in bindings.iter().enumerate() {
            assert!(!bindings[..index].contains(binding), "{binding:?} twice");
            *per_queue.entry(binding.queue.clone()).or_default() += 1;
        }
        assert_eq!(bindings.len(), 50, "{exchange:?}");
        assert_eq!(per_queue.len(), 3);
        assert!(per_queue.values().all(|&count| count >= 16), "{per_queue:?}");
    }
}

#[test]
fn runs_do_not_share_names() {
    let flow = flow(Exchange::Topic);
    let (one, other) = (Topology::new(&flow, 0), Topology::new(&flow, 24));
    assert!(one.queues().iter().all(|queue| !other.queues().contains(queue)));
    assert_ne!(one.exchange(), other.exchange());
    assert!(one.queue(0).starts_with(&format!("leveret-bench.{}.", std::process::id())));
}

#[test]
fn numbers_and_texts_are_told_apart_in_arguments() {
    let arguments = [("x-max-length", "10"), ("x-queue-type", "quorum")];
    let arguments = arguments.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let expected = TableBuilder::new().long("x-max-length", 10).long_str("x-queue-type", "quorum");
    assert_eq!(string_table(&arguments), expected.finish());
}

#[test]
fn flows_that_cannot_be_are_explained() {
    let quorum = [("x-queue-type".to_owned(), "quorum".to_owned())];
    let base = Flow::default;
    let wrong = [
        (Flow { body_bytes: 15, ..base() }, "body_bytes"),
        (Flow { body_bytes: (16 << 20) + 1, ..base() }, "body_bytes"),
        (Flow { publishers: 0, ..base() }, "publishers"),
        (Flow { queues: 0, ..base() }, "queues"),
        (Flow { consumers: 0, ..base() }, "consumers"),
        (Flow { keys_per_queue: 0, exchange: Exchange::Direct, ..base() }, "keys_per_queue"),
        (Flow { queues: 65_536, ..base() }, "65535"),
        (Flow { consumers: 2, ..base() }, "shared"),
        (Flow { queues: 60_000, publishers: 20, ..base() }, "streams"),
        (Flow { keys_per_queue: 2, ..base() }, "direct"),
        (Flow { bindings: 1, ..base() }, "default exchange"),
        (Flow { exchange: Exchange::Fanout, queues: 2, bindings: 3, ..base() }, "fan-out"),
        (Flow { exchange: Exchange::Topic, queues: 2, bindings: 1, ..base() }, "need 2"),
        (Flow { exchange: Exchange::Topic, bindings: 10_000_000, ..base() }, "bindings"),
        (Flow { ack_every: 2, ..base() }, "prefetch"),
        (Flow { ack_every: 0, prefetch: 4, ..base() }, "divide"),
        (Flow { ack_every: 3, prefetch: 4, ..base() }, "divide"),
        (Flow { work_us: 1, ..base() }, "work_us"),
        (Flow { confirm_window: 1, under_way_max: 1, ..base() }, "under way"),
        (Flow { rate_per_s: -1.0, ..base() }, "rate_per_s"),
        (Flow { rate_per_s: f64::NAN, ..base() }, "rate_per_s"),
        (Flow { rate_end_per_s: 5.0, ..base() }, "rate_end_per_s"),
        (Flow { seconds: f64::INFINITY, ..base() }, "seconds"),
        (Flow { persistent: true, ..base() }, "durable"),
        (Flow { queue_arguments: quorum.into(), ..base() }, "durable"),
    ];
    for (flow, part) in wrong {
        let refusal = check(&flow).unwrap_err().to_string();
        assert!(refusal.contains(part), "{flow:?}: {refusal}");
    }
    let largest = Flow {
        body_bytes: 16 << 20,
        queues: 65_535,
        durable: true,
        persistent: true,
        prefetch: 100,
        ack_every: 50,
        confirm_window: 10,
        rate_per_s: 1.0,
        rate_end_per_s: 2.0,
        ..base()
    };
    assert!(check(&largest).is_ok());
}

#[test]
fn harmless_bindings_change_nothing_and_differ() {
    let topology = Topology::new(&flow(Exchange::Topic), 0);
    // 12 keys have 16 patterns each, and as many numbers match nothing.
    let harmless: Vec<Binding> = (0..2 * 12 * 16).map(|n| topology.harmless_binding(n)).collect();
    let mut seen: BTreeSet<(String, String)> =
        topology.bindings().map(|binding| (binding.queue, binding.routing_key)).collect();
    for (number, binding) in harmless.iter().enumerate() {
        let key = (binding.queue.clone(), binding.routing_key.clone());
        assert!(seen.insert(key), "{binding:?} twice");
        let matched: Vec<Route> = topology
            .routes(0)
            .into_iter()
            .filter(|route| topic_matches(&words(&binding.routing_key), &words(&route.routing_key)))
            .collect();
        assert_eq!(matched.len(), usize::from(number % 2 == 0), "{binding:?}");
        for route in matched {
            assert_eq!(reached(&topology, &route), std::slice::from_ref(&binding.queue));
        }
    }
}

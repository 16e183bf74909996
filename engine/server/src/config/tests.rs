use super::*;

fn parse(text: &str) -> Config {
    Config::from_toml(text).unwrap()
}

fn refusal(text: &str) -> String {
    match Config::from_toml(text) {
        Err(reason) => reason,
        Ok(config) => config.validate().unwrap_err().to_string(),
    }
}

#[test]
fn an_empty_file_is_the_default() {
    let config = parse("");
    assert_eq!(config, Config::default());
    config.validate().unwrap();
    assert_eq!(config.listen.to_vec(), ["127.0.0.1:5672".parse().unwrap()]);
    assert_eq!(config.http.to_vec(), ["127.0.0.1:15672".parse().unwrap()]);
    assert_eq!(config.metrics.to_vec(), ["127.0.0.1:15692".parse().unwrap()]);
    assert_eq!(config.data_dir, Path::new("leveret-data"));
}

#[test]
fn the_defaults_are_those_of_the_broker() {
    assert_eq!(Config::default().settings("alpha"), Settings::for_host("alpha"));
    let ring = RingConfig::default();
    let ours = Config::default().ring(1, 4_095);
    assert_eq!(ours, ring, "65 KiB buffers and 4,096 sockets");
}

#[test]
fn every_value_reaches_its_place() {
    let config = parse(
        "listen = ['0.0.0.0:1', '[::1]:2']\nhttp = '127.0.0.1:3'\nmetrics = 'none'\n\
         data_dir = '/x'\nshards = 3\nconnections_max = 7\nheartbeat_s = 1\n\
         handshake_timeout_ms = 200\nframe_max_bytes = 8192\nchannel_max = 9\n\
         message_size_max_bytes = 10\noutbox_high_bytes = 65536\noutbox_low_bytes = 12\n\
         receive_buffers = 8\nreceive_buffer_bytes = 4096\nmesh_lane_batches = 16\nspin_us = 17\n\
         product = 'RabbitMQ'\nversion = '3.13.7'\ncluster_name = 'c'\nlog = 'warn,leveret=debug'",
    );
    config.validate().unwrap();
    assert_eq!((config.listen.len(), config.http.len(), config.metrics.len()), (2, 1, 0));
    assert_eq!((config.shards, config.spin_us(true), config.spin_us(false)), (Some(3), 17, 17));
    let settings = config.settings("alpha");
    let expected = Settings {
        channel_max: 9,
        frame_size_max: 8192,
        heartbeat_s: 1,
        handshake_timeout_ns: 200_000_000,
        message_size_max_bytes: 10,
        outbox_high_bytes: 65_536,
        outbox_low_bytes: 12,
        receive_buffers_kept_max: 2,
        product: "RabbitMQ".into(),
        version: "3.13.7".into(),
        cluster_name: "c".into(),
        ..Settings::default()
    };
    assert_eq!(settings, expected);
    let ring = config.ring(3, 7);
    assert_eq!((ring.sockets_max, ring.buffer_count, ring.buffer_size_bytes), (4, 8, 4096));
    assert_eq!(config.mesh_lane_batches, 16);
}

#[test]
fn unknown_keys_and_wrong_types_name_line_and_key() {
    let unknown = refusal("shards = 1\nheartbeat = 60");
    assert!(unknown.contains("line 2") && unknown.contains("heartbeat_s"), "{unknown}");
    let wrong = refusal("\nshards = 'two'");
    assert!(wrong.contains("line 2") && wrong.contains("two"), "{wrong}");
    let address = refusal("listen = 'localhost'");
    assert!(address.contains("`localhost` is not ADDR:PORT"), "{address}");
    let table = refusal("listen = 5672");
    assert!(table.contains("ADDR:PORT"), "{table}");
}

#[test]
fn values_outside_of_their_limit_are_refused_with_the_limit() {
    let cases = [
        ("shards = 0", "shards: 0 is not allowed; it must be 1 to 1024"),
        ("frame_max_bytes = 8191", "8192 to 16777216"),
        ("channel_max = 0", "1 to 65535"),
        ("message_size_max_bytes = 536870913", "1 to 536870912"),
        ("receive_buffers = 100", "a power of two, 4 to 32768"),
        ("receive_buffer_bytes = 5000", "a multiple of 4096, 4096 to 16777216"),
        ("listen = []", "1 to 16 addresses"),
        ("http = ['0.0.0.0:1','0.0.0.0:2','0.0.0.0:3','0.0.0.0:4','0.0.0.0:5']", "at most 4"),
        ("product = ''", "1 to 512 bytes"),
        ("outbox_low_bytes = 1048576", "must be less than outbox_high_bytes"),
        ("log = 'a=b=c'", "is not a log filter"),
        ("log = 'loud'", "`loud` is not a level; use off, error, warn, info, debug or trace"),
    ];
    for (text, expected) in cases {
        let reason = refusal(text);
        assert!(reason.contains(expected), "{text}: {reason}");
    }
}

#[test]
fn both_ends_of_every_limit_are_good_for_the_broker_and_the_ring() {
    for text in [
        "heartbeat_s = 0\nhandshake_timeout_ms = 100\nframe_max_bytes = 8192\nchannel_max = 1\n\
         message_size_max_bytes = 1\noutbox_high_bytes = 65536\noutbox_low_bytes = 0\n\
         receive_buffers = 4\nreceive_buffer_bytes = 4096\nconnections_max = 1\nshards = 1024",
        "heartbeat_s = 65535\nhandshake_timeout_ms = 600000\nframe_max_bytes = 16777216\n\
         channel_max = 65535\nmessage_size_max_bytes = 536870912\noutbox_high_bytes = 1073741824\n\
         outbox_low_bytes = 1073741823\nreceive_buffers = 32768\n\
         receive_buffer_bytes = 16777216\nconnections_max = 16000000\nshards = 1",
    ] {
        let config = parse(text);
        config.validate().unwrap();
        let shards = usize::from(config.shards.unwrap());
        config.ring(shards, config.connections_max.unwrap()).validate().unwrap();
    }
}

#[test]
fn the_printed_configuration_reads_back() {
    for text in ["", "shards = 3\nspin_us = 0\nhttp = 'none'\nproduct = 'a \"b\"'\nlog='debug'"] {
        let config = parse(text);
        let printed = config.to_toml();
        assert_eq!(parse(&printed), config, "{printed}");
        for row in config.rows() {
            let commented = format!("# {} =", row.name);
            let set = format!("\n{} = ", row.name);
            assert!(printed.contains(&commented) || printed.contains(&set), "{}", row.name);
            assert!(printed.contains(row.doc) && row.doc.ends_with('.'), "{}", row.name);
        }
    }
}

#[test]
fn the_limit_of_connections_follows_the_limit_of_files() {
    let config = Config::default();
    assert_eq!(config.connections_max(1_024).unwrap(), 768);
    assert_eq!(config.connections_max(10_000_000).unwrap(), 65_536);
    let none = config.connections_max(256).unwrap_err().to_string();
    assert!(none.contains("ulimit -n"), "{none}");
    let wanted = Config { connections_max: Some(1_000), ..Config::default() };
    assert_eq!(wanted.connections_max(1_256).unwrap(), 1_000);
    let error = wanted.connections_max(1_255).unwrap_err().to_string();
    assert!(error.contains("limit of 1256") && error.contains("LimitNOFILE"), "{error}");
}

#[test]
fn shards_that_share_a_core_do_not_spin() {
    assert_eq!(Config::default().spin_us(true), 30);
    assert_eq!(Config::default().spin_us(false), 0);
}

#[test]
fn an_unreadable_file_is_named() {
    let error = Config::from_file(Path::new("/nonexistent/leveret.toml")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/leveret.toml"), "{error}");
}

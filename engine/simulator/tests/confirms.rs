//! Publisher confirms and mandatory returns.

use leveret_amqp::Method;
use leveret_amqp::method::{ConfirmSelect, QueueDeclare};
use leveret_simulator::client::Client;
use leveret_simulator::client::methods::bind_queue;
use leveret_simulator::world::World;

fn in_confirm_mode(world: &mut World) -> Client {
    let mut client = Client::open(world, 0);
    let incoming = client.request(world, 1, &ConfirmSelect { nowait: false });
    assert!(matches!(incoming.method(), Some(Method::ConfirmSelectOk(_))));
    client
}

/// Expands the acks heard into the sequence numbers they cover.
fn covered(client: &mut Client) -> Vec<u64> {
    let mut covered = Vec::new();
    for incoming in client.take() {
        let Some(Method::BasicAck(ack)) = incoming.method() else { panic!("{incoming:?}") };
        if ack.multiple {
            let known = covered.clone();
            covered.extend((1..=ack.delivery_tag).filter(|tag| !known.contains(tag)));
        } else {
            covered.push(ack.delivery_tag);
        }
    }
    covered.sort_unstable();
    covered
}

#[test]
fn every_publish_is_confirmed_once_wherever_its_queues_live() {
    for shards in [1, 3] {
        let mut world = World::calm(shards);
        let mut client = in_confirm_mode(&mut world);
        for queue in ["a", "b", "c", "d", "e"] {
            client.request(&mut world, 1, &QueueDeclare::named(queue));
            client.request(&mut world, 1, &bind_queue(queue, "amq.fanout", ""));
        }
        let ways = [("", "a"), ("amq.fanout", ""), ("", "e"), ("", "nowhere"), ("", "b")];
        for number in 0..100 {
            client.publish(&mut world, 1, ways[number % ways.len()], false, b"x");
        }
        client.settle(&mut world);
        assert_eq!(covered(&mut client), (1..=100).collect::<Vec<_>>());
    }
}

#[test]
fn an_unroutable_mandatory_message_is_returned_before_it_is_confirmed() {
    for shards in [1, 3] {
        let mut world = World::calm(shards);
        let mut client = in_confirm_mode(&mut world);
        client.request(&mut world, 1, &QueueDeclare::named("here"));
        client.publish(&mut world, 1, ("", "here"), true, b"routed");
        client.publish(&mut world, 1, ("", "nowhere"), true, &vec![7; 200_000]);
        client.publish(&mut world, 1, ("", "nowhere"), false, b"dropped");
        client.settle(&mut world);
        let mut returned_before = 0;
        let (mut returns, mut second_acked) = (0, false);
        for incoming in client.take() {
            match incoming.method() {
                Some(Method::BasicReturn(returned)) => {
                    assert_eq!((returned.reply_code, returned.reply_text), (312, "NO_ROUTE"));
                    assert_eq!(incoming.body(), vec![7; 200_000]);
                    returns += 1;
                    returned_before += u32::from(!second_acked);
                }
                Some(Method::BasicAck(ack)) => second_acked |= ack.delivery_tag >= 2,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((returns, returned_before, second_acked), (1, 1, true));
    }
}

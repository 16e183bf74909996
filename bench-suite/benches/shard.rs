//! One message through a whole shard, without a kernel: publish parsed, routed, rendered.
//!
//! Stands for the user-space share of a message's cost. Each iteration feeds one receive buffer
//! full of publishes to the shard and takes the filled outboxes away, as a driver would. The sum of
//! what `codec`, `queue` and routing cost, and what lies between them: if this grows and none of
//! those does, look at the connection and the channel. What the kernel costs comes on top.

#[expect(dead_code, reason = "the examples use the rest of it")]
mod world;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use leveret_amqp::method::{BasicAck, ConfirmSelect};

use crate::world::{Path, World, publishes, work_queue};

fn shard(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shard");
    for size in [16, 256, 1024] {
        let (buffer, count) = publishes(&vec![b'x'; size], "", "work");
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("auto-ack/{size}B"), |bencher| {
            let mut world = World::new(1);
            let (publisher, _) = work_queue(&mut world, true, Path::LOCAL);
            let sent = world.feed(publisher, buffer.clone());
            assert!(sent > size * count as usize, "{sent} bytes for {count} messages");
            bencher.iter(|| world.feed(publisher, buffer.clone()));
        });
        group.bench_function(format!("manual-ack-confirm/{size}B"), |bencher| {
            let mut world = World::new(1);
            let (publisher, consumer) = work_queue(&mut world, false, Path::LOCAL);
            world.say(publisher, &ConfirmSelect { nowait: false });
            let mut tag = 0;
            let mut round = || {
                let sent = world.feed(publisher, buffer.clone());
                tag += count;
                world.say(consumer, &BasicAck { delivery_tag: tag, multiple: true });
                sent
            };
            let sent = round();
            assert!(sent > size * count as usize, "{sent} bytes for {count} messages");
            bencher.iter(round);
        });
    }
    group.finish();
}

criterion_group!(benches, shard);
criterion_main!(benches);

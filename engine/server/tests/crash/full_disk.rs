//! A small file system that is really full. It needs root and loop devices; without them the test
//! says so and checks nothing.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::home::Home;
use crate::ledger::Ledger;
use crate::process::Directory;
use crate::wire::PATIENCE;

const QUEUE: &str = "full";

const SIZE_BYTES: u64 = 160 << 20;

/// Publishers are blocked below the free space that is configured, which is the least allowed.
const OPTIONS: &str = "log_segment_bytes = 1048576\ndisk_free_min_bytes = 16777216\n";

const BODY_SIZE: usize = 60_000;

#[test]
fn a_full_file_system_blocks_publishers_until_it_is_freed() {
    let Some(volume) = Volume::mount() else {
        println!("skipped: no loop-mounted file system here (it needs root and mkfs.ext4)");
        return;
    };
    let home = Home::at(volume.path.join("data"), OPTIONS);
    let mut broker = home.start(1);
    let mut ledger = Ledger::new(QUEUE);
    let (mut publisher, mut consumer) = (home.connect(), home.connect());
    ledger.begin(&mut publisher).unwrap();
    // Twice: by messages, which consumers can take away, and by somebody else's file.
    let deadline = Instant::now() + PATIENCE;
    while !ledger.blocked {
        let sent = (ledger.published() * BODY_SIZE) as u64;
        assert!(sent < 2 * SIZE_BYTES, "{sent} bytes were taken by a volume of {SIZE_BYTES}");
        if ledger.unconfirmed() < 20 {
            ledger.publish(&mut publisher, BODY_SIZE);
        }
        ledger.poll(&mut publisher).expect("the broker lives");
        assert!(Instant::now() < deadline, "neither blocked nor confirmed");
    }
    println!("blocked after {} messages", ledger.published());
    while ledger.blocked || ledger.unconfirmed() > 0 {
        ledger.get(&mut consumer).expect("consumers go on");
        ledger.poll(&mut publisher).expect("the broker lives");
        assert!(Instant::now() < deadline, "consumed, but still blocked");
    }
    for _ in 0..100 {
        ledger.publish(&mut publisher, BODY_SIZE);
    }
    ledger.settle(&mut publisher, 0).expect("the broker lives");
    let ballast = volume.fill();
    for _ in 0..200 {
        ledger.publish(&mut publisher, BODY_SIZE);
        ledger.poll(&mut publisher).expect("the broker lives");
    }
    while ledger.get(&mut consumer).expect("consumers go on") {
        ledger.poll(&mut publisher).expect("the broker lives");
    }
    fs::remove_file(ballast).unwrap();
    ledger.settle(&mut publisher, 0).expect("the broker lives");
    for _ in 0..50 {
        ledger.publish(&mut publisher, BODY_SIZE);
    }
    ledger.settle(&mut publisher, 0).expect("the broker lives");
    broker.kill();
    ledger.next_incarnation();
    let mut broker = home.start(1);
    let report = ledger.drain(&mut home.connect());
    broker.kill();
    drop(volume);
    assert!(report.violations.is_empty(), "{report}");
}

/// An image of ext4 in a file, mounted until dropped.
struct Volume {
    path: PathBuf,
    _directory: Directory,
}

impl Volume {
    fn mount() -> Option<Self> {
        let directory = Directory::new();
        let (image, path) = (directory.0.join("image"), directory.0.join("mounted"));
        fs::create_dir(&path).unwrap();
        File::create(&image).unwrap().set_len(SIZE_BYTES).unwrap();
        let image = image.to_str().unwrap();
        let made = succeeds("mkfs.ext4", &["-q", "-F", "-m", "0", image])
            && succeeds("mount", &["-o", "loop", image, path.to_str().unwrap()]);
        made.then_some(Self { path, _directory: directory })
    }

    /// Writes a file until there is no room.
    fn fill(&self) -> PathBuf {
        let path = self.path.join("ballast");
        let mut file = File::create(&path).unwrap();
        for piece in [1 << 20, 4_096] {
            while file.write_all(&vec![1; piece]).is_ok() && file.sync_data().is_ok() {}
        }
        path
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let path = self.path.to_str().unwrap();
        // A broker that a failed test has left behind may still be ending.
        let unmounted = succeeds("umount", &[path]) || succeeds("umount", &["-l", path]);
        if !unmounted {
            println!("could not unmount {path}");
        }
    }
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

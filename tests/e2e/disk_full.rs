//! No space: new mail is refused in time, what is there stays, and mail is taken again when there is space.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::client::Reply;
use crate::support::text::{digest, message};
use crate::support::{Random, Server, Setup, Sink, wait_until};

const MIB: u64 = 1 << 20;
const DISK: u64 = 96 * MIB;
const RESERVE: u64 = 16 * MIB;

/// A small file system of its own.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        std::fs::create_dir(at).expect("a directory");
        let options = format!("size={DISK},mode=700");
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "ringpost-test"]).arg(at).status();
        assert!(status.expect("mount runs").success(), "root may mount");
        Self(at.to_owned())
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).expect("mounted");
        stat.f_bavail * stat.f_frsize
    }

    /// A file that leaves `left` bytes.
    fn fill(&self, left: u64) {
        let mut file = File::create(self.0.join("balloon")).expect("created");
        let zeros = vec![0; MIB as usize];
        while self.free() > left + MIB {
            file.write_all(&zeros).expect("written");
        }
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("balloon")).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server that the failing test has left behind may still be there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn try_submit(server: &Server, text: &[u8]) -> Reply {
    let mut client = server.client();
    let reply = client.say("MAIL FROM:<a@source.example> BODY=8BITMIME");
    if reply.code != 250 {
        return reply;
    }
    assert_eq!(client.say("RCPT TO:<b@sink.example>").code, 250);
    assert_eq!(client.say("DATA").code, 354);
    client.send(&crate::support::text::stuffed(text));
    client.reply()
}

/// Submits until it is refused for want of space; the keys and sums of what was taken.
fn submit_until_full(server: &Server, name: &str, random: &mut Random) -> Vec<(String, u64)> {
    let mut taken = Vec::new();
    for number in 0..2000 {
        let key = format!("{name}-{number}");
        let text = message(&key, random, 100_000);
        let reply = try_submit(server, &text);
        if reply.code != 250 {
            assert!(reply.starts_with("452 4.3.1"), "{reply:?}");
            return taken;
        }
        taken.push((key, digest(&text)));
    }
    panic!("200 MB fit on a disk of {DISK} bytes");
}

fn wait_until_taken(server: &Server, what: &str) {
    wait_until(what, Duration::from_secs(20), || {
        let mut client = server.client();
        client.say("MAIL FROM:<a@source.example>").code == 250
    });
}

#[test]
fn a_full_disk_loses_nothing_and_is_left_again() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("only root may mount a small disk; the reserve alone is tested below");
        return;
    }
    let mut sink = Sink::closed();
    let setup = Setup::whole(format!(
        "shards 1\nstore {{ segment 4M, spare 1, reserve 16M }}\n{}\
         action \"out\" relay host \"smtp://{}\"\nmatch for any action \"out\"\n",
        crate::support::server::LISTENERS,
        sink.address
    ));
    let disk = SmallDisk::mount(&setup.dir().join("disk"));
    let mut server = setup.state(&disk.0.join("state")).start();
    let mut random = Random::new(17);

    // Somebody else fills the disk, and leaves.
    disk.fill(RESERVE + 12 * MIB);
    let mut taken = submit_until_full(&server, "first", &mut random);
    assert!(!taken.is_empty());
    assert!(disk.free() >= RESERVE / 2, "refused with {} bytes left of a reserve of {RESERVE}", disk.free());
    // What is queued can still be worked on, and a crash now is survived.
    assert_eq!(server.queue().len(), taken.len());
    server.kill9();
    server.start();
    assert_eq!(server.queue().len(), taken.len());
    assert!(try_submit(&server, b"Subject: full\r\n\r\n").starts_with("452 4.3.1"));
    disk.empty();
    wait_until_taken(&server, "mail is taken when others made room");

    // Our own queue fills it, and is delivered.
    taken.extend(submit_until_full(&server, "second", &mut random));
    assert!(disk.free() >= RESERVE / 2, "refused with {} bytes left of a reserve of {RESERVE}", disk.free());
    sink.reopen();
    server.retry();
    let received = sink.wait_for(taken.len(), Duration::from_secs(60));
    for (key, digest) in &taken {
        let one = received.iter().find(|one| one.key.as_ref() == Some(key)).unwrap_or_else(|| panic!("{key} is lost"));
        assert_eq!(one.digest, *digest, "{key} has changed");
    }
    wait_until_taken(&server, "mail is taken when the queue made room");
    let text = message("after", &mut random, 1000);
    assert_eq!(try_submit(&server, &text).code, 250);
    sink.wait_for(received.len() + 1, Duration::from_secs(20));
    server.stop();
    drop(disk);
}

#[test]
fn a_reserve_that_is_not_there_refuses_mail_from_the_start() {
    let setup = Setup::whole(format!(
        "shards 1\nstore {{ segment 4M, spare 1, reserve 900T }}\n{}\
         action \"none\" discard\nmatch for any action \"none\"\n",
        crate::support::server::LISTENERS
    ));
    let mut server = setup.start();
    let reply = try_submit(&server, b"Subject: x\r\n\r\n");
    assert!(reply.starts_with("452 4.3.1"), "{reply:?}");
    // The session goes on, and so does the server.
    assert_eq!(server.client().say("NOOP").code, 250);
    server.stop();
}

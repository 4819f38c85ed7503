//! Ports that nobody uses: below the kernel's ephemeral range, and each given out once by this process.

use std::collections::HashSet;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 11_000;
const COUNT: u16 = 20_000;

static NEXT: AtomicU16 = AtomicU16::new(0);
/// What was given out as an offset plus something: its turn as a number of its own would come later.
static MOVED: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port that is free on both loopback addresses.
pub fn free() -> u16 {
    // Two runs of the tests at the same time begin at different places.
    let start = (std::process::id() as u16 % 40) * (COUNT / 40);
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let four = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let six = TcpListener::bind((Ipv6Addr::LOCALHOST, port));
        let is_moved = MOVED.lock().expect("no panic").as_ref().is_some_and(|moved| moved.contains(&port));
        if four.is_ok() && six.is_ok() && !is_moved {
            return port;
        }
    }
    panic!("no free port");
}

/// An offset that moves each of `ports` to a free one.
pub fn offset_for(ports: &[u16]) -> u16 {
    loop {
        let offset = free();
        let mut moved = MOVED.lock().expect("no panic");
        let moved = moved.get_or_insert_default();
        let is_free = |port: u16| !moved.contains(&port) && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
        if ports.iter().all(|port| is_free(port + offset)) {
            moved.extend(ports.iter().map(|port| port + offset));
            return offset;
        }
    }
}

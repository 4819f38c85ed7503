//! Ports that nobody uses: below the kernel's ephemeral range, and each given out once by this process.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 11_000;
const COUNT: u16 = 20_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that is free on both loopback addresses.
pub fn free() -> u16 {
    // Two runs of the tests at the same time begin at different places.
    let start = (std::process::id() as u16 % 40) * (COUNT / 40);
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let four = TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let six = TcpListener::bind((Ipv6Addr::LOCALHOST, port));
        if four.is_ok() && six.is_ok() {
            return port;
        }
    }
    panic!("no free port");
}

/// An offset that moves each of `ports` to a free one.
pub fn offset_for(ports: &[u16]) -> u16 {
    loop {
        let offset = free();
        if ports.iter().all(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port + offset)).is_ok()) {
            return offset;
        }
    }
}

//! Ports that nobody uses: below the kernel's ephemeral range, and each given out once by this process.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

const FIRST: u16 = 11_000;
const COUNT: u16 = 20_000;
/// From here on the kernel gives ports to connections.
const EPHEMERAL: u16 = 32_768;

static NEXT: AtomicU16 = AtomicU16::new(0);
/// What was given out as an offset plus something: its turn as a number of its own would come later.
static MOVED: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A port that is free on both loopback addresses.
pub fn free() -> u16 {
    // Two runs of the tests at the same time begin at different places.
    let start = (std::process::id() as u16 % 40) * (COUNT / 40);
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let is_moved = MOVED.lock().expect("no panic").as_ref().is_some_and(|moved| moved.contains(&port));
        if is_free(Ipv4Addr::LOCALHOST, port) && is_free(Ipv6Addr::LOCALHOST, port) && !is_moved {
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
        let is_good = |port: u16| port < EPHEMERAL && !moved.contains(&port) && is_free(Ipv4Addr::UNSPECIFIED, port);
        if ports.iter().all(|port| is_good(port + offset)) {
            moved.extend(ports.iter().map(|port| port + offset));
            return offset;
        }
    }
}

/// Whether nobody listens there. It is only bound, not listened on: a process that another test starts at this moment has a
/// copy of the socket until it runs its own program, and one that listened would be in the way of who gets the port.
fn is_free(address: impl Into<IpAddr>, port: u16) -> bool {
    let address = SocketAddr::new(address.into(), port);
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None).expect("a socket");
    sockopt::set_socket_reuseaddr(&socket, true).expect("set");
    bind(&socket, &address).is_ok()
}

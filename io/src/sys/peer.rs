//! Who is at the other end of a local socket, and who sits on a TCP port that we want.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::Path;

/// The process at the other end when the connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process number.
    pub pid: u32,
    /// User number.
    pub uid: u32,
    /// Group number.
    pub gid: u32,
}

/// The peer of a Unix socket (SO_PEERCRED); the kernel vouches for it.
pub fn credentials(socket: impl AsFd) -> io::Result<Credentials> {
    let peer = rustix::net::sockopt::socket_peercred(socket)?;
    let pid = peer.pid.as_raw_nonzero().get() as u32;
    Ok(Credentials { pid, uid: peer.uid.as_raw(), gid: peer.gid.as_raw() })
}

/// The process that listens where `address` cannot be bound, and its name; `None` if nobody does or we may not know.
pub fn port_owner(address: SocketAddr) -> Option<(u32, String)> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let inodes = tables.iter().flat_map(|table| table.lines()).filter_map(|line| listener_inode(line, address));
    let inodes: Vec<String> = inodes.map(|inode| format!("socket:[{inode}]")).collect();
    if inodes.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pid = pids.into_iter().find(|pid| has_socket(*pid, &inodes))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some((pid, name.trim().to_owned()))
}

fn has_socket(pid: u32, sockets: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")) else { return false };
    descriptors.flatten().any(|descriptor| {
        fs::read_link(descriptor.path()).is_ok_and(|to| sockets.iter().any(|socket| to.as_os_str() == socket.as_str()))
    })
}

/// The inode of a listening socket that is in `wanted`'s way, out of a line of `/proc/net/tcp`: columns are slot, local
/// address, remote address, state, queues, timer, retransmits, uid, timeout, inode. proc(5).
fn listener_inode(line: &str, wanted: SocketAddr) -> Option<&str> {
    const LISTEN: &str = "0A";
    let mut columns = line.split_ascii_whitespace();
    let local = columns.nth(1)?;
    let state = columns.nth(1)?;
    let inode = columns.nth(5)?;
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = parse_address(address)?;
    let clash = address == wanted.ip()
        || (address.is_ipv4() == wanted.is_ipv4() && (address.is_unspecified() || wanted.ip().is_unspecified()));
    (state == LISTEN && port == wanted.port() && clash).then_some(inode)
}

/// Words of 32 bits in hexadecimal, each in the machine's own byte order.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (index, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(index * 8)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn finds_ourselves_on_a_port() {
        let _turn = crate::sys::PROC_SELF.lock();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (pid, name) = port_owner(address).expect("our own descriptors are readable");
        assert_eq!(pid, std::process::id());
        assert!(!name.is_empty());
        drop(listener);
        assert_eq!(port_owner(address), None);
    }

    #[test]
    fn reads_lines_of_the_table() {
        let line =
            "   0: 0100007F:09DD 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0";
        if cfg!(target_endian = "little") {
            assert_eq!(listener_inode(line, "127.0.0.1:2525".parse().unwrap()), Some("4711"));
            assert_eq!(listener_inode(line, "0.0.0.0:2525".parse().unwrap()), Some("4711"));
        }
        assert_eq!(listener_inode(line, "127.0.0.1:25".parse().unwrap()), None);
        assert_eq!(listener_inode(&line.replace(" 0A ", " 01 "), "127.0.0.1:2525".parse().unwrap()), None);
        assert_eq!(listener_inode("  sl  local_address rem_address", "127.0.0.1:2525".parse().unwrap()), None);
        assert_eq!(parse_address("00000000000000000000000001000000"), Some(Ipv6Addr::LOCALHOST.into()));
    }

    #[test]
    fn the_kernel_vouches_for_a_peer() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = credentials(&ours).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, rustix::process::getuid().as_raw());
    }
}

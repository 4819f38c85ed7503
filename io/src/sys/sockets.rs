//! Making sockets as the shards need them: glommio's own lack SO_REUSEADDR and a source address.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// A listening socket. `reuse_port`: others of this user may listen there too, one per shard. An IPv6 one takes no IPv4
/// connections, so that `0.0.0.0` and `::` can be had side by side.
pub fn listen_socket(address: SocketAddr, backlog: i32, reuse_port: bool) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// A socket whose connection to `to` is under way (or done): non-blocking, with TCP_NODELAY.
pub fn connecting_socket(to: SocketAddr, source: Option<IpAddr>) -> io::Result<OwnedFd> {
    let kind = Type::STREAM.cloexec().nonblocking();
    let socket = Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = source {
        pick_port_at_connect(&socket)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// A non-blocking connection to a local socket; `WouldBlock` while its server lets as many wait as it wants to.
pub fn unix_socket(path: &Path) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec().nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket.into())
}

/// A listening local socket at a path where nothing is. Who may connect is said by the path's mode.
pub fn listen_unix_socket(path: &Path, backlog: i32) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// Whether it is a local socket.
pub fn is_unix(socket: impl AsFd) -> io::Result<bool> {
    Ok(rustix::net::getsockname(socket)?.address_family() == rustix::net::AddressFamily::UNIX)
}

/// Where a socket is bound.
pub fn local_address(socket: impl AsFd) -> io::Result<SocketAddr> {
    let address = rustix::net::getsockname(socket)?;
    SocketAddr::try_from(address).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "not an IP socket"))
}

/// Without IP_BIND_ADDRESS_NO_PORT a bound source takes a port for itself alone, whatever the destination: 28,000
/// connections in all instead of to each. ip(7).
fn pick_port_at_connect(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and length are those of `on`, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn shards_listen_side_by_side_and_strangers_do_not() {
        let first = listen_socket("127.0.0.1:0".parse().unwrap(), 16, true).expect("any port");
        let address = local_address(&first).unwrap();
        listen_socket(address, 16, true).expect("a second shard");
        let refused = listen_socket(address, 16, false).expect_err("without SO_REUSEPORT");
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn both_families_have_the_same_port() {
        let v6 = match listen_socket("[::]:0".parse().unwrap(), 16, false) {
            Ok(socket) => socket,
            Err(error) => return assert_eq!(error.raw_os_error(), Some(libc::EAFNOSUPPORT), "{error}"),
        };
        let port = local_address(&v6).unwrap().port();
        listen_socket((Ipv4Addr::UNSPECIFIED, port).into(), 16, false).expect("IPV6_V6ONLY leaves it free");
    }

    #[test]
    fn connects_from_the_source_it_is_given() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let source = Ipv4Addr::new(127, 0, 0, 7);
        let socket = connecting_socket(listener.local_addr().unwrap(), Some(source.into())).unwrap();
        let (mut accepted, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), source);
        let mut connected = TcpStream::from(socket);
        connected.set_nonblocking(false).unwrap();
        assert!(connected.nodelay().unwrap());
        accepted.write_all(b"220").unwrap();
        let mut greeting = [0; 3];
        connected.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"220");
    }

    #[test]
    fn a_local_socket_is_there_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert_eq!(unix_socket(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let listener = UnixListener::from(listen_unix_socket(&path, 16).unwrap());
        assert!(is_unix(&listener).unwrap());
        assert_eq!(listen_unix_socket(&path, 16).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        unix_socket(&path).expect("it listens");
        // A backlog is bounded; the kernel lets one more than that wait.
        rustix::net::listen(&listener, 0).unwrap();
        let full = (0..4).map(|_| unix_socket(&path)).collect::<Vec<_>>().pop().expect("four");
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let long = dir.path().join("x".repeat(200));
        assert_eq!(unix_socket(&long).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}

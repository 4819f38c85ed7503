//! Addresses of this machine, by interface: what `listen on eth0` and `listen on egress` mean today. Asked of the kernel
//! over netlink (rtnetlink(7)), once at load.

use std::io;
use std::net::{IpAddr, UdpSocket};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

const RTM_GETADDR: u16 = 22;
const RTM_NEWADDR: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x1 | 0x300;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const HEAD_BYTES: usize = 16;
const ADDRESS_HEAD_BYTES: usize = 8;
/// What the kernel puts into one datagram of a dump.
const DATAGRAM_BYTES: usize = 64 * 1024;

/// Every address, with the number of its interface.
pub fn all() -> io::Result<Vec<(u32, IpAddr)>> {
    let kernel = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let mut request = Vec::with_capacity(HEAD_BYTES + ADDRESS_HEAD_BYTES);
    request.extend_from_slice(&((HEAD_BYTES + ADDRESS_HEAD_BYTES) as u32).to_ne_bytes());
    request.extend_from_slice(&RTM_GETADDR.to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend_from_slice(&[0; 8 + ADDRESS_HEAD_BYTES]);
    sendto(&kernel, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut found = Vec::new();
    let mut buffer = vec![0_u8; DATAGRAM_BYTES];
    loop {
        let (length, _) = recv(&kernel, &mut buffer[..], RecvFlags::empty())?;
        if length == 0 || read(&buffer[..length], &mut found)? {
            return Ok(found);
        }
    }
}

/// Addresses of an interface; `None` if there is no such interface.
pub fn of(name: &str) -> io::Result<Option<Vec<IpAddr>>> {
    if name.contains('/') {
        return Ok(None);
    }
    let Ok(index) = std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")) else { return Ok(None) };
    let index: u32 = index.trim().parse().map_err(io::Error::other)?;
    Ok(Some(all()?.into_iter().filter(|each| each.0 == index).map(|each| each.1).filter(is_usable).collect()))
}

/// Addresses of the interfaces with a default route. Connecting a datagram socket asks the routing table and sends
/// nothing; the addresses are of the documentation's networks.
pub fn egress() -> io::Result<Vec<IpAddr>> {
    let all = all()?;
    let mut found = Vec::new();
    for (from, to) in [("0.0.0.0:0", "192.0.2.1:25"), ("[::]:0", "[2001:db8::1]:25")] {
        let source = UdpSocket::bind(from).and_then(|socket| socket.connect(to).and_then(|()| socket.local_addr()));
        let Ok(source) = source.map(|address| address.ip()) else { continue };
        let Some(&(index, _)) = all.iter().find(|each| each.1 == source) else { continue };
        let family = all.iter().filter(|each| each.0 == index && each.1.is_ipv4() == source.is_ipv4());
        found.extend(family.map(|each| each.1).filter(is_usable));
    }
    Ok(found)
}

/// A link-local address names no place without its interface.
fn is_usable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => true,
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    }
}

/// Reads the messages of one datagram; whether the dump is over.
fn read(mut datagram: &[u8], found: &mut Vec<(u32, IpAddr)>) -> io::Result<bool> {
    while datagram.len() >= HEAD_BYTES {
        let length = number::<4>(datagram, 0).map(u32::from_ne_bytes).unwrap_or(0) as usize;
        let kind = number::<2>(datagram, 4).map(u16::from_ne_bytes).unwrap_or(0);
        if length < HEAD_BYTES || length > datagram.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => return Err(io::Error::other("the kernel refuses to list addresses")),
            RTM_NEWADDR => found.extend(address(&datagram[HEAD_BYTES..length])),
            _ => {}
        }
        datagram = &datagram[length.next_multiple_of(4).min(datagram.len())..];
    }
    Ok(false)
}

/// `struct ifaddrmsg` and its attributes. On a point-to-point link IFA_ADDRESS is the other end's: IFA_LOCAL wins.
fn address(message: &[u8]) -> Option<(u32, IpAddr)> {
    let index = u32::from_ne_bytes(number(message, 4)?);
    let mut attributes = message.get(ADDRESS_HEAD_BYTES..)?;
    let (mut local, mut address) = (None, None);
    while attributes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes(number(attributes, 0)?));
        let value = attributes.get(4..length)?;
        let parsed = match value.len() {
            4 => number::<4>(value, 0).map(IpAddr::from),
            16 => number::<16>(value, 0).map(IpAddr::from),
            _ => None,
        };
        match u16::from_ne_bytes(number(attributes, 2)?) {
            IFA_LOCAL => local = parsed,
            IFA_ADDRESS => address = parsed,
            _ => {}
        }
        attributes = &attributes[length.next_multiple_of(4).min(attributes.len())..];
    }
    Some((index, local.or(address)?))
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_an_interface_and_nonsense_is_not() {
        let addresses = of("lo").unwrap().expect("every Linux has it");
        assert!(addresses.contains(&IpAddr::from([127, 0, 0, 1])), "{addresses:?}");
        assert_eq!(of("no-such-interface").unwrap(), None);
        assert_eq!(of("../lo").unwrap(), None);
        assert!(!egress().unwrap().iter().any(IpAddr::is_loopback));
    }

    #[test]
    fn cut_datagrams_are_errors_or_nothing() {
        let mut message = vec![0_u8; 8];
        message[4] = 3;
        message.extend_from_slice(&[8, 0, 1, 0, 10, 0, 0, 1, 8, 0, 2, 0, 10, 0, 0, 2]);
        if cfg!(target_endian = "little") {
            assert_eq!(address(&message), Some((3, IpAddr::from([10, 0, 0, 2]))));
            assert_eq!(address(&message[..14]), None);
        }
        assert!(read(&[1; 16], &mut Vec::new()).is_err());
    }
}

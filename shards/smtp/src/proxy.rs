//! What a proxy says before the first word of SMTP: whom it speaks for (PROXY protocol, versions 1 and 2). Pure: it is told
//! what has come, and says how much more to read at most, so that nothing behind the header is read with it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::limits::PROXY_BYTES_MAX;

/// Begin of version 2, which is nothing that a client of any protocol would say.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED_BYTES: usize = 16;
/// Begin of version 1, and its longest line.
const WORD: &[u8] = b"PROXY ";
const LINE_BYTES_MAX: usize = 107;
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// What is known of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Read on, at most so many bytes.
    More(usize),
    /// It speaks for this client.
    Client(SocketAddr),
    /// It speaks for itself: a look whether we are there.
    Itself,
    /// It is no header, or tells of no client.
    Wrong(&'static str),
}

/// The header in all that has come so far; with anything but [`Header::More`] that was the whole of it.
pub fn read(got: &[u8]) -> Header {
    let is_begin = |of: &[u8]| got.iter().zip(of).all(|(is, should)| is == should);
    if got.len() < FIXED_BYTES && (is_begin(SIGNATURE) || is_begin(WORD)) {
        return Header::More(FIXED_BYTES - got.len());
    }
    if got.starts_with(SIGNATURE) {
        binary(got)
    } else if got.starts_with(WORD) {
        line(got)
    } else {
        Header::Wrong("no PROXY header")
    }
}

/// Version 2.
fn binary(got: &[u8]) -> Header {
    let (fixed, rest) = got.split_at(FIXED_BYTES);
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if FIXED_BYTES + length > PROXY_BYTES_MAX {
        return Header::Wrong("a PROXY header that is too long");
    }
    if rest.len() < length {
        return Header::More(length - rest.len());
    }
    match (fixed[12], fixed[13]) {
        (LOCAL, _) => Header::Itself,
        (PROXY, TCP4) => match rest {
            [a, b, c, d, _, _, _, _, high, low, _, _, ..] => {
                client(Ipv4Addr::new(*a, *b, *c, *d).into(), u16::from_be_bytes([*high, *low]))
            }
            _ => Header::Wrong("a PROXY header that is too short"),
        },
        (PROXY, TCP6) => match (rest.first_chunk::<16>(), rest.get(32..36)) {
            (Some(address), Some(ports)) => {
                client(Ipv6Addr::from(*address).into(), u16::from_be_bytes([ports[0], ports[1]]))
            }
            _ => Header::Wrong("a PROXY header that is too short"),
        },
        (PROXY, _) => Header::Wrong("a PROXY header without an internet address"),
        _ => Header::Wrong("a PROXY header of an unknown version or command"),
    }
}

/// Version 1: a line, which is read byte by byte once its end may be near.
fn line(got: &[u8]) -> Header {
    let Some(text) = got.strip_suffix(b"\r\n") else {
        return match got.contains(&b'\n') || got.len() >= LINE_BYTES_MAX {
            true => Header::Wrong("a PROXY line that does not end as it must"),
            false => Header::More(1),
        };
    };
    let words: Vec<&[u8]> = text.split(|byte| *byte == b' ').collect();
    let ["PROXY", family @ ("TCP4" | "TCP6"), source, destination, port, other] =
        words.iter().map(|word| str::from_utf8(word).unwrap_or_default()).collect::<Vec<_>>()[..]
    else {
        return Header::Wrong("a PROXY header without an internet address");
    };
    let address = |text: &str| text.parse::<IpAddr>().ok().filter(|address| address.is_ipv4() == (family == "TCP4"));
    match (address(source), address(destination), port.parse(), other.parse::<u16>()) {
        (Some(source), Some(_), Ok(port), Ok(_)) => client(source, port),
        _ => Header::Wrong("a PROXY line that cannot be read"),
    }
}

/// A client that uses IPv4 by way of IPv6 is the one that it is by IPv4.
fn client(address: IpAddr, port: u16) -> Header {
    Header::Client(SocketAddr::new(address.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((rest.len() as u16).to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    /// As it is read from a stream, behind which more may come: the header, and how much of it all it was.
    fn streamed(stream: &[u8], piece: usize) -> (Header, usize) {
        let mut got = 0;
        loop {
            match read(&stream[..got]) {
                Header::More(count) if got == stream.len() => return (Header::More(count), got),
                Header::More(count) => {
                    assert!(count > 0);
                    got = (got + count.min(piece)).min(stream.len());
                }
                known => return (known, got),
            }
        }
    }

    #[test]
    fn clients_of_both_families_in_both_versions_and_not_a_byte_more() {
        let v4 = [192, 0, 2, 7, 127, 0, 0, 1, 0x30, 0x39, 0, 25];
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        (v6[15], v6[32], v6[33]) = (7, 0x30, 0x39);
        let mut mapped = [0; 36];
        mapped[10..16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 7]);
        let with_more = [&v4[..], &[3, 0, 2, b'x', b'y']].concat();
        for (header, expected) in [
            (version2(PROXY, TCP4, &v4), "192.0.2.7:12345"),
            (version2(PROXY, TCP4, &with_more), "192.0.2.7:12345"),
            (version2(PROXY, TCP6, &v6), "[2001:db8::7]:12345"),
            (version2(PROXY, TCP6, &mapped), "192.0.2.7:0"),
            (b"PROXY TCP4 192.0.2.7 127.0.0.1 12345 25\r\n".to_vec(), "192.0.2.7:12345"),
            (b"PROXY TCP6 2001:db8::7 ::1 12345 25\r\n".to_vec(), "[2001:db8::7]:12345"),
        ] {
            let stream = [&header[..], b"EHLO client.example\r\n"].concat();
            for piece in [1, 7, 1000] {
                let client = Header::Client(expected.parse().unwrap());
                assert_eq!(streamed(&stream, piece), (client, header.len()), "{expected}");
            }
        }
        assert_eq!(streamed(&version2(LOCAL, 0, &[]), 1000), (Header::Itself, 16));
        assert_eq!(streamed(&version2(LOCAL, TCP4, &v4), 1000), (Header::Itself, 28));
    }

    #[test]
    fn whoever_does_not_say_who_the_client_is_is_refused() {
        let v4 = [192, 0, 2, 7, 127, 0, 0, 1, 0x30, 0x39, 0, 25];
        for wrong in [
            b"EHLO client.example\r\n".to_vec(),
            b"PROXX TCP4 192.0.2.7 ".to_vec(),
            b"PROXY UNKNOWN\r\nEHLO x\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 127.0.0.1 12345\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::7 ::1 12345 25\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 127.0.0.1 123456 25\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 127.0.0.1 12345 25\n".to_vec(),
            [&b"PROXY TCP4 "[..], &[b' '; 200]].concat(),
            version2(PROXY, 0, &[]),
            version2(PROXY, 0x31, &[0; 216]),
            version2(PROXY, 0x12, &v4),
            version2(PROXY, TCP4, &v4[..11]),
            version2(PROXY, TCP6, &[0; 35]),
            version2(0x22, TCP4, &v4),
            version2(0x31, TCP4, &v4),
            version2(PROXY, TCP4, &[0; PROXY_BYTES_MAX]),
        ] {
            for piece in [1, 1000] {
                let (known, _) = streamed(&wrong, piece);
                assert!(matches!(known, Header::Wrong(_)), "{known:?} of {wrong:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_read_without_end(stream in proptest::collection::vec(any::<u8>(), 0..300), version in 0..3_u8) {
            let begin: &[u8] = [&b""[..], SIGNATURE, WORD][usize::from(version)];
            let stream = [begin, &stream].concat();
            let (known, used) = streamed(&stream, 1000);
            prop_assert_eq!(streamed(&stream, 1).0, known);
            prop_assert!(used <= PROXY_BYTES_MAX);
        }
    }
}

//! Between the directory server and the library that speaks LDAP. The library takes what it gets for well-formed: a broken
//! answer would end this process, and an endless one would fill its memory. So every message is looked at here first, and
//! only what a bind or a search is answered with goes on, without the parts that nobody asked for.

use std::fmt;
use std::io;
use std::path::PathBuf;

use ldap3::StdStream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::super::Surroundings;
use super::super::limits::{LDAP_DEPTH, LDAP_MESSAGE_BYTES};

/// Port of LDAP (RFC 4513 §3.1.4 has the registry's).
const PORT: u16 = 389;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Server {
    /// Host and port.
    Tcp(String, u16),
    /// A socket of this machine.
    Local(PathBuf),
}

/// Whether the first answer on a connection is that to a bind. No other one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// It is.
    Bind,
    /// Nobody logs in.
    Search,
}

impl Server {
    /// `ldap://host`, `ldap://host:port`, `ldapi:///path`.
    pub fn parse(url: &str, surroundings: &Surroundings) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("ldapi://") {
            let path = path.replace("%2f", "/").replace("%2F", "/");
            if !path.starts_with('/') {
                return Err(format!("`{url}` names no socket"));
            }
            return Ok(Self::Local(surroundings.place(path.as_ref())));
        }
        if url.starts_with("ldaps://") {
            return Err("ldaps is not supported: use ldap:// on this machine or a trusted network".into());
        }
        let rest = url.strip_prefix("ldap://").ok_or_else(|| format!("`{url}` is not the URL of an LDAP server"))?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                (host, port.parse().map_err(|_| format!("`{port}` is not a port"))?)
            }
            _ => (rest, PORT),
        };
        let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || host.contains(['/', '?', '@', '[']) {
            return Err(format!("`{url}` names no host"));
        }
        Ok(Self::Tcp(host.to_owned(), port))
    }

    /// Connects, and gives the end that the library gets.
    pub async fn connect(&self, first: First) -> io::Result<StdStream> {
        let (ours, theirs) = UnixStream::pair()?;
        match self {
            Self::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                tokio::spawn(pass(stream, ours, first));
            }
            Self::Local(path) => {
                tokio::spawn(pass(UnixStream::connect(path).await?, ours, first));
            }
        }
        Ok(StdStream::Unix(theirs.into_std()?))
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "ldap://[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "ldap://{host}:{port}"),
            Self::Local(path) => write!(f, "ldapi://{}", path.display()),
        }
    }
}

/// Passes bytes on until one end closes or the server says what is not LDAP; then both ends are closed, and whoever waits
/// for an answer hears that the connection is lost.
async fn pass(server: impl AsyncRead + AsyncWrite, ours: UnixStream, first: First) {
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let (mut from_us, mut to_us) = ours.into_split();
    tokio::select! {
        // How it ended does not matter: it has.
        _ = tokio::io::copy(&mut from_us, &mut to_server) => {}
        _ = pass_answers(&mut from_server, &mut to_us, first) => {}
    }
}

async fn pass_answers(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    mut first: First,
) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(4096);
    loop {
        while let Some(length) = message_length(&buffer).map_err(io::Error::other)? {
            if buffer.len() < length {
                break;
            }
            let clean = clean(&buffer[..length], first).map_err(io::Error::other)?;
            first = First::Search;
            buffer.drain(..length);
            to.write_all(&clean).await?;
        }
        if from.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// What makes a message one that is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an LDAP answer: {0}")]
struct Broken(&'static str);

mod tag {
    pub const INTEGER: u8 = 0x02;
    pub const OCTETS: u8 = 0x04;
    pub const ENUMERATED: u8 = 0x0a;
    pub const SEQUENCE: u8 = 0x30;
    /// Answers (RFC 4511 §4.2.2, §4.5.2); all of them are of the application's class, and constructed.
    pub const BIND: u8 = 0x61;
    pub const ENTRY: u8 = 0x64;
    pub const DONE: u8 = 0x65;
    pub const REFERENCE: u8 = 0x73;
    pub const EXTENDED: u8 = 0x78;
    pub const INTERMEDIATE: u8 = 0x79;
    /// The bit of tags that have parts.
    pub const CONSTRUCTED: u8 = 0x20;
}

/// Bytes of the message at the beginning of a buffer; `None` if that cannot be told yet.
fn message_length(buffer: &[u8]) -> Result<Option<usize>, Broken> {
    match buffer.first() {
        None => return Ok(None),
        Some(&tag::SEQUENCE) => {}
        Some(_) => return Err(Broken("it is not a sequence")),
    }
    match length(&buffer[1..])? {
        Some((head, body)) if 1 + head + body <= LDAP_MESSAGE_BYTES => Ok(Some(1 + head + body)),
        Some(_) => Err(Broken("it is too large")),
        None => Ok(None),
    }
}

/// A definite length (RFC 4511 §5.1): how many bytes it takes, and its value.
fn length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Broken> {
    match bytes.first() {
        None => Ok(None),
        Some(&short) if short < 0x80 => Ok(Some((1, short.into()))),
        Some(&long) => {
            let count = usize::from(long & 0x7f);
            if count == 0 || count > 4 {
                return Err(Broken("a length that is indefinite or too large"));
            }
            let digits = bytes.get(1..1 + count);
            Ok(digits.map(|digits| (1 + count, digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)))))
        }
    }
}

/// Tag, content, and what follows.
fn element(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), Broken> {
    let (&tag, rest) = bytes.split_first().ok_or(Broken("a part is missing"))?;
    if tag & 0x1f == 0x1f {
        return Err(Broken("an unknown kind of tag"));
    }
    let (head, body) = length(rest)?.ok_or(Broken("it is cut off"))?;
    let content = rest.get(head..head + body).ok_or(Broken("it is cut off"))?;
    Ok((tag, content, &rest[head + body..]))
}

fn expect(bytes: &[u8], wanted: u8) -> Result<(&[u8], &[u8]), Broken> {
    match element(bytes)? {
        (tag, content, rest) if tag == wanted => Ok((content, rest)),
        _ => Err(Broken("a part is of the wrong kind")),
    }
}

fn well_formed(mut bytes: &[u8], depth: usize) -> Result<(), Broken> {
    if depth == 0 {
        return Err(Broken("it is nested too deep"));
    }
    while !bytes.is_empty() {
        let (tag, content, rest) = element(bytes)?;
        if tag & tag::CONSTRUCTED != 0 {
            well_formed(content, depth - 1)?;
        }
        bytes = rest;
    }
    Ok(())
}

/// A message as it may go on; empty if it is of no concern.
fn clean(message: &[u8], first: First) -> Result<Vec<u8>, Broken> {
    let (content, _) = expect(message, tag::SEQUENCE)?;
    let (id, rest) = expect(content, tag::INTEGER)?;
    if id.is_empty() || id.len() > 4 {
        return Err(Broken("the number of the message"));
    }
    // Controls may follow. None was asked for.
    let (kind, body, _) = element(rest)?;
    let body = match (kind, first) {
        (tag::BIND, First::Bind) | (tag::DONE, First::Search) => outcome(body)?,
        (tag::ENTRY, First::Search) => {
            well_formed(body, LDAP_DEPTH)?;
            body.to_vec()
        }
        // Nobody follows it, but a search of which a part is elsewhere must not look empty.
        (tag::REFERENCE, First::Search) => {
            let (url, _) = expect(body, tag::OCTETS)?;
            let mut first = Vec::with_capacity(url.len() + 8);
            put(tag::OCTETS, String::from_utf8_lossy(url).as_bytes(), &mut first);
            first
        }
        (tag::INTERMEDIATE, First::Search) => return Ok(Vec::new()),
        (tag::EXTENDED, _) => return Err(Broken("the server says that it disconnects")),
        _ => return Err(Broken("an answer to something that was not asked")),
    };
    let mut inner = Vec::with_capacity(message.len());
    put(tag::INTEGER, id, &mut inner);
    put(kind, &body, &mut inner);
    let mut whole = Vec::with_capacity(inner.len() + 8);
    put(tag::SEQUENCE, &inner, &mut whole);
    Ok(whole)
}

/// Code, matched name and text of a result; referrals and the like are left out.
fn outcome(body: &[u8]) -> Result<Vec<u8>, Broken> {
    let (code, rest) = expect(body, tag::ENUMERATED)?;
    if code.is_empty() || code.len() > 4 {
        return Err(Broken("the code of a result"));
    }
    let (matched, rest) = expect(rest, tag::OCTETS)?;
    let (text, _) = expect(rest, tag::OCTETS)?;
    let mut out = Vec::with_capacity(body.len());
    put(tag::ENUMERATED, code, &mut out);
    for text in [matched, text] {
        put(tag::OCTETS, String::from_utf8_lossy(text).as_bytes(), &mut out);
    }
    Ok(out)
}

fn put(tag: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    let digits = content.len().to_be_bytes();
    match content.len() {
        short @ 0..0x80 => out.push(short as u8),
        long => {
            let count = (usize::BITS - long.leading_zeros()).div_ceil(8) as usize;
            out.push(0x80 | count as u8);
            out.extend_from_slice(&digits[digits.len() - count..]);
        }
    }
    out.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn message(op: u8, body: &[u8], after: &[u8]) -> Vec<u8> {
        let (mut inner, mut whole) = (Vec::new(), Vec::new());
        put(tag::INTEGER, &[1], &mut inner);
        put(op, body, &mut inner);
        inner.extend_from_slice(after);
        put(tag::SEQUENCE, &inner, &mut whole);
        whole
    }

    fn result(parts: &[(u8, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        parts.iter().for_each(|(tag, content)| put(*tag, content, &mut body));
        body
    }

    const DONE: [(u8, &[u8]); 3] = [(tag::ENUMERATED, &[0]), (tag::OCTETS, b""), (tag::OCTETS, b"")];

    #[test]
    fn what_is_asked_for_passes_and_what_is_not_is_left_out() {
        let plain = message(tag::DONE, &result(&DONE), b"");
        assert_eq!(clean(&plain, First::Search).unwrap(), plain);
        // Referral and controls go; a text that is not UTF-8 is mended.
        let with = result(&[&DONE[..2], &[(tag::OCTETS, b"\xff"), (0xa3, b"\x04\x01x")]].concat());
        let mended = result(&[&DONE[..2], &[(tag::OCTETS, "\u{fffd}".as_bytes())]].concat());
        assert_eq!(
            clean(&message(tag::DONE, &with, &[0xa0, 0x02, 0xff, 0xff]), First::Search).unwrap(),
            message(tag::DONE, &mended, b"")
        );
        let elsewhere = result(&[(tag::OCTETS, b"ldap://a/"), (tag::OCTETS, b"ldap://b/")]);
        assert_eq!(
            clean(&message(tag::REFERENCE, &elsewhere, b""), First::Search).unwrap(),
            message(tag::REFERENCE, &result(&[(tag::OCTETS, b"ldap://a/")]), b"")
        );
        assert!(clean(&message(tag::REFERENCE, b"\xff", b""), First::Search).is_err());
        assert_eq!(clean(&message(tag::INTERMEDIATE, b"\xff", b""), First::Search).unwrap(), b"");
        let long = vec![b'x'; 70_000];
        let entry = message(tag::ENTRY, &result(&[(tag::OCTETS, &long)]), b"");
        assert_eq!(clean(&entry, First::Search).unwrap(), entry);
        let bind = message(tag::BIND, &result(&DONE), b"");
        assert_eq!(clean(&bind, First::Bind).unwrap(), bind);
    }

    #[test]
    fn what_the_library_would_stumble_over_does_not_pass() {
        let deep = (0..40).fold(Vec::new(), |inner, _| result(&[(tag::SEQUENCE, &inner)]));
        let cases: [(Vec<u8>, First); 13] = [
            (message(tag::BIND, &result(&DONE), b""), First::Search),
            (message(tag::DONE, &result(&DONE), b""), First::Bind),
            (message(tag::DONE, &result(&DONE[..2]), b""), First::Search),
            (message(tag::DONE, &result(&DONE[1..]), b""), First::Search),
            (message(tag::DONE, b"", b""), First::Search),
            (message(tag::ENTRY, &deep, b""), First::Search),
            (message(tag::ENTRY, b"\x04\x7fx", b""), First::Search),
            (message(tag::ENTRY, b"\x30\x80\x00\x00", b""), First::Search),
            (message(tag::ENTRY, b"\x1f\x01\x00", b""), First::Search),
            (message(tag::EXTENDED, &result(&DONE), b""), First::Search),
            (message(0x67, &result(&DONE), b""), First::Search),
            (vec![0x30, 0x00], First::Search),
            (vec![0x30, 0x03, 0x02, 0x01, 0x01], First::Search),
        ];
        for (bytes, first) in cases {
            assert!(clean(&bytes, first).is_err(), "{bytes:02x?}");
        }
        assert!(message_length(b"HTTP/1.1 400").is_err());
        assert!(message_length(&[0x30, 0x84, 0x7f, 0xff, 0xff, 0xff]).is_err(), "two gigabytes");
        assert!(message_length(&[0x30, 0x80]).is_err());
        assert_eq!(message_length(&[0x30, 0x82, 0x01]), Ok(None));
        assert_eq!(message_length(&[0x30, 0x82, 0x01, 0x00]), Ok(Some(260)));
    }

    #[test]
    fn servers_are_named_by_urls() {
        let surroundings = Surroundings { root: Some("/r".into()), events: Arc::new(|_| {}), users: None };
        for (url, shown) in [
            ("ldap://127.0.0.1", "ldap://127.0.0.1:389"),
            ("ldap://a.example:1389/", "ldap://a.example:1389"),
            ("ldap://[::1]", "ldap://[::1]:389"),
            ("ldap://[::1]:40", "ldap://[::1]:40"),
            ("ldapi:///run/slapd", "ldapi:///r/run/slapd"),
            ("ldapi://%2Frun%2fslapd", "ldapi:///r/run/slapd"),
        ] {
            assert_eq!(Server::parse(url, &surroundings).map(|server| server.to_string()), Ok(shown.to_owned()));
        }
        for (url, expected) in [
            ("ldaps://a", "ldaps is not supported"),
            ("http://a", "is not the URL of an LDAP server"),
            ("ldap://", "names no host"),
            ("ldap://a/dc=x", "names no host"),
            ("ldap://a:99999", "is not a port"),
            ("ldapi://run", "names no socket"),
        ] {
            let error = Server::parse(url, &surroundings).unwrap_err();
            assert!(error.contains(expected), "{url}: {error}");
        }
    }
}

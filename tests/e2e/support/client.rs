//! A blocking SMTP client that says exactly what a test tells it to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use super::text::stuffed;

/// A test never waits longer for a reply.
const PATIENCE: Duration = Duration::from_secs(30);

/// A reply, its lines without code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    pub lines: Vec<String>,
}

impl Reply {
    /// `550 5.6.11`-like begin of the reply.
    pub fn starts_with(&self, start: &str) -> bool {
        format!("{} {}", self.code, self.lines[0]).starts_with(start)
    }
}

/// One connection.
pub struct Client {
    input: BufReader<TcpStream>,
    output: TcpStream,
}

impl Client {
    /// Connects; nothing is read yet.
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    /// As [`Client::connect`], for a server that may be down.
    pub fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let output = TcpStream::connect_timeout(&address, PATIENCE)?;
        output.set_nodelay(true)?;
        output.set_read_timeout(Some(PATIENCE))?;
        output.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { input: BufReader::new(output.try_clone()?), output })
    }

    /// Connected, greeted, EHLO said.
    pub fn ready(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        client.expect("220");
        assert_eq!(client.say("EHLO client.example").code, 250);
        client
    }

    /// The same, from one of the many addresses of the loopback interface.
    pub fn ready_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&socket, &SocketAddr::from((source, 0))).expect("an address of ours");
        connect(&socket, &address).expect("it listens");
        let output = TcpStream::from(socket);
        output.set_nodelay(true).expect("TCP");
        output.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let mut client = Self { input: BufReader::new(output.try_clone().expect("a descriptor")), output };
        client.expect("220");
        assert_eq!(client.say("EHLO client.example").code, 250);
        client
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the server takes what we send");
    }

    /// As [`Client::send`], for a server that may die meanwhile.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.output.write_all(bytes)
    }

    /// Sends a command and reads its reply.
    pub fn say(&mut self, command: &str) -> Reply {
        self.send(format!("{command}\r\n").as_bytes());
        self.reply()
    }

    /// The next reply.
    pub fn reply(&mut self) -> Reply {
        self.try_reply().expect("a reply")
    }

    /// As [`Client::reply`], for a server that may die meanwhile.
    pub fn try_reply(&mut self) -> std::io::Result<Reply> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.input.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let text = line.strip_suffix("\r\n").unwrap_or_else(|| panic!("a line that ends with CRLF: {line:?}"));
            let code = text[..3].parse().expect("a code");
            lines.push(text.get(4..).unwrap_or("").to_owned());
            match text.as_bytes().get(3) {
                Some(b'-') => continue,
                None | Some(b' ') => return Ok(Reply { code, lines }),
                Some(other) => panic!("byte {other} after the code in {line:?}"),
            }
        }
    }

    /// The next reply, which begins with `start`.
    pub fn expect(&mut self, start: &str) -> Reply {
        let reply = self.reply();
        assert!(reply.starts_with(start), "expected {start}, got {reply:?}");
        reply
    }

    /// What one read of the socket brings. Panics when a reply that was read before is still unread.
    pub fn read_once(&mut self) -> Vec<u8> {
        assert!(self.input.buffer().is_empty(), "unread: {:?}", String::from_utf8_lossy(self.input.buffer()));
        let mut bytes = vec![0; 1 << 20];
        let count = self.input.get_mut().read(&mut bytes).expect("readable");
        bytes.truncate(count);
        bytes
    }

    /// True when the server has closed the connection (after all that it said).
    pub fn is_closed(&mut self) -> bool {
        matches!(self.input.fill_buf(), Ok([]) | Err(_))
    }

    /// MAIL, RCPT for each of `to`; the replies are expected to be 250.
    pub fn envelope(&mut self, from: &str, to: &[&str]) {
        let reply = self.say(&format!("MAIL FROM:<{from}> BODY=8BITMIME"));
        assert_eq!(reply.code, 250, "{reply:?}");
        for recipient in to {
            let reply = self.say(&format!("RCPT TO:<{recipient}>"));
            assert_eq!(reply.code, 250, "{reply:?}");
        }
    }

    /// A whole transaction; the reply to the end of data.
    pub fn submit(&mut self, from: &str, to: &[&str], message: &[u8]) -> Reply {
        self.envelope(from, to);
        assert_eq!(self.say("DATA").code, 354);
        self.send(&stuffed(message));
        self.reply()
    }

    /// A whole transaction with BDAT (RFC 3030), in chunks of `chunk` bytes; the reply to the last.
    pub fn submit_chunked(&mut self, from: &str, to: &[&str], message: &[u8], chunk: usize) -> Reply {
        self.envelope(from, to);
        let mut left = message;
        loop {
            let (now, later) = left.split_at(chunk.min(left.len()));
            left = later;
            let last = if left.is_empty() { " LAST" } else { "" };
            self.send(format!("BDAT {}{last}\r\n", now.len()).as_bytes());
            self.send(now);
            let reply = self.reply();
            if left.is_empty() || reply.code != 250 {
                return reply;
            }
        }
    }

    /// Resets the connection: what is on its way is lost, the peer sees ECONNRESET.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.output, Some(Duration::ZERO)).expect("linger");
    }
}

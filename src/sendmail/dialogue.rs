//! Speaking to the server: what the outgoing sessions of the engine say, over a socket that may keep us waiting.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use ringpost_io::sys;
use ringpost_smtp::Stuffer;
use ringpost_smtp::client::{Envelope, Event, RecipientResult, RemoteReply, Requests, Session};

use super::submission::Composed;
use crate::limits::{GREETING_BYTES, SUBMIT_CONNECT, SUBMIT_GREETING};

/// Where a server takes mail of this machine.
#[derive(Clone, Debug)]
pub enum Entrance {
    /// Its local socket: it knows who comes.
    Socket(PathBuf),
    /// Where it speaks SMTP.
    Net(Vec<SocketAddr>),
}

impl Entrance {
    /// Goes in, through the local socket as this user if that is possible at all: only root can be another.
    ///
    /// # Errors
    /// Nobody is there.
    pub fn connect(&self, uid: Option<u32>) -> io::Result<Connection> {
        match self {
            Self::Net(addresses) => connect(addresses).map(Connection::Net),
            Self::Socket(path) => {
                let connect = || UnixStream::connect(path);
                let connected = match uid.filter(|_| rustix::process::geteuid().is_root()) {
                    Some(uid) => sys::as_user(uid, connect),
                    None => connect(),
                };
                let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
                connected.map(Connection::Local).map_err(named)
            }
        }
    }
}

/// A connection to a server.
#[derive(Debug)]
pub enum Connection {
    /// By a local socket.
    Local(UnixStream),
    /// By TCP.
    Net(TcpStream),
}

impl Connection {
    /// The same connection once more.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Local(stream) => stream.try_clone().map(Self::Local),
            Self::Net(stream) => stream.try_clone().map(Self::Net),
        }
    }

    /// Says that no more is to come.
    pub fn finish(&self) {
        // The server may have been quicker.
        let _ = match self {
            Self::Local(stream) => stream.shutdown(Shutdown::Write),
            Self::Net(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    fn set_patience(&self, time: Duration) -> io::Result<()> {
        match self {
            Self::Local(stream) => stream.set_read_timeout(Some(time)).and(stream.set_write_timeout(Some(time))),
            Self::Net(stream) => stream.set_read_timeout(Some(time)).and(stream.set_write_timeout(Some(time))),
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Local(stream) => stream.read(buffer),
            Self::Net(stream) => stream.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Local(stream) => stream.write(bytes),
            Self::Net(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection that has been greeted.
pub struct Dialogue {
    stream: Connection,
    hostname: String,
    session: Session,
    input: Vec<u8>,
    out: Vec<u8>,
}

/// Connects to the first of a server's addresses that answers, those of this machine alone first.
///
/// # Errors
/// None does.
fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut near: Vec<SocketAddr> = addresses.iter().copied().map(reachable).collect();
    near.sort_by_key(|address| !address.ip().is_loopback());
    let mut failed = io::Error::new(io::ErrorKind::NotFound, "the server speaks SMTP nowhere");
    for address in near {
        match TcpStream::connect_timeout(&address, SUBMIT_CONNECT) {
            Ok(stream) => return stream.set_nodelay(true).map(|()| stream),
            Err(error) => failed = io::Error::new(error.kind(), format!("{address}: {error}")),
        }
    }
    Err(failed)
}

/// Who listens everywhere listens here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

impl Dialogue {
    /// Waits for the greeting, and says who we are: a part of the server.
    ///
    /// # Errors
    /// The connection breaks, or the server does not want us.
    pub fn begin(mut stream: Connection) -> io::Result<Self> {
        let greeting = greeting(&mut stream)?;
        let hostname = name_in(&greeting);
        let session = Session::new(&hostname);
        let mut dialogue = Self { stream, hostname, session, input: greeting, out: Vec::new() };
        match dialogue.converse()? {
            Event::Ready => Ok(dialogue),
            Event::Failed(reply) => Err(io::Error::other(format!("greeted with {reply}"))),
            _ => Err(io::Error::other("the server's greeting makes no sense")),
        }
    }

    /// Sends a message; what became of each recipient. The connection may be of no more use then.
    pub fn send(&mut self, message: &Composed) -> Vec<RecipientResult> {
        let recipients: Vec<&str> = message.recipients.iter().map(String::as_str).collect();
        let ascii = message.sender.is_ascii() && recipients.iter().all(|recipient| recipient.is_ascii());
        // A server that does not offer DSN is not asked, and reports what it likes.
        let of_each = vec![message.wishes.of_recipient(); recipients.len()];
        let requests = Requests { message: message.wishes.of_message(), recipients: &of_each };
        let envelope = Envelope {
            sender: &message.sender,
            recipients: &recipients,
            size: message.text.len() as u64,
            eightbit: !message.text.is_ascii(),
            smtputf8: !ascii,
            requiretls: false,
            priority: 0,
            requests,
        };
        if let Err(results) = self.session.begin(&envelope, &mut self.out) {
            return results;
        }
        loop {
            let failed = match self.converse() {
                Ok(Event::SendBody) => match self.send_body(&message.text) {
                    Ok(()) => continue,
                    Err(error) => error.to_string(),
                },
                Ok(Event::Done(results)) => return results,
                Ok(Event::Failed(reply) | Event::LoginRefused(reply)) => reply.to_string(),
                Ok(Event::Ready | Event::NeedInput | Event::StartTls | Event::Challenged) => continue,
                Err(error) => error.to_string(),
            };
            let reply = RemoteReply::local(451, (4, 4, 2), failed);
            let all = vec![RecipientResult::Transient(reply.clone()); recipients.len()];
            return self.session.abandon(reply).unwrap_or(all);
        }
    }

    /// The server's name, as it greets.
    pub fn hostname(&self) -> &str {
        &self.hostname
    }

    /// Whether another message may be sent.
    pub fn is_ready(&self) -> bool {
        self.session.is_ready()
    }

    /// Says good-bye.
    pub fn quit(mut self) {
        self.session.quit(&mut self.out);
        // A server that does not wait for our QUIT has lost nothing.
        let _ = self.stream.write_all(&self.out);
    }

    fn send_body(&mut self, text: &[u8]) -> io::Result<()> {
        let mut stuffer = Stuffer::new();
        stuffer.stuff(text, &mut self.out);
        stuffer.finish(&mut self.out);
        self.flush()?;
        self.session.body_sent();
        Ok(())
    }

    fn converse(&mut self) -> io::Result<Event> {
        loop {
            self.flush()?;
            let (used, event) = self.session.on_input(&self.input, &mut self.out);
            self.input.drain(..used);
            if event != Event::NeedInput {
                return Ok(event);
            }
            if !self.out.is_empty() {
                continue;
            }
            self.stream.set_patience(self.session.timeout())?;
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece)? {
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
                count => self.input.extend_from_slice(&piece[..count]),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.set_patience(self.session.timeout())?;
        let written = self.stream.write_all(&self.out);
        self.out.clear();
        written
    }
}

/// The server's first words, up to the end of a line at least; none if it goes without a word.
fn greeting(stream: &mut Connection) -> io::Result<Vec<u8>> {
    stream.set_patience(SUBMIT_GREETING)?;
    let mut words = Vec::new();
    while words.len() < GREETING_BYTES && !words.contains(&b'\n') {
        let mut piece = [0; GREETING_BYTES];
        match stream.read(&mut piece)? {
            0 => break,
            count => words.extend_from_slice(&piece[..count]),
        }
    }
    Ok(words)
}

/// RFC 5321 §4.2: the name is the first word behind the code. What cannot be one is this machine's.
fn name_in(greeting: &[u8]) -> String {
    let line = greeting.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let word = line.get(4..).unwrap_or_default().split(u8::is_ascii_whitespace).next().unwrap_or_default();
    match std::str::from_utf8(word) {
        Ok(word) if !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_graphic()) => word.to_owned(),
        _ => "localhost".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use super::super::submission::Wishes;
    use super::*;

    /// A server that answers each line by the script's next reply; what it was told.
    fn server(script: &'static [&'static str]) -> (SocketAddr, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            let mut heard = String::new();
            for reply in script {
                stream.write_all(reply.as_bytes()).unwrap();
                if reply.starts_with("354") {
                    while !heard.ends_with("\r\n.\r\n") && lines.read_line(&mut heard).unwrap() > 0 {}
                } else if lines.read_line(&mut heard).unwrap() == 0 {
                    break;
                }
            }
            heard
        });
        (address, thread)
    }

    fn message() -> Composed {
        Composed {
            sender: "s@x.test".into(),
            recipients: vec!["a@x.test".into(), "b@x.test".into()],
            text: b"Subject: x\r\n\r\n.dot\r\n".to_vec(),
            wishes: Wishes {
                notify: "FAILURE,DELAY".into(),
                ret: "HDRS".into(),
                envelope_id: "a+2Bb".into(),
                verp: None,
            },
        }
    }

    #[test]
    fn each_recipient_has_its_result() {
        let script = &[
            "220 mx\r\n",
            "250 mx\r\n",
            "250 ok\r\n",
            "250 ok\r\n",
            "550 5.1.1 no\r\n",
            "354 go\r\n",
            "250 taken\r\n",
        ];
        let (address, serving) = server(script);
        let mut dialogue = Dialogue::begin(Entrance::Net(vec![address]).connect(None).unwrap()).unwrap();
        let results = dialogue.send(&message());
        assert!(matches!(&results[..], [RecipientResult::Delivered(_), RecipientResult::Permanent(_)]), "{results:?}");
        assert!(dialogue.is_ready());
        dialogue.quit();
        assert_eq!(name_in(b"220-mx.test ESMTP\r\n"), "mx.test");
        assert_eq!(name_in(b""), "localhost");
        let expected = "EHLO mx\r\nMAIL FROM:<s@x.test>\r\nRCPT TO:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n\
                        Subject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n";
        assert_eq!(serving.join().unwrap(), expected);
    }

    #[test]
    fn who_can_report_is_told_what_the_sender_wants_to_know() {
        let script = &[
            "220 mx\r\n",
            "250-mx\r\n250 DSN\r\n",
            "250 ok\r\n",
            "250 ok\r\n",
            "550 no\r\n",
            "354 go\r\n",
            "250 taken\r\n",
        ];
        let (address, serving) = server(script);
        let mut dialogue = Dialogue::begin(Entrance::Net(vec![address]).connect(None).unwrap()).unwrap();
        dialogue.send(&message());
        dialogue.quit();
        let heard = serving.join().unwrap();
        assert!(heard.contains("MAIL FROM:<s@x.test> RET=HDRS ENVID=a+2Bb\r\n"), "{heard}");
        assert_eq!(heard.matches("@x.test> NOTIFY=FAILURE,DELAY\r\n").count(), 2, "{heard}");
    }

    #[test]
    fn who_wants_a_reverse_path_for_each_recipient_has_it_or_waits() {
        let verping = || {
            let wishes = Wishes { verp: Some(String::new()), ..Wishes::default() };
            Composed { wishes, recipients: vec!["a@x.test".into()], ..message() }
        };
        let script =
            &["220 mx\r\n", "250-mx\r\n250 XVERP\r\n", "250 ok\r\n", "250 ok\r\n", "354 go\r\n", "250 taken\r\n"];
        let (address, serving) = server(script);
        let mut dialogue = Dialogue::begin(Entrance::Net(vec![address]).connect(None).unwrap()).unwrap();
        assert!(matches!(dialogue.send(&verping())[..], [RecipientResult::Delivered(_)]));
        dialogue.quit();
        let heard = serving.join().unwrap();
        assert!(heard.contains("MAIL FROM:<s@x.test> XVERP\r\n"), "{heard}");
        let (address, serving) = server(&["220 mx\r\n", "250-mx\r\n250 DSN\r\n"]);
        let mut dialogue = Dialogue::begin(Entrance::Net(vec![address]).connect(None).unwrap()).unwrap();
        let results = dialogue.send(&verping());
        assert!(matches!(results[..], [RecipientResult::Transient(_)]), "{results:?}");
        assert!(dialogue.is_ready());
        dialogue.quit();
        assert!(serving.join().unwrap().starts_with("EHLO mx\r\n"));
    }

    #[test]
    fn a_lost_connection_is_a_reason_to_try_again() {
        let (address, serving) = server(&["220 mx\r\n", "250 mx\r\n", "250 ok\r\n"]);
        let mut dialogue = Dialogue::begin(Entrance::Net(vec![address]).connect(None).unwrap()).unwrap();
        let results = dialogue.send(&message());
        assert!(results.iter().all(|result| matches!(result, RecipientResult::Transient(_))), "{results:?}");
        serving.join().unwrap();
        let (address, serving) = server(&["554 go away\r\n"]);
        assert!(Dialogue::begin(Entrance::Net(vec![address]).connect(None).unwrap()).is_err());
        serving.join().unwrap();
        assert!(connect(&[]).is_err());
    }

    #[test]
    fn who_listens_everywhere_is_spoken_to_here() {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(reachable(address("0.0.0.0:25")), address("127.0.0.1:25"));
        assert_eq!(reachable(address("[::]:25")), address("[::1]:25"));
        assert_eq!(reachable(address("192.0.2.1:25")), address("192.0.2.1:25"));
    }
}

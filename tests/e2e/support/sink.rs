//! A receiving server in this process: keeps what it takes, and refuses, stalls, drops or is not there, as told.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::ports;
use super::text::{digest, original};
use super::wait::wait_for;

/// Messages up to this size are kept whole, of others only the sum.
const KEPT_BYTES: usize = 64 * 1024;

/// A place in the dialogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// After the connection is made, before the greeting.
    Greeting,
    /// At MAIL.
    Mail,
    /// After the end of data, before the reply.
    EndOfData,
}

/// What the sink says. The default takes everything.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// Instead of `220`.
    pub greeting: Option<String>,
    /// Instead of `220`, to this address alone.
    pub greeting_to: Option<(IpAddr, String)>,
    /// Instead of 250 to EHLO and HELO.
    pub ehlo: Option<String>,
    /// Instead of 250 to MAIL.
    pub mail: Option<String>,
    /// Instead of 250 to every RCPT that contains the text.
    pub rcpt: Vec<(String, String)>,
    /// Instead of 250 to the end of data.
    pub end: Option<String>,
    /// Closes the connection there.
    pub drop_at: Option<Step>,
    /// Says nothing more there, until the sink is closed.
    pub stall_at: Option<Step>,
    /// Offers nothing but what RFC 821 had.
    pub plain: bool,
    /// Offers DSN.
    pub dsn: bool,
    /// Closes the connection after each message that it takes.
    pub one_each: bool,
}

/// A message that was answered with 250.
#[derive(Clone, Debug)]
pub struct Received {
    /// Where it came from.
    pub source: IpAddr,
    pub from: String,
    pub to: Vec<String>,
    /// What stands behind the paths of MAIL and of each RCPT, in this order.
    pub parameters: Vec<String>,
    /// Length of the part that the test wrote (see [`original`]).
    pub bytes: usize,
    /// Its sum.
    pub digest: u64,
    /// The message, if it is small.
    pub text: Option<Vec<u8>>,
    /// The value of its first line, if that has the mark of our messages.
    pub key: Option<String>,
}

#[derive(Default)]
struct Inbox {
    messages: Vec<Received>,
    connections: usize,
    /// Where each came from.
    came: Vec<IpAddr>,
    /// Where each came from, and the name in its EHLO, in the order of the EHLOs.
    greeted: Vec<(IpAddr, String)>,
    /// MAIL commands.
    attempts: usize,
}

#[derive(Default)]
struct Shared {
    script: Mutex<Script>,
    inbox: Mutex<Inbox>,
    changed: Condvar,
    closing: AtomicBool,
    open: Mutex<HashMap<usize, TcpStream>>,
}

/// The server. Its port stays its own while it is closed.
pub struct Sink {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Sink {
    /// Listens on a free port of 127.0.0.1.
    pub fn open() -> Self {
        let mut sink = Self::closed();
        sink.reopen();
        sink
    }

    /// Listens there.
    pub fn open_at(address: SocketAddr) -> Self {
        let mut sink = Self { address, shared: Arc::default(), acceptor: None };
        sink.reopen();
        sink
    }

    /// A port of 127.0.0.1 where nobody listens until [`Sink::reopen`].
    pub fn closed() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        Self { address, shared: Arc::default(), acceptor: None }
    }

    /// Listens (again).
    pub fn reopen(&mut self) {
        assert!(self.acceptor.is_none(), "open already");
        // A process that another test starts at this moment may have a copy of what was closed, until it runs its program.
        let bind = || TcpListener::bind(self.address).ok();
        let listener = wait_for(&format!("{} is free", self.address), Duration::from_secs(5), bind);
        self.shared.closing.store(false, Ordering::SeqCst);
        let shared = self.shared.clone();
        self.acceptor = Some(std::thread::spawn(move || accept(&shared, &listener)));
    }

    /// Refuses connections from now on, and cuts those that are open.
    pub fn close(&mut self) {
        let Some(acceptor) = self.acceptor.take() else { return };
        self.shared.closing.store(true, Ordering::SeqCst);
        // Wakes the acceptor; it may be gone only if it has panicked, which `join` tells.
        drop(TcpStream::connect(self.address));
        acceptor.join().expect("the sink's acceptor");
        for (_, stream) in lock(&self.shared.open).drain() {
            // It may have been closed by the peer.
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Behaves so from now on.
    pub fn script(&self, script: Script) {
        *lock(&self.shared.script) = script;
    }

    /// What was taken so far.
    pub fn messages(&self) -> Vec<Received> {
        lock(&self.shared.inbox).messages.clone()
    }

    /// How many messages were taken so far.
    pub fn count(&self) -> usize {
        lock(&self.shared.inbox).messages.len()
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> usize {
        lock(&self.shared.inbox).connections
    }

    /// How many of them are open.
    pub fn open_connections(&self) -> usize {
        lock(&self.shared.open).len()
    }

    /// Where each connection came from, in order.
    pub fn came(&self) -> Vec<IpAddr> {
        lock(&self.shared.inbox).came.clone()
    }

    /// Where each connection came from and which name it said, in the order in which they said it.
    pub fn greeted(&self) -> Vec<(IpAddr, String)> {
        lock(&self.shared.inbox).greeted.clone()
    }

    /// How many transactions were begun so far.
    pub fn attempts(&self) -> usize {
        lock(&self.shared.inbox).attempts
    }

    /// What was taken, as soon as there are `count` messages.
    pub fn wait_for(&self, count: usize, deadline: Duration) -> Vec<Received> {
        self.wait_until(&format!("{count} messages"), deadline, |inbox| inbox.messages.len() >= count)
    }

    /// Returns when `count` transactions have begun.
    pub fn wait_for_attempts(&self, count: usize, deadline: Duration) {
        self.wait_until(&format!("{count} attempts"), deadline, |inbox| inbox.attempts >= count);
    }

    fn wait_until(&self, what: &str, deadline: Duration, condition: impl Fn(&Inbox) -> bool) -> Vec<Received> {
        let end = Instant::now() + deadline;
        let mut inbox = lock(&self.shared.inbox);
        while !condition(&inbox) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "not within {deadline:?} at the sink: {what}; there are {} messages, {} attempts, {} connections",
                inbox.messages.len(),
                inbox.attempts,
                inbox.connections
            );
            inbox = self.shared.changed.wait_timeout(inbox, left).expect("the sink's threads").0;
        }
        inbox.messages.clone()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.close();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread of the sink has panicked")
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept() else { continue };
        if shared.closing.load(Ordering::SeqCst) {
            return;
        }
        let number = {
            let mut inbox = lock(&shared.inbox);
            inbox.connections += 1;
            inbox.came.extend(stream.peer_addr().map(|peer| peer.ip()));
            inbox.connections - 1
        };
        lock(&shared.open).insert(number, stream.try_clone().expect("a descriptor"));
        let shared = shared.clone();
        std::thread::spawn(move || {
            // An error is the peer's leaving, or ours.
            let _ = Conversation::new(&shared, stream).and_then(Conversation::hold);
            if let Some(stream) = lock(&shared.open).remove(&number) {
                // The peer may have been quicker.
                let _ = stream.shutdown(std::net::Shutdown::Both);
            }
        });
    }
}

struct Conversation<'a> {
    shared: &'a Shared,
    input: BufReader<TcpStream>,
    output: TcpStream,
    said: Vec<u8>,
    from: String,
    to: Vec<String>,
    parameters: Vec<String>,
}

impl<'a> Conversation<'a> {
    fn new(shared: &'a Shared, stream: TcpStream) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        let input = BufReader::with_capacity(64 * 1024, stream.try_clone()?);
        let (from, to, parameters) = (String::new(), Vec::new(), Vec::new());
        Ok(Self { shared, input, output: stream, said: Vec::new(), from, to, parameters })
    }

    fn hold(mut self) -> std::io::Result<()> {
        let script = lock(&self.shared.script).clone();
        self.pass(&script, Step::Greeting)?;
        let peer = self.output.peer_addr()?.ip();
        let own = script.greeting_to.as_ref().filter(|(to, _)| *to == peer).map(|(_, greeting)| greeting.as_str());
        self.say(own.or(script.greeting.as_deref()).unwrap_or("220 sink ESMTP"));
        loop {
            if self.input.buffer().is_empty() {
                self.flush()?;
            }
            let mut line = Vec::new();
            if self.input.read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let script = lock(&self.shared.script).clone();
            match line.to_ascii_uppercase().split([' ', ':']).next().unwrap_or("") {
                verb @ ("EHLO" | "HELO") => self.hello(&script, verb, &line)?,
                "MAIL" => self.mail(&script, &line)?,
                "RCPT" => self.recipient(&script, &line),
                "DATA" if self.to.is_empty() => self.say("554 no valid recipients"),
                "DATA" => self.data(&script)?,
                "RSET" | "NOOP" => {
                    self.to.clear();
                    self.say("250 ok");
                }
                "QUIT" => {
                    self.say("221 bye");
                    return self.flush();
                }
                _ => self.say("500 what?"),
            }
        }
    }

    fn hello(&mut self, script: &Script, verb: &str, line: &str) -> std::io::Result<()> {
        if let Some(refusal) = &script.ehlo {
            self.say(refusal);
            return Ok(());
        }
        if script.plain && verb == "EHLO" {
            self.say("502 command unknown");
            return Ok(());
        }
        let name = line.split(' ').nth(1).unwrap_or("").to_owned();
        lock(&self.shared.inbox).greeted.push((self.output.peer_addr()?.ip(), name));
        self.to.clear();
        match verb {
            "EHLO" if script.dsn => self.say("250-sink\r\n250-PIPELINING\r\n250 DSN"),
            "EHLO" => self.say("250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 209715200"),
            _ => self.say("250 ok"),
        }
        Ok(())
    }

    fn mail(&mut self, script: &Script, line: &str) -> std::io::Result<()> {
        lock(&self.shared.inbox).attempts += 1;
        self.shared.changed.notify_all();
        self.pass(script, Step::Mail)?;
        self.to.clear();
        self.from = path(line);
        self.parameters = vec![parameters(line)];
        self.say(script.mail.as_deref().unwrap_or("250 ok"));
        Ok(())
    }

    fn recipient(&mut self, script: &Script, line: &str) {
        let recipient = path(line);
        match script.rcpt.iter().find(|(part, _)| recipient.contains(part.as_str())) {
            Some((_, reply)) => self.say(&reply.clone()),
            None if script.mail.is_some() => self.say("503 no"),
            None => {
                self.to.push(recipient);
                self.parameters.push(parameters(line));
                self.say("250 ok");
            }
        }
    }

    fn data(&mut self, script: &Script) -> std::io::Result<()> {
        self.say("354 go on");
        self.flush()?;
        let mut text = Vec::new();
        loop {
            let start = text.len();
            if self.input.read_until(b'\n', &mut text)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if &text[start..] == b".\r\n" {
                text.truncate(start);
                break;
            }
            if text[start] == b'.' {
                text.remove(start);
            }
        }
        self.pass(script, Step::EndOfData)?;
        let Some(refusal) = script.end.as_deref() else {
            self.keep(text)?;
            return if script.one_each { self.output.shutdown(std::net::Shutdown::Both) } else { Ok(()) };
        };
        self.say(refusal);
        Ok(())
    }

    fn keep(&mut self, text: Vec<u8>) -> std::io::Result<()> {
        let ours = original(&text);
        let line = ours.split(|byte| *byte == b'\r').next().unwrap_or(ours);
        let key = line.strip_prefix(super::text::MARK.as_bytes());
        let received = Received {
            source: self.output.peer_addr()?.ip(),
            from: self.from.clone(),
            to: std::mem::take(&mut self.to),
            parameters: std::mem::take(&mut self.parameters),
            bytes: ours.len(),
            digest: digest(ours),
            key: key.map(|key| String::from_utf8_lossy(key).into_owned()),
            text: (text.len() <= KEPT_BYTES).then_some(text),
        };
        lock(&self.shared.inbox).messages.push(received);
        self.shared.changed.notify_all();
        self.say("250 kept");
        self.flush()
    }

    /// What the script has for this place.
    fn pass(&mut self, script: &Script, step: Step) -> std::io::Result<()> {
        if script.stall_at == Some(step) {
            // `close` shuts the socket down, which ends this.
            self.flush()?;
            while !self.input.fill_buf()?.is_empty() {
                let read = self.input.buffer().len();
                self.input.consume(read);
            }
        }
        if script.stall_at == Some(step) || script.drop_at == Some(step) {
            self.output.shutdown(std::net::Shutdown::Both)?;
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    fn say(&mut self, reply: &str) {
        self.said.extend_from_slice(reply.as_bytes());
        self.said.extend_from_slice(b"\r\n");
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.output.write_all(&self.said)?;
        self.said.clear();
        Ok(())
    }
}

fn path(line: &str) -> String {
    let inner = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or_else(String::new, |(path, _)| path.to_owned())
}

fn parameters(line: &str) -> String {
    line.split_once('>').map_or_else(String::new, |(_, rest)| rest.trim().to_owned())
}

#[test]
fn the_sink_has_what_the_client_sent_and_does_as_it_is_told() {
    use super::client::Client;
    use super::text::{Random, message};

    let mut sink = Sink::open();
    let text = message("self", &mut Random::new(1), 100_000);
    let mut client = Client::ready(sink.address);
    assert_eq!(client.submit("a@b.example", &["c@d.example", "e@f.example"], &text).code, 250);
    let received = sink.wait_for(1, Duration::from_secs(5)).remove(0);
    assert_eq!((received.bytes, received.digest, received.key.as_deref()), (text.len(), digest(&text), Some("self")));
    assert_eq!(
        (received.from.as_str(), &received.to[..]),
        ("a@b.example", &["c@d.example".into(), "e@f.example".into()][..])
    );
    let mut changed = text.clone();
    changed[50_000] ^= 1;
    assert_ne!(digest(&changed), digest(&text));

    sink.script(Script {
        rcpt: vec![("c@".into(), "550 no".into())],
        drop_at: Some(Step::EndOfData),
        ..Script::default()
    });
    assert_eq!(client.say("MAIL FROM:<>").code, 250);
    assert_eq!(client.say("RCPT TO:<c@d.example>").code, 550);
    assert_eq!(client.say("RCPT TO:<d@d.example>").code, 250);
    assert_eq!(client.say("DATA").code, 354);
    client.send(b"x\r\n.\r\n");
    assert!(client.is_closed());
    sink.close();
    assert!(Client::try_connect(sink.address).is_err());
    sink.reopen();
    Client::ready(sink.address);
    assert_eq!((sink.count(), sink.attempts(), sink.connections()), (1, 2, 2));
}

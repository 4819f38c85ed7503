//! A receiver that keeps to its script, however bad that is, and writes down what it took.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::support::text::{digest, original};
use crate::support::wait::wait_for;

/// Larger messages are not kept.
const KEPT_BYTES: usize = 64 * 1024;

/// A place in the dialogue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The connection is made.
    Connect,
    Ehlo,
    Helo,
    StartTls,
    Mail,
    /// MAIL, after so many on this connection.
    MailBeyond(usize),
    Rcpt,
    /// RCPT of a mailbox of this name.
    RcptOf(&'static str),
    /// RCPT, after so many of this transaction that were taken.
    RcptBeyond(usize),
    Data,
    /// So many bytes of the message have come.
    Body(usize),
    /// The message is whole.
    Dot,
    Rset,
    Quit,
}

/// What is done there instead of what any server does.
#[derive(Clone, Debug)]
pub enum Act {
    /// This is said, and a line end.
    Say(String),
    /// This is said, and the connection closed.
    SayAndDrop(String),
    /// The usual reply, and once more.
    Twice,
    /// The connection is closed.
    Drop,
    /// Nothing more is said on this connection.
    Silence,
    /// A reply that has no end, a byte now and then.
    EndlessDrip,
}

/// What a receiver is like. The default takes everything, and offers what most do.
#[derive(Clone, Debug)]
pub struct Habits {
    /// What is done where; the first that fits.
    pub acts: Vec<(Step, Act)>,
    /// Extensions.
    pub offers: Vec<String>,
    /// Ends of lines.
    pub line_end: &'static str,
    /// Between one byte of a reply and the next; `None`: replies leave whole, those to a group of commands together.
    pub pace: Option<Duration>,
    /// What becomes of the commands of a group behind the first.
    pub group: Group,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Answered,
    /// Lost.
    Lost,
    /// Lost, and the connection is closed.
    Dropped,
}

impl Default for Habits {
    fn default() -> Self {
        let offers = ["PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 209715200"];
        Self {
            acts: Vec::new(),
            offers: offers.map(str::to_owned).to_vec(),
            line_end: "\r\n",
            pace: None,
            group: Group::Answered,
        }
    }
}

impl Habits {
    /// The same, but there it does something else.
    pub fn at(mut self, step: Step, act: Act) -> Self {
        self.acts.push((step, act));
        self
    }

    /// The same, but there it says something else.
    pub fn says(self, step: Step, reply: impl Into<String>) -> Self {
        self.at(step, Act::Say(reply.into()))
    }

    /// The same, with one more extension.
    pub fn offering(mut self, extension: &str) -> Self {
        self.offers.push(extension.to_owned());
        self
    }

    fn act(&self, is: impl Fn(Step) -> bool) -> Option<Act> {
        self.acts.iter().find(|(step, _)| is(*step)).map(|(_, act)| act.clone())
    }
}

/// A message that was answered with 2xx.
#[derive(Clone, Debug)]
pub struct Taken {
    pub from: String,
    pub to: Vec<String>,
    /// The message as it came, if it is small: dots at the begin of lines are doubled.
    pub text: Vec<u8>,
    /// Sum of what the test wrote.
    pub digest: u64,
}

#[derive(Default)]
pub struct Inbox {
    pub taken: Vec<Taken>,
    /// MAIL commands that were answered with 2xx.
    pub transactions: usize,
    pub connections: usize,
    /// Of them those that have not ended.
    pub open: usize,
}

/// A receiver at an address of its own, until the test's end.
pub struct Receiver(Arc<Mutex<Inbox>>);

impl Receiver {
    pub fn open(address: SocketAddr, habits: Habits) -> Self {
        // A process that another test starts at this moment may have a copy of what was closed there.
        let listener = wait_for("the address is free", Duration::from_secs(10), || TcpListener::bind(address).ok());
        let inbox: Arc<Mutex<Inbox>> = Arc::default();
        let shared = inbox.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (habits, inbox) = (habits.clone(), shared.clone());
                {
                    let mut inbox = lock(&inbox);
                    inbox.connections += 1;
                    inbox.open += 1;
                }
                std::thread::spawn(move || {
                    // An error is the peer's leaving, or ours.
                    let _ = Dialogue::new(stream, habits, inbox.clone()).and_then(Dialogue::hold);
                    lock(&inbox).open -= 1;
                });
            }
        });
        Self(inbox)
    }

    /// Nobody listens there.
    pub fn absent() -> Self {
        Self(Arc::default())
    }

    pub fn inbox(&self) -> MutexGuard<'_, Inbox> {
        lock(&self.0)
    }
}

fn lock(inbox: &Mutex<Inbox>) -> MutexGuard<'_, Inbox> {
    inbox.lock().expect("no thread of the receiver has panicked")
}

struct Dialogue {
    stream: TcpStream,
    habits: Habits,
    inbox: Arc<Mutex<Inbox>>,
    input: Vec<u8>,
    said: Vec<u8>,
    from: String,
    to: Vec<String>,
    mails: usize,
    /// The connection is closed when this is said.
    is_last: bool,
}

fn over<T>() -> std::io::Result<T> {
    Err(std::io::ErrorKind::ConnectionAborted.into())
}

impl Dialogue {
    fn new(stream: TcpStream, habits: Habits, inbox: Arc<Mutex<Inbox>>) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        let (input, said, to) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { stream, habits, inbox, input, said, from: String::new(), to, mails: 0, is_last: false })
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        lock(&self.inbox)
    }

    fn hold(mut self) -> std::io::Result<()> {
        self.pass(|step| step == Step::Connect, "220 mx.test ESMTP")?;
        loop {
            let line = self.line()?;
            match line.to_ascii_uppercase().split([' ', ':']).next().unwrap_or("") {
                "EHLO" => {
                    let lines = self.habits.offers.join("\r\n250-");
                    let usual = format!("250-mx.test\r\n250-{lines}\r\n250 HELP");
                    self.pass(|step| step == Step::Ehlo, &usual)?;
                }
                "HELO" => {
                    self.pass(|step| step == Step::Helo, "250 mx.test")?;
                }
                "STARTTLS" => {
                    self.pass(|step| step == Step::StartTls, "454 4.7.0 not now")?;
                }
                "MAIL" => self.mail(&line)?,
                "RCPT" => self.recipient(&line)?,
                "DATA" => self.data()?,
                "RSET" => {
                    self.to.clear();
                    self.pass(|step| step == Step::Rset, "250 ok")?;
                }
                "QUIT" => {
                    self.pass(|step| step == Step::Quit, "221 bye")?;
                    self.flush()?;
                    return Ok(());
                }
                _ => self.say("500 what?"),
            }
        }
    }

    fn mail(&mut self, line: &str) -> std::io::Result<()> {
        let before = self.mails;
        self.mails += 1;
        self.to.clear();
        self.from = path(line);
        let is = |step| step == Step::Mail || matches!(step, Step::MailBeyond(count) if before >= count);
        if self.pass(is, "250 sender ok")? {
            self.inbox().transactions += 1;
        }
        Ok(())
    }

    fn recipient(&mut self, line: &str) -> std::io::Result<()> {
        let (path, taken) = (path(line), self.to.len());
        let mailbox = path.split('@').next().unwrap_or("").to_owned();
        let is = |step| match step {
            Step::RcptOf(name) => name == mailbox,
            Step::RcptBeyond(count) => taken >= count,
            step => step == Step::Rcpt,
        };
        if self.pass(is, "250 recipient ok")? {
            self.to.push(path);
        }
        Ok(())
    }

    fn data(&mut self) -> std::io::Result<()> {
        let usual = if self.to.is_empty() { "554 5.5.1 no valid recipients" } else { "354 go on" };
        let said = self.pass_with(|step| step == Step::Data, usual)?;
        if !said.starts_with('3') {
            return Ok(());
        }
        self.flush()?;
        let stop = self.habits.acts.iter().find_map(|(step, _)| match step {
            Step::Body(bytes) => Some(*bytes),
            _ => None,
        });
        let mut at = 0;
        let end = loop {
            if let Some(stop) = stop
                && self.input.len() >= stop
            {
                self.pass(|step| matches!(step, Step::Body(_)), "")?;
                self.flush()?;
            }
            if self.input.starts_with(b".\r\n") {
                break 0;
            }
            let from = at;
            at = self.input.len().saturating_sub(4);
            if let Some(found) = self.input[from..].windows(5).position(|five| five == b"\r\n.\r\n") {
                break from + found + 2;
            }
            self.read()?;
        };
        let text: Vec<u8> = self.input.drain(..end + 3).take(end).collect();
        let (from, to) = (self.from.clone(), std::mem::take(&mut self.to));
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        let unstuffed: Vec<u8> = lines.flat_map(|line| line.strip_prefix(b".").unwrap_or(line)).copied().collect();
        let digest = digest(original(&unstuffed));
        if self.pass(|step| step == Step::Dot, "250 2.0.0 taken")? && !to.is_empty() {
            let text = if text.len() <= KEPT_BYTES { text } else { Vec::new() };
            self.inbox().taken.push(Taken { from, to, text, digest });
        }
        self.flush()
    }

    /// Does what the habits have for a step, else the usual. True: what was said is positive.
    fn pass(&mut self, is: impl Fn(Step) -> bool, usual: &str) -> std::io::Result<bool> {
        Ok(self.pass_with(is, usual)?.starts_with('2'))
    }

    fn pass_with(&mut self, is: impl Fn(Step) -> bool, usual: &str) -> std::io::Result<String> {
        let said = match self.habits.act(is) {
            None => usual.to_owned(),
            Some(Act::Say(reply)) => reply,
            Some(Act::Twice) => format!("{usual}\r\n{usual}"),
            Some(Act::SayAndDrop(reply)) => {
                self.is_last = true;
                reply
            }
            Some(Act::Drop) => {
                self.flush()?;
                return self.close();
            }
            Some(Act::Silence) => {
                self.flush()?;
                return self.listen();
            }
            Some(Act::EndlessDrip) => {
                self.flush()?;
                self.stream.write_all(b"250-")?;
                loop {
                    self.stream.write_all(b"x")?;
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        };
        self.say(&said);
        Ok(said)
    }

    fn close<T>(&self) -> std::io::Result<T> {
        self.stream.shutdown(Shutdown::Both)?;
        over()
    }

    /// Reads until the peer has gone.
    fn listen<T>(&mut self) -> std::io::Result<T> {
        loop {
            self.read()?;
            self.input.clear();
        }
    }

    fn line(&mut self) -> std::io::Result<String> {
        loop {
            let Some(end) = self.input.iter().position(|byte| *byte == b'\n').filter(|_| !self.is_last) else {
                self.flush()?;
                self.read()?;
                continue;
            };
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let has_more = !self.input.is_empty();
            match self.habits.group {
                Group::Answered => {}
                Group::Lost => self.input.clear(),
                Group::Dropped if has_more => {
                    self.say("250 ok");
                    self.flush()?;
                    return self.close();
                }
                Group::Dropped => {}
            }
            return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    }

    fn read(&mut self) -> std::io::Result<()> {
        let mut piece = [0; 16 << 10];
        let count = self.stream.read(&mut piece)?;
        self.input.extend_from_slice(&piece[..count]);
        if count == 0 { over() } else { Ok(()) }
    }

    fn say(&mut self, reply: &str) {
        self.said.extend_from_slice(reply.replace("\r\n", self.habits.line_end).as_bytes());
        if !reply.is_empty() {
            self.said.extend_from_slice(self.habits.line_end.as_bytes());
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let said = std::mem::take(&mut self.said);
        match self.habits.pace {
            None => self.stream.write_all(&said)?,
            Some(pace) => {
                for byte in said.chunks(1) {
                    std::thread::sleep(pace);
                    self.stream.write_all(byte)?;
                }
            }
        }
        if self.is_last { self.close() } else { Ok(()) }
    }
}

fn path(line: &str) -> String {
    let inner = line.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inner.map_or_else(String::new, |(path, _)| path.to_owned())
}

//! The receiving end: one thread, one epoll. It takes messages as fast as they come and keeps none; it can check
//! them, note them, refuse them, be slow, and break off.
//!
//! With a certificate it encrypts, from the first byte or after STARTTLS.
//!
//! Receipts of a turn of the loop are written to their file before the replies of that turn leave: a message that the
//! client was told about is in the file.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use serde::Serialize;

use crate::encryption::{self, Encryption};
use crate::limits;
use crate::progress::{Progress, Shown};
use crate::reception::{DropAt, Outcome, Reception, Rules};
use crate::source::raise_descriptors;
use crate::workload::{Share, parse_time};

/// Where to listen and how to behave.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Address to listen on; port 0 takes a free one.
    #[arg(default_value = "127.0.0.1:2526")]
    pub listen: SocketAddr,
    /// End after so many messages.
    #[arg(short = 'n', long)]
    pub count: Option<u64>,
    /// End after this time, such as 10s.
    #[arg(short, long, value_parser = parse_time)]
    pub time: Option<Duration>,
    /// Check every body against its checksum header.
    #[arg(long)]
    pub verify: bool,
    /// File to which `key recipient` is added for each delivery, before its 250 leaves. Bodies are checked as well.
    #[arg(long)]
    pub received: Option<PathBuf>,
    /// Certificates in PEM, the sink's own first: STARTTLS is offered.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// The first certificate's private key, in PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// TLS begins with the first byte; needs --cert.
    #[arg(long, requires = "cert")]
    pub smtps: bool,
    /// Wait this long before the answer to each message.
    #[arg(long, value_parser = parse_time)]
    pub delay: Option<Duration>,
    /// Refuse MAIL: a code, and how often, such as 450:5%. May be repeated.
    #[arg(long, value_name = "CODE[:P%]")]
    pub reject_mail: Vec<Share<u16>>,
    /// Refuse RCPT.
    #[arg(long, value_name = "CODE[:P%]")]
    pub reject_rcpt: Vec<Share<u16>>,
    /// Refuse DATA.
    #[arg(long, value_name = "CODE[:P%]")]
    pub reject_data: Vec<Share<u16>>,
    /// Refuse messages when they have come.
    #[arg(long, value_name = "CODE[:P%]")]
    pub reject_end: Vec<Share<u16>>,
    /// Close connections without a word at greeting, mail, data or end (the whole message has come), such as end:1%.
    #[arg(long, value_name = "AT[:P%]")]
    pub drop: Vec<Share<DropAt>>,
    /// Show no progress.
    #[arg(short, long)]
    pub quiet: bool,
    /// Print the summary as JSON.
    #[arg(long)]
    pub json: bool,
    /// Set from outside to end early.
    #[arg(skip)]
    pub stop: Option<Arc<AtomicBool>>,
}

impl Options {
    /// The defaults of the command line, on `listen`, without progress.
    pub fn on(listen: SocketAddr) -> Self {
        Self {
            listen,
            count: None,
            time: None,
            verify: false,
            received: None,
            cert: None,
            key: None,
            smtps: false,
            delay: None,
            reject_mail: Vec::new(),
            reject_rcpt: Vec::new(),
            reject_data: Vec::new(),
            reject_end: Vec::new(),
            drop: Vec::new(),
            quiet: true,
            json: false,
            stop: None,
        }
    }
}

/// Why a sink could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A code that is no refusal, a share that cannot be, a certificate that is none.
    #[error("{0}")]
    Options(String),
    /// The address is taken, or not ours.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, io::Error),
    /// The received file, epoll or a socket could not be had.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
}

/// What a sink has seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// Addresses listened on.
    pub listen: Vec<SocketAddr>,
    /// Connections accepted.
    pub connections: u64,
    /// Messages answered with 250.
    pub messages: u64,
    /// Deliveries: messages times recipients.
    pub recipients: u64,
    /// Bytes of these messages, unstuffed.
    pub bytes: u64,
    /// Messages whose body or key does not fit the checksum (when checked).
    pub damaged: u64,
    /// Messages that bear no checksum (when checked).
    pub unmarked: u64,
    /// Refusals that the options asked for.
    pub refused: u64,
    /// Connections that were closed because the options asked for it.
    pub dropped: u64,
    /// Commands that were unknown, malformed or out of order.
    pub mistakes: u64,
    /// From the first connection to the last message.
    pub seconds: f64,
    /// Messages per second of that time.
    pub rate: f64,
}

impl Summary {
    /// Adds another sink's, which ran at the same time.
    pub fn merge(&mut self, other: &Self) {
        self.listen.extend_from_slice(&other.listen);
        self.connections += other.connections;
        self.messages += other.messages;
        self.recipients += other.recipients;
        self.bytes += other.bytes;
        self.damaged += other.damaged;
        self.unmarked += other.unmarked;
        self.refused += other.refused;
        self.dropped += other.dropped;
        self.mistakes += other.mistakes;
        self.seconds = self.seconds.max(other.seconds);
        self.rate = self.messages as f64 / self.seconds.max(1e-9);
    }
}

/// Listens and receives until the count is met, the time is over, or `stop` is set.
///
/// # Errors
/// See [`Error`]; what clients do wrong is in the summary instead.
pub fn run(options: &Options) -> Result<Summary, Error> {
    Sink::bind(options)?.run()
}

/// A sink that listens and has not begun to receive; clients may connect already.
#[derive(Debug)]
pub struct Sink {
    options: Options,
    rules: Rules,
    tls: Option<Arc<rustls::ServerConfig>>,
    listener: OwnedFd,
    address: SocketAddr,
    epoll: OwnedFd,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Slots whose replies leave at the end of this turn.
    answering: Vec<usize>,
    /// Slots whose reply waits for the delay: when, which, its generation.
    delayed: BinaryHeap<Reverse<(Instant, usize, u32)>>,
    received: Option<File>,
    progress: Progress,
    connections: u64,
    first: Option<Instant>,
    last: Option<Instant>,
}

/// One connection's place; it is used again.
#[derive(Debug)]
struct Slot {
    connection: Option<Connection>,
    generation: u32,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    reception: Reception,
    encryption: Option<Box<Encryption>>,
    /// Input that waits for more, or for the delay.
    kept: Vec<u8>,
    phase: Phase,
    watched: epoll::EventFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// Replies are held back until the delay is over.
    Paused,
    /// Replies leave, then the connection ends.
    Leaving,
}

impl Sink {
    /// Listens.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn bind(options: &Options) -> Result<Self, Error> {
        for share in [&options.reject_mail, &options.reject_rcpt, &options.reject_data, &options.reject_end]
            .into_iter()
            .flatten()
        {
            if !(400..600).contains(&share.what) {
                return Err(Error::Options(format!("{} is not a code that refuses (400 to 599)", share.what)));
            }
        }
        raise_descriptors();
        let (listener, address) = listen(options.listen).map_err(|error| Error::Listen(options.listen, error))?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| Error::System("epoll", error.into()))?;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)
            .map_err(|error| Error::System("epoll", error.into()))?;
        let tls = match (&options.cert, &options.key) {
            (Some(cert), Some(key)) => Some(encryption::server(cert, key).map_err(Error::Options)?),
            _ => None,
        };
        let received = options.received.as_ref().map(|path| File::options().create(true).append(true).open(path));
        let rules = Rules {
            verify: options.verify,
            receipts_wanted: received.is_some(),
            reject_mail: options.reject_mail.clone(),
            reject_rcpt: options.reject_rcpt.clone(),
            reject_data: options.reject_data.clone(),
            reject_end: options.reject_end.clone(),
            drop: options.drop.clone(),
            delayed: options.delay.is_some(),
            start_tls: tls.is_some() && !options.smtps,
            ..Rules::default()
        };
        Ok(Self {
            rules,
            tls,
            listener,
            address,
            epoll,
            slots: Vec::new(),
            free: Vec::new(),
            answering: Vec::new(),
            delayed: BinaryHeap::new(),
            received: received.transpose().map_err(|error| Error::System("received file", error))?,
            progress: Progress::new(!options.quiet, Instant::now()),
            connections: 0,
            first: None,
            last: None,
            options: options.clone(),
        })
    }

    /// The address listened on, with the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Receives; see [`run`].
    ///
    /// # Errors
    /// See [`Error`].
    pub fn run(mut self) -> Result<Summary, Error> {
        let start = Instant::now();
        let end = self.options.time.map(|time| start + time);
        let mut events = Vec::with_capacity(limits::EVENTS_MAX);
        let mut scratch = vec![0; limits::READ_BYTES];
        loop {
            let now = Instant::now();
            let done = self.options.count.is_some_and(|count| self.rules.tally.messages >= count);
            if done || end.is_some_and(|end| now >= end) || self.stop_asked() {
                break;
            }
            let next_delayed = self.delayed.peek().map(|Reverse((at, ..))| *at);
            let soonest = [next_delayed, end, self.progress.next()].into_iter().flatten().min();
            let wait = soonest.map_or(TURN, |at| at.saturating_duration_since(now).min(TURN));
            let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::System("epoll", error.into())),
            }
            self.turn(&events, &mut scratch)?;
            self.show(end, start);
        }
        self.progress.clear();
        Ok(self.summary())
    }

    /// One turn of the loop: read all, note all, then answer all.
    fn turn(&mut self, events: &[epoll::Event], scratch: &mut [u8]) -> Result<(), Error> {
        let before = self.rules.tally.messages;
        let mut accept = false;
        for event in events {
            match event.data.u64() {
                LISTENER => accept = true,
                data => self.on_event(data, event.flags, scratch),
            }
        }
        self.resume_delayed();
        if accept {
            self.accept()?;
        }
        if let Some(file) = &mut self.received
            && !self.rules.receipts.is_empty()
        {
            let written = file.write_all(&self.rules.receipts);
            self.rules.receipts.clear();
            written.map_err(|error| Error::System("received file", error))?;
        }
        let mut answering = std::mem::take(&mut self.answering);
        for index in answering.drain(..) {
            self.answer(index);
        }
        self.answering = answering;
        if self.rules.tally.messages > before {
            self.last = Some(Instant::now());
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<(), Error> {
        for _ in 0..limits::EVENTS_MAX {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let socket = match rustix::net::accept_with(&self.listener, flags) {
                Ok(socket) => socket,
                Err(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => {
                    return Err(Error::System("accept", rustix::io::Errno::MFILE.into()));
                }
                // None left, or one that has gone again while it waited.
                Err(_) => break,
            };
            self.first.get_or_insert_with(Instant::now);
            self.connections += 1;
            let Some(reception) = Reception::new(&mut self.rules) else { continue };
            let index = self.free.pop().unwrap_or_else(|| {
                self.slots.push(Slot { connection: None, generation: 0 });
                self.slots.len() - 1
            });
            let slot = &mut self.slots[index];
            slot.generation = (slot.generation + 1) & GENERATION_MASK;
            let watched = epoll::EventFlags::IN;
            let stream = TcpStream::from(socket);
            epoll::add(&self.epoll, &stream, event_data(index, slot.generation), watched)
                .map_err(|error| Error::System("epoll", error.into()))?;
            let encryption = self.tls.as_ref().filter(|_| self.options.smtps).map(Encryption::new).transpose();
            let encryption = encryption.map_err(Error::Options)?;
            let (kept, phase) = (Vec::new(), Phase::Open);
            slot.connection = Some(Connection { stream, reception, encryption, kept, phase, watched });
            self.answering.push(index);
        }
        Ok(())
    }

    fn on_event(&mut self, data: u64, flags: epoll::EventFlags, scratch: &mut [u8]) {
        let (index, generation) = ((data & 0xffff_ffff) as usize, (data >> 32) as u32);
        let slot = &mut self.slots[index];
        let Some(connection) = slot.connection.as_mut().filter(|_| slot.generation == generation) else { return };
        if flags.contains(epoll::EventFlags::OUT) {
            self.answering.push(index);
        }
        if !flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            return;
        }
        if connection.phase != Phase::Open {
            // Only its end is still of interest, and would be reported again and again.
            if flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                self.close(index);
            }
            return;
        }
        let count = match connection.stream.read(scratch) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(_) => 0,
        };
        if count == 0 {
            return self.close(index);
        }
        let outcome = if let Some(encryption) = &mut connection.encryption {
            // An alert may be due; nobody waits for it.
            if encryption.receive(&scratch[..count], &mut connection.kept).is_err() {
                return self.close(index);
            }
            step_kept(connection, &mut self.rules)
        } else if connection.kept.is_empty() {
            let (used, outcome) = connection.reception.step(&scratch[..count], &mut self.rules);
            connection.kept.extend_from_slice(&scratch[used..count]);
            outcome
        } else {
            connection.kept.extend_from_slice(&scratch[..count]);
            step_kept(connection, &mut self.rules)
        };
        self.settle(index, outcome);
    }

    fn resume_delayed(&mut self) {
        let now = Instant::now();
        while let Some(&Reverse((at, index, generation))) = self.delayed.peek()
            && at <= now
        {
            self.delayed.pop();
            let slot = &mut self.slots[index];
            let Some(connection) = slot.connection.as_mut().filter(|_| slot.generation == generation) else { continue };
            connection.phase = Phase::Open;
            // The reply that waited leaves now; the next message's waits for a delay of its own.
            self.answer(index);
            let Some(connection) = &mut self.slots[index].connection else { continue };
            let outcome = step_kept(connection, &mut self.rules);
            self.settle(index, outcome);
        }
    }

    fn settle(&mut self, index: usize, outcome: Outcome) {
        let slot = &mut self.slots[index];
        let Some(connection) = &mut slot.connection else { return };
        match outcome {
            Outcome::NeedInput => self.answering.push(index),
            Outcome::Leave => {
                connection.phase = Phase::Leaving;
                self.answering.push(index);
            }
            Outcome::Pause => {
                connection.phase = Phase::Paused;
                let at = Instant::now() + self.options.delay.unwrap_or_default();
                self.delayed.push(Reverse((at, index, slot.generation)));
                self.watch(index, epoll::EventFlags::empty());
            }
            Outcome::StartTls => self.start_tls(index),
            Outcome::Drop => self.close(index),
        }
    }

    fn start_tls(&mut self, index: usize) {
        let Some(connection) = &mut self.slots[index].connection else { return };
        // What came behind the command in clear may be anybody's. And 30 bytes fit into an idle socket.
        let clean = connection.kept.is_empty() && connection.stream.write_all(&connection.reception.out).is_ok();
        let encryption = self.tls.as_ref().filter(|_| clean).and_then(|config| Encryption::new(config).ok());
        connection.reception.out.clear();
        connection.encryption = encryption;
        if connection.encryption.is_none() {
            self.close(index);
        }
    }

    /// Sends what waits. While a client does not read its replies, nothing more is read from it.
    fn answer(&mut self, index: usize) {
        let Some(connection) = &mut self.slots[index].connection else { return };
        if connection.phase == Phase::Paused {
            return;
        }
        let out = match &mut connection.encryption {
            Some(encryption) => encryption.send(&mut connection.reception.out),
            None => &mut connection.reception.out,
        };
        if !out.is_empty() {
            match connection.stream.write(out) {
                Ok(written) if written == out.len() => out.clear(),
                Ok(written) => drop(out.drain(..written)),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => return self.close(index),
            }
        }
        if !out.is_empty() {
            self.watch(index, epoll::EventFlags::OUT);
        } else if connection.phase == Phase::Leaving {
            self.close(index);
        } else {
            self.watch(index, epoll::EventFlags::IN);
        }
    }

    fn watch(&mut self, index: usize, wanted: epoll::EventFlags) {
        let slot = &mut self.slots[index];
        let Some(connection) = &mut slot.connection else { return };
        if connection.watched == wanted {
            return;
        }
        connection.watched = wanted;
        if epoll::modify(&self.epoll, &connection.stream, event_data(index, slot.generation), wanted).is_err() {
            self.close(index);
        }
    }

    fn close(&mut self, index: usize) {
        if self.slots[index].connection.take().is_some() {
            self.free.push(index);
        }
    }

    fn stop_asked(&self) -> bool {
        self.options.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    fn show(&mut self, end: Option<Instant>, start: Instant) {
        let now = Instant::now();
        let (tally, count) = (self.rules.tally, self.options.count);
        self.progress.show(now, || {
            let by_count = count.map(|count| tally.messages as f64 / count.max(1) as f64);
            let by_time = end.map(|end| (now - start).as_secs_f64() / (end - start).as_secs_f64());
            Shown {
                part: [by_count, by_time].into_iter().flatten().reduce(f64::max),
                count: tally.messages,
                p99_us: None,
                bad: tally.refused + tally.dropped + tally.damaged,
            }
        });
    }

    fn summary(self) -> Summary {
        let tally = self.rules.tally;
        let seconds = match (self.first, self.last) {
            (Some(first), Some(last)) => (last - first).as_secs_f64(),
            _ => 0.0,
        };
        Summary {
            listen: vec![self.address],
            connections: self.connections,
            messages: tally.messages,
            recipients: tally.recipients,
            bytes: tally.bytes,
            damaged: tally.damaged,
            unmarked: tally.unmarked,
            refused: tally.refused,
            dropped: tally.dropped,
            mistakes: tally.mistakes,
            seconds,
            rate: tally.messages as f64 / seconds.max(1e-9),
        }
    }
}

fn step_kept(connection: &mut Connection, rules: &mut Rules) -> Outcome {
    let (used, outcome) = connection.reception.step(&connection.kept, rules);
    connection.kept.drain(..used);
    if connection.kept.is_empty() {
        connection.kept.shrink_to(limits::KEPT_BYTES);
    }
    outcome
}

fn listen(address: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    // Accepted connections inherit this on Linux: one system call less for each.
    sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, limits::BACKLOG)?;
    let bound = rustix::net::getsockname(&socket)?;
    let bound = SocketAddr::try_from(bound).map_err(|_| io::Error::other("not an internet address"))?;
    Ok((socket, bound))
}

fn event_data(index: usize, generation: u32) -> epoll::EventData {
    epoll::EventData::new_u64(index as u64 | u64::from(generation) << 32)
}

/// Longest wait, so that a stop flag is seen.
const TURN: Duration = Duration::from_millis(100);
const LISTENER: u64 = u64::MAX;
/// Keeps a connection's event data different from the listener's.
const GENERATION_MASK: u32 = 0x7fff_ffff;

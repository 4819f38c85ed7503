//! The load generator: one thread, one epoll, any number of connections. With pipelining a body leaves together with
//! the next message's MAIL, RCPT and DATA, so a message costs one write and one read.
//!
//! A message that a broken connection left unanswered is never sent again under its number: what has an answer and
//! what has none stay apart for [`crate::verify`].

mod clock;
mod options;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use serde::Serialize;

use crate::body::Maker;
use crate::dial::dial;
use crate::exchange::{Addressees, Campaign, Exchange, Tail, Verdict, command, parse_reply};
use crate::limits;
use crate::measure::{Latency, Measures, Refusal, Step};
use crate::pace::Pace;
use crate::progress::{Progress, Shown};
use clock::{clock_name, rfc5322_now};
pub use options::{Options, Pipelining};

/// Why a run could not be carried out. Refusals by the server are results, not errors.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options contradict themselves.
    #[error("{0}")]
    Options(String),
    /// The address names no host.
    #[error("cannot resolve '{0}': {1}")]
    Address(String, io::Error),
    /// The acked file, epoll or a socket could not be had.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
    /// No answer for as long as `patience`; the summary of what was answered before.
    #[error("no answer from the server for {} s", .0.as_secs())]
    Silent(Duration, Box<Summary>),
}

/// Result of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Server.
    pub address: String,
    /// Name of the run.
    pub run: String,
    /// Messages answered with 250.
    pub accepted: u64,
    /// Deliveries answered with 250: messages times their accepted recipients.
    pub recipients: u64,
    /// Messages refused at MAIL, by all RCPT, at DATA or after the body.
    pub refused: u64,
    /// Messages whose connection ended before their answer.
    pub dropped: u64,
    /// Connections made.
    pub connections: u64,
    /// Connections that could not be made.
    pub connect_failures: u64,
    /// Bytes of accepted and refused messages' headers and bodies, as sent.
    pub bytes: u64,
    /// From the first connect to the last answer.
    pub seconds: f64,
    /// Accepted messages per second.
    pub rate: f64,
    /// Distribution of each step.
    pub steps: Vec<Latency>,
    /// Refusals by step and code.
    pub refusals: Vec<Refusal>,
}

/// Sends what `options` say, until the quota is met, the time is over, or `stop` is set.
///
/// # Errors
/// See [`Error`]; a server that refuses or drops is described by the summary instead.
pub fn run(options: &Options) -> Result<Summary, Error> {
    Source::new(options)?.run()
}

/// One connection's place; it is used again by the next connection.
struct Slot {
    stream: Option<TcpStream>,
    connecting: bool,
    generation: u32,
    opened: Instant,
    exchange: Exchange,
    /// Bytes the socket did not take yet.
    pending: Vec<u8>,
    /// Begin of a line whose end has not come.
    partial: Vec<u8>,
}

struct Source {
    options: Options,
    address: SocketAddr,
    run: String,
    campaign: Campaign,
    maker: Maker,
    epoll: rustix::fd::OwnedFd,
    slots: Vec<Slot>,
    /// Slots to be connected again, and when.
    waiting: BinaryHeap<Reverse<(Instant, usize)>>,
    /// Slots that have nothing to send until a message is due.
    idle: VecDeque<(usize, u32)>,
    failures_in_row: u32,
    acked: Option<File>,
    acked_lines: Vec<u8>,
    progress: Progress,
    start: Instant,
    last_answer: Instant,
    connections: u64,
    connect_failures: u64,
    bytes: u64,
}

impl Source {
    fn new(options: &Options) -> Result<Self, Error> {
        let bad = |text: &str| Err(Error::Options(text.into()));
        if options.connections == 0 || options.connections > limits::CONNECTIONS_MAX {
            return bad(&format!("connections go from 1 to {}", limits::CONNECTIONS_MAX));
        }
        if options.recipients == 0 || options.recipients > limits::RECIPIENTS_MAX {
            return bad(&format!("recipients go from 1 to {}", limits::RECIPIENTS_MAX));
        }
        if options.to_domains == 0 || options.to_domains > limits::DOMAINS_MAX {
            return bad(&format!("domains go from 1 to {}", limits::DOMAINS_MAX));
        }
        if options.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) || options.per_connection == Some(0) {
            return bad("rate and messages per connection must be above zero");
        }
        let found =
            options.address.to_socket_addrs().map_err(|error| Error::Address(options.address.clone(), error))?;
        let Some(address) = found.into_iter().next() else {
            return bad("the address names no host");
        };
        raise_descriptors();
        let start = Instant::now();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| Error::System("epoll", error.into()))?;
        let acked = options.acked.as_ref().map(|path| File::options().create(true).append(true).open(path));
        let acked = acked.transpose().map_err(|error| Error::System("acked file", error))?;
        let run = options.run.clone().unwrap_or_else(clock_name);
        let from = format!("source@{}", options.from_domain);
        let to = format!("r0@{}", options.to_domain);
        let campaign = campaign(options, &from, acked.is_some(), start);
        Ok(Self {
            address,
            maker: Maker::new(&run, &from, &to, &rfc5322_now(), options.size.max()),
            run,
            campaign,
            epoll,
            slots: Vec::new(),
            waiting: BinaryHeap::new(),
            idle: VecDeque::new(),
            failures_in_row: 0,
            acked,
            acked_lines: Vec::new(),
            progress: Progress::new(!options.quiet, start),
            start,
            last_answer: start,
            connections: 0,
            connect_failures: 0,
            bytes: 0,
            options: options.clone(),
        })
    }

    fn run(mut self) -> Result<Summary, Error> {
        let end = self.options.time.map(|time| self.start + time);
        for index in 0..self.options.connections as usize {
            self.slots.push(Slot {
                stream: None,
                connecting: false,
                generation: 0,
                opened: self.start,
                exchange: Exchange::new(self.start),
                pending: Vec::new(),
                partial: Vec::new(),
            });
            self.waiting.push(Reverse((self.start, index)));
        }
        let mut events = Vec::with_capacity(limits::EVENTS_MAX);
        let mut scratch = vec![0; limits::READ_BYTES];
        let outcome = loop {
            let now = Instant::now();
            if end.is_some_and(|end| now >= end) || self.stop_asked() {
                self.campaign.over = true;
            }
            self.reopen(now)?;
            self.wake_idle(now);
            if self.campaign.in_flight == 0 && !self.campaign.has_more() {
                break Ok(());
            }
            if now - self.last_answer > self.options.patience {
                break Err(self.options.patience);
            }
            // Asked to stop by a person: unanswered messages get a second, not the server's whole patience.
            if self.stop_asked() && now - self.last_answer > Duration::from_secs(1) {
                break Ok(());
            }
            let wait = match self.options.spin {
                true => Duration::ZERO,
                false => self.wait_until(end).saturating_duration_since(now),
            };
            events.clear();
            let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::System("epoll", error.into())),
            }
            for event in &events {
                self.on_event(event.data.u64(), event.flags, &mut scratch);
            }
            self.write_acked()?;
            self.show(end);
        };
        self.write_acked()?;
        self.progress.clear();
        for slot in &mut self.slots {
            if let Some(stream) = &mut slot.stream {
                // Leaving politely is a courtesy; the results are in.
                let _ = stream.write(b"QUIT\r\n");
            }
        }
        match outcome {
            Ok(()) => Ok(self.summary()),
            Err(patience) => Err(Error::Silent(patience, Box::new(self.summary()))),
        }
    }

    fn stop_asked(&self) -> bool {
        self.options.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    fn wait_until(&self, end: Option<Instant>) -> Instant {
        let mut until = Instant::now() + Duration::from_millis(100);
        let due = self.campaign.pace.as_ref().filter(|_| !self.idle.is_empty()).map(Pace::next_due);
        let again = self.waiting.peek().filter(|_| self.campaign.has_more()).map(|Reverse((at, _))| *at);
        for at in [due, again, end.filter(|_| !self.campaign.over), self.progress.next()].into_iter().flatten() {
            until = until.min(at);
        }
        until
    }

    /// Connects the slots whose time has come, as long as there is something to send.
    fn reopen(&mut self, now: Instant) -> Result<(), Error> {
        while self.campaign.has_more()
            && let Some(Reverse((at, index))) = self.waiting.peek().copied()
            && at <= now
        {
            self.waiting.pop();
            if let Err(error) = self.connect(index, now) {
                if matches!(error.raw_os_error(), Some(code) if code == rustix::io::Errno::MFILE.raw_os_error()) {
                    return Err(Error::System("socket", error));
                }
                self.connect_failures += 1;
                self.close(index, now, true);
            }
        }
        Ok(())
    }

    fn connect(&mut self, index: usize, now: Instant) -> io::Result<()> {
        let stream = dial(&self.address)?;
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        slot.connecting = true;
        slot.opened = now;
        slot.pending.clear();
        slot.partial.clear();
        let data = epoll::EventData::new_u64(index as u64 | u64::from(slot.generation) << 32);
        epoll::add(&self.epoll, &stream, data, epoll::EventFlags::OUT)?;
        slot.stream = Some(stream);
        Ok(())
    }

    /// Gives due messages to connections that wait for one.
    fn wake_idle(&mut self, now: Instant) {
        while let Some(&(index, generation)) = self.idle.front() {
            let due = self.campaign.pace.as_ref().is_none_or(|pace| pace.next_due() <= now);
            if self.campaign.has_more() && !due {
                break;
            }
            self.idle.pop_front();
            if self.slots[index].generation == generation && self.slots[index].stream.is_some() {
                let verdict = self.slots[index].exchange.begin(&mut self.campaign, now);
                self.settle(index, verdict, now);
            }
        }
    }

    fn on_event(&mut self, data: u64, flags: epoll::EventFlags, scratch: &mut [u8]) {
        let (index, generation) = ((data & 0xffff_ffff) as usize, (data >> 32) as u32);
        if self.slots[index].generation != generation || self.slots[index].stream.is_none() {
            return;
        }
        let now = Instant::now();
        if self.slots[index].connecting {
            return self.on_connected(index, now);
        }
        if flags.contains(epoll::EventFlags::OUT) {
            self.flush(index, now);
        }
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            self.on_readable(index, scratch, now);
        }
    }

    fn on_connected(&mut self, index: usize, now: Instant) {
        let slot = &mut self.slots[index];
        let Some(stream) = &slot.stream else { return };
        if !matches!(rustix::net::sockopt::socket_error(stream), Ok(Ok(()))) {
            self.connect_failures += 1;
            return self.close(index, now, true);
        }
        slot.connecting = false;
        slot.exchange = Exchange::new(now);
        self.connections += 1;
        self.campaign.measures.record(Step::Connect, now - slot.opened);
        self.watch(index, false);
    }

    fn on_readable(&mut self, index: usize, scratch: &mut [u8], now: Instant) {
        let slot = &mut self.slots[index];
        let Some(stream) = &mut slot.stream else { return };
        let count = match stream.read(scratch) {
            Ok(0) => 0,
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(_) => 0,
        };
        if count == 0 {
            let failed = !slot.exchange.is_leaving();
            return self.close(index, now, failed);
        }
        self.last_answer = now;
        let verdict = if slot.partial.is_empty() {
            let (verdict, used) = take_lines(&mut slot.exchange, &scratch[..count], &mut self.campaign, now);
            slot.partial.extend_from_slice(&scratch[used..count]);
            verdict
        } else {
            slot.partial.extend_from_slice(&scratch[..count]);
            let (verdict, used) = take_lines(&mut slot.exchange, &slot.partial, &mut self.campaign, now);
            slot.partial.drain(..used);
            verdict
        };
        let verdict = if slot.partial.len() > limits::LINE_BYTES_MAX { Verdict::Close } else { verdict };
        self.settle(index, verdict, now);
    }

    /// Acts on what the exchange said.
    fn settle(&mut self, index: usize, verdict: Verdict, now: Instant) {
        match verdict {
            Verdict::Continue => self.send(index, now),
            Verdict::Idle => self.idle.push_back((index, self.slots[index].generation)),
            Verdict::Close => self.close(index, now, true),
        }
    }

    /// Sends commands and body in one write; what the socket does not take waits in `pending`.
    fn send(&mut self, index: usize, now: Instant) {
        let slot = &mut self.slots[index];
        let Some(stream) = &mut slot.stream else { return };
        let body = slot.exchange.body.take();
        if slot.exchange.out.is_empty() && body.is_none() {
            return;
        }
        let [head, text, dot, tail]: [&[u8]; 4] = match body {
            Some((seq, tail)) => {
                let (head, text) = self.maker.make(seq, self.options.size.draw(seq));
                let tail: &[u8] = match tail {
                    Tail::Dot => b"",
                    Tail::Group(next) => &self.campaign.to(next).group,
                    Tail::Quit => b"QUIT\r\n",
                };
                self.bytes += (head.len() + text.len()) as u64;
                [head, text, b"\r\n.\r\n", tail]
            }
            None => [b""; 4],
        };
        let parts = [slot.exchange.out.as_slice(), head, text, dot, tail];
        let mut written = 0;
        if slot.pending.is_empty() {
            let used = if head.is_empty() { 0..1 } else { usize::from(parts[0].is_empty())..5 };
            written = match stream.write_vectored(&parts.map(IoSlice::new)[used]) {
                Ok(written) => written,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
                Err(_) => return self.close(index, now, true),
            };
        }
        for part in parts {
            let skipped = written.min(part.len());
            slot.pending.extend_from_slice(&part[skipped..]);
            written -= skipped;
        }
        slot.exchange.out.clear();
        if !slot.pending.is_empty() {
            self.watch(index, true);
        }
    }

    fn flush(&mut self, index: usize, now: Instant) {
        let slot = &mut self.slots[index];
        let Some(stream) = &mut slot.stream else { return };
        match stream.write(&slot.pending) {
            Ok(written) => drop(slot.pending.drain(..written)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(_) => return self.close(index, now, true),
        }
        // A large body that leaves piece by piece is progress, too.
        self.last_answer = now;
        if slot.pending.is_empty() {
            self.watch(index, false);
        }
    }

    fn watch(&mut self, index: usize, writing: bool) {
        let slot = &self.slots[index];
        let Some(stream) = &slot.stream else { return };
        let data = epoll::EventData::new_u64(index as u64 | u64::from(slot.generation) << 32);
        let writing = if writing { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
        if epoll::modify(&self.epoll, stream, data, epoll::EventFlags::IN | writing).is_err() {
            self.close(index, Instant::now(), true);
        }
    }

    /// Ends a connection and plans the next one; after a failure a little later each time.
    fn close(&mut self, index: usize, now: Instant, failed: bool) {
        let slot = &mut self.slots[index];
        slot.stream = None;
        slot.connecting = false;
        let lost = slot.exchange.abandon();
        slot.exchange.out.clear();
        slot.exchange.body = None;
        self.campaign.in_flight -= lost;
        self.campaign.dropped += lost;
        let mut at = now;
        if failed {
            let wait = limits::RECONNECT_MIN * (1 << self.failures_in_row.min(10));
            at += wait.min(limits::RECONNECT_MAX);
            self.failures_in_row += 1;
        } else {
            self.failures_in_row = 0;
        }
        self.waiting.push(Reverse((at, index)));
    }

    fn write_acked(&mut self) -> Result<(), Error> {
        if !self.campaign.acked.is_empty() {
            self.failures_in_row = 0;
        }
        let Some(file) = &mut self.acked else { return Ok(()) };
        for (seq, recipient) in self.campaign.acked.drain(..) {
            self.maker.write_key(seq, &mut self.acked_lines);
            self.acked_lines.push(b' ');
            self.acked_lines.extend_from_slice(self.campaign.locals[usize::from(recipient)].as_bytes());
            self.acked_lines.push(b'\n');
        }
        let written = file.write_all(&self.acked_lines);
        self.acked_lines.clear();
        written.map_err(|error| Error::System("acked file", error))
    }

    fn show(&mut self, end: Option<Instant>) {
        let now = Instant::now();
        let (campaign, start) = (&self.campaign, self.start);
        self.progress.show(now, || {
            let by_count = campaign.quota.map(|quota| campaign.finished as f64 / quota.max(1) as f64);
            let by_time = end.map(|end| (now - start).as_secs_f64() / (end - start).as_secs_f64());
            Shown {
                part: [by_count, by_time].into_iter().flatten().reduce(f64::max),
                count: campaign.finished,
                p99_us: Some(campaign.measures.message_p99_us()),
                bad: campaign.refused + campaign.dropped,
            }
        });
    }

    fn summary(self) -> Summary {
        let last = self.campaign.last_finish.unwrap_or_else(Instant::now);
        let seconds = (last - self.start).as_secs_f64().max(1e-9);
        Summary {
            address: self.options.address,
            run: self.run,
            accepted: self.campaign.accepted,
            recipients: self.campaign.recipients,
            refused: self.campaign.refused,
            dropped: self.campaign.dropped,
            connections: self.connections,
            connect_failures: self.connect_failures,
            bytes: self.bytes,
            seconds,
            rate: self.campaign.accepted as f64 / seconds,
            steps: self.campaign.measures.latencies(),
            refusals: self.campaign.measures.refusals(),
        }
    }
}

/// Feeds whole lines; stops early when the exchange wants to close. Also says how many bytes were used.
fn take_lines(exchange: &mut Exchange, input: &[u8], campaign: &mut Campaign, now: Instant) -> (Verdict, usize) {
    let mut used = 0;
    let mut verdict = Verdict::Continue;
    for end in memchr::memchr_iter(b'\n', input) {
        let line = &input[used..=end];
        used = end + 1;
        verdict = match parse_reply(line) {
            Some((code, last)) => exchange.on_line(code, last, line, campaign, now),
            None => Verdict::Close,
        };
        if verdict == Verdict::Close {
            break;
        }
    }
    (verdict, used)
}

fn campaign(options: &Options, from: &str, acks_wanted: bool, start: Instant) -> Campaign {
    let locals: Vec<String> = (0..options.recipients).map(|index| format!("r{index}")).collect();
    let mail = command("MAIL FROM:", &format!("<{from}>"));
    let addressees = |domain: String| {
        let rcpts = locals.iter().map(|local| command("RCPT TO:", &format!("<{local}@{domain}>")));
        let rcpts: Vec<Vec<u8>> = rcpts.collect();
        Addressees { group: [mail.clone(), rcpts.concat(), command("DATA", "")].concat(), rcpts }
    };
    let addressees = match options.to_domains {
        1 => vec![addressees(options.to_domain.clone())],
        count => (0..count).map(|number| addressees(format!("d{number}.{}", options.to_domain))).collect(),
    };
    Campaign {
        hello: command("EHLO ", &options.from_domain),
        helo: command("HELO ", &options.from_domain),
        mail,
        addressees,
        locals,
        pipelining: options.pipelining,
        per_connection: options.per_connection.unwrap_or(u64::MAX),
        quota: options.messages.or(if options.time.is_some() { None } else { Some(10_000) }),
        pace: options.rate.map(|rate| Pace::new(start, rate)),
        over: false,
        next_seq: 0,
        in_flight: 0,
        finished: 0,
        accepted: 0,
        recipients: 0,
        refused: 0,
        dropped: 0,
        last_finish: None,
        measures: Measures::new(),
        acked: Vec::new(),
        acks_wanted,
    }
}

/// As many descriptors as the system lets us have; a failure shows at the first socket that cannot be had.
pub fn raise_descriptors() {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, limit);
}

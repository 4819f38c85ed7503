//! Handshakes of TLS, as many as a server makes: one thread, one epoll, any number of connections, each of which is
//! encrypted, says QUIT, and counts once it has been answered: the server's side is done then, too.

mod dialogue;
mod options;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::Serialize;

use crate::dial::dial;
use crate::measure::{Latency, histogram};
use crate::pace::Pace;
use crate::source::raise_descriptors;
use crate::{encryption, limits};
use dialogue::{Dialogue, Met, Way};
pub use options::{Options, Versions};

/// Why a run could not be carried out. What the server refuses is a result, not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options make no sense.
    #[error("{0}")]
    Options(String),
    /// The address names no host.
    #[error("cannot resolve '{0}': {1}")]
    Address(String, io::Error),
    /// Epoll or a socket could not be had.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
    /// No answer for as long as `patience`.
    #[error("no answer from the server for {seconds} s, after {handshakes} handshakes")]
    Silent {
        /// How long, in seconds.
        seconds: u64,
        /// Finished before.
        handshakes: u64,
    },
}

/// Result of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Server.
    pub address: String,
    /// Handshakes that both sides have finished.
    pub handshakes: u64,
    /// Those of them that took up a session before.
    pub resumed: u64,
    /// Connections that failed.
    pub failed: u64,
    /// From the first connect to the last answer.
    pub seconds: f64,
    /// Handshakes per second.
    pub rate: f64,
    /// `handshake`: from our first bytes of TLS until our side is done; `session`: from connect to the last answer.
    pub steps: Vec<Latency>,
    /// Reasons of what failed, and how often.
    pub failures: BTreeMap<String, u64>,
}

/// Makes handshakes as `options` say, until there are enough, the time is over, or `stop` is set.
///
/// # Errors
/// See [`Error`].
pub fn run(options: &Options) -> Result<Summary, Error> {
    Run::new(options)?.run()
}

/// One connection's place; it is used again by the next connection.
struct Slot {
    /// Its own, and with it its own tickets: one that another has used is worth nothing.
    config: Arc<ClientConfig>,
    open: Option<Open>,
    generation: u32,
    /// Not to be opened before.
    not_before: Instant,
}

struct Open {
    stream: TcpStream,
    dialogue: Dialogue,
    connected: bool,
    opened: Instant,
    begun: Option<Instant>,
    writing: bool,
}

struct Run<'o> {
    options: &'o Options,
    address: SocketAddr,
    name: ServerName<'static>,
    epoll: OwnedFd,
    slots: Vec<Slot>,
    /// Slots without a connection.
    free: Vec<usize>,
    pace: Option<Pace>,
    quota: u64,
    start: Instant,
    last_answer: Instant,
    handshakes: u64,
    resumed: u64,
    failed: u64,
    failures: BTreeMap<String, u64>,
    shaking: Histogram<u64>,
    sessions: Histogram<u64>,
}

impl<'o> Run<'o> {
    fn new(options: &'o Options) -> Result<Self, Error> {
        let bad = |text: &str| Error::Options(text.into());
        if options.connections == 0 || options.connections > limits::CONNECTIONS_MAX {
            return Err(bad(&format!("connections go from 1 to {}", limits::CONNECTIONS_MAX)));
        }
        if options.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
            return Err(bad("the rate must be above zero"));
        }
        let name = ServerName::try_from(options.name.clone()).map_err(|_| bad("the name is none of a host"))?;
        let found =
            options.address.to_socket_addrs().map_err(|error| Error::Address(options.address.clone(), error))?;
        let address = found.into_iter().next().ok_or_else(|| bad("the address names no host"))?;
        raise_descriptors();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| Error::System("epoll", error.into()))?;
        let start = Instant::now();
        let shared = encryption::client(&options.versions.list(), options.resume).map_err(Error::Options)?;
        let mut slots = Vec::new();
        for _ in 0..options.connections {
            let config = match options.resume {
                true => encryption::client(&options.versions.list(), true).map_err(Error::Options)?,
                false => shared.clone(),
            };
            slots.push(Slot { config, open: None, generation: 0, not_before: start });
        }
        Ok(Self {
            address,
            name,
            epoll,
            free: (0..slots.len()).rev().collect(),
            slots,
            pace: options.rate.map(|rate| Pace::new(start, rate)),
            quota: options.handshakes.unwrap_or(if options.time.is_some() { u64::MAX } else { 1000 }),
            start,
            last_answer: start,
            handshakes: 0,
            resumed: 0,
            failed: 0,
            failures: BTreeMap::new(),
            shaking: histogram(),
            sessions: histogram(),
            options,
        })
    }

    fn run(mut self) -> Result<Summary, Error> {
        let end = self.options.time.map(|time| self.start + time);
        let mut events = Vec::with_capacity(limits::EVENTS_MAX);
        let mut scratch = vec![0; limits::READ_BYTES];
        loop {
            let now = Instant::now();
            let stopped = self.options.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed));
            if self.handshakes >= self.quota || stopped || end.is_some_and(|end| now >= end) {
                return Ok(self.summary());
            }
            if now - self.last_answer > self.options.patience {
                let (seconds, handshakes) = (self.options.patience.as_secs(), self.handshakes);
                return Err(Error::Silent { seconds, handshakes });
            }
            let next = self.open(now)?;
            let until = [next, end].into_iter().flatten().min().unwrap_or(now + TURN).min(now + TURN);
            let wait = until.saturating_duration_since(now);
            let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::System("epoll", error.into())),
            }
            for event in &events {
                self.on_event(event.data.u64(), &mut scratch);
            }
        }
    }

    /// Opens what may be opened now; when the next may.
    fn open(&mut self, now: Instant) -> Result<Option<Instant>, Error> {
        let mut waiting = Vec::new();
        let mut next: Option<Instant> = None;
        while let Some(index) = self.free.pop() {
            let under_way = (self.slots.len() - self.free.len() - waiting.len() - 1) as u64;
            let is_late = |pace: &mut Pace| pace.next_due() > now;
            if self.handshakes + under_way >= self.quota || self.pace.as_mut().is_some_and(is_late) {
                waiting.push(index);
                next = self.pace.as_ref().map(Pace::next_due);
                break;
            }
            if self.slots[index].not_before > now {
                next = next.into_iter().chain([self.slots[index].not_before]).min();
                waiting.push(index);
                continue;
            }
            if let Some(pace) = &mut self.pace {
                pace.take(now);
            }
            match self.connect(index, now) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
                    return Err(Error::System("socket", error));
                }
                Err(error) => self.fail(index, &error.to_string(), now),
            }
        }
        self.free.extend(waiting);
        Ok(next)
    }

    fn connect(&mut self, index: usize, now: Instant) -> io::Result<()> {
        let stream = dial(&self.address)?;
        let slot = &mut self.slots[index];
        slot.generation = slot.generation.wrapping_add(1);
        let way = match (self.options.smtps, self.options.plain) {
            (true, _) => Way::AtOnce,
            (false, true) => Way::Not,
            (false, false) => Way::StartTls,
        };
        let dialogue = Dialogue::new(&slot.config, &self.name, way).map_err(io::Error::other)?;
        epoll::add(&self.epoll, &stream, data(index, slot.generation), epoll::EventFlags::OUT)?;
        slot.open = Some(Open { stream, dialogue, connected: false, opened: now, begun: None, writing: true });
        Ok(())
    }

    fn on_event(&mut self, data: u64, scratch: &mut [u8]) {
        let (index, generation) = ((data & 0xffff_ffff) as usize, (data >> 32) as u32);
        let slot = &mut self.slots[index];
        let Some(open) = slot.open.as_mut().filter(|_| slot.generation == generation) else { return };
        let now = Instant::now();
        match go_on(open, scratch, now) {
            Ok(Met::Done { resumed }) => {
                self.last_answer = now;
                self.handshakes += 1;
                self.resumed += u64::from(resumed);
                record(&mut self.sessions, now - open.opened);
                slot.open = None;
                self.free.push(index);
            }
            Ok(met) => {
                self.last_answer = now;
                if let (Met::Shaken, Some(begun)) = (met, open.begun) {
                    record(&mut self.shaking, now - begun);
                }
                self.watch(index, now);
            }
            Err(why) => self.fail(index, &why, now),
        }
    }

    fn watch(&mut self, index: usize, now: Instant) {
        let slot = &mut self.slots[index];
        let Some(open) = &mut slot.open else { return };
        let writing = !open.dialogue.out.is_empty();
        if writing == open.writing {
            return;
        }
        open.writing = writing;
        let flags = if writing { epoll::EventFlags::IN | epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
        if let Err(error) = epoll::modify(&self.epoll, &open.stream, data(index, slot.generation), flags) {
            self.fail(index, &error.to_string(), now);
        }
    }

    /// Ends a connection that came to nothing; its place waits a moment.
    fn fail(&mut self, index: usize, why: &str, now: Instant) {
        self.failed += 1;
        if let Some(count) = self.failures.get_mut(why) {
            *count += 1;
        } else if self.failures.len() < limits::FAILURES_MAX {
            self.failures.insert(why.to_owned(), 1);
        }
        self.slots[index].open = None;
        self.slots[index].not_before = now + limits::RECONNECT_MIN;
        self.free.insert(0, index);
    }

    fn summary(self) -> Summary {
        let seconds = (self.last_answer - self.start).as_secs_f64().max(1e-9);
        Summary {
            address: self.options.address.clone(),
            handshakes: self.handshakes,
            resumed: self.resumed,
            failed: self.failed,
            seconds,
            rate: self.handshakes as f64 / seconds,
            steps: vec![Latency::of("handshake", &self.shaking), Latency::of("session", &self.sessions)],
            failures: self.failures,
        }
    }
}

/// Takes what the socket has and says what is to be said.
fn go_on(open: &mut Open, scratch: &mut [u8], now: Instant) -> Result<Met, String> {
    let met = if open.connected {
        match open.stream.read(scratch) {
            Ok(0) => return Err("the server has closed the connection".to_owned()),
            Ok(count) => open.dialogue.on_bytes(&scratch[..count])?,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Met::More,
            Err(error) => return Err(error.to_string()),
        }
    } else {
        match rustix::net::sockopt::socket_error(&open.stream) {
            Ok(Ok(())) => open.connected = true,
            Ok(Err(error)) | Err(error) => return Err(error.to_string()),
        }
        open.dialogue.begin()
    };
    if met == Met::Begun {
        open.begun = Some(now);
    }
    if !open.dialogue.out.is_empty() {
        match open.stream.write(&open.dialogue.out) {
            Ok(written) => drop(open.dialogue.out.drain(..written)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(met)
}

fn record(histogram: &mut Histogram<u64>, took: Duration) {
    histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1));
}

fn data(index: usize, generation: u32) -> epoll::EventData {
    epoll::EventData::new_u64(index as u64 | u64::from(generation) << 32)
}

/// Longest wait, so that a stop flag is seen.
const TURN: Duration = Duration::from_millis(100);

//! The provider's mail server, and what it writes down.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringpost_io::sim::{SimRuntime, SimStream};
use ringpost_io::{Class, Listener, Runtime, Stream};

use super::{Limited, Manner, Scenario, provider};

pub(super) struct Server {
    pub(super) runtime: SimRuntime,
    limited: Limited,
    manner: Manner,
    /// Messages a second, or connections.
    limit: Cell<f64>,
    /// How many seconds' worth of messages may save up, and how many have.
    saves: f64,
    saved: Cell<(f64, Instant)>,
    thinks: Duration,
    open: Cell<usize>,
    /// Messages that clients have begun.
    pub(super) submitted: Cell<u64>,
    pub(super) taken: Cell<u64>,
    /// Every MAIL, and whether it was taken.
    offered: RefCell<Vec<(Instant, bool)>>,
    /// Every connection that came or went, or was refused: how many there were with it.
    seen: RefCell<Vec<(Instant, usize)>>,
    /// When connections were refused.
    refused: RefCell<Vec<Instant>>,
}

/// The connection is over.
pub(super) struct Over;

impl Server {
    pub(super) fn new(runtime: SimRuntime, scenario: &Scenario) -> Rc<Self> {
        let saved = Cell::new((0.0, runtime.now()));
        Rc::new(Self {
            runtime,
            limited: scenario.limited,
            manner: scenario.manner,
            limit: Cell::default(),
            saves: scenario.saves,
            saved,
            thinks: scenario.thinks,
            open: Cell::default(),
            submitted: Cell::default(),
            taken: Cell::default(),
            offered: RefCell::default(),
            seen: RefCell::default(),
            refused: RefCell::default(),
        })
    }

    /// From now on this is the limit.
    pub(super) fn allow(&self, limit: f64) {
        self.limit.set(limit);
    }

    fn takes(&self) -> bool {
        let (now, rate, (saved, at)) = (self.runtime.now(), self.limit.get(), self.saved.get());
        let saved = (saved + rate * (now - at).as_secs_f64()).min((rate * self.saves).max(1.0));
        let takes = self.limited == Limited::Connections || saved >= 1.0;
        self.saved.set((if takes { saved - 1.0 } else { saved }, now));
        self.offered.borrow_mut().push((now, takes));
        takes
    }

    fn lets_in(&self) -> bool {
        self.limited == Limited::Messages || (self.open.get() as f64) < self.limit.get()
    }

    fn see(&self, connections: usize) {
        self.seen.borrow_mut().push((self.runtime.now(), connections));
    }

    pub(super) async fn serve(self: Rc<Self>) {
        let listener = self.runtime.listen(SocketAddr::new(provider(), 25)).expect("the node is alive");
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let server = self.clone();
            if !self.lets_in() {
                self.see(self.open.get() + 1);
                self.refused.borrow_mut().push(self.runtime.now());
                self.runtime.spawn(Class::Session, async move {
                    let farewell = b"421 4.7.0 too many connections from your address\r\n";
                    // It may have gone.
                    let _ = stream.write_all(farewell).await;
                    server.runtime.sleep(Duration::from_secs(1)).await;
                });
                continue;
            }
            self.open.set(self.open.get() + 1);
            self.see(self.open.get());
            self.runtime.spawn(Class::Session, async move {
                // The client's leaving ends it.
                let _ = server.hold(&mut stream).await;
                server.open.set(server.open.get() - 1);
                server.see(server.open.get());
            });
        }
    }

    async fn hold(&self, stream: &mut SimStream) -> Result<(), Over> {
        let mut input = Vec::new();
        say(stream, "220 mx.sim\r\n").await?;
        loop {
            let line = line(stream, &mut input).await?;
            match line.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" => say(stream, "250 mx.sim\r\n").await?,
                "MAIL" if !self.takes() => match self.manner {
                    Manner::Farewell => return say(stream, FAREWELL).await,
                    Manner::Both if self.runtime.random_u64().is_multiple_of(2) => return say(stream, FAREWELL).await,
                    Manner::Both | Manner::Later => say(stream, "451 4.7.28 unusual rate of mail\r\n").await?,
                },
                "DATA" => {
                    say(stream, "354 go\r\n").await?;
                    while self::line(stream, &mut input).await? != "." {}
                    self.runtime.sleep(self.thinks).await;
                    self.taken.set(self.taken.get() + 1);
                    say(stream, "250 taken\r\n").await?;
                }
                "QUIT" => return say(stream, "221 bye\r\n").await,
                _ => say(stream, "250 ok\r\n").await?,
            }
        }
    }

    /// When a message or a connection was first refused since then.
    pub(super) fn first_refusal_since(&self, began: Instant) -> Option<Instant> {
        match self.limited {
            Limited::Messages => {
                let offered = self.offered.borrow();
                offered[offered.partition_point(|(at, _)| *at < began)..]
                    .iter()
                    .find(|(_, takes)| !takes)
                    .map(|(at, _)| *at)
            }
            Limited::Connections => self.refused.borrow().iter().find(|at| **at >= began).copied(),
        }
    }

    /// What was offered and taken in a piece of time, a second.
    pub(super) fn rates(&self, from: Instant, time: Duration) -> (f64, f64) {
        let offered = self.offered.borrow();
        let [begin, end] = [from, from + time].map(|limit| offered.partition_point(|(at, _)| *at < limit));
        let taken = offered[begin..end].iter().filter(|(_, takes)| *takes).count();
        ((end - begin) as f64 / time.as_secs_f64(), taken as f64 / time.as_secs_f64())
    }

    /// The most that was offered in so much time, a second, of all such pieces that begin in this one.
    pub(super) fn most_offered(&self, (from, end): (Instant, Instant), window: Duration) -> f64 {
        let offered = self.offered.borrow();
        let [begin, end] = [from, end].map(|limit| offered.partition_point(|(at, _)| *at < limit));
        let (mut most, mut last) = (0, begin);
        for first in begin..end {
            while last < end && offered[last].0 < offered[first].0 + window {
                last += 1;
            }
            most = most.max(last - first);
        }
        most as f64 / window.as_secs_f64()
    }

    /// How many connections there were in a piece of time: on average, and at most with those that were refused.
    pub(super) fn crowds(&self, from: Instant, time: Duration) -> (f64, usize) {
        let (mut sum, mut most, mut last) = (0.0, 0, (from, 0));
        let (seen, refused) = (self.seen.borrow(), self.refused.borrow());
        for (at, count) in seen.iter().filter(|(at, _)| *at < from + time) {
            if refused.binary_search(at).is_ok() {
                most = most.max(if *at >= from { *count } else { 0 });
                continue;
            }
            if *at >= from {
                sum += (*at - last.0).as_secs_f64() * last.1 as f64;
                most = most.max(*count).max(last.1);
            }
            last = ((*at).max(from), *count);
        }
        sum += (from + time - last.0).as_secs_f64() * last.1 as f64;
        (sum / time.as_secs_f64(), most.max(last.1))
    }
}

const FAREWELL: &str = "421 4.7.0 enough for now\r\n";

pub(super) async fn say(stream: &mut SimStream, text: &str) -> Result<(), Over> {
    stream.write_all(text.as_bytes()).await.map_err(|_| Over)
}

pub(super) async fn line(stream: &mut SimStream, input: &mut Vec<u8>) -> Result<String, Over> {
    loop {
        if let Some(end) = input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = input.drain(..=end).collect();
            return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        match stream.read(input, 8192).await {
            Ok(count) if count > 0 => {}
            _ => return Err(Over),
        }
    }
}

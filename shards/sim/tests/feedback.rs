//! A provider that takes so many messages a second, or so many connections, and says 451 or 421 to the rest: the engine's own
//! shard finds out how many, and again when that changes. Virtual time: minutes cost nothing.
//!
//! What "finds out" means. *Offered* is every MAIL, taken or not; *known* is a limit from its first refusal on.
//! - From then on, in every ten seconds, no more is offered than 1.2 times the limit.
//! - What is taken in the last five minutes of each phase is at least 0.9 of what the limit allows.

mod support;

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringpost_io::sim::{SimRuntime, SimStream, SimWorld};
use ringpost_io::{Class, Listener, Mailbox, Runtime, Stream};
use ringpost_shard::{Event, Order, Start};

const ENGINE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1));
const PROVIDER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 1));
const MINUTE: Duration = Duration::from_secs(60);
const WINDOW: Duration = Duration::from_secs(10);
/// Messages in the queue that were not taken yet: enough for the provider never to be without.
const BACKLOG: u64 = 400;

fn named(host: &str) -> Option<IpAddr> {
    (host == "mx.sim").then_some(PROVIDER)
}

/// How a provider says that it has enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// `451 4.7.28` at MAIL.
    Later,
    /// `421 4.7.0` at MAIL, and the end of the connection.
    Farewell,
}

struct Provider {
    runtime: SimRuntime,
    manner: Manner,
    /// Messages a second, of which it lets a second's worth save up.
    rate: Cell<f64>,
    saved: Cell<(f64, Instant)>,
    connections: Cell<usize>,
    /// How long it thinks about a message.
    thinks: Duration,
    open: Cell<usize>,
    taken: Cell<u64>,
    /// Every MAIL, and whether it was taken.
    offered: RefCell<Vec<(Instant, bool)>>,
    /// Every connection that came or went, or was refused: how many there were with it.
    seen: RefCell<Vec<(Instant, usize)>>,
    /// When connections were refused.
    refused: RefCell<Vec<Instant>>,
}

/// The connection is over.
struct Over;

impl Provider {
    fn new(runtime: SimRuntime, manner: Manner, rate: f64, connections: usize, thinks: Duration) -> Rc<Self> {
        let saved = Cell::new((rate, runtime.now()));
        Rc::new(Self {
            runtime,
            manner,
            rate: Cell::new(rate),
            saved,
            connections: Cell::new(connections),
            thinks,
            open: Cell::new(0),
            taken: Cell::new(0),
            offered: RefCell::default(),
            seen: RefCell::default(),
            refused: RefCell::default(),
        })
    }

    fn takes(&self) -> bool {
        let (now, rate, (saved, at)) = (self.runtime.now(), self.rate.get(), self.saved.get());
        let saved = (saved + rate * (now - at).as_secs_f64()).min(rate);
        let takes = saved >= 1.0;
        self.saved.set((if takes { saved - 1.0 } else { saved }, now));
        self.offered.borrow_mut().push((now, takes));
        takes
    }

    fn see(&self, connections: usize) {
        self.seen.borrow_mut().push((self.runtime.now(), connections));
    }

    async fn serve(self: Rc<Self>) {
        let listener = self.runtime.listen(SocketAddr::new(PROVIDER, 25)).expect("the node is alive");
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let provider = self.clone();
            if self.open.get() >= self.connections.get() {
                self.see(self.open.get() + 1);
                self.refused.borrow_mut().push(self.runtime.now());
                self.runtime.spawn(Class::Session, async move {
                    let farewell = b"421 4.7.0 too many connections from your address\r\n";
                    // It may have gone.
                    let _ = stream.write_all(farewell).await;
                    provider.runtime.sleep(Duration::from_secs(1)).await;
                });
                continue;
            }
            self.open.set(self.open.get() + 1);
            self.see(self.open.get());
            self.runtime.spawn(Class::Session, async move {
                // The client's leaving ends it.
                let _ = provider.hold(&mut stream).await;
                provider.open.set(provider.open.get() - 1);
                provider.see(provider.open.get());
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
                    Manner::Later => say(stream, "451 4.7.28 unusual rate of mail\r\n").await?,
                    Manner::Farewell => return say(stream, "421 4.7.0 enough for now\r\n").await,
                },
                "DATA" => {
                    say(stream, "354 go\r\n").await?;
                    while line_of(&mut input, stream).await? != "." {}
                    self.runtime.sleep(self.thinks).await;
                    self.taken.set(self.taken.get() + 1);
                    say(stream, "250 taken\r\n").await?;
                }
                "QUIT" => return say(stream, "221 bye\r\n").await,
                _ => say(stream, "250 ok\r\n").await?,
            }
        }
    }

    /// What was offered and taken in a piece of time, a second.
    fn rates(&self, from: Instant, time: Duration) -> (f64, f64) {
        let offered = self.offered.borrow();
        let within = offered.iter().filter(|(at, _)| *at >= from && *at < from + time);
        let (all, taken) = within.fold((0, 0), |(all, taken), (_, takes)| (all + 1, taken + i32::from(*takes)));
        (f64::from(all) / time.as_secs_f64(), f64::from(taken) / time.as_secs_f64())
    }

    /// How many connections there were in a piece of time: on average, and at most with those that were refused.
    fn crowds(&self, from: Instant, time: Duration) -> (f64, usize) {
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

async fn say(stream: &mut SimStream, text: &str) -> Result<(), Over> {
    stream.write_all(text.as_bytes()).await.map_err(|_| Over)
}

async fn line(stream: &mut SimStream, input: &mut Vec<u8>) -> Result<String, Over> {
    line_of(input, stream).await
}

async fn line_of(input: &mut Vec<u8>, stream: &mut SimStream) -> Result<String, Over> {
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

/// Keeps [`BACKLOG`] messages in the queue.
async fn submit(runtime: SimRuntime, provider: Rc<Provider>) {
    let stream = runtime.connect(SocketAddr::new(ENGINE, 25), None, Duration::from_secs(30)).await;
    let mut stream = stream.expect("the engine listens");
    let (mut input, mut number) = (Vec::new(), 0);
    let greeting = line(&mut stream, &mut input).await.unwrap_or_default();
    assert!(greeting.starts_with("220"), "{greeting}");
    loop {
        if number >= provider.taken.get() + BACKLOG {
            runtime.sleep(Duration::from_millis(100)).await;
            continue;
        }
        number += 1;
        for said in ["HELO client.sim", "MAIL FROM:<>", "RCPT TO:<r@mx.sim>", "DATA", "Subject: x\r\n\r\nhello\r\n."] {
            let heard = match say(&mut stream, &format!("{said}\r\n")).await {
                Ok(()) => line(&mut stream, &mut input).await.unwrap_or_default(),
                Err(Over) => return,
            };
            assert!(heard.starts_with(['2', '3']), "{said}: {heard}");
        }
    }
}

struct World {
    world: SimWorld,
    provider: Rc<Provider>,
    /// Lines of the log about the pace.
    told: Rc<RefCell<Vec<String>>>,
    _orders: ringpost_io::Sender<Order>,
}

/// An engine of one shard, a client that never runs dry, and a provider.
fn world(shaping: &str, manner: Manner, rate: f64, connections: usize, thinks: Duration) -> World {
    let world = SimWorld::new(11);
    let text = format!(
        "listen on 10.0.1.1 port 25\nsmtp limit max-mails 1000000\n{shaping}\
         action out relay host \"smtp+notls://mx.sim\"\nmatch from any for any action out\n"
    );
    let provider = Provider::new(world.node_at("mx", PROVIDER), manner, rate, connections, thinks);
    provider.runtime.spawn(Class::Session, provider.clone().serve());
    let runtime = world.node_at("engine", ENGINE);
    let told: Rc<RefCell<Vec<String>>> = Rc::default();
    let (noted, clock, began) = (told.clone(), runtime.clone(), runtime.now());
    let (sender, orders) = Mailbox::new(8);
    let start = Start {
        events: Rc::new(move |event| {
            if let Event::Paced { .. } = event {
                noted.borrow_mut().push(format!("{:?} {event}", clock.now() - began));
            }
        }),
        ..support::start(&world, &runtime, ENGINE, named, support::config(&text), orders)
    };
    runtime.spawn(Class::Session, async move { drop(ringpost_shard::run(start).await) });
    world.run_for(Duration::from_secs(1));
    let client = world.node("client");
    client.spawn(Class::Session, submit(client.clone(), provider.clone()));
    World { world, provider, told, _orders: sender }
}

fn the_rate_is_found(manner: Manner) {
    let World { world, provider, told, _orders } = world("", manner, 20.0, 1000, Duration::ZERO);
    for (limit, minutes) in [(20.0, 10), (40.0, 20), (15.0, 10)] {
        provider.rate.set(limit);
        let (began, time) = (world.now(), MINUTE * minutes);
        world.run_for(time);
        let told = told.take();
        let known = provider.offered.borrow().iter().find(|(at, takes)| *at >= began && !takes).map(|(at, _)| *at);
        let known = known.expect("nobody finds a limit that is never met");
        let mut window = known;
        while window + WINDOW <= began + time {
            let (offered, _) = provider.rates(window, WINDOW);
            let after = window - known;
            assert!(offered <= 1.2 * limit, "{offered} a second of {limit}, {after:?} after it was known: {told:#?}");
            window += WINDOW / 5;
        }
        let settled = MINUTE * 5;
        let (offered, taken) = provider.rates(began + time - settled, settled);
        assert!(taken >= 0.9 * limit && offered <= 1.1 * limit, "{taken} of {offered} a second at {limit}: {told:#?}");
        assert!(!told.is_empty(), "the log says what was learnt");
    }
}

#[test]
fn the_rate_that_a_provider_takes_is_found_within_a_tenth_and_not_exceeded_by_more_than_a_fifth() {
    the_rate_is_found(Manner::Later);
}

#[test]
fn the_same_where_it_takes_its_leave() {
    the_rate_is_found(Manner::Farewell);
}

#[test]
fn so_are_the_connections_that_a_provider_bears() {
    let shaping = "shaping default { connections 40, messages-per-connection 20 }\n";
    let World { world, provider, told, _orders } = world(shaping, Manner::Later, 1e6, 10, Duration::from_secs(1));
    for (limit, minutes) in [(10, 12), (20, 20), (8, 12)] {
        provider.connections.set(limit);
        let (began, time) = (world.now(), MINUTE * minutes);
        world.run_for(time);
        let told = told.take();
        let known = provider.refused.borrow().iter().find(|at| **at >= began).copied();
        // Those that a provider has let in stay when it lets fewer in; each ends within half a minute, and the next attempts
        // are seconds apart.
        let mut window = known.expect("nobody finds a limit that is never met") + 2 * MINUTE;
        while window + WINDOW <= began + time {
            let (_, most) = provider.crowds(window, WINDOW);
            assert!(most * 10 <= limit * 12, "{most} of {limit}, {:?} after: {told:#?}", window - began);
            window += WINDOW / 5;
        }
        let (mean, _) = provider.crowds(began + time - MINUTE * 5, MINUTE * 5);
        assert!(mean >= 0.9 * limit as f64, "{mean} of {limit} connections: {told:#?}");
        assert!(told.iter().any(|line| line.contains("connections=")), "{told:#?}");
    }
}

//! An engine as in production, in virtual time: what comes in at it is relayed to sites beside it that take everything.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ringpost_io::sim::{SimRuntime, SimStream, SimWorld};
use ringpost_io::{Class, Listener, Mailbox, Runtime, Sender, Stream};
use ringpost_shard::{DeliveryResult, Event, Order, Start};

pub const ENGINE: Ipv4Addr = Ipv4Addr::new(10, 0, 1, 1);

/// Sites are named `sN.sim`, or `bothN.sim`.
pub fn address(host: &str) -> Option<IpAddr> {
    let number = host.strip_prefix('s').or_else(|| host.strip_prefix("both"))?;
    let number: u32 = number.strip_suffix(".sim")?.parse().ok()?;
    Some(Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 1, 0, 1)) + number).into())
}

/// A message on its way in, with one recipient.
#[derive(Clone)]
pub struct Message {
    /// When it is submitted, after the first.
    pub at: Duration,
    pub sender: String,
    pub recipient: String,
}

/// Recipients in the order of their delivery, each with the time that has passed since its message was taken.
pub type Ends = Rc<RefCell<Vec<(String, Duration)>>>;

/// An engine of one shard that relays all to the exchangers of its domain; lives until it is dropped.
pub struct Engine {
    pub orders: Sender<Order>,
    pub runtime: SimRuntime,
    pub submitted: Rc<RefCell<BTreeMap<String, Duration>>>,
    pub ends: Ends,
    /// Attempts that came to nothing.
    pub deferred: Rc<Cell<usize>>,
}

/// What an engine is told.
#[derive(Clone, Copy, Default)]
pub struct Told<'a> {
    /// Behind `relay`.
    pub relay: &'a str,
    /// More statements.
    pub settings: &'a str,
    /// Mail may have to wait for another attempt.
    pub may_defer: bool,
    /// So many questions to the ledger of warm-ups are never answered.
    pub silent: u32,
}

impl Engine {
    pub fn start(world: &Rc<SimWorld>, settings: &str) -> Self {
        Self::start_as(world, Told { settings, ..Told::default() })
    }

    pub fn start_as(world: &Rc<SimWorld>, told: Told<'_>) -> Self {
        let Told { relay, settings, may_defer, silent } = told;
        let text = format!(
            "listen on {ENGINE} port 25\naction out relay {relay}\nmatch from any for any action out\n\
             smtp limit max-mails 1000000\n{settings}"
        );
        let runtime = world.node_at("engine", ENGINE.into());
        let (orders, mailbox) = Mailbox::new(8);
        let node = runtime.clone();
        let (submitted, ends) = (Rc::<RefCell<BTreeMap<String, Duration>>>::default(), Ends::default());
        let (since, noted, clock) = (submitted.clone(), ends.clone(), world.clone());
        let deferred = Rc::<Cell<usize>>::default();
        let put_off = deferred.clone();
        let start = super::start(world, &runtime, ENGINE.into(), address, super::config(&text), mailbox);
        start.ask.silent.set(silent);
        let start = Start {
            events: Rc::new(move |event| {
                if let Event::Warning(text) = event {
                    assert!(!text.contains("an error of ringpost"), "{text}");
                }
                if let Event::Delivery { recipient, result, .. } = event {
                    if may_defer && *result == DeliveryResult::TempFail {
                        return put_off.set(put_off.get() + 1);
                    }
                    assert_eq!(*result, DeliveryResult::Ok, "{event}");
                    let recipient = (*recipient).to_owned();
                    let began = since.borrow()[&recipient];
                    noted.borrow_mut().push((recipient, clock.elapsed() - began));
                }
            }),
            ..start
        };
        runtime.spawn(Class::Session, async move { drop(ringpost_shard::run(start).await) });
        world.run_for(Duration::from_secs(1));
        Self { orders, runtime: node, submitted, ends, deferred }
    }

    /// Clients submit these, each at its time as far as one connection allows; who has the first, has every `clients`th.
    pub fn submit(&self, world: &Rc<SimWorld>, messages: &[Message], clients: usize) {
        let began = world.elapsed();
        for client in 0..clients {
            let its: Vec<Message> = messages.iter().skip(client).step_by(clients).cloned().collect();
            let (runtime, clock) = (world.node(&format!("client{client}")), world.clone());
            let (submitted, spawner) = (self.submitted.clone(), runtime.clone());
            spawner.spawn(Class::Session, async move {
                let mut dialogue = Dialogue::open(&runtime).await;
                for Message { at, sender, recipient } in its {
                    runtime.sleep((began + at).saturating_sub(clock.elapsed())).await;
                    // Before the answer: it may be delivered before that is heard.
                    submitted.borrow_mut().insert(recipient.clone(), clock.elapsed());
                    dialogue.say(&format!("MAIL FROM:<{sender}>\r\nRCPT TO:<{recipient}>\r\nDATA\r\n"), 3).await;
                    dialogue.say("Subject: x\r\n\r\nhello\r\n.\r\n", 1).await;
                }
            });
        }
    }
}

pub struct Dialogue {
    stream: SimStream,
    heard: Vec<u8>,
}

impl Dialogue {
    pub async fn open(runtime: &SimRuntime) -> Self {
        let stream = runtime.connect((ENGINE, 25).into(), None, Duration::from_secs(30)).await;
        let mut dialogue = Self { stream: stream.expect("the engine listens"), heard: Vec::new() };
        dialogue.say("", 1).await;
        dialogue.say("HELO client.sim\r\n", 1).await;
        dialogue
    }

    /// Says something and hears so many lines.
    pub async fn say(&mut self, text: &str, lines: usize) {
        self.stream.write_all(text.as_bytes()).await.expect("the engine listens");
        for _ in 0..lines {
            let line = line(&mut self.stream, &mut self.heard).await.expect("an answer");
            assert!(line.starts_with(['2', '3']), "{text}{line}");
        }
    }
}

async fn line(stream: &mut SimStream, raw: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = raw.iter().position(|byte| *byte == b'\n') {
            return Some(String::from_utf8_lossy(&raw.drain(..=end).collect::<Vec<u8>>()).into_owned());
        }
        stream.read(raw, 8192).await.ok().filter(|count| *count > 0)?;
    }
}

/// A site that takes everything.
pub fn serve(world: &SimWorld, number: usize) {
    let name = format!("s{number}.sim");
    serve_at(world, &name, address(&name).expect("a site"));
}

/// What a site has seen of a connection.
pub struct Visit {
    pub from: IpAddr,
    /// Lines that have come.
    pub lines: usize,
    /// When the first did.
    pub began: Option<Instant>,
    /// When it took its leave.
    pub left: Option<Instant>,
}

pub type Seen = Rc<RefCell<Vec<Visit>>>;

/// A node of this name and address with a site that takes everything.
pub fn serve_at(world: &SimWorld, name: &str, at: IpAddr) -> Seen {
    let runtime = world.node_at(name, at);
    let listener = runtime.listen((at, 25).into()).expect("the node is alive");
    let spawner = runtime.clone();
    let seen = Seen::default();
    let connections = seen.clone();
    runtime.spawn(Class::Session, async move {
        while let Ok((mut stream, peer)) = listener.accept().await {
            let number = connections.borrow().len();
            let from = peer.address().expect("by TCP").ip();
            connections.borrow_mut().push(Visit { from, lines: 0, began: None, left: None });
            let (seen, clock) = (connections.clone(), spawner.clone());
            spawner.spawn(Class::Session, async move {
                let (mut raw, mut in_text, mut said) = (Vec::new(), false, "220 mx.sim\r\n");
                loop {
                    if !said.is_empty() && stream.write_all(said.as_bytes()).await.is_err() {
                        return;
                    }
                    let Some(line) = line(&mut stream, &mut raw).await else { return };
                    let visit = &mut seen.borrow_mut()[number];
                    visit.lines += 1;
                    visit.began.get_or_insert(clock.now());
                    if line == "QUIT\r\n" {
                        visit.left = Some(clock.now());
                    }
                    said = match (in_text, line.as_str()) {
                        (true, ".\r\n") => "250 taken\r\n",
                        (true, _) => "",
                        (false, "DATA\r\n") => "354 go\r\n",
                        (false, _) => "250 ok\r\n",
                    };
                    in_text = matches!(said, "" | "354 go\r\n");
                }
            });
        }
    });
    seen
}

//! What it costs to decide which envelope goes next: 1,000,000 for 10,000 domains on 200 sites, half of them for one site, are
//! given to a shard's books (`stock`, at home) and to its routes (at the owner), as the engine does, and taken until all have
//! gone. Prints nanoseconds of the processor per decision, so that what else runs on it does not count, and bytes per waiting
//! envelope. For measurements alone.
//!
//! `cargo run --release -p ringpost-bench --example scheduler [ENVELOPES]`

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringpost_queue::MessageId;
use ringpost_routes::{Attempt, Helo, Host, Limits, Next, RouteId, Routes, Shape, Site, Waiting, sender_key};
use ringpost_shard::stock::{Place, Room, Stock, Taken};

const ENVELOPES: u64 = 1_000_000;
const DOMAINS: u64 = 10_000;
const SITES: u64 = 200;
const BODY_BYTES: u64 = 4096;
/// As many as a shard has out at once.
const BOUNDS: Room =
    Room { messages: ringpost_shard::limits::FLIGHTS, bytes: ringpost_shard::limits::KEPT_BODIES_BYTES };

/// What the routes need to know of a ticket.
struct Ticket {
    sender: u32,
    site: u64,
    taken: Taken,
}

impl Waiting for Ticket {
    fn sender(&self) -> u32 {
        self.sender
    }

    fn bytes(&self) -> u64 {
        BODY_BYTES
    }
}

/// Every second envelope is for the first site; the others go round.
fn site_of(envelope: u64) -> u64 {
    if envelope.is_multiple_of(2) { 0 } else { 1 + envelope / 2 % (SITES - 1) }
}

/// A shard as far as it decides.
struct Shard {
    sites: Vec<Site>,
    senders: Vec<String>,
    hosts: Arc<[Host]>,
    shape: Arc<Shape>,
    stock: Stock,
    routes: Routes<Ticket>,
    used: Room,
    /// Connections, each with how many messages it has carried.
    open: VecDeque<(RouteId, u64)>,
}

impl Shard {
    fn new() -> Self {
        let site = |number| Site::new(&[host(number)], &[], Helo::Name("us".into()));
        Self {
            sites: (0..SITES).map(site).collect(),
            senders: (0..DOMAINS).map(|domain| format!("sender@d{domain}.example")).collect(),
            hosts: vec![host(0)].into(),
            shape: Arc::default(),
            stock: Stock::new(BOUNDS),
            routes: Routes::new(Limits::default()),
            used: Room::default(),
            open: VecDeque::new(),
        }
    }

    /// An envelope has come, or was read back. True: it is out; else it waits at home.
    fn offer(&mut self, envelope: u64, now: Instant) -> bool {
        let site = site_of(envelope);
        let sender = sender_key(&self.senders[(envelope % DOMAINS) as usize], 0);
        let place = &self.sites[site as usize];
        let Some(taken) = self.stock.take(place, sender, BODY_BYTES as usize, self.used) else {
            self.stock.wait(place, Place::new(MessageId(envelope), 0, sender, BODY_BYTES));
            return false;
        };
        self.used = Room { messages: self.used.messages + 1, bytes: self.used.bytes + BODY_BYTES as usize };
        let ticket = Ticket { sender, site, taken };
        assert!(self.routes.push(place, (&self.hosts, &self.shape), ticket, now).is_ok(), "no route is full");
        true
    }

    /// Connections are opened, the next one takes its next ticket, and that is delivered. True: one was.
    fn deliver(&mut self, now: Instant) -> bool {
        while let Some((route, _, _)) = self.routes.open_next(now) {
            self.routes.attempted(route, Attempt::Connected, now, "");
            self.open.push_back((route, 0));
        }
        let Some((route, carried)) = self.open.pop_front() else { return false };
        match self.routes.next(route, carried, || now) {
            Next::Send(ticket) => {
                self.used = Room { messages: self.used.messages - 1, bytes: self.used.bytes - BODY_BYTES as usize };
                black_box(ticket.site);
                self.stock.give_back(ticket.taken, self.used);
                self.open.push_back((route, carried + 1));
                true
            }
            Next::Wait | Next::Later(_) | Next::Spent(_) | Next::Close => {
                self.routes.closed(route, now);
                false
            }
        }
    }
}

fn host(number: u64) -> Host {
    Host {
        preference: 10,
        name: format!("mx.s{number}.example"),
        addresses: vec!["192.0.2.1:25".parse().expect("an address")],
        channel: Default::default(),
        tlsa: None,
        held: None,
        speech: Default::default(),
    }
}

/// Time that this thread has had on a processor.
fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok()).expect("a number of nanoseconds");
    Duration::from_nanos(nanoseconds)
}

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}

fn main() {
    let asked = std::env::args().nth(1).map(|asked| asked.parse().expect("a number of envelopes"));
    let envelopes: u64 = asked.unwrap_or(ENVELOPES);
    let (mut shard, now) = (Shard::new(), Instant::now());

    let before = resident();
    let began = busy();
    let out = (0..envelopes).filter(|envelope| shard.offer(*envelope, now)).count() as u64;
    let filling = busy() - began;
    let waiting = envelopes - out;
    let bytes = resident() - before;
    let each = |time: Duration, count: u64| time.as_nanos() / u128::from(count.max(1));
    println!("{envelopes} envelopes for {DOMAINS} domains on {SITES} sites, half of them for one");
    println!("coming in   {:6} ns each; {out} are out, {waiting} wait at home", each(filling, envelopes));
    println!("memory      {:6} bytes for each that waits, tickets that are out counted in", bytes / waiting.max(1));

    let (mut delivered, mut decisions) = (0, 0);
    let began = busy();
    while delivered < envelopes {
        decisions += 1;
        delivered += u64::from(shard.deliver(now));
        for (id, _) in shard.stock.next(ringpost_shard::limits::CLAIM, shard.used, |_, _| true) {
            shard.offer(id.0, now);
        }
    }
    let draining = busy() - began;
    println!(
        "going out   {:6} ns each, from home to the connection and back; {decisions} turns",
        each(draining, envelopes)
    );
    println!("together    {:6} ns for each envelope", each(filling + draining, envelopes));
}

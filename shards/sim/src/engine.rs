//! The engine in the simulated world: the shards of one node, started, stopped and killed.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use ringpost_conf::expand::User;
use ringpost_conf::{BounceLimits, Config, Memory, Options, Rate, load};
use ringpost_io::sim::{SimMesh, SimRuntime, SimWorld};
use ringpost_io::{Class, Mailbox, Runtime, Sender};
use ringpost_perf::Counters;
use ringpost_queue::MessageId;
use ringpost_shard::{
    Backscatter, Concerned, Event, Letter, Onward, Order, Overrides, Plant, Selector, Start, Why, World,
};

use crate::coordinator::{ENGINE, LISTS, MEMBERS, Mood, Names, PROGRAMS};
use crate::limits;
use crate::programs::{Health, Programs};
use crate::promises::Ledger;

/// Name of the engine's node.
pub(crate) const NODE: &str = "engine";
/// The engine's mail server.
pub(crate) const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(ENGINE), 25);
/// Replies with these status codes suspend a site, and slow it down.
pub(crate) const SUSPENDS: &str = "4.7.98";
pub(crate) const THROTTLES: &str = "4.7.99";

/// The types of a simulated engine.
struct Simulated;

impl World for Simulated {
    type R = SimRuntime;
    type M = SimMesh<Letter>;
    type A = Names<SimRuntime>;
    type H = Programs<SimRuntime>;
}

/// One life of the engine.
pub(crate) struct Engine {
    orders: Vec<Sender<Order>>,
    /// Shards whose `run` has returned, and errors of opening.
    ended: Rc<Cell<usize>>,
    failed: Rc<RefCell<Option<String>>>,
}

/// What stays the same over all lives.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) config: Arc<Config>,
    pub(crate) mood: Rc<Cell<Mood>>,
    pub(crate) health: Rc<Cell<Health>>,
    pub(crate) ledger: Rc<RefCell<Ledger>>,
    pub(crate) plant: Plant,
    pub(crate) trace: bool,
    /// Hears of every event.
    pub(crate) heard: Rc<dyn Fn(&Event<'_>)>,
    /// Of all shards, over all lives.
    pub(crate) counters: Arc<Counters>,
}

/// The configuration that is written so; it listens at [`ADDRESS`].
pub(crate) fn configuration(text: &str) -> Config {
    let files = Memory::default()
        .with("/ringpost.conf", format!("listen on {ENGINE} port 25\n{text}"))
        .with("/members.conf", "url redis://10.0.4.1\nalias_prefix a:\n");
    let loaded = load(&files, Path::new("/ringpost.conf"), &Options::default());
    loaded.unwrap_or_else(|reports| panic!("{reports}")).0
}

/// A configuration that relays everything by MX, lists to their members, users' mail to their programs, with small segments.
pub(crate) fn config(ttl: Option<Duration>) -> Arc<Config> {
    let ttl = ttl.map_or_else(String::new, |ttl| format!("queue ttl {}s\n", ttl.as_secs()));
    let cache = limits::MEMBERS_CACHE.as_secs();
    let mut config = configuration(&format!(
        "table {MEMBERS} redis:/members.conf cache {cache}s\n\
         shaping default {{ on reply {{ \"{SUSPENDS}\" }} suspend 20s, on reply {{ \"{THROTTLES}\" }} throttle 50% }}\n\
         shaping slow domain \"d5.sim\" {{ rate 20/s, connections 2, messages-per-connection 5 }}\n\
         {ttl}\
         action out relay\n\
         action lists relay virtual <{MEMBERS}>\n\
         action programs mda \"/bin/take\"\n\
         match from any for domain \"{LISTS}\" action lists\n\
         match from any for domain \"{PROGRAMS}\" action programs\n\
         match from any for any action out\n"
    ));
    // Its clients are strangers, and the promises are held against each of their messages.
    let all = Rate { count: u32::MAX, per: Duration::from_secs(1) };
    config.bounce.limits = BounceLimits { per_sender: all, per_domain: all, total: all };
    config.store.segment_bytes = limits::SEGMENT_BYTES;
    config.store.spool_memory_bytes = 32 * 1024;
    Arc::new(config)
}

impl Engine {
    /// Starts all shards; whether their queues open shows later.
    pub(crate) fn start(world: &SimWorld, site: &Site) -> Self {
        let (ended, failed) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(None)));
        let (mut orders, backscatter) = (Vec::new(), Arc::new(Backscatter::default()));
        for mesh in world.mesh::<Letter>(limits::SHARDS, 256) {
            let runtime = world.node_at(NODE, ENGINE.into());
            let (sender, mailbox) = Mailbox::new(64);
            orders.push(sender);
            let listener = runtime.listen(ADDRESS).expect("the node is alive");
            let (note, trace, clock) = (failed.clone(), site.trace, runtime.clone());
            let heard = site.heard.clone();
            let start: Start<Simulated> = Start {
                runtime: runtime.clone(),
                mesh,
                ask: Names { runtime: runtime.clone(), mood: site.mood.clone(), ledger: site.ledger.clone() },
                hand: Programs { runtime: runtime.clone(), health: site.health.clone(), ledger: site.ledger.clone() },
                connector: Default::default(),
                own: User { name: "ringpost".into(), uid: 1, gid: 1, home: "/".into(), in_table: false },
                near: None,
                listeners: vec![(listener, 0)],
                config: site.config.clone(),
                servers: Default::default(),
                state: PathBuf::from("/state"),
                hostname: "engine.sim".into(),
                orders: mailbox,
                limits: Default::default(),
                events: Rc::new(move |event| {
                    if trace {
                        eprintln!("{} {event}", clock.unix_ms());
                    }
                    heard(event);
                }),
                counters: site.counters.clone(),
                backscatter: backscatter.clone(),
                ready: Box::new(move |result| {
                    if let Err(why) = result {
                        *note.borrow_mut() = Some(why);
                    }
                }),
                plant: site.plant,
            };
            let ended = ended.clone();
            runtime.spawn(Class::Session, async move {
                // What went wrong has been told to `ready`.
                let _ = ringpost_shard::run(start).await;
                ended.set(ended.get() + 1);
            });
        }
        Self { orders, ended, failed }
    }

    /// Asks all shards to stop.
    pub(crate) fn stop(&self) {
        for orders in &self.orders {
            // A shard that has failed to start has no mailbox any more.
            let _ = orders.try_send(Order::Stop);
        }
    }

    /// Limits of routes are these from now on, as when the coordinator was told so; `changed` are those that were there
    /// before or are new.
    pub(crate) fn limit(&self, world: &SimWorld, limits: &Overrides, changed: &Overrides) {
        self.ask(world, |_, answer| Order::Limit(limits.clone(), answer));
        for orders in &self.orders {
            // As above.
            let _ = orders.try_send(Order::Recall(Concerned::Of(changed.clone())));
        }
    }

    /// Messages in the queue of all shards.
    pub(crate) fn queued(&self, world: &SimWorld) -> u64 {
        let reports = self.ask(world, |_, answer| Order::Stats(answer));
        reports.into_iter().flatten().map(|report| report.queue.messages).sum()
    }

    /// What all that is queued waits for, as `ringpost why all` tells it. `None`: a shard does not say.
    pub(crate) fn why(&self, world: &SimWorld) -> Option<Vec<Why>> {
        let asked = self.ask(world, |_, answer| Order::Why(Selector::All, answer));
        let mut all: Vec<(Why, Onward)> =
            asked.into_iter().collect::<Option<Vec<_>>>()?.into_iter().flatten().collect();
        let at = |owner: usize| {
            let there = |(_, onward): &(Why, Onward)| onward.as_ref().is_some_and(|(of, _)| *of == owner);
            all.iter().enumerate().filter(|(_, one)| there(one)).map(|(number, _)| number).collect::<Vec<_>>()
        };
        let numbers: Vec<Vec<usize>> = (0..self.orders.len()).map(at).collect();
        let told = self.ask(world, |owner, answer| {
            let messages = numbers[owner].iter().filter_map(|number| {
                let (why, onward) = &all[*number];
                Some((why.envelope.id.parse::<MessageId>().ok()?.0, onward.as_ref()?.1.clone()))
            });
            Order::AtRoutes(messages.collect(), answer)
        });
        for (numbers, told) in numbers.into_iter().zip(told) {
            for (number, blocked) in numbers.into_iter().zip(told?) {
                blocked.into_iter().for_each(|blocked| all[number].0.with_route(blocked));
            }
        }
        Some(all.into_iter().map(|(why, _)| why).collect())
    }

    /// Asks every shard; one that does not answer in time, or has ended, says nothing.
    fn ask<T>(&self, world: &SimWorld, order: impl Fn(usize, oneshot::Sender<T>) -> Order) -> Vec<Option<T>> {
        let waiting: Vec<oneshot::Receiver<T>> = self
            .orders
            .iter()
            .enumerate()
            .map(|(number, orders)| {
                let (answer, wait) = oneshot::channel();
                // Whoever has no mailbox any more drops it.
                let _ = orders.try_send(order(number, answer));
                wait
            })
            .collect();
        let answers = world.block_on_within(limits::LOOK_ANSWER, async {
            let mut answers = Vec::new();
            for wait in waiting {
                answers.push(wait.await.ok());
            }
            answers
        });
        answers.unwrap_or_else(|| self.orders.iter().map(|_| None).collect())
    }

    /// Whether all shards have returned.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get() == limits::SHARDS
    }

    /// Why a shard did not start, if one did not.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failed.borrow().clone()
    }
}

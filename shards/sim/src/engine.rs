//! The engine in the simulated world: the shards of one node, started, stopped and killed.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use ringpost_conf::expand::User;
use ringpost_conf::tables::{DomainSet, MemoryTable, ServiceKind};
use ringpost_conf::{
    ActionKind, Among, Backend, Config, Dest, Keyed, Line, Mapping, Match, Quickstart, Table, TableId, TableOptions,
};
use ringpost_io::sim::{SimMesh, SimRuntime, SimWorld};
use ringpost_io::{Class, Mailbox, Runtime, Sender};
use ringpost_perf::Counters;
use ringpost_queue::Plant;
use ringpost_shard::{Event, Letter, Order, Start, World};

use crate::coordinator::{LISTS, MEMBERS, Names, Nobody};
use crate::limits;

/// Name of the engine's node.
pub(crate) const NODE: &str = "engine";

/// The types of a simulated engine.
struct Simulated;

impl World for Simulated {
    type R = SimRuntime;
    type M = SimMesh<Letter>;
    type A = Names<SimRuntime>;
    type H = Nobody;
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
    pub(crate) address: SocketAddr,
    pub(crate) names_fail_one_in: Rc<Cell<u64>>,
    pub(crate) plant: Plant,
    pub(crate) trace: bool,
    /// By how much the message outlived its expiry that did so most, if one did by more than it may.
    pub(crate) overdue: Rc<Cell<Option<Duration>>>,
    /// Of all shards, over all lives.
    pub(crate) counters: Arc<Counters>,
}

/// A configuration that relays everything by MX, lists to their members, with small segments.
pub(crate) fn config(address: IpAddr, ttl: Option<Duration>) -> Arc<Config> {
    let state = Path::new("/state");
    let listen = Quickstart { listen: vec![(address, 25).into()], page: None };
    let mut config = Config::quickstart(state, &listen);
    let mut relay = config.actions.remove(0);
    relay.kind = ActionKind::Relay(Box::default());
    let mut lists = relay.clone();
    lists.name = "lists".into();
    lists.mapping = Some(Mapping::Virtual(Keyed::Remote(TableId(0))));
    config.actions = vec![relay, lists];
    if let Some(ttl) = ttl {
        config.queue.ttl = ttl;
        config.actions.iter_mut().for_each(|action| action.ttl = ttl);
    }
    config.tables.push(Table {
        name: MEMBERS.into(),
        backend: Backend::Redis { path: "/members.conf".into() },
        options: TableOptions { cache: limits::MEMBERS_CACHE, ..TableOptions::default() },
        services: vec![ServiceKind::Alias],
        memory: MemoryTable::default(),
        line: Line::built_in(),
        statement: String::new(),
    });
    let mut domains = DomainSet::default();
    assert!(domains.insert(LISTS), "it is a domain");
    let mut rule = Match::everything(1, Line::built_in());
    rule.dest.1 = Dest::Domain(Among::Table(Arc::new(domains)));
    config.matches.insert(0, rule);
    config.store.segment_bytes = limits::SEGMENT_BYTES;
    config.store.spool_memory_bytes = 32 * 1024;
    Arc::new(config)
}

impl Engine {
    /// Starts all shards; whether their queues open shows later.
    pub(crate) fn start(world: &SimWorld, site: &Site) -> Self {
        let (ended, failed) = (Rc::new(Cell::new(0)), Rc::new(RefCell::new(None)));
        let mut orders = Vec::new();
        for mesh in world.mesh::<Letter>(limits::SHARDS, 256) {
            let runtime = world.node_at(NODE, site.address.ip());
            let (sender, mailbox) = Mailbox::new(64);
            orders.push(sender);
            let listener = runtime.listen(site.address).expect("the node is alive");
            let (note, trace, clock) = (failed.clone(), site.trace, runtime.clone());
            let (overdue, ttl) = (site.overdue.clone(), site.config.queue.ttl);
            let start: Start<Simulated> = Start {
                runtime: runtime.clone(),
                mesh,
                ask: Names { runtime: runtime.clone(), fails_one_in: site.names_fail_one_in.clone() },
                hand: Nobody,
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
                    // What a server was told meanwhile may take as long as it takes.
                    if let Event::Delivery { age, delays, .. } = event {
                        let waited = age.saturating_sub(delays.connect + delays.talk);
                        let by = waited.saturating_sub(ttl);
                        if by > limits::EXPIRY_GRACE && overdue.get().is_none_or(|most| by > most) {
                            overdue.set(Some(by));
                        }
                    }
                }),
                counters: site.counters.clone(),
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

    /// Messages in the queue of all shards.
    pub(crate) fn queued(&self, world: &SimWorld) -> u64 {
        let mut messages = 0;
        for orders in &self.orders {
            let (answer, mut wait) = oneshot::channel();
            // A shard that has failed to start has told why.
            let _ = orders.try_send(Order::Stats(answer));
            world.run_for(Duration::from_secs(1));
            if let Ok(Some(report)) = wait.try_recv() {
                messages += report.queue.messages;
            }
        }
        messages
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

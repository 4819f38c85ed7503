//! The engine in the simulated world: the shards of one node, started, stopped and killed.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use ringpost_conf::{ActionKind, Config, Quickstart, Relay};
use ringpost_io::sim::{SimMesh, SimRuntime, SimWorld};
use ringpost_io::{Class, Mailbox, Runtime, Sender};
use ringpost_perf::Counters;
use ringpost_queue::Plant;
use ringpost_shard::{Letter, Order, Start, World};

use crate::coordinator::{Names, Nobody};
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
}

/// A configuration that relays everything by MX, with small segments.
pub(crate) fn config(address: IpAddr) -> Arc<Config> {
    let state = Path::new("/state");
    let listen = Quickstart { listen: vec![(address, 25).into()], page: None };
    let mut config = Config::quickstart(state, &listen);
    for action in &mut config.actions {
        action.kind = ActionKind::Relay(Relay::default());
    }
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
            let start: Start<Simulated> = Start {
                runtime: runtime.clone(),
                mesh,
                ask: Names { runtime: runtime.clone(), fails_one_in: site.names_fail_one_in.clone() },
                hand: Nobody,
                listeners: vec![(listener, 0)],
                config: site.config.clone(),
                state: PathBuf::from("/state"),
                hostname: "engine.sim".into(),
                orders: mailbox,
                events: Rc::new(move |event| {
                    if trace {
                        eprintln!("{} {event}", clock.unix_ms());
                    }
                }),
                counters: Arc::new(Counters::default()),
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

    /// Whether all shards have returned.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get() == limits::SHARDS
    }

    /// Why a shard did not start, if one did not.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failed.borrow().clone()
    }
}

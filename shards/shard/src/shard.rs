//! One shard: opens its slice of the queue, starts its loops, and ends when it is told to and all is durable.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ringpost_conf::Config;
use ringpost_conf::expand::User;
use ringpost_io::{Class, Disk, Mailbox, Mesh, Runtime, Signal};
use ringpost_perf::sites::{Classes, Recent};
use ringpost_perf::{Counter, Counters, Stages};
use ringpost_queue::{MessageId, Queue};
use ringpost_routes::{Breaker, Routes, Site};
use ringpost_tls::Connector;
use slab::Slab;

use crate::ask::{Ask, Cache, NameAnswer, Question};
use crate::backscatter::Backscatter;
use crate::dispatch::{Flight, Fresh};
use crate::event::{Event, Origin};
use crate::faults::Told;
use crate::feedback::Suspended;
use crate::handover::HandOver;
use crate::inspect::Order;
use crate::letter::{Letter, Ticket};
use crate::local::{self, Locals};
use crate::lookups::Lookups;
use crate::outbound::{Idle, Overtaxed};
use crate::outbox::Outbox;
use crate::pieces::{Piece, Pieces};
use crate::reason::Carrier;
use crate::resolve::Resolved;
use crate::secure::Servers;
use crate::settings::{Overrides, Settings};
use crate::stock::{Room, Stock};
use crate::wake::Sleepers;
use crate::{audit, dispatch, inspect, limits, listen, notices, outbound, overview, reason, settle, warmup};

/// The executor, the rings and the coordinator of one engine, as types.
pub trait World: 'static {
    /// Executor, sockets, disk, time.
    type R: Runtime;
    /// Rings between shards.
    type M: Mesh<Letter>;
    /// The coordinator.
    type A: Ask;
    /// The supervisor.
    type H: HandOver;
}

/// What a shard is started with.
pub struct Start<W: World> {
    /// Its executor.
    pub runtime: W::R,
    /// Its end of the rings.
    pub mesh: W::M,
    /// Its way to the coordinator.
    pub ask: W::A,
    /// Its way to the supervisor.
    pub hand: W::H,
    /// Encrypts connections to other servers.
    pub connector: Connector,
    /// The user that this server is, or an unprivileged one where it is root: for files and programs of aliases.
    pub own: User,
    /// Directories below which this process may make files; `None`: wherever its user may.
    pub near: Option<Arc<[PathBuf]>>,
    /// Sockets with the number of the listener in `config.listeners` that they belong to.
    pub listeners: Vec<(<W::R as Runtime>::Listener, usize)>,
    /// What the administrator wants.
    pub config: Arc<Config>,
    /// What handshakes are made with, by the numbers of its listeners.
    pub servers: Servers,
    /// State directory; the queue is in `queue` below it.
    pub state: PathBuf,
    /// Name of this server, for greetings and trace fields, unless a listener has its own.
    pub hostname: String,
    /// Letters from the coordinator.
    pub orders: Mailbox<Order>,
    /// Limits that were set on an earlier server, and are in force from the beginning.
    pub limits: Overrides,
    /// Takes events to the log; must not block.
    pub events: Rc<dyn Fn(&Event<'_>)>,
    /// Counters that others read.
    pub counters: Arc<Counters>,
    /// Which reports of strangers' mail were made: one for all shards.
    pub backscatter: Arc<Backscatter>,
    /// Called once when the queue is open and the listeners accept, with what the queue had to report, or with the
    /// error that `run` then returns.
    pub ready: Box<dyn FnOnce(Result<Opened, String>)>,
    /// Test-only fault.
    pub plant: Plant,
}

/// A bug that a test plants to see that it is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Plant {
    /// None.
    #[default]
    None,
    /// One of the queue's.
    Queue(ringpost_queue::Plant),
    /// Now and then nobody opens a connection for a message that has come to its route.
    LosesWakes,
    /// Nobody looks after what waits at routes, or for its turn to be delivered here, when its time is over.
    MissesExpiry,
}

impl Plant {
    fn of_queue(self) -> ringpost_queue::Plant {
        match self {
            Self::Queue(plant) => plant,
            _ => ringpost_queue::Plant::None,
        }
    }
}

/// What opening the queue found.
#[derive(Clone, Debug, Default)]
pub struct Opened {
    /// Messages in the slice.
    pub messages: u64,
    /// Envelopes in the slice.
    pub envelopes: u64,
    /// Damage that was found, a line each.
    pub damage: Vec<String>,
}

/// Why a shard could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The queue cannot be opened.
    #[error("cannot open the queue: {0}")]
    Queue(String),
}

pub(crate) struct Shard<W: World> {
    pub(crate) runtime: W::R,
    pub(crate) mesh: W::M,
    pub(crate) ask: W::A,
    pub(crate) hand: W::H,
    connector: RefCell<Connector>,
    pub(crate) own: User,
    pub(crate) near: Option<Arc<[PathBuf]>>,
    pub(crate) queue: Queue<<W::R as Runtime>::Disk>,
    pub(crate) settings: RefCell<Rc<Settings>>,
    pub(crate) hostname: String,
    pub(crate) events: Rc<dyn Fn(&Event<'_>)>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) backscatter: Arc<Backscatter>,
    pub(crate) stages: Stages,
    /// What other servers have refused, by class.
    pub(crate) refusals: RefCell<Classes>,
    /// What became of mail by site, since it was last asked for.
    pub(crate) sites: RefCell<Recent>,
    pub(crate) outbox: Outbox,
    pub(crate) cache: Cache<Question, Resolved>,
    pub(crate) client_names: Cache<IpAddr, NameAnswer>,
    pub(crate) lookups: Lookups,
    pub(crate) routes: RefCell<Routes<Box<Ticket>>>,
    /// How the hosts of the routes do.
    pub(crate) breaker: RefCell<Breaker>,
    /// What the log knows of them.
    pub(crate) told: Told,
    pub(crate) idle: Idle,
    /// When a task looks for connections that the rates of routes allow.
    pub(crate) opens_at: RefCell<BTreeSet<Instant>>,
    pub(crate) overtaxed: Overtaxed,
    pub(crate) pieces: Pieces,
    /// Durable messages that are sent on their way when their clients are answered.
    pub(crate) accepted: RefCell<VecDeque<(Rc<Settings>, Fresh)>>,
    pub(crate) flights: RefCell<HashMap<u64, Flight>>,
    /// Messages that are being read back from the journal.
    pub(crate) reading: RefCell<HashSet<u64>>,
    /// Envelopes that have failed, and whose report is being queued.
    pub(crate) reporting: RefCell<HashSet<(u64, u16)>>,
    /// What is deferred for sites that took nothing.
    pub(crate) sleepers: RefCell<Sleepers>,
    /// Sites that it has mail for, and that are suspended.
    pub(crate) suspended: RefCell<Suspended>,
    /// Sites of its routes that took nothing last.
    pub(crate) troubled: RefCell<HashSet<Site>>,
    /// The connections of its routes.
    pub(crate) carriers: RefCell<Slab<Carrier>>,
    pub(crate) locals: Locals,
    /// Bytes of bodies that are kept between commit and delivery.
    pub(crate) kept_bytes: Cell<usize>,
    /// What of it each route has.
    pub(crate) stock: Stock,
    /// Raised when flights end, so that more of the queue may start.
    pub(crate) landed: Signal,
    pub(crate) fetches: RefCell<HashMap<u64, futures_channel::oneshot::Sender<Option<Piece>>>>,
    pub(crate) next_fetch: Cell<u64>,
    pub(crate) next_session: Cell<u64>,
    pub(crate) sessions: Cell<usize>,
    /// Backups of which it was told that they are odd, by domain.
    pub(crate) odd_backups: RefCell<HashSet<String>>,
    pub(crate) by_origin: RefCell<HashMap<Origin, usize>>,
    /// When it was last told that a stranger came to a listener for proxies.
    pub(crate) stranger_told: Cell<Option<Instant>>,
    /// When it was last told that the ledger of warm-ups does not answer.
    pub(crate) silence_told: Cell<Option<Instant>>,
    /// Connections, deliveries and other tasks that must end before the queue may be closed.
    pub(crate) running: Cell<usize>,
    /// Shards that have stopped and wait for nothing of this one's.
    over: RefCell<BTreeSet<usize>>,
    pub(crate) ended: Signal,
    pub(crate) stopping: Cell<bool>,
    pub(crate) stop: Signal,
    /// Batches of the queue that the counter already has.
    pub(crate) counted_batches: Cell<u64>,
    pub(crate) plant: Plant,
}

/// Runs a shard until [`Order::Stop`] has been obeyed: no new work, open transactions finished, all durable.
///
/// # Errors
/// See [`ShardError`]; `ready` has been told, too.
pub async fn run<W: World>(start: Start<W>) -> Result<(), ShardError> {
    let (shard, begin) = open(start).await?;
    let Begin { listeners, orders, ready, report } = begin;
    let committed = shard.clone().start_committer();
    shard.clone().start_loops();
    for (listener, number) in listeners {
        shard.spawn_counted(Class::Session, listen::accept(shard.clone(), listener, number));
    }
    ready(Ok(shard.opened(&report)));
    shard.obey(orders).await;
    shard.drain().await;
    shard.queue.stop();
    // An error here means that the committer has ended already.
    let _ = committed.await;
    Ok(())
}

/// What an open shard needs to begin.
pub(crate) struct Begin<W: World> {
    listeners: Vec<(<W::R as Runtime>::Listener, usize)>,
    orders: Mailbox<Order>,
    ready: Box<dyn FnOnce(Result<Opened, String>)>,
    report: ringpost_queue::Report,
}

/// Opens the queue; nothing runs yet.
pub(crate) async fn open<W: World>(start: Start<W>) -> Result<(Rc<Shard<W>>, Begin<W>), ShardError> {
    let Start {
        runtime,
        mesh,
        ask,
        hand,
        connector,
        own,
        near,
        listeners,
        config,
        servers,
        state,
        hostname,
        orders,
        limits: overrides,
        events,
        counters,
        backscatter,
        ready,
        plant,
    } = start;
    let (me, peers) = (mesh.me(), mesh.peers());
    let settings = Rc::new(Settings::new(config, &servers, &hostname, peers));
    settings.limit(overrides);
    let dir = state.join("queue");
    let free_bytes = free_bytes(runtime.disk(), &state).await;
    let options = settings.queue_options(free_bytes, runtime.random_u64(), plant.of_queue());
    let opened = Queue::open(runtime.disk().clone(), &dir, me, peers, options, runtime.unix_ms()).await;
    let (queue, report) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            ready(Err(error.to_string()));
            for peer in (0..peers).filter(|peer| *peer != me) {
                // The others stop, too, and need not wait for this one.
                let _ = mesh.send(peer, Letter::Over).await;
            }
            return Err(ShardError::Queue(error.to_string()));
        }
    };
    let shard = Rc::new(Shard {
        routes: RefCell::new(Routes::new(ringpost_routes::Limits::default())),
        queue,
        hostname,
        events,
        counters,
        backscatter,
        stages: Stages::new(),
        refusals: RefCell::default(),
        sites: RefCell::default(),
        outbox: Outbox::new(peers),
        cache: Cache::new(),
        client_names: Cache::new(),
        lookups: Lookups::default(),
        breaker: RefCell::default(),
        told: Told::default(),
        idle: Idle::default(),
        opens_at: RefCell::default(),
        overtaxed: Overtaxed::default(),
        pieces: Pieces::default(),
        accepted: RefCell::default(),
        flights: RefCell::default(),
        reading: RefCell::default(),
        reporting: RefCell::default(),
        sleepers: RefCell::default(),
        suspended: RefCell::default(),
        troubled: RefCell::default(),
        carriers: RefCell::default(),
        locals: Locals::default(),
        kept_bytes: Cell::new(0),
        stock: Stock::new(Room { messages: settings.flights_max, bytes: limits::KEPT_BODIES_BYTES }),
        settings: RefCell::new(settings),
        landed: Signal::new(),
        fetches: RefCell::default(),
        next_fetch: Cell::new(0),
        next_session: Cell::new(1 << 63 | (me as u64) << 48),
        sessions: Cell::new(0),
        odd_backups: RefCell::default(),
        by_origin: RefCell::default(),
        stranger_told: Cell::new(None),
        silence_told: Cell::new(None),
        running: Cell::new(0),
        over: RefCell::default(),
        ended: Signal::new(),
        stopping: Cell::new(false),
        stop: Signal::new(),
        counted_batches: Cell::new(0),
        plant,
        runtime,
        mesh,
        ask,
        hand,
        connector: RefCell::new(connector),
        own,
        near,
    });
    shard.locals.follow(&shard.settings().config.machinery);
    Ok((shard, Begin { listeners, orders, ready, report }))
}

/// Free space now; what cannot be asked is taken for none, so that a reserve in percent is none, too.
async fn free_bytes(disk: &impl Disk, dir: &Path) -> u64 {
    disk.free_bytes(dir).await.unwrap_or(0)
}

impl<W: World> Shard<W> {
    fn opened(&self, report: &ringpost_queue::Report) -> Opened {
        let counts = self.queue.counts();
        for damage in &report.damage {
            self.warn(&format!("queue: {damage}"));
        }
        Opened { messages: counts.messages, envelopes: counts.envelopes, damage: report.damage.clone() }
    }

    pub(crate) fn start_committer(self: Rc<Self>) -> futures_channel::oneshot::Receiver<()> {
        let (done, wait) = futures_channel::oneshot::channel();
        let shard = self.clone();
        self.runtime.spawn(Class::Commit, async move {
            shard.queue.run(&shard.runtime).await;
            // Nobody waits any more only when the shard has failed to start.
            let _ = done.send(());
        });
        wait
    }

    fn start_loops(self: Rc<Self>) {
        for peer in 0..self.mesh.peers() {
            let shard = self.clone();
            self.runtime.spawn(Class::Delivery, async move { shard.outbox.carry(&shard.mesh, peer).await });
        }
        self.runtime.spawn(Class::Delivery, Self::read_ring(self.clone()));
        self.runtime.spawn(Class::Delivery, dispatch::due_loop(self.clone()));
        self.runtime.spawn(Class::Background, audit::run(self.clone()));
        self.runtime.spawn(Class::Background, notices::run(self.clone()));
        self.runtime.spawn(Class::Background, Self::sweep(self.clone()));
        self.runtime.spawn(Class::Background, Self::watch_space(self.clone()));
    }

    async fn read_ring(shard: Rc<Self>) {
        while let Some((from, letter)) = shard.mesh.receive().await {
            match letter {
                Letter::Ticket(ticket) => outbound::take_ticket(&shard, ticket),
                Letter::Results(results) => settle::settle(&shard, *results),
                Letter::Awake(site) => settle::wake(&shard, &site),
                Letter::Over => {
                    shard.over.borrow_mut().insert(from);
                    shard.landed.raise();
                }
                Letter::Fetch { message, at, len, question } => {
                    outbound::answer_fetch(&shard, from, MessageId(message), at, len, question);
                }
                Letter::Piece { question, bytes } => {
                    if let Some(waiting) = shard.fetches.borrow_mut().remove(&question) {
                        // Whoever asked may have given up.
                        let _ = waiting.send(bytes);
                    }
                }
            }
        }
    }

    /// Whatever waits for its turn somewhere, its time is over when it is over.
    async fn sweep(shard: Rc<Self>) {
        while !shard.stopping.get() && shard.plant != Plant::MissesExpiry {
            outbound::sweep(&shard).await;
            local::sweep(&shard).await;
            let stop = shard.stop.raised();
            shard.runtime.timeout(limits::SWEEP, stop).await;
        }
    }

    async fn watch_space(shard: Rc<Self>) {
        while !shard.stopping.get() {
            shard.queue.check_space().await;
            let stop = shard.stop.raised();
            shard.runtime.timeout(limits::SPACE_CHECK, stop).await;
        }
    }

    /// What has waited at home for room at its route may go another way now.
    fn release_parked(&self) {
        for (id, index) in self.stock.drain() {
            if self.queue.unpark(id, index) {
                // At once, whatever the clock says.
                self.queue.release(id, index, 0);
            }
        }
        self.landed.raise();
    }

    /// Obeys the coordinator until it says stop, or is gone.
    async fn obey(self: &Rc<Self>, orders: Mailbox<Order>) {
        while let Some(order) = orders.receive().await {
            match order {
                Order::Reload(config, servers, answer) => {
                    let settings = Settings::new(config, &servers, &self.hostname, self.peers());
                    settings.limit(self.settings().overrides());
                    self.stock.allow(settings.flights_max);
                    self.queue.schedule_by(settings.scheduler());
                    *self.settings.borrow_mut() = Rc::new(settings);
                    self.lookups.forget();
                    // What exchangers may be used is said there, too.
                    self.cache.forget();
                    self.odd_backups.borrow_mut().clear();
                    self.routes.borrow_mut().resume_logins();
                    warmup::begin_anew(self);
                    self.locals.follow(&self.settings().config.machinery);
                    // What nothing was tried of may be tried now.
                    self.release_parked();
                    // The coordinator need not wait for it.
                    let _ = answer.send(());
                }
                Order::Limit(overrides, answer) => {
                    self.settings().limit(overrides);
                    self.release_parked();
                    // The coordinator may have waited long enough.
                    let _ = answer.send(());
                }
                Order::Recall(concerned) => outbound::recall(self, &concerned).await,
                Order::Trust(connector) => *self.connector.borrow_mut() = connector,
                Order::ForgetTable(name) => {
                    self.lookups.forget_table(&name);
                    self.routes.borrow_mut().resume_logins();
                }
                Order::Stop => return,
                Order::Stats(answer) => {
                    if let Err(unheard) = answer.send(self.report()) {
                        self.sites.borrow_mut().merge(unheard.sites);
                    }
                }
                Order::List(answer) => {
                    let shard = self.clone();
                    self.runtime.spawn(Class::Background, async move {
                        drop(answer.send(inspect::list(&shard).await));
                    });
                }
                Order::Show(id, answer) => {
                    let shard = self.clone();
                    self.runtime.spawn(Class::Background, async move {
                        drop(answer.send(inspect::show(&shard, MessageId(id)).await));
                    });
                }
                Order::Why(selector, answer) => {
                    let shard = self.clone();
                    self.runtime.spawn(Class::Background, async move {
                        drop(answer.send(inspect::why(&shard, &selector).await));
                    });
                }
                Order::AtRoutes(messages, answer) => {
                    let at = |(message, site): &(u64, _)| reason::at_route(self, *message, site);
                    // Whoever asked may be gone.
                    let _ = answer.send(messages.iter().map(at).collect());
                }
                Order::Overview(answer) => {
                    let shard = self.clone();
                    self.runtime.spawn(Class::Background, async move {
                        drop(answer.send(overview::overview(&shard).await));
                    });
                }
                Order::Resume(answer) => {
                    self.resume();
                    // Whoever asked may be gone.
                    let _ = answer.send(());
                }
                Order::Retry(answer) => {
                    self.resume();
                    // Whoever asked may be gone.
                    let _ = answer.send(self.queue.make_due(self.runtime.unix_ms()));
                }
            }
        }
    }

    /// Nothing rests, whatever has failed or was said.
    fn resume(&self) {
        self.routes.borrow_mut().resume_all();
        self.breaker.borrow_mut().forgive();
        self.suspended.borrow_mut().forget();
    }

    fn report(&self) -> inspect::ShardReport {
        let queue = self.queue.counts();
        self.counters.add(Counter::Commits, queue.batches - self.counted_batches.replace(queue.batches));
        inspect::ShardReport {
            stages: self.stages.snapshot(),
            queue,
            routes: self.routes.borrow().totals(),
            sessions: self.sessions.get(),
            low_space: self.queue.space() == ringpost_queue::Space::Low,
            refusals: self.refusals.borrow().clone(),
            sites: self.sites.take(),
        }
    }

    /// No new work; what is being said is finished, within [`limits::DRAIN`].
    async fn drain(self: &Rc<Self>) {
        self.stopping.set(true);
        self.stop.raise();
        outbound::give_back_all(self);
        let deadline = self.runtime.now() + limits::DRAIN;
        loop {
            let ended = self.ended.raised();
            if self.running.get() == 0 {
                break;
            }
            let left = deadline.saturating_duration_since(self.runtime.now());
            if left.is_zero() || self.runtime.timeout(left, ended).await.is_none() {
                break;
            }
        }
        // What other shards carry for this one has as long as what it carries itself, and results that are on a ring arrive
        // within a turn; losing one would cost a duplicate.
        let deadline = deadline + limits::LAST_RESULTS;
        while !self.flights.borrow().is_empty() && self.runtime.now() < deadline {
            self.runtime.timeout(limits::LAST_RESULTS_LOOK, self.landed.raised()).await;
        }
        self.be_over(deadline).await;
        warmup::end(self).await;
        // Another shard may have been told to stop after this one, or have sent a ticket a moment before: until it waits for
        // nothing more, somebody must be here to give that back.
        while self.over.borrow().len() + 1 < self.peers() && self.runtime.now() < deadline {
            self.runtime.timeout(limits::LAST_RESULTS_LOOK, self.landed.raised()).await;
        }
        self.queue.flush().await;
    }

    /// Tells the other shards that this one waits for nothing of theirs.
    async fn be_over(&self, deadline: Instant) {
        for peer in (0..self.peers()).filter(|peer| *peer != self.me()) {
            let left = deadline.saturating_duration_since(self.runtime.now());
            let sent = self.runtime.timeout(left, self.mesh.send(peer, Letter::Over)).await;
            if matches!(sent, Some(Err(_))) {
                // It has ended.
                self.over.borrow_mut().insert(peer);
            }
        }
    }

    /// Runs a task that `drain` waits for.
    pub(crate) fn spawn_counted(self: &Rc<Self>, class: Class, task: impl Future<Output = ()> + 'static) {
        self.running.set(self.running.get() + 1);
        let shard = self.clone();
        self.runtime.spawn(class, async move {
            task.await;
            shard.running.set(shard.running.get() - 1);
            if shard.stopping.get() {
                shard.ended.raise();
            }
        });
    }

    pub(crate) fn me(&self) -> usize {
        self.mesh.me()
    }

    /// How many shards there are.
    pub(crate) fn peers(&self) -> usize {
        self.mesh.peers()
    }

    /// What encrypts connections to other servers.
    pub(crate) fn connector(&self) -> Connector {
        self.connector.borrow().clone()
    }

    pub(crate) fn settings(&self) -> Rc<Settings> {
        self.settings.borrow().clone()
    }

    pub(crate) fn event(&self, event: &Event<'_>) {
        (self.events)(event);
    }

    pub(crate) fn warn(&self, text: &str) {
        self.event(&Event::Warning(text));
    }
}

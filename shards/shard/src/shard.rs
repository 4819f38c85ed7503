//! One shard: opens its slice of the queue, starts its loops, and ends when it is told to and all is durable.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use ringpost_conf::Config;
use ringpost_conf::expand::User;
use ringpost_io::{Class, Disk, Mailbox, Mesh, Runtime, Signal};
use ringpost_perf::{Counter, Counters, Stages};
use ringpost_queue::{MessageId, Queue};
use ringpost_routes::Routes;
use ringpost_tls::Connector;

use crate::ask::{Ask, Cache, NameAnswer, Question};
use crate::dispatch::Flight;
use crate::event::{Event, Origin};
use crate::handover::HandOver;
use crate::inspect::Order;
use crate::letter::{Letter, Ticket};
use crate::local::Locals;
use crate::lookups::Lookups;
use crate::outbound::Idle;
use crate::outbox::Outbox;
use crate::resolve::Resolved;
use crate::secure::Servers;
use crate::settings::Settings;
use crate::{dispatch, inspect, limits, listen, outbound, settle};

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
    /// Takes events to the log; must not block.
    pub events: Rc<dyn Fn(&Event<'_>)>,
    /// Counters that others read.
    pub counters: Arc<Counters>,
    /// Called once when the queue is open and the listeners accept, with what the queue had to report, or with the
    /// error that `run` then returns.
    pub ready: Box<dyn FnOnce(Result<Opened, String>)>,
    /// Test-only fault of the journal.
    pub plant: ringpost_queue::Plant,
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
    pub(crate) connector: Connector,
    pub(crate) own: User,
    pub(crate) queue: Queue<<W::R as Runtime>::Disk>,
    pub(crate) settings: RefCell<Rc<Settings>>,
    pub(crate) hostname: String,
    pub(crate) events: Rc<dyn Fn(&Event<'_>)>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) stages: Stages,
    pub(crate) outbox: Outbox,
    pub(crate) cache: Cache<Question, Resolved>,
    pub(crate) client_names: Cache<IpAddr, NameAnswer>,
    pub(crate) lookups: Lookups,
    pub(crate) routes: RefCell<Routes<Box<Ticket>>>,
    pub(crate) idle: Idle,
    pub(crate) flights: RefCell<HashMap<u64, Flight>>,
    pub(crate) locals: Locals,
    /// Bytes of bodies that are kept between commit and delivery.
    pub(crate) kept_bytes: Cell<usize>,
    /// Raised when flights end, so that more of the queue may start.
    pub(crate) landed: Signal,
    pub(crate) fetches: RefCell<HashMap<u64, futures_channel::oneshot::Sender<Option<Vec<u8>>>>>,
    pub(crate) next_fetch: Cell<u64>,
    pub(crate) next_session: Cell<u64>,
    pub(crate) sessions: Cell<usize>,
    pub(crate) by_origin: RefCell<HashMap<Origin, usize>>,
    /// Connections, deliveries and other tasks that must end before the queue may be closed.
    pub(crate) running: Cell<usize>,
    pub(crate) ended: Signal,
    pub(crate) stopping: Cell<bool>,
    pub(crate) stop: Signal,
    /// Batches of the queue that the counter already has.
    pub(crate) counted_batches: Cell<u64>,
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
        listeners,
        config,
        servers,
        state,
        hostname,
        orders,
        events,
        counters,
        ready,
        plant,
    } = start;
    let settings = Rc::new(Settings::new(config, &servers, &hostname));
    let (me, peers) = (mesh.me(), mesh.peers());
    let dir = state.join("queue");
    let free_bytes = free_bytes(runtime.disk(), &state).await;
    let options = settings.queue_options(free_bytes, runtime.random_u64(), plant);
    let opened = Queue::open(runtime.disk().clone(), &dir, me, peers, options, runtime.unix_ms()).await;
    let (queue, report) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            ready(Err(error.to_string()));
            return Err(ShardError::Queue(error.to_string()));
        }
    };
    let shard = Rc::new(Shard {
        routes: RefCell::new(Routes::new(ringpost_routes::Limits::default())),
        settings: RefCell::new(settings),
        queue,
        hostname,
        events,
        counters,
        stages: Stages::new(),
        outbox: Outbox::new(peers),
        cache: Cache::new(),
        client_names: Cache::new(),
        lookups: Lookups::default(),
        idle: Idle::default(),
        flights: RefCell::default(),
        locals: Locals::default(),
        kept_bytes: Cell::new(0),
        landed: Signal::new(),
        fetches: RefCell::default(),
        next_fetch: Cell::new(0),
        next_session: Cell::new(1 << 63 | (me as u64) << 48),
        sessions: Cell::new(0),
        by_origin: RefCell::default(),
        running: Cell::new(0),
        ended: Signal::new(),
        stopping: Cell::new(false),
        stop: Signal::new(),
        counted_batches: Cell::new(0),
        runtime,
        mesh,
        ask,
        hand,
        connector,
        own,
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
        self.runtime.spawn(Class::Background, Self::watch_space(self.clone()));
    }

    async fn read_ring(shard: Rc<Self>) {
        while let Some((from, letter)) = shard.mesh.receive().await {
            match letter {
                Letter::Ticket(ticket) => outbound::take_ticket(&shard, ticket),
                Letter::Results(results) => settle::settle(&shard, *results),
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

    async fn watch_space(shard: Rc<Self>) {
        while !shard.stopping.get() {
            shard.queue.check_space().await;
            let stop = shard.stop.raised();
            shard.runtime.timeout(limits::SPACE_CHECK, stop).await;
        }
    }

    /// Obeys the coordinator until it says stop, or is gone.
    async fn obey(self: &Rc<Self>, orders: Mailbox<Order>) {
        while let Some(order) = orders.receive().await {
            match order {
                Order::Reload(config, servers) => {
                    *self.settings.borrow_mut() = Rc::new(Settings::new(config, &servers, &self.hostname));
                    self.lookups.forget();
                    self.locals.follow(&self.settings().config.machinery);
                    // What nothing was tried of may be tried now.
                    self.landed.raise();
                }
                Order::ForgetTable(name) => self.lookups.forget_table(&name),
                Order::Stop => return,
                Order::Stats(answer) => drop(answer.send(self.report())),
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
                Order::Retry(answer) => {
                    self.routes.borrow_mut().resume_all();
                    // Whoever asked may be gone.
                    let _ = answer.send(self.queue.make_due(self.runtime.unix_ms()));
                }
            }
        }
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
        // Results that are on a ring arrive within a turn; losing one would cost a duplicate.
        let deadline = self.runtime.now() + limits::LAST_RESULTS;
        while !self.flights.borrow().is_empty() && self.runtime.now() < deadline {
            self.runtime.timeout(limits::LAST_RESULTS_LOOK, self.landed.raised()).await;
        }
        self.queue.flush().await;
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

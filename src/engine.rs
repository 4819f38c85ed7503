//! The engine's process: takes its plan and sockets from the supervisor, starts N shards and the coordinator, joins them.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ringpost_conf::Config;
use ringpost_conf::expand::User;
use ringpost_io::ring::{self, RingMesh, RingRuntime};
use ringpost_io::sys::{self, Lock, LockError, Resource};
use ringpost_io::{Mailbox, Sender};
use ringpost_perf::Counters;
use ringpost_shard::{Backscatter, Event, Letter, Order, Servers, World};
use ringpost_tls::Connector;
use rustix::fs::{Access, access};
use tokio::sync::{mpsc, oneshot};

use crate::confinement;
use crate::coordinator::control::Admission;
use crate::coordinator::log::{self, Log};
use crate::coordinator::mailbox::{self, Line};
use crate::coordinator::overrides::Overrides;
use crate::coordinator::users::Users;
use crate::coordinator::{self, Errands, Handshakes, Logins, News, Prover, Reports, Session, Shards, Shelves, Signers};
use crate::disk::Look;
use crate::encryption;
use crate::ipc::codec::{Channel, cut, from_memory};
use crate::ipc::control::Door;
use crate::ipc::engine::{FromEngine, Purpose, Ready, ToEngine};
use crate::limits::{ORDERS, QUEUE_LOCK};
use crate::owners::Owner;
use crate::plan::{self, Plan};

/// The real world: io_uring, and this process's coordinator.
struct Real;

impl World for Real {
    type R = RingRuntime;
    type M = RingMesh<Letter>;
    type A = Line;
    type H = Errands;
}

/// What the supervisor gave.
struct Given {
    plan: Plan,
    config: Arc<Config>,
    control: Option<UnixListener>,
    pages: Vec<TcpListener>,
    /// The supervisor's lanes.
    errands: Errands,
    /// Lanes to the keyholder.
    signing: Vec<Channel>,
    /// Lanes to the supervisor for certificates of tables.
    certificates: Vec<Channel>,
    /// To the passwords of the system's users.
    passwords: Option<Channel>,
    /// Who is asked for users of the system.
    users: Users,
    /// The server's own user.
    own: User,
    /// Directories below which this process may make files; `None`: it is not confined.
    near: Option<Arc<[PathBuf]>>,
    /// Why it is not, or not fully.
    lacking: Vec<String>,
    /// What the configuration names and its user does not get to.
    closed: Vec<String>,
    /// Listener number, shard, socket.
    smtp: Vec<(usize, usize, OwnedFd)>,
}

/// Runs until told to stop; everything that was answered 250 is durable then.
pub fn run(channel: Channel) -> ExitCode {
    match start(&channel) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // If the supervisor is gone, this process goes, too.
            let _ = channel.send(&FromEngine::Failed(cut(why)));
            ExitCode::FAILURE
        }
    }
}

fn start(channel: &Channel) -> Result<(), String> {
    // Before any thread: it is slow once per process, and slower beside others.
    ring::warm_up().map_err(|error| error.to_string())?;
    let given = receive(channel)?;
    let config = given.config.clone();
    let zone = given.plan.zone()?;
    let _lock = lock(&given.plan.state)?;
    let errands = given.errands.clone();
    let shards = given.smtp.iter().map(|each| each.1 + 1).max().unwrap_or(1);

    let (log, writing) = Log::start(given.plan.quiet).map_err(|error| format!("cannot start the log: {error}"))?;
    log::catch_libraries(&log);
    given.lacking.iter().for_each(|why| log.warn(&format_args!("the engine is not fully confined: {why}")));
    given.closed.iter().for_each(|line| log.warn(line));
    let (roots, no_roots) = encryption::roots(&given.plan.roots);
    let (connector, doubt) = encryption::connector(roots.clone());
    no_roots.iter().chain(&doubt).for_each(|doubt| log.warn(doubt));
    let (news, arriving) = mpsc::unbounded_channel();
    let signers = Signers::start(plan::signers(ring::available_cpus().len()))
        .map_err(|error| format!("cannot start the threads that wait for signatures: {error}"))?;
    given.signing.into_iter().for_each(|lane| signers.connect(lane));
    let no_thread = |error: std::io::Error| format!("cannot start a thread: {error}");
    let shelves = Shelves::start(given.certificates, &log).map_err(no_thread)?;
    let handshakes = Handshakes::new(roots).map_err(no_thread)?.with_shelves(shelves.clone());
    let servers = handshakes.servers(&config, &given.plan.identities, &given.plan.authorities)?;
    let page = handshakes.page(&config, &given.plan.identities)?;
    let complains = log.clone();
    let checkers = plan::checkers(ring::available_cpus().len());
    let logins = Logins::start(checkers, given.passwords, move |line| complains.warn(&line))
        .map_err(|error| format!("cannot start the threads that check passwords: {error}"))?;
    let (line, questions) = mailbox::questions(signers.clone());
    let prover = Prover::start().map_err(no_thread)?;
    let line = line.with_shelves(shelves.clone()).with_prover(prover).with_names_of_strangers(zone.is_none());
    let for_reports = log.clone();
    let say = Arc::new(move |what: &dyn std::fmt::Display| for_reports.warn(what));
    let reports = Arc::new(Reports::new(&given.plan.state, &config.names.server, say));
    let (overrides, limits) = Overrides::new(&given.plan.state, |what| log.warn(what));
    let (orders, mailboxes): (Vec<Sender<Order>>, Vec<_>) = (0..shards).map(|_| Mailbox::new(ORDERS)).unzip();
    let counters: Vec<Arc<Counters>> = (0..shards).map(|_| Arc::new(Counters::new())).collect();
    let cores = (config.shards.cores.len() >= shards).then(|| config.shards.cores.clone());
    let options = ring::Options { shards, cpus: cores, ..ring::Options::default() };
    signers.mind(counters.clone());
    let all = Shards::new(orders, counters.clone());
    all.certificates.follow(&given.plan.identities, std::time::SystemTime::now());
    let coordination = coordinator::Start {
        shards: Arc::new(all),
        log: log.clone(),
        config: config.clone(),
        page,
        line: line.clone(),
        door: door(&config, &given.smtp),
        supervisor: channel.try_clone().map_err(|error| error.to_string())?,
        questions,
        reports: reports.clone(),
        handshakes,
        logins,
        tables: given.plan.tables.clone(),
        state: given.plan.state.clone(),
        root: given.plan.root.clone(),
        users: given.users,
        roots: given.plan.roots.clone(),
        zone,
        control: given.control,
        admission: Admission::of(&config.control),
        pages: given.pages,
        news: arriving,
        overrides,
        ready: ready(&options),
    };
    let mut sockets: Vec<Vec<(usize, OwnedFd)>> = (0..shards).map(|_| Vec::new()).collect();
    for (listener, shard, socket) in given.smtp {
        sockets[shard].push((listener, socket));
    }
    let mut parts = sockets.into_iter().zip(mailboxes).zip(counters);
    let backscatter = Arc::new(Backscatter::default());
    let threads = ring::run_shards(&options, |number| {
        let ((listeners, orders), counters) = parts.next().expect("one for each shard");
        let part = Part {
            plan: given.plan.clone(),
            config: config.clone(),
            servers: servers.clone(),
            line: line.clone(),
            errands: errands.clone(),
            connector: connector.clone(),
            own: given.own.clone(),
            near: given.near.clone(),
            log: log.clone(),
            news: news.clone(),
            listeners,
            orders,
            counters,
            backscatter: backscatter.clone(),
            reports: reports.clone(),
            limits: limits.clone(),
        };
        move |runtime: RingRuntime, mesh: RingMesh<Letter>| run_shard(number, runtime, mesh, part)
    });
    let threads = threads.map_err(|error| error.to_string())?;
    drop((line, errands));

    let core = config.shards.coordinator;
    let coordinating = spawn("coordinator", move || {
        pin(core);
        coordinator::run(coordination)
    })?;
    let listening = channel.try_clone().map_err(|error| error.to_string())?;
    let telling = news.clone();
    spawn("supervisor", move || listen(&listening, &telling, &signers, &shelves))?;
    let mut failed = None;
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed = Some(error.to_string()),
            // With `panic = "abort"` this is not reached; without, the panic has been printed.
            Err(_) => failed = Some("a shard has panicked".into()),
        }
    }
    let (done, said) = oneshot::channel();
    if news.send(News::Ended(done)).is_ok() {
        // An error means that the coordinator has ended, so that there is nothing to wait for.
        let _ = said.blocking_recv();
    }
    let coordinated = coordinating.join().map_err(|_| "the coordinator has panicked".to_owned())?;
    // The thread has ended in any case.
    let _ = writing.join();
    coordinated.map_err(|error| format!("coordinator: {error}"))?;
    failed.map_or(Ok(()), Err)
}

/// Each address once, whatever the number of shards. A socket whose address cannot be asked for is left out.
fn door(config: &ringpost_conf::Config, sockets: &[(usize, usize, OwnedFd)]) -> Door {
    let mut smtp: Vec<_> = sockets.iter().filter_map(|(.., socket)| sys::local_address(socket).ok()).collect();
    smtp.sort();
    smtp.dedup();
    Door { hostname: config.names.server.clone(), smtp }
}

fn receive(channel: &Channel) -> Result<Given, String> {
    let (mut plan, mut control, mut pages, mut smtp) = (None, None, Vec::new(), Vec::new());
    let (mut deliveries, mut forwards, mut passwords) = (None, None, None);
    let (mut signing, mut certificates, mut users) = (Vec::new(), Vec::new(), Vec::new());
    let broken = |error: std::io::Error| format!("from the supervisor: {error}");
    loop {
        match channel.receive::<ToEngine>().map_err(broken)? {
            Some((ToEngine::Descriptor(purpose), Some(descriptor))) => match purpose {
                Purpose::Plan => plan = Some(from_memory(descriptor).map_err(broken)?),
                Purpose::Control => control = Some(UnixListener::from(descriptor)),
                Purpose::Page => pages.push(TcpListener::from(descriptor)),
                Purpose::Deliveries => deliveries = Some(Channel::of(descriptor)),
                Purpose::Forwards => forwards = Some(Channel::of(descriptor)),
                Purpose::Passwords => passwords = Some(Channel::of(descriptor)),
                Purpose::Users => users.push(Channel::of(descriptor)),
                Purpose::Signing => signing.push(Channel::of(descriptor)),
                Purpose::Certificates => certificates.push(Channel::of(descriptor)),
                Purpose::Smtp { listener, shard } => smtp.push((listener.into(), shard.into(), descriptor)),
            },
            Some((ToEngine::Start { parent, owner }, _)) => {
                let plan: Plan = plan.ok_or("the supervisor sent no plan")?;
                if let Some(owner) = &owner {
                    settle_in(owner, &plan.state)?;
                }
                // A change of identity would undo it.
                sys::die_with_parent(parent).map_err(broken)?;
                let config = Arc::new(plan.config()?.0);
                let own = own_user(plan.root.as_deref());
                // Before there are threads: what they may not open, they are born without.
                let (near, lacking) = match confinement::room(&plan, &config) {
                    Ok(room) => {
                        let lacking = confinement::confine(&room);
                        (Some(room.write.into()), lacking)
                    }
                    Err(why) => (None, vec![why]),
                };
                let closed = owner.map(|owner| confinement::out_of_reach(&owner, &plan, &config)).unwrap_or_default();
                let lanes = deliveries.zip(forwards).ok_or("the supervisor sent no lanes for errands")?;
                let errands = Errands::start(lanes.0, lanes.1).map_err(broken)?;
                let users = Users::start(users).map_err(broken)?;
                return Ok(Given {
                    plan,
                    config,
                    control,
                    pages,
                    errands,
                    signing,
                    certificates,
                    passwords,
                    users,
                    own,
                    near,
                    lacking,
                    closed,
                    smtp,
                });
            }
            Some((letter, _)) => return Err(format!("out of turn from the supervisor: {letter:?}")),
            None => return Err("the supervisor is gone".into()),
        }
    }
}

/// Becomes the engine's own user, and tries whether that gets to its state.
fn settle_in(owner: &Owner, state: &Path) -> Result<(), String> {
    owner.groups().and_then(|groups| owner.take_over(&groups)).map_err(|error| error.to_string())?;
    access(state, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        format!(
            "the user {} does not get to the state directory {}: {error}\n  let everybody pass through the directories that it \
             is in, or choose another with --state DIR",
            owner.name,
            state.display()
        )
    })
}

/// The queue is of one engine at a time: one that was killed with its supervisor may still be ending.
fn lock(state: &Path) -> Result<Lock, String> {
    let deadline = Instant::now() + QUEUE_LOCK;
    let path = state.join("engine.lock");
    loop {
        match Lock::try_exclusive(&path) {
            Ok(lock) => return Ok(lock),
            Err(LockError::Held { .. }) if Instant::now() < deadline => {
                std::thread::park_timeout(std::time::Duration::from_millis(5));
            }
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
}

fn ready(options: &ring::Options) -> Ready {
    let shards = options.shards;
    let cpus = options.cpus.clone().unwrap_or_else(ring::available_cpus);
    let pinned = options.cpus.is_some() || cpus.len() >= shards && cpus.len() > 1;
    let limit = sys::limit(Resource::MemoryLock).map_or(0, |limit| limit.soft);
    Ready {
        cpus: (0..shards).map(|shard| pinned.then(|| cpus[shard] as u16)).collect(),
        io_memory_bytes: ring::io_memory_bytes(shards, limit) as u64,
        ..Ready::default()
    }
}

/// What one shard's thread is given.
struct Part {
    plan: Plan,
    config: Arc<ringpost_conf::Config>,
    servers: Servers,
    line: Line,
    errands: Errands,
    connector: Connector,
    own: User,
    near: Option<Arc<[PathBuf]>>,
    log: Log,
    news: mpsc::UnboundedSender<News>,
    listeners: Vec<(usize, OwnedFd)>,
    orders: Mailbox<Order>,
    counters: Arc<Counters>,
    backscatter: Arc<Backscatter>,
    reports: Arc<Reports>,
    limits: ringpost_shard::Overrides,
}

async fn run_shard(
    number: usize,
    runtime: RingRuntime,
    mesh: RingMesh<Letter>,
    part: Part,
) -> Result<(), ringpost_shard::ShardError> {
    let Part {
        plan,
        config,
        servers,
        line,
        errands,
        connector,
        own,
        near,
        log,
        news,
        listeners,
        orders,
        counters,
        backscatter,
        reports,
        limits,
    } = part;
    let hostname = config.names.server.clone();
    if number == 0 {
        match Look::at(&runtime, &plan.state.join("queue")).await {
            // The coordinator lives as long as the shards.
            Ok(look) => drop(news.send(News::Disk(look))),
            // Opening the queue will say more.
            Err(error) => log.warn(&format_args!("the queue's disk cannot be tried: {error}")),
        }
    }
    let mut accepting = Vec::new();
    for (listener, socket) in listeners {
        match runtime.listener(socket) {
            Ok(socket) => accepting.push((socket, listener)),
            Err(error) => log.warn(&format_args!("shard {number}: a listener was lost: {error}")),
        }
    }
    let ready = move |opened| {
        // The coordinator lives as long as the shards.
        let _ = news.send(News::Opened(opened));
    };
    let events = move |event: &Event<'_>| match event {
        Event::Held { domain, kind, host, addresses, failure } => {
            let (kind, addresses, failure) = (*kind, *addresses, *failure);
            reports.note(&Session { domain, kind, host, addresses, failure });
        }
        Event::Warning(_) => log.push(event),
        _ => log.event(event),
    };
    ringpost_shard::run::<Real>(ringpost_shard::Start {
        runtime,
        mesh,
        ask: line,
        hand: errands,
        connector,
        own,
        near,
        listeners: accepting,
        config,
        servers,
        state: plan.state,
        hostname,
        orders,
        limits,
        events: Rc::new(events),
        counters,
        backscatter,
        ready: Box::new(ready),
        plant: Default::default(),
    })
    .await
}

/// The user that files and programs of aliases get: this server's own, or an unprivileged one where that is root.
fn own_user(root: Option<&Path>) -> User {
    const NOBODY: u32 = 65_534;
    let of = |name: &str, uid: u32, gid: u32| User { name: name.into(), uid, gid, home: "/".into(), in_table: false };
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if !uid.is_root() {
        return of("ringpost", uid.as_raw(), gid.as_raw());
    }
    let known = ["ringpost", "nobody"].iter().find_map(|name| {
        let found = root.map_or_else(|| sys::user(name), |root| sys::user_below(root, name));
        // A system that cannot say who that is has the number all the same.
        found.ok().flatten().map(|user| of(&user.name, user.uid, user.gid))
    });
    known.unwrap_or_else(|| of("nobody", NOBODY, NOBODY))
}

/// Keeps this thread on one processor. One that we may not use leaves it where it is.
fn pin(core: Option<usize>) {
    if let Some(core) = core.filter(|core| *core < rustix::thread::CpuSet::MAX_CPU) {
        let mut set = rustix::thread::CpuSet::new();
        set.set(core);
        let _ = rustix::thread::sched_setaffinity(None, &set);
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<std::thread::JoinHandle<T>, String> {
    let thread = std::thread::Builder::new().name(name.into()).spawn(work);
    thread.map_err(|error| format!("cannot start the thread {name}: {error}"))
}

/// Letters of the supervisor, until it is gone: which means stop.
fn listen(channel: &Channel, news: &mpsc::UnboundedSender<News>, signers: &Signers, shelves: &Shelves) {
    let mut plan = None;
    loop {
        let event = match channel.receive::<ToEngine>() {
            Ok(Some((ToEngine::Descriptor(Purpose::Plan), Some(descriptor)))) => {
                plan = from_memory::<Plan>(descriptor).ok();
                continue;
            }
            Ok(Some((ToEngine::Descriptor(Purpose::Signing), Some(descriptor)))) => {
                signers.connect(Channel::of(descriptor));
                // It is a new keyholder's.
                shelves.forget();
                continue;
            }
            Ok(Some((ToEngine::Reload { notes }, _))) => match plan.take() {
                Some(plan) => News::Plan(Box::new(plan), notes),
                None => News::Refused("the new configuration was lost on its way".into()),
            },
            Ok(Some((ToEngine::TablesRead(tables), _))) => match plan.take() {
                Some(plan) => News::Tables(Box::new(plan), tables),
                None => News::Refused("the new entries were lost on their way".into()),
            },
            Ok(Some((ToEngine::Renew(text), _))) => {
                // An error means that the coordinator has ended, which is what is wanted.
                let _ = news.send(News::Renewed(text));
                News::Stop
            }
            Ok(Some((ToEngine::ReloadRefused(report), _))) => News::Refused(report),
            Ok(Some((ToEngine::Stop, _)) | None) | Err(_) => News::Stop,
            Ok(Some(_)) => continue,
        };
        let is_last = matches!(event, News::Stop);
        if news.send(event).is_err() || is_last {
            return;
        }
    }
}

//! The engine's other thread: whatever is slow, blocking or global. Names, the control socket, the page, the log,
//! reloading. It touches no shard's state and holds no message; if it stalls, shards go on with what they have.

pub mod control;
mod dns;
mod errands;
mod expiry;
mod handshakes;
mod hlog;
mod http;
mod https;
pub mod list;
pub mod log;
mod logins;
pub mod mailbox;
mod network;
pub mod overrides;
mod prover;
mod reload;
mod shards;
mod shelves;
mod signing;
mod status;
mod sts;
pub mod tables;
pub mod tlsrpt;
pub mod users;
pub mod warmup;
mod zone;

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use ringpost_address::Network;
use ringpost_conf::Config;
use ringpost_io::Mailbox;
use ringpost_shard::NameAnswer;
use ringpost_tls::Server;
use tokio::sync::{mpsc, oneshot};

pub use self::dns::Names;
pub use self::errands::Errands;
pub use self::handshakes::Handshakes;
use self::https::Web;
use self::log::Log;
pub use self::logins::Logins;
use self::mailbox::{Asked, Line};
pub use self::prover::Prover;
pub use self::shards::Shards;
pub use self::shelves::Shelves;
pub use self::signing::Signers;
use self::tables::{Declared, Surroundings, Tables};
pub use self::tlsrpt::{Reports, Session};
pub use self::zone::Zone;
use crate::disk::Look;
use crate::ipc::codec::{Channel, cut};
use crate::ipc::control::Door;
use crate::ipc::engine::{FromEngine, Ready};
use crate::limits::{HLOG_LAST, LAST_ANSWER};
use crate::plan::Plan;

/// What the coordinator's tasks share.
pub struct Coordinator {
    /// The shards.
    pub shards: Arc<Shards>,
    /// The log.
    pub log: Log,
    /// The DNS.
    names: Arc<Names>,
    /// Tables that are looked up here.
    tables: RwLock<Arc<Tables>>,
    /// The configuration in force.
    config: RwLock<Arc<Config>>,
    surroundings: Surroundings,
    door: Door,
    supervisor: Channel,
    handshakes: Handshakes,
    reports: Arc<Reports>,
    /// The system's authorities, as the shards have them.
    roots: std::sync::Mutex<Vec<Vec<u8>>>,
    web: Arc<Web>,
    reloads: reload::Waiting,
    overrides: overrides::Overrides,
    warmups: Arc<warmup::Warmups>,
    /// As the shards have it.
    line: Line,
    logins: Arc<Logins>,
    /// What the page is encrypted with; `None`: it is not.
    page: RwLock<Option<Server>>,
    admission: http::Admission,
    hlog: hlog::Hlog,
}

/// What the coordinator is started with.
pub struct Start {
    /// The shards.
    pub shards: Arc<Shards>,
    /// The log.
    pub log: Log,
    /// The configuration.
    pub config: Arc<Config>,
    /// What the page is encrypted with, if it is.
    pub page: Option<Server>,
    /// To this very coordinator, and to signatures.
    pub line: Line,
    /// Where mail is taken.
    pub door: Door,
    /// To the supervisor.
    pub supervisor: Channel,
    /// The shards' questions.
    pub questions: Mailbox<Asked>,
    /// What is counted of encryption.
    pub reports: Arc<Reports>,
    /// What makes handshakes of certificates.
    pub handshakes: Handshakes,
    /// Judges logins.
    pub logins: Logins,
    /// Tables that are looked up here.
    pub tables: Vec<Declared>,
    /// The state directory.
    pub state: PathBuf,
    /// Absolute paths of configurations are below this directory.
    pub root: Option<PathBuf>,
    /// Who is asked for users of the system.
    pub users: users::Users,
    /// The authorities whose word the shards have begun with.
    pub roots: Vec<Vec<u8>>,
    /// Where names are looked up; `None`: the network.
    pub zone: Option<Zone>,
    /// Control socket.
    pub control: Option<UnixListener>,
    /// Who may use it.
    pub admission: control::Admission,
    /// The page's sockets.
    pub pages: Vec<TcpListener>,
    /// What happens, from other threads.
    pub news: mpsc::UnboundedReceiver<News>,
    /// Limits that were set, as the shards have them.
    pub overrides: overrides::Overrides,
    /// What is said of the start when all shards have opened their queues.
    pub ready: Ready,
}

/// What other threads tell the coordinator.
pub enum News {
    /// A shard has opened its slice of the queue and accepts, or cannot.
    Opened(Result<ringpost_shard::Opened, String>),
    /// What was seen of the queue's disk, before the first is opened.
    Disk(Look),
    /// The supervisor has sent a new plan, with notes.
    Plan(Box<Plan>, Vec<String>),
    /// The supervisor has read these tables again.
    Tables(Box<Plan>, Vec<String>),
    /// The supervisor has a plan for which another engine is started; what is to be said of it.
    Renewed(String),
    /// The supervisor has found errors in the configuration.
    Refused(String),
    /// The supervisor says stop, or is gone.
    Stop,
    /// All shards have ended; answer when all is said.
    Ended(oneshot::Sender<()>),
}

impl Coordinator {
    /// The tables of the configuration in force.
    pub fn tables(&self) -> Arc<Tables> {
        self.tables.read().expect("nobody panics with it").clone()
    }

    /// What a client at this address is called, as rules are told.
    pub async fn client_name(&self, address: std::net::IpAddr) -> tables::Answer {
        match dns::client_name(&self.names, address).await {
            NameAnswer::Known { name, .. } => tables::Answer::Found(name),
            NameAnswer::None => tables::Answer::NotFound,
            NameAnswer::Temporary(why) => tables::Answer::Failed(why),
        }
    }

    /// What source addresses may send that warm up.
    pub fn warmups(&self) -> Vec<warmup::WarmupRow> {
        self.warmups.rows(&self.config())
    }

    /// What was counted of encryption to domains that have a policy about it.
    pub fn reports(&self) -> &Reports {
        &self.reports
    }

    /// Ends the day of reports now; how many were written.
    pub async fn end_day(&self) -> usize {
        self.reports.end_day(&self.names).await
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.read().expect("nobody panics with it").clone()
    }

    /// The shards' way to answers and signatures.
    fn line(&self) -> &Line {
        &self.line
    }

    /// What the page is encrypted with in the configuration in force.
    fn page_server(&self) -> Option<Server> {
        self.page.read().expect("nobody panics with it").clone()
    }

    /// The supervisor stops everything, this process included.
    pub fn ask_to_stop(&self) {
        // If the supervisor is gone, this process ends anyway.
        let _ = self.supervisor.send(&FromEngine::WantsStop);
    }
}

/// Runs on its own thread until the shards have ended.
pub fn run(start: Start) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(coordinate(start))
}

async fn coordinate(start: Start) -> std::io::Result<()> {
    let Start {
        shards,
        log,
        config,
        page,
        line,
        door,
        supervisor,
        questions,
        reports,
        handshakes,
        logins,
        tables,
        state,
        root,
        users,
        roots,
        zone,
        control,
        admission,
        pages,
        news,
        overrides,
        ready,
    } = start;
    let for_names = log.clone();
    let names = Arc::new(Names::new(zone, Arc::new(move |what| for_names.warn(what))));
    if let Names::Nowhere(why) = &*names {
        log.warn(&format_args!("names cannot be resolved: {why}"));
    }
    let for_policies = log.clone();
    let web = Arc::new(Web::new(config.https_port(), handshakes.roots(), inner(&config, &names)));
    let policies = sts::Policies::new(
        names.clone(),
        state.join("mta-sts"),
        web.clone(),
        reports.clone(),
        Arc::new(move |what| for_policies.warn(what)),
    );
    let policies = Arc::new(policies);
    let for_warmups = log.clone();
    let warmups = Arc::new(warmup::Warmups::new(&state, Arc::new(move |what| for_warmups.warn(what))));
    let events = log.clone();
    let surroundings = Surroundings { root, events: Arc::new(move |event| events.warn(event)), users: Some(users) };
    // The supervisor has read the same files and found nothing wrong.
    let tables = Tables::new(tables, &surroundings).unwrap_or_else(|problems| {
        problems.iter().for_each(|problem| log.warn(problem));
        Tables::default()
    });
    let (tables, config) = (RwLock::new(Arc::new(tables)), RwLock::new(config));
    let (reloads, logins) = (reload::Waiting::default(), Arc::new(logins));
    shards.name_sites(config.read().expect("nobody panics with it").metrics.sites_max);
    let coordinator = Arc::new(Coordinator {
        shards,
        log,
        names: names.clone(),
        tables,
        config,
        surroundings,
        door,
        supervisor,
        handshakes,
        reports: reports.clone(),
        roots: std::sync::Mutex::new(roots),
        web: web.clone(),
        reloads,
        overrides,
        warmups: warmups.clone(),
        line,
        logins: logins.clone(),
        page: RwLock::new(page),
        admission: http::Admission::new(),
        hlog: hlog::Hlog::default(),
    });
    tokio::spawn(reports.clone().run(names.clone(), web.clone()));
    tokio::spawn(warmups.clone().run());
    let of_tables = coordinator.clone();
    let desk = mailbox::Desk {
        names,
        logins,
        policies,
        warmups: warmups.clone(),
        tables: Box::new(move || of_tables.tables()),
    };
    tokio::spawn(mailbox::answer(questions, desk));
    if let Some(control) = control {
        control.set_nonblocking(true)?;
        tokio::spawn(control::serve(tokio::net::UnixListener::from_std(control)?, admission, coordinator.clone()));
    }
    for page in pages {
        page.set_nonblocking(true)?;
        tokio::spawn(http::serve(tokio::net::TcpListener::from_std(page)?, coordinator.clone()));
    }
    tokio::spawn(expiry::watch(coordinator.clone()));
    tokio::spawn(overrides::watch(coordinator.clone()));
    tokio::spawn(hlog::keep(coordinator.clone()));
    follow(&coordinator, news, ready).await;
    reports.keep();
    warmups.keep();
    Ok(())
}

/// As [`ringpost_conf::Machinery::inner`], for what looks names up here.
fn inner(config: &Config, names: &Names) -> Option<Vec<Network>> {
    config.machinery.inner(!matches!(names, Names::Zone(_))).map(<[Network]>::to_vec)
}

async fn follow(coordinator: &Arc<Coordinator>, mut news: mpsc::UnboundedReceiver<News>, mut ready: Ready) {
    let (mut opened, mut failed) = (0, false);
    let (mut last, mut renewed) = (None, None);
    while let Some(event) = news.recv().await {
        match event {
            News::Opened(Ok(found)) => {
                opened += 1;
                ready.messages += found.messages;
                ready.damage.extend(found.damage);
                if opened == coordinator.shards.count() && !failed {
                    ready.damage.truncate(16);
                    ready.damage.iter_mut().for_each(|line| line.truncate(line.floor_char_boundary(500)));
                    coordinator.shards.set_accepting(true);
                    tokio::spawn(status::show(coordinator.clone()));
                    tell(coordinator, &FromEngine::Ready(std::mem::take(&mut ready)));
                }
            }
            News::Disk(look) => ready.disk = Some(look),
            News::Opened(Err(why)) => {
                if !std::mem::replace(&mut failed, true) {
                    tell(coordinator, &FromEngine::Failed(cut(why)));
                }
                coordinator.shards.stop().await;
            }
            News::Plan(plan, notes) => coordinator.apply(&plan, notes).await,
            News::Tables(plan, tables) => coordinator.apply_tables(&plan, &tables).await,
            News::Renewed(text) => renewed = Some(text),
            News::Refused(report) => coordinator.refuse(report),
            News::Stop => {
                coordinator.shards.set_accepting(false);
                let snapshot = coordinator.shards.snapshot_now().await;
                // A disk that hangs keeps nothing from stopping.
                let _ = tokio::time::timeout(HLOG_LAST, hlog::end(coordinator, &snapshot)).await;
                last = Some(snapshot);
                coordinator.shards.stop().await;
            }
            News::Ended(done) => {
                if let Some(text) = renewed.take() {
                    // Who hears of it must not meet this engine any more.
                    coordinator.renewed(text);
                    tokio::time::sleep(LAST_ANSWER).await;
                }
                let last = last.take().unwrap_or_default();
                if !failed {
                    tell(coordinator, &FromEngine::Stopped(coordinator.shards.summary(&last)));
                }
                coordinator.log.end();
                // Who waits for it is about to end the process.
                let _ = done.send(());
                return;
            }
        }
    }
}

fn tell(coordinator: &Coordinator, letter: &FromEngine) {
    if let Err(error) = coordinator.supervisor.send(letter) {
        coordinator.log.warn(&format_args!("the supervisor is gone: {error}"));
    }
}

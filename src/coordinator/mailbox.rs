//! Questions of the shards in, answers out. The same name is looked up once, however many shards ask for it; tables see to
//! that themselves.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_channel::oneshot;
use ringpost_conf::expand::Told;
use ringpost_conf::tables::ServiceKind;
use ringpost_io::{Mailbox, Sender};
use ringpost_shard::{Allowed, Ask, Asking, Login, MxAnswer, NameAnswer, Policy, Said, Verdict};
use ringpost_smtp::client::{Challenge, Signed};
use ringpost_smtp::limits::SCRAM_NONCE_BYTES;
use ringpost_tls::{Channel, Flight, Rejected};
use tokio::task::JoinSet;

use super::dns::{self, Names};
use super::list;
use super::logins::Logins;
use super::prover::Prover;
use super::shelves::Shelves;
use super::signing::Signers;
use super::sts::Policies;
use super::tables::{SYSTEM_USERS, Service, Tables};
use super::warmup::Warmups;
use crate::limits::{LOOKUPS, QUESTIONS};
use crate::passwords;

/// A question about names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Question {
    Exchangers(String, Option<u16>),
    Addresses(String, Option<u16>),
    Client(IpAddr),
    Policy(String),
}

/// The answer to it.
#[derive(Clone)]
enum Named {
    Hosts(MxAnswer),
    Client(NameAnswer),
    Policy(Option<Policy>),
}

/// A question to a table.
struct Lookup {
    table: String,
    service: ServiceKind,
    keys: Vec<String>,
}

/// A question and where its answer goes.
pub struct Asked(Kind);

enum Kind {
    Name(Question, oneshot::Sender<Named>),
    Lookup(Lookup, oneshot::Sender<Said>),
    List(PathBuf, oneshot::Sender<Told>),
    Login(Box<Login>, oneshot::Sender<Verdict>),
    Allow(Asking, oneshot::Sender<Allowed>),
    GiveBack(Vec<Asking>, oneshot::Sender<()>),
}

/// A shard's way to the coordinator.
#[derive(Clone)]
pub struct Line {
    sender: Sender<Asked>,
    signers: Signers,
    shelves: Option<Shelves>,
    prover: Option<Prover>,
    names_are_strangers: bool,
}

/// The shards' end and the coordinator's.
pub fn questions(signers: Signers) -> (Line, Mailbox<Asked>) {
    let (sender, mailbox) = Mailbox::new(QUESTIONS);
    (Line { sender, signers, shelves: None, prover: None, names_are_strangers: false }, mailbox)
}

/// Said when nobody is there to answer any more.
const STOPPED: &str = "the coordinator has stopped";

impl Line {
    /// With certificates of tables.
    pub fn with_shelves(self, shelves: Shelves) -> Self {
        Self { shelves: Some(shelves), ..self }
    }

    /// With somebody who computes what logins at other servers need.
    pub fn with_prover(self, prover: Prover) -> Self {
        Self { prover: Some(prover), ..self }
    }

    /// With names that come from the DNS, and not from a zone of the administrator's own.
    pub fn with_names_of_strangers(self, names_are_strangers: bool) -> Self {
        Self { names_are_strangers, ..self }
    }

    /// `None`: nobody is there to answer.
    async fn name(&self, question: Question) -> Option<Named> {
        let (answer, wait) = oneshot::channel();
        self.sender.send(Asked(Kind::Name(question, answer))).await.ok()?;
        wait.await.ok()
    }

    async fn hosts(&self, question: Question) -> MxAnswer {
        match self.name(question).await {
            Some(Named::Hosts(answer)) => answer,
            _ => MxAnswer::Temporary(STOPPED.into()),
        }
    }

    async fn lookup(&self, lookup: Lookup) -> Said {
        let (answer, wait) = oneshot::channel();
        if self.sender.send(Asked(Kind::Lookup(lookup, answer))).await.is_err() {
            return Said::Failed(STOPPED.into());
        }
        wait.await.unwrap_or_else(|_| Said::Failed(STOPPED.into()))
    }
}

impl Ask for Line {
    async fn exchangers(&self, domain: &str, tlsa_port: Option<u16>) -> MxAnswer {
        self.hosts(Question::Exchangers(domain.to_owned(), tlsa_port)).await
    }

    async fn addresses(&self, host: &str, tlsa_port: Option<u16>) -> MxAnswer {
        self.hosts(Question::Addresses(host.to_owned(), tlsa_port)).await
    }

    fn names_are_strangers(&self) -> bool {
        self.names_are_strangers
    }

    async fn policy(&self, domain: &str) -> Option<Policy> {
        match self.name(Question::Policy(domain.to_owned())).await {
            Some(Named::Policy(policy)) => policy,
            _ => None,
        }
    }

    async fn client_name(&self, address: IpAddr) -> NameAnswer {
        match self.name(Question::Client(address)).await {
            Some(Named::Client(answer)) => answer,
            _ => NameAnswer::Temporary(STOPPED.into()),
        }
    }

    async fn look_up(&self, table: &str, service: ServiceKind, keys: Vec<String>) -> Said {
        self.lookup(Lookup { table: table.to_owned(), service, keys }).await
    }

    async fn user(&self, name: &str) -> Said {
        let (table, service) = (SYSTEM_USERS.to_owned(), ServiceKind::UserInfo);
        self.lookup(Lookup { table, service, keys: vec![name.to_owned()] }).await
    }

    async fn list(&self, path: &Path) -> Told {
        let (answer, wait) = oneshot::channel();
        if self.sender.send(Asked(Kind::List(path.to_owned(), answer))).await.is_err() {
            return Told::Failed(STOPPED.into());
        }
        wait.await.unwrap_or_else(|_| Told::Failed(STOPPED.into()))
    }

    async fn find_certificate(&self, shelf: &str, name: &str) {
        if let Some(shelves) = &self.shelves {
            shelves.find(shelf, name).await;
        }
    }

    async fn judge(&self, login: Login) -> Verdict {
        let (answer, wait) = oneshot::channel();
        if self.sender.send(Asked(Kind::Login(Box::new(login), answer))).await.is_err() {
            return Verdict::Failed;
        }
        wait.await.unwrap_or(Verdict::Failed)
    }

    async fn allow(&self, asking: Asking) -> Allowed {
        let (answer, wait) = oneshot::channel();
        if self.sender.send(Asked(Kind::Allow(asking, answer))).await.is_err() {
            return Allowed::Unknown(STOPPED.into());
        }
        wait.await.unwrap_or_else(|_| Allowed::Unknown(STOPPED.into()))
    }

    async fn give_back(&self, unused: Vec<Asking>) {
        let (answer, wait) = oneshot::channel();
        if self.sender.send(Asked(Kind::GiveBack(unused, answer))).await.is_ok() {
            // Without an answer it is lost for the day.
            let _ = wait.await;
        }
    }

    fn nonce(&self) -> Option<[u8; SCRAM_NONCE_BYTES]> {
        self.prover.as_ref().and_then(|_| passwords::nonce())
    }

    async fn prove(&self, challenge: Challenge) -> Result<Signed, String> {
        match &self.prover {
            Some(prover) => prover.prove(challenge).await,
            None => Err("nobody proves passwords here".to_owned()),
        }
    }

    fn can_sign(&self) -> bool {
        self.signers.have_room()
    }

    async fn sign(&self, flight: Flight) -> Result<Channel, Rejected> {
        self.signers.sign(flight).await
    }
}

/// What questions are answered from.
pub struct Desk {
    /// The DNS.
    pub names: Arc<Names>,
    /// Judges logins.
    pub logins: Arc<Logins>,
    /// The policies of domains.
    pub policies: Arc<Policies>,
    /// What source addresses may send that warm up.
    pub warmups: Arc<Warmups>,
    /// The tables of the configuration in force.
    pub tables: Box<dyn Fn() -> Arc<Tables> + Send>,
}

/// Answers until all shards are gone.
pub async fn answer(mailbox: Mailbox<Asked>, desk: Desk) {
    let mut asking: HashMap<Question, Vec<oneshot::Sender<Named>>> = HashMap::new();
    let mut waiting: VecDeque<Question> = VecDeque::new();
    let mut lookups: JoinSet<(Question, Named)> = JoinSet::new();
    let mut open = true;
    while open || !lookups.is_empty() {
        tokio::select! {
            asked = mailbox.receive(), if open => match asked {
                Some(Asked(Kind::Name(question, answer))) => {
                    let all = asking.entry(question.clone()).or_default();
                    all.push(answer);
                    if all.len() == 1 {
                        waiting.push_back(question);
                    }
                }
                // Each table has its own bounds, so that one that is slow keeps nobody else waiting.
                Some(Asked(Kind::Lookup(lookup, answer))) => {
                    let tables = (desk.tables)();
                    tokio::spawn(async move {
                        // A shard that no longer waits needs no answer.
                        let _ = answer.send(said(&tables, lookup).await);
                    });
                }
                // As above: a hash is slow, and many that wait are bounded.
                Some(Asked(Kind::Login(login, answer))) => {
                    let (tables, logins) = ((desk.tables)(), desk.logins.clone());
                    tokio::spawn(async move { answer.send(logins.judge(&tables, *login).await) });
                }
                Some(Asked(Kind::List(path, answer))) => {
                    // As above.
                    tokio::spawn(async move { answer.send(list::read(path).await) });
                }
                Some(Asked(Kind::Allow(asking, answer))) => desk.warmups.ask(asking, answer),
                Some(Asked(Kind::GiveBack(unused, answer))) => {
                    desk.warmups.give_back(&unused);
                    // A shard that has ended does not wait.
                    let _ = answer.send(());
                }
                None => open = false,
            },
            Some(done) = lookups.join_next() => {
                let Ok((question, answer)) = done else { continue };
                for asker in asking.remove(&question).into_iter().flatten() {
                    let _ = asker.send(answer.clone());
                }
            }
        }
        while lookups.len() < LOOKUPS
            && let Some(question) = waiting.pop_front()
        {
            let (names, policies) = (desk.names.clone(), desk.policies.clone());
            lookups.spawn(async move {
                let answer = match &question {
                    Question::Exchangers(domain, port) => Named::Hosts(dns::exchangers(&names, domain, *port).await),
                    Question::Addresses(host, port) => Named::Hosts(dns::addresses(&names, host, *port).await),
                    Question::Policy(domain) => Named::Policy(policies.policy(domain).await),
                    Question::Client(address) => Named::Client(dns::client_name(&names, *address).await),
                };
                (question, answer)
            });
        }
    }
}

async fn said(tables: &Tables, Lookup { table, service, keys }: Lookup) -> Said {
    match Service::of(service) {
        Some(service) => tables.lookup_first(&table, service, keys).await,
        None => Said::Wrong(format!("tables do not answer {service} lookups")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::tables::{Backend, Declared, Surroundings};
    use crate::coordinator::tlsrpt::Reports;
    use crate::coordinator::zone::Zone;

    /// Answers from a zone, and from the users of a `passwd` file below this directory.
    fn with_desk<F: Future<Output = ()>>(root: &Path, ask: impl FnOnce(Line) -> F) {
        let zone = Zone::parse("a.test MX 10 mx.test\nmx.test A 192.0.2.1\n").unwrap();
        let surroundings = Surroundings { root: Some(root.to_owned()), events: Arc::new(|_| {}), users: None };
        let users = Declared::new(SYSTEM_USERS, Backend::System);
        let tables = Arc::new(Tables::new(vec![users], &surroundings).unwrap());
        let logins = Arc::new(Logins::start(1, None, |_| {}).unwrap());
        let names = Arc::new(Names::Zone(zone));
        let reports = Arc::new(Reports::new(root, "host.example", Arc::new(|_| {})));
        let web = crate::coordinator::https::Web::new(443, rustls::RootCertStore::empty(), None);
        let web = Arc::new(web);
        let policies = Policies::new(names.clone(), root.join("mta-sts"), web, reports, Arc::new(|_| {}));
        let policies = Arc::new(policies);
        let warmups = Arc::new(Warmups::new(root, Arc::new(|_| {})));
        let desk = Desk { names, logins, policies, warmups, tables: Box::new(move || tables.clone()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (line, mailbox) = questions(Signers::start(1).unwrap());
            let answering = tokio::spawn(answer(mailbox, desk));
            ask(line).await;
            answering.await.unwrap();
        });
    }

    #[test]
    fn all_who_ask_are_answered() {
        with_desk(Path::new("/nowhere"), async |line| {
            let same = (0..50).map(|_| line.exchangers("a.test", None));
            let mut set = Vec::new();
            for ask in same {
                set.push(ask);
            }
            for ask in set {
                assert!(matches!(ask.await, MxAnswer::Hosts { .. }));
            }
            assert_eq!(line.exchangers("b.test", None).await, MxAnswer::NoSuchDomain);
            assert!(matches!(line.addresses("mx.test", Some(25)).await, MxAnswer::Hosts { .. }));
            assert_eq!(line.client_name([192, 0, 2, 1].into()).await, NameAnswer::None);
        });
    }

    #[test]
    fn the_first_key_decides_and_a_failure_ends_the_search() {
        let dir = tempfile::tempdir().unwrap();
        with_desk(dir.path(), async |line| {
            assert!(matches!(line.user("gilles").await, Said::Failed(_)), "there is no file yet");
        });
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        let text = "eric:x:1:2::/home/eric:\ngilles:x:10:100::/home/gilles:\n";
        std::fs::write(dir.path().join("etc/passwd"), text).unwrap();
        with_desk(dir.path(), async |line| {
            let is_gilles =
                |said: Said| matches!(said, Said::Found { text, .. } if text == "gilles:10:100:/home/gilles");
            assert!(is_gilles(line.user("gilles").await));
            assert!(matches!(line.user("chl").await, Said::NotFound { .. }));
            let keys = ["chl", "gilles", "eric"].map(str::to_owned).to_vec();
            assert!(is_gilles(line.look_up(SYSTEM_USERS, ServiceKind::UserInfo, keys).await));
            let keys = vec!["gilles".to_owned()];
            assert!(matches!(line.look_up("other", ServiceKind::Alias, keys.clone()).await, Said::Wrong(_)));
            assert!(matches!(line.look_up(SYSTEM_USERS, ServiceKind::Regex, keys).await, Said::Wrong(_)));
        });
    }
}

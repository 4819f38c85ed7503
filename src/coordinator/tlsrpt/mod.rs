//! What became of encryption to domains that have a policy about it, counted by day and told to those that ask (RFC 8460).
//!
//! Shards note each session as it begins or fails to. What was counted is kept in `tlsrpt/` of the state directory; when a
//! day is over, each domain that says in the DNS where it wants its report gets one there, and by mail (`send.rs`) or from a
//! web client (`post.rs`).

mod post;
mod report;
mod send;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringpost_shard::PolicyKind;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use self::post::{Fate, Posts};
use self::report::Report;
use super::dns::{Names, Texts, texts};
use super::https::Web;
use super::network::Say;
use crate::durable;
use crate::limits::{TLSRPT_DAYS_WAITING, TLSRPT_DOMAINS, TLSRPT_FAILURES, TLSRPT_KEPT, TLSRPT_LOOK, TLSRPT_SPREAD};

const DAY: u64 = 86_400;

/// All that is counted.
pub struct Reports {
    days: Mutex<Days>,
    dir: PathBuf,
    hostname: String,
    /// There is something new to be posted.
    posts_came: Notify,
    say: Say,
}

/// A session, or the lack of one.
#[derive(Clone, Copy, Debug)]
pub struct Session<'a> {
    /// Whose policy it was held to.
    pub domain: &'a str,
    /// Which.
    pub kind: PolicyKind,
    /// The server; empty where none was reached.
    pub host: &'a str,
    /// Its address and ours.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// What was wrong, in the words of RFC 8460 §4.3; `None`: nothing.
    pub failure: Option<&'a str>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Days {
    today: Day,
    /// Days that are over, with what is still to be told of them.
    over: Vec<Day>,
    /// Reports that web servers are still to have.
    #[serde(default)]
    posts: Posts,
}

/// What happened on a day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Day {
    /// Since 1970.
    number: u64,
    domains: BTreeMap<String, Vec<Counts>>,
}

/// Sessions with one domain that were held to one kind of policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Which: `tlsa` or `sts`.
    pub policy: String,
    /// Those that went well.
    pub good: u64,
    /// Those that did not.
    pub failed: u64,
    /// What was wrong with them; of rare kinds, when there are many, only the number above.
    pub failures: Vec<Failure>,
}

/// Sessions that failed alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// In the words of RFC 8460 §4.3.
    pub kind: String,
    /// The server.
    pub host: String,
    /// Its address and ours.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// How many.
    pub count: u64,
}

/// What was counted of one domain, for a person.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OfDomain {
    /// The domain.
    pub domain: String,
    /// By policy.
    pub policies: Vec<Counts>,
}

impl Day {
    fn note(&mut self, session: &Session<'_>) {
        if !self.domains.contains_key(session.domain) && self.domains.len() >= TLSRPT_DOMAINS {
            return;
        }
        let policies = self.domains.entry(session.domain.to_owned()).or_default();
        let policy = match session.kind {
            PolicyKind::Dane => "tlsa",
            PolicyKind::Sts => "sts",
        };
        let counts = match policies.iter().position(|counts| counts.policy == policy) {
            Some(at) => &mut policies[at],
            None => {
                policies.push(Counts { policy: policy.to_owned(), good: 0, failed: 0, failures: Vec::new() });
                policies.last_mut().expect("just pushed")
            }
        };
        let Some(kind) = session.failure else {
            counts.good += 1;
            return;
        };
        counts.failed += 1;
        let alike = |one: &Failure| one.kind == kind && one.host == session.host && one.addresses == session.addresses;
        match counts.failures.iter().position(alike) {
            Some(at) => counts.failures[at].count += 1,
            None if counts.failures.len() < TLSRPT_FAILURES => counts.failures.push(Failure {
                kind: kind.to_owned(),
                host: session.host.to_owned(),
                addresses: session.addresses,
                count: 1,
            }),
            None => {}
        }
    }
}

impl Reports {
    /// What was counted before, from this state directory, and what will be. `hostname` is who reports.
    pub fn new(state: &Path, hostname: &str, say: Say) -> Self {
        let dir = state.join("tlsrpt");
        let read = fs::read(dir.join(CURRENT)).ok();
        let mut days: Days = read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        days.turn(today());
        let (hostname, posts_came) = (hostname.to_owned(), Notify::new());
        Self { days: Mutex::new(days), dir, hostname, posts_came, say }
    }

    /// Counts a session.
    pub fn note(&self, session: &Session<'_>) {
        let mut days = self.days.lock().expect("nobody panics with it");
        days.turn(today());
        days.today.note(session);
    }

    /// What was counted today.
    pub fn of_today(&self) -> Vec<OfDomain> {
        let days = self.days.lock().expect("nobody panics with it");
        let all = days.today.domains.iter();
        all.map(|(domain, policies)| OfDomain { domain: domain.clone(), policies: policies.clone() }).collect()
    }

    /// Ends the day now, and tells what there is to tell; how many reports were written.
    pub async fn end_day(&self, names: &Names) -> usize {
        {
            let mut days = self.days.lock().expect("nobody panics with it");
            let number = days.today.number;
            let day = std::mem::replace(&mut days.today, Day { number, ..Day::default() });
            days.over.push(day);
        }
        let told = self.tell(names, Duration::ZERO).await;
        self.keep();
        told
    }

    /// Keeps what was counted, and tells of days that are over, as long as the engine runs.
    pub async fn run(self: Arc<Self>, names: Arc<Names>, web: Arc<Web>) {
        // Servers that hang are to keep nothing else waiting.
        tokio::spawn(self.clone().post(names.clone(), web));
        loop {
            tokio::time::sleep(TLSRPT_LOOK).await;
            self.days.lock().expect("nobody panics with it").turn(today());
            self.tell(&names, TLSRPT_SPREAD).await;
            self.keep();
        }
    }

    /// Posts reports as their time comes.
    async fn post(self: Arc<Self>, names: Arc<Names>, web: Arc<Web>) {
        loop {
            let due = self.days.lock().expect("nobody panics with it").posts.due(unix());
            if due.is_empty() {
                // Nothing hurries, but for what an administrator has asked for.
                let _ = tokio::time::timeout(TLSRPT_LOOK, self.posts_came.notified()).await;
                continue;
            }
            let mut posting = JoinSet::new();
            for one in due {
                let (dir, names, web) = (self.dir.clone(), names.clone(), web.clone());
                posting.spawn(async move { (post::post(&dir, &names, &web, &one).await, one) });
            }
            while let Some(Ok((outcome, one))) = posting.join_next().await {
                let (domain, url) = (&one.domain, &one.url);
                let mut days = self.days.lock().expect("nobody panics with it");
                let Err(why) = outcome else {
                    days.posts.remove(&one);
                    continue;
                };
                let fate = days.posts.put_off(&one, unix());
                drop(days);
                match fate {
                    Fate::FirstDelay => (self.say)(&format_args!(
                        "the TLS report to {domain} is not taken at {url}, and tried again for a day: {why}"
                    )),
                    Fate::Later => {}
                    Fate::GivenUp => {
                        (self.say)(&format_args!("the TLS report to {domain} is given up at {url}: {why}"));
                    }
                }
            }
            // What has arrived is not posted again after a crash.
            self.keep();
        }
    }

    /// Writes down what was counted.
    pub fn keep(&self) {
        let bytes = {
            let days = self.days.lock().expect("nobody panics with it");
            if days.today.domains.is_empty() && days.over.is_empty() && days.posts.is_empty() && !self.dir.exists() {
                return;
            }
            serde_json::to_vec(&*days).expect("text and numbers")
        };
        if let Err(error) = self.write(CURRENT, &bytes) {
            (self.say)(&format_args!("{}: what TLS reports are made of is not kept: {error}", self.dir.display()));
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> std::io::Result<()> {
        match fs::create_dir(&self.dir) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        durable::replace(&self.dir.join(name), 0o600, bytes)
    }

    /// Reports of the days that are over, to those domains that want one; how many. What is posted is so within that time.
    async fn tell(&self, names: &Names, spread: Duration) -> usize {
        let over = std::mem::take(&mut self.days.lock().expect("nobody panics with it").over);
        let (mut told, mut later) = (0, Vec::new());
        for day in over {
            let mut left = Day { number: day.number, ..Day::default() };
            for (domain, policies) in day.domains {
                match texts(names, &format!("_smtp._tls.{domain}")).await {
                    Texts::Found(texts) => {
                        if let Some(wanted) = report::wanted(&texts) {
                            self.report(day.number, &domain, &policies, &wanted, spread);
                            told += 1;
                        }
                    }
                    Texts::None => {}
                    Texts::Failed => drop(left.domains.insert(domain, policies)),
                }
            }
            if !left.domains.is_empty() && today().saturating_sub(left.number) <= TLSRPT_DAYS_WAITING {
                later.push(left);
            }
        }
        self.days.lock().expect("nobody panics with it").over.extend(later);
        if told > 0 {
            self.posts_came.notify_one();
            self.forget_old();
        }
        told
    }

    fn report(&self, day: u64, domain: &str, policies: &[Counts], wanted: &[String], spread: Duration) {
        let report = Report { hostname: &self.hostname, domain, day, policies };
        let (name, packed) = (report.file_name(), report.packed());
        if let Err(error) = self.write(&name, &packed) {
            return (self.say)(&format_args!("{}: a TLS report is not kept: {error}", self.dir.display()));
        }
        let due = unix() + random() % (spread.as_secs() + 1);
        if !self.days.lock().expect("nobody panics with it").posts.add(domain, &name, wanted, due) {
            (self.say)(&format_args!("the TLS report to {domain} is not posted: too many wait for that"));
        }
        let Some(state) = self.dir.parent() else { return };
        if let Err(error) = send::send(state, &report, &name, &packed, wanted) {
            (self.say)(&format_args!("the TLS report to {domain} is not sent: {error}"));
        }
    }

    fn forget_old(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let age = entry.metadata().and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
            if age.is_some_and(|age| age > TLSRPT_KEPT) {
                // Next time, then.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// The file with what was counted.
const CURRENT: &str = "current.json";

impl Days {
    fn turn(&mut self, today: u64) {
        if self.today.number == today {
            return;
        }
        let day = std::mem::replace(&mut self.today, Day { number: today, ..Day::default() });
        if !day.domains.is_empty() {
            self.over.push(day);
        }
    }
}

fn today() -> u64 {
    unix() / DAY
}

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without, nothing is spread.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session<'a>(domain: &'a str, host: &'a str, failure: Option<&'a str>) -> Session<'a> {
        Session { domain, kind: PolicyKind::Sts, host, addresses: None, failure }
    }

    #[test]
    fn what_is_counted_has_an_end_and_outlives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let reports = Reports::new(dir.path(), "host.example", Arc::new(|_| {}));
        reports.keep();
        assert!(!dir.path().join("tlsrpt").exists(), "nothing was counted");
        for number in 0..TLSRPT_FAILURES + 5 {
            reports.note(&session("a.example", &format!("mx{number}"), Some("certificate-expired")));
        }
        reports.note(&session("a.example", "mx0", Some("certificate-expired")));
        reports.note(&session("a.example", "mx0", None));
        for number in 0..TLSRPT_DOMAINS {
            reports.note(&session(&format!("d{number}.example"), "mx", None));
        }
        reports.keep();
        let again = Reports::new(dir.path(), "host.example", Arc::new(|_| {}));
        let all = again.of_today();
        assert_eq!(all.len(), TLSRPT_DOMAINS);
        let counts = &all[0].policies[0];
        let expected = (1, TLSRPT_FAILURES as u64 + 6, TLSRPT_FAILURES, 2);
        assert_eq!((counts.good, counts.failed, counts.failures.len(), counts.failures[0].count), expected);
    }

    #[test]
    fn a_day_that_is_over_is_kept_apart() {
        let mut days = Days::default();
        days.turn(7);
        days.today.note(&session("a.example", "mx", None));
        days.turn(7);
        days.turn(8);
        days.turn(9);
        assert_eq!((days.today.number, days.over.len(), days.over[0].number), (9, 1, 7));
    }
}

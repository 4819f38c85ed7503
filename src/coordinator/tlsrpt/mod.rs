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
use std::time::Duration;

use ringpost_shard::PolicyKind;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as Turn, Notify};
use tokio::task::JoinSet;

use self::post::{Fate, Posts};
use self::report::Report;
use super::dns::{Names, Texts, texts};
use super::https::Web;
use super::network::Say;
use crate::clock::unix;
use crate::durable;
use crate::limits::{
    TLSRPT_DAYS_WAITING, TLSRPT_DOMAINS, TLSRPT_FAILURES, TLSRPT_KEPT, TLSRPT_LOOK, TLSRPT_SEND_AGAIN, TLSRPT_SPREAD,
};
use crate::passwords;

const DAY: u64 = 86_400;

/// All that is counted.
pub struct Reports {
    days: Mutex<Days>,
    dir: PathBuf,
    hostname: String,
    /// Whose turn it is to tell a domain: nobody is told twice.
    telling: Turn<()>,
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
    /// When what could not be sent of it is tried again, in seconds since 1970.
    #[serde(default)]
    again: u64,
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
    fn has(&self, number: u64, domain: &str, policies: &[Counts]) -> bool {
        self.number == number && self.domains.get(domain).is_some_and(|counted| counted == policies)
    }

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
        let (hostname, telling, posts_came) = (hostname.to_owned(), Turn::new(()), Notify::new());
        Self { days: Mutex::new(days), dir, hostname, telling, posts_came, say }
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
            days.over.iter_mut().for_each(|day| day.again = 0);
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
    /// What was counted of a domain stays in [`Days`] until it is over with it: whatever ends us meanwhile, it is told later.
    async fn tell(&self, names: &Names, spread: Duration) -> usize {
        let over = self.days.lock().expect("nobody panics with it").due(unix());
        let mut told = 0;
        for day in &over {
            let is_late = today().saturating_sub(day.number) > TLSRPT_DAYS_WAITING;
            for (domain, policies) in &day.domains {
                let _turn = self.telling.lock().await;
                if !self.days.lock().expect("nobody panics with it").waits(day.number, domain, policies) {
                    continue;
                }
                let wanted = match texts(names, &format!("_smtp._tls.{domain}")).await {
                    Texts::Found(texts) => report::wanted(&texts),
                    Texts::Failed if !is_late => continue,
                    Texts::None | Texts::Failed => None,
                };
                let sent = wanted.map(|wanted| self.report(day.number, domain, policies, &wanted, spread)).transpose();
                let mut days = self.days.lock().expect("nobody panics with it");
                match sent {
                    Ok(sent) => told += usize::from(sent.is_some()),
                    Err(why) if is_late => (self.say)(&format_args!("the TLS report to {domain} is given up: {why}")),
                    Err(why) => {
                        days.put_off(day.number, unix() + TLSRPT_SEND_AGAIN.as_secs());
                        (self.say)(&format_args!("the TLS report to {domain} and others are sent later: {why}"));
                        break;
                    }
                }
                days.told(day.number, domain, policies);
            }
        }
        if told > 0 {
            self.posts_came.notify_one();
            self.forget_old();
        }
        told
    }

    /// # Errors
    /// It could not be left to be sent, and why.
    fn report(
        &self,
        day: u64,
        domain: &str,
        policies: &[Counts],
        wanted: &[String],
        spread: Duration,
    ) -> Result<(), String> {
        let report = Report { hostname: &self.hostname, domain, day, policies };
        let (name, packed) = (report.file_name(), report.packed());
        self.write(&name, &packed).map_err(|error| format!("{}: {error}", self.dir.display()))?;
        if let Some(state) = self.dir.parent() {
            send::send(state, &report, &name, &packed, wanted)
                .map_err(|error| format!("it cannot be left in {}: {error}", state.display()))?;
        }
        let due = unix() + random() % (spread.as_secs() + 1);
        if !self.days.lock().expect("nobody panics with it").posts.add(domain, &name, wanted, due) {
            (self.say)(&format_args!("the TLS report to {domain} is not posted: too many wait for that"));
        }
        Ok(())
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

    /// What is over, and is told or tried again now.
    fn due(&self, now: u64) -> Vec<Day> {
        self.over.iter().filter(|day| day.again <= now).cloned().collect()
    }

    /// Whether this is still to be told. A day that was ended by hand is there twice.
    fn waits(&self, number: u64, domain: &str, policies: &[Counts]) -> bool {
        self.over.iter().any(|day| day.has(number, domain, policies))
    }

    /// It is over with this.
    fn told(&mut self, number: u64, domain: &str, policies: &[Counts]) {
        if let Some(day) = self.over.iter_mut().find(|day| day.has(number, domain, policies)) {
            day.domains.remove(domain);
        }
        self.over.retain(|day| !day.domains.is_empty());
    }

    /// What is left of that day has time until then.
    fn put_off(&mut self, number: u64, again: u64) {
        self.over.iter_mut().filter(|day| day.number == number).for_each(|day| day.again = again);
    }
}

fn today() -> u64 {
    unix() / DAY
}

fn random() -> u64 {
    // Without, nothing is spread.
    passwords::nonce().map_or(0, u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::super::zone::Zone;
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

    /// A zone in which `wants.example` wants a report by mail, and nobody can say of `silent.example`.
    fn names() -> Names {
        let zone =
            "_smtp._tls.wants.example TXT \"v=TLSRPTv1; rua=mailto:a@b.example\"\n_smtp._tls.silent.example SERVFAIL\n";
        Names::Zone(Zone::parse(zone).unwrap())
    }

    /// Counts what has happened yesterday with these domains.
    fn yesterday(reports: &Reports, domains: &[&str]) {
        let mut days = reports.days.lock().unwrap();
        days.today.number -= 1;
        domains.iter().for_each(|domain| days.today.note(&session(domain, "mx", None)));
        days.turn(today());
    }

    fn waiting(reports: &Reports) -> Vec<String> {
        let days = reports.days.lock().unwrap();
        days.over.iter().flat_map(|day| day.domains.keys().cloned()).collect()
    }

    #[tokio::test]
    async fn what_is_not_told_yet_outlives_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let reports = Arc::new(Reports::new(dir.path(), "host.example", Arc::new(|_| {})));
        yesterday(&reports, &["other.example", "silent.example", "wants.example"]);
        // While somebody is being told, what was counted is written down, as often as a report is posted.
        let turn = reports.telling.lock().await;
        let (telling, names) = (reports.clone(), names());
        let told = tokio::spawn(async move { telling.tell(&names, Duration::ZERO).await });
        tokio::task::yield_now().await;
        reports.keep();
        let again = Reports::new(dir.path(), "host.example", Arc::new(|_| {}));
        assert_eq!(waiting(&again), ["other.example", "silent.example", "wants.example"]);
        drop(turn);
        assert_eq!((told.await.unwrap(), waiting(&reports)), (1, vec!["silent.example".to_owned()]));
        assert!(crate::sendmail::spool::waits(dir.path()));
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_sent_later() {
        let dir = tempfile::tempdir().unwrap();
        let said = Arc::new(Mutex::new(Vec::new()));
        let lines = said.clone();
        let say: Say = Arc::new(move |line| lines.lock().unwrap().push(line.to_string()));
        let reports = Reports::new(dir.path(), "host.example", say);
        yesterday(&reports, &["wants.example"]);
        // In the place of the spool there is a file.
        fs::write(dir.path().join("spool"), "").unwrap();
        for _ in 0..2 {
            assert_eq!((reports.tell(&names(), Duration::ZERO).await, waiting(&reports).len()), (0, 1));
        }
        let said = said.lock().unwrap().clone();
        assert!(said.len() == 1 && said[0].contains("sent later"), "{said:?}");
        fs::remove_file(dir.path().join("spool")).unwrap();
        reports.days.lock().unwrap().over[0].again = unix();
        assert_eq!((reports.tell(&names(), Duration::ZERO).await, waiting(&reports).len()), (1, 0));
    }
}

//! What all backends share, tried with a server that does what a test says: bounds, cache, back-off.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Mutex;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::*;

/// A wait that ends a test which would otherwise never end.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a test on a runtime like the coordinator's.
pub fn block<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("it ends") })
}

/// Surroundings, and what was said in them.
pub fn surroundings() -> (Surroundings, Arc<Mutex<Vec<Event>>>) {
    let said: Arc<Mutex<Vec<Event>>> = Arc::default();
    let hears = said.clone();
    let events = Arc::new(move |event: &Event| hears.lock().unwrap().push(event.clone()));
    (Surroundings { root: None, events, users: None }, said)
}

impl Tables {
    /// One key.
    pub async fn lookup(&self, table: &str, service: Service, key: &str) -> Answer {
        self.lookup_first(table, service, [key.to_owned()]).await.into()
    }
}

/// A configuration file.
pub fn config(text: impl Into<String>) -> settings::ConfigFile {
    settings::ConfigFile { path: "/etc/mail/t.conf".into(), text: text.into() }
}

/// One table that forgets nothing by itself and is patient.
pub fn declared(backend: Backend) -> Declared {
    Declared { cache: PATIENCE, negative: PATIENCE, timeout: PATIENCE / 4, ..Declared::new("t", backend) }
}

/// Waits until an answer is as wished; different keys, so that no cache helps.
pub async fn until(what: &str, mut ask: impl AsyncFnMut(u64) -> bool) {
    let began = Instant::now();
    let mut number = 0;
    while !ask(number).await {
        assert!(began.elapsed() < PATIENCE, "not yet: {what}");
        number += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub fn found(text: &str) -> Answer {
    Answer::Found(text.into())
}

#[track_caller]
pub fn failed(answer: Answer, why: &str) {
    match answer {
        Answer::Failed(reason) => assert!(reason.contains(why), "{reason}"),
        other => panic!("{other:?} instead of a failure: {why}"),
    }
}

/// Speaks as much of Redis' protocol as a lookup needs. Keys with `absent` are not there, keys with `slow` are answered
/// when the test says so, all others are their own values.
struct Fake {
    address: std::net::SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    go: Arc<Notify>,
    running: tokio::task::JoinHandle<()>,
    connections: Arc<Mutex<Vec<tokio::task::JoinHandle<()>>>>,
}

impl Fake {
    async fn start(at: &str) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, go, connections) = (Arc::default(), Arc::new(Notify::new()), Arc::<Mutex<Vec<_>>>::default());
        let (counts, starts, keeps) = (Arc::clone(&asked), go.clone(), connections.clone());
        let running = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = tokio::spawn(serve(stream, Arc::clone(&counts), starts.clone()));
                keeps.lock().unwrap().push(serving);
            }
        });
        Self { address, asked, go, running, connections }
    }

    fn tables(&self, change: impl FnOnce(&mut Declared)) -> (Tables, Arc<Mutex<Vec<Event>>>) {
        let (surroundings, said) = surroundings();
        let text = format!("url redis://{}\nalias_prefix a:\ndomain_prefix d:\ncredentials_prefix c:\n", self.address);
        let mut table = declared(Backend::Redis(config(text)));
        change(&mut table);
        (Tables::new(vec![table], &surroundings).unwrap(), said)
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    async fn stop(self) {
        self.running.abort();
        for connection in self.connections.lock().unwrap().drain(..) {
            connection.abort();
        }
        // An error: it was ended, as it should be.
        let _ = self.running.await;
    }
}

async fn serve(stream: TcpStream, asked: Arc<Mutex<Vec<String>>>, go: Arc<Notify>) {
    let (mut from, to) = stream.into_split();
    let to = Arc::new(tokio::sync::Mutex::new(to));
    let mut buffer = Vec::new();
    loop {
        while let Some((words, used)) = command(&buffer) {
            buffer.drain(..used);
            if words[0] != "GET" {
                to.lock().await.write_all(b"+OK\r\n").await.unwrap();
                continue;
            }
            asked.lock().unwrap().push(words[1].clone());
            let key = words[1][2..].to_owned();
            if key.contains("slow") {
                go.notified().await;
            }
            let reply = match key.contains("absent") {
                true => "$-1\r\n".to_owned(),
                false => format!("${}\r\n{key}\r\n", key.len()),
            };
            if to.lock().await.write_all(reply.as_bytes()).await.is_err() {
                return;
            }
        }
        if !matches!(from.read_buf(&mut buffer).await, Ok(1..)) {
            return;
        }
    }
}

/// `*2\r\n$3\r\nGET\r\n$1\r\nx\r\n`
fn command(buffer: &[u8]) -> Option<(Vec<String>, usize)> {
    let text = std::str::from_utf8(buffer).ok()?;
    let mut at = 0;
    let mut line = || {
        let end = text[at..].find("\r\n")? + at;
        let line = &text[at..end];
        at = end + 2;
        Some(line)
    };
    let count: usize = line()?.strip_prefix('*')?.parse().ok()?;
    let mut words = Vec::new();
    for _ in 0..count {
        line()?;
        words.push(line()?.to_owned());
    }
    Some((words, at))
}

#[test]
fn one_question_is_asked_once_and_its_answer_kept() {
    block(async {
        let server = Fake::start("127.0.0.1:0").await;
        let (tables, _) = server.tables(|_| ());
        let tables = Arc::new(tables);
        let mut set = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let tables = tables.clone();
            set.spawn(async move { tables.lookup("t", Service::Alias, "slow").await });
        }
        until("the server was asked", async |_| server.asked() == ["a:slow"]).await;
        until("all others wait", async |_| tables.figures("t").unwrap().tally.joined == 49).await;
        server.go.notify_one();
        while let Some(answer) = set.join_next().await {
            assert_eq!(answer.unwrap(), found("slow"));
        }
        assert_eq!(tables.lookup("t", Service::Alias, "slow").await, found("slow"));
        assert_eq!(tables.lookup("t", Service::Domain, "x").await, found("x"));
        assert_eq!(tables.lookup("t", Service::Alias, "absent").await, Answer::NotFound);
        assert_eq!(tables.lookup("t", Service::Alias, "absent").await, Answer::NotFound);
        assert_eq!(server.asked(), ["a:slow", "d:x", "a:absent"]);
        let figures = tables.figures("t").unwrap();
        let Figures { kept, waiting, tally, .. } = figures;
        let Tally { hits, joined, asked, found, not_found, failures, .. } = tally;
        assert_eq!((hits, joined, asked, found, not_found, failures, kept, waiting), (2, 49, 3, 2, 1, 0, 3, 0));
        assert_eq!(figures.latency.count(), 3);
        tables.update("t").await.unwrap();
        tables.lookup("t", Service::Alias, "absent").await;
        assert_eq!(server.asked().len(), 4);
    });
}

#[test]
fn what_is_not_known_or_too_long_is_a_failure() {
    block(async {
        let server = Fake::start("127.0.0.1:0").await;
        let (tables, _) = server.tables(|_| ());
        failed(tables.lookup("other", Service::Alias, "x").await, "there is no table <other>");
        failed(tables.lookup("t", Service::UserInfo, "x").await, "no `userinfo_prefix`");
        failed(tables.lookup("t", Service::Alias, &"x".repeat(limits::KEY_BYTES + 1)).await, "a key of 4097 bytes");
        assert_eq!(tables.provides("t", Service::RelayCredentials).await, Ok(true));
        assert_eq!(tables.provides("t", Service::UserInfo).await, Ok(false));
        assert!(server.asked().is_empty());
    });
}

#[test]
fn while_it_fails_old_answers_are_given_but_never_to_guard_a_door() {
    block(async {
        let server = Fake::start("127.0.0.1:0").await;
        let address = server.address.to_string();
        let (tables, said) = server.tables(|table| (table.cache, table.negative) = (Duration::ZERO, Duration::ZERO));
        for (service, key) in [(Service::Alias, "x"), (Service::Credentials, "x"), (Service::RelayCredentials, "y")] {
            assert_eq!(tables.lookup("t", service, key).await, found(key));
        }
        assert_eq!(tables.lookup("t", Service::Alias, "absent").await, Answer::NotFound);
        server.stop().await;
        for _ in 0..10 {
            assert_eq!(tables.lookup("t", Service::Alias, "x").await, found("x"));
            assert_eq!(tables.lookup("t", Service::RelayCredentials, "y").await, found("y"));
            failed(tables.lookup("t", Service::Credentials, "x").await, "");
            // It would be turned away for good.
            failed(tables.lookup("t", Service::Alias, "absent").await, "");
            failed(tables.lookup("t", Service::Alias, "new").await, "");
        }
        let fails = |said: &Mutex<Vec<Event>>| {
            said.lock().unwrap().iter().filter(|event| matches!(event, Event::Fails { .. })).count()
        };
        assert_eq!(fails(&said), 1);
        assert!(tables.figures("t").unwrap().failing.is_some());
        let server = Fake::start(&address).await;
        until("it answers again", async |n| {
            tables.lookup("t", Service::Alias, &format!("k{n}")).await == found(&format!("k{n}"))
        })
        .await;
        assert_eq!(tables.lookup("t", Service::Credentials, "x").await, found("x"));
        let events = said.lock().unwrap();
        assert!(matches!(events.as_slice(), [Event::Fails { .. }, Event::Works { .. }]), "{events:?}");
        drop(events);
        drop(server);
    });
}

/// Shards keep answers, too: what was kept here has been true for that much less long.
#[test]
fn an_answer_is_as_old_as_its_oldest_part() {
    block(async {
        let server = Fake::start("127.0.0.1:0").await;
        let (tables, _) = server.tables(|_| ());
        let keys = || ["absent", "there"].map(str::to_owned);
        let age = async || match tables.lookup_first("t", Service::Alias, keys()).await {
            Said::Found { text, age } if text == "there" => age,
            other => panic!("{other:?}"),
        };
        assert_eq!(tables.lookup("t", Service::Alias, "absent").await, Answer::NotFound);
        tokio::time::sleep(Duration::from_millis(30)).await;
        let first = age().await;
        assert!(first >= Duration::from_millis(30), "{first:?}, though `there` is new");
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(age().await >= first + Duration::from_millis(30));
        assert_eq!(server.asked(), ["a:absent", "a:there"]);
        server.stop().await;
        tables.update("t").await.unwrap();
        let said = tables.lookup_first("t", Service::Alias, keys()).await;
        assert!(matches!(said, Said::Failed(_)), "the key after it is not asked: {said:?}");
    });
}

#[test]
fn a_backend_that_fails_is_left_alone() {
    block(async {
        let server = Fake::start("127.0.0.1:0").await;
        let address = server.address;
        let (tables, _) = server.tables(|_| ());
        server.stop().await;
        let listener = TcpListener::bind(address).await.unwrap();
        let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counts = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counts.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                drop(stream);
            }
        });
        let began = Instant::now();
        for n in 0..200 {
            failed(tables.lookup("t", Service::Alias, &format!("{n}")).await, "");
        }
        // Pauses of 0.5 s, 1 s, …: as many trials as fit the time that this took, however slow the machine is.
        let trials = 2 + (began.elapsed().as_millis() / limits::PAUSE_FIRST.as_millis()) as usize;
        let made = connections.load(std::sync::atomic::Ordering::Relaxed);
        assert!((5..=5 + trials).contains(&made), "{made} connections");
    });
}

#[test]
fn a_lookup_that_hangs_ends_in_time_and_a_queue_has_an_end() {
    block(async {
        let server = Fake::start("127.0.0.1:0").await;
        let (tables, _) = server.tables(|table| table.timeout = Duration::from_millis(100));
        failed(tables.lookup("t", Service::Alias, "slow").await, "no answer within 0.1 s");
        let (tables, _) = server.tables(|_| ());
        let tables = Arc::new(tables);
        let all = limits::WAITING + limits::MULTIPLEXED;
        let mut set = tokio::task::JoinSet::new();
        for n in 0..all {
            let tables = tables.clone();
            set.spawn(async move { tables.lookup("t", Service::Alias, &format!("slow{n}")).await });
        }
        until("all wait", async |_| tables.figures("t").unwrap().waiting == all as u64).await;
        failed(tables.lookup("t", Service::Alias, "one more").await, "1000 lookups wait already");
        let mut answers = HashSet::new();
        while answers.len() < all {
            server.go.notify_one();
            if let Ok(Some(answer)) = tokio::time::timeout(Duration::from_millis(1), set.join_next()).await {
                let Answer::Found(text) = answer.unwrap() else { panic!("not found") };
                answers.insert(text);
            }
        }
    });
}

#[test]
fn entries_that_are_wrong_fail_alone_and_are_logged_now_and_then() {
    block(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection.execute_batch("create table a(k, v); insert into a values('good', 'x'), ('bad', null)").unwrap();
        let (surroundings, said) = surroundings();
        let text = format!("dbpath {}\nquery_alias select v from a where k = ?\n", path.display());
        let tables = Tables::new(vec![declared(Backend::Sqlite(config(text)))], &surroundings).unwrap();
        for _ in 0..20 {
            failed(tables.lookup("t", Service::Alias, "bad").await, "row 1, column 1: NULL");
        }
        assert_eq!(tables.lookup("t", Service::Alias, "good").await, found("x"));
        assert!(tables.figures("t").unwrap().failing.is_none());
        let events = said.lock().unwrap();
        assert!(events.len() < 20 && !events.is_empty(), "{events:?}");
        let first = events[0].to_string();
        assert_eq!(first, r#"table <t>: alias entry of "bad": row 1, column 1: NULL"#);
    });
}

//! A shard in the simulated world whose local deliveries go to Maildirs on its disk, a supervisor that writes down what it
//! is handed, and mail stores that speak LMTP from a script.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use ringpost_conf::expand::{Told, User, Way};
use ringpost_conf::tables::ServiceKind;
use ringpost_conf::{Config, Quickstart};
use ringpost_io::sim::{DiskFaults, SimMesh, SimRuntime, SimStream, SimWorld, unix_address};
use ringpost_io::{Disk, Listener, Mailbox, Stream};
use ringpost_perf::Counters;
use ringpost_queue::{Body, NewEnvelope, NewMessage};
use ringpost_smtp::dsn::OfRecipient;

use super::*;
use crate::dispatch::{Envelope, Flight};
use crate::handover::{Forwarding, HandOver, Handed, Handover};
use crate::letter::Letter;
use crate::shard::{Start, open};
use crate::{Ask, MxAnswer, Said};

struct Test;

impl World for Test {
    type R = SimRuntime;
    type M = SimMesh<Letter>;
    type A = NoNames;
    type H = Supervisor;
}

struct NoNames;

impl Ask for NoNames {
    async fn exchangers(&self, _domain: &str, _: Option<u16>) -> MxAnswer {
        MxAnswer::NoSuchDomain
    }
    async fn addresses(&self, _host: &str, _: Option<u16>) -> MxAnswer {
        MxAnswer::NoSuchDomain
    }
    async fn client_name(&self, _address: std::net::IpAddr) -> crate::NameAnswer {
        crate::NameAnswer::None
    }
    async fn look_up(&self, _table: &str, _service: ServiceKind, _keys: Vec<String>) -> Said {
        Said::NotFound { age: Duration::ZERO }
    }
    async fn user(&self, _name: &str) -> Said {
        Said::NotFound { age: Duration::ZERO }
    }
    async fn list(&self, _path: &std::path::Path) -> Told {
        Told::NotFound
    }
}

/// Answers after a second; by user: `never` waits for ever, `full` and `unknown` refuse.
#[derive(Clone)]
struct Supervisor {
    runtime: SimRuntime,
    handed: Rc<RefCell<Vec<(Handover, String)>>>,
}

/// A text that is written once.
struct Text(Vec<u8>);

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl HandOver for Supervisor {
    type Text = Text;

    fn text(&self) -> std::io::Result<Text> {
        Ok(Text(Vec::new()))
    }

    async fn deliver(&self, handover: Handover, text: Text) -> Handed {
        let name = handover.user.name.clone();
        self.handed.borrow_mut().push((handover, String::from_utf8(text.0).expect("a text")));
        if name == "never" {
            std::future::pending::<()>().await;
        }
        self.runtime.sleep(Duration::from_secs(1)).await;
        match name.as_str() {
            "full" => Handed::temporary((4, 2, 2), "over quota"),
            "unknown" => Handed::permanent((5, 1, 1), "no such user"),
            _ => Handed::Delivered { text: "delivered to mda".into() },
        }
    }

    async fn forward(&self, _user: UserRecord) -> Forwarding {
        Forwarding::NotThere
    }

    async fn list(&self, _user: UserRecord, _path: PathBuf) -> Forwarding {
        Forwarding::NotThere
    }
}

/// How long a message may stay queued, here: less than a mail store has for its greeting.
const TTL: Duration = Duration::from_secs(240);

/// A shard, its world, and what its log says of deliveries.
struct Place {
    world: SimWorld,
    runtime: SimRuntime,
    shard: Rc<Shard<Test>>,
    handed: Rc<RefCell<Vec<(Handover, String)>>>,
    log: Rc<RefCell<Vec<String>>>,
}

impl Place {
    fn new(seed: u64) -> Self {
        let world = SimWorld::new(seed);
        let runtime = world.node("engine");
        let (handed, log): (Rc<RefCell<Vec<_>>>, Rc<RefCell<Vec<String>>>) = Default::default();
        let (_orders, mailbox) = Mailbox::new(1);
        let quickstart = Quickstart { listen: Vec::new(), page: None };
        let mut config = Config::quickstart("/state".as_ref(), &quickstart);
        config.store.segment_bytes = 4 << 20;
        config.queue.ttl = TTL;
        let lines = log.clone();
        let start = Start::<Test> {
            servers: Default::default(),
            runtime: runtime.clone(),
            mesh: world.mesh::<Letter>(1, 16).pop().expect("one"),
            ask: NoNames,
            hand: Supervisor { runtime: runtime.clone(), handed: handed.clone() },
            connector: Default::default(),
            own: User { name: "ringpost".into(), uid: 1, gid: 1, home: "/".into(), in_table: false },
            near: None,
            listeners: Vec::new(),
            config: Arc::new(config),
            state: "/state".into(),
            hostname: "engine.sim".into(),
            orders: mailbox,
            limits: Default::default(),
            events: Rc::new(move |event| lines.borrow_mut().push(event.to_string())),
            counters: Arc::new(Counters::default()),
            backscatter: Default::default(),
            ready: Box::new(|_| {}),
            plant: Default::default(),
        };
        let (shard, _) = world.block_on(open(start)).unwrap_or_else(|error| panic!("{error}"));
        drop(shard.clone().start_committer());
        Self { world, runtime, shard, handed, log }
    }

    /// Commits a message and sends it to these targets.
    fn send(&self, text: &str, to: &[(&str, Target)]) -> MessageId {
        let id = self.shard.queue.next_id();
        let envelopes: Vec<NewEnvelope<'_>> =
            to.iter().map(|(recipient, _)| NewEnvelope { recipient, ..NewEnvelope::default() }).collect();
        let message = NewMessage {
            id,
            received_ms: self.world.unix_ms(),
            release_ms: None,
            sender: "s@a.test",
            envelopes: &envelopes,
            flags: Flags::default(),
            tag: "",
            envid: "",
            head: &[],
            body: Body::Whole(&[text.as_bytes()]),
        };
        self.world.block_on(self.shard.queue.submit(message)).expect("room");
        let small = text.len() as u64 <= limits::TRAVELLING_BODY_BYTES;
        let fresh = Fresh {
            id,
            received_ms: self.world.unix_ms(),
            sender: "s@a.test".into(),
            tag: String::new(),
            envid: String::new(),
            envelopes: (0..)
                .zip(to)
                .map(|(index, (path, _))| {
                    Envelope::new(index, path, (path, OfRecipient::default()), None, Way::Address)
                })
                .collect(),
            flags: Flags::default(),
            body_bytes: text.len() as u64,
            body: small.then(|| Arc::from(text.as_bytes())),
        };
        let flight = Flight {
            received_ms: fresh.received_ms,
            sender: fresh.sender.clone(),
            flags: fresh.flags,
            envid: String::new(),
            envelopes: fresh.envelopes.clone(),
            settings: self.shard.settings(),
            open: to.len(),
            began: self.runtime.now(),
            kept_bytes: 0,
        };
        self.shard.flights.borrow_mut().insert(id.0, flight);
        self.shard.queue.pin(id);
        for (index, (recipient, target)) in (0..).zip(to) {
            let to = Addressee { index, recipient, original: "o@d.test", extension: "x" };
            deliver(&self.shard, &fresh, to, target.clone());
        }
        id
    }

    /// Lets time pass until nothing is on its way, and gives the lines of the log since the last time.
    fn settle(&self) -> Vec<String> {
        let landed = || self.shard.flights.borrow().is_empty();
        assert!(self.world.run_until(Duration::from_secs(600), landed), "all come down: {:?}", self.log.borrow());
        std::mem::take(&mut self.log.borrow_mut())
    }

    /// Names in `new/` of a Maildir and what is in them.
    fn messages(&self, dir: &str) -> Vec<(String, String)> {
        let (disk, dir) = (self.runtime.disk().clone(), PathBuf::from(dir).join("new"));
        self.world.block_on(async {
            let mut all = Vec::new();
            for (name, _) in disk.list(&dir).await.expect("readable") {
                let text = disk.read_whole(&dir.join(&name)).await.expect("a file");
                all.push((name, String::from_utf8(text).expect("a text")));
            }
            all
        })
    }

    /// A mail store on a node of its own, that answers each line from the client by `answer`.
    fn store(&self, at: StoreAt, answer: impl Fn(usize, &str) -> Option<String> + 'static) -> Rc<RefCell<Vec<String>>> {
        let runtime = match at {
            StoreAt::Tcp => self.world.node("store"),
            StoreAt::Socket(_) => self.runtime.clone(),
        };
        let listener = match at {
            StoreAt::Tcp => runtime.listen(SocketAddr::new(runtime.ip(), 24)),
            StoreAt::Socket(path) => runtime.listen(unix_address(path.as_ref())),
        };
        let (listener, heard) = (listener.expect("free"), Rc::new(RefCell::new(Vec::new())));
        let (lines, spawner, answer) = (heard.clone(), runtime.clone(), Rc::new(answer));
        runtime.spawn(Class::Session, async move {
            for connection in 0.. {
                let (stream, _) = listener.accept().await.expect("it listens");
                let (lines, answer) = (lines.clone(), answer.clone());
                spawner.spawn(Class::Session, serve(stream, lines, move |line| answer(connection, line)));
            }
        });
        heard
    }

    fn tcp(&self) -> Store {
        Store::Address(SocketAddr::new(self.world.node("store").ip(), 24))
    }
}

enum StoreAt {
    Tcp,
    Socket(&'static str),
}

/// Speaks until `answer` says nothing; the text of a message is one "line", without its dot.
async fn serve(mut stream: SimStream, heard: Rc<RefCell<Vec<String>>>, answer: impl Fn(&str) -> Option<String>) {
    let mut input = Vec::new();
    let mut said = answer("");
    let mut in_text = false;
    loop {
        let Some(reply) = said else { return };
        if !reply.is_empty() && stream.write_all(format!("{reply}\r\n").as_bytes()).await.is_err() {
            return;
        }
        in_text |= reply.starts_with("354");
        let end: &[u8] = if in_text { b"\r\n.\r\n" } else { b"\r\n" };
        let length = loop {
            if let Some(at) = input.windows(end.len()).position(|window| window == end) {
                break at;
            }
            if !matches!(stream.read(&mut input, 4096).await, Ok(1..)) {
                return;
            }
        };
        let line = String::from_utf8(input.drain(..length + end.len()).collect()).expect("a text");
        let line = line[..length].to_owned();
        said = if in_text { answer(&format!("TEXT {line}")) } else { answer(&line) };
        in_text = false;
        heard.borrow_mut().push(line);
    }
}

/// A store without pipelining that takes everything, but what `also` answers itself.
fn obliging(line: &str, also: impl Fn(&str) -> Option<String>) -> Option<String> {
    also(line).or_else(|| {
        Some(match line.split(' ').next().unwrap_or_default() {
            "" => "220 store".into(),
            "DATA" => "354 go".into(),
            "QUIT" => return None,
            "TEXT" => "250 2.0.0 stored".into(),
            _ => "250 ok".into(),
        })
    })
}

fn user(name: &str) -> Target {
    let user = UserRecord { name: name.into(), uid: 10, gid: 100, home: "/home".into(), in_table: false };
    Target::User { user, how: How::Program { arguments: vec!["lda".into()] } }
}

fn maildir(dir: &str) -> Target {
    Target::Maildir { dir: dir.into(), junk: false }
}

fn lmtp(store: &Store, recipient: &str) -> Target {
    Target::Lmtp { store: store.clone(), recipient: recipient.into() }
}

#[test]
fn a_copy_is_a_file_with_the_fields_of_final_delivery() {
    let place = Place::new(1);
    let id =
        place.send("Subject: x\r\n\r\n.\r\ntext\r\n", &[("u@d.test", maildir("/m/u")), ("v@d.test", maildir("/m/v"))]);
    let log = place.settle();
    assert!(log.iter().all(|line| line.contains("result=Ok") && line.contains("=maildir ")), "{log:?}");
    let [(name, text)] = &place.messages("/m/u")[..] else { panic!("one message") };
    assert!(name.ends_with(&format!(".{id}_0.engine.sim")), "{name}");
    let head = "Return-Path: <s@a.test>\nX-Original-To: o@d.test\nDelivered-To: u@d.test\n";
    assert_eq!(text, &format!("{head}Subject: x\n\n.\ntext\n"));
    assert_eq!(place.messages("/m/v").len(), 1);
}

#[test]
fn large_messages_and_spam_find_their_places() {
    let place = Place::new(2);
    let long = format!("Subject: x\r\nX-Spam: yes\r\n\r\n{}", "0123456789\r\n".repeat(30_000));
    let junk = |dir: &str| Target::Maildir { dir: dir.into(), junk: true };
    place.send(&long, &[("u@d.test", maildir("/m/u")), ("v@d.test", junk("/m/v"))]);
    place.send("X-Spam: no\r\n\r\n", &[("w@d.test", junk("/m/w"))]);
    place.settle();
    let [(_, text)] = &place.messages("/m/u")[..] else { panic!("one message") };
    assert!(text.ends_with(&long.replace("\r\n", "\n")), "{} bytes", text.len());
    assert_eq!((place.messages("/m/v").len(), place.messages("/m/v/.Junk").len()), (0, 1));
    assert_eq!((place.messages("/m/w").len(), place.messages("/m/w/.Junk").len()), (1, 0));
    let marked = place.runtime.disk().files().iter().any(|(path, _)| path.ends_with("v/.Junk/maildirfolder"));
    assert!(marked);
}

#[test]
fn a_full_disk_defers_with_its_own_status_and_leaves_nothing() {
    let place = Place::new(3);
    let used = place.runtime.disk().files().iter().map(|(_, bytes)| bytes).sum::<u64>();
    place.send("Subject: x\r\n\r\ntext\r\n", &[("u@d.test", maildir("/m/u"))]);
    place.settle();
    place.runtime.disk().set_faults(DiskFaults { capacity_bytes: used + 200, ..DiskFaults::default() });
    place.send(&format!("Subject: x\r\n\r\n{}", "x\r\n".repeat(200)), &[("u@d.test", maildir("/m/u"))]);
    let log = place.settle();
    assert!(log[0].contains("result=TempFail") && log[0].contains("451 4.3.1"), "{log:?}");
    assert_eq!(place.messages("/m/u").len(), 1);
}

#[test]
fn many_maildirs_are_made_once_and_filled_side_by_side() {
    let place = Place::new(4);
    for number in 0..300 {
        place.send("Subject: x\r\n\r\n", &[("u@d.test", maildir(&format!("/m/{}", number % 30)))]);
    }
    let began = place.world.elapsed();
    place.settle();
    let took = place.world.elapsed() - began;
    assert!((0..30).all(|number| place.messages(&format!("/m/{number}")).len() == 10));
    // One delivery is some four operations of up to 0.4 ms; one after the other they would take 0.3 s and more.
    assert!(took < Duration::from_millis(100), "{took:?}");
}

#[test]
fn a_delivery_is_handed_over_whole_and_its_answer_is_the_outcome() {
    let place = Place::new(5);
    let to = [("u@d.test", user("u")), ("f@d.test", user("full")), ("n@d.test", user("unknown"))];
    place.send("Subject: x\r\n\r\ntext\r\n", &to);
    let log = place.settle();
    let line = |recipient: &str| log.iter().find(|line| line.contains(recipient)).expect("a line").clone();
    assert!(line("<u@d.test>").contains("result=Ok relay=mda as=10:100 "), "{log:?}");
    assert!(line("<f@d.test>").contains("result=TempFail") && line("<f@d.test>").contains("451 4.2.2 over quota"));
    assert!(line("<n@d.test>").contains("result=PermFail") && line("<n@d.test>").contains("550 5.1.1 no such user"));
    let handed = place.handed.borrow();
    let (handover, text) = handed.iter().find(|(handover, _)| handover.user.name == "u").expect("it is there");
    assert_eq!((handover.sender.as_str(), handover.recipient.as_str()), ("s@a.test", "u@d.test"));
    assert_eq!((handover.original.as_str(), handover.extension.as_str()), ("o@d.test", "x"));
    assert!(text.ends_with("Delivered-To: u@d.test\nSubject: x\n\ntext\n"), "{text}");
}

#[test]
fn a_user_whose_program_hangs_delays_nobody_else() {
    let place = Place::new(6);
    for _ in 0..100 {
        place.send("\r\n", &[("n@d.test", user("never"))]);
    }
    place.send("\r\n", &[("u@d.test", user("u"))]);
    place.send("\r\n", &[("v@d.test", maildir("/m/v"))]);
    let done = || place.log.borrow().iter().filter(|line| line.contains("result=Ok")).count() == 2;
    assert!(place.world.run_until(Duration::from_secs(5), done), "{:?}", place.log.borrow());
    let hanging = place.handed.borrow().iter().filter(|(handover, _)| handover.user.name == "never").count();
    assert_eq!(hanging, limits::HANDED_PER_USER);
}

/// Behind a program or a mail store that hangs, and is not given up for hours, mail waits for its turn: until its time is over.
#[test]
fn promise_6_what_waits_behind_a_delivery_that_hangs_is_given_up_when_its_time_is_over() {
    let place = Place::new(13);
    let silent = place.world.node("store");
    let listener = silent.listen(SocketAddr::new(silent.ip(), 24)).expect("free");
    silent.spawn(Class::Session, async move {
        let mut all = Vec::new();
        loop {
            all.push(listener.accept().await);
        }
    });
    let store = place.tcp();
    let sweeping = place.shard.clone();
    place.runtime.spawn(Class::Background, async move {
        loop {
            sweep(&sweeping).await;
            sweeping.runtime.sleep(limits::SWEEP).await;
        }
    });
    // As many as are under way at once hang, the others wait.
    for number in 0..limits::HANDED_PER_USER + 5 {
        place.send("\r\n", &[(&format!("n{number}@d.test"), user("never"))]);
    }
    for number in 0..limits::PER_STORE + 5 {
        place.send("\r\n", &[(&format!("s{number}@d.test"), lmtp(&store, "s"))]);
    }
    let given_up = |of: &str| {
        let log = place.log.borrow();
        log.iter().filter(|line| line.contains("result=Expired") && line.contains(of)).count()
    };
    place.world.run_for(TTL - Duration::from_secs(1));
    assert_eq!((given_up("<n"), given_up("<s")), (0, 0), "not before their time");
    place.world.run_for(Duration::from_secs(60));
    assert_eq!((given_up("<n"), given_up("<s")), (5, 5), "{:?}", place.log.borrow());
}

#[test]
fn a_store_gets_each_message_once_with_all_its_recipients() {
    for (seed, socket) in [(7, false), (8, true)] {
        let place = Place::new(seed);
        let (at, store) = match socket {
            false => (StoreAt::Tcp, place.tcp()),
            true => (StoreAt::Socket("/run/lmtp"), Store::Socket("/run/lmtp".into())),
        };
        let heard = place.store(at, |_, line| {
            obliging(line, |line| match line {
                "RCPT TO:<c@store>" => Some("550 5.1.1 nobody".into()),
                // A reply for each of the two that were accepted.
                _ if line.starts_with("TEXT ") => Some("250 2.0.0 stored\r\n452 4.2.2 over quota".into()),
                _ => None,
            })
        });
        let to = ["a", "b", "c"].map(|name| (name, lmtp(&store, &format!("{name}@store"))));
        place.send("Subject: x\r\n\r\n.dot\r\n", &to);
        let log = place.settle();
        let line = |recipient: &str| log.iter().find(|line| line.contains(recipient)).expect("a line").clone();
        assert!(line("to=<a>").contains("result=Ok") && line("to=<a>").contains(&format!("relay=lmtp:{store}")));
        assert!(line("to=<b>").contains("result=TempFail") && line("to=<b>").contains("452 4.2.2 over quota"));
        assert!(line("to=<c>").contains("result=PermFail"));
        place.world.run_for(Duration::from_secs(1));
        let heard = heard.borrow();
        let count = |word: &str| heard.iter().filter(|line| line.starts_with(word)).count();
        assert_eq!(
            (count("LHLO engine.sim"), count("MAIL FROM:<s@a.test>"), count("RCPT"), count("DATA")),
            (1, 1, 3, 1)
        );
        assert!(heard.iter().any(|line| line == "Subject: x\r\n\r\n..dot"), "CRLF, dot-stuffed: {heard:?}");
        assert_eq!(heard.last().map(String::as_str), Some("QUIT"));
    }
}

#[test]
fn connections_to_a_store_are_few_and_used_again() {
    let place = Place::new(9);
    let heard = place.store(StoreAt::Tcp, |_, line| obliging(line, |_| None));
    let store = place.tcp();
    for _ in 0..200 {
        place.send("Subject: x\r\n\r\n", &[("u@d.test", lmtp(&store, "u@d.test"))]);
    }
    place.settle();
    let heard = heard.borrow();
    let count = |word: &str| heard.iter().filter(|line| line.starts_with(word)).count();
    assert_eq!(count("DATA"), 200);
    assert!(count("LHLO") <= 3 * limits::PER_STORE, "{} connections", count("LHLO"));
}

#[test]
fn a_store_that_is_down_is_asked_once_and_the_others_wait() {
    let place = Place::new(10);
    let store = place.tcp();
    for _ in 0..50 {
        place.send("Subject: x\r\n\r\n", &[("u@d.test", lmtp(&store, "u@d.test"))]);
    }
    let log = place.settle();
    assert_eq!(log.len(), 50);
    assert!(log.iter().all(|line| line.contains("result=TempFail") && line.contains("451 4.4.1")), "{log:?}");
    place.send("Subject: x\r\n\r\n", &[("u@d.test", lmtp(&store, "u@d.test"))]);
    let began = place.world.elapsed();
    place.settle();
    assert_eq!(place.world.elapsed(), began, "not even tried");
    // It is back, and its time away is over.
    let heard = place.store(StoreAt::Tcp, |_, line| obliging(line, |_| None));
    place.world.run_for(limits::STORE_AWAY);
    place.send("Subject: x\r\n\r\n", &[("u@d.test", lmtp(&store, "u@d.test"))]);
    assert!(place.settle()[0].contains("result=Ok"));
    assert!(!heard.borrow().is_empty());
}

#[test]
fn a_connection_that_closes_between_messages_costs_nothing() {
    let place = Place::new(11);
    // Each connection is good for one message, and says so by closing.
    let heard = place.store(StoreAt::Tcp, |_, line| match line.starts_with("TEXT ") {
        true => Some("250 stored\r\n421 4.3.2 enough".into()),
        false => obliging(line, |_| None),
    });
    let store = place.tcp();
    for _ in 0..20 {
        place.send("Subject: x\r\n\r\n", &[("u@d.test", lmtp(&store, "u@d.test"))]);
    }
    let log = place.settle();
    assert!(log.iter().all(|line| line.contains("result=Ok")), "{log:?}");
    assert_eq!(heard.borrow().iter().filter(|line| line.starts_with("Subject")).count(), 20, "each once");
}

#[test]
fn a_connection_that_breaks_in_the_middle_defers_that_message_alone() {
    let place = Place::new(12);
    place.store(StoreAt::Tcp, |connection, line| match line {
        "DATA" if connection == 0 => None,
        _ => obliging(line, |_| None),
    });
    let store = place.tcp();
    place.send("Subject: x\r\n\r\n", &[("u@d.test", lmtp(&store, "u@d.test"))]);
    let log = place.settle();
    assert!(log[0].contains("result=TempFail") && log[0].contains("451 4.4."), "{log:?}");
    place.world.run_for(limits::STORE_AWAY);
    place.send("Subject: x\r\n\r\n", &[("u@d.test", lmtp(&store, "u@d.test"))]);
    assert!(place.settle()[0].contains("result=Ok"));
}

/// Whichever way it was to go; of a store, those whom it has refused before it was to get the text stay refused.
#[test]
fn s98_a_text_that_cannot_be_read_is_lost_aloud_when_its_time_is_over() {
    let place = Place::new(14);
    let heard = place.store(StoreAt::Tcp, |_, line| {
        obliging(line, |line| (line == "RCPT TO:<r@store>").then(|| "550 5.1.1 nobody".into()))
    });
    let store = place.tcp();
    let long = format!("Subject: x\r\n\r\n{}", "0123456789\r\n".repeat(30_000));
    let to = || {
        [
            ("m@d.test", maildir("/m/m")),
            ("u@d.test", user("u")),
            ("s@d.test", lmtp(&store, "s@store")),
            ("r@d.test", lmtp(&store, "r@store")),
        ]
    };
    let lost = |log: &[String], name: &str| {
        let says = format!(
            "to <{name}@d.test> is given up; the message cannot be read on this server: the disk does not read"
        );
        log.iter().filter(|line| line.contains("MAIL IS LOST") && line.contains(&says)).count()
    };
    for (ahead, result) in [(Duration::ZERO, "TempFail"), (TTL, "Expired")] {
        place.send(&long, &to());
        place.runtime.disk().set_faults(DiskFaults { fail_read: 1.0, ..DiskFaults::default() });
        place.world.set_wall_ahead_ms(ahead.as_millis() as i64);
        let log = place.settle();
        place.runtime.disk().set_faults(DiskFaults::default());
        let line = |name: &str| log.iter().find(|line| line.contains(&format!("to=<{name}@d.test>"))).expect("a line");
        for name in ["m", "u", "s"] {
            assert!(line(name).contains(&format!("result={result}")), "{log:?}");
            assert!(line(name).contains("451 4.3.0 the message cannot be read on this server"), "{log:?}");
            assert_eq!(lost(&log, name), usize::from(ahead == TTL), "{name}: {log:?}");
        }
        assert!(line("r").contains("result=PermFail") && lost(&log, "r") == 0, "{log:?}");
    }
    assert!(!heard.borrow().iter().any(|line| line.starts_with("Subject")), "the store has none of it: {heard:?}");
}

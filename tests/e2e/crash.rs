//! Killed at any moment, it has lost nothing that it answered with 250, and repeats no more than was on its way.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringpost_bench::{Checked, check, sink, source};
use rustix::process::{Signal, kill_process};

use crate::support::server::LISTENERS;
use crate::support::text::{MARK, find};
use crate::support::{Random, Setup, Sink, cli, engine, maildir, ports, wait_until};

const KILLS: u64 = 20;
/// A delivery may be repeated when its result was not yet durable: states are written within 50 ms, and a commit takes
/// its time on a busy disk.
const NOT_YET_NOTED: Duration = Duration::from_secs(1);

/// Load and a receiving end, which go on while the server comes and goes.
struct Load {
    stop: Arc<AtomicBool>,
    source: JoinHandle<source::Summary>,
    sink: JoinHandle<sink::Summary>,
    sink_stop: Arc<AtomicBool>,
}

impl Load {
    fn begin(server: SocketAddr, sink_address: SocketAddr, acked: PathBuf, received: PathBuf) -> Self {
        let (stop, sink_stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let options = sink::Options {
            received: Some(received),
            verify: true,
            stop: Some(sink_stop.clone()),
            ..sink::Options::on(sink_address)
        };
        let bound = sink::Sink::bind(&options).expect("the sink listens");
        let sink = std::thread::spawn(move || bound.run().expect("the sink runs"));
        let options = source::Options {
            connections: 16,
            time: Some(Duration::from_secs(600)),
            size: "600-9000".parse().expect("sizes"),
            acked: Some(acked),
            stop: Some(stop.clone()),
            ..source::Options::to(server)
        };
        let source = std::thread::spawn(move || source::run(&options).expect("the source runs"));
        Self { stop, source, sink, sink_stop }
    }

    fn end_source(self) -> (source::Summary, impl FnOnce() -> sink::Summary) {
        self.stop.store(true, Ordering::SeqCst);
        let sent = self.source.join().expect("the source's thread");
        let end_sink = move || {
            self.sink_stop.store(true, Ordering::SeqCst);
            self.sink.join().expect("the sink's thread")
        };
        (sent, end_sink)
    }
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// What the sink wrote of deliveries that a kill may have caught before their result was durable: from a moment before
/// the kill until the server was there again.
struct Window {
    from: u64,
    to: u64,
}

#[test]
fn s119_nothing_is_lost_and_little_repeated_by_killing_it_at_random_moments() {
    let sink_address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let mut server = Setup::relay_to(sink_address).start();
    let (acked, received) = (server.dir().join("acked"), server.dir().join("received"));
    let load = Load::begin(server.smtp, sink_address, acked.clone(), received.clone());
    wait_until("mail flows", Duration::from_secs(20), || size(&received) > 0);
    let mut random = Random::fresh();
    eprintln!("seed {}", random.seed());
    let mut windows = Vec::new();
    let mut slowest = Duration::ZERO;
    for _ in 0..KILLS {
        let moment = Instant::now() + Duration::from_millis(random.below(1500));
        let mut history = vec![(Instant::now(), size(&received))];
        wait_until("the moment has come", Duration::from_secs(3), || {
            history.push((Instant::now(), size(&received)));
            Instant::now() >= moment
        });
        server.kill9();
        let killed = Instant::now();
        let from = history.iter().rfind(|(at, _)| *at + NOT_YET_NOTED < killed).unwrap_or(&history[0]).1;
        slowest = slowest.max(server.start());
        windows.push(Window { from, to: size(&received) });
    }
    let (sent, end_sink) = load.end_source();
    wait_until("the queue is empty", Duration::from_secs(60), || server.queue().is_empty());
    let taken = end_sink();
    assert_eq!((taken.damaged, taken.unmarked), (0, 0));

    let text = fs::read_to_string(&received).expect("readable");
    let repeated = repetitions_outside(&text, &windows);
    let (acked, received) = (acked.display().to_string(), received.display().to_string());
    let verdict: serde_json::Value =
        serde_json::from_str(&cli::succeed(&["bench", "verify", "--json", &acked, &received])).expect("JSON");
    let number = |name: &str| verdict[name].as_u64().unwrap_or_else(|| panic!("{name} in {verdict}"));
    eprintln!(
        "{} acknowledged, {} received, {} lost, {} repeated, {} unanswered; slowest start {slowest:?}",
        sent.recipients,
        number("received"),
        number("lost"),
        number("duplicates"),
        number("unanswered"),
    );
    assert!(sent.accepted > 1000, "hardly any load: {}", sent.accepted);
    assert_eq!(number("acked"), sent.recipients);
    assert_eq!(number("lost"), 0, "{verdict}");
    assert!(repeated.is_empty(), "repeated though done long before a kill: {repeated:?}");
}

/// Lines that come again although their delivery was not on its way at any kill.
fn repetitions_outside<'a>(text: &'a str, windows: &[Window]) -> Vec<&'a str> {
    let mut seen: HashMap<&str, u64> = HashMap::new();
    let mut at = 0;
    let mut outside = Vec::new();
    for line in text.split_inclusive('\n') {
        if let Some(before) = seen.insert(line, at)
            && !windows.iter().any(|window| (window.from..=window.to).contains(&before))
        {
            outside.push(line);
        }
        at += line.len() as u64;
    }
    outside
}

#[test]
fn repetitions_are_found() {
    let text = "a\nb\na\nb\n";
    assert_eq!(repetitions_outside(text, &[Window { from: 2, to: 2 }]), ["a\n"]);
    assert_eq!(repetitions_outside(text, &[Window { from: 0, to: 2 }]), [""; 0]);
}

#[test]
fn mailboxes_hold_each_message_once_after_kills() {
    let rules = "action \"box\" maildir \"@DIR@/box\"\nmatch for any action \"box\"\n";
    let mut server = Setup::new(rules).start();
    let (acked, mailbox) = (server.dir().join("acked"), server.dir().join("box"));
    let stop = Arc::new(AtomicBool::new(false));
    let options = source::Options {
        connections: 8,
        time: Some(Duration::from_secs(600)),
        size: "600-20000".parse().expect("sizes"),
        acked: Some(acked.clone()),
        stop: Some(stop.clone()),
        ..source::Options::to(server.smtp)
    };
    let source = std::thread::spawn(move || source::run(&options).expect("the source runs"));
    let mut random = Random::fresh();
    eprintln!("seed {}", random.seed());
    for _ in 0..5 {
        let enough = size(&acked) + 2000;
        wait_until("mail flows", Duration::from_secs(60), || size(&acked) > enough);
        let moment = Instant::now() + Duration::from_millis(random.below(100));
        wait_until("the moment has come", Duration::from_secs(1), || Instant::now() >= moment);
        server.kill9();
        server.start();
    }
    stop.store(true, Ordering::SeqCst);
    let sent = source.join().expect("the source's thread");
    wait_until("the queue is empty", Duration::from_secs(180), || server.queue().is_empty());
    let mut keys = HashMap::new();
    for message in maildir::messages(&mailbox) {
        let wire = String::from_utf8(message).expect("the source writes ASCII").replace('\n', "\r\n");
        match check(wire.as_bytes()) {
            Checked::Whole(key) => *keys.entry(String::from_utf8_lossy(key).into_owned()).or_insert(0) += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(keys.values().all(|times| *times == 1), "nothing twice");
    let acked = fs::read_to_string(&acked).expect("readable");
    assert_eq!(acked.lines().count() as u64, sent.recipients);
    for line in acked.lines() {
        let key = line.split(' ').next().expect("a key");
        assert!(keys.contains_key(key), "{key} is lost");
    }
}

#[test]
fn s123_a_damaged_message_harms_only_itself() {
    let mut sink = Sink::closed();
    // One slice, so that all are in one file.
    let mut server = Setup::whole(format!(
        "shards 1\nstore {{ segment 16M, spare 1 }}\n{LISTENERS}\
         action \"out\" relay host \"smtp://{}\"\nmatch for any action \"out\"\n",
        sink.address
    ))
    .start();
    let mut client = server.client();
    for number in 0..60 {
        let text = format!("{MARK}c{number:03}\r\n\r\nhello\r\n");
        assert_eq!(client.submit("a@source.example", &["b@sink.example"], text.as_bytes()).code, 250);
    }
    wait_until("all are deferred", Duration::from_secs(20), || {
        server.queue().iter().filter(|one| one.state == "deferred").count() == 60
    });
    server.kill9();
    let damaged = damage(&server.state.join("queue/slice-00"), format!("{MARK}c030").as_bytes());
    assert!(damaged > 0, "the message was not found in the journal");
    let said = server.printed().len();
    server.start();
    wait_until("a word on the damage", Duration::from_secs(5), || server.printed()[said..].contains("warn   queue: "));
    assert_eq!(server.client().submit("a@b.example", &["b@sink.example"], b"X-Test-Key: new\r\n\r\n").code, 250);
    sink.reopen();
    server.retry();
    let received = sink.wait_for(60, Duration::from_secs(20));
    let keys: BTreeSet<String> = received.into_iter().filter_map(|one| one.key).collect();
    let expected = (0..60).filter(|number| *number != 30).map(|number| format!("c{number:03}"));
    assert_eq!(keys, expected.chain(["new".to_owned()]).collect::<BTreeSet<_>>());
}

/// Flips a bit of every place that holds `needle`; how many there were.
fn damage(dir: &Path, needle: &[u8]) -> usize {
    let mut count = 0;
    for entry in fs::read_dir(dir).expect("the slice") {
        let path = entry.expect("entry").path();
        let mut bytes = fs::read(&path).expect("readable");
        while let Some(at) = find(&bytes, needle) {
            bytes[at] ^= 1;
            count += 1;
        }
        fs::write(&path, bytes).expect("written");
    }
    count
}

#[test]
fn the_load_tools_find_what_is_missing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (acked, received) = (dir.path().join("acked"), dir.path().join("received"));
    fs::write(&acked, "r-1 a\nr-2 a\n").expect("written");
    fs::write(&received, "r-1 a\nr-1 a\n").expect("written");
    let output = cli::run(&["bench", "verify", &acked.display().to_string(), &received.display().to_string()]);
    assert!(!output.status.success(), "one is missing");
    assert!(String::from_utf8_lossy(&output.stdout).contains("r-2"), "{output:?}");
}

#[test]
fn a_process_that_dies_alone_is_started_again() {
    let sink = Sink::closed();
    let server = Setup::relay_to(sink.address).start();
    let text = format!("{MARK}kept\r\n\r\nhello\r\n");
    assert_eq!(server.client().submit("a@source.example", &["b@sink.example"], text.as_bytes()).code, 250);
    wait_until("it is deferred", Duration::from_secs(20), || server.queue().iter().any(|one| one.state == "deferred"));
    for _ in 0..2 {
        let old = server.engine();
        kill_process(old, Signal::KILL).expect("it runs");
        wait_until("another engine", Duration::from_secs(20), || {
            engine::child(server.supervisor(), "engine").is_some_and(|pid| pid != old)
        });
        wait_until("it greets", Duration::from_secs(20), || crate::support::server::greets(server.smtp));
        assert_eq!(server.queue().len(), 1);
    }
    let old = server.keyholder();
    kill_process(old, Signal::KILL).expect("it runs");
    wait_until("another keyholder", Duration::from_secs(20), || {
        engine::child(server.supervisor(), "keyholder").is_some_and(|pid| pid != old)
    });
    assert_eq!(server.client().say("NOOP").code, 250);
}

#[test]
fn the_engine_ends_with_its_supervisor() {
    let mut server = Setup::discard().start();
    let old = server.engine();
    kill_process(server.supervisor(), Signal::KILL).expect("it runs");
    let status = server.wait();
    assert!(!status.success());
    // Nothing goes on unsupervised.
    wait_until("the engine has ended", Duration::from_secs(15), || !engine::lives(old));
    server.start();
}

//! Killed at any moment, it has lost nothing that it answered with 250, and repeats no more than was on its way.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringpost_bench::{sink, source};
use rustix::process::{Signal, kill_process};

use crate::support::text::MARK;
use crate::support::{Random, Setup, Sink, cli, engine, ports, wait_until};

const KILLS: u64 = 20;
/// A delivery may be repeated when its result was not yet durable: states are written within 50 ms, and a commit takes
/// its time on a busy disk.
const NOT_YET_NOTED: Duration = Duration::from_millis(300);
/// A route has so many connections, each with one message on its way.
const CONNECTIONS: u64 = 20;

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

#[test]
fn s119_nothing_is_lost_and_little_repeated_by_killing_it_at_random_moments() {
    let sink_address = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let mut server = Setup::relay_to(sink_address).start();
    let (acked, received) = (server.dir().join("acked"), server.dir().join("received"));
    let load = Load::begin(server.smtp, sink_address, acked.clone(), received.clone());
    wait_until("mail flows", Duration::from_secs(20), || size(&received) > 0);
    let mut random = Random::fresh();
    eprintln!("seed {}", random.seed());
    // Bytes of the file of received mail that were written shortly before each kill.
    let mut fresh_bytes = 0;
    let mut slowest = Duration::ZERO;
    for _ in 0..KILLS {
        let moment = Instant::now() + Duration::from_millis(random.below(500));
        let mut history = vec![(Instant::now(), size(&received))];
        wait_until("the moment has come", Duration::from_secs(2), || {
            history.push((Instant::now(), size(&received)));
            Instant::now() >= moment
        });
        server.kill9();
        let killed = Instant::now();
        let before = history.iter().rfind(|(at, _)| *at + NOT_YET_NOTED < killed).unwrap_or(&history[0]).1;
        fresh_bytes += size(&received) - before;
        slowest = slowest.max(server.start());
    }
    let (sent, end_sink) = load.end_source();
    wait_until("the queue is empty", Duration::from_secs(60), || server.queue().is_empty());
    let taken = end_sink();
    assert_eq!((taken.damaged, taken.unmarked), (0, 0));

    let (acked, received) = (acked.display().to_string(), received.display().to_string());
    let verdict: serde_json::Value =
        serde_json::from_str(&cli::succeed(&["bench", "verify", "--json", &acked, &received])).expect("JSON");
    let number = |name: &str| verdict[name].as_u64().unwrap_or_else(|| panic!("{name} in {verdict}"));
    let text = fs::read_to_string(&received).expect("readable");
    let line = (text.len() / text.lines().count()) as u64;
    let allowed = fresh_bytes / line + KILLS * CONNECTIONS;
    eprintln!(
        "{} acknowledged, {} received, {} lost, {} repeated of at most {allowed} in flight, {} unanswered; slowest start {slowest:?}",
        sent.recipients,
        number("received"),
        number("lost"),
        number("duplicates"),
        number("unanswered"),
    );
    assert!(sent.accepted > 1000, "hardly any load: {}", sent.accepted);
    assert_eq!(number("acked"), sent.recipients);
    assert_eq!(number("lost"), 0, "{verdict}");
    assert!(number("duplicates") <= allowed, "{verdict}");
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

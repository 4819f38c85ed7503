//! Source and sink against each other over loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ringpost_bench::{sink, source, verify};

struct Running {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<sink::Summary>,
}

impl Running {
    fn start(change: impl FnOnce(&mut sink::Options)) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut options = sink::Options::on(SocketAddr::from(([127, 0, 0, 1], 0)));
        options.stop = Some(stop.clone());
        options.verify = true;
        options.time = Some(Duration::from_secs(30));
        change(&mut options);
        let sink = sink::Sink::bind(&options).expect("a free port");
        let address = sink.local_addr();
        let thread = std::thread::spawn(move || sink.run().expect("a sink"));
        Self { address, stop, thread }
    }

    fn send(&self, change: impl FnOnce(&mut source::Options)) -> source::Summary {
        let mut options = source::Options::to(self.address);
        options.patience = Duration::from_secs(10);
        change(&mut options);
        source::run(&options).expect("a source")
    }

    fn end(self) -> sink::Summary {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a sink")
    }
}

#[test]
fn all_arrives_whole_whatever_the_pipelining_and_size() {
    use source::Pipelining::{Group, Off, On};
    let sink = Running::start(|_| ());
    let mut sent = 0;
    for (pipelining, size, recipients) in [(On, "4k", 1), (Group, "600-9k", 3), (Off, "512:9,300k:1", 2), (On, "2m", 1)]
    {
        let messages = if size == "2m" { 20 } else { 400 };
        let summary = sink.send(|options| {
            options.messages = Some(messages);
            options.pipelining = pipelining;
            options.size = size.parse().expect("sizes");
            options.recipients = recipients;
            options.per_connection = Some(37);
        });
        assert_eq!((summary.accepted, summary.refused, summary.dropped), (messages, 0, 0), "{summary}");
        assert_eq!(summary.recipients, messages * u64::from(recipients));
        assert!(summary.connections >= messages / 37, "{summary}");
        sent += messages;
    }
    let summary = sink.end();
    assert_eq!((summary.messages, summary.damaged, summary.unmarked, summary.mistakes), (sent, 0, 0, 0));
}

#[test]
fn a_connection_for_each_message_and_a_count_that_ends_the_sink() {
    let sink = Running::start(|options| options.count = Some(300));
    let summary = sink.send(|options| {
        options.messages = Some(300);
        options.per_connection = Some(1);
    });
    assert_eq!((summary.accepted, summary.dropped), (300, 0));
    // A few more are opened before the last messages have their answers.
    assert!((300..=300 + 16).contains(&summary.connections), "{summary}");
    assert_eq!(sink.thread.join().expect("it ends by itself").messages, 300);
}

#[test]
fn what_was_acknowledged_is_in_the_file_even_when_connections_break() {
    let directory = tempfile::tempdir().expect("a directory");
    let (acked, received) = (directory.path().join("acked"), directory.path().join("received"));
    let sink = Running::start(|options| {
        options.received = Some(received.clone());
        options.drop = ["end:3%", "data:3%", "greeting:10%"].map(|share| share.parse().expect("a share")).into();
    });
    let summary = sink.send(|options| {
        options.messages = Some(1000);
        options.recipients = 2;
        options.acked = Some(acked.clone());
    });
    assert_eq!((summary.accepted, summary.refused), (1000, 0));
    assert!(summary.dropped > 10, "{summary}");
    // The files are complete before the sink ends: each line came before its 250.
    let verdict = verify::verify(&acked, &received).expect("both files");
    assert_eq!((verdict.acked, verdict.lost, verdict.duplicates), (2000, 0, 0), "{verdict}");
    // What the sink had answered when a connection broke on the source's side of a pipeline.
    assert!(verdict.unanswered <= 2 * summary.dropped, "{verdict}");
    let seen = sink.end();
    assert!(seen.dropped > 10 && seen.damaged == 0, "{seen}");
}

#[test]
fn refusals_are_told_by_step_and_code() {
    let shares = |text: &str| vec![text.parse().expect("a share")];
    let sink = Running::start(|options| {
        options.reject_mail = shares("451:5%");
        options.reject_rcpt = shares("550:30%");
        options.reject_data = shares("452:5%");
        options.reject_end = shares("554:10%");
    });
    let mut accepted = 0;
    for pipelining in [source::Pipelining::On, source::Pipelining::Group, source::Pipelining::Off] {
        let summary = sink.send(|options| {
            options.messages = Some(500);
            options.recipients = 2;
            options.pipelining = pipelining;
        });
        assert_eq!((summary.accepted + summary.refused, summary.dropped), (500, 0), "{summary}");
        let of = |step: &str, code: u16| {
            let found = summary.refusals.iter().find(|refusal| refusal.step == step && refusal.code == code);
            found.map_or(0, |refusal| refusal.count)
        };
        assert!((5..60).contains(&of("mail", 451)), "{summary}");
        assert!((200..400).contains(&of("rcpt", 550)), "{summary}");
        assert!((5..60).contains(&of("data", 452)), "{summary}");
        assert!((15..90).contains(&of("end-of-data", 554)), "{summary}");
        accepted += summary.accepted;
    }
    let seen = sink.end();
    assert_eq!(seen.messages, accepted, "{seen}");
    let ends = shares("200");
    let mut options = sink::Options::on(SocketAddr::from(([127, 0, 0, 1], 0)));
    options.reject_end = ends;
    assert!(matches!(sink::Sink::bind(&options), Err(sink::Error::Options(_))));
}

#[test]
fn a_slow_sink_delays_each_answer_and_a_schedule_is_kept() {
    let sink = Running::start(|options| options.delay = Some(Duration::from_millis(20)));
    let summary = sink.send(|options| {
        options.messages = Some(60);
        options.connections = 20;
    });
    let end = summary.steps.iter().find(|step| step.step == "end-of-data").expect("a step");
    assert!(end.p50_us >= 20_000 && summary.seconds >= 0.06, "{summary}");
    assert_eq!(sink.end().messages, 60);

    let sink = Running::start(|_| ());
    let summary = sink.send(|options| {
        options.time = Some(Duration::from_millis(500));
        options.rate = Some(400.0);
        options.pipelining = source::Pipelining::Group;
    });
    assert!((150..=201).contains(&summary.accepted), "{summary}");
    assert_eq!(sink.end().messages, summary.accepted);
}

#[test]
fn a_server_that_says_nothing_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let mut options = source::Options::to(listener.local_addr().expect("an address"));
    options.patience = Duration::from_millis(200);
    assert!(matches!(source::run(&options), Err(source::Error::Silent(..))));
}

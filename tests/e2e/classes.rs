//! What other servers say, by class and by mail site, and the latencies of stages, where they are read: `/metrics`,
//! `ringpost stats`, interval logs.

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use crate::support::text::MARK;
use crate::support::wait::wait_for;
use crate::support::{Script, Server, Setup, Sink, wait_until};

const SOON: Duration = Duration::from_secs(60);

fn submit(server: &Server, to: &[&str]) {
    let text = format!("{MARK}x\r\n\r\nhello\r\n");
    let reply = server.client().submit("a@source.example", to, text.as_bytes());
    assert_eq!(reply.code, 250, "{reply:?}");
}

fn relay(sinks: [&Sink; 2]) -> String {
    let [one, two] = sinks.map(|sink| sink.address);
    format!(
        "action one relay host \"smtp://{one}\"\naction two relay host \"smtp://{two}\"\naction none discard\n\
         match from any for domain one.example action one\nmatch from any for domain two.example action two\n\
         match from any for any action none\n"
    )
}

/// Sites of a family of metrics, with the value of those with these labels.
fn of_sites(server: &Server, family: &str, labels: &str) -> Vec<(String, u64)> {
    let metrics = server.get("/metrics");
    let prefix = format!("ringpost_{family}{{site=\"");
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(&prefix)?.split_once("\","));
    let of_labels = lines.filter_map(|(site, rest)| {
        let value = rest.strip_prefix(labels)?.strip_prefix("} ")?;
        Some((site.to_owned(), value.parse().expect("a number")))
    });
    of_labels.collect()
}

#[test]
fn refusals_are_counted_by_class_and_the_sites_with_the_most_mail_by_name() {
    let (one, two) = (Sink::open(), Sink::open());
    let refusals = vec![
        ("gone".to_owned(), "550 5.1.1 no such user".to_owned()),
        ("odd".to_owned(), "550 5.0.0 gnarl".to_owned()),
    ];
    one.script(Script { rcpt: refusals.clone(), ..Script::default() });
    two.script(Script { rcpt: refusals, ..Script::default() });
    let lines = "metrics sites 1\nbounce classify peculiar reply regex \"gnarl\"\n";
    let server = Setup::new(format!("{lines}{}", relay([&one, &two]))).start();
    submit(&server, &["gone@one.example", "odd@one.example", "b@one.example"]);
    let site = format!("{}", one.address);
    wait_until("the first site has a name", SOON, || {
        of_sites(&server, "site_deliveries_total", "result=\"ok\"") == [(site.clone(), 1)]
    });
    assert_eq!(of_sites(&server, "site_deliveries_total", "result=\"failed\""), [(site.clone(), 2)]);
    assert_eq!(of_sites(&server, "site_refusals_total", "class=\"peculiar\""), [(site.clone(), 1)]);
    submit(&server, &["gone@two.example"]);
    wait_until("the second has none", SOON, || {
        let failed = of_sites(&server, "site_deliveries_total", "result=\"failed\"");
        failed == [(site.clone(), 2), ("other".to_owned(), 1)]
    });
    let metrics = server.get("/metrics");
    for line in ["ringpost_refusals_total{class=\"no-such-user\"} 2", "ringpost_refusals_total{class=\"peculiar\"} 1"] {
        assert!(metrics.lines().any(|one| one == line), "{line}: {metrics}");
    }
    assert!(server.tell(&["stats"]).contains("\nrefused by others  no-such-user 2  peculiar 1\n"));
    let stats: serde_json::Value = serde_json::from_str(&server.tell(&["stats", "--json"])).expect("an object");
    assert_eq!(stats["all"]["refusals"]["no-such-user"], 2, "{stats}");
    assert_eq!(stats["sites"][0]["refused"]["peculiar"], 1, "{stats}");
    assert_eq!((&stats["sites"][1]["site"], &stats["sites_left_out"]), (&"other".into(), &1.into()), "{stats}");
    assert!(metrics.contains("\nringpost_sites_left_out 1\n"), "{metrics}");
    let text = server.tell(&["stats"]);
    assert!(text.contains("\nsites 1 with a name in the metrics, 1 more are `other` there\n"), "{text}");
}

/// The histograms of a log, all added up, and how many there are.
fn read(path: &Path) -> Option<(usize, Histogram<u64>)> {
    let text = fs::read(path).ok()?;
    let mut all = Histogram::<u64>::new(3).expect("three digits");
    let mut count = 0;
    for entry in IntervalLogIterator::new(&text) {
        if let LogEntry::Interval(interval) = entry.ok()? {
            let encoded = base64::engine::general_purpose::STANDARD.decode(interval.encoded_histogram()).ok()?;
            let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut &encoded[..]).ok()?;
            all.add(histogram).expect("it grows");
            count += 1;
        }
    }
    Some((count, all))
}

/// All logs of a stage, of one day or two.
fn logged(directory: &Path, stage: &str) -> (usize, u64) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let its = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&format!("{stage}-2")));
    let read = its.filter_map(|entry| read(&entry.path()));
    read.fold((0, 0), |(count, len), (intervals, histogram)| (count + intervals, len + histogram.len()))
}

#[test]
fn latencies_are_logged_by_stage_and_interval_until_a_reload_ends_it() {
    let (one, two) = (Sink::open(), Sink::open());
    let rules = relay([&one, &two]);
    let setup = Setup::new(format!("metrics hlog \"@DIR@/logs/of-stages\" every 1s\n{rules}"));
    let directory = setup.dir().join("logs/of-stages");
    let mut server = setup.start();
    let mut sent = 0;
    wait_for("two intervals are logged", SOON, || {
        submit(&server, &["b@one.example"]);
        sent += 1;
        (logged(&directory, "commit_wait").0 >= 2).then_some(())
    });
    one.wait_for(sent, SOON);
    let conf = fs::read_to_string(server.dir().join("ringpost.conf")).expect("its configuration");
    let without = conf.replace(&format!("metrics hlog \"{}\" every 1s\n", directory.display()), "");
    assert_ne!(conf, without);
    server.configure(&without);
    server.tell(&["reload"]);
    wait_until("all of it is there", SOON, || logged(&directory, "commit_wait").1 == sent as u64);
    submit(&server, &["b@one.example"]);
    one.wait_for(sent + 1, SOON);
    server.stop();
    assert_eq!(logged(&directory, "commit_wait").1, sent as u64, "nobody wants it any more");
}

#[test]
fn what_the_last_interval_has_brought_is_logged_when_the_server_stops() {
    let (one, two) = (Sink::open(), Sink::open());
    let setup = Setup::new(format!("metrics hlog \"@DIR@/logs\" every 1h\n{}", relay([&one, &two])));
    let directory = setup.dir().join("logs");
    let mut server = setup.start();
    (0..3).for_each(|_| submit(&server, &["b@one.example"]));
    one.wait_for(3, SOON);
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
    assert_eq!(logged(&directory, "commit_wait"), (0, 0));
    server.stop();
    assert_eq!((logged(&directory, "commit_wait").1, logged(&directory, "remote_transaction").1), (3, 3));
}

//! Forty thousand messages that wait: what they cost, and that a crash leaves each in its place.

use std::collections::HashSet;
use std::time::Duration;

use ringpost_bench::{Checked, check, source};

use crate::support::engine::memory;
use crate::support::text::MARK;
use crate::support::{Setup, Sink, wait_until};

const MESSAGES: u64 = 40_000;
/// Recipients of one more message.
const RECIPIENTS: usize = 1000;
/// Promised are 200 at 100,000; what the allocator keeps after the start varies by some MB, which weigh more in this queue.
const BYTES_PER_ENVELOPE: u64 = 300;

#[test]
fn s123_s124_each_waiting_envelope_survives_a_crash_and_costs_little() {
    let mut sink = Sink::closed();
    let mut server = Setup::relay_to(sink.address).start();
    // A start like the one below, with nothing in the queue.
    server.stop();
    let empty_start = server.start();
    assert_eq!(server.queue(), []);
    let empty = memory(server.engine(), "RssAnon");

    let options = source::Options {
        connections: 16,
        messages: Some(MESSAGES),
        size: "600".parse().expect("a size"),
        ..source::Options::to(server.smtp)
    };
    let sent = source::run(&options).expect("the source runs");
    assert_eq!(sent.accepted, MESSAGES, "{sent:?}");
    let recipients: Vec<String> = (0..RECIPIENTS).map(|number| format!("many{number}@sink.example")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let text = format!("{MARK}many\r\n\r\nto many\r\n");
    assert_eq!(server.client().submit("a@source.example", &recipients, text.as_bytes()).code, 250);

    let envelopes = MESSAGES as usize + RECIPIENTS;
    wait_until("all have been tried", Duration::from_secs(60), || {
        server.metric("envelopes_deferred") >= envelopes as u64
    });
    wait_until("all are deferred", Duration::from_secs(30), || {
        let listed = server.queue();
        // The reason is known from when it is durable.
        let noted = listed.iter().filter(|one| one.state == "deferred" && !one.reason.is_empty());
        noted.count() == envelopes
    });

    server.kill9();
    let start = server.start();
    let full = memory(server.engine(), "RssAnon");
    let listed = server.queue();
    let each = full.saturating_sub(empty) / envelopes as u64;
    eprintln!("start {start:?} (empty {empty_start:?}); {each} bytes an envelope ({empty} → {full})");
    assert!(start < Duration::from_secs(3), "listening after {start:?}");
    assert_eq!(listed.len(), envelopes, "each is listed");
    let distinct: HashSet<(&str, &str)> = listed.iter().map(|one| (one.id.as_str(), one.recipient.as_str())).collect();
    assert_eq!(distinct.len(), envelopes, "once");
    let forgotten = listed.iter().find(|one| one.attempts == 0 || !one.reason.starts_with("451 4.4.1"));
    assert_eq!(forgotten, None, "how often and why it waits is known");
    assert!(each <= BYTES_PER_ENVELOPE, "{each} bytes an envelope");
    // New mail is taken meanwhile.
    let text = format!("{MARK}new\r\n\r\nnew\r\n");
    assert_eq!(server.client().submit("a@source.example", &["new@sink.example"], text.as_bytes()).code, 250);

    sink.reopen();
    server.retry();
    wait_until("the queue is empty", Duration::from_secs(90), || server.queue().is_empty());
    let received = sink.messages();
    let mut keys = HashSet::new();
    let mut many = Vec::new();
    for one in &received {
        match (&one.key, check(one.text.as_deref().expect("small"))) {
            (None, Checked::Whole(key)) => {
                assert!(keys.insert(key.to_vec()), "twice: {}", String::from_utf8_lossy(key))
            }
            (Some(key), _) if key == "many" => many.extend(one.to.iter().map(String::as_str)),
            (Some(key), _) if key == "new" => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(keys.len() as u64, MESSAGES);
    many.sort_unstable();
    many.dedup();
    assert_eq!(many.len(), RECIPIENTS);
}

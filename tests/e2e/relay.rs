//! The way out: to a smart host and to mail exchangers, byte for byte, once; and what becomes of mail that is refused.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::cli::Listed;
use crate::support::sink::{Received, Step};
use crate::support::text::{MARK, digest, find, message};
use crate::support::wait::wait_for;
use crate::support::{Random, Script, Server, Setup, Sink, cli, maildir, wait_until};

const SOON: Duration = Duration::from_secs(20);

fn small(key: &str) -> Vec<u8> {
    format!("{MARK}{key}\r\nSubject: {key}\r\n\r\nhello\r\n").into_bytes()
}

fn submit(server: &Server, from: &str, to: &[&str], key: &str) {
    let reply = server.client().submit(from, to, &small(key));
    assert_eq!(reply.code, 250, "{reply:?}");
}

/// The envelopes that wait, once there are so many and the last reply to each is known.
fn wait_for_deferred(server: &Server, count: usize) -> Vec<Listed> {
    wait_for(&format!("{count} are deferred"), SOON, || {
        let listed = server.queue();
        let all = listed.len() == count && listed.iter().all(|one| one.state == "deferred" && !one.reason.is_empty());
        all.then_some(listed)
    })
}

fn wait_for_empty_queue(server: &Server) {
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
}

#[test]
fn everything_arrives_at_the_smart_host_byte_for_byte() {
    let sink = Sink::open();
    let rules = format!(
        "smtp max-message-size 60M\naction \"out\" relay host \"smtp://{}\"\nmatch for any action \"out\"\n",
        sink.address
    );
    let server = Setup::new(rules).start();
    let mut random = Random::new(5);
    // Several connections, so that bodies go to their route's shard from each of the shards.
    let sizes = [0, 1, 998, 4096, 65_000, 66_000, 300_000, 1 << 20, 1 << 20, 3 << 20, 50 << 20];
    let mut sent = Vec::new();
    for (number, size) in sizes.into_iter().enumerate() {
        let key = format!("m{number}");
        let text = message(&key, &mut random, size);
        let mut client = server.client();
        let to = [format!("r{number}@sink.example")];
        let reply = match number % 2 {
            0 => client.submit("a@source.example", &[&to[0]], &text),
            _ => client.submit_chunked("a@source.example", &[&to[0]], &text, 70_001),
        };
        assert_eq!(reply.code, 250, "{key}: {reply:?}");
        sent.push((key, text.len(), digest(&text), to));
    }
    let received = sink.wait_for(sent.len(), Duration::from_secs(60));
    for (key, bytes, digest, to) in sent {
        let one = received.iter().find(|one| one.key.as_ref() == Some(&key)).expect("it is there");
        assert_eq!((one.bytes, one.digest), (bytes, digest), "{key} has changed");
        assert_eq!((one.from.as_str(), &one.to[..]), ("a@source.example", &to[..]));
    }
    wait_for_empty_queue(&server);
    assert_eq!(sink.count(), sizes.len(), "each once");
}

#[test]
fn mail_exchangers_are_tried_in_order_and_others_bounce() {
    let (setup, port) = Setup::new("action \"mx\" relay\nmatch for any action \"mx\"\n").zone(
        "two.example MX 10 mx1.two.example\n\
         \x20           MX 20 mx2.two.example\n\
         mx1.two.example A 127.0.0.2\n\
         mx2.two.example A 127.0.0.3\n\
         bare.example A 127.0.0.3\n\
         null.example MX 0 .\n\
         source.example MX 10 mx.source.example\n\
         mx.source.example A 127.0.0.4\n",
    );
    let taking = Sink::open_at(SocketAddr::from(([127, 0, 0, 3], port)));
    let senders = Sink::open_at(SocketAddr::from(([127, 0, 0, 4], port)));
    let server = setup.start();

    submit(&server, "a@source.example", &["b@two.example"], "second");
    submit(&server, "a@source.example", &["b@bare.example"], "address");
    let mut keys: Vec<_> = taking.wait_for(2, SOON).into_iter().map(|one| one.key).collect();
    keys.sort();
    assert_eq!(keys, [Some("address".into()), Some("second".into())]);

    submit(&server, "a@source.example", &["b@null.example"], "null");
    submit(&server, "a@source.example", &["b@nowhere.example"], "nowhere");
    let bounces = senders.wait_for(2, SOON);
    for (recipient, status) in [("b@null.example", "5.1.10"), ("b@nowhere.example", "5.1.2")] {
        let bounce =
            bounces.iter().find(|bounce| find(text(bounce), recipient.as_bytes()).is_some()).expect("a bounce");
        assert_eq!((bounce.from.as_str(), &bounce.to[..]), ("", &["a@source.example".to_owned()][..]));
        is_report(text(bounce), &[recipient, status]);
    }
    wait_for_empty_queue(&server);
}

fn text(received: &Received) -> &[u8] {
    received.text.as_deref().expect("a small message")
}

/// Has Python's mail parser take a bounce apart (RFC 3462, RFC 3464), and looks for `said` in its delivery status.
fn is_report(text: &[u8], said: &[&str]) {
    let script = "import email, email.policy, sys\n\
        m = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.SMTP)\n\
        assert m.get_content_type() == 'multipart/report', m.get_content_type()\n\
        assert m.get_param('report-type') == 'delivery-status', m['content-type']\n\
        assert m['from'] and m['to'] and m['date'] and m['message-id'] and m['subject']\n\
        assert m['auto-submitted'].startswith('auto-'), m['auto-submitted']\n\
        parts = list(m.iter_parts())\n\
        kinds = [part.get_content_type() for part in parts]\n\
        assert kinds[0] == 'text/plain' and kinds[1] == 'message/delivery-status', kinds\n\
        assert kinds[2] in ('message/rfc822', 'text/rfc822-headers', 'message/global-headers'), kinds\n\
        fields = parts[1].get_payload()\n\
        assert fields[0]['reporting-mta'].startswith('dns;'), fields[0].as_string()\n\
        for block in fields[1:]:\n\
        \x20   assert block['final-recipient'].startswith('rfc822;'), block.as_string()\n\
        \x20   assert block['action'] == 'failed', block.as_string()\n\
        \x20   assert block['status'], block.as_string()\n\
        assert not any(m.defects for m in m.walk()), [m.defects for m in m.walk()]\n\
        print('\\n'.join(block.as_string() for block in fields))\n";
    let mut child = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    child.stdin.take().expect("piped").write_all(text).expect("written");
    let output = child.wait_with_output().expect("its output");
    let (status, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{complaint}\n{}", String::from_utf8_lossy(text));
    for word in said {
        assert!(status.contains(word), "no {word} in the delivery status:\n{status}");
    }
}

#[test]
fn what_is_refused_for_good_bounces_into_the_senders_mailbox() {
    let sink = Sink::open();
    sink.script(Script { rcpt: vec![("bad".into(), "550 5.1.1 no such user here".into())], ..Script::default() });
    let rules = format!(
        "action \"out\" relay host \"smtp://{}\"\naction \"box\" maildir \"@DIR@/box\"\n\
         match for domain \"source.example\" action \"box\"\nmatch for any action \"out\"\n",
        sink.address
    );
    let server = Setup::new(rules).start();
    let mailbox = server.dir().join("box");
    submit(&server, "a@source.example", &["good@sink.example", "bad1@sink.example", "bad2@sink.example"], "half");
    let received = sink.wait_for(1, SOON);
    assert_eq!(received[0].to, ["good@sink.example"]);
    let bounce = maildir::wait_for_message(&mailbox, "a bounce", |text| find(text, b"bad1@").is_some());
    is_report(&bounce, &["bad1@sink.example", "bad2@sink.example", "5.1.1", "no such user here"]);
    assert!(find(&bounce, b"Return-Path: <>").is_some(), "the null sender");
    assert!(find(&bounce, b"X-Test-Key: half").is_some(), "the header of the message in question");
    wait_for_empty_queue(&server);
    assert_eq!(maildir::messages(&mailbox).len(), 1, "one report for both");

    // The end of data is refused: all of its recipients.
    sink.script(Script { end: Some("554 5.7.1 spam".into()), ..Script::default() });
    submit(&server, "a@source.example", &["good@sink.example"], "spam");
    let bounce = maildir::wait_for_message(&mailbox, "another", |text| find(text, b"X-Test-Key: spam").is_some());
    is_report(&bounce, &["good@sink.example", "5.7.1", "spam"]);
}

#[test]
fn the_null_sender_never_bounces() {
    let sink = Sink::open();
    sink.script(Script { mail: Some("550 5.7.1 go away".into()), ..Script::default() });
    let server = Setup::relay_to(sink.address).start();
    submit(&server, "", &["b@sink.example"], "null");
    sink.wait_for_attempts(1, SOON);
    wait_for_empty_queue(&server);
    assert_eq!(sink.attempts(), 1, "no bounce was tried");
    // A bounce that is refused is not bounced either.
    submit(&server, "a@source.example", &["b@sink.example"], "double");
    sink.wait_for_attempts(3, SOON);
    wait_for_empty_queue(&server);
    assert_eq!((sink.attempts(), sink.count()), (3, 0));
    wait_until("one bounce made", Duration::from_secs(2), || server.metric("envelopes_bounced") == 1);
}

#[test]
fn what_is_refused_for_now_waits_with_its_reason_and_is_delivered_once() {
    let mut sink = Sink::open();
    let server = Setup::relay_to(sink.address).start();
    let scripts = [
        (
            "mail",
            Script { mail: Some("451 4.7.1 grey, come back".into()), ..Script::default() },
            "451 4.7.1 grey, come back",
        ),
        (
            "rcpt",
            Script { rcpt: vec![("@".into(), "452 4.2.2 mailbox full".into())], ..Script::default() },
            "452 4.2.2 mailbox full",
        ),
        ("end", Script { end: Some("450 4.3.0 later".into()), ..Script::default() }, "450 4.3.0 later"),
        ("dropped", Script { drop_at: Some(Step::EndOfData), ..Script::default() }, "451 4.4.2 "),
    ];
    for (key, script, reason) in scripts {
        let before = sink.count();
        sink.script(script);
        submit(&server, "a@source.example", &["b@sink.example", "c@sink.example"], key);
        for one in wait_for_deferred(&server, 2) {
            assert!(one.reason.contains(reason), "{key}: {one:?}");
            assert_eq!((one.sender.as_str(), one.attempts), ("a@source.example", 1), "{key}");
        }
        let shown = server.tell(&["queue", "list"]);
        assert!(shown.contains("b@sink.example") && shown.contains(reason.trim_end()), "{shown}");
        sink.script(Script::default());
        server.retry();
        wait_for_empty_queue(&server);
        let received = sink.messages();
        assert_eq!(received.len(), before + 1, "{key}: once");
        assert_eq!(received[before].key.as_deref(), Some(key));
        assert_eq!(received[before].to.len(), 2, "{key}");
    }

    // Nobody listens; then somebody does.
    sink.close();
    submit(&server, "a@source.example", &["b@sink.example"], "away");
    let listed = wait_for_deferred(&server, 1);
    assert!(listed[0].reason.starts_with("451 4.4.1"), "{listed:?}");
    sink.reopen();
    server.retry();
    wait_for_empty_queue(&server);
    assert_eq!(sink.messages().last().and_then(|last| last.key.clone()).as_deref(), Some("away"));
}

#[test]
fn the_queue_can_be_looked_at_running_and_stopped() {
    let sink = Sink::closed();
    let mut server = Setup::relay_to(sink.address).start();
    submit(&server, "a@source.example", &["b@sink.example", "c@sink.example"], "shown");
    let running = wait_for_deferred(&server, 2);
    let id = running[0].id.clone();
    let shown = server.tell(&["queue", "show", &id]);
    for said in ["a@source.example", "b@sink.example", "c@sink.example", "X-Test-Key: shown", "hello"] {
        assert!(shown.contains(said), "no {said} in:\n{shown}");
    }
    server.stop();
    assert_eq!(server.queue(), running, "the same with the server stopped");
    let stopped = server.tell(&["queue", "show", &id]);
    for said in ["a@source.example", "b@sink.example", "c@sink.example", "X-Test-Key: shown", "hello"] {
        assert!(stopped.contains(said), "no {said} in:\n{stopped}");
    }
    let unknown = cli::run(&["queue", "show", "00000000000fffff", "--state", &server.state.display().to_string()]);
    assert!(!unknown.status.success() && unknown.status.code() != Some(101));
    let retry = cli::run(&["queue", "retry", "--state", &server.state.display().to_string()]);
    assert!(!retry.status.success() && retry.status.code() != Some(101), "nobody is there to retry");
}

#[test]
fn what_waits_too_long_expires_and_bounces() {
    let sink = Sink::open();
    sink.script(Script { rcpt: vec![("slow".into(), "451 4.2.1 not now".into())], ..Script::default() });
    let rules = format!("action \"out\" relay host \"smtp://{}\" ttl 2s\nmatch for any action \"out\"\n", sink.address);
    let server = Setup::new(rules).start();
    submit(&server, "a@source.example", &["slow@sink.example"], "late");
    let bounce = sink.wait_for(1, SOON).remove(0);
    assert_eq!((bounce.from.as_str(), &bounce.to[..]), ("", &["a@source.example".to_owned()][..]));
    is_report(text(&bounce), &["slow@sink.example", "4.4.7"]);
    wait_for_empty_queue(&server);
}

#[test]
fn a_smart_host_may_have_an_ipv6_address() {
    let port = crate::support::ports::free();
    let sink = Sink::open_at(format!("[::1]:{port}").parse().expect("an address"));
    let server = Setup::relay_to(sink.address).start();
    submit(&server, "a@source.example", &["b@sink.example"], "six");
    assert_eq!(sink.wait_for(1, SOON)[0].key.as_deref(), Some("six"));
}

#[test]
fn a_server_from_before_esmtp_gets_its_mail_too() {
    let sink = Sink::open();
    sink.script(Script { plain: true, ..Script::default() });
    let server = Setup::relay_to(sink.address).start();
    submit(&server, "a@source.example", &["b@sink.example"], "old");
    assert_eq!(sink.wait_for(1, SOON)[0].key.as_deref(), Some("old"));
}

#[test]
fn the_recipients_at_one_site_share_a_transaction() {
    let sink = Sink::open();
    let server = Setup::relay_to(sink.address).start();
    let recipients: Vec<String> = (0..150).map(|number| format!("r{number}@d{}.example", number % 7)).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    submit(&server, "a@source.example", &recipients[..30], "thirty");
    let received = sink.wait_for(1, SOON);
    assert_eq!(received[0].to, &recipients[..30]);
    submit(&server, "a@source.example", &recipients, "many");
    // No server need take more than 100 at a time (RFC 5321 §4.5.3.1.8).
    let received = sink.wait_for(3, SOON);
    let mut counts: Vec<usize> = received[1..].iter().map(|one| one.to.len()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [50, 100]);
    wait_for_empty_queue(&server);
    assert_eq!(sink.attempts(), 3);
}

#[test]
fn a_connection_carries_many_messages() {
    let sink = Sink::open();
    let server = Setup::relay_to(sink.address).start();
    let mut client = server.client();
    for number in 0..50 {
        assert_eq!(client.submit("a@source.example", &["b@sink.example"], &small(&number.to_string())).code, 250);
        sink.wait_for(number + 1, SOON);
    }
    // The next message may come before the engine has read the reply to the one before it.
    assert!(sink.connections() <= 4, "{} connections for 50 messages", sink.connections());
}

#[test]
fn a_site_that_does_not_answer_delays_only_itself() {
    let (setup, port) = Setup::new("action \"mx\" relay\nmatch for any action \"mx\"\n")
        .zone("stuck.example A 127.0.0.2\nfine.example A 127.0.0.3\n");
    let stuck = Sink::open_at(SocketAddr::from(([127, 0, 0, 2], port)));
    stuck.script(Script { stall_at: Some(Step::Greeting), ..Script::default() });
    let fine = Sink::open_at(SocketAddr::from(([127, 0, 0, 3], port)));
    let server = setup.start();
    let mut client = server.client();
    for number in 0..500 {
        assert_eq!(client.submit("a@x.example", &["b@stuck.example"], &small(&number.to_string())).code, 250);
    }
    assert_eq!(client.submit("a@x.example", &["b@fine.example"], &small("fine")).code, 250);
    assert_eq!(fine.wait_for(1, Duration::from_secs(5))[0].key.as_deref(), Some("fine"));
    assert_eq!(stuck.count(), 0);
}

/// Promise 6 where memory counts: a site that stands still has more mail than may be in the air.
#[test]
fn a_site_that_stands_still_leaves_room_for_the_others_and_gets_its_mail_in_the_end() {
    const MANY: usize = 1500;
    let (setup, port) = Setup::new("action \"mx\" relay\nmatch for any action \"mx\"\n")
        .zone("stuck.example A 127.0.0.2\nfine.example A 127.0.0.3\n");
    let mut stuck = Sink::open_at(SocketAddr::from(([127, 0, 0, 2], port)));
    stuck.script(Script { stall_at: Some(Step::Greeting), ..Script::default() });
    let fine = Sink::open_at(SocketAddr::from(([127, 0, 0, 3], port)));
    let server = setup.start();
    let mut random = Random::new(6);
    let mut client = server.client();
    let mut sent = std::collections::BTreeMap::new();
    for number in 0..MANY {
        let key = number.to_string();
        let text = message(&key, &mut random, 40 << 10);
        sent.insert(key, (text.len(), digest(&text)));
        assert_eq!(client.submit("a@x.example", &["b@stuck.example"], &text).code, 250);
    }
    // Fresh mail goes past it, and so does what must be read back from the queue.
    fine.script(Script { mail: Some("451 4.7.1 grey".into()), ..Script::default() });
    submit(&server, "a@x.example", &["b@fine.example"], "later");
    wait_until("it is deferred", SOON, || server.queue().iter().any(|one| one.state == "deferred"));
    fine.script(Script::default());
    submit(&server, "a@x.example", &["b@fine.example"], "fresh");
    fine.wait_for(1, Duration::from_secs(5));
    server.retry();
    let keys: Vec<Option<String>> = fine.wait_for(2, Duration::from_secs(5)).into_iter().map(|one| one.key).collect();
    assert_eq!(keys, [Some("fresh".into()), Some("later".into())]);
    assert_eq!((stuck.count(), server.queue().len()), (0, MANY));

    stuck.close();
    wait_until("all are deferred", SOON, || server.queue().iter().all(|one| one.state == "deferred"));
    stuck.script(Script::default());
    stuck.reopen();
    server.retry();
    let received = stuck.wait_for(MANY, SOON);
    let received = received.into_iter().map(|one| (one.key.expect("ours"), (one.bytes, one.digest)));
    assert_eq!(received.collect::<std::collections::BTreeMap<_, _>>(), sent);
    wait_for_empty_queue(&server);
    assert_eq!(stuck.count(), MANY, "each once");
}

#[test]
fn refusals_have_a_class_and_a_line_says_what_they_come_to() {
    let sink = Sink::open();
    let rules = format!(
        "bounce classify moving reply regex \"^5.*moving house\" treat temporary\n\
         bounce classify gone reply {{ \"4.1.8\" }} for domain \"sink.example\" treat permanent\n\
         action \"out\" relay host \"smtp://{}\"\naction \"box\" maildir \"@DIR@/box\"\n\
         match for domain \"source.example\" action \"box\"\nmatch for any action \"out\"\n",
        sink.address
    );
    let server = Setup::new(rules).start();
    let logged = |to: &str, words: &[&str]| {
        wait_until(&format!("{to} in the log"), SOON, || {
            let log = server.printed();
            let line = log.lines().find(|line| line.contains(&format!("to=<{to}> "))).unwrap_or_default().to_owned();
            words.iter().all(|word| line.contains(word))
        });
    };
    let refuse = |text: &str| sink.script(Script { rcpt: vec![("@".into(), text.into())], ..Script::default() });
    refuse("550 5.0.0 we are Moving House");
    submit(&server, "a@source.example", &["one@sink.example"], "one");
    logged("one@sink.example", &["result=TempFail", " class=moving dsn=5.0.0 "]);
    assert!(wait_for_deferred(&server, 1)[0].reason.contains("Moving House"));
    refuse("450 4.1.8 for now");
    submit(&server, "a@source.example", &["two@sink.example"], "two");
    logged("two@sink.example", &["result=PermFail", " class=gone "]);
    let find_two = |text: &[u8]| find(text, b"two@sink.example").is_some();
    let bounce = maildir::wait_for_message(&server.dir().join("box"), "a bounce", find_two);
    is_report(&bounce, &["two@sink.example", "450", "for now"]);
    refuse("552 5.2.2 quota exceeded");
    submit(&server, "", &["three@sink.example"], "three");
    logged("three@sink.example", &["result=PermFail", " class=mailbox-full "]);
}

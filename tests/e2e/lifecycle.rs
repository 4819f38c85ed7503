//! Stopped, reloaded, started with another number of shards: nobody's mail notices.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::server::{LISTENERS, SMALL};
use crate::support::text::{MARK, digest, message, stuffed};
use crate::support::{Client, Random, Server, Setup, Sink, cli, maildir, wait_until};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_stop_finishes_what_is_open_and_turns_the_idle_away() {
    let mut sink = Sink::closed();
    let mut server = Setup::relay_to(sink.address).start();
    let mut idle = server.client();
    let mut busy = server.client();
    let text = message("open", &mut Random::new(1), 500_000);
    let wire = stuffed(&text);
    busy.envelope("a@source.example", &["b@sink.example"]);
    assert_eq!(busy.say("DATA").code, 354);
    busy.send(&wire[..wire.len() / 2]);

    let began = std::time::Instant::now();
    server.signal(Signal::TERM);
    idle.expect("421 4.3.2");
    assert!(idle.is_closed());
    wait_until("no new clients", SOON, || Client::try_connect(server.smtp).is_err());
    busy.send(&wire[wire.len() / 2..]);
    busy.expect("250 2.0.0 queued as ");
    busy.expect("421 4.3.2");
    assert!(busy.is_closed());
    let status = server.wait();
    assert_eq!(status.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());

    sink.reopen();
    server.start();
    let received = sink.wait_for(1, SOON);
    assert_eq!(received[0].digest, digest(&text));
    server.stop();
}

#[test]
fn a_client_that_never_ends_does_not_hold_up_a_stop() {
    let mut server = Setup::discard().start();
    let mut client = server.client();
    client.envelope("a@source.example", &["b@sink.example"]);
    assert_eq!(client.say("DATA").code, 354);
    client.send(b"Subject: endless\r\n");
    // `stop` has a deadline of its own, a little above the promised 10 s.
    let began = std::time::Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(13), "{:?}", began.elapsed());
}

#[test]
fn ringpost_stop_stops() {
    let mut server = Setup::discard().start();
    server.tell(&["stop"]);
    assert_eq!(server.wait().code(), Some(0));
    let again = cli::run(&["stop", "--state", &server.state.display().to_string()]);
    assert!(!again.status.success() && again.status.code() != Some(101), "there is nobody to stop");
}

fn taking(domains: &[&str]) -> String {
    let matches: String =
        domains.iter().map(|domain| format!("match for domain \"{domain}\" action \"none\"\n")).collect();
    format!("{SMALL}{LISTENERS}action \"none\" discard\n{matches}")
}

fn takes(server: &Server, domain: &str) -> bool {
    let mut client = server.client();
    assert_eq!(client.say("MAIL FROM:<a@source.example>").code, 250);
    let reply = client.say(&format!("RCPT TO:<b@{domain}>"));
    assert!(reply.code == 250 || reply.starts_with("550 5.7.1"), "{reply:?}");
    reply.code == 250
}

#[test]
fn a_reload_holds_for_new_sessions_and_a_broken_file_changes_nothing() {
    let server = Setup::whole(taking(&["one.example"])).start();
    assert!(takes(&server, "one.example") && !takes(&server, "two.example"));
    let mut old = server.client();
    assert_eq!(old.say("MAIL FROM:<a@source.example>").code, 250);

    server.configure(&taking(&["one.example", "two.example"]));
    server.signal(Signal::HUP);
    // Each shard has its own copy: a new session may come to any of them.
    wait_until("the new rule holds everywhere", SOON, || (0..12).all(|_| takes(&server, "two.example")));
    assert!(takes(&server, "one.example"));
    assert!(old.say("RCPT TO:<b@two.example>").starts_with("550"), "a session goes on as it began");

    let said = server.printed().len();
    server.configure(&format!("{}match for domian \"three.example\" action \"none\"\n", taking(&[])));
    server.signal(Signal::HUP);
    wait_until("the error is reported", SOON, || server.printed()[said..].contains("domian"));
    wait_until("its place, too", SOON, || server.printed()[said..].contains("ringpost.conf:6:"));
    assert!(takes(&server, "two.example"));
    let output = cli::run(&["reload", "--state", &server.state.display().to_string()]);
    assert!(!output.status.success());
    let report = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(report.contains("domian"), "{report}");
    assert!(takes(&server, "two.example"));

    server.configure(&taking(&["three.example"]));
    server.tell(&["reload"]);
    wait_until("the newest rule holds everywhere", SOON, || (0..12).all(|_| takes(&server, "three.example")));
    assert!(!takes(&server, "one.example"));
}

#[test]
fn a_changed_table_file_is_read_by_itself_and_a_broken_one_changes_nothing() {
    let setup = Setup::discard();
    let (watched, manual) = (setup.dir().join("domains"), setup.dir().join("by-hand"));
    std::fs::write(&watched, "one.example\n").expect("written");
    std::fs::write(&manual, "ten.example\n").expect("written");
    let server = setup.start();
    server.configure(&format!(
        "{SMALL}{LISTENERS}table domains file:{}\ntable slow file:{} manual\naction \"none\" discard\n\
         match for domain <domains> action \"none\"\nmatch for domain <slow> action \"none\"\n",
        watched.display(),
        manual.display()
    ));
    server.tell(&["reload"]);
    wait_until("both tables hold", SOON, || takes(&server, "one.example") && takes(&server, "ten.example"));
    assert!(!takes(&server, "two.example"));

    // As editors do: another file takes the name.
    let new = watched.with_extension("new");
    std::fs::write(&new, "one.example\ntwo.example\n").expect("written");
    std::fs::rename(&new, &watched).expect("renamed");
    wait_until("the new domain is known everywhere", SOON, || (0..12).all(|_| takes(&server, "two.example")));
    wait_until("it is told", SOON, || server.printed().contains("conf   read again: <domains>"));

    std::fs::write(&watched, "one.example\n@no@domain\n").expect("written");
    wait_until("the error is reported", SOON, || server.printed().contains("is not a domain"));
    assert!(takes(&server, "two.example"), "the old entries stay");

    std::fs::write(&manual, "ten.example\neleven.example\n").expect("written");
    std::fs::write(&watched, "three.example\n").expect("written");
    wait_until("the mended file holds everywhere", SOON, || (0..12).all(|_| takes(&server, "three.example")));
    assert!(!takes(&server, "eleven.example"), "this one is read on request only");
    server.tell(&["table", "update", "slow"]);
    wait_until("until it was requested", SOON, || (0..12).all(|_| takes(&server, "eleven.example")));
}

#[test]
fn the_number_of_shards_may_change_with_mail_in_the_queue() {
    let mut sink = Sink::closed();
    let config = |shards: usize| {
        format!(
            "shards {shards}\nstore {{ segment 8M, spare 1 }}\n{LISTENERS}\
             action \"out\" relay host \"smtp://{}\"\nmatch for any action \"out\"\n",
            sink.address
        )
    };
    let configs = BTreeMap::from([1, 3].map(|shards| (shards, config(shards))));
    let mut server = Setup::whole(configs[&3].clone()).start();
    let mut sent = BTreeMap::new();
    let mut random = Random::new(23);
    for (round, shards) in [3, 1, 3].into_iter().enumerate() {
        if round > 0 {
            server.stop();
            server.configure(&configs[&shards]);
            server.start();
        }
        for number in 0..30 {
            let key = format!("r{round}-{number}");
            let text = message(&key, &mut random, 2000);
            // A connection each, so that every shard has some.
            let reply = server.client().submit("a@source.example", &["b@sink.example"], &text);
            assert_eq!(reply.code, 250);
            sent.insert(key, digest(&text));
        }
        wait_until("all are listed as deferred", SOON, || {
            let listed = server.queue();
            listed.len() == sent.len() && listed.iter().all(|one| one.state == "deferred")
        });
    }
    let ids: std::collections::BTreeSet<String> = server.queue().into_iter().map(|one| one.id).collect();
    assert_eq!(ids.len(), sent.len(), "each has its own number");
    // The top 16 bits name the slice.
    let slices: std::collections::BTreeSet<&str> = ids.iter().map(|id| &id[..4]).collect();
    assert_eq!(slices.len(), 3, "{slices:?}");

    server.stop();
    server.configure(&configs[&1]);
    server.start();
    sink.reopen();
    server.retry();
    wait_until("the queue is empty", Duration::from_secs(60), || server.queue().is_empty());
    let received = sink.messages();
    assert_eq!(received.len(), sent.len(), "each once");
    for one in received {
        assert_eq!(sent.get(&one.key.expect("a key")), Some(&one.digest));
    }
}

#[test]
fn mail_that_waits_is_found_after_a_stop() {
    let mut sink = Sink::closed();
    let mut server = Setup::relay_to(sink.address).start();
    for key in ["a", "b"] {
        let text = format!("{MARK}{key}\r\n\r\n");
        assert_eq!(server.client().submit("a@source.example", &["b@sink.example"], text.as_bytes()).code, 250);
    }
    server.stop();
    assert_eq!(server.queue().len(), 2, "with the server stopped");
    sink.reopen();
    server.start();
    server.retry();
    wait_until("the queue is empty", SOON, || server.queue().is_empty());
    assert_eq!(sink.count(), 2);
}

#[test]
fn absolute_paths_are_taken_below_the_root() {
    let setup = Setup::new("action \"box\" maildir \"/var/mail/box\"\nmatch for any action \"box\"\n").root();
    let root = setup.dir().join("root");
    let server = setup.start();
    let text = format!("{MARK}below\r\n\r\n");
    assert_eq!(server.client().submit("a@source.example", &["b@sink.example"], text.as_bytes()).code, 250);
    maildir::wait_for_key(&root.join("var/mail/box"), "below");
    assert!(!std::path::Path::new("/var/mail/box").exists());
}

//! The hosts of a site: who is asked, who is left alone, who comes next, and what the log says of it.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::authority::{Authority, Kind};
use crate::support::secure_sink::{Offer, SecureSink};
use crate::support::sink::Step;
use crate::support::text::MARK;
use crate::support::wait::wait_for;
use crate::support::{Script, Server, Setup, Sink, wait_until};

const SOON: Duration = Duration::from_secs(60);
const BY_MX: &str = "action \"mx\" relay\nmatch for any action \"mx\"\n";

fn submit(server: &Server, to: &str, key: &str) {
    let text = format!("{MARK}{key}\r\n\r\nhello\r\n");
    let reply = server.client().submit("a@source.example", &[to], text.as_bytes());
    assert_eq!(reply.code, 250, "{reply:?}");
}

/// The lines about faults of this host.
fn faults(server: &Server, host: &str) -> Vec<String> {
    let (printed, host) = (server.printed(), format!("smtp-out: host={host} "));
    printed.lines().filter(|line| line.contains(&host)).map(str::to_owned).collect()
}

fn at(third: u8, last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 3, third, last], port))
}

fn one_each() -> Script {
    Script { one_each: true, ..Script::default() }
}

#[test]
fn s73_a_relay_url_leads_to_the_hosts_addresses_and_never_to_its_exchangers() {
    let (setup, port) = Setup::new(
        "accept for domain named.example relay via smtp://hub.example:2626\n\
         accept for domain usual.example relay via smtp://hub.example\n\
         accept for domain number.example relay via smtp://127.3.0.1:2626\n",
    )
    .zone("hub.example MX 10 mx.hub.example\nmx.hub.example A 127.3.0.2\nhub.example A 127.3.0.1\n");
    let (other, usual) = (Sink::open_at(at(0, 1, port - 25 + 2626)), Sink::open_at(at(0, 1, port)));
    let wrong = [Sink::open_at(at(0, 2, port)), Sink::open_at(at(0, 2, port - 25 + 2626))];
    let server = setup.start();
    for domain in ["named", "usual", "number"] {
        submit(&server, &format!("b@{domain}.example"), domain);
    }
    let mut keys: Vec<_> = other.wait_for(2, SOON).into_iter().filter_map(|one| one.key).collect();
    keys.sort();
    assert_eq!(keys, ["named", "number"]);
    assert_eq!(usual.wait_for(1, SOON)[0].key.as_deref(), Some("usual"));
    assert!(wrong.iter().all(|sink| sink.connections() == 0), "nobody asked for exchangers");
}

#[test]
fn s83_a_host_that_fails_too_often_is_left_alone_while_another_one_works() {
    const MANY: usize = 300;
    let (setup, port) = Setup::new(format!("shaping default {{ pause 10m }}\n{BY_MX}")).zone(
        "many.example MX 10 a.many.example\nmany.example MX 10 b.many.example\n\
         a.many.example A 127.3.1.1\nb.many.example A 127.3.1.2\n",
    );
    let (a, b) = (Sink::open_at(at(1, 1, port)), Sink::open_at(at(1, 2, port)));
    a.script(Script { greeting: Some("554 5.3.2 out of order".into()), ..Script::default() });
    b.script(one_each());
    let server = setup.start();
    let mut client = server.client();
    for number in 0..MANY {
        let text = format!("{MARK}{number}\r\n\r\nhello\r\n");
        assert_eq!(client.submit("a@source.example", &["b@many.example"], text.as_bytes()).code, 250);
    }
    b.wait_for(MANY, SOON);
    assert!(server.queue().is_empty(), "all by the other, none deferred");
    let lines = wait_for("the faults are told", SOON, || {
        let lines = faults(&server, "a.many.example");
        (lines.len() >= 3).then_some(lines)
    });
    assert!(lines.iter().any(|line| line.contains(" pause=600s ")), "{lines:?}");
    // Three failures in a row, and what had set out before they were known: as many as a site has connections at most.
    let tried = a.connections();
    assert!((3..=20).contains(&tried), "{tried}");
    for number in 0..20 {
        submit(&server, "b@many.example", &number.to_string());
    }
    b.wait_for(MANY + 20, SOON);
    assert_eq!(a.connections(), tried, "then nobody goes there");

    a.script(one_each());
    // An administrator who knows that it is back need not wait for the end of its pause.
    server.retry();
    for number in 0..10 {
        submit(&server, "b@many.example", &number.to_string());
    }
    wait_until("it is used again", SOON, || a.count() > 0 && a.count() + b.count() == MANY + 30);
}

#[test]
fn s84_hosts_of_one_preference_share_the_load() {
    const EACH: usize = 100;
    let mut zone = String::new();
    for host in 1..=3 {
        zone += &format!("even.example MX 10 mx{host}.even.example\nmx{host}.even.example A 127.3.2.{host}\n");
    }
    let (setup, port) = Setup::new(BY_MX).zone(&zone);
    let sinks: Vec<Sink> = (1..=3).map(|host| Sink::open_at(at(2, host, port))).collect();
    sinks.iter().for_each(|sink| sink.script(one_each()));
    let server = setup.start();
    let mut client = server.client();
    for number in 0..3 * EACH {
        let text = format!("{MARK}{number}\r\n\r\nhello\r\n");
        assert_eq!(client.submit("a@source.example", &["b@even.example"], text.as_bytes()).code, 250);
    }
    wait_until("all have arrived", SOON, || sinks.iter().map(Sink::count).sum::<usize>() == 3 * EACH);
    let counts: Vec<usize> = sinks.iter().map(Sink::count).collect();
    assert!(counts.iter().all(|count| (EACH * 8 / 10..=EACH * 12 / 10).contains(count)), "{counts:?}");
}

#[test]
fn s85_the_next_preference_gets_the_mail_in_the_same_attempt_until_the_better_one_is_back() {
    let (setup, port) = Setup::new(BY_MX).zone(
        "next.example MX 10 a.next.example\nnext.example MX 10 b.next.example\nnext.example MX 20 c.next.example\n\
         a.next.example A 127.3.3.1\nb.next.example A 127.3.3.2\nc.next.example A 127.3.3.3\n",
    );
    let mut first = Sink::open_at(at(3, 1, port));
    first.close();
    let spare = Sink::open_at(at(3, 3, port));
    spare.script(one_each());
    let server = setup.start();
    submit(&server, "b@next.example", "spare");
    assert_eq!(spare.wait_for(1, SOON)[0].key.as_deref(), Some("spare"));
    assert_eq!(server.metric("envelopes_deferred"), 0, "in the same attempt");
    let next: Vec<String> = wait_for("both faults are told", SOON, || {
        let both = [faults(&server, "a.next.example"), faults(&server, "b.next.example")];
        both.iter().all(|lines| lines.len() == 1).then(|| both.concat())
    });
    assert!(
        next.iter().any(|line| line
            .ends_with("next=\"c.next.example[127.3.3.3]:PORT is tried\"".replace("PORT", &port.to_string()).as_str())),
        "{next:?}"
    );
    first.reopen();
    submit(&server, "b@next.example", "first");
    assert_eq!(first.wait_for(1, SOON)[0].key.as_deref(), Some("first"));
    assert_eq!(spare.count(), 1);
}

#[test]
fn s86_where_nobody_can_be_reached_mail_waits_and_where_nobody_is_it_fails_at_once() {
    let (setup, port) = Setup::new(BY_MX).zone(
        "away.example MX 10 a.away.example\naway.example MX 20 b.away.example\n\
         a.away.example A 127.3.4.1\nb.away.example A 127.3.4.2\n\
         deaf.example SERVFAIL\n\
         half.example MX 10 deaf.example\n\
         null.example MX 0 .\n",
    );
    let server = setup.start();
    // Failures of the null sender's mail are the end of it.
    let text = format!("{MARK}m\r\n\r\nhello\r\n");
    for domain in ["away", "deaf", "half", "null", "nowhere"] {
        let to = format!("b@{domain}.example");
        assert_eq!(server.client().submit("", &[&to], text.as_bytes()).code, 250);
    }
    let waiting = wait_for("three wait", SOON, || {
        let waiting = server.queue();
        (waiting.len() == 3 && waiting.iter().all(|one| !one.reason.is_empty())).then_some(waiting)
    });
    let reason = |domain: &str| {
        let one = waiting.iter().find(|one| one.recipient == format!("b@{domain}.example"));
        one.unwrap_or_else(|| panic!("{domain} in {waiting:?}")).reason.clone()
    };
    let away = reason("away");
    assert!(away.starts_with("451 4.4.1"), "{away}");
    for host in ["a.away.example[127.3.4.1]", "b.away.example[127.3.4.2]"] {
        assert!(away.contains(&format!("{host}:{port}: ")), "{away}");
    }
    for domain in ["deaf", "half"] {
        assert!(reason(domain).starts_with("451 4.4.3"), "{}", reason(domain));
    }
    for (domain, status) in [("null", "5.1.10"), ("nowhere", "5.1.2")] {
        let failed = format!("to=<b@{domain}.example> result=PermFail");
        wait_until(&format!("{domain} has failed"), SOON, || {
            server.printed().lines().any(|line| line.contains(&failed) && line.contains(&format!("dsn={status} ")))
        });
    }
}

#[test]
fn s87_s148_what_a_host_says_of_itself_sends_mail_to_the_next_and_is_told_once() {
    let scripts = [
        ("banner", "greeting", Script { greeting: Some("554 5.3.2 no service".into()), ..Script::default() }),
        ("ehlo", "ehlo", Script { ehlo: Some("550 5.7.1 not you".into()), ..Script::default() }),
        ("busy", "greeting", Script { greeting: Some("421 4.3.2 too busy".into()), ..Script::default() }),
        ("closes", "greeting", Script { drop_at: Some(Step::Greeting), ..Script::default() }),
    ];
    let mut zone = "good.example A 127.3.5.100\nsecure.example A 127.3.5.101\n\
        refuses.example MX 10 mx.refuses.example\nrefuses.example MX 20 secure.example\n\
        mx.refuses.example A 127.3.5.50\n"
        .to_owned();
    for (number, (name, ..)) in scripts.iter().enumerate() {
        zone += &format!("{name}.example MX 10 mx.{name}.example\n{name}.example MX 20 good.example\n");
        zone += &format!("mx.{name}.example A 127.3.5.{}\n", number + 1);
    }
    let rules = "action \"tls\" relay tls no-verify\nmatch for domain refuses.example action \"tls\"\n";
    let (setup, port) = Setup::new(format!("{rules}{BY_MX}")).zone(&zone);
    let sinks: Vec<Sink> = (1..).zip(&scripts).map(|(last, _)| Sink::open_at(at(5, last, port))).collect();
    sinks.iter().zip(&scripts).for_each(|(sink, (.., script))| sink.script(script.clone()));
    let good = Sink::open_at(at(5, 100, port));
    let authority = Authority::new();
    let config = || authority.server("secure.example", Kind::Good);
    let refuses = SecureSink::open(at(5, 50, port), Offer::Refuses, config());
    let secure = SecureSink::open(at(5, 101, port), Offer::StartTls, config());
    let server = setup.start();
    for (name, ..) in &scripts {
        submit(&server, &format!("b@{name}.example"), name);
    }
    submit(&server, "b@refuses.example", "refuses");
    let mut keys: Vec<_> = good.wait_for(4, SOON).into_iter().filter_map(|one| one.key).collect();
    keys.sort();
    assert_eq!(keys, ["banner", "busy", "closes", "ehlo"]);
    wait_until("the one that wants encryption", SOON, || secure.messages() == [("a".to_owned(), true)]);
    assert_eq!(refuses.mails(), []);
    assert!(server.queue().is_empty());
    assert_eq!((server.metric("envelopes_deferred"), server.metric("envelopes_bounced")), (0, 0));

    let next = format!("next=\"good.example[127.3.5.100]:{port} is tried\"");
    for (number, (name, stage, script)) in scripts.iter().enumerate() {
        let host = format!("mx.{name}.example");
        wait_until(&format!("{host} is told"), SOON, || !faults(&server, &host).is_empty());
        let lines = faults(&server, &host);
        assert_eq!(lines.len(), 1, "{lines:?}");
        let address = format!("address=127.3.5.{} port={port}", number + 1);
        let route = format!("route={host}:{port}");
        let said = script.greeting.as_deref().or(script.ehlo.as_deref()).unwrap_or("the server closed the connection");
        for part in [address.as_str(), &route, &format!("stage={stage} "), said, &next] {
            assert!(lines[0].contains(part), "no {part} in {}", lines[0]);
        }
    }
    wait_until("STARTTLS is told", SOON, || !faults(&server, "mx.refuses.example").is_empty());
    let lines = faults(&server, "mx.refuses.example");
    assert!(
        lines.len() == 1 && lines[0].contains("stage=starttls why=\"greeted with 454 4.7.0 not now\""),
        "{lines:?}"
    );

    // What is said of the message or its recipients is another matter.
    good.script(Script { rcpt: vec![("bad".into(), "550 5.1.1 nobody".into())], ..Script::default() });
    submit(&server, "bad@banner.example", "bad");
    good.script(Script {
        end: Some("554 5.7.1 spam".into()),
        rcpt: vec![("bad".into(), "550 5.1.1 nobody".into())],
        ..Script::default()
    });
    submit(&server, "b@banner.example", "spam");
    wait_until("both have failed for good", SOON, || {
        let printed = server.printed();
        let failed = |to: &str| {
            let line = format!("to=<{to}@banner.example> result=PermFail relay=good.example");
            printed.contains(&line)
        };
        failed("bad") && failed("b")
    });
}

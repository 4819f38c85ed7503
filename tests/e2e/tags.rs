//! Listeners tag, rules look: rows S102 and S103, with the four lines that send mail by way of a signing proxy.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::support::sink::Received;
use crate::support::text::{MARK, find};
use crate::support::{Client, Script, Server, Setup, Sink, ports, wait_until};

const SOON: Duration = Duration::from_secs(20);
/// What the proxy puts in front.
const SIGNATURE: &[u8] = b"DKIM-Signature: v=1; d=source.example; b=stub\r\n";

/// What `ringpost explain` says is done with a recipient: `relay by MX for <u@a.example>`, or the reply.
fn explained(conf: &Path, server: &Server, tag: &str, to: &str) -> String {
    let conf = conf.display().to_string();
    let said = server.tell(&["explain", "--json", "--config", &conf, "--tag", tag, "--rcpt", to]);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    match said["outcome"]["code"].as_u64() {
        Some(code) => format!("{code} {}", said["outcome"]["status"].as_str().expect("a status")),
        None => said["outcome"]["deliveries"][0]["does"].as_str().expect("a text").to_owned(),
    }
}

#[test]
fn s102_two_listeners_two_tags_and_rules_that_deny_them() {
    let (inside, outside) = (ports::free(), ports::free());
    let server = Setup::new(format!(
        "listen on 127.0.0.1 port {inside} tag INSIDE\nlisten on 127.0.0.1 port {outside} tag OUTSIDE\n\
         action \"none\" discard\n\
         match tag INSIDE from any for domain a.example action \"none\"\n\
         match !tag {{ INSIDE, OUTSIDE }} from any for domain b.example action \"none\"\n\
         match tag regex \"^out\" from any for domain c.example action \"none\"\n\
         match !tag OUTSIDE from any for domain d.example reject \"554 5.7.0 only from outside\"\n\
         match from any for domain d.example action \"none\"\n"
    ))
    .start();
    let listeners = [("INSIDE", inside), ("OUTSIDE", outside), ("", server.smtp.port())];
    let expected = [
        ["250", "550 5.1.1", "550 5.1.1", "554 5.7.0"],
        ["550 5.1.1", "550 5.1.1", "250", "250"],
        ["550 5.1.1", "250", "550 5.1.1", "554 5.7.0"],
    ];
    let conf = server.dir().join("ringpost.conf");
    for ((tag, port), expected) in listeners.into_iter().zip(expected) {
        let mut client = Client::ready(SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(client.say("MAIL FROM:<s@x.example>").code, 250);
        for (domain, expected) in ["a.example", "b.example", "c.example", "d.example"].into_iter().zip(expected) {
            let reply = client.say(&format!("RCPT TO:<u@{domain}>"));
            assert!(reply.starts_with(expected), "{tag} {domain}: {reply:?}");
            let said = explained(&conf, &server, tag, &format!("u@{domain}"));
            assert_eq!(said, if expected == "250" { "discard" } else { expected }, "{tag} {domain}");
        }
    }
}

/// A signing proxy: what arrives at `from` is sent on to `to` with one more field, until `ended`.
fn proxy(from: &Sink, to: SocketAddr, ended: &AtomicBool) {
    let mut passed = 0;
    while !ended.load(Ordering::Relaxed) {
        for one in from.messages().into_iter().skip(passed) {
            let signed = [SIGNATURE, one.text.as_deref().expect("small")].concat();
            let recipients: Vec<&str> = one.to.iter().map(String::as_str).collect();
            assert_eq!(Client::ready(to).submit(&one.from, &recipients, &signed).code, 250);
            passed += 1;
        }
        std::thread::yield_now();
    }
}

/// Lets the proxy end, also when a test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn has(received: &Received, part: &[u8]) -> bool {
    find(received.text.as_deref().expect("small"), part).is_some()
}

#[test]
fn s103_four_lines_send_mail_through_a_signing_proxy_once() {
    let zone = "sink.example MX 10 mx.sink.example\nmx.sink.example A 127.0.0.2\n\
        source.example MX 10 mx.source.example\nmx.source.example A 127.0.0.3\n";
    let (setup, port) = Setup::new(
        "listen on 127.0.0.1 port @BACK@ tag DKIM\naccept tagged DKIM for any relay\n\
         accept for any relay via smtp://127.0.0.1:@PROXY@\n",
    )
    .zone(zone);
    let offset = port - 25;
    let free = || loop {
        let port = ports::free();
        if port > offset {
            return port;
        }
    };
    let (back, way_in) = (free(), free());
    let setup = setup.with("@BACK@", back - offset).with("@PROXY@", way_in - offset);
    let waiting = Sink::open_at(SocketAddr::from(([127, 0, 0, 1], way_in)));
    let sink = Sink::open_at(SocketAddr::from(([127, 0, 0, 2], port)));
    let senders = Sink::open_at(SocketAddr::from(([127, 0, 0, 3], port)));
    let server = setup.start();
    let conf = server.dir().join("ringpost.conf");
    assert_eq!(explained(&conf, &server, "DKIM", "u@sink.example"), "relay by MX");
    let to_proxy = format!("relay to 127.0.0.1:{}", way_in - offset);
    assert_eq!(explained(&conf, &server, "", "u@sink.example"), to_proxy);

    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = Ends(&ended);
        scope.spawn(|| proxy(&waiting, SocketAddr::from(([127, 0, 0, 1], back)), &ended));
        let text = format!("{MARK}once\r\nSubject: once\r\n\r\nhello\r\n");
        let mut client = server.client();
        assert_eq!(client.submit("a@source.example", &["u@sink.example", "v@sink.example"], text.as_bytes()).code, 250);
        let received = sink.wait_for(1, SOON).remove(0);
        assert_eq!((received.from.as_str(), received.to.len()), ("a@source.example", 2));
        assert!(has(&received, SIGNATURE) && has(&received, text.as_bytes()));
        wait_until("nothing is left", SOON, || server.queue().is_empty());
        assert_eq!((waiting.count(), sink.count()), (1, 1), "it passed the proxy once, and left once");

        // A bounce of what was tagged is a new message, without the tag: it goes through the proxy, too.
        sink.script(Script { end: Some("554 5.7.1 no".into()), ..Script::default() });
        assert_eq!(client.submit("a@source.example", &["u@sink.example"], text.as_bytes()).code, 250);
        let bounce = senders.wait_for(1, SOON).remove(0);
        assert!(bounce.from.is_empty() && has(&bounce, SIGNATURE));
        wait_until("nothing is left", SOON, || server.queue().is_empty());
        assert_eq!((waiting.count(), sink.count(), senders.count()), (3, 1, 1));
    });
}

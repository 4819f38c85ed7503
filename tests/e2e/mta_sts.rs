//! MTA-STS (RFC 8461): what the policy of a domain demands is obeyed, kept over restarts and until it ends, and fetched again
//! when its number changes.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::support::authority::{Authority, Kind};
use crate::support::secure_sink::{Offer, SecureSink};
use crate::support::wait::wait_for;
use crate::support::web::Web;
use crate::support::{Server, Setup, wait_until};

const SOON: Duration = Duration::from_secs(60);
const RULES: &str = "action \"out\" relay\nmatch for any action \"out\"\n";

fn mail(number: usize, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 3, 0, number as u8 + 1), port))
}

fn web(number: usize, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 3, 1, number as u8 + 1), port))
}

fn policy(mode: &str, host: &str) -> String {
    format!("version: STSv1\nmode: {mode}\nmx: {host}\nmax_age: 86400\n")
}

fn trusting(setup: Setup, authority: &Authority) -> Setup {
    let file = setup.dir().join("authority.pem");
    fs::write(&file, authority.pem()).expect("written");
    setup.environment("SSL_CERT_FILE", &file.display().to_string())
}

fn send(server: &Server, sender: &str, domain: &str) {
    let sender = format!("{sender}@source.example");
    let reply = server.client().submit(&sender, &[&format!("r@{domain}")], b"Subject: x\r\n\r\nhello\r\n");
    assert_eq!(reply.code, 250, "{reply:?}");
}

/// What has become of the mail of these senders: `clear`, `tls`, or why it waits.
fn outcomes(server: &Server, senders: &[&str], sinks: &[SecureSink]) -> BTreeMap<String, String> {
    wait_for("everything is delivered or has failed once", SOON, || {
        let mut found = BTreeMap::new();
        for (sender, encrypted) in sinks.iter().flat_map(SecureSink::messages) {
            found.insert(sender, if encrypted { "tls" } else { "clear" }.to_owned());
        }
        for waiting in server.queue() {
            if waiting.state == "deferred" && !waiting.reason.is_empty() {
                found.insert(waiting.sender.split('@').next().expect("a part").to_owned(), waiting.reason);
            }
        }
        senders.iter().all(|sender| found.contains_key(*sender)).then_some(found)
    })
}

#[test]
fn s66_policies_of_domains_are_obeyed() {
    let authority = Authority::new();
    let good = |host: &str| policy("enforce", &format!("mx.{host}.example"));
    let any = |mode: &str| policy(mode, "elsewhere.example");
    let redirect = "301 Moved\r\nLocation: https://mta-sts.good.example/.well-known/mta-sts.txt";
    // Domain; certificate of its web server, what that says, how; certificate of its mail server, what that offers; outcome.
    let plain = "200 OK\r\nContent-Type: text/plain; charset=utf-8";
    let domains = [
        ("good", Kind::Good, good("good"), plain, Kind::Good, Offer::StartTls, "tls"),
        ("wildcard", Kind::Good, policy("enforce", "*.wildcard.example"), plain, Kind::Good, Offer::StartTls, "tls"),
        ("othermx", Kind::Good, any("enforce"), plain, Kind::Good, Offer::StartTls, "does not name mx.othermx.example"),
        ("badmail", Kind::Good, good("badmail"), plain, Kind::SelfSigned, Offer::StartTls, "certificate"),
        ("stripped", Kind::Good, good("stripped"), plain, Kind::Good, Offer::Nothing, "does not offer STARTTLS"),
        ("testing", Kind::Good, any("testing"), plain, Kind::SelfSigned, Offer::Nothing, "clear"),
        ("none", Kind::Good, any("none"), plain, Kind::Good, Offer::Nothing, "clear"),
        ("badweb", Kind::SelfSigned, any("enforce"), plain, Kind::Good, Offer::Nothing, "clear"),
        ("moved", Kind::Good, any("enforce"), redirect, Kind::Good, Offer::Nothing, "clear"),
        ("page", Kind::Good, any("enforce"), "200 OK\r\nContent-Type: text/html", Kind::Good, Offer::Nothing, "clear"),
        ("large", Kind::Good, good("large") + &" ".repeat(70_000), plain, Kind::Good, Offer::Nothing, "clear"),
        ("wrong", Kind::Good, "mode: enforce".to_owned(), plain, Kind::Good, Offer::Nothing, "clear"),
    ];
    let mut zone = String::new();
    for (number, (name, ..)) in domains.iter().enumerate() {
        zone += &format!("{name}.example MX 10 mx.{name}.example\nmx.{name}.example A {}\n", mail(number, 0).ip());
        zone += &format!("mta-sts.{name}.example A {}\n", web(number, 0).ip());
        zone += &format!("_mta-sts.{name}.example TXT \"v=STSv1; id=1;\"\n");
    }
    // A record, and nobody at the web server's address; no address at all; no record, and a policy that nobody asks for.
    let last = domains.len();
    for (name, web) in [("unreachable", "127.3.2.1"), ("unnamed", "")] {
        zone += &format!("{name}.example MX 10 mx.{name}.example\nmx.{name}.example A {}\n", mail(last, 0).ip());
        zone += &format!("_mta-sts.{name}.example TXT \"v=STSv1; id=1;\"\n");
        if !web.is_empty() {
            zone += &format!("mta-sts.{name}.example A {web}\n");
        }
    }
    let (setup, port) = Setup::new(RULES).zone(&zone);
    let setup = trusting(setup, &authority);
    let (mut sinks, mut webs) = (vec![], vec![]);
    for (number, (name, of_web, text, head, of_mail, offer, _)) in domains.iter().enumerate() {
        let config = authority.server(&format!("mta-sts.{name}.example"), *of_web);
        let server = Web::open(web(number, port + 443 - 25), config, text);
        server.say(head, text);
        webs.push(server);
        let config = authority.server(&format!("mx.{name}.example"), *of_mail);
        sinks.push(SecureSink::open(mail(number, port), *offer, config));
    }
    sinks.push(SecureSink::open(mail(last, port), Offer::Nothing, authority.server("x.example", Kind::Good)));
    let server = setup.start();
    let mut names: Vec<&str> = domains.iter().map(|domain| domain.0).collect();
    names.extend(["unreachable", "unnamed"]);
    for name in &names {
        // Two messages at once: a policy is fetched once.
        send(&server, name, &format!("{name}.example"));
        send(&server, &format!("{name}-again"), &format!("{name}.example"));
    }
    let found = outcomes(&server, &names, &sinks);
    for (name, .., expected) in &domains {
        let is = &found[*name];
        let fits = if *expected == "tls" || *expected == "clear" { is == expected } else { is.contains(expected) };
        assert!(fits, "{name}: {is:?} is not {expected:?}");
    }
    assert_eq!((&found["unreachable"][..], &found["unnamed"][..]), ("clear", "clear"));
    for (number, sink) in sinks.iter().enumerate() {
        let demands = domains.get(number).is_some_and(|domain| domain.6 != "clear");
        assert!(sink.mails().iter().all(|(_, encrypted)| *encrypted || !demands), "{:?}", domains[number].0);
    }
    assert!(webs.iter().zip(&domains).all(|(web, domain)| web.asked() == usize::from(domain.1 == Kind::Good)));
    // The log is written beside the work.
    wait_until("all is told", SOON, || {
        let log = server.printed();
        log.contains("the MTA-STS policy of unreachable.example cannot be used: https://mta-sts")
            && log.contains("the answer is 301")
            && log.lines().any(|line| line.contains("to=mx.good.example[") && line.contains(" verify=ok"))
    });
}

#[test]
fn policies_outlive_a_restart_and_end_when_they_say() {
    let authority = Authority::new();
    let zone = |id: u32| {
        format!(
            "d.example MX 10 mx.d.example\nmx.d.example A {}\nmta-sts.d.example A {}\n\
             _mta-sts.d.example TXT \"v=STSv1; id={id};\"\n",
            mail(50, 0).ip(),
            web(50, 0).ip()
        )
    };
    let (setup, port) = Setup::new(RULES).zone(&zone(1));
    let setup = trusting(setup, &authority);
    let config = authority.server("mta-sts.d.example", Kind::Good);
    let at = web(50, port + 443 - 25);
    let mut server = setup.prepare();
    let sinks = [SecureSink::open(mail(50, port), Offer::Nothing, authority.server("mx.d.example", Kind::Good))];
    let attempt = |server: &mut Server, sender: &str| {
        server.start();
        send(server, sender, "d.example");
        let outcome = outcomes(server, &[sender], &sinks).remove(sender).expect("there");
        server.stop();
        outcome
    };

    let first = Web::open(at, config.clone(), &policy("enforce", "mx.d.example"));
    assert!(attempt(&mut server, "first").contains("does not offer STARTTLS"));
    assert_eq!(first.asked(), 1);
    // The same number: nobody is asked, and the policy holds.
    assert!(attempt(&mut server, "kept").contains("does not offer STARTTLS"));
    assert_eq!(first.asked(), 1);
    drop(first);
    // Another number, and nobody there to ask: it holds until its end.
    fs::write(server.dir().join("zone"), zone(2)).expect("written");
    assert!(attempt(&mut server, "away").contains("does not offer STARTTLS"));
    let file = server.state.join("mta-sts/d.example");
    let text = fs::read_to_string(&file).expect("kept");
    let (before, after) = text.split_once("\"fetched\":").expect("a time");
    let (_, after) = after.split_once(',').expect("more");
    fs::write(&file, format!("{before}\"fetched\":1000,{after}")).expect("written");
    assert_eq!(attempt(&mut server, "expired"), "clear");
    // It is enforced again, until the number says that it is not.
    let again = Web::open(at, config, &policy("enforce", "mx.d.example"));
    assert!(attempt(&mut server, "again").contains("does not offer STARTTLS"));
    again.say("200 OK\r\nContent-Type: text/plain", &policy("none", "mx.d.example"));
    assert!(attempt(&mut server, "still").contains("does not offer STARTTLS"));
    assert_eq!(again.asked(), 1);
    fs::write(server.dir().join("zone"), zone(3)).expect("written");
    assert_eq!(attempt(&mut server, "none"), "clear");
    assert_eq!(again.asked(), 2);
}

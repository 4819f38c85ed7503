//! DANE (RFC 7672) against a zone that Knot has signed: what its records say of a server's certificate is obeyed where DNSSEC
//! vouches for them, and nothing is sent where it says that they are forged.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::support::authority::{Authority, Kind};
use crate::support::secure_sink::{Offer, SecureSink};
use crate::support::signed_zone::{OwnCertificate, SignedZone, hex};
use crate::support::wait::wait_for;
use crate::support::{Server, Setup, wait_until};

const SOON: Duration = Duration::from_secs(60);
/// Mail for `HOST.may.test` goes by MX alone; for `HOST.must.test` with `tls dane`.
const RULES: &str = "action \"must\" relay tls dane\naction \"may\" relay\n\
    match for domain { \"*.must.test\", \"*.must.plain\" } action \"must\"\nmatch for any action \"may\"\n";

fn address(number: usize, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 2, 0, number as u8 + 1), port))
}

/// What became of a message to each domain: `clear`, `tls`, or why it waits.
fn outcomes(server: &Server, domains: &[String], sinks: &[SecureSink]) -> BTreeMap<String, String> {
    for domain in domains {
        // The sender says what the message is about, for that is what sinks tell.
        let sender = format!("{domain}@source.example");
        let reply = server.client().submit(&sender, &[&format!("r@{domain}")], b"Subject: x\r\n\r\nhello\r\n");
        assert_eq!(reply.code, 250, "{reply:?}");
    }
    wait_for("everything is delivered or has failed once", SOON, || {
        let mut found = BTreeMap::new();
        for (domain, encrypted) in sinks.iter().flat_map(SecureSink::messages) {
            found.insert(domain, if encrypted { "tls" } else { "clear" }.to_owned());
        }
        for waiting in server.queue() {
            if waiting.state == "deferred" && !waiting.reason.is_empty() {
                found.insert(waiting.sender.split('@').next().expect("a part").to_owned(), waiting.reason);
            }
        }
        (found.len() == domains.len()).then_some(found)
    })
}

#[test]
fn s66_what_dnssec_vouches_for_is_obeyed_and_what_is_forged_is_not_fallen_back_from() {
    let authority = Authority::new();
    let own = OwnCertificate::new("whatever.test");
    let wrong = format!("3 1 1 {}", hex(&[7; 32]));
    let genuine = format!("3 1 1 {}", hex(&[8; 32])).to_uppercase();
    let by_authority = format!("2 0 0 {}", hex(&authority.der()));
    // Host, its TLSA record, what its server does, and what becomes of mail that may go otherwise and of mail that may not.
    let hosts: Vec<(&str, Option<String>, Offer, &str, &str)> = vec![
        ("key", Some(own.by_key(3)), Offer::StartTls, "tls", "tls"),
        ("whole", Some(own.whole()), Offer::StartTls, "tls", "tls"),
        ("authority", Some(by_authority), Offer::StartTls, "tls", "tls"),
        ("stripped", Some(own.by_key(3)), Offer::Nothing, "does not offer STARTTLS", "does not offer STARTTLS"),
        ("mismatch", Some(wrong), Offer::StartTls, "not one that the TLSA records", "not one that the TLSA records"),
        ("forged", Some(genuine.clone()), Offer::StartTls, "forged", "forged"),
        ("silent", None, Offer::StartTls, "DANE: the TLSA records of mx.silent.test", "DANE: the TLSA records of"),
        ("unusable", Some(own.by_key(1)), Offer::StartTls, "tls", "none of the TLSA records of mx.unusable.test is"),
        ("unusableclear", Some(own.by_key(1)), Offer::Nothing, "does not offer STARTTLS", "is usable"),
        ("none", None, Offer::Nothing, "clear", "mx.none.test has no TLSA records"),
    ];
    let (setup, port) = Setup::new(RULES).zone("");
    let (mut root, mut sinks, mut domains) =
        ("plain. NS ns.plain.\nns.plain. A 127.0.0.1\n".to_owned(), vec![], vec![]);
    for (number, (host, record, offer, ..)) in hosts.iter().enumerate() {
        root += &format!("mx.{host}.test. A {}\n", address(number, 0).ip());
        for way in ["may", "must"] {
            root += &format!("{host}.{way}.test. MX 10 mx.{host}.test.\n");
            domains.push(format!("{host}.{way}.test"));
        }
        if let Some(record) = record {
            root += &format!("_{port}._tcp.mx.{host}.test. TLSA {record}\n");
        }
        let config = match *host {
            "authority" => authority.server("mx.authority.test", Kind::Good),
            _ => own.server.clone(),
        };
        sinks.push(SecureSink::open(address(number, port), *offer, config));
    }
    // Its own exchanger, which DNSSEC vouches for, too: that there is no MX.
    let bare = "bare.must.test";
    root += &format!("{bare}. A {}\n_{port}._tcp.{bare}. TLSA {}\n", address(60, 0).ip(), own.by_key(3));
    domains.push(bare.to_owned());
    sinks.push(SecureSink::open(address(60, port), Offer::StartTls, own.server.clone()));
    let silent = "_tcp.mx.silent.test.";
    root += &format!("{silent} NS ns.test.\n");
    // What nobody has signed, though it has a record: for no certificate that is there.
    let plain = format!(
        "ns A 127.0.0.1\nmx A {}\none.may MX 10 mx\none.must MX 10 mx\n_{port}._tcp.mx TLSA 3 1 1 {}\n",
        address(hosts.len(), 0).ip(),
        hex(&[9; 32])
    );
    domains.extend(["one.may.plain".to_owned(), "one.must.plain".to_owned()]);
    sinks.push(SecureSink::open(address(hosts.len(), port), Offer::StartTls, own.server.clone()));
    let signed = genuine.split(' ').next_back().expect("a digest").to_owned();
    let forged = own.by_key(3).split(' ').next_back().expect("a digest").to_uppercase();
    let forgery = [(&signed[..], &forged[..])];
    let zone = SignedZone::serve(setup.dir(), &root, &[("plain.", &plain)], &[silent], &forgery);
    std::fs::write(setup.dir().join("zone"), zone.seam()).expect("written");
    let server = setup.start();

    let found = outcomes(&server, &domains, &sinks);
    for (host, _, _, may, must) in &hosts {
        for (way, expected) in [("may", may), ("must", must)] {
            let is = &found[&format!("{host}.{way}.test")];
            let fits = if *expected == "tls" || *expected == "clear" { is == expected } else { is.contains(expected) };
            assert!(fits, "{host}, {way}: {is:?} is not {expected:?}");
        }
    }
    assert_eq!((&found["one.may.plain"][..], &found[bare][..]), ("tls", "tls"));
    assert!(found["one.must.plain"].contains("DNSSEC does not vouch for"), "{}", found["one.must.plain"]);
    // Not even MAIL was said in clear where records demand encryption.
    for sink in &sinks {
        for (domain, encrypted) in sink.mails() {
            assert!(encrypted || domain == "none.may.test", "{domain} was said in clear");
        }
    }
    // The log is written beside the work.
    let is_told = |host: &str| server.printed().contains(&format!("tls    to=mx.{host}["));
    wait_until("all is told", SOON, || ["key.test", "whole.test", "authority.test"].iter().all(|host| is_told(host)));
    let log = server.printed();
    let about = |host: &str| {
        let mark = format!("tls    to=mx.{host}[");
        log.lines().find(|line| line.contains(&mark)).unwrap_or_default().to_owned()
    };
    for host in ["key.test", "whole.test", "authority.test"] {
        assert!(about(host).contains(" verify=dane"), "{host}: {log}");
    }
    for host in ["unusable.test", "plain"] {
        assert!(about(host).contains(" verify=failed"), "{host}: {log}");
    }
}

#[test]
fn resolvers_that_cannot_be_validated_are_told_and_mail_goes_out_without() {
    let own = OwnCertificate::new("whatever.test");
    let (setup, port) = Setup::new(RULES).zone("");
    let sink = SecureSink::open(address(40, port), Offer::StartTls, own.server.clone());
    let root = format!(
        "mx.test. A {}\nin.may.test. MX 10 mx.test.\nin.must.test. MX 10 mx.test.\n_{port}._tcp.mx.test. TLSA {}\n",
        address(40, 0).ip(),
        own.by_key(3)
    );
    let zone = SignedZone::serve(setup.dir(), &root, &[], &[], &[]);
    // The keys of somebody else.
    let other = tempfile::tempdir().expect("a directory");
    let stranger = SignedZone::serve(other.path(), "", &[], &[], &[]);
    let (ours, theirs) = (zone.seam(), stranger.seam());
    let seam = format!("{}\n{}\n", ours.lines().next().expect("two"), theirs.lines().nth(1).expect("two"));
    std::fs::write(setup.dir().join("zone"), seam).expect("written");
    let server = setup.start();
    let found = outcomes(&server, &["in.may.test".to_owned(), "in.must.test".to_owned()], &[sink]);
    assert_eq!(found["in.may.test"], "tls");
    assert!(found["in.must.test"].contains("the resolvers do not pass on"), "{}", found["in.must.test"]);
    wait_until("it is told", SOON, || server.printed().contains("do not pass on what DNSSEC needs"));
}

#[test]
fn s66_a_shape_demands_dane_of_the_sites_that_it_is_for_whatever_the_action_says() {
    let own = OwnCertificate::new("whatever.test");
    let rules = "shaping byname domain { \"*.must.test\" } { tls dane }\nshaping byhost mx { \"mx.strict.test\" } { tls dane }\n\
        action \"enc\" relay tls no-verify\naction \"host\" relay host \"smtp://mx.none.test\"\naction \"may\" relay\n\
        match for domain \"*.enc.must.test\" action \"enc\"\nmatch for domain { \"*.host.must.test\", \"*.host.test\" } action \"host\"\n\
        match for any action \"may\"\n";
    let (setup, port) = Setup::new(rules).zone("");
    let (mut root, mut sinks) = (String::new(), vec![]);
    for (number, host) in ["key", "none", "strict"].iter().enumerate() {
        let number = 50 + number;
        root += &format!("mx.{host}.test. A {}\n", address(number, 0).ip());
        sinks.push(SecureSink::open(address(number, port), Offer::StartTls, own.server.clone()));
    }
    root += &format!("_{port}._tcp.mx.key.test. TLSA {}\n", own.by_key(3));
    // Where mail goes, and what becomes of it.
    let cases = [
        ("a.may.test", "key", "tls"),
        ("b.may.test", "none", "tls"),
        ("a.must.test", "key", "tls"),
        ("b.must.test", "none", "mx.none.test has no TLSA records"),
        ("a.enc.must.test", "key", "tls"),
        ("b.enc.must.test", "none", "mx.none.test has no TLSA records"),
        ("x.host.test", "", "tls"),
        ("x.host.must.test", "", "mx.none.test has no TLSA records"),
        ("c.may.test", "strict", "mx.strict.test has no TLSA records"),
    ];
    for (domain, host, _) in cases.iter().filter(|(_, host, _)| !host.is_empty()) {
        root += &format!("{domain}. MX 10 mx.{host}.test.\n");
    }
    let zone = SignedZone::serve(setup.dir(), &root, &[], &[], &[]);
    std::fs::write(setup.dir().join("zone"), zone.seam()).expect("written");
    let server = setup.start();
    let domains: Vec<String> = cases.iter().map(|(domain, ..)| (*domain).to_owned()).collect();
    let found = outcomes(&server, &domains, &sinks);
    for (domain, _, expected) in cases {
        let is = &found[domain];
        assert!(if expected == "tls" { is == expected } else { is.contains(expected) }, "{domain}: {is:?}");
    }
    // What goes there goes to whom DNSSEC says, and not by chance.
    wait_until("it is told", SOON, || {
        server.printed().lines().any(|line| line.contains("tls    to=mx.key.test[") && line.contains(" verify=dane"))
    });
}

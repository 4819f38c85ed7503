//! The way out, encrypted: what each scheme means against servers of every kind, and which certificates are believed.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::support::authority::{Authority, Kind};
use crate::support::secure_sink::{Offer, SecureSink};
use crate::support::wait::wait_for;
use crate::support::wait_until;
use crate::support::{Server, Setup};

const SOON: Duration = Duration::from_secs(30);
/// Name of a scheme here, and in a URL.
const SCHEMES: [(&str, &str); 5] =
    [("smtp", "smtp"), ("notls", "smtp+notls"), ("starttls", "smtp+tls"), ("smtps", "smtps"), ("ssl", "ssl")];

/// A server that knows the authority, and for each host and each scheme has a domain `SCHEME.HOST.example`, relayed there
/// with SCHEME. Hosts are at 127.1.0.1 and so on; the port for SMTP of mail exchangers, and the one for SMTPS.
fn server(authority: &Authority, hosts: &[&str], extra: &str) -> (Server, u16, u16) {
    let mut zone = String::new();
    let mut rules = String::new();
    for (number, host) in hosts.iter().enumerate() {
        zone += &format!("mx.{host}.example. A {}\n", address(number, 0).ip());
        for (name, scheme) in SCHEMES {
            rules += &format!("action \"{name}-{host}\" relay host \"{scheme}://mx.{host}.example\"{extra}\n");
            rules += &format!("match for domain \"{name}.{host}.example\" action \"{name}-{host}\"\n");
        }
    }
    let (setup, port) = Setup::new(rules).zone(&zone);
    let file = setup.dir().join("authority.pem");
    std::fs::write(&file, authority.pem()).expect("written");
    let setup = setup.environment("SSL_CERT_FILE", &file.display().to_string());
    (setup.start(), port, port + 465 - 25)
}

fn address(number: usize, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 1, 0, number as u8 + 1), port))
}

/// One message for each scheme and host; then what became of each: `clear`, `tls`, or the reason why it waits.
fn outcomes(server: &Server, hosts: &[&str], sinks: &[(usize, SecureSink)]) -> BTreeMap<(String, String), String> {
    for host in hosts {
        for (scheme, _) in SCHEMES {
            let to = format!("r@{scheme}.{host}.example");
            let reply =
                server.client().submit(&format!("{scheme}@source.example"), &[&to], b"Subject: x\r\n\r\nhello\r\n");
            assert_eq!(reply.code, 250, "{reply:?}");
        }
    }
    wait_for("everything is delivered or has failed once", SOON, || {
        let mut found = BTreeMap::new();
        for (number, sink) in sinks {
            for (scheme, encrypted) in sink.messages() {
                let how = if encrypted { "tls" } else { "clear" };
                found.insert((hosts[*number].to_owned(), scheme), how.to_owned());
            }
        }
        for waiting in server.queue() {
            let domain = waiting.recipient.split_once('@').expect("an address").1.to_owned();
            let (scheme, rest) = domain.split_once('.').expect("two parts");
            let host = rest.split('.').next().expect("a host").to_owned();
            if waiting.state == "deferred" && !waiting.reason.is_empty() {
                found.insert((host, scheme.to_owned()), waiting.reason);
            }
        }
        (found.len() == hosts.len() * SCHEMES.len()).then_some(found)
    })
}

#[test]
fn s74_five_schemes_have_five_meanings() {
    let authority = Authority::new();
    let hosts = ["nothing", "starttls", "refuses", "garbles", "hangsup", "injects", "implicit"];
    let offers = [
        Offer::Nothing,
        Offer::StartTls,
        Offer::Refuses,
        Offer::Garbles,
        Offer::HangsUp,
        Offer::Injects,
        Offer::Implicit,
    ];
    let (server, port, secure_port) = server(&authority, &hosts, "");
    let mut sinks = Vec::new();
    for (number, (host, offer)) in hosts.iter().zip(offers).enumerate() {
        let port = if offer == Offer::Implicit { secure_port } else { port };
        let config = authority.server(&format!("mx.{host}.example"), Kind::Good);
        sinks.push((number, SecureSink::open(address(number, port), offer, config)));
    }
    let found = outcomes(&server, &hosts, &sinks);
    let expected = [
        ("nothing", ["clear", "clear", "waits", "waits", "waits"]),
        ("starttls", ["tls", "clear", "tls", "waits", "tls"]),
        ("refuses", ["clear", "clear", "waits", "waits", "waits"]),
        ("garbles", ["clear", "clear", "waits", "waits", "waits"]),
        ("hangsup", ["clear", "clear", "waits", "waits", "waits"]),
        ("injects", ["waits", "clear", "waits", "waits", "waits"]),
        ("implicit", ["waits", "waits", "waits", "tls", "tls"]),
    ];
    for (host, row) in expected {
        for ((scheme, _), expected) in SCHEMES.iter().zip(row) {
            let found = &found[&(host.to_owned(), (*scheme).to_owned())];
            let is = if found == "clear" || found == "tls" { found } else { "waits" };
            assert_eq!(is, expected, "{scheme} to {host}: {found}");
        }
    }
    let reason = |host: &str, scheme: &str| &found[&(host.to_owned(), scheme.to_owned())];
    assert!(reason("nothing", "starttls").contains("does not offer STARTTLS"), "{}", reason("nothing", "starttls"));
    assert!(reason("refuses", "starttls").contains("454 4.7.0 not now"), "{}", reason("refuses", "starttls"));
    assert!(reason("garbles", "starttls").contains("TLS: "), "{}", reason("garbles", "starttls"));
    assert!(reason("injects", "starttls").contains("before the encryption began"), "{}", reason("injects", "starttls"));
    assert!(reason("nothing", "ssl").contains(&format!("at port {secure_port}")), "{}", reason("nothing", "ssl"));
    // S75: not even MAIL was said in clear where encryption is demanded.
    for (number, sink) in &sinks {
        for (sender, encrypted) in sink.mails() {
            let may = encrypted || sender == "smtp" || sender == "notls";
            assert!(may, "{sender} was said in clear to {}", hosts[*number]);
        }
    }
    wait_until("it is told", SOON, || server.printed().contains("tls    to=mx.starttls.example[127.1.0.2]"));
}

#[test]
fn s75_a_shape_demands_encryption_of_a_site() {
    let authority = Authority::new();
    let domains = ["usual", "encrypted", "verified"];
    let (mut zone, mut rules) = (String::new(), String::new());
    for domain in domains {
        zone += &format!("{domain}.example MX 10 mx.clear.example\n");
        zone += &format!("{domain}.other.example MX 10 mx.self.example\n");
    }
    zone += &format!("mx.clear.example A {}\nmx.self.example A {}\n", address(10, 0).ip(), address(11, 0).ip());
    rules += "shaping encrypted domain { encrypted.example, encrypted.other.example } { tls no-verify }\n\
              shaping verified domain { verified.example, verified.other.example } { tls }\n\
              action out relay\nmatch for any action out\n";
    let (setup, port) = Setup::new(rules).zone(&zone);
    let clear = SecureSink::open(address(10, port), Offer::Nothing, authority.server("mx.clear.example", Kind::Good));
    let signed = authority.server("mx.self.example", Kind::SelfSigned);
    let signed = SecureSink::open(address(11, port), Offer::StartTls, signed);
    let server = setup.start();
    for domain in domains {
        for (sink, rest) in [("clear", "example"), ("self", "other.example")] {
            let (from, to) = (format!("{domain}-{sink}@source.example"), format!("r@{domain}.{rest}"));
            let reply = server.client().submit(&from, &[&to], b"Subject: x\r\n\r\nhello\r\n");
            assert_eq!(reply.code, 250, "{reply:?}");
        }
    }
    let waiting = wait_for("three are delivered and three have failed once", SOON, || {
        let waiting: Vec<(String, String)> = server
            .queue()
            .into_iter()
            .filter(|one| one.state == "deferred" && !one.reason.is_empty())
            .map(|one| (one.recipient, one.reason))
            .collect();
        (waiting.len() == 3 && clear.messages().len() == 1 && signed.messages().len() == 2).then_some(waiting)
    });
    let why = |recipient: &str| waiting.iter().find(|(of, _)| of == recipient).map(|(_, why)| why.as_str());
    for recipient in ["r@encrypted.example", "r@verified.example"] {
        assert!(why(recipient).is_some_and(|why| why.contains("does not offer STARTTLS")), "{waiting:?}");
    }
    assert!(why("r@verified.other.example").is_some_and(|why| why.contains("certificate")), "{waiting:?}");
    assert!(clear.mails().iter().all(|(sender, _)| sender == "usual-clear"), "{:?}", clear.mails());
    assert!(signed.mails().iter().all(|(_, encrypted)| *encrypted), "{:?}", signed.mails());
}

#[test]
fn s66_certificates_are_verified_where_that_is_demanded() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let hosts = ["good", "expired", "othername", "selfsigned", "unknown"];
    let kinds = [Kind::Good, Kind::Expired, Kind::OtherName, Kind::SelfSigned, Kind::Good];
    for spare in [false, true] {
        let (server, port, secure_port) = server(&authority, &hosts, if spare { " tls no-verify" } else { "" });
        let mut sinks = Vec::new();
        for (number, (host, kind)) in hosts.iter().zip(kinds).enumerate() {
            let authority = if *host == "unknown" { &stranger } else { &authority };
            let config = authority.server(&format!("mx.{host}.example"), kind);
            sinks.push((number, SecureSink::open(address(number, port), Offer::StartTls, config.clone())));
            sinks.push((number, SecureSink::open(address(number, secure_port), Offer::Implicit, config)));
        }
        let found = outcomes(&server, &hosts, &sinks);
        for host in hosts {
            for (scheme, _) in SCHEMES {
                let found = &found[&(host.to_owned(), scheme.to_owned())];
                let expected = match scheme {
                    "notls" => "clear",
                    "smtp" => "tls",
                    _ if spare || host == "good" => "tls",
                    _ => "waits",
                };
                let is = if found == "clear" || found == "tls" { found.as_str() } else { "waits" };
                assert_eq!(is, expected, "{scheme} to {host}: {found}");
                assert!(is != "waits" || found.contains("certificate"), "{scheme} to {host}: {found}");
            }
        }
        let log = server.printed();
        let about = |host: &str| {
            log.lines()
                .find(|line| line.contains(&format!("tls    to=mx.{host}.example[")))
                .unwrap_or_default()
                .to_owned()
        };
        assert!(about("good").contains(" verify=ok"), "{log}");
        for host in &hosts[1..] {
            assert!(about(host).contains(" verify=failed reason=\""), "{host}: {log}");
        }
    }
}

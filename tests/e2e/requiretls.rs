//! REQUIRETLS and `TLS-Required: No` (RFC 8689): what a sender wishes counts for the whole way, as far as it goes through us.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::support::authority::{Authority, Kind};
use crate::support::secure_sink::{Offer, SecureSink};
use crate::support::tls::Encrypted;
use crate::support::web::Web;
use crate::support::{Client, Server, Setup, wait_until};

const SOON: Duration = Duration::from_secs(60);

fn address(number: usize, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 4, 0, number as u8 + 1), port))
}

/// A server that takes TLS and relays by the rules.
fn setup(authority: &Authority, rules: &str, zone: &str) -> (Setup, u16) {
    let listen = "shards 2\nstore { segment 16M, spare 2 }\nlisten on 127.0.0.1 port @SMTP@ tls\n\
                  http listen on 127.0.0.1 port @HTTP@\n";
    // The way back is in clear: a report of a message that requires TLS does not go there.
    let back = "action \"back\" relay host \"smtp+notls://127.0.0.1\"\n\
                match for domain \"source.example\" action \"back\"\n";
    let (setup, port) = Setup::whole(format!("{listen}{back}{rules}")).zone(zone);
    let file = setup.dir().join("authority.pem");
    fs::write(&file, authority.pem()).expect("written");
    (setup.environment("SSL_CERT_FILE", &file.display().to_string()), port)
}

/// A message with REQUIRETLS.
fn send_required(server: &Server, sender: &str, to: &str) {
    let mut client = Encrypted::start(server.smtp, "localhost").expect("TLS");
    assert!(client.say("EHLO client.example").contains("250-REQUIRETLS\r\n"));
    let said = client.say(&format!("MAIL FROM:<{sender}@source.example> REQUIRETLS"));
    assert!(said.starts_with("250"), "{said}");
    assert!(client.say(&format!("RCPT TO:<{to}>")).starts_with("250"));
    assert!(client.say("DATA").starts_with("354"));
    let said = client.say("Subject: x\r\n\r\nhello\r\n.");
    assert!(said.starts_with("250"), "{said}");
}

#[test]
fn requiretls_is_offered_and_taken_under_tls_alone() {
    let authority = Authority::new();
    let (setup, _) = setup(&authority, "action \"none\" discard\nmatch for any action \"none\"\n", "");
    let server = setup.start();
    let mut plain = Client::connect(server.smtp);
    plain.reply();
    let offered = plain.say("EHLO client.example");
    assert!(!format!("{offered:?}").contains("REQUIRETLS"), "{offered:?}");
    assert!(plain.say("MAIL FROM:<a@source.example> REQUIRETLS").starts_with("530 5.7.10"));
    send_required(&server, "a", "b@anywhere.example");
    let mut client = Encrypted::start(server.smtp, "localhost").expect("TLS");
    client.say("EHLO client.example");
    for wrong in ["REQUIRETLS=yes", "REQUIRETLS REQUIRETLS"] {
        let said = client.say(&format!("MAIL FROM:<a@source.example> {wrong}"));
        assert!(said.starts_with("501"), "{wrong}: {said}");
    }
}

#[test]
fn mail_that_requires_tls_goes_to_those_alone_who_promise_it_and_are_known() {
    let authority = Authority::new();
    let hosts = ["promises", "promisesnot", "stranger", "clear"];
    let mut zone = String::new();
    for (number, host) in hosts.iter().enumerate() {
        zone += &format!("mx.{host}.example A {}\n", address(number, 0).ip());
    }
    // Exchangers of domains: of one that has a policy, and of one about which nobody says anything.
    zone += "policy.example MX 10 mx.promises.example\n_mta-sts.policy.example TXT \"v=STSv1; id=1\"\n";
    zone += &format!("mta-sts.policy.example A {}\nunknown.example MX 10 mx.promises.example\n", address(9, 0).ip());
    let mut rules = String::new();
    for host in &hosts[..3] {
        rules += &format!("action \"{host}\" relay host \"smtp://mx.{host}.example\"\n");
        rules += &format!("match for domain \"{host}.example\" action \"{host}\"\n");
    }
    rules += "action \"clear\" relay host \"smtp+notls://mx.clear.example\"\n\
              match for domain \"clear.example\" action \"clear\"\naction \"mx\" relay\nmatch for any action \"mx\"\n";
    let (setup, port) = setup(&authority, &rules, &zone);
    let good = |host: &str| authority.server(&format!("mx.{host}.example"), Kind::Good);
    let sinks = [
        SecureSink::open(address(0, port), Offer::RequireTls, good("promises")),
        SecureSink::open(address(1, port), Offer::StartTls, good("promisesnot")),
        SecureSink::open(
            address(2, port),
            Offer::RequireTls,
            authority.server("mx.stranger.example", Kind::SelfSigned),
        ),
        SecureSink::open(address(3, port), Offer::Nothing, good("clear")),
    ];
    let policy = "version: STSv1\nmode: testing\nmx: *.promises.example\nmx: mx.promises.example\nmax_age: 86400\n";
    let of_web = authority.server("mta-sts.policy.example", Kind::Good);
    let _web = Web::open(address(9, port + 443 - 25), of_web, policy);
    let server = setup.start();
    for domain in ["promises", "policy", "promisesnot", "clear", "unknown", "stranger"] {
        send_required(&server, domain, &format!("r@{domain}.example"));
    }
    wait_until("two are delivered, and one waits for a better certificate", SOON, || {
        let waits = |one: &crate::support::cli::Listed| one.state == "deferred" && one.reason.contains("certificate");
        sinks[0].messages().len() == 2 && server.queue().iter().any(waits) && server.queue().len() == 1
    });
    let mut taken = sinks[0].commands();
    taken.sort();
    assert_eq!(taken.len(), 2);
    assert!(taken[0].starts_with("MAIL FROM:<policy@") && taken[1].starts_with("MAIL FROM:<promises@"), "{taken:?}");
    assert!(taken.iter().all(|command| command.ends_with(" REQUIRETLS")), "{taken:?}");
    assert!(sinks[1..].iter().all(|sink| sink.mails().is_empty()));
    // The log is written beside the work.
    wait_until("all is told", SOON, || server.printed().matches("result=PermFail").count() >= 4);
    let log = server.printed();
    for (domain, why) in [
        ("promisesnot", "the next server does not offer REQUIRETLS"),
        ("clear", "its way here has a host without"),
        ("unknown", "neither DNSSEC nor an MTA-STS policy vouches for"),
    ] {
        let about = format!("to=<r@{domain}.example>");
        let line = log.lines().find(|line| line.contains(&about) && line.contains("result=")).unwrap_or_default();
        assert!(line.contains(why) && line.contains("dsn=5.7.30"), "{domain}: {line}\n{log}");
    }
    let about = "to=<clear@source.example>";
    let report = log.lines().find(|line| line.contains(about) && line.contains("result=")).unwrap_or_default();
    assert!(report.contains("result=PermFail") && report.contains("dsn=5.7.30"), "{report}\n{log}");
}

#[test]
fn the_wish_outlives_a_crash() {
    let authority = Authority::new();
    let zone = format!("mx.later.example A {}\n", address(20, 0).ip());
    let rules = "action \"out\" relay host \"smtp://mx.later.example\"\nmatch for any action \"out\"\n";
    let (setup, port) = setup(&authority, rules, &zone);
    let mut server = setup.start();
    send_required(&server, "a", "r@later.example");
    wait_until("nobody is there", SOON, || server.queue().iter().any(|one| one.state == "deferred"));
    server.kill9();
    let config = authority.server("mx.later.example", Kind::Good);
    let sink = SecureSink::open(address(20, port), Offer::StartTls, config);
    server.start();
    server.retry();
    wait_until("it is given up", SOON, || server.printed().contains("does not offer REQUIRETLS"));
    assert!(sink.mails().is_empty());
    wait_until("nothing is left", SOON, || server.queue().is_empty());
}

#[test]
fn who_waives_tls_is_not_held_up_by_the_policy_of_others() {
    let authority = Authority::new();
    let zone = format!(
        "d.example MX 10 mx.d.example\nmx.d.example A {}\nmta-sts.d.example A {}\n\
         _mta-sts.d.example TXT \"v=STSv1; id=1;\"\n",
        address(30, 0).ip(),
        address(31, 0).ip()
    );
    let (setup, port) = setup(&authority, "action \"mx\" relay\nmatch for any action \"mx\"\n", &zone);
    let sink = SecureSink::open(address(30, port), Offer::Nothing, authority.server("mx.d.example", Kind::Good));
    let policy = "version: STSv1\nmode: enforce\nmx: mx.d.example\nmax_age: 86400\n";
    let of_web = authority.server("mta-sts.d.example", Kind::Good);
    let _web = Web::open(address(31, port + 443 - 25), of_web, policy);
    let server = setup.start();
    let send = |sender: &str, field: &str| {
        let text = format!("Subject: x\r\n{field}\r\nhello\r\n");
        let from = format!("{sender}@source.example");
        assert_eq!(server.client().submit(&from, &["r@d.example"], text.as_bytes()).code, 250);
    };
    send("obeys", "");
    send("waives", "TLS-Required: No\r\n");
    wait_until("one waits, the other is delivered", SOON, || {
        let waits = server.queue().iter().any(|one| one.reason.contains("does not offer STARTTLS"));
        waits && sink.messages() == [("waives".to_owned(), false)]
    });
    assert!(sink.mails().iter().all(|(sender, _)| sender == "waives"));
}

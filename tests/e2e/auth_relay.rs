//! AUTH at relays: whose credentials are sent, when, and what becomes of mail that has none.

mod scram;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::support::authority::{Authority, Kind};
use crate::support::secure_sink::{Logins, Offer, SecureSink, Tried};
use crate::support::wait::{wait_for, wait_until};
use crate::support::{Server, Setup};
use crate::tables::directory::Slapd;
use crate::tables::matrix;
use crate::tables::stores::Redis;

const SOON: Duration = Duration::from_secs(30);
const SECRET: &str = "s3same-0pen";

/// Hosts `mx.NAME.example` at 127.1.1.1 and so on, and an authority that the server believes.
struct World {
    authority: Authority,
    server: Server,
    /// That of SMTP at the hosts.
    port: u16,
}

impl World {
    /// What `make` puts into the directory is there before the server starts; it says what is in front of the rules.
    fn new(hosts: &[&str], rules: &str, make: impl FnOnce(&std::path::Path) -> String) -> Self {
        let authority = Authority::new();
        let mut zone = String::new();
        for (number, host) in hosts.iter().enumerate() {
            zone += &format!("{host}. A {}\n", address(number, 0).ip());
        }
        let (setup, port) = Setup::new("").zone(&zone);
        let file = setup.dir().join("authority.pem");
        std::fs::write(&file, authority.pem()).expect("written");
        let tables = make(setup.dir());
        let setup = setup.config(whole(&format!("{tables}\n{rules}\n")));
        let setup = setup.environment("SSL_CERT_FILE", &file.display().to_string());
        Self { authority, server: setup.start(), port }
    }

    fn sink(&self, number: usize, host: &str, port: u16, logins: Logins) -> SecureSink {
        self.sink_of(number, port, Offer::StartTls, &self.authority, (host, Kind::Good), logins)
    }

    fn sink_of(
        &self,
        number: usize,
        port: u16,
        offer: Offer,
        authority: &Authority,
        (host, kind): (&str, Kind),
        logins: Logins,
    ) -> SecureSink {
        SecureSink::open_for(address(number, port), offer, authority.server(host, kind), logins)
    }

    fn submit(&self, sender: &str, to: &str) {
        let sender = format!("{sender}@source.example");
        let reply = self.server.client().submit(&sender, &[to], b"Subject: x\r\n\r\nhello\r\n");
        assert_eq!(reply.code, 250, "{reply:?}");
    }

    /// The reason why the one message to `to` waits.
    fn reason(&self, to: &str) -> String {
        wait_for(&format!("mail to {to} waits"), SOON, || {
            let waiting = self.server.queue().into_iter().find(|one| one.recipient == to && !one.reason.is_empty());
            waiting.map(|one| one.reason)
        })
    }
}

fn whole(rules: &str) -> String {
    use crate::support::server::{LISTENERS, SMALL};
    format!("{SMALL}{LISTENERS}smtp limit max-mails 1000000\n{rules}")
}

fn address(number: usize, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 1, 1, number as u8 + 1), port))
}

fn logins(users: &[(&'static str, &'static str)]) -> Logins {
    Logins { offered: "PLAIN LOGIN", users: users.to_vec(), ..Logins::default() }
}

fn tried(user: &str, password: &str) -> Tried {
    Tried { user: user.to_owned(), password: password.to_owned(), encrypted: true }
}

fn author(sender: &str, user: &str) -> (String, String) {
    (sender.to_owned(), user.to_owned())
}

/// P12, P13 and P14 of the grammar.
#[test]
fn s63_credentials_are_those_of_the_label_or_of_the_host() {
    let (p12, p13, p14) = (
        "table creds { mail.poolp.org => gilles:mypasswd }\n\
         accept for any relay via tls+auth://mail.poolp.org:31337 auth <creds>",
        "accept for any relay via tls+auth://label@mail.poolp.org:31337 auth { label => gilles:mypasswd }",
        "table out_auth { bleh => gilles:cleartextpasswd }\n\
         accept for domain poolp.org deliver to maildir\n\
         accept for any relay via tls+auth://bleh@mail.poolp.org auth <out_auth>",
    );
    for (rules, password, port, offered) in [
        (p12, "mypasswd", 31_337, "LOGIN"),
        (p13, "mypasswd", 31_337, "PLAIN"),
        (p14, "cleartextpasswd", 25, "CRAM-MD5 LOGIN PLAIN"),
    ] {
        let world = World::new(&["mail.poolp.org"], rules, |_| String::new());
        let logins = Logins { offered, ..logins(&[("gilles", password)]) };
        let sink = world.sink(0, "mail.poolp.org", world.port - 25 + port, logins);
        world.submit("one", "r@sink.example");
        wait_until("it is there", SOON, || sink.messages().len() == 1);
        assert_eq!(sink.tried(), [tried("gilles", password)], "{rules}");
        assert_eq!(sink.authors(), [author("one", "gilles")]);
        // What it logs in with is nowhere to be read.
        wait_until("it is told", SOON, || world.server.printed().contains("result=Ok"));
        let printed = world.server.printed();
        assert!(!printed.contains(password), "{printed}");
        for page in ["/metrics", "/"] {
            assert!(!world.server.get(page).contains(password), "{page}");
        }
    }
}

#[test]
fn s63_nothing_is_said_before_a_verified_certificate() {
    let hosts = ["good", "selfsigned", "unknown", "nothing", "refuses", "noauth"];
    let name = |host: &str| format!("mx.{host}.example");
    let names = hosts.map(name);
    let mut rules = format!("table creds {{ l => \"gilles:{SECRET}\" }}\n");
    for (kind, extra) in [("strict", ""), ("lax", " tls no-verify")] {
        for host in hosts {
            rules += &format!(
                "action \"{kind}-{host}\" relay host \"ssl://l@mx.{host}.example\"{extra} auth <creds>\n\
                 match for domain \"{kind}.{host}.example\" action \"{kind}-{host}\"\n"
            );
        }
    }
    let world = World::new(&names.each_ref().map(String::as_str), &rules, |_| String::new());
    let stranger = Authority::new();
    let sinks: Vec<SecureSink> = hosts
        .iter()
        .enumerate()
        .map(|(number, host)| {
            let (offer, authority, kind) = match *host {
                "selfsigned" => (Offer::StartTls, &world.authority, Kind::SelfSigned),
                "unknown" => (Offer::StartTls, &stranger, Kind::Good),
                "nothing" => (Offer::Nothing, &world.authority, Kind::Good),
                "refuses" => (Offer::Refuses, &world.authority, Kind::Good),
                _ => (Offer::StartTls, &world.authority, Kind::Good),
            };
            let offered = if *host == "noauth" { "" } else { "PLAIN LOGIN" };
            let logins = Logins { offered, ..logins(&[("gilles", SECRET)]) };
            world.sink_of(number, world.port, offer, authority, (&name(host), kind), logins)
        })
        .collect();
    for kind in ["strict", "lax"] {
        hosts.iter().for_each(|host| world.submit(kind, &format!("r@{kind}.{host}.example")));
    }
    let delivered = |number: usize| {
        let authors: Vec<String> = sinks[number].authors().into_iter().map(|(sender, _)| sender).collect();
        authors
    };
    for (number, host) in hosts.iter().enumerate() {
        for kind in ["strict", "lax"] {
            let good = *host == "good" || kind == "lax" && matches!(*host, "selfsigned" | "unknown");
            if good {
                wait_until(&format!("{kind} to {host} is there"), SOON, || {
                    delivered(number).contains(&kind.to_owned())
                });
                continue;
            }
            let reason = world.reason(&format!("r@{kind}.{host}.example"));
            let expected = match *host {
                "noauth" => "no way to log in",
                "nothing" => "does not offer STARTTLS",
                "refuses" => "454 4.7.0 not now",
                _ => "certificate",
            };
            assert!(reason.contains(expected), "{kind} {host}: {reason}");
        }
        let should = if *host == "good" { 2 } else { usize::from(matches!(*host, "selfsigned" | "unknown")) };
        assert_eq!(sinks[number].tried().len(), should, "{host}");
        assert!(sinks[number].tried().iter().all(|one| one.encrypted), "{host}");
        assert_eq!(sinks[number].mails().len(), should, "{host}: never sent without AUTH");
    }
    assert!(!world.server.printed().contains(SECRET));
}

#[test]
fn s63_without_an_entry_mail_waits_and_a_new_entry_is_used_by_the_next_session() {
    let rules = "action none relay host smtp+tls://missing@mx.a.example auth { other => a:b }\n\
                 action late relay host smtp+tls://late@mx.a.example auth <t>\n\
                 action down relay host smtp+tls://l@mx.a.example auth <broken>\n\
                 match for domain none.example action none\nmatch for domain late.example action late\n\
                 match for domain down.example action down\n";
    let world = World::new(&["mx.a.example"], rules, |dir| {
        let database = dir.join("t.sqlite");
        crate::support::database::sqlite(&database, "create table t (k text, v text)");
        let query = "query_credentials select v from t where k = ?\n";
        std::fs::write(dir.join("t.conf"), format!("dbpath {}\n{query}", database.display())).expect("written");
        let absent = dir.join("absent.sqlite");
        std::fs::write(dir.join("broken.conf"), format!("dbpath {}\n{query}", absent.display())).expect("written");
        format!(
            "table t sqlite:{0}/t.conf cache 0s negative 0s\ntable broken sqlite:{0}/broken.conf timeout 2s\n",
            dir.display()
        )
    });
    let sink = world.sink(0, "mx.a.example", world.port, logins(&[("gilles", SECRET)]));
    for name in ["none", "late", "down"] {
        world.submit(name, &format!("r@{name}.example"));
    }
    assert!(world.reason("r@none.example").contains("`auth` has no entry for the label `missing`"));
    assert!(world.reason("r@late.example").contains("table <t> has no entry for the label `late`"));
    assert!(world.reason("r@down.example").contains("table <broken> cannot be asked"));
    assert_eq!((sink.tried().len(), sink.mails().len()), (0, 0));
    wait_until("it is told", SOON, || world.server.printed().matches("result=TempFail").count() >= 3);
    let printed = world.server.printed();
    for label in ["missing", "late"] {
        let lines = printed.lines().filter(|line| line.contains(&format!("label `{label}`"))).count();
        assert_eq!(lines, 1, "one line with the reason: {printed}");
    }
    let database = world.server.dir().join("t.sqlite");
    crate::support::database::sqlite(&database, &format!("insert into t values ('late', 'gilles:{SECRET}')"));
    world.server.retry();
    wait_until("it is there", SOON, || sink.authors() == [author("late", "gilles")]);
    assert_eq!(sink.tried(), [tried("gilles", SECRET)]);
}

#[test]
fn s63_connections_are_not_shared_between_labels() {
    let rules = "table creds { one => \"ann:pass-one\", two => \"bob:pass-two\" }\n\
        action a relay host smtp+tls://one@mx.a.example auth <creds>\n\
        action b relay host smtp+tls://one@mx.b.example auth <creds>\n\
        action c relay host smtp+tls://two@mx.a.example auth <creds>\n\
        action d relay host smtp+tls://one@mx.a.example auth { one => \"carl:pass-three\" }\n\
        match for domain a.example action a\nmatch for domain b.example action b\n\
        match for domain c.example action c\nmatch for domain d.example action d\n";
    let world = World::new(&["mx.a.example", "mx.b.example"], rules, |_| String::new());
    let users = logins(&[("ann", "pass-one"), ("bob", "pass-two"), ("carl", "pass-three")]);
    let a = world.sink(0, "mx.a.example", world.port, users.clone());
    let b = world.sink(1, "mx.b.example", world.port, users);
    for _ in 0..3 {
        for name in ["a", "b", "c", "d"] {
            world.submit(name, &format!("r@{name}.example"));
        }
    }
    wait_until("all are there", SOON, || a.authors().len() == 9 && b.authors().len() == 3);
    let all: Vec<(String, String)> = [a.authors(), b.authors()].concat();
    for (sender, user) in [("a", "ann"), ("b", "ann"), ("c", "bob"), ("d", "carl")] {
        let of: Vec<&str> = all.iter().filter(|one| one.0 == sender).map(|one| one.1.as_str()).collect();
        assert_eq!(of, [user; 3], "{sender}");
    }
}

#[test]
fn s63_a_refused_login_is_not_repeated_and_bounces_nothing() {
    let rules = |password: &str| {
        format!(
            "action out relay host smtp+tls://l@mx.a.example auth {{ l => \"gilles:{password}\" }}\nmatch for any action out\n"
        )
    };
    let world = World::new(&["mx.a.example"], &rules("outdated-1"), |_| String::new());
    let sink = world.sink(0, "mx.a.example", world.port, logins(&[("gilles", SECRET)]));
    for number in 0..5 {
        world.submit("first", &format!("r{number}@sink.example"));
    }
    for number in 0..5 {
        let reason = world.reason(&format!("r{number}@sink.example"));
        assert!(reason.contains("login refused: label `l`: 535 5.7.8 who are you"), "{reason}");
        assert!(reason.starts_with("451"), "it is not for the sender to mend: {reason}");
    }
    world.submit("second", "later@sink.example");
    world.reason("later@sink.example");
    assert_eq!(sink.tried(), [tried("gilles", "outdated-1")], "an account must not be locked");
    wait_until("it is told", SOON, || world.server.printed().contains("not tried again"));
    let printed = world.server.printed();
    let told = printed.lines().filter(|line| line.contains("warn   relay: mx.a.example[127.1.1.1]")).count();
    assert!(told == 1 && printed.contains("not tried again for some minutes"), "{printed}");
    assert!(!printed.contains("outdated-1"), "{printed}");
    // A server that cannot judge now is tried again as any that is down.
    sink.allow(Logins { reply: Some("454 4.7.0 ask later"), ..logins(&[]) });
    world.server.configure(&whole(&rules(SECRET)));
    world.server.tell(&["reload"]);
    world.server.retry();
    wait_until("it has tried", SOON, || {
        world.server.queue().iter().any(|one| one.reason.contains("454 4.7.0 ask later"))
    });
    sink.allow(logins(&[("gilles", SECRET)]));
    world.server.retry();
    wait_until("all are there", SOON, || sink.authors().len() == 6);
    assert!(world.server.queue().is_empty() && !world.server.printed().contains(SECRET));
}

#[test]
fn s40_a_relay_logs_in_with_what_any_backend_has() {
    let slapd = Slapd::with(&matrix::logins_ldif());
    let redis = Redis::new();
    redis.put(&["set", "c:bleh", "gilles:secret"]);
    let backends = ["static", "file", "db", "sqlite", "ldap", "proc", "redis"];
    let hosts = backends.map(|backend| format!("mx.{backend}.example"));
    let rule = |backend: &str| {
        format!(
            "action {backend} relay host smtps://bleh@mx.{backend}.example auth <{backend}>\n\
             match for domain {backend}.example action {backend}\n"
        )
    };
    let rules = backends.map(rule).concat();
    let world = World::new(&hosts.each_ref().map(String::as_str), &rules, |dir| {
        let mut tables = format!("table redis {}\n", redis.source("password sesame\ncredentials_prefix c:\n"));
        for backend in &backends[..6] {
            let dir = dir.join(backend);
            std::fs::create_dir(&dir).expect("made");
            tables +=
                &matrix::logins(backend, &dir, slapd.port()).replacen("table t ", &format!("table {backend} "), 1);
        }
        tables
    });
    for (number, backend) in backends.iter().enumerate() {
        let port = world.port - 25 + 465;
        let host = (hosts[number].as_str(), Kind::Good);
        let users = logins(&[("gilles", "secret")]);
        let sink = world.sink_of(number, port, Offer::Implicit, &world.authority, host, users);
        world.submit(backend, &format!("r@{backend}.example"));
        wait_until(&format!("it is there: {backend}"), SOON, || sink.authors() == [author(backend, "gilles")]);
        assert_eq!(sink.tried(), [tried("gilles", "secret")]);
    }
}

//! Certificates of clients at our listeners, and ours at other servers: who is let in, what is told of it, who is logged in by it.

mod from_tables;

use std::net::SocketAddr;
use std::time::Duration;

use rcgen::PKCS_ECDSA_P256_SHA256;
use rustls::version::{TLS12, TLS13};

use crate::support::authority::{Authority, Kind, Papers};
use crate::support::database::sqlite;
use crate::support::memory::copies;
use crate::support::secure_sink::{Offer, SecureSink};
use crate::support::server::SMALL;
use crate::support::tls::{Encrypted, config_of, in_days, openssl, pair, pair_until};
use crate::support::{Client, Server, Setup, cli, maildir, ports, wait_until};

/// Everything goes to the Maildir of the test.
const REST: &str =
    "http listen on 127.0.0.1 port @HTTP@\naction \"box\" maildir \"@DIR@/box\"\nmatch for any action \"box\"\n";

/// What clients have: a certificate of the authority that listeners trust, and some that are none.
struct Clients {
    authority: Authority,
    good: Papers,
    expired: Papers,
    stranger: Papers,
    own: Papers,
}

impl Clients {
    fn new() -> Self {
        let authority = Authority::new();
        let names = ["app@poolp.org", "app.example.org"];
        Self {
            good: authority.client(&names, Kind::Good),
            expired: authority.client(&names, Kind::Expired),
            stranger: Authority::new().client(&names, Kind::Good),
            own: authority.client(&names, Kind::SelfSigned),
            authority,
        }
    }

    /// Its authority is `ca staff`, the server's certificate `pki a`.
    fn head(&self, setup: &Setup) -> String {
        pair(setup.dir(), "a", &["a.example"], &PKCS_ECDSA_P256_SHA256);
        std::fs::write(setup.dir().join("staff.pem"), self.authority.pem()).expect("written");
        format!("{SMALL}pki a cert \"@DIR@/a.crt\" key \"@DIR@/a.key\"\nca staff cert \"@DIR@/staff.pem\"\n")
    }

    fn all(&self) -> [(&'static str, Option<&Papers>); 5] {
        [
            ("nothing", None),
            ("good", Some(&self.good)),
            ("expired", Some(&self.expired)),
            ("stranger", Some(&self.stranger)),
            ("own", Some(&self.own)),
        ]
    }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn log_has(server: &Server, what: &str) {
    wait_until(what, Duration::from_secs(5), || server.printed().contains(what));
}

#[test]
fn s65_clients_without_a_good_certificate_are_turned_away_where_one_is_required() {
    let clients = Clients::new();
    let implicit = ports::free();
    let setup = Setup::whole("");
    let lines = format!(
        "listen on 127.0.0.1 port @SMTP@ tls-require verify ca staff pki a\n\
         listen on 127.0.0.1 port {implicit} smtps verify ca staff pki a\n{REST}"
    );
    let lines = clients.head(&setup) + &lines;
    let server = setup.config(lines).start();
    for version in [&TLS12, &TLS13] {
        for (what, papers) in clients.all() {
            let config = || config_of(papers, &[version]);
            let met = Encrypted::start_as(server.smtp, "a.example", config());
            let said = met.and_then(|mut met| met.try_say("EHLO client.example"));
            assert_eq!(said.is_ok(), what == "good", "STARTTLS with {what}: {said:?}");
            let met = Encrypted::at_once_as(at(implicit), "a.example", config());
            assert_eq!(met.is_ok(), what == "good", "smtps with {what}");
        }
    }
    // What nobody has taken is told, each time and with the reason.
    assert_eq!((server.metric("tls_handshakes"), server.metric("tls_failed")), (4, 16));
    for why in [
        "why=\"the client has shown no certificate\"",
        "why=\"invalid peer certificate: UnknownIssuer\"",
        "why=\"invalid peer certificate: certificate expired: ",
    ] {
        log_has(&server, why);
    }
    log_has(&server, "peer=app@poolp.org verify=ok");
    // An alert, and nothing in clear; what OpenSSL calls it.
    let said = openssl(server.smtp, &["-starttls", "smtp"]);
    assert!(said.contains("alert certificate required"), "{said}");
    // Without TLS nothing is taken at all.
    assert!(server.client().say("MAIL FROM:<a@b.example>").starts_with("530 5.7.0 "));
}

#[test]
fn s67_received_and_rules_tell_what_the_client_has_shown() {
    let clients = Clients::new();
    let (required, plain) = (ports::free(), ports::free());
    let setup = Setup::whole("");
    let lines = format!(
        "listen on 127.0.0.1 port @SMTP@ tls ca staff pki a\n\
         listen on 127.0.0.1 port {required} tls-require verify ca staff pki a\n\
         listen on 127.0.0.1 port {plain} tls pki a\n\
         match from any for domain \"apps.example\" cert {{ \"app.example.org\" }} action \"box\"\n\
         match from any for domain \"verified.example\" cert action \"box\"\n\
         match from any for domain \"apps.example\" reject\nmatch from any for domain \"verified.example\" reject\n{REST}"
    );
    let lines = clients.head(&setup) + &lines;
    let server = setup.config(lines).start();
    for (what, papers) in clients.all() {
        let told = match what {
            "nothing" => "NO",
            "good" => "YES",
            _ => "FAIL",
        };
        let config = || config_of(papers, &[&TLS13]);
        let mut met = Encrypted::start_as(server.smtp, "a.example", config()).expect("a handshake");
        let reply = met.submit("a@b.example", "you@example.org", &format!("Subject: {what}\r\n\r\nx"));
        assert!(reply.starts_with("250 2.0.0 "), "{what}: {reply}");
        received(&server, what, &format!("with ESMTPS\n\t(TLS1.3:TLS_AES_128_GCM_SHA256:128:{told}) id "));
        met.say("MAIL FROM:<a@b.example>");
        for domain in ["apps.example", "verified.example"] {
            let reply = met.say(&format!("RCPT TO:<x@{domain}>"));
            assert_eq!(reply.starts_with("250"), what == "good", "{what}: {domain}: {reply}");
        }
        // Who is not asked has nothing to show.
        let mut met = Encrypted::start_as(at(plain), "a.example", config()).expect("a handshake");
        assert!(
            met.submit("a@b.example", "you@example.org", &format!("Subject: {what} unasked\r\n\r\nx"))
                .starts_with("250")
        );
        received(&server, &format!("{what} unasked"), "128:NO) id ");
    }
    let mut met =
        Encrypted::start_as(at(required), "a.example", config_of(Some(&clients.good), &[&TLS12])).expect("good");
    assert!(met.submit("a@b.example", "you@example.org", "Subject: required\r\n\r\nx").starts_with("250"));
    received(&server, "required", "(TLS1.2:TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:128:YES) id ");
    log_has(&server, " resumed=no verify=none");
    log_has(&server, " peer=app@poolp.org verify=ok");
    log_has(&server, " peer=app@poolp.org verify=failed reason=\"invalid peer certificate: UnknownIssuer\"");
    assert_eq!(server.metric("tls_failed"), 0);
}

/// Waits for the message with this subject; its trace says that.
fn received(server: &Server, subject: &str, told: &str) {
    let wanted = format!("Subject: {subject}\n");
    let text = maildir::wait_for_message(&server.dir().join("box"), subject, |text| {
        String::from_utf8_lossy(text).replace("\r\n", "\n").contains(&wanted)
    });
    let text = String::from_utf8_lossy(&text).replace("\r\n", "\n");
    assert!(text.contains(told), "{subject}: {told} in:\n{text}");
}

#[test]
fn s65_a_session_is_not_taken_up_where_more_is_asked() {
    let clients = Clients::new();
    let required = ports::free();
    let setup = Setup::whole("");
    let lines = format!(
        "listen on 127.0.0.1 port @SMTP@ tls pki a\n\
         listen on 127.0.0.1 port {required} tls-require verify ca staff pki a\n{REST}"
    );
    let lines = clients.head(&setup) + &lines;
    clients.good.write(setup.dir(), "good");
    let server = setup.config(lines).start();
    let file = |name: &str| server.dir().join(name).display().to_string();
    let (session, cert, key) = (file("session"), file("good.crt"), file("good.key"));
    for version in ["-tls1_3", "-tls1_2"] {
        let first = openssl(server.smtp, &["-starttls", "smtp", version, "-sess_out", &session]);
        assert!(first.contains("New, TLS"), "{first}");
        let said = openssl(at(required), &["-starttls", "smtp", version, "-sess_in", &session]);
        assert!(!said.contains("221 2.0.0") && !said.contains("Reused"), "{said}");
        // Where nothing more is asked it is, and the certificate of the first time counts.
        let own = ["-starttls", "smtp", version, "-cert", &cert, "-key", &key];
        let first = openssl(at(required), &[&own[..], &["-sess_out", &session]].concat());
        assert!(first.contains("221 2.0.0"), "{first}");
        let said = openssl(at(required), &["-starttls", "smtp", version, "-sess_in", &session]);
        assert!(said.contains("Reused, TLS") && said.contains("221 2.0.0"), "{said}");
    }
    log_has(&server, "resumed=yes peer=app@poolp.org verify=ok");
}

#[test]
fn s69_a_good_certificate_is_a_login() {
    let clients = Clients::new();
    let (itself, by_hash, bound) = (ports::free(), ports::free(), ports::free());
    let setup = Setup::whole("");
    let nameless = clients.authority.client(&[], Kind::Good);
    let lines = format!(
        "table users {{ app@poolp.org => app, nameless => nobody }}\ntable passwords {{ app => \"app:$6$salt$hash\" }}\n\
         table hashes {{ \"sha256:{}\" => hashed }}\n\
         listen on 127.0.0.1 port @SMTP@ tls ca staff pki a auth-cert <users>\n\
         listen on 127.0.0.1 port {itself} tls ca staff pki a auth-cert\n\
         listen on 127.0.0.1 port {by_hash} tls ca staff pki a auth-cert <hashes>\n\
         listen on 127.0.0.1 port {bound} tls-require ca staff pki a auth <passwords> auth-cert <users> senders {{ app => @b.example }}\n\
         match from auth {{ app, app@poolp.org, hashed }} for domain \"out.example\" action \"box\"\n\
         match from any for domain \"out.example\" reject \"550 5.7.1 log in first\"\n{REST}",
        nameless.fingerprint(),
    );
    let lines = clients.head(&setup) + &lines;
    let server = setup.config(lines).start();
    let is = |papers: &Papers, other: &Papers| papers.chain == other.chain;
    let mut number = 0;
    let mut try_as = |address: SocketAddr, papers: Option<&Papers>| {
        let mut met = Encrypted::start_as(address, "a.example", config_of(papers, &[&TLS13])).expect("a handshake");
        let offered = met.say("EHLO client.example");
        met.say("MAIL FROM:<a@b.example>");
        let reply = met.say("RCPT TO:<x@out.example>");
        if !reply.starts_with("250") {
            assert!(reply.starts_with("550 5.7.1 log in first"), "{reply}");
            assert_eq!(
                offered.contains("EXTERNAL"),
                papers.is_some_and(|papers| is(papers, &nameless)) && address == server.smtp
            );
            return false;
        }
        number += 1;
        assert!(met.say("DATA").starts_with("354"));
        assert!(met.say(&format!("Subject: number {number}\r\n\r\nx\r\n.")).starts_with("250"));
        received(&server, &format!("number {number}"), "with ESMTPSA\n\t(TLS1.3:TLS_AES_128_GCM_SHA256:128:YES) id ");
        // Who says so by AUTH is told yes.
        assert!(offered.contains("AUTH EXTERNAL"), "{offered}");
        assert!(met.say("AUTH EXTERNAL =").starts_with("235 2.7.0 "));
        true
    };
    assert!(try_as(server.smtp, Some(&clients.good)));
    for (what, papers) in clients.all().into_iter().filter(|(what, _)| *what != "good") {
        assert!(!try_as(server.smtp, papers), "{what}");
    }
    assert!(!try_as(server.smtp, Some(&nameless)), "a common name, but another user");
    assert!(try_as(at(itself), Some(&clients.good)));
    assert!(!try_as(at(itself), Some(&nameless)), "it has no mail address");
    assert!(try_as(at(by_hash), Some(&nameless)));
    assert!(!try_as(at(by_hash), Some(&clients.good)));
    log_has(&server, "login from=127.0.0.1 user=\"app\"");
    // Where a login is required it is one, and says whom the user may be.
    let mut met =
        Encrypted::start_as(at(bound), "a.example", config_of(Some(&clients.good), &[&TLS13])).expect("a handshake");
    met.say("EHLO client.example");
    assert!(met.say("MAIL FROM:<x@other.example>").starts_with("553 5.7.1 "));
    assert!(met.say("MAIL FROM:<x@b.example>").starts_with("250"));
    let mut met = Encrypted::start_as(at(bound), "a.example", config_of(None, &[&TLS13])).expect("a handshake");
    met.say("EHLO client.example");
    assert!(met.say("MAIL FROM:<x@b.example>").starts_with("530 5.7.0 "));
}

#[test]
fn s69_a_table_that_fails_is_no_answer() {
    let clients = Clients::new();
    let setup = Setup::whole("");
    let dir = setup.dir().display().to_string();
    std::fs::write(
        setup.dir().join("users.conf"),
        format!("dbpath {dir}/users.db\nquery_cert SELECT user FROM users WHERE name = ?;\n"),
    )
    .expect("written");
    let database = setup.dir().join("users.db");
    sqlite(&database, "CREATE TABLE users (name TEXT, user TEXT);");
    let lines = "table users sqlite:@DIR@/users.conf cache 0s negative 0s\n\
         listen on 127.0.0.1 port @SMTP@ tls ca staff pki a auth-cert <users>\n\
         match from auth app for any action \"box\"\nmatch from any for any reject \"550 5.7.1 log in first\"\n\
         http listen on 127.0.0.1 port @HTTP@\naction \"box\" maildir \"@DIR@/box\"\n";
    let lines = clients.head(&setup) + lines;
    let server = setup.config(lines).start();
    let meet = || {
        let mut met =
            Encrypted::start_as(server.smtp, "a.example", config_of(Some(&clients.good), &[&TLS13])).expect("shaken");
        met.say("EHLO client.example");
        met
    };
    let rcpt = |met: &mut Encrypted| met.say("RCPT TO:<x@out.example>");
    let mut met = meet();
    assert!(met.say("MAIL FROM:<a@b.example>").starts_with("250"));
    assert!(rcpt(&mut met).starts_with("550 5.7.1 log in first"), "nobody by that name");
    sqlite(&database, "INSERT INTO users VALUES ('app.example.org', 'app');");
    let mut met = meet();
    assert!(met.say("MAIL FROM:<a@b.example>").starts_with("250"));
    assert!(rcpt(&mut met).starts_with("250"));
    // Gone: temporary, and mended within the session.
    sqlite(&database, "ALTER TABLE users RENAME TO others;");
    let mut met = meet();
    assert!(met.say("MAIL FROM:<a@b.example>").starts_with("454 4.7.0 "));
    sqlite(&database, "ALTER TABLE others RENAME TO users;");
    wait_until("it can be asked again", Duration::from_secs(20), || {
        met.say("MAIL FROM:<a@b.example>").starts_with("250")
    });
    assert!(rcpt(&mut met).starts_with("250"));
}

#[test]
fn s141_relays_show_a_certificate_whose_key_is_in_the_keyholder_alone() {
    let clients = Clients::new();
    let sinks = Authority::new();
    let (new, old, other) = (ports::free(), ports::free(), ports::free());
    let setup = Setup::whole("");
    clients.good.write(setup.dir(), "ours");
    std::fs::write(setup.dir().join("sinks.pem"), sinks.pem()).expect("written");
    // They show what their authority vouches for, and want what ours does.
    let sink = |port, versions: &[&'static rustls::SupportedProtocolVersion], offer| {
        SecureSink::open(at(port), offer, clients.authority.demanding_as(&sinks, "127.0.0.1", versions))
    };
    let received = [
        sink(new, &[&TLS13], Offer::StartTls),
        sink(old, &[&TLS12], Offer::Implicit),
        sink(other, &[&TLS13], Offer::StartTls),
    ];
    let lines = format!(
        "pki ours cert \"@DIR@/ours.crt\" key \"@DIR@/ours.key\"\nca sinks cert \"@DIR@/sinks.pem\"\n{SMALL}\
         listen on 127.0.0.1 port @SMTP@\nhttp listen on 127.0.0.1 port @HTTP@\n\
         action new relay host \"smtp+tls://127.0.0.1:{new}\" pki ours ca sinks\n\
         action old relay host \"smtps://127.0.0.1:{old}\" pki ours ca sinks protocols \"TLSv1.2\"\n\
         action bare relay host \"smtp+tls://127.0.0.1:{other}\" ca sinks\n\
         match for domain new.example action new\nmatch for domain old.example action old\n\
         match for domain bare.example action bare\n"
    );
    let server = setup.config(lines).start();
    for domain in ["new.example", "old.example", "bare.example"] {
        let reply = server.client().submit(
            &format!("{}@b.example", &domain[..3]),
            &[&format!("x@{domain}")],
            b"Subject: x\r\n\r\nx\r\n",
        );
        assert_eq!(reply.code, 250, "{reply:?}");
    }
    for (sink, sender) in received.iter().zip(["new", "old"]) {
        wait_until(sender, Duration::from_secs(20), || sink.messages() == [(sender.to_owned(), true)]);
    }
    // Without a certificate the server does not want us, and nothing is sent.
    log_has(&server, "from=<");
    wait_until("the third is refused", Duration::from_secs(20), || {
        server.printed().lines().any(|line| {
            line.contains("to=<x@bare.example>")
                && line.contains("result=TempFail")
                && line.contains("CertificateRequired")
        })
    });
    assert!(received[2].messages().is_empty());
    log_has(&server, "version=TLS1.3 cipher=TLS_AES_128_GCM_SHA256 verify=ok");
    log_has(&server, "version=TLS1.2 cipher=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 verify=ok");
    let secret = clients.good.secret();
    assert!(copies(server.keyholder(), &secret) > 0, "the keyholder has the key");
    assert_eq!(copies(server.engine(), &secret), 0, "the engine has it not");
    assert_eq!(copies(server.supervisor(), &secret), 0, "the supervisor has it not");
}

#[test]
fn protocols_and_ciphers_are_what_the_listener_says() {
    let clients = Clients::new();
    let (new, few) = (ports::free(), ports::free());
    let setup = Setup::whole("");
    let lines = format!(
        "smtp ciphers \"HIGH:!aNULL:!MD5:!AES128\"\nlisten on 127.0.0.1 port @SMTP@ tls pki a\n\
         listen on 127.0.0.1 port {new} tls pki a protocols \"TLSv1.3\"\n\
         listen on 127.0.0.1 port {few} tls pki a ciphers \"ECDHE-ECDSA-CHACHA20-POLY1305:TLS_AES_128_GCM_SHA256\"\n{REST}"
    );
    let lines = clients.head(&setup) + &lines;
    let server = setup.config(lines).start();
    let works = |port: u16, args: &[&str]| {
        let said = openssl(at(port), &[&["-starttls", "smtp"], args].concat());
        said.contains("221 2.0.0")
    };
    let first = server.smtp.port();
    for (port, args, expected) in [
        (first, &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"][..], true),
        (first, &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], false),
        (first, &["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"], false),
        (first, &["-tls1_3"], true),
        (new, &["-tls1_3"], true),
        (new, &["-tls1_2"], false),
        (few, &["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], true),
        (few, &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"], false),
        (few, &["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"], true),
        (few, &["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"], false),
    ] {
        assert_eq!(works(port, args), expected, "{port} (of {first}, {new}, {few}) {args:?}");
    }
}

#[test]
fn s70_lists_that_cannot_be_had_are_errors_with_a_place() {
    let setup = Setup::whole("");
    let check = |words: &str| {
        let text =
            format!("listen on lo0 port 2526 tls {words} # ok W0808\naction a discard\nmatch for any action a\n");
        std::fs::write(setup.dir().join("c.conf"), text).expect("written");
        let output = cli::run(&["check", &setup.dir().join("c.conf").display().to_string()]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for good in [
        "ciphers HIGH",
        "ciphers \"ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:@STRENGTH\"",
        "ciphers TLS_AES_256_GCM_SHA384",
        "protocols \"TLSv1.2,TLSv1.3\"",
        "protocols \"all:!TLSv1.0\"",
    ] {
        let (code, text) = check(good);
        assert_eq!(code, Some(0), "{good}: {text}");
    }
    for (bad, told) in [
        ("ciphers \"HIGH:ECDHE-RSA-AES256-GCM-SHA348\"", "called `ECDHE-RSA-AES256-GCM-SHA348`"),
        ("ciphers \"HIGH:ECDHE-RSA-AES256-GCM-SHA348\"", "did you mean `ECDHE-RSA-AES256-GCM-SHA384`?"),
        ("ciphers \"HIGH:ECDHE-RSA-AES256-GCM-SHA348\"", "c.conf:1:43"),
        ("ciphers DHE-RSA-AES256-GCM-SHA384", "the server has no cipher suite `DHE-RSA-AES256-GCM-SHA384`"),
        ("ciphers TLS_RSA_WITH_AES_128_CBC_SHA", "the server has no cipher suite `TLS_RSA_WITH_AES_128_CBC_SHA`"),
        ("ciphers \"HIGH:!AES:!CHACHA20\"", "leaves no cipher suite"),
        ("protocols \"TLSv1.1\"", "leaves no version of TLS"),
        ("protocols \"TLSv1.4\"", "no version of TLS is called `TLSv1.4`"),
    ] {
        let (code, text) = check(bad);
        assert_eq!(code, Some(78), "{bad}: {text}");
        assert!(text.contains(told) && text.contains("E0511"), "{bad}: {text}");
    }
}

#[test]
fn s65_check_reads_authorities() {
    let setup = Setup::whole("");
    let check = |pem: &str| {
        std::fs::write(setup.dir().join("ca.pem"), pem).expect("written");
        let text = "ca staff cert ca.pem\nlisten on lo0 port 2526 tls ca staff # ok W0808\naction a discard\nmatch for any action a\n";
        std::fs::write(setup.dir().join("c.conf"), text).expect("written");
        let output = cli::run(&["check", &setup.dir().join("c.conf").display().to_string()]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(check(&Authority::new().pem()), (Some(0), String::new()));
    let (code, text) = check("nothing\n");
    assert_eq!(code, Some(78), "{text}");
    assert!(
        text.contains("c.conf:1: ca staff: authority ") && text.contains("there is no certificate in it"),
        "{text}"
    );
}

#[test]
fn the_end_of_certificates_is_told_in_time() {
    let setup = Setup::whole("");
    let mut lines = SMALL.to_owned();
    for (name, days) in [("far", 100), ("near", 15), ("soon", 5), ("now", 1)] {
        pair_until(setup.dir(), name, &[&format!("{name}.example")], &PKCS_ECDSA_P256_SHA256, in_days(days));
        lines += &format!("pki {name} cert \"@DIR@/{name}.crt\" key \"@DIR@/{name}.key\"\n");
    }
    lines += &format!("listen on 127.0.0.1 port @SMTP@ tls pki far pki near pki soon pki now\n{REST}");
    let server = setup.config(lines).start();
    for name in ["near", "soon", "now"] {
        log_has(&server, &format!("{name}.crt expires in "));
    }
    assert!(!server.printed().contains("far.crt expires"));
    // The day has begun when such a certificate ends.
    let figure = |name: &str| {
        let metrics = server.get("/metrics");
        let start = format!("ringpost_certificate_days{{pki=\"{name}\"}} ");
        let found = metrics.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned);
        found.unwrap_or_else(|| panic!("no {start} in:\n{metrics}")).parse::<i64>().expect("a number")
    };
    assert!([14, 15].contains(&figure("near")) && [99, 100].contains(&figure("far")), "{}", figure("near"));
    let stats = cli::run(&["stats", "--state", &server.state.display().to_string()]);
    let stats = String::from_utf8_lossy(&stats.stdout).into_owned();
    assert!(
        stats.contains(&format!("certificates far {} days, near {} days, ", figure("far"), figure("near"))),
        "{stats}"
    );
    // A renewed one is told of no more.
    let told = |server: &Server| server.printed().matches("near.crt expires in ").count();
    let before = told(&server);
    pair_until(server.dir(), "near", &["near.example"], &PKCS_ECDSA_P256_SHA256, in_days(60));
    server.tell(&["reload"]);
    // Figures may be as old as a fifth of a second.
    wait_until("the figure follows", Duration::from_secs(5), || [59, 60].contains(&figure("near")));
    assert_eq!(told(&server), before);
    log_has(&server, "reload: certificate ");
}

#[test]
fn s70_early_data_is_refused() {
    let clients = Clients::new();
    let setup = Setup::whole("");
    let lines = clients.head(&setup) + &format!("listen on 127.0.0.1 port @SMTP@ tls pki a\n{REST}");
    let server = setup.config(lines).start();
    let file = |name: &str| server.dir().join(name).display().to_string();
    std::fs::write(server.dir().join("early"), "mail from:<evil@b.example>\r\n").expect("written");
    let (session, early) = (file("session"), file("early"));
    let at = |args: &[&str]| openssl(server.smtp, &[&["-starttls", "smtp", "-tls1_3"], args].concat());
    let first = at(&["-sess_out", &session]);
    assert!(first.contains("Max Early Data: 0") && first.contains("New, TLS"), "{first}");
    let again = at(&["-sess_in", &session, "-early_data", &early]);
    assert!(again.contains("Early data was not sent") && again.contains("Reused, TLS"), "{again}");
    assert!(!again.contains("sender"), "{again}");
}

#[test]
fn too_many_sessions_are_not_told_in_clear_where_all_is_encrypted() {
    let clients = Clients::new();
    let implicit = ports::free();
    let setup = Setup::whole("");
    let lines = clients.head(&setup)
        + &format!(
            "smtp limit max-sessions 2\nlisten on 127.0.0.1 port @SMTP@\n\
             listen on 127.0.0.1 port {implicit} smtps pki a\n{REST}"
        );
    let server = setup.config(lines).start();
    // Each shard counts its own.
    let mut open: Vec<Client> = Vec::new();
    wait_until("all places are taken", Duration::from_secs(20), || {
        let mut client = Client::connect(server.smtp);
        let greeted = client.try_reply().is_ok_and(|reply| reply.code == 220);
        if greeted {
            open.push(client);
        }
        !greeted && open.len() >= 4
    });
    for _ in 0..6 {
        let mut client = Client::connect(at(implicit));
        assert_eq!(client.read_once(), b"", "not a word");
    }
    let mut client = Client::connect(server.smtp);
    client.expect("421 4.3.2 ");
}

//! Encryption with other people's servers and clients: each of our schemes against Postfix, OpenSMTPD and the test's own
//! sink, good and broken ones, and their clients, swaks and OpenSSL against our listeners. What came of each is
//! `docs/tls-outcomes.md`, word for word; `BLESS=1` writes it anew.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use crate::support::authority::{Authority, Kind};
use crate::support::rivals::{INSIDE, Rival};
use crate::support::secure_sink::{Offer, SecureSink};
use crate::support::server::SMALL;
use crate::support::wait::wait_for;
use crate::support::{Client, Server, Setup, maildir, ports, wait_until};

const SOON: Duration = Duration::from_secs(60);
/// How a relay is named here, and written in a configuration: scheme, and words behind the host.
const RELAYS: [(&str, &str, &str); 7] = [
    ("smtp", "smtp", ""),
    ("notls", "smtp+notls", ""),
    ("starttls", "smtp+tls", ""),
    ("smtps", "smtps", ""),
    ("ssl", "ssl", ""),
    ("tls", "smtp", " tls"),
    ("noverify", "smtp", " tls no-verify"),
];
/// Hosts, what they are, and what each relay comes to: `tls`, `clear`, or `waits` for another time.
const HOSTS: [(&str, &str, [&str; 7]); 11] = [
    ("good", "Postfix, a good certificate", ["tls", "clear", "tls", "tls", "tls", "tls", "tls"]),
    ("none", "Postfix without TLS", ["clear", "clear", "waits", "waits", "waits", "waits", "waits"]),
    ("expired", "Postfix, expired", ["tls", "clear", "waits", "waits", "waits", "waits", "tls"]),
    ("othername", "Postfix, another's name", ["tls", "clear", "waits", "waits", "waits", "waits", "tls"]),
    ("selfsigned", "Postfix, self-signed", ["tls", "clear", "waits", "waits", "waits", "waits", "tls"]),
    ("unknown", "Postfix, an unknown authority", ["tls", "clear", "waits", "waits", "waits", "waits", "tls"]),
    ("osmtpd", "OpenSMTPD without TLS", ["clear", "clear", "waits", "waits", "waits", "waits", "waits"]),
    ("osbroken", "OpenSMTPD, STARTTLS broken", ["clear", "clear", "waits", "waits", "waits", "waits", "waits"]),
    ("refuses", "sink, 454 to STARTTLS", ["clear", "clear", "waits", "waits", "waits", "waits", "waits"]),
    ("garbles", "sink, no TLS behind 220", ["clear", "clear", "waits", "waits", "waits", "waits", "waits"]),
    ("hangsup", "sink, hangs up behind 220", ["clear", "clear", "waits", "waits", "waits", "waits", "waits"]),
];

fn address(host: &str, port: u16) -> SocketAddr {
    let number = HOSTS.iter().position(|(name, ..)| *name == host).expect("a host");
    SocketAddr::from((Ipv4Addr::new(127, 2, 0, number as u8 + 1), port))
}

/// A server that knows the authority, with a domain `RELAY.HOST.example` for each pair. The ports of hosts: SMTP and SMTPS.
fn ours(authority: &Authority) -> (Server, u16, u16) {
    let (mut zone, mut rules) = (String::new(), String::new());
    for (host, ..) in HOSTS {
        zone += &format!("mx.{host}.example. A {}\n", address(host, 0).ip());
        for (name, scheme, words) in RELAYS {
            rules += &format!("action \"{name}-{host}\" relay host \"{scheme}://mx.{host}.example\"{words}\n");
            rules += &format!("match for domain \"{name}.{host}.example\" action \"{name}-{host}\"\n");
        }
    }
    let (setup, port) = Setup::new(rules).zone(&zone);
    let file = setup.dir().join("authority.pem");
    fs::write(&file, authority.pem()).expect("written");
    let setup = setup.environment("SSL_CERT_FILE", &file.display().to_string());
    (setup.start(), port, port + 465 - 25)
}

/// Postfix at six addresses, each with its own certificate. It keeps what it gets.
fn postfix_server(authority: &Authority, stranger: &Authority, port: u16, secure_port: u16) -> Rival {
    let rival = Rival::new();
    let mut master = String::new();
    for (host, by, kind) in [
        ("good", authority, Kind::Good),
        ("none", authority, Kind::Good),
        ("expired", authority, Kind::Expired),
        ("othername", authority, Kind::OtherName),
        ("selfsigned", authority, Kind::SelfSigned),
        ("unknown", stranger, Kind::Good),
    ] {
        by.files(&rival.dir(), host, &format!("mx.{host}.example"), kind);
        let (clear, secure) = (address(host, port), address(host, secure_port));
        if host == "none" {
            master += &format!("{clear} inet n - n - - smtpd\n");
            continue;
        }
        let files = format!("-o smtpd_tls_cert_file={INSIDE}/{host}.crt -o smtpd_tls_key_file={INSIDE}/{host}.key");
        master += &format!("{clear} inet n - n - - smtpd -o smtpd_tls_security_level=may {files}\n");
        master += &format!("{secure} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes {files}\n");
    }
    let main = "smtpd_data_restrictions = check_client_access static:HOLD\n";
    rival.postfix(main, &master, address("good", port))
}

/// OpenSMTPD at two addresses: 6.8.0p2 with OpenSSL 3 offers STARTTLS and has no key for the handshake (its issue 1171).
/// What it gets it tries to send to a port where nobody listens.
fn opensmtpd_server(authority: &Authority, port: u16, secure_port: u16) -> Rival {
    let rival = Rival::new();
    authority.files(&rival.dir(), "os", "mx.osbroken.example", Kind::Good);
    let broken = address("osbroken", port).ip();
    let config = format!(
        "pki os cert \"{INSIDE}/os.crt\"\npki os key \"{INSIDE}/os.key\"\nlisten on {} port {port}\n\
         listen on {broken} port {port} tls pki os\nlisten on {broken} port {secure_port} smtps pki os\n\
         action \"keep\" relay host \"smtp://127.0.0.1:1\"\nmatch from any for any action \"keep\"\n",
        address("osmtpd", port).ip()
    );
    rival.opensmtpd(&config, address("osmtpd", port))
}

/// Whether a message that was kept there came encrypted, by its topmost Received field.
fn how_it_came(files: &[String]) -> Option<&'static str> {
    let text = files.iter().find(|text| text.contains("with ESMTP"))?;
    Some(if text.contains("with ESMTPS") { "tls" } else { "clear" })
}

/// The page between its marks; with `BLESS=1` it is written anew.
fn on_page(part: &str, lines: &[String]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/tls-outcomes.md");
    let page = fs::read_to_string(&path).expect("docs/tls-outcomes.md");
    let (begin, end) = (format!("<!-- {part}: begin -->\n"), format!("<!-- {part}: end -->"));
    let (head, rest) = page.split_once(&begin).expect("the mark where it begins");
    let (old, tail) = rest.split_once(&end).expect("the mark where it ends");
    let new: String = lines.iter().map(|line| format!("{line}\n")).collect();
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, format!("{head}{begin}{new}{end}{tail}")).expect("written");
    } else {
        assert_eq!(old, new, "docs/tls-outcomes.md, {part}: `BLESS=1` writes it anew");
    }
}

#[test]
fn s74_each_scheme_against_servers_of_others() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (server, port, secure_port) = ours(&authority);
    let postfix = postfix_server(&authority, &stranger, port, secure_port);
    let opensmtpd = opensmtpd_server(&authority, port, secure_port);
    let own = [("refuses", Offer::Refuses), ("garbles", Offer::Garbles), ("hangsup", Offer::HangsUp)];
    let sinks = own.map(|(host, offer)| {
        let config = authority.server(&format!("mx.{host}.example"), Kind::Good);
        (host, SecureSink::open(address(host, port), offer, config))
    });
    for (host, ..) in HOSTS {
        for (relay, ..) in RELAYS {
            let text = format!("X-Case: {relay} to {host}.\r\n\r\nhello\r\n");
            let to = format!("r@{relay}.{host}.example");
            assert_eq!(server.client().submit(&format!("{relay}@s.example"), &[&to], text.as_bytes()).code, 250);
        }
    }
    let mut found: BTreeMap<(String, String), String> = BTreeMap::new();
    wait_for("each is delivered or has failed once", SOON, || {
        for (host, ..) in HOSTS {
            for (relay, ..) in RELAYS {
                let case = format!("X-Case: {relay} to {host}.");
                let seen = match sinks.iter().find(|(name, _)| *name == host) {
                    Some((_, sink)) => sink
                        .messages()
                        .iter()
                        .find(|(from, _)| from == relay)
                        .map(|(_, encrypted)| if *encrypted { "tls" } else { "clear" }),
                    None if host.starts_with("os") => how_it_came(&opensmtpd.files_with("opensmtpd/spool", &case)),
                    None => how_it_came(&postfix.files_with("postfix/spool/hold", &case)),
                };
                found.extend(seen.map(|how| ((host.to_owned(), relay.to_owned()), how.to_owned())));
            }
        }
        for waiting in server.queue() {
            if waiting.state == "deferred" && !waiting.reason.is_empty() {
                let domain = waiting.recipient.split_once('@').expect("an address").1;
                let mut parts = domain.split('.');
                let (relay, host) = (parts.next().expect("a relay"), parts.next().expect("a host"));
                found.insert((host.to_owned(), relay.to_owned()), format!("waits: {}", waiting.reason));
            }
        }
        (found.len() == HOSTS.len() * RELAYS.len()).then_some(())
    });
    let mut lines = vec![format!(
        "| server | {} |",
        RELAYS
            .map(|(_, scheme, words)| format!(
                "`{scheme}://`{}",
                match words {
                    "" => String::new(),
                    words => format!(" `{}`", words.trim()),
                }
            ))
            .join(" | ")
    )];
    lines.push(format!("| --- |{}", " --- |".repeat(RELAYS.len())));
    for (host, what, expected) in HOSTS {
        let mut cells = Vec::new();
        for ((relay, ..), expected) in RELAYS.iter().zip(expected) {
            let found = &found[&(host.to_owned(), (*relay).to_owned())];
            assert_eq!(found.split(':').next(), Some(expected), "{relay} to {host}: {found}");
            cells.push(match expected {
                "tls" => "delivered, encrypted",
                "clear" => "delivered, in clear",
                _ => "deferred",
            });
        }
        lines.push(format!("| {what} | {} |", cells.join(" | ")));
    }
    on_page("relay", &lines);
}

/// Our listeners, and where: STARTTLS, STARTTLS required, and SMTPS. Everything goes to the Maildir.
struct Listeners {
    server: Server,
    required: SocketAddr,
    secure: SocketAddr,
    authority: Authority,
}

impl Listeners {
    fn new() -> Self {
        let authority = Authority::new();
        let (required, secure) = (ports::free(), ports::free());
        let setup = Setup::whole("");
        for name in ["mx.example", "other.example"] {
            let file = name.split('.').next().expect("a first part");
            authority.files(setup.dir(), file, name, Kind::Good);
        }
        let pki =
            |name: &str, file: &str| format!("pki \"{name}\" cert \"@DIR@/{file}.crt\" key \"@DIR@/{file}.key\"\n");
        let files = format!("{}{}", pki("mx.example", "mx"), pki("other.example", "other"));
        let both = "pki \"mx.example\" pki \"other.example\"";
        let setup = setup.config(format!(
            "{SMALL}{files}listen on 127.0.0.1 port @SMTP@ tls {both}\nlisten on 127.0.0.1 port {required} tls-require {both}\n\
             listen on 127.0.0.1 port {secure} smtps {both}\nhttp listen on 127.0.0.1 port @HTTP@\n\
             action \"box\" maildir \"@DIR@/box\"\nmatch from any for any action \"box\"\n"
        ));
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self { server: setup.start(), required: at(required), secure: at(secure), authority }
    }

    /// How the message of this subject came, by our own Received field: it must come.
    fn came(&self, subject: &str) -> &'static str {
        let wanted = format!("Subject: {subject}");
        let text = maildir::wait_for_message(&self.server.dir().join("box"), &wanted, |text| {
            String::from_utf8_lossy(text).contains(&wanted)
        });
        // Of two Received fields ours is the first.
        let text = String::from_utf8_lossy(&text).into_owned();
        let field = &text[text.find("Received:").expect("a trace")..];
        let with = field.find("with ").expect("a protocol");
        if field[with..].starts_with("with ESMTPS") { "encrypted" } else { "in clear" }
    }
}

#[test]
fn clients_of_others_at_our_listeners() {
    let ours = Listeners::new();
    let mut lines = vec!["| client | listener | |".to_owned(), "| --- | --- | --- |".to_owned()];
    let mut note = |client: &str, listener: &str, how: &str| lines.push(format!("| {client} | {listener} | {how} |"));
    let to = |which: &str| format!("r@{which}.example");

    // Postfix has a transport for each way, chosen by domain; the last two messages share a session.
    let rival = Rival::new();
    fs::write(rival.dir().join("ca.pem"), ours.authority.pem()).expect("written");
    let postfix = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()));
    let (clear, required, secure) = (ours.server.smtp, ours.required, ours.secure);
    let checked =
        "-o smtp_tls_security_level=secure -o smtp_tls_secure_cert_match=mx.example -o smtp_tls_servername=mx.example";
    let ways = [
        ("none", clear, "smtp_tls_security_level=none".to_owned(), "`tls`, level none", "in clear"),
        ("may", clear, "smtp_tls_security_level=may".to_owned(), "`tls`, level may", "encrypted"),
        ("require", required, "smtp_tls_security_level=may".to_owned(), "`tls-require`, level may", "encrypted"),
        ("checked", clear, checked[3..].to_owned(), "`tls`, level secure", "encrypted"),
        (
            "wrapped",
            secure,
            "smtp_tls_wrappermode=yes -o smtp_tls_security_level=encrypt".to_owned(),
            "`smtps`, level encrypt",
            "encrypted",
        ),
    ];
    let (mut maps, mut master) = (String::new(), format!("{postfix} inet n - n - - smtpd\n"));
    for (name, at, options, ..) in &ways {
        maps += &format!(" {name}.example={name}:[{}]:{}", at.ip(), at.port());
        master += &format!("{name} unix - - n - - smtp -o {options}\n");
    }
    let main = format!(
        "transport_maps = inline:{{{maps} }}\nsmtp_tls_CAfile = {INSIDE}/ca.pem\nsmtp_connection_cache_on_demand = no\n\
         smtp_tls_session_cache_database = btree:/mnt/run/postfix/data/sessions\n"
    );
    let rival = rival.postfix(&main, &master, postfix);
    for (name, _, _, listener, expected) in &ways {
        let subject = format!("postfix {name}");
        let text = format!("Subject: {subject}\r\n\r\nhello\r\n");
        assert_eq!(Client::ready(postfix).submit("s@s.example", &[&to(name)], text.as_bytes()).code, 250);
        let how = ours.came(&subject);
        assert_eq!(how, *expected, "{subject}");
        note("Postfix `smtp`", listener, &format!("delivered, {how}"));
    }
    for turn in 0..3 {
        let subject = format!("postfix again {turn}");
        let text = format!("Subject: {subject}\r\n\r\nhello\r\n");
        assert_eq!(Client::ready(postfix).submit("s@s.example", &[&to("checked")], text.as_bytes()).code, 250);
        assert_eq!(ours.came(&subject), "encrypted");
    }
    // It comes again with its ticket.
    wait_until("sessions are resumed", SOON, || ours.server.metric("tls_resumed") > 0);
    note("Postfix `smtp`", "`tls`, once more", "delivered, encrypted, session resumed");
    drop(rival);

    let opensmtpd = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()));
    let ways = [
        ("os-notls", "smtp+notls", clear, "", "`tls`, `smtp+notls://`", "in clear"),
        ("os-smtp", "smtp", clear, " tls no-verify", "`tls`, `smtp://`", "encrypted"),
        ("os-starttls", "smtp+tls", required, " tls no-verify", "`tls-require`, `smtp+tls://`", "encrypted"),
        ("os-smtps", "smtps", secure, " tls no-verify", "`smtps`, `smtps://`", "encrypted"),
    ];
    let mut config = format!("listen on {} port {}\n", opensmtpd.ip(), opensmtpd.port());
    for (name, scheme, at, words, ..) in &ways {
        config += &format!("action \"{name}\" relay host \"{scheme}://{at}\"{words}\n");
        config += &format!("match from any for domain \"{name}.example\" action \"{name}\"\n");
    }
    let rival = Rival::new().opensmtpd(&config, opensmtpd);
    for (name, _, _, _, listener, expected) in &ways {
        let text = format!("Subject: {name}\r\n\r\nhello\r\n");
        assert_eq!(Client::ready(opensmtpd).submit("s@s.example", &[&to(name)], text.as_bytes()).code, 250);
        let how = ours.came(name);
        assert_eq!(how, *expected, "{name}");
        note("OpenSMTPD", listener, &format!("delivered, {how}"));
    }
    drop(rival);
    on_page("listeners", &lines);
}

//! AUTH of clients, by the clients that people have: who is asked for a password, what it opens, and what is told of it.

mod backends;
mod pace;
mod scram;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use rcgen::PKCS_ECDSA_P256_SHA256;

use crate::support::server::{PROGRAM, SMALL};
use crate::support::tls::{Encrypted, pair};
use crate::support::{Client, Server, Setup, cli, maildir, wait_until};

/// What everybody here types.
pub const PASSWORD: &str = "open sesame";
const IN: &str = "235 2.7.0 logged in\r\n";
const WRONG: &str = "535 5.7.8 user or password is wrong\r\n";

/// `ringpost hash`, given the password of everybody.
pub fn hash(scheme: &str) -> String {
    let mut command = Command::new(PROGRAM);
    command.args(["hash", "--scheme", scheme]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    child.stdin.take().expect("piped").write_all(format!("{PASSWORD}\n").as_bytes()).expect("taken");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{scheme}");
    String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
}

/// Base64, as clients send it.
fn base64(text: impl AsRef<[u8]>) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_ref().chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * at)) as usize & 63];
            out.push(if at <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

fn plain(user: &str, password: &str) -> String {
    format!("AUTH PLAIN {}", base64(format!("\0{user}\0{password}")))
}

/// The first line of what is said to AUTH PLAIN.
fn login(client: &mut Client, user: &str, password: &str) -> String {
    let reply = client.say(&plain(user, password));
    format!("{} {}\r\n", reply.code, reply.lines[0])
}

/// Everything that may go goes to the Maildir of the test.
const BOX: &str = "http listen on 127.0.0.1 port @HTTP@\naction \"box\" maildir \"@DIR@/box\"\n";

/// A server with a certificate; `listener` stands behind `tls`, `rules` behind all.
fn with_tls(tables: &str, listener: &str, rules: &str) -> Server {
    let setup = Setup::whole("");
    pair(setup.dir(), "mx", &["mx.example", "localhost"], &PKCS_ECDSA_P256_SHA256);
    let pki = "pki mx cert \"@DIR@/mx.crt\" key \"@DIR@/mx.key\"\n";
    let listen = format!("listen on 127.0.0.1 port @SMTP@ tls pki mx {listener}\n");
    setup.config(format!("{SMALL}{pki}{tables}{listen}{BOX}{rules}")).start()
}

/// A server that takes passwords in the clear, from this machine alone.
fn near(tables: &str, listener: &str, rules: &str) -> Server {
    let listen = format!("listen on 127.0.0.1 port @SMTP@ {listener}\n");
    Setup::whole(format!("{SMALL}{tables}{listen}{BOX}{rules}")).start()
}

const ALL: &str = "match for any action \"box\"\n";

fn encrypted(server: &Server) -> Encrypted {
    let mut client = Encrypted::start(server.smtp, "mx.example").expect("a handshake");
    assert!(client.say("EHLO client.example").starts_with("250"));
    client
}

fn run(program: &str, args: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));
    // One that fails before it has read everything has said why.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), said)
}

#[test]
fn s61_auth_is_offered_under_tls_and_comes_before_mail() {
    let server =
        with_tls(&format!("table in_auth {{ gilles = \"gilles:{}\" }}\n", hash("ssha")), "auth <in_auth>", ALL);
    let mut clear = Client::ready(server.smtp);
    let offered = clear.say("EHLO client.example");
    assert!(offered.lines.iter().any(|line| line == "STARTTLS") && !offered.lines.iter().any(|l| l.contains("AUTH")));
    assert_eq!(clear.say(&plain("gilles", PASSWORD)).code, 538);
    assert!(clear.say("MAIL FROM:<a@b.example>").starts_with("530 5.7.0"));
    let mut client = Encrypted::start(server.smtp, "mx.example").expect("a handshake");
    assert!(client.say("EHLO client.example").contains("\r\n250-AUTH PLAIN LOGIN\r\n"));
    assert!(client.say("MAIL FROM:<a@b.example>").starts_with("530 5.7.0 "));
    assert_eq!(client.say(&plain("gilles", "sesame")), WRONG);
    assert_eq!(client.say(&plain("gilles", PASSWORD)), IN);
    assert!(client.say("MAIL FROM:<a@b.example>").starts_with("250"));
    wait_until("the log tells who", Duration::from_secs(5), || {
        let log = server.printed();
        log.contains(" login from=127.0.0.1 user=\"gilles\"")
            && log.contains("login failed from=127.0.0.1 user=\"gilles\"")
    });
    let log = server.printed();
    assert!(!log.contains(PASSWORD) && !log.contains(&base64(PASSWORD)) && !log.contains("AGdpbGxlc"), "{log}");
    assert!(server.metric("logins") == 1 && server.metric("logins_failed") == 1);
}

#[test]
fn s61_without_tls_such_a_listener_does_not_load() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("c.conf");
    let text = "table in_auth { gilles = \"$2b$10$abcdefghijklmnopqrstuv\" }\nlisten on 192.0.2.1 auth <in_auth>\n\
                action a discard\nmatch for any action a\n";
    std::fs::write(&path, text).expect("written");
    let output = cli::run(&["check", &path.display().to_string()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(said.contains("E0603") && said.contains("would send passwords in clear"), "{said}");
}

/// swaks, Python and msmtp, each in the ways that it has; `Received:` tells the truth of all of them.
#[test]
fn s61_the_clients_that_people_have_log_in() {
    let table = format!("table users {{ gilles = \"gilles:{}\" }}\n", hash("sha512"));
    let server = with_tls(&table, "auth <users> received-auth", "match from auth for any action \"box\"\n");
    let port = server.smtp.port().to_string();
    let text = |key: &str| format!("Subject: {key}\n\nhello\n");
    for how in ["PLAIN", "LOGIN"] {
        let data = text(&format!("swaks {how}"));
        let args = ["--server", "127.0.0.1", "--port", &port, "--tls", "--auth", how, "--auth-user", "gilles"];
        let rest = ["--auth-password", PASSWORD, "--from", "g@poolp.org", "--to", "x@example.org", "--data", &data];
        let (good, said) = run("swaks", &[&args[..], &rest].concat(), "");
        assert!(good && said.contains("235 2.7.0"), "{said}");
        let script = format!(
            "import smtplib, ssl\ns = smtplib.SMTP('127.0.0.1', {port})\nc = ssl._create_unverified_context()\n\
             s.starttls(context=c)\ns.ehlo()\ns.user, s.password = 'gilles', '{PASSWORD}'\n\
             s.auth('{how}', getattr(s, 'auth_{}'))\n\
             s.sendmail('g@poolp.org', ['x@example.org'], 'Subject: python {how}\\r\\n\\r\\nhello\\r\\n')\ns.quit()\n",
            how.to_lowercase()
        );
        let (good, said) = run("python3", &["-c", &script], "");
        assert!(good, "{said}");
        let auth = format!("--auth={}", how.to_lowercase());
        let secret = format!("--passwordeval=echo {PASSWORD}");
        let args = ["--host=127.0.0.1", &format!("--port={port}"), "--tls=on", "--tls-certcheck=off", &auth];
        let rest = ["--user=gilles", &secret, "--from=g@poolp.org", "x@example.org"];
        let (good, said) = run("msmtp", &[&args[..], &rest].concat(), &text(&format!("msmtp {how}")));
        assert!(good, "{said}");
        for client in ["swaks", "python", "msmtp"] {
            let subject = format!("Subject: {client} {how}");
            let found = maildir::wait_for_message(&server.dir().join("box"), &subject, |message| {
                String::from_utf8_lossy(message).contains(&subject)
            });
            let found = String::from_utf8_lossy(&found).replace("\r\n", "\n");
            assert!(found.contains("with ESMTPSA\n\t(TLS1.3:"), "{found}");
            assert!(found.contains("\n\t(authenticated as gilles) id "), "{found}");
            assert!(
                found.contains("\nDate: ") && found.contains("\nMessage-ID: <"),
                "a submission is completed: {found}"
            );
        }
    }
    let wrong = ["--server", "127.0.0.1", "--port", &port, "--tls", "--auth-user", "gilles", "--auth-password", "no"];
    let (good, said) = run("swaks", &[&wrong[..], &["--to", "x@example.org"]].concat(), "");
    assert!(!good && said.contains("535 5.7.8"), "{said}");
}

#[test]
fn s62_the_name_of_the_login_is_the_label() {
    let made = hash("ssha");
    let table = format!("table users {{ g = \"gilles:{made}\", eric = \"{made}\" }}\n");
    let rules = "match from any auth \"gilles\" for any action \"box\"\n";
    let server = near(&table, "auth <users>", rules);
    let mut client = server.client();
    assert_eq!(login(&mut client, "gilles", PASSWORD), WRONG);
    assert_eq!(login(&mut client, "g", PASSWORD), IN);
    client.envelope("a@b.example", &["x@example.org"]);
    let mut client = server.client();
    assert_eq!(login(&mut client, "eric", PASSWORD), IN);
    assert_eq!(client.say("MAIL FROM:<a@b.example>").code, 250);
    assert_eq!(client.say("RCPT TO:<x@example.org>").code, 550, "the rule is for somebody else");
}

/// The example of the article, with a real hash; and what each of its lines opens.
#[test]
fn s10_authenticated_clients_count_as_local_in_old_rules() {
    let old = format!(
        "table in_auth {{ gilles => \"gilles:{}\" }}\nlisten on 127.0.0.1 port @SMTP@ tls auth <in_auth>\n{BOX}\
         accept for domain poolp.org deliver to maildir \"@DIR@/box\"\naccept for any relay via smtp://127.0.0.1:9\n",
        hash("sha256")
    )
    .replace("action \"box\" maildir \"@DIR@/box\"\n", "");
    let server = Setup::whole(format!("{SMALL}{old}")).start();
    let mut stranger = encrypted(&server);
    assert!(stranger.say("MAIL FROM:<a@b.example>").starts_with("530 5.7.0"));
    let mut client = encrypted(&server);
    assert_eq!(client.say(&plain("gilles", PASSWORD)), IN);
    assert!(client.say("MAIL FROM:<gilles@poolp.org>").starts_with("250"));
    assert!(client.say("RCPT TO:<x@example.net>").starts_with("250"));
    let path = server.dir().join("ringpost.conf").display().to_string();
    let canonical = cli::succeed(&["check", "--canonical", &path]);
    for lines in ["match from local for any action", "match from auth for any action"] {
        assert!(canonical.contains(lines), "{lines}: {canonical}");
    }
    // What `from auth` opens is opened by it alone.
    let table = format!("table users {{ gilles = \"{}\" }}\n", hash("ssha"));
    let server = near(&table, "auth-optional <users>", "match from auth for any action \"box\"\n");
    let mut client = server.client();
    let rcpt = |client: &mut Client| {
        client.say("RSET");
        assert_eq!(client.say("MAIL FROM:<a@b.example>").code, 250);
        client.say("RCPT TO:<x@example.net>").code
    };
    assert_eq!(rcpt(&mut client), 550);
    client.say("RSET");
    assert_eq!(login(&mut client, "gilles", PASSWORD), IN);
    assert_eq!(rcpt(&mut client), 250);
}

#[test]
fn s11_users_send_with_their_own_addresses() {
    let made = hash("ssha");
    let tables = format!(
        "table users {{ gilles = \"{made}\", eric = \"{made}\" }}\n\
         table own {{ gilles = \"gilles@poolp.org\", eric = \"@example.org\" }}\n"
    );
    let rules = "match from auth for any action \"box\"\nmatch for domain here.example action \"box\"\n";
    let server = near(&tables, "auth-optional <users> senders <own>", rules);
    for (user, sender, code) in [
        ("gilles", "gilles@poolp.org", 250),
        ("gilles", "Gilles@POOLP.ORG", 250),
        ("gilles", "eric@poolp.org", 553),
        ("gilles", "", 553),
        ("eric", "anybody@example.org", 250),
        ("eric", "gilles@poolp.org", 553),
    ] {
        let mut client = server.client();
        assert_eq!(login(&mut client, user, PASSWORD), IN);
        let reply = client.say(&format!("MAIL FROM:<{sender}>"));
        assert_eq!(reply.code, code, "{user} as <{sender}>: {reply:?}");
        assert!(code == 250 || reply.starts_with("553 5.7.1 "), "{reply:?}");
    }
    let mut stranger = server.client();
    assert_eq!(stranger.say("MAIL FROM:<gilles@poolp.org>").code, 250, "who is nobody here is bound by rules alone");
    assert_eq!(stranger.say("RCPT TO:<x@here.example>").code, 250);
}

#[test]
fn masquerade_makes_from_the_senders_address() {
    let tables = format!("table users {{ eric = \"{}\" }}\ntable own {{ eric = \"@example.org\" }}\n", hash("ssha"));
    let rules = "match from any for any action \"box\"\n";
    let server = near(&tables, "auth-optional <users> senders <own> masquerade", rules);
    let arrived = |client: &mut Client, key: &str, from: &str| {
        let text = format!("X-Key: {key}\r\nFrom: {from}\r\n\r\nFrom: in the text\r\n");
        assert_eq!(client.submit("eric@example.org", &["r@there.example"], text.as_bytes()).code, 250);
        let wanted = format!("X-Key: {key}\n");
        let whole = maildir::wait_for_message(&server.dir().join("box"), key, |text| {
            String::from_utf8_lossy(text).contains(&wanted)
        });
        let whole = String::from_utf8(whole).expect("ASCII");
        whole[whole.find(&wanted).expect("found above") + wanted.len()..].to_owned()
    };
    let mut user = server.client();
    assert_eq!(login(&mut user, "eric", PASSWORD), IN);
    let from = arrived(&mut user, "user", "\"The Boss\" <boss@example.com>");
    assert_eq!(from, "From: \"The Boss\" <eric@example.org>\n\nFrom: in the text\n");
    let stranger = arrived(&mut server.client(), "stranger", "boss@example.com");
    assert_eq!(stranger, "From: boss@example.com\n\nFrom: in the text\n", "who is nobody here keeps his");
}

#[test]
fn explain_knows_users() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("c.conf");
    let text = "listen on lo0 port 2525 auth\naction a discard\nmatch auth { \"gilles\" } for any action a\n\
                match !auth for any reject\n";
    std::fs::write(&path, text).expect("written");
    let path = path.display().to_string();
    let explain =
        |args: &[&str]| cli::succeed(&[&["explain", "--config", &path, "--rcpt", "x@y.example"], args].concat());
    assert!(explain(&["--user", "gilles"]).contains("discard"), "{}", explain(&["--user", "gilles"]));
    let eric = cli::run(&["explain", "--config", &path, "--rcpt", "x@y.example", "--user", "eric"]);
    assert!(!String::from_utf8_lossy(&eric.stdout).contains("discard"), "{eric:?}");
}

#[test]
fn hashes_are_made_on_the_command_line() {
    for scheme in ["argon2id", "yescrypt", "bcrypt", "sha512", "sha256", "ssha", "scram"] {
        assert_ne!(hash(scheme), hash(scheme), "a salt of its own: {scheme}");
    }
    let made = hash("argon2id");
    let server = near(&format!("table users {{ gilles = \"{made}\" }}\n"), "auth <users>", ALL);
    assert_eq!(login(&mut server.client(), "gilles", PASSWORD), IN);
    for (input, said) in [("\n", "an empty password"), ("a\tb\n", "control characters")] {
        let (good, text) = run(PROGRAM, &["hash"], input);
        assert!(!good && text.contains(said), "{text}");
    }
}

//! TLS on the receiving side: STARTTLS and implicit TLS with the clients that people have, certificates by name, resumption,
//! what is refused, and where the private keys are.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
use rustix::process::{Signal, kill_process};

use crate::support::memory::{copies, count_in_memory};
use crate::support::server::SMALL;
use crate::support::tls::{Encrypted, Pair, openssl, pair, pair_until};
use crate::support::{Client, Server, Setup, cli, maildir, ports, wait_until};

/// Everything goes to the Maildir of the test.
const REST: &str =
    "http listen on 127.0.0.1 port @HTTP@\naction \"box\" maildir \"@DIR@/box\"\nmatch for any action \"box\"\n";

/// A server with these lines in front; files in its directory are there already.
fn with(make: impl FnOnce(&Setup) -> String) -> Server {
    let mut setup = Setup::whole("");
    let lines = make(&setup);
    setup = setup.config(format!("{SMALL}{lines}{REST}"));
    setup.start()
}

fn ecdsa(setup: &Setup, name: &str, hosts: &[&str]) -> Pair {
    pair(setup.dir(), name, hosts, &PKCS_ECDSA_P256_SHA256)
}

/// `pki NAME` with the files of that name.
fn pki(name: &str) -> String {
    format!("pki {name} cert \"@DIR@/{name}.crt\" key \"@DIR@/{name}.key\"\n")
}

fn two_names() -> Server {
    with(|setup| {
        ecdsa(setup, "a", &["a.example"]);
        ecdsa(setup, "b", &["b.example", "*.b.example"]);
        format!("{}{}listen on 127.0.0.1 port @SMTP@ tls pki a pki b\n", pki("a"), pki("b"))
    })
}

fn swaks(server: SocketAddr, args: &[&str]) -> String {
    let mut command = Command::new("swaks");
    command.args(["--server", "127.0.0.1", "--port", &server.port().to_string(), "--to", "you@example.org"]);
    let output = command.args(["--from", "me@example.org", "--helo", "client.example"]).args(args).output();
    let output = output.expect("swaks");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "swaks {args:?}: {text}");
    text
}

#[test]
fn the_first_minute_has_starttls_with_a_certificate_of_its_own() {
    let mut server = Setup::quickstart().start();
    wait_until("the banner", Duration::from_secs(5), || {
        server.printed().contains("STARTTLS with a self-signed certificate")
    });
    let said = swaks(server.smtp, &["--tls"]);
    assert!(said.contains("TLS started with cipher TLSv1.3"), "{said}");
    let text = maildir::wait_for_message(&server.state.join("Maildir"), "swaks", |_| true);
    let text = String::from_utf8_lossy(&text).replace("\r\n", "\n");
    assert!(text.contains("with ESMTPS\n\t(TLS1.3:TLS_AES_128_GCM_SHA256:128:NO) id "), "{text}");
    let key = server.state.join("tls/localhost.key");
    assert_eq!(fs::metadata(&key).expect("made").permissions().mode() & 0o777, 0o600);
    let shown = Encrypted::start(server.smtp, "localhost").expect("a handshake").shown();
    server.stop();
    server.start();
    assert_eq!(Encrypted::start(server.smtp, "localhost").expect("a handshake").shown(), shown, "it is kept");
    assert!(!server.printed().contains("TRACE") && server.metric("tls_handshakes") >= 1);
}

#[test]
fn both_versions_are_spoken_and_the_name_chooses() {
    let server = two_names();
    let at = |args: &[&str]| openssl(server.smtp, &[&["-starttls", "smtp"], args].concat());
    for (version, told) in [("-tls1_3", "New, TLSv1.3"), ("-tls1_2", "New, TLSv1.2")] {
        for name in ["a.example", "b.example", "x.b.example"] {
            let file = server.dir().join(if name == "a.example" { "a.crt" } else { "b.crt" });
            let file = file.display().to_string();
            let said = at(&[version, "-servername", name, "-CAfile", &file, "-verify_hostname", name]);
            assert!(said.contains(told), "{version} {name}: {said}");
            assert!(said.contains("Verify return code: 0 (ok)"), "{version} {name}: {said}");
            assert!(said.contains("\n221 2.0.0 "), "the dialogue goes on: {said}");
        }
    }
    // Unknown names, and clients that ask for none, get the first.
    let file = server.dir().join("a.crt").display().to_string();
    for args in [&["-servername", "c.example"][..], &["-noservername"]] {
        let said = at(&[args, &["-CAfile", &file]].concat());
        assert!(said.contains("Verify return code: 0 (ok)"), "{args:?}: {said}");
    }
    assert_eq!(server.metric("tls_failed"), 0);
    wait_until("the log tells", Duration::from_secs(5), || {
        let log = server.printed();
        log.contains(" tls from=127.0.0.1 version=TLS1.2 cipher=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 sni=x.b.example resumed=no")
    });
}

#[test]
fn a_client_that_comes_again_is_resumed_by_either_shard() {
    let server = two_names();
    let session = server.dir().join("session").display().to_string();
    for version in ["-tls1_3", "-tls1_2"] {
        let at = |args: &[&str]| openssl(server.smtp, &[&["-starttls", "smtp", version], args].concat());
        let first = at(&["-sess_out", &session]);
        assert!(first.contains("New, TLS"), "{first}");
        // Several, so that both shards have their turn.
        for _ in 0..6 {
            let again = at(&["-sess_in", &session]);
            assert!(again.contains("Reused, TLS"), "{again}");
        }
    }
    assert_eq!(server.metric("tls_resumed"), 12);
    assert_eq!(server.metric("tls_handshakes"), 14);
    // Early data would be commands that somebody else can send again.
    assert!(!openssl(server.smtp, &["-starttls", "smtp", "-sess_in", &session]).contains("Early data was accepted"));
}

#[test]
fn s70_no_weak_key_exchange_cipher_or_version() {
    let server = with(|setup| {
        ecdsa(setup, "e", &["mx.example"]);
        pair(setup.dir(), "r", &["mx.example"], &PKCS_RSA_SHA256);
        // RSA first: ECDSA is preferred all the same.
        format!("{}pki r dhe auto # ok W0810\n{}listen on 127.0.0.1 port @SMTP@ tls pki r pki e\n", pki("r"), pki("e"))
    });
    let at =
        |args: &[&str]| openssl(server.smtp, &[&["-starttls", "smtp", "-cipher", "ALL:@SECLEVEL=0"], args].concat());
    for version in ["-tls1", "-tls1_1"] {
        let said = at(&[version]);
        assert!(said.contains("Cipher is (NONE)"), "{version}: {said}");
    }
    let only = |cipher: &str| openssl(server.smtp, &["-starttls", "smtp", "-tls1_2", "-cipher", cipher]);
    for weak in [
        "kRSA:@SECLEVEL=0",
        "kDHE:@SECLEVEL=0",
        "AES128-SHA:@SECLEVEL=0",
        "ECDHE-RSA-AES256-SHA384",
        "ECDHE-ECDSA-AES128-SHA",
    ] {
        let said = only(weak);
        assert!(said.contains("Cipher is (NONE)"), "{weak}: {said}");
    }
    for (strong, told) in [("ECDHE-RSA-AES256-GCM-SHA384", "RSA"), ("ECDHE-ECDSA-CHACHA20-POLY1305", "ECDSA")] {
        let said = only(strong);
        assert!(said.contains(&format!("Cipher is {strong}")), "{told}: {said}");
        assert!(said.contains("Server Temp Key: X25519"), "{told}: {said}");
    }
    assert!(at(&["-tls1_3"]).contains("Peer signature type: ECDSA"));
    assert!(at(&["-tls1_3", "-sigalgs", "RSA-PSS+SHA256"]).contains("Peer signature type: RSA-PSS"));
    // Each that failed was counted, and told on one line.
    assert_eq!(server.metric("tls_failed"), 7);
    wait_until("the log tells", Duration::from_secs(5), || server.printed().matches(" tls-failed from=").count() == 7);
}

#[test]
fn implicit_tls_begins_with_the_first_byte() {
    let port = ports::free();
    let server = with(|setup| {
        ecdsa(setup, "a", &["a.example"]);
        format!("{}listen on 127.0.0.1 port @SMTP@\nlisten on 127.0.0.1 port {port} smtps pki a\n", pki("a"))
    });
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut client = Encrypted::at_once(address, "a.example").expect("a handshake");
    let offered = client.say("EHLO client.example");
    assert!(!offered.contains("STARTTLS") && offered.contains("PIPELINING"), "{offered}");
    assert!(client.say("STARTTLS").starts_with("503 5.5.1 "));
    assert!(client.say("QUIT").starts_with("221"));
    assert!(client.ends_in_order());
    let said = swaks(address, &["--tls-on-connect"]);
    assert!(said.contains("=== TLS started with cipher TLSv1.3"), "{said}");
    // Somebody who does not speak TLS is not answered in the clear.
    let mut plain = Client::connect(address);
    plain.send(b"EHLO client.example\r\n");
    let heard = plain.read_once();
    assert!(heard.first().is_none_or(|kind| *kind == 21), "an alert or nothing: {heard:?}");
    // Beside it a listener without TLS has none.
    assert!(!server.client().say("EHLO x").lines.iter().any(|line| line == "STARTTLS"));
}

#[test]
fn where_tls_is_required_nothing_is_taken_without() {
    let server = with(|setup| {
        ecdsa(setup, "a", &["a.example"]);
        format!("{}listen on 127.0.0.1 port @SMTP@ tls-require pki a\n", pki("a"))
    });
    let mut client = server.client();
    for line in ["MAIL FROM:<a@b.example>", "RCPT TO:<a@b.example>", "DATA", "RSET", "VRFY a"] {
        assert!(client.say(line).starts_with("530 5.7.0 "), "{line}");
    }
    assert_eq!(client.say("NOOP").code, 250);
    let mut client = Encrypted::start(server.smtp, "a.example").expect("a handshake");
    assert!(client.say("MAIL FROM:<a@b.example>").starts_with("503 5.5.1 "), "EHLO must be said again");
    assert!(client.say("EHLO client.example").starts_with("250"));
    for (line, reply) in [("MAIL FROM:<a@b.example>", "250"), ("RCPT TO:<you@example.org>", "250"), ("DATA", "354")] {
        assert!(client.say(line).starts_with(reply), "{line}");
    }
    assert!(client.say("Subject: x\r\n\r\nx\r\n.").starts_with("250 2.0.0 queued"));
}

#[test]
fn commands_slipped_in_behind_starttls_are_refused_and_told() {
    let server = two_names();
    let mut client = server.client();
    client.send(b"STARTTLS\r\nMAIL FROM:<evil@b.example>\r\n");
    client.expect("421 4.7.0 ");
    assert!(client.is_closed(), "nothing behind it is answered");
    wait_until("the log tells", Duration::from_secs(5), || {
        server.printed().contains("why=\"commands came behind STARTTLS")
    });
    // In a segment of their own they are no handshake.
    let mut client = server.client();
    assert_eq!(client.say("STARTTLS").code, 220);
    client.send(b"MAIL FROM:<evil@b.example>\r\n");
    let heard = client.read_once();
    assert!(!heard.windows(4).any(|window| window == b"250 "), "{heard:?}");
    wait_until("the log tells", Duration::from_secs(5), || {
        server.printed().contains("tls-failed from=127.0.0.1 why=\"what came is not TLS\"")
    });
    assert_eq!(server.metric("tls_failed"), 1);
}

#[test]
fn rules_see_whether_a_session_is_encrypted() {
    let mut setup = Setup::whole("");
    ecdsa(&setup, "a", &["a.example"]);
    setup = setup.config(format!(
        "{SMALL}{}listen on 127.0.0.1 port @SMTP@ tls pki a\nhttp listen on 127.0.0.1 port @HTTP@\n\
         action \"none\" discard\nmatch for domain \"secret.example\" tls action \"none\"\n\
         match for domain \"open.example\" !tls action \"none\"\n",
        pki("a")
    ));
    let server = setup.start();
    let mut plain = server.client();
    plain.say("MAIL FROM:<a@b.example>");
    assert_eq!(plain.say("RCPT TO:<x@secret.example>").code, 550);
    assert_eq!(plain.say("RCPT TO:<x@open.example>").code, 250);
    let mut encrypted = Encrypted::start(server.smtp, "a.example").expect("a handshake");
    encrypted.say("EHLO client.example");
    encrypted.say("MAIL FROM:<a@b.example>");
    assert!(encrypted.say("RCPT TO:<x@secret.example>").starts_with("250"));
    assert!(encrypted.say("RCPT TO:<x@open.example>").starts_with("550"));
}

#[test]
fn s67_received_tells_the_truth() {
    let server = two_names();
    for (args, told) in [
        (&["--tls"][..], "with ESMTPS\n\t(TLS1.3:TLS_AES_128_GCM_SHA256:128:NO) id "),
        (
            &["--tls", "--tls-protocol", "tlsv1_2", "--tls-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
            "with ESMTPS\n\t(TLS1.2:TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256:128:NO) id ",
        ),
        (&[], "with ESMTP id "),
        (&["--protocol", "SMTP"], "with SMTP id "),
    ] {
        let box_dir = server.dir().join("box");
        swaks(server.smtp, args);
        let text = maildir::wait_for_message(&box_dir, told, |text| {
            String::from_utf8_lossy(text).replace("\r\n", "\n").contains(told)
        });
        assert!(text.starts_with(b"Return-Path:") || text.starts_with(b"Received:"));
    }
}

#[test]
fn a_renewed_certificate_is_taken_up_and_a_bad_one_refused() {
    let server = two_names();
    let old = Encrypted::start(server.smtp, "a.example").expect("a handshake");
    let mut open = Encrypted::start(server.smtp, "a.example").expect("a handshake");
    let new = pair(server.dir(), "a", &["a.example"], &PKCS_ECDSA_P256_SHA256);
    server.tell(&["reload"]);
    let shown = Encrypted::start(server.smtp, "a.example").expect("a handshake").shown();
    assert!(shown == new.der && shown != old.shown());
    assert!(open.say("EHLO client.example").starts_with("250"), "a session goes on with the old one");
    // Without a word, too: the key first, which fits nothing for a moment.
    let again = pair(server.dir(), "next", &["a.example"], &PKCS_ECDSA_P256_SHA256);
    for kind in ["key", "crt"] {
        let name = |of: &str| server.dir().join(format!("{of}.{kind}"));
        fs::rename(name("next"), name("a")).expect("renamed");
    }
    wait_until("the renewed certificate", Duration::from_secs(10), || {
        Encrypted::start(server.smtp, "a.example").is_ok_and(|met| met.shown() == again.der)
    });
    // A key that is not the certificate's: nothing changes, and the report says which.
    fs::copy(server.dir().join("b.key"), &new.key).expect("copied");
    let refused = cli::run(&["reload", "--state", &server.state.display().to_string()]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
    assert!(!refused.status.success() && text.contains("a.key does not belong to certificate"), "{text}");
    assert_eq!(Encrypted::start(server.smtp, "a.example").expect("a handshake").shown(), again.der);
}

#[test]
fn check_finds_what_is_wrong_with_certificates() {
    let setup = Setup::whole("");
    let dir = setup.dir();
    ecdsa(&setup, "good", &["a.example"]);
    ecdsa(&setup, "other", &["a.example"]);
    let old = pair_until(dir, "old", &["a.example"], &PKCS_ECDSA_P256_SHA256, (2021, 1, 1));
    fs::write(dir.join("no.pem"), "nothing\n").expect("written");
    let check = |cert: &str, key: &str| {
        let text = format!(
            "pki x cert {cert} key {key}\nlisten on lo0 port 2526 tls-require pki x\naction a discard\nmatch for any action a\n"
        );
        let file = dir.join("checked.conf");
        fs::write(&file, text).expect("written");
        let output = cli::run(&["check", &file.display().to_string()]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(check("good.crt", "good.key"), (Some(0), String::new()));
    for (cert, key, told) in [
        ("good.crt", "other.key", "other.key does not belong to certificate"),
        ("no.pem", "good.key", "no.pem: there is no certificate in it"),
        ("good.crt", "good.crt", "can be read by others"),
    ] {
        let (code, text) = check(cert, key);
        assert_eq!(code, Some(78), "{text}");
        assert!(text.contains(told) && text.contains("checked.conf:1"), "{text}");
    }
    let (code, text) = check("old.crt", "old.key");
    assert_eq!(code, Some(0));
    assert!(text.contains("warning: ") && text.contains("old.crt has expired "), "{text}");
    drop(old);
}

#[test]
fn s141_keys_are_in_the_keyholder_alone() {
    assert!(rustix::process::geteuid().is_root(), "other processes' memory is for root alone to read");
    let mut secret = Vec::new();
    let server = with(|setup| {
        secret = ecdsa(setup, "a", &["a.example"]).secret;
        format!("{}listen on 127.0.0.1 port @SMTP@ tls pki a\n", pki("a"))
    });
    for _ in 0..50 {
        Encrypted::start(server.smtp, "a.example").expect("a handshake");
    }
    // The search finds what is there.
    assert!(copies(server.keyholder(), &secret) > 0, "the keyholder has the key");
    assert_eq!(copies(server.engine(), &secret), 0, "the engine has it not");
    assert_eq!(copies(server.supervisor(), &secret), 0, "the supervisor has it not");
    // Nor its text.
    let text = fs::read_to_string(server.dir().join("a.key")).expect("the key");
    let line = text.lines().nth(1).expect("a line").as_bytes().to_vec();
    assert_eq!(count_in_memory(server.engine(), &line), 0);
    assert_eq!(count_in_memory(server.supervisor(), &line), 0);
    server.tell(&["reload"]);
    Encrypted::start(server.smtp, "a.example").expect("a handshake");
    assert_eq!(copies(server.engine(), &secret) + copies(server.supervisor(), &secret), 0, "nor after a reload");
}

#[test]
fn s141_a_keyholder_that_dies_is_waited_for() {
    let server = two_names();
    for round in 0..3 {
        let keyholder = server.keyholder();
        Encrypted::start(server.smtp, "a.example").expect("a handshake");
        kill_process(keyholder, Signal::KILL).expect("it runs");
        // Sessions that need no key go on at once, and a new handshake waits for the new keyholder.
        assert_eq!(server.client().say("NOOP").code, 250);
        let outcome = Encrypted::start(server.smtp, "b.example");
        assert!(outcome.is_ok(), "round {round}: {:?}", outcome.err());
        assert_ne!(server.keyholder(), keyholder);
    }
    // Also when the engine is the one that dies.
    kill_process(server.engine(), Signal::KILL).expect("it runs");
    wait_until("a new engine makes handshakes", Duration::from_secs(20), || {
        Encrypted::start(server.smtp, "a.example").is_ok()
    });
}

//! AUTH (RFC 4954): where it is offered, what each mechanism says, and what a client may do wrong how often.

mod support;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringpost_smtp::Policy;
use ringpost_smtp::server::{Authentication, Encryption, Logins, Mechanism, Mechanisms};
use support::Caller;

fn caller(logins: Logins, in_clear: bool) -> Caller {
    let mut policy = Policy::new("mx.example");
    policy.encryption = if in_clear { Encryption::Never } else { Encryption::Offered };
    policy.authentication = Authentication { logins, in_clear, mechanisms: Mechanisms::passwords() };
    Caller::new(policy)
}

/// Where nobody listens, EHLO said.
fn near() -> Caller {
    let mut caller = caller(Logins::Required, true);
    caller.say("EHLO c");
    caller
}

fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

fn plain(user: &str, password: &str) -> String {
    format!("AUTH PLAIN {}", base64(&format!("\0{user}\0{password}")))
}

const IN: &str = "235 2.7.0 logged in\r\n";
const WRONG: &str = "535 5.7.8 user or password is wrong\r\n";

#[test]
fn s61_it_is_offered_under_tls_and_comes_before_mail() {
    let mut caller = caller(Logins::Required, false);
    assert!(!caller.say("EHLO c").contains("AUTH"));
    assert!(caller.say(&plain("gilles", "right")).starts_with("538 5.7.11 STARTTLS first"));
    assert_eq!(caller.say("MAIL FROM:<a@b>"), "530 5.7.0 log in first (AUTH)\r\n");
    caller.say("STARTTLS");
    assert!(caller.say("EHLO c").contains("\r\n250-AUTH PLAIN LOGIN\r\n"));
    assert!(caller.say("MAIL FROM:<a@b>").starts_with("530 5.7.0"));
    assert_eq!(caller.say(&plain("gilles", "right")), IN);
    assert_eq!(caller.session.user(), Some("gilles"));
    assert!(caller.say("MAIL FROM:<a@b> AUTH=<>").starts_with("250"));
    assert_eq!(caller.say(&plain("gilles", "right")), "503 5.5.1 not within a transaction; RSET ends it\r\n");
    caller.say("RSET");
    assert_eq!(caller.say(&plain("gilles", "right")), "503 5.5.1 logged in already\r\n");
    // EHLO makes nobody a stranger again.
    caller.say("EHLO c");
    assert_eq!(caller.session.user(), Some("gilles"));
}

#[test]
fn what_was_said_before_the_handshake_logs_nobody_in() {
    let mut caller = caller(Logins::Offered, true);
    caller.say("EHLO c");
    assert_eq!(caller.say(&plain("gilles", "right")), IN);
    caller.session.on_encrypted();
    assert_eq!(caller.session.user(), None);
}

#[test]
fn every_way_to_say_it() {
    let user = base64("gilles");
    for (lines, last) in [
        (vec![plain("gilles", "right")], IN),
        (vec!["auth plain".into(), base64("gilles\0gilles\0right")], IN),
        (vec!["AUTH LOGIN".into(), user.clone(), base64("right")], IN),
        (vec![format!("AUTH LOGIN {user}"), base64("right")], IN),
        (vec!["AUTH LOGIN".into(), user, base64("left")], WRONG),
        (vec![plain("gilles", "left")], WRONG),
        (vec![plain("", "right")], WRONG),
        (vec![plain("gilles", "")], WRONG),
        (vec![plain("a:b", "right")], WRONG),
        (vec![plain("gilles", &"x".repeat(1025))], WRONG),
        (vec!["AUTH PLAIN".into(), base64("eric\0gilles\0right")], WRONG),
    ] {
        let mut caller = near();
        let (end, begin) = lines.split_last().unwrap();
        for line in begin {
            assert!(caller.say(line).starts_with("334 "), "{line}");
        }
        assert_eq!(caller.say(end), last, "{lines:?}");
    }
    let mut caller = near();
    assert_eq!(caller.say("AUTH PLAIN"), "334 \r\n");
    let mut caller = near();
    assert_eq!(caller.say("AUTH LOGIN"), format!("334 {}\r\n", base64("Username:")));
    assert_eq!(caller.say("Zw=="), format!("334 {}\r\n", base64("Password:")));
}

#[test]
fn mistakes_have_their_replies_and_the_session_goes_on() {
    let mut caller = near();
    for (line, reply) in [
        ("AUTH", "501 5.5.4 "),
        ("AUTH PLAIN a b", "501 5.5.4 "),
        ("AUTH CRAM-MD5", "504 5.5.4 "),
        ("AUTH EXTERNAL =", "504 5.5.4 "),
        ("AUTH PLAIN %%%", "501 5.5.2 "),
        ("AUTH PLAIN /w==", "501 5.5.2 "),
        ("AUTH PLAIN =", "501 5.5.2 "),
        ("AUTH PLAIN", "334 "),
        ("*", "501 5.7.0 "),
        ("AUTH LOGIN", "334 "),
        ("Zw", "501 5.5.2 "),
        ("NOOP", "250 "),
        (&plain("down", "right"), "454 4.7.0 "),
        (&plain("down", "right"), "454 4.7.0 "),
        (&plain("down", "right"), "454 4.7.0 "),
        (&plain("down", "right"), "454 4.7.0 "),
        (&plain("gilles", "right"), "235 "),
    ] {
        assert!(caller.say(line).starts_with(reply), "{line}");
    }
    let mut caller = self::caller(Logins::Offered, true);
    assert!(caller.say("AUTH PLAIN").starts_with("503 5.5.1 EHLO first"));
    caller.say("HELO c");
    assert!(caller.say("AUTH PLAIN").starts_with("503 5.5.1 EHLO first"));
    assert!(caller.say("MAIL FROM:<a@b>").starts_with("250"), "who only may log in need not");
    let mut caller = self::caller(Logins::Never, true);
    assert!(!caller.say("EHLO c").contains("AUTH"));
    assert!(caller.say("AUTH PLAIN").starts_with("502 5.5.1"));
    assert!(caller.say("MAIL FROM:<a@b> AUTH=<>").starts_with("555"));
}

#[test]
fn three_wrong_passwords_end_the_session() {
    let mut caller = near();
    assert_eq!(caller.say(&plain("gilles", "a")), WRONG);
    assert_eq!(caller.say(&plain("gilles", "b")), WRONG);
    let last = caller.say(&plain("gilles", "c"));
    assert_eq!(last, format!("{WRONG}421 4.7.0 mx.example too many failed logins, closing connection\r\n"));
    assert!(caller.closed);
}

#[test]
fn responses_may_be_long_and_not_endless() {
    let mut caller = near();
    // Too long for a password, and not for a line.
    assert_eq!(caller.say(&plain("gilles", &"x".repeat(9000))), WRONG);
    caller.say("AUTH PLAIN");
    assert_eq!(caller.say(&base64(&format!("\0gilles\0{}", "x".repeat(9000)))), WRONG);
    caller.say("AUTH LOGIN");
    assert_eq!(caller.say(&"A".repeat(13_000)), "500 5.5.6 response too long\r\n");
    assert_eq!(caller.say("NOOP"), "250 2.0.0 ok\r\n");
    assert_eq!(caller.say(&format!("NOOP {}", "A".repeat(9000))), "500 5.5.2 command line too long\r\n");
    assert_eq!(caller.say(&format!("AUTH PLAIN {}", "A".repeat(13_000))), "500 5.5.2 command line too long\r\n");
    assert_eq!(caller.say(&plain("gilles", "right")), IN);
}

#[test]
fn a_bare_newline_ends_the_login() {
    let mut caller = near();
    caller.say("AUTH PLAIN");
    let replies = String::from_utf8(caller.feed(b"AGdpbGxlcwByaWdodA==\nNOOP\r\n").concat()).unwrap();
    assert!(replies.lines().all(|line| line.starts_with("500 5.5.2")), "{replies}");
    assert_eq!(caller.session.user(), None);
    assert_eq!(caller.say("NOOP"), "250 2.0.0 ok\r\n");
}

#[test]
fn challenges_go_back_and_forth() {
    let mut policy = Policy::new("mx.example");
    let mechanisms = Mechanisms::passwords().with(Mechanism::ScramSha256);
    policy.authentication = Authentication { logins: Logins::Offered, in_clear: true, mechanisms };
    let mut caller = Caller::new(policy);
    assert!(caller.say("EHLO c").contains("\r\n250-AUTH SCRAM-SHA-256 PLAIN LOGIN\r\n"));
    assert_eq!(caller.say(&format!("AUTH SCRAM-SHA-256 {}", base64("n,,"))), "334 biwsPw==\r\n");
    assert_eq!(caller.say(&base64("guess")), WRONG);
    caller.say(&format!("AUTH SCRAM-SHA-256 {}", base64("n,,")));
    assert_eq!(caller.say(&base64("proof")), format!("334 {}\r\n", base64("v=server")));
    assert_eq!(caller.session.user(), None, "not yet");
    assert_eq!(caller.say(""), IN);
    assert_eq!(caller.session.user(), Some("scram"));
}

#[test]
fn a_certificate_is_a_login_of_its_own() {
    let mut caller = caller(Logins::Required, false);
    caller.say("EHLO c");
    caller.say("STARTTLS");
    caller.session.on_certificate("app");
    assert!(caller.say("EHLO c").contains("\r\n250-AUTH PLAIN LOGIN EXTERNAL\r\n"));
    assert_eq!(caller.session.user(), Some("app"));
    assert_eq!(caller.say(&format!("AUTH EXTERNAL {}", base64("root"))), WRONG);
    assert_eq!(caller.say("AUTH EXTERNAL"), "334 \r\n");
    assert_eq!(caller.say(""), IN);
    assert!(caller.say("MAIL FROM:<a@b>").starts_with("250"));
}

#[test]
fn the_protocol_has_an_a() {
    let arena = bumpalo::Bump::new();
    let tx = ringpost_smtp::Transaction::new(&arena);
    let mut caller = near();
    caller.say(&plain("gilles", "right"));
    assert_eq!(caller.session.protocol_name(&tx), "ESMTPA");
    let mut caller = self::caller(Logins::Offered, false);
    caller.say("EHLO c");
    caller.say("STARTTLS");
    caller.say("EHLO c");
    caller.say(&plain("gilles", "right"));
    assert_eq!(caller.session.protocol_name(&tx), "ESMTPSA");
}

#[test]
fn proofs_are_not_shown() {
    let secret = ringpost_smtp::server::Secret::new("right".into());
    let proof = ringpost_smtp::server::Proof::Password { user: "u".into(), password: secret };
    assert!(!format!("{proof:?}").contains("right"));
}

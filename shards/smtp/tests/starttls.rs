//! STARTTLS (RFC 3207): who is offered it, what it makes of the session, and what may not come behind it.

mod support;

use ringpost_smtp::Policy;
use ringpost_smtp::server::Encryption;
use support::Caller;

fn caller(encryption: Encryption) -> Caller {
    let mut policy = Policy::new("mx.example");
    policy.encryption = encryption;
    Caller::new(policy)
}

fn said(caller: &mut Caller, line: &str) -> String {
    String::from_utf8(caller.feed(format!("{line}\r\n").as_bytes()).concat()).unwrap()
}

#[test]
fn it_is_offered_where_it_is_there_and_not_on() {
    let mut without = caller(Encryption::Never);
    assert!(!said(&mut without, "EHLO c").contains("STARTTLS"));
    assert_eq!(said(&mut without, "STARTTLS"), "502 5.5.1 TLS is not offered here\r\n");
    for encryption in [Encryption::Offered, Encryption::Required] {
        let mut with = caller(encryption);
        assert_eq!(said(&mut with, "STARTTLS"), "503 5.5.1 EHLO first\r\n");
        assert!(said(&mut with, "EHLO c").contains("\r\n250-STARTTLS\r\n"));
        assert_eq!(said(&mut with, "STARTTLS now"), "501 5.5.4 this command takes no argument\r\n");
        assert_eq!(said(&mut with, "starttls"), "220 2.0.0 begin the TLS handshake\r\n");
        assert!(with.session.is_encrypted());
        assert!(!said(&mut with, "EHLO c").contains("STARTTLS"));
        assert_eq!(said(&mut with, "STARTTLS"), "503 5.5.1 this session is encrypted already\r\n");
    }
}

#[test]
fn what_was_said_before_is_forgotten() {
    let mut caller = caller(Encryption::Offered);
    said(&mut caller, "EHLO before.example");
    assert!(said(&mut caller, "MAIL FROM:<a@b>").starts_with("250"));
    assert_eq!(said(&mut caller, "STARTTLS"), "503 5.5.1 not within a transaction; RSET ends it\r\n");
    said(&mut caller, "RSET");
    said(&mut caller, "STARTTLS");
    assert_eq!(caller.session.helo(), "");
    assert_eq!(said(&mut caller, "MAIL FROM:<a@b>"), "503 5.5.1 EHLO first\r\n");
    said(&mut caller, "EHLO after.example");
    assert_eq!(caller.session.helo(), "after.example");
    for line in ["MAIL FROM:<a@b>", "RCPT TO:<c@d>"] {
        assert!(said(&mut caller, line).starts_with("250"));
    }
    caller.feed(b"DATA\r\n");
    assert!(said(&mut caller, "x\r\n.").starts_with("250 2.0.0 queued"));
    assert_eq!(caller.messages.len(), 1);
}

#[test]
fn the_protocol_has_an_s_and_utf8_keeps_its_word() {
    let arena = bumpalo::Bump::new();
    let tx = ringpost_smtp::Transaction::new(&arena);
    let mut caller = caller(Encryption::Offered);
    said(&mut caller, "EHLO c");
    assert_eq!(caller.session.protocol_name(&tx), "ESMTP");
    said(&mut caller, "STARTTLS");
    said(&mut caller, "EHLO c");
    assert_eq!(caller.session.protocol_name(&tx), "ESMTPS");
    said(&mut caller, "HELO c");
    assert_eq!(caller.session.protocol_name(&tx), "SMTP");
}

#[test]
fn nothing_may_come_behind_it() {
    for behind in ["MAIL FROM:<evil@b>\r\n", "N", "\u{16}\u{3}\u{1}"] {
        let mut caller = caller(Encryption::Offered);
        said(&mut caller, "EHLO c");
        let replies = String::from_utf8(caller.feed(format!("STARTTLS\r\n{behind}").as_bytes()).concat()).unwrap();
        assert!(replies.starts_with("421 4.7.0 mx.example nothing may follow STARTTLS"), "{replies}");
        assert_eq!(replies.matches("\r\n").count(), 1, "only one reply");
        assert!(caller.injected && caller.closed && !caller.session.is_encrypted());
    }
    // What comes before it in the same segment is in order.
    let mut caller = caller(Encryption::Offered);
    let replies = String::from_utf8(caller.feed(b"EHLO c\r\nNOOP\r\nSTARTTLS\r\n").concat()).unwrap();
    assert!(replies.ends_with("250 2.0.0 ok\r\n220 2.0.0 begin the TLS handshake\r\n"), "{replies}");
    assert!(!caller.injected);
}

#[test]
fn where_it_is_required_nothing_else_is_taken_before() {
    let mut caller = caller(Encryption::Required);
    let refused = "530 5.7.0 STARTTLS first: nothing is taken here without encryption\r\n";
    assert!(said(&mut caller, "EHLO c").starts_with("250"));
    for line in ["MAIL FROM:<a@b>", "RCPT TO:<a@b>", "DATA", "BDAT 1 LAST", "RSET", "VRFY x", "EXPN x", "HELP"] {
        assert_eq!(said(&mut caller, line), refused, "{line}");
    }
    assert_eq!(said(&mut caller, "NOOP"), "250 2.0.0 ok\r\n");
    assert!(said(&mut caller, "HELO c").starts_with("250"));
    said(&mut caller, "STARTTLS");
    said(&mut caller, "EHLO c");
    assert!(said(&mut caller, "MAIL FROM:<a@b>").starts_with("250"));
    let mut caller = self::caller(Encryption::Required);
    assert!(said(&mut caller, "QUIT").starts_with("221"));
}

#[test]
fn a_server_that_is_busy_says_so_and_the_session_goes_on() {
    let mut caller = caller(Encryption::Offered);
    said(&mut caller, "EHLO busy");
    assert_eq!(said(&mut caller, "STARTTLS"), "454 4.7.0 too many handshakes\r\n");
    assert!(!caller.session.is_encrypted());
    assert!(said(&mut caller, "MAIL FROM:<a@b>").starts_with("250"));
}

//! AUTH at a server: when it is said, how, and what becomes of it.

#[path = "support/client.rs"]
mod client;

use client::Client;
use ringpost_smtp::client::{Event, Login, RemoteReply, Session, StartTls};

fn login() -> Login {
    Login { user: "gilles".into(), password: "se:cret".into() }
}

/// Past EHLO on an encrypted connection.
fn asked(ehlo_reply: &str) -> (Client, Event) {
    let mut client = Client::new(Session::new("c.example").encrypted().logging_in(login()));
    client.hears("220 mx\r\n");
    assert_eq!(client.said(), "EHLO c.example\r\n");
    let event = client.hears(ehlo_reply);
    (client, event)
}

#[test]
fn plain_is_said_at_once_and_nothing_before_it_is_answered() {
    let (mut client, event) = asked("250-mx\r\n250-PIPELINING\r\n250 AUTH login plain XOAUTH2\r\n");
    assert_eq!(event, Event::NeedInput);
    assert_eq!(client.said(), "AUTH PLAIN AGdpbGxlcwBzZTpjcmV0\r\n");
    assert!(!client.session.is_ready());
    assert_eq!(client.hears("235 2.7.0 welcome\r\n"), Event::Ready);
    client.begin("a@b", &["x@d"], false).unwrap();
    assert!(client.said().starts_with("MAIL FROM:<a@b>\r\n"));
}

#[test]
fn login_is_said_in_three_lines_where_there_is_no_better() {
    let (mut client, _) = asked("250-mx\r\n250 AUTH CRAM-MD5 LOGIN\r\n");
    assert_eq!(client.said(), "AUTH LOGIN\r\n");
    assert_eq!(client.hears("334 VXNlcm5hbWU6\r\n"), Event::NeedInput);
    assert_eq!(client.said(), "Z2lsbGVz\r\n");
    assert_eq!(client.hears("334 UGFzc3dvcmQ6\r\n"), Event::NeedInput);
    assert_eq!(client.said(), "c2U6Y3JldA==\r\n");
    assert_eq!(client.hears("235 ok\r\n"), Event::Ready);
}

#[test]
fn a_refusal_is_told_apart_from_a_server_that_cannot_judge_now() {
    for (reply, refused) in [("535 5.7.8 no", true), ("534 5.7.9 weak", true), ("454 4.7.0 later", false)] {
        let (mut client, _) = asked("250-mx\r\n250 AUTH PLAIN\r\n");
        client.said();
        match client.hears(&format!("{reply}\r\n")) {
            Event::LoginRefused(heard) => assert!(refused && heard.to_string() == reply, "{heard}"),
            Event::Failed(heard) => assert!(!refused && heard.to_string() == reply, "{heard}"),
            other => panic!("{other:?}"),
        }
        assert!(client.session.is_closing());
    }
    let (mut client, _) = asked("250-mx\r\n250 AUTH PLAIN\r\n");
    client.said();
    assert!(matches!(client.hears("334 what else\r\n"), Event::Failed(_)), "all was said");
}

fn failed(event: &Event) -> &RemoteReply {
    match event {
        Event::Failed(reply) => reply,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_way_to_log_in_nothing_is_sent() {
    for reply in ["250-mx\r\n250 AUTH SCRAM-SHA-256 CRAM-MD5\r\n", "250 mx\r\n"] {
        let (mut client, event) = asked(reply);
        assert!(failed(&event).text().contains("no way to log in"), "{event:?}");
        assert_eq!((client.said().as_str(), client.session.is_ready()), ("", false));
    }
    let mut client = Client::new(Session::new("c.example").encrypted().logging_in(login()));
    client.hears("220 mx\r\n");
    client.hears("502 what\r\n");
    client.said();
    assert!(failed(&client.hears("250 mx\r\n")).text().contains("no way to log in"), "HELO has none");
}

#[test]
fn a_password_is_said_after_the_handshake_alone() {
    let greeted = |starttls| {
        let mut client = Client::new(Session::new("c.example").asking_for(starttls).logging_in(login()));
        client.hears("220 mx\r\n");
        client.said();
        client
    };
    for (starttls, ehlo_reply) in [
        (StartTls::Never, "250-mx\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n"),
        (StartTls::IfOffered, "250-mx\r\n250 AUTH PLAIN LOGIN\r\n"),
    ] {
        let mut client = greeted(starttls);
        assert!(failed(&client.hears(ehlo_reply)).text().contains("without encryption"));
        assert_eq!(client.said(), "");
    }
    // Nor where STARTTLS is refused after all.
    let mut client = greeted(StartTls::IfOffered);
    client.hears("250-mx\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n");
    assert_eq!(client.said(), "STARTTLS\r\n");
    assert!(failed(&client.hears("454 4.7.0 not now\r\n")).text().contains("without encryption"));
    // What was offered before the handshake counts for nothing.
    let mut client = greeted(StartTls::Required);
    client.hears("250-mx\r\n250-STARTTLS\r\n250 AUTH PLAIN\r\n");
    client.said();
    assert_eq!(client.hears("220 go\r\n"), Event::StartTls);
    client.session.secured(&mut client.out);
    assert_eq!(client.said(), "EHLO c.example\r\n");
    client.hears("250-mx\r\n250 AUTH LOGIN\r\n");
    assert_eq!(client.said(), "AUTH LOGIN\r\n");
}

#[test]
fn nothing_prints_the_password() {
    let (client, _) = asked("250 mx\r\n");
    let printed = format!("{:?} {:?}", client.session, login());
    assert!(!printed.contains("cret") && !printed.contains("gilles"), "{printed}");
}

//! The LMTP client against scripted servers: a result for each recipient, whatever becomes of the others.

#[path = "support/client.rs"]
mod client;

use client::{Client, results, texts};
use ringpost_smtp::client::{Event, RemoteReply, Session};
use ringpost_smtp::limits;

const LHLO: &str = "250-store\r\n250-PIPELINING\r\n250-ENHANCEDSTATUSCODES\r\n250 8BITMIME\r\n";

fn greeted(reply: &str) -> Client {
    Client::greeted(Session::lmtp("c.example"), "LHLO", reply)
}

fn begin(client: &mut Client, recipients: &[&str]) {
    client.begin("a@b", recipients, false).expect("the server offers enough");
}

/// Up to the body, which is sent.
fn sends(client: &mut Client, recipients: &[&str], replies: &str) {
    begin(client, recipients);
    assert_eq!(client.hears(replies), Event::SendBody);
    client.session.body_sent();
    client.said();
}

#[test]
fn each_accepted_recipient_has_its_own_reply_in_order() {
    let mut client = greeted(LHLO);
    begin(&mut client, &["w@d", "x@d", "y@d", "z@d"]);
    assert_eq!(
        client.said(),
        "MAIL FROM:<a@b>\r\nRCPT TO:<w@d>\r\nRCPT TO:<x@d>\r\nRCPT TO:<y@d>\r\nRCPT TO:<z@d>\r\nDATA\r\n"
    );
    let before = "250 ok\r\n250 ok\r\n550 5.1.1 nobody\r\n250 ok\r\n250 ok\r\n354 go\r\n";
    assert_eq!(client.hears(before), Event::SendBody);
    client.session.body_sent();
    assert_eq!(client.session.timeout(), limits::DATA_END_TIMEOUT);
    assert_eq!(client.hears("250 2.1.5 stored\r\n452-4.2.2 over\r\n452 4.2.2 quota\r\n"), Event::NeedInput);
    assert!(!client.session.is_ready(), "one reply is still to come");
    let event = client.hears("552 5.2.3 too large\r\n");
    assert_eq!(
        results(&event),
        "D 250 2.1.5 stored, P 550 5.1.1 nobody, T 452 4.2.2 over quota, P 552 5.2.3 too large"
    );
    assert!(client.session.is_ready());
    assert_eq!(client.session.messages_sent(), 1);
    begin(&mut client, &["w@d"]);
    assert!(client.said().starts_with("MAIL"), "no RSET behind a message that was answered");
}

#[test]
fn the_same_recipient_twice_is_answered_twice() {
    let mut client = greeted(LHLO);
    sends(&mut client, &["x@d", "x@d"], "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    assert_eq!(client.hears("250 one\r\n"), Event::NeedInput);
    assert_eq!(results(&client.hears("250 two\r\n")), "D 250 one, D 250 two");
}

#[test]
fn a_message_that_nobody_got_counts_for_nothing() {
    let mut client = greeted(LHLO);
    sends(&mut client, &["x@d", "y@d"], "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    assert_eq!(results(&client.hears("451 busy\r\n550 no\r\n")), "T 451 busy, P 550 no");
    assert_eq!(client.session.messages_sent(), 0);
    assert!(client.session.is_ready());
}

#[test]
fn a_connection_lost_between_replies_keeps_those_that_came() {
    let mut client = greeted(LHLO);
    sends(&mut client, &["x@d", "y@d", "z@d"], "250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    assert_eq!(client.hears("250 stored\r\n"), Event::NeedInput);
    let results = client.session.abandon(RemoteReply::local(451, (4, 4, 2), "lost")).expect("a transaction was open");
    assert_eq!(texts(&results), "D 250 stored, T 451 4.4.2 lost, T 451 4.4.2 lost");
    assert!(client.session.is_closing());
}

#[test]
fn a_farewell_between_replies_keeps_those_that_came() {
    let mut client = greeted(LHLO);
    sends(&mut client, &["x@d", "y@d"], "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    let event = client.hears("250 stored\r\n421 4.3.2 bye\r\n");
    assert_eq!(results(&event), "D 250 stored, T 421 4.3.2 bye");
    assert!(client.session.is_closing());
    let mut client = greeted(LHLO);
    sends(&mut client, &["x@d", "y@d"], "250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n");
    let event = client.hears("250 stored\r\n354 what\r\n");
    assert!(results(&event).starts_with("D 250 stored, T 451 4.5.0 "), "{event:?}");
    assert!(client.session.is_closing());
}

#[test]
fn there_is_no_older_word_than_lhlo() {
    let mut client = Client::new(Session::lmtp("c.example"));
    client.hears("220 store\r\n");
    client.said();
    assert!(matches!(client.hears("500 5.5.1 what?\r\n"), Event::Failed(reply) if reply.code() == 500));
    assert_eq!(client.said(), "", "no HELO");
    assert!(client.session.is_closing());
}

#[test]
fn nobody_accepted_means_no_message() {
    // The server says 503 to DATA, as RFC 2033 wants it.
    let mut client = greeted(LHLO);
    begin(&mut client, &["x@d", "y@d"]);
    client.said();
    let event = client.hears("250 ok\r\n550 no\r\n450 later\r\n503 5.5.1 no recipients\r\n");
    assert_eq!(results(&event), "P 550 no, T 450 later");
    begin(&mut client, &["z@d"]);
    assert!(client.said().starts_with("RSET\r\nMAIL"));
    // One that wants a message all the same would answer its end with no reply at all: the connection is over.
    let mut client = greeted(LHLO);
    begin(&mut client, &["x@d"]);
    client.said();
    assert_eq!(results(&client.hears("250 ok\r\n550 no\r\n354 go\r\n")), "P 550 no");
    assert_eq!(client.said(), "");
    assert!(client.session.is_closing());
}

#[test]
fn a_refusal_in_the_middle_of_the_message_is_the_first_recipients() {
    let mut client = greeted(LHLO);
    begin(&mut client, &["x@d", "y@d", "z@d"]);
    assert_eq!(client.hears("250 ok\r\n550 no\r\n250 ok\r\n250 ok\r\n354 go\r\n"), Event::SendBody);
    let event = client.hears("552 5.3.4 too much\r\n");
    assert!(results(&event).starts_with("P 550 no, P 552 5.3.4 too much, T 451 4.5.0 "), "{event:?}");
    assert!(client.session.is_closing());
}

#[test]
fn without_pipelining_the_order_is_the_same() {
    let mut client = greeted("250 store\r\n");
    begin(&mut client, &["x@d", "y@d"]);
    assert_eq!(client.said(), "MAIL FROM:<a@b>\r\n");
    client.hears("250 ok\r\n");
    assert_eq!(client.said(), "RCPT TO:<x@d>\r\n");
    client.hears("550 no\r\n");
    assert_eq!(client.said(), "RCPT TO:<y@d>\r\n");
    client.hears("250 ok\r\n");
    assert_eq!(client.said(), "DATA\r\n");
    assert_eq!(client.hears("354 go\r\n"), Event::SendBody);
    client.session.body_sent();
    assert_eq!(results(&client.hears("250 stored\r\n")), "P 550 no, D 250 stored");
}

#[test]
fn a_refused_mail_decides_for_all() {
    let mut client = greeted(LHLO);
    begin(&mut client, &["x@d", "y@d"]);
    let event = client.hears("550 5.7.1 not you\r\n503 x\r\n503 x\r\n503 x\r\n");
    assert_eq!(results(&event), "P 550 5.7.1 not you, P 550 5.7.1 not you");
    assert!(client.session.is_ready());
}

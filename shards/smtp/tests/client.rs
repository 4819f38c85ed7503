//! The client against scripted servers: what it says, and what it makes of the answers.

#[path = "support/client.rs"]
mod client;

use client::{Client, result, results};
use ringpost_smtp::client::{Envelope, Event, RemoteReply, Requests, Session, StartTls};
use ringpost_smtp::dsn::{Notify, OfMessage, OfRecipient, Ret};
use ringpost_smtp::{Stuffer, limits};

const PIPELINING: &str = "250-mx\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 SIZE 1000\r\n";
const PLAIN: &str = "250 mx\r\n";

fn greeted(ehlo_reply: &str) -> Client {
    Client::greeted(Session::new("c.example"), "EHLO", ehlo_reply)
}

fn sends_body(client: &mut Client) {
    let mut stuffer = Stuffer::new();
    stuffer.stuff(b".x\r\n", &mut client.out);
    stuffer.finish(&mut client.out);
    assert_eq!(client.said(), "..x\r\n.\r\n");
    client.session.body_sent();
}

#[test]
fn pipelined_commands_leave_together_and_each_recipient_has_its_result() {
    let mut client = greeted(PIPELINING);
    client.begin("a@b", &["x@d", "y@d", "z@d"], true).unwrap();
    assert_eq!(
        client.said(),
        "MAIL FROM:<a@b> SIZE=10 BODY=8BITMIME\r\nRCPT TO:<x@d>\r\nRCPT TO:<y@d>\r\nRCPT TO:<z@d>\r\nDATA\r\n"
    );
    assert_eq!(
        client.hears("250 ok\r\n250 ok\r\n550-5.1.1 no\r\n550 5.1.1 user\r\n450 4.2.1 later\r\n"),
        Event::NeedInput
    );
    assert_eq!(client.session.timeout(), limits::DATA_START_TIMEOUT);
    assert_eq!(client.hears("354 go\r\n"), Event::SendBody);
    sends_body(&mut client);
    assert_eq!(client.session.timeout(), limits::DATA_END_TIMEOUT);
    let event = client.hears("250 2.0.0 taken\r\n");
    assert_eq!(results(&event), "D 250 2.0.0 taken, P 550 5.1.1 no user, T 450 4.2.1 later");
    assert!(client.session.is_ready());
    assert_eq!(client.session.messages_sent(), 1);
    client.begin("", &["x@d"], true).unwrap();
    assert!(client.said().starts_with("MAIL FROM:<> "), "no RSET behind a message that was taken");
}

#[test]
fn without_pipelining_commands_leave_one_by_one() {
    let mut client = greeted(PLAIN);
    client.begin("a@b", &["x@d", "y@d"], true).unwrap();
    assert_eq!(client.said(), "MAIL FROM:<a@b>\r\n");
    client.hears("250 ok\r\n");
    assert_eq!(client.said(), "RCPT TO:<x@d>\r\n");
    client.hears("550 no\r\n");
    assert_eq!(client.said(), "RCPT TO:<y@d>\r\n");
    client.hears("251 forwarded\r\n");
    assert_eq!(client.said(), "DATA\r\n");
    assert_eq!(client.hears("354 go\r\n"), Event::SendBody);
    sends_body(&mut client);
    assert_eq!(results(&client.hears("452 4.3.1 full\r\n")), "P 550 no, T 452 4.3.1 full");
    assert!(client.session.is_ready());
    // All recipients refused: no DATA, and RSET before the next message.
    client.begin("a@b", &["x@d"], true).unwrap();
    assert_eq!(client.said(), "MAIL FROM:<a@b>\r\n");
    client.hears("250 ok\r\n");
    client.said();
    assert_eq!(results(&client.hears("550 no\r\n")), "P 550 no");
    client.begin("a@b", &["y@d"], true).unwrap();
    assert_eq!(client.said(), "RSET\r\n");
    client.hears("250 ok\r\n");
    assert_eq!(client.said(), "MAIL FROM:<a@b>\r\n");
    assert_eq!(results(&client.hears("451 later\r\n")), "T 451 later");
    client.begin("a@b", &["y@d"], true).unwrap();
    assert_eq!(client.said(), "MAIL FROM:<a@b>\r\n", "no RSET behind a refused MAIL");
}

#[test]
fn a_refused_mail_decides_for_all() {
    let mut client = greeted(PIPELINING);
    client.begin("a@b", &["x@d", "y@d"], true).unwrap();
    let event = client.hears("550 5.7.1 not you\r\n503 5.5.1 MAIL first\r\n503 x\r\n503 x\r\n");
    assert_eq!(results(&event), "P 550 5.7.1 not you, P 550 5.7.1 not you");
    assert!(client.session.is_ready());
}

#[test]
fn a_server_that_goes_on_after_refusing_mail_gets_no_message_at_all() {
    let mut client = greeted(PIPELINING);
    client.begin("a@b", &["x@d"], true).unwrap();
    client.said();
    assert_eq!(results(&client.hears("451 later\r\n250 ok\r\n354 go\r\n")), "T 451 later");
    assert_eq!((client.said().as_str(), client.session.is_closing()), ("", true));
}

#[test]
fn a_message_for_nobody_is_a_lone_dot() {
    let mut client = greeted(PIPELINING);
    client.begin("a@b", &["x@d", "y@d"], true).unwrap();
    client.said();
    assert_eq!(client.hears("250 ok\r\n550 no\r\n450 no\r\n354 go\r\n"), Event::NeedInput);
    assert_eq!(client.said(), ".\r\n");
    assert_eq!(results(&client.hears("250 taken\r\n")), "P 550 no, T 450 no");
    assert_eq!(client.session.messages_sent(), 0);
    client.begin("a@b", &["x@d"], true).unwrap();
    assert!(client.said().starts_with("MAIL"));
    // 554 to DATA instead: the transaction is open, RSET leaves with the next.
    let event = client.hears("250 ok\r\n550 no\r\n554 no valid recipients\r\n");
    assert_eq!(results(&event), "P 550 no");
    client.begin("a@b", &["z@d"], true).unwrap();
    assert!(client.said().starts_with("RSET\r\nMAIL FROM:"));
    assert_eq!(client.hears("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n"), Event::SendBody);
}

#[test]
fn data_refused_after_some_were_accepted() {
    for (reply, expected) in [("554 5.7.1 no\r\n", "P 554 5.7.1 no"), ("451 no\r\n", "T 451 no")] {
        let mut client = greeted(PIPELINING);
        client.begin("a@b", &["x@d", "y@d"], true).unwrap();
        client.said();
        let event = client.hears(&format!("250 ok\r\n250 ok\r\n550 no\r\n{reply}"));
        assert_eq!(results(&event), format!("{expected}, P 550 no"));
        client.begin("a@b", &["x@d"], true).unwrap();
        assert!(client.said().starts_with("RSET\r\n"));
    }
}

#[test]
fn a_421_may_come_at_any_time() {
    let mut client = Client::new(Session::new("c"));
    assert!(matches!(client.hears("421 busy\r\n"), Event::Failed(reply) if reply.code() == 421));
    let mut client = greeted(PIPELINING);
    assert!(matches!(client.hears("421 idle too long\r\n"), Event::Failed(_)));
    assert!(client.session.is_closing());
    let script = "250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n";
    for replies in 0..=3 {
        let mut client = greeted(PIPELINING);
        client.begin("a@b", &["x@d", "y@d"], true).unwrap();
        let before: String = script.split_inclusive("\r\n").take(replies).collect();
        let event = client.hears(&format!("{before}421 4.3.2 bye\r\n"));
        let first = if replies >= 2 { "P 550 no" } else { "T 421 4.3.2 bye" };
        assert_eq!(results(&event), format!("{first}, T 421 4.3.2 bye"));
        assert!(client.session.is_closing() && !client.session.is_ready());
    }
}

#[test]
fn a_reply_before_the_message_is_out_ends_the_connection() {
    let mut client = greeted(PIPELINING);
    client.begin("a@b", &["x@d"], true).unwrap();
    assert_eq!(client.hears("250 ok\r\n250 ok\r\n354 go\r\n"), Event::SendBody);
    assert_eq!(results(&client.hears("552 5.3.4 too much\r\n")), "P 552 5.3.4 too much");
    assert!(client.session.is_closing());
}

#[test]
fn replies_out_of_nowhere_and_nonsense() {
    for text in ["250 hello?\r\n", "HTTP/1.1 400 Bad Request\r\n", "\r\n"] {
        let mut client = greeted(PIPELINING);
        assert!(matches!(client.hears(text), Event::Failed(_)), "{text}");
    }
    for text in ["250 ok\r\n250 ok\r\n250 what\r\n", "250 ok\r\nhuh\r\n", "250-x\r\n251 y\r\n"] {
        let mut client = greeted(PIPELINING);
        client.begin("a@b", &["x@d"], true).unwrap();
        assert!(results(&client.hears(text)).starts_with("T 451 4.5.0 the next server"), "{text}");
        assert!(client.session.is_closing());
    }
    let mut client = greeted(PIPELINING);
    let endless = "250-x\r\n".repeat(limits::REMOTE_LINES_MAX + 1);
    assert!(matches!(client.hears(&endless), Event::Failed(_)));
}

#[test]
fn servers_that_know_only_helo() {
    let mut client = Client::new(Session::new("c"));
    client.hears("220-mx\r\n220 hello\r\n");
    client.said();
    assert_eq!(client.hears("502 what?\r\n"), Event::NeedInput);
    assert_eq!(client.said(), "HELO c\r\n");
    assert_eq!(client.hears("250 mx\r\n"), Event::Ready);
    let mut client = Client::new(Session::new("c"));
    assert!(matches!(client.hears("554 go away\r\n"), Event::Failed(reply) if reply.is_permanent()));
}

#[test]
fn what_the_server_cannot_take_is_known_at_once() {
    let mut client = greeted(PLAIN);
    let refused = client.begin("ü@b", &["x@d"], true).unwrap_err();
    assert_eq!(result(&refused[0]), "P 550 5.6.7 the next server does not take internationalised addresses");
    let mut client = greeted(PIPELINING);
    let envelope = Envelope {
        sender: "a@b",
        recipients: &["x@d", "y@d"],
        size: 1001,
        eightbit: false,
        smtputf8: false,
        requiretls: false,
        priority: 0,
        requests: Requests::default(),
    };
    let refused = client.session.begin(&envelope, &mut client.out).unwrap_err();
    assert_eq!(refused.len(), 2);
    assert!(result(&refused[1]).starts_with("P 552 5.3.4 "));
    assert!(client.session.is_ready() && client.out.is_empty());
    client.begin("ü@b", &["x@d"], true).unwrap();
    assert!(client.said().starts_with("MAIL FROM:<ü@b> SIZE=10 BODY=8BITMIME SMTPUTF8\r\n"));
}

#[test]
fn recipients_beyond_the_limit_of_the_server_are_in_the_next_transaction() {
    let mut client = greeted("250-mx\r\n250-PIPELINING\r\n250 LIMITS RCPTMAX=1\r\n");
    client.begin("a@b", &["x@d", "y@d"], true).unwrap();
    assert_eq!(client.said().matches("RCPT").count(), 1);
    assert_eq!(client.hears("250 ok\r\n250 ok\r\n354 go\r\n"), Event::SendBody);
    sends_body(&mut client);
    assert!(results(&client.hears("250 taken\r\n")).starts_with("D 250 taken, N 452 4.5.3 "));
    client.begin("a@b", &["x@d", "y@d"], true).unwrap();
    let event = client.hears("250 ok\r\n550 no\r\n554 nobody\r\n");
    assert!(results(&event).starts_with("P 550 no, N 452 4.5.3 "), "a refusal is a result, too");
    client.begin("a@b", &["x@d", "y@d"], true).unwrap();
    let event = client.hears("250 ok\r\n550 not you\r\n503 x\r\n503 x\r\n");
    assert_eq!(results(&event), "P 550 not you, P 550 not you", "the sender is refused in every transaction");
}

#[test]
fn too_many_recipients_are_in_the_next_transaction_which_offers_no_more_than_the_server_took() {
    for reply in ["452 4.5.3 too many", "452 too many", "552 too many", "552 5.5.3 too many"] {
        let mut client = greeted(PIPELINING);
        client.begin("a@b", &["v@d", "w@d", "x@d", "y@d"], true).unwrap();
        client.said();
        let script = format!("250 ok\r\n250 ok\r\n550 no\r\n{reply}\r\n{reply}\r\n354 go\r\n");
        assert_eq!(client.hears(&script), Event::SendBody);
        sends_body(&mut client);
        let expected = format!("D 250 taken, P 550 no, N {reply}, N {reply}");
        assert_eq!(results(&client.hears("250 taken\r\n")), expected);
        client.begin("a@b", &["x@d", "y@d", "z@d"], true).unwrap();
        assert_eq!(client.said().matches("RCPT").count(), 2, "it has shown how many it takes");
        // Once the connection is lost there is no next transaction.
        client.hears("250 ok\r\n550 no\r\n");
        let event = client.hears("421 bye\r\n");
        assert_eq!(results(&event), "P 550 no, T 421 bye, T 421 bye");
    }
}

#[test]
fn too_many_is_not_what_other_statuses_or_later_recipients_say() {
    let mut client = greeted(PIPELINING);
    client.begin("a@b", &["x@d", "y@d"], true).unwrap();
    let event = client.hears("250 ok\r\n452 4.2.2 mailbox full\r\n552 5.2.2 mailbox full\r\n554 nobody\r\n");
    assert_eq!(results(&event), "T 452 4.2.2 mailbox full, P 552 5.2.2 mailbox full");
    // Not even one: another transaction would end the same way.
    client.begin("a@b", &["x@d", "y@d"], true).unwrap();
    let event = client.hears("250 ok\r\n250 ok\r\n452 no room\r\n452 no room\r\n554 nobody\r\n");
    assert_eq!(results(&event), "T 452 no room, T 452 no room");
    // It was that mailbox, for the next one is taken.
    client.begin("a@b", &["x@d", "y@d", "z@d"], true).unwrap();
    client.said();
    client.hears("250 ok\r\n250 ok\r\n250 ok\r\n452 full\r\n250 ok\r\n354 go\r\n");
    sends_body(&mut client);
    assert_eq!(results(&client.hears("250 taken\r\n")), "D 250 taken, T 452 full, D 250 taken");
}

#[test]
fn refusals_of_a_server_out_of_step_refuse_nobody() {
    // Whose the 550 was, nobody knows: each is a shift of the replies to MAIL, RCPT, RCPT and DATA.
    for text in ["250 ok\r\n550 no\r\n250 ok\r\n250 ok\r\n", "250 ok\r\n550 no\r\n354 go\r\n", "354 go\r\n"] {
        let mut client = greeted(PIPELINING);
        client.begin("a@b", &["x@d", "y@d"], true).unwrap();
        let expected = "T 451 4.5.0 the next server replied out of order";
        assert_eq!(results(&client.hears(text)), format!("{expected}, {expected}"), "{text}");
        assert!(client.session.is_closing());
    }
}

#[test]
fn what_comes_before_the_command_is_no_reply_to_it() {
    let mut session = Session::new("c");
    let mut out = Vec::new();
    let (_, event) = session.on_input(b"220 mx\r\n250 mx\r\n", &mut out);
    assert!(matches!(event, Event::Failed(reply) if reply.to_string().contains("out of order")));
    let mut client = greeted(PLAIN);
    client.begin("a@b", &["x@d"], true).unwrap();
    client.said();
    let (_, event) = client.session.on_input(b"250 ok\r\n250 ok\r\n", &mut client.out);
    assert!(results(&event).starts_with("T 451 4.5.0 "));
}

#[test]
fn what_was_answered_is_told_apart_from_an_idle_connection_that_ended() {
    let mut client = greeted(PIPELINING);
    client.begin("a@b", &["x@d"], true).unwrap();
    assert!(!client.session.has_answered() && client.session.is_in_pipeline());
    client.hears("250 ok\r\n");
    assert!(client.session.has_answered());
    let replies = client.session.replies();
    client.hears("250-slow");
    assert_eq!(client.session.replies(), replies, "a part of a reply is none");
    client.hears("ly\r\n250 ok\r\n554 no\r\n");
    assert_eq!(client.session.replies(), replies + 2);
    // The next begins with a RSET; neither its refusal nor 421 says anything of the message.
    for reply in ["500 what?\r\n", "421 enough\r\n"] {
        let mut client = greeted(PIPELINING);
        client.begin("a@b", &["x@d"], true).unwrap();
        client.hears("250 ok\r\n550 no\r\n554 nobody\r\n");
        client.begin("a@b", &["x@d"], true).unwrap();
        client.hears(reply);
        assert!(client.session.is_closing() && !client.session.has_answered());
    }
}

#[test]
fn a_server_that_loses_commands_hears_them_one_by_one() {
    let mut client = Client::greeted(Session::new("c.example").one_by_one(), "EHLO", PIPELINING);
    client.begin("a@b", &["x@d"], true).unwrap();
    assert_eq!(client.said(), "MAIL FROM:<a@b> SIZE=10 BODY=8BITMIME\r\n");
    assert!(!client.session.is_in_pipeline());
    client.hears("250 ok\r\n");
    assert_eq!(client.said(), "RCPT TO:<x@d>\r\n");
}

#[test]
fn a_server_that_takes_so_many_messages_gets_no_more() {
    let mut client = greeted("250-mx\r\n250-PIPELINING\r\n250 LIMITS MAILMAX=1\r\n");
    assert!(client.session.takes_more());
    client.begin("a@b", &["x@d"], true).unwrap();
    client.hears("250 ok\r\n550 no\r\n554 nobody\r\n");
    assert!(client.session.is_ready() && !client.session.takes_more());
}

#[test]
fn a_lost_connection_keeps_what_was_decided() {
    let mut client = greeted(PIPELINING);
    assert_eq!(client.session.abandon(RemoteReply::local(451, (4, 4, 2), "lost")), None);
    let mut client = greeted(PIPELINING);
    client.begin("a@b", &["x@d", "y@d"], true).unwrap();
    client.hears("250 ok\r\n550 no\r\n250 ok\r\n");
    let results = client.session.abandon(RemoteReply::local(451, (4, 4, 2), "lost")).unwrap();
    let texts: Vec<_> = results.iter().map(result).collect();
    assert_eq!(texts, ["P 550 no", "T 451 4.4.2 lost"]);
    assert!(client.session.is_closing());
}

#[test]
fn quit_is_said_where_it_is_understood() {
    let mut client = greeted(PLAIN);
    client.session.quit(&mut client.out);
    assert_eq!(client.said(), "QUIT\r\n");
    assert!(matches!(client.hears("221 bye\r\n"), Event::Failed(reply) if reply.code() == 221));
    let mut client = greeted(PLAIN);
    client.begin("a@b", &["x@d"], true).unwrap();
    client.said();
    client.session.quit(&mut client.out);
    assert_eq!((client.said().as_str(), client.session.is_closing()), ("", true));
}

const STARTTLS: &str = "250-mx\r\n250-PIPELINING\r\n250 STARTTLS\r\n";

fn asked(starttls: StartTls, ehlo_reply: &str) -> (Client, Event) {
    let mut client = Client::new(Session::new("c.example").asking_for(starttls));
    client.hears("220 mx\r\n");
    client.said();
    let event = client.hears(ehlo_reply);
    (client, event)
}

#[test]
fn encryption_is_asked_for_first_and_what_was_offered_in_clear_is_forgotten() {
    for starttls in [StartTls::IfOffered, StartTls::Required] {
        let (mut client, event) = asked(starttls, STARTTLS);
        assert_eq!((event, client.said().as_str()), (Event::NeedInput, "STARTTLS\r\n"));
        assert_eq!(client.hears("220 go\r\n"), Event::StartTls);
        assert!(!client.session.is_ready());
        client.session.secured(&mut client.out);
        assert_eq!(client.said(), "EHLO c.example\r\n");
        assert!(!client.session.offered().pipelining);
        assert_eq!(client.hears(STARTTLS), Event::Ready, "not a second time");
        assert!(client.session.offered().pipelining);
    }
    let (mut client, event) = asked(StartTls::Never, STARTTLS);
    assert_eq!((event, client.said().as_str()), (Event::Ready, ""));
}

#[test]
fn s75_nothing_is_said_in_clear_where_encryption_is_required() {
    let (mut client, event) = asked(StartTls::Required, PLAIN);
    assert!(matches!(event, Event::Failed(reply) if reply.to_string().starts_with("451 4.7.4 ")));
    assert_eq!((client.said().as_str(), client.session.is_closing()), ("", true));
    for refusal in ["454 4.7.0 not now\r\n", "502 unknown\r\n", "250 what\r\n"] {
        let (mut client, _) = asked(StartTls::Required, STARTTLS);
        client.said();
        assert!(matches!(client.hears(refusal), Event::Failed(_)), "{refusal}");
        assert_eq!((client.said().as_str(), client.session.is_closing()), ("", true));
    }
    let (mut client, event) = asked(StartTls::Required, "502 no EHLO here\r\n");
    assert_eq!((event, client.said().as_str()), (Event::NeedInput, "HELO c.example\r\n"));
    assert!(matches!(client.hears("250 mx\r\n"), Event::Failed(_)));
}

#[test]
fn where_it_is_a_chance_a_refusal_means_clear_text() {
    let (mut client, event) = asked(StartTls::IfOffered, PLAIN);
    assert_eq!((event, client.said().as_str()), (Event::Ready, ""));
    let (mut client, _) = asked(StartTls::IfOffered, STARTTLS);
    client.said();
    assert_eq!(client.hears("454 4.7.0 not now\r\n"), Event::Ready);
    client.begin("a@b", &["x@d"], true).unwrap();
    assert!(client.said().starts_with("MAIL FROM:<a@b>"));
}

#[test]
fn replies_slipped_in_before_the_handshake_end_the_connection() {
    let (mut client, _) = asked(StartTls::Required, STARTTLS);
    let (used, event) = client.session.on_input(b"220 go\r\n250-mx\r\n250 AUTH PLAIN\r\n", &mut client.out);
    assert_eq!(used, 32);
    assert!(matches!(event, Event::Failed(reply) if reply.to_string().starts_with("451 4.7.0 ")));
    assert!(client.session.is_closing());
}

#[test]
fn what_the_sender_wants_to_be_told_is_said_where_dsn_is_offered() {
    let first = OfRecipient { notify: Notify::NEVER, orcpt: "rfc822;o+2Bx@d" };
    let envelope = Envelope {
        sender: "a@b",
        recipients: &["x@d", "y@d"],
        size: 0,
        eightbit: false,
        smtputf8: false,
        requiretls: false,
        priority: 0,
        requests: Requests {
            message: OfMessage { ret: Some(Ret::Headers), envid: "id+2B1", verp: None },
            recipients: &[first, OfRecipient::default()],
        },
    };
    let mut client = greeted("250-mx\r\n250-PIPELINING\r\n250 DSN\r\n");
    client.session.begin(&envelope, &mut client.out).unwrap();
    let expected = "MAIL FROM:<a@b> RET=HDRS ENVID=id+2B1\r\nRCPT TO:<x@d> NOTIFY=NEVER ORCPT=rfc822;o+2Bx@d\r\n\
                    RCPT TO:<y@d>\r\nDATA\r\n";
    assert_eq!(client.said(), expected);
    let mut client = greeted(PIPELINING);
    client.session.begin(&envelope, &mut client.out).unwrap();
    assert_eq!(client.said(), "MAIL FROM:<a@b>\r\nRCPT TO:<x@d>\r\nRCPT TO:<y@d>\r\nDATA\r\n");
}

//! MT-PRIORITY (RFC 6710): to whom it is offered, what a client may say, and what a server is told.

#[path = "support/client.rs"]
mod client;
mod support;

use client::Client;
use ringpost_smtp::client::{Envelope, Requests, Session};
use ringpost_smtp::server::Logins;
use support::Caller;

const OFFER: &str = "\r\n250-MT-PRIORITY\r\n";

fn local() -> Caller {
    let mut caller = Caller::of(Logins::Never);
    caller.session.on_local();
    caller
}

#[test]
fn programs_of_this_host_may_say_it_and_strangers_may_not() {
    let mut near = local();
    assert!(near.say("EHLO c").contains(OFFER));
    assert!(near.mail("MT-PRIORITY=4").starts_with("250 2.1.0"));
    let mut stranger = Caller::of(Logins::Never);
    assert!(!stranger.say("EHLO c").contains("MT-PRIORITY"));
    assert!(stranger.mail("MT-PRIORITY=4").starts_with("555 5.5.4"));
    let mut old = local();
    old.say("HELO c");
    assert!(old.mail("MT-PRIORITY=4").starts_with("555 5.5.4"), "no parameters without EHLO");
}

#[test]
fn users_are_offered_it_before_they_log_in_and_have_it_after() {
    let mut caller = Caller::of(Logins::Offered);
    assert!(!caller.say("EHLO c").contains("MT-PRIORITY"), "nobody can log in yet");
    assert!(caller.mail("MT-PRIORITY=-4").starts_with("555 5.5.4"));
    caller.say("STARTTLS");
    assert!(caller.say("EHLO c").contains(OFFER));
    assert!(caller.mail("MT-PRIORITY=-4").starts_with("530 5.7.0"));
    // `\0gilles\0right`
    caller.say("AUTH PLAIN AGdpbGxlcwByaWdodA==");
    assert_eq!(caller.session.user(), Some("gilles"));
    assert!(caller.mail("MT-PRIORITY=-4").starts_with("250 2.1.0"));
}

#[test]
fn the_next_server_is_told_if_it_offers_it_and_there_is_something_to_tell() {
    let mail = |greeting: &str, priority: i8| {
        let mut client = Client::greeted(Session::new("c.example"), "EHLO", greeting);
        let envelope = Envelope {
            sender: "a@b",
            recipients: &["x@d"],
            size: 10,
            eightbit: false,
            smtputf8: false,
            requiretls: false,
            priority,
            requests: Requests::default(),
        };
        client.session.begin(&envelope, &mut client.out).expect("nothing is against it");
        client.said().lines().next().map(str::to_owned)
    };
    let offers = "250-mx\r\n250-PIPELINING\r\n250 MT-PRIORITY MIXER\r\n";
    assert_eq!(mail(offers, -4).as_deref(), Some("MAIL FROM:<a@b> MT-PRIORITY=-4"));
    assert_eq!(mail(offers, 9).as_deref(), Some("MAIL FROM:<a@b> MT-PRIORITY=9"));
    assert_eq!(mail(offers, 0).as_deref(), Some("MAIL FROM:<a@b>"));
    assert_eq!(mail("250-mx\r\n250 PIPELINING\r\n", 9).as_deref(), Some("MAIL FROM:<a@b>"));
}

#[test]
fn it_is_a_number_from_minus_nine_to_nine_and_said_once() {
    let mut caller = local();
    caller.say("EHLO c");
    for fine in ["MT-PRIORITY=0", "mt-priority=9", "Mt-Priority=-9", "SIZE=1 MT-PRIORITY=3 BODY=8BITMIME"] {
        assert!(caller.mail(fine).starts_with("250 2.1.0"), "{fine}");
    }
    for wrong in [
        "MT-PRIORITY",
        "MT-PRIORITY=",
        "MT-PRIORITY=10",
        "MT-PRIORITY=-10",
        "MT-PRIORITY=-0",
        "MT-PRIORITY=+4",
        "MT-PRIORITY=04",
        "MT-PRIORITY=high",
        "MT-PRIORITY=4 MT-PRIORITY=4",
        "MT-PRIORITY=0 MT-PRIORITY=4",
    ] {
        assert!(caller.mail(wrong).starts_with("501 5.5.4 MT-PRIORITY"), "{wrong}");
    }
}

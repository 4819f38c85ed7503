//! FUTURERELEASE (RFC 4865): to whom it is offered, and what a client may ask for.

mod support;

use ringpost_smtp::Policy;
use ringpost_smtp::server::Logins;
use support::Caller;

/// 2026-11-29T08:30:00Z.
const LATEST: u64 = 1_795_941_000;
const OFFER: &str = "\r\n250-FUTURERELEASE 2592000 2026-11-29T08:30:00Z\r\n";

fn caller(logins: Logins) -> Caller {
    let mut caller = Caller::of(logins);
    caller.session.offer_release(LATEST);
    caller
}

fn local() -> Caller {
    let mut caller = caller(Logins::Never);
    caller.session.on_local();
    caller
}

#[test]
fn programs_of_this_host_may_have_mail_held_and_strangers_may_not() {
    let mut near = local();
    assert!(near.say("EHLO c").contains(OFFER));
    assert!(near.mail("HOLDFOR=60").starts_with("250 2.1.0"));
    let mut stranger = caller(Logins::Never);
    assert!(!stranger.say("EHLO c").contains("FUTURERELEASE"));
    assert!(stranger.mail("HOLDFOR=60").starts_with("555 5.5.4"));
    // Where the shard does not offer it, nobody has it.
    let mut nobody = Caller::new(Policy::new("mx.example"));
    nobody.session.on_local();
    assert!(!nobody.say("EHLO c").contains("FUTURERELEASE"));
    assert!(nobody.mail("HOLDFOR=60").starts_with("555 5.5.4"));
}

#[test]
fn users_are_offered_it_before_they_log_in_and_have_it_after() {
    let mut caller = caller(Logins::Offered);
    assert!(!caller.say("EHLO c").contains("FUTURERELEASE"), "nobody can log in yet");
    caller.say("STARTTLS");
    assert!(caller.say("EHLO c").contains(OFFER));
    assert!(caller.mail("HOLDFOR=60").starts_with("530 5.7.0"));
    // `\0gilles\0right`
    caller.say("AUTH PLAIN AGdpbGxlcwByaWdodA==");
    assert_eq!(caller.session.user(), Some("gilles"));
    assert!(caller.mail("HOLDFOR=60").starts_with("250 2.1.0"));
}

#[test]
fn one_of_both_once_in_its_form_and_within_what_is_announced() {
    let mut caller = local();
    caller.say("EHLO c");
    for fine in
        ["HOLDFOR=1", "holdfor=2592000", "HOLDUNTIL=2026-11-29T08:30:00Z", "HoldUntil=1999-01-01t00:00:00+01:00"]
    {
        assert!(caller.mail(fine).starts_with("250 2.1.0"), "{fine}");
    }
    for wrong in [
        "HOLDFOR",
        "HOLDFOR=",
        "HOLDFOR=0",
        "HOLDFOR=1s",
        "HOLDUNTIL=tomorrow",
        "HOLDUNTIL=2026-11-31T08:30:00Z",
        "HOLDFOR=1 HOLDFOR=1",
        "HOLDFOR=1 HOLDUNTIL=2026-11-29T08:30:00Z",
    ] {
        assert!(caller.mail(wrong).starts_with("501 5.5.4 HOLDFOR"), "{wrong}");
    }
    for far in ["HOLDFOR=2592001", "HOLDFOR=999999999", "HOLDUNTIL=2026-11-29T08:30:01Z"] {
        assert!(caller.mail(far).starts_with("501 5.5.4 no"), "{far}");
    }
}

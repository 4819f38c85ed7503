//! The receivers of the laboratory, and what becomes of mail for each.
//!
//! A line is: its name; what it does; whom mail is for, and what becomes of that. `taken` is delivered, once; `waits` is
//! deferred, for this reason; `bounces` has gone back to its sender with this reply; `held` is in the receiver's hands when
//! the test ends, which has no hour to wait for the deadline (`shards/sim/tests/patience.rs` has). Mail that waits is tried
//! again once, and fares the same; what comes later is delivered then.

use std::time::Duration;

use super::receiver::Act::{self, Drop, EndlessDrip, Say, SayAndDrop, Silence, Twice};
use super::receiver::Step::{
    Body, Connect, Data, Dot, Ehlo, Helo, Mail, MailBeyond, Quit, Rcpt, RcptBeyond, RcptOf, Rset, StartTls,
};
use super::receiver::{Group, Habits};

/// What becomes of a recipient's copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Becomes {
    Taken,
    Waits(&'static str),
    /// Waits, and is taken at another attempt.
    ComesLater(&'static str),
    Bounces(&'static str),
    Held,
}

use Becomes::{Bounces, ComesLater, Held, Taken, Waits};

/// What a message is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    Small,
    EightBit,
    /// Larger than what sockets hold.
    Large,
}

/// A receiver, and messages for it: each as soon as the one before has become what it must.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    /// `None`: nobody listens.
    pub habits: Option<Habits>,
    /// Of each message the recipients and what becomes of them.
    pub messages: Vec<Vec<(&'static str, Becomes)>>,
    pub text: Text,
    /// MAIL commands that it takes for them, where that matters.
    pub transactions: Option<usize>,
}

/// One message for one recipient.
fn case(name: &'static str, habits: Habits, becomes: Becomes) -> Case {
    several(name, habits, vec![vec![("r", becomes)]])
}

/// One message for several.
fn one(name: &'static str, habits: Habits, recipients: &[(&'static str, Becomes)]) -> Case {
    several(name, habits, vec![recipients.to_vec()])
}

fn several(name: &'static str, habits: Habits, messages: Vec<Vec<(&'static str, Becomes)>>) -> Case {
    Case { name, habits: Some(habits), messages, text: Text::Small, transactions: None }
}

fn at(step: super::receiver::Step, act: Act) -> Habits {
    Habits::default().at(step, act)
}

fn says(step: super::receiver::Step, reply: &str) -> Habits {
    Habits::default().says(step, reply)
}

fn offers(extensions: &[&str]) -> Habits {
    Habits { offers: extensions.iter().map(|one| (*one).to_owned()).collect(), ..Habits::default() }
}

/// A reply of so many lines, each with so many bytes of text.
fn lines(code: &str, count: usize, bytes: usize) -> String {
    let text = "x".repeat(bytes);
    format!("{}{code} end", format!("{code}-{text}\r\n").repeat(count))
}

fn times(count: usize) -> Vec<Vec<(&'static str, Becomes)>> {
    vec![vec![("r", Taken)]; count]
}

const TEN: [&str; 10] = ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9"];

/// Mail for ten, who have it after so many transactions.
fn ten(name: &'static str, habits: Habits, transactions: usize) -> Case {
    let all: Vec<_> = TEN.map(|name| (name, Taken)).to_vec();
    Case { transactions: Some(transactions), ..several(name, habits, vec![all]) }
}

const CLOSED: &str = "the server closed the connection";
const OUT_OF_STEP: &str = "451 4.5.0 the next server replied out of order";
const NO_SMTP: &str = "the next server does not speak SMTP";
const NO_END: &str = "the next server's reply does not end";

/// All of them.
pub fn all() -> Vec<Case> {
    [connecting(), greeting(), envelope(), message(), between()].concat()
}

/// The connection and the first words. What goes wrong here is the host's fault and never the message's: it waits (S87).
fn connecting() -> Vec<Case> {
    let nobody = Case { habits: None, ..case("nobody", Habits::default(), Waits("refused")) };
    let slow = Habits { pace: Some(Duration::from_millis(20)), ..Habits::default() };
    let bare = Habits { line_end: "\n", ..Habits::default() };
    let early = "220 mx.test\r\n250-mx.test\r\n250 PIPELINING";
    vec![
        nobody,
        case("closes", at(Connect, Drop), Waits(CLOSED)),
        case("refuses", says(Connect, "554 5.7.1 go away"), Waits("554 5.7.1 go away")),
        case("refuses-and-closes", at(Connect, SayAndDrop("554 5.7.1 go away".into())), Waits("554 5.7.1 go away")),
        case("busy", says(Connect, "421 4.3.2 busy"), Waits("421 4.3.2 busy")),
        case("busy-and-closes", at(Connect, SayAndDrop("421 4.3.2 busy".into())), Waits("421 4.3.2 busy")),
        case("half-a-greeting", at(Connect, SayAndDrop("220-mx".into())), Waits(CLOSED)),
        case("long-greeting", says(Connect, &lines("220", 100, 60)), Taken),
        case("endless-greeting", says(Connect, &lines("220", 1000, 60)), Waits(NO_END)),
        case("megabyte-line", says(Connect, &format!("220 {}", "x".repeat(1 << 20))), Waits(NO_END)),
        case("long-line", says(Connect, &format!("220 {}", "x".repeat(100_000))), Taken),
        case("web-server", says(Connect, "HTTP/1.1 400 Bad Request\r\n\r\n<html>"), Waits(NO_SMTP)),
        case("wrong-code", says(Connect, "250 mx.test"), Waits("250 mx.test")),
        case("code-of-one-digit", says(Connect, "2 mx.test"), Waits(NO_SMTP)),
        case("code-600", says(Connect, "600 mx.test"), Waits(NO_SMTP)),
        case("greets-twice", at(Connect, Twice), Waits(OUT_OF_STEP)),
        case("talks-early", says(Connect, early), Waits(OUT_OF_STEP)),
        case("nul-bytes", says(Connect, "220 \0mx\0.test\u{7}\u{1b}[2J"), Taken),
        case("not-ascii", says(Connect, "220 Grüße, добрый день"), Taken),
        case("only-a-code", says(Connect, "220"), Taken),
        case("bare-line-feeds", bare, Taken),
        case("byte-by-byte", slow, Taken),
        case("silent", at(Connect, Silence), Held),
        case("drips", at(Connect, EndlessDrip), Held),
    ]
}

/// EHLO, its fall-back and STARTTLS: as much the host's fault.
fn greeting() -> Vec<Case> {
    let older = says(Ehlo, "502 5.5.1 what?");
    let many: Vec<String> = (0..100).map(|number| format!("X-EXTENSION-{number} a b c")).collect();
    let many = Habits { offers: [Habits::default().offers, many].concat(), ..Habits::default() };
    let tls = || offers(&["PIPELINING", "STARTTLS"]);
    let eight = |habits| Case { text: Text::EightBit, ..case("no-8bitmime", habits, Taken) };
    vec![
        case("ehlo-closes", at(Ehlo, Drop), Waits(CLOSED)),
        case("ehlo-421", says(Ehlo, "421 4.3.2 too busy"), Waits("421 4.3.2 too busy")),
        case("ehlo-451", says(Ehlo, "451 4.3.0 later"), Waits("451 4.3.0 later")),
        case("ehlo-refused", older.clone(), Taken),
        case("ehlo-and-helo-refused", older.clone().says(Helo, "550 5.7.1 not you"), Waits("550 5.7.1 not you")),
        case("helo-closes", older.at(Helo, Drop), Waits(CLOSED)),
        case("ehlo-two-codes", says(Ehlo, "250-mx.test\r\n220 PIPELINING"), Waits(NO_SMTP)),
        case("ehlo-twice", at(Ehlo, Twice), Waits(OUT_OF_STEP)),
        case("ehlo-hundred-extensions", many, Taken),
        case("ehlo-endless", says(Ehlo, &lines("250", 5000, 20)), Waits(NO_END)),
        case("ehlo-silent", at(Ehlo, Silence), Held),
        case("ehlo-drips", at(Ehlo, EndlessDrip), Held),
        case("offers-nothing", says(Ehlo, "250 mx.test"), Taken),
        case("offers-little-size", offers(&["PIPELINING", "SIZE 10"]), Bounces("5.3.4")),
        case("odd-size", offers(&["PIPELINING", "SIZE 99999999999999999999999"]), Taken),
        eight(offers(&["PIPELINING"])),
        one("no-smtputf8", offers(&["PIPELINING", "8BITMIME"]), &[("grüße", Bounces("5.6.7"))]),
        case("tls-refused", tls().says(StartTls, "454 4.7.0 not now"), Taken),
        // Nobody demands encryption here: then what is offered and broken is no worse than what is not offered (RFC 7435).
        case("tls-broken", tls().says(StartTls, "220 go"), Taken),
        case("tls-closes", tls().at(StartTls, Drop), Taken),
        case("tls-closes-later", tls().at(StartTls, SayAndDrop("220 go".into())), Taken),
        case("tls-injects", tls().says(StartTls, "220 go\r\n250 mx.test"), Waits("more before the encryption began")),
    ]
}

/// MAIL, RCPT and DATA: what was answered stays answered, whatever comes behind it.
fn envelope() -> Vec<Case> {
    let few = |code: &str| says(RcptBeyond(3), &format!("{code} too many recipients"));
    let full = "452 4.2.2 mailbox full";
    let mixed = says(RcptOf("gone"), "550 5.1.1 no such user")
        .says(RcptOf("full"), full)
        .says(RcptOf("grey"), "450 4.2.0 come back later")
        .says(RcptOf("moved"), "551 5.1.6 elsewhere")
        .says(RcptOf("forwarded"), "251 will forward");
    let gone = || says(RcptOf("gone"), "550 5.1.1 no such user");
    let gone_then = |act: Act| gone().at(RcptOf("next"), act);
    let gone_next = |waits| [("gone", Bounces("550 5.1.1 no such user")), ("next", Waits(waits))];
    let shouts = lines("550", 100, 900);
    let losing = |group| Habits { group, ..Habits::default() };
    vec![
        case("mail-closes", at(Mail, Drop), Waits(CLOSED)),
        case("mail-421", says(Mail, "421 4.7.0 slow down"), Waits("421 4.7.0 slow down")),
        case("mail-451", says(Mail, "451 4.7.1 greylisted"), Waits("451 4.7.1 greylisted")),
        case("mail-550", says(Mail, "550 5.7.1 not you"), Bounces("550 5.7.1 not you")),
        case("mail-354", says(Mail, "354 go on"), Waits(OUT_OF_STEP)),
        case("mail-nonsense", says(Mail, "ok"), Waits(NO_SMTP)),
        case("mail-silent", at(Mail, Silence), Held),
        case("rcpt-closes", at(Rcpt, Drop), Waits(CLOSED)),
        case("rcpt-silent", at(Rcpt, Silence), Held),
        case("rcpt-354", says(Rcpt, "354 go on"), Waits(OUT_OF_STEP)),
        case("rcpt-252", says(Rcpt, "252 cannot verify"), Taken),
        case("rcpt-421", says(Rcpt, "421 4.3.2 closing"), Waits("421 4.3.2 closing")),
        case("rcpt-nobody", says(Rcpt, "550 5.1.1 no such user"), Bounces("550 5.1.1 no such user")),
        case("rcpt-shouts", says(Rcpt, &shouts), Bounces("xxxxxxxxxxxxxxxx")),
        one(
            "rcpt-mixed",
            mixed,
            &[
                ("r", Taken),
                ("gone", Bounces("550 5.1.1 no such user")),
                ("full", Waits(full)),
                ("grey", Waits("450 4.2.0 come back later")),
                ("moved", Bounces("551 5.1.6 elsewhere")),
                ("forwarded", Taken),
            ],
        ),
        one("rcpt-421-behind-550", gone_then(Say("421 4.3.2 closing".into())), &gone_next("421 4.3.2 closing")),
        one("rcpt-closes-behind-550", gone_then(Drop), &gone_next(CLOSED)),
        one("rcpt-nonsense-behind-550", gone_then(Say("what?".into())), &gone_next(NO_SMTP)),
        ten("three-at-a-time", few("452 4.5.3"), 4),
        ten("three-at-a-time-as-of-old", few("552"), 4),
        ten("three-at-a-time-and-says-so", few("452 4.5.3").offering("LIMITS RCPTMAX=3"), 4),
        case("none-at-a-time", says(Rcpt, "452 4.5.3 too many recipients"), Waits("452 4.5.3 too many")),
        case("data-closes", at(Data, Drop), Waits(CLOSED)),
        case("data-250", says(Data, "250 go on"), Waits(OUT_OF_STEP)),
        case("data-451", says(Data, "451 4.3.0 no room"), Waits("451 4.3.0 no room")),
        case("data-554", says(Data, "554 5.7.1 no"), Bounces("554 5.7.1 no")),
        case("data-421", says(Data, "421 4.3.2 closing"), Waits("421 4.3.2 closing")),
        case("data-silent", at(Data, Silence), Held),
        one("data-for-nobody", gone().says(Data, "354 go on"), &[("gone", Bounces("550 5.1.1 no such user"))]),
        one("data-421-behind-550", gone().says(Data, "421 4.3.2 closing"), &gone_next("421 4.3.2 closing")),
        case("loses-a-group", losing(Group::Lost), Held),
        // It hears one command after the other from then on.
        case("closes-at-a-group", losing(Group::Dropped), ComesLater(CLOSED)),
    ]
}

/// The message and its end.
fn message() -> Vec<Case> {
    let large = |name, act, becomes| Case { text: Text::Large, ..case(name, at(Body(100_000), act), becomes) };
    vec![
        large("body-closes", Drop, Waits("451 4.4.2 ")),
        large("body-552", SayAndDrop("552 5.3.4 too much".into()), Bounces("552 5.3.4 too much")),
        large("body-452", SayAndDrop("452 4.3.1 no room".into()), Waits("452 4.3.1 no room")),
        large("body-silent", Silence, Held),
        case("dot-closes", at(Dot, Drop), Waits(CLOSED)),
        case("dot-451", says(Dot, "451 4.3.0 try again"), Waits("451 4.3.0 try again")),
        case("dot-554", says(Dot, "554 5.7.1 spam"), Bounces("554 5.7.1 spam")),
        case("dot-421", says(Dot, "421 4.3.2 closing"), Waits("421 4.3.2 closing")),
        case("dot-354", says(Dot, "354 go on"), Waits(OUT_OF_STEP)),
        case("dot-nonsense", says(Dot, "fine"), Waits(NO_SMTP)),
        case("dot-silent", at(Dot, Silence), Held),
        case("dot-drips", at(Dot, EndlessDrip), Held),
        case("dot-long", says(Dot, &lines("250", 100, 900)), Taken),
        several("dot-twice", at(Dot, Twice), times(3)),
        several("dot-and-421", says(Dot, "250 2.0.0 taken\r\n421 4.3.2 closing"), times(3)),
    ]
}

/// From one message to the next on a connection. None of this is a message's fault: it goes by another connection.
fn between() -> Vec<Case> {
    let refusing = || says(RcptOf("gone"), "550 5.1.1 no such user");
    let then = || vec![vec![("gone", Bounces("550 5.1.1 no such user"))], vec![("r", Taken)], vec![("s", Taken)]];
    vec![
        several("rset-500", refusing().says(Rset, "500 what?"), then()),
        several("rset-closes", refusing().at(Rset, Drop), then()),
        several("rset-421", refusing().says(Rset, "421 4.3.2 closing"), then()),
        several("two-a-connection", says(MailBeyond(2), "421 4.7.0 enough"), times(7)),
        several("two-a-connection-and-closes", at(MailBeyond(2), Drop), times(7)),
        several("two-a-connection-and-says-so", Habits::default().offering("LIMITS MAILMAX=2"), times(7)),
        several("one-a-connection", at(Dot, SayAndDrop("250 2.0.0 taken".into())), times(5)),
        several("quit-closes", at(Quit, Drop), times(2)),
        several("quit-silent", at(Quit, Silence), times(2)),
        several("quit-500", says(Quit, "500 what?"), times(2)),
    ]
}

//! Mail that comes back (grammar §4.7, `feedback`): reports of other servers, and complaints, about mail that has left here. Their
//! texts are read as they stream in (`message/src/feedback.rs`), and what they say is told in the log and counted once the
//! message is durable. The message itself goes where the rules say.
//!
//! Read is what comes for recipients of an action with `feedback`, and what comes with the null sender to an address that was made for
//! that: of SRS, which proves that it was made here, or of VERP, which anybody can make.

use std::fmt::{self, Display, Formatter};

use ringpost_address::split_address;
use ringpost_conf::srs::Origin;
use ringpost_conf::{Refused, verp};
use ringpost_io::Runtime;
use ringpost_message::feedback::{Action, Complaint, Delivery, Feedback, Recipient};
use ringpost_perf::Counter;
use ringpost_queue::MessageId;
use ringpost_smtp::Transaction;
use ringpost_smtp::client::RemoteReply;

use crate::event::Event;
use crate::settings::Settings;
use crate::shard::{Shard, World};

/// One thing that a message says that has come back; a line of the log. Empty where nothing is known. But for the two addresses that
/// it was found by, all is what a stranger says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Returned<'a> {
    /// The message that says so.
    pub id: MessageId,
    /// The session that it came by.
    pub session: u64,
    /// `bounce`, `delay`, `delivered`, `relayed`, `expanded`, `complaint`; or `unknown`: it is not in a form that is known.
    pub kind: &'a str,
    /// The address that it came to.
    pub at: &'a str,
    /// What kind of address that is: `srs`, `verp`, or `address`, one of an action with `feedback`.
    pub by: &'a str,
    /// The sender of what was sent.
    pub sender: &'a str,
    /// Its recipient.
    pub recipient: &'a str,
    /// Where it was when that happened, if that is another address.
    pub last: &'a str,
    /// What kind of complaint it is (`Feedback-Type`, RFC 5965).
    pub complaint: &'a str,
    /// The server, or the program, that reports.
    pub reporter: &'a str,
    /// Where what was sent has come from.
    pub source: &'a str,
    /// The domain that the complaint is about.
    pub domain: &'a str,
    /// What the sender has called the transaction.
    pub envid: &'a str,
    /// `Message-ID` of what was sent.
    pub message_id: &'a str,
    /// What a refusal means, in a word (grammar §4.7).
    pub class: Option<&'a str>,
    /// What the server has said, as far as it was told.
    pub reply: Option<&'a RemoteReply>,
    /// Recipients that the report also names, and that have no line.
    pub more: usize,
}

impl Display for Returned<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { id, session, kind, by, at, .. } = self;
        write!(f, "feedback id={id} s={session:016x} kind={kind}")?;
        if !self.complaint.is_empty() {
            write!(f, " type=\"{}\"", quoted(self.complaint))?;
        }
        write!(f, " by={by} at=<{at}>")?;
        let addresses =
            [("from", self.sender), ("to", self.recipient), ("last", self.last), ("msgid", self.message_id)];
        for (name, address) in addresses.into_iter().filter(|(_, address)| !address.is_empty()) {
            write!(f, " {name}=<{address}>")?;
        }
        let words =
            [("reporter", self.reporter), ("source", self.source), ("domain", self.domain), ("envid", self.envid)];
        for (name, word) in words.into_iter().filter(|(_, word)| !word.is_empty()) {
            write!(f, " {name}=\"{}\"", quoted(word))?;
        }
        if self.more > 0 {
            write!(f, " more={}", self.more)?;
        }
        if let Some(class) = self.class {
            write!(f, " class={class}")?;
        }
        let Some(reply) = self.reply else { return Ok(()) };
        let (class, subject, detail) = reply.status_or_default();
        write!(f, " dsn={class}.{subject}.{detail} stat=\"{}\"", quoted(&reply.to_string()))
    }
}

/// Within quotes.
fn quoted(text: &str) -> String {
    text.replace('"', "'")
}

/// To what kind of address a message has come back.
enum Address {
    /// Of SRS: the sender whose mail was forwarded.
    Forwarded(String),
    /// Of VERP: its owner, and the recipient of what was sent.
    Variable(String, String),
    /// One that the configuration names.
    Named,
}

impl Address {
    /// `named`: its action has `feedback`.
    fn of(settings: &Settings, path: &str, is_null: bool, named: bool, now_ms: u64) -> Option<Self> {
        if is_null && let Origin::Sender(sender) = settings.config.srs.origin(path, now_ms) {
            return Some(Self::Forwarded(sender));
        }
        let delimiter = settings.config.smtp.sub_address_delimiter;
        let variable = if is_null || named { verp::parse(path, delimiter) } else { None };
        let named = named.then_some(Self::Named);
        variable.map(|(owner, recipient)| Self::Variable(owner, recipient)).or(named)
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Forwarded(_) => "srs",
            Self::Variable(..) => "verp",
            Self::Named => "address",
        }
    }
}

/// Whether the text is to be read. `named`: an action of one of its recipients has `feedback`.
pub(crate) fn is_read<W: World>(shard: &Shard<W>, settings: &Settings, tx: &Transaction<'_>, named: bool) -> bool {
    let is_null = tx.reverse_path().is_empty();
    named
        || is_null && {
            let now_ms = shard.runtime.unix_ms();
            tx.recipients().iter().any(|path| Address::of(settings, path, is_null, false, now_ms).is_some())
        }
}

/// Tells what a message says that has been read; `None`: it is no report. `named`: of each recipient, whether its action has
/// `feedback`; or empty.
pub(crate) fn tell<W: World>(
    shard: &Shard<W>,
    settings: &Settings,
    (tx, named): (&Transaction<'_>, &[bool]),
    (id, session): (MessageId, u64),
    feedback: Option<&Feedback>,
) {
    let (is_null, now_ms) = (tx.reverse_path().is_empty(), shard.runtime.unix_ms());
    let found = tx.recipients().iter().enumerate().find_map(|(place, path)| {
        let named = named.get(place).copied().unwrap_or(false);
        Some((*path, Address::of(settings, path, is_null, named, now_ms)?))
    });
    let Some((path, address)) = found else { return };
    let (sender, about) = match &address {
        Address::Forwarded(sender) => (sender.as_str(), ""),
        Address::Variable(owner, recipient) => (owner.as_str(), recipient.as_str()),
        Address::Named => ("", ""),
    };
    let by = address.word();
    let known = Returned { id, session, at: path, by, sender, recipient: about, ..Returned::default() };
    let tell = |returned: Returned<'_>, counter: Counter| {
        shard.counters.add(counter, 1);
        shard.event(&Event::Returned(&returned));
    };
    match feedback {
        Some(Feedback::Delivery(delivery)) => {
            for (place, one) in delivery.recipients.iter().enumerate() {
                let (told, reply) = of_recipient(delivery, one, &known);
                let refusal = reply.as_ref().filter(|reply| !reply.is_positive());
                let class = refusal.map(|reply| class(settings, reply, told.recipient));
                // Those beyond are told of with the last.
                let more = if place + 1 == delivery.recipients.len() { delivery.more } else { 0 };
                let counter = match one.action {
                    Some(Action::Failed) => Counter::FeedbackBounces,
                    _ => Counter::FeedbackOthers,
                };
                tell(Returned { class, reply: reply.as_ref(), more, ..told }, counter);
            }
        }
        Some(Feedback::Complaint(complaint)) => {
            let delimiter = settings.config.smtp.sub_address_delimiter;
            // Where the recipient is kept secret, the reverse-path may tell.
            let variable = verp::parse(&complaint.sender, delimiter);
            tell(of_complaint(complaint, variable.as_ref(), &known), Counter::FeedbackComplaints);
        }
        // An answer of a program, or a report in no form that is known: only the address tells.
        None if is_null => tell(Returned { kind: "unknown", ..known }, Counter::FeedbackOthers),
        None => {}
    }
}

/// What is told of a recipient, and the reply of the server that has it refused.
fn of_recipient<'a>(
    delivery: &'a Delivery,
    one: &'a Recipient,
    known: &Returned<'a>,
) -> (Returned<'a>, Option<RemoteReply>) {
    let kind = match one.action {
        Some(Action::Failed) => "bounce",
        Some(Action::Delayed) => "delay",
        Some(Action::Delivered) => "delivered",
        Some(Action::Relayed) => "relayed",
        Some(Action::Expanded) => "expanded",
        None => "unknown",
    };
    let reply = reply(one);
    // The address that it has come to was made for this recipient: the report may name one who has taken over his mail.
    let (recipient, last) = match known.recipient {
        "" if one.original.is_empty() => (one.address.as_str(), ""),
        "" => (one.original.as_str(), one.address.as_str()),
        made_for => (made_for, one.address.as_str()),
    };
    let told = Returned {
        kind,
        recipient,
        last: if last.eq_ignore_ascii_case(recipient) { "" } else { last },
        reporter: &delivery.reporter,
        envid: &delivery.envelope_id,
        message_id: &delivery.message_id,
        ..*known
    };
    (told, reply)
}

/// In the form of a reply, with the code that the diagnostic begins with, if it does.
fn reply(one: &Recipient) -> Option<RemoteReply> {
    if let Some(reply) = RemoteReply::parse(&one.diagnostic).filter(|reply| matches!(reply.code(), 200..=599)) {
        let status = one.status.unwrap_or_else(|| reply.status_or_default());
        return Some(RemoteReply::local(reply.code(), status, reply.text()));
    }
    let status = one.status?;
    let code = match status.0 {
        5 => 550,
        4 => 450,
        _ => 250,
    };
    Some(RemoteReply::local(code, status, &one.diagnostic))
}

/// What a refusal means, as if it had been said to us.
fn class<'s>(settings: &'s Settings, reply: &RemoteReply, recipient: &str) -> &'s str {
    let domain = split_address(recipient).map_or("", |(_, domain)| domain);
    let refused = Refused { code: reply.code(), status: reply.status_or_default(), text: reply.text(), domain };
    settings.config.classify(&refused).0
}

fn of_complaint<'a>(
    complaint: &'a Complaint,
    variable: Option<&'a (String, String)>,
    known: &Returned<'a>,
) -> Returned<'a> {
    let or = |first: &'a str, second: &'a str| if first.is_empty() { second } else { first };
    let (owner, about) = variable.map_or(("", ""), |(owner, about)| (owner, about));
    Returned {
        kind: "complaint",
        complaint: &complaint.kind,
        sender: or(owner, or(&complaint.sender, known.sender)),
        recipient: or(about, or(&complaint.recipient, known.recipient)),
        reporter: &complaint.agent,
        source: &complaint.source,
        domain: &complaint.domain,
        message_id: &complaint.message_id,
        ..*known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(returned: Returned<'_>) -> String {
        Returned { id: MessageId(7), session: 9, at: "list+joe=b.example@a.example", by: "verp", ..returned }
            .to_string()
    }

    const BEGIN: &str = "feedback id=0000000000000007 s=0000000000000009";

    #[test]
    fn what_a_report_says_is_a_line_for_each_recipient() {
        let known = Returned { sender: "list@a.example", recipient: "joe@b.example", ..Returned::default() };
        let one = Recipient {
            address: "joe@inner.b.example".into(),
            original: "Joe@b.example".into(),
            action: Some(Action::Failed),
            status: Some((5, 1, 1)),
            diagnostic: "550 no \"joe\" here".into(),
        };
        let delivery = Delivery {
            reporter: "mx.b.example".into(),
            envelope_id: "run 7".into(),
            message_id: "1@a.example".into(),
            ..Delivery::default()
        };
        let (told, reply) = of_recipient(&delivery, &one, &known);
        let told = Returned { class: Some("no-such-user"), reply: reply.as_ref(), ..told };
        assert_eq!(
            line(told),
            format!(
                "{BEGIN} kind=bounce by=verp at=<list+joe=b.example@a.example> from=<list@a.example> to=<joe@b.example> \
                 last=<joe@inner.b.example> msgid=<1@a.example> reporter=\"mx.b.example\" envid=\"run 7\" \
                 class=no-such-user dsn=5.1.1 stat=\"550 5.1.1 no 'joe' here\""
            )
        );
        let (told, _) = of_recipient(&delivery, &one, &Returned::default());
        assert_eq!((told.recipient, told.last), ("Joe@b.example", "joe@inner.b.example"));
    }

    #[test]
    fn what_was_refused_with_is_the_diagnostic_or_else_the_status() {
        let reply = |diagnostic: &str, status| {
            let one = Recipient { diagnostic: diagnostic.into(), status, ..Recipient::default() };
            reply(&one).map(|reply| reply.to_string())
        };
        for (diagnostic, status, says) in [
            ("550 5.7.1 no", Some((5, 1, 1)), Some("550 5.1.1 no")),
            ("452 later", None, Some("452 4.0.0 later")),
            ("mailbox is full", Some((5, 2, 2)), Some("550 5.2.2 mailbox is full")),
            ("", Some((4, 4, 1)), Some("450 4.4.1")),
            ("", Some((2, 1, 5)), Some("250 2.1.5")),
            ("mailbox is full", None, None),
            ("999 x", None, None),
        ] {
            assert_eq!(reply(diagnostic, status).as_deref(), says, "{diagnostic}");
        }
    }

    #[test]
    fn a_complaint_without_a_recipient_is_about_whom_the_reverse_path_names() {
        let complaint = Complaint {
            kind: "abuse".into(),
            agent: "Some\"Program".into(),
            sender: "news+jim=c.example@a.example".into(),
            source: "192.0.2.1".into(),
            ..Complaint::default()
        };
        let variable = verp::parse(&complaint.sender, '+');
        let told = of_complaint(&complaint, variable.as_ref(), &Returned::default());
        assert_eq!(
            line(told),
            format!(
                "{BEGIN} kind=complaint type=\"abuse\" by=verp at=<list+joe=b.example@a.example> from=<news@a.example> \
                 to=<jim@c.example> reporter=\"Some'Program\" source=\"192.0.2.1\""
            )
        );
        let plain = Complaint { recipient: "joe@b.example".into(), sender: "news@a.example".into(), ..complaint };
        let told = of_complaint(&plain, None, &Returned::default());
        assert_eq!((told.sender, told.recipient), ("news@a.example", "joe@b.example"));
    }
}

//! The report on what could not be delivered: RFC 3464 in a multipart/report (RFC 3462), RFC 6533 when addresses go beyond ASCII.
//!
//! It goes to the original sender with the null reverse-path, so that nobody answers a report with a report (RFC 5321 §4.5.5).

use crate::date;
use crate::fold::{Charset, foreign, wrapped};
use crate::headers;
use crate::limits::{FOREIGN_BYTES_MAX, REPORTED_HEADER_BYTES_MAX, REPORTED_OUTPUT_BYTES_MAX, REPORTED_RECIPIENTS_MAX};
use crate::received::host;

/// One recipient and what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Recipient<'a> {
    /// Forward-path without brackets.
    pub address: &'a str,
    /// The forward-path that the sender has named, where an alias has made another one of it; else empty.
    pub original: &'a str,
    /// Type and address of whom the sender has written to, as the client has told (ORCPT, RFC 3461); it comes before `original`.
    pub told: Option<(&'a str, &'a str)>,
    /// Enhanced status code (RFC 3463).
    pub status: (u8, u16, u16),
    /// The host that said so; empty: it was us.
    pub remote: &'a str,
    /// Its reply without codes.
    pub reply: &'a str,
    /// What the program has said that has refused the message: any lines. Empty if it was none.
    pub output: &'a str,
    /// Code of the reply.
    pub code: u16,
    /// It was tried until the time was over; `reply` is the last one.
    pub expired: bool,
}

/// A report about one message.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// Our host name.
    pub hostname: &'a str,
    /// Whom the report goes to: the reverse-path of the message, not empty.
    pub sender: &'a str,
    /// Queue identifier of the message.
    pub queue_id: &'a str,
    /// Queue identifier of the report.
    pub bounce_id: &'a str,
    /// When the message came, milliseconds since the Unix epoch.
    pub arrived_ms: u64,
    /// Now, likewise.
    pub now_ms: u64,
    /// The message came with SMTPUTF8, so the sender can read a report that needs it.
    pub smtputf8: bool,
    /// The client's name for the transaction (ENVID, RFC 3461); empty if there is none.
    pub envelope_id: &'a str,
    /// The report returns the whole message, and `original` is all of it. Only a report of failure does.
    pub returns_all: bool,
    /// The message cannot be read any more: nothing of it is shown, which the report says. Only one of failure does.
    pub is_lost: bool,
    /// Those whom it is about.
    pub recipients: &'a [Recipient<'a>],
    /// The message, or its first part with the header.
    pub original: &'a [u8],
}

/// What is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Failed,
    /// Tried until this time, milliseconds since the Unix epoch.
    Delayed(u64),
    /// It is where it was sent to.
    Delivered,
    /// It has gone to a server that cannot be asked for reports.
    Relayed,
}

/// The message that says that delivery failed for good. ASCII, unless `smtputf8` and something goes beyond it.
pub fn compose(report: &Report<'_>) -> Vec<u8> {
    Composer::new(report, Action::Failed).compose()
}

/// The message that says that delivery has succeeded, which the sender has asked for.
pub fn compose_delivered(report: &Report<'_>) -> Vec<u8> {
    Composer::new(report, Action::Delivered).compose()
}

/// The message that says that what the sender has asked for can be told no further, since the next server does not know how.
pub fn compose_relayed(report: &Report<'_>) -> Vec<u8> {
    Composer::new(report, Action::Relayed).compose()
}

/// The message that says that delivery takes long and goes on until `until_ms`.
pub fn compose_delayed(report: &Report<'_>, until_ms: u64) -> Vec<u8> {
    Composer::new(report, Action::Delayed(until_ms)).compose()
}

struct Composer<'r> {
    report: &'r Report<'r>,
    action: Action,
    /// The whole message is shown, not its header only.
    returns_all: bool,
    charset: Charset,
    header: String,
    boundary: String,
    out: Vec<u8>,
}

impl<'r> Composer<'r> {
    fn new(report: &'r Report<'r>, action: Action) -> Self {
        let original = headers::of_message(report.original);
        let header = String::from_utf8_lossy(whole_lines(original)).into_owned();
        let beyond_ascii = !header.is_ascii()
            || !report.sender.is_ascii()
            || report.recipients.iter().any(|one| {
                [one.address, one.original, one.told.map_or("", |(_, address)| address), one.reply, one.output]
                    .iter()
                    .any(|text| !text.is_ascii())
            });
        let charset = if report.smtputf8 && beyond_ascii { Charset::Utf8 } else { Charset::Ascii };
        let mut boundary = format!("=_{}", report.bounce_id.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
        // Nobody can know the identifier beforehand; should the text hold it all the same, it is made longer.
        // A header that goes beyond ASCII without having said so must not travel inside of something that has not, either.
        let is_sound = charset == Charset::Utf8 || header.is_ascii();
        let returns_all = report.returns_all && action == Action::Failed && is_sound;
        let all = if returns_all { report.original } else { &[][..] };
        while header.contains(&boundary) || memchr::memmem::find(all, boundary.as_bytes()).is_some() {
            boundary.push('_');
        }
        let out = Vec::with_capacity(2048 + header.len() + 256 * report.recipients.len().min(REPORTED_RECIPIENTS_MAX));
        Self { report, action, returns_all, charset, header, boundary, out }
    }

    fn compose(mut self) -> Vec<u8> {
        self.fields();
        self.for_people();
        self.for_programs();
        self.original();
        self.out
    }

    fn fields(&mut self) {
        let subject = match self.action {
            Action::Failed => "Mail could not be delivered",
            Action::Delayed(_) => "Mail is delayed",
            Action::Delivered => "Mail was delivered",
            Action::Relayed => "Mail was handed on",
        };
        self.line(&["Date: ", &date_text(self.report.now_ms)]);
        self.text("From: Mail delivery <mailer-daemon@");
        host(&mut self.out, self.report.hostname);
        self.text(">\r\nTo: <");
        self.foreign(self.report.sender);
        self.line(&[">"]);
        self.line(&["Subject: ", subject]);
        self.text("Message-ID: <");
        host(&mut self.out, self.report.bounce_id);
        self.text(".report@");
        host(&mut self.out, self.report.hostname);
        self.line(&[">"]);
        // RFC 3834 §5: nobody's vacation program answers.
        self.line(&["Auto-Submitted: auto-replied"]);
        self.line(&["MIME-Version: 1.0"]);
        self.line(&[
            "Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"",
            &self.boundary.clone(),
            "\"",
        ]);
        if self.charset == Charset::Utf8 || (self.returns_all && !self.report.original.is_ascii()) {
            self.line(&["Content-Transfer-Encoding: 8bit"]);
        }
        self.line(&[]);
        self.line(&["This is a report in MIME format (RFC 3464)."]);
    }

    fn for_people(&mut self) {
        let charset = if self.charset == Charset::Utf8 { "utf-8" } else { "us-ascii" };
        self.part(&["text/plain; charset=", charset]);
        self.text("This is the mail server at ");
        host(&mut self.out, self.report.hostname);
        self.line(&[".\r\n"]);
        let arrived = date_text(self.report.arrived_ms);
        match self.action {
            Action::Failed => {
                self.line(&["Your message of ", &arrived]);
                self.line(&["could not be delivered to the recipients below. It will not be tried again."]);
            }
            Action::Delayed(until_ms) => {
                self.line(&["Your message of ", &arrived]);
                self.line(&["could not yet be delivered to the recipients below. You need not do anything,"]);
                self.line(&["nor send it again: it is tried until ", &date_text(until_ms), "."]);
            }
            Action::Delivered => {
                self.line(&["Your message of ", &arrived]);
                self.line(&["was delivered to the recipients below, as you wanted to be told."]);
            }
            Action::Relayed => {
                self.line(&["Your message of ", &arrived]);
                self.line(&["was handed on for the recipients below. The next server does not report delivery,"]);
                self.line(&["so this is the last that you are told, unless it fails."]);
            }
        }
        for recipient in self.recipients() {
            self.text("\r\n<");
            self.foreign(recipient.address);
            if !recipient.original.is_empty() {
                self.text("> (one of those whom you reach as <");
                self.foreign(recipient.original);
                self.line(&[">)"]);
            } else {
                self.line(&[">"]);
            }
            self.explain(recipient);
        }
        let more = self.report.recipients.len().saturating_sub(REPORTED_RECIPIENTS_MAX);
        if more > 0 {
            self.line(&["\r\n... and ", &more.to_string(), " more."]);
        }
        if self.is_lost() {
            self.line(&["\r\nThe text of your message is lost on this server, which cannot read it any more:"]);
            self.line(&["nothing of it is shown here."]);
        }
    }

    fn is_lost(&self) -> bool {
        self.report.is_lost && self.action == Action::Failed
    }

    fn explain(&mut self, recipient: &Recipient<'_>) {
        let mut text = String::new();
        if recipient.expired {
            text.push_str("Tried until the time was over; the last reason: ");
        }
        if !recipient.remote.is_empty() {
            text.push_str(&self.clean(recipient.remote));
            text.push_str(" said: ");
        }
        text.push_str(&self.diagnostic(recipient));
        self.text("    ");
        wrapped(&mut self.out, 4, &text, b"    ");
        self.said(recipient.output);
    }

    /// What a program said, line by line, cleaned and cut.
    fn said(&mut self, output: &str) {
        let output = output.trim();
        if output.is_empty() {
            return;
        }
        self.line(&["    It said:"]);
        let (shown, rest) = output.split_at(output.floor_char_boundary(REPORTED_OUTPUT_BYTES_MAX));
        for line in shown.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            let mut left = line;
            while !left.is_empty() {
                let (piece, more) = left.split_at(left.floor_char_boundary(FOREIGN_BYTES_MAX));
                let piece = self.clean(piece);
                self.text("      ");
                wrapped(&mut self.out, 6, &piece, b"      ");
                left = more;
            }
        }
        if !rest.is_empty() {
            self.line(&["      ... and more"]);
        }
    }

    fn for_programs(&mut self) {
        self.part(&[match self.charset {
            Charset::Ascii => "message/delivery-status",
            Charset::Utf8 => "message/global-delivery-status",
        }]);
        self.text("Reporting-MTA: dns; ");
        host(&mut self.out, self.report.hostname);
        self.text("\r\nX-Ringpost-Queue-ID: ");
        host(&mut self.out, self.report.queue_id);
        if !self.report.envelope_id.is_empty() {
            self.text("\r\nOriginal-Envelope-Id: ");
            self.foreign(self.report.envelope_id);
        }
        self.line(&["\r\nArrival-Date: ", &date_text(self.report.arrived_ms)]);
        for recipient in self.recipients() {
            self.recipient(recipient);
        }
    }

    /// RFC 3464 §2.3.
    fn recipient(&mut self, recipient: &Recipient<'_>) {
        self.text("\r\n");
        if let Some((kind, address)) = recipient.told {
            self.text("Original-Recipient: ");
            self.foreign(kind);
            self.text("; ");
            self.foreign(address);
            self.text("\r\n");
        } else if !recipient.original.is_empty() {
            self.address("Original-Recipient: ", recipient.original);
            self.text("\r\n");
        }
        self.address("Final-Recipient: ", recipient.address);
        let action = match self.action {
            Action::Failed => "failed",
            Action::Delayed(_) => "delayed",
            Action::Delivered => "delivered",
            Action::Relayed => "relayed",
        };
        self.line(&["\r\nAction: ", action]);
        let (class, subject, detail) = recipient.status;
        // What is tried again has failed for now, whatever class the last reply was of (RFC 3464 §2.3.4).
        let class = if let Action::Delayed(_) = self.action { 4 } else { class };
        // A failure that is final is of class 5, or 4 when the time was over (RFC 3463 §3.5, X.4.7).
        self.line(&["Status: ", &format!("{class}.{subject}.{detail}")]);
        if !recipient.remote.is_empty() {
            self.text("Remote-MTA: dns; ");
            self.foreign(recipient.remote);
            self.line(&[]);
        }
        self.text("Diagnostic-Code: smtp; ");
        let text = self.diagnostic(recipient);
        wrapped(&mut self.out, "Diagnostic-Code: smtp; ".len(), &text, b"\t");
        match self.action {
            Action::Delayed(until_ms) => self.line(&["Will-Retry-Until: ", &date_text(until_ms)]),
            _ => self.line(&["Last-Attempt-Date: ", &date_text(self.report.now_ms)]),
        }
    }

    fn address(&mut self, field: &str, address: &str) {
        let kind = if address.is_ascii() || self.charset == Charset::Ascii { "rfc822" } else { "utf-8" };
        self.text(field);
        self.text(kind);
        self.text("; ");
        self.foreign(address);
    }

    fn original(&mut self) {
        if self.is_lost() {
            // The third part need not be there (RFC 6522 §3).
            return self.line(&["\r\n--", &self.boundary.clone(), "--"]);
        }
        if self.returns_all {
            return self.whole();
        }
        self.part(&[match self.charset {
            Charset::Ascii => "text/rfc822-headers",
            Charset::Utf8 => "message/global-headers",
        }]);
        let ascii = self.charset == Charset::Ascii;
        for line in self.header.split_inclusive("\r\n") {
            let line = line.trim_end_matches(['\r', '\n']);
            self.out.extend(line.chars().flat_map(|c| {
                let fine = c == '\t' || (!c.is_control() && (!ascii || c.is_ascii()));
                let c = if fine { c } else { '?' };
                let mut bytes = [0; 4];
                let count = c.encode_utf8(&mut bytes).len();
                bytes.into_iter().take(count)
            }));
            self.out.extend_from_slice(b"\r\n");
        }
        self.line(&["\r\n--", &self.boundary.clone(), "--"]);
    }

    /// The message as it came.
    fn whole(&mut self) {
        let kind = match self.charset {
            Charset::Ascii => "message/rfc822",
            Charset::Utf8 => "message/global",
        };
        let is_plain = self.charset == Charset::Ascii && self.report.original.is_ascii();
        self.line(&["\r\n--", &self.boundary.clone()]);
        self.line(&["Content-Type: ", kind]);
        if !is_plain {
            self.line(&["Content-Transfer-Encoding: 8bit"]);
        }
        self.line(&[]);
        self.out.extend_from_slice(self.report.original);
        self.line(&["\r\n--", &self.boundary.clone(), "--"]);
    }

    /// The reply as the remote host gave it: code, status, text.
    fn diagnostic(&self, recipient: &Recipient<'_>) -> String {
        let (class, subject, detail) = recipient.status;
        let reply = self.clean(recipient.reply);
        // The status of an expired recipient is ours, not part of the last reply.
        match recipient.expired {
            true => format!("{} {reply}", recipient.code),
            false => format!("{} {class}.{subject}.{detail} {reply}", recipient.code),
        }
    }

    fn part(&mut self, kind: &[&str]) {
        self.line(&["\r\n--", &self.boundary.clone()]);
        self.text("Content-Type: ");
        self.line(kind);
        if self.charset == Charset::Utf8 {
            self.line(&["Content-Transfer-Encoding: 8bit"]);
        }
        self.line(&[]);
    }

    fn recipients(&self) -> &'r [Recipient<'r>] {
        &self.report.recipients[..self.report.recipients.len().min(REPORTED_RECIPIENTS_MAX)]
    }

    fn clean(&self, word: &str) -> String {
        let mut clean = Vec::with_capacity(word.len());
        foreign(&mut clean, word, self.charset);
        String::from_utf8_lossy(&clean).into_owned()
    }

    fn foreign(&mut self, word: &str) {
        foreign(&mut self.out, word, self.charset);
    }

    fn text(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn line(&mut self, parts: &[&str]) {
        parts.iter().for_each(|part| self.text(part));
        self.text("\r\n");
    }
}

/// At most [`REPORTED_HEADER_BYTES_MAX`], cut behind a line.
fn whole_lines(header: &[u8]) -> &[u8] {
    if header.len() <= REPORTED_HEADER_BYTES_MAX {
        return header;
    }
    let cut = &header[..REPORTED_HEADER_BYTES_MAX];
    &cut[..memchr::memrchr(b'\n', cut).map_or(0, |lf| lf + 1)]
}

fn date_text(ms: u64) -> String {
    let mut out = Vec::new();
    date::write(&mut out, ms);
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipient(address: &str) -> Recipient<'_> {
        Recipient {
            address,
            original: "",
            told: None,
            status: (5, 1, 1),
            remote: "mx.example.org",
            reply: "no such user here",
            output: "",
            code: 550,
            expired: false,
        }
    }

    fn report<'a>(recipients: &'a [Recipient<'a>], original: &'a [u8]) -> Report<'a> {
        Report {
            hostname: "mail.example",
            sender: "author@example.com",
            queue_id: "00000000000000A1",
            bounce_id: "00000000000000B2",
            arrived_ms: 1_795_609_032_000,
            now_ms: 1_795_609_092_000,
            smtputf8: false,
            envelope_id: "",
            returns_all: false,
            is_lost: false,
            recipients,
            original,
        }
    }

    fn text(bytes: Vec<u8>) -> String {
        let text = String::from_utf8(bytes).unwrap();
        for line in text.split("\r\n") {
            assert!(line.len() <= 998 && !line.contains(['\r', '\n']), "{line:?}");
        }
        text
    }

    #[test]
    fn a_report_on_a_message_that_cannot_be_read_says_so_and_shows_nothing_of_it() {
        let expired = Recipient { expired: true, code: 451, reply: "it cannot be read", ..recipient("b@example.org") };
        let lost = Report { is_lost: true, returns_all: true, ..report(std::slice::from_ref(&expired), b"") };
        let failed = text(compose(&lost));
        assert!(failed.contains("\r\nThe text of your message is lost on this server"), "{failed}");
        assert!(
            failed.contains("Tried until the time was over; the last reason: mx.example.org said: 451"),
            "{failed}"
        );
        assert!(!failed.contains("rfc822-headers") && !failed.contains("message/rfc822"), "{failed}");
        assert!(failed.ends_with("\r\n\r\n--=_00000000000000B2--\r\n"), "{failed}");
        let delayed = text(compose_delayed(&lost, 1_795_709_092_000));
        assert!(!delayed.contains("is lost") && delayed.contains("rfc822-headers"), "{delayed}");
    }

    #[test]
    fn a_report_as_a_whole() {
        let recipients = [recipient("nobody@example.org")];
        let text =
            text(compose(&report(&recipients, b"From: author@example.com\r\nSubject: hi\r\n\r\nsecret text\r\n")));
        let expected = [
            "Date: Wed, 25 Nov 2026 12:18:12 +0000",
            "From: Mail delivery <mailer-daemon@mail.example>",
            "To: <author@example.com>",
            "Subject: Mail could not be delivered",
            "Message-ID: <00000000000000B2.report@mail.example>",
            "Auto-Submitted: auto-replied",
            "MIME-Version: 1.0",
            "Content-Type: multipart/report; report-type=delivery-status;",
            "\tboundary=\"=_00000000000000B2\"",
            "",
            "This is a report in MIME format (RFC 3464).",
            "",
            "--=_00000000000000B2",
            "Content-Type: text/plain; charset=us-ascii",
            "",
            "This is the mail server at mail.example.",
            "",
            "Your message of Wed, 25 Nov 2026 12:17:12 +0000",
            "could not be delivered to the recipients below. It will not be tried again.",
            "",
            "<nobody@example.org>",
            "    mx.example.org said: 550 5.1.1 no such user here",
            "",
            "--=_00000000000000B2",
            "Content-Type: message/delivery-status",
            "",
            "Reporting-MTA: dns; mail.example",
            "X-Ringpost-Queue-ID: 00000000000000A1",
            "Arrival-Date: Wed, 25 Nov 2026 12:17:12 +0000",
            "",
            "Final-Recipient: rfc822; nobody@example.org",
            "Action: failed",
            "Status: 5.1.1",
            "Remote-MTA: dns; mx.example.org",
            "Diagnostic-Code: smtp; 550 5.1.1 no such user here",
            "Last-Attempt-Date: Wed, 25 Nov 2026 12:18:12 +0000",
            "",
            "--=_00000000000000B2",
            "Content-Type: text/rfc822-headers",
            "",
            "From: author@example.com",
            "Subject: hi",
            "",
            "--=_00000000000000B2--",
            "",
        ];
        assert_eq!(text, expected.join("\r\n"));
    }

    #[test]
    fn who_was_reached_by_an_alias_is_told_as_the_sender_knows_him() {
        let recipients = [Recipient { original: "staff@example.org", ..recipient("gilles@example.org") }];
        let text = text(compose(&report(&recipients, b"")));
        let names =
            "\r\n\r\nOriginal-Recipient: rfc822; staff@example.org\r\nFinal-Recipient: rfc822; gilles@example.org\r\n";
        assert!(text.contains(names), "{text}");
        assert!(
            text.contains("<gilles@example.org> (one of those whom you reach as <staff@example.org>)\r\n"),
            "{text}"
        );
    }

    #[test]
    fn what_the_client_has_told_comes_back_in_the_report() {
        let told = Some(("X-Local", "the staff"));
        let recipients = [Recipient { original: "staff@example.org", told, ..recipient("gilles@example.org") }];
        let wanted = Report { envelope_id: "id 1", ..report(&recipients, b"Subject: hi\r\n\r\nsecret text\r\n") };
        let failed = text(compose(&Report { returns_all: true, ..wanted }));
        assert!(failed.contains("A1\r\nOriginal-Envelope-Id: id 1\r\nArrival-Date: "), "{failed}");
        assert!(failed.contains("\r\n\r\nOriginal-Recipient: X-Local; the staff\r\nFinal-Recipient: "), "{failed}");
        let whole =
            "Content-Type: message/rfc822\r\n\r\nSubject: hi\r\n\r\nsecret text\r\n\r\n--=_00000000000000B2--\r\n";
        assert!(failed.ends_with(whole), "{failed}");
        assert!(!text(compose(&wanted)).contains("secret"));
    }

    #[test]
    fn success_is_told_with_the_header_alone() {
        let recipients = [Recipient { status: (2, 0, 0), code: 250, reply: "taken", ..recipient("u@example.org") }];
        let wanted = Report { returns_all: true, ..report(&recipients, b"Subject: hi\r\n\r\nsecret text\r\n") };
        let delivered = text(compose_delivered(&wanted));
        assert!(delivered.contains("Subject: Mail was delivered\r\n") && !delivered.contains("secret"), "{delivered}");
        assert!(delivered.contains("Action: delivered\r\nStatus: 2.0.0\r\n"), "{delivered}");
        let relayed = text(compose_relayed(&wanted));
        assert!(relayed.contains("Action: relayed\r\nStatus: 2.0.0\r\n"), "{relayed}");
        assert!(relayed.contains("The next server does not report delivery,\r\n"), "{relayed}");
    }

    #[test]
    fn a_whole_message_of_eight_bits_stays_inside_and_says_so() {
        let recipients = [recipient("u@example.org")];
        let original = "Subject: hi\r\n\r\n--=_00000000000000B2--\r\ngrüße\r\n";
        let whole = Report { returns_all: true, ..report(&recipients, original.as_bytes()) };
        let returned = text(compose(&whole));
        assert_eq!(returned.matches("Content-Transfer-Encoding: 8bit\r\n").count(), 2);
        assert!(returned.ends_with("grüße\r\n\r\n--=_00000000000000B2_--\r\n"), "{returned}");
        // A header beyond ASCII that nobody has asked SMTPUTF8 for does not travel as it is.
        let odd = Report { original: "Subject: ü\r\n\r\nsecret\r\n".as_bytes(), ..whole };
        assert!(!text(compose(&odd)).contains("secret"));
    }

    #[test]
    fn expired_and_delayed() {
        let mut late = recipient("slow@example.org");
        late = Recipient { status: (4, 4, 7), code: 451, reply: "4.4.1 no route", remote: "", expired: true, ..late };
        let recipients = [late];
        let failed = text(compose(&report(&recipients, b"")));
        assert!(failed.contains("Action: failed\r\nStatus: 4.4.7\r\nDiagnostic-Code: smtp; 451 4.4.1 no route\r\n"));
        assert!(failed.contains("Tried until the time was over; the last reason: 451 4.4.1 no route\r\n"), "{failed}");
        let until = "Wed, 25 Nov 2026 12:33:12 +0000";
        let waits = |recipient| text(compose_delayed(&report(&[recipient], b""), 1_795_609_992_000));
        let delayed = waits(Recipient { status: (4, 4, 1), reply: "no route", expired: false, ..late });
        for part in [
            "Subject: Mail is delayed\r\n",
            "\r\nnor send it again: it is tried until ",
            "\r\n    451 4.4.1 no route\r\n",
            "Action: delayed\r\nStatus: 4.4.1\r\nDiagnostic-Code: smtp; 451 4.4.1 no route\r\nWill-Retry-Until: ",
        ] {
            assert!(delayed.contains(part), "{part:?} is not in\n{delayed}");
        }
        assert_eq!(delayed.matches(until).count(), 2, "for people and for programs");
        // A reply that the configuration takes for a temporary one.
        let delayed = waits(Recipient { code: 550, status: (5, 7, 1), expired: false, ..late });
        assert!(delayed.contains("Status: 4.7.1\r\nDiagnostic-Code: smtp; 550 5.7.1 "), "{delayed}");
    }

    #[test]
    fn beyond_ascii_only_for_those_who_can_read_it() {
        let recipients = [recipient("ü@bücher.example")];
        let mut report = report(&recipients, "Subject: grüße\r\n\r\n".as_bytes());
        let plain = compose(&report);
        assert!(plain.is_ascii());
        assert!(text(plain).contains("Final-Recipient: rfc822; ?@b?cher.example\r\n"));
        report.smtputf8 = true;
        let global = text(compose(&report));
        assert!(global.contains("Final-Recipient: utf-8; ü@bücher.example\r\n"));
        assert!(global.contains("Content-Type: message/global-delivery-status\r\n"));
        assert!(global.contains("Content-Type: message/global-headers\r\n"));
        assert!(global.contains("\r\nSubject: grüße\r\n"));
    }

    #[test]
    fn hostile_originals_stay_inside() {
        let mut hostile = recipient("a\r\nAction: delivered@example.org");
        hostile.reply = "x\r\n--=_00000000000000B2--\r\n";
        hostile.remote = "mx\r\nevil";
        hostile.original = "b\r\nevil: 1@example.org";
        let recipients = vec![hostile; REPORTED_RECIPIENTS_MAX + 5];
        let mut original = b"X: --=_00000000000000B2--\r\nY: \xff\x00\r\n".to_vec();
        original.extend(b"Z: 1\r\n".repeat(100_000));
        let text = text(compose(&report(&recipients, &original)));
        assert_eq!(text.matches("\r\n--=_00000000000000B2_\r\n").count(), 3);
        assert_eq!(text.matches("\r\n--=_00000000000000B2_--\r\n").count(), 1);
        assert!(!text.contains("\r\nAction: delivered") && !text.contains("\r\nevil"));
        assert!(text.contains("and 5 more."));
        assert!(text.len() < REPORTED_HEADER_BYTES_MAX + 600 * REPORTED_RECIPIENTS_MAX);
    }

    #[test]
    fn what_a_program_said_is_shown_in_lines_and_cut() {
        let output = format!("quota exceeded\r\n\n--=_00000000000000B2--\x07\nBcc: x\n{}", "y".repeat(9000));
        let recipients = [Recipient { output: &output, ..recipient("gilles@example.org") }];
        let text = String::from_utf8(compose(&report(&recipients, b"Subject: x\r\n\r\n"))).unwrap();
        let shown =
            "    It said:\r\n      quota exceeded\r\n      --=_00000000000000B2--?\r\n      Bcc: x\r\n      yyy";
        assert!(text.contains(shown), "{text}");
        assert!(text.contains("\r\n      ... and more\r\n"), "{text}");
        assert!(text.len() < 8000 && text.split("\r\n").all(|line| line.len() <= 998), "{}", text.len());
        let machine = text.split("message/delivery-status").nth(1).unwrap();
        assert!(!machine.contains("quota"), "{machine}");
    }
}

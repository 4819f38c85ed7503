//! Reports as servers write them, and as strangers might, read for every cut.

use super::*;
use crate::dsn;

/// Reads a message that comes in two pieces.
fn read(message: &[u8], cut: usize) -> Option<Feedback> {
    let mut reader = Reader::new();
    reader.feed(&message[..cut]);
    reader.feed(&message[cut..]);
    reader.finish()
}

/// The same for every cut, if it is short.
fn read_all(message: &str) -> Option<Feedback> {
    let message = message.replace('\n', "\r\n");
    let whole = read(message.as_bytes(), 0);
    for cut in 0..message.len() {
        assert_eq!(read(message.as_bytes(), cut), whole, "cut at {cut}");
    }
    whole
}

fn delivery(message: &str) -> Delivery {
    match read_all(message) {
        Some(Feedback::Delivery(delivery)) => delivery,
        other => panic!("{other:?}"),
    }
}

/// As Postfix writes it.
const BOUNCE: &str = "\
From: MAILER-DAEMON@mx.b.example (Mail Delivery System)
Subject: Undelivered Mail Returned to Sender
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status;
\tboundary=\"5C6D.1/mx.b.example\"

This is a MIME-encapsulated message.

--5C6D.1/mx.b.example
Content-Description: Notification
Content-Type: text/plain; charset=us-ascii

Final-Recipient: rfc822; not-this@b.example
--5C6D.1/mx.b.example.not-the-boundary

--5C6D.1/mx.b.example
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.b.example
Original-Envelope-Id: run-7
X-Postfix-Queue-ID: 5C6D
Arrival-Date: Thu, 26 Nov 2026 10:00:00 +0000 (UTC)

Final-Recipient: rfc822; joe@b.example
Original-Recipient: rfc822;Joe.User@b.example
Action: failed
Status: 5.1.1
Remote-MTA: dns; inner.b.example
Diagnostic-Code: smtp; 550 5.1.1 <joe@b.example>:
    Recipient address rejected

Final-Recipient: RFC822; <jim@b.example>
Action: DELAYED (for now)
Status: 4.2.2 (mailbox full)

--5C6D.1/mx.b.example
Content-Type: text/rfc822-headers

Received: from a.example
Message-ID: <1.2@a.example>
Subject: x

--5C6D.1/mx.b.example--
Final-Recipient: rfc822; neither-this@b.example
";

#[test]
fn reports_of_delivery_are_read_for_every_cut() {
    let read = delivery(BOUNCE);
    let joe = Recipient {
        address: "joe@b.example".into(),
        original: "Joe.User@b.example".into(),
        action: Some(Action::Failed),
        status: Some((5, 1, 1)),
        diagnostic: "550 5.1.1 <joe@b.example>: Recipient address rejected".into(),
    };
    let jim = Recipient {
        address: "jim@b.example".into(),
        action: Some(Action::Delayed),
        status: Some((4, 2, 2)),
        ..Recipient::default()
    };
    let expected = Delivery {
        reporter: "mx.b.example".into(),
        envelope_id: "run-7".into(),
        recipients: vec![joe, jim],
        more: 0,
        message_id: "1.2@a.example".into(),
    };
    assert_eq!(read, expected);
}

#[test]
fn what_is_cut_off_or_has_bare_line_feeds_is_read_as_far_as_it_goes() {
    let cut = &BOUNCE[..BOUNCE.find("Remote-MTA").expect("it is there")];
    let Some(Feedback::Delivery(read_of_cut)) = read(cut.replace('\n', "\r\n").as_bytes(), 10) else { panic!("{cut}") };
    assert_eq!(read_of_cut.recipients[0].status, Some((5, 1, 1)));
    let Some(Feedback::Delivery(bare)) = read(BOUNCE.as_bytes(), 10) else { panic!("it is a report") };
    assert_eq!(bare, delivery(BOUNCE));
}

/// As large providers write them (RFC 5965, appendix B.2).
const COMPLAINT: &str = "\
From: <abusedesk@b.example>
Content-type: MULTIPART/REPORT; boundary=part1_13d.2e68ed54_boundary; report-type=feedback-report
MIME-Version: 1.0

--part1_13d.2e68ed54_boundary
Content-Type: text/plain; charset=\"US-ASCII\"

This is an email abuse report.

--part1_13d.2e68ed54_boundary
Content-Type: message/feedback-report

Feedback-Type: Abuse
User-Agent: SomeGenerator/1.0
Version: 1
Original-Mail-From: <news+joe=b.example@a.example>
Original-Rcpt-To: <joe@b.example>
Original-Rcpt-To: <jim@b.example>
Received-Date: Thu, 8 Mar 2026 14:00:00 EDT
Source-IP: 192.0.2.2
Reported-Domain: a.example

--part1_13d.2e68ed54_boundary
Content-Type: message/rfc822
Content-Disposition: inline

From: <news@a.example>
Message-ID: 8787KJKJ3K4J3K4J3K4J3.mail@a.example

Message-ID: <not-this@a.example>
--part1_13d.2e68ed54_boundary--
";

#[test]
fn complaints_are_read_for_every_cut() {
    let expected = Complaint {
        kind: "abuse".into(),
        agent: "SomeGenerator/1.0".into(),
        sender: "news+joe=b.example@a.example".into(),
        recipient: "joe@b.example".into(),
        source: "192.0.2.2".into(),
        domain: "a.example".into(),
        message_id: "8787KJKJ3K4J3K4J3K4J3.mail@a.example".into(),
    };
    assert_eq!(read_all(COMPLAINT), Some(Feedback::Complaint(expected)));
}

#[test]
fn our_own_reports_are_read() {
    let recipient = dsn::Recipient {
        address: "joe@b.example",
        original: "",
        told: Some(("rfc822", "list@a.example")),
        status: (5, 1, 1),
        remote: "mx.b.example",
        reply: "no such user",
        output: "",
        code: 550,
        expired: false,
    };
    let text = dsn::compose(&dsn::Report {
        hostname: "mx.a.example",
        sender: "news@a.example",
        queue_id: "A1",
        bounce_id: "B2",
        arrived_ms: 1_795_609_032_000,
        now_ms: 1_795_609_033_000,
        smtputf8: false,
        envelope_id: "run 7",
        returns_all: true,
        is_lost: false,
        recipients: &[recipient],
        original: b"Message-ID: <7@a.example>\r\n\r\nhello\r\n",
    });
    let Some(Feedback::Delivery(read)) = read(&text, 100) else { panic!("it is a report") };
    assert_eq!((read.reporter.as_str(), read.envelope_id.as_str()), ("mx.a.example", "run 7"));
    assert_eq!(read.message_id, "7@a.example");
    let [one] = &read.recipients[..] else { panic!("{read:?}") };
    assert_eq!((one.address.as_str(), one.original.as_str()), ("joe@b.example", "list@a.example"));
    assert_eq!((one.action, one.status), (Some(Action::Failed), Some((5, 1, 1))));
    assert_eq!(one.diagnostic, "550 5.1.1 no such user");
}

#[test]
fn other_messages_are_none() {
    let part = "--b\nContent-Type: message/delivery-status\n\nX: y\n\nFinal-Recipient: rfc822; a@b.example\n--b--\n";
    for header in [
        "",
        "Subject: hello\n",
        "Content-Type: text/plain\n",
        "Content-Type: multipart/mixed; boundary=b\n",
        "Content-Type: multipart/report\n",
        "Content-Type: multipart/report; boundary=\n",
        "Content-Type: multipart/report; boundary=\"\"\n",
        "Content-Type: multipart/report; x=boundary=b\n",
        "Content-Type: multipart/report; x=\"; boundary=b\"\n",
        "Content-Type: multipart/report; report-type=delivery-status; boundary=other\n",
    ] {
        assert_eq!(read_all(&format!("{header}\n{part}")), None, "{header}");
    }
    for header in [
        "Content-Type: multipart/report; boundary=b\n",
        "content-type : multipart/report;\n boundary = \"b\" ; x=y\n",
        "Content-Type: Multipart/Report; x=\"a;b\\\"c\"; Boundary=\"\\b\"\n",
    ] {
        assert!(read_all(&format!("{header}\n{part}")).is_some(), "{header}");
    }
    let nobody = "Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\nX: y\n";
    assert_eq!(read_all(nobody), None, "a report about nobody");
}

#[test]
fn hostile_reports_are_cut_and_cleaned() {
    let long = "x".repeat(5000);
    let mut message = format!(
        "Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n\
         Reporting-MTA: dns; {long}\n\n"
    );
    for _ in 0..500 {
        message += &format!(
            "Final-Recipient: rfc822; a\x1b\"<b>@{long}\nAction: failed\nStatus: 5.99999.1\n\
             Diagnostic-Code: smtp; \u{2028}550\x07 {long}\n {long}\n {long}\n {long}\n\n"
        );
    }
    message += "--b--\n";
    let message = message.replace('\n', "\r\n");
    let Some(Feedback::Delivery(read)) = read(message.as_bytes(), 7) else { panic!("it is a report") };
    assert_eq!((read.recipients.len(), read.more), (FEEDBACK_RECIPIENTS_MAX, 500 - FEEDBACK_RECIPIENTS_MAX));
    assert!(read.reporter.len() <= FEEDBACK_ADDRESS_BYTES_MAX);
    for one in &read.recipients {
        assert_eq!((one.address.as_str(), one.status), ("a???b", None));
        assert!(one.diagnostic.starts_with("?550? x") && one.diagnostic.len() <= FEEDBACK_TEXT_BYTES_MAX);
    }
}

#[test]
fn what_it_keeps_is_bounded_whatever_it_is_fed() {
    let kept = |reader: &Reader| {
        let Reader { line, field, content, delimiter, delivery, recipient, message_id, .. } = reader;
        let of = |one: &Recipient| one.address.capacity() + one.original.capacity() + one.diagnostic.capacity();
        let all: usize = delivery.iter().flat_map(|delivery| &delivery.recipients).map(of).sum();
        line.capacity()
            + field.capacity()
            + content.capacity()
            + delimiter.capacity()
            + message_id.capacity()
            + all
            + of(recipient)
    };
    let mut reader = Reader::new();
    reader.feed(
        b"Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n",
    );
    for _ in 0..2000 {
        reader.feed(b"Final-Recipient: rfc822; ");
        (0..20).for_each(|_| reader.feed(&[b'a'; 1000]));
        reader.feed(b"\r\nDiagnostic-Code: ");
        (0..20).for_each(|_| reader.feed(b"\xc3\xbc\xff\0 \r\n\t"));
        reader.feed(b"\r\n\r\n");
    }
    assert!(kept(&reader) <= 64 * 1024, "{}", kept(&reader));
    let mut endless = Reader::new();
    (0..10_000).for_each(|_| endless.feed(&[b'a'; 1000]));
    assert!(kept(&endless) <= 4 * 1024, "{}", kept(&endless));
}

/// Base64 in lines of so many characters.
fn base64(text: &str, width: usize) -> String {
    let alphabet: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(*b"+/").collect();
    let mut written = Vec::new();
    for three in text.as_bytes().chunks(3) {
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        let digits = (0..4).map(|at| alphabet[(bits >> (18 - 6 * at)) as usize & 63]);
        written.extend(digits.enumerate().map(|(at, digit)| if at <= three.len() { digit } else { b'=' }));
    }
    let lines = written.chunks(width).map(|line| String::from_utf8_lossy(line).into_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// Quoted-printable, with every `every`th character as digits, and soft ends.
fn quoted(text: &str, every: usize) -> String {
    let mut written = String::new();
    for (at, c) in text.chars().enumerate() {
        match c {
            '\n' => written.push('\n'),
            c if c == '=' || at.is_multiple_of(every) => written += &format!("={:02X}", c as u32),
            c => written.push(c),
        }
        if at % 19 == 18 {
            written += "=\n";
        }
    }
    written
}

/// The same report with the part of this type encoded.
fn encoded(report: &str, kind: &str, encoding: &str, encode: impl Fn(&str) -> String) -> String {
    let header = format!("Content-Type: {kind}\n");
    let at = report.find(&header).expect("it has such a part") + header.len();
    let (head, rest) = report.split_at(at);
    // Its last field, and an empty line.
    let body = 1;
    let end = rest.find("\n--5C6D").expect("a boundary follows");
    format!("{head}Content-Transfer-Encoding: {encoding}\n\n{}\n{}", encode(&rest[body..end]), &rest[end..])
}

#[test]
fn s101_encoded_parts_are_read_as_plain_ones_for_every_cut() {
    let plain = delivery(BOUNCE);
    for kind in ["message/delivery-status", "text/rfc822-headers"] {
        for width in [4, 76] {
            let crlf = |text: &str| base64(&text.replace('\n', "\r\n"), width);
            assert_eq!(delivery(&encoded(BOUNCE, kind, "BASE64 (as it is)", crlf)), plain, "{kind} {width}");
        }
        for every in [1, 7] {
            let soft = |text: &str| quoted(text, every);
            assert_eq!(delivery(&encoded(BOUNCE, kind, "Quoted-Printable", soft)), plain, "{kind} {every}");
        }
    }
    // A word that is no encoding is none.
    assert_eq!(delivery(&encoded(BOUNCE, "message/delivery-status", "x-rot13", str::to_owned)), plain);
}

#[test]
fn s101_hostile_encodings_are_read_as_far_as_they_go() {
    let part = |encode: &dyn Fn(&str) -> String| encoded(BOUNCE, "message/delivery-status", "base64", encode);
    // A boundary that is encoded is text, and ends nothing; what is behind the padding is nothing.
    let inside = |text: &str| base64(&format!("--5C6D.1/mx.b.example--\n{text}"), 76);
    assert_eq!(delivery(&part(&inside)).recipients, delivery(BOUNCE).recipients);
    let padded = |text: &str| base64("Final-Recipient: rfc822; a@b.example", 76) + "==\n" + &base64(text, 76);
    let all = delivery(&part(&padded)).recipients;
    assert_eq!((all.len(), all[0].address.as_str()), (1, "a@b.example"));
    // Neither is: nothing is made of it, and what is not encoded is still read.
    assert_eq!(read_all(&part(&|_| "Final-Recipient: rfc822; a@b.example\n\0=\u{1b}".into())), None);
    // Decoded texts are cleaned and cut as others.
    let long = format!("Final-Recipient: rfc822; {}@b.example\nDiagnostic-Code: x; \u{1b}[2J\u{7}\n", "a".repeat(5000));
    let message = part(&|_| base64(&long, 76)).replace('\n', "\r\n");
    let Some(Feedback::Delivery(read)) = read(message.as_bytes(), 9) else { panic!("it is a report") };
    assert!(read.recipients[0].address.len() <= FEEDBACK_ADDRESS_BYTES_MAX);
    assert_eq!(read.recipients[0].diagnostic, "?[2J?");
    // One that has no end is read up to a bound, with no more memory than any.
    let mut reader = Reader::new();
    let head = part(&|_| "HERE".into());
    reader.feed(head[..head.find("HERE").expect("it is there")].replace('\n', "\r\n").as_bytes());
    let line = base64("Final-Recipient: rfc822; aa@b.example\n\n", 76) + "\r\n";
    (0..200_000).for_each(|_| reader.feed(line.as_bytes()));
    assert!(reader.line.capacity() + reader.field.capacity() < 64 * 1024);
    let Some(Feedback::Delivery(read)) = reader.finish() else { panic!("it is a report") };
    let made = read.recipients.len() + read.more;
    assert!(made > 20_000 && made < 40_000, "{made}: as many as a mebibyte has");
}

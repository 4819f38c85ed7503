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

//! What a client sees on the wire: order and grouping of replies, each extension, each limit and its reply.

use std::time::Duration;

use crate::support::server::{LISTENERS, SMALL};
use crate::support::text::{MARK, message, stuffed};
use crate::support::{Client, Random, Server, Setup, Sink, maildir};

/// Recipients of `ok.example` are taken and go nowhere; no others.
fn picky() -> Server {
    Setup::new(PICKY).start()
}

const PICKY: &str = "action \"none\" discard\nmatch for domain \"ok.example\" action \"none\"\n";

fn limited(limits: &str) -> Server {
    Setup::whole(format!("{SMALL}{LISTENERS}{limits}\n{PICKY}")).start()
}

/// Splits what one read has brought into replies.
fn replies(bytes: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    assert!(text.ends_with("\r\n"), "half a line: {text:?}");
    text.trim_end().split("\r\n").map(str::to_owned).collect()
}

#[test]
fn s92_a_pipelined_group_is_answered_in_order_in_one_write() {
    let server = picky();
    let mut client = server.client();
    for round in 0..5 {
        let mut group = String::from("MAIL FROM:<a@source.example>\r\n");
        for number in 0..50 {
            let domain = if number % 3 == 1 { "elsewhere.example" } else { "ok.example" };
            group.push_str(&format!("RCPT TO:<r{number}@{domain}>\r\n"));
        }
        group.push_str("DATA\r\n");
        client.send(group.as_bytes());
        let replies = replies(&client.read_once());
        assert_eq!(replies.len(), 52, "round {round}: {replies:?}");
        assert!(replies[0].starts_with("250 2.1.0 "), "{}", replies[0]);
        for (number, reply) in replies[1..51].iter().enumerate() {
            let expected = if number % 3 == 1 { "550 5.7.1 " } else { "250 2.1.5 " };
            assert!(reply.starts_with(expected), "recipient {number}: {reply}");
        }
        assert!(replies[51].starts_with("354"), "{}", replies[51]);
        // The body leaves together with the next group, as RFC 2920 allows.
        client.send(b"Subject: x\r\n\r\nx\r\n.\r\nNOOP\r\nRSET\r\n");
        client.expect("250 2.0.0 queued as ");
        client.expect("250");
        client.expect("250");
    }
}

#[test]
fn s92_wrong_order_and_early_data_are_refused_in_step() {
    let server = picky();
    let mut client = server.client();
    client.send(b"RCPT TO:<a@ok.example>\r\nDATA\r\nMAIL FROM:<>\r\nMAIL FROM:<>\r\nDATA\r\nRCPT TO:<a@elsewhere.example>\r\nDATA\r\nRSET\r\nNOOP\r\n");
    for expected in ["503 5.5.1", "503 5.5.1", "250 2.1.0", "503 5.5.1", "", "550 5.7.1", "554 5.5.1", "250", "250"] {
        let reply = client.reply();
        // DATA before any RCPT is either out of order or without a valid recipient.
        let ok = if expected.is_empty() { matches!(reply.code, 503 | 554) } else { reply.starts_with(expected) };
        assert!(ok, "expected {expected:?}, got {reply:?}");
    }
    // A client that sends its body without waiting for 354 hears each line refused as a command, and nothing is taken.
    client.send(b"MAIL FROM:<>\r\nRCPT TO:<a@elsewhere.example>\r\nDATA\r\nSubject: early\r\n.\r\nNOOP\r\n");
    for expected in ["250", "550", "554", "500", "500", "250"] {
        client.expect(expected);
    }
    assert_eq!(server.metric("messages_received"), 0);
}

#[test]
fn s91_a_dialogue_is_the_same_however_it_is_cut() {
    let server = picky();
    let body = message("cut", &mut Random::new(3), 2000);
    let mut dialogue =
        b"EHLO cut.example\r\nNOOP hello\r\nMAIL FROM:<a@b.example> SIZE=2000 BODY=8BITMIME\r\n".to_vec();
    dialogue.extend_from_slice(b"RCPT TO:<x@ok.example>\r\nRCPT TO:<x@elsewhere.example>\r\nDATA\r\n");
    dialogue.extend_from_slice(&stuffed(&body));
    dialogue.extend_from_slice(
        b"nonsense\r\nHELP\r\nVRFY x\r\nEXPN x\r\nMAIL FROM:<>\r\nRCPT TO:<x@ok.example>\r\nBDAT 5\r\n",
    );
    dialogue.extend_from_slice(b"a\r\nb\rBDAT 3 LAST\r\n\nc\nRSET\r\nQUIT\r\n");
    // "a\r\nb\r" and "\nc\n" are cut within a line end; "c\n" has a bare LF: the message is refused.
    let codes = "220 250 250 250 250 550 354 250 500 214 252 502 250 250 250 550 250 221";
    for piece in [dialogue.len(), 1, 2, 7, 1000] {
        let mut client = Client::connect(server.smtp);
        for part in dialogue.chunks(piece) {
            client.send(part);
        }
        let heard: Vec<String> = codes.split(' ').map(|_| client.reply().code.to_string()).collect();
        assert_eq!(heard.join(" "), codes, "in pieces of {piece}");
        assert!(client.is_closed(), "after QUIT");
    }
}

#[test]
fn s92_ehlo_offers_what_is_there_and_helo_nothing() {
    let server = limited("smtp max-message-size 1M\nsmtp limit max-rcpt 70 max-mails 9");
    let mut client = Client::connect(server.smtp);
    client.expect("220 ");
    let offered = client.say("EHLO client.example").lines;
    let expected = [
        "PIPELINING",
        "SIZE 1048576",
        "8BITMIME",
        "SMTPUTF8",
        "CHUNKING",
        "ENHANCEDSTATUSCODES",
        "DSN",
        "LIMITS RCPTMAX=70 MAILMAX=9",
    ];
    for keyword in expected {
        assert!(offered.iter().any(|line| line == keyword), "no {keyword} in {offered:?}");
    }
    for keyword in ["STARTTLS", "AUTH", "BINARYMIME"] {
        assert!(!offered.iter().any(|line| line.starts_with(keyword)), "{keyword} is not there yet");
    }
    let reply = client.say("HELO client.example");
    assert_eq!((reply.code, reply.lines.len()), (250, 1));
    assert!(client.say("EHLO").starts_with("501"));
}

#[test]
fn s92_chunks_are_taken_and_refused_ones_are_swallowed() {
    let sink = Sink::open();
    let server = Setup::new(format!(
        "action \"out\" relay host \"smtp://{}\"\nmatch for domain \"ok.example\" action \"out\"\n",
        sink.address
    ))
    .start();
    let mut client = server.client();
    let text = message("chunks", &mut Random::new(11), 300_000);
    assert_eq!(client.submit_chunked("a@source.example", &["b@ok.example"], &text, 9_999).code, 250);
    let received = sink.wait_for(1, Duration::from_secs(20));
    assert_eq!(received[0].digest, crate::support::text::digest(&text));

    // Without a valid recipient the chunk is read over; the next command is a command again.
    client.send(b"MAIL FROM:<>\r\nRCPT TO:<a@elsewhere.example>\r\nBDAT 12 LAST\r\nQUIT\r\nQUIT\r\nNOOP\r\n");
    for expected in ["250", "550", "554", "250"] {
        client.expect(expected);
    }
    client.send(b"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<a@ok.example>\r\nBDAT 4\r\nab\r\nDATA\r\nRSET\r\nNOOP\r\n");
    for expected in ["250", "250", "250", "250", "503", "250", "250"] {
        client.expect(expected);
    }
    assert_eq!(server.metric("messages_received"), 1);
}

#[test]
fn s92_size_and_internationalised_addresses() {
    let server = limited("smtp max-message-size 100K");
    let mut client = server.client();
    assert!(client.say("MAIL FROM:<a@b.example> SIZE=200000").starts_with("552 5.3.4"));
    assert!(client.say("MAIL FROM:<a@b.example> SIZE=x").starts_with("501 5.5.4"));
    assert!(client.say("MAIL FROM:<a@b.example> FROB=1").starts_with("555 5.5.4"));
    assert!(client.say("MAIL FROM:<gr\u{fc}\u{df}e@b.example>").starts_with("553 5.6.7"));
    assert!(client.say("MAIL FROM:<gr\u{fc}\u{df}e@b.example> SMTPUTF8 SIZE=20").starts_with("250"));
    assert!(client.say("RCPT TO:<\u{fc}ber@ok.example>").starts_with("250"));
    assert_eq!(client.say("DATA").code, 354);
    client.send("Subject: \u{fc}\r\n\r\n\u{fc}\r\n.\r\n".as_bytes());
    client.expect("250 2.0.0 queued as ");

    // Larger than announced: read to its end, then refused; the session goes on.
    client.envelope("a@b.example", &["x@ok.example"]);
    assert_eq!(client.say("DATA").code, 354);
    client.send(&stuffed(&message("large", &mut Random::new(1), 3 << 20)));
    client.expect("552 5.3.4");
    let text = message("fits", &mut Random::new(2), 90_000);
    assert_eq!(client.submit("a@b.example", &["x@ok.example"], &text).code, 250);
}

#[test]
fn s92_only_crlf_dot_crlf_ends_data_and_bare_line_ends_are_refused() {
    let server = picky();
    for smuggled in ["\n.\n", "\n.\r\n", "\r.\r", "\r\n.\n", "\r\n.\r", "\n.\n\n", "\r.\r\n"] {
        let mut client = server.client();
        client.envelope("a@b.example", &["x@ok.example"]);
        assert_eq!(client.say("DATA").code, 354);
        let evil = format!(
            "Subject: x\r\n\r\nx{smuggled}MAIL FROM:<evil@b.example>\r\nRCPT TO:<y@ok.example>\r\nDATA\r\nevil\r\n.\r\n"
        );
        client.send(evil.as_bytes());
        client.expect("550 5.6.11");
        // Only this one reply: what was smuggled was not obeyed.
        client.send(b"NOOP\r\nRCPT TO:<y@ok.example>\r\n");
        client.expect("250");
        client.expect("503");
    }
    let mut client = server.client();
    // What follows a bare LF is part of the same line, and not obeyed.
    client.send(b"NOOP\nMAIL FROM:<evil@b.example>\r\nRCPT TO:<y@ok.example>\r\n");
    client.expect("500 5.5.2");
    client.expect("500 5.5.2");
    client.expect("503");
    assert_eq!(server.metric("messages_received"), 0);
}

#[test]
fn every_limit_of_a_session_has_a_reply() {
    let server = limited("smtp limit max-rcpt 10 max-errors 5 max-mails 3");
    let mut client = server.client();
    // Longer than any command may be: one reply, and in step again.
    client.send(&[b'N'; 200_000]);
    client.send(b"\r\nNOOP\r\n");
    client.expect("500 5.5.2");
    client.expect("250");

    assert_eq!(client.say("MAIL FROM:<a@b.example>").code, 250);
    for number in 0..10 {
        assert_eq!(client.say(&format!("RCPT TO:<r{number}@ok.example>")).code, 250);
    }
    assert!(client.say("RCPT TO:<r10@ok.example>").starts_with("452 4.5.3"));
    assert_eq!(client.say("DATA").code, 354);
    client.send(b"Subject: x\r\n\r\n.\r\n");
    client.expect("250 2.0.0 queued as ");

    for key in ["two", "three"] {
        assert_eq!(
            client.submit("a@b.example", &["x@ok.example"], format!("{MARK}{key}\r\n\r\n").as_bytes()).code,
            250
        );
    }
    client.send(b"MAIL FROM:<a@b.example>\r\n");
    client.expect("421 4.5.3");
    assert!(client.is_closed());

    let mut client = server.client();
    for _ in 0..4 {
        assert_eq!(client.say("XYZZY").code, 500);
    }
    let last = client.say("XYZZY");
    let farewell = if last.code == 500 { client.reply() } else { last };
    assert!(farewell.starts_with("421 4.7.0"), "{farewell:?}");
    assert!(client.is_closed());
    // Others are not disturbed.
    assert_eq!(server.client().say("NOOP").code, 250);
}

#[test]
fn a_client_that_says_nothing_is_told_so() {
    let server = limited("smtp limit timeout 1s data-timeout 2s");
    let mut silent = server.client();
    let mut halfway = server.client();
    halfway.envelope("a@b.example", &["x@ok.example"]);
    assert_eq!(halfway.say("DATA").code, 354);
    halfway.send(b"Subject: x\r\n");
    silent.expect("421 4.4.2");
    assert!(silent.is_closed());
    halfway.expect("421 4.4.2");
    assert!(halfway.is_closed());
    assert_eq!(server.metric("messages_received"), 0);
}

#[test]
fn too_many_sessions_are_turned_away_until_one_leaves() {
    let limits = "smtp limit max-sessions 3";
    let server =
        Setup::whole(format!("shards 1\nstore {{ segment 16M, spare 2 }}\n{LISTENERS}{limits}\n{PICKY}")).start();
    // The start has left a connection behind, which may still count.
    crate::support::wait_until("three sessions", Duration::from_secs(10), || {
        let open: Vec<Client> = (0..3).map(|_| Client::connect(server.smtp)).collect();
        open.into_iter().all(|mut client| client.reply().code == 220)
    });
    let mut open = Vec::new();
    crate::support::wait_until("three sessions that stay", Duration::from_secs(10), || {
        let mut client = Client::connect(server.smtp);
        if client.reply().code == 220 {
            open.push(client);
        }
        open.len() == 3
    });
    let mut more = Client::connect(server.smtp);
    more.expect("421 4.3.2");
    assert!(more.is_closed());
    assert_eq!(open[0].say("NOOP").code, 250);
    assert_eq!(open.pop().expect("one").say("QUIT").code, 221);
    crate::support::wait_until("a place for another", Duration::from_secs(10), || {
        Client::connect(server.smtp).reply().code == 220
    });
}

#[test]
fn too_many_received_fields_are_a_loop() {
    let server = picky();
    let mut client = server.client();
    let text = "Received: from a by b\r\n".repeat(101) + "\r\nround and round\r\n";
    assert!(client.submit("a@b.example", &["x@ok.example"], text.as_bytes()).starts_with("554 5.4.6"));
    let text = "Received: from a by b\r\n".repeat(40) + "\r\nfar travelled\r\n";
    assert_eq!(client.submit("a@b.example", &["x@ok.example"], text.as_bytes()).code, 250);
}

#[test]
fn many_idle_connections_cost_little_and_a_new_client_is_served_at_once() {
    let server = picky();
    let engine = server.engine();
    let warm: Vec<Client> = (0..50).map(|_| server.client()).collect();
    let before = crate::support::engine::memory(engine, "VmRSS");
    let idle: Vec<Client> = (0..1000).map(|_| server.client()).collect();
    let each = crate::support::engine::memory(engine, "VmRSS").saturating_sub(before) / idle.len() as u64;
    eprintln!("{each} bytes of resident memory for each idle connection");
    assert!(each <= 12 * 1024, "{each} bytes for each idle connection");
    let began = std::time::Instant::now();
    assert_eq!(server.client().submit("a@b.example", &["x@ok.example"], b"Subject: x\r\n\r\n").code, 250);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    drop((warm, idle));
}

#[test]
fn s80_listeners_go_by_their_addresses_names_and_hide_their_clients() {
    let rules = "table names { 127.0.0.1 => one.example, 127.0.0.2 => two.example }\n\
                 listen on 127.0.0.1 port @SMTP@ hostnames <names>\nlisten on 127.0.0.2 port @SMTP@ hostnames <names>\n\
                 listen on 127.0.0.3 port @SMTP@ mask-src no-dsn hostname three.example\n\
                 listen on 127.0.0.4 port @SMTP@\n\
                 action \"box\" maildir \"@DIR@/mail\" userbase { u = 0:0:/ }\nmatch from any for any action \"box\"\n";
    let setup = Setup::whole(format!("{SMALL}http listen on 127.0.0.1 port @HTTP@\n{rules}"));
    std::fs::write(setup.dir().join("mailname"), "machine.example\n").expect("written");
    let server = setup.start();
    for (last, name) in [(1, "one.example"), (2, "two.example"), (3, "three.example"), (4, "machine.example")] {
        let address = (std::net::Ipv4Addr::new(127, 0, 0, last), server.smtp.port()).into();
        let mut client = Client::connect(address);
        client.expect(&format!("220 {name} "));
        let extensions = client.say("EHLO secret.example");
        assert!(extensions.lines[0].starts_with(name), "{extensions:?}");
        // All offer DSN but the one with `no-dsn`.
        assert_eq!(extensions.lines.iter().any(|line| line == "DSN"), last != 3, "{extensions:?}");
        let expected = if last == 3 { 555 } else { 250 };
        assert_eq!(client.say("MAIL FROM:<a@source.example> RET=HDRS").code, expected);
        client.say("RSET");
        let text = format!("{MARK}{name}\r\n\r\nx\r\n");
        assert_eq!(client.submit("a@source.example", &["u@d.example"], text.as_bytes()).code, 250);
        let line = format!("{MARK}{name}\n");
        let message = maildir::wait_for_message(&server.dir().join("mail"), name, |message| {
            String::from_utf8_lossy(message).contains(&line)
        });
        let message = String::from_utf8_lossy(&message).into_owned();
        match last {
            3 => {
                assert!(message.contains("\nReceived: by three.example (Ringpost)\n\twith ESMTP id "), "{message}");
                assert!(!message.contains("secret.example") && !message.contains("127.0.0."), "{message}");
            }
            _ => assert!(
                message.contains(&format!("from secret.example (unknown [127.0.0.1])\n\tby {name} with ESMTP id ")),
                "{message}"
            ),
        }
    }
}

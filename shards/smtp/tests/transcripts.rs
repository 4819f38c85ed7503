//! Dialogues in `transcripts/`: the replies come when they are due, and are the same however the input is cut (S91).
//!
//! `C:` a line of the client, CRLF added; with `C~` nothing is added. `\r \n \0 \t \\ \xNN` are bytes. `S:` a line of the server; `S.`
//! it closes. `M:` a committed message: sender, recipients, body. `P:` fields of the policy. `#` says what it is about.

mod support;

use std::fs;
use std::path::Path;

use ringpost_smtp::Policy;
use support::{Caller, Message};

enum Act {
    Client(Vec<u8>),
    Server(Vec<u8>),
    Closes,
}

struct Transcript {
    policy: Policy,
    acts: Vec<Act>,
    messages: Vec<Message>,
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes().iter();
    while let Some(byte) = rest.next() {
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        bytes.push(match rest.next().unwrap() {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'\\' => b'\\',
            b'x' => {
                let digits = [*rest.next().unwrap(), *rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => panic!("escape {other}"),
        });
    }
    bytes
}

fn policy(fields: &str, policy: &mut Policy) {
    for field in fields.split_whitespace() {
        let (name, value) = field.split_once('=').unwrap();
        let value: u32 = value.parse().unwrap();
        match name {
            "size_max" => policy.size_max = u64::from(value),
            "recipients_max" => policy.recipients_max = value as usize,
            "mails_max" => policy.mails_max = value,
            "errors_max" => policy.errors_max = value,
            "command_bytes_max" => policy.command_bytes_max = value as usize,
            "dsn" => policy.dsn = value == 1,
            other => panic!("policy field {other}"),
        }
    }
}

fn message(text: &str) -> Message {
    let mut parts = text.splitn(3, ' ');
    Message {
        sender: parts.next().unwrap().trim_matches(['<', '>']).to_owned(),
        recipients: parts.next().unwrap().split(',').map(str::to_owned).collect(),
        body: unescape(parts.next().unwrap_or("")),
    }
}

fn read(path: &Path) -> Transcript {
    let mut transcript = Transcript { policy: Policy::new("mx.example"), acts: Vec::new(), messages: Vec::new() };
    for line in fs::read_to_string(path).unwrap().lines() {
        let text = line.get(3..).unwrap_or("");
        let with_end = || [unescape(text), b"\r\n".to_vec()].concat();
        match line.get(..2) {
            Some("C:") => transcript.acts.push(Act::Client(with_end())),
            Some("C~") => transcript.acts.push(Act::Client(unescape(text))),
            Some("S:") => transcript.acts.push(Act::Server(with_end())),
            Some("S.") => transcript.acts.push(Act::Closes),
            Some("M:") => transcript.messages.push(message(text)),
            Some("P:") => policy(text, &mut transcript.policy),
            Some("# ") | None => {}
            other => panic!("{}: {other:?}", path.display()),
        }
    }
    transcript
}

/// Client lines up to the next server line leave together; the replies must be exactly those that follow, in one write.
fn play(name: &str, transcript: &Transcript) -> Vec<u8> {
    let mut caller = Caller::new(transcript.policy.clone());
    let mut all = caller.greet();
    let mut said = all.clone();
    let mut sent = Vec::new();
    for act in &transcript.acts {
        match act {
            Act::Client(bytes) => {
                assert_eq!(text(&said), "", "{name}: unexpected before {}", text(bytes));
                sent.extend_from_slice(bytes);
            }
            Act::Server(expected) => {
                if !sent.is_empty() {
                    let writes = caller.feed(&std::mem::take(&mut sent));
                    assert!(writes.len() <= 1, "{name}: replies in one write");
                    said = writes.concat();
                    all.extend_from_slice(&said);
                }
                let rest = said.strip_prefix(&expected[..]);
                let rest =
                    rest.unwrap_or_else(|| panic!("{name}: expected {:?}, got {:?}", text(expected), text(&said)));
                said = rest.to_vec();
            }
            Act::Closes => assert!(caller.closed, "{name}: still open"),
        }
    }
    let closes = transcript.acts.iter().any(|act| matches!(act, Act::Closes));
    assert_eq!(caller.closed, closes, "{name}: closed");
    assert_eq!((text(&said), sent.len()), (String::new(), 0), "{name}: left over");
    assert_eq!(caller.messages, transcript.messages, "{name}");
    all
}

fn in_pieces<'i>(policy: &Policy, pieces: impl Iterator<Item = &'i [u8]>) -> (Vec<u8>, Vec<Message>) {
    let mut caller = Caller::new(policy.clone());
    let mut all = caller.greet();
    for piece in pieces {
        all.extend(caller.feed(piece).concat());
    }
    (all, caller.messages)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn s91_transcripts_are_the_same_for_every_cut() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "transcripts are missing");
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let transcript = read(&path);
        let expected = (play(&name, &transcript), transcript.messages.clone());
        let input: Vec<u8> = transcript
            .acts
            .iter()
            .filter_map(|act| if let Act::Client(bytes) = act { Some(&bytes[..]) } else { None })
            .collect::<Vec<_>>()
            .concat();
        for cut in 0..=input.len() {
            let got = in_pieces(&transcript.policy, [&input[..cut], &input[cut..]].into_iter());
            assert_eq!(text(&got.0), text(&expected.0), "{name} cut at {cut}");
            assert_eq!(got.1, expected.1, "{name} cut at {cut}");
        }
        let got = in_pieces(&transcript.policy, input.chunks(1));
        assert_eq!(text(&got.0), text(&expected.0), "{name} byte by byte");
        assert_eq!(got.1, expected.1, "{name} byte by byte");
    }
}

#[test]
fn s92_a_whole_transaction_in_one_packet_is_answered_in_order_in_one_write() {
    let mut caller = Caller::new(Policy::new("mx.example"));
    caller.feed(b"EHLO c.example\r\n");
    let mut packet = b"MAIL FROM:<a@b.example>\r\n".to_vec();
    let mut expected = "250 2.1.0 sender ok\r\n".to_owned();
    for index in 0..50 {
        let refused = index % 7 == 3;
        let local = if refused { "refused" } else { "user" };
        packet.extend_from_slice(format!("RCPT TO:<{local}{index}@d.example>\r\n").as_bytes());
        expected.push_str(if refused { "550 5.1.1 no such user\r\n" } else { "250 2.1.5 recipient ok\r\n" });
    }
    packet.extend_from_slice(b"DATA\r\n");
    expected.push_str("354 send the message, end with CRLF.CRLF\r\n");
    let writes = caller.feed(&packet);
    assert_eq!(writes.len(), 1);
    assert_eq!(text(&writes[0]), expected);
    // The end of one message and the next transaction share a packet as well.
    let writes = caller.feed(b"x\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<u@d.example>\r\nDATA\r\n");
    assert_eq!(writes.len(), 1);
    let expected = "250 2.0.0 queued as Q1\r\n250 2.1.0 sender ok\r\n250 2.1.5 recipient ok\r\n354 send";
    assert!(text(&writes[0]).starts_with(expected));
    assert_eq!(caller.messages[0].recipients.len(), 43);
}

#[test]
fn s92_a_flood_of_commands_is_answered_in_bounded_writes() {
    let mut caller = Caller::new(Policy::new("mx.example"));
    let writes = caller.feed(&b"EHLO a\r\n".repeat(10_000));
    assert!(writes.len() > 10);
    assert!(writes.iter().all(|write| write.len() < ringpost_smtp::limits::REPLIES_BYTES_MAX + 1024));
    assert_eq!(text(&writes.concat()).matches("250 HELP\r\n").count(), 10_000);
}

#[test]
fn a_typical_body_comes_in_one_piece() {
    let mut caller = Caller::new(Policy::new("mx.example"));
    let line = [&b"x"[..].repeat(76), &b"\r\n"[..]].concat();
    let body = line.repeat(52);
    caller.feed(b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    caller.feed(&[&body[..], b".\r\n"].concat());
    assert_eq!(caller.messages[0].body, body);
    assert_eq!(caller.body_steps, 1);
}

#[test]
fn silence_and_endless_lines_meet_the_deadline() {
    let policy = Policy::new("mx.example");
    let (command, data) = (policy.command_timeout, policy.data_timeout);
    let mut caller = Caller::new(policy);
    caller.wait(command / 2);
    caller.feed(b"NOOP");
    caller.wait(command / 2);
    assert!(caller.is_late(), "half a command is none");
    caller.feed(b"\r\nNO");
    assert!(!caller.is_late());
    caller.feed(&b"x".repeat(10_000));
    caller.wait(command / 2);
    caller.feed(&b"x".repeat(10_000));
    caller.wait(command / 2);
    assert!(caller.is_late(), "the rest of an over-long line does not count");
    caller.feed(b"\r\nHELO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    caller.wait(command);
    assert!(!caller.is_late());
    caller.wait(data - command);
    assert!(caller.is_late());
    let mut out = Vec::new();
    caller.session.on_timeout(&mut out);
    assert_eq!(text(&out), "421 4.4.2 mx.example timed out, closing connection\r\n");
    assert!(caller.feed(b"x\r\n.\r\n").is_empty());
    assert!(caller.closed && caller.messages.is_empty());
}

#[test]
fn shutdown_waits_for_nothing_that_is_idle() {
    let mut caller = Caller::new(Policy::new("mx.example"));
    assert!(caller.session.is_idle());
    caller.feed(b"EHLO c\r\n");
    assert!(caller.session.is_idle());
    caller.feed(b"MAIL FROM:<a@b>\r\n");
    assert!(!caller.session.is_idle());
    caller.feed(b"RCPT TO:<c@d>\r\nDATA\r\nx\r\n");
    assert!(!caller.session.is_idle());
    caller.feed(b".\r\n");
    assert!(caller.session.is_idle());
    let mut out = Vec::new();
    caller.session.on_shutdown(&mut out);
    assert_eq!(text(&out), "421 4.3.2 mx.example is stopping, try again later\r\n");
}

#[test]
fn a_421_from_the_caller_closes() {
    let mut caller = Caller::new(Policy::new("mx.example"));
    let mut out = Vec::new();
    let arena = bumpalo::Bump::new();
    let mut tx = ringpost_smtp::Transaction::new(&arena);
    let now = std::time::Instant::now();
    let session = &mut caller.session;
    let input = b"HELO c\r\nMAIL FROM:<a@b>\r\nNOOP\r\n";
    let (used, step) = session.step(now, input, &mut tx, &mut out);
    assert_eq!(step, ringpost_smtp::server::Step::Mail);
    session.on_mail(Err(ringpost_smtp::Reply::new(421, "4.3.2", "stopping")), &mut out);
    let (_, step) = session.step(now, &input[used..], &mut tx, &mut out);
    assert_eq!(step, ringpost_smtp::server::Step::Close);
    assert!(text(&out).ends_with("\r\n421 4.3.2 stopping\r\n"));
}

#[test]
fn refused_recipients_are_bounded() {
    let mut caller = Caller::new(Policy::new("mx.example"));
    caller.feed(b"EHLO c\r\nMAIL FROM:<a@b>\r\n");
    let replies = caller.feed(&b"RCPT TO:<refused@d>\r\n".repeat(5000)).concat();
    let refused = text(&replies).matches("550 5.1.1").count();
    assert_eq!(refused, ringpost_smtp::limits::REFUSED_RECIPIENTS_MAX as usize);
    assert_eq!(text(&replies).matches("452 4.5.3").count(), 5000 - refused);
}

//! Client against server, cut at random; and random bytes against both (S91, S93).

mod support;

use proptest::prelude::*;
use ringpost_smtp::client::{self, Envelope, Event, RecipientResult, Requests};
use ringpost_smtp::{Policy, Stuffer, limits};
use support::{Caller, Message};

#[derive(Clone, Debug)]
struct Mail {
    sender: String,
    recipients: Vec<String>,
    body: Vec<u8>,
}

fn mails() -> impl Strategy<Value = Vec<Mail>> {
    let sender =
        prop_oneof![4 => Just("a@b"), 1 => Just(""), 1 => Just("refused@b"), 1 => Just("late@b"), 1 => Just("full@b")];
    let recipient = prop_oneof![3 => Just("x@d"), 1 => Just("refused@d"), 1 => Just("ü@d")];
    let fragment = prop_oneof![
        4 => Just(&b"\r\n"[..]), 3 => Just(&b"."[..]), 2 => Just(&b"QUIT"[..]), 1 => Just(&b"\xff\x00"[..]), 1 => Just(&[b'x'; 998][..])
    ];
    let mail = (sender, prop::collection::vec(recipient, 1..5), prop::collection::vec(fragment, 0..12));
    let mail = mail.prop_map(|(sender, recipients, fragments)| Mail {
        sender: sender.to_owned(),
        recipients: recipients.into_iter().map(str::to_owned).collect(),
        body: [fragments.concat(), b"\r\n".to_vec()].concat(),
    });
    prop::collection::vec(mail, 1..5)
}

/// Sizes of the pieces in which either side gets what the other wrote.
fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1..4_usize, 1..2000_usize], 1..20)
}

struct Wire {
    server: Caller,
    client: client::Session,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
    /// Read, not consumed by the client.
    input: Vec<u8>,
    cuts: Vec<usize>,
    turn: usize,
    pipelining: bool,
}

impl Wire {
    fn piece(&mut self, length: usize) -> usize {
        self.turn += 1;
        self.cuts[self.turn % self.cuts.len()].min(length)
    }

    /// Moves bytes until the client wants something.
    fn event(&mut self) -> Event {
        loop {
            let (count, event) = self.client.on_input(&self.input, &mut self.to_server);
            self.input.drain(..count);
            if event != Event::NeedInput {
                return event;
            }
            let count = self.piece(self.to_server.len());
            let piece: Vec<u8> = self.to_server.drain(..count).collect();
            let mut replies = self.server.feed(&piece).concat();
            if !self.pipelining {
                replies = String::from_utf8(replies).unwrap().replace("250-PIPELINING\r\n", "").into_bytes();
            }
            self.to_client.extend(replies);
            let count = self.piece(self.to_client.len());
            self.input.extend(self.to_client.drain(..count));
        }
    }

    fn send(&mut self, mail: &Mail) -> Vec<RecipientResult> {
        let recipients: Vec<&str> = mail.recipients.iter().map(String::as_str).collect();
        let size = mail.body.len() as u64;
        let envelope = Envelope {
            sender: &mail.sender,
            recipients: &recipients,
            size,
            eightbit: true,
            smtputf8: false,
            requiretls: false,
            priority: 0,
            requests: Requests::default(),
        };
        if let Err(results) = self.client.begin(&envelope, &mut self.to_server) {
            return results;
        }
        loop {
            match self.event() {
                Event::Done(results) => return results,
                Event::SendBody => {
                    let mut stuffer = Stuffer::new();
                    let count = self.piece(mail.body.len());
                    stuffer.stuff(&mail.body[..count], &mut self.to_server);
                    stuffer.stuff(&mail.body[count..], &mut self.to_server);
                    stuffer.finish(&mut self.to_server);
                    self.client.body_sent();
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

/// What must have come of it.
fn outcome(mail: &Mail, recipient: &str) -> u16 {
    match mail.sender.as_str() {
        "refused@b" => 550,
        _ if recipient.starts_with("refused") => 550,
        "late@b" => 451,
        "full@b" => 452,
        _ => 250,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn s93_every_250_has_its_message_byte_for_byte(mails in mails(), cuts in cuts(), pipelining: bool) {
        let mut server = Caller::new(Policy::new("mx.example"));
        let to_client = server.greet();
        let client = client::Session::new("c.example");
        let mut wire =
            Wire { server, client, to_server: Vec::new(), to_client, input: Vec::new(), cuts, turn: 0, pipelining };
        prop_assert_eq!(wire.event(), Event::Ready);
        let mut expected = Vec::new();
        for mail in &mails {
            let results = wire.send(mail);
            let codes: Vec<u16> = results.iter().map(|result| result.reply().code()).collect();
            let wanted: Vec<u16> = mail.recipients.iter().map(|recipient| outcome(mail, recipient)).collect();
            prop_assert_eq!(&codes, &wanted);
            let taken: Vec<String> =
                mail.recipients.iter().filter(|recipient| outcome(mail, recipient) == 250).cloned().collect();
            if !taken.is_empty() {
                expected.push(Message { sender: mail.sender.clone(), recipients: taken, body: mail.body.clone() });
            }
        }
        prop_assert_eq!(&wire.server.messages, &expected);
        prop_assert!(wire.client.is_ready());
    }

    #[test]
    fn s91_no_input_makes_the_server_panic_or_talk_without_end(input in noise(), cuts in cuts()) {
        let mut caller = Caller::new(Policy { size_max: 500, ..Policy::new("mx.example") });
        let mut rest = &input[..];
        let mut turn = 0;
        let mut said = 0;
        while !rest.is_empty() {
            let count = cuts[turn % cuts.len()].min(rest.len());
            said += caller.feed(&rest[..count]).iter().map(Vec::len).sum::<usize>();
            rest = &rest[count..];
            turn += 1;
        }
        prop_assert!(said <= 300 * (1 + input.iter().filter(|byte| **byte == b'\n').count()) + 300);
        prop_assert!(caller.steps <= 4 * (input.len() + turn) + 4);
        // Whatever came, it is the same in one piece.
        let mut whole = Caller::new(Policy { size_max: 500, ..Policy::new("mx.example") });
        let whole_said = whole.feed(&input).iter().map(Vec::len).sum::<usize>();
        prop_assert_eq!((said, &caller.messages), (whole_said, &whole.messages));
        for message in &caller.messages {
            prop_assert!(message.body.len() <= 500 && !message.recipients.is_empty());
            let lf_alone = message.body.iter().enumerate().any(|(at, byte)| *byte == b'\n' && (at == 0 || message.body[at - 1] != b'\r'));
            prop_assert!(!lf_alone);
        }
    }

    #[test]
    fn s91_no_reply_makes_the_client_panic(input in noise(), pipelining: bool, encrypt: bool) {
        let starttls = if encrypt { client::StartTls::IfOffered } else { client::StartTls::Never };
        let mut session = client::Session::new("c.example").asking_for(starttls);
        let mut out = Vec::new();
        let greeting: &[u8] = if pipelining { b"220 x\r\n250-x\r\n250-STARTTLS\r\n250 PIPELINING\r\n" } else { b"220 x\r\n250 x\r\n" };
        let input = [greeting, &input[..]].concat();
        let mut used = 0;
        for _ in 0..input.len() + 10 {
            let (count, event) = session.on_input(&input[used..], &mut out);
            used += count;
            match event {
                Event::NeedInput | Event::Failed(_) | Event::LoginRefused(_) => break,
                Event::Ready | Event::Done(_) if session.is_ready() => {
                    let envelope =
                        Envelope { sender: "a@b", recipients: &["x@d", "y@d"], size: 1, eightbit: false, smtputf8: false, requiretls: false, priority: 0, requests: Requests::default() };
                    prop_assert!(session.begin(&envelope, &mut out).is_ok());
                }
                Event::Ready | Event::Done(_) => break,
                Event::SendBody => session.body_sent(),
                Event::StartTls => session.secured(&mut out),
                Event::Challenged => prop_assert!(false, "nobody logs in"),
            }
        }
        let reason = session.abandon(client::RemoteReply::local(451, (4, 4, 2), "lost"));
        prop_assert!(reason.is_none_or(|results| results.len() == 2));
        prop_assert!(out.len() < 200 * (1 + input.len()));
        prop_assert!(session.timeout() <= limits::DATA_END_TIMEOUT);
    }
}

/// Scraps of both sides' language, and bytes of no language.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let words: Vec<&'static [u8]> = vec![
        b"EHLO c\r\n",
        b"HELO c\r\n",
        b"MAIL FROM:<a@b>\r\n",
        b"RCPT TO:<c@d>\r\n",
        b"RCPT TO:<refused@d>\r\n",
        b"DATA\r\n",
        b"BDAT 7\r\n",
        b"BDAT 3 LAST\r\n",
        b"BDAT 0 LAST\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b".\r\n",
        b"\r\n.\r\n",
        b"\r",
        b"\n",
        b".",
        b"x",
        b"\r\n",
        b"\n.\n",
        b"QUIT\r\n",
        b"MAIL FROM:<late@b>\r\n",
        b"250 ok\r\n",
        b"250-ok\r\n",
        b"354 go\r\n",
        b"550 5.1.1 no\r\n",
        b"421 x\r\n",
        b"451 x\r\n",
        b"220 x\r\n",
    ];
    let word = prop_oneof![
        12 => prop::sample::select(words).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..40),
        1 => (1..6000_usize).prop_map(|count| vec![b'y'; count]),
    ];
    prop::collection::vec(word, 0..40).prop_map(|words| words.concat())
}

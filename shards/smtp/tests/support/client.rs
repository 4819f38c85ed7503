//! A client session and the script of its server.
#![allow(dead_code, reason = "each test binary uses its part")]

use ringpost_smtp::client::{Envelope, Event, RecipientResult, Requests, Session};

pub struct Client {
    pub session: Session,
    /// Text that was written and not looked at yet.
    pub out: Vec<u8>,
    input: Vec<u8>,
}

impl Client {
    pub fn new(session: Session) -> Self {
        Self { session, out: Vec::new(), input: Vec::new() }
    }

    /// Past the greeting, which it answers with `verb`, whose reply is `reply`.
    pub fn greeted(session: Session, verb: &str, reply: &str) -> Self {
        let mut client = Self::new(session);
        assert_eq!(client.hears("220 mx\r\n"), Event::NeedInput);
        assert_eq!(client.said(), format!("{verb} c.example\r\n"));
        assert_eq!(client.hears(reply), Event::Ready);
        client
    }

    pub fn begin(&mut self, sender: &str, recipients: &[&str], eightbit: bool) -> Result<(), Vec<RecipientResult>> {
        let envelope = Envelope {
            sender,
            recipients,
            size: 10,
            eightbit,
            smtputf8: false,
            requiretls: false,
            priority: 0,
            requests: Requests::default(),
        };
        self.session.begin(&envelope, &mut self.out)
    }

    /// Byte by byte, up to the first event that is one.
    pub fn hears(&mut self, text: &str) -> Event {
        for byte in text.bytes() {
            self.input.push(byte);
            let (count, event) = self.session.on_input(&self.input, &mut self.out);
            self.input.drain(..count);
            if event != Event::NeedInput {
                return event;
            }
        }
        Event::NeedInput
    }

    pub fn said(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.out)).unwrap()
    }
}

/// `D 250 text`, `N 452 text`, `T 450 text`, `P 550 text` for each recipient.
pub fn results(event: &Event) -> String {
    let Event::Done(results) = event else { panic!("{event:?}") };
    texts(results)
}

pub fn texts(results: &[RecipientResult]) -> String {
    let texts: Vec<String> = results.iter().map(result).collect();
    texts.join(", ")
}

pub fn result(result: &RecipientResult) -> String {
    let kind = match result {
        RecipientResult::Delivered(_) => "D",
        RecipientResult::NextTransaction(_) => "N",
        RecipientResult::Transient(_) => "T",
        RecipientResult::Permanent(_) => "P",
    };
    format!("{kind} {}", result.reply())
}

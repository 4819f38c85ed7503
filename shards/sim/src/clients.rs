//! Clients that submit numbered messages and write down what they were answered. They never send a number twice, so what
//! has an answer and what has none stay apart.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ringpost_io::{Runtime, Stream};
use ringpost_smtp::Stuffer;
use ringpost_smtp::client::{Envelope, Event, RecipientResult, Requests, Session};

use crate::coordinator::{PROGRAMS, domain, list};
use crate::limits;
use crate::promises::{self, Ledger};

/// What all clients share.
pub(crate) struct Campaign {
    pub(crate) ledger: Rc<RefCell<Ledger>>,
    pub(crate) next: Cell<u64>,
    /// No new message is begun.
    pub(crate) over: Cell<bool>,
    /// Clients that have stopped.
    pub(crate) ended: Cell<usize>,
}

/// Where a client is. The engine's own host may ask for more than strangers may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Afar,
    Here,
}

/// Text of a message: its number, then lines that only this number gives, some of them beginning with a dot.
pub(crate) fn text(number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let large = draw().is_multiple_of(40);
    let bytes = draw() % if large { limits::LARGE_BODY_BYTES } else { limits::SMALL_BODY_BYTES };
    let mut text = format!("X-Number: {number}\r\nSubject: simulated\r\n\r\n").into_bytes();
    while (text.len() as u64) < bytes {
        let line = draw();
        if line.is_multiple_of(9) {
            text.push(b'.');
        }
        text.extend_from_slice(format!("{line:x}").repeat(1 + (line % 4) as usize).as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text
}

/// As a program on this machine gets a text.
pub(crate) fn with_plain_line_ends(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|byte| *byte != b'\r').collect()
}

/// Submits until the campaign is over.
pub(crate) async fn submit<R: Runtime>(runtime: R, to: SocketAddr, from: Origin, campaign: Rc<Campaign>) {
    while !campaign.over.get() {
        // A broken connection is what the run is about: note nothing, go on.
        let _ = session(&runtime, to, from, &campaign).await;
        runtime.sleep(Duration::from_millis(10 + runtime.random_u64() % 500)).await;
    }
    campaign.ended.set(campaign.ended.get() + usize::from(from == Origin::Afar));
}

struct Lost;

async fn session<R: Runtime>(runtime: &R, to: SocketAddr, from: Origin, campaign: &Campaign) -> Result<(), Lost> {
    let stream = runtime.connect(to, None, Duration::from_secs(30)).await.map_err(|_| Lost)?;
    let mut talk =
        Talk { runtime: runtime.clone(), stream, session: Session::new("client.sim"), input: vec![], out: vec![] };
    match talk.next().await? {
        Event::Ready => {}
        _ => return Err(Lost),
    }
    let count = 1 + runtime.random_u64() % 30;
    for _ in 0..count {
        if campaign.over.get() || campaign.next.get() >= limits::MESSAGES_MAX {
            break;
        }
        message(runtime, &mut talk, from, campaign).await?;
        if runtime.random_u64().is_multiple_of(4) {
            runtime.sleep(Duration::from_millis(runtime.random_u64() % 300)).await;
        }
    }
    talk.session.quit(&mut talk.out);
    talk.flush().await
}

async fn message<R: Runtime>(runtime: &R, talk: &mut Talk<R>, from: Origin, campaign: &Campaign) -> Result<(), Lost> {
    let number = campaign.next.get() + 1;
    campaign.next.set(number);
    let recipients = 1 + runtime.random_u64() % 4;
    let recipients: Vec<String> = (0..recipients)
        .map(|index| {
            if runtime.random_u64().is_multiple_of(limits::LIST_ONE_IN) {
                return list(number, index);
            }
            if runtime.random_u64().is_multiple_of(limits::PROGRAM_ONE_IN) {
                // Two addresses of one user would be one delivery.
                return format!("u{index}+r{number}x{index}@{PROGRAMS}");
            }
            format!("r{number}x{index}@{}", domain((runtime.random_u64() % limits::DOMAINS as u64) as usize))
        })
        .collect();
    campaign.ledger.borrow_mut().sending(number, recipients.clone());
    let text = text(number);
    let paths: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let sender = promises::sender(number);
    let envelope = Envelope {
        sender: &sender,
        recipients: &paths,
        size: text.len() as u64,
        eightbit: false,
        smtputf8: false,
        requiretls: false,
        priority: 0,
        requests: Requests::default(),
    };
    talk.session.begin(&envelope, &mut talk.out).map_err(|_| Lost)?;
    let held = (from == Origin::Here && runtime.random_u64().is_multiple_of(limits::HELD_ONE_IN))
        .then(|| 1 + runtime.random_u64() % limits::HELD.as_secs());
    if let Some(seconds) = held
        && let Some(at) = talk.out.windows(2).position(|two| two == b"\r\n")
    {
        talk.out.splice(at..at, format!(" HOLDFOR={seconds}").into_bytes());
    }
    let (begun, begun_ms) = (runtime.now(), runtime.unix_ms());
    loop {
        match talk.next().await? {
            Event::SendBody => {
                let mut stuffer = Stuffer::new();
                // In pieces, with pauses now and then: a crash must find messages half sent.
                for piece in text.chunks(1 + (runtime.random_u64() % 60_000) as usize) {
                    stuffer.stuff(piece, &mut talk.out);
                    talk.flush().await?;
                    if runtime.random_u64().is_multiple_of(16) {
                        runtime.sleep(Duration::from_millis(runtime.random_u64() % 50)).await;
                    }
                }
                stuffer.finish(&mut talk.out);
                talk.session.body_sent();
            }
            Event::Done(results) => {
                let mut ledger = campaign.ledger.borrow_mut();
                // Where the clock was set meanwhile nobody knows which time was meant.
                let passed_ms = (runtime.now() - begun).as_millis() as u64;
                let was_set = (begun_ms + passed_ms).abs_diff(runtime.unix_ms()) > 2;
                if let Some(seconds) = held.filter(|_| !was_set) {
                    ledger.holds(number, begun_ms + seconds * 1000);
                }
                for (index, result) in results.iter().enumerate() {
                    if matches!(result, RecipientResult::Delivered(_)) {
                        ledger.acked(number, index);
                    }
                }
                return if talk.session.is_ready() { Ok(()) } else { Err(Lost) };
            }
            Event::Failed(_) => return Err(Lost),
            _ => {}
        }
    }
}

struct Talk<R: Runtime> {
    runtime: R,
    stream: R::Stream,
    session: Session,
    input: Vec<u8>,
    out: Vec<u8>,
}

impl<R: Runtime> Talk<R> {
    async fn flush(&mut self) -> Result<(), Lost> {
        let out = std::mem::take(&mut self.out);
        if out.is_empty() {
            return Ok(());
        }
        let written = self.runtime.timeout(limits::CLIENT_PATIENCE, self.stream.write_all(&out)).await;
        written.and_then(Result::ok).ok_or(Lost)
    }

    async fn next(&mut self) -> Result<Event, Lost> {
        loop {
            self.flush().await?;
            if !self.input.is_empty() {
                let (used, event) = self.session.on_input(&self.input, &mut self.out);
                self.input.drain(..used);
                if !matches!(event, Event::NeedInput) {
                    return Ok(event);
                }
                if used > 0 && !self.out.is_empty() {
                    continue;
                }
            }
            let read = self.runtime.timeout(limits::CLIENT_PATIENCE, self.stream.read(&mut self.input, 4096)).await;
            match read {
                Some(Ok(count)) if count > 0 => {}
                _ => return Err(Lost),
            }
        }
    }
}

//! The laboratory: many receivers that are broken or hostile, each in its own way and at an address of its own, all at once.
//! `lab/cases.rs` has what each does and what becomes of mail for it; `lab/receiver.rs` does it.

mod cases;
pub mod receiver;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::support::cli::Listed;
use crate::support::signed_zone::SignedZone;
use crate::support::{Client, Random, Server, Setup, text};
use cases::{Becomes, Case, Text};
use receiver::{Habits, Receiver};

/// All of it on a busy machine: each look at the queue is a process.
const SOON: Duration = Duration::from_secs(120);
/// Receivers that are as they should be, and messages for each.
const HEALTHY: usize = 10;
const MESSAGES: usize = 20;

/// Of receiver number `number`.
fn address(number: usize, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 3, 1 + (number / 200) as u8, 1 + (number % 200) as u8), port))
}

/// A case at work.
struct Trial {
    case: Case,
    receiver: Receiver,
    /// Messages that were submitted.
    submitted: usize,
}

impl Trial {
    fn address_of(&self, recipient: &str) -> String {
        format!("{recipient}@{}.lab.test", self.case.name)
    }

    fn sender(&self) -> String {
        format!("{}@source.test", self.case.name)
    }

    fn submit_next(&mut self, server: &Server) {
        let recipients: Vec<String> =
            self.case.messages[self.submitted].iter().map(|(recipient, _)| self.address_of(recipient)).collect();
        let text = match self.case.text {
            Text::Small => text::message(self.case.name, &mut Random::new(1), 500),
            Text::EightBit => "Subject: Grüße\r\n\r\näöü\r\n".into(),
            Text::Large => text::message(self.case.name, &mut Random::new(2), 2 << 20),
        };
        let mut client = server.client();
        let utf8 = if recipients.iter().all(|recipient| recipient.is_ascii()) { "" } else { " SMTPUTF8" };
        expect(&mut client, &format!("MAIL FROM:<{}> BODY=8BITMIME{utf8}", self.sender()), 250);
        for recipient in &recipients {
            expect(&mut client, &format!("RCPT TO:<{recipient}>"), 250);
        }
        expect(&mut client, "DATA", 354);
        client.send(&text::stuffed(&text));
        client.expect("250");
        self.submitted += 1;
    }

    /// What of the messages that were submitted is not yet, or not, what it must be, in round `round`.
    fn complaint(&self, seen: &Seen, round: u64) -> Option<String> {
        let mut expected: BTreeMap<String, usize> = BTreeMap::new();
        for (recipient, becomes) in self.case.messages[..self.submitted].iter().flatten() {
            let address = self.address_of(recipient);
            let waits: Vec<&Listed> = seen.queue.iter().filter(|one| one.recipient == address).collect();
            let waits_for = |reason: &str| matches!(&waits[..], [one] if one.state == "deferred" && one.attempts >= round && one.reason.contains(reason));
            let bounced_with = |reply: &str| {
                let bounces = seen.bounces.get(&self.sender()).into_iter().flatten();
                waits.is_empty() && bounces.into_iter().any(|bounce| unfolded(bounce).contains(reply))
            };
            let (fits, copies) = match becomes {
                Becomes::Taken => (waits.is_empty(), 1),
                Becomes::Waits(reason) => (waits_for(reason), 0),
                Becomes::ComesLater(reason) if round == 1 && !waits.is_empty() => (waits_for(reason), 0),
                // On a busy machine the next attempt may be over before the first is looked at.
                Becomes::ComesLater(_) => (waits.is_empty() && self.receiver.inbox().connections > 1, 1),
                Becomes::Bounces(reply) => (bounced_with(reply), 0),
                Becomes::Held => (!waits.is_empty() && self.receiver.inbox().connections > 0, 0),
            };
            if !fits {
                let bounces = seen.bounces.get(&self.sender());
                return Some(format!("{address} is not {becomes:?}: in the queue {waits:?}, bounces {bounces:?}"));
            }
            *expected.entry(address).or_default() += copies;
        }
        let inbox = self.receiver.inbox();
        for (address, copies) in expected {
            let taken = inbox.taken.iter().flat_map(|taken| &taken.to).filter(|to| **to == address).count();
            if taken != copies {
                return Some(format!("{address} has {taken} copies, not {copies}"));
            }
        }
        let wrong = inbox.taken.iter().find(|taken| taken.from != self.sender());
        if let Some(taken) = wrong {
            return Some(format!("{} has a message from {}", self.case.name, taken.from));
        }
        let all = self.submitted == self.case.messages.len();
        self.case
            .transactions
            .filter(|count| all && *count != inbox.transactions)
            .map(|count| format!("{}: {} transactions, not {count}", self.case.name, inbox.transactions))
    }
}

/// Header fields may be folded.
fn unfolded(text: &str) -> String {
    text.replace("\r\n ", " ").replace("\r\n\t", " ")
}

fn expect(client: &mut Client, command: &str, code: u16) {
    let reply = client.say(command);
    assert_eq!(reply.code, code, "{command}: {reply:?}");
}

/// What is to be seen at one moment.
struct Seen {
    queue: Vec<Listed>,
    /// By whom they are for.
    bounces: BTreeMap<String, Vec<String>>,
}

impl Seen {
    fn now(server: &Server, senders: &Receiver) -> Self {
        let mut bounces: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for taken in &senders.inbox().taken {
            assert_eq!(taken.from, "", "only bounces come back");
            let text = String::from_utf8_lossy(&taken.text).into_owned();
            bounces.entry(taken.to.concat()).or_default().push(text);
        }
        Self { queue: server.queue(), bounces }
    }
}

/// Submits each case's messages, one when the other has become what it must, until all have.
fn settle(server: &Server, trials: &mut [Trial], senders: &Receiver, round: u64) {
    let end = Instant::now() + SOON;
    loop {
        let seen = Seen::now(server, senders);
        let mut complaints = Vec::new();
        for trial in trials.iter_mut() {
            match trial.complaint(&seen, round) {
                Some(complaint) => complaints.push(complaint),
                None if trial.submitted < trial.case.messages.len() => {
                    trial.submit_next(server);
                    complaints.push(format!("{} has more", trial.case.name));
                }
                None => {}
            }
        }
        if complaints.is_empty() {
            return;
        }
        assert!(
            Instant::now() < end,
            "round {round}, {} of {}:\n{}",
            complaints.len(),
            trials.len(),
            complaints.join("\n")
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn s87_each_broken_receiver_harms_only_its_own_mail_and_loses_or_repeats_none_that_it_answered() {
    let cases = cases::all();
    assert!(cases.len() >= 40);
    let (setup, port) =
        Setup::new("smtp max-message-size 10M\naction \"mx\" relay\nmatch for any action \"mx\"\n").zone("");
    let mut zone = format!("source.test. MX 10 mx.source.test.\nmx.source.test. A {}\n", address(0, port).ip());
    let mut add = |domain: &str, number: usize| {
        zone += &format!("{domain}. MX 10 mx.{domain}.\nmx.{domain}. A {}\n", address(number, port).ip());
        address(number, port)
    };
    let senders = Receiver::open(address(0, port), Habits::default());
    let healthy: Vec<Receiver> = (0..HEALTHY)
        .map(|number| Receiver::open(add(&format!("healthy{number}.test"), 1 + number), Habits::default()))
        .collect();
    let mut trials: Vec<Trial> = cases
        .into_iter()
        .enumerate()
        .map(|(number, case)| {
            let address = add(&format!("{}.lab.test", case.name), 1 + HEALTHY + number);
            let receiver = case.habits.clone().map_or_else(Receiver::absent, |habits| Receiver::open(address, habits));
            Trial { case, receiver, submitted: 0 }
        })
        .collect();
    let zone = SignedZone::serve(setup.dir(), &zone, &[], &[], &[]);
    std::fs::write(setup.dir().join("zone"), zone.seam()).expect("written");
    let server = setup.start();

    trials.iter_mut().for_each(|trial| trial.submit_next(&server));
    // The others do not wait for them.
    let mut client = server.client();
    for number in 0..HEALTHY * MESSAGES {
        let recipient = format!("r{number}@healthy{}.test", number % HEALTHY);
        let reply = client.submit("healthy@source.test", &[&recipient], b"Subject: x\r\n\r\nhello\r\n");
        assert_eq!(reply.code, 250, "{reply:?}");
    }
    let count = || healthy.iter().map(|one| one.inbox().taken.len()).sum::<usize>();
    crate::support::wait_until("healthy mail is delivered", SOON, || count() == HEALTHY * MESSAGES);
    settle(&server, &mut trials, &senders, 1);
    server.retry();
    settle(&server, &mut trials, &senders, 2);
    for one in &healthy {
        let mut all: Vec<String> = one.inbox().taken.iter().flat_map(|taken| taken.to.clone()).collect();
        all.sort();
        all.dedup();
        assert_eq!((all.len(), one.inbox().taken.len()), (MESSAGES, MESSAGES), "each once");
    }
}

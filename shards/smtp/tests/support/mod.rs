//! A caller of the server session as the shard is one, with decisions that the addresses themselves ask for.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bumpalo::Bump;
use ringpost_smtp::server::{
    Authentication, Encryption, Judgement, Logins, Mechanism, Mechanisms, Proof, Session, Step,
};
use ringpost_smtp::{Policy, Reply, Transaction};

/// A message that was committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub sender: String,
    pub recipients: Vec<String>,
    pub body: Vec<u8>,
}

/// The shard's part. Local parts decide: `refused…` is refused where it stands, `late…` as sender refuses DATA, `full…` the commit.
pub struct Caller {
    pub session: Session,
    pub messages: Vec<Message>,
    /// `Some` once closed.
    pub closed: bool,
    /// Something came behind STARTTLS.
    pub injected: bool,
    /// Calls of `step`.
    pub steps: usize,
    pub body_steps: usize,
    tx: Transaction<'static>,
    input: Vec<u8>,
    body: Vec<u8>,
    now: Instant,
}

impl Caller {
    pub fn new(policy: Policy) -> Self {
        let now = Instant::now();
        Self {
            session: Session::new(Arc::new(policy), now),
            messages: Vec::new(),
            closed: false,
            injected: false,
            steps: 0,
            body_steps: 0,
            tx: fresh(),
            input: Vec::new(),
            body: Vec::new(),
            now,
        }
    }

    /// Of a listener that offers STARTTLS, and logins as it is told.
    pub fn of(logins: Logins) -> Self {
        let mut policy = Policy::new("mx.example");
        policy.encryption = Encryption::Offered;
        policy.authentication = Authentication { logins, in_clear: false, mechanisms: Mechanisms::passwords() };
        Self::new(policy)
    }

    /// Says a line; the replies.
    pub fn say(&mut self, line: &str) -> String {
        String::from_utf8(self.feed(format!("{line}\r\n").as_bytes()).concat()).unwrap()
    }

    /// The first words of the reply to MAIL with this.
    pub fn mail(&mut self, parameters: &str) -> String {
        let reply = self.say(&format!("MAIL FROM:<a@b> {parameters}"));
        self.say("RSET");
        reply.split(' ').take(3).collect::<Vec<_>>().join(" ")
    }

    pub fn greet(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.session.greet(&mut out);
        out
    }

    pub fn wait(&mut self, time: Duration) {
        self.now += time;
    }

    pub fn is_late(&self) -> bool {
        self.now >= self.session.deadline()
    }

    /// Offers more input; returns the writes that follow until more is needed.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let mut used = 0;
        let mut writes = Vec::new();
        let mut out = Vec::new();
        while !self.closed {
            self.steps += 1;
            let (consumed, step) = self.session.step(self.now, &input[used..], &mut self.tx, &mut out);
            used += consumed;
            match step {
                Step::NeedInput => break,
                Step::Flush => writes.push(std::mem::take(&mut out)),
                Step::Close => self.closed = true,
                Step::Injected => {
                    self.injected = true;
                    self.closed = true;
                }
                Step::StartTls => {
                    let verdict = allow(!self.session.helo().starts_with("busy"), 454, "4.7.0", "too many handshakes");
                    let begins = verdict.is_ok();
                    self.session.on_start_tls(verdict, &mut out);
                    if begins {
                        assert_eq!(used, input.len(), "nothing is behind it");
                        writes.push(std::mem::take(&mut out));
                        self.session.on_encrypted();
                    }
                }
                Step::Auth => {
                    let judgement = judge(self.session.take_proof());
                    self.session.on_auth(judgement, &mut out);
                }
                Step::Mail => {
                    let verdict = allow(!self.tx.reverse_path().starts_with("refused"), 550, "5.7.1", "sender refused");
                    self.session.on_mail(verdict, &mut out);
                }
                Step::Recipient(path) => {
                    let verdict = allow(!path.starts_with("refused"), 550, "5.1.1", "no such user");
                    self.session.on_recipient(verdict, &mut self.tx, &mut out);
                }
                Step::Data => {
                    assert!(!self.tx.recipients().is_empty());
                    let verdict = allow(!self.tx.reverse_path().starts_with("late"), 451, "4.3.0", "not now");
                    self.session.on_data(verdict, &mut out);
                }
                Step::Body(piece) => {
                    assert!(!piece.is_empty());
                    self.body_steps += 1;
                    self.body.extend_from_slice(piece);
                }
                Step::Commit => self.commit(&mut out),
                Step::Reset => self.reset(),
            }
        }
        if !out.is_empty() {
            writes.push(out);
        }
        if !self.closed {
            self.input = input.split_off(used);
        }
        writes
    }

    fn commit(&mut self, out: &mut Vec<u8>) {
        let verdict = allow(!self.tx.reverse_path().starts_with("full"), 452, "4.3.1", "disk full");
        if verdict.is_ok() {
            self.messages.push(Message {
                sender: self.tx.reverse_path().to_owned(),
                recipients: self.tx.recipients().iter().map(|path| (*path).to_owned()).collect(),
                body: std::mem::take(&mut self.body),
            });
        }
        self.session.on_commit(verdict.map(|()| format!("Q{}", self.messages.len())), out);
        self.reset();
    }

    fn reset(&mut self) {
        self.tx = fresh();
        self.body.clear();
    }
}

fn fresh() -> Transaction<'static> {
    // Leaked: a test ends.
    Transaction::new(Box::leak(Box::new(Bump::new())))
}

/// The password `right` is right, but for the user `down`, of whom nobody knows anything now. SCRAM goes one round.
fn judge(proof: Proof) -> Judgement {
    match proof {
        Proof::Password { user, .. } if user == "down" => {
            Judgement::Unavailable(Reply::new(454, "4.7.0", "nobody knows"))
        }
        Proof::Password { user, password } if password.reveal() == "right" => Judgement::Accepted { user, last: None },
        Proof::First(Mechanism::ScramSha256, first) => Judgement::Challenge(format!("{}?", first.reveal())),
        Proof::Next(next) if next.reveal() == "proof" => {
            Judgement::Accepted { user: "scram".into(), last: Some("v=server".into()) }
        }
        Proof::Password { .. } | Proof::First(..) | Proof::Next(_) => Judgement::Refused,
    }
}

fn allow(fine: bool, code: u16, status: &str, text: &'static str) -> Result<(), Reply> {
    if fine { Ok(()) } else { Err(Reply::new(code, status, text)) }
}

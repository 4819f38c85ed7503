//! The client's side of one SMTP connection as a plain value: replies in, commands and bodies out.
//!
//! It measures each step from when its command left, or from the reply before it if that came later, so that a
//! pipelined command does not pay for its predecessors. Never here: sockets, clocks.

use std::collections::VecDeque;
use std::io::Write;
use std::time::Instant;

use crate::measure::{Measures, Step};
use crate::pace::Pace;
use crate::source::Pipelining;

/// What all connections of a run share: its constant texts, its quota, its measures.
#[derive(Debug)]
pub struct Campaign {
    /// `EHLO` line.
    pub hello: Vec<u8>,
    /// `HELO` line, for servers that know no EHLO.
    pub helo: Vec<u8>,
    /// `MAIL FROM` line.
    pub mail: Vec<u8>,
    /// Whom messages are for: one after the other, in turns.
    pub addressees: Vec<Addressees>,
    /// Recipients' local parts, as files list them.
    pub locals: Vec<String>,
    /// How far ahead of the replies commands may go.
    pub pipelining: Pipelining,
    /// Messages after which a connection is closed.
    pub per_connection: u64,
    /// Messages to finish; none means until the time is over.
    pub quota: Option<u64>,
    /// Schedule of an open-loop run.
    pub pace: Option<Pace>,
    /// No new message is begun any more.
    pub over: bool,
    /// Number of the next message.
    pub next_seq: u64,
    /// Messages begun and not finished.
    pub in_flight: u64,
    /// Messages that were answered at their end, whatever the answer.
    pub finished: u64,
    /// Messages that were answered 250.
    pub accepted: u64,
    /// Deliveries (messages times accepted recipients) that were answered 250.
    pub recipients: u64,
    /// Messages that the server refused.
    pub refused: u64,
    /// Messages whose connection ended before an answer.
    pub dropped: u64,
    /// Time of the last end of a message.
    pub last_finish: Option<Instant>,
    /// Steps and refusals.
    pub measures: Measures,
    /// Answered deliveries not yet written to the file: message and recipient.
    pub acked: Vec<(u64, u16)>,
    /// Whether `acked` is wanted.
    pub acks_wanted: bool,
}

/// The recipients of a message, all in one domain.
#[derive(Debug)]
pub struct Addressees {
    /// `RCPT TO` lines, one for each recipient.
    pub rcpts: Vec<Vec<u8>>,
    /// MAIL, every RCPT and DATA as one group (RFC 2920 §3.1).
    pub group: Vec<u8>,
}

impl Campaign {
    /// Whom message number `seq` is for.
    pub fn to(&self, seq: u64) -> &Addressees {
        &self.addressees[(seq % self.addressees.len() as u64) as usize]
    }

    /// Whether another message may begin, its schedule aside.
    pub fn has_more(&self) -> bool {
        !self.over && self.quota.is_none_or(|quota| self.finished + self.in_flight < quota)
    }

    fn admit(&mut self, now: Instant) -> Option<Transaction> {
        if !self.has_more() {
            return None;
        }
        let due = match &mut self.pace {
            Some(pace) => pace.take(now)?,
            None => now,
        };
        self.next_seq += 1;
        self.in_flight += 1;
        Some(Transaction { seq: self.next_seq, due, mail_refused: false, accepted: 0, refused: Vec::new() })
    }

    fn finish(&mut self, transaction: &Transaction, accepted: bool, now: Instant) {
        self.in_flight -= 1;
        self.finished += 1;
        self.last_finish = Some(now);
        self.measures.record(Step::Message, now.saturating_duration_since(transaction.due));
        if !accepted {
            self.refused += 1;
            return;
        }
        self.accepted += 1;
        self.recipients += u64::from(transaction.accepted);
        if self.acks_wanted {
            let all = 0..self.locals.len() as u16;
            let taken = all.filter(|index| !transaction.refused.contains(index));
            self.acked.extend(taken.map(|index| (transaction.seq, index)));
        }
    }
}

/// A message between MAIL and its last reply.
#[derive(Debug)]
struct Transaction {
    seq: u64,
    due: Instant,
    mail_refused: bool,
    accepted: u32,
    refused: Vec<u16>,
}

/// Which reply comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Greeting,
    Hello,
    Helo,
    Mail,
    Rcpt(u16),
    Data,
    EndOfData,
    Reset,
    Quit,
}

/// What follows a body on the wire, in the same write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Only the final dot.
    Dot,
    /// The group of the next message, of this number.
    Group(u64),
    /// QUIT.
    Quit,
}

/// How a reply left the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send what `out` and `body` hold, read on.
    Continue,
    /// Nothing to do until a message is due: call `begin` then.
    Idle,
    /// The server has taken its leave, or makes no sense: close.
    Close,
}

/// One connection's state.
#[derive(Debug)]
pub struct Exchange {
    awaited: VecDeque<Awaited>,
    opening: Option<Transaction>,
    finishing: Option<Transaction>,
    since: Instant,
    pipelining: Pipelining,
    offered: bool,
    begun: u64,
    /// Commands to send.
    pub out: Vec<u8>,
    /// Body to send after `out`: its number, and what follows it.
    pub body: Option<(u64, Tail)>,
}

impl Exchange {
    /// A connection that has just been made: the greeting comes next.
    pub fn new(now: Instant) -> Self {
        Self {
            awaited: VecDeque::from([Awaited::Greeting]),
            opening: None,
            finishing: None,
            since: now,
            pipelining: Pipelining::Off,
            offered: false,
            begun: 0,
            out: Vec::new(),
            body: None,
        }
    }

    /// Messages that had begun and will get no answer, the connection being lost.
    pub fn abandon(&mut self) -> u64 {
        u64::from(self.opening.take().is_some()) + u64::from(self.finishing.take().is_some())
    }

    /// Whether QUIT was sent, so that the end of the connection is no failure.
    pub fn is_leaving(&self) -> bool {
        self.awaited.back().is_none_or(|last| *last == Awaited::Quit) && self.opening.is_none()
    }

    /// Begins the next message, or takes leave when there is none left.
    pub fn begin(&mut self, campaign: &mut Campaign, now: Instant) -> Verdict {
        self.since = now;
        if self.begun >= campaign.per_connection || !campaign.has_more() {
            self.out.extend_from_slice(b"QUIT\r\n");
            self.awaited.push_back(Awaited::Quit);
            return Verdict::Continue;
        }
        let Some(transaction) = campaign.admit(now) else {
            return Verdict::Idle;
        };
        self.begun += 1;
        let seq = transaction.seq;
        self.opening = Some(transaction);
        if self.pipelining == Pipelining::Off {
            self.out.extend_from_slice(&campaign.mail);
            self.awaited.push_back(Awaited::Mail);
        } else {
            self.out.extend_from_slice(&campaign.to(seq).group);
            self.await_group(campaign);
        }
        Verdict::Continue
    }

    /// Takes one reply line. `last` is false for all but the last line of a reply (RFC 5321 §4.2.1).
    pub fn on_line(&mut self, code: u16, last: bool, line: &[u8], campaign: &mut Campaign, now: Instant) -> Verdict {
        if self.awaited.front() == Some(&Awaited::Hello) && code == 250 {
            let word = line.get(4..).unwrap_or_default().trim_ascii();
            self.offered |= word.eq_ignore_ascii_case(b"PIPELINING");
        }
        if !last {
            return Verdict::Continue;
        }
        let Some(awaited) = self.awaited.pop_front() else {
            return Verdict::Close;
        };
        let took = now.saturating_duration_since(self.since);
        self.since = now;
        let step = match awaited {
            Awaited::Greeting => Step::Greeting,
            Awaited::Hello | Awaited::Helo => Step::Hello,
            Awaited::Mail | Awaited::Reset => Step::Mail,
            Awaited::Rcpt(_) => Step::Rcpt,
            Awaited::Data => Step::Data,
            Awaited::EndOfData | Awaited::Quit => Step::EndOfData,
        };
        if !matches!(awaited, Awaited::Reset | Awaited::Quit) {
            campaign.measures.record(step, took);
        }
        if code == 421 && awaited != Awaited::Quit {
            campaign.measures.refuse(step, code, line);
            return Verdict::Close;
        }
        match awaited {
            Awaited::Greeting if code == 220 => {
                self.out.extend_from_slice(&campaign.hello);
                self.awaited.push_back(Awaited::Hello);
            }
            Awaited::Hello if code >= 500 => {
                self.out.extend_from_slice(&campaign.helo);
                self.awaited.push_back(Awaited::Helo);
            }
            Awaited::Hello | Awaited::Helo if code == 250 => {
                if self.offered {
                    self.pipelining = campaign.pipelining;
                }
                return self.begin(campaign, now);
            }
            Awaited::Greeting | Awaited::Hello | Awaited::Helo => {
                campaign.measures.refuse(step, code, line);
                return Verdict::Close;
            }
            Awaited::Mail => return self.on_mail(code, line, campaign, now),
            Awaited::Rcpt(index) => self.on_rcpt(index, code, line, campaign),
            Awaited::Data => return self.on_data(code, line, campaign, now),
            Awaited::EndOfData => {
                let transaction = self.finishing.take().expect("a body was sent for this reply");
                let accepted = code == 250 && transaction.accepted > 0;
                if code != 250 && transaction.accepted > 0 {
                    campaign.measures.refuse(step, code, line);
                }
                campaign.finish(&transaction, accepted, now);
                if self.awaited.is_empty() {
                    return self.begin(campaign, now);
                }
            }
            Awaited::Reset => return self.begin(campaign, now),
            Awaited::Quit => {}
        }
        Verdict::Continue
    }

    fn on_mail(&mut self, code: u16, line: &[u8], campaign: &mut Campaign, now: Instant) -> Verdict {
        let transaction = self.opening.as_mut().expect("MAIL belongs to a transaction");
        if code != 250 {
            transaction.mail_refused = true;
            campaign.measures.refuse(Step::Mail, code, line);
        }
        if self.pipelining == Pipelining::Off {
            if code != 250 {
                return self.give_up(campaign, now);
            }
            self.out.extend_from_slice(&campaign.to(transaction.seq).rcpts[0]);
            self.awaited.push_back(Awaited::Rcpt(0));
        }
        Verdict::Continue
    }

    fn on_rcpt(&mut self, index: u16, code: u16, line: &[u8], campaign: &mut Campaign) {
        let transaction = self.opening.as_mut().expect("RCPT belongs to a transaction");
        if matches!(code, 250 | 251) {
            transaction.accepted += 1;
        } else {
            transaction.refused.push(index);
            // After a refused MAIL every RCPT fails as well; only the cause is counted.
            if !transaction.mail_refused {
                campaign.measures.refuse(Step::Rcpt, code, line);
            }
        }
        if self.pipelining != Pipelining::Off {
            return;
        }
        if let Some(rcpt) = campaign.to(transaction.seq).rcpts.get(usize::from(index) + 1) {
            self.out.extend_from_slice(rcpt);
            self.awaited.push_back(Awaited::Rcpt(index + 1));
        } else if transaction.accepted > 0 {
            self.out.extend_from_slice(b"DATA\r\n");
            self.awaited.push_back(Awaited::Data);
        } else {
            self.out.extend_from_slice(b"RSET\r\n");
            self.awaited.push_back(Awaited::Reset);
            let transaction = self.opening.take().expect("it was there above");
            campaign.finish(&transaction, false, self.since);
        }
    }

    fn on_data(&mut self, code: u16, line: &[u8], campaign: &mut Campaign, now: Instant) -> Verdict {
        let transaction = self.opening.take().expect("DATA belongs to a transaction");
        if code != 354 {
            if transaction.accepted > 0 {
                campaign.measures.refuse(Step::Data, code, line);
            }
            self.opening = Some(transaction);
            return self.give_up(campaign, now);
        }
        self.awaited.push_back(Awaited::EndOfData);
        if transaction.accepted == 0 {
            // 354 to a pipelined DATA although nobody was accepted: a lone dot (RFC 2920 §3.1).
            self.out.extend_from_slice(b".\r\n");
            self.finishing = Some(transaction);
            return Verdict::Continue;
        }
        let mut tail = Tail::Dot;
        let seq = transaction.seq;
        self.finishing = Some(transaction);
        if self.pipelining == Pipelining::On {
            if self.begun >= campaign.per_connection {
                tail = Tail::Quit;
                self.awaited.push_back(Awaited::Quit);
            } else if let Some(next) = campaign.admit(now) {
                tail = Tail::Group(next.seq);
                self.begun += 1;
                self.opening = Some(next);
                self.await_group(campaign);
            }
        }
        self.body = Some((seq, tail));
        Verdict::Continue
    }

    /// The open message is refused before its body: count it and go on with the next.
    fn give_up(&mut self, campaign: &mut Campaign, now: Instant) -> Verdict {
        let transaction = self.opening.take().expect("only an open message is given up");
        campaign.finish(&transaction, false, now);
        if transaction.mail_refused {
            return self.begin(campaign, now);
        }
        // MAIL still stands on the server; a second one would be out of sequence (RFC 5321 §4.1.4).
        self.out.extend_from_slice(b"RSET\r\n");
        self.awaited.push_back(Awaited::Reset);
        Verdict::Continue
    }

    fn await_group(&mut self, campaign: &Campaign) {
        self.awaited.push_back(Awaited::Mail);
        self.awaited.extend((0..campaign.locals.len() as u16).map(Awaited::Rcpt));
        self.awaited.push_back(Awaited::Data);
    }
}

/// Code of a reply line and whether it is the reply's last; none if it is no reply at all.
pub fn parse_reply(line: &[u8]) -> Option<(u16, bool)> {
    let [a @ b'2'..=b'5', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] = line else {
        return None;
    };
    let code = u16::from(a - b'0') * 100 + u16::from(b - b'0') * 10 + u16::from(c - b'0');
    match rest.first() {
        Some(b'-') => Some((code, false)),
        None | Some(b' ' | b'\r' | b'\n') => Some((code, true)),
        Some(_) => None,
    }
}

/// Lines of a run that depend on the options only.
pub fn command(verb: &str, argument: &str) -> Vec<u8> {
    let mut line = Vec::with_capacity(verb.len() + argument.len() + 2);
    write!(line, "{verb}{argument}\r\n").expect("a Vec takes everything");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_told_from_noise() {
        assert_eq!(parse_reply(b"250-PIPELINING\r\n"), Some((250, false)));
        assert_eq!(parse_reply(b"354\r\n"), Some((354, true)));
        assert_eq!(parse_reply(b"421 4.3.2 bye\r\n"), Some((421, true)));
        assert_eq!(parse_reply(b"HTTP/1.1 400\r\n"), None);
        assert_eq!(parse_reply(b"2500 no\r\n"), None);
    }
}

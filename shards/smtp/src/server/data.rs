//! DATA (RFC 5321 §4.1.1.4), BDAT (RFC 3030), and the message itself.
//!
//! A message that turns out bad (bare CR or LF, too large) is void at once ([`Step::Reset`]), its rest is swallowed, and the
//! reply comes at the end, where the client waits for it. Which of two faults is told does not depend on how the input was cut.

use super::session::{Fault, Phase, Question, Session, State, Step, Turn};
use crate::command::{self, Chunk};
use crate::input::{self, END_BYTES, Text};
use crate::reply;

impl Session {
    pub(super) fn data<'i, 'a>(&mut self, arguments: &[u8], out: &mut Vec<u8>) -> Option<Step<'i, 'a>> {
        match self.phase {
            Phase::Stranger => return self.wrong(reply::HELLO_FIRST, out),
            // As with RCPT: perhaps sent along with a MAIL that was refused.
            Phase::Ready => return self.say(reply::MAIL_FIRST, out),
            Phase::Chunks => return self.wrong(reply::IN_CHUNKS, out),
            Phase::Envelope => {}
        }
        if !arguments.is_empty() {
            return self.wrong(reply::NO_ARGUMENT_EXPECTED, out);
        }
        if self.recipients == 0 {
            return match self.refused_recipients {
                0 => self.wrong(reply::RCPT_FIRST, out),
                _ => self.say(reply::NO_VALID_RECIPIENTS, out),
            };
        }
        self.ask(Question::Data);
        Some(Step::Data)
    }

    /// Whatever is wrong with a BDAT, its data follows and must not be read as commands.
    pub(super) fn bdat<'i, 'a>(&mut self, arguments: &[u8], out: &mut Vec<u8>) -> Option<Step<'i, 'a>> {
        let Some((size, chunk)) = command::chunk(arguments) else {
            out.extend_from_slice(reply::BDAT_ARGUMENT);
            self.state = State::Closed;
            return Some(Step::Close);
        };
        let refusal = match self.phase {
            Phase::Stranger | Phase::Ready => reply::MAIL_FIRST,
            Phase::Envelope if self.recipients > 0 => {
                self.ask(Question::FirstChunk { size, chunk });
                return Some(Step::Data);
            }
            Phase::Envelope if self.refused_recipients == 0 => reply::RCPT_FIRST,
            Phase::Envelope => reply::NO_VALID_RECIPIENTS,
            Phase::Chunks => {
                self.open_chunk(size, chunk);
                return None;
            }
        };
        out.extend_from_slice(refusal);
        self.fault = Some(Fault::Told);
        self.state = State::Chunk { left: size, chunk };
        None
    }

    pub(super) fn open_chunk(&mut self, size: u64, chunk: Chunk) {
        if self.fault.is_none() {
            self.phase = Phase::Chunks;
            if self.body_bytes.saturating_add(size) > self.policy.size_max {
                self.void(Fault::TooLarge);
                self.stale = true;
            }
        }
        self.state = State::Chunk { left: size, chunk };
    }

    /// After DATA: one run of the message, or its end.
    pub(super) fn text<'i, 'a>(&mut self, input: &'i [u8], line_start: bool, out: &mut Vec<u8>) -> Turn<'i, 'a> {
        match input::text(input, line_start) {
            Text::Incomplete => (0, Some(Step::NeedInput)),
            Text::Run { dot, end, line_start } => {
                self.state = State::Text { line_start };
                let run = &input[dot..end];
                // The CR behind it stayed in the input, so this one is bare: `x` CR CR LF.
                if run.ends_with(b"\r") {
                    return (end, self.void(Fault::BareNewline));
                }
                (end, self.body(run, false))
            }
            Text::End => (END_BYTES, self.end(out)),
        }
    }

    /// After BDAT: what is here of the chunk.
    pub(super) fn chunk<'i, 'a>(
        &mut self,
        input: &'i [u8],
        left: u64,
        chunk: Chunk,
        out: &mut Vec<u8>,
    ) -> Turn<'i, 'a> {
        if left == 0 {
            return (0, self.end_chunk(chunk, out));
        }
        if input.is_empty() {
            return (0, Some(Step::NeedInput));
        }
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let run = &input[..count];
        self.state = State::Chunk { left: left - count as u64, chunk };
        let step = self.body(run, self.after_cr);
        self.after_cr = run.ends_with(b"\r");
        (count, step)
    }

    /// Judges a run; the caller gets it unless the message is void.
    fn body<'i, 'a>(&mut self, run: &'i [u8], after_cr: bool) -> Option<Step<'i, 'a>> {
        if self.fault == Some(Fault::Told) {
            return None;
        }
        if !input::is_clean(run, after_cr) {
            return self.void(Fault::BareNewline);
        }
        if self.body_bytes.saturating_add(run.len() as u64) > self.policy.size_max {
            return self.void(Fault::TooLarge);
        }
        self.body_bytes += run.len() as u64;
        self.fault.is_none().then_some(Step::Body(run))
    }

    /// The worst fault is told. The first one voids the message.
    fn void<'i, 'a>(&mut self, fault: Fault) -> Option<Step<'i, 'a>> {
        let first = self.fault.is_none();
        if self.fault != Some(Fault::BareNewline) {
            self.fault = Some(fault);
        }
        first.then_some(Step::Reset)
    }

    fn end<'i, 'a>(&mut self, out: &mut Vec<u8>) -> Option<Step<'i, 'a>> {
        self.state = State::Command;
        let Some(fault) = self.fault.take() else {
            self.ask(Question::Commit);
            return Some(Step::Commit);
        };
        self.end_transaction();
        match fault {
            Fault::Told => None,
            Fault::TooLarge => self.say(reply::TOO_LARGE, out),
            Fault::BareNewline => self.wrong(reply::BARE_NEWLINE_IN_DATA, out),
        }
    }

    fn end_chunk<'i, 'a>(&mut self, chunk: Chunk, out: &mut Vec<u8>) -> Option<Step<'i, 'a>> {
        if chunk == Chunk::Last
            && self.after_cr
            && self.fault != Some(Fault::Told)
            && self.void(Fault::BareNewline).is_some()
        {
            self.stale = true;
        }
        if chunk == Chunk::Last || self.fault.is_some() {
            // A transaction goes on behind a refused chunk that never belonged to it.
            let phase = self.phase;
            let told = self.fault == Some(Fault::Told);
            let step = self.end(out);
            if told {
                self.phase = phase;
            }
            return step;
        }
        self.state = State::Command;
        reply::chunk_taken(self.body_bytes, out);
        None
    }
}

//! `match … action NAME | reject [REPLY]` (grammar §4.5).

use super::ast::{At, DestLine, FromLine, MatchLine, Negatable, OutcomeLine, TraitLine};
use super::statement::{Seen, Statement, Stop};
use super::tokens::Token;
use crate::lex::Mark;
use crate::limits::REPLY_TEXT_BYTES_MAX;
use crate::model::Reply;
use crate::report::Report;

const TRAITS: &[&str] = &["helo", "mail-from", "rcpt-to", "tag"];
const TRAITS_NOT_YET: &[&str] = &["auth", "tls", "cert"];
const ORIGINS: &[&str] = &["any", "local", "socket", "src", "mail-from"];
const ORIGINS_NOT_YET: &[&str] = &["rdns", "auth", "cert"];
const DESTINATIONS: &[&str] = &["any", "local", "domain", "rcpt-to"];

impl Statement<'_> {
    pub(super) fn rule(&mut self) -> Result<(), Stop> {
        let mut line = MatchLine {
            from: None,
            dest: None,
            traits: Vec::new(),
            outcome: OutcomeLine::Reject(None),
            span: self.so_far(),
        };
        let mut seen = Seen::default();
        loop {
            if let Some(end) = self.keyword(&["action", "reject"]) {
                line.outcome = self.outcome(end)?;
                break;
            }
            self.condition(&mut line, &mut seen)?;
        }
        line.span = self.so_far();
        self.ast.matches.push(line);
        Ok(())
    }

    fn condition(&mut self, line: &mut MatchLine, seen: &mut Seen) -> Result<(), Stop> {
        let not = self.mark(Mark::Not);
        let negated = not.is_some();
        if let Some(word) = self.keyword(&["from", "for"]) {
            self.once(seen, word);
            match word.value {
                "from" => line.from = Some(Negatable { negated, value: self.origin()? }),
                _ => line.dest = Some(Negatable { negated, value: self.destination()? }),
            }
            return Ok(());
        }
        if let Some(word) = self.keyword(TRAITS) {
            self.once(seen, word);
            let pattern = self.pattern(word)?;
            let value = match word.value {
                "helo" => TraitLine::Helo(pattern),
                "mail-from" => TraitLine::Sender(pattern),
                "rcpt-to" => TraitLine::Recipient(pattern),
                _ => TraitLine::Tag(pattern),
            };
            line.traits.push(Negatable { negated, value });
            return Ok(());
        }
        if let Some(word) = self.keyword(TRAITS_NOT_YET) {
            return Err(self.not_yet(word.span, word.value));
        }
        if self.at_end() && negated {
            return Err(self.needs("!", "a condition behind it"));
        }
        if self.at_end() {
            return Err(self.needs("match", "`action NAME` or `reject`"));
        }
        let right = ["for", "from", "action", "reject"];
        Err(self.no_such_option("match", &right, &[TRAITS, TRAITS_NOT_YET].concat()))
    }

    fn origin(&mut self) -> Result<FromLine, Stop> {
        if let Some(word) = self.keyword(ORIGINS_NOT_YET) {
            return Err(self.not_yet(word.span, &format!("from {}", word.value)));
        }
        let Some(word) = self.keyword(ORIGINS) else {
            let right = [ORIGINS, ORIGINS_NOT_YET].concat();
            let what = "any, local, socket, src, rdns, auth, mail-from or cert";
            return Err(self.needs_one_of("from", what, &right));
        };
        Ok(match word.value {
            "any" => FromLine::Any,
            "local" => FromLine::Local,
            "socket" => FromLine::Socket,
            "src" => FromLine::Source(self.pattern(word)?),
            _ => FromLine::Sender(self.pattern(word)?),
        })
    }

    fn destination(&mut self) -> Result<DestLine, Stop> {
        let Some(word) = self.keyword(DESTINATIONS) else {
            return Err(self.needs_one_of("for", "any, local, domain or rcpt-to", DESTINATIONS));
        };
        Ok(match word.value {
            "any" => DestLine::Any,
            "local" => DestLine::Local,
            "domain" => DestLine::Domain(self.pattern(At { value: "for domain", ..word })?),
            _ => DestLine::Recipient(self.pattern(word)?),
        })
    }

    fn outcome(&mut self, end: At<&'static str>) -> Result<OutcomeLine, Stop> {
        if end.value == "action" {
            let name = self.word("action", "a name")?;
            self.end(&format!("action {}", name.text))?;
            return Ok(OutcomeLine::Action(name));
        }
        let Some(word) = self.peek().and_then(Token::word) else {
            self.end("reject")?;
            return Ok(OutcomeLine::Reject(None));
        };
        self.skip();
        let reply = match reply(&word.text) {
            Ok(reply) => reply,
            Err(Bad::Code) => {
                let report = Report::new("E0505", word.span, "a reply starts with a 4xx or 5xx code");
                return Err(self.tell(report.help(format!("for example \"550 5.7.1 {}\"", word.text))));
            }
            Err(Bad::Text(why)) => {
                return Err(self.error("E0505", word.span, format!("a reply starts with a 4xx or 5xx code{why}")));
            }
        };
        self.end("reject REPLY")?;
        Ok(OutcomeLine::Reject(Some(reply)))
    }
}

enum Bad {
    Code,
    Text(&'static str),
}

/// `550 5.7.1 text`; the enhanced status (RFC 3463) may be left out.
fn reply(text: &str) -> Result<Reply, Bad> {
    let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
    let is_code = code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit()) && code.starts_with(['4', '5']);
    let code: u16 = code.parse().ok().filter(|_| is_code).ok_or(Bad::Code)?;
    let rest = rest.trim();
    if rest.len() > REPLY_TEXT_BYTES_MAX {
        return Err(Bad::Text(" and fits one line"));
    }
    if !rest.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return Err(Bad::Text(" and is plain ASCII"));
    }
    let (status, text) = match rest.split_once(' ').unwrap_or((rest, "")) {
        (status, text) if is_status(status) => {
            // RFC 2034 §4: the classes of code and status agree.
            if !status.starts_with(if code < 500 { '4' } else { '5' }) {
                return Err(Bad::Text(", and its status begins with the same digit"));
            }
            (status.to_owned(), text)
        }
        _ => (format!("{}.7.1", code / 100), rest),
    };
    Ok(Reply { code, status, text: if text.is_empty() { "refused".to_owned() } else { text.to_owned() } })
}

fn is_status(word: &str) -> bool {
    let parts: Vec<&str> = word.split('.').collect();
    parts.len() == 3 && parts.iter().all(|p| (1..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies() {
        let good = |text: &str| reply(text).ok().map(|r| (r.code, r.status, r.text));
        assert_eq!(good("550 5.7.1 no thanks"), Some((550, "5.7.1".into(), "no thanks".into())));
        assert_eq!(good("451 later"), Some((451, "4.7.1".into(), "later".into())));
        assert_eq!(good("550"), Some((550, "5.7.1".into(), "refused".into())));
        for bad in ["no thanks", "250 ok", "550 4.7.1 mixed", "550 5.7.1 a\tb", "5500 x", "550 größe"] {
            assert_eq!(good(bad), None, "{bad}");
        }
    }
}

//! `match … action NAME | reject [REPLY]` (grammar §4.5).

use super::ast::{At, DestLine, FromLine, MatchLine, Negatable, OutcomeLine, TraitLine};
use super::statement::{Seen, Statement, Stop};
use super::tokens::Token;
use crate::lex::Mark;
use crate::reply::{self, BadReply};
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
        let reply = match reply::parse(&word.text) {
            Ok(reply) => reply,
            Err(BadReply::Code) => {
                let report = Report::new("E0505", word.span, "a reply starts with a 4xx or 5xx code");
                return Err(self.tell(report.help(format!("for example \"550 5.7.1 {}\"", word.text))));
            }
            Err(BadReply::Text(why)) => {
                return Err(self.error("E0505", word.span, format!("a reply starts with a 4xx or 5xx code{why}")));
            }
        };
        self.end("reject REPLY")?;
        Ok(OutcomeLine::Reject(Some(reply)))
    }
}

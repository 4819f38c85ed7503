//! `action NAME …` (grammar §4.4).

use std::time::Duration;

use super::ast::{ActionKindLine, ActionLine, RelayLine, Word};
use super::statement::{Seen, Statement, Stop};
use super::tokens::Token;
use crate::report::Report;

const KINDS_BUILT: &[&str] = &["relay", "maildir", "discard"];
const KINDS_NOT_YET: &[&str] = &["mbox", "mda", "lmtp", "expand-only", "forward-only"];
const MAILDIR_NOT_YET: &[&str] = &["junk", "alias", "virtual", "user", "userbase", "wrapper"];
const RELAY_BUILT: &[&str] = &["host", "src", "helo", "ttl"];
const RELAY_NOT_YET: &[&str] = &[
    "alias",
    "virtual",
    "backup",
    "domain",
    "helo-src",
    "auth",
    "tls",
    "pki",
    "ca",
    "protocols",
    "ciphers",
    "mail-from",
    "srs",
    "filter",
    "shaping",
    "dkim",
];

impl Statement<'_> {
    pub(super) fn action(&mut self) -> Result<(), Stop> {
        let name = self.word("action", "a name")?;
        let mut ttl = None;
        let mut kind = ActionKindLine::Broken;
        let outcome = self.action_kind(&mut kind, &mut ttl);
        self.declare_action(ActionLine { name, kind, ttl, span: self.so_far() });
        outcome
    }

    /// Whatever was read before an error is kept, so that what is wrong in it is told in the same run.
    fn action_kind(&mut self, action: &mut ActionKindLine, ttl: &mut Option<Duration>) -> Result<(), Stop> {
        if let Some(kind) = self.keyword(KINDS_NOT_YET) {
            return Err(self.not_yet(kind.span, kind.value));
        }
        match self.keyword(KINDS_BUILT).map(|kind| kind.value) {
            Some("relay") => {
                let mut line = RelayLine::default();
                let outcome = self.relay(&mut line, ttl);
                *action = ActionKindLine::Relay(line);
                outcome
            }
            Some("maildir") => {
                *action = ActionKindLine::Maildir(self.maildir(ttl)?);
                Ok(())
            }
            Some(_) => {
                *action = ActionKindLine::Discard;
                self.end("discard")
            }
            None => {
                let right: Vec<&str> = KINDS_BUILT.iter().chain(KINDS_NOT_YET).copied().collect();
                let what = "relay, maildir, mbox, mda, lmtp, expand-only, forward-only or discard";
                Err(self.needs_one_of("action", what, &right))
            }
        }
    }

    fn relay(&mut self, line: &mut RelayLine, ttl: &mut Option<Duration>) -> Result<(), Stop> {
        let mut seen = Seen::default();
        while let Some(option) = self.keyword(RELAY_BUILT) {
            self.once(&mut seen, option);
            match option.value {
                "host" => line.host = Some((option, self.targ("host")?)),
                "src" => {
                    if let Some(pool) = self.keyword(&["pool"]) {
                        return Err(self.not_yet(pool.span, "src pool"));
                    }
                    line.src = Some((option, self.targ("src")?));
                }
                "helo" => line.helo = Some(self.host_name("helo")?),
                _ => *ttl = Some(self.duration("ttl")?.value),
            }
        }
        if let Some(option) = self.keyword(RELAY_NOT_YET) {
            return Err(self.not_yet(option.span, option.value));
        }
        if self.at_end() { Ok(()) } else { Err(self.no_such_option("relay", RELAY_BUILT, RELAY_NOT_YET)) }
    }

    fn maildir(&mut self, ttl: &mut Option<Duration>) -> Result<Word, Stop> {
        let kind = self.last();
        let path = self.maildir_path();
        let mut seen = Seen::default();
        while let Some(option) = self.keyword(&["ttl"]) {
            self.once(&mut seen, option);
            *ttl = Some(self.duration("ttl")?.value);
        }
        if let Some(option) = self.keyword(MAILDIR_NOT_YET) {
            return Err(self.not_yet(option.span, option.value));
        }
        if !self.at_end() {
            return Err(self.no_such_option("maildir", &["ttl"], MAILDIR_NOT_YET));
        }
        match path {
            Some(path) if !path.text.starts_with('~') => Ok(path),
            home => {
                let span = home.map_or(kind, |path| path.span);
                let report = super::statement::not_yet(span, "~/Maildir");
                let help = "this version does not know users; name the directory: `maildir \"/var/mail/%{dest.user}\"`";
                Err(self.tell(report.help(help)))
            }
        }
    }

    /// A bare word that may legally come next as a keyword is the keyword (grammar §3, *Option or argument*).
    fn maildir_path(&mut self) -> Option<Word> {
        let is_keyword = |word: &Word| !word.quoted && (word.text == "ttl" || MAILDIR_NOT_YET.contains(&&*word.text));
        let path = self.peek().and_then(Token::word).filter(|word| !is_keyword(word))?;
        self.skip();
        Some(path)
    }

    fn declare_action(&mut self, action: ActionLine) {
        let earlier = self.ast.actions.iter().find(|a| a.name.text == action.name.text).map(|a| a.name.span);
        match earlier {
            Some(first) => {
                let message = format!("action `{}` is already declared", action.name.text);
                let help = format!("at {}", self.texts.at(first));
                let report = Report::new("E0305", action.name.span, message);
                self.reports.push(report.also(first, "declared here").help(help));
            }
            None => self.ast.actions.push(action),
        }
    }
}

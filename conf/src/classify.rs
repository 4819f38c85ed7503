//! What a refusal of another server means, in one word (grammar §4.7): for the log, and where a `bounce classify` line says so,
//! for what is done. The lines of the configuration come first, then what enhanced status codes (RFC 3463, RFC 7372) say,
//! then what servers write that send none, or use them otherwise than meant.
//!
//! Also what a refusal means for all mail to its site: whether that takes less than it is given (grammar §4.13).

use std::sync::LazyLock;

use ringpost_address::Folded;

use crate::model::{Classify, Config, OnReply, Reaction, Treat};
use crate::rules::Among;
use crate::tables::{Patterns, WordSet};

/// The class of refusals that mean: too much in too short a time. Who names it in a `bounce classify` line means the same.
const RATE_LIMITED: &str = "rate-limited";

/// A refusal, 4xx or 5xx.
#[derive(Clone, Copy, Debug)]
pub struct Refused<'a> {
    /// Three digits.
    pub code: u16,
    /// Enhanced status; `X.0.0` where the server sent none.
    pub status: (u8, u16, u16),
    /// The text behind both.
    pub text: &'a str,
    /// Domain of the recipient.
    pub domain: &'a str,
}

impl Refused<'_> {
    /// As it is in the log, and as patterns see it.
    fn line(&self) -> String {
        format!("{} {} {}", self.code, self.status_text(), self.text)
    }

    fn status_text(&self) -> String {
        let (class, subject, detail) = self.status;
        format!("{class}.{subject}.{detail}")
    }
}

/// What a refusal means for all mail to its site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// A line of the configuration says what is done.
    Said(Reaction),
    /// It takes fewer messages in a time than it is given.
    Messages,
    /// It takes fewer connections at once.
    Connections,
}

impl Config {
    /// What a refusal means for its site; `None`: nothing, it is about the message or its recipient. Of the lines of the
    /// site's shape, `on_reply`, the first that fits counts; then `treat` of `bounce classify`; then, of refusals for now,
    /// whether their class is `rate-limited`.
    pub fn pressure(&self, on_reply: &[OnReply], refused: &Refused<'_>) -> Option<Pressure> {
        let said = on_reply.iter().find(|(reply, _)| names(reply, refused)).map(|(_, reaction)| *reaction);
        if let Some(reaction) = said {
            return Some(Pressure::Said(reaction));
        }
        match self.classify(refused) {
            (_, Some(Treat::Throttle(percent))) => Some(Pressure::Said(Reaction::Throttle(percent))),
            (_, Some(Treat::Suspend(time))) => Some(Pressure::Said(Reaction::Suspend(time))),
            (RATE_LIMITED, _) if refused.code / 100 == 4 => Some(match CONNECTIONS.find(refused.text) {
                true => Pressure::Connections,
                false => Pressure::Messages,
            }),
            _ => None,
        }
    }

    /// The class of a refusal, and what is to be done about it, if a line says so.
    pub fn classify(&self, refused: &Refused<'_>) -> (&str, Option<Treat>) {
        let lines = &self.bounce.classify;
        let line = (!lines.is_empty()).then(|| lines.iter().find(|line| line.fits(refused))).flatten();
        line.map_or_else(|| (built_in(refused), None), |line| (&line.class, line.treat))
    }
}

impl Classify {
    fn fits(&self, refused: &Refused<'_>) -> bool {
        let is_there = match &self.domain {
            None => true,
            Some(Among::Table(domains)) => domains.contains(Folded::new(refused.domain).as_str()),
            Some(Among::Regex(patterns)) => patterns.find(refused.domain),
            Some(Among::Remote { .. }) => false,
        };
        is_there && names(&self.reply, refused)
    }
}

/// Whether a refusal is one of those that a line means.
fn names(reply: &Among<WordSet>, refused: &Refused<'_>) -> bool {
    match reply {
        Among::Regex(patterns) => patterns.find(&refused.line()),
        // Words are codes: `421`, `4.7.28`.
        Among::Table(words) => words.contains(&refused.code.to_string()) || words.contains(&refused.status_text()),
        // A server with lines that ask a table does not start (`Config::not_yet`).
        Among::Remote { .. } => false,
    }
}

/// What servers write that mind connections, not messages.
static CONNECTIONS: LazyLock<Patterns> = LazyLock::new(|| {
    let phrases = ["too (many|much).{0,20}(connections|sessions|concurren)", "(connection|concurrency) (rate )?limit"];
    Patterns::new(phrases).expect("ours")
});

/// Phrases of servers by class, the more telling first. They are looked for wherever the status does not decide.
static PHRASES: LazyLock<Vec<(&str, Patterns)>> = LazyLock::new(|| {
    let phrases: [(&str, &[&str]); 9] = [
        (
            "mailbox-full",
            &[
                "mailbox (is )?full",
                r"over ?(its |the )?quota",
                "quota exceeded",
                "insufficient (system )?storage.*mailbox",
            ],
        ),
        (
            RATE_LIMITED,
            &[
                r"rate.?limit",
                r"\bslow(ing)? down\b",
                "too (many|much) (messages|mail|connections|concurrent|recipients|requests)",
                "throttl",
                "unusual(ly high)? rate",
                "temporarily (deferred|rejected).*(complaints|rate|volume)",
                "(slow|try).{0,20}(down|later).*(rate|volume)",
            ],
        ),
        ("spam", &["spam", "block ?list", "black ?list", r"\b(rbl|dnsbl)\b", "reputation", "spamhaus", "unsolicited"]),
        ("auth", &[r"\bdkim\b", r"\bspf\b", r"\bdmarc\b", "sender id", "authenticat"]),
        (
            "no-such-user",
            &[
                "(user|recipient|mailbox|account|address).{0,30}(unknown|not found|not exist|doesn.t exist|invalid|unavailable|disabled)",
                "(unknown|no such|invalid).{0,20}(user|recipient|mailbox|account|address|local part)",
            ],
        ),
        (
            "no-such-domain",
            &["(domain|host).{0,20}(unknown|not found|does not exist|doesn.t exist)", "unknown (domain|host)"],
        ),
        ("content", &["message (size|too (large|big))", "virus", "malware", "attachment"]),
        ("tls", &[r"\b(starttls|tls)\b.*(requir|must|need)"]),
        (
            "policy",
            &[
                "relay(ing)? (access )?denied",
                "not (allowed|permitted|authori[sz]ed)",
                "polic(y|ies)",
                "access denied",
                "grey ?list",
            ],
        ),
    ];
    phrases.map(|(class, list)| (class, Patterns::new(list.iter().copied()).expect("ours"))).into()
});

fn built_in(refused: &Refused<'_>) -> &'static str {
    let (_, subject, detail) = refused.status;
    let by_status = match (subject, detail) {
        (1, 1 | 3 | 6) => Some("no-such-user"),
        (1, 2 | 10) => Some("no-such-domain"),
        (2, 1) if refused.code >= 500 => Some("no-such-user"),
        (2, 2) => Some("mailbox-full"),
        (3, 4) | (6, _) => Some("content"),
        (4, 3 | 4) => Some("dns"),
        (4, 5) => Some(RATE_LIMITED),
        (7, 4 | 10 | 11 | 30) => Some("tls"),
        (7, 8 | 9 | 20..=26) => Some("auth"),
        // RFC 3463 §3.4: the system takes no messages from the network now. One that is shutting down says the same.
        (3, 2) if refused.code < 500 => Some(RATE_LIMITED),
        // Google's, for one sender, and for one source; Microsoft's, whose details are numbers of their own.
        (7, 28 | 500..=699) if refused.code < 500 => Some(RATE_LIMITED),
        (7, 28) => Some(RATE_LIMITED),
        _ => None,
    };
    let by_text = || {
        let found = PHRASES.iter().find(|(_, patterns)| patterns.find(refused.text));
        found.map(|(class, _)| *class)
    };
    by_status.or_else(by_text).unwrap_or(match (refused.code, subject) {
        // A farewell for now, with no word about why.
        (421, 0 | 7) => RATE_LIMITED,
        // Undefined by RFC 3463, and used for little else. Greylisting says 4.7.1, or 4.2.0.
        (450..=452, 7) if detail == 0 => RATE_LIMITED,
        (530 | 535, _) => "auth",
        (_, 7) => "policy",
        (_, 1) => "no-such-user",
        _ => "other",
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Memory, Options, load};

    fn refused<'a>(code: u16, status: (u8, u16, u16), text: &'a str) -> Refused<'a> {
        Refused { code, status, text, domain: "There.Example" }
    }

    #[test]
    fn what_servers_say_has_a_class() {
        for (code, status, text, class) in [
            (550, (5, 1, 1), "gone", "no-such-user"),
            (550, (5, 0, 0), "No such user here", "no-such-user"),
            (550, (5, 0, 0), "Requested action not taken: mailbox unavailable", "no-such-user"),
            (550, (5, 1, 2), "bad host", "no-such-domain"),
            (556, (5, 1, 10), "null MX", "no-such-domain"),
            (452, (4, 2, 2), "later", "mailbox-full"),
            (552, (5, 0, 0), "user is over quota", "mailbox-full"),
            (421, (4, 7, 0), "Too many connections from your IP", "rate-limited"),
            (421, (4, 0, 0), "see you", "rate-limited"),
            (450, (4, 7, 28), "unusual", "rate-limited"),
            (451, (4, 7, 0), "come back", "rate-limited"),
            (451, (4, 7, 500), "Server busy", "rate-limited"),
            (451, (4, 0, 0), "please slow down", "rate-limited"),
            (421, (4, 3, 2), "not now", "rate-limited"),
            (451, (4, 4, 5), "busy", "rate-limited"),
            (450, (4, 2, 0), "Greylisted", "policy"),
            (450, (4, 2, 1), "disabled", "other"),
            (554, (5, 7, 1), "blocked using zen.spamhaus.org", "spam"),
            (550, (5, 7, 1), "Your IP has a poor reputation", "spam"),
            (550, (5, 7, 26), "unauthenticated", "auth"),
            (550, (5, 7, 1), "SPF check failed", "auth"),
            (535, (5, 0, 0), "no", "auth"),
            (530, (5, 7, 0), "Must issue a STARTTLS command first: TLS required", "tls"),
            (552, (5, 3, 4), "no", "content"),
            (554, (5, 7, 1), "Relay access denied", "policy"),
            (450, (4, 7, 1), "Greylisted", "policy"),
            (451, (4, 4, 3), "lookup failed", "dns"),
            (451, (4, 3, 0), "disk trouble", "other"),
        ] {
            assert_eq!(built_in(&refused(code, status, text)), class, "{code} {status:?} {text}");
        }
    }

    #[test]
    fn lines_come_first_and_in_order() {
        let text = "bounce classify moved reply regex \"has moved\" for domain { there.example } treat temporary\n\
                    bounce classify moved-elsewhere reply regex \"^5.*has moved\"\n\
                    bounce classify busy reply { 421, \"4.7.28\" } treat temporary\n\
                    action a relay\nmatch for any action a\n";
        let files = Memory::default().with("c", text);
        let (config, _) = load(&files, Path::new("c"), &Options::default()).unwrap_or_else(|r| panic!("{r}"));
        let moved = refused(551, (5, 1, 6), "he Has Moved");
        assert_eq!(config.classify(&moved), ("moved", Some(Treat::Temporary)));
        assert_eq!(config.classify(&Refused { domain: "b.example", ..moved }), ("moved-elsewhere", None));
        assert_eq!(config.classify(&refused(450, (4, 7, 28), "x")), ("busy", Some(Treat::Temporary)));
        assert_eq!(config.classify(&refused(421, (4, 0, 0), "x")).0, "busy");
        assert_eq!(config.classify(&refused(550, (5, 1, 1), "x")), ("no-such-user", None));
    }

    #[test]
    fn what_a_refusal_means_for_its_site() {
        let text = "shaping default { on reply regex \"slow\" throttle 50%, on reply { 451 } switch-source, \
                    on reply regex \"slowest\" suspend 1h }\n\
                    bounce classify policy reply regex \"blocked\" treat suspend 2h\n\
                    bounce classify rate-limited reply regex \"enough for today\"\n\
                    bounce classify known reply regex \"4\\.7\\.28 known\"\n\
                    bounce classify full reply { \"4.2.2\" } treat throttle\n\
                    action a relay\nmatch for any action a\n";
        let files = Memory::default().with("c", text);
        let (config, _) = load(&files, Path::new("c"), &Options::default()).unwrap_or_else(|r| panic!("{r}"));
        assert!(config.not_yet.is_empty());
        let lines = &config.shapings[0].shape.on_reply;
        let said = |reaction| Some(Pressure::Said(reaction));
        let hour = std::time::Duration::from_secs(3600);
        for (code, status, text, pressure) in [
            (450, (4, 7, 1), "Slowest of all", said(Reaction::Throttle(50))),
            (451, (4, 0, 0), "x", said(Reaction::SwitchSource)),
            (550, (5, 7, 1), "blocked", said(Reaction::Suspend(2 * hour))),
            (452, (4, 2, 2), "full", said(Reaction::Throttle(50))),
            (450, (4, 2, 1), "enough for today", Some(Pressure::Messages)),
            (450, (4, 7, 28), "unusual", Some(Pressure::Messages)),
            (450, (4, 7, 28), "known", None),
            (421, (4, 7, 0), "too many connections from you", Some(Pressure::Connections)),
            (421, (4, 7, 0), "too many messages", Some(Pressure::Messages)),
            (450, (4, 7, 1), "Greylisted", None),
            (450, (4, 2, 1), "mailbox disabled", None),
            (450, (4, 2, 0), "later", None),
            (550, (5, 7, 1), "rate limited", None),
            (550, (5, 1, 1), "no such user", None),
        ] {
            assert_eq!(config.pressure(lines, &refused(code, status, text)), pressure, "{code} {status:?} {text}");
        }
    }
}

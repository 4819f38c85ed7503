//! `shaping`, `warmup`, `pool`, `dkim`, `ratelimit`, `share`, `bounce classify` (grammar §4.7, §4.13–4.16).

use std::collections::{HashMap, HashSet};

use ringpost_address::parse_ip;

use super::declared::What;
use super::relay::tls;
use super::{Check, exclude};
use crate::limits;
use crate::model::{
    Classify, Family, Pool, PoolSource, RateAction, RateKey, RateLimit, Reaction, Retry, Select, Shape, ShapeSelector,
    Shaping, Share, Signer, SignerKeys, Treat, Warmup,
};
use crate::parse::ast::{Arg, OptionLine, Options, Said};
use crate::reply;
use crate::report::Report;
use crate::source_text::Span;
use crate::text::Text;
use crate::values;

impl Check<'_, '_> {
    /// All shapes; that of `shaping default` is one, however many statements say it.
    pub(super) fn shapings(&mut self) -> Vec<Shaping> {
        let mut shapings: Vec<Shaping> = Vec::new();
        let defaults: Vec<&Said> = self.all_settings("shaping").filter(|said| said.has_key("default")).collect();
        let merged = Options(defaults.iter().flat_map(|said| block(said)).flat_map(|o| o.0.iter().cloned()).collect());
        let first = defaults.first().map(|said| said.span);
        self.given_once(&merged);
        if let Some(span) = first {
            let shape = self.shape(&merged);
            let (name, line) = ("default".to_owned(), self.reading.line(span));
            shapings.push(Shaping { name, selector: ShapeSelector::Default, shape, line });
        }
        let (ast, profile) = (self.ast, self.profile);
        let is_own = |said: &&Said| {
            let name = said.word(0).map(|word| &word.text);
            !ast.of("shaping").any(|own| own.word(0).map(|word| &word.text) == name)
        };
        // Of the profile's those whose names the file does not use for its own.
        for said in
            ast.of("shaping").chain(profile.of("shaping").filter(is_own)).filter(|said| !said.has_key("default"))
        {
            let Some(name) = said.word(0) else { continue };
            let selector = self.selector(said);
            let shape = block(said).map(|options| self.shape(options));
            if let (Some(selector), Some(shape)) = (selector, shape) {
                let name = name.text.to_string();
                shapings.push(Shaping { name, selector, shape, line: self.reading.line(said.span) });
            }
        }
        shapings
    }

    /// Names of shapes that mean nothing unless an action names them.
    pub(super) fn shapes_by_name(&self) -> HashSet<Text> {
        let of_relays = self.ast.of("shaping").filter(|said| said.has_key("relay"));
        of_relays.filter_map(|said| said.word(0)).map(|word| word.text.clone()).collect()
    }

    fn selector(&mut self, said: &Said) -> Option<ShapeSelector> {
        if said.has_key("relay") {
            return Some(ShapeSelector::Relay);
        }
        let among = self.tables.among(said.value(1)?, self.reading)?;
        Some(if said.has_key("mx") {
            ShapeSelector::Mx(among)
        } else if said.has_key("host") {
            ShapeSelector::Host(among)
        } else {
            ShapeSelector::Domain(among)
        })
    }

    /// E0601 over several statements; of a profile's option the file's comes first and counts.
    fn given_once(&mut self, options: &Options) {
        for (at, option) in options.0.iter().enumerate() {
            let earlier = options.0[..at].iter().find(|have| have.name == option.name && option.name != "on");
            let Some(earlier) = earlier.filter(|_| !self.is_of_profile(option.word.span)) else { continue };
            if self.reading.texts.line(earlier.word.span) != self.reading.texts.line(option.word.span) {
                self.twice(option.word.value, option.word.span, earlier.word.span);
            }
        }
    }

    pub(super) fn is_of_profile(&self, span: Span) -> bool {
        self.profile.statements.first().is_some_and(|said| said.span.file == span.file)
    }

    fn shape(&mut self, options: &Options) -> Shape {
        exclude(options, &["inet4", "inet6"], Some("without either, both are used"), self.reading);
        let mut on_reply = Vec::new();
        for option in options.all("on") {
            let Arg::With(pattern, reactions) = &option.arg else { continue };
            exclude(reactions, &["throttle", "suspend", "switch-source"], None, self.reading);
            let among = self.tables.among(pattern, self.reading);
            match (among, reaction(reactions)) {
                (Some(among), Some(reaction)) => on_reply.push((among, reaction)),
                (_, None) => {
                    let message = "`on reply` needs throttle, suspend or switch-source";
                    self.reading.report(Report::new("E0203", option.word.span, message));
                }
                _ => {}
            }
        }
        Shape {
            connections: options.count("connections"),
            connections_per_host: options.count("connections-per-host"),
            connections_per_source: options.count("connections-per-source"),
            open_rate: options.rate("open-rate"),
            rate: options.rate("rate"),
            rate_per_source: options.rate("rate-per-source"),
            burst: options.count("burst"),
            messages_per_connection: options.count("messages-per-connection"),
            recipients: options.count("recipients"),
            idle: options.duration("idle"),
            connect_timeout: options.duration("connect-timeout"),
            reply_timeout: options.duration("reply-timeout"),
            failures: options.count("failures"),
            pause: options.duration("pause"),
            family: match (options.has("inet4"), options.has("inet6")) {
                (true, _) => Family::V4,
                (_, true) => Family::V6,
                _ => Family::Both,
            },
            tls: options.find("tls").map(tls),
            retry: options.find("retry").and_then(retry),
            ttl: options.duration("ttl"),
            warmup: self.names.maybe(What::Warmup, options.word("warmup"), self.reading),
            on_reply,
        }
    }

    pub(super) fn warmups(&mut self) -> Vec<Warmup> {
        let mut warmups = Vec::new();
        for said in self.ast.of("warmup").filter(|said| !said.broken) {
            if let (Some(name), Some(Arg::Rates(rates))) = (said.word(0), said.value(1)) {
                for at in rates.iter().filter(|at| at.value.per > limits::WARMUP_STEP_MAX) {
                    let message = format!("a step of a warm-up is of a day, not `{}`", at.value);
                    let help = "write what may be sent in a day, or in a part of it: `50/d`, `10/h`";
                    self.reading.report(Report::new("E0509", at.span, message).help(help));
                }
                let steps = rates.iter().map(|at| at.value).collect();
                warmups.push(Warmup { name: name.text.to_string(), steps, line: self.reading.line(said.span) });
            }
        }
        warmups
    }

    pub(super) fn pools(&mut self) -> Vec<Pool> {
        let mut pools = Vec::new();
        for said in self.ast.of("pool") {
            let (Some(name), Some(Arg::Items(items))) = (said.word(0), said.value(1)) else { continue };
            let (mut sources, mut known) = (Vec::new(), HashMap::new());
            for (word, options) in items {
                let warmup = self.names.maybe(What::Warmup, options.word("warmup"), self.reading);
                let Some(address) = parse_ip(&word.text) else {
                    let report = Report::new("E0403", word.span, format!("`{}` is not an address", word.text));
                    self.reading.report(report);
                    continue;
                };
                if let Some(first) = known.insert(address, word.span) {
                    self.twice(&word.text, word.span, first);
                }
                let weight = options.count("weight").unwrap_or(1);
                sources.push(PoolSource { address, helo: options.text("helo"), weight, warmup });
            }
            let select = match said.options.key("select") {
                Some("least-used") => Select::LeastUsed,
                Some("sticky-sender") => Select::StickySender,
                Some("sticky-domain") => Select::StickyDomain,
                _ => Select::Cycle,
            };
            pools.push(Pool { name: name.text.to_string(), sources, select, line: self.reading.line(said.span) });
        }
        pools
    }

    pub(super) fn signers(&mut self) -> Vec<Signer> {
        let mut signers = Vec::new();
        for said in self.ast.of("dkim") {
            let Some(name) = said.word(0) else { continue };
            let Some(keys) = self.signer_keys(said) else { continue };
            let options = &said.options;
            let headers = match options.find("headers").map(|option| &option.arg) {
                Some(Arg::Entries(entries)) => entries.list.iter().map(|entry| entry.key.text.to_string()).collect(),
                _ => Vec::new(),
            };
            let tag = options.find("tag").and_then(|option| self.tables.among(&option.arg, self.reading));
            signers.push(Signer {
                name: name.text.to_string(),
                keys,
                headers,
                identity: options.text("identity"),
                ttl: options.duration("ttl"),
                tag,
                line: self.reading.line(said.span),
            });
        }
        signers
    }

    fn signer_keys(&mut self, said: &Said) -> Option<SignerKeys> {
        let options = &said.options;
        if let Some((_, targ)) = options.targ("from") {
            for option in options.0.iter().filter(|o| matches!(o.name, "domain" | "selector" | "key")) {
                let message = format!("`from` and `{}` exclude each other", option.word.value);
                self.reading.report(Report::new("E0602", option.word.span, message));
            }
            return self.tables.keyed(targ, self.reading).map(SignerKeys::Table);
        }
        let domains = options.find("domain").map(|option| self.tables.among(&option.arg, self.reading));
        let key = options.word("key").map(|word| self.key_file(word));
        let (selector, word) = (options.text("selector"), said.word(0)?);
        if said.broken {
            return None;
        }
        let missing = [("domain", domains.is_none()), ("selector", selector.is_none()), ("key", key.is_none())];
        if let Some((name, _)) = missing.into_iter().find(|(_, is_missing)| *is_missing) {
            let message = format!("`dkim sign {}` needs `{name}`, or `from <table>`", word.text);
            self.reading.report(Report::new("E0203", word.span, message));
            return None;
        }
        Some(SignerKeys::File { domains: domains??, selector: selector?, key: key? })
    }

    pub(super) fn rate_limits(&mut self) -> Vec<RateLimit> {
        let mut limits = Vec::new();
        for said in self.ast.of("ratelimit").filter(|said| !said.broken) {
            let Some(name) = said.word(0) else { continue };
            let options = &said.options;
            let share = self.names.maybe(What::Share, options.word("share"), self.reading);
            let key = options.word("key").map(|word| (word, rate_key(&word.text)));
            if let Some((word, None)) = key {
                let report = Report::new("E0203", word.span, format!("`key` needs {RATE_KEYS}, not `{}`", word.text));
                self.reading.report(report);
                continue;
            }
            let (Some((_, Some(key))), Some(rate)) = (key, options.rate("rate")) else {
                let missing = if options.has("key") { "rate" } else { "key" };
                let message = format!("`ratelimit {}` needs `{missing}`", name.text);
                self.reading.report(Report::new("E0203", name.span, message));
                continue;
            };
            limits.push(RateLimit {
                name: name.text.to_string(),
                key,
                rate,
                burst: options.count("burst").unwrap_or(rate.count),
                share,
                then: options.find("then").and_then(rate_action).unwrap_or_default(),
                line: self.reading.line(said.span),
            });
        }
        limits
    }

    pub(super) fn shares(&mut self) -> Vec<Share> {
        let mut shares = Vec::new();
        for said in self.ast.of("share").filter(|said| !said.broken) {
            let (Some(name), Some(url)) = (said.word(0), said.word(1)) else { continue };
            let good = ["redis://", "rediss://", "redis+unix://", "unix://"].iter().any(|s| url.text.starts_with(s));
            if !good {
                let report = Report::new("E0507", url.span, format!("not an address, network or host: `{}`", url.text));
                self.reading.report(report.help("for example `redis://10.0.0.5/2`"));
            }
            shares.push(Share {
                name: name.text.to_string(),
                url: url.text.to_string(),
                prefix: said.options.text("prefix").unwrap_or_default(),
                timeout: said.options.duration("timeout").unwrap_or(limits::SHARE_TIMEOUT),
                fails_temporarily: said.options.key("on-failure") == Some("tempfail"),
                line: self.reading.line(said.span),
            });
        }
        shares
    }

    pub(super) fn classify(&mut self) -> Vec<Classify> {
        let mut list = Vec::new();
        for said in self.ast.of("bounce").filter(|said| said.form.name == "bounce classify") {
            let (Some(class), Some(pattern)) = (said.word(0), said.value(1)) else { continue };
            let reply = self.tables.among(pattern, self.reading);
            let domain = said.options.find("for").map(|option| self.tables.among(&option.arg, self.reading));
            let treat = said.options.find("treat").and_then(treat);
            let (Some(reply), Some(domain)) = (reply, domain.map_or(Some(None), |d| d.map(Some))) else { continue };
            list.push(Classify {
                class: class.text.to_string(),
                reply,
                domain,
                treat,
                line: self.reading.line(said.span),
            });
        }
        list
    }
}

const RATE_KEYS: &str = "source[/BITS], user, sender, sender-domain, rcpt, rcpt-domain, helo or listener";

fn block(said: &Said) -> Option<&Options> {
    said.head.iter().find_map(|arg| match arg {
        Arg::Block(options) => Some(options),
        _ => None,
    })
}

fn reaction(options: &Options) -> Option<Reaction> {
    if options.has("switch-source") {
        return Some(Reaction::SwitchSource);
    }
    let percent = options.number("throttle").and_then(|n| u8::try_from(n).ok());
    percent.map(Reaction::Throttle).or(options.duration("suspend").map(Reaction::Suspend))
}

fn retry(option: &OptionLine) -> Option<Retry> {
    let Arg::With(waits, rest) = &option.arg else { return None };
    let Arg::Durations(waits) = &**waits else { return None };
    Some(Retry {
        waits: waits.iter().map(|at| at.value).collect(),
        then: rest.duration("then"),
        jitter_percent: rest.number("jitter").and_then(|n| u8::try_from(n).ok()).unwrap_or(0),
    })
}

fn treat(option: &OptionLine) -> Option<Treat> {
    let Arg::One(what) = &option.arg else { return None };
    Some(match (what.name, &what.arg) {
        ("permanent", _) => Treat::Permanent,
        ("temporary", _) => Treat::Temporary,
        ("suspend", Arg::Duration(at)) => Treat::Suspend(at.value),
        (_, Arg::Percent(at)) => Treat::Throttle(at.value),
        _ => Treat::Throttle(limits::THROTTLE_PERCENT),
    })
}

/// `source`, `source/24`, and words.
fn rate_key(text: &str) -> Option<RateKey> {
    const BITS_MAX: u64 = 32;
    Some(match text {
        "source" => RateKey::Source(32),
        "user" => RateKey::User,
        "sender" => RateKey::Sender,
        "sender-domain" => RateKey::SenderDomain,
        "rcpt" => RateKey::Recipient,
        "rcpt-domain" => RateKey::RecipientDomain,
        "helo" => RateKey::Helo,
        "listener" => RateKey::Listener,
        other => {
            let bits = values::number(other.strip_prefix("source/")?).filter(|bits| *bits <= BITS_MAX)?;
            RateKey::Source(u8::try_from(bits).ok()?)
        }
    })
}

fn rate_action(option: &OptionLine) -> Option<RateAction> {
    let Arg::One(what) = &option.arg else { return None };
    Some(match (what.name, &what.arg) {
        ("slow", Arg::Duration(at)) => RateAction::Slow(at.value),
        ("disconnect", _) => RateAction::Disconnect,
        ("reject", Arg::Word(word)) => RateAction::Reject(reply::parse(&word.text).ok()?),
        _ => RateAction::TempFail,
    })
}

//! What was written 2012–2018 in the words of today (grammar §5.2, rows D1–D29; §5.3 for relay URLs). Everything made here keeps
//! the places of the words it was made from, so that messages quote what was written.

use std::collections::HashSet;

use crate::parse::ast::{Arg, Ast, At, OptionLine, Options, Said, Targ, TargKind, Word};
use crate::parse::grammar;
use crate::parse::old_rule::{Disposition, OldRule};
use crate::parse::schema::{Form, Shape, Use};
use crate::report::{Report, did_you_mean};
use crate::source_text::Span;
use crate::tables::ServiceKind;
use crate::values::{Rate, is_greeting_name};

/// One rule becomes an action and one or two `match` lines (D1–D8). What could not be read is left out; the rest is checked.
pub(crate) fn rule(rule: OldRule, name: &str, broken: bool, reports: &mut Vec<Report>) -> Vec<Said> {
    let mut said = Vec::new();
    let is_relay = rule.disposition.as_ref().is_some_and(|d| d.kind.value == "relay");
    let conditions = conditions(&rule, is_relay, broken, reports);
    let action_name = Word { text: name.into(), quoted: true, span: rule.verb };
    let last = match rule.accepts {
        true => OptionLine {
            name: "action",
            word: verb(&rule, "action"),
            negated: false,
            arg: Arg::Word(action_name.clone()),
        },
        false => OptionLine { name: "reject", word: verb(&rule, "reject"), negated: false, arg: Arg::Nothing },
    };
    for mut options in conditions {
        options.0.push(last.clone());
        said.push(made("match", "match", Vec::new(), options, rule.span, broken));
    }
    if rule.accepts {
        said.insert(0, action(rule, action_name, broken, reports));
    } else if let Some(disposition) = &rule.disposition {
        let message = format!("`{}` has no effect", disposition.kind.value);
        reports.push(Report::new("W0810", disposition.span, message).help("the rule refuses"));
    }
    said
}

fn verb(rule: &OldRule, value: &'static str) -> At<&'static str> {
    At { value, span: rule.verb }
}

fn made(statement: &str, name: &str, head: Vec<Arg>, options: Options, span: Span, broken: bool) -> Said {
    Said { form: grammar::form(statement, name), head, options, span, rewritten: true, broken }
}

/// D3: who was local then is, today, local or authenticated: two lines. D8: what is meant without `for`.
fn conditions(rule: &OldRule, is_relay: bool, broken: bool, reports: &mut Vec<Report>) -> Vec<Options> {
    let mut options = rule.conditions.clone();
    if !options.has("for") && !options.0.is_empty() && !broken {
        let assumed = if is_relay || !rule.accepts { "any" } else { "local" };
        reports.push(Report::new("W0811", rule.verb, format!("`for {assumed}` is assumed")));
        options.0.push(one("for", assumed, rule.verb));
    }
    let local = match options.find("from") {
        None => true,
        Some(from) => matches!(&from.arg, Arg::One(line) if line.name == "local"),
    };
    if !local {
        return vec![options];
    }
    let negated = options.find("from").is_some_and(|from| from.negated);
    let place = options.find("from").map_or(rule.verb, |from| from.word.span);
    options.0.retain(|option| option.name != "from");
    let mut with_local = options.clone();
    with_local.0.push(OptionLine { negated, ..one("from", "local", place) });
    if negated {
        // Neither local nor authenticated: one line says both.
        let word = At { value: "auth", span: place };
        with_local.0.push(OptionLine { name: "auth", word, negated, arg: Arg::Nothing });
        return vec![with_local];
    }
    options.0.push(one("from", "auth", place));
    vec![with_local, options]
}

/// `NAME WHAT`, such as `from local`.
fn one(name: &'static str, what: &'static str, span: Span) -> OptionLine {
    let line = OptionLine { name: what, word: At { value: what, span }, negated: false, arg: Arg::Nothing };
    OptionLine { name, word: At { value: name, span }, negated: false, arg: Arg::One(Box::new(line)) }
}

/// D10–D23.
fn action(rule: OldRule, name: Word, broken: bool, reports: &mut Vec<Report>) -> Said {
    let OldRule { verb, mut action, disposition, span, .. } = rule;
    if disposition.is_none() && !broken {
        reports.push(Report::new("W0811", verb, "`deliver to mbox` is assumed"));
    }
    let Disposition { kind, argument, via, .. } = disposition.unwrap_or(Disposition {
        kind: At { value: "mbox", span: verb },
        argument: Arg::Nothing,
        via: None,
        span: verb,
    });
    if let Some(via) = via {
        relay_url(&via, kind.span, &mut action, reports);
    }
    if let Some(tls) = action.0.iter_mut().find(|option| option.name == "tls") {
        old_tls(tls);
    }
    let mut head = vec![Arg::Word(name), Arg::Key(kind)];
    if kind.value == "maildir" || !matches!(argument, Arg::Nothing) {
        head.push(argument);
    }
    made("action", kind.value, head, action, span, broken)
}

/// `backup [NAME]` as an option of `relay`.
pub(crate) fn backup(name: Arg) -> Arg {
    let mx = match name {
        Arg::Word(word) => {
            let at = At { value: "mx", span: word.span };
            vec![OptionLine { name: "mx", word: at, negated: false, arg: Arg::Word(word) }]
        }
        _ => Vec::new(),
    };
    Arg::With(Box::new(Arg::Nothing), Options(mx))
}

/// D22: `tls` was encryption alone; `verify` is what `tls` says today.
fn old_tls(option: &mut OptionLine) {
    let verifies = option.word.value == "verify" || matches!(option.arg, Arg::Key(_));
    option.arg = match verifies {
        true => Arg::Nothing,
        false => Arg::Key(At { value: "no-verify", span: option.word.span }),
    };
}

/// Schemes behind `via`, and what `host` calls them (grammar §5.3). With `+auth`, those that can carry a password.
const SCHEMES: [(&str, &str, bool); 8] = [
    ("smtp+tls", "smtp", false),
    ("smtp", "smtp+notls", false),
    ("tls", "smtp+tls", true),
    ("smtps", "smtps", true),
    ("ssl", "ssl", true),
    ("secure", "ssl", true),
    ("lmtp", "lmtp", false),
    ("backup", "", false),
];

/// `via URL` becomes `host URL′` or `backup mx M`.
fn relay_url(via: &Word, keyword: Span, action: &mut Options, reports: &mut Vec<Report>) {
    let (written, rest) = via.text.split_once("://").unwrap_or(("", &via.text));
    let (scheme, with_auth) = match written.strip_suffix("+auth") {
        Some(scheme) => (scheme, true),
        None => (written, false),
    };
    let known = match scheme {
        "" if written.is_empty() => Some(("smtp+tls", "smtp", false)),
        _ => SCHEMES.into_iter().find(|(old, _, can_auth)| *old == scheme && (*can_auth || !with_auth)),
    };
    let Some((_, today, _)) = known else {
        let auth = SCHEMES.iter().filter(|(_, _, can_auth)| *can_auth).map(|(old, ..)| format!("{old}+auth"));
        let right: Vec<String> = SCHEMES.iter().map(|(old, ..)| (*old).to_owned()).chain(auth).collect();
        let help = did_you_mean(written, right.iter().map(String::as_str));
        let report = Report::new("E0504", via.span, format!("unknown relay scheme `{written}`"));
        return reports.push(report.maybe_help(help));
    };
    if written == "smtp+tls" {
        let message = "`smtp+tls` after `via` is opportunistic; `tls://` guarantees encryption";
        reports.push(Report::new("W0805", via.span, message));
    }
    let word = |text: String| Word { text: text.into(), quoted: true, span: via.span };
    if scheme == "backup" {
        if !is_greeting_name(rest) {
            let message = format!("not an address, network or host: `{rest}`");
            return reports.push(Report::new("E0507", via.span, message));
        }
        let arg = backup(Arg::Word(word(rest.to_owned())));
        return action.0.push(OptionLine {
            name: "backup",
            word: At { value: "backup", span: via.span },
            negated: false,
            arg,
        });
    }
    let mut target = rest.to_owned();
    if with_auth {
        let label = match rest.rsplit_once('@') {
            Some((label, _)) => label.to_owned(),
            None => {
                let host = host_of(rest).to_owned();
                target = format!("{host}@{rest}");
                host
            }
        };
        if !action.has("auth") {
            let report = Report::new("E0606", via.span, format!("`{written}` needs `auth <table>`"));
            reports.push(report.help(format!("the table maps the label `{label}` to user:password")));
        }
    }
    let targ = Targ {
        what: TargKind::Word(word(format!("{today}://{target}"))),
        span: via.span,
        used: Use { service: ServiceKind::RelayHost, shape: Shape::List, called: None },
        keyword: At { value: "via", span: keyword },
    };
    let word = At { value: "via", span: via.span };
    action.0.push(OptionLine { name: "host", word, negated: false, arg: Arg::Targ(targ) });
}

/// Without the port.
fn host_of(text: &str) -> &str {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && !host.ends_with(':') => {
            host
        }
        _ => text,
    }
}

/// What can only be put in the words of today when all files are read: listeners with two kinds of TLS (D28), certificates that
/// are named and not declared (D21), limits that are shapes (§4.10).
pub(crate) fn finish(ast: &mut Ast, reports: &mut Vec<Report>, line_of: impl Fn(Span) -> usize) {
    let declared: HashSet<String> = ast
        .statements
        .iter()
        .filter(|said| said.form.statement == "pki")
        .filter_map(|said| said.word(0))
        .map(|word| word.text.to_string())
        .collect();
    let mut undeclared = Certificates { declared };
    let mut statements = Vec::with_capacity(ast.statements.len());
    for said in std::mem::take(&mut ast.statements) {
        match (said.form.statement, said.form.name) {
            ("listen", _) => {
                for said in listeners(said, reports) {
                    undeclared.declare(&said, &mut statements);
                    statements.push(said);
                }
            }
            ("action", "relay") => {
                undeclared.declare(&said, &mut statements);
                statements.push(said);
            }
            ("mta", "mta limit") => statements.push(shape(&said, line_of(said.span), reports)),
            _ => statements.push(said),
        }
    }
    ast.statements = statements;
}

/// D28: `secure` and `ssl` are two listeners.
fn listeners(mut said: Said, reports: &mut Vec<Report>) -> Vec<Said> {
    let Some(both) = said.options.0.iter().find(|o| matches!(o.name, "secure" | "ssl")).map(|o| o.word) else {
        return vec![said];
    };
    said.rewritten = true;
    reports.push(Report::new("W0804", both.span, "old spelling; now two lines, `tls` and `smtps`"));
    said.options.0.retain(|option| !matches!(option.name, "secure" | "ssl"));
    if let Some(port) = said.options.find("port") {
        let later = if port.word.span.start > both.span.start { port.word } else { both };
        let message = format!("`{}` and `port` exclude each other", both.value);
        reports.push(Report::new("E0602", later.span, message).help("both kinds of TLS would be on one port"));
        // What else would be wrong with two listeners there is a consequence.
        said.broken = true;
        return vec![said];
    }
    if !said.options.has("pki") {
        // What the listener was called named the certificate.
        let place = match said.value(0).or(said.head.last()) {
            Some(Arg::Word(word)) => word.text.clone(),
            Some(Arg::Key(key)) => key.value.into(),
            _ => "".into(),
        };
        let arg = Arg::Word(Word { text: place, quoted: true, span: both.span });
        said.options.0.push(OptionLine {
            name: "pki",
            word: At { value: "certificate", span: both.span },
            negated: false,
            arg,
        });
    }
    let with = |name: &'static str| {
        let mut said = said.clone();
        said.options.0.push(OptionLine { name, word: both, negated: false, arg: Arg::Nothing });
        said
    };
    vec![with("tls"), with("smtps")]
}

/// Names of certificates that stand for files.
struct Certificates {
    declared: HashSet<String>,
}

impl Certificates {
    /// D21: what `certificate N` names, if no `pki N` does.
    fn declare(&mut self, said: &Said, statements: &mut Vec<Said>) {
        for option in said.options.all("pki").filter(|option| option.word.value == "certificate") {
            let Arg::Word(name) = &option.arg else { continue };
            if !self.declared.insert(name.text.to_string()) {
                continue;
            }
            let file = |key: &'static str, ending: &str| OptionLine {
                name: key,
                word: option.word,
                negated: false,
                arg: Arg::Word(Word { text: format!("/etc/mail/certs/{}.{ending}", name.text).into(), ..name.clone() }),
            };
            let options = Options(vec![file("cert", "crt"), file("key", "key")]);
            statements.push(made("pki", "pki", vec![Arg::Word(name.clone())], options, said.span, false));
        }
    }
}

/// OpenSMTPD's limits of the MTA, and what a shape calls them. Where several become one, the smallest counts.
const SHAPES: [(&str, &str); 14] = [
    ("max-conn-per-host", "connections-per-host"),
    ("max-conn-per-source", "connections-per-source"),
    ("max-conn-per-route", "connections-per-source"),
    ("max-conn-per-connector", "connections-per-source"),
    ("max-conn-per-relay", "connections"),
    ("max-conn-per-domain", "connections"),
    ("max-mail-per-session", "messages-per-connection"),
    ("session-mail-max", "messages-per-connection"),
    ("conn-delay-host", "open-rate"),
    ("conn-delay-route", "open-rate"),
    ("conn-delay-source", "open-rate"),
    ("conn-delay-connector", "open-rate"),
    ("conn-delay-domain", "open-rate"),
    ("max-failures-per-session", "failures"),
];

/// `mta limit [for domain D] …` is `shaping … { … }`.
fn shape(said: &Said, line: usize, reports: &mut Vec<Report>) -> Said {
    let mut shape: Vec<OptionLine> = Vec::new();
    for option in &said.options.0 {
        let name = match option.name {
            "for" => continue,
            same @ ("inet4" | "inet6") => Some(same),
            "session-keepalive" => Some("idle"),
            old => SHAPES.iter().find(|(have, _)| *have == old).map(|(_, today)| *today),
        };
        let Some(name) = name else {
            let message = format!("`{}` has no effect", option.name);
            reports.push(Report::new("W0810", option.word.span, message));
            continue;
        };
        let Some(arg) = shape_value(name, &option.arg) else { continue };
        let new = OptionLine { name, word: option.word, negated: false, arg };
        match shape.iter_mut().find(|have| have.name == name) {
            Some(have) if weight(&new.arg) < weight(&have.arg) => *have = new,
            Some(_) => {}
            None => shape.push(new),
        }
    }
    let block = Arg::Block(Options(shape));
    let (form, head) = match said.options.word("for") {
        None => {
            let key = At { value: "default", span: said.span };
            (shaping_form("default"), vec![Arg::Key(key), block])
        }
        Some(domain) => {
            let name = Word { text: format!("line-{line}").into(), quoted: true, span: domain.span };
            let key = At { value: "domain", span: domain.span };
            let targ = Targ {
                what: TargKind::Word(domain.clone()),
                span: domain.span,
                used: Use { service: ServiceKind::Domain, shape: Shape::List, called: Some("for domain") },
                keyword: At { value: "for domain", span: domain.span },
            };
            (shaping_form("domain"), vec![Arg::Word(name), Arg::Key(key), Arg::Targ(targ), block])
        }
    };
    Said { form, head, options: Options::default(), rewritten: true, ..said.clone() }
}

fn shape_value(name: &str, arg: &Arg) -> Option<Arg> {
    match (name, arg) {
        // So long between two connections.
        ("open-rate", Arg::Duration(delay)) if delay.value.is_zero() => None,
        ("open-rate", Arg::Duration(delay)) => {
            Some(Arg::Rate(At { value: Rate { count: 1, per: delay.value }, span: delay.span }))
        }
        (_, arg) => Some(arg.clone()),
    }
}

/// For comparing two values of one kind: the smaller is the stricter.
fn weight(arg: &Arg) -> u128 {
    match arg {
        Arg::Count(at) => u128::from(at.value),
        Arg::Rate(at) => u128::MAX / at.value.per.as_millis().max(1),
        Arg::Duration(at) => at.value.as_millis(),
        _ => 0,
    }
}

/// The form of `shaping` with this keyword.
fn shaping_form(key: &str) -> &'static Form {
    use crate::parse::schema::Item;
    let has = |form: &&Form| form.head.iter().any(|item| matches!(item, Item::Key(name) if *name == key));
    grammar::forms_of("shaping").find(has).expect("the grammar has this form")
}

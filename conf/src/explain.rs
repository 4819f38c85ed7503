//! Why a recipient is treated as it is: every rule with what is known of its conditions, the tree of the expansion, who was
//! asked, what is done in the end. Made from the machine that the server runs, after it has run.

use std::fmt::{self, Display, Formatter};

use serde_json::{Value as Json, json};

use crate::describe;
use crate::expand::{Delivery, Expansion, Kind, Node, Outcome as Came, Passage, Question, Refusal, Told, Way, place};
use crate::facts::Lookup;
use crate::format::FormatValues;
use crate::model::{ActionKind, Outcome};
use crate::rules::{Dest, Negation, Origin, Test, Truth};

/// The story of one recipient.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The tree, in reading order.
    pub nodes: Vec<ExplainedNode>,
    /// Who was asked, and what he said; sorted.
    pub asked: Vec<(String, String)>,
    /// What is done in the end.
    pub outcome: Result<Vec<ExplainedDelivery>, Refusal>,
    /// What the log would say besides.
    pub notes: Vec<String>,
}

/// One node of the tree.
#[derive(Clone, Debug, PartialEq)]
pub struct ExplainedNode {
    /// How far below the recipient it stands.
    pub level: usize,
    /// The address, user, file or program.
    pub what: String,
    /// For an address: the rules up to the one that decides.
    pub rules: Vec<ExplainedRule>,
    /// What it comes to.
    pub comes_to: String,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct ExplainedRule {
    /// Its line.
    pub line: String,
    /// Of the whole rule.
    pub truth: Truth,
    /// Of each condition: how it is called, and what is known.
    pub conditions: Vec<(String, Truth)>,
    /// What follows, if it holds.
    pub then: String,
}

/// One delivery.
#[derive(Clone, Debug, PartialEq)]
pub struct ExplainedDelivery {
    /// Name of the action.
    pub action: String,
    /// What it does: where the route leads, or the kind of the mailbox.
    pub does: String,
    /// The address that it is for.
    pub address: String,
    /// The user whose rights it needs, as `name=uid:gid:home`.
    pub user: Option<String>,
    /// The file or the command, where an alias or a `.forward` names one.
    pub special: Option<String>,
}

impl Explanation {
    /// Of an expansion that is done.
    pub fn new(mut expansion: Expansion<'_>, outcome: Result<Vec<Delivery>, Refusal>) -> Self {
        let notes = expansion.take_notes();
        let nodes = expansion.nodes();
        let nodes = expansion.reading_order().into_iter().map(|at| ExplainedNode {
            level: level(nodes, at),
            what: nodes[at].kind.to_string(),
            rules: match &nodes[at].kind {
                Kind::Address(address) => rules(&expansion, at, address),
                _ => Vec::new(),
            },
            comes_to: comes_to(&expansion, &nodes[at]),
        });
        let nodes = nodes.collect();
        let mut asked: Vec<(String, String)> =
            expansion.told().map(|(question, told)| (question_text(&expansion, question), told_text(told))).collect();
        asked.sort_unstable();
        let outcome = outcome.map(|all| all.iter().map(|delivery| delivery_of(&expansion, delivery)).collect());
        Self { nodes, asked, outcome, notes }
    }

    /// As one JSON object.
    pub fn json(&self) -> String {
        let nodes = self.nodes.iter().map(|node| {
            let rules = node.rules.iter().map(|rule| {
                let conditions = rule.conditions.iter();
                let conditions: Vec<Json> =
                    conditions.map(|(name, truth)| json!({ "condition": name, "is": word(*truth) })).collect();
                json!({ "line": rule.line, "is": word(rule.truth), "conditions": conditions, "then": rule.then })
            });
            let rules: Vec<Json> = rules.collect();
            json!({ "level": node.level, "what": node.what, "rules": rules, "comes_to": node.comes_to })
        });
        let nodes: Vec<Json> = nodes.collect();
        let asked = self.asked.iter().map(|(question, answer)| json!({ "question": question, "answer": answer }));
        let asked: Vec<Json> = asked.collect();
        let outcome = match &self.outcome {
            Ok(deliveries) => {
                let all = deliveries.iter().map(|one| {
                    json!({
                        "action": one.action, "does": one.does, "address": one.address,
                        "user": one.user, "special": one.special,
                    })
                });
                json!({ "deliveries": all.collect::<Vec<Json>>() })
            }
            Err(refusal) => {
                json!({ "code": refusal.code(), "status": refusal.status(), "text": refusal.text() })
            }
        };
        json!({ "nodes": nodes, "asked": asked, "outcome": outcome, "notes": self.notes }).to_string()
    }
}

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for node in &self.nodes {
            let indent = "  ".repeat(node.level);
            writeln!(f, "{indent}{}", node.what)?;
            for rule in &node.rules {
                let mark = match rule.truth {
                    Truth::True => "matches",
                    Truth::False => "no",
                    Truth::Unknown | Truth::Pending => "unknown",
                };
                write!(f, "{indent}  {}: {mark}", rule.line)?;
                for (number, (name, truth)) in rule.conditions.iter().enumerate() {
                    let before = if number == 0 { " (" } else { ", " };
                    write!(f, "{before}{name}: {}", word(*truth))?;
                }
                write!(f, "{}", if rule.conditions.is_empty() { "" } else { ")" })?;
                match rule.truth {
                    Truth::True => writeln!(f, " -> {}", rule.then)?,
                    _ => writeln!(f)?,
                }
            }
            writeln!(f, "{indent}  => {}", node.comes_to)?;
        }
        for (question, answer) in &self.asked {
            writeln!(f, "asked {question}: {answer}")?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        match &self.outcome {
            Err(refusal) => writeln!(f, "refused: {} {} {}", refusal.code(), refusal.status(), refusal.text()),
            Ok(deliveries) => deliveries.iter().try_for_each(|one| writeln!(f, "delivery: {one}")),
        }
    }
}

impl Display for ExplainedDelivery {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "action \"{}\": ", self.action)?;
        match &self.special {
            Some(special) => write!(f, "{special}")?,
            None => write!(f, "{}", self.does)?,
        }
        if let Some(user) = &self.user {
            write!(f, " as {user}")?;
        }
        write!(f, " for <{}>", self.address)
    }
}

fn level(nodes: &[Node], at: usize) -> usize {
    std::iter::successors(nodes[at].parent, |of| nodes[*of].parent).count()
}

/// The rules as the machine has weighed them, up to the one that it stopped at.
fn rules(expansion: &Expansion<'_>, at: usize, address: &str) -> Vec<ExplainedRule> {
    let mut explained = Vec::new();
    for line in &expansion.config().matches {
        let weighed = expansion.weigh(at, address, line);
        let mut conditions = Vec::new();
        if !matches!(line.from, (Negation::Plain, Origin::Any)) {
            conditions.push((named(line.from.0, origin(&line.from.1)), weighed.from));
        }
        if !matches!(line.dest, (Negation::Plain, Dest::Any)) {
            conditions.push((named(line.dest.0, destination(&line.dest.1)), weighed.dest));
        }
        let further = line.conditions.iter().zip(&weighed.conditions);
        conditions.extend(further.map(|(one, truth)| (named(one.negation, test(&one.test)), *truth)));
        let then = match &line.outcome {
            Outcome::Action(action) => format!("action \"{}\"", expansion.config().actions[*action].name),
            Outcome::Reject(reply) => format!("reject \"{} {} {}\"", reply.code, reply.status, reply.text),
        };
        explained.push(ExplainedRule { line: line.line.to_string(), truth: weighed.line, conditions, then });
        if weighed.line != Truth::False {
            break;
        }
    }
    explained
}

fn named(negation: Negation, name: &str) -> String {
    match negation {
        Negation::Plain => name.to_owned(),
        Negation::Negated => format!("!{name}"),
    }
}

fn origin(from: &Origin) -> &'static str {
    match from {
        Origin::Any => "from any",
        Origin::Local => "from local",
        Origin::Socket => "from socket",
        Origin::Source(_) => "from src",
        Origin::ReverseName(_) => "from rdns",
        Origin::Authenticated(_) => "from auth",
        Origin::Sender(_) => "from mail-from",
        Origin::Certificate(_) => "from cert",
    }
}

fn destination(dest: &Dest) -> &'static str {
    match dest {
        Dest::Any => "for any",
        Dest::Local => "for local",
        Dest::Domain(_) => "for domain",
        Dest::Recipient(_) => "for rcpt-to",
    }
}

fn test(test: &Test) -> &'static str {
    match test {
        Test::Helo(_) => "helo",
        Test::Sender(_) => "mail-from",
        Test::Recipient(_) => "rcpt-to",
        Test::Tag(_) => "tag",
        Test::Tls => "tls",
        Test::Authenticated(_) => "auth",
        Test::Certificate(_) => "cert",
    }
}

fn word(truth: Truth) -> &'static str {
    match truth {
        Truth::True => "true",
        Truth::False => "false",
        // What nobody waited for decided nothing.
        Truth::Unknown | Truth::Pending => "unknown",
    }
}

fn comes_to(expansion: &Expansion<'_>, node: &Node) -> String {
    let action = |at: usize| &expansion.config().actions[at].name;
    match &node.outcome {
        Some(Came::Becomes { action: by, step: Passage::Rule, .. }) => format!("a user of action \"{}\"", action(*by)),
        Some(Came::Becomes { kinds, step: Passage::List(list), .. }) => {
            let all: Vec<String> = kinds.iter().map(ToString::to_string).collect();
            format!("{list}: {}", if all.is_empty() { "nobody".to_owned() } else { all.join(", ") })
        }
        Some(Came::Delivery(delivery)) => format!("delivery: {}", delivery_of(expansion, delivery)),
        Some(Came::Refused(refusal, _)) => {
            format!("refused: {} {} {}", refusal.code(), refusal.status(), refusal.text())
        }
        Some(Came::Repeats(first)) => format!("dropped: it is {} again", expansion.nodes()[*first].kind),
        None => "not looked at".to_owned(),
    }
}

fn delivery_of(expansion: &Expansion<'_>, delivery: &Delivery) -> ExplainedDelivery {
    let action = &expansion.config().actions[delivery.action];
    let written = match &delivery.way {
        Way::Address | Way::User(_) => match &action.kind {
            ActionKind::Relay(relay) => describe::relay(relay, expansion, &delivery.address),
            _ => action.describe(),
        },
        Way::File { path, .. } => format!("file {}", path.as_written()),
        Way::Pipe { command, .. } => format!("program {command}"),
    };
    // Message and envelope have no ids yet.
    let values = FormatValues { message_id: "MSGID", envelope_id: "EVPID", ..expansion.format_values() };
    let place = match place(delivery, expansion.config(), values) {
        Ok(place) => place.unwrap_or(written),
        Err(error) => format!("{written} (waits until it is mended: {error})"),
    };
    let is_special = matches!(delivery.way, Way::File { .. } | Way::Pipe { .. });
    let (does, special) = if is_special { (action.describe(), Some(place)) } else { (place, None) };
    ExplainedDelivery {
        action: action.name.clone(),
        does,
        address: delivery.address.clone(),
        user: delivery.way.user().map(ToString::to_string),
        special,
    }
}

fn question_text(expansion: &Expansion<'_>, question: &Question) -> String {
    match question {
        Question::Lookup(Lookup::Table { table, service, key }) => {
            format!("table <{}> for {service} `{key}`", expansion.config().table_name(*table))
        }
        Question::Lookup(Lookup::ReverseName) => "the DNS for the client's name".to_owned(),
        Question::User(name) => format!("the system for user `{name}`"),
        Question::Forward(user) => format!("{}/.forward", user.home),
        Question::Include { path, .. } => format!(":include:{}", path.display()),
    }
}

fn told_text(told: &Told) -> String {
    match told {
        Told::Found(text) => format!("found: {}", text.trim_end().replace('\n', ", ")),
        Told::NotFound => "not found".to_owned(),
        Told::Unsafe(why) => format!("not safe: {why}"),
        Told::Failed(why) => format!("unknown: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::expand::{Outlines, Step};
    use crate::facts::Facts;
    use crate::{Memory, Options, load};

    /// The last line's rule and an earlier one that does not hold, from a file.
    #[test]
    fn s04_the_deciding_line_is_named_and_why_earlier_ones_are_not() {
        let text = "listen on lo0\naction \"out\" relay\naction \"all\" discard\n\
                    match from local for any action \"out\"\n\
                    match from any mail-from \"@a.example\" for domain b.example action \"all\"\n";
        let (config, _) = load(&Memory::default().with("r.conf", text), Path::new("r.conf"), &Options::default())
            .unwrap_or_else(|reports| panic!("{reports:?}"));
        let outlines = Outlines::new(&config);
        let facts = Facts {
            source: Some([192, 0, 2, 1].into()),
            sender: "x@a.example",
            recipient: "u@b.example",
            ..Facts::default()
        };
        let mut expansion = Expansion::new(&config, &outlines, facts);
        let Step::Done(outcome) = expansion.step() else { panic!("nothing is remote") };
        let explanation = Explanation::new(expansion, outcome);
        let expected = "\
<u@b.example>
  r.conf:4: no (from local: false)
  r.conf:5: matches (for domain: true, mail-from: true) -> action \"all\"
  => delivery: action \"all\": discard for <u@b.example>
delivery: action \"all\": discard for <u@b.example>
";
        assert_eq!(explanation.to_string(), expected);
        let json: Json = serde_json::from_str(&explanation.json()).unwrap();
        assert_eq!(json["nodes"][0]["rules"][0]["conditions"][0]["is"], "false");
        assert_eq!(json["outcome"]["deliveries"][0]["action"], "all");
        // Nobody takes the other one, and that is said.
        let facts = Facts { sender: "x@c.example", ..facts };
        let mut expansion = Expansion::new(&config, &outlines, facts);
        let Step::Done(outcome) = expansion.step() else { panic!("nothing is remote") };
        let text = Explanation::new(expansion, outcome).to_string();
        assert!(text.contains("r.conf:5: no (for domain: true, mail-from: false)"), "{text}");
        assert!(text.ends_with("refused: 550 5.1.1 no such recipient here\n"), "{text}");
    }
}

//! A configuration made of a few words, the world that answers for it, and outcomes as texts.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::super::*;
use crate::facts::Lookup;
use crate::model::*;
use crate::rules::{Among, Dest, Negation, Origin};
use crate::tables::{AliasTarget, DomainSet, Mapped, UserRecord, Value};

/// A configuration, and the world that answers.
pub(super) struct Setup {
    pub(super) config: Config,
    /// Answers by question, as [`key`] writes it.
    answers: HashMap<String, Told>,
}

/// `alias KEY`, `user NAME`, `forward NAME`, `include PATH`: as the tables below name questions.
pub(super) fn key(config: &Config, question: &Question) -> String {
    match question {
        Question::Lookup(Lookup::Table { table, service, key }) => {
            format!("{} {service} {key}", config.table_name(*table))
        }
        Question::Lookup(Lookup::ReverseName) => "rdns".to_owned(),
        Question::User(name) => format!("user {name}"),
        Question::Forward(user) => format!("forward {}", user.name),
        Question::Include { path, user: None } => format!("include {}", path.display()),
        Question::Include { path, user: Some(user) } => format!("include {} as {}", path.display(), user.name),
    }
}

pub(super) fn aliases(text: &str) -> Keyed<Vec<AliasTarget>> {
    let mut map = Mapped::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (key, values) = line.split_once(": ").expect("KEY: VALUES");
        map.insert(key, lines::targets(values).expect("good values"));
    }
    Keyed::Memory(Arc::new(map))
}

pub(super) fn domains(names: &[&str]) -> Dest {
    let mut set = DomainSet::default();
    names.iter().for_each(|name| assert!(set.insert(name)));
    Dest::Domain(Among::Table(Arc::new(set)))
}

pub(super) fn relay() -> ActionKind {
    ActionKind::Relay(Box::default())
}

pub(super) fn maildir(path: &str) -> ActionKind {
    ActionKind::Maildir(Maildir { path: Format::parse(path).unwrap(), junk: false })
}

impl Setup {
    pub(super) fn new() -> Self {
        let mut config = Config::quickstart(Path::new("/s"), &Quickstart::default());
        (config.actions, config.matches) = (Vec::new(), Vec::new());
        let mut setup = Self { config, answers: HashMap::new() };
        for (number, name) in ["root", "gilles", "eric", "chl"].into_iter().enumerate() {
            let record = format!("{name}:{}:100:/home/{name}", if name == "root" { 0 } else { 1000 + number });
            setup.answers.insert(format!("user {name}"), Told::Found(record));
        }
        setup
    }

    /// An action, and a rule from anywhere to it.
    pub(super) fn rule(mut self, name: &str, dest: Dest, kind: ActionKind) -> Self {
        let number = self.config.actions.len();
        self.config.actions.push(Action {
            name: name.to_owned(),
            kind,
            mapping: None,
            local: LocalOptions::default(),
            feedback: false,
            ttl: crate::limits::QUEUE_TTL,
            line: Line::built_in(),
        });
        let plain = Negation::Plain;
        let mut rule = Match::everything(number, Line::built_in());
        (rule.from, rule.dest) = ((plain, Origin::Any), (plain, dest));
        self.config.matches.push(rule);
        self
    }

    /// Changes the action that was declared last.
    pub(super) fn with(mut self, change: impl FnOnce(&mut Action)) -> Self {
        change(self.config.actions.last_mut().expect("an action"));
        self
    }

    pub(super) fn alias(self, text: &str) -> Self {
        let table = aliases(text);
        self.with(|action| action.mapping = Some(Mapping::Alias(table)))
    }

    pub(super) fn virtual_(self, text: &str) -> Self {
        let table = aliases(text);
        self.with(|action| action.mapping = Some(Mapping::Virtual(table)))
    }

    pub(super) fn userbase(self, text: &str) -> Self {
        let mut map = Mapped::default();
        for (name, record) in text.lines().filter_map(|line| line.trim().split_once(": ")) {
            map.insert(name, UserRecord::parse(record).expect("a record"));
        }
        self.with(|action| action.local.userbase = Some(Keyed::Memory(Arc::new(map))))
    }

    /// The rule that was declared last is for local sources alone.
    pub(super) fn for_local_sources(mut self) -> Self {
        self.config.matches.last_mut().expect("a rule").from.1 = Origin::Local;
        self
    }

    pub(super) fn table(mut self, name: &str) -> Self {
        self.config.tables.push(Table {
            name: name.to_owned(),
            backend: Backend::Redis { path: "/r".into() },
            options: TableOptions::default(),
            services: Vec::new(),
            memory: Default::default(),
            line: Line::built_in(),
            statement: String::new(),
        });
        self
    }

    pub(super) fn says(mut self, question: &str, told: Told) -> Self {
        self.answers.insert(question.to_owned(), told);
        self
    }

    pub(super) fn forward(self, user: &str, text: &str) -> Self {
        self.says(&format!("forward {user}"), Told::Found(text.to_owned()))
    }

    pub(super) fn facts<'a>(&self, recipient: &'a str) -> Facts<'a> {
        Facts { source: Some([192, 0, 2, 9].into()), sender: "s@x.org", recipient, ..Facts::default() }
    }

    pub(super) fn answer(&self, question: &Question) -> Told {
        self.answers.get(&key(&self.config, question)).cloned().unwrap_or(Told::NotFound)
    }

    /// What comes of a recipient, and what was noted.
    pub(super) fn noted(&self, recipient: &str) -> (String, Vec<String>) {
        let outlines = Outlines::new(&self.config);
        let mut expansion = Expansion::new(&self.config, &outlines, self.facts(recipient));
        for _ in 0..100 {
            match expansion.step() {
                Step::Needs(needs) => {
                    assert!(!needs.is_empty());
                    needs.iter().for_each(|question| expansion.tell(question.clone(), self.answer(question)));
                }
                Step::Done(outcome) => {
                    assert_eq!(expansion.step(), Step::Done(outcome.clone()), "it stays so");
                    return (self.shown(&outcome), expansion.take_notes());
                }
            }
        }
        panic!("{recipient}: no end of questions");
    }

    pub(super) fn shown(&self, outcome: &Result<Vec<Delivery>, Refusal>) -> String {
        match outcome {
            Err(refusal) => format!("{} {}", refusal.code(), refusal.status()),
            Ok(all) => all.iter().map(|delivery| self.one(delivery)).collect::<Vec<_>>().join(", "),
        }
    }

    pub(super) fn one(&self, delivery: &Delivery) -> String {
        let name = &self.config.actions[delivery.action].name;
        let by = |user: &Option<User>| user.as_ref().map_or("daemon", |user| &user.name).to_owned();
        match &delivery.way {
            Way::Address => format!("{name} <{}>", delivery.address),
            Way::User(user) => format!("{name} {}", user.name),
            Way::File { user, path } => format!("{} by {}", path.as_written(), by(user)),
            Way::Pipe { user, command } => format!("|{command} by {}", by(user)),
        }
    }

    #[track_caller]
    pub(super) fn check(&self, cases: &[(&str, &str)]) {
        for (recipient, expected) in cases {
            assert_eq!(self.noted(recipient).0, *expected, "{recipient}");
        }
    }
}

//! Expansion: what a recipient becomes before anything is delivered (grammar §6.2). Aliases, virtual domains, users, `.forward`,
//! included lists; and the rules once more for every address that comes out of them.
//!
//! A pure machine. [`Expansion::step`] goes as far as it can and says what it needs; [`Expansion::tell`] gives it answers, in any
//! order; in the end there are deliveries, all of them, or one refusal. It works breadth first, a generation at a time, and
//! a generation is judged only when all of it is known: so neither the order of answers nor their speed changes the outcome.
//! Recipients whose action needs none of this ([`crate::Action::is_plain`]) never come here.

mod address;
mod delivery;
mod lines;
mod node;
mod outline;
mod place;
mod question;
mod refusal;
mod user;

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Component, Path};

pub use delivery::{Delivery, Identity, User, Way};
pub(crate) use lines::targets as read_targets;
pub use outline::Outlines;
pub use question::{Question, Told};
pub use refusal::Refusal;

pub(crate) use node::{Kind, Needs, Node, Outcome, Step as Passage};
pub(crate) use place::place;

use crate::direction::Direction;
use crate::facts::{Facts, Lookup, ReverseName};
use crate::format::{Format, FormatValues};
use crate::limits::EXPANSION_NODES_MAX;
use crate::model::{ActionKind, Config, Pool, TableId};
use crate::tables::{Answer, ServiceKind};

/// The expansion of one recipient.
#[derive(Debug)]
pub struct Expansion<'c> {
    config: &'c Config,
    outlines: &'c Outlines,
    facts: Facts<'c>,
    nodes: Vec<Node>,
    /// The generation that is worked at.
    generation: Range<usize>,
    told: HashMap<Question, Told>,
    notes: Vec<String>,
}

/// How far an expansion has come.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// These must be answered first. All of them may be asked at once; none is answered yet.
    Needs(Vec<Question>),
    /// All is known.
    Done(Result<Vec<Delivery>, Refusal>),
}

impl<'c> Expansion<'c> {
    /// Of `facts.recipient`. `outlines` are those of `config`.
    pub fn new(config: &'c Config, outlines: &'c Outlines, facts: Facts<'c>) -> Self {
        let kind = Kind::Address(facts.recipient.to_owned());
        let root = Node { parent: None, depth: 0, address: 0, kind, outcome: None };
        let (told, notes) = (HashMap::new(), Vec::new());
        Self { config, outlines, facts, nodes: vec![root], generation: 0..1, told, notes }
    }

    /// Takes an answer. An answer to what was not asked does no harm, nor does a second one: the first counts.
    pub fn tell(&mut self, question: Question, told: Told) {
        self.told.entry(question).or_insert(told);
    }

    /// Goes on as far as possible. When it is done, every further call says the same.
    pub fn step(&mut self) -> Step {
        loop {
            let needs = self.work();
            if !needs.is_empty() {
                return Step::Needs(needs);
            }
            if let Some(refusal) = self.refusal() {
                return Step::Done(Err(refusal));
            }
            let next = self.next_generation();
            if next.is_empty() {
                return Step::Done(self.deliveries());
            }
            let room = self.config.smtp.expansion_nodes_max.min(EXPANSION_NODES_MAX) as usize;
            let deepest = next.iter().map(|node| node.depth).max().unwrap_or(0);
            if self.nodes.len() + next.len() > room || deepest > self.config.smtp.expansion_depth_max {
                self.note(format!("<{}> stands for more than is allowed (smtp limit)", self.facts.recipient));
                return Step::Done(Err(Refusal::TooMuch));
            }
            self.generation = self.nodes.len()..self.nodes.len() + next.len();
            self.nodes.extend(next);
        }
    }

    /// How many nodes there are so far: a measure of the work that was done.
    pub fn size(&self) -> usize {
        self.nodes.len()
    }

    /// What an administrator should know about it, a line each; so far, and each once.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Values for the formats of a delivery, as far as they are known before there is a message.
    pub fn format_values(&self) -> FormatValues<'c> {
        FormatValues {
            sender: self.facts.sender,
            recipient: self.facts.recipient,
            destination: self.facts.recipient,
            tag: self.facts.tag,
            delimiter: self.config.smtp.sub_address_delimiter,
            ..FormatValues::default()
        }
    }

    /// Works at this generation; what is missing, each once. Nothing is settled before nothing is missing: what one node has
    /// asked for may be seen by another.
    fn work(&mut self) -> Vec<Question> {
        let mut needs: Vec<Question> = Vec::new();
        let mut outcomes = Vec::with_capacity(self.generation.len());
        for at in self.generation.clone() {
            match self.outcome_of(at) {
                Ok(outcome) => outcomes.push(outcome),
                Err(Needs(missing)) => {
                    for question in missing {
                        if !needs.contains(&question) {
                            needs.push(question);
                        }
                    }
                }
            }
        }
        if !needs.is_empty() {
            return needs;
        }
        for (at, outcome) in self.generation.clone().zip(outcomes) {
            if let Outcome::Refused(_, Some(note)) = &outcome {
                self.note(note.clone());
            }
            self.nodes[at].outcome = Some(outcome);
        }
        needs
    }

    fn outcome_of(&self, at: usize) -> Result<Outcome, Needs> {
        match &self.nodes[at].kind {
            Kind::Address(address) => self.address(at, address),
            Kind::Relayed { address, action } => Ok(self.relayed(address, *action)),
            Kind::User { name, action, reach } => self.user(at, name, *action, *reach),
            Kind::File { path, action, user } => {
                Ok(self.elsewhere(at, *action, Way::File { user: user.clone(), path: path.clone() }))
            }
            Kind::Pipe { command, action, user } => {
                Ok(self.elsewhere(at, *action, Way::Pipe { user: user.clone(), command: command.clone() }))
            }
            Kind::Include { path, action, user } => self.include(at, path, *action, user.as_ref()),
            Kind::Error(reply) => Ok(Outcome::Refused(Refusal::Given(reply.clone()), None)),
        }
    }

    /// One branch that is refused refuses the recipient; else one that is unknown keeps it waiting (*all or nothing*).
    fn refusal(&self) -> Option<Refusal> {
        let refused = || {
            self.nodes[self.generation.clone()].iter().filter_map(|node| match &node.outcome {
                Some(Outcome::Refused(refusal, _)) => Some(refusal),
                _ => None,
            })
        };
        refused().find(|refusal| refusal.is_decided()).or_else(|| refused().next()).cloned()
    }

    /// The children of this generation, in the order of their parents.
    fn next_generation(&self) -> Vec<Node> {
        let mut next = Vec::new();
        for at in self.generation.clone() {
            let node = &self.nodes[at];
            let Some(Outcome::Becomes { kinds, step, .. }) = &node.outcome else { continue };
            let depth = node.depth + u32::from(matches!(step, Passage::List(_)));
            for kind in kinds {
                let number = self.nodes.len() + next.len();
                let address = if matches!(kind, Kind::Address(_)) { number } else { node.address };
                next.push(Node { parent: Some(at), depth, address, kind: kind.clone(), outcome: None });
            }
        }
        next
    }

    fn deliveries(&mut self) -> Result<Vec<Delivery>, Refusal> {
        let values = self.format_values();
        let (mut seen, mut all) = (HashSet::new(), Vec::new());
        for at in self.reading_order() {
            if let Some(Outcome::Delivery(delivery)) = &self.nodes[at].outcome {
                let Delivery { action, address, way } = &**delivery;
                let identity = Identity::of(*action, address, way, self.config, &values);
                if seen.insert((self.outlines.canonical(*action), identity)) {
                    all.push((**delivery).clone());
                }
            }
        }
        if !all.is_empty() {
            return Ok(all);
        }
        let (refusal, note) = match self.nodes.iter().position(|node| matches!(node.outcome, Some(Outcome::Repeats(_))))
        {
            Some(at) => (Refusal::Loop, format!("loop in aliases: {}", self.cycle(at))),
            None => (Refusal::BadList, format!("<{}> stands for an empty list", self.facts.recipient)),
        };
        self.note(note);
        Err(refusal)
    }

    /// The nodes in the order of the tables: each, and what it stands for, before the next.
    pub(crate) fn reading_order(&self) -> Vec<usize> {
        let mut children: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for (at, node) in self.nodes.iter().enumerate().rev() {
            if let Some(parent) = node.parent {
                children[parent].push(at);
            }
        }
        let (mut order, mut next) = (Vec::with_capacity(self.nodes.len()), vec![0]);
        while let Some(at) = next.pop() {
            order.push(at);
            next.append(&mut children[at]);
        }
        order
    }

    /// `a -> b -> a`, from the ancestor that a node repeats to the node.
    fn cycle(&self, at: usize) -> String {
        let first = match self.nodes[at].outcome {
            Some(Outcome::Repeats(first)) => first,
            _ => 0,
        };
        let mut path: Vec<String> = self.ancestors(at).take_while(|of| *of >= first).map(|of| self.named(of)).collect();
        path.reverse();
        path.push(self.named(at));
        path.join(" -> ")
    }

    fn named(&self, at: usize) -> String {
        self.nodes[at].kind.to_string()
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// From the parent upwards.
    fn ancestors(&self, at: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(self.nodes[at].parent, |of| self.nodes[*of].parent)
    }

    /// The facts for a node: what comes out of an expansion is this host's own, whoever has sent it.
    fn facts_of<'a>(&'a self, at: usize, address: &'a str) -> Facts<'a> {
        let reverse_name = match self.told.get(&Question::Lookup(Lookup::ReverseName)) {
            None => self.facts.reverse_name,
            Some(Told::Found(name)) => ReverseName::Known(name),
            Some(Told::NotFound) => ReverseName::None,
            Some(Told::Unsafe(_) | Told::Failed(_)) => ReverseName::Failed,
        };
        let facts = Facts { reverse_name, recipient: address, ..self.facts };
        if at == 0 { facts } else { Facts { source: None, local: true, ..facts } }
    }

    /// What is known of a condition's question.
    fn look(&self, table: TableId, service: ServiceKind, key: &str) -> Answer<()> {
        match self.told.get(&Question::Lookup(Lookup::Table { table, service, key: key.to_owned() })) {
            None => Answer::Pending,
            Some(Told::Found(_)) => Answer::Found(()),
            Some(Told::NotFound) => Answer::NotFound,
            Some(Told::Unsafe(_) | Told::Failed(_)) => Answer::Failed,
        }
    }

    /// What is known; else it is needed.
    fn ask(&self, question: Question) -> Result<&Told, Needs> {
        self.told.get(&question).ok_or_else(|| question.into())
    }

    /// What must be asked besides to tell where these deliveries of relays go, and from where; for `ringpost explain`. Tell
    /// the answers, and ask again: names of source addresses are asked for when the addresses are known.
    pub fn directions(&self, deliveries: &[Delivery]) -> Vec<Question> {
        let told = |lookup: &Lookup| self.answer(&Question::Lookup(lookup.clone())).cloned();
        let mut questions = Vec::new();
        for delivery in deliveries {
            let ActionKind::Relay(relay) = &self.config.actions[delivery.action].kind else { continue };
            let domain = Direction::domain_of(&delivery.address);
            questions.extend(relay.questions(&domain));
            if let Ok(direction) = relay.direction(self.config, &domain, &told) {
                questions.extend(direction.sources.iter().filter_map(|source| relay.name_question(*source)));
            }
        }
        let mut open: Vec<Question> = Vec::new();
        for question in questions.into_iter().map(Question::Lookup) {
            if self.answer(&question).is_none() && !open.contains(&question) {
                open.push(question);
            }
        }
        open
    }

    pub(crate) fn answer(&self, question: &Question) -> Option<&Told> {
        self.told.get(question)
    }

    pub(crate) fn told(&self) -> impl Iterator<Item = (&Question, &Told)> {
        self.told.iter()
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(crate) fn config(&self) -> &'c Config {
        self.config
    }

    pub(crate) fn weigh(&self, at: usize, address: &str, line: &crate::model::Match) -> crate::rules::Weighed {
        let facts = self.facts_of(at, address);
        self.config
            .weigh(line, &facts, &mut |table: TableId, service: ServiceKind, key: &str| self.look(table, service, key))
    }
}

impl Config {
    /// An absolute path of a table or a user's record, as this machine has it: below `--root`, and not out of it again.
    pub fn below_root(&self, path: &str) -> String {
        let Some(root) = &self.root else { return path.to_owned() };
        let inside = Path::new(path).components().filter(|part| matches!(part, Component::Normal(_)));
        inside.fold(root.clone(), |below, part| below.join(part)).to_string_lossy().into_owned()
    }

    /// The same for a path with formats. What is filled in cannot climb (grammar §8).
    pub fn format_below_root(&self, path: &Format) -> Format {
        match &self.root {
            Some(root) => path.clone().below(&root.to_string_lossy()),
            None => path.clone(),
        }
    }

    /// The pool of this name.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// The name of a table.
    pub fn table_name(&self, id: TableId) -> &str {
        self.tables.get(id.0 as usize).map_or("", |table| &table.name)
    }
}

#[cfg(test)]
mod tests;

//! Address nodes: the rules, and the tables of the action that they choose.

use ringpost_address::{Mailbox, split_address};

use super::node::{Reach, is_same_address, user_name};
use super::{Delivery, Expansion, Kind, Needs, Outcome, Passage, Question, Refusal, Told, User, Way, lines};
use crate::facts::{Decision, Lookup};
use crate::model::{Action, ActionKind, Keyed, Mapping, Reply, TableId};
use crate::srs::Origin;
use crate::tables::{AliasTarget, Answer, Keys, ServiceKind};

/// In `virtual` of a relay action: the recipient is good, and is relayed as it is.
const RELAY_UNCHANGED: &str = "relay";

impl Expansion<'_> {
    pub(super) fn address(&self, at: usize, address: &str) -> Result<Outcome, Needs> {
        let facts = self.facts_of(at, address);
        let decision = self
            .config
            .decide_with(&facts, &mut |table: TableId, service: ServiceKind, key: &str| self.look(table, service, key));
        let action = match decision {
            Decision::Action(action) => action,
            Decision::Reject { code, status, text } => {
                let reply = Reply { code, status: status.to_owned(), text: text.to_owned() };
                return Ok(Outcome::Refused(Refusal::Given(reply), None));
            }
            Decision::NoMatch { domain_is_known: true } => return Ok(Outcome::Refused(Refusal::NoSuchRecipient, None)),
            Decision::NoMatch { domain_is_known: false } => return Ok(Outcome::Refused(Refusal::NotHere, None)),
            Decision::Unknown => return Ok(Outcome::Refused(Refusal::LookupFailed, self.failures())),
            Decision::Needs(lookups) => return Err(Needs(lookups.into_iter().map(Question::Lookup).collect())),
        };
        if let Some(first) = self.repeated_address(at, action) {
            return Ok(Outcome::Repeats(first));
        }
        match self.config.srs.origin(address, facts.now_ms) {
            Origin::Itself => {}
            Origin::Sender(sender) => {
                return Ok(Outcome::Becomes { action, kinds: vec![Kind::Address(sender)], step: Passage::List("srs") });
            }
            Origin::Refused(why) => {
                let note = format!("<{address}>: {why} (srs)");
                return Ok(Outcome::Refused(Refusal::NoSuchRecipient, Some(note)));
            }
        }
        let chosen = &self.config.actions[action];
        match (&chosen.kind, &chosen.mapping) {
            (ActionKind::Discard, _) | (ActionKind::Relay(_), None) => Ok(self.relayed(address, action)),
            (ActionKind::Relay(_), Some(mapping)) => self.relay_by_table(address, action, mapping),
            (_, Some(Mapping::Virtual(table))) => Ok(match self.aliases(table, address)? {
                Answer::Found(targets) => self.becomes(&targets, action, "virtual"),
                Answer::NotFound => Outcome::Refused(Refusal::NoSuchRecipient, None),
                Answer::Failed | Answer::Pending => Outcome::Refused(Refusal::LookupFailed, self.failures()),
            }),
            (_, None | Some(Mapping::Alias(_))) => {
                let (local, _) = split_address(address).unwrap_or((address, ""));
                let user = Kind::User { name: user_name(local), action, reach: Reach::Anything };
                Ok(Outcome::Becomes { action, kinds: vec![user], step: Passage::Rule })
            }
        }
    }

    /// The action with the address alone.
    pub(super) fn relayed(&self, address: &str, action: usize) -> Outcome {
        Outcome::Delivery(Box::new(Delivery { action, address: address.to_owned(), way: Way::Address }))
    }

    /// `alias` and `virtual` on `relay` (grammar §4.4): with `virtual`, who is not in the table does not exist.
    fn relay_by_table(&self, address: &str, action: usize, mapping: &Mapping) -> Result<Outcome, Needs> {
        let (local, domain) = split_address(address).unwrap_or((address, ""));
        let (table, key, absent) = match mapping {
            Mapping::Alias(table) => (table, local, None),
            Mapping::Virtual(table) => (table, address, Some(Refusal::NoSuchRecipient)),
        };
        let targets = match (self.aliases(table, key)?, absent) {
            (Answer::Found(targets), _) => targets,
            (Answer::NotFound, None) => return Ok(self.relayed(address, action)),
            (Answer::NotFound, Some(refusal)) => return Ok(Outcome::Refused(refusal, None)),
            (Answer::Failed | Answer::Pending, _) => {
                return Ok(Outcome::Refused(Refusal::LookupFailed, self.failures()));
            }
        };
        let unchanged = || Kind::Relayed { address: address.to_owned(), action };
        let mut kinds = Vec::with_capacity(targets.len());
        for target in &targets {
            kinds.push(match target {
                AliasTarget::User(word) if word.eq_ignore_ascii_case(RELAY_UNCHANGED) && is_virtual(mapping) => {
                    unchanged()
                }
                // Here is no user but at the domain that the mail is for.
                AliasTarget::User(user) | AliasTarget::Mailbox(user) => {
                    let whole = format!("{user}@{domain}");
                    let final_word = matches!(target, AliasTarget::Mailbox(_));
                    match Mailbox::parse(&whole) {
                        Ok(_) if is_same_address(&whole, address) => unchanged(),
                        Ok(_) if final_word => Kind::Relayed { address: whole, action },
                        Ok(_) => Kind::Address(whole),
                        Err(_) => {
                            let note = format!("`{user}` in an alias of <{address}> is no local part of an address");
                            return Ok(Outcome::Refused(Refusal::LookupFailed, Some(note)));
                        }
                    }
                }
                AliasTarget::Address(other) if is_same_address(other, address) => unchanged(),
                other => self.kind_of(other, action, None),
            });
        }
        Ok(Outcome::Becomes { action, kinds, step: Passage::List(mapping_name(mapping)) })
    }

    /// The values of an entry of the action's table.
    pub(super) fn becomes(&self, targets: &[AliasTarget], action: usize, list: &'static str) -> Outcome {
        let kinds = targets.iter().map(|target| self.kind_of(target, action, None)).collect();
        Outcome::Becomes { action, kinds, step: Passage::List(list) }
    }

    /// What an entry of a table, a line of a `.forward` or of a list stands for. `owner`: whose file it is, if it is a user's.
    pub(super) fn kind_of(&self, target: &AliasTarget, action: usize, owner: Option<&User>) -> Kind {
        let user = || owner.cloned();
        match target {
            AliasTarget::User(name) => Kind::User { name: user_name(name), action, reach: Reach::Anything },
            AliasTarget::Mailbox(name) => Kind::User { name: user_name(name), action, reach: Reach::Mailbox },
            AliasTarget::Address(address) => Kind::Address(address.clone()),
            AliasTarget::File(path) => Kind::File { path: (**path).clone(), action, user: user() },
            AliasTarget::Pipe(command) => Kind::Pipe { command: command.clone(), action, user: user() },
            AliasTarget::Include(path) => {
                let path = self.config.below_root(&path.to_string_lossy()).into();
                Kind::Include { path, action, user: user() }
            }
            AliasTarget::Error(reply) => Kind::Error((**reply).clone()),
        }
    }

    /// The entry of a mapping, with its derived keys.
    pub(super) fn aliases(
        &self,
        table: &Keyed<Vec<AliasTarget>>,
        key: &str,
    ) -> Result<Answer<Vec<AliasTarget>>, Needs> {
        let delimiter = self.config.smtp.sub_address_delimiter;
        let table = match table {
            Keyed::Memory(entries) => {
                let found = entries.find(Keys::new(ServiceKind::Alias, key, delimiter));
                return Ok(found.map_or(Answer::NotFound, |targets| Answer::Found(targets.clone())));
            }
            Keyed::Remote(table) => *table,
        };
        let lookup = Lookup::Table { table, service: ServiceKind::Alias, key: key.to_owned() };
        Ok(match self.ask(Question::Lookup(lookup))? {
            Told::Found(text) => match lines::targets(text) {
                Ok(targets) if !targets.is_empty() => Answer::Found(targets),
                Ok(_) | Err(_) => Answer::Failed,
            },
            Told::NotFound => Answer::NotFound,
            Told::Unsafe(_) | Told::Failed(_) => Answer::Failed,
        })
    }

    /// The ancestor that has been the same address with the same action.
    fn repeated_address(&self, at: usize, action: usize) -> Option<usize> {
        let same = |of: &usize| {
            self.nodes[*of].kind.repeats(&self.nodes[at].kind) && self.action_of_address(*of) == Some(action)
        };
        self.ancestors(at).find(same)
    }

    /// The action that the rules have chosen for an address.
    pub(crate) fn action_of_address(&self, at: usize) -> Option<usize> {
        match &self.nodes[at].outcome {
            Some(Outcome::Delivery(delivery)) => Some(delivery.action),
            Some(Outcome::Becomes { action, .. }) => Some(*action),
            Some(Outcome::Refused(..) | Outcome::Repeats(_)) | None => None,
        }
    }

    /// Why a lookup has failed, as far as the answers say.
    pub(super) fn failures(&self) -> Option<String> {
        let mut all: Vec<String> =
            self.told.iter().filter_map(|(question, told)| self.failure(question, told)).collect();
        all.sort_unstable();
        (!all.is_empty()).then(|| format!("<{}> cannot be decided on: {}", self.facts.recipient, all.join("; ")))
    }

    fn failure(&self, question: &Question, told: &Told) -> Option<String> {
        let what = match question {
            Question::Lookup(Lookup::Table { table, service, key }) => {
                format!("table <{}> {service} `{key}`", self.config.table_name(*table))
            }
            Question::Lookup(Lookup::ReverseName) => "the client's name".to_owned(),
            Question::User(name) => format!("user `{name}`"),
            Question::Forward(user) => format!("{}/.forward", user.home),
            Question::Include { path, .. } => format!(":include:{}", path.display()),
        };
        match (told, question) {
            (Told::Failed(why) | Told::Unsafe(why), _) => Some(format!("{what}: {why}")),
            (Told::Found(text), Question::Lookup(Lookup::Table { service: ServiceKind::Alias, .. })) => {
                match lines::targets(text) {
                    Err(bad) => Some(format!("{what}: `{bad}` is not an alias")),
                    Ok(all) if all.is_empty() => Some(format!("{what}: an entry without a value")),
                    Ok(_) => None,
                }
            }
            _ => None,
        }
    }
}

/// Whether this is `virtual`.
fn is_virtual(mapping: &Mapping) -> bool {
    matches!(mapping, Mapping::Virtual(_))
}

/// Its keyword.
pub(super) fn mapping_name(mapping: &Mapping) -> &'static str {
    if is_virtual(mapping) { "virtual" } else { "alias" }
}

impl Action {
    /// The table of its mapping.
    pub(super) fn targets(&self) -> Option<&Keyed<Vec<AliasTarget>>> {
        match &self.mapping {
            Some(Mapping::Alias(table) | Mapping::Virtual(table)) => Some(table),
            None => None,
        }
    }
}

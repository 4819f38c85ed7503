//! User nodes, and the files that they bring: the action's table, the record, `.forward`, included lists.

use std::path::Path;

use ringpost_address::{split_address, strip_extension};

use super::address::mapping_name;
use super::node::{Reach, user_name};
use super::{Delivery, Expansion, Kind, Needs, Outcome, Passage, Question, Refusal, Told, User, Way, lines};
use crate::facts::Lookup;
use crate::model::{ActionKind, Backend, Keyed};
use crate::tables::{AliasTarget, Answer, Keys, ServiceKind, UserRecord, Value as _, is_user_name};

/// What a user's name leads to.
enum Found {
    User(User),
    Nobody,
    Failed,
}

impl Expansion<'_> {
    pub(super) fn user(&self, at: usize, name: &str, action: usize, reach: Reach) -> Result<Outcome, Needs> {
        let parent = self.nodes[at].parent;
        let repeats_parent = parent.is_some_and(|of| self.nodes[of].kind.repeats(&self.nodes[at].kind));
        let chosen = &self.config.actions[action];
        if reach == Reach::Anything && !repeats_parent {
            if let Some(first) = self.ancestors(at).find(|of| self.nodes[*of].kind.repeats(&self.nodes[at].kind)) {
                return Ok(Outcome::Repeats(first));
            }
            if let (Some(table), Some(mapping)) = (chosen.targets(), &chosen.mapping) {
                match self.aliases(table, name)? {
                    Answer::Found(targets) => return Ok(self.becomes(&targets, action, mapping_name(mapping))),
                    Answer::NotFound => {}
                    Answer::Failed | Answer::Pending => {
                        return Ok(Outcome::Refused(Refusal::LookupFailed, self.failures()));
                    }
                }
            }
        }
        let delimiter = self.config.smtp.sub_address_delimiter;
        let plain = strip_extension(name, delimiter).unwrap_or(name);
        if !chosen.needs_user() {
            return Ok(self.mailbox_of_nobody(at, name, action));
        }
        let wanted = chosen.local.user.as_deref().unwrap_or(plain);
        let user = match (self.find_user(wanted, action)?, &chosen.local.user) {
            (Found::User(user), _) => user,
            (Found::Failed, _) => return Ok(Outcome::Refused(Refusal::LookupFailed, self.failures())),
            (Found::Nobody, None) => return Ok(Outcome::Refused(Refusal::NoSuchRecipient, None)),
            (Found::Nobody, Some(user)) => {
                let note = format!("action `{}`: there is no user `{user}`", chosen.name);
                return Ok(Outcome::Refused(Refusal::NoActionUser, Some(note)));
            }
        };
        // With `user U`, only U's own mail is his to forward.
        if reach == Reach::Anything && plain == user_name(wanted) {
            match self.ask(Question::Forward(user.clone()))? {
                Told::Found(text) => {
                    if let Some(outcome) = self.forwarded(text, plain, action, &user) {
                        return Ok(outcome);
                    }
                }
                Told::NotFound => {}
                Told::Unsafe(why) => return Ok(bad_list(format!("mail for {}: {why}", user.name))),
                Told::Failed(_) => return Ok(Outcome::Refused(Refusal::LookupFailed, self.failures())),
            }
        }
        Ok(self.mailbox(at, action, user))
    }

    /// The delivery itself.
    fn mailbox(&self, at: usize, action: usize, user: User) -> Outcome {
        match self.config.actions[action].kind {
            ActionKind::ExpandOnly => Outcome::Refused(Refusal::NoSuchRecipient, None),
            ActionKind::ForwardOnly => Outcome::Refused(Refusal::StaysHere, None),
            _ => self.delivery(at, action, Way::User(user)),
        }
    }

    /// The action takes any name: nothing of its deliveries is a user's (grammar §6.2). What an alias has made of the recipient
    /// then takes the place of its local part, or all that a list stands for would be one mailbox.
    fn mailbox_of_nobody(&self, at: usize, name: &str, action: usize) -> Outcome {
        let address = self.address_above(at);
        let (local, domain) = split_address(address).unwrap_or((address, ""));
        let address = match user_name(local) == name {
            true => address.to_owned(),
            false => format!("{name}@{domain}"),
        };
        Outcome::Delivery(Box::new(Delivery { action, address, way: Way::Address }))
    }

    /// A file or a program.
    pub(super) fn elsewhere(&self, at: usize, action: usize, way: Way) -> Outcome {
        if let Some(user) = way.user().filter(|user| user.uid == 0) {
            return bad_list(format!("{}/.forward: root's mail goes to no file and no program", user.home));
        }
        match self.config.actions[action].kind {
            ActionKind::ForwardOnly => Outcome::Refused(Refusal::StaysHere, None),
            _ => self.delivery(at, action, way),
        }
    }

    fn delivery(&self, at: usize, action: usize, way: Way) -> Outcome {
        Outcome::Delivery(Box::new(Delivery { action, address: self.address_above(at).to_owned(), way }))
    }

    fn address_above(&self, at: usize) -> &str {
        match &self.nodes[self.nodes[at].address].kind {
            Kind::Address(address) => address,
            _ => self.facts.recipient,
        }
    }

    fn find_user(&self, name: &str, action: usize) -> Result<Found, Needs> {
        let userbase = &self.config.actions[action].local.userbase;
        let in_table = match userbase {
            None => false,
            Some(Keyed::Memory(_)) => true,
            Some(Keyed::Remote(table)) => self.config.tables[table.0 as usize].backend != Backend::Getpwnam,
        };
        let question = match userbase {
            Some(Keyed::Memory(users)) => {
                let delimiter = self.config.smtp.sub_address_delimiter;
                let record: Option<&UserRecord> = users.find(Keys::new(ServiceKind::UserInfo, name, delimiter));
                return Ok(record.map_or(Found::Nobody, |record| self.known(record.clone(), name, in_table)));
            }
            Some(Keyed::Remote(table)) => {
                Question::Lookup(Lookup::Table { table: *table, service: ServiceKind::UserInfo, key: name.to_owned() })
            }
            None => Question::User(name.to_owned()),
        };
        Ok(match self.ask(question)? {
            Told::Found(text) => {
                UserRecord::parse(text).map_or(Found::Failed, |record| self.known(record, name, in_table))
            }
            Told::NotFound => Found::Nobody,
            Told::Unsafe(_) | Told::Failed(_) => Found::Failed,
        })
    }

    /// The user of a record. One without a name is that of its key, which a stranger has written: where it can be nobody's
    /// name it is nobody's.
    fn known(&self, record: UserRecord, key: &str, in_table: bool) -> Found {
        match record.name.is_none() && !is_user_name(key) {
            true => Found::Nobody,
            false => Found::User(User::of_record(record, key, in_table, self.config)),
        }
    }

    /// What the text of a `.forward` makes of its user; `None`: nothing is in it.
    fn forwarded(&self, text: &str, name: &str, action: usize, user: &User) -> Option<Outcome> {
        let targets = match lines::targets(text) {
            Ok(targets) if targets.is_empty() => return None,
            Ok(targets) => targets,
            Err(bad) => return Some(bad_list(format!("{}/.forward: `{bad}` is not an alias", user.home))),
        };
        let own = |of: &str| [name, &user.name].iter().any(|own| user_name(own) == user_name(of));
        let kinds = targets.iter().map(|target| match target {
            AliasTarget::User(of) | AliasTarget::Mailbox(of) if own(of) => {
                Kind::User { name: name.to_owned(), action, reach: Reach::Mailbox }
            }
            other => self.kind_of(other, action, Some(user)),
        });
        Some(Outcome::Becomes { action, kinds: kinds.collect(), step: Passage::List(".forward") })
    }

    /// The lines of a file.
    pub(super) fn include(&self, at: usize, path: &Path, action: usize, user: Option<&User>) -> Result<Outcome, Needs> {
        if let Some(first) = self.ancestors(at).find(|of| self.nodes[*of].kind.repeats(&self.nodes[at].kind)) {
            return Ok(Outcome::Repeats(first));
        }
        let question = Question::Include { path: path.to_owned(), user: user.cloned() };
        let wrong = |why: &str| Ok(bad_list(format!(":include:{}: {why}", path.display())));
        match self.ask(question)? {
            Told::Found(text) => match lines::targets(text) {
                Ok(targets) => {
                    let kinds = targets.iter().map(|target| self.kind_of(target, action, user)).collect();
                    Ok(Outcome::Becomes { action, kinds, step: Passage::List(":include:") })
                }
                Err(bad) => wrong(&format!("`{bad}` is not an alias")),
            },
            Told::NotFound => wrong("there is no such file"),
            Told::Unsafe(why) | Told::Failed(why) => Ok(bad_list(format!("<{}>: {why}", self.facts.recipient))),
        }
    }
}

fn bad_list(note: String) -> Outcome {
    Outcome::Refused(Refusal::BadList, Some(note))
}

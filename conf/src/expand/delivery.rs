//! What an expansion ends in: deliveries, and when two are the same one (grammar §6.2, *identity*).

use std::fmt;

use serde_json::{Value as Json, json};

use crate::command::Command;
use crate::format::{Format, FormatValues};
use crate::model::{Action, ActionKind, Config};
use crate::tables::UserRecord;

/// A user, as a table or the system has it. He need not exist anywhere else.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Home directory; `--root` is in front already.
    pub home: String,
    /// He comes from a table: the system need not know him, and his group is his only one.
    pub in_table: bool,
}

impl User {
    /// The user of a record; a record without a name is that of its key.
    pub(super) fn of_record(record: UserRecord, key: &str, in_table: bool, config: &Config) -> Self {
        let name = record.name.unwrap_or_else(|| key.to_owned());
        Self { name, uid: record.uid, gid: record.gid, home: config.below_root(&record.home), in_table }
    }
}

/// `gilles=1000:100:/home/gilles`
impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}:{}:{}", self.name, self.uid, self.gid, self.home)
    }
}

/// One copy of a message for one destination.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// Index into [`crate::Config::actions`].
    pub action: usize,
    /// Whom it is for: the address to relay to, or the last address that the recipient has become (`%{dest}`).
    pub address: String,
    /// How it is made.
    pub way: Way,
}

/// How a delivery is made.
#[derive(Clone, Debug, PartialEq)]
pub enum Way {
    /// As the action says, with the address alone: relay, discard, or a Maildir that is nobody's in particular.
    Address,
    /// As the action says, for this user.
    User(User),
    /// Appended to a file.
    File {
        /// Whose `.forward` names it; `None`: an alias does, and it is written with the rights of the server's own user.
        user: Option<User>,
        /// As written, without `--root`.
        path: Format,
    },
    /// Given to a program.
    Pipe {
        /// Whose `.forward` names it; `None`: an alias does, and it runs as the server's own user.
        user: Option<User>,
        /// As written.
        command: Command,
    },
}

impl Way {
    /// The user with whose rights it is made, if it is not the server's own.
    pub fn user(&self) -> Option<&User> {
        match self {
            Self::Address => None,
            Self::User(user) => Some(user),
            Self::File { user, .. } | Self::Pipe { user, .. } => user.as_ref(),
        }
    }

    /// As the queue keeps it; empty for [`Way::Address`], which most are.
    pub fn to_text(&self) -> String {
        let user = |user: &Option<User>| {
            user.as_ref().map(|u| {
                let mut json = json!({ "name": u.name, "uid": u.uid, "gid": u.gid, "home": u.home });
                if u.in_table {
                    json["table"] = true.into();
                }
                json
            })
        };
        match self {
            Self::Address => String::new(),
            Self::User(one) => json!({ "user": user(&Some(one.clone())) }).to_string(),
            Self::File { user: of, path } => json!({ "user": user(of), "file": path.as_written() }).to_string(),
            Self::Pipe { user: of, command } => json!({ "user": user(of), "pipe": command.to_string() }).to_string(),
        }
    }

    /// Reads what [`Self::to_text`] has made; `None` if it is not that.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::Address);
        }
        let json: Json = serde_json::from_str(text).ok()?;
        let user = match &json["user"] {
            Json::Null => None,
            user => Some(User {
                name: user["name"].as_str()?.to_owned(),
                uid: u32::try_from(user["uid"].as_u64()?).ok()?,
                gid: u32::try_from(user["gid"].as_u64()?).ok()?,
                home: user["home"].as_str()?.to_owned(),
                in_table: user["table"].as_bool().unwrap_or(false),
            }),
        };
        match (json["file"].as_str(), json["pipe"].as_str()) {
            (Some(path), None) => Some(Self::File { user, path: Format::parse(path).ok()? }),
            (None, Some(command)) => Some(Self::Pipe { user, command: Command::parse(command).ok()? }),
            (None, None) => user.map(Self::User),
            (Some(_), Some(_)) => None,
        }
    }
}

/// For whom it is, if not for the address alone; for people.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = |f: &mut fmt::Formatter<'_>, user: &Option<User>| match user {
            Some(user) => write!(f, " as {user}"),
            None => Ok(()),
        };
        match self {
            Self::Address => Ok(()),
            Self::User(user) => write!(f, "{user}"),
            Self::File { user, path } => write!(f, "{}", path.as_written()).and_then(|()| by(f, user)),
            Self::Pipe { user, command } => write!(f, "|{command}").and_then(|()| by(f, user)),
        }
    }
}

impl Action {
    /// Whether its deliveries are some user's, who is then looked up and may be nobody (grammar §6.2).
    pub fn needs_user(&self) -> bool {
        match &self.kind {
            ActionKind::Relay(_) | ActionKind::Discard => false,
            ActionKind::Maildir(maildir) => {
                self.local.user.is_some() || self.local.userbase.is_some() || maildir.path.mentions_user()
            }
            ActionKind::Mbox
            | ActionKind::Mda(_)
            | ActionKind::Lmtp(_)
            | ActionKind::ExpandOnly
            | ActionKind::ForwardOnly => true,
        }
    }

    /// Whether its recipients are taken as they are: nothing about them needs to be looked up, and each is one delivery.
    pub fn is_plain(&self) -> bool {
        self.mapping.is_none() && !self.needs_user()
    }
}

/// What makes a delivery the same as another one, but for the action: compare the actions by [`super::Outlines::canonical`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity(String);

impl Identity {
    /// Of a delivery of a message from `values.sender`, first addressed to `values.recipient`. The ids of message and envelope
    /// are left out: they are not known yet, and would make every delivery another one.
    pub fn of(action: usize, address: &str, way: &Way, config: &Config, values: &FormatValues<'_>) -> Self {
        let owner = way.user();
        let values = way.values(address, *values);
        let path = |format: &Format| match format.expand_path(&values) {
            Ok(path) => path.to_string_lossy().into_owned(),
            // It will be deferred until somebody mends it: as a delivery of its own.
            Err(_) => format!("{} {} {}", format.as_written(), values.recipient, values.destination),
        };
        let program = |command: &Command| command.expand(&values).unwrap_or_default().join("\0");
        let what = match way {
            Way::File { path: file, .. } => format!("file {}", path(&config.format_below_root(file))),
            Way::Pipe { command, .. } => format!("pipe {}", program(command)),
            Way::Address | Way::User(_) => match config.actions.get(action).map(|action| &action.kind) {
                Some(ActionKind::Maildir(maildir)) => format!("maildir {}", path(&maildir.path)),
                Some(ActionKind::Mda(mda)) => format!("mda {}", program(&mda.command)),
                Some(ActionKind::Lmtp(lmtp)) if lmtp.rcpt_to => {
                    format!("lmtp {} {}", path(&lmtp.destination), normal(address))
                }
                Some(ActionKind::Lmtp(lmtp)) => format!("lmtp {}", path(&lmtp.destination)),
                Some(ActionKind::Mbox) => "mbox".to_owned(),
                Some(ActionKind::Relay(_)) => format!("relay {}", normal(address)),
                Some(ActionKind::Discard | ActionKind::ExpandOnly | ActionKind::ForwardOnly) | None => {
                    "none".to_owned()
                }
            },
        };
        Self(match owner {
            Some(user) => format!("{} {} {}\0{what}", user.name, user.uid, user.gid),
            None => what,
        })
    }
}

/// An address with its domain in lower case: what is in front is the next server's to judge (RFC 5321 §2.4).
fn normal(address: &str) -> String {
    match ringpost_address::split_address(address) {
        Some((local, domain)) => format!("{local}@{}", domain.to_lowercase()),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// What the queue gives back may be damaged, or of another version.
        #[test]
        fn what_is_read_is_kept(kind in "file|pipe|x", text in "[/|%{}a-z .']{0,20}", uid in "-?[0-9]{1,12}") {
            let json = format!("{{\"user\":{{\"name\":\"u\",\"uid\":{uid},\"gid\":1,\"home\":\"/\"}},\"{kind}\":\"{text}\"}}");
            if let Some(way) = Way::parse(&json) {
                proptest::prop_assert_eq!(Way::parse(&way.to_text()), Some(way));
            }
        }
    }

    #[test]
    fn ways_survive_the_queue() {
        let user = User { name: "v\"user".into(), uid: 10, gid: 100, home: "/tmp/v user".into(), in_table: true };
        let ways = [
            Way::Address,
            Way::User(user.clone()),
            Way::User(User { in_table: false, ..user.clone() }),
            Way::File { user: None, path: Format::parse("/var/mail/%{rcpt.domain}-100%%").unwrap() },
            Way::File { user: Some(user.clone()), path: Format::parse("/x").unwrap() },
            Way::Pipe { user: Some(user), command: Command::parse("/bin/x 'a b' %{rcpt}").unwrap() },
        ];
        for way in ways {
            assert_eq!(Way::parse(&way.to_text()), Some(way));
        }
        for bad in ["x", "{}", "{\"file\":1}", "{\"user\":{\"name\":\"a\"}}", "{\"file\":\"/x\",\"pipe\":\"y\"}"] {
            assert_eq!(Way::parse(bad), None, "{bad}");
        }
    }
}

//! From an envelope and its action to the place of its copy. Formats are filled in here, when all is known: message and
//! envelope have their ids now. A format that makes no path or command is the administrator's to mend: 4.3.5 until then.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ringpost_conf::expand::{User, Way};
use ringpost_conf::{Action, ActionKind, Command, Config, Format, FormatError, FormatValues, Lmtp};
use ringpost_smtp::client::RemoteReply;

use crate::dispatch::{Envelope, Fresh};
use crate::handover::{How, UserRecord};
use crate::local::{Store, Target};
use crate::settings::Settings;

/// Where a copy goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// There.
    Known(Target),
    /// To a mail store whose host has to be looked up first.
    Store {
        host: String,
        port: u16,
        /// What is told to it.
        recipient: String,
    },
}

/// Where this copy goes. `own` is the server's own user, `near` the directories below which this process may write itself,
/// if it may not everywhere.
///
/// # Errors
/// Why there is no place for it now.
pub(crate) fn aim(
    settings: &Settings,
    own: &User,
    near: Option<&[PathBuf]>,
    fresh: &Fresh,
    envelope: &Envelope,
) -> Result<Aim, RemoteReply> {
    let config = &settings.config;
    let action = envelope.action.and_then(|number| config.actions.get(number)).ok_or_else(no_action)?;
    let id = fresh.id.to_string();
    let values = FormatValues {
        sender: &fresh.sender,
        recipient: envelope.original(),
        tag: &fresh.tag,
        message_id: &id,
        envelope_id: &format!("{id}{:04x}", envelope.index),
        delimiter: config.smtp.sub_address_delimiter,
        ..FormatValues::default()
    };
    let values = envelope.way.values(&envelope.recipient, values);
    let unusable = |error: FormatError| {
        RemoteReply::local(451, (4, 3, 5), format!("action \"{}\" cannot be used here: {error}", action.name))
    };
    let filled = Filled { config, action, values };
    let target = match (&envelope.way, &action.kind) {
        (Way::Address, ActionKind::Maildir(maildir)) => {
            Target::Maildir { dir: filled.path(&maildir.path).map_err(unusable)?, junk: maildir.junk }
        }
        // What needs nobody else's rights needs no other process.
        (Way::User(user), ActionKind::Maildir(maildir)) if (user.uid, user.gid) == (own.uid, own.gid) => {
            let (dir, junk) = (filled.path(&maildir.path).map_err(unusable)?, maildir.junk);
            match near.is_none_or(|near| near.iter().any(|place| dir.starts_with(place))) {
                true => Target::Maildir { dir, junk },
                false => Target::User { user: record(user), how: How::Maildir { path: dir, junk } },
            }
        }
        (Way::User(user), ActionKind::Lmtp(lmtp)) => {
            return filled.store(lmtp, user).map_err(unusable)?.ok_or_else(|| {
                RemoteReply::local(
                    451,
                    (4, 3, 5),
                    format!("action \"{}\": no host and port of a mail store", action.name),
                )
            });
        }
        (Way::User(user), kind) => {
            let how = match kind {
                ActionKind::Mbox => How::Mbox { spool: config.mail_spool().into() },
                ActionKind::Maildir(maildir) => {
                    How::Maildir { path: filled.path(&maildir.path).map_err(unusable)?, junk: maildir.junk }
                }
                ActionKind::Mda(mda) => How::Program { arguments: filled.program(&mda.command).map_err(unusable)? },
                _ => return Err(no_action()),
            };
            Target::User { user: record(user), how }
        }
        (Way::File { user, path }, _) => {
            let path = filled.path(&config.format_below_root(path)).map_err(unusable)?;
            Target::User { user: record(user.as_ref().unwrap_or(own)), how: How::File { path } }
        }
        (Way::Pipe { user, command }, _) => {
            let arguments = command.expand(&filled.values).map_err(unusable)?;
            Target::User { user: record(user.as_ref().unwrap_or(own)), how: How::Program { arguments } }
        }
        (Way::Address, _) => return Err(no_action()),
    };
    Ok(Aim::Known(target))
}

/// The configuration has changed since the message came, and its action is gone or is for mail of another kind: never lost,
/// tried again later.
fn no_action() -> RemoteReply {
    RemoteReply::local(451, (4, 3, 5), "the action of this message is no longer configured")
}

/// A user, as the supervisor knows him.
pub(crate) fn record(user: &User) -> UserRecord {
    let home = user.home.clone().into();
    UserRecord { name: user.name.clone(), uid: user.uid, gid: user.gid, home, in_table: user.in_table }
}

struct Filled<'a> {
    config: &'a Config,
    action: &'a Action,
    values: FormatValues<'a>,
}

impl Filled<'_> {
    fn path(&self, format: &Format) -> Result<PathBuf, FormatError> {
        format.expand_path(&self.values)
    }

    /// With the wrapper around it, if there is one.
    fn program(&self, command: &Command) -> Result<Vec<String>, FormatError> {
        let inner = command.expand(&self.values)?;
        match &self.action.local.wrapper {
            Some(wrapper) => wrapper.wrap(&inner, &self.values),
            None => Ok(inner),
        }
    }

    /// `None`: it is no host and port.
    fn store(&self, lmtp: &Lmtp, user: &User) -> Result<Option<Aim>, FormatError> {
        let recipient = if lmtp.rcpt_to { self.values.destination.to_owned() } else { user.name.clone() };
        if lmtp.destination.as_written().starts_with('/') {
            let store = Store::Socket(self.path(&lmtp.destination)?);
            return Ok(Some(Aim::Known(Target::Lmtp { store, recipient })));
        }
        let text = lmtp.destination.expand_text(&self.values)?;
        let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, self.config.port(port)?)));
        Ok(parts.map(|(host, port)| match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) => {
                let store = Store::Address(SocketAddr::new(address, port));
                Aim::Known(Target::Lmtp { store, recipient })
            }
            Err(_) => Aim::Store { host: host.to_owned(), port, recipient },
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::rc::Rc;
    use std::sync::Arc;

    use ringpost_conf::{LocalOptions, Maildir, Mda};
    use ringpost_queue::{Flags, MessageId};

    use ringpost_smtp::dsn::OfRecipient;

    use super::*;

    fn gilles() -> User {
        User { name: "gilles".into(), uid: 1000, gid: 100, home: "/home/gilles".into(), in_table: true }
    }

    fn own() -> User {
        User { name: "ringpost".into(), uid: 77, gid: 77, home: "/".into(), in_table: false }
    }

    /// With one action, for a message to `Gilles+x@b.example` that was addressed to a list.
    fn aim_of(kind: ActionKind, way: Way, wrapper: Option<&str>) -> Result<Aim, (u16, String)> {
        let mut config = Config::quickstart(Path::new("/s"), &Default::default());
        config.root = Some("/t".into());
        config.port_offset = 1000;
        let wrapper = wrapper.map(|text| Command::parse(text).expect("a command"));
        config.actions[0].kind = kind;
        config.actions[0].local = LocalOptions { wrapper, ..LocalOptions::default() };
        let settings = Settings::new(Arc::new(config), &Default::default(), "here.example", 1);
        let envelope = Envelope::new(2, "Gilles+x@b.example", ("list@b.example", OfRecipient::default()), Some(0), way);
        let fresh = Fresh {
            id: MessageId(0x12),
            received_ms: 0,
            sender: "s@a.example".into(),
            tag: "T".into(),
            envid: String::new(),
            envelopes: Rc::new([]),
            flags: Flags::default(),
            body_bytes: 0,
            body: None,
        };
        aim(&settings, &own(), None, &fresh, &envelope).map_err(|reply| (reply.code(), reply.text().to_owned()))
    }

    fn format(text: &str) -> Format {
        Format::parse(text).expect("a format")
    }

    fn maildir(path: &str) -> ActionKind {
        ActionKind::Maildir(Maildir { path: format(path), junk: true })
    }

    fn mda(text: &str) -> ActionKind {
        ActionKind::Mda(Mda { command: Command::parse(text).expect("a command") })
    }

    fn lmtp(destination: &str, rcpt_to: bool) -> ActionKind {
        ActionKind::Lmtp(Lmtp { destination: format(destination), rcpt_to })
    }

    fn user(how: How) -> Result<Aim, (u16, String)> {
        Ok(Aim::Known(Target::User { user: record(&gilles()), how }))
    }

    fn store(store: Store, recipient: &str) -> Result<Aim, (u16, String)> {
        Ok(Aim::Known(Target::Lmtp { store, recipient: recipient.into() }))
    }

    #[test]
    fn mailboxes() {
        let of_user = || Way::User(gilles());
        assert_eq!(aim_of(ActionKind::Mbox, of_user(), None), user(How::Mbox { spool: "/t/var/mail".into() }));
        let path = PathBuf::from("/home/gilles/Maildir/list-s-T");
        let expected = user(How::Maildir { path: path.clone(), junk: true });
        assert_eq!(aim_of(maildir("~/Maildir/%{rcpt.user}-%{sender.user}-%{tag}"), of_user(), None), expected);
        let here = Ok(Aim::Known(Target::Maildir { dir: "/m/Gilles+x/00000000000000120002".into(), junk: true }));
        assert_eq!(aim_of(maildir("/m/%{dest.user}/%{evpid}"), Way::Address, None), here);
        // The server's own user needs no helper.
        let here = Ok(Aim::Known(Target::Maildir { dir: "/Maildir".into(), junk: true }));
        assert_eq!(aim_of(maildir("~/Maildir"), Way::User(own()), None), here);
    }

    #[test]
    fn programs_and_files() {
        let arguments =
            |words: &[&str]| How::Program { arguments: words.iter().map(|word| (*word).to_owned()).collect() };
        let program = mda("/bin/mda 'a %{user.username}' %{dest.ext}");
        assert_eq!(aim_of(program.clone(), Way::User(gilles()), None), user(arguments(&["/bin/mda", "a gilles", "x"])));
        let wrapped = aim_of(program, Way::User(gilles()), Some("/bin/wrap %{mda}"));
        assert_eq!(wrapped, user(arguments(&["/bin/wrap", "/bin/mda", "a gilles", "x"])));
        let command = || Command::parse("/bin/x %{rcpt}").expect("a command");
        let pipe = aim_of(ActionKind::Mbox, Way::Pipe { user: Some(gilles()), command: command() }, None);
        assert_eq!(pipe, user(arguments(&["/bin/x", "list@b.example"])));
        // Of an alias: as the server's own user, below `--root`.
        let pipe = aim_of(ActionKind::Mbox, Way::Pipe { user: None, command: command() }, None);
        let how = arguments(&["/bin/x", "list@b.example"]);
        assert_eq!(pipe, Ok(Aim::Known(Target::User { user: record(&own()), how })));
        let file = aim_of(ActionKind::Mbox, Way::File { user: None, path: format("/var/mail/%{rcpt.domain}") }, None);
        let how = How::File { path: "/t/var/mail/b.example".into() };
        assert_eq!(file, Ok(Aim::Known(Target::User { user: record(&own()), how })));
    }

    #[test]
    fn mail_stores() {
        let of_user = || Way::User(gilles());
        let socket = Store::Socket("/run/gilles.sock".into());
        assert_eq!(aim_of(lmtp("/run/%{user.username}.sock", false), of_user(), None), store(socket, "gilles"));
        let address = |text: &str| Store::Address(text.parse().expect("an address"));
        let expected = store(address("192.0.2.1:1024"), "Gilles+x@b.example");
        assert_eq!(aim_of(lmtp("192.0.2.1:lmtp", true), of_user(), None), expected);
        assert_eq!(aim_of(lmtp("[::1]:24", false), of_user(), None), store(address("[::1]:1024"), "gilles"));
        let name = Ok(Aim::Store { host: "store.b.example".into(), port: 1024, recipient: "gilles".into() });
        assert_eq!(aim_of(lmtp("store.%{dest.domain}:24", false), of_user(), None), name);
        let bad = aim_of(lmtp("%{dest.domain}", false), of_user(), None).expect_err("no port");
        assert_eq!(bad.0, 451);
    }

    #[test]
    fn what_makes_no_path_waits_for_the_administrator() {
        let (code, text) = aim_of(maildir("/m/%{rcpt.ext}/x"), Way::Address, None).expect_err("an empty component");
        assert!(code == 451 && text.contains("action \"maildir\" cannot be used here"), "{text}");
        let gone = aim_of(ActionKind::Discard, Way::User(gilles()), None).expect_err("of another kind");
        assert!(gone.1.contains("no longer configured"), "{gone:?}");
    }
}

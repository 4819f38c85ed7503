//! The place of a delivery: the path or the command of its action, with everything filled in.

use super::{Delivery, Way};
use crate::command::quote;
use crate::format::{Format, FormatError, FormatValues};
use crate::limits::MAIL_SPOOL;
use crate::model::{ActionKind, Config};

impl Way {
    /// What formats are filled in with for this way to an address; `values` says what is known of the message.
    pub fn values<'v>(&'v self, address: &'v str, values: FormatValues<'v>) -> FormatValues<'v> {
        let user = self.user();
        FormatValues {
            destination: address,
            user_name: user.map_or("", |user| &user.name),
            user_directory: user.map_or("", |user| &user.home),
            ..values
        }
    }
}

impl Config {
    /// Where the mailboxes of the system's users are.
    pub fn mail_spool(&self) -> String {
        self.below_root(MAIL_SPOOL)
    }
}

/// Where a delivery is made, for people: `maildir /home/gilles/Maildir`. `None`: its action has no place on this host.
///
/// # Errors
/// Nothing can be made of a format: the delivery will wait until that is mended.
pub(crate) fn place(
    delivery: &Delivery,
    config: &Config,
    values: FormatValues<'_>,
) -> Result<Option<String>, FormatError> {
    let values = delivery.way.values(&delivery.address, values);
    let path = |format: &Format| format.expand_path(&values).map(|path| path.display().to_string());
    let action = &config.actions[delivery.action];
    Ok(Some(match (&delivery.way, &action.kind) {
        (Way::File { path: file, .. }, _) => format!("file {}", path(&config.format_below_root(file))?),
        (Way::Pipe { command, .. }, _) => format!("program {}", line(&command.expand(&values)?)),
        (Way::User(user), ActionKind::Mbox) => format!("mbox {}/{}", config.mail_spool(), user.name),
        (_, ActionKind::Maildir(maildir)) => format!("maildir {}", path(&maildir.path)?),
        (_, ActionKind::Mda(mda)) => {
            let inner = mda.command.expand(&values)?;
            let wrapper = action.local.wrapper.as_ref();
            format!("mda {}", line(&wrapper.map_or(Ok(inner.clone()), |wrapper| wrapper.wrap(&inner, &values))?))
        }
        (_, ActionKind::Lmtp(lmtp)) if lmtp.destination.as_written().starts_with('/') => {
            format!("lmtp {}", path(&lmtp.destination)?)
        }
        (_, ActionKind::Lmtp(lmtp)) => format!("lmtp {}", lmtp.destination.expand_text(&values)?),
        _ => return Ok(None),
    }))
}

/// Arguments as one would write them.
fn line(arguments: &[String]) -> String {
    arguments.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

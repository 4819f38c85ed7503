//! As whom a relay action logs in at a host (grammar §4.4): the label of the relay URL, looked up when a connection is made.
//! Pure, as `direction.rs` is: a table that must be asked is named as a question, and its answer is handed in.

use crate::expand::Told;
use crate::facts::Lookup;
use crate::model::{Config, Keyed, Relay};
use crate::tables::{Credentials, Keys, Secret, ServiceKind, Value};

/// Who logs in, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The name: the record's or, where that has none, the label.
    pub user: String,
    /// The password.
    pub password: Secret,
}

impl Relay {
    /// What must be asked to know [`Self::login`].
    pub fn login_question(&self, label: &str) -> Option<Lookup> {
        match self.auth {
            Some(Keyed::Remote(table)) => {
                Some(Lookup::Table { table, service: ServiceKind::Credentials, key: label.to_owned() })
            }
            _ => None,
        }
    }

    /// The credentials of a label. `told` is the answer to [`Self::login_question`].
    ///
    /// # Errors
    /// Why there are none now. It never says what an entry has in it.
    pub fn login(&self, config: &Config, label: &str, told: Option<Told>) -> Result<Login, String> {
        let none = || format!("`auth` has no entry for the label `{label}`");
        let read = match (&self.auth, told) {
            (None, _) => return Err(format!("the action has no `auth` for the label `{label}`")),
            (Some(Keyed::Memory(logins)), _) => {
                let keys = Keys::new(ServiceKind::Credentials, label, config.smtp.sub_address_delimiter);
                logins.find(keys).cloned().ok_or_else(none)?
            }
            (Some(Keyed::Remote(table)), told) => {
                let table = config.table_name(*table);
                match told {
                    Some(Told::Found(text)) => {
                        Credentials::read(text.trim_end_matches(['\r', '\n'])).ok_or_else(|| {
                            format!("table <{table}>: the entry of the label `{label}` is not user:password")
                        })?
                    }
                    Some(Told::NotFound) => {
                        return Err(format!("table <{table}> has no entry for the label `{label}`"));
                    }
                    Some(Told::Failed(why) | Told::Unsafe(why)) => {
                        return Err(format!("table <{table}> cannot be asked: {why}"));
                    }
                    _ => return Err(format!("table <{table}> cannot be asked: it was not asked")),
                }
            }
        };
        let Credentials { user, secret } = read;
        Ok(Login { user: user.unwrap_or_else(|| label.to_owned()), password: secret })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{ActionKind, Memory, Options, load};

    fn config(text: &str) -> Config {
        let files = Memory::default()
            .with("r.conf", format!("listen on lo0\n{text}\nmatch for any action a\n"))
            .with("redis.conf", "url redis://127.0.0.1:1\ncredentials_prefix c:\n");
        load(&files, Path::new("r.conf"), &Options::default()).unwrap_or_else(|reports| panic!("{reports:?}")).0
    }

    fn relay(config: &Config) -> &Relay {
        match &config.actions[0].kind {
            ActionKind::Relay(relay) => relay,
            other => panic!("{other:?}"),
        }
    }

    fn shown(login: Result<Login, String>) -> Result<(String, String), String> {
        login.map(|login| (login.user, login.password.reveal().to_owned()))
    }

    #[test]
    fn a_label_stands_for_a_name_and_a_password() {
        let config = config("action a relay host smtps://l@a.example auth { l => \"gilles:pa:ss\" }");
        let ask = |label: &str| shown(relay(&config).login(&config, label, None));
        assert!(relay(&config).login_question("l").is_none());
        assert_eq!(ask("l"), Ok(("gilles".into(), "pa:ss".into())));
        assert!(ask("L").is_err_and(|why| why.contains("no entry for the label `L`")), "labels are exact");
    }

    #[test]
    fn what_a_remote_table_cannot_say_is_told_without_its_entry() {
        let config = config("table t redis:redis.conf\naction a relay host smtps://l@a.example auth <t>");
        let relay = relay(&config);
        assert!(matches!(
            relay.login_question("l"),
            Some(Lookup::Table { service: ServiceKind::Credentials, key, .. }) if key == "l"
        ));
        let ask = |told| shown(relay.login(&config, "l", told));
        assert_eq!(ask(Some(Told::Found("gilles:secret".into()))), Ok(("gilles".into(), "secret".into())));
        for (told, why) in [
            (Some(Told::NotFound), "table <t> has no entry for the label `l`"),
            (Some(Told::Failed("down".into())), "table <t> cannot be asked: down"),
            (None, "table <t> cannot be asked: it was not asked"),
            (Some(Told::Found(":hidden".into())), "table <t>: the entry of the label `l` is not user:password"),
        ] {
            assert_eq!(ask(told), Err(why.to_owned()));
        }
    }
}

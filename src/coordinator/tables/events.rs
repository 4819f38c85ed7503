//! What an administrator should hear about tables, as lines of the log.

use std::fmt;
use std::time::Duration;

use super::service::Service;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A backend has failed several times in a row.
    Fails {
        /// The table.
        table: String,
        /// Who answers for it.
        backend: String,
        /// The last reason.
        reason: String,
    },
    /// It answers again.
    Works {
        /// The table.
        table: String,
        /// How long it did not.
        after: Duration,
    },
    /// One entry is wrong; the others are not touched by that.
    BadEntry {
        /// The table.
        table: String,
        /// What was asked for.
        service: Service,
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
        /// Such lines that were left out since the last one.
        more: u64,
    },
    /// A line that a helper wrote to its standard error.
    Helper {
        /// The table.
        table: String,
        /// The line.
        line: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fails { table, backend, reason } => {
                write!(f, "table <{table}> fails: {reason} ({backend})")
            }
            Self::Works { table, after } => write!(f, "table <{table}> works again, after {} s", after.as_secs()),
            Self::BadEntry { table, service, key, reason, more } => {
                let key = if service.is_secret() { "…" } else { key };
                write!(f, "table <{table}>: {} entry of {key:?}: {reason}", service.name())?;
                if *more > 0 { write!(f, " (and {more} others)") } else { Ok(()) }
            }
            Self::Helper { table, line } => write!(f, "table <{table}>: {line}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_table_key_and_reason_and_no_password() {
        let bad = |service| Event::BadEntry {
            table: "t".into(),
            service,
            key: "user:secret\n".into(),
            reason: "2 rows, one is wanted".into(),
            more: 3,
        };
        assert_eq!(
            bad(Service::UserInfo).to_string(),
            r#"table <t>: userinfo entry of "user:secret\n": 2 rows, one is wanted (and 3 others)"#
        );
        assert!(!bad(Service::Auth).to_string().contains("secret"));
        let works = Event::Works { table: "t".into(), after: Duration::from_millis(2500) };
        assert_eq!(works.to_string(), "table <t> works again, after 2 s");
    }
}

//! `relay backup`: mail waits here for the mail exchangers of a domain that are better than we are, and goes to nobody else
//! (RFC 5321 §5.1).

use crate::ask::MxAnswer;
use crate::limits;
use crate::shard::{Shard, World};

/// Why a backup has nobody to send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Odd {
    /// The domain does not name it.
    NotNamed,
    /// No other is better.
    Best,
}

impl Odd {
    /// In words.
    pub(crate) fn text(self, name: &str) -> String {
        match self {
            Self::NotNamed => {
                format!("{name} is not among the mail exchangers of the domain, for which it is to be a backup")
            }
            Self::Best => format!("{name} is to be a backup, but no mail exchanger of the domain is better"),
        }
    }
}

/// The exchangers that are better than the one of this name. Other answers stay what they are.
pub(crate) fn better(answer: MxAnswer, name: &str) -> Result<MxAnswer, Odd> {
    let MxAnswer::Hosts { mut hosts, ttl, missing } = answer else { return Ok(answer) };
    let own = hosts.iter().filter(|host| host.name.eq_ignore_ascii_case(name)).map(|host| host.preference).min();
    let own = own.ok_or(Odd::NotNamed)?;
    hosts.retain(|host| host.preference < own);
    if hosts.is_empty() { Err(Odd::Best) } else { Ok(MxAnswer::Hosts { hosts, ttl, missing }) }
}

/// Tells it once for each domain, until the configuration changes.
pub(crate) fn tell<W: World>(shard: &Shard<W>, domain: &str, name: &str, odd: Odd) {
    let mut told = shard.odd_backups.borrow_mut();
    if told.len() < limits::ODD_BACKUPS && told.insert(domain.to_owned()) {
        shard.warn(&format!("relay: mail for {domain} waits: {}", odd.text(name)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ask::{Dane, Exchanger};

    #[test]
    fn a_backup_sends_to_those_alone_who_are_better() {
        let host = |preference, name: &str| {
            let dane = Dane::Insecure("not asked");
            Exchanger { preference, name: name.to_owned(), addresses: Vec::new(), dane }
        };
        let answer = |hosts| MxAnswer::Hosts { hosts, ttl: Duration::from_secs(1), missing: None };
        let three = || answer(vec![host(30, "mx3"), host(10, "mx1"), host(20, "mx2"), host(20, "equal")]);
        assert_eq!(better(three(), "MX2"), Ok(answer(vec![host(10, "mx1")])));
        assert_eq!(better(three(), "mx1"), Err(Odd::Best));
        assert_eq!(better(three(), "mx4"), Err(Odd::NotNamed));
        assert_eq!(better(MxAnswer::NullMx, "mx2"), Ok(MxAnswer::NullMx));
    }
}

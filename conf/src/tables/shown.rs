//! Answers as people read them: alike for the same entry, whoever keeps it. What a backend says is read as the server reads
//! it; passwords and keys are not shown.

use super::{
    AddressPattern, AliasTarget, Credentials, DkimKey, EntryError, HostName, Pem, RelayHost, ServiceKind, UserRecord,
    Value,
};
use crate::expand::read_targets;

/// Between several values of one answer.
pub(super) const BETWEEN: &str = ", ";
/// Instead of what is secret.
const SECRET: &str = "…";

/// What the text of a backend's answer to a question says. `key` is the question; of a list it is all that counts.
///
/// # Errors
/// The text is not what the service wants: to the server that lookup has failed.
pub fn shown(service: ServiceKind, key: &str, text: &str) -> Result<String, String> {
    match service {
        ServiceKind::Domain
        | ServiceKind::NetAddr
        | ServiceKind::MailAddr
        | ServiceKind::String
        | ServiceKind::Regex => Ok(key.to_owned()),
        ServiceKind::Auth => Ok(key.split_once(':').map_or(key, |(user, _)| user).to_owned()),
        ServiceKind::Alias => {
            let targets = read_targets(text).map_err(|bad| format!("`{bad}` is not an alias"))?;
            Ok(joined(targets.iter().map(AliasTarget::to_string)))
        }
        ServiceKind::UserInfo => Ok(user(key, &read::<UserRecord>(text)?)),
        ServiceKind::Credentials => {
            // What is wrong with it may be the password.
            let read = Credentials::parse(text).map_err(|error| format!("the entry is {error}"))?;
            Ok(login(key, &read))
        }
        ServiceKind::AddrName => Ok(read::<HostName>(text)?.0),
        ServiceKind::SourceAddr => {
            let address = |text: &str| {
                let ip = ringpost_address::parse_ip(text).ok_or_else(|| format!("`{text}` is not an address"))?;
                Ok(ip.to_string())
            };
            each(text, address)
        }
        ServiceKind::MailAddrMap => each(text, |one| Ok(read::<AddressPattern>(one)?.0)),
        ServiceKind::RelayHost => each(text, |one| Ok(read::<RelayHost>(one)?.to_string())),
        ServiceKind::Dkim => each(text, |one| Ok(dkim(&read::<DkimKey>(one)?))),
        // Chain and key, or a user's name.
        ServiceKind::Cert if text.contains("-----BEGIN ") => Ok("PEM".to_owned()),
        ServiceKind::Cert => {
            let part = |part: &str| Pem::parse(part).map_or_else(|_| part.to_owned(), |pem| format!("{pem:?}"));
            Ok(text.split_whitespace().map(part).collect::<Vec<_>>().join(" "))
        }
    }
}

/// A record with the user's name in it, whether it has one or not.
pub(super) fn user(key: &str, record: &UserRecord) -> String {
    let UserRecord { name, uid, gid, home } = record;
    format!("{}:{uid}:{gid}:{home}", name.as_deref().unwrap_or(&key.to_lowercase()))
}

/// Who logs in.
pub(super) fn login(key: &str, credentials: &Credentials) -> String {
    format!("{}:{SECRET}", credentials.user.as_deref().unwrap_or(key))
}

pub(super) fn dkim(DkimKey { selector, key }: &DkimKey) -> String {
    format!("{selector}:{}", key.display())
}

pub(super) fn joined(values: impl IntoIterator<Item = String>) -> String {
    values.into_iter().collect::<Vec<_>>().join(BETWEEN)
}

fn read<V: Value>(text: &str) -> Result<V, String> {
    V::parse(text).map_err(|EntryError { what, .. }| format!("`{text}` is not {what}"))
}

/// Values between commas or white space.
fn each(text: &str, one: impl Fn(&str) -> Result<String, String>) -> Result<String, String> {
    let values = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|value| !value.is_empty());
    Ok(values.map(one).collect::<Result<Vec<_>, _>>()?.join(BETWEEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_backends_are_read_as_the_server_reads_them() {
        use ServiceKind as S;
        for (service, key, text, expected) in [
            (S::Domain, "a.b.org", "1", "a.b.org"),
            (S::Alias, "staff", "gilles,eric@b.org,  \"|cmd a, b\"", "gilles, eric@b.org, |cmd a, b"),
            (S::UserInfo, "Vuser", "10:100:/tmp/v", "vuser:10:100:/tmp/v"),
            (S::UserInfo, "vuser", "vuser:x:10:100:V,,:/tmp/v:/bin/sh", "vuser:10:100:/tmp/v"),
            (S::Credentials, "gilles", "$6$salt$hash", "gilles:…"),
            (S::Credentials, "bleh", "gilles:secret", "gilles:…"),
            (S::Credentials, "joe", "joe:$6$salt$hash:10:100:J:/home/joe:/bin/sh", "joe:…"),
            (S::Auth, "gilles:secret", "", "gilles"),
            (S::AddrName, "192.0.2.1", "mx.example.org", "mx.example.org"),
            (S::SourceAddr, "", "192.0.2.1, [2001:DB8::1]", "192.0.2.1, 2001:db8::1"),
            (S::RelayHost, "", "smtp://a.example:25 b.example", "smtp://a.example, smtp://b.example"),
            (S::Dkim, "b.org", "s:/k", "s:/k"),
            (S::Cert, "b.org", "/c.pem\nfile:/k.pem", "file:/c.pem file:/k.pem"),
            (S::Cert, "CN=x", "gilles", "gilles"),
            (S::MailAddrMap, "gilles", "@b.org, x@c.org", "@b.org, x@c.org"),
        ] {
            assert_eq!(shown(service, key, text).as_deref(), Ok(expected), "{service} {text}");
        }
        for (service, text, why) in [
            (S::Alias, "two words", "`two words` is not an alias"),
            (S::UserInfo, "10:100", "`10:100` is not a user record"),
            (S::Credentials, "", "the entry is not user:password"),
            (S::SourceAddr, "x", "`x` is not an address"),
        ] {
            assert_eq!(shown(service, "k", text).unwrap_err(), why);
        }
    }
}

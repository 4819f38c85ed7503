//! Variable envelope return paths: mail to many leaves with a reverse-path for each recipient, `OWNER+USER=DOMAIN@ORIGIN`, so
//! that whatever comes back tells by its address whom it is about, also where its text does not. The form is that of Postfix and of
//! those who read it (Mailman and others); the first delimiter is that of sub-addresses, so that it comes back to the owner.
//!
//! Such an address is not signed: anybody can make one.

use ringpost_address::{is_domain_name, split_address};

use crate::limits::SRS_PATH_BYTES_MAX;

/// Between the user and the domain of the recipient.
pub const SEPARATOR: char = '=';

/// The reverse-path for mail from `sender` to `recipient`. `None`: the null sender has none, nor has an address that is
/// quoted or has a sub-address already, goes to an address literal, or would be longer than a path may be (254 bytes).
pub fn reverse_path(sender: &str, recipient: &str, delimiter: char) -> Option<String> {
    let (owner, origin) = split_address(sender)?;
    let (user, domain) = split_address(recipient)?;
    if owner.starts_with('"') || owner.contains(delimiter) || user.starts_with('"') || !is_domain_name(domain) {
        return None;
    }
    let made = format!("{owner}{delimiter}{user}{SEPARATOR}{domain}@{origin}");
    (made.len() <= SRS_PATH_BYTES_MAX).then_some(made)
}

/// Owner and recipient of an address of this form: of `list+joe=b.example@a.example`, `list@a.example` and `joe@b.example`. An
/// owner ends at the first delimiter, as everywhere, and a domain begins at the last `=`.
pub fn parse(address: &str, delimiter: char) -> Option<(String, String)> {
    let (local, origin) = split_address(address)?;
    let (owner, about) = local.split_once(delimiter)?;
    let (user, domain) = about.rsplit_once(SEPARATOR)?;
    let is_whole = !owner.is_empty() && !owner.starts_with('"') && !user.is_empty() && domain.contains('.');
    (is_whole && is_domain_name(domain)).then(|| (format!("{owner}@{origin}"), format!("{user}@{domain}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_tells_owner_and_recipient() {
        for (sender, recipient, delimiter, made) in [
            ("list@a.example", "joe@b.example", '+', "list+joe=b.example@a.example"),
            ("list@a.example", "joe+tag@b.example", '+', "list+joe+tag=b.example@a.example"),
            ("list@a.example", "x=y@b.example", '-', "list-x=y=b.example@a.example"),
            ("list@[192.0.2.1]", "Joe@B.Example", '+', "list+Joe=B.Example@[192.0.2.1]"),
        ] {
            assert_eq!(reverse_path(sender, recipient, delimiter).as_deref(), Some(made));
            assert_eq!(parse(made, delimiter), Some((sender.to_owned(), recipient.to_owned())), "{made}");
        }
    }

    #[test]
    fn what_cannot_have_the_form_stays_as_it_is() {
        let long = format!("{}@b.example", "l".repeat(240));
        for (sender, recipient) in [
            ("", "joe@b.example"),
            ("list", "joe@b.example"),
            ("\"a list\"@a.example", "joe@b.example"),
            ("list@a.example", "\"joe x\"@b.example"),
            ("list@a.example", "joe@[192.0.2.1]"),
            ("list@a.example", &long),
        ] {
            assert_eq!(reverse_path(sender, recipient, '+'), None, "{sender} {recipient}");
        }
    }

    #[test]
    fn other_addresses_are_none() {
        for address in [
            "",
            "list",
            "list@a.example",
            "list+joe@a.example",
            "list+joe=b@a.example",
            "list+=b.example@a.example",
            "list+joe=@a.example",
            "list+joe=b..example@a.example",
            "+joe=b.example@a.example",
            "\"list+joe=b.example\"@a.example",
            "list-joe=b.example@a.example",
        ] {
            assert_eq!(parse(address, '+'), None, "{address}");
        }
    }
}

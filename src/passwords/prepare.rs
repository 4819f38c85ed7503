//! Passwords as they are hashed for SCRAM: the same whichever way a keyboard or a system has written their letters.

use std::borrow::Cow;

use zeroize::Zeroizing;

/// A password prepared by SASLprep (RFC 4013, RFC 5802 §2.2). One that it forbids (with control characters, or letters that are
/// written in both directions) or does not know stays as it is, as with PostgreSQL, in whose form the keys are: so whoever has
/// such a password, and a server that does the same, agree.
pub fn prepared(password: &str) -> Zeroizing<String> {
    // One of which nothing is left must not become the empty one.
    let prepared = stringprep::saslprep(password).ok().filter(|prepared| !prepared.is_empty());
    let prepared = prepared.unwrap_or(Cow::Borrowed(password));
    Zeroizing::new(prepared.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_4013_are_prepared_as_it_says() {
        for (password, expected) in [
            ("I\u{ad}X", "IX"),
            ("user", "user"),
            ("USER", "USER"),
            ("\u{aa}", "a"),
            ("\u{2168}", "IX"),
            // Forbidden: a control character, and both directions.
            ("\u{7}", "\u{7}"),
            ("\u{627}1", "\u{627}1"),
        ] {
            assert_eq!(*prepared(password), expected, "{password:?}");
        }
    }

    #[test]
    fn what_is_typed_on_another_machine_is_the_same_password() {
        let composed = prepared("p\u{e4}ss w\u{f6}rt");
        assert_eq!(*composed, "p\u{e4}ss w\u{f6}rt");
        for other in ["pa\u{308}ss wo\u{308}rt", "p\u{e4}ss\u{a0}w\u{f6}rt", "p\u{e4}s\u{ad}s w\u{f6}rt"] {
            assert_eq!(prepared(other), composed, "{other:?}");
        }
        assert_ne!(prepared("P\u{e4}ss w\u{f6}rt"), composed, "letters keep their case");
        assert_eq!((prepared("").as_str(), prepared("\u{ad}").as_str()), ("", "\u{ad}"), "not the empty one");
    }
}

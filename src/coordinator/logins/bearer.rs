//! What a client of OAUTHBEARER (RFC 7628) or XOAUTH2 says: fields with U+0001 between them.

/// The token.
pub fn token(text: &str) -> Option<&str> {
    let field = text.split('\u{1}').find_map(|field| field.strip_prefix("auth="))?;
    let (kind, token) = field.split_once(' ')?;
    kind.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

/// Told to a client whose token is not good; it answers, and then hears that it has failed (RFC 7628 §3.2.3).
pub const DENIED: &str = r#"{"status":"invalid_token"}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found() {
        assert_eq!(token("n,a=g@x,\u{1}host=h\u{1}port=587\u{1}auth=Bearer abc==\u{1}\u{1}"), Some("abc=="));
        assert_eq!(token("user=g\u{1}auth=bearer t\u{1}\u{1}"), Some("t"));
        assert_eq!(token("user=g\u{1}auth=Basic t\u{1}\u{1}"), None);
    }
}

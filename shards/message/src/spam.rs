//! What a filter in front of us has said of a message, in the one field that OpenSMTPD's `maildir … junk` goes by.

/// Whether a header (fields with their line ends) has `X-Spam: yes`.
pub fn is_marked(header: &[u8]) -> bool {
    header.split(|byte| *byte == b'\n').any(|line| {
        let Some(colon) = memchr::memchr(b':', line) else { return false };
        let (name, value) = (line[..colon].trim_ascii_end(), line[colon + 1..].trim_ascii());
        let says_yes = value.get(..3).is_some_and(|word| word.eq_ignore_ascii_case(b"yes"));
        name.eq_ignore_ascii_case(b"X-Spam")
            && says_yes
            && value.get(3).is_none_or(|next| !next.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_one() {
        for yes in ["X-Spam: yes\r\n", "A: b\r\nx-spam:YES, score=9\r\n", "X-Spam : Yes\n"] {
            assert!(is_marked(yes.as_bytes()), "{yes:?}");
        }
        for no in
            ["", "X-Spam: no\r\n", "X-Spam:\r\n", "X-Spam: yesterday\r\n", "X-Spam-Level: yes\r\n", " X-Spam: yes\r\n"]
        {
            assert!(!is_marked(no.as_bytes()), "{no:?}");
        }
    }
}

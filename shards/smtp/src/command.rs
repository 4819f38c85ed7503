//! Commands of RFC 5321 §4.1.1 and RFC 3030: the verb of a line, and what its arguments mean.

/// The verbs that are known, whether implemented or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Helo,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Vrfy,
    Expn,
    Help,
    Quit,
    Starttls,
    Auth,
}

/// RFC 3207.
const STARTTLS: &[u8] = b"STARTTLS";

/// Splits a line without its CRLF into verb and arguments, without spaces round them. `None`: unknown.
pub(crate) fn split(line: &[u8]) -> Option<(Verb, &[u8])> {
    // The only verb that is not of four letters.
    if let Some((verb, rest)) = line.split_at_checked(STARTTLS.len())
        && verb.eq_ignore_ascii_case(STARTTLS)
    {
        return matches!(rest.first(), None | Some(b' ')).then(|| (Verb::Starttls, rest.trim_ascii()));
    }
    let (verb, rest) = line.split_first_chunk::<4>()?;
    let arguments = match rest.first() {
        None => rest,
        Some(b' ') => rest.trim_ascii(),
        Some(_) => return None,
    };
    // Clearing bit 5 maps exactly the two cases of a letter to the capital.
    let verb = match &verb.map(|byte| byte & 0xDF) {
        b"HELO" => Verb::Helo,
        b"EHLO" => Verb::Ehlo,
        b"MAIL" => Verb::Mail,
        b"RCPT" => Verb::Rcpt,
        b"DATA" => Verb::Data,
        b"BDAT" => Verb::Bdat,
        b"RSET" => Verb::Rset,
        b"NOOP" => Verb::Noop,
        b"VRFY" => Verb::Vrfy,
        b"EXPN" => Verb::Expn,
        b"AUTH" => Verb::Auth,
        b"HELP" => Verb::Help,
        b"QUIT" => Verb::Quit,
        _ => return None,
    };
    Some((verb, arguments))
}

/// Whether a line that has not ended yet is AUTH.
pub(crate) fn is_auth(input: &[u8]) -> bool {
    input.split_first_chunk::<5>().is_some_and(|(verb, _)| verb.eq_ignore_ascii_case(b"AUTH "))
}

/// What follows `FROM:` or `TO:`, case ignored. Blanks after the colon are forgiven: many programs send one.
pub(crate) fn after_keyword<'i>(arguments: &'i [u8], keyword: &[u8]) -> Option<&'i [u8]> {
    let (word, rest) = arguments.split_at_checked(keyword.len())?;
    word.eq_ignore_ascii_case(keyword).then(|| rest.trim_ascii_start())
}

/// Parameters after a path: `KEY` or `KEY=VALUE`, separated by spaces (RFC 5321 §4.1.2).
pub(crate) fn parameters(text: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    text.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).map(|word| match memchr::memchr(b'=', word) {
        Some(at) => (&word[..at], Some(&word[at + 1..])),
        None => (word, None),
    })
}

/// Size and `LAST` of BDAT (RFC 3030 §2).
pub(crate) fn chunk(arguments: &[u8]) -> Option<(u64, Chunk)> {
    let mut words = arguments.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let size = number(words.next()?)?;
    let chunk = match words.next() {
        None => Chunk::More,
        Some(word) if word.eq_ignore_ascii_case(b"LAST") => Chunk::Last,
        Some(_) => return None,
    };
    words.next().is_none().then_some((size, chunk))
}

/// Whether more chunks of the message follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    More,
    Last,
}

/// Up to 20 digits (RFC 1870 §4); what exceeds 64 bits is as large as can be.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0_u64, |value, digit| value.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_words_of_either_case() {
        assert_eq!(split(b"eHlO  a.example "), Some((Verb::Ehlo, &b"a.example"[..])));
        assert_eq!(split(b"QUIT"), Some((Verb::Quit, &b""[..])));
        assert_eq!(split(b"StartTLS "), Some((Verb::Starttls, &b""[..])));
        for unknown in
            [&b""[..], b"QUI", b"QUITX", b"MAILFROM:<>", b"\x51UIU", b"STARTTLSX", b"START", b"QU\x09T", b" QUIT"]
        {
            assert_eq!(split(unknown), None, "{unknown:?}");
        }
    }

    #[test]
    fn chunk_sizes() {
        assert_eq!(chunk(b"86 LAST"), Some((86, Chunk::Last)));
        assert_eq!(chunk(b"0"), Some((0, Chunk::More)));
        assert_eq!(chunk(b"99999999999999999999 last"), Some((u64::MAX, Chunk::Last)));
        for wrong in [&b""[..], b"-1", b"LAST", b"1 LAST x", b"1 FIRST", b"0x1", b"999999999999999999999"] {
            assert_eq!(chunk(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn keyword_and_parameters() {
        assert_eq!(after_keyword(b"from: <>", b"FROM:"), Some(&b"<>"[..]));
        assert_eq!(after_keyword(b"FROM <>", b"FROM:"), None);
        let found: Vec<_> = parameters(b" SIZE=10  SMTPUTF8 X=").collect();
        assert_eq!(found, [(&b"SIZE"[..], Some(&b"10"[..])), (b"SMTPUTF8", None), (b"X", Some(b""))]);
    }
}

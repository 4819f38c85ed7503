//! Replies that a configuration or a table gives: `550 5.7.1 text`.

use crate::limits::REPLY_TEXT_BYTES_MAX;
use crate::model::Reply;

/// Why a text is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadReply {
    /// It does not start with a code.
    Code,
    /// What else, to go behind ``a reply starts with a 4xx or 5xx code``.
    Text(&'static str),
}

/// `550 5.7.1 text`; the enhanced status (RFC 3463) may be left out.
pub(crate) fn parse(text: &str) -> Result<Reply, BadReply> {
    let (code, rest) = text.split_once(' ').unwrap_or((text, ""));
    let is_code = code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit()) && code.starts_with(['4', '5']);
    let code: u16 = code.parse().ok().filter(|_| is_code).ok_or(BadReply::Code)?;
    let rest = rest.trim();
    if rest.len() > REPLY_TEXT_BYTES_MAX {
        return Err(BadReply::Text(" and fits one line"));
    }
    if !rest.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        return Err(BadReply::Text(" and is plain ASCII"));
    }
    let (status, text) = match rest.split_once(' ').unwrap_or((rest, "")) {
        (status, text) if is_status(status) => {
            // RFC 2034 §4: the classes of code and status agree.
            if !status.starts_with(if code < 500 { '4' } else { '5' }) {
                return Err(BadReply::Text(", and its status begins with the same digit"));
            }
            (status.to_owned(), text)
        }
        _ => (format!("{}.7.1", code / 100), rest),
    };
    Ok(Reply { code, status, text: if text.is_empty() { "refused".to_owned() } else { text.to_owned() } })
}

fn is_status(word: &str) -> bool {
    let parts: Vec<&str> = word.split('.').collect();
    parts.len() == 3 && parts.iter().all(|p| (1..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies() {
        let good = |text: &str| parse(text).ok().map(|r| (r.code, r.status, r.text));
        assert_eq!(good("550 5.7.1 no thanks"), Some((550, "5.7.1".into(), "no thanks".into())));
        assert_eq!(good("451 later"), Some((451, "4.7.1".into(), "later".into())));
        assert_eq!(good("550"), Some((550, "5.7.1".into(), "refused".into())));
        for bad in ["no thanks", "250 ok", "550 4.7.1 mixed", "550 5.7.1 a\tb", "5500 x", "550 größe"] {
            assert_eq!(good(bad), None, "{bad}");
        }
    }
}

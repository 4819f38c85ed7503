//! Lists of aliases as text: the values of a K_ALIAS answer, the lines of a `.forward` or of an included file. One rule for
//! all: values are separated by commas and newlines, and `"…"` keeps a value with commas and spaces together.

use crate::tables::{AliasTarget, Value};

/// What a text stands for, in order.
///
/// # Errors
/// The first value that is none.
pub(crate) fn targets(text: &str) -> Result<Vec<AliasTarget>, String> {
    let mut found = Vec::new();
    for line in text.lines().map(without_comment) {
        for value in values(line) {
            let value = unquoted(value);
            if !value.is_empty() {
                found.push(AliasTarget::parse(&value).map_err(|_| value)?);
            }
        }
    }
    Ok(found)
}

/// A `#` at the begin of a line, or after white space and outside quotes, begins a comment (grammar §7.1).
fn without_comment(line: &str) -> &str {
    let (mut quoted, mut before) = (false, ' ');
    for (at, c) in line.char_indices() {
        match c {
            '"' if before != '\\' => quoted = !quoted,
            '#' if !quoted && before.is_whitespace() => return &line[..at],
            _ => {}
        }
        before = c;
    }
    line
}

fn values(line: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut before) = (false, ' ');
    line.split(move |c| {
        if c == '"' && before != '\\' {
            quoted = !quoted;
        }
        before = c;
        c == ',' && !quoted
    })
}

/// Quotes around a value are not part of it; nor are those around all that follows a `|`, as many write it.
fn unquoted(value: &str) -> String {
    let value = value.trim();
    let (bar, rest) = match value.strip_prefix('|') {
        Some(command) if is_quoted(command.trim()) => ("|", command.trim()),
        _ => ("", value),
    };
    if !is_quoted(rest) {
        return value.to_owned();
    }
    let inner = rest[1..rest.len() - 1].replace("\\\"", "\"");
    format!("{bar}{inner}")
}

/// Quoted from the first character to the last, in one piece.
fn is_quoted(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return false };
    let mut before = ' ';
    for c in inner.chars() {
        if c == '"' && before != '\\' {
            return false;
        }
        before = c;
    }
    before != '\\'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        targets(text).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn values_and_lines() {
        assert_eq!(read("gilles, eric@poolp.org ,chl"), ["gilles", "eric@poolp.org", "chl"]);
        assert_eq!(read("# mine\n\\gilles\n\neric@x.org # away\r\n"), ["\\gilles", "eric@x.org"]);
        assert_eq!(read("\"|/bin/x a, 'b c'\", /var/x"), ["|/bin/x a, 'b c'", "/var/x"]);
        assert_eq!(read("|\"/usr/bin/vacation gilles\""), ["|/usr/bin/vacation gilles"]);
        assert_eq!(read(r#""|/bin/x \"a b\"""#), ["|/bin/x 'a b'"]);
        assert_eq!(read("|/bin/x \"a, b\" c"), ["|/bin/x 'a, b' c"]);
        assert!(read("").is_empty() && read("# nothing\n \n").is_empty());
    }

    proptest::proptest! {
            /// What users write is read, or one value of it is blamed.
            #[test]
    fn any_text_is_read_or_blamed(text in "[a-c@,\"|/ #:%{}\n.=é]{0,40}") {
                match targets(&text) {
                    Ok(all) => for target in all {
                        let again = format!("\"{}\"", target.to_string().replace('"', "\\\""));
                        proptest::prop_assert_eq!(targets(&again), Ok(vec![target]), "{}", again);
                    },
                    Err(bad) => proptest::prop_assert!(!bad.is_empty() && !bad.contains('\n')),
                }
            }
        }

    #[test]
    fn what_is_no_value_is_named() {
        assert_eq!(targets("gilles, two words"), Err("two words".to_owned()));
        assert_eq!(targets("a@b@c"), Err("a@b@c".to_owned()));
    }
}

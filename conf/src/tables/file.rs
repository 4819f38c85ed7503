//! Lines of a data file (grammar §7.1): *the use decides* how one is read. Everything is a byte range of the text.

use std::ops::Range;

use ringpost_address::parse_ip;

use super::entry::is_passwd_line;

/// How the lines of a mapping are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Columns {
    /// K_ALIAS: a key, a colon or white space, values separated by commas; a line that begins with white space goes on.
    Alias,
    /// passwd(5) and the like: columns by white space, or by colons if there is none before the first colon. Only the first
    /// value is given.
    Record,
    /// The same, but in a line with colons the value is the whole line.
    WholeRecord,
    /// A key and words; also separated by commas.
    Words,
    /// A key and all that follows it as one value, whatever will read that; of a line of passwd(5) the whole line. Columns are
    /// as in [`Record`](Self::Record), but that only white space ends an address.
    Rest,
}

/// An entry of a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The key, without quotes.
    pub key: Range<usize>,
    /// The values, without quotes.
    pub values: Vec<Range<usize>>,
}

/// The entries of a list: the first column, and whether there are others. Blank lines and `#` lines are skipped.
pub fn list(text: &str) -> impl Iterator<Item = (Range<usize>, bool)> + '_ {
    lines(text).map(|line| {
        let (column, rest) = first_column(text, line.clone(), |_| false);
        let end = column.end;
        // In a file that is also read as a mapping, a colon ends the key.
        let has_colon = text[column.clone()].ends_with(':') && text.as_bytes().get(end) != Some(&b'"');
        let key = if has_colon { column.start..end - 1 } else { column };
        (key, !without_comment(text, rest).is_empty())
    })
}

/// The lines as they are, without the white space around them: regular expressions.
pub fn lines(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    raw_lines(text).map(|line| trim(text, line)).filter(|line| is_entry(&text[line.clone()]))
}

/// The entries of a mapping, in order. One at a time, for there may be millions.
pub fn mapping(text: &str, columns: Columns) -> impl Iterator<Item = Row> + '_ {
    let trimmed = raw_lines(text).map(|raw| (raw.start, trim(text, raw)));
    let mut entries = trimmed.filter(|(_, line)| is_entry(&text[line.clone()])).peekable();
    std::iter::from_fn(move || {
        let (_, first) = entries.next()?;
        let mut row = row(text, first, columns);
        let continues = |(begin, line): &(usize, Range<usize>)| columns == Columns::Alias && line.start > *begin;
        while let Some((_, line)) = entries.next_if(continues) {
            row.values.extend(values(text, without_comment(text, line), b","));
        }
        Some(row)
    })
}

fn row(text: &str, line: Range<usize>, columns: Columns) -> Row {
    let line = without_comment(text, line);
    match columns {
        Columns::Alias => {
            let (key, rest) = first_column(text, line, |c| c == ':');
            let rest = skip_colon(text, rest);
            Row { key, values: values(text, rest, b",") }
        }
        Columns::Words => {
            let (key, rest) = first_column(text, line, |_| false);
            let key = match text[key.clone()].strip_suffix(':') {
                Some(shorter) => key.start..key.start + shorter.len(),
                None => key,
            };
            Row { key, values: values(text, rest, b", \t") }
        }
        Columns::Rest => {
            let (first, rest) = first_column(text, line.clone(), |_| false);
            let column = &text[first.clone()];
            let (key, rest) = if is_passwd_line(&text[line.clone()]) {
                (first_column(text, line.clone(), |c| c == ':').0, line)
            } else if let Some(shorter) = column.strip_suffix(':') {
                (first.start..first.start + shorter.len(), rest)
            } else if rest.is_empty() && parse_ip(column).is_none() && first == line {
                first_column(text, line, |c| c == ':')
            } else {
                (first, rest)
            };
            let rest = skip_colon(text, rest);
            let inner = text[rest.clone()].strip_prefix('"').and_then(|inner| inner.strip_suffix('"'));
            let is_quoted = inner.is_some_and(|inner| !inner.contains('"'));
            let value = if is_quoted { rest.start + 1..rest.end - 1 } else { rest };
            Row { key, values: if value.is_empty() { Vec::new() } else { vec![value] } }
        }
        Columns::Record | Columns::WholeRecord => {
            let (key, rest) = first_column(text, line.clone(), |c| c == ':');
            let by_colons = text[rest.clone()].starts_with(':');
            let rest = skip_colon(text, rest);
            let value = if by_colons && columns == Columns::WholeRecord {
                line
            } else if by_colons {
                let end = text[rest.clone()].find(':').map_or(rest.end, |at| rest.start + at);
                trim(text, rest.start..end)
            } else {
                first_column(text, rest, |_| false).0
            };
            Row { key, values: if value.is_empty() { Vec::new() } else { vec![value] } }
        }
    }
}

fn raw_lines(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    text.split_inclusive('\n').map(move |line| {
        let begin = at;
        at += line.len();
        begin..at
    })
}

fn is_entry(line: &str) -> bool {
    !line.is_empty() && !line.starts_with('#')
}

fn trim(text: &str, range: Range<usize>) -> Range<usize> {
    let line = &text[range.clone()];
    let start = range.start + (line.len() - line.trim_start().len());
    start..start + line.trim().len()
}

/// A `#` after white space, outside quotes, begins a comment.
fn without_comment(text: &str, range: Range<usize>) -> Range<usize> {
    let mut quoted = false;
    let mut before = ' ';
    for (at, c) in text[range.clone()].char_indices() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted && before.is_whitespace() => return trim(text, range.start..range.start + at),
            _ => {}
        }
        before = c;
    }
    trim(text, range)
}

/// Up to white space or what `ends` it, or what stands in quotes; and what follows. Colons of address literals do not end it.
fn first_column(text: &str, line: Range<usize>, ends: impl Fn(char) -> bool) -> (Range<usize>, Range<usize>) {
    let line = trim(text, line);
    if let Some(inner) = text[line.clone()].strip_prefix('"')
        && let Some(end) = inner.find('"')
    {
        let start = line.start + 1;
        return (start..start + end, trim(text, start + end + 1..line.end));
    }
    let mut bracketed = false;
    for (at, c) in text[line.clone()].char_indices() {
        match c {
            '[' => bracketed = true,
            ']' => bracketed = false,
            c if c.is_whitespace() || (ends(c) && !bracketed) => {
                let end = line.start + at;
                return (line.start..end, trim(text, end..line.end));
            }
            _ => {}
        }
    }
    (line.clone(), line.end..line.end)
}

fn skip_colon(text: &str, range: Range<usize>) -> Range<usize> {
    match text[range.clone()].strip_prefix(':') {
        Some(_) => trim(text, range.start + 1..range.end),
        None => range,
    }
}

/// Values between separators outside quotes; quotes around a value are not part of it.
fn values(text: &str, range: Range<usize>, separators: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = range.start;
    let mut quoted = false;
    for at in range.clone() {
        match text.as_bytes()[at] {
            b'"' => quoted = !quoted,
            c if separators.contains(&c) && !quoted => {
                found.push(start..at);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(start..range.end);
    let unquote = |range: Range<usize>| {
        let range = trim(text, range);
        let inner = text[range.clone()].strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        if inner.is_some() { range.start + 1..range.end - 1 } else { range }
    };
    found.into_iter().map(unquote).filter(|range| !range.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str, columns: Columns) -> Vec<(&str, Vec<&str>)> {
        let slice = |range: Range<usize>| &text[range];
        mapping(text, columns).map(|row| (slice(row.key), row.values.into_iter().map(slice).collect())).collect()
    }

    #[test]
    fn lists() {
        let text = "# all\n a.example # x\n\n\"b c\" d\r\ne:\n10.0.0.0/8\n#\n2001:db8::1\n@x y # z\n";
        let all: Vec<_> = list(text).map(|(range, more)| (&text[range], more)).collect();
        let expected = [
            ("a.example", false),
            ("b c", true),
            ("e", false),
            ("10.0.0.0/8", false),
            ("2001:db8::1", false),
            ("@x", true),
        ];
        assert_eq!(all, expected);
        let text = "^a # b\n#\n  c d\n";
        assert_eq!(lines(text).map(|range| &text[range]).collect::<Vec<_>>(), ["^a # b", "c d"]);
    }

    #[test]
    fn aliases() {
        let text = "# sendmail's\nroot: gilles\nstaff:\tgilles, eric ,chl # three\n  denise,\n\t# not this\n\t\"|cmd a, b\"\ngilles@example.org gilles\n@example.org x\na@[IPv6:::1]: y\n\"q k\": z\nempty:\n";
        let expected = [
            ("root", vec!["gilles"]),
            ("staff", vec!["gilles", "eric", "chl", "denise", "|cmd a, b"]),
            ("gilles@example.org", vec!["gilles"]),
            ("@example.org", vec!["x"]),
            ("a@[IPv6:::1]", vec!["y"]),
            ("q k", vec!["z"]),
            ("empty", vec![]),
        ];
        assert_eq!(rows(text, Columns::Alias), expected);
    }

    #[test]
    fn records() {
        let text = "gilles $2b$x more\njoe:$6$y:1000:100:Joe Smith:/home/joe:/bin/sh\nbleh\tbleh:pass\n";
        let expected = [("gilles", vec!["$2b$x"]), ("joe", vec!["$6$y"]), ("bleh", vec!["bleh:pass"])];
        assert_eq!(rows(text, Columns::Record), expected);
        let text = "joe:x:1000:100:Joe Smith:/home/joe:/bin/sh\nv 10:100:/tmp/v\n";
        let expected = [("joe", vec!["joe:x:1000:100:Joe Smith:/home/joe:/bin/sh"]), ("v", vec!["10:100:/tmp/v"])];
        assert_eq!(rows(text, Columns::WholeRecord), expected);
    }

    #[test]
    fn words() {
        let text = "2001:db8::1 mx1.example.org\n192.0.2.1: mx2.example.org\na file:/x file:/y\nu @a.org, b@c.org\n";
        let expected = [
            ("2001:db8::1", vec!["mx1.example.org"]),
            ("192.0.2.1", vec!["mx2.example.org"]),
            ("a", vec!["file:/x", "file:/y"]),
            ("u", vec!["@a.org", "b@c.org"]),
        ];
        assert_eq!(rows(text, Columns::Words), expected);
    }
}

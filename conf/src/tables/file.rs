//! Lines of a data file (grammar §7.1).

use std::ops::Range;

/// How a line is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The first column.
    List,
    /// The whole line: regular expressions.
    Lines,
}

/// The entries of a text, as byte ranges of it, in order. Blank lines and `#` lines are skipped.
pub fn entries(text: &str, shape: Shape) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut at = 0;
    text.split_inclusive('\n').filter_map(move |line| {
        let begin = at;
        at += line.len();
        let start = begin + (line.len() - line.trim_start().len());
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        Some(match shape {
            Shape::Lines => start..start + line.len(),
            Shape::List => first_column(line, start),
        })
    })
}

/// Up to white space, or what stands in quotes.
fn first_column(line: &str, start: usize) -> Range<usize> {
    if let Some(inner) = line.strip_prefix('"')
        && let Some(end) = inner.find('"')
    {
        return start + 1..start + 1 + end;
    }
    let end = line.find(char::is_whitespace).unwrap_or(line.len());
    start..start + end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, shape: Shape) -> Vec<&str> {
        entries(text, shape).map(|range| &text[range]).collect()
    }

    #[test]
    fn lists_and_lines() {
        let text = "# head\n\nexample.org enabled # required\r\n  \"a b\"\tc\n\t\nlast";
        assert_eq!(read(text, Shape::List), ["example.org", "a b", "last"]);
        assert_eq!(read("^a b#c$\n# no\n d \n", Shape::Lines), ["^a b#c$", "d"]);
        assert_eq!(read("\"open", Shape::List), ["\"open"]);
        assert!(read("", Shape::List).is_empty());
    }
}

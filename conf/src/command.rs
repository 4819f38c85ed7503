//! Commands: split into arguments when the file is read, with the quoting rules of a shell and without a shell. Formats are
//! filled in *inside* each argument, so a value never becomes two (grammar §4.4).

use std::fmt;

use crate::format::{Format, FormatError, FormatProblem, FormatValues};

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    words: Vec<Format>,
}

/// Why a text is no command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandProblem {
    /// There is no word in it.
    Empty,
    /// A quote that is never closed, at this byte.
    Unclosed(usize),
    /// A format in it is wrong. Its offset is in the whole text if the word has no quotes and escapes, else that of the word.
    Format(FormatProblem),
}

impl Command {
    /// Reads a command line.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: &str) -> Result<Self, CommandProblem> {
        let mut words = Vec::new();
        for Word { offset, text, is_plain } in split(text)? {
            let format = Format::parse(&text).map_err(|problem| {
                let inner = if is_plain { problem.offset() } else { 0 };
                CommandProblem::Format(problem.at(offset + inner))
            })?;
            words.push(format);
        }
        if words.is_empty() { Err(CommandProblem::Empty) } else { Ok(Self { words }) }
    }

    /// The program and its arguments for one delivery.
    ///
    /// # Errors
    /// A result that is too long.
    pub fn expand(&self, values: &FormatValues<'_>) -> Result<Vec<String>, FormatError> {
        self.words.iter().map(|word| word.expand_argument(values)).collect()
    }

    /// This command as a wrapper around another: an argument that is `%{mda}` and nothing else becomes the arguments of the
    /// other; within a longer one it is the other as a command line.
    ///
    /// # Errors
    /// A result that is too long.
    pub fn wrap(&self, inner: &[String], values: &FormatValues<'_>) -> Result<Vec<String>, FormatError> {
        let line = inner.iter().map(|word| shell_quote(word)).collect::<Vec<_>>().join(" ");
        let values = FormatValues { mda: &line, ..*values };
        let mut words = Vec::new();
        for word in &self.words {
            if word.is_mda() {
                words.extend_from_slice(inner);
            } else {
                words.push(word.expand_argument(&values)?);
            }
        }
        Ok(words)
    }

    /// Whether `%{mda}` is in it.
    pub fn mentions_mda(&self) -> bool {
        self.words.iter().any(Format::mentions_mda)
    }

    /// The words, unexpanded.
    pub fn words(&self) -> &[Format] {
        &self.words
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, word) in self.words.iter().enumerate() {
            let space = if at > 0 { " " } else { "" };
            write!(f, "{space}{}", quote(word.as_written()))?;
        }
        Ok(())
    }
}

struct Word {
    offset: usize,
    text: String,
    /// No quotes and escapes in it.
    is_plain: bool,
}

/// Words between white space; `'…'`, `"…"` and `\` as in a shell.
fn split(text: &str) -> Result<Vec<Word>, CommandProblem> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c.is_whitespace() {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert(Word { offset: at, text: String::new(), is_plain: true });
        match c {
            '\'' | '"' => {
                word.is_plain = false;
                loop {
                    match chars.next() {
                        None => return Err(CommandProblem::Unclosed(at)),
                        Some((_, end)) if end == c => break,
                        Some((_, '\\')) if c == '"' && chars.peek().is_some_and(|(_, c)| "\"\\$`".contains(*c)) => {
                            word.text.extend(chars.next().map(|(_, c)| c));
                        }
                        Some((_, other)) => word.text.push(other),
                    }
                }
            }
            '\\' => {
                word.is_plain = false;
                word.text.push(chars.next().map_or('\\', |(_, c)| c));
            }
            other => word.text.push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

/// So that [`split`] gives the word back.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !"'\"\\".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    in_quotes(word)
}

/// So that a shell gives the word back: what may mean something to one is in quotes.
fn shell_quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+,-./:=_".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word.to_owned() } else { in_quotes(word) }
}

fn in_quotes(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(text: &str) -> Vec<String> {
        let values = FormatValues { sender: "a b'c@x.org", recipient: "r@y.org", ..FormatValues::default() };
        Command::parse(text).unwrap().expand(&values).unwrap()
    }

    #[test]
    fn split_once_without_a_shell() {
        assert_eq!(expand("/bin/mda -f -"), ["/bin/mda", "-f", "-"]);
        assert_eq!(expand(r#"a 'b c' "d \" e" f\ g x''"#), ["a", "b c", "d \" e", "f g", "x"]);
        assert_eq!(
            expand("procmail -f %{sender} rcpt=%{rcpt}"),
            ["procmail", "-f", "a::b:c@x.org".replacen("::", ":", 1).as_str(), "rcpt=r@y.org"]
        );
        assert_eq!(expand("sh -c 'cat; echo %{rcpt.user[0]}'"), ["sh", "-c", "cat; echo r"]);
    }

    #[test]
    fn strangers_give_no_options() {
        let values = FormatValues { sender: "-x@x.org", recipient: "--y@y.org", ..FormatValues::default() };
        let words = |text: &str| Command::parse(text).unwrap().expand(&values).unwrap();
        assert_eq!(words("a -f %{sender} %{rcpt.user} -f%{rcpt}"), ["a", "-f", ":x@x.org", ":-y", "-f--y@y.org"]);
        assert_eq!(words("a %{rcpt.user:raw} %{rcpt.ext}-x"), ["a", "--y", ":x"]);
    }

    #[test]
    fn a_shell_reads_the_wrapped_command_as_it_was() {
        let inner =
            ["/bin/x", "a;b", "$(c)", "`d`", "e>f", "g&h", "i|j", "k'l", "m*", "n\no", "", "~", "#p", "q\\r", "ü"];
        let inner: Vec<String> = inner.iter().map(ToString::to_string).collect();
        let command = Command::parse("sh -c 'set -- %{mda}; printf \"%s|\" \"$@\"'").unwrap();
        let words = command.wrap(&inner, &FormatValues::default()).unwrap();
        let said = std::process::Command::new(&words[0]).args(&words[1..]).output().unwrap();
        assert_eq!(String::from_utf8(said.stdout).unwrap(), format!("{}|", inner.join("|")));
    }

    #[test]
    fn wrappers() {
        let inner = expand("/bin/cat 'a b'");
        let wrap = |text: &str| Command::parse(text).unwrap().wrap(&inner, &FormatValues::default()).unwrap();
        assert_eq!(wrap("/bin/wrap -x %{mda}"), ["/bin/wrap", "-x", "/bin/cat", "a b"]);
        assert_eq!(wrap("sh -c 'exec %{mda}'"), ["sh", "-c", "exec /bin/cat 'a b'"]);
        assert!(Command::parse("x %{mda}").unwrap().mentions_mda() && !Command::parse("x").unwrap().mentions_mda());
    }

    #[test]
    fn printed_and_read_again_it_is_the_same() {
        for text in ["a b", "a 'b c' \"it's\"", r"a\'b ''", "x %{rcpt} '%{sender} y'"] {
            let command = Command::parse(text).unwrap();
            assert_eq!(Command::parse(&command.to_string()).unwrap(), command, "{text}");
        }
    }

    #[test]
    fn mistakes() {
        assert_eq!(Command::parse("  "), Err(CommandProblem::Empty));
        assert_eq!(Command::parse("a 'b"), Err(CommandProblem::Unclosed(2)));
        let Err(CommandProblem::Format(problem)) = Command::parse("a x%{nix}") else { panic!() };
        assert_eq!(problem.offset(), 3);
    }
}

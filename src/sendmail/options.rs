//! The command line of sendmail, thirty years old: single letters, values attached or behind, and many that mean nothing to
//! us. What Postfix takes and ignores is taken and ignored; what nobody knows is an error.

use std::ffi::OsString;
use std::iter::Peekable;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use ringpost_smtp::dsn::{Notify, Ret, encode};

use super::submission::Wishes;
use crate::limits::ENVELOPE_ID_BYTES;

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Send the message on standard input (`-bm`).
    #[default]
    Deliver,
    /// Speak SMTP on standard input and output (`-bs`).
    Smtp,
    /// List the queue (`-bp`).
    List,
    /// Rebuild the alias database (`-bi`, `-I`).
    Aliases,
    /// Try all that waits now (`-q`).
    Flush,
}

/// A command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What is to be done.
    pub mode: Mode,
    /// `-t`: recipients stand in the header.
    pub from_header: bool,
    /// A line with a dot alone does not end the message (`-i`, `-oi`).
    pub ignore_dots: bool,
    /// `-f`, `-r`: envelope sender; `<>` or nothing is the null sender.
    pub sender: Option<String>,
    /// `-F`: full name of the sender.
    pub full_name: Option<String>,
    /// `-v`: say what the server says.
    pub verbose: bool,
    /// `-N`, `-R`, `-V`, `-XV`: what the sender wants to be told, and where.
    pub wishes: Wishes,
    /// Recipients.
    pub recipients: Vec<String>,
}

/// What is said to who asks.
pub const USAGE: &str = "\
usage: sendmail [-t] [-i] [-f SENDER] [-F NAME] [-v] [-N WHEN] [-R full|hdrs] [-V ID] [RECIPIENT …] < message
       sendmail -XV[xy] …  each recipient has a reverse-path of its own, with the delimiters x and y (VERP)
       sendmail -bs    SMTP on standard input and output
       sendmail -bp    list the queue (also: mailq)
       sendmail -bi    make the database of the system's aliases (also: newaliases)
       sendmail -q     try now what waits";

/// Options with a value, attached or as the next word.
const WITH_VALUE: &[u8] = b"ABCFLNORVXbefhopr";
/// Options without.
const ALONE: &[u8] = b"GIUcimntvx";

impl Options {
    /// Reads a command line, without the program's name.
    ///
    /// # Errors
    /// What cannot be understood, for standard error.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut words = arguments.into_iter().peekable();
        while let Some(word) = words.next() {
            let word = text(word)?;
            match word.as_bytes() {
                b"--" => {
                    for word in words.by_ref() {
                        options.recipients.push(text(word)?);
                    }
                }
                [b'-', b'-', ..] => return Err(format!("no such option: {word}\n{USAGE}")),
                [b'-', _, ..] => options.letters(&word[1..], &mut words)?,
                _ => options.recipients.push(word),
            }
        }
        Ok(options)
    }

    /// One word of options, without its hyphen.
    fn letters(&mut self, letters: &str, words: &mut Peekable<impl Iterator<Item = OsString>>) -> Result<(), String> {
        if let Some(delimiters) = old_verp(letters, words.peek()) {
            return self.with_value(b'X', format!("V{delimiters}"));
        }
        for (at, letter) in letters.char_indices() {
            let rest = &letters[at + letter.len_utf8()..];
            match u8::try_from(letter).unwrap_or(0) {
                // The interval of the daemon, or whose mail to try: all of it is tried, or nothing is meant by it.
                b'q' => {
                    if !rest.starts_with(|first: char| first.is_ascii_digit()) {
                        self.mode = Mode::Flush;
                    }
                    return Ok(());
                }
                // A level of debugging, for a program that is not this one.
                b'd' => return Ok(()),
                option if WITH_VALUE.contains(&option) => {
                    let value = match rest {
                        "" => text(words.next().ok_or_else(|| format!("-{letter} needs a value\n{USAGE}"))?)?,
                        attached => attached.to_owned(),
                    };
                    return self.with_value(option, value);
                }
                option if ALONE.contains(&option) => self.alone(option),
                _ => return Err(format!("no such option: -{letter}\n{USAGE}")),
            }
        }
        Ok(())
    }

    fn alone(&mut self, option: u8) {
        match option {
            b'i' => self.ignore_dots = true,
            b't' => self.from_header = true,
            b'v' => self.verbose = true,
            b'I' => self.mode = Mode::Aliases,
            _ => {}
        }
    }

    fn with_value(&mut self, option: u8, value: String) -> Result<(), String> {
        match (option, value.as_str()) {
            (b'f' | b'r', _) => self.sender = Some(value),
            (b'F', _) => self.full_name = Some(value),
            // RFC 3461 §4.
            (b'N', _) if Notify::parse(value.as_bytes()).is_some() => self.wishes.notify = value.to_ascii_uppercase(),
            (b'N', value) => {
                return Err(format!("-N is never, or some of success, failure and delay: {value}\n{USAGE}"));
            }
            (b'R', _) if Ret::parse(value.as_bytes()).is_some() => self.wishes.ret = value.to_ascii_uppercase(),
            (b'R', value) => return Err(format!("-R is full or hdrs: {value}\n{USAGE}")),
            (b'V', value) => match encode(value).filter(|id| id.len() <= ENVELOPE_ID_BYTES) {
                Some(id) => self.wishes.envelope_id = id,
                None => return Err(format!("-V is at most {ENVELOPE_ID_BYTES} characters of ASCII: {value}\n{USAGE}")),
            },
            // Postfix's. Sendmail's is a file to write to, which is none of ours.
            (b'X', value) if value.strip_prefix('V').is_some_and(is_delimiters) => {
                self.wishes.verp = Some(value[1..].to_owned());
            }
            (b'o', value) if value.starts_with('i') => self.ignore_dots = true,
            (b'o', value) if value.starts_with('t') => self.from_header = true,
            (b'b', "m" | "a") => self.mode = Mode::Deliver,
            (b'b', "s") => self.mode = Mode::Smtp,
            (b'b', "p") => self.mode = Mode::List,
            (b'b', "i") => self.mode = Mode::Aliases,
            (b'b', "d" | "D" | "l") => return Err("the server is started by `ringpost serve`".into()),
            (b'b', other) => return Err(format!("-b{other} is not supported\n{USAGE}")),
            _ => {}
        }
        Ok(())
    }
}

/// Two of the characters that Postfix takes for delimiters, or none.
fn is_delimiters(text: &str) -> bool {
    text.is_empty() || text.len() == 2 && text.bytes().all(|byte| b"-=+".contains(&byte))
}

/// What `-V` was before it was an envelope identifier, told apart as Postfix does: alone before another option, or with two
/// delimiters attached. The delimiters.
fn old_verp<'l>(letters: &'l str, next: Option<&OsString>) -> Option<&'l str> {
    let delimiters = letters.strip_prefix('V').filter(|delimiters| is_delimiters(delimiters))?;
    let is_alone = next.is_some_and(|next| matches!(next.as_bytes(), [b'-', letter] if letter.is_ascii_alphabetic()));
    (!delimiters.is_empty() || is_alone).then_some(delimiters)
}

fn text(word: OsString) -> Result<String, String> {
    String::from_utf8(word.into_vec())
        .map_err(|error| format!("not UTF-8: {}", String::from_utf8_lossy(error.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split(' ').filter(|word| !word.is_empty()).map(OsString::from))
    }

    #[test]
    fn what_programs_say() {
        let cron = parse("-FCronDaemon -i -B8BITMIME -oem root").unwrap();
        assert_eq!((cron.full_name.as_deref(), cron.ignore_dots), (Some("CronDaemon"), true));
        assert_eq!(cron.recipients, ["root"]);
        let php = parse("-t -i -fwww@example.org").unwrap();
        assert!(php.from_header && php.ignore_dots);
        assert_eq!(php.sender.as_deref(), Some("www@example.org"));
        let mutt = parse("-oem -oi -f me@x.test -- a@x.test -b@x.test").unwrap();
        assert_eq!(mutt.recipients, ["a@x.test", "-b@x.test"]);
        let git = parse("-i -ti a@x.test -N never -R hdrs -V id -O DeliveryMode=b -L label -h 5 -X /dev/null").unwrap();
        assert!(git.from_header && git.ignore_dots);
        let wishes = |notify: &str, ret: &str, id: &str| (notify.to_owned(), ret.to_owned(), id.to_owned());
        let Wishes { notify, ret, envelope_id, verp } = git.wishes;
        assert_eq!(((notify, ret, envelope_id), verp), (wishes("NEVER", "HDRS", "id"), None));
        let Wishes { notify, ret, envelope_id, .. } = parse("-Nfailure,delay -Rfull -Va+b x").unwrap().wishes;
        assert_eq!((notify, ret, envelope_id), wishes("FAILURE,DELAY", "FULL", "a+2Bb"));
        assert_eq!(git.recipients, ["a@x.test"]);
        let null = Options::parse(["-f", "", "x"].map(OsString::from)).unwrap();
        assert_eq!(null.sender.as_deref(), Some(""));
        assert_eq!(parse("-ot -oi x").unwrap(), parse("-t -i x").unwrap());
    }

    #[test]
    fn verp_is_asked_for_as_postfix_has_it() {
        for (line, verp, id) in [
            ("-XV x", Some(""), ""),
            ("-XV+= x", Some("+="), ""),
            ("-XV-= -V id x", Some("-="), "id"),
            ("-tXV", Some(""), ""),
            // Before it was an identifier.
            ("-V -t", Some(""), ""),
            ("-V -i x", Some(""), ""),
            ("-V-= x", Some("-="), ""),
            // What it is today.
            ("-V ab x", None, "ab"),
            ("-Vab x", None, "ab"),
            ("-V -12 x", None, "-12"),
            ("-X /var/log/mail x", None, ""),
            ("-XVerbose.log x", None, ""),
        ] {
            let Wishes { verp: found, envelope_id, .. } = parse(line).unwrap().wishes;
            assert_eq!((found.as_deref(), envelope_id.as_str()), (verp, id), "{line}");
        }
        assert_eq!(parse("-V -f a@x.test b@x.test").unwrap().sender.as_deref(), Some("a@x.test"));
    }

    #[test]
    fn modes() {
        for (line, mode) in [
            ("", Mode::Deliver),
            ("-bm", Mode::Deliver),
            ("-bs", Mode::Smtp),
            ("-bp", Mode::List),
            ("-bi", Mode::Aliases),
            ("-I", Mode::Aliases),
            ("-q", Mode::Flush),
            ("-qRx.test", Mode::Flush),
            // An interval is the daemon's.
            ("-q30m x", Mode::Deliver),
        ] {
            assert_eq!(parse(line).unwrap().mode, mode, "{line}");
        }
    }

    #[test]
    fn what_nobody_knows_is_said_so() {
        assert!(parse("-k").unwrap_err().starts_with("no such option: -k"));
        assert!(parse("--help").unwrap_err().contains("usage: sendmail"));
        assert!(parse("-tf").unwrap_err().starts_with("-f needs a value"));
        assert!(parse("-N sometimes x").unwrap_err().starts_with("-N is never"));
        assert!(parse("-R body x").unwrap_err().starts_with("-R is full or hdrs"));
        assert!(parse("-N success,delay -R full x").is_ok() && parse("-N success,never x").is_err());
        assert!(parse("-V ü x").unwrap_err().starts_with("-V is at most 100 characters"));
        assert!(parse(&format!("-V {} x", "i".repeat(101))).is_err());
        assert!(parse("-bd").unwrap_err().contains("ringpost serve"));
        assert!(parse("-bt").unwrap_err().contains("not supported"));
        assert!(Options::parse([OsString::from_vec(vec![b'a', 0xff])]).is_err());
        assert_eq!(parse("-").unwrap().recipients, ["-"]);
    }
}

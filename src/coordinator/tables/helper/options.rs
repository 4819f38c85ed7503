//! The configuration file of a helper as far as we read it for it: `KEY VALUE` lines, which it is told before its services
//! are asked for; and what it says in turn of the keys that it knows. An extension of smtpd-tables(7): `config|option|…`
//! lines stand among other `config|…` lines, and who does not know them passes them over.

use std::fmt;
use std::path::Path;

use ringpost_conf::HelperOption;
use serde::{Deserialize, Serialize};

use super::super::limits::HELPER_OPTIONS;
use super::super::settings::{ConfigFile, pairs};

/// Keys and values of a helper's configuration file. Values may be passwords.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given(Vec<(String, String)>);

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Given({} options)", self.0.len())
    }
}

impl Given {
    /// Of a file. Nothing if it cannot be read or is something else than lines of keys and values: a list of users, say,
    /// which the helper reads itself.
    pub fn read(path: &Path) -> Self {
        let Ok(file) = ConfigFile::read(path) else { return Self::default() };
        Self::of(&file.text)
    }

    fn of(text: &str) -> Self {
        let given: Vec<(String, String)> = pairs(text).take(HELPER_OPTIONS + 1).collect();
        let is_good = given.len() <= HELPER_OPTIONS && given.iter().all(|(key, value)| is_key(key) && is_value(value));
        if is_good { Self(given) } else { Self::default() }
    }

    /// The lines that tell it. The last says how many there were, and that keys may be registered.
    pub fn lines(&self) -> String {
        let each = self.0.iter().map(|(key, value)| format!("config|option|{key}|{value}\n"));
        each.chain([format!("config|options|{}\n", self.0.len())]).collect()
    }
}

/// What stands after `register|option|`: `KEY` or `KEY|required`.
pub fn registered(said: &str) -> Option<HelperOption> {
    let (key, required) = match said.split_once('|') {
        None => (said, false),
        Some((key, "required")) => (key, true),
        Some(_) => return None,
    };
    is_key(key).then(|| HelperOption { key: key.to_owned(), required })
}

/// A word of letters and digits that needs no quotes anywhere.
fn is_key(key: &str) -> bool {
    let is_part = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.bytes().all(is_part)
}

fn is_value(value: &str) -> bool {
    !value.contains(['\r', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_told_and_other_files_are_not() {
        let given = Given::of("# ours\n\nname\tstaff\r\n  members  \"gilles, eric\"  \nempty\nurl a|b?c=\"d\"\n");
        let lines = "config|option|name|staff\nconfig|option|members|gilles, eric\nconfig|option|empty|\n\
                     config|option|url|a|b?c=\"d\"\nconfig|options|4\n";
        assert_eq!(given.lines(), lines);
        assert_eq!(format!("{given:?}"), "Given(4 options)", "values are not shown");
        let nothing = "config|options|0\n";
        for text in
            ["", "root:x:0:0::/root:/bin/sh\n", "name staff\nroot: gilles\n", "10 x\n", "a b\0c\n", "a b\rc d\n"]
        {
            assert_eq!(Given::of(text).lines(), nothing, "{text:?}");
        }
        assert_eq!(Given::of(&"a b\n".repeat(HELPER_OPTIONS + 1)).lines(), nothing);
        assert_eq!(Given::read(Path::new("/nonesuch/x.conf")).lines(), nothing);
    }

    #[test]
    fn keys_are_registered_in_one_form() {
        let option = |key: &str, required| Some(HelperOption { key: key.into(), required });
        for (said, expected) in [
            ("name", option("name", false)),
            ("db.url|required", option("db.url", true)),
            ("name|", None),
            ("name|needed", None),
            ("", None),
            ("|required", None),
            ("two words", None),
        ] {
            assert_eq!(registered(said), expected, "{said}");
        }
    }
}

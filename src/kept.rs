//! What must survive a restart and fits a small file of the state directory: JSON, replaced as a whole, and durable on return
//! (`durable.rs`). A file that cannot be understood is set aside and told of; the server starts without it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::limits::SET_ASIDE;

/// The version of the files that are written, and the newest that is read.
const VERSION: u32 = 1;
/// They say where mail goes.
const MODE: u32 = 0o600;

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    content: T,
}

/// What was kept there; `None`: nothing yet.
///
/// # Errors
/// It cannot be read or understood: where, why, and under which name it still is.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, String> {
    let why = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => error.to_string(),
        Ok(bytes) => match serde_json::from_slice::<Versioned<T>>(&bytes) {
            Ok(Versioned { version: ..=VERSION, content }) => return Ok(Some(content)),
            Ok(Versioned { version, .. }) => format!("it is of a newer server (version {version}, not {VERSION})"),
            Err(error) => error.to_string(),
        },
    };
    let aside = aside(path);
    let instead = if aside.exists() { ", in place of what had that name" } else { "" };
    let now = match fs::rename(path, &aside) {
        Ok(()) => format!("; it is now {}{instead}", aside.display()),
        Err(_) => String::new(),
    };
    Err(format!("{} cannot be read: {why}{now}", path.display()))
}

/// Where a file is set aside: `.bad`, and what was set aside before stays, up to [`SET_ASIDE`] of them. Beyond that the last one
/// gives way.
fn aside(path: &Path) -> PathBuf {
    let numbered = |number: usize| {
        let mut name = path.as_os_str().to_owned();
        name.push(".bad");
        if number > 0 {
            name.push(format!(".{number}"));
        }
        PathBuf::from(name)
    };
    let mut all = (0..SET_ASIDE).map(numbered);
    all.find(|name| fs::symlink_metadata(name).is_err()).unwrap_or_else(|| numbered(SET_ASIDE - 1))
}

/// Keeps this there, in place of what was.
///
/// # Errors
/// It could not be written, and what was there before still is.
pub fn write(path: &Path, content: &impl Serialize) -> io::Result<()> {
    let bytes = serde_json::to_vec(&Versioned { version: VERSION, content })?;
    durable::replace(path, MODE, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Some {
        names: Vec<String>,
    }

    #[test]
    fn what_is_written_is_read_and_what_cannot_be_read_is_set_aside_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some.json");
        assert_eq!(read::<Some>(&path), Ok(None));
        let some = Some { names: vec!["a".into()] };
        write(&path, &some).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), r#"{"version":1,"names":["a"]}"#);
        assert_eq!(read::<Some>(&path), Ok(Option::Some(some)));
        let names = ["some.json.bad", "some.json.bad.1", "some.json.bad.2"];
        let bad = [
            (r#"{"version":1,"names":["#, "EOF while parsing"),
            (r#"{"version":2,"names":[]}"#, "it is of a newer server"),
            (r#"{"names":[]}"#, "missing field `version`"),
        ];
        for ((text, says), name) in bad.iter().zip(names) {
            fs::write(&path, text).unwrap();
            let why = read::<Some>(&path).unwrap_err();
            assert!(
                why.contains(says) && why.ends_with(&format!("; it is now {}", dir.path().join(name).display())),
                "{why}"
            );
            assert_eq!(read::<Some>(&path), Ok(None));
        }
        for ((text, _), name) in bad.iter().zip(names) {
            assert_eq!(fs::read_to_string(dir.path().join(name)).unwrap(), *text, "nothing is lost");
        }
        for number in 0..2 * SET_ASIDE {
            fs::write(&path, format!("bad {number}")).unwrap();
            let why = read::<Some>(&path).unwrap_err();
            assert_eq!(why.contains("in place of what had that name"), number >= SET_ASIDE - names.len(), "{why}");
        }
        let last = fs::read_to_string(dir.path().join(format!("some.json.bad.{}", SET_ASIDE - 1))).unwrap();
        assert_eq!(last, format!("bad {}", 2 * SET_ASIDE - 1));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), SET_ASIDE, "and no more");
        fs::create_dir(&path).unwrap();
        assert!(read::<Some>(&path).unwrap_err().contains("cannot be read: Is a directory"));
        assert!(write(&dir.path().join("no/such"), &Some { names: vec![] }).is_err());
    }
}

//! What must survive a restart and fits a small file of the state directory: JSON, replaced as a whole, and durable on return
//! (`durable.rs`). A file that cannot be understood is set aside and told of; the server starts without it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::durable;

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
    let mut aside = path.as_os_str().to_owned();
    aside.push(".bad");
    let aside = PathBuf::from(aside);
    let now = match fs::rename(path, &aside) {
        Ok(()) => format!("; it is now {}", aside.display()),
        Err(_) => String::new(),
    };
    Err(format!("{} cannot be read: {why}{now}", path.display()))
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
        for (bad, says) in [
            (r#"{"version":1,"names":["#, "EOF while parsing"),
            (r#"{"version":2,"names":[]}"#, "it is of a newer server"),
            (r#"{"names":[]}"#, "missing field `version`"),
        ] {
            fs::write(&path, bad).unwrap();
            let why = read::<Some>(&path).unwrap_err();
            let aside = dir.path().join("some.json.bad");
            assert!(why.contains(says) && why.contains(&aside.display().to_string()), "{why}");
            assert_eq!(fs::read_to_string(&aside).unwrap(), bad, "nothing is lost");
            assert_eq!(read::<Some>(&path), Ok(None));
        }
        fs::create_dir(&path).unwrap();
        assert!(read::<Some>(&path).unwrap_err().contains("cannot be read: Is a directory"));
        assert!(write(&dir.path().join("no/such"), &Some { names: vec![] }).is_err());
    }
}

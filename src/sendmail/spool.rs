//! Messages that the server does not take now, a file each below the state directory. A file is there as a whole or not at
//! all; it goes when the server has taken it, so a crash in between may send it twice and loses none.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ringpost_io::sys::{Lock, LockError};
use ringpost_message::dsn;
use ringpost_smtp::client::{RecipientResult, RemoteReply};
use ringpost_smtp::dsn::decode;

use super::dialogue::{Dialogue, Entrance};
use super::submission::{Composed, Submission, Wishes};
use crate::clock::unix_ms;
use crate::durable;
use crate::limits::{SPOOL_LINE_BYTES, SUBMIT_BYTES};

/// What a file of the spool is called at the end.
pub(super) const SUFFIX: &str = ".mail";

/// The spool of a state directory.
pub fn dir(state: &Path) -> PathBuf {
    state.join("spool")
}

/// Whether something waits there.
pub fn waits(state: &Path) -> bool {
    list(&dir(state)).is_ok_and(|names| !names.is_empty())
}

/// Keeps a message; it is durable on return.
///
/// # Errors
/// The directory cannot be written.
pub fn keep(state: &Path, submission: &Submission) -> io::Result<()> {
    make(state)?;
    let whose = submission.uid.map(whose).unwrap_or_else(|| SUFFIX.to_owned());
    let name = format!("{:013}-{}-{:016x}{whose}", submission.at_ms, std::process::id(), submission.random);
    write(&dir(state), &name, submission)
}

/// The end of the names of what a user has left.
fn whose(uid: u32) -> String {
    format!("-of-{uid}{SUFFIX}")
}

/// How many messages that a user has left wait here.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn waiting_of(state: &Path, uid: u32) -> io::Result<usize> {
    let end = whose(uid);
    Ok(list(&dir(state))?.iter().filter(|name| name.ends_with(&end)).count())
}

/// Makes the directory.
pub(super) fn make(state: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir(state))?;
    File::open(state)?.sync_all()
}

fn write(dir: &Path, name: &str, submission: &Submission) -> io::Result<()> {
    durable::replace(&dir.join(name), 0o600, &submission.to_file()?)
}

/// Hands all that waits to the server, oldest first. What the server does not take now stays; of what it refuses for good
/// the sender gets a report. `complain` takes what an administrator should know.
///
/// # Errors
/// The server cannot be reached, or the directory not be read. Another who does the same at this moment is no error.
pub fn flush(state: &Path, entrance: &Entrance, mut complain: impl FnMut(&str)) -> io::Result<()> {
    let dir = dir(state);
    if !waits(state) {
        return Ok(());
    }
    let _lock = match Lock::try_exclusive(&dir.join(".lock")) {
        Ok(lock) => lock,
        Err(LockError::Held { .. }) => return Ok(()),
        Err(LockError::Io(error)) => return Err(error),
    };
    let mut kept: Option<(Option<u32>, Dialogue)> = None;
    // Under the lock: what another has sent meanwhile is gone.
    for name in list(&dir)? {
        let Some(submission) = read(&dir, &name, &mut complain)? else { continue };
        let mut dialogue = match kept.take() {
            Some((uid, dialogue)) if uid == submission.uid && dialogue.is_ready() => dialogue,
            _ => Dialogue::begin(entrance.connect(submission.uid)?)?,
        };
        let composed = submission.compose(dialogue.hostname());
        let results = dialogue.send(&composed);
        let left = settle(&submission, &composed, &results, &mut dialogue);
        if left.is_empty() {
            fs::remove_file(dir.join(&name))?;
        } else if left.len() < submission.recipients.len() {
            write(&dir, &name, &submission.only_for(left))?;
        }
        kept = Some((submission.uid, dialogue));
    }
    if let Some((_, dialogue)) = kept {
        dialogue.quit();
    }
    Ok(())
}

/// A message, unless it cannot be read now, or never: then it is put aside.
fn read(dir: &Path, name: &str, complain: &mut impl FnMut(&str)) -> io::Result<Option<Submission>> {
    let path = dir.join(name);
    let mut bytes = Vec::new();
    let opened = File::open(&path).and_then(|file| file.take(SUBMIT_BYTES + SPOOL_LINE_BYTES).read_to_end(&mut bytes));
    if let Err(error) = opened {
        complain(&format!("{}: {error}", path.display()));
        return Ok(None);
    }
    match Submission::from_file(&bytes) {
        Ok(submission) => Ok(Some(submission)),
        Err(why) => {
            complain(&format!("{}: {why}; it is kept as {name}.bad", path.display()));
            fs::rename(&path, dir.join(format!("{name}.bad")))?;
            Ok(None)
        }
    }
}

/// Recipients of whom it is not over yet. Those who were refused are told to the sender, if there is one.
fn settle(
    submission: &Submission,
    composed: &Composed,
    results: &[RecipientResult],
    dialogue: &mut Dialogue,
) -> Vec<String> {
    let mut refused: Vec<(&str, &RemoteReply)> = Vec::new();
    for (recipient, result) in composed.recipients.iter().zip(results) {
        if let RecipientResult::Permanent(reply) = result {
            refused.push((recipient, reply));
        }
    }
    let is_asked = submission.wishes.notify().wants_failure() && !composed.sender.is_empty();
    let told = refused.is_empty() || !is_asked || {
        let report = report(submission, composed, &refused, dialogue.hostname());
        dialogue.is_ready() && matches!(dialogue.send(&report)[..], [RecipientResult::Delivered(_)])
    };
    let is_open = |result: &RecipientResult| match result {
        RecipientResult::Delivered(_) => false,
        RecipientResult::Transient(_) | RecipientResult::NextTransaction(_) => true,
        // The sender has to be told some day: they are tried once more, and then he is.
        RecipientResult::Permanent(_) => !told,
    };
    let open = submission.recipients.iter().zip(results).filter(|(_, result)| is_open(result));
    open.map(|(recipient, _)| recipient.clone()).collect()
}

/// The server has refused recipients to us, so it is ours to tell.
fn report(submission: &Submission, composed: &Composed, refused: &[(&str, &RemoteReply)], hostname: &str) -> Composed {
    let id = format!("{:016x}", submission.random);
    let recipients: Vec<dsn::Recipient<'_>> = refused
        .iter()
        .map(|(address, reply)| dsn::Recipient {
            address,
            told: None,
            original: "",
            status: reply.status_or_default(),
            remote: hostname,
            reply: reply.text(),
            output: "",
            code: reply.code(),
            expired: false,
        })
        .collect();
    let now_ms = unix_ms();
    let text = dsn::compose(&dsn::Report {
        hostname,
        sender: &composed.sender,
        queue_id: &id,
        bounce_id: &format!("{id}-refused"),
        arrived_ms: submission.at_ms,
        now_ms,
        smtputf8: !composed.sender.is_ascii(),
        envelope_id: &decode(&submission.wishes.envelope_id),
        returns_all: false,
        is_lost: false,
        recipients: &recipients,
        original: &composed.text,
    });
    let recipients = vec![composed.sender.clone()];
    Composed { sender: String::new(), recipients, text, wishes: Wishes::default() }
}

/// Names of waiting messages, oldest first; none where there is no directory.
fn list(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string()
            && name.ends_with(SUFFIX)
            && !name.starts_with('.')
        {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::message::Message;
    use super::*;

    fn submission(at_ms: u64) -> Submission {
        let message = Message { text: b"Subject: x\r\n\r\n".to_vec(), recipients: vec!["a@x.test".into()] };
        Submission::new(message, "u".into(), String::new(), at_ms, 7)
    }

    #[test]
    fn what_is_kept_is_listed_in_order_and_nothing_else_is() {
        let state = tempfile::tempdir().unwrap();
        assert!(!waits(state.path()));
        keep(state.path(), &submission(2000)).unwrap();
        keep(state.path(), &submission(1000)).unwrap();
        let dir = dir(state.path());
        fs::write(dir.join(".half.mail"), "x").unwrap();
        fs::write(dir.join("old.mail.bad"), "x").unwrap();
        let names = list(&dir).unwrap();
        assert_eq!(names.len(), 2);
        assert_eq!(read(&dir, &names[0], &mut |_| {}).unwrap(), Some(submission(1000)));
        assert!(waits(state.path()));
        for path in [dir.clone(), dir.join(&names[0])] {
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
        }
    }

    #[test]
    fn without_a_server_all_stays() {
        let state = tempfile::tempdir().unwrap();
        keep(state.path(), &submission(1)).unwrap();
        let entrance = Entrance::Net(Vec::new());
        assert!(flush(state.path(), &entrance, |_| {}).is_err());
        assert!(waits(state.path()));
        flush(&state.path().join("nowhere"), &entrance, |_| {}).unwrap();
    }

    #[test]
    fn a_file_of_somebody_else_is_put_aside_once() {
        let state = tempfile::tempdir().unwrap();
        keep(state.path(), &submission(1)).unwrap();
        let dir = dir(state.path());
        let name = list(&dir).unwrap().remove(0);
        fs::write(dir.join(&name), "nonsense\n").unwrap();
        let entrance = Entrance::Net(Vec::new());
        let mut said = Vec::new();
        flush(state.path(), &entrance, |line| said.push(line.to_owned())).unwrap();
        flush(state.path(), &entrance, |line| said.push(line.to_owned())).unwrap();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(dir.join(format!("{name}.bad")).exists());
    }
}

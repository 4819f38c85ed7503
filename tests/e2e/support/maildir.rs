//! What has been delivered into a Maildir.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::text::original;
use super::wait::wait_for;

/// Every message in `new/`.
pub fn messages(dir: &Path) -> Vec<Vec<u8>> {
    let Ok(entries) = fs::read_dir(dir.join("new")) else { return Vec::new() };
    entries.map(|entry| fs::read(entry.expect("entry").path()).expect("readable")).collect()
}

/// The message of which `is_it` says so, when it has arrived.
pub fn wait_for_message(dir: &Path, what: &str, is_it: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    wait_for(&format!("{what} in {}", dir.display()), Duration::from_secs(15), || {
        messages(dir).into_iter().find(|message| is_it(message))
    })
}

/// The part of the message with key `key` that the test wrote, when it has arrived.
pub fn wait_for_key(dir: &Path, key: &str) -> Vec<u8> {
    let line = format!("{}{key}\n", super::text::MARK);
    let message = wait_for_message(dir, key, |message| original(message).starts_with(line.as_bytes()));
    original(&message).to_vec()
}

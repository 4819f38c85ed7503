//! SQLite databases, made by the tool that people use.

use std::path::Path;
use std::process::Command;

/// Runs statements.
#[track_caller]
pub fn sqlite(database: &Path, sql: &str) {
    let done = Command::new("sqlite3").arg(database).arg(sql).status();
    assert!(done.expect("sqlite3, from the package of that name").success(), "{sql}");
}

//! The other subcommands of the program, run against a server's state.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use super::server::{PROGRAM, Server};

/// Runs the program.
pub fn run(args: &[&str]) -> Output {
    Command::new(PROGRAM).args(args).output().expect("the program starts")
}

/// Standard output of a run that must succeed.
pub fn succeed(args: &[&str]) -> String {
    let output = run(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ringpost {args:?}: {}\n{stderr}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// An envelope as `queue list --json` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: String,
    pub sender: String,
    pub recipient: String,
    pub state: String,
    pub reason: String,
    pub attempts: u64,
}

/// `queue list --json`: one object a line.
pub fn queue_list(state: &Path) -> Vec<Listed> {
    let text = succeed(&["queue", "list", "--json", "--state", &state.display().to_string()]);
    text.lines().map(|line| listed(&serde_json::from_str(line).expect("an object a line"))).collect()
}

fn listed(value: &Value) -> Listed {
    let text = |name: &str| value[name].as_str().unwrap_or_else(|| panic!("{name} in {value}")).to_owned();
    Listed {
        id: text("id"),
        sender: text("sender"),
        recipient: text("recipient"),
        state: text("state"),
        reason: text("reason"),
        attempts: value["attempts"].as_u64().unwrap_or_else(|| panic!("attempts in {value}")),
    }
}

impl Server {
    /// `ringpost ARGS --state DIR`, which must succeed.
    pub fn tell(&self, args: &[&str]) -> String {
        let state = self.state.display().to_string();
        succeed(&[args, &["--state", &state]].concat())
    }

    /// What waits.
    pub fn queue(&self) -> Vec<Listed> {
        queue_list(&self.state)
    }

    /// All that is deferred is due now.
    pub fn retry(&self) {
        self.tell(&["queue", "retry"]);
    }

    /// `stats --json`.
    pub fn stats(&self) -> Value {
        serde_json::from_str(&self.tell(&["stats", "--json"])).expect("JSON")
    }
}

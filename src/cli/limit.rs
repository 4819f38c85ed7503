//! `ringpost limit`: limits of sites, changed on the running server.

use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use ringpost_conf::overrides;
use ringpost_perf::report::duration;

use super::client::{Server, json_lines, print};
use super::show::table;
use crate::clock::unix_ms;
use crate::coordinator::overrides::{LimitRow, SetBy};
use crate::exit::{Code, Failure};
use crate::ipc::control::{Answer, Request};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Set limits for a selector, in place of those that were set for it
    ///
    /// They win over all shapes of the configuration, also over an action's own, until their time is over or they are
    /// unset; reloads and restarts leave them in force. Limits: connections, connections-per-host, connections-per-source,
    /// open-rate, rate, rate-per-source, burst, messages-per-connection, recipients, idle, as `shaping` has them.
    Set(Set),
    /// End what was set for a selector
    Unset(Unset),
    /// What is in force, since when, until when, and who has set it
    List(List),
}

#[derive(Args, Clone, Debug)]
pub struct Set {
    /// `domain:example.org`, `mx:*.example.org`, `host:mx1.example.org` or `default`
    selector: String,
    /// `rate=5/s`, `connections=2`, `idle=30s`
    #[arg(value_name = "KEY=VALUE", required = true)]
    limits: Vec<String>,
    /// End them after this time: `30m`, `2h`
    #[arg(long = "for", value_name = "TIME", value_parser = overrides::time)]
    time: Option<Duration>,
}

#[derive(Args, Clone, Debug)]
pub struct Unset {
    /// As it was set
    selector: String,
}

#[derive(Args, Clone, Debug)]
pub struct List {
    /// Also the configuration's shapes, each with its line
    #[arg(long)]
    all: bool,
    /// One JSON object for each
    #[arg(long)]
    json: bool,
}

pub fn run(command: Command, state: &Path) -> Result<(), Failure> {
    let usage = |why| Failure::new(Code::Usage, why);
    let request = match command {
        Command::Set(Set { selector, limits, time }) => {
            overrides::shaping(&selector, &limits).map_err(usage)?;
            Request::LimitSet { selector, limits, time_ms: time.map(|time| time.as_millis() as u64) }
        }
        Command::Unset(Unset { selector }) => {
            overrides::name(&selector).map_err(usage)?;
            Request::LimitUnset { selector }
        }
        Command::List(options) => return list(&options, state),
    };
    let said = Server::running(state)?.ask(&request, |_| Ok(()))?;
    print(&format!("{said}\n"))
}

fn list(options: &List, state: &Path) -> Result<(), Failure> {
    let mut rows = Vec::new();
    Server::running(state)?.ask(&Request::Limits { all: options.all }, |answer| {
        if let Answer::Limit(row) = answer {
            rows.push(row);
        }
        Ok(())
    })?;
    if options.json {
        return print(&json_lines(&rows)?);
    }
    let now_ms = unix_ms();
    print(&table(LIMITS, rows.iter().map(|row| cells(row, now_ms))))
}

const LIMITS: [&str; 5] = ["for", "set", "ends", "by", "limits"];

fn cells(row: &LimitRow, now_ms: u64) -> [String; 5] {
    let LimitRow { of, limits, by, since_ms, until_ms } = row;
    let since = since_ms.map(|at| format!("{} ago", duration(now_ms.saturating_sub(at) * 1000)));
    let until = until_ms.map(|at| format!("in {}", duration(at.saturating_sub(now_ms) * 1000)));
    let by = match by {
        SetBy::User(user) => format!("user {user}"),
        SetBy::Line(line) => line.clone(),
    };
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [of.clone(), or_none(since), or_none(until), by, limits.join(" ")]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_since_when_until_when_and_by_whom() {
        let row = LimitRow {
            of: "domain:x.example".into(),
            limits: vec!["connections=1".into(), "rate=5/s".into()],
            by: SetBy::User(1000),
            since_ms: Some(1_000_000),
            until_ms: Some(1_180_000),
        };
        let cells_of = |row: &LimitRow| cells(row, 1_060_000);
        assert_eq!(
            cells_of(&row),
            ["domain:x.example", "60.0 s ago", "in 2.00 min", "user 1000", "connections=1 rate=5/s"]
        );
        let by = SetBy::Line("mail.conf:3".into());
        let row = LimitRow { of: "shaping slow".into(), since_ms: None, until_ms: None, by, ..row };
        assert_eq!(cells_of(&row)[..4], ["shaping slow", "-", "-", "mail.conf:3"]);
    }
}

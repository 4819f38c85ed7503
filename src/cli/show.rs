//! `ringpost show`: where mail goes, as the running server knows it. Hosts and how they do, sites and what waits for them,
//! routes and what holds them up.

use std::fmt::Write;
use std::path::Path;

use clap::{Args, Subcommand};
use ringpost_perf::report::duration;
use ringpost_shard::{HostRow, RelayRow, RouteRow};
use serde::Serialize;

use super::client::{Server, json_lines, print};
use crate::clock::unix_ms;
use crate::coordinator::warmup::WarmupRow;
use crate::exit::Failure;
use crate::ipc::control::{Answer, Overviewed, Request};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Hosts by address: whether they work, connections, the last fault
    Hosts(Options),
    /// Sites: messages that wait and that are on their way, limits
    Relays(Options),
    /// Routes by source address: connections, and what holds them up
    Routes(Options),
    /// Source addresses that warm up: the day of each, and what it has sent to which site
    Warmup(Options),
}

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Only those with this in their name or address
    #[arg(value_name = "TEXT")]
    matching: Option<String>,
    /// One JSON object for each
    #[arg(long)]
    json: bool,
}

pub fn run(command: Command, state: &Path) -> Result<(), Failure> {
    let now_ms = unix_ms();
    let overview = |of, options: &Options| Request::Overview { of, matching: options.matching.clone() };
    match command {
        Command::Hosts(options) => show(
            state,
            &options,
            &overview(Overviewed::Hosts, &options),
            HOSTS,
            |row| host(row, now_ms),
            |answer| {
                if let Answer::Host(row) = answer { Some(*row) } else { None }
            },
        ),
        Command::Relays(options) => {
            show(state, &options, &overview(Overviewed::Relays, &options), RELAYS, relay, |answer| {
                if let Answer::Relay(row) = answer { Some(*row) } else { None }
            })
        }
        Command::Routes(options) => show(
            state,
            &options,
            &overview(Overviewed::Routes, &options),
            ROUTES,
            |row| route(row, now_ms),
            |answer| {
                if let Answer::Route(row) = answer { Some(*row) } else { None }
            },
        ),
        Command::Warmup(options) => show(
            state,
            &options,
            &Request::Warmups { matching: options.matching.clone() },
            WARMUPS,
            |row| warmup(row, now_ms),
            |answer| {
                if let Answer::Warmup(row) = answer { Some(row) } else { None }
            },
        ),
    }
}

/// Asks for rows and prints them; `cells` makes the columns under `heads` of one.
fn show<T: Serialize, const N: usize>(
    state: &Path,
    options: &Options,
    request: &Request,
    heads: [&str; N],
    cells: impl Fn(&T) -> [String; N],
    pick: impl Fn(Answer) -> Option<T>,
) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let said = Server::running(state)?.ask(request, |answer| {
        rows.extend(pick(answer));
        Ok(())
    })?;
    if options.json {
        print(&json_lines(&rows)?)?;
    } else {
        print(&table(heads, rows.iter().map(cells)))?;
    }
    if !said.is_empty() {
        eprintln!("ringpost: {said}");
    }
    Ok(())
}

/// Columns of fixed order; the last is the longest, and has no width.
pub(super) fn table<const N: usize>(heads: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(heads.map(str::to_owned)).chain(rows).collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let wide = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            // A String takes everything.
            let _ = write!(line, "{cell:wide$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn ahead(at_ms: u64, now_ms: u64) -> String {
    format!("for {}", duration(at_ms.saturating_sub(now_ms) * 1000))
}

fn ago(at_ms: u64, now_ms: u64) -> String {
    duration(now_ms.saturating_sub(at_ms) * 1000)
}

const HOSTS: [&str; 6] = ["host", "address", "state", "open", "failed", "last fault"];

fn host(row: &HostRow, now_ms: u64) -> [String; 6] {
    let HostRow { host, address, demands, state, until_ms, connections, failures, fault, since_ms, .. } = row;
    let mut state = match until_ms {
        Some(until_ms) => format!("{state} {}", ahead(*until_ms, now_ms)),
        None => state.to_string(),
    };
    if let Some(until_ms) = row.outdone_until_ms {
        let first = if address.is_ipv4() { "IPv6" } else { "IPv4" };
        state += &format!(", {first} first {}", ahead(until_ms, now_ms));
    }
    let failed = match since_ms {
        Some(since_ms) => format!("{failures} in {}", ago(*since_ms, now_ms)),
        None => "-".to_owned(),
    };
    let address = if demands.is_empty() { address.to_string() } else { format!("{address} ({demands})") };
    [host.clone(), address, state, connections.to_string(), failed, fault.clone().unwrap_or_else(|| "-".to_owned())]
}

const RELAYS: [&str; 6] = ["waiting", "sending", "open", "routes", "limits", "relay"];

fn relay(row: &RelayRow) -> [String; 6] {
    let RelayRow { relay, shaping, routes, waiting, in_flight, connections, .. } = row;
    let mut limits = format!("{} connections", row.connections_max);
    if let Some(rate) = row.rate {
        limits += &format!(", {rate}");
    }
    if let Some(rate) = row.open_rate {
        limits += &format!(", {rate} opened");
    }
    let relay = if shaping.is_empty() { relay.clone() } else { format!("{relay} shaping {shaping}") };
    [waiting.to_string(), in_flight.to_string(), connections.to_string(), routes.to_string(), limits, relay]
}

const ROUTES: [&str; 5] = ["source", "open", "waiting", "route", "held up by"];

fn route(row: &RouteRow, now_ms: u64) -> [String; 5] {
    let RouteRow { source, relay, helo, login, terms, shaping, connections, waiting, held, left_out, .. } = row;
    let mut name = format!("{relay} as {helo}");
    for (what, text) in [("login", login.as_deref().unwrap_or_default()), ("with", terms), ("shaping", shaping)] {
        if !text.is_empty() {
            name += &format!(" {what} {text}");
        }
    }
    let mut by = Vec::new();
    if let Some(out) = left_out {
        by.push(format!("source left out {}: {}", ahead(out.until_ms, now_ms), out.why));
    }
    if let Some(held) = held {
        let until = held.until_ms.map_or_else(String::new, |at_ms| format!(", {}", ahead(at_ms, now_ms)));
        by.push(format!("{}{until}", held.reason));
    }
    let source = source.map_or_else(|| "system".to_owned(), |source| source.to_string());
    let by = if by.is_empty() { "-".to_owned() } else { by.join("; ") };
    [source, connections.to_string(), waiting.to_string(), name, by]
}

const WARMUPS: [&str; 5] = ["source", "warm-up", "sent", "next", "site"];

fn warmup(row: &WarmupRow, now_ms: u64) -> [String; 5] {
    let WarmupRow { source, warmup, day, days, site, used, cap, until_ms } = row;
    let source = source.map_or_else(|| "system".to_owned(), |source| source.to_string());
    let (warmup, sent) = match cap {
        Some(cap) => (format!("{warmup} day {day} of {days}"), format!("{used} of {cap}")),
        None => (format!("{warmup} done"), "-".to_owned()),
    };
    let until = until_ms.map_or_else(|| "-".to_owned(), |at_ms| format!("in {}", ago(now_ms, at_ms)));
    [source, warmup, sent, until, site.clone().unwrap_or_else(|| "-".to_owned())]
}

#[cfg(test)]
mod tests {
    use ringpost_shard::{Blocked, HostState, LeftOut, Limit, Reason};

    use super::*;

    #[test]
    fn s81_hosts_are_shown_with_state_and_fault() {
        let paused = HostRow {
            host: "mx1.d.test".into(),
            address: "192.0.2.1:25".parse().unwrap(),
            demands: String::new(),
            state: HostState::Paused,
            until_ms: Some(1_090_000),
            connections: 0,
            opening: 0,
            failures: 3,
            fault: Some("connection refused".into()),
            since_ms: Some(1_000_000),
            outdone_until_ms: None,
            shard: 0,
        };
        let good = HostRow {
            host: "mx2.d.test".into(),
            state: HostState::Ok,
            until_ms: None,
            connections: 12,
            failures: 0,
            fault: None,
            since_ms: None,
            ..paused.clone()
        };
        let outdone = HostRow { outdone_until_ms: Some(1_660_000), ..good.clone() };
        assert_eq!(host(&outdone, 1_060_000)[2], "ok, IPv6 first for 10.0 min");
        let outdone = HostRow { address: "[2001:db8::1]:25".parse().unwrap(), ..outdone };
        assert_eq!(host(&outdone, 1_060_000)[2], "ok, IPv4 first for 10.0 min");
        let text = table(HOSTS, [paused, good].iter().map(|row| host(row, 1_060_000)));
        assert_eq!(
            text,
            "host        address       state              open  failed       last fault\n\
             mx1.d.test  192.0.2.1:25  paused for 30.0 s  0     3 in 60.0 s  connection refused\n\
             mx2.d.test  192.0.2.1:25  ok                 12    -            -\n"
        );
    }

    #[test]
    fn s81_relays_are_shown_with_their_limits() {
        let row = RelayRow {
            relay: "smtp+tls://mx.d.test:25".into(),
            shaping: "slow".into(),
            routes: 2,
            waiting: 7,
            in_flight: 1,
            connections: 3,
            connections_max: 5,
            messages_per_connection: 100,
            rate: Some(Limit { count: 10, per_ms: 1000 }),
            open_rate: Some(Limit { count: 30, per_ms: 60_000 }),
        };
        let text = table(RELAYS, [row].iter().map(relay));
        let last = text.lines().last().unwrap();
        assert_eq!(
            last,
            "7        1        3     2       5 connections, 10/s, 30/m opened  smtp+tls://mx.d.test:25 shaping slow"
        );
    }

    #[test]
    fn s78_warm_ups_are_shown_with_what_is_used_and_when_there_is_more() {
        let row = WarmupRow {
            source: Some([192, 0, 2, 11].into()),
            warmup: "slow".into(),
            day: 3,
            days: 5,
            site: Some("mx.d.test:25".into()),
            used: 20,
            cap: Some("500/d".into()),
            until_ms: Some(1_060_000),
        };
        assert_eq!(
            warmup(&row, 1_000_000),
            ["192.0.2.11", "slow day 3 of 5", "20 of 500/d", "in 60.0 s", "mx.d.test:25"]
        );
        let done = WarmupRow { source: None, day: 9, site: None, used: 0, cap: None, until_ms: None, ..row };
        assert_eq!(warmup(&done, 0), ["system", "slow done", "-", "-", "-"]);
    }

    #[test]
    fn s81_routes_are_shown_with_what_holds_them_up() {
        let pause = Reason::Pause { site: "mx.d.test:25".into(), why: "refused".into() };
        let row = RouteRow {
            source: Some([192, 0, 2, 9].into()),
            relay: "mx.d.test:25".into(),
            helo: "us.test".into(),
            login: Some("out".into()),
            terms: String::new(),
            shaping: String::new(),
            connections: 0,
            opening: 1,
            waiting: 4,
            held: Some(Blocked { reason: pause, since_ms: None, until_ms: Some(1_005_000) }),
            left_out: Some(LeftOut { why: "the hosts refuse it".into(), until_ms: 1_060_000 }),
            shard: 1,
        };
        assert_eq!(
            route(&row, 1_000_000),
            [
                "192.0.2.9",
                "0",
                "4",
                "mx.d.test:25 as us.test login out",
                "source left out for 60.0 s: the hosts refuse it; the end of a pause of the route to mx.d.test:25: \
                 refused, for 5.00 s",
            ]
        );
        let free = RouteRow { source: None, held: None, left_out: None, ..row.clone() };
        let cells = route(&free, 0);
        assert_eq!((&*cells[0], &*cells[4]), ("system", "-"));
        assert!(row.rank() < free.rank(), "what is held up comes first");
    }
}

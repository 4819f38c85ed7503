//! What a server says when it has started and when it has stopped: where it listens, where mail goes, what to try.

use std::fmt::Write;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use ringpost_conf::Config;
use ringpost_io::sys::{self, Resource};
use ringpost_perf::report::duration;

use super::control;
use super::resources::bytes;
use super::sockets::Sockets;
use crate::certificates::Name;
use crate::ipc::engine::{Ready, Summary};
use crate::plan::{self, Plan};

/// Prints the first lines of a run.
pub fn print(plan: &Plan, config: &Config, sockets: &Sockets, ready: &Ready, notes: &[String]) {
    let mut out = head(ready);
    let smtp: Vec<SocketAddr> = sockets.smtp_addresses().collect();
    if plan.is_quickstart() {
        out.push_str("\n  no configuration given: quick-start mode, nothing leaves this machine\n");
    }
    let made = plan.identities.iter().any(|identity| matches!(identity.name, Name::SelfSigned(_)));
    let made = if made { "      STARTTLS with a self-signed certificate" } else { "" };
    line(&mut out, "smtp", &format!("{}{made}", list(&smtp)));
    for (number, route) in plan::destinations(plan, config).iter().enumerate() {
        line(&mut out, if number == 0 { "mail to" } else { "" }, route);
    }
    let state = near(&plan.state);
    let waiting = match ready.messages {
        0 => "empty".to_owned(),
        1 => "1 message waits".to_owned(),
        count => format!("{count} messages wait"),
    };
    let disk = ready.disk.as_ref().map(|look| format!("{look}, ")).unwrap_or_default();
    line(&mut out, "queue", &format!("{state}/queue   {disk}{waiting}"));
    for page in sockets.page_addresses() {
        let scheme = if config.http.as_ref().is_some_and(|http| http.pki.is_some()) { "https" } else { "http" };
        line(&mut out, "page", &format!("{scheme}://{page}/"));
    }
    let control = near(&control::place(plan, config));
    line(&mut out, "control", &format!("{control}      log: standard error"));
    for note in notes {
        line(&mut out, "note", note);
    }
    let address = smtp.iter().find(|address| address.is_ipv4()).or(smtp.first());
    if let (true, Some(address)) = (plan.is_quickstart(), address) {
        suggestions(&mut out, plan, *address);
    }
    say(&out);
}

/// Prints the last two lines.
pub fn farewell(plan: &Plan, summary: &Summary) {
    let Summary { received, delivered, waiting, commit_p50_us, commit_p99_us } = summary;
    let mut out = format!("\nstopped: {received} messages in, {delivered} delivered, {waiting} in the queue");
    if *commit_p50_us > 0 {
        let (p50, p99) = (duration(*commit_p50_us), duration(*commit_p99_us));
        // A String takes everything; so below.
        let _ = write!(out, "; to stable storage p50 {p50}, p99 {p99}");
    }
    let _ = writeln!(out, "\nqueue and mail are in {}", near(&plan.state));
    say(&out);
}

fn head(ready: &Ready) -> String {
    let count = ready.cpus.len();
    let plural = if count == 1 { "" } else { "s" };
    let pinned: Vec<String> = ready.cpus.iter().flatten().map(u16::to_string).collect();
    let on = if pinned.is_empty() { String::new() } else { format!(" on cpu {}", pinned.join(",")) };
    let locked = sys::limit(Resource::MemoryLock).map_or(0, |limit| limit.soft);
    format!(
        "ringpost {}   {count} shard{plural}{on} · io_uring ok · locked memory {} ({} used)\n",
        env!("CARGO_PKG_VERSION"),
        bytes(locked),
        bytes(ready.io_memory_bytes * 3 * count as u64)
    )
}

fn suggestions(out: &mut String, plan: &Plan, smtp: SocketAddr) {
    let program = std::env::args().next().unwrap_or_else(|| "ringpost".into());
    let upload = if Path::new("README.md").exists() { "README.md" } else { "/etc/os-release" };
    let state = if plan.is_default_state() { String::new() } else { format!(" --state {}", near(&plan.state)) };
    let bench = format!("{program} bench source {smtp} --time 10s");
    let stats = format!("{program} stats{state}");
    let wide = bench.len().max(stats.len()) + 4;
    let _ = write!(
        out,
        "\n  try it, in another terminal:\n    \
         swaks --server {smtp} --to you@example.org\n    \
         curl smtp://{smtp} --mail-from me@example.org --mail-rcpt you@example.org --crlf -T {upload}\n    \
         {bench:wide$}a load test with a histogram\n    \
         {stats:wide$}counters, and the latency of each stage\n  \
         stop with Ctrl-C, or {program} stop{state}\n\n"
    );
}

fn line(out: &mut String, name: &str, text: &str) {
    let _ = writeln!(out, "  {name:<9} {text}");
}

fn list(addresses: &[SocketAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    match texts.as_slice() {
        [one, two] => format!("{one} and {two}"),
        many => many.join(", "),
    }
}

/// A path as a person here would write it.
pub fn near(path: &Path) -> String {
    match std::env::current_dir() {
        Ok(here) => match path.strip_prefix(&here) {
            Ok(below) => format!("./{}", below.display()),
            Err(_) => path.display().to_string(),
        },
        Err(_) => path.display().to_string(),
    }
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reads it: the server runs all the same.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_head_says_what_runs_where() {
        let ready = Ready { cpus: vec![Some(0), Some(1)], io_memory_bytes: 1 << 20, ..Ready::default() };
        let head = head(&ready);
        assert!(head.contains("2 shards on cpu 0,1 · io_uring ok"), "{head}");
        assert!(head.contains("(6 MiB used)"), "{head}");
        let unpinned = Ready { cpus: vec![None], ..Ready::default() };
        assert!(super::head(&unpinned).contains("1 shard · "));
    }

    #[test]
    fn addresses_read_as_a_sentence() {
        let addresses = ["127.0.0.1:2525".parse().unwrap(), "[::1]:2525".parse().unwrap()];
        assert_eq!(list(&addresses), "127.0.0.1:2525 and [::1]:2525");
        assert_eq!(list(&addresses[..1]), "127.0.0.1:2525");
    }
}

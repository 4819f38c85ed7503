//! `ringpost why`: what messages wait for, what that waits for, and the command that ends it. A running server is asked; of a
//! stopped one the journal is read.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use clap::Args;
use ringpost_perf::report::duration;
use ringpost_queue::inspect;
use ringpost_shard::{Blocked, Selector, Why, stopped};

use super::client::{Found, Server, json_lines, print};
use super::queue;
use crate::clock::unix_ms;
use crate::exit::{Code, Failure};
use crate::ipc::control::{Answer, Request};

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Identifier, address, domain or `from=ADDRESS` (of the sender); `all`
    #[arg(value_name = "ID|SELECTOR")]
    selector: String,
    /// One JSON object for each envelope
    #[arg(long)]
    json: bool,
}

/// Beyond so many envelopes the reasons are listed, each with how many have it.
const EACH_MAX: usize = 20;

pub fn run(options: &Options, state: &Path) -> Result<(), Failure> {
    let all = ask(&options.selector, state)?;
    if all.is_empty() {
        let what = match Selector::parse(&options.selector) {
            Selector::Id(id) => format!("no message {id} in the queue: it was delivered, given up, or never here"),
            Selector::Sender(sender) => format!("no message from <{sender}> in the queue"),
            Selector::Recipient(address) => format!("no message for <{address}> in the queue"),
            Selector::Domain(domain) => format!("no message for the domain {domain} in the queue"),
            Selector::All => "the queue is empty".to_owned(),
        };
        return Err(Failure::new(Code::Failed, what));
    }
    if options.json {
        return print(&json_lines(&all)?);
    }
    let now_ms = unix_ms();
    print(&if all.len() > EACH_MAX { by_reason(&all, now_ms) } else { each(&all, now_ms) })
}

fn ask(selector: &str, state: &Path) -> Result<Vec<Why>, Failure> {
    let mut all = Vec::new();
    match Server::find(state)? {
        Found::Running(mut server) => {
            server.ask(&Request::Why { selector: selector.to_owned() }, |answer| {
                if let Answer::Why(why) = answer {
                    all.push(*why);
                }
                Ok(())
            })?;
        }
        Found::Stopped => {
            let selector = Selector::parse(selector);
            all = queue::read(state, async move |queue| {
                let mut all = Vec::new();
                for (id, stored) in inspect::messages(&queue).await {
                    match stored {
                        Ok(stored) => all.extend(stopped(&stored, &selector)),
                        Err(error) => eprintln!("ringpost: message {id} cannot be read: {error}"),
                    }
                }
                all
            })?;
        }
    }
    Ok(all)
}

/// `3.00 min`, or what stands for a moment that is over.
fn ahead(at_ms: u64, now_ms: u64) -> String {
    match at_ms.checked_sub(now_ms) {
        None | Some(0) => "now".into(),
        Some(left) => format!("in {}", duration(left * 1000)),
    }
}

fn ago(at_ms: u64, now_ms: u64) -> String {
    duration(now_ms.saturating_sub(at_ms) * 1000)
}

fn each(all: &[Why], now_ms: u64) -> String {
    let mut out = String::new();
    for Why { envelope, expires_ms, waits_for, release } in all {
        let (id, sender, recipient) = (&envelope.id, &envelope.sender, &envelope.recipient);
        // A String takes everything.
        let _ = writeln!(out, "{id} from=<{sender}> to=<{recipient}>");
        for (number, Blocked { reason, since_ms, until_ms }) in waits_for.iter().enumerate() {
            let lead = if number == 0 { "waits for" } else { "which waits for" };
            let since = since_ms.map_or_else(String::new, |at| format!(" (for {})", ago(at, now_ms)));
            let until = until_ms.map_or_else(String::new, |at| format!(", {}", ahead(at, now_ms)));
            let _ = writeln!(out, "  {lead}: {reason}{until}{since}");
        }
        if !envelope.reason.is_empty() {
            let _ = writeln!(out, "  last reply: {}", envelope.reason);
        }
        if envelope.priority != 0 {
            let _ = writeln!(out, "  priority: {}", envelope.priority);
        }
        let (age, attempts) = (ago(envelope.received_ms, now_ms), envelope.attempts);
        let expiry =
            if *expires_ms == 0 { String::new() } else { format!(", given up {}", ahead(*expires_ms, now_ms)) };
        let _ = writeln!(out, "  queued for {age}, failed attempts: {attempts}{expiry}");
        if let Some(release) = release {
            let _ = writeln!(out, "  to end it: {release}");
        }
    }
    out
}

/// A line for each reason, the commonest first.
fn by_reason(all: &[Why], now_ms: u64) -> String {
    let mut groups: BTreeMap<String, Vec<&Why>> = BTreeMap::new();
    for why in all {
        // What blocks in the end; what differs from one to the next is left out.
        let last = why.waits_for.last().map_or_else(String::new, |blocked| match &blocked.reason {
            reason if why.envelope.reason.is_empty() => reason.to_string(),
            reason => format!("{reason}; last reply: {}", why.envelope.reason),
        });
        groups.entry(last).or_default().push(why);
    }
    let mut groups: Vec<(String, Vec<&Why>)> = groups.into_iter().collect();
    groups.sort_by_key(|(_, its)| std::cmp::Reverse(its.len()));
    let mut out = format!("{:>9}  {:>9}  {:>13}  waits for\n", "envelopes", "oldest", "next try");
    for (reason, its) in &groups {
        let oldest =
            its.iter().map(|why| why.envelope.received_ms).min().map_or_else(String::new, |at| ago(at, now_ms));
        let untils = its.iter().filter_map(|why| why.waits_for.iter().find_map(|blocked| blocked.until_ms));
        let next = untils.min().map_or_else(|| "-".to_owned(), |at| ahead(at, now_ms));
        // A String takes everything.
        let _ = writeln!(out, "{:>9}  {oldest:>9}  {next:>13}  {reason}", its.len());
    }
    out
}

#[cfg(test)]
mod tests {
    use ringpost_shard::{ListedEnvelope, Reason};

    use super::*;

    fn why(reasons: Vec<Blocked>) -> Why {
        let envelope = ListedEnvelope {
            id: "0000000000000001".into(),
            sender: "a@b.test".into(),
            recipient: "c@d.test".into(),
            original: String::new(),
            action: "out".into(),
            way: String::new(),
            state: "deferred".into(),
            due_ms: 1_300_000,
            attempts: 2,
            reason: "450 4.2.0 busy".into(),
            received_ms: 1_000_000,
            size: 700,
            priority: 0,
        };
        let mut why = Why { envelope, expires_ms: 4_600_000, waits_for: Vec::new(), release: None };
        reasons.into_iter().for_each(|blocked| why.and(blocked));
        why
    }

    fn blocked(reason: Reason, since_ms: Option<u64>, until_ms: Option<u64>) -> Blocked {
        Blocked { reason, since_ms, until_ms }
    }

    #[test]
    fn the_chain_names_what_blocks_since_when_until_when_and_what_ends_it() {
        let share = Reason::Share { site: "mx.d.test".into(), out: 7, waiting: 9 };
        let pause = Reason::Pause { site: "mx.d.test".into(), why: "connection refused".into() };
        let chain = vec![blocked(share, None, None), blocked(pause, Some(1_000_000), Some(1_090_000))];
        let text = each(&[why(chain)], 1_060_000);
        assert_eq!(
            text,
            "0000000000000001 from=<a@b.test> to=<c@d.test>\n\
             \x20 waits for: its route to mx.d.test to have room: 7 messages of its shard are there, 9 more wait like it\n\
             \x20 which waits for: the end of a pause of the route to mx.d.test: connection refused, in 30.0 s (for 60.0 s)\n\
             \x20 last reply: 450 4.2.0 busy\n\
             \x20 queued for 60.0 s, failed attempts: 2, given up in 59.0 min\n\
             \x20 to end it: ringpost queue retry\n"
        );
    }

    #[test]
    fn many_are_counted_by_reason() {
        let mut all = vec![why(vec![blocked(Reason::Retry, None, Some(1_300_000))]); 3];
        all.push(why(vec![blocked(Reason::Local, None, None)]));
        let text = by_reason(&all, 1_060_000);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].trim_start().starts_with("3 ") && lines[1].contains("in 4.00 min"), "{text}");
        assert!(lines[1].ends_with("last reply: 450 4.2.0 busy"), "{text}");
    }

    #[test]
    fn reasons_travel_as_readable_objects() {
        let pause = Reason::Pause { site: "mx.example".into(), why: "refused".into() };
        let pause = blocked(pause, None, Some(7));
        let text = serde_json::to_string(&pause).unwrap();
        assert_eq!(text, r#"{"kind":"pause","site":"mx.example","why":"refused","until_ms":7}"#);
        assert_eq!(serde_json::from_str::<Blocked>(&text).unwrap(), pause);
        assert_eq!(pause.reason.release(), Some("ringpost queue retry"));
    }
}

//! `ringpost queue`: what waits and why. A running server is asked; of a stopped one the journal is read, and not touched.

use std::fmt::Write;
use std::path::Path;

use clap::{Args, Subcommand};
use ringpost_io::Runtime;
use ringpost_io::ring::{self, RingDisk};
use ringpost_perf::report::duration;
use ringpost_queue::{MessageId, Queue, inspect};
use ringpost_shard::{ListedEnvelope, ShownMessage, limits::SHOWN_BYTES, listed};

use super::client::{Found, Server, json_lines, print};
use crate::clock::unix_ms;
use crate::exit::{Code, Failure};
use crate::ipc::control::{Answer, Request};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Every envelope that waits, oldest message first
    List(ListOptions),
    /// A message: its envelopes and its text
    Show(ShowOptions),
    /// Try all that is deferred now (the server must run)
    Retry,
}

#[derive(Args, Clone, Debug)]
pub struct ListOptions {
    /// One JSON object for each envelope
    #[arg(long)]
    json: bool,
}

#[derive(Args, Clone, Debug)]
pub struct ShowOptions {
    /// Identifier, 16 hexadecimal digits
    id: MessageId,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(command: Command, state: &Path) -> Result<(), Failure> {
    match command {
        Command::List(options) => list(&options, state),
        Command::Show(options) => show(&options, state),
        Command::Retry => {
            let said = Server::running(state)?.ask(&Request::Retry, |_| Ok(()))?;
            print(&format!("{said}\n"))
        }
    }
}

/// All that waits, of a running server or a stopped one.
pub fn envelopes(state: &Path) -> Result<Vec<ListedEnvelope>, Failure> {
    let mut envelopes = Vec::new();
    match Server::find(state)? {
        Found::Running(mut server) => {
            server.ask(&Request::List, |answer| {
                if let Answer::Envelope(envelope) = answer {
                    envelopes.push(envelope);
                }
                Ok(())
            })?;
        }
        Found::Stopped => envelopes = read_list(state)?,
    }
    Ok(envelopes)
}

fn list(options: &ListOptions, state: &Path) -> Result<(), Failure> {
    let envelopes = envelopes(state)?;
    if options.json {
        return print(&json_lines(&envelopes)?);
    }
    let now = unix_ms();
    print(&table(&envelopes, now))
}

fn show(options: &ShowOptions, state: &Path) -> Result<(), Failure> {
    let mut found = None;
    match Server::find(state)? {
        Found::Running(mut server) => {
            server.ask(&Request::Show { id: options.id.0 }, |answer| {
                if let Answer::Message(message) = answer {
                    found = Some(message);
                }
                Ok(())
            })?;
        }
        Found::Stopped => found = read_message(state, options.id)?,
    }
    let Some(message) = found else {
        return Err(Failure::new(Code::NoInput, format!("no message {} in the queue", options.id)));
    };
    if options.json {
        return print(&(serde_json::to_string(&message).map_err(std::io::Error::from)? + "\n"));
    }
    let mut out = String::new();
    for envelope in &message.envelopes {
        describe(envelope, &mut out);
    }
    out.push('\n');
    out.push_str(&String::from_utf8_lossy(&message.text).replace("\r\n", "\n"));
    print(&out)
}

fn describe(envelope: &ListedEnvelope, out: &mut String) {
    let ListedEnvelope { id, sender, recipient, state, attempts, reason, size, .. } = envelope;
    // A String takes everything.
    let _ = writeln!(out, "id={id} from=<{sender}> to=<{recipient}> state={state} attempts={attempts} size={size}");
    let ListedEnvelope { original, action, way, .. } = envelope;
    for (what, text) in [("action", action), ("addressed to", original), ("delivered to", way)] {
        if !text.is_empty() {
            let _ = writeln!(out, "  {what}: {text}");
        }
    }
    if envelope.priority != 0 {
        let _ = writeln!(out, "  priority: {}", envelope.priority);
    }
    if !reason.is_empty() {
        let _ = writeln!(out, "  last reply: {reason}");
    }
}

/// The address, and the user, file or program that it has become.
fn whom(envelope: &ListedEnvelope) -> String {
    let ListedEnvelope { recipient, way, .. } = envelope;
    match way.split_once('=') {
        _ if way.is_empty() => format!("<{recipient}>"),
        Some((user, _)) if !user.contains(['/', '|']) => format!("<{recipient}> {user}"),
        _ => format!("<{recipient}> {way}"),
    }
}

/// Columns of fixed order; the reason is last, since it is the longest.
fn table(envelopes: &[ListedEnvelope], now_ms: u64) -> String {
    if envelopes.is_empty() {
        return "the queue is empty\n".into();
    }
    let mut out = String::new();
    let heads = ["id", "age", "size", "tries", "next try", "from", "to", "reason"];
    let mut rows: Vec<[String; 8]> = vec![heads.map(str::to_owned)];
    rows.extend(envelopes.iter().map(|envelope| {
        let next = match envelope.due_ms.checked_sub(now_ms) {
            _ if envelope.state != "deferred" => envelope.state.clone(),
            None | Some(0) => "now".into(),
            Some(left) => format!("in {}", duration(left * 1000)),
        };
        [
            envelope.id.clone(),
            duration(now_ms.saturating_sub(envelope.received_ms) * 1000),
            envelope.size.to_string(),
            envelope.attempts.to_string(),
            next,
            format!("<{}>", envelope.sender),
            whom(envelope),
            envelope.reason.clone(),
        ]
    }));
    let mut wide = [0; 7];
    for row in &rows {
        for (wide, cell) in wide.iter_mut().zip(row) {
            *wide = cell.chars().count().max(*wide);
        }
    }
    for row in &rows {
        let mut line = String::new();
        for (cell, wide) in row.iter().zip(wide) {
            // A String takes everything.
            let _ = write!(line, "{cell:wide$}  ");
        }
        line.push_str(&row[7]);
        out.push_str(line.trim_end());
        out.push('\n');
    }
    let mut ids: Vec<&str> = envelopes.iter().map(|envelope| envelope.id.as_str()).collect();
    ids.dedup();
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let (messages, envelopes) = (ids.len(), envelopes.len());
    // A String takes everything.
    let _ = writeln!(out, "{messages} message{}, {envelopes} envelope{}", plural(messages), plural(envelopes));
    out
}

fn read_list(state: &Path) -> Result<Vec<ListedEnvelope>, Failure> {
    read(state, async |queue| {
        let mut all = Vec::new();
        for (id, stored) in inspect::messages(&queue).await {
            match stored {
                Ok(stored) => all.extend(listed(&stored)),
                Err(error) => eprintln!("ringpost: message {id} cannot be read: {error}"),
            }
        }
        all.sort_by(|a, b| (a.received_ms, &a.id).cmp(&(b.received_ms, &b.id)));
        all
    })
}

fn read_message(state: &Path, id: MessageId) -> Result<Option<ShownMessage>, Failure> {
    read(state, async move |queue| {
        let stored = queue.load(id).await.ok()?;
        let text = queue.read_body(id, 0, SHOWN_BYTES).await.unwrap_or_default();
        Some(ShownMessage { envelopes: listed(&stored), text })
    })
}

pub fn read<T>(state: &Path, work: impl AsyncFnOnce(Queue<RingDisk>) -> T) -> Result<T, Failure> {
    let dir = state.join("queue");
    let result = ring::run_single(|runtime| async move {
        let (queue, report) = inspect::read_only(runtime.disk().clone(), &dir).await?;
        for damage in &report.damage {
            eprintln!("ringpost: queue: {damage}");
        }
        Ok(work(queue).await)
    });
    let result: Result<T, ringpost_queue::OpenError> =
        result.map_err(|error| Failure::new(Code::System, error.to_string()))?;
    result.map_err(|error| Failure::new(Code::InputOutput, format!("cannot read the queue: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_next_try_and_reason() {
        let envelope = ListedEnvelope {
            id: "0000000000000001".into(),
            sender: "a@b.test".into(),
            recipient: "c@d.test".into(),
            original: "staff@d.test".into(),
            action: "out".into(),
            way: "c=1:1:/home/c".into(),
            state: "deferred".into(),
            due_ms: 1_300_000,
            attempts: 2,
            reason: "450 4.2.0 busy".into(),
            received_ms: 1_000_000,
            size: 700,
            priority: -4,
        };
        let mut told = String::new();
        describe(&envelope, &mut told);
        assert!(told.contains("\n  priority: -4\n  last reply: 450 4.2.0 busy\n"), "{told}");
        let bounce = ListedEnvelope { sender: String::new(), state: "active".into(), ..envelope.clone() };
        let text = table(&[envelope, bounce], 1_060_000);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("id                age     size  tries  next try"), "{text}");
        assert!(
            lines[1].contains("60.0 s") && lines[1].contains("in 4.00 min  <a@b.test>  <c@d.test> c  450"),
            "{text}"
        );
        assert!(lines[2].contains("active") && lines[2].contains("<>"), "{text}");
        assert_eq!(lines[3], "1 message, 2 envelopes");
        assert_eq!(table(&[], 0), "the queue is empty\n");
    }
}

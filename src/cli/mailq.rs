//! `mailq`: the name under which everybody looks into the queue, in the columns of Postfix, which scripts take apart.

use std::fmt::Write;
use std::path::Path;

use clap::Args;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ringpost_shard::ListedEnvelope;

use super::client::{json_lines, print};
use super::queue;
use crate::exit::Failure;

/// Columns up to the recipient.
const BEFORE_RECIPIENT: usize = 17 + 1 + 8 + 1 + 19 + 1;
/// Reasons end here, if they are short enough.
const REASON_END: usize = 78;

#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// One JSON object for each envelope
    #[arg(long)]
    json: bool,
}

/// Lists a running server's queue, or a stopped one's.
pub fn run(options: &Options, state: &Path) -> Result<(), Failure> {
    let envelopes = queue::envelopes(state)?;
    match options.json {
        true => print(&json_lines(&envelopes)?),
        false => print(&table(&envelopes, &TimeZone::system())),
    }
}

/// A message's envelopes stand together.
fn table(envelopes: &[ListedEnvelope], zone: &TimeZone) -> String {
    if envelopes.is_empty() {
        return "Mail queue is empty\n".into();
    }
    let mut out = String::from("----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------\n");
    let (mut bytes, mut messages) = (0, 0);
    for message in envelopes.chunk_by(|one, other| one.id == other.id) {
        messages += 1;
        bytes += message[0].size;
        describe(message, zone, &mut out);
        out.push('\n');
    }
    let plural = if messages == 1 { "" } else { "s" };
    // A String takes everything; so below.
    let _ = writeln!(out, "-- {} Kbytes in {messages} Request{plural}.", bytes / 1024);
    out
}

fn describe(message: &[ListedEnvelope], zone: &TimeZone, out: &mut String) {
    let first = &message[0];
    let mark = if message.iter().any(|envelope| envelope.state == "active") { '*' } else { ' ' };
    let at = i64::try_from(first.received_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let at = at.unwrap_or_default().to_zoned_datetime(zone.clone()).strftime("%a %b %e %H:%M:%S").to_string();
    let sender = if first.sender.is_empty() { "MAILER-DAEMON" } else { &first.sender };
    let id = format!("{}{mark}", first.id);
    let _ = writeln!(out, "{id:<17} {:>8} {at:<19} {sender}", first.size);
    // Those who wait for the same reason stand below it together.
    let mut reason = "";
    for envelope in message {
        if envelope.reason != reason {
            reason = &envelope.reason;
            if !reason.is_empty() {
                let why = format!("({reason})");
                let _ = writeln!(out, "{why:>REASON_END$}");
            }
        }
        let _ = writeln!(out, "{:BEFORE_RECIPIENT$}{}", "", envelope.recipient);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(id: u64, recipient: &str, state: &str, reason: &str) -> ListedEnvelope {
        ListedEnvelope {
            id: format!("{id:016x}"),
            sender: "a@b.test".into(),
            recipient: recipient.into(),
            original: String::new(),
            action: "out".into(),
            way: String::new(),
            state: state.into(),
            due_ms: 0,
            attempts: 2,
            reason: reason.into(),
            received_ms: 1_764_850_632_000,
            size: 1700,
            priority: 0,
        }
    }

    #[test]
    fn columns_are_those_that_scripts_know() {
        let bounce = ListedEnvelope { sender: String::new(), size: 600, ..envelope(0xb2, "x@y.test", "active", "") };
        let waiting = [
            envelope(0xa1, "c@d.test", "deferred", "450 4.2.0 busy"),
            envelope(0xa1, "e@d.test", "deferred", "450 4.2.0 busy"),
            envelope(0xa1, "f@d.test", "deferred", ""),
            bounce,
        ];
        let blanks = " ".repeat(BEFORE_RECIPIENT);
        let expected = format!(
            "----Queue ID----- --Size-- ---Arrival Time---- --Sender/Recipient------\n\
             00000000000000a1      1700 Thu Dec  4 12:17:12 a@b.test\n{:>78}\n\
             {blanks}c@d.test\n{blanks}e@d.test\n{blanks}f@d.test\n\n\
             00000000000000b2*      600 Thu Dec  4 12:17:12 MAILER-DAEMON\n{blanks}x@y.test\n\n\
             -- 2 Kbytes in 2 Requests.\n",
            "(450 4.2.0 busy)"
        );
        assert_eq!(table(&waiting, &TimeZone::UTC), expected);
        assert!(table(&waiting[3..], &TimeZone::UTC).ends_with("\n\n-- 0 Kbytes in 1 Request.\n"));
        assert_eq!(table(&[], &TimeZone::UTC), "Mail queue is empty\n");
    }
}

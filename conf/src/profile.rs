//! Profiles: named sets of defaults in the language itself (grammar §4.12), and all built-in values in the same form. Any
//! statement of the file wins over them.

/// The statements of a profile.
pub(crate) fn text(name: &str) -> &'static str {
    match name {
        "small" => SMALL,
        "mx" => MX,
        "relay" => RELAY,
        _ => BULK,
    }
}

/// A laptop, a virtual machine: little memory, little disk.
const SMALL: &str = "\
shards 1
smtp limit max-sessions 500
store { segment 16M, spare 2, spool-memory 64K }
";

/// A busy inbound host: many strangers, few messages from each.
const MX: &str = "\
smtp limit max-sessions 20000 max-sessions-per-source 50 max-mails 100 max-rcpt 1000 max-errors 10
smtp limit timeout 2m data-timeout 5m
store { spare 8 }
";

/// A smart host: few clients that send much.
const RELAY: &str = "\
smtp limit max-sessions 10000 max-sessions-per-source 1000 max-mails 10000 max-rcpt 10000
store { spare 8 }
";

/// High-volume outbound: large batches in, many connections out.
const BULK: &str = "\
smtp limit max-sessions 20000 max-sessions-per-source 2000 max-mails 100000 max-rcpt 10000
store { spare 32, spool-memory 1M }
";

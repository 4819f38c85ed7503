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

/// High-volume outbound: large batches in, many connections out, and to large providers no more than they take.
const BULK: &str = concat!(
    "\
smtp limit max-sessions 20000 max-sessions-per-source 2000 max-mails 100000 max-rcpt 10000
store { spare 32, spool-memory 1M }
",
    include_str!("../shaping.d/providers.conf")
);

/// What counts where neither file nor profile says anything. The same values as in the model's `Default`s.
pub(crate) const BUILT_IN: &str = r#"
shards auto
smtp limit max-mails 100 max-rcpt 1000 max-sessions 20000 max-sessions-per-source 50 max-errors 20 max-line 2048
smtp limit max-depth 10 max-nodes 1000 max-received 50 timeout 5m data-timeout 10m
smtp max-message-size 35M
smtp sub-addr-delim "+"
queue backend log
queue ttl 4d
bounce warn-interval 4h
bounce limit per-sender 100/h per-domain 1000/h total 10000/h
scheduler backend wheel
shaping default { retry { 1m, 5m, 15m, 30m, 1h, 2h } then 4h jitter 10% }
store { path /var/spool/ringpost, segment 64M, spare 4, spool-memory 256K, state-delay 50ms, reserve 5%, commit group }
control socket /run/ringpost.sock
"#;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model::{Bounce, Control, Queue, Shards, Smtp, Store};
    use crate::{Memory, Options, load};

    const RULE: &str = "action a discard\nmatch for local action a\n";

    #[test]
    fn built_in_values_are_those_of_the_model() {
        let files = Memory::default().with("c", format!("{BUILT_IN}{RULE}"));
        let (config, warnings) = load(&files, Path::new("c"), &Options::default()).unwrap_or_else(|r| panic!("{r}"));
        assert!(warnings.is_empty(), "{warnings}");
        assert_eq!((config.smtp, config.queue, config.store), (Smtp::default(), Queue::default(), Store::default()));
        assert_eq!((config.shards, config.control), (Shards::default(), Control::default()));
        let default = Bounce::default();
        assert_eq!((config.bounce.warn_after, config.bounce.limits), (default.warn_after, default.limits));
    }

    #[test]
    fn profiles_load_and_files_win_over_them() {
        for name in ["small", "mx", "relay", "bulk"] {
            let text = format!("profile {name}\nsmtp limit max-sessions 7\nstore {{ spare 9 }}\n{RULE}");
            let files = Memory::default().with("c", text);
            let (config, warnings) =
                load(&files, Path::new("c"), &Options::default()).unwrap_or_else(|r| panic!("{r}"));
            assert!(warnings.is_empty(), "{warnings}");
            assert_eq!((config.profile, config.smtp.sessions_max, config.store.spare_segments), (Some(name), 7, 9));
            assert_ne!(
                (config.smtp, config.store.segment_bytes),
                (Smtp { sessions_max: 7, ..Smtp::default() }, 64 << 20)
            );
        }
    }
}

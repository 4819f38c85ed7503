//! Tables, and settings of the server as a whole (grammar §4.7–4.12, §4.16, §7).

use super::{NAME, form_of, list};
use crate::parse::schema::{Form, Item, Kind, Opt, Rest};
use crate::tables::ServiceKind;

pub(super) const TABLE: &[Form] = &[form_of(
    "table",
    "table",
    &[Item::Arg(Kind::TableName), Item::Arg(Kind::TableSource)],
    &[
        Opt::new(&["cache"], Kind::Duration),
        Opt::new(&["negative"], Kind::Duration),
        Opt::new(&["stale"], Kind::Duration),
        Opt::new(&["timeout"], Kind::Duration),
        Opt::new(&["pool"], Kind::Count(1)),
        Opt::new(&["manual"], Kind::Flag),
    ],
)];

const WORD: Item = Item::Arg(Kind::Word("a word"));
const KEY: Item = Item::Arg(Kind::Word("a key"));

pub(super) const FORMS: &[Form] = &[
    form_of("bounce", "bounce warn-interval", &[Item::Key("warn-interval"), Item::Arg(Kind::Durations)], &[]),
    form_of(
        "bounce",
        "bounce classify",
        &[Item::Key("classify"), WORD, Item::Key("reply"), Item::Arg(Kind::Pattern(list(ServiceKind::String)))],
        CLASSIFY,
    ),
    limits("bounce", "bounce limit", BOUNCE_LIMITS),
    form_of(
        "queue",
        "queue backend",
        &[Item::Key("backend"), Item::Arg(Kind::Choice(&["log", "fs", "ram", "null"])), Item::Arg(Kind::MaybeWord)],
        &[],
    ),
    form_of(
        "queue",
        "queue compression",
        &[Item::Key("compression"), Item::Arg(Kind::MaybeChoice(&["zstd", "gzip"]))],
        &[],
    ),
    form_of("queue", "queue encryption", &[Item::Key("encryption"), Item::Arg(Kind::MaybeWord)], &[]),
    form_of("queue", "queue ttl", &[Item::Key("ttl"), Item::Arg(Kind::Duration)], &[]),
    limits("smtp", "smtp limit", SMTP_LIMITS),
    form_of("smtp", "smtp ciphers", &[Item::Key("ciphers"), Item::Arg(Kind::Word("a list of ciphers"))], &[]),
    form_of("smtp", "smtp max-message-size", &[Item::Key("max-message-size"), Item::Arg(Kind::Size)], &[]),
    form_of("smtp", "smtp sub-addr-delim", &[Item::Key("sub-addr-delim"), Item::Arg(Kind::Delimiter)], &[]),
    form_of("mta", "mta allow-exchangers", &[Item::Key("allow-exchangers"), Item::Arg(Kind::Names)], &[]),
    form_of("mta", "mta max-deferred", &[Item::Key("max-deferred"), Item::Arg(Kind::Count(1))], &[]),
    limits("mta", "mta limit", MTA_LIMITS),
    limits("mda", "mda limit", MDA_LIMITS),
    form_of("mda", "mda wrapper", &[Item::Key("wrapper"), NAME, Item::Arg(Kind::Word("a command"))], &[]),
    limits("scheduler", "scheduler limit", SCHEDULER_LIMITS),
    form_of(
        "scheduler",
        "scheduler backend",
        &[Item::Key("backend"), Item::Arg(Kind::Choice(&["wheel", "null"]))],
        &[],
    ),
    form_of("srs", "srs key backup", &[Item::Key("key"), Item::Key("backup"), KEY], &[]),
    form_of("srs", "srs key", &[Item::Key("key"), KEY], &[]),
    form_of("srs", "srs ttl", &[Item::Key("ttl"), Item::Arg(Kind::Duration)], &[]),
    form_of("admd", "admd", &[Item::Arg(Kind::HostName)], &[]),
    form_of("shards", "shards", &[Item::Arg(Kind::ShardCount)], SHARDS),
    form_of("profile", "profile", &[Item::Arg(Kind::Choice(&["small", "mx", "relay", "bulk"]))], &[]),
    form_of("http", "http", &[Item::Key("listen"), Item::Key("on"), Item::Arg(Kind::Address)], HTTP),
    form_of(
        "metrics",
        "metrics hlog",
        &[Item::Key("hlog"), Item::Arg(Kind::Word("a directory"))],
        &[Opt::new(&["every"], Kind::Duration)],
    ),
    form_of("metrics", "metrics sites", &[Item::Key("sites"), Item::Arg(Kind::Count(0))], &[]),
    form_of("log", "log", &[Item::Key("to"), Item::Key("syslog")], LOG),
    form_of("log", "log", &[Item::Key("to"), Item::Key("journald")], LOG),
    form_of("log", "log", &[Item::Key("to"), Item::Key("stderr")], LOG),
    form_of("log", "log", &[Item::Key("to"), Item::Key("file"), Item::Arg(Kind::Word("a path"))], LOG),
    form_of("store", "store", &[Item::Arg(Kind::Block(STORE))], &[]),
    form_of(
        "control",
        "control",
        &[Item::Key("socket"), Item::Arg(Kind::Word("a path"))],
        &[Opt::new(&["group"], Kind::Word("a name")), Opt::new(&["mode"], Kind::Mode)],
    ),
];

const fn limits(statement: &'static str, name: &'static str, options: &'static [Opt]) -> Form {
    Form { statement, name, head: &[Item::Key("limit")], options, rest: Rest::Limits }
}

const CLASSIFY: &[Opt] = &[
    Opt::new(&["for", "domain"], Kind::Targ(list(ServiceKind::Domain))),
    Opt::new(
        &["treat"],
        Kind::OneOf(&[
            Opt::new(&["permanent"], Kind::Flag),
            Opt::new(&["temporary"], Kind::Flag),
            Opt::new(&["throttle"], Kind::MaybePercent),
            Opt::new(&["suspend"], Kind::Duration),
        ]),
    ),
];

const BOUNCE_LIMITS: &[Opt] =
    &[Opt::new(&["per-sender"], Kind::Rate), Opt::new(&["per-domain"], Kind::Rate), Opt::new(&["total"], Kind::Rate)];

const SMTP_LIMITS: &[Opt] = &[
    Opt::new(&["max-mails"], Kind::Count(1)),
    Opt::new(&["max-rcpt"], Kind::Count(1)),
    Opt::new(&["max-sessions"], Kind::Count(1)),
    Opt::new(&["max-sessions-per-source"], Kind::Count(1)),
    Opt::new(&["max-errors"], Kind::Count(1)),
    // RFC 5321 §4.5.3.1.4 asks for 512; less would refuse legal commands.
    Opt::new(&["max-line"], Kind::Count(512)),
    Opt::new(&["max-depth"], Kind::Count(1)),
    Opt::new(&["max-nodes"], Kind::Count(1)),
    Opt::new(&["max-received"], Kind::Count(1)),
    Opt::new(&["timeout"], Kind::Seconds),
    Opt::new(&["data-timeout"], Kind::Seconds),
];

/// OpenSMTPD's names; `old_style.rs` makes shapes of them.
const MTA_LIMITS: &[Opt] = &[
    Opt::new(&["for", "domain"], Kind::Word("a domain")),
    Opt::new(&["inet4"], Kind::Flag),
    Opt::new(&["inet6"], Kind::Flag),
    Opt::new(&["max-conn-per-host"], Kind::Count(1)),
    Opt::new(&["max-conn-per-source"], Kind::Count(1)),
    Opt::new(&["max-conn-per-relay"], Kind::Count(1)),
    Opt::new(&["max-conn-per-domain"], Kind::Count(1)),
    Opt::new(&["max-conn-per-route"], Kind::Count(1)),
    Opt::new(&["max-conn-per-connector"], Kind::Count(1)),
    Opt::new(&["conn-delay-host"], Kind::Seconds),
    Opt::new(&["conn-delay-route"], Kind::Seconds),
    Opt::new(&["conn-delay-source"], Kind::Seconds),
    Opt::new(&["conn-delay-connector"], Kind::Seconds),
    Opt::new(&["conn-delay-domain"], Kind::Seconds),
    Opt::new(&["discon-delay-route"], Kind::Seconds),
    Opt::new(&["discon-delay-source"], Kind::Seconds),
    Opt::new(&["max-mail-per-session"], Kind::Count(1)),
    Opt::new(&["session-mail-max"], Kind::Count(1)),
    Opt::new(&["session-transaction-delay"], Kind::Seconds),
    Opt::new(&["session-keepalive"], Kind::Seconds),
    Opt::new(&["max-failures-per-session"], Kind::Count(1)),
    Opt::new(&["task-hiwat"], Kind::Count(0)),
    Opt::new(&["task-lowat"], Kind::Count(0)),
    Opt::new(&["task-release"], Kind::Count(0)),
];

const MDA_LIMITS: &[Opt] = &[
    Opt::new(&["max-session"], Kind::Count(1)),
    Opt::new(&["max-session-per-user"], Kind::Count(1)),
    Opt::new(&["task-hiwat"], Kind::Count(0)),
    Opt::new(&["task-lowat"], Kind::Count(0)),
    Opt::new(&["task-release"], Kind::Count(0)),
];

const SCHEDULER_LIMITS: &[Opt] = &[
    Opt::new(&["max-inflight"], Kind::Count(1)),
    Opt::new(&["max-evp-batch-size"], Kind::Count(1)),
    Opt::new(&["max-msg-batch-size"], Kind::Count(1)),
    Opt::new(&["max-schedule"], Kind::Count(1)),
];

const SHARDS: &[Opt] =
    &[Opt::new(&["cores"], Kind::Cores), Opt::new(&["coordinator"], Kind::Count(0)), Opt::new(&["memory"], Kind::Size)];

const HTTP: &[Opt] = &[
    Opt::new(&["port"], Kind::Port),
    Opt::new(&["pki"], Kind::Word("a name")),
    Opt::new(&["auth"], Kind::Table(super::mapping(ServiceKind::Credentials))),
    Opt::new(&["only"], Kind::Names),
];

const LOG: &[Opt] = &[
    Opt::new(&["format"], Kind::Choice(&["line", "json"])),
    Opt::new(&["level"], Kind::Choice(&["error", "warn", "info", "debug", "trace"])),
    Opt::new(&["only"], Kind::Names),
];

/// What `store { }` may say.
pub(crate) const STORE: &[Opt] = &[
    Opt::new(&["path"], Kind::Word("a directory")),
    Opt::new(&["segment"], Kind::Size),
    Opt::new(&["spare"], Kind::Count(1)),
    Opt::new(&["spool-memory"], Kind::Size),
    Opt::new(&["state-delay"], Kind::Duration),
    Opt::new(&["reserve"], Kind::SizeOrPercent),
    Opt::new(&["commit"], Kind::Choice(&["group", "each"])),
];

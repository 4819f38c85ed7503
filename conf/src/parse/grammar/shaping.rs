//! How mail leaves: `shaping`, `warmup`, `pool`, `dkim`, `ratelimit`, `share` (grammar §4.13–4.16).

use super::{NAME, form_of, list, mapping};
use crate::parse::schema::{Form, Item, Kind, Opt, Use};
use crate::tables::ServiceKind;

pub(super) const FORMS: &[Form] = &[
    form_of("shaping", "shaping", &[Item::Key("default"), Item::Arg(Kind::Block(SHAPE))], &[]),
    form_of(
        "shaping",
        "shaping",
        &[NAME, Item::Key("domain"), Item::Arg(Kind::Targ(DOMAINS)), Item::Arg(Kind::Block(SHAPE))],
        &[],
    ),
    form_of(
        "shaping",
        "shaping",
        &[NAME, Item::Key("mx"), Item::Arg(Kind::Targ(DOMAINS)), Item::Arg(Kind::Block(SHAPE))],
        &[],
    ),
    form_of(
        "shaping",
        "shaping",
        &[NAME, Item::Key("host"), Item::Arg(Kind::Targ(DOMAINS)), Item::Arg(Kind::Block(SHAPE))],
        &[],
    ),
    form_of("shaping", "shaping", &[NAME, Item::Key("relay"), Item::Arg(Kind::Block(SHAPE))], &[]),
    form_of("warmup", "warmup", &[NAME, Item::Arg(Kind::Rates)], &[]),
    form_of(
        "pool",
        "pool",
        &[NAME, Item::Arg(Kind::Items("an address", SOURCE))],
        &[Opt::new(&["select"], Kind::Choice(&["cycle", "least-used", "sticky-sender", "sticky-domain"]))],
    ),
    form_of("dkim", "dkim sign", &[Item::Key("sign"), NAME], DKIM),
    form_of("ratelimit", "ratelimit", &[NAME], RATELIMIT),
    form_of("share", "share", &[NAME, Item::Key("redis"), Item::Arg(Kind::Word("a URL"))], SHARE),
];

const DOMAINS: Use = list(ServiceKind::Domain);

/// What a shape may say.
pub(crate) const SHAPE: &[Opt] = &[
    Opt::new(&["connections"], Kind::Count(1)),
    Opt::new(&["connections-per-host"], Kind::Count(1)),
    Opt::new(&["connections-per-source"], Kind::Count(1)),
    Opt::new(&["open-rate"], Kind::Rate),
    Opt::new(&["rate"], Kind::Rate),
    Opt::new(&["rate-per-source"], Kind::Rate),
    Opt::new(&["burst"], Kind::Count(1)),
    Opt::new(&["messages-per-connection"], Kind::Count(1)),
    Opt::new(&["recipients"], Kind::Count(1)),
    Opt::new(&["idle"], Kind::Duration),
    Opt::new(&["connect-timeout"], Kind::Duration),
    Opt::new(&["reply-timeout"], Kind::Duration),
    Opt::new(&["failures"], Kind::Count(1)),
    Opt::new(&["pause"], Kind::Duration),
    Opt::new(&["inet4"], Kind::Flag),
    Opt::new(&["inet6"], Kind::Flag),
    Opt::new(&["tls"], Kind::MaybeChoice(&["no-verify", "dane"])),
    Opt::new(
        &["retry"],
        Kind::Then(&Kind::DurationBlock, &[Opt::new(&["then"], Kind::Duration), Opt::new(&["jitter"], Kind::Percent)]),
    ),
    Opt::new(&["ttl"], Kind::Duration),
    Opt::new(&["warmup"], Kind::Word("a name")),
    Opt::new(
        &["on", "reply"],
        Kind::Then(
            &Kind::Pattern(list(ServiceKind::String)),
            &[
                Opt::new(&["throttle"], Kind::Percent),
                Opt::new(&["suspend"], Kind::Duration),
                Opt::new(&["switch-source"], Kind::Flag),
            ],
        ),
    )
    .often(),
];

const SOURCE: &[Opt] = &[
    Opt::new(&["helo"], Kind::HostName),
    Opt::new(&["weight"], Kind::Count(1)),
    Opt::new(&["warmup"], Kind::Word("a name")),
];

const DKIM: &[Opt] = &[
    Opt::new(&["domain"], Kind::Targ(DOMAINS)),
    Opt::new(&["selector"], Kind::HostName),
    Opt::new(&["key"], Kind::Word("a file")),
    Opt::new(&["from"], Kind::Table(mapping(ServiceKind::Dkim))),
    Opt::new(&["headers"], Kind::Literal),
    Opt::new(&["identity"], Kind::Word("an address")),
    Opt::new(&["ttl"], Kind::Duration),
    Opt::new(&["tag"], Kind::Targ(list(ServiceKind::String))),
];

const RATELIMIT: &[Opt] = &[
    Opt::new(&["key"], Kind::Word("what is counted")),
    Opt::new(&["rate"], Kind::Rate),
    Opt::new(&["burst"], Kind::Count(1)),
    Opt::new(&["share"], Kind::Word("a name")),
    Opt::new(
        &["then"],
        Kind::OneOf(&[
            Opt::new(&["tempfail"], Kind::Flag),
            Opt::new(&["slow"], Kind::Duration),
            Opt::new(&["disconnect"], Kind::Flag),
            Opt::new(&["reject"], Kind::Reply),
        ]),
    ),
];

const SHARE: &[Opt] = &[
    Opt::new(&["prefix"], Kind::Word("a text")),
    Opt::new(&["timeout"], Kind::Duration),
    Opt::new(&["on-failure"], Kind::Choice(&["local", "tempfail"])),
];

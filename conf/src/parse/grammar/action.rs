//! `action` (grammar §4.4).

use super::{LOGINS, NAME, form_of, list, mapping};
use crate::parse::schema::{Form, Item, Kind, Opt, Shape, Use};
use crate::tables::ServiceKind;

pub(super) const FORMS: &[Form] = &[
    form_of("action", "relay", &[NAME, Item::Key("relay")], RELAY),
    form_of("action", "mbox", &[NAME, Item::Key("mbox")], LOCAL),
    form_of("action", "maildir", &[NAME, Item::Key("maildir"), Item::Arg(Kind::MaybeWord)], MAILDIR),
    form_of("action", "mda", &[NAME, Item::Key("mda"), Item::Arg(Kind::Word("a command"))], LOCAL),
    form_of("action", "lmtp", &[NAME, Item::Key("lmtp"), Item::Arg(Kind::Word("a socket or host:port"))], LMTP),
    form_of("action", "expand-only", &[NAME, Item::Key("expand-only")], LOCAL),
    form_of("action", "forward-only", &[NAME, Item::Key("forward-only")], LOCAL),
    form_of("action", "discard", &[NAME, Item::Key("discard")], &[FEEDBACK]),
];

const ALIAS: Opt = Opt::new(&["alias"], Kind::Targ(mapping(ServiceKind::Alias)));
const VIRTUAL: Opt = Opt::new(&["virtual"], Kind::Targ(mapping(ServiceKind::Alias)));
const USER: Opt = Opt::new(&["user"], Kind::Word("a name"));
const USERBASE: Opt = Opt::new(&["userbase"], Kind::Targ(mapping(ServiceKind::UserInfo)));
const WRAPPER: Opt = Opt::new(&["wrapper"], Kind::Word("a name"));
const FEEDBACK: Opt = Opt::new(&["feedback"], Kind::Flag);
const TTL: Opt = Opt::new(&["ttl"], Kind::Duration);

const LOCAL: &[Opt] = &[ALIAS, VIRTUAL, USER, USERBASE, WRAPPER, FEEDBACK, TTL];
const MAILDIR: &[Opt] = &[Opt::new(&["junk"], Kind::Flag), ALIAS, VIRTUAL, USER, USERBASE, WRAPPER, FEEDBACK, TTL];
const LMTP: &[Opt] = &[Opt::new(&["rcpt-to"], Kind::Flag), ALIAS, VIRTUAL, USER, USERBASE, WRAPPER, FEEDBACK, TTL];

/// As a mapping, the same URLs are asked for by domain.
const ROUTES: Use = Use { service: ServiceKind::RelayHost, shape: Shape::Mapping, called: None };

const RELAY: &[Opt] = &[
    ALIAS,
    VIRTUAL,
    Opt::new(&["backup"], Kind::Then(&Kind::Flag, &[Opt::new(&["mx"], Kind::HostName)])),
    Opt::new(&["host"], Kind::Targ(list(ServiceKind::RelayHost))),
    Opt::new(&["domain"], Kind::Targ(ROUTES)),
    Opt::new(
        &["src"],
        Kind::Else(&Opt::new(&["pool"], Kind::Word("a name")), &Kind::Targ(list(ServiceKind::SourceAddr))),
    ),
    Opt::new(&["helo"], Kind::HostName),
    Opt::new(&["helo-src"], Kind::Targ(mapping(ServiceKind::AddrName))),
    Opt::new(&["auth"], Kind::Targ(LOGINS)),
    Opt::new(&["tls"], Kind::MaybeChoice(&["no-verify", "dane"])),
    Opt::new(&["pki"], Kind::Word("a name")),
    Opt::new(&["ca"], Kind::Word("a name")),
    Opt::new(&["protocols"], Kind::Word("a list of protocols")),
    Opt::new(&["ciphers"], Kind::Word("a list of ciphers")),
    Opt::new(&["mail-from"], Kind::Word("an address")),
    Opt::new(&["srs"], Kind::Flag),
    Opt::new(&["verp"], Kind::Flag),
    Opt::new(&["filter"], Kind::Names),
    Opt::new(&["shaping"], Kind::Word("a name")),
    Opt::new(&["dkim"], Kind::Names),
    FEEDBACK,
    TTL,
];

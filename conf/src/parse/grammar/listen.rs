//! `listen`, `pki`, `ca` (grammar §4.1, §4.2).

use super::{NAME, form_of, list, mapping};
use crate::parse::schema::{Form, Item, Kind, Opt, Shape, Use};
use crate::tables::ServiceKind;

pub(super) const FORMS: &[Form] = &[
    form_of("listen", "listen", &[Item::Key("on"), Item::Key("socket")], SOCKET),
    form_of("listen", "listen", &[Item::Key("on"), Item::Arg(Kind::Place)], LISTENER),
    form_of("pki", "pki", &[NAME], PKI),
    form_of("ca", "ca", &[NAME], CA),
];

const SOCKET: &[Opt] = &[
    Opt::new(&["tag"], Kind::Word("a word")),
    Opt::new(&["filter"], Kind::Names),
    Opt::new(&["mask-src"], Kind::Flag),
    Opt::new(&["no-dsn"], Kind::Flag),
    Opt::old(&["mask-source"], "mask-src", Kind::Flag),
];

const LISTENER: &[Opt] = &[
    Opt::new(&["inet4"], Kind::Flag),
    Opt::new(&["inet6"], Kind::Flag),
    Opt::new(&["port"], Kind::Port),
    Opt::new(&["proxy-v2"], Kind::MaybeTable(list(ServiceKind::NetAddr))),
    Opt::new(&["tls"], Kind::Flag),
    Opt::new(&["tls-require"], Kind::MaybeChoice(&["verify"])),
    Opt::new(&["smtps"], Kind::MaybeChoice(&["verify"])),
    Opt::new(&["pki"], Kind::Word("a name")).often(),
    Opt::new(&["ca"], Kind::Word("a name")),
    Opt::new(&["protocols"], Kind::Word("a list of protocols")),
    Opt::new(&["ciphers"], Kind::Word("a list of ciphers")),
    Opt::new(&["auth"], Kind::MaybeTable(mapping(ServiceKind::Credentials))),
    Opt::new(&["auth-optional"], Kind::MaybeTable(mapping(ServiceKind::Credentials))),
    Opt::new(&["auth-cert"], Kind::MaybeTable(SUBJECTS)),
    Opt::new(&["senders"], Kind::Then(&Kind::Targ(mapping(ServiceKind::MailAddrMap)), MASQUERADE)),
    Opt::new(&["hostname"], Kind::HostName),
    Opt::new(&["hostnames"], Kind::Targ(mapping(ServiceKind::AddrName))),
    Opt::new(&["tag"], Kind::Word("a word")),
    Opt::new(&["filter"], Kind::Names),
    Opt::new(&["mask-src"], Kind::Flag),
    Opt::new(&["no-dsn"], Kind::Flag),
    Opt::new(&["received-auth"], Kind::Flag),
    Opt::new(&["max-message-size"], Kind::Size),
    Opt::new(&["ratelimit"], Kind::Names),
    Opt::old(&["certificate"], "pki", Kind::Word("a name")),
    Opt::old(&["mask-source"], "mask-src", Kind::Flag),
    // Two listeners at once: `old_style.rs` takes them apart.
    Opt::new(&["secure"], Kind::Flag),
    Opt::new(&["ssl"], Kind::Flag),
];

/// Users by what stands in a certificate.
const SUBJECTS: Use = Use { service: ServiceKind::Cert, shape: Shape::Subjects, called: None };

const MASQUERADE: &[Opt] = &[Opt::new(&["masquerade"], Kind::Flag)];

const PKI: &[Opt] = &[
    Opt::new(&["cert"], Kind::Word("a file")),
    Opt::new(&["key"], Kind::Word("a file")),
    Opt::new(&["dhe"], Kind::Word("a word")),
    Opt::new(&["from"], Kind::Table(mapping(ServiceKind::Cert))),
    Opt::old(&["certificate"], "cert", Kind::Word("a file")),
    Opt::old(&["dhparams"], "dhe", Kind::Word("a file")),
];

const CA: &[Opt] =
    &[Opt::new(&["cert"], Kind::Word("a file")), Opt::old(&["certificate"], "cert", Kind::Word("a file"))];

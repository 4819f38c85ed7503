//! `match` (grammar §4.5).

use super::list;
use crate::parse::schema::{Form, Kind, Opt, Rest, Shape, Use};
use crate::tables::ServiceKind;

pub(super) const FORMS: &[Form] =
    &[Form { statement: "match", name: "match", head: &[], options: CONDITIONS, rest: Rest::Conditions(MISSING) }];

const MISSING: &str = "`action NAME` or `reject`";

const ADDRESSES: Use = list(ServiceKind::MailAddr);
const WORDS: Use = list(ServiceKind::String);
const DOMAINS: Use = list(ServiceKind::Domain);
const FOR_DOMAIN: Use = Use { service: ServiceKind::Domain, shape: Shape::List, called: Some("for domain") };

/// In the order in which they are printed.
const CONDITIONS: &[Opt] = &[
    Opt::new(&["tag"], Kind::Pattern(WORDS)),
    Opt::new(&["helo"], Kind::Pattern(DOMAINS)),
    Opt::new(&["tls"], Kind::Flag),
    Opt::new(&["auth"], Kind::MaybePattern(WORDS)),
    Opt::new(&["cert"], Kind::MaybePattern(WORDS)),
    Opt::new(&["mail-from"], Kind::Pattern(ADDRESSES)),
    Opt::new(&["rcpt-to"], Kind::Pattern(ADDRESSES)),
    Opt::new(&["from"], Kind::OneOf(ORIGINS)),
    Opt::new(&["for"], Kind::OneOf(DESTINATIONS)),
    Opt::new(&["action"], Kind::Word("a name")).last(),
    Opt::new(&["reject"], Kind::MaybeReply).last(),
];

const ORIGINS: &[Opt] = &[
    Opt::new(&["any"], Kind::Flag),
    Opt::new(&["local"], Kind::Flag),
    Opt::new(&["socket"], Kind::Flag),
    Opt::new(&["src"], Kind::Pattern(list(ServiceKind::NetAddr))),
    Opt::new(&["rdns"], Kind::MaybePattern(DOMAINS)),
    Opt::new(&["auth"], Kind::MaybePattern(WORDS)),
    Opt::new(&["mail-from"], Kind::Pattern(ADDRESSES)),
    Opt::new(&["cert"], Kind::MaybePattern(WORDS)),
];

const DESTINATIONS: &[Opt] = &[
    Opt::new(&["any"], Kind::Flag),
    Opt::new(&["local"], Kind::Flag),
    Opt::new(&["domain"], Kind::Pattern(FOR_DOMAIN)),
    Opt::new(&["rcpt-to"], Kind::Pattern(ADDRESSES)),
];

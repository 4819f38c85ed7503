//! `filter`, `proc` (grammar §4.6).

use super::{NAME, form_of, list};
use crate::parse::schema::{Form, Item, Kind, Opt, Rest, Use};
use crate::tables::ServiceKind;

pub(super) const FORMS: &[Form] = &[
    Form {
        statement: "filter",
        name: "filter",
        head: &[NAME, Item::Key("phase"), Item::Arg(Kind::Choice(PHASES)), Item::Key("match")],
        options: CONDITIONS,
        rest: Rest::Conditions("bypass, junk, disconnect, reject, rewrite or report"),
    },
    form_of("filter", "chain", &[NAME, Item::Key("chain"), Item::Arg(Kind::NameBlock)], &[]),
    form_of("filter", "proc", &[NAME, Item::Key("proc"), NAME], &[]),
    form_of("filter", "proc-exec", &[NAME, Item::Key("proc-exec"), Item::Arg(Kind::Word("a command"))], PROGRAM),
    form_of("filter", "milter", &[NAME, Item::Key("milter"), Item::Arg(Kind::Word("a socket"))], MILTER),
    form_of("proc", "proc", &[NAME, Item::Arg(Kind::Word("a command"))], PROGRAM),
];

/// In the order in which a session meets them; `helo` and `ehlo` are the same moment.
pub(crate) const PHASES: &[&str] = &["connect", "helo", "ehlo", "auth", "mail-from", "rcpt-to", "data", "commit"];

const ADDRESSES: Use = list(ServiceKind::MailAddr);
const DOMAINS: Use = list(ServiceKind::Domain);

const CONDITIONS: &[Opt] = &[
    Opt::new(&["fcrdns"], Kind::Flag),
    Opt::new(&["rdns"], Kind::MaybePattern(DOMAINS)),
    Opt::new(&["src"], Kind::Pattern(list(ServiceKind::NetAddr))),
    Opt::new(&["helo"], Kind::Pattern(DOMAINS)),
    Opt::new(&["auth"], Kind::MaybePattern(list(ServiceKind::String))),
    Opt::new(&["mail-from"], Kind::Pattern(ADDRESSES)),
    Opt::new(&["rcpt-to"], Kind::Pattern(ADDRESSES)),
    Opt::new(&["dnsbl"], Kind::Targ(DOMAINS)),
    Opt::new(&["spf"], Kind::Choice(&["pass", "fail", "softfail", "neutral", "none", "temperror", "permerror"])),
    Opt::new(&["dmarc"], Kind::Choice(&["pass", "fail", "none"])),
    Opt::new(&["bypass"], Kind::Flag).last(),
    Opt::new(&["junk"], Kind::Flag).last(),
    Opt::new(&["disconnect"], Kind::Reply).last(),
    Opt::new(&["reject"], Kind::Reply).last(),
    Opt::new(&["rewrite"], Kind::Word("a text")).last(),
    Opt::new(&["report"], Kind::Word("a text")).last(),
];

const ON_FAILURE: Opt = Opt::new(&["on-failure"], Kind::Choice(&["tempfail", "bypass"]));
const TIMEOUT: Opt = Opt::new(&["timeout"], Kind::Duration);

const PROGRAM: &[Opt] = &[
    Opt::new(&["user"], Kind::Word("a name")),
    Opt::new(&["group"], Kind::Word("a name")),
    Opt::new(&["chroot"], Kind::Word("a directory")),
    TIMEOUT,
    ON_FAILURE,
];

const MILTER: &[Opt] = &[TIMEOUT, ON_FAILURE];

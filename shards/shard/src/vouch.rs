//! Who vouches for the hosts of a destination, and what the connection to them must be therefore: DNSSEC (DANE, RFC 7672),
//! before the domain's own policy (MTA-STS, RFC 8461 §2), before nobody.

use ringpost_conf::RelayTls;
use ringpost_queue::Flags;
use ringpost_routes::{Channel, Encryption, Held, PolicyKind, Tlsa};
use ringpost_tls::{is_usable, needs_name};

use crate::ask::{Dane, Exchanger, Mode, Policy};

/// Whose word about the hosts of a destination is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Care {
    /// Nobody's: the action says itself what connections must be.
    Nobody,
    /// Whoever's there is.
    Whoever,
    /// DNSSEC's, or nothing is sent (`tls dane`).
    Dnssec,
    /// Somebody's, or nothing is sent (REQUIRETLS, RFC 8689 §4.2.1).
    Somebody,
}

/// What the sender of a message wishes (RFC 8689).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Nothing.
    Nothing,
    /// TLS to a server that is known, or no delivery (REQUIRETLS).
    Tls,
    /// Delivery, whatever the recipient's domain demands (`TLS-Required: No`).
    Delivery,
}

impl Wish {
    /// Of a message with these flags.
    pub(crate) fn of(flags: Flags) -> Self {
        match flags {
            _ if flags.contains(Flags::REQUIRES_TLS) => Self::Tls,
            _ if flags.contains(Flags::WAIVES_TLS) => Self::Delivery,
            _ => Self::Nothing,
        }
    }
}

/// Why a host is not to be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Barred {
    /// Not now: it may be proven later.
    Now(String),
    /// Nobody vouches for it who must.
    Unproven(String),
}

const VERIFIED: Channel = Channel { encryption: Encryption::StartTls, verify: true };
const ENCRYPTED: Channel = Channel { encryption: Encryption::StartTls, verify: false };

/// What an exchanger is held to, whether it must obey or not.
pub(crate) fn held(care: Care, domain: &str, host: &Exchanger, policy: Option<&Policy>) -> Option<Held> {
    let by = |kind, testing| Some(Held { domain: domain.into(), kind, testing });
    match (&host.dane, policy) {
        _ if care != Care::Whoever => None,
        (Dane::Records(_) | Dane::Failed(_), _) => by(PolicyKind::Dane, false),
        (_, Some(policy)) => by(PolicyKind::Sts, policy.mode == Mode::Testing),
        _ => None,
    }
}

/// What is wrong with an exchanger before it is connected to, in the words of RFC 8460 §4.3.
pub(crate) fn fault(host: &Exchanger, policy: Option<&Policy>) -> Option<&'static str> {
    match (&host.dane, policy) {
        (Dane::Failed(_), _) => Some("dnssec-invalid"),
        (Dane::Records(records), _) => (!records.iter().any(|record| is_usable(record))).then_some("tlsa-invalid"),
        (_, Some(policy)) if !policy.names(&host.name) => Some("validation-failure"),
        _ => None,
    }
}

/// What is wrong with a handshake, in the same words, by what TLS says.
pub(crate) fn fault_of_handshake(why: &str) -> &'static str {
    let said = |word: &str| why.contains(word);
    match why {
        _ if said("STARTTLS") => "starttls-not-supported",
        _ if said("not valid for name") => "certificate-host-mismatch",
        _ if said("expired") => "certificate-expired",
        _ if said("UnknownIssuer") || said("BadSignature") || said("CaUsedAsEndEntity") => "certificate-not-trusted",
        _ => "validation-failure",
    }
}

/// What the connection to an exchanger of `domain` must be.
///
/// # Errors
/// It is not to be used.
pub(crate) fn demand(
    care: Care,
    domain: &str,
    host: &Exchanger,
    policy: Option<&Policy>,
) -> Result<(Channel, Option<Tlsa>), Barred> {
    if care == Care::Nobody {
        return Ok((Channel::default(), None));
    }
    let name = &host.name;
    let encrypted = match &host.dane {
        // RFC 7672 §2.1.3: who could not be asked may have said something.
        Dane::Failed(why) => return Err(Barred::Now(format!("DANE: the TLSA records of {name}: {why}"))),
        Dane::Records(records) if records.iter().any(|record| is_usable(record)) => {
            let next_hop = records.iter().any(|record| needs_name(record)).then(|| domain.into());
            return Ok((VERIFIED, Some(Tlsa { records: records.clone(), next_hop })));
        }
        Dane::Records(_) if care == Care::Dnssec => {
            return Err(Barred::Now(format!("DANE: none of the TLSA records of {name} is usable")));
        }
        Dane::Absent if care == Care::Dnssec => return Err(Barred::Now(format!("DANE: {name} has no TLSA records"))),
        Dane::Insecure(what) if care == Care::Dnssec => {
            return Err(Barred::Now(format!("DANE: DNSSEC does not vouch for {what}")));
        }
        // RFC 7672 §2.2: to be encrypted, whoever it is.
        Dane::Records(_) => true,
        Dane::Absent | Dane::Insecure(_) => false,
    };
    match policy {
        Some(policy) if policy.mode == Mode::Enforce || care == Care::Somebody => match policy.names(name) {
            true => Ok((VERIFIED, None)),
            false => Err(Barred::Now(format!("MTA-STS: the policy of {domain} does not name {name}"))),
        },
        _ if care == Care::Somebody => match host.dane {
            Dane::Insecure(_) => Err(Barred::Unproven(format!(
                "REQUIRETLS: neither DNSSEC nor an MTA-STS policy vouches for {name} as exchanger of {domain}"
            ))),
            _ => Ok((VERIFIED, None)),
        },
        _ if encrypted => Ok((ENCRYPTED, None)),
        _ => Ok((Channel::default(), None)),
    }
}

/// What a connection must be that a shape wants to be encrypted (grammar §4.13). Nothing that was demanded before is spared, and
/// what the administrator's URL has in clear stays so.
pub(crate) fn at_least(channel: Channel, tls: RelayTls) -> Channel {
    let encryption = match channel.encryption {
        Encryption::Never => return channel,
        Encryption::IfOffered if tls == RelayTls::Opportunistic => return channel,
        Encryption::IfOffered => Encryption::StartTls,
        encryption => encryption,
    };
    Channel { encryption, verify: channel.verify || matches!(tls, RelayTls::Verified | RelayTls::Dane) }
}

impl Policy {
    /// Whether a host is an exchanger of the domain: by its name, or by one with `*` for its first label (RFC 8461 §4.1).
    pub fn names(&self, host: &str) -> bool {
        self.patterns.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
            None => pattern.eq_ignore_ascii_case(host),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn host(dane: Dane) -> Exchanger {
        Exchanger { preference: 10, name: "mx.a.example".into(), addresses: vec![], dane }
    }

    fn records(records: &[&[u8]]) -> Dane {
        Dane::Records(records.iter().map(|record| Box::from(*record)).collect::<Vec<Box<[u8]>>>().into())
    }

    fn digest(usage: u8) -> Vec<u8> {
        [&[usage, 1, 1][..], &[9; 32]].concat()
    }

    fn policy(mode: Mode, patterns: &[&str]) -> Policy {
        Policy { mode, patterns: patterns.iter().map(|pattern| (*pattern).to_owned()).collect() }
    }

    #[test]
    fn patterns_stand_for_one_label() {
        let policy = policy(Mode::Enforce, &["mx.a.example", "*.b.example"]);
        for (name, is) in [
            ("MX.a.example", true),
            ("x.b.example", true),
            ("b.example", false),
            ("x.y.b.example", false),
            ("other.a.example", false),
        ] {
            assert_eq!(policy.names(name), is, "{name}");
        }
    }

    #[test]
    fn dnssec_is_heard_before_the_policy_and_the_policy_before_nobody() {
        let unusable = records(&[&digest(1)]);
        let (itself, authority) = (records(&[&digest(3)]), records(&[&digest(2), &digest(1)]));
        let enforce = policy(Mode::Enforce, &["mx.other.example"]);
        let matching = policy(Mode::Enforce, &["*.a.example"]);
        let testing = policy(Mode::Testing, &["mx.other.example"]);
        let ask = |care, dane: &Dane, policy| demand(care, "a.example", &host(dane.clone()), policy);
        let plain = Ok((Channel::default(), None));

        let (channel, tlsa) = ask(Care::Whoever, &itself, Some(&enforce)).unwrap();
        assert_eq!((channel, tlsa.unwrap().next_hop), (VERIFIED, None));
        let tlsa = ask(Care::Whoever, &authority, None).unwrap().1.unwrap();
        assert_eq!(tlsa.next_hop.as_deref(), Some("a.example"));
        assert_eq!(ask(Care::Whoever, &unusable, None), Ok((ENCRYPTED, None)));
        assert_eq!(ask(Care::Whoever, &Dane::Absent, None), plain);
        assert_eq!(ask(Care::Whoever, &Dane::Absent, Some(&testing)), plain);
        assert_eq!(ask(Care::Whoever, &Dane::Absent, Some(&matching)), Ok((VERIFIED, None)));
        assert!(matches!(ask(Care::Whoever, &Dane::Absent, Some(&enforce)), Err(Barred::Now(_))));
        let failed = Dane::Failed("bogus".into());
        for care in [Care::Whoever, Care::Dnssec, Care::Somebody] {
            assert!(matches!(ask(care, &failed, None), Err(Barred::Now(_))), "{care:?}");
        }
        assert_eq!(ask(Care::Nobody, &failed, Some(&enforce)), plain);

        for lacking in [&unusable, &Dane::Absent, &Dane::Insecure("it")] {
            assert!(matches!(ask(Care::Dnssec, lacking, Some(&matching)), Err(Barred::Now(_))), "{lacking:?}");
        }
        assert!(matches!(ask(Care::Somebody, &Dane::Insecure("it"), None), Err(Barred::Unproven(_))));
        assert_eq!(ask(Care::Somebody, &Dane::Insecure("it"), Some(&matching)), Ok((VERIFIED, None)));
        assert_eq!(ask(Care::Somebody, &Dane::Absent, None), Ok((VERIFIED, None)));
        assert!(ask(Care::Somebody, &itself, None).unwrap().1.is_some());
    }

    #[test]
    fn a_shape_raises_what_a_connection_must_be_and_never_lowers_it() {
        let clear = Channel { encryption: Encryption::Never, verify: false };
        let implicit = |verify| Channel { encryption: Encryption::Implicit, verify };
        for (channel, encrypted, verified) in [
            (Channel::default(), ENCRYPTED, VERIFIED),
            (ENCRYPTED, ENCRYPTED, VERIFIED),
            (VERIFIED, VERIFIED, VERIFIED),
            (implicit(false), implicit(false), implicit(true)),
            (clear, clear, clear),
        ] {
            assert_eq!(at_least(channel, RelayTls::Encrypted), encrypted, "{channel:?}");
            assert_eq!(at_least(channel, RelayTls::Verified), verified, "{channel:?}");
            assert_eq!(at_least(channel, RelayTls::Opportunistic), channel);
        }
    }

    #[test]
    fn answers_are_shared_by_those_who_keep_them() {
        let Dane::Records(all) = records(&[&digest(3)]) else { unreachable!() };
        let host = host(Dane::Records(all.clone()));
        let tlsa = demand(Care::Dnssec, "a.example", &host, None).unwrap().1.unwrap();
        assert!(Arc::ptr_eq(&tlsa.records, &all));
    }
}
